//! Servers: peers of ours that others call by their key.
//!
//! A server announces itself at the hash of its key, at the three closest nodes. These know where it is and pass
//! handshakes on to it. Each is asked every 3 s whether it's there, which also keeps the way through a NAT open; if one
//! is gone, or after five minutes, the server looks for the three closest anew and says farewell to the others.

use super::{Event, Node, Outcome, Purpose, Question, SearchId, TRIES, journey::Kind};
use crate::dht::id::Id;
use crate::dht::packet::Command;
use crate::dht::query::{Commit, Reply, Search};
use crate::dht::record::{Announce, Identity, MAX_RELAYS, Place, PublicKey, Purpose as Signed};
use std::net::SocketAddrV4;
use std::time::Duration;

const RELAYS: usize = 3;
const PING_EVERY: Duration = Duration::from_secs(3);
const RENEW_AFTER: Duration = Duration::from_secs(5 * 60);
/// Not more often than that, whatever is lost.
const RENEW_AT_MOST: Duration = Duration::from_secs(5);

/// A server of ours.
#[derive(Debug)]
pub(super) struct Listener {
    identity: Identity,
    relays: Vec<Relay>,
    /// The nodes that were closest last time.
    closest: Vec<SocketAddrV4>,
    search: Option<SearchId>,
    next_ping: Duration,
    renew_at: Duration,
    renewed: Duration,
    /// Nobody is to call now.
    paused: bool,
}

impl Listener {
    /// When it has something to do; it isn't renewed while it is.
    fn next(&self) -> Duration {
        match self.search {
            _ if self.paused => Duration::MAX,
            Some(_) => self.next_ping,
            None => self.next_ping.min(self.renew_at),
        }
    }
}

/// A node that passes handshakes on to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relay {
    /// The node.
    pub node: SocketAddrV4,
    /// Our address as it sees it.
    pub us: SocketAddrV4,
}

impl Node {
    /// Lets others reach `identity` here, until [`unlisten`](Self::unlisten). [`Event::Listening`] tells how.
    pub fn listen(&mut self, now: Duration, identity: &Identity) {
        self.now = self.now.max(now);
        let target = Id::of(&identity.public());
        if self.listeners.contains_key(&target) {
            return;
        }
        let listener = Listener {
            identity: identity.clone(),
            relays: Vec::new(),
            closest: Vec::new(),
            search: None,
            next_ping: self.now + PING_EVERY,
            renew_at: self.now,
            renewed: self.now,
            paused: false,
        };
        self.listeners.insert(target, listener);
        self.renew(target);
    }

    /// Lets nobody reach it any more.
    pub fn unlisten(&mut self, now: Duration, key: &PublicKey) {
        self.now = self.now.max(now);
        let Some(listener) = self.listeners.remove(&Id::of(key)) else { return };
        if let Some(search) = listener.search {
            self.cancel(search);
        }
        for relay in &listener.relays {
            self.say_farewell(relay.node, &listener.identity);
        }
    }

    /// Lets nobody call a server until it [goes on](Self::listen_again).
    pub fn pause(&mut self, now: Duration, key: &PublicKey) {
        self.now = self.now.max(now);
        let Some(listener) = self.listeners.get_mut(&Id::of(key)).filter(|listener| !listener.paused) else { return };
        listener.paused = true;
        let (identity, search) = (listener.identity.clone(), listener.search.take());
        let relays = std::mem::take(&mut listener.relays);
        if let Some(search) = search {
            self.cancel(search);
        }
        for relay in &relays {
            self.say_farewell(relay.node, &identity);
        }
        self.tell(Event::Listening { key: *key, relays: Vec::new() });
    }

    /// Lets others call a server after a [pause](Self::pause).
    pub fn listen_again(&mut self, now: Duration, key: &PublicKey) {
        self.now = self.now.max(now);
        let target = Id::of(key);
        let Some(listener) = self.listeners.get_mut(&target).filter(|listener| listener.paused) else { return };
        (listener.paused, listener.renew_at) = (false, self.now);
        self.renew(target);
    }

    /// Where others may ask for a server of ours, the best first, at most three.
    pub fn relays(&self, key: &PublicKey) -> Vec<SocketAddrV4> {
        let relays = self.listeners.get(&Id::of(key)).map_or(&[][..], |listener| &listener.relays);
        let own = self.open_address();
        own.into_iter().chain(relays.iter().map(|relay| relay.node)).take(MAX_RELAYS).collect()
    }

    /// Where a peer is that announced itself here.
    pub fn route(&self, target: &Id) -> Option<SocketAddrV4> {
        self.store.routes.get(target).map(|route| route.address)
    }

    /// Whether a node passes on what is meant for a server of ours, as far as we know.
    pub(super) fn is_relay(&self, key: &PublicKey, node: SocketAddrV4) -> bool {
        let listener = self.listeners.get(&Id::of(key));
        listener.is_some_and(|listener| listener.relays.iter().any(|relay| relay.node == node))
    }

