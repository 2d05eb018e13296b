//! Reading: a feed is fetched and becomes a file, a drive becomes a folder.
//!
//! The order is noted until it has ended, with the feeds that it needs, so that a daemon that was stopped goes on with what
//! came. What it finds nobody for at its start it looks for again, since the network may be up later than the daemon. Whoever
//! gave an order to a running daemon hears soon that nobody is there; what came by then is kept for a day, for the same order. So it is
//! if what came can't be written.

mod part;

use super::{
    REPORT, Steps, Work, blobs_of, blocking, say,
    subject::{Subject, no_drive, no_files, not_there, path_in, view_of},
};
use crate::{
    discovery::Endpoint,
    engine::Order,
    fetch::{Fetched, Wanted as Fetch},
    files,
    journal::millis_now,
};
use datdot_api::{Event, GetOrder, Key, Progress, Size};
use datdot_drive::{
    Blob, Content, DriveError, DrivePath, Version,
    export::{self, ExportError, Exported, Outlook},
    fetch::Round,
    progress::{Listener, Skipped, Why},
};
use datdot_hypercore::{Feed, FeedKey};
use datdot_roles::Trouble;
use part::{may_write, remove_leftovers, write_out};
use std::{
    collections::BTreeSet,
    io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};

/// Left out paths that are named.
const MAX_NAMED: usize = 20;
/// How long after an order to read was given a start looks again and again for what nobody has.
const PATIENT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Pauses between looks for a feed that nobody has now, for who is patient: each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Why a feed is not here.
enum NotHere {
    /// Nobody who has it can be reached, now.
    Unreachable(String),
    Otherwise(String),
}

/// Why something is not read, or not all of it.
enum NotRead {
    /// It can't be where it is to be, which the user can mend: nothing has to come twice for that.
    NotWritten(String),
    Otherwise(String),
}

impl From<String> for NotRead {
    fn from(why: String) -> Self {
        NotRead::Otherwise(why)
    }
}

impl NotRead {
    /// What came is not kept on a disk that is full.
    fn unless_full(error: &io::Error, why: String) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotRead::Otherwise(why),
            _ => NotRead::NotWritten(why),
        }
    }
}

impl Work {
    /// Reads a feed into a file, or a drive into a folder.
    pub async fn get(self, order: GetOrder, steps: Steps) -> Result<(), String> {
        // Whatever is wrong with it is found behind the note, which goes when it has failed.
        self.order(|reply| Order::Reads(order.clone(), order.key, reply)).await?;
        let done = match self.keeping(order.key, self.get_begun(&order, &steps)).await {
            Ok(()) => Ok(()),
            Err(NotRead::NotWritten(why)) => Err(self.keep(order.key, why).await?),
            Err(NotRead::Otherwise(why)) => Err(why),
        };
        // What a stop interrupted goes on at the next start.
        if self.ctx.goes_on().is_ok() {
            let whole = done.is_ok();
            self.order(|reply| Order::HasRead { order, whole, reply }).await?;
        }
        done
    }

    /// Begins again what was not done when the daemon was stopped.
    pub fn resume_readings(&self, orders: Vec<(GetOrder, u64)>) {
        for (order, since) in orders {
            tracing::info!(target: "daemon", path = %order.path.display(), "reading goes on after a stop");
            let (steps, _) = mpsc::channel(1);
            // Nobody waits who could give it again.
            let patience = PATIENT.saturating_sub(Duration::from_millis(millis_now().saturating_sub(since)));
            let patient = Work { patience, ..self.clone() };
            patient.spawn(steps, |work, steps| async move {
                let (ctx, path) = (work.ctx.clone(), order.path.clone());
                let done = work.get(order, steps).await;
                if let Err(why) = &done {
                    ctx.trouble(format!("{} is not read, as was begun before the stop: {why}", path.display()));
                }
                done
            });
        }
    }

