//! Making and checking the proofs that travel between peers.
//!
//! A proof lists nodes without saying what for: both sides know which must come, in which order (hypercore
//! `lib/merkle-tree.js`). A block comes with the siblings on its way up, an upgrade with the subtrees that fill the gap
//! between two lengths:
//!
//! ```text
//! 0   2   4   6   8   10  12          from 5 blocks to 7: nodes 10 and 12; from 0 to 7: 3, 9, 12
//!   1       5       9
//!       3                             block 0 for one who has the root 3: siblings 2, 5
//! ```
//!
//! If a block, hash or seek lies in what an upgrade adds, the subtree that it proves is left out of the upgrade.

use crate::messages::{Data, DataBlock, DataHash, DataSeek, DataUpgrade, NodeRequest, Request, SeekRequest};
use datdot_proof::{
    flat,
    tree::{Node, Roots, TreeError, climb},
};

/// The subtrees that add the blocks `start..end` to the roots of `start` blocks, left to right.
pub fn cover(start: u64, end: u64) -> impl Iterator<Item = u64> {
    let mut at = start;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at)?.checked_ilog2()?;
        // A subtree starts at a multiple of its size.
        let blocks = 1u64 << left.min(at.trailing_zeros());
        let index = 2 * at + blocks - 1;
        at += blocks;
        Some(index)
    })
}

/// Nodes that answer a request, by its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// For the block or hash.
    pub node: Option<Vec<Node>>,
    /// For the seek, unless the other parts show it already.
    pub seek: Option<Vec<Node>>,
    /// For the upgrade: up to the asked length, and from there to the signed one.
    pub upgrade: Option<(Vec<Node>, Vec<Node>)>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProveError<E> {
    /// Nobody could answer it.
    #[error("the request makes no sense for a feed of {length} blocks")]
    Invalid {
        /// Blocks of our head.
        length: u64,
    },
    /// We do not have this node.
    #[error("node {index} is not here")]
    Missing {
        /// Flat-tree index.
        index: u64,
    },
    /// The nodes can't be read.
    #[error(transparent)]
    Read(E),
}

/// Makes the proof that `request` asks for, for a head of `length` blocks. `read` looks up nodes of the tree.
pub fn prove<E>(
    request: &Request,
    length: u64,
    read: impl FnMut(u64) -> Result<Option<Node>, E>,
) -> Result<Proof, ProveError<E>> {
    let invalid = || ProveError::Invalid { length };
    let (from, to) = match request.upgrade {
        Some(upgrade) => (upgrade.start, upgrade.start.checked_add(upgrade.length).ok_or_else(invalid)?),
        None => (0, length),
    };
    if from >= to || to > length {
        return Err(invalid());
    }
    let target = match (request.block, request.hash) {
        (Some(NodeRequest { index, .. }), _) if index >= length => return Err(invalid()),
        // As JavaScript does: who asks for a hash too gets the block.
        (Some(NodeRequest { index, nodes }), _) => Some(Target { index: flat::leaf(index), steps: nodes, own: false }),
        (None, Some(NodeRequest { index, .. })) if index > 2 * length || flat::end_block(index) > length => {
            return Err(invalid());
        }
        (None, Some(NodeRequest { index, nodes })) => Some(Target { index, steps: nodes, own: true }),
        (None, None) => None,
    };
    let mut prover = Prover { length, read, proof: Proof::default() };
    // What the upgrade leaves out because the target or the seek shows it.
    let mut subtree = None;
    match (&target, request.seek, request.upgrade) {
        (Some(_), Some(_), Some(upgrade)) if target.is_some_and(|t| t.index >= flat::leaf(upgrade.start)) => {
            return Err(invalid());
        }
        (Some(target), seek, upgrade) if upgrade.is_none_or(|u| flat::end_block(target.index) <= u.start) => {
            let root = prover.steps_up(target, to)?;
            let seek = seek.map(|seek| prover.seek_below(root, seek)).transpose()?;
            prover.target(target, seek, root)?;
        }
        (_, Some(seek), Some(_)) => subtree = prover.seek_from_roots(to, seek)?,
        (Some(target), None, Some(_)) => subtree = Some(target.index),
        _ => {}
    }
    if request.upgrade.is_some() {
        let (mut nodes, mut additional) = (Vec::new(), Vec::new());
        for index in cover(from, to) {
            match subtree.filter(|inner| flat::is_under(*inner, index)) {
                None => nodes.push(prover.node(index)?),
                Some(inner) => match &target {
                    Some(target) if !flat::is_under(target.index, index) => return Err(invalid()),
                    Some(target) => prover.target(target, None, index)?,
                    None => prover.seek(inner, index)?,
                },
            }
        }
        for index in cover(to, length) {
            additional.push(prover.node(index)?);
        }
        prover.proof.upgrade = Some((nodes, additional));
    }
    // A hash may span the start of the upgrade: no part of the answer can show it.
    if target.is_some() && prover.proof.node.is_none() {
        return Err(invalid());
    }
    Ok(prover.proof)
}

