//! What each call refuses, and that a refusal changes nothing.

use super::world::*;
use crate::{Contracts, Error, Hosters, Requests};
use datdot_market::{
    Block,
    contract::Reason,
    params::DAT,
    terms::{Offer, Sources, Terms},
};
use datdot_proof::{proof::Proof, segment::MAX_SEGMENT_BYTES};
use frame_support::{assert_noop, assert_ok};

#[test]
fn an_offer_needs_space_a_term_and_a_bond() {
    run(|| {
        assert_noop!(post(hoster(0), Offer { space: 0, ..an_offer() }), Error::<Test>::NoSpace);
        assert_noop!(post(hoster(0), Offer { max_term: 19, ..an_offer() }), Error::<Test>::TermTooShort);
        let poor = 77;
        Balances::force_set_balance(RuntimeOrigin::root(), poor, PARAMS.bond).unwrap();
        assert_noop!(post(poor, an_offer()), Error::<Test>::BondAboveBalance);
        // Back to what was issued at first.
        Balances::force_set_balance(RuntimeOrigin::root(), poor, 0).unwrap();
        assert_noop!(Datdot::leave(RuntimeOrigin::signed(hoster(0))), Error::<Test>::NoOffer);
    });
}

#[test]
fn an_offer_does_not_shrink_below_what_is_used() {
    run(|| {
        let data = Data::new(1, 10_000);
        let (_, hosters) = hosted(&[&data], 1, 60);
        assert_noop!(post(hosters[0], Offer { space: 9_999, ..an_offer() }), Error::<Test>::SpaceInUse);
        assert_ok!(post(hosters[0], Offer { space: 10_000, ..an_offer() }));
    });
}

#[test]
fn one_block_challenges_no_more_hosters_than_it_can() {
    run(|| {
        let most = crate::MAX_HOSTERS_PER_PHASE * PARAMS.period;
        for n in 0..most {
            let who = 10_000 + Who::from(n);
            Balances::force_set_balance(RuntimeOrigin::root(), who, 2 * PARAMS.bond).unwrap();
            post(who, an_offer()).unwrap();
        }
        assert_noop!(post(hoster(0), an_offer()), Error::<Test>::TooManyHosters);
        Datdot::leave(RuntimeOrigin::signed(10_005)).unwrap();
        assert_ok!(post(hoster(0), an_offer()));
        assert_eq!(phase_of(hoster(0)), 5);
        for n in 0..most {
            let who = 10_000 + Who::from(n);
            Datdot::leave(RuntimeOrigin::signed(who)).ok();
            Balances::force_set_balance(RuntimeOrigin::root(), who, 0).unwrap();
        }
    });
}

#[test]
fn a_request_needs_sensible_terms() {
    run(|| {
        let data = Data::new(1, 10_000);
        let good = terms(2, 60);
        for (terms, why) in [
            (Terms { replicas: 0, ..good }, Error::<Test>::BadReplicas),
            (Terms { replicas: 17, ..good }, Error::BadReplicas),
            (Terms { term: 0, ..good }, Error::TermTooShort),
            (Terms { term: 19, ..good }, Error::TermTooShort),
            (Terms { replicas: 16, term: u32::MAX, max_price: u128::MAX }, Error::TooLarge),
            (Terms { max_price: 1 << 90, ..good }, Error::BudgetAboveBalance),
        ] {
            assert_noop!(ask(ALICE, &[&data], terms), why);
        }
        assert_noop!(ask(ALICE, &[], good), Error::<Test>::BadFeeds);
        assert_noop!(ask(ALICE, &[&data, &data], good), Error::<Test>::BadFeeds);
        assert_eq!((budgets(ALICE), Requests::<Test>::count()), (0, 0));
    });
}

#[test]
fn a_request_may_name_no_source_and_an_offer_no_address() {
    run(|| {
        let data = Data::new(1, 10_000);
        assert_ok!(Datdot::request(RuntimeOrigin::signed(ALICE), feeds(&[&data]), terms(2, 60), Sources::new()));
        assert_eq!(Requests::<Test>::count(), 1);
        assert_ok!(post(hoster(0), Offer { addresses: Default::default(), ..an_offer() }));
    });
}

