//! The market on the ledger: offers, requests, contracts, challenges and money.
//!
//! A thin shell around `datdot-market` and `datdot-proof`: a call checks who asks, looks up, asks the rules, writes, and says in an
//! event what happened. What happens without a call (draws, deadlines, lapses, ends) is done by a budgeted `on_initialize`:
//!
//! - **Windows.** With every block the windows of at most [`MAX_HOSTERS_PER_PHASE`] hosters close. Whoever missed too many
//!   challenges in a row lapses. A challenge itself is never written down: it follows from the block's number and [`Mix`].
//! - **Agenda.** Every request has exactly one entry, in the block in which something is due about it. A block serves at most
//!   [`REQUESTS_PER_BLOCK`]; what doesn't fit goes to the next block with room, never further than
//!   [`MAX_REQUESTS`] / [`REQUESTS_PER_BLOCK`] blocks away.
//!
//! | file | what it does |
//! |---|---|
//! | `hosting.rs`, `sponsoring.rs` | the calls of hosters and sponsors |
//! | `lifecycle.rs` | what happens by itself |
//! | `agenda.rs` | who is looked at when |
//! | `money.rs` | what is held, paid and returned |
//! | [`api`], `views.rs` | what peers can ask |
//! | `invariants.rs` | what is always true |
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod api;
pub mod weights;

mod agenda;
mod hosting;
#[cfg(any(feature = "try-runtime", test))]
mod invariants;
mod lifecycle;
mod money;
mod refusals;
mod sponsoring;
#[cfg(test)]
mod tests;
mod views;

pub use pallet::*;
pub use weights::WeightInfo;

use datdot_market::{contract::Contract, request::Request};

/// Requests that can be open at a time.
pub const MAX_REQUESTS: u32 = 1024;
/// Requests that one block looks at.
pub const REQUESTS_PER_BLOCK: u32 = 16;
/// Hosters that are challenged in one block.
pub const MAX_HOSTERS_PER_PHASE: u32 = 64;
/// Hosters that can lapse in one block. Whoever comes after them is looked at again a period later.
pub const LAPSES_PER_BLOCK: u32 = 4;

type ContractOf<T> = Contract<<T as frame_system::Config>::AccountId>;
type RequestOf<T> = Request<<T as frame_system::Config>::AccountId>;

/// Where a block's own randomness comes from: the VRF output in its BABE digest.
pub trait BlockRandomness {
    /// The output of the block that is being finalized, asked in `on_finalize`: the pallet must come after BABE.
    fn vrf_output() -> Option<[u8; 32]>;
}

#[frame_support::pallet]
pub mod pallet {
    use super::*;
    use alloc::vec::Vec;
    use core::marker::PhantomData;
    use datdot_market::{
        Balance, Block, ContractId, MAX_CONTRACTS, RequestId,
        contract::{End, Reason},
        hoster::{Holdings, Hoster},
        params::Params,
        request::{Closing, Why},
        terms::{Feeds, Offer, Sources, Terms},
    };
    use datdot_proof::proof::Proof;
    use frame_support::{
        pallet_prelude::*,
        traits::{ConstU32, fungible},
    };
    use frame_system::pallet_prelude::*;
    use sp_runtime::SaturatedConversion;

    /// What the pallet needs of the runtime.
    #[pallet::config]
    pub trait Config: frame_system::Config<RuntimeEvent: From<Event<Self>>> {
        /// The coin that budgets and bonds are held in.
        type Currency: fungible::Mutate<Self::AccountId, Balance = Balance>
            + fungible::hold::Mutate<Self::AccountId, Balance = Balance, Reason = Self::RuntimeHoldReason>;
        /// The runtime's reasons for holds.
        type RuntimeHoldReason: From<HoldReason>;
        /// The randomness of challenges and draws.
        type Randomness: BlockRandomness;
        /// What calls cost.
        type WeightInfo: WeightInfo;
    }

    /// Why money of an account is held.
    #[pallet::composite_enum]
    pub enum HoldReason {
        /// The budgets of its requests, and what its contracts have reserved and not paid.
        #[codec(index = 0)]
        Budget,
        /// The bond of its offer.
        #[codec(index = 1)]
        Bond,
        /// The deposits of its requests.
        #[codec(index = 2)]
        Deposit,
    }

    /// The pallet.
    #[pallet::pallet]
    pub struct Pallet<T>(_);

