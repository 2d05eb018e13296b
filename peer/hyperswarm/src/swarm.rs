//! The swarm: peers with a common topic find and call each other, and stay connected.
//!
//! [`crowd`] decides; here are the tasks that search, call and listen for it. A connection belongs to whoever takes it
//! from [`Swarm::accept`]: when it is dropped, and the peer has ended it as well, the swarm may call that peer again.

pub mod crowd;

pub use crowd::{Limits, LinkId};

use crate::connect::{ListenOptions, PeerStream, Server};
use crate::dht::packet::Command;
use crate::dht::{Commit, Dht, Ended, Id, Identity, ListenError, Peers, PublicKey, Search, Status};
use crate::udx::UdxHandle;
use crowd::{Crowd, Task, Verdict};
use datdot_wire::connection::Options;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Connections that wait to be accepted.
const MAX_ACCEPTABLE: usize = 64;
/// Announcements that are withdrawn at once, and how long we take for all when we go. Those that stay end by themselves.
const WITHDRAWN_AT_ONCE: usize = 16;
const FAREWELL: Duration = Duration::from_secs(5);
/// Wishes that wait for the swarm.
const WISHES: usize = 1_024;

/// How a swarm behaves.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How many connections.
    pub limits: Limits,
    /// Of the connections.
    pub connection: Options,
}

/// As what to join a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// To find others.
    Client,
    /// To be found.
    Server,
    /// Both.
    Both,
}

/// A connection of the swarm.
#[derive(Debug)]
pub struct SwarmStream {
    /// The connection.
    pub stream: PeerStream,
    /// Whether we called.
    pub initiator: bool,
    /// The topics at which we found the peer; none if it called us.
    pub topics: Vec<Id>,
}

/// A running swarm. It ends, and withdraws its announcements, with [`close`](Swarm::close); dropped it just ends.
#[derive(Debug)]
pub struct Swarm {
    wishes: mpsc::Sender<Wish>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<SwarmStream>>,
    state: Arc<Mutex<Crowd>>,
    changed: watch::Receiver<()>,
    began: Instant,
    key: PublicKey,
}

