//! Replication as the shipped code does it, over a network that is made up: many peers, slow ones, some that vanish, one that
//! lies. A failing seed is printed; `DATDOT_SEED` runs that one alone, `DATDOT_SEEDS` more than usual.

mod net;
#[path = "../support/mod.rs"]
mod support;

use datdot_hypercore::{Feed, Store};
use net::{Link, Net, NodeId};
use std::{ops::Range, path::Path, time::Duration};
use support::*;

const BLOCKS: u64 = 250;
const SIZE: usize = 1 << 10;
const READERS: usize = 3;
const SLOW: Link = Link { latency: Duration::from_millis(400), bytes_per_second: 2_500 };

/// Prints the seed of a test that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with DATDOT_SEED={}", self.0);
        }
    }
}

fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|number: String| number.parse::<u64>().expect("a number"));
    match number("DATDOT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DATDOT_SEEDS").unwrap_or(usual),
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// One of those who have everything is slow.
    slow: bool,
    /// Another one goes away, and connections break and are made again.
    vanishing: bool,
    /// One that says to have everything makes it up.
    lying: bool,
}

/// An author's feed, as all sources have it: they share a store, since they only read.
fn truth(dir: &Path) -> (Store, Feed) {
    let store = Store::open(dir.join("author")).expect("the folder is free");
    let feed = store.create(&keypair(1)).expect("room");
    feed.write(&(0..BLOCKS).map(|i| block(i, SIZE)).collect::<Vec<_>>()).expect("an author appends");
    (store, feed)
}

/// Three readers, each connected to the others and to three who have everything.
fn play(seed: u64, trouble: Trouble) -> (Net, Vec<NodeId>) {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, feed) = truth(dir.path());
    let mut net = Net::new(seed);
    let readers: Vec<NodeId> = (0..READERS).map(|_| net.reader(dir.path(), feed.key())).collect();
    let sources: Vec<NodeId> = (0..2).map(|_| net.source(&store, &feed, false)).collect();
    let fast = |net: &mut Net| Link {
        latency: Duration::from_millis(5 + net.dice.below(80)),
        bytes_per_second: 50_000 + net.dice.below(100_000),
    };
    for (number, reader) in readers.iter().enumerate() {
        for other in readers[..number].iter().chain(&sources) {
            let (after, link) = (Duration::from_millis(net.dice.below(300)), fast(&mut net));
            net.connect(after, *reader, *other, link);
            if trouble.vanishing && net.dice.below(2) == 0 {
                let after = Duration::from_millis(400 + net.dice.below(2000));
                net.interrupt(after, *reader, Some(*other));
                net.connect(after + Duration::from_secs(1), *reader, *other, link);
            }
        }
    }
    if trouble.slow {
        let slow = net.source(&store, &feed, false);
        readers.iter().for_each(|reader| net.connect(Duration::ZERO, *reader, slow, SLOW));
    }
    if trouble.lying {
        let liar = net.source(&store, &feed, true);
        for reader in &readers {
            let link = fast(&mut net);
            net.connect(Duration::ZERO, *reader, liar, link);
        }
    }
    if trouble.vanishing {
        let vanishing = net.source(&store, &feed, false);
        for reader in &readers {
            let link = fast(&mut net);
            net.connect(Duration::ZERO, *reader, vanishing, link);
        }
        let after = Duration::from_millis(600 + net.dice.below(1500));
        net.interrupt(after, vanishing, None);
    }
    net.run(Duration::from_secs(120));
    for reader in &readers {
        let copy = net.feed(*reader);
        assert!(net.done(*reader).is_some(), "reader {reader} has {:?}", copy.info());
        (0..BLOCKS).for_each(|i| assert_eq!(copy.read(i).expect("it is here"), block(i, SIZE), "block {i}"));
    }
    (net, readers)
}

#[test]
fn everybody_gets_everything_asks_no_block_twice_unless_it_is_late_and_drops_the_liar() {
    let start = std::time::Instant::now();
    let (mut messages, mut questions, mut late, mut came, mut needless) = (0, 0, 0, 0, 0);
    for seed in seeds(6) {
        let _printed = Seed(seed);
        let (net, readers) = play(seed, Trouble { slow: true, vanishing: true, lying: true });
        assert!(net.liars_named().iter().eq(&readers), "{:?}", net.faults);
        messages += net.messages;
        questions += net.questions;
        late += net.late;
        came += net.came;
        needless += net.needless;
    }
    println!("{messages} messages, {:.0} a second", messages as f64 / start.elapsed().as_secs_f64());
    println!(
        "{questions} questions for blocks, {late} of them because another was late; {came} came, {needless} of them twice"
    );
    assert!(needless * 50 < came, "{needless} of {came} blocks came twice");
}

#[test]
fn a_slow_peer_costs_the_others_next_to_nothing() {
    for seed in seeds(4) {
        let _printed = Seed(seed);
        let (without, readers) = play(seed, Trouble::default());
        let (with, _) = play(seed, Trouble { slow: true, ..Trouble::default() });
        for reader in readers {
            let (without, with) = (without.done(reader).expect("it ended"), with.done(reader).expect("it ended"));
            println!("{without:?} without, {with:?} with the slow one");
            assert!(with < without + without / 10 + Duration::from_secs(1), "{without:?}, with the slow one {with:?}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    let trouble = Trouble { slow: true, vanishing: true, lying: true };
    let story = |(net, _): (Net, _)| (net.story, net.messages, net.now);
    assert_eq!(story(play(3, trouble)), story(play(3, trouble)));
    assert_ne!(story(play(3, trouble)), story(play(4, trouble)));
}
