//! What the API is asked for that takes a while: publishing, sponsoring, following, reading.
//!
//! Each runs in a task of its own and reports its steps; who asked may go away meanwhile, the work goes on.

mod list;
mod publish;
mod read;
mod stream;
mod subject;
mod unpublish;
mod whole;

pub use publish::BLOCK_BYTES;
pub(crate) use stream::Streamed;

use crate::{
    context::Context,
    discovery::{Endpoint, is_public, on_ledger},
    engine::{Msg, Opened, Order, Want},
    quote, tell,
};
use datdot_api::{Accepted, Amount, Key, Progress, PublishOrder, QuoteOf, RequestOrder, Wanted};
use datdot_drive::{Drive, Kind, Version};
use datdot_hypercore::{Feed, FeedKey};
use datdot_ledger::{AccountId, Call};
use datdot_market::{
    MAX_SOURCES, RequestId,
    terms::{self, Source, Sources, Terms},
    view::RequestView,
};
use datdot_proof::segment::Segment;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use subject::{Found, Subject};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use whole::Whole;

/// How often reading and fetching report how far they are.
const REPORT: Duration = Duration::from_millis(200);

/// To how many versions a request follows a drive that grows while it comes.
const FOLLOWED: usize = 5;

/// How long what was submitted may take to be seen here once it is in a block.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// What somebody who asked hears.
pub(crate) type Steps = mpsc::Sender<Progress>;

/// Does what takes a while.
#[derive(Clone)]
pub(crate) struct Work {
    pub ctx: Arc<Context>,
    pub engine: mpsc::Sender<Msg>,
    pub jobs: Jobs,
    /// How long what nobody has now is looked for again and again.
    pub patience: Duration,
}

/// The jobs of a daemon; they end with it.
#[derive(Clone)]
pub(crate) struct Jobs(Arc<Mutex<Option<JoinSet<()>>>>);