    async fn get_begun(&self, order: &GetOrder, steps: &Steps) -> Result<(), NotRead> {
        let begun = Instant::now();
        let dir = parent_of(&order.path).map_err(NotRead::NotWritten)?;
        let inside = path_in(order.inside.as_deref())?;
        // What is fetched, and beside it what is written.
        let room = self.ctx.room()? / if is_one_disk(dir, &self.ctx.dir) { 2 } else { 1 };
        let key_file = order.encryption_key_file.as_deref();
        let bytes = match self.find_out(order.key, key_file, &order.from, room, steps).await?.subject {
            Subject::Feed(_) if inside.is_some() => return Err(no_drive(order.key).into()),
            Subject::Bee(_) => return Err(no_files(order.key).into()),
            Subject::Feed(feed) => self.get_feed(order, &feed, room, steps).await?,
            Subject::Drive(version) => {
                let blobs = blobs_of(&version).await?;
                self.order(|reply| Order::Reads(order.clone(), blobs, reply)).await?;
                self.keeping(blobs, self.get_drive(order, &version, inside, room, steps)).await?
            }
        };
        let millis = begun.elapsed().as_millis() as u64;
        self.ctx.story.tell(Event::Read { key: order.key, bytes, millis });
        say(steps, Progress::Done { key: order.key, bytes, request: None, hosted: 0, of: 0 }).await;
        Ok(())
    }

    async fn get_feed(&self, order: &GetOrder, feed: &Feed, room: u64, steps: &Steps) -> Result<u64, NotRead> {
        may_write(&order.path).map_err(NotRead::NotWritten)?;
        let view = view_of(feed, order.encryption_key_file.as_deref()).await?;
        self.fetch(order.key, &order.from, room, steps).await?;
        let (bytes, length) = (view.bytes(), feed.info().length);
        self.has_room(bytes, &order.path)?;
        let (path, ctx) = (order.path.clone(), self.ctx.clone());
        let blocks = move || (0..length).map(move |block| view.read(block).map_err(io::Error::other));
        let written = blocking(move || write_out(blocks(), false, &path, &|| ctx.goes_on())).await?;
        written.map_err(|error| not_written(error, &order.path))?;
        Ok(bytes)
    }

