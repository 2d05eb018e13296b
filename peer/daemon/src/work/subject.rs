//! What a key names, a feed or a drive, and how a drive comes here.

use super::{Steps, Work, blobs_of, blocking};
use crate::{
    discovery::Endpoint,
    engine::Order,
    fetch::{Fetched, Wanted as Fetch},
    files,
    journal::{Drive as Noted, Figures},
};
use datdot_api::{Key, RequestOrder};
use datdot_drive::{
    Content, Drive, DriveError, DrivePath, Entry, Kind, Version,
    fetch::{Round, wanted},
};
use datdot_hypercore::{Feed, FeedError, FeedKey, View};
use std::{ops::Range, path::Path, sync::Arc};

/// What a key names.
pub(super) enum Subject {
    /// A feed; its first block and its head are here.
    Feed(Feed),
    /// A Hyperbee of some application. It is hosted as the feed that it is, but there is no file in it.
    Bee(Feed),
    /// The newest version of a drive; all of its metadata is here. Whatever comes while it is read, it stays this one.
    Drive(Arc<Version>),
}

/// What was found out of a key.
pub(super) struct Found {
    pub subject: Subject,
    /// Peers that were reached.
    pub reached: Vec<Endpoint>,
}

/// How a feed is read: decrypted, if the order names the file with its key.
pub(super) async fn view_of(feed: &Feed, key_file: Option<&Path>) -> Result<View, String> {
    Ok(secret_in(key_file).await?.map_or_else(|| feed.into(), |secret| feed.decrypted(secret)))
}

/// The key in the file that the order names.
async fn secret_in(key_file: Option<&Path>) -> Result<Option<[u8; 32]>, String> {
    let Some(path) = key_file.map(Path::to_owned) else { return Ok(None) };
    if !path.is_absolute() {
        return Err(format!("{} is not the absolute path of a file with an encryption key", path.display()));
    }
    let key = blocking(move || files::users_secret(&path).map_err(|error| format!("{}: {error}", path.display())));
    key.await?.map(Some)
}

impl Work {
    /// Finds out what a key names, for which the first block has to come, and how long it is now; of a drive all metadata comes,
    /// at most `room` bytes. In `key_file` is the key that it is encrypted with, if it is.
    pub(super) async fn find_out(
        &self,
        key: Key,
        key_file: Option<&Path>,
        from: &[String],
        room: u64,
        steps: &Steps,
    ) -> Result<Found, String> {
        let secret = secret_in(key_file).await?;
        let Fetched { feed, reached, .. } = self.fetch_as(key, Fetch::Kind { room }, from, steps).await?;
        let (looked, store) = (feed.clone(), self.ctx.store.clone());
        let kinds = move || {
            let as_it_is = Drive::kind(&looked)?;
            Ok((as_it_is, secret.map_or(Ok(as_it_is), |secret| Drive::kind(looked.decrypted(secret)))?))
        };
        match blocking(kinds).await?.map_err(|error: FeedError| error.to_string())? {
            (Kind::Drive | Kind::Bee, _) if secret.is_some() => {
                // A key that it ignores is not what the user meant.
                return Err(format!("{key} is not encrypted: read it without --encryption-key-file"));
            }
            (_, Kind::Feed) => return Ok(Found { subject: Subject::Feed(feed), reached }),
            (_, Kind::Bee) => return Ok(Found { subject: Subject::Bee(feed), reached }),
            (_, Kind::Drive) => {}
        }
        // Should the head grow from now on, this much of it is here nevertheless.
        let newest = feed.info().length;
        self.fetch(key, from, room, steps).await?;
        // The feed with the contents is not opened: who only lists the drive needs nothing of it.
        let open = move || match secret {
            None => Drive::open(&store, FeedKey(key.0)),
            Some(secret) => Drive::open_encrypted(&store, FeedKey(key.0), secret),
        };
        let drive = blocking(open).await?.map_err(|error: DriveError| error.to_string())?;
        Ok(Found { subject: Subject::Drive(Arc::new(drive.checkout(newest))), reached })
    }

