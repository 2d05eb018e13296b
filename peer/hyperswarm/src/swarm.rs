//! The swarm: peers with a common topic find and call each other, and stay connected.
//!
//! [`crowd`] decides; here are the tasks that search, call and listen for it. A connection belongs to whoever takes it
//! from [`Swarm::accept`]: when it is dropped, and the peer has ended it as well, the swarm may call that peer again.

pub mod crowd;
mod look;

pub use crowd::{Event, Limits, LinkId, PeerInfo, PeerState, TopicInfo};

use crate::connect::{ListenOptions, PeerStream, Server};
use crate::dht::packet::Command;
use crate::dht::{Dht, Ended, Id, Identity, ListenError, PublicKey, Search, Status};
use crate::udx::UdxHandle;
use crowd::{Crowd, Origin, Searched, Task, Ticket, Verdict};
use datdot_wire::connection::Options;
use look::{Look, look, withdraw};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Connections that wait to be accepted.
const MAX_ACCEPTABLE: usize = 64;
/// Announcements that are withdrawn at once, and how long we take for all when we go. Those that stay end by themselves.
const WITHDRAWN_AT_ONCE: usize = 16;
const FAREWELL: Duration = Duration::from_secs(5);
/// Wishes that wait for the swarm.
const WISHES: usize = 1_024;
/// Events that wait for whoever listens to them.
const EVENTS: usize = 1_024;

/// Decides whom we talk to, beside [`Swarm::ban`]: asked with a peer's key before we call it, and with where it is when it
/// calls us. Whom it refuses hears nothing, and may be asked about again. It is not to wait for anything.
pub type Gate = Arc<dyn Fn(&PublicKey, Option<SocketAddrV4>) -> bool + Send + Sync>;

/// How a swarm behaves.
#[derive(Clone, Default)]
pub struct Settings {
    /// How many connections.
    pub limits: Limits,
    /// With whom; everybody by default.
    pub gate: Option<Gate>,
    /// Of the connections.
    pub connection: Options,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { limits, gate, connection } = self;
        let gated = gate.is_some();
        f.debug_struct("Settings")
            .field("limits", limits)
            .field("gated", &gated)
            .field("connection", connection)
            .finish()
    }
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
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    events: broadcast::Receiver<Event>,
    began: Instant,
    key: PublicKey,
}

/// What the swarm's task changes, and others see.
#[derive(Debug)]
struct State {
    crowd: Crowd,
    links: BTreeMap<LinkId, UdxHandle>,
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
    Searched(Ticket, Id, Searched),
    Dialed(Ticket, PublicKey, Option<Box<PeerStream>>),
    Closed(LinkId, PublicKey),
}

impl Swarm {
    /// Begins a swarm of `identity` over a node.
    pub async fn start(dht: &Dht, identity: &Identity, settings: Settings) -> Result<Swarm, ListenError> {
        let key = identity.public();
        let crowd = Crowd::new(key, settings.limits, Duration::ZERO, rand::random());
        let state = Arc::new(Mutex::new(State { crowd, links: BTreeMap::new() }));
        let gate = {
            let (state, gate) = (state.clone(), settings.gate.clone());
            Arc::new(move |key: &PublicKey, _: &_, from| {
                let is_welcome = lock(&state).crowd.is_welcome(key);
                is_welcome && gate.as_ref().is_none_or(|gate| gate(key, Some(from)))
            })
        };
        let options = ListenOptions { gate: Some(gate), connection: settings.connection.clone() };
        let server = dht.listen(identity, options).await?;
        let (wishes, wished) = mpsc::channel(WISHES);
        let (accept, accepted) = mpsc::channel(MAX_ACCEPTABLE);
        let (tell, told) = mpsc::unbounded_channel();
        let (change, changed) = watch::channel(());
        let (happen, events) = broadcast::channel(EVENTS);
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
            happen,
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
        Ok(Swarm { wishes, accepted: accepted.into(), state, changed, events, began, key })
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

    /// What happens from now on. Whoever is late by more than 1,024 events is told how many were lost, and sees what came
    /// of them in [`peers`](Self::peers) and [`topics`](Self::topics).
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.resubscribe()
    }

    /// Waits until a topic has been searched, and announced if we are a server there.
    pub async fn searched(&self, topic: Id) -> Result<(), Ended> {
        self.sync().await?;
        self.until(move |crowd| !crowd.is_searching(&topic)).await
    }

