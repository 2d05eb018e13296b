//! Requests that wait for their answer, and how many may.
//!
//! A request is sent again each second until it's answered or its tries are used up. In a slot of 750 ms at most 80 may be
//! sent that aren't answered within it, and 160 in four slots; the others wait. So a dead network or a flood of wishes
//! never makes us flood others.

use super::Socket;
use rand::Rng;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

/// How long a try waits for its answer.
const TRY: Duration = Duration::from_millis(1_000);
/// A slot of the window.
const SLOT: Duration = Duration::from_millis(750);
/// Unanswered requests in a slot.
const PER_SLOT: u32 = 80;
/// Most requests that may be open, sent or not.
pub const MAX_OPEN: usize = 16_384;

/// A request as it was begun.
#[derive(Debug)]
pub struct Open<P> {
    /// Who is asked.
    pub to: SocketAddrV4,
    /// From where.
    pub socket: Socket,
    /// What it's for.
    pub purpose: P,
    /// What is sent.
    pub datagram: Vec<u8>,
    /// How often it may be sent.
    pub tries: u32,
    /// Whether the first try wasn't answered.
    pub slow: bool,
    sent: u32,
    last_sent: Duration,
}

impl<P> Open<P> {
    /// A request to be sent up to `tries` times.
    pub fn new(to: SocketAddrV4, socket: Socket, purpose: P, tries: u32) -> Self {
        let (datagram, last_sent) = (Vec::new(), Duration::ZERO);
        Open { to, socket, purpose, datagram, tries, slow: false, sent: 0, last_sent }
    }

    /// The time from its last try to `now`.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_sent)
    }
}

/// What time brings.
#[derive(Debug)]
pub enum Due<P> {
    /// The first try wasn't answered; it goes on.
    Slow(u16),
    /// No try was answered.
    Failed(Open<P>),
}

/// All open requests.
#[derive(Debug)]
pub struct Requests<P> {
    open: HashMap<u16, Open<P>>,
    due: BTreeSet<(Duration, u16)>,
    waiting: VecDeque<u16>,
    window: Window,
}

impl<P> Requests<P> {
    /// None yet.
    pub fn new(now: Duration) -> Self {
        Requests {
            open: HashMap::new(),
            due: BTreeSet::new(),
            waiting: VecDeque::new(),
            window: Window { slots: [0; 4], until: now + SLOT },
        }
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// What an open request is for.
    pub fn purpose(&self, tid: u16) -> Option<&P> {
        self.open.get(&tid).map(|open| &open.purpose)
    }

    /// Begins a request; `encode` makes the datagram from the number that answers will carry. None if too many are open.
    pub fn begin(&mut self, rng: &mut impl Rng, mut open: Open<P>, encode: impl FnOnce(u16) -> Vec<u8>) -> Option<u16> {
        if self.open.len() >= MAX_OPEN {
            return None;
        }
        // Three quarters of the numbers are free. They are drawn, so that strangers can't guess them.
        let tid = std::iter::repeat_with(|| rng.random::<u16>()).find(|tid| !self.open.contains_key(tid))?;
        open.datagram = encode(tid);
        self.open.insert(tid, open);
        self.waiting.push_back(tid);
        Some(tid)
    }

    /// The next request that may be sent now.
    pub fn send(&mut self, now: Duration) -> Option<&Open<P>> {
        self.window.turn(now);
        while !self.waiting.is_empty() && !self.window.is_full() {
            let tid = self.waiting.pop_front()?;
            // Those that ended while they waited are skipped.
            if !self.open.contains_key(&tid) {
                continue;
            }
            self.window.slots[0] += 1;
            let open = self.open.get_mut(&tid)?;
            open.sent += 1;
            open.last_sent = now;
            self.due.insert((now + TRY, tid));
            return Some(open);
        }
        None
    }

    /// The request that `from` answers under `tid`, if it was asked.
    pub fn answer(&mut self, from: SocketAddrV4, tid: u16) -> Option<Open<P>> {
        if self.open.get(&tid)?.to != from {
            return None;
        }
        self.window.slots[0] = self.window.slots[0].saturating_sub(1);
        self.end(tid)
    }

    /// What `now` brings, one after the other.
    pub fn due(&mut self, now: Duration) -> Option<Due<P>> {
        while let Some(&(at, tid)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, tid));
            let open = self.open.get_mut(&tid)?;
            if open.sent >= open.tries {
                return self.end(tid).map(Due::Failed);
            }
            self.waiting.push_back(tid);
            if !open.slow {
                open.slow = true;
                return Some(Due::Slow(tid));
            }
        }
        None
    }

    /// Ends all for which `unwanted` says so.
    pub fn cancel(&mut self, mut unwanted: impl FnMut(&P) -> bool) {
        let tids: Vec<u16> =
            self.open.iter().filter(|(_, open)| unwanted(&open.purpose)).map(|(tid, _)| *tid).collect();
        for tid in tids {
            self.end(tid);
        }
    }

    /// When [`due`](Self::due) or [`send`](Self::send) are to be called again.
    pub fn next(&self) -> Option<Duration> {
        let due = self.due.first().map(|(at, _)| *at);
        let sendable = (!self.waiting.is_empty()).then_some(self.window.until);
        due.into_iter().chain(sendable).min()
    }

    fn end(&mut self, tid: u16) -> Option<Open<P>> {
        let open = self.open.remove(&tid)?;
        self.due.remove(&(open.last_sent + TRY, tid));
        Some(open)
    }
}

