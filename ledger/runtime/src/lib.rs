//! The ledger's state machine: accounts and fees, BABE and GRANDPA with the authorities of the genesis,
//! and the market.
//!
//! | file | what it holds |
//! |---|---|
//! | `lib.rs` | which pallets there are, in which order, and the shape of blocks and transactions |
//! | `config.rs` | how each pallet is set up: money, fees, limits, time |
//! | `genesis.rs` | the chains that come with the runtime |
//! | `apis.rs` | what the node asks the runtime |

#![cfg_attr(not(feature = "std"), no_std)]
// `runtime` and `impl_runtime_apis!` recurse once for each pallet and API.
#![recursion_limit = "256"]
#![allow(missing_docs, reason = "`runtime` writes dozens of public types; the other files turn it on again")]

extern crate alloc;

use alloc::borrow::Cow;
// For the macros below.
#[cfg(not(feature = "std"))]
use alloc::vec::Vec;

use sp_runtime::{
    MultiAddress, MultiSignature, generic, impl_opaque_keys,
    traits::{BlakeTwo256, IdentifyAccount, Verify},
};
use sp_version::RuntimeVersion;

pub use datdot_market::params::DAT;

mod apis;
mod config;
pub mod genesis;

pub use apis::RuntimeApi;
#[cfg(feature = "std")]
pub use apis::api;
pub use config::{BlockMillis, EPOCH, EPOCH_SLOTS, EXISTENTIAL_DEPOSIT, LENGTH_FEE};

#[cfg(feature = "std")]
include!(concat!(env!("OUT_DIR"), "/wasm_binary.rs"));

/// Sr25519, Ed25519 or ECDSA; the project's own wallets use Sr25519.
pub type Signature = MultiSignature;
/// The 32 bytes that a signature's key stands for.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// An account as a transaction names it.
pub type Address = MultiAddress<AccountId, ()>;
/// Money, in the smallest unit: [`DAT`] of them are one token.
pub type Balance = u128;
/// Height of a block, the genesis being 0.
pub type BlockNumber = u32;
/// How many transactions an account has sent.
pub type Nonce = u32;
/// BLAKE2b with 32 bytes of output, of an encoded header or extrinsic.
pub type Hash = sp_core::H256;
/// A block's head, as it is hashed and signed.
pub type Header = generic::Header<BlockNumber, BlakeTwo256>;
/// A header and its extrinsics.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// A signed transaction or an inherent, before its signature is checked.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;

/// Blocks as the node passes them on, without looking into transactions: over RPC these are then hex, as clients expect.
#[cfg(feature = "std")]
pub mod opaque {
    /// A header and its extrinsics, each as encoded bytes.
    pub type Block = sp_runtime::generic::Block<super::Header, sp_runtime::OpaqueExtrinsic>;
}

/// What a signed transaction carries and has checked besides its call, in this order.
pub type TxExtension = (
    frame_system::CheckNonZeroSender<Runtime>,
    frame_system::CheckSpecVersion<Runtime>,
    frame_system::CheckTxVersion<Runtime>,
    frame_system::CheckGenesis<Runtime>,
    frame_system::CheckEra<Runtime>,
    frame_system::CheckNonce<Runtime>,
    frame_system::CheckWeight<Runtime>,
    pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
    frame_system::WeightReclaim<Runtime>,
);

/// Runs a block's transactions through the pallets.
pub type Executive =
    frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;

/// A thousandth of a token.
pub const MILLI_DAT: Balance = DAT / 1_000;
/// Decimals of [`DAT`].
pub const DECIMALS: u8 = 12;
/// What wallets call the token.
pub const SYMBOL: &str = "DAT";
/// The first byte of an address in its SS58 form: the one for chains without a registered prefix.
pub const SS58_PREFIX: u16 = 42;

/// Names the runtime; `spec_version` grows with every change of what a block means.
#[sp_version::runtime_version]
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("datdot"),
    impl_name: Cow::Borrowed("datdot"),
    authoring_version: 1,
    spec_version: 1,
    impl_version: 1,
    apis: apis::RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

impl_opaque_keys! {
    /// The keys of a validator.
    pub struct SessionKeys {
        /// Makes blocks.
        pub babe: Babe,
        /// Finalizes them.
        pub grandpa: Grandpa,
    }
}

#[frame_support::runtime]
mod runtime {
    //! The order matters: a block begins and ends with the pallets from top to bottom.

    #[runtime::runtime]
    #[runtime::derive(
        RuntimeCall,
        RuntimeEvent,
        RuntimeError,
        RuntimeOrigin,
        RuntimeFreezeReason,
        RuntimeHoldReason,
        RuntimeSlashReason,
        RuntimeLockId,
        RuntimeTask,
        RuntimeViewFunction
    )]
    /// The ledger.
    pub struct Runtime;

    #[runtime::pallet_index(0)]
    pub type System = frame_system;

    #[runtime::pallet_index(1)]
    pub type Timestamp = pallet_timestamp;

    #[runtime::pallet_index(2)]
    pub type Babe = pallet_babe;

    #[runtime::pallet_index(3)]
    pub type Grandpa = pallet_grandpa;

    #[runtime::pallet_index(4)]
    pub type Balances = pallet_balances;

    #[runtime::pallet_index(5)]
    pub type TransactionPayment = pallet_transaction_payment;

    #[runtime::pallet_index(6)]
    pub type Sudo = pallet_sudo;

    // The market is last: at the end of a block it reads the VRF output that Babe has just written there.
    #[runtime::pallet_index(7)]
    pub type Datdot = pallet_datdot;
}
