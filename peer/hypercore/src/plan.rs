//! What is wanted of a feed, and whom it was asked from: shared by all connections, without I/O, clock and dice of its own.
//!
//! Each block is asked from one peer. What readers wait for is asked in order; of the rest, blocks that few others have come
//! first, and among equally rare ones chance decides, so that many who fetch from one source soon have something for each other.
//! Where all peers have everything that makes no difference, and blocks are asked in order.
//!
//! A block that is refused, or whose peer goes away, is asked elsewhere; who failed to bring it gives way for a while. One that another peer could have brought twice in the
//! meantime is late, and asked from that peer too: once it has nothing else to do, or, if a reader waits for the block, before all
//! that no reader waits for. Who comes second is told that it is no longer needed.

mod turns;

use self::turns::{Failures, Turns};
use crate::{blocks::Blocks, offers::Offers};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

/// A block is late after twice the time that the other peer needs, and at least so long.
const LATE: Duration = Duration::from_millis(300);
/// Peers that may be asked for one block.
const MAX_ASKED: usize = 3;
/// Blocks looked at for one request, so that a peer that has few of them costs little.
const MAX_LOOKS: usize = 4096;
/// Blocks of which the rarest is asked, and peers that are counted for each.
const CANDIDATES: usize = 4;
const MAX_COUNTED: usize = 16;

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

/// Who is to be asked next.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Which peer.
    pub peer: PeerId,
    /// The time.
    pub now: Instant,
    /// How long the way to it and back is.
    pub way: Duration,
    /// A random number.
    pub dice: u64,
}

/// The open questions about one feed.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is wanted, by urgency (0 is asked first) and who wants it.
    wants: BTreeMap<(u8, u64), Open>,
    asked: BTreeMap<u64, Ask>,
    /// Who was asked for a newer head.
    head: Turns,
    /// Blocks to ask again, and who failed to bring them.
    again: BTreeMap<u64, Failures>,
    /// Bytes whose block is looked for.
    seeks: BTreeMap<u64, Seek>,
    /// The connected peers.
    sources: BTreeMap<PeerId, Source>,
    /// Peers whose newest head is known.
    heard: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Source {
    /// What the peer has.
    offers: Offers,
    /// Where the next look for a block to ask again begins.
    look: u64,
}

#[derive(Debug, Default)]
struct Seek {
    /// Somebody waits for an answer.
    open: bool,
    /// Who was asked.
    turns: Turns,
}

#[derive(Debug)]
struct Open {
    want: Want,
    /// Every wanted block before this one is here, was asked, or is in `again`.
    next: u64,
}

#[derive(Debug)]
struct Ask {
    peers: Vec<PeerId>,
    /// When the last of them was asked.
    since: Instant,
    failures: Failures,
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

    /// Some blocks that a peer offers and nobody was asked for, from anywhere.
    fn some_blocks(
        &self,
        length: u64,
        have: &Blocks,
        is_asked: impl Fn(u64) -> bool,
        offer: impl Fn(Range<u64>) -> Option<u64>,
        dice: u64,
    ) -> impl Iterator<Item = u64> {
        let wanted = self.blocks(length);
        let blocks = wanted.start.max(self.next)..wanted.end;
        let count = (blocks.end.saturating_sub(blocks.start)).max(1);
        (0..CANDIDATES as u64).filter_map(move |n| {
            let from = blocks.start + mixed(dice.wrapping_mul(CANDIDATES as u64).wrapping_add(n)) % count;
            let block = offer(have.first_missing(from..blocks.end)?..blocks.end)?;
            (!have.contains(block) && !is_asked(block)).then_some(block)
        })
    }
}

fn is_urgent(wants: &BTreeMap<(u8, u64), Open>, block: u64) -> bool {
    wants.range((0, 0)..=(0, u64::MAX)).any(|(_, open)| open.want.blocks.contains(&block))
}

