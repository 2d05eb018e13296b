//! Chores of this repository: `cargo xtask bench [FOLDER]`.

mod chain;
mod machine;
mod network;
mod proofs;
mod report;

use anyhow::{Context, Result, bail};
use std::{env, path::PathBuf};

const USAGE: &str = "\
cargo xtask bench [FOLDER]   measures, and writes docs/benchmarks.md. FOLDER is where the data goes
                             (66 GiB of sparse files, 2 GiB on the disk); without, the folder for temporary files.
                             Needs target/release/datdot: cargo build --release --workspace --bin datdot";

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("bench") => bench(args.next().map_or_else(env::temp_dir, PathBuf::from)),
        _ => bail!("{USAGE}"),
    }
}

fn bench(folder: PathBuf) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("datdot-bench-").tempdir_in(&folder);
    let dir = dir.with_context(|| format!("can't use {}", folder.display()))?;
    let machine = machine::describe()?;
    eprintln!("proofs over 1 GiB…");
    let small = proofs::measure(dir.path(), 1 << 30, proofs::Content::Written)?;
    eprintln!("proofs over 64 GiB…");
    let large = proofs::measure(dir.path(), 64 << 30, proofs::Content::Sparse)?;
    eprintln!("a network…");
    let network = network::measure(dir.path())?;
    report::write(&machine, &small, &large, &network)
}
