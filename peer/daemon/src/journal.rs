//! What a daemon has to remember that neither the ledger nor its store knows: one small file, replaced at once.

use crate::files;
use codec::{Decode, Encode};
use datdot_api::{GetOrder, HostOrder, Key, Limits, PublishOrder};
use datdot_market::{
    Block, RequestId,
    terms::{Feeds, Sources, Terms},
};
use datdot_roles::sponsor::{Intent, IntentId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long what came is kept if its work was interrupted, so that it can go on.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Blocks after which a transaction that was sent before a crash can't come into a block any more: what the ledger's
/// client gives an ordinary call, and some more.
const TOO_OLD_AFTER: Block = 40;

/// The journal of a daemon.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    notes: Notes,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Notes {
    /// What the owner last ordered of the offer.
    #[serde(default)]
    offer: Ordered,
    /// Limits that the owner ordered.
    #[serde(default)]
    limits: Limits,
    /// Orders to publish that are neither done nor an intent: a start begins them again.
    #[serde(default)]
    begun: Vec<PublishOrder>,
    /// Feeds that a file or folder was being made into, or that were being deleted: what is left of them a start removes.
    #[serde(default)]
    leftover: BTreeSet<Key>,
    /// Files that were published, by the key of their feed.
    #[serde(default)]
    published: BTreeMap<Key, Published>,
    /// Feeds of ours that were taken back: nobody else gets to see them.
    #[serde(default)]
    unpublished: BTreeSet<Key>,
    /// Drives that are published or sponsored here.
    #[serde(default)]
    drives: BTreeMap<Key, Drive>,
    /// Orders to read that are not done: a start begins them again.
    #[serde(default)]
    readings: Vec<Reading>,
    /// Feeds that came in part when nobody was left who had more, and until when they are kept: milliseconds since 1970.
    #[serde(default)]
    interrupted: BTreeMap<Key, u64>,
    /// Feeds that are served because we sponsor them.
    #[serde(default)]
    sponsored: BTreeSet<Key>,
    /// Requests that are wanted or open.
    #[serde(default)]
    intents: BTreeMap<IntentId, Noted>,
    /// Names the next of them.
    #[serde(default)]
    next: IntentId,
}

/// What the owner ordered of the offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordered {
    /// Nothing.
    #[default]
    Nothing,
    /// An offer.
    Offer(HostOrder),
    /// No offer.
    Stop,
}

/// A file that became a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The file.
    #[serde(flatten)]
    pub file: FileState,
    /// BLAKE3 hash of its bytes.
    pub root: Key,
}

/// A drive that a folder became, or that somebody else made and we sponsor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    /// The feed with the contents.
    pub blobs: Key,
    /// The folder, if it is published here.
    pub folder: Option<PathBuf>,
    /// Its figures when it was last looked through.
    pub figures: Figures,
}

/// A version of a drive in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Blocks of the metadata.
    pub version: u64,
    /// Files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// When the folder was last read, in milliseconds since 1970.
    pub read: u64,
}

/// A feed or drive that is being read into a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reading {
    order: GetOrder,
    /// When it was given, in milliseconds since 1970.
    #[serde(default)]
    since: u64,
    /// What it keeps here meanwhile.
    feeds: BTreeSet<Key>,
}

/// A file as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub modified: u64,
}

/// An intent as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Noted {
    #[serde(with = "scale")]
    what: What,
    since: Block,
    /// The best block when it was last submitted.
    sent: Option<Block>,
    request: Option<(RequestId, Block)>,
}

/// What an intent asks of the ledger; written as the ledger would get it: SCALE in hex.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct What {
    feeds: Feeds,
    terms: Terms,
    sources: Sources,
}

