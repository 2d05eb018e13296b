//! The sockets and the clock around a [`Node`].

use super::bootstrap::Name;
use super::clock::Clock;
use super::node::{Action, Call, Config, Event, Node, Outcome, QuestionId, Reach, Relay, SearchId};
use super::packet::{Command, Token};
use super::query::{Reply, Search};
use super::record::{Identity, PublicKey};
use super::{Id, Socket, cache, interfaces};
use crate::connect::Relays;
use crate::udx::{self, Datagram, Pending, Udx, UdxSocket};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest datagram that is looked at; JavaScript cuts longer ones off.
const MAX_DATAGRAM: usize = 2_048;
/// Datagrams that are read in a row before anything else gets its turn.
const IN_A_ROW: usize = 64;
/// Wishes that wait for the node.
const WISHES: usize = 1_024;
/// How often the nodes that we know are written into a file.
const REMEMBER_EVERY: Duration = Duration::from_secs(10 * 60);
/// How often the system is asked for its networks.
const LOOK_AT_NETWORKS: Duration = Duration::from_secs(5);
/// How long the DNS may take, and how many addresses of one name are taken.
const RESOLVE: Duration = Duration::from_secs(10);
const ADDRESSES_OF_A_NAME: usize = 8;

/// Where a node listens, and how it begins.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's own.
    pub node: Config,
    /// The local address of both sockets; unspecified for all networks.
    pub host: Ipv4Addr,
    /// The local port of the server socket. If it's taken, one of the four behind it, or else any; 0 for any at once.
    pub port: u16,
}

impl Default for Settings {
    /// Port 49737 on all networks.
    fn default() -> Self {
        Settings { node: Config::default(), host: Ipv4Addr::UNSPECIFIED, port: 49_737 }
    }
}

/// A running node. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Dht {
    wishes: mpsc::Sender<Wish>,
    status: watch::Receiver<Status>,
    udx: Udx,
    server: UdxSocket,
    client: UdxSocket,
    address: SocketAddrV4,
    relays: Arc<Mutex<Relays>>,
    /// Of all streams: they have their memory in common.
    streams: udx::Config,
}

/// How a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether the first walk is done.
    pub bootstrapped: bool,
    /// Whether anybody answers us, as far as is known.
    pub online: bool,
    /// How others reach us.
    pub reach: Reach,
    /// How often we came into another network.
    pub moves: u64,
}

/// Nobody can call us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// There's a server with this key already.
    #[error("there is a server with this key already")]
    InUse,
    /// The node has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the DHT node has ended")]
pub struct Ended;

enum Wish {
    Search {
        search: Box<Search>,
        steps: mpsc::UnboundedSender<Step>,
        started: oneshot::Sender<SearchId>,
    },
    Cancel(SearchId),
    Ask {
        to: SocketAddrV4,
        question: OwnQuestion,
        reply: oneshot::Sender<Option<Reply>>,
    },
    Listen {
        identity: Identity,
        calls: mpsc::Sender<Call>,
        begun: oneshot::Sender<Option<watch::Receiver<Vec<Relay>>>>,
    },
    Unlisten(PublicKey),
    PauseCalls(PublicKey, bool),
    Resolved(Vec<SocketAddrV4>),
    NetworkChanged,
    Suspend(bool),
    AnswerCall(Box<Call>, Vec<u8>),
    Look(Box<dyn FnOnce(&mut Node) + Send>),
}

