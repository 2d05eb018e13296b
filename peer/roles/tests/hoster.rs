//! What a hoster does, whatever happens to it.

mod world;

use datdot_market::{
    contract::{End, Reason},
    params::DAT,
    terms::Offer,
};
use datdot_roles::{
    Call, Note,
    hoster::{Action, Data, Input, Wanted},
};
use world::{PARAMS, World, feed, key, offer};

const CONTRACT: u32 = 7;

fn hosting(seed: u8) -> World {
    let mut world = World::seeded(seed);
    world.draw(CONTRACT, &[1, 2]);
    world.run(15);
    assert!(world.is_hosting(CONTRACT), "seed {seed}: {}", world.story());
    world
}

fn calls(world: &World) -> Vec<Call> {
    let call = |action| if let Action::Submit(_, call) = action { Some(call) } else { None };
    world.log.iter().filter_map(|(_, action)| call(action.clone())).collect()
}

#[test]
fn a_drawn_hoster_takes_fetches_accepts_and_proves_every_period() {
    for seed in 0..20 {
        let mut world = hosting(seed);
        world.run(100);
        assert!(matches!(calls(&world)[..2], [Call::Take(CONTRACT), Call::Accept(CONTRACT)]));
        let first = world.proven[0];
        assert!(world.proven.iter().copied().eq(first..first + world.proven.len() as u32), "seed {seed}");
        assert!(world.proven.len() >= 9, "seed {seed}: {:?}", world.proven);
    }
}

#[test]
fn nothing_is_submitted_twice() {
    for seed in 0..20 {
        let mut world = hosting(seed);
        world.run(100);
        assert_eq!(world.submitted(|call| matches!(call, Call::Take(_))), 1, "seed {seed}");
        assert_eq!(world.submitted(|call| matches!(call, Call::Accept(_))), 1, "seed {seed}");
        let number = |call| if let Call::Prove { challenge, .. } = call { Some(challenge.number) } else { None };
        let numbers: Vec<_> = calls(&world).into_iter().filter_map(number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "seed {seed}: {numbers:?}");
        assert_eq!(world.submitted(|call| matches!(call, Call::Offer(_))), 0, "seed {seed}: it stands already");
    }
}

#[test]
fn a_hoster_that_restarts_while_fetching_goes_on() {
    for seed in 0..20 {
        for after in 1..14 {
            let mut world = World::seeded(seed);
            world.draw(CONTRACT, &[1, 2]);
            world.run(after);
            world.restart();
            world.run(60);
            assert!(world.is_hosting(CONTRACT), "seed {seed}, restart after {after}: {}", world.story());
            assert!(world.proven.len() >= 3, "seed {seed}, restart after {after}: {}", world.story());
        }
    }
}

#[test]
fn a_hoster_that_restarts_at_any_time_misses_nothing() {
    for seed in 0..10 {
        let mut world = hosting(seed);
        for pause in 0..30 {
            world.run(3 + (pause * 7 + u32::from(seed)) % 9);
            world.restart();
        }
        world.run(10);
        let missed = world.noted(|note| matches!(note, Note::Missed { .. }));
        assert!(!missed && world.is_hosting(CONTRACT), "seed {seed}: {}", world.story());
    }
}

#[test]
fn a_ledger_that_is_away_for_a_while_is_caught_up_with() {
    let mut world = hosting(1);
    world.faults.offline = true;
    world.run(12);
    world.faults.offline = false;
    let before = world.proven.len();
    world.run(30);
    assert!(world.proven.len() >= before + 2, "{}", world.story());
}

#[test]
fn data_is_dropped_only_when_the_end_is_final() {
    let mut world = hosting(1);
    world.lag = 8;
    world.cancel(CONTRACT);
    while world.contracts.contains_key(&CONTRACT) {
        world.step();
    }
    let gone = world.now;
    world.run(20);
    let drops: Vec<_> = world.log.iter().filter(|(_, action)| matches!(action, Action::Drop(_))).collect();
    assert_eq!(drops.len(), 2, "{}", world.story());
    assert!(drops.iter().all(|(at, _)| *at >= gone + 8), "gone in {gone}, {drops:?}");
    assert!(world.disk.is_empty());
}

