//! Damage of stored data, in the words of those whose contracts it is about: segments and their bytes.

use datdot_api::{Event, Key, status::DamageStatus};
use datdot_hypercore::{FeedKey, Store};
use datdot_ledger::AccountView;
use datdot_market::Block;
use datdot_proof::segment::Segment;
use std::collections::BTreeSet;

/// Damage of one segment.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(super) feed: Key,
    segment: Key,
    runs: Vec<(u64, u64)>,
    bytes: (u64, u64),
    found: Block,
    pub(super) healed: Option<Block>,
    why: Option<String>,
}

impl Damage {
    /// What damaged blocks of a feed mean for the segments that contracts are about.
    pub fn of(
        store: &Store,
        key: FeedKey,
        blocks: &BTreeSet<u64>,
        why: Option<String>,
        view: &AccountView,
    ) -> Vec<Damage> {
        let works = view.hosting.iter().flat_map(|hosting| &hosting.contracts);
        let feeds = works.flat_map(|work| &work.feeds).filter(|feed| feed.key == key.0);
        let segments: BTreeSet<_> = feeds
            .filter_map(|feed| Some((Segment { bytes: feed.head.bytes().ok()?, root: feed.root }, feed.head.length)))
            .collect();
        let range = |block: u64| store.feed(&key).and_then(|feed| feed.byte_range(block..block + 1).ok());
        let damage = |(segment, length): (Segment, u64)| {
            let inside: Vec<_> = blocks.range(..length).copied().collect();
            let bytes = match (inside.first(), inside.last()) {
                (Some(first), Some(last)) => (
                    range(*first).map_or(0, |range| range.start),
                    range(*last).map_or(segment.bytes, |range| range.end).min(segment.bytes),
                ),
                _ => (0, 0),
            };
            let (feed, segment) = (Key(key.0), Key(segment.root));
            Damage { feed, segment, runs: runs(&inside), bytes, found: view.at, healed: None, why: why.clone() }
        };
        segments.into_iter().map(damage).collect()
    }

    /// Says it where somebody who runs a hoster looks.
    pub fn log(&self) {
        let (from, to) = self.bytes;
        match self.runs.is_empty() {
            false => tracing::error!(
                target: "hoster", feed = %self.feed, segment = %self.segment, blocks = ?self.runs,
                "stored data is damaged in bytes {from} to {to} of the segment; it is fetched again"
            ),
            true => tracing::error!(
                target: "hoster", feed = %self.feed, segment = %self.segment,
                "every block is whole, but what is kept beside the segment is damaged; it is made again"
            ),
        }
    }

    /// The same for those who listen.
    pub fn event(&self) -> Event {
        Event::DamageFound { key: self.feed, segment: self.segment, blocks: self.runs.clone(), bytes: self.bytes }
    }

    pub(super) fn status(&self) -> DamageStatus {
        let state = match (self.healed, self.runs.is_empty()) {
            (Some(block), _) => format!("whole again since block {block}"),
            (None, false) => "damaged blocks are being fetched again".into(),
            (None, true) => "blocks are whole; the hashes beside them are being made again".into(),
        };
        DamageStatus {
            feed: self.feed,
            segment: self.segment,
            blocks: self.runs.clone(),
            bytes: self.bytes,
            found: self.found,
            healed: self.healed,
            state: self.why.as_ref().map_or(state.clone(), |why| format!("{state} ({why})")),
        }
    }
}

/// Runs of neighbours: first and last of each.
fn runs(sorted: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for block in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *block => *last = *block,
            _ => runs.push((*block, *block)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named_together() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(runs(&[]), []);
    }
}
