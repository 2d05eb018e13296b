//! Fetching feeds: who is dialled, in which order, and when it is given up.
//!
//! What comes is verified and kept by the feed itself, so a fetch can end at any time; the next one asks only for what
//! is missing.

use crate::{
    discovery::{Endpoint, is_public},
    swarm::{Looking, Topics},
};
use datdot_api::Size;
use datdot_hypercore::{Download, Feed, FeedError, FeedKey, Network, PeerInfo, Stopped, Store, StoreError, Want};
use datdot_proof::head::SignedHead;
use datdot_roles::Trouble;
use futures::{StreamExt, stream::FuturesUnordered};
use std::{
    net::SocketAddr,
    ops::Range,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// Without a new block for so long, a fetch is given up.
const STALL: Duration = Duration::from_secs(15);
/// How long one dial may take, its handshake included.
const DIAL: Duration = Duration::from_secs(10);
/// Who is connected tells of its newest head as soon as it is asked: after so long none will come.
const SETTLED: Duration = Duration::from_secs(1);
/// For whom a newest head waits so long: peers that are being dialled, or looked for in the swarm.
const FOUND: Duration = Duration::from_secs(2);
/// Runs of blocks that are asked for at a time.
const RUNS: usize = 256;
/// How often peers that went away are dialled again while blocks still come from others.
const REDIAL: Duration = Duration::from_secs(5);
/// How often in a row a feed is looked for in vain, one [`REDIAL`] each, before nobody is there.
const SEARCHES: u32 = 2;
/// Peers that one fetch dials at most.
const MAX_DIALLED: usize = 8;

/// Fetches feeds into a store. Of one feed there may be several at a time: who needs what is here doesn't wait for who needs all.
pub struct Fetcher {
    network: Network,
    /// Whether addresses that strangers named may be private ones.
    allow_private: bool,
    topics: Topics,
    /// Connections of all fetches: who was called by one of them is there for the others.
    calls: Mutex<Vec<Weak<Call>>>,
}

/// What is fetched.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The blocks of this head.
    Head(SignedHead),
    /// The blocks of the head that is here, or of the first one that a peer shows.
    First {
        /// Bytes that may come.
        room: u64,
    },
    /// What there is to fetch: the newest head that peers show, and the first block, which says what it is. What is here counts
    /// if nobody shows more.
    Kind {
        /// Bytes that may come.
        room: u64,
    },
    /// Some blocks of the newest head that peers show. Those that it does not reach are left out.
    Runs {
        /// Which, in ascending order.
        runs: Vec<Range<u64>>,
        /// Their bytes, to tell how far it is.
        bytes: u64,
        /// Bytes that may come.
        room: u64,
    },
}

/// Who named a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The user of this daemon.
    User,
    /// Somebody on the ledger.
    Stranger,
}

/// A fetch that did not get everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub why: Trouble,
    /// Bytes of the feed that came meanwhile.
    pub fetched: u64,
}

/// A fetch that got everything.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The feed.
    pub feed: Feed,
    /// Bytes of the feed that came meanwhile.
    pub bytes: u64,
    /// Peers that were reached, with the keys that they proved to hold.
    pub reached: Vec<Endpoint>,
}

/// How far a fetch is: bytes here, bytes in all, peers connected.
pub type Progress<'a> = dyn FnMut(u64, u64, usize) + Send + 'a;

impl Fetcher {
    /// A fetcher for a network's store.
    pub fn new(network: Network, allow_private: bool, topics: Topics) -> Self {
        Self { network, allow_private, topics, calls: Mutex::default() }
    }

