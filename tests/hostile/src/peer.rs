//! A whole connection: a peer with feeds of its own and of others, and a remote that knows their keys and does what it likes.
//! It asks, answers truly or not, opens, closes, floods, and sends frames that are none.
//!
//! - No panic. What the peer says is a mux that an honest end understands.
//! - It never stores a block or a head that the author did not write, and never serves one.

use crate::{
    input::Input,
    library::{Book, book, rewritten},
    scratch,
};
use bytes::Bytes;
use datdot_hypercore::{
    DiscoveryKey, Feed, FeedKey, Keypair, Store, Want,
    messages::{Data, Handshake, Message, NodeRequest, Request, SeekRequest, Sync, UpgradeRequest, Wanted},
    offers::Memory,
    peer::{Peer, Rest, Setup},
    plans::Plans,
};
use datdot_proof::flat;
use datdot_wire::mux::{ChannelId, Event, Mux};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..200 {
        if input.is_empty() || world.step(&mut input).is_none() {
            break;
        }
    }
    world.check();
}

const HASH: [u8; 64] = [5; 64];
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the remote knows of a channel.
struct Channel {
    id: ChannelId,
    /// Which of our feeds it is.
    of: usize,
    /// What was asked of the remote.
    asked: Vec<Request>,
}

struct World {
    peer: Peer,
    is_initiator: bool,
    plans: Arc<Plans>,
    changes: tokio::sync::broadcast::Receiver<datdot_hypercore::Change>,
    now: Instant,
    /// Fetched from the remote, and written by ourselves.
    feeds: [Feed; 2],
    remote: Mux,
    channels: Vec<Channel>,
    /// Feeds that the peer wants opened.
    wished: BTreeMap<DiscoveryKey, usize>,
    /// The remote has sent what its own mux knows nothing of.
    is_lost: bool,
    _store: Store,
    _folder: tempfile::TempDir,
}

