//! A network in one thread, with a clock of its own: peers as the shipped code has them, links that are slow, late and break,
//! and bytes that arrive in pieces. The same seed gives the same story.

use super::support::{
    Dice,
    played::{open, say},
};
use bytes::{Buf, Bytes, BytesMut};
use datdot_hypercore::{
    Change, Fault, Feed, FeedKey, Store, Want,
    messages::{DataBlock, Message, Sync},
    offers::Memory,
    peer::{Peer, Rest, Setup},
    plans::Plans,
};
use datdot_wire::{
    encoding::Reader,
    mux::{ChannelId, Event as Heard, Mux},
    noise::{self, Role},
    secret_stream::{Pull, Push, get_length},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::broadcast;

/// What `network` waits between two looks at what is late, and before it tells what came.
const TICK: Duration = Duration::from_millis(500);
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that wait for a link; then nothing more is served.
const ROUND: usize = 1 << 20;
/// A block is late after so long at least.
const LATE: Duration = Duration::from_millis(300);

pub type NodeId = usize;
type EndId = usize;

/// One way of a link.
#[derive(Clone, Copy)]
pub struct Link {
    pub latency: Duration,
    pub bytes_per_second: u64,
}

struct Node {
    feed: Feed,
    store: Store,
    plans: Arc<Plans>,
    changes: broadcast::Receiver<Change>,
    gathers: bool,
    /// When all was here.
    done: Option<Duration>,
    /// It claims to have everything, and answers with what it made up.
    lies: bool,
}

enum Party {
    Peer(Box<Peer>),
    Liar(Box<Mux>, ChannelId),
    Gone,
}

/// One end of a connection.
struct End {
    node: NodeId,
    other: EndId,
    party: Party,
    push: Push,
    pull: Pull,
    inbox: BytesMut,
    link: Link,
    /// When the link has taken all that was sent.
    free: Duration,
    serves: bool,
}

enum Event {
    Arrives(EndId, Vec<u8>),
    Tick(EndId),
    Gathered(NodeId),
    Serve(EndId),
    Breaks(NodeId, Option<NodeId>),
    Connects(NodeId, NodeId, Link),
}

pub struct Net {
    pub dice: Dice,
    pub now: Duration,
    start: Instant,
    /// The two ends of all connections: shaking hands anew for each would take most of the time.
    sessions: [noise::Session; 2],
    events: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    nodes: Vec<Node>,
    ends: Vec<End>,
    /// Of whom a node asked a block, and when, as long as there is no answer; the blocks by end and number of the question.
    asked: BTreeMap<(NodeId, u64), Vec<(EndId, Duration)>>,
    owed: BTreeMap<(EndId, u64), u64>,
    /// How often a block was asked for, and how often of somebody else while another owed it.
    pub questions: u64,
    pub late: u64,
    /// How many came, and how many of them were here already.
    pub came: u64,
    pub needless: u64,
    pub messages: u64,
    /// Who dropped whom, and why.
    pub faults: Vec<(NodeId, NodeId, Fault)>,
    /// All that happened, as one number.
    pub story: u64,
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Duration::ZERO,
            start: Instant::now(),
            sessions: sessions(),
            events: BTreeMap::new(),
            serial: 0,
            nodes: Vec::new(),
            ends: Vec::new(),
            asked: BTreeMap::new(),
            owed: BTreeMap::new(),
            questions: 0,
            late: 0,
            came: 0,
            needless: 0,
            messages: 0,
            faults: Vec::new(),
            story: 0,
        }
    }

    /// A node that has all of a feed, or says so and lies.
    pub fn source(&mut self, store: &Store, feed: &Feed, lies: bool) -> NodeId {
        self.node(store, feed, Some(Duration::ZERO), lies)
    }

    /// A node that knows the key of a feed and wants all of it.
    pub fn reader(&mut self, dir: &Path, key: FeedKey) -> NodeId {
        let store = Store::open(dir.join(self.nodes.len().to_string())).expect("the folder is free");
        let feed = store.open_remote(key, None).expect("room");
        let node = self.node(&store, &feed, None, false);
        self.nodes[node].plans.want(key, Want::all(), 1, false);
        node
    }

    fn node(&mut self, store: &Store, feed: &Feed, done: Option<Duration>, lies: bool) -> NodeId {
        let (store, feed, changes) = (store.clone(), feed.clone(), store.changes());
        self.nodes.push(Node { feed, store, plans: Arc::default(), changes, gathers: false, done, lies });
        self.nodes.len() - 1
    }

    pub fn feed(&self, node: NodeId) -> &Feed {
        &self.nodes[node].feed
    }

    /// When a node had everything.
    pub fn done(&self, node: NodeId) -> Option<Duration> {
        self.nodes[node].done
    }

    pub fn connect(&mut self, after: Duration, one: NodeId, other: NodeId, link: Link) {
        self.at(after, Event::Connects(one, other, link));
    }

    /// All connections of a node break, or those to another one.
    pub fn interrupt(&mut self, after: Duration, node: NodeId, from: Option<NodeId>) {
        self.at(after, Event::Breaks(node, from));
    }

    /// Goes on until nothing is left to be done before `end`, or all have everything.
    pub fn run(&mut self, end: Duration) {
        while let Some(((at, _), event)) = self.events.pop_first().filter(|((at, _), _)| *at <= end) {
            self.now = at;
            self.happens(event);
            if self.nodes.iter().all(|node| node.done.is_some()) {
                return;
            }
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + after, self.serial), event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Connects(one, other, link) => self.connects(one, other, link),
            Event::Arrives(end, bytes) => self.arrives(end, &bytes),
            Event::Breaks(node, from) => {
                for end in 0..self.ends.len() {
                    let other = self.ends[self.ends[end].other].node;
                    if self.ends[end].node == node && from.is_none_or(|from| from == other) {
                        self.breaks(end);
                    }
                }
            }
            Event::Serve(end) => {
                self.ends[end].serves = false;
                self.step(end, |_, _| Ok(()));
            }
            Event::Tick(end) => {
                if !matches!(self.ends[end].party, Party::Gone) {
                    self.at(TICK, Event::Tick(end));
                    self.step(end, |peer, now| {
                        peer.tick(now);
                        Ok(())
                    });
                }
            }
            Event::Gathered(node) => {
                self.nodes[node].gathers = false;
                let changes: Vec<_> = std::iter::from_fn(|| self.nodes[node].changes.try_recv().ok()).collect();
                for end in 0..self.ends.len() {
                    if self.ends[end].node == node {
                        self.step(end, |peer, now| {
                            peer.changed(now, &changes, false);
                            Ok(())
                        });
                    }
                }
            }
        }
    }

    fn connects(&mut self, one: NodeId, other: NodeId, link: Link) {
        let hash = std::array::from_fn(|_| self.dice.below(256) as u8);
        let sessions = &self.sessions;
        let streams = sessions.each_ref().map(|session| Push::new(session, &[7; 24]));
        let headers = streams.each_ref().map(|(_, header)| *header);
        let first = self.ends.len();
        for (side, (push, _)) in streams.into_iter().enumerate() {
            let node = [one, other][side];
            let pull = Pull::new(&self.sessions[side], &headers[1 - side]).expect("an honest header");
            let party = self.party(node, first + side, hash, side == 0);
            let (other, inbox, free) = (first + 1 - side, BytesMut::new(), self.now);
            self.ends.push(End { node, other, party, push, pull, inbox, link, free, serves: false });
        }
        for end in [first, first + 1] {
            self.send(end);
            let first = Duration::from_millis(self.dice.below(500));
            self.at(first, Event::Tick(end));
        }
    }

    fn party(&self, node: NodeId, end: EndId, handshake: [u8; 64], initiator: bool) -> Party {
        let Node { store, plans, feed, lies, .. } = &self.nodes[node];
        if *lies {
            let mut mux = Mux::new();
            let channel = open(&mut mux, &feed.key(), initiator, &handshake);
            let length = feed.info().length;
            let sync = Sync { uploading: true, can_upgrade: true, has_manifest: true, length, ..Sync::default() };
            say(&mut mux, channel, &Message::Sync(sync));
            say(&mut mux, channel, &Message::Range { drop: false, start: 0, length });
            return Party::Liar(Box::new(mux), channel);
        }
        let (store, plans) = (store.clone(), plans.clone());
        let memory = Memory::default();
        let setup = Setup { id: end as u64 + 1, initiator, handshake, store, plans, window: 16, memory };
        Party::Peer(Box::new(Peer::new(self.start + self.now, setup)))
    }

    fn arrives(&mut self, id: EndId, bytes: &[u8]) {
        let end = &mut self.ends[id];
        end.inbox.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(length) = end.inbox.first_chunk().map(|length| get_length(*length))
            && end.inbox.len() >= 3 + length
        {
            end.inbox.advance(3);
            frames.push(end.pull.pull(end.inbox.split_to(length)).expect("nothing is lost on the way"));
        }
        if frames.is_empty() {
            return;
        }
        for message in frames.iter().flat_map(messages) {
            if let Message::Data(data) = message {
                let feed = &self.nodes[self.ends[id].node].feed;
                self.came += u64::from(data.block.is_some());
                self.needless += u64::from(data.block.as_ref().is_some_and(|block| feed.has(block.index)));
                self.answered(id, data.id);
            } else if let Message::NoData { id: question, .. } = message {
                self.answered(id, question);
            }
        }
        let truth = &self.nodes[self.ends[id].node].feed;
        match &mut self.ends[id].party {
            Party::Gone => {}
            Party::Peer(_) => self.step(id, |peer, now| {
                let mut frames = frames;
                while peer.receive(now, std::mem::take(&mut frames))? == Rest::Some {}
                Ok(())
            }),
            Party::Liar(mux, channel) => {
                frames.into_iter().for_each(|frame| mux.receive(frame));
                while let Some(heard) = mux.next().expect("an honest end is readable") {
                    let Heard::Message { kind, body, .. } = heard else { continue };
                    if let Some(Message::Request(request)) = Message::decode(kind, &body).expect("readable") {
                        let mut data = truth.answer(&request).expect("it knows all");
                        let invented = |block: DataBlock| DataBlock { value: Bytes::from_static(b"invented"), ..block };
                        data.block = data.block.map(invented);
                        data.upgrade.iter_mut().for_each(|upgrade| upgrade.signature = Bytes::from_static(&[1; 66]));
                        let (kind, body) = Message::Data(Box::new(data)).encode();
                        // Closed meanwhile: fine.
                        _ = mux.send(*channel, kind, &body);
                    }
                }
                self.send(id);
            }
        }
    }

    fn breaks(&mut self, id: EndId) {
        for end in [id, self.ends[id].other] {
            self.ends[end].party = Party::Gone;
            let owed: Vec<u64> = self.owed.range((end, 0)..=(end, u64::MAX)).map(|((_, id), _)| *id).collect();
            owed.into_iter().for_each(|id| self.answered(end, id));
        }
    }

    /// What the task of a connection does: a step of the peer, then as many answers as there is room for.
    fn step(&mut self, id: EndId, act: impl FnOnce(&mut Peer, Instant) -> Result<(), Fault>) {
        let (now, end) = (self.start + self.now, &mut self.ends[id]);
        let Party::Peer(peer) = &mut end.party else { return };
        let waiting = end.free.saturating_sub(self.now).as_secs_f64() * end.link.bytes_per_second as f64;
        let room = ROUND.saturating_sub(waiting as usize);
        let stepped = act(peer, now).and_then(|()| match room {
            0 => Ok(peer.has_requests()),
            room => peer.serve(now, room),
        });
        let node = end.node;
        match stepped {
            Ok(more) => {
                if more && !std::mem::replace(&mut end.serves, true) {
                    self.at(Duration::from_millis(10), Event::Serve(id));
                }
                self.send(id);
            }
            Err(fault) => {
                let other = self.ends[self.ends[id].other].node;
                self.faults.push((node, other, fault));
                self.breaks(id);
            }
        }
        let Node { feed, changes, gathers, done, .. } = &mut self.nodes[node];
        if done.is_none() && feed.info().is_complete() {
            *done = Some(self.now);
        }
        if !changes.is_empty() && !std::mem::replace(gathers, true) {
            self.at(GATHER, Event::Gathered(node));
        }
    }

    /// Puts what an end has to say on its way, in pieces.
    fn send(&mut self, id: EndId) {
        let frames: Vec<Vec<u8>> = match &mut self.ends[id].party {
            Party::Peer(peer) => peer.take_output().into_iter().map(Vec::from).collect(),
            Party::Liar(mux, _) => std::iter::from_fn(|| mux.take_output()).collect(),
            Party::Gone => return,
        };
        let mut bytes = Vec::new();
        for frame in frames {
            self.ends[id].push.push(&frame, &mut bytes).expect("a frame is small enough");
            for message in messages(&frame.into()) {
                self.said(id, message);
            }
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let most = if self.dice.below(4) == 0 { 40 } else { 16 << 10 };
            let (piece, rest) = bytes.split_at((1 + self.dice.below(most) as usize).min(bytes.len()));
            let End { link, free, other, .. } = &mut self.ends[id];
            *free = self.now.max(*free) + Duration::from_secs_f64(piece.len() as f64 / link.bytes_per_second as f64);
            let (other, after) = (*other, *free + link.latency - self.now);
            self.at(after, Event::Arrives(other, piece.to_vec()));
            bytes = rest;
        }
    }

    /// Looks at what an honest end says: whether it asks for a block that somebody owes it already.
    fn said(&mut self, end: EndId, message: Message) {
        self.messages += 1;
        let mark = self.now.as_nanos() as u64 ^ (end as u64) << 48;
        self.story = (self.story.rotate_left(5) ^ mark).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (node, now) = (self.ends[end].node, self.now);
        match message {
            Message::Request(request) if let Some(block) = request.block => {
                assert!(
                    !self.nodes[node].feed.has(block.index),
                    "node {node} has block {} and asks for it",
                    block.index
                );
                let asked = self.asked.entry((node, block.index)).or_default();
                self.questions += 1;
                if let Some((_, last)) = asked.last() {
                    self.late += 1;
                    assert!(now - *last > LATE, "node {node} asks for block {} after {:?}", block.index, now - *last);
                }
                asked.push((end, now));
                self.owed.insert((end, request.id), block.index);
            }
            Message::Cancel { id } => self.answered(end, id),
            _ => {}
        }
    }

    fn answered(&mut self, end: EndId, id: u64) {
        let block = self.owed.remove(&(end, id));
        let asked = block.and_then(|block| self.asked.get_mut(&(self.ends[end].node, block)));
        asked.into_iter().for_each(|asked| asked.retain(|(of, _)| *of != end));
    }

    /// Who dropped a liar for its lies. Nobody else was dropped.
    pub fn liars_named(&self) -> BTreeSet<NodeId> {
        let named = self.faults.iter().map(|(by, whom, fault)| {
            assert!(self.nodes[*whom].lies && matches!(fault, Fault::False { .. }), "{by} dropped {whom}: {fault}");
            *by
        });
        named.collect()
    }
}

