use super::*;
use proptest::prelude::*;

fn asker(now: Instant, peer: PeerId) -> Asker {
    Asker { peer, now, takes: Some(Duration::ZERO), dice: 7 }
}

fn wanting(want: Want) -> Plan {
    let mut plan = Plan::default();
    plan.want(0, want, false);
    plan
}

#[test]
fn what_is_urgent_is_asked_first_and_what_nobody_wants_any_more_never() {
    let (mut plan, now, have) = (wanting(Want::all()), Instant::now(), Blocks::default());
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    plan.want(7, Want::blocks(50..51), true);
    plan.want(8, Want::blocks(60..99), true);
    plan.unwant(8);
    let asked: Vec<_> = std::iter::from_fn(|| plan.ask_block(&asker(now, 1), 100, &have, everything)).take(3).collect();
    assert_eq!(asked, [50, 0, 1]);
    plan.unwant(0);
    plan.gone(1);
    assert_eq!(plan.ask_block(&asker(now, 2), 100, &have, everything), Some(50));
    assert_eq!(plan.ask_block(&asker(now, 2), 100, &have, everything), None);
    plan.unwant(7);
    assert!(plan.is_idle());
}

#[test]
fn a_byte_is_looked_for_at_one_peer_at_a_time() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    plan.seek(77);
    assert_eq!(plan.ask_seek(now, 3, |_| None::<()>), None);
    assert_eq!(plan.ask_seek(now, 1, |_| Some("how")), Some((77, "how")));
    assert_eq!(plan.ask_seek(now, 2, |_| Some("how")), None);
    plan.gone(1);
    assert_eq!(plan.ask_seek(now, 2, Some), Some((77, 77)));
    assert!(!plan.seek(77));
    plan.seek_settled(2, 77, true);
    assert!(plan.seek(77));
}

#[test]
fn no_block_is_asked_twice_unless_it_is_late() {
    let (mut plan, start) = (wanting(Want::all()), Instant::now());
    let have = Blocks::default();
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    assert_eq!(plan.ask_block(&asker(start, 1), 2, &have, everything), Some(0));
    assert_eq!(plan.ask_block(&asker(start, 2), 2, &have, everything), Some(1));
    assert_eq!(plan.ask_block(&asker(start, 2), 2, &have, everything), None);
    let later = start + LATE + Duration::from_millis(1);
    assert_eq!(plan.ask_block(&asker(later, 2), 2, &have, everything), Some(0));
    assert_eq!(plan.ask_block(&asker(later, 3), 2, &have, everything), Some(1));
    assert_eq!(plan.ask_block(&asker(later, 3), 2, &have, everything), None, "it was asked again just now");
    assert!(plan.expects(1, 0) && plan.expects(2, 0) && !plan.expects(3, 0));
    plan.arrived(0);
    assert!(!plan.expects(1, 0) && !plan.expects(2, 0), "who comes second need not send it");
    plan.failed(later, 2, 1);
    assert!(plan.expects(3, 1));
}

#[test]
fn what_comes_soon_is_not_asked_elsewhere() {
    let (mut plan, start, have) = (wanting(Want::blocks(0..4)), Instant::now(), Blocks::default());
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    let mut ask = |at: u64, peer, takes: Option<u64>| {
        let (now, takes) = (start + Duration::from_millis(at), takes.map(Duration::from_millis));
        plan.ask_block(&Asker { takes, ..asker(now, peer) }, 4, &have, everything)
    };
    assert_eq!([ask(0, 1, Some(1000)), ask(0, 1, Some(1000)), ask(0, 1, Some(1000))], [Some(0), Some(1), Some(2)]);
    assert_eq!(ask(0, 2, Some(100)), Some(3));
    assert_eq!(ask(200, 3, Some(100)), None, "that is early");
    assert_eq!(ask(450, 3, Some(100)), Some(3), "it was due long ago");
    assert_eq!(ask(450, 3, Some(100)), Some(2), "it is due in half a second, and the last one of those");
    assert_eq!(ask(840, 4, Some(200)), None, "who was asked is sooner");
    assert_eq!(ask(840, 4, None), None, "maybe");
    assert_eq!(ask(1290, 4, Some(110)), Some(3), "two do not bring it");
    assert_eq!(ask(1310, 4, Some(110)), Some(2));
    assert_eq!(ask(1310, 4, Some(110)), Some(1), "it should be here");
}