    /// The dev chain's parameters, for a genesis that names none.
    #[pallet::type_value]
    pub fn DefaultParams() -> Params {
        Params::dev()
    }

    /// The chain's parameters; set in genesis.
    #[pallet::storage]
    pub type Parameters<T> = StorageValue<_, Params, ValueQuery, DefaultParams>;

    /// The running mix of all VRF outputs up to the last finished block:
    /// `mix(N) = BLAKE2b-256(mix(N-1) ‖ vrf(N))`, folded at the end of block N, so that no transaction of N knows it.
    #[pallet::storage]
    pub type Mix<T> = StorageValue<_, [u8; 32], ValueQuery>;

    /// The mixes of the last blocks, a ring of more than four periods: `block % ring` → block and its mix.
    #[pallet::storage]
    pub type Mixes<T> = StorageMap<_, Twox64Concat, u32, (Block, [u8; 32])>;

    /// Everybody who offers space.
    #[pallet::storage]
    pub type Hosters<T: Config> = CountedStorageMap<_, Blake2_128Concat, T::AccountId, Hoster>;

    /// What a hoster's challenges cover.
    #[pallet::storage]
    pub type HoldingsOf<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Holdings, ValueQuery>;

    /// A hoster's contracts, whatever their state.
    #[pallet::storage]
    pub type ContractsOf<T: Config> =
        StorageMap<_, Blake2_128Concat, T::AccountId, BoundedVec<ContractId, ConstU32<MAX_CONTRACTS>>, ValueQuery>;

    /// Who is challenged in the blocks of a phase.
    #[pallet::storage]
    pub type Phases<T: Config> =
        StorageMap<_, Twox64Concat, Block, BoundedVec<T::AccountId, ConstU32<MAX_HOSTERS_PER_PHASE>>, ValueQuery>;

    /// The phase that the next new hoster gets, if it has room.
    #[pallet::storage]
    pub type NextPhase<T> = StorageValue<_, Block, ValueQuery>;

    /// What sponsors ask for.
    #[pallet::storage]
    pub type Requests<T: Config> = CountedStorageMap<_, Twox64Concat, RequestId, RequestOf<T>>;

    /// The feeds of a request, with the heads that their authors signed.
    #[pallet::storage]
    pub type FeedsOf<T> = StorageMap<_, Twox64Concat, RequestId, Feeds>;

    /// Who hosts what.
    #[pallet::storage]
    pub type Contracts<T: Config> = StorageMap<_, Twox64Concat, ContractId, ContractOf<T>>;

    /// The requests that a block has to look at.
    #[pallet::storage]
    pub type Agenda<T> =
        StorageMap<_, Twox64Concat, Block, BoundedVec<RequestId, ConstU32<REQUESTS_PER_BLOCK>>, ValueQuery>;

    /// The name of the next request.
    #[pallet::storage]
    pub type NextRequest<T> = StorageValue<_, RequestId, ValueQuery>;

    /// The name of the next contract.
    #[pallet::storage]
    pub type NextContract<T> = StorageValue<_, ContractId, ValueQuery>;

    /// What a chain starts with.
    #[pallet::genesis_config]
    pub struct GenesisConfig<T: Config> {
        /// The chain's parameters; they must pass [`Params::check`].
        pub params: Params,
        /// Nothing.
        #[serde(skip)]
        pub _config: PhantomData<T>,
    }

    impl<T: Config> Default for GenesisConfig<T> {
        fn default() -> Self {
            Self { params: Params::dev(), _config: PhantomData }
        }
    }

    #[pallet::genesis_build]
    impl<T: Config> BuildGenesisConfig for GenesisConfig<T> {
        fn build(&self) {
            if let Err(why) = self.params.check() {
                panic!("the genesis can't be used: {why}");
            }
            Parameters::<T>::put(self.params);
        }
    }

