//! What the store costs: `cargo bench -p datdot-hypercore --bench store [-- FOLDER]`.
//!
//! One line a figure. Disks move by a factor of three within a minute, so durable work is measured in turns with raw writes of
//! the same size and as many fdatasyncs, in a file of its own that grows the same way; the ratio counts.
//!
//! The feed of 64 GiB and the 10,000 feeds are written as their files, byte by byte as the modules `journal` and `disk` draw
//! them: holes read as zeros, so a feed of zeros needs no disk.

use bytes::Bytes;
use codec::Encode;
use datdot_hypercore::{Config, Feed, FeedKey, Keypair, Network, Store, feed::DATA_START};
use datdot_proof::{
    flat,
    head::{Head, Root},
    tree::{Node, Roots, blake2b},
};
use datdot_wire::noise;
use ed25519_dalek::{Signer, SigningKey};
use rustix::fs::{Advice, fadvise};
use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const KIB: usize = 1 << 10;
const GIB: u64 = 1 << 30;
const SOON: Duration = Duration::from_secs(20);
const CHILD: &str = "DATDOT_BENCH_CHILD";

fn main() {
    if let Ok(dir) = env::var(CHILD) {
        return serve(Path::new(&dir));
    }
    let folder = env::args().skip(1).find(|arg| !arg.starts_with("--")).map_or_else(env::temp_dir, Into::into);
    let dir = tempfile::Builder::new().prefix("datdot-bench-").tempdir_in(folder).expect("a folder");
    append(dir.path(), 16, 64 * KIB, 60);
    append(dir.path(), 64, KIB, 300);
    append(dir.path(), 1, 64 * KIB, 300);
    random_get(dir.path());
    large_feed(dir.path());
    many_feeds(dir.path());
}

/// Appends in batches, in turns with raw writes.
fn append(dir: &Path, count: usize, size: usize, batches: u64) {
    let store = Store::open(dir.join(format!("append-{count}-{size}"))).expect("a new store");
    let feed = store.create(&Keypair::from_seed([1; 32])).expect("room");
    let raw = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join("raw")).expect("room");
    let blocks: Vec<Bytes> = (0..count).map(|i| Bytes::from(vec![i as u8; size])).collect();
    let bytes = blocks.concat();
    let (mut ours, mut theirs, mut at) = (Vec::new(), Vec::new(), 0);
    for _ in 0..7 {
        theirs.push(rate(batches, bytes.len(), || {
            raw.write_all_at(&bytes, at).and_then(|()| raw.sync_data()).expect("room");
            at += bytes.len() as u64;
        }));
        ours.push(rate(batches, bytes.len(), || _ = feed.write(&blocks).expect("room")));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let ratio = 100.0 * ours / theirs;
    println!("append {count} x {} KiB, durable: {ours:.0} MB/s, raw {theirs:.0} MB/s, {ratio:.0} %", size / KIB);
}

/// Megabytes a second.
fn rate(times: u64, bytes: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    times as f64 * bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Blocks in random order, from the system's memory and from the disk, beside raw reads.
fn random_get(dir: &Path) {
    const BLOCKS: u64 = 8192;
    let store = Store::open(dir.join("get")).expect("a new store");
    let feed = store.create(&Keypair::from_seed([1; 32])).expect("room");
    for start in (0..BLOCKS).step_by(64) {
        let block = |i: u64| Bytes::from(i.to_le_bytes().repeat(64 * KIB / 8));
        feed.write(&(start..start + 64).map(block).collect::<Vec<_>>()).expect("room");
    }
    let (data, tree) = (feed.data_path(), feed.data_path().with_file_name("tree"));
    let files = [File::open(data).expect("it is there"), File::open(tree).expect("it is there")];
    files.iter().for_each(|file| file.sync_all().expect("it can be synced"));
    let order: Vec<u64> = (0..2000).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS).collect();
    let mut buffer = vec![0; 64 * KIB];
    for cold in [false, true] {
        let chill = || {
            for file in files.iter().filter(|_| cold) {
                fadvise(file, 0, None, Advice::DontNeed).expect("it is a file");
            }
        };
        let mut ours = Vec::new();
        let mut raw = Vec::new();
        for (turn, &block) in order.iter().enumerate() {
            if turn % 100 == 0 {
                chill();
            }
            let start = Instant::now();
            if turn % 200 < 100 {
                feed.read(block).expect("it is here");
                ours.push(1e6 * start.elapsed().as_secs_f64());
            } else {
                files[0].read_exact_at(&mut buffer, DATA_START + block * 64 * KIB as u64).expect("it is there");
                raw.push(1e6 * start.elapsed().as_secs_f64());
            }
        }
        for (what, times) in [("get", &mut ours), ("raw read", &mut raw)] {
            let p50 = median(times);
            let (p99, warmth) = (times[times.len() * 99 / 100], if cold { "cold" } else { "warm" });
            println!("random {what} of 64 KiB, {warmth}: p50 {p50:.0} us, p99 {p99:.0} us");
        }
    }
}

/// A process that opens the store and serves it.
fn serve(dir: &Path) {
    let start = Instant::now();
    let store = Store::open(dir).expect("it is free");
    let opened = start.elapsed();
    let files = fs::read_dir("/proc/self/fd").expect("Linux").count();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let feeds = store.feeds().len();
        let key = noise::Keypair::from_seed(&[1; 32]);
        let config = Config { listen: Some(([127, 0, 0, 1], 0).into()), ..Config::new(key) };
        let network = Network::start(store, config).await.expect("a free port");
        let port = network.local_addr().expect("it listens").port();
        println!("{} {feeds} {files} {port}", 1e3 * opened.as_secs_f64());
        std::future::pending::<()>().await;
    });
}

