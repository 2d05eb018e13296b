//! Searches: a walk to the target, then what the closest are asked in the end.

use super::{Event, Node, Outcome, Purpose, Question, SEARCH_TRIES, SearchId, TRIES};
use crate::dht::id::{Id, encode_address};
use crate::dht::packet::{Command, Token};
use crate::dht::query::{Commit, Reply, Search, Walk};
use crate::dht::record::{Announce, Peers, Place, Purpose as Signed};
use crate::dht::table::K;
use std::net::SocketAddrV4;

/// Concurrency of walks that nobody waits for, while there is other traffic.
const BACKGROUND: usize = 2;
/// DOWN_HINTs sent in a period of upkeep.
const MAX_HINTS: u32 = 50;

/// Why a search was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By whoever runs the node.
    Wished,
    /// To learn about the nodes around us for the first time.
    Bootstrap,
    /// To learn about new ones.
    Refresh,
    /// To announce the server with this hash of its key.
    Listen(Id),
}

impl Kind {
    fn is_background(self) -> bool {
        matches!(self, Kind::Bootstrap | Kind::Refresh)
    }
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Journey {
    search: Search,
    kind: Kind,
    walk: Walk,
    /// Nodes that were asked to forget us and haven't answered.
    clearing: usize,
    /// Requests that were made.
    requests: usize,
    end: Option<Commits>,
}

#[derive(Debug, Default)]
struct Commits {
    open: usize,
    done: Vec<SocketAddrV4>,
}

impl Node {
    pub(super) fn set_out(&mut self, search: Search, kind: Kind) -> SearchId {
        let id = SearchId(self.number());
        let mut walk = Walk::new(search.target, &search.nodes);
        if kind.is_background() {
            walk.concurrency = BACKGROUND;
        }
        if let Some(identity) = &search.clear {
            self.store.unannounce(search.target, &identity.public());
        }
        self.upkeep.searched(self.now);
        self.journeys.insert(id, Journey { search, kind, walk, clearing: 0, requests: 0, end: None });
        self.advance(id);
        id
    }

    pub(super) fn on_visit(&mut self, id: SearchId, was_slow: bool, reply: Reply, closer: &[SocketAddrV4]) {
        let own = self.table.id();
        let acceptable: Vec<_> =
            closer.iter().copied().filter(|node| self.is_acceptable(node) && Id::of_node(*node) != own).collect();
        let is_busy = self.requests.len() >= 3;
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        if was_slow {
            journey.walk.on_slow_end();
        }
        journey.walk.on_reply(&reply, &acceptable);
        if journey.kind.is_background() {
            journey.walk.concurrency = if is_busy { BACKGROUND } else { 10 };
        }
        let kind = journey.kind;
        self.clear_announcement(id, &reply);
        match kind {
            Kind::Wished if reply.error == 0 => self.tell(Event::Found { search: id, reply }),
            Kind::Bootstrap => self.on_first_answer(reply.from),
            _ => {}
        }
        self.advance(id);
    }

    pub(super) fn on_slow_visit(&mut self, id: SearchId) {
        if let Some(journey) = self.journeys.get_mut(&id) {
            journey.walk.on_slow();
            self.advance(id);
        }
    }

    pub(super) fn on_lost(&mut self, id: SearchId, was_slow: bool, node: SocketAddrV4) {
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        if was_slow {
            journey.walk.on_slow_end();
        }
        for by in journey.walk.on_failure(node) {
            if self.upkeep.hints < MAX_HINTS {
                self.upkeep.hints += 1;
                let value = encode_address(node);
                let hint = Question { command: Command::DownHint, value: Some(&value), ..Question::PING };
                self.request(by, hint, Purpose::Hint, 1);
            }
        }
        self.advance(id);
    }

    pub(super) fn on_commit(&mut self, id: SearchId, by: Option<SocketAddrV4>) {
        let Some(commits) = self.journeys.get_mut(&id).and_then(|journey| journey.end.as_mut()) else { return };
        commits.open -= 1;
        commits.done.extend(by);
        if commits.open == 0 {
            self.arrive(id);
        }
    }

    pub(super) fn on_cleared(&mut self, id: SearchId) {
        if let Some(journey) = self.journeys.get_mut(&id) {
            journey.clearing -= 1;
            self.advance(id);
        }
    }