#[test]
fn a_head_must_be_signed_by_the_author_of_its_feed() {
    run(|| {
        let (good, other) = (Data::new(1, 10_000), Data::new(2, 10_000));
        let asked = |data: &Data| ask(ALICE, &[&other, data], terms(1, 60));

        let mut forged = good.clone();
        forged.feed.head.signature[5] ^= 1;
        assert_noop!(asked(&forged), Error::<Test>::HeadNotSigned(1));

        let mut grown = good.clone();
        grown.feed.head.roots[0].size += 1;
        assert_noop!(asked(&grown), Error::<Test>::HeadNotSigned(1));

        let mut renamed = good.clone();
        renamed.feed.key = [3; 32];
        assert_noop!(asked(&renamed), Error::<Test>::OtherFeed(1));

        let mut cut = good.clone();
        cut.feed.head.roots.pop();
        assert_noop!(asked(&cut), Error::<Test>::BadHead(1));

        let mut huge = good.clone();
        huge.feed.head.roots[0].size = MAX_SEGMENT_BYTES + 1;
        assert_noop!(asked(&huge), Error::<Test>::TooLarge);

        assert_ok!(asked(&good));
    });
}

#[test]
fn only_the_drawn_hoster_answers_and_only_in_order_and_in_time() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        request(&[&data], 1, 60);
        go_to(now() + PARAMS.match_after);
        let (who, contract) = (hoster(0), contract_of(hoster(0)));
        for (asked, why) in [
            (take(BOB, contract), Error::<Test>::NotYourContract),
            (take(who, contract + 1), Error::NoSuchContract),
            (accept(BOB, contract), Error::NotYourContract),
            (accept(who, contract), Error::NotFetching),
            (accept(who, contract + 1), Error::NoSuchContract),
            (Datdot::pass(RuntimeOrigin::signed(BOB), contract, Reason::Unwilling), Error::NotYourContract),
            (Datdot::pass(RuntimeOrigin::signed(who), contract + 1, Reason::Unwilling), Error::NoSuchContract),
            (Datdot::forfeit(RuntimeOrigin::signed(BOB), contract), Error::NotYourContract),
            (Datdot::forfeit(RuntimeOrigin::signed(who), contract), Error::NotHosting),
            (Datdot::forfeit(RuntimeOrigin::signed(who), contract + 1), Error::NoSuchContract),
            (Datdot::settle(RuntimeOrigin::signed(who), contract), Error::NotHosting),
            (Datdot::settle(RuntimeOrigin::signed(who), contract + 1), Error::NoSuchContract),
        ] {
            refused(asked, why);
        }
        for reason in [Reason::Unreachable, Reason::RootMismatch] {
            refused(Datdot::pass(RuntimeOrigin::signed(who), contract, reason), Error::NotFetching);
        }
        assert_ok!(take(who, contract));
        assert_noop!(take(who, contract), Error::<Test>::NotDrawn);
        assert_ok!(accept(who, contract));
        assert_noop!(accept(who, contract), Error::<Test>::NotFetching);
        assert_noop!(Datdot::pass(RuntimeOrigin::signed(who), contract, Reason::NoRoom), Error::<Test>::NotFetching);
    });
}

#[test]
fn a_late_answer_is_refused_even_before_the_ledger_has_looked() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        request(&[&data], 1, 60);
        go_to(now() + PARAMS.match_after);
        let (who, contract) = (hoster(0), contract_of(hoster(0)));
        let last = Contracts::<Test>::get(contract).unwrap().wakes_at() - 1;
        System::set_block_number(u64::from(last) + 1);
        assert_noop!(take(who, contract), Error::<Test>::TooLate);
        System::set_block_number(u64::from(last));
        assert_ok!(take(who, contract));
        let last = Contracts::<Test>::get(contract).unwrap().wakes_at() - 1;
        System::set_block_number(u64::from(last) + 1);
        assert_noop!(accept(who, contract), Error::<Test>::TooLate);
        System::set_block_number(u64::from(last));
        assert_ok!(accept(who, contract));
        // What the skipped blocks would have looked at is looked at now.
        crate::Agenda::<Test>::drain().for_each(drop);
        for (id, request) in Requests::<Test>::iter().collect::<Vec<_>>() {
            Datdot::put_request_anew(id, request);
        }
    });
}

#[test]
fn only_the_sponsor_cancels_and_only_once() {
    run(|| {
        offers(1);
        let data = Data::new(1, 10_000);
        let id = request(&[&data], 1, 60);
        go_to(now() + PARAMS.match_after);
        let cancel = |who, id| Datdot::cancel(RuntimeOrigin::signed(who), id);
        assert_noop!(cancel(BOB, id), Error::<Test>::NotYourRequest);
        assert_noop!(cancel(ALICE, id + 1), Error::<Test>::NoSuchRequest);
        assert_ok!(cancel(ALICE, id));
        assert_noop!(cancel(ALICE, id), Error::<Test>::RequestClosing);
        assert_noop!(take(hoster(0), contract_of(hoster(0))), Error::<Test>::RequestClosing);
    });
}

