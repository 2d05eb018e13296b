//! The calls of sponsors.

use crate::{Config, Error, Event, FeedsOf, MAX_REQUESTS, NextRequest, Pallet, Parameters, Requests, refusals};
use datdot_market::{
    RequestId, payout,
    request::{Closing, Request},
    terms::{Feeds, Sources, Terms, total_bytes},
};
use datdot_proof::head::Crypto;
use frame_support::ensure;
use sp_core::ed25519;
use sp_runtime::DispatchResult;

/// The host's hash and signature check: they are slow in wasm.
struct Host;

impl Crypto for Host {
    fn blake2_256(input: &[u8]) -> [u8; 32] {
        sp_io::hashing::blake2_256(input)
    }

    fn ed25519_verify(signature: &[u8; 64], message: &[u8], key: &[u8; 32]) -> bool {
        let (signature, key) = (ed25519::Signature::from_raw(*signature), ed25519::Public::from_raw(*key));
        sp_io::crypto::ed25519_verify(&signature, message, &key)
    }
}

impl<T: Config> Pallet<T> {
    pub(crate) fn open_request(sponsor: T::AccountId, feeds: Feeds, terms: Terms, sources: Sources) -> DispatchResult {
        let params = Parameters::<T>::get();
        ensure!(Requests::<T>::count() < MAX_REQUESTS, Error::<T>::TooManyRequests);
        let segments = terms.check(&feeds, &params).map_err(Error::<T>::from)?;
        for (place, feed) in feeds.iter().enumerate() {
            feed.head.verify::<Host>(&feed.key).map_err(|why| refusals::bad_head::<T>(place, why))?;
        }
        let bytes = total_bytes(&segments);
        let budget =
            payout::budget(terms.replicas, terms.max_price, bytes, terms.term, &params).ok_or(Error::<T>::TooLarge)?;
        let deposit = params.deposit_for(terms.replicas);
        Self::hold_for_request(&sponsor, budget, deposit)?;

        let id = NextRequest::<T>::mutate(|next| core::mem::replace(next, next.wrapping_add(1)));
        let request = Request::open(sponsor.clone(), terms, segments, sources, budget, Self::now(), &params);
        let draw = request.wake;
        FeedsOf::<T>::insert(id, feeds);
        Self::put_request_anew(id, request);
        Self::deposit_event(Event::RequestOpened { request: id, sponsor, bytes, budget, deposit, draw });
        Ok(())
    }

    pub(crate) fn cancel_request(sponsor: T::AccountId, id: RequestId) -> DispatchResult {
        let mut request = Requests::<T>::get(id).ok_or(Error::<T>::NoSuchRequest)?;
        ensure!(request.sponsor == sponsor, Error::<T>::NotYourRequest);
        ensure!(request.closing.is_none(), Error::<T>::RequestClosing);
        Self::close_request(id, &mut request, Closing::Cancelled);
        Self::put_request(id, request);
        Ok(())
    }
}
