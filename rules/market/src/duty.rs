//! Who owes what by when. Derived from the ledger's state, not from events seen: a peer that was off for a day misses nothing.

use crate::{
    Block, ContractId, RequestId,
    contract::State,
    hoster::covered,
    view::{AccountView, Challenge},
};
use alloc::vec::Vec;

/// Something that an account should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Take or pass a contract that it was drawn for.
    Answer {
        /// The contract.
        contract: ContractId,
        /// Last block to do it in.
        by: Block,
    },
    /// Fetch the data of a contract and accept it, or pass.
    Fetch {
        /// The contract.
        contract: ContractId,
        /// Last block to accept in.
        by: Block,
    },
    /// Keep and serve the data of a contract.
    Keep {
        /// The contract.
        contract: ContractId,
    },
    /// Prove what is held.
    Prove(Challenge),
    /// Serve the data of a request until enough hosters have it.
    Seed {
        /// The request.
        request: RequestId,
    },
}

/// All duties of an account.
pub fn duties<Account>(view: &AccountView<Account>) -> Vec<Duty> {
    let hosting = view.hosting.iter().flat_map(|hosting| {
        let contracts = hosting.contracts.iter().map(|work| match work.contract.state {
            State::Drawn { answer_by } => Duty::Answer { contract: work.id, by: answer_by },
            State::Fetching { by } => Duty::Fetch { contract: work.id, by },
            State::Hosting { .. } | State::Ending { .. } => Duty::Keep { contract: work.id },
        });
        let owed = hosting.challenge.filter(|challenge| {
            challenge.number >= hosting.hoster.owes_from
                && covered(&hosting.holdings, challenge.number).next().is_some()
        });
        contracts.chain(owed.map(Duty::Prove))
    });
    let sponsoring = view
        .requests
        .iter()
        .filter(|request| request.request.closing.is_none())
        .map(|request| Duty::Seed { request: request.id });
    hosting.chain(sponsoring).collect()
}
