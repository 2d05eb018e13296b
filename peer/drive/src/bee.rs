//! The metadata of a drive: a B-tree of keys and values in a feed, where each put or deletion is one block.
//!
//! ```text
//! blocks      0 header   1 put "b"   2 put "a"   3 put "c"   …   n put "x"
//! tree of n   the first node in block n is the root; its children are nodes in n and in earlier blocks
//! ```
//!
//! A block brings the nodes that it changed, from the leaf up to the root, and points to the rest. So the tree as it was at
//! any earlier length of the feed, a *version*, is still there.
//!
//! Nothing here waits: what is not on this disk ends a call with [`FeedError::NotHere`], and after that block came the same
//! call gets further.

mod batch;
#[cfg(test)]
mod tests;

pub use self::batch::Batch;
use crate::node::{Header, Level, Malformed, Node, Place};
use bytes::Bytes;
use datdot_hypercore::{Feed, FeedError, View};
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    ops::{Bound, Range},
    sync::{Arc, Mutex, PoisonError},
};

/// Nodes above each other in a tree. One of 2^40 keys has 18, if every node has as few as it may.
const MAX_DEPTH: usize = 32;
/// Bytes of blocks that are kept decoded.
const CACHE_BYTES: usize = 4 << 20;

/// The blocks that a tree is in.
pub trait Blocks {
    /// A block, verified.
    fn block(&self, number: u64) -> Result<Bytes, FeedError>;
}

impl Blocks for Feed {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        self.read(number).map(Bytes::from)
    }
}

impl Blocks for View {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        self.read(number)
    }
}

/// A tree at one version.
pub struct Bee<B> {
    blocks: B,
    version: u64,
    cache: Mutex<Cache>,
}

impl<B> fmt::Debug for Bee<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bee").field("version", &self.version).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Cache {
    nodes: BTreeMap<u64, Arc<Node>>,
    bytes: usize,
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block that put it.
    pub block: u64,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// One step of a tree's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its block.
    pub block: u64,
    /// The key that was put or deleted.
    pub key: Bytes,
    /// The value that was put; `None` if the key was deleted.
    pub put: Option<Bytes>,
}

/// Why a tree can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BeeError {
    /// A block can't be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A block is here, signed by its author, and makes no sense.
    #[error("block {block} of the metadata: {why}")]
    Malformed {
        /// The block.
        block: u64,
        /// What is wrong with it.
        why: Malformed,
    },
}

impl<B: Blocks> Bee<B> {
    /// The tree after the first `version` blocks of a feed. What a batch wrote is whole only after its last block.
    pub fn new(blocks: B, version: u64) -> Bee<B> {
        Bee { blocks, version, cache: Mutex::default() }
    }

    /// Blocks of the feed that count.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Block 0.
    pub fn header(&self) -> Result<Header, BeeError> {
        Header::from_block(self.blocks.block(0)?).map_err(|why| BeeError::Malformed { block: 0, why })
    }

    /// What is stored under a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, BeeError> {
        let mut place = self.root();
        for _ in 0..MAX_DEPTH {
            let Some(at) = place else { return Ok(None) };
            let level = self.level(at)?;
            match self.search(&level, key)? {
                Ok(found) => return self.entry(level.keys[found]).map(Some),
                Err(child) => place = level.children.get(child).copied(),
            }
        }
        Err(self.malformed(Malformed::Depth))
    }

    /// The entries between two keys, in the order of their bytes.
    pub fn range(&self, from: Bound<Bytes>, to: Bound<Bytes>) -> Entries<'_, B> {
        Entries { bee: self, from, to, stack: None, last: None }
    }

    /// What the blocks of a range did, one after the other. The header did nothing.
    pub fn history(&self, blocks: Range<u64>) -> impl Iterator<Item = Result<Change, BeeError>> + '_ {
        (blocks.start.max(1)..blocks.end.min(self.version)).map(|block| {
            let node = self.node(block)?;
            let put = (!node.is_deletion(block)).then(|| node.value.clone().unwrap_or_default());
            Ok(Change { block, key: node.key.clone(), put })
        })
    }

    /// Changes to this tree, to be appended to its feed.
    pub fn batch(&self) -> Batch<'_, B> {
        Batch::new(self)
    }

    fn root(&self) -> Option<Place> {
        (self.version > 1).then(|| Place { block: self.version - 1, level: 0 })
    }

    fn node(&self, block: u64) -> Result<Arc<Node>, BeeError> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = cache().nodes.get(&block) {
            return Ok(node.clone());
        }
        let bytes = self.blocks.block(block)?;
        let len = bytes.len();
        let node = Node::from_block(bytes).map_err(|why| BeeError::Malformed { block, why })?;
        let node = Arc::new(node);
        let mut cache = cache();
        if cache.bytes + len > CACHE_BYTES {
            *cache = Cache::default();
        }
        // One that is as large as the whole cache is not kept.
        if len <= CACHE_BYTES {
            cache.bytes += len;
            cache.nodes.insert(block, node.clone());
        }
        Ok(node)
    }

    fn level(&self, place: Place) -> Result<Level, BeeError> {
        let Place { block, level } = place;
        self.node(block)?.level(block, level).cloned().map_err(|why| BeeError::Malformed { block, why })
    }

    fn key(&self, block: u64) -> Result<Bytes, BeeError> {
        Ok(self.node(block)?.key.clone())
    }

    fn entry(&self, block: u64) -> Result<Entry, BeeError> {
        let node = self.node(block)?;
        Ok(Entry { block, key: node.key.clone(), value: node.value.clone() })
    }

    /// Where a key is among those of a node, or the child where it would be.
    fn search(&self, level: &Level, key: &[u8]) -> Result<Result<usize, usize>, BeeError> {
        search(&level.keys, |block| Ok(key.cmp(&self.key(block)?[..])))
    }

    fn malformed(&self, why: Malformed) -> BeeError {
        BeeError::Malformed { block: self.version.saturating_sub(1), why }
    }
}

