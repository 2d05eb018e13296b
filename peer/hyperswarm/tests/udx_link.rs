//! UDX against itself over simulated links: virtual time, losses by a seed, every byte compared.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use datdot_hyperswarm::udx::{Closed, Config, Path};
use proptest::prelude::*;
use std::time::Duration;
use udx::link::{Link, World, address};

const MINUTE: Duration = Duration::from_secs(60);

/// Bytes a second that one end gets across, with the end and all.
fn goodput(link: Link, seed: u64, len: u64) -> f64 {
    let mut world = World::new(link, seed).sends(0, len);
    world.run(20 * MINUTE, |world| world.ends[0].stream.is_finished());
    assert_eq!(world.ends[1].read, len);
    let goodput = len as f64 / world.elapsed().as_secs_f64();
    println!(
        "{link:?}: {:.2} MB/s of {:.2}, {:?}, {} overflows",
        goodput / 1e6,
        link.rate / 1e6,
        world.ends[0].stream.stats(),
        world.overflows
    );
    goodput
}

#[test]
fn a_clean_path_is_filled() {
    assert!(goodput(Link::default(), 1, 50_000_000) > 0.88 * 12.5e6);
}

#[test]
fn one_packet_lost_in_a_hundred_costs_little() {
    for seed in 0..3 {
        assert!(goodput(Link { loss: 10, ..Link::default() }, seed, 20_000_000) > 0.75 * 12.5e6);
    }
}

#[test]
fn five_packets_lost_in_a_hundred_cost_little() {
    for seed in 0..3 {
        assert!(goodput(Link { loss: 50, ..Link::default() }, seed, 20_000_000) > 0.6 * 12.5e6);
    }
}

#[test]
fn reordering_and_repetition_cost_little() {
    let link = Link { jitter: Duration::from_millis(5), twice: 20, ..Link::default() };
    assert!(goodput(link, 1, 20_000_000) > 0.75 * 12.5e6);
}

#[test]
fn a_narrow_link_with_a_short_queue_is_used() {
    let link = Link { rate: 1.25e6, queue: 30_000, ..Link::default() };
    assert!(goodput(link, 1, 5_000_000) > 0.75 * 1.25e6);
}

#[test]
fn a_deep_queue_is_not_filled() {
    let link = Link { queue: 64 << 20, ..Link::default() };
    let mut world = World::new(link, 1).sends(0, 100_000_000);
    world.run(MINUTE, |world| world.ends[1].read > 40_000_000);
    let rtt = world.ends[0].stream.stats().rtt.unwrap();
    assert!(rtt < Duration::from_millis(100), "{rtt:?}");
}

#[test]
fn a_wide_and_long_path_is_filled_as_far_as_the_window_goes() {
    let link = Link { rate: 100e6, delay: Duration::from_millis(20), queue: 4 << 20, ..Link::default() };
    assert!(goodput(link, 1, 200_000_000) > 0.65 * 100e6);
}

#[test]
fn a_wide_and_long_path_that_loses_packets_is_filled_almost_as_far() {
    let link = Link { rate: 100e6, queue: 4 << 20, ..Link::default() };
    for (loss, part) in [(0, 0.5), (10, 0.5), (50, 0.45)] {
        assert!(goodput(Link { loss, ..link }, 1, 50_000_000) > part * 84e6);
    }
}

