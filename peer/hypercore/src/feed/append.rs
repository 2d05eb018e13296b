//! What authors do: append blocks under a signature.

use super::{Changed, Commit, Feed, FeedError, MAX_BLOCK, Signed};
use blake2b_simd::{
    Params,
    many::{HashManyJob, degree, hash_many},
};
use bytes::Bytes;
use datdot_proof::{
    flat,
    head::{Head, HeadError},
    tree::Node,
};
use std::{borrow::Cow, sync::PoisonError};

/// Data of an append is gathered into writes of about this many bytes.
const WRITE_BYTES: usize = 1 << 20;

impl Feed {
    /// Appends blocks under one signature; returns the new length. They are on the disk when it returns.
    ///
    /// [`FeedError::NotWritable`] without the feed's secret key, [`FeedError::TooLarge`] if a block has more than
    /// [`MAX_BLOCK`](super::MAX_BLOCK) bytes, [`FeedError::Io`] if the disk takes it not; then nothing was appended.
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
        self.write_data(offset, blocks).map_err(|source| self.io(source))?;
        // The old roots are inner nodes now: those on the disk may have been damaged meanwhile, these come from the record.
        let mut nodes = roots.nodes().to_vec();
        for leaf in leaves(start, blocks) {
            nodes.push(leaf);
            nodes.extend(roots.push(leaf).map_err(|_| HeadError::TooLarge)?);
        }
        let length = roots.length();
        let head = Head { fork, length, tree_hash: roots.tree_hash() };
        let signature = signer.sign(&head.signable(&self.0.key.0, &manifest));
        let head = Signed { fork, signature: manifest.signature_to_wire(&signature).into() };
        let commit = Commit { gained: Some((start..length, offset)), ..Commit::head(authors, head, roots, nodes) };
        self.commit(Some(commit))?;
        self.tell(Changed::Grown);
        self.tell(Changed::Gained(start..length));
        Ok(length)
    }

    fn write_data(&self, mut offset: u64, blocks: &[Bytes]) -> std::io::Result<()> {
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

/// The leaves of blocks, hashed several at a time in the lanes of one processor: [`Node::leaf`] for each of them.
fn leaves(start: u64, blocks: &[Bytes]) -> Vec<Node> {
    let mut params = Params::new();
    params.hash_length(32);
    let mut leaves = Vec::with_capacity(blocks.len());
    let mut inputs: Vec<Vec<u8>> = vec![Vec::new(); degree()];
    for (first, group) in (start..).step_by(degree()).zip(blocks.chunks(degree())) {
        for (input, block) in inputs.iter_mut().zip(group) {
            input.clear();
            input.push(0);
            input.extend_from_slice(&(block.len() as u64).to_le_bytes());
            input.extend_from_slice(block);
        }
        let mut jobs: Vec<_> = inputs[..group.len()].iter().map(|input| HashManyJob::new(&params, input)).collect();
        hash_many(&mut jobs);
        for ((number, job), block) in (first..).zip(&jobs).zip(group) {
            let hash = job.to_hash().as_bytes().try_into().expect("32 bytes were asked for");
            leaves.push(Node { index: flat::leaf(number), size: block.len() as u64, hash });
        }
    }
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_that_are_hashed_together_are_those_that_are_hashed_alone() {
        for sizes in [&[][..], &[0], &[1, 0, 5000, 128, 127], &[1024; 64], &[64 << 10; 3]] {
            let block = |(i, size): (usize, &usize)| Bytes::from(vec![i as u8; *size]);
            let blocks: Vec<_> = sizes.iter().enumerate().map(block).collect();
            let alone: Vec<_> = (7..).zip(&blocks).map(|(number, block)| Node::leaf(number, block)).collect();
            assert_eq!(leaves(7, &blocks), alone);
        }
    }
}
