//! One feed in a store: append, read, verify, count.
//!
//! A [`Feed`] is a handle; clones share the feed. What waits for the disk is done on tokio's blocking threads by the
//! `async` methods; the session code, which is on such a thread already, uses the plain ones.

mod accept;
mod answer;
mod append;
mod clear;
mod commit;
mod error;
mod fork;
mod info;
mod place;
mod repair;

pub use crate::journal::DATA_START;
pub use accept::Refused;
pub(crate) use answer::Draft;
use commit::{Change as Commit, Pending};
pub use error::FeedError;
pub use fork::{Conflict, Evidence};
pub(crate) use fork::{Fork, Halt, Judged};
pub use info::{Change, Changed, Info};
pub(crate) use place::Located;

use crate::{
    authors::{Authors, Head},
    blocks::{Blocks, PAGE},
    disk::{Disk, Patience, Recovered},
    files::Lock,
    journal::{Journal, Record},
    key::{DiscoveryKey, FeedKey, Keypair},
};
use bytes::Bytes;
use datdot_proof::{
    head::{Manifest, Root, SignedHead},
    tree::{Node, Roots},
};
use std::{
    collections::BTreeSet,
    fmt, io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
};
use tokio::sync::{broadcast, watch};

/// Largest block that can be appended, in bytes: what JavaScript writes at most.
pub const MAX_BLOCK: usize = 15 << 20;

/// A feed. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

pub(crate) struct Inner {
    key: FeedKey,
    discovery: DiscoveryKey,
    disk: Disk,
    signer: OnceLock<Keypair>,
    state: Mutex<State>,
    /// Held while a head is replaced: by an append, or an upgrade.
    writing: Mutex<()>,
    /// A block and its offset: the one after the last that was read or stored. Saves a walk down the tree for each block
    /// of a sequence.
    following: Mutex<(u64, u64)>,
    /// A root and a node from which all that leads to it is here: the way of the block that was looked for last.
    way: Mutex<Option<(Node, u64)>>,
    progress: watch::Sender<Info>,
    shared: Shared,
    /// Held while changes are brought to the disk: who finds nothing to do then knows that it is done.
    journal: Mutex<Journal>,
    /// Whether forks are followed.
    forks: AtomicBool,
    /// Held for writing while the bytes of blocks are given back, for reading while blocks are stored.
    clearing: RwLock<()>,
    /// Waits for the store's group commit.
    queued: AtomicBool,
    /// Bytes of blocks that came since the last commit.
    unsynced: AtomicU64,
    /// The last commit failed: what waits is tried again before more comes.
    failed: AtomicBool,
}

/// What the authors of a feed signed, beside its roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub fork: u64,
    /// As it stands in an upgrade; nothing where the prologue says enough.
    pub signature: Bytes,
}

/// What the feeds of a store share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub changes: broadcast::Sender<Change>,
    pub unsynced: std::sync::mpsc::Sender<Unsynced>,
    /// Bytes of blocks that wait for the next commit, all feeds together.
    pub waiting: Arc<AtomicU64>,
    /// Held as long as there is a feed.
    pub _lock: Arc<Lock>,
}

/// What the thread hears that brings blocks to the disk.
pub(crate) enum Unsynced {
    /// A feed has blocks that are not on the disk yet.
    Feed(Weak<Inner>),
    /// A feed's journal is in use: once nothing is written for a while, it can be emptied.
    Journal(Weak<Inner>),
    /// They are too many to wait longer.
    Full,
}

pub(crate) struct State {
    authors: Option<Arc<Authors>>,
    head: Option<Signed>,
    pub(crate) roots: Roots,
    have: Blocks,
    have_bytes: u64,
    /// Pages of `have` that differ from the disk.
    dirty: BTreeSet<u64>,
    /// What waits for the next commit.
    pending: Pending,
    conflict: Option<Arc<Conflict>>,
    /// The latest fork that was shown to us and is not followed.
    later_fork: Option<u64>,
    removed: bool,
}

