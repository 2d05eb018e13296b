//! Feeds on the disk: appended to, read, opened.

use super::{AUTHOR, Options, Orders, say};
use anyhow::{Context, Result};
use bytes::Bytes;
use datdot_hypercore::{
    Config, Feed, Keypair, Network, Store, Want,
    feed::DATA_START,
    messages::{NodeRequest, Request},
};
use datdot_wire::noise;
use serde_json::json;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Bytes that are appended at a time where it is not measured.
const BATCH: usize = 16 << 20;

/// The author's feed, with at least so many blocks of a size.
pub async fn filled(store: &Store, blocks: u64, size: usize) -> Result<Feed> {
    let feed = store.create(&Keypair::from_seed(AUTHOR))?;
    let batch = (BATCH / size.max(1)).clamp(1, 10_000) as u64;
    while feed.info().length < blocks {
        let start = feed.info().length;
        feed.append((start..blocks.min(start + batch)).map(|i| block(i, size)).collect()).await?;
    }
    Ok(feed)
}

/// A block whose bytes nothing compresses.
fn block(number: u64, size: usize) -> Bytes {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// Appends blocks in batches.
pub async fn append(options: &Options) -> Result<()> {
    let (blocks, size, batch) = (options.get::<u64>("blocks")?, options.get("size")?, options.get::<usize>("batch")?);
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let feed = store.create(&Keypair::from_seed(AUTHOR))?;
    let all: Vec<_> = (0..blocks).map(|i| block(i, size)).collect();
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    for batch in all.chunks(batch) {
        feed.append(batch.to_vec()).await?;
    }
    say("done", json!({ "seconds": start.elapsed().as_secs_f64() }));
    orders.end().await
}

/// Appends batches for as long as it lives, and says after each how long the feed is.
pub async fn append_on(options: &Options) -> Result<()> {
    let (size, batch) = (options.get("size")?, options.get::<u64>("batch")?);
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let feed = filled(&store, options.get("blocks")?, size).await?;
    let blocks: Vec<_> = (0..batch).map(|number| block(number, size)).collect();
    Orders::new().ready(json!({})).await?;
    loop {
        feed.append(blocks.clone()).await?;
        say("appended", json!({ "length": feed.info().length }));
    }
}

/// Opens a store and reads the last block of the author's feed.
pub async fn reopen(options: &Options) -> Result<()> {
    let start = Instant::now();
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let feed = store.create(&Keypair::from_seed(AUTHOR))?;
    let length = feed.info().length;
    feed.get(length - 1).await?;
    say("ready", json!({ "opened": start.elapsed().as_secs_f64(), "length": length }));
    Orders::new().end().await
}

/// Reads a feed from its beginning to its end, as it is read to be hashed.
pub async fn read(options: &Options) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let feed = store.create(&Keypair::from_seed(AUTHOR))?;
    let (mut orders, mut at, end) = (Orders::new(), 0, feed.info().bytes);
    orders.ready(json!({})).await?;
    let start = Instant::now();
    while at < end {
        at += feed.read_bytes(at..end.min(at + PIECE)).await?.len() as u64;
    }
    say("done", json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": at }));
    orders.end().await
}

/// Reads blocks at random, one after the other.
pub async fn get(options: &Options) -> Result<()> {
    let (feed, mut orders) = (opened(options)?, Orders::new());
    orders.ready(json!({})).await?;
    let times = read_at_random(&feed, options.get("count")?).await?;
    say_times(&times);
    orders.end().await
}

/// Reads as many bytes from the file where the blocks of a feed are, which have all the same size.
pub async fn get_raw(options: &Options) -> Result<()> {
    let (feed, mut orders) = (opened(options)?, Orders::new());
    let (path, info) = (feed.data_path(), feed.info());
    orders.ready(json!({})).await?;
    let (file, size) = (File::open(path)?, info.bytes / info.length);
    let (count, mut times, mut buffer) = (options.get("count")?, Vec::new(), vec![0; size as usize]);
    for block in at_random(info.length, count) {
        let start = Instant::now();
        file.read_exact_at(&mut buffer, DATA_START + block * size)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    say_times(&times);
    orders.end().await
}

fn opened(options: &Options) -> Result<Feed> {
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    store.feed(&options.get("key")?).context("the feed is not in the store")
}

async fn read_at_random(feed: &Feed, count: usize) -> Result<Vec<Duration>> {
    let (length, mut times) = (feed.info().length, Vec::with_capacity(count));
    for block in at_random(length, count) {
        let start = Instant::now();
        feed.get(block).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn say_times(sorted: &[Duration]) {
    say("done", json!({ "p50": micros(sorted, 50), "p99": micros(sorted, 99) }));
}

/// Numbers below `length`, the same each time.
fn at_random(length: u64, count: usize) -> impl Iterator<Item = u64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % length
    })
    .take(count)
}

/// Numbers below `length`, each once, in the same disorder each time.
pub fn shuffled(length: u64) -> Vec<u64> {
    let mut all: Vec<_> = (0..length).collect();
    for (at, other) in (1..all.len()).rev().zip(at_random(u64::MAX, all.len())) {
        all.swap(at, (other % (at as u64 + 1)) as usize);
    }
    all
}

fn micros(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// Makes feeds with a block each.
pub async fn make(options: &Options) -> Result<()> {
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    for number in 0..options.get::<u32>("feeds")? {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        store.create(&Keypair::from_seed(seed))?.append(vec![block(0, 1000)]).await?;
    }
    say("ready", json!({}));
    Ok(())
}

/// Opens a store and does nothing.
pub async fn open(options: &Options) -> Result<()> {
    let start = Instant::now();
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let network = Network::start(store, Config::new(noise::Keypair::from_seed(&[1; 32]))).await?;
    let opened = start.elapsed().as_secs_f64();
    say("ready", json!({ "opened": opened, "feeds": network.store().feeds().len() }));
    Orders::new().end().await
}

/// How far a block is below the root that stands for it in a feed of so many blocks.
fn steps_to_root(length: u64, block: u64) -> u64 {
    let mut start = 0;
    for height in (0..64).rev().filter(|height| length >> height & 1 == 1) {
        start += 1 << height;
        if block < start {
            return height;
        }
    }
    0
}

/// Lets a feed grow to one length after the other, and tells what a block costs there.
pub async fn grow(options: &Options) -> Result<()> {
    /// Blocks that are measured, and their size.
    const BLOCKS: u64 = 640;
    const SIZE: usize = 128;
    let dir = options.get::<PathBuf>("dir")?;
    let listen = Some(([127, 0, 0, 1], 0).into());
    let config = |name| Config { listen, ..Config::new(noise::Keypair::from_seed(&[name; 32])) };
    let author = Network::start(Store::open(dir.join("author"))?, config(1)).await?;
    let address = author.local_addr().context("it listens")?;
    let lengths = options.get::<String>("lengths")?;
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    for length in lengths.split(',') {
        let length: u64 = length.parse()?;
        let feed = filled(author.store(), length - BLOCKS, SIZE).await?;
        let new: Vec<_> = (0..BLOCKS).map(|i| block(i, SIZE)).collect();
        let start = Instant::now();
        for batch in new.chunks(64) {
            feed.append(batch.to_vec()).await?;
        }
        let append = start.elapsed();
        let get = read_at_random(&feed, BLOCKS as usize).await?;

        // Whole proofs: nothing is known but the head.
        let (mut hashes, start) = (0, Instant::now());
        for index in at_random(length, BLOCKS as usize) {
            let block = Some(NodeRequest { index, nodes: steps_to_root(length, index) });
            let proof = feed.answer(&Request { block, ..Request::default() })?;
            hashes += proof.block.context("it was asked for")?.nodes.len();
        }
        let prove = start.elapsed();

        let reader = Network::start(Store::open(dir.join(format!("reader-{length}")))?, config(2)).await?;
        let copy = reader.store().open_remote(feed.key(), feed.signed_head())?;
        let wanted: Vec<_> = at_random(length, BLOCKS as usize).map(|block| Want::blocks(block..block + 1)).collect();
        let start = Instant::now();
        let mut downloads: Vec<_> = wanted.into_iter().map(|want| reader.download(&copy, want)).collect();
        reader.connect(address, None).await?;
        for download in &mut downloads {
            download.here().await?;
        }
        // Once: each flush has what the next blocks have in common with these written again.
        copy.flush().await?;
        let fetch = start.elapsed();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / BLOCKS as f64;
        let figures = json!({
            "length": length, "append": each(append), "get": micros(&get, 50), "prove": each(prove),
            "hashes": hashes as f64 / BLOCKS as f64, "fetch": each(fetch),
        });
        say("length", figures);
    }
    say("done", json!({}));
    orders.end().await
}
