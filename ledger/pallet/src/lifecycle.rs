//! What happens by itself: windows close, hosters lapse, deadlines pass, draws are made, contracts and requests end.
//!
//! Nothing here may fail: what a rule refuses is left as it is and looked at again.

use crate::{
    Agenda, Config, ContractOf, Contracts, ContractsOf, Event, FeedsOf, HoldingsOf, Hosters, LAPSES_PER_BLOCK, Mix,
    NextContract, Pallet, Parameters, Phases, RequestOf, Requests, WeightInfo,
};
use alloc::vec::Vec;
use codec::Encode;
use datdot_market::{
    Balance, Block, ContractId, RequestId, clock,
    contract::{Contract, End, State, WrongState, remove_holding},
    hoster::Hoster,
    matching::{self, MAX_LOOKED_AT, Wanted},
    params::Params,
    request::{Closing, MAX_LIVE, Task, Why},
};
use frame_support::weights::Weight;
use sp_io::hashing::blake2_256;

impl<T: Config> Pallet<T> {
    /// All that a block does before its transactions.
    pub(crate) fn begin_block(now: Block) -> Weight {
        let params = Parameters::<T>::get();
        let (hosters, lapsed) = Self::close_windows(now, &params);
        let requests = Self::serve_agenda(now, &params);
        T::WeightInfo::on_initialize(hosters, lapsed, requests)
    }

    /// Looks at the hosters whose window closed with the block before. Returns how many there were, and how many contracts lapsed.
    fn close_windows(now: Block, params: &Params) -> (u32, u32) {
        let Some((phase, number)) = clock::closed(now, params) else { return (0, 0) };
        let hosters = Phases::<T>::get(phase);
        let (mut lapses, mut contracts) = (0, 0);
        for who in &hosters {
            let Some(hoster) = Hosters::<T>::get(who) else { continue };
            let missed = hoster.missed(&HoldingsOf::<T>::get(who), number);
            if missed == 0 {
                continue;
            }
            Self::deposit_event(Event::ChallengeMissed { hoster: who.clone(), number, missed });
            if missed >= params.misses_until_lapse && lapses < LAPSES_PER_BLOCK {
                lapses += 1;
                contracts += Self::lapse(who, number);
            }
        }
        (hosters.len() as u32, contracts)
    }

    /// Ends all that a hoster hosts. Returns the number of contracts.
    fn lapse(who: &T::AccountId, number: u32) -> u32 {
        let (mut contracts, mut penalty) = (0, 0);
        for holding in HoldingsOf::<T>::get(who) {
            let Some(contract) = Contracts::<T>::get(holding.contract) else { continue };
            let Some(mut request) = Requests::<T>::get(contract.request) else { continue };
            // Refused for one that is ending already.
            if let Ok(paid) = Self::end_hosting(holding.contract, &mut request, End::Lapsed) {
                contracts += 1;
                penalty += paid;
                Self::put_request(contract.request, request);
            }
        }
        if let Some(mut hoster) = Hosters::<T>::get(who) {
            hoster.lapsed(number);
            Hosters::<T>::insert(who, hoster);
        }
        Self::deposit_event(Event::Lapsed { hoster: who.clone(), contracts, penalty });
        contracts
    }

    /// Does what is due in the requests of this block. Returns how many there were.
    fn serve_agenda(now: Block, params: &Params) -> u32 {
        let due = Agenda::<T>::take(now);
        for id in &due {
            let Some(mut request) = Requests::<T>::get(id) else { continue };
            let is_gone = loop {
                let contracts = Self::contracts_in(&request);
                let tasks = request.tasks(&contracts, now, params);
                if tasks.is_empty() {
                    break false;
                }
                if tasks.contains(&Task::Remove) {
                    break true;
                }
                for task in tasks {
                    Self::perform(task, *id, &mut request, &contracts, now, params);
                }
            };
            if is_gone { Self::remove_request(*id, request) } else { Self::put_request_anew(*id, request) }
        }
        due.len() as u32
    }

