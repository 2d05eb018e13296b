//! What is wanted of a feed, and whom it was asked from: shared by all connections, without I/O and clock.
//!
//! Blocks are asked in order, each from one peer. One that is refused, or whose peer goes away, is asked
//! elsewhere; one that is late is asked from a second peer when that has nothing else to do.

use crate::blocks::Blocks;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

/// After this long a block may be asked from another peer as well.
const LATE: Duration = Duration::from_secs(5);
/// After this long without an answer a head is asked from another peer.
const LATE_HEAD: Duration = Duration::from_secs(10);
/// Blocks looked at for one request, so that a peer that has few of them costs little.
const MAX_LOOKS: usize = 4096;

/// One end of a connection.
pub type PeerId = u64;

/// What is wanted of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Blocks; those beyond the head count once it grows that far.
    pub blocks: Range<u64>,
    /// Newer heads too. The first head of a feed is always wanted.
    pub follow: bool,
}

impl Want {
    /// Everything there is and will be.
    pub fn all() -> Want {
        Want { blocks: 0..u64::MAX, follow: true }
    }

    /// Some blocks of the head that is known, or of the first one that a peer shows.
    pub fn blocks(blocks: Range<u64>) -> Want {
        Want { blocks, follow: false }
    }
}

/// The open questions about one feed.
#[derive(Debug)]
pub struct Plan {
    want: Want,
    asked: BTreeMap<u64, Ask>,
    /// Who was asked for a newer head.
    head: Option<(PeerId, Instant)>,
    /// Every wanted block before this one is here, was asked, or is in `again`.
    next: u64,
    /// Blocks to ask again.
    again: BTreeSet<u64>,
}

#[derive(Debug)]
struct Ask {
    first: PeerId,
    second: Option<PeerId>,
    since: Instant,
}

impl Plan {
    /// Nothing is asked yet.
    pub fn new(want: Want) -> Plan {
        let next = want.blocks.start;
        Plan { want, asked: BTreeMap::new(), head: None, next, again: BTreeSet::new() }
    }

    /// What is wanted.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// The wanted blocks of a head of `length` blocks.
    pub fn blocks(&self, length: u64) -> Range<u64> {
        self.want.blocks.start.min(length)..self.want.blocks.end.min(length)
    }

    /// The first wanted block of a head of `length` blocks that is not here.
    pub fn first_missing(&self, length: u64, have: &Blocks) -> Option<u64> {
        let wanted = self.blocks(length);
        have.first_missing(wanted.start.max(have.contiguous().min(wanted.end))..wanted.end)
    }

    /// Whether to ask `peer` for a newer head now; if so, that is noted.
    pub fn ask_head(&mut self, now: Instant, peer: PeerId, ours: u64) -> bool {
        let free = self.head.is_none_or(|(_, since)| now.duration_since(since) > LATE_HEAD);
        let ask = free && (ours == 0 || self.want.follow);
        if ask {
            self.head = Some((peer, now));
        }
        ask
    }

    /// The question for a head is settled, well or not.
    pub fn head_settled(&mut self, peer: PeerId) {
        self.head.take_if(|(asked, _)| *asked == peer);
    }

    /// The next block to ask from `peer`, now noted as asked. `offer` says which block of a range the peer has first.
    pub fn ask_block(
        &mut self,
        now: Instant,
        peer: PeerId,
        length: u64,
        have: &Blocks,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let wanted = self.blocks(length);
        let offered = |block: u64| offer(block..block + 1).is_some();
        // What came by another way in between needs no second question.
        self.again.retain(|block| !have.contains(*block));
        // What was here may have been found damaged.
        if let Some(first) = self.first_missing(length, have).filter(|first| *first < self.next)
            && !self.asked.contains_key(&first)
            && !self.again.contains(&first)
        {
            self.next = first;
        }
        let again = self.again.iter().copied().take(MAX_LOOKS).find(|block| offered(*block));
        let found = again.or_else(|| {
            let mut at = self.next.max(wanted.start);
            let mut skipped = false;
            for _ in 0..MAX_LOOKS {
                let missing = have.first_missing(at..wanted.end)?;
                let block = offer(missing..wanted.end)?;
                skipped |= block != missing;
                if !have.contains(block) && !self.asked.contains_key(&block) {
                    if !skipped {
                        self.next = block + 1;
                    }
                    return Some(block);
                }
                at = block + 1;
            }
            None
        });
        if let Some(block) = found {
            self.again.remove(&block);
            self.asked.insert(block, Ask { first: peer, second: None, since: now });
            return Some(block);
        }
        let late = |ask: &Ask| ask.first != peer && ask.second.is_none() && now.duration_since(ask.since) > LATE;
        let (block, ask) = self.asked.iter_mut().find(|(block, ask)| late(ask) && offered(**block))?;
        ask.second = Some(peer);
        Some(*block)
    }

