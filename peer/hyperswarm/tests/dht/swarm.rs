//! Swarms of ours and of JavaScript on one topic.

use crate::js::{JsDht, soon};
use crate::{guest, hex, hosts, identity};
use bytes::Bytes;
use datdot_hyperswarm::connect::ConnectError;
use datdot_hyperswarm::dht::{Dht, Id, PublicKey};
use datdot_hyperswarm::swarm::{As, Event, PeerState, Settings, Swarm, SwarmStream};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const TOPIC: Id = Id([0x33; 32]);

/// A swarm on the topic, and what it hears: each peer's greeting.
struct Ours {
    swarm: Swarm,
    heard: mpsc::UnboundedReceiver<(String, String)>,
    tell: mpsc::UnboundedSender<(String, String)>,
    _dht: Dht,
}

impl Ours {
    async fn join(dht: Dht, seed: u8, as_: As) -> Ours {
        Ours::join_with(dht, seed, as_, Settings::default()).await
    }

    async fn join_with(dht: Dht, seed: u8, as_: As, settings: Settings) -> Ours {
        let swarm = Swarm::start(&dht, &identity(seed), settings).await.unwrap();
        swarm.join(TOPIC, as_).await.unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        Ours { swarm, heard, tell, _dht: dht }
    }

    /// Takes connections until `peers` have spoken.
    async fn hear(&mut self, peers: usize) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        // Twenty peers have 190 handshakes with each other, on as many cores as there are.
        let patience = Duration::from_secs(60 + 6 * peers as u64);
        let heard = tokio::time::timeout(patience, async {
            while all.len() < peers {
                tokio::select! {
                    stream = self.swarm.accept() => greet(stream.expect("it runs"), self.tell.clone()),
                    Some((key, text)) = self.heard.recv() => {
                        all.insert(key, text);
                    }
                }
            }
        });
        heard.await.expect("they speak in time");
        all
    }
}

/// Greets, and holds the connection until the other ends it.
fn greet(mut connection: SwarmStream, tell: mpsc::UnboundedSender<(String, String)>) {
    tokio::spawn(async move {
        let secret = &mut connection.stream.secret;
        secret.writer.send(&Bytes::from_static(b"hello from us")).await.unwrap();
        secret.writer.flush().await.unwrap();
        loop {
            tokio::select! {
                text = secret.reader.next() => {
                    let Ok(Some(text)) = text else { return };
                    _ = tell.send((hex(&secret.remote), String::from_utf8(text.to_vec()).unwrap()));
                }
                // Whoever says nothing for a minute is taken for gone.
                kept = secret.writer.keep_alive() => if kept.is_err() { return },
            }
        }
    });
}

#[tokio::test]
async fn we_find_a_server_in_javascript_by_topic_and_it_hears_us() {
    let mut js = JsDht::start(8, &[]).await;
    let theirs = js.call("swarm", json!({ "seed": 60, "topic": hex(&TOPIC.0), "client": false })).await;
    let mut ours = Ours::join(guest(&js.bootstrap).await, 61, As::Client).await;
    let heard = ours.hear(1).await;
    assert_eq!(heard[theirs["key"].as_str().unwrap()], "hello from 60");
    let heard = js.call("heard", json!({ "seed": 60, "peers": 1 })).await;
    assert_eq!(heard["heard"][hex(&identity(61).public())], "hello from us");
    assert!(ours.swarm.announced(&TOPIC).is_none());
}

#[tokio::test]
async fn javascript_finds_our_server_by_topic_until_we_leave() {
    let mut js = JsDht::start(8, &[]).await;
    let mut ours = Ours::join(guest(&js.bootstrap).await, 61, As::Server).await;
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    assert!(ours.swarm.announced(&TOPIC).unwrap() < Duration::from_secs(10));
    let theirs = js.call("swarm", json!({ "seed": 60, "topic": hex(&TOPIC.0), "server": false })).await;
    let heard = ours.hear(1).await;
    assert_eq!(heard[theirs["key"].as_str().unwrap()], "hello from 60");
    let topic = json!({ "topic": hex(&TOPIC.0) });
    assert!(js.call("lookup", topic.clone()).await["peers"][hex(&identity(61).public())].is_array());
    ours.swarm.leave(TOPIC).await.unwrap();
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    assert_eq!(js.call("lookup", topic).await["peers"], json!({}));
}

