//! One feed on one connection: the protocol as a state machine, without I/O and clock.
//!
//! A [`Session`] keeps what the two sides have told each other, and says what to do next. Its owner reads and
//! writes the feed. What a seeder must do so that JavaScript reads from it at full speed is all here: a
//! sync for each sync that brings news, ranges and bitfields for what is wanted, drops before refusals.

mod regions;
mod waiting;

use self::waiting::Waiting;
use crate::{
    blocks::Blocks,
    messages::{Data, Message, NodeRequest, Request, SeekRequest, Sync, UpgradeRequest, Wanted},
    offers::Offers,
};
use datdot_proof::flat;
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

/// Ranges that a peer may want to hear about; JavaScript sends at most this many.
const MAX_WANTS: usize = 512;
/// The largest range that can be wanted, in blocks.
const MAX_WANT: u64 = 1 << 21;
/// Changes in so many last blocks are told without being wanted.
const LAST_BLOCKS: u64 = 256;
/// For so long nobody is shown the same whole head again.
const SHOWN: Duration = Duration::from_secs(2);
/// After this long a head, or another history, that was refused is asked for again.
pub const REFUSED: Duration = Duration::from_secs(10);
/// Requests of a peer that nobody could answer, until it is dropped.
const MAX_INVALID: u32 = 64;

/// Our side of the feed, as far as it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Rewrites.
    pub fork: u64,
    /// Blocks of our head.
    pub length: u64,
    /// First block that is not here.
    pub contiguous: u64,
    /// We know the manifest of a v1 feed.
    pub has_manifest: bool,
    /// We want blocks or newer heads.
    pub downloading: bool,
    /// We have the nodes that prove our head to a peer of the remote's length.
    pub can_upgrade: bool,
}

/// What the owner has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// The remote has another length now: find out [`Local::can_upgrade`] for it, then call [`Session::tell`].
    Synced,
    /// Verify the answer to what was asked, and store it.
    Check(Box<Data>, Question),
    /// The remote shows a head that nobody asked for: compare it with ours.
    Shown(Box<Data>),
    /// The remote does not have it after all.
    Refused(Question),
    /// Neither side wants anything: close the channel.
    Close,
}

/// A question that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Counts up with each.
    pub id: u64,
    /// The fork that it is about.
    pub fork: u64,
    /// What was asked for.
    pub asked: Asked,
    /// The node, if one, that we said to have: the answer has to lead to it.
    pub top: Option<u64>,
}

/// What we asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A block.
    Block(u64),
    /// A newer head than the first so many blocks.
    Upgrade(u64),
    /// A head from its first block on, to compare it with ours.
    Whole,
    /// A node of another fork's tree, with siblings.
    Hash(u64),
    /// The nodes that lead to a byte.
    Seek {
        /// Offset in the feed.
        byte: u64,
        /// The node that was asked for along with it.
        index: u64,
    },
}

/// The remote does what no honest peer does: drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// More requests in one frame, or ranges wanted, than anybody needs.
    #[error("it asks for too much at a time")]
    Flood,
    /// Requests that make no sense, again and again.
    #[error("too many requests that nobody could answer")]
    Nonsense,
}

/// The state of one channel.
#[derive(Debug)]
pub struct Session {
    told: Sync,
    local: Local,
    remote: Option<Sync>,
    /// The shortest length that it told of its fork: where its author cut, if we were there.
    cut: u64,
    /// The head, fork and length, that it was asked to prove last, and when; and the one for which it refused.
    asked_head: (u64, u64),
    asked_at: Option<Instant>,
    refused_head: Option<(u64, u64)>,
    /// Fork and length of the whole head that it was shown last, and when.
    shown: Option<((u64, u64), Instant)>,
    offers: Offers,
    wants: Vec<Wanted>,
    /// It wants to hear about more than is kept in `wants`: about everything, then.
    wants_all: bool,
    /// Wants that were not answered yet, or have to be answered anew.
    looks: VecDeque<Wanted>,
    /// The regions, of [`MAX_WANT`] blocks each, that the remote was asked about, and when; the newest comes last.
    our_wants: Vec<(u64, Instant)>,
    waiting: Waiting,
    invalid: u32,
    asked: BTreeMap<u64, Question>,
    /// The questions for blocks among them.
    blocks: BTreeMap<u64, u64>,
    next_id: u64,
    /// The length for which the remote heard that everything is here.
    told_complete: u64,
}

