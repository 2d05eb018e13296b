//! The swarm: peers that know nothing but a feed's key find each other.
//!
//! What we have for others is announced at its topic, the feed's discovery key; what we fetch is looked for there.
//! Connections that come about carry what TCP connections carry, so the network serves and fetches over both alike.
//!
//! ```text
//!   engine ── announce(feeds) ──┐                          ┌── accept ──▶ Network::attach
//!                               ├─▶ Table ─▶ join, leave ─▶│ Swarm
//!   fetches ── look_for(feed) ──┘   (topics)               └◀─ ban ── a peer that broke the protocol
//! ```
//!
//! - `topics`: how we stand at each topic, and which connections to let go; no I/O;
//! - `begin`: where to begin, and what is remembered of the DHT over restarts;
//! - `reach`: who can reach us, as far as others say;
//! - `local`: a DHT of this machine's own, for networks that have nothing to do with the world.

mod begin;
mod local;
mod reach;
mod topics;

pub use begin::Settings;
pub use local::LocalDht;
pub use reach::examine;

use datdot_api::status::SwarmStatus;
use datdot_hypercore::{Ended, FeedKey, Network, PeerEvent, PeerId};
use datdot_hyperswarm::{
    dht::{Dht, Id, Identity},
    swarm::{Limits, PeerState, Settings as SwarmSettings, Swarm, SwarmStream},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, broadcast::error::RecvError, mpsc, oneshot},
    time::{interval, timeout},
};
use topics::{Change, Link, Table};

/// Connections up to which the swarm makes more, and how many others may have made: there's room for those that we need.
const MAX_PEERS: usize = 128;
const MAX_INCOMING: usize = 96;
/// How long withdrawing announcements may take at the end; they are forgotten after 20 minutes anyway.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the node is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often what is known of the DHT is written down, in looks.
const SAVE_EVERY: u32 = 60;

/// What is announced and looked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Topics(State);

#[derive(Clone)]
enum State {
    /// There is no swarm, for this reason.
    Off(Arc<str>),
    On(Arc<Shared>),
}

struct Shared {
    table: Mutex<Table>,
    changes: mpsc::UnboundedSender<Step>,
    swarm: Swarm,
    dht: Dht,
    settings: Settings,
    /// Nodes of the DHT that are known.
    known: AtomicUsize,
    /// Told when somebody is no longer looked for.
    forsaken: Notify,
    path: PathBuf,
}

/// What is done in its order.
enum Step {
    Change(Change),
    /// Say that all before is done.
    Tell(oneshot::Sender<()>),
}

/// What is to run for as long as the swarm lasts.
pub(crate) struct Running {
    shared: Arc<Shared>,
    changes: mpsc::UnboundedReceiver<Step>,
    network: Network,
}

impl Topics {
    /// Without a swarm.
    pub fn off(why: impl Into<Arc<str>>) -> Self {
        Topics(State::Off(why.into()))
    }

