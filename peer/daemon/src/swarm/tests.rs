//! Peers on one machine that know nothing of each other but a feed's key.

use super::*;
use crate::{
    discovery::Endpoint,
    fetch::{Failed, Fetcher, NamedBy, Wanted},
};
use bytes::Bytes;
use datdot_hypercore::{Config, Feed, Keypair, Store, Want};
use datdot_hyperswarm::dht;
use datdot_wire::{connection::Options, noise};
use tokio::time::{Instant, sleep};

const KIND: Wanted = Wanted::Kind { room: u64::MAX };

struct Peer {
    topics: Topics,
    network: Network,
    fetcher: Fetcher,
    running: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Peer {
    async fn start(seed: u8, settings: &Settings) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let network = Config { listen, ..Config::new(noise::Keypair::from_seed(&[seed; 32])) };
        let network = Network::start(store, network).await.unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let started = Topics::start(settings.clone(), &[seed; 32], listen, &network, dir.path()).await;
        let (topics, running) = started.unwrap();
        let fetcher = Fetcher::new(network.clone(), false, topics.clone());
        Peer { running: tokio::spawn(running.run()), topics, network, fetcher, _dir: dir }
    }

    async fn write(&self, seed: u8, blocks: u8) -> Feed {
        let feed = self.network.store().create(&Keypair::from_seed([seed; 32])).unwrap();
        feed.append((0..blocks).map(|at| Bytes::from(vec![at; 64 << 10])).collect()).await.unwrap();
        feed
    }

    /// Fetches whatever the swarm finds; addresses it has none.
    async fn fetch(&self, key: FeedKey) -> Result<Feed, Failed> {
        self.fetch_as(key, Wanted::First { room: u64::MAX }).await
    }

    async fn fetch_as(&self, key: FeedKey, wanted: Wanted) -> Result<Feed, Failed> {
        let none: [(Endpoint, _); 0] = [];
        let fetched = self.fetcher.fetch(key, &wanted, &none, &mut |_, _, _| {}).await;
        fetched.map(|fetched| fetched.feed)
    }

