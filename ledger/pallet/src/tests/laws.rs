//! Laws over random runs.

use super::world::*;
use crate::{Agenda, Contracts, Event, Hosters, Phases, Requests};
use datdot_market::{
    Block, clock,
    contract::{End, Reason, State},
    terms::Offer,
};
use proptest::prelude::*;

const SPONSORS: [Who; 2] = [ALICE, BOB];
const HOSTERS: u64 = 6;

#[derive(Clone, Debug)]
enum Command {
    Offer { who: u64, price: u8, space: u32 },
    Leave { who: u64 },
    Ask { sponsor: usize, data: usize, replicas: u32, term: Block, price: u8 },
    Cancel { request: u32 },
    Tend { who: u64 },
    Prove { who: u64, damaged: bool },
    Pass { contract: u32, reason: Reason },
    Forfeit { contract: u32 },
    Settle { contract: u32 },
    Step { blocks: Block },
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![Just(Reason::Unwilling), Just(Reason::NoRoom), Just(Reason::Unreachable), Just(Reason::RootMismatch)]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (0..HOSTERS, 0u8..4, 5_000u32..100_000).prop_map(|(who, price, space)| Command::Offer { who, price, space }),
        1 => (0..HOSTERS).prop_map(|who| Command::Leave { who }),
        3 => (0..2usize, 0..3usize, 1u32..5, 20u32..200, 0u8..4)
            .prop_map(|(sponsor, data, replicas, term, price)| Command::Ask { sponsor, data, replicas, term, price }),
        1 => (0u32..40).prop_map(|request| Command::Cancel { request }),
        20 => (0..HOSTERS).prop_map(|who| Command::Tend { who }),
        30 => (0..HOSTERS, prop::bool::weighted(0.1)).prop_map(|(who, damaged)| Command::Prove { who, damaged }),
        2 => (0u32..80, reason()).prop_map(|(contract, reason)| Command::Pass { contract, reason }),
        2 => (0u32..80).prop_map(|contract| Command::Forfeit { contract }),
        2 => (0u32..80).prop_map(|contract| Command::Settle { contract }),
        20 => (1u32..5).prop_map(|blocks| Command::Step { blocks }),
    ]
}

/// Does a command as far as the ledger lets it.
fn obey(command: Command, all: &[&Data]) {
    match command {
        Command::Offer { who, price, space } => {
            let price = PRICE * u128::from(price) / 2;
            post(hoster(who), Offer { price, space: space.into(), ..an_offer() }).ok();
        }
        Command::Leave { who } => {
            Datdot::leave(RuntimeOrigin::signed(hoster(who))).ok();
        }
        Command::Ask { sponsor, data, replicas, term, price } => {
            let max_price = PRICE * u128::from(price) / 2;
            let terms = datdot_market::terms::Terms { max_price, ..terms(replicas, term) };
            ask(SPONSORS[sponsor], &all[..=data], terms).unwrap();
        }
        Command::Cancel { request } => {
            if let Some(sponsor) = Requests::<Test>::get(request).map(|request| request.sponsor) {
                Datdot::cancel(RuntimeOrigin::signed(sponsor), request).ok();
            }
        }
        Command::Tend { who } => tend(hoster(who)),
        Command::Prove { who, damaged } => {
            if let Some((number, mut proof)) = proof_of_now(hoster(who), all) {
                if damaged && let Some(opening) = proof.openings.last_mut() {
                    opening.chunk[0] ^= 1;
                }
                assert_eq!(prove(hoster(who), number, proof).is_ok(), !damaged);
            }
        }
        Command::Pass { contract, reason } => {
            if let Some(who) = Contracts::<Test>::get(contract).map(|contract| contract.hoster) {
                Datdot::pass(RuntimeOrigin::signed(who), contract, reason).ok();
            }
        }
        Command::Forfeit { contract } => {
            if let Some(who) = Contracts::<Test>::get(contract).map(|contract| contract.hoster) {
                Datdot::forfeit(RuntimeOrigin::signed(who), contract).ok();
            }
        }
        Command::Settle { contract } => {
            Datdot::settle(RuntimeOrigin::signed(BOB), contract).ok();
        }
        Command::Step { blocks } => (0..blocks).for_each(|_| step()),
    }
    Datdot::do_try_state().unwrap();
}

