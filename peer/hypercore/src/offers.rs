//! Which blocks a remote has, as far as it told: kept by its session, looked at by all who plan downloads.
//!
//! Most remotes have everything from the start, which is one number. For the others a bitfield is kept, in memory that is
//! granted out of one [`Room`] for the whole connection: a remote can't make us remember more than that.

use crate::blocks::{Blocks, PAGE};
use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Pages of a bitfield that are kept for one feed: 2^23 blocks, 1 MiB.
pub const MAX_PAGES: usize = 256;
/// Bytes for all feeds of one connection.
pub const ROOM: usize = 16 << 20;
/// Bytes for all connections of a network.
pub const MEMORY: usize = 256 << 20;
/// Single blocks that were refused or dropped; after so many the remote is not asked any more.
pub const MAX_REFUSED: usize = 1024;
/// Bytes that one of them takes, about.
const REFUSED: usize = 32;

/// Bytes that are left for what all remotes of a network say to have. Clones share them.
#[derive(Clone, Debug)]
pub struct Memory(Arc<AtomicUsize>);

/// Bytes that a connection may take of them. Clones share them.
#[derive(Clone, Debug)]
pub struct Room {
    own: Memory,
    all: Memory,
}

impl Memory {
    fn new(bytes: usize) -> Memory {
        Memory(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }

    #[cfg(test)]
    fn left(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new(MEMORY)
    }
}

impl Room {
    /// The room of one connection.
    pub fn of(all: &Memory) -> Room {
        Room { own: Memory::new(ROOM), all: all.clone() }
    }

    fn take(&self, bytes: usize) -> bool {
        let granted = self.own.take(bytes);
        let taken = granted && self.all.take(bytes);
        if granted && !taken {
            self.own.give_back(bytes);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.own.give_back(bytes);
        self.all.give_back(bytes);
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::of(&Memory::default())
    }
}

/// The blocks that a remote offers. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Offers(Arc<Mutex<Has>>);

#[derive(Debug, Default)]
struct Has {
    /// All before this one.
    upto: u64,
    more: Blocks,
    /// But not these.
    refused: BTreeSet<u64>,
    /// There was no room for one more of them.
    exhausted: bool,
    room: Room,
}

impl Offers {
    /// Nothing yet; what comes takes its memory from `room`.
    pub fn new(room: Room) -> Offers {
        let (more, refused) = (Blocks::default(), BTreeSet::new());
        Offers(Arc::new(Mutex::new(Has { upto: 0, more, refused, exhausted: false, room })))
    }

    /// Whether the remote has a block.
    pub fn contains(&self, block: u64) -> bool {
        self.lock().contains(block)
    }

    /// Whether the remote has the first `length` blocks without exception.
    pub fn is_whole(&self, length: u64) -> bool {
        let has = self.lock();
        has.upto >= length && has.refused.is_empty() && !has.exhausted
    }

    /// The first block of a range that the remote has.
    pub fn next(&self, range: Range<u64>) -> Option<u64> {
        self.lock().next(range)
    }

    /// The first block of a range that the remote has and is not among these.
    pub fn next_news(&self, range: Range<u64>, have: &Blocks) -> Option<u64> {
        self.lock().next_news(range, have)
    }

    /// It has all blocks before this one, but for those that it refused.
    pub fn upto(&self) -> u64 {
        self.lock().upto
    }

    /// What the remote has of a range beyond its first gap is not remembered any more.
    pub fn forget(&self, range: Range<u64>) {
        self.lock().forget(range);
    }

    /// Whether the remote refused so much that it is of no use.
    pub fn is_exhausted(&self) -> bool {
        self.lock().exhausted
    }

    /// The remote does not give a block that it should have.
    pub fn refuse(&self, block: u64) {
        self.lock().refuse(block);
    }

    /// What was refused may be offered again.
    pub fn forgive(&self) {
        self.lock().forgive(0..u64::MAX);
    }

    /// The remote has a range of blocks.
    pub fn gain(&self, start: u64, length: u64) {
        self.lock().gain(start, length);
    }

    /// The remote says for each block of a range whether it has it.
    pub fn learn(&self, start: u64, words: &[u32]) {
        self.lock().learn(start, words);
    }

    /// The remote has a range of blocks no longer.
    pub fn lose(&self, start: u64, length: u64) {
        self.lock().lose(start, length);
    }

    fn lock(&self) -> MutexGuard<'_, Has> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Has {
    fn contains(&self, block: u64) -> bool {
        (block < self.upto || self.more.contains(block)) && !self.refused.contains(&block)
    }

