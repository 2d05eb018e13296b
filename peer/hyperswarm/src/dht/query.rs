//! Walking towards a target: ask the closest nodes known for closer ones, until nobody knows any.
//!
//! ```text
//!           candidates, closest first          asked, at most 10 at once
//! table ──▶ ● ● ● ● ● ● ● ● ● ● ● ●  ────────▶ ● ● ● ●  ──answer──▶ the 20 closest that answered
//!              ▲                                           │
//!              └──────────── closer nodes ◀────────────────┘
//! ```
//!
//! A node that doesn't answer at its first try is slow: it no longer counts among the ten, and isn't waited for once
//! 20 others have answered. Whoever named a node that is down is told so.

use super::id::{Distance, Id};
use super::packet::{Command, Token};
use super::record::Identity;
use super::table::K;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Requests at once.
const CONCURRENCY: usize = 10;
/// At once when the walk begins with nodes of an earlier one: a chance to be done with those.
const REUSING: usize = 3;
/// Addresses that one walk looks at. An honest one needs some hundred.
const MAX_SEEN: usize = 2_000;

/// What is looked for, and what to do at the end.
#[derive(Debug, Clone)]
pub struct Search {
    /// Where.
    pub target: Id,
    /// What every node on the way is asked.
    pub command: Command,
    /// The value of that question.
    pub value: Option<Vec<u8>>,
    /// What the 20 closest nodes are asked in the end.
    pub commit: Commit,
    /// Asks every node that has an announcement of this key to forget it.
    pub clear: Option<Identity>,
    /// Nodes to begin with, perhaps the closest of an earlier search; without any it is the routing table.
    pub nodes: Vec<SocketAddrV4>,
}

impl Search {
    /// Asks all nodes on the way to `target`, and nothing in the end.
    pub fn new(target: Id, command: Command) -> Self {
        Search { target, command, value: None, commit: Commit::Nothing, clear: None, nodes: Vec::new() }
    }
}

/// What the closest nodes are asked in the end.
#[derive(Debug, Clone)]
pub enum Commit {
    /// Nothing.
    Nothing,
    /// To tell who asks that `identity` is here.
    Announce {
        /// Who is to be found.
        identity: Identity,
        /// Through whom it's reached.
        relays: Vec<SocketAddrV4>,
        /// See [`Peers::bump`](super::record::Peers::bump).
        bump: u64,
        /// At how many of the closest.
        at: usize,
    },
    /// To store something.
    Store {
        /// MUTABLE_PUT or IMMUTABLE_PUT.
        command: Command,
        /// Its value.
        value: Vec<u8>,
    },
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Who answered.
    pub from: SocketAddrV4,
    /// Its id, if it is a node of the DHT.
    pub id: Option<Id>,
    /// Our address as it sees it.
    pub to: SocketAddrV4,
    /// To store something there.
    pub token: Option<Token>,
    /// 0 for none, see [`error`](super::packet::error).
    pub error: u64,
    /// What it has.
    pub value: Option<Vec<u8>>,
    /// From the last try to the answer.
    pub rtt: Duration,
}

/// An address that was named on the way.
#[derive(Debug)]
struct Seen {
    /// How many nodes lie between us and it.
    hops: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not asked yet, or not answered; named by these.
    Named(Vec<SocketAddrV4>),
    Answered,
    Down,
}

/// A walk: the part that decides whom to ask and when to end.
#[derive(Debug)]
pub struct Walk {
    target: Id,
    /// Requests at once, if not slowed down.
    pub concurrency: usize,
    seen: HashMap<SocketAddrV4, Seen>,
    candidates: BTreeMap<Distance, SocketAddrV4>,
    closest: Vec<(Distance, Reply)>,
    in_flight: usize,
    slow: usize,
    replies: usize,
    errors: usize,
    /// Whether it was given the nodes of the routing table.
    from_table: bool,
}

impl Walk {
    /// A walk towards `target` that begins with `nodes`.
    pub fn new(target: Id, nodes: &[SocketAddrV4]) -> Self {
        let mut walk = Walk {
            target,
            concurrency: CONCURRENCY,
            seen: HashMap::new(),
            candidates: BTreeMap::new(),
            closest: Vec::new(),
            in_flight: 0,
            slow: 0,
            replies: 0,
            errors: 0,
            from_table: false,
        };
        for node in nodes.iter().take(2 * K) {
            walk.add(*node, None);
        }
        walk
    }

