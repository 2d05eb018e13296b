//! UDX against itself over simulated links: virtual time, losses by a seed, every byte compared.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use std::time::Duration;
use udx::link::{Link, World};

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
        assert!(goodput(Link { loss: 10, ..Link::default() }, seed, 50_000_000) > 0.85 * 12.5e6);
    }
}

#[test]
fn five_packets_lost_in_a_hundred_cost_little() {
    for seed in 0..3 {
        assert!(goodput(Link { loss: 50, ..Link::default() }, seed, 50_000_000) > 0.75 * 12.5e6);
    }
}

#[test]
fn reordering_and_repetition_cost_little() {
    let link = Link { jitter: Duration::from_millis(5), twice: 20, ..Link::default() };
    assert!(goodput(link, 1, 50_000_000) > 0.8 * 12.5e6);
}

#[test]
fn a_narrow_link_with_a_short_queue_is_used() {
    let link = Link { rate: 1.25e6, queue: 30_000, ..Link::default() };
    assert!(goodput(link, 1, 5_000_000) > 0.75 * 1.25e6);
}

#[test]
fn a_wide_and_long_path_is_filled_as_far_as_the_window_goes() {
    let link = Link { rate: 100e6, delay: Duration::from_millis(20), queue: 4 << 20, ..Link::default() };
    assert!(goodput(link, 1, 400_000_000) > 0.7 * 100e6);
}
