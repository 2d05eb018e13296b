//! A folder of feeds, used by one process at a time.
//!
//! ```text
//! lock                    held while the store is open
//! format                  "datdot store 3"
//! feeds/<discovery key>/  one folder per feed, see the module `disk`
//! ```

#[cfg(test)]
mod damage;
#[cfg(test)]
mod model;

use crate::{
    disk::{Disk, Pool},
    feed::{Change, Changed, Feed, FeedError, Shared, Unsynced},
    files::Files,
    journal::Record,
    key::{DiscoveryKey, FeedKey, Keypair},
};
use datdot_proof::head::{Manifest, SignedHead};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use tokio::sync::broadcast;

/// How long blocks may wait until they are brought to the disk together.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// So many bytes of blocks don't wait for that. Above twice as many the threads that store them wait for the disk.
pub(crate) const COMMIT_BYTES: u64 = 8 << 20;
/// A feed to which nothing was written for this long has its journal emptied.
const SETTLE_AFTER: Duration = Duration::from_secs(10);
/// Feeds whose files are open at a time.
const MAX_OPEN: usize = 128;
/// What an author can do whose feed can't be opened.
const OWN_DAMAGED: &str = "the feed is your own: restore this folder from a backup, or move it away, but keep its file \
     `secret`, have the feed fetched from others and append only then";
const FORMAT: &[u8] = b"datdot store 3\n";
/// Changes that a slow listener may lag behind; then it has to look for itself.
const CHANGES: usize = 4096;

/// A folder of feeds. Cheap to clone; the folder is free for others when the last clone and the last feed are gone.
#[derive(Clone)]
pub struct Store(Arc<Rooms>);

struct Rooms {
    dir: PathBuf,
    files: Files,
    pool: Arc<Pool>,
    feeds: RwLock<BTreeMap<DiscoveryKey, Feed>>,
    /// Feeds that nobody else gets to see.
    hidden: RwLock<BTreeSet<DiscoveryKey>>,
    /// Held by who adds or removes a feed.
    making: Mutex<()>,
    shared: Shared,
}

