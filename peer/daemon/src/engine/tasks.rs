//! What the engine has done in tasks of their own, and what it makes of their results.

use super::{Engine, Msg};
use crate::{
    context::Context,
    fetch::Failed,
    jobs::{self, FetchedAll, Made, NotMade},
    status::Damage,
};
use codec::Encode;
use datdot_api::{
    Event, Key,
    status::{ProofOutcome, ProofStatus},
};
use datdot_hypercore::{FeedError, FeedKey};
use datdot_market::{
    ContractId,
    terms::{Feed, Source},
    view::Challenge,
};
use datdot_proof::segment::Segment;
use datdot_roles::{
    Checked, Errand,
    hoster::{self, Covered},
};
use std::collections::BTreeSet;
use tokio::task::JoinError;

/// Blocks that are looked through at a time: between two of them the daemon can stop.
const SCRUBBED: u64 = 1024;

impl Engine {
    pub(super) fn fetch(&mut self, contract: ContractId, feeds: Vec<Feed>, sources: Vec<Source>) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        let task = self.tasks.spawn(async move {
            let result = jobs::fetch_all(&ctx, &me, contract, &feeds, &sources).await;
            _ = me.send(Msg::Fetched(contract, result)).await;
        });
        self.fetches.insert(contract, task);
    }

    pub(super) async fn fetched(&mut self, contract: ContractId, result: Result<FetchedAll, Failed>) {
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

    pub(super) fn check(&mut self, contract: ContractId, segments: Vec<([u8; 32], Segment)>, anew: bool) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        self.tasks.spawn(async move {
            let checking = tokio::task::spawn_blocking(move || jobs::check(&ctx, &segments, anew));
            let checked = checking.await.unwrap_or_else(|error| Checked::Incomplete(error.to_string()));
            _ = me.send(Msg::Checked(contract, checked)).await;
        });
    }

    pub(super) fn prove(&mut self, challenge: Challenge, holdings: Vec<Covered>) {
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

    pub(super) async fn proved(&mut self, challenge: Challenge, result: Result<Made, NotMade>) {
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

    pub(super) fn scrub(&mut self, key: FeedKey) {
        let (ctx, me) = (self.ctx.clone(), self.me.clone());
        self.tasks.spawn(async move {
            let damaged = scrub(&ctx, &key).await.unwrap_or_else(|error| {
                tracing::error!(target: "hoster", feed = %key, %error, "stored blocks can't be looked through");
                vec![]
            });
            _ = me.send(Msg::Scrubbed(key, damaged)).await;
        });
    }

    pub(super) async fn scrubbed(&mut self, key: FeedKey, damaged: Vec<u64>) {
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

    pub(super) async fn drop_feed(&mut self, key: FeedKey) {
        let store = self.ctx.store.clone();
        match tokio::task::spawn_blocking(move || store.remove(&key)).await {
            Ok(Ok(true)) => {
                tracing::info!(target: "hoster", feed = %key, "dropped: no contract needs it any more");
                self.ctx.story.tell(Event::Dropped { key: Key(key.0) });
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => self.ctx.trouble(format!("a feed can't be dropped: {error}")),
            Err(error) => self.ctx.trouble(format!("a feed can't be dropped: {error}")),
        }
    }
}

/// Blocks of a feed that are damaged on the disk.
async fn scrub(ctx: &Context, key: &FeedKey) -> Result<Vec<u64>, FeedError> {
    let Some(feed) = ctx.store.feed(key) else { return Ok(vec![]) };
    let (length, mut damaged) = (feed.info().length, Vec::new());
    for first in (0..length).step_by(SCRUBBED as usize) {
        damaged.extend(feed.scrub(first..length.min(first + SCRUBBED)).await?);
    }
    Ok(damaged)
}
