//! Reading: a feed is fetched and becomes a file.

use super::{REPORT, Steps, Work, blocking, say};
use crate::{
    discovery::Endpoint,
    fetch::{Fetched, Wanted as Fetch},
    files,
    segments::GoesOn,
};
use datdot_api::{Event, GetOrder, Key, Progress, Size};
use datdot_hypercore::{Feed, FeedKey};
use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Instant,
};

impl Work {
    /// Reads a feed into a file.
    pub async fn get(self, order: GetOrder, steps: Steps) -> Result<(), String> {
        self.keeping(order.key, self.get_kept(&order, &steps)).await
    }

    async fn get_kept(&self, order: &GetOrder, steps: &Steps) -> Result<(), String> {
        let begun = Instant::now();
        let dir = may_write(&order.path)?;
        // The feed, and beside it the file.
        let copies = if is_one_disk(dir, &self.ctx.dir) { 2 } else { 1 };
        let feed = self.fetch(order.key, &order.from, self.ctx.room()? / copies, steps).await?.feed;
        let bytes = feed.info().bytes;
        let free = files::free_bytes(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let room = free.saturating_sub(self.ctx.spare_bytes);
        if bytes > room {
            return Err(format!("the feed has {}, but {} has room for {}", Size(bytes), dir.display(), Size(room)));
        }
        let (path, ctx) = (order.path.clone(), self.ctx.clone());
        let written = blocking(move || write_out(&feed, &path, &|| ctx.goes_on())).await?;
        written.map_err(|error| format!("{}: {error}", order.path.display()))?;
        let millis = begun.elapsed().as_millis() as u64;
        self.ctx.story.tell(Event::Read { key: order.key, bytes, millis });
        say(steps, Progress::Done { key: order.key, bytes, request: None, hosted: 0, of: 0 }).await;
        Ok(())
    }

    /// Gets a feed here, if it isn't: from where the user says, then from where the ledger says. At most `room` bytes.
    pub(super) async fn fetch(&self, key: Key, from: &[String], room: u64, steps: &Steps) -> Result<Fetched, String> {
        let feed = FeedKey(key.0);
        let mut named = Vec::new();
        for place in from {
            named.extend(resolve(place).await?);
        }
        let here = self.ctx.store.feed(&feed).filter(|feed| feed.info().is_complete());
        let endpoints = match &here {
            Some(_) => Vec::new(),
            None => self.ctx.endpoints(feed, named.clone()).await,
        };
        if here.is_none() && endpoints.is_empty() && !self.ctx.topics.is_on() {
            return Err(format!(
                "nobody is known to have feed {key}: no request on the ledger names it, and there is no swarm to look for \
                 it; give --from HOST:PORT"
            ));
        }
        let mut reported = Instant::now();
        let told = steps.clone();
        let mut progress = move |bytes: u64, total: u64, peers: usize| {
            if reported.elapsed() >= REPORT || bytes == total {
                reported = Instant::now();
                _ = told.try_send(Progress::Fetching { bytes, total, peers: peers as u32 });
            }
        };
        let result = self.ctx.fetcher.fetch(feed, &Fetch::First { room }, &endpoints, &mut progress).await;
        let mut fetched = result.map_err(|failed| failed.why.to_string())?;
        if here.is_some() {
            // Not dialled, so their keys are not known; nobody is named as a source whose key was not seen.
            fetched.reached.clear();
        }
        Ok(fetched)
    }
}

/// The folder of a file that can be written as far as one can see.
fn may_write(path: &Path) -> Result<&Path, String> {
    let dir = match path.parent() {
        Some(dir) if path.is_absolute() => dir,
        _ => return Err(format!("{} is not the absolute path of a file", path.display())),
    };
    if !dir.is_dir() {
        return Err(format!("{} is no folder: nothing can be written there", dir.display()));
    }
    if path.symlink_metadata().is_ok() {
        return Err(format!("{} exists already: give another name, or move it away", path.display()));
    }
    Ok(dir)
}

fn is_one_disk(one: &Path, other: &Path) -> bool {
    matches!((one.metadata(), other.metadata()), (Ok(one), Ok(other)) if one.dev() == other.dev())
}

/// Writes a feed's blocks, each checked against its author's tree, to a file beside `path`, then gives it that name. A file
/// that is there stays.
fn write_out(feed: &Feed, path: &Path, goes_on: &GoesOn) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("it names no file"))?;
    // As any new file: who may read it is up to the user's umask.
    let part = tempfile::Builder::new()
        .prefix(".datdot-")
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    let mut file = io::BufWriter::with_capacity(1 << 20, part.as_file());
    for block in 0..feed.info().length {
        goes_on()?;
        file.write_all(&feed.read(block).map_err(io::Error::other)?)?;
    }
    file.flush()?;
    drop(file);
    part.as_file().sync_all()?;
    part.persist_noclobber(path)?;
    Ok(())
}

/// Where HOST:PORT is.
async fn resolve(place: &str) -> Result<Vec<Endpoint>, String> {
    let failed =
        |error: io::Error| format!("{place}: {error}; a source looks like HOST:PORT, 203.0.113.7:3282 for example");
    let found = tokio::net::lookup_host(place).await.map_err(failed)?;
    Ok(found.map(|address| Endpoint { address, noise_key: None }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::publish::{BLOCK_BYTES, append, look};
    use datdot_hypercore::{Keypair, Store};
    use std::fs;
    use tokio::sync::mpsc;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_goes_into_a_feed_and_comes_out_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let (steps, _heard) = mpsc::channel(64);
        for (seed, bytes) in [(1, 1), (2, BLOCK_BYTES), (3, BLOCK_BYTES + 1), (4, 70 * BLOCK_BYTES + 5)] {
            let (path, out) = (dir.path().join("in"), dir.path().join(format!("out{seed}")));
            let content: Vec<_> = (0..bytes).map(|at| (at / 3) as u8).collect();
            fs::write(&path, &content).unwrap();
            let feed = store.create(&Keypair::from_seed([seed; 32])).unwrap();
            append(&feed, &look(&path).unwrap(), &steps, &|| Ok(())).unwrap();
            assert_eq!(feed.info().length, bytes.div_ceil(BLOCK_BYTES) as u64);
            write_out(&feed, &out, &|| Ok(())).unwrap();
            assert!(fs::read(&out).unwrap() == content, "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn nothing_of_the_user_s_is_overwritten_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let feed = store.create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["new".into()]).await.unwrap();
        let out = dir.path().join("out");
        for precious in ["out", "out.part"] {
            fs::write(dir.path().join(precious), "precious").unwrap();
        }
        assert!(may_write(&out).unwrap_err().contains("exists already"));
        assert!(write_out(&feed, &out, &|| Ok(())).is_err(), "it appeared while the feed was fetched");
        assert!(write_out(&feed, &dir.path().join("other"), &|| Err(io::Error::other("stop"))).is_err());
        fs::remove_file(&out).unwrap();
        write_out(&feed, &out, &|| Ok(())).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("out.part")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "out, out.part and store");
        assert!(may_write(&dir.path().join("no/out")).unwrap_err().contains("no folder"));
    }
}
