//! What peers can ask: see [`crate::api`].

use crate::{
    Config, ContractOf, Contracts, ContractsOf, FeedsOf, HoldReason, HoldingsOf, Hosters, Mix, Pallet, Parameters,
    Requests,
};
use alloc::vec::Vec;
use datdot_market::{
    Block, ContractId, RequestId, clock,
    contract::State,
    hoster::Hoster,
    params::Params,
    terms::Source,
    view::{AccountView, Challenge, ContractView, Hosting, MarketView, RequestView, Work},
};
use frame_support::traits::{
    fungible::Inspect,
    tokens::{Fortitude, Preservation},
};

impl<T: Config> Pallet<T> {
    /// All that concerns one account.
    pub fn account_view(who: &T::AccountId) -> AccountView<T::AccountId> {
        let (at, params) = (Self::now(), Parameters::<T>::get());
        AccountView {
            at,
            params,
            free: T::Currency::reducible_balance(who, Preservation::Preserve, Fortitude::Polite),
            budgets: Self::held(HoldReason::Budget, who),
            deposits: Self::held(HoldReason::Deposit, who),
            bond: Self::held(HoldReason::Bond, who),
            hosting: Hosters::<T>::get(who).map(|hoster| Self::hosting_view(who, hoster, at, &params)),
            requests: Requests::<T>::iter()
                .filter(|(_, request)| request.sponsor == *who)
                .filter_map(|(id, _)| Self::request_view(id))
                .collect(),
        }
    }

    /// What a quote needs.
    pub fn market_view() -> MarketView {
        let params = Parameters::<T>::get();
        let offers = Self::sample(&Mix::<T>::get())
            .into_iter()
            .filter(|(_, hoster)| hoster.is_drawable(Block::MAX, &params))
            .map(|(_, hoster)| (hoster.offer.price, hoster.free(), hoster.offer.max_term))
            .collect();
        MarketView { at: Self::now(), params, offers }
    }

    /// One request.
    pub fn request_view(id: RequestId) -> Option<RequestView<T::AccountId>> {
        let request = Requests::<T>::get(id)?;
        let keys = FeedsOf::<T>::get(id)?.iter().map(|feed| feed.key).collect();
        let contracts = Self::contracts_in(&request)
            .into_iter()
            .map(|(id, contract)| ContractView {
                id,
                proven: Self::proven(id, &contract),
                sources: Self::sources_at(&contract.hoster),
                contract,
            })
            .collect();
        Some(RequestView { id, request, keys, contracts })
    }

    /// Where a feed can be read: hosters that have it, then the sources of its requests; none twice.
    pub fn feed_sources(key: &[u8; 32]) -> Vec<Source> {
        let named: Vec<_> = FeedsOf::<T>::iter()
            .filter(|(_, feeds)| feeds.iter().any(|feed| feed.key == *key))
            .filter_map(|(id, _)| Requests::<T>::get(id))
            .collect();
        let hosters = named.iter().flat_map(|request| Self::hosting_sources(&Self::contracts_in(request), None));
        let sources = named.iter().flat_map(|request| request.sources.iter().copied());
        distinct(hosters.chain(sources))
    }

    fn hosting_view(who: &T::AccountId, hoster: Hoster, at: Block, params: &Params) -> Hosting<T::AccountId> {
        let contracts = ContractsOf::<T>::get(who);
        Hosting {
            challenge: Self::challenge_after(who, &hoster, at, params),
            hoster,
            holdings: HoldingsOf::<T>::get(who),
            contracts: contracts.into_iter().filter_map(Self::work).collect(),
        }
    }

    /// The challenge that a proof in the block after `at` can answer.
    fn challenge_after(who: &T::AccountId, hoster: &Hoster, at: Block, params: &Params) -> Option<Challenge> {
        let number = clock::open(hoster.phase, at.saturating_add(1), params)?;
        let asked = clock::block_of(hoster.phase, number, params);
        let seed = Self::challenge_seed(who, asked, number)?;
        Some(Challenge { number, asked, by: clock::closes(hoster.phase, number, params), seed })
    }

    fn work(id: ContractId) -> Option<Work<T::AccountId>> {
        let contract = Contracts::<T>::get(id)?;
        let request = Requests::<T>::get(contract.request)?;
        let others = Self::hosting_sources(&Self::contracts_in(&request), Some(&contract.hoster));
        let sources = distinct(others.into_iter().chain(request.sources));
        Some(Work { id, feeds: FeedsOf::<T>::get(contract.request)?, sources, contract })
    }

    /// Where those of these contracts can be reached that have the data.
    fn hosting_sources(contracts: &[(ContractId, ContractOf<T>)], but: Option<&T::AccountId>) -> Vec<Source> {
        contracts
            .iter()
            .filter(|(_, contract)| matches!(contract.state, State::Hosting { .. } | State::Ending { .. }))
            .filter(|(_, contract)| Some(&contract.hoster) != but)
            .flat_map(|(_, contract)| Self::sources_at(&contract.hoster))
            .collect()
    }

    fn sources_at(who: &T::AccountId) -> Vec<Source> {
        Hosters::<T>::get(who).map_or(Vec::new(), |hoster| {
            let noise_key = hoster.offer.noise_key;
            hoster.offer.addresses.into_iter().map(|address| Source { noise_key, address }).collect()
        })
    }
}

fn distinct(sources: impl Iterator<Item = Source>) -> Vec<Source> {
    let mut seen = Vec::new();
    for source in sources {
        if !seen.contains(&source) {
            seen.push(source);
        }
    }
    seen
}