impl Feed {
    pub(crate) fn open(disk: Disk, shared: Shared) -> io::Result<Feed> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the journal is damaged");
        let Recovered { journal, record, have, changed, dropped } = disk.recover()?.ok_or_else(damaged)?;
        let key = record.key();
        let authors = record.authors()?;
        let manifest = authors.as_ref().and_then(Authors::to_single);
        let signer = disk.read_secret()?.filter(|pair| manifest.is_some_and(|manifest| pair.writes(&key, &manifest)));
        let state = State {
            authors: authors.map(Arc::new),
            head: record.signed(),
            roots: record.roots()?,
            have,
            have_bytes: record.bytes_here,
            dirty: changed.into_iter().flat_map(pages_of).collect(),
            pending: Pending::default(),
            conflict: disk.read_conflict()?.filter(|conflict| conflict.is_proof(&key)).map(Arc::new),
            later_fork: None,
            removed: false,
        };
        let progress = watch::Sender::new(state.info(key, signer.is_some()));
        let signer = signer.map_or_else(OnceLock::new, OnceLock::from);
        let used = journal.is_used();
        let feed = Feed(Arc::new(Inner {
            key,
            discovery: key.discovery(),
            disk,
            signer,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            following: Mutex::new((0, 0)),
            way: Mutex::new(None),
            progress,
            shared,
            journal: Mutex::new(journal),
            clearing: RwLock::new(()),
            forks: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            unsynced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }));
        if used {
            feed.tell_used();
        }
        feed.give_back_again(dropped);
        Ok(feed)
    }

    /// The feed's name.
    pub fn key(&self) -> FeedKey {
        self.0.key
    }

    /// The feed's name in public.
    pub fn discovery(&self) -> DiscoveryKey {
        self.0.discovery
    }

    /// The feed in figures.
    pub fn info(&self) -> Info {
        self.lock().info(self.0.key, self.0.signer.get().is_some())
    }

    /// The same figures, each time they change.
    pub fn watch(&self) -> watch::Receiver<Info> {
        self.0.progress.subscribe()
    }

    /// The newest head with its author's signature, if one is known, in the form that the ledger understands. A feed with several signers
    /// has only [`Feed::head`].
    pub fn signed_head(&self) -> Option<SignedHead> {
        let state = self.lock();
        let (manifest, head) = (state.authors.as_ref()?.to_single()?, state.head.as_ref()?);
        let signature = manifest.signature_from_wire(&head.signature).ok()?;
        let roots = state.roots.nodes().iter().map(|node| Root { hash: node.hash, size: node.size }).collect();
        Some(SignedHead { fork: head.fork, length: state.roots.length(), roots, manifest, signature })
    }

    /// The newest head of a feed of any authors, if one is known.
    pub fn head(&self) -> Option<Head> {
        let state = self.lock();
        let (authors, Signed { fork, signature }) = (state.authors.clone()?, state.head.clone()?);
        Some(Head { authors, fork, roots: state.roots.clone(), signature })
    }

    /// Who may write the feed, if that is known and one author: the first head tells.
    pub fn manifest(&self) -> Option<Manifest> {
        self.authors()?.to_single()
    }

    /// Who may write the feed, if that is known: the first head tells.
    pub fn authors(&self) -> Option<Arc<Authors>> {
        self.lock().authors.clone()
    }

    /// Fork, length and signature of the newest head as a peer wants it.
    pub(crate) fn signed(&self) -> Option<(u64, u64, Bytes)> {
        let state = self.lock();
        state.head.as_ref().map(|head| (head.fork, state.roots.length(), head.signature.clone()))
    }

    /// Whether a block is here.
    pub fn has(&self, block: u64) -> bool {
        self.lock().have.contains(block)
    }

    /// How many blocks of a range are not here, blocks beyond the head included.
    pub fn missing_in(&self, blocks: Range<u64>) -> u64 {
        let wanted = blocks.end.saturating_sub(blocks.start);
        wanted - self.lock().have.count_in(blocks)
    }

    /// The file with the blocks' bytes, each block at its offset after [`DATA_START`]. Where blocks are missing it has holes
    /// or ends.
    pub fn data_path(&self) -> PathBuf {
        self.0.disk.data_path()
    }

    /// Bytes of the feed as they are on disk, without a check: where a block is missing they are zeros or an error. Beyond the head
    /// there are none: [`FeedError::NoSuchByte`].
    pub async fn read_bytes(&self, bytes: Range<u64>) -> Result<Vec<u8>, FeedError> {
        self.blocking(move |feed| feed.read_raw(bytes)).await
    }

    /// [`Feed::read_bytes`] on the caller's thread, which it blocks.
    #[doc(hidden)]
    pub fn read_raw(&self, bytes: Range<u64>) -> Result<Vec<u8>, FeedError> {
        let known = self.info().bytes;
        if bytes.end > known {
            return Err(FeedError::NoSuchByte { byte: bytes.end - 1, bytes: known });
        }
        let len = bytes.end.saturating_sub(bytes.start) as usize;
        self.0.disk.read(bytes.start, len, Patience::Waits).map_err(|source| self.io(source))
    }

    /// A block, checked against the author's tree.
    ///
    /// [`FeedError::NotHere`] if it has to be fetched, as [`Network::get`](crate::Network::get) does, [`FeedError::OutOfRange`] if it is
    /// not written yet as far as is known here, [`FeedError::Damaged`] if the disk lost it: then it is not here any more.
    pub async fn get(&self, block: u64) -> Result<Bytes, FeedError> {
        // Another thread costs more than to read what is in memory. Who reads on and on lets others have their turn.
        tokio::task::consume_budget().await;
        match self.read_now(block) {
            Some(bytes) => Ok(bytes.into()),
            None => self.blocking(move |feed| feed.read(block).map(Bytes::from)).await,
        }
    }

    /// Takes over a head from elsewhere than a peer: the ledger, for instance. Nothing changes if the stored head
    /// covers it.
    pub async fn adopt(&self, head: SignedHead) -> Result<(), FeedError> {
        self.blocking(move |feed| feed.adopt_now(head)).await
    }

    /// The same for a head of any authors.
    pub async fn adopt_head(&self, head: Head) -> Result<(), FeedError> {
        self.blocking(move |feed| feed.adopt_head_now(head)).await
    }

    /// Checks blocks that should be here against the author's tree; returns those that were damaged, now withdrawn.
    pub async fn scrub(&self, blocks: Range<u64>) -> Result<Vec<u64>, FeedError> {
        self.blocking(move |feed| feed.scrub_now(blocks)).await
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Feed) -> Result<T, FeedError> + Send + 'static,
    ) -> Result<T, FeedError> {
        let feed = self.clone();
        match tokio::task::spawn_blocking(move || work(feed)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is being shut down.
            Err(_) => Err(FeedError::Removed),
        }
    }

    /// [`Feed::get`] on the caller's thread, which it blocks.
    pub fn read(&self, block: u64) -> Result<Vec<u8>, FeedError> {
        // While history is rewritten nodes are gone before the head is.
        let _settled = self.0.clearing.read().unwrap_or_else(PoisonError::into_inner);
        self.read_settled(block)
    }

    /// A block that is whole, if nothing has to be waited for.
    fn read_now(&self, block: u64) -> Option<Vec<u8>> {
        let _settled = self.0.clearing.try_read().ok()?;
        let roots = {
            let state = self.lock();
            (state.have.contains(block) && !state.removed).then(|| state.roots.clone())?
        };
        let (bytes, leaf) = self.read_stored(&roots, block, Patience::None).ok()??;
        (Node::leaf(block, &bytes) == leaf).then_some(bytes)
    }

    /// The caller holds `clearing`.
    fn read_settled(&self, block: u64) -> Result<Vec<u8>, FeedError> {
        let roots = self.roots_with(block)?;
        match self.read_stored(&roots, block, Patience::Waits)? {
            Some((bytes, leaf)) if Node::leaf(block, &bytes) == leaf => Ok(bytes),
            _ => self.read_mended(&roots, block).map(|(bytes, _)| bytes),
        }
    }

    /// What is stored as a block, and the leaf that it should have. The caller holds `clearing`.
    fn read_unchecked(&self, block: u64) -> Result<(Vec<u8>, Node), FeedError> {
        let roots = self.roots_with(block)?;
        match self.read_stored(&roots, block, Patience::Waits)? {
            Some(stored) => Ok(stored),
            None => self.read_mended(&roots, block),
        }
    }

    /// The roots of the tree, if the block is here.
    fn roots_with(&self, block: u64) -> Result<Roots, FeedError> {
        let (roots, here, removed) = {
            let state = self.lock();
            (state.roots.clone(), state.have.contains(block), state.removed)
        };
        if removed {
            return Err(FeedError::Removed);
        }
        if block >= roots.length() {
            return Err(FeedError::OutOfRange { block, length: roots.length() });
        }
        if !here {
            return Err(FeedError::NotHere { block });
        }
        Ok(roots)
    }

    /// Takes the key pair that writes the feed: from now on it can be appended to.
    pub(crate) fn take_secret(&self, keypair: &Keypair, manifest: Manifest) -> Result<(), FeedError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.signer.get().is_none() {
            self.0.disk.write_secret(keypair).map_err(|source| self.io(source))?;
            self.commit(Some(Commit::authors(Authors::single(&manifest, &self.0.key))))?;
            _ = self.0.signer.set(keypair.clone());
        }
        Ok(())
    }

    /// No handle writes to the folder any more after this.
    pub(crate) fn remove(&self) -> PathBuf {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // A checkpoint that is under way opens `have` by its name, which may soon be another feed's.
        let _journal = self.0.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock().removed = true;
        self.tell(Changed::Removed);
        self.0.disk.leave().to_owned()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.lock().removed
    }

    /// Notes where the block after this one begins.
    fn follow(&self, block: u64, end: u64) {
        *self.0.following.lock().unwrap_or_else(PoisonError::into_inner) = (block + 1, end);
    }

    /// A look at the blocks that are here, while none can come or go.
    pub(crate) fn with_blocks<T>(&self, look: impl FnOnce(&Blocks) -> T) -> T {
        look(&self.lock().have)
    }

    fn tell(&self, what: Changed) {
        // Within the lock of the watch, so that of two the later has the last word.
        self.0.progress.send_modify(|info| *info = self.info());
        // Nobody listens: fine.
        _ = self.0.shared.changes.send(Change { key: self.0.key, discovery: self.0.discovery, what });
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn io(&self, source: io::Error) -> FeedError {
        FeedError::Io { key: self.0.key, source }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no half-made state: fields are assigned after all that can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({})", self.0.key)
    }
}

impl State {
    fn info(&self, key: FeedKey, writable: bool) -> Info {
        let fork = self.head.as_ref().map_or(0, |head| head.fork);
        Info {
            key,
            writable,
            fork,
            later_fork: self.later_fork.filter(|later| *later > fork),
            length: self.roots.length(),
            bytes: self.roots.bytes(),
            blocks_here: self.have.count(),
            bytes_here: self.have_bytes,
            contiguous: self.have.contiguous(),
        }
    }

    fn record(&self, key: &FeedKey) -> Record {
        let head = self.head.as_ref().map(|head| (head, &self.roots));
        Record::new(key, self.authors.as_deref(), head, self.have_bytes)
    }
}

/// The pages that a range of blocks touches.
fn pages_of(blocks: Range<u64>) -> Range<u64> {
    if blocks.is_empty() { 0..0 } else { blocks.start / PAGE..(blocks.end - 1) / PAGE + 1 }
}
