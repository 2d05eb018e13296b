//! What happens to bytes on disk: bad nodes are made anew from what is below them; bad blocks are found, withdrawn, and come
//! again from a peer.

use super::{Changed, Feed, FeedError, accept::Shown};
use crate::{
    blocks::PAGE,
    disk::{MAX_STORED, Patience},
    files::is_lost,
};
use datdot_proof::{
    flat,
    tree::{Node, Roots},
};
use std::{ops::Range, sync::PoisonError};

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
        let Some(bytes) = self.bytes_at(offset, leaf.size, patience)? else { return Ok(None) };
        // If they are damaged the block is withdrawn, and this is forgotten.
        self.follow(block, offset.saturating_add(leaf.size));
        Ok(Some((bytes, leaf)))
    }

    /// A block that is not whole at first sight: read again once the nodes that lead to it are mended. If it still isn't, it is
    /// withdrawn. The caller holds `clearing`.
    pub(super) fn read_mended(&self, roots: &Roots, block: u64) -> Result<(Vec<u8>, Node), FeedError> {
        self.doubt_notes();
        self.audit(roots, flat::leaf(block))?;
        match self.read_stored(roots, block, Patience::Waits)? {
            Some((bytes, leaf)) if Node::leaf(block, &bytes) == leaf => Ok((bytes, leaf)),
            _ => {
                self.withdraw(block);
                Err(FeedError::Damaged { block })
            }
        }
    }

    /// A node of the tree; if it is damaged it is made anew, as far as that can be. The caller holds `clearing` or `writing`.
    pub(super) fn node_mended(&self, roots: &Roots, index: u64) -> Result<Option<Node>, FeedError> {
        match self.node_under(roots, index)? {
            None if self.audit(roots, index)? => self.node_under(roots, index),
            node => Ok(node),
        }
    }

    /// Bytes of the feed as they are stored; nothing if the disk lost them.
    fn bytes_at(&self, at: u64, len: u64, patience: Patience) -> Result<Option<Vec<u8>>, FeedError> {
        match self.0.disk.read(at, len as usize, patience) {
            Err(error) if is_lost(&error) => Ok(None),
            bytes => bytes.map(Some).map_err(|source| self.io(source)),
        }
    }

    /// Whether the stored nodes lead from the root down to `index`. The first pair that does not fit what is above it is mended or,
    /// if that can't be, forgotten, and nothing else: the nodes above it are true, and other blocks need them. The caller holds
    /// `clearing`.
    pub(super) fn audit(&self, roots: &Roots, index: u64) -> Result<bool, FeedError> {
        let Some(root) = roots.above(index) else { return Ok(false) };
        let before = roots.nodes().iter().take_while(|node| node.index != root.index);
        // A node that is true, and the byte where it begins.
        let mut above = (*root, before.map(|node| node.size).sum::<u64>());
        let mut higher = above;
        // The node that was told with a false size, as it seems.
        let mut disbelieved = None;
        while above.0.index != index {
            let (left, right) = flat::children(above.0.index).expect("the index is below it");
            let stored = self.node_under(roots, left)?.zip(self.node_under(roots, right)?);
            let shown = stored.and_then(|(left, right)| Node::parent(&left, &right).ok());
            let pair = match stored {
                Some(pair) if shown == Some(above.0) => Some(pair),
                _ => {
                    // Of two siblings only the sum of the sizes is hashed: this one was told with a false size.
                    if shown.is_some_and(|shown| shown.hash == above.0.hash) {
                        // Set right by what is beside it, it still does not fit: the author signed sizes that contradict each other.
                        if disbelieved.replace(above.0.index) == Some(above.0.index) {
                            return Ok(false);
                        }
                        above = higher;
                    }
                    self.mend(roots, &above.0, above.1)?
                }
            };
            let Some((left, right)) = pair else { return Ok(false) };
            higher = above;
            above = match flat::is_under(index, left.index) {
                true => (left, above.1),
                false => (right, above.1.saturating_add(left.size)),
            };
        }
        Ok(true)
    }

    /// The children of a true node that begins at byte `start`, of which one or both are made anew. They are stored if they fit; if
    /// nothing does, those that contradict the node are forgotten.
    fn mend(&self, roots: &Roots, above: &Node, start: u64) -> Result<Option<(Node, Node)>, FeedError> {
        let Some((left, right)) = flat::children(above.index) else { return Ok(None) };
        let (old_left, old_right) = (self.node_under(roots, left)?, self.node_under(roots, right)?);
        // What is made has its true size if it fits: the other one has the rest.
        let rest = |beside: Option<Node>| beside.and_then(|beside| above.size.checked_sub(beside.size));
        let beside = |node: Option<Node>, made| Some(Node { size: rest(made)?, ..node? });
        let fits = |(left, right): &(Node, Node)| Node::parent(left, right).as_ref() == Ok(above);
        let new_left = self.made(roots, left, start, rest(old_right))?;
        let mut pair = new_left.zip(beside(old_right, new_left)).filter(fits);
        for left in [old_left, new_left].into_iter().flatten() {
            if pair.is_none() {
                let new_right = self.made(roots, right, start.saturating_add(left.size), rest(Some(left)))?;
                pair = beside(Some(left), new_right).zip(new_right).filter(fits);
            }
        }
        let Some((left, right)) = pair else {
            match old_left.zip(old_right) {
                Some((old, _)) => self.forget_pair(&old)?,
                None => self.doubt_notes(),
            }
            return Ok(None);
        };
        tracing::warn!(target: "hypercore", feed = %self.0.key, node = above.index, "its children were damaged: made anew");
        let written = {
            let mut state = self.lock();
            // They may have been written a moment ago.
            [left, right].iter().for_each(|node| state.pending.forget(node.index));
            self.learn(&mut state, &Shown { proven: vec![left, right], ..Shown::default() })?
        };
        self.doubt_notes();
        self.queue_sync(0, written)?;
        Ok(Some((left, right)))
    }

    /// A node as it follows from what is below it: from its children, of which one may have to be made likewise, or from its
    /// block, which begins at byte `start`, if its size is known.
    fn made(&self, roots: &Roots, index: u64, start: u64, size: Option<u64>) -> Result<Option<Node>, FeedError> {
        let Some((left, right)) = flat::children(index) else {
            let Some(size) = size.filter(|size| *size <= MAX_STORED) else { return Ok(None) };
            let bytes = self.bytes_at(start, size, Patience::Waits)?;
            return Ok(bytes.map(|bytes| Node::leaf(flat::first_block(index), &bytes)));
        };
        let rest = |beside: Node| size.and_then(|size| size.checked_sub(beside.size));
        let children = match (self.node_under(roots, left)?, self.node_under(roots, right)?) {
            (Some(left), None) => {
                let right = self.made(roots, right, start.saturating_add(left.size), rest(left))?;
                Some(left).zip(right)
            }
            (None, Some(right)) => self.made(roots, left, start, rest(right))?.zip(Some(right)),
            (left, right) => left.zip(right),
        };
        Ok(children.and_then(|(left, right)| Node::parent(&left, &right).ok()))
    }

    /// Forgets a node and its sibling, unless something else came in its place.
    pub(super) fn forget_pair(&self, node: &Node) -> Result<(), FeedError> {
        let mut state = self.lock();
        let stored = self.0.disk.node(node.index, Patience::Waits).map_err(|source| self.io(source))?;
        if stored.as_ref() != Some(node) {
            return Ok(());
        }
        let gone = [node.index, flat::sibling(node.index)].into_iter().try_for_each(|index| {
            state.pending.forget(index);
            self.0.disk.forget_node(index).map_err(|source| self.io(source))
        });
        drop(state);
        // Once they are gone: before that, who looks for the way of a block notes it anew.
        self.doubt_notes();
        gone
    }

    pub(crate) fn scrub_now(&self, blocks: Range<u64>) -> Result<Vec<u64>, FeedError> {
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
            // It was dropped meanwhile.
            if !self.has(block) {
                continue;
            }
            let is_whole = |(bytes, leaf): (Vec<u8>, Node)| Node::leaf(block, &bytes) == leaf;
            if !self.audit(&roots, flat::leaf(block))?
                || !self.read_stored(&roots, block, Patience::Waits)?.is_some_and(is_whole)
            {
                self.withdraw(block);
                damaged.push(block);
            }
        }
        // They are withdrawn all the same.
        if let Err(error) = self.sync() {
            tracing::error!(target: "hypercore", feed = %self.0.key, %error, "what was found can't be brought to the disk");
        }
        Ok(damaged)
    }

    /// Takes a block back that turned out to be damaged.
    pub(super) fn withdraw(&self, block: u64) {
        tracing::warn!(target: "hypercore", feed = %self.0.key, block, "block is damaged on disk: withdrawn");
        self.doubt_notes();
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
        if lost {
            self.tell(Changed::Lost(block..block + 1));
            if let Err(error) = self.queue_sync(0, 1) {
                tracing::error!(target: "hypercore", feed = %self.0.key, %error, "the withdrawal can't be brought to the disk");
            }
        }
    }

    /// The tree on the disk is not as it was: an offset that was noted may come from a false size, and of a way that was noted as
    /// whole a part may be gone.
    pub(super) fn doubt_notes(&self) {
        *self.0.following.lock().unwrap_or_else(PoisonError::into_inner) = (0, 0);
        *self.0.way.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
