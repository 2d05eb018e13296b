//! What calls cost: estimates, in time on a machine of the reference kind and in reads and writes.
//!
//! The largest are: an Ed25519 check of 60 µs a feed; a proof of 150 µs an opening, most of it BLAKE3 in wasm; holdings of up to
//! 13 KB, whose decoding takes 50 µs. They err on the high side.

use core::marker::PhantomData;
use frame_support::{
    traits::Get,
    weights::{Weight, constants::WEIGHT_REF_TIME_PER_MICROS},
};

/// What calls cost.
pub trait WeightInfo {
    /// Posting an offer.
    fn offer() -> Weight;
    /// Closing an offer.
    fn leave() -> Weight;
    /// Opening a request with so many feeds.
    fn request(feeds: u32) -> Weight;
    /// Taking a contract.
    fn take() -> Weight;
    /// Passing.
    fn pass() -> Weight;
    /// Accepting.
    fn accept() -> Weight;
    /// Checking a proof with so many openings.
    fn prove(openings: u32) -> Weight;
    /// Giving up a contract.
    fn forfeit() -> Weight;
    /// Paying a contract.
    fn settle() -> Weight;
    /// Cancelling a request with a full set of contracts.
    fn cancel() -> Weight;
    /// The start of a block that looks at so many hosters, ends so many contracts, and serves so many requests.
    fn on_initialize(hosters: u32, lapsed: u32, requests: u32) -> Weight;
}

/// Estimates over the runtime's price of storage.
pub struct Estimates<T>(PhantomData<T>);

fn cost<D: Get<frame_support::weights::RuntimeDbWeight>>(micros: u64, reads: u64, writes: u64) -> Weight {
    let time = Weight::from_parts(micros.saturating_mul(WEIGHT_REF_TIME_PER_MICROS), 0);
    time.saturating_add(D::get().reads_writes(reads, writes))
}

impl<T: frame_system::Config> WeightInfo for Estimates<T> {
    fn offer() -> Weight {
        // A full phase or two may be looked at first.
        cost::<T::DbWeight>(100, 10, 6)
    }

    fn leave() -> Weight {
        cost::<T::DbWeight>(100, 6, 8)
    }

    fn request(feeds: u32) -> Weight {
        cost::<T::DbWeight>(200 + 100 * u64::from(feeds), 6, 8)
    }

    fn take() -> Weight {
        cost::<T::DbWeight>(60, 4, 2)
    }

    fn pass() -> Weight {
        // The request's other contracts are read to find its next entry in the agenda; 32 of them at most.
        cost::<T::DbWeight>(200, 40, 10)
    }

    fn accept() -> Weight {
        cost::<T::DbWeight>(300, 40, 8)
    }

    fn prove(openings: u32) -> Weight {
        cost::<T::DbWeight>(500 + 150 * u64::from(openings), 5, 2)
    }

    fn forfeit() -> Weight {
        cost::<T::DbWeight>(400, 42, 10)
    }

    fn settle() -> Weight {
        cost::<T::DbWeight>(150, 6, 4)
    }

    fn cancel() -> Weight {
        cost::<T::DbWeight>(32 * 120, 32 * 4, 32 * 4)
    }

    fn on_initialize(hosters: u32, lapsed: u32, requests: u32) -> Weight {
        // The end of the block, which folds the mix, is in the one that is added.
        let windows = cost::<T::DbWeight>(60, 2, 2).saturating_mul(u64::from(hosters).saturating_add(1));
        let lapses = cost::<T::DbWeight>(200, 40, 8).saturating_mul(lapsed.into());
        // A draw looks at 256 hosters of 200 bytes, which lie together; a full request has 32 contracts.
        let agenda = cost::<T::DbWeight>(2_000, 300, 60).saturating_mul(requests.into());
        windows.saturating_add(lapses).saturating_add(agenda)
    }
}
