//! The store against a model in memory: random commands, and a machine whose power fails.
//!
//! Whatever happens, opening succeeds, all that was promised is there, and what is there is what its author wrote and can be
//! proven. A seed that fails is printed; `DATDOT_SEED=n` runs that one alone, `DATDOT_SEEDS=n` more than usual.

use super::{Store, StoreError};
use crate::{
    feed::{Feed, FeedError, Judged},
    files::{
        Files,
        torn::{Dice, Machine},
    },
    journal::DATA_START,
    key::{FeedKey, Keypair},
    messages::{NodeRequest, Request, UpgradeRequest},
    prove::check,
};
use bytes::Bytes;
use datdot_proof::flat;
use std::{collections::BTreeSet, path::Path, sync::mpsc};

const DIR: &str = "/store";
/// The feeds 0 and 1 are our own, 2 is a copy of what another store appends to.
const FEEDS: usize = 3;
const COPY: usize = 2;

/// A feed as it has to be.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    fork: u64,
    blocks: Vec<Bytes>,
    here: BTreeSet<u64>,
}

/// What is known of a feed after commands that may have failed.
#[derive(Clone, Debug, Default)]
struct Expected {
    made: bool,
    sure: State,
    /// Blocks that were stored but not promised yet.
    loose: BTreeSet<u64>,
    /// What holds instead if the command in which the power failed was done.
    maybe: Option<State>,
}

struct World {
    dice: Dice,
    machine: Machine,
    store: Option<Store>,
    expected: Vec<Expected>,
    /// Where the copy's blocks come from; its power never fails.
    source: Feed,
    source_blocks: Vec<Bytes>,
    written: u64,
}

/// Prints the seed of a test that panics.
struct Seed(u64, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with DATDOT_SEED={}, power off after {} writes", self.0, self.1);
        }
    }
}

fn open(machine: &Machine, dir: &str) -> Store {
    let opened = Store::open_on(Files::Torn(machine.clone()), Path::new(dir), mpsc::channel().0);
    opened.expect("opening succeeds")
}

fn keypair(feed: usize) -> Keypair {
    Keypair::from_seed([feed as u8 + 1; 32])
}

impl World {
    fn new(seed: u64) -> World {
        let machine = Machine::default();
        let source = open(&Machine::default(), "/source").create(&keypair(COPY)).expect("room");
        let mut world = World {
            dice: Dice::new(seed),
            store: Some(open(&machine, DIR)),
            machine,
            expected: vec![Expected::default(); FEEDS],
            source,
            source_blocks: Vec::new(),
            written: 0,
        };
        world.grow_source();
        world
    }

    fn key(&self, feed: usize) -> FeedKey {
        if feed == COPY { self.source.key() } else { keypair(feed).feed_key(&keypair(feed).manifest()) }
    }

    fn feed(&self, feed: usize) -> Option<Feed> {
        self.store.as_ref().expect("it is open").feed(&self.key(feed))
    }

    /// Blocks as nobody has seen them before.
    fn blocks(&mut self, most: u64) -> Vec<Bytes> {
        let count = 1 + self.dice.below(most);
        let sizes: Vec<_> = (0..count).map(|_| [0, 1, 40, 511, 700, 5000][self.dice.below(6) as usize]).collect();
        let block = |size: usize| {
            self.written += 1;
            Bytes::from(self.written.to_le_bytes().into_iter().cycle().take(size).collect::<Vec<_>>())
        };
        sizes.into_iter().map(block).collect()
    }

    fn grow_source(&mut self) {
        let blocks = self.blocks(20);
        self.source.write(&blocks).expect("its power never fails");
        self.source_blocks.extend(blocks);
    }