    /// Does one task. Each makes its own reason disappear, so the loop above ends.
    fn perform(
        task: Task,
        id: RequestId,
        request: &mut RequestOf<T>,
        contracts: &[(ContractId, ContractOf<T>)],
        now: Block,
        params: &Params,
    ) {
        match task {
            Task::Close(why) => Self::close_request(id, request, why),
            Task::Drop(contract_id, why) => {
                let Some(contract) = Contracts::<T>::get(contract_id) else { return };
                Self::remove_contract(contract_id, &contract, request, why);
                if why != End::Cancelled {
                    request.lost(contract.hoster, why, now, params);
                }
            }
            Task::Finish(contract_id) => Self::finish(contract_id, request, now, params),
            Task::Draw(vacancies) => Self::draw(id, request, contracts, vacancies, now, params),
            Task::Remove => {}
        }
    }

    /// Draws hosters for vacant replicas, with randomness of the block before: nobody knew it when the replicas became vacant.
    fn draw(
        id: RequestId,
        request: &mut RequestOf<T>,
        contracts: &[(ContractId, ContractOf<T>)],
        vacancies: u32,
        now: Block,
        params: &Params,
    ) {
        let seed = blake2_256(&(Mix::<T>::get(), id, now).encode());
        let wanted = Wanted {
            bytes: request.bytes(),
            max_price: request.terms.max_price,
            term: request.remaining_term(now),
            budget: request.budget,
        };
        // Contracts that are ending still take up room in the list.
        let slots = vacancies.min(MAX_LIVE.saturating_sub(request.contracts.len() as u32));
        let may_draw = |who: &T::AccountId| request.may_draw(who, contracts, now);
        let (drawn, why) = matching::draw(&wanted, &Self::sample(&seed), may_draw, slots, seed, now, params);
        let found = drawn.len() as u32;
        for who in drawn {
            Self::offer_contract(id, request, who, wanted.bytes, now, params);
        }
        let why = why.or((slots < vacancies).then_some(Why::Draw));
        request.drew(found, vacancies, why, now, params);
        if let Some(waiting) = request.waiting {
            let (why, next) = (waiting.why, waiting.next);
            Self::deposit_event(Event::Waiting { request: id, vacant: vacancies - found, why, next });
        }
    }

    fn offer_contract(
        id: RequestId,
        request: &mut RequestOf<T>,
        who: T::AccountId,
        bytes: u64,
        now: Block,
        params: &Params,
    ) {
        let Some(mut hoster) = Hosters::<T>::get(&who) else { return };
        let contract_id = NextContract::<T>::get();
        // Both lists have room: a draw names nobody with a full set of contracts, and no more than `slots`.
        if request.contracts.try_push(contract_id).is_err() {
            return;
        }
        if ContractsOf::<T>::mutate(&who, |contracts| contracts.try_push(contract_id)).is_err() {
            request.contracts.pop();
            return;
        }
        NextContract::<T>::put(contract_id.wrapping_add(1));
        hoster.reserve(bytes);
        let contract = Contract::drawn(id, who.clone(), bytes, hoster.offer.price, now, params);
        let answer_by = contract.wakes_at() - 1;
        Hosters::<T>::insert(&who, hoster);
        Contracts::<T>::insert(contract_id, contract);
        Self::deposit_event(Event::Drawn { request: id, contract: contract_id, hoster: who, answer_by });
    }

    /// At most [`MAX_LOOKED_AT`] hosters: all, or those that come after a random place in the map, whose order is by hash.
    pub(crate) fn sample(seed: &[u8; 32]) -> Vec<(T::AccountId, Hoster)> {
        let most = MAX_LOOKED_AT as usize;
        if Hosters::<T>::count() <= MAX_LOOKED_AT {
            return Hosters::<T>::iter().take(most).collect();
        }
        let mut place = Hosters::<T>::map_storage_final_prefix();
        place.extend_from_slice(&seed[..16]);
        let mut sample: Vec<_> = Hosters::<T>::iter_from(place).take(most).collect();
        // There are more hosters than the sample takes: going on from the start meets nobody twice.
        let missing = most - sample.len();
        sample.extend(Hosters::<T>::iter().take(missing));
        sample
    }