#[test]
fn eleven_who_keep_silent_about_a_block_leave_an_honest_peer_its_turn() {
    const SILENT: u64 = 11;
    let (mut plan, start, have) = (wanting(Want::blocks(0..1)), Instant::now(), Blocks::default());
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    for takes in [Some(Duration::ZERO), None] {
        plan.arrived(0);
        let asked = (0..1000).map(|tick| tick * Duration::from_millis(500)).find(|after| {
            let now = start + *after;
            // It comes last each time, and has brought something before or not.
            for peer in 0..SILENT {
                plan.ask_block(&Asker { takes: None, ..asker(now, peer) }, 1, &have, everything);
            }
            plan.ask_block(&Asker { takes, ..asker(now, SILENT) }, 1, &have, everything).is_some()
        });
        let most = if takes.is_some() { 6 } else { 65 };
        assert!(asked.is_some_and(|after| after <= Duration::from_secs(most)), "{takes:?}: {asked:?}");
    }
}

/// Peers that send so many blocks a second each, all after the same way, and what each of them has.
struct Swarm {
    plan: Plan,
    have: Blocks,
    length: u64,
    now: Instant,
    peers: Vec<Sender>,
    asked: u64,
}

/// Rate, what it has, what it was asked for and when that comes, when it is free.
type Sender = (f64, Offers, Vec<(Instant, u64)>, Instant);

const WAY: Duration = Duration::from_millis(20);

impl Swarm {
    fn new(length: u64, rates: &[f64], whole: impl Fn(usize) -> bool) -> Swarm {
        let now = Instant::now();
        let mut plan = wanting(Want::all());
        let mut peers = Vec::new();
        for (peer, rate) in rates.iter().enumerate() {
            let offers = Offers::default();
            offers.gain(0, if whole(peer) { length } else { 0 });
            plan.joined(peer as u64, &offers);
            peers.push((*rate, offers, Vec::new(), now));
        }
        Swarm { plan, have: Blocks::default(), length, now, peers, asked: 0 }
    }

    /// One millisecond. Says what came.
    fn step(&mut self) -> Vec<u64> {
        self.now += Duration::from_millis(1);
        let (now, mut came) = (self.now, Vec::new());
        for (peer, (rate, offers, queue, free)) in self.peers.iter_mut().enumerate() {
            let peer = peer as PeerId;
            queue.retain(|(_, block)| self.plan.expects(peer, *block));
            let arrived: Vec<u64> = queue.iter().filter(|(at, _)| *at <= now).map(|(_, block)| *block).collect();
            queue.retain(|(at, _)| *at > now);
            for block in arrived {
                self.have.insert(block);
                self.plan.arrived(block);
                came.push(block);
            }
            while queue.len() < 64 {
                self.asked += 1;
                let takes = Some(free.saturating_duration_since(now) + Duration::from_secs_f64(1.0 / *rate) + WAY);
                let asker = Asker { peer, now, takes, dice: self.asked };
                let offer = |range: Range<u64>| offers.next(range);
                let Some(block) = self.plan.ask_block(&asker, self.length, &self.have, offer) else { break };
                *free = now.max(*free) + Duration::from_secs_f64(1.0 / *rate);
                queue.push((*free + WAY, block));
            }
        }
        came
    }
}

#[test]
fn a_slow_peer_costs_the_others_next_to_nothing() {
    for slow in [0.1, 1.0, 20.0] {
        let mut swarm = Swarm::new(4000, &[1000.0, 1000.0, slow], |_| true);
        let (start, mut came) = (swarm.now, 0);
        while came < 4000 {
            came += swarm.step().len();
            assert!(swarm.now < start + Duration::from_secs(60), "{came} came");
        }
        let took = swarm.now.duration_since(start).as_secs_f64();
        assert!(took < 2.0 + 0.5, "{took} s with a peer of {slow} blocks a second");
    }
}

#[test]
fn readers_of_one_source_have_something_for_each_other() {
    // Peer 1 is another reader, who got what chance gave it.
    let mut swarm = Swarm::new(1000, &[100.0, 100.0], |peer| peer == 0);
    (0..500).for_each(|i| swarm.peers[1].1.gain(2 * i, 1));
    let mut first = Vec::new();
    while first.len() < 200 {
        first.extend(swarm.step());
    }
    let odd = first.iter().filter(|block| **block % 2 == 1).count();
    assert!(odd > 80, "what the other one has is left to it: {odd} of 200");
    assert!(!first.is_sorted());
    while swarm.have.count() < 1000 {
        swarm.step();
    }
}

#[test]
fn what_a_lost_peer_was_asked_goes_to_the_others() {
    let (mut plan, now) = (wanting(Want::blocks(3..6)), Instant::now());
    let have = Blocks::default();
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    let ask = |plan: &mut Plan, peer| plan.ask_block(&asker(now, peer), 100, &have, everything);
    assert_eq!([ask(&mut plan, 1), ask(&mut plan, 1), ask(&mut plan, 1)], [Some(3), Some(4), Some(5)]);
    assert_eq!(ask(&mut plan, 2), None);
    plan.gone(1);
    assert_eq!([ask(&mut plan, 2), ask(&mut plan, 2), ask(&mut plan, 2)], [Some(3), Some(4), Some(5)]);
}

