//! A crowd on paper: what it does, step by step.

use super::*;
use proptest::prelude::*;

const TOPIC: Id = Id([9; 32]);

fn key(n: u8) -> PublicKey {
    [n; 32]
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

/// We are `own`, and at a topic as client and server.
fn crowd(own: u8) -> Crowd {
    let mut crowd = Crowd::new(key(own), Limits::default(), at(0), [1; 32]);
    crowd.join(at(0), TOPIC, true, true);
    assert_eq!(tasks(&mut crowd), [Task::Search { topic: TOPIC, announce: true, clear: true, nodes: Vec::new() }]);
    crowd
}

fn tasks(crowd: &mut Crowd) -> Vec<Task> {
    std::iter::from_fn(|| crowd.poll()).collect()
}

fn dials(crowd: &mut Crowd) -> Vec<u8> {
    let dial = |task| if let Task::Dial { key, .. } = task { Some(key[0]) } else { None };
    tasks(crowd).into_iter().filter_map(dial).collect()
}

#[test]
fn three_are_called_at_once_and_64_connections_kept() {
    let mut crowd = crowd(200);
    for n in 0..100 {
        crowd.on_found(at(0), TOPIC, key(n), &[]);
    }
    let mut called = dials(&mut crowd);
    assert_eq!(called.len(), 3);
    let mut n = 0;
    while let Some(next) = called.pop() {
        n += 1;
        assert_eq!(crowd.on_link(at(1), LinkId(n), key(next), false), Verdict::Keep);
        called.extend(dials(&mut crowd));
    }
    assert_eq!(crowd.links(), 64);
    // Whom we are to stay with is called all the same.
    crowd.join_peer(at(2), key(150));
    assert_eq!(dials(&mut crowd), [150]);
}

#[test]
fn a_lost_peer_is_called_after_1_5_and_15_seconds_and_then_forgotten() {
    let mut crowd = crowd(200);
    crowd.on_found(at(0), TOPIC, key(1), &[]);
    let mut now = at(0);
    let mut waited = Vec::new();
    let mut n = 0;
    while dials(&mut crowd) == [1] {
        n += 1;
        assert_eq!(crowd.on_link(now, LinkId(n), key(1), false), Verdict::Keep);
        crowd.on_close(now, LinkId(n), &key(1));
        let Some(next) = crowd.peers.values().find_map(|peer| peer.retry_at) else { break };
        waited.push((next - now).as_secs());
        now = next;
        crowd.tick(now);
    }
    assert_eq!(waited.len(), 3);
    assert!(waited[0] <= 2 && (5..=6).contains(&waited[1]) && (15..=16).contains(&waited[2]), "{waited:?}");
    assert!(crowd.peers.is_empty());
}

#[test]
fn of_two_calls_that_cross_the_one_of_the_larger_key_counts() {
    for (own, remote, verdict) in [(1, 2, Verdict::Keep), (2, 1, Verdict::Drop)] {
        let mut crowd = crowd(own);
        crowd.on_found(at(0), TOPIC, key(remote), &[]);
        assert_eq!(dials(&mut crowd), [remote]);
        assert_eq!(crowd.on_link(at(1), LinkId(1), key(remote), true), verdict);
        let stopped = tasks(&mut crowd) == [Task::StopDialing { key: key(remote) }];
        assert_eq!(stopped, verdict == Verdict::Keep);
        // Our call comes through all the same.
        let ours = crowd.on_link(at(1), LinkId(2), key(remote), false);
        assert_ne!(ours, verdict, "exactly one stays");
        assert_eq!(crowd.links(), 1);
    }
}

#[test]
fn a_new_call_replaces_an_old_connection() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), true), Verdict::Keep);
    assert_eq!(crowd.on_link(at(9), LinkId(2), key(1), true), Verdict::Keep);
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    crowd.on_close(at(9), LinkId(1), &key(1));
    assert_eq!(crowd.links(), 1);
}