    /// Fetches what is missing of a feed. Endpoints are tried in their order.
    pub async fn fetch(
        &self,
        key: FeedKey,
        wanted: &Wanted,
        endpoints: &[(Endpoint, NamedBy)],
        progress: &mut Progress<'_>,
    ) -> Result<Fetched, Failed> {
        let (feed, wants) = open(self.network.store(), key, wanted).map_err(|why| Failed { why, fetched: 0 })?;
        let before = feed.info().bytes_here;
        let looking = self.topics.look_for(key);
        let mut dialled = Dialled { network: &self.network, peers: Vec::new(), looking };
        let done = self.run(&feed, wants, wanted, endpoints, &mut dialled, progress).await;
        let bytes = feed.info().bytes_here.saturating_sub(before);
        // Those whom the user named come first, whoever answered first.
        dialled.peers.sort_by_key(|(endpoint, _)| endpoints.iter().position(|(other, _)| other == endpoint));
        let reached = dialled.peers.iter().map(|(endpoint, call)| endpoint.proven(&call.peer)).collect();
        match done {
            Ok(()) => Ok(Fetched { feed, bytes, reached }),
            Err(why) => Err(Failed { why, fetched: bytes }),
        }
    }

    async fn run(
        &self,
        feed: &Feed,
        wants: Vec<Want>,
        wanted: &Wanted,
        endpoints: &[(Endpoint, NamedBy)],
        dialled: &mut Dialled<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Trouble> {
        let before = feed.info().bytes_here;
        let gained = || feed.info().bytes_here.saturating_sub(before);
        let all = wants.iter().map(|want| len(&want.blocks)).fold(0, u64::saturating_add);
        let chunks: Vec<_> = wants.chunks(RUNS).collect();
        let mut here: Vec<_> = chunks.iter().map(|wants| here_of(feed, wants)).collect();
        let mut report = |here: &[u64], peers: usize| {
            let info = feed.info();
            match wanted {
                Wanted::Runs { bytes, .. } => progress(share(*bytes, here.iter().sum(), all), *bytes, peers),
                Wanted::Kind { .. } => {}
                _ => progress(info.bytes_here.min(info.bytes), info.bytes, peers),
            }
        };
        let fits = || match wanted {
            Wanted::First { room } => fits(feed.info().bytes.saturating_sub(before), *room),
            Wanted::Kind { room } | Wanted::Runs { room, .. } => fits(gained(), *room),
            Wanted::Head(_) => Ok(()),
        };
        // Runs may lie where no head reaches. Whatever else is wanted has to be there.
        let may_lack = matches!(wanted, Wanted::Runs { .. });
        if let Wanted::Kind { .. } = wanted {
            self.settle(feed, endpoints, dialled).await;
        }
        'all: for (at, wants) in chunks.into_iter().enumerate() {
            let mut goal = Goal::new(&self.network, feed, wants, wanted);
            let mut watch = feed.watch();
            let mut last_gain = Instant::now();
            // The first round since then.
            let mut since = 0;
            let mut why = Vec::new();
            for round in 0u32.. {
                if goal.is_reached() {
                    break;
                }
                why.clear();
                {
                    // Those who don't answer hold up nothing if others have it.
                    let mut dialling = pin!(self.dial(endpoints, dialled, &mut why));
                    loop {
                        tokio::select! {
                            () = &mut dialling => break,
                            reached = goal.reached() => break reached.map_err(trouble)?,
                            Ok(()) = watch.changed() => {
                                if goal.is_nearer() {
                                    (last_gain, since) = (Instant::now(), round + 1);
                                }
                                fits()?;
                            }
                        }
                    }
                }
                fits()?;
                if goal.is_reached() {
                    break;
                }
                let nobody = dialled.connected() == 0 && self.network.peers().is_empty();
                if nobody {
                    let (searches, is_on) = (round.saturating_sub(since), dialled.looking.is_on());
                    // Who sent something may come back where it was, too.
                    if searches >= SEARCHES || (!is_on && gained() == 0) {
                        if is_on {
                            why.push(format!("nobody who announces it answered within {searches} searches"));
                        }
                        return Err(Trouble::Unreachable(reasons(&why)));
                    }
                }
                if round > 0 && (nobody || last_gain.elapsed() >= REDIAL) {
                    dialled.looking.again();
                }
                here[at] = here_of(feed, wants);
                report(&here, dialled.peers());
                let redial = Instant::now() + REDIAL;
                loop {
                    tokio::select! {
                        reached = goal.reached() => {
                            reached.map_err(trouble)?;
                            break;
                        }
                        Ok(()) = watch.changed() => {
                            if goal.is_nearer() {
                                (last_gain, since) = (Instant::now(), round + 1);
                            }
                            fits()?;
                            here[at] = here_of(feed, wants);
                            report(&here, dialled.peers());
                        }
                        () = sleep_until(redial.min(last_gain + STALL)) => break,
                    }
                }
                if last_gain.elapsed() >= STALL && !goal.is_reached() {
                    if may_lack && goal.is_all_there_is() {
                        // What follows lies even further away.
                        break 'all;
                    }
                    why.push(format!("no block came for {} seconds from the peers that answer", STALL.as_secs()));
                    return Err(Trouble::Unreachable(reasons(&why)));
                }
            }
            here[at] = here_of(feed, wants);
        }
        // Once for all runs: nothing has waited for the disk so far.
        feed.flush().await.map_err(feed_trouble)?;
        if let Wanted::Head(head) = wanted {
            // The feed may have been shorter when the fetch began; now the two can be compared.
            feed.adopt(head.clone()).await.map_err(feed_trouble)?;
        }
        report(&here, dialled.peers());
        Ok(())
    }

