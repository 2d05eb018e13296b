//! Feeds on the disk: how fast blocks are appended, how soon one is read.

use super::{LARGE, Places, RUNS, SMALL, many, note, transfer::raw};
use crate::{
    document::{median, row, table},
    machine,
    program::{By, Program, number, text},
};
use anyhow::Result;
use std::{fs, path::Path};

/// The tables.
pub fn measure(places: &Places<'_>) -> Result<String> {
    let mut text = "### On the disk\n\n".to_owned();
    text += &appended(places)?;
    text += &read(places)?;
    Ok(text)
}

fn appended(places: &Places<'_>) -> Result<String> {
    let mut rows =
        vec![row!["append, MB/s", "ours, durable", "just written, durable", "", "to reach", "JS, not durable"]];
    for (name, size, batch, blocks, to_reach) in [
        ("batches of 16 × 64 KiB", LARGE, 16, many(3_200), "60 %"),
        ("batches of 64 × 1 KiB", SMALL, 64, many(12_800), "60 %"),
        ("64 KiB at a time", LARGE, 1, many(800), ""),
    ] {
        note(&format!("appending, {name}"));
        let (mut ours, mut alone, mut js) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let dir = places.disk.join("appended");
            alone.push(raw(&dir, blocks as usize * size, size * batch, size * batch)?);
            for (by, rates) in [(By::Us, &mut ours), (By::JavaScript, &mut js)] {
                let (mut program, _) = Program::start(
                    by,
                    "append",
                    &[("dir", &dir.display()), ("blocks", &blocks), ("size", &size), ("batch", &batch)],
                )?;
                rates.push((blocks * size as u64) as f64 / 1e6 / number(&program.run()?, "seconds")?);
                drop(program);
                fs::remove_dir_all(&dir)?;
            }
        }
        let (ours, alone, js) = (median(ours), median(alone), median(js));
        rows.push(row![
            name,
            format!("{ours:.1}"),
            format!("{alone:.1}"),
            format!("{:.0} %", 100.0 * ours / alone),
            to_reach,
            format!("{js:.1}")
        ]);
    }
    let why = "*Just written*: the same bytes to one growing file, one fdatasync a batch, in turn with the others.";
    Ok(format!("{}\n{why}\n\n", table(&rows)))
}

fn read(places: &Places<'_>) -> Result<String> {
    note("reading at random");
    let blocks = many(4_000);
    let mut rows = vec![row![
        "random `get` of 64 KiB, µs",
        "ours p50",
        "p99",
        "JS p50",
        "p99",
        "just read p50",
        "p99",
        "to reach"
    ]];
    let [ours, js] = ["get-ours", "get-js"].map(|name| places.disk.join(name));
    let filled = |by, dir: &Path| {
        let options: [(&str, &dyn std::fmt::Display); 3] =
            [("dir", &dir.display()), ("blocks", &blocks), ("size", &LARGE)];
        let (_, ready) = Program::start(by, "serve", &options)?;
        text(&ready, "key")
    };
    let (our_key, js_key) = (filled(By::Us, &ours)?, filled(By::JavaScript, &js)?);
    let readers =
        [(By::Us, "get", &ours, &our_key), (By::JavaScript, "get", &js, &js_key), (By::Us, "get-raw", &ours, &our_key)];
    for (name, cold) in [("warm", false), ("cold (page cache emptied)", true)] {
        let mut cells = row![name];
        for (by, mode, dir, key) in readers {
            let (mut middle, mut slowest) = (Vec::new(), Vec::new());
            for _ in 0..RUNS {
                let done = get(by, mode, dir, key, cold)?;
                middle.push(number(&done, "p50")?);
                slowest.push(number(&done, "p99")?);
            }
            cells.extend([middle, slowest].map(|figures| format!("{:.0}", median(figures))));
        }
        cells.push("ahead".into());
        rows.push(cells);
    }
    [ours, js].iter().try_for_each(fs::remove_dir_all)?;
    let why = "*Just read*: as many bytes of the file where ours are, neither looked up nor hashed.";
    Ok(format!("{}\n{why}\n\n", table(&rows)))
}

fn get(by: By, mode: &str, dir: &Path, key: &str, cold: bool) -> Result<serde_json::Value> {
    let (mut program, _) =
        Program::start(by, mode, &[("dir", &dir.display()), ("key", &key), ("count", &many(1_000))])?;
    if cold {
        machine::forget_pages()?;
    }
    program.run()
}
