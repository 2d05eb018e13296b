//! What the engine remembers to be shown, and how it is shown.

mod damage;

pub(crate) use damage::Damage;

use crate::{
    context::Context,
    journal::{Drive, Journal, Ordered},
    limits,
    story::Story,
    tell,
};
use datdot_api::{
    Amount, Event, Key, Status,
    status::{
        ContractState, ContractStatus, DriveStatus, FeedRole, FeedStatus, LedgerStatus, Money, OfferStatus, PeerStatus,
        ProofOutcome, ProofStatus, ReplicaStatus, RequestState, RequestStatus, Standing,
    },
};
use datdot_ledger::{AccountId, AccountView};
use datdot_market::{
    Balance, Block, ContractId, clock,
    contract::{Reason, State},
    hoster,
    params::Dat,
    terms::Source,
    view::{ContractView, RequestView, Work},
};
use datdot_roles::{
    Errand, Failure, Hoster, Note, Sponsor,
    hoster::{Data, Wanted},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

/// Proofs and damages that are shown.
const SHOWN: usize = 32;

/// What the engine remembers.
#[derive(Default)]
pub(crate) struct Shown {
    /// Since when the ledger is not followed, if it isn't.
    pub away: Option<Instant>,
    /// The best block of a node that has yet to catch up, and one that was final before.
    pub behind: Option<(Block, Block)>,
    /// Why the ledger can't be followed any more.
    pub broken: Option<String>,
    pub finalized: Block,
    pub disk_free: Option<u64>,
    /// Bytes here and in all, of contracts.
    pub progress: BTreeMap<ContractId, (u64, u64)>,
    /// The last proofs, newest first.
    pub proofs: VecDeque<ProofStatus>,
    damage: VecDeque<Damage>,
    /// Blocks that were withdrawn because they are damaged, until their feed is looked through.
    pub lost: BTreeMap<[u8; 32], BTreeSet<u64>>,
    /// What was wrong when a feed was found to be damaged.
    pub suspects: BTreeMap<[u8; 32], String>,
}

impl Shown {
    /// Nothing, and no ledger yet.
    pub fn new() -> Self {
        Self { away: Some(Instant::now()), ..Self::default() }
    }

    pub fn push_proof(&mut self, proof: ProofStatus) {
        self.proofs.push_front(proof);
        self.proofs.truncate(SHOWN);
    }

    /// The last proof for a challenge.
    pub fn last_proof(&mut self, errand: Errand) -> Option<&mut ProofStatus> {
        self.proofs.iter_mut().find(|proof| errand == Errand::Proof(proof.number))
    }

    /// Notes that challenges whose deadline is over were missed, if they were.
    pub fn missed_by(&mut self, now: Block) {
        let over = |proof: &&mut ProofStatus| now > proof.by && proof.outcome == ProofOutcome::Sending;
        self.proofs.iter_mut().filter(over).for_each(|proof| proof.outcome = ProofOutcome::Missed);
    }

    pub fn push_damage(&mut self, damage: Damage) {
        self.damage.push_front(damage);
        self.damage.truncate(SHOWN);
    }

    /// Logs and tells what a role decided.
    pub fn note(&mut self, note: Note, story: &Story, now: Block) {
        let event = match note {
            Note::Drawn { contract, request, bytes } => Event::Matched { contract, request, bytes },
            Note::Passing { contract, reason, why } => {
                tracing::info!(target: "hoster", contract, ?reason, "passing: {why}");
                Event::Passed { contract, why: format!("{}: {why}", reason_in_words(reason)) }
            }
            Note::FetchWaits { contract, why, next } => {
                tracing::info!(target: "hoster", contract, next, "can't fetch: {why}");
                Event::FetchFailed { contract, why: format!("{why}; tried again in block {next}") }
            }
            Note::Withheld { number, why } => {
                tracing::error!(target: "hoster", number, "proof withheld: {why}");
                Event::ProofWithheld { number, why }
            }
            Note::Healed { feed } => {
                let open = |damage: &&mut Damage| damage.feed == Key(feed) && damage.healed.is_none();
                let mut healed = false;
                for damage in self.damage.iter_mut().filter(open) {
                    damage.healed = Some(now);
                    healed = true;
                }
                if !healed {
                    return;
                }
                tracing::info!(target: "hoster", feed = %Key(feed), "healed: every block is whole again");
                Event::Healed { key: Key(feed) }
            }
            Note::Held { contract } => return tracing::debug!(target: "hoster", contract, "held"),
            Note::Missed { number, missed } => {
                return tracing::warn!(target: "hoster", number, missed, "challenges went unanswered");
            }
            Note::Forfeiting { contract } => {
                return tracing::warn!(target: "hoster", contract, "giving it up: its data can't be healed in time");
            }
            Note::Gone { contract } => {
                self.progress.remove(&contract);
                return tracing::info!(target: "hoster", contract, "is over");
            }
            Note::Reopening => Event::Trouble {
                what: "the ledger had closed the offer (unanswered draws or missed challenges); it is posted again"
                    .into(),
            },
            Note::CallFailed { what, why } => Event::Trouble { what: format!("{what}: {why}") },
        };
        if let Event::Trouble { what } = &event {
            tracing::warn!(target: "daemon", "{what}");
        }
        story.tell(event);
    }

    /// All there is to see.
    pub fn status(&self, ctx: &Context, hoster: &Hoster<AccountId>, sponsor: &Sponsor, journal: &Journal) -> Status {
        let view = ctx.view.borrow().clone();
        let view = view.as_deref();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            account: ctx.submitter.id().to_string(),
            noise_key: Key(ctx.noise_key),
            listen: Some(ctx.listen.to_string()),
            addresses: ctx.addresses.iter().map(ToString::to_string).collect(),
            dir: ctx.dir.display().to_string(),
            ledger: self.ledger(ctx, view),
            money: view.map(money),
            offer: view.and_then(|view| offer(view, hoster)).or_else(|| posting(hoster, journal)),
            requests: self.requests(view, sponsor, journal),
            contracts: view.map(|view| self.contracts(view, hoster)).unwrap_or_default(),
            proofs: self.proofs.iter().cloned().collect(),
            damage: self.damage.iter().map(Damage::status).collect(),
            feeds: feeds(ctx, view, journal),
            drives: journal.drives().iter().map(drive).collect(),
            peers: peers(ctx),
            limits: limits::of(ctx.network.limits()),
            swarm: ctx.topics.status(),
            disk_free: self.disk_free,
        }
    }

    /// Why the ledger is away, if it is known to be.
    pub fn why_away(&self, ctx: &Context) -> Option<String> {
        let behind =
            |(at, known)| format!("the ledger's node is at block {at} and was at {known} before: it catches up");
        match ctx.ledger.is_up() {
            true => self.behind.map(behind),
            false => Some(ctx.ledger_is_away()),
        }
    }

    /// Why the ledger is not followed, if it isn't, and what becomes of everything else.
    pub fn no_ledger(&self, ctx: &Context) -> Option<String> {
        if let Some(broken) = &self.broken {
            return Some(broken.clone());
        }
        self.away?;
        let Some(why) = self.why_away(ctx) else { return Some("its newest block is on its way".into()) };
        let advice = if ctx.ledger.is_up() { "" } else { "is its node running? " };
        Some(format!("{why}; {advice}trying again by itself, and serving what is here meanwhile"))
    }

    fn ledger(&self, ctx: &Context, view: Option<&AccountView>) -> LedgerStatus {
        let params = ctx.ledger.params();
        let away = self.away.filter(|_| self.broken.is_none());
        LedgerStatus {
            url: ctx.ledger.url().into(),
            rpc: ctx.rpc.clone(),
            chain: ctx.ledger.chain().name.clone(),
            connected: self.away.is_none() && self.broken.is_none(),
            away_seconds: away.map(|since| since.elapsed().as_secs()),
            problem: self.no_ledger(ctx),
            best: view.map_or(0, |view| view.at),
            finalized: self.finalized,
            block_millis: params.block_millis,
            period: params.period,
            deadline: params.deadline,
        }
    }

    fn contracts(&self, view: &AccountView, hoster: &Hoster<AccountId>) -> Vec<ContractStatus> {
        let earned = tell::earnings(view);
        let Some(hosting) = &view.hosting else { return vec![] };
        let status = |work: &Work<AccountId>| {
            let contract = &work.contract;
            let (state, by) = state(contract.state);
            let data = hoster.data().get(&work.id);
            let (held, _) = self.progress.get(&work.id).copied().unwrap_or_default();
            let failure = hoster.failure(Errand::Contract(work.id));
            let mut words = data_in_words(data, (held, contract.bytes));
            if let Some(Failure { why, next, .. }) = failure {
                words = format!("{words}; the last call failed: {why}; tried again in block {next}");
            }
            ContractStatus {
                id: work.id,
                request: contract.request,
                feeds: work.feeds.iter().map(|feed| Key(feed.key)).collect(),
                bytes: contract.bytes,
                held: if data == Some(&Data::Held) { contract.bytes } else { held.min(contract.bytes) },
                state,
                by,
                data: words,
                price: Amount(contract.price),
                reserve: Amount(contract.reserve),
                earned: Amount(earned.get(&work.id).copied().unwrap_or(0)),
                paid: Amount(contract.paid),
                proven: hosting.holdings.iter().find(|held| held.contract == work.id).map_or(0, |held| held.proven),
            }
        };
        hosting.contracts.iter().map(status).collect()
    }

    fn requests(&self, view: Option<&AccountView>, sponsor: &Sponsor, journal: &Journal) -> Vec<RequestStatus> {
        let file =
            |keys: &[Key]| keys.iter().find_map(|key| journal.made_of(key)).map(|path| path.display().to_string());
        let open = view.iter().flat_map(|view| &view.requests).map(|request| {
            let keys: Vec<_> = request.keys.iter().map(|key| Key(*key)).collect();
            request_status(request, file(&keys), keys)
        });
        let opening = sponsor.intents().iter().filter(|(_, intent)| intent.request.is_none()).map(|(id, intent)| {
            let failure = sponsor.failure(*id);
            let feeds: Vec<_> = intent.feeds.iter().map(|feed| Key(feed.key)).collect();
            RequestStatus {
                id: None,
                file: file(&feeds),
                feeds,
                bytes: intent.feeds.iter().filter_map(|feed| feed.head.bytes().ok()).sum(),
                state: RequestState::Opening,
                why: Some(match failure {
                    Some(failure) => failure.why.clone(),
                    None if intent.until.is_some() => {
                        "it may have been sent before the daemon was stopped; it is sent again when that one is too old"
                            .into()
                    }
                    None => "its transaction is on its way into a block".into(),
                }),
                next: failure.map(|failure| failure.next).or(intent.until),
                replicas: intent.terms.replicas,
                hosted: 0,
                coming: 0,
                term: intent.terms.term,
                ends: None,
                max_price: Amount(intent.terms.max_price),
                budget: Amount(0),
                contracts: vec![],
            }
        });
        open.chain(opening).collect()
    }
}

