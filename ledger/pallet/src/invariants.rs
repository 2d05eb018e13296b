//! What is true after every block and every call:
//!
//! 1. **Money.** What is held of a sponsor as budget is the sum of its requests' budgets and of what their contracts have reserved
//!    and not paid; what is held of it as deposit follows from its requests. What is held of a hoster as bond is what its record says. No contract has paid more than it reserved.
//! 2. **Space.** A hoster's used bytes and number of contracts are those of its list of contracts, and every contract is on the list
//!    of its hoster and on that of its request, once.
//! 3. **Replicas.** A request has no more contracts than replicas, those apart that are ending, and none of two with one hoster.
//! 4. **Challenges.** A hoster's challenges cover exactly its contracts that host or are ending, with their segments and their price,
//!    within the blocks that the contract says.
//! 5. **Phases.** Every hoster is in the list of its phase, and nobody else is in any.
//! 6. **Agenda.** Every request has one entry, in a future block, and there are no others.

use crate::{
    Agenda, Config, Contracts, ContractsOf, FeedsOf, HoldReason, HoldingsOf, Hosters, Pallet, Parameters, Phases,
    Requests,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use datdot_market::{Balance, clock, contract::State};
use frame_support::ensure;
use sp_runtime::TryRuntimeError;

type Check = Result<(), TryRuntimeError>;

impl<T: Config> Pallet<T> {
    /// Checks all invariants.
    pub fn do_try_state() -> Check {
        Self::money_is_held_for_what_the_records_say()?;
        Self::hosters_and_requests_list_their_contracts()?;
        Self::challenges_cover_what_is_hosted()?;
        Self::phases_list_the_hosters()?;
        Self::every_request_is_on_the_agenda_once()
    }

    fn money_is_held_for_what_the_records_say() -> Check {
        let params = Parameters::<T>::get();
        let (mut budgets, mut deposits) = (BTreeMap::<T::AccountId, Balance>::new(), BTreeMap::new());
        for (_, request) in Requests::<T>::iter() {
            let mut sum = request.budget;
            for (_, contract) in Self::contracts_in(&request) {
                ensure!(contract.paid <= contract.reserve, "a contract has paid more than it reserved");
                sum += contract.reserve - contract.paid;
            }
            *deposits.entry(request.sponsor.clone()).or_default() += params.deposit_for(request.terms.replicas);
            *budgets.entry(request.sponsor).or_default() += sum;
        }
        // All accounts: what is held for nothing is wrong too.
        for who in frame_system::Account::<T>::iter_keys() {
            let of = |sums: &BTreeMap<_, Balance>| sums.get(&who).copied().unwrap_or(0);
            let bond = Hosters::<T>::get(&who).map_or(0, |hoster| hoster.bond);
            let held = |reason| Self::held(reason, &who);
            ensure!(held(HoldReason::Budget) == of(&budgets), "the budgets of an account are not what is held of it");
            ensure!(
                held(HoldReason::Deposit) == of(&deposits),
                "the deposits of an account are not what is held of it"
            );
            ensure!(held(HoldReason::Bond) == bond, "the bond of a hoster is not what is held of it");
        }
        Ok(())
    }

    fn hosters_and_requests_list_their_contracts() -> Check {
        let mut by_hosters = BTreeSet::new();
        for (who, hoster) in Hosters::<T>::iter() {
            let ids = ContractsOf::<T>::get(&who);
            let contracts: Vec<_> = ids.iter().filter_map(Contracts::<T>::get).collect();
            ensure!(contracts.len() == ids.len(), "a hoster lists a contract that is gone");
            ensure!(contracts.iter().all(|contract| contract.hoster == who), "a hoster lists another one's contract");
            ensure!(hoster.contracts as usize == ids.len(), "a hoster has another number of contracts than it says");
            let used = contracts.iter().map(|contract| contract.bytes).sum::<u64>();
            ensure!(hoster.used == used, "a hoster's contracts use other bytes than it says");
            by_hosters.extend(ids);
        }
        let mut by_requests = BTreeSet::new();
        for (id, request) in Requests::<T>::iter() {
            ensure!(FeedsOf::<T>::contains_key(id), "a request has no feeds");
            let contracts = Self::contracts_in(&request);
            ensure!(contracts.len() == request.contracts.len(), "a request lists a contract that is gone");
            ensure!(
                contracts.iter().all(|(_, contract)| contract.request == id),
                "a request lists another one's contract"
            );
            let filled = contracts.iter().filter(|(_, contract)| contract.fills_a_replica()).count();
            ensure!(filled <= request.terms.replicas as usize, "a request has too many replicas");
            let hosters: BTreeSet<_> = contracts.iter().map(|(_, contract)| &contract.hoster).collect();
            ensure!(hosters.len() == contracts.len(), "a request has two contracts with one hoster");
            by_requests.extend(request.contracts);
        }
        let all: BTreeSet<_> = Contracts::<T>::iter_keys().collect();
        ensure!(
            all == by_hosters && all == by_requests,
            "a contract is not on the lists of its hoster and its request"
        );
        let feeds = FeedsOf::<T>::iter_keys().count();
        ensure!(feeds == Requests::<T>::iter_keys().count(), "there are feeds without a request");
        Ok(())
    }

    fn challenges_cover_what_is_hosted() -> Check {
        let params = Parameters::<T>::get();
        let mut covered = BTreeSet::new();
        for (who, holdings) in HoldingsOf::<T>::iter() {
            let hoster = Hosters::<T>::get(&who).ok_or("somebody holds something without an offer")?;
            for holding in holdings {
                let contract = Contracts::<T>::get(holding.contract).ok_or("something is held without a contract")?;
                let request = Requests::<T>::get(contract.request).ok_or("a contract has no request")?;
                ensure!(contract.hoster == who, "a hoster holds for another one's contract");
                ensure!(holding.segments == request.segments, "other segments are held than were asked for");
                let weight = contract.price.saturating_mul(contract.bytes.into());
                ensure!(holding.weight == weight, "a holding does not weigh what it is paid");
                ensure!(holding.first <= holding.until, "a holding ends before it begins");
                ensure!(holding.proven <= holding.until - holding.first, "more was proven than was asked for");
                if let State::Hosting { over_after, .. } = contract.state {
                    let last = clock::closes(hoster.phase, holding.until - 1, &params);
                    ensure!(over_after == last, "a contract is not over with its last challenge");
                }
                covered.insert(holding.contract);
            }
        }
        let hosted: BTreeSet<_> = Contracts::<T>::iter()
            .filter(|(_, contract)| matches!(contract.state, State::Hosting { .. } | State::Ending { .. }))
            .map(|(id, _)| id)
            .collect();
        ensure!(covered == hosted, "challenges do not cover what is hosted");
        Ok(())
    }

    fn phases_list_the_hosters() -> Check {
        let mut listed = BTreeMap::new();
        for (phase, hosters) in Phases::<T>::iter() {
            for who in hosters {
                ensure!(listed.insert(who, phase).is_none(), "a hoster is in two phases");
            }
        }
        let hosters: BTreeMap<_, _> = Hosters::<T>::iter().map(|(who, hoster)| (who, hoster.phase)).collect();
        ensure!(hosters == listed, "the phases do not list the hosters");
        Ok(())
    }

    fn every_request_is_on_the_agenda_once() -> Check {
        let now = Self::now();
        let mut entries = BTreeMap::new();
        for (block, ids) in Agenda::<T>::iter() {
            ensure!(block > now, "the agenda has an entry in the past");
            for id in ids {
                ensure!(entries.insert(id, block).is_none(), "a request is on the agenda twice");
            }
        }
        let wakes: BTreeMap<_, _> = Requests::<T>::iter().map(|(id, request)| (id, request.wake)).collect();
        ensure!(entries == wakes, "the agenda does not list the requests");
        Ok(())
    }
}
