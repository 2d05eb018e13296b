//! When authors rewrite history: cutting one's own feed, following a fork, and evidence against authors who signed two
//! histories at once.
//!
//! A fork is a head with a higher number. What it shares with ours is found from the top: full roots that are the same are
//! kept, in the first that differs a peer is asked for the nodes beside the way to a block: where the history is cut, if the
//! guess is right. Else the way parts from the one to the first different block at some node, and the next question begins there.
//!
//! ```text
//!    ours        3             theirs     3'          beside the way to block 3: 1 is ours, so 5' differs;
//!            1       5                1       5'      4 is ours, so 6' differs
//!          0   2   4   6            0   2   4   6'    blocks 0 to 2 stay
//! ```

use super::{Changed, Commit, Feed, FeedError, Info, Refused, Signed};
use crate::{
    authors::Authors,
    key::FeedKey,
    messages::{Data, Request, UpgradeRequest},
    plans::Stopped,
    prove::{check, prove},
};
use bytes::Bytes;
use codec::{Decode, Encode};
use datdot_proof::{
    flat,
    head::Head,
    tree::{Node, Roots, TreeError},
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
};

/// Two heads of one fork that their authors signed although neither grew from the other. Nobody else can make that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Conflict {
    /// The manifest as peers send it, empty for a compat feed.
    pub manifest: Vec<u8>,
    /// The fork of both.
    pub fork: u64,
    /// The head that was here before.
    pub ours: Evidence,
    /// The other one.
    pub theirs: Evidence,
}

/// A signed head: see [`Conflict`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Evidence {
    /// Index, size and hash of subtrees, left to right: first those that cover a length that both have, then what is added.
    pub nodes: Vec<(u64, u64, [u8; 32])>,
    /// As it stands in an upgrade.
    pub signature: Vec<u8>,
}

impl Conflict {
    /// Whether this shows beyond doubt that the authors of the feed `key` signed two histories.
    pub fn is_proof(&self, key: &FeedKey) -> bool {
        let authors = match self.manifest.is_empty() {
            true => Authors::compat(key),
            false => match Authors::from_wire(self.manifest.clone().into()) {
                Ok(authors) => authors,
                Err(_) => return false,
            },
        };
        let signed = |evidence: &Evidence| {
            let roots = evidence.roots()?;
            authors.verify(key, self.fork, &roots, &evidence.signature).ok()?;
            Some(roots)
        };
        if signed(&self.ours).is_none() || signed(&self.theirs).is_none() {
            return false;
        }
        // A subtree never changes. Its size may be false on its way to us, without which the signature is still good.
        let ours: BTreeMap<u64, [u8; 32]> = self.ours.nodes.iter().map(|(index, _, hash)| (*index, *hash)).collect();
        self.theirs.nodes.iter().any(|(index, _, hash)| ours.get(index).is_some_and(|other| other != hash))
    }
}

impl Evidence {
    fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>, signature: &[u8]) -> Evidence {
        let nodes = nodes.into_iter().map(|node| (node.index, node.size, node.hash)).collect();
        Evidence { nodes, signature: signature.to_vec() }
    }

    fn roots(&self) -> Option<Roots> {
        self.nodes.iter().try_fold(Roots::new(), |mut roots, (index, size, hash)| {
            roots.push(Node { index: *index, size: *size, hash: *hash }).ok()?;
            Some(roots)
        })
    }
}

/// Why no newer head is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    Forked(u64),
    Conflict,
}

impl From<Halt> for Stopped {
    fn from(halt: Halt) -> Stopped {
        match halt {
            Halt::Forked(fork) => Stopped::Forked { fork },
            Halt::Conflict => Stopped::Conflict,
        }
    }
}

/// A whole head of a peer, verified, beside ours.
pub(crate) enum Judged {
    /// Both are of one history.
    Same,
    /// They contradict each other; noted.
    Conflict,
    /// It is of a later fork.
    Fork(Box<Fork>),
}

