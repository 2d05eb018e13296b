//! What authors do: append blocks under a signature.

use super::{Changed, Commit, Feed, FeedError, MAX_BLOCK, Signed};
use crate::leaves::leaves;
use bytes::Bytes;
use datdot_proof::head::{Head, HeadError};
use std::{borrow::Cow, sync::PoisonError};

/// Data of an append is gathered into writes of about this many bytes.
const WRITE_BYTES: usize = 1 << 20;
/// From so many bytes on, the disk begins with them while they are hashed.
const MANY_BYTES: u64 = 256 << 10;

impl Feed {
    /// Appends blocks under one signature; returns the new length. They are on the disk when it returns.
    ///
    /// [`FeedError::NotWritable`] without the feed's secret key, [`FeedError::TooLarge`] if a block has more than
    /// [`MAX_BLOCK`] bytes, [`FeedError::Io`] if the disk takes it not. On a full disk nothing was appended then. If the disk fails in
    /// the end they may be there once the store is opened again: look at the length before you append them once more, or use
    /// [`Feed::append_at`].
    pub async fn append(&self, blocks: Vec<Bytes>) -> Result<u64, FeedError> {
        self.blocking(move |feed| feed.write(&blocks)).await
    }

    /// [`Feed::append`], if the feed has so many blocks; else [`FeedError::Moved`]. For blocks that make sense only behind
    /// those that their writer has seen, as others may append meanwhile.
    pub async fn append_at(&self, length: u64, blocks: Vec<Bytes>) -> Result<u64, FeedError> {
        self.blocking(move |feed| feed.write_at(length, &blocks)).await
    }

    /// [`Feed::append`] on the caller's thread, which it blocks.
    pub fn write(&self, blocks: &[Bytes]) -> Result<u64, FeedError> {
        self.write_made(|_, _| Ok(blocks.into()))
    }

    /// [`Feed::append_at`] on the caller's thread, which it blocks.
    pub fn write_at(&self, length: u64, blocks: &[Bytes]) -> Result<u64, FeedError> {
        self.write_made(|now, _| if now == length { Ok(blocks.into()) } else { Err(FeedError::Moved { length: now }) })
    }

    /// Appends the blocks that `make` makes of the feed's length and fork, while these don't change.
    pub(crate) fn write_made<'a>(
        &self,
        make: impl FnOnce(u64, u64) -> Result<Cow<'a, [Bytes]>, FeedError>,
    ) -> Result<u64, FeedError> {
        let signer = self.0.signer.get().ok_or(FeedError::NotWritable)?;
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (manifest, authors) = self.manifest().zip(self.authors()).ok_or(FeedError::NotWritable)?;
        let (mut roots, fork) = {
            let state = self.lock();
            (state.roots.clone(), state.head.as_ref().map_or(0, |head| head.fork))
        };
        let (start, offset) = (roots.length(), roots.bytes());
        let blocks = &*make(start, fork)?;
        if let Some(large) = blocks.iter().find(|block| block.len() > MAX_BLOCK) {
            return Err(FeedError::TooLarge { bytes: large.len() });
        }
        if blocks.is_empty() {
            return Ok(start);
        }
        if self.is_removed() {
            return Err(FeedError::Removed);
        }
        let bytes: u64 = blocks.iter().map(|block| block.len() as u64).sum();
        self.write_data(offset, blocks).map_err(|source| self.io(source))?;
        if bytes >= MANY_BYTES {
            self.0.disk.begin_sync(offset..offset + bytes);
        }
        let (mut nodes, old) = (Vec::with_capacity(2 * blocks.len()), roots.nodes().to_vec());
        for leaf in leaves((start..).zip(blocks.iter().map(|block| &block[..]))) {
            nodes.push(leaf);
            nodes.extend(roots.push(leaf).map_err(|_| HeadError::TooLarge)?);
        }
        // Roots that are inner nodes now: those on the disk may have been damaged meanwhile, these come from the record.
        nodes.extend(old.into_iter().filter(|node| !roots.nodes().contains(node)));
        let length = roots.length();
        let head = Head { fork, length, tree_hash: roots.tree_hash() };
        let signature = signer.sign(&head.signable(&self.0.key.0, &manifest));
        let head = Signed { fork, signature: manifest.signature_to_wire(&signature).into() };
        let commit = Commit { gained: Some((start..length, offset)), ..Commit::head(authors, head, roots, nodes) };
        self.commit(Some(commit))?;
        if bytes < MANY_BYTES {
            self.0.disk.go_ahead(offset + bytes, bytes);
        }
        self.tell(Changed::Grown);
        self.tell(Changed::Gained(start..length));
        Ok(length)
    }

    /// Writes blocks that follow each other, small ones together.
    pub(super) fn write_data<'a>(
        &self,
        mut offset: u64,
        blocks: impl IntoIterator<Item = &'a Bytes>,
    ) -> std::io::Result<()> {
        let mut gathered = Vec::new();
        for block in blocks {
            // Large blocks are written as they are.
            if gathered.is_empty() && block.len() >= WRITE_BYTES / 16 {
                self.0.disk.write(offset, block)?;
                offset += block.len() as u64;
                continue;
            }
            gathered.extend_from_slice(block);
            if gathered.len() >= WRITE_BYTES {
                self.0.disk.write(offset, &gathered)?;
                offset += gathered.len() as u64;
                gathered.clear();
            }
        }
        self.0.disk.write(offset, &gathered)
    }
}
