//! Which topic to search next.
//!
//! An announcement lives for 20 minutes, and a search that renews it costs some 40 requests: with 10,000 topics that is all
//! that [`REQUESTS_PER_SECOND`] allows, and before the first time there's nothing to begin such a search with. So:
//!
//! 1. Who looks for somebody waits for no announcement.
//! 2. What would lapse comes before what was never announced; of these two each has every other turn.
//! 3. Otherwise the topic comes first that has waited longest.
//! 4. The first announcement at a topic begins with the nodes around the nearest topic that was searched before: of 10,000
//!    topics there's soon one in the same part of the DHT. That saves a third of its requests.
//! 5. A search is taken to cost the most that one costs, until it has ended and what it cost is known.

use super::{Event, Mark, Searched, Task, Ticket, TopicInfo};
use crate::dht::Id;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

/// A topic is searched again after so long, and up to two minutes.
const SEARCH_EVERY: Duration = Duration::from_secs(10 * 60);
const SPREAD: Duration = Duration::from_secs(2 * 60);
/// An announcement of this age is renewed before others are made: it lives for 20 minutes.
const OLD: Duration = Duration::from_secs(19 * 60 + 30);
/// Requests of searches that begin in a second, and so many more at once after a pause.
const REQUESTS_PER_SECOND: f64 = 400.0;
pub(super) const REQUESTS_AT_ONCE: f64 = 140.0;
/// What a search asks at most in a DHT of 10,000 hosts: on the way and of the closest 20 in the end; and when it begins
/// with those that were closest the last time.
const FIRST_SEARCH: usize = 68;
const NEXT_SEARCH: usize = 42;
/// A topic that has so many first bits in common is nearby: nodes there are closer than most that we know. So many topics on
/// both sides are looked at.
const NEARBY: usize = 6;
const NEIGHBOURS: usize = 16;

#[derive(Debug, Default)]
struct Topic {
    client: bool,
    server: bool,
    /// When it is searched next, unless it is searched now.
    due: Option<Duration>,
    search: Option<Search>,
    /// It was left, or changed, while it was searched.
    again: bool,
    /// Whether it was searched since it was joined.
    searched: bool,
    /// When that was, among all others.
    turn: u64,
    announced: Option<Duration>,
    /// Whether somebody may keep an announcement of ours.
    may_be_announced: bool,
    closest: Vec<SocketAddrV4>,
}

impl Topic {
    fn is_joined(&self) -> bool {
        self.client || self.server
    }
}

/// A search under way.
#[derive(Debug)]
struct Search {
    ticket: Ticket,
    /// Whether to announce us.
    announce: bool,
    /// Requests that it is taken to cost.
    cost: usize,
}

/// All topics, and when they're searched.
#[derive(Debug)]
pub(super) struct Searches {
    topics: BTreeMap<Id, Topic>,
    /// Topics in the order in which they are to be searched.
    due: BTreeSet<(Duration, Id)>,
    /// Those of them that are announced, the oldest announcement first.
    announced: BTreeSet<(Duration, Id)>,
    /// Whether what would lapse had its turn.
    renewed: bool,
    out: VecDeque<Task>,
    rng: StdRng,
    tickets: u64,
    turn: u64,
    credit: f64,
    credit_at: Duration,
    suspended: bool,
}

impl Searches {
    pub fn new(now: Duration, rng: StdRng) -> Self {
        Searches {
            topics: BTreeMap::new(),
            due: BTreeSet::new(),
            announced: BTreeSet::new(),
            renewed: false,
            out: VecDeque::new(),
            rng,
            tickets: 0,
            turn: 0,
            credit: REQUESTS_AT_ONCE,
            credit_at: now,
            suspended: false,
        }
    }

    pub fn poll(&mut self) -> Option<Task> {
        self.out.pop_front()
    }

    pub fn join(&mut self, now: Duration, id: Id, client: bool, server: bool) {
        let topic = self.topics.entry(id).or_default();
        (topic.client, topic.server) = (client, server);
        (topic.searched, topic.turn) = (false, self.turn);
        topic.again = topic.search.is_some();
        self.schedule_first(id, now);
        self.tick(now);
    }