    /// One command; whether it was done.
    fn step(&mut self) -> bool {
        let feed = self.dice.below(FEEDS as u64) as usize;
        let Some(handle) = self.feed(feed).filter(|handle| feed == COPY || handle.info().writable) else {
            return self.create(feed);
        };
        match self.dice.below(16) {
            0 => {
                drop(handle);
                self.reopen()
            }
            1 if self.dice.below(4) == 0 => {
                let removed = self.store.as_ref().expect("it is open").remove(&self.key(feed)).is_ok();
                match removed {
                    true => self.expected[feed] = Expected::default(),
                    // It comes back as it was, or not at all.
                    false => self.expected[feed].made = false,
                }
                removed
            }
            2 => self.flush(feed, &handle),
            3 => {
                let number = handle.settle(None);
                handle.settle(number);
                true
            }
            4 | 5 => self.clear(feed, &handle),
            6 if feed != COPY => self.truncate(feed, &handle),
            6 => {
                let keep = 1 + self.dice.below(self.source_blocks.len() as u64);
                self.source.truncate_now(keep).expect("its power never fails");
                self.source_blocks.truncate(keep as usize);
                self.grow_source();
                true
            }
            7 if feed == COPY => {
                self.grow_source();
                true
            }
            _ if feed == COPY => self.fetch(&handle),
            _ => self.append(feed, &handle),
        }
    }

    fn create(&mut self, feed: usize) -> bool {
        let store = self.store.clone().expect("it is open");
        let made = if feed == COPY { store.open_remote(self.key(feed), None) } else { store.create(&keypair(feed)) };
        self.expected[feed] = Expected { made: made.is_ok(), ..Expected::default() };
        made.is_ok()
    }

    fn change(&mut self, feed: usize, done: bool, change: impl FnOnce(&mut State)) -> bool {
        let expected = &mut self.expected[feed];
        let mut after = expected.sure.clone();
        after.here.extend(&expected.loose);
        change(&mut after);
        match done {
            true => (expected.sure, expected.loose) = (after, BTreeSet::new()),
            false => expected.maybe = Some(after),
        }
        done
    }

    fn append(&mut self, feed: usize, handle: &Feed) -> bool {
        // Sometimes more than the journal takes.
        let most = if self.dice.below(12) == 0 { 600 } else { 12 };
        let blocks = self.blocks(most);
        let done = handle.write(&blocks);
        self.change(feed, done.is_ok(), |state| {
            let start = state.blocks.len() as u64;
            state.here.extend(start..start + blocks.len() as u64);
            state.blocks.extend(blocks);
        })
    }

    fn truncate(&mut self, feed: usize, handle: &Feed) -> bool {
        let length = self.expected[feed].sure.blocks.len() as u64;
        if length == 0 {
            return true;
        }
        let keep = 1 + self.dice.below(length);
        let done = handle.truncate_now(keep);
        self.change(feed, done.is_ok(), |state| {
            state.fork += 1;
            state.blocks.truncate(keep as usize);
            state.here.retain(|block| *block < keep);
        })
    }

    fn clear(&mut self, feed: usize, handle: &Feed) -> bool {
        let length = self.expected[feed].sure.blocks.len() as u64 + 2;
        let start = self.dice.below(length);
        let range = start..start + self.dice.below(length);
        if handle.with_blocks(|have| have.first_present(range.clone())).is_none() {
            // Then nothing is promised either.
            return handle.clear_now(range).is_ok();
        }
        let done = handle.clear_now(range.clone());
        self.change(feed, done.is_ok(), |state| state.here.retain(|block| !range.contains(block)))
    }

    fn flush(&mut self, feed: usize, handle: &Feed) -> bool {
        let done = handle.sync();
        self.change(feed, done.is_ok(), |_| {})
    }

