//! Writing: puts and deletions, in the very bytes that JavaScript's Hyperbee would write for them.
//!
//! The tree is loaded as far as it is touched and changed in memory. Each change then takes all nodes that it touched into
//! its block, whose index lists them from the root down. When the blocks are made, those before the last drop what later
//! ones wrote again, and their root.

use super::{Bee, BeeError, Blocks, MAX_DEPTH, search};
use crate::node::{Level, MAX_KEYS, Malformed, Node, Place};
use bytes::Bytes;
use std::fmt;

/// Keys that a node has at least, if it is not the root.
const MIN_KEYS: usize = 4;

/// Changes of a tree that become blocks together.
pub struct Batch<'a, B> {
    bee: &'a Bee<B>,
    nodes: Vec<Branch>,
    links: Vec<Link>,
    root: Option<NodeId>,
    written: Vec<Written>,
}

type NodeId = usize;
type LinkId = usize;

/// A node in memory.
#[derive(Default)]
struct Branch {
    keys: Vec<u64>,
    children: Vec<LinkId>,
    changed: bool,
}

/// From a node to its child. It keeps its name when it moves to another node; blocks know their nodes by it.
struct Link {
    place: Place,
    node: Option<NodeId>,
}

struct Written {
    key: Bytes,
    value: Option<Bytes>,
    index: Vec<Option<LinkId>>,
}

/// The block of what no node points to: none has its nodes in the header.
const NOWHERE: u64 = 0;

impl<B> fmt::Debug for Batch<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("bee", self.bee).finish_non_exhaustive()
    }
}

impl<'a, B: Blocks> Batch<'a, B> {
    pub(super) fn new(bee: &'a Bee<B>) -> Self {
        Batch { bee, nodes: Vec::new(), links: Vec::new(), root: None, written: Vec::new() }
    }

