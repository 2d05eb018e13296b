//! How fast a feed goes from one peer to another over TCP, and what it costs them.

use super::{LARGE, Places, RUNS, SMALL, many, note, runs};
use crate::{
    delay,
    document::{median, row, table},
    program::{By, Program, number, text},
};
use anyhow::{Result, ensure};
use datdot_proof::tree::Node;
use datdot_wire::{
    noise::{Handshake, Keypair, Role},
    secret_stream::{Pull, Push},
};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Bytes in a GiB.
const GIB: f64 = (1u64 << 30) as f64;
/// Of what is written raw so many bytes come to the disk together: as many as a store of ours commits.
const COMMIT: usize = 8 << 20;

/// A feed that is served.
struct Served {
    program: Program,
    key: String,
    port: u16,
    blocks: u64,
    bytes: f64,
}

/// How a reader asks for blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As it does if nothing is said: in JavaScript at random, in ours one after the other.
    Usual,
    /// One after the other.
    Linear,
    /// At random.
    Random,
}

impl Served {
    fn start(by: By, dir: &Path, blocks: u64, size: usize) -> Result<Served> {
        let (program, ready) =
            Program::start(by, "serve", &[("dir", &dir.display()), ("blocks", &blocks), ("size", &size)])?;
        let port = number(&ready, "port")? as u16;
        Ok(Served { program, key: text(&ready, "key")?, port, blocks, bytes: (blocks * size as u64) as f64 })
    }

    /// Lets a new reader fetch all of it. MB per second, and seconds of CPU a GiB at both ends.
    fn fetch(&self, by: By, mode: &str, place: &Path, port: u16, order: Order) -> Result<(f64, [f64; 2])> {
        let dir = place.join("reader");
        let (linear, shuffled) = (order == Order::Linear, if order == Order::Random { self.blocks } else { 0 });
        let options: [(&str, &dyn std::fmt::Display); 5] = [
            ("dir", &dir.display()),
            ("key", &self.key),
            ("port", &port),
            ("linear", &linear),
            ("shuffled", &shuffled),
        ];
        let (mut reader, _) = Program::start(by, mode, &options)?;
        let before = [self.program.cpu()?, reader.cpu()?];
        let done = reader.run()?;
        let cpu = [self.program.cpu()? - before[0], reader.cpu()? - before[1]];
        ensure!(number(&done, "bytes")? == self.bytes, "{by} did not fetch everything: {done}");
        drop(reader);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        Ok((self.bytes / 1e6 / number(&done, "seconds")?, cpu.map(|seconds| seconds * GIB / self.bytes)))
    }
}

/// Who sends what to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    JsToJs,
    JsToSink,
    JsToUs,
    UsToUsInMemory,
    UsToUs,
    UsToJs,
    JsToJsInOrder,
    UsToJsInOrder,
    JsToUsAtRandom,
    UsToUsAtRandom,
    Raw,
}

impl Pair {
    const ALL: [Pair; 11] = [
        Pair::JsToJs,
        Pair::JsToSink,
        Pair::JsToUs,
        Pair::UsToUsInMemory,
        Pair::UsToUs,
        Pair::UsToJs,
        Pair::JsToJsInOrder,
        Pair::UsToJsInOrder,
        Pair::JsToUsAtRandom,
        Pair::UsToUsAtRandom,
        Pair::Raw,
    ];

    const fn name(self) -> &'static str {
        match self {
            Pair::JsToJs => "JS → JS (`download()`: in random order)",
            Pair::JsToSink => "JS → nowhere (asked for, decrypted, dropped)",
            Pair::JsToUs => "JS → ours, durable",
            Pair::UsToUsInMemory => "ours → ours, files in memory",
            Pair::UsToUs => "ours → ours, durable",
            Pair::UsToJs => "ours → JS (in random order)",
            Pair::JsToJsInOrder => "JS → JS, `linear`",
            Pair::UsToJsInOrder => "ours → JS, `linear`",
            Pair::JsToUsAtRandom => "JS → ours, durable, in random order too",
            Pair::UsToUsAtRandom => "ours → ours, durable, in random order too",
            Pair::Raw => "the same bytes just written, durable every 8 MiB",
        }
    }
}

/// Medians for one size of block, by pair.
struct Rates {
    rates: Vec<f64>,
    /// Seconds of CPU a GiB, of sender and receiver, ours to ours.
    cpu: [f64; 2],
}

impl Rates {
    fn of(&self, pair: Pair) -> f64 {
        Pair::ALL.iter().zip(&self.rates).find(|(each, _)| **each == pair).map_or(f64::NAN, |(_, rate)| *rate)
    }

