//! What concerns one account, block by block.

use crate::{
    AccountView,
    account::AccountId,
    error::Error,
    event::Event,
    ledger::{At, BlockId, Ledger, changed},
};
use datdot_market::{Block, RequestId};
use std::collections::BTreeSet;
use subxt::utils::H256;

/// Events of at most so many blocks are told when some were skipped.
const CATCH_UP: usize = 64;

/// Follows an account: see [`Ledger::follow`].
pub struct Follow {
    ledger: Ledger,
    account: AccountId,
    told: Option<BlockId>,
    known: Known,
}

/// An account at a new best block.
#[derive(Clone, Debug)]
pub struct News {
    /// The best block.
    pub best: BlockId,
    /// The last finalized block.
    pub finalized: BlockId,
    /// The account's view at the best block: what it owes and owns.
    pub view: AccountView,
    /// What happened to it since the last news, in order; also in blocks that were skipped (up to 64 of them).
    pub events: Vec<(Block, Event)>,
}

/// What an account has to do with as a sponsor.
#[derive(Clone, Debug, Default)]
struct Known {
    requests: BTreeSet<RequestId>,
    hosters: BTreeSet<AccountId>,
}

impl Follow {
    pub(crate) fn new(ledger: Ledger, account: AccountId) -> Self {
        Self { ledger, account, told: None, known: Known::default() }
    }

    /// The next news: at once for the first time, then for each new best block, or the newest if several came. Waits while the node is
    /// away; fails only when it came back as another chain or answers what is not understood. Can be dropped and called again without
    /// missing anything.
    pub async fn next(&mut self) -> Result<News, Error> {
        loop {
            let seen = *self.ledger.ends.seen.borrow_and_update();
            if let Some(seen) = seen.filter(|seen| self.told != Some(seen.best)) {
                match self.look(seen.best).await {
                    Ok((view, events, known)) => {
                        self.told = Some(seen.best);
                        self.known = known;
                        return Ok(News { best: seen.best, finalized: seen.finalized, view, events });
                    }
                    // The block is gone again (a reorganisation, a restart), or the node: the next one is waited for.
                    Err(error @ (Error::Refused { .. } | Error::Unreachable { .. })) => {
                        tracing::debug!(target: "ledger", number = seen.best.number, "can't look: {error}");
                    }
                    Err(error) => return Err(error),
                }
            }
            changed(&mut self.ledger.ends).await?;
        }
    }

    async fn look(&self, best: BlockId) -> Result<(AccountView, Vec<(Block, Event)>, Known), Error> {
        let view = self.ledger.account(&self.account, At::Block(best.hash)).await?;
        let mut known = self.known.clone();
        known.learn(&view);
        let mut told = Vec::new();
        for (number, events) in self.events(best).await? {
            told.extend(
                events.into_iter().filter(|event| known.concerns(&self.account, event)).map(|event| (number, event)),
            );
        }
        let mut known = Known::default();
        known.learn(&view);
        Ok((view, told, known))
    }

    /// The events of all blocks after the one that was told last, oldest first.
    async fn events(&self, best: BlockId) -> Result<Vec<(Block, Vec<Event>)>, Error> {
        let told = self.told;
        self.ledger
            .ask("events", |line| async move {
                let mut blocks = Vec::new();
                let mut hash = H256(best.hash);
                while blocks.len() < CATCH_UP {
                    let header = line.header(Some(hash)).await?;
                    let events = line.events(hash).await?.into_iter().map(|(_, event)| event).collect();
                    blocks.push((header.number as Block, events));
                    hash = header.parent_hash;
                    // Without a block told before, one is enough to begin; the first block has no parent.
                    let reached =
                        told.is_none_or(|told| H256(told.hash) == hash || header.number <= u64::from(told.number));
                    if reached || header.number == 0 {
                        break;
                    }
                }
                blocks.reverse();
                Ok(blocks)
            })
            .await
    }
}

impl Known {
    fn learn(&mut self, view: &AccountView) {
        for request in &view.requests {
            self.requests.insert(request.id);
            self.hosters.extend(request.contracts.iter().map(|contract| contract.contract.hoster));
        }
    }

    /// Whether an event concerns the account: its own offer and money, the requests it sponsors, and the hosters of these.
    fn concerns(&mut self, account: &AccountId, event: &Event) -> bool {
        match event {
            Event::OfferPosted { hoster, .. }
            | Event::OfferClosing { hoster, .. }
            | Event::OfferWithdrawn { hoster, .. } => hoster == account,
            Event::Proven { hoster, .. } | Event::ChallengeMissed { hoster, .. } | Event::Lapsed { hoster, .. } => {
                hoster == account || self.hosters.contains(hoster)
            }
            Event::RequestOpened { request, sponsor, .. } => {
                // Its draw may follow among the same events.
                if sponsor == account {
                    self.requests.insert(*request);
                }
                sponsor == account
            }
            Event::RequestClosed { sponsor, .. } => sponsor == account,
            Event::Waiting { request, .. } | Event::RequestClosing { request, .. } => self.requests.contains(request),
            Event::Drawn { request, hoster, .. }
            | Event::Taken { request, hoster, .. }
            | Event::Passed { request, hoster, .. }
            | Event::Accepted { request, hoster, .. }
            | Event::Forfeited { request, hoster, .. }
            | Event::ContractEnded { request, hoster, .. }
            | Event::Paid { request, hoster, .. }
            | Event::PayOwed { request, hoster, .. } => hoster == account || self.requests.contains(request),
            Event::Transfer { from, to, .. } => from == account || to == account,
        }
    }
}
