//! How changes of a feed reach the disk: all that waits under one sync of one file, see the module `journal`.
//!
//! The bytes of blocks and their nodes are written at once, as far as they are true under a head that is durable; a commit
//! promises them. What a new head covers is written before it too: beyond the head nobody looks, and should the commit fail, the tree
//! is cut again.

use super::{Feed, FeedError, Inner, Signed, State, Unsynced, pages_of};
use crate::{
    authors::Authors,
    blocks::{PAGE, PAGE_BYTES},
    journal::{Entry, Journal, Record, Step},
    store::COMMIT_BYTES,
};
use datdot_proof::tree::{Node, Roots};
use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
};

/// Runs of blocks that may wait for a commit, so that its entry stays small.
const MAX_STEPS: usize = if cfg!(test) { 64 } else { 8192 };
/// What a node and a run take in an entry, about.
const NODE_COST: u64 = 48;

/// What was written since the last commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Nodes by their numbers: each proof brings many that came with the one before.
    nodes: HashMap<u64, Node>,
    /// Those that could not be written: tried again with the next.
    pub unwritten: Vec<Node>,
    steps: Vec<Step>,
    bytes: u64,
}

/// What is committed at once, beside what waits.
#[derive(Default)]
pub(super) struct Change {
    pub authors: Option<Arc<Authors>>,
    /// The new head and its roots.
    pub head: Option<(Signed, Roots)>,
    /// Nodes that came with it.
    pub nodes: Vec<Node>,
    /// Own blocks, and the byte where they begin.
    pub gained: Option<(Range<u64>, u64)>,
    /// Blocks whose bytes are given back, and how many bytes those are.
    pub lost: Option<(Range<u64>, u64)>,
    /// History is rewritten: how many blocks stay, and the bytes of those that are here.
    pub keep: Option<(u64, u64)>,
}

impl Change {
    pub fn authors(authors: Authors) -> Change {
        Change { authors: Some(Arc::new(authors)), ..Change::default() }
    }

    pub fn head(authors: Arc<Authors>, head: Signed, roots: Roots, nodes: Vec<Node>) -> Change {
        Change { authors: Some(authors), head: Some((head, roots)), nodes, ..Change::default() }
    }

    /// Bytes of the blocks that are here afterwards.
    fn bytes_here(&self, state: &State) -> u64 {
        let kept = self.keep.map_or(state.have_bytes, |(_, bytes)| bytes);
        let grown = self.head.as_ref().filter(|_| self.gained.is_some()).map_or(0, |(_, roots)| roots.bytes());
        let lost = self.lost.as_ref().map_or(0, |(_, bytes)| *bytes);
        (kept + grown.saturating_sub(state.roots.bytes())).saturating_sub(lost)
    }
}

impl Pending {
    /// Notes a block that was stored.
    pub fn gain(&mut self, block: u64, offset: u64, bytes: u64) {
        self.bytes += bytes;
        self.step(Step::Gained { first: block, end: block + 1, offset });
    }

    /// Notes nodes that were verified; returns those that are not in the tree yet.
    pub fn learn(&mut self, nodes: &[Node]) -> Vec<Node> {
        let mut new = std::mem::take(&mut self.unwritten);
        new.extend(nodes.iter().filter(|node| self.nodes.insert(node.index, **node) != Some(**node)));
        new
    }

    /// Drops a node that turned out to be false, or not to be in the tree.
    pub fn forget(&mut self, index: u64) {
        self.nodes.remove(&index);
        self.unwritten.retain(|node| node.index != index);
    }

    /// Notes that a block turned out not to be here.
    pub fn lose(&mut self, block: u64) {
        self.step(Step::Lost { first: block, end: block + 1 });
    }

    fn step(&mut self, step: Step) {
        match self.steps.last_mut() {
            Some(last) => match last.extended(step) {
                Some(longer) => *last = longer,
                None => self.steps.push(step),
            },
            None => self.steps.push(step),
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.steps.is_empty()
    }

    /// Puts what was not committed before what came meanwhile.
    fn put_back(&mut self, mut before: Pending) {
        before.nodes.extend(self.nodes.drain());
        before.unwritten.append(&mut self.unwritten);
        before.steps.append(&mut self.steps);
        before.bytes += self.bytes;
        *self = before;
    }
}

impl Feed {
    /// Brings everything to the disk that has come so far; the store does so by itself about twice a second.
    pub async fn flush(&self) -> Result<(), FeedError> {
        self.blocking(|feed| feed.sync()).await
    }