#[tokio::test]
async fn twenty_peers_on_a_topic_all_meet_each_other_once() {
    let nodes = hosts(8, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let mut js = JsDht::start(0, &bootstrap).await;
    for seed in 60..70 {
        js.call("swarm", json!({ "seed": seed, "topic": hex(&TOPIC.0) })).await;
    }
    let mut meetings = Vec::new();
    for seed in 70..80 {
        let mut ours = Ours::join(guest(&bootstrap).await, seed, As::Both).await;
        meetings.push(tokio::spawn(async move {
            let heard = ours.hear(19).await;
            (ours, heard)
        }));
    }
    let mut ours = Vec::new();
    for meeting in meetings {
        let (swarm, heard) = meeting.await.unwrap();
        assert_eq!(heard.values().filter(|text| *text == "hello from us").count(), 9);
        ours.push(swarm);
    }
    for seed in 60..70 {
        let heard = js.call("heard", json!({ "seed": seed, "peers": 19 })).await;
        assert_eq!(heard["heard"].as_object().unwrap().len(), 19, "{seed}");
    }
    for swarm in &ours {
        assert_eq!(swarm.swarm.links(), 19, "one connection per peer");
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_without_a_word_and_comes_back_is_connected_again() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let mut ours = Ours::join(guest(&bootstrap).await, 61, As::Both).await;
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    for _ in 0..2 {
        // Dropped, its process is killed.
        let mut js = JsDht::start(0, &bootstrap).await;
        let theirs = js.call("swarm", json!({ "seed": 60, "topic": hex(&TOPIC.0) })).await;
        let heard = ours.hear(1).await;
        assert_eq!(heard[theirs["key"].as_str().unwrap()], "hello from 60");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_and_comes_back_is_connected_again() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let mut one = Ours::join(guest(&bootstrap).await, 70, As::Both).await;
    soon(one.swarm.searched(TOPIC)).await.unwrap();
    let other = Ours::join(guest(&bootstrap).await, 71, As::Both).await;
    let mut other = other;
    let (heard, _) = tokio::join!(one.hear(1), other.hear(1));
    assert_eq!(heard.len(), 1);
    // It withdraws, and comes back under the same key.
    soon(other.swarm.close()).await;
    let mut again = Ours::join(guest(&bootstrap).await, 71, As::Both).await;
    let (heard, _) = tokio::join!(one.hear(1), again.hear(1));
    assert_eq!(heard.keys().next(), Some(&hex(&identity(71).public())));
}

#[tokio::test]
async fn a_suspended_swarm_is_found_by_nobody_until_it_resumes() {
    let mut js = JsDht::start(8, &[]).await;
    let mut ours = Ours::join(guest(&js.bootstrap).await, 61, As::Server).await;
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    js.call("swarm", json!({ "seed": 60, "topic": hex(&TOPIC.0), "server": false })).await;
    assert_eq!(ours.hear(1).await.len(), 1);
    ours.swarm.suspend().await.unwrap();
    let topic = json!({ "topic": hex(&TOPIC.0) });
    soon(async { while js.call("lookup", topic.clone()).await["peers"] != json!({}) || ours.swarm.links() > 0 {} })
        .await;
    let key = json!({ "key": hex(&identity(61).public()) });
    assert_eq!(js.call("findPeer", key.clone()).await["relays"], json!(null));
    ours.swarm.resume().await.unwrap();
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    assert!(js.call("lookup", topic).await["peers"][hex(&identity(61).public())].is_array());
    assert!(js.call("findPeer", key).await["relays"].is_array());
    js.call("swarm", json!({ "seed": 62, "topic": hex(&TOPIC.0), "server": false })).await;
    // The first one may come back, too.
    let (newcomer, mut heard) = (hex(&identity(62).public()), BTreeMap::new());
    while !heard.contains_key(&newcomer) {
        heard.extend(ours.hear(1).await);
    }
    assert_eq!(heard[&newcomer], "hello from 62");
}

#[tokio::test]
async fn a_swarm_that_is_suspended_is_withdrawn_and_one_that_resumes_at_once_is_not() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let ours = Ours::join(guest(&bootstrap).await, 61, As::Server).await;
    soon(ours.swarm.searched(TOPIC)).await.unwrap();
    let other = guest(&bootstrap).await;
    for _ in 0..3 {
        let (suspended, resumed) = tokio::join!(soon(ours.swarm.suspend()), ours.swarm.resume());
        assert!(suspended.is_ok() && resumed.is_ok());
        soon(ours.swarm.searched(TOPIC)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(soon(other.lookup(TOPIC).await.unwrap().all()).await.len(), 1);
        let key = identity(61).public();
        soon(other.connect(&identity(62), key, &[], &Default::default())).await.unwrap();
    }
    soon(ours.swarm.suspend()).await.unwrap();
    assert_eq!(soon(other.lookup(TOPIC).await.unwrap().all()).await, []);
}

#[tokio::test]
async fn whoever_is_banned_is_refused_until_pardoned() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let one = Ours::join(guest(&bootstrap).await, 70, As::Server).await;
    soon(one.swarm.searched(TOPIC)).await.unwrap();
    let bad = identity(71).public();
    one.swarm.ban(bad).await.unwrap();
    let other = guest(&bootstrap).await;
    let call =
        |dht: Dht| async move { dht.connect(&identity(71), identity(70).public(), &[], &Default::default()).await };
    assert!(soon(call(other.clone())).await.is_err());
    one.swarm.pardon(bad).await.unwrap();
    let (called, stream) = tokio::join!(soon(call(other)), soon(one.swarm.accept()));
    assert_eq!((called.unwrap().remote(), stream.unwrap().stream.remote()), (identity(70).public(), bad));
}

#[tokio::test]
async fn who_comes_and_goes_is_told_and_seen() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let [ann, ben] = [70, 71].map(|seed| identity(seed).public());
    let one = Ours::join(guest(&bootstrap).await, 70, As::Server).await.swarm;
    let mut events = one.events();
    assert_eq!(soon(events.recv()).await, Ok(Event::Searched { topic: TOPIC, announced: true }));
    let [topic] = one.topics()[..] else { panic!("one topic") };
    assert!(topic.server && !topic.client && topic.announced.is_some());

    let other = Ours::join(guest(&bootstrap).await, 71, As::Client).await.swarm;
    let _held = (soon(one.accept()).await, soon(other.accept()).await);
    assert_eq!(soon(events.recv()).await, Ok(Event::Connected { peer: ben, initiator: false }));
    let (theirs, ours) = (one.peer(&ben).unwrap(), other.peer(&ann).unwrap());
    assert!(matches!(theirs.state, PeerState::Connected { initiator: false, .. }));
    assert!(matches!(ours.state, PeerState::Connected { initiator: true, .. }));
    assert!(theirs.address.unwrap().ip().is_loopback() && ours.address.is_some());
    assert_eq!((theirs.topics, ours.topics), (vec![], vec![TOPIC]));
    assert_eq!(one.peers().len(), 1);

    soon(other.close()).await;
    assert_eq!(soon(events.recv()).await, Ok(Event::Disconnected { peer: ben }));
    assert_eq!(one.peers(), []);
    soon(one.close()).await;
    assert!(soon(events.recv()).await.is_err(), "it is over");
}

#[tokio::test]
async fn a_flush_waits_for_the_search_and_for_those_it_finds() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let one = Ours::join(guest(&bootstrap).await, 70, As::Server).await.swarm;
    soon(one.flush()).await.unwrap();
    assert!(one.announced(&TOPIC).is_some());
    let other = Ours::join(guest(&bootstrap).await, 71, As::Client).await.swarm;
    soon(other.flush()).await.unwrap();
    assert_eq!(other.links(), 1);
    // One that doesn't answer is waited for no longer than its first call takes.
    soon(nodes[1].announce(TOPIC, &identity(72), &[])).await.unwrap();
    other.refresh().await.unwrap();
    soon(other.flush()).await.unwrap();
    assert!(matches!(other.peer(&identity(72).public()).unwrap().state, PeerState::Waiting { .. }));
}

