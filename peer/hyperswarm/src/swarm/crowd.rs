//! Whom to look for, whom to call and which connection to keep: what a swarm decides, without I/O, clock and dice.
//!
//! ```text
//! topics ──search──▶ peers ──dial, 3 at once──▶ connections, 64 at most
//!   ▲ every 10 min            ▲ again after 1, 5 and 15 s   │
//!   └─────────────────────────┴─────────────────────────────┘
//! ```

use crate::dht::{Id, PublicKey};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

/// A topic is searched again after so long, and up to two minutes.
const SEARCH_EVERY: Duration = Duration::from_secs(10 * 60);
const SPREAD: Duration = Duration::from_secs(2 * 60);
/// Requests of searches that begin in a second, and so many more at once after a pause.
const REQUESTS_PER_SECOND: f64 = 400.0;
const REQUESTS_AT_ONCE: f64 = 140.0;
/// What a search asks at most in a DHT of 10,000 hosts: on the way and of the closest 20 in the end; and when it begins
/// with those that were closest the last time.
const FIRST_SEARCH: f64 = 68.0;
const NEXT_SEARCH: f64 = 42.0;
/// Two calls that come through within so much crossed.
const CROSSED: Duration = Duration::from_secs(3);
/// A connection that lived that long makes us forget failures.
const GOOD: Duration = Duration::from_secs(15);
/// Peers that are remembered.
const MAX_KNOWN: usize = 4_096;
/// Peers that stay banned.
const MAX_BANNED: usize = 1_024;
/// Whom we were asked to stay with is tried again at last after so long.
const EXPLICIT_AGAIN: Duration = Duration::from_secs(10 * 60);

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that we make or keep. Default: 64. Peers that we're asked to stay with don't count.
    pub peers: usize,
    /// Of those, how many others may have made. Default: all.
    pub incoming: usize,
    /// Attempts at once. Default: 3.
    pub dialing: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { peers: 64, incoming: 64, dialing: 3 }
    }
}

/// Names one connection of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Search a topic, and say so with [`Crowd::on_search_end`].
    Search {
        /// The topic.
        topic: Id,
        /// Whether to announce us there in the end.
        announce: bool,
        /// Whether to withdraw old announcements of ours on the way.
        clear: bool,
        /// The nodes that were closest last time.
        nodes: Vec<SocketAddrV4>,
    },
    /// Stop searching it: nothing is to be announced now.
    StopSearching {
        /// The topic.
        topic: Id,
    },
    /// Call a peer, and say so with [`Crowd::on_link`] or [`Crowd::on_failure`].
    Dial {
        /// Whom.
        key: PublicKey,
        /// Nodes that may know it.
        relays: Vec<SocketAddrV4>,
    },
    /// Stop calling: it called us.
    StopDialing {
        /// Whom.
        key: PublicKey,
    },
    /// End a connection: there's another with the same peer, or we want none.
    Close(LinkId),
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
}

#[derive(Debug, Default)]
struct Topic {
    client: bool,
    server: bool,
    /// When it is searched next, unless it is searched now.
    due: Option<Duration>,
    /// Searched now; whether to announce us.
    search: Option<bool>,
    /// It was left, or changed, while it was searched.
    again: bool,
    /// Whether it was searched since it was joined.
    searched: bool,
    announced: Option<Duration>,
    /// Whether somebody may keep an announcement of ours.
    may_be_announced: bool,
    closest: Vec<SocketAddrV4>,
}

#[derive(Debug, Default)]
struct Known {
    relays: Vec<SocketAddrV4>,
    topics: BTreeSet<Id>,
    explicit: bool,
    banned: bool,
    /// Whether a connection came about.
    proven: bool,
    attempts: u32,
    retry_at: Option<Duration>,
    state: Link,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    None,
    Queued,
    Dialing,
    Up {
        id: LinkId,
        since: Duration,
        incoming: bool,
    },
}

/// Topics, peers and connections.
#[derive(Debug)]
pub struct Crowd {
    own: PublicKey,
    limits: Limits,
    topics: BTreeMap<Id, Topic>,
    /// Topics in the order in which they are to be searched.
    due: BTreeSet<(Duration, Id)>,
    peers: BTreeMap<PublicKey, Known>,
    /// Who is banned, in that order.
    banned: VecDeque<PublicKey>,
    out: VecDeque<Task>,
    rng: StdRng,
    credit: f64,
    credit_at: Duration,
    suspended: bool,
}