#[test]
fn one_copy_serves_two_contracts_and_stays_while_one_needs_it() {
    let mut world = hosting(1);
    world.draw(8, &[2, 3]);
    world.run(15);
    assert!(world.is_hosting(8));
    world.cancel(CONTRACT);
    world.run(30);
    assert_eq!(world.disk, [key(2), key(3)].into());
    assert!(world.proven.len() >= 3);
}

#[test]
fn what_was_published_here_is_never_dropped() {
    let mut world = hosting(1);
    world.tell(Input::Own(key(1)));
    world.cancel(CONTRACT);
    world.run(30);
    assert_eq!(world.disk, [key(1)].into());
    world.tell(Input::Disown(key(1)));
    world.run(5);
    assert!(world.disk.is_empty());
}

#[test]
fn damage_withholds_the_proof_and_is_healed_and_proven_again() {
    for seed in 0..20 {
        let mut world = hosting(seed);
        world.run(20);
        world.damaged.insert(key(2));
        let before = world.proven.len();
        world.run(45);
        assert!(world.noted(|note| matches!(note, Note::Withheld { .. })), "seed {seed}");
        assert!(world.noted(|note| matches!(note, Note::Healed { feed } if *feed == key(2))), "seed {seed}");
        assert!(world.proven.len() >= before + 3, "seed {seed}: {}", world.story());
        assert_eq!(world.role.data()[&CONTRACT], Data::Held);
        let scrubs = world.log.iter().filter(|(_, action)| matches!(action, Action::Scrub(_))).count();
        assert_eq!(scrubs, 1, "seed {seed}");
    }
}

#[test]
fn damage_that_can_not_be_healed_is_forfeited_before_everything_lapses() {
    for seed in 0..20 {
        let mut world = hosting(seed);
        world.draw(8, &[3]);
        world.run(20);
        world.faults.unreachable = true;
        world.damaged.insert(key(2));
        world.run(60);
        assert_eq!(world.ended, [(CONTRACT, End::Forfeited)], "seed {seed}: {}", world.story());
        assert!(world.is_hosting(8), "seed {seed}");
        let before = world.proven.len();
        world.run(30);
        assert!(world.proven.len() >= before + 2, "seed {seed}: the other contract is proven");
    }
}

#[test]
fn an_unreachable_source_is_tried_again_and_then_passed() {
    let mut world = World::seeded(1);
    world.faults.unreachable = true;
    world.draw(CONTRACT, &[1]);
    world.run(50);
    assert_eq!(world.ended, [(CONTRACT, End::Passed(Reason::Unreachable))]);
    let fetches = world.log.iter().filter(|(_, action)| matches!(action, Action::Fetch { .. })).count();
    assert_eq!(fetches, 3);
}

#[test]
fn a_source_that_comes_back_is_used() {
    let mut world = World::seeded(1);
    world.faults.unreachable = true;
    world.draw(CONTRACT, &[1]);
    while !world.noted(|note| matches!(note, Note::FetchWaits { .. })) {
        world.step();
    }
    world.faults.unreachable = false;
    world.run(20);
    assert!(world.is_hosting(CONTRACT), "{}", world.story());
}

#[test]
fn a_wrong_root_is_passed_and_said_so() {
    let mut world = World::seeded(1);
    world.faults.wrong_root = true;
    world.draw(CONTRACT, &[1]);
    world.run(30);
    assert_eq!(world.ended, [(CONTRACT, End::Passed(Reason::RootMismatch))]);
    assert!(world.disk.is_empty(), "what nobody pays for is dropped");
}