    /// What happened, with enough to tell it to a user.
    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    #[expect(missing_docs, reason = "the fields are what their names say")]
    pub enum Event<T: Config> {
        /// An offer was posted or changed, and is open.
        #[codec(index = 0)]
        OfferPosted { hoster: T::AccountId, space: u64, price: Balance, bond: Balance },
        /// An offer takes nothing new; with the last contract it goes.
        #[codec(index = 1)]
        OfferClosing { hoster: T::AccountId, contracts: u32 },
        /// An offer is gone, its bond is free.
        #[codec(index = 2)]
        OfferWithdrawn { hoster: T::AccountId, bond: Balance },
        /// A request was opened, its budget and its deposit held; the first draw is in block `draw`.
        #[codec(index = 3)]
        RequestOpened {
            request: RequestId,
            sponsor: T::AccountId,
            bytes: u64,
            budget: Balance,
            deposit: Balance,
            draw: Block,
        },
        /// A hoster was drawn and has until block `answer_by` to take or pass.
        #[codec(index = 4)]
        Drawn { request: RequestId, contract: ContractId, hoster: T::AccountId, answer_by: Block },
        /// Replicas stay vacant; they are drawn again in block `next`.
        #[codec(index = 5)]
        Waiting { request: RequestId, vacant: u32, why: Why, next: Block },
        /// A hoster took a contract and fetches until block `by` at the latest.
        #[codec(index = 6)]
        Taken { request: RequestId, contract: ContractId, hoster: T::AccountId, by: Block },
        /// A hoster passed.
        #[codec(index = 7)]
        Passed { request: RequestId, contract: ContractId, hoster: T::AccountId, reason: Reason },
        /// A hoster has the data. `reserve` is set apart for `periods` periods, the first of them challenge number `first`.
        #[codec(index = 8)]
        Accepted {
            request: RequestId,
            contract: ContractId,
            hoster: T::AccountId,
            reserve: Balance,
            first: u32,
            periods: u32,
        },
        /// A hoster answered a challenge: everything that it covers earned a period.
        #[codec(index = 9)]
        Proven { hoster: T::AccountId, number: u32, contracts: u32, openings: u32, bytes: u32 },
        /// The window of a challenge closed without a proof, the `missed`th in a row.
        #[codec(index = 10)]
        ChallengeMissed { hoster: T::AccountId, number: u32, missed: u32 },
        /// A hoster missed too many challenges in a row: its contracts ended, and its bond paid `penalty` to their requests.
        #[codec(index = 11)]
        Lapsed { hoster: T::AccountId, contracts: u32, penalty: Balance },
        /// A hoster gave up a contract, and its bond paid `penalty` to the request.
        #[codec(index = 12)]
        Forfeited { request: RequestId, contract: ContractId, hoster: T::AccountId, penalty: Balance },
        /// A contract is over. `paid` is what the hoster got for it in all.
        #[codec(index = 13)]
        ContractEnded { request: RequestId, contract: ContractId, hoster: T::AccountId, why: End, paid: Balance },
        /// A hoster was paid what it had earned.
        #[codec(index = 14)]
        Paid { request: RequestId, contract: ContractId, hoster: T::AccountId, amount: Balance },
        /// A hoster's account could not take its pay: it stays held for it, and owed.
        #[codec(index = 15)]
        PayOwed { request: RequestId, contract: ContractId, hoster: T::AccountId, amount: Balance },
        /// A request takes no more hosters; with its last contract it goes.
        #[codec(index = 16)]
        RequestClosing { request: RequestId, why: Closing },
        /// A request is gone. What was left of its budget is free, and its deposit.
        #[codec(index = 17)]
        RequestClosed { request: RequestId, sponsor: T::AccountId, returned: Balance },
    }

