//! Large feeds and many feeds.

use super::{LARGE, Places, many, note};
use crate::{
    document::{row, table},
    is_quick,
    peer::AUTHOR,
    program::{By, Program, number},
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use datdot_hypercore::{
    FeedKey, Keypair, Store,
    messages::{Data, DataBlock},
};
use datdot_proof::{
    flat,
    head::{Head, Root, SignedHead},
    tree::{Node, tree_hash},
};
use ed25519_dalek::{Signer, SigningKey};
use std::{fs, ops::Range, path::Path};
use tokio::runtime::Runtime;

/// The tables.
pub fn measure(places: &Places<'_>) -> Result<String> {
    let mut text = "### Large feeds and many feeds\n\n".to_owned();
    let mut rows = vec![row!["", "ours", "JS", "to reach"]];
    rows.extend(one_large(places)?);
    rows.extend(many_small(places)?);
    text += &format!("{}\n{}", table(&rows), growing(places)?);
    Ok(text)
}

/// Every so many-th block of the large feed is there.
const STEP: u64 = 256;

fn one_large(places: &Places<'_>) -> Result<Vec<Vec<String>>> {
    note("a feed of 64 GiB");
    let [ours, js] = ["large", "large-js"].map(|name| places.disk.join(name));
    let blocks = 1 << if is_quick() { 14 } else { 20 };
    let key = zeros(&ours, blocks)?;
    // JavaScript gets the same blocks, with their hashes, from ours.
    let (server, ready) = serve_large(By::Us, &ours, &key)?;
    fetch_large(By::JavaScript, &js, &key, number(&ready, "port")?, 0..blocks / STEP)?;
    drop(server);

    let mut open = row![format!("one feed of 64 GiB, of which every {STEP}th block is there: open")];
    let mut memory = row!["its resident memory after serving three readers 65 MB each"];
    for (by, dir) in [(By::Us, &ours), (By::JavaScript, &js)] {
        let (server, ready) = serve_large(by, dir, &key)?;
        let count = if is_quick() { 16 } else { 1_000 };
        for reader in 0..3 {
            let dir = places.memory.join(format!("large-{reader}"));
            fetch_large(By::Us, &dir, &key, number(&ready, "port")?, reader * count..(reader + 1) * count)?;
            fs::remove_dir_all(dir)?;
        }
        open.push(millis(number(&ready, "opened")?));
        memory.push(megabytes(server.memory()?));
    }
    [ours, js].iter().try_for_each(fs::remove_dir_all)?;
    open.push("< 100 ms".into());
    memory.push("< 64 MB".into());
    Ok(vec![open, memory])
}

fn serve_large(by: By, dir: &Path, key: &FeedKey) -> Result<(Program, serde_json::Value)> {
    Program::start(by, "serve", &[("dir", &dir.display()), ("key", key)])
}

/// Fetches some of the blocks that are there.
fn fetch_large(by: By, dir: &Path, key: &FeedKey, port: f64, blocks: Range<u64>) -> Result<()> {
    let count = blocks.end - blocks.start;
    let options: [(&str, &dyn std::fmt::Display); 6] = [
        ("dir", &dir.display()),
        ("key", key),
        ("port", &port),
        ("from", &(blocks.start * STEP)),
        ("count", &count),
        ("step", &STEP),
    ];
    let (mut reader, _) = Program::start(by, "fetch", &options)?;
    let done = reader.run()?;
    ensure!(number(&done, "blocks")? == count as f64, "not everything was fetched: {done}");
    Ok(())
}

/// Makes a store with every [`STEP`]th block of a feed of zeros. The tree has one hash for each height, so that nobody
/// needs to have had the rest.
pub fn zeros(dir: &Path, blocks: u64) -> Result<FeedKey> {
    let author = Keypair::from_seed(AUTHOR);
    let (manifest, key) = (author.manifest(), author.feed_key(&author.manifest()));
    let value = Bytes::from(vec![0; LARGE]);
    let mut heights = vec![Node::leaf(0, &value)];
    while 1 << (heights.len() - 1) < blocks {
        let below = &heights[heights.len() - 1];
        let sibling = Node { index: flat::sibling(below.index), ..*below };
        heights.push(Node::parent(below, &sibling)?);
    }
    let at = |index: u64| Node { index, ..heights[flat::depth(index) as usize] };
    // A power of two: one root.
    let root = at(blocks - 1);
    let head = Head { fork: 0, length: blocks, tree_hash: tree_hash(&[root]) };
    let signature = SigningKey::from_bytes(&AUTHOR).sign(&head.signable(&key.0, &manifest)).to_bytes();
    let roots = vec![Root { hash: root.hash, size: root.size }];
    let head = SignedHead { fork: 0, length: blocks, roots, manifest, signature };

    let feed = Store::open(dir)?.open_remote(key, Some(head))?;
    for index in (0..blocks).step_by(STEP as usize) {
        let path = std::iter::successors(Some(flat::leaf(index)), |at| Some(flat::parent(*at)));
        let siblings = path.take(feed.steps_to_known(index)? as usize).map(|node| at(flat::sibling(node)));
        let block = DataBlock { index, value: value.clone(), nodes: siblings.collect() };
        feed.accept(&Data { block: Some(block), ..Data::default() })?;
    }
    // As long as something waits for the disk the store is not closed.
    Runtime::new()?.block_on(feed.flush())?;
    Ok(key)
}

fn many_small(places: &Places<'_>) -> Result<Vec<Vec<String>>> {
    let feeds = many(10_000);
    note(&format!("{feeds} feeds"));
    let mut open = row![format!("{feeds} idle feeds of a block in one store: open")];
    let (mut memory, mut files) = (row!["their resident memory"], row!["files open then"]);
    for by in [By::Us, By::JavaScript] {
        let dir = places.memory.join("many");
        let options: [(&str, &dyn std::fmt::Display); 2] = [("dir", &dir.display()), ("feeds", &feeds)];
        let opened = Program::start(by, "make", &options).and_then(|(mut made, _)| {
            made.finish()?;
            Program::start(by, "open", &options)
        });
        match opened {
            Ok((program, ready)) if number(&ready, "feeds")? == feeds as f64 => {
                open.push(millis(number(&ready, "opened")?));
                memory.push(megabytes(program.memory()?));
                files.push(program.open_files()?.to_string());
            }
            Ok((_, ready)) => {
                open.push(format!("only {} of them", number(&ready, "feeds")?));
                memory.push(String::new());
                files.push(String::new());
            }
            Err(error) => {
                note(&format!("  {by}: {error:#}"));
                open.push("not possible".into());
                memory.push(String::new());
                files.push(String::new());
            }
        }
        fs::remove_dir_all(dir)?;
    }
    open.push("< 2 s".into());
    memory.push("< 200 MB".into());
    files.push(String::new());
    Ok(vec![open, memory, files])
}

fn growing(places: &Places<'_>) -> Result<String> {
    note("a growing feed");
    let lengths = if is_quick() { "1000,10000" } else { "1000,10000,100000,1000000,10000000" };
    let dir = places.memory.join("growing");
    let (mut program, _) = Program::start(By::Us, "grow", &[("dir", &dir.display()), ("lengths", &lengths)])?;
    program.go()?;
    let mut rows = vec![row![
        "blocks in a feed, 128 bytes each, in memory; µs a block",
        "append, 64 at a time",
        "get (p50)",
        "prove to the head",
        "hashes in that proof",
        "fetch at random, over TCP"
    ]];
    for _ in lengths.split(',') {
        let at = program.hear("length")?;
        let mut cells = row![number(&at, "length")?];
        for name in ["append", "get", "prove", "hashes", "fetch"] {
            cells.push(format!("{:.1}", number(&at, name)?));
        }
        rows.push(cells);
    }
    drop(program);
    fs::remove_dir_all(dir)?;
    Ok(format!("How cost grows with length; to reach: with its logarithm only.\n\n{}", table(&rows)))
}

fn millis(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1e3)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
