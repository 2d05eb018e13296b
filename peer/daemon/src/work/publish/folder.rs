//! A folder becomes a drive, and what changed in it the drive's next version.
//!
//! ```text
//! first    key pair ─▶ feeds in the store ─▶ drive noted ─▶ contents, then metadata ─▶ figures noted ─▶ request
//! later                                      drive found ─▶ what changed            ─▶ figures noted ─▶ another request, if it grew
//! ```
//!
//! A daemon that is killed before the drive is noted forgets its feeds: nobody has heard of them. Killed later it goes on with
//! the drive, and finds there what it had written.

use super::{Made, Steps, Work, blocking, is_own, too_large};
use crate::{
    context::Context,
    engine::Order,
    files,
    journal::{Drive as Noted, Figures},
    work::{REPORT, Whole, read::tell_skipped, say},
};
use datdot_api::{Event, Key, Progress, PublishOrder};
use datdot_drive::{
    Drive,
    import::{Folder, ImportError, Imported, Measured, import, measure},
};
use datdot_hypercore::{FeedKey, Keypair};
use std::{
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes of metadata for a path, about: what a drive of some thousand files takes.
const METADATA_BYTES: u64 = 400;

impl Work {
    pub(super) async fn make_drive(&self, order: &PublishOrder, steps: &Steps) -> Result<Made, String> {
        let begun = Instant::now();
        let before = self.drive_of(&order.path).await?;
        let (measured, total) = self.measured(&order.path, before.clone()).await?;
        if measured.files == 0 {
            return Err(nothing_in(&order.path));
        }
        let (added, room) = (measured.new_bytes.saturating_add(metadata_of(measured.new_files)), self.ctx.room()?);
        if added > room {
            return Err(too_large(&self.ctx, &order.path, added, room));
        }
        self.may_publish(total, order).await?;
        let (drive, noted) = match before {
            Some(found) => found,
            None => self.new_drive(&order.path).await?,
        };
        let key = Key(drive.key().0);

        let read = millis_now();
        let imported = match self.bring(&drive, &order.path, steps).await {
            // What was never whole leaves nothing behind, as long as the daemon goes on.
            Err(why) if noted.figures == Figures::default() && self.ctx.goes_on().is_ok() => {
                self.forget(key, noted.blobs).await?;
                return Err(why);
            }
            imported => imported?,
        };
        let files = imported.added + imported.changed + imported.unchanged;
        let figures = Figures { version: drive.version(), files, bytes: imported.bytes, read };
        let noted = Noted { figures, ..noted };
        self.order(|reply| Order::NoteDrive(key, noted, reply)).await?;
        self.tell(&drive, imported, begun.elapsed(), steps).await;
        Ok(Made { key, feeds: self.hashed(Whole::of_drive(&drive.latest(), true)).await? })
    }

    /// The drive of a folder that was published before.
    async fn drive_of(&self, folder: &Path) -> Result<Option<(Drive, Noted)>, String> {
        let Some((key, noted)) = self.ask(|reply| Order::DriveOf(folder.to_owned(), reply)).await? else {
            return Ok(None);
        };
        let store = self.ctx.store.clone();
        let drive = blocking(move || {
            let is_here = |key: Key| store.feed(&FeedKey(key.0)).is_some_and(|feed| feed.info().writable);
            match is_here(key) && is_here(noted.blobs) {
                true => Drive::open(&store, FeedKey(key.0)).map_err(|error| error.to_string()).map(|it| (it, noted)),
                false => Err("its feeds are not in the daemon's folder any more: restore that from a backup".into()),
            }
        });
        let drive = drive.await?.map_err(|why| format!("{} is published as {key}, but {why}", folder.display()))?;
        Ok(Some(drive))
    }

    /// Makes a drive and notes whose it is.
    async fn new_drive(&self, folder: &Path) -> Result<(Drive, Noted), String> {
        let (store, keypair) = (self.ctx.store.clone(), Keypair::from_seed(files::fresh()));
        let (key, blobs) = Drive::keys(&keypair);
        self.order(|reply| Order::Make(vec![Key(key.0), Key(blobs.0)], reply)).await?;
        let drive = blocking(move || Drive::create(&store, &keypair)).await?.map_err(|error| error.to_string())?;
        let noted = Noted { blobs: Key(blobs.0), folder: Some(folder.to_owned()), figures: Figures::default() };
        let (key, note) = (Key(key.0), noted.clone());
        self.order(|reply| Order::NoteDrive(key, note, reply)).await?;
        Ok((drive, noted))
    }

    async fn forget(&self, key: Key, blobs: Key) -> Result<(), String> {
        self.order(|reply| Order::ForgetDrive(key, reply)).await?;
        let store = self.ctx.store.clone();
        let removed = blocking(move || {
            // The one with the name first: without it the other one is nothing.
            [key, blobs].into_iter().try_for_each(|key| store.remove(&FeedKey(key.0)).map(drop))
        });
        removed.await?.map_err(|error| format!("what was read can't be removed: {error}"))
    }

    /// Brings the drive up to the folder.
    async fn bring(&self, drive: &Drive, folder: &Path, steps: &Steps) -> Result<Imported, String> {
        let (ctx, drive, from, told) = (self.ctx.clone(), drive.clone(), folder.to_owned(), steps.clone());
        let imported = blocking(move || {
            let mut reported = Instant::now();
            let mut listener = |now: datdot_drive::progress::Progress| {
                if reported.elapsed() >= REPORT || now.files == now.of_files {
                    reported = Instant::now();
                    _ = told.try_send(Progress::Reading { bytes: now.bytes, total: now.of_bytes });
                }
                if ctx.goes_on().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let folder = Folder { path: &from, without: &ctx.own_folders() };
            import(&drive, folder, &mut listener).map_err(|error| failed(&ctx, error))
        });
        imported.await?
    }

    async fn tell(&self, drive: &Drive, imported: Imported, took: Duration, steps: &Steps) {
        let Imported { added, changed, deleted, unchanged, new_bytes, skipped, .. } = imported;
        tell_skipped(&skipped, steps).await;
        say(steps, Progress::Imported { added, changed, deleted, unchanged, new_bytes }).await;
        let (key, millis) = (Key(drive.key().0), took.as_millis() as u64);
        tracing::info!(target: "daemon", drive = %key, version = drive.version(), new_bytes, millis, "published");
        let blobs = drive.blobs().map(|blobs| blobs.info());
        let info = drive.metadata().info();
        let (bytes, blocks) = blobs.map_or((0, 0), |blobs| (blobs.bytes, blobs.length));
        self.ctx.story.tell(Event::Published { key, bytes: info.bytes + bytes, blocks: info.length + blocks, millis });
    }

    /// Measures a folder, and says how many bytes its drive will have about.
    async fn measured(&self, folder: &Path, before: Option<(Drive, Noted)>) -> Result<(Measured, u64), String> {
        let (ctx, folder) = (self.ctx.clone(), folder.to_owned());
        let measured = blocking(move || {
            let since = |noted: &Noted| UNIX_EPOCH + Duration::from_millis(noted.figures.read);
            let known = before.as_ref().map(|(drive, noted)| (drive, since(noted)));
            let folder = Folder { path: &folder, without: &ctx.own_folders() };
            let measured = measure(folder, known).map_err(|error| failed(&ctx, error))?;
            let held = match &before {
                Some((drive, _)) => {
                    let blobs = drive.blobs().map_err(|error| error.to_string())?;
                    drive.metadata().info().bytes.saturating_add(blobs.info().bytes)
                }
                None => 0,
            };
            let added = measured.new_bytes.saturating_add(metadata_of(measured.new_files));
            Ok((measured, held.saturating_add(added)))
        });
        measured.await?
    }

    /// Bytes that the drive of a folder will have, about.
    pub(in crate::work) async fn bytes_of_folder(&self, folder: &Path) -> Result<u64, String> {
        let before = self.drive_of(folder).await?;
        let (measured, total) = self.measured(folder, before).await?;
        if measured.files == 0 { Err(nothing_in(folder)) } else { Ok(total) }
    }
}

fn failed(ctx: &Context, error: ImportError) -> String {
    match error {
        ImportError::Stopped => "the daemon stops".into(),
        ImportError::Own { path } => is_own(ctx, &path),
        error => error.to_string(),
    }
}

fn nothing_in(folder: &Path) -> String {
    format!("{} has no files, or all are ignored: there is nothing to publish", folder.display())
}

fn metadata_of(files: u64) -> u64 {
    files.saturating_mul(METADATA_BYTES)
}

fn millis_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