    /// Pays the rest of a contract that is over and removes it; what it had reserved and not earned goes back to the budget.
    fn finish(id: ContractId, request: &mut RequestOf<T>, now: Block, params: &Params) {
        let Some(mut contract) = Contracts::<T>::get(id) else { return };
        let proven = Self::proven(id, &contract).unwrap_or(0);
        if !Self::pay(id, &mut contract, proven, &request.sponsor, params) {
            contract.defer(now, params);
            Contracts::<T>::insert(id, contract);
            return;
        }
        request.budget = request.budget.saturating_add(contract.reserve.saturating_sub(contract.paid));
        if matches!(contract.state, State::Hosting { .. }) {
            // Before the term's end it is over only when the budget had paid for no more.
            request.vacated(now, params);
        }
        HoldingsOf::<T>::mutate(&contract.hoster, |holdings| remove_holding(holdings, id));
        let why = contract.outcome();
        Self::remove_contract(id, &contract, request, why);
    }

    /// Takes a contract off the ledger: off the lists of its request and its hoster, whose bytes are free again.
    pub(crate) fn remove_contract(id: ContractId, contract: &ContractOf<T>, request: &mut RequestOf<T>, why: End) {
        let who = &contract.hoster;
        Contracts::<T>::remove(id);
        request.contracts.retain(|other| *other != id);
        ContractsOf::<T>::mutate(who, |contracts| contracts.retain(|other| *other != id));
        Self::deposit_event(Event::ContractEnded {
            request: contract.request,
            contract: id,
            hoster: who.clone(),
            why,
            paid: contract.paid,
        });
        if let Some(mut hoster) = Hosters::<T>::get(who) {
            hoster.release(contract.bytes);
            if matches!(why, End::Silent | End::TooSlow) {
                hoster.was_silent();
            }
            Self::put_hoster(who.clone(), hoster);
        }
    }

    /// Ends a contract that is hosting. What can no longer be earned goes back to the budget; unless the sponsor ended it, the bond
    /// pays the penalty (returned) and the replica is vacant.
    pub(crate) fn end_hosting(id: ContractId, request: &mut RequestOf<T>, why: End) -> Result<Balance, WrongState> {
        let (now, params) = (Self::now(), Parameters::<T>::get());
        let mut contract = Contracts::<T>::get(id).ok_or(WrongState::NotHosting)?;
        let who = contract.hoster.clone();
        let mut hoster = Hosters::<T>::get(&who).ok_or(WrongState::NotHosting)?;
        let mut holdings = HoldingsOf::<T>::get(&who);
        let holding = holdings.iter_mut().find(|holding| holding.contract == id).ok_or(WrongState::NotHosting)?;
        let at_stake = contract.reserve;
        let returned = contract.end_early(why, holding, hoster.phase, now, &params)?;
        request.budget = request.budget.saturating_add(returned);
        let mut penalty = 0;
        if why != End::Cancelled {
            let (paid, held) = Self::penalise(&who, &mut hoster, &request.sponsor, at_stake, &params);
            penalty = paid;
            request.budget = request.budget.saturating_add(held);
            request.lost(who.clone(), why, now, &params);
        }
        Contracts::<T>::insert(id, contract);
        HoldingsOf::<T>::insert(&who, holdings);
        Hosters::<T>::insert(&who, hoster);
        Ok(penalty)
    }

    /// Lets a request take no more hosters. Those that fetch are dropped when it is next looked at. Those that host go on to the end
    /// that they have, unless the sponsor wants them to stop.
    pub(crate) fn close_request(id: RequestId, request: &mut RequestOf<T>, why: Closing) {
        request.close(why);
        Self::deposit_event(Event::RequestClosing { request: id, why });
        if matches!(why, Closing::Cancelled | Closing::RootMismatch) {
            for contract in request.contracts.clone() {
                // Refused for those that don't host.
                Self::end_hosting(contract, request, End::Cancelled).ok();
            }
        }
    }

    fn remove_request(id: RequestId, request: RequestOf<T>) {
        let returned = Self::free_budget(&request.sponsor, request.budget);
        Self::free_deposit(&request.sponsor, Parameters::<T>::get().deposit_for(request.terms.replicas));
        FeedsOf::<T>::remove(id);
        Requests::<T>::remove(id);
        Self::deposit_event(Event::RequestClosed { request: id, sponsor: request.sponsor, returned });
    }
}
