//! A whole DHT in one thread: thousands of the shipped nodes with a simulated clock and network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use datdot_hyperswarm::dht::bootstrap::Entry;
use datdot_hyperswarm::dht::handshake::{Handshake, Mode};
use datdot_hyperswarm::dht::nat::Outside;
use datdot_hyperswarm::dht::node::{Call, Outcome, SearchId};
use datdot_hyperswarm::dht::packet::Command;
use datdot_hyperswarm::dht::record::Peers;
use datdot_hyperswarm::dht::{Action, Commit, Config, Event, Id, Identity, Node, Role, Search, Socket};
use datdot_hyperswarm::swarm::Limits;
use datdot_hyperswarm::swarm::crowd::{Crowd, Searched, Task, Ticket};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::SocketAddrV4;
use std::time::Duration;

const SERVER: u16 = 49_737;
const CLIENT: u16 = 50_000;

/// What happens when.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Arrive { to: SocketAddrV4, from: SocketAddrV4, datagram: Vec<u8> },
    Tick(usize),
}

struct World {
    now: Duration,
    rng: StdRng,
    nodes: Vec<Option<Node>>,
    queue: BinaryHeap<Reverse<(Duration, u64, Next)>>,
    order: u64,
    /// When each node wants its next tick.
    ticks: Vec<Duration>,
    finished: HashMap<(usize, SearchId), Outcome>,
    found: HashMap<(usize, SearchId), Vec<Peers>>,
    /// Who was called, and with what.
    calls: Vec<(usize, Call)>,
    datagrams: u64,
    /// Share of datagrams that are lost.
    loss: f64,
    /// What the DNS knows.
    dns: HashMap<String, SocketAddrV4>,
    /// Nodes behind firewalls, and whom each of their ports has sent something: nobody else gets through to it.
    firewalls: HashMap<usize, HashSet<(u16, SocketAddrV4)>>,
}

/// Node `n` is alone at its public address.
fn host_of(n: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new((0x0800_0000 + n as u32).into(), port)
}

fn number_of(address: SocketAddrV4) -> usize {
    (u32::from(*address.ip()) - 0x0800_0000) as usize
}

impl World {
    fn new(seed: u64) -> World {
        World {
            now: Duration::from_secs(1_700_000_000),
            rng: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            ticks: Vec::new(),
            finished: HashMap::new(),
            found: HashMap::new(),
            calls: Vec::new(),
            datagrams: 0,
            loss: 0.0,
            dns: HashMap::new(),
            firewalls: HashMap::new(),
        }
    }

    /// `count` hosts that begin with some who are there, a few at a time.
    fn of_hosts(seed: u64, count: usize) -> World {
        let mut world = World::new(seed);
        for n in 0..count {
            world.begin(Role::Host, n == 0);
            if n % 16 == 0 {
                world.run(Duration::from_millis(500));
            }
        }
        world.run(Duration::from_secs(30));
        world
    }

    fn begin(&mut self, role: Role, first: bool) -> usize {
        let n = self.nodes.len();
        let bootstrap = if first {
            Vec::new()
        } else {
            (0..3).map(|_| host_of(self.rng.random_range(0..n.min(8)), SERVER)).collect()
        };
        let address = first.then(|| host_of(n, SERVER));
        self.begin_as(Config { bootstrap, role, firewalled: role == Role::Guest, address, ..Config::default() })
    }

    fn begin_as(&mut self, config: Config) -> usize {
        let n = self.nodes.len();
        let node = Node::new(config, SERVER, self.now, self.rng.random());
        self.nodes.push(Some(node));
        self.ticks.push(Duration::MAX);
        self.act(n);
        n
    }

    /// The same, where only answers come in.
    fn begin_behind_firewall(&mut self, config: Config) -> usize {
        self.firewalls.insert(self.nodes.len(), HashSet::new());
        self.begin_as(config)
    }

