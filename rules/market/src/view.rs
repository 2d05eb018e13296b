//! What the ledger shows to one account, in one answer that belongs to one block: all that a peer needs to derive its duties.

use crate::{
    Balance, Block, ContractId, RequestId, clock,
    contract::Contract,
    hoster::{Holdings, Hoster},
    params::Params,
    request::Request,
    terms::{Feeds, Source},
};
use alloc::vec::Vec;
use codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The view of one account.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct AccountView<Account> {
    /// The block whose state this is.
    pub at: Block,
    /// The chain's parameters.
    pub params: Params,
    /// What the account can spend or hold.
    pub free: Balance,
    /// What is held of it as budgets of its requests.
    pub budgets: Balance,
    /// What is held of it as deposits of its requests.
    pub deposits: Balance,
    /// What is held of it as bond.
    pub bond: Balance,
    /// Its side as a hoster.
    pub hosting: Option<Hosting<Account>>,
    /// The requests that it sponsors.
    pub requests: Vec<RequestView<Account>>,
}

/// An account's side as a hoster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Hosting<Account> {
    /// Its offer and standing.
    pub hoster: Hoster,
    /// What its challenges cover.
    pub holdings: Holdings,
    /// Its contracts, each with all that is needed to fetch it.
    pub contracts: Vec<Work<Account>>,
    /// The challenge whose window is open after this block.
    pub challenge: Option<Challenge>,
}

/// A contract with what its hoster needs to know of the request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Work<Account> {
    /// Names the contract.
    pub id: ContractId,
    /// The contract.
    pub contract: Contract<Account>,
    /// What to fetch.
    pub feeds: Feeds,
    /// Where to fetch: hosters that have it, then the request's sources.
    pub sources: Vec<Source>,
}

/// A challenge that can be answered in the next block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct Challenge {
    /// Its number.
    pub number: u32,
    /// The block it was asked in: a proof's mortal era begins there.
    pub asked: Block,
    /// Last block to answer it in.
    pub by: Block,
    /// What positions are drawn from.
    pub seed: [u8; 32],
}

/// A request with what its sponsor wants to see.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct RequestView<Account> {
    /// Names the request.
    pub id: RequestId,
    /// The request.
    pub request: Request<Account>,
    /// The keys of its feeds.
    pub keys: Vec<[u8; 32]>,
    /// Its contracts.
    pub contracts: Vec<ContractView<Account>>,
}

/// A contract with its earned time.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct ContractView<Account> {
    /// Names the contract.
    pub id: ContractId,
    /// The contract.
    pub contract: Contract<Account>,
    /// Periods proven, if it came to hosting.
    pub proven: Option<u32>,
    /// Where the hoster can be reached.
    pub sources: Vec<Source>,
}

/// What anybody can ask about the market: to quote a request before signing it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct MarketView {
    /// The block whose state this is.
    pub at: Block,
    /// The chain's parameters.
    pub params: Params,
    /// Sampled offers that would be drawn now: price per GiB·day, free bytes, longest term.
    pub offers: Vec<(Balance, u64, Block)>,
}

impl<Account> Hosting<Account> {
    /// The challenge that a proof in the next block can answer and that covers something, answered or not.
    pub fn asked(&self, at: Block, params: &Params) -> Option<(u32, Block)> {
        let number = clock::open(self.hoster.phase, at.saturating_add(1), params)?;
        crate::hoster::covered(&self.holdings, number).next()?;
        Some((number, clock::closes(self.hoster.phase, number, params)))
    }
}
