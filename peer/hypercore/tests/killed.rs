//! A process that is killed while it fetches: what a restart finds, and what it fetches again.

mod support;
use datdot_hypercore::{Changed, Feed, Network, Want};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};
use support::*;

const CHILD: &str = "DATDOT_TEST_FETCHING_CHILD";
const BLOCKS: u64 = 640;
const SIZE: usize = 64 << 10;
/// Twice what the store lets wait before it brings it to the disk, and what is under way meanwhile.
const MOST_LOST: u64 = (16 << 20) + 128 * SIZE as u64;

/// Not a test by itself: the process that is killed below. Says after each block how many bytes are here.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_fetches_until_it_is_killed() {
    let Ok(args) = std::env::var(CHILD) else { return };
    let [dir, address, key] = args.split(' ').collect::<Vec<_>>()[..] else { panic!("{args}") };
    let ours = network(Path::new(dir), 2).await;
    let copy = ours.store().open_remote(key.parse().expect("a key"), None).expect("room");
    let mut progress = copy.watch();
    let _download = ours.download(&copy, Want::all());
    ours.connect(address.parse().expect("an address"), None).await.expect("it answers");
    loop {
        progress.changed().await.expect("the feed is here");
        println!("here {}", progress.borrow_and_update().bytes_here);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hoster_killed_while_fetching_fetches_only_what_is_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), BLOCKS, SIZE).await;
    let address = slow_link(author.local_addr().expect("it listens"), 40 << 20).await;
    let killed = kill_after(dir.path(), address, &feed.key().to_string(), feed.info().bytes / 2).await;

    let hoster = network(dir.path(), 2).await;
    let copy = hoster.store().feed(&feed.key()).expect("it was stored");
    let before = copy.info();
    assert!(!before.is_complete() && before.bytes_here + MOST_LOST >= killed, "{before:?} after {killed}");
    assert_eq!(fetch_the_rest(&hoster, &copy, address).await, BLOCKS - before.blocks_here);
    assert_blocks(&copy, BLOCKS, SIZE).await;
}

/// SIGKILL at the first moment when so many bytes have come; how many that were.
async fn kill_after(dir: &Path, address: SocketAddr, key: &str, bytes: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_fetches_until_it_is_killed", "--nocapture"])
        .env(CHILD, format!("{} {address} {key}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = child.stdout.take().expect("it is piped");
    let told = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut here = lines.filter_map(|line| line.strip_prefix("here ")?.parse().ok());
        here.find(|here: &u64| *here >= bytes).expect("it fetches")
    });
    let told = soon(told).await.expect("it was read");
    child.kill().expect("it runs");
    child.wait().expect("it was ours");
    told
}

/// Fetches what is missing; how many blocks came.
async fn fetch_the_rest(hoster: &Network, copy: &Feed, address: SocketAddr) -> u64 {
    let mut changes = hoster.store().changes();
    let mut download = hoster.download(copy, Want::all());
    hoster.connect(address, None).await.expect("it answers");
    soon(download.done()).await.expect("the rest comes");
    let mut gained = 0;
    while let Ok(change) = changes.try_recv() {
        if let Changed::Gained(blocks) = change.what {
            gained += blocks.end - blocks.start;
        }
    }
    gained
}
