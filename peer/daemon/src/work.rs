//! What the API is asked for that takes a while: publishing, sponsoring, following, reading.
//!
//! Each runs in a task of its own and reports its steps; who asked may go away meanwhile, the work goes on.

mod publish;
mod read;

pub use publish::BLOCK_BYTES;
pub(crate) use publish::look;

use crate::{
    context::Context,
    discovery::{Endpoint, is_public, on_ledger},
    engine::{Msg, Opened, Order, Want},
    quote, segments, tell,
};
use datdot_api::{Amount, Key, Progress, PublishOrder, RequestOrder, Wanted};
use datdot_hypercore::Feed;
use datdot_market::{
    MAX_SOURCES, RequestId,
    terms::{self, Source, Sources, Terms},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

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

    /// Fetches a feed if it isn't here, serves it, and has it hosted.
    pub async fn request(self, order: RequestOrder, steps: Steps) -> Result<(), String> {
        // If it is sponsored in the end, the journal keeps it.
        self.keeping(order.key, self.request_kept(&order, &steps)).await
    }

    async fn request_kept(&self, order: &RequestOrder, steps: &Steps) -> Result<(), String> {
        // What is wrong with the wish whatever the feed's size is found before it is fetched.
        quote::cost(&self.ctx, 1, &order.wanted).await?;
        let fetched = self.fetch(order.key, &order.from, self.ctx.room()?, steps).await?;
        let feed = fetched.feed;
        let (hashed, ctx) = (feed.clone(), self.ctx.clone());
        let root = blocking(move || segments::root_of(&hashed, hashed.info().bytes, &|| ctx.goes_on())).await?;
        let root = root.map_err(|error| error.to_string())?;
        self.serve(&feed, steps).await;
        self.sponsor(&feed, root, &fetched.reached, order.wanted, None, steps).await
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

    async fn serve(&self, feed: &Feed, steps: &Steps) {
        let info = feed.info();
        let addresses = self.ctx.addresses.iter().map(ToString::to_string).collect();
        let key = Key(feed.key().0);
        say(steps, Progress::Serving { key, blocks: info.length, bytes: info.bytes, addresses }).await;
    }

    /// Opens a request for a feed that is complete here, and follows it.
    async fn sponsor(
        &self,
        feed: &Feed,
        root: [u8; 32],
        reached: &[Endpoint],
        wanted: Wanted,
        order: Option<PublishOrder>,
        steps: &Steps,
    ) -> Result<(), String> {
        let head = feed.signed_head().ok_or("the feed has no head")?;
        let sources = self.sources(reached)?;
        let feeds: terms::Feeds =
            vec![terms::Feed { key: feed.key().0, head, root }].try_into().expect("one is less than four");
        let max_price = quote::max_price(&self.ctx, &wanted).await?;
        let terms = Terms { replicas: wanted.replicas, term: wanted.term, max_price };
        let params = self.ctx.ledger.params();
        let segments = terms.check(&feeds, &params).map_err(|error| error.to_string())?;
        let budget = quote::budget(&terms, terms::total_bytes(&segments), &params)?;
        // Only who has seen the account knows whether it has this request already.
        self.ctx.view.subscribe().wait_for(Option::is_some).await.map_err(|_| "the daemon stops")?;
        let want = Box::new(Want { order, feeds, terms, sources, any_price: wanted.max_price.is_none() });
        let Opened { request, already } = self.order(|reply| Order::Want(want, reply)).await?;
        say(steps, Progress::Opened { request, budget: Amount(budget), already }).await;
        self.clone().follow(request, steps.clone()).await
    }

    /// Where the ledger is told to fetch: from us, and from those whom the user named and who were reached.
    fn sources(&self, reached: &[Endpoint]) -> Result<Sources, String> {
        let sources = named(self.ctx.sources(), reached, self.ctx.allow_private);
        if sources.is_empty() {
            self.ctx.can_be_reached()?;
        }
        sources.try_into().map_err(|_| "four sources at most".into())
    }

    /// Keeps a feed for as long as some work with it lasts.
    async fn keeping<T>(&self, key: Key, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
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

    #[test]
    fn a_private_address_is_named_only_where_all_peers_are_on_one_machine() {
        let reached = ["192.168.1.5:4000", "1.1.1.1:4000"]
            .map(|address| Endpoint { address: address.parse().unwrap(), noise_key: Some([1; 32]) });
        let on_ledger = |allow_private| named(std::iter::empty(), &reached, allow_private);
        assert_eq!(on_ledger(false), [Source { noise_key: [1; 32], address: terms::Address::V4([1, 1, 1, 1], 4000) }]);
        assert_eq!(on_ledger(true).len(), 2);
    }
}
