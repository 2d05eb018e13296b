//! The driver: sockets, clock and tasks around the `peer` of each connection.
//!
//! Each connection is one task. It moves bytes and encrypts; reading and writing feeds happens on blocking threads, one
//! step at a time and connection, while the task goes on receiving and sending.

mod callers;
mod download;
mod pump;
mod steps;
mod taking;
mod unsent;

use crate::{
    feed::Feed,
    key::FeedKey,
    limit::{Limits, Own, Valve},
    offers::Memory,
    peer::{Fault, Peer, Setup},
    plan::{PeerId, Plan, Want},
    plans::Plans,
    store::Store,
};
use datdot_wire::{
    connection::{self, Connection, ConnectionError, Options},
    noise::{Keypair, PublicKey, Role},
};
pub use download::Download;
use pump::Pump;
use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use steps::Steps;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, broadcast, watch},
    task::JoinSet,
    time::timeout,
};
use unsent::Unsent;

const TICK: Duration = Duration::from_millis(500);
const DIAL: Duration = Duration::from_secs(10);
/// Connections with one remote: it may have lost some of which we don't know yet.
const WITH_ONE: usize = 8;

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are to other peers.
    pub keypair: Keypair,
    /// Where to listen for connections; nowhere if not set.
    pub listen: Option<SocketAddr>,
    /// Connections at a time, both ways together; `usize::MAX` for any number. Who calls this address gets none of the last
    /// quarter of them. Default: 512.
    pub max_connections: usize,
    /// Blocks asked of one peer at a time, for each feed, until its round trip and rate are known; at least one. Default: 16.
    pub window: usize,
    /// Bytes per second; none by default.
    pub limits: Limits,
    /// Time limits and memory of connections.
    pub connection: Options,
}

impl Config {
    /// The defaults for a key pair; listens nowhere.
    pub fn new(keypair: Keypair) -> Config {
        Config {
            keypair,
            listen: None,
            max_connections: 512,
            window: 16,
            limits: Limits::default(),
            connection: Options::default(),
        }
    }
}

/// Serves every feed of a store to those who know its key, and fetches what is wanted. Cheap to clone; call
/// [`Network::close`] to end it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    store: Store,
    config: Config,
    plans: Arc<Plans>,
    memory: Memory,
    steps: Steps,
    unsent: Unsent,
    next: AtomicU64,
    open: Mutex<BTreeMap<PeerId, Open>>,
    /// Locked while a task begins. That may end at once, and its guard locks `open`: so there are two locks.
    tasks: Mutex<Tasks>,
    /// Those that are waited for, since the network was closed.
    ending: tokio::sync::Mutex<Tasks>,
    /// Closed with the network, while `tasks` is locked.
    places: Arc<Semaphore>,
    /// Feeds of which something else is wanted.
    wake: broadcast::Sender<FeedKey>,
    events: broadcast::Sender<PeerEvent>,
    listening: Option<SocketAddr>,
}

/// What runs until the network is closed.
#[derive(Default)]
struct Tasks {
    /// One for each connection.
    connections: JoinSet<()>,
    /// Those that listen and shake hands.
    calls: JoinSet<()>,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Names the connection, never reused.
    pub id: PeerId,
    /// The remote's Noise key.
    pub remote: PublicKey,
    /// Its address, for TCP.
    pub address: Option<SocketAddr>,
}

/// A connection that is open.
struct Open {
    info: PeerInfo,
    stop: Arc<Notify>,
    own: Own,
}

/// A connection came or went.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// It came.
    Connected(PeerInfo),
    /// It went.
    Ended(PeerInfo, Arc<Ended>),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The remote closed it.
    #[error("closed by the remote")]
    Closed,
    /// It broke.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The remote did what no honest peer does.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The remote takes nothing of what we send.
    #[error("the remote takes no answers")]
    Stalled,
    /// We ended it.
    #[error("closed by us")]
    ByUs,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers at the address.
    #[error("{address}: {source}")]
    Dial {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The remote is not whom we expected, or speaks something else.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// [`Config::max_connections`] are open, or several with this remote alone.
    #[error("too many connections")]
    Full,
    /// [`Network::close`] was called.
    #[error("the network was closed")]
    Closed,
}

