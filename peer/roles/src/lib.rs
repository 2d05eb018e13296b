//! Sponsor and hoster as state machines: `handle(now, input) -> actions`.
//!
//! No I/O, no clock, no dice: `now` is the ledger's best block, inputs are what the ledger shows and what came of
//! earlier actions, actions are for somebody else to do. The daemon is one driver, tests and the simulator are others.
//!
//! What is owed is derived anew from each view of the account ([`datdot_market::duty`]), so a role that starts in the
//! middle of everything does the same as one that was there from the beginning.
//!
//! - [`hoster`] takes contracts, has their data fetched and checked, proves it, heals it, drops it
//! - [`sponsor`] opens requests, each exactly once
//! - [`errand`] what was submitted: never two of the same at a time, and again after a while if it failed

pub mod errand;
pub mod hoster;
pub mod note;
pub mod sponsor;

pub use errand::{Errand, Failure, Outcome};
pub use hoster::{Checked, Hoster, Trouble};
pub use note::Note;
pub use sponsor::{IntentId, Sponsor};

use datdot_market::{
    ContractId,
    contract::Reason,
    terms::{Feeds, Offer, Sources, Terms},
    view::Challenge,
};
use datdot_proof::proof::Proof;

/// The key of a feed.
pub type FeedKey = [u8; 32];

/// What a role asks of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Post the offer, or change it.
    Offer(Offer),
    /// Take no new contracts.
    Leave,
    /// Open a request.
    Request {
        /// What to host.
        feeds: Feeds,
        /// How to host it.
        terms: Terms,
        /// Where it can be fetched.
        sources: Sources,
    },
    /// Take a contract.
    Take(ContractId),
    /// Give a contract back before it is hosted.
    Pass(ContractId, Reason),
    /// Say that a contract's data is here and checked.
    Accept(ContractId),
    /// Answer a challenge.
    Prove {
        /// The challenge.
        challenge: Challenge,
        /// The answer.
        proof: Proof,
    },
    /// Give up a contract whose data is lost.
    Forfeit(ContractId),
    /// Have a contract paid what it earned.
    Settle(ContractId),
}