    /// Asks whom the walk wants asked, and goes on if it's done.
    fn advance(&mut self, id: SearchId) {
        loop {
            let Some(journey) = self.journeys.get_mut(&id).filter(|journey| journey.end.is_none()) else { return };
            if journey.walk.wants_table() {
                let closest = self.table.closest(&journey.search.target, K);
                // At the beginning all whom we know may be gone.
                let is_short = closest.len() < K || journey.kind == Kind::Bootstrap;
                let bootstrap = if is_short { &self.config.bootstrap[..] } else { &[] };
                journey.walk.add_known(closest.iter().map(|contact| contact.address).chain(bootstrap.iter().copied()));
            }
            let Some(node) = journey.walk.next_to_ask() else { break };
            let Search { command, target, value, .. } = &journey.search;
            let (command, target, value) = (*command, Some(*target), value.clone());
            let question = Question { command, target, token: None, value: value.as_deref() };
            let is_asked = self.request(node, question, Purpose::Visit(id), SEARCH_TRIES).is_some();
            let Some(journey) = self.journeys.get_mut(&id) else { return };
            journey.requests += usize::from(is_asked);
            if !is_asked {
                journey.walk.on_failure(node);
            }
        }
        if self.journeys.get(&id).is_some_and(|journey| journey.walk.is_done() && journey.clearing == 0) {
            self.commit(id);
        }
    }

    fn commit(&mut self, id: SearchId) {
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        journey.end = Some(Commits::default());
        let (target, commit) = (journey.search.target, journey.search.commit.clone());
        let at = match &commit {
            Commit::Nothing => 0,
            Commit::Announce { at, .. } => *at,
            Commit::Store { .. } => K,
        };
        let closest: Vec<(SocketAddrV4, Id, Token)> =
            journey.walk.closest().filter_map(|reply| Some((reply.from, reply.id?, reply.token?))).take(at).collect();
        let mut open = 0;
        for (node, node_id, token) in closest {
            let place = Place { target: &target, node: &node_id, token: &token };
            let (command, value) = match &commit {
                Commit::Nothing => continue,
                Commit::Announce { identity, relays, bump, .. } => {
                    let announce = Announce::signed(Signed::Announce, identity, relays, place, *bump);
                    (Command::Announce, announce.encode())
                }
                Commit::Store { command, value } => (*command, value.clone()),
            };
            let question = Question { command, target: Some(target), token: Some(token), value: Some(&value) };
            open += usize::from(self.request(node, question, Purpose::Commit(id), TRIES).is_some());
        }
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        journey.requests += open;
        match &mut journey.end {
            Some(commits) if open > 0 => commits.open = open,
            _ => self.arrive(id),
        }
    }

    /// The search is over.
    fn arrive(&mut self, id: SearchId) {
        let Some(journey) = self.journeys.remove(&id) else { return };
        // Slow nodes that weren't waited for.
        self.requests.cancel(|purpose| matches!(purpose, Purpose::Visit(search) if *search == id));
        let closest: Vec<Reply> = journey.walk.closest().cloned().collect();
        let outcome = Outcome {
            committed: journey.end.map_or(Vec::new(), |commits| commits.done),
            replies: journey.walk.replies(),
            errors: journey.walk.errors(),
            requests: journey.requests,
            hops: closest.first().map_or(0, |reply| journey.walk.hops(&reply.from)),
            closest,
        };
        match journey.kind {
            Kind::Wished => self.tell(Event::Finished { search: id, outcome }),
            Kind::Bootstrap => self.on_first_walk(),
            Kind::Refresh => self.on_refreshed(outcome.replies),
            Kind::Listen(target) => self.on_listening(target, &outcome),
        }
    }

    /// Asks a node that has an old announcement of ours to forget it.
    fn clear_announcement(&mut self, id: SearchId, reply: &Reply) {
        let Some(journey) = self.journeys.get_mut(&id) else { return };
        let (Some(identity), Some(node), Some(token), Some(value)) =
            (&journey.search.clear, reply.id, reply.token, &reply.value)
        else {
            return;
        };
        let Ok(found) = Peers::decode(value) else { return };
        // Of many it tells only some.
        if found.peers.len() < K && !found.peers.iter().any(|peer| peer.key == identity.public()) {
            return;
        }
        let target = journey.search.target;
        let place = Place { target: &target, node: &node, token: &token };
        let value = Announce::signed(Signed::Unannounce, identity, &[], place, 0).encode();
        let command = Command::Unannounce;
        let question = Question { command, target: Some(target), token: Some(token), value: Some(&value) };
        if self.request(reply.from, question, Purpose::Clear(id), TRIES).is_some()
            && let Some(journey) = self.journeys.get_mut(&id)
        {
            journey.clearing += 1;
            journey.requests += 1;
        }
    }
}