impl Jobs {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }

    pub fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
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

    /// Fetches a feed or drive if it isn't here, serves it, and has it hosted.
    pub async fn request(self, order: RequestOrder, steps: Steps) -> Result<(), String> {
        // If it is sponsored in the end, the journal keeps it.
        self.keeping(order.key, self.request_kept(&order, &steps)).await
    }

    async fn request_kept(&self, order: &RequestOrder, steps: &Steps) -> Result<(), String> {
        // What is wrong with the wish whatever the feed's size is found before it is fetched.
        quote::cost(&self.ctx, 1, &order.wanted).await?;
        let RequestOrder { key, from, wanted } = order;
        let Found { subject, mut reached } = self.find_out(*key, None, from, self.ctx.room()?, steps).await?;
        match subject {
            Subject::Feed(feed) | Subject::Bee(feed) => {
                self.may_fetch_for(wanted, &[&feed], &reached).await?;
                let feeds = self.whole_feed(&feed, order, &mut reached, steps).await?;
                self.serve(*key, &feeds, steps).await;
                let hosted = Hosted { feeds, reached: &reached, wanted: *wanted, order: None };
                self.sponsor(hosted, steps).await
            }
            Subject::Drive(version) => {
                let blobs = blobs_of(&version).await?;
                let work = async {
                    let (version, feeds) = self.whole_drive(version, order, &mut reached, steps).await?;
                    self.note_others(&version).await?;
                    self.serve(*key, &feeds, steps).await;
                    self.sponsor(Hosted { feeds, reached: &reached, wanted: *wanted, order: None }, steps).await
                };
                self.keeping(blobs, work).await
            }
        }
    }

    /// Brings a feed here up to the head that is the newest one when it is done.
    async fn whole_feed(
        &self,
        feed: &Feed,
        RequestOrder { key, from, .. }: &RequestOrder,
        reached: &mut Vec<Endpoint>,
        steps: &Steps,
    ) -> Result<Vec<terms::Feed>, String> {
        for _ in 0..FOLLOWED {
            reached.extend(self.fetch(*key, from, self.ctx.room()?, steps).await?.reached);
            match self.hashed(Whole::of(feed).map(|feed| vec![feed])).await {
                Err(why) if why.is_passing() => tracing::debug!(target: "daemon", "{why}"),
                hashed => return Ok(hashed?),
            }
        }
        Err(grows_faster(*key))
    }

    /// Brings a drive here, contents and all, at the version that is the newest one when it is done.
    async fn whole_drive(
        &self,
        mut version: Arc<Version>,
        order: &RequestOrder,
        reached: &mut Vec<Endpoint>,
        steps: &Steps,
    ) -> Result<(Arc<Version>, Vec<terms::Feed>), String> {
        let drive = version.drive().clone();
        for _ in 0..FOLLOWED {
            let has_contents = self.fetch_whole(&version, order, reached, steps).await?;
            // Contents that no file of this version has are hosted with it if they need not come.
            let with = has_contents || drive.blobs().is_ok_and(|blobs| blobs.info().is_complete());
            match self.hashed(Whole::of_drive(&version, with)).await {
                // Who lists it, or reads it, brought a newer version meanwhile, or a longer head of its contents.
                Err(why) if why.is_passing() => tracing::debug!(target: "daemon", "{why}"),
                hashed => return Ok((version, hashed?)),
            }
            let newest = drive.version();
            reached.extend(self.fetch(order.key, &order.from, self.ctx.room()?, steps).await?.reached);
            version = Arc::new(drive.checkout(newest));
        }
        Err(grows_faster(order.key))
    }

    /// Refuses what could not be had before much is fetched for nothing. Of what is here a request may be open already.
    async fn may_fetch_for(&self, wanted: &Wanted, feeds: &[&Feed], reached: &[Endpoint]) -> Result<(), String> {
        let infos: Vec<_> = feeds.iter().map(|feed| feed.info()).collect();
        if infos.iter().all(|info| info.is_complete()) {
            return Ok(());
        }
        let bytes = infos.iter().fold(0u64, |sum, info| sum.saturating_add(info.bytes));
        self.may_sponsor(bytes, wanted, reached).await
    }

    /// Refuses a request that the ledger would not take, or for which nobody could fetch.
    async fn may_sponsor(&self, bytes: u64, wanted: &Wanted, reached: &[Endpoint]) -> Result<(), String> {
        self.sources(reached)?;
        quote::cost(&self.ctx, bytes, wanted).await?.is_affordable()
    }

    /// Bytes of what a quote is about, or of what it will be, about.
    pub async fn bytes_to_quote(&self, of: &QuoteOf) -> Result<u64, String> {
        match of {
            QuoteOf::Bytes(bytes) => Ok(*bytes),
            QuoteOf::File(path) if path.is_dir() => self.bytes_of_folder(path).await,
            QuoteOf::File(path) => Ok(publish::file::look(path)?.bytes),
            QuoteOf::Feed(key) => {
                let feed = self.ctx.store.feed(&FeedKey(key.0)).ok_or_else(|| {
                    format!(
                        "feed {key} is not here, so its size is not known yet: `datdot request` fetches it first, and \
                         --max-price bounds what that may cost"
                    )
                })?;
                let store = self.ctx.store.clone();
                let both = blocking(move || {
                    let blobs = match Drive::kind(&feed) {
                        Ok(Kind::Drive) => {
                            Drive::open(&store, feed.key()).and_then(|drive| Ok(drive.blobs()?.info().bytes))
                        }
                        _ => Ok(0),
                    };
                    blobs.map(|blobs| feed.info().bytes.saturating_add(blobs))
                });
                both.await?.map_err(|error| error.to_string())
            }
        }
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
                    let bytes = found.request.bytes();
                    say(&steps, Progress::Done { key, bytes, request: Some(request), hosted, of }).await;
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

    async fn serve(&self, key: Key, feeds: &[terms::Feed], steps: &Steps) {
        let addresses = self.ctx.addresses.iter().map(ToString::to_string).collect();
        let blocks = feeds.iter().map(|feed| feed.head.length).sum();
        say(steps, Progress::Serving { key, blocks, bytes: bytes_of(feeds), addresses }).await;
    }

    /// Opens a request for feeds that are complete here, and follows it.
    async fn sponsor(&self, Hosted { feeds, reached, wanted, order }: Hosted<'_>, steps: &Steps) -> Result<(), String> {
        let sources = self.sources(reached)?;
        let key = feeds.first().map(|feed| feed.key).unwrap_or_default();
        let feeds: terms::Feeds = feeds.try_into().map_err(|_| "more than four feeds".to_owned())?;
        let max_price = quote::max_price(&self.ctx, &wanted).await?;
        let terms = Terms { replicas: wanted.replicas, term: wanted.term, max_price };
        let params = self.ctx.ledger.params();
        let segments = terms.check(&feeds, &params).map_err(|error| error.to_string())?;
        let budget = quote::budget(&terms, terms::total_bytes(&segments), &params)?;
        // Only who has seen the account knows whether it has this request already.
        self.ledger_is_seen().await?;
        let want = Box::new(Want { order, feeds, terms, sources, any_price: wanted.max_price.is_none() });
        let Opened { request, already } = self.order(|reply| Order::Want(want, reply)).await?;
        say(steps, Progress::Opened { request, budget: Amount(budget), already }).await;
        for older in self.superseded(key, &segments) {
            say(steps, Progress::Superseded { request: older }).await;
        }
        self.clone().follow(request, steps.clone()).await
    }

    /// Waits until the ledger has shown the account, which is at once unless the daemon has just started.
    async fn ledger_is_seen(&self) -> Result<(), String> {
        self.ctx.view.subscribe().wait_for(Option::is_some).await.map(drop).map_err(|_| "the daemon stops".into())
    }

    /// Open requests of this account for the same feed or drive as it was before.
    fn superseded(&self, key: [u8; 32], segments: &[Segment]) -> Vec<RequestId> {
        let view = self.ctx.view.borrow().clone();
        let requests = view.iter().flat_map(|view| &view.requests);
        let is_older = |found: &&RequestView<AccountId>| {
            let was = &found.request.segments;
            found.request.closing.is_none()
                && found.keys.first() == Some(&key)
                && was.iter().zip(segments).all(|(was, is)| was.bytes <= is.bytes)
                && **was != *segments
        };
        requests.filter(is_older).map(|found| found.id).collect()
    }

    /// Where the ledger is told to fetch: from us, and from those whom the user named and who were reached.
    fn sources(&self, reached: &[Endpoint]) -> Result<Sources, String> {
        let sources = named(self.ctx.sources(), reached, self.ctx.allow_private);
        if sources.is_empty() {
            self.ctx.can_be_reached()?;
        }
        sources.try_into().map_err(|_| "four sources at most".into())
    }

    /// Submits a call of the user's; answers when it is in a block, and what is ordered next sees that.
    pub async fn submit(&self, call: Call) -> Result<Accepted, String> {
        if !self.ctx.ledger.is_up() {
            // A payment that comes hours later would surprise.
            return Err(format!("{}: nothing was sent", self.ctx.ledger_is_away()));
        }
        let included = self.ctx.submitter.submit(call).await.map_err(|error| error.to_string())?;
        let block = included.block.number;
        let mut view = self.ctx.view.subscribe();
        let seen = view.wait_for(|view| view.as_ref().is_some_and(|view| view.at >= block));
        _ = timeout(SEEN_WITHIN, seen).await;
        Ok(Accepted { block })
    }

    /// Keeps a feed for as long as some work with it lasts.
    async fn keeping<T, E: From<String>>(&self, key: Key, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.ask(|reply| Order::Pin(key, true, reply)).await?;
        let done = work.await;
        self.ask(|reply| Order::Pin(key, false, reply)).await?;
        done
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

/// What is to be hosted, and for whom.
struct Hosted<'a> {
    /// The first one names all of them.
    feeds: Vec<terms::Feed>,
    /// Peers that have it, too.
    reached: &'a [Endpoint],
    wanted: Wanted,
    /// The order to publish that it is for.
    order: Option<PublishOrder>,
}

fn grows_faster(key: Key) -> String {
    format!("{key} grows faster than it comes here: give the same command again")
}

fn bytes_of(feeds: &[terms::Feed]) -> u64 {
    feeds.iter().filter_map(|feed| feed.head.bytes().ok()).sum()
}

/// Which feed has the contents of a drive. It is not opened: before it is kept somebody may remove it.
async fn blobs_of(version: &Version) -> Result<Key, String> {
    let drive = version.drive().clone();
    let key = blocking(move || drive.blobs_key()).await?;
    key.map(|key| Key(key.0)).map_err(|error| error.to_string())
}

/// Waits for whoever asked; if nobody does any more, nothing is said.
async fn say(steps: &Steps, step: Progress) {
    _ = steps.send(step).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("the daemon stops, or has a bug: {error}"))
}

