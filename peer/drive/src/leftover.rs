//! Contents that no metadata knows: an import that was cut off had written them.
//!
//! A feed takes nothing back, so what a killed import appended stays and would be paid for. The next import finds it there by its
//! hashes, and goes on in the middle of the file that it was cut off in.

use crate::{
    blobs::{BLOCK_BYTES, StreamError, read_full},
    entry::Blob,
};
use datdot_hypercore::{Feed, FeedError};
use datdot_proof::tree::Node;
use std::{
    collections::HashMap,
    io::{Read, Seek},
    ops::Range,
};

/// Blocks whose hashes are remembered: more contents than that begin in it are not left over, since the metadata is written
/// after every GiB.
const MAX_BLOCKS: u64 = 1 << 15;
/// Places that are compared with one content.
const MAX_COMPARED: usize = 8;

/// The blocks at the end of a blobs feed that no metadata knows.
pub(crate) struct Leftover {
    feed: Feed,
    end: u64,
    by_hash: HashMap<[u8; 32], Vec<u64>>,
}

/// How much of a content was there.
pub(crate) enum Found {
    /// All of it.
    Whole(Blob),
    /// These blocks and bytes of the feed, up to its end; the rest has to be added.
    Begun(Range<u64>, Range<u64>),
}

impl Leftover {
    /// What follows the last block that the metadata knows.
    pub fn after(feed: &Feed, known: u64) -> Result<Leftover, FeedError> {
        let (end, mut by_hash) = (feed.info().length, HashMap::<_, Vec<_>>::new());
        for block in known..end.min(known.saturating_add(MAX_BLOCKS)) {
            if let Some(leaf) = feed.node(block.saturating_mul(2))? {
                let places = by_hash.entry(leaf.hash).or_default();
                if places.len() < MAX_COMPARED {
                    places.push(block);
                }
            }
        }
        Ok(Leftover { feed: feed.clone(), end, by_hash })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Looks for a content.
    pub fn find(&self, content: &mut (impl Read + Seek)) -> Result<Option<Found>, StreamError> {
        let mut first = vec![0; BLOCK_BYTES];
        content.rewind().map_err(StreamError::Read)?;
        let len = read_full(content, &mut first).map_err(StreamError::Read)?;
        if len == 0 {
            return Ok(None);
        }
        let places = self.by_hash.get(&Node::leaf(0, &first[..len]).hash);
        for place in places.into_iter().flatten() {
            content.rewind().map_err(StreamError::Read)?;
            if let Some(found) = self.compare(*place, content)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// How far a content is what the feed has from a block on.
    fn compare(&self, start: u64, content: &mut impl Read) -> Result<Option<Found>, StreamError> {
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut at = start;
        loop {
            if at == self.end {
                let bytes = self.bytes(start..at)?;
                return Ok(Some(Found::Begun(start..at, bytes)));
            }
            let len = read_full(content, &mut buffer).map_err(StreamError::Read)?;
            if len > 0 {
                let leaf = self.feed.node(at.saturating_mul(2)).map_err(StreamError::Feed)?;
                if leaf.is_none_or(|leaf| leaf.hash != Node::leaf(at, &buffer[..len]).hash) {
                    return Ok(None);
                }
                at += 1;
            }
            if len < BLOCK_BYTES {
                let bytes = self.bytes(start..at)?;
                return Ok(Some(Found::Whole(Blob {
                    block_offset: start,
                    byte_offset: bytes.start,
                    block_length: at - start,
                    byte_length: bytes.end - bytes.start,
                    block_map: false,
                })));
            }
        }
    }

    fn bytes(&self, blocks: Range<u64>) -> Result<Range<u64>, StreamError> {
        self.feed.byte_range(blocks).map_err(StreamError::Feed)
    }
}
