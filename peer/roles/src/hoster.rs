//! A hoster: takes contracts, has their data fetched, checked, proven, healed and dropped.
//!
//! The ledger says what is owed for a contract, and beside that stands what is here of its data:
//!
//! ```text
//!            ┌──────────────────────────────────────────────┐
//!            ▼                                              │ damage
//! (none) ─▶ fetching ──▶ checking ──▶ held ──proof fails─▶ scrubbing
//!            │  ▲            └──▶ wrong root (passed, if it isn't hosted yet)
//!            ▼  │ some blocks later
//!           waiting (passed after some tries, if it isn't hosted yet)
//! ```
//!
//! A restart begins at the left again and gets through at once with what is on disk.

mod act;

use crate::{
    Call, FeedKey,
    errand::{Errand, Errands, Failure, Outcome},
    note::Note,
};
use datdot_market::{
    Balance, Block, ContractId, clock,
    contract::State,
    hoster::{Hoster as Standing, Standing::Open},
    params::Params,
    terms::{Feed, Offer, Source},
    view::{AccountView, Challenge, Hosting, Work},
};
use datdot_proof::{proof::Proof, segment::Segment};
use std::collections::{BTreeMap, BTreeSet};

/// What a hoster's owner can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Fetches in a row that reach nobody, after which a contract is passed as unreachable.
    pub unreachable_after: u32,
    /// Challenges missed in a row after which contracts with damage are forfeited, so that the others don't lapse with
    /// them. `None`: one less than the chain allows.
    pub forfeit_after: Option<u32>,
    /// Earned and unpaid money of one contract that is worth the fee of having it paid.
    pub settle_from: Balance,
    /// How often one challenge is tried.
    pub tries_a_challenge: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            unreachable_after: 3,
            forfeit_after: None,
            settle_from: datdot_market::params::DAT / 10,
            tries_a_challenge: 4,
        }
    }
}

/// What the owner wants of the offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: contracts that there are go on, the offer stays as it is on the ledger.
    #[default]
    AsItIs,
    /// This offer stands.
    Offer(Offer),
    /// No new contracts.
    Stop,
}

impl Wanted {
    /// Whether an offer is wanted that does not stand like this.
    fn is_to_be_posted(&self, hoster: Option<&Standing>) -> bool {
        let stands = |offer: &Offer| hoster.is_some_and(|it| it.standing == Open && it.offer == *offer);
        matches!(self, Self::Offer(offer) if !stands(offer))
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<Account> {
    /// The account as the best block shows it.
    View(AccountView<Account>),
    /// The account as the last finalized block shows it.
    Finalized(AccountView<Account>),
    /// The owner changed their mind.
    Want(Wanted),
    /// Bytes that the disk has left, besides what running fetches still need.
    Room(u64),
    /// A feed is needed here for another reason than a contract.
    Own(FeedKey),
    /// A feed is no longer needed for that reason.
    Disown(FeedKey),
    /// [`Action::Fetch`] succeeded: every block of every feed is here.
    Fetched(ContractId),
    /// [`Action::Fetch`] did not.
    FetchFailed {
        /// The contract.
        contract: ContractId,
        /// Why.
        why: Trouble,
        /// Whether at least one block came.
        progressed: bool,
    },
    /// What [`Action::Check`] found.
    Checked(ContractId, Checked),
    /// [`Action::Prove`] made a proof that passes its check.
    Proved(Challenge, Proof),
    /// [`Action::Prove`] could not: the data of a contract is damaged or missing.
    NotProved {
        /// The challenge.
        challenge: Challenge,
        /// The contract whose data it is.
        contract: ContractId,
        /// The feed.
        feed: FeedKey,
        /// What is wrong with it.
        why: String,
    },
    /// Stored blocks of a feed turned out to be damaged, outside of [`Action::Scrub`].
    Damaged(FeedKey),
    /// [`Action::Scrub`] is done; damaged blocks count as missing now.
    Scrubbed(FeedKey),
    /// What came of [`Action::Submit`].
    Ended(Errand, Outcome),
}

/// Why data did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No peer that was tried has it, or answers.
    #[error("no source can be reached that has the data ({0})")]
    Unreachable(String),
    /// The disk is full, or fails.
    #[error("the disk can't take it: {0}")]
    NoRoom(String),
    /// It can't be kept here: the head is not the author's, or contradicts another one that is kept.
    #[error("{0}")]
    Unfit(String),
}

/// What hashing the data of a contract gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The roots on the ledger.
    Whole,
    /// Another root for this feed.
    Mismatch(FeedKey),
    /// It could not be hashed: something is missing or can't be read.
    Incomplete(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Submit a call, and answer with [`Input::Ended`].
    Submit(Errand, Call),
    /// Fetch what is missing of a contract's feeds, and answer with [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch {
        /// The contract.
        contract: ContractId,
        /// Its feeds.
        feeds: Vec<Feed>,
        /// Where the ledger says it can be fetched.
        sources: Vec<Source>,
    },
    /// Stop fetching: the contract is gone.
    StopFetching(ContractId),
    /// Compare the data with the roots on the ledger, and answer with [`Input::Checked`].
    Check {
        /// The contract.
        contract: ContractId,
        /// Feeds and what their bytes should be.
        segments: Vec<(FeedKey, Segment)>,
        /// Whether to hash everything anew, whatever was hashed before.
        anew: bool,
    },
    /// Make a proof and check it, and answer with [`Input::Proved`] or [`Input::NotProved`].
    Prove {
        /// The challenge.
        challenge: Challenge,
        /// What it covers, in the order in which positions are drawn.
        holdings: Vec<Covered>,
    },
    /// Verify every block of a feed, take damaged ones out, and answer with [`Input::Scrubbed`].
    Scrub(FeedKey),
    /// Remove a feed from the disk: nobody needs it any more, and that is final.
    Drop(FeedKey),
    /// Say it to whom it concerns.
    Tell(Note),
}

