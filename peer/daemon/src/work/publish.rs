//! Publishing: a file becomes a feed, which is served and hosted.
//!
//! The order is noted first and forgotten when its request is noted or it can't be done, so that a daemon that is stopped
//! in between begins it again at its next start.

use super::{REPORT, Steps, Work, blocking, say};
use crate::{
    engine::Order,
    files,
    journal::{FileState, Published},
    quote, segments,
};
use bytes::Bytes;
use datdot_api::{Event, Key, Progress, PublishOrder, Size};
use datdot_hypercore::{Feed, FeedKey, Keypair};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::{Instant, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Bytes of a block of a published file.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are appended under one signature.
const BATCH: usize = 64;

impl Work {
    /// Makes a feed of a file, serves it, and has it hosted if that is wanted.
    pub async fn publish(self, order: PublishOrder, steps: Steps) -> Result<(), String> {
        look(&order.path)?;
        self.order(|reply| Order::Begin(order.clone(), reply)).await?;
        let done = self.publish_begun(&order, &steps).await;
        // What a stop interrupted goes on at the next start; of everything else whoever asked hears.
        if self.ctx.goes_on().is_ok() {
            self.order(|reply| Order::End(order, reply)).await?;
        }
        done
    }

    /// Begins again what was not done when the daemon was stopped.
    pub fn resume(&self, orders: Vec<PublishOrder>) {
        for order in orders {
            tracing::info!(target: "daemon", path = %order.path.display(), "publishing goes on after a stop");
            // Nobody listens: once the request is open the engine takes care of it.
            let (steps, _) = mpsc::channel(1);
            self.spawn(steps, |work, steps| async move {
                let (ctx, path) = (work.ctx.clone(), order.path.clone());
                let done = work.publish(order, steps).await;
                if let Err(why) = &done {
                    ctx.trouble(format!("{} is not published, as was begun before the stop: {why}", path.display()));
                }
                done
            });
        }
    }

    async fn publish_begun(&self, order: &PublishOrder, steps: &Steps) -> Result<(), String> {
        let (feed, root) = {
            let alone = self.ctx.reading.of(order.path.clone());
            let _alone = match alone.try_lock() {
                Ok(alone) => alone,
                Err(_) => {
                    say(steps, Progress::Waiting { why: "the file is being read already".into(), next: None }).await;
                    alone.lock().await
                }
            };
            let file = look(&order.path)?;
            match self.published_before(&file).await? {
                Some(found) => found,
                None => {
                    self.may_publish(&file, order).await?;
                    self.read_in(file, steps).await?
                }
            }
        };
        self.serve(&feed, steps).await;
        match order.wanted {
            Some(wanted) => self.sponsor(&feed, root, &[], wanted, Some(order.clone()), steps).await,
            None => {
                let (key, bytes) = (Key(feed.key().0), feed.info().bytes);
                say(steps, Progress::Done { key, bytes, request: None, hosted: 0, of: 0 }).await;
                Ok(())
            }
        }
    }

    /// The feed of a file that was published before and has not changed since.
    async fn published_before(&self, file: &FileState) -> Result<Option<(Feed, [u8; 32])>, String> {
        let published = self.ask(Order::Published).await?;
        Ok(published.into_iter().filter(|(_, found)| found.file == *file).find_map(|(key, found)| {
            let feed = self.ctx.store.feed(&FeedKey(key.0)).filter(|feed| feed.info().is_complete())?;
            Some((feed, found.root.0))
        }))
    }

    /// Refuses what could not be done with the feed before a long file is read for nothing.
    async fn may_publish(&self, file: &FileState, order: &PublishOrder) -> Result<(), String> {
        let room = self.ctx.room()?;
        if file.bytes > room {
            return Err(format!(
                "{} has {}, but the disk of {} has room for {}",
                file.path.display(),
                Size(file.bytes),
                self.ctx.dir.display(),
                Size(room)
            ));
        }
        if let Some(wanted) = &order.wanted {
            self.sources(&[])?;
            quote::cost(&self.ctx, file.bytes, wanted).await?.is_affordable()?;
        }
        Ok(())
    }

    /// Makes a feed of a file: all of it, or none.
    async fn read_in(&self, file: FileState, steps: &Steps) -> Result<(Feed, [u8; 32]), String> {
        let begun = Instant::now();
        let keypair = Keypair::from_seed(files::fresh());
        let key = keypair.feed_key(&keypair.manifest());
        let (ctx, told, state) = (self.ctx.clone(), steps.clone(), file.clone());
        let read = blocking(move || {
            let read = || {
                let feed = ctx.store.create(&keypair).map_err(|error| error.to_string())?;
                let goes_on = || ctx.goes_on();
                append(&feed, &state, &told, &goes_on).map_err(|error| format!("{}: {error}", state.path.display()))?;
                let root = segments::root_of(&feed, state.bytes, &goes_on).map_err(|error| error.to_string())?;
                if look(&state.path)? != state {
                    return Err(format!("{} changed while it was read: publish it again", state.path.display()));
                }
                Ok((feed, root))
            };
            let read = read();
            if read.is_err()
                && let Err(error) = ctx.store.remove(&key)
            {
                ctx.trouble(format!("what was read of {} can't be removed: {error}", state.path.display()));
            }
            read
        });
        let (feed, root) = read.await??;
        let key = Key(key.0);
        self.order(|reply| Order::Publish(key, Published { file, root: Key(root) }, reply)).await?;
        let info = feed.info();
        let millis = begun.elapsed().as_millis() as u64;
        tracing::info!(target: "daemon", feed = %key, bytes = info.bytes, millis, "published");
        self.ctx.story.tell(Event::Published { key, bytes: info.bytes, blocks: info.length, millis });
        Ok((feed, root))
    }
}

/// The file as it is now, if it can be published.
pub(crate) fn look(path: &Path) -> Result<FileState, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if !path.is_absolute() {
        return Err(format!("{} is not an absolute path", path.display()));
    }
    let file = path.metadata().map_err(failed)?;
    if !file.is_file() {
        return Err(format!("{} is not a file: only single files can be published", path.display()));
    }
    if file.len() == 0 {
        return Err(format!("{} is empty: there is nothing to publish", path.display()));
    }
    let modified = file.modified().map_err(failed)?.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64);
    Ok(FileState { path: path.to_owned(), bytes: file.len(), modified })
}