fn own_blocks() -> Vec<Bytes> {
    (0..6).map(|block| vec![0xe0 + block; 10 * usize::from(block)].into()).collect()
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let flags = input.u8();
        let folder = scratch::folder();
        let store = Store::open(folder.path()).expect("the folder is new");
        let fetched = book(flags & 1 != 0);
        let head = (flags & 2 != 0).then(|| fetched.feed.signed_head()).flatten();
        let fetched = store.open_remote(fetched.feed.key(), head).expect("the head is the author's");
        fetched.follow_forks(flags & 4 != 0);
        let own = store.create(&Keypair::from_seed([2; 32])).expect("there is room");
        own.write(&own_blocks()).expect("there is room");
        let plans = Arc::<Plans>::default();
        plans.want(fetched.key(), if flags & 8 != 0 { Want::all() } else { Want::blocks(3..12) }, 1, false);
        if flags & 16 != 0 {
            plans.seek(&fetched.key(), u64::from(flags) * 9);
        }
        let changes = store.changes();
        let setup = Setup {
            id: 1,
            initiator: flags & 32 != 0,
            handshake: HASH,
            store: store.clone(),
            plans: plans.clone(),
            window: 8,
            memory: Memory::default(),
        };
        World {
            is_initiator: setup.initiator,
            peer: Peer::new(*START, setup),
            plans,
            changes,
            now: *START,
            feeds: [fetched, own],
            remote: Mux::new(),
            channels: Vec::new(),
            wished: BTreeMap::new(),
            is_lost: false,
            _store: store,
            _folder: folder,
        }
    }

    fn receive(&mut self, mut frames: Vec<Bytes>) -> Option<()> {
        while self.peer.receive(self.now, std::mem::take(&mut frames)).ok()? == Rest::Some {}
        Some(())
    }

    /// `None` once the peer has dropped the remote.
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.u8() % 16 {
            0 | 1 => self.open(input),
            2..6 => self.answer(input),
            6..10 => self.say(input),
            10 => {
                let frame = Bytes::copy_from_slice(input.part());
                self.is_lost = true;
                self.receive(vec![frame])?;
            }
            11 => {
                if let Some(channel) = self.any_channel(input) {
                    let Channel { id, .. } = self.channels.remove(channel);
                    self.remote.close(id);
                }
            }
            12 => {
                self.now += Duration::from_millis(u64::from(input.u16()));
                self.peer.tick(self.now);
            }
            13 => self.want(input),
            _ => {
                let limit = usize::from(input.u16());
                self.peer.serve(self.now, limit).ok()?;
            }
        }
        self.exchange()
    }

    fn any_channel(&self, input: &mut Input<'_>) -> Option<usize> {
        (!self.channels.is_empty()).then(|| input.below(self.channels.len()))
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let of = input.below(2);
        let key = self.feeds[of].key();
        let handshake = Handshake { seeks: true, capability: key.capability(!self.is_initiator, &HASH) };
        let (discovery, handshake) = (key.discovery(), input.alter(&handshake.encode()));
        self.wished.remove(&discovery);
        if let Ok(id) = self.remote.open("hypercore/alpha", &discovery.0, &handshake) {
            self.channels.push(Channel { id, of, asked: Vec::new() });
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.any_channel(input) else { return };
        let Channel { id, asked, .. } = &mut self.channels[at];
        if asked.is_empty() {
            return;
        }
        let request = asked.remove(input.below(asked.len()));
        let truth = if request.fork == 1 { rewritten() } else { book_of(self.feeds[0].key()) };
        let message = match truth.feed.answer(&request) {
            Ok(data) if input.u8() < 230 => Message::Data(Box::new(data)),
            _ => Message::NoData { id: request.id, reason: None },
        };
        let (kind, body) = message.encode();
        // Too much honesty is no test, too little gets nowhere.
        let body = if input.u8() < 160 { body } else { input.alter(&body) };
        _ = self.remote.send(*id, kind, &body);
    }

    fn say(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.any_channel(input) else { return };
        let (kind, body) = match input.u8() % 8 {
            0 => (input.u8().into(), input.part().to_vec()),
            _ => message(input).encode(),
        };
        _ = self.remote.send(self.channels[at].id, kind, &body);
    }

    fn want(&mut self, input: &mut Input<'_>) {
        let (key, who) = (self.feeds[0].key(), u64::from(input.u8() % 4));
        match input.u8() % 4 {
            0 => _ = self.plans.unwant(&key, who),
            1 => _ = self.plans.seek(&key, input.uint()),
            2 => _ = self.plans.want(key, Want::all(), who, input.bool()),
            _ => {
                let start = input.uint();
                let blocks = start..start.saturating_add(input.uint());
                _ = self.plans.want(key, Want { blocks, follow: input.bool() }, who, input.bool());
            }
        }
    }

    /// Brings what each has said to the other.
    fn exchange(&mut self) -> Option<()> {
        let frames: Vec<Bytes> = std::iter::from_fn(|| self.remote.take_output()).map(Bytes::from).collect();
        self.receive(frames)?;
        let changes: Vec<_> = std::iter::from_fn(|| self.changes.try_recv().ok()).collect();
        self.peer.changed(self.now, &changes, changes.len() > 100);
        for frame in self.peer.take_output() {
            self.remote.receive(frame.into());
        }
        while !self.is_lost {
            match self.remote.next().expect("the peer speaks as an honest end does") {
                None => break,
                Some(Event::OpenRequested { id, .. }) => {
                    let discovery = DiscoveryKey(id[..].try_into().expect("it opens feeds only"));
                    let of = self.feeds.iter().position(|feed| feed.discovery() == discovery);
                    self.wished.insert(discovery, of.expect("it opens its own feeds only"));
                }
                Some(Event::Message { channel, kind, body }) => {
                    let message = Message::decode(kind, &body).expect("the peer speaks as an honest end does");
                    let Some(at) = self.channels.iter_mut().find(|at| at.id == channel) else { continue };
                    match message {
                        Some(Message::Request(request)) if at.asked.len() < 64 => at.asked.push(request),
                        Some(Message::Data(data)) => check_served(&self.feeds[at.of], at.of, &data),
                        _ => {}
                    }
                }
                Some(Event::Closed { channel } | Event::Rejected { channel }) => {
                    self.channels.retain(|at| at.id != channel);
                }
                Some(Event::Opened { .. } | Event::Skipped { .. }) => {}
            }
        }
        Some(())
    }

    fn check(&self) {
        let feed = &self.feeds[0];
        let info = feed.info();
        let truth = truth(feed);
        // Nobody signed another length.
        assert!(info.length == 0 || info.length == truth.length(), "{info:?}");
        for block in 0..info.length {
            if feed.has(block) {
                assert_eq!(feed.read(block).expect("it was verified"), truth.blocks[block as usize]);
            }
        }
        assert_eq!(self.feeds[1].info().length, own_blocks().len() as u64);
    }
}

