//! Whom to look for, whom to call and which connection to keep: what a swarm decides, without I/O, clock and dice.
//!
//! ```text
//! topics ──search──▶ peers ──dial, 3 at once──▶ connections, 64 at most
//!   ▲ every 10 min            ▲ again after 1, 5 and 15 s   │
//!   └─────────────────────────┴─────────────────────────────┘
//! ```
//!
//! - `searches`: which topic is searched next, so that announcements don't lapse and hosts aren't flooded;
//! - `calls`: who is known, who is called next, and who may connect.

mod calls;
mod searches;

use crate::dht::{Id, PublicKey};
use calls::Calls;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use searches::Searches;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections up to which we make more. Default: 64. Those that others made count; peers that we're asked to stay with
    /// don't, and are called however many there are.
    pub peers: usize,
    /// Connections that others may have made, beside however many of ours. Default: 64.
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

/// Names a search or a call: what is told of another one, that was stopped, counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Who made a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// We did, by this call.
    Ours(Ticket),
    /// The peer did, from this host.
    Theirs(Option<IpAddr>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Search a topic, and say so with [`Crowd::on_search_end`].
    Search {
        /// Which search this is.
        ticket: Ticket,
        /// The topic.
        topic: Id,
        /// Whether to announce us there in the end.
        announce: bool,
        /// Whether to withdraw old announcements of ours on the way.
        clear: bool,
        /// The nodes that were closest last time, or at a topic nearby.
        nodes: Vec<SocketAddrV4>,
    },
    /// Stop searching: nothing is to be announced now.
    StopSearching(Ticket),
    /// Call a peer, and say so with [`Crowd::on_link`], [`Crowd::on_failure`] or [`Crowd::on_refusal`].
    Dial {
        /// Which call this is.
        ticket: Ticket,
        /// Whom.
        key: PublicKey,
        /// Nodes that may know it.
        relays: Vec<SocketAddrV4>,
    },
    /// Stop calling: it called us, or we want no connection with it any more.
    StopDialing(Ticket),
    /// End a connection: there's another with the same peer, or we want none.
    Close(LinkId),
    /// Tell whoever listens.
    Tell(Event),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection came about.
    Connected {
        /// With whom.
        peer: PublicKey,
        /// Whether we called.
        initiator: bool,
    },
    /// A connection ended, or another one with the same peer took its place.
    Disconnected {
        /// With whom.
        peer: PublicKey,
    },
    /// A peer was called in vain.
    Unreached {
        /// Whom.
        peer: PublicKey,
    },
    /// A topic was searched.
    Searched {
        /// Which.
        topic: Id,
        /// Whether others find us there from now on.
        announced: bool,
    },
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
}

/// A peer that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its key.
    pub key: PublicKey,
    /// The topics of ours at which it was found.
    pub topics: Vec<Id>,
    /// Whether we were asked to stay connected with it.
    pub explicit: bool,
    /// Whether it is banned.
    pub banned: bool,
    /// How often in a row it was called in vain, or its connection lasted less than 15 s.
    pub failures: u32,
    /// How we stand.
    pub state: PeerState,
    /// Where it is, if we are connected; [`Swarm`](super::Swarm) knows.
    pub address: Option<SocketAddr>,
}

/// How we stand with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It isn't called: it is banned, or was called in vain too often, until it's found again.
    Idle,
    /// It is called as soon as there's room.
    Queued,
    /// It is called again later.
    Waiting {
        /// In so long.
        again_in: Duration,
    },
    /// It is being called.
    Dialing,
    /// We are connected.
    Connected {
        /// By which connection.
        link: LinkId,
        /// Whether we called.
        initiator: bool,
        /// For so long.
        lasts: Duration,
    },
}

/// A topic that was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicInfo {
    /// Which.
    pub topic: Id,
    /// Whether peers are looked for.
    pub client: bool,
    /// Whether peers can find us.
    pub server: bool,
    /// Whether it is searched now, or waits for it since it was joined.
    pub searching: bool,
    /// How long ago we were last announced.
    pub announced: Option<Duration>,
}

/// What there was when it was taken: topics to be searched, or peers to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Topics, peers and connections.
#[derive(Debug)]
pub struct Crowd {
    searches: Searches,
    calls: Calls,
}