    fn push(&mut self, at: Duration, next: Next) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, next)));
    }

    /// Does what a node wants done.
    fn act(&mut self, n: usize) {
        while let Some(action) = self.nodes[n].as_mut().and_then(Node::poll) {
            match action {
                Action::Send { socket, to, datagram } => {
                    self.datagrams += 1;
                    let from = host_of(n, if socket == Socket::Server { SERVER } else { CLIENT });
                    if let Some(sent) = self.firewalls.get_mut(&n) {
                        sent.insert((from.port(), to));
                    }
                    if self.loss > 0.0 && self.rng.random_bool(self.loss) {
                        continue;
                    }
                    let delay = Duration::from_millis(self.rng.random_range(10..60));
                    self.push(self.now + delay, Next::Arrive { to, from, datagram });
                }
                Action::Tell(Event::Finished { search, outcome }) => _ = self.finished.insert((n, search), outcome),
                Action::Tell(Event::Found { search, reply }) => {
                    if let Some(Ok(peers)) = reply.value.as_deref().map(Peers::decode) {
                        self.found.entry((n, search)).or_default().push(peers);
                    }
                }
                Action::Tell(Event::Call(call)) => self.calls.push((n, call)),
                Action::Tell(_) => {}
                Action::Resolve(names) => {
                    let found: Vec<_> = names.iter().filter_map(|name| self.dns.get(&name.host)).copied().collect();
                    self.nodes[n].as_mut().unwrap().on_resolved(self.now, &found);
                }
            }
        }
        let Some(next) = self.nodes[n].as_ref().map(Node::next_tick) else { return };
        if next < self.ticks[n] {
            self.ticks[n] = next;
            self.push(next, Next::Tick(n));
        }
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, next))) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        let n = match &next {
            Next::Arrive { to, .. } => number_of(*to),
            Next::Tick(n) => *n,
        };
        let Some(node) = self.nodes.get_mut(n).and_then(Option::as_mut) else { return };
        match next {
            Next::Arrive { to, from, .. }
                if self.firewalls.get(&n).is_some_and(|sent| !sent.contains(&(to.port(), from))) =>
            {
                return;
            }
            Next::Arrive { to, from, datagram } => {
                let socket = if to.port() == SERVER { Socket::Server } else { Socket::Client };
                node.receive(self.now, socket, from, &datagram);
            }
            Next::Tick(_) => {
                // An earlier wish for a tick may have been replaced by a still earlier one.
                if at < self.ticks[n] {
                    return;
                }
                self.ticks[n] = Duration::MAX;
                node.tick(self.now);
                self.act(n);
                let next = self.nodes[n].as_ref().unwrap().next_tick();
                assert!(next > self.now, "whoever has done what was due isn't busy");
                return;
            }
        }
        self.act(n);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets node `n` search, and returns the outcome and how long it took.
    fn search(&mut self, n: usize, search: Search) -> (Outcome, Duration, Vec<Peers>) {
        let began = self.now;
        let id = self.nodes[n].as_mut().unwrap().search(self.now, search);
        self.act(n);
        loop {
            if let Some(outcome) = self.finished.remove(&(n, id)) {
                return (outcome, self.now - began, self.found.remove(&(n, id)).unwrap_or_default());
            }
            assert!(self.now < began + Duration::from_secs(120), "a search ends");
            self.step();
        }
    }

    fn kill(&mut self, share: f64, keep: &[usize]) {
        for n in 8..self.nodes.len() {
            if !keep.contains(&n) && self.rng.random_bool(share) {
                self.nodes[n] = None;
            }
        }
    }

    /// The true closest host that lives.
    fn closest(&self, target: &Id) -> Id {
        let alive = (0..self.nodes.len()).filter(|n| self.nodes[*n].as_ref().is_some_and(|node| node.reach().host));
        alive.map(|n| Id::of_node(host_of(n, SERVER))).min_by_key(|id| id.distance(target)).unwrap()
    }
}

fn identity(n: u16) -> Identity {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_le_bytes());
    Identity::from_seed(&seed)
}

fn announce(topic: Id, n: u16) -> Search {
    let commit = Commit::Announce { identity: identity(n), relays: Vec::new(), bump: 0, at: 20 };
    Search { commit, ..Search::new(topic, Command::Lookup) }
}

