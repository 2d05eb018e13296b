//! Which blocks somebody has: a sparse set of block numbers, in pages.
//!
//! On disk and on the wire a set is a bitfield: bit `i % 8` of byte `i / 8` stands for block `i`.

use std::{collections::BTreeMap, ops::Range};

/// Blocks of one page.
pub const PAGE: u64 = 1 << 15;
/// Bytes of one page.
pub const PAGE_BYTES: usize = PAGE as usize / 8;
const WORDS: usize = PAGE as usize / 64;

/// A set of blocks. Memory goes by the pages (4 KiB for 32,768 blocks) that have a block at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    pages: BTreeMap<u64, Box<[u64; WORDS]>>,
    count: u64,
    /// All blocks before this one are in the set; it is the first that is not.
    contiguous: u64,
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

    /// Whether a page is in memory.
    pub fn has_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        block < self.contiguous || self.word(block / 64) >> (block % 64) & 1 != 0
    }

    /// Adds a block; says whether it is new.
    pub fn insert(&mut self, block: u64) -> bool {
        let page = self.pages.entry(block / PAGE).or_insert_with(|| Box::new([0; WORDS]));
        let word = &mut page[(block % PAGE / 64) as usize];
        let new = *word >> (block % 64) & 1 == 0;
        *word |= 1 << (block % 64);
        self.count += u64::from(new);
        if block == self.contiguous {
            self.contiguous = self.first_missing(block..u64::MAX).unwrap_or(u64::MAX);
        }
        new
    }

    /// Takes a block out; says whether it was there.
    pub fn remove(&mut self, block: u64) -> bool {
        let Some(page) = self.pages.get_mut(&(block / PAGE)) else { return false };
        let word = &mut page[(block % PAGE / 64) as usize];
        let there = *word >> (block % 64) & 1 != 0;
        *word &= !(1 << (block % 64));
        self.count -= u64::from(there);
        self.contiguous = if there { self.contiguous.min(block) } else { self.contiguous };
        there
    }

    /// Adds all blocks of a range.
    pub fn insert_range(&mut self, range: Range<u64>) {
        for (number, mask) in masks(range) {
            let page = self.pages.entry(number / WORDS as u64).or_insert_with(|| Box::new([0; WORDS]));
            let word = &mut page[(number % WORDS as u64) as usize];
            self.count += u64::from((mask & !*word).count_ones());
            *word |= mask;
        }
        self.contiguous = self.first_missing(self.contiguous..u64::MAX).unwrap_or(u64::MAX);
    }

    /// Takes all blocks of a range out.
    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for (page, words) in self.pages.range_mut(range.start / PAGE..=(range.end - 1) / PAGE) {
            let within = range.start.max(page * PAGE)..range.end.min((page + 1) * PAGE);
            for (number, mask) in masks(within) {
                let word = &mut words[(number % WORDS as u64) as usize];
                self.count -= u64::from((mask & *word).count_ones());
                *word &= !mask;
            }
        }
        self.contiguous = if range.start < self.contiguous { range.start } else { self.contiguous };
    }

    /// The first block of the range that is not in the set.
    pub fn first_missing(&self, range: Range<u64>) -> Option<u64> {
        let mut block = range.start;
        // Within one page at a time; a page that is not there misses its first block.
        while block < range.end {
            let Some(page) = self.pages.get(&(block / PAGE)) else { return Some(block) };
            for at in (block % PAGE / 64) as usize..WORDS {
                let base = block / PAGE * PAGE + at as u64 * 64;
                let skipped = if base < block { (1 << (block - base)) - 1 } else { 0 };
                let missing = !(page[at] | skipped);
                if missing != 0 {
                    return Some(base + u64::from(missing.trailing_zeros())).filter(|found| *found < range.end);
                }
            }
            block = (block / PAGE + 1).checked_mul(PAGE)?;
        }
        None
    }

    /// The first block of the range that is in the set.
    pub fn first_present(&self, range: Range<u64>) -> Option<u64> {
        if range.is_empty() {
            return None;
        }
        for (number, page) in self.pages.range(range.start / PAGE..=(range.end - 1) / PAGE) {
            for (at, word) in page.iter().enumerate() {
                let base = number * PAGE + at as u64 * 64;
                let skipped = match range.start.saturating_sub(base) {
                    0 => 0,
                    n if n < 64 => (1 << n) - 1,
                    _ => u64::MAX,
                };
                let present = word & !skipped;
                if present != 0 {
                    return Some(base + u64::from(present.trailing_zeros())).filter(|found| *found < range.end);
                }
            }
        }
        None
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

    /// How many blocks of the range are in the set.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        self.runs(range).map(|run| run.end - run.start).sum()
    }

    /// The bits of `start..start + 32 × words`; `start` is a multiple of 32.
    pub fn words(&self, start: u64, words: usize) -> Vec<u32> {
        (start / 32..).take(words).map(|half| (self.word(half / 2) >> (half % 2 * 32)) as u32).collect()
    }

    /// Overwrites from `start`, a multiple of 32, with the bits of `words`.
    pub fn set_words(&mut self, start: u64, words: &[u32]) {
        for (half, bits) in (start / 32..).zip(words) {
            let (first, shift) = (half * 32, half % 2 * 32);
            let page = self.pages.entry(first / PAGE).or_insert_with(|| Box::new([0; WORDS]));
            let word = &mut page[(first % PAGE / 64) as usize];
            let old = (*word >> shift) as u32;
            *word = *word & !(u64::from(u32::MAX) << shift) | u64::from(*bits) << shift;
            self.count = self.count + u64::from(bits.count_ones()) - u64::from(old.count_ones());
        }
        // What was contiguous before the first overwritten block still is.
        let from = self.contiguous.min(start);
        self.contiguous = self.first_missing(from..u64::MAX).unwrap_or(u64::MAX);
    }

    /// Adds the blocks of a bitfield that begins with block `start`, a multiple of 64.
    pub fn add_bits(&mut self, start: u64, bits: &[u8]) {
        for (number, bytes) in (start / 64..).zip(bits.chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            // Holes in a sparse file take no memory: a page is added only if it has a bit.
            if word != [0; 8] {
                let page = self.pages.entry(number / WORDS as u64).or_insert_with(|| Box::new([0; WORDS]));
                let old = &mut page[(number % WORDS as u64) as usize];
                let new = *old | u64::from_le_bytes(word);
                self.count += u64::from(new.count_ones() - old.count_ones());
                *old = new;
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
            for (chunk, word) in bytes.chunks_exact_mut(8).zip(page.iter()) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    fn word(&self, number: u64) -> u64 {
        self.pages.get(&(number / WORDS as u64)).map_or(0, |page| page[(number % WORDS as u64) as usize])
    }
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
    use std::collections::BTreeSet;

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
            prop_assert_eq!(blocks.contiguous(), (0..).find(|b| !model.contains(b)).unwrap_or(0));
            prop_assert_eq!(blocks.first_missing(range.clone()), range.clone().find(|b| !model.contains(b)));
            prop_assert_eq!(blocks.first_present(range.clone()), model.range(range.clone()).next().copied());
            prop_assert_eq!(blocks.count_in(range.clone()), model.range(range).count() as u64);
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
        }
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
