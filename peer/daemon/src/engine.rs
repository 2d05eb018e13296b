//! The engine: one task that owns the roles and the journal. It hands the roles what happened and does what they ask,
//! each thing in a task of its own whose result comes back as a message.

mod orders;

pub(crate) use orders::Order;

use crate::{
    context::Context,
    fetch::Failed,
    files,
    jobs::{self, FetchedAll, Made, NotMade},
    journal::{Journal, Ordered},
    status::{self, Damage, Shown},
    tell,
};
use codec::Encode;
use datdot_api::{
    Event, Key,
    status::{OfferStatus, ProofOutcome, ProofStatus},
};
use datdot_hypercore::FeedKey;
use datdot_ledger::{AccountId, AccountView, Included, News, SubmitError};
use datdot_market::{
    Block, ContractId, RequestId,
    hoster::Standing,
    terms::{Feed, Source},
    view::Challenge,
};
use datdot_proof::segment::Segment;
use datdot_roles::{
    Call, Checked, Errand, Hoster, IntentId, Outcome, Sponsor,
    hoster::{self, Covered},
    sponsor,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinError, JoinSet},
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
    me: mpsc::Sender<Msg>,
    tasks: JoinSet<()>,
    fetches: BTreeMap<ContractId, AbortHandle>,
    /// Who waits for the offer to stand, or to be withdrawn.
    hosting: Vec<Reply<OfferStatus>>,
    stopping: Vec<Reply<Block>>,
    /// Who waits for a request to be opened.
    opening: BTreeMap<IntentId, Vec<Reply<RequestId>>>,
    shown: Shown,
}

impl Engine {
    /// An engine that goes on where the journal and the store left off.
    pub fn new(ctx: Arc<Context>, mut journal: Journal, policy: hoster::Policy, me: mpsc::Sender<Msg>) -> Self {
        if let Ok(unfinished) = journal.drop_unfinished() {
            for key in unfinished {
                _ = ctx.store.remove(&FeedKey(key.0));
            }
        }
        let own: BTreeSet<_> = journal.own().into_iter().map(|key| key.0).collect();
        let stored = ctx.store.feeds().iter().map(|feed| feed.key().0).filter(|key| !own.contains(key)).collect();
        Self {
            hoster: Hoster::new(policy, stored),
            sponsor: Sponsor::new(),
            journal,
            me,
            tasks: JoinSet::new(),
            fetches: BTreeMap::new(),
            hosting: Vec::new(),
            stopping: Vec::new(),
            opening: BTreeMap::new(),
            shown: Shown::default(),
            ctx,
        }
    }