    pub(crate) fn sync(&self) -> Result<(), FeedError> {
        self.0.queued.store(false, Ordering::Release);
        self.commit(None)
    }

    /// Brings what waits to the disk, and a change with it: all of it or, should the power fail now, nothing of it.
    pub(super) fn commit(&self, change: Option<Change>) -> Result<(), FeedError> {
        if change.is_some() && self.is_removed() {
            return Err(FeedError::Removed);
        }
        if self.0.commit(change).map_err(|source| self.io(source))? {
            self.tell_used();
        }
        Ok(())
    }

    /// The store empties the journal later.
    pub(super) fn tell_used(&self) {
        _ = self.0.shared.unsynced.send(Unsynced::Journal(Arc::downgrade(&self.0)));
    }

    /// Has a change of the blocks that are here brought to the disk, soon or, if too much waits already, now.
    pub(super) fn queue_sync(&self, bytes: u64, nodes: usize) -> Result<(), FeedError> {
        let bytes = bytes + NODE_COST * nodes as u64;
        let shared = &self.0.shared;
        if !self.0.queued.swap(true, Ordering::AcqRel) {
            // Without a store the last handle flushes.
            _ = shared.unsynced.send(Unsynced::Feed(Arc::downgrade(&self.0)));
        }
        // In this order, so that a commit in between never takes more from the sum than there is.
        let before = shared.waiting.fetch_add(bytes, Ordering::AcqRel);
        let own = self.0.unsynced.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if (before..before + bytes).contains(&COMMIT_BYTES) {
            _ = shared.unsynced.send(Unsynced::Full);
        }
        let scattered = self.lock().pending.steps.len() >= MAX_STEPS;
        // Who fills the memory pays; others with little in it don't, unless nobody else does.
        let much = before >= 2 * COMMIT_BYTES && own >= COMMIT_BYTES / 8 || before >= 8 * COMMIT_BYTES;
        if much || scattered { self.sync() } else { Ok(()) }
    }

    /// Empties the journal if nothing was written since its entry `number`; returns the number of its last entry otherwise.
    pub(crate) fn settle(&self, number: Option<u64>) -> Option<u64> {
        let mut journal = self.0.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if number != Some(journal.number()) {
            return Some(journal.number());
        }
        match self.0.checkpoint(&mut journal) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(target: "hypercore", feed = %self.key(), %error, "the journal can't be emptied");
                number
            }
        }
    }

    pub(crate) fn upgrade(weak: &Weak<Inner>) -> Option<Feed> {
        weak.upgrade().map(Feed)
    }
}

