//! Reading: a feed is fetched and becomes a file, a drive becomes a folder.
//!
//! The order is noted until it has ended, with the feeds that it needs, so that a daemon that was stopped goes on with what
//! came. What it finds nobody for at its start it looks for again, since the network may be up later than the daemon. Whoever
//! gave an order to a running daemon hears soon that nobody is there; what came by then is kept for a day, for the same order.

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
    segments::GoesOn,
};
use datdot_api::{Event, GetOrder, Key, Progress, Size};
use datdot_drive::{
    Blob, Content, Drive, DriveError, DrivePath,
    export::{self, ExportError, Exported},
    progress::{Skipped, Why},
};
use datdot_hypercore::{Feed, FeedKey};
use datdot_roles::Trouble;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::{
    fs::Permissions,
    io::{self, Write},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;
use tokio::{sync::mpsc, time::sleep};

/// Left out paths that are named.
const MAX_NAMED: usize = 20;
/// How long after an order to read was given a start looks again and again for what nobody has.
const PATIENT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Pauses between looks for a feed that nobody has now, for who is patient: each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A file's name begins and ends so until it is whole: one that [`export::is_part`] knows, so that it is never published.
const PART_BEGINS: &str = ".datdot-";
const PART_ENDS: &str = ".part";
/// Random characters between.
const PART_RANDOM: usize = 6;

/// Why a feed is not here.
enum NotHere {
    /// Nobody who has it can be reached, now.
    Unreachable(String),
    Otherwise(String),
}

impl Work {
    /// Reads a feed into a file, or a drive into a folder.
    pub async fn get(self, order: GetOrder, steps: Steps) -> Result<(), String> {
        parent_of(&order.path)?;
        self.order(|reply| Order::Reads(order.clone(), order.key, reply)).await?;
        let done = self.keeping(order.key, self.get_begun(&order, &steps)).await;
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

    async fn get_begun(&self, order: &GetOrder, steps: &Steps) -> Result<(), String> {
        let begun = Instant::now();
        let dir = parent_of(&order.path)?;
        let inside = path_in(order.inside.as_deref())?;
        // What is fetched, and beside it what is written.
        let room = self.ctx.room()? / if is_one_disk(dir, &self.ctx.dir) { 2 } else { 1 };
        let key_file = order.encryption_key_file.as_deref();
        let bytes = match self.find_out(order.key, key_file, &order.from, room, steps).await?.subject {
            Subject::Feed(_) if inside.is_some() => return Err(no_drive(order.key)),
            Subject::Bee => return Err(no_files(order.key)),
            Subject::Feed(feed) => self.get_feed(order, &feed, room, steps).await?,
            Subject::Drive(drive) => {
                let blobs = blobs_of(&drive).await?;
                self.order(|reply| Order::Reads(order.clone(), blobs, reply)).await?;
                self.keeping(blobs, self.get_drive(order, &drive, inside, room, steps)).await?
            }
        };
        let millis = begun.elapsed().as_millis() as u64;
        self.ctx.story.tell(Event::Read { key: order.key, bytes, millis });
        say(steps, Progress::Done { key: order.key, bytes, request: None, hosted: 0, of: 0 }).await;
        Ok(())
    }

    async fn get_feed(&self, order: &GetOrder, feed: &Feed, room: u64, steps: &Steps) -> Result<u64, String> {
        may_write(&order.path)?;
        let view = view_of(feed, order.encryption_key_file.as_deref()).await?;
        self.fetch(order.key, &order.from, room, steps).await?;
        let (bytes, length) = (view.bytes(), feed.info().length);
        self.has_room(bytes, &order.path)?;
        let (path, ctx) = (order.path.clone(), self.ctx.clone());
        let blocks = move || (0..length).map(move |block| view.read(block).map_err(io::Error::other));
        let written = blocking(move || write_out(blocks(), false, &path, &|| ctx.goes_on())).await?;
        written.map_err(|error| format!("{}: {error}", order.path.display()))?;
        Ok(bytes)
    }

    async fn get_drive(
        &self,
        order: &GetOrder,
        drive: &Drive,
        inside: Option<DrivePath>,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, String> {
        let (version, path) = (drive.latest(), inside.clone());
        let found = blocking(move || {
            let single = path.as_ref().map_or(Ok(None), |path| version.entry(path))?;
            let some = single.is_some() || version.entries(path.as_ref()).next().is_some();
            Ok((single.map(|entry| entry.content), some))
        });
        match (found.await?.map_err(|error: DriveError| error.to_string())?, inside) {
            ((_, false), Some(path)) => Err(not_there(order.key, &path)),
            ((_, false), None) => Err(format!("drive {} is empty", order.key)),
            ((Some(Content::File { blob, executable }), _), Some(path)) => {
                self.get_file(order, drive, path, blob, executable, room, steps).await
            }
            ((Some(Content::Link { target }), _), Some(path)) => {
                let target = target.escape_debug();
                Err(format!("{path} is a link to {target}: ask for that, or for the folder with both"))
            }
            (_, inside) => self.get_folder(order, drive, inside, room, steps).await,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what to read, and where to")]
    async fn get_file(
        &self,
        order: &GetOrder,
        drive: &Drive,
        path: DrivePath,
        blob: Blob,
        executable: bool,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, String> {
        may_write(&order.path)?;
        self.has_room(blob.byte_length, &order.path)?;
        self.fetch_contents(drive, Some(&path), &order.from, room, steps).await?;
        // What the entry says of a deduplicated file is only a claim; by now the list of its blocks is here.
        let (version, at) = (drive.latest(), path.clone());
        let bytes = blocking(move || version.layout(&at, &blob).map(|layout| layout.bytes()));
        self.has_room(bytes.await?.map_err(|error: DriveError| error.to_string())?, &order.path)?;
        let (version, to, ctx) = (drive.latest(), order.path.clone(), self.ctx.clone());
        let written = blocking(move || {
            let blocks = version.read(&path, &blob).map_err(io::Error::other)?;
            write_out(blocks.map(|block| block.map_err(io::Error::other)), executable, &to, &|| ctx.goes_on())
        });
        written.await?.map_err(|error| format!("{}: {error}", order.path.display()))
    }

    async fn get_folder(
        &self,
        order: &GetOrder,
        drive: &Drive,
        inside: Option<DrivePath>,
        room: u64,
        steps: &Steps,
    ) -> Result<u64, String> {
        if order.path.symlink_metadata().is_ok() && !order.path.is_dir() {
            return Err(format!("{} is not a folder: give another name, or move it away", order.path.display()));
        }
        self.fetch_contents(drive, inside.as_ref(), &order.from, room, steps).await?;
        let max_bytes = self.room_at(&order.path)?;
        let options = export::Options { folder: inside, max_bytes, replace: order.replace };
        let (version, to, ctx) = (drive.latest(), order.path.clone(), self.ctx.clone());
        let written = blocking(move || {
            let mut listener =
                |_| if ctx.goes_on().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            export::export(&version, &to, &options, &mut listener)
        });
        let exported = written.await?.map_err(|error| match error {
            ExportError::Stopped => "the daemon stops".into(),
            ExportError::TooLarge { bytes, max } => no_room(bytes, &order.path, max),
            ExportError::InUse { path } => format!("{} is being written by another get: wait for that", path.display()),
            error => error.to_string(),
        })?;
        tell_skipped(&exported.skipped, steps).await;
        let Exported { written, unchanged, bytes, unchanged_bytes, skipped } = exported;
        say(steps, Progress::Exported { written, unchanged }).await;
        is_complete(&skipped, &order.path)?;
        Ok(bytes.saturating_add(unchanged_bytes))
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
        match self.ctx.store.feed(&FeedKey(key.0)).map_or(0, |feed| feed.info().bytes_here) {
            0 => Err(why),
            came => {
                self.order(|reply| Order::Keep(key, reply)).await?;
                let came = Size(came);
                Err(format!("{why}; {came} of it are kept here for a day: the same command goes on with them"))
            }
        }
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
        result.map_err(|failed| match failed.why {
            why @ Trouble::Unreachable(_) => NotHere::Unreachable(why.to_string()),
            why => NotHere::Otherwise(why.to_string()),
        })
    }
}

/// Whether nothing has to be fetched, as far as one can see without asking anybody.
fn is_here(feed: &Feed, wanted: &Fetch) -> bool {
    match wanted {
        Fetch::Kind { .. } => feed.missing_in(0..1) == 0,
        Fetch::Runs { runs, .. } => runs.iter().all(|run| feed.missing_in(run.clone()) == 0),
        _ => feed.info().is_complete(),
    }
}

pub(super) async fn tell_skipped(skipped: &[Skipped], steps: &Steps) {
    for left_out in skipped.iter().take(MAX_NAMED) {
        let name = left_out.name.escape_debug().to_string();
        say(steps, Progress::Skipped { name, why: left_out.why.to_string() }).await;
    }
    if let Some(more) = skipped.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
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

/// Refuses a file that can't be written as far as one can see.
fn may_write(path: &Path) -> Result<(), String> {
    parent_of(path)?;
    if path.symlink_metadata().is_ok() {
        return Err(format!("{} exists already: give another name, or move it away", path.display()));
    }
    Ok(())
}

fn is_one_disk(one: &Path, other: &Path) -> bool {
    matches!((one.metadata(), other.metadata()), (Ok(one), Ok(other)) if one.dev() == other.dev())
}

/// Writes blocks, each checked against its author's tree, to a file beside `path`, then gives it that name. A file that is there
/// stays. Returns the bytes.
fn write_out<Block: AsRef<[u8]>>(
    blocks: impl Iterator<Item = io::Result<Block>>,
    executable: bool,
    path: &Path,
    goes_on: &GoesOn,
) -> io::Result<u64> {
    let dir = path.parent().ok_or_else(|| io::Error::other("it names no file"))?;
    remove_leftovers(dir);
    let part = begin_part(dir, executable)?;
    let mut file = io::BufWriter::with_capacity(1 << 20, part.as_file());
    let mut bytes = 0;
    for block in blocks {
        goes_on()?;
        let block = block?;
        file.write_all(block.as_ref())?;
        bytes += block.as_ref().len() as u64;
    }
    file.flush()?;
    drop(file);
    part.as_file().sync_all()?;
    part.persist_noclobber(path)?;
    Ok(bytes)
}

/// A file for what is not whole yet, locked as long as somebody writes to it.
fn begin_part(dir: &Path, executable: bool) -> io::Result<NamedTempFile> {
    loop {
        let part = tempfile::Builder::new()
            .prefix(PART_BEGINS)
            .rand_bytes(PART_RANDOM)
            .suffix(PART_ENDS)
            // As any new file: who may read it is up to the user's umask.
            .permissions(Permissions::from_mode(if executable { 0o777 } else { 0o666 }))
            .tempfile_in(dir)?;
        // Where files can't be locked nobody takes it for one that is left over.
        _ = flock(part.as_file(), FlockOperation::LockExclusive);
        // Before it was locked it may have been taken for one.
        if part.path().try_exists()? {
            return Ok(part);
        }
    }
}

/// Removes what daemons that were killed had written of files: it could only be done anew, and nobody would miss it.
fn remove_leftovers(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let is_part = |name: &str| {
            let random = name.strip_prefix(PART_BEGINS).and_then(|rest| rest.strip_suffix(PART_ENDS));
            random.is_some_and(|random| random.len() == PART_RANDOM)
        };
        let (path, is_file) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_file()));
        if !is_file || !entry.file_name().to_str().is_some_and(is_part) {
            continue;
        }
        // Somebody else's can't be written to.
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            _ = std::fs::remove_file(&path);
        }
    }
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
    use crate::work::publish::file::{BLOCK_BYTES, append, look};
    use datdot_hypercore::{Keypair, Store};
    use std::fs;
    use tokio::sync::mpsc;

    fn write_out(feed: &Feed, path: &Path, goes_on: &GoesOn) -> io::Result<u64> {
        let blocks = (0..feed.info().length).map(|block| feed.read(block).map_err(io::Error::other));
        super::write_out(blocks, false, path, goes_on)
    }

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

    #[tokio::test]
    async fn what_a_killed_daemon_left_goes_and_what_another_get_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let feed = store.create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["new".into()]).await.unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let written = begin_part(&to, false).unwrap();
        for name in ["precious", ".datdot-notes.part", ".datdot-Ab12yz.part", ".datdot-.part"] {
            fs::write(to.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("precious", to.join(".datdot-link12.part")).unwrap();
        write_out(&feed, &to.join("out"), &|| Ok(())).unwrap();
        assert!(written.path().exists() && !to.join(".datdot-Ab12yz.part").exists());
        for name in ["precious", ".datdot-notes.part", ".datdot-.part", ".datdot-link12.part", "out"] {
            assert!(fs::symlink_metadata(to.join(name)).is_ok(), "{name}");
        }
        let name = written.path().file_name().unwrap().to_str().unwrap();
        assert!(export::is_part(name), "{name} would be published");
        let path = written.into_temp_path().keep().unwrap();
        remove_leftovers(&to);
        assert!(!path.exists(), "nobody writes to it any more");
    }

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
