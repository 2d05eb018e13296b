//! What is told about a feed: figures and changes.

use crate::key::{DiscoveryKey, FeedKey};
use std::ops::Range;

/// A feed in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its name.
    pub key: FeedKey,
    /// Whether this store can append to it.
    pub writable: bool,
    /// Rewrites by its author.
    pub fork: u64,
    /// A later rewrite that its author signed, and that is not followed: see [`Feed::follow_forks`](crate::Feed::follow_forks).
    pub later_fork: Option<u64>,
    /// Blocks of the newest head that we know.
    pub length: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Blocks that are here.
    pub blocks_here: u64,
    /// Bytes of the blocks that are here.
    pub bytes_here: u64,
    /// The first block that is not here.
    pub contiguous: u64,
}

impl Info {
    /// Blocks that are not here.
    pub fn blocks_missing(&self) -> u64 {
        self.length - self.blocks_here
    }

    /// Bytes that are not here.
    pub fn bytes_missing(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_here)
    }

    /// Whether there is a head, and every block of it is here.
    pub fn is_complete(&self) -> bool {
        self.length > 0 && self.blocks_here == self.length
    }
}

/// Something happened to a feed of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which feed.
    pub key: FeedKey,
    /// Its name in public.
    pub discovery: DiscoveryKey,
    /// What happened.
    pub what: Changed,
}

/// See [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// There is a newer head.
    Grown,
    /// Blocks came.
    Gained(Range<u64>),
    /// Blocks are not here any more: they turned out to be damaged, or were cleared.
    Lost(Range<u64>),
    /// There is another history, cut from the one before: these blocks are gone, and others may come in their place.
    Cut {
        /// Blocks of the old history that are not a part of the new one. What comes before them stays.
        lost: Range<u64>,
        /// The number of the new one.
        fork: u64,
    },
    /// Its author has rewritten it, which is not followed: see [`Feed::follow_forks`](crate::Feed::follow_forks).
    Forked {
        /// The number of the rewrite.
        fork: u64,
    },
    /// Its authors signed two histories: see [`Feed::conflict`](crate::Feed::conflict).
    Conflict,
    /// The feed was removed from the store.
    Removed,
    /// The feed is shown to nobody any longer.
    Hidden,
}
