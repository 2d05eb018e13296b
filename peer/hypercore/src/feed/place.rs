//! Where things are: nodes of the tree, blocks among bytes.

use super::{Feed, FeedError};
use crate::{
    disk::Patience,
    prove::{cover, nodes_before},
};
use datdot_proof::{
    flat,
    tree::{Node, Roots},
};
use std::{ops::Range, sync::PoisonError};

/// How far down the tree the place of a byte is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// It is in a block, after so many bytes.
    Block { index: u64, offset: u64 },
    /// It is below a node whose children are not here, probably near this byte of the feed.
    Under { node: u64, near: u64 },
}

impl Located {
    /// Block and offset, if they are known.
    pub fn block(self) -> Option<(u64, u64)> {
        match self {
            Located::Block { index, offset } => Some((index, offset)),
            Located::Under { .. } => None,
        }
    }
}

impl Feed {
    /// Where the bytes of a range of blocks are in the feed and in [`Feed::data_path`]. The range has to be within the
    /// head, and here or next to blocks that are here: only then the tree is known well enough.
    pub fn byte_range(&self, blocks: Range<u64>) -> Result<Range<u64>, FeedError> {
        let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        let roots = self.lock().roots.clone();
        if blocks.end > roots.length() {
            return Err(FeedError::OutOfRange { block: blocks.end, length: roots.length() });
        }
        Ok(self.offset(&roots, blocks.start)?..self.offset(&roots, blocks.end)?)
    }

    /// The block that has a byte of the feed, and how many bytes of the block come before it.
    pub fn seek(&self, byte: u64) -> Result<(u64, u64), FeedError> {
        self.locate(byte, 0)?.block().ok_or(FeedError::UnknownPlace { byte })
    }

    /// Goes down the tree to a byte as far as it is known. Of each block so many bytes don't count.
    pub(crate) fn locate(&self, byte: u64, padding: u64) -> Result<Located, FeedError> {
        let roots = self.lock().roots.clone();
        // The byte in the node where we are, and where that node begins in the feed.
        let (mut offset, mut start, mut place) = (byte, 0u64, None);
        for root in roots.nodes() {
            match offset.checked_sub(contents(root.index, root.size, padding)?) {
                None => {
                    place = Some((root.index, root.size));
                    break;
                }
                Some(rest) => (offset, start) = (rest, start.saturating_add(root.size)),
            }
        }
        let bytes = roots.bytes().saturating_sub(roots.length().saturating_mul(padding));
        let (mut at, mut size) = place.ok_or(FeedError::NoSuchByte { byte, bytes })?;
        while let Some((left, right)) = flat::children(at) {
            let known = self.node_under(&roots, left)?;
            let parts = known.map(|node| {
                let rest = size.saturating_sub(node.size);
                contents(right, rest, padding)?;
                Ok((node.size, contents(left, node.size, padding)?, rest))
            });
            let parts = match (parts.transpose(), known) {
                // As long as no block below is here the sizes were only told: a lie stops nobody.
                (Err(FeedError::NotEncrypted), Some(told)) if self.has_none_under(at) => {
                    self.forget_pair(&told)?;
                    None
                }
                (parts, _) => parts?,
            };
            let Some((before, inner, rest)) = parts else {
                // As if its blocks were all of one size.
                let part = u128::from(offset) * u128::from(size);
                let part = part.checked_div(contents(at, size, padding)?.into()).unwrap_or(0) as u64;
                return Ok(Located::Under { node: at, near: start.saturating_add(part.min(size.saturating_sub(1))) });
            };
            match offset.checked_sub(inner) {
                None => (at, size) = (left, before),
                Some(behind) => {
                    (offset, start) = (behind, start.saturating_add(before));
                    (at, size) = (right, rest);
                }
            }
        }
        Ok(Located::Block { index: flat::first_block(at), offset })
    }

    fn has_none_under(&self, index: u64) -> bool {
        let blocks = flat::first_block(index)..flat::end_block(index);
        self.with_blocks(|have| have.first_present(blocks)).is_none()
    }