/// A question to one node.
#[derive(Debug, Clone)]
struct OwnQuestion {
    command: Command,
    target: Option<Id>,
    token: Option<Token>,
    value: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Step {
    Found(Reply),
    Finished(Outcome),
}

impl Dht {
    /// Binds the sockets and begins.
    pub async fn start(settings: Settings) -> io::Result<Dht> {
        let udx = Udx::new();
        let (server, at_server) = bind_server(&udx, settings.host, settings.port).await?;
        let (client, at_client) = udx.bind((settings.host, 0).into()).await?;
        let address = local(&server)?;
        // Until the runtime has seen a socket ready once, it would refuse to send: what each sends itself is nothing.
        tokio::try_join!(server.send_to(&[], to_itself(&server)), client.send_to(&[], to_itself(&client)))?;
        let clock = Clock::start();
        let node = Node::new(settings.node, address.port(), clock.now(), rand::random());
        let (wishes, wished) = mpsc::channel(WISHES);
        let (told, status) =
            watch::channel(Status { bootstrapped: false, online: true, reach: node.reach(), moves: 0 });
        let task = Task {
            node,
            is_everywhere: settings.host.is_unspecified(),
            here: interfaces::main_address(),
            looked_at: Instant::now(),
            own_wishes: wishes.downgrade(),
            server: server.clone(),
            client: client.clone(),
            at_server,
            at_client,
            clock,
            wished,
            told,
            searches: HashMap::new(),
            questions: HashMap::new(),
            servers: HashMap::new(),
        };
        tokio::spawn(task.run());
        Ok(Dht {
            wishes,
            status,
            udx,
            server,
            client,
            address,
            relays: Arc::default(),
            streams: udx::Config::default(),
        })
    }

    /// The local address of the server socket.
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.address
    }

    /// How the node is doing, now and whenever it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the first walk is done.
    pub async fn bootstrapped(&self) -> Result<(), Ended> {
        self.status.clone().wait_for(|status| status.bootstrapped).await.map(|_| ()).map_err(|_| Ended)
    }

    /// Begins a search.
    pub async fn search(&self, search: Search) -> Result<Searching, Ended> {
        let (steps, receiver) = mpsc::unbounded_channel();
        let (started, id) = oneshot::channel();
        self.wish(Wish::Search { search: Box::new(search), steps, started }).await?;
        let id = id.await.map_err(|_| Ended)?;
        Ok(Searching { id, steps: receiver, wishes: self.wishes.clone(), outcome: None })
    }

    /// Asks one node something; `None` if it doesn't answer within 4 s.
    pub async fn ask(
        &self,
        to: SocketAddrV4,
        command: Command,
        target: Option<Id>,
        token: Option<Token>,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Reply>, Ended> {
        let (reply, answer) = oneshot::channel();
        let question = OwnQuestion { command, target, token, value };
        self.wish(Wish::Ask { to, question, reply }).await?;
        answer.await.map_err(|_| Ended)
    }

    /// The nodes that were heard of last, to begin with next time.
    pub async fn contacts(&self) -> Result<Vec<SocketAddrV4>, Ended> {
        self.look(|node| node.contacts(cache::MAX_NODES)).await
    }

    /// Writes the nodes that were heard of last into a file, every ten minutes for as long as the node runs:
    /// [`cache::read`] gives them to [`Config::known`] of the next run.
    pub fn remember(&self, path: PathBuf) {
        let (wishes, mut status) = (self.wishes.downgrade(), self.status.clone());
        tokio::spawn(async move {
            if status.wait_for(|status| status.bootstrapped).await.is_err() {
                return;
            }
            loop {
                let Some(wishes) = wishes.upgrade() else { return };
                let (reply, answer) = oneshot::channel();
                let look = |node: &mut Node| _ = reply.send(node.contacts(cache::MAX_NODES)).ok();
                let wished = wishes.send(Wish::Look(Box::new(look))).await;
                drop(wishes);
                let (Ok(()), Ok(contacts)) = (wished, answer.await) else { return };
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || cache::write(&path, &contacts)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(target: "dht", %error, "the nodes we know are not remembered");
                }
                // Without status the node has ended.
                if let Ok(Err(_)) = tokio::time::timeout(REMEMBER_EVERY, ended(&mut status)).await {
                    return;
                }
            }
        });
    }

    /// Notes that this machine is in another network. It's noticed without this, but a little later.
    pub async fn network_changed(&self) -> Result<(), Ended> {
        self.wish(Wish::NetworkChanged).await
    }