#[tokio::test]
async fn the_gate_is_asked_who_may_call_and_who_is_called() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let asked: Arc<Mutex<Vec<(PublicKey, bool)>>> = Arc::default();
    let settings = |refused: u8| {
        let (asked, refused) = (asked.clone(), identity(refused).public());
        let gate = move |key: &PublicKey, from: Option<_>| {
            asked.lock().unwrap().push((*key, from.is_some()));
            *key != refused
        };
        Settings { gate: Some(Arc::new(gate)), ..Settings::default() }
    };
    let one = Ours::join_with(guest(&bootstrap).await, 70, As::Server, settings(71)).await.swarm;
    soon(one.flush()).await.unwrap();
    let call = |seed| {
        let (dht, to) = (nodes[1].clone(), identity(70).public());
        async move { dht.connect(&identity(seed), to, &[], &Default::default()).await }
    };
    assert!(matches!(soon(call(71)).await, Err(ConnectError::NoAnswer { .. })));
    let (called, _held) = tokio::join!(soon(call(72)), soon(one.accept()));
    assert!(called.is_ok());
    let callers = std::mem::take(&mut *asked.lock().unwrap());
    assert!([71, 72].iter().all(|n| callers.contains(&(identity(*n).public(), true))));

    let other = Ours::join_with(guest(&bootstrap).await, 73, As::Client, settings(70)).await.swarm;
    soon(other.flush()).await.unwrap();
    assert_eq!((other.links(), other.peers().len()), (0, 0));
    assert!(asked.lock().unwrap().contains(&(identity(70).public(), false)));
}

#[tokio::test]
async fn a_connection_is_a_stream_of_bytes_to_who_wants_one() {
    let nodes = hosts(6, &[]).await;
    let bootstrap = [nodes[0].local_addr()];
    let one = Ours::join(guest(&bootstrap).await, 70, As::Server).await.swarm;
    soon(one.flush()).await.unwrap();
    let other = Ours::join(guest(&bootstrap).await, 71, As::Client).await.swarm;
    let [mut called, mut calls] =
        [soon(one.accept()).await, soon(other.accept()).await].map(|stream| stream.unwrap().stream.into_bytes());
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let send = async {
        calls.write_all(&sent).await.unwrap();
        calls.shutdown().await.unwrap();
        let mut answer = String::new();
        calls.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let receive = async {
        let mut received = Vec::new();
        called.read_to_end(&mut received).await.unwrap();
        called.write_all(b"all of it").await.unwrap();
        called.shutdown().await.unwrap();
        received
    };
    let (answer, received) = soon(async { tokio::join!(send, receive) }).await;
    assert!(answer == "all of it" && received == sent);
}