#[derive(Clone, Copy)]
struct Target {
    index: u64,
    steps: u64,
    /// The node itself is part of the proof (a hash), not made from a block's content.
    own: bool,
}

struct Prover<R> {
    length: u64,
    read: R,
    proof: Proof,
}

impl<E, R: FnMut(u64) -> Result<Option<Node>, E>> Prover<R> {
    fn find(&mut self, index: u64) -> Result<Option<Node>, ProveError<E>> {
        (self.read)(index).map_err(ProveError::Read)
    }

    fn node(&mut self, index: u64) -> Result<Node, ProveError<E>> {
        self.find(index)?.ok_or(ProveError::Missing { index })
    }

    fn invalid<T>(&self) -> Result<T, ProveError<E>> {
        Err(ProveError::Invalid { length: self.length })
    }

    /// The node that the asker says to have: so many steps above the target, within the tree of `end` blocks.
    fn steps_up(&self, target: &Target, end: u64) -> Result<u64, ProveError<E>> {
        let mut root = target.index;
        for _ in 0..target.steps {
            root = flat::parent(root);
            if flat::end_block(root) > end {
                return self.invalid();
            }
        }
        Ok(root)
    }

    fn target(&mut self, target: &Target, seek: Option<u64>, root: u64) -> Result<(), ProveError<E>> {
        let mut nodes = Vec::new();
        if target.own {
            nodes.push(self.node(target.index)?);
        }
        let mut at = target.index;
        while at != root {
            let sibling = flat::sibling(at);
            match seek.filter(|seek| flat::is_under(*seek, sibling) && *seek != sibling) {
                Some(seek) => self.seek(seek, sibling)?,
                None => nodes.push(self.node(sibling)?),
            }
            at = flat::parent(at);
        }
        self.proof.node = Some(nodes);
        Ok(())
    }

    fn seek(&mut self, found: u64, root: u64) -> Result<(), ProveError<E>> {
        let (mut nodes, mut at) = (vec![self.node(found)?], found);
        while at != root {
            nodes.push(self.node(flat::sibling(at))?);
            at = flat::parent(at);
        }
        self.proof.seek = Some(nodes);
        Ok(())
    }

    /// The lowest node below `root` that we can say contains the byte, which lies `bytes` after its start.
    fn seek_within(&mut self, root: u64, mut bytes: i128, padding: u64) -> Result<u64, ProveError<E>> {
        let mut at = root;
        while let Some((left, right)) = flat::children(at).filter(|_| bytes != 0) {
            let Some(node) = self.find(left)? else { break };
            match unpadded(&node, padding) {
                size if size == bytes => return Ok(left),
                size if size > bytes => at = left,
                size => (at, bytes) = (right, bytes - size),
            }
        }
        Ok(at)
    }

    /// The lowest node that we can say contains the byte; none if it lies behind all of the roots.
    fn seek_from_roots(&mut self, length: u64, seek: SeekRequest) -> Result<Option<u64>, ProveError<E>> {
        let mut bytes = i128::from(seek.bytes);
        for root in flat::full_roots(length) {
            let node = self.node(root)?;
            match unpadded(&node, seek.padding) {
                size if size == bytes => return Ok(Some(root)),
                size if size > bytes => return self.seek_within(root, bytes, seek.padding).map(Some),
                size => bytes -= size,
            }
        }
        Ok(None)
    }

    fn seek_below(&mut self, root: u64, seek: SeekRequest) -> Result<u64, ProveError<E>> {
        let (offset, blocks) = (self.offset(root)?, flat::first_block(root));
        let bytes = i128::from(seek.bytes) - (i128::from(offset) - i128::from(seek.padding) * i128::from(blocks));
        let node = self.node(root)?;
        match bytes {
            0 => Ok(root),
            1.. if bytes < unpadded(&node, seek.padding) => self.seek_within(root, bytes, seek.padding),
            _ => self.invalid(),
        }
    }

    fn offset(&mut self, index: u64) -> Result<u64, ProveError<E>> {
        let mut sum = 0u64;
        for left in nodes_before(self.length, flat::first_block(index)) {
            sum = sum.saturating_add(self.node(left)?.size);
        }
        Ok(sum)
    }
}