#[test]
fn a_full_disk_is_a_reason_to_pass_and_not_to_fetch() {
    let mut world = World::seeded(1);
    world.tell(Input::Room(1 << 20));
    world.draw(CONTRACT, &[1]);
    world.run(20);
    assert_eq!(world.ended, [(CONTRACT, End::Passed(Reason::NoRoom))]);
    assert!(!world.log.iter().any(|(_, action)| matches!(action, Action::Fetch { .. })));
}

#[test]
fn a_head_that_only_the_ledger_accepts_is_refused_before_it_is_taken() {
    // ZIP 215, which the ledger's host function follows, takes the neutral element for a key: with it R and S = 0 sign
    // whatever one likes. JavaScript's libsodium does not.
    let neutral = std::array::from_fn(|at| u8::from(at == 0));
    let mut lax = feed(1);
    (lax.key, lax.head.signature[0]) = (neutral, 1);
    let mut world = World::seeded(1);
    world.draw_feeds(CONTRACT, vec![feed(2), lax]);
    world.run(20);
    assert_eq!(world.ended, [(CONTRACT, End::Passed(Reason::Unwilling))], "{}", world.story());
    assert_eq!(world.submitted(|call| matches!(call, Call::Take(_))), 0);
    let names_it = |why: &str| why.contains("no peer would accept the head of feed 0100") && why.contains("not signed");
    assert!(world.noted(|note| matches!(note, Note::Passing { why, .. } if names_it(why))), "{}", world.story());
}

#[test]
fn who_stops_takes_nothing_new_and_keeps_what_was_promised() {
    let mut world = hosting(1);
    world.want(Wanted::Stop);
    world.run(10);
    world.draw(8, &[3]);
    world.run(30);
    assert_eq!(world.submitted(|call| *call == Call::Leave), 1);
    assert_eq!(world.ended, [(8, End::Passed(Reason::Unwilling))]);
    assert!(world.is_hosting(CONTRACT) && world.proven.len() >= 3);
}

#[test]
fn an_offer_that_can_not_be_had_costs_no_fee_again_and_again() {
    for (free, stays, tries) in [(PARAMS.bond / 2, 0, 0), (PARAMS.bond + DAT, 2 * DAT, 1)] {
        let mut world = World::seeded(1);
        (world.hoster.bond, world.free, world.stays) = (0, free, stays);
        world.want(Wanted::Offer(Offer { space: 5 << 30, ..offer() }));
        world.run(500);
        let offers = |world: &World| world.submitted(|call| matches!(call, Call::Offer(_)));
        assert_eq!(offers(&world), tries, "{}", world.story());
        assert_eq!(world.role.unaffordable().is_some(), tries == 0);
        // More money makes another try sensible, once.
        world.free += 100 * DAT;
        world.run(5);
        assert_eq!((offers(&world), world.hoster.bond), (tries + 1, PARAMS.bond), "{}", world.story());
    }
}

#[test]
fn a_changed_offer_is_posted_once_and_a_closed_one_is_opened_again() {
    let mut world = World::seeded(1);
    let dearer = datdot_market::terms::Offer { price: 2 * offer().price, ..offer() };
    world.want(Wanted::Offer(dearer.clone()));
    world.run(20);
    assert_eq!(world.hoster.offer, dearer);
    assert_eq!(world.submitted(|call| matches!(call, Call::Offer(_))), 1);
    world.hoster.standing = datdot_market::hoster::Standing::Away;
    world.run(20);
    assert_eq!(world.hoster.standing, datdot_market::hoster::Standing::Open);
    assert!(world.noted(|note| *note == Note::Reopening));
}

#[test]
fn a_hoster_that_was_off_for_two_periods_does_not_forfeit_what_is_whole() {
    let mut world = hosting(1);
    world.run(10);
    world.faults.offline = true;
    world.run(20);
    world.faults.offline = false;
    world.restart();
    world.run(30);
    assert!(world.is_hosting(CONTRACT), "{:?}", world.ended);
}
