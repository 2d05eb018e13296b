//! Which blocks somebody has: a sparse set of block numbers, in pages.
//!
//! On disk and on the wire a set is a bitfield: bit `i % 8` of byte `i / 8` stands for block `i`.

use std::{collections::BTreeMap, ops::Range};

/// Blocks of one page.
pub const PAGE: u64 = 1 << 15;
/// Bytes of one page.
pub const PAGE_BYTES: usize = PAGE as usize / 8;
const WORDS: usize = PAGE as usize / 64;
/// Memory that a page takes besides its bits, about.
const ENTRY: usize = 64;

/// A set of blocks. Memory goes by the pages (4 KiB for 32,768 blocks) of which some blocks are in the set and some are not,
/// and so does the time that ranges take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// None of them is empty.
    pages: BTreeMap<u64, Page>,
    /// Pages with bits.
    mixed: usize,
    count: u64,
    /// All blocks before this one are in the set; it is the first that is not.
    contiguous: u64,
}

/// Only where `count` does not say all there are bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Page {
    count: u64,
    bits: Option<Box<[u64; WORDS]>>,
}

impl Blocks {
    /// How many blocks are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first block that is not in the set.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Pages in memory.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        ENTRY * self.pages.len() + PAGE_BYTES * self.mixed
    }

    /// Bytes that a page takes at most, beyond what it takes now.
    pub fn growth(&self, page: u64) -> usize {
        match self.pages.get(&page) {
            Some(Page { bits: Some(_), .. }) => 0,
            Some(_) => PAGE_BYTES,
            None => ENTRY + PAGE_BYTES,
        }
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        let page = || self.pages.get(&(block / PAGE));
        block < self.contiguous || page().is_some_and(|page| page.word(block % PAGE / 64) >> (block % 64) & 1 != 0)
    }

    /// Adds a block; says whether it is new.
    pub fn insert(&mut self, block: u64) -> bool {
        let new = self.set(block / PAGE, block % PAGE..block % PAGE + 1, true);
        if block == self.contiguous {
            self.contiguous = self.first_missing(block..u64::MAX).unwrap_or(u64::MAX);
        }
        new
    }

    /// Takes a block out; says whether it was there.
    pub fn remove(&mut self, block: u64) -> bool {
        self.contiguous = self.contiguous.min(block);
        self.pages.contains_key(&(block / PAGE)) && self.set(block / PAGE, block % PAGE..block % PAGE + 1, false)
    }

    /// Adds all blocks of a range.
    pub fn insert_range(&mut self, range: Range<u64>) {
        let mut block = range.start;
        while block < range.end {
            let (start, stop) = (block / PAGE * PAGE, range.end.min((block / PAGE + 1).saturating_mul(PAGE)));
            self.set(block / PAGE, block - start..stop - start, true);
            block = stop;
        }
        if range.contains(&self.contiguous) {
            self.contiguous = self.first_missing(range.end..u64::MAX).unwrap_or(u64::MAX);
        }
    }

    /// Takes all blocks of a range out.
    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut page = range.start / PAGE;
        while let Some((&number, _)) = self.pages.range(page..).next()
            && number * PAGE < range.end
        {
            let start = number * PAGE;
            self.set(number, range.start.saturating_sub(start)..PAGE.min(range.end - start), false);
            page = number + 1;
        }
        self.contiguous = self.contiguous.min(range.start);
    }

    /// The first block of the range that is not in the set.
    pub fn first_missing(&self, range: Range<u64>) -> Option<u64> {
        let mut block = range.start.max(self.contiguous);
        for (number, page) in self.pages.range(block / PAGE..) {
            // A page that is not there misses its first block.
            if block >= range.end || *number != block / PAGE {
                break;
            }
            if let Some(found) = page.first(block % PAGE, false) {
                block = number * PAGE + found;
                break;
            }
            block = (number + 1).checked_mul(PAGE)?;
        }
        Some(block).filter(|block| *block < range.end)
    }

    /// The first block of the range that is in the set.
    pub fn first_present(&self, range: Range<u64>) -> Option<u64> {
        if range.is_empty() {
            return None;
        }
        let mut pages = self.pages.range(range.start / PAGE..=(range.end - 1) / PAGE);
        let found = pages.find_map(|(number, page)| {
            let start = number * PAGE;
            page.first(range.start.saturating_sub(start), true).map(|found| start + found)
        });
        found.filter(|block| *block < range.end)
    }

    /// The first block of the range that is in the set, and not in another one.
    pub fn first_beyond(&self, other: &Blocks, range: Range<u64>) -> Option<u64> {
        let start = range.start.max(other.contiguous);
        if start >= range.end {
            return None;
        }
        let pages = self.pages.range(start / PAGE..=(range.end - 1) / PAGE);
        let mut found = pages.filter_map(|(number, page)| {
            let from = start.saturating_sub(number * PAGE);
            let found = page.first_beyond(other.pages.get(number), from)?;
            Some(number * PAGE + found)
        });
        found.next().filter(|block| *block < range.end)
    }

    /// The blocks of the range in runs, left to right.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = self.first_present(at..range.end)?;
            let end = self.first_missing(start..range.end).unwrap_or(range.end);
            at = end;
            Some(start..end)
        })
    }

    /// The blocks of the range that are not in the set, in runs, left to right.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = self.first_missing(at..range.end)?;
            at = self.first_present(start..range.end).unwrap_or(range.end);
            Some(start..at)
        })
    }

    /// How many blocks of the range are in the set.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let pages = self.pages.range(range.start / PAGE..=(range.end - 1) / PAGE);
        let counts = pages.map(|(number, page)| {
            let start = number * PAGE;
            page.count_in(range.start.saturating_sub(start)..PAGE.min(range.end - start))
        });
        counts.sum()
    }

    /// The bits of `start..start + 32 × words`; `start` is a multiple of 32.
    pub fn words(&self, start: u64, words: usize) -> Vec<u32> {
        let mut bits = vec![0; words];
        for (block, at) in by_page(start, words) {
            let Some(page) = self.pages.get(&(block / PAGE)) else { continue };
            for (half, bits) in (block % PAGE / 32..).zip(&mut bits[at]) {
                *bits = (page.word(half / 2) >> (half % 2 * 32)) as u32;
            }
        }
        bits
    }

    /// Overwrites from `start`, a multiple of 32, with the bits of `words`.
    pub fn set_words(&mut self, start: u64, words: &[u32]) {
        for (block, at) in by_page(start, words.len()) {
            self.change(block / PAGE, |page| {
                for (half, bits) in (block % PAGE / 32..).zip(&words[at]) {
                    let shift = half % 2 * 32;
                    page.overwrite(half / 2, u64::from(u32::MAX) << shift, u64::from(*bits) << shift);
                }
            });
        }
        // What was contiguous before the first overwritten block still is, and what was behind the last one.
        let (before, end) = (self.contiguous, start.saturating_add(32 * words.len() as u64));
        if start <= before {
            self.contiguous = start;
            self.contiguous = match self.first_missing(start..end) {
                Some(missing) => missing,
                None if before > end => before,
                None => self.first_missing(end..u64::MAX).unwrap_or(u64::MAX),
            };
        }
    }

    /// Adds the blocks of a bitfield that begins with block `start`, a multiple of 64.
    pub fn add_bits(&mut self, start: u64, bits: &[u8]) {
        for (number, bytes) in (start / 64..).zip(bits.chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            // Holes in a sparse file take no memory: a page is added only if it has a bit.
            if word != [0; 8] {
                let word = u64::from_le_bytes(word);
                self.change(number / WORDS as u64, |page| page.overwrite(number % WORDS as u64, word, word));
            }
        }
        self.contiguous = self.first_missing(self.contiguous..u64::MAX).unwrap_or(u64::MAX);
    }

    /// A block after which there is none in the set, nearly the last one; nothing if the set is empty.
    pub fn end(&self) -> Option<u64> {
        self.pages.last_key_value().map(|(page, _)| (page + 1).saturating_mul(PAGE))
    }

    /// One page as it is on disk.
    pub fn page(&self, number: u64) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        if let Some(page) = self.pages.get(&number) {
            for (chunk, at) in bytes.chunks_exact_mut(8).zip(0..) {
                chunk.copy_from_slice(&page.word(at).to_le_bytes());
            }
        }
        bytes
    }

    /// Adds or takes out blocks of one page, numbered within it. Whether that changed any.
    fn set(&mut self, number: u64, within: Range<u64>, there: bool) -> bool {
        self.change(number, |page| {
            let all = if there { PAGE } else { 0 };
            match within == (0..PAGE) {
                _ if page.count == all => {}
                true => *page = Page { count: all, bits: None },
                false => masks(within).for_each(|(at, mask)| page.overwrite(at, mask, if there { mask } else { 0 })),
            }
        })
    }

    /// Changes a page; says whether that changed the number of its blocks.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Page)) -> bool {
        let page = self.pages.entry(number).or_default();
        let (count, mixed) = (page.count, page.bits.is_some());
        change(page);
        page.bits.take_if(|_| page.count == 0 || page.count == PAGE);
        let (after, is_mixed) = (page.count, page.bits.is_some());
        self.count = self.count + after - count;
        self.mixed = self.mixed + usize::from(is_mixed) - usize::from(mixed);
        if after == 0 {
            self.pages.remove(&number);
        }
        after != count
    }
}