impl Crowd {
    /// Nobody yet; `own` is our key, `seed` 32 random bytes.
    pub fn new(own: PublicKey, limits: Limits, now: Duration, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let other = StdRng::from_seed(rng.random());
        Crowd { searches: Searches::new(now, rng), calls: Calls::new(own, limits, other) }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Task> {
        self.searches.poll().or_else(|| self.calls.poll())
    }

    /// Looks for peers at a topic as a client, or lets them find us as a server, or both; called again it changes what
    /// it was.
    pub fn join(&mut self, now: Duration, topic: Id, client: bool, server: bool) {
        self.searches.join(now, topic, client, server);
    }

    /// Withdraws from a topic. Connections stay.
    pub fn leave(&mut self, now: Duration, topic: &Id) {
        self.searches.leave(now, topic);
        self.calls.leave(topic);
    }

    /// When we were last announced at a topic; `None` if not, or not yet.
    pub fn announced(&self, topic: &Id) -> Option<Duration> {
        self.searches.announced(topic)
    }

    /// Whether a topic is searched, or waits for it.
    pub fn is_searching(&self, topic: &Id) -> bool {
        self.searches.is_searching(topic)
    }

    /// All topics that were joined.
    pub fn topics(&self, now: Duration) -> Vec<TopicInfo> {
        self.searches.all(now).collect()
    }

    /// Everybody who is known.
    pub fn peers(&self, now: Duration) -> Vec<PeerInfo> {
        self.calls.all(now).collect()
    }

    /// What is known of a peer.
    pub fn peer(&self, now: Duration, key: &PublicKey) -> Option<PeerInfo> {
        self.calls.peer(now, key)
    }

    /// The topics at which a peer was found.
    pub fn topics_of(&self, key: &PublicKey) -> Vec<Id> {
        self.calls.topics_of(key)
    }

    /// Connections that are up.
    pub fn links(&self) -> usize {
        self.calls.links()
    }

    /// The topics that are joined now.
    pub fn mark_topics(&mut self) -> Mark {
        self.searches.mark()
    }

    /// Whether all of them were searched since they were joined.
    pub fn are_searched(&self, mark: Mark) -> bool {
        self.searches.are_searched(mark)
    }

    /// The peers that are to be called now.
    pub fn mark_calls(&mut self) -> Mark {
        self.calls.mark()
    }

    /// Whether each of them was called, except those for whom there's no room.
    pub fn are_called(&self, mark: Mark) -> bool {
        self.calls.are_called(mark)
    }

    /// Stays connected with a peer, whatever the topic.
    pub fn join_peer(&mut self, key: PublicKey) {
        self.calls.join_peer(key);
    }

    /// No longer.
    pub fn leave_peer(&mut self, key: &PublicKey) {
        self.calls.leave_peer(key);
    }

    /// Has nothing more to do with a peer, until 1,024 others were banned after it.
    pub fn ban(&mut self, key: PublicKey) {
        self.calls.ban(key);
    }

    /// Lifts a [ban](Self::ban).
    pub fn pardon(&mut self, key: &PublicKey) {
        self.calls.pardon(key);
    }

    /// Whether a peer may connect to us.
    pub fn is_welcome(&self, key: &PublicKey) -> bool {
        self.calls.is_welcome(key)
    }

    /// A search found a peer.
    pub fn on_found(&mut self, topic: Id, key: PublicKey, relays: &[SocketAddrV4]) {
        if self.searches.is_client(&topic) {
            self.calls.on_found(topic, key, relays);
        }
    }

    /// A search is over.
    pub fn on_search_end(&mut self, now: Duration, ticket: Ticket, topic: &Id, found: Searched) {
        self.searches.on_end(now, ticket, topic, found);
    }

    /// A connection came about.
    pub fn on_link(&mut self, now: Duration, id: LinkId, key: PublicKey, origin: Origin) -> Verdict {
        self.calls.on_link(now, id, key, origin)
    }

    /// A connection ended.
    pub fn on_close(&mut self, now: Duration, id: LinkId, key: &PublicKey) {
        self.calls.on_close(now, id, key);
    }

    /// A call was not answered.
    pub fn on_failure(&mut self, now: Duration, ticket: Ticket, key: &PublicKey) {
        self.calls.on_failure(now, ticket, key);
    }

    /// A peer was not called: whoever runs the swarm doesn't want it.
    pub fn on_refusal(&mut self, now: Duration, ticket: Ticket, key: &PublicKey) {
        self.calls.on_refusal(now, ticket, key);
    }

    /// Does nothing more until [`resume`](Self::resume), and ends all connections. Returns the topics at which somebody
    /// may keep an announcement of ours, the latest first, and who.
    pub fn suspend(&mut self) -> Vec<(Id, Vec<SocketAddrV4>)> {
        self.calls.suspend();
        self.searches.suspend()
    }

    /// Goes on as if everybody had just been found.
    pub fn resume(&mut self, now: Duration) {
        self.searches.resume();
        self.calls.resume();
        self.renew(now);
    }

    /// Begins anew, because the network is another: searches all topics, and calls those who did not answer before.
    pub fn renew(&mut self, now: Duration) {
        self.searches.refresh(now);
        self.calls.renew();
    }

    /// Searches all topics anew.
    pub fn refresh(&mut self, now: Duration) {
        self.searches.refresh(now);
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub fn next_tick(&self) -> Option<Duration> {
        self.searches.next_tick().into_iter().chain(self.calls.next_tick()).min()
    }

    /// Begins what is due.
    pub fn tick(&mut self, now: Duration) {
        self.searches.tick(now);
        self.calls.tick(now);
    }
}

/// What a search came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Searched {
    /// Whether anybody keeps our announcement.
    pub announced: bool,
    /// The closest nodes.
    pub closest: Vec<SocketAddrV4>,
    /// Requests that it took.
    pub requests: usize,
}

#[cfg(test)]
mod tests;