    fn next(&self, range: Range<u64>) -> Option<u64> {
        self.next_news(range, &Blocks::default())
    }

    fn next_news(&self, range: Range<u64>, have: &Blocks) -> Option<u64> {
        let mut at = range.start;
        while at < range.end {
            at = have.first_missing(at..range.end)?;
            let found = if at < self.upto { Some(at) } else { self.more.first_beyond(have, at..range.end) };
            match found {
                Some(block) if self.refused.contains(&block) => at = block + 1,
                found => return found.filter(|block| *block < range.end),
            }
        }
        None
    }

    /// Changes a page, if there is memory for what may become of it; says whether there was.
    fn change(&mut self, page: u64, change: impl FnOnce(&mut Blocks)) -> bool {
        let (before, most) = (self.more.bytes(), self.more.growth(page));
        let new = self.more.first_present(page * PAGE..(page + 1).saturating_mul(PAGE)).is_none();
        if new && self.more.pages() >= MAX_PAGES || !self.room.take(most) {
            return false;
        }
        change(&mut self.more);
        self.room.give_back(before + most - self.more.bytes());
        true
    }

    /// Takes blocks of one page out; all of them, if there is no memory to tell them apart.
    fn take_out(&mut self, blocks: Range<u64>) {
        let page = blocks.start / PAGE;
        if !self.change(page, |more| more.remove_range(blocks)) {
            let before = self.more.bytes();
            self.more.remove_range(page * PAGE..(page + 1).saturating_mul(PAGE));
            self.room.give_back(before - self.more.bytes());
        }
    }

    fn refuse(&mut self, block: u64) {
        if self.refused.contains(&block) {
            return;
        }
        match self.refused.len() < MAX_REFUSED && self.room.take(REFUSED) {
            true => _ = self.refused.insert(block),
            false => self.exhausted = true,
        }
    }

    fn forgive(&mut self, blocks: Range<u64>) {
        let back: Vec<u64> = self.refused.range(blocks).copied().collect();
        back.iter().for_each(|block| _ = self.refused.remove(block));
        self.room.give_back(REFUSED * back.len());
        self.exhausted &= back.is_empty();
    }

    fn gain(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if end <= start {
            return;
        }
        self.forgive(start..end);
        self.add(start, end);
    }

    fn add(&mut self, start: u64, end: u64) {
        if start <= self.upto {
            self.upto = self.upto.max(end);
            return;
        }
        // Only as far as memory is granted; the rest can be asked for later.
        let mut at = start;
        while let Some(block) = self.more.first_missing(at..end) {
            let stop = end.min((block / PAGE + 1).saturating_mul(PAGE));
            if !self.change(block / PAGE, |more| more.insert_range(block..stop)) {
                return;
            }
            at = stop;
        }
    }

    fn learn(&mut self, start: u64, words: &[u32]) {
        // A bitfield is the whole truth about its range.
        let end = start.saturating_add(32 * words.len() as u64);
        self.forgive(start..end);
        let behind = end..self.upto;
        self.upto = self.upto.min(start);
        let mut words = words;
        let mut at = start;
        while !words.is_empty() {
            let within = ((PAGE - at % PAGE) / 32) as usize;
            let (page, rest) = words.split_at(within.min(words.len()));
            let end = at + 32 * page.len() as u64;
            if !self.change(at / PAGE, |more| more.set_words(at, page)) {
                self.take_out(at..end);
            }
            (words, at) = (rest, end);
        }
        // Nothing was said of what comes after it.
        self.add(behind.start, behind.end);
    }

    fn lose(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if length == 1 && !self.exhausted {
            self.refuse(start);
            return;
        }
        self.forget(start..end);
        self.upto = self.upto.min(start);
    }

