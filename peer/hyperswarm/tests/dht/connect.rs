//! Connections by key, with peers in JavaScript and of ours, through nodes of either.

use crate::js::{JsDht, soon};
use crate::{guest, hex, host, hosts, identity};
use bytes::Bytes;
use datdot_hyperswarm::connect::shake::Caller;
use datdot_hyperswarm::connect::{ConnectError, ListenOptions, PeerStream, Server};
use datdot_hyperswarm::dht::handshake::{Firewall, Handshake, Mode, Payload, UdxInfo};
use datdot_hyperswarm::dht::packet::Command;
use datdot_hyperswarm::dht::{Dht, Id};
use datdot_hyperswarm::udx::{self, Path, Udx};
use datdot_wire::connection::{Connection, Options};
use serde_json::json;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Says back what it hears, to everybody.
fn echo(mut server: Server) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(mut stream) = server.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(text)) = stream.secret.reader.next().await {
                    stream.secret.writer.send(&text).await.unwrap();
                    stream.secret.writer.flush().await.unwrap();
                }
            });
        }
    })
}

/// Sends texts and compares what comes back.
async fn say(stream: &mut PeerStream) {
    for n in 1..20usize {
        let text = Bytes::from(vec![n as u8; n * 1_000]);
        stream.secret.writer.send(&text).await.unwrap();
        stream.secret.writer.flush().await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            heard.extend(soon(stream.secret.reader.next()).await.unwrap().expect("it goes on"));
        }
        assert_eq!(heard, text);
    }
}

async fn connect(dht: &Dht, to: u8) -> Result<PeerStream, ConnectError> {
    soon(dht.connect(&identity(50), identity(to).public(), &[], &Options::default())).await
}

async fn listen(dht: &Dht, seed: u8) -> Server {
    let server = dht.listen(&identity(seed), ListenOptions::default()).await.unwrap();
    let relays = soon(server.announced()).await.unwrap();
    assert!(!relays.is_empty());
    server
}

#[tokio::test]
async fn we_connect_to_a_server_in_javascript() {
    let mut js = JsDht::start(10, &[]).await;
    let server = js.call("listen", json!({ "seed": 7 })).await;
    assert_eq!(server["key"], hex(&identity(7).public()));
    let ours = guest(&js.bootstrap).await;
    for _ in 0..3 {
        let mut stream = connect(&ours, 7).await.unwrap();
        assert_eq!(stream.remote(), identity(7).public());
        say(&mut stream).await;
    }
    js.call("unlisten", json!({ "seed": 7 })).await;
    assert!(connect(&ours, 7).await.is_err());
}

#[tokio::test]
async fn javascript_connects_to_our_server() {
    let mut js = JsDht::start(10, &[]).await;
    let ours = guest(&js.bootstrap).await;
    let server = listen(&ours, 8).await;
    let echo = echo(server);
    for bytes in [1_000, 1_000_000] {
        let key = hex(&identity(8).public());
        let done = js.call("connect", json!({ "seed": 9, "key": key, "bytes": bytes })).await;
        assert_eq!(done["same"], bytes);
        assert_eq!(done["remote"], key);
    }
    echo.abort();
}

#[tokio::test]
async fn we_connect_to_ourselves_through_nodes_of_ours() {
    let hosts = hosts(6, &[]).await;
    let bootstrap = [hosts[0].local_addr()];
    let (one, other) = (guest(&bootstrap).await, guest(&bootstrap).await);
    let server = listen(&one, 8).await;
    let echo = echo(server);
    let mut stream = connect(&other, 8).await.unwrap();
    say(&mut stream).await;
    assert!(matches!(connect(&other, 9).await, Err(ConnectError::NotFound)));
    echo.abort();
}