impl Session {
    /// A channel that has just opened, and what to say first.
    pub fn new(local: Local, offers: Offers) -> (Session, Vec<Message>) {
        let mut session = Session {
            told: Sync::default(),
            local,
            remote: None,
            cut: u64::MAX,
            asked_head: (0, 0),
            asked_at: None,
            shown: None,
            refused_head: None,
            offers,
            wants: Vec::new(),
            wants_all: false,
            looks: VecDeque::new(),
            our_wants: Vec::new(),
            waiting: Waiting::default(),
            invalid: 0,
            asked: BTreeMap::new(),
            blocks: BTreeMap::new(),
            next_id: 1,
            told_complete: if local.contiguous == local.length { local.length } else { 0 },
        };
        session.told = session.sync();
        let mut first = vec![Message::Sync(session.told)];
        if local.contiguous > 0 {
            first.push(Message::Range { drop: false, start: 0, length: local.contiguous });
        }
        (session, first)
    }

    /// What the remote said of itself last.
    pub fn remote(&self) -> Option<&Sync> {
        self.remote.as_ref()
    }

    /// Fork and length that the remote knows us to have.
    pub fn told(&self) -> (u64, u64) {
        (self.told.fork, self.told.length)
    }

    /// Blocks that we asked for and wait for.
    pub fn in_flight(&self) -> usize {
        self.blocks.len()
    }

    /// Whether blocks are under way, or missing.
    pub fn is_busy(&self) -> bool {
        self.in_flight() > 0 || self.local.contiguous < self.local.length
    }

