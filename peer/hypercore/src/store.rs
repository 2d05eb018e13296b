//! A folder of feeds, used by one process at a time.
//!
//! ```text
//! lock                    held while the store is open
//! feeds/<discovery key>/  one folder per feed, see the module `disk`
//! ```

use crate::{
    disk::{Disk, Record, sync_dir},
    feed::{Change, Feed, FeedError, Shared, Unsynced},
    key::{DiscoveryKey, FeedKey, Keypair},
};
use datdot_proof::head::{Manifest, SignedHead};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::broadcast;

/// How long blocks may wait until they are brought to the disk together.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// So many bytes of blocks don't wait for that. Above twice as many the threads that store them wait for the disk.
pub(crate) const COMMIT_BYTES: u64 = 8 << 20;
/// Changes that a slow listener may lag behind; then it has to look for itself.
const CHANGES: usize = 4096;

/// A folder of feeds. Cheap to clone; the folder is free for others when the last clone and the last feed are gone.
#[derive(Clone)]
pub struct Store(Arc<Rooms>);

struct Rooms {
    dir: PathBuf,
    feeds: RwLock<BTreeMap<DiscoveryKey, Feed>>,
    shared: Shared,
    _lock: File,
}

/// Why a store can't be opened, or a feed not be added to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one first, or choose another folder", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// No permission, disk full and the like.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The feed is there, but does not do what was asked.
    #[error(transparent)]
    Feed(#[from] FeedError),
}

