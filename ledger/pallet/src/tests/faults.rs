//! What happens when somebody doesn't do what it should.

use super::world::*;
use crate::{Contracts, Event, HoldReason, Hosters, LAPSES_PER_BLOCK, Requests};
use datdot_market::{
    Balance,
    contract::{End, Reason},
    hoster::Standing,
    payout,
    request::{Closing, Why},
    terms::Offer,
};
use frame_support::{assert_ok, traits::fungible::InspectHold};

/// What the only contract of a hoster would cost it now.
fn penalty_of(who: Who) -> Balance {
    PARAMS.penalty.min(Contracts::<Test>::get(contract_of(who)).unwrap().reserve)
}

fn pass(who: Who, reason: Reason) {
    assert_ok!(Datdot::pass(RuntimeOrigin::signed(who), contract_of(who), reason));
}

#[test]
fn three_misses_in_a_row_lapse_and_the_slot_goes_to_another() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (id, hosters) = hosted(&[&data], 2, 200);
        post(hoster(2), an_offer()).unwrap();
        let (gone, stays) = (hosters[0], hosters[1]);
        let (budget, penalty) = (budgets(ALICE), penalty_of(gone));
        live(45, &[stays, hoster(2)], &[&data]);

        let news = news();
        let missed: Vec<_> = news
            .iter()
            .filter_map(|event| match event {
                Event::ChallengeMissed { hoster, missed, .. } => Some((*hoster, *missed)),
                _ => None,
            })
            .collect();
        assert_eq!(missed, [(gone, 1), (gone, 2), (gone, 3)]);
        assert!(news.contains(&Event::Lapsed { hoster: gone, contracts: 1, penalty }));
        assert!(news.iter().any(
            |event| matches!(event, Event::ContractEnded { hoster, why: End::Lapsed, paid: 0, .. } if *hoster == gone)
        ));
        let mut hosting: Vec<_> = hosting_of(id).into_iter().map(|(_, who)| who).collect();
        hosting.sort();
        assert_eq!(hosting, [stays, hoster(2)]);
        assert_eq!((wealth(gone), bond(gone)), (RICH - penalty, PARAMS.bond - penalty));
        assert_eq!(Hosters::<Test>::get(gone).unwrap().standing, Standing::Away);
        assert_eq!(budgets(ALICE), budget + penalty);
        // It comes back when it says so.
        assert_ok!(post(gone, an_offer()));
        assert_eq!((bond(gone), Hosters::<Test>::get(gone).unwrap().standing), (PARAMS.bond, Standing::Open));
    });
}

#[test]
fn two_misses_are_forgiven_and_not_paid() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (_, hosters) = hosted(&[&data], 1, 100);
        live(25, &[], &[&data]);
        live(100, &hosters, &[&data]);
        let news = news();
        assert!(!news.iter().any(|event| matches!(event, Event::Lapsed { .. })));
        let count = |wanted: fn(&Event<Test>) -> bool| news.iter().filter(|event| wanted(event)).count() as u32;
        let missed = count(|event| matches!(event, Event::ChallengeMissed { .. }));
        let proven = count(|event| matches!(event, Event::Proven { .. }));
        assert!((1..=2).contains(&missed) && missed + proven >= 9, "{missed} missed, {proven} proven");
        assert_eq!(wealth(hosters[0]), RICH + payout::due(proven, PRICE, 300_000, &PARAMS).unwrap());
    });
}

#[test]
fn damaged_bytes_are_found_before_a_proof_is_sent_and_earn_nothing() {
    run(|| {
        let data = Data::new(1, 16_000);
        let (_, hosters) = hosted(&[&data], 1, 100);
        let mut damaged = data.clone();
        for chunk in damaged.content.chunks_mut(1024) {
            chunk[0] ^= 1;
        }
        live(20, &hosters, &[&damaged]);
        assert!(!news().iter().any(|event| matches!(event, Event::Proven { .. })));
        live(10, &hosters, &[&data]);
        assert!(news().iter().any(|event| matches!(event, Event::Proven { .. })));
    });
}

