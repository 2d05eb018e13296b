//! Several machines, as far as the kernel is concerned: network namespaces with wires between them.
//!
//! Needs root, `ip`, and `nft` where there is a router. Where they are missing nothing is tested, and the reason is printed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machines;
mod router;

use bytes::Bytes;
use datdot_hyperswarm::connect::{ListenOptions, PeerStream, Server};
use datdot_hyperswarm::dht::{Config, Dht, Identity, Role, Settings};
use datdot_wire::connection::Options;
use machines::{Machine, ready, role, run};
use std::net::{Ipv4Addr, SocketAddrV4};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PORT: u16 = 49_737;

#[test]
fn two_peers_in_two_network_namespaces_connect_by_key() {
    match role().as_deref() {
        Some("here") => run(serve()),
        Some(_) => run(call()),
        None => match two() {
            Ok([here, there]) => {
                let test = "two_peers_in_two_network_namespaces_connect_by_key";
                let _server = here.start(test, "here").ready();
                there.start(test, "there").succeeds();
            }
            Err(reason) => eprintln!("skipped: {reason}"),
        },
    }
}

fn two() -> Result<[Machine; 2], String> {
    let (here, there) = (Machine::new("here")?, Machine::new("there")?);
    here.wire("wire", &there, "wire")?;
    for (machine, address) in [(&here, HERE), (&there, THERE)] {
        machine.address(address, "wire")?;
        machine.ip(&["route", "add", "default", "dev", "wire"])?;
    }
    Ok([here, there])
}

/// Here is the first host of a DHT, and a peer that says back what it hears.
async fn serve() {
    let _host = host(HERE, HERE).await;
    let mut listening = listening(&guest(Ipv4Addr::UNSPECIFIED, HERE).await, 8).await;
    ready();
    echo(&mut listening).await;
}

/// There is a peer that knows only the other's key and the host of the DHT.
async fn call() {
    let dht = guest(Ipv4Addr::UNSPECIFIED, HERE).await;
    let stream = talk(&dht, 9, 8).await;
    assert_eq!(stream.address().map(|address| address.ip()), Some(HERE.into()));
}

/// A host of the DHT whose first is at `first`.
async fn host(at: Ipv4Addr, first: Ipv4Addr) -> Dht {
    let bootstrap = if at == first { Vec::new() } else { vec![SocketAddrV4::new(first, PORT)] };
    let address = Some(SocketAddrV4::new(at, PORT));
    start(Config { role: Role::Host, firewalled: false, address, bootstrap, ..Config::default() }, at, PORT).await
}

async fn guest(at: Ipv4Addr, first: Ipv4Addr) -> Dht {
    let bootstrap = vec![SocketAddrV4::new(first, PORT)];
    start(Config { bootstrap, role: Role::Guest, ..Config::default() }, at, 0).await
}

async fn start(node: Config, host: Ipv4Addr, port: u16) -> Dht {
    let dht = Dht::start(Settings { node, host, port }).await.unwrap();
    dht.bootstrapped().await.unwrap();
    dht
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

async fn listening(dht: &Dht, seed: u8) -> Server {
    let server = dht.listen(&identity(seed), ListenOptions::default()).await.unwrap();
    server.announced().await.unwrap();
    server
}

/// Takes one connection after the other, and says back what it hears.
async fn echo(server: &mut Server) {
    while let Some(mut stream) = server.accept().await {
        while let Ok(Some(text)) = stream.secret.reader.next().await {
            stream.secret.writer.send(&text).await.unwrap();
            stream.secret.writer.flush().await.unwrap();
        }
    }
}

/// Connects to one who says back what it hears, and says something.
async fn talk(dht: &Dht, seed: u8, to: u8) -> PeerStream {
    let (to, options) = (identity(to).public(), Options::default());
    let mut stream = dht.connect(&identity(seed), to, &[], &options).await.unwrap();
    assert_eq!(stream.remote(), to);
    for n in 1..20 {
        say(&mut stream, vec![n as u8; n * 10_000]).await;
    }
    stream
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
