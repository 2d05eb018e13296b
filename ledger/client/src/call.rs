//! What an account can ask of the ledger.

use crate::account::AccountId;
use codec::Encode;
use datdot_market::{
    Balance, Block, ContractId, RequestId,
    contract::Reason,
    terms::{Feeds, Offer, Sources, Terms},
    view::Challenge,
};
use datdot_proof::proof::Proof;

/// A call, to be signed by the account it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Posts the account's offer, or changes it.
    Offer(Offer),
    /// Takes no new contracts; the bond returns with the last one.
    Leave,
    /// Opens a request and holds its budget.
    Request {
        /// What to host.
        feeds: Feeds,
        /// How to host it.
        terms: Terms,
        /// Where it can be fetched.
        sources: Sources,
    },
    /// Takes a contract the account was drawn for.
    Take(ContractId),
    /// Gives a contract back before it is hosted.
    Pass(ContractId, Reason),
    /// Says that the contract's data is stored and checked.
    Accept(ContractId),
    /// Answers a challenge.
    Prove {
        /// The challenge, as the account's view showed it.
        challenge: Challenge,
        /// The answer.
        proof: Proof,
    },
    /// Gives up a contract whose data is lost.
    Forfeit(ContractId),
    /// Pays out what a contract has earned.
    Settle(ContractId),
    /// Ends a request; what is left of its budget returns.
    Cancel(RequestId),
    /// Sends money.
    Transfer {
        /// To whom.
        to: AccountId,
        /// How much.
        amount: Balance,
    },
}

/// How long a transaction can come into a block: for `blocks` after block `from`, on the chain that contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub from: Block,
    pub blocks: Block,
}

impl Lifetime {
    /// The last block that it can come into: an era of the chain has a power of two blocks.
    pub fn last(&self) -> Block {
        let blocks = self.blocks.checked_next_power_of_two().unwrap_or(1 << 16).clamp(4, 1 << 16);
        self.from.saturating_add(blocks - 1)
    }
}

/// A call as the runtime names it: pallet, call, and arguments by name, each encoded.
pub(crate) struct Named {
    pub pallet: &'static str,
    pub call: &'static str,
    pub arguments: Vec<(&'static str, Vec<u8>)>,
}

/// Blocks for which an ordinary call can come into a block.
const LIFETIME: Block = 32;

impl Call {
    /// When it may come into a block if it is signed while `best` is the best block.
    pub(crate) fn lifetime(&self, best: Block) -> Lifetime {
        match self {
            // From the challenge's block on: if that is reorganised away, so is the challenge, and the proof with it.
            Self::Prove { challenge, .. } => Lifetime {
                from: challenge.asked,
                blocks: challenge.by.saturating_sub(challenge.asked).saturating_add(1),
            },
            _ => Lifetime { from: best, blocks: LIFETIME },
        }
    }

    pub(crate) fn named(&self) -> Named {
        let datdot = |call, arguments| Named { pallet: "Datdot", call, arguments };
        match self {
            Self::Offer(offer) => datdot("offer", vec![("offer", offer.encode())]),
            Self::Leave => datdot("leave", vec![]),
            Self::Request { feeds, terms, sources } => {
                let arguments =
                    vec![("feeds", feeds.encode()), ("terms", terms.encode()), ("sources", sources.encode())];
                datdot("request", arguments)
            }
            Self::Take(contract) => datdot("take", vec![("contract", contract.encode())]),
            Self::Pass(contract, reason) => {
                datdot("pass", vec![("contract", contract.encode()), ("reason", reason.encode())])
            }
            Self::Accept(contract) => datdot("accept", vec![("contract", contract.encode())]),
            Self::Prove { challenge, proof } => {
                datdot("prove", vec![("number", challenge.number.encode()), ("proof", proof.encode())])
            }
            Self::Forfeit(contract) => datdot("forfeit", vec![("contract", contract.encode())]),
            Self::Settle(contract) => datdot("settle", vec![("contract", contract.encode())]),
            Self::Cancel(request) => datdot("cancel", vec![("request", request.encode())]),
            Self::Transfer { to, amount } => Named {
                pallet: "Balances",
                call: "transfer_keep_alive",
                // A MultiAddress::Id, and an amount that is encoded compactly.
                arguments: vec![("dest", (0u8, to).encode()), ("value", codec::Compact(*amount).encode())],
            },
        }
    }
}
