//! A crowd on paper: what it does, step by step.

mod topics;

use super::calls::{Link, MAX_BANNED, MAX_KNOWN, MAX_PLACES};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

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
    assert!(matches!(tasks(&mut crowd)[..], [Task::Search { topic: TOPIC, announce: true, clear: true, .. }]));
    crowd
}

/// What is to be done, apart from what is told.
fn tasks(crowd: &mut Crowd) -> Vec<Task> {
    all(crowd).into_iter().filter(|task| !matches!(task, Task::Tell(_))).collect()
}

fn all(crowd: &mut Crowd) -> Vec<Task> {
    std::iter::from_fn(|| crowd.poll()).collect()
}

fn told(crowd: &mut Crowd) -> Vec<Event> {
    all(crowd).into_iter().filter_map(|task| if let Task::Tell(event) = task { Some(event) } else { None }).collect()
}

fn dials(crowd: &mut Crowd) -> Vec<u8> {
    let dial = |task| if let Task::Dial { key, .. } = task { Some(key[0]) } else { None };
    tasks(crowd).into_iter().filter_map(dial).collect()
}

/// A peer that calls us, from nowhere in particular.
const THEIRS: Origin = Origin::Theirs(None);

/// The call that a peer gets now; one that was never made if it gets none.
fn ticket(crowd: &Crowd, n: u8) -> Ticket {
    match crowd.calls.peers.get(&key(n)).map(|peer| &peer.link) {
        Some(Link::Dialing(ticket)) => *ticket,
        _ => Ticket(0),
    }
}

/// Our call to a peer comes through.
fn connect(crowd: &mut Crowd, now: Duration, id: u64, n: u8) -> Verdict {
    let call = Origin::Ours(ticket(crowd, n));
    crowd.on_link(now, LinkId(id), key(n), call)
}

/// Our call to a peer doesn't.
fn fail(crowd: &mut Crowd, now: Duration, n: u8) {
    crowd.on_failure(now, ticket(crowd, n), &key(n));
}

/// The first search of a topic ends.
fn end_search(crowd: &mut Crowd, now: Duration, announced: bool) {
    crowd.on_search_end(now, Ticket(1), &TOPIC, Searched { announced, ..Searched::default() });
}

#[test]
fn three_are_called_at_once_and_64_connections_kept() {
    let mut crowd = crowd(200);
    for n in 0..100 {
        crowd.on_found(TOPIC, key(n), &[]);
    }
    let mut called = dials(&mut crowd);
    assert_eq!(called.len(), 3);
    let mut n = 0;
    while let Some(next) = called.pop() {
        n += 1;
        assert_eq!(connect(&mut crowd, at(1), n, next), Verdict::Keep);
        called.extend(dials(&mut crowd));
    }
    assert_eq!(crowd.links(), 64);
    // Whom we are to stay with is called all the same.
    crowd.join_peer(key(150));
    assert_eq!(dials(&mut crowd), [150]);
}

#[test]
fn a_lost_peer_is_called_after_1_5_and_15_seconds_and_then_forgotten() {
    let mut crowd = crowd(200);
    crowd.on_found(TOPIC, key(1), &[]);
    let mut now = at(0);
    let mut waited = Vec::new();
    let mut n = 0;
    while dials(&mut crowd) == [1] {
        n += 1;
        assert_eq!(connect(&mut crowd, now, n, 1), Verdict::Keep);
        crowd.on_close(now, LinkId(n), &key(1));
        let Some(next) = crowd.calls.peers.values().find_map(|peer| peer.retry_at) else { break };
        waited.push((next - now).as_secs());
        now = next;
        crowd.tick(now);
    }
    assert_eq!(waited.len(), 3);
    assert!(waited[0] <= 2 && (5..=6).contains(&waited[1]) && (15..=16).contains(&waited[2]), "{waited:?}");
    assert!(crowd.calls.peers.is_empty());
}