impl Inner {
    /// See [`Feed::commit`]. Whether the journal was empty before.
    fn commit(&self, change: Option<Change>) -> io::Result<bool> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.unsynced.swap(0, Ordering::AcqRel);
        self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
        if change.is_none() {
            let state = self.lock();
            if state.removed || state.pending.is_empty() {
                return Ok(false);
            }
        }
        let first = !journal.is_used();
        if let Err(error) = self.promise(&mut journal, change.as_ref()) {
            self.failed.store(true, Ordering::Release);
            self.shared.waiting.fetch_add(bytes, Ordering::AcqRel);
            self.unsynced.fetch_add(bytes, Ordering::AcqRel);
            // Without its head, what came with it counts for nothing.
            let length = self.lock().roots.length();
            _ = self.disk.cut_beyond(length);
            return Err(error);
        }
        self.failed.store(false, Ordering::Release);
        if let Some(change) = change {
            self.apply(change).inspect_err(|_| journal.fail())?;
        }
        Ok(first)
    }

    fn promise(&self, journal: &mut Journal, change: Option<&Change>) -> io::Result<()> {
        match change {
            // Once the history is cut there is no way back.
            Some(Change { keep: Some(_), nodes, .. }) => self.disk.reserve_nodes(nodes)?,
            Some(Change { nodes, .. }) => self.disk.write_nodes(nodes)?,
            None => {}
        }
        let (mut entry, pending) = {
            let mut state = self.lock();
            let nodes = state.pending.nodes.len() + change.map_or(0, |change| change.nodes.len());
            if journal.is_tight() || !Journal::names(nodes) {
                drop(state);
                self.checkpoint(journal)?;
                state = self.lock();
            }
            let pending = std::mem::take(&mut state.pending);
            (self.entry(&state, &pending, change), pending)
        };
        journal.commit(&self.disk, &mut entry).inspect_err(|_| self.lock().pending.put_back(pending))
    }

    fn entry(&self, state: &State, pending: &Pending, change: Option<&Change>) -> Entry {
        let mut entry = Entry { record: state.record(&self.key), keep: None, nodes: Vec::new(), steps: Vec::new() };
        // Of two for one place the later one counts.
        let mut nodes: Vec<_> = pending.nodes.values().collect();
        entry.steps.extend(&pending.steps);
        if let Some(change) = change {
            let authors = change.authors.as_ref().or(state.authors.as_ref());
            let head = change.head.as_ref().map(|(head, roots)| (head, roots));
            let head = head.or(state.head.as_ref().map(|head| (head, &state.roots)));
            entry.record = Record::new(&self.key, authors.map(Arc::as_ref), head, change.bytes_here(state));
            entry.keep = change.keep.map(|(keep, _)| keep);
            nodes.extend(&change.nodes);
            if let Some((blocks, offset)) = &change.gained {
                entry.steps.push(Step::Gained { first: blocks.start, end: blocks.end, offset: *offset });
            }
            if let Some((blocks, _)) = &change.lost {
                entry.steps.push(Step::Lost { first: blocks.start, end: blocks.end });
            }
        }
        entry.nodes = nodes.into_iter().map(|node| (node.index, node.size, node.hash)).collect();
        entry
    }

    /// Makes a change that is durable the feed's.
    fn apply(&self, change: Change) -> io::Result<()> {
        if let Some((keep, _)) = change.keep {
            self.disk.cut_tree(keep)?;
            self.disk.write_nodes(&change.nodes)?;
        }
        let mut state = self.lock();
        state.have_bytes = change.bytes_here(&state);
        let cut = change.keep.map(|(keep, _)| keep..state.roots.length());
        for blocks in cut.into_iter().chain(change.lost.map(|(blocks, _)| blocks)) {
            state.have.remove_range(blocks.clone());
            state.dirty.extend(pages_of(blocks));
        }
        if let Some((blocks, _)) = change.gained {
            state.have.insert_range(blocks.clone());
            state.dirty.extend(pages_of(blocks));
        }
        state.authors = change.authors.or(state.authors.take());
        if let Some((head, roots)) = change.head {
            (state.head, state.roots) = (Some(head), roots);
        }
        Ok(())
    }

    /// Makes durable what the journal says, so that it begins anew.
    fn checkpoint(&self, journal: &mut Journal) -> io::Result<()> {
        if !journal.is_used() {
            return Ok(());
        }
        let (record, pages) = {
            let mut state = self.lock();
            if state.removed {
                return Ok(());
            }
            let mut record = state.record(&self.key);
            record.bytes_here = record.bytes_here.saturating_sub(state.pending.bytes);
            (record, state.committed_pages())
        };
        self.disk.checkpoint(journal, record, &pages).inspect_err(|_| {
            self.lock().dirty.extend(pages.iter().map(|(page, _)| page));
        })
    }
}

impl State {
    /// The pages that differ from the disk, without the blocks that wait for a commit.
    fn committed_pages(&mut self) -> Vec<(u64, [u8; PAGE_BYTES])> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut pages: Vec<_> = dirty.into_iter().map(|page| (page, self.have.page(page))).collect();
        for block in self.pending.steps.iter().filter_map(|step| step.gained()).flatten() {
            if let Ok(at) = pages.binary_search_by_key(&(block / PAGE), |(page, _)| *page) {
                pages[at].1[(block % PAGE / 8) as usize] &= !(1 << (block % 8));
            }
            self.dirty.insert(block / PAGE);
        }
        pages
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let key = self.key;
        let committed = self.commit(None).and_then(|_| {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            self.checkpoint(&mut journal)
        });
        if let Err(error) = committed {
            tracing::error!(target: "hypercore", feed = %key, %error, "blocks can't be brought to the disk");
        }
        self.shared.waiting.fetch_sub(*self.unsynced.get_mut(), Ordering::AcqRel);
    }
}
