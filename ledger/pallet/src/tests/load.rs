//! The queues at their worst. The invariants are checked at the end only: over so many requests they take long.

use super::world::*;
use crate::{Agenda, Contracts, ContractsOf, Error, Event, MAX_REQUESTS, REQUESTS_PER_BLOCK, Requests};
use datdot_market::{MAX_CONTRACTS, contract::State};
use frame_support::traits::Hooks;
use std::collections::BTreeSet;

/// Blocks that the whole agenda takes.
const ROUND: u32 = MAX_REQUESTS / REQUESTS_PER_BLOCK;

fn fill(data: &Data) {
    for _ in 0..MAX_REQUESTS {
        ask(ALICE, &[data], terms(1, 2_000)).unwrap();
    }
}

fn next() {
    Datdot::on_finalize(System::block_number());
    System::set_block_number(System::block_number() + 1);
    Datdot::on_initialize(System::block_number());
}

/// The requests that waited for a draw in this block.
fn served() -> Vec<u32> {
    let waiting = |event| match event {
        Event::Waiting { request, .. } => Some(request),
        _ => None,
    };
    news().into_iter().filter_map(waiting).collect()
}

#[test]
fn a_thousand_requests_of_one_block_are_all_served_and_none_is_forgotten() {
    run(|| {
        let data = Data::new(1, 100);
        fill(&data);
        refused(ask(ALICE, &[&data], terms(1, 2_000)), Error::TooManyRequests);
        assert!(Agenda::<Test>::iter().all(|(_, entries)| entries.len() as u32 <= REQUESTS_PER_BLOCK));

        news();
        let mut all = BTreeSet::new();
        // Those that were served first want to be served again; nobody starves for that.
        for _ in 0..PARAMS.match_after + 2 * ROUND {
            next();
            let served = served();
            assert!(served.len() as u32 <= REQUESTS_PER_BLOCK);
            all.extend(served);
        }
        assert_eq!(all.len() as u32, MAX_REQUESTS);

        for id in 0..MAX_REQUESTS {
            Datdot::cancel(RuntimeOrigin::signed(ALICE), id).unwrap();
        }
        (0..=ROUND).for_each(|_| next());
        assert_eq!(Requests::<Test>::count(), 0);
        assert_eq!((wealth(ALICE), budgets(ALICE)), (RICH, 0));
    });
}

#[test]
fn a_full_ledger_is_hosted_and_proven_by_hosters_with_full_sets_of_contracts() {
    run(|| {
        let data = Data::new(1, 100);
        // Exactly enough room for all.
        let hosters: Vec<_> = (0..u64::from(MAX_REQUESTS / MAX_CONTRACTS)).map(hoster).collect();
        offers(hosters.len() as u64);
        fill(&data);
        for _ in 0..PARAMS.match_after + 3 * ROUND {
            next();
            for who in &hosters {
                for id in ContractsOf::<Test>::get(who) {
                    if let State::Drawn { .. } = Contracts::<Test>::get(id).unwrap().state {
                        take(*who, id).unwrap();
                        accept(*who, id).unwrap();
                    }
                }
                if let Some((number, proof)) = proof_of_now(*who, &[&data]) {
                    prove(*who, number, proof).unwrap();
                }
            }
        }
        assert!(hosters.iter().all(|who| ContractsOf::<Test>::get(who).is_full()));
        let news = news();
        assert!(news.iter().any(|event| matches!(event, Event::Proven { contracts: MAX_CONTRACTS, .. })));
        assert!(!news.iter().any(|event| matches!(event, Event::ChallengeMissed { .. })));
    });
}
