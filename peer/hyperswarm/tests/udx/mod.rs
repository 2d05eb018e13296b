//! What the tests of UDX share: a pattern of bytes, udx-native in a process of its own, a link that loses packets.

#![allow(dead_code, reason = "each test uses its part")]

pub mod link;
pub mod proxy;

use datdot_hyperswarm::udx::{Config, Path, Udx, UdxStream};
use std::net::SocketAddr;
use std::path::Path as File;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Byte `n` of the pattern that all tests send; the programs in JavaScript have the same.
pub fn pattern(n: u64) -> u8 {
    (n.wrapping_mul(7) as u8).wrapping_add((n >> 8) as u8)
}

/// The pattern from byte `from` on.
pub fn piece(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(pattern).collect()
}

/// Fails the test when something takes longer than a minute.
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("it does not take a minute")
}

/// Writes `len` bytes of the pattern and ends.
pub async fn send(writer: &mut (impl AsyncWriteExt + Unpin), len: u64) -> std::io::Result<()> {
    let buffer = piece(0, 2 << 16);
    let mut sent = 0;
    while sent < len {
        let from = (sent % (1 << 16)) as usize;
        let size = ((len - sent) as usize).min(1 << 16);
        writer.write_all(&buffer[from..from + size]).await?;
        sent += size as u64;
    }
    writer.shutdown().await
}

/// Reads the pattern to its end; returns its length.
pub async fn receive(reader: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<u64> {
    let expected = piece(0, 2 << 16);
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0u64;
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(received);
        }
        let from = (received % (1 << 16)) as usize;
        assert!(buffer[..count] == expected[from..from + count], "wrong bytes after {received}");
        received += count as u64;
    }
}

/// One end of a stream on loopback.
pub async fn local(id: u32) -> (Udx, datdot_hyperswarm::udx::UdxSocket, datdot_hyperswarm::udx::Pending) {
    let udx = Udx::new();
    let (socket, _) = udx.bind(([127, 0, 0, 1], 0).into()).await.expect("loopback has a port");
    let pending = udx.stream(id, Config::default()).expect("the id is free");
    (udx, socket, pending)
}

/// Two ends, connected directly or by way of a proxy.
pub async fn pair(proxy: Option<proxy::Faults>) -> (UdxStream, UdxStream, Option<proxy::Proxy>) {
    let (_, near, a) = local(1).await;
    let (_, far, b) = local(2).await;
    let (mut to_far, mut to_near, mut between) = (far.local_addr(), near.local_addr(), None);
    if let Some(faults) = proxy {
        let proxy = proxy::Proxy::start(near.local_addr(), far.local_addr(), faults).await;
        (to_far, to_near) = (proxy.for_near, proxy.for_far);
        between = Some(proxy);
    }
    let a = a.connect(&near, Path { stream: 2, address: to_far }, 0);
    let b = b.connect(&far, Path { stream: 1, address: to_near }, 0);
    (a, b, between)
}

/// udx-native, running `tests/js/udx.js`.
pub struct Js {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Js {
    /// Starts it in one of its modes; returns its address too.
    pub async fn start(args: &[&str]) -> (Js, SocketAddr) {
        let dir = File::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js");
        static INSTALL: Mutex<()> = Mutex::new(());
        {
            let _one_at_a_time = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
            if !dir.join("node_modules/udx-native").exists() {
                let npm = std::process::Command::new("npm").args(["ci", "--silent"]).current_dir(&dir).status();
                assert!(npm.expect("npm is installed").success());
            }
        }
        let mut child = Command::new("node")
            .arg("udx.js")
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut js = Js { child, input, output };
        let port = js.event("listening").await["port"].as_u64().expect("a port") as u16;
        (js, ([127, 0, 0, 1], port).into())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The next line about `event`, within a minute.
    pub async fn event(&mut self, event: &str) -> serde_json::Value {
        soon(self.event_at_last(event)).await
    }

    /// The next line about `event`.
    pub async fn event_at_last(&mut self, event: &str) -> serde_json::Value {
        {
            while let Some(line) = self.output.next_line().await.expect("text") {
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                println!("javascript: {line}");
                let name = line["event"].as_str().expect("each line has an event");
                assert!(name != "wrong", "{line}");
                if name == event {
                    return line;
                }
            }
            panic!("the program ended without {event}")
        }
    }

    /// Tells it something.
    pub async fn write(&mut self, line: String) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }
}

/// A stream of ours, connected with JavaScript in one of its modes, directly or by way of a proxy.
pub async fn with_js(args: &[&str], proxy: Option<proxy::Faults>) -> (UdxStream, Js, Option<proxy::Proxy>) {
    let (_, socket, pending) = local(1).await;
    let (mut js, mut address) = Js::start(args).await;
    let mut ours = socket.local_addr();
    let mut between = None;
    if let Some(faults) = proxy {
        let proxy = proxy::Proxy::start(ours, address, faults).await;
        (address, ours) = (proxy.for_near, proxy.for_far);
        between = Some(proxy);
    }
    js.write(format!("connect {}", ours.port())).await;
    (pending.connect(&socket, Path { stream: 2, address }, 0), js, between)
}