    /// Begins a swarm whose connections the network gets. `listen` is the network's own address: the swarm takes the
    /// same port over UDP if it is free, so that there is one number to remember and to forward.
    pub async fn start(
        settings: Settings,
        seed: &[u8; 32],
        listen: SocketAddr,
        network: &Network,
        dir: &Path,
    ) -> io::Result<(Self, Running)> {
        let path = dir.join(begin::FILE);
        let dht = Dht::start(begin::node(&settings, listen, begin::load(&path, &settings)?)).await?;
        let limits = Limits { peers: MAX_PEERS, incoming: MAX_INCOMING, ..Limits::default() };
        // Large frames have their memory in common with those of the network's own connections.
        let swarm_settings =
            SwarmSettings { limits, connection: network.options().clone(), ..SwarmSettings::default() };
        let swarm = Swarm::start(&dht, &Identity::from_seed(seed), swarm_settings).await.map_err(io::Error::other)?;
        let (changes, changed) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            changes,
            swarm,
            dht,
            settings,
            known: AtomicUsize::new(0),
            forsaken: Notify::new(),
            path,
        });
        let running = Running { shared: shared.clone(), changes: changed, network: network.clone() };
        Ok((Topics(State::On(shared)), running))
    }

    /// Whether there is a swarm.
    pub fn is_on(&self) -> bool {
        matches!(self.0, State::On(_))
    }

    /// Lets others find these feeds here, and no others any longer.
    pub fn announce(&self, feeds: impl IntoIterator<Item = FeedKey>) {
        let State::On(shared) = &self.0 else { return };
        let topics = feeds.into_iter().map(|feed| topic(&feed)).collect();
        shared.change(|table| table.announce(topics));
    }

    /// How long ago a feed was last announced, as far as it is.
    pub fn announced(&self, feed: &FeedKey) -> Option<Duration> {
        let State::On(shared) = &self.0 else { return None };
        shared.swarm.announced(&topic(feed))
    }

    /// Looks for peers that have a feed, for as long as what is returned lives.
    pub fn look_for(&self, feed: FeedKey) -> Looking {
        let looking = Looking { topics: self.clone(), topic: topic(&feed) };
        looking.change(|table, topic| table.seek(topic));
        looking
    }

    /// Waits until a feed that is looked for has been searched, and the network has who was found, as far as they answer.
    pub async fn found(&self, feed: &FeedKey, network: &Network) {
        let State::On(shared) = &self.0 else { return };
        let (topic, (tell, told)) = (topic(feed), oneshot::channel());
        _ = shared.changes.send(Step::Tell(tell));
        if told.await.is_err() || shared.swarm.searched(topic).await.is_err() {
            return;
        }
        // Before the first look, so that nothing is missed.
        let (mut calls, mut events) = (shared.swarm.events(), network.events());
        while shared.awaits_any(topic, network) {
            let is_over = tokio::select! {
                call = calls.recv() => matches!(call, Err(RecvError::Closed)),
                event = events.recv() => matches!(event, Err(RecvError::Closed)),
            };
            if is_over {
                return;
            }
        }
    }

    /// What there is to see of it.
    pub fn status(&self) -> SwarmStatus {
        match &self.0 {
            State::Off(why) => reach::off(why),
            State::On(shared) => {
                let status = *shared.dht.status().borrow();
                let at = shared.dht.local_addr();
                SwarmStatus {
                    bootstrap: shared.settings.names(),
                    connections: shared.swarm.links() as u32,
                    topics: lock(&shared.table).announced() as u32,
                    ..reach::status(status, at, shared.known.load(Ordering::Relaxed))
                }
            }
        }
    }

    /// Withdraws what is announced, as far as there is time, and ends all connections.
    pub async fn close(&self) {
        let State::On(shared) = &self.0 else { return };
        shared.save().await;
        if timeout(FAREWELL, shared.swarm.close()).await.is_err() {
            tracing::debug!(target: "swarm", "not all announcements are withdrawn");
        }
    }
}

/// A feed that is looked for.
pub(crate) struct Looking {
    topics: Topics,
    topic: Id,
}

impl Looking {
    /// Whether anybody can be found this way.
    pub fn is_on(&self) -> bool {
        self.topics.is_on()
    }

    /// Looks again now: somebody may have come since.
    pub fn again(&self) {
        self.change(|table, topic| table.again(topic));
    }

    fn change(&self, change: impl FnOnce(&mut Table, Id) -> Vec<Change>) {
        if let State::On(shared) = &self.topics.0 {
            shared.change(|table| change(table, self.topic));
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.change(|table, topic| table.forsake(topic));
        if let State::On(shared) = &self.topics.0 {
            shared.forsaken.notify_one();
        }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Table) -> Vec<Change>) {
        // Sent before the next one can change anything, so they arrive in order.
        let mut table = lock(&self.table);
        for change in change(&mut table) {
            // Nobody hears it any more once the swarm ends.
            _ = self.changes.send(Step::Change(change));
        }
    }

