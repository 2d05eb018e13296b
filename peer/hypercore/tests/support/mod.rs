//! What the tests with other peers share: feeds with known blocks, networks on loopback, JavaScript programs.

#![allow(dead_code, reason = "each test program uses a part")]

use bytes::Bytes;
use datdot_hypercore::{Config, Feed, Keypair, Network, Store};
use datdot_wire::noise;
use std::{
    path::Path,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Block `i`, the same as in `tests/js/blocks.js`.
pub fn block(i: u64, size: usize) -> Bytes {
    format!("block {i} ").bytes().cycle().take(size).collect::<Vec<_>>().into()
}

pub fn keypair(name: u8) -> Keypair {
    Keypair::from_seed([name; 32])
}

/// Appends blocks of `size` bytes in batches.
pub async fn append(feed: &Feed, count: u64, size: usize) {
    let end = feed.info().length + count;
    while feed.info().length < end {
        let start = feed.info().length;
        let batch = (start..end.min(start + 64)).map(|i| block(i, size)).collect();
        feed.append(batch).await.expect("an author appends");
    }
}

pub async fn assert_blocks(feed: &Feed, count: u64, size: usize) {
    for i in 0..count {
        assert_eq!(feed.get(i).await.expect("the block is here"), block(i, size), "block {i}");
    }
}

/// A network on loopback with a store of its own.
pub async fn network(dir: &Path, name: u8) -> Network {
    let config =
        Config { listen: Some(([127, 0, 0, 1], 0).into()), ..Config::new(noise::Keypair::from_seed(&[name; 32])) };
    let store = Store::open(dir.join(format!("store-{name}"))).expect("the folder is free");
    Network::start(store, config).await.expect("a free port")
}

pub async fn connect(from: &Network, to: &Network) {
    let address = to.local_addr().expect("it listens");
    from.connect(address, Some(to.public_key())).await.expect("it answers");
}

/// Waits for something that has to come soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(100), what).await.expect("it comes in time")
}

/// A JavaScript program of `tests/js`, ended with the value.
pub struct Js {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Js {
    /// A program of `tests/js`.
    pub fn run(program: &str, args: &[String]) -> Js {
        Js::run_in("tests/js", program, args)
    }

    /// A program of any folder that has a `package-lock.json`.
    pub fn run_in(dir: &str, program: &str, args: &[String]) -> Js {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(dir);
        static INSTALL: Mutex<()> = Mutex::new(());
        {
            let _one_at_a_time = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
            if !dir.join("node_modules/corestore").exists() {
                let npm = std::process::Command::new("npm").args(["ci", "--silent"]).current_dir(&dir).status();
                assert!(npm.expect("npm is installed").success());
            }
        }
        let mut child = Command::new("node")
            .arg(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Js { _child: child, input, output }
    }

    /// The next line about `event`; a failure of the program fails the test.
    pub async fn event(&mut self, event: &str) -> serde_json::Value {
        soon(async {
            while let Some(line) = self.output.next_line().await.expect("text") {
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                println!("javascript: {line}");
                let name = line["event"].as_str().expect("each line has an event");
                assert!(!["failed", "timeout", "connection-error"].contains(&name), "{line}");
                if name == event {
                    return line;
                }
            }
            panic!("the program ended without {event}")
        })
        .await
    }

    pub async fn write(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }
}
