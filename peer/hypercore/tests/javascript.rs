//! Replication with today's JavaScript: hypercore 11 and corestore 7 over TCP and the Noise secret stream.

mod support;
use datdot_hypercore::{Download, Encryption, FeedKey, Keypair, Namespace, Network, PrimaryKey, Want};
use std::{net::SocketAddr, path::Path};
use support::*;
use tokio::io::AsyncReadExt;

fn js_dir(dir: &Path) -> String {
    format!("--dir={}", dir.join("javascript").display())
}

fn keys(feeds: &serde_json::Value) -> Vec<FeedKey> {
    feeds["keys"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|key| key.as_str().expect("hex").parse().expect("a key"))
        .collect()
}

fn address(listening: &serde_json::Value) -> SocketAddr {
    ([127, 0, 0, 1], listening["port"].as_u64().expect("a port") as u16).into()
}

async fn fetch_from_javascript(program: &[&str], feeds: usize, blocks: u64, size: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut args =
        vec![js_dir(dir.path()), format!("--blocks={blocks}"), format!("--size={size}"), format!("--feeds={feeds}")];
    args.extend(program.iter().map(|arg| (*arg).to_owned()));
    let mut author = Js::run("seed.js", &args);
    let keys = keys(&author.event("feeds").await);
    let address = address(&author.event("listening").await);

    let ours = network(dir.path(), 1).await;
    let mut downloads: Vec<Download> = Vec::new();
    for key in &keys {
        let feed = ours.store().open_remote(*key, None).expect("room for a feed");
        downloads.push(ours.download(&feed, Want::all()));
    }
    soon(ours.connect(address, None)).await.expect("it answers");
    for download in &mut downloads {
        soon(download.done()).await.expect("everything comes");
        assert_eq!(download.feed().info().length, blocks);
        assert_blocks(download.feed(), blocks, size).await;
    }
    // The author goes on.
    author.write("append 9").await;
    author.event("appended").await;
    for download in &mut downloads {
        let mut progress = download.feed().watch();
        soon(progress.wait_for(|info| info.length == blocks + 9 && info.is_complete())).await.expect("it grows");
        assert_blocks(download.feed(), blocks + 9, size).await;
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_of_javascript_are_fetched_and_followed() {
    fetch_from_javascript(&[], 3, 700, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compat_feeds_of_javascript_are_fetched_and_followed() {
    fetch_from_javascript(&["--compat"], 1, 700, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blocks_of_javascript_are_fetched() {
    fetch_from_javascript(&[], 1, 3, 1 << 20).await;
}

async fn serve(ours: &Network, read: &[&str], authors: &[(Keypair, bool)], blocks: u64, size: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut feeds = Vec::new();
    for (keypair, compat) in authors {
        let store = ours.store();
        let feed = if *compat { store.create_compat(keypair) } else { store.create(keypair) }.expect("room for a feed");
        append(&feed, blocks, size).await;
        feeds.push(feed);
    }
    let keys: Vec<_> = feeds.iter().map(|feed| feed.key().to_string()).collect();
    let mut args = vec![
        js_dir(dir.path()),
        format!("--keys={}", keys.join(",")),
        format!("--blocks={}", blocks + 20),
        format!("--size={size}"),
        format!("--connect={}", ours.local_addr().expect("it listens")),
    ];
    args.extend(read.iter().map(|arg| (*arg).to_owned()));
    let mut reader = Js::run("get.js", &args);
    for _ in &feeds {
        assert_eq!(reader.event("head").await["length"], blocks);
    }
    // The reader follows while we append.
    for _ in 0..20 {
        for feed in &feeds {
            append(feed, 1, size).await;
        }
    }
    let done = reader.event("done").await;
    assert_eq!((done["bad"].as_u64(), done["invalid"].as_u64()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_and_follows_our_feeds() {
    let dir = tempfile::tempdir().expect("a folder");
    let ours = network(dir.path(), 1).await;
    serve(&ours, &[], &[(keypair(1), false), (keypair(2), false), (keypair(3), true)], 700, 1000).await;
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_our_blocks_in_any_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let ours = network(dir.path(), 1).await;
    serve(&ours, &["--random"], &[(keypair(1), false), (keypair(2), true)], 300, 1000).await;
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_writes_what_was_published() {
    let dir = tempfile::tempdir().expect("a folder");
    let ours = network(dir.path(), 1).await;
    let feed = ours.store().create(&keypair(1)).expect("room for a feed");
    append(&feed, 90, 65_536).await;
    let file = dir.path().join("copy");
    let from = ours.local_addr().expect("it listens").to_string();
    let noise_key: String = ours.public_key().iter().map(|byte| format!("{byte:02x}")).collect();
    let args = [&feed.key().to_string(), &file.display().to_string(), "--from", &from, "--noise-key", &noise_key];
    let mut reader = Js::run_in("reader", "get.js", &args.map(str::to_owned));
    assert_eq!(reader.event("done").await["bytes"], 90 * 65_536);
    let expected: Vec<u8> = (0..90).flat_map(|i| block(i, 65_536)).collect();
    assert!(std::fs::read(&file).expect("it is written") == expected);
    ours.close().await;
}

/// JavaScript writes, we copy and follow, JavaScript reads from us and follows.
async fn through_us(kind: &str, growth: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let (blocks, size) = (75, 1000);
    let args =
        [js_dir(dir.path()), format!("--blocks={blocks}"), format!("--size={size}"), format!("--manifest={kind}")];
    let mut author = Js::run("seed.js", &args);
    let key = keys(&author.event("feeds").await)[0];
    let address = address(&author.event("listening").await);
    let ours = network(dir.path(), 1).await;
    let feed = ours.store().open_remote(key, None).expect("room for a feed");
    let mut download = ours.download(&feed, Want::all());
    ours.connect(address, None).await.expect("it answers");
    soon(download.done()).await.unwrap_or_else(|why| panic!("{kind}: {why}"));
    assert_blocks(&feed, blocks, size).await;

    let args = [
        format!("--dir={}", dir.path().join("reader").display()),
        format!("--keys={key}"),
        format!("--blocks={}", blocks + growth),
        format!("--size={size}"),
        format!("--connect={}", ours.local_addr().expect("it listens")),
    ];
    let mut reader = Js::run("get.js", &args);
    assert_eq!(reader.event("head").await["length"], blocks, "{kind}");
    if growth > 0 {
        author.write(&format!("append {growth}")).await;
        author.event("appended").await;
    }
    let done = reader.event("done").await;
    assert_eq!((done["bad"].as_u64(), done["invalid"].as_u64()), (Some(0), Some(0)), "{kind}");
    assert_blocks(&feed, blocks + growth, size).await;
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_with_any_manifest_go_through_us_to_other_readers() {
    for kind in ["two-of-three", "v0-one", "v0-two-of-three", "linked", "v3", "patched"] {
        through_us(kind, 12).await;
    }
    through_us("prologue", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_feeds_of_javascript_are_copied_as_they_are_and_read_with_the_key() {
    for compat in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut args =
            vec![js_dir(dir.path()), "--blocks=40".to_owned(), "--size=100".to_owned(), "--encrypted".to_owned()];
        args.extend(compat.then(|| "--compat".to_owned()));
        let mut author = Js::run("seed.js", &args);
        let key = keys(&author.event("feeds").await)[0];
        let address = address(&author.event("listening").await);
        let ours = network(dir.path(), 1).await;
        let feed = ours.store().open_remote(key, None).expect("room for a feed");
        let mut download = ours.download(&feed, Want::all());
        ours.connect(address, None).await.expect("it answers");
        soon(download.done()).await.expect("everything comes");
        let secret = [5; 32];
        let encryption = if compat { Encryption::compat(&key, &secret) } else { Encryption::new(&key, &secret) };
        let view = feed.decrypted(secret);
        for i in 0..40 {
            let stored = feed.get(i).await.expect("the block is here");
            assert_eq!(stored.len(), 108);
            assert_eq!(view.get(i).await.expect("the block is here"), block(i, 100), "compat {compat}, block {i}");
            assert_eq!(encryption.encrypt(i, 0, &block(i, 100)), stored, "compat {compat}, block {i}");
        }
        let mut read = Vec::new();
        soon(ours.reader(&view, 150..3950).read_to_end(&mut read)).await.expect("all is here");
        assert!(read == (0..40).flat_map(|i| block(i, 100)).collect::<Vec<u8>>()[150..3950], "compat {compat}");
        ours.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_to_the_same_feeds_as_in_a_corestore() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = [js_dir(dir.path()), format!("--primary-key={}", "07".repeat(32)), "--names=a,b/a,b/c/d,é".to_owned()];
    let derived = keys(&Js::run("derive.js", &args).event("derived").await);
    let (primary, root) = (PrimaryKey::new([7; 32]), Namespace::ROOT);
    let b = root.within("b");
    let ours = [(root, "a"), (b, "a"), (b.within("c"), "d"), (root, "é")].map(|(namespace, name)| {
        let keypair = primary.keypair(&namespace, name);
        keypair.feed_key(&keypair.manifest())
    });
    assert_eq!(derived, ours);
}

async fn follow_a_fork(read_by_javascript: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let (size, cut, length) = (100, 61, 90);
    let args = [js_dir(dir.path()), "--blocks=80".to_owned(), format!("--size={size}")];
    let mut author = Js::run("seed.js", &args);
    let key = keys(&author.event("feeds").await)[0];
    let address = address(&author.event("listening").await);
    let ours = network(dir.path(), 1).await;
    let feed = ours.store().open_remote(key, None).expect("room for a feed");
    feed.follow_forks(true);
    let mut download = ours.download(&feed, Want::all());
    ours.connect(address, None).await.expect("it answers");
    soon(download.done()).await.expect("everything comes");

    // JavaScript reads from us before and after.
    let args = [
        format!("--dir={}", dir.path().join("reader").display()),
        format!("--keys={key}"),
        format!("--blocks={length}"),
        format!("--size={size}"),
        "--fork=1".to_owned(),
        format!("--cut={cut}"),
        format!("--connect={}", ours.local_addr().expect("it listens")),
    ];
    let mut reader = read_by_javascript.then(|| Js::run("get.js", &args));
    if let Some(reader) = &mut reader {
        assert_eq!(reader.event("head").await["length"], 80);
    }
    author.write(&format!("truncate {cut}")).await;
    author.event("truncated").await;
    author.write(&format!("append {}", length - cut)).await;
    author.event("appended").await;
    let mut progress = feed.watch();
    soon(progress.wait_for(|info| info.fork == 1 && info.length == length && info.is_complete()))
        .await
        .expect("it follows");
    for i in 0..length {
        let expected = block(if i < cut { i } else { i + 1000 }, size);
        assert_eq!(feed.get(i).await.expect("the block is here"), expected, "block {i}");
    }
    if let Some(mut reader) = reader {
        let done = reader.event("done").await;
        assert_eq!((done["bad"].as_u64(), done["invalid"].as_u64()), (Some(0), Some(0)));
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_of_javascript_is_followed() {
    follow_a_fork(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_follows_a_fork_from_ours() {
    follow_a_fork(true).await;
}
