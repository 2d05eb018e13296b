//! The life of a request when everybody does what it should.

use super::world::*;
use crate::{Agenda, Contracts, Event, FeedsOf, Hosters, Parameters, Requests};
use datdot_market::{clock, contract::End, hoster::Standing, params::DAT, payout, request::Closing, terms::Offer};
use frame_support::{assert_ok, dispatch::Pays};

#[test]
fn a_request_is_hosted_proven_and_paid_and_the_rest_returns() {
    run(|| {
        let (blobs, metadata) = (Data::new(1, 300_000), Data::new(2, 5_000));
        let drive = [&metadata, &blobs];
        let (id, hosters) = hosted(&drive, 3, 60);
        let bytes = 305_000;
        assert_eq!(budgets(ALICE), payout::budget(3, PRICE, bytes, 60, &PARAMS).unwrap());

        live(80, &hosters, &drive);
        let news = news();
        assert!(Requests::<Test>::get(id).is_none() && Contracts::<Test>::iter().next().is_none());
        assert!(FeedsOf::<Test>::get(id).is_none() && Agenda::<Test>::iter().next().is_none());
        assert!(!news.iter().any(|event| matches!(event, Event::ChallengeMissed { .. } | Event::PayOwed { .. })));

        let mut cost = 0;
        for who in hosters {
            let proofs =
                news.iter().filter(|event| matches!(event, Event::Proven { hoster, .. } if *hoster == who)).count();
            assert!((5..=6).contains(&proofs), "{proofs} proofs");
            let earned = payout::due(proofs as u32, PRICE, bytes, &PARAMS).unwrap();
            assert_eq!(wealth(who), RICH + earned);
            assert_eq!((bond(who), Hosters::<Test>::get(who).unwrap().used), (PARAMS.bond, 0));
            cost += earned;
        }
        assert!(cost > 0);
        assert_eq!((budgets(ALICE), wealth(ALICE)), (0, RICH - cost));
        let ended = |event: &&Event<Test>| matches!(event, Event::ContractEnded { why: End::Completed, .. });
        assert_eq!(news.iter().filter(ended).count(), 3);
    });
}

#[test]
fn the_draw_comes_some_blocks_after_the_request() {
    run(|| {
        offers(2);
        let data = Data::new(1, 10_000);
        request(&[&data], 2, 60);
        go_to(now() + PARAMS.match_after - 1);
        assert_eq!(Contracts::<Test>::iter().count(), 0);
        step();
        assert_eq!(Contracts::<Test>::iter().count(), 2);
    });
}

#[test]
fn a_valid_proof_is_free_and_goes_into_full_blocks() {
    use frame_support::dispatch::{DispatchClass, GetDispatchInfo};
    run(|| {
        let data = Data::new(1, 40_000);
        let (_, hosters) = hosted(&[&data], 1, 60);
        let (number, proof) = loop {
            step();
            if let Some((_, number, proof)) = owed(&hosters, &[&data]).pop() {
                break (number, proof);
            }
        };
        step();
        let call = crate::Call::<Test>::prove { number, proof: proof.clone() };
        assert_eq!(call.get_dispatch_info().class, DispatchClass::Operational);
        assert_eq!(prove(hosters[0], number, proof).unwrap().pays_fee, Pays::No);
    });
}

#[test]
fn anyone_can_have_a_hoster_paid_and_twice_is_no_more_than_once() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (_, hosters) = hosted(&[&data], 1, 100);
        live(35, &hosters, &[&data]);
        let contract = contract_of(hosters[0]);
        let proven = Datdot::proven(contract, &Contracts::<Test>::get(contract).unwrap()).unwrap();
        assert!(proven >= 3);
        for _ in 0..2 {
            assert_ok!(Datdot::settle(RuntimeOrigin::signed(BOB), contract));
            // The last period waits for the proof after it.
            assert_eq!(wealth(hosters[0]), RICH + payout::due(proven - 1, PRICE, 300_000, &PARAMS).unwrap());
        }
    });
}

