//! A node of the DHT among strangers who know everything but its secrets: they answer what it asks, show it the tokens that it
//! gave them, store, announce and call, truly or not, and let time pass as they like.
//!
//! - No panic; what it sends fits a datagram, and one datagram to it brings forth few.
//! - What it keeps and whom it knows stays within its limits.
//! - It is never due again at once: no loop that does nothing.

use crate::input::Input;
use datdot_hyperswarm::dht::{
    Action, Commit, Config, Event, Id, Identity, Mutable, Node, Peer, Role, Search, Socket,
    handshake::{Handshake, Holepunch, Mode},
    node::{QuestionId, SearchId},
    packet::{Command, Packet, Request, Response, Token},
    record::{Announce, Place, Purpose},
    store::Limits,
};
use std::{collections::BTreeMap, net::SocketAddrV4, sync::LazyLock, time::Duration};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

const NOW: Duration = Duration::from_secs(1_700_000_000);
const KEPT: usize = 24;

static IDENTITIES: LazyLock<[Identity; 3]> = LazyLock::new(|| [1, 2, 3].map(|seed| Identity::from_seed(&[seed; 32])));

struct World {
    node: Node,
    now: Duration,
    /// What the node sent and nobody answered.
    asked: Vec<(Socket, SocketAddrV4, Vec<u8>)>,
    tokens: BTreeMap<SocketAddrV4, Token>,
    searches: Vec<SearchId>,
    questions: Vec<QuestionId>,
    calls: Vec<datdot_hyperswarm::dht::node::Call>,
    longest: usize,
    wishes: usize,
}

fn us() -> SocketAddrV4 {
    SocketAddrV4::new([8, 8, 8, 8].into(), 49_737)
}

/// Mostly one of a few; some are loopback, private or impossible.
fn address(input: &mut Input<'_>) -> SocketAddrV4 {
    match input.u8() {
        n @ 0..200 => SocketAddrV4::new([9, 0, 0, n % 32].into(), 7_000 + u16::from(n / 100)),
        200..210 => SocketAddrV4::new([127, 0, 0, 1].into(), 5_000),
        210..220 => us(),
        _ => SocketAddrV4::new(input.fixed().into(), input.u16()),
    }
}

fn id(input: &mut Input<'_>) -> Id {
    match input.u8() % 6 {
        n @ 0..3 => Id::of(&IDENTITIES[usize::from(n)].public()),
        3 => Id::of(b"a value"),
        4 => Id([input.u8(); 32]),
        _ => Id(input.fixed()),
    }
}