    /// Brings the copy closer to its source: the newest head, or a block.
    fn fetch(&mut self, copy: &Feed) -> bool {
        let (ours, theirs) = (copy.info(), self.source.info());
        let source = self.source.clone();
        let ask = |request: Request| source.answer(&request).expect("an honest answer");
        let plain = Request { id: 1, fork: theirs.fork, manifest: true, ..Request::default() };
        let blocks = self.source_blocks.clone();
        if ours.length > 0 && ours.fork < theirs.fork {
            let whole = UpgradeRequest { start: 0, length: theirs.length };
            let Ok(Judged::Fork(mut fork)) = copy.judge(&ask(Request { upgrade: Some(whole), ..plain })) else {
                return !self.machine.is_off();
            };
            while let Some((index, nodes)) = copy.next_question(&mut fork, |at| Some(at.start)).expect("readable") {
                fork.learn(&ask(Request { hash: Some(NodeRequest { index, nodes }), ..plain })).expect("honest");
                assert!(fork.kept() <= 2 * (u64::BITS - theirs.length.leading_zeros()) + 1, "one way down the tree");
            }
            let keep = fork.same();
            copy.follow_forks(true);
            let done = copy.adopt_fork(*fork);
            return self.change(COPY, done.is_ok(), |state| {
                state.here.retain(|block| *block < keep);
                (state.fork, state.blocks) = (theirs.fork, blocks);
            });
        }
        if ours.length < theirs.length {
            let upgrade = Some(UpgradeRequest { start: ours.length, length: theirs.length - ours.length });
            let done = copy.accept(&ask(Request { upgrade, ..plain }));
            return self.change(COPY, done.is_ok(), |state| (state.fork, state.blocks) = (theirs.fork, blocks));
        }
        let (start, count) = (self.dice.below(theirs.length), 1 + self.dice.below(8));
        for index in start..theirs.length.min(start + count) {
            let nodes = copy.steps_to_known(index).expect("readable");
            if copy.accept(&ask(Request { block: Some(NodeRequest { index, nodes }), ..plain })).is_err() {
                return false;
            }
            if !self.expected[COPY].sure.here.contains(&index) {
                self.expected[COPY].loose.insert(index);
            }
        }
        true
    }

    /// All is as it has to be while the power is on.
    fn look(&mut self) {
        for feed in 0..FEEDS {
            let Some(handle) = self.feed(feed) else {
                assert!(!self.expected[feed].made, "feed {feed} is gone");
                continue;
            };
            let Expected { sure, loose, maybe, .. } = &self.expected[feed];
            let info = handle.info();
            let here: BTreeSet<u64> = handle.with_blocks(|have| have.runs(0..u64::MAX).flatten().collect());
            let fits = |state: &State| {
                (info.fork, info.length) == (state.fork, state.blocks.len() as u64)
                    && here.is_superset(&state.here)
                    && here.iter().all(|block| state.here.contains(block) || loose.contains(block))
            };
            let Some(state) = [Some(sure), maybe.as_ref()].into_iter().flatten().find(|state| fits(state)) else {
                panic!("feed {feed} is {info:?} with {here:?}, expected {:?} and {loose:?}, or {maybe:?}", sure.here);
            };
            let mut bytes = 0;
            for &block in &here {
                let read = handle.read(block).expect("what is announced is there");
                assert_eq!(read, state.blocks[block as usize], "feed {feed}, block {block}");
                bytes += read.len() as u64;
                proven(&handle, block);
            }
            assert_eq!((info.bytes_here, info.blocks_here), (bytes, here.len() as u64), "feed {feed}");
            assert!(matches!(handle.read(info.length), Err(FeedError::OutOfRange { .. })));
            let loose = &here - &state.here;
            let sure = State { here: &here - &loose, ..state.clone() };
            self.expected[feed] = Expected { made: true, sure, loose, maybe: None };
        }
    }

    /// Closes and opens again; closing brings everything to the disk.
    fn reopen(&mut self) -> bool {
        // Closing does that too, but can't say if there is no room.
        for feed in 0..FEEDS {
            if let Some(handle) = self.feed(feed) {
                self.flush(feed, &handle);
            }
        }
        self.store = None;
        let opened = Store::open_on(Files::Torn(self.machine.clone()), Path::new(DIR), mpsc::channel().0);
        self.store = opened.ok().filter(|_| !self.machine.is_off());
        self.store.is_some()
    }

