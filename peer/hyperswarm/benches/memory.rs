//! How much memory a peer takes, ours beside JavaScript's, each in a process of its own: alone, with 1,000 announced
//! topics, and with 500 connections: `cargo bench -p datdot-hyperswarm --bench memory`
//!
//! Needs Linux, Node.js and `npm ci` in `tests/js`. The DHT of 12 nodes, and who calls, are ours and in this process.
#![allow(clippy::unwrap_used, reason = "a measurement that can't go on fails")]

use datdot_hyperswarm::connect::ListenOptions;
use datdot_hyperswarm::dht::{Config, Dht, Id, Identity, Role, Settings};
use datdot_hyperswarm::swarm::{self, As, Swarm};
use datdot_wire::connection::Options;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

const TOPICS: u32 = 1_000;
const CONNECTIONS: u32 = 500;
const SEED: u8 = 7;

async fn start(bootstrap: Vec<SocketAddrV4>, address: Option<SocketAddrV4>, role: Role) -> Dht {
    let port = address.map_or(0, |address| address.port());
    let node = Config { bootstrap, address, role, firewalled: role != Role::Host, ..Config::default() };
    let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port }).await.unwrap();
    dht.bootstrapped().await.unwrap();
    dht
}

fn topic(n: u32) -> Id {
    Id::of(&n.to_le_bytes())
}

/// The peer that is measured, if it is ours: does what it reads, and says when it's done.
async fn ours(bootstrap: SocketAddrV4) {
    let dht = start(vec![bootstrap], None, Role::Guest).await;
    let mut kept: Vec<Swarm> = Vec::new();
    println!("ready");
    let (tell, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    while let Some(line) = lines.recv().await {
        if line.contains("topics") {
            let swarm =
                Swarm::start(&dht, &Identity::from_seed(&[SEED; 32]), swarm::Settings::default()).await.unwrap();
            for n in 0..TOPICS {
                swarm.join(topic(n), As::Server).await.unwrap();
            }
            for n in 0..TOPICS {
                swarm.searched(topic(n)).await.unwrap();
                assert!(swarm.announced(&topic(n)).is_some());
            }
            kept.push(swarm);
        } else {
            let identity = Identity::from_seed(&[SEED; 32]);
            let mut server = dht.listen(&identity, ListenOptions::default()).await.unwrap();
            server.announced().await.unwrap();
            tokio::spawn(async move {
                while let Some(mut stream) = server.accept().await {
                    tokio::spawn(async move { while let Ok(Some(_)) = stream.secret.reader.next().await {} });
                }
            });
        }
        println!("done");
    }
}

/// A peer in another process.
struct Remote {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Remote {
    async fn start(ours: bool, bootstrap: SocketAddrV4) -> Remote {
        let mut command = match ours {
            true => Command::new(std::env::current_exe().unwrap()),
            false => Command::new("node"),
        };
        let args = match ours {
            true => vec!["ours".to_owned(), bootstrap.to_string()],
            false => vec!["dht.js".to_owned(), "--nodes=0".to_owned(), format!("--bootstrap={bootstrap}")],
        };
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/js");
        let command = command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("node and tests/js are installed");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut remote = Remote { child, input, output };
        remote.output.next_line().await.unwrap().expect("it is ready");
        remote
    }

    async fn call(&mut self, command: &str) {
        let line = format!("{{\"do\":\"{command}\",\"seed\":{SEED},\"count\":{TOPICS}}}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        let answer = self.output.next_line().await.unwrap().expect("it goes on");
        assert!(!answer.contains("error"), "{answer}");
    }

    /// Resident memory in MB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_000.0
    }
}

async fn measure() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let first = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut hosts = vec![start(Vec::new(), Some(first), Role::Host).await];
    for _ in 0..11 {
        hosts.push(start(vec![first], None, Role::Host).await);
    }
    println!("| resident memory in MB | ours | JavaScript |\n|---|---:|---:|");
    let mut columns = Vec::new();
    for ours in [true, false] {
        let mut remote = Remote::start(ours, first).await;
        let alone = remote.memory();
        remote.call("topics").await;
        let topics = remote.memory();
        drop(remote);
        let mut remote = Remote::start(ours, first).await;
        remote.call("listen").await;
        let caller = start(vec![first], None, Role::Guest).await;
        let mut streams = Vec::new();
        for n in 0..CONNECTIONS {
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&n.to_le_bytes());
            let to = Identity::from_seed(&[SEED; 32]).public();
            streams.push(caller.connect(&Identity::from_seed(&seed), to, &[], &Options::default()).await.unwrap());
        }
        columns.push([alone, topics, remote.memory()]);
        drop(streams);
    }
    for (row, name) in ["alone", "1,000 announced topics", "500 connections"].iter().enumerate() {
        println!("| {name} | {:.1} | {:.1} |", columns[0][row], columns[1][row]);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match args.iter().position(|arg| arg == "ours") {
        Some(at) => runtime.block_on(ours(args[at + 1].parse().unwrap())),
        None => runtime.block_on(measure()),
    }
}
