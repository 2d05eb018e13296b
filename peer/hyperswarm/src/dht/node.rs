//! A node of the DHT: what it decides, without sockets, clock and dice.
//!
//! ```text
//!   datagrams ──▶ receive ─┐                       ┌─▶ Send: a datagram
//!   time ───────▶ tick ────┼──▶ Node ──▶ actions ──┤
//!   wishes ─────▶ search, ask … ─┘                 └─▶ Tell: an event
//! ```
//!
//! A node begins as a guest: it asks from its client socket and nobody may name it to others. It becomes a host, one
//! that others keep in their tables and store at, when it has run for 20 minutes and others reach its server socket at
//! an address on which they agree. A host's id is the hash of that address.

mod action;
mod answer;
mod journey;
mod listen;
mod reach;
mod route;
mod upkeep;

use super::Socket;
use super::address::Scope;
use super::bootstrap::{Entry, Name};
use super::id::Id;
use super::nat::{Outside, Samples};
use super::packet::{Command, MAX_CLOSER, Packet, Request, Response, Token};
use super::query::{Reply, Search};
use super::record::Identity;
use super::requests::{Open, Requests};
use super::store::{Limits, Store};
use super::table::{Added, Contact, Table};
use super::token::Tokens;
pub use action::{Action, Event, Outcome, QuestionId, Reach, SearchId};
use journey::Journey;
use listen::Listener;
pub use listen::Relay;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
pub use route::Call;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

/// How often a node is asked in a search, with a second between.
const SEARCH_TRIES: u32 = 6;
/// How often otherwise.
const TRIES: u32 = 4;

/// How a node begins.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nodes that everybody knows. None for the first node of a DHT.
    pub bootstrap: Vec<SocketAddrV4>,
    /// The names of such nodes: the DNS is asked if there is nobody else to ask, or nobody else answers.
    pub names: Vec<Name>,
    /// Nodes of an earlier run, see [`Node::contacts`].
    pub known: Vec<SocketAddrV4>,
    /// Guest or host.
    pub role: Role,
    /// Whether strangers can't reach the server socket, as far as is known.
    pub firewalled: bool,
    /// Our address, if nobody can tell us because we are the first.
    pub address: Option<SocketAddrV4>,
    /// What is kept for others.
    pub limits: Limits,
    /// Answers in bytes beyond what was asked that one source gets per second; ten times that at once.
    pub answer_rate: u32,
}

impl Default for Config {
    /// A guest that becomes a host if it can.
    fn default() -> Self {
        Config {
            bootstrap: Vec::new(),
            names: Vec::new(),
            known: Vec::new(),
            role: Role::Adaptive,
            firewalled: true,
            address: None,
            limits: Limits::default(),
            answer_rate: 64 << 10,
        }
    }
}

impl Config {
    /// Begins with these nodes as well.
    pub fn begin_with(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        for Entry { address, name } in entries {
            self.bootstrap.extend(address);
            self.names.extend(name);
        }
        self
    }
}

/// What a node wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A guest, and a host once its address proves to be stable and open.
    Adaptive,
    /// A guest for ever ("ephemeral" in JavaScript).
    Guest,
    /// A host as soon as it knows its address ("persistent").
    Host,
}

/// What a request of ours is for.
#[derive(Debug)]
enum Purpose {
    /// A step of a walk.
    Visit(SearchId),
    /// What is asked of the closest in the end.
    Commit(SearchId),
    /// To forget an old announcement.
    Clear(SearchId),
    /// Whether somebody who asked us is really there.
    Greet,
    /// Whether a contact is still there.
    Check(Id),
    /// Whether the first is still there; if not, the second gets its place.
    Replace(Id, Contact),
    /// Whether our server socket is reached.
    Probe,
    /// Whether it is, quickly, while the first walk goes on.
    QuickProbe,
    /// To tell that a node is down, or that we go: nobody waits for the answer.
    Hint,
    /// Whether a relay of a server is still there.
    Hold(Id),
    /// For a token to say farewell with.
    Farewell(Identity),
    /// Asked from outside.
    Question(QuestionId),
}

