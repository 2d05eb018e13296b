//! Hypercore's Merkle tree: nodes, roots, and whether a block belongs under them.
//!
//! ```text
//! leaf      = H(00 | length of the block                | block)
//! parent    = H(01 | size of left + size of right       | hash of left | hash of right)
//! tree hash = H(02 | for each full root, left to right:   hash | index | size)
//! ```
//!
//! H is unkeyed BLAKE2b-256, integers are u64 little endian, sizes are bytes of blocks
//! (hypercore `lib/merkle-tree.js`).

use crate::{Hash, flat};
use alloc::vec::Vec;
use blake2b_simd::Params;

/// A node of the tree: the hash and size in bytes of all blocks under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Place in [`flat`] numbering.
    pub index: u64,
    /// Bytes of all blocks under the node.
    pub size: u64,
    /// Leaf or parent hash.
    pub hash: Hash,
}

impl Node {
    /// The node of a block, which covers the block's whole content.
    pub fn leaf(block: u64, content: &[u8]) -> Node {
        let size = content.len() as u64;
        Node { index: flat::leaf(block), size, hash: blake2b(&[&[0], &size.to_le_bytes(), content]) }
    }

    /// The node above two siblings, given in any order.
    pub fn parent(one: &Node, other: &Node) -> Result<Node, TreeError> {
        if flat::sibling(one.index) != other.index {
            return Err(TreeError::WrongNode { wanted: flat::sibling(one.index), got: other.index });
        }
        let (left, right) = if flat::is_left(one.index) { (one, other) } else { (other, one) };
        let size = left.size.checked_add(right.size).ok_or(TreeError::TooLarge)?;
        Ok(Node {
            index: flat::parent(one.index),
            size,
            hash: blake2b(&[&[1], &size.to_le_bytes(), &left.hash, &right.hash]),
        })
    }
}

/// The full roots of a feed, growing at the right end: what an author appends to, and what a reader extends with
/// the nodes of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    nodes: Vec<Node>,
    length: u64,
    bytes: u64,
}

impl Roots {
    /// The roots of an empty feed.
    pub fn new() -> Roots {
        Roots::default()
    }

    /// Takes over roots that are known to be true; they must be all of one length, left to right.
    pub fn from_nodes(nodes: &[Node]) -> Result<Roots, TreeError> {
        nodes.iter().try_fold(Roots::new(), |mut roots, node| {
            match roots.push(*node)?.is_empty() {
                true => Ok(roots),
                // Siblings are never both full roots: their parent would be.
                false => Err(TreeError::WrongNode { wanted: flat::parent(node.index), got: node.index }),
            }
        })
    }

    /// Appends the node that covers the blocks right after the last: a leaf, or a whole subtree.
    /// Returns the parents that came to be, lowest first. After an error nothing has changed.
    pub fn push(&mut self, node: Node) -> Result<Vec<Node>, TreeError> {
        if flat::first_block(node.index) != self.length {
            return Err(TreeError::WrongNode { wanted: flat::leaf(self.length), got: node.index });
        }
        let end = flat::end_block(node.index);
        if end > flat::MAX_LENGTH || end <= self.length {
            return Err(TreeError::TooLarge);
        }
        let bytes = self.bytes.checked_add(node.size).ok_or(TreeError::TooLarge)?;
        let (mut top, mut parents, mut kept) = (node, Vec::new(), self.nodes.len());
        while let Some(last) = self.nodes[..kept].last().filter(|last| flat::sibling(last.index) == top.index) {
            top = Node::parent(last, &top)?;
            parents.push(top);
            kept -= 1;
        }
        self.nodes.truncate(kept);
        self.nodes.push(top);
        (self.length, self.bytes) = (end, bytes);
        Ok(parents)
    }

    /// The roots, left to right.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Blocks under the roots.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of those blocks.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What an author signs of them.
    pub fn tree_hash(&self) -> Hash {
        tree_hash(&self.nodes)
    }

