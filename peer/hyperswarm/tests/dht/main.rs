//! Our nodes and those of JavaScript in one DHT on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connect;
mod js;
mod swarm;

use datdot_hyperswarm::connect::ListenOptions;
use datdot_hyperswarm::dht::{Config, Dht, Id, Identity, Role, Settings, cache};
use js::{JsDht, soon};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

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

/// A host of the DHT; without `bootstrap` its first, which is told its address.
async fn host(bootstrap: &[SocketAddrV4]) -> Dht {
    let node = Config { bootstrap: bootstrap.to_vec(), role: Role::Host, firewalled: false, ..Config::default() };
    if !bootstrap.is_empty() {
        return start(node).await;
    }
    loop {
        // The port has to be known before the socket is bound.
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let node = Config { address: Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, free)), ..node.clone() };
        let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: free }).await.unwrap();
        if dht.local_addr().port() == free {
            soon(dht.bootstrapped()).await.unwrap();
            return dht;
        }
    }
}

/// `count` hosts, begun one after the other.
async fn hosts(count: usize, bootstrap: &[SocketAddrV4]) -> Vec<Dht> {
    let mut hosts: Vec<Dht> = Vec::new();
    for _ in 0..count {
        let bootstrap = hosts.first().map_or(bootstrap.to_vec(), |first| vec![first.local_addr()]);
        hosts.push(host(&bootstrap).await);
    }
    for host in &hosts {
        assert!(host.status().borrow().reach.host);
    }
    hosts
}

/// Announcements and records of both kinds, each seen from both sides.
async fn exchange(js: &mut JsDht, ours: &Dht) {
    let topic = Id([0x22; 32]);
    let relays = vec!["9.8.7.6:5".parse().unwrap()];
    js.call("announce", json!({ "topic": hex(&topic.0), "seed": 3 })).await;
    let outcome = soon(ours.announce(topic, &identity(4), &relays)).await.unwrap();
    assert_eq!(outcome.committed.len(), outcome.closest.len());
    for key in [identity(3).public(), identity(4).public()] {
        let peers = soon(ours.lookup(topic).await.unwrap().all()).await;
        assert!(peers.iter().any(|peer| peer.key == key), "we find {}", hex(&key));
        let peers = js.call("lookup", json!({ "topic": hex(&topic.0) })).await;
        assert!(peers["peers"][hex(&key)].is_array(), "javascript finds {}", hex(&key));
    }
    let found = js.call("lookup", json!({ "topic": hex(&topic.0) })).await;
    assert_eq!(found["peers"][hex(&identity(4).public())], json!([{ "host": "9.8.7.6", "port": 5 }]));

    soon(ours.unannounce(topic, &identity(4))).await.unwrap();
    js.call("unannounce", json!({ "topic": hex(&topic.0), "seed": 3 })).await;
    let found = js.call("lookup", json!({ "topic": hex(&topic.0) })).await;
    assert_eq!(found["peers"], json!({}));
    assert_eq!(soon(ours.lookup(topic).await.unwrap().all()).await, []);

    // A peer that announces itself is found by its key.
    let itself = Id::of(&identity(5).public());
    soon(ours.announce(itself, &identity(5), &relays)).await.unwrap();
    let found = js.call("findPeer", json!({ "key": hex(&identity(5).public()) })).await;
    assert_eq!(found["relays"], json!([{ "host": "9.8.7.6", "port": 5 }]));

    js.call("mutablePut", json!({ "seed": 6, "seq": 1, "value": "by javascript" })).await;
    let record = soon(ours.get_mutable(&identity(6).public(), 0)).await.unwrap().unwrap();
    assert_eq!((record.seq, &record.value[..]), (1, &b"by javascript"[..]));
    soon(ours.put_mutable(&identity(6), 2, b"by us")).await.unwrap();
    let found = js.call("mutableGet", json!({ "key": hex(&identity(6).public()) })).await;
    assert_eq!((found["seq"].as_u64(), found["value"].as_str()), (Some(2), Some("by us")));
    // A number may not be used twice, nor an old one.
    assert!(soon(ours.put_mutable(&identity(6), 2, b"another")).await.is_err());
    assert!(soon(ours.put_mutable(&identity(6), 1, b"by javascript")).await.is_err());

    let put = js.call("immutablePut", json!({ "value": "kept by javascript" })).await;
    let name = Id::of(b"kept by javascript");
    assert_eq!(put["hash"], hex(&name.0));
    assert_eq!(soon(ours.get_immutable(name)).await.unwrap().as_deref(), Some(&b"kept by javascript"[..]));
    soon(ours.put_immutable(b"kept by us")).await.unwrap();
    let found = js.call("immutableGet", json!({ "hash": hex(&Id::of(b"kept by us").0) })).await;
    assert_eq!(found["value"], "kept by us");
}