    /// What is to be reached, and why.
    fn target(&self, pair: Pair, times: [f64; 2]) -> Option<(f64, String)> {
        let (js, raw) = (self.of(Pair::JsToJs), self.of(Pair::Raw));
        let of_js = |times: f64| (js * times, format!("{times} × JS → JS"));
        Some(match pair {
            Pair::JsToUs if times[0] > 0.0 => of_js(times[0]),
            Pair::JsToUs => (0.95 * self.of(Pair::JsToSink), "95 % of nowhere".into()),
            Pair::UsToUsInMemory => of_js(times[1]),
            Pair::UsToUs if 0.8 * raw < times[1] * js => (0.8 * raw, "80 % of just written".into()),
            Pair::UsToUs => of_js(times[1]),
            Pair::UsToJs => of_js(1.0),
            Pair::UsToJsInOrder => (self.of(Pair::JsToJsInOrder), "1 × JS → JS, `linear`".into()),
            Pair::JsToUsAtRandom | Pair::UsToUsAtRandom => (js, "ahead of JS → JS".into()),
            _ => return None,
        })
    }
}

/// The tables.
pub fn measure(places: &Places<'_>) -> Result<String> {
    let large = rates(places, many(4_000), LARGE)?;
    let small = rates(places, many(20_000), SMALL)?;
    let mut rows = vec![row!["from → to, MB/s", "64 KiB", "to reach", "1 KiB", "to reach"]];
    for pair in Pair::ALL {
        let mut cells = row![pair.name()];
        // At 1 KiB the issue names multiples of JS → JS throughout.
        for (rates, times) in [(&large, [0.0, 3.0]), (&small, [2.5, 7.0])] {
            let target = rates.target(pair, times);
            cells.push(format!("{:.1}", rates.of(pair)));
            cells.push(target.map_or(String::new(), |(rate, why)| format!("{rate:.1} ({why})")));
        }
        rows.push(cells);
    }
    let mut text = format!("### Over TCP, verified\n\n{}\n", table(&rows));
    text += &far(places)?;
    text += &cost(&large)?;
    Ok(text)
}

fn rates(places: &Places<'_>, blocks: u64, size: usize) -> Result<Rates> {
    note(&format!("over TCP, {blocks} blocks of {size} bytes"));
    let on_disk = |name: &str| places.disk.join(name);
    let js = Served::start(By::JavaScript, &on_disk("js"), blocks, size)?;
    let ours = Served::start(By::Us, &on_disk("ours"), blocks, size)?;
    let in_memory = Served::start(By::Us, &places.memory.join("ours"), blocks, size)?;
    let mut all = vec![Vec::new(); Pair::ALL.len()];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..runs() {
        for (pair, figures) in Pair::ALL.iter().zip(&mut all) {
            let to_us = |from: &Served, order| from.fetch(By::Us, "fetch", places.disk, from.port, order);
            let to_js = |from: &Served, order| from.fetch(By::JavaScript, "fetch", places.disk, from.port, order);
            let (rate, cpu) = match pair {
                Pair::JsToJs => to_js(&js, Order::Usual),
                Pair::JsToSink => js.fetch(By::Us, "sink", places.disk, js.port, Order::Linear),
                Pair::JsToUs => to_us(&js, Order::Usual),
                Pair::UsToUsInMemory => in_memory.fetch(By::Us, "fetch", places.memory, in_memory.port, Order::Usual),
                Pair::UsToUs => to_us(&ours, Order::Usual),
                Pair::UsToJs => to_js(&ours, Order::Usual),
                Pair::JsToJsInOrder => to_js(&js, Order::Linear),
                Pair::UsToJsInOrder => to_js(&ours, Order::Linear),
                Pair::JsToUsAtRandom => to_us(&js, Order::Random),
                Pair::UsToUsAtRandom => to_us(&ours, Order::Random),
                Pair::Raw => Ok((raw(&on_disk("raw"), ours.bytes as usize, size, COMMIT)?, [0.0; 2])),
            }?;
            figures.push(rate);
            if *pair == Pair::UsToUsInMemory {
                costs.iter_mut().zip(cpu).for_each(|(costs, cpu)| costs.push(cpu));
            }
            note(&format!("  {}: {rate:.1} MB/s, CPU {:.2} + {:.2} s/GiB", pair.name(), cpu[0], cpu[1]));
        }
    }
    drop((js, ours, in_memory));
    for dir in [on_disk("js"), on_disk("ours"), places.memory.join("ours")] {
        fs::remove_dir_all(dir)?;
    }
    Ok(Rates { rates: all.into_iter().map(median).collect(), cpu: costs.map(median) })
}

