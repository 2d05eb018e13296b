//! Our nodes and those of JavaScript in one DHT on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod js;

use datdot_hyperswarm::dht::{Config, Dht, Id, Identity, Role, Settings};
use js::{JsDht, soon};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddrV4};

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn start(node: Config) -> Dht {
    let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await.unwrap();
    soon(dht.bootstrapped()).await.unwrap();
    dht
}

async fn guest(bootstrap: &[SocketAddrV4]) -> Dht {
    start(Config { bootstrap: bootstrap.to_vec(), role: Role::Guest, ..Config::default() }).await
}

#[tokio::test]
async fn what_javascript_announced_is_found() {
    let mut js = JsDht::start(10, &[]).await;
    let topic = Id([0x11; 32]);
    let relays = json!([{ "host": "1.2.3.4", "port": 5 }]);
    js.call("announce", json!({ "topic": hex(&topic.0), "seed": 3, "relays": relays })).await;
    let ours = guest(&js.bootstrap).await;
    let peers = soon(ours.lookup(topic).await.unwrap().all()).await;
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].key, identity(3).public());
    assert_eq!(peers[0].relays, ["1.2.3.4:5".parse().unwrap()]);
}
