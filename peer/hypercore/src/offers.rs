//! Which blocks a remote has, as far as it told: kept by its session, looked at by all who plan downloads.
//!
//! Most remotes have everything from the start, which is one number. For the others a bitfield is kept, in pages that are
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
/// Pages for all feeds of one connection: 16 MiB.
pub const ROOM_PAGES: usize = 4096;
/// Single blocks that were refused or dropped; after so many the remote is not asked any more.
pub const MAX_REFUSED: usize = 1024;

/// What a connection has left for bitfields, in pages. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<AtomicUsize>);

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(AtomicUsize::new(ROOM_PAGES)))
    }
}

impl Room {
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |pages| pages.checked_sub(1)).is_ok()
    }

    fn give_back(&self, pages: usize) {
        self.0.fetch_add(pages, Ordering::AcqRel);
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
    room: Room,
}

impl Offers {
    /// Nothing yet; what comes takes its memory from `room`.
    pub fn new(room: Room) -> Offers {
        Offers(Arc::new(Mutex::new(Has { upto: 0, more: Blocks::default(), refused: BTreeSet::new(), room })))
    }

    /// Whether the remote has a block.
    pub fn contains(&self, block: u64) -> bool {
        self.lock().contains(block)
    }

    /// Whether the remote has the first `length` blocks without exception.
    pub fn is_whole(&self, length: u64) -> bool {
        let has = self.lock();
        has.upto >= length && has.refused.is_empty()
    }

    /// The first block of a range that the remote has.
    pub fn next(&self, range: Range<u64>) -> Option<u64> {
        self.lock().next(range)
    }

    /// Whether the remote refused so much that it is of no use.
    pub fn is_exhausted(&self) -> bool {
        self.lock().refused.len() >= MAX_REFUSED
    }

    /// The remote does not give a block that it should have.
    pub fn refuse(&self, block: u64) {
        let mut has = self.lock();
        if has.refused.len() < MAX_REFUSED {
            has.refused.insert(block);
        }
    }

    /// What was refused may be offered again.
    pub fn forgive(&self) {
        self.lock().refused.clear();
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
        let mut at = range.start;
        while at < range.end {
            let found = if at < self.upto { Some(at) } else { self.more.first_present(at..range.end) };
            match found {
                Some(block) if self.refused.contains(&block) => at = block + 1,
                found => return found.filter(|block| *block < range.end),
            }
        }
        None
    }

    /// Whether there is memory for a page.
    fn grant(&self, page: u64) -> bool {
        self.more.has_page(page) || self.more.pages() < MAX_PAGES && self.room.take()
    }

    fn forgive(&mut self, start: u64, end: u64) {
        let back: Vec<u64> = self.refused.range(start..end).copied().collect();
        for block in back {
            self.refused.remove(&block);
        }
    }

    fn gain(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if end <= start {
            return;
        }
        self.forgive(start, end);
        if start <= self.upto {
            self.upto = self.upto.max(end);
            return;
        }
        // Only as far as memory is granted; the rest can be asked for later.
        let mut block = start;
        while block < end && self.grant(block / PAGE) {
            let stop = end.min((block / PAGE + 1) * PAGE);
            self.more.insert_range(block..stop);
            block = stop;
        }
    }

    fn learn(&mut self, start: u64, words: &[u32]) {
        // A bitfield is the whole truth about its range.
        let end = start.saturating_add(32 * words.len() as u64);
        self.forgive(start, end);
        if start < self.upto {
            self.upto = start;
        }
        let mut words = words;
        let mut at = start;
        while !words.is_empty() {
            let within = ((PAGE - at % PAGE) / 32) as usize;
            let (page, rest) = words.split_at(within.min(words.len()));
            if self.grant(at / PAGE) {
                self.more.set_words(at, page);
            }
            (words, at) = (rest, at + 32 * page.len() as u64);
        }
    }

    fn lose(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if length == 1 && self.refused.len() < MAX_REFUSED {
            self.refused.insert(start);
            return;
        }
        self.more.remove_range(start..end);
        self.upto = self.upto.min(start);
    }
}

impl Drop for Has {
    fn drop(&mut self) {
        self.room.give_back(self.more.pages());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let pages = |offers: &Offers| offers.lock().more.pages();
        assert_eq!(many.iter().map(pages).sum::<usize>(), ROOM_PAGES);
        assert!(many[0].contains(5 + PAGE) && !many[19].contains(5));
        drop(many);
        assert_eq!(room.0.load(Ordering::Acquire), ROOM_PAGES);
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
        }
    }
}
