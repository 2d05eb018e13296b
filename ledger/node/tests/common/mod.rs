//! Asks a node over HTTP, and runs nodes as processes that end with the test.

#![allow(dead_code, reason = "each test uses its part of this")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// One JSON-RPC call.
pub fn call(rpc: SocketAddr, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(rpc).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {rpc}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
    )
    .expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let answer: Value = serde_json::from_str(body).expect("JSON");
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

/// The height of the best block.
pub fn best(rpc: SocketAddr) -> u64 {
    height(&call(rpc, "chain_getHeader", json!([])))
}

/// The height and hash of the last finalized block.
pub fn finalized(rpc: SocketAddr) -> (u64, String) {
    let hash = call(rpc, "chain_getFinalizedHead", json!([]));
    (height(&call(rpc, "chain_getHeader", json!([hash]))), hash.as_str().expect("a hash").to_owned())
}

/// The hash of the block at this height on the best chain.
pub fn hash_at(rpc: SocketAddr, height: u64) -> Option<String> {
    call(rpc, "chain_getBlockHash", json!([height])).as_str().map(str::to_owned)
}

fn height(header: &Value) -> u64 {
    let number = header["number"].as_str().and_then(|number| number.strip_prefix("0x")).expect("a number in hex");
    u64::from_str_radix(number, 16).expect("a number in hex")
}

/// Asks five times a second until the answer is yes.
pub fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < patience, "waited {patience:?} for this: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The binary, as a process.
pub struct Process {
    child: Child,
    pub rpc: SocketAddr,
    /// The address for other nodes, if it listens.
    pub p2p: Option<String>,
}

impl Process {
    /// Starts it with these arguments on a free RPC port, and waits until it answers.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_datdot-node"))
            .args(["--rpc-port", "0", "--dir"])
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary has been built");
        let stdout = child.stdout.take().expect("piped");
        let listens = args.contains(&"--port");
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut value = |name: &str| lines.find_map(|line| line.strip_prefix(name).map(str::to_owned));
            let rpc = value("rpc ws://").and_then(|rpc| rpc.parse().ok());
            let p2p = if listens { value("p2p ") } else { None };
            // Nobody listens any more after a timeout.
            let _ = send.send(rpc.map(|rpc| (rpc, p2p)));
        });
        let process = |rpc, p2p| Self { child, rpc, p2p };
        match receive.recv_timeout(Duration::from_secs(60)) {
            Ok(Some((rpc, p2p))) => process(rpc, p2p),
            other => {
                drop(process(([127, 0, 0, 1], 0).into(), None));
                panic!("the node did not start: {other:?}");
            }
        }
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