    /// The server of ours with this hash of its key.
    pub(super) fn server_at(&self, target: &Id) -> Option<PublicKey> {
        self.listeners.get(target).filter(|listener| !listener.paused).map(|listener| listener.identity.public())
    }

    /// The record of a server of ours.
    pub(super) fn own_record(&self, target: &Id) -> Option<Vec<u8>> {
        let key = self.server_at(target)?;
        Some(crate::dht::record::Peer { key, relays: Vec::new() }.encode())
    }

    /// When a listener has something to do.
    pub(super) fn next_listening(&self) -> Option<Duration> {
        self.listeners.values().map(Listener::next).min()
    }

    /// Does what is due for the servers.
    pub(super) fn keep_listening(&mut self) {
        let now = self.now;
        let due: Vec<Id> =
            self.listeners.iter().filter(|(_, listener)| listener.next() <= now).map(|(target, _)| *target).collect();
        for target in due {
            let Some(listener) = self.listeners.get_mut(&target) else { continue };
            if listener.next_ping <= now {
                listener.next_ping = now + PING_EVERY;
                for node in listener.relays.iter().map(|relay| relay.node).collect::<Vec<_>>() {
                    self.request(node, Question::PING, Purpose::Hold(target), TRIES);
                }
            }
            self.renew(target);
        }
    }

    /// Renews all at once: the network is another.
    pub(super) fn renew_all(&mut self) {
        for target in self.listeners.keys().copied().collect::<Vec<_>>() {
            if let Some(listener) = self.listeners.get_mut(&target) {
                listener.renew_at = self.now;
            }
        }
    }

    /// Looks for the closest nodes if it's time for it.
    fn renew(&mut self, target: Id) {
        let Some(listener) = self.listeners.get_mut(&target) else { return };
        if listener.paused || listener.search.is_some() || listener.renew_at > self.now {
            return;
        }
        // Until the search ends, it isn't due.
        listener.renew_at = self.now + RENEW_AFTER;
        let commit = Commit::Announce { identity: listener.identity.clone(), relays: Vec::new(), bump: 0, at: RELAYS };
        let nodes = listener.closest.clone();
        let search = Search { commit, nodes, ..Search::new(target, Command::FindPeer) };
        let id = self.set_out(search, Kind::Listen(target));
        // A search without anybody to ask is over at once.
        if self.journeys.contains_key(&id)
            && let Some(listener) = self.listeners.get_mut(&target)
        {
            listener.search = Some(id);
        }
    }

    pub(super) fn on_listening(&mut self, target: Id, outcome: &Outcome) {
        let now = self.now;
        let Some(listener) = self.listeners.get_mut(&target).filter(|listener| !listener.paused) else { return };
        listener.search = None;
        let relays: Vec<Relay> = outcome
            .closest
            .iter()
            .filter(|reply| outcome.committed.contains(&reply.from))
            .map(|reply| Relay { node: reply.from, us: reply.to })
            .collect();
        if relays.is_empty() {
            listener.renew_at = now + RENEW_AT_MOST;
        }
        let old = std::mem::replace(&mut listener.relays, relays.clone());
        listener.closest = outcome.closest.iter().map(|reply| reply.from).collect();
        listener.renewed = now;
        listener.next_ping = now + PING_EVERY;
        let identity = listener.identity.clone();
        for relay in old.iter().filter(|old| relays.iter().all(|new| new.node != old.node)) {
            self.say_farewell(relay.node, &identity);
        }
        self.tell(Event::Listening { key: identity.public(), relays });
    }

    /// Who was a relay when it was asked is gone.
    pub(super) fn on_relay_lost(&mut self, target: Id, node: SocketAddrV4) {
        let Some(listener) = self.listeners.get_mut(&target) else { return };
        let before = listener.relays.len();
        listener.relays.retain(|relay| relay.node != node);
        if listener.relays.len() < before {
            listener.renew_at = listener.renew_at.min(self.now.max(listener.renewed + RENEW_AT_MOST));
        }
    }

    fn say_farewell(&mut self, node: SocketAddrV4, identity: &Identity) {
        let target = Some(Id::of(&identity.public()));
        let question = Question { command: Command::FindPeer, target, ..Question::PING };
        self.request(node, question, Purpose::Farewell(identity.clone()), TRIES);
    }

    /// A node that was our relay gave us a token to say farewell with.
    pub(super) fn on_farewell(&mut self, identity: &Identity, reply: &Reply) {
        let (Some(node), Some(token), Some(_)) = (reply.id, reply.token, &reply.value) else { return };
        let target = Id::of(&identity.public());
        let place = Place { target: &target, node: &node, token: &token };
        let value = Announce::signed(Signed::Unannounce, identity, &[], place, 0).encode();
        let command = Command::Unannounce;
        let question = Question { command, target: Some(target), token: Some(token), value: Some(&value) };
        self.request(reply.from, question, Purpose::Hint, TRIES);
    }
}