#[test]
fn the_banned_and_we_ourselves_are_not_welcome() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), true), Verdict::Keep);
    crowd.ban(key(1));
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    crowd.on_found(at(1), TOPIC, key(1), &[]);
    crowd.on_found(at(1), TOPIC, key(200), &[]);
    assert_eq!(dials(&mut crowd), []);
    assert!(!crowd.is_welcome(&key(1)) && !crowd.is_welcome(&key(200)) && crowd.is_welcome(&key(2)));
}

#[test]
fn ten_thousand_topics_are_announced_every_twenty_minutes_at_400_requests_a_second() {
    let mut crowd = Crowd::new(key(200), Limits::default(), at(0), [1; 32]);
    for n in 0..10_000u32 {
        crowd.join(at(0), Id::of(&n.to_le_bytes()), false, true);
    }
    let mut now = at(0);
    let mut in_second = BTreeMap::<u64, f64>::new();
    let mut last: BTreeMap<Id, Duration> = BTreeMap::new();
    let (mut all, mut longest) = (None, Duration::ZERO);
    while now < at(4 * 3_600) {
        for task in tasks(&mut crowd) {
            let Task::Search { topic, nodes, .. } = task else { continue };
            *in_second.entry(now.as_secs()).or_default() += if nodes.is_empty() { FIRST_SEARCH } else { NEXT_SEARCH };
            let before = last.insert(topic, now);
            if last.len() == 10_000 {
                all.get_or_insert(now);
            }
            // The round in which each is announced for the first time takes longer.
            if let Some(before) = before.filter(|before| all.is_some_and(|all| *before > all)) {
                longest = longest.max(now - before);
            }
            crowd.on_search_end(now, &topic, true, vec![SocketAddrV4::new([1, 2, 3, 4].into(), 5)]);
        }
        now = crowd.next_tick().expect("there is always more").max(now + Duration::from_millis(1));
        crowd.tick(now);
    }
    let all = all.expect("each was announced");
    assert!(all - at(0) <= Duration::from_secs(30 * 60), "{:?}", all - at(0));
    assert!(longest <= Duration::from_secs(20 * 60), "{longest:?}");
    let minutes = in_second.values().copied().collect::<Vec<_>>();
    let most = minutes.windows(60).map(|minute| minute.iter().sum::<f64>() / 60.0).fold(0.0, f64::max);
    assert!(most <= 405.0, "{most} requests a second over a minute");
    let most = minutes.into_iter().fold(0.0, f64::max);
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
fn strangers_with_any_number_of_keys_cost_no_memory() {
    let limits = Limits { incoming: 4, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    for n in 0..5_000u32 {
        let stranger = Id::of(&n.to_le_bytes()).0;
        crowd.on_link(at(1), LinkId(n.into()), stranger, true);
        assert!(crowd.peers.len() <= 4);
    }
    for n in 0..5_000u32 {
        crowd.ban(Id::of(&n.to_le_bytes()).0);
    }
    assert!(crowd.peers.len() <= MAX_BANNED + 4, "{}", crowd.peers.len());
    assert!(!crowd.is_welcome(&Id::of(&4_999u32.to_le_bytes()).0));
}

#[test]
fn leaving_withdraws_the_announcement_and_ends_the_searches() {
    let mut crowd = crowd(200);
    crowd.on_search_end(at(1), &TOPIC, true, Vec::new());
    assert_eq!(crowd.announced(&TOPIC), Some(at(1)));
    crowd.leave(at(2), &TOPIC);
    assert_eq!(tasks(&mut crowd), [Task::Search { topic: TOPIC, announce: false, clear: true, nodes: Vec::new() }]);
    crowd.on_search_end(at(3), &TOPIC, false, Vec::new());
    assert_eq!((crowd.topics.len(), crowd.next_tick()), (0, None));
}

#[test]
fn a_suspended_crowd_does_nothing_and_goes_on_afterwards() {
    let mut crowd = crowd(200);
    crowd.on_search_end(at(1), &TOPIC, true, Vec::new());
    crowd.on_found(at(1), TOPIC, key(1), &[]);
    assert_eq!(dials(&mut crowd), [1]);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), false), Verdict::Keep);
    crowd.suspend();
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    assert_eq!((crowd.next_tick(), crowd.is_welcome(&key(2))), (None, false));
    crowd.resume(at(100));
    assert_eq!(tasks(&mut crowd).len(), 2, "the topic is searched and the peer called");
}