/// The subtrees of a tree of `length` blocks that together are all before `block`: their sizes sum up to its offset.
pub fn nodes_before(length: u64, block: u64) -> impl Iterator<Item = u64> {
    flat::full_roots(length).flat_map(move |root| {
        let (mut at, mut done) = (Some(root), false);
        std::iter::from_fn(move || {
            while let Some(node) = at.filter(|_| !done) {
                if flat::end_block(node) <= block {
                    done = true;
                    return Some(node);
                }
                if flat::first_block(node) >= block {
                    break;
                }
                let (left, right) = flat::children(node)?;
                if flat::end_block(left) <= block {
                    at = Some(right);
                    return Some(left);
                }
                at = Some(left);
            }
            None
        })
    })
}

/// Less than nothing if blocks are shorter than their padding: then a seek means nothing, but it has an answer.
fn unpadded(node: &Node, padding: u64) -> i128 {
    i128::from(node.size) - i128::from(padding) * i128::from(flat::blocks(node.index))
}

/// What an answer shows, if the rest of it is true: see [`check`].
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The nodes of the answer and the parents that follow from them.
    pub nodes: Vec<Node>,
    /// The answer is true only if this node is in the tree.
    pub top: Option<Node>,
    /// The roots of the newer head, if the answer upgrades; true only if they are what the author signed.
    pub roots: Option<Roots>,
}

/// Works out what an answer says about the tree whose roots are `roots`. Whether it is true is then for the caller to
/// see: compare [`Checked::top`] with the stored node, and verify the signature over [`Checked::roots`].
pub fn check(data: &Data, roots: &Roots) -> Result<Checked, TreeError> {
    check_with(data, |block| Node::leaf(block.index, &block.value), roots)
}

/// The same for who has hashed the block: `leaf` says what came out.
pub(crate) fn check_with(
    data: &Data,
    leaf: impl FnOnce(&DataBlock) -> Node,
    roots: &Roots,
) -> Result<Checked, TreeError> {
    let mut checked = Checked::default();
    let mut known = None;
    if let Some(DataSeek { nodes, .. }) = &data.seek
        && let Some((first, siblings)) = nodes.split_first()
    {
        known = Some(checked.climb(*first, siblings, None)?);
    }
    if let Some(block) = &data.block {
        if block.index >= flat::MAX_LENGTH {
            return Err(TreeError::TooLarge);
        }
        known = Some(checked.climb(leaf(block), &block.nodes, known)?);
    } else if let Some(DataHash { index, nodes }) = &data.hash {
        let wrong = |got| TreeError::WrongNode { wanted: *index, got };
        let (first, siblings) = nodes.split_first().ok_or(wrong(0))?;
        if first.index != *index || *index >= 2 * flat::MAX_LENGTH {
            return Err(wrong(first.index));
        }
        known = Some(checked.climb(*first, siblings, known)?);
    }
    if let Some(upgrade) = &data.upgrade {
        checked.roots = Some(checked.upgrade(upgrade, roots.clone(), &mut known)?);
    }
    checked.top = known;
    Ok(checked)
}

impl Checked {
    /// Climbs over the siblings; `extra` takes its place among them.
    fn climb(&mut self, from: Node, siblings: &[Node], extra: Option<Node>) -> Result<Node, TreeError> {
        let mut path = Vec::with_capacity(siblings.len() + 1);
        let (mut at, mut extra) = (from.index, extra);
        let mut rest = siblings.iter().copied();
        loop {
            let wanted = flat::sibling(at);
            let Some(sibling) = extra.take_if(|extra| extra.index == wanted).or_else(|| rest.next()) else { break };
            path.push(sibling);
            at = flat::parent(at);
        }
        if let Some(unused) = extra {
            return Err(TreeError::WrongNode { wanted: flat::sibling(at), got: unused.index });
        }
        let parents = climb(from, &path)?;
        self.nodes.push(from);
        self.nodes.extend(&path);
        self.nodes.extend(&parents);
        Ok(parents.last().copied().unwrap_or(from))
    }