    /// Waits until all topics that were joined have been searched, and announced where we are a server; then until everybody
    /// who was found has been called, or there is no room for more. Those who didn't answer are called again later.
    pub async fn flush(&self) -> Result<(), Ended> {
        self.sync().await?;
        let topics = lock(&self.state).crowd.mark_topics();
        self.until(move |crowd| crowd.are_searched(topics)).await?;
        let calls = lock(&self.state).crowd.mark_calls();
        self.until(move |crowd| crowd.are_called(calls)).await
    }

    /// How long ago we were last announced at a topic.
    pub fn announced(&self, topic: &Id) -> Option<Duration> {
        let at = lock(&self.state).crowd.announced(topic)?;
        Some(self.began.elapsed().saturating_sub(at))
    }

    /// The topics that were joined.
    pub fn topics(&self) -> Vec<TopicInfo> {
        lock(&self.state).crowd.topics(self.began.elapsed())
    }

    /// Everybody who is known: connected, to be called, or banned.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let state = lock(&self.state);
        let peers = state.crowd.peers(self.began.elapsed());
        peers.into_iter().map(|peer| state.located(peer)).collect()
    }

    /// What is known of a peer.
    pub fn peer(&self, key: &PublicKey) -> Option<PeerInfo> {
        let state = lock(&self.state);
        Some(state.located(state.crowd.peer(self.began.elapsed(), key)?))
    }

    /// How many connections there are.
    pub fn links(&self) -> usize {
        lock(&self.state).crowd.links()
    }

    /// Withdraws all announcements and ends all connections.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.wish(Wish::Close(done)).await.is_ok() {
            _ = closed.await;
        }
    }

    /// Waits until what was wished before has been done.
    async fn sync(&self) -> Result<(), Ended> {
        let (done, synced) = oneshot::channel();
        self.wish(Wish::Sync(done)).await?;
        synced.await.map_err(|_| Ended)
    }

    async fn until(&self, mut is_so: impl FnMut(&Crowd) -> bool) -> Result<(), Ended> {
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            if is_so(&lock(&self.state).crowd) {
                return Ok(());
            }
            changed.changed().await.map_err(|_| Ended)?;
        }
    }

    async fn wish(&self, wish: Wish) -> Result<(), Ended> {
        self.wishes.send(wish).await.map_err(|_| Ended)
    }
}