    async fn get_drive(
        &self,
        order: &GetOrder,
        version: &Arc<Version>,
        inside: Option<DrivePath>,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, NotRead> {
        let (at, path) = (version.clone(), inside.clone());
        let found = blocking(move || {
            let single = path.as_ref().map_or(Ok(None), |path| at.entry(path))?;
            let some = single.is_some() || at.entries(path.as_ref()).next().is_some();
            Ok((single.map(|entry| entry.content), some))
        });
        match (found.await?.map_err(|error: DriveError| error.to_string())?, inside) {
            ((_, false), Some(path)) => Err(not_there(order.key, &path).into()),
            ((_, false), None) => Err(format!("drive {} is empty", order.key).into()),
            ((Some(Content::File { blob, executable }), _), Some(path)) => {
                self.get_file(order, version, path, blob, executable, room, steps).await
            }
            ((Some(Content::Link { target }), _), Some(path)) => {
                let target = target.escape_debug();
                Err(format!("{path} is a link to {target}: ask for that, or for the folder with both").into())
            }
            (_, inside) => self.get_folder(order, version, inside, room, steps).await,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what to read, and where to")]
    async fn get_file(
        &self,
        order: &GetOrder,
        version: &Arc<Version>,
        path: DrivePath,
        blob: Blob,
        executable: bool,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, NotRead> {
        may_write(&order.path).map_err(NotRead::NotWritten)?;
        self.has_room(blob.byte_length, &order.path)?;
        self.fetch_round(version, Some(&path), Round::Maps, &order.from, room, steps).await?;
        // What the entry says of a deduplicated file is only a claim; by now the list of its blocks is here.
        let (looked, at) = (version.clone(), path.clone());
        let bytes = blocking(move || looked.layout(&at, &blob).map(|layout| layout.bytes()));
        self.has_room(bytes.await?.map_err(|error: DriveError| error.to_string())?, &order.path)?;
        self.fetch_round(version, Some(&path), Round::Contents, &order.from, room, steps).await?;
        let (version, to, ctx) = (version.clone(), order.path.clone(), self.ctx.clone());
        let written = blocking(move || {
            let blocks = version.read(&path, &blob).map_err(io::Error::other)?;
            write_out(blocks.map(|block| block.map_err(io::Error::other)), executable, &to, &|| ctx.goes_on())
        });
        written.await?.map_err(|error| not_written(error, &order.path))
    }

    async fn get_folder(
        &self,
        order: &GetOrder,
        version: &Arc<Version>,
        inside: Option<DrivePath>,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, NotRead> {
        if order.path.symlink_metadata().is_ok() && !order.path.is_dir() {
            let why = format!("{} is not a folder: give another name, or move it away", order.path.display());
            return Err(NotRead::NotWritten(why));
        }
        self.fetch_round(version, inside.as_ref(), Round::Maps, &order.from, room, steps).await?;
        // What is wrong with the target as far as one can see is said before hours of fetching.
        let Outlook { bytes, others } = self.at_folder(order, version, &inside, export::look).await?;
        let max = self.room_at(&order.path)?;
        if bytes > max {
            return Err(no_room(bytes, &order.path, max).into());
        }
        tell_skipped(&others, steps).await;
        self.fetch_round(version, inside.as_ref(), Round::Contents, &order.from, room, steps).await?;
        let exported = self.at_folder(order, version, &inside, export::export).await?;
        let Exported { written, unchanged, bytes, unchanged_bytes, skipped } = exported;
        let told: BTreeSet<_> = others.into_iter().map(|other| other.name).collect();
        let (_, news): (Vec<_>, Vec<_>) = skipped.iter().partition(|skipped| told.contains(&skipped.name));
        tell_skipped(news, steps).await;
        say(steps, Progress::Exported { written, unchanged }).await;
        is_complete(&skipped, &order.path).map_err(|why| {
            let is_mendable = skipped.iter().any(|skipped| matches!(skipped.why, Why::Other | Why::InTheWay(_)));
            if is_mendable { NotRead::NotWritten(why) } else { NotRead::Otherwise(why) }
        })?;
        Ok(bytes.saturating_add(unchanged_bytes))
    }

    /// Does something about the folder that is to be written.
    async fn at_folder<T: Send + 'static>(
        &self,
        order: &GetOrder,
        version: &Arc<Version>,
        inside: &Option<DrivePath>,
        act: impl for<'a> FnOnce(&Version, &Path, &export::Options, &'a mut Listener<'a>) -> Result<T, ExportError>
        + Send
        + 'static,
    ) -> Result<T, NotRead> {
        let max_bytes = self.room_at(&order.path)?;
        let options = export::Options { folder: inside.clone(), max_bytes, replace: order.replace };
        let (version, to, ctx) = (version.clone(), order.path.clone(), self.ctx.clone());
        let done = blocking(move || {
            let mut listener =
                |_| if ctx.goes_on().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            act(&version, &to, &options, &mut listener)
        });
        done.await?.map_err(|error| match error {
            ExportError::Stopped => NotRead::Otherwise("the daemon stops".into()),
            ExportError::TooLarge { bytes, max } => no_room(bytes, &order.path, max).into(),
            ExportError::InUse { path } => {
                NotRead::NotWritten(format!("{} is being written by another get: wait for that", path.display()))
            }
            ExportError::Write { ref source, .. } => NotRead::unless_full(source, error.to_string()),
            error => NotRead::NotWritten(error.to_string()),
        })
    }

    fn room_at(&self, path: &Path) -> Result<u64, String> {
        let dir = parent_of(path)?;
        let free = files::free_bytes(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(free.saturating_sub(self.ctx.spare_bytes))
    }

    fn has_room(&self, bytes: u64, path: &Path) -> Result<(), String> {
        let mut room = self.room_at(path)?;
        if bytes > room {
            // It may be taken by what a daemon that was killed left there.
            remove_leftovers(parent_of(path)?);
            room = self.room_at(path)?;
        }
        if bytes > room { Err(no_room(bytes, path, room)) } else { Ok(()) }
    }

    /// Gets a feed here as long as it is known to be, if it isn't: from where the user says, then from where the ledger says. At
    /// most `room` bytes.
    pub(super) async fn fetch(&self, key: Key, from: &[String], room: u64, steps: &Steps) -> Result<Fetched, String> {
        self.fetch_as(key, Fetch::First { room }, from, steps).await
    }

    /// Gets what is wanted of a feed here, as far as it isn't. If nobody has it, what came stays for whoever wants it again soon.
    pub(super) async fn fetch_as(
        &self,
        key: Key,
        wanted: Fetch,
        from: &[String],
        steps: &Steps,
    ) -> Result<Fetched, String> {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        let why = loop {
            match self.fetch_once(key, &wanted, from, steps).await {
                Ok(fetched) => return Ok(fetched),
                Err(NotHere::Otherwise(why)) => return Err(why),
                Err(NotHere::Unreachable(why)) if begun.elapsed() + pause > self.patience => break why,
                Err(NotHere::Unreachable(why)) => {
                    tracing::info!(target: "daemon", feed = %FeedKey(key.0), ?pause, "looked for again later: {why}");
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        };
        Err(self.keep(key, why).await?)
    }

    /// Keeps what came of a feed, and of those that are read with it, for whoever wants it again soon; adds that to why it ended.
    async fn keep(&self, key: Key, why: String) -> Result<String, String> {
        let info = |key: &Key| self.ctx.store.feed(&FeedKey(key.0)).map(|feed| feed.info());
        // What we wrote stays anyway.
        if info(&key).is_none_or(|info| info.writable || info.bytes_here == 0) {
            return Ok(why);
        }
        let kept = self.order(|reply| Order::Keep(key, reply)).await?;
        let came = Size(kept.iter().filter_map(info).map(|info| info.bytes_here).sum());
        Ok(format!("{why}; {came} of it are kept here for a day: the same command goes on with them"))
    }

    async fn fetch_once(&self, key: Key, wanted: &Fetch, from: &[String], steps: &Steps) -> Result<Fetched, NotHere> {
        let feed = FeedKey(key.0);
        let mut named = Vec::new();
        for place in from {
            named.extend(resolve(place).await.map_err(NotHere::Unreachable)?);
        }
        let known = self.ctx.store.feed(&feed);
        let here = known.as_ref().is_some_and(|feed| is_here(feed, wanted));
        // Nobody knows more of a feed than who writes it.
        let asks = match wanted {
            Fetch::Kind { .. } => known.is_none_or(|feed| !feed.info().writable),
            _ => !here,
        };
        let endpoints = if asks { self.ctx.endpoints(feed, named).await } else { Vec::new() };
        if !here && endpoints.is_empty() && !self.ctx.topics.is_on() {
            return Err(NotHere::Unreachable(format!(
                "nobody is known to have feed {key}: no request on the ledger names it, and there is no swarm to look for \
                 it; give --from HOST:PORT"
            )));
        }
        let mut reported = Instant::now();
        let told = steps.clone();
        let mut progress = move |bytes: u64, total: u64, peers: usize| {
            if reported.elapsed() >= REPORT || bytes == total {
                reported = Instant::now();
                _ = told.try_send(Progress::Fetching { bytes, total, peers: peers as u32 });
            }
        };
        let result = self.ctx.fetcher.fetch(feed, wanted, &endpoints, &mut progress).await;
        let fetched = result.map_err(|failed| match failed.why {
            why @ Trouble::Unreachable(_) => NotHere::Unreachable(why.to_string()),
            why => NotHere::Otherwise(why.to_string()),
        })?;
        if matches!(wanted, Fetch::Runs { .. }) && !is_here(&fetched.feed, wanted) {
            // Hosters have the metadata of a new version before its contents.
            return Err(NotHere::Unreachable(format!(
                "the drive names contents that nobody who was reached has: they hold {} blocks of them, and its newest version \
                 goes on behind. Give the same command again once its author or a hoster of that version can be reached",
                fetched.feed.info().length
            )));
        }
        Ok(fetched)
    }
}

fn not_written(error: io::Error, path: &Path) -> NotRead {
    NotRead::unless_full(&error, format!("{}: {error}", path.display()))
}

/// Whether nothing has to be fetched, as far as one can see without asking anybody.
fn is_here(feed: &Feed, wanted: &Fetch) -> bool {
    match wanted {
        Fetch::Kind { .. } => feed.missing_in(0..1) == 0,
        Fetch::Runs { runs, .. } => runs.iter().all(|run| feed.missing_in(run.clone()) == 0),
        _ => feed.info().is_complete(),
    }
}

pub(super) async fn tell_skipped<'a>(skipped: impl IntoIterator<Item = &'a Skipped>, steps: &Steps) {
    let mut skipped = skipped.into_iter();
    for left_out in skipped.by_ref().take(MAX_NAMED) {
        let name = left_out.name.escape_debug().to_string();
        say(steps, Progress::Skipped { name, why: left_out.why.to_string() }).await;
    }
    let more = skipped.count();
    if more > 0 {
        say(steps, Progress::Skipped { name: format!("{more} more"), why: "for such reasons".into() }).await;
    }
}

/// Refuses to call a folder done that lacks files of the drive. Links that lead out of the drive are none.
fn is_complete(skipped: &[Skipped], path: &Path) -> Result<(), String> {
    let (mut others, mut in_the_way, mut unusable) = (0, 0, 0);
    for skipped in skipped {
        match skipped.why {
            Why::Other => others += 1,
            Why::InTheWay(_) => in_the_way += 1,
            Why::Entry(_) | Why::Reserved => unusable += 1,
            Why::Name(_) | Why::Special | Why::Own | Why::Outside { .. } => {}
        }
    }
    let path = path.display();
    let mut whys = Vec::new();
    if others > 0 {
        whys.push(format!(
            "{others} of the drive's files are others in {path} and were left as they are: move them away, or have them \
             replaced with --replace"
        ));
    }
    if in_the_way > 0 {
        whys.push(format!(
            "{in_the_way} of the drive's files can't be written in {path}: move away what is in their place, or choose a \
             folder on a disk that can have such names"
        ));
    }
    if unusable > 0 {
        whys.push(format!(
            "{unusable} of the drive's files are not such as can be written, which only its author can mend: everything \
             else is in {path}"
        ));
    }
    if whys.is_empty() { Ok(()) } else { Err(whys.join("; ")) }
}

fn no_room(bytes: u64, path: &Path, room: u64) -> String {
    format!("{} are to be written, but there is room for {} at {}", Size(bytes), Size(room), path.display())
}

/// The folder in which something is to be written.
fn parent_of(path: &Path) -> Result<&Path, String> {
    let dir = match path.parent() {
        Some(dir) if path.is_absolute() => dir,
        _ => return Err(format!("{} is not the absolute path of a file or folder", path.display())),
    };
    if !dir.is_dir() {
        return Err(format!("{} is no folder: nothing can be written there", dir.display()));
    }
    Ok(dir)
}

fn is_one_disk(one: &Path, other: &Path) -> bool {
    matches!((one.metadata(), other.metadata()), (Ok(one), Ok(other)) if one.dev() == other.dev())
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

    #[test]
    fn a_folder_that_lacks_files_is_not_done_and_it_is_said_what_to_do() {
        let entry = |why| Skipped { name: "name".into(), why };
        let link = || entry(Why::Outside { target: "/etc".into() });
        assert_eq!(is_complete(&[link()], Path::new("/to")), Ok(()));
        for (why, word) in [
            (Why::Other, "--replace"),
            (Why::InTheWay(io::ErrorKind::IsADirectory.into()), "move away"),
            (Why::Entry("its place is beyond the end".into()), "author"),
            (Why::Reserved, "author"),
        ] {
            let why = is_complete(&[entry(why), link()], Path::new("/to")).unwrap_err();
            assert!(why.starts_with("1 of the drive's files") && why.contains("/to") && why.contains(word), "{why}");
        }
        let both = is_complete(&[entry(Why::Other), entry(Why::Reserved)], Path::new("/to")).unwrap_err();
        assert!(both.contains("--replace") && both.contains("author"), "{both}");
    }
}
