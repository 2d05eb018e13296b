//! The interop matrix: every kind of feed, both ways between today's JavaScript and us, and among ourselves; every block is
//! compared, and a cell that fails is named.
//!
//! ```text
//!   authors        v1 · compat · two of three signers
//! × way            JavaScript → ours · ours → JavaScript · ours → ours · JavaScript → ours → JavaScript
//! × in JavaScript  a plain hypercore · a corestore
//! × block size     0 B · 1 B · 1 KiB · 64 KiB · 15 MiB
//! × story          whole · sparse · growing while it is fetched · cut and forked while it is fetched · killed while it fetches
//! ```
//!
//! Every run plays the cells of 1 KiB blocks, and of other sizes those with a plain hypercore: all stories with v1, *whole* and
//! *forking* with the others, not by way of us. `DATDOT_TEST_CELLS` plays those whose names have all its words, "B" for all.
//!
//! Left out: blocks of 15 MiB in other stories than *whole*, and in a corestore (they would be most of the time); a corestore
//! where no JavaScript takes part. We make no feeds of several signers: those come from JavaScript, by way of us.
//! Killed readers are whole processes, one for all cells of a way: of Node there, of this program here.

#[path = "../support/mod.rs"]
mod support;
mod world;

use datdot_hypercore::Want;
use serde_json::{Value, json};
use std::{
    fmt,
    io::BufRead,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::*;
use tokio::sync::Semaphore;
use world::{Orders, Result, Source, World, complete, text};

const CHILD: &str = "DATDOT_TEST_MATRIX_CHILD";
const LARGE: usize = 15 << 20;
/// Cells at a time.
const AT_ONCE: usize = 16;
/// For one cell, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    V1,
    Compat,
    TwoOfThree,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    JsToOurs,
    OursToJs,
    OursToOurs,
    JsToOursToJs,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrap {
    Plain,
    Corestore,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Story {
    Whole,
    Sparse,
    Growing,
    Forking,
    Killed,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    kind: Kind,
    way: Way,
    wrap: Wrap,
    size: usize,
    story: Story,
}

impl Cell {
    /// Blocks at first, and in the end; from which on they are new after a fork.
    fn blocks(&self) -> (u64, u64, u64) {
        let first = if self.size == LARGE { 2 } else { 24 };
        match self.story {
            Story::Whole | Story::Sparse | Story::Killed => (first, first, first),
            Story::Growing => (first, first + 13, first + 13),
            Story::Forking => (first, first + 7, 17),
        }
    }

    fn is_always_played(&self) -> bool {
        let telling = self.kind == Kind::V1 || matches!(self.story, Story::Whole | Story::Forking);
        self.size == 1 << 10 || telling && self.wrap == Wrap::Plain && self.way != Way::JsToOursToJs
    }

    fn fork(&self) -> u64 {
        u64::from(self.story == Story::Forking)
    }

    /// Whether JavaScript wrote it: we make no feeds of several signers.
    fn is_from_js(&self) -> bool {
        self.kind == Kind::TwoOfThree || matches!(self.way, Way::JsToOurs | Way::JsToOursToJs)
    }

    fn is_read_by_js(&self) -> bool {
        matches!(self.way, Way::OursToJs | Way::JsToOursToJs)
    }

    /// What block `i` has in it in the end.
    fn expected(&self, i: u64) -> bytes::Bytes {
        block(if i < self.blocks().2 { i } else { i + 1000 * self.fork() }, self.size)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?} {} B {:?}", self.kind, self.way, self.wrap, self.size, self.story)
    }
}

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in [Kind::V1, Kind::Compat, Kind::TwoOfThree] {
        for way in [Way::JsToOurs, Way::OursToJs, Way::OursToOurs, Way::JsToOursToJs] {
            for wrap in [Wrap::Plain, Wrap::Corestore] {
                for size in [0, 1, 1 << 10, 64 << 10, LARGE] {
                    for story in [Story::Whole, Story::Sparse, Story::Growing, Story::Forking, Story::Killed] {
                        let cell = Cell { kind, way, wrap, size, story };
                        let large = size == LARGE && (story != Story::Whole || wrap == Wrap::Corestore);
                        let no_js = way == Way::OursToOurs && wrap == Wrap::Corestore;
                        // Feeds of several signers go through us anyway.
                        let twice = kind == Kind::TwoOfThree && way == Way::JsToOursToJs;
                        if !(large || no_js || twice) {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
    }
    cells
}

/// One cell of any story but *killed*.
async fn play(world: &World, cell: Cell, name: u16) -> Result<()> {
    let result = tokio::time::timeout(PATIENCE, tell(world, cell, name)).await;
    for js in [&world.authors, &world.readers] {
        js.ask(&cell.to_string(), "close", json!({})).await?;
    }
    result.unwrap_or_else(|_| Err("takes too long".to_owned()))
}

async fn tell(world: &World, cell: Cell, name: u16) -> Result<()> {
    let mut source = Source::make(world, cell, name).await?;
    let (first, last, cut) = cell.blocks();
    // By way of us.
    let mut through = None;
    if cell.is_from_js() && cell.way != Way::JsToOurs {
        let copy = source.copy(&world.ours, Want::all()).await?;
        source.port = world.ours.local_addr().expect("it listens").port();
        if !matches!(cell.story, Story::Growing | Story::Forking) {
            complete(cell, &copy.feed).await?;
        }
        through = Some(copy);
    }
    if cell.is_read_by_js() {
        world.readers.ask(&source.name, "read", source.to_read()).await?;
        if cell.story == Story::Sparse {
            for (start, end) in [(20, 24), (3, 9)] {
                let order = json!({ "start": start, "end": end });
                is_right(&world.readers.ask(&source.name, "fetch", order).await?)?;
            }
            let here = world.readers.ask(&source.name, "here", json!({})).await?;
            return if here["here"] == 10 { Ok(()) } else { Err(format!("10 blocks were asked for: {here}")) };
        }
        let follow = json!({ "length": last, "fork": cell.fork(), "cut": cut });
        let (followed, changed) = tokio::join!(
            async {
                world.readers.ask(&source.name, "start", json!({})).await?;
                world.readers.ask(&source.name, "follow", follow).await
            },
            source.change(world),
        );
        changed?;
        is_right(&followed?)?;
    } else {
        let reader = if cell.way == Way::JsToOurs { &world.ours } else { &world.other };
        if cell.story == Story::Sparse {
            let mut copy = source.copy(reader, Want::blocks(20..24)).await?;
            copy.download.done().await.map_err(text)?;
            reader.download(&copy.feed, Want::blocks(3..9)).done().await.map_err(text)?;
            let here: Vec<u64> = (0..first).filter(|i| copy.feed.has(*i)).collect();
            for i in &here {
                if copy.feed.get(*i).await.map_err(text)? != cell.expected(*i) {
                    return Err(format!("block {i} is not what was written"));
                }
            }
            let asked: Vec<u64> = (3..9).chain(20..24).collect();
            return if here == asked { Ok(()) } else { Err(format!("{asked:?} were asked for, {here:?} are here")) };
        }
        let copy = source.copy(reader, Want::all()).await?;
        source.change(world).await?;
        complete(cell, &copy.feed).await?;
    }
    if let Some(copy) = &through {
        complete(cell, &copy.feed).await?;
    }
    Ok(())
}

fn is_right(answer: &Value) -> Result<()> {
    if answer["wrong"] == json!([]) { Ok(()) } else { Err(format!("not what was written: {answer}")) }
}

type Played = Vec<(Cell, Result<()>)>;

/// Does the same for all sources at once; those that went well, and the results of the others.
async fn each<T, F>(sources: Vec<T>, cell: fn(&T) -> Cell, act: impl Fn(Arc<T>) -> F) -> (Vec<Arc<T>>, Played)
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut acting = tokio::task::JoinSet::new();
    for source in sources {
        let source = Arc::new(source);
        let played = act(source.clone());
        acting.spawn(async move {
            let result = tokio::time::timeout(PATIENCE, played).await;
            (source, result.unwrap_or_else(|_| Err("takes too long".to_owned())))
        });
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (source, result) in acting.join_all().await {
        match result {
            Ok(()) => good.push(source),
            Err(why) => bad.push((cell(&source), Err(why))),
        }
    }
    (good, bad)
}

/// All cells of readers that are killed, in one process a side.
async fn play_killed(world: Arc<World>, cells: Vec<(u16, Cell)>) -> Played {
    let made: Arc<Mutex<Vec<Source>>> = Arc::default();
    let (_, mut results) = each(
        cells,
        |(_, cell)| *cell,
        |cell| {
            let (world, made) = (world.clone(), made.clone());
            async move {
                let (name, cell) = *cell;
                let mut source = Source::make(&world, cell, name).await?;
                if cell.is_from_js() && cell.way != Way::JsToOurs {
                    complete(cell, &source.copy(&world.ours, Want::all()).await?.feed).await?;
                    source.port = world.ours.local_addr().expect("it listens").port();
                }
                made.lock().expect("whole").push(source);
                Ok(())
            }
        },
    )
    .await;
    let made = std::mem::take(&mut *made.lock().expect("whole"));
    let (by_js, by_us): (Vec<_>, Vec<_>) = made.into_iter().partition(|source| source.cell.is_read_by_js());
    let (one, other) =
        tokio::join!(kill_js(world.dir.join("killed"), by_js), kill_ours(world.dir.join("killed-ours"), by_us));
    results.extend(one);
    results.extend(other);
    results
}

async fn kill_js(dir: PathBuf, sources: Vec<Source>) -> Played {
    let js = Orders::start(dir.clone()).await;
    let (rest, mut results) = each(
        sources,
        |source| source.cell,
        |source| {
            let js = js.clone();
            async move {
                js.ask(&source.name, "read", source.to_read()).await?;
                is_right(&js.ask(&source.name, "fetch", json!({ "start": 5, "end": 14 })).await?)?;
                js.ask(&source.name, "start", json!({})).await?;
                Ok(())
            }
        },
    )
    .await;
    js.kill();
    let again = Orders::start(dir).await;
    let (rest, failed) = each(
        rest,
        |source| source.cell,
        |source| {
            let (js, source) = (again.clone(), Arc::clone(&source));
            async move {
                js.ask(&source.name, "read", source.to_read()).await?;
                let here = js.ask(&source.name, "here", json!({})).await?;
                if here["here"].as_u64() < Some(9) {
                    return Err(format!("9 blocks were here before: {here}"));
                }
                is_right(&js.ask(&source.name, "follow", json!({ "length": source.cell.blocks().1 })).await?)
            }
        },
    )
    .await;
    results.extend(failed);
    results.extend(rest.iter().map(|source| (source.cell, Ok(()))));
    results
}

async fn kill_ours(dir: PathBuf, sources: Vec<Source>) -> Played {
    let list: Vec<String> = sources.iter().map(|source| format!("{} {}", source.key, source.port)).collect();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_fetches_until_it_is_killed", "--nocapture"])
        .env(CHILD, format!("{}\n{}", dir.display(), list.join("\n")))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = child.stdout.take().expect("it is piped");
    let told = tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufReader::new(output).lines().map_while(std::result::Result::ok);
        lines.any(|line| line.contains("half is here"))
    });
    let told = tokio::time::timeout(PATIENCE, told).await.is_ok_and(|told| told.unwrap_or(false));
    child.kill().expect("it runs");
    child.wait().expect("it was ours");
    let again = network(&dir, 9).await;
    let (good, mut results) = each(
        sources,
        |source| source.cell,
        |source| {
            let again = again.clone();
            async move {
                let here = again.store().feed(&source.key).map_or(0, |feed| feed.info().blocks_here);
                if !told || here < 9 {
                    return Err(format!("9 blocks were here before, {here} are"));
                }
                complete(source.cell, &source.copy(&again, Want::all()).await?.feed).await
            }
        },
    )
    .await;
    again.close().await;
    results.extend(good.iter().map(|source| (source.cell, Ok(()))));
    results
}

/// Not a test by itself: the process that is killed above.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_fetches_until_it_is_killed() {
    let Ok(args) = std::env::var(CHILD) else { return };
    let mut lines = args.lines();
    let ours = network(Path::new(lines.next().expect("a folder")), 9).await;
    let mut downloads = Vec::new();
    for line in lines {
        let (key, port) = line.split_once(' ').expect("two words");
        let feed = ours.store().open_remote(key.parse().expect("a key"), None).expect("room");
        let mut half = ours.download(&feed, Want::blocks(5..14));
        ours.connect(([127, 0, 0, 1], port.parse().expect("a port")).into(), None).await.expect("it answers");
        half.done().await.expect("it comes");
        downloads.push(ours.download(&feed, Want::all()));
    }
    println!("half is here");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_feed_goes_every_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let only = std::env::var("DATDOT_TEST_CELLS").ok();
    let is_played = |cell: &Cell| match &only {
        Some(words) => words.split(' ').all(|word| cell.to_string().contains(word)),
        None => cell.is_always_played(),
    };
    let cells = (0..).zip(all_cells()).filter(|(_, cell)| is_played(cell));
    let world = Arc::new(World {
        dir: dir.path().to_owned(),
        ours: network(dir.path(), 1).await,
        other: network(dir.path(), 2).await,
        authors: Orders::start(dir.path().join("authors")).await,
        readers: Orders::start(dir.path().join("readers")).await,
    });
    let (killed, others): (Vec<(u16, Cell)>, Vec<_>) = cells.partition(|(_, cell)| cell.story == Story::Killed);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = tokio::task::JoinSet::new();
    for (name, cell) in others {
        let (world, places) = (world.clone(), places.clone());
        playing.spawn(async move {
            let _place = places.acquire().await;
            let start = std::time::Instant::now();
            let result = play(&world, cell, name).await;
            println!("{cell}: {:.1} s", start.elapsed().as_secs_f64());
            (cell, result)
        });
    }
    let mut results = play_killed(world.clone(), killed).await;
    results.extend(playing.join_all().await);
    world.ours.close().await;
    world.other.close().await;
    let failed: Vec<String> =
        results.iter().filter_map(|(cell, result)| Some(format!("{cell}: {}", result.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{} of {} cells:\n{}", failed.len(), results.len(), failed.join("\n"));
    println!("{} cells", results.len());
}