/// Requests that were sent and not answered, in this slot and the three before.
#[derive(Debug)]
struct Window {
    slots: [u32; 4],
    until: Duration,
}

impl Window {
    fn turn(&mut self, now: Duration) {
        let mut turns = 0;
        while now >= self.until && turns < 4 {
            self.slots.rotate_right(1);
            self.slots[0] = 0;
            self.until += SLOT;
            turns += 1;
        }
        if now >= self.until {
            self.until = now + SLOT;
        }
    }

    fn is_full(&self) -> bool {
        self.slots[0] >= PER_SLOT || self.slots.iter().sum::<u32>() >= 2 * PER_SLOT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn to(n: u16) -> SocketAddrV4 {
        SocketAddrV4::new([1, 1, 1, 1].into(), n)
    }

    fn requests(count: u16, tries: u32) -> (Requests<u16>, Vec<u16>) {
        let mut requests = Requests::new(Duration::ZERO);
        let mut rng = StdRng::seed_from_u64(1);
        let tids = (0..count)
            .map(|n| {
                let open = Open::new(to(n), Socket::Client, n, tries);
                requests.begin(&mut rng, open, |tid| tid.to_le_bytes().to_vec()).expect("room")
            })
            .collect();
        (requests, tids)
    }

    fn sent(requests: &mut Requests<u16>, ms: u64) -> usize {
        std::iter::from_fn(|| requests.send(Duration::from_millis(ms)).map(|_| ())).count()
    }

    #[test]
    fn a_request_is_tried_each_second_and_then_fails() {
        let (mut requests, tids) = requests(1, 3);
        let mut story = Vec::new();
        for ms in (0..5_000).step_by(250) {
            if sent(&mut requests, ms) > 0 {
                story.push((ms, "sent"));
            }
            match requests.due(Duration::from_millis(ms)) {
                Some(Due::Slow(tid)) if tid == tids[0] => story.push((ms, "slow")),
                Some(Due::Failed(_)) => story.push((ms, "failed")),
                _ => {}
            }
        }
        let told = [(0, "sent"), (1000, "slow"), (1250, "sent"), (2500, "sent"), (3500, "failed")];
        assert_eq!(story, told);
        assert_eq!((requests.len(), requests.next()), (0, None));
    }

    #[test]
    fn only_the_one_who_was_asked_can_answer() {
        let (mut requests, tids) = requests(2, 1);
        assert!(requests.answer(to(1), tids[0]).is_none());
        assert!(requests.answer(to(0), tids[0]).is_some());
        assert!(requests.answer(to(0), tids[0]).is_none());
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn a_dead_network_is_not_flooded() {
        let (mut requests, _) = requests(1_000, 1);
        let counts: Vec<_> = (0..8).map(|slot| sent(&mut requests, slot * 750)).collect();
        assert_eq!(counts, [80, 80, 0, 0, 80, 80, 0, 0]);
    }

    #[test]
    fn answers_make_room() {
        let (mut requests, tids) = requests(1_000, 1);
        for (n, tid) in tids.into_iter().enumerate() {
            assert!(sent(&mut requests, 0) > 0 || n > 0);
            assert!(requests.answer(to(n as u16), tid).is_some());
        }
        assert_eq!(requests.len(), 0);
    }
}