    /// Gives peers the time to show the newest head: those who are dialled and looked for a bounded one, whoever is connected
    /// then as long as it needs. Nobody knows a newer one than who writes the feed.
    async fn settle(&self, feed: &Feed, endpoints: &[(Endpoint, NamedBy)], dialled: &mut Dialled<'_>) {
        if feed.info().writable {
            return;
        }
        let (key, mut why) = (feed.key(), Vec::new());
        let found = self.topics.found(&key, &self.network);
        let all_have_come = async { tokio::join!(self.dial(endpoints, dialled, &mut why), found) };
        _ = timeout(FOUND, all_have_come).await;
        // If a newer head is not followed, the one that is here counts.
        _ = self.network.update(feed, SETTLED).await;
    }

    /// Connects to endpoints that are not connected: several at a time, but to one at a time of those with the same address.
    async fn dial(&self, endpoints: &[(Endpoint, NamedBy)], dialled: &mut Dialled<'_>, why: &mut Vec<String>) {
        let mut places: Vec<(SocketAddr, Vec<Endpoint>)> = Vec::new();
        for (endpoint, named_by) in endpoints.iter().take(MAX_DIALLED) {
            let address = endpoint.address;
            if endpoint.noise_key == Some(self.network.public_key()) {
                continue;
            }
            if *named_by == NamedBy::Stranger && !self.allow_private && !is_public(address) {
                why.push(format!("{address} is a private address, which is not dialled on a stranger's word"));
                continue;
            }
            match places.iter_mut().find(|(at, _)| *at == address) {
                Some((_, same)) => same.push(*endpoint),
                None => places.push((address, vec![*endpoint])),
            }
        }
        places.retain(|(_, same)| !same.iter().any(|endpoint| dialled.has(endpoint)));
        let mut calls: FuturesUnordered<_> = places.into_iter().map(|(_, same)| self.call(same)).collect();
        while let Some(called) = calls.next().await {
            match called {
                Ok(peer) => dialled.peers.push(peer),
                Err(failed) => why.extend(failed),
            }
        }
    }

    /// Connects to the first of some endpoints that answers, or says what each did.
    async fn call(&self, endpoints: Vec<Endpoint>) -> Result<(Endpoint, Arc<Call>), Vec<String>> {
        let mut why = Vec::new();
        for endpoint in endpoints {
            if let Some(call) = self.called(&endpoint) {
                return Ok((endpoint, call));
            }
            match timeout(DIAL, self.network.connect(endpoint.address, endpoint.noise_key)).await {
                Ok(Ok(peer)) => return Ok((endpoint, self.keep(peer))),
                Ok(Err(error)) => why.push(error.to_string()),
                Err(_) => why.push(format!("{}: no answer", endpoint.address)),
            }
        }
        Err(why)
    }