#[test]
fn more_lapses_than_a_block_can_take_go_on_a_period_later() {
    run(|| {
        // Every tenth hoster has the same phase.
        offers(60);
        let crowd: Vec<_> = (0..6).map(|n| hoster(10 * n)).collect();
        for n in (0..60).filter(|n| n % 10 != 0) {
            Datdot::leave(RuntimeOrigin::signed(hoster(n))).unwrap();
        }
        let data = Data::new(1, 20_000);
        request(&[&data], 6, 300);
        live(4, &crowd, &[&data]);
        assert_eq!(Contracts::<Test>::iter().count(), 6);
        let mut lapsed = Vec::new();
        for _ in 0..60 {
            step();
            let count = news().iter().filter(|event| matches!(event, Event::Lapsed { .. })).count();
            lapsed.extend((count > 0).then_some((now(), count as u32)));
        }
        assert_eq!(lapsed.len(), 2);
        assert_eq!((lapsed[0].1, lapsed[1].1), (LAPSES_PER_BLOCK, 2));
        assert_eq!(lapsed[1].0, lapsed[0].0 + PARAMS.period);
    });
}

#[test]
fn forfeiting_costs_the_penalty_and_the_slot_goes_to_another() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (id, hosters) = hosted(&[&data], 1, 200);
        live(25, &hosters, &[&data]);
        post(hoster(1), an_offer()).unwrap();
        let (who, contract) = (hosters[0], contract_of(hosters[0]));
        let penalty = penalty_of(who);
        assert_ok!(Datdot::forfeit(RuntimeOrigin::signed(who), contract));
        assert!(news().contains(&Event::Forfeited { request: id, contract, hoster: who, penalty }));
        live(10, &[who, hoster(1)], &[&data]);
        let ended =
            |event: &Event<Test>| matches!(event, Event::ContractEnded { why: End::Forfeited, paid, .. } if *paid > 0);
        assert!(news().iter().any(ended));
        assert_eq!(hosting_of(id).into_iter().map(|(_, who)| who).collect::<Vec<_>>(), [hoster(1)]);
        // It stays open for others, but rests for this request.
        assert_eq!(Hosters::<Test>::get(who).unwrap().standing, Standing::Open);
    });
}

#[test]
fn silence_frees_the_slot_and_three_silences_close_the_offer() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        for n in 1..=3 {
            let id = request(&[&data], 1, 60);
            go_to(now() + PARAMS.match_after);
            assert_eq!(Contracts::<Test>::iter().count(), 1);
            go_to(now() + PARAMS.answer_within + 1);
            assert_eq!(Contracts::<Test>::iter().count(), 0);
            let one = Hosters::<Test>::get(hoster(0)).unwrap();
            assert_eq!((one.silent, one.used, one.standing == Standing::Away), (n, 0, n == 3));
            Datdot::cancel(RuntimeOrigin::signed(ALICE), id).unwrap();
            step();
        }
        assert_eq!(
            news().iter().filter(|event| matches!(event, Event::ContractEnded { why: End::Silent, .. })).count(),
            3
        );
        request(&[&data], 1, 60);
        go_to(now() + PARAMS.match_after);
        assert_eq!(Contracts::<Test>::iter().count(), 0);
        assert_ok!(post(hoster(0), an_offer()));
        assert_eq!(Hosters::<Test>::get(hoster(0)).unwrap().silent, 0);
    });
}

#[test]
fn who_fetches_too_long_makes_room_for_another() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        request(&[&data], 1, 200);
        go_to(now() + PARAMS.match_after);
        take(hoster(0), contract_of(hoster(0))).unwrap();
        go_to(now() + PARAMS.fetch_base);
        assert_eq!(Contracts::<Test>::iter().count(), 1);
        step();
        assert_eq!(Contracts::<Test>::iter().count(), 0);
        // It costs nothing but counts as silence: or one could hold up every request by taking it.
        assert_eq!((bond(hoster(0)), Hosters::<Test>::get(hoster(0)).unwrap().silent), (PARAMS.bond, 1));
    });
}

