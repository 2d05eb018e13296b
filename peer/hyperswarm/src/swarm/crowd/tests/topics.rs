//! Topics: what is searched and announced, and when.

use super::*;
use crate::swarm::crowd::searches::REQUESTS_AT_ONCE;

/// Requests of a search with an announcement: the first one far from others, near another topic, and when it's renewed.
const ALONE: usize = 65;
const NEARBY: usize = 46;
const AGAIN: usize = 42;

#[test]
fn ten_thousand_topics_are_announced_before_the_first_lapses_at_400_requests_a_second() {
    let mut crowd = Crowd::new(key(200), Limits::default(), at(0), [1; 32]);
    for n in 0..10_000u32 {
        crowd.join(at(0), Id::of(&n.to_le_bytes()), false, true);
    }
    let mut now = at(0);
    let mut in_second = BTreeMap::<u64, f64>::new();
    let mut last: BTreeMap<Id, Duration> = BTreeMap::new();
    let mut ends: BTreeSet<(Duration, Ticket, Id, usize)> = BTreeSet::new();
    let (mut first, mut longest) = (None, Duration::ZERO);
    while now < at(4 * 3_600) {
        for task in tasks(&mut crowd) {
            let Task::Search { ticket, topic, nodes, .. } = task else { continue };
            // What they cost in a DHT of 10,000 hosts, as the simulated one shows.
            let requests = match (last.contains_key(&topic), nodes.is_empty()) {
                (true, _) => AGAIN,
                (false, false) => NEARBY,
                (false, true) => ALONE,
            };
            *in_second.entry(now.as_secs()).or_default() += requests as f64;
            if let Some(before) = last.insert(topic, now) {
                longest = longest.max(now - before);
            }
            if last.len() == 10_000 {
                first.get_or_insert(now);
            }
            ends.insert((now + Duration::from_millis(600), ticket, topic, requests));
        }
        let next = crowd.next_tick().into_iter().chain(ends.first().map(|end| end.0)).min();
        now = next.expect("there is always more").max(now + Duration::from_millis(1));
        while let Some((_, ticket, topic, requests)) = ends.first().copied().filter(|end| end.0 <= now) {
            ends.pop_first();
            let closest = vec![SocketAddrV4::new([1, 2, 3, 4].into(), 5)];
            crowd.on_search_end(now, ticket, &topic, Searched { announced: true, closest, requests });
        }
        crowd.tick(now);
    }
    let first = first.expect("each was announced") - at(0);
    assert!(first <= Duration::from_secs(20 * 60), "{first:?}");
    assert!(longest <= Duration::from_secs(20 * 60), "{longest:?}");
    let seconds = in_second.values().copied().collect::<Vec<_>>();
    let most = seconds.windows(60).map(|minute| minute.iter().sum::<f64>() / 60.0).fold(0.0, f64::max);
    assert!(most <= 405.0, "{most} requests a second over a minute");
    let most = seconds.into_iter().fold(0.0, f64::max);
    assert!(most <= 400.0 + REQUESTS_AT_ONCE, "{most} requests in a second");
}

#[test]
fn who_looks_for_somebody_waits_for_no_announcement() {
    let mut crowd = Crowd::new(key(200), Limits::default(), at(0), [1; 32]);
    for n in 0..1_000u32 {
        crowd.join(at(0), Id::of(&n.to_le_bytes()), false, true);
    }
    tasks(&mut crowd);
    crowd.join(at(1), TOPIC, true, false);
    crowd.tick(crowd.next_tick().expect("there is more"));
    let next = tasks(&mut crowd);
    assert!(matches!(&next[..], [Task::Search { topic: TOPIC, announce: false, .. }, ..]), "{next:?}");
}

#[test]
fn leaving_withdraws_the_announcement_and_ends_the_searches() {
    let mut crowd = crowd(200);
    end_search(&mut crowd, at(1), true);
    assert_eq!(crowd.announced(&TOPIC), Some(at(1)));
    crowd.leave(at(2), &TOPIC);
    assert!(matches!(tasks(&mut crowd)[..], [Task::Search { topic: TOPIC, announce: false, clear: true, .. }]));
    crowd.on_search_end(at(3), Ticket(2), &TOPIC, Searched::default());
    assert_eq!((crowd.is_searching(&TOPIC), crowd.next_tick()), (false, None));
}

