//! Giving room back: blocks are dropped while the tree above them stays.

use super::{Changed, Commit, Feed, FeedError};
use datdot_proof::tree::Roots;
use std::{ops::Range, sync::PoisonError};

impl Feed {
    /// Drops the bytes of blocks that are here and returns how many bytes those were; peers are told first. The feed stays as long
    /// as it is, and the blocks can be fetched again, if there is somebody to fetch them from.
    pub async fn clear(&self, blocks: Range<u64>) -> Result<u64, FeedError> {
        self.blocking(move |feed| feed.clear_now(blocks)).await
    }

    /// [`Feed::clear`] on the caller's thread, which it blocks.
    pub fn clear_now(&self, blocks: Range<u64>) -> Result<u64, FeedError> {
        // A block that came in between would lose its bytes.
        let clearing = self.0.clearing.write().unwrap_or_else(PoisonError::into_inner);
        let (roots, runs) = {
            let state = self.lock();
            let end = blocks.end.min(state.roots.length());
            (state.roots.clone(), state.have.runs(blocks.start..end).collect::<Vec<_>>())
        };
        let bytes = runs.iter().map(|run| self.bytes_of(&roots, run)).sum::<Result<u64, _>>()?;
        let hole = |run: &Range<u64>| match (self.offset(&roots, run.start), self.offset(&roots, run.end)) {
            // Whose place is lost goes without its room.
            (Err(FeedError::Damaged { .. }), _) | (_, Err(FeedError::Damaged { .. })) => Ok(None),
            (start, end) => Ok(Some(start?..end?)),
        };
        let holes = runs.iter().filter_map(|run| hole(run).transpose()).collect::<Result<Vec<_>, FeedError>>()?;
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(0) };
        // The bits go before what they stand for.
        self.commit(Some(Commit { lost: Some((first.start..last.end, bytes)), ..Commit::default() }))?;
        runs.into_iter().for_each(|run| self.tell(Changed::Lost(run)));
        for hole in holes {
            self.0.disk.give_back(hole).map_err(|source| self.io(source))?;
        }
        drop(clearing);
        Ok(bytes)
    }

    /// Gives the room of blocks back that were dropped before a crash: it may have come in between.
    pub(super) fn give_back_again(&self, dropped: Vec<Range<u64>>) {
        let give_back = |roots: &Roots, run: Range<u64>| {
            let hole = self.offset(roots, run.start)?..self.offset(roots, run.end)?;
            self.0.disk.give_back(hole).map_err(|source| self.io(source))
        };
        for blocks in dropped {
            let (roots, runs) = {
                let state = self.lock();
                let end = blocks.end.min(state.roots.length());
                // Some may have come again since.
                (state.roots.clone(), state.have.gaps(blocks.start..end).collect::<Vec<_>>())
            };
            for run in runs {
                if let Err(error) = give_back(&roots, run) {
                    tracing::debug!(target: "hypercore", feed = %self.key(), %error, "room is not given back");
                }
            }
        }
    }
}