#[test]
fn of_two_calls_that_cross_the_one_of_the_larger_key_counts() {
    for (own, remote, verdict) in [(1, 2, Verdict::Keep), (2, 1, Verdict::Drop)] {
        let mut crowd = crowd(own);
        crowd.on_found(TOPIC, key(remote), &[]);
        assert_eq!(dials(&mut crowd), [remote]);
        let call = ticket(&crowd, remote);
        assert_eq!(crowd.on_link(at(1), LinkId(1), key(remote), THEIRS), verdict);
        let stopped = tasks(&mut crowd) == [Task::StopDialing(call)];
        assert_eq!(stopped, verdict == Verdict::Keep);
        // Our call comes through all the same.
        let ours = crowd.on_link(at(1), LinkId(2), key(remote), Origin::Ours(call));
        assert_ne!(ours, verdict, "exactly one stays");
        assert_eq!(crowd.links(), 1);
    }
}

#[test]
fn a_new_call_replaces_an_old_connection() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), THEIRS), Verdict::Keep);
    assert_eq!(crowd.on_link(at(9), LinkId(2), key(1), THEIRS), Verdict::Keep);
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    crowd.on_close(at(9), LinkId(1), &key(1));
    assert_eq!(crowd.links(), 1);
}

#[test]
fn the_banned_and_we_ourselves_are_not_welcome() {
    let mut crowd = crowd(200);
    assert_eq!(crowd.on_link(at(1), LinkId(1), key(1), THEIRS), Verdict::Keep);
    crowd.ban(key(1));
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    crowd.on_found(TOPIC, key(1), &[]);
    crowd.on_found(TOPIC, key(200), &[]);
    assert_eq!(dials(&mut crowd), []);
    assert!(!crowd.is_welcome(&key(1)) && !crowd.is_welcome(&key(200)) && crowd.is_welcome(&key(2)));
}

