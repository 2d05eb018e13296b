//! A drive: files by their paths, in every version that there was.

use crate::{
    bee::{Bee, BeeError, Change, Entries},
    blobs::{BlobError, Layout, Reading},
    entry::{Blob, Content, Entry},
    node::Header,
    path::{self, DrivePath, PathError},
};
use bytes::Bytes;
use datdot_hypercore::{Authors, Feed, FeedError, FeedKey, Keypair, Store, StoreError, View};
use datdot_proof::{
    head::{MANIFEST, Manifest},
    tree::blake2b,
};
use datdot_wire::encoding::Writer;
use std::{
    fmt,
    ops::{Bound, Range},
    sync::{Arc, Mutex, OnceLock},
};

/// The name under which Hyperdrive has a Corestore derive the key pair of a drive: a namespace has one drive.
pub const NAME: &str = "db";

/// A drive whose feeds are in a store. Cheap to clone; the clones may write in turn, no other handle meanwhile.
#[derive(Clone)]
pub struct Drive {
    store: Store,
    metadata: Feed,
    blobs: Arc<OnceLock<Feed>>,
    /// What both feeds are encrypted with, each in its own way.
    secret: Option<[u8; 32]>,
    pub(crate) writing: Arc<Mutex<()>>,
}

/// A drive as it was at one length of its metadata feed.
#[derive(Debug)]
pub struct Version {
    bee: Bee<View>,
    drive: Drive,
}

/// One of the two feeds of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What there is: names and places.
    Metadata,
    /// What is in the files.
    Blobs,
}

/// What a feed is, as its first block tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks, of whatever they are.
    Feed,
    /// A Hyperbee that is no drive: keys and values of some application.
    Bee,
    /// The metadata of a drive.
    Drive,
}

/// An entry that its author, or somebody in the author's name, wrote so that it can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", name.escape_debug())]
pub struct BadEntry {
    /// The entry's key, as far as it is text, shortened.
    pub name: String,
    /// What is wrong.
    pub why: BadReason,
}

