//! What happens to bytes on disk: bad blocks and nodes are found, withdrawn, and come again from a peer.

use super::{Changed, Feed, FeedError};
use crate::{
    blocks::PAGE,
    disk::{MAX_STORED, Patience},
};
use datdot_proof::{
    flat,
    tree::{Node, Roots},
};
use std::{io, ops::Range, sync::PoisonError};

/// Larger blocks take too long to hash for a thread that others wait for.
const MAX_NOW: u64 = 64 << 10;

impl Feed {
    /// The bytes that are stored as a block, and the leaf that they should have; nothing if one of them can't be read.
    pub(super) fn read_stored(
        &self,
        roots: &Roots,
        block: u64,
        patience: Patience,
    ) -> Result<Option<(Vec<u8>, Node)>, FeedError> {
        let most = if patience == Patience::None { MAX_NOW } else { MAX_STORED };
        let stored = self.node_with(roots, flat::leaf(block), patience)?;
        let Some(leaf) = stored.filter(|leaf| leaf.size <= most) else { return Ok(None) };
        let offset = match self.offset_with(roots, block, patience) {
            Err(FeedError::Damaged { .. }) => return Ok(None),
            offset => offset?,
        };
        let bytes = match self.0.disk.read(offset, leaf.size as usize, patience) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            bytes => bytes.map_err(|source| self.io(source))?,
        };
        // If they are damaged the block is withdrawn, and this is forgotten.
        self.follow(block, offset + leaf.size);
        Ok(Some((bytes, leaf)))
    }

    /// Whether the stored nodes lead from `index` to its root. If not, they are forgotten.
    pub(super) fn audit(&self, roots: &Roots, index: u64) -> Result<bool, FeedError> {
        let Some(root) = roots.above(index) else { return Ok(false) };
        let (mut at, mut node) = (index, self.node_under(roots, index)?);
        while at != root.index {
            let sibling = self.node_under(roots, flat::sibling(at))?;
            node = node.zip(sibling).and_then(|(node, sibling)| Node::parent(&node, &sibling).ok());
            at = flat::parent(at);
        }
        let good = node.as_ref() == Some(root);
        if !good {
            self.forget_way(roots, index)?;
        }
        Ok(good)
    }

    /// Forgets all nodes from `index` to its root: which of them is false can't be known, and they come again with the next proof.
    pub(super) fn forget_way(&self, roots: &Roots, index: u64) -> Result<(), FeedError> {
        let mut at = index;
        while roots.above(at).is_some_and(|root| root.index != at) {
            self.forget_pair(at)?;
            at = flat::parent(at);
        }
        Ok(())
    }

    /// Forgets a node and its sibling.
    pub(super) fn forget_pair(&self, index: u64) -> Result<(), FeedError> {
        self.lock().pending.forget();
        *self.0.way.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let forget = |index| self.0.disk.forget_node(index).map_err(|source| self.io(source));
        forget(index).and_then(|()| forget(flat::sibling(index)))
    }

    pub(super) fn scrub_now(&self, blocks: Range<u64>) -> Result<Vec<u64>, FeedError> {
        let (roots, have, fork) = {
            let state = self.lock();
            (state.roots.clone(), state.have.clone(), state.head.as_ref().map(|head| head.fork))
        };
        let mut damaged = Vec::new();
        for block in have.runs(blocks.start..blocks.end.min(roots.length())).flatten() {
            let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
            // What is here now belongs to another history.
            if self.lock().head.as_ref().map(|head| head.fork) != fork {
                break;
            }
            let is_whole = |(bytes, leaf): (Vec<u8>, Node)| Node::leaf(block, &bytes) == leaf;
            if !self.read_stored(&roots, block, Patience::Waits)?.is_some_and(is_whole)
                || !self.audit(&roots, flat::leaf(block))?
            {
                self.withdraw(block);
                damaged.push(block);
            }
        }
        self.sync()?;
        Ok(damaged)
    }

    /// Takes a block back that turned out to be damaged.
    pub(super) fn withdraw(&self, block: u64) {
        tracing::warn!(target: "hypercore", feed = %self.0.key, block, "block is damaged on disk: withdrawn");
        // Offsets that were noted may come from damaged sizes.
        *self.0.following.lock().unwrap_or_else(PoisonError::into_inner) = (0, 0);
        let size = self.0.disk.node(flat::leaf(block), Patience::Waits).ok().flatten().map_or(0, |leaf| leaf.size);
        let lost = {
            let mut state = self.lock();
            let lost = state.have.remove(block);
            if lost {
                state.dirty.insert(block / PAGE);
                state.pending.lose(block);
                // Its leaf may be what is damaged: when all is here again, the sum is taken from the roots.
                state.have_bytes = state.have_bytes.saturating_sub(size);
            }
            lost
        };
        let roots = self.lock().roots.clone();
        if let Err(error) = self.audit(&roots, flat::leaf(block)) {
            tracing::warn!(target: "hypercore", feed = %self.0.key, %error, "the tree can't be checked");
        }
        if lost {
            self.tell(Changed::Lost(block..block + 1));
            if let Err(error) = self.queue_sync(0, 1) {
                tracing::error!(target: "hypercore", feed = %self.0.key, %error, "the withdrawal can't be brought to the disk");
            }
        }
    }
}
