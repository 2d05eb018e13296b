//! Whose turn it is to bring what any peer may bring: who failed gives way to others for a while, and who keeps silent holds them up
//! for a moment. However many do so one after the other, who has waited for its turn is asked beside them.

use super::PeerId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// For so long who failed is not asked for the same again.
const FAILED: Duration = Duration::from_secs(2);
/// Peers that are remembered to have failed to bring one block.
const MAX_FAILED: usize = 16;
/// After this long without an answer another peer may be asked too,
const NEXT: Duration = Duration::from_secs(1);
/// and the same one.
const SILENT: Duration = Duration::from_secs(10);
/// Who has waited for its turn for so long is asked, whoever else is.
const WAITED: Duration = Duration::from_secs(3);
/// For so long who kept silent about a block is not asked for it again: others have their turn before.
const MUTE: Duration = Duration::from_secs(60);
/// An honest peer may fail: its author cut the feed in this moment. So often in a row it is asked again at once.
const EXCUSED: u32 = 3;

/// Who failed to bring a block lately, and until when it gives way.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(PeerId, Instant)>);

impl Failures {
    /// A peer refused to bring it, or what it brought was of no use.
    pub fn note(&mut self, now: Instant, peer: PeerId) {
        self.until(now, peer, now + FAILED);
    }

    /// A peer neither brought nor refused it.
    pub fn note_mute(&mut self, now: Instant, peer: PeerId) {
        self.until(now, peer, now + MUTE);
    }

    fn until(&mut self, now: Instant, peer: PeerId, until: Instant) {
        self.0.retain(|(other, until)| *other != peer && now <= *until);
        if self.0.len() >= MAX_FAILED {
            self.0.remove(0);
        }
        self.0.push((peer, until));
    }

    pub fn forget(&mut self, peer: PeerId) {
        self.0.retain(|(other, _)| *other != peer);
    }

    pub fn has(&self, now: Instant, peer: PeerId) -> bool {
        self.0.iter().any(|(other, until)| *other == peer && now <= *until)
    }
}

/// A question that one peer at a time is asked, and how those did that were.
#[derive(Debug, Default)]
pub(super) struct Turns {
    asked: BTreeMap<PeerId, Turn>,
    /// Who had to wait, since when, and when it said so last.
    waiting: BTreeMap<PeerId, (Instant, Instant)>,
}

#[derive(Debug)]
struct Turn {
    since: Instant,
    /// There is no answer yet.
    open: bool,
    /// In a row.
    failures: u32,
}

impl Turns {
    /// Whether `peer` is to be asked now; if so, that is noted.
    pub fn take(&mut self, now: Instant, peer: PeerId) -> bool {
        self.take_after(now, peer, false)
    }

    /// The same if others, who are `first`, come before it.
    fn take_after(&mut self, now: Instant, peer: PeerId, first: bool) -> bool {
        if !self.is_free(now, peer) {
            return false;
        }
        let passed = |at: Instant| now.duration_since(at);
        let (since, last) = self.waiting.entry(peer).or_insert((now, now));
        if passed(std::mem::replace(last, now)) > NEXT {
            // It had nothing to wait for in between.
            *since = now;
        }
        let open = || self.asked.values().any(|turn| turn.open && passed(turn.since) <= NEXT);
        if passed(*since) <= WAITED && (first || open()) {
            return false;
        }
        self.waiting.remove(&peer);
        let failures = self.asked.get(&peer).map_or(0, |turn| turn.failures);
        let failures = if failures >= EXCUSED { 0 } else { failures };
        self.asked.insert(peer, Turn { since: now, open: true, failures });
        true
    }

    /// Whether `peer` owes no answer, and need not give way.
    fn is_free(&self, now: Instant, peer: PeerId) -> bool {
        self.asked.get(&peer).is_none_or(|turn| {
            let passed = now.duration_since(turn.since);
            (!turn.open || passed > SILENT) && (turn.failures < EXCUSED || passed > FAILED)
        })
    }

    /// The peer's answer was of no use.
    pub fn failed(&mut self, peer: PeerId) {
        if let Some(turn) = self.asked.get_mut(&peer) {
            turn.open = false;
            turn.failures += 1;
        }
    }

    /// The peer's answer was good, or it is gone.
    pub fn done(&mut self, peer: PeerId) {
        self.asked.remove(&peer);
        self.waiting.remove(&peer);
    }

    /// Whether what is remembered still counts.
    pub fn count(&self, now: Instant) -> bool {
        self.asked.values().any(|turn| now.duration_since(turn.since) <= SILENT)
    }
}