fn sessions() -> [noise::Session; 2] {
    let side = |role, key| noise::Handshake::xx(role, &noise::Keypair::from_seed(&[key; 32]), None, &[key + 2; 32]);
    let (mut initiator, mut responder) = (side(Role::Initiator, 1), side(Role::Responder, 2));
    while !responder.is_complete() {
        let (from, to) = match initiator.is_our_turn() {
            true => (&mut initiator, &mut responder),
            false => (&mut responder, &mut initiator),
        };
        to.read(&from.write(b"").expect("its turn")).expect("an honest message");
    }
    [initiator, responder].map(|side| side.finish().expect("it is complete"))
}

/// The messages in a frame of the mux.
fn messages(frame: &Bytes) -> Vec<Message> {
    let mut found = Vec::new();
    let mut reader = Reader::new(frame);
    let read = |reader: &mut Reader<'_>, found: &mut Vec<Message>| {
        let kind = reader.uint().expect("a kind");
        let body = Bytes::copy_from_slice(reader.rest());
        found.extend(Message::decode(kind, &body).expect("readable"));
    };
    match reader.uint().expect("a channel") {
        0 if reader.uint() == Ok(0) => {
            let mut channel = reader.uint().expect("a channel");
            while !reader.is_empty() {
                match reader.buffer().expect("a message") {
                    [] => channel = reader.uint().expect("a channel"),
                    message if channel > 0 => read(&mut Reader::new(message), &mut found),
                    _ => {}
                }
            }
        }
        0 => {}
        _ => read(&mut reader, &mut found),
    }
    found
}