/// Announces `count` topics, lets 30 % of the hosts vanish, and counts those that are still found.
fn found_after_a_third_is_gone(hosts: usize, count: u16, loss: f64) -> usize {
    let mut world = World::of_hosts(7, hosts);
    let guest = world.begin(Role::Guest, false);
    world.run(Duration::from_secs(10));
    world.loss = loss;
    let topics: Vec<Id> = (0..count).map(|n| Id::of(&n.to_le_bytes())).collect();
    for (n, topic) in topics.iter().enumerate() {
        let (outcome, ..) = world.search(guest, announce(*topic, n as u16));
        assert!(outcome.committed.len() >= 15, "{} nodes keep it", outcome.committed.len());
    }
    world.kill(0.3, &[guest]);
    let reader = world.begin(Role::Guest, false);
    world.run(Duration::from_secs(10));
    let mut slowest = Duration::ZERO;
    let mut found = 0;
    for (n, topic) in topics.iter().enumerate() {
        let (_, time, peers) = world.search(reader, Search::new(*topic, Command::Lookup));
        slowest = slowest.max(time);
        let key = identity(n as u16).public();
        found += usize::from(peers.iter().any(|peers| peers.peers.iter().any(|peer| peer.key == key)));
    }
    println!("{found} of {count} topics found with 30 % of {hosts} nodes gone, the slowest in {slowest:?}");
    found
}

#[test]
fn everything_is_found_with_30_percent_of_the_nodes_gone() {
    assert_eq!(found_after_a_third_is_gone(3_000, 40, 0.0), 40);
}

#[test]
fn everything_is_found_on_a_network_that_loses_5_percent() {
    assert_eq!(found_after_a_third_is_gone(1_000, 40, 0.05), 40);
}

#[test]
fn a_guest_becomes_a_host_after_twenty_minutes_and_a_guest_again_after_a_sleep() {
    let mut world = World::of_hosts(3, 40);
    let n = world.nodes.len();
    world.begin(Role::Guest, false);
    let config = Config { bootstrap: vec![host_of(0, SERVER)], ..Config::default() };
    world.nodes[n] = Some(Node::new(config, SERVER, world.now, [5; 32]));
    world.ticks[n] = Duration::MAX;
    world.act(n);
    world.run(Duration::from_secs(60));
    let reach = world.nodes[n].as_ref().unwrap().reach();
    assert!(!reach.firewalled && !reach.host, "strangers reach it: {reach:?}");
    world.run(Duration::from_secs(18 * 60));
    assert!(!world.nodes[n].as_ref().unwrap().reach().host);
    world.run(Duration::from_secs(3 * 60));
    let node = world.nodes[n].as_ref().unwrap();
    assert_eq!(node.id(), Some(Id::of_node(host_of(n, SERVER))));
    // Others know it now, and name it.
    world.run(Duration::from_secs(60));
    let (outcome, ..) = world.search(5, Search::new(Id::of_node(host_of(n, SERVER)), Command::FindNode));
    assert_eq!(outcome.closest[0].from, host_of(n, SERVER));

    // An hour passes in which it hears nothing and isn't run.
    let node = world.nodes[n].as_mut().unwrap();
    let later = world.now + Duration::from_secs(3_600);
    node.tick(later);
    assert!(!node.reach().host);
}

#[test]
fn a_firewalled_node_finds_that_out_and_stays_a_guest_that_looks_up_announces_and_is_called_through_relays() {
    let mut world = World::of_hosts(12, 60);
    let config = |role| Config { bootstrap: vec![host_of(0, SERVER)], role, ..Config::default() };
    let nodes = [Role::Adaptive, Role::Host].map(|role| world.begin_behind_firewall(config(role)));
    let open = world.begin_as(config(Role::Adaptive));
    // Longer than it takes to become a host, and to try again.
    world.run(Duration::from_secs(90 * 60));
    assert!(world.nodes[open].as_ref().unwrap().reach().host, "without the firewall it is one");
    for n in nodes {
        let node = world.nodes[n].as_ref().unwrap();
        let (reach, outside) = (node.reach(), host_of(n, CLIENT));
        assert!(reach.firewalled && !reach.host && node.id().is_none(), "{reach:?}");
        assert_eq!((reach.outside, node.open_address()), (Some(Outside::Address(outside)), None));
        assert!(node.is_online() && node.known() > 20);
        // Nobody names it.
        for host in world.nodes.iter().flatten() {
            let contacts = host.contacts(usize::MAX);
            assert!(contacts.iter().all(|contact| contact.ip() != outside.ip()), "{contacts:?}");
        }
    }
    let [n, _] = nodes;
    let topic = Id([0x55; 32]);
    let (outcome, ..) = world.search(n, announce(topic, 3));
    assert_eq!(outcome.committed.len(), 20);
    let reader = world.begin(Role::Guest, false);
    world.run(Duration::from_secs(10));
    for by in [reader, n] {
        let (_, _, peers) = world.search(by, Search::new(topic, Command::Lookup));
        assert!(peers.iter().any(|peers| peers.peers.iter().any(|peer| peer.key == identity(3).public())));
    }
    let server = identity(4);
    let now = world.now;
    world.nodes[n].as_mut().unwrap().listen(now, &server);
    world.act(n);
    world.run(Duration::from_secs(5));
    let relays = world.nodes[n].as_ref().unwrap().relays(&server.public());
    assert_eq!(relays.len(), 3);
    for relay in relays {
        let way = world.nodes[number_of(relay)].as_ref().unwrap().route(&Id::of(&server.public()));
        assert_eq!(way, Some(host_of(n, CLIENT)));
    }
    let value = Handshake { mode: Mode::FromClient, noise: b"call", peer: None, relay: None }.encode();
    let now = world.now;
    let relay = world.nodes[n].as_ref().unwrap().relays(&server.public())[0];
    let target = Some(Id::of(&server.public()));
    world.nodes[reader].as_mut().unwrap().ask(now, relay, Command::PeerHandshake, target, None, Some(&value));
    world.act(reader);
    world.run(Duration::from_secs(1));
    let [(called, call)] = &world.calls[..] else { panic!("one call") };
    assert_eq!((*called, &call.noise[..]), (n, &b"call"[..]));
    assert_eq!(call.counts_for, *host_of(reader, SERVER).ip(), "its own relay is believed who called");
}

