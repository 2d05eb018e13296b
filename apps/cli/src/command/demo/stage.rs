//! The screen of the demo: a line for what happened, a bar for what moves, a tally for the table at the end.

use crate::show::{bytes, millis, progress::bar, short, story};
use datdot_api::Event;
use indicatif::{MultiProgress, ProgressBar};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Display,
    time::Instant,
};

/// Something that a daemon told.
pub struct Heard {
    /// Which one.
    pub who: &'static str,
    /// What.
    pub event: Event,
}

/// The screen.
pub struct Stage {
    start: Instant,
    bars: MultiProgress,
    moving: RefCell<BTreeMap<&'static str, ProgressBar>>,
    tallies: RefCell<BTreeMap<&'static str, Tally>>,
    names: RefCell<Vec<(String, &'static str)>>,
    reading: Cell<(u64, u64)>,
}

/// What one hoster did.
#[derive(Clone, Default)]
pub struct Tally {
    fetched: (u64, u64),
    proofs: Vec<Made>,
    proven: usize,
}

#[derive(Clone, Copy)]
struct Made {
    bytes: u32,
    micros_make: u64,
    micros_check: u64,
}

impl Stage {
    /// An empty screen; time counts from now.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            bars: MultiProgress::new(),
            moving: RefCell::default(),
            tallies: RefCell::default(),
            names: RefCell::default(),
            reading: Cell::default(),
        }
    }

    /// Writes a line.
    pub fn tell(&self, who: &str, what: impl Display) {
        let line = format!("{:>6.1} s  {who:<9} {what}", self.start.elapsed().as_secs_f64());
        self.bars.suspend(|| crate::show::say(line));
    }

    /// Calls whoever has this address by a name.
    pub fn name(&self, address: &str, name: &'static str) {
        self.names.borrow_mut().push((short(address), name));
    }

    /// Moves a bar, and removes it when it is full.
    pub fn advance(&self, who: &'static str, what: &str, at: u64, total: u64) {
        let mut moving = self.moving.borrow_mut();
        if at >= total {
            if let Some(bar) = moving.remove(who) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = moving.entry(who).or_insert_with(|| self.bars.add(bar(total, &format!("{who} {what}"))));
        bar.set_position(at);
    }

    /// Shows an event and counts it.
    pub fn show(&self, heard: Heard) {
        let Heard { who, event } = heard;
        if let Event::Fetching { bytes, total, .. } = event {
            return self.advance(who, "fetches", bytes, total);
        }
        if matches!(event, Event::Fetched { .. }) {
            self.advance(who, "fetches", 1, 1);
        }
        self.count(who, &event);
        if let Some(sentence) = story::sentence(&event) {
            let names = self.names.borrow();
            let named = names.iter().fold(sentence, |text, (address, name)| text.replace(address, name));
            self.tell(who, named);
        }
    }

    fn count(&self, who: &'static str, event: &Event) {
        let mut tallies = self.tallies.borrow_mut();
        let tally = tallies.entry(who).or_default();
        match *event {
            Event::Fetched { fetched, millis, .. } => tally.fetched = (fetched, millis),
            Event::ProofMade { bytes, micros_make, micros_check, .. } => {
                tally.proofs.push(Made { bytes, micros_make, micros_check });
            }
            Event::ProofOnLedger { .. } => tally.proven += 1,
            _ => {}
        }
    }

    /// Proofs of a hoster that are on the ledger.
    pub fn proven(&self, who: &str) -> usize {
        self.tallies.borrow().get(who).map_or(0, |tally| tally.proven)
    }

    /// What a hoster did.
    pub fn tally(&self, who: &str) -> Tally {
        self.tallies.borrow().get(who).cloned().unwrap_or_default()
    }

    /// Notes what the reader read.
    pub fn read_back(&self, bytes: u64, millis: u64) {
        self.reading.set((bytes, millis));
    }

    /// What the reader read, and how fast.
    pub fn reading(&self) -> String {
        let (read, millis) = self.reading.get();
        format!("{} in {}, {} a second", bytes(read), story::span(millis), bytes(story::per_second(read, millis)))
    }

    /// Milliseconds since the beginning.
    pub fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Tally {
    /// `90.1 MiB/s`
    pub fn speed(&self) -> String {
        let (fetched, millis) = self.fetched;
        format!("{}/s", bytes(story::per_second(fetched, millis)))
    }

    /// The middle of its proofs' sizes.
    pub fn proof_size(&self) -> String {
        bytes(self.middle(|made| made.bytes.into()))
    }

    /// The middle of the times to make a proof.
    pub fn make_time(&self) -> String {
        millis(self.middle(|made| made.micros_make) as f64 / 1e3)
    }

    /// The middle of the times to check a proof.
    pub fn check_time(&self) -> String {
        millis(self.middle(|made| made.micros_check) as f64 / 1e3)
    }

    fn middle(&self, of: impl Fn(&Made) -> u64) -> u64 {
        let mut all: Vec<u64> = self.proofs.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    }
}
