//! How the pallets are set up: money, fees, limits, time.

#![warn(missing_docs)]

use frame_support::{
    derive_impl,
    dispatch::DispatchClass,
    parameter_types,
    traits::{ConstU8, ConstU16, ConstU32, ConstU64, ConstU128, Get, VariantCountOf},
    weights::{
        ConstantMultiplier, IdentityFee, Weight,
        constants::{ParityDbWeight, WEIGHT_REF_TIME_PER_MILLIS},
    },
};
use frame_system::limits::{BlockLength, BlockWeights};
use pallet_transaction_payment::{ConstFeeMultiplier, FungibleAdapter, Multiplier};
use sp_consensus_babe::{AllowedSlots, BabeEpochConfiguration};
use sp_runtime::Perbill;
use sp_version::RuntimeVersion;

use crate::{
    AccountId, Babe, Balance, Balances, Block, MILLI_DAT, Nonce, PalletInfo, Runtime, RuntimeCall, RuntimeEvent,
    RuntimeFreezeReason, RuntimeHoldReason, RuntimeOrigin, RuntimeTask, SS58_PREFIX, System, VERSION,
};

/// An account below this is removed, so that dust doesn't fill the state.
pub const EXISTENTIAL_DEPOSIT: Balance = MILLI_DAT;

/// The fee for a byte of a transaction. The fee for its compute is one unit a picosecond. A transfer, some 140 bytes
/// and 270 µs with all reads and writes, comes to about a thousandth of a token.
pub const LENGTH_FEE: Balance = 5_000_000;

/// Slots of a BABE epoch. A running chain can't change this.
pub const EPOCH_SLOTS: u64 = 600;

/// A slot has one author by lot, with a probability of a quarter, or else one by turn: each slot gets a block. Both sorts
/// come with a VRF output, of which the market makes its dice.
pub const EPOCH: BabeEpochConfiguration =
    BabeEpochConfiguration { c: (1, 4), allowed_slots: AllowedSlots::PrimaryAndSecondaryVRFSlots };

/// A block's extrinsics are at most this long in total, in bytes. Operational ones may use all of it, others three quarters.
const BLOCK_BYTES: u32 = 5 * 1024 * 1024;

/// The share of a block that ordinary transactions may fill. The rest is for proofs.
const NORMAL_SHARE: Perbill = Perbill::from_percent(75);

/// Time between two blocks in milliseconds, the length of a BABE slot: a setting of the genesis, one of the market's
/// parameters. A running chain can't change it.
pub struct BlockMillis;

impl Get<u64> for BlockMillis {
    fn get() -> u64 {
        pallet_datdot::Pallet::<Runtime>::block_millis()
    }
}

/// The least time between two blocks: BABE takes twice of it as its slot.
pub struct HalfSlot;

impl Get<u64> for HalfSlot {
    fn get() -> u64 {
        BlockMillis::get() / 2
    }
}

parameter_types! {
    pub const Version: RuntimeVersion = VERSION;
    pub const FeeMultiplier: Multiplier = Multiplier::from_u32(1);
    // A third of a slot: 2 s of 6 s, 333 ms of 1 s. What remains is for spreading the block and importing it.
    pub Weights: BlockWeights = BlockWeights::with_sensible_defaults(
        Weight::from_parts(BlockMillis::get() / 3 * WEIGHT_REF_TIME_PER_MILLIS, u64::MAX),
        NORMAL_SHARE,
    );
    pub Length: BlockLength = BlockLength::builder()
        .max_length(BLOCK_BYTES)
        .modify_max_length_for_class(DispatchClass::Normal, |bytes| *bytes = NORMAL_SHARE * *bytes)
        .build();
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
impl frame_system::Config for Runtime {
    type AccountData = pallet_balances::AccountData<Balance>;
    type AccountId = AccountId;
    type Block = Block;
    // Longer than the longest deadline of a proof, whose transaction names the block of its challenge.
    type BlockHashCount = ConstU32<4096>;
    type BlockLength = Length;
    type BlockWeights = Weights;
    type DbWeight = ParityDbWeight;
    type Nonce = Nonce;
    type SS58Prefix = ConstU16<SS58_PREFIX>;
    type SystemWeightInfo = frame_system::weights::SubstrateWeight<Runtime>;
    type ExtensionsWeightInfo = frame_system::SubstrateExtensionsWeight<Runtime>;
    type Version = Version;
}

impl pallet_timestamp::Config for Runtime {
    type MinimumPeriod = HalfSlot;
    type Moment = u64;
    type OnTimestampSet = Babe;
    type WeightInfo = pallet_timestamp::weights::SubstrateWeight<Runtime>;
}

/// Most validators there can be.
type MaxAuthorities = ConstU32<100>;

impl pallet_babe::Config for Runtime {
    type DisabledValidators = ();
    // The authorities are those of the genesis, so there are no sessions to change them, nor offences to report.
    type EpochChangeTrigger = pallet_babe::SameAuthoritiesForever;
    type EpochDuration = ConstU64<EPOCH_SLOTS>;
    type EquivocationReportSystem = ();
    type ExpectedBlockTime = BlockMillis;
    type KeyOwnerProof = sp_core::Void;
    type MaxAuthorities = MaxAuthorities;
    type MaxNominators = ConstU32<0>;
    type WeightInfo = ();
}

impl pallet_grandpa::Config for Runtime {
    type EquivocationReportSystem = ();
    type KeyOwnerProof = sp_core::Void;
    type MaxAuthorities = MaxAuthorities;
    type MaxNominators = ConstU32<0>;
    type MaxSetIdSessionEntries = ConstU64<0>;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = ();
}

impl pallet_balances::Config for Runtime {
    type AccountStore = System;
    type Balance = Balance;
    type DoneSlashHandler = ();
    type DustRemoval = ();
    type ExistentialDeposit = ConstU128<EXISTENTIAL_DEPOSIT>;
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxFreezes = VariantCountOf<RuntimeFreezeReason>;
    type MaxLocks = ConstU32<0>;
    type MaxReserves = ConstU32<0>;
    type ReserveIdentifier = [u8; 8];
    type RuntimeEvent = RuntimeEvent;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type RuntimeHoldReason = RuntimeHoldReason;
    type WeightInfo = pallet_balances::weights::SubstrateWeight<Runtime>;
}

impl pallet_transaction_payment::Config for Runtime {
    // Constant, so that a quoted fee is the fee; and burnt, so that nobody gains from filling a block.
    type FeeMultiplierUpdate = ConstFeeMultiplier<FeeMultiplier>;
    type LengthToFee = ConstantMultiplier<Balance, ConstU128<LENGTH_FEE>>;
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_transaction_payment::weights::SubstrateWeight<Runtime>;
    type WeightToFee = IdentityFee<Balance>;
}

// Without a key, which only the chains for development have, nobody can call it.
impl pallet_sudo::Config for Runtime {
    type RuntimeCall = RuntimeCall;
    type RuntimeEvent = RuntimeEvent;
    type WeightInfo = pallet_sudo::weights::SubstrateWeight<Runtime>;
}

impl pallet_datdot::Config for Runtime {
    type Currency = Balances;
    type Randomness = AuthorVrf;
    type RuntimeHoldReason = RuntimeHoldReason;
    type WeightInfo = pallet_datdot::weights::Estimates<Runtime>;
}

/// The VRF output of the block's author. BABE derives it from the digest at the end of the block.
pub struct AuthorVrf;

impl pallet_datdot::BlockRandomness for AuthorVrf {
    fn vrf_output() -> Option<[u8; 32]> {
        pallet_babe::AuthorVrfRandomness::<Runtime>::get()
    }
}
