//! What the remote is asked to tell of itself: which blocks it has behind its first gap, a region of the feed at a time.

use super::{MAX_WANT, Session};
use crate::{
    blocks::{Blocks, PAGE},
    messages::{Message, Wanted},
    offers::MAX_PAGES,
};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// Regions of so many blocks that the remote was asked about: it is remembered of no more of them what it has.
const MAX_REGIONS: usize = MAX_PAGES / (MAX_WANT / PAGE) as usize;
/// For so long a region is not given up for another one, as long as blocks of it are wanted: the answer may be on its way.
const REGION: Duration = Duration::from_secs(5);

impl Session {
    /// The remote has all blocks before this one, and that is all that it tells unasked.
    pub fn first_gap(&self) -> u64 {
        self.offers.upto()
    }

    /// The first block of a range behind the remote's first gap that is not here, and about which the remote was not asked.
    pub fn untold(&self, range: Range<u64>, have: &Blocks) -> Option<u64> {
        let mut at = range.start;
        loop {
            at = have.first_missing(at..range.end)?;
            let start = at / MAX_WANT * MAX_WANT;
            if !self.our_wants.iter().any(|(region, _)| *region == start) {
                return Some(at);
            }
            at = start.saturating_add(MAX_WANT);
        }
    }

    /// The end of the region that was asked about last: it is the turn of those behind.
    pub fn last_region(&self) -> u64 {
        self.our_wants.last().map_or(0, |(region, _)| region.saturating_add(MAX_WANT))
    }

    /// Asks which blocks around this one the remote has. The bits of a few such regions are kept: if need be those of one that is
    /// not `needed` go, or of the one that was asked about long ago.
    pub fn want_around(&mut self, now: Instant, block: u64, needed: impl Fn(Range<u64>) -> bool) -> Vec<Message> {
        let wanted = |start| Wanted { start, length: MAX_WANT, any: false };
        let mut messages = Vec::new();
        if self.our_wants.len() >= MAX_REGIONS {
            let needless = |(start, _): &(u64, Instant)| !needed(*start..start.saturating_add(MAX_WANT));
            let oldest = || self.our_wants.first().filter(|(_, at)| now.duration_since(*at) > REGION).map(|_| 0);
            let Some(at) = self.our_wants.iter().position(needless).or_else(oldest) else { return messages };
            let (gone, _) = self.our_wants.remove(at);
            self.offers.forget(gone..gone.saturating_add(MAX_WANT));
            messages.push(Message::Unwant(wanted(gone)));
        }
        let start = block / MAX_WANT * MAX_WANT;
        self.our_wants.push((start, now));
        messages.push(Message::Want(wanted(start)));
        messages
    }
}
