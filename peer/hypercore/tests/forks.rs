//! History that is rewritten: followed where that is wanted, and evidence where it was written twice.

mod support;
use bytes::Bytes;
use datdot_hypercore::{
    Changed, Feed, FeedError, Network, ReadError, Stopped, Store, Want,
    messages::{Message, Request},
};
use proptest::prelude::*;
use std::time::Duration;
use support::{played::Played, *};

const SIZE: usize = 500;

/// Block `i` as it is after a fork.
fn forked(i: u64) -> Bytes {
    block(i + 1000, SIZE)
}

async fn append_forked(feed: &Feed, count: u64) {
    let start = feed.info().length;
    feed.append((start..start + count).map(forked).collect()).await.expect("an author appends");
}

async fn assert_fork(feed: &Feed, cut: u64, length: u64) {
    for i in 0..length {
        let expected = if i < cut { block(i, SIZE) } else { forked(i) };
        assert_eq!(feed.get(i).await.expect("the block is here"), expected, "block {i}");
    }
}

async fn copied(author: &Network, hoster: &Network, length: u64) -> (Feed, Feed) {
    let feed = author.store().create(&keypair(1)).expect("room");
    append(&feed, length, SIZE).await;
    let copy = copy_in(hoster, &feed);
    connect(hoster, author).await;
    soon(hoster.download(&copy, Want::blocks(0..length)).done()).await.expect("everything comes");
    (feed, copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_keeps_what_is_still_true_and_fetches_the_rest() {
    for (length, cut, more) in [(100, 61, 50), (64, 63, 0), (100, 1, 99), (37, 36, 100), (128, 100, 5)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, hoster) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
        let (feed, copy) = copied(&author, &hoster, length).await;
        copy.follow_forks(true);
        let mut changes = hoster.store().changes();
        let _download = hoster.download(&copy, Want::all());
        feed.truncate(cut).await.expect("an author cuts");
        assert_eq!((feed.info().fork, feed.info().length), (1, cut));
        append_forked(&feed, more).await;
        assert_fork(&feed, cut, cut + more).await;
        let mut progress = copy.watch();
        let there = |info: &datdot_hypercore::Info| info.fork == 1 && info.length == cut + more && info.is_complete();
        soon(progress.wait_for(there)).await.expect("it follows");
        assert_fork(&copy, cut, cut + more).await;
        assert!(copy.scrub(0..cut + more).await.expect("readable").is_empty());
        assert_eq!(copy.signed_head(), feed.signed_head());
        let (mut gained, mut cuts) = (0, Vec::new());
        while let Ok(change) = changes.try_recv() {
            gained += match change.what {
                Changed::Cut { lost, fork } => {
                    cuts.push((lost, fork));
                    0
                }
                Changed::Lost(_) => panic!("nothing was damaged"),
                Changed::Gained(blocks) if change.key == copy.key() => blocks.end - blocks.start,
                _ => 0,
            };
        }
        assert_eq!(cuts, [(cut..length, 1)]);
        assert_eq!(gained, more, "only what is new is fetched: {length} cut to {cut}");
        author.close().await;
        hoster.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_promised_to_keep_data_follows_no_fork() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, hoster) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
    let (feed, copy) = copied(&author, &hoster, 40).await;
    let _download = hoster.download(&copy, Want::all());
    feed.truncate(10).await.expect("an author cuts");
    append_forked(&feed, 60).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((copy.info().fork, copy.info().length), (0, 40));
    assert_blocks(&copy, 40, SIZE).await;
    assert_eq!(hoster.peers().len(), 1, "nobody lied");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_more_hears_of_a_fork_and_may_follow_it_then() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, hoster) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
    let (feed, copy) = copied(&author, &hoster, 40).await;
    copy.clear(5..6).await.expect("writable");
    hoster.peers().iter().for_each(|peer| hoster.disconnect(peer.id));
    feed.truncate(10).await.expect("an author cuts");
    append_forked(&feed, 5).await;
    let mut changes = hoster.store().changes();
    let (mut tail, mut all) = (hoster.tail(&copy, 40), hoster.download(&copy, Want::all()));
    connect(&hoster, &author).await;
    let next = soon(tail.next()).await;
    assert!(matches!(next, Err(ReadError::Stopped(Stopped::Forked { fork: 1 }))), "{next:?}");
    assert!(matches!(soon(all.done()).await, Err(Stopped::Forked { fork: 1 })));
    let got = soon(hoster.get(&copy, 50, Duration::MAX)).await;
    assert!(matches!(got, Err(ReadError::Stopped(Stopped::Forked { fork: 1 }))), "{got:?}");
    assert_eq!((copy.info().fork, copy.info().later_fork, copy.info().length), (0, Some(1), 40));
    assert_eq!(soon(changes.recv()).await.map(|change| change.what), Ok(Changed::Forked { fork: 1 }));
    // What is a part of the old history is still waited for, and comes from who has that.
    let other = network(dir.path(), 3).await;
    let old = other.store().create(&keypair(1)).expect("room");
    append(&old, 40, SIZE).await;
    let mut rest = hoster.download(&copy, Want::blocks(0..40));
    connect(&hoster, &other).await;
    soon(rest.done()).await.expect("it comes");
    assert_blocks(&copy, 40, SIZE).await;
    // Now the new one.
    copy.follow_forks(true);
    append_forked(&feed, 30).await;
    assert_eq!(soon(tail.next()).await.expect("it comes"), (40, forked(40)));
    soon(all.done()).await.expect("it comes");
    assert_fork(&copy, 10, 45).await;
    assert_eq!((copy.info().fork, copy.info().later_fork), (1, None));
    assert_eq!(hoster.peers().len(), 2, "nobody lied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_nobody_can_show_stops_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path().join("author")).expect("the folder is free");
    let feed = store.create(&keypair(1)).expect("room");
    append(&feed, 8, SIZE).await;
    let mut played = Played::new(&dir.path().join("reader"), feed.key(), Some(&feed));
    played.offer(7, 20).expect("it may be true");
    let asked = played.requests();
    assert!(matches!(asked[..], [Request { fork: 7, upgrade: Some(_), block: None, .. }]), "{asked:?}");
    played.say(&Message::NoData { id: asked[0].id, reason: None }).expect("it may be true");
    played.offer(0, 8).expect("it may be true");
    assert_eq!(played.requests().len(), 8);
    assert_eq!(played.feed.info().later_fork, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_histories_of_one_fork_are_kept_as_evidence_and_not_followed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, two_faced, hoster) =
        (network(dir.path(), 1).await, network(dir.path(), 2).await, network(dir.path(), 3).await);
    let (feed, copy) = copied(&author, &hoster, 40).await;
    let other = two_faced.store().create(&keypair(1)).expect("room");
    append(&other, 30, SIZE).await;
    append_forked(&other, 30).await;
    let (_download, mut tail) = (hoster.download(&copy, Want::all()), hoster.tail(&copy, 40));
    let mut changes = hoster.store().changes();
    connect(&hoster, &two_faced).await;
    let next = soon(tail.next()).await;
    assert!(matches!(next, Err(ReadError::Stopped(Stopped::Conflict))), "{next:?}");
    assert_eq!(soon(changes.recv()).await.map(|change| change.what), Ok(Changed::Conflict));
    let conflict = copy.conflict().expect("it was found");
    assert!(conflict.is_proof(&feed.key()) && !conflict.is_proof(&other_key()));
    let mut forged = (*conflict).clone();
    forged.theirs = forged.ours.clone();
    assert!(!forged.is_proof(&feed.key()), "twice the same is no conflict");
    append(&feed, 5, SIZE).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(copy.info().length, 40, "nothing newer is followed");
    assert_eq!(hoster.peers().len(), 2, "the peers are not to blame");
    assert_blocks(&copy, 40, SIZE).await;
    hoster.close().await;
    drop((copy, _download, tail, hoster));
    let store = loop {
        match Store::open(dir.path().join("store-3")) {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(store.feed(&feed.key()).expect("it is there").conflict(), Some(conflict));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_histories_are_evidence_whichever_is_the_longer() {
    // Ours is whole, or only its head is known and blocks are asked of who has another history, of so many blocks.
    for (whole, theirs) in [(true, 60), (false, 60), (false, 40), (false, 33), (false, 31)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, feed) = author(dir.path(), 40, SIZE).await;
        let (two_faced, hoster) = (network(dir.path(), 2).await, network(dir.path(), 3).await);
        let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
        connect(&hoster, &author).await;
        // Some of the tree below our head has to be known, to compare a shorter one with it.
        let first = if whole { 0..40 } else { 28..34 };
        soon(hoster.download(&copy, Want::blocks(first)).done()).await.expect("they come");
        if !whole {
            hoster.peers().iter().for_each(|peer| hoster.disconnect(peer.id));
            while !hoster.peers().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut download = hoster.download(&copy, Want { blocks: 0..40, follow: true });
        let other = two_faced.store().create(&keypair(1)).expect("room");
        append(&other, 20, SIZE).await;
        append_forked(&other, theirs - 20).await;
        connect(&hoster, &two_faced).await;
        let found = async {
            while copy.conflict().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(found).await;
        let conflict = copy.conflict().expect("it was found");
        assert!(conflict.is_proof(&feed.key()) && !conflict.is_proof(&other_key()), "{theirs} blocks");
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(hoster.peers().iter().any(|peer| peer.remote == two_faced.public_key()), "who told is not to blame");
        connect(&hoster, &author).await;
        soon(download.done()).await.expect("ours comes from others");
        assert_blocks(&copy, 40, SIZE).await;
    }
}

fn other_key() -> datdot_hypercore::FeedKey {
    keypair(9).feed_key(&keypair(9).manifest())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_author_who_cuts_and_appends_finds_the_same_after_any_restart(
        steps in proptest::collection::vec((any::<bool>(), 1..40u64), 1..8),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut expected, mut fork): (Vec<Bytes>, u64) = (Vec::new(), 0);
        for (number, (cut, count)) in (0u64..).zip(steps) {
            let feed = Store::open(dir.path()).expect("the folder is free").create(&keypair(1)).expect("room");
            if cut && !expected.is_empty() {
                expected.truncate((count as usize).min(expected.len()));
                feed.truncate_now(expected.len() as u64).expect("an author cuts");
                fork += 1;
            } else {
                let blocks: Vec<_> = (0..count).map(|i| block(i + 1000 * number, 77)).collect();
                feed.write(&blocks).expect("an author appends");
                expected.extend(blocks);
            }
            drop(feed);
            let feed = Store::open(dir.path()).expect("the folder is free").create(&keypair(1)).expect("room");
            let info = feed.info();
            prop_assert_eq!((info.fork, info.length, info.blocks_missing()), (fork, expected.len() as u64, 0));
            prop_assert_eq!(info.bytes_here, expected.concat().len() as u64);
            for (i, block) in (0..).zip(&expected) {
                prop_assert_eq!(&feed.read(i).expect("it is here"), block);
            }
            let beyond = matches!(feed.read(expected.len() as u64), Err(FeedError::OutOfRange { .. }));
            prop_assert!(beyond);
        }
    }
}
