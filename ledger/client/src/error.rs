//! What can go wrong between this computer and the ledger.

use crate::account::AccountId;
use datdot_market::{Balance, Block, params::Dat};

/// The ledger can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answers, now and for some time.
    #[error("no ledger at {url} ({why}): is the node running? start one with `datdot dev`")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// Not a WebSocket address.
    #[error("{0} is not the address of a ledger: one looks like ws://127.0.0.1:9944")]
    BadUrl(String),
    /// After a reconnection another chain answers: what is known of the first says nothing about it.
    #[error(
        "the ledger at {url} is another chain than before, and not followed: was its folder removed? what was stored is about the chain before"
    )]
    OtherChain {
        /// Where it was.
        url: String,
    },
    /// A chain that is not DatDot's, or another version of it.
    #[error("the ledger at {url} doesn't fit this version of datdot: {what}")]
    Unfit {
        /// Where it is.
        url: String,
        /// What was not understood.
        what: String,
    },
    /// The node refuses to answer.
    #[error("the ledger's node refuses {request}: {why}")]
    Refused {
        /// What was asked.
        request: String,
        /// Its reason.
        why: String,
    },
}

/// Why a call did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The account can't pay the amount of the call with its fee. Add money, or ask for less.
    #[error("{says}: {account} has {} free", Dat(*free))]
    NotEnoughMoney {
        /// Who was to pay.
        account: AccountId,
        /// What it can spend or hold now.
        free: Balance,
        /// What can't be paid.
        says: String,
    },
    /// It is in a block and the ledger said no; only its fee was paid.
    #[error("the ledger refused it: {says}")]
    Failed {
        /// The pallet's name for it: `Datdot::NotDrawn`.
        name: String,
        /// What the pallet says about it, and what the caller can do.
        says: String,
        /// Where it is in.
        block: Block,
    },
    /// The node did not accept it, so it is in no block and cost nothing.
    #[error("the ledger's node did not accept it: {0}")]
    Invalid(String),
    /// The challenge that it answers is not open, or the chain was reorganised since. A new view tells what is owed.
    #[error("challenge {0} is no longer open as it was seen")]
    Superseded(u32),
    /// It is in a block, but the node no longer knows with what effect. Look at the ledger before repeating it.
    #[error(
        "it came into block {block}, so long ago that the node forgot with what effect: look at the ledger before repeating it"
    )]
    Forgotten {
        /// Where it is in.
        block: Block,
    },
    /// It is in no block, and it is now too old to come into one. Look at the ledger again before repeating it.
    #[error("it did not come into a block in time: look at the ledger before repeating it")]
    Lost,
    /// The ledger can't be reached, so it was not sent; or what it answers is not understood.
    #[error(transparent)]
    Ledger(#[from] Error),
}

impl SubmitError {
    /// Whether the pallet refused it with this error, `NotDrawn` for instance.
    pub fn is(&self, pallet_error: &str) -> bool {
        matches!(self, Self::Failed { name, .. } if name.strip_prefix("Datdot::") == Some(pallet_error))
    }
}
