//! What is wanted of all feeds, shared by all connections.

use crate::{
    authors::NotTheirs,
    feed::FeedError,
    key::{DiscoveryKey, FeedKey},
    plan::{PeerId, Plan, Want},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// What is wanted of which feed, shared by all connections.
#[derive(Debug, Default)]
pub struct Plans {
    entries: Mutex<BTreeMap<FeedKey, Arc<Entry>>>,
    /// Counts up with each feed that is wanted anew.
    version: AtomicU64,
    /// Nothing is fetched any more. Changes while `entries` is locked.
    closed: AtomicBool,
    /// Counts up when the question for a byte is settled.
    pub seeks: watch::Sender<u64>,
    /// Counts up when the newest head of a peer is known, or a peer goes away.
    pub heads: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    discovery: DiscoveryKey,
    /// One lock for each feed: connections that are busy with different ones don't wait for each other. Whoever holds it may take
    /// `entries`, but not the other way round: it is held while the disk is read.
    plan: Mutex<Plan>,
    /// Why nothing more is asked.
    stopped: watch::Sender<Option<Stopped>>,
}

/// Why a download can't go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// What comes can't be stored: the disk is full, for example, which is a [`FeedError::Io`].
    #[error("blocks can't be stored: {0}")]
    Feed(Arc<FeedError>),
    /// The feed is of a kind that is not understood.
    #[error("{0}")]
    Unsupported(NotTheirs),
    /// The feed was removed; another one may have its key now.
    #[error("the feed was removed")]
    Replaced,
    /// The author has rewritten the feed, and that is not followed: [`Feed::follow_forks`](crate::Feed::follow_forks) does, and
    /// loses what was cut off; a [`Want::blocks`] keeps to the old history. Told once to each who waits for newer blocks: who
    /// waits again waits for peers that have the old history still.
    #[error("the author has rewritten the feed (fork {fork}), which is not followed")]
    Forked {
        /// The number of the rewrite.
        fork: u64,
    },
    /// The authors signed two histories, and nothing newer is followed: see [`Feed::conflict`](crate::Feed::conflict). Told once,
    /// as above.
    #[error("the authors of the feed signed two histories that contradict each other")]
    Conflict,
    /// [`Network::close`](crate::Network::close) was called.
    #[error("the network was closed")]
    Closed,
}

impl Plans {
    /// Wants more of a feed, until [`Plans::unwant`].
    pub fn want(&self, feed: FeedKey, want: Want, who: u64, urgent: bool) -> watch::Receiver<Option<Stopped>> {
        loop {
            let entry = self.entry(feed);
            let mut plan = entry.lock();
            // Who wanted it last may have left since, and taken it out.
            if self.has(&feed, &entry) {
                plan.want(who, want, urgent);
                return entry.stopped.subscribe();
            }
        }
    }

    /// Wants it no longer. Whether an answer is waited for no longer.
    pub fn unwant(&self, feed: &FeedKey, who: u64) -> bool {
        let Some(entry) = self.lock().get(feed).cloned() else { return false };
        let mut plan = entry.lock();
        let needless = plan.unwant(who);
        let mut entries = self.lock();
        if plan.is_idle() && entries.get(feed).is_some_and(|here| Arc::ptr_eq(here, &entry)) {
            entries.remove(feed);
        }
        needless
    }

    /// Looks for the block of a byte of a feed that is wanted. The receiver changes when a question of this kind is settled.
    /// Whether it is a new one.
    pub fn seek(&self, feed: &FeedKey, byte: u64) -> (watch::Receiver<u64>, bool) {
        let settled = self.seeks.subscribe();
        let new = self.with(feed, |plan| plan.seek(byte));
        (settled, new.unwrap_or(false))
    }

    /// Notes whether a peer has told of its newest head, and nothing of that is left to ask.
    pub fn hear(&self, feed: &FeedKey, peer: PeerId, all: bool) {
        if self.with(feed, |plan| plan.hear(peer, all)) == Some(true) {
            self.heads.send_modify(|count| *count += 1);
        }
    }

    /// Feeds of which something is wanted.
    pub fn wanted(&self) -> Vec<(FeedKey, DiscoveryKey)> {
        let entries = self.lock();
        let open = entries.iter().filter(|(_, entry)| !entry.is_stopped());
        open.map(|(key, entry)| (*key, entry.discovery)).collect()
    }

    /// Changes whenever [`Plans::wanted`] has a new feed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether something is wanted of a feed.
    pub fn is_wanted(&self, feed: &FeedKey) -> bool {
        self.lock().get(feed).is_some_and(|entry| !entry.is_stopped())
    }

    /// A look at what is wanted of a feed, unless it was stopped.
    pub fn with<T>(&self, feed: &FeedKey, look: impl FnOnce(&mut Plan) -> T) -> Option<T> {
        let entry = self.lock().get(feed).filter(|entry| !entry.is_stopped())?.clone();
        let mut plan = entry.lock();
        Some(look(&mut plan))
    }

