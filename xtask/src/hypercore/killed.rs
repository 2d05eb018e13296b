//! A process that is killed while it appends: how soon its store is open again.

use super::{LARGE, Places, many::zeros, note};
use crate::{
    document::{median, row, table},
    is_quick, machine,
    program::{By, Program, number},
};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, thread, time::Duration};

/// How often each is killed.
const KILLS: u64 = 10;

/// A feed before anything is appended.
struct Case {
    name: &'static str,
    blocks: u64,
    /// Whether only a part is there, which JavaScript can't append to without having fetched it.
    sparse: bool,
    /// Blocks that are appended at a time.
    batch: u64,
}

/// The table.
pub fn measure(places: &Places<'_>) -> Result<String> {
    let case = |name, blocks, sparse, batch| Case { name, blocks, sparse, batch };
    let cases = [
        case("64 MiB", 1 << 10, false, 16),
        case("1 GiB", 1 << 14, false, 16),
        case("16 GiB, every 256th block there", 1 << 18, true, 16),
        case("1 GiB", 1 << 14, false, 1),
        case("1 GiB", 1 << 14, false, 128),
    ];
    let mut rows = vec![row![
        "killed while it appends, then opened with an empty page cache; ms",
        "appended at a time",
        "ours",
        "worst",
        "opened once more",
        "JS",
        "worst",
        "once more"
    ]];
    for case in cases {
        note(&format!("killed, {}, {} at a time", case.name, case.batch));
        let mut cells = row![case.name, format!("{} × 64 KiB", case.batch)];
        for by in [By::Us, By::JavaScript] {
            if by == By::JavaScript && case.sparse {
                cells.extend(row!["", "", ""]);
                continue;
            }
            let dir = places.disk.join("killed");
            let [killed, again] = kill(by, &dir, &case)?;
            fs::remove_dir_all(dir)?;
            let worst = killed.iter().copied().fold(0.0, f64::max);
            cells.extend([median(killed), worst, median(again)].map(|seconds| format!("{:.1}", 1e3 * seconds)));
        }
        rows.push(cells);
    }
    let why = format!(
        "*Opened*: until the last block was read. Medians of {KILLS}; each time all that had been appended was there. To reach: what was\
         \nin flight counts, not what is in the store."
    );
    Ok(format!("### Killed\n\n{}\n{why}\n", table(&rows)))
}

/// Seconds until the store is open, each time after a kill and once more after that.
fn kill(by: By, dir: &Path, case: &Case) -> Result<[Vec<f64>; 2]> {
    let blocks = if is_quick() { case.blocks.div_ceil(1 << 8) } else { case.blocks };
    if case.sparse {
        zeros(dir, blocks)?;
    }
    let (mut killed, mut again) = (Vec::new(), Vec::new());
    for round in 0..if is_quick() { 1 } else { KILLS } {
        let options: [(&str, &dyn std::fmt::Display); 4] =
            [("dir", &dir.display()), ("blocks", &blocks), ("size", &LARGE), ("batch", &case.batch)];
        let (mut author, _) = Program::start(by, "append-on", &options)?;
        author.go()?;
        let first = author.hear("appended")?;
        // In the middle of one, another one each time.
        thread::sleep(Duration::from_micros(10_000 + 1_300 * round));
        let told = number(&author.kill("appended")?.unwrap_or(first), "length")?;
        machine::forget_pages()?;
        let length = |opened: &serde_json::Value| number(opened, "length");
        let opened = reopen(by, dir)?;
        let found = length(&opened)?;
        ensure!(
            (told..=told + case.batch as f64).contains(&found),
            "{by}: {told} blocks were appended, and {found} found"
        );
        killed.push(number(&opened, "opened")?);
        machine::forget_pages()?;
        let opened = reopen(by, dir)?;
        ensure!(length(&opened)? == found, "{by}: {found} blocks were found, then {opened}");
        again.push(number(&opened, "opened")?);
    }
    Ok([killed, again])
}

fn reopen(by: By, dir: &Path) -> Result<serde_json::Value> {
    Ok(Program::start(by, "reopen", &[("dir", &dir.display())]).context("it does not open any more")?.1)
}