    /// The connection to an endpoint that another fetch made.
    fn called(&self, endpoint: &Endpoint) -> Option<Arc<Call>> {
        let is_it = |peer: &PeerInfo| {
            peer.address == Some(endpoint.address) && endpoint.noise_key.is_none_or(|key| key == peer.remote)
        };
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter_map(Weak::upgrade).find(|call| is_it(&call.peer) && call.is_open())
    }

    fn keep(&self, peer: PeerInfo) -> Arc<Call> {
        let call = Arc::new(Call { network: self.network.clone(), peer });
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.retain(|call| call.strong_count() > 0);
        calls.push(Arc::downgrade(&call));
        call
    }
}

impl Endpoint {
    fn proven(&self, peer: &PeerInfo) -> Endpoint {
        Endpoint { noise_key: Some(peer.remote), ..*self }
    }
}

/// Blocks that are fetched until all of them are here.
struct Goal<'a> {
    feed: &'a Feed,
    downloads: Vec<Download>,
    /// Blocks that have to be here also if the head that is known does not reach them.
    exact: &'a [Want],
    far: Far,
}

/// How far a goal is. More is a gain: a block came, or a head that reaches a wanted one when none was missing. A newer head alone is
/// none, or an author who signs one now and then and sends nothing would be waited for without end.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Far {
    /// Blocks of the feed that are here. What another fetch wanted earlier may come first.
    here: u64,
    /// Whether the head reaches wanted blocks that are not here.
    lacks: bool,
}

impl<'a> Goal<'a> {
    fn new(network: &Network, feed: &'a Feed, wants: &'a [Want], wanted: &Wanted) -> Self {
        let downloads = wants.iter().map(|want| network.download(feed, want.clone())).collect();
        // A head that is longer than the one here has to be reached, however complete the shorter one is.
        let exact = if matches!(wanted, Wanted::First { .. }) { &[] } else { wants };
        let mut goal = Goal { feed, downloads, exact, far: Far { here: 0, lacks: false } };
        goal.far = goal.far_now();
        goal
    }

    fn far_now(&self) -> Far {
        let info = self.feed.info();
        Far { here: info.blocks_here, lacks: info.length > 0 && !self.is_all_there_is() }
    }

    /// Whether it is nearer than when this was last asked.
    fn is_nearer(&mut self) -> bool {
        let far = self.far_now();
        far > std::mem::replace(&mut self.far, far)
    }

    fn is_reached(&self) -> bool {
        self.is_all_there_is() && self.exact.iter().all(|want| self.feed.missing_in(want.blocks.clone()) == 0)
    }

    /// Whether all is here that the head reaches.
    fn is_all_there_is(&self) -> bool {
        self.downloads.iter().all(Download::is_done)
    }

    async fn reached(&mut self) -> Result<(), Stopped> {
        let mut watch = self.feed.watch();
        loop {
            watch.borrow_and_update();
            for download in &mut self.downloads {
                let mut here = download.here().await;
                // What was asked for is a part of history: should its author write another one, peers may have it still.
                while !self.exact.is_empty() && matches!(here, Err(Stopped::Forked { .. } | Stopped::Conflict)) {
                    here = download.here().await;
                }
                here?;
            }
            if self.is_reached() {
                return Ok(());
            }
            // The head has to grow.
            _ = watch.changed().await;
        }
    }
}

/// Connections that a fetch made, or found made by another one.
struct Dialled<'a> {
    network: &'a Network,
    peers: Vec<(Endpoint, Arc<Call>)>,
    /// The swarm makes others meanwhile.
    looking: Looking,
}