/// A number that looks like no other one (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Plan {
    /// Wants more. `who` is for [`Plan::unwant`]; what is urgent is asked before what is not, and in order.
    pub fn want(&mut self, who: u64, want: Want, urgent: bool) {
        let next = want.blocks.start;
        self.wants.insert((u8::from(!urgent), who), Open { want, next });
    }

    /// Wants it no longer: see [`Plan::expects`].
    pub fn unwant(&mut self, who: u64) {
        self.wants.retain(|(_, other), _| *other != who);
        let wanted = |block: &u64| self.wants.values().any(|open| open.want.blocks.contains(block));
        self.again.retain(|block, _| wanted(block));
        self.asked.retain(|block, _| wanted(block));
    }

    /// Whether nothing is wanted. Who looks for a byte wants at least the head.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    /// Whether this peer's answer is still waited for. If not, its question can be taken back.
    pub fn expects(&self, peer: PeerId, block: u64) -> bool {
        self.asked.get(&block).is_some_and(|ask| ask.peers.contains(&peer))
    }

    /// Whether a reader waits for the block.
    pub fn is_urgent(&self, block: u64) -> bool {
        is_urgent(&self.wants, block)
    }

    /// A peer came that has these blocks, and more as time goes by.
    pub fn joined(&mut self, peer: PeerId, offers: &Offers) {
        self.sources.entry(peer).or_insert_with(|| Source { offers: offers.clone(), look: 0 });
    }

    /// For each want the first block of a head of `length` blocks that is not here.
    pub fn first_missing(&self, length: u64, have: &Blocks) -> Vec<u64> {
        self.wants.values().filter_map(|open| open.first_missing(length, have)).collect()
    }

    /// Whether to ask `peer` for a newer head now; if so, that is noted.
    pub fn ask_head(&mut self, now: Instant, peer: PeerId, ours: u64) -> bool {
        (ours == 0 || self.wants.values().any(|open| open.want.follow)) && self.head.take(now, peer)
    }

    /// The question for a head is settled, well or not.
    pub fn head_settled(&mut self, peer: PeerId, well: bool) {
        match well {
            true => self.head.done(peer),
            false => self.head.failed(peer),
        }
    }

    /// Notes whether a peer has told of its newest head, and nothing of that is left to ask. Whether it has now.
    pub fn hear(&mut self, peer: PeerId, all: bool) -> bool {
        if all {
            return self.heard.insert(peer);
        }
        self.heard.remove(&peer);
        false
    }

    /// Whether the newest head of a peer is known.
    pub fn has_heard(&self, peer: PeerId) -> bool {
        self.heard.contains(&peer)
    }

    /// Looks for the block of a byte; whether nobody did so yet.
    pub fn seek(&mut self, byte: u64) -> bool {
        let new = !self.seeks.contains_key(&byte);
        self.seeks.entry(byte).or_default().open = true;
        new
    }

    /// A byte to ask `peer` about, now noted as asked. `how` says what to ask the peer, if it can help.
    pub fn ask_seek<T>(&mut self, now: Instant, peer: PeerId, how: impl Fn(u64) -> Option<T>) -> Option<(u64, T)> {
        // What nobody waits for any more need not be remembered for long.
        self.seeks.retain(|_, seek| seek.open || seek.turns.count(now));
        let mut open = self.seeks.iter_mut().filter(|(_, seek)| seek.open);
        open.find_map(|(byte, seek)| {
            let question = how(*byte)?;
            seek.turns.take(now, peer).then_some((*byte, question))
        })
    }

    /// The question for a byte is settled. Who still wants to know asks again; if it was not settled well, that is no other
    /// question, and another peer's turn.
    pub fn seek_settled(&mut self, peer: PeerId, byte: u64, well: bool) {
        if well {
            self.seeks.remove(&byte);
        } else if let Some(seek) = self.seeks.get_mut(&byte) {
            seek.open = false;
            seek.turns.failed(peer);
        }
    }

    /// The next block to ask from a peer, now noted as asked. `offer` says which block of a range the peer has first.
    pub fn ask_block(
        &mut self,
        asker: &Asker,
        length: u64,
        have: &Blocks,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let offered = |block: u64| offer(block..block + 1).is_some();
        // What came by another way in between needs no second question.
        let again = |block: u64| block < length && !have.contains(block) && offered(block);
        let mut found = None;
        // What a reader waits for comes before everything else, also if another peer owes it.
        if self.wants.keys().next().is_some_and(|(urgency, _)| *urgency == 0) {
            found = self.ask_again(asker, true, again).or_else(|| self.in_order(0, length, have, &offer));
            if found.is_none()
                && let late @ Some(_) = self.late(asker, offered, true)
            {
                return late;
            }
        }
        let found = found
            .or_else(|| self.ask_again(asker, false, again))
            .or_else(|| self.rare_block(asker, length, have, &offer))
            .or_else(|| self.in_order(1, length, have, &offer));
        if let Some(block) = found {
            let failures = self.again.remove(&block).unwrap_or_default();
            self.asked.insert(block, Ask { peers: vec![asker.peer], since: asker.now, failures });
            return Some(block);
        }
        self.late(asker, offered, false)
    }

    /// A block to ask again that fits, and that the peer did not fail to bring just now.
    fn ask_again(&mut self, asker: &Asker, urgent: bool, fits: impl Fn(u64) -> bool) -> Option<u64> {
        let mut source = self.sources.get_mut(&asker.peer);
        let from = source.as_ref().map_or(0, |source| source.look);
        let wants = &self.wants;
        let mut blocks = self.again.range(from..).chain(self.again.range(..from));
        let found = blocks.by_ref().take(MAX_LOOKS).find(|(block, failures)| {
            (!urgent || is_urgent(wants, **block)) && !failures.has(asker.now, asker.peer) && fits(**block)
        });
        if found.is_none()
            && let Some(source) = &mut source
        {
            // The others have their turn.
            source.look = blocks.next().map_or(0, |(block, _)| *block);
        }
        found.map(|(block, _)| *block)
    }

    /// A block that others owe us for too long, now noted as asked of this one too.
    fn late(&mut self, asker: &Asker, offered: impl Fn(u64) -> bool, urgent: bool) -> Option<u64> {
        let (patience, wants) = (LATE.max(2 * asker.way), &self.wants);
        let (block, ask) = self.asked.iter_mut().find(|(block, ask)| {
            // Of three who keep silent one makes room in the end.
            let patience = if ask.peers.len() < MAX_ASKED { patience } else { 10 * patience };
            asker.now.duration_since(ask.since) > patience
                && !ask.peers.contains(&asker.peer)
                && !ask.failures.has(asker.now, asker.peer)
                && (!urgent || is_urgent(wants, **block))
                && offered(**block)
        })?;
        if ask.peers.len() >= MAX_ASKED {
            ask.peers.remove(0);
        }
        ask.peers.push(asker.peer);
        ask.since = asker.now;
        Some(*block)
    }

    /// The next block of the wants of this urgency.
    fn in_order(
        &mut self,
        urgency: u8,
        length: u64,
        have: &Blocks,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let (asked, again) = (&self.asked, &self.again);
        let is_asked = |block: u64| asked.contains_key(&block) || again.contains_key(&block);
        let mut wants = self.wants.range_mut((urgency, 0)..=(urgency, u64::MAX));
        wants.find_map(|(_, open)| open.next_block(length, have, is_asked, &offer))
    }

    /// Of some blocks the one that the fewest other peers have; none if all of them have everything.
    fn rare_block(
        &self,
        asker: &Asker,
        length: u64,
        have: &Blocks,
        offer: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let others = self.sources.iter().filter(|(peer, _)| **peer != asker.peer).map(|(_, source)| &source.offers);
        let others: Vec<_> = others.filter(|offers| !offers.is_whole(length)).take(MAX_COUNTED).collect();
        if others.is_empty() {
            return None;
        }
        let is_asked = |block: u64| self.asked.contains_key(&block) || self.again.contains_key(&block);
        let (_, open) = self.wants.iter().next_back()?;
        let some = open.some_blocks(length, have, is_asked, offer, asker.dice);
        some.min_by_key(|block| others.iter().filter(|offers| offers.contains(*block)).count())
    }

    /// The block is here. Others who were asked for it need not send it: see [`Plan::expects`].
    pub fn arrived(&mut self, block: u64) {
        self.asked.remove(&block);
        self.again.remove(&block);
    }

    /// `peer` does not bring the block: it is the turn of others.
    pub fn failed(&mut self, now: Instant, peer: PeerId, block: u64) {
        if let Some(ask) = self.asked.get_mut(&block).filter(|ask| ask.peers.contains(&peer)) {
            ask.failures.note(now, peer);
        }
        self.released(peer, block);
    }

    /// The block is not waited for from `peer`, whose fault that is not.
    pub fn released(&mut self, peer: PeerId, block: u64) {
        let Some(ask) = self.asked.get_mut(&block) else { return };
        ask.peers.retain(|asked| *asked != peer);
        if ask.peers.is_empty()
            && let Some(ask) = self.asked.remove(&block)
            && self.wants.values().any(|open| open.want.blocks.contains(&block))
        {
            self.again.insert(block, ask.failures);
        }
    }

    /// The connection is gone: all it was asked for is open again.
    pub fn gone(&mut self, peer: PeerId) {
        self.sources.remove(&peer);
        self.heard.remove(&peer);
        self.head.done(peer);
        self.seeks.values_mut().for_each(|seek| seek.turns.done(peer));
        let open: Vec<u64> =
            self.asked.iter().filter(|(_, ask)| ask.peers.contains(&peer)).map(|(block, _)| *block).collect();
        open.into_iter().for_each(|block| self.released(peer, block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asker(now: Instant, peer: PeerId) -> Asker {
        Asker { peer, now, way: Duration::ZERO, dice: 7 }
    }

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
        let asked: Vec<_> =
            std::iter::from_fn(|| plan.ask_block(&asker(now, 1), 100, &have, everything)).take(3).collect();
        assert_eq!(asked, [50, 0, 1]);
        plan.unwant(0);
        plan.gone(1);
        assert_eq!(plan.ask_block(&asker(now, 2), 100, &have, everything), Some(50));
        assert_eq!(plan.ask_block(&asker(now, 2), 100, &have, everything), None);
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
        plan.seek_settled(2, 77, true);
        assert!(plan.seek(77));
    }

    #[test]
    fn no_block_is_asked_twice_unless_it_is_late() {
        let (mut plan, start) = (wanting(Want::all()), Instant::now());
        let have = Blocks::default();
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        assert_eq!(plan.ask_block(&asker(start, 1), 2, &have, everything), Some(0));
        assert_eq!(plan.ask_block(&asker(start, 2), 2, &have, everything), Some(1));
        assert_eq!(plan.ask_block(&asker(start, 2), 2, &have, everything), None);
        let later = start + LATE + Duration::from_millis(1);
        assert_eq!(plan.ask_block(&asker(later, 2), 2, &have, everything), Some(0));
        assert_eq!(plan.ask_block(&asker(later, 3), 2, &have, everything), Some(1));
        assert_eq!(plan.ask_block(&asker(later, 3), 2, &have, everything), None, "it was asked again just now");
        assert!(plan.expects(1, 0) && plan.expects(2, 0) && !plan.expects(3, 0));
        plan.arrived(0);
        assert!(!plan.expects(1, 0) && !plan.expects(2, 0), "who comes second need not send it");
        plan.failed(later, 2, 1);
        assert!(plan.expects(3, 1));
    }

    /// Peers that send so many blocks a second each, all after the same way, and what each of them has.
    struct Swarm {
        plan: Plan,
        have: Blocks,
        length: u64,
        now: Instant,
        peers: Vec<Sender>,
        asked: u64,
    }

    /// Rate, what it has, what it was asked for and when that comes, when it is free.
    type Sender = (f64, Offers, Vec<(Instant, u64)>, Instant);

    const WAY: Duration = Duration::from_millis(20);

    impl Swarm {
        fn new(length: u64, rates: &[f64], whole: impl Fn(usize) -> bool) -> Swarm {
            let now = Instant::now();
            let mut plan = wanting(Want::all());
            let mut peers = Vec::new();
            for (peer, rate) in rates.iter().enumerate() {
                let offers = Offers::default();
                offers.gain(0, if whole(peer) { length } else { 0 });
                plan.joined(peer as u64, &offers);
                peers.push((*rate, offers, Vec::new(), now));
            }
            Swarm { plan, have: Blocks::default(), length, now, peers, asked: 0 }
        }

        /// One millisecond. Says what came.
        fn step(&mut self) -> Vec<u64> {
            self.now += Duration::from_millis(1);
            let (now, mut came) = (self.now, Vec::new());
            for (peer, (rate, offers, queue, free)) in self.peers.iter_mut().enumerate() {
                let peer = peer as PeerId;
                queue.retain(|(_, block)| self.plan.expects(peer, *block));
                let arrived: Vec<u64> = queue.iter().filter(|(at, _)| *at <= now).map(|(_, block)| *block).collect();
                queue.retain(|(at, _)| *at > now);
                for block in arrived {
                    self.have.insert(block);
                    self.plan.arrived(block);
                    came.push(block);
                }
                while queue.len() < 64 {
                    self.asked += 1;
                    let asker = Asker { peer, now, way: WAY, dice: self.asked };
                    let offer = |range: Range<u64>| offers.next(range);
                    let Some(block) = self.plan.ask_block(&asker, self.length, &self.have, offer) else { break };
                    *free = now.max(*free) + Duration::from_secs_f64(1.0 / *rate);
                    queue.push((*free + WAY, block));
                }
            }
            came
        }
    }

    #[test]
    fn a_slow_peer_costs_the_others_next_to_nothing() {
        for slow in [0.1, 1.0, 20.0] {
            let mut swarm = Swarm::new(4000, &[1000.0, 1000.0, slow], |_| true);
            let (start, mut came) = (swarm.now, 0);
            while came < 4000 {
                came += swarm.step().len();
                assert!(swarm.now < start + Duration::from_secs(60), "{came} came");
            }
            let took = swarm.now.duration_since(start).as_secs_f64();
            assert!(took < 2.0 + 0.5, "{took} s with a peer of {slow} blocks a second");
        }
    }

    #[test]
    fn readers_of_one_source_have_something_for_each_other() {
        // Peer 1 is another reader, who got what chance gave it.
        let mut swarm = Swarm::new(1000, &[100.0, 100.0], |peer| peer == 0);
        (0..500).for_each(|i| swarm.peers[1].1.gain(2 * i, 1));
        let mut first = Vec::new();
        while first.len() < 200 {
            first.extend(swarm.step());
        }
        let odd = first.iter().filter(|block| **block % 2 == 1).count();
        assert!(odd > 80, "what the other one has is left to it: {odd} of 200");
        assert!(!first.is_sorted());
        while swarm.have.count() < 1000 {
            swarm.step();
        }
    }

    #[test]
    fn what_a_lost_peer_was_asked_goes_to_the_others() {
        let (mut plan, now) = (wanting(Want::blocks(3..6)), Instant::now());
        let have = Blocks::default();
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        let ask = |plan: &mut Plan, peer| plan.ask_block(&asker(now, peer), 100, &have, everything);
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
        let later = now + Duration::from_secs(5);
        assert!(plan.ask_head(later, 2, 0));
        plan.head_settled(2, true);
        assert!(!plan.ask_head(now, 1, 7), "a fixed want follows no newer head");
    }

    #[test]
    fn who_failed_to_bring_a_block_gives_way_to_others() {
        let (mut plan, start) = (wanting(Want::blocks(0..1)), Instant::now());
        let have = Blocks::default();
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        let ask = |plan: &mut Plan, at: u64, peer| {
            let asker = asker(start + Duration::from_millis(at), peer);
            plan.ask_block(&asker, 1, &have, everything)
        };
        for peer in 1..3 {
            assert_eq!(ask(&mut plan, 0, peer), Some(0));
            plan.failed(start, peer, 0);
            assert_eq!(ask(&mut plan, 0, peer), None);
        }
        assert_eq!(ask(&mut plan, 0, 3), Some(0));
        assert_eq!(ask(&mut plan, 1000, 1), None, "late or not");
        assert_eq!(ask(&mut plan, 3000, 1), Some(0));
        plan.released(1, 0);
        plan.released(3, 0);
        assert_eq!(ask(&mut plan, 3000, 1), Some(0), "that was not its fault");
    }

    #[test]
    fn who_refuses_to_say_where_a_byte_is_gives_way_to_others() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        assert!(plan.seek(77));
        let mut refused = 0;
        while plan.ask_seek(now, 1, Some).is_some() {
            plan.seek_settled(1, 77, false);
            assert!(!plan.seek(77), "that is the same question");
            refused += 1;
        }
        assert!(refused < 10);
        assert_eq!(plan.ask_seek(now, 2, Some), Some((77, 77)));
    }

    #[test]
    fn blocks_that_nobody_has_hide_no_others() {
        let (mut plan, now, have) = (wanting(Want::all()), Instant::now(), Blocks::default());
        let length = 3 * MAX_LOOKS as u64;
        let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
        while plan.ask_block(&asker(now, 1), length, &have, everything).is_some() {}
        plan.gone(1);
        plan.want(7, Want::all(), true);
        // Who is left has the last one.
        plan.joined(2, &Offers::default());
        let last = |range: Range<u64>| range.contains(&(length - 1)).then_some(length - 1);
        assert!((0..10).any(|_| plan.ask_block(&asker(now, 2), length, &have, last) == Some(length - 1)));
    }

    proptest! {
        #[test]
        fn every_wanted_block_is_asked_from_who_has_it(
            owners in proptest::collection::vec(1..8u8, 1..200),
            bad in proptest::collection::vec(any::<bool>(), 600),
        ) {
            // Block i is at the peers whose bit is set in owners[i]; some answers fail at first.
            let (mut plan, mut now, mut have) = (wanting(Want::all()), Instant::now(), Blocks::default());
            let (length, mut bad) = (owners.len() as u64, bad.into_iter());
            for round in 0.. {
                prop_assert!(round < 2000, "the download does not end");
                let peer = round % 3;
                now += Duration::from_millis(100);
                let offer = |range: Range<u64>| range.into_iter().find(|b| *b < length && owners[*b as usize] >> peer & 1 != 0);
                let Some(block) = plan.ask_block(&asker(now, peer), length, &have, offer) else {
                    if have.count() == length { break }
                    continue;
                };
                prop_assert!(!have.contains(block));
                match bad.next() {
                    Some(true) => plan.failed(now, peer, block),
                    _ => {
                        have.insert(block);
                        plan.arrived(block);
                    }
                }
            }
        }
    }
}