pub(super) fn append(feed: &Feed, file: &FileState, steps: &Steps, goes_on: &segments::GoesOn) -> io::Result<()> {
    let total = file.bytes;
    let mut file = File::open(&file.path)?.take(total);
    let mut read = 0;
    let mut reported = Instant::now();
    loop {
        goes_on()?;
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH {
            let mut block = Vec::with_capacity(BLOCK_BYTES);
            file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                break;
            }
            read += block.len() as u64;
            batch.push(Bytes::from(block));
        }
        if batch.is_empty() {
            break;
        }
        feed.write(&batch).map_err(io::Error::other)?;
        if reported.elapsed() >= REPORT || read == total {
            reported = Instant::now();
            _ = steps.try_send(Progress::Reading { bytes: read, total });
        }
    }
    if read == total { Ok(()) } else { Err(io::Error::other("it became shorter while it was read: publish it again")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_hypercore::Store;

    #[tokio::test]
    async fn reading_ends_when_the_daemon_stops() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, vec![7; 3 * BATCH * BLOCK_BYTES]).unwrap();
        let feed = store.create(&Keypair::from_seed([1; 32])).unwrap();
        let (steps, _heard) = mpsc::channel(64);
        let asked = std::cell::Cell::new(0);
        let goes_on = || {
            asked.set(asked.get() + 1);
            if asked.get() == 2 { Err(io::Error::other("the daemon stops")) } else { Ok(()) }
        };
        let stopped = append(&feed, &look(&path).unwrap(), &steps, &goes_on).unwrap_err();
        assert!(stopped.to_string().contains("stops"));
        assert_eq!(feed.info().length, BATCH as u64);
    }

    #[test]
    fn what_can_not_be_published_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        for (path, why) in [
            (Path::new("relative"), "absolute"),
            (dir.path(), "not a file"),
            (&empty, "empty"),
            (&dir.path().join("no"), "No such file"),
        ] {
            let error = look(path).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