/// See [`BadEntry`].
#[derive(Debug, thiserror::Error)]
pub enum BadReason {
    /// The key is no path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The value is no entry.
    #[error("not an entry: {0}")]
    Value(#[from] serde_json::Error),
}

/// Why a drive does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The metadata can't be read or written.
    #[error(transparent)]
    Metadata(#[from] BeeError),
    /// One entry can't be used; the others can.
    #[error(transparent)]
    Entry(#[from] BadEntry),
    /// A content can't be read.
    #[error("{}: {why}", path.as_str().escape_debug())]
    Content {
        /// The file.
        path: DrivePath,
        /// What is wrong.
        why: BlobError,
    },
    /// The blobs feed can't be read or written.
    #[error(transparent)]
    Blobs(FeedError),
    /// The feed is the Hyperbee of some application.
    #[error("it is a Hyperbee, and not the one of a drive")]
    NoDrive,
    /// The drive neither names the feed with its contents, nor is it of a kind from which that follows.
    #[error("the drive does not say where its contents are")]
    NoBlobs,
    /// A feed can't be added to the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DriveError {
    /// The block that has to come from elsewhere before the same call gets further, if that is all that stops it.
    pub fn missing(&self) -> Option<(Part, u64)> {
        match self {
            DriveError::Metadata(BeeError::Feed(FeedError::NotHere { block } | FeedError::Damaged { block })) => {
                Some((Part::Metadata, *block))
            }
            DriveError::Content { why: BlobError::Feed(error), .. } | DriveError::Blobs(error) => match error {
                // The contents may have grown with the metadata.
                FeedError::NotHere { block } | FeedError::Damaged { block } | FeedError::OutOfRange { block, .. } => {
                    Some((Part::Blobs, *block))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<FeedError> for DriveError {
    fn from(error: FeedError) -> Self {
        DriveError::Metadata(error.into())
    }
}

impl Drive {
    /// The drive that `keypair` writes, made if it isn't there. With the key pair that a
    /// [`datdot_hypercore::PrimaryKey`] gives for [`NAME`] it is the one that JavaScript's `new Hyperdrive(store)` makes.
    pub fn create(store: &Store, keypair: &Keypair) -> Result<Drive, DriveError> {
        let metadata = store.create(keypair)?;
        let manifest = blobs_manifest(&metadata.key(), &keypair.manifest()).expect("the manifest is v1");
        let blobs = store.create_with(keypair, manifest)?;
        // Somebody else may make it at the same time.
        match metadata.write_at(0, &[Header::new(None).to_block()]) {
            Ok(_) | Err(FeedError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let drive = Drive::new(store, metadata, None);
        _ = drive.blobs.set(blobs);
        Ok(drive)
    }

    /// The keys of the two feeds that a key pair writes as a drive, the drive's first.
    pub fn keys(keypair: &Keypair) -> (FeedKey, FeedKey) {
        let manifest = keypair.manifest();
        let key = keypair.feed_key(&manifest);
        let blobs = blobs_manifest(&key, &manifest).expect("the manifest is v1");
        (key, keypair.feed_key(&blobs))
    }

    /// What a feed is. Takes its block 0. What is encrypted shows that only to who has the key.
    pub fn kind(feed: impl Into<View>) -> Result<Kind, FeedError> {
        Ok(match Header::from_block(feed.into().read(0)?) {
            Ok(header) if header.is_drive() => Kind::Drive,
            Ok(_) => Kind::Bee,
            Err(_) => Kind::Feed,
        })
    }

    /// A drive by its key. Its metadata feed is added to the store if it isn't there; somebody has to fetch it then.
    pub fn open(store: &Store, key: FeedKey) -> Result<Drive, DriveError> {
        Ok(Drive::new(store, store.open_remote(key, None)?, None))
    }

    /// A drive whose author encrypted it, as JavaScript's `new Hyperdrive(store, key, { encryptionKey })` does. It is read only.
    pub fn open_encrypted(store: &Store, key: FeedKey, secret: [u8; 32]) -> Result<Drive, DriveError> {
        Ok(Drive::new(store, store.open_remote(key, None)?, Some(secret)))
    }

    fn new(store: &Store, metadata: Feed, secret: Option<[u8; 32]>) -> Drive {
        Drive { store: store.clone(), metadata, blobs: Arc::default(), secret, writing: Arc::default() }
    }

    /// The drive's name: the key of its metadata feed.
    pub fn key(&self) -> FeedKey {
        self.metadata.key()
    }

    /// The feed with names and places.
    pub fn metadata(&self) -> &Feed {
        &self.metadata
    }

    /// The feed with the contents, added to the store if it isn't there. Takes what [`Drive::blobs_key`] takes.
    pub fn blobs(&self) -> Result<&Feed, DriveError> {
        if let Some(blobs) = self.blobs.get() {
            return Ok(blobs);
        }
        let blobs = self.store.open_remote(self.blobs_key()?, None)?;
        Ok(self.blobs.get_or_init(|| blobs))
    }

    /// The key of the feed with the contents. Takes block 0 of the metadata and, in most drives, nothing more.
    pub fn blobs_key(&self) -> Result<FeedKey, DriveError> {
        let header = self.latest().bee.header()?;
        if !header.is_drive() {
            return Err(DriveError::NoDrive);
        }
        let derived = || {
            let authors = self.metadata.authors().ok_or(FeedError::NoHead)?;
            blobs_key(&self.key(), &authors).ok_or(DriveError::NoBlobs)
        };
        header.content_feed().map_or_else(derived, |key| Ok(FeedKey(key)))
    }

    /// The feed with the contents as it is read.
    pub fn contents(&self) -> Result<View, DriveError> {
        Ok(self.view(self.blobs()?))
    }

    /// Whether the drive can be written to, by us.
    pub(crate) fn is_writable(&self) -> bool {
        self.metadata.info().writable && self.secret.is_none()
    }

    fn view(&self, feed: &Feed) -> View {
        self.secret.map_or_else(|| feed.into(), |secret| feed.decrypted(secret))
    }

    /// Blocks of the metadata feed as it is known here.
    pub fn version(&self) -> u64 {
        self.metadata.info().length
    }

    /// The newest version that is known here.
    pub fn latest(&self) -> Version {
        self.checkout(self.version())
    }

    /// The drive after the first `version` blocks of its metadata feed. A drive is whole at those lengths that it had when
    /// a change was done.
    pub fn checkout(&self, version: u64) -> Version {
        Version { bee: Bee::new(self.view(&self.metadata), version), drive: self.clone() }
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drive({})", self.key())
    }
}

impl Version {
    /// Blocks of the metadata feed that count.
    pub fn version(&self) -> u64 {
        self.bee.version()
    }

    /// What is at a path.
    pub fn entry(&self, path: &DrivePath) -> Result<Option<Entry>, DriveError> {
        match self.bee.get(&path.to_key())? {
            Some(found) => Ok(Some(read(&found.key, found.value.as_ref())?.1)),
            None => Ok(None),
        }
    }

    /// Everything in a folder and below, or in the whole drive, in the order of the paths' bytes.
    ///
    /// After [`DriveError::Entry`] it goes on with the next entry, after [`DriveError::missing`] with the same.
    pub fn entries(&self, folder: Option<&DrivePath>) -> Listing<'_> {
        let (from, to) = folder.map_or_else(path::all_keys, path::keys_within);
        Listing(self.bee.range(Bound::Excluded(from), Bound::Excluded(to)))
    }

    /// What the blocks of a range changed, one after the other; what can't be used is left out.
    pub fn history(&self, blocks: Range<u64>) -> impl Iterator<Item = Result<Edit, DriveError>> + '_ {
        let edit = |Change { block, key, put }| {
            let path = DrivePath::from_key(&key).ok()?;
            let entry = put.map(|value| Entry::from_json(&value)).transpose().ok()?;
            Some(Edit { block, path, entry })
        };
        self.bee.history(blocks).filter_map(move |change| change.map(edit).map_err(DriveError::from).transpose())
    }

    /// Where the content of a file is. It is called `path` in errors.
    pub fn layout(&self, path: &DrivePath, blob: &Blob) -> Result<Layout, DriveError> {
        let content = |why| DriveError::Content { path: path.clone(), why };
        Layout::of(&self.drive.contents()?, blob).map_err(content)
    }

    /// The content of a file, block by block.
    pub fn read(
        &self,
        path: &DrivePath,
        blob: &Blob,
    ) -> Result<impl Iterator<Item = Result<Bytes, DriveError>> + use<>, DriveError> {
        let reading = Reading::new(&self.drive.contents()?, self.layout(path, blob)?);
        let path = path.clone();
        Ok(reading.map(move |block| block.map_err(|why| DriveError::Content { path: path.clone(), why })))
    }

    /// The content of the file at a path, links not followed; `None` if there is no file. Fails with [`BlobError::TooLarge`]
    /// if it has more than `max_bytes`: a small drive can describe very large files.
    pub fn get(&self, path: &DrivePath, max_bytes: u64) -> Result<Option<Vec<u8>>, DriveError> {
        let Some(Content::File { blob, .. }) = self.entry(path)?.map(|entry| entry.content) else { return Ok(None) };
        let content = |why| DriveError::Content { path: path.clone(), why };
        let layout = self.layout(path, &blob)?;
        let bytes = layout.bytes();
        if bytes > max_bytes {
            return Err(content(BlobError::TooLarge { bytes, max: max_bytes }));
        }
        Reading::new(&self.drive.contents()?, layout).into_vec().map(Some).map_err(content)
    }

    /// The drive.
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    pub(crate) fn bee(&self) -> &Bee<View> {
        &self.bee
    }
}

/// A step of a drive's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Its block in the metadata feed.
    pub block: u64,
    /// The path.
    pub path: DrivePath,
    /// What was put there; `None` if the path was deleted.
    pub entry: Option<Entry>,
}

/// Entries of a version; made by [`Version::entries`].
#[derive(Debug)]
pub struct Listing<'a>(Entries<'a, View>);

impl Iterator for Listing<'_> {
    type Item = Result<(DrivePath, Entry), DriveError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next()? {
            Ok(found) => Some(read(&found.key, found.value.as_ref()).map_err(Into::into)),
            Err(error) => Some(Err(error.into())),
        }
    }
}

fn read(key: &[u8], value: Option<&Bytes>) -> Result<(DrivePath, Entry), BadEntry> {
    let bad = |why| BadEntry { name: shown(key), why };
    let path = DrivePath::from_key(key).map_err(|why| bad(why.into()))?;
    let value = value.map_or(&b"null"[..], |value| value);
    Ok((path, Entry::from_json(value).map_err(|why| bad(why.into()))?))
}

/// A key for people: its path, without what would move their cursor, and not too long.
fn shown(key: &[u8]) -> String {
    let path = key.strip_prefix(b"files\0").unwrap_or(key);
    String::from_utf8_lossy(&path[..path.len().min(200)]).escape_debug().collect()
}

/// The namespace of a feed with contents: the signer's in the metadata feed says whose, the drive's key of which drive.
fn blobs_namespace(key: &FeedKey, namespace: &[u8; 32]) -> [u8; 32] {
    let blobs = blake2b(&[&blake2b(&[b"hyperdrive"]), &[0]]);
    blake2b(&[&blobs, &key.0, namespace])
}

/// The manifest of the feed with the contents of a drive that has one signer, or `None` if that is not derived: a compat
/// drive names it in its header.
fn blobs_manifest(key: &FeedKey, manifest: &Manifest) -> Option<Manifest> {
    let Manifest::V1 { namespace, signer } = manifest else { return None };
    Some(Manifest::V1 { namespace: blobs_namespace(key, namespace), signer: *signer })
}

/// The feed with the contents of a drive, if it is derived from who may write the drive: by the same signers, each in another
/// namespace (hyperdrive `index.js`, `generateContentManifest`). No block of the drive is needed for it.
pub fn blobs_key(key: &FeedKey, authors: &Authors) -> Option<FeedKey> {
    if authors.version == 0 {
        return None;
    }
    let mut manifest = Writer::new();
    manifest.uint(authors.version).uint(u64::from(authors.allow_patch)).uint(0).uint(authors.quorum);
    manifest.uint(authors.signers.len() as u64);
    for signer in &authors.signers {
        manifest.uint(0).raw(&blobs_namespace(key, &signer.namespace)).raw(&signer.key);
    }
    Some(FeedKey(blake2b(&[&MANIFEST, &manifest.into_vec()])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_hypercore::Keypair;

    /// From `Hyperdrive.getContentKey`.
    #[test]
    fn blobs_are_where_javascript_derives_them() {
        let one = Manifest::V1 { namespace: [1; 32], signer: [2; 32] };
        let authors = Authors::single(&one, &FeedKey([42; 32]));
        let key = blobs_key(&FeedKey([42; 32]), &authors).unwrap();
        assert_eq!(key.to_string(), "156fa7741fd5e865a99d948e435256fe844922f68bd695dbb9e8090aa4595944");
        let manifest = blobs_manifest(&FeedKey([42; 32]), &one).unwrap();
        assert_eq!(manifest.feed_key(), Some(key.0));

        let mut several = Writer::new();
        several.uint(2).uint(1 | 2 | 4 | 8).uint(0).uint(2).uint(3);
        (1..=3).for_each(|name| _ = several.uint(0).raw(&[name; 32]).raw(&[name + 10; 32]));
        several.raw(&[9; 32]).uint(5).uint(1).raw(&[8; 32]).uint(32).raw(&[7; 32]);
        let authors = Authors::from_wire(several.into_vec().into()).unwrap();
        let key = blobs_key(&FeedKey([42; 32]), &authors).unwrap();
        assert_eq!(key.to_string(), "62e6963e27796cedea11aaf97e513266989d9a8e3c38fc86fc751f3e8651cf0e");
    }

    /// First blocks as npm's hyperbee 2 and hyperdrive 13 write them.
    #[test]
    fn a_hyperbee_is_not_taken_for_a_drive() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let bee = "0a086879706572626565";
        for (seed, block, kind) in [
            (1, format!("{bee}1200"), Kind::Drive),
            (2, format!("{bee}12220a20{}", hex::encode([7; 32])), Kind::Drive),
            (3, bee.into(), Kind::Bee),
            (4, format!("{bee}1203120178"), Kind::Bee),
            (5, hex::encode("text"), Kind::Feed),
        ] {
            let feed = store.create(&Keypair::from_seed([seed; 32])).unwrap();
            feed.write(&[hex::decode(&block).unwrap().into()]).unwrap();
            assert_eq!(Drive::kind(&feed).unwrap(), kind, "{block}");
            let blobs = Drive::open(&store, feed.key()).unwrap().blobs().map(drop);
            assert_eq!(blobs.is_ok(), kind == Kind::Drive);
            assert_eq!(matches!(blobs, Err(DriveError::NoDrive)), kind == Kind::Bee);
        }
    }

    #[test]
    fn a_compat_drive_has_to_name_its_blobs() {
        let keypair = Keypair::from_seed([1; 32]);
        let key = keypair.feed_key(&Manifest::Compat);
        assert_eq!(blobs_key(&key, &Authors::compat(&key)), None);
        assert_eq!(blobs_manifest(&key, &Manifest::Compat), None);
    }
}