#[test]
fn of_two_calls_of_which_one_came_through_a_moment_before_the_other_one_stays() {
    let (mut larger, mut smaller) = (crowd(2), crowd(1));
    larger.on_found(at(0), TOPIC, key(1), &[]);
    smaller.on_found(at(0), TOPIC, key(2), &[]);
    assert_eq!((dials(&mut larger), dials(&mut smaller)), (vec![1], vec![2]));
    // The call of the larger key comes through on both sides, then the other one: it was on its way already.
    assert_eq!(larger.on_link(at(1), LinkId(1), key(1), false), Verdict::Keep);
    assert_eq!(smaller.on_link(at(1), LinkId(1), key(2), true), Verdict::Keep);
    assert_eq!(tasks(&mut smaller), [Task::StopDialing { key: key(2) }]);
    assert_eq!(larger.on_link(at(1), LinkId(2), key(1), true), Verdict::Drop);
    assert_eq!(smaller.on_link(at(1), LinkId(2), key(2), false), Verdict::Drop);
    assert_eq!((tasks(&mut larger), tasks(&mut smaller)), (vec![], vec![]));
    // Later it would not call if it still had the connection.
    assert_eq!(larger.on_link(at(9), LinkId(3), key(1), true), Verdict::Keep);
    assert_eq!(tasks(&mut larger), [Task::Close(LinkId(1))]);
}

#[test]
fn the_place_of_the_banned_is_taken_by_another_at_once() {
    let mut crowd = crowd(200);
    (0..100).for_each(|n| crowd.on_found(at(0), TOPIC, key(n), &[]));
    for n in 0..64 {
        let [next, ..] = dials_of(&crowd)[..] else { panic!("somebody is called") };
        tasks(&mut crowd);
        assert_eq!(crowd.on_link(at(1), LinkId(n), key(next), false), Verdict::Keep);
    }
    assert_eq!((crowd.links(), dials(&mut crowd)), (64, vec![]));
    let bad = *crowd.peers.iter().find(|(_, peer)| matches!(peer.state, Link::Up { .. })).unwrap().0;
    crowd.ban(bad);
    assert_eq!(dials(&mut crowd).len(), 1);
    // One that is called makes room for a call.
    let called = dials_of(&crowd)[0];
    crowd.ban(key(called));
    assert_eq!(dials(&mut crowd).len(), 1);
}

/// Who is called now.
fn dials_of(crowd: &Crowd) -> Vec<u8> {
    crowd.peers.iter().filter(|(_, peer)| peer.state == Link::Dialing).map(|(key, _)| key[0]).collect()
}

#[test]
fn a_pardon_is_no_part_of_a_later_ban_and_whom_we_stay_with_is_called_again() {
    let mut crowd = crowd(200);
    crowd.ban(key(1));
    crowd.pardon(&key(1));
    crowd.ban(key(1));
    for n in 1..MAX_BANNED as u32 {
        crowd.ban(Id::of(&n.to_le_bytes()).0);
    }
    assert!(!crowd.is_welcome(&key(1)), "it's one of as many as there may be");
    crowd.join_peer(at(1), key(2));
    assert_eq!(dials(&mut crowd), [2]);
    crowd.ban(key(2));
    assert_eq!(tasks(&mut crowd), [Task::StopDialing { key: key(2) }]);
    crowd.pardon(&key(2));
    assert_eq!(dials(&mut crowd), [2]);
}