fn links() -> impl Strategy<Value = Link> {
    (1u64..80, 0u64..40, 0u64..200, 0u64..100, 50u64..20_000, 1usize..200).prop_map(
        |(delay, jitter, loss, twice, rate, queue)| Link {
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            loss,
            twice,
            rate: rate as f64 * 1000.0,
            queue: queue * 2000,
            mtu: 1472,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_both_ways_and_both_ends_know(
        link in links(),
        seed: u64,
        sizes in (0u64..120_000, 1u64..120_000),
        seqs in prop_oneof![Just((0, 0)), any::<(u32, u32)>(), Just((u32::MAX - 20, u32::MAX))],
        window in 3_000usize..150_000,
    ) {
        let config = |seq| Config { seq, receive: window, ..Config::default() };
        let mut world = World::with(link, seed, [config(seqs.0), config(seqs.1)]).sends(0, sizes.0).sends(1, sizes.1);
        world.finish(200 * MINUTE);
        prop_assert_eq!((world.ends[0].read, world.ends[1].read), (sizes.1, sizes.0));
        let closed = world.ends.each_ref().map(|end| end.stream.closed());
        prop_assert_eq!(closed, [Some(Closed::Finished); 2]);
    }
}

#[test]
fn a_last_packet_whose_acknowledgement_is_lost_six_times_still_arrives() {
    let (delay, jitter) = (Duration::from_millis(21), Duration::from_millis(10));
    let link = Link { delay, jitter, loss: 182, twice: 7, rate: 135_000.0, queue: 24_000, mtu: 1472 };
    let config = |seq| Config { seq, receive: 138_395, ..Config::default() };
    let mut world = World::with(link, 12_969_735_930_778_651_516, [config(1), config(3_009_593_495)]);
    world = world.sends(0, 6_038).sends(1, 82_977);
    world.finish(MINUTE);
    assert_eq!(world.ends.each_ref().map(|end| end.stream.closed()), [Some(Closed::Finished); 2]);
    assert!(world.ends[1].stream.stats().sums.timeouts > 6, "the dice fell otherwise");
}

#[test]
fn a_slow_reader_bounds_what_is_held_and_gets_everything() {
    let config = Config { receive: 100_000, ..Config::default() };
    let mut world = World::with(Link::default(), 1, [Config::default(), config]).sends(0, 3_000_000);
    world.ends[1].reads = 100_000.0;
    let mut took = world.elapsed();
    while world.ends[1].read < 3_000_000 {
        took = world.elapsed();
        world.step(MINUTE);
        assert!(world.ends[1].stream.stats().held < 103_000);
    }
    assert!(took < Duration::from_secs(33), "{took:?}");
}

#[test]
fn a_reader_that_pauses_for_an_hour_is_asked_now_and_then_and_gets_everything() {
    let mut world = World::new(Link::default(), 1).sends(0, 20_000_000);
    world.ends[1].reads = 0.001;
    let start = world.elapsed();
    world.run(70 * MINUTE, |world| world.elapsed() - start > 60 * MINUTE);
    let asked = world.ends[0].sent;
    assert!(world.ends[0].stream.closed().is_none());
    world.ends[1].resume(1e9);
    world.finish(MINUTE);
    assert_eq!(world.ends[1].read, 20_000_000);
    assert!(asked < 17_000, "{asked} packets");
}

#[test]
fn a_remote_that_vanishes_is_noticed() {
    let mut world = World::new(Link::default(), 1).sends(0, 100_000_000);
    world.run(MINUTE, |world| world.ends[1].read > 1_000_000);
    world.set_link(Link { loss: 1000, ..Link::default() });
    let start = world.elapsed();
    world.run(MINUTE, |world| world.ends[0].stream.closed().is_some());
    assert_eq!(world.ends[0].stream.closed(), Some(Closed::Silent));
    let took = world.elapsed() - start;
    assert!((Duration::from_secs(8)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[test]
fn an_abort_reaches_the_remote_though_its_packet_is_lost() {
    let mut world = World::new(Link::default(), 1).sends(1, 10_000_000);
    world.run(MINUTE, |world| world.ends[0].read > 1_000_000);
    world.set_link(Link { loss: 1000, ..Link::default() });
    let now = world.now;
    world.ends[0].stream.abort(now);
    let mut end = world.elapsed() + Duration::from_millis(10);
    world.run(MINUTE, |world| world.elapsed() > end);
    world.set_link(Link::default());
    end = world.elapsed() + Duration::from_secs(3);
    world.run(MINUTE, |world| world.ends[1].stream.closed().is_some());
    assert!(world.elapsed() < end);
    assert_eq!(world.ends.each_ref().map(|end| end.stream.closed()), [Some(Closed::Aborted), Some(Closed::Reset)]);
}

#[test]
fn a_lost_tail_is_repeated_within_a_few_round_trips() {
    let mut world = World::new(Link::default(), 1).sends(0, 1_000_000);
    world.ends[0].to_write += 1; // so that it does not end
    world.run(MINUTE, |world| world.ends[1].read > 900_000);
    world.ends[0].to_write -= 1;
    world.set_link(Link { loss: 1000, ..Link::default() });
    let start = world.elapsed();
    world.run(MINUTE, |world| world.elapsed() > start + Duration::from_millis(60));
    world.set_link(Link::default());
    world.run(MINUTE, |world| world.ends[0].stream.is_finished());
    let took = world.elapsed() - start;
    assert!(took < Duration::from_millis(300), "{took:?}: {:?}", world.ends[0].stream.stats());
}

#[test]
fn the_size_of_packets_is_what_the_path_takes() {
    for (mtu, expected) in [(1172, 1172), (1391, 1332), (1472, 1472)] {
        let mut world = World::new(Link { mtu, ..Link::default() }, 1).sends(0, 5_000_000);
        world.finish(MINUTE);
        assert_eq!(world.ends[0].stream.stats().datagram, expected);
        assert_eq!(world.ends[0].stream.stats().sums.timeouts, 0);
    }
}

#[test]
fn an_idle_stream_keeps_its_path_open_if_asked_to() {
    let config = Config { keep_alive: Some(Duration::from_secs(5)), ..Config::default() };
    let mut world = World::with(Link::default(), 1, [config, Config::default()]);
    let start = world.elapsed();
    world.run(10 * MINUTE, |world| world.elapsed() > start + MINUTE);
    let sent = world.ends.each_ref().map(|end| end.sent);
    assert!((11..=13).contains(&sent[0]) && sent[0].abs_diff(sent[1]) <= 1, "{sent:?}");
}

#[test]
fn a_stream_moves_to_another_address_in_full_flight() {
    let mut world = World::new(Link { loss: 10, ..Link::default() }, 1).sends(0, 10_000_000).sends(1, 10_000_000);
    world.run(MINUTE, |world| world.ends[1].read > 2_000_000);
    let door = ([10, 9, 9, 9], 999).into();
    world.ends[1].doors.push((door, 0));
    let now = world.now;
    world.ends[0].stream.change_path(Path { stream: 1, address: door }, now);
    assert!(world.ends[0].stream.is_changing_path());
    world.run(MINUTE, |world| !world.ends[0].stream.is_changing_path());
    // From here on nothing goes to the old one.
    world.ends[1].doors.retain(|(known, _)| *known == door);
    world.finish(MINUTE);
    assert_eq!((world.ends[0].read, world.ends[1].read), (10_000_000, 10_000_000));
    assert_ne!(door, address(1));
}

#[test]
fn two_runs_of_one_seed_are_the_same() {
    let run = || {
        let link = Link { loss: 30, jitter: Duration::from_millis(9), twice: 30, ..Link::default() };
        let mut world = World::new(link, 77).sends(0, 2_000_000);
        world.finish(MINUTE);
        (world.elapsed(), world.ends[0].sent, world.ends[1].sent)
    };
    assert_eq!(run(), run());
}