#[test]
fn what_comes_in_while_a_window_is_open_is_asked_for_from_the_next_challenge_on() {
    run(|| {
        let (one, two) = (Data::new(1, 20_000), Data::new(2, 20_000));
        let (_, hosters) = hosted(&[&one], 1, 100);
        let who = hosters[0];
        // The second contract is being fetched when the window opens, and accepted while a proof of the first is on its way.
        request(&[&two], 1, 100);
        go_to(now() + PARAMS.match_after);
        let second = Contracts::<Test>::iter().find(|(_, contract)| contract.request == 1).unwrap().0;
        take(who, second).unwrap();
        let (_, number, proof) = loop {
            step();
            if let Some(owed) = owed(&hosters, &[&one]).pop() {
                break owed;
            }
        };
        step();
        accept(who, second).unwrap();
        assert_ok!(prove(who, number, proof));
        // The next one asks for both.
        go_to(clock::block_of(phase_of(who), number + 1, &PARAMS));
        end_block();
        assert!(proof_of(who, &[&one, &two]).is_some());
        assert!(proof_of(who, &[&one]).is_none());
        begin_block();
    });
}

#[test]
fn cancelling_in_an_open_window_still_pays_for_the_proof_that_is_on_its_way() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (id, hosters) = hosted(&[&data], 1, 200);
        let who = hosters[0];
        let (_, number, proof) = loop {
            step();
            if let Some(owed) = owed(&hosters, &[&data]).pop() {
                break owed;
            }
        };
        step();
        assert_ok!(Datdot::cancel(RuntimeOrigin::signed(ALICE), id));
        assert_ok!(prove(who, number, proof));
        live(PARAMS.deadline + 2, &hosters, &[&data]);
        let earned = payout::due(1, PRICE, 300_000, &PARAMS).unwrap();
        assert!(Requests::<Test>::get(id).is_none());
        assert_eq!((wealth(who), wealth(ALICE), budgets(ALICE)), (RICH + earned, RICH - earned, 0));
        let returned = payout::budget(1, PRICE, 300_000, 200, &PARAMS).unwrap() - earned;
        assert!(news().contains(&Event::RequestClosed { request: id, sponsor: ALICE, returned }));
    });
}

#[test]
fn cancelling_before_anybody_hosts_returns_everything() {
    run(|| {
        offers(2);
        let data = Data::new(1, 10_000);
        let id = request(&[&data], 2, 60);
        go_to(now() + PARAMS.match_after);
        let (contract, _) = Contracts::<Test>::iter().next().unwrap();
        take(Contracts::<Test>::get(contract).unwrap().hoster, contract).unwrap();
        assert_ok!(Datdot::cancel(RuntimeOrigin::signed(ALICE), id));
        assert!(news().contains(&Event::RequestClosing { request: id, why: Closing::Cancelled }));
        step();
        assert!(Requests::<Test>::get(id).is_none());
        assert_eq!((wealth(ALICE), budgets(ALICE)), (RICH, 0));
        assert!(Hosters::<Test>::iter().all(|(_, hoster)| hoster.used == 0 && hoster.silent == 0));
    });
}

#[test]
fn a_hoster_leaves_at_once_or_with_its_last_contract() {
    run(|| {
        let data = Data::new(1, 10_000);
        let (_, hosters) = hosted(&[&data], 1, 40);
        offers(2);
        assert_ok!(Datdot::leave(RuntimeOrigin::signed(hoster(1))));
        assert_eq!((bond(hoster(1)), Hosters::<Test>::contains_key(hoster(1))), (0, false));

        assert_ok!(Datdot::leave(RuntimeOrigin::signed(hosters[0])));
        assert_eq!(Hosters::<Test>::get(hosters[0]).unwrap().standing, Standing::Leaving);
        live(60, &hosters, &[&data]);
        assert_eq!((bond(hosters[0]), Hosters::<Test>::contains_key(hosters[0])), (0, false));
        assert!(wealth(hosters[0]) > RICH);
        assert!(news().contains(&Event::OfferWithdrawn { hoster: hosters[0], bond: PARAMS.bond }));
    });
}