    fn forget(&mut self, range: Range<u64>) {
        let mut at = range.start;
        // Only pages of which there is something.
        while let Some(block) = self.more.first_present(at..range.end) {
            let stop = range.end.min((block / PAGE + 1).saturating_mul(PAGE));
            self.take_out(block..stop);
            at = stop;
        }
    }
}

impl Drop for Has {
    fn drop(&mut self) {
        self.room.give_back(self.more.bytes() + REFUSED * self.refused.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::PAGE_BYTES;
    use proptest::prelude::*;

    #[test]
    fn a_bitfield_is_the_whole_truth_about_its_range() {
        let offers = Offers::default();
        offers.gain(0, 10);
        offers.learn(32, &[0b100]);
        assert_eq!((offers.next(0..100), offers.next(10..100)), (Some(0), Some(34)));
        offers.learn(0, &[0b1000]);
        assert_eq!((offers.next(0..32), offers.next(4..100)), (Some(3), Some(34)));
        assert!(!offers.is_whole(4) && offers.contains(3));
        // What comes after it stays.
        offers.gain(0, 100);
        offers.learn(32, &[0]);
        assert_eq!((offers.next(30..100), offers.next(32..100), offers.next(100..200)), (Some(30), Some(64), None));
        offers.lose(0, 1000);
        // One that begins within a page.
        offers.learn(PAGE - 32, &[1, 1]);
        assert_eq!((offers.next(100..PAGE), offers.next(PAGE..2 * PAGE)), (Some(PAGE - 32), Some(PAGE)));
    }

    #[test]
    fn all_feeds_of_a_connection_share_its_room() {
        let room = Room::default();
        let many: Vec<Offers> = (0..20).map(|_| Offers::new(room.clone())).collect();
        for offers in &many {
            (0..300).for_each(|page| offers.gain(PAGE * page + 5, 1));
        }
        let bytes = |offers: &Offers| offers.lock().more.bytes();
        let taken = many.iter().map(bytes).sum::<usize>();
        assert!(taken <= ROOM && taken > ROOM - 2 * PAGE_BYTES, "{taken}");
        assert!(many[0].contains(5 + PAGE) && !many[19].contains(5));
        // What it has no longer leaves room for something else.
        many[0].lose(0, 1 << 40);
        many[19].gain(5, 1);
        assert!(many[19].contains(5) && !many[0].contains(5 + PAGE));
        drop(many);
        assert_eq!(room.own.left(), ROOM);
    }

    #[test]
    fn all_connections_share_the_memory_of_the_network() {
        let memory = Memory::new(20 << 20);
        let rooms = [Room::of(&memory), Room::of(&memory)];
        let many: Vec<Offers> = (0..40).map(|n| Offers::new(rooms[n % 2].clone())).collect();
        for offers in &many {
            (0..300).for_each(|page| offers.gain(PAGE * page + 5, 1));
        }
        let taken = many.iter().map(|offers| offers.lock().more.bytes()).sum::<usize>();
        assert!(taken <= 20 << 20 && taken > (20 << 20) - 2 * PAGE_BYTES, "{taken}");
        assert_eq!(rooms.iter().map(|room| ROOM - room.own.left()).sum::<usize>(), taken);
        drop(many);
        assert_eq!((memory.left(), rooms[0].own.left()), (20 << 20, ROOM));
    }

    #[test]
    fn whole_pages_take_next_to_nothing() {
        let room = Room::default();
        let many: Vec<Offers> = (0..200).map(|_| Offers::new(room.clone())).collect();
        many.iter().for_each(|offers| offers.gain(PAGE, PAGE * MAX_PAGES as u64));
        assert!(many.iter().all(|offers| offers.contains(PAGE * MAX_PAGES as u64)));
        assert!(room.own.left() > ROOM / 2);
    }

    #[test]
    fn without_room_it_counts_for_less_than_it_has() {
        let room = Room::default();
        let offers = Offers::new(room.clone());
        offers.gain(PAGE, 2 * PAGE);
        room.take(room.own.left());
        offers.lose(PAGE + 7, 2);
        assert_eq!(offers.next(0..4 * PAGE), Some(2 * PAGE), "its bits would need room");
        offers.refuse(2 * PAGE);
        assert!(!offers.is_exhausted(), "the page left some");
        room.take(room.own.left());
        offers.refuse(2 * PAGE + 1);
        assert!(offers.is_exhausted(), "it would be asked again and again");
        offers.gain(2 * PAGE, 1);
        assert!(!offers.is_exhausted());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn what_a_remote_announces_takes_bounded_memory(
            ranges in proptest::collection::vec((any::<bool>(), 0..1u64 << 53, 0..1u64 << 53), 0..40),
        ) {
            let offers = Offers::default();
            for (drop, start, length) in ranges {
                match drop {
                    true => offers.lose(start, length),
                    false => offers.gain(start, length),
                }
                offers.learn(start / 32 * 32, &[7; 64]);
            }
            let has = offers.lock();
            prop_assert!(has.more.pages() <= MAX_PAGES && has.refused.len() <= MAX_REFUSED);
            let taken = has.more.bytes() + REFUSED * has.refused.len();
            prop_assert_eq!(has.room.own.left(), ROOM - taken);
        }
    }
}
