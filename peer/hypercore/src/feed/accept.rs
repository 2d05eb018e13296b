//! What comes from elsewhere: heads, and the answers of peers. Nothing is stored before it is verified.

use super::{Changed, Commit, Feed, FeedError, MAX_BLOCK, Signed};
use crate::{
    authors::{Authors, Head, NotTheirs, is_manifest_of},
    blocks::PAGE,
    encryption::PADDING,
    leaves::leaves,
    messages::{Data, DataBlock},
    prove::check_with,
};
use bytes::Bytes;
use datdot_proof::{
    flat,
    head::{HeadError, SignedHead, Software},
    tree::{Node, Roots, TreeError},
};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::{Arc, PoisonError},
};

/// Why an answer of a peer is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The peer made it up, or is broken.
    #[error("false proof: {0}")]
    False(#[from] TreeError),
    /// The head in it is not by the author.
    #[error("false head: {0}")]
    FalseHead(NotTheirs),
    /// The author uses a form of manifest that is not understood: not the peer's fault.
    #[error("feed not supported: {0}")]
    Unsupported(NotTheirs),
    /// The answer is not to what was asked.
    #[error("the answer is to another question")]
    NotAsked,
    /// The answer ends before a node that we know.
    #[error("the proof does not reach a node that is known")]
    TooShort,
    /// The authors signed two histories: nothing newer is taken.
    #[error("the authors of the feed signed heads that contradict each other")]
    Conflict,
    /// It was for a head that we had before, or for another fork.
    #[error("the answer is out of date")]
    Outdated,
    /// A node on our disk is damaged or was a lie, and is forgotten; asked again, the block will come with more proof.
    #[error("the stored tree is wrong above block {block}")]
    OurTree {
        /// The block that came.
        block: u64,
    },
    /// It can't be stored.
    #[error(transparent)]
    Feed(#[from] FeedError),
}

impl Refused {
    pub(super) fn from_head(error: NotTheirs) -> Refused {
        match error {
            NotTheirs::Unknown => Refused::Unsupported(error),
            error => Refused::FalseHead(error),
        }
    }

    /// Whether the peer has to be dropped.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Refused::False(_) | Refused::FalseHead(_) | Refused::NotAsked | Refused::TooShort)
    }
}

/// The feed as an answer finds it.
struct Before {
    roots: Roots,
    fork: Option<u64>,
}

/// A newer head, with its authors and its roots.
type Newer = (Arc<Authors>, Signed, Roots);

impl Feed {
    /// [`Feed::adopt`] on the caller's thread, which it blocks.
    pub fn adopt_now(&self, head: SignedHead) -> Result<(), FeedError> {
        head.verify::<Software>(&self.0.key.0)?;
        let roots = Roots::from_nodes(&head.nodes().collect::<Vec<_>>()).map_err(|_| HeadError::TooLarge)?;
        let authors = Arc::new(Authors::single(&head.manifest, &self.0.key));
        self.adopt_verified(Head { authors, fork: head.fork, roots, signature: head.signature_to_wire().into() })
    }

    /// [`Feed::adopt_head`] on the caller's thread, which it blocks.
    pub fn adopt_head_now(&self, head: Head) -> Result<(), FeedError> {
        head.verify(&self.0.key)?;
        self.adopt_verified(head)
    }

