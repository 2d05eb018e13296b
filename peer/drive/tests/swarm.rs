//! Feeds and drives over Hyperswarm, with JavaScript on the other side: whoever reads knows a key, and nothing else. Half
//! of the DHT on loopback is ours.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;
#[path = "../../hypercore/tests/support/mod.rs"]
mod support;

use datdot_drive::{Drive, drive, export, fetch::fetch, import::import};
use datdot_hypercore::{Config as NetworkConfig, FeedKey, Namespace, Network, PrimaryKey, Store, Want};
use datdot_hyperswarm::dht::{Config, Dht, Id, Identity, Role, Settings};
use datdot_hyperswarm::swarm::{self, As, Swarm};
use datdot_wire::noise;
use folder::*;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::ControlFlow;
use std::path::Path;
use support::*;
use tokio::task::JoinHandle;

const BLOCK: usize = 65_536;

/// A DHT, half of it ours, and where it begins: with ours, with theirs.
struct Mixed {
    _ours: Vec<Dht>,
    _theirs: Js,
    bootstrap: [SocketAddrV4; 2],
}

impl Mixed {
    async fn start() -> Mixed {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let first = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let host = |bootstrap: Vec<SocketAddrV4>, address, port| async move {
            let node = Config { bootstrap, address, role: Role::Host, firewalled: false, ..Config::default() };
            let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port }).await.unwrap();
            soon(dht.bootstrapped()).await.unwrap();
            dht
        };
        let mut ours = vec![host(Vec::new(), Some(first), port).await];
        assert_eq!(ours[0].local_addr(), first);
        let mut theirs = Js::run("dht.js", &["--nodes=4".to_owned(), format!("--bootstrap={first}")]);
        let ready = theirs.event("ready").await;
        assert_eq!(ready["hosts"], 4);
        let second = ready["nodes"][0].as_str().unwrap().parse().unwrap();
        for _ in 0..3 {
            ours.push(host(vec![second], None, 0).await);
        }
        Mixed { _ours: ours, _theirs: theirs, bootstrap: [first, second] }
    }

    /// For a program in JavaScript, which begins with a node of ours.
    fn option(&self) -> String {
        format!("--bootstrap={}", self.bootstrap[0])
    }
}

/// A peer of ours: a network whose connections come from a swarm. Dropped, it vanishes without a word.
struct Peer {
    network: Network,
    dht: Dht,
    swarm: JoinHandle<()>,
}

impl Peer {
    async fn join(mixed: &Mixed, store: Store, name: u8, key: FeedKey, as_: As) -> Peer {
        let config = NetworkConfig { listen: None, ..NetworkConfig::new(noise::Keypair::from_seed(&[name; 32])) };
        let network = Network::start(store, config).await.unwrap();
        let node = Config { bootstrap: vec![mixed.bootstrap[1]], role: Role::Guest, ..Config::default() };
        let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await.unwrap();
        let identity = Identity::from_seed(&[name; 32]);
        let mut swarm = Swarm::start(&dht, &identity, swarm::Settings::default()).await.unwrap();
        let topic = Id(key.discovery().0);
        swarm.join(topic, as_).await.unwrap();
        soon(swarm.searched(topic)).await.unwrap();
        let to = network.clone();
        let swarm = tokio::spawn(async move {
            while let Some(connection) = swarm.accept().await {
                to.attach(connection.stream.secret).unwrap();
            }
        });
        Peer { network, dht, swarm }
    }

    async fn vanish(self) -> Store {
        let store = self.network.store().clone();
        self.swarm.abort();
        self.dht.suspend().await.unwrap();
        self.network.close().await;
        store
    }
}

fn store(dir: &Path, name: &str) -> Store {
    Store::open(dir.join(name)).unwrap()
}

fn args(dir: &Path, name: &str, more: &[String]) -> Vec<String> {
    [&[format!("--dir={}", dir.join(name).display())], more].concat()
}

