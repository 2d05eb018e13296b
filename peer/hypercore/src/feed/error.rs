//! What can go wrong with a feed.

use super::MAX_BLOCK;
use crate::{authors::NotTheirs, key::FeedKey};
use datdot_proof::head::HeadError;
use std::io;

/// Why a feed does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// Disk full, no permission and the like. What was there before is still readable.
    #[error("feed {key}: {source}")]
    Io {
        /// The feed.
        key: FeedKey,
        /// What the system said.
        source: io::Error,
    },
    /// The author has not written that many blocks.
    #[error("block {block} is outside the feed, which has {length} blocks")]
    OutOfRange {
        /// The block.
        block: u64,
        /// Blocks of the newest head.
        length: u64,
    },
    /// The block is not on this disk (yet).
    #[error("block {block} is not here")]
    NotHere {
        /// The block.
        block: u64,
    },
    /// The block's bytes on disk are not what its author wrote; it has been withdrawn and can be fetched again.
    #[error("block {block} was damaged on disk")]
    Damaged {
        /// The block.
        block: u64,
    },
    /// Nobody has told which tree the feed has.
    #[error("no head of the feed is known")]
    NoHead,
    /// The store does not hold the secret key.
    #[error("this store can't append to the feed: it has no secret key for it")]
    NotWritable,
    /// Somebody else has appended, or cut: see [`Feed::append_at`](crate::Feed::append_at).
    #[error("the feed has moved on: it has {length} blocks now")]
    Moved {
        /// Blocks of the newest head.
        length: u64,
    },
    /// At least one block has to stay: without one there is nothing that an author can sign.
    #[error("a feed can't be cut to nothing")]
    CutToNothing,
    /// The feed has fewer bytes.
    #[error("byte {byte} is outside the feed, which has {bytes} bytes")]
    NoSuchByte {
        /// Offset in the feed.
        byte: u64,
        /// Bytes of the newest head.
        bytes: u64,
    },
    /// The tree is not known well enough to say which block has the byte; a peer can tell.
    #[error("which block has byte {byte} is not known yet")]
    UnknownPlace {
        /// Offset in the feed.
        byte: u64,
    },
    /// Blocks are shorter than encrypted ones ever are, and were to be decrypted.
    #[error("the feed has blocks that are too short to be encrypted")]
    NotEncrypted,
    /// More than [`MAX_BLOCK`] bytes.
    #[error("a block of {bytes} bytes is larger than {MAX_BLOCK}")]
    TooLarge {
        /// Bytes of the block.
        bytes: usize,
    },
    /// The head is not by the feed's author, or of a kind that is not understood.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The same, for a head of any form.
    #[error(transparent)]
    NotTheirs(#[from] NotTheirs),
    /// The head contradicts the one that we have; the author signed both.
    #[error("the head (fork {fork}, {length} blocks) is not one that the stored head grew from or can grow to")]
    Conflict {
        /// Fork of the refused head.
        fork: u64,
        /// Length of the refused head.
        length: u64,
    },
    /// The head is longer than the stored one: to connect the two takes nodes, which a peer sends in an upgrade.
    #[error("the head of {length} blocks is newer than the stored one: a peer has to prove that it grew from it")]
    NeedsUpgrade {
        /// Length of the refused head.
        length: u64,
    },
    /// The feed was removed from the store.
    #[error("the feed was removed")]
    Removed,
}