#[tokio::test]
async fn a_guest_of_ours_stores_and_finds_in_a_dht_of_javascript() {
    let mut js = JsDht::start(10, &[]).await;
    let ours = guest(&js.bootstrap).await;
    exchange(&mut js, &ours).await;
}

#[tokio::test]
async fn a_guest_of_javascript_stores_and_finds_in_a_dht_of_ours() {
    let hosts = hosts(10, &[]).await;
    let bootstrap = [hosts[0].local_addr()];
    let mut js = JsDht::start(0, &bootstrap).await;
    let ours = guest(&bootstrap).await;
    exchange(&mut js, &ours).await;
    let stored = hosts[3].look(|node| node.store().counts()).await.unwrap();
    assert_eq!(stored, [0, 1, 1, 2], "announcements, routes, mutable and immutable records");
}

#[tokio::test]
async fn half_of_a_dht_is_ours_and_half_of_javascript() {
    let first = host(&[]).await;
    let mut js = JsDht::start(8, &[first.local_addr()]).await;
    assert_eq!(js.ready["hosts"], 8, "all of them became hosts through ours");
    let rest = hosts(8, &[first.local_addr()]).await;
    let ours = guest(&js::addresses(&js.ready["nodes"])[..1]).await;
    exchange(&mut js, &ours).await;
    assert!(rest[7].look(|node| node.known()).await.unwrap() >= 8);
}

#[tokio::test]
async fn a_node_that_comes_back_needs_nobody_but_those_it_knew() {
    let hosts = hosts(6, &[]).await;
    let topic = Id([0x44; 32]);
    let before = guest(&[hosts[0].local_addr()]).await;
    soon(before.announce(topic, &identity(4), &[])).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes");
    before.remember(file.clone());
    let known = soon(async {
        while cache::read(&file).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cache::read(&file)
    })
    .await;
    assert_eq!(known.len(), 6);
    drop(before);
    let after = start(Config { known, role: Role::Guest, ..Config::default() }).await;
    let peers = soon(after.lookup(topic).await.unwrap().all()).await;
    assert_eq!(peers[0].key, identity(4).public());
}

#[tokio::test]
async fn a_node_that_knows_only_a_name_begins() {
    let hosts = hosts(5, &[]).await;
    let entry = format!("localhost:{}", hosts[0].local_addr().port()).parse().unwrap();
    let ours = start(Config { role: Role::Guest, ..Config::default() }.begin_with([entry])).await;
    assert_eq!(ours.look(|node| node.known()).await.unwrap(), 5);
}

#[tokio::test]
async fn a_server_that_changes_its_network_is_announced_anew() {
    let hosts = hosts(6, &[]).await;
    let ours = guest(&[hosts[0].local_addr()]).await;
    let server = ours.listen(&identity(8), ListenOptions::default()).await.unwrap();
    soon(server.announced()).await.unwrap();
    let mut status = ours.status();
    ours.network_changed().await.unwrap();
    soon(status.wait_for(|status| status.moves == 1)).await.unwrap();
    // What it knew of its address is forgotten, and found out again.
    soon(status.wait_for(|status| status.reach.outside.is_some())).await.unwrap();
    assert!(!soon(server.announced()).await.unwrap().is_empty());
}