async fn run(js: &mut Js, command: Value) -> Value {
    js.write(&command.to_string()).await;
    js.event("done").await["result"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_a_drive_of_ours_knowing_only_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = Mixed::start().await;
    let source = dir.path().join("source");
    make_tree(&source, 200);
    let keypair = PrimaryKey::new([5; 32]).keypair(&Namespace::ROOT, drive::NAME);
    let store = store(dir.path(), "ours");
    let drive = Drive::create(&store, &keypair).unwrap();
    import(&drive, &source, &mut |_| ControlFlow::Continue(())).unwrap();
    let ours = Peer::join(&mixed, store, 1, drive.key(), As::Server).await;

    let more = [format!("--key={}", drive.key()), mixed.option()];
    let mut reader = Js::run("drive.js", &args(dir.path(), "reader", &more));
    reader.event("drive").await;
    let content = run(&mut reader, json!(["get", "/folder 1/file 1.txt"])).await;
    assert_eq!(content, "content 1 of the tree");
    let target = dir.path().join("target");
    run(&mut reader, json!(["toFolder", target])).await;
    assert_same(&source, &target);
    ours.network.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_a_drive_of_javascript_knowing_only_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = Mixed::start().await;
    let source = dir.path().join("source");
    make_tree(&source, 200);
    let more = [format!("--primary={}", hex::encode([5; 32])), mixed.option()];
    let mut author = Js::run("drive.js", &args(dir.path(), "author", &more));
    let key: FeedKey = author.event("drive").await["key"].as_str().unwrap().parse().unwrap();
    author.event("joined").await;
    run(&mut author, json!(["fromFolder", source, false])).await;

    let ours = Peer::join(&mixed, store(dir.path(), "ours"), 1, key, As::Client).await;
    let drive = Drive::open(ours.network.store(), key).unwrap();
    soon(fetch(&ours.network, &drive, None)).await.unwrap();
    let target = dir.path().join("target");
    let options = export::Options { folder: None, max_bytes: u64::MAX };
    export::export(&drive.latest(), &target, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_same(&source, &target);
    ours.network.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_blocks_of_64_kib_come_from_javascript_and_go_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = Mixed::start().await;
    let sizes = ["--blocks=1000".to_owned(), format!("--size={BLOCK}"), mixed.option()];
    let mut author = Js::run("seed.js", &args(dir.path(), "author", &sizes));
    let key: FeedKey = author.event("feeds").await["keys"][0].as_str().unwrap().parse().unwrap();
    author.event("joined").await;

    let ours = Peer::join(&mixed, store(dir.path(), "ours"), 1, key, As::Both).await;
    let feed = ours.network.store().open_remote(key, None).unwrap();
    let mut download = ours.network.download(&feed, Want::all());
    soon(download.done()).await.unwrap();
    assert_blocks(&feed, 1000, BLOCK).await;

    // The author is gone, and a reader who knows only the key finds us.
    drop(author);
    let more = [format!("--keys={key}"), sizes[0].clone(), sizes[1].clone(), mixed.option()];
    let mut reader = Js::run("get.js", &args(dir.path(), "reader", &more));
    let done = reader.event("done").await;
    assert_eq!((done["bad"].as_u64(), done["invalid"].as_u64()), (Some(0), Some(0)));
    ours.network.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_in_javascript_goes_on_when_we_vanish_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = Mixed::start().await;
    let mine = store(dir.path(), "ours");
    let feed = mine.create(&keypair(1)).unwrap();
    append(&feed, 100, 1_000).await;
    let key = feed.key();
    let ours = Peer::join(&mixed, mine, 1, key, As::Both).await;
    let more = [format!("--keys={key}"), "--blocks=200".to_owned(), "--size=1000".to_owned(), mixed.option()];
    let mut reader = Js::run("get.js", &args(dir.path(), "reader", &more));
    assert_eq!(reader.event("head").await["length"], 100);

    // Under the same key, at other ports. The reader has not noticed yet that the first one is gone.
    let mine = ours.vanish().await;
    append(&feed, 100, 1_000).await;
    let ours = Peer::join(&mixed, mine, 1, key, As::Both).await;
    let done = reader.event("done").await;
    assert_eq!((done["bad"].as_u64(), done["invalid"].as_u64()), (Some(0), Some(0)));
    ours.network.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_go_on_when_an_author_in_javascript_vanishes_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = Mixed::start().await;
    let author = |blocks: u64| {
        let more = [format!("--blocks={blocks}"), "--size=1000".to_owned(), mixed.option()];
        Js::run("seed.js", &args(dir.path(), "author", &more))
    };
    let mut first = author(100);
    let key: FeedKey = first.event("feeds").await["keys"][0].as_str().unwrap().parse().unwrap();
    first.event("joined").await;
    let ours = Peer::join(&mixed, store(dir.path(), "ours"), 1, key, As::Both).await;
    let feed = ours.network.store().open_remote(key, None).unwrap();
    let _download = ours.network.download(&feed, Want::all());
    let complete = |blocks: u64| {
        let mut progress = feed.watch();
        async move { _ = progress.wait_for(|info| info.length == blocks && info.is_complete()).await.unwrap() }
    };
    soon(complete(100)).await;

    // Killed without a word; the next one has another key for connections, and is found by the topic.
    drop(first);
    let mut second = author(200);
    second.event("joined").await;
    soon(complete(200)).await;
    assert_blocks(&feed, 200, 1_000).await;
    ours.network.close().await;
}