/// A later fork whose common part with ours is being looked for.
#[derive(Debug)]
pub(crate) struct Fork {
    authors: Arc<Authors>,
    signed: Signed,
    roots: Roots,
    /// Our fork that it is compared with.
    against: Option<u64>,
    /// Blocks before this one are the same.
    same: u64,
    /// The first node that is not, while its children may tell more.
    at: Option<u64>,
    known: BTreeMap<u64, Node>,
}

impl Fork {
    pub fn number(&self) -> u64 {
        self.signed.fork
    }

    pub fn length(&self) -> u64 {
        self.roots.length()
    }

    #[cfg(test)]
    pub fn same(&self) -> u64 {
        self.same
    }

    /// Nodes that are kept.
    #[cfg(test)]
    pub fn kept(&self) -> u32 {
        self.known.len() as u32
    }

    /// Takes the answer to a question of [`Feed::next_question`].
    pub fn learn(&mut self, data: &Data) -> Result<(), Refused> {
        let hash = Data { hash: data.hash.clone(), ..Data::default() };
        let checked = check(&hash, &Roots::new())?;
        let top = checked.top.ok_or(Refused::TooShort)?;
        if self.known.get(&top.index) != Some(&top) {
            return Err(TreeError::Mismatch { index: top.index }.into());
        }
        self.known.extend(checked.nodes.into_iter().map(|node| (node.index, node)));
        Ok(())
    }
}

impl Feed {
    /// Whether forks are followed: what the author cuts off is dropped then, and what it wrote instead is fetched. They are not unless
    /// this was called since the store was opened: whoever promised to keep data keeps it. Who waits for newer blocks meanwhile is told by
    /// [`Stopped::Forked`].
    pub fn follow_forks(&self, follow: bool) {
        self.0.forks.store(follow, Ordering::Release);
    }

    pub(crate) fn follows_forks(&self) -> bool {
        self.0.forks.load(Ordering::Acquire)
    }

    /// Notes that a peer has shown a later fork, which is not followed.
    pub(crate) fn note_fork(&self, fork: u64) {
        let news = {
            let mut state = self.lock();
            let before = state.later_fork.unwrap_or(0);
            state.later_fork = Some(fork.max(before));
            fork > before
        };
        if news {
            self.tell(Changed::Forked { fork });
        }
    }

    /// Why no newer head is followed, if so.
    pub(crate) fn halt(&self) -> Option<Halt> {
        if self.conflict().is_some() {
            return Some(Halt::Conflict);
        }
        self.info().later_fork.filter(|_| !self.follows_forks()).map(Halt::Forked)
    }

    /// The evidence that the authors signed two histories, if that was found. No newer head is followed from then on.
    pub fn conflict(&self) -> Option<Arc<Conflict>> {
        self.lock().conflict.clone()
    }

    /// Cuts one's own feed to so many blocks, at least one, and begins a fork with them.
    ///
    /// [`FeedError::NotWritable`] without the feed's secret key, [`FeedError::CutToNothing`] for a length of 0,
    /// [`FeedError::OutOfRange`] for more than the feed has, [`FeedError::Damaged`] if the tree on the disk does not reach so far.
    pub async fn truncate(&self, length: u64) -> Result<(), FeedError> {
        self.blocking(move |feed| feed.truncate_now(length)).await
    }