impl Journal {
    /// Reads the journal at `path`; an empty one if it isn't there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let damaged = |error: serde_json::Error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged ({error}): restore it from a backup"))
        };
        let notes = match files::read(path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(damaged)?,
            None => Notes::default(),
        };
        Ok(Self { path: path.to_owned(), notes })
    }

    /// Whether nothing is noted.
    pub fn is_blank(&self) -> bool {
        self.notes == Notes::default()
    }

    /// What was ordered of the offer.
    pub fn offer(&self) -> &Ordered {
        &self.notes.offer
    }

    /// Notes another order.
    pub fn set_offer(&mut self, ordered: Ordered) -> io::Result<()> {
        self.notes.offer = ordered;
        self.write()
    }

    /// What was ordered of limits.
    pub fn limits(&self) -> Limits {
        self.notes.limits
    }

    /// Notes other limits; if they can't be written, those before stay.
    pub fn set_limits(&mut self, limits: Limits) -> io::Result<()> {
        let before = std::mem::replace(&mut self.notes.limits, limits);
        self.write().inspect_err(|_| self.notes.limits = before)
    }

    /// Orders to publish that a start begins again.
    pub fn begun(&self) -> &[PublishOrder] {
        &self.notes.begun
    }

    /// Notes that an order is begun.
    pub fn begin(&mut self, order: PublishOrder) -> io::Result<()> {
        if !self.notes.begun.contains(&order) {
            self.notes.begun.push(order);
        }
        self.write()
    }

    /// Forgets an order that is done, or can't be done.
    pub fn ended(&mut self, order: &PublishOrder) -> io::Result<()> {
        if !self.notes.begun.contains(order) {
            return Ok(());
        }
        self.notes.begun.retain(|begun| begun != order);
        self.write()
    }

    /// Feeds of which nothing is to be left after a start.
    pub fn leftover(&self) -> &BTreeSet<Key> {
        &self.notes.leftover
    }

    /// Notes feeds that are about to be made: they are leftovers until they are published.
    pub fn make(&mut self, keys: &[Key]) -> io::Result<()> {
        self.notes.leftover.extend(keys);
        self.write()
    }

    /// Notes that nothing is left over.
    pub fn tidied(&mut self) -> io::Result<()> {
        self.notes.leftover.clear();
        self.write()
    }

    /// Files that were published, by the key of their feed.
    pub fn published(&self) -> &BTreeMap<Key, Published> {
        &self.notes.published
    }

    /// Notes a published file.
    pub fn publish(&mut self, key: Key, file: Published) -> io::Result<()> {
        self.notes.unpublished.remove(&key);
        self.notes.leftover.remove(&key);
        self.notes.published.insert(key, file);
        self.write()
    }

    /// Drives that are published or sponsored here.
    pub fn drives(&self) -> &BTreeMap<Key, Drive> {
        &self.notes.drives
    }

    /// The drive of a folder.
    pub fn drive_of(&self, folder: &Path) -> Option<(Key, &Drive)> {
        let of = |drive: &Drive| drive.folder.as_deref() == Some(folder);
        self.notes.drives.iter().find(|(_, drive)| of(drive)).map(|(key, drive)| (*key, drive))
    }

    /// Notes a drive, or what has become of it. The folder of one that is published here stays.
    pub fn set_drive(&mut self, key: Key, drive: Drive) -> io::Result<()> {
        for key in [key, drive.blobs] {
            self.notes.unpublished.remove(&key);
            self.notes.leftover.remove(&key);
        }
        let folder = self.notes.drives.get(&key).and_then(|before| before.folder.clone());
        self.notes.drives.insert(key, Drive { folder: drive.folder.or(folder), ..drive });
        self.write()
    }

    /// Forgets a drive. Its feeds, if it was published here, are leftovers.
    pub fn forget_drive(&mut self, key: &Key) -> io::Result<()> {
        self.notes.leftover.extend(self.feeds_of(key).unwrap_or_default());
        self.notes.drives.remove(key);
        self.write()
    }

    /// The feeds that we published by this name: one, or both of a drive.
    pub fn feeds_of(&self, key: &Key) -> Option<Vec<Key>> {
        if self.notes.published.contains_key(key) {
            return Some(vec![*key]);
        }
        let drive = self.notes.drives.get(key).filter(|drive| drive.folder.is_some())?;
        Some(vec![*key, drive.blobs])
    }

    /// Feeds of ours that were taken back.
    pub fn unpublished(&self) -> &BTreeSet<Key> {
        &self.notes.unpublished
    }

    /// Notes that what we published is taken back; it can be published again.
    pub fn unpublish(&mut self, key: &Key) -> io::Result<()> {
        let feeds = self.feeds_of(key).unwrap_or_default();
        self.notes.unpublished.extend(feeds);
        self.write()
    }

    /// Forgets what we published. Its feeds are leftovers.
    pub fn forget(&mut self, key: &Key) -> io::Result<()> {
        for feed in self.feeds_of(key).unwrap_or_default() {
            self.notes.unpublished.remove(&feed);
            self.notes.leftover.insert(feed);
        }
        self.notes.published.remove(key);
        self.notes.drives.remove(key);
        self.write()
    }

    /// Whether we wrote a feed.
    pub fn is_author(&self, key: &Key) -> bool {
        let of = |(metadata, drive): (&Key, &Drive)| drive.folder.is_some() && (metadata == key || drive.blobs == *key);
        self.notes.published.contains_key(key) || self.notes.drives.iter().any(of)
    }

    /// The file or folder that a feed was made of.
    pub fn made_of(&self, key: &Key) -> Option<&Path> {
        let file = self.notes.published.get(key).map(|found| found.file.path.as_path());
        file.or_else(|| self.notes.drives.get(key)?.folder.as_deref())
    }

    /// Orders to read that a start begins again, and when they were given.
    pub fn readings(&self) -> Vec<(GetOrder, u64)> {
        self.notes.readings.iter().map(|reading| (reading.order.clone(), reading.since)).collect()
    }

    /// Whether an order to read needs a feed.
    pub fn is_read(&self, feed: &Key) -> bool {
        self.notes.readings.iter().any(|reading| reading.feeds.contains(feed))
    }

    /// Notes that an order to read is under way, and needs this feed.
    pub fn reads(&mut self, order: &GetOrder, feed: Key, now: u64) -> io::Result<()> {
        match self.notes.readings.iter_mut().find(|reading| reading.order == *order) {
            Some(reading) => _ = reading.feeds.insert(feed),
            None => self.notes.readings.push(Reading { order: order.clone(), since: now, feeds: [feed].into() }),
        }
        self.write()
    }

    /// Forgets an order to read, and says which feeds it kept here. If all was read, nothing of them is kept to go on with.
    pub fn has_read(&mut self, order: &GetOrder, whole: bool) -> io::Result<BTreeSet<Key>> {
        let (done, others): (Vec<_>, _) =
            std::mem::take(&mut self.notes.readings).into_iter().partition(|reading| reading.order == *order);
        self.notes.readings = others;
        let feeds: BTreeSet<Key> = done.into_iter().flat_map(|reading| reading.feeds).collect();
        self.notes.interrupted.retain(|key, _| !whole || !feeds.contains(key));
        self.write()?;
        Ok(feeds)
    }

    /// Notes that what came of a feed, and of those that are read with it, is to be kept for [`KEPT`]; says which they are.
    pub fn keep(&mut self, feed: Key, now: u64) -> io::Result<BTreeSet<Key>> {
        let with_it = self.notes.readings.iter().filter(|reading| reading.feeds.contains(&feed));
        let kept: BTreeSet<Key> = with_it.flat_map(|reading| &reading.feeds).copied().chain([feed]).collect();
        let until = now.saturating_add(KEPT.as_millis() as u64);
        self.notes.interrupted.extend(kept.iter().map(|key| (*key, until)));
        self.write()?;
        Ok(kept)
    }

    /// Forgets which feeds are not to be kept for that any longer, and says which.
    pub fn outdated(&mut self, now: u64) -> io::Result<BTreeSet<Key>> {
        let is_old = |until: u64| until <= now;
        let old: BTreeSet<Key> =
            self.notes.interrupted.iter().filter(|(_, until)| is_old(**until)).map(|(key, _)| *key).collect();
        if !old.is_empty() {
            self.notes.interrupted.retain(|_, until| !is_old(*until));
            self.write()?;
        }
        Ok(old)
    }

    /// Feeds of others that are served because we sponsor them.
    pub fn sponsored(&self) -> &BTreeSet<Key> {
        &self.notes.sponsored
    }

    /// Feeds that are needed here whatever contracts say.
    pub fn own(&self) -> BTreeSet<Key> {
        let readings = self.notes.readings.iter().flat_map(|reading| &reading.feeds);
        let interrupted = self.notes.interrupted.keys();
        self.offered().iter().chain(&self.notes.unpublished).chain(readings).chain(interrupted).copied().collect()
    }

    /// Those of them that others are to find here: what is only being read is not, nor what was taken back.
    pub fn offered(&self) -> BTreeSet<Key> {
        let drives = self.notes.drives.iter().filter(|(_, drive)| drive.folder.is_some());
        let drives = drives.flat_map(|(key, drive)| [key, &drive.blobs]);
        let all: BTreeSet<Key> =
            self.notes.published.keys().chain(drives).chain(&self.notes.sponsored).copied().collect();
        &all - &self.notes.unpublished
    }

    /// Notes a request that is wanted; the order that it is for is forgotten with the same write. Returns its name and what
    /// to tell the sponsor.
    pub fn want(
        &mut self,
        order: Option<&PublishOrder>,
        feeds: Feeds,
        terms: Terms,
        sources: Sources,
        since: Block,
    ) -> io::Result<(IntentId, Intent)> {
        let id = self.notes.next;
        self.notes.next += 1;
        let others: Vec<_> = feeds.iter().map(|feed| Key(feed.key)).filter(|key| !self.is_author(key)).collect();
        self.notes.sponsored.extend(others);
        for key in feeds.iter().map(|feed| Key(feed.key)) {
            self.notes.unpublished.remove(&key);
            self.notes.interrupted.remove(&key);
        }
        self.notes.begun.retain(|begun| Some(begun) != order);
        let noted = Noted { what: What { feeds, terms, sources }, since, sent: None, request: None };
        let intent = noted.intent();
        self.notes.intents.insert(id, noted);
        self.write()?;
        Ok((id, intent))
    }

    /// Notes that a request is submitted now.
    pub fn sent(&mut self, id: IntentId, best: Block) -> io::Result<()> {
        if let Some(noted) = self.notes.intents.get_mut(&id) {
            noted.sent = Some(best);
        }
        self.write()
    }

    /// Notes which request it has become.
    pub fn opened(&mut self, id: IntentId, request: RequestId, seen: Block) -> io::Result<()> {
        if let Some(noted) = self.notes.intents.get_mut(&id) {
            noted.request = Some((request, seen));
        }
        self.write()
    }

    /// Forgets a request that is over or was refused, and says which feeds of others need not be served any more.
    pub fn over(&mut self, id: IntentId) -> io::Result<Vec<Key>> {
        self.notes.intents.remove(&id);
        let feeds = self.notes.intents.values().flat_map(|noted| &noted.what.feeds);
        let wanted: BTreeSet<_> = feeds.map(|feed| Key(feed.key)).collect();
        let (kept, gone) = std::mem::take(&mut self.notes.sponsored).into_iter().partition(|key| wanted.contains(key));
        self.notes.sponsored = kept;
        self.notes.drives.retain(|key, drive| drive.folder.is_some() || self.notes.sponsored.contains(key));
        self.write()?;
        Ok(BTreeSet::into_iter(gone).collect())
    }

    /// What to tell the sponsor after a start.
    pub fn intents(&self) -> Vec<(IntentId, Intent)> {
        self.notes.intents.iter().map(|(id, noted)| (*id, noted.intent())).collect()
    }

    fn write(&self) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec_pretty(&self.notes)?)
    }
}