/// Who is asked for a newer head: who tells of the longest one first. Otherwise one that proves its own block by block would have
/// every turn, as it is at hand when its answer comes.
#[derive(Debug, Default)]
pub(super) struct Heads {
    turns: Turns,
    /// How long the head of each is that could be asked, and when it told.
    told: BTreeMap<PeerId, (u64, Instant)>,
}

impl Heads {
    /// Whether `peer`, which tells of a head of so many blocks, is to be asked for it now; if so, that is noted.
    pub fn take(&mut self, now: Instant, peer: PeerId, length: u64) -> bool {
        self.told.insert(peer, (length, now));
        // Who still wants to be asked said so lately.
        let is_next = |(other, (told, at)): (&PeerId, &(u64, Instant))| {
            *told > length && now.duration_since(*at) <= NEXT && self.turns.is_free(now, *other)
        };
        let first = self.told.iter().any(is_next);
        self.turns.take_after(now, peer, first)
    }

    /// The peer has proven the head that it told of, or it has not.
    pub fn settled(&mut self, peer: PeerId, well: bool) {
        match well {
            true => self.turns.done(peer),
            false => self.turns.failed(peer),
        }
    }

    pub fn gone(&mut self, peer: PeerId) {
        self.turns.done(peer);
        self.told.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_head_is_asked_for_first() {
        let (mut heads, now) = (Heads::default(), Instant::now());
        assert!(heads.take(now, 1, 5) && !heads.take(now, 2, 100));
        heads.settled(1, true);
        assert!(!heads.take(now, 1, 6), "it proves block after block, and is there first");
        assert!(heads.take(now, 2, 100));
        heads.settled(2, true);
        assert!(heads.take(now, 1, 101));
        heads.gone(1);
        // Who told of more and could not prove it gives way after a while; so does who has gone silent, or went away.
        for _ in 0..EXCUSED {
            assert!(heads.take(now, 3, 1 << 40) && !heads.take(now, 2, 102));
            heads.settled(3, false);
        }
        assert!(heads.take(now, 2, 102));
        heads.gone(3);
        heads.settled(2, true);
        assert!(heads.take(now, 4, 200));
        let later = now + NEXT * 2;
        assert!(heads.take(later, 2, 103));
    }

    #[test]
    fn who_keeps_silent_holds_nobody_up_for_long() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        assert!(turns.take(start, 1) && !turns.take(start, 2) && !turns.take(start, 1));
        let later = start + NEXT * 2;
        assert!(!turns.take(later, 1) && turns.take(later, 2));
        turns.failed(2);
        assert!(!turns.take(later, 1), "it owes an answer");
        assert!(turns.take(start + SILENT * 2, 1));
        turns.done(1);
        assert!(turns.take(start + SILENT * 2, 1));
    }

    #[test]
    fn however_many_keep_silent_an_honest_one_has_its_turn() {
        const SILENT_ONES: u64 = 100;
        let (mut heads, mut turns, start) = (Heads::default(), Turns::default(), Instant::now());
        let (mut head, mut place) = (None, None);
        for tick in 0..20 {
            let now = start + Duration::from_millis(500) * tick;
            // It comes last each time.
            for peer in 0..=SILENT_ONES {
                let honest = peer == SILENT_ONES;
                let length = if honest { 100 } else { 1 << 40 };
                head = head.or((heads.take(now, peer, length) && honest).then_some(now - start));
                place = place.or((turns.take(now, peer) && honest).then_some(now - start));
            }
        }
        assert!(head.is_some_and(|waited| waited <= WAITED + NEXT), "{head:?}");
        assert!(place.is_some_and(|waited| waited <= WAITED + NEXT), "{place:?}");
    }

    #[test]
    fn who_did_not_wait_all_the_time_has_not_waited_long() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        assert!(turns.take(start, 1) && !turns.take(start, 2));
        let later = start + SILENT * 2;
        assert!(turns.take(later, 1) && !turns.take(later, 2));
    }

    #[test]
    fn who_fails_again_and_again_gives_way() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for _ in 0..EXCUSED {
            assert!(turns.take(now, 1));
            turns.failed(1);
        }
        assert!(!turns.take(now, 1) && turns.take(now, 2));
        turns.done(2);
        assert!(turns.take(now + FAILED * 2, 1));
    }

    #[test]
    fn the_latest_failures_are_remembered() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        (0..20).for_each(|peer| failures.note(now, peer));
        assert!(!failures.has(now, 0) && failures.has(now, 19) && !failures.has(now + FAILED * 2, 19));
    }
}