#[test]
fn who_comes_for_one_proof_and_goes_earns_nothing() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (_, hosters) = hosted(&[&data], 1, 200);
        let who = hosters[0];
        while Datdot::proven(contract_of(who), &Contracts::<Test>::get(contract_of(who)).unwrap()) == Some(0) {
            live(1, &hosters, &[&data]);
        }
        assert_ok!(Datdot::settle(RuntimeOrigin::signed(who), contract_of(who)));
        let penalty = penalty_of(who);
        assert_ok!(Datdot::forfeit(RuntimeOrigin::signed(who), contract_of(who)));
        live(PARAMS.period, &hosters, &[&data]);
        assert_eq!(wealth(who), RICH - penalty);
    });
}

#[test]
fn a_contract_worth_less_than_the_penalty_costs_what_it_is_worth() {
    run(|| {
        let data = Data::new(1, 1);
        let (_, hosters) = hosted(&[&data], 1, 200);
        let worth = penalty_of(hosters[0]);
        assert!(worth < PARAMS.penalty / 1_000_000);
        live(45, &[], &[]);
        assert!(news().contains(&Event::Lapsed { hoster: hosters[0], contracts: 1, penalty: worth }));
        assert_eq!(bond(hosters[0]), PARAMS.bond - worth);
    });
}

#[test]
fn a_request_that_nobody_hosts_closes_after_its_term_and_everything_returns() {
    run(|| {
        let data = Data::new(1, 300_000);
        let id = request(&[&data], 1, 200);
        let deposit = 2 * PARAMS.deposit;
        assert_eq!(Balances::balance_on_hold(&HoldReason::Deposit.into(), &ALICE), deposit);
        let end = now() + PARAMS.day();
        // Nothing happens in between that this test is about.
        System::set_block_number(u64::from(end) - 1);
        crate::Agenda::<Test>::drain().for_each(drop);
        Datdot::put_request_anew(id, Requests::<Test>::get(id).unwrap());
        step();
        assert!(news().contains(&Event::RequestClosing { request: id, why: Closing::NobodyHosted }));
        assert_eq!((Requests::<Test>::count(), Balances::free_balance(ALICE)), (0, RICH));
    });
}

#[test]
fn passing_costs_nothing_and_the_slot_goes_on() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        let id = request(&[&data], 1, 200);
        go_to(now() + PARAMS.match_after);
        pass(hoster(0), Reason::NoRoom);
        post(hoster(1), an_offer()).unwrap();
        live(PARAMS.match_after + 2, &[hoster(1)], &[&data]);
        assert_eq!(hosting_of(id).len(), 1);
        assert_eq!((bond(hoster(0)), Hosters::<Test>::get(hoster(0)).unwrap().silent), (PARAMS.bond, 0));
    });
}

#[test]
fn a_source_that_two_hosters_can_not_reach_is_named_as_the_reason() {
    run(|| {
        offers(2);
        let data = Data::new(1, 10_000);
        let id = request(&[&data], 1, 200);
        for _ in 0..2 {
            go_to(now() + PARAMS.match_after + 1);
            let (_, contract) = Contracts::<Test>::iter().next().unwrap();
            take(contract.hoster, contract_of(contract.hoster)).unwrap();
            pass(contract.hoster, Reason::Unreachable);
        }
        assert_eq!(Requests::<Test>::get(id).unwrap().waiting.unwrap().why, Why::SourceUnreachable);
        assert!([0, 1].iter().all(|n| bond(hoster(*n)) == PARAMS.bond));
        // When the source is back, it goes on.
        post(hoster(2), an_offer()).unwrap();
        live(PARAMS.retry_at_most, &[hoster(2)], &[&data]);
        assert_eq!(hosting_of(id).len(), 1);
    });
}

