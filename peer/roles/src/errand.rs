//! Calls on their way to the ledger.
//!
//! ```text
//! (none) ──start──▶ in flight ──included in block b──▶ done: nothing until a view shows block b or a later one
//!                       │
//!                       └──refused, lost──▶ failed: not before some blocks later, twice as many each time
//! ```
//!
//! A call that is lost costs nothing, so its pauses end at [`LONGEST_PAUSE`]. One that is refused in a block has paid its
//! fee: its pauses go on doubling, so that all refusals of a year cost no more than some twenty fees.

use crate::sponsor::IntentId;
use datdot_market::{Block, ContractId};
use std::collections::BTreeMap;

/// Longest pause after a loss, in blocks.
pub const LONGEST_PAUSE: Block = 64;

/// What a call is about. There is never more than one call at a time about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// Our offer: posting, changing, leaving.
    Offer,
    /// A contract: taking, passing, accepting, forfeiting, settling.
    Contract(ContractId),
    /// A challenge, by its number.
    Proof(u32),
    /// A request that we want to open.
    Request(IntentId),
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a block and took effect.
    Included {
        /// That block.
        block: Block,
    },
    /// The ledger or its node said no.
    Refused {
        /// What it said.
        why: String,
    },
    /// It is in no block and can't come into one any more; or it was never sent.
    Lost {
        /// What happened to it.
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    InFlight { tries: u32 },
    Done { at: Block },
    Failed { tries: u32, failure: Failure },
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub why: String,
    /// When the next may go.
    pub next: Block,
    /// Whether the ledger said no, which it may do again.
    pub refused: bool,
}

/// All errands of a role.
#[derive(Clone, Debug, Default)]
pub struct Errands(BTreeMap<Errand, State>);

impl Errands {
    /// Whether a call about it may be sent, as far as a view of block `now` shows what the last one did.
    pub fn may_start(&self, errand: Errand, now: Block) -> bool {
        match self.0.get(&errand) {
            None => true,
            Some(State::InFlight { .. }) => false,
            Some(State::Done { at }) => now >= *at,
            Some(State::Failed { failure, .. }) => now >= failure.next,
        }
    }

    /// Notes that a call was sent.
    pub fn start(&mut self, errand: Errand) {
        let tries = match self.0.get(&errand) {
            Some(State::Failed { tries, .. }) => *tries,
            _ => 0,
        };
        self.0.insert(errand, State::InFlight { tries });
    }

    /// Notes what came of it. An outcome that nobody waits for is ignored.
    pub fn end(&mut self, errand: Errand, outcome: &Outcome, now: Block) {
        let Some(State::InFlight { tries }) = self.0.get(&errand) else { return };
        let tries = tries.saturating_add(1);
        let state = match outcome {
            Outcome::Included { block } => State::Done { at: *block },
            Outcome::Refused { why } | Outcome::Lost { why } => {
                let refused = matches!(outcome, Outcome::Refused { .. });
                let pause = 1u32.checked_shl(tries - 1).unwrap_or(Block::MAX);
                let pause = if refused { pause } else { pause.min(LONGEST_PAUSE) };
                let failure = Failure { why: why.clone(), next: now.saturating_add(pause), refused };
                State::Failed { tries, failure }
            }
        };
        self.0.insert(errand, state);
    }

    /// Whether a call about it is under way.
    pub fn is_in_flight(&self, errand: Errand) -> bool {
        matches!(self.0.get(&errand), Some(State::InFlight { .. }))
    }

    /// Why the last call about it failed, and when the next may go, if it failed.
    pub fn failure(&self, errand: Errand) -> Option<&Failure> {
        match self.0.get(&errand)? {
            State::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Forgets what is no longer of interest; what is in flight stays.
    pub fn retain(&mut self, mut keep: impl FnMut(Errand) -> bool) {
        self.0.retain(|errand, state| matches!(state, State::InFlight { .. }) || keep(*errand));
    }

    /// Forgets a failure: something has changed, so that another try makes sense at once.
    pub fn forgive(&mut self, errand: Errand) {
        if let Some(State::Failed { .. }) = self.0.get(&errand) {
            self.0.remove(&errand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKE: Errand = Errand::Contract(7);

    #[test]
    fn there_is_one_call_at_a_time_about_one_thing() {
        let mut errands = Errands::default();
        errands.start(TAKE);
        assert!(!errands.may_start(TAKE, 100));
        assert!(errands.may_start(Errand::Contract(8), 0));
    }

    #[test]
    fn a_call_that_is_in_a_block_is_not_repeated_on_an_older_view() {
        let mut errands = Errands::default();
        errands.start(TAKE);
        errands.end(TAKE, &Outcome::Included { block: 10 }, 9);
        assert!(!errands.may_start(TAKE, 9));
        // A view of block 10 that still asks for it is of another branch: it has to be done again.
        assert!(errands.may_start(TAKE, 10));
    }

    #[test]
    fn pauses_double_and_end_with_a_success() {
        let pauses = |outcome: Outcome| {
            let (mut errands, mut now, mut pauses) = (Errands::default(), 0, vec![]);
            for _ in 0..9 {
                errands.start(TAKE);
                errands.end(TAKE, &outcome, now);
                let next = (now..).find(|block| errands.may_start(TAKE, *block)).unwrap();
                pauses.push(next - now);
                now = next;
            }
            (errands, now, pauses)
        };
        let (_, _, refused) = pauses(Outcome::Refused { why: "no".into() });
        assert_eq!(refused, [1, 2, 4, 8, 16, 32, 64, 128, 256], "each cost a fee");
        let (mut errands, now, lost) = pauses(Outcome::Lost { why: "gone".into() });
        assert_eq!(lost, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        errands.start(TAKE);
        errands.end(TAKE, &Outcome::Included { block: now }, now);
        errands.start(TAKE);
        errands.end(TAKE, &Outcome::Lost { why: "gone".into() }, now);
        let failure = Failure { why: "gone".into(), next: now + 1, refused: false };
        assert_eq!(errands.failure(TAKE), Some(&failure));
    }
}