#[test]
fn an_offer_can_be_changed_and_keeps_its_place() {
    run(|| {
        offers(3);
        let before = Hosters::<Test>::get(hoster(1)).unwrap();
        assert_ok!(post(hoster(1), Offer { price: 5 * DAT, ..an_offer() }));
        let after = Hosters::<Test>::get(hoster(1)).unwrap();
        assert_eq!((after.phase, after.bond, after.offer.price), (before.phase, PARAMS.bond, 5 * DAT));
        assert_eq!([0, 1, 2].map(|n| phase_of(hoster(n))), [0, 1, 2]);
    });
}

#[test]
fn who_hosts_its_own_data_pays_itself_and_gains_nothing() {
    run(|| {
        let data = Data::new(1, 300_000);
        post(ALICE, an_offer()).unwrap();
        let id = request(&[&data], 1, 60);
        live(80, &[ALICE], &[&data]);
        assert!(Requests::<Test>::get(id).is_none());
        assert!(news().iter().any(|event| matches!(event, Event::Paid { hoster: ALICE, .. })));
        assert_eq!((wealth(ALICE), budgets(ALICE), bond(ALICE)), (RICH, 0, PARAMS.bond));
    });
}

#[test]
fn friends_host_for_nothing_and_are_checked_all_the_same() {
    run(|| {
        let data = Data::new(1, 20_000);
        post(hoster(0), Offer { price: 0, ..an_offer() }).unwrap();
        ask(ALICE, &[&data], datdot_market::terms::Terms { max_price: 0, ..terms(1, 60) }).unwrap();
        live(80, &[hoster(0)], &[&data]);
        let proofs = news().iter().filter(|event| matches!(event, Event::Proven { .. })).count();
        assert!(proofs >= 5);
        assert_eq!((wealth(ALICE), wealth(hoster(0))), (RICH, RICH));
    });
}

#[test]
fn readers_find_hosters_before_sources() {
    run(|| {
        let data = Data::new(1, 10_000);
        assert_eq!(Datdot::feed_sources(&data.feed.key), []);
        let (_, hosters) = hosted(&[&data], 2, 60);
        let found = Datdot::feed_sources(&data.feed.key);
        let keys: Vec<_> = found.iter().map(|source| source.noise_key[0]).collect();
        assert_eq!((keys.len(), keys[2]), (3, 9));
        // A hoster is sent to the others, not to itself.
        let work = Datdot::account_view(&hosters[0]).hosting.unwrap().contracts.pop().unwrap();
        assert_eq!(work.sources.iter().map(|source| source.noise_key[0]).collect::<Vec<_>>(), [1, 9]);
    });
}

#[test]
fn a_view_says_what_is_free_and_what_is_held() {
    run(|| {
        let data = Data::new(1, 300_000);
        hosted(&[&data], 1, 60);
        let view = Datdot::account_view(&ALICE);
        assert_eq!(view.free + view.budgets + view.deposits, RICH - EXISTENTIAL_DEPOSIT);
        assert_eq!(view.deposits, PARAMS.deposit_for(1));
        assert_eq!((view.budgets, view.at, view.requests.len()), (budgets(ALICE), now(), 1));
        assert_eq!(view.requests[0].contracts[0].proven, Some(0));
        assert_eq!(view.requests[0].keys, [data.feed.key]);
        assert_eq!(Datdot::market_view().offers, [(PRICE, SPACE - 300_000, 100_000)]);
        assert_eq!(Parameters::<Test>::get(), PARAMS);
    });
}
