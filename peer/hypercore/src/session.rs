//! One feed on one connection: the protocol as a state machine, without I/O and clock.
//!
//! A [`Session`] keeps what the two sides have told each other, and says what to do next. Its owner reads and
//! writes the feed. What a seeder must do so that JavaScript reads from it at full speed is all here: a
//! sync for each sync that brings news, ranges and bitfields for what is wanted, drops before refusals.

use crate::{
    blocks::{Blocks, PAGE},
    messages::{Message, NodeRequest, Request, SeekRequest, Sync, UpgradeRequest, Wanted},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Range,
};

/// Requests of a peer that may wait for their answers; JavaScript has at most 512 in flight.
pub const MAX_WAITING: usize = 1024;
/// Ranges that a peer may want to hear about; JavaScript sends at most this many.
const MAX_WANTS: usize = 512;
/// The largest range that can be wanted, in blocks.
const MAX_WANT: u64 = 1 << 21;
/// Changes in so many last blocks are told without being wanted.
const LAST_BLOCKS: u64 = 256;
/// Pages of the remote's bitfield that are kept: 2^23 blocks.
const MAX_PAGES: usize = 256;
/// Single blocks that the remote refused; after so many it is not asked any more.
const MAX_REFUSED: usize = 1024;
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
    /// Send it.
    Send(Message),
    /// The remote has another length now: find out [`Local::can_upgrade`] for it, then call [`Session::tell`].
    Synced,
    /// Verify the answer to what was asked, and store it.
    Check(Box<crate::messages::Data>, Asked),
    /// The remote does not have it after all.
    Refused(Asked),
    /// Neither side wants anything: close the channel.
    Close,
}

/// What we asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A block.
    Block(u64),
    /// A newer head.
    Upgrade,
    /// A head from its first block on, to compare it with ours.
    Whole,
    /// A node of another fork's tree, with its sibling.
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
    /// More than [`MAX_WAITING`] requests unanswered.
    #[error("too many requests at a time")]
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
    has: Has,
    wants: Vec<Wanted>,
    /// Wants that were not answered yet, or have to be answered anew.
    looks: VecDeque<Wanted>,
    our_wants: BTreeSet<u64>,
    waiting: VecDeque<Request>,
    invalid: u32,
    asked: HashMap<u64, Asked>,
    next_id: u64,
    /// The length for which the remote heard that everything is here.
    told_complete: u64,
}

/// Which blocks the remote has, as far as it told.
#[derive(Debug, Default)]
struct Has {
    /// All before this one.
    upto: u64,
    more: Blocks,
    /// But not these: it refused them.
    refused: BTreeSet<u64>,
}

