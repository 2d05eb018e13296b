//! A daemon whose ledger is away from the start on.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod drives;
mod peer;

use datdot_api::{
    Amount, Client, ClientError, Event, HostOrder, Key, Listed, Progress,
    status::{FeedRole, FeedStatus},
};
use datdot_daemon::swarm::LocalDht;
use datdot_hypercore::{FeedKey, Keypair, Want};
use datdot_market::params::DAT;
use peer::*;
use std::{fs, path::Path, time::Duration};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

/// Leaves a whole feed in a store, as if it had been fetched for a contract.
async fn hosts(dir: &Path) -> FeedKey {
    let author = network(&dir.join("author"), 7, true).await;
    let feed = author.store().create(&Keypair::from_seed([7; 32])).unwrap();
    feed.append(vec!["hosted".into(), " data".into()]).await.unwrap();
    fs::create_dir_all(dir.join("hoster")).unwrap();
    let hoster = network(&dir.join("hoster/store"), 8, false).await;
    let copy = hoster.store().open_remote(feed.key(), None).unwrap();
    hoster.connect(author.local_addr().unwrap(), None).await.unwrap();
    hoster.download(&copy, Want::all()).done().await.unwrap();
    hoster.close().await;
    author.close().await;
    feed.key()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hosted_is_found_and_served_and_the_status_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let key = hosts(dir.path()).await;
    let hoster = Peer::start(&dir.path().join("hoster"), dht.bootstrap()).await;
    let status = hoster.until("is in the swarm", |status| status.swarm.topics == 1).await;
    assert!(!status.ledger.connected && status.ledger.away_seconds.is_some(), "{:?}", status.ledger);
    let problem = status.ledger.problem.unwrap();
    for words in ["ws://127.0.0.1:1 does not answer", "is its node running?", "by itself", "serving"] {
        assert!(problem.contains(words), "{problem}");
    }
    let (told, _) = hoster.daemon.story().listen();
    assert!(told.iter().any(|told| matches!(told.event, Event::LedgerLost { .. })), "{told:?}");

    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    for (name, from) in [("named", vec![hoster.daemon.listen().to_string()]), ("found", vec![])] {
        let out = dir.path().join(name);
        let begun = Instant::now();
        let steps = reader.get(key, out.clone(), from).await;
        assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
        assert_eq!(fs::read(out).unwrap(), b"hosted data");
        assert!(begun.elapsed() < Duration::from_secs(25), "it doesn't wait for the ledger first");
    }
    hoster.daemon.stop().await;
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_lost_its_source_goes_on_by_being_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let (store, key) = large(&dir.path().join("author")).await;
    let author = serve(&store, "127.0.0.1:0".parse().unwrap(), RATE).await;
    let at = author.local_addr().unwrap();
    let (out, from) = (dir.path().join("out"), vec![at.to_string()]);
    let losing = async {
        reader.until("some of it came", has_some).await;
        author.close().await;
    };
    let (steps, ()) = tokio::join!(reader.get(key, out.clone(), from.clone()), losing);
    let Some(Progress::Failed { error }) = steps.last() else { panic!("{steps:?}") };
    assert!(error.contains("kept here for a day") && !out.exists(), "{error}");

    let _author = serve(&store, at, None).await;
    let steps = reader.get(key, out.clone(), from).await;
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    let came_again = |step: &Progress| matches!(step, Progress::Fetching { bytes, .. } if *bytes <= 1 << 20);
    assert!(!steps.iter().any(came_again), "{steps:?}");
    assert_eq!(fs::read(out).unwrap().len(), 4 << 20);
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_looks_again_for_what_it_finds_nobody_for() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let (store, key) = large(&dir.path().join("author")).await;
    let author = serve(&store, "127.0.0.1:0".parse().unwrap(), RATE).await;
    let at = author.local_addr().unwrap();
    let (out, client) = (dir.path().join("out"), Client::open(&reader.dir).unwrap());
    let order = get(key, out.clone(), vec![at.to_string()]);
    let reading = spawn_blocking(move || client.read(&order).unwrap().take_while(Result::is_ok).count());
    reader.until("some of it came", has_some).await;
    reader.daemon.stop().await;
    author.close().await;
    reading.await.unwrap();

    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    // Longer than a fetch looks for somebody.
    sleep(Duration::from_secs(15)).await;
    assert!(!out.exists());
    let _author = serve(&store, at, None).await;
    reader.until("it is read", |_| out.exists()).await;
    assert_eq!(fs::read(&out).unwrap().len(), 4 << 20);
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_here_is_read_as_long_as_its_author_has_made_it_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let author = network(&dir.path().join("author"), 7, true).await;
    let feed = author.store().create(&Keypair::from_seed([7; 32])).unwrap();
    let from = vec![author.local_addr().unwrap().to_string()];
    for (appended, whole) in [(Some("one"), "one"), (Some(" two"), "one two"), (None, "one two")] {
        match appended {
            Some(text) => _ = feed.append(vec![text.into()]).await.unwrap(),
            None => author.close().await,
        }
        let out = dir.path().join(format!("out{}", appended.unwrap_or("")));
        let steps = reader.get(feed.key(), out.clone(), from.clone()).await;
        assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
        assert_eq!(fs::read_to_string(out).unwrap(), whole);
    }
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_a_drive_leaves_nothing_of_its_contents_behind() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let author = Peer::start(&dir.path().join("author"), dht.bootstrap()).await;
    let reader = Peer::start(&dir.path().join("reader"), dht.bootstrap()).await;
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), "content").unwrap();
    let key = author.publish(&folder).await;
    let from = vec![author.daemon.listen().to_string()];
    let lines = reader.list(key, from).await;
    assert!(matches!(lines.last(), Some(Listed::Done { .. })), "{lines:?}");
    let feeds = reader.until("has looked", |status| !status.feeds.is_empty()).await.feeds;
    assert!(feeds.iter().all(|feed| feed.key == key), "{feeds:?}");
    author.daemon.stop().await;
    reader.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_ledger_is_refused_or_noted_and_what_does_not_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let peer = Peer::start(&dir.path().join("peer"), dht.bootstrap()).await;
    let path = dir.path().join("file");
    fs::write(&path, "text").unwrap();
    peer.publish(&path).await;
    let offer = HostOrder { space: 1 << 20, price: Amount(DAT), max_term: None, region: None };
    let offer = peer.ask(move |client| client.host(&offer)).await.unwrap();
    assert!(offer.why.unwrap().contains("the offer is noted"));
    let refused = peer.ask(|client| client.cancel(0)).await;
    assert!(matches!(&refused, Err(ClientError::Refused(why)) if why.contains("does not answer")), "{refused:?}");
    peer.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_we_can_write_survives_the_loss_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let at = dir.path().join("peer");
    let peer = Peer::start(&at, dht.bootstrap()).await;
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), "content").unwrap();
    for path in [&file, &folder] {
        peer.publish(path).await;
    }
    let before = peer.ask(|client| client.status()).await.unwrap().feeds;
    assert_eq!(before.len(), 3);
    peer.daemon.stop().await;
    fs::remove_file(at.join("journal.json")).unwrap();
    let peer = Peer::start(&at, dht.bootstrap()).await;
    let after = peer.ask(|client| client.status()).await.unwrap().feeds;
    let in_short = |feeds: &[FeedStatus]| feeds.iter().map(|feed| (feed.key, feed.role, feed.held)).collect::<Vec<_>>();
    assert_eq!(in_short(&after), in_short(&before));
    peer.daemon.stop().await;
}