#[test]
fn a_server_finds_other_relays_when_its_own_vanish() {
    let mut world = World::of_hosts(4, 60);
    let server = world.begin(Role::Guest, false);
    world.run(Duration::from_secs(5));
    let identity = identity(1);
    let target = Id::of(&identity.public());
    let now = world.now;
    world.nodes[server].as_mut().unwrap().listen(now, &identity);
    world.act(server);
    world.run(Duration::from_secs(5));
    let relays = |world: &World| {
        let mut relays = world.nodes[server].as_ref().unwrap().relays(&identity.public());
        assert_eq!(relays.len(), 3);
        assert_eq!(relays.remove(0), host_of(server, SERVER), "strangers reach it");
        relays
    };
    let first = relays(&world);
    for relay in &first {
        assert_eq!(world.nodes[number_of(*relay)].as_ref().unwrap().route(&target), Some(host_of(server, SERVER)));
        world.nodes[number_of(*relay)] = None;
    }
    world.run(Duration::from_secs(30));
    let second = relays(&world);
    assert!(second.iter().all(|relay| !first.contains(relay)));

    let now = world.now;
    world.nodes[server].as_mut().unwrap().unlisten(now, &identity.public());
    world.act(server);
    world.run(Duration::from_secs(2));
    for relay in second {
        assert_eq!(world.nodes[number_of(relay)].as_ref().unwrap().route(&target), None, "it said farewell");
    }
}

#[test]
fn a_server_notices_that_it_is_offline_and_announces_itself_when_it_is_back() {
    let mut world = World::of_hosts(5, 40);
    let server = world.begin(Role::Guest, false);
    let identity = identity(1);
    let now = world.now;
    world.nodes[server].as_mut().unwrap().listen(now, &identity);
    world.act(server);
    world.run(Duration::from_secs(60));
    let is_online = |world: &World| world.nodes[server].as_ref().unwrap().is_online();
    assert!(is_online(&world));
    world.loss = 1.0;
    world.run(Duration::from_secs(40));
    assert!(!is_online(&world));
    assert_eq!(world.nodes[server].as_ref().unwrap().relays(&identity.public()).len(), 1, "its own address");
    world.loss = 0.0;
    world.run(Duration::from_secs(40));
    assert!(is_online(&world));
    assert_eq!(world.nodes[server].as_ref().unwrap().relays(&identity.public()).len(), 3);
}

