//! Who we are: the first walk, our address outside, and whether strangers reach us there.
//!
//! Other nodes are asked to answer to our server socket (PING_NAT). If most of those answers arrive, and come from the
//! port that the socket has here, strangers reach us: then the server socket asks from now on. A node that is to be a
//! host takes the hash of that address as its id.

use super::{Action, Event, Node, Outside, Purpose, Question, Role, TRIES, is_near, journey::Kind};
use crate::dht::Socket;
use crate::dht::id::Id;
use crate::dht::nat::Samples;
use crate::dht::packet::Command;
use crate::dht::query::Search;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Bootstrap nodes, by address or found by name.
const MAX_BOOTSTRAP: usize = 64;
/// Nodes that are asked to answer to the server socket.
const PROBED: usize = 5;

/// How far we are with the first walk.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub done: bool,
    /// Whether the first node to answer was asked to answer to the server socket.
    asked: bool,
    /// Whether that answer arrived there.
    pub reached: bool,
    walks: u32,
    /// Whether to find out once more if strangers reach us, as soon as anybody answers.
    pub again: bool,
}

/// Nodes were asked to answer to the server socket.
#[derive(Debug)]
pub(super) struct Probe {
    aim: Aim,
    samples: Samples,
    asked: usize,
    open: usize,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// To ask from the server socket if it is open.
    Firewall,
    /// To become a host if it is.
    Host,
}

impl Node {
    /// Begins the first walk, to the nodes around us.
    pub(super) fn bootstrap(&mut self) {
        if let Some(address) = self.config.address {
            self.samples.add(address, address);
            self.settle(Aim::Host);
        }
        let has_nobody = self.table.is_empty() && self.config.bootstrap.is_empty();
        if has_nobody && !self.config.names.is_empty() {
            return self.resolve();
        }
        self.walk_to_ourselves();
    }

    /// Wants the names of bootstrap nodes looked up.
    pub(super) fn resolve(&mut self) {
        self.upkeep.resolving(self.now);
        self.out.push_back(Action::Resolve(self.config.names.clone()));
    }

    /// Takes what the DNS knows of the names that were [asked](Action::Resolve) for.
    pub fn on_resolved(&mut self, now: Duration, nodes: &[SocketAddrV4]) {
        self.now = self.now.max(now);
        // Nobody else can begin there who begins in private networks. But who begins on the Internet isn't moved by a DNS that
        // lies, as a hotel's does.
        let may_be_home = self.table.is_empty() && self.config.bootstrap.iter().all(is_near);
        for node in nodes {
            if node.port() != 0 && !self.config.bootstrap.contains(node) && self.config.bootstrap.len() < MAX_BOOTSTRAP
            {
                self.config.bootstrap.push(*node);
                self.at_home |= is_near(node) && may_be_home;
            }
        }
        if self.start.walks == 0 {
            self.walk_to_ourselves();
        } else if self.start.done && self.table.is_empty() {
            self.refresh();
        }
    }

    fn walk_to_ourselves(&mut self) {
        self.start.walks += 1;
        self.set_out(Search::new(self.table.id(), Command::FindNode), Kind::Bootstrap);
    }

    pub(super) fn on_first_answer(&mut self, from: SocketAddrV4) {
        if self.start.asked || !self.firewalled || self.config.role == Role::Host {
            return;
        }
        self.start.asked = true;
        let port = self.server_port.to_le_bytes();
        let question = Question { command: Command::PingNat, value: Some(&port), ..Question::PING };
        self.request(from, question, Purpose::QuickProbe, TRIES);
    }

    /// The first node to answer has answered again, to this socket. In a small DHT the first walk may be over before: then
    /// nobody else would ask for a long time.
    pub(super) fn on_quick_probe(&mut self, socket: Socket) {
        self.start.reached |= socket == Socket::Server;
        if self.start.reached && self.start.done {
            self.check_reach(Aim::Firewall);
        }
    }

    /// A walk to ourselves is done.
    pub(super) fn on_first_walk(&mut self) {
        let aim = if self.config.role == Role::Host { Aim::Host } else { Aim::Firewall };
        if self.start.walks < 2 && !self.host && (self.start.reached || aim == Aim::Host) {
            self.check_reach(aim);
        } else {
            self.finish_start();
        }
    }

