//! What the tests with other peers share: feeds with known blocks, networks on loopback, JavaScript programs.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod played;

use bytes::Bytes;
use datdot_hypercore::{Config, Feed, Keypair, Network, Store};
use datdot_wire::{
    connection::{self, Connection},
    noise::{self, Role},
};
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines, split},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Block `i`, the same as in `tests/js/blocks.js`.
pub fn block(i: u64, size: usize) -> Bytes {
    format!("block {i} ").bytes().cycle().take(size).collect::<Vec<_>>().into()
}

/// xorshift64*: good enough for odd questions, and the same in each run. Anything but 0.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
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

/// An author's network, and its feed with so many blocks.
pub async fn author(dir: &Path, count: u64, size: usize) -> (Network, Feed) {
    let author = network(dir, 1).await;
    let feed = author.store().create(&keypair(1)).expect("room");
    append(&feed, count, size).await;
    (author, feed)
}

/// What another network has of a feed: so far no more than its key.
pub fn copy_in(network: &Network, feed: &Feed) -> Feed {
    network.store().open_remote(feed.key(), None).expect("room")
}

pub async fn connect(from: &Network, to: &Network) {
    let address = to.local_addr().expect("it listens");
    from.connect(address, Some(to.public_key())).await.expect("it answers");
}

/// A link to an address that lets so many bytes a second pass each way, and holds few of them. Where to connect.
pub async fn slow_link(to: SocketAddr, bytes_per_second: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((here, _)) = listener.accept().await {
            let Ok(there) = TcpStream::connect(to).await else { continue };
            let ((here_in, here_out), (there_in, there_out)) = (here.into_split(), there.into_split());
            tokio::spawn(pour(here_in, there_out, bytes_per_second));
            tokio::spawn(pour(there_in, here_out, bytes_per_second));
        }
    });
    address
}

/// Joins two networks within the process, without a socket: the clock of a test may stand still.
pub async fn join(one: &Network, other: &Network, names: [u8; 2]) {
    let (ours, theirs) = tokio::io::duplex(256 << 10);
    let ((our_in, our_out), (their_in, their_out)) = (split(ours), split(theirs));
    attach([one, other], names, (our_in, our_out), (their_in, their_out)).await;
}

/// Joins two networks by a link as slow that holds next to nothing.
pub async fn join_slowly(one: &Network, other: &Network, names: [u8; 2], bytes_per_second: u64) {
    let pipe = || tokio::io::duplex(32 << 10);
    let ((one_out, to_other), (other_in, from_one)) = (pipe(), pipe());
    let ((other_out, to_one), (one_in, from_other)) = (pipe(), pipe());
    tokio::spawn(pour(to_other, from_one, bytes_per_second));
    tokio::spawn(pour(to_one, from_other, bytes_per_second));
    attach([one, other], names, (one_in, one_out), (other_in, other_out)).await;
}

/// Gives each of two networks its end of a connection, of which the first is the initiator.
async fn attach<R, W>(networks: [&Network; 2], names: [u8; 2], ours: (R, W), theirs: (R, W))
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let keys = names.map(|name| noise::Keypair::from_seed(&[name; 32]));
    let options = connection::Options::default();
    let ours = Connection::handshake(ours.0, ours.1, Role::Initiator, &keys[0], None, &options);
    let theirs = Connection::handshake(theirs.0, theirs.1, Role::Responder, &keys[1], None, &options);
    let (ours, theirs) = tokio::try_join!(ours, theirs).expect("honest peers");
    networks[0].attach(ours).expect("a place");
    networks[1].attach(theirs).expect("a place");
}

async fn pour(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, bytes_per_second: u64) {
    let (start, mut poured, mut buffer) = (Instant::now(), 0, vec![0; 32 << 10]);
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
        poured += len as u64;
        tokio::time::sleep_until((start + Duration::from_micros(poured * 1_000_000 / bytes_per_second)).into()).await;
    }
}

/// Waits for something that has to come soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(100), what).await.expect("it comes in time")
}

/// A JavaScript program of `tests/js`, ended with the value.
pub struct Js {
    child: Child,
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
        Js { child, input, output }
    }

    /// The next line about `event`; a failure of the program fails the test.
    pub async fn event(&mut self, event: &str) -> serde_json::Value {
        soon(async {
            while let Some(line) = self.output.next_line().await.expect("text") {
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                println!("javascript: {}", line.to_string().chars().take(300).collect::<String>());
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

    /// Its input and output, and what keeps it running.
    pub fn into_parts(self) -> (ChildStdin, Lines<BufReader<ChildStdout>>, Child) {
        (self.input, self.output, self.child)
    }

    pub async fn write(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }
}