    /// Starts again after the process or the machine stopped.
    fn restart(&mut self) {
        self.machine.fail_after(1);
        self.store = None;
        match self.dice.below(3) {
            0 => self.machine.restart(),
            _ => self.machine.restart_after_power_loss(&mut self.dice),
        }
        self.store = Some(open(&self.machine, DIR));
        self.look();
    }
}

/// What we answer to somebody who knows nothing but the head leads to it.
fn proven(feed: &Feed, block: u64) {
    let (fork, length, _) = feed.signed().expect("it has a head");
    let root = flat::full_roots(length).find(|root| flat::is_under(flat::leaf(block), *root)).expect("it is within");
    let nodes = u64::from(flat::depth(root));
    let request = Request { id: 1, fork, block: Some(NodeRequest { index: block, nodes }), ..Request::default() };
    let answer = feed.answer(&request).expect("what is here can be proven");
    let roots = feed.lock().roots.clone();
    assert_eq!(check(&answer, &roots).expect("the proof fits together").top.as_ref(), roots.above(root));
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("DATDOT_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..std::env::var("DATDOT_SEEDS").map_or(count, |seeds| seeds.parse().expect("a number"))).collect(),
    }
}

#[test]
fn everything_promised_is_there_after_any_commands_and_crashes() {
    for seed in seeds(10) {
        let mut world = World::new(seed);
        for _ in 0..6 {
            let fuse = 1 + world.dice.below(300);
            let _seed = Seed(seed, fuse);
            world.machine.fail_after(fuse);
            while !world.machine.is_off() {
                if world.step() && world.dice.below(8) == 0 {
                    world.look();
                }
            }
            world.restart();
        }
    }
}