    /// How many blocks the changes take so far.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether nothing changed so far.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Stores a value under a key. After an error the batch is of no use.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), BeeError> {
        let block = self.next_block();
        let (mut root, mut stack) = (self.root()?, Vec::new());
        let mut node = root;
        let at = loop {
            let found = self.search(node, &key)?;
            self.nodes[node].changed = true;
            match found {
                Ok(at) => {
                    self.nodes[node].keys[at] = block;
                    self.write(root, key, Some(value));
                    return Ok(());
                }
                Err(at) if self.nodes[node].children.is_empty() => break at,
                Err(at) => {
                    stack.push(node);
                    self.check_depth(stack.len())?;
                    node = self.child(node, at)?;
                }
            }
        };
        self.nodes[node].keys.insert(at, block);
        // The new key may be the one that moves up, before its block is written.
        let key_of = |batch: &Self, number| if number == block { Ok(key.clone()) } else { batch.key(number) };
        while self.nodes[node].keys.len() > MAX_KEYS {
            let (median, right) = self.split(node);
            let right = self.link(right);
            let Some(parent) = stack.pop() else {
                let left = self.link(node);
                root = self.add(Branch { keys: vec![median], children: vec![left, right], changed: true });
                break;
            };
            let median_key = key_of(self, median)?;
            let (Ok(at) | Err(at)) = self.search(parent, &median_key)?;
            self.nodes[parent].keys.insert(at, median);
            self.nodes[parent].children.insert(at + 1, right);
            node = parent;
        }
        self.write(root, key, Some(value));
        Ok(())
    }

    /// Takes a key away; says whether it was there. If not, nothing is written. After an error the batch is of no use.
    pub fn del(&mut self, key: &Bytes) -> Result<bool, BeeError> {
        let mut node = self.root()?;
        let mut stack = vec![node];
        let at = loop {
            match self.search(node, key)? {
                Ok(at) => break at,
                Err(_) if self.nodes[node].children.is_empty() => return Ok(false),
                Err(at) => {
                    node = self.child(node, at)?;
                    stack.push(node);
                    self.check_depth(stack.len())?;
                }
            }
        };
        if self.nodes[node].children.is_empty() {
            self.nodes[node].keys.remove(at);
        } else {
            self.replace_by_nearest(node, at, &mut stack)?;
        }
        stack.iter().for_each(|&node| self.nodes[node].changed = true);
        let root = self.rebalance(stack)?;
        self.write(root, key.clone(), None);
        Ok(true)
    }

    /// The blocks to append to the feed.
    pub fn into_blocks(mut self) -> Vec<Bytes> {
        let written = std::mem::take(&mut self.written);
        let last = written.len().saturating_sub(1);
        let mut blocks = Vec::with_capacity(written.len());
        for (number, Written { key, value, mut index }) in (self.bee.version..).zip(written) {
            if blocks.len() < last {
                self.drop_rewritten(number, &mut index);
            }
            let levels = index.iter().flatten().map(|&link| {
                let node = &self.nodes[self.links[link].node.expect("what was written is in memory")];
                let children = node.children.iter().map(|&child| self.links[child].place).collect();
                Level { keys: node.keys.clone(), children }
            });
            let levels = levels.collect();
            blocks.push(Node { key, value, levels }.to_block());
        }
        blocks
    }

    /// Leaves only those nodes in a block's index that no later block has, and closes the gaps from the end.
    fn drop_rewritten(&mut self, number: u64, index: &mut Vec<Option<LinkId>>) {
        index[0] = None;
        let mut at = 0;
        while at < index.len() {
            match index[at] {
                Some(link) if self.links[link].place.block == number => {
                    self.links[link].place.level = at as u64;
                    at += 1;
                }
                _ => _ = index.swap_remove(at),
            }
        }
    }

    fn next_block(&self) -> u64 {
        self.bee.version + self.written.len() as u64
    }

    fn add(&mut self, node: Branch) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn link(&mut self, node: NodeId) -> LinkId {
        self.links.push(Link { place: Place { block: NOWHERE, level: 0 }, node: Some(node) });
        self.links.len() - 1
    }

    fn load(&mut self, place: Place) -> Result<NodeId, BeeError> {
        let level = self.bee.level(place)?;
        let start = self.links.len();
        self.links.extend(level.children.into_iter().map(|place| Link { place, node: None }));
        let children = (start..self.links.len()).collect();
        Ok(self.add(Branch { keys: level.keys, children, changed: false }))
    }

    fn root(&mut self) -> Result<NodeId, BeeError> {
        if let Some(root) = self.root {
            return Ok(root);
        }
        let root = match self.bee.root() {
            Some(place) => self.load(place)?,
            None => self.add(Branch { changed: true, ..Branch::default() }),
        };
        self.root = Some(root);
        Ok(root)
    }

    fn child(&mut self, node: NodeId, at: usize) -> Result<NodeId, BeeError> {
        self.follow(self.nodes[node].children[at])
    }

    fn follow(&mut self, link: LinkId) -> Result<NodeId, BeeError> {
        if let Some(node) = self.links[link].node {
            return Ok(node);
        }
        let node = self.load(self.links[link].place)?;
        self.links[link].node = Some(node);
        Ok(node)
    }

    fn key(&self, block: u64) -> Result<Bytes, BeeError> {
        match block.checked_sub(self.bee.version) {
            Some(ours) => Ok(self.written[ours as usize].key.clone()),
            None => self.bee.key(block),
        }
    }

    fn search(&self, node: NodeId, key: &Bytes) -> Result<Result<usize, usize>, BeeError> {
        search(&self.nodes[node].keys, |block| Ok(key.cmp(&self.key(block)?)))
    }

    fn check_depth(&self, depth: usize) -> Result<(), BeeError> {
        if depth < MAX_DEPTH { Ok(()) } else { Err(self.bee.malformed(Malformed::Depth)) }
    }

    /// Cuts a node with a key too many into two; returns the key between them and the right one.
    fn split(&mut self, node: NodeId) -> (u64, NodeId) {
        let left = &mut self.nodes[node];
        let keys = left.keys.split_off(left.keys.len() - MIN_KEYS);
        let median = left.keys.pop().expect("five keys are left");
        let children = if left.children.is_empty() { Vec::new() } else { left.children.split_off(MIN_KEYS + 1) };
        (median, self.add(Branch { keys, children, changed: true }))
    }

    /// Puts the next smaller or larger key, whichever leaf can spare one better, into the place of an inner node's.
    fn replace_by_nearest(&mut self, node: NodeId, at: usize, stack: &mut Vec<NodeId>) -> Result<(), BeeError> {
        let (left, right) = (self.nodes[node].children[at], self.nodes[node].children[at + 1]);
        let left = self.path_to_leaf(left, false, stack.len())?;
        let right = self.path_to_leaf(right, true, stack.len())?;
        let keys = |path: &[NodeId]| path.last().map_or(0, |leaf| self.nodes[*leaf].keys.len());
        let from_right = keys(&left) < keys(&right);
        stack.extend(if from_right { right } else { left });
        let leaf = &mut self.nodes[*stack.last().expect("a node is on it")].keys;
        let key = if from_right { Some(leaf.remove(0)) } else { leaf.pop() };
        self.nodes[node].keys[at] = key.ok_or_else(|| self.bee.malformed(Malformed::Shape))?;
        Ok(())
    }

    fn path_to_leaf(&mut self, from: LinkId, first: bool, above: usize) -> Result<Vec<NodeId>, BeeError> {
        let mut node = self.follow(from)?;
        let mut path = vec![node];
        while let Some(last) = self.nodes[node].children.len().checked_sub(1) {
            node = self.child(node, if first { 0 } else { last })?;
            path.push(node);
            self.check_depth(above + path.len())?;
        }
        Ok(path)
    }

    /// Fills up the nodes of a path that have too few keys, from the leaf to the root; returns the root.
    fn rebalance(&mut self, mut stack: Vec<NodeId>) -> Result<NodeId, BeeError> {
        let root = stack[0];
        while let [.., parent, node] = stack[..] {
            stack.pop();
            if self.nodes[node].keys.len() >= MIN_KEYS {
                return Ok(root);
            }
            let is_node = |link: &LinkId| self.links[*link].node == Some(node);
            let at = self.nodes[parent].children.iter().position(is_node);
            let at = at.expect("the path was walked from parent to child");
            let left = if at > 0 { Some(self.child(parent, at - 1)?) } else { None };
            let siblings = self.nodes[parent].children.len();
            let right = if at + 1 < siblings { Some(self.child(parent, at + 1)?) } else { None };

            let inner = |node: NodeId| !self.nodes[node].children.is_empty();
            if left.into_iter().chain(right).any(|sibling| inner(sibling) != inner(node)) {
                return Err(self.bee.malformed(Malformed::Shape));
            }

            let can_lend = |sibling: &NodeId| self.nodes[*sibling].keys.len() > MIN_KEYS;
            if let Some(left) = left.filter(can_lend) {
                let lender = &mut self.nodes[left];
                let (lent, child) = (lender.keys.pop().expect("it can lend"), lender.children.pop());
                lender.changed = true;
                let down = std::mem::replace(&mut self.nodes[parent].keys[at - 1], lent);
                self.nodes[node].keys.insert(0, down);
                self.nodes[node].children.splice(0..0, child);
                return Ok(root);
            }
            if let Some(right) = right.filter(can_lend) {
                let lender = &mut self.nodes[right];
                let lent = lender.keys.remove(0);
                let child = (!lender.children.is_empty()).then(|| lender.children.remove(0));
                lender.changed = true;
                let down = std::mem::replace(&mut self.nodes[parent].keys[at], lent);
                self.nodes[node].keys.push(down);
                self.nodes[node].children.extend(child);
                return Ok(root);
            }

            let (left, right, at) = match (left, right) {
                (Some(left), _) => (left, node, at - 1),
                (None, Some(right)) => (node, right, at),
                (None, None) => return Err(self.bee.malformed(Malformed::Shape)),
            };
            let median = self.nodes[parent].keys.remove(at);
            let freed = self.nodes[parent].children.remove(at + 1);
            self.links[freed].place.block = NOWHERE;
            let merged = std::mem::take(&mut self.nodes[right]);
            let left = &mut self.nodes[left];
            left.keys.push(median);
            left.keys.extend(merged.keys);
            left.children.extend(merged.children);
            left.changed = true;
        }
        if self.nodes[root].keys.is_empty() && !self.nodes[root].children.is_empty() {
            return self.child(root, 0);
        }
        Ok(root)
    }

    /// Makes a block of the nodes that changed.
    fn write(&mut self, root: NodeId, key: Bytes, value: Option<Bytes>) {
        let block = self.next_block();
        let mut index = Vec::new();
        self.collect_changed(root, block, &mut index);
        let link = self.link(root);
        self.links[link].place = Place { block, level: 0 };
        index[0] = Some(link);
        self.root = Some(root);
        self.written.push(Written { key, value, index });
    }

    fn collect_changed(&mut self, node: NodeId, block: u64, index: &mut Vec<Option<LinkId>>) -> u64 {
        let level = index.len();
        index.push(None);
        self.nodes[node].changed = false;
        for link in self.nodes[node].children.clone() {
            let Some(child) = self.links[link].node.filter(|child| self.nodes[*child].changed) else { continue };
            let level = self.collect_changed(child, block, index);
            self.links[link].place = Place { block, level };
            index[level as usize] = Some(link);
        }
        level as u64
    }
}
