//! The side that is called.

use super::callers::{Callers, MAX_WAITING};
use super::shake::Called;
use super::{ConnectError, FIRST_PACKET, PeerStream, local_addresses};
use crate::dht::handshake::{Firewall, Payload, Refusal, UdxInfo};
use crate::dht::node::{Call, Relay};
use crate::dht::{Dht, Ended, Identity, ListenError, Node, PublicKey};
use crate::udx::{Path, Pending};
use datdot_wire::connection::Options;
use datdot_wire::noise::Session;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Calls that come in and wait to be answered.
const MAX_CALLS: usize = 256;
/// So long the same call is answered the same: a caller sends it through several nodes. Of so many calls, the latest: if
/// there are more, they are from somebody who wants us to take no others.
const SAME: Duration = Duration::from_secs(10);
const MAX_RECENT: usize = 4 * MAX_WAITING;
/// Connections that wait to be accepted.
const MAX_ACCEPTABLE: usize = 64;

/// Decides whom we talk to, by key, what the caller says and where it is. Whom it refuses hears nothing.
pub type Gate = Arc<dyn Fn(&PublicKey, &Payload, SocketAddrV4) -> bool + Send + Sync>;

/// How a server behaves.
#[derive(Clone, Default)]
pub struct ListenOptions {
    /// Whom to talk to; everybody by default.
    pub gate: Option<Gate>,
    /// Of the connections.
    pub connection: Options,
}

impl std::fmt::Debug for ListenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenOptions").field("gated", &self.gate.is_some()).finish_non_exhaustive()
    }
}

/// Lets others connect to one of our keys, until it's dropped or [closed](Server::close).
#[derive(Debug)]
pub struct Server {
    key: PublicKey,
    dht: Dht,
    relays: watch::Receiver<Vec<Relay>>,
    accepted: mpsc::Receiver<PeerStream>,
    /// Whether the node was told that it's over: the key may have another server since.
    closed: bool,
}

impl Dht {
    /// Lets others connect to `identity`. The server is found as soon as it's [announced](Server::announced).
    pub async fn listen(&self, identity: &Identity, options: ListenOptions) -> Result<Server, ListenError> {
        let (calls, called) = mpsc::channel(MAX_CALLS);
        let relays = self.take_calls(identity, calls).await?;
        let (accept, accepted) = mpsc::channel(MAX_ACCEPTABLE);
        let task = Task {
            dht: self.clone(),
            identity: identity.clone(),
            options,
            called,
            accept,
            recent: Recent::default(),
            waiting: JoinSet::new(),
            callers: Callers::new(Instant::now()),
        };
        tokio::spawn(task.run());
        Ok(Server { key: identity.public(), dht: self.clone(), relays, accepted, closed: false })
    }
}

impl Server {
    /// The key under which others call.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// The next connection; `None` when the node has ended.
    pub async fn accept(&mut self) -> Option<PeerStream> {
        self.accepted.recv().await
    }

    /// Waits until nodes of the DHT know the way to us, and returns them.
    pub async fn announced(&self) -> Result<Vec<SocketAddrV4>, Ended> {
        self.watch().wait().await?;
        self.relays().await
    }

    /// The same wait, apart from the server.
    pub(crate) fn watch(&self) -> Announced {
        Announced(self.relays.clone())
    }

    /// What others are told about how to reach us, at most three addresses.
    pub async fn relays(&self) -> Result<Vec<SocketAddrV4>, Ended> {
        let key = self.key;
        self.dht.look(move |node| node.relays(&key)).await
    }

    /// Lets nobody call until [`resume`](Self::resume). Connections stay.
    pub async fn suspend(&self) -> Result<(), Ended> {
        self.dht.pause_calls(self.key, true).await
    }

    /// Lets others call again.
    pub async fn resume(&self) -> Result<(), Ended> {
        self.dht.pause_calls(self.key, false).await
    }

    /// Says farewell to the nodes that know the way to us.
    pub async fn close(mut self) {
        self.closed = self.dht.refuse_calls(self.key).await.is_ok();
    }
}

/// Tells when a server is announced.
#[derive(Debug)]
pub(crate) struct Announced(watch::Receiver<Vec<Relay>>);

