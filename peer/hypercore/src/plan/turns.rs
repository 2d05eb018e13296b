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
        let turn = self.0.entry(peer).or_insert(Turn { since: now, open: false, failures: 0 });
        let failed = turn.failures >= EXCUSED;
        if turn.open && passed(turn) <= SILENT || failed && passed(turn) <= FAILED {
            return false;
        }
        let failures = if failed { 0 } else { turn.failures };
        *turn = Turn { since: now, open: true, failures };
        true
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

#[cfg(test)]
mod tests {
    use super::*;

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