#[test]
fn whom_we_found_at_a_topic_we_left_is_not_called_any_more() {
    let mut crowd = crowd(200);
    (0..10).for_each(|n| crowd.on_found(at(0), TOPIC, key(n), &[]));
    let called = dials(&mut crowd);
    assert_eq!(called.len(), 3);
    crowd.join_peer(at(0), key(50));
    crowd.leave(at(1), &TOPIC);
    called.iter().for_each(|n| crowd.on_failure(at(2), &key(*n)));
    assert_eq!(dials(&mut crowd), [50]);
    crowd.on_failure(at(3), &key(50));
    crowd.leave_peer(&key(50));
    assert_eq!((crowd.peers.len(), crowd.is_idle()), (0, true));
}

#[test]
fn nobody_waits_for_those_there_is_no_room_for() {
    let limits = Limits { peers: 1, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    crowd.join(at(0), TOPIC, true, false);
    (0..2).for_each(|n| crowd.on_found(at(0), TOPIC, key(n), &[]));
    let [called] = dials_of(&crowd)[..] else { panic!("one is called") };
    assert!(!crowd.is_idle());
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(called), false), Verdict::Keep);
    assert!(crowd.is_idle());
}

#[test]
fn a_suspended_crowd_searches_no_longer_and_remembers_nobody_who_only_called() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), true), Verdict::Keep);
    assert_eq!(crowd.suspend(), [(TOPIC, vec![])], "it was being announced");
    assert_eq!(tasks(&mut crowd), [Task::StopSearching { topic: TOPIC }, Task::Close(LinkId(1))]);
    assert_eq!((crowd.peers.len(), crowd.announced(&TOPIC)), (0, None));
    // It had ended a moment before.
    crowd.on_search_end(at(2), &TOPIC, true, Vec::new());
    crowd.resume(at(100));
    let search = Task::Search { topic: TOPIC, announce: true, clear: true, nodes: Vec::new() };
    assert_eq!(tasks(&mut crowd), [search]);
}

proptest! {
    #[test]
    fn whatever_happens_limits_hold_and_the_closed_are_not_counted(
        steps in prop::collection::vec((0..9u8, 0..12u8, any::<bool>()), 0..300),
    ) {
        let limits = Limits { peers: 5, incoming: 3, dialing: 2 };
        let mut crowd = Crowd::new(key(6), limits, at(0), [1; 32]);
        crowd.join(at(0), TOPIC, true, true);
        let mut up: BTreeMap<LinkId, PublicKey> = BTreeMap::new();
        let mut dialed: BTreeSet<PublicKey> = BTreeSet::new();
        for (n, (step, peer, flag)) in steps.into_iter().enumerate() {
            let (now, id, key) = (at(n as u64), LinkId(n as u64), key(peer));
            match step {
                0..3 => crowd.on_found(now, TOPIC, key, &[]),
                3 | 4 => {
                    let incoming = !dialed.remove(&key) || flag;
                    if crowd.on_link(now, id, key, incoming) == Verdict::Keep {
                        up.insert(id, key);
                    }
                }
                5 => {
                    if let Some((id, key)) = up.pop_first() {
                        crowd.on_close(now, id, &key);
                    }
                }
                6 => {
                    if dialed.remove(&key) {
                        crowd.on_failure(now, &key);
                    }
                }
                7 if flag => crowd.ban(key),
                7 => crowd.join_peer(now, key),
                _ => crowd.tick(now),
            }
            for task in tasks(&mut crowd) {
                match task {
                    Task::Dial { key, .. } => _ = dialed.insert(key),
                    Task::StopDialing { key } => _ = dialed.remove(&key),
                    Task::Close(id) => {
                        if let Some(key) = up.remove(&id) {
                            crowd.on_close(now, id, &key);
                        }
                    }
                    Task::Search { .. } | Task::StopSearching { .. } => {}
                }
            }
            let dialing = crowd.peers.values().filter(|peer| peer.state == Link::Dialing).count();
            prop_assert!(dialing <= limits.dialing);
            prop_assert!(crowd.links() <= up.len());
        }
    }
}