/// Writes a file in pieces, and brings it to the disk each time so many bytes have come together. MB per second.
pub fn raw(path: &Path, bytes: usize, piece: usize, commit: usize) -> Result<f64> {
    let piece = vec![7; piece];
    let mut file = File::create(path)?;
    let start = Instant::now();
    let (mut written, mut waiting) = (0, 0);
    while written < bytes {
        file.write_all(&piece)?;
        written += piece.len();
        waiting += piece.len();
        if waiting >= commit || written >= bytes {
            file.sync_data()?;
            waiting = 0;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(written as f64 / 1e6 / seconds)
}

/// Over a link with 50 ms from one end to the other and back.
fn far(places: &Places<'_>) -> Result<String> {
    const ONE_WAY: Duration = Duration::from_millis(25);
    note("50 ms away");
    let blocks = many((512 << 20) / LARGE as u64);
    let ours = Served::start(By::Us, &places.memory.join("far"), blocks, LARGE)?;
    let js = Served::start(By::JavaScript, &places.disk.join("far"), blocks / 4, LARGE)?;
    let (to_us, to_js) = (delay::link(ours.port, ONE_WAY)?, delay::link(js.port, ONE_WAY)?);
    let (mut at_us, mut at_js) = (Vec::new(), Vec::new());
    for _ in 0..runs().min(2) {
        at_js.push(js.fetch(By::JavaScript, "fetch", places.disk, to_js, Order::Usual)?.0);
        at_us.push(ours.fetch(By::Us, "fetch", places.disk, to_us, Order::Usual)?.0);
    }
    let (at_us, at_js) = (median(at_us), median(at_js));
    drop((ours, js));
    fs::remove_dir_all(places.memory.join("far"))?;
    fs::remove_dir_all(places.disk.join("far"))?;
    let rows = [
        row!["50 ms round trip, 64 KiB, MB/s", "", "to reach"],
        row!["JS → JS, 128 MiB", format!("{at_js:.1}"), ""],
        row!["ours → ours, durable, 512 MiB", format!("{at_us:.1}"), format!("{:.1} (2 ×)", 2.0 * at_js)],
    ];
    Ok(format!("{}\n", table(&rows)))
}

/// CPU of both ends beside what hashing and encrypting alone take.
fn cost(large: &Rates) -> Result<String> {
    note("hashing and encrypting alone");
    let alone = hash_and_encrypt(many(16 << 10))?;
    let mut rows = vec![row!["seconds of CPU a GiB, 64 KiB blocks, ours → ours", "", "alone", "", "to reach"]];
    for (at, (name, times)) in [("sender", 1.5), ("receiver", 2.0)].into_iter().enumerate() {
        let (cpu, alone) = (large.cpu[at], alone[at]);
        rows.push(row![
            name,
            format!("{cpu:.2}"),
            format!("{alone:.2}"),
            format!("{:.2} ×", cpu / alone),
            format!("{times} ×")
        ]);
    }
    Ok(format!(
        "{}\n*Alone*: BLAKE2b and secret stream of the same bytes with the same crates, in this run.\n",
        table(&rows)
    ))
}

/// Seconds of CPU a GiB: hashed and encrypted, decrypted and hashed.
fn hash_and_encrypt(blocks: u64) -> Result<[f64; 2]> {
    let mut initiator = Handshake::xx(Role::Initiator, &Keypair::from_seed(&[1; 32]), None, &[3; 32]);
    let mut responder = Handshake::xx(Role::Responder, &Keypair::from_seed(&[2; 32]), None, &[4; 32]);
    responder.read(&initiator.write(b"")?)?;
    initiator.read(&responder.write(b"")?)?;
    responder.read(&initiator.write(b"")?)?;
    let (mut push, header) = Push::new(&initiator.finish()?, &[9; 24]);
    let mut pull = Pull::new(&responder.finish()?, &header)?;
    let block = vec![7; LARGE];
    let mut best = [f64::MAX; 2];
    for _ in 0..RUNS {
        let mut seconds = [0.0; 2];
        // As many at a time as fit into a cache, as when they come from a socket.
        const BATCH: u64 = 16;
        for batch in 0..blocks / BATCH / RUNS as u64 {
            let mut frames = Vec::new();
            seconds[0] += cpu(|| {
                for number in 0..BATCH {
                    std::hint::black_box(Node::leaf(batch + number, &block));
                    let mut frame = Vec::with_capacity(LARGE + 32);
                    push.push(&block, &mut frame)?;
                    frames.push(frame);
                }
                Ok(())
            })?;
            let frames: Vec<_> = frames.iter().map(|frame| bytes::BytesMut::from(&frame[3..])).collect();
            seconds[1] += cpu(|| {
                for (number, frame) in frames.into_iter().enumerate() {
                    let text = pull.pull(frame)?;
                    std::hint::black_box(Node::leaf(number as u64, &text));
                }
                Ok(())
            })?;
        }
        let bytes = (blocks / BATCH / RUNS as u64 * BATCH * LARGE as u64) as f64;
        for (best, seconds) in best.iter_mut().zip(seconds) {
            *best = best.min(seconds * GIB / bytes);
        }
    }
    Ok(best)
}

/// Seconds of CPU of this thread.
fn cpu(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let nanoseconds = || -> Result<f64> {
        let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(stat.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0))
    };
    let before = nanoseconds()?;
    work()?;
    Ok((nanoseconds()? - before) / 1e9)
}