    /// Sends and hears nothing until [`resume`](Self::resume); searches begun meanwhile wait. Streams go on.
    pub async fn suspend(&self) -> Result<(), Ended> {
        self.wish(Wish::Suspend(true)).await
    }

    /// Goes on as after a sleep.
    pub async fn resume(&self) -> Result<(), Ended> {
        self.wish(Wish::Suspend(false)).await
    }

    /// Lets `look` see the node.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.wish(Wish::Look(Box::new(move |node| _ = reply.send(look(node)).ok()))).await?;
        answer.await.map_err(|_| Ended)
    }

    /// One of the two sockets.
    pub(crate) fn socket(&self, socket: Socket) -> &UdxSocket {
        match socket {
            Socket::Server => &self.server,
            Socket::Client => &self.client,
        }
    }

    /// Nodes that knew the way to peers.
    pub(crate) fn relays(&self) -> MutexGuard<'_, Relays> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket that asks, and begins connections.
    pub(crate) async fn asking_socket(&self) -> Result<UdxSocket, Ended> {
        let socket = self.look(|node| node.asking_socket()).await?;
        Ok(self.socket(socket).clone())
    }

    /// A stream with a number that nobody can guess.
    pub(crate) fn udx_stream(&self) -> Pending {
        loop {
            // There are never so many streams that many numbers are taken.
            if let Ok(pending) = self.udx.stream(rand::random(), self.streams.clone()) {
                return pending;
            }
        }
    }

    /// Lets `identity` be called, and tells which nodes pass calls on.
    pub(crate) async fn take_calls(
        &self,
        identity: &Identity,
        calls: mpsc::Sender<Call>,
    ) -> Result<watch::Receiver<Vec<Relay>>, ListenError> {
        let (begun, relays) = oneshot::channel();
        self.wish(Wish::Listen { identity: identity.clone(), calls, begun }).await?;
        relays.await.map_err(|_| Ended)?.ok_or(ListenError::InUse)
    }

    /// Lets it be called no longer.
    pub(crate) async fn refuse_calls(&self, key: PublicKey) -> Result<(), Ended> {
        self.wish(Wish::Unlisten(key)).await
    }

    /// Lets nobody call it for a while.
    pub(crate) async fn pause_calls(&self, key: PublicKey, pause: bool) -> Result<(), Ended> {
        self.wish(Wish::PauseCalls(key, pause)).await
    }

    /// The same, unless the node is too busy to hear it.
    pub(crate) fn try_refuse_calls(&self, key: PublicKey) {
        _ = self.wishes.try_send(Wish::Unlisten(key));
    }

    pub(crate) async fn answer_call(&self, call: Call, noise: Vec<u8>) -> Result<(), Ended> {
        self.wish(Wish::AnswerCall(Box::new(call), noise)).await
    }

    async fn wish(&self, wish: Wish) -> Result<(), Ended> {
        self.wishes.send(wish).await.map_err(|_| Ended)
    }
}

/// A search under way; dropped, it ends.
#[derive(Debug)]
pub struct Searching {
    id: SearchId,
    steps: mpsc::UnboundedReceiver<Step>,
    wishes: mpsc::Sender<Wish>,
    outcome: Option<Outcome>,
}

impl Searching {
    /// The next answer, `None` after the last.
    pub async fn next(&mut self) -> Option<Reply> {
        if self.outcome.is_some() {
            return None;
        }
        match self.steps.recv().await? {
            Step::Found(reply) => Some(reply),
            Step::Finished(outcome) => {
                self.outcome = Some(outcome);
                None
            }
        }
    }

    /// Waits for the end.
    pub async fn finished(mut self) -> Result<Outcome, Ended> {
        while self.next().await.is_some() {}
        self.outcome.take().ok_or(Ended)
    }
}

impl Drop for Searching {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            // If the node is too busy to hear it, the search ends by itself.
            _ = self.wishes.try_send(Wish::Cancel(self.id));
        }
    }
}