/// A node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    now: Duration,
    rng: StdRng,
    out: VecDeque<Action>,
    table: Table,
    requests: Requests<Purpose>,
    journeys: BTreeMap<SearchId, Journey>,
    tokens: Tokens,
    store: Store,
    samples: Samples,
    firewalled: bool,
    host: bool,
    start: reach::Start,
    probe: Option<reach::Probe>,
    upkeep: upkeep::Upkeep,
    sources: answer::Sources,
    listeners: BTreeMap<Id, Listener>,
    late: BTreeMap<(Duration, u64), (Socket, SocketAddrV4, Vec<u8>)>,
    server_port: u16,
    /// Whether we began in a private network, or on one machine.
    at_home: bool,
    told: Option<Reach>,
    next_id: u64,
    suspended: bool,
}

impl Node {
    /// A node whose server socket has the local port `server_port`; `now` is a time since 1970 that never goes back,
    /// `seed` 32 random bytes.
    pub fn new(config: Config, server_port: u16, now: Duration, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let tokens = Tokens::new(now, [rng.random(), rng.random()]);
        let mut node = Node {
            now,
            out: VecDeque::new(),
            table: Table::new(Id(rng.random())),
            requests: Requests::new(now),
            journeys: BTreeMap::new(),
            tokens,
            store: Store::new(&config.limits),
            samples: Samples::default(),
            firewalled: config.firewalled && config.address.is_none(),
            host: false,
            start: reach::Start::default(),
            probe: None,
            upkeep: upkeep::Upkeep::new(now, &mut rng),
            sources: answer::Sources::new(config.answer_rate, rng.random()),
            listeners: BTreeMap::new(),
            late: BTreeMap::new(),
            server_port,
            at_home: false,
            told: None,
            next_id: 0,
            suspended: false,
            rng,
            config,
        };
        let known = std::mem::take(&mut node.config.known);
        let mut chosen = node.config.bootstrap.iter().chain(&node.config.address).chain(&known);
        node.at_home = chosen.any(is_near);
        for address in known {
            if node.is_acceptable(&address) {
                node.table.add(Contact::new(address, now));
            }
        }
        node.bootstrap();
        node
    }

    /// What is to be done, one after the other; to be asked after every other call.
    pub fn poll(&mut self) -> Option<Action> {
        if self.out.is_empty() && !self.suspended {
            while let Some(open) = self.requests.send(self.now) {
                let (socket, to, datagram) = (open.socket, open.to, open.datagram.clone());
                self.out.push_back(Action::Send { socket, to, datagram });
            }
        }
        self.out.pop_front()
    }

    /// Takes a datagram that came to one of our sockets.
    pub fn receive(&mut self, now: Duration, socket: Socket, from: SocketAddrV4, datagram: &[u8]) {
        self.now = self.now.max(now);
        if from.port() == 0 || self.suspended {
            return;
        }
        match Packet::decode(datagram) {
            Ok(Packet::Request(request)) => self.on_request(socket, from, request, datagram.len()),
            Ok(Packet::Response(response)) => self.on_response(socket, from, response),
            Err(error) => tracing::trace!(target: "dht", %from, %error, "not a datagram of the DHT"),
        }
    }