    /// Whether it needs nodes of the routing table: it has none yet, or those it began with are gone.
    pub fn wants_table(&self) -> bool {
        !self.from_table && self.is_exhausted() && self.replies < K / 4
    }

    /// Adds nodes of the routing table, or bootstrap nodes.
    pub fn add_known(&mut self, nodes: impl IntoIterator<Item = SocketAddrV4>) {
        self.from_table = true;
        for node in nodes {
            self.add(node, None);
        }
    }

    /// The next node to ask now.
    pub fn next_to_ask(&mut self) -> Option<SocketAddrV4> {
        let reusing = !self.from_table && self.replies + self.errors < CONCURRENCY && self.in_flight > 0;
        let at_once = if reusing { REUSING } else { self.concurrency };
        if self.in_flight >= at_once + self.slow {
            return None;
        }
        let (distance, node) = self.candidates.pop_first()?;
        if !self.is_closer(&distance) {
            // All others are even farther.
            self.candidates.clear();
            return None;
        }
        self.in_flight += 1;
        Some(node)
    }

    /// Takes an answer and the nodes that came with it.
    pub fn on_reply(&mut self, reply: &Reply, closer: &[SocketAddrV4]) {
        if let Some(seen) = self.seen.get_mut(&reply.from) {
            seen.state = State::Answered;
        }
        self.in_flight -= 1;
        if reply.error == 0 {
            self.replies += 1;
            if let Some(distance) = reply.id.map(|id| id.distance(&self.target)).filter(|d| self.is_closer(d)) {
                let at = self.closest.partition_point(|(other, _)| *other < distance);
                self.closest.insert(at, (distance, reply.clone()));
                self.closest.truncate(K);
            }
        } else {
            self.errors += 1;
        }
        for node in closer {
            self.add(*node, Some(reply.from));
        }
    }

    /// Notes that `node` did not answer its first try.
    pub fn on_slow(&mut self) {
        self.slow += 1;
    }

    /// Notes that a slow node answered or failed after all.
    pub fn on_slow_end(&mut self) {
        self.slow -= 1;
    }

    /// Notes that `node` is down, and returns who named it.
    pub fn on_failure(&mut self, node: SocketAddrV4) -> Vec<SocketAddrV4> {
        self.in_flight -= 1;
        self.errors += 1;
        let state = self.seen.get_mut(&node).map(|seen| std::mem::replace(&mut seen.state, State::Down));
        match state {
            Some(State::Named(by)) => by,
            _ => Vec::new(),
        }
    }

    /// Whether nothing more is to be learned.
    pub fn is_done(&self) -> bool {
        self.is_exhausted() && !self.wants_table()
    }

    fn is_exhausted(&self) -> bool {
        let farther = self.candidates.first_key_value().is_none_or(|(distance, _)| !self.is_closer(distance));
        farther && (self.in_flight == 0 || self.slow == self.in_flight && self.closest.len() >= K)
    }

    /// The closest nodes that answered, closest first, at most [`K`].
    pub fn closest(&self) -> impl Iterator<Item = &Reply> {
        self.closest.iter().map(|(_, reply)| reply)
    }

    /// Answers without an error.
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Answers with an error, and nodes that are down.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many nodes lie between us and `node`, as it was first named to us.
    pub fn hops(&self, node: &SocketAddrV4) -> u32 {
        self.seen.get(node).map_or(0, |seen| seen.hops)
    }

    fn add(&mut self, node: SocketAddrV4, by: Option<SocketAddrV4>) {
        if let Some(seen) = self.seen.get_mut(&node) {
            if let (State::Named(names), Some(by)) = (&mut seen.state, by)
                && names.len() < K
            {
                names.push(by);
            }
            return;
        }
        let distance = Id::of_node(node).distance(&self.target);
        if self.is_closer(&distance) && self.seen.len() < MAX_SEEN {
            let hops = by.map_or(0, |by| self.hops(&by) + 1);
            self.seen.insert(node, Seen { hops, state: State::Named(by.into_iter().collect()) });
            self.candidates.insert(distance, node);
        }
    }