#[tokio::test]
async fn peers_in_javascript_connect_through_nodes_of_ours() {
    let hosts = hosts(6, &[]).await;
    let bootstrap = [hosts[0].local_addr()];
    let mut one = JsDht::start(0, &bootstrap).await;
    let mut other = JsDht::start(0, &bootstrap).await;
    let server = one.call("listen", json!({ "seed": 7 })).await;
    assert_eq!(server["relays"].as_array().unwrap().len(), 3);
    let done = other.call("connect", json!({ "seed": 9, "key": server["key"] })).await;
    assert_eq!(done["same"], 100_000);
    let announced: usize = {
        let mut routes = 0;
        for host in &hosts {
            routes += host.look(|node| node.store().counts()[1]).await.unwrap();
        }
        routes
    };
    assert_eq!(announced, 3, "three of our nodes know the way");
    one.call("unlisten", json!({ "seed": 7 })).await;
    for host in &hosts {
        assert_eq!(host.look(|node| node.store().counts()[1]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn whom_the_gate_refuses_hears_nothing() {
    let hosts = hosts(5, &[]).await;
    let one = host(&[hosts[0].local_addr()]).await;
    let gate = std::sync::Arc::new(|key: &_, _: &_, _| *key == identity(51).public());
    let options = ListenOptions { gate: Some(gate), ..ListenOptions::default() };
    let server = one.listen(&identity(8), options).await.unwrap();
    soon(server.announced()).await.unwrap();
    let echo = echo(server);
    let other = guest(&[hosts[0].local_addr()]).await;
    assert!(matches!(connect(&other, 8).await, Err(ConnectError::NoAnswer { .. })));
    let options = Options::default();
    let mut stream = soon(other.connect(&identity(51), identity(8).public(), &[], &options)).await.unwrap();
    say(&mut stream).await;
    echo.abort();
}

/// The second message of the handshake, by way of a node that knows where the peer is.
async fn answer_through(relay: SocketAddrV4, dht: &Dht, to: u8, call: &Caller) -> Vec<u8> {
    let value = Handshake { mode: Mode::FromClient, noise: call.message(), peer: None, relay: None }.encode();
    let target = Some(Id::of(&identity(to).public()));
    let reply = soon(dht.ask(relay, Command::PeerHandshake, target, None, Some(value))).await.unwrap().unwrap();
    let value = reply.value.unwrap();
    Handshake::decode(&value).unwrap().noise.to_vec()
}

#[tokio::test]
async fn a_call_that_is_repeated_or_replayed_gets_the_same_answer_and_one_stream() {
    let hosts = hosts(6, &[]).await;
    let bootstrap = [hosts[0].local_addr()];
    let (one, other) = (guest(&bootstrap).await, guest(&bootstrap).await);
    let mut server = listen(&one, 8).await;
    let mut relays = server.relays().await.unwrap();
    relays.retain(|relay| *relay != one.local_addr());
    assert!(relays.len() >= 2, "{relays:?}");

    let udx = Udx::new();
    let (socket, _) = udx.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let pending = udx.stream(77, udx::Config::default()).unwrap();
    let payload = Payload {
        refusal: None,
        firewall: Firewall::Unknown,
        holepunch: None,
        addresses: Vec::new(),
        udx: Some(UdxInfo { reusable_socket: false, id: pending.id(), seq: 0 }),
        secret_stream: true,
        relay_through: None,
        relays: Vec::new(),
    };
    let call = |ephemeral| Caller::new(&identity(50), identity(8).public(), ephemeral, &payload).unwrap();
    let caller = call([9; 32]);
    let answer = answer_through(relays[0], &other, 8, &caller).await;
    // Another node passes it on, or somebody else who heard it.
    assert_eq!(answer_through(relays[1], &other, 8, &caller).await, answer);
    assert_eq!(answer_through(relays[0], &hosts[5], 8, &caller).await, answer);
    assert_ne!(answer_through(relays[0], &other, 8, &call([10; 32])).await, answer, "that was another call");

    let (session, told) = caller.read(&answer).unwrap();
    let path = Path { stream: told.udx.unwrap().id, address: one.local_addr().into() };
    let (reader, writer) = pending.connect(&socket, path, 0).into_split();
    let options = Options::default();
    let (ours, accepted) =
        tokio::join!(soon(Connection::resume(reader, writer, session, &options)), soon(server.accept()));
    assert_eq!((ours.unwrap().remote, accepted.unwrap().remote()), (identity(8).public(), identity(50).public()));
    // What was recorded is of no use while they talk, either.
    assert_eq!(answer_through(relays[0], &hosts[5], 8, &caller).await, answer);
    assert!(tokio::time::timeout(Duration::from_millis(300), server.accept()).await.is_err());
}