    /// [`Feed::truncate`] on the caller's thread, which it blocks.
    pub fn truncate_now(&self, length: u64) -> Result<(), FeedError> {
        let signer = self.0.signer.get().ok_or(FeedError::NotWritable)?;
        let manifest = self.manifest().ok_or(FeedError::NotWritable)?;
        let authors = self.authors().ok_or(FeedError::NotWritable)?;
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = self.lock().roots.clone();
        if length == 0 {
            return Err(FeedError::CutToNothing);
        }
        if length > roots.length() {
            return Err(FeedError::OutOfRange { block: length, length: roots.length() });
        }
        let node =
            |index| self.node_mended(&roots, index)?.ok_or(FeedError::Damaged { block: flat::first_block(index) });
        let nodes = flat::full_roots(length).map(node).collect::<Result<Vec<_>, _>>()?;
        let roots = Roots::from_nodes(&nodes).map_err(|_| FeedError::Damaged { block: length })?;
        // A later one that was shown is the author's as well, who was restored from a backup: to sign it twice would be a conflict.
        let Info { fork, later_fork, .. } = self.info();
        let fork = later_fork.unwrap_or(fork) + 1;
        let head = Head { fork, length, tree_hash: roots.tree_hash() };
        let signature = signer.sign(&head.signable(&self.0.key.0, &manifest));
        let signed = Signed { fork, signature: manifest.signature_to_wire(&signature).into() };
        self.replace_history(Commit::head(authors, signed, roots, Vec::new()), length)
    }

    /// Verifies the whole head in a peer's answer and compares it with ours.
    pub(crate) fn judge(&self, data: &Data) -> Result<Judged, Refused> {
        let upgrade = data.upgrade.as_ref().filter(|upgrade| upgrade.start == 0).ok_or(Refused::TooShort)?;
        // By itself: a node that another part of the answer shows would be missing where the heads are compared.
        let whole = Data { upgrade: data.upgrade.clone(), ..Data::default() };
        let roots = check(&whole, &Roots::new())?.roots.ok_or(Refused::TooShort)?;
        let authors = self.authors_by(data.manifest.as_ref())?;
        authors.verify(&self.0.key, data.fork, &roots, &upgrade.signature).map_err(Refused::from_head)?;
        let signed = Signed { fork: data.fork, signature: Bytes::copy_from_slice(&upgrade.signature) };
        let (ours, head) = {
            let state = self.lock();
            (state.roots.clone(), state.head.clone())
        };
        let against = head.as_ref().map(|head| head.fork);
        let Some(head) = head.filter(|head| head.fork >= data.fork) else {
            let fork = Fork { authors, signed, roots, against, same: 0, at: None, known: BTreeMap::new() };
            return Ok(Judged::Fork(Box::new(self.compare(fork, &ours)?)));
        };
        if head.fork > data.fork {
            return Ok(Judged::Same);
        }
        // Our tree, cut in the same way as theirs is shown. If we know too little of it, we can't tell.
        let cut = Request { upgrade: Some(UpgradeRequest { start: 0, length: upgrade.length }), ..Request::default() };
        let proof = prove(&cut, ours.length(), |index| self.node_under(&ours, index)).unwrap_or_default();
        let (nodes, rest) = proof.upgrade.unwrap_or_default();
        if nodes.iter().zip(&upgrade.nodes).all(|(ours, theirs)| ours.hash == theirs.hash) {
            return Ok(Judged::Same);
        }
        let conflict = Conflict {
            manifest: authors.to_wire().map_or_else(Vec::new, |wire| wire.to_vec()),
            fork: data.fork,
            ours: Evidence::new(nodes.iter().chain(&rest), &head.signature),
            theirs: Evidence::new(upgrade.nodes.iter().chain(&upgrade.additional), &signed.signature),
        };
        // It stops the feed for good: nothing less than what convinces everybody may.
        if !conflict.is_proof(&self.0.key) {
            return Ok(Judged::Same);
        }
        self.0.disk.write_conflict(&conflict).map_err(|source| self.io(source))?;
        self.lock().conflict = Some(Arc::new(conflict));
        self.tell(Changed::Conflict);
        Ok(Judged::Conflict)
    }

    /// Looks from the top for what a fork shares with us.
    fn compare(&self, mut fork: Fork, ours: &Roots) -> Result<Fork, FeedError> {
        for root in fork.roots.nodes() {
            if self.node_under(ours, root.index)? != Some(*root) {
                fork.at = Some(root.index);
                fork.known.insert(root.index, *root);
                break;
            }
            fork.same = flat::end_block(root.index);
        }
        Ok(fork)
    }

