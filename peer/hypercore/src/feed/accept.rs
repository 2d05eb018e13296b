//! What comes from elsewhere: heads, and the answers of peers. Nothing is stored before it is verified.

use super::{Changed, Commit, Feed, FeedError, MAX_BLOCK, Signed, State};
use crate::{
    authors::{Authors, Head, NotTheirs, is_manifest_of},
    blocks::PAGE,
    disk::Patience,
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
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
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

/// Nodes that an answer shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// They are as their author made them.
    pub proven: Vec<Node>,
    /// Siblings of which only the hashes and the sum of the sizes are proven: whoever told of them may have lied about each.
    pub told: Vec<[Node; 2]>,
}

/// The feed as an answer finds it.
struct Before {
    roots: Roots,
    fork: Option<u64>,
}

/// A newer head, with its authors and its roots.
type Newer = (Arc<Authors>, Signed, Roots);

impl Shown {
    /// What of an answer's nodes is proven, if the answer is true. Of two siblings neither is a block's or has children in it: if it
    /// does, both have the only sizes with which it is true.
    fn by(data: &Data, nodes: Vec<Node>) -> Shown {
        if data.hash.is_none() && data.seek.is_none() {
            return Shown { proven: nodes, told: Vec::new() };
        }
        let all: BTreeMap<u64, Node> = nodes.iter().map(|node| (node.index, *node)).collect();
        let block = data.block.as_ref().map(|block| flat::leaf(block.index));
        let bare = |index| {
            let has_children = flat::children(index).is_some_and(|(left, _)| all.contains_key(&left));
            all.get(&index).filter(|_| block != Some(index) && !has_children).copied()
        };
        let pair = |left: u64| Some([bare(left)?, bare(flat::sibling(left))?]);
        let told: Vec<_> = all.keys().filter(|index| flat::is_left(**index)).filter_map(|left| pair(*left)).collect();
        let is_told = |node: &Node| told.iter().flatten().any(|told| told.index == node.index);
        Shown { proven: nodes.into_iter().filter(|node| !is_told(node)).collect(), told }
    }
}

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
                    match self.node_under(&ours, node.index)?.filter(|stored| *stored != node) {
                        Some(stored) if stored.hash != node.hash => return Err(conflict),
                        // A peer told us of a false size.
                        Some(stored) => self.forget_pair(&stored)?,
                        None => {}
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
        self.accept_after(self.before()?, data)
    }

    /// The same, if the feed is still as it was `before`.
    fn accept_after(&self, before: Before, data: &Data) -> Result<(), Refused> {
        let leaf = |block: &DataBlock| Node::leaf(block.index, &block.value);
        let (mut shown, newer) = self.verify(data, leaf, &before, &HashMap::new())?;
        let mut roots = before.roots;
        if let Some((authors, head, grown)) = newer {
            let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // A cut to the same length leaves the roots as they are.
            let now = self.before()?;
            if (now.fork, &now.roots) != (before.fork, &roots) {
                return Err(Refused::Outdated);
            }
            // The old roots are inner nodes now.
            shown.proven.extend(roots.nodes());
            self.replace_head(authors, head, grown.clone(), std::mem::take(&mut shown.proven))?;
            roots = grown;
        }
        let _storing = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        if self.lock().head.as_ref().is_some_and(|head| head.fork != data.fork) {
            return Err(Refused::Outdated);
        }
        self.store(&roots, data.block.iter().collect(), &shown).map_err(Refused::from)
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
        let mut known = HashMap::new();
        let verify = |(data, leaf): (&&Data, Node)| {
            let (shown, _) = self.verify(data, |_| leaf, &before, &known)?;
            known.extend(shown.proven.iter().map(|node| (node.index, *node)));
            Ok(shown)
        };
        let verified: Vec<Result<_, Refused>> = answers.iter().zip(leaves).map(verify).collect();
        let storing = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        let fork = self.lock().head.as_ref().map(|head| head.fork);
        let (mut blocks, mut shown) = (Vec::new(), Shown::default());
        let mut results: Vec<_> = answers
            .iter()
            .zip(verified)
            .map(|(data, verified)| {
                let new = verified?;
                if fork.is_some_and(|fork| fork != data.fork) {
                    return Err(Refused::Outdated);
                }
                blocks.extend(&data.block);
                shown.proven.extend(new.proven);
                shown.told.extend(new.told);
                Ok(())
            })
            .collect();
        // Alone, each hears for itself what is wrong with the disk.
        if self.store(&before.roots, blocks, &shown).is_err() {
            drop(storing);
            results = alone();
        }
        results
    }

    /// Verifies an answer, whose block `leaf` hashes, against the feed as it was `before` and nodes that others have shown.
    /// Returns the nodes that this one shows, and the newer head.
    fn verify(
        &self,
        data: &Data,
        leaf: impl FnOnce(&DataBlock) -> Node,
        Before { roots, fork }: &Before,
        others: &HashMap<u64, Node>,
    ) -> Result<(Shown, Option<Newer>), Refused> {
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
            let other = others.get(&top.index);
            let known = match other {
                None => self.node_under(roots, top.index)?,
                other => other.copied(),
            };
            if known != Some(top) {
                let below = |node: &Node| flat::parent(node.index) == top.index;
                let computed = data.block.is_some() || checked.nodes.iter().any(below);
                self.look_into(data, roots, &top, computed, other)?;
            }
        }
        // It is the author's, who must not ask that much of those who keep and read it. JavaScript counts without the padding.
        if let Some(DataBlock { value, .. }) =
            data.block.as_ref().filter(|block| block.value.len() > MAX_BLOCK + PADDING)
        {
            return Err(FeedError::TooLarge { bytes: value.len() }.into());
        }
        Ok((Shown::by(data, checked.nodes), newer))
    }

    /// Why the node that an answer leads to, `computed` from what is below it or only named, is not as it is stored or as `other`
    /// answers show; no error if it is by now.
    fn look_into(
        &self,
        data: &Data,
        roots: &Roots,
        top: &Node,
        computed: bool,
        other: Option<&Node>,
    ) -> Result<(), Refused> {
        let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        // Nodes that were here a moment ago are gone with the history that they belonged to.
        if self.lock().head.as_ref().is_some_and(|head| head.fork != data.fork) {
            return Err(Refused::Outdated);
        }
        if other.is_some() {
            return Err(TreeError::Mismatch { index: top.index }.into());
        }
        let ours = Refused::OurTree { block: flat::first_block(top.index) };
        let Some(stored) = self.node_under(roots, top.index)? else {
            // If it was asked for up to here, then because that was noted as known.
            self.doubt_notes();
            return Err(Refused::TooShort);
        };
        // A hash shows the size of what is below it, and of two siblings only the sum: a peer that told us of both may have lied
        // about each.
        if stored.hash == top.hash && stored != *top {
            if !computed {
                return Err(Refused::TooShort);
            }
            // All above them were hashed with their sums: those are true, and blocks that are here need them.
            self.forget_pair(&stored)?;
            return Err(ours);
        }
        if !self.audit(roots, top.index)? {
            return Err(ours);
        }
        match self.node_under(roots, top.index)? == Some(*top) {
            true => Ok(()),
            false => Err(TreeError::Mismatch { index: top.index }.into()),
        }
    }

    /// Writes nodes, and notes them for the next commit; returns how many are new.
    pub(super) fn learn(&self, state: &mut State, shown: &Shown) -> Result<usize, FeedError> {
        // Nobody builds on a node that is in no commit to come: whatever fails from here on, it is true and stays.
        let mut write = |nodes: &[Node]| {
            let new = state.pending.learn(nodes);
            match self.0.disk.write_nodes(&new) {
                Ok(()) => Ok(new.len()),
                Err(source) => {
                    state.pending.unwritten = new;
                    Err(self.io(source))
                }
            }
        };
        let mut written = write(&shown.proven)?;
        for pair in &shown.told {
            if self.may_take(pair)? {
                written += write(pair)?;
            }
        }
        Ok(written)
    }

    /// Whether two siblings that are only told of may be taken over: they are news, take the place of nothing that is here, and come
    /// above nothing that does not say the same.
    fn may_take(&self, told: &[Node; 2]) -> Result<bool, FeedError> {
        let here = |index| self.0.disk.node(index, Patience::Waits).map_err(|source| self.io(source));
        let mut news = false;
        for node in told {
            let stored = here(node.index)?;
            if stored.is_some_and(|stored| stored.hash == node.hash && stored.size != node.size) {
                return Ok(false);
            }
            news |= stored != Some(*node);
            let Some((left, right)) = flat::children(node.index) else { continue };
            match (here(left)?, here(right)?) {
                (None, None) => {}
                (Some(left), Some(right)) if Node::parent(&left, &right).as_ref() == Ok(node) => {}
                _ => return Ok(false),
            }
        }
        Ok(news)
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
    fn store(&self, roots: &Roots, mut blocks: Vec<&DataBlock>, shown: &Shown) -> Result<(), FeedError> {
        // More would only fill the memory.
        if self.0.failed.load(Ordering::Acquire) {
            self.sync()?;
        }
        let written = {
            let mut state = self.lock();
            blocks.retain(|block| !state.have.contains(block.index));
            self.learn(&mut state, shown)?
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::Keypair,
        messages::{Request, UpgradeRequest},
        store::Store,
    };

    #[test]
    fn a_head_of_the_fork_before_does_not_come_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let [feed, other] = ["one", "other"].map(|name| {
            let store = Store::open(dir.path().join(name)).expect("the folder is free");
            let feed = store.create(&Keypair::from_seed([1; 32])).expect("room");
            feed.write(&[Bytes::from_static(b"block")]).expect("an author appends");
            feed
        });
        other.write(&[Bytes::from_static(b"more")]).expect("an author appends");
        let upgrade = Some(UpgradeRequest { start: 1, length: 1 });
        let late = other.answer(&Request { upgrade, ..Request::default() }).expect("it has both");
        let before = feed.before().expect("it is there");
        // The roots are the same.
        feed.truncate_now(1).expect("it has that block");
        assert!(matches!(feed.accept_after(before, &late), Err(Refused::Outdated)));
        assert_eq!((feed.info().fork, feed.info().length), (1, 1));
    }
}
