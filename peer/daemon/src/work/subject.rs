//! What a key names, a feed or a drive, and how a drive comes here.

use super::{Steps, Work, blobs_of, blocking};
use crate::{
    discovery::Endpoint,
    engine::Order,
    fetch::{Fetched, Wanted as Fetch},
    files,
    journal::{Drive as Noted, Figures},
};
use datdot_api::Key;
use datdot_drive::{
    Content, Drive, DriveError, DrivePath, Entry, Kind,
    fetch::{Round, wanted},
};
use datdot_hypercore::{Feed, FeedError, FeedKey, View};
use std::{ops::Range, path::Path};

/// What a key names.
pub(super) enum Subject {
    /// A feed; its first block and its head are here.
    Feed(Feed),
    /// A Hyperbee of some application. It is hosted as the feed that it is, but there is no file in it.
    Bee,
    /// A drive; all of its newest metadata is here.
    Drive(Drive),
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
            (_, Kind::Bee) => return Ok(Found { subject: Subject::Bee, reached }),
            (_, Kind::Drive) => {}
        }
        self.fetch(key, from, room, steps).await?;
        // The feed with the contents is not opened: who only lists the drive needs nothing of it.
        let open = move || match secret {
            None => Drive::open(&store, FeedKey(key.0)),
            Some(secret) => Drive::open_encrypted(&store, FeedKey(key.0), secret),
        };
        let drive = blocking(open).await?.map_err(|error: DriveError| error.to_string())?;
        Ok(Found { subject: Subject::Drive(drive), reached })
    }

    /// Brings all contents of a drive here whose metadata is here: every block of a head that reaches what the metadata names.
    /// Returns the peers that were reached.
    pub(super) async fn fetch_whole(
        &self,
        drive: &Drive,
        from: &[String],
        steps: &Steps,
    ) -> Result<Vec<Endpoint>, String> {
        let blobs = blobs_of(drive).await?;
        let room = || self.ctx.room();
        let lists = runs_of(drive, Round::Maps).await?;
        if !lists.is_empty() {
            self.fetch_as(blobs, Fetch::Runs { runs: lists, bytes: 0, room: room()? }, from, steps).await?;
        }
        let Some(last) = runs_of(drive, Round::Contents).await?.pop() else { return Ok(Vec::new()) };
        // Peers may have an older head than the metadata needs: with this block comes one that is long enough.
        let last = vec![last.end.saturating_sub(1)..last.end];
        let Fetched { feed, mut reached, .. } =
            self.fetch_as(blobs, Fetch::Runs { runs: last.clone(), bytes: 0, room: room()? }, from, steps).await?;
        if last.iter().any(|run| feed.missing_in(run.clone()) > 0) {
            return Err(format!(
                "the drive names contents that nobody who was reached has: they hold {} blocks of them, and its newest version \
                 goes on behind. Give the same command again once its author or a hoster of that version can be reached",
                feed.info().length
            ));
        }
        reached.extend(self.fetch(blobs, from, room()?, steps).await?.reached);
        Ok(reached)
    }

    /// Brings the contents here of a file or folder of a drive whose metadata is here, at most `room` bytes.
    pub(super) async fn fetch_contents(
        &self,
        drive: &Drive,
        inside: Option<&DrivePath>,
        from: &[String],
        room: u64,
        steps: &Steps,
    ) -> Result<(), String> {
        let blobs = blobs_of(drive).await?;
        // Where a deduplicated file has its blocks, its list of blocks tells, which has to come first.
        for round in [Round::Maps, Round::Contents] {
            let (all, inside) = (drive.clone(), inside.cloned());
            let look = move || {
                let bytes = if round == Round::Contents { bytes_in(&all, inside.as_ref())? } else { 0 };
                Ok((wanted(&all, inside.as_ref(), round)?, bytes))
            };
            let (runs, bytes) = blocking(look).await?.map_err(|error: DriveError| error.to_string())?;
            if !runs.is_empty() {
                self.fetch_as(blobs, Fetch::Runs { runs, bytes, room }, from, steps).await?;
            }
        }
        Ok(())
    }

    /// Notes a drive that somebody else made, to be shown.
    pub(super) async fn note_others(&self, drive: &Drive) -> Result<(), String> {
        let (looked, key) = (drive.clone(), Key(drive.key().0));
        let noted = blocking(move || {
            let (mut files, mut bytes) = (0, 0u64);
            let version = looked.latest();
            for entry in usable(version.entries(None)) {
                files += 1;
                bytes = bytes.saturating_add(bytes_at(&entry?.1));
            }
            let figures = Figures { version: version.version(), files, bytes, read: 0 };
            Ok(Noted { blobs: Key(looked.blobs()?.key().0), folder: None, figures })
        });
        let noted = noted.await?.map_err(|error: DriveError| error.to_string())?;
        self.order(|reply| Order::NoteDrive(key, noted, reply)).await
    }
}

/// The blocks that all files of a drive take.
async fn runs_of(drive: &Drive, round: Round) -> Result<Vec<Range<u64>>, String> {
    let all = drive.clone();
    blocking(move || wanted(&all, None, round)).await?.map_err(|error| error.to_string())
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
fn bytes_in(drive: &Drive, inside: Option<&DrivePath>) -> Result<u64, DriveError> {
    let version = drive.latest();
    let single = match inside {
        Some(path) => version.entry(path)?.map_or(0, |entry| bytes_at(&entry)),
        None => 0,
    };
    usable(version.entries(inside)).try_fold(single, |sum, entry| Ok(sum.saturating_add(bytes_at(&entry?.1))))
}