    fn adopt_verified(&self, Head { authors, fork, roots, signature }: Head) -> Result<(), FeedError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (ours, our_fork) = {
            let state = self.lock();
            (state.roots.clone(), state.head.as_ref().map(|head| head.fork))
        };
        let (nodes, length) = (roots.nodes().to_vec(), roots.length());
        let conflict = FeedError::Conflict { fork, length };
        match our_fork {
            None => self.replace_head(authors, Signed { fork, signature }, roots, nodes),
            Some(our_fork) if our_fork != fork => Err(conflict),
            Some(_) if length > ours.length() => Err(FeedError::NeedsUpgrade { length }),
            Some(_) => {
                for node in nodes {
                    if self.node_under(&ours, node.index)?.is_some_and(|stored| stored != node) {
                        return Err(conflict);
                    }
                }
                Ok(())
            }
        }
    }

    /// Makes a head the feed's, with the nodes that lead to it. The caller holds `writing`.
    fn replace_head(
        &self,
        authors: Arc<Authors>,
        head: Signed,
        roots: Roots,
        nodes: Vec<Node>,
    ) -> Result<(), FeedError> {
        self.commit(Some(Commit::head(authors, head, roots, nodes)))?;
        self.tell(Changed::Grown);
        Ok(())
    }

    /// Whether history is another one than that of `fork`, or is about to be.
    fn is_rewritten(&self, fork: u64) -> bool {
        let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        self.lock().head.as_ref().is_some_and(|head| head.fork != fork)
    }

    /// The authors, as they are known or as a peer names them.
    pub(super) fn authors_by(&self, manifest: Option<&Bytes>) -> Result<Arc<Authors>, Refused> {
        match (self.authors(), manifest) {
            (Some(known), _) => Ok(known),
            (None, None) => Ok(Arc::new(Authors::compat(&self.0.key))),
            // What can't be read may be made up.
            (None, Some(bytes)) => match Authors::from_wire(bytes.clone()) {
                Err(_) if !is_manifest_of(bytes, &self.0.key) => Err(Refused::FalseHead(NotTheirs::OtherFeed)),
                authors => authors.map(Arc::new).map_err(Refused::from_head),
            },
        }
    }

    /// Verifies what a peer answered and stores it: a newer head, a block, or both.
    #[doc(hidden)]
    pub fn accept(&self, data: &Data) -> Result<(), Refused> {
        let before = self.before()?;
        let leaf = |block: &DataBlock| Node::leaf(block.index, &block.value);
        let (mut nodes, newer) = self.verify(data, leaf, &before, &HashMap::new())?;
        let mut roots = before.roots;
        if let Some((authors, head, grown)) = newer {
            let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.lock().roots != roots {
                return Err(Refused::Outdated);
            }
            // The old roots are inner nodes now.
            nodes.extend(roots.nodes());
            self.replace_head(authors, head, grown.clone(), std::mem::take(&mut nodes))?;
            roots = grown;
        }
        let _storing = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        if self.lock().head.as_ref().is_some_and(|head| head.fork != data.fork) {
            return Err(Refused::Outdated);
        }
        self.store(&roots, data.block.iter().collect(), &nodes).map_err(Refused::from)
    }

    /// [`Feed::accept`] for blocks of one head that came together: they are hashed together, and stored with few writes.
    pub(crate) fn accept_blocks(&self, answers: &[&Data]) -> Vec<Result<(), Refused>> {
        let alone = || answers.iter().map(|data| self.accept(data)).collect();
        let Ok(before) = self.before() else { return alone() };
        let blocks = answers.iter().filter_map(|data| data.block.as_ref());
        let leaves = leaves(blocks.map(|block| (block.index, &block.value[..])));
        if leaves.len() < answers.len() || answers.iter().any(|data| data.upgrade.is_some()) {
            return alone();
        }
        // What the first ones show the others may build on.
        let mut shown = HashMap::new();
        let verify = |(data, leaf): (&&Data, Node)| {
            let (nodes, _) = self.verify(data, |_| leaf, &before, &shown)?;
            shown.extend(nodes.iter().map(|node| (node.index, *node)));
            Ok(nodes)
        };
        let verified: Vec<Result<_, Refused>> = answers.iter().zip(leaves).map(verify).collect();
        let storing = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        let fork = self.lock().head.as_ref().map(|head| head.fork);
        let (mut blocks, mut nodes) = (Vec::new(), Vec::new());
        let mut results: Vec<_> = answers
            .iter()
            .zip(verified)
            .map(|(data, verified)| {
                let new = verified?;
                if fork.is_some_and(|fork| fork != data.fork) {
                    return Err(Refused::Outdated);
                }
                blocks.extend(&data.block);
                nodes.extend(new);
                Ok(())
            })
            .collect();
        // Alone, each hears for itself what is wrong with the disk.
        if self.store(&before.roots, blocks, &nodes).is_err() {
            drop(storing);
            results = alone();
        }
        results
    }

    /// Verifies an answer, whose block `leaf` hashes, against the feed as it was `before` and nodes that others have `shown`.
    /// Returns the nodes that this one shows, and the newer head.
    fn verify(
        &self,
        data: &Data,
        leaf: impl FnOnce(&DataBlock) -> Node,
        Before { roots, fork }: &Before,
        shown: &HashMap<u64, Node>,
    ) -> Result<(Vec<Node>, Option<Newer>), Refused> {
        if fork.is_some_and(|fork| fork != data.fork)
            || data.upgrade.as_ref().is_some_and(|upgrade| upgrade.start != roots.length())
        {
            return Err(Refused::Outdated);
        }
        if data.upgrade.is_some() && self.conflict().is_some() {
            return Err(Refused::Conflict);
        }
        let checked = check_with(data, leaf, roots)?;
        let mut newer = None;
        if let (Some(upgrade), Some(grown)) = (&data.upgrade, checked.roots) {
            let authors = self.authors_by(data.manifest.as_ref())?;
            authors.verify(&self.0.key, data.fork, &grown, &upgrade.signature).map_err(Refused::from_head)?;
            let signature = Bytes::copy_from_slice(&upgrade.signature);
            newer = Some((authors, Signed { fork: data.fork, signature }, grown));
        }
        if let Some(top) = checked.top {
            let known = match shown.get(&top.index) {
                Some(node) => Some(*node),
                None => self.node_under(roots, top.index)?,
            };
            match known {
                Some(stored) if stored == top => {}
                // Nodes that were here a moment ago are gone with the history that they belonged to.
                _ if self.is_rewritten(data.fork) => return Err(Refused::Outdated),
                None => return Err(Refused::TooShort),
                // A hash shows the size of what is below it, and of two siblings only the sum: a peer that told us of both may
                // have lied about each.
                Some(stored) if stored.hash == top.hash => {
                    if data.block.is_none() && checked.nodes.len() == 1 {
                        return Err(Refused::TooShort);
                    }
                    // All above them were hashed with their sums: those are true, and blocks that are here need them.
                    self.forget_pair(top.index)?;
                    return Err(Refused::OurTree { block: flat::first_block(top.index) });
                }
                Some(_) if shown.contains_key(&top.index) => {
                    return Err(TreeError::Mismatch { index: top.index }.into());
                }
                Some(_) if self.audit(roots, top.index)? => {
                    return Err(TreeError::Mismatch { index: top.index }.into());
                }
                Some(_) => return Err(Refused::OurTree { block: flat::first_block(top.index) }),
            }
        }
        // It is the author's, who must not ask that much of those who keep and read it. JavaScript counts without the padding.
        if let Some(DataBlock { value, .. }) =
            data.block.as_ref().filter(|block| block.value.len() > MAX_BLOCK + PADDING)
        {
            return Err(FeedError::TooLarge { bytes: value.len() }.into());
        }
        let mut nodes = checked.nodes;
        if data.hash.is_some() || data.seek.is_some() {
            // What we know is not replaced by what is only told, but by what follows from it.
            let all: BTreeSet<u64> = nodes.iter().map(|node| node.index).collect();
            let told = |node: &Node| flat::children(node.index).is_none_or(|(left, _)| !all.contains(&left));
            let known = |node: &Node| self.node_under(roots, node.index).ok().flatten();
            nodes.retain(|node| !told(node) || known(node).is_none_or(|known| known.hash != node.hash));
        }
        Ok((nodes, newer))
    }

    fn before(&self) -> Result<Before, FeedError> {
        let state = self.lock();
        if state.removed {
            return Err(FeedError::Removed);
        }
        let fork = state.head.as_ref().map(|head| head.fork);
        Ok(Before { roots: state.roots.clone(), fork })
    }

    /// Stores blocks and nodes that were verified. The caller holds `clearing`.
    fn store(&self, roots: &Roots, mut blocks: Vec<&DataBlock>, nodes: &[Node]) -> Result<(), FeedError> {
        let written = {
            // Nobody builds on a node that is in no commit to come: whatever fails from here on, it is true and stays.
            let mut state = self.lock();
            blocks.retain(|block| !state.have.contains(block.index));
            let new = state.pending.learn(nodes);
            if let Err(source) = self.0.disk.write_nodes(&new) {
                state.pending.forget();
                return Err(self.io(source));
            }
            new.len()
        };
        blocks.sort_unstable_by_key(|block| block.index);
        blocks.dedup_by_key(|block| block.index);
        let mut places = Vec::with_capacity(blocks.len());
        for run in blocks.chunk_by(|one, next| one.index + 1 == next.index) {
            let start = self.offset(roots, run[0].index)?;
            self.write_data(start, run.iter().map(|block| &block.value)).map_err(|source| self.io(source))?;
            let mut end = start;
            for block in run {
                let bytes = block.value.len() as u64;
                places.push((block.index, end, bytes));
                end += bytes;
            }
            self.follow(run[run.len() - 1].index, end);
        }
        let (mut gained, mut bytes): (Vec<Range<u64>>, _) = (Vec::new(), 0);
        {
            let mut state = self.lock();
            for (block, offset, size) in places {
                // Another connection may have brought it meanwhile.
                if !state.have.insert(block) {
                    continue;
                }
                state.pending.gain(block, offset, size);
                state.dirty.insert(block / PAGE);
                state.have_bytes += size;
                bytes += size;
                match gained.last_mut().filter(|run| run.end == block) {
                    Some(run) => run.end += 1,
                    None => gained.push(block..block + 1),
                }
            }
            if !gained.is_empty() && state.have.count() == state.roots.length() {
                state.have_bytes = state.roots.bytes();
            }
        }
        let count: u64 = gained.iter().map(|run| run.end - run.start).sum();
        gained.into_iter().for_each(|run| self.tell(Changed::Gained(run)));
        if written == 0 && count == 0 { Ok(()) } else { self.queue_sync(bytes, written + count as usize) }
    }
}