    /// How many steps above a block the first node is from which all that leads to the root is here: what a request for the block
    /// has to say.
    #[doc(hidden)]
    pub fn steps_to_known(&self, block: u64) -> Result<u64, FeedError> {
        let roots = self.lock().roots.clone();
        let (mut index, mut steps) = (flat::leaf(block), 0);
        let Some(root) = roots.above(index).copied() else { return Ok(0) };
        let mut way = self.0.way.lock().unwrap_or_else(PoisonError::into_inner);
        let known = way.filter(|(to, _)| *to == root).map_or(root.index, |(_, from)| from);
        let mut found = None;
        while !flat::is_under(known, index) {
            // A crash may have left some nodes of a way and lost others, so one that is here does not suffice.
            let whole =
                self.node_under(&roots, index)?.is_some() && self.node_under(&roots, flat::sibling(index))?.is_some();
            found = if whole { found.or(Some((index, steps))) } else { None };
            (index, steps) = (flat::parent(index), steps + 1);
        }
        let (from, steps) = found.unwrap_or((index, steps));
        *way = Some((root, from));
        Ok(steps)
    }

    /// Whether our head can be proven to somebody who has a head of `length` blocks: all its roots are here.
    #[doc(hidden)]
    pub fn can_upgrade(&self, length: u64) -> bool {
        let roots = self.lock().roots.clone();
        let known = |index| self.node_under(&roots, index).is_ok_and(|node| node.is_some());
        length == 0 || length < roots.length() && flat::full_roots(length).all(known)
    }

    /// A node of the tree, if it is here: what proofs are made of.
    #[doc(hidden)]
    pub fn node(&self, index: u64) -> Result<Option<Node>, FeedError> {
        let roots = self.lock().roots.clone();
        self.node_under(&roots, index)
    }

    /// A node of a tree with these roots, if it is here.
    pub(super) fn node_under(&self, roots: &Roots, index: u64) -> Result<Option<Node>, FeedError> {
        self.node_with(roots, index, Patience::Waits)
    }

    pub(super) fn node_with(&self, roots: &Roots, index: u64, patience: Patience) -> Result<Option<Node>, FeedError> {
        match roots.above(index) {
            Some(root) if root.index == index => Ok(Some(*root)),
            Some(_) => self.0.disk.node(index, patience).map_err(|source| self.io(source)),
            None => Ok(None),
        }
    }

    /// Bytes of blocks, as far as the tree tells: what can't be mended counts for nothing. The caller holds `clearing`.
    pub(super) fn bytes_of(&self, roots: &Roots, blocks: &Range<u64>) -> Result<u64, FeedError> {
        let size = |index| Ok(self.node_mended(roots, index)?.map_or(0, |node| node.size));
        cover(blocks.start, blocks.end).map(size).sum()
    }

    /// Where a block begins. The caller holds `clearing`: nodes that are damaged are mended.
    pub(super) fn offset(&self, roots: &Roots, block: u64) -> Result<u64, FeedError> {
        self.offset_with(roots, block, Patience::Waits)
    }

    pub(super) fn offset_with(&self, roots: &Roots, block: u64, patience: Patience) -> Result<u64, FeedError> {
        let (known, offset) = *self.0.following.lock().unwrap_or_else(PoisonError::into_inner);
        if known == block {
            return Ok(offset);
        }
        let mut sum = 0u64;
        for index in nodes_before(roots.length(), block) {
            let node = match patience {
                Patience::Waits => self.node_mended(roots, index)?,
                Patience::None => self.node_with(roots, index, patience)?,
            };
            sum = sum.saturating_add(node.ok_or(FeedError::Damaged { block })?.size);
        }
        Ok(sum)
    }
}

/// Bytes of the blocks below a node without their padding.
fn contents(index: u64, size: u64, padding: u64) -> Result<u64, FeedError> {
    let blocks = flat::end_block(index) - flat::first_block(index);
    size.checked_sub(blocks.saturating_mul(padding)).ok_or(FeedError::NotEncrypted)
}