fn request_status(view: &RequestView<AccountId>, file: Option<String>, feeds: Vec<Key>) -> RequestStatus {
    let request = &view.request;
    let (hosted, coming) = (tell::hosted(view), tell::coming(view));
    let state = match request.closing {
        Some(_) => RequestState::Closing,
        None if hosted >= request.terms.replicas => RequestState::Hosted,
        None => RequestState::Matching,
    };
    let why = match (request.closing, request.waiting) {
        (Some(closing), _) => Some(closing_in_words(closing).to_owned()),
        (None, Some(waiting)) => Some(tell::why_waiting(waiting.why).to_owned()),
        (None, None) if coming > 0 => Some("hosters are fetching the data".to_owned()),
        (None, None) => None,
    };
    RequestStatus {
        id: Some(view.id),
        feeds,
        file,
        bytes: request.bytes(),
        state,
        why,
        next: request.waiting.map(|waiting| waiting.next),
        replicas: request.terms.replicas,
        hosted,
        coming,
        term: request.terms.term,
        ends: request.ends,
        max_price: Amount(request.terms.max_price),
        budget: Amount(request.budget),
        contracts: view.contracts.iter().map(replica).collect(),
    }
}

fn replica(view: &ContractView<AccountId>) -> ReplicaStatus {
    let contract = &view.contract;
    let (state, by) = state(contract.state);
    let address = |source: &Source| crate::discovery::Endpoint::from(source).address.to_string();
    ReplicaStatus {
        contract: view.id,
        hoster: contract.hoster.to_string(),
        state,
        by,
        price: Amount(contract.price),
        reserve: Amount(contract.reserve),
        paid: Amount(contract.paid),
        proven: view.proven.unwrap_or(0),
        addresses: view.sources.iter().map(address).collect(),
        noise_key: view.sources.first().map(|source| Key(source.noise_key)),
    }
}