/// Whether a stranger who knows the key gets anything.
async fn is_shown(peer: &Peer, dir: &Path, key: Key) -> bool {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let network = network(dir.path(), 9, false).await;
    network.connect(peer.daemon.listen(), None).await.unwrap();
    let copy = network.store().open_remote(FeedKey(key.0), None).unwrap();
    let comes = timeout(Duration::from_secs(2), network.download(&copy, Want::all()).done()).await;
    network.close().await;
    comes.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpublished_is_shown_to_nobody_and_comes_back_under_the_same_key_unless_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let at = dir.path().join("peer");
    let mut peer = Peer::start(&at, dht.bootstrap()).await;
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a"), "content").unwrap();
    let unknown = peer.unpublish(Key([1; 32]), false).await.unwrap_err();
    assert!(unknown.contains("was not published here"), "{unknown}");
    for path in [file, folder] {
        let key = peer.publish(&path).await;
        assert!(is_shown(&peer, dir.path(), key).await);
        assert_eq!(peer.unpublish(key, false).await.unwrap().deleted, 0);
        peer.until("it is not announced", |status| status.swarm.topics == 0).await;
        assert!(!is_shown(&peer, dir.path(), key).await);

        peer.daemon.stop().await;
        peer = Peer::start(&at, dht.bootstrap()).await;
        let taken_back = peer.until("it is taken back", |status| !status.feeds.is_empty()).await.feeds;
        assert!(taken_back.iter().all(|feed| feed.role == FeedRole::Unpublished && feed.held > 0), "{taken_back:?}");
        assert!(!is_shown(&peer, dir.path(), key).await, "nor after a restart");

        assert_eq!(peer.publish(&path).await, key);
        assert!(is_shown(&peer, dir.path(), key).await);
        assert!(peer.unpublish(key, true).await.unwrap().deleted > 0);
        assert!(!is_shown(&peer, dir.path(), key).await);
        peer.until("nothing is left", |status| status.feeds.is_empty() && status.drives.is_empty()).await;
        let other = peer.publish(&path).await;
        assert_ne!(other, key, "its secret key is gone");
        peer.unpublish(other, true).await.unwrap();
    }
    peer.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_s_own_folder_is_published_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dht = LocalDht::start().await.unwrap();
    let (home, at, link) = (dir.path().join("home"), dir.path().join("home/peer"), dir.path().join("link"));
    let peer = Peer::start(&at, dht.bootstrap()).await;
    fs::write(home.join("mine"), "mine").unwrap();
    std::os::unix::fs::symlink(&at, &link).unwrap();
    for secret in [at.clone(), at.join("store"), at.join("noise.key"), link.clone(), link.join("api.json")] {
        let steps = peer.publishes(&secret).await;
        let Some(Progress::Failed { error }) = steps.last() else { panic!("{secret:?}: {steps:?}") };
        assert!(error.contains("the daemon's own folder") && error.contains("another place"), "{error}");
    }
    let steps = peer.publishes(&home).await;
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    let is_named = |step: &Progress| matches!(step, Progress::Skipped { name, .. } if name == "peer");
    assert!(steps.iter().any(is_named), "{steps:?}");
    let status = peer.until("it is published", |status| status.drives.len() == 1).await;
    assert_eq!((status.drives[0].files, status.drives[0].bytes), (1, 4), "the rest is the daemon's");
    peer.daemon.stop().await;
}
