//! One connection with all its feeds: brings the remote's messages to the sessions and carries out what they say.
//!
//! A [`Peer`] reads and writes feeds, so it runs on a blocking thread; it has no socket and no clock of its own.

mod answers;
mod ask;
mod channels;
mod cost;
mod history;
mod moves;

use self::{answers::Answers, history::History, moves::Moves};
use crate::{
    feed::{Change, Changed, Feed, Refused},
    key::{DiscoveryKey, FeedKey},
    messages::{DATA, Data, Message, Request},
    offers::{Memory, Room},
    pace::Pace,
    plan::PeerId,
    plans::Plans,
    session::{Action, Asked, Local, Misbehaviour, Question, Session},
    store::Store,
};
use bytes::Bytes;
use datdot_wire::{
    connection::SMALL_FRAME,
    encoding::DecodeError,
    mux::{ChannelError, ChannelId, Event, Frame, Mux, MuxError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

/// Frames come to a step once they have so many bytes, at the latest.
pub const ROUND: usize = 1 << 20;

const PROTOCOL: &str = "hypercore/alpha";
/// Blocks that are asked of a remote at a time, all feeds together: ours once dropped who asked for twice as many.
const MAX_ASKED: usize = 1 << 13;
/// Requests of a remote that wait for their answers, all feeds together. JavaScript's hypercore has at most 512 in flight, but its
/// mirror-drive (1.14) asks for whole files at once. With so many the remote is not read until some are answered: more than
/// [`MAX_ASKED`], or two of ours might wait for each other.
const MAX_WAITING: usize = 1 << 14;
/// Bytes of the remote's that may wait so, copied out of the frames, whose memory all connections share. Who says things in small
/// frames has no more here: of two rounds the second came while a step was taken with the first. With one large frame it is more
/// than a hundred thousand requests.
const MAX_UNREAD: usize = 2 * (ROUND + SMALL_FRAME);
/// Ranges that a remote may want to hear about, all feeds together; JavaScript wants one of each feed at first.
const MAX_WANTS: usize = 1 << 13;
/// After this long a feed is offered again to a remote that rejected it, or closed it as soon as it was open; each time after twice
/// as long as before,
const REOPEN: Duration = Duration::from_secs(5);
/// up to this. If it comes to have the feed, the remote will open it itself.
const REOPEN_AT_MOST: Duration = Duration::from_secs(300);
/// For so long after the last want a channel stays open: who reads block by block need not open it for each.
const LINGER: Duration = Duration::from_secs(10);

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

/// What is left of what came, see [`Peer::receive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    #[default]
    None,
    /// As much as is for other steps.
    Some,
    /// Nothing of it is taken until requests were answered.
    Waits,
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
    /// For what the remotes of all connections say to have.
    pub memory: Memory,
}

pub struct Peer {
    setup: Setup,
    now: Instant,
    mux: Mux,
    channels: BTreeMap<ChannelId, Channel>,
    open: BTreeMap<DiscoveryKey, ChannelId>,
    /// How many of the channels the remote asked for.
    theirs: usize,
    /// Feeds that the remote rejected, or closed at once.
    closed: BTreeMap<DiscoveryKey, Closed>,
    /// What forks have excused on channels that are closed.
    excused: BTreeMap<DiscoveryKey, Moves>,
    /// Feeds that the remote wants and we don't have, with what shows that it knows their keys.
    missed: BTreeMap<DiscoveryKey, [u8; 32]>,
    /// The state of the plans in which all wanted feeds were opened.
    opened: Option<u64>,
    /// There was no room for some of them.
    crowded: bool,
    /// Memory for what the remote says to have.
    room: Room,
    /// The feed that was served last.
    served: Option<ChannelId>,
    /// Channels on which the remote waits for answers, and what it waits for and wants on all of them.
    asking: BTreeSet<ChannelId>,
    load: Load,
    /// Channels whose remote has another length now, which is not answered yet.
    synced: BTreeSet<ChannelId>,
    /// Blocks that were asked for and came, and those that came before the one on whose proof theirs builds.
    came: Vec<Came>,
    early: Vec<Came>,
    /// Feeds that are wanted, and of which a block is under way or missing.
    busy: usize,
    /// A while has passed: what is overdue is to be looked for.
    ticked: bool,
    /// Questions asked, to make the next random number from.
    dice: u64,
}

struct Channel {
    feed: Feed,
    /// The remote asked for it.
    theirs: bool,
    /// What of [`Peer::load`] is its part.
    load: Load,
    /// None until the remote has opened it as well.
    session: Option<Session>,
    pace: Pace,
    /// Blocks that were asked for without what the one before them, which is under way, brings of their proof.
    hopes: BTreeSet<u64>,
    history: History,
    moves: Moves,
    since: Instant,
    /// When something was wanted last.
    wanted: Option<Instant>,
}

/// What a remote has us remember.
#[derive(Clone, Copy, Default)]
struct Load {
    /// Requests that wait.
    waiting: usize,
    wants: usize,
}

/// A feed that the remote does not want to have open.
struct Closed {
    since: Instant,
    /// After this long it is offered again.
    wait: Duration,
    over: bool,
}

/// A block that came.
struct Came {
    id: ChannelId,
    block: u64,
    question: Question,
    data: Box<Data>,
}

impl Peer {
    pub fn new(now: Instant, setup: Setup) -> Peer {
        let mut mux = Mux::new();
        mux.alias("hypercore", PROTOCOL);
        // Secret and different for each connection: as good as thrown.
        let dice = setup.handshake.first_chunk().copied().map_or(0, u64::from_le_bytes);
        Peer {
            room: Room::of(&setup.memory),
            setup,
            now,
            mux,
            channels: BTreeMap::new(),
            open: BTreeMap::new(),
            theirs: 0,
            closed: BTreeMap::new(),
            excused: BTreeMap::new(),
            missed: BTreeMap::new(),
            opened: None,
            crowded: false,
            served: None,
            asking: BTreeSet::new(),
            load: Load::default(),
            synced: BTreeSet::new(),
            came: Vec::new(),
            early: Vec::new(),
            busy: 0,
            ticked: false,
            dice,
        }
    }

    /// Takes what came from the remote, as much of it as is done in one step. If some is left, nothing more should be read until
    /// this was called again, without frames.
    pub fn receive(&mut self, now: Instant, frames: Vec<Bytes>) -> Result<Rest, Fault> {
        self.now = now;
        let (mut touched, mut cost) = (BTreeSet::new(), 0);
        frames.into_iter().for_each(|frame| self.mux.receive(frame));
        while cost < cost::STEP
            && self.load.waiting < MAX_WAITING
            && let Some(event) = self.mux.next()?
        {
            cost += 1;
            let synced = self.synced.len();
            // What else is said counts after the blocks before it.
            if !self.came.is_empty() && !matches!(event, Event::Message { kind: DATA, .. } | Event::Skipped { .. }) {
                self.check_blocks()?;
            }
            match event {
                Event::OpenRequested { request, protocol, id, handshake } => {
                    cost += cost::OPEN;
                    self.requested(request, &protocol, &id, &handshake);
                }
                Event::Opened { channel, handshake } => {
                    self.opened(channel, &handshake)?;
                    touched.insert(channel);
                }
                Event::Message { channel, kind, body } => {
                    if let Some(message) = Message::decode(kind, &body)? {
                        cost += cost::of(&message);
                        self.message(channel, message)?;
                        touched.insert(channel);
                    }
                }
                Event::Rejected { channel } => {
                    if let Some(channel) = self.forget(channel) {
                        self.shut(&channel.feed);
                        self.missed.remove(&channel.feed.discovery());
                    }
                }
                Event::Closed { channel } => self.closed(channel),
                Event::Skipped { messages } => cost += messages as u64,
            }
            cost += cost::SYNC * (self.synced.len() - synced) as u64;
        }
        self.check_blocks()?;
        // However often it says something else: the last word counts.
        std::mem::take(&mut self.synced).into_iter().for_each(|channel| self.tell(channel));
        if self.load.wants > MAX_WANTS {
            return Err(Misbehaviour::Flood.into());
        }
        if std::mem::take(&mut self.ticked) {
            self.check_doubts()?;
        }
        self.count_busy();
        touched.into_iter().for_each(|channel| self.ask(channel));
        let rest = self.rest();
        if rest == Rest::Waits {
            if self.mux.input_len() > MAX_UNREAD {
                return Err(Misbehaviour::Flood.into());
            }
            // It may wait as long as the remote likes, and others for the share of a large frame.
            self.mux.copy_input();
        }
        Ok(rest)
    }

    /// What is left of what came.
    pub fn rest(&self) -> Rest {
        match self.mux.input_len() {
            0 => Rest::None,
            _ if self.load.waiting < MAX_WAITING => Rest::Some,
            _ => Rest::Waits,
        }
    }

    /// Takes what happened to the feeds of the store. `all` if some of it was missed.
    pub fn changed(&mut self, now: Instant, changes: &[Change], all: bool) {
        self.now = now;
        let (mut touched, mut gained) = (BTreeSet::new(), BTreeSet::new());
        for change in merged(changes) {
            let Some(&id) = self.open.get(&change.discovery) else { continue };
            if matches!(change.what, Changed::Removed | Changed::Hidden) {
                self.close_gone(id);
                continue;
            }
            // What we say of ourselves is the same for all of them.
            if touched.insert(id) {
                self.tell(id);
            }
            let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { continue };
            let message = match &change.what {
                Changed::Gained(blocks) => session.tell_gained(blocks.clone()),
                Changed::Lost(blocks) => Some(session.tell_lost(blocks.clone())),
                Changed::Cut { lost, .. } => (!lost.is_empty()).then(|| session.tell_lost(lost.clone())),
                _ => None,
            };
            message.into_iter().for_each(|message| self.say(id, &message));
            self.weigh(id);
            if matches!(change.what, Changed::Gained(_)) {
                gained.insert(id);
            }
        }
        gained.into_iter().for_each(|channel| self.take_back(channel));
        if all {
            let channels: Vec<_> = self.channels.keys().copied().collect();
            channels.into_iter().for_each(|id| self.close_gone(id));
            touched = self.channels.keys().copied().collect();
            for &id in &touched {
                self.tell(id);
                self.take_back(id);
                let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { continue };
                session.tell_all_again().into_iter().for_each(|message| self.say(id, &message));
                self.weigh(id);
            }
        }
        touched.into_iter().for_each(|channel| self.ask(channel));
    }

    /// Something else is wanted of these feeds.
    pub fn wanted(&mut self, now: Instant, feeds: &BTreeSet<FeedKey>) {
        self.now = now;
        for key in feeds {
            let discovery = key.discovery();
            match self.open.get(&discovery).copied() {
                Some(id) => {
                    self.tell(id);
                    self.take_back(id);
                    self.ask(id);
                }
                None if self.setup.plans.is_wanted(key) => self.open_wanted(key, discovery),
                None => {}
            }
        }
    }

    /// Something else may be wanted of any feed.
    pub fn any_wanted(&mut self, now: Instant) {
        let wanted = self.setup.plans.wanted().into_iter().map(|(key, _)| key);
        let feeds = wanted.chain(self.channels.values().map(|channel| channel.feed.key())).collect();
        self.wanted(now, &feeds);
    }

    /// Opens what is wanted and asks again what is late; to be called now and then.
    pub fn tick(&mut self, now: Instant) {
        (self.now, self.ticked) = (now, true);
        let mut again = false;
        self.closed.retain(|_, closed| {
            let passed = now.duration_since(closed.since);
            let before = std::mem::replace(&mut closed.over, passed >= closed.wait);
            again |= closed.over && !before;
            passed < closed.wait + REOPEN_AT_MOST
        });
        let version = self.setup.plans.version();
        let new = self.opened.replace(version) != Some(version);
        if new || again || self.crowded && self.has_room(false) {
            self.crowded = false;
            for (key, discovery) in self.setup.plans.wanted() {
                match self.open.get(&discovery).copied() {
                    // The remote has opened it.
                    Some(id) if new => self.tell(id),
                    Some(_) => {}
                    None => self.open_wanted(&key, discovery),
                }
            }
        }
        self.open_missed();
        self.count_busy();
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for id in channels {
            let Some(Channel { feed, session: Some(session), wanted, .. }) = self.channels.get(&id) else { continue };
            // What is complete and idle costs nothing.
            let behind = session.is_longer() || session.is_later();
            if wanted.is_some() && (session.in_flight() > 0 || behind || !feed.info().is_complete())
                || wanted.is_some_and(|wanted| now.duration_since(wanted) > LINGER)
            {
                self.tell(id);
                self.ask(id);
            }
        }
    }

    /// Answers requests until so many bytes are queued, or the step is done. Says whether requests are left.
    pub fn serve(&mut self, now: Instant, limit: usize) -> Result<bool, Fault> {
        self.now = now;
        let (mut cost, mut answers) = (0, Answers::default());
        // One request of each feed in turn, from where the last step ended.
        while let Some(id) = self.next_asking()
            && self.mux.output_len() + answers.bytes < limit
            && cost < cost::STEP
        {
            self.served = Some(id);
            let Some(Channel { feed, session: Some(session), .. }) = self.channels.get_mut(&id) else { break };
            let feed = feed.clone();
            // Beside each want a request: what is wanted may be told again and again.
            let look = session.next_look();
            let message = look.and_then(|wanted| feed.with_blocks(|have| session.bits(wanted, have)));
            cost += look.as_ref().map_or(0, cost::of_look);
            let request = session.next_request();
            cost += request.as_ref().map_or(0, |_| cost::REQUEST);
            let repeated = request.as_ref().is_some_and(|request| session.is_repeated(now, request));
            let told = session.told();
            self.weigh(id);
            message.into_iter().for_each(|message| self.say(id, &message));
            match request {
                Some(Request { id: request, .. }) if repeated => {
                    self.say(id, &Message::NoData { id: request, reason: None });
                }
                Some(request) => {
                    answers.add(id, &feed, request);
                    // An answer proves itself by the newest head. A reader that has not heard of that length before misses our next
                    // word about it, and waits for ever (hypercore 11.37, `_updateCanUpgradeAndSync`); one that has not heard of a
                    // fork asks for the old one again and again.
                    let info = feed.info();
                    if (info.fork, info.length) > told {
                        self.tell(id);
                    }
                }
                None => {}
            }
            if answers.are_many() {
                self.say_answers(std::mem::take(&mut answers))?;
            }
        }
        self.say_answers(answers)?;
        Ok(self.has_requests())
    }

    pub fn has_requests(&self) -> bool {
        !self.asking.is_empty()
    }

    /// The channel whose turn it is to be answered.
    fn next_asking(&self) -> Option<ChannelId> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        self.asking.range((after, Bound::Unbounded)).next().or(self.asking.first()).copied()
    }

    /// Counts what the remote waits for on a channel, after some was said or answered.
    fn weigh(&mut self, id: ChannelId) {
        let Some(Channel { session: Some(session), load, .. }) = self.channels.get_mut(&id) else { return };
        let now = Load { waiting: session.waiting(), wants: session.wants() };
        let before = std::mem::replace(load, now);
        self.load.waiting = self.load.waiting + now.waiting - before.waiting;
        self.load.wants = self.load.wants + now.wants - before.wants;
        match session.has_requests() {
            true => self.asking.insert(id),
            false => self.asking.remove(&id),
        };
    }

    fn count_busy(&mut self) {
        // What is complete and followed takes nothing from the others.
        let asks =
            |channel: &&Channel| channel.wanted.is_some() && channel.session.as_ref().is_some_and(Session::is_busy);
        self.busy = self.channels.values().filter(asks).count();
    }

    /// Bytes that have to be sent now, about.
    pub fn output_len(&self) -> usize {
        self.mux.output_len()
    }

    /// What has to be sent now.
    pub fn take_output(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.mux.take_frame()).collect()
    }

    fn message(&mut self, id: ChannelId, message: Message) -> Result<(), Fault> {
        let Some(Channel { session: Some(session), moves, .. }) = self.channels.get_mut(&id) else { return Ok(()) };
        let action = session.receive(message)?;
        match action {
            None => {}
            Some(Action::Synced) => {
                moves.told(session.remote().map_or(0, |sync| sync.fork), session.next_id());
                self.synced.insert(id);
            }
            Some(Action::Check(data, question @ Question { asked: Asked::Block(block), .. })) => {
                self.came.push(Came { id, block, question, data });
            }
            Some(Action::Check(data, question)) => {
                self.check_blocks()?;
                self.check(id, &data, question)?;
            }
            Some(Action::Shown(data)) => self.shown(id, &data),
            Some(Action::Refused(question)) => self.refused(id, question.asked),
            Some(Action::Close) => self.close(id),
        }
        self.weigh(id);
        Ok(())
    }

    /// Tells the remote our side if it is news, and closes the channel if nobody needs it any more.
    fn tell(&mut self, id: ChannelId) {
        let Some(Channel { session: Some(session), .. }) = self.channels.get(&id) else { return };
        let (told, remote) = (session.told(), session.remote().map_or(0, |sync| sync.length));
        let Some(local) = self.local(id, remote) else { return };
        let Some(Channel { session: Some(session), .. }) = self.channels.get_mut(&id) else { return };
        let message = session.tell(local);
        let idle = session.is_idle();
        message.into_iter().for_each(|message| self.say(id, &message));
        match idle {
            true => self.close(id),
            // Answers about the old history are of no use, and whoever had left it refused to give any.
            false if local.fork != told.0 => self.take_all_back(id),
            false => {}
        }
    }

    fn local(&mut self, id: ChannelId, remote_length: u64) -> Option<Local> {
        let Channel { feed, wanted, .. } = self.channels.get_mut(&id)?;
        if self.setup.plans.is_wanted(&feed.key()) {
            *wanted = Some(self.now);
        }
        wanted.take_if(|wanted| self.now.duration_since(*wanted) > LINGER);
        let info = feed.info();
        Some(Local {
            fork: info.fork,
            length: info.length,
            contiguous: info.contiguous,
            has_manifest: feed.authors().is_some_and(|authors| authors.to_wire().is_some()),
            downloading: wanted.is_some(),
            can_upgrade: feed.can_upgrade(remote_length),
        })
    }

    fn say(&mut self, id: ChannelId, message: &Message) {
        let (kind, body, block) = message.encode_around();
        // A channel that has gone meanwhile needs no answers.
        if let Err(error) = self.mux.send_around(id, kind, &body, (block, &message.block())) {
            tracing::debug!(target: "hypercore", %error, "message not sent");
            // A block that was stored before there was a limit: the remote must not wait for it.
            if let (ChannelError::TooLarge(_), Message::Data(data)) = (error, message) {
                self.say(id, &Message::NoData { id: data.id, reason: None });
            }
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
        if let (Some(Change { key, what: Changed::Gained(before), .. }), Changed::Gained(blocks)) =
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
