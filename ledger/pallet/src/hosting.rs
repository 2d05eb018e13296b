//! The calls of hosters.

use crate::{
    BlockRandomness, Config, Contracts, ContractsOf, Error, Event, HoldingsOf, Hosters, Mixes, NextPhase, Pallet,
    Parameters, Phases, Requests, refusals,
};
use alloc::vec::Vec;
use codec::Encode;
use datdot_market::{
    Block, ContractId, clock,
    contract::{End, Reason},
    hoster::{Hoster, Standing, covered},
    params::Params,
    request::Closing,
    terms::Offer,
};
use datdot_proof::{
    challenge::{self, DRAWS, Holding, Position},
    proof::Proof,
};
use frame_support::ensure;
use sp_io::hashing::blake2_256;
use sp_runtime::DispatchResult;

/// Phases that are tried for a new hoster before it is told that there is no room.
const PHASES_TRIED: Block = 64;

impl<T: Config> Pallet<T> {
    pub(crate) fn post_offer(who: T::AccountId, offer: Offer) -> DispatchResult {
        let params = Parameters::<T>::get();
        offer.check(&params).map_err(Error::<T>::from)?;
        let (space, price, since) = (offer.space, offer.price, Self::now());
        let mut hoster = match Hosters::<T>::get(&who) {
            Some(hoster) => {
                ensure!(offer.space >= hoster.used, Error::<T>::SpaceInUse);
                Hoster { offer, standing: Standing::Open, silent: 0, since, ..hoster }
            }
            None => {
                let phase = Self::assign_phase(&who, &params)?;
                let owes_from = clock::next(phase, Self::now(), &params);
                Hoster {
                    offer,
                    standing: Standing::Open,
                    phase,
                    bond: 0,
                    used: 0,
                    contracts: 0,
                    owes_from,
                    silent: 0,
                    since,
                }
            }
        };
        Self::top_up_bond(&who, &mut hoster, &params)?;
        Self::deposit_event(Event::OfferPosted { hoster: who.clone(), space, price, bond: hoster.bond });
        Hosters::<T>::insert(who, hoster);
        Ok(())
    }

    pub(crate) fn close_offer(who: T::AccountId) -> DispatchResult {
        let mut hoster = Hosters::<T>::get(&who).ok_or(Error::<T>::NoOffer)?;
        hoster.standing = Standing::Leaving;
        if hoster.contracts > 0 {
            Self::deposit_event(Event::OfferClosing { hoster: who.clone(), contracts: hoster.contracts });
        }
        Self::put_hoster(who, hoster);
        Ok(())
    }

    pub(crate) fn take_contract(who: T::AccountId, id: ContractId) -> DispatchResult {
        let (now, params) = (Self::now(), Parameters::<T>::get());
        let mut contract = Contracts::<T>::get(id).ok_or(Error::<T>::NoSuchContract)?;
        ensure!(contract.hoster == who, Error::<T>::NotYourContract);
        let request = Requests::<T>::get(contract.request).ok_or(Error::<T>::NoSuchRequest)?;
        ensure!(request.closing.is_none(), Error::<T>::RequestClosing);
        contract.take(now, &params).map_err(Error::<T>::from)?;
        Self::deposit_event(Event::Taken {
            request: contract.request,
            contract: id,
            hoster: who,
            by: contract.wakes_at() - 1,
        });
        Contracts::<T>::insert(id, contract);
        Ok(())
    }

    pub(crate) fn pass_contract(who: T::AccountId, id: ContractId, reason: Reason) -> DispatchResult {
        let (now, params) = (Self::now(), Parameters::<T>::get());
        let contract = Contracts::<T>::get(id).ok_or(Error::<T>::NoSuchContract)?;
        ensure!(contract.hoster == who, Error::<T>::NotYourContract);
        contract.may_pass(reason).map_err(Error::<T>::from)?;
        let mut request = Requests::<T>::get(contract.request).ok_or(Error::<T>::NoSuchRequest)?;
        Self::was_heard(&who);
        Self::deposit_event(Event::Passed { request: contract.request, contract: id, hoster: who.clone(), reason });
        let end = End::Passed(reason);
        Self::remove_contract(id, &contract, &mut request, end);
        request.lost(who, end, now, &params);
        if request.is_mismatched() {
            Self::close_request(contract.request, &mut request, Closing::RootMismatch);
        }
        Self::put_request(contract.request, request);
        Ok(())
    }

