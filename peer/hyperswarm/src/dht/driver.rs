//! The sockets and the clock around a [`Node`].

use super::node::{Action, Config, Event, Node, Outcome, QuestionId, Reach, SearchId};
use super::packet::{Command, Token};
use super::query::{Reply, Search};
use super::{Id, Socket};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

/// Datagrams that are longer are cut off, and then refused.
const MAX_DATAGRAM: usize = 2_048;
/// Datagrams that are read in a row before anything else gets its turn.
const IN_A_ROW: usize = 64;
/// Wishes that wait for the node.
const WISHES: usize = 1_024;
/// The clock on the wall may run ahead of the other by so much before we take it for a sleep.
const SLEPT: Duration = Duration::from_secs(15);

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
    server: SocketAddrV4,
}

/// How a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether the first walk is done.
    pub bootstrapped: bool,
    /// How others reach us.
    pub reach: Reach,
}

/// The node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the DHT node has ended")]
pub struct Ended;

enum Wish {
    Search { search: Box<Search>, steps: mpsc::UnboundedSender<Step>, started: oneshot::Sender<SearchId> },
    Cancel(SearchId),
    Ask { to: SocketAddrV4, question: OwnQuestion, reply: oneshot::Sender<Option<Reply>> },
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
        let server = bind_server(settings.host, settings.port).await?;
        let client = UdpSocket::bind((settings.host, 0)).await?;
        // Before its first turn a socket would refuse to send.
        tokio::try_join!(server.writable(), client.writable())?;
        let address = local(&server)?;
        let mut seed = [0; 32];
        getrandom::getrandom(&mut seed).map_err(io::Error::other)?;
        let clock = Clock::start();
        let node = Node::new(settings.node, address.port(), clock.now(), seed);
        let (wishes, wished) = mpsc::channel(WISHES);
        let (told, status) = watch::channel(Status { bootstrapped: false, reach: node.reach() });
        let task =
            Task { node, server, client, clock, wished, told, searches: HashMap::new(), questions: HashMap::new() };
        tokio::spawn(task.run());
        Ok(Dht { wishes, status, server: address })
    }

    /// The local address of the server socket.
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.server
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
        self.look(|node| node.contacts(512)).await
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
    server: UdpSocket,
    client: UdpSocket,
    clock: Clock,
    wished: mpsc::Receiver<Wish>,
    told: watch::Sender<Status>,
    searches: HashMap<SearchId, mpsc::UnboundedSender<Step>>,
    questions: HashMap<QuestionId, oneshot::Sender<Option<Reply>>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            self.act();
            let wait = self.node.next_tick().saturating_sub(self.clock.now());
            tokio::select! {
                Ok(()) = self.server.readable() => self.read(Socket::Server),
                Ok(()) = self.client.readable() => self.read(Socket::Client),
                wish = self.wished.recv() => match wish {
                    Some(wish) => self.on_wish(wish),
                    None => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
            if self.clock.slept() {
                self.node.wake(self.clock.now());
            }
            self.node.tick(self.clock.now());
        }
    }

    fn read(&mut self, socket: Socket) {
        let mut buffer = [0; MAX_DATAGRAM];
        for _ in 0..IN_A_ROW {
            let from = match socket {
                Socket::Server => self.server.try_recv_from(&mut buffer),
                Socket::Client => self.client.try_recv_from(&mut buffer),
            };
            // Errors are those of earlier sends, such as a port that nobody listens on.
            let Ok((len, std::net::SocketAddr::V4(from))) = from else { return };
            self.node.receive(self.clock.now(), socket, from, &buffer[..len]);
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
                Action::Tell(event) => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Bootstrapped => self.told.send_modify(|status| status.bootstrapped = true),
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
            Event::Answer { question, reply } => {
                if let Some(waiting) = self.questions.remove(&question) {
                    _ = waiting.send(reply);
                }
            }
        }
    }
}

/// A time since 1970 that never goes back, and whether the machine slept: one of its clocks goes on meanwhile, the
/// other doesn't.
#[derive(Debug)]
struct Clock {
    began: Instant,
    wall: Duration,
    slept: Duration,
}

impl Clock {
    fn start() -> Self {
        Clock { began: Instant::now(), wall: wall(), slept: Duration::ZERO }
    }

    fn now(&self) -> Duration {
        self.wall + self.slept + self.began.elapsed()
    }

    /// Whether it slept since the last call.
    fn slept(&mut self) -> bool {
        let missed = wall().saturating_sub(self.now());
        let slept = missed > SLEPT;
        if slept {
            self.slept += missed;
        }
        slept
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

async fn bind_server(host: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    if port != 0 {
        for port in port..port.saturating_add(5) {
            if let Ok(socket) = UdpSocket::bind((host, port)).await {
                return Ok(socket);
            }
        }
    }
    UdpSocket::bind((host, 0)).await
}

fn local(socket: &UdpSocket) -> io::Result<SocketAddrV4> {
    match socket.local_addr()? {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(_) => Err(io::Error::other("an IPv4 socket has an IPv6 address")),
    }
}