fn money(view: &AccountView) -> Money {
    let paid: u128 = view.hosting.iter().flat_map(|hosting| &hosting.contracts).map(|work| work.contract.paid).sum();
    let earned: u128 = tell::earnings(view).values().sum();
    Money {
        free: Amount(view.free),
        budgets: Amount(view.budgets),
        deposits: Amount(view.deposits),
        bond: Amount(view.bond),
        paid: Amount(paid),
        earned_unpaid: Amount(earned.saturating_sub(paid)),
    }
}

/// The offer as it stands on the ledger.
pub(crate) fn offer(view: &AccountView, role: &Hoster<AccountId>) -> Option<OfferStatus> {
    let hosting = view.hosting.as_ref()?;
    let hoster = &hosting.hoster;
    let params = &view.params;
    let number = clock::next(hoster.phase, view.at, params);
    let closed = view.at.checked_sub(params.deadline).and_then(|at| clock::latest(hoster.phase, at, params));
    Some(OfferStatus {
        standing: match hoster.standing {
            hoster::Standing::Open => Standing::Open,
            hoster::Standing::Away => Standing::Away,
            hoster::Standing::Leaving => Standing::Leaving,
        },
        space: hoster.offer.space,
        used: hoster.used,
        price: Amount(hoster.offer.price),
        max_term: hoster.offer.max_term,
        region: hoster.offer.region.and_then(|region| String::from_utf8(region.to_vec()).ok()),
        missed: closed.map_or(0, |number| hoster.missed(&hosting.holdings, number)),
        next_challenge: Some(clock::block_of(hoster.phase, number, params)),
        why: why_not(role),
    })
}