#[test]
fn the_power_may_fail_at_each_write() {
    for seed in seeds(2) {
        for fuse in 1..150 {
            let _seed = Seed(seed, fuse);
            let mut world = World::new(seed);
            world.machine.fail_after(fuse);
            while !world.machine.is_off() && world.step() {}
            world.machine.fail_after(1);
            world.store = None;
            world.machine.restart_after_power_loss(&mut world.dice);
            // Once more while what is left is read.
            let again = 1 + world.dice.below(6);
            world.machine.fail_after(again);
            let opened = Store::open_on(Files::Torn(world.machine.clone()), Path::new(DIR), mpsc::channel().0);
            drop(opened);
            world.restart();
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_everything_readable() {
    for seed in seeds(6) {
        let _seed = Seed(seed, 0);
        let mut world = World::new(seed);
        while (0..FEEDS).any(|feed| world.feed(feed).is_none()) {
            world.step();
        }
        let mut refused = 0;
        for round in 0..60 {
            world.machine.leave_room((round % 3 > 0).then_some(world.dice.below(4000)));
            refused += u32::from(!world.step());
            // Nothing was promised, and nothing is in doubt while the process lives.
            world.expected.iter_mut().for_each(|expected| expected.maybe = None);
            world.look();
        }
        world.machine.leave_room(None);
        for feed in 0..FEEDS {
            if feed != COPY {
                assert!(world.feed(feed).is_some_and(|handle| handle.info().writable) || world.create(feed));
                let handle = world.feed(feed).expect("it was made");
                assert!(world.append(feed, &handle), "there is room again");
            }
        }
        world.look();
        assert!(refused > 0);
    }
}

#[test]
fn a_cut_needs_no_room() {
    let machine = Machine::default();
    let feed = open(&machine, DIR).create(&keypair(0)).expect("room");
    feed.write(&(0..4).map(|i| Bytes::from(vec![i; 10])).collect::<Vec<_>>()).expect("an author appends");
    machine.leave_room(Some(0));
    feed.truncate_now(4).expect("nothing grows");
    machine.leave_room(None);
    feed.write(&[Bytes::from_static(b"more")]).expect("there is room again");
}

#[test]
fn small_appends_find_room_that_was_taken_before_unless_the_disk_has_none() {
    let machine = Machine::default();
    let feed = open(&machine, DIR).create(&keypair(0)).expect("room");
    let blocks = |count: u8| (0..count).map(|i| Bytes::from(vec![i + 1; 1000])).collect::<Vec<_>>();
    let (key, file) = (feed.key(), feed.data_path());
    let behind = || Files::Torn(machine.clone()).len(&file).expect("it is there") - DATA_START - feed.info().bytes;
    feed.write(&blocks(1)).expect("an author appends");
    assert_eq!(behind(), 0, "it is not worth it yet");
    feed.write(&blocks(100)).expect("an author appends");
    feed.write(&blocks(20)).expect("an author appends");
    let (ahead, syncs) = (behind(), machine.syncs());
    assert!(ahead > 0 && ahead <= feed.info().bytes / 4, "{ahead}");
    feed.write(&blocks(5)).expect("an author appends");
    assert_eq!((behind(), machine.syncs()), (ahead - 5000, syncs + 1));
    machine.leave_room(Some(30_000 + 2 * 44 * 30 + 500));
    feed.write(&blocks(30)).expect("there is room for the blocks");
    assert_eq!(behind(), 0, "and for nothing else");
    machine.leave_room(None);
    machine.restart();
    drop(feed);
    let feed = open(&machine, DIR).feed(&key).expect("it is there");
    for block in 0..156 {
        assert!(feed.read(block).is_ok_and(|bytes| bytes.len() == 1000 && bytes[0] > 0), "{block}");
    }
}

#[test]
fn an_append_costs_one_sync() {
    let machine = Machine::default();
    let feed = open(&machine, DIR).create(&keypair(0)).expect("room");
    let (before, mut longest) = (machine.syncs(), 0);
    for round in 0..40 {
        let start = machine.syncs();
        feed.write(&[Bytes::from(vec![round; 3000])]).expect("an author appends");
        longest = longest.max(machine.syncs() - start);
    }
    // A half of the journal is full after some eight commits here: three more then.
    assert!(machine.syncs() - before <= 40 + 6 * 3, "{} syncs", machine.syncs() - before);
    assert_eq!(longest, 4);
}

#[test]
fn a_damaged_block_or_node_is_found_and_counts_as_missing() {
    let machine = Machine::default();
    let store = open(&machine, DIR);
    let feed = store.create(&keypair(0)).expect("room");
    feed.write(&(0..40).map(|i| Bytes::from(vec![i; 100])).collect::<Vec<_>>()).expect("an author appends");
    let dir = Path::new(DIR).join("feeds").join(feed.discovery().to_string());
    machine.damage(&dir.join("data"), DATA_START as usize + 710);
    assert!(matches!(feed.read(7), Err(FeedError::Damaged { block: 7 })));
    assert!(matches!(feed.read(7), Err(FeedError::NotHere { block: 7 })));
    machine.damage(&dir.join("tree"), 44 * 2 * 20 + 9);
    machine.damage(&dir.join("data"), DATA_START as usize + 2010);
    assert!(matches!(feed.read(20), Err(FeedError::Damaged { block: 20 })));
    assert_eq!((feed.info().blocks_here, feed.info().contiguous), (38, 7));
    feed.sync().expect("room");
    drop((feed, store));
    let store = open(&machine, DIR);
    let feed = store.feeds().pop().expect("it is there");
    assert!(!feed.has(7) && !feed.has(20) && feed.info().blocks_here == 38);
    [6, 17, 22].into_iter().for_each(|block| _ = feed.read(block).expect("the others are"));
}

#[test]
fn a_damaged_journal_takes_nothing_back() {
    let (mut whole, mut refused) = (0, 0);
    for (count, half) in (1..30).flat_map(|count| [(count, 0), (count, 1)]) {
        let machine = Machine::default();
        let store = open(&machine, DIR);
        let feed = store.create(&keypair(0)).expect("room");
        (0..count).for_each(|i| _ = feed.write(&[Bytes::from(vec![i; 10])]).expect("an author appends"));
        let data = feed.data_path();
        machine.fail_after(1);
        drop((feed, store));
        machine.restart();
        machine.damage(&data, half * DATA_START as usize / 2 + 30);
        let store = open(&machine, DIR);
        match store.feeds().pop() {
            Some(feed) => {
                assert_eq!((feed.info().length, feed.info().blocks_here), (u64::from(count), u64::from(count)));
                whole += 1;
            }
            None => {
                assert!(
                    matches!(store.create(&keypair(0)), Err(StoreError::Io { .. })),
                    "an author never begins again"
                );
                refused += 1;
            }
        }
    }
    assert!(whole > 0 && refused > 0);
}

#[test]
fn a_damaged_entry_that_others_follow_takes_nothing_back() {
    let machine = Machine::default();
    let store = open(&machine, DIR);
    let feed = store.create(&keypair(0)).expect("room");
    (0..4).for_each(|i| _ = feed.write(&[Bytes::from(vec![i; 10])]).expect("an author appends"));
    let data = feed.data_path();
    machine.fail_after(1);
    drop((feed, store));
    machine.restart();
    machine.damage(&data, 3 * 4096 + 30);
    assert!(open(&machine, DIR).feeds().is_empty());
}

#[test]
fn the_files_of_a_few_feeds_are_open_at_a_time() {
    let machine = Machine::default();
    let store = open(&machine, DIR);
    let feeds: Vec<_> = (0..super::MAX_OPEN + 20).map(|i| store.create(&keypair(i)).expect("room")).collect();
    for round in 0..3 {
        for feed in &feeds {
            assert_eq!(feed.write(&[Bytes::from(vec![round; 10])]).expect("an author appends"), u64::from(round) + 1);
        }
        assert!(store.0.pool.open() <= super::MAX_OPEN);
    }
    feeds.iter().for_each(|feed| assert_eq!(feed.read(2).expect("it is here"), [2; 10]));
}

#[test]
fn room_of_dropped_blocks_is_given_back_though_the_process_ends_in_between() {
    for writes in 1.. {
        let machine = Machine::default();
        let store = open(&machine, DIR);
        let feed = store.create(&keypair(0)).expect("room");
        let (key, size) = (feed.key(), 5000);
        feed.write(&vec![vec![7; size].into(); 4]).expect("room");
        machine.fail_after(writes);
        let cleared = feed.clear_now(1..3).is_ok();
        drop((feed, store));
        machine.restart();
        let feed = open(&machine, DIR).feed(&key).expect("it was made");
        let bytes = feed.read_raw(size as u64..3 * size as u64).expect("more follows");
        for (block, bytes) in (1..3).zip(bytes.chunks(size)) {
            assert_eq!(bytes.iter().any(|byte| *byte != 0), feed.has(block), "block {block} after {writes} writes");
        }
        assert!(feed.read(0).is_ok() && feed.read(3).is_ok());
        if cleared {
            break;
        }
    }
}

#[test]
fn holes_in_what_is_here_are_not_read() {
    let machine = Machine::default();
    let store = open(&machine, DIR);
    let feed = store.create(&keypair(0)).expect("room");
    feed.write(&vec![vec![7; 10].into(); 4]).expect("room");
    let (key, have) = (feed.key(), feed.data_path().with_file_name("have"));
    drop((feed, store));
    let have = machine.open(&have, false).expect("it was made");
    have.write_at(&[1], 32 << 20).expect("room");
    let before = machine.reads();
    let feed = open(&machine, DIR).feed(&key).expect("it was made");
    assert_eq!(feed.info().blocks_here, 4);
    assert!(machine.reads() - before < 1 << 20, "{} bytes", machine.reads() - before);
}
