//! One connection with all its feeds: brings the remote's messages to the sessions and carries out what they say.
//!
//! A [`Peer`] reads and writes feeds, so it runs on a blocking thread; it has no socket and no clock of its own.

mod history;

use self::history::History;
use crate::{
    feed::{Change, Changed, Feed, FeedError, Info, Located, Refused},
    key::{DiscoveryKey, FeedKey},
    messages::{Data, Handshake, Message, Refusal, Request},
    pace::Pace,
    plan::PeerId,
    plans::{Plans, Stopped},
    prove::ProveError,
    session::{Action, Asked, Local, Misbehaviour, Session},
    store::Store,
};
use bytes::Bytes;
use datdot_proof::flat;
use datdot_wire::{
    encoding::DecodeError,
    mux::{ChannelError, ChannelId, Event, Mux, MuxError, RequestId},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

const PROTOCOL: &str = "hypercore/alpha";
/// Feeds that one connection may have open.
const MAX_FEEDS: usize = 4096;
/// After this long a feed is offered again to a remote that rejected or closed it.
const REOPEN: Duration = Duration::from_secs(5);

/// Why a remote is dropped.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// What it sent is no mux.
    #[error(transparent)]
    Mux(#[from] MuxError),
    /// A message of a feed's channel can't be read.
    #[error("unreadable message: {0}")]
    Message(#[from] DecodeError),
    /// It does not know the key of the feed that it opened, or accepted.
    #[error("the remote does not know the key of feed {feed}")]
    Capability {
        /// The feed.
        feed: FeedKey,
    },
    /// It sent something that its author did not write.
    #[error("feed {feed}: {refused}")]
    False {
        /// The feed.
        feed: FeedKey,
        /// What is wrong.
        refused: Refused,
    },
    /// It asks for too much.
    #[error(transparent)]
    Misbehaviour(#[from] Misbehaviour),
}

/// What a connection is made with.
pub struct Setup {
    pub id: PeerId,
    pub initiator: bool,
    pub handshake: [u8; 64],
    pub store: Store,
    pub plans: Arc<Plans>,
    /// Blocks asked of the remote at a time and feed.
    pub window: usize,
}

pub struct Peer {
    setup: Setup,
    mux: Mux,
    channels: BTreeMap<ChannelId, Channel>,
    open: BTreeMap<DiscoveryKey, ChannelId>,
    /// Feeds that the remote closed or rejected.
    closed: BTreeMap<DiscoveryKey, Instant>,
}

struct Channel {
    feed: Feed,
    /// None until the remote has opened it as well.
    session: Option<Session>,
    pace: Pace,
    history: History,
}

impl Peer {
    pub fn new(setup: Setup) -> Peer {
        let mut mux = Mux::new();
        mux.alias("hypercore", PROTOCOL);
        Peer { setup, mux, channels: BTreeMap::new(), open: BTreeMap::new(), closed: BTreeMap::new() }
    }

    /// Takes what came from the remote.
    pub fn receive(&mut self, now: Instant, frames: Vec<Bytes>) -> Result<(), Fault> {
        let mut touched = Vec::new();
        frames.into_iter().for_each(|frame| self.mux.receive(frame));
        while let Some(event) = self.mux.next()? {
            match event {
                Event::OpenRequested { request, protocol, id, handshake } => {
                    self.requested(request, &protocol, &id, &handshake)?;
                }
                Event::Opened { channel, handshake } => {
                    self.opened(channel, &handshake)?;
                    touched.push(channel);
                }
                Event::Message { channel, kind, body } => {
                    if let Some(message) = Message::decode(kind, &body)? {
                        self.message(now, channel, message)?;
                        touched.push(channel);
                    }
                }
                Event::Closed { channel } | Event::Rejected { channel } => {
                    if let Some(discovery) = self.forget(channel) {
                        self.closed.insert(discovery, now);
                    }
                }
            }
            touched.dedup();
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|channel| self.ask(now, channel));
        Ok(())
    }

    /// Takes what happened to the feeds of the store. `all` if some of it was missed.
    pub fn changed(&mut self, now: Instant, changes: &[Change], all: bool) {
        let mut touched = Vec::new();
        for change in merged(changes) {
            let Some(&id) = self.open.get(&change.key.discovery()) else { continue };
            if change.what == Changed::Removed {
                self.mux.close(id);
                self.forget(id);
                continue;
            }
            self.tell(id);
            let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { continue };
            let message = match change.what {
                Changed::Gained(blocks) => session.tell_gained(blocks),
                Changed::Lost(blocks) => Some(session.tell_lost(blocks)),
                Changed::Grown | Changed::Removed => None,
            };
            message.into_iter().for_each(|message| self.say(id, &message));
            touched.push(id);
        }
        if all {
            touched = self.channels.keys().copied().collect();
            for &id in &touched {
                self.tell(id);
                let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { continue };
                session.tell_all_again().into_iter().for_each(|message| self.say(id, &message));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|channel| self.ask(now, channel));
    }

    /// Opens what is wanted and asks again what is late; to be called now and then.
    pub fn tick(&mut self, now: Instant) {
        self.closed.retain(|_, since| now.duration_since(*since) < REOPEN);
        for key in self.setup.plans.wanted() {
            let discovery = key.discovery();
            if self.open.contains_key(&discovery) || self.closed.contains_key(&discovery) {
                continue;
            }
            let Some(feed) = self.setup.store.feed(&key) else {
                self.setup.plans.stop(&key, Stopped::Replaced);
                continue;
            };
            // With too many channels it stays closed: the remote has the others to get done first.
            if self.open(feed).is_err() {
                break;
            }
        }
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for channel in channels {
            self.tell(channel);
            self.ask(now, channel);
        }
    }

    /// Answers requests until so many bytes are queued. Says whether requests are left.
    pub fn serve(&mut self, limit: usize) -> Result<bool, Fault> {
        loop {
            let mut left = false;
            let channels: Vec<_> = self.channels.keys().copied().collect();
            // One request of each feed in turn.
            for id in channels {
                let Some(Channel { feed, session: Some(session), .. }) = self.channels.get_mut(&id) else { continue };
                if self.mux.output_len() >= limit {
                    return Ok(left || session.has_requests() || self.has_requests());
                }
                if let Some(wanted) = session.next_look() {
                    left = true;
                    if let Some(message) = feed.with_blocks(|have| session.bits(wanted, have)) {
                        self.say(id, &message);
                    }
                    continue;
                }
                let Some(request) = session.next_request() else { continue };
                left = true;
                let (messages, valid) = answer(feed, &request);
                if !valid {
                    session.invalid_request()?;
                }
                // An answer proves itself by the newest head. A reader that has not heard of that length before misses our next
                // word about it, and waits for ever (hypercore 11.37, `_updateCanUpgradeAndSync`).
                if feed.info().length > session.told_length() {
                    self.tell(id);
                }
                messages.iter().for_each(|message| self.say(id, message));
            }
            if !left {
                return Ok(false);
            }
        }
    }

    pub fn has_requests(&self) -> bool {
        self.channels.values().any(|channel| channel.session.as_ref().is_some_and(Session::has_requests))
    }

    /// What has to be sent now.
    pub fn take_output(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.mux.take_output()).collect()
    }

    fn handshake(&self, feed: &Feed, initiator: bool) -> Handshake {
        Handshake { seeks: true, capability: feed.key().capability(initiator, &self.setup.handshake) }
    }

    fn open(&mut self, feed: Feed) -> Result<(), ChannelError> {
        let discovery = feed.discovery();
        let handshake = self.handshake(&feed, self.setup.initiator);
        let id = self.mux.open(PROTOCOL, &discovery.0, &handshake.encode())?;
        self.open.insert(discovery, id);
        self.channels.insert(id, Channel { feed, session: None, pace: Pace::default(), history: History::Ours });
        Ok(())
    }

    fn requested(&mut self, request: RequestId, protocol: &str, id: &[u8], handshake: &[u8]) -> Result<(), Fault> {
        let discovery = id.try_into().map(DiscoveryKey).ok().filter(|_| protocol == PROTOCOL);
        let free = |discovery: &DiscoveryKey| !self.open.contains_key(discovery) && self.channels.len() < MAX_FEEDS;
        let feed = discovery.filter(free).and_then(|discovery| self.setup.store.find(&discovery));
        // Who does not know the key learns nothing but that: not even that the feed is here.
        let theirs = Handshake::decode(handshake).ok();
        let expected = |feed: &Feed| self.handshake(feed, !self.setup.initiator).capability;
        let feed = feed.filter(|feed| theirs.is_some_and(|theirs| theirs.capability == expected(feed)));
        if feed.is_none_or(|feed| self.open(feed).is_err()) {
            self.mux.reject(request);
        }
        Ok(())
    }

    fn opened(&mut self, id: ChannelId, handshake: &[u8]) -> Result<(), Fault> {
        let Some(channel) = self.channels.get(&id) else { return Ok(()) };
        let feed = channel.feed.clone();
        if Handshake::decode(handshake)?.capability != self.handshake(&feed, !self.setup.initiator).capability {
            return Err(Fault::Capability { feed: feed.key() });
        }
        let (session, first) = Session::new(self.local(&feed, 0));
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.session = Some(session);
        }
        first.iter().for_each(|message| self.say(id, message));
        Ok(())
    }

    fn forget(&mut self, id: ChannelId) -> Option<DiscoveryKey> {
        let channel = self.channels.remove(&id)?;
        self.setup.plans.with(&channel.feed.key(), |plan| plan.gone(self.setup.id));
        self.open.remove(&channel.feed.discovery()).map(|_| channel.feed.discovery())
    }

    fn message(&mut self, now: Instant, id: ChannelId, message: Message) -> Result<(), Fault> {
        let Some(Channel { feed, session: Some(session), .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        match session.receive(message)? {
            None => {}
            Some(Action::Send(message)) => self.say(id, &message),
            Some(Action::Synced) => self.tell(id),
            Some(Action::Check(data, asked)) => {
                let feed = feed.clone();
                if let (Asked::Block(block), Some(channel)) = (asked, self.channels.get_mut(&id)) {
                    channel.pace.arrived(now, block);
                }
                self.check(id, &feed, &data, asked)?;
            }
            Some(Action::Refused(asked)) => {
                let key = feed.key();
                match asked {
                    Asked::Whole | Asked::Hash(_) => self.give_up(id),
                    Asked::Block(block) => self.channels.get_mut(&id).into_iter().for_each(|at| at.pace.failed(block)),
                    Asked::Upgrade | Asked::Seek { .. } => {}
                }
                self.settle(&key, asked, false);
            }
            Some(Action::Close) => {
                self.mux.close(id);
                self.forget(id);
            }
        }
        Ok(())
    }

    fn check(&mut self, id: ChannelId, feed: &Feed, data: &Data, asked: Asked) -> Result<(), Fault> {
        let key = feed.key();
        if matches!(asked, Asked::Whole | Asked::Hash(_)) {
            return self.look_into(id, feed, data, asked);
        }
        let fits = match asked {
            Asked::Block(index) => {
                data.upgrade.is_none() && data.block.as_ref().is_some_and(|block| block.index == index)
            }
            Asked::Upgrade => data.upgrade.is_some() && data.block.is_none(),
            Asked::Whole | Asked::Hash(_) => false,
            Asked::Seek { index, .. } => {
                let hash = data.hash.as_ref().is_some_and(|hash| hash.index == index);
                hash && data.upgrade.is_none() && data.block.is_none()
            }
        };
        let result = if fits { feed.accept(data) } else { Err(Refused::TooShort) };
        match result {
            Ok(()) => self.settle(&key, asked, true),
            Err(refused)
                if asked == Asked::Upgrade && fits && refused.is_peers_fault() && data.fork == feed.info().fork =>
            {
                self.settle(&key, asked, false);
                self.doubt(id, refused)?;
            }
            Err(refused) if refused.is_peers_fault() => return Err(Fault::False { feed: key, refused }),
            Err(refused) => {
                tracing::debug!(target: "hypercore", feed = %key, %refused, "answer not used");
                self.settle(&key, asked, false);
                match &refused {
                    Refused::Feed(FeedError::Removed) => self.setup.plans.stop(&key, Stopped::Replaced),
                    Refused::Feed(error) => self.setup.plans.stop(&key, Stopped::Disk(error.to_string())),
                    Refused::Unsupported(error) => self.setup.plans.stop(&key, Stopped::Unsupported(error.to_string())),
                    _ => {}
                }
            }
        }
        if asked == Asked::Upgrade {
            self.tell(id);
        }
        Ok(())
    }

    fn settle(&self, feed: &FeedKey, asked: Asked, well: bool) {
        let peer = self.setup.id;
        self.setup.plans.with(feed, |plan| match (asked, well) {
            (Asked::Block(block), true) => _ = plan.arrived(peer, block),
            (Asked::Block(block), false) => plan.failed(peer, block),
            (Asked::Upgrade, _) => plan.head_settled(peer),
            (Asked::Whole | Asked::Hash(_), _) => {}
            (Asked::Seek { byte, .. }, _) => {
                plan.seek_settled(byte);
                self.setup.plans.seeks.send_modify(|count| *count += 1);
            }
        });
    }

    /// Asks the remote for what is wanted and it has, up to the window.
    fn ask(&mut self, now: Instant, id: ChannelId) {
        let Some(Channel { feed, session: Some(session), pace, history }) = self.channels.get_mut(&id) else { return };
        let Info { length, bytes, .. } = feed.info();
        let (peer, window) = (self.setup.id, pace.window(bytes.checked_div(length).unwrap_or(0), self.setup.window));
        let mut messages = Vec::new();
        messages.extend(history.ask(feed, session));
        self.setup.plans.with(&feed.key(), |plan| {
            if !session.serves() {
                return;
            }
            let longer = session.remote().is_some_and(|remote| remote.length > length);
            if longer && feed.conflict().is_none() && plan.ask_head(now, peer, length) {
                messages.extend(session.ask_upgrade());
            }
            while let Some((byte, (index, nodes))) = plan.ask_seek(now, peer, |byte| match feed.locate(byte) {
                Ok(Located::Under(node)) => {
                    let block = session.next_offer(flat::first_block(node)..flat::end_block(node))?;
                    Some((flat::leaf(block), u64::from(flat::depth(node))))
                }
                _ => None,
            }) {
                messages.push(session.ask_seek(byte, index, nodes));
            }
            let mut blocks = Vec::new();
            feed.with_blocks(|have| {
                while session.in_flight() + blocks.len() < window {
                    let offer = |range| session.next_offer(range);
                    let Some(block) = plan.ask_block(now, peer, length, have, offer) else { break };
                    blocks.push(block);
                }
                if blocks.is_empty() {
                    for block in plan.first_missing(length, have) {
                        if !session.offers(block) {
                            messages.extend(session.want_around(block));
                        }
                    }
                }
            });
            for block in blocks {
                match feed.steps_to_known(block) {
                    Ok(nodes) => {
                        pace.asked(now, block);
                        messages.push(session.ask_block(block, nodes));
                    }
                    Err(error) => {
                        tracing::warn!(target: "hypercore", %error, "the tree can't be read");
                        plan.failed(peer, block);
                        break;
                    }
                }
            }
        });
        messages.iter().for_each(|message| self.say(id, message));
    }

    /// Tells the remote our side if it is news.
    fn tell(&mut self, id: ChannelId) {
        let Some(Channel { feed, session: Some(session), .. }) = self.channels.get(&id) else { return };
        let (feed, remote) = (feed.clone(), session.remote().map_or(0, |sync| sync.length));
        let local = self.local(&feed, remote);
        let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { return };
        if let Some(message) = session.tell(local) {
            self.say(id, &message);
        }
    }

    fn local(&self, feed: &Feed, remote_length: u64) -> Local {
        let info = feed.info();
        Local {
            fork: info.fork,
            length: info.length,
            contiguous: info.contiguous,
            has_manifest: feed.authors().is_some_and(|authors| authors.to_wire().is_some()),
            downloading: self.setup.plans.is_wanted(&feed.key()),
            can_upgrade: feed.can_upgrade(remote_length),
        }
    }

    fn say(&mut self, id: ChannelId, message: &Message) {
        let (kind, body) = message.encode();
        // A channel that has gone meanwhile needs no answers; our messages are never too large.
        if let Err(error) = self.mux.send(id, kind, &body) {
            tracing::debug!(target: "hypercore", %error, "message not sent");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for channel in self.channels.values() {
            self.setup.plans.with(&channel.feed.key(), |plan| plan.gone(self.setup.id));
        }
    }
}

/// The same changes, blocks that came one after the other as one.
fn merged(changes: &[Change]) -> Vec<Change> {
    let mut merged: Vec<Change> = Vec::new();
    for change in changes {
        if let (Some(Change { key, what: Changed::Gained(before) }), Changed::Gained(blocks)) =
            (merged.last_mut(), &change.what)
            && *key == change.key
            && before.end == blocks.start
        {
            before.end = blocks.end;
        } else {
            merged.push(change.clone());
        }
    }
    merged
}

/// The answer to a request, and whether the request made sense.
fn answer(feed: &Feed, request: &Request) -> (Vec<Message>, bool) {
    let refuse = |reason| Message::NoData { id: request.id, reason: Some(reason) };
    match feed.answer(request) {
        Ok(data) => (vec![Message::Data(Box::new(data))], true),
        Err(ProveError::Invalid { .. }) => (vec![refuse(Refusal::Invalid)], false),
        Err(error) => {
            tracing::debug!(target: "hypercore", feed = %feed.key(), %error, "request refused");
            let mut messages = vec![refuse(Refusal::NotAvailable)];
            if let ProveError::Read(FeedError::NotHere { block: start } | FeedError::Damaged { block: start }) = error {
                // A reader stops asking a peer that refuses what it seems to have.
                messages.insert(0, Message::Range { drop: true, start, length: 1 });
            }
            (messages, true)
        }
    }
}
