//! The engine: one task that owns the roles and the journal. It hands the roles what happened and does what they ask,
//! each thing in a task of its own whose result comes back as a message.

mod announce;
mod orders;
mod tasks;
mod unpublish;

pub(crate) use orders::{Opened, Order, Want};

use crate::{
    chain::Known,
    context::Context,
    fetch::Failed,
    files,
    jobs::{FetchedAll, Made, NotMade},
    journal::{Journal, Ordered},
    segments,
    status::{self, Shown},
    tell,
};
use datdot_api::{
    Event, Key,
    status::{OfferStatus, ProofOutcome},
};
use datdot_hypercore::FeedKey;
use datdot_ledger::{AccountId, AccountView, Included, News, SubmitError};
use datdot_market::{Block, ContractId, hoster::Standing, view::Challenge};
use datdot_roles::{Call, Checked, Errand, Hoster, IntentId, Outcome, Sponsor, hoster, sponsor};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::interval,
};

/// Messages that may wait for the engine.
pub(crate) const WAITING: usize = 1024;
/// How often the disk and the ledger's line are looked at.
const LOOK: Duration = Duration::from_secs(2);
pub(crate) type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What comes to the engine.
pub(crate) enum Msg {
    /// A new best block.
    News(Box<News>),
    /// A new final block.
    Final(Box<AccountView>),
    /// The ledger can't be followed any more.
    Broken(String),
    /// How far the fetch of a contract is.
    Fetching(ContractId, u64, u64),
    Fetched(ContractId, Result<FetchedAll, Failed>),
    Checked(ContractId, Checked),
    Proved(Challenge, Result<Made, NotMade>),
    Scrubbed(FeedKey, Vec<u64>),
    Lost(FeedKey, Vec<u64>),
    Ended(Errand, Result<Included, SubmitError>),
    Order(Order),
}

pub(crate) struct Engine {
    ctx: Arc<Context>,
    hoster: Hoster<AccountId>,
    sponsor: Sponsor,
    journal: Journal,
    known: Known,
    me: mpsc::Sender<Msg>,
    tasks: JoinSet<()>,
    fetches: BTreeMap<ContractId, AbortHandle>,
    /// Who waits for the offer to stand, or to be withdrawn.
    hosting: Vec<Reply<OfferStatus>>,
    stopping: Vec<Reply<Block>>,
    /// Who waits for a request to be opened.
    opening: BTreeMap<IntentId, Vec<Reply<Opened>>>,
    /// Feeds that work of the API needs here, and how much of it.
    pins: BTreeMap<Key, usize>,
    /// Feeds that were here for contracts at the start.
    hosted_before: BTreeSet<[u8; 32]>,
    /// Of the feeds that are announced those with the contents, if it is a drive's. Known from block 0, which never changes.
    contents: BTreeMap<FeedKey, Option<FeedKey>>,
    shown: Shown,
}

impl Engine {
    /// An engine that goes on where the journal and the store left off.
    pub fn new(
        ctx: Arc<Context>,
        mut journal: Journal,
        known: Known,
        policy: hoster::Policy,
        me: mpsc::Sender<Msg>,
    ) -> Self {
        tidy(&ctx, &mut journal);
        let own: BTreeSet<_> = own(&ctx, &journal).into_iter().map(|key| key.0).collect();
        let stored = ctx.store.feeds().into_iter().map(|feed| feed.key().0).filter(|key| !own.contains(key));
        let stored: BTreeSet<_> = stored.collect();
        Self {
            hoster: Hoster::new(policy, stored.clone()),
            sponsor: Sponsor::new(),
            journal,
            known,
            me,
            tasks: JoinSet::new(),
            fetches: BTreeMap::new(),
            hosting: Vec::new(),
            stopping: Vec::new(),
            opening: BTreeMap::new(),
            pins: BTreeMap::new(),
            hosted_before: stored,
            contents: BTreeMap::new(),
            shown: Shown::new(),
            ctx,
        }
    }