struct Task {
    node: Node,
    /// Whether we are bound to all networks, so that it matters in which we are.
    is_everywhere: bool,
    /// Our address there, when it was looked at last.
    here: Option<Ipv4Addr>,
    looked_at: Instant,
    /// Doesn't keep the node alive.
    own_wishes: mpsc::WeakSender<Wish>,
    server: UdxSocket,
    client: UdxSocket,
    at_server: mpsc::Receiver<Datagram>,
    at_client: mpsc::Receiver<Datagram>,
    clock: Clock,
    wished: mpsc::Receiver<Wish>,
    told: watch::Sender<Status>,
    searches: HashMap<SearchId, mpsc::UnboundedSender<Step>>,
    questions: HashMap<QuestionId, oneshot::Sender<Option<Reply>>>,
    servers: HashMap<PublicKey, Listening>,
}

/// A server of ours.
struct Listening {
    calls: mpsc::Sender<Call>,
    relays: watch::Sender<Vec<Relay>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            self.act();
            let wait = self.node.next_tick().saturating_sub(self.clock.now());
            tokio::select! {
                Some(datagram) = self.at_server.recv() => self.read(Socket::Server, datagram),
                Some(datagram) = self.at_client.recv() => self.read(Socket::Client, datagram),
                wish = self.wished.recv() => match wish {
                    Some(wish) => self.on_wish(wish),
                    None => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
            if self.clock.slept() {
                self.node.wake(self.clock.now());
            }
            self.look_at_networks();
            self.node.tick(self.clock.now());
        }
    }

    fn look_at_networks(&mut self) {
        if !self.is_everywhere || self.looked_at.elapsed() < LOOK_AT_NETWORKS {
            return;
        }
        self.looked_at = Instant::now();
        // Without a network we aren't in another one: we may well come back to the same.
        let Some(now_here) = interfaces::main_address() else { return };
        if self.here.replace(now_here).is_some_and(|before| before != now_here) {
            tracing::debug!(target: "dht", %now_here, "we are in another network");
            self.on_network_change();
        }
    }

    fn on_network_change(&mut self) {
        self.node.on_network_change(self.clock.now());
        self.told.send_modify(|status| status.moves += 1);
    }