    /// The root above a node.
    pub fn above(&self, index: u64) -> Option<&Node> {
        self.nodes.iter().find(|root| flat::is_under(index, root.index))
    }
}

/// The hash that stands for a whole feed: over its full roots, left to right.
pub fn tree_hash(roots: &[Node]) -> Hash {
    blake2b(&[&tree_hash_input(roots.iter().copied())])
}

pub(crate) fn tree_hash_input(roots: impl ExactSizeIterator<Item = Node>) -> Vec<u8> {
    let mut input = Vec::with_capacity(1 + 48 * roots.len());
    input.push(2);
    for root in roots {
        input.extend_from_slice(&root.hash);
        input.extend_from_slice(&root.index.to_le_bytes());
        input.extend_from_slice(&root.size.to_le_bytes());
    }
    input
}

/// Climbs from a node over its siblings, bottom up, as Hypercore sends them in a proof. Returns each parent on
/// the way, lowest first; they are as true as the last one is, so compare that with a node that is known.
pub fn climb(from: Node, siblings: &[Node]) -> Result<Vec<Node>, TreeError> {
    if siblings.len() > flat::MAX_ROOTS {
        return Err(TreeError::TooLarge);
    }
    let mut path = Vec::with_capacity(siblings.len());
    siblings.iter().try_fold(from, |node, sibling| {
        let parent = Node::parent(&node, sibling)?;
        path.push(parent);
        Ok(parent)
    })?;
    Ok(path)
}

/// Checks that `node` with its `siblings`, bottom up, leads to `known`: a full root of a signed head, or a node that
/// was checked before. A block is checked as `check(&Node::leaf(block, content), …)`.
pub fn check(node: &Node, siblings: &[Node], known: &Node) -> Result<(), TreeError> {
    let top = climb(*node, siblings)?.last().copied().unwrap_or(*node);
    if top.index != known.index {
        return Err(TreeError::WrongNode { wanted: known.index, got: top.index });
    }
    if top == *known { Ok(()) } else { Err(TreeError::Mismatch { index: known.index }) }
}

/// Unkeyed BLAKE2b with 32 bytes of output over the concatenated parts: Hypercore's hash, and Substrate's
/// `blake2_256`.
pub fn blake2b(parts: &[&[u8]]) -> Hash {
    let mut state = Params::new().hash_length(32).to_state();
    for part in parts {
        state.update(part);
    }
    state.finalize().as_bytes().try_into().expect("32 bytes were asked for")
}

