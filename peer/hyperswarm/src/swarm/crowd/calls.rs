//! Who is known, who is called next, and who may connect.

use super::{Event, Limits, LinkId, Mark, Origin, PeerInfo, PeerState, Task, Ticket, Verdict};
use crate::dht::{Id, PublicKey};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

/// Two calls that come through within so much crossed.
const CROSSED: Duration = Duration::from_secs(3);
/// A connection that lived that long makes us forget failures.
const GOOD: Duration = Duration::from_secs(15);
/// Peers that are remembered, and at how many topics all of them together.
pub(super) const MAX_KNOWN: usize = 4_096;
pub(super) const MAX_PLACES: usize = 16 * MAX_KNOWN;
/// Peers that stay banned.
pub(super) const MAX_BANNED: usize = 1_024;
/// Whom we were asked to stay with is tried again at last after so long.
const EXPLICIT_AGAIN: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Default)]
pub(super) struct Known {
    relays: Vec<SocketAddrV4>,
    topics: BTreeSet<Id>,
    explicit: bool,
    banned: bool,
    /// Whether a connection came about.
    proven: bool,
    attempts: u32,
    pub retry_at: Option<Duration>,
    /// When it was queued, among all others.
    turn: u64,
    pub link: Link,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    None,
    Queued,
    Dialing(Ticket),
    Up {
        id: LinkId,
        since: Duration,
        by: Origin,
    },
}

impl Link {
    pub fn is_dialing(&self) -> bool {
        matches!(self, Link::Dialing(_))
    }

    pub fn is_up(&self) -> bool {
        matches!(self, Link::Up { .. })
    }

    /// The host that made this connection; `None` within if it isn't known.
    fn caller(&self) -> Option<Option<IpAddr>> {
        match self {
            Link::Up { by: Origin::Theirs(host), .. } => Some(*host),
            _ => None,
        }
    }
}

/// All peers, and whom to call.
#[derive(Debug)]
pub(super) struct Calls {
    own: PublicKey,
    limits: Limits,
    pub peers: BTreeMap<PublicKey, Known>,
    /// Who is banned, in that order.
    banned: VecDeque<PublicKey>,
    out: VecDeque<Task>,
    rng: StdRng,
    tickets: u64,
    turn: u64,
    suspended: bool,
}

impl Calls {
    pub fn new(own: PublicKey, limits: Limits, rng: StdRng) -> Self {
        Calls {
            own,
            limits,
            peers: BTreeMap::new(),
            banned: VecDeque::new(),
            out: VecDeque::new(),
            rng,
            tickets: 0,
            turn: 0,
            suspended: false,
        }
    }

    pub fn poll(&mut self) -> Option<Task> {
        self.out.pop_front()
    }

    pub fn all(&self, now: Duration) -> impl Iterator<Item = PeerInfo> {
        self.peers.iter().map(move |(key, peer)| info(now, key, peer))
    }

    pub fn peer(&self, now: Duration, key: &PublicKey) -> Option<PeerInfo> {
        self.peers.get(key).map(|peer| info(now, key, peer))
    }

    pub fn topics_of(&self, key: &PublicKey) -> Vec<Id> {
        self.peers.get(key).map_or(Vec::new(), |peer| peer.topics.iter().copied().collect())
    }

    pub fn links(&self) -> usize {
        self.peers.values().filter(|peer| peer.link.is_up()).count()
    }

    pub fn mark(&mut self) -> Mark {
        self.turn += 1;
        Mark(self.turn)
    }

    pub fn are_called(&self, mark: Mark) -> bool {
        let has_room = self.count(Link::is_up) < self.limits.peers;
        self.peers.values().filter(|peer| peer.turn < mark.0).all(|peer| match peer.link {
            Link::Queued => !has_room && !peer.explicit,
            Link::Dialing(_) => false,
            Link::None | Link::Up { .. } => true,
        })
    }

    /// How many there are of those that limits count.
    fn count(&self, is_so: fn(&Link) -> bool) -> usize {
        self.peers.values().filter(|peer| !peer.explicit && is_so(&peer.link)).count()
    }

