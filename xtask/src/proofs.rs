//! How long a hoster needs to hash a segment and to make a proof over it, with nothing in the page cache.

use crate::machine;
use anyhow::{Context, Result};
use datdot_daemon::segments::{Hashed, Place, prove};
use datdot_hypercore::feed::DATA_START;
use datdot_proof::{
    challenge::{DRAWS, Holding, positions, seed},
    outboard::Builder,
    segment::Segment,
};
use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

/// Proofs that are made.
const ROUNDS: u64 = 40;
/// Bytes that are read and hashed at a time.
const PIECE: usize = 1 << 20;

/// What the segment's file holds.
#[derive(Clone, Copy)]
pub enum Content {
    /// Bytes that are on the disk.
    Written,
    /// A hole: reading it costs no disk, so what is measured is the outboard.
    Sparse,
}

/// The figures for one size.
pub struct Figures {
    /// Bytes of the segment.
    pub bytes: u64,
    /// Time to hash it and to write the outboard.
    pub hash: Duration,
    /// Times to make a proof with a cold page cache, sorted.
    pub cold: Vec<Duration>,
    /// Times to make a proof that was just made, sorted.
    pub warm: Vec<Duration>,
    /// Times to check a proof in native code, sorted.
    pub check: Vec<Duration>,
    /// Encoded sizes of the proofs, sorted.
    pub sizes: Vec<usize>,
}

/// Measures with a segment of `bytes` bytes in `dir`.
pub fn measure(dir: &Path, bytes: u64, content: Content) -> Result<Figures> {
    let data = dir.join("data");
    fill(&data, bytes, content).context("can't write the segment")?;
    let root = root(&data, bytes)?;
    let segment = Segment { bytes, root };
    let place = Place { outboard: dir.join("outboard"), data: data.clone() };
    let start = Instant::now();
    anyhow::ensure!(
        matches!(place.hash(&segment, &|| Ok(()))?, Hashed::Whole),
        "the segment has another root than just before"
    );
    let mut figures =
        Figures { bytes, hash: start.elapsed(), cold: vec![], warm: vec![], check: vec![], sizes: vec![] };
    for round in 0..ROUNDS {
        let seed = seed(&[7; 32], b"bench", round);
        let at = positions(&seed, &[Holding { pay: 1, segments: &[segment] }], DRAWS);
        machine::forget_pages()?;
        let make = || prove(&at, |_| place.open());
        let (proof, cold) = timed(make);
        let proof = proof.map_err(|error| anyhow::anyhow!("{error}"))?;
        figures.cold.push(cold);
        figures.warm.push(timed(make).1);
        let (checked, check) = timed(|| proof.check(&at));
        checked?;
        figures.check.push(check);
        let siblings = |opening: &datdot_proof::opening::Opening| 3 + opening.chunk.len() + 32 * opening.siblings.len();
        figures.sizes.push(1 + proof.openings.iter().map(siblings).sum::<usize>());
    }
    for times in [&mut figures.cold, &mut figures.warm, &mut figures.check] {
        times.sort_unstable();
    }
    figures.sizes.sort_unstable();
    fs::remove_file(data)?;
    Ok(figures)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn fill(path: &Path, bytes: u64, content: Content) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.seek(SeekFrom::Start(DATA_START))?;
    if let Content::Written = content {
        let mut state = 1u64;
        let mut piece = vec![0; PIECE];
        for _ in 0..bytes / PIECE as u64 {
            for word in piece.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            file.write_all(&piece)?;
        }
    }
    file.set_len(DATA_START + bytes)?;
    file.sync_all()
}

fn root(path: &Path, bytes: u64) -> Result<[u8; 32]> {
    let mut builder = Builder::new(bytes).context("a segment can have so many bytes")?;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(DATA_START))?;
    let mut piece = vec![0; PIECE];
    for _ in 0..bytes / PIECE as u64 {
        std::io::Read::read_exact(&mut file, &mut piece)?;
        builder.update(&piece)?;
    }
    Ok(builder.finish()?)
}