#[test]
fn a_root_that_two_hosters_find_false_stops_the_request_and_the_money_returns() {
    run(|| {
        offers(3);
        let mut data = Data::new(1, 10_000);
        data.feed.root = [1; 32];
        let id = request(&[&data], 2, 200);
        go_to(now() + PARAMS.match_after);
        let drawn: Vec<_> = Contracts::<Test>::iter().map(|(_, contract)| contract.hoster).collect();
        for who in drawn {
            take(who, contract_of(who)).unwrap();
            pass(who, Reason::RootMismatch);
        }
        assert!(news().contains(&Event::RequestClosing { request: id, why: Closing::RootMismatch }));
        step();
        assert!(Requests::<Test>::get(id).is_none());
        assert_eq!((wealth(ALICE), budgets(ALICE)), (RICH, 0));
    });
}

#[test]
fn what_waits_says_why_and_waits_longer_each_time() {
    run(|| {
        let data = Data::new(1, 10_000);
        let why = |offer: Option<Offer>, replicas| {
            if let Some(offer) = offer {
                post(hoster(0), offer).unwrap();
            }
            let id = request(&[&data], replicas, 200);
            go_to(now() + PARAMS.match_after);
            let why = Requests::<Test>::get(id).unwrap().waiting.unwrap().why;
            Datdot::cancel(RuntimeOrigin::signed(ALICE), id).unwrap();
            step();
            why
        };
        assert_eq!(why(None, 1), Why::NoOffers);
        assert_eq!(why(Some(Offer { price: PRICE + 1, ..an_offer() }), 1), Why::PriceTooLow);
        assert_eq!(why(Some(Offer { max_term: 199, ..an_offer() }), 1), Why::TermTooLong);
        assert_eq!(why(Some(Offer { space: 9_999, ..an_offer() }), 1), Why::NoSpace);
        assert_eq!(why(Some(an_offer()), 2), Why::NoOtherHosters);
        Datdot::leave(RuntimeOrigin::signed(hoster(0))).unwrap();

        request(&[&data], 1, 200);
        news();
        let mut draws = Vec::new();
        for _ in 0..40 {
            step();
            draws.extend(news().iter().any(|event| matches!(event, Event::Waiting { .. })).then_some(now()));
        }
        let gaps: Vec<_> = draws.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..4], [2, 4, 8, 16]);
    });
}

#[test]
fn pay_that_can_not_be_delivered_stays_owed_and_comes_later() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (id, hosters) = hosted(&[&data], 1, 40);
        let (who, contract) = (hosters[0], contract_of(hosters[0]));
        live(30, &hosters, &[&data]);
        let free = Balances::free_balance(who);
        let set_free = |free| frame_system::Account::<Test>::mutate(who, |account| account.data.free = free);
        // No account can take more than there are numbers.
        set_free(Balance::MAX - bond(who));
        assert_ok!(Datdot::settle(RuntimeOrigin::signed(BOB), contract));
        live(40, &hosters, &[&data]);
        let owed = news().into_iter().filter(|event| matches!(event, Event::PayOwed { .. })).count();
        assert!(owed >= 2 && Requests::<Test>::contains_key(id));
        set_free(free);
        live(PARAMS.period, &hosters, &[&data]);
        assert!(!Requests::<Test>::contains_key(id) && wealth(who) > RICH);
        assert_eq!(wealth(who) + wealth(ALICE), 2 * RICH);
    });
}

#[test]
fn a_contract_that_ends_in_the_last_period_is_not_given_to_another() {
    run(|| {
        let data = Data::new(1, 300_000);
        let (id, hosters) = hosted(&[&data], 1, 60);
        post(hoster(1), an_offer()).unwrap();
        let ends = Requests::<Test>::get(id).unwrap().ends.unwrap();
        live(ends - PARAMS.period + 1 - now(), &hosters, &[&data]);
        Datdot::forfeit(RuntimeOrigin::signed(hosters[0]), contract_of(hosters[0])).unwrap();
        news();
        live(30, &hosters, &[&data]);
        assert!(!news().iter().any(|event| matches!(event, Event::Drawn { .. })));
        assert!(Requests::<Test>::get(id).is_none());
    });
}