    /// Takes a message of the remote.
    pub fn receive(&mut self, message: Message) -> Result<Option<Action>, Misbehaviour> {
        Ok(match message {
            Message::Sync(sync) => {
                let before = self.remote.replace(sync);
                let able = |sync: Sync| sync.can_upgrade && sync.remote_length == self.local.length;
                if able(sync) && !before.is_some_and(able) {
                    // It has fetched what the proof takes.
                    self.refused_head = None;
                }
                if before.is_some_and(|before| before.fork != sync.fork) {
                    self.offers.forgive();
                    self.cut = u64::MAX;
                }
                self.cut = self.cut.min(sync.length);
                let news = before.is_none_or(|before| (before.length, before.fork) != (sync.length, sync.fork));
                match self.is_idle() {
                    true => Some(Action::Close),
                    false => news.then_some(Action::Synced),
                }
            }
            Message::Request(request) => {
                // A request that reuses an id replaces the older one.
                self.waiting.cancel(request.id);
                self.waiting.add(request);
                None
            }
            Message::Cancel { id } => {
                self.waiting.cancel(id);
                None
            }
            // What we did not ask for, or no longer want, is dropped unread.
            // Nobody asks with the id 0: it shows that the authors signed two histories.
            Message::Data(data) if data.id == 0 => {
                data.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == 0).then_some(Action::Shown(data))
            }
            // JavaScript refuses so what was asked of a fork that its author has just left.
            Message::Data(data) if data.is_empty() => self.refused(data.id),
            Message::Data(data) => self.answered(data.id).map(|question| Action::Check(data, question)),
            Message::NoData { id, .. } => self.refused(id),
            Message::Want(wanted) => {
                if wanted.length <= MAX_WANT {
                    if !self.wants.contains(&wanted) {
                        match self.wants.len() < MAX_WANTS {
                            true => self.wants.push(wanted),
                            false => self.wants_all = true,
                        }
                    }
                    if self.looks.len() < MAX_WANTS && !self.looks.contains(&wanted) {
                        self.looks.push_back(wanted);
                    }
                }
                None
            }
            Message::Unwant(wanted) => {
                let other = |kept: &Wanted| (kept.start, kept.length) != (wanted.start, wanted.length);
                self.wants.retain(other);
                self.looks.retain(other);
                None
            }
            Message::Bitfield { start, words } => {
                self.offers.learn(start, &words);
                None
            }
            Message::Range { drop: false, start, length } => {
                self.offers.gain(start, length);
                None
            }
            Message::Range { drop: true, start, length } => {
                self.offers.lose(start, length);
                if length > 1 || self.offers.is_exhausted() {
                    // What is known of the blocks behind is forgotten with them: it is asked for again.
                    self.our_wants.clear();
                }
                None
            }
            Message::Extension => None,
        })
    }

    /// Takes the state of our side; says what the remote has to hear of it.
    pub fn tell(&mut self, local: Local) -> Option<Message> {
        self.refused_head.take_if(|_| local.length != self.local.length);
        self.local = local;
        let sync = self.sync();
        let news = sync != self.told;
        self.told = sync;
        news.then_some(Message::Sync(sync))
    }

    /// Whether neither side wants anything, so that the channel can be closed.
    pub fn is_idle(&self) -> bool {
        !self.local.downloading && self.remote.is_some_and(|sync| !sync.downloading)
    }

    fn answered(&mut self, id: u64) -> Option<Question> {
        let question = self.asked.remove(&id)?;
        if let Asked::Block(block) = question.asked {
            self.blocks.remove(&block);
        }
        Some(question)
    }

    fn refused(&mut self, id: u64) -> Option<Action> {
        let question = self.answered(id)?;
        match question.asked {
            // Of another fork it refuses everything, which says nothing about ours.
            Asked::Block(block) if self.serves() => self.offers.refuse(block),
            // It may have grown or moved on since it was asked: then that is another question.
            Asked::Upgrade(_) => self.refused_head = Some(self.asked_head),
            _ => {}
        }
        Some(Action::Refused(question))
    }

    /// Takes the question for a block back, if it is under way.
    pub fn cancel(&mut self, block: u64) -> Option<Message> {
        let id = self.blocks.remove(&block)?;
        self.asked.remove(&id);
        Some(Message::Cancel { id })
    }

    /// Whether a block was asked for, and no answer came yet.
    pub fn has_asked(&self, block: u64) -> bool {
        self.blocks.contains_key(&block)
    }

    /// The blocks that were asked for.
    pub fn asked_blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }

    /// What the remote has to hear of blocks that came.
    pub fn tell_gained(&mut self, blocks: Range<u64>) -> Option<Message> {
        let Local { length, contiguous, .. } = self.local;
        if contiguous >= length && length > 0 {
            // Everything is here: readers count on hearing so, once.
            let news = std::mem::replace(&mut self.told_complete, length) != length;
            return news.then_some(Message::Range { drop: false, start: 0, length });
        }
        let last = blocks.end + LAST_BLOCKS > length;
        let wanted =
            |wanted: &Wanted| blocks.start < wanted.start.saturating_add(wanted.length) && blocks.end > wanted.start;
        // What it has of another fork says nothing about this one.
        let same_fork = self.remote.is_some_and(|sync| sync.fork == self.local.fork);
        let known = same_fork && blocks.clone().all(|block| self.offers.contains(block));
        let heard = last || self.wants_all || self.wants.iter().any(wanted);
        (!blocks.is_empty() && heard && !known).then(|| Message::Range {
            drop: false,
            start: blocks.start,
            length: blocks.end - blocks.start,
        })
    }

    /// What the remote has to hear of blocks that are gone.
    pub fn tell_lost(&mut self, blocks: Range<u64>) -> Message {
        self.told_complete = 0;
        // JavaScript forgets what it heard of the blocks behind them, and asks only once: it is told again.
        let behind = |wanted: &&Wanted| wanted.start.saturating_add(wanted.length) > blocks.end;
        self.look_again(behind);
        Message::Range { drop: true, start: blocks.start, length: blocks.end - blocks.start }
    }

    /// Some wants are to be answered anew, after those that wait for an answer anyway.
    fn look_again(&mut self, which: impl Fn(&&Wanted) -> bool) {
        let waiting: HashSet<Wanted> = self.looks.iter().copied().collect();
        self.looks.extend(self.wants.iter().filter(which).filter(|wanted| !waiting.contains(wanted)));
    }

    /// A want that waits for its answer, [`Session::bits`]: it may be 30,000 times as long as the question.
    pub fn next_look(&mut self) -> Option<Wanted> {
        self.looks.pop_front()
    }

    /// Blocks came or went that were not told: what the remote wants to hear about is told anew, by [`Session::next_look`]. Returns
    /// what has to be said at once.
    pub fn tell_all_again(&mut self) -> Option<Message> {
        // It may have heard that some was lost, by a refusal.
        self.told_complete = 0;
        self.look_again(|_| true);
        self.tell_gained(0..0)
    }

    /// The answer to a want: all at once, or bit by bit.
    pub fn bits(&self, wanted: Wanted, have: &Blocks) -> Option<Message> {
        let end = wanted.start.saturating_add(wanted.length).min(self.local.length);
        if wanted.start >= end {
            return None;
        }
        if wanted.any {
            let start = have.first_present(wanted.start..end)?;
            return Some(Message::Range { drop: false, start, length: 1 });
        }
        if have.contiguous() >= end {
            return Some(Message::Range { drop: false, start: 0, length: have.contiguous() });
        }
        have.first_present(wanted.start..end)?;
        let start = wanted.start / 32 * 32;
        let words = have.words(start, (end - start).div_ceil(32) as usize);
        Some(Message::Bitfield { start, words })
    }

    /// The remote's next request; the answer is due at once.
    pub fn next_request(&mut self) -> Option<Request> {
        self.waiting.next()
    }

    /// Whether a whole head is asked for that was asked for just now. JavaScript asks some 48 times at once for that of a new fork,
    /// follows it by the first answer, takes the next for false, and never asks this peer again (hypercore 11.37, `_handleData`).
    pub fn is_repeated(&mut self, now: Instant, request: &Request) -> bool {
        let Some(whole) = request.upgrade.filter(|upgrade| upgrade.start == 0 && request.block.is_none()) else {
            return false;
        };
        let shown = (request.fork, whole.length);
        let repeated = self.shown.is_some_and(|(before, at)| before == shown && now.duration_since(at) < SHOWN);
        if !repeated {
            self.shown = Some((shown, now));
        }
        repeated
    }

    /// Requests of the remote that wait for answers. Its owner reads no more of what the remote says while they are too many.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Wants of the remote that are kept.
    pub fn wants(&self) -> usize {
        self.wants.len().max(self.looks.len())
    }

    /// What the remote has, kept up to date.
    pub fn offers_all(&self) -> &Offers {
        &self.offers
    }

    /// Whether the remote waits for answers.
    pub fn has_requests(&self) -> bool {
        self.waiting.len() > 0 || !self.looks.is_empty()
    }

    /// Counts a request that nobody could answer.
    pub fn invalid_request(&mut self) -> Result<(), Misbehaviour> {
        self.invalid += 1;
        if self.invalid >= MAX_INVALID { Err(Misbehaviour::Nonsense) } else { Ok(()) }
    }

    /// Whether the remote answers requests about our fork (or any, while we know none).
    pub fn serves(&self) -> bool {
        !self.offers.is_exhausted()
            && self.remote.is_some_and(|sync| {
                sync.uploading
                    && (self.local.length == 0 || sync.fork == self.local.fork)
                    // A shorter one proves only to who knows the roots of its length.
                    && (sync.length >= self.local.length || self.local.can_upgrade)
            })
    }

    /// A block of a range that the remote has, as near as can be to where its fork leaves ours.
    pub fn guess_cut(&self, blocks: Range<u64>) -> Option<u64> {
        let cut = self.cut.min(self.local.length).clamp(blocks.start, blocks.end - 1);
        self.next_offer(cut..blocks.end).or_else(|| self.next_offer(blocks))
    }

    /// Whether the remote can serve a block.
    pub fn offers(&self, block: u64) -> bool {
        self.remote.is_some_and(|sync| block < sync.length) && self.offers.contains(block)
    }

    /// The first block of the range that the remote can serve and we don't have.
    pub fn next_news(&self, blocks: Range<u64>, have: &Blocks) -> Option<u64> {
        let length = self.remote.map_or(0, |sync| sync.length);
        self.offers.next_news(blocks.start..blocks.end.min(length), have)
    }

    /// The first block of the range that the remote can serve.
    pub fn next_offer(&self, blocks: Range<u64>) -> Option<u64> {
        let length = self.remote.map_or(0, |sync| sync.length);
        self.offers.next(blocks.start..blocks.end.min(length))
    }

    /// Asks for a block; `nodes` as in [`NodeRequest`].
    pub fn ask_block(&mut self, index: u64, nodes: u64, priority: u64) -> Message {
        let block = Some(NodeRequest { index, nodes });
        let fork = self.local.fork;
        let id = self.remember(fork, Asked::Block(index), Some(above(flat::leaf(index), nodes)));
        self.blocks.insert(index, id);
        Message::Request(Request { id, fork, block, priority, ..Request::default() })
    }

    /// Whether the remote's head is longer than ours.
    pub fn is_longer(&self) -> bool {
        self.remote.is_some_and(|sync| sync.length > self.local.length)
    }

    /// Whether the remote is at a later fork than we are.
    pub fn is_later(&self) -> bool {
        self.remote.is_some_and(|sync| sync.fork > self.local.fork)
    }

    /// Whether the remote is likely to prove its longer head.
    pub fn can_upgrade(&self, now: Instant) -> bool {
        // What it says of itself is about the length that it knows of us. To who has nothing everybody can prove his head.
        let Local { length, .. } = self.local;
        let can = |sync: Sync| length == 0 || sync.can_upgrade || sync.remote_length != length;
        // What was in its way may be over by now.
        let lately = self.asked_at.is_some_and(|at| now.duration_since(at) <= REFUSED);
        let refused = |sync: Sync| lately && self.refused_head == Some((sync.fork, sync.length));
        self.is_longer() && self.remote.is_some_and(|sync| can(sync) && !refused(sync))
    }

    /// The length that it was asked to prove last.
    pub fn asked_length(&self) -> u64 {
        self.asked_head.1
    }

    /// Asks for the remote's head, if it is longer than ours.
    pub fn ask_upgrade(&mut self, now: Instant) -> Option<Message> {
        let remote = self.remote.filter(|_| self.is_longer())?;
        let upgrade = Some(UpgradeRequest { start: self.local.length, length: remote.length - self.local.length });
        let id = self.remember(remote.fork, Asked::Upgrade(self.local.length), None);
        (self.asked_head, self.asked_at) = ((remote.fork, remote.length), Some(now));
        let manifest = !self.local.has_manifest && remote.has_manifest;
        Some(Message::Request(Request { id, fork: remote.fork, upgrade, manifest, ..Request::default() }))
    }

    /// Asks for the remote's head from the first block on, its tree shown at no more than our length if it is of our fork.
    pub fn ask_whole(&mut self) -> Option<Message> {
        let remote = self.remote.filter(|sync| sync.length > 0)?;
        let ours = if remote.fork == self.local.fork { self.local.length.max(1) } else { u64::MAX };
        let upgrade = Some(UpgradeRequest { start: 0, length: remote.length.min(ours) });
        let id = self.remember(remote.fork, Asked::Whole, None);
        let manifest = !self.local.has_manifest && remote.has_manifest;
        Some(Message::Request(Request { id, fork: remote.fork, upgrade, manifest, ..Request::default() }))
    }

    /// Asks for a node of the tree of a fork, with its siblings so many steps up.
    pub fn ask_hash(&mut self, fork: u64, index: u64, nodes: u64) -> Message {
        let id = self.remember(fork, Asked::Hash(index), None);
        let hash = Some(NodeRequest { index, nodes });
        Message::Request(Request { id, fork, hash, ..Request::default() })
    }

    /// Asks for the nodes that lead to a byte, and for the node `index` below the one that has the byte; `nodes` as in
    /// [`NodeRequest`].
    pub fn ask_seek(&mut self, byte: u64, index: u64, nodes: u64) -> Message {
        let fork = self.local.fork;
        let id = self.remember(fork, Asked::Seek { byte, index }, Some(above(index, nodes)));
        let (hash, seek) = (Some(NodeRequest { index, nodes }), Some(SeekRequest { bytes: byte, padding: 0 }));
        Message::Request(Request { id, fork, hash, seek, ..Request::default() })
    }

    /// The id that the next question will have.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    fn remember(&mut self, fork: u64, asked: Asked, top: Option<u64>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, Question { id, fork, asked, top });
        id
    }

    fn sync(&self) -> Sync {
        let Local { fork, length, has_manifest, downloading, can_upgrade, .. } = self.local;
        let same_fork = |remote: &Sync| remote.fork == fork || length == 0;
        Sync {
            can_upgrade,
            uploading: true,
            downloading,
            has_manifest,
            allow_push: false,
            fork,
            length,
            remote_length: self.remote.filter(same_fork).map_or(0, |remote| remote.length),
        }
    }
}

/// The node so many steps above another.
pub fn above(index: u64, steps: u64) -> u64 {
    (0..steps).fold(index, |at, _| flat::parent(at))
}

#[cfg(test)]
mod tests;
