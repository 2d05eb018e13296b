//! Chores of this repository: `cargo xtask bench [WHAT] [FOLDER]`.

mod chain;
mod delay;
mod document;
mod hypercore;
mod hyperswarm;
mod machine;
mod network;
mod peer;
mod program;
mod proofs;
mod report;

use anyhow::{Context, Result, bail};
use std::{env, path::PathBuf};
use tempfile::TempDir;

const USAGE: &str = "\
cargo xtask bench [WHAT] [FOLDER]   measures, and writes its sections of docs/benchmarks.md. FOLDER is where the data goes;
                                    without, the folder for temporary files

With QUICK=1 hypercore and hyperswarm do a hundredth of it, to see that they still work: the figures mean nothing, and are printed
only.

WHAT is
  ledger      proofs, the ledger and the main job; the default. Needs 66 GiB of sparse files, 2 GiB on the disk, and
              target/release/datdot: cargo build --release --workspace --bin datdot
  hypercore   feeds, ours beside JavaScript's. Needs Node.js, 4 GiB on the disk and 4 GiB in /dev/shm
  hyperswarm  UDX, DHT and swarm, ours beside JavaScript's. Needs Node.js";

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["bench", "hypercore", ref folder @ ..] => hypercore::bench(folder_in(folder)?.path()),
        ["bench", "hyperswarm", ref folder @ ..] => hyperswarm::bench(folder_in(folder)?.path()),
        ["bench", "ledger", ref folder @ ..] | ["bench", ref folder @ ..] => ledger(folder_in(folder)?),
        ["peer", mode, ref options @ ..] => peer::run(mode, options.iter().map(ToString::to_string)),
        _ => bail!("{USAGE}"),
    }
}

/// Whether only a hundredth is measured, to see that all works; nothing is written then, and caches stay as they are.
fn is_quick() -> bool {
    env::var_os("QUICK").is_some()
}

fn folder_in(place: &[&str]) -> Result<TempDir> {
    let place = match place {
        [] => env::temp_dir(),
        [place] => PathBuf::from(place),
        _ => bail!("{USAGE}"),
    };
    let dir = tempfile::Builder::new().prefix("datdot-bench-").tempdir_in(&place);
    dir.with_context(|| format!("can't use {}", place.display()))
}

fn ledger(dir: TempDir) -> Result<()> {
    eprintln!("proofs over 1 GiB…");
    let small = proofs::measure(dir.path(), 1 << 30, proofs::Content::Written)?;
    eprintln!("proofs over 64 GiB…");
    let large = proofs::measure(dir.path(), 64 << 30, proofs::Content::Sparse)?;
    eprintln!("a network…");
    let network = network::measure(dir.path())?;
    report::write(&machine::describe()?, &small, &large, &network)
}