impl Crowd {
    /// Nobody yet; `own` is our key, `seed` 32 random bytes.
    pub fn new(own: PublicKey, limits: Limits, now: Duration, seed: [u8; 32]) -> Self {
        Crowd {
            own,
            limits,
            topics: BTreeMap::new(),
            due: BTreeSet::new(),
            peers: BTreeMap::new(),
            banned: VecDeque::new(),
            out: VecDeque::new(),
            rng: StdRng::from_seed(seed),
            credit: REQUESTS_AT_ONCE,
            credit_at: now,
            suspended: false,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Task> {
        self.out.pop_front()
    }

    /// Looks for peers at a topic as a client, or lets them find us as a server, or both; called again it changes what
    /// it was.
    pub fn join(&mut self, now: Duration, id: Id, client: bool, server: bool) {
        let topic = self.topics.entry(id).or_default();
        (topic.client, topic.server) = (client, server);
        topic.searched = false;
        topic.again = topic.search.is_some();
        // Who looks for somebody waits for it: that comes before all announcements.
        self.schedule(id, if client { Duration::ZERO } else { now });
        self.tick(now);
    }

    /// Withdraws from a topic. Connections stay.
    pub fn leave(&mut self, now: Duration, id: &Id) {
        if let Some(topic) = self.topics.get_mut(id) {
            (topic.client, topic.server) = (false, false);
            topic.again = topic.search.is_some();
            self.schedule(*id, now);
        }
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            if self.peers.get_mut(&key).is_some_and(|peer| peer.topics.remove(id)) {
                self.let_go(&key);
            }
        }
        self.tick(now);
    }

    /// When we were last announced at a topic; `None` if not, or not yet.
    pub fn announced(&self, topic: &Id) -> Option<Duration> {
        self.topics.get(topic)?.announced
    }

    /// Whether a topic is searched, or waits for it.
    pub fn is_searching(&self, topic: &Id) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.search.is_some() || !topic.searched)
    }

    /// Whether nobody is being called: then nobody waits for it either for whom there's room.
    pub fn is_idle(&self) -> bool {
        self.peers.values().all(|peer| peer.state != Link::Dialing)
    }

    /// The topics at which a peer was found.
    pub fn topics_of(&self, key: &PublicKey) -> Vec<Id> {
        self.peers.get(key).map_or(Vec::new(), |peer| peer.topics.iter().copied().collect())
    }

    /// Connections that are up.
    pub fn links(&self) -> usize {
        self.peers.values().filter(|peer| matches!(peer.state, Link::Up { .. })).count()
    }

    /// Stays connected with a peer, whatever the topic.
    pub fn join_peer(&mut self, now: Duration, key: PublicKey) {
        if key != self.own {
            let peer = self.peers.entry(key).or_default();
            peer.explicit = true;
            self.enqueue(key);
            self.tick(now);
        }
    }

    /// No longer.
    pub fn leave_peer(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.explicit = false;
        }
        self.let_go(key);
        self.forget(key);
    }

    /// Has nothing more to do with a peer, until 1,024 others were banned after it.
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
        match std::mem::take(&mut peer.state) {
            Link::Up { id, .. } => self.out.push_back(Task::Close(id)),
            Link::Dialing => self.out.push_back(Task::StopDialing { key }),
            Link::None | Link::Queued => {}
        }
        // Its place is free.
        self.dial();
    }

    /// Lifts a [ban](Self::ban).
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

    /// Whether a peer may connect to us.
    pub fn is_welcome(&self, key: &PublicKey) -> bool {
        !self.suspended && *key != self.own && self.peers.get(key).is_none_or(|peer| !peer.banned)
    }

    /// A search found a peer.
    pub fn on_found(&mut self, now: Duration, topic: Id, key: PublicKey, relays: &[SocketAddrV4]) {
        if key == self.own || !self.topics.get(&topic).is_some_and(|topic| topic.client) {
            return;
        }
        if !self.peers.contains_key(&key) && self.peers.len() >= MAX_KNOWN {
            return;
        }
        let peer = self.peers.entry(key).or_default();
        peer.relays = relays.to_vec();
        peer.topics.insert(topic);
        // It's here again, so what went wrong before may be over.
        if peer.state == Link::None && peer.attempts > 2 {
            (peer.attempts, peer.proven) = (0, false);
        }
        if peer.retry_at.is_none() {
            self.enqueue(key);
        }
        self.tick(now);
    }

    /// A search is over; `announced` tells whether anybody keeps our announcement.
    pub fn on_search_end(&mut self, now: Duration, id: &Id, announced: bool, closest: Vec<SocketAddrV4>) {
        let spread = SPREAD.mul_f64(self.rng.random());
        let Some(topic) = self.topics.get_mut(id) else { return };
        // It was stopped, but had ended before.
        let Some(announcing) = topic.search.take() else { return };
        topic.searched = !topic.again;
        topic.announced = if announced { Some(now) } else { topic.announced.filter(|_| announcing) };
        topic.may_be_announced = announcing;
        topic.closest = closest;
        let again = std::mem::take(&mut topic.again);
        if !topic.client && !topic.server && !topic.may_be_announced {
            self.topics.remove(id);
        } else {
            self.schedule(*id, if again { now } else { now + SEARCH_EVERY + spread });
        }
        self.tick(now);
    }

    /// A connection came about: one that we made, or an `incoming` one.
    pub fn on_link(&mut self, now: Duration, id: LinkId, key: PublicKey, incoming: bool) -> Verdict {
        if !self.is_welcome(&key) {
            return Verdict::Drop;
        }
        let incoming_links = self.peers.values().filter(|peer| matches!(peer.state, Link::Up { incoming: true, .. }));
        let is_full = incoming && incoming_links.count() >= self.limits.incoming;
        let own_is_larger = self.own > key;
        // Whom we drop we don't remember either: strangers could come with any number of keys.
        match self.peers.get(&key).map_or(&Link::None, |peer| &peer.state) {
            // Ours was stopped meanwhile.
            Link::None | Link::Queued | Link::Up { .. } if !incoming => return Verdict::Drop,
            // Both called: the call of the one with the larger key counts.
            Link::Dialing if incoming && own_is_larger => return Verdict::Drop,
            Link::Dialing if incoming => self.out.push_back(Task::StopDialing { key }),
            // The same, and ours came through first: there, it's the call that stays.
            Link::Up { since, incoming: false, .. } if own_is_larger && now.saturating_sub(*since) < CROSSED => {
                return Verdict::Drop;
            }
            // It would not call again if it still had the old one.
            Link::Up { id, .. } => self.out.push_back(Task::Close(*id)),
            _ if is_full => return Verdict::Drop,
            _ => {}
        }
        let peer = self.peers.entry(key).or_default();
        peer.state = Link::Up { id, since: now, incoming };
        peer.proven = true;
        peer.retry_at = None;
        self.tick(now);
        Verdict::Keep
    }

    /// A connection ended.
    pub fn on_close(&mut self, now: Duration, id: LinkId, key: &PublicKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        match peer.state {
            Link::Up { id: up, since, incoming } if up == id => {
                if now.saturating_sub(since) >= GOOD {
                    peer.attempts = 0;
                }
                // Who called us will call again.
                self.disconnected(now, key, !incoming);
            }
            _ => {}
        }
    }

    /// A call was not answered.
    pub fn on_failure(&mut self, now: Duration, key: &PublicKey) {
        if self.peers.get(key).is_some_and(|peer| peer.state == Link::Dialing) {
            self.disconnected(now, key, true);
        }
    }

    /// Does nothing more until [`resume`](Self::resume), and ends all connections. Returns the topics at which somebody
    /// may keep an announcement of ours, the latest first, and who.
    pub fn suspend(&mut self) -> Vec<(Id, Vec<SocketAddrV4>)> {
        self.suspended = true;
        let mut announced = Vec::new();
        for (id, topic) in &mut self.topics {
            topic.again = false;
            if topic.search.take().is_some() {
                self.out.push_back(Task::StopSearching { topic: *id });
            }
            let last = topic.announced.take();
            if topic.may_be_announced {
                announced.push((last, *id, topic.closest.clone()));
            }
        }
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            match self.peers.get_mut(&key).map(|peer| std::mem::take(&mut peer.state)) {
                Some(Link::Up { id, .. }) => self.out.push_back(Task::Close(id)),
                Some(Link::Dialing) => self.out.push_back(Task::StopDialing { key }),
                _ => {}
            }
            self.let_go(&key);
        }
        announced.sort_by_key(|(last, ..)| std::cmp::Reverse(*last));
        announced.into_iter().map(|(_, id, closest)| (id, closest)).collect()
    }

    /// Goes on as if everybody had just been found.
    pub fn resume(&mut self, now: Duration) {
        self.suspended = false;
        self.renew(now);
    }

    /// Begins anew, because the network is another: searches all topics, and calls those who did not answer before.
    pub fn renew(&mut self, now: Duration) {
        self.refresh(now);
        for key in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&key) {
                (peer.attempts, peer.retry_at) = (0, None);
            }
            self.enqueue(key);
        }
        self.tick(now);
    }

    /// Searches all topics anew.
    pub fn refresh(&mut self, now: Duration) {
        for id in self.topics.keys().copied().collect::<Vec<_>>() {
            if let Some(topic) = self.topics.get_mut(&id) {
                topic.searched = false;
            }
            self.schedule(id, now);
        }
        self.tick(now);
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub fn next_tick(&self) -> Option<Duration> {
        if self.suspended {
            return None;
        }
        let search = self.due.first().map(|(due, id)| {
            let wait = (self.cost(id) - self.credit).max(0.0) / REQUESTS_PER_SECOND;
            (*due).max(self.credit_at + Duration::from_secs_f64(wait))
        });
        let retries = self.peers.values().filter_map(|peer| peer.retry_at).min();
        search.into_iter().chain(retries).min()
    }

    /// Begins what is due.
    pub fn tick(&mut self, now: Duration) {
        if self.suspended {
            return;
        }
        self.begin_searches(now);
        let due: Vec<PublicKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.retry_at.is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.retry_at = None;
            }
            self.enqueue(key);
        }
        self.dial();
    }

    fn begin_searches(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.credit_at).as_secs_f64();
        self.credit = (self.credit + passed * REQUESTS_PER_SECOND).min(REQUESTS_AT_ONCE);
        self.credit_at = self.credit_at.max(now);
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            let cost = self.cost(&id);
            if self.credit < cost {
                return;
            }
            self.due.pop_first();
            let Some(topic) = self.topics.get_mut(&id) else { continue };
            topic.due = None;
            if !topic.client && !topic.server && !topic.may_be_announced {
                self.topics.remove(&id);
                continue;
            }
            self.credit -= cost;
            topic.search = Some(topic.server);
            // The first time there may be an announcement of an earlier run; without a server, of this one.
            let clear = if topic.server { topic.announced.is_none() } else { topic.may_be_announced };
            topic.may_be_announced |= topic.server;
            let nodes = topic.closest.clone();
            self.out.push_back(Task::Search { topic: id, announce: topic.server, clear, nodes });
        }
    }

    /// Requests that a search of a topic takes.
    fn cost(&self, id: &Id) -> f64 {
        let is_first = self.topics.get(id).is_none_or(|topic| topic.closest.is_empty());
        if is_first { FIRST_SEARCH } else { NEXT_SEARCH }
    }

    /// Lets a topic be searched at `at`, unless it is searched now.
    fn schedule(&mut self, id: Id, at: Duration) {
        let Some(topic) = self.topics.get_mut(&id).filter(|topic| topic.search.is_none()) else { return };
        if let Some(before) = topic.due.replace(at) {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
    }

    /// Calls those who wait for it, the most promising first, as many as there is room for.
    fn dial(&mut self) {
        while !self.suspended {
            let count = |state: fn(&Link) -> bool| self.peers.values().filter(|peer| state(&peer.state)).count();
            let dialing = count(|link| *link == Link::Dialing);
            let is_full = dialing + count(|link| matches!(link, Link::Up { .. })) >= self.limits.peers;
            if dialing >= self.limits.dialing {
                return;
            }
            let waiting = self.peers.iter().filter(|(_, peer)| peer.state == Link::Queued);
            let waiting = waiting.filter(|(_, peer)| peer.explicit || !is_full);
            let Some(best) = waiting.clone().map(|(_, peer)| priority(peer)).max() else { return };
            let next = waiting.filter(|(_, peer)| priority(peer) == best).map(|(key, _)| *key).choose(&mut self.rng);
            let Some(key) = next else { return };
            let Some(peer) = self.peers.get_mut(&key) else { return };
            peer.state = Link::Dialing;
            self.out.push_back(Task::Dial { key, relays: peer.relays.clone() });
        }
    }

    fn enqueue(&mut self, key: PublicKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.state == Link::None
            && !peer.banned
            && (peer.attempts <= 3 || peer.explicit)
        {
            peer.attempts = peer.attempts.min(3);
            peer.state = Link::Queued;
        }
    }

    fn disconnected(&mut self, now: Duration, key: &PublicKey, by_us: bool) {
        let jitter = Duration::from_millis(self.rng.random_range(0..1_000));
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.state = Link::None;
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
        self.tick(now);
    }

    /// Calls a peer no more that is at none of our topics, and isn't one to stay with. Its connection stays.
    fn let_go(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.explicit && peer.topics.is_empty()) {
            peer.retry_at = None;
            if peer.state == Link::Queued {
                peer.state = Link::None;
            }
            self.forget(key);
        }
    }

    /// Forgets a peer that nothing is known of and nothing wanted from.
    fn forget(&mut self, key: &PublicKey) {
        let is_over =
            |peer: &Known| peer.state == Link::None && !peer.explicit && !peer.banned && peer.retry_at.is_none();
        if self.peers.get(key).is_some_and(is_over) {
            self.peers.remove(key);
        }
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

#[cfg(test)]
mod tests;