#[test]
fn strangers_with_any_number_of_keys_cost_no_memory() {
    let limits = Limits { incoming: 4, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    for n in 0..5_000u32 {
        let stranger = Id::of(&n.to_le_bytes()).0;
        crowd.on_link(at(1), LinkId(n.into()), stranger, THEIRS);
        assert!(crowd.calls.peers.len() <= 4);
    }
    for n in 0..5_000u32 {
        crowd.ban(Id::of(&n.to_le_bytes()).0);
    }
    assert!(crowd.calls.peers.len() <= MAX_BANNED + 4, "{}", crowd.calls.peers.len());
    assert!(!crowd.is_welcome(&Id::of(&4_999u32.to_le_bytes()).0));
}

#[test]
fn a_suspended_crowd_does_nothing_and_goes_on_afterwards() {
    let mut crowd = crowd(200);
    end_search(&mut crowd, at(1), true);
    crowd.on_found(TOPIC, key(1), &[]);
    assert_eq!(dials(&mut crowd), [1]);
    assert_eq!(connect(&mut crowd, at(1), 1, 1), Verdict::Keep);
    crowd.suspend();
    assert_eq!(tasks(&mut crowd), [Task::Close(LinkId(1))]);
    assert_eq!((crowd.next_tick(), crowd.is_welcome(&key(2))), (None, false));
    crowd.resume(at(100));
    assert_eq!(tasks(&mut crowd).len(), 2, "the topic is searched and the peer called");
}

#[test]
fn of_two_calls_of_which_one_came_through_a_moment_before_the_other_one_stays() {
    let (mut larger, mut smaller) = (crowd(2), crowd(1));
    larger.on_found(TOPIC, key(1), &[]);
    smaller.on_found(TOPIC, key(2), &[]);
    assert_eq!((dials(&mut larger), dials(&mut smaller)), (vec![1], vec![2]));
    let call = ticket(&smaller, 2);
    // The call of the larger key comes through on both sides, then the other one: it was on its way already.
    assert_eq!(connect(&mut larger, at(1), 1, 1), Verdict::Keep);
    assert_eq!(smaller.on_link(at(1), LinkId(1), key(2), THEIRS), Verdict::Keep);
    assert_eq!(tasks(&mut smaller), [Task::StopDialing(call)]);
    assert_eq!(larger.on_link(at(1), LinkId(2), key(1), THEIRS), Verdict::Drop);
    assert_eq!(smaller.on_link(at(1), LinkId(2), key(2), Origin::Ours(call)), Verdict::Drop);
    assert_eq!((tasks(&mut larger), tasks(&mut smaller)), (vec![], vec![]));
    // Later it would not call if it still had the connection.
    assert_eq!(larger.on_link(at(9), LinkId(3), key(1), THEIRS), Verdict::Keep);
    assert_eq!(tasks(&mut larger), [Task::Close(LinkId(1))]);
}

#[test]
fn the_place_of_the_banned_is_taken_by_another_at_once() {
    let mut crowd = crowd(200);
    (0..100).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    for n in 0..64 {
        let [next, ..] = dials_of(&crowd)[..] else { panic!("somebody is called") };
        tasks(&mut crowd);
        assert_eq!(connect(&mut crowd, at(1), n, next), Verdict::Keep);
    }
    assert_eq!((crowd.links(), dials(&mut crowd)), (64, vec![]));
    let bad = *crowd.calls.peers.iter().find(|(_, peer)| peer.link.is_up()).unwrap().0;
    crowd.ban(bad);
    assert_eq!(dials(&mut crowd).len(), 1);
    // One that is called makes room for a call.
    let called = dials_of(&crowd)[0];
    crowd.ban(key(called));
    assert_eq!(dials(&mut crowd).len(), 1);
}

/// Who is called now.
fn dials_of(crowd: &Crowd) -> Vec<u8> {
    crowd.calls.peers.iter().filter(|(_, peer)| peer.link.is_dialing()).map(|(key, _)| key[0]).collect()
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
    crowd.join_peer(key(2));
    assert_eq!(dials(&mut crowd), [2]);
    let call = ticket(&crowd, 2);
    crowd.ban(key(2));
    assert_eq!(tasks(&mut crowd), [Task::StopDialing(call)]);
    crowd.pardon(&key(2));
    assert_eq!(dials(&mut crowd), [2]);
}

#[test]
fn whom_we_found_at_a_topic_we_left_is_not_called_any_more() {
    let mut crowd = crowd(200);
    (0..10).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    let called = dials(&mut crowd);
    assert_eq!(called.len(), 3);
    crowd.join_peer(key(50));
    crowd.leave(at(1), &TOPIC);
    called.iter().for_each(|n| fail(&mut crowd, at(2), *n));
    assert_eq!(dials(&mut crowd), [50]);
    fail(&mut crowd, at(3), 50);
    crowd.leave_peer(&key(50));
    assert_eq!(crowd.calls.peers.len(), 0);
}

#[test]
fn nobody_waits_for_those_there_is_no_room_for() {
    let limits = Limits { peers: 1, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    crowd.join(at(0), TOPIC, true, false);
    (0..2).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    let [called] = dials_of(&crowd)[..] else { panic!("one is called") };
    let mark = crowd.mark_calls();
    assert!(!crowd.are_called(mark));
    assert_eq!(connect(&mut crowd, at(1), 1, called), Verdict::Keep);
    assert!(crowd.are_called(mark));
}

#[test]
fn what_happens_is_told() {
    let mut crowd = crowd(200);
    (1..3).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    assert_eq!(connect(&mut crowd, at(1), 1, 1), Verdict::Keep);
    fail(&mut crowd, at(1), 2);
    assert_eq!(crowd.on_link(at(2), LinkId(2), key(3), THEIRS), Verdict::Keep);
    assert_eq!(crowd.on_link(at(3), LinkId(3), key(3), THEIRS), Verdict::Keep);
    crowd.on_close(at(4), LinkId(2), &key(3));
    crowd.on_close(at(4), LinkId(1), &key(1));
    end_search(&mut crowd, at(5), true);
    crowd.ban(key(3));
    let connected = |n, initiator| Event::Connected { peer: key(n), initiator };
    let disconnected = |n| Event::Disconnected { peer: key(n) };
    let story = [
        Event::Searched { topic: TOPIC, announced: true },
        connected(1, true),
        Event::Unreached { peer: key(2) },
        connected(3, false),
        disconnected(3),
        connected(3, false),
        disconnected(1),
        disconnected(3),
    ];
    assert_eq!(told(&mut crowd), story);
}

#[test]
fn how_we_stand_with_everybody_is_seen() {
    let limits = Limits { dialing: 1, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    crowd.join(at(0), TOPIC, true, false);
    crowd.on_found(TOPIC, key(1), &[]);
    crowd.on_found(TOPIC, key(2), &[]);
    crowd.join_peer(key(3));
    crowd.ban(key(4));
    let state = |crowd: &Crowd, n| crowd.peer(at(10), &key(n)).map(|peer| peer.state);
    assert_eq!(state(&crowd, 1), Some(PeerState::Dialing));
    assert_eq!([2, 3].map(|n| state(&crowd, n)), [Some(PeerState::Queued); 2]);
    fail(&mut crowd, at(9), 1);
    let Some(PeerState::Waiting { again_in }) = state(&crowd, 1) else { panic!("it is called again") };
    assert!((4..5).contains(&again_in.as_secs()), "{again_in:?}");
    let next = dials_of(&crowd)[0];
    assert_eq!(connect(&mut crowd, at(9), 7, next), Verdict::Keep);
    let (link, lasts) = (LinkId(7), Duration::from_secs(1));
    assert_eq!(state(&crowd, next), Some(PeerState::Connected { link, initiator: true, lasts }));
    let all = crowd.peers(at(10));
    assert_eq!(all.iter().map(|peer| peer.key[0]).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(all[0].failures == 1 && all[0].topics == [TOPIC] && all[2].explicit && all[3].banned);
    assert_eq!(all[3].state, PeerState::Idle);
    let [topic] = crowd.topics(at(10))[..] else { panic!("one topic") };
    assert!(topic.topic == TOPIC && topic.client && !topic.server && topic.searching);
}

#[test]
fn whom_the_gate_refuses_is_forgotten_until_it_is_found_again() {
    let mut crowd = crowd(200);
    crowd.on_found(TOPIC, key(1), &[]);
    crowd.join_peer(key(2));
    for n in [1, 2] {
        crowd.on_refusal(at(1), ticket(&crowd, n), &key(n));
    }
    assert_eq!(told(&mut crowd), []);
    assert!(crowd.peer(at(1), &key(1)).is_none());
    assert!(matches!(crowd.peer(at(1), &key(2)).unwrap().state, PeerState::Waiting { .. }));
    crowd.on_found(TOPIC, key(1), &[]);
    assert_eq!(dials(&mut crowd), [1]);
}

#[test]
fn whom_we_stay_with_takes_nobody_elses_place() {
    let limits = Limits { peers: 2, ..Limits::default() };
    let mut crowd = Crowd::new(key(200), limits, at(0), [1; 32]);
    crowd.join(at(0), TOPIC, true, false);
    for n in 1..4 {
        crowd.join_peer(key(n));
        assert_eq!(connect(&mut crowd, at(1), n.into(), n), Verdict::Keep);
    }
    tasks(&mut crowd);
    (10..14).for_each(|n| crowd.on_found(TOPIC, key(n), &[]));
    assert_eq!(dials(&mut crowd).len(), 2);
}

#[test]
fn who_announces_any_number_of_keys_keeps_nobody_else_from_being_called() {
    let mut crowd = crowd(200);
    for n in 0..3 * MAX_KNOWN as u32 {
        crowd.on_found(TOPIC, Id::of(&n.to_le_bytes()).0, &[]);
    }
    assert_eq!(crowd.calls.peers.len(), MAX_KNOWN);
    tasks(&mut crowd);
    crowd.on_found(TOPIC, key(1), &[]);
    assert!(crowd.peer(at(1), &key(1)).is_some_and(|peer| peer.state == PeerState::Queued));
    assert_eq!(crowd.calls.peers.len(), MAX_KNOWN);
}

#[test]
fn peers_that_are_found_at_all_topics_cost_bounded_memory() {
    let mut crowd = Crowd::new(key(200), Limits::default(), at(0), [1; 32]);
    let places = |crowd: &Crowd| crowd.peers(at(1)).iter().map(|peer| peer.topics.len()).sum::<usize>();
    for n in 0..20u32 {
        let topic = Id::of(&n.to_le_bytes());
        crowd.join(at(0), topic, true, false);
        for peer in 0..MAX_KNOWN as u32 {
            crowd.on_found(topic, Id::of(&peer.to_le_bytes()).0, &[]);
        }
    }
    assert_eq!(places(&crowd), MAX_PLACES);
    (0..20u32).for_each(|n| crowd.leave(at(1), &Id::of(&n.to_le_bytes())));
    assert_eq!(places(&crowd), 0);
}

#[test]
fn when_most_places_are_taken_one_host_gets_an_eighth_of_them() {
    let mut crowd = Crowd::new(key(200), Limits { incoming: 16, ..Limits::default() }, at(0), [1; 32]);
    let from = |host: u8| Origin::Theirs(Some([9, 9, 9, host].into()));
    let mut call = |n: u8, by| crowd.on_link(at(1), LinkId(n.into()), key(n), by) == Verdict::Keep;
    assert_eq!((0..20).filter(|n| call(*n, from(1))).count(), 12, "three quarters are anybody's");
    assert_eq!((20..30).filter(|n| call(*n, from(2))).count(), 2);
    // It would not call again if it still had the old one, wherever it calls from.
    assert!(call(3, from(1)));
    assert_eq!((30..40).filter(|n| call(*n, THEIRS)).count(), 2, "there are 16 places");
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
        let mut dialed: BTreeMap<Ticket, PublicKey> = BTreeMap::new();
        let mut told: BTreeSet<PublicKey> = BTreeSet::new();
        for (n, (step, peer, flag)) in steps.into_iter().enumerate() {
            let (now, id, key) = (at(n as u64), LinkId(n as u64), key(peer));
            let call = dialed.iter().find(|(_, called)| **called == key).map(|(ticket, _)| *ticket);
            match step {
                0..3 => crowd.on_found(TOPIC, key, &[]),
                3 | 4 => {
                    let by = match call.filter(|_| !flag) {
                        Some(call) => {
                            dialed.remove(&call);
                            Origin::Ours(call)
                        }
                        None => Origin::Theirs(None),
                    };
                    if crowd.on_link(now, id, key, by) == Verdict::Keep {
                        up.insert(id, key);
                    }
                }
                5 => {
                    if let Some((id, key)) = up.pop_first() {
                        crowd.on_close(now, id, &key);
                    }
                }
                6 => {
                    if let Some(call) = call {
                        dialed.remove(&call);
                        crowd.on_failure(now, call, &key);
                    }
                }
                7 if flag => crowd.ban(key),
                7 => crowd.join_peer(key),
                _ => crowd.tick(now),
            }
            for task in all(&mut crowd) {
                match task {
                    Task::Dial { ticket, key, .. } => _ = dialed.insert(ticket, key),
                    Task::StopDialing(ticket) => _ = dialed.remove(&ticket),
                    Task::Close(id) => {
                        if let Some(key) = up.remove(&id) {
                            crowd.on_close(now, id, &key);
                        }
                    }
                    Task::Tell(Event::Connected { peer, .. }) => prop_assert!(told.insert(peer)),
                    Task::Tell(Event::Disconnected { peer }) => prop_assert!(told.remove(&peer)),
                    Task::Tell(_) | Task::Search { .. } | Task::StopSearching(_) => {}
                }
            }
            let dialing = crowd.calls.peers.values().filter(|peer| peer.link.is_dialing()).count();
            prop_assert!(dialing <= limits.dialing);
            prop_assert!(crowd.links() <= up.len());
            let is_up = |peer: &PeerInfo| matches!(peer.state, PeerState::Connected { .. });
            let connected: BTreeSet<_> = crowd.peers(now).into_iter().filter(is_up).map(|peer| peer.key).collect();
            prop_assert_eq!(&told, &connected, "what was told is what there is");
        }
    }
}
