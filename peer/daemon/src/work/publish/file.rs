//! A file becomes a feed: all of it, or none.

use super::{Made, Steps, Work, blocking, is_own, too_large};
use crate::{
    engine::Order,
    files,
    journal::{FileState, Published},
    segments,
    work::{REPORT, Whole},
};
use bytes::Bytes;
use datdot_api::{Event, Key, Progress, PublishOrder};
use datdot_drive::import::leads_into;
use datdot_hypercore::{Feed, FeedKey, Keypair};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::{Instant, UNIX_EPOCH},
};

/// Bytes of a block of a published file.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are appended under one signature.
const BATCH: usize = 64;

impl Work {
    pub(super) async fn make_feed(&self, order: &PublishOrder, steps: &Steps) -> Result<Made, String> {
        let file = look(&order.path)?;
        let in_own = leads_into(&file.path, &self.ctx.own_folders());
        if in_own.map_err(|error| format!("{}: {error}", file.path.display()))? {
            return Err(is_own(&self.ctx, &file.path));
        }
        let (feed, root) = match self.published_before(&file).await? {
            Some((feed, root)) => {
                // It may have been taken back meanwhile.
                let published = Published { file, root: Key(root) };
                self.order(|reply| Order::Publish(Key(feed.key().0), published, reply)).await?;
                (feed, root)
            }
            None => {
                let room = self.ctx.room()?;
                if file.bytes > room {
                    return Err(too_large(&self.ctx, &file.path, file.bytes, room));
                }
                self.may_publish(file.bytes, order).await?;
                self.read_in(file, steps).await?
            }
        };
        Ok(Made { key: Key(feed.key().0), feeds: vec![Whole::of(&feed)?.with_root(root)] })
    }

    /// The feed of a file that was published before and has not changed since.
    async fn published_before(&self, file: &FileState) -> Result<Option<(Feed, [u8; 32])>, String> {
        let published = self.ask(Order::Published).await?;
        Ok(published.into_iter().filter(|(_, found)| found.file == *file).find_map(|(key, found)| {
            let feed = self.ctx.store.feed(&FeedKey(key.0)).filter(|feed| feed.info().is_complete())?;
            Some((feed, found.root.0))
        }))
    }

    async fn read_in(&self, file: FileState, steps: &Steps) -> Result<(Feed, [u8; 32]), String> {
        let begun = Instant::now();
        let keypair = Keypair::from_seed(files::fresh());
        let key = keypair.feed_key(&keypair.manifest());
        self.order(|reply| Order::Make(vec![Key(key.0)], reply)).await?;
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
pub(in crate::work) fn look(path: &Path) -> Result<FileState, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if !path.is_absolute() {
        return Err(format!("{} is not an absolute path", path.display()));
    }
    let file = path.metadata().map_err(failed)?;
    if !file.is_file() {
        return Err(format!("{} is neither a file nor a folder", path.display()));
    }
    if file.len() == 0 {
        return Err(format!("{} is empty: there is nothing to publish", path.display()));
    }
    let modified = file.modified().map_err(failed)?.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64);
    Ok(FileState { path: path.to_owned(), bytes: file.len(), modified })
}

pub(in crate::work) fn append(
    feed: &Feed,
    file: &FileState,
    steps: &Steps,
    goes_on: &segments::GoesOn,
) -> io::Result<()> {
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
    use tokio::sync::mpsc;

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
            (Path::new("/dev/null"), "neither a file nor a folder"),
            (&empty, "empty"),
            (&dir.path().join("no"), "No such file"),
        ] {
            let error = look(path).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
