//! What the API is asked for that takes a while: publishing, sponsoring, following, reading.
//!
//! Each runs in a task of its own and reports its steps; who asked may go away meanwhile, the work goes on.

use crate::{
    context::Context,
    discovery::Endpoint,
    engine::{Msg, Order},
    fetch::{Fetched, Wanted as Fetch},
    files,
    journal::Published,
    quote, segments, tell,
};
use bytes::Bytes;
use datdot_api::{Amount, GetOrder, Key, Progress, PublishOrder, RequestOrder, Wanted};
use datdot_hypercore::{Feed, FeedKey, Keypair};
use datdot_market::{
    MAX_SOURCES, RequestId,
    terms::{self, Source, Sources, Terms},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// Bytes of a block of a published file.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are appended under one signature.
const BATCH: usize = 64;
/// How often reading and fetching report how far they are.
const REPORT: Duration = Duration::from_millis(200);

/// What somebody who asked hears.
pub(crate) type Steps = mpsc::Sender<Progress>;

/// Does what takes a while.
#[derive(Clone)]
pub(crate) struct Work {
    pub ctx: Arc<Context>,
    pub engine: mpsc::Sender<Msg>,
    pub jobs: Jobs,
}

/// The jobs of a daemon; they end with it.
#[derive(Clone)]
pub(crate) struct Jobs(Arc<Mutex<Option<JoinSet<()>>>>);

impl Jobs {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }

    fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        if let Some(jobs) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            while jobs.try_join_next().is_some() {}
            jobs.spawn(job);
        }
    }

    /// Takes no more jobs; those that run end when what is returned is dropped.
    pub fn close(&self) -> Option<JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Work {
    /// Runs a job on its own, and tells its end.
    pub fn spawn<F>(&self, steps: Steps, job: impl FnOnce(Work, Steps) -> F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let job = job(self.clone(), steps.clone());
        self.jobs.spawn(async move {
            if let Err(error) = job.await {
                tracing::info!(target: "daemon", "failed: {error}");
                say(&steps, Progress::Failed { error }).await;
            }
        });
    }

    /// Makes a feed of a file, serves it, and has it hosted if that is wanted.
    pub async fn publish(self, order: PublishOrder, steps: Steps) -> Result<(), String> {
        let file = look(&order.path)?;
        let wished = Published { wish: order.wanted, ..file.clone() };
        let (key, feed, root) = match self.published_before(&file).await? {
            Some(found) => found,
            None => self.append(wished.clone(), &steps).await?,
        };
        self.serve(key, &feed, &steps).await?;
        let Some(wanted) = order.wanted else {
            say(&steps, Progress::Done { key, bytes: feed.info().bytes, request: None }).await;
            return Ok(());
        };
        // From here on a crash loses nothing: a start goes on with the wish, then with the request.
        let wished = Published { root: Some(Key(root)), ..wished };
        self.order(|reply| Order::Publish(key, wished.clone(), reply)).await?;
        let sponsored = self.sponsor(&feed, root, &[], wanted, &steps).await;
        if sponsored.is_err() {
            // Whoever asked hears why; a start must not try it again by itself.
            self.order(|reply| Order::Publish(key, Published { wish: None, ..wished }, reply)).await?;
        }
        sponsored
    }

    /// Goes on with what was to be hosted when the daemon was stopped before it could ask the ledger.
    pub async fn resume(self) {
        for (key, wanted) in self.ask(Order::Wishes).await.unwrap_or_default() {
            let (steps, mut heard) = mpsc::channel(64);
            self.spawn(steps, |work, steps| async move {
                let published = work.ask(Order::Published).await?;
                let feed = work.ctx.store.feed(&FeedKey(key.0)).ok_or("the feed is gone")?;
                let root = published.get(&key).and_then(|file| file.root).ok_or("the feed is not whole")?;
                work.sponsor(&feed, root.0, &[], wanted, &steps).await
            });
            let story = self.clone();
            self.jobs.spawn(async move {
                while let Some(step) = heard.recv().await {
                    match step {
                        Progress::Failed { error } => story.ctx.story.tell(datdot_api::Event::Trouble { what: error }),
                        // From here on the engine takes care of it.
                        Progress::Opened { .. } => return,
                        _ => {}
                    }
                }
            });
        }
    }

    /// Fetches a feed if it isn't here, serves it, and has it hosted.
    pub async fn request(self, order: RequestOrder, steps: Steps) -> Result<(), String> {
        self.pin(order.key, true).await?;
        let result = self.request_pinned(&order, &steps).await;
        // If it is sponsored now, the journal keeps it.
        self.pin(order.key, false).await?;
        result
    }

    async fn request_pinned(&self, order: &RequestOrder, steps: &Steps) -> Result<(), String> {
        let fetched = self.fetch(order.key, &order.from, steps).await?;
        let feed = fetched.feed;
        let bytes = feed.info().bytes;
        let hashed = feed.clone();
        let root = blocking(move || segments::root_of(&hashed, bytes)).await?.map_err(|error| error.to_string())?;
        self.serve(order.key, &feed, steps).await?;
        self.sponsor(&feed, root, &fetched.reached, order.wanted, steps).await
    }

    /// Reads a feed into a file.
    pub async fn get(self, order: GetOrder, steps: Steps) -> Result<(), String> {
        self.pin(order.key, true).await?;
        let result = self.get_pinned(&order, &steps).await;
        self.pin(order.key, false).await?;
        result
    }

    async fn get_pinned(&self, order: &GetOrder, steps: &Steps) -> Result<(), String> {
        let begun = Instant::now();
        if !order.path.is_absolute() {
            return Err(format!("{} is not an absolute path", order.path.display()));
        }
        let feed = self.fetch(order.key, &order.from, steps).await?.feed;
        let bytes = feed.info().bytes;
        let path = order.path.clone();
        let written = blocking(move || write_out(&feed, &path)).await?;
        written.map_err(|error| format!("{}: {error}", order.path.display()))?;
        let event = datdot_api::Event::Read { key: order.key, bytes, millis: begun.elapsed().as_millis() as u64 };
        self.ctx.story.tell(event);
        say(steps, Progress::Done { key: order.key, bytes, request: None }).await;
        Ok(())
    }

    /// Follows a request until it is hosted as often as it asks for, or can't be.
    pub async fn follow(self, request: RequestId, steps: Steps) -> Result<(), String> {
        let mut view = self.ctx.view.subscribe();
        let mut said = None;
        let mut missing_since = None;
        loop {
            let now = view.borrow_and_update().clone();
            let found = now.iter().flat_map(|view| &view.requests).find(|found| found.id == request);
            if let Some(found) = found {
                missing_since = None;
                let (hosted, coming, of) = (tell::hosted(found), tell::coming(found), found.request.terms.replicas);
                let key = Key(found.keys.first().copied().unwrap_or_default());
                if hosted >= of {
                    say(&steps, Progress::Hosted { hosted, coming, of }).await;
                    say(&steps, Progress::Done { key, bytes: found.request.bytes(), request: Some(request) }).await;
                    return Ok(());
                }
                if let Some(closing) = found.request.closing {
                    return Err(format!("request {request} takes no more hosters: {}", closed(closing)));
                }
                let waiting = found.request.waiting;
                let step = (hosted, coming, waiting.map(|waiting| (waiting.why, waiting.next)));
                if said != Some(step) {
                    said = Some(step);
                    say(&steps, Progress::Hosted { hosted, coming, of }).await;
                    if let Some(waiting) = waiting {
                        let why = tell::why_waiting(waiting.why).into();
                        say(&steps, Progress::Waiting { why, next: Some(waiting.next) }).await;
                    }
                }
            } else if let Some(view) = &now {
                // A reorganisation may hide it for a moment.
                let since = *missing_since.get_or_insert(view.at);
                if view.at.saturating_sub(since) > 5 {
                    return Err(format!("there is no request {request} of this account: it is over, or never was"));
                }
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return Err("the daemon stops".into()) },
                // Nobody listens any more; whatever is left to be done the engine does.
                () = steps.closed() => return Ok(()),
            }
        }
    }

    /// The feed of a file that was published before and has not changed since.
    async fn published_before(&self, file: &Published) -> Result<Option<(Key, Feed, [u8; 32])>, String> {
        let published = self.ask(Order::Published).await?;
        Ok(published.into_iter().find_map(|(key, found)| {
            let root = found.root?;
            let same = Published { root: None, wish: None, ..found } == *file;
            let feed = self.ctx.store.feed(&FeedKey(key.0)).filter(|feed| same && feed.info().is_complete())?;
            Some((key, feed, root.0))
        }))
    }

    async fn append(&self, file: Published, steps: &Steps) -> Result<(Key, Feed, [u8; 32]), String> {
        let begun = Instant::now();
        let free = files::free_bytes(&self.ctx.dir).map_err(|error| error.to_string())?;
        let room = free.saturating_sub(self.ctx.spare_bytes);
        if file.bytes > room {
            return Err(format!(
                "{} has {} bytes, but the disk of {} has room for {room}",
                file.path.display(),
                file.bytes,
                self.ctx.dir.display()
            ));
        }
        let keypair = Keypair::from_seed(files::fresh());
        let key = Key(keypair.feed_key(&keypair.manifest()).0);
        // Noted first: what a crash leaves behind is found and removed.
        self.order(|reply| Order::Publish(key, file.clone(), reply)).await?;
        let (store, path, total) = (self.ctx.store.clone(), file.path.clone(), file.bytes);
        let told = steps.clone();
        let appended = blocking(move || {
            let feed = store.create(&keypair).map_err(|error| error.to_string())?;
            append(&feed, &path, total, &told).map_err(|error| format!("{}: {error}", path.display()))?;
            let root = segments::root_of(&feed, total).map_err(|error| error.to_string())?;
            Ok::<_, String>((feed, root))
        });
        let (feed, root) = appended.await??;
        if look(&file.path)? != (Published { wish: None, ..file.clone() }) {
            return Err(format!("{} changed while it was read: publish it again", file.path.display()));
        }
        let file = Published { root: Some(Key(root)), ..file };
        self.order(|reply| Order::Publish(key, file, reply)).await?;
        let info = feed.info();
        let millis = begun.elapsed().as_millis() as u64;
        tracing::info!(target: "daemon", feed = %key, bytes = info.bytes, millis, "published");
        let event = datdot_api::Event::Published { key, bytes: info.bytes, blocks: info.length, millis };
        self.ctx.story.tell(event);
        Ok((key, feed, root))
    }

    async fn serve(&self, key: Key, feed: &Feed, steps: &Steps) -> Result<(), String> {
        let info = feed.info();
        let addresses = self.ctx.addresses.iter().map(ToString::to_string).collect();
        say(steps, Progress::Serving { key, blocks: info.length, bytes: info.bytes, addresses }).await;
        Ok(())
    }

    /// Opens a request for a feed that is complete here, and follows it.
    async fn sponsor(
        &self,
        feed: &Feed,
        root: [u8; 32],
        from: &[Endpoint],
        wanted: Wanted,
        steps: &Steps,
    ) -> Result<(), String> {
        let head = feed.signed_head().ok_or("the feed has no head")?;
        let named = from.iter().filter_map(|endpoint| {
            let address = crate::discovery::on_ledger(endpoint.address);
            Some(Source { noise_key: endpoint.noise_key?, address })
        });
        let mut sources: Vec<Source> = Vec::new();
        for source in self.ctx.sources().chain(named) {
            if sources.len() < MAX_SOURCES as usize && !sources.contains(&source) {
                sources.push(source);
            }
        }
        if sources.is_empty() {
            return Err(format!(
                "nobody could fetch the feed from this peer: it listens at {}; start it with --address HOST:PORT, the \
                 address at which others reach it",
                self.ctx.listen
            ));
        }
        let sources: Sources = sources.try_into().map_err(|_| "four sources at most")?;
        let feeds: terms::Feeds =
            vec![terms::Feed { key: feed.key().0, head, root }].try_into().expect("one is less than four");
        let max_price = quote::max_price(&self.ctx, &wanted).await?;
        let terms = Terms { replicas: wanted.replicas, term: wanted.term, max_price };
        let params = self.ctx.ledger.params();
        let segments = terms.check(&feeds, &sources, &params).map_err(|error| error.to_string())?;
        let budget = quote::budget(&terms, terms::total_bytes(&segments), &params)?;
        let request = self.order(|reply| Order::Want(feeds, terms, sources, reply)).await?;
        say(steps, Progress::Opened { request, budget: Amount(budget) }).await;
        self.clone().follow(request, steps.clone()).await
    }

    /// Gets a feed here, if it isn't: from where the user says, then from where the ledger says.
    async fn fetch(&self, key: Key, from: &[String], steps: &Steps) -> Result<Fetched, String> {
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
        if here.is_none() && endpoints.is_empty() {
            return Err(format!(
                "nobody is known to have feed {key}: no request on the ledger names it; give --from HOST:PORT"
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
        let result = self.ctx.fetcher.fetch(feed, &Fetch::First, &endpoints, &mut progress).await;
        let mut fetched = result.map_err(|failed| failed.why.to_string())?;
        if here.is_some() {
            // Not dialled, so their keys are not known; nobody is named as a source whose key was not seen.
            fetched.reached.clear();
        }
        Ok(fetched)
    }

    async fn pin(&self, key: Key, keep: bool) -> Result<(), String> {
        self.ask(|reply| Order::Pin(key, keep, reply)).await
    }

    /// Asks the engine for something that it always gives.
    pub async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let stops = || "the daemon stops".to_owned();
        self.engine.send(Msg::Order(order(reply))).await.map_err(|_| stops())?;
        answer.await.map_err(|_| stops())
    }

    /// Asks the engine for something that it may refuse.
    pub async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order) -> Result<T, String> {
        self.ask(order).await?
    }
}