    /// Lets time pass; to be called at [`next_tick`](Self::next_tick), or when the machine woke up.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.suspended {
            return;
        }
        while let Some(due) = self.requests.due(self.now) {
            match due {
                super::requests::Due::Slow(tid) => self.on_slow(tid),
                super::requests::Due::Failed(open) => self.on_failure(open),
            }
        }
        while let Some(entry) = self.late.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (socket, to, datagram) = entry.remove();
            self.send(socket, to, datagram);
        }
        self.keep_up();
        self.keep_listening();
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub fn next_tick(&self) -> Duration {
        if self.suspended {
            return Duration::MAX;
        }
        let late = self.late.keys().next().map(|(at, _)| *at);
        let sooner = [self.requests.next(), late, self.next_listening()];
        sooner.into_iter().flatten().fold(self.upkeep.next(), Duration::min)
    }

    /// Sends and hears nothing until [`resume`](Self::resume); what is wished meanwhile waits for it.
    pub fn suspend(&mut self) {
        self.suspended = true;
        self.late.clear();
        self.out.retain(|action| !matches!(action, Action::Send { .. }));
    }

    /// Goes on as after a sleep.
    pub fn resume(&mut self, now: Duration) {
        if std::mem::take(&mut self.suspended) {
            self.wake(now);
        }
    }

    /// Begins a search; its answers and its end come as events.
    pub fn search(&mut self, now: Duration, search: Search) -> SearchId {
        self.now = self.now.max(now);
        self.set_out(search, journey::Kind::Wished)
    }

    /// Ends a search without further events.
    pub fn cancel(&mut self, search: SearchId) {
        self.journeys.remove(&search);
        self.requests.cancel(|purpose| match purpose {
            Purpose::Visit(id) | Purpose::Commit(id) | Purpose::Clear(id) => *id == search,
            _ => false,
        });
    }

    /// Asks one node something.
    pub fn ask(
        &mut self,
        now: Duration,
        to: SocketAddrV4,
        command: Command,
        target: Option<Id>,
        token: Option<Token>,
        value: Option<&[u8]>,
    ) -> QuestionId {
        self.now = self.now.max(now);
        let id = QuestionId(self.number());
        let question = Question { command, target, token, value };
        if self.request(to, question, Purpose::Question(id), TRIES).is_none() {
            self.tell(Event::Answer { question: id, reply: None });
        }
        id
    }

    /// The nodes that were heard of last, for [`Config::known`] of the next run.
    pub fn contacts(&self, max: usize) -> Vec<SocketAddrV4> {
        let mut contacts: Vec<_> = self.table.iter().collect();
        contacts.sort_by_key(|contact| std::cmp::Reverse(contact.seen));
        contacts.into_iter().take(max).map(|contact| contact.address).collect()
    }

    /// How others reach us.
    pub fn reach(&self) -> Reach {
        Reach { outside: self.samples.outside(), firewalled: self.firewalled, host: self.host }
    }

    /// Our id, if we are a host.
    pub fn id(&self) -> Option<Id> {
        self.host.then_some(self.table.id())
    }

    /// How many nodes we know.
    pub fn known(&self) -> usize {
        self.table.len()
    }

    /// What we keep for others.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Our address for others, if strangers reach us there.
    pub fn open_address(&self) -> Option<SocketAddrV4> {
        match self.samples.outside() {
            Some(Outside::Address(address)) if !self.firewalled && address.port() == self.server_port => Some(address),
            _ => None,
        }
    }

    /// The socket that asks.
    pub fn asking_socket(&self) -> Socket {
        if self.firewalled { Socket::Client } else { Socket::Server }
    }

    fn request(&mut self, to: SocketAddrV4, question: Question, purpose: Purpose, tries: u32) -> Option<u16> {
        let socket = self.asking_socket();
        let id = self.id_on(socket);
        let Question { command, target, token, value } = question;
        let open = Open::new(to, socket, purpose, tries);
        self.requests.begin(&mut self.rng, open, |tid| Request { tid, to, id, token, command, target, value }.encode())
    }

    fn on_response(&mut self, socket: Socket, from: SocketAddrV4, response: Response) {
        let Some(open) = self.requests.answer(from, response.tid) else { return };
        self.upkeep.answers += 1;
        let id = response.id.filter(|id| *id == Id::of_node(from));
        // What the other socket's address looks like outside says nothing about this one.
        let own_socket = socket == self.asking_socket() && open.socket == socket;
        // Nor does what somebody in our own network sees say anything of our address outside of it.
        let sees_outside = own_socket && self.is_acceptable(&from);
        if let Some(id) = id {
            self.meet(from, id);
        }
        if sees_outside && !matches!(open.purpose, Purpose::Probe | Purpose::QuickProbe) {
            self.samples.add(from, response.to);
            self.tell_reach();
        }
        let reply = Reply {
            from,
            id,
            to: response.to,
            token: response.token,
            error: response.error,
            value: response.value.map(<[u8]>::to_vec),
            rtt: open.age(self.now),
        };
        match open.purpose {
            Purpose::Visit(search) => self.on_visit(search, open.slow, reply, &response.closer),
            Purpose::Commit(search) => self.on_commit(search, Some(reply.from).filter(|_| reply.error == 0)),
            Purpose::Clear(search) => self.on_cleared(search),
            Purpose::Greet | Purpose::Hint | Purpose::Hold(_) => {}
            Purpose::Farewell(identity) => self.on_farewell(&identity, &reply),
            Purpose::Check(contact) => {
                // It answers, but no longer as a host.
                if id.is_none() {
                    self.table.remove(&contact);
                }
                self.upkeep.checks -= 1;
            }
            Purpose::Replace(old, new) => {
                self.upkeep.replacing -= 1;
                if id.is_none() {
                    self.table.remove(&old);
                    self.table.add(new);
                }
            }
            Purpose::Probe => self.on_probe(Some((socket, from, response.to))),
            Purpose::QuickProbe => self.on_quick_probe(socket),
            Purpose::Question(question) => self.tell(Event::Answer { question, reply: Some(reply) }),
        }
    }

    fn on_failure(&mut self, open: Open<Purpose>) {
        self.upkeep.timeouts += 1;
        let id = Id::of_node(open.to);
        match open.purpose {
            Purpose::Visit(search) => self.on_lost(search, open.slow, open.to),
            Purpose::Commit(search) => self.on_commit(search, None),
            Purpose::Clear(search) => self.on_cleared(search),
            Purpose::Greet | Purpose::Hint | Purpose::QuickProbe | Purpose::Farewell(_) => {}
            Purpose::Hold(target) => self.on_relay_lost(target, open.to),
            Purpose::Check(_) => self.upkeep.checks -= 1,
            Purpose::Replace(old, new) => {
                self.upkeep.replacing -= 1;
                self.table.remove(&old);
                self.table.add(new);
            }
            Purpose::Probe => return self.on_probe(None),
            Purpose::Question(question) => return self.tell(Event::Answer { question, reply: None }),
        }
        self.table.remove(&id);
    }

    fn on_slow(&mut self, tid: u16) {
        if let Some(Purpose::Visit(search)) = self.requests.purpose(tid) {
            let search = *search;
            self.on_slow_visit(search);
        }
    }

    /// A host showed that it's there.
    fn meet(&mut self, from: SocketAddrV4, id: Id) {
        if let Some(contact) = self.table.get_mut(&id) {
            return contact.hear(self.now);
        }
        if !self.is_acceptable(&from) {
            return;
        }
        let contact = Contact::new(from, self.now);
        if let Added::Full { oldest } = self.table.add(contact.clone()) {
            self.replace(oldest, contact);
        }
    }

    /// Whether a node of this address may be one: no liar makes us ask our own network.
    pub(crate) fn is_acceptable(&self, address: &SocketAddrV4) -> bool {
        let is_somebody = match Scope::of(*address.ip()) {
            Scope::Public => true,
            Scope::Private => self.at_home,
            Scope::Reserved => false,
        };
        is_somebody && address.port() != 0
    }

    fn id_on(&self, socket: Socket) -> Option<Id> {
        (self.host && socket == Socket::Server).then_some(self.table.id())
    }

    fn closer(&self, target: Option<&Id>) -> Vec<SocketAddrV4> {
        let closest = target.map(|target| self.table.closest(target, MAX_CLOSER)).unwrap_or_default();
        closest.into_iter().map(|contact| contact.address).collect()
    }

    fn send(&mut self, socket: Socket, to: SocketAddrV4, datagram: Vec<u8>) {
        if self.suspended {
            return;
        }
        self.out.push_back(Action::Send { socket, to, datagram });
    }

    fn tell(&mut self, event: Event) {
        self.out.push_back(Action::Tell(event));
    }

    fn tell_reach(&mut self) {
        let reach = self.reach();
        if self.told != Some(reach) {
            self.told = Some(reach);
            self.tell(Event::Reach(reach));
        }
    }

    fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn is_near(address: &SocketAddrV4) -> bool {
    Scope::of(*address.ip()) == Scope::Private
}

/// What is asked of one node.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    command: Command,
    target: Option<Id>,
    token: Option<Token>,
    value: Option<&'a [u8]>,
}

impl Question<'static> {
    const PING: Question<'static> = Question { command: Command::Ping, target: None, token: None, value: None };
}
