//! What is wanted of a feed, by whom and how urgently. Tens of thousands may read a block each, so that what is complete costs
//! next to nothing, and who wants a block is found without a look at all of them.

use super::{MAX_LOOKS, Want, mixed};
use crate::blocks::Blocks;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// Blocks of which the rarest is asked.
const CANDIDATES: usize = 4;
/// Complete wants that are looked at again each time: what was here may have been found damaged.
const LOOKED_AT_AGAIN: usize = 2;

/// By urgency (0 comes first) and who it is.
type Key = (u8, u64);

/// Everything that is wanted.
#[derive(Debug, Default)]
pub(super) struct Wants {
    all: BTreeMap<Key, Open>,
    /// Those of which a block may be neither here nor asked for.
    busy: BTreeSet<Key>,
    /// Those of one block, by that, and all others.
    single: BTreeSet<(u64, Key)>,
    longer: BTreeSet<Key>,
    /// Where the next look at complete ones begins.
    look: Key,
}

#[derive(Debug)]
struct Open {
    want: Want,
    /// Every wanted block before this one is here, was asked, or is to be asked again.
    next: u64,
}

impl Wants {
    pub fn insert(&mut self, who: u64, want: Want, urgent: bool) {
        let (key, next) = ((u8::from(!urgent), who), want.blocks.start);
        match single(&want) {
            Some(block) => _ = self.single.insert((block, key)),
            None => _ = self.longer.insert(key),
        }
        self.busy.insert(key);
        self.all.insert(key, Open { want, next });
    }

    /// Takes it out; returns its blocks.
    pub fn remove(&mut self, who: u64) -> Option<Range<u64>> {
        let (key, open) = [(0, who), (1, who)].into_iter().find_map(|key| Some((key, self.all.remove(&key)?)))?;
        match single(&open.want) {
            Some(block) => _ = self.single.remove(&(block, key)),
            None => _ = self.longer.remove(&key),
        }
        self.busy.remove(&key);
        Some(open.want.blocks)
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether newer heads are wanted.
    pub fn follow(&self) -> bool {
        self.all.values().any(|open| open.want.follow)
    }

    pub fn contains(&self, block: u64) -> bool {
        self.has(block, 1)
    }

    /// Whether a reader waits for the block.
    pub fn is_urgent(&self, block: u64) -> bool {
        self.has(block, 0)
    }

    /// Whether a reader waits for any.
    pub fn are_urgent(&self) -> bool {
        self.all.keys().next().is_some_and(|(urgency, _)| *urgency == 0)
    }

    /// Whether the block is wanted that urgently, or more.
    fn has(&self, block: u64, urgency: u8) -> bool {
        let mut single = self.single.range((block, (0, 0))..=(block, (urgency, u64::MAX)));
        let mut longer = self.longer.range(..=(urgency, u64::MAX));
        single.next().is_some() || longer.any(|key| self.all[key].want.blocks.contains(&block))
    }

    /// The first block that `find` finds in what is wanted of a range, that urgently or more.
    pub fn first(&self, urgency: u8, range: &Range<u64>, find: impl Fn(Range<u64>) -> Option<u64>) -> Option<u64> {
        let within = |blocks: &Range<u64>| find(overlap(blocks, range));
        let longer = self.longer.range(..=(urgency, u64::MAX)).filter_map(|key| within(&self.all[key].want.blocks));
        let mut single = self.single.range((range.start, (0, 0))..(range.end.max(range.start), (0, 0)));
        let single = single.find_map(|(block, key)| within(&(*block..block + 1)).filter(|_| key.0 <= urgency));
        longer.chain(single).min()
    }

    /// The next block of this urgency that a peer offers and nobody was asked for.
    pub fn in_order(
        &mut self,
        urgency: u8,
        length: u64,
        have: &Blocks,
        is_asked: impl Fn(u64) -> bool,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        self.look_again(length, have, &is_asked);
        let mut complete = Vec::new();
        let found = self.busy.range((urgency, 0)..=(urgency, u64::MAX)).find_map(|key| {
            let open = self.all.get_mut(key)?;
            let found = open.next_block(length, have, &is_asked, &offer);
            if found.is_none() && open.is_complete(length, have, &is_asked) {
                complete.push(*key);
            }
            found
        });
        complete.iter().for_each(|key| _ = self.busy.remove(key));
        found
    }

    /// Looks whether some that were complete still are: at a few, or at many if there is nothing else to do.
    fn look_again(&mut self, length: u64, have: &Blocks, is_asked: impl Fn(u64) -> bool) {
        let count = if self.busy.is_empty() { MAX_LOOKS } else { LOOKED_AT_AGAIN };
        let (from, all) = (self.look, &self.all);
        let mut keys = all.range(from..).chain(all.range(..from)).map(|(key, open)| (*key, open));
        let looked = keys.by_ref().take(count).filter(|(_, open)| !open.is_complete(length, have, &is_asked));
        self.busy.extend(looked.map(|(key, _)| key));
        self.look = keys.next().map_or((0, 0), |(key, _)| key);
    }

    /// Some blocks of one of them that a peer offers and nobody was asked for, from anywhere.
    pub fn some_blocks(
        &self,
        length: u64,
        have: &Blocks,
        is_asked: impl Fn(u64) -> bool,
        offer: impl Fn(Range<u64>) -> Option<u64>,
        dice: u64,
    ) -> impl Iterator<Item = u64> {
        let open = self.busy.last().and_then(|key| self.all.get(key));
        let wanted = open.map_or(0..0, |open| open.blocks(length).start.max(open.next)..open.blocks(length).end);
        let count = wanted.end.saturating_sub(wanted.start).max(1);
        (0..CANDIDATES as u64).filter_map(move |n| {
            let from = wanted.start + mixed(dice.wrapping_mul(CANDIDATES as u64).wrapping_add(n)) % count;
            let block = offer(have.first_missing(from..wanted.end)?..wanted.end)?;
            (!have.contains(block) && !is_asked(block)).then_some(block)
        })
    }
}

impl Open {
    /// The wanted blocks of a head of `length` blocks.
    fn blocks(&self, length: u64) -> Range<u64> {
        self.want.blocks.start.min(length)..self.want.blocks.end.min(length)
    }