    /// Runs until nobody can send messages any more.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Msg>) {
        for key in self.journal.own() {
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
                Err(what) => self.ctx.story.tell(Event::Trouble { what }),
            },
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
            Msg::Final(view) => {
                self.shown.finalized = view.at;
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
        let before = self.ctx.view.borrow().clone();
        self.ctx.story.is_at(news.view.at);
        if before.is_none() || !self.shown.connected {
            self.shown.connected = true;
            let chain = self.ctx.ledger.chain().to_owned();
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
        if stands && let Some(offer) = status::offer(view, &self.hoster) {
            self.hosting.drain(..).for_each(|reply| _ = reply.send(Ok(offer.clone())));
        }
        if standing.is_none_or(|hoster| hoster.standing == Standing::Leaving) {
            self.stopping.drain(..).for_each(|reply| _ = reply.send(Ok(view.at)));
        }
    }

    async fn look(&mut self) {
        if self.shown.connected && !self.ctx.ledger.is_up() && self.shown.broken.is_none() {
            self.shown.connected = false;
            let why = format!("the ledger at {} does not answer; trying again", self.ctx.ledger.url());
            tracing::warn!(target: "daemon", "{why}");
            self.ctx.story.tell(Event::LedgerLost { why });
        }
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
                            self.trouble(why);
                        }
                    }
                }
                sponsor::Action::Opened(id, request, seen) => {
                    let noted = self.journal.opened(id, request, seen);
                    self.written(noted);
                    let replies = self.opening.remove(&id).unwrap_or_default();
                    replies.into_iter().for_each(|reply| _ = reply.send(Ok(request)));
                }
                sponsor::Action::Failed(id, why) => {
                    let replies = self.opening.remove(&id).unwrap_or_default();
                    if replies.is_empty() {
                        self.trouble(format!("a request was not opened: {why}"));
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
                    self.tell_hoster(hoster::Input::Disown(key.0)).await;
                }
            }
            Err(error) => self.written(Err(error)),
        }
    }

    fn trouble(&self, what: String) {
        tracing::warn!(target: "daemon", "{what}");
        self.ctx.story.tell(Event::Trouble { what });
    }

    fn written(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.trouble(format!("the journal in {} can't be written: {error}", self.ctx.dir.display()));
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

    fn fetch(&mut self, contract: ContractId, feeds: Vec<Feed>, sources: Vec<Source>) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        let task = self.tasks.spawn(async move {
            let result = jobs::fetch_all(&ctx, &me, contract, &feeds, &sources).await;
            _ = me.send(Msg::Fetched(contract, result)).await;
        });
        self.fetches.insert(contract, task);
    }

    async fn fetched(&mut self, contract: ContractId, result: Result<FetchedAll, Failed>) {
        self.fetches.remove(&contract);
        match result {
            Ok(FetchedAll { bytes, fetched, millis }) => {
                self.shown.progress.insert(contract, (bytes, bytes));
                // A start finds everything here; that is no news.
                if fetched > 0 {
                    tracing::info!(target: "hoster", contract, fetched, bytes, millis, "all data is here");
                    self.ctx.story.tell(Event::Fetched { contract, bytes, fetched, millis });
                }
                self.tell_hoster(hoster::Input::Fetched(contract)).await;
            }
            Err(Failed { why, fetched }) => {
                self.tell_hoster(hoster::Input::FetchFailed { contract, why, progressed: fetched > 0 }).await;
            }
        }
    }

    fn check(&mut self, contract: ContractId, segments: Vec<([u8; 32], Segment)>, anew: bool) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        self.tasks.spawn(async move {
            let checking = tokio::task::spawn_blocking(move || jobs::check(&ctx, &segments, anew));
            let checked = checking.await.unwrap_or_else(|error| Checked::Incomplete(error.to_string()));
            _ = me.send(Msg::Checked(contract, checked)).await;
        });
    }

    fn prove(&mut self, challenge: Challenge, holdings: Vec<Covered>) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        self.shown.proofs.retain(|proof| proof.number != challenge.number);
        self.shown.push_proof(ProofStatus {
            number: challenge.number,
            asked: challenge.asked,
            by: challenge.by,
            block: None,
            openings: 0,
            bytes: 0,
            millis_to_make: 0.0,
            millis_to_check: 0.0,
            outcome: ProofOutcome::Sending,
            why: None,
        });
        self.tasks.spawn(async move {
            let nobody = holdings.first().map_or(0, |held| held.contract);
            let proving = tokio::task::spawn_blocking(move || jobs::prove(&ctx, &challenge, &holdings));
            let failed = |error: JoinError| Err(NotMade { contract: nobody, feed: [0; 32], why: error.to_string() });
            let result = proving.await.unwrap_or_else(failed);
            _ = me.send(Msg::Proved(challenge, result)).await;
        });
    }

    async fn proved(&mut self, challenge: Challenge, result: Result<Made, NotMade>) {
        let number = challenge.number;
        match result {
            Ok(Made { proof, make, check }) => {
                let (openings, bytes) = (proof.openings.len() as u32, proof.encoded_size() as u32);
                if let Some(status) = self.shown.last_proof(Errand::Proof(number)) {
                    (status.openings, status.bytes) = (openings, bytes);
                    status.millis_to_make = make.as_secs_f64() * 1e3;
                    status.millis_to_check = check.as_secs_f64() * 1e3;
                }
                let (micros_make, micros_check) = (make.as_micros() as u64, check.as_micros() as u64);
                tracing::info!(target: "hoster", number, openings, bytes, micros_make, micros_check, "proof made");
                self.ctx.story.tell(Event::ProofMade { number, openings, bytes, micros_make, micros_check });
                self.tell_hoster(hoster::Input::Proved(challenge, proof)).await;
            }
            Err(NotMade { contract, feed, why }) => {
                if let Some(status) = self.shown.last_proof(Errand::Proof(number)) {
                    (status.outcome, status.why) = (ProofOutcome::Withheld, Some(why.clone()));
                }
                self.shown.suspects.insert(feed, why.clone());
                self.tell_hoster(hoster::Input::NotProved { challenge, contract, feed, why }).await;
            }
        }
    }

    fn scrub(&mut self, key: FeedKey) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        self.tasks.spawn(async move {
            let damaged = match ctx.store.feed(&key) {
                Some(feed) => feed.scrub(0..feed.info().length).await,
                None => Ok(vec![]),
            };
            let damaged = damaged.unwrap_or_else(|error| {
                tracing::error!(target: "hoster", feed = %key, %error, "stored blocks can't be looked through");
                vec![]
            });
            _ = me.send(Msg::Scrubbed(key, damaged)).await;
        });
    }

    async fn scrubbed(&mut self, key: FeedKey, damaged: Vec<u64>) {
        let mut blocks: BTreeSet<u64> = self.shown.lost.remove(&key.0).unwrap_or_default();
        blocks.extend(damaged);
        let why = self.shown.suspects.remove(&key.0);
        if let Some(view) = self.ctx.view.borrow().clone() {
            for damage in Damage::of(&self.ctx.store, key, &blocks, why, &view) {
                damage.log();
                self.ctx.story.tell(damage.event());
                self.shown.push_damage(damage);
            }
        }
        self.tell_hoster(hoster::Input::Scrubbed(key.0)).await;
    }

    async fn drop_feed(&mut self, key: FeedKey) {
        let store = self.ctx.store.clone();
        match tokio::task::spawn_blocking(move || store.remove(&key)).await {
            Ok(Ok(true)) => {
                tracing::info!(target: "hoster", feed = %key, "dropped: no contract needs it any more");
                self.ctx.story.tell(Event::Dropped { key: Key(key.0) });
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => self.trouble(format!("a feed can't be dropped: {error}")),
            Err(error) => self.trouble(format!("a feed can't be dropped: {error}")),
        }
    }
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