/// Everything is cancelled, everybody leaves, and nobody does anything any more.
fn wind_up() {
    for (id, request) in Requests::<Test>::iter().collect::<Vec<_>>() {
        Datdot::cancel(RuntimeOrigin::signed(request.sponsor), id).ok();
    }
    for who in Hosters::<Test>::iter_keys().collect::<Vec<_>>() {
        Datdot::leave(RuntimeOrigin::signed(who)).unwrap();
    }
    go_to(now() + 2 * PARAMS.period);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_money_is_conserved_and_in_the_end_all_of_it_is_free(
        commands in prop::collection::vec(command(), 100..400),
    ) {
        let data = [Data::new(1, 9_000), Data::new(2, 700), Data::new(3, 30_000)];
        let all: Vec<_> = data.iter().collect();
        run(|| {
            for command in commands {
                obey(command, &all);
            }
            wind_up();
            let everybody = SPONSORS.into_iter().chain((0..HOSTERS).map(hoster));
            for who in everybody {
                assert_eq!((who, budgets(who), bond(who)), (who, 0, 0));
            }
            assert_eq!(Contracts::<Test>::iter().count(), 0);
            assert_eq!((Requests::<Test>::count(), Hosters::<Test>::count()), (0, 0));
            assert_eq!((Agenda::<Test>::iter().count(), Phases::<Test>::iter().count()), (0, 0));
        });
    }

    #[test]
    fn an_honest_hoster_is_never_punished_and_always_paid(
        joins in prop::collection::vec(0u32..12, 4), delays in prop::collection::vec(0u32..15, 16),
        answers in prop::collection::vec(1u32..=5, 16), term in 20u32..120, asks in prop::collection::vec(1u32..20, 3),
    ) {
        let data = [Data::new(1, 9_000), Data::new(2, 700), Data::new(3, 30_000)];
        let all: Vec<_> = data.iter().collect();
        run(|| {
            for (n, wait) in joins.iter().enumerate() {
                go_to(now() + wait);
                post(hoster(n as u64), an_offer()).unwrap();
            }
            let live = |blocks| {
                for _ in 0..blocks {
                    step();
                    for n in 0..joins.len() as u64 {
                        serve_at_leisure(hoster(n), &delays, &answers, &all);
                    }
                }
            };
            for (n, wait) in asks.iter().enumerate() {
                live(*wait);
                ask(SPONSORS[n % 2], &all[..=n], terms(1 + n as u32, term)).unwrap();
            }
            live(term + 100);
            let is_unjust = |event: &Event<Test>| match event {
                Event::ChallengeMissed { .. } | Event::Lapsed { .. } => true,
                Event::ContractEnded { why, paid, .. } => *paid == 0 && *why != End::Cancelled,
                _ => false,
            };
            let unjust: Vec<_> = news().into_iter().filter(is_unjust).collect();
            assert_eq!(unjust, []);
            assert_eq!(Requests::<Test>::count(), 0);
        });
    }
}

/// A hoster takes, accepts and proves, each as late as it likes within what is allowed.
fn serve_at_leisure(who: Who, delays: &[Block], answers: &[Block], all: &[&Data]) {
    for id in crate::ContractsOf::<Test>::get(who) {
        let contract = Contracts::<Test>::get(id).unwrap();
        let delay = delays[id as usize % delays.len()];
        let since = match contract.state {
            State::Drawn { answer_by } => now() - (answer_by - PARAMS.answer_within),
            State::Fetching { by } => now() - (by - PARAMS.fetch_within(contract.bytes)),
            _ => continue,
        };
        if since >= delay {
            tend(who);
        }
    }
    if let Some((number, proof)) = proof_of_now(who, all) {
        let asked = clock::block_of(phase_of(who), number, &PARAMS);
        if now() - asked >= answers[number as usize % answers.len()] {
            prove(who, number, proof).unwrap();
        }
    }
}