impl Noted {
    fn intent(&self) -> Intent {
        let What { feeds, terms, sources } = self.what.clone();
        let until = self.sent.map(|sent| sent.saturating_add(TOO_OLD_AFTER));
        Intent { feeds, terms, sources, since: self.since, until, request: self.request }
    }
}

/// The time: milliseconds since 1970.
pub fn millis_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) mod scale {
    use codec::{DecodeAll, Encode};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &impl Encode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(value.encode()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: DecodeAll>(from: D) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        T::decode_all(&mut &bytes[..]).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_market::terms::Feed;
    use datdot_proof::head::{Manifest, Root, SignedHead};

    fn feeds(name: u8) -> Feeds {
        let root = Root { hash: [name; 32], size: 5 };
        let head = SignedHead { fork: 0, length: 1, roots: vec![root], manifest: Manifest::Compat, signature: [0; 64] };
        vec![Feed { key: [name; 32], head, root: [name; 32] }].try_into().unwrap()
    }

    const TERMS: Terms = Terms { replicas: 3, term: 100, max_price: 7 };

    #[test]
    fn a_restart_remembers_what_was_wanted_and_what_may_have_been_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let (first, intent) = journal.want(None, feeds(1), TERMS, Sources::new(), 10).unwrap();
        let (second, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 11).unwrap();
        journal.sent(first, 12).unwrap();
        journal.opened(second, 5, 14).unwrap();

        let restarted = Journal::open(&path).unwrap();
        let found: BTreeMap<_, _> = restarted.intents().into_iter().collect();
        assert_eq!(found[&first], Intent { until: Some(12 + TOO_OLD_AFTER), ..intent });
        assert_eq!(found[&second].request, Some((5, 14)));
        assert_eq!(restarted.own(), [Key([1; 32]), Key([2; 32])].into());
    }

    #[test]
    fn what_was_published_stays_and_what_was_sponsored_goes_with_its_last_request() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("journal.json")).unwrap();
        let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
        journal.publish(Key([1; 32]), Published { file: state, root: Key([1; 32]) }).unwrap();
        let (ours, _) = journal.want(None, feeds(1), TERMS, Sources::new(), 1).unwrap();
        let (theirs, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 1).unwrap();
        let (again, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 1).unwrap();
        assert_eq!(journal.over(ours).unwrap(), []);
        assert_eq!(journal.over(theirs).unwrap(), []);
        assert_eq!(journal.over(again).unwrap(), [Key([2; 32])]);
        assert_eq!(journal.own(), [Key([1; 32])].into());
    }

    #[test]
    fn what_is_taken_back_is_kept_for_us_alone_until_it_is_published_again_or_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
        let (file, folder) = (Key([1; 32]), Key([2; 32]));
        let published = Published { file: state, root: file };
        let drive = Drive { blobs: Key([3; 32]), folder: Some("/folder".into()), figures: Figures::default() };
        journal.publish(file, published.clone()).unwrap();
        journal.set_drive(folder, drive.clone()).unwrap();
        assert_eq!(journal.feeds_of(&drive.blobs), None, "a drive has one name");

        journal.unpublish(&file).unwrap();
        journal.unpublish(&folder).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.offered().len(), journal.own().len()), (0, 3));
        assert!(journal.is_author(&file) && journal.is_author(&drive.blobs));

        journal.publish(file, published).unwrap();
        assert_eq!(journal.offered(), [file].into());
        journal.set_drive(folder, drive).unwrap();
        assert_eq!((journal.offered().len(), journal.unpublished().len()), (3, 0));

        journal.unpublish(&folder).unwrap();
        journal.forget(&folder).unwrap();
        assert_eq!((journal.own(), journal.unpublished().len()), ([file].into(), 0));
    }

    #[test]
    fn a_drive_keeps_both_of_its_feeds_and_what_is_read_keeps_them_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let drive = |blobs, folder: Option<&str>| Drive {
            blobs: Key([blobs; 32]),
            folder: folder.map(Into::into),
            figures: Figures::default(),
        };
        journal.set_drive(Key([1; 32]), drive(2, Some("/folder"))).unwrap();
        let (theirs, _) = journal.want(None, feeds(3), TERMS, Sources::new(), 1).unwrap();
        journal.set_drive(Key([3; 32]), drive(4, None)).unwrap();
        let order = GetOrder {
            key: Key([5; 32]),
            inside: None,
            path: "/out".into(),
            replace: false,
            encryption_key_file: None,
            from: vec![],
        };
        journal.reads(&order, Key([5; 32]), 7).unwrap();
        journal.reads(&order, Key([6; 32]), 8).unwrap();

        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.own(), [1, 2, 3, 5, 6].map(|name| Key([name; 32])).into());
        assert_eq!(journal.offered(), [1, 2, 3].map(|name| Key([name; 32])).into(), "what is only read is not offered");
        assert!(journal.is_author(&Key([2; 32])) && !journal.is_author(&Key([4; 32])));
        assert_eq!(journal.drive_of(Path::new("/folder")).map(|(key, _)| key), Some(Key([1; 32])));
        assert_eq!(journal.readings(), [(order.clone(), 7)]);
        assert_eq!(journal.has_read(&order, true).unwrap(), [5, 6].map(|name| Key([name; 32])).into());
        journal.over(theirs).unwrap();
        assert_eq!(journal.drives().len(), 1, "a drive that was only sponsored is forgotten with its request");
        assert_eq!(journal.own(), [1, 2].map(|name| Key([name; 32])).into());
    }

    #[test]
    fn what_was_never_whole_and_what_was_deleted_are_left_over_until_all_is_tidied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        assert!(journal.is_blank());
        let [file, folder, blobs, half] = [1, 2, 3, 4].map(|name| Key([name; 32]));
        journal.make(&[file, half]).unwrap();
        journal.make(&[folder, blobs]).unwrap();
        let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
        journal.publish(file, Published { file: state, root: file }).unwrap();
        let drive = Drive { blobs, folder: Some("/folder".into()), figures: Figures::default() };
        journal.set_drive(folder, drive).unwrap();
        assert_eq!(*Journal::open(&path).unwrap().leftover(), [half].into());

        journal.forget(&file).unwrap();
        journal.forget_drive(&folder).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(*journal.leftover(), [file, folder, blobs, half].into());
        journal.tidied().unwrap();
        assert!(Journal::open(&path).unwrap().is_blank());
    }

    #[test]
    fn what_came_before_reading_was_interrupted_is_kept_for_a_day_or_until_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let (drive, blobs, other) = (Key([1; 32]), Key([2; 32]), Key([3; 32]));
        let order = GetOrder {
            key: drive,
            inside: None,
            path: "/out".into(),
            replace: false,
            encryption_key_file: None,
            from: vec![],
        };
        let day = KEPT.as_millis() as u64;
        journal.keep(other, 50).unwrap();
        for whole in [false, true] {
            journal.reads(&order, drive, 90).unwrap();
            journal.reads(&order, blobs, 90).unwrap();
            assert_eq!(journal.keep(blobs, 100).unwrap(), [drive, blobs].into());
            assert_eq!(journal.has_read(&order, whole).unwrap(), [drive, blobs].into());
            journal = Journal::open(&path).unwrap();
            assert!(journal.readings().is_empty(), "who gave the order heard that it failed");
            let kept: &[Key] = if whole { &[other] } else { &[drive, blobs, other] };
            assert_eq!(journal.own(), kept.iter().copied().collect());
        }
        assert!(journal.offered().is_empty());
        assert_eq!(journal.outdated(49 + day).unwrap(), [].into());
        assert_eq!(journal.outdated(50 + day).unwrap(), [other].into());
        assert!(Journal::open(&path).unwrap().own().is_empty());
    }

    #[test]
    fn an_order_is_begun_again_until_it_is_an_intent_or_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let order = |name: &str| PublishOrder { path: name.into(), wanted: None };
        for name in ["/a", "/a", "/b", "/c"] {
            journal.begin(order(name)).unwrap();
        }
        journal.want(Some(&order("/a")), feeds(1), TERMS, Sources::new(), 1).unwrap();
        journal.ended(&order("/b")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().begun(), [order("/c")]);
    }

    #[test]
    fn limits_stay_and_a_journal_from_before_there_were_any_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        std::fs::write(&path, r#"{"offer":"stop"}"#).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.limits(), journal.offer()), (Limits::default(), &Ordered::Stop));
        let limits = Limits { upload: Some(50_000), download_each: Some(1 << 40), ..Limits::default() };
        journal.set_limits(limits).unwrap();
        assert_eq!(Journal::open(&path).unwrap().limits(), limits);
        // In the place of the file that is written first.
        std::fs::create_dir(path.with_extension("new")).unwrap();
        journal.set_limits(Limits::default()).unwrap_err();
        assert_eq!(journal.limits(), limits, "what can't be kept does not count");
    }

    #[test]
    fn a_damaged_journal_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let (_, intent) = journal.want(None, feeds(1), TERMS, Sources::new(), 1).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let what = hex::encode(intent.terms.encode());
        assert!(whole.contains(&what));
        for damaged in ["{".to_owned(), whole.replace(&what, &what[2..]), whole.replace(&what, "xy")] {
            std::fs::write(&path, damaged).unwrap();
            let error = Journal::open(&path).expect_err("an intent that can't be read is not forgotten").to_string();
            assert!(error.contains("restore it from a backup"), "{error}");
        }
    }
}