impl Announced {
    /// Waits for it.
    pub(crate) async fn wait(mut self) -> Result<(), Ended> {
        self.0.wait_for(|relays| !relays.is_empty()).await.map(|_| ()).map_err(|_| Ended)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.closed {
            self.dht.leave_calls(self.key);
        }
    }
}

struct Task {
    dht: Dht,
    identity: Identity,
    options: ListenOptions,
    called: mpsc::Receiver<Call>,
    accept: mpsc::Sender<PeerStream>,
    recent: Recent,
    waiting: JoinSet<Ipv4Addr>,
    callers: Callers,
}

/// Answers that were given lately, by the call.
#[derive(Debug, Default)]
struct Recent {
    answers: HashMap<Vec<u8>, Vec<u8>>,
    order: VecDeque<(Instant, Vec<u8>)>,
}

impl Recent {
    fn get(&mut self, now: Instant, call: &[u8]) -> Option<&Vec<u8>> {
        while self.order.front().is_some_and(|(since, _)| now >= *since + SAME) {
            self.forget_oldest();
        }
        self.answers.get(call)
    }

    fn put(&mut self, now: Instant, call: Vec<u8>, answer: Vec<u8>) {
        if self.order.len() >= MAX_RECENT {
            self.forget_oldest();
        }
        self.order.push_back((now, call.clone()));
        self.answers.insert(call, answer);
    }

    fn forget_oldest(&mut self) {
        if let Some((_, old)) = self.order.pop_front() {
            self.answers.remove(&old);
        }
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::select! {
                call = self.called.recv() => match call {
                    Some(call) => {
                        if let Err(error) = self.on_call(call).await {
                            tracing::debug!(target: "connect", %error, "a call is not answered");
                        }
                    }
                    None => return,
                },
                Some(done) = self.waiting.join_next() => {
                    if let Ok(host) = done {
                        self.callers.done(host);
                    }
                }
            }
        }
    }

    async fn on_call(&mut self, call: Call) -> Result<(), ConnectError> {
        let now = Instant::now();
        if let Some(answer) = self.recent.get(now, &call.noise) {
            let answer = answer.clone();
            return Ok(self.dht.answer_call(call, answer).await?);
        }
        let host = call.counts_for;
        if !self.callers.may_call(now, host) {
            return Ok(());
        }
        let called = Called::read(&self.identity, &call.noise, &rand::random())?;
        let (remote, refusal) = match &called.payload {
            Ok(payload) if payload.udx.is_some() => (Some(payload.clone()), None),
            Ok(_) => (None, Some(Refusal::Aborted)),
            Err(_) => (None, Some(Refusal::VersionMismatch)),
        };
        // Before an answer is computed.
        if let (Some(gate), Some(remote)) = (&self.options.gate, &remote)
            && !gate(&called.remote, remote, call.client)
        {
            return Ok(());
        }
        let (pending, key) = (self.dht.udx_stream(), self.identity.public());
        let (client, direct) = (call.client, call.direct);
        let look = move |node: &mut Node| (node.open_address(), node.relays(&key), node.is_acceptable(&client));
        let (open, relays, is_acceptable) = self.dht.look(look).await?;
        let local = local_addresses(self.dht.local_addr());
        let payload = Payload {
            refusal,
            firewall: if open.is_some() { Firewall::Open } else { Firewall::Unknown },
            holepunch: None,
            addresses: open.into_iter().chain(local).collect(),
            udx: Some(UdxInfo { reusable_socket: false, id: pending.id(), seq: 0 }),
            secret_stream: true,
            relay_through: None,
            relays,
        };
        let (answer, session) = called.answer(&payload)?;
        self.recent.put(now, call.noise.clone(), answer.clone());
        let socket = call.socket;
        self.dht.answer_call(call, answer).await?;
        let Some(remote) = remote else { return Ok(()) };
        // Where a stranger says that somebody is, packets go only if somebody may be there.
        let at_once = direct || remote.firewall == Firewall::Open && is_acceptable;
        let socket = if direct { self.dht.socket(socket).clone() } else { self.dht.asking_socket().await? };
        let begin = Begin { pending, session, remote, at_once: at_once.then_some((client, socket)) };
        let (accept, options) = (self.accept.clone(), self.options.connection.clone());
        self.callers.wait_for(host);
        self.waiting.spawn(async move {
            match begin.begin(&options).await {
                Ok(stream) => _ = accept.send(stream).await,
                Err(error) => tracing::debug!(target: "connect", %client, %error, "a caller did not come"),
            }
            host
        });
        Ok(())
    }
}