#[derive(Debug)]
enum Wish {
    Join(Id, As),
    Leave(Id),
    JoinPeer(PublicKey),
    LeavePeer(PublicKey),
    Ban(PublicKey),
    Pardon(PublicKey),
    Suspend(oneshot::Sender<()>),
    Resume,
    Refresh,
    Sync(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What the swarm's own tasks tell it.
#[derive(Debug)]
enum Change {
    Found(Id, Vec<(PublicKey, Vec<SocketAddrV4>)>),
    Searched { topic: Id, announced: bool, closest: Vec<SocketAddrV4> },
    Dialed(PublicKey, Option<Box<PeerStream>>),
    Closed(LinkId, PublicKey),
}

impl Swarm {
    /// Begins a swarm of `identity` over a node.
    pub async fn start(dht: &Dht, identity: &Identity, settings: Settings) -> Result<Swarm, ListenError> {
        let key = identity.public();
        let crowd = Crowd::new(key, settings.limits, Duration::ZERO, rand::random());
        let state = Arc::new(Mutex::new(crowd));
        let gate = {
            let state = state.clone();
            Arc::new(move |key: &PublicKey, _: &_, _| lock(&state).is_welcome(key))
        };
        let options = ListenOptions { gate: Some(gate), connection: settings.connection.clone() };
        let server = dht.listen(identity, options).await?;
        let (wishes, wished) = mpsc::channel(WISHES);
        let (accept, accepted) = mpsc::channel(MAX_ACCEPTABLE);
        let (tell, told) = mpsc::unbounded_channel();
        let (change, changed) = watch::channel(());
        let began = Instant::now();
        let task = Keeper {
            dht: dht.clone(),
            identity: identity.clone(),
            settings,
            server,
            state: state.clone(),
            began,
            wished,
            accept,
            tell,
            told,
            change,
            links: BTreeMap::new(),
            dialing: HashMap::new(),
            searching: HashMap::new(),
            farewell: None,
            jobs: JoinSet::new(),
            next_link: 0,
            status: dht.status(),
            was_online: true,
            moves: 0,
        };
        tokio::spawn(task.run());
        Ok(Swarm { wishes, accepted: accepted.into(), state, changed, began, key })
    }

    /// Our key.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Joins a topic, or joins it as something else.
    pub async fn join(&self, topic: Id, as_: As) -> Result<(), Ended> {
        self.wish(Wish::Join(topic, as_)).await
    }

    /// Leaves a topic; the announcement is withdrawn, connections stay.
    pub async fn leave(&self, topic: Id) -> Result<(), Ended> {
        self.wish(Wish::Leave(topic)).await
    }

    /// Stays connected with a peer, whatever the topic.
    pub async fn join_peer(&self, key: PublicKey) -> Result<(), Ended> {
        self.wish(Wish::JoinPeer(key)).await
    }

    /// No longer.
    pub async fn leave_peer(&self, key: PublicKey) -> Result<(), Ended> {
        self.wish(Wish::LeavePeer(key)).await
    }

    /// Has nothing more to do with a peer until it's [pardoned](Self::pardon).
    pub async fn ban(&self, key: PublicKey) -> Result<(), Ended> {
        self.wish(Wish::Ban(key)).await
    }

    /// Lifts a [ban](Self::ban).
    pub async fn pardon(&self, key: PublicKey) -> Result<(), Ended> {
        self.wish(Wish::Pardon(key)).await
    }

    /// Ends all connections, withdraws what was announced, and begins nothing until [`resume`](Self::resume). Returns when
    /// that is done, after five seconds at most: then the node of the DHT, which goes on, may be [suspended](Dht::suspend)
    /// as well.
    pub async fn suspend(&self) -> Result<(), Ended> {
        let (done, withdrawn) = oneshot::channel();
        self.wish(Wish::Suspend(done)).await?;
        // Who resumes before has it withdrawn no further.
        _ = withdrawn.await;
        Ok(())
    }

    /// Goes on after [`suspend`](Self::suspend).
    pub async fn resume(&self) -> Result<(), Ended> {
        self.wish(Wish::Resume).await
    }

    /// Searches all topics anew, because the network is another.
    pub async fn refresh(&self) -> Result<(), Ended> {
        self.wish(Wish::Refresh).await
    }

    /// The next connection; `None` when the swarm has ended.
    pub async fn accept(&self) -> Option<SwarmStream> {
        self.accepted.lock().await.recv().await
    }

    /// Waits until a topic has been searched, and announced if we are a server there.
    pub async fn searched(&self, topic: Id) -> Result<(), Ended> {
        self.until(move |crowd| !crowd.is_searching(&topic)).await
    }

    /// Waits until everybody who was found has been called, or there is no room for more.
    pub async fn flush(&self) -> Result<(), Ended> {
        self.until(Crowd::is_idle).await
    }

    /// How long ago we were last announced at a topic.
    pub fn announced(&self, topic: &Id) -> Option<Duration> {
        let at = lock(&self.state).announced(topic)?;
        Some(self.began.elapsed().saturating_sub(at))
    }

    /// How many connections there are.
    pub fn links(&self) -> usize {
        lock(&self.state).links()
    }

    /// Withdraws all announcements and ends all connections.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.wish(Wish::Close(done)).await.is_ok() {
            _ = closed.await;
        }
    }

    async fn until(&self, mut is_so: impl FnMut(&Crowd) -> bool) -> Result<(), Ended> {
        // What was wished before has been done when this is.
        let (done, synced) = oneshot::channel();
        self.wish(Wish::Sync(done)).await?;
        synced.await.map_err(|_| Ended)?;
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            if is_so(&lock(&self.state)) {
                return Ok(());
            }
            changed.changed().await.map_err(|_| Ended)?;
        }
    }

    async fn wish(&self, wish: Wish) -> Result<(), Ended> {
        self.wishes.send(wish).await.map_err(|_| Ended)
    }
}