    /// Brings all contents here of a version of a drive, for a request: every block of a head that reaches what the version names.
    /// Says whether it names any. Peers that are reached join the others.
    pub(super) async fn fetch_whole(
        &self,
        version: &Arc<Version>,
        RequestOrder { from, wanted, .. }: &RequestOrder,
        reached: &mut Vec<Endpoint>,
        steps: &Steps,
    ) -> Result<bool, String> {
        let blobs = blobs_of(version).await?;
        let room = || self.ctx.room();
        self.fetch_round(version, None, Round::Maps, from, room()?, steps).await?;
        let Some(last) = runs_of(version, Round::Contents).await?.pop() else { return Ok(false) };
        // Peers may have an older head than the metadata needs: with this block comes one that is long enough.
        let last = Fetch::Runs { runs: vec![last.end.saturating_sub(1)..last.end], bytes: 0, room: room()? };
        let found = self.fetch_as(blobs, last, from, steps).await?;
        reached.extend(found.reached);
        self.may_fetch_for(wanted, &[version.drive().metadata(), &found.feed], reached).await?;
        reached.extend(self.fetch(blobs, from, room()?, steps).await?.reached);
        Ok(true)
    }

    /// Brings the contents here of a file or folder of a drive, at most `room` bytes: the lists of blocks of deduplicated files have to
    /// come first, since they tell where the others are.
    pub(super) async fn fetch_round(
        &self,
        version: &Arc<Version>,
        inside: Option<&DrivePath>,
        round: Round,
        from: &[String],
        room: u64,
        steps: &Steps,
    ) -> Result<(), String> {
        let (at, path) = (version.clone(), inside.cloned());
        let look = move || {
            let bytes = if round == Round::Contents { bytes_in(&at, path.as_ref())? } else { 0 };
            Ok((wanted(&at, path.as_ref(), round)?, bytes))
        };
        let (runs, bytes) = blocking(look).await?.map_err(|error: DriveError| error.to_string())?;
        if !runs.is_empty() {
            self.fetch_as(blobs_of(version).await?, Fetch::Runs { runs, bytes, room }, from, steps).await?;
        }
        Ok(())
    }

    /// Notes a drive that somebody else made, to be shown.
    pub(super) async fn note_others(&self, version: &Arc<Version>) -> Result<(), String> {
        let (version, key) = (version.clone(), Key(version.drive().key().0));
        let noted = blocking(move || {
            let (mut files, mut bytes) = (0, 0u64);
            for entry in usable(version.entries(None)) {
                files += 1;
                bytes = bytes.saturating_add(bytes_at(&entry?.1));
            }
            let figures = Figures { version: version.version(), files, bytes, read: 0 };
            Ok(Noted { blobs: Key(version.drive().blobs_key()?.0), folder: None, figures })
        });
        let noted = noted.await?.map_err(|error: DriveError| error.to_string())?;
        self.order(|reply| Order::NoteDrive(key, noted, reply)).await
    }
}

/// The blocks that all files of a drive take.
async fn runs_of(version: &Arc<Version>, round: Round) -> Result<Vec<Range<u64>>, String> {
    let version = version.clone();
    blocking(move || wanted(&version, None, round)).await?.map_err(|error| error.to_string())
}

/// A path in a drive as the user wrote it; `None` is all of it.
pub(super) fn path_in(inside: Option<&str>) -> Result<Option<DrivePath>, String> {
    let path = inside.filter(|path| !path.is_empty() && *path != "/");
    path.map(|path| path.parse().map_err(|error| format!("{path} is no path in a drive: {error}"))).transpose()
}

/// What to say of a path that is not there.
pub(super) fn not_there(key: Key, path: &DrivePath) -> String {
    format!("there is nothing at {path} in the drive: `datdot ls {key}` shows what there is")
}

/// What to say of a Hyperbee that is to be read.
pub(super) fn no_files(key: Key) -> String {
    format!("{key} is a Hyperbee, the keys and values of some application, and not a drive: npm's `hyperbee` reads it")
}

/// What to say of a path in a feed.
pub(super) fn no_drive(key: Key) -> String {
    format!(
        "{key} is a feed and not a drive, or a drive that is encrypted, with another key than was given if any was: there are \
         no paths to be seen in it"
    )
}

/// Entries that make sense.
pub(super) fn usable(
    entries: impl Iterator<Item = Result<(DrivePath, Entry), DriveError>>,
) -> impl Iterator<Item = Result<(DrivePath, Entry), DriveError>> {
    entries.filter(|entry| !matches!(entry, Err(DriveError::Entry(_))))
}

pub(super) fn bytes_at(entry: &Entry) -> u64 {
    match &entry.content {
        Content::File { blob, .. } => blob.byte_length,
        _ => 0,
    }
}

/// Bytes of the files at a path, as the drive tells.
fn bytes_in(version: &Version, inside: Option<&DrivePath>) -> Result<u64, DriveError> {
    let single = match inside {
        Some(path) => version.entry(path)?.map_or(0, |entry| bytes_at(&entry)),
        None => 0,
    };
    usable(version.entries(inside)).try_fold(single, |sum, entry| Ok(sum.saturating_add(bytes_at(&entry?.1))))
}
