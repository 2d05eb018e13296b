//! `cargo xtask bench hypercore`: feeds, ours beside JavaScript's, on one machine in one run.

mod disk;
mod many;
mod transfer;

use crate::{document, machine};
use anyhow::{Context, Result};
use std::{env, path::Path};

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
        many::measure(&places)?,
        format!(
            "Medians of {RUNS} runs, each with a fresh reader, in turn; MB are 10⁶ bytes. Each peer is a process of its own on the\
             \nsame machine, so on two cores sender and receiver have one each.\n\n`cargo xtask bench hypercore`, {}.\n",
            machine::describe()?
        ),
    ];
    let text = parts.join("\n");
    if is_quick() {
        println!("{text}");
        return Ok(());
    }
    document::update(&[("Hypercore", text)])
}

/// Where data goes.
struct Places<'a> {
    disk: &'a Path,
    memory: &'a Path,
}

/// Whether only a hundredth is measured, to see that all works; nothing is written then.
fn is_quick() -> bool {
    env::var_os("QUICK").is_some()
}

/// So many, or a few if it has to be quick.
fn many(count: u64) -> u64 {
    if is_quick() { count.div_ceil(100) } else { count }
}

/// Says what is being done.
fn note(text: &str) {
    eprintln!("{text}…");
}