    fn is_closer(&self, distance: &Distance) -> bool {
        self.closest.len() < K || self.closest.last().is_some_and(|(last, _)| distance < last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> SocketAddrV4 {
        SocketAddrV4::new(n.into(), 1)
    }

    fn reply(n: u32) -> Reply {
        let id = Some(Id::of_node(node(n)));
        Reply { from: node(n), id, to: node(0), token: None, error: 0, value: None, rtt: Duration::ZERO }
    }

    fn target() -> Id {
        Id::of(b"target")
    }

    /// All of 0..n, closest to the target first.
    fn sorted(n: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n).collect();
        all.sort_by_key(|n| Id::of_node(node(*n)).distance(&target()));
        all
    }

    fn number(node: SocketAddrV4) -> u32 {
        (*node.ip()).into()
    }

    #[test]
    fn the_twenty_closest_are_found_and_nobody_is_asked_twice() {
        let all = sorted(1_000);
        let mut walk = Walk::new(target(), &[]);
        assert!(walk.wants_table());
        walk.add_known(all[900..920].iter().map(|n| node(*n)));
        let mut asked = std::collections::HashSet::new();
        while !walk.is_done() {
            let next = walk.next_to_ask().expect("a walk that isn't done asks");
            assert!(asked.insert(next));
            // Everybody knows ten nodes, that are halfway to the target.
            let at = all.iter().position(|n| *n == number(next)).unwrap();
            let closer: Vec<_> = all[at / 2..].iter().take(10).map(|n| node(*n)).collect();
            walk.on_reply(&reply(number(next)), &closer);
        }
        let closest: Vec<_> = walk.closest().map(|reply| number(reply.from)).collect();
        assert_eq!(closest, all[..20]);
        assert!(asked.len() < 150, "{}", asked.len());
    }

    #[test]
    fn slow_nodes_are_not_waited_for_once_twenty_have_answered() {
        let mut walk = Walk::new(target(), &[]);
        walk.add_known(sorted(30).into_iter().map(node));
        let dead: Vec<_> = std::iter::from_fn(|| walk.next_to_ask()).collect();
        assert_eq!(dead.len(), 10);
        for _ in &dead {
            walk.on_slow();
        }
        while let Some(next) = walk.next_to_ask() {
            assert!(!walk.is_done());
            walk.on_reply(&reply(number(next)), &[]);
        }
        assert!(walk.is_done());
        assert_eq!(walk.closest().count(), 20);
    }

    #[test]
    fn with_few_answers_even_slow_nodes_are_waited_for_and_those_who_named_the_dead_are_told() {
        let mut walk = Walk::new(target(), &[]);
        walk.add_known([node(1)]);
        assert_eq!(walk.next_to_ask(), Some(node(1)));
        walk.on_reply(&reply(1), &[node(2)]);
        assert_eq!(walk.next_to_ask(), Some(node(2)));
        walk.on_slow();
        assert!(!walk.is_done());
        assert_eq!(walk.on_failure(node(2)), [node(1)]);
        walk.on_slow_end();
        assert!(walk.is_done());
    }

    #[test]
    fn old_nodes_that_are_gone_make_room_for_the_table() {
        let mut walk = Walk::new(target(), &[node(1), node(2)]);
        while let Some(next) = walk.next_to_ask() {
            walk.on_failure(next);
        }
        assert!(walk.wants_table() && !walk.is_done());
        walk.add_known([]);
        assert!(walk.is_done());
    }

    #[test]
    fn a_liar_does_not_keep_us_busy_for_ever() {
        let mut walk = Walk::new(target(), &[]);
        walk.add_known([node(0)]);
        let (mut asked, mut named) = (0, 0);
        while let Some(next) = walk.next_to_ask() {
            asked += 1;
            // It names new nodes in every answer, and none of them is one of the DHT.
            let closer: Vec<_> = (0..20).map(|n| node(1 + named + n)).collect();
            named += 20;
            walk.on_reply(&Reply { id: None, ..reply(number(next)) }, &closer);
        }
        assert!(walk.is_done() && asked <= MAX_SEEN);
    }
}