/// Why a store can't be opened, or a feed not be added to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one first, or choose another folder", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// An earlier version of the software wrote it, or a later one.
    #[error(
        "{} has another format than this version reads ({found}, not `datdot store 3`): use the version that wrote it, or \
         move the folder away and have the feeds fetched again. The secret keys of own feeds are in their files `secret`",
        dir.display()
    )]
    Format {
        /// The store's folder.
        dir: PathBuf,
        /// What it says of itself.
        found: String,
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
        let (unsynced, waiting) = mpsc::channel();
        let store = Store::open_on(Files::Disk, &dir, unsynced)?;
        let thread = std::thread::Builder::new().name("datdot-store".into()).spawn(move || commit_in_groups(&waiting));
        thread.map(|_| store).map_err(|source| StoreError::Io { path: dir, source })
    }

    /// Opens a store on any files. Who listens to `unsynced` has to bring what is stored to the disk.
    pub(crate) fn open_on(files: Files, dir: &Path, unsynced: mpsc::Sender<Unsynced>) -> Result<Store, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        let (lock_path, feeds_path) = (dir.join("lock"), dir.join("feeds"));
        files.make_dir(dir).map_err(at(dir))?;
        let lock = files.lock(&lock_path).map_err(at(&lock_path))?;
        let lock = lock.ok_or_else(|| StoreError::InUse { dir: dir.to_owned() })?;
        let format = files.read(&dir.join("format"), 64).map_err(at(dir))?;
        let had = files.list(dir).map_err(at(dir))?.contains(&feeds_path)
            && !files.list(&feeds_path).map_err(at(&feeds_path))?.is_empty();
        match format {
            Some(format) if format == FORMAT => {}
            None if !had => files.replace(dir, "format", FORMAT).map_err(at(dir))?,
            other => {
                let found = other.map(|format| String::from_utf8_lossy(&format).trim().to_owned());
                let found = found.map_or("an earlier one".to_owned(), |found| format!("`{found}`"));
                return Err(StoreError::Format { dir: dir.to_owned(), found });
            }
        }
        files.make_dir(&feeds_path).and_then(|()| files.sync_dir(dir)).map_err(at(&feeds_path))?;

        let pool = Arc::new(Pool::new(MAX_OPEN));
        let changes = broadcast::Sender::new(CHANGES);
        let shared = Shared { changes, unsynced, waiting: Arc::default(), _lock: Arc::new(lock) };
        let mut feeds = BTreeMap::new();
        for path in files.list(&feeds_path).map_err(at(&feeds_path))? {
            if path.extension().is_some_and(|ext| ext == "removed" || ext == "new") {
                files.remove_dir(&path).map_err(at(&path))?;
                continue;
            }
            match Feed::open(Disk::new(&path, files.clone(), pool.clone()), shared.clone()) {
                Ok(feed) => _ = feeds.insert(feed.discovery(), feed),
                Err(error) => {
                    tracing::warn!(target: "hypercore", path = %path.display(), %error, "feed can't be opened")
                }
            }
        }
        Ok(Store(Arc::new(Rooms {
            dir: feeds_path,
            files,
            pool,
            feeds: RwLock::new(feeds),
            hidden: RwLock::default(),
            making: Mutex::new(()),
            shared,
        })))
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
    /// isn't there. [`FeedError::NotWritable`] if the manifest does not name the key pair.
    pub fn create_with(&self, keypair: &Keypair, manifest: Manifest) -> Result<Feed, StoreError> {
        let key = keypair.feed_key(&manifest);
        if !keypair.writes(&key, &manifest) {
            return Err(FeedError::NotWritable.into());
        }
        let feed = self.add(key)?;
        feed.take_secret(keypair, manifest)?;
        Ok(feed)
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

    /// Shows a feed to no peer any longer, as if it were not here. The store doesn't remember that.
    pub fn hide(&self, key: &FeedKey) {
        let discovery = key.discovery();
        self.0.hidden.write().unwrap_or_else(PoisonError::into_inner).insert(discovery);
        // Without connections nobody listens: fine.
        _ = self.0.shared.changes.send(Change { key: *key, discovery, what: Changed::Hidden });
    }

    /// Shows a hidden feed again.
    pub fn show(&self, key: &FeedKey) {
        self.0.hidden.write().unwrap_or_else(PoisonError::into_inner).remove(&key.discovery());
    }

    /// A feed that peers may see.
    pub(crate) fn shown(&self, discovery: &DiscoveryKey) -> Option<Feed> {
        let is_hidden = self.0.hidden.read().unwrap_or_else(PoisonError::into_inner).contains(discovery);
        if is_hidden { None } else { self.find(discovery) }
    }

    /// All feeds of the store.
    pub fn feeds(&self) -> Vec<Feed> {
        self.0.feeds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Deletes a feed with all its data; says whether it was there. Handles to it fail from now on.
    pub fn remove(&self, key: &FeedKey) -> Result<bool, StoreError> {
        let _making = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        let feed = self.0.feeds.write().unwrap_or_else(PoisonError::into_inner).remove(&key.discovery());
        let Some(feed) = feed else { return Ok(false) };
        let path = feed.remove();
        let gone = path.with_extension("removed");
        let files = &self.0.files;
        let removed = files.rename(&path, &gone).and_then(|()| files.sync_dir(&self.0.dir));
        let removed = removed.and_then(|()| files.remove_dir(&gone));
        removed.map_err(|source| StoreError::Io { path, source })?;
        Ok(true)
    }

    /// What happens to the feeds from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.shared.changes.subscribe()
    }

    fn add(&self, key: FeedKey) -> Result<Feed, StoreError> {
        let discovery = key.discovery();
        // Connections look feeds up all the time: they don't wait for the disk.
        let _making = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = self.find(&discovery) {
            return Ok(feed);
        }
        let path = self.0.dir.join(discovery.to_string());
        let feed = self.make(key, &path).map_err(|source| StoreError::Io { path, source })?;
        self.0.feeds.write().unwrap_or_else(PoisonError::into_inner).insert(discovery, feed.clone());
        Ok(feed)
    }

    /// The feed in a folder, made anew if it isn't there or can't be read.
    fn make(&self, key: FeedKey, path: &Path) -> io::Result<Feed> {
        let Rooms { dir, files, pool, shared, .. } = &*self.0;
        let disk = |path| Disk::new(path, files.clone(), pool.clone());
        if files.list(dir)?.iter().any(|there| there == path) {
            match Feed::open(disk(path), shared.clone()) {
                // What others wrote can be fetched again; an author who began again at length 0 would contradict what is signed
                // already.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    if files.read(&path.join("secret"), 0)?.is_some() {
                        return Err(io::Error::new(error.kind(), format!("{error}; {OWN_DAMAGED}")));
                    }
                }
                feed => return feed,
            }
            let gone = path.with_extension("removed");
            files.rename(path, &gone)?;
            files.remove_dir(&gone)?;
        }
        let new = path.with_extension("new");
        files.make_dir(&new)?;
        disk(&new).create(Record::new(&key, None, None, 0))?;
        files.rename(&new, path)?;
        files.sync_dir(dir)?;
        Feed::open(disk(path), shared.clone())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.dir.display())
    }
}

/// Brings blocks to the disk, those of about half a second or [`COMMIT_BYTES`] together, and empties the journals of
/// feeds that came to rest. Ends with the last feed.
fn commit_in_groups(unsynced: &mpsc::Receiver<Unsynced>) {
    let (mut feeds, mut journals) = (Vec::new(), Vec::new());
    let mut look = Instant::now() + SETTLE_AFTER;
    loop {
        let mut due = look;
        loop {
            match unsynced.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Unsynced::Feed(feed)) => {
                    feeds.push(feed);
                    due = due.min(Instant::now() + COMMIT_EVERY);
                }
                Ok(Unsynced::Journal(feed)) => journals.push((feed, None)),
                Ok(Unsynced::Full) | Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for feed in feeds.drain(..).filter_map(|weak| Feed::upgrade(&weak)) {
            if let Err(error) = feed.sync() {
                tracing::error!(target: "hypercore", feed = %feed.key(), %error, "blocks can't be brought to the disk");
            }
        }
        if Instant::now() >= look {
            journals.retain_mut(|(weak, number)| {
                *number = Feed::upgrade(weak).and_then(|feed| feed.settle(*number));
                number.is_some()
            });
            look = Instant::now() + SETTLE_AFTER;
        }
    }
}
