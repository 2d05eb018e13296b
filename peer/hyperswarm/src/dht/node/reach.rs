//! Who we are: the first walk, our address outside, and whether strangers reach us there.
//!
//! Other nodes are asked to answer to our server socket (PING_NAT). If most of those answers arrive, and come from the
//! port that the socket has here, strangers reach us: then the server socket asks from now on. A node that is to be a
//! host takes the hash of that address as its id.

use super::{Event, Node, Outside, Purpose, Question, Role, TRIES, journey::Kind};
use crate::dht::Socket;
use crate::dht::id::Id;
use crate::dht::nat::Samples;
use crate::dht::packet::Command;
use crate::dht::query::Search;
use std::net::SocketAddrV4;

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
        self.walk_to_ourselves();
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
        }
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