    /// Why a call was refused, and what to do about it.
    #[pallet::error]
    #[derive(PartialEq, Eq)]
    pub enum Error<T> {
        /// There is no such contract. It may have ended: look at the events of its request.
        #[codec(index = 0)]
        NoSuchContract,
        /// There is no such request. It may have closed and returned its budget.
        #[codec(index = 1)]
        NoSuchRequest,
        /// The contract is another hoster's: sign with the account that was drawn.
        #[codec(index = 2)]
        NotYourContract,
        /// The request is another sponsor's: sign with the account that opened it.
        #[codec(index = 3)]
        NotYourRequest,
        /// The account has no offer: post one first.
        #[codec(index = 4)]
        NoOffer,
        /// The offer must have at least one byte of space.
        #[codec(index = 5)]
        NoSpace,
        /// Contracts use more than the new space: offer at least what is used, or leave.
        #[codec(index = 6)]
        SpaceInUse,
        /// The term is shorter than two periods: choose a longer one.
        #[codec(index = 7)]
        TermTooShort,
        /// Replicas must be 1 to 16.
        #[codec(index = 8)]
        BadReplicas,
        /// A request names 1 to 4 feeds, none twice, each with at least one byte.
        #[codec(index = 9)]
        BadFeeds,
        // Index 10 was for requests without sources.
        /// A feed is above 16 TiB, or the cost is more than can be counted.
        #[codec(index = 11)]
        TooLarge,
        /// The head of this feed (counted from 0) does not fit together, in its roots, its length or its bytes: take it from the author
        /// or a peer again.
        #[codec(index = 12)]
        BadHead(u8),
        /// The manifest of this feed (counted from 0) is another feed's: name the key that belongs to it.
        #[codec(index = 13)]
        OtherFeed(u8),
        /// The head of this feed (counted from 0) is not signed by the feed's author: take it from the author or a peer again.
        #[codec(index = 14)]
        HeadNotSigned(u8),
        /// The ledger has its full number of requests: try again when some are over.
        #[codec(index = 15)]
        TooManyRequests,
        /// The ledger has no room for one more hoster: try again later.
        #[codec(index = 16)]
        TooManyHosters,
        /// The account can't lock the budget and the deposit: fund it, or ask for less (the existential deposit must stay free).
        #[codec(index = 17)]
        BudgetAboveBalance,
        /// The account can't lock the bond: fund it (the existential deposit must stay free).
        #[codec(index = 18)]
        BondAboveBalance,
        /// The contract is not waiting to be taken.
        #[codec(index = 19)]
        NotDrawn,
        /// The contract is not being fetched: take it first; one that is hosted can be forfeited.
        #[codec(index = 20)]
        NotFetching,
        /// The contract is not hosting: there is nothing to pay or to give up.
        #[codec(index = 21)]
        NotHosting,
        /// The deadline of the contract is over: the slot goes to another hoster.
        #[codec(index = 22)]
        TooLate,
        /// Not one more period fits into the request's term and budget: pass.
        #[codec(index = 23)]
        NothingLeft,
        /// The request takes no more hosters: drop what was fetched of it.
        #[codec(index = 24)]
        RequestClosing,
        /// The challenge can't be answered in this block: its window is not open yet, or over.
        #[codec(index = 25)]
        ChallengeNotOpen,
        /// The challenge was answered before: nothing is to be done.
        #[codec(index = 26)]
        ChallengeAnswered,
        /// The challenge covers nothing: what was accepted lately is asked for from the next one on.
        #[codec(index = 27)]
        NothingToProve,
        /// The proof has another number of openings than the challenge has positions: is it for this challenge?
        #[codec(index = 28)]
        WrongOpenings,
        /// The opening of this position (counted from 0) has the wrong size or number of hashes: make the proof again.
        #[codec(index = 29)]
        MalformedOpening(u8),
        /// The opening of this position (counted from 0) does not lead to the segment's root: check that segment on disk.
        #[codec(index = 30)]
        FalseOpening(u8),
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(now: BlockNumberFor<T>) -> Weight {
            Self::begin_block(now.saturated_into())
        }

        fn on_finalize(now: BlockNumberFor<T>) {
            Self::fold_mix(now.saturated_into());
        }

