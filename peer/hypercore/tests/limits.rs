//! Limits in bytes per second, as whole connections hold them: to the byte by a clock of their own, about so over sockets.

mod support;
use datdot_hypercore::{Download, Feed, Network, Want};
use std::time::Duration;
use support::*;
use tokio::time::{Instant, sleep};

/// A network that fetches a feed, its copy, and what keeps it fetching.
type Reader = (Network, Feed, Download);

async fn reader(dir: &std::path::Path, name: u8, feed: &Feed) -> Reader {
    let network = network(dir, name).await;
    let copy = network.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let download = network.download(&copy, Want::all());
    (network, copy, download)
}

/// Bytes of blocks that each copy gains in so much time.
async fn gained(readers: &[Reader], time: Duration) -> Vec<u64> {
    let here = || readers.iter().map(|(_, copy, _)| copy.info().bytes_here);
    let before: Vec<u64> = here().collect();
    sleep(time).await;
    here().zip(before).map(|(now, before)| now - before).collect()
}

fn is_near(bytes: u64, expected: u64) -> bool {
    bytes.abs_diff(expected) <= expected / 20
}

const TEN: Duration = Duration::from_secs(10);

// The clock stands still while anybody works, so what comes in ten of its seconds does not depend on the machine.
#[tokio::test(start_paused = true)]
async fn each_limit_holds_within_a_twentieth_over_ten_seconds_and_from_when_it_is_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 1500, 16 << 10).await;
    author.limits().upload.set(Some(400_000));
    let mut readers = Vec::new();
    for name in [2, 3] {
        let reader = reader(dir.path(), name, &feed).await;
        join(&reader.0, &author, [name, 1]).await;
        readers.push(reader);
    }
    sleep(Duration::from_secs(1)).await;
    let sent = gained(&readers, TEN).await;
    assert!(sent.iter().all(|sent| is_near(*sent, 2_000_000)), "each has a half of what is sent: {sent:?}");

    author.limits().upload_each.set(Some(300_000));
    author.limits().upload.set(None);
    let sent = gained(&readers, TEN).await;
    assert!(sent.iter().all(|sent| is_near(*sent, 3_000_000)), "{sent:?}");

    readers.pop().expect("there are two").0.close().await;
    let own = readers[0].0.limits();
    own.download.set(Some(800_000));
    author.limits().upload_each.set(None);
    let received = gained(&readers, TEN).await;
    assert!(is_near(received[0], 8_000_000), "{received:?}");

    own.download_each.set(Some(900_000));
    own.download.set(None);
    let received = gained(&readers, TEN).await;
    assert!(is_near(received[0], 9_000_000), "{received:?}");
    assert!(!readers[0].2.is_done(), "there was always more to come");
}

#[tokio::test(start_paused = true)]
async fn a_peer_gets_no_more_over_two_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 1200, 16 << 10).await;
    author.limits().upload_each.set(Some(200_000));
    let readers = [reader(dir.path(), 2, &feed).await];
    for _ in 0..2 {
        join(&readers[0].0, &author, [2, 1]).await;
    }
    assert_eq!(author.peers().len(), 2);
    sleep(Duration::from_secs(1)).await;
    let sent = gained(&readers, TEN).await;
    assert!(is_near(sent[0], 2_000_000), "{sent:?}");

    readers[0].0.limits().download_each.set(Some(800_000));
    author.limits().upload_each.set(None);
    let received = gained(&readers, TEN).await;
    assert!(is_near(received[0], 8_000_000), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_sockets_they_hold_are_fair_and_can_be_changed_while_bytes_flow() {
    const RATE: u64 = 400_000;
    const RECEIVED: u64 = 4_000_000;
    const WHILE: Duration = Duration::from_millis(2500);
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 2000, 4096).await;
    author.limits().upload.set(Some(RATE));
    let mut readers = Vec::new();
    for name in [2, 3] {
        let reader = reader(dir.path(), name, &feed).await;
        connect(&reader.0, &author).await;
        readers.push(reader);
    }
    // A while after the start, when everybody has his turn.
    sleep(Duration::from_secs(1)).await;
    // A machine that is busy with something else may be slower, but not faster.
    let holds = |bytes: u64, rate: u64, took: Duration| {
        let limit = rate as f64 * took.as_secs_f64();
        (0.7 * limit..1.1 * limit).contains(&(bytes as f64))
    };
    let start = Instant::now();
    let sent = gained(&readers, WHILE).await;
    assert!(holds(sent.iter().sum(), RATE, start.elapsed()), "{sent:?} in {:?}", start.elapsed());
    assert!(sent[0] < 2 * sent[1] && sent[1] < 2 * sent[0], "{sent:?}");

    author.limits().upload_each.set(Some(RATE));
    author.limits().upload.set(None);
    let start = Instant::now();
    let sent = gained(&readers, WHILE).await;
    assert!(sent.iter().all(|sent| holds(*sent, RATE, start.elapsed())), "{sent:?} in {:?}", start.elapsed());

    // The receiver's own limit counts as well.
    readers[0].0.limits().download.set(Some(RECEIVED));
    author.limits().upload_each.set(None);
    let start = Instant::now();
    let missing = readers[0].1.info().bytes_missing() as f64;
    soon(readers[1].2.done()).await.expect("nothing holds it back");
    soon(readers[0].2.done()).await.expect("it comes");
    assert!(start.elapsed().as_secs_f64() > 0.8 * missing / RECEIVED as f64, "{missing} in {:?}", start.elapsed());
}