#[test]
fn names_are_looked_up_when_there_is_nobody_else_or_nobody_else_answers() {
    let mut world = World::of_hosts(6, 30);
    world.dns.insert("node.example".into(), host_of(0, SERVER));
    let gone = host_of(9_999, SERVER);
    for entry in ["node.example:49737".parse().unwrap(), format!("{}@node.example:49737", gone.ip()).parse().unwrap()] {
        let entry: Entry = entry;
        let n = world.begin_as(Config::default().begin_with([entry]));
        world.run(Duration::from_secs(40));
        assert!(world.nodes[n].as_ref().unwrap().known() > 10);
    }
    // The DNS is asked again as long as it knows nothing.
    world.dns.clear();
    let n = world.begin_as(Config::default().begin_with(["node.example:49737".parse().unwrap()]));
    world.run(Duration::from_secs(10));
    assert_eq!(world.nodes[n].as_ref().unwrap().known(), 0);
    world.dns.insert("node.example".into(), host_of(0, SERVER));
    world.run(Duration::from_secs(70));
    let node = world.nodes[n].as_ref().unwrap();
    assert!(node.known() > 10 && !node.reach().firewalled, "it found out late that strangers reach it");
}

#[test]
fn in_another_network_everything_is_found_out_anew() {
    let mut world = World::of_hosts(8, 60);
    let n = world.begin_as(Config { bootstrap: vec![host_of(0, SERVER)], ..Config::default() });
    let identity = identity(1);
    let now = world.now;
    world.nodes[n].as_mut().unwrap().listen(now, &identity);
    world.act(n);
    world.run(Duration::from_secs(22 * 60));
    assert!(world.nodes[n].as_ref().unwrap().reach().host);
    let now = world.now;
    world.nodes[n].as_mut().unwrap().on_network_change(now);
    world.act(n);
    let reach = world.nodes[n].as_ref().unwrap().reach();
    assert!(!reach.host && reach.firewalled && reach.outside.is_none(), "{reach:?}");
    world.run(Duration::from_secs(10));
    let node = world.nodes[n].as_ref().unwrap();
    assert!(!node.reach().firewalled && node.open_address() == Some(host_of(n, SERVER)));
    assert_eq!(node.relays(&identity.public()).len(), 3);
}

/// What is on its way to where node `n` was, or comes from there, is lost.
fn move_away(world: &mut World, n: usize) {
    let now = world.now;
    world.nodes[n].as_mut().unwrap().on_network_change(now);
    world.act(n);
    let is_its = |address: SocketAddrV4| number_of(address) == n;
    world.queue.retain(|Reverse((.., next))| match next {
        Next::Arrive { to, from, .. } => !is_its(*to) && !is_its(*from),
        Next::Tick(_) => true,
    });
}

#[test]
fn who_moves_while_it_finds_out_whether_it_is_reached_finds_it_out_again() {
    let config = || Config { bootstrap: vec![host_of(0, SERVER)], ..Config::default() };
    let is_reached = |world: &World, n: usize| !world.nodes[n].as_ref().unwrap().reach().firewalled;
    // While it begins.
    let mut world = World::of_hosts(8, 60);
    for step in 0..30 {
        let n = world.begin_as(config());
        world.run(step * Duration::from_millis(25));
        move_away(&mut world, n);
        world.run(Duration::from_secs(60));
        assert!(is_reached(&world, n), "{step}");
    }
    // When it tries to become a host; behind the firewall there nobody answers.
    let nodes: Vec<usize> = (0..12)
        .map(|_| {
            world.run(Duration::from_secs(1));
            world.begin_behind_firewall(config())
        })
        .collect();
    world.run(Duration::from_secs(20 * 60));
    for n in &nodes {
        assert!(!is_reached(&world, *n));
        world.firewalls.remove(n);
        move_away(&mut world, *n);
    }
    world.run(Duration::from_secs(60));
    assert!(nodes.iter().all(|n| is_reached(&world, *n)), "some are not reached");
}

#[test]
fn who_knows_hosts_of_an_earlier_run_but_begins_without_network_finds_out_soon_that_it_is_reached() {
    for seconds in [5, 30, 100] {
        let mut world = World::of_hosts(10, 60);
        world.loss = 1.0;
        let known = (1..60).map(|n| host_of(n, SERVER)).collect();
        let n = world.begin_as(Config { bootstrap: vec![host_of(0, SERVER)], known, ..Config::default() });
        world.run(Duration::from_secs(seconds));
        world.loss = 0.0;
        world.run(Duration::from_secs(120));
        let reach = world.nodes[n].as_ref().unwrap().reach();
        assert!(!reach.firewalled, "{seconds}: {reach:?}");
    }
}

