//! The sockets and the clock around a [`Node`]: [`Dht`] is the handle that everybody has, `task` what it talks to.

mod task;

use super::clock::Clock;
use super::node::{Call, Config, Node, Outcome, Reach, Relay, SearchId};
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
use task::Task;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

/// Wishes that wait for the node.
const WISHES: usize = 1_024;
/// How often the nodes that we know are written into a file.
const REMEMBER_EVERY: Duration = Duration::from_secs(10 * 60);

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
    wishes: Wishes,
    status: watch::Receiver<Status>,
    udx: Udx,
    server: UdxSocket,
    client: UdxSocket,
    address: SocketAddrV4,
    relays: Arc<Mutex<Relays>>,
    /// Of all streams: they have their memory in common.
    streams: udx::Config,
}

/// What is wished of the node, which runs for as long as there's one of these.
#[derive(Debug, Clone)]
struct Wishes {
    node: mpsc::Sender<Wish>,
    runtime: Handle,
}

impl Wishes {
    async fn send(&self, wish: Wish) -> Result<(), Ended> {
        self.node.send(wish).await.map_err(|_| Ended)
    }

    /// The same for who can't wait: it's heard as soon as the node isn't busy.
    fn leave(&self, wish: Wish) {
        if let Err(TrySendError::Full(wish)) = self.node.try_send(wish) {
            let node = self.node.clone();
            self.runtime.spawn(async move { _ = node.send(wish).await });
        }
    }
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
            from_server: Vec::new(),
            from_client: Vec::new(),
            clock,
            wished,
            told,
            searches: HashMap::new(),
            questions: HashMap::new(),
            servers: HashMap::new(),
        };
        tokio::spawn(task.run());
        Ok(Dht {
            wishes: Wishes { node: wishes, runtime: Handle::current() },
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
        let (wishes, mut status) = (self.wishes.node.downgrade(), self.status.clone());
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

    /// The same, without waiting for it.
    pub(crate) fn leave_calls(&self, key: PublicKey) {
        self.wishes.leave(Wish::Unlisten(key));
    }

    pub(crate) async fn answer_call(&self, call: Call, noise: Vec<u8>) -> Result<(), Ended> {
        self.wish(Wish::AnswerCall(Box::new(call), noise)).await
    }

    async fn wish(&self, wish: Wish) -> Result<(), Ended> {
        self.wishes.send(wish).await
    }
}

/// A search under way; dropped, it ends.
#[derive(Debug)]
pub struct Searching {
    id: SearchId,
    steps: mpsc::UnboundedReceiver<Step>,
    wishes: Wishes,
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
            self.wishes.leave(Wish::Cancel(self.id));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::{ListenOptions, Server};
    use crate::dht::Role;

    async fn node() -> Dht {
        let node = Config { role: Role::Guest, ..Config::default() };
        Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await.unwrap()
    }

    async fn listen(dht: &Dht) -> Result<Server, ListenError> {
        dht.listen(&Identity::from_seed(&[1; 32]), ListenOptions::default()).await
    }

    #[tokio::test]
    async fn a_server_that_is_dropped_while_the_node_is_busy_is_withdrawn_all_the_same() {
        let dht = node().await;
        let server = listen(&dht).await.unwrap();
        // The node has its turn only when this test waits.
        while dht.wishes.node.try_send(Wish::Resolved(Vec::new())).is_ok() {}
        drop(server);
        let again = async {
            while listen(&dht).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again).await.expect("its key is free again");
    }

    #[tokio::test]
    async fn a_server_that_was_closed_is_withdrawn_once_since_its_key_may_have_another_by_then() {
        let dht = node().await;
        let server = listen(&dht).await.unwrap();
        let room = dht.wishes.node.capacity();
        server.close().await;
        assert_eq!(dht.wishes.node.capacity(), room - 1);
        listen(&dht).await.unwrap();
    }
}