    fn finish_start(&mut self) {
        if !self.start.done {
            self.start.done = true;
            self.tell(Event::Bootstrapped);
            // Who met nobody knows nothing of where it is, either.
            self.start.again |= self.samples.is_empty();
            if self.table.is_empty() {
                self.upkeep.lonely(self.now);
            } else if self.start.again {
                self.refresh();
            }
        }
    }

    /// A search for new nodes is over.
    pub(super) fn on_refreshed(&mut self, replies: usize) {
        // What is asked where we were before tells nothing: the end of it is waited for.
        if replies > 0 && self.probe.is_none() && std::mem::take(&mut self.start.again) {
            self.check_reach(if self.config.role == Role::Host { Aim::Host } else { Aim::Firewall });
        }
    }

    /// We are in another network: our address is another, and who reached us there may not reach us here.
    pub fn on_network_change(&mut self, now: Duration) {
        self.wake(now);
        if self.config.address.is_none() {
            self.samples = Samples::default();
            self.host = false;
            self.firewalled = self.config.firewalled;
            self.start.again = true;
        }
        if self.start.done {
            self.refresh();
        }
        self.tell_reach();
    }

    /// Finds out whether strangers reach us, and acts on it.
    pub(super) fn check_reach(&mut self, aim: Aim) {
        let is_needed = !self.host && (aim == Aim::Host || self.firewalled);
        if !is_needed || self.probe.is_some() {
            return;
        }
        if !matches!(self.samples.outside(), Some(Outside::Address(_))) {
            return self.after_probe(false);
        }
        if !self.firewalled {
            self.settle(aim);
            return self.after_probe(true);
        }
        let mut nodes = self.contacts(PROBED);
        if nodes.len() < PROBED {
            let more: Vec<_> = self.config.bootstrap.iter().filter(|node| !nodes.contains(node)).copied().collect();
            nodes.extend(more);
        }
        self.probe = Some(Probe { aim, samples: Samples::default(), asked: nodes.len(), open: 0 });
        let port = self.server_port.to_le_bytes();
        let question = Question { command: Command::PingNat, value: Some(&port), ..Question::PING };
        let mut open = 0;
        for node in nodes {
            open += usize::from(self.request(node, question, Purpose::Probe, TRIES).is_some());
        }
        match &mut self.probe {
            Some(probe) if open > 0 => probe.open = open,
            _ => {
                self.probe = None;
                self.after_probe(false);
            }
        }
    }

    /// A node was probed: where the answer arrived, from whom, and under which address it sees that socket.
    pub(super) fn on_probe(&mut self, answer: Option<(Socket, SocketAddrV4, SocketAddrV4)>) {
        let Some(probe) = &mut self.probe else { return };
        if let Some((Socket::Server, from, us)) = answer {
            probe.samples.add(from, us);
        }
        probe.open -= 1;
        if probe.open > 0 {
            return;
        }
        let Some(probe) = self.probe.take() else { return };
        let enough = if probe.asked >= PROBED { 3 } else { 1 };
        let client = self.samples.outside().map(|outside| outside.host());
        let is_open = probe.samples.len() >= enough
            && matches!(probe.samples.outside(), Some(Outside::Address(address))
                if Some(*address.ip()) == client && address.port() == self.server_port);
        if is_open {
            self.samples = probe.samples;
            self.firewalled = false;
            self.settle(probe.aim);
        }
        self.after_probe(is_open);
    }

    fn after_probe(&mut self, changed: bool) {
        self.tell_reach();
        if self.start.done {
            if self.start.again {
                self.refresh();
            }
            return;
        }
        if changed && self.start.walks < 2 {
            self.walk_to_ourselves();
        } else {
            self.finish_start();
        }
    }

    /// Strangers reach us at the address that all agree on: our place in the DHT is its hash.
    fn settle(&mut self, aim: Aim) {
        let Some(Outside::Address(address)) = self.samples.outside() else { return };
        self.firewalled = false;
        if aim == Aim::Host && !self.host {
            self.host = true;
            let id = Id::of_node(address);
            if id != self.table.id() {
                self.table = self.table.moved_to(id);
                if self.start.done {
                    self.refresh();
                }
            }
            tracing::debug!(target: "dht", %address, ?id, "we are a host of the DHT");
        }
        self.tell_reach();
    }
}