impl State {
    /// The same peer, and where it is.
    fn located(&self, peer: PeerInfo) -> PeerInfo {
        let handle = match peer.state {
            PeerState::Connected { link, .. } => self.links.get(&link),
            _ => None,
        };
        PeerInfo { address: handle.and_then(UdxHandle::path).map(|path| path.address), ..peer }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    dht: Dht,
    identity: Identity,
    settings: Settings,
    server: Server,
    state: Arc<Mutex<State>>,
    began: Instant,
    wished: mpsc::Receiver<Wish>,
    accept: mpsc::Sender<SwarmStream>,
    tell: mpsc::UnboundedSender<Change>,
    told: mpsc::UnboundedReceiver<Change>,
    change: watch::Sender<()>,
    happen: broadcast::Sender<Event>,
    dialing: HashMap<Ticket, AbortHandle>,
    searching: HashMap<Ticket, AbortHandle>,
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
            let next = lock(&self.state).crowd.next_tick();
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
                    Some(stream) => {
                        let host = stream.address().map(|address| address.ip());
                        self.on_stream(stream, Origin::Theirs(host));
                    }
                    None => return,
                },
                Some(_) = self.jobs.join_next() => {}
                Ok(()) = self.status.changed() => {
                    let Status { online, moves, .. } = *self.status.borrow_and_update();
                    if online && !self.was_online || moves != self.moves {
                        lock(&self.state).crowd.renew(self.began.elapsed());
                    }
                    (self.was_online, self.moves) = (online, moves);
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX / 4)), if wait.is_some() => {
                    lock(&self.state).crowd.tick(self.began.elapsed());
                }
            }
        }
    }

    async fn on_wish(&mut self, wish: Wish) {
        let now = self.began.elapsed();
        let state = || lock(&self.state);
        match wish {
            Wish::Join(topic, as_) => state().crowd.join(now, topic, as_ != As::Server, as_ != As::Client),
            Wish::Leave(topic) => state().crowd.leave(now, &topic),
            Wish::JoinPeer(key) => state().crowd.join_peer(key),
            Wish::LeavePeer(key) => state().crowd.leave_peer(&key),
            Wish::Ban(key) => state().crowd.ban(key),
            Wish::Pardon(key) => state().crowd.pardon(&key),
            Wish::Suspend(done) => self.suspend(done).await,
            Wish::Resume => self.resume().await,
            Wish::Refresh => state().crowd.refresh(now),
            Wish::Sync(done) | Wish::Close(done) => _ = done.send(()),
        }
    }

    async fn suspend(&mut self, done: oneshot::Sender<()>) {
        let announced = lock(&self.state).crowd.suspend();
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
        lock(&self.state).crowd.resume(self.began.elapsed());
    }

    fn on_change(&mut self, change: Change) {
        let now = self.began.elapsed();
        match change {
            Change::Found(topic, peers) => {
                let mut state = lock(&self.state);
                for (key, relays) in peers {
                    state.crowd.on_found(topic, key, &relays);
                }
            }
            Change::Searched(ticket, topic, searched) => {
                self.searching.remove(&ticket);
                lock(&self.state).crowd.on_search_end(now, ticket, &topic, searched);
            }
            Change::Dialed(ticket, key, stream) => {
                self.dialing.remove(&ticket);
                match stream {
                    Some(stream) => self.on_stream(*stream, Origin::Ours(ticket)),
                    None => lock(&self.state).crowd.on_failure(now, ticket, &key),
                }
            }
            Change::Closed(id, key) => {
                let mut state = lock(&self.state);
                state.links.remove(&id);
                state.crowd.on_close(now, id, &key);
            }
        }
    }

    /// A connection came about.
    fn on_stream(&mut self, stream: PeerStream, by: Origin) {
        let (id, key) = (LinkId(self.next_link), stream.remote());
        self.next_link += 1;
        let topics = {
            let mut state = lock(&self.state);
            if state.crowd.on_link(self.began.elapsed(), id, key, by) == Verdict::Drop {
                return stream.handle.abort();
            }
            state.links.insert(id, stream.handle.clone());
            state.crowd.topics_of(&key)
        };
        let (handle, tell) = (stream.handle.clone(), self.tell.clone());
        self.jobs.spawn(async move {
            let end = handle.closed().await;
            tracing::debug!(target: "swarm", %end, "a connection ended");
            _ = tell.send(Change::Closed(id, key));
        });
        // Whoever doesn't take connections loses them.
        let initiator = matches!(by, Origin::Ours(_));
        _ = self.accept.try_send(SwarmStream { stream, initiator, topics });
    }

    /// Does what the crowd wants done.
    fn act(&mut self) {
        loop {
            let Some(task) = lock(&self.state).crowd.poll() else { return };
            match task {
                Task::Search { ticket, topic, announce, clear, nodes } => {
                    let clear = clear.then(|| self.identity.clone());
                    let search = Search { nodes, clear, ..Search::new(topic, Command::Lookup) };
                    let announce = announce.then(|| (self.identity.clone(), self.server.watch()));
                    let (dht, tell) = (self.dht.clone(), self.tell.clone());
                    let look = self.jobs.spawn(async move {
                        let change = look(&dht, Look { ticket, search, announce }, &tell).await;
                        _ = tell.send(change);
                    });
                    self.searching.insert(ticket, look);
                }
                Task::StopSearching(ticket) => {
                    if let Some(look) = self.searching.remove(&ticket) {
                        look.abort();
                    }
                }
                Task::Dial { ticket, key, relays } => self.dial(ticket, key, relays),
                Task::StopDialing(ticket) => {
                    if let Some(call) = self.dialing.remove(&ticket) {
                        call.abort();
                    }
                }
                Task::Close(id) => {
                    if let Some(handle) = lock(&self.state).links.remove(&id) {
                        handle.abort();
                    }
                }
                // Perhaps nobody listens.
                Task::Tell(event) => _ = self.happen.send(event),
            }
        }
    }

    fn dial(&mut self, ticket: Ticket, key: PublicKey, relays: Vec<SocketAddrV4>) {
        if self.settings.gate.as_ref().is_some_and(|gate| !gate(&key, None)) {
            return lock(&self.state).crowd.on_refusal(self.began.elapsed(), ticket, &key);
        }
        let (dht, tell, identity) = (self.dht.clone(), self.tell.clone(), self.identity.clone());
        let options = self.settings.connection.clone();
        let call = self.jobs.spawn(async move {
            let stream = dht.connect(&identity, key, &relays, &options).await;
            if let Err(error) = &stream {
                tracing::debug!(target: "swarm", %error, "a peer was called in vain");
            }
            _ = tell.send(Change::Dialed(ticket, key, stream.ok().map(Box::new)));
        });
        self.dialing.insert(ticket, call);
    }

    async fn close(mut self) {
        let announced = lock(&self.state).crowd.suspend();
        self.act();
        self.jobs.abort_all();
        withdraw(&self.dht, &self.identity, announced).await;
        self.server.close().await;
    }
}
