//! What a daemon has to remember that neither the ledger nor its store knows: one small file, replaced at once.
//!
//! What is about to be done is refused if it can't be noted, and then nothing of it stays. What has happened stays noted in memory
//! at least: the next write that succeeds brings it to the disk.

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

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
        self.change(|notes| notes.limits = limits)
    }

    /// Orders to publish that a start begins again.
    pub fn begun(&self) -> &[PublishOrder] {
        &self.notes.begun
    }

    /// Notes that an order is begun.
    pub fn begin(&mut self, order: PublishOrder) -> io::Result<()> {
        self.change(|notes| {
            if !notes.begun.contains(&order) {
                notes.begun.push(order);
            }
        })
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
        self.change(|notes| notes.leftover.extend(keys))
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
        self.change(|notes| {
            notes.unpublished.remove(&key);
            notes.leftover.remove(&key);
            notes.published.insert(key, file);
        })
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
        self.change(|notes| {
            for key in [key, drive.blobs] {
                notes.unpublished.remove(&key);
                notes.leftover.remove(&key);
            }
            let folder = notes.drives.get(&key).and_then(|before| before.folder.clone());
            notes.drives.insert(key, Drive { folder: drive.folder.or(folder), ..drive });
        })
    }

    /// Forgets a drive. Its feeds, if it was published here, are leftovers.
    pub fn forget_drive(&mut self, key: &Key) -> io::Result<()> {
        let feeds = self.feeds_of(key).unwrap_or_default();
        self.change(|notes| {
            notes.leftover.extend(feeds);
            notes.drives.remove(key);
        })
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
        self.change(|notes| notes.unpublished.extend(feeds))
    }

    /// Forgets what we published. Its feeds are leftovers.
    pub fn forget(&mut self, key: &Key) -> io::Result<()> {
        let feeds = self.feeds_of(key).unwrap_or_default();
        self.change(|notes| {
            for feed in feeds {
                notes.unpublished.remove(&feed);
                notes.leftover.insert(feed);
            }
            notes.published.remove(key);
            notes.drives.remove(key);
        })
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
        self.change(|notes| match notes.readings.iter_mut().find(|reading| reading.order == *order) {
            Some(reading) => _ = reading.feeds.insert(feed),
            None => notes.readings.push(Reading { order: order.clone(), since: now, feeds: [feed].into() }),
        })
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
        self.change(|notes| notes.interrupted.extend(kept.iter().map(|key| (*key, until))))?;
        Ok(kept)
    }

    /// Forgets which feeds are not to be kept for that any longer, and says which.
    pub fn outdated(&mut self, now: u64) -> io::Result<BTreeSet<Key>> {
        let is_old = |until: u64| until <= now;
        let old: BTreeSet<Key> =
            self.notes.interrupted.iter().filter(|(_, until)| is_old(**until)).map(|(key, _)| *key).collect();
        if !old.is_empty() {
            self.change(|notes| notes.interrupted.retain(|_, until| !is_old(*until)))?;
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
        let keys: Vec<_> = feeds.iter().map(|feed| Key(feed.key)).collect();
        let others: Vec<_> = keys.iter().copied().filter(|key| !self.is_author(key)).collect();
        let noted = Noted { what: What { feeds, terms, sources }, since, sent: None, request: None };
        let intent = noted.intent();
        self.change(|notes| {
            notes.next += 1;
            notes.sponsored.extend(others);
            for key in &keys {
                notes.unpublished.remove(key);
                notes.interrupted.remove(key);
            }
            notes.begun.retain(|begun| Some(begun) != order);
            notes.intents.insert(id, noted);
        })?;
        Ok((id, intent))
    }

    /// Notes that a request is submitted now.
    pub fn sent(&mut self, id: IntentId, best: Block) -> io::Result<()> {
        self.change(|notes| {
            if let Some(noted) = notes.intents.get_mut(&id) {
                noted.sent = Some(best);
            }
        })
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

    /// Changes the notes if the disk takes it; otherwise nothing has changed.
    fn change(&mut self, change: impl FnOnce(&mut Notes)) -> io::Result<()> {
        let mut notes = self.notes.clone();
        change(&mut notes);
        let before = std::mem::replace(&mut self.notes, notes);
        self.write().inspect_err(|_| self.notes = before)
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
mod tests;