impl Dialled<'_> {
    fn has(&self, endpoint: &Endpoint) -> bool {
        self.peers.iter().any(|(other, call)| other == endpoint && call.is_open())
    }

    /// How many may send blocks; in the swarm nobody knows beforehand which of them will.
    fn peers(&self) -> usize {
        if self.looking.is_on() { self.network.peers().len() } else { self.connected() }
    }

    fn connected(&self) -> usize {
        let open = self.network.peers();
        self.peers.iter().filter(|(_, call)| open.iter().any(|peer| peer.id == call.peer.id)).count()
    }
}

/// A connection that ends with the last fetch that needs it.
struct Call {
    network: Network,
    peer: PeerInfo,
}

impl Call {
    fn is_open(&self) -> bool {
        self.network.peers().iter().any(|peer| peer.id == self.peer.id)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.network.disconnect(self.peer.id);
    }
}

/// How many of the wanted blocks are here.
fn here_of(feed: &Feed, wants: &[Want]) -> u64 {
    wants.iter().map(|want| len(&want.blocks) - feed.missing_in(want.blocks.clone())).sum()
}

fn len(blocks: &Range<u64>) -> u64 {
    blocks.end.saturating_sub(blocks.start)
}

/// So many of the bytes, as if all blocks had as many: where those that are not here begin and end is not known.
fn share(bytes: u64, here: u64, blocks: u64) -> u64 {
    let share = (u128::from(bytes) * u128::from(here)).checked_div(u128::from(blocks));
    share.map_or(bytes, |share| share as u64)
}

/// What a stranger signed may be of any length.
fn fits(bytes: u64, room: u64) -> Result<(), Trouble> {
    match bytes <= room {
        true => Ok(()),
        false => Err(Trouble::NoRoom(format!("{} are needed, and there is room for {}", Size(bytes), Size(room)))),
    }
}

fn open(store: &Store, key: FeedKey, wanted: &Wanted) -> Result<(Feed, Vec<Want>), Trouble> {
    let remote = || store.open_remote(key, None).map_err(store_trouble);
    match wanted {
        Wanted::First { .. } => {
            let feed = remote()?;
            let want = match feed.info().length {
                0 => Want::blocks(0..u64::MAX),
                length => Want::blocks(0..length),
            };
            Ok((feed, vec![want]))
        }
        Wanted::Kind { .. } => Ok((remote()?, vec![Want { blocks: 0..1, follow: true }])),
        Wanted::Runs { runs, .. } => {
            let want = |run: &Range<u64>| Want { blocks: run.clone(), follow: true };
            Ok((remote()?, runs.iter().map(want).collect()))
        }
        Wanted::Head(head) => {
            let blocks = 0..head.length;
            match store.open_remote(key, Some(head.clone())) {
                Ok(feed) => Ok((feed, vec![Want::blocks(blocks)])),
                Err(StoreError::Feed(FeedError::NeedsUpgrade { .. })) => {
                    Ok((remote()?, vec![Want { blocks, follow: true }]))
                }
                Err(error) => Err(store_trouble(error)),
            }
        }
    }
}

fn store_trouble(error: StoreError) -> Trouble {
    match error {
        StoreError::Feed(error) => feed_trouble(error),
        error => Trouble::NoRoom(error.to_string()),
    }
}

fn feed_trouble(error: FeedError) -> Trouble {
    match error {
        FeedError::Io { .. } => Trouble::NoRoom(error.to_string()),
        error => Trouble::Unfit(error.to_string()),
    }
}

fn trouble(stopped: Stopped) -> Trouble {
    let why = stopped.to_string();
    match stopped {
        Stopped::Feed(error) if matches!(*error, FeedError::Io { .. }) => Trouble::NoRoom(error.to_string()),
        Stopped::Feed(_) | Stopped::Unsupported(_) | Stopped::Forked { .. } | Stopped::Conflict => Trouble::Unfit(why),
        _ => Trouble::Unreachable(why),
    }
}

fn reasons(why: &[String]) -> String {
    if why.is_empty() { "nobody is known to have it".into() } else { why.join("; ") }
}

#[cfg(test)]
mod tests;