impl Page {
    fn word(&self, at: u64) -> u64 {
        match &self.bits {
            Some(bits) => bits[at as usize],
            None if self.count == 0 => 0,
            None => u64::MAX,
        }
    }

    /// Overwrites those bits of a word that are in the mask.
    fn overwrite(&mut self, at: u64, mask: u64, bits: u64) {
        #[cfg(test)]
        tests::look();
        let (old, rest) = (self.word(at), if self.count == 0 { 0 } else { u64::MAX });
        let new = old & !mask | bits;
        self.count = self.count + u64::from(new.count_ones()) - u64::from(old.count_ones());
        self.bits.get_or_insert_with(|| Box::new([rest; WORDS]))[at as usize] = new;
    }

    /// How many blocks are there, of those that are numbered so within the page.
    fn count_in(&self, within: Range<u64>) -> u64 {
        #[cfg(test)]
        tests::look();
        match &self.bits {
            _ if within == (0..PAGE) => self.count,
            None => self.count.min(within.end - within.start),
            Some(bits) => masks(within).map(|(at, mask)| u64::from((bits[at as usize] & mask).count_ones())).sum(),
        }
    }

    /// The first block from a block on, numbered within the page, that is there or that is not.
    fn first(&self, from: u64, there: bool) -> Option<u64> {
        #[cfg(test)]
        tests::look();
        let Some(bits) = &self.bits else { return (there == (self.count > 0)).then_some(from) };
        let mut skipped = u64::MAX << (from % 64);
        for (at, word) in bits.iter().enumerate().skip((from / 64) as usize) {
            #[cfg(test)]
            tests::look();
            let found = if there { *word } else { !word } & std::mem::replace(&mut skipped, u64::MAX);
            if found != 0 {
                return Some(at as u64 * 64 + u64::from(found.trailing_zeros()));
            }
        }
        None
    }