/// A holding that a challenge covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// The contract.
    pub contract: ContractId,
    /// How often it is drawn.
    pub weight: u128,
    /// Its feeds, in order.
    pub feeds: Vec<FeedKey>,
    /// Its segments, in the same order.
    pub segments: Vec<Segment>,
}

/// What is here of a contract's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Being fetched.
    Fetching {
        /// Fetches in a row that brought nothing.
        tries: u32,
        /// It was here before.
        healing: bool,
    },
    /// Not here, and tried again later.
    Waiting {
        /// Why.
        why: Trouble,
        /// Fetches in a row that brought nothing.
        tries: u32,
        /// When it is tried again.
        next: Block,
        /// It was here before.
        healing: bool,
    },
    /// All here, being hashed.
    Checking {
        /// It was here before.
        healing: bool,
    },
    /// All here, with the roots on the ledger.
    Held,
    /// All here, with another root for a feed.
    WrongRoot(FeedKey),
    /// Damaged; being looked through.
    Scrubbing,
}

#[derive(Clone, Debug)]
struct Attempt {
    challenge: Challenge,
    tries: u32,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Making,
    Made(Proof),
    Withheld,
}

/// The state of a hoster.
#[derive(Clone, Debug)]
pub struct Hoster<Account> {
    policy: Policy,
    wanted: Wanted,
    room: Option<u64>,
    view: Option<AccountView<Account>>,
    data: BTreeMap<ContractId, Data>,
    /// Feeds that are or may be on disk because of contracts.
    stored: BTreeSet<FeedKey>,
    /// Feeds that are on disk for another reason.
    own: BTreeSet<FeedKey>,
    errands: Errands,
    /// What was free when the offer was last submitted.
    tried_with: Option<Balance>,
    attempt: Option<Attempt>,
    told_missed: Option<u32>,
    drawn: BTreeSet<ContractId>,
}

impl<Account: Clone> Hoster<Account> {
    /// A hoster that has `stored` feeds on its disk because of contracts, now or before.
    pub fn new(policy: Policy, stored: BTreeSet<FeedKey>) -> Self {
        Self {
            policy,
            wanted: Wanted::AsItIs,
            room: None,
            view: None,
            data: BTreeMap::new(),
            stored,
            own: BTreeSet::new(),
            errands: Errands::default(),
            tried_with: None,
            attempt: None,
            told_missed: None,
            drawn: BTreeSet::new(),
        }
    }