/// Sources to name on the ledger: a hoster dials no private address on a stranger's word, and it is nobody's business.
fn named(own: impl Iterator<Item = Source>, reached: &[Endpoint], allow_private: bool) -> Vec<Source> {
    let others = reached
        .iter()
        .filter(|endpoint| allow_private || is_public(endpoint.address))
        .filter_map(|endpoint| Some(Source { noise_key: endpoint.noise_key?, address: on_ledger(endpoint.address) }));
    let mut sources: Vec<Source> = Vec::new();
    for source in own.chain(others) {
        if sources.len() < MAX_SOURCES as usize && !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
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
    use crate::{Config, Daemon, swarm::Settings};
    use codec::Encode;
    use datdot_hypercore::Keypair;
    use datdot_ledger::Account;
    use datdot_market::params::Params;
    use std::{fs, path::Path};

    /// A daemon alone in the world, without its ledger.
    pub(super) async fn alone(dir: &Path) -> Daemon {
        let (genesis, params) = (hex::encode([1; 32]), hex::encode(Params::dev().encode()));
        let known = format!(r#"{{"name":"dev","genesis":"{genesis}","params":"{params}","finalized":70}}"#);
        fs::write(dir.join("ledger.json"), known).unwrap();
        let account = Account::dev("//Alice").unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        // Nobody listens there.
        let config = Config { listen, swarm: Settings::Off, ..Config::new(dir, "ws://127.0.0.1:1", account) };
        Daemon::start(config).await.unwrap()
    }

    /// What a request for a drive would be for, if it began with this version.
    async fn requested(work: &Work, version: Version) -> (u64, Vec<terms::Feed>) {
        let wanted = Wanted { replicas: 1, term: 100, max_price: None };
        let order = RequestOrder { key: Key(version.drive().key().0), from: vec![], wanted };
        let (steps, _) = mpsc::channel(1);
        let whole = work.whole_drive(Arc::new(version), &order, &mut vec![], &steps).await.unwrap();
        (whole.0.version(), whole.1)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_drive_is_requested_at_one_version_and_with_nothing_that_is_not_here() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = alone(dir.path()).await;
        let drive = Drive::create(&daemon.ctx.store, &Keypair::from_seed([1; 32])).unwrap();
        let path = "/file".parse().unwrap();
        drive.put(&path, &mut &[7; 200_000][..], false).unwrap();
        let old = drive.latest();
        drive.put(&path, &mut &[8; 200_000][..], false).unwrap();
        let (version, feeds) = requested(&daemon.work, old).await;
        let blobs = drive.blobs().unwrap();
        let lengths: Vec<_> = feeds.iter().map(|feed| feed.head.length).collect();
        assert_eq!((version, lengths), (drive.version(), vec![drive.version(), blobs.info().length]));

        drive.delete(&path).unwrap();
        assert_eq!(requested(&daemon.work, drive.latest()).await.1.len(), 2, "its history is here whole");
        blobs.clear(1..2).await.unwrap();
        let (version, feeds) = requested(&daemon.work, drive.latest()).await;
        let [metadata] = &feeds[..] else { panic!("a root over holes: {feeds:?}") };
        assert_eq!((metadata.head.length, version), (drive.version(), drive.version()));
        daemon.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_ledger_is_asked_before_much_is_fetched_and_not_about_what_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = alone(dir.path()).await;
        let feed = daemon.ctx.store.create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["one".into(), "two".into()]).await.unwrap();
        let wanted = Wanted { replicas: 1, term: 100, max_price: None };
        let may = async || daemon.work.may_fetch_for(&wanted, &[&feed], &[]).await;
        assert_eq!(may().await, Ok(()), "there may be a request for it");
        feed.clear(0..1).await.unwrap();
        let why = may().await.unwrap_err();
        assert!(why.contains("does not answer"), "{why}");
        daemon.stop().await;
    }

    #[test]
    fn a_private_address_is_named_only_where_all_peers_are_on_one_machine() {
        let reached = ["192.168.1.5:4000", "1.1.1.1:4000"]
            .map(|address| Endpoint { address: address.parse().unwrap(), noise_key: Some([1; 32]) });
        let on_ledger = |allow_private| named(std::iter::empty(), &reached, allow_private);
        assert_eq!(on_ledger(false), [Source { noise_key: [1; 32], address: terms::Address::V4([1, 1, 1, 1], 4000) }]);
        assert_eq!(on_ledger(true).len(), 2);
    }
}