#[test]
fn who_knows_only_hosts_that_are_gone_begins_with_those_that_everybody_knows() {
    let mut world = World::of_hosts(10, 60);
    let known = (1_000..1_100).map(|n| host_of(n, SERVER)).collect();
    let n = world.begin_as(Config { bootstrap: vec![host_of(0, SERVER)], known, ..Config::default() });
    world.run(Duration::from_secs(30));
    assert!(!world.nodes[n].as_ref().unwrap().reach().firewalled);
}

#[test]
fn a_suspended_node_is_silent_and_goes_on_afterwards() {
    let mut world = World::of_hosts(9, 40);
    let n = world.begin(Role::Guest, false);
    let identity = identity(1);
    let now = world.now;
    world.nodes[n].as_mut().unwrap().listen(now, &identity);
    world.act(n);
    world.run(Duration::from_secs(10));
    // It says farewell, then nothing.
    let target = Id::of(&identity.public());
    let knows = |world: &World| world.nodes.iter().flatten().filter(|node| node.route(&target).is_some()).count();
    assert_eq!(knows(&world), 3);
    let now = world.now;
    world.nodes[n].as_mut().unwrap().pause(now, &identity.public());
    world.act(n);
    world.run(Duration::from_secs(2));
    assert_eq!(knows(&world), 0);
    world.nodes[n].as_mut().unwrap().suspend();
    for _ in 0..60 {
        let (now, from) = (world.now, host_of(1, SERVER));
        let node = world.nodes[n].as_mut().unwrap();
        node.tick(now);
        node.receive(now, Socket::Server, from, b"\x03\x04\x00\x00\x08\x08\x08\x08\x01\x00\x00");
        node.search(now, Search::new(Id([3; 32]), Command::FindNode));
        assert!(!std::iter::from_fn(|| node.poll()).any(|action| matches!(action, Action::Send { .. })));
        world.run(Duration::from_secs(60));
    }
    let now = world.now;
    let node = world.nodes[n].as_mut().unwrap();
    node.resume(now);
    node.listen_again(now, &identity.public());
    world.act(n);
    world.run(Duration::from_secs(20));
    assert_eq!(knows(&world), 3);
    assert_eq!(world.finished.keys().filter(|(node, _)| *node == n).count(), 60, "what was wished meanwhile is done");
}

/// What the first announcements at many topics cost, and when all are made.
#[derive(Debug, Default)]
struct Round {
    /// Searches that began with nodes of the routing table, and their requests.
    alone: (usize, usize),
    /// Searches that began with the nodes around another topic, and their requests.
    nearby: (usize, usize),
    /// Those that renew.
    again: (usize, usize),
    /// When the last one was announced for the first time.
    took: Duration,
    /// The longest time from an announcement to its renewal.
    longest: Duration,
    /// First announcements that reached the host that is closest of all.
    closest: usize,
}

/// A swarm announces `count` topics over a node, for as long as `time`.
fn announce_all(world: &mut World, n: usize, count: u32, time: Duration) -> Round {
    let began = world.now;
    let identity = identity(1);
    let mut crowd = Crowd::new(identity.public(), Limits::default(), began, [1; 32]);
    for n in 0..count {
        crowd.join(began, Id::of(&n.to_le_bytes()), false, true);
    }
    let mut hosts: Vec<Id> = (0..world.nodes.len()).map(|n| Id::of_node(host_of(n, SERVER))).collect();
    hosts.truncate(n);
    let mut round = Round::default();
    let mut searches: HashMap<SearchId, (Ticket, Id, bool)> = HashMap::new();
    let mut last: HashMap<Id, Duration> = HashMap::new();
    while world.now < began + time {
        while let Some(task) = crowd.poll() {
            let Task::Search { ticket, topic, clear, nodes, .. } = task else { continue };
            let is_alone = nodes.is_empty();
            let clear = clear.then(|| identity.clone());
            let search = Search { nodes, clear, ..announce(topic, 1) };
            let now = world.now;
            let id = world.nodes[n].as_mut().unwrap().search(now, search);
            searches.insert(id, (ticket, topic, is_alone));
            world.act(n);
        }
        let next = world.queue.peek().map_or(Duration::MAX, |Reverse((at, ..))| *at);
        match crowd.next_tick().filter(|at| *at <= next) {
            Some(at) => {
                world.now = world.now.max(at) + Duration::from_micros(1);
                crowd.tick(world.now);
            }
            None => world.step(),
        }
        for ((_, id), outcome) in world.finished.drain() {
            let Some((ticket, topic, is_alone)) = searches.remove(&id) else { continue };
            let before = last.insert(topic, world.now);
            let kind = match (before, is_alone) {
                (Some(_), _) => &mut round.again,
                (None, true) => &mut round.alone,
                (None, false) => &mut round.nearby,
            };
            *kind = (kind.0 + 1, kind.1 + outcome.requests);
            match before {
                Some(before) => round.longest = round.longest.max(world.now - before),
                None => {
                    round.took = world.now - began;
                    let truth = hosts.iter().min_by_key(|id| id.distance(&topic)).unwrap();
                    let is_there = |node: &SocketAddrV4| Id::of_node(*node) == *truth;
                    round.closest += usize::from(outcome.committed.iter().any(is_there));
                }
            }
            let closest = outcome.closest.iter().map(|reply| reply.from).collect();
            let found = Searched { announced: !outcome.committed.is_empty(), closest, requests: outcome.requests };
            crowd.on_search_end(world.now, ticket, &topic, found);
        }
        world.found.clear();
    }
    assert_eq!(last.len(), count as usize, "each was announced");
    round
}