    /// The block is here. Returns another peer that was asked for it and need not send it.
    pub fn arrived(&mut self, peer: PeerId, block: u64) -> Option<PeerId> {
        let ask = self.asked.remove(&block)?;
        self.again.remove(&block);
        [Some(ask.first), ask.second].into_iter().flatten().find(|other| *other != peer)
    }

    /// `peer` does not bring the block.
    pub fn failed(&mut self, peer: PeerId, block: u64) {
        let Some(ask) = self.asked.get_mut(&block) else { return };
        match (ask.first == peer, ask.second) {
            (true, Some(second)) => (ask.first, ask.second) = (second, None),
            (true, None) => {
                self.asked.remove(&block);
                self.again.insert(block);
            }
            (false, Some(second)) if second == peer => ask.second = None,
            _ => {}
        }
    }

    /// The connection is gone: all it was asked for is open again.
    pub fn gone(&mut self, peer: PeerId) {
        self.head_settled(peer);
        let open: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, ask)| ask.first == peer || ask.second == Some(peer))
            .map(|(b, _)| *b)
            .collect();
        open.into_iter().for_each(|block| self.failed(peer, block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_block_is_asked_twice_unless_it_is_late() {
        let (mut plan, start) = (Plan::new(Want::all()), Instant::now());
        let have = Blocks::default();
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        assert_eq!(plan.ask_block(start, 1, 2, &have, everything), Some(0));
        assert_eq!(plan.ask_block(start, 2, 2, &have, everything), Some(1));
        assert_eq!(plan.ask_block(start, 2, 2, &have, everything), None);
        let later = start + LATE + Duration::from_millis(1);
        assert_eq!(plan.ask_block(later, 2, 2, &have, everything), Some(0));
        assert_eq!(plan.ask_block(later, 3, 2, &have, everything), Some(1));
        assert_eq!(plan.ask_block(later, 3, 2, &have, everything), None);
        assert_eq!(plan.arrived(2, 0), Some(1));
        assert_eq!(plan.arrived(3, 1), Some(2));
    }

    #[test]
    fn what_a_lost_peer_was_asked_goes_to_the_others() {
        let (mut plan, now) = (Plan::new(Want::blocks(3..6)), Instant::now());
        let have = Blocks::default();
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        let ask = |plan: &mut Plan, peer| plan.ask_block(now, peer, 100, &have, everything);
        assert_eq!([ask(&mut plan, 1), ask(&mut plan, 1), ask(&mut plan, 1)], [Some(3), Some(4), Some(5)]);
        assert_eq!(ask(&mut plan, 2), None);
        plan.gone(1);
        assert_eq!([ask(&mut plan, 2), ask(&mut plan, 2), ask(&mut plan, 2)], [Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn only_one_peer_at_a_time_is_asked_for_a_head() {
        let (mut plan, now) = (Plan::new(Want::blocks(0..5)), Instant::now());
        assert!(plan.ask_head(now, 1, 0));
        assert!(!plan.ask_head(now, 2, 0));
        assert!(plan.ask_head(now + LATE_HEAD * 2, 2, 0));
        plan.head_settled(2);
        assert!(!plan.ask_head(now, 1, 7), "a fixed want follows no newer head");
    }

    proptest! {
        #[test]
        fn every_wanted_block_is_asked_from_who_has_it(
            owners in proptest::collection::vec(1..8u8, 1..200),
            bad in proptest::collection::vec(any::<bool>(), 600),
        ) {
            // Block i is at the peers whose bit is set in owners[i]; some answers fail at first.
            let (mut plan, now, mut have) = (Plan::new(Want::all()), Instant::now(), Blocks::default());
            let (length, mut bad) = (owners.len() as u64, bad.into_iter());
            for round in 0.. {
                prop_assert!(round < 2000, "the download does not end");
                let peer = round % 3;
                let offer = |range: Range<u64>| range.into_iter().find(|b| *b < length && owners[*b as usize] >> peer & 1 != 0);
                let Some(block) = plan.ask_block(now, peer, length, &have, offer) else {
                    if have.count() == length { break }
                    continue;
                };
                prop_assert!(!have.contains(block));
                match bad.next() {
                    Some(true) => plan.failed(peer, block),
                    _ => {
                        have.insert(block);
                        plan.arrived(peer, block);
                    }
                }
            }
        }
    }
}