impl Network {
    /// Begins to listen, if that is wanted. Needs a tokio runtime with time and network.
    pub async fn start(store: Store, config: Config) -> io::Result<Network> {
        let listener = match config.listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let inner = Arc::new(Inner {
            plans: Arc::default(),
            memory: Memory::default(),
            steps: Steps::default(),
            unsent: Unsent::default(),
            next: AtomicU64::new(1),
            open: Mutex::default(),
            tasks: Mutex::default(),
            ending: Default::default(),
            places: Arc::new(Semaphore::new(most(&config))),
            wake: broadcast::Sender::new(256),
            events: broadcast::Sender::new(256),
            listening: listener.as_ref().map(TcpListener::local_addr).transpose()?,
            store,
            config,
        });
        if let Some(listener) = listener {
            lock(&inner.tasks).calls.spawn(callers::accept(listener, Arc::downgrade(&inner)));
        }
        Ok(Network(inner))
    }

    /// Where connections are accepted.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.listening
    }

    /// Our Noise key.
    pub fn public_key(&self) -> PublicKey {
        self.0.config.keypair.public()
    }

    /// Its limits, to be changed.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// How its connections behave: for those that are made otherwise, so that they share its memory.
    pub fn options(&self) -> &Options {
        &self.0.config.connection
    }

    /// The feeds that are served.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Calls a peer; `expected` refuses anybody else who answers there.
    pub async fn connect(&self, address: SocketAddr, expected: Option<PublicKey>) -> Result<PeerInfo, ConnectError> {
        let place = self.0.place()?;
        let dial = |source| ConnectError::Dial { address, source };
        let stream = match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(stream) => stream.map_err(dial)?,
            Err(_) => return Err(dial(io::ErrorKind::TimedOut.into())),
        };
        // Answers are gathered before they are sent; nothing is gained by gathering again.
        stream.set_nodelay(true).map_err(dial)?;
        let config = &self.0.config;
        let connection = connection::connect(stream, &config.keypair, expected, &config.connection).await?;
        self.0.attach(connection, Some(address), place)
    }

    /// Takes a connection that was made otherwise.
    pub fn attach<R, W>(&self, connection: Connection<R, W>) -> Result<PeerInfo, ConnectError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let place = self.0.place()?;
        self.0.attach(connection, None, place)
    }

    /// Fetches blocks of a feed of the store from all connections that have them, for as long as the returned handle
    /// lives. A feed may have any number of downloads at a time.
    pub fn download(&self, feed: &Feed, want: Want) -> Download {
        self.begin(feed, want, false)
    }

    pub(crate) fn begin(&self, feed: &Feed, want: Want, urgent: bool) -> Download {
        let serial = self.0.next.fetch_add(1, Ordering::Relaxed);
        let stopped = self.0.plans.want(feed.key(), want.clone(), serial, urgent);
        self.0.wake(feed);
        Download { feed: feed.clone(), want, stopped, told: None, serial, network: self.0.clone() }
    }

    /// Looks for the block of a byte; the receiver changes when that may be known. Whether nobody was looking yet.
    pub(crate) fn look(&self, feed: &Feed, byte: u64) -> (watch::Receiver<u64>, bool) {
        let look = self.0.plans.seek(&feed.key(), byte);
        self.0.wake(feed);
        look
    }

    /// Changes when [`Network::has_heard`] may have changed.
    pub(crate) fn heads(&self) -> watch::Receiver<u64> {
        self.0.plans.heads.subscribe()
    }

    /// Whether all connected peers have told of their newest head of a feed that is wanted.
    pub(crate) fn has_heard(&self, feed: &Feed) -> bool {
        let peers: Vec<_> = lock(&self.0.open).keys().copied().collect();
        let all = |plan: &mut Plan| peers.iter().all(|peer| plan.has_heard(*peer));
        self.0.plans.with(&feed.key(), all).unwrap_or(false)
    }

    /// All connections.
    pub fn peers(&self) -> Vec<PeerInfo> {
        lock(&self.0.open).values().map(|open| open.info).collect()
    }

    /// Connections that come and go from now on.
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.0.events.subscribe()
    }

    /// Drops a connection.
    pub fn disconnect(&self, peer: PeerId) {
        if let Some(open) = lock(&self.0.open).get(&peer) {
            open.stop.notify_one();
        }
    }

    /// Ends all connections and listens no more. There will be no others, and what is still waited for ends with
    /// [`Stopped::Closed`](crate::Stopped::Closed). When it returns nothing runs any more: the store's folder is free as soon as the
    /// handles to the network, the store and its feeds are dropped.
    pub async fn close(&self) {
        // Whoever closes it too waits for the same.
        let mut ending = self.0.ending.lock().await;
        if !self.0.places.is_closed() {
            let mut tasks = lock(&self.0.tasks);
            self.0.places.close();
            *ending = std::mem::take(&mut *tasks);
        }
        lock(&self.0.open).values().for_each(|open| open.stop.notify_one());
        self.0.plans.close();
        ending.calls.shutdown().await;
        while ending.connections.join_next().await.is_some() {}
        // Feeds outlive the network: what came has to be on the disk.
        for feed in self.0.store.feeds() {
            if let Err(error) = feed.flush().await {
                tracing::error!(target: "hypercore", %error, "blocks can't be brought to the disk");
            }
        }
    }
}