    pub(crate) fn accept_contract(who: T::AccountId, id: ContractId) -> DispatchResult {
        let (now, params) = (Self::now(), Parameters::<T>::get());
        let mut contract = Contracts::<T>::get(id).ok_or(Error::<T>::NoSuchContract)?;
        ensure!(contract.hoster == who, Error::<T>::NotYourContract);
        let mut request = Requests::<T>::get(contract.request).ok_or(Error::<T>::NoSuchRequest)?;
        ensure!(request.closing.is_none(), Error::<T>::RequestClosing);
        let mut hoster = Hosters::<T>::get(&who).ok_or(Error::<T>::NoOffer)?;
        let mut holdings = HoldingsOf::<T>::get(&who);

        let holding = contract.accept(id, &mut request, hoster.phase, now, &params).map_err(Error::<T>::from)?;
        let (first, periods) = (holding.first, holding.until - holding.first);
        hoster.takes_in(&holdings, first);
        hoster.silent = 0;
        // A hoster has no more contracts than holdings have room for.
        holdings.try_push(holding).map_err(|_| Error::<T>::NothingLeft)?;

        let (request_id, reserve) = (contract.request, contract.reserve);
        Hosters::<T>::insert(&who, hoster);
        HoldingsOf::<T>::insert(&who, holdings);
        Contracts::<T>::insert(id, contract);
        Self::put_request(request_id, request);
        Self::deposit_event(Event::Accepted {
            request: request_id,
            contract: id,
            hoster: who,
            reserve,
            first,
            periods,
        });
        Ok(())
    }

    pub(crate) fn answer_challenge(who: T::AccountId, number: u32, proof: Proof) -> DispatchResult {
        let (now, params) = (Self::now(), Parameters::<T>::get());
        let mut hoster = Hosters::<T>::get(&who).ok_or(Error::<T>::NoOffer)?;
        let mut holdings = HoldingsOf::<T>::get(&who);
        hoster.due(&holdings, number, now, &params).map_err(Error::<T>::from)?;
        let asked = clock::block_of(hoster.phase, number, &params);
        let seed = Self::challenge_seed(&who, asked, number).ok_or(Error::<T>::ChallengeNotOpen)?;

        let positions = positions(&holdings, number, &seed);
        proof.check(&positions).map_err(|why| refusals::bad_proof::<T>(&positions, why))?;

        hoster.proved(holdings.as_mut(), number);
        Self::deposit_event(Event::Proven {
            hoster: who.clone(),
            number,
            contracts: covered(&holdings, number).count() as u32,
            openings: proof.openings.len() as u32,
            bytes: proof.encoded_size() as u32,
        });
        Hosters::<T>::insert(&who, hoster);
        HoldingsOf::<T>::insert(&who, holdings);
        Ok(())
    }

    pub(crate) fn forfeit_contract(who: T::AccountId, id: ContractId) -> DispatchResult {
        let contract = Contracts::<T>::get(id).ok_or(Error::<T>::NoSuchContract)?;
        ensure!(contract.hoster == who, Error::<T>::NotYourContract);
        let mut request = Requests::<T>::get(contract.request).ok_or(Error::<T>::NoSuchRequest)?;
        let penalty = Self::end_hosting(id, &mut request, End::Forfeited).map_err(Error::<T>::from)?;
        Self::put_request(contract.request, request);
        Self::deposit_event(Event::Forfeited { request: contract.request, contract: id, hoster: who, penalty });
        Ok(())
    }