    /// Asks the DNS, aside.
    fn resolve(&self, names: Vec<Name>) {
        let wishes = self.own_wishes.clone();
        tokio::spawn(async move {
            let mut found = Vec::new();
            for Name { host, port } in names {
                let addresses = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host.as_str(), port))).await;
                let Ok(Ok(addresses)) = addresses else {
                    tracing::debug!(target: "dht", %host, "the name is unknown");
                    continue;
                };
                let addresses = addresses.filter_map(|address| match address {
                    SocketAddr::V4(address) => Some(address),
                    SocketAddr::V6(_) => None,
                });
                found.extend(addresses.take(ADDRESSES_OF_A_NAME));
            }
            if let Some(wishes) = wishes.upgrade() {
                _ = wishes.send(Wish::Resolved(found)).await;
            }
        });
    }

    fn read(&mut self, socket: Socket, first: Datagram) {
        self.take(socket, first);
        for _ in 0..IN_A_ROW {
            let others = if socket == Socket::Server { &mut self.at_server } else { &mut self.at_client };
            let Ok(datagram) = others.try_recv() else { return };
            self.take(socket, datagram);
        }
    }

    fn take(&mut self, socket: Socket, datagram: Datagram) {
        if let SocketAddr::V4(from) = datagram.from
            && datagram.bytes.len() <= MAX_DATAGRAM
        {
            self.node.receive(self.clock.now(), socket, from, &datagram.bytes);
            self.act();
        }
    }

    fn on_wish(&mut self, wish: Wish) {
        let now = self.clock.now();
        match wish {
            Wish::Search { search, steps, started } => {
                let id = self.node.search(now, *search);
                self.searches.insert(id, steps);
                if started.send(id).is_err() {
                    self.node.cancel(id);
                    self.searches.remove(&id);
                }
            }
            Wish::Cancel(id) => {
                self.searches.remove(&id);
                self.node.cancel(id);
            }
            Wish::Ask { to, question: OwnQuestion { command, target, token, value }, reply } => {
                let id = self.node.ask(now, to, command, target, token, value.as_deref());
                self.questions.insert(id, reply);
            }
            Wish::Listen { identity, calls, begun } => {
                let key = identity.public();
                if self.servers.contains_key(&key) {
                    _ = begun.send(None);
                    return;
                }
                let (relays, watched) = watch::channel(Vec::new());
                self.servers.insert(key, Listening { calls, relays });
                self.node.listen(now, &identity);
                _ = begun.send(Some(watched));
            }
            Wish::Unlisten(key) => {
                self.servers.remove(&key);
                self.node.unlisten(now, &key);
            }
            Wish::PauseCalls(key, true) => self.node.pause(now, &key),
            Wish::PauseCalls(key, false) => self.node.listen_again(now, &key),
            Wish::Resolved(nodes) => self.node.on_resolved(now, &nodes),
            Wish::NetworkChanged => self.on_network_change(),
            Wish::Suspend(true) => self.node.suspend(),
            Wish::Suspend(false) => self.node.resume(now),
            Wish::AnswerCall(call, noise) => self.node.answer_call(&call, &noise),
            Wish::Look(look) => look(&mut self.node),
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.node.poll() {
            match action {
                Action::Send { socket, to, datagram } => {
                    let socket = if socket == Socket::Server { &self.server } else { &self.client };
                    // A datagram that can't be sent now is as good as lost, and will be sent again.
                    if let Err(error) = socket.try_send_to(&datagram, to.into()) {
                        tracing::trace!(target: "dht", %to, %error, "a datagram is not sent");
                    }
                }
                Action::Resolve(names) => self.resolve(names),
                Action::Tell(event) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Bootstrapped => self.told.send_modify(|status| status.bootstrapped = true),
            Event::Online(online) => self.told.send_modify(|status| status.online = online),
            Event::Reach(reach) => self.told.send_modify(|status| status.reach = reach),
            Event::Found { search, reply } => {
                if let Some(steps) = self.searches.get(&search) {
                    _ = steps.send(Step::Found(reply));
                }
            }
            Event::Finished { search, outcome } => {
                if let Some(steps) = self.searches.remove(&search) {
                    _ = steps.send(Step::Finished(outcome));
                }
            }
            Event::Listening { key, relays } => {
                if let Some(server) = self.servers.get(&key) {
                    server.relays.send_replace(relays);
                }
            }
            Event::Call(call) => {
                // Calls that come faster than they are answered are lost; their callers call again.
                if let Some(server) = self.servers.get(&call.server) {
                    _ = server.calls.try_send(call);
                }
            }
            Event::Answer { question, reply } => {
                if let Some(waiting) = self.questions.remove(&question) {
                    _ = waiting.send(reply);
                }
            }
        }
    }
}

type Bound = (UdxSocket, mpsc::Receiver<Datagram>);

async fn bind_server(udx: &Udx, host: Ipv4Addr, port: u16) -> io::Result<Bound> {
    if port != 0 {
        for port in port..port.saturating_add(5) {
            if let Ok(bound) = udx.bind((host, port).into()).await {
                return Ok(bound);
            }
        }
    }
    udx.bind((host, 0).into()).await
}

/// Waits until the node has ended.
async fn ended(status: &mut watch::Receiver<Status>) -> Result<(), watch::error::RecvError> {
    loop {
        status.changed().await?;
    }
}

fn to_itself(socket: &UdxSocket) -> SocketAddr {
    let bound = socket.local_addr();
    let host = if bound.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound.ip() };
    SocketAddr::new(host, bound.port())
}

fn local(socket: &UdxSocket) -> io::Result<SocketAddrV4> {
    match socket.local_addr() {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(io::Error::other("an IPv4 socket has an IPv6 address")),
    }
}
