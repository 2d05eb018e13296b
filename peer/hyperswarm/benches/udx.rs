//! How fast UDX is, ours beside udx-native, each end in a process of its own:
//! `cargo bench -p datdot-hyperswarm --bench udx` (`-- --runs 3 --mb 1000`, `-- ours` for ours alone).
//!
//! Needs Linux, Node.js and `npm ci` in `tests/js`. Prints a table of docs/benchmarks.md. `cargo test` runs it too, with next to
//! nothing to send, to see that it works.

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that can't go on fails")]

#[path = "../tests/udx/mod.rs"]
mod udx;

use datdot_hyperswarm::udx::{Path, UdxStream};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use udx::link::Neck;
use udx::proxy::{Faults, Proxy};
use udx::{Js, local};

/// Who sends and who receives.
const PAIRS: [(&str, bool, bool); 4] = [
    ("ours → ours", true, true),
    ("udx-native → udx-native", false, false),
    ("ours → udx-native", true, false),
    ("udx-native → ours", false, true),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok());
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // What cargo says if it is to be measured.
    let (runs, mb) = if has("--bench") { (3, 1000) } else { (1, 20) };
    let (runs, mb) = (option("--runs").unwrap_or(runs), option("--mb").unwrap_or(mb));
    match (has("receive"), has("send"), has("ours")) {
        (true, ..) => runtime.block_on(receive()),
        (_, true, _) => runtime.block_on(send(mb * 1_000_000)),
        (.., true) => runtime.block_on(compare(&PAIRS[..1], runs, mb)),
        _ => runtime.block_on(compare(&PAIRS, runs, mb)),
    }
}

async fn compare(pairs: &[(&str, bool, bool)], runs: u64, mb: u64) {
    let link = Faults { delay: Duration::from_millis(25), ..Faults::default() };
    let (jitter, neck) = (Duration::from_millis(5), Some(Neck { rate: 12.5e6, queue: 1 << 20 }));
    // Each takes a few seconds.
    let paths = [
        ("loopback", None, mb),
        ("1 % loss, 50 ms", Some(Faults { loss: 10, ..link }), mb / 5),
        ("5 % loss, 50 ms", Some(Faults { loss: 50, ..link }), mb / 10),
        ("reordered by up to 5 ms, 50 ms", Some(Faults { jitter, ..link }), mb / 5),
        ("12.5 MB/s, 50 ms", Some(Faults { neck, ..link }), mb / 20),
    ];
    let mut rows = Vec::new();
    for (name, faults, mb) in paths {
        let mut means = Vec::new();
        let first = rows.len();
        for (pair, from_us, to_us) in pairs {
            let mut sum = 0.0;
            let (mut rates, mut costs) = (Vec::new(), Vec::new());
            for run in 0..runs {
                let faults = faults.map(|link| Faults { seed: run, ..link });
                let (took, cpu) = measure(*from_us, *to_us, mb, faults).await;
                let rate = mb as f64 / took.as_secs_f64();
                let costs_now = cpu.map(|seconds| format!("{:.2}", seconds * 1000.0 / mb as f64)).join(" + ");
                eprintln!("{name}, {pair}: {rate:.0} MB/s, {costs_now} s of CPU a GB");
                sum += rate;
                rates.push(format!("{rate:.0}"));
                costs.push(costs_now);
            }
            means.push(sum / runs as f64);
            rows.push(format!("| {name} | {pair} | {} | {} |", rates.join(", "), costs.join(", ")));
        }
        if let [ours, native, ..] = means[..] {
            rows[first] += &format!(" {:.2} ×", ours / native);
        }
        rows[first..].iter_mut().for_each(|row| *row += " |");
    }
    println!(
        "| path | from → to | MB/s | CPU seconds a GB, sender + receiver | to reach: 2 × udx-native, or the path |\n|---|---|---|---|---|\n{}",
        rows.join("\n")
    );
}

