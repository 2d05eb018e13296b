//! The queues at their worst.

use super::world::*;
use crate::Error;
use crate::{Agenda, Event, MAX_REQUESTS, REQUESTS_PER_BLOCK, Requests};
use std::collections::BTreeSet;

fn fill(data: &Data) {
    for _ in 0..MAX_REQUESTS {
        ask(ALICE, &[data], terms(1, 2_000)).unwrap();
    }
}

#[test]
fn a_thousand_requests_of_one_block_are_all_served_and_none_is_forgotten() {
    run(|| {
        let data = Data::new(1, 100);
        fill(&data);
        refused(ask(ALICE, &[&data], terms(1, 2_000)), Error::TooManyRequests);
        assert!(Agenda::<Test>::iter().all(|(_, entries)| entries.len() as u32 <= REQUESTS_PER_BLOCK));

        news();
        let mut served = BTreeSet::new();
        for _ in 0..PARAMS.match_after + MAX_REQUESTS / REQUESTS_PER_BLOCK {
            step();
            let waiting = news().into_iter().filter_map(|event| match event {
                Event::Waiting { request, .. } => Some(request),
                _ => None,
            });
            let waiting: Vec<_> = waiting.collect();
            assert!(waiting.len() as u32 <= REQUESTS_PER_BLOCK);
            served.extend(waiting);
        }
        // Those that were served first want to be served again; nobody starves for that.
        for _ in 0..MAX_REQUESTS / REQUESTS_PER_BLOCK {
            step();
            served.extend(news().into_iter().filter_map(|event| match event {
                Event::Waiting { request, .. } => Some(request),
                _ => None,
            }));
        }
        assert_eq!(served.len() as u32, MAX_REQUESTS);

        for id in 0..MAX_REQUESTS {
            Datdot::cancel(RuntimeOrigin::signed(ALICE), id).unwrap();
        }
        go_to(now() + 2 * MAX_REQUESTS / REQUESTS_PER_BLOCK);
        assert_eq!(Requests::<Test>::count(), 0);
        assert_eq!((wealth(ALICE), budgets(ALICE)), (RICH, 0));
    });
}

#[test]
fn a_full_ledger_is_hosted_and_a_hoster_has_no_more_contracts_than_it_can() {
    run(|| {
        offers(20);
        let data = Data::new(1, 100);
        fill(&data);
        let hosters: Vec<_> = (0..20).map(hoster).collect();
        live(80, &hosters, &[&data]);
        let contracts: Vec<_> = hosters.iter().map(|who| crate::ContractsOf::<Test>::get(who).len()).collect();
        assert_eq!(contracts.iter().sum::<usize>(), MAX_REQUESTS as usize);
        assert!(contracts.iter().all(|contracts| *contracts <= 64), "{contracts:?}");
        live(20, &hosters, &[&data]);
        assert!(!news().iter().any(|event| matches!(event, Event::ChallengeMissed { .. })));
    });
}
