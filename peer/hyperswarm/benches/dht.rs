//! How many FIND_NODE a node answers in a second: ours alone, ours over its sockets, and JavaScript's.
//! `cargo bench -p datdot-hyperswarm --bench dht`
//!
//! `cargo test` runs it too, shortly, to see that it works. Each node knows 20 others. The asker keeps a window of questions open, from one socket.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use datdot_hyperswarm::dht::packet::{Command, Request};
use datdot_hyperswarm::dht::{Config, Dht, Id, Node, Role, Settings, Socket};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{BufRead, BufReader, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

const NODES: usize = 21;
const WINDOW: usize = 256;

fn find_node(n: u32, to: SocketAddrV4) -> Vec<u8> {
    let target = Some(Id::of(&n.to_le_bytes()));
    Request { tid: n as u16, to, id: None, token: None, command: Command::FindNode, target, value: None }.encode()
}

/// The state machine alone.
fn alone(time: Duration) -> f64 {
    let us: SocketAddrV4 = "8.8.8.8:49737".parse().unwrap();
    let known = (0..400u32).map(|n| SocketAddrV4::new((0x0900_0000 + n).into(), 1)).collect();
    let config = Config { role: Role::Host, address: Some(us), known, answer_rate: u32::MAX / 16, ..Config::default() };
    let now = Duration::from_secs(1_700_000_000);
    let mut node = Node::new(config, us.port(), now, [1; 32]);
    while node.poll().is_some() {}
    let datagrams: Vec<_> = (0..4_096).map(|n| find_node(n, us)).collect();
    let began = Instant::now();
    let mut answered = 0u32;
    while began.elapsed() < time {
        for datagram in &datagrams {
            node.receive(now, Socket::Server, "127.0.0.1:5".parse().unwrap(), datagram);
            answered += u32::from(node.poll().is_some());
        }
    }
    f64::from(answered) / began.elapsed().as_secs_f64()
}

/// Asks a node over loopback, from one socket, many questions with a system call, so that it's the node that is measured.
fn flood(node: SocketAddrV4, time: Duration) -> f64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
    let most = state.max_gso_segments().min(WINDOW / 4);
    let questions: Vec<_> = (0..4_096).map(|n| find_node(n, node)).collect();
    let size = questions[0].len();
    let trains: Vec<Vec<u8>> = questions.chunks(most).map(<[_]>::concat).collect();
    let mut rooms = vec![[0; 64 << 10]; 8];
    let (mut train, mut answered, mut open) = (0usize, 0u32, 0);
    let began = Instant::now();
    let mut heard = began;
    while began.elapsed() < time {
        while open + most <= WINDOW {
            let contents = &trains[train % trains.len()];
            let segment_size = Some(size);
            let transmit = Transmit { destination: node.into(), ecn: None, contents, segment_size, src_ip: None };
            state.try_send(UdpSockRef::from(&socket), &transmit).unwrap();
            train += 1;
            open += contents.len() / size;
        }
        let mut slices: Vec<_> = rooms.iter_mut().map(|room| IoSliceMut::new(room)).collect();
        let mut meta = [RecvMeta::default(); 8];
        match state.recv(UdpSockRef::from(&socket), &mut slices, &mut meta) {
            Ok(count) => {
                let came: usize = meta[..count].iter().map(|meta| meta.len.div_ceil(meta.stride)).sum();
                answered += came as u32;
                open = open.saturating_sub(came);
                heard = Instant::now();
            }
            // What was lost is lost.
            Err(_) if heard.elapsed() > Duration::from_millis(100) => open = 0,
            Err(_) => std::thread::yield_now(),
        }
    }
    f64::from(answered) / began.elapsed().as_secs_f64()
}

/// A DHT of ours; returns the address of one node with a thread of its own.
async fn ours() -> (Vec<Dht>, SocketAddrV4) {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let first = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut nodes: Vec<Dht> = Vec::new();
    for n in 0..NODES {
        let bootstrap = if n == 0 { Vec::new() } else { vec![first] };
        let address = (n == 0).then_some(first);
        let node = Config { bootstrap, address, role: Role::Host, firewalled: false, ..Config::default() };
        let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: if n == 0 { port } else { 0 } }).await;
        nodes.push(dht.unwrap());
        nodes[n].bootstrapped().await.unwrap();
    }
    (nodes, first)
}

fn main() {
    // What cargo says if it is to be measured.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if is_bench { 3_000 } else { 50 });
    println!("| FIND_NODE answered a second | |");
    println!("|---|---:|");
    println!("| ours, without sockets | {:.0} |", alone(time));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (nodes, address) = runtime.block_on(ours());
    println!("| ours, over loopback, one thread | {:.0} |", flood(address, time));
    drop(nodes);
    runtime.shutdown_background();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/js");
    let mut command = std::process::Command::new("node");
    let js = command.args(["dht.js", &format!("--nodes={NODES}")]).current_dir(dir).stdout(Stdio::piped());
    let mut js = js.stdin(Stdio::piped()).spawn().expect("node and tests/js are installed");
    let mut line = String::new();
    BufReader::new(js.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = ready["bootstrap"][0].as_str().unwrap().parse().unwrap();
    println!("| JavaScript, over loopback, one thread | {:.0} |", flood(address, time));
    js.kill().unwrap();
    js.wait().unwrap();
}