    /// Whether somebody who was found at a topic is still to be called, or handed to the network.
    fn awaits_any(&self, topic: Id, network: &Network) -> bool {
        let open: BTreeSet<_> = network.peers().iter().map(|peer| peer.remote).collect();
        let found = self.swarm.peers().into_iter().filter(|peer| peer.topics.contains(&topic));
        found.into_iter().any(|peer| match peer.state {
            PeerState::Queued | PeerState::Dialing => true,
            PeerState::Connected { .. } => !open.contains(&peer.key),
            PeerState::Idle | PeerState::Waiting { .. } => false,
        })
    }

    async fn save(&self) {
        let Ok(known) = self.dht.contacts().await else { return };
        if let Err(error) = begin::save(&self.path, &self.settings, &known) {
            tracing::warn!(target: "swarm", %error, "what is known of the DHT can't be written");
        }
    }
}

fn topic(feed: &FeedKey) -> Id {
    Id(feed.discovery().0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// Runs until the swarm or the network ends.
    pub async fn run(self) {
        let Running { shared, changes, network } = self;
        tokio::select! {
            () = apply(&shared, changes) => {}
            () = keep(&shared, &network) => {}
            () = look(&shared) => {}
        }
    }
}

/// Joins and leaves topics as the table changes.
async fn apply(shared: &Shared, mut changes: mpsc::UnboundedReceiver<Step>) {
    begin::find_the_network(&shared.dht).await;
    while let Some(step) = changes.recv().await {
        let done = match step {
            Step::Change(Change::Join(topic, as_)) => shared.swarm.join(topic, as_).await,
            Step::Change(Change::Leave(topic)) => shared.swarm.leave(topic).await,
            Step::Tell(told) => {
                // Who waited may have given up.
                _ = told.send(());
                Ok(())
            }
        };
        if done.is_err() {
            return;
        }
    }
}

/// Hands connections to the network, and lets go of those that are over or that nobody needs.
async fn keep(shared: &Shared, network: &Network) {
    let mut events = network.events();
    let mut links = BTreeMap::<PeerId, Link>::new();
    loop {
        tokio::select! {
            stream = shared.swarm.accept() => match stream {
                Some(stream) => attach(stream, network, &mut links),
                None => return,
            },
            event = events.recv() => match event {
                Ok(PeerEvent::Connected(_)) => {}
                Ok(PeerEvent::Ended(peer, why)) => {
                    if let Ended::Fault(fault) = &*why {
                        tracing::info!(target: "swarm", peer = hex::encode(peer.remote), %fault, "banned");
                        _ = shared.swarm.ban(peer.remote).await;
                    }
                    links.remove(&peer.id);
                }
                Err(RecvError::Lagged(_)) => {
                    let up: BTreeSet<_> = network.peers().iter().map(|peer| peer.id).collect();
                    links.retain(|id, _| up.contains(id));
                }
                Err(RecvError::Closed) => return,
            },
            () = shared.forsaken.notified() => {}
        }
        let unneeded = {
            let table = lock(&shared.table);
            topics::unneeded(links.iter().map(|(id, link)| (*id, link)), &table)
        };
        unneeded.into_iter().for_each(|id| network.disconnect(id));
    }
}

fn attach(stream: SwarmStream, network: &Network, links: &mut BTreeMap<PeerId, Link>) {
    let SwarmStream { stream, initiator, topics } = stream;
    match network.attach(stream.secret) {
        Ok(peer) => {
            tracing::debug!(target: "swarm", peer = hex::encode(peer.remote), initiator, "connected");
            links.insert(peer.id, Link { ours: initiator, topics });
        }
        Err(error) => {
            tracing::debug!(target: "swarm", %error, "a connection is not taken");
            stream.handle.abort();
        }
    }
}

/// Looks at the node now and then, and writes down whom it knows.
async fn look(shared: &Shared) {
    let mut looks = interval(LOOK);
    for count in 0u32.. {
        looks.tick().await;
        let Ok(known) = shared.dht.look(|node| node.known()).await else { return };
        shared.known.store(known, Ordering::Relaxed);
        if count % SAVE_EVERY == SAVE_EVERY - 1 {
            shared.save().await;
        }
    }
}

#[cfg(test)]
mod tests;