/// An offer that is ordered and not on the ledger.
pub(crate) fn posting(role: &Hoster<AccountId>, journal: &Journal) -> Option<OfferStatus> {
    let (Ordered::Offer(order), Wanted::Offer(offer)) = (journal.offer(), role.wanted()) else { return None };
    Some(OfferStatus {
        standing: Standing::Posting,
        space: offer.space,
        used: 0,
        price: order.price,
        max_term: offer.max_term,
        region: order.region.clone(),
        missed: 0,
        next_challenge: None,
        why: why_not(role).or_else(|| Some("its transaction is on its way into a block".into())),
    })
}

/// What stands in the way of the offer that is wanted.
fn why_not(role: &Hoster<AccountId>) -> Option<String> {
    if let Some((bond, free)) = role.unaffordable() {
        return Some(no_bond(bond, free));
    }
    let Failure { why, next, refused } = role.failure(Errand::Offer)?;
    Some(match refused {
        true => format!("{why}; tried again when there is more money, or by `datdot host`"),
        false => format!("{why}; tried again in block {next}"),
    })
}

/// Why no offer is posted: what is missing of its bond is more than what is free.
pub(crate) fn no_bond(missing: Balance, free: Balance) -> String {
    format!("the account has {} free, but {} are to be locked as bond: fund it", Dat(free), Dat(missing))
}