impl Store {
    /// Opens the store in `dir`, and makes it if it isn't there. A feed whose record can't be read is left where it is,
    /// reported in the log, and used again once it is opened by its key.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let dir = dir.into();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        let (lock_path, feeds_path) = (dir.join("lock"), dir.join("feeds"));
        make_dir(&feeds_path).map_err(at(&feeds_path))?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { dir }),
            Err(TryLockError::Error(source)) => return Err(StoreError::Io { path: lock_path, source }),
        }

        let (unsynced, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("datdot-store".into())
            .spawn(move || commit_in_groups(&waiting))
            .map_err(at(&dir))?;
        let shared = Shared { changes: broadcast::Sender::new(CHANGES), unsynced, waiting: Arc::default() };

        let mut feeds = BTreeMap::new();
        for entry in fs::read_dir(&feeds_path).map_err(at(&feeds_path))? {
            let path = entry.map_err(at(&feeds_path))?.path();
            if path.extension().is_some_and(|ext| ext == "removed" || ext == "new") {
                fs::remove_dir_all(&path).map_err(at(&path))?;
                continue;
            }
            let opened = Disk::open(&path).and_then(|disk| {
                let record = disk.read_record()?;
                Feed::open(disk, record, shared.clone())
            });
            match opened {
                Ok(feed) => _ = feeds.insert(feed.discovery(), feed),
                Err(error) => {
                    tracing::warn!(target: "hypercore", path = %path.display(), %error, "feed can't be opened")
                }
            }
        }
        Ok(Store(Arc::new(Rooms { dir: feeds_path, feeds: RwLock::new(feeds), shared, _lock: lock })))
    }

    /// The feed that `keypair` writes in the form of Hypercore 11, made if it isn't there.
    pub fn create(&self, keypair: &Keypair) -> Result<Feed, StoreError> {
        self.create_with(keypair, keypair.manifest())
    }

    /// The feed that `keypair` writes in the form of Hypercore 10, made if it isn't there.
    pub fn create_compat(&self, keypair: &Keypair) -> Result<Feed, StoreError> {
        self.create_with(keypair, Manifest::Compat)
    }

    /// The feed that `keypair` writes under a manifest of its own, for a namespace of an application for example; made if it
    /// isn't there. It can be appended to if the manifest names the key pair.
    pub fn create_with(&self, keypair: &Keypair, manifest: Manifest) -> Result<Feed, StoreError> {
        let feed = self.add(keypair.feed_key(&manifest))?;
        match feed.take_secret(keypair, manifest) {
            Ok(()) => Ok(feed),
            Err(source) => Err(FeedError::Io { key: feed.key(), source }.into()),
        }
    }

    /// A feed that somebody else writes, made if it isn't there. With a head, blocks can be verified from the start;
    /// without one the first peer has to show it.
    pub fn open_remote(&self, key: FeedKey, head: Option<SignedHead>) -> Result<Feed, StoreError> {
        let feed = self.add(key)?;
        if let Some(head) = head {
            feed.adopt_now(head)?;
        }
        Ok(feed)
    }

    /// A feed of the store.
    pub fn feed(&self, key: &FeedKey) -> Option<Feed> {
        self.find(&key.discovery()).filter(|feed| feed.key() == *key)
    }

    /// A feed of the store by its public name.
    pub fn find(&self, discovery: &DiscoveryKey) -> Option<Feed> {
        self.0.feeds.read().unwrap_or_else(PoisonError::into_inner).get(discovery).cloned()
    }

    /// All feeds of the store.
    pub fn feeds(&self) -> Vec<Feed> {
        self.0.feeds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Deletes a feed with all its data; says whether it was there. Handles to it fail from now on.
    pub fn remove(&self, key: &FeedKey) -> Result<bool, StoreError> {
        let mut feeds = self.0.feeds.write().unwrap_or_else(PoisonError::into_inner);
        let Some(feed) = feeds.remove(&key.discovery()) else { return Ok(false) };
        let path = feed.remove();
        let gone = path.with_extension("removed");
        let removed =
            fs::rename(&path, &gone).and_then(|()| sync_dir(&self.0.dir)).and_then(|()| fs::remove_dir_all(&gone));
        removed.map_err(|source| StoreError::Io { path, source })?;
        Ok(true)
    }

    /// What happens to the feeds from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.shared.changes.subscribe()
    }

    fn add(&self, key: FeedKey) -> Result<Feed, StoreError> {
        let mut feeds = self.0.feeds.write().unwrap_or_else(PoisonError::into_inner);
        let discovery = key.discovery();
        if let Some(feed) = feeds.get(&discovery) {
            return Ok(feed.clone());
        }
        let path = self.0.dir.join(discovery.to_string());
        let made = (|| {
            // A folder that is there has a record that could not be read. What others wrote can be fetched again; an
            // author who began again at length 0 would contradict what is signed already.
            if path.join("secret").exists() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the record of this own feed is damaged"));
            }
            let fresh = if path.exists() { path.clone() } else { path.with_extension("new") };
            make_dir(&fresh)?;
            let record = Record::new(&key, None, None);
            Disk::open(&fresh)?.write_record(&record)?;
            if fresh != path {
                fs::rename(&fresh, &path)?;
                sync_dir(&self.0.dir)?;
            }
            Feed::open(Disk::open(&path)?, record, self.0.shared.clone())
        })();
        let feed = made.map_err(|source| StoreError::Io { path, source })?;
        feeds.insert(discovery, feed.clone());
        Ok(feed)
    }
}

/// Makes a folder, and those above it, that only its owner can enter: what is kept for others is nobody else's business.
fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Brings blocks to the disk, those of about half a second or [`COMMIT_BYTES`] together. Ends with the last feed.
fn commit_in_groups(unsynced: &mpsc::Receiver<Unsynced>) {
    let mut feeds = Vec::new();
    while let Ok(first) = unsynced.recv() {
        let due = Instant::now() + COMMIT_EVERY;
        let mut next = Ok(first);
        while let Ok(Unsynced::Feed(feed)) = next {
            feeds.push(feed);
            next = unsynced.recv_timeout(due.saturating_duration_since(Instant::now()));
        }
        for feed in feeds.drain(..).filter_map(|weak| Feed::upgrade(&weak)) {
            if let Err(error) = feed.sync() {
                tracing::error!(target: "hypercore", feed = %feed.key(), %error, "blocks can't be brought to the disk");
            }
        }
    }
}