    fn upgrade(
        &mut self,
        upgrade: &DataUpgrade,
        mut roots: Roots,
        known: &mut Option<Node>,
    ) -> Result<Roots, TreeError> {
        if upgrade.start != roots.length() || upgrade.length == 0 {
            return Err(TreeError::WrongNode { wanted: flat::leaf(roots.length()), got: flat::leaf(upgrade.start) });
        }
        let end = upgrade.start.checked_add(upgrade.length).filter(|end| *end <= flat::MAX_LENGTH);
        let end = end.ok_or(TreeError::TooLarge)?;
        let (mut rest, mut claimed) = (upgrade.nodes.iter().copied(), false);
        for wanted in cover(upgrade.start, end) {
            let shown = known.take_if(|known| known.index == wanted);
            let node = shown.or_else(|| rest.next()).ok_or(TreeError::WrongNode { wanted, got: 0 })?;
            if node.index != wanted {
                return Err(TreeError::WrongNode { wanted, got: node.index });
            }
            self.push(&mut roots, node, &mut claimed, shown.is_some())?;
        }
        if let Some(unused) = rest.next() {
            return Err(TreeError::WrongNode { wanted: flat::leaf(end), got: unused.index });
        }
        for node in &upgrade.additional {
            self.push(&mut roots, *node, &mut claimed, false)?;
        }
        Ok(roots)
    }

