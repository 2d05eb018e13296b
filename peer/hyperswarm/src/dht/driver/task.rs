//! The task that runs a node: the only one that touches it.

use super::{OwnQuestion, Status, Step, Wish};
use crate::dht::bootstrap::Name;
use crate::dht::clock::Clock;
use crate::dht::node::{Action, Call, Event, Node, QuestionId, Relay, SearchId};
use crate::dht::query::Reply;
use crate::dht::record::PublicKey;
use crate::dht::{Socket, interfaces};
use crate::udx::{Datagram, Letter, UdxSocket};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest datagram that is looked at; JavaScript cuts longer ones off.
const MAX_DATAGRAM: usize = 2_048;
/// Datagrams that are read in a row before anything else gets its turn.
const IN_A_ROW: usize = 64;
/// How often the system is asked for its networks.
const LOOK_AT_NETWORKS: Duration = Duration::from_secs(5);
/// How long the DNS may take, and how many addresses of one name are taken.
const RESOLVE: Duration = Duration::from_secs(10);
const ADDRESSES_OF_A_NAME: usize = 8;

pub(super) struct Task {
    pub node: Node,
    /// Whether we are bound to all networks, so that it matters in which we are.
    pub is_everywhere: bool,
    /// Our address there, when it was looked at last.
    pub here: Option<Ipv4Addr>,
    pub looked_at: Instant,
    /// Doesn't keep the node alive.
    pub own_wishes: mpsc::WeakSender<Wish>,
    pub server: UdxSocket,
    pub client: UdxSocket,
    pub at_server: mpsc::Receiver<Datagram>,
    pub at_client: mpsc::Receiver<Datagram>,
    /// What goes out before the task waits.
    pub from_server: Vec<Letter>,
    pub from_client: Vec<Letter>,
    pub clock: Clock,
    pub wished: mpsc::Receiver<Wish>,
    pub told: watch::Sender<Status>,
    pub searches: HashMap<SearchId, mpsc::UnboundedSender<Step>>,
    pub questions: HashMap<QuestionId, oneshot::Sender<Option<Reply>>>,
    pub servers: HashMap<PublicKey, Listening>,
}

/// A server of ours.
pub(super) struct Listening {
    calls: mpsc::Sender<Call>,
    relays: watch::Sender<Vec<Relay>>,
}

impl Task {
    pub async fn run(mut self) {
        loop {
            self.act();
            self.send();
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
                // Whoever wanted it has gone meanwhile.
                if begun.send(Some(watched)).is_err() {
                    self.servers.remove(&key);
                    self.node.unlisten(now, &key);
                }
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

    /// Sends what the node wants to send. What can't be sent now is as good as lost, and will be asked for again.
    fn send(&mut self) {
        for (socket, letters) in [(&self.server, &mut self.from_server), (&self.client, &mut self.from_client)] {
            socket.send_all(letters);
            letters.clear();
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.node.poll() {
            match action {
                Action::Send { socket, to, datagram } => {
                    let letters = if socket == Socket::Server { &mut self.from_server } else { &mut self.from_client };
                    letters.push(Letter { to, bytes: datagram });
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