/// Time from the first write until the sender knows that all has arrived, and seconds of CPU at both ends.
async fn measure(from_us: bool, to_us: bool, mb: u64, faults: Option<Faults>) -> (Duration, [f64; 2]) {
    let mut receiver = match to_us {
        true => Remote::ours(&["receive"]).await,
        false => Remote::javascript(&["receive", "--check=no", "--theirs=2", "--ours=1"]).await,
    };
    let mut sender = match from_us {
        true => Remote::ours(&["send", "--mb", &mb.to_string()]).await,
        false => Remote::javascript(&["send", &format!("--bytes={mb}000000"), "--theirs=1", "--ours=2"]).await,
    };
    let (mut to_receiver, mut to_sender, mut between) = (receiver.address, sender.address, None);
    if let Some(faults) = faults {
        let proxy = Proxy::start(sender.address, receiver.address, faults).await;
        (to_receiver, to_sender) = (proxy.for_near, proxy.for_far);
        between = Some(proxy);
    }
    let before = [&sender, &receiver].map(Remote::cpu);
    receiver.connect(to_sender).await;
    sender.connect(to_receiver).await;
    let took = sender.sent().await;
    let cpu = [sender.cpu() - before[0], receiver.cpu() - before[1]];
    drop(between);
    (took, cpu)
}

/// The process that sends, on the stream that is 1 here and 2 there.
async fn send(len: u64) {
    let mut stream = here(1, 2).await;
    let start = Instant::now();
    let piece = vec![7; 64 << 10];
    let mut left = len as usize;
    while left > 0 {
        let size = left.min(piece.len());
        stream.write_all(&piece[..size]).await.unwrap();
        left -= size;
    }
    stream.shutdown().await.unwrap();
    println!("{}", start.elapsed().as_micros());
    eprintln!("{:?}", stream.handle().stats());
    tokio::time::sleep(Duration::from_secs(5)).await; // so that our CPU time can be read
}

/// The process that receives.
async fn receive() {
    let mut stream = here(2, 1).await;
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer).await.unwrap() > 0 {}
    stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// Says where we are, and connects to the address that comes in.
async fn here(id: u32, remote: u32) -> UdxStream {
    let (_udx, socket, pending) = local(id).await;
    println!("{}", socket.local_addr());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    pending.connect(&socket, Path { stream: remote, address: line.trim().parse().unwrap() }, 0)
}

/// An end in another process.
struct Remote {
    kind: Kind,
    address: SocketAddr,
}

enum Kind {
    Ours(Box<Child>, BufReader<tokio::process::ChildStdout>),
    Javascript(Box<Js>),
}

impl Remote {
    async fn ours(args: &[&str]) -> Remote {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).await.unwrap();
        Remote { address: line.trim().parse().unwrap(), kind: Kind::Ours(Box::new(child), output) }
    }

    async fn javascript(args: &[&str]) -> Remote {
        let (js, address) = Js::start(args).await;
        Remote { kind: Kind::Javascript(Box::new(js)), address }
    }

    async fn connect(&mut self, to: SocketAddr) {
        match &mut self.kind {
            Kind::Ours(child, _) => {
                child.stdin.as_mut().unwrap().write_all(format!("{to}\n").as_bytes()).await.unwrap()
            }
            Kind::Javascript(js) => js.write(format!("connect {}", to.port())).await,
        }
    }

    async fn sent(&mut self) -> Duration {
        match &mut self.kind {
            Kind::Ours(_, output) => {
                let mut line = String::new();
                output.read_line(&mut line).await.unwrap();
                Duration::from_micros(line.trim().parse().unwrap())
            }
            Kind::Javascript(js) => Duration::from_millis(js.event_at_last("sent").await["ms"].as_u64().unwrap()),
        }
    }

    /// Seconds of CPU, of a process that still runs.
    fn cpu(&self) -> f64 {
        let id = match &self.kind {
            Kind::Ours(child, _) => child.id().unwrap(),
            Kind::Javascript(js) => js.process(),
        };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name in parentheses: utime and stime are the 12th and 13th, in hundredths.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.iter().skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum::<f64>() / 100.0
    }
}