impl Session {
    /// A channel that has just opened, and what to say first.
    pub fn new(local: Local) -> (Session, Vec<Message>) {
        let mut session = Session {
            told: Sync::default(),
            local,
            remote: None,
            has: Has::default(),
            wants: Vec::new(),
            looks: VecDeque::new(),
            our_wants: BTreeSet::new(),
            waiting: VecDeque::new(),
            invalid: 0,
            asked: HashMap::new(),
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

    /// The length that the remote knows us to have.
    pub fn told_length(&self) -> u64 {
        self.told.length
    }

    /// Requests of ours that are under way.
    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Takes a message of the remote.
    pub fn receive(&mut self, message: Message) -> Result<Option<Action>, Misbehaviour> {
        Ok(match message {
            Message::Sync(sync) => {
                let before = self.remote.replace(sync);
                let news = before.is_none_or(|before| (before.length, before.fork) != (sync.length, sync.fork));
                match !sync.downloading && !self.local.downloading {
                    true => Some(Action::Close),
                    false => news.then_some(Action::Synced),
                }
            }
            Message::Request(request) => {
                // A request that reuses an id replaces the older one.
                self.waiting.retain(|waiting| waiting.id != request.id);
                if self.waiting.len() >= MAX_WAITING {
                    return Err(Misbehaviour::Flood);
                }
                match request.priority {
                    0 => self.waiting.push_back(request),
                    _ => self.waiting.push_front(request),
                }
                None
            }
            Message::Cancel { id } => {
                self.waiting.retain(|waiting| waiting.id != id);
                None
            }
            // What we did not ask for, or no longer want, is dropped unread.
            Message::Data(data) => self.asked.remove(&data.id).map(|asked| Action::Check(data, asked)),
            Message::NoData { id, .. } => self.asked.remove(&id).map(|asked| {
                if let Asked::Block(block) = asked {
                    self.has.refuse(block);
                }
                Action::Refused(asked)
            }),
            Message::Want(wanted) => {
                if wanted.length <= MAX_WANT {
                    if self.wants.len() < MAX_WANTS && !self.wants.contains(&wanted) {
                        self.wants.push(wanted);
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
                self.has.learn(start, &words);
                None
            }
            Message::Range { drop: false, start, length } => {
                self.has.gain(start, length);
                None
            }
            Message::Range { drop: true, start, length } => {
                self.has.lose(start, length);
                None
            }
            Message::Extension => None,
        })
    }

    /// Takes the state of our side; says what the remote has to hear of it.
    pub fn tell(&mut self, local: Local) -> Option<Message> {
        self.local = local;
        let sync = self.sync();
        let news = sync != self.told;
        self.told = sync;
        news.then_some(Message::Sync(sync))
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
        let known = blocks.clone().all(|block| self.has.contains(block));
        (!blocks.is_empty() && (last || self.wants.iter().any(wanted)) && !known).then(|| Message::Range {
            drop: false,
            start: blocks.start,
            length: blocks.end - blocks.start,
        })
    }

    /// What the remote has to hear of blocks that are gone.
    pub fn tell_lost(&mut self, blocks: Range<u64>) -> Message {
        self.told_complete = 0;
        Message::Range { drop: true, start: blocks.start, length: blocks.end - blocks.start }
    }

    /// A want that waits for its answer, [`Session::bits`]: it may be 30,000 times as long as the question.
    pub fn next_look(&mut self) -> Option<Wanted> {
        self.looks.pop_front()
    }

    /// Blocks came that were not told: what the remote wants to hear about is told anew, by [`Session::next_look`]. Returns
    /// what has to be said at once.
    pub fn tell_all_again(&mut self) -> Option<Message> {
        self.looks = self.wants.iter().copied().collect();
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
        self.waiting.pop_front()
    }

    /// Whether the remote waits for answers.
    pub fn has_requests(&self) -> bool {
        !self.waiting.is_empty() || !self.looks.is_empty()
    }

    /// Counts a request that nobody could answer.
    pub fn invalid_request(&mut self) -> Result<(), Misbehaviour> {
        self.invalid += 1;
        if self.invalid >= MAX_INVALID { Err(Misbehaviour::Nonsense) } else { Ok(()) }
    }

    /// Whether the remote answers requests about our fork (or any, while we know none).
    pub fn serves(&self) -> bool {
        self.has.refused.len() < MAX_REFUSED
            && self
                .remote
                .is_some_and(|sync| sync.uploading && (self.local.length == 0 || sync.fork == self.local.fork))
    }

    /// Whether the remote can serve a block.
    pub fn offers(&self, block: u64) -> bool {
        self.remote.is_some_and(|sync| block < sync.length) && self.has.contains(block)
    }

    /// The first block of the range that the remote can serve.
    pub fn next_offer(&self, blocks: Range<u64>) -> Option<u64> {
        let length = self.remote.map_or(0, |sync| sync.length);
        self.has.next(blocks.start..blocks.end.min(length))
    }

    /// Asks for a block; `nodes` as in [`NodeRequest`].
    pub fn ask_block(&mut self, index: u64, nodes: u64) -> Message {
        let block = Some(NodeRequest { index, nodes });
        let id = self.remember(Asked::Block(index));
        Message::Request(Request { id, fork: self.local.fork, block, ..Request::default() })
    }

    /// Asks for the remote's head, if it is longer than ours.
    pub fn ask_upgrade(&mut self) -> Option<Message> {
        let remote = self.remote.filter(|sync| sync.length > self.local.length)?;
        let upgrade = Some(UpgradeRequest { start: self.local.length, length: remote.length - self.local.length });
        let id = self.remember(Asked::Upgrade);
        let manifest = !self.local.has_manifest && remote.has_manifest;
        Some(Message::Request(Request { id, fork: remote.fork, upgrade, manifest, ..Request::default() }))
    }

    /// Asks for the remote's head from the first block on, its tree shown at no more than our length if it is of our fork.
    pub fn ask_whole(&mut self) -> Option<Message> {
        let remote = self.remote.filter(|sync| sync.length > 0)?;
        let ours = if remote.fork == self.local.fork { self.local.length.max(1) } else { u64::MAX };
        let upgrade = Some(UpgradeRequest { start: 0, length: remote.length.min(ours) });
        let id = self.remember(Asked::Whole);
        let manifest = !self.local.has_manifest && remote.has_manifest;
        Some(Message::Request(Request { id, fork: remote.fork, upgrade, manifest, ..Request::default() }))
    }

    /// Asks for a node of the tree of a fork, with its sibling.
    pub fn ask_hash(&mut self, fork: u64, index: u64) -> Message {
        let id = self.remember(Asked::Hash(index));
        let hash = Some(NodeRequest { index, nodes: 1 });
        Message::Request(Request { id, fork, hash, ..Request::default() })
    }

    /// Asks for the nodes that lead to a byte, and for the node `index` below the one that has the byte; `nodes` as in
    /// [`NodeRequest`].
    pub fn ask_seek(&mut self, byte: u64, index: u64, nodes: u64) -> Message {
        let id = self.remember(Asked::Seek { byte, index });
        let (hash, seek) = (Some(NodeRequest { index, nodes }), Some(SeekRequest { bytes: byte, padding: 0 }));
        Message::Request(Request { id, fork: self.local.fork, hash, seek, ..Request::default() })
    }

    /// Asks which blocks around this one the remote has, unless it was asked before.
    pub fn want_around(&mut self, block: u64) -> Option<Message> {
        let start = block / MAX_WANT * MAX_WANT;
        // The remote's bits are kept for a few such ranges only.
        let room = self.our_wants.len() < MAX_PAGES / (MAX_WANT / PAGE) as usize;
        (room && self.our_wants.insert(start)).then_some(Message::Want(Wanted { start, length: MAX_WANT, any: false }))
    }

    fn remember(&mut self, asked: Asked) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
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

impl Has {
    fn contains(&self, block: u64) -> bool {
        (block < self.upto || self.more.contains(block)) && !self.refused.contains(&block)
    }

    fn next(&self, range: Range<u64>) -> Option<u64> {
        let mut at = range.start;
        while at < range.end {
            let found = if at < self.upto { Some(at) } else { self.more.first_present(at..range.end) };
            match found {
                Some(block) if self.refused.contains(&block) => at = block + 1,
                found => return found.filter(|block| *block < range.end),
            }
        }
        None
    }

    fn refuse(&mut self, block: u64) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(block);
        }
    }

    fn forgive(&mut self, start: u64, end: u64) {
        let back: Vec<u64> = self.refused.range(start..end).copied().collect();
        for block in back {
            self.refused.remove(&block);
        }
    }

    fn gain(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if end <= start {
            return;
        }
        self.forgive(start, end);
        if start <= self.upto {
            self.upto = self.upto.max(end);
            return;
        }
        // Only as far as memory is granted; the rest can be asked for later.
        let mut block = start;
        while block < end && (self.more.pages() < MAX_PAGES || self.more.has_page(block / PAGE)) {
            let stop = end.min((block / PAGE + 1) * PAGE);
            self.more.insert_range(block..stop);
            block = stop;
        }
    }

    fn learn(&mut self, start: u64, words: &[u32]) {
        // A bitfield is the whole truth about its range.
        let end = start.saturating_add(32 * words.len() as u64);
        self.forgive(start, end);
        if start < self.upto {
            self.upto = start;
        }
        for (page, words) in (0u64..).zip(words.chunks((PAGE / 32) as usize)) {
            let at = start + page * PAGE;
            if self.more.pages() + 2 <= MAX_PAGES || self.more.has_page(at / PAGE) {
                self.more.set_words(at, words);
            }
        }
    }

    fn lose(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if length == 1 && self.refused.len() < MAX_REFUSED {
            self.refused.insert(start);
            return;
        }
        self.more.remove_range(start..end);
        self.upto = self.upto.min(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(length: u64) -> Local {
        Local { length, contiguous: length, has_manifest: true, can_upgrade: true, ..Local::default() }
    }

    #[test]
    fn the_first_words_are_sync_and_range() {
        let (_, first) = Session::new(full(9));
        let [Message::Sync(sync), Message::Range { drop: false, start: 0, length: 9 }] = &first[..] else {
            panic!("{first:?}")
        };
        assert!(sync.uploading && sync.can_upgrade && sync.has_manifest && !sync.downloading);
        assert_eq!((sync.length, sync.remote_length), (9, 0));
        assert_eq!(Session::new(Local::default()).1.len(), 1);
    }

    #[test]
    fn a_sync_with_news_is_acknowledged_once() {
        let (mut session, _) = Session::new(full(9));
        let reader = Sync { downloading: true, length: 4, ..Sync::default() };
        assert_eq!(session.receive(Message::Sync(reader)), Ok(Some(Action::Synced)));
        let Some(Message::Sync(answer)) = session.tell(full(9)) else { panic!("no answer") };
        assert_eq!(answer.remote_length, 4);
        assert_eq!(session.tell(full(9)), None);
        assert_eq!(session.receive(Message::Sync(reader)), Ok(None));
    }

    #[test]
    fn a_channel_that_nobody_needs_is_closed() {
        let (mut session, _) = Session::new(full(9));
        assert_eq!(session.receive(Message::Sync(Sync::default())), Ok(Some(Action::Close)));
    }

    #[test]
    fn requests_come_in_order_but_urgent_and_cancelled_ones() {
        let (mut session, _) = Session::new(full(9));
        let request = |id, priority| Message::Request(Request { id, priority, ..Request::default() });
        for (id, priority) in [(1, 0), (2, 0), (3, 0), (4, 2)] {
            assert_eq!(session.receive(request(id, priority)), Ok(None));
        }
        assert_eq!(session.receive(Message::Cancel { id: 2 }), Ok(None));
        let order: Vec<_> = std::iter::from_fn(|| session.next_request()).map(|request| request.id).collect();
        assert_eq!(order, [4, 1, 3]);
        for id in 0..MAX_WAITING as u64 {
            assert_eq!(session.receive(request(id, 0)), Ok(None));
        }
        assert_eq!(session.receive(request(5, 0)), Ok(None), "a reused id takes no room");
        assert_eq!(session.receive(request(5000, 0)), Err(Misbehaviour::Flood));
    }

    #[test]
    fn a_refused_block_is_not_offered_until_it_is_announced_again() {
        let (mut session, _) = Session::new(Local { length: 100, downloading: true, ..Local::default() });
        let seeder = Sync { uploading: true, downloading: true, length: 100, ..Sync::default() };
        _ = session.receive(Message::Sync(seeder));
        _ = session.receive(Message::Range { drop: false, start: 0, length: 10 });
        assert!(session.serves() && session.offers(9) && !session.offers(10));
        let Message::Request(Request { id, .. }) = session.ask_block(3, 0) else { panic!() };
        let refused = session.receive(Message::NoData { id, reason: None });
        assert_eq!(refused, Ok(Some(Action::Refused(Asked::Block(3)))));
        assert_eq!((session.offers(3), session.next_offer(3..100)), (false, Some(4)));
        _ = session.receive(Message::Range { drop: false, start: 3, length: 1 });
        assert!(session.offers(3));
        _ = session.receive(Message::Range { drop: true, start: 2, length: 4 });
        assert_eq!(session.next_offer(2..100), None);
        _ = session.receive(Message::Bitfield { start: 32, words: vec![0b100] });
        assert_eq!(session.next_offer(0..100), Some(0));
        assert_eq!(session.next_offer(2..100), Some(34));
    }

    #[test]
    fn a_hundred_thousand_wants_are_as_few_answers_as_are_kept() {
        let (mut session, _) = Session::new(full(9));
        let want = |start, length| Message::Want(Wanted { start, length, any: false });
        for at in 0..100_000 {
            assert_eq!(session.receive(want(0, MAX_WANT)), Ok(None), "no answer before there is room for it");
            assert_eq!(session.receive(want(at * 32, MAX_WANT)), Ok(None));
        }
        assert_eq!(session.receive(want(7, MAX_WANT + 1)), Ok(None), "too much at a time");
        let answers = std::iter::from_fn(|| session.next_look()).count();
        assert_eq!(answers, MAX_WANTS, "an equal one that waits is one");
    }

    #[test]
    fn wants_are_answered_with_what_is_there() {
        let local = Local { length: 100, ..Local::default() };
        let (session, _) = Session::new(local);
        let mut have = Blocks::default();
        let wanted = Wanted { start: 0, length: 1 << 21, any: false };
        assert_eq!(session.bits(wanted, &have), None);
        have.insert(33);
        let Some(Message::Bitfield { start: 0, words }) = session.bits(wanted, &have) else { panic!() };
        assert_eq!(words, [0, 2, 0, 0]);
        let any = Wanted { any: true, ..wanted };
        assert_eq!(session.bits(any, &have), Some(Message::Range { drop: false, start: 33, length: 1 }));
        (0..100).for_each(|block| _ = have.insert(block));
        assert_eq!(session.bits(wanted, &have), Some(Message::Range { drop: false, start: 0, length: 100 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn what_a_remote_announces_takes_bounded_memory(
            ranges in proptest::collection::vec((any::<bool>(), 0..1u64 << 53, 0..1u64 << 53), 0..40),
        ) {
            let mut has = Has::default();
            for (drop, start, length) in ranges {
                match drop {
                    true => has.lose(start, length),
                    false => has.gain(start, length),
                }
                has.learn(start / 32 * 32, &[7; 64]);
            }
            prop_assert!(has.more.pages() <= MAX_PAGES && has.refused.len() <= MAX_REFUSED);
        }
    }
}