    fn first_missing(&self, length: u64, have: &Blocks) -> Option<u64> {
        let wanted = self.blocks(length);
        have.first_missing(wanted.start.max(have.contiguous().min(wanted.end))..wanted.end)
    }

    /// The next block that a peer offers and nobody was asked for.
    fn next_block(
        &mut self,
        length: u64,
        have: &Blocks,
        is_asked: impl Fn(u64) -> bool,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        // What was here may have been found damaged.
        if let Some(first) = self.first_missing(length, have).filter(|first| *first < self.next && !is_asked(*first)) {
            self.next = first;
        }
        let wanted = self.blocks(length);
        let (mut at, mut skipped) = (self.next.max(wanted.start), false);
        for _ in 0..MAX_LOOKS {
            let missing = have.first_missing(at..wanted.end);
            let block = missing.and_then(|missing| offer(missing..wanted.end));
            skipped |= block != missing;
            at = block.map_or(wanted.end, |block| block + 1);
            if !skipped {
                self.next = at;
            }
            match block {
                Some(block) if have.contains(block) || is_asked(block) => {}
                found => return found,
            }
        }
        None
    }

    /// Whether all of it is here, was asked, or is to be asked again; no more of it comes if the head grows.
    fn is_complete(&self, length: u64, have: &Blocks, is_asked: impl Fn(u64) -> bool) -> bool {
        let end = self.want.blocks.end;
        end <= length && self.next >= end && self.first_missing(length, have).is_none_or(is_asked)
    }
}

/// The blocks that are in both ranges.
pub fn overlap(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

fn single(want: &Want) -> Option<u64> {
    (want.blocks.start.checked_add(1) == Some(want.blocks.end)).then_some(want.blocks.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    fn everything(range: Range<u64>) -> Option<u64> {
        (range.start < range.end).then_some(range.start)
    }

    #[test]
    fn ten_thousand_readers_of_a_block_are_not_all_looked_at_for_each_of_them() {
        const BLOCKS: u64 = 10_000;
        let (mut wants, mut have, mut asked) = (Wants::default(), Blocks::default(), BTreeSet::new());
        let looks = Cell::new(0);
        (0..BLOCKS).for_each(|who| {
            let block = who * 7 % BLOCKS;
            wants.insert(who, Want::blocks(block..block + 1), false);
        });
        for who in 0.. {
            let is_asked = |block: u64| {
                looks.set(looks.get() + 1);
                asked.contains(&block)
            };
            let Some(block) = wants.in_order(1, BLOCKS, &have, is_asked, everything) else { break };
            assert_eq!(block, who * 7 % BLOCKS, "who wanted first comes first");
            // It comes later.
            asked.insert(block);
            if let Some(first) = asked.first().copied().filter(|_| asked.len() > 64) {
                asked.remove(&first);
                have.insert(first);
            }
        }
        assert_eq!(have.count() + asked.len() as u64, BLOCKS);
        assert!(looks.get() < 10 * BLOCKS, "{}", looks.get());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want { blocks: Range<u64>, urgent: bool },
        Unwant(usize),
        Come,
        Lose(u64),
        Grow,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40u64, prop_oneof![Just(1), 0..9u64], any::<bool>())
                .prop_map(|(start, len, urgent)| Step::Want { blocks: start..start + len, urgent }),
            1 => any::<usize>().prop_map(Step::Unwant),
            4 => Just(Step::Come),
            1 => (0..40u64).prop_map(Step::Lose),
            1 => Just(Step::Grow),
        ]
    }

    proptest! {
        #[test]
        fn all_that_somebody_wants_comes_and_nothing_else(steps in prop::collection::vec(step(), 1..200)) {
            let (mut wants, mut model) = (Wants::default(), BTreeMap::new());
            let (mut have, mut asked, mut length) = (Blocks::default(), BTreeSet::new(), 10);
            for (who, step) in (0..).zip(steps) {
                match step {
                    Step::Want { blocks, urgent } => {
                        wants.insert(who, Want::blocks(blocks.clone()), urgent);
                        model.insert(who, (blocks, urgent));
                    }
                    Step::Unwant(which) => {
                        let which = model.keys().nth(which % model.len().max(1)).copied().unwrap_or(who);
                        let blocks = model.remove(&which).map(|(blocks, _)| blocks);
                        prop_assert_eq!(wants.remove(which), blocks);
                        asked.retain(|block| wants.contains(*block));
                    }
                    Step::Come => _ = asked.pop_first().map(|block| have.insert(block)),
                    Step::Lose(block) => _ = have.remove(block),
                    Step::Grow => length = (length + 5).min(40),
                }
                for block in 0..48 {
                    let of = |urgent: bool| model.values().any(|(blocks, is)| blocks.contains(&block) && (*is || !urgent));
                    prop_assert_eq!((wants.contains(block), wants.is_urgent(block)), (of(false), of(true)));
                }
                let found = [0, 1].into_iter().find_map(|urgency| {
                    wants.in_order(urgency, length, &have, |block| asked.contains(&block), everything)
                });
                if let Some(block) = found {
                    prop_assert!(wants.contains(block) && block < length && !have.contains(block) && asked.insert(block));
                }
            }
            // In a few rounds all of it comes.
            for _ in 0..2 * model.len() + 48 {
                for urgency in [0, 1] {
                    let found = wants.in_order(urgency, length, &have, |block| asked.contains(&block), everything);
                    asked.extend(found);
                }
                _ = asked.pop_first().map(|block| have.insert(block));
            }
            prop_assert_eq!((0..length).find(|block| wants.contains(*block) && !have.contains(*block)), None);
        }
    }
}