#[test]
fn a_flush_waits_for_what_there_was_and_for_nothing_that_comes_later() {
    let mut crowd = crowd(200);
    let topics = crowd.mark_topics();
    crowd.join(at(0), Id([8; 32]), true, false);
    assert!(!crowd.are_searched(topics), "it is being searched");
    (0..4).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    end_search(&mut crowd, at(1), true);
    assert!(crowd.are_searched(topics), "the other topic came later");
    // It is searched again after ten minutes: nobody waits for that either.
    crowd.tick(at(1_000));
    assert!(crowd.is_searching(&TOPIC) && crowd.are_searched(topics));

    let mark = crowd.mark_calls();
    (4..9).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    let (mut now, mut before) = (at(1_000), 0);
    while !crowd.are_called(mark) {
        let called = dials_of(&crowd);
        before += called.iter().filter(|n| **n < 4).count();
        called.into_iter().for_each(|n| fail(&mut crowd, now, n));
        now += Duration::from_millis(1);
    }
    assert_eq!(before, 4, "each was called once");
}

#[test]
fn what_is_told_of_a_search_or_a_call_that_was_stopped_counts_for_no_later_one() {
    let mut crowd = crowd(200);
    crowd.on_found(TOPIC, key(1), &[]);
    let stopped = ticket(&crowd, 1);
    crowd.suspend();
    crowd.resume(at(1));
    let again = ticket(&crowd, 1);
    assert_ne!(stopped, again);
    end_search(&mut crowd, at(1), true);
    assert!(crowd.is_searching(&TOPIC) && crowd.announced(&TOPIC).is_none());
    crowd.on_failure(at(1), stopped, &key(1));
    assert_eq!(dials_of(&crowd), [1]);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), Origin::Ours(stopped)), Verdict::Drop);
    assert_eq!(crowd.on_link(at(1), LinkId(2), key(1), Origin::Ours(again)), Verdict::Keep);
}

#[test]
fn who_looks_for_somebody_is_first_in_another_network_too() {
    let mut crowd = Crowd::new(key(200), Limits::default(), at(0), [1; 32]);
    for n in 0..20u32 {
        crowd.join(at(0), Id::of(&n.to_le_bytes()), false, true);
    }
    // By its id it would be the last.
    let topic = Id([255; 32]);
    crowd.join(at(0), topic, true, false);
    tasks(&mut crowd);
    crowd.suspend();
    tasks(&mut crowd);
    crowd.resume(at(100));
    let next = tasks(&mut crowd);
    assert!(matches!(&next[..], [Task::Search { topic: first, .. }, ..] if *first == topic), "{next:?}");
}

#[test]
fn a_suspended_crowd_searches_no_longer_and_remembers_nobody_who_only_called() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), THEIRS), Verdict::Keep);
    assert_eq!(crowd.suspend(), [(TOPIC, vec![])], "it was being announced");
    assert_eq!(tasks(&mut crowd), [Task::StopSearching(Ticket(1)), Task::Close(LinkId(1))]);
    assert_eq!((crowd.calls.peers.len(), crowd.announced(&TOPIC)), (0, None));
    // It had ended a moment before.
    end_search(&mut crowd, at(2), true);
    crowd.resume(at(100));
    assert!(matches!(tasks(&mut crowd)[..], [Task::Search { topic: TOPIC, announce: true, clear: true, .. }]));
}

#[test]
fn an_old_announcement_that_nobody_renews_is_not_tried_without_a_pause() {
    let mut crowd = crowd(200);
    end_search(&mut crowd, at(1), true);
    let (mut now, mut searches) = (at(1), 0);
    while let Some(next) = crowd.next_tick().filter(|next| *next < at(3_600)) {
        now = now.max(next);
        crowd.tick(now);
        for task in tasks(&mut crowd) {
            let Task::Search { ticket, .. } = task else { continue };
            searches += 1;
            assert!(searches < 20, "{:?}", now - at(0));
            now += Duration::from_secs(1);
            crowd.on_search_end(now, ticket, &TOPIC, Searched::default());
        }
    }
    assert!(searches > 4, "{searches}");
    assert_eq!(crowd.announced(&TOPIC), None);
}
