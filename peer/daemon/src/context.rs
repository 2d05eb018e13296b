//! What all parts of a daemon share.

use crate::{
    discovery::{Discovery, Endpoint, on_ledger},
    fetch::{Fetcher, NamedBy},
    files,
    locks::Locks,
    story::Story,
    swarm::Topics,
};
use datdot_api::Event;
use datdot_hypercore::{FeedKey, Network, Store};
use datdot_ledger::{AccountView, Ledger, Submitter};
use datdot_market::terms::{Address, Source};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::{Semaphore, watch};

/// Handles and settings; each of them can be used from anywhere.
pub(crate) struct Context {
    pub dir: PathBuf,
    pub rpc: Option<String>,
    pub store: Store,
    pub network: Network,
    pub fetcher: Fetcher,
    pub topics: Topics,
    pub ledger: Ledger,
    pub submitter: Submitter,
    pub discovery: Box<dyn Discovery>,
    pub story: Story,
    pub noise_key: [u8; 32],
    pub listen: SocketAddr,
    /// What the ledger is told about where we are; empty if nobody could connect there.
    pub addresses: Vec<SocketAddr>,
    pub spare_bytes: u64,
    pub max_term_days: u32,
    /// Contracts that are fetched at a time.
    pub fetches: Arc<Semaphore>,
    /// The account at the best block.
    pub view: watch::Sender<Option<Arc<AccountView>>>,
    /// Files that are being read into a feed.
    pub reading: Locks<PathBuf>,
    /// Whether private addresses are dialled and named.
    pub allow_private: bool,
    /// Whether the daemon stops.
    pub stop: watch::Sender<bool>,
}

impl Context {
    /// Tells that something went wrong that nobody asked for just now.
    pub fn trouble(&self, what: String) {
        tracing::warn!(target: "daemon", "{what}");
        self.story.tell(Event::Trouble { what });
    }

    /// An error once the daemon stops: work on a thread of its own, which nothing else can end, asks this now and then.
    pub fn goes_on(&self) -> io::Result<()> {
        if *self.stop.borrow() { Err(io::Error::other("the daemon stops")) } else { Ok(()) }
    }

    /// Folders with secrets and feeds, which are never published. The feeds may be on another disk.
    pub fn own_folders(&self) -> [PathBuf; 2] {
        [self.dir.clone(), self.dir.join("store")]
    }

    /// What to say of a ledger that is away.
    pub fn ledger_is_away(&self) -> String {
        let why = self.ledger.is_down().map_or(String::new(), |why| format!(" ({why})"));
        format!("the ledger at {} does not answer{why}", self.ledger.url())
    }

    /// Bytes that may still be written below the daemon's folder.
    pub fn room(&self) -> Result<u64, String> {
        let free = files::free_bytes(&self.dir).map_err(|error| format!("the disk can't be read: {error}"))?;
        Ok(free.saturating_sub(self.spare_bytes))
    }

    /// Whether anybody could connect to us: at an address, or found by the swarm.
    pub fn can_be_reached(&self) -> Result<(), String> {
        if !self.addresses.is_empty() || self.topics.is_on() {
            return Ok(());
        }
        Err(format!(
            "nobody could connect to this peer: it has no swarm and listens at {}; start it with --address HOST:PORT, \
             the address at which others reach it",
            self.listen
        ))
    }

    /// Where the ledger is told to fetch from us.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.addresses.iter().map(|address| Source { noise_key: self.noise_key, address: on_ledger(*address) })
    }

    /// The same as the ledger writes it in an offer.
    pub fn addresses_on_ledger(&self) -> Vec<Address> {
        self.addresses.iter().map(|address| on_ledger(*address)).collect()
    }

    /// Peers that may have a feed, as the user and the ledger say.
    pub async fn endpoints(&self, feed: FeedKey, from: Vec<Endpoint>) -> Vec<(Endpoint, NamedBy)> {
        let found = self.discovery.find(feed).await.into_iter().map(|endpoint| (endpoint, NamedBy::Stranger));
        from.into_iter().map(|endpoint| (endpoint, NamedBy::User)).chain(found).collect()
    }
}