    /// Appends a node. `claimed` is whether the last root is one that the peer just names, as this one unless it is `shown`. Of two
    /// siblings that are, only the parent is kept: its hash shows the sum of their sizes, but not each.
    fn push(&mut self, roots: &mut Roots, node: Node, claimed: &mut bool, shown: bool) -> Result<(), TreeError> {
        let parents = roots.push(node)?;
        let siblings = std::mem::replace(claimed, !shown && parents.is_empty()) && !shown && !parents.is_empty();
        match siblings {
            true => _ = self.nodes.pop(),
            false => self.nodes.push(node),
        }
        self.nodes.extend(parents);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::UpgradeRequest;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::{collections::HashMap, convert::Infallible};

    struct Tree {
        blocks: Vec<Bytes>,
        nodes: HashMap<u64, Node>,
    }

    impl Tree {
        fn of(sizes: &[u8]) -> Tree {
            let mut tree = Tree { blocks: Vec::new(), nodes: HashMap::new() };
            let mut roots = Roots::new();
            for (block, size) in (0u64..).zip(sizes) {
                tree.blocks.push(vec![block as u8; usize::from(*size)].into());
                let leaf = Node::leaf(block, &tree.blocks[block as usize]);
                let parents = roots.push(leaf).expect("leaves come in order");
                tree.nodes.extend(parents.into_iter().chain([leaf]).map(|node| (node.index, node)));
            }
            tree
        }

        fn length(&self) -> u64 {
            self.blocks.len() as u64
        }

        fn roots(&self, length: u64) -> Roots {
            let nodes: Vec<_> = flat::full_roots(length).map(|index| self.nodes[&index]).collect();
            Roots::from_nodes(&nodes).expect("stored roots are true")
        }

        fn answer(&self, request: &Request) -> Result<Data, ProveError<Infallible>> {
            let proof = prove(request, self.length(), |index| Ok(self.nodes.get(&index).copied()))?;
            let nodes = proof.node.unwrap_or_default();
            Ok(Data {
                block: request.block.map(|asked| DataBlock {
                    index: asked.index,
                    value: self.blocks[asked.index as usize].clone(),
                    nodes: nodes.clone(),
                }),
                hash: request.hash.map(|asked| DataHash { index: asked.index, nodes }),
                seek: request.seek.zip(proof.seek).map(|(asked, nodes)| DataSeek { bytes: asked.bytes, nodes }),
                upgrade: request.upgrade.zip(proof.upgrade).map(|(asked, (nodes, additional))| DataUpgrade {
                    start: asked.start,
                    length: asked.length,
                    nodes,
                    additional,
                    signature: Bytes::new(),
                }),
                ..Data::default()
            })
        }
    }

    #[test]
    fn the_drawing_above_is_right() {
        assert_eq!(cover(5, 7).collect::<Vec<_>>(), [10, 12]);
        assert_eq!(cover(0, 7).collect::<Vec<_>>(), [3, 9, 12]);
        assert_eq!(cover(7, 7).count(), 0);
        assert_eq!(nodes_before(7, 6).collect::<Vec<_>>(), [3, 9]);
        assert_eq!(nodes_before(8, 7).collect::<Vec<_>>(), [3, 9, 12]);
        let request = Request { block: Some(NodeRequest { index: 0, nodes: 2 }), ..Request::default() };
        let nodes = Tree::of(&[1; 7]).answer(&request).expect("valid").block.expect("asked").nodes;
        assert_eq!(nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn a_hash_that_spans_the_start_of_an_upgrade_has_no_answer() {
        let hash = Some(NodeRequest { index: 1, nodes: 0 });
        let upgrade = Some(UpgradeRequest { start: 1, length: 2 });
        for seek in [None, Some(SeekRequest { bytes: 1, padding: 0 })] {
            let request = Request { hash, seek, upgrade, ..Request::default() };
            let answer = Tree::of(&[0, 0, 2, 0, 0, 0, 0, 0]).answer(&request);
            assert!(matches!(answer, Err(ProveError::Invalid { .. })), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn every_answer_is_accepted_and_leads_to_the_tree(
            sizes in proptest::collection::vec(0..9u8, 1..70),
            (block, hash, seek) in (any::<Option<prop::sample::Index>>(), any::<Option<prop::sample::Index>>(), any::<Option<prop::sample::Index>>()),
            upgrade in any::<Option<(prop::sample::Index, prop::sample::Index)>>(),
        ) {
            let tree = Tree::of(&sizes);
            let length = tree.length();
            let upgrade = upgrade.map(|(start, end)| {
                let start = start.index(sizes.len()) as u64;
                UpgradeRequest { start, length: 1 + end.index((length - start) as usize) as u64 }
            });
            let end = upgrade.map_or(length, |u| u.start + u.length);
            let old = upgrade.map_or(length, |u| u.start);
            // As an asker does: so many steps until a root that it has.
            let steps = |mut index| {
                let mut steps = 0;
                if flat::end_block(index) <= old {
                    while !flat::full_roots(old).any(|root| root == index) {
                        index = flat::parent(index);
                        steps += 1;
                    }
                }
                steps
            };
            let block = block.map(|at| at.index(end as usize) as u64);
            let hash = hash.filter(|_| block.is_none()).map(|at| at.index(2 * end as usize - 1) as u64).filter(|i| flat::end_block(*i) <= end);
            let bytes: u64 = sizes[..end as usize].iter().map(|size| u64::from(*size)).sum();
            let request = Request {
                block: block.map(|index| NodeRequest { index, nodes: steps(2 * index) }),
                hash: hash.map(|index| NodeRequest { index, nodes: steps(index) }),
                seek: seek.filter(|_| bytes > 0).map(|at| SeekRequest { bytes: at.index(bytes as usize) as u64, padding: 0 }),
                upgrade,
                ..Request::default()
            };
            let data = match tree.answer(&request) {
                Ok(data) => data,
                Err(ProveError::Invalid { .. }) => {
                    let spans = request.hash.is_some_and(|hash| flat::end_block(hash.index) > old);
                    prop_assert!(request.seek.is_some() || spans, "{request:?} has an answer");
                    return Ok(());
                }
                Err(error) => return Err(TestCaseError::fail(format!("{request:?}: {error:?}"))),
            };
            let roots = tree.roots(upgrade.map_or(length, |u| u.start));
            let checked = check(&data, &roots).expect("an honest answer is accepted");
            for node in &checked.nodes {
                prop_assert_eq!(tree.nodes.get(&node.index), Some(node));
            }
            if let Some(top) = checked.top {
                prop_assert_eq!(tree.nodes.get(&top.index), Some(&top));
            }
            prop_assert_eq!(checked.roots, upgrade.map(|_| tree.roots(length)));
        }

        #[test]
        fn offsets_are_sums_of_whole_subtrees(sizes in proptest::collection::vec(0..9u8, 1..70), at: prop::sample::Index) {
            let (tree, block) = (Tree::of(&sizes), at.index(sizes.len()));
            let sum: u64 = nodes_before(tree.length(), block as u64).map(|index| tree.nodes[&index].size).sum();
            prop_assert_eq!(sum, sizes[..block].iter().map(|size| u64::from(*size)).sum::<u64>());
        }

        #[test]
        fn no_request_panics(length in 1..40u64, fields: [u64; 8], parts: [bool; 4]) {
            let tree = Tree::of(&vec![3; length as usize]);
            // Small and huge numbers alike.
            let f = fields.map(|f| if f % 3 == 0 { f >> 11 } else { f % 50 });
            let request = Request {
                block: parts[0].then_some(NodeRequest { index: f[0], nodes: f[1] }),
                hash: parts[1].then_some(NodeRequest { index: f[2], nodes: f[3] }),
                seek: parts[2].then_some(SeekRequest { bytes: f[4], padding: f[5] }),
                upgrade: parts[3].then_some(UpgradeRequest { start: f[6], length: f[7] }),
                ..Request::default()
            };
            if let Ok(data) = tree.answer(&Request { block: request.block.filter(|b| b.index < length), ..request }) {
                _ = check(&data, &tree.roots(length / 2));
            }
            _ = prove(&request, length, |index| Ok::<_, Infallible>(tree.nodes.get(&index).copied()));
        }
    }
}
