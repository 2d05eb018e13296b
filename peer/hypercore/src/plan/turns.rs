//! Whose turn it is to bring what any peer may bring: who failed gives way to others for a while, and nobody holds them up by silence.

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
/// An honest peer may fail: its author cut the feed in this moment. So often in a row it is asked again at once.
const EXCUSED: u32 = 3;

/// Who failed to bring a block lately.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(PeerId, Instant)>);

impl Failures {
    pub fn note(&mut self, now: Instant, peer: PeerId) {
        self.0.retain(|(other, at)| *other != peer && now.duration_since(*at) <= FAILED);
        if self.0.len() >= MAX_FAILED {
            self.0.remove(0);
        }
        self.0.push((peer, now));
    }

    pub fn forget(&mut self, peer: PeerId) {
        self.0.retain(|(other, _)| *other != peer);
    }

    pub fn has(&self, now: Instant, peer: PeerId) -> bool {
        self.0.iter().any(|(other, at)| *other == peer && now.duration_since(*at) <= FAILED)
    }
}

/// A question that one peer at a time is asked, and how those did that were.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<PeerId, Turn>);

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
        let passed = |turn: &Turn| now.duration_since(turn.since);
        if self.0.values().any(|turn| turn.open && passed(turn) <= NEXT) {
            return false;
        }
        if !self.is_free(now, peer) {
            return false;
        }
        let failures = self.0.get(&peer).map_or(0, |turn| turn.failures);
        let failures = if failures >= EXCUSED { 0 } else { failures };
        self.0.insert(peer, Turn { since: now, open: true, failures });
        true
    }

    /// Whether `peer` owes no answer, and need not give way.
    fn is_free(&self, now: Instant, peer: PeerId) -> bool {
        self.0.get(&peer).is_none_or(|turn| {
            let passed = now.duration_since(turn.since);
            (!turn.open || passed > SILENT) && (turn.failures < EXCUSED || passed > FAILED)
        })
    }

    /// The peer's answer was of no use.
    pub fn failed(&mut self, peer: PeerId) {
        if let Some(turn) = self.0.get_mut(&peer) {
            turn.open = false;
            turn.failures += 1;
        }
    }

    /// The peer's answer was good, or it is gone.
    pub fn done(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Whether what is remembered still counts.
    pub fn count(&self, now: Instant) -> bool {
        self.0.values().any(|turn| now.duration_since(turn.since) <= SILENT)
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
        !self.told.iter().any(is_next) && self.turns.take(now, peer)
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
