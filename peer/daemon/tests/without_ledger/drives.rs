//! Drives that change, or come in part, while they are read.

use crate::peer::*;
use datdot_api::{GetOrder, Key, Listed, Progress, PublishOrder};
use datdot_daemon::swarm::LocalDht;
use datdot_drive::{
    Drive, DrivePath,
    fetch::{fetch, fetch_metadata},
};
use datdot_hypercore::{Keypair, Network, Store};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::sleep;

const LARGE: usize = 4 << 20;

/// A drive with a large file, in a store that can be served again and again.
fn drive(dir: &Path) -> (Store, Drive) {
    let store = Store::open(dir).unwrap();
    let drive = Drive::create(&store, &Keypair::from_seed([7; 32])).unwrap();
    put(&drive, "/large", &vec![1; LARGE]);
    (store, drive)
}

fn put(drive: &Drive, path: &str, content: &[u8]) {
    drive.put(&path.parse().unwrap(), &mut &*content, false).unwrap();
}

async fn serve_at_any(store: &Store, rate: Option<u64>) -> (Network, Vec<String>) {
    let network = serve(store, "127.0.0.1:0".parse().unwrap(), rate).await;
    let from = vec![network.local_addr().unwrap().to_string()];
    (network, from)
}

fn failed(steps: &[Progress]) -> &str {
    let Some(Progress::Failed { error }) = steps.last() else { panic!("{steps:?}") };
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_writes_the_version_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let (store, drive) = drive(&dir.path().join("author"));
    let (_author, from) = serve_at_any(&store, RATE).await;
    let publishing_again = async {
        reader.until("some of it came", has_some).await;
        let large: DrivePath = "/large".parse().unwrap();
        drive.delete(&large).unwrap();
        put(&drive, "/other", &[2; 1 << 20]);
        let lines = reader.list(Key(drive.key().0), from.clone()).await;
        assert!(matches!(&lines[..], [Listed::File { path, .. }, Listed::Done { .. }] if path == "other"), "{lines:?}");
    };
    let out = dir.path().join("out");
    let (steps, ()) = tokio::join!(reader.get(drive.key(), out.clone(), from.clone()), publishing_again);
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    assert_eq!(fs::read(out.join("large")).unwrap().len(), LARGE);
    assert!(!out.join("other").exists());
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_come_later_than_their_names_are_waited_for_and_nobody_is_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let (store, drive) = drive(&dir.path().join("author"));
    let (author, from_author) = serve_at_any(&store, None).await;
    let hoster = network(&dir.path().join("hoster"), 8, true).await;
    hoster.connect(author.local_addr().unwrap(), None).await.unwrap();
    let copy = Drive::open(hoster.store(), drive.key()).unwrap();
    fetch(&hoster, &copy, None).await.unwrap();
    put(&drive, "/later", &[2; 100_000]);
    while copy.version() < drive.version() {
        fetch_metadata(&hoster, &copy).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    author.close().await;

    let from_hoster = vec![hoster.local_addr().unwrap().to_string()];
    for inside in [None, Some("/later".to_owned())] {
        let order = GetOrder { inside, ..get(drive.key(), dir.path().join("out"), from_hoster.clone()) };
        let steps = reader.read(order).await;
        let why = failed(&steps);
        for words in ["nobody who was reached has", "hold 64 blocks", "kept here for a day"] {
            assert!(why.contains(words), "{why}");
        }
    }
    let at = from_author[0].parse().unwrap();
    let _author = serve(&store, at, None).await;
    let out = dir.path().join("out");
    let steps = reader.get(drive.key(), out.clone(), [from_hoster, from_author].concat()).await;
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    assert_eq!(fs::read(out.join("later")).unwrap().len(), 100_000);
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_told_before_anything_comes_and_nothing_comes_twice_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let (store, drive) = drive(&dir.path().join("author"));
    put(&drive, "/notes", b"theirs");
    let (author, from) = serve_at_any(&store, None).await;
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes"), "mine").unwrap();
    let steps = reader.get(drive.key(), out.clone(), from).await;
    author.close().await;
    let why = failed(&steps);
    assert!(why.contains("--replace") && why.contains("kept here for a day"), "{why}");
    let told: Vec<_> = steps.iter().map(|step| matches!(step, Progress::Skipped { .. })).collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "once: {steps:?}");
    let comes = |step: &Progress| matches!(step, Progress::Fetching { total, .. } if *total >= LARGE as u64);
    assert!(told.iter().position(|told| *told) < steps.iter().position(comes), "{steps:?}");
    assert_eq!(fs::read(out.join("notes")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("large")).unwrap().len(), LARGE);

    let order = GetOrder { replace: true, ..get(drive.key(), out.clone(), vec![]) };
    let steps = reader.read(order).await;
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    assert_eq!(fs::read(out.join("notes")).unwrap(), b"theirs");
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_can_not_go_on_at_a_start_ends_there() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let (at, gone) = (dir.path().join("peer"), dir.path().join("unmounted/folder"));
    let key = Drive::keys(&Keypair::from_seed([7; 32])).0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let publishing = PublishOrder { path: gone.clone(), wanted: None };
    let reading = json!({ "order": get(key, gone, vec![]), "since": now, "feeds": [Key(key.0)] });
    fs::create_dir(&at).unwrap();
    let journal = at.join("journal.json");
    fs::write(&journal, json!({ "begun": [publishing], "readings": [reading] }).to_string()).unwrap();
    let peer = Peer::start(&at, dht.bootstrap()).await;
    let is_over = |_: &_| {
        let notes: Value = serde_json::from_slice(&fs::read(&journal).unwrap()).unwrap();
        ["begun", "readings"].iter().all(|what| notes[what].as_array().is_some_and(Vec::is_empty))
    };
    peer.until("both have ended", is_over).await;
    let (told, _) = peer.daemon.story().listen();
    let told = format!("{told:?}");
    assert!(told.contains("is not read") && told.contains("is not published"), "{told}");
    peer.daemon.stop().await;
}