/// Waits for whoever asked; if nobody does any more, nothing is said.
async fn say(steps: &Steps, step: Progress) {
    _ = steps.send(step).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("the daemon stops, or has a bug: {error}"))
}

/// The file as it is now, if it can be published.
pub(crate) fn look(path: &Path) -> Result<Published, String> {
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
    Ok(Published { path: path.to_owned(), bytes: file.len(), modified, root: None, wish: None })
}

fn append(feed: &Feed, path: &Path, total: u64, steps: &Steps) -> io::Result<()> {
    let mut file = File::open(path)?.take(total);
    let mut read = 0;
    let mut reported = Instant::now();
    loop {
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

/// Writes a feed's blocks beside `path`, each checked against its author's tree, then renames.
fn write_out(feed: &Feed, path: &Path) -> io::Result<()> {
    let mut name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_owned();
    name.push(".part");
    let part: PathBuf = path.with_file_name(name);
    let write = || {
        let mut file = io::BufWriter::with_capacity(1 << 20, File::create(&part)?);
        for block in 0..feed.info().length {
            file.write_all(&feed.read(block).map_err(io::Error::other)?)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&part, path)
    };
    let written = write();
    if written.is_err() {
        _ = std::fs::remove_file(&part);
    }
    written
}

/// Where HOST:PORT is.
async fn resolve(place: &str) -> Result<Vec<Endpoint>, String> {
    let failed =
        |error: io::Error| format!("{place}: {error}; a source looks like HOST:PORT, 203.0.113.7:3282 for example");
    let found = tokio::net::lookup_host(place).await.map_err(failed)?;
    Ok(found.map(|address| Endpoint { address, noise_key: None }).collect())
}

fn closed(closing: datdot_market::request::Closing) -> &'static str {
    use datdot_market::request::Closing;
    match closing {
        Closing::TermOver => "its term is over",
        Closing::Cancelled => "it was cancelled",
        Closing::RootMismatch => "two hosters found that the data doesn't have the root that it claims",
        Closing::NobodyHosted => "nobody hosted it for as long as its term",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_hypercore::Store;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_goes_into_a_feed_and_comes_out_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let (steps, _heard) = mpsc::channel(64);
        for (seed, bytes) in [(1, 1), (2, BLOCK_BYTES), (3, BLOCK_BYTES + 1), (4, 70 * BLOCK_BYTES + 5)] {
            let (path, out) = (dir.path().join("in"), dir.path().join("out"));
            let content: Vec<_> = (0..bytes).map(|at| (at / 3) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let feed = store.create(&Keypair::from_seed([seed; 32])).unwrap();
            append(&feed, &path, bytes as u64, &steps).unwrap();
            assert_eq!(feed.info().length, bytes.div_ceil(BLOCK_BYTES) as u64);
            write_out(&feed, &out).unwrap();
            assert!(std::fs::read(&out).unwrap() == content, "{bytes} bytes");
        }
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
