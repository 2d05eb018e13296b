//! One peer, and a remote that is played by hand: it speaks the protocol and says what the test wants. No sockets, no clock.

use bytes::Bytes;
use datdot_hypercore::{
    Change, Fault, Feed, FeedKey, Store, Want,
    messages::{Handshake, Message, Request, Sync},
    peer::{Peer, Rest, Setup},
    plans::Plans,
};
use datdot_wire::mux::{ChannelId, Event, Mux};
use std::{
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{broadcast, watch};

/// The handshake's hash of all connections that are played by hand.
pub const HASH: [u8; 64] = [5; 64];

/// A peer that wants all of a feed, connected to the one remote that has it.
pub struct Played {
    pub feed: Feed,
    store: Store,
    plans: Arc<Plans>,
    peer: Peer,
    now: Instant,
    changes: broadcast::Receiver<Change>,
    remote: Mux,
    channel: ChannelId,
    /// What the peer has said since it was looked at.
    heard: Vec<Message>,
    /// Steps that the peer needed for what it was told last.
    pub steps: usize,
}

impl Played {
    /// The peer knows the feed by its key, or as far as `known` has it.
    pub fn new(dir: &Path, key: FeedKey, known: Option<&Feed>) -> Played {
        let store = Store::open(dir).expect("the folder is free");
        let feed = store.open_remote(key, known.and_then(Feed::signed_head)).expect("an honest head");
        let plans = Arc::<Plans>::default();
        plans.want(key, Want::all(), 1, false);
        Played::connect(store, plans, feed, 1, Instant::now())
    }

    /// The same reader's connection to another remote.
    pub fn beside(&self, id: u64) -> Played {
        Played::connect(self.store.clone(), self.plans.clone(), self.feed.clone(), id, self.now)
    }

    fn connect(store: Store, plans: Arc<Plans>, feed: Feed, id: u64, now: Instant) -> Played {
        let (changes, key) = (store.changes(), feed.key());
        let setup = Setup { id, ..setup(&store, &plans) };
        let (peer, mut remote) = (Peer::new(now, setup), Mux::new());
        let channel = open(&mut remote, &key, false, &HASH);
        Played { feed, store, plans, peer, now, changes, remote, channel, heard: Vec::new(), steps: 0 }
    }

    /// The remote closes the feed's channel, and opens it again.
    pub fn reopen(&mut self) -> Result<(), Fault> {
        self.remote.close(self.channel);
        self.channel = open(&mut self.remote, &self.feed.key(), false, &HASH);
        self.exchange()
    }

    /// The remote opens another feed, which is here too, and talks about that from now on.
    pub fn open_another(&mut self, name: u8) -> Result<(), Fault> {
        let feed = self.store.create(&super::keypair(100 + name)).expect("room");
        feed.write(&[Bytes::from_static(b"something")]).expect("an author appends");
        self.channel = open(&mut self.remote, &feed.key(), false, &HASH);
        self.exchange()
    }

    /// The remote says something, and hears all that follows.
    pub fn say(&mut self, message: &Message) -> Result<(), Fault> {
        self.say_all(std::slice::from_ref(message))
    }

    /// It says several things at once.
    pub fn say_all(&mut self, messages: &[Message]) -> Result<(), Fault> {
        for message in messages {
            say(&mut self.remote, self.channel, message);
        }
        self.exchange()
    }

    /// It has all blocks of a head.
    pub fn offer(&mut self, fork: u64, length: u64) -> Result<(), Fault> {
        let (uploading, can_upgrade, has_manifest) = (true, true, true);
        self.say(&Message::Sync(Sync { uploading, can_upgrade, has_manifest, fork, length, ..Sync::default() }))?;
        self.say(&Message::Range { drop: false, start: 0, length })
    }

    /// The peer wants more, until it wants it no longer.
    pub fn want(&self, who: u64, blocks: Range<u64>, urgent: bool) {
        self.plans.want(self.feed.key(), Want::blocks(blocks), who, urgent);
    }

    /// The peer wants no longer what it wanted under this number; under 1 it wanted everything.
    pub fn unwant(&self, who: u64) {
        self.plans.unwant(&self.feed.key(), who);
    }

    /// The peer looks for a byte, without a question so far. Changes when nobody has to be asked about it any more.
    pub fn look(&self, byte: u64) -> watch::Receiver<u64> {
        self.plans.seek(&self.feed.key(), byte).0
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) -> Result<(), Fault> {
        self.now += time;
        self.exchange()
    }

    /// What the peer has said since it was looked at.
    pub fn heard(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.heard)
    }

    /// What the peer asked for since it was looked at, but what it took back.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for message in self.heard() {
            match message {
                Message::Request(request) => requests.push(request),
                Message::Cancel { id } => requests.retain(|request: &Request| request.id != id),
                _ => {}
            }
        }
        requests
    }

    fn exchange(&mut self) -> Result<(), Fault> {
        self.peer.tick(self.now);
        let mut frames = std::iter::from_fn(|| self.remote.take_output()).map(Bytes::from).collect();
        self.steps = 1;
        while self.peer.receive(self.now, std::mem::take(&mut frames))? == Rest::Some {
            self.steps += 1;
        }
        let changes: Vec<_> = std::iter::from_fn(|| self.changes.try_recv().ok()).collect();
        self.peer.changed(self.now, &changes, false);
        self.peer.serve(self.now, 1 << 20)?;
        self.peer.take_output().into_iter().for_each(|frame| self.remote.receive(frame.into()));
        while let Some(event) = self.remote.next().expect("the peer speaks as an honest end does") {
            if let Event::Message { kind, body, .. } = event {
                self.heard.extend(Message::decode(kind, &body).expect("readable"));
            }
        }
        Ok(())
    }
}

/// What an initiator's connection is made with.
pub fn setup(store: &Store, plans: &Arc<Plans>) -> Setup {
    let (store, plans, memory) = (store.clone(), plans.clone(), Default::default());
    Setup { id: 1, initiator: true, handshake: HASH, store, plans, window: 8, memory }
}

/// Opens the channel of a feed, as one of the two ends.
pub fn open(mux: &mut Mux, key: &FeedKey, initiator: bool, hash: &[u8; 64]) -> ChannelId {
    let handshake = Handshake { seeks: true, capability: key.capability(initiator, hash) };
    mux.open("hypercore/alpha", &key.discovery().0, &handshake.encode()).expect("room for a channel")
}

/// Says something on a channel that is open.
pub fn say(mux: &mut Mux, channel: ChannelId, message: &Message) {
    let (kind, body) = message.encode();
    mux.send(channel, kind, &body).expect("the channel is open");
}
