//! `cargo xtask bench hyperswarm`: UDX, DHT and swarm, ours beside JavaScript's, on one machine in one run.

use crate::{
    document::{self, median, row, table},
    is_quick, machine,
    program::{By, Program, number, text},
};
use anyhow::{Context, Result, ensure};
use std::{env, fmt, fs, path::Path, process::Command};

/// Each figure is the median of so many, taken in turn.
const RUNS: usize = 3;
/// Replicated: 64 KiB blocks.
const SIZE: u64 = 64 << 10;
/// Nodes of the DHT that peers find each other in.
const NODES: usize = 20;

/// Measures with data in `dir`, writes the section.
pub fn bench(dir: &Path) -> Result<()> {
    let quick = is_quick();
    let mut parts = vec![
        replication(dir, if quick { 40 } else { 4_000 })?,
        memory(if quick { 20 } else { 1_000 }, if quick { 10 } else { 500 })?,
    ];
    // These are programs of the crate, and would have to be built: its tests run them quickly.
    if !quick {
        parts.push(streams()?);
        parts.push(questions()?);
    }
    parts.push(format!(
        "Medians of {RUNS} runs, each with fresh peers, in turn; MB are 10⁶ bytes. Each peer is a process of its own on the same\
         \nmachine. Peers find each other in a DHT of {NODES} nodes of JavaScript on loopback.\n\n`cargo xtask bench hyperswarm`, {}.\n",
        machine::describe()?
    ));
    document::update(&[("Hyperswarm", parts.join("\n"))])
}

fn dht(nodes: usize) -> Result<(Program, String)> {
    let (dht, ready) = Program::start(By::JavaScript, "dht", &[("nodes", &nodes)])?;
    Ok((dht, text(&ready, "bootstrap")?))
}

/// Who serves a feed.
#[derive(Clone, Copy)]
enum Hoster {
    /// Its author.
    Author(By),
    /// npm's `blind-peer`: JavaScript's nearest to a hoster of ours.
    BlindPeer,
}

impl Hoster {
    /// Its program, and the program's mode.
    const fn program(self) -> (By, &'static str) {
        match self {
            Hoster::Author(by) => (by, "swarm-serve"),
            Hoster::BlindPeer => (By::JavaScript, "blind-serve"),
        }
    }
}

impl fmt::Display for Hoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hoster::Author(by) => by.fmt(f),
            Hoster::BlindPeer => f.write_str("`blind-peer`"),
        }
    }
}

fn replication(dir: &Path, blocks: u64) -> Result<String> {
    eprintln!("replication over Hyperswarm…");
    let (_dht, bootstrap) = dht(NODES)?;
    // With how many times the rate of the first is to be reached.
    let pairs = [
        (Hoster::Author(By::JavaScript), By::JavaScript, 0.0),
        (Hoster::Author(By::Us), By::Us, 3.0),
        (Hoster::Author(By::JavaScript), By::Us, 1.5),
        (Hoster::Author(By::Us), By::JavaScript, 1.0),
        (Hoster::BlindPeer, By::JavaScript, 0.0),
        (Hoster::BlindPeer, By::Us, 0.0),
    ];
    const BLIND: usize = 4;
    let mut rates = vec![Vec::new(); pairs.len()];
    let mut firsts = vec![Vec::new(); pairs.len()];
    let mut costs = vec![String::new(); pairs.len()];
    for run in 0..if is_quick() { 1 } else { RUNS } {
        for (at, (from, to, _)) in pairs.iter().enumerate() {
            let (source, copy) = (dir.join("source"), dir.join("copy"));
            let options: [(&str, &dyn fmt::Display); 4] =
                [("dir", &source.display()), ("bootstrap", &bootstrap), ("blocks", &blocks), ("size", &SIZE)];
            let (by, mode) = from.program();
            let (server, ready) = Program::start(by, mode, &options)?;
            let key = text(&ready, "key")?;
            let options: [(&str, &dyn fmt::Display); 3] =
                [("dir", &copy.display()), ("bootstrap", &bootstrap), ("key", &key)];
            let (mut reader, _) = Program::start(*to, "swarm-fetch", &options)?;
            let before = [server.cpu()?, reader.cpu()?];
            let done = reader.run()?;
            let bytes = (blocks * SIZE) as f64;
            ensure!(number(&done, "bytes")? == bytes, "not everything came: {done}");
            let cost = [server.cpu()? - before[0], reader.cpu()? - before[1]];
            costs[at] = cost.map(|seconds| format!("{:.2}", seconds * (1u64 << 30) as f64 / bytes)).join(" + ");
            rates[at].push(bytes / 1e6 / number(&done, "seconds")?);
            firsts[at].push(1e3 * number(&done, "first")?);
            eprintln!(
                "  {run}: {from} → {to}: {:?} MB/s, first after {:?} ms, CPU {} s/GiB",
                rates[at], firsts[at], costs[at]
            );
            drop((server, reader));
            fs::remove_dir_all(source)?;
            fs::remove_dir_all(copy)?;
        }
    }
    let [rates, firsts] = [rates, firsts].map(|all| all.into_iter().map(median).collect::<Vec<_>>());
    let mut rows = vec![row![
        "64 KiB blocks over Hyperswarm",
        "MB/s",
        "to reach",
        "CPU seconds a GiB, sender + receiver",
        "from joining the topic to the first block, ms",
        "to reach"
    ]];
    for (at, (from, to, times)) in pairs.iter().enumerate() {
        let target =
            if *times == 0.0 { String::new() } else { format!("{:.1} ({times} × JS → JS)", times * rates[0]) };
        let ahead = match from {
            Hoster::Author(By::Us) => format!("< {:.0} (`blind-peer` → JS)", firsts[BLIND]),
            _ => String::new(),
        };
        let (rate, first) = (format!("{:.1}", rates[at]), format!("{:.0}", firsts[at]));
        rows.push(row![format!("{from} → {to}"), rate, target, costs[at], first, ahead]);
    }
    let why = "`blind-peer` is JavaScript's hoster: it got the feed from an author who is gone, and announced it.";
    Ok(format!("{}\n{why}\n", table(&rows)))
}