    /// The node whose hash, with its siblings so many steps up, shows more of what a fork shares with us; none when all is
    /// known. `guess` picks a block of a range, near the first different one at best, that the peer has.
    pub(crate) fn next_question(
        &self,
        fork: &mut Fork,
        guess: impl Fn(Range<u64>) -> Option<u64>,
    ) -> Result<Option<(u64, u64)>, FeedError> {
        let ours = self.lock().roots.clone();
        while let Some(at) = fork.at {
            // Of what the last answer showed, the part that leads elsewhere is of no use.
            fork.known.retain(|index, _| flat::is_under(at, flat::parent(*index)) || flat::is_under(*index, at));
            let blocks = flat::first_block(at)..flat::end_block(at);
            let here = self.with_blocks(|have| have.first_present(blocks.clone()));
            let children = flat::children(at).filter(|_| here.is_some());
            // Nothing there is ours, or it is one block.
            let Some((left, right)) = children else {
                fork.at = None;
                break;
            };
            let Some(theirs) = fork.known.get(&left) else {
                let way = guess(blocks).map(|block| (flat::leaf(block), u64::from(flat::depth(at))));
                return Ok(Some(way.unwrap_or((left, 1))));
            };
            let Some(kept) = self.node_under(&ours, left)?.filter(|ours| ours.hash == theirs.hash) else {
                fork.at = Some(left);
                continue;
            };
            // Of the two sizes the peer has shown only the sum; the blocks that stay are found by ours.
            if let Some(rest) = fork.known.get(&at).and_then(|above| above.size.checked_sub(kept.size)) {
                fork.known.insert(left, kept);
                fork.known.entry(right).and_modify(|node| node.size = rest);
            }
            (fork.same, fork.at) = (flat::end_block(left), Some(right));
        }
        Ok(None)
    }

    /// Takes a fork over: what it shares with us stays.
    pub(crate) fn adopt_fork(&self, fork: Fork) -> Result<(), FeedError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = self.lock().head.as_ref().map(|head| head.fork);
        // What was found about another history of ours says nothing about this one.
        if !self.follows_forks() || ours != fork.against || fork.signed.fork <= ours.unwrap_or(0) {
            return Ok(());
        }
        // Roots are in the record; what lies between them and the first block that differs came with the answers.
        let first = flat::leaf(fork.same);
        let beside =
            |node: &&Node| !fork.roots.nodes().contains(node) && flat::is_under(first, flat::parent(node.index));
        let nodes = fork.known.values().filter(beside).copied().collect();
        self.replace_history(Commit::head(fork.authors, fork.signed, fork.roots, nodes), fork.same)
    }

    /// Makes another history the feed's, of which the first `keep` blocks are ours. The caller holds `writing`.
    fn replace_history(&self, change: Commit, keep: u64) -> Result<(), FeedError> {
        let _clearing = self.0.clearing.write().unwrap_or_else(PoisonError::into_inner);
        let (roots, here, [kept, cut]) = {
            let state = self.lock();
            let runs = |blocks| state.have.runs(blocks).collect::<Vec<_>>();
            (state.roots.clone(), state.have_bytes, [runs(0..keep), runs(keep..state.roots.length().max(keep))])
        };
        let bytes = |run: &Range<u64>| self.bytes_of(&roots, run);
        let bytes = match kept.len() < cut.len() {
            true => kept.iter().map(bytes).sum::<Result<u64, _>>()?,
            false => here.saturating_sub(cut.iter().map(bytes).sum::<Result<u64, _>>()?),
        };
        // What waits is of the old history, and so is what was mended just now.
        self.sync()?;
        self.commit(Some(Commit { keep: Some((keep, bytes)), ..change }))?;
        self.doubt_notes();
        let lost = keep..roots.length().max(keep);
        self.tell(Changed::Cut { lost, fork: self.info().fork });
        self.tell(Changed::Grown);
        Ok(())
    }
}
