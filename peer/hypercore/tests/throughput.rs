//! How fast feeds move. Not run by default: `cargo test --release -p datdot-hypercore --test throughput -- --ignored --nocapture`

mod support;
use datdot_hypercore::Want;
use std::time::Instant;
use support::*;

fn report(what: &str, bytes: u64, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{what}: {:.1} MB/s ({seconds:.2} s)", bytes as f64 / 1e6 / seconds);
}

async fn ours_to_ours(count: u64, size: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, hoster) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
    let feed = author.store().create(&keypair(1)).expect("room");
    let bytes = count * size as u64;
    let start = Instant::now();
    append(&feed, count, size).await;
    report(&format!("append {size} B in batches of 64, durable"), bytes, start);
    let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let start = Instant::now();
    let mut download = hoster.download(&copy, Want::all());
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");
    report(&format!("ours to ours {size} B, on disk"), bytes, start);
    let start = Instant::now();
    assert!(copy.scrub(0..count).await.expect("readable").is_empty());
    report(&format!("scrub {size} B"), bytes, start);
    author.close().await;
    hoster.close().await;
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread")]
async fn large_blocks_among_ours() {
    ours_to_ours(4000, 65_536).await;
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread")]
async fn small_blocks_among_ours() {
    ours_to_ours(40_000, 1024).await;
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_from_us() {
    for (count, size) in [(4000, 65_536), (20_000, 1024)] {
        let dir = tempfile::tempdir().expect("a folder");
        let ours = network(dir.path(), 1).await;
        let feed = ours.store().create(&keypair(1)).expect("room");
        append(&feed, count, size).await;
        let file = dir.path().join("copy");
        let from = ours.local_addr().expect("it listens").to_string();
        let args = [&feed.key().to_string(), &file.display().to_string(), "--from", &from];
        let done = Js::run_in("reader", "get.js", &args.map(str::to_owned)).event("done").await;
        println!("javascript reads {size} B: {done}");
        ours.close().await;
    }
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread")]
async fn we_fetch_from_javascript() {
    for (count, size) in [(4000_u64, 65_536), (20_000, 1024)] {
        let dir = tempfile::tempdir().expect("a folder");
        let args =
            [format!("--dir={}/js", dir.path().display()), format!("--blocks={count}"), format!("--size={size}")];
        let mut author = Js::run("seed.js", &args);
        let key = author.event("feeds").await["keys"][0].as_str().expect("hex").parse().expect("a key");
        let port = author.event("listening").await["port"].as_u64().expect("a port") as u16;
        let ours = network(dir.path(), 1).await;
        let copy = ours.store().open_remote(key, None).expect("room");
        let start = Instant::now();
        let mut download = ours.download(&copy, Want::all());
        ours.connect(([127, 0, 0, 1], port).into(), None).await.expect("it answers");
        soon(download.done()).await.expect("everything comes");
        report(&format!("from javascript {size} B, on disk"), count * size as u64, start);
        ours.close().await;
    }
}
