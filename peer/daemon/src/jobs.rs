//! What the engine has done in tasks of their own: fetching, hashing, proving, and listening to ledger and store.

use crate::{
    context::Context,
    discovery::Endpoint,
    engine::Msg,
    fetch::{Failed, Fetched, NamedBy, Wanted as Fetch},
    segments::{self, Hashed, Place},
};
use datdot_hypercore::{Changed, FeedKey};
use datdot_market::{
    ContractId,
    terms::{Feed, Source},
    view::Challenge,
};
use datdot_proof::{
    challenge::{DRAWS, Holding, Position, positions},
    proof::Proof,
    segment::Segment,
};
use datdot_roles::{Checked, hoster::Covered};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How often a fetch reports how far it is.
const REPORT: Duration = Duration::from_millis(250);

/// All feeds of a contract are here.
pub(crate) struct FetchedAll {
    pub bytes: u64,
    pub fetched: u64,
    pub millis: u64,
}

/// A proof with what it took.
pub(crate) struct Made {
    pub proof: Proof,
    pub make: Duration,
    pub check: Duration,
}

/// A proof that could not be made.
pub(crate) struct NotMade {
    pub contract: ContractId,
    pub feed: [u8; 32],
    pub why: String,
}

/// Waits for a place, then fetches the feeds of a contract one after the other.
pub(crate) async fn fetch_all(
    ctx: &Context,
    me: &mpsc::Sender<Msg>,
    contract: ContractId,
    feeds: &[Feed],
    sources: &[Source],
) -> Result<FetchedAll, Failed> {
    let _place = ctx.fetches.acquire().await.expect("the semaphore is never closed");
    let begun = Instant::now();
    // All the time: who has one of them often has the others, and announces only the first.
    let _looking: Vec<_> = feeds.iter().map(|feed| ctx.topics.look_for(FeedKey(feed.key))).collect();
    let endpoints: Vec<_> = sources.iter().map(|source| (Endpoint::from(source), NamedBy::Stranger)).collect();
    let size = |feed: &Feed| feed.head.bytes().unwrap_or(0);
    let total: u64 = feeds.iter().map(size).sum();
    let (mut before, mut fetched) = (0, 0);
    for feed in feeds {
        let mut reported = Instant::now();
        let mut progress = |bytes: u64, of: u64, _| {
            if reported.elapsed() >= REPORT || bytes == of {
                reported = Instant::now();
                // Progress that finds no room is dropped: the next one says more.
                _ = me.try_send(Msg::Fetching(contract, before + bytes.min(size(feed)), total));
            }
        };
        let wanted = Fetch::Head(feed.head.clone());
        let result = ctx.fetcher.fetch(FeedKey(feed.key), &wanted, &endpoints, &mut progress).await;
        let Fetched { bytes, .. } = result.map_err(|failed| Failed { fetched: fetched + failed.fetched, ..failed })?;
        fetched += bytes;
        before += size(feed);
    }
    Ok(FetchedAll { bytes: total, fetched, millis: begun.elapsed().as_millis() as u64 })
}

pub(crate) fn check(ctx: &Context, segments: &[([u8; 32], Segment)], anew: bool) -> Checked {
    for (key, segment) in segments {
        let Some(feed) = ctx.store.feed(&FeedKey(*key)) else {
            return Checked::Incomplete(format!("feed {} is not here", FeedKey(*key)));
        };
        let place = Place::of(&feed, &segment.root);
        if !anew && place.has_outboard(segment) {
            continue;
        }
        match place.hash(segment, &|| ctx.goes_on()) {
            Ok(Hashed::Whole) => {}
            Ok(Hashed::Mismatch(root)) => {
                tracing::warn!(
                    target: "hoster", feed = %feed.key(), found = hex::encode(root), claimed = hex::encode(segment.root),
                    "the data has another root"
                );
                return Checked::Mismatch(*key);
            }
            Err(error) => return Checked::Incomplete(error.to_string()),
        }
    }
    Checked::Whole
}

pub(crate) fn prove(ctx: &Context, challenge: &Challenge, covered: &[Covered]) -> Result<Made, NotMade> {
    let begun = Instant::now();
    let holdings: Vec<_> = covered.iter().map(|held| Holding { pay: held.weight, segments: &held.segments }).collect();
    let positions = positions(&challenge.seed, &holdings, DRAWS);
    let feed_of = |holding: usize, place: usize| covered.get(holding)?.feeds.get(place).copied();
    let proof = segments::prove(&positions, |at| {
        let gone = || std::io::Error::new(std::io::ErrorKind::NotFound, "the feed is not here");
        let key = feed_of(at.holding, at.place).ok_or_else(gone)?;
        let feed = ctx.store.feed(&FeedKey(key)).ok_or_else(gone)?;
        Place::of(&feed, &at.segment.root).open()
    });
    let make = begun.elapsed();
    let not_made = |at: &Position, why: String| NotMade {
        contract: covered.get(at.holding).map_or(0, |held| held.contract),
        feed: feed_of(at.holding, at.place).unwrap_or_default(),
        why: format!("segment {}: {why}", hex::encode(at.segment.root)),
    };
    let proof = proof.map_err(|error| not_made(&error.at, error.why.to_string()))?;
    let begun = Instant::now();
    if let Err(error) = proof.check(&positions) {
        let at = positions.first().copied().expect("a proof without positions passes its check");
        return Err(not_made(&at, error.to_string()));
    }
    Ok(Made { proof, make, check: begun.elapsed() })
}

/// Follows the ledger and tells the engine, until the ledger is another one.
pub(crate) async fn follow(ctx: Arc<Context>, engine: mpsc::Sender<Msg>) {
    let account = ctx.submitter.id();
    let mut news = ctx.ledger.follow(account);
    let mut finalized = None;
    loop {
        match news.next().await {
            Err(error) => {
                _ = engine.send(Msg::Broken(error.to_string())).await;
                return;
            }
            Ok(news) => {
                let last = news.finalized;
                if engine.send(Msg::News(Box::new(news))).await.is_err() {
                    return;
                }
                if finalized == Some(last) {
                    continue;
                }
                match ctx.ledger.account(&account, datdot_ledger::At::Block(last.hash)).await {
                    Ok(view) => {
                        finalized = Some(last);
                        if engine.send(Msg::Final(Box::new(view))).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(target: "daemon", %error, "the final block can't be read"),
                }
            }
        }
    }
}

/// Listens to the store and tells the engine of blocks that turned out to be damaged.
pub(crate) async fn watch_store(ctx: Arc<Context>, engine: mpsc::Sender<Msg>) {
    let mut changes = ctx.store.changes();
    loop {
        match changes.recv().await {
            Ok(change) => {
                if let Changed::Lost(blocks) = change.what
                    && engine.send(Msg::Lost(change.key, blocks.collect())).await.is_err()
                {
                    return;
                }
            }
            // Damage that was missed here is met again by the next proof or read.
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}
