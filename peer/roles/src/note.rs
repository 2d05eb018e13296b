//! What a role says about its decisions, for logs and for people.

use crate::FeedKey;
use datdot_market::{Block, ContractId, RequestId, contract::Reason};

/// A decision worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The draw named us.
    Drawn {
        /// The contract.
        contract: ContractId,
        /// Its request.
        request: RequestId,
        /// Bytes to host.
        bytes: u64,
    },
    /// We pass a contract.
    Passing {
        /// The contract.
        contract: ContractId,
        /// What the ledger is told.
        reason: Reason,
        /// What happened, in our words.
        why: String,
    },
    /// The data of a contract can't be fetched now.
    FetchWaits {
        /// The contract.
        contract: ContractId,
        /// Why.
        why: String,
        /// When it is tried again.
        next: Block,
    },
    /// The data of a contract is here, and its roots are those on the ledger.
    Held {
        /// The contract.
        contract: ContractId,
    },
    /// A proof is not sent.
    Withheld {
        /// Number of the challenge.
        number: u32,
        /// Why.
        why: String,
    },
    /// A challenge went unanswered.
    Missed {
        /// Number of the challenge.
        number: u32,
        /// Challenges missed in a row.
        missed: u32,
    },
    /// A feed that was damaged is whole again.
    Healed {
        /// The feed.
        feed: FeedKey,
    },
    /// A contract is given up because its data can't be healed in time.
    Forfeiting {
        /// The contract.
        contract: ContractId,
    },
    /// The ledger closed our offer; it is posted again.
    Reopening,
    /// A contract of ours is no longer on the ledger.
    Gone {
        /// The contract.
        contract: ContractId,
    },
    /// A call failed.
    CallFailed {
        /// What it was about, in words.
        what: String,
        /// Why.
        why: String,
    },
}