#[test]
fn only_one_peer_at_a_time_is_asked_for_a_head() {
    let (mut plan, now) = (wanting(Want::blocks(0..5)), Instant::now());
    assert!(plan.ask_head(now, 1, 0, 5));
    assert!(!plan.ask_head(now, 2, 0, 5));
    let later = now + Duration::from_secs(5);
    assert!(plan.ask_head(later, 2, 0, 5));
    plan.head_settled(2, true);
    assert!(!plan.ask_head(now, 1, 7, 8), "a fixed want follows no newer head");
}

#[test]
fn who_failed_to_bring_a_block_gives_way_to_others() {
    let (mut plan, start) = (wanting(Want::blocks(0..1)), Instant::now());
    let have = Blocks::default();
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    let ask = |plan: &mut Plan, at: u64, peer| {
        let asker = asker(start + Duration::from_millis(at), peer);
        plan.ask_block(&asker, 1, &have, everything)
    };
    for peer in 1..3 {
        assert_eq!(ask(&mut plan, 0, peer), Some(0));
        plan.failed(start, peer, 0);
        assert_eq!(ask(&mut plan, 0, peer), None);
    }
    assert_eq!(ask(&mut plan, 0, 3), Some(0));
    assert_eq!(ask(&mut plan, 1000, 1), None, "late or not");
    assert_eq!(ask(&mut plan, 3000, 1), Some(0));
    plan.released(1, 0);
    plan.released(3, 0);
    assert_eq!(ask(&mut plan, 3000, 1), Some(0), "that was not its fault");
}

#[test]
fn who_refuses_to_say_where_a_byte_is_gives_way_to_others() {
    let (mut plan, now) = (Plan::default(), Instant::now());
    assert!(plan.seek(77));
    let mut refused = 0;
    while plan.ask_seek(now, 1, Some).is_some() {
        plan.seek_settled(1, 77, false);
        assert!(!plan.seek(77), "that is the same question");
        refused += 1;
    }
    assert!(refused < 10);
    assert_eq!(plan.ask_seek(now, 2, Some), Some((77, 77)));
}

#[test]
fn however_many_gaps_a_source_has_all_it_has_is_asked_for() {
    let (mut plan, now, mut have) = (wanting(Want::all()), Instant::now(), Blocks::default());
    let (length, offers) = (8 * MAX_LOOKS as u64, Offers::default());
    // Every second one.
    (0..length / 32).for_each(|word| offers.learn(32 * word, &[0x5555_5555]));
    plan.joined(1, &offers);
    for asked in 0..length / 2 {
        let found = plan.ask_block(&asker(now, 1), length, &have, |range| offers.next_news(range, &have));
        assert_eq!(found, Some(2 * asked));
        have.insert(2 * asked);
        plan.arrived(2 * asked);
    }
}

#[test]
fn blocks_that_nobody_has_hide_no_others() {
    let (mut plan, now, have) = (wanting(Want::all()), Instant::now(), Blocks::default());
    let length = 3 * MAX_LOOKS as u64;
    let everything = |range: Range<u64>| (range.start < range.end).then_some(range.start);
    while plan.ask_block(&asker(now, 1), length, &have, everything).is_some() {}
    plan.gone(1);
    plan.want(7, Want::all(), true);
    // Who is left has the last one.
    plan.joined(2, &Offers::default());
    let last = |range: Range<u64>| range.contains(&(length - 1)).then_some(length - 1);
    assert!((0..10).any(|_| plan.ask_block(&asker(now, 2), length, &have, last) == Some(length - 1)));
}

proptest! {
    #[test]
    fn every_wanted_block_is_asked_from_who_has_it(
        owners in proptest::collection::vec(1..8u8, 1..200),
        bad in proptest::collection::vec(any::<bool>(), 600),
    ) {
        // Block i is at the peers whose bit is set in owners[i]; some answers fail at first.
        let (mut plan, mut now, mut have) = (wanting(Want::all()), Instant::now(), Blocks::default());
        let (length, mut bad) = (owners.len() as u64, bad.into_iter());
        for round in 0.. {
            prop_assert!(round < 2000, "the download does not end");
            let peer = round % 3;
            now += Duration::from_millis(100);
            let offer = |range: Range<u64>| range.into_iter().find(|b| *b < length && owners[*b as usize] >> peer & 1 != 0);
            let Some(block) = plan.ask_block(&asker(now, peer), length, &have, offer) else {
                if have.count() == length { break }
                continue;
            };
            prop_assert!(!have.contains(block));
            match bad.next() {
                Some(true) => plan.failed(now, peer, block),
                _ => {
                    have.insert(block);
                    plan.arrived(block);
                }
            }
        }
    }
}
