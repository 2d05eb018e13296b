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
#[derive(Debug, Default)]
pub struct Plan {
    /// What is wanted, by urgency (0 is asked first) and who wants it.
    wants: BTreeMap<(u8, u64), Open>,
    asked: BTreeMap<u64, Ask>,
    /// Who was asked for a newer head.
    head: Option<(PeerId, Instant)>,
    /// Blocks to ask again.
    again: BTreeSet<u64>,
    /// Bytes whose block is looked for, and who was asked.
    seeks: BTreeMap<u64, Option<(PeerId, Instant)>>,
}

#[derive(Debug)]
struct Open {
    want: Want,
    /// Every wanted block before this one is here, was asked, or is in `again`.
    next: u64,
}

#[derive(Debug)]
struct Ask {
    first: PeerId,
    second: Option<PeerId>,
    since: Instant,
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
            let missing = have.first_missing(at..wanted.end)?;
            let block = offer(missing..wanted.end)?;
            skipped |= block != missing;
            if !have.contains(block) && !is_asked(block) {
                if !skipped {
                    self.next = block + 1;
                }
                return Some(block);
            }
            at = block + 1;
        }
        None
    }
}

impl Plan {
    /// Wants more. `who` is for [`Plan::unwant`]; what is urgent is asked before what is not.
    pub fn want(&mut self, who: u64, want: Want, urgent: bool) {
        let next = want.blocks.start;
        self.wants.insert((u8::from(!urgent), who), Open { want, next });
    }

    /// Wants it no longer. Answers that are under way are still taken.
    pub fn unwant(&mut self, who: u64) {
        self.wants.retain(|(_, other), _| *other != who);
        let wanted = |block: &u64| self.wants.values().any(|open| open.want.blocks.contains(block));
        self.again.retain(wanted);
    }

    /// Whether nothing is wanted. Who looks for a byte wants at least the head.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    /// For each want the first block of a head of `length` blocks that is not here.
    pub fn first_missing(&self, length: u64, have: &Blocks) -> Vec<u64> {
        self.wants.values().filter_map(|open| open.first_missing(length, have)).collect()
    }

    /// Whether to ask `peer` for a newer head now; if so, that is noted.
    pub fn ask_head(&mut self, now: Instant, peer: PeerId, ours: u64) -> bool {
        let free = self.head.is_none_or(|(_, since)| now.duration_since(since) > LATE_HEAD);
        let ask = free && (ours == 0 || self.wants.values().any(|open| open.want.follow));
        if ask {
            self.head = Some((peer, now));
        }
        ask
    }

    /// The question for a head is settled, well or not.
    pub fn head_settled(&mut self, peer: PeerId) {
        self.head.take_if(|(asked, _)| *asked == peer);
    }

    /// Looks for the block of a byte; whether nobody did so yet.
    pub fn seek(&mut self, byte: u64) -> bool {
        let new = !self.seeks.contains_key(&byte);
        self.seeks.entry(byte).or_default();
        new
    }

    /// A byte to ask `peer` about, now noted as asked. `how` says what to ask the peer, if it can help.
    pub fn ask_seek<T>(&mut self, now: Instant, peer: PeerId, how: impl Fn(u64) -> Option<T>) -> Option<(u64, T)> {
        let free = |asked: &Option<(PeerId, Instant)>| asked.is_none_or(|(_, at)| now.duration_since(at) > LATE_HEAD);
        let mut open = self.seeks.iter_mut().filter(|(_, asked)| free(asked));
        let (byte, asked, question) = open.find_map(|(byte, asked)| Some((*byte, asked, how(*byte)?)))?;
        *asked = Some((peer, now));
        Some((byte, question))
    }

    /// The question for a byte is settled, well or not: who still wants to know asks again.
    pub fn seek_settled(&mut self, byte: u64) {
        self.seeks.remove(&byte);
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
        let offered = |block: u64| offer(block..block + 1).is_some();
        // What came by another way in between needs no second question.
        self.again.retain(|block| !have.contains(*block));
        let again = self.again.iter().copied().take(MAX_LOOKS).find(|block| *block < length && offered(*block));
        let (asked, again_later) = (&self.asked, &self.again);
        let is_asked = |block: u64| asked.contains_key(&block) || again_later.contains(&block);
        let found =
            again.or_else(|| self.wants.values_mut().find_map(|open| open.next_block(length, have, is_asked, &offer)));
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
                if self.wants.values().any(|open| open.want.blocks.contains(&block)) {
                    self.again.insert(block);
                }
            }
            (false, Some(second)) if second == peer => ask.second = None,
            _ => {}
        }
    }

    /// The connection is gone: all it was asked for is open again.
    pub fn gone(&mut self, peer: PeerId) {
        self.head_settled(peer);
        self.seeks.values_mut().for_each(|asked| _ = asked.take_if(|(asked, _)| *asked == peer));
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

    fn wanting(want: Want) -> Plan {
        let mut plan = Plan::default();
        plan.want(0, want, false);
        plan
    }

    #[test]
    fn what_is_urgent_is_asked_first_and_what_nobody_wants_any_more_never() {
        let (mut plan, now, have) = (wanting(Want::all()), Instant::now(), Blocks::default());
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        plan.want(7, Want::blocks(50..51), true);
        plan.want(8, Want::blocks(60..99), true);
        plan.unwant(8);
        let asked: Vec<_> = std::iter::from_fn(|| plan.ask_block(now, 1, 100, &have, everything)).take(3).collect();
        assert_eq!(asked, [50, 0, 1]);
        plan.unwant(0);
        plan.gone(1);
        assert_eq!(plan.ask_block(now, 2, 100, &have, everything), Some(50));
        assert_eq!(plan.ask_block(now, 2, 100, &have, everything), None);
        plan.unwant(7);
        assert!(plan.is_idle());
    }

    #[test]
    fn a_byte_is_looked_for_at_one_peer_at_a_time() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        plan.seek(77);
        assert_eq!(plan.ask_seek(now, 3, |_| None::<()>), None);
        assert_eq!(plan.ask_seek(now, 1, |_| Some("how")), Some((77, "how")));
        assert_eq!(plan.ask_seek(now, 2, |_| Some("how")), None);
        plan.gone(1);
        assert_eq!(plan.ask_seek(now, 2, Some), Some((77, 77)));
        assert!(!plan.seek(77));
        plan.seek_settled(77);
        assert!(plan.seek(77));
    }

    #[test]
    fn no_block_is_asked_twice_unless_it_is_late() {
        let (mut plan, start) = (wanting(Want::all()), Instant::now());
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
        let (mut plan, now) = (wanting(Want::blocks(3..6)), Instant::now());
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
        let (mut plan, now) = (wanting(Want::blocks(0..5)), Instant::now());
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
            let (mut plan, now, mut have) = (wanting(Want::all()), Instant::now(), Blocks::default());
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
