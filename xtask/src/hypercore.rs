//! `cargo xtask bench hypercore`: feeds, ours beside JavaScript's, on one machine in one run.

mod disk;
mod killed;
mod many;
mod transfer;

use crate::{document, is_quick, machine};
use anyhow::{Context, Result};
use std::path::Path;

/// Each figure is the median of so many, taken in turn.
const RUNS: usize = 3;
/// Bytes of a large block.
const LARGE: usize = 64 << 10;
/// Bytes of a small block.
const SMALL: usize = 1 << 10;

/// Measures with data in `dir`, writes the section.
pub fn bench(dir: &Path) -> Result<()> {
    let memory = tempfile::Builder::new().prefix("datdot-bench-").tempdir_in("/dev/shm");
    let memory = memory.context("files in memory go to /dev/shm")?;
    let places = Places { disk: dir, memory: memory.path() };
    let parts = [
        transfer::measure(&places)?,
        disk::measure(&places)?,
        killed::measure(&places)?,
        many::measure(&places)?,
        format!(
            "Medians of {RUNS} runs, each with a fresh reader, in turn; MB are 10⁶ bytes. Each peer is a process of its own on the\
             \nsame machine, so on two cores sender and receiver have one each.\n\n`cargo xtask bench hypercore`, {}.\n",
            machine::describe()?
        ),
    ];
    document::update(&[("Hypercore", parts.join("\n"))])
}

/// Where data goes.
struct Places<'a> {
    disk: &'a Path,
    memory: &'a Path,
}

/// So many, or a few if it has to be quick.
fn many(count: u64) -> u64 {
    if is_quick() { count.div_ceil(100) } else { count }
}

/// How often each is measured.
fn runs() -> usize {
    if is_quick() { 1 } else { RUNS }
}

/// Says what is being done.
fn note(text: &str) {
    eprintln!("{text}…");
}
