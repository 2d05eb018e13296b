//! Feeds on the disk: how fast blocks are appended, how soon one is read.

use super::{LARGE, Places, SMALL, many, note, runs, transfer::raw};
use crate::{
    document::{median, row, table},
    machine,
    program::{By, Program, number, text},
};
use anyhow::{Result, ensure};
use std::{fs, path::Path};

/// The tables.
pub fn measure(places: &Places<'_>) -> Result<String> {
    let mut text = "### On the disk\n\n".to_owned();
    text += &appended(places)?;
    text += &in_order(places)?;
    text += &read(places)?;
    Ok(text)
}

/// What blocks are appended with, each batch on the disk when it returns, but for the last.
const APPENDING: [(By, &str, bool); 4] = [
    (By::Us, "append", true),
    (By::JavaScript, "append", true),
    (By::JavaScript, "append-database", true),
    (By::JavaScript, "append", false),
];

fn appended(places: &Places<'_>) -> Result<String> {
    let mut rows = vec![row![
        "append, MB/s",
        "ours, durable",
        "just written, durable",
        "",
        "to reach",
        "JS, durable",
        "a database, durable",
        "JS, not durable"
    ]];
    for (name, size, batch, blocks, to_reach) in [
        ("batches of 16 × 64 KiB", LARGE, 16, many(3_200), "60 %"),
        ("batches of 64 × 1 KiB", SMALL, 64, many(12_800), "60 %"),
        ("64 KiB at a time", LARGE, 1, many(800), ""),
    ] {
        note(&format!("appending, {name}"));
        let (mut rates, mut alone) = (APPENDING.map(|_| Vec::new()), Vec::new());
        for _ in 0..runs() {
            let dir = places.disk.join("appended");
            alone.push(raw(&dir, blocks as usize * size, size * batch, size * batch)?);
            for ((by, mode, durable), rates) in APPENDING.into_iter().zip(&mut rates) {
                let options: [(&str, &dyn std::fmt::Display); 5] = [
                    ("dir", &dir.display()),
                    ("blocks", &blocks),
                    ("size", &size),
                    ("batch", &batch),
                    ("durable", &durable),
                ];
                let (mut program, _) = Program::start(by, mode, &options)?;
                rates.push((blocks * size as u64) as f64 / 1e6 / number(&program.run()?, "seconds")?);
                drop(program);
                fs::remove_dir_all(&dir)?;
            }
        }
        let ([ours, others @ ..], alone) = (rates.map(median), median(alone));
        let share = format!("{:.0} %", 100.0 * ours / alone);
        let mut cells = row![name, format!("{ours:.1}"), format!("{alone:.1}"), share, to_reach];
        cells.extend(others.map(|rate| format!("{rate:.1}")));
        rows.push(cells);
    }
    let why = "\
*Just written*: the same bytes to one growing file, one fdatasync a batch, in turn with the others. *JS, durable* and *a database*
have their log synced once a batch. The database is the one that JavaScript's feeds are in, RocksDB, set up the same; the blocks are
put there as values with two nodes of a tree each, and nothing is hashed or signed.";
    Ok(format!("{}\n{why}\n\n", table(&rows)))
}

/// Reading all of a feed to hash it, as a hoster does with each segment; and the room that it takes.
fn in_order(places: &Places<'_>) -> Result<String> {
    note("reading in order");
    let mut rows = vec![row![
        "64 KiB blocks, just appended",
        "read in order, cold, MB/s",
        "bytes on the disk for each of the feed"
    ]];
    let blocks = many(6_400);
    for (name, by, append, read) in
        [("ours", By::Us, "append", "read"), ("a database", By::JavaScript, "append-database", "read-database")]
    {
        let (mut rates, mut room) = (Vec::new(), Vec::new());
        for _ in 0..runs() {
            let dir = places.disk.join("in-order");
            let bytes = blocks as f64 * LARGE as f64;
            let options: [(&str, &dyn std::fmt::Display); 4] =
                [("dir", &dir.display()), ("blocks", &blocks), ("size", &LARGE), ("batch", &16)];
            Program::start(by, append, &options)?.0.run()?;
            room.push(machine::room(&dir)? as f64 / bytes);
            let (mut program, _) = Program::start(by, read, &[("dir", &dir.display())])?;
            machine::forget_pages()?;
            let done = program.run()?;
            ensure!(number(&done, "bytes")? == bytes, "not everything was read: {done}");
            rates.push(bytes / 1e6 / number(&done, "seconds")?);
            drop(program);
            fs::remove_dir_all(dir)?;
        }
        rows.push(row![name, format!("{:.1}", median(rates)), format!("{:.2}", median(room))]);
    }
    Ok(format!("{}\n", table(&rows)))
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
            for _ in 0..runs() {
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