#[test]
fn a_proof_must_be_due_whole_and_true() {
    run(|| {
        let data = Data::new(1, 200_000);
        assert_noop!(prove(BOB, 0, Proof { openings: vec![] }), Error::<Test>::NoOffer);
        let (_, hosters) = hosted(&[&data], 1, 100);
        let who = hosters[0];
        let (_, number, proof) = loop {
            step();
            if let Some(owed) = owed(&hosters, &[&data]).pop() {
                break owed;
            }
        };
        step();
        assert_noop!(prove(who, number + 1, proof.clone()), Error::<Test>::ChallengeNotOpen);

        let mut short = proof.clone();
        short.openings.pop();
        assert_noop!(prove(who, number, short), Error::<Test>::WrongOpenings);

        let mut damaged = proof.clone();
        damaged.openings[3].chunk[17] ^= 1;
        assert_noop!(prove(who, number, damaged), Error::<Test>::FalseOpening(3));

        let mut cut = proof.clone();
        cut.openings[2].siblings.pop();
        assert_noop!(prove(who, number, cut), Error::<Test>::MalformedOpening(2));

        // A refused proof can be corrected as long as the window is open.
        assert_ok!(prove(who, number, proof.clone()));
        assert_noop!(prove(who, number, proof.clone()), Error::<Test>::ChallengeAnswered);
        go_to(now() + PARAMS.deadline);
        assert_noop!(prove(who, number, proof), Error::<Test>::ChallengeNotOpen);
    });
}

#[test]
fn a_proof_of_another_hoster_or_another_challenge_is_refused() {
    run(|| {
        let data = Data::new(1, 200_000);
        let (_, hosters) = hosted(&[&data], 2, 100);
        let mut proofs = Vec::new();
        for _ in 0..25 {
            end_block();
            proofs.extend(owed(&hosters, &[&data]));
            begin_block();
            let here = Datdot::account_view(&hosters[0]).hosting.and_then(|hosting| hosting.challenge);
            if let Some(challenge) = here.filter(|challenge| challenge.asked < now() && now() <= challenge.by) {
                let others = proofs.iter().filter(|(who, number, _)| (*who, *number) != (hosters[0], challenge.number));
                for (_, _, proof) in others {
                    assert!(prove(hosters[0], challenge.number, proof.clone()).is_err());
                }
            }
        }
        assert!(proofs.len() > 4);
    });
}

#[test]
fn nothing_is_to_be_proven_where_nothing_is_held() {
    run(|| {
        offers(1);
        let empty = || Proof { openings: vec![] };
        let numbers: Vec<_> = (0..30)
            .filter_map(|_| {
                step();
                let owes_from = Hosters::<Test>::get(hoster(0)).unwrap().owes_from;
                let number = datdot_market::clock::open(phase_of(hoster(0)), now(), &PARAMS)?;
                let number = Some(number).filter(|number| *number >= owes_from)?;
                assert_noop!(prove(hoster(0), number, empty()), Error::<Test>::NothingToProve);
                Some(number)
            })
            .collect();
        assert!(!numbers.is_empty());
        assert!(Hosters::<Test>::get(hoster(0)).unwrap().standing == datdot_market::hoster::Standing::Open);
    });
}

#[test]
fn who_can_not_pay_the_bond_again_stays_away() {
    run(|| {
        let data = Data::new(1, 10_000);
        let (_, hosters) = hosted(&[&data], 1, 100);
        let who = hosters[0];
        Datdot::forfeit(RuntimeOrigin::signed(who), contract_of(who)).unwrap();
        assert!(bond(who) < PARAMS.bond);
        assert!(!Hosters::<Test>::get(who).unwrap().is_drawable(Block::MAX, &PARAMS));
        let free = Balances::free_balance(who);
        Balances::transfer_allow_death(RuntimeOrigin::signed(who), BOB, free - EXISTENTIAL_DEPOSIT).unwrap();
        assert_noop!(post(who, an_offer()), Error::<Test>::BondAboveBalance);
        Balances::transfer_allow_death(RuntimeOrigin::signed(BOB), who, 2 * DAT).unwrap();
        assert_ok!(post(who, an_offer()));
        assert_eq!(bond(who), PARAMS.bond);
    });
}