    /// Runs until nobody can send messages any more.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Msg>) {
        for key in own(&self.ctx, &self.journal) {
            self.tell_hoster(hoster::Input::Own(key.0)).await;
        }
        for (id, intent) in self.journal.intents() {
            let actions = self.sponsor.handle::<AccountId>(self.now(), sponsor::Input::Want(id, intent));
            self.sponsor_acts(actions).await;
        }
        match self.journal.offer().clone() {
            Ordered::Nothing => {}
            Ordered::Stop => self.tell_hoster(hoster::Input::Want(hoster::Wanted::Stop)).await,
            Ordered::Offer(order) => match self.offer(&order) {
                Ok(offer) => self.tell_hoster(hoster::Input::Want(hoster::Wanted::Offer(offer))).await,
                Err(what) => self.ctx.trouble(what),
            },
        }
        if !self.ctx.ledger.is_up() {
            self.tell_lost();
        }
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                Some(_) = self.tasks.join_next() => {}
                _ = look.tick() => self.look().await,
            }
        }
    }

    fn now(&self) -> Block {
        self.ctx.view.borrow().as_ref().map_or(0, |view| view.at)
    }

    async fn take(&mut self, message: Msg) {
        match message {
            Msg::News(news) => self.news(*news).await,
            Msg::Final(view) if view.at < self.known.finalized() => {}
            Msg::Final(view) => {
                self.shown.finalized = view.at;
                let noted = self.known.is_final(view.at);
                self.written(noted);
                let actions = self.sponsor.handle(self.now(), sponsor::Input::Finalized((*view).clone()));
                self.sponsor_acts(actions).await;
                self.tell_hoster(hoster::Input::Finalized(*view)).await;
            }
            Msg::Broken(why) => {
                tracing::error!(target: "daemon", "{why}");
                self.shown.broken = Some(why.clone());
                self.ctx.story.tell(Event::LedgerLost { why });
            }
            Msg::Fetching(contract, bytes, total) => {
                self.shown.progress.insert(contract, (bytes, total));
                self.ctx.story.tell(Event::Fetching { contract, bytes, total });
            }
            Msg::Fetched(contract, result) => self.fetched(contract, result).await,
            Msg::Checked(contract, checked) => self.tell_hoster(hoster::Input::Checked(contract, checked)).await,
            Msg::Proved(challenge, result) => self.proved(challenge, result).await,
            Msg::Scrubbed(feed, blocks) => self.scrubbed(feed, blocks).await,
            Msg::Lost(feed, blocks) => {
                self.shown.lost.entry(feed.0).or_default().extend(blocks);
                self.tell_hoster(hoster::Input::Damaged(feed.0)).await;
            }
            Msg::Ended(errand, result) => self.ended(errand, result).await,
            Msg::Order(order) => self.order(order).await,
        }
    }

    async fn news(&mut self, news: News) {
        let (at, known) = (news.best.number, self.known.finalized());
        if at < known {
            // What it shows was so once: nothing is to be done or dropped by it.
            if self.shown.behind.replace((at, known)).is_none() {
                self.shown.away.get_or_insert_with(Instant::now);
                self.tell_lost();
            }
            return;
        }
        let before = self.ctx.view.borrow().clone();
        self.ctx.story.is_at(news.view.at);
        self.shown.behind = None;
        if self.shown.away.take().is_some() {
            let chain = self.ctx.ledger.chain().name.clone();
            self.ctx.story.tell(Event::LedgerFound { chain, best: news.view.at });
        }
        let account = self.ctx.submitter.id();
        for event in tell::events(&news.events, &account, before.as_deref(), &news.view) {
            tell::log(&event);
            self.ctx.story.tell(event);
        }
        let view = Arc::new(news.view);
        self.shown.missed_by(view.at);
        self.ctx.view.send_replace(Some(view.clone()));
        let actions = self.sponsor.handle(view.at, sponsor::Input::View((*view).clone()));
        self.sponsor_acts(actions).await;
        self.tell_hoster(hoster::Input::View((*view).clone())).await;
        self.answer_hosts(&view);
    }

    /// Answers those whose offer stands now, or is gone.
    fn answer_hosts(&mut self, view: &AccountView) {
        let standing = view.hosting.as_ref().map(|hosting| &hosting.hoster);
        let stands = match (self.hoster.wanted(), standing) {
            (hoster::Wanted::Offer(offer), Some(hoster)) => hoster.standing == Standing::Open && hoster.offer == *offer,
            _ => false,
        };
        if let Some((missing, free)) = self.hoster.unaffordable() {
            let why = status::no_bond(missing, free);
            self.hosting.drain(..).for_each(|reply| _ = reply.send(Err(why.clone())));
        }
        if stands && let Some(offer) = status::offer(view, &self.hoster) {
            self.hosting.drain(..).for_each(|reply| _ = reply.send(Ok(offer.clone())));
        }
        if standing.is_none_or(|hoster| hoster.standing == Standing::Leaving) {
            self.stopping.drain(..).for_each(|reply| _ = reply.send(Ok(view.at)));
        }
    }

    fn tell_lost(&mut self) {
        if let Some(why) = self.shown.no_ledger(&self.ctx) {
            tracing::warn!(target: "daemon", "{why}");
            self.ctx.story.tell(Event::LedgerLost { why });
        }
        self.answer_without_ledger();
    }

    /// Nobody waits for a ledger that is away: what was ordered is noted and done when it is back.
    fn answer_without_ledger(&mut self) {
        let Some(away) = self.shown.why_away(&self.ctx) else { return };
        if let Some(offer) = status::posting(&self.hoster, &self.journal) {
            let why = Some(format!("{away}; the offer is noted, and posted when it is back"));
            let offer = OfferStatus { why, ..offer };
            self.hosting.drain(..).for_each(|reply| _ = reply.send(Ok(offer.clone())));
        }
        let noted = format!("{away}; that is noted, and the offer is withdrawn when it is back");
        self.stopping.drain(..).for_each(|reply| _ = reply.send(Err(noted.clone())));
    }

    async fn look(&mut self) {
        if self.shown.away.is_none() && !self.ctx.ledger.is_up() && self.shown.broken.is_none() {
            self.shown.away = Some(Instant::now());
            self.tell_lost();
        }
        self.announce();
        self.keep_no_longer().await;
        let dir = self.ctx.dir.clone();
        let Ok(Ok(free)) = tokio::task::spawn_blocking(move || files::free_bytes(&dir)).await else { return };
        self.shown.disk_free = Some(free);
        let coming: u64 = self
            .fetches
            .keys()
            .filter_map(|contract| self.shown.progress.get(contract))
            .map(|(bytes, total)| total.saturating_sub(*bytes))
            .sum();
        let room = free.saturating_sub(self.ctx.spare_bytes).saturating_sub(coming);
        self.tell_hoster(hoster::Input::Room(room)).await;
    }

    async fn tell_hoster(&mut self, input: hoster::Input<AccountId>) {
        for action in self.hoster.handle(self.now(), input) {
            match action {
                hoster::Action::Submit(errand, call) => self.submit(errand, call),
                hoster::Action::Fetch { contract, feeds, sources } => self.fetch(contract, feeds, sources),
                hoster::Action::StopFetching(contract) => {
                    self.fetches.remove(&contract).iter().for_each(AbortHandle::abort);
                    self.shown.progress.remove(&contract);
                }
                hoster::Action::Check { contract, segments, anew } => self.check(contract, segments, anew),
                hoster::Action::Prove { challenge, holdings } => self.prove(challenge, holdings),
                hoster::Action::Scrub(feed) => self.scrub(FeedKey(feed)),
                hoster::Action::Drop(feed) => self.drop_feed(FeedKey(feed)).await,
                hoster::Action::Tell(note) => self.shown.note(note, &self.ctx.story, self.now()),
            }
        }
    }

    async fn sponsor_acts(&mut self, actions: Vec<sponsor::Action>) {
        for action in actions {
            match action {
                sponsor::Action::Submit(errand, call) => {
                    // Without that note a crash could open the request twice.
                    let noted = match errand {
                        Errand::Request(id) => self.journal.sent(id, self.now()),
                        _ => Ok(()),
                    };
                    match noted {
                        Ok(()) => self.submit(errand, call),
                        Err(error) => {
                            let why = format!("the journal can't be written: {error}");
                            self.sponsor.handle::<AccountId>(
                                self.now(),
                                sponsor::Input::Ended(errand, Outcome::Lost { why: why.clone() }),
                            );
                            self.ctx.trouble(why);
                        }
                    }
                }
                sponsor::Action::Opened(id, request, seen) => {
                    let noted = self.journal.opened(id, request, seen);
                    self.written(noted);
                    let replies = self.opening.remove(&id).unwrap_or_default();
                    let opened = Opened { request, already: false };
                    replies.into_iter().for_each(|reply| _ = reply.send(Ok(opened)));
                }
                sponsor::Action::Failed(id, why) => {
                    let replies = self.opening.remove(&id).unwrap_or_default();
                    if replies.is_empty() {
                        self.ctx.trouble(format!("a request was not opened: {why}"));
                    }
                    replies.into_iter().for_each(|reply| _ = reply.send(Err(why.clone())));
                    self.disown(id).await;
                }
                sponsor::Action::Over(id, _) => self.disown(id).await,
            }
        }
    }

    /// Forgets a request and no longer keeps the feeds that only it needed.
    async fn disown(&mut self, id: IntentId) {
        match self.journal.over(id) {
            Ok(keys) => {
                for key in keys {
                    self.release(key).await;
                }
            }
            Err(error) => self.written(Err(error)),
        }
    }

    /// A feed is needed no longer for one reason; there may be others.
    async fn release(&mut self, key: Key) {
        let is_ours = self.ctx.store.feed(&FeedKey(key.0)).is_some_and(|feed| feed.info().writable);
        if !is_ours && !self.pins.contains_key(&key) && !self.journal.own().contains(&key) {
            self.tell_hoster(hoster::Input::Disown(key.0)).await;
        }
    }

    fn written(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.ctx.trouble(format!("the journal in {} can't be written: {error}", self.ctx.dir.display()));
        }
    }

    fn submit(&mut self, errand: Errand, call: Call) {
        let (submitter, me) = (self.ctx.submitter.clone(), self.me.clone());
        tracing::debug!(target: "daemon", ?errand, "submitting");
        self.tasks.spawn(async move {
            let result = submitter.submit(on_ledger(call)).await;
            _ = me.send(Msg::Ended(errand, result)).await;
        });
    }

    async fn ended(&mut self, errand: Errand, result: Result<Included, SubmitError>) {
        let outcome = match &result {
            Ok(included) => Outcome::Included { block: included.block.number },
            Err(
                error @ (SubmitError::Superseded(_)
                | SubmitError::Lost
                | SubmitError::Forgotten { .. }
                | SubmitError::Ledger(_)),
            ) => Outcome::Lost { why: error.to_string() },
            Err(error) => Outcome::Refused { why: error.to_string() },
        };
        if let (Errand::Proof(number), Some(proof)) = (errand, self.shown.last_proof(errand)) {
            match &outcome {
                Outcome::Included { block } => {
                    (proof.outcome, proof.block) = (ProofOutcome::Proven, Some(*block));
                }
                Outcome::Refused { why } => {
                    (proof.outcome, proof.why) = (ProofOutcome::Refused, Some(why.clone()));
                    tracing::error!(target: "hoster", number, "the ledger refused a proof: {why}");
                    self.ctx.story.tell(Event::ProofRefused { number, why: why.clone() });
                }
                Outcome::Lost { why } => proof.why = Some(why.clone()),
            }
        }
        if errand == Errand::Offer
            && let Outcome::Refused { why } = &outcome
        {
            self.hosting.drain(..).for_each(|reply| _ = reply.send(Err(why.clone())));
            self.stopping.drain(..).for_each(|reply| _ = reply.send(Err(why.clone())));
        }
        if let Errand::Request(_) = errand {
            let actions = self.sponsor.handle::<AccountId>(self.now(), sponsor::Input::Ended(errand, outcome));
            self.sponsor_acts(actions).await;
        } else {
            self.tell_hoster(hoster::Input::Ended(errand, outcome)).await;
        }
    }
}