fn lock(state: &Mutex<Crowd>) -> MutexGuard<'_, Crowd> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    dht: Dht,
    identity: Identity,
    settings: Settings,
    server: Server,
    state: Arc<Mutex<Crowd>>,
    began: Instant,
    wished: mpsc::Receiver<Wish>,
    accept: mpsc::Sender<SwarmStream>,
    tell: mpsc::UnboundedSender<Change>,
    told: mpsc::UnboundedReceiver<Change>,
    change: watch::Sender<()>,
    links: BTreeMap<LinkId, UdxHandle>,
    dialing: HashMap<PublicKey, AbortHandle>,
    searching: HashMap<Id, AbortHandle>,
    /// Withdraws what was announced.
    farewell: Option<AbortHandle>,
    jobs: JoinSet<()>,
    next_link: u64,
    status: watch::Receiver<Status>,
    was_online: bool,
    moves: u64,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            self.act();
            self.change.send_replace(());
            let next = lock(&self.state).next_tick();
            let wait = next.map(|at| at.saturating_sub(self.began.elapsed()));
            tokio::select! {
                wish = self.wished.recv() => match wish {
                    Some(Wish::Close(done)) => {
                        self.close().await;
                        _ = done.send(());
                        return;
                    }
                    Some(wish) => self.on_wish(wish).await,
                    None => return,
                },
                Some(change) = self.told.recv() => self.on_change(change),
                stream = self.server.accept() => match stream {
                    Some(stream) => self.on_stream(stream, false),
                    None => return,
                },
                Some(_) = self.jobs.join_next() => {}
                Ok(()) = self.status.changed() => {
                    let Status { online, moves, .. } = *self.status.borrow_and_update();
                    if online && !self.was_online || moves != self.moves {
                        lock(&self.state).renew(self.began.elapsed());
                    }
                    (self.was_online, self.moves) = (online, moves);
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX / 4)), if wait.is_some() => {
                    lock(&self.state).tick(self.began.elapsed());
                }
            }
        }
    }

    async fn on_wish(&mut self, wish: Wish) {
        let now = self.began.elapsed();
        let crowd = || lock(&self.state);
        match wish {
            Wish::Join(topic, as_) => crowd().join(now, topic, as_ != As::Server, as_ != As::Client),
            Wish::Leave(topic) => crowd().leave(now, &topic),
            Wish::JoinPeer(key) => crowd().join_peer(now, key),
            Wish::LeavePeer(key) => crowd().leave_peer(&key),
            Wish::Ban(key) => crowd().ban(key),
            Wish::Pardon(key) => crowd().pardon(&key),
            Wish::Suspend(done) => self.suspend(done).await,
            Wish::Resume => self.resume().await,
            Wish::Refresh => crowd().refresh(now),
            Wish::Sync(done) | Wish::Close(done) => _ = done.send(()),
        }
    }

    async fn suspend(&mut self, done: oneshot::Sender<()>) {
        let announced = lock(&self.state).suspend();
        // What is searched now is announced no more: only then there's something to withdraw.
        self.act();
        _ = self.server.suspend().await;
        let (dht, identity) = (self.dht.clone(), self.identity.clone());
        self.farewell = Some(self.jobs.spawn(async move {
            withdraw(&dht, &identity, announced).await;
            _ = done.send(());
        }));
    }

    async fn resume(&mut self) {
        // It would withdraw what is announced anew.
        if let Some(farewell) = self.farewell.take() {
            farewell.abort();
        }
        _ = self.server.resume().await;
        lock(&self.state).resume(self.began.elapsed());
    }

    fn on_change(&mut self, change: Change) {
        let now = self.began.elapsed();
        match change {
            Change::Found(topic, peers) => {
                let mut crowd = lock(&self.state);
                for (key, relays) in peers {
                    crowd.on_found(now, topic, key, &relays);
                }
            }
            Change::Searched { topic, announced, closest } => {
                self.searching.remove(&topic);
                lock(&self.state).on_search_end(now, &topic, announced, closest);
            }
            Change::Dialed(key, stream) => {
                self.dialing.remove(&key);
                match stream {
                    Some(stream) => self.on_stream(*stream, true),
                    None => lock(&self.state).on_failure(now, &key),
                }
            }
            Change::Closed(id, key) => {
                self.links.remove(&id);
                lock(&self.state).on_close(now, id, &key);
            }
        }
    }

    /// Whether one host takes the room that's left: most of it is taken, and an eighth is that host's.
    fn is_crowding(&self, host: IpAddr) -> bool {
        let room = self.settings.limits.incoming;
        let address = |handle: &UdxHandle| handle.path().map(|path| path.address.ip());
        4 * self.links.len() >= 3 * room
            && !host.is_loopback()
            && self.links.values().filter(|handle| address(handle) == Some(host)).count() >= room.div_ceil(8)
    }

    /// A connection came about.
    fn on_stream(&mut self, stream: PeerStream, initiator: bool) {
        if !initiator && stream.address().is_some_and(|address| self.is_crowding(address.ip())) {
            return stream.handle.abort();
        }
        let (id, key) = (LinkId(self.next_link), stream.remote());
        self.next_link += 1;
        let (verdict, topics) = {
            let mut crowd = lock(&self.state);
            (crowd.on_link(self.began.elapsed(), id, key, !initiator), crowd.topics_of(&key))
        };
        if verdict == Verdict::Drop {
            return stream.handle.abort();
        }
        self.links.insert(id, stream.handle.clone());
        let (handle, tell) = (stream.handle.clone(), self.tell.clone());
        self.jobs.spawn(async move {
            let end = handle.closed().await;
            tracing::debug!(target: "swarm", %end, "a connection ended");
            _ = tell.send(Change::Closed(id, key));
        });
        // Whoever doesn't take connections loses them.
        _ = self.accept.try_send(SwarmStream { stream, initiator, topics });
    }

    /// Does what the crowd wants done.
    fn act(&mut self) {
        loop {
            let Some(task) = lock(&self.state).poll() else { return };
            match task {
                Task::Search { topic, announce, clear, nodes } => {
                    let search = Search { nodes, ..Search::new(topic, Command::Lookup) };
                    let search = Search { clear: clear.then(|| self.identity.clone()), ..search };
                    let key = self.server.public_key();
                    let (dht, tell) = (self.dht.clone(), self.tell.clone());
                    let identity = announce.then(|| self.identity.clone());
                    let announced = self.server.watch();
                    let look = self.jobs.spawn(async move {
                        let change = look(&dht, search, identity, key, announced, &tell).await;
                        _ = tell.send(change);
                    });
                    self.searching.insert(topic, look);
                }
                Task::StopSearching { topic } => {
                    if let Some(look) = self.searching.remove(&topic) {
                        look.abort();
                    }
                }
                Task::Dial { key, relays } => {
                    let (dht, tell, identity) = (self.dht.clone(), self.tell.clone(), self.identity.clone());
                    let options = self.settings.connection.clone();
                    let call = self.jobs.spawn(async move {
                        let stream = dht.connect(&identity, key, &relays, &options).await;
                        if let Err(error) = &stream {
                            tracing::debug!(target: "swarm", %error, "a peer was called in vain");
                        }
                        _ = tell.send(Change::Dialed(key, stream.ok().map(Box::new)));
                    });
                    self.dialing.insert(key, call);
                }
                Task::StopDialing { key } => {
                    if let Some(call) = self.dialing.remove(&key) {
                        call.abort();
                    }
                }
                Task::Close(id) => {
                    if let Some(handle) = self.links.remove(&id) {
                        handle.abort();
                    }
                }
            }
        }
    }

    async fn close(mut self) {
        let announced = lock(&self.state).suspend();
        self.act();
        self.jobs.abort_all();
        withdraw(&self.dht, &self.identity, announced).await;
        self.server.close().await;
    }
}