/// Looks for a key among those of a node, as JavaScript does: where keys are out of order, both end at the same place.
fn search<E>(keys: &[u64], mut compare: impl FnMut(u64) -> Result<Ordering, E>) -> Result<Result<usize, usize>, E> {
    let (mut start, mut end) = (0, keys.len());
    while start < end {
        let middle = (start + end) / 2;
        match compare(keys[middle])? {
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Less => end = middle,
            Ordering::Greater => start = middle + 1,
        }
    }
    Ok(Err(start))
}

/// Entries in the order of their keys; made by [`Bee::range`].
///
/// An error does not end it: the next call tries again where it was.
pub struct Entries<'a, B> {
    bee: &'a Bee<B>,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    /// The nodes from the root to where we are; `None` before the start was looked for.
    stack: Option<Vec<Step>>,
    last: Option<Bytes>,
}

impl<B> fmt::Debug for Entries<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("bee", self.bee).field("last", &self.last).finish_non_exhaustive()
    }
}

struct Step {
    level: Level,
    /// Child 0, key 0, child 1, key 1, …
    next: usize,
}

impl<B: Blocks> Iterator for Entries<'_, B> {
    type Item = Result<Entry, BeeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl<B: Blocks> Entries<'_, B> {
    fn step(&mut self) -> Result<Option<Entry>, BeeError> {
        let mut stack = match self.stack.take() {
            Some(stack) => stack,
            None => self.open()?,
        };
        let found = self.advance(&mut stack);
        self.stack = Some(stack);
        found
    }

    /// Goes down to the first entry of the range.
    fn open(&self) -> Result<Vec<Step>, BeeError> {
        let mut stack = Vec::new();
        let mut place = self.bee.root();
        while let Some(at) = place {
            let level = self.bee.level(at)?;
            let next = match &self.from {
                Bound::Unbounded => 0,
                Bound::Included(key) | Bound::Excluded(key) => match self.bee.search(&level, key)? {
                    Ok(found) => 2 * found + 1,
                    Err(child) => 2 * child,
                },
            };
            place = if next % 2 == 0 { level.children.get(next / 2).copied() } else { None };
            // The child is on the stack itself.
            let next = if place.is_some() { next + 1 } else { next };
            stack.push(Step { level, next });
            if stack.len() > MAX_DEPTH {
                return Err(self.bee.malformed(Malformed::Depth));
            }
        }
        Ok(stack)
    }

    fn advance(&mut self, stack: &mut Vec<Step>) -> Result<Option<Entry>, BeeError> {
        while let Some(top) = stack.last_mut() {
            let at = top.next / 2;
            if top.next % 2 == 0 {
                if let Some(child) = top.level.children.get(at) {
                    let level = self.bee.level(*child)?;
                    top.next += 1;
                    stack.push(Step { level, next: 0 });
                    if stack.len() > MAX_DEPTH {
                        return Err(self.bee.malformed(Malformed::Depth));
                    }
                } else {
                    top.next += 1;
                }
                continue;
            }
            let Some(block) = top.level.keys.get(at).copied() else {
                _ = stack.pop();
                continue;
            };
            let entry = self.bee.entry(block)?;
            top.next += 1;
            let beyond = match &self.to {
                Bound::Unbounded => false,
                Bound::Included(end) => entry.key > end,
                Bound::Excluded(end) => entry.key >= end,
            };
            if beyond {
                stack.clear();
                return Ok(None);
            }
            let before = match &self.from {
                Bound::Unbounded => false,
                Bound::Included(start) => entry.key < start,
                Bound::Excluded(start) if self.last.is_none() && entry.key == start => continue,
                Bound::Excluded(start) => entry.key <= start,
            };
            // A tree whose branches come together again would have more entries than anybody can wait for.
            if before || self.last.as_ref().is_some_and(|last| entry.key <= last) {
                stack.clear();
                return Err(BeeError::Malformed { block, why: Malformed::Order });
            }
            self.last = Some(entry.key.clone());
            return Ok(Some(entry));
        }
        Ok(None)
    }
}