/// Why nodes do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A proof lists nodes in one order only; another index came at this place.
    #[error("node {got} came where node {wanted} belongs")]
    WrongNode {
        /// The index that belongs here.
        wanted: u64,
        /// The index that came.
        got: u64,
    },
    /// The nodes are consistent but belong to other content than the node that is known.
    #[error("the proof does not lead to node {index}: the block or the proof is false")]
    Mismatch {
        /// The known node.
        index: u64,
    },
    /// More blocks than [`flat::MAX_LENGTH`], or more bytes than a u64 counts.
    #[error("the tree is larger than a feed can be")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    /// All nodes of a feed, by index.
    fn feed(blocks: &[Vec<u8>]) -> (Roots, Vec<Node>) {
        let (mut roots, mut nodes) = (Roots::new(), Vec::new());
        for (block, content) in blocks.iter().enumerate() {
            let leaf = Node::leaf(block as u64, content);
            nodes.push(leaf);
            nodes.extend(roots.push(leaf).expect("blocks come in order"));
        }
        nodes.sort_by_key(|node| node.index);
        (roots, nodes)
    }

    fn node(nodes: &[Node], index: u64) -> Node {
        nodes[nodes.binary_search_by_key(&index, |node| node.index).expect("the node is in the tree")]
    }

    fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..70)
    }

    #[test]
    fn only_the_next_node_can_be_appended() {
        let (roots, nodes) = feed(&vec![vec![1]; 6]);
        for wrong in [0, 3, 9, 14, u64::MAX] {
            let mut changed = roots.clone();
            assert!(changed.push(Node { index: wrong, size: 1, hash: [0; 32] }).is_err());
            assert_eq!(changed, roots);
        }
        assert!(Roots::from_nodes(&[node(&nodes, 1), node(&nodes, 5)]).is_err(), "their parent is the root");
        assert_eq!(Roots::from_nodes(&[node(&nodes, 3), node(&nodes, 9)]).as_ref(), Ok(&roots));
    }

    #[test]
    fn sizes_that_overflow_are_an_error() {
        let huge = |index| Node { index, size: u64::MAX, hash: [0; 32] };
        assert_eq!(Node::parent(&huge(0), &huge(2)), Err(TreeError::TooLarge));
        let mut roots = Roots::new();
        assert_eq!(roots.push(huge(0)), Ok(vec![]));
        assert_eq!(roots.push(huge(2)), Err(TreeError::TooLarge));
        assert_eq!(roots.nodes(), [huge(0)]);
        assert_eq!(Roots::new().push(huge(2 * flat::MAX_LENGTH - 1)), Err(TreeError::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_block_climbs_to_its_root(blocks in blocks()) {
            let (roots, nodes) = feed(&blocks);
            prop_assert!(roots.nodes().iter().map(|root| root.index).eq(flat::full_roots(blocks.len() as u64)));
            prop_assert_eq!(roots.bytes(), blocks.iter().map(|block| block.len() as u64).sum::<u64>());
            for (block, content) in blocks.iter().enumerate() {
                let leaf = Node::leaf(block as u64, content);
                let root = roots.above(leaf.index).expect("the block is in the feed");
                let mut siblings = Vec::new();
                let mut at = leaf.index;
                while at != root.index {
                    siblings.push(node(&nodes, flat::sibling(at)));
                    at = flat::parent(at);
                }
                prop_assert_eq!(check(&leaf, &siblings, root), Ok(()));
                for changed in 0..siblings.len() {
                    let mut siblings = siblings.clone();
                    siblings[changed].hash[block % 32] ^= 1;
                    prop_assert!(check(&leaf, &siblings, root).is_err());
                    siblings[changed] = Node { index: siblings[changed].index ^ 2, ..siblings[changed] };
                    prop_assert!(check(&leaf, &siblings, root).is_err());
                    siblings.remove(changed);
                    prop_assert!(check(&leaf, &siblings, root).is_err());
                }
            }
        }

        #[test]
        fn an_upgrade_appends_subtrees_as_if_they_were_blocks(blocks in blocks(), start in 0..70usize) {
            let (roots, nodes) = feed(&blocks);
            let (mut upgraded, _) = feed(&blocks[..start.min(blocks.len())]);
            while upgraded.length() < roots.length() {
                // The largest subtree that begins here and ends within the feed.
                let mut index = flat::leaf(upgraded.length());
                while flat::is_left(index) && flat::end_block(flat::parent(index)) <= roots.length() {
                    index = flat::parent(index);
                }
                upgraded.push(node(&nodes, index)).expect("it is the next node");
            }
            prop_assert_eq!(upgraded, roots);
        }

        #[test]
        fn no_nodes_panic(nodes in prop::collection::vec((any::<u64>(), any::<u64>()), 0..60), length in 0..4u64) {
            let nodes: Vec<_> = nodes.into_iter().map(|(index, size)| Node { index, size, hash: [0; 32] }).collect();
            let (mut roots, _) = feed(&vec![vec![]; length as usize]);
            for node in &nodes {
                let _ = (roots.push(*node), climb(*node, &nodes), check(node, &nodes, node), roots.above(node.index));
            }
            let _ = Roots::from_nodes(&nodes);
        }
    }
}