struct Server {
    child: Child,
    opened_ms: f64,
    feeds: u64,
    files: u64,
    port: u16,
}

impl Server {
    fn start(dir: &Path) -> Server {
        let program = env::current_exe().expect("this program");
        let mut child =
            Command::new(program).env(CHILD, dir).stdout(Stdio::piped()).spawn().expect("this program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it opens the store");
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("four words");
        let opened_ms = word().parse().expect("a number");
        let [feeds, files, port] = [(); 3].map(|()| word().parse::<u64>().expect("a number"));
        Server { child, opened_ms, feeds, files, port: port as u16 }
    }

    /// Megabytes of memory: now, and at most so far.
    fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("Linux");
            line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn large_feed(dir: &Path) {
    let (dir, length) = (dir.join("large"), 64 * GIB / (64 * KIB as u64));
    let key = write_feed(&dir, 1, length, 64 * KIB);
    let server = Server::start(&dir);
    println!("feed of 64 GiB: opened in {:.1} ms", server.opened_ms);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let reader = tempfile::tempdir().expect("a folder");
    let (start, blocks) = (Instant::now(), 2000);
    runtime.block_on(async {
        let config = Config::new(noise::Keypair::from_seed(&[2; 32]));
        let network = Network::start(Store::open(reader.path()).expect("a new store"), config).await.expect("no port");
        let copy: Feed = network.store().open_remote(key, None).expect("room");
        network.connect(([127, 0, 0, 1], server.port).into(), None).await.expect("it answers");
        for i in 1..=blocks {
            let block = i * 0x9e37_79b9 % length;
            assert_eq!(network.get(&copy, block, SOON).await.expect("it comes").len(), 64 * KIB);
        }
        network.close().await;
    });
    let each = start.elapsed().as_secs_f64() * 1e3 / blocks as f64;
    let (now, most) = server.memory();
    println!(
        "feed of 64 GiB: {now} MB resident (at most {most}) while {blocks} random blocks were read, {each:.1} ms each"
    );
}

fn many_feeds(dir: &Path) {
    let dir = dir.join("many");
    for number in 1..=10_000 {
        write_feed(&dir, number, 3, 100);
    }
    for turn in ["first", "again"] {
        let server = Server::start(&dir);
        let (now, most) = server.memory();
        println!(
            "{} idle feeds ({turn}): opened in {:.0} ms, {now} MB resident (at most {most}), {} open files",
            server.feeds, server.opened_ms, server.files
        );
    }
}

/// The files of a feed of zeros, all here, with their holes.
fn write_feed(store: &Path, number: u64, length: u64, size: usize) -> FeedKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let keypair = Keypair::from_seed(seed);
    let manifest = keypair.manifest();
    let key = keypair.feed_key(&manifest);
    let dir = store.join("feeds").join(key.discovery().to_string());
    fs::create_dir_all(&dir).expect("room");
    fs::write(store.join("format"), b"datdot store 3\n").expect("room");

    // All leaves are the same, and so are all nodes of one depth.
    let mut rows = vec![Node::leaf(0, &vec![0; size])];
    while 1 << rows.len() <= length {
        let below = rows[rows.len() - 1];
        let sibling = Node { index: flat::sibling(below.index), ..below };
        rows.push(Node::parent(&below, &sibling).expect("they are siblings"));
    }
    let node = |index: u64| Node { index, ..rows[flat::depth(index) as usize] };
    let mut tree = BufWriter::new(File::create(dir.join("tree")).expect("room"));
    for index in 0..2 * length {
        let there = flat::end_block(index) <= length;
        let Node { size, hash, .. } = node(if there { index } else { 0 });
        let mut sum = crc32fast::Hasher::new();
        let slot = [&size.to_le_bytes()[..], &hash].concat();
        sum.update(&index.to_le_bytes());
        sum.update(&slot);
        let slot = if there { [&slot[..], &sum.finalize().to_le_bytes()].concat() } else { vec![0; 44] };
        tree.write_all(&slot).expect("room");
    }
    tree.flush().expect("room");

    let nodes: Vec<Node> = flat::full_roots(length).map(node).collect();
    let roots = Roots::from_nodes(&nodes).expect("they are roots");
    let head = Head { fork: 0, length, tree_hash: roots.tree_hash() };
    let signature = SigningKey::from_bytes(&seed).sign(&head.signable(&key.0, &manifest)).to_bytes();
    let signature = manifest.signature_to_wire(&signature);
    let hashes: Vec<Root> = nodes.iter().map(|node| Root { hash: node.hash, size: node.size }).collect();
    let authors = Some(manifest.to_wire().expect("a v1 manifest").to_vec());
    let record = (key.0, authors, Some((0u64, length, hashes, signature)), roots.bytes());
    let none: (Option<u64>, Vec<u8>, Vec<u8>) = (None, Vec::new(), Vec::new());
    let content = (record, none).encode();
    let mut entry = [&b"datdot 3"[..], &1u64.to_le_bytes(), &(content.len() as u32).to_le_bytes(), &content].concat();
    entry.extend_from_slice(&blake2b(&[&entry]));
    let data = File::create(dir.join("data")).expect("room");
    data.write_all_at(&entry, 0).and_then(|()| data.set_len(DATA_START + roots.bytes())).expect("room");

    let mut have = vec![0xff; length as usize / 8];
    have.extend((!length.is_multiple_of(8)).then_some((1 << (length % 8)) - 1));
    fs::write(dir.join("have"), have).expect("room");
    key
}