        #[cfg(feature = "try-runtime")]
        fn try_state(_: BlockNumberFor<T>) -> Result<(), sp_runtime::TryRuntimeError> {
            Self::do_try_state()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// A hoster posts its offer or changes it. Holds the bond, or tops it up. An offer that was closed by silence or a lapse is
        /// open again.
        ///
        /// Errors: `NoSpace`, `TermTooShort`, `SpaceInUse`, `BondAboveBalance`, `TooManyHosters`.
        #[pallet::call_index(0)]
        #[pallet::weight(T::WeightInfo::offer())]
        pub fn offer(origin: OriginFor<T>, offer: Offer) -> DispatchResult {
            Self::post_offer(ensure_signed(origin)?, offer)
        }

        /// A hoster takes nothing new. Without contracts its bond returns at once, else with the last of them.
        ///
        /// Errors: `NoOffer`.
        #[pallet::call_index(1)]
        #[pallet::weight(T::WeightInfo::leave())]
        pub fn leave(origin: OriginFor<T>) -> DispatchResult {
            Self::close_offer(ensure_signed(origin)?)
        }

        /// A sponsor asks for feeds to be hosted and locks the budget. Checks that each head is signed by its feed's author.
        ///
        /// Errors: those of the terms, of the heads (with the place of the feed), `BudgetAboveBalance`, `TooManyRequests`.
        #[pallet::call_index(2)]
        #[pallet::weight(T::WeightInfo::request(feeds.len() as u32))]
        pub fn request(origin: OriginFor<T>, feeds: Feeds, terms: Terms, sources: Sources) -> DispatchResult {
            Self::open_request(ensure_signed(origin)?, feeds, terms, sources)
        }

        /// A drawn hoster promises to fetch, within a time that depends on the bytes.
        ///
        /// Errors: `NoSuchContract`, `NotYourContract`, `RequestClosing`, `NotDrawn`, `TooLate`.
        #[pallet::call_index(3)]
        #[pallet::weight(T::WeightInfo::take())]
        pub fn take(origin: OriginFor<T>, contract: ContractId) -> DispatchResult {
            Self::take_contract(ensure_signed(origin)?, contract)
        }

        /// A hoster that was drawn, or fetches, does not host. It costs nothing.
        ///
        /// Errors: `NoSuchContract`, `NotYourContract`, `NotFetching`.
        #[pallet::call_index(4)]
        #[pallet::weight(T::WeightInfo::pass())]
        pub fn pass(origin: OriginFor<T>, contract: ContractId, reason: Reason) -> DispatchResult {
            Self::pass_contract(ensure_signed(origin)?, contract, reason)
        }

        /// A hoster has fetched and checked everything. Its pay for the rest of the term is set apart; challenges cover the
        /// contract from the hoster's next one on.
        ///
        /// Errors: `NoSuchContract`, `NotYourContract`, `RequestClosing`, `NotFetching`, `TooLate`, `NothingLeft`.
        #[pallet::call_index(5)]
        #[pallet::weight(T::WeightInfo::accept())]
        pub fn accept(origin: OriginFor<T>, contract: ContractId) -> DispatchResult {
            Self::accept_contract(ensure_signed(origin)?, contract)
        }

        /// A hoster answers its challenge. A valid proof is free; a refused one costs the fee, changes nothing and can be
        /// corrected until the window closes.
        ///
        /// Errors: `NoOffer`, those of the challenge, those of the proof (with the place of the position).
        #[pallet::call_index(6)]
        #[pallet::weight((T::WeightInfo::prove(proof.openings.len() as u32), DispatchClass::Operational))]
        pub fn prove(origin: OriginFor<T>, number: u32, proof: Proof) -> DispatchResultWithPostInfo {
            Self::answer_challenge(ensure_signed(origin)?, number, proof)?;
            Ok(Pays::No.into())
        }

        /// A hoster gives up a contract that it hosts. Its bond pays the penalty to the request, and the slot is drawn again.
        ///
        /// Errors: `NoSuchContract`, `NotYourContract`, `NotHosting`.
        #[pallet::call_index(7)]
        #[pallet::weight(T::WeightInfo::forfeit())]
        pub fn forfeit(origin: OriginFor<T>, contract: ContractId) -> DispatchResult {
            Self::forfeit_contract(ensure_signed(origin)?, contract)
        }

        /// Anyone has a hoster paid what it has earned with a contract so far. Pay that can't be delivered stays owed.
        ///
        /// Errors: `NoSuchContract`, `NotHosting`.
        #[pallet::call_index(8)]
        #[pallet::weight(T::WeightInfo::settle())]
        pub fn settle(origin: OriginFor<T>, contract: ContractId) -> DispatchResult {
            ensure_signed(origin)?;
            Self::settle_contract(contract)
        }

        /// A sponsor stops its request. Challenges that are open still earn; after the last the rest of the budget returns.
        ///
        /// Errors: `NoSuchRequest`, `NotYourRequest`, `RequestClosing`.
        #[pallet::call_index(9)]
        #[pallet::weight(T::WeightInfo::cancel())]
        pub fn cancel(origin: OriginFor<T>, request: RequestId) -> DispatchResult {
            Self::cancel_request(ensure_signed(origin)?, request)
        }
    }

    impl<T: Config> Pallet<T> {
        /// Target time between blocks in milliseconds: what the runtime sets its slots by.
        pub fn block_millis() -> u64 {
            Parameters::<T>::get().block_millis.into()
        }

        pub(crate) fn now() -> Block {
            frame_system::Pallet::<T>::block_number().saturated_into()
        }

        pub(crate) fn contracts_in(request: &RequestOf<T>) -> Vec<(ContractId, ContractOf<T>)> {
            request.contracts.iter().filter_map(|id| Some((*id, Contracts::<T>::get(id)?))).collect()
        }
    }
}