/// What topics and connections need.
fn memory(topics: u64, connections: u64) -> Result<String> {
    // Every topic is announced at all nodes, and JavaScript sends some hundred requests a second: with more nodes this takes
    // minutes.
    const FEW: usize = 4;
    let mut rows = vec![row!["resident memory, MB", "ours", "JS", "", "to reach"]];
    eprintln!("{topics} topics…");
    let mut cells = row![format!("{topics} announced topics ({FEW} nodes)")];
    let mut figures = Vec::new();
    let (_dht, bootstrap) = dht(FEW)?;
    for by in [By::Us, By::JavaScript] {
        let (mut program, _) = Program::start(by, "topics", &[("bootstrap", &bootstrap), ("count", &topics)])?;
        let done = program.run()?;
        ensure!(number(&done, "announced")? == topics as f64, "not all topics were announced: {done}");
        figures.push(program.memory()?);
    }
    cells.extend(shares(&figures));
    rows.push(cells);

    eprintln!("{connections} connections…");
    let mut cells = row![format!("{connections} connections")];
    let mut figures = Vec::new();
    let (_dht, bootstrap) = dht(NODES)?;
    for by in [By::Us, By::JavaScript] {
        let (mut server, ready) = Program::start(by, "listen", &[("bootstrap", &bootstrap), ("count", &connections)])?;
        server.go()?;
        let key = text(&ready, "key")?;
        let options: [(&str, &dyn fmt::Display); 3] =
            [("bootstrap", &bootstrap), ("key", &key), ("count", &connections)];
        let (_callers, _) = Program::start(By::Us, "call", &options)?;
        let done = server.hear("done")?;
        ensure!(number(&done, "connections")? == connections as f64, "not all connected: {done}");
        figures.push(server.memory()?);
    }
    cells.extend(shares(&figures));
    rows.push(cells);
    Ok(table(&rows))
}

fn shares(figures: &[u64]) -> Vec<String> {
    let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    let [ours, js] = figures else { return Vec::new() };
    row![megabytes(*ours), megabytes(*js), format!("{:.0} %", 100.0 * *ours as f64 / *js as f64), "a third"]
}

/// Raw UDX: the table of the crate's own bench.
fn streams() -> Result<String> {
    eprintln!("UDX…");
    let table = crate_bench("udx")?;
    Ok(format!("Raw UDX, all runs; to reach: ours → ours twice udx-native → udx-native.\n\n{table}"))
}

/// FIND_NODE: the table of the crate's own bench.
fn questions() -> Result<String> {
    eprintln!("FIND_NODE…");
    Ok(format!("To reach: twice JavaScript.\n\n{}", crate_bench("dht")?))
}

/// Runs a bench of `datdot-hyperswarm`, and returns the table that it prints.
fn crate_bench(name: &str) -> Result<String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--quiet", "-p", "datdot-hyperswarm", "--bench", name]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the bench {name} failed");
    let text = String::from_utf8(output.stdout).context("a bench prints text")?;
    Ok(text.lines().filter(|line| line.starts_with('|')).fold(String::new(), |all, line| all + line + "\n"))
}