/// Removes what is left of files that never got into their feed whole, of what was being deleted, and of what was being hashed.
fn tidy(ctx: &Context, journal: &mut Journal) {
    let is_ours = |key: &FeedKey| ctx.store.feed(key).is_some_and(|feed| feed.info().writable);
    let mut left = journal.leftover().iter().map(|key| FeedKey(key.0)).filter(is_ours);
    let tidied = match left.try_for_each(|key| ctx.store.remove(&key).map(drop)) {
        Ok(()) if journal.leftover().is_empty() => Ok(()),
        Ok(()) => journal.tidied().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = tidied {
        ctx.trouble(format!("what is left of an interrupted publishing can't be removed: {why}"));
    }
    if let Err(why) = ctx.store.feeds().iter().try_for_each(segments::remove_leftovers) {
        ctx.trouble(format!("what is left of an interrupted hashing can't be removed: {why}"));
    }
}

/// Feeds that stay whatever contracts say: should the journal be lost, or lack what came later, nothing that only we can write goes.
fn own(ctx: &Context, journal: &Journal) -> BTreeSet<Key> {
    let written = ctx.store.feeds().into_iter().filter(|feed| feed.info().writable);
    journal.own().into_iter().chain(written.map(|feed| Key(feed.key().0))).collect()
}

/// A role's call as the ledger's client wants it.
fn on_ledger(call: Call) -> datdot_ledger::Call {
    match call {
        Call::Offer(offer) => datdot_ledger::Call::Offer(offer),
        Call::Leave => datdot_ledger::Call::Leave,
        Call::Request { feeds, terms, sources } => datdot_ledger::Call::Request { feeds, terms, sources },
        Call::Take(contract) => datdot_ledger::Call::Take(contract),
        Call::Pass(contract, reason) => datdot_ledger::Call::Pass(contract, reason),
        Call::Accept(contract) => datdot_ledger::Call::Accept(contract),
        Call::Prove { challenge, proof } => datdot_ledger::Call::Prove { challenge, proof },
        Call::Forfeit(contract) => datdot_ledger::Call::Forfeit(contract),
        Call::Settle(contract) => datdot_ledger::Call::Settle(contract),
    }
}
