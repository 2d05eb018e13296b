//! A sponsor: opens requests, each exactly once, whatever happens in between.
//!
//! ```text
//! intent ──submit──▶ in flight ──in a block──▶ opened ──gone, and that is final──▶ over
//!   │                    │ refused
//!   │                    ▼
//!   │                 failed: the user decides
//!   └─ after a restart: it may have been submitted; a request on the ledger that is the same is it,
//!      and if none has come when its transaction is too old to come, it is submitted again
//! ```

use crate::{
    Call, FeedKey,
    errand::{Errand, Errands, Failure, Outcome},
};
use datdot_market::{
    Block, RequestId,
    terms::{Feeds, Sources, Terms},
    view::{AccountView, RequestView},
};
use std::collections::{BTreeMap, BTreeSet};

/// Names a request before the ledger does.
pub type IntentId = u64;

/// A request that is wanted, as it is written down before anything is submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What to host.
    pub feeds: Feeds,
    /// How.
    pub terms: Terms,
    /// Where it can be fetched.
    pub sources: Sources,
    /// The best block before it could first be submitted.
    pub since: Block,
    /// Last block that a transaction of before the last restart can be in, if there may be one.
    pub until: Option<Block>,
    /// The request, once it is known, and the block in which it was seen.
    pub request: Option<(RequestId, Block)>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<Account> {
    /// A request is wanted, now or before a restart. Write it down first.
    Want(IntentId, Intent),
    /// The account as the best block shows it.
    View(AccountView<Account>),
    /// The account as the last finalized block shows it.
    Finalized(AccountView<Account>),
    /// What came of [`Action::Submit`].
    Ended(Errand, Outcome),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Submit a call, and answer with [`Input::Ended`].
    Submit(Errand, Call),
    /// Write down that the intent is this request, as this block showed.
    Opened(IntentId, RequestId, Block),
    /// It was refused: forget it, and tell the user why.
    Failed(IntentId, String),
    /// The request is over, and that is final: forget it; these feeds need not be served for it any more.
    Over(IntentId, Vec<FeedKey>),
}

/// The state of a sponsor.
#[derive(Clone, Debug, Default)]
pub struct Sponsor {
    intents: BTreeMap<IntentId, Intent>,
    errands: Errands,
    /// Requests in the best block, and whether they still take hosters.
    best: BTreeMap<RequestId, bool>,
}

impl Sponsor {
    /// A sponsor that wants nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what happened and says what is to be done. `now` is the best block.
    pub fn handle<Account>(&mut self, now: Block, input: Input<Account>) -> Vec<Action> {
        match input {
            Input::Want(id, intent) => {
                self.intents.insert(id, intent);
                vec![]
            }
            Input::View(view) => self.seen(&view),
            Input::Finalized(view) => self.final_seen(&view),
            Input::Ended(errand, outcome) => self.ended(errand, outcome, now),
        }
    }

    /// What is wanted and what became of it.
    pub fn intents(&self) -> &BTreeMap<IntentId, Intent> {
        &self.intents
    }

    /// Why an intent was not submitted yet, and when it is tried again.
    pub fn failure(&self, id: IntentId) -> Option<&Failure> {
        self.errands.failure(Errand::Request(id))
    }

    /// The intent that wants the same already, with its request once that is known: the same wish again, to follow it after
    /// an interruption for instance, must not be paid twice. One whose request is closing or gone is over. At `any_price`
    /// the highest price may be another one.
    pub fn same(&self, feeds: &Feeds, terms: &Terms, any_price: bool) -> Option<(IntentId, Option<RequestId>)> {
        self.intents.iter().find_map(|(id, intent)| {
            let max_price = if any_price { intent.terms.max_price } else { terms.max_price };
            let same = intent.feeds == *feeds && intent.terms == Terms { max_price, ..*terms };
            let request = intent.request.map(|(request, _)| request);
            let lives = request.is_none_or(|request| self.best.get(&request) == Some(&true));
            (same && lives).then_some((*id, request))
        })
    }

    fn seen<Account>(&mut self, view: &AccountView<Account>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.best = view.requests.iter().map(|view| (view.id, view.request.closing.is_none())).collect();
        let still = |intent: &Intent| {
            let (id, _) = intent.request?;
            view.requests.iter().find(|view| view.id == id && intent.is(view)).map(|view| view.id)
        };
        let mut taken: BTreeSet<_> = self.intents.values().filter_map(still).collect();
        // The newest first: an older one that wanted the same, and is over, must not take its request.
        for (id, intent) in self.intents.iter_mut().rev() {
            let errand = Errand::Request(*id);
            if still(intent).is_some() {
                continue;
            }
            // A reorganisation may have given it another number.
            let found = view.requests.iter().find(|view| !taken.contains(&view.id) && intent.is(view));
            if let Some(found) = found {
                taken.insert(found.id);
                intent.request = Some((found.id, view.at));
                actions.push(Action::Opened(*id, found.id, view.at));
            } else if intent.request.is_none()
                && intent.until.is_none_or(|until| view.at > until)
                && self.errands.may_start(errand, view.at)
            {
                self.errands.start(errand);
                let Intent { feeds, terms, sources, .. } = intent.clone();
                actions.push(Action::Submit(errand, Call::Request { feeds, terms, sources }));
            }
        }
        actions
    }

    /// A request that was opened and is gone from the best and from a final block is over. It is never opened again by
    /// itself, not even if a reorganisation took it: the user's money is not spent twice.
    fn final_seen<Account>(&mut self, view: &AccountView<Account>) -> Vec<Action> {
        let is_over = |intent: &Intent| {
            let is_on_ledger =
                |id| self.best.contains_key(&id) || view.requests.iter().any(|view| view.id == id && intent.is(view));
            intent.request.is_some_and(|(id, seen)| view.at >= seen && !is_on_ledger(id))
        };
        let over: Vec<_> = self.intents.iter().filter(|(_, intent)| is_over(intent)).map(|(id, _)| *id).collect();
        let mut actions = Vec::new();
        for id in over {
            let intent = self.intents.remove(&id);
            let keys = intent.iter().flat_map(|intent| &intent.feeds).map(|feed| feed.key).collect();
            actions.push(Action::Over(id, keys));
        }
        self.errands.retain(|errand| matches!(errand, Errand::Request(id) if self.intents.contains_key(&id)));
        actions
    }

    fn ended(&mut self, errand: Errand, outcome: Outcome, now: Block) -> Vec<Action> {
        let Errand::Request(id) = errand else { return vec![] };
        self.errands.end(errand, &outcome, now);
        match outcome {
            Outcome::Refused { why } if self.intents.remove(&id).is_some() => vec![Action::Failed(id, why)],
            _ => vec![],
        }
    }
}

impl Intent {
    /// Whether a request on the ledger is the one that was wanted.
    fn is<Account>(&self, view: &RequestView<Account>) -> bool {
        view.request.opened > self.since
            && view.request.terms == self.terms
            && view.keys.iter().eq(self.feeds.iter().map(|feed| &feed.key))
            && view.request.segments.iter().map(|segment| segment.root).eq(self.feeds.iter().map(|feed| feed.root))
    }
}