fn feeds(ctx: &Context, view: Option<&AccountView>, journal: &Journal) -> Vec<FeedStatus> {
    let works = view.iter().flat_map(|view| &view.hosting).flat_map(|hosting| &hosting.contracts);
    let hosted: BTreeSet<_> = works.flat_map(|work| &work.feeds).map(|feed| feed.key).collect();
    let status = |feed: &datdot_hypercore::Feed| {
        let (info, key) = (feed.info(), Key(feed.key().0));
        let role = if journal.unpublished().contains(&key) {
            FeedRole::Unpublished
        } else if info.writable {
            FeedRole::Author
        } else if journal.sponsored().contains(&key) {
            FeedRole::Sponsor
        } else if hosted.contains(&key.0) {
            FeedRole::Hoster
        } else {
            FeedRole::Reader
        };
        let announced = ctx.topics.announced(&feed.key()).map(|ago| ago.as_secs());
        FeedStatus { key, role, blocks: info.length, bytes: info.bytes, held: info.bytes_here, announced }
    };
    ctx.store.feeds().iter().map(status).collect()
}

fn drive((key, drive): (&Key, &Drive)) -> DriveStatus {
    let Drive { blobs, folder, figures } = drive;
    DriveStatus {
        key: *key,
        blobs: *blobs,
        folder: folder.as_ref().map(|folder| folder.display().to_string()),
        version: figures.version,
        files: figures.files,
        bytes: figures.bytes,
    }
}

fn peers(ctx: &Context) -> Vec<PeerStatus> {
    let status = |peer: datdot_hypercore::PeerInfo| PeerStatus {
        // Found by a feed's key, it has none that would say much.
        address: peer.address.map_or_else(|| "by the swarm".into(), |address| address.to_string()),
        noise_key: Key(peer.remote),
    };
    ctx.network.peers().into_iter().map(status).collect()
}

fn state(state: State) -> (ContractState, Block) {
    match state {
        State::Drawn { answer_by } => (ContractState::Drawn, answer_by),
        State::Fetching { by } => (ContractState::Fetching, by),
        State::Hosting { over_after, .. } => (ContractState::Hosting, over_after),
        State::Ending { over_after, .. } => (ContractState::Ending, over_after),
    }
}

fn data_in_words(data: Option<&Data>, (held, total): (u64, u64)) -> String {
    match data {
        None => "not asked for yet".into(),
        Some(Data::Fetching { healing: false, .. }) => format!("being fetched: {held} of {total} bytes"),
        Some(Data::Fetching { healing: true, .. }) => "damaged; what is missing is being fetched again".into(),
        Some(Data::Waiting { why, next, .. }) => format!("{why}; tried again in block {next}"),
        Some(Data::Checking { .. }) => "here; being hashed".into(),
        Some(Data::Held) => "held".into(),
        Some(Data::WrongRoot(feed)) => format!("feed {} hashes to another root than the sponsor's", Key(*feed)),
        Some(Data::Scrubbing) => "damaged; being looked through".into(),
    }
}

fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Unwilling => "not wanted",
        Reason::NoRoom => "no room",
        Reason::Unreachable => "unreachable",
        Reason::RootMismatch => "wrong root",
    }
}

fn closing_in_words(closing: datdot_market::request::Closing) -> &'static str {
    use datdot_market::request::Closing;
    match closing {
        Closing::TermOver => "the term is over; what is left returns when the last contract is settled",
        Closing::Cancelled => "it was cancelled; what is left returns when the last contract is settled",
        Closing::RootMismatch => "two hosters found that the data doesn't have the root that the request claims",
        Closing::NobodyHosted => "nobody hosted it for as long as its term; what was locked returns",
    }
}