    async fn announce(&self, feed: &Feed) {
        self.topics.announce([feed.key()]);
        until("it is announced", || self.topics.announced(&feed.key()).is_some()).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn dht() -> (LocalDht, Settings) {
    let dht = LocalDht::start().await.unwrap();
    let settings = Settings::Through(vec![dht.bootstrap()]);
    (dht, settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_fetched_by_its_key_alone_and_then_from_the_copy() {
    let (_dht, settings) = dht().await;
    let (author, hoster, reader) =
        (Peer::start(1, &settings).await, Peer::start(2, &settings).await, Peer::start(3, &settings).await);
    let feed = author.write(9, 20).await;
    author.announce(&feed).await;
    let copy = hoster.fetch(feed.key()).await.unwrap();
    assert_eq!(copy.get(7).await.unwrap()[0], 7);
    let met = hoster.network.peers();
    assert_eq!(met[0].remote, author.network.public_key(), "one key in the swarm and over TCP");

    hoster.announce(&copy).await;
    author.topics.close().await;
    author.network.close().await;
    drop(author);
    assert_eq!(reader.fetch(feed.key()).await.unwrap().get(19).await.unwrap()[0], 19);
    // What was only read is not announced.
    assert_eq!((reader.topics.announced(&feed.key()), reader.topics.status().topics), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_head_is_found_in_the_swarm_by_who_has_all_of_an_older_one() {
    let (_dht, settings) = dht().await;
    let (author, reader) = (Peer::start(1, &settings).await, Peer::start(2, &settings).await);
    let feed = author.write(9, 2).await;
    author.announce(&feed).await;
    // By an address, so that the swarm has met nobody.
    let copy = reader.network.store().open_remote(feed.key(), None).unwrap();
    let dialled = reader.network.connect(author.network.local_addr().unwrap(), None).await.unwrap();
    reader.network.download(&copy, Want::all()).done().await.unwrap();
    reader.network.disconnect(dialled.id);
    until("nobody is connected", || reader.network.peers().is_empty()).await;
    feed.append(vec![Bytes::from("news")]).await.unwrap();
    assert_eq!(reader.fetch_as(feed.key(), KIND).await.unwrap().info().length, 3);
    assert_eq!(reader.fetch(feed.key()).await.unwrap().get(2).await.unwrap(), "news");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_in_the_swarm_is_heard_before_a_hoster_of_an_older_version_is_believed() {
    let (_dht, settings) = dht().await;
    let (author, hoster, reader) =
        (Peer::start(1, &settings).await, Peer::start(2, &settings).await, Peer::start(3, &settings).await);
    let feed = author.write(9, 2).await;
    let copy = hoster.network.store().open_remote(feed.key(), None).unwrap();
    let dialled = hoster.network.connect(author.network.local_addr().unwrap(), None).await.unwrap();
    hoster.network.download(&copy, Want::all()).done().await.unwrap();
    hoster.network.disconnect(dialled.id);
    until("nobody is connected", || hoster.network.peers().is_empty()).await;
    feed.append(vec![Bytes::from("news")]).await.unwrap();
    author.announce(&feed).await;
    until("it knows the DHT", || reader.topics.status().known > 0).await;
    let from = [(Endpoint { address: hoster.network.local_addr().unwrap(), noise_key: None }, NamedBy::User)];
    let got = reader.fetcher.fetch(feed.key(), &KIND, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!((got.feed.info().length, copy.info().length), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_lost_late_in_a_long_fetch_is_found_again() {
    let (_dht, settings) = dht().await;
    let (author, reader) = (Peer::start(1, &settings).await, Peer::start(2, &settings).await);
    let feed = author.write(9, 60).await;
    author.announce(&feed).await;
    author.network.limits().upload.set(Some(250_000));
    let losing = async {
        // Longer than nobody is looked for.
        sleep(Duration::from_secs(12)).await;
        author.network.peers().iter().for_each(|peer| author.network.disconnect(peer.id));
        reader.network.store().feed(&feed.key()).unwrap().info().blocks_here
    };
    let (fetched, came) = tokio::join!(reader.fetch(feed.key()), losing);
    assert!((1..60).contains(&came), "it was lost in the middle: {came}");
    assert_eq!(fetched.unwrap().info().contiguous, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_feed_of_a_drive_comes_over_the_connection_of_the_first() {
    let (_dht, settings) = dht().await;
    let (author, reader) = (Peer::start(1, &settings).await, Peer::start(2, &settings).await);
    let (metadata, contents) = (author.write(8, 2).await, author.write(9, 5).await);
    author.announce(&metadata).await;
    let _looking = reader.topics.look_for(metadata.key());
    assert_eq!(reader.fetch(contents.key()).await.unwrap().get(4).await.unwrap()[0], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_over_tcp_and_by_the_swarm_has_one_limit() {
    const RATE: u64 = 1_000_000;
    let (_dht, settings) = dht().await;
    let (author, near, far) =
        (Peer::start(1, &settings).await, Peer::start(2, &settings).await, Peer::start(3, &settings).await);
    let feed = author.write(9, 200).await;
    author.announce(&feed).await;
    author.network.limits().upload.set(Some(RATE));
    let [by_tcp, by_swarm] = [&near, &far].map(|peer| peer.network.store().open_remote(feed.key(), None).unwrap());
    let _downloads = [near.network.download(&by_tcp, Want::all()), far.network.download(&by_swarm, Want::all())];
    near.network.connect(author.network.local_addr().unwrap(), None).await.unwrap();
    let _looking = far.topics.look_for(feed.key());
    let here = || [&by_tcp, &by_swarm].map(|copy| copy.info().bytes_here);
    until("both receive", || here().iter().all(|bytes| *bytes > 0)).await;
    assert!(far.network.peers().iter().all(|peer| peer.address.is_none()), "one of them by the swarm");
    let (before, begun) = (here(), Instant::now());
    sleep(Duration::from_secs(3)).await;
    let (after, limit) = (here(), RATE as f64 * begun.elapsed().as_secs_f64());
    let [tcp, swarm] = [0, 1].map(|at| (after[at] - before[at]) as f64);
    // A machine that is busy with something else may be slower.
    assert!((0.7 * limit..1.15 * limit).contains(&(tcp + swarm)), "{tcp} and {swarm} of {limit}");
    assert!(tcp < 2.0 * swarm && swarm < 2.0 * tcp, "{tcp} and {swarm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_not_waited_for_for_ever() {
    let (_dht, settings) = dht().await;
    let reader = Peer::start(1, &settings).await;
    let begun = Instant::now();
    let failed = reader.fetch(FeedKey([7; 32])).await.unwrap_err();
    assert!(failed.why.to_string().contains("nobody who announces it"), "{}", failed.why);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_protocol_is_banned() {
    let (local, settings) = dht().await;
    let peer = Peer::start(1, &settings).await;
    let feed = peer.write(9, 1).await;
    peer.announce(&feed).await;
    let node = dht::Config { bootstrap: vec![local.bootstrap()], role: dht::Role::Guest, ..dht::Config::default() };
    let settings = dht::Settings { node, host: std::net::Ipv4Addr::LOCALHOST, port: 0 };
    let liar = Dht::start(settings).await.unwrap();
    liar.bootstrapped().await.unwrap();
    let identity = Identity::from_seed(&[66; 32]);
    let options = Options::default();
    let call = || liar.connect(&identity, peer.network.public_key(), &[], &options);
    let mut events = peer.network.events();
    let mut stream = call().await.unwrap();
    // Opens a channel under a number that can't be its next.
    stream.secret.writer.send(&[0, 1, 0xfd, 0xff, 0xff, 1, b'x', 0]).await.unwrap();
    stream.secret.writer.flush().await.unwrap();
    // A second call before that would only replace the first.
    let at_fault = async {
        while !matches!(events.recv().await.unwrap(), PeerEvent::Ended(_, why) if matches!(*why, Ended::Fault(_))) {}
    };
    timeout(Duration::from_secs(10), at_fault).await.expect("the liar is found out");
    // The swarm hears of it a moment later.
    let begun = Instant::now();
    while let Ok(stream) = call().await {
        drop(stream);
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not welcome any more");
    }
    until("no connection is left", || peer.topics.status().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_dht_is_found_without_those_at_which_it_began() {
    let (_dht, settings) = dht().await;
    let peer = Peer::start(1, &settings).await;
    until("it knows the DHT", || peer.topics.status().known >= 5).await;
    peer.topics.close().await;
    let known = begin::load(&peer._dir.path().join(begin::FILE), &settings).unwrap();
    assert!(known.len() >= 5, "{known:?}");
}
