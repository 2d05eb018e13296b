//! What `cargo xtask bench` says about proofs, ledger and main job.

use crate::{document, network, proofs};
use anyhow::Result;
use std::time::Duration;

/// Time that a block has for proofs, in a chain with six seconds a block: the operational class may use all of its two.
const BLOCK: Duration = Duration::from_secs(2);

/// Writes the sections.
pub fn write(
    machine: &str,
    small: &proofs::Figures,
    large: &proofs::Figures,
    network: &network::Figures,
) -> Result<()> {
    let proof = network.with_proof.saturating_sub(network.without);
    let a_block = if proof.is_zero() { 0 } else { BLOCK.as_micros() / proof.as_micros().max(1) };
    let sources = format!("`cargo xtask bench ledger`, {machine}.");
    let proofs = format!(
        "A proof has 16 chunks of 1 KiB with their paths. *Cold* is with an emptied page cache. The 64 GiB are a sparse file, so
what is read from the disk there is the outboard, the tree over groups of 16 KiB that a hoster keeps beside the data.
Medians, with the worst of 40 in brackets.

| | 1 GiB | 64 GiB | to reach |
|---|---|---|---|
| hash the segment, write the outboard | {} | {} | |
| make a proof, cold | {} | {} | < 50 ms |
| make a proof, warm | {} | {} | |
| check a proof, native code | {} | {} | |
| size of a proof | {} | {} | <= 30 KB |

{sources}",
        rate(small),
        rate(large),
        times(&small.cold),
        times(&large.cold),
        times(&small.warm),
        times(&large.warm),
        times(&small.check),
        times(&large.check),
        sizes(&small.sizes),
        sizes(&large.sizes),
    );
    let ledger = format!(
        "| | | to reach |
|---|---|---|
| check a proof in the wasm runtime, as part of a block: signature, storage and money included | {} | < 3 ms |
| execute a block without a proof | {} | |
| proofs that fit into a block of 2 s of computation | {a_block} | |

Blocks of a running dev chain were executed again by the node (`Core_execute_block`), with a proof and without.
A block's length of 5 MiB has room for some 170 proofs: length is the limit, not computation.

{sources}",
        millis(proof),
        millis(network.without),
    );
    let job = format!(
        "256 MiB, published by a daemon to three hosters, all on this machine with the ledger, blocks of a second.

| | | to reach |
|---|---|---|
| from `publish` to the request on the ledger | {} | |
| from `publish` to \"hosted by 3 of 3\" | {} | |
| resident memory of a hosting daemon | {} | < 100 MB |
| its peak, while it fetched | {} | |

{sources}",
        seconds(network.opened),
        seconds(network.hosted),
        megabytes(network.resident),
        megabytes(network.peak),
    );
    document::update(&[("Storage proofs", proofs), ("The ledger", ledger), ("The main job", job)])
}

fn rate(figures: &proofs::Figures) -> String {
    let rate = figures.bytes as f64 / figures.hash.as_secs_f64() / 1e6;
    format!("{}, {rate:.0} MB/s", seconds(figures.hash))
}

fn times(sorted: &[Duration]) -> String {
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(worst)) => format!("{} ({})", millis(*middle), millis(*worst)),
        _ => "not measured".into(),
    }
}

fn sizes(sorted: &[usize]) -> String {
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(worst)) => format!("{:.1} KB ({:.1} KB)", *middle as f64 / 1e3, *worst as f64 / 1e3),
        _ => "not measured".into(),
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