    pub fn leave(&mut self, now: Duration, id: &Id) {
        if let Some(topic) = self.topics.get_mut(id) {
            (topic.client, topic.server) = (false, false);
            topic.again = topic.search.is_some();
            self.schedule(*id, now);
        }
        self.tick(now);
    }

    pub fn is_client(&self, topic: &Id) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.client)
    }

    pub fn announced(&self, topic: &Id) -> Option<Duration> {
        self.topics.get(topic)?.announced
    }

    pub fn is_searching(&self, topic: &Id) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.search.is_some() || !topic.searched)
    }

    pub fn all(&self, now: Duration) -> impl Iterator<Item = TopicInfo> {
        self.topics.iter().filter(|(_, topic)| topic.is_joined()).map(move |(id, topic)| TopicInfo {
            topic: *id,
            client: topic.client,
            server: topic.server,
            searching: topic.search.is_some() || !topic.searched,
            announced: topic.announced.map(|at| now.saturating_sub(at)),
        })
    }

    pub fn mark(&mut self) -> Mark {
        self.turn += 1;
        Mark(self.turn)
    }

    pub fn are_searched(&self, mark: Mark) -> bool {
        self.topics.values().all(|topic| topic.searched || !topic.is_joined() || topic.turn >= mark.0)
    }

    pub fn on_end(&mut self, now: Duration, ticket: Ticket, id: &Id, found: Searched) {
        let spread = SPREAD.mul_f64(self.rng.random());
        let Some(topic) = self.topics.get_mut(id) else { return };
        // It was stopped, but had ended before.
        let Some(search) = topic.search.take_if(|search| search.ticket == ticket) else { return };
        self.credit += search.cost as f64 - found.requests as f64;
        topic.searched = !topic.again;
        // An old announcement that nobody renews lapses, and waits like the others: else it would be renewed again and again.
        let before = topic.announced.filter(|at| search.announce && now < *at + OLD);
        topic.announced = if found.announced { Some(now) } else { before };
        topic.may_be_announced = search.announce;
        topic.closest = found.closest;
        let again = std::mem::take(&mut topic.again);
        self.out.push_back(Task::Tell(Event::Searched { topic: *id, announced: found.announced }));
        match (topic.is_joined() || topic.may_be_announced, again) {
            (false, _) => _ = self.topics.remove(id),
            (true, true) => self.schedule_first(*id, now),
            (true, false) => self.schedule(*id, now + SEARCH_EVERY + spread),
        }
        self.tick(now);
    }

    pub fn suspend(&mut self) -> Vec<(Id, Vec<SocketAddrV4>)> {
        self.suspended = true;
        self.announced.clear();
        let mut announced = Vec::new();
        for (id, topic) in &mut self.topics {
            topic.again = false;
            if let Some(search) = topic.search.take() {
                self.out.push_back(Task::StopSearching(search.ticket));
            }
            let last = topic.announced.take();
            if topic.may_be_announced {
                announced.push((last, *id, topic.closest.clone()));
            }
        }
        announced.sort_by_key(|(last, ..)| std::cmp::Reverse(*last));
        announced.into_iter().map(|(_, id, closest)| (id, closest)).collect()
    }

    pub fn resume(&mut self) {
        self.suspended = false;
    }

    pub fn refresh(&mut self, now: Duration) {
        for id in self.topics.keys().copied().collect::<Vec<_>>() {
            if let Some(topic) = self.topics.get_mut(&id).filter(|topic| topic.searched) {
                (topic.searched, topic.turn) = (false, self.turn);
            }
            self.schedule_first(id, now);
        }
        self.tick(now);
    }

    pub fn next_tick(&self) -> Option<Duration> {
        if self.suspended {
            return None;
        }
        let first = self.due.first().map(|(due, _)| *due);
        let oldest = self.announced.first().map(|(at, _)| *at + OLD);
        let next = first.into_iter().chain(oldest).min()?;
        let (_, id) = self.next(next.max(self.credit_at))?;
        let wait = (self.cost(&id) as f64 - self.credit).max(0.0) / REQUESTS_PER_SECOND;
        Some(next.max(self.credit_at + Duration::from_secs_f64(wait)))
    }

    pub fn tick(&mut self, now: Duration) {
        if self.suspended {
            return;
        }
        let passed = now.saturating_sub(self.credit_at).as_secs_f64();
        self.credit = (self.credit + passed * REQUESTS_PER_SECOND).min(REQUESTS_AT_ONCE);
        self.credit_at = self.credit_at.max(now);
        while let Some((due, id)) = self.next(now) {
            let cost = self.cost(&id);
            if self.credit < cost as f64 {
                return;
            }
            self.due.remove(&(due, id));
            let Some(topic) = self.topics.get_mut(&id) else { continue };
            topic.due = None;
            if let Some(at) = topic.announced {
                self.announced.remove(&(at, id));
                self.renewed = at + OLD <= now;
            } else {
                self.renewed = false;
            }
            self.begin(id, cost);
        }
    }

    /// What is to be searched next, if anything is due.
    fn next(&self, now: Duration) -> Option<(Duration, Id)> {
        let first = self.due.first().copied().filter(|(due, _)| *due <= now);
        let old = self.announced.first().filter(|(at, _)| *at + OLD <= now);
        let old = old.and_then(|(_, id)| Some((self.topics.get(id)?.due?, *id)));
        let is_sought = first.is_some_and(|(due, _)| due.is_zero());
        if is_sought && self.renewed { first } else { old.or(first) }
    }

    fn begin(&mut self, id: Id, cost: usize) {
        let nodes = self.nodes(&id);
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if !topic.is_joined() && !topic.may_be_announced {
            self.topics.remove(&id);
            return;
        }
        self.credit -= cost as f64;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        topic.search = Some(Search { ticket, announce: topic.server, cost });
        // The first time there may be an announcement of an earlier run; without a server, of this one.
        let clear = if topic.server { topic.announced.is_none() } else { topic.may_be_announced };
        topic.may_be_announced |= topic.server;
        self.out.push_back(Task::Search { ticket, topic: id, announce: topic.server, clear, nodes });
    }

    /// The nodes to begin a search with.
    fn nodes(&self, id: &Id) -> Vec<SocketAddrV4> {
        match self.topics.get(id) {
            Some(topic) if !topic.closest.is_empty() => topic.closest.clone(),
            // Who looks for somebody would rather ask many at once than few.
            Some(topic) if !topic.client => self.nodes_nearby(id).to_vec(),
            _ => Vec::new(),
        }
    }

    /// The nodes that are closest to a topic nearby, if one was searched. In order, those are next to each other that have
    /// the most first bits in common.
    fn nodes_nearby(&self, id: &Id) -> &[SocketAddrV4] {
        let is_known = |(_, topic): &(&Id, &Topic)| !topic.closest.is_empty();
        let before = self.topics.range(..id).rev().take(NEIGHBOURS).find(is_known);
        let after = self.topics.range(id..).skip(1).take(NEIGHBOURS).find(is_known);
        let nearest = before.into_iter().chain(after).max_by_key(|(other, _)| id.shared_bits(other));
        nearest.filter(|(other, _)| id.shared_bits(other) >= NEARBY).map_or(&[], |(_, topic)| &topic.closest)
    }

    /// Requests that a search of a topic takes at most.
    fn cost(&self, id: &Id) -> usize {
        let is_first = self.topics.get(id).is_none_or(|topic| topic.closest.is_empty());
        if is_first { FIRST_SEARCH } else { NEXT_SEARCH }
    }

    /// Lets a topic be searched now, unless that is done: before all others if somebody is looked for.
    fn schedule_first(&mut self, id: Id, now: Duration) {
        let is_client = self.is_client(&id);
        self.schedule(id, if is_client { Duration::ZERO } else { now });
    }

    /// Lets a topic be searched at `at`, unless it is searched now.
    fn schedule(&mut self, id: Id, at: Duration) {
        let Some(topic) = self.topics.get_mut(&id).filter(|topic| topic.search.is_none()) else { return };
        if let Some(before) = topic.due.replace(at) {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
        match topic.announced {
            Some(announced) if topic.server => _ = self.announced.insert((announced, id)),
            Some(announced) => _ = self.announced.remove(&(announced, id)),
            None => {}
        }
    }
}
