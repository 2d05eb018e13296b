//! What is true about the market: offers, requests, matching, contracts, duties, earned time and payouts.
//!
//! Everything here is a decision over values that are passed in: no storage, no clock, no dice. The pallet keeps these
//! types and asks these functions; peers read the same types and derive their duties with them, so ledger and peer
//! can't disagree about who owes what by when.
//!
//! - [`params`] the numbers of a chain, in one place
//! - [`terms`] what a hoster offers and what a sponsor asks for
//! - [`clock`] when a hoster is challenged
//! - [`hoster`], [`request`], [`contract`] the three things that live on the ledger
//! - [`matching`] who gets a slot
//! - [`payout`] what it costs and what was earned
//! - [`view`], [`duty`] what one account sees, and what it owes
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod clock;
pub mod contract;
pub mod duty;
pub mod hoster;
pub mod matching;
pub mod params;
pub mod payout;
pub mod request;
pub mod terms;
pub mod view;

/// A block's number on the ledger: time is counted in blocks.
pub type Block = u32;
/// An amount of money in the ledger's smallest unit.
pub type Balance = u128;
/// Names a request.
pub type RequestId = u32;
/// Names a contract.
pub type ContractId = u32;

/// Bytes in a GiB, the unit in which space is priced.
pub const GIB: u64 = 1 << 30;
/// Feeds that one request may name: a drive has two.
pub const MAX_FEEDS: u32 = 4;
/// Sources that one request may name, and addresses that one offer may have.
pub const MAX_SOURCES: u32 = 4;
/// Replicas that one request may ask for.
pub const MAX_REPLICAS: u32 = 16;
/// Contracts that one hoster may have at a time, whatever their state.
pub const MAX_CONTRACTS: u32 = 64;
/// Hosters that one request remembers not to draw again soon.
pub const MAX_RESTING: u32 = 32;