fn command(input: &mut Input<'_>) -> Command {
    let [internal, external] = [&Command::INTERNAL[..], &Command::EXTERNAL];
    let known = internal.iter().chain(external);
    let unknown = Command::Other { internal: false, code: 10 };
    known.copied().nth(input.below(16)).unwrap_or(unknown)
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = input.u8();
        let limits = Limits { announcements: KEPT, records: KEPT, share: 2, per_target: 4, ..Limits::default() };
        let config = Config {
            names: Vec::new(),
            bootstrap: (0..3).map(|n| SocketAddrV4::new([9, 0, 0, n].into(), 7_000)).collect(),
            role: [Role::Adaptive, Role::Guest, Role::Host, Role::Host][usize::from(kind % 4)],
            address: (kind & 4 != 0).then(us),
            firewalled: kind & 8 != 0,
            known: (0..kind / 16).map(|n| SocketAddrV4::new([9, 0, 0, n].into(), 7_001)).collect(),
            limits,
            answer_rate: 16 << 10,
        };
        let node = Node::new(config, us().port(), NOW, [7; 32]);
        let mut world = World {
            node,
            now: NOW,
            asked: Vec::new(),
            tokens: BTreeMap::new(),
            searches: Vec::new(),
            questions: Vec::new(),
            calls: Vec::new(),
            longest: 0,
            wishes: 0,
        };
        world.look();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..5 => self.answer(input),
            5..9 => {
                let from = address(input);
                let datagram = self.request(input, from);
                let datagram = if input.bool() { input.alter(&datagram) } else { datagram };
                self.receive(input, from, &datagram);
            }
            9 => {
                let from = address(input);
                let datagram = input.part();
                self.receive(input, from, datagram);
            }
            10 | 11 => {
                self.now += match input.u8() {
                    ms @ 0..250 => Duration::from_millis(20 * u64::from(ms)),
                    _ => Duration::from_secs(u64::from(input.u16())),
                };
                self.tick();
            }
            12 if self.wishes < 20 => self.wish(input),
            13 if !self.calls.is_empty() => {
                let call = self.calls.swap_remove(input.below(self.calls.len()));
                let noise = input.part();
                self.longest = self.longest.max(noise.len() + 100);
                self.node.answer_call(&call, noise);
            }
            14 if !self.searches.is_empty() => self.node.cancel(self.searches[input.below(self.searches.len())]),
            15 => {
                let at = IDENTITIES[input.below(3)].clone();
                match input.bool() {
                    true => self.node.listen(self.now, &at),
                    false => self.node.unlisten(self.now, &at.public()),
                }
            }
            _ => self.tick(),
        }
        self.look();
        self.check();
    }

    /// Answers something that the node asked, truly or not.
    fn answer(&mut self, input: &mut Input<'_>) {
        if self.asked.is_empty() {
            return;
        }
        let (socket, from, datagram) = self.asked.swap_remove(input.below(self.asked.len()));
        let Ok(Packet::Request(request)) = Packet::decode(&datagram) else { return };
        let flags = input.u8();
        let closer = (0..if flags & 1 != 0 { input.below(21) } else { 0 }).map(|_| address(input)).collect();
        let value = (flags & 2 != 0).then(|| self.value(input, request.command, from, request.target));
        let response = Response {
            tid: request.tid,
            to: if flags & 4 != 0 { address(input) } else { us() },
            id: (flags & 8 == 0).then(|| Id::of_node(from)),
            token: (flags & 16 == 0).then(|| [input.u8(); 32]),
            closer,
            error: if flags & 32 != 0 { input.uint() >> 11 } else { 0 },
            value: value.as_deref(),
        };
        let answer = response.encode();
        let answer = if flags & 64 != 0 { input.alter(&answer) } else { answer };
        let socket = if flags & 128 != 0 { Socket::Server } else { socket };
        self.longest = self.longest.max(answer.len());
        self.node.receive(self.now, socket, from, &answer);
    }

    /// A request that may well be granted.
    fn request(&mut self, input: &mut Input<'_>, from: SocketAddrV4) -> Vec<u8> {
        let flags = input.u8();
        let command = command(input);
        let target = (flags & 1 == 0).then(|| id(input));
        let value = (flags & 2 == 0).then(|| self.value(input, command, from, target));
        // A route, or a record, is at the hash of its key.
        let own = |flag| flags & flag != 0;
        let target = match command {
            Command::MutablePut | Command::FindPeer if own(4) => Some(Id::of(&IDENTITIES[0].public())),
            Command::ImmutablePut if own(4) => value.as_deref().map(Id::of),
            _ => target,
        };
        let id = own(8).then(|| Id::of_node(from));
        let token = if own(16) { self.tokens.get(&from).copied() } else { None };
        let tid = u16::from(input.u8());
        Request { tid, to: us(), id, token, command, target, value: value.as_deref() }.encode()
    }

    fn value(&self, input: &mut Input<'_>, command: Command, from: SocketAddrV4, target: Option<Id>) -> Vec<u8> {
        let identity = &IDENTITIES[input.below(3)];
        let relays: Vec<_> = (0..input.below(4)).map(|_| address(input)).collect();
        match command {
            _ if input.u8() < 40 => input.part().to_vec(),
            Command::Announce | Command::Unannounce => {
                let node = self.node.id().unwrap_or(Id([0; 32]));
                let token = self.tokens.get(&from).copied().unwrap_or_default();
                let place = Place { target: &target.unwrap_or(Id([0; 32])), node: &node, token: &token };
                let purpose = if command == Command::Announce { Purpose::Announce } else { Purpose::Unannounce };
                Announce::signed(purpose, identity, &relays, place, input.uint() >> 11).encode()
            }
            Command::MutablePut => {
                Mutable::signed(identity, input.uint() >> 11, input.part()).encode_put(&identity.public())
            }
            Command::MutableGet => Mutable::signed(identity, input.uint() >> 11, input.part()).encode(),
            Command::FindPeer | Command::Lookup => Peer { key: identity.public(), relays }.encode(),
            Command::PeerHandshake | Command::PeerHolepunch => {
                let mode = [Mode::FromClient, Mode::FromServer, Mode::FromRelay, Mode::FromSecondRelay, Mode::Reply];
                let mode = mode[input.below(5)];
                let (peer, relay) = (relays.first().copied(), relays.get(1).copied());
                match command {
                    Command::PeerHandshake => Handshake { mode, noise: input.part(), peer, relay }.encode(),
                    _ => Holepunch { mode, id: input.u8().into(), payload: input.part(), peer }.encode(),
                }
            }
            Command::DownHint => {
                let node = address(input);
                [&node.ip().octets()[..], &node.port().to_le_bytes()].concat()
            }
            Command::ImmutableGet | Command::ImmutablePut => b"a value".to_vec(),
            _ => input.part().to_vec(),
        }
    }

    fn receive(&mut self, input: &mut Input<'_>, from: SocketAddrV4, datagram: &[u8]) {
        self.longest = self.longest.max(datagram.len());
        let socket = if input.bool() { Socket::Client } else { Socket::Server };
        self.node.receive(self.now, socket, from, datagram);
        let mut brought_forth = 0;
        while let Some(action) = self.node.poll() {
            brought_forth += usize::from(matches!(action, Action::Send { .. }));
            self.note(action);
        }
        // One answer, and the questions that may go out at a time.
        assert!(brought_forth <= 200, "{brought_forth} datagrams for one");
    }

    fn wish(&mut self, input: &mut Input<'_>) {
        self.wishes += 1;
        let target = id(input);
        let command = command(input);
        if input.bool() {
            let (to, value) = (address(input), input.part());
            self.longest = self.longest.max(value.len() + 100);
            self.questions.push(self.node.ask(self.now, to, command, Some(target), None, Some(value)));
            return;
        }
        let identity = IDENTITIES[input.below(3)].clone();
        let commit = match input.u8() % 3 {
            0 => Commit::Nothing,
            1 => Commit::Announce { identity: identity.clone(), relays: vec![address(input)], bump: 0, at: 20 },
            _ => Commit::Store { command: Command::ImmutablePut, value: b"a value".to_vec() },
        };
        let nodes = (0..input.below(5)).map(|_| address(input)).collect();
        let clear = input.bool().then_some(identity);
        let search = Search { commit, nodes, clear, ..Search::new(target, command) };
        self.searches.push(self.node.search(self.now, search));
    }

    fn tick(&mut self) {
        for _ in 0..50 {
            self.node.tick(self.now);
            self.look();
            if self.node.next_tick() > self.now {
                return;
            }
        }
        panic!("it is due again and again, at {:?} of {:?}", self.node.next_tick(), self.now);
    }

    fn look(&mut self) {
        while let Some(action) = self.node.poll() {
            self.note(action);
        }
    }

    fn note(&mut self, action: Action) {
        match action {
            Action::Send { socket, to, datagram } => {
                assert!(datagram.len() <= 1_500.max(self.longest + 64), "{} bytes in a datagram", datagram.len());
                match Packet::decode(&datagram) {
                    Ok(Packet::Request(_)) if self.asked.len() < 400 => self.asked.push((socket, to, datagram)),
                    Ok(Packet::Request(_)) => {}
                    Ok(Packet::Response(response)) => _ = response.token.map(|token| self.tokens.insert(to, token)),
                    Err(error) => panic!("it sends what can't be read: {error}"),
                }
            }
            Action::Tell(Event::Call(call)) if self.calls.len() < 50 => self.calls.push(call),
            Action::Resolve(_) | Action::Tell(_) => {}
        }
    }

    fn check(&self) {
        assert!(self.node.store().counts().iter().all(|count| *count <= KEPT), "{:?}", self.node.store().counts());
        assert!(self.node.known() <= 20 * 256);
    }
}
