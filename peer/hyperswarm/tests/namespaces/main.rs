//! Two machines, as far as the kernel is concerned: network namespaces with a wire between them.
//!
//! Needs root and `ip`. Where they are missing nothing is tested, and the reason is printed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use datdot_hyperswarm::connect::{ListenOptions, PeerStream};
use datdot_hyperswarm::dht::{Config, Dht, Identity, Role, Settings};
use datdot_wire::connection::Options;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Tells the processes that this program starts of itself which machine they are.
const MACHINE: &str = "DATDOT_TEST_MACHINE";
const READY: &str = "the server is ready";
const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 49_737;

#[test]
fn two_peers_in_two_network_namespaces_connect_by_key() {
    match std::env::var(MACHINE).as_deref() {
        Ok("here") => run(serve()),
        Ok(_) => run(call()),
        Err(_) => match Machines::new() {
            Ok(machines) => machines.meet(),
            Err(reason) => eprintln!("skipped: {reason}"),
        },
    }
}

fn run(what: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), what).await.expect("it comes in time") });
}

async fn start(node: Config, port: u16) -> Dht {
    let dht = Dht::start(Settings { node, host: Ipv4Addr::UNSPECIFIED, port }).await.unwrap();
    dht.bootstrapped().await.unwrap();
    dht
}

fn guest() -> Config {
    Config { bootstrap: vec![SocketAddrV4::new(HERE, PORT)], role: Role::Guest, ..Config::default() }
}

fn server() -> Identity {
    Identity::from_seed(&[8; 32])
}

/// Here is the first host of a DHT, and a peer that says back what it hears.
async fn serve() {
    let host = Config { role: Role::Host, address: Some(SocketAddrV4::new(HERE, PORT)), ..Config::default() };
    let _host = start(host, PORT).await;
    let dht = start(guest(), 0).await;
    let mut listening = dht.listen(&server(), ListenOptions::default()).await.unwrap();
    listening.announced().await.unwrap();
    println!("\n{READY}");
    let mut stream = listening.accept().await.unwrap();
    while let Ok(Some(text)) = stream.secret.reader.next().await {
        stream.secret.writer.send(&text).await.unwrap();
        stream.secret.writer.flush().await.unwrap();
    }
}

/// There is a peer that knows only the other's key and the host of the DHT.
async fn call() {
    let dht = start(guest(), 0).await;
    let (caller, options) = (Identity::from_seed(&[9; 32]), Options::default());
    let mut stream = dht.connect(&caller, server().public(), &[], &options).await.unwrap();
    assert_eq!(stream.remote(), server().public());
    assert_eq!(stream.address().map(|address| address.ip()), Some(HERE.into()));
    for n in 1..20 {
        say(&mut stream, vec![n as u8; n * 10_000]).await;
    }
}

async fn say(stream: &mut PeerStream, text: Vec<u8>) {
    stream.secret.writer.send(&Bytes::from(text.clone())).await.unwrap();
    stream.secret.writer.flush().await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < text.len() {
        heard.extend(stream.secret.reader.next().await.unwrap().expect("it goes on"));
    }
    assert_eq!(heard, text);
}

/// Two namespaces; gone when dropped.
struct Machines([String; 2]);

impl Machines {
    fn new() -> Result<Machines, String> {
        let machines = Machines(["here", "there"].map(|name| format!("datdot-{name}-{}", std::process::id())));
        let [here, there] = &machines.0;
        ip(&["netns", "add", here])?;
        ip(&["netns", "add", there])?;
        ip(&["link", "add", "wire", "netns", here, "type", "veth", "peer", "name", "wire", "netns", there])?;
        for (machine, address) in [(here, HERE), (there, THERE)] {
            ip(&["-n", machine, "address", "add", &format!("{address}/24"), "dev", "wire"])?;
            ip(&["-n", machine, "link", "set", "lo", "up"])?;
            ip(&["-n", machine, "link", "set", "wire", "up"])?;
            ip(&["-n", machine, "route", "add", "default", "dev", "wire"])?;
        }
        Ok(machines)
    }

    fn meet(&self) {
        let mut server = Process(self.run(0, "here", Stdio::piped()));
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == READY), "the server gets ready");
        let mut client = Process(self.run(1, "there", Stdio::inherit()));
        assert!(client.0.wait().unwrap().success(), "the client gets through");
    }

    /// This program, as one of the machines.
    fn run(&self, machine: usize, name: &str, output: Stdio) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[machine]]).arg(std::env::current_exe().unwrap());
        command.args(["two_peers_in_two_network_namespaces_connect_by_key", "--exact", "--nocapture"]);
        command.env(MACHINE, name).stdin(Stdio::null()).stdout(output).spawn().unwrap()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &self.0 {
            _ = ip(&["netns", "delete", machine]);
        }
    }
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("no command `ip`: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}
