//! What is wanted of all feeds, shared by all connections.

use crate::{
    key::FeedKey,
    plan::{Plan, Want},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What is wanted of which feed, shared by all connections.
#[derive(Debug, Default)]
pub struct Plans {
    entries: Mutex<BTreeMap<FeedKey, Entry>>,
    /// Counts up when the question for a byte is settled.
    pub seeks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    plan: Plan,
    /// Why nothing more is asked.
    stopped: watch::Sender<Option<Stopped>>,
}

/// Why a download can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The disk is full, for example.
    #[error("blocks can't be stored: {0}")]
    Disk(String),
    /// The feed is of a kind that is not understood.
    #[error("{0}")]
    Unsupported(String),
    /// The feed was removed; another one may have its key now.
    #[error("the feed was removed")]
    Replaced,
}

impl Plans {
    /// Wants more of a feed, until [`Plans::unwant`].
    pub fn want(&self, feed: FeedKey, want: Want, who: u64, urgent: bool) -> watch::Receiver<Option<Stopped>> {
        let mut plans = self.lock();
        let entry = plans.entry(feed).or_default();
        if entry.stopped.borrow().is_some() {
            // What stopped it may be over.
            *entry = Entry::default();
        }
        entry.plan.want(who, want, urgent);
        entry.stopped.subscribe()
    }

    /// Wants it no longer.
    pub fn unwant(&self, feed: &FeedKey, who: u64) {
        let mut plans = self.lock();
        if let Some(entry) = plans.get_mut(feed) {
            entry.plan.unwant(who);
            if entry.plan.is_idle() {
                plans.remove(feed);
            }
        }
    }

    /// Looks for the block of a byte of a feed that is wanted. The receiver changes when a question of this kind is settled.
    /// Whether it is a new one.
    pub fn seek(&self, feed: &FeedKey, byte: u64) -> (watch::Receiver<u64>, bool) {
        let settled = self.seeks.subscribe();
        let new = self.with(feed, |plan| plan.seek(byte));
        (settled, new.unwrap_or(false))
    }

    /// Feeds of which something is wanted.
    pub fn wanted(&self) -> Vec<FeedKey> {
        self.lock().iter().filter(|(_, entry)| entry.stopped.borrow().is_none()).map(|(key, _)| *key).collect()
    }

    /// Whether something is wanted of a feed.
    pub fn is_wanted(&self, feed: &FeedKey) -> bool {
        self.with(feed, |_| ()).is_some()
    }

    /// A look at what is wanted of a feed, unless it was stopped.
    pub fn with<T>(&self, feed: &FeedKey, look: impl FnOnce(&mut Plan) -> T) -> Option<T> {
        self.lock().get_mut(feed).filter(|entry| entry.stopped.borrow().is_none()).map(|entry| look(&mut entry.plan))
    }

    /// Asks nothing more of a feed.
    pub fn stop(&self, feed: &FeedKey, why: Stopped) {
        tracing::warn!(target: "hypercore", %feed, %why, "download stopped");
        if let Some(entry) = self.lock().get(feed) {
            entry.stopped.send_replace(Some(why));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FeedKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