    /// Asks nothing more of a feed.
    pub fn stop(&self, feed: &FeedKey, why: Stopped) {
        tracing::warn!(target: "hypercore", %feed, %why, "download stopped");
        if let Some(entry) = self.lock().get(feed) {
            entry.stopped.send_replace(Some(why));
        }
    }

    /// Asks nothing more, for ever.
    pub fn close(&self) {
        let entries = self.lock();
        self.closed.store(true, Ordering::Release);
        entries.values().for_each(|entry| _ = entry.stopped.send_replace(Some(Stopped::Closed)));
    }

    /// What is wanted of a feed, begun anew if nothing was, or if it was stopped: the reason may be over.
    fn entry(&self, feed: FeedKey) -> Arc<Entry> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&feed).filter(|entry| !entry.is_stopped()) {
            return entry.clone();
        }
        let closed = self.closed.load(Ordering::Acquire).then_some(Stopped::Closed);
        let stopped = watch::Sender::new(closed);
        let entry = Arc::new(Entry { discovery: feed.discovery(), plan: Mutex::default(), stopped });
        entries.insert(feed, entry.clone());
        self.version.fetch_add(1, Ordering::AcqRel);
        entry
    }

    fn has(&self, feed: &FeedKey, entry: &Arc<Entry>) -> bool {
        self.lock().get(feed).is_some_and(|here| Arc::ptr_eq(here, entry))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FeedKey, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_stopped(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{blocks::Blocks, plan::Asker};
    use std::{
        sync::mpsc::{self, RecvTimeoutError},
        thread,
        time::{Duration, Instant},
    };

    const ONE: FeedKey = FeedKey([1; 32]);
    const OTHER: FeedKey = FeedKey([2; 32]);

    #[test]
    fn a_feed_that_is_slow_holds_no_other_one_up() {
        let plans = Arc::<Plans>::default();
        plans.want(ONE, Want::all(), 1, false);
        let ((slow, done), (sender, came)) = (mpsc::channel::<()>(), mpsc::channel());
        let (busy, waiting, quick) = (plans.clone(), [plans.clone(), plans.clone()], plans.clone());
        // While the first is busy somebody wants it, and another one wants it no more.
        let busy = thread::spawn(move || busy.with(&ONE, |_| done.recv_timeout(Duration::from_secs(20))));
        thread::sleep(Duration::from_millis(50));
        let [more, less] = waiting;
        let waiting = [
            thread::spawn(move || _ = more.want(ONE, Want::all(), 2, true)),
            thread::spawn(move || _ = less.unwant(&ONE, 1)),
        ];
        thread::sleep(Duration::from_millis(50));
        thread::spawn(move || {
            quick.want(OTHER, Want::all(), 3, true);
            quick.unwant(&OTHER, 3);
            sender.send(quick.wanted().len())
        });
        assert_eq!(came.recv_timeout(Duration::from_secs(10)), Ok(1));
        drop(slow);
        assert_eq!(busy.join().unwrap(), Some(Err(RecvTimeoutError::Disconnected)), "it was told to go on");
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(plans.with(&ONE, |plan| plan.is_idle()), Some(false));
        plans.unwant(&ONE, 2);
        assert!(plans.wanted().is_empty());
    }

    #[test]
    fn what_is_wanted_while_the_last_one_leaves_is_not_lost() {
        let plans = Plans::default();
        thread::scope(|scope| {
            for who in 0..4 {
                let plans = &plans;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        plans.want(ONE, Want::all(), who, false);
                        assert_eq!(plans.with(&ONE, |plan| plan.is_idle()), Some(false));
                        plans.unwant(&ONE, who);
                    }
                });
            }
        });
        assert!(plans.wanted().is_empty());
    }

    #[test]
    fn who_leaves_with_nothing_under_way_disturbs_nobody() {
        let (plans, mut have) = (Plans::default(), Blocks::default());
        let ask = |have: &Blocks| {
            let asker = Asker { peer: 1, now: Instant::now(), takes: None, dice: 0 };
            plans.with(&ONE, |plan| plan.ask_block(&asker, 9, have, |range| Some(range.start))).flatten()
        };
        plans.want(ONE, Want::blocks(3..4), 1, true);
        assert_eq!(ask(&have), Some(3));
        have.insert(3);
        plans.with(&ONE, |plan| plan.arrived(3));
        assert!(!plans.unwant(&ONE, 1), "it came");
        for who in [2, 3] {
            plans.want(ONE, Want::blocks(4..5), who, true);
        }
        assert_eq!(ask(&have), Some(4));
        assert!(!plans.unwant(&ONE, 2), "another one waits for it");
        assert!(plans.unwant(&ONE, 3));
    }
}