    /// The first block from a block on, numbered within the page, that is there and not in the other one.
    fn first_beyond(&self, other: Option<&Page>, from: u64) -> Option<u64> {
        let Some(other) = other else { return self.first(from, true) };
        if other.count == PAGE {
            return None;
        }
        let mut skipped = u64::MAX << (from % 64);
        (from / 64..WORDS as u64).find_map(|at| {
            #[cfg(test)]
            tests::look();
            let found = self.word(at) & !other.word(at) & std::mem::replace(&mut skipped, u64::MAX);
            (found != 0).then(|| at * 64 + u64::from(found.trailing_zeros()))
        })
    }
}

/// So many words of 32 blocks from block `start` on, cut where pages end: the first block of each part, and its words.
fn by_page(start: u64, words: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let block = start + 32 * at as u64;
        let end = words.min(at + ((PAGE - block % PAGE) / 32) as usize);
        (at < end).then(|| (block, std::mem::replace(&mut at, end)..end))
    })
}

/// The words of 64 blocks that a range touches, with its bits in them.
fn masks(range: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let words = if range.is_empty() { 0..0 } else { range.start / 64..range.end.div_ceil(64) };
    words.map(move |word| {
        let from = range.start.saturating_sub(word * 64);
        let to = (range.end - word * 64).min(64);
        (word, u64::MAX << from & u64::MAX >> (64 - to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{cell::Cell, collections::BTreeSet};

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Counts a look at a page, or at a word of it.
    pub(super) fn look() {
        LOOKS.set(LOOKS.get() + 1);
    }

    fn looks(work: impl FnOnce()) -> u64 {
        LOOKS.set(0);
        work();
        LOOKS.get()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_set_of_blocks_is_a_set(
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![0..200u64, 32_700..32_900u64, 0..1_000_000u64]), 1..300),
            spans in proptest::collection::vec((any::<bool>(), 0..300u64, prop_oneof![0..200u64, Just(33_000)]), 0..4),
            range in (0..33_000u64, 0..33_000u64),
        ) {
            let (mut blocks, mut model) = (Blocks::default(), BTreeSet::new());
            for (insert, block) in steps {
                match insert {
                    true => prop_assert_eq!(blocks.insert(block), model.insert(block)),
                    false => prop_assert_eq!(blocks.remove(block), model.remove(&block)),
                }
            }
            for (insert, start, len) in spans {
                match insert {
                    true => blocks.insert_range(start..start + len),
                    false => blocks.remove_range(start..start + len),
                }
                (start..start + len).for_each(|block| _ = if insert { model.insert(block) } else { model.remove(&block) });
            }
            let range = range.0..range.0 + range.1;
            prop_assert_eq!(blocks.count(), model.len() as u64);
            prop_assert_eq!(blocks.pages(), model.iter().map(|block| block / PAGE).collect::<BTreeSet<_>>().len());
            prop_assert_eq!(blocks.contiguous(), (0..).find(|b| !model.contains(b)).unwrap_or(0));
            prop_assert_eq!(blocks.first_missing(range.clone()), range.clone().find(|b| !model.contains(b)));
            prop_assert_eq!(blocks.first_present(range.clone()), model.range(range.clone()).next().copied());
            let beyond = |other: &Blocks| model.range(range.clone()).find(|block| !other.contains(**block)).copied();
            let mut other = Blocks::default();
            prop_assert_eq!(blocks.first_beyond(&other, range.clone()), beyond(&other));
            other.insert_range(range.start..range.start + 40);
            model.iter().step_by(2).for_each(|block| _ = other.insert(*block));
            prop_assert_eq!(blocks.first_beyond(&other, range.clone()), beyond(&other));
            prop_assert_eq!(blocks.first_beyond(&blocks, 0..u64::MAX), None);
            prop_assert_eq!(blocks.count_in(range.clone()), model.range(range.clone()).count() as u64);
            let missing = range.clone().filter(|block| !model.contains(block));
            prop_assert!(blocks.gaps(range.clone()).flatten().eq(missing));
            prop_assert_eq!(blocks.runs(0..u64::MAX).flatten().collect::<BTreeSet<_>>(), model);

            let mut copy = Blocks::default();
            copy.set_words(0, &blocks.words(0, 1 << 15));
            prop_assert_eq!(copy.runs(0..u64::MAX).collect::<Vec<_>>(), blocks.runs(0..u64::MAX).collect::<Vec<_>>());
            prop_assert_eq!((copy.count(), copy.contiguous()), (blocks.count(), blocks.contiguous()));

            let mut copy = Blocks::default();
            copy.insert(70);
            (0..40).for_each(|page| copy.add_bits(page * PAGE, &blocks.page(page)));
            blocks.insert(70);
            prop_assert_eq!(copy.runs(0..u64::MAX).collect::<Vec<_>>(), blocks.runs(0..u64::MAX).collect::<Vec<_>>());
            prop_assert_eq!((copy.count(), copy.contiguous()), (blocks.count(), blocks.contiguous()));
            prop_assert!(blocks.first_present(blocks.end().unwrap_or(0)..u64::MAX).is_none());
            prop_assert_eq!(&copy, &blocks, "a set looks the same however it was made");

            let start = range.start / 32 * 32;
            copy.set_words(start, &[0b1001, 0, u32::MAX]);
            blocks.remove_range(start..start + 96);
            [start, start + 3].into_iter().chain(start + 64..start + 96).for_each(|block| _ = blocks.insert(block));
            prop_assert_eq!(copy, blocks);
        }
    }

    #[test]
    fn a_range_costs_a_look_at_each_page() {
        const MANY: u64 = 256;
        let mut blocks = Blocks::default();
        blocks.insert_range(1..MANY * PAGE);
        // Words are looked at in the pages at both ends only.
        let few = MANY + 2 * WORDS as u64;
        for _ in 0..2 {
            assert!(looks(|| blocks.insert_range(1..MANY * PAGE)) < few, "all of it is there");
            assert!(looks(|| blocks.remove_range(PAGE..MANY * PAGE)) < few);
            assert_eq!(blocks.pages(), 1, "an empty page is none");
            assert!(looks(|| blocks.insert_range(PAGE..MANY * PAGE)) < few);
        }
        // One that is full takes no bits.
        assert!(blocks.bytes() < PAGE_BYTES + 100 * MANY as usize, "{}", blocks.bytes());
        blocks.insert(0);
        assert_eq!((blocks.contiguous(), blocks.mixed), (MANY * PAGE, 0));
        // Words in the midst of a long run.
        assert!(looks(|| blocks.set_words(64 * PAGE, &[u32::MAX])) < 10);
        assert_eq!(blocks.contiguous(), MANY * PAGE);
        assert!(looks(|| blocks.set_words(64 * PAGE, &[u32::MAX - 1])) < 10);
        assert_eq!(blocks.contiguous(), 64 * PAGE);
    }

    #[test]
    fn what_came_in_random_order_is_counted_with_a_look_at_each_page() {
        const MANY: u64 = 256;
        let mut blocks = Blocks::default();
        blocks.set_words(0, &vec![0x5555_5555; MANY as usize * 2 * WORDS]);
        blocks.insert_range(PAGE..2 * PAGE);
        let (range, mut count) = (1..MANY * PAGE - 1, 0);
        assert!(looks(|| count = blocks.count_in(range)) <= MANY);
        assert_eq!(count, (MANY + 1) * PAGE / 2 - 1);
    }

    #[test]
    fn long_runs_are_contiguous_across_pages() {
        let mut blocks = Blocks::default();
        (0..100_000).rev().for_each(|block| assert!(blocks.insert(block)));
        assert_eq!((blocks.contiguous(), blocks.count()), (100_000, 100_000));
        blocks.remove(40_000);
        assert_eq!(blocks.runs(0..u64::MAX).collect::<Vec<_>>(), [0..40_000, 40_001..100_000]);
    }
}