/// For docs/hyperswarm-dht.md, as below.
#[test]
#[ignore = "takes minutes: run it by name"]
fn what_it_costs_to_announce_many_topics() {
    for (hosts, topics) in [(1_000, 1_000), (3_000, 3_000)] {
        let mut world = World::of_hosts(11, hosts);
        let guest = world.begin(Role::Guest, false);
        world.run(Duration::from_secs(10));
        let round = announce_all(&mut world, guest, topics, Duration::from_secs(40 * 60));
        let mean =
            |(count, requests): (usize, usize)| format!("{count} × {:.1}", requests as f64 / count.max(1) as f64);
        println!("{hosts} hosts, {topics} topics: {round:?}");
        println!("alone {}, nearby {}, again {}", mean(round.alone), mean(round.nearby), mean(round.again));
    }
}

/// How far a search has to go, for docs/hyperswarm-dht.md:
/// `cargo test --release -p datdot-hyperswarm --test dht_network -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes: run it by name"]
fn hops_grow_with_the_logarithm_of_the_number_of_nodes() {
    println!("|  nodes | contacts | hops, mean | hops, most | nodes asked | time, mean | closest found |");
    println!("|-------:|---------:|-----------:|-----------:|------------:|-----------:|--------------:|");
    let mut means = Vec::new();
    for nodes in [100, 300, 1_000, 3_000, 10_000] {
        let mut world = World::of_hosts(11, nodes);
        let contacts: usize = world.nodes.iter().flatten().map(Node::known).sum::<usize>() / nodes;
        let searches = 200;
        let (mut hops, mut most, mut asked, mut time, mut closest) = (0, 0, 0, Duration::ZERO, 0);
        for n in 0..searches {
            let from = world.rng.random_range(0..nodes);
            let target = Id::of(format!("target {n}").as_bytes());
            let (outcome, took, _) = world.search(from, Search::new(target, Command::FindNode));
            // The node that searches doesn't ask itself.
            let own = Id::of_node(host_of(from, SERVER));
            let truth = world.closest(&target);
            closest += usize::from(truth == own || outcome.closest[0].id == Some(truth));
            hops += outcome.hops;
            most = most.max(outcome.hops);
            asked += outcome.replies + outcome.errors;
            time += took;
        }
        let mean = f64::from(hops) / f64::from(searches);
        println!(
            "| {nodes:6} | {contacts:8} | {mean:10.2} | {most:10} | {:11.1} | {:7.0} ms | {:11.1} % |",
            asked as f64 / f64::from(searches),
            time.as_secs_f64() * 1_000.0 / f64::from(searches),
            100.0 * f64::from(closest as u32) / f64::from(searches),
        );
        means.push(mean);
    }
    assert!(means[4] < 3.0, "{means:?}");
    // Ten times the nodes are a few bits more of the way: the same number each time, and not more with each time.
    let decades = [means[2] - means[0], means[4] - means[2]];
    assert!(decades.iter().all(|more| (0.0..1.5).contains(more)) && decades[1] < decades[0] + 0.3, "{means:?}");
}