    pub fn join_peer(&mut self, key: PublicKey) {
        if key != self.own {
            self.peers.entry(key).or_default().explicit = true;
            self.enqueue(key);
            self.dial();
        }
    }

    pub fn leave_peer(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.explicit = false;
        }
        self.let_go(key);
        self.forget(key);
    }

    /// A topic was left.
    pub fn leave(&mut self, topic: &Id) {
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.peers.get_mut(&key).is_some_and(|peer| peer.topics.remove(topic)) {
                self.let_go(&key);
            }
        }
    }

    pub fn ban(&mut self, key: PublicKey) {
        if self.peers.get(&key).is_none_or(|peer| !peer.banned) {
            self.banned.push_back(key);
        }
        if self.banned.len() > MAX_BANNED
            && let Some(first) = self.banned.pop_front()
        {
            self.unban(&first);
        }
        let peer = self.peers.entry(key).or_default();
        peer.banned = true;
        peer.retry_at = None;
        self.part(&key);
        // Its place is free.
        self.dial();
    }

    pub fn pardon(&mut self, key: &PublicKey) {
        self.banned.retain(|other| other != key);
        self.unban(key);
    }

    fn unban(&mut self, key: &PublicKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.banned = false;
        if peer.explicit {
            self.enqueue(*key);
        }
        self.forget(key);
        self.dial();
    }

    pub fn is_welcome(&self, key: &PublicKey) -> bool {
        !self.suspended && *key != self.own && self.peers.get(key).is_none_or(|peer| !peer.banned)
    }

    /// A peer was found at one of our topics.
    pub fn on_found(&mut self, topic: Id, key: PublicKey, relays: &[SocketAddrV4]) {
        let is_there = self.peers.get(&key).is_some_and(|peer| peer.topics.contains(&topic));
        if key == self.own || !is_there && !self.has_place_for(&key) {
            return;
        }
        let peer = self.peers.entry(key).or_default();
        peer.relays = relays.to_vec();
        peer.topics.insert(topic);
        // It's here again, so what went wrong before may be over.
        if peer.link == Link::None && peer.attempts > 2 {
            (peer.attempts, peer.proven) = (0, false);
        }
        if peer.retry_at.is_none() {
            self.enqueue(key);
        }
        self.dial();
    }

    /// Makes room for a peer. Somebody may announce more keys than we remember: of those who wait and whom we never met one
    /// by chance goes, so they keep nobody else out.
    fn has_place_for(&mut self, key: &PublicKey) -> bool {
        if self.peers.values().map(|peer| peer.topics.len()).sum::<usize>() >= MAX_PLACES {
            return false;
        }
        if self.peers.contains_key(key) || self.peers.len() < MAX_KNOWN {
            return true;
        }
        let is_stranger = |peer: &Known| peer.link == Link::Queued && !peer.explicit && !peer.proven;
        let strangers = self.peers.iter().filter(|(_, peer)| is_stranger(peer)).map(|(key, _)| *key);
        let unlucky = strangers.choose(&mut self.rng);
        unlucky.is_some_and(|key| self.peers.remove(&key).is_some())
    }

    pub fn on_link(&mut self, now: Duration, id: LinkId, key: PublicKey, by: Origin) -> Verdict {
        if !self.is_welcome(&key) {
            return Verdict::Drop;
        }
        let own_is_larger = self.own > key;
        // Whom we drop we don't remember either: strangers could come with any number of keys.
        match (self.peers.get(&key).map_or(&Link::None, |peer| &peer.link), by) {
            (Link::Dialing(ticket), Origin::Ours(call)) if *ticket == call => {}
            // Ours was stopped meanwhile.
            (_, Origin::Ours(_)) => return Verdict::Drop,
            // Both called: the call of the one with the larger key counts.
            (Link::Dialing(_), Origin::Theirs(_)) if own_is_larger => return Verdict::Drop,
            (Link::Dialing(ticket), Origin::Theirs(_)) => self.out.push_back(Task::StopDialing(*ticket)),
            // The same, and ours came through first: there, it's the call that stays.
            (Link::Up { since, by: Origin::Ours(_), .. }, Origin::Theirs(_))
                if own_is_larger && now.saturating_sub(*since) < CROSSED =>
            {
                return Verdict::Drop;
            }
            // It would not call again if it still had the old one.
            (Link::Up { id, .. }, Origin::Theirs(_)) => {
                let old = *id;
                self.out.extend([Task::Close(old), Task::Tell(Event::Disconnected { peer: key })]);
            }
            (_, Origin::Theirs(host)) if !self.is_room_for_caller(host) => return Verdict::Drop,
            (Link::None | Link::Queued, Origin::Theirs(_)) => {}
        }
        let peer = self.peers.entry(key).or_default();
        peer.link = Link::Up { id, since: now, by };
        peer.proven = true;
        peer.retry_at = None;
        let initiator = matches!(by, Origin::Ours(_));
        self.out.push_back(Task::Tell(Event::Connected { peer: key, initiator }));
        self.dial();
        Verdict::Keep
    }

    /// Whether somebody else may connect to us. Once most of the places are taken, an eighth of them is one host's.
    fn is_room_for_caller(&self, host: Option<IpAddr>) -> bool {
        let room = self.limits.incoming;
        let callers = || self.peers.values().filter_map(|peer| peer.link.caller());
        let is_crowding = |host: IpAddr| {
            !host.is_loopback()
                && 4 * callers().count() >= 3 * room
                && callers().filter(|caller| *caller == Some(host)).count() >= room.div_ceil(8)
        };
        callers().count() < room && !host.is_some_and(is_crowding)
    }

    pub fn on_close(&mut self, now: Duration, id: LinkId, key: &PublicKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        match peer.link {
            Link::Up { id: up, since, by } if up == id => {
                if now.saturating_sub(since) >= GOOD {
                    peer.attempts = 0;
                }
                self.out.push_back(Task::Tell(Event::Disconnected { peer: *key }));
                // Who called us will call again.
                self.call_again(now, key, matches!(by, Origin::Ours(_)));
            }
            _ => {}
        }
    }

    pub fn on_failure(&mut self, now: Duration, ticket: Ticket, key: &PublicKey) {
        if self.is_called_by(ticket, key) {
            self.out.push_back(Task::Tell(Event::Unreached { peer: *key }));
            self.call_again(now, key, true);
        }
    }

    pub fn on_refusal(&mut self, now: Duration, ticket: Ticket, key: &PublicKey) {
        if !self.is_called_by(ticket, key) {
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.link = Link::None;
        peer.topics.clear();
        peer.retry_at = peer.explicit.then(|| now + EXPLICIT_AGAIN);
        self.forget(key);
        self.dial();
    }

    fn is_called_by(&self, ticket: Ticket, key: &PublicKey) -> bool {
        self.peers.get(key).is_some_and(|peer| peer.link == Link::Dialing(ticket))
    }

    pub fn suspend(&mut self) {
        self.suspended = true;
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            self.part(&key);
            self.let_go(&key);
        }
    }

    pub fn resume(&mut self) {
        self.suspended = false;
    }

    /// Calls those who did not answer before.
    pub fn renew(&mut self) {
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&key) {
                (peer.attempts, peer.retry_at) = (0, None);
            }
            self.enqueue(key);
        }
        self.dial();
    }

    pub fn next_tick(&self) -> Option<Duration> {
        self.peers.values().filter(|_| !self.suspended).filter_map(|peer| peer.retry_at).min()
    }

    pub fn tick(&mut self, now: Duration) {
        if self.suspended {
            return;
        }
        let is_due = |peer: &Known| peer.retry_at.is_some_and(|at| at <= now);
        let due: Vec<PublicKey> = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.retry_at = None;
            }
            self.enqueue(key);
        }
        self.dial();
    }

    /// Calls those who wait for it, the most promising first, as many as there is room for.
    fn dial(&mut self) {
        while !self.suspended {
            let dialing = self.peers.values().filter(|peer| peer.link.is_dialing()).count();
            if dialing >= self.limits.dialing {
                return;
            }
            let is_full = self.count(|link| link.is_dialing() || link.is_up()) >= self.limits.peers;
            let waiting = self.peers.iter().filter(|(_, peer)| peer.link == Link::Queued);
            let waiting = waiting.filter(|(_, peer)| peer.explicit || !is_full);
            let Some(best) = waiting.clone().map(|(_, peer)| priority(peer)).max() else { return };
            let next = waiting.filter(|(_, peer)| priority(peer) == best).map(|(key, _)| *key).choose(&mut self.rng);
            let Some(key) = next else { return };
            let Some(peer) = self.peers.get_mut(&key) else { return };
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            peer.link = Link::Dialing(ticket);
            self.out.push_back(Task::Dial { ticket, key, relays: peer.relays.clone() });
        }
    }

    fn enqueue(&mut self, key: PublicKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.link == Link::None
            && !peer.banned
            && (peer.attempts <= 3 || peer.explicit)
        {
            peer.attempts = peer.attempts.min(3);
            peer.link = Link::Queued;
            peer.turn = self.turn;
        }
    }

    /// A connection ended, or none came about: it is called again later, if it is to be `by_us`.
    fn call_again(&mut self, now: Duration, key: &PublicKey, by_us: bool) {
        let jitter = Duration::from_millis(self.rng.random_range(0..1_000));
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.link = Link::None;
        peer.attempts += 1;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let delay = match (peer.proven, peer.attempts) {
            (true, ..=1) => seconds(1),
            (true, 2) | (false, ..=1) => seconds(5),
            (_, 2 | 3) => seconds(15),
            _ => Some(EXPLICIT_AGAIN).filter(|_| peer.explicit),
        };
        let is_wanted = peer.explicit || by_us && !peer.topics.is_empty();
        peer.retry_at = delay.filter(|_| is_wanted && !peer.banned).map(|delay| now + delay + jitter);
        self.forget(key);
        self.dial();
    }

    /// Ends what there is with a peer.
    fn part(&mut self, key: &PublicKey) {
        match self.peers.get_mut(key).map(|peer| std::mem::take(&mut peer.link)) {
            Some(Link::Up { id, .. }) => {
                self.out.extend([Task::Close(id), Task::Tell(Event::Disconnected { peer: *key })]);
            }
            Some(Link::Dialing(ticket)) => self.out.push_back(Task::StopDialing(ticket)),
            Some(Link::None | Link::Queued) | None => {}
        }
    }

    /// Calls a peer no more that is at none of our topics, and isn't one to stay with. Its connection stays.
    fn let_go(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.explicit && peer.topics.is_empty()) {
            peer.retry_at = None;
            if peer.link == Link::Queued {
                peer.link = Link::None;
            }
            self.forget(key);
        }
    }

    /// Forgets a peer that nothing is known of and nothing wanted from.
    fn forget(&mut self, key: &PublicKey) {
        let is_over =
            |peer: &Known| peer.link == Link::None && !peer.explicit && !peer.banned && peer.retry_at.is_none();
        if self.peers.get(key).is_some_and(is_over) {
            self.peers.remove(key);
        }
    }
}

fn info(now: Duration, key: &PublicKey, peer: &Known) -> PeerInfo {
    let state = match (&peer.link, peer.retry_at) {
        (Link::None, None) => PeerState::Idle,
        (Link::None, Some(at)) => PeerState::Waiting { again_in: at.saturating_sub(now) },
        (Link::Queued, _) => PeerState::Queued,
        (Link::Dialing(_), _) => PeerState::Dialing,
        (Link::Up { id, since, by }, _) => {
            let (link, initiator) = (*id, matches!(by, Origin::Ours(_)));
            PeerState::Connected { link, initiator, lasts: now.saturating_sub(*since) }
        }
    };
    PeerInfo {
        key: *key,
        topics: peer.topics.iter().copied().collect(),
        explicit: peer.explicit,
        banned: peer.banned,
        failures: peer.attempts,
        state,
        address: None,
    }
}

/// Whom to call first: those we lost, then new ones, then those who failed often.
fn priority(peer: &Known) -> u8 {
    match peer.attempts {
        0 => 2,
        1 => 4,
        2 => 3,
        3 => 1,
        _ => 0,
    }
}