impl Inner {
    fn wake(&self, feed: &Feed) {
        // Without connections nobody listens: fine.
        _ = self.wake.send(feed.key());
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, ConnectError> {
        self.places.clone().try_acquire_owned().map_err(|why| match why {
            TryAcquireError::Closed => ConnectError::Closed,
            TryAcquireError::NoPermits => ConnectError::Full,
        })
    }

    fn attach<R, W>(
        self: &Arc<Self>,
        connection: Connection<R, W>,
        address: Option<SocketAddr>,
        place: OwnedSemaphorePermit,
    ) -> Result<PeerInfo, ConnectError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let info = PeerInfo { id, remote: connection.remote, address };
        let peer = Peer::new(
            clock(),
            Setup {
                id,
                initiator: connection.role == Role::Initiator,
                handshake: connection.handshake_hash,
                store: self.store.clone(),
                plans: self.plans.clone(),
                window: self.config.window.max(1),
                memory: self.memory.clone(),
            },
        );
        let (stop, limits) = (Arc::new(Notify::new()), &self.config.limits);
        let own = {
            let mut open = lock(&self.open);
            let same: Vec<&Open> = open.values().filter(|open| open.info.remote == info.remote).collect();
            if same.len() >= WITH_ONE {
                return Err(ConnectError::Full);
            }
            // With a second connection a peer gets no more.
            let own = same.first().map_or_else(|| limits.own(), |open| open.own.clone());
            open.insert(id, Open { info, stop: stop.clone(), own: own.clone() });
            own
        };
        // Before anything can say that it ended.
        _ = self.events.send(PeerEvent::Connected(info));
        let guard = Guard { info, ended: Ended::ByUs, network: self.clone() };
        let pump = Pump {
            upload: Valve::new(clock(), &limits.upload, &own.upload),
            download: Valve::new(clock(), &limits.download, &own.download),
            reader: connection.reader,
            writer: connection.writer,
            changes: self.store.changes(),
            wake: self.wake.subscribe(),
            steps: self.steps.clone(),
            unsent: self.unsent.part(),
        };
        let mut tasks = lock(&self.tasks);
        if self.places.is_closed() {
            return Err(ConnectError::Closed);
        }
        while tasks.connections.try_join_next().is_some() {}
        tasks.connections.spawn(async move {
            let mut guard = guard;
            guard.ended = pump.run(peer, &stop).await;
            drop(place);
        });
        drop(tasks);
        tracing::debug!(target: "hypercore", peer = id, ?address, "connected");
        Ok(info)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (listening, peers) = (&self.0.listening, self.peers().len());
        f.debug_struct("Network").field("listening", listening).field("peers", &peers).finish_non_exhaustive()
    }
}

/// Reports the end of a connection, however its task ends.
struct Guard {
    info: PeerInfo,
    ended: Ended,
    network: Arc<Inner>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.network.open).remove(&self.info.id);
        self.network.plans.heads.send_modify(|count| *count += 1);
        let ended = std::mem::replace(&mut self.ended, Ended::ByUs);
        match &ended {
            Ended::Fault(fault) => tracing::warn!(target: "hypercore", peer = self.info.id, %fault, "peer dropped"),
            ended => tracing::debug!(target: "hypercore", peer = self.info.id, %ended, "disconnected"),
        }
        _ = self.network.events.send(PeerEvent::Ended(self.info, Arc::new(ended)));
    }
}

/// Connections that there may be.
fn most(config: &Config) -> usize {
    config.max_connections.min(Semaphore::MAX_PERMITS)
}

/// The time as tokio tells it, so that tests can turn the clock.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
