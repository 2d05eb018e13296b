//! What is wanted of a feed, and whom it was asked from: shared by all connections, without I/O, clock and dice of its own.
//!
//! Each block is asked from one peer. What readers wait for is asked in order; of the rest, blocks that few others have come
//! first, and among equally rare ones chance decides, so that many who fetch from one source soon have something for each other.
//! Where all peers have everything that makes no difference, and blocks are asked in order.
//!
//! A block that is refused, or whose peer goes away, is asked elsewhere; who failed to bring it gives way for a while. One that another peer could have brought twice in the
//! meantime is late, unless who was asked will bring it soon, and asked from that peer too: once it has nothing else to do, or, if a
//! reader waits for the block, before all that no reader waits for. Who comes second is told that it is no longer needed.

mod turns;
mod wants;

pub use self::wants::overlap;
use self::{
    turns::{Failures, Heads, Turns},
    wants::Wants,
};
use crate::{blocks::Blocks, offers::Offers};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

/// A block is late after twice the time that the other peer needs, and at least so long. It comes soon if it is expected no later than so
/// long after the other peer could bring it, and so long ago at most.
const LATE: Duration = Duration::from_millis(300);
/// Peers that may be asked for one block.
const MAX_ASKED: usize = 3;
/// Blocks looked at for one request, so that a peer that has few of them costs little.
const MAX_LOOKS: usize = 4096;
/// Peers that are counted to find the rarest of some blocks.
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
    /// How long it will take to bring a block, if that is known.
    pub takes: Option<Duration>,
    /// A random number.
    pub dice: u64,
}

impl Asker {
    /// When it will have brought what it is asked for now. Who has brought nothing yet is given some time.
    fn due(&self) -> Instant {
        self.now + self.takes.unwrap_or(LATE)
    }
}

/// The open questions about one feed.
#[derive(Debug, Default)]
pub struct Plan {
    wants: Wants,
    asked: BTreeMap<u64, Ask>,
    /// Who was asked for a newer head.
    head: Heads,
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
struct Ask {
    peers: Vec<PeerId>,
    /// When the last of them was asked,
    since: Instant,
    /// and is expected to answer.
    due: Instant,
    failures: Failures,
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
        self.wants.insert(who, want, urgent);
    }

    /// Wants it no longer: see [`Plan::expects`]. Whether an answer is waited for no longer.
    pub fn unwant(&mut self, who: u64) -> bool {
        let Some(blocks) = self.wants.remove(who).filter(|blocks| !blocks.is_empty()) else { return false };
        let again = self.again.range(blocks.clone()).map(|(block, _)| *block);
        let open = again.chain(self.asked.range(blocks).map(|(block, _)| *block));
        let needless: Vec<u64> = open.filter(|block| !self.wants.contains(*block)).collect();
        let mut asked = false;
        for block in needless {
            self.again.remove(&block);
            asked |= self.asked.remove(&block).is_some();
        }
        asked
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
        self.wants.is_urgent(block)
    }

    /// A peer came that has these blocks, and more as time goes by.
    pub fn joined(&mut self, peer: PeerId, offers: &Offers) {
        self.sources.entry(peer).or_insert_with(|| Source { offers: offers.clone(), look: 0 });
    }

    /// The first block that `find` finds in what is wanted of a range; `urgent` if only that counts for which a reader waits.
    pub fn first(&self, urgent: bool, range: &Range<u64>, find: impl Fn(Range<u64>) -> Option<u64>) -> Option<u64> {
        self.wants.first(u8::from(!urgent), range, find)
    }

    /// Whether to ask `peer` for its head of `theirs` blocks now, where ours has fewer; if so, that is noted.
    pub fn ask_head(&mut self, now: Instant, peer: PeerId, ours: u64, theirs: u64) -> bool {
        (ours == 0 || self.wants.follow()) && self.head.take(now, peer, theirs)
    }

    /// The question for a head is settled: well if it is as long as the peer said.
    pub fn head_settled(&mut self, peer: PeerId, well: bool) {
        self.head.settled(peer, well);
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

    /// Nobody has to be asked about bytes whose place is `known` by now. Whether there are any.
    pub fn drop_seeks(&mut self, known: impl Fn(u64) -> bool) -> bool {
        let before = self.seeks.len();
        self.seeks.retain(|byte, seek| !seek.open || !known(*byte));
        self.seeks.len() < before
    }

    /// A byte to ask `peer` about, now noted as asked. `how` says what to ask the peer, if it can help.
    pub fn ask_seek<T>(
        &mut self,
        now: Instant,
        peer: PeerId,
        mut how: impl FnMut(u64) -> Option<T>,
    ) -> Option<(u64, T)> {
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
        if self.wants.are_urgent() {
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
            let (peers, since, due) = (vec![asker.peer], asker.now, asker.due());
            self.asked.insert(block, Ask { peers, since, due, failures });
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
            (!urgent || wants.is_urgent(**block)) && !failures.has(asker.now, asker.peer) && fits(**block)
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
        let takes = asker.takes.unwrap_or(LATE);
        let (patience, wants) = (LATE.max(2 * asker.takes.unwrap_or_default()), &self.wants);
        // Who has brought nothing yet may be one more who keeps silent: it leaves the others their turn.
        let patience = if asker.takes.is_some() { patience } else { 2 * patience };
        let is_late = |block: u64, ask: &Ask| {
            // Of three who keep silent one makes room in the end.
            let patience = if ask.peers.len() < MAX_ASKED { patience } else { 10 * patience };
            // Both will send it: that has to be worth it.
            let soon = asker.now + takes + LATE >= ask.due && asker.now <= ask.due + LATE;
            asker.now.duration_since(ask.since) > patience
                && !soon
                && !ask.peers.contains(&asker.peer)
                && !ask.failures.has(asker.now, asker.peer)
                && (!urgent || wants.is_urgent(block))
                && offered(block)
        };
        let mut asked = self.asked.iter_mut();
        let (block, ask) = match urgent {
            true => asked.find(|(block, ask)| is_late(**block, ask)),
            // The first ones are on their way, if anything is; the last ones may still be taken back.
            false => asked.rfind(|(block, ask)| is_late(**block, ask)),
        }?;
        if ask.peers.len() >= MAX_ASKED {
            ask.failures.note_mute(asker.now, ask.peers.remove(0));
        }
        ask.peers.push(asker.peer);
        (ask.since, ask.due) = (asker.now, asker.due());
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
        self.wants.in_order(urgency, length, have, is_asked, offer)
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
        let some = self.wants.some_blocks(length, have, is_asked, offer, asker.dice);
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
            && self.wants.contains(block)
        {
            self.again.insert(block, ask.failures);
        }
    }

    /// What a peer failed to bring was of another history.
    pub fn forgive(&mut self, peer: PeerId) {
        let asked = self.asked.values_mut().map(|ask| &mut ask.failures);
        asked.chain(self.again.values_mut()).for_each(|failures| failures.forget(peer));
    }

    /// The connection is gone: all it was asked for is open again.
    pub fn gone(&mut self, peer: PeerId) {
        self.sources.remove(&peer);
        self.heard.remove(&peer);
        self.head.gone(peer);
        self.seeks.values_mut().for_each(|seek| seek.turns.done(peer));
        let open: Vec<u64> =
            self.asked.iter().filter(|(_, ask)| ask.peers.contains(&peer)).map(|(block, _)| *block).collect();
        open.into_iter().for_each(|block| self.released(peer, block));
    }
}

#[cfg(test)]
mod tests;