fn book_of(key: FeedKey) -> &'static Book {
    book(key == book(true).feed.key())
}

fn truth(feed: &Feed) -> &'static Book {
    match feed.info().fork {
        0 => book_of(feed.key()),
        1 => rewritten(),
        other => panic!("nobody signed fork {other}"),
    }
}

fn check_served(feed: &Feed, of: usize, data: &Data) {
    if let Some(block) = &data.block {
        match of {
            0 => {
                let books = [book_of(feed.key()), rewritten()];
                assert!(books.iter().any(|book| book.blocks.get(block.index as usize) == Some(&block.value)));
            }
            _ => assert_eq!(own_blocks()[block.index as usize], block.value),
        }
    }
}

fn message(input: &mut Input<'_>) -> Message {
    match input.u8() % 12 {
        0..3 => {
            let flags = input.u8();
            Message::Sync(Sync {
                can_upgrade: flags & 1 == 0,
                uploading: flags & 2 == 0,
                downloading: flags & 4 == 0,
                has_manifest: flags & 8 == 0,
                allow_push: flags & 16 != 0,
                fork: if flags & 32 != 0 { input.uint() >> 11 } else { u64::from(flags >> 7) },
                length: if flags & 64 != 0 { input.uint() >> 11 } else { 21 + 5 * u64::from(flags >> 7) },
                remote_length: u64::from(input.u8() % 27),
            })
        }
        3..6 => {
            let (parts, id) = (input.u8(), u64::from(input.u8() % 8));
            let node = |input: &mut Input<'_>| NodeRequest { index: small(input), nodes: small(input) };
            Message::Request(Request {
                id,
                fork: u64::from(input.u8() > 240),
                block: (parts & 1 != 0).then(|| node(input)),
                hash: (parts & 2 != 0).then(|| node(input)),
                seek: (parts & 4 != 0).then(|| SeekRequest { bytes: small(input), padding: small(input) }),
                upgrade: (parts & 8 != 0).then(|| UpgradeRequest { start: small(input), length: small(input) }),
                manifest: parts & 16 != 0,
                priority: u64::from(parts >> 6),
            })
        }
        6 => Message::Cancel { id: small(input) },
        7 => Message::Want(wanted(input)),
        8 => Message::Unwant(wanted(input)),
        9 => {
            let words = (0..input.below(40)).map(|_| u32::from_le_bytes(input.fixed())).collect();
            Message::Bitfield { start: small(input) / 32 * 32, words }
        }
        _ => Message::Range { drop: input.u8() > 200, start: small(input), length: small(input) },
    }
}

fn wanted(input: &mut Input<'_>) -> Wanted {
    Wanted { start: small(input), length: small(input), any: input.bool() }
}

/// What the wire can carry, mostly around the size of a feed.
fn small(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        small @ 0..230 => u64::from(small % 46),
        _ => (input.uint() >> 11).min(flat::MAX_LENGTH << 12),
    }
}