    /// Takes what happened and says what is to be done. `now` is the best block.
    pub fn handle(&mut self, now: Block, input: Input<Account>) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::View(view) => self.seen(view, &mut actions),
            Input::Finalized(view) => {
                self.drop_unneeded(&view, &mut actions);
                return actions;
            }
            Input::Want(wanted) => {
                self.wanted = wanted;
                self.errands.forgive(Errand::Offer);
            }
            Input::Room(free) => self.room = Some(free),
            Input::Own(feed) => drop(self.own.insert(feed)),
            Input::Disown(feed) => {
                // From here on it stays only as long as a contract needs it.
                if self.own.remove(&feed) {
                    self.stored.insert(feed);
                }
            }
            Input::Fetched(contract) => self.fetched(contract, &mut actions),
            Input::FetchFailed { contract, why, progressed } => {
                self.fetch_failed(contract, why, progressed, now, &mut actions)
            }
            Input::Checked(contract, checked) => self.checked(contract, checked, now, &mut actions),
            Input::Proved(challenge, proof) => {
                if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.challenge == challenge) {
                    attempt.stage = Stage::Made(proof);
                }
            }
            Input::NotProved { challenge, feed, why, .. } => {
                if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.challenge == challenge) {
                    attempt.stage = Stage::Withheld;
                    actions.push(Action::Tell(Note::Withheld { number: challenge.number, why }));
                }
                self.scrub(feed, &mut actions);
            }
            Input::Damaged(feed) => self.scrub(feed, &mut actions),
            Input::Scrubbed(feed) => self.scrubbed(feed),
            Input::Ended(errand, outcome) => self.ended(errand, outcome, now, &mut actions),
        }
        self.act(now, &mut actions);
        actions
    }

    /// What is here of each contract's data.
    pub fn data(&self) -> &BTreeMap<ContractId, Data> {
        &self.data
    }

    /// What the owner wants.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Why the last call about something failed, and when it is tried again.
    pub fn failure(&self, errand: Errand) -> Option<&Failure> {
        self.errands.failure(errand)
    }

    /// What the offer that is wanted still needs as bond and what is free, if that is less: it is not submitted then.
    pub fn unaffordable(&self) -> Option<(Balance, Balance)> {
        let view = self.view.as_ref()?;
        let hoster = view.hosting.as_ref().map(|hosting| &hosting.hoster);
        self.wanted.is_to_be_posted(hoster).then(|| act::bond_missing(view)).flatten()
    }

    fn seen(&mut self, view: AccountView<Account>, actions: &mut Vec<Action>) {
        let works = view.hosting.iter().flat_map(|hosting| &hosting.contracts);
        let ids: BTreeSet<_> = works.clone().map(|work| work.id).collect();
        for work in works {
            if matches!(work.contract.state, State::Drawn { .. }) && self.drawn.insert(work.id) {
                let (request, bytes) = (work.contract.request, work.contract.bytes);
                actions.push(Action::Tell(Note::Drawn { contract: work.id, request, bytes }));
            }
        }
        self.drawn.retain(|id| ids.contains(id));
        for (id, data) in std::mem::take(&mut self.data) {
            if ids.contains(&id) {
                self.data.insert(id, data);
                continue;
            }
            if let Data::Fetching { .. } = data {
                actions.push(Action::StopFetching(id));
            }
            actions.push(Action::Tell(Note::Gone { contract: id }));
        }
        if let Some(hosting) = &view.hosting
            && let Some((number, missed)) = missed(hosting, view.at, &view.params).filter(|(_, missed)| *missed > 0)
            && self.told_missed.replace(number) != Some(number)
        {
            actions.push(Action::Tell(Note::Missed { number, missed }));
        }
        self.errands.retain(|errand| match errand {
            Errand::Contract(id) => ids.contains(&id),
            Errand::Proof(number) => self.attempt.as_ref().is_some_and(|at| at.challenge.number == number),
            Errand::Offer | Errand::Request(_) => true,
        });
        self.view = Some(view);
    }

    fn fetched(&mut self, contract: ContractId, actions: &mut Vec<Action>) {
        let Some(Data::Fetching { healing, .. }) = self.data.get(&contract) else { return };
        let anew = *healing;
        let Some(work) = self.work(contract) else { return };
        let segments = segments(work);
        self.data.insert(contract, Data::Checking { healing: anew });
        actions.push(Action::Check { contract, segments, anew });
    }

    fn fetch_failed(
        &mut self,
        contract: ContractId,
        why: Trouble,
        progressed: bool,
        now: Block,
        actions: &mut Vec<Action>,
    ) {
        let Some(Data::Fetching { tries, healing }) = self.data.get(&contract) else { return };
        let (tries, healing) = (if progressed { 1 } else { tries.saturating_add(1) }, *healing);
        let next = now.saturating_add(1u32.checked_shl(tries.min(6)).unwrap_or(64));
        actions.push(Action::Tell(Note::FetchWaits { contract, why: why.to_string(), next }));
        self.data.insert(contract, Data::Waiting { why, tries, next, healing });
    }

    fn checked(&mut self, contract: ContractId, checked: Checked, now: Block, actions: &mut Vec<Action>) {
        let Some(Data::Checking { healing }) = self.data.get(&contract) else { return };
        let healing = *healing;
        let data = match checked {
            Checked::Whole => Data::Held,
            Checked::Mismatch(feed) => Data::WrongRoot(feed),
            Checked::Incomplete(why) => {
                Data::Waiting { why: Trouble::Unreachable(why), tries: 1, next: now.saturating_add(1), healing: true }
            }
        };
        if data == Data::Held {
            actions.push(Action::Tell(Note::Held { contract }));
            let feeds = self.work(contract).filter(|_| healing).map(|work| work.feeds.iter().map(|feed| feed.key));
            actions.extend(feeds.into_iter().flatten().map(|feed| Action::Tell(Note::Healed { feed })));
        }
        self.data.insert(contract, data);
    }

    /// Has a feed looked through; only once, whatever the number of contracts that need it.
    fn scrub(&mut self, feed: FeedKey, actions: &mut Vec<Action>) {
        let needing = self.needing(feed);
        let under_way = needing.iter().any(|id| self.data.get(id) == Some(&Data::Scrubbing));
        let mut found = false;
        for id in needing {
            if let Some(data @ (Data::Held | Data::WrongRoot(_))) = self.data.get_mut(&id) {
                *data = Data::Scrubbing;
                found = true;
            }
        }
        if found && !under_way {
            actions.push(Action::Scrub(feed));
        }
    }

    fn scrubbed(&mut self, feed: FeedKey) {
        for id in self.needing(feed) {
            if let Some(data @ Data::Scrubbing) = self.data.get_mut(&id) {
                // Fetched at once, and hashed anew: what is damaged may also be what was kept beside the data.
                let why = Trouble::Unreachable("damaged blocks are fetched again".into());
                *data = Data::Waiting { why, tries: 0, next: 0, healing: true };
            }
        }
    }

    fn ended(&mut self, errand: Errand, outcome: Outcome, now: Block, actions: &mut Vec<Action>) {
        if !self.errands.is_in_flight(errand) {
            return;
        }
        self.errands.end(errand, &outcome, now);
        if let (Errand::Proof(number), Outcome::Refused { .. }) = (errand, &outcome)
            && let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.challenge.number == number)
        {
            // The same proof would be refused again.
            attempt.stage = Stage::Withheld;
        }
        if let Outcome::Refused { why } | Outcome::Lost { why } = outcome {
            let what = match errand {
                Errand::Offer => "the offer".into(),
                Errand::Contract(id) => format!("contract {id}"),
                Errand::Proof(number) => format!("the proof for challenge {number}"),
                Errand::Request(_) => "a request".into(),
            };
            actions.push(Action::Tell(Note::CallFailed { what, why }));
        }
    }

    /// Drops feeds that no contract needs: neither in the block that is final nor in the best one.
    fn drop_unneeded(&mut self, finalized: &AccountView<Account>, actions: &mut Vec<Action>) {
        let Some(best) = &self.view else { return };
        let needed: BTreeSet<_> = [best, finalized]
            .iter()
            .flat_map(|view| view.hosting.iter().flat_map(|hosting| &hosting.contracts))
            .flat_map(|work| work.feeds.iter().map(|feed| feed.key))
            .collect();
        let (kept, unneeded) = std::mem::take(&mut self.stored)
            .into_iter()
            .partition(|feed| needed.contains(feed) || self.own.contains(feed));
        self.stored = kept;
        actions.extend(BTreeSet::into_iter(unneeded).map(Action::Drop));
    }

    fn work(&self, contract: ContractId) -> Option<&Work<Account>> {
        find(self.view.as_ref()?.hosting.as_ref()?, contract)
    }

    fn needing(&self, feed: FeedKey) -> Vec<ContractId> {
        let works = self.view.iter().flat_map(|view| &view.hosting).flat_map(|hosting| &hosting.contracts);
        works.filter(|work| work.feeds.iter().any(|other| other.key == feed)).map(|work| work.id).collect()
    }
}

fn find<Account>(hosting: &Hosting<Account>, contract: ContractId) -> Option<&Work<Account>> {
    hosting.contracts.iter().find(|work| work.id == contract)
}

fn segments<Account>(work: &Work<Account>) -> Vec<(FeedKey, Segment)> {
    let segment = |feed: &Feed| Some((feed.key, Segment { bytes: feed.head.bytes().ok()?, root: feed.root }));
    work.feeds.iter().filter_map(segment).collect()
}

/// The last challenge whose window is closed, and how many were missed in a row with it.
fn missed<Account>(hosting: &Hosting<Account>, at: Block, params: &Params) -> Option<(u32, u32)> {
    let number = clock::latest(hosting.hoster.phase, at.checked_sub(params.deadline)?, params)?;
    Some((number, hosting.hoster.missed(&hosting.holdings, number)))
}