/// Withdraws announcements, as many as there's time for: `topics` come with the nodes that keep them.
async fn withdraw(dht: &Dht, identity: &Identity, topics: Vec<(Id, Vec<SocketAddrV4>)>) {
    let mut farewells = JoinSet::new();
    let all = async {
        for (topic, nodes) in topics {
            if farewells.len() >= WITHDRAWN_AT_ONCE {
                farewells.join_next().await;
            }
            let (dht, clear) = (dht.clone(), Some(identity.clone()));
            farewells.spawn(async move {
                let search = Search { clear, nodes, ..Search::new(topic, Command::Lookup) };
                if let Ok(searching) = dht.search(search).await {
                    _ = searching.finished().await;
                }
            });
        }
        while farewells.join_next().await.is_some() {}
    };
    _ = tokio::time::timeout(FAREWELL, all).await;
}

/// Searches a topic, tells whom it finds, and announces `identity` in the end.
async fn look(
    dht: &Dht,
    mut search: Search,
    identity: Option<Identity>,
    own: PublicKey,
    announced: crate::connect::Announced,
    tell: &mpsc::UnboundedSender<Change>,
) -> Change {
    let topic = search.target;
    if let Some(identity) = identity {
        // Without relays nobody could reach us; a while later they are known, or there is no network.
        let wait = tokio::time::timeout(Duration::from_secs(10), announced.wait()).await;
        let relays = match wait {
            Ok(Ok(())) => dht.look(move |node| node.relays(&own)).await.unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        search.commit = Commit::Announce { identity, relays, bump: 0, at: 20 };
    }
    let nothing = Change::Searched { topic, announced: false, closest: Vec::new() };
    let Ok(mut searching) = dht.search(search).await else { return nothing };
    while let Some(reply) = searching.next().await {
        let found = reply.value.as_deref().and_then(|value| Peers::decode(value).ok()).unwrap_or_default();
        let peers: Vec<_> = found.peers.into_iter().map(|peer| (peer.key, peer.relays)).collect();
        if !peers.is_empty() {
            _ = tell.send(Change::Found(topic, peers));
        }
    }
    match searching.finished().await {
        Ok(outcome) => {
            let closest = outcome.closest.iter().map(|reply| reply.from).collect();
            Change::Searched { topic, announced: !outcome.committed.is_empty(), closest }
        }
        Err(Ended) => nothing,
    }
}
