//! How fast UDX is, ours beside udx-native, each end in a process of its own:
//! `cargo bench -p datdot-hyperswarm --bench udx` (`-- --runs 3 --mb 1000`).
//!
//! Needs Node.js and `npm ci` in `tests/js`. Prints a table for docs/benchmarks.md.

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that can't go on fails")]

#[path = "../tests/udx/mod.rs"]
mod udx;

use datdot_hyperswarm::udx::{Path, UdxStream};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use udx::proxy::{Faults, Proxy};
use udx::{Js, local};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if args.iter().any(|arg| arg == "receive") {
        return runtime.block_on(receive());
    }
    if args.iter().any(|arg| arg == "ours") {
        let len = option("--mb").unwrap_or(1000) * 1_000_000;
        return (0..option("--runs").unwrap_or(3))
            .for_each(|_| println!("{:.0} MB/s", runtime.block_on(measure(true, true, len, None))));
    }
    runtime.block_on(compare(option("--runs").unwrap_or(3), option("--mb").unwrap_or(1000)));
}

async fn compare(runs: u64, mb: u64) {
    let link = Faults { delay: Duration::from_millis(25), loss: 10, ..Faults::default() };
    println!("| MB/s | ours → ours | udx-native → udx-native | ours → udx-native | udx-native → ours |");
    println!("|---|---|---|---|---|");
    for (name, faults, mb) in [("loopback", None, mb), ("1 % loss, 50 ms", Some(link), mb / 10)] {
        let mut columns = vec![Vec::new(); 4];
        for run in 0..runs {
            let faults = faults.map(|link| Faults { seed: run, ..link });
            for (column, (from_us, to_us)) in
                [(true, true), (false, false), (true, false), (false, true)].into_iter().enumerate()
            {
                columns[column].push(measure(from_us, to_us, mb * 1_000_000, faults).await);
            }
        }
        let columns: Vec<_> = columns
            .iter()
            .map(|runs| runs.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(", "))
            .collect();
        println!("| {name} | {} |", columns.join(" | "));
    }
}

/// MB/s from one process to another, from the first write until the sender knows that all has arrived.
async fn measure(from_us: bool, to_us: bool, len: u64, faults: Option<Faults>) -> f64 {
    let (udx, near, pending) = local(1).await;
    drop(udx);
    let receiver = if to_us { Remote::ours().await } else { Remote::javascript(&["receive", "--check=no"]).await };
    let sender = if from_us {
        None
    } else {
        Some(Remote::javascript(&["send", &format!("--bytes={len}"), "--theirs=1", "--ours=2"]).await)
    };
    let from = sender.as_ref().map_or(near.local_addr(), |sender| sender.address);
    let (mut to_receiver, mut to_sender) = (receiver.address, from);
    let _proxy = match faults {
        Some(faults) => {
            let proxy = Proxy::start(from, receiver.address, faults).await;
            (to_receiver, to_sender) = (proxy.for_near, proxy.for_far);
            Some(proxy)
        }
        None => None,
    };
    let mut receiver = receiver;
    receiver.connect(to_sender).await;
    let start = Instant::now();
    let took = match sender {
        Some(mut sender) => {
            sender.connect(to_receiver).await;
            sender.sent().await
        }
        None => {
            let mut stream = pending.connect(&near, Path { stream: 2, address: to_receiver }, 0);
            write(&mut stream, len).await;
            let took = start.elapsed();
            eprintln!("{:?}", stream.handle().stats());
            took
        }
    };
    len as f64 / 1e6 / took.as_secs_f64()
}

async fn write(stream: &mut UdxStream, len: u64) {
    let piece = vec![7; 64 << 10];
    let mut left = len as usize;
    while left > 0 {
        let size = left.min(piece.len());
        stream.write_all(&piece[..size]).await.unwrap();
        left -= size;
    }
    stream.shutdown().await.unwrap();
}

/// The process that receives: the stream is 2 here, and 1 there.
async fn receive() {
    let (_udx, socket, pending) = local(2).await;
    println!("{}", socket.local_addr());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let mut stream = pending.connect(&socket, Path { stream: 1, address: line.trim().parse().unwrap() }, 0);
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).await.unwrap() > 0 {}
    stream.shutdown().await.unwrap();
}

/// An end in another process.
struct Remote {
    kind: Kind,
    address: SocketAddr,
}

enum Kind {
    Ours(Child),
    Javascript(Box<Js>),
}

impl Remote {
    async fn ours() -> Remote {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("receive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        Remote { kind: Kind::Ours(child), address: line.trim().parse().unwrap() }
    }

    async fn javascript(args: &[&str]) -> Remote {
        let (js, address) = Js::start(args).await;
        Remote { kind: Kind::Javascript(Box::new(js)), address }
    }

    async fn connect(&mut self, to: SocketAddr) {
        match &mut self.kind {
            Kind::Ours(child) => child.stdin.as_mut().unwrap().write_all(format!("{to}\n").as_bytes()).await.unwrap(),
            Kind::Javascript(js) => js.write(format!("connect {}", to.port())).await,
        }
    }

    async fn sent(&mut self) -> Duration {
        let Kind::Javascript(js) = &mut self.kind else { unreachable!("we send ourselves") };
        Duration::from_millis(js.event("sent").await["ms"].as_u64().unwrap())
    }
}