    pub(crate) fn settle_contract(id: ContractId) -> DispatchResult {
        let mut contract = Contracts::<T>::get(id).ok_or(Error::<T>::NoSuchContract)?;
        let request = Requests::<T>::get(contract.request).ok_or(Error::<T>::NoSuchRequest)?;
        let proven = Self::proven(id, &contract).ok_or(Error::<T>::NotHosting)?;
        Self::pay(id, &mut contract, proven, &request.sponsor, &Parameters::<T>::get());
        Contracts::<T>::insert(id, contract);
        Ok(())
    }

    /// What a hoster's challenge is drawn from, if the mix of its block is known and not forgotten.
    pub(crate) fn challenge_seed(who: &T::AccountId, asked: Block, number: u32) -> Option<[u8; 32]> {
        let (block, mix) = Mixes::<T>::get(asked % ring(&Parameters::<T>::get()))?;
        (block == asked).then(|| challenge::seed(&mix, &who.encode(), number.into()))
    }

    /// Folds the block's own randomness into the mix and keeps it in the ring.
    pub(crate) fn fold_mix(now: Block) {
        let vrf = T::Randomness::vrf_output().unwrap_or_else(|| {
            log::error!(target: "datdot", "block {now} has no VRF output: its challenges could be known before");
            Default::default()
        });
        let mix = blake2_256(&(crate::Mix::<T>::get(), vrf).encode());
        crate::Mix::<T>::put(mix);
        Mixes::<T>::insert(now % ring(&Parameters::<T>::get()), (now, mix));
    }

    /// Periods that a contract's hoster has proven, once it hosts.
    pub(crate) fn proven(id: ContractId, contract: &crate::ContractOf<T>) -> Option<u32> {
        HoldingsOf::<T>::get(&contract.hoster)
            .iter()
            .find(|holding| holding.contract == id)
            .map(|holding| holding.proven)
    }

    fn was_heard(who: &T::AccountId) {
        if let Some(hoster) = Hosters::<T>::get(who).filter(|hoster| hoster.silent > 0) {
            Hosters::<T>::insert(who, Hoster { silent: 0, ..hoster });
        }
    }

    fn assign_phase(who: &T::AccountId, params: &Params) -> Result<Block, Error<T>> {
        let next = NextPhase::<T>::get();
        let tried = (0..params.period.min(PHASES_TRIED)).map(|step| next.saturating_add(step) % params.period);
        for phase in tried {
            if Phases::<T>::try_mutate(phase, |hosters| hosters.try_push(who.clone())).is_ok() {
                NextPhase::<T>::put((phase + 1) % params.period);
                return Ok(phase);
            }
        }
        Err(Error::TooManyHosters)
    }

    /// Stores a hoster, or lets it go if it is leaving and has nothing left to do.
    pub(crate) fn put_hoster(who: T::AccountId, hoster: Hoster) {
        if hoster.standing != Standing::Leaving || hoster.contracts > 0 {
            Hosters::<T>::insert(who, hoster);
            return;
        }
        Phases::<T>::mutate_exists(hoster.phase, |hosters| {
            let left = hosters.take().map(|mut hosters| {
                hosters.retain(|other| *other != who);
                hosters
            });
            *hosters = left.filter(|hosters| !hosters.is_empty());
        });
        HoldingsOf::<T>::remove(&who);
        ContractsOf::<T>::remove(&who);
        Hosters::<T>::remove(&who);
        let bond = Self::free_bond(&who, hoster.bond);
        Self::deposit_event(Event::OfferWithdrawn { hoster: who, bond });
    }
}

/// The chunks that challenge `number` asks for.
pub(crate) fn positions(holdings: &[datdot_market::hoster::Holding], number: u32, seed: &[u8; 32]) -> Vec<Position> {
    let asked: Vec<_> =
        covered(holdings, number).map(|holding| Holding { pay: holding.weight, segments: &holding.segments }).collect();
    challenge::positions(seed, &asked, DRAWS)
}

/// Blocks whose mix is kept: more than four periods.
fn ring(params: &Params) -> Block {
    params.period.saturating_mul(4).saturating_add(params.deadline).saturating_add(1)
}