/// A call that was answered.
struct Begin {
    pending: Pending,
    session: Session,
    remote: Payload,
    /// Where to connect, if it's known before the caller's first packet.
    at_once: Option<(SocketAddrV4, crate::udx::UdxSocket)>,
}

impl Begin {
    async fn begin(self, options: &Options) -> Result<PeerStream, ConnectError> {
        let udx = self.remote.udx.ok_or(ConnectError::Damaged("it names no stream"))?;
        let (address, socket) = match self.at_once {
            Some((client, socket)) => (client.into(), socket),
            None => {
                let heard = tokio::time::timeout(FIRST_PACKET, self.pending.heard()).await;
                heard.map_err(|_| ConnectError::Unreachable)?
            }
        };
        let stream = self.pending.connect(&socket, Path { stream: udx.id, address }, udx.seq);
        Ok(PeerStream::resume(stream, self.session, options).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::shake::Caller;
    use crate::dht::handshake::{Handshake, Mode};
    use crate::dht::packet::{Command, Request};
    use crate::dht::{Config, Id, Settings};
    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    #[tokio::test]
    async fn no_relay_sends_us_into_our_own_network() {
        let bind = || async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let std::net::SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("an IPv4 address") };
            (socket, address)
        };
        let identity = Identity::from_seed(&[1; 32]);
        for is_at_home in [false, true] {
            let known = if is_at_home { vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)] } else { Vec::new() };
            let node = Config { known, ..Config::default() };
            let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await.unwrap();
            let _server = dht.listen(&identity, ListenOptions::default()).await.unwrap();
            let ((relay, _), (victim, address)) = (bind().await, bind().await);
            let payload = Payload {
                refusal: None,
                firewall: Firewall::Open,
                holepunch: None,
                addresses: Vec::new(),
                udx: Some(UdxInfo { reusable_socket: false, id: 5, seq: 0 }),
                secret_stream: true,
                relay_through: None,
                relays: Vec::new(),
            };
            let caller = Identity::from_seed(&[2; 32]);
            let caller = Caller::new(&caller, identity.public(), [3; 32], &payload).unwrap();
            let (mode, peer) = (Mode::FromRelay, Some(address));
            let value = Handshake { mode, noise: caller.message(), peer, relay: None }.encode();
            let (command, target) = (Command::PeerHandshake, Some(Id::of(&identity.public())));
            let (to, value) = (dht.local_addr(), Some(&value[..]));
            let call = Request { tid: 1, to, id: None, token: None, command, target, value }.encode();
            relay.send_to(&call, to).await.unwrap();
            // The answer goes back to whoever passes the call on.
            let mut buffer = [0; 2_000];
            let answer = timeout(Duration::from_secs(20), relay.recv(&mut buffer)).await;
            assert!(answer.is_ok());
            let patience = Duration::from_millis(if is_at_home { 20_000 } else { 300 });
            let is_heard = timeout(patience, victim.recv(&mut buffer)).await.is_ok();
            assert_eq!(is_heard, is_at_home);
        }
    }

    #[test]
    fn whoever_calls_without_end_keeps_nobody_else_from_being_answered() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for n in 0..=MAX_RECENT {
            recent.put(now, n.to_le_bytes().to_vec(), Vec::new());
        }
        assert_eq!((recent.answers.len(), recent.order.len()), (MAX_RECENT, MAX_RECENT));
        assert!(recent.get(now, &0usize.to_le_bytes()).is_none() && recent.get(now, &1usize.to_le_bytes()).is_some());
        assert!(recent.get(now + SAME, &1usize.to_le_bytes()).is_none() && recent.order.is_empty());
    }
}
