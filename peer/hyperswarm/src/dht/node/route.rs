//! Handshakes on their way: a node that has a peer's route passes on what strangers want to tell it.
//!
//! What is passed on is as long as what came, and is counted as an answer to where it came from. So whoever forges a
//! source gets no more out of us than it sends.

use super::answer::{Answer, Asked};
use super::{Event, Node};
use crate::dht::Socket;
use crate::dht::handshake::{Handshake, Holepunch, Mode};
use crate::dht::id::Id;
use crate::dht::packet::{Command, Request};
use crate::dht::record::PublicKey;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Somebody wants to connect to a server of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The key under which we are called.
    pub server: PublicKey,
    /// The first message of the Noise handshake.
    pub noise: Vec<u8>,
    /// Where the caller is, as the one who passed it on sees it.
    pub client: SocketAddrV4,
    /// Our address, as the one who sent it to us sees it.
    pub us: SocketAddrV4,
    /// Whether the caller sent it straight to us: then nothing is between us.
    pub direct: bool,
    /// Where it came in.
    pub socket: Socket,
    /// The host that the call counts for: the caller's, if we trust who says where it is, else that of who says so.
    pub counts_for: Ipv4Addr,
    tid: u16,
    back_to: SocketAddrV4,
}

impl Node {
    pub(super) fn on_handshake(&mut self, asked: Asked) {
        let Some(target) = asked.request.target else { return };
        let Some(Ok(message)) = asked.request.value.map(Handshake::decode) else { return };
        if message.noise.is_empty() {
            return;
        }
        if let Some(server) = self.server_at(&target) {
            return self.on_call(asked, server, &message);
        }
        let route = self.store.routes.get(&target).map(|route| route.address);
        match (message.mode, route, message.peer) {
            (Mode::FromClient, Some(server), _) => {
                let on = Handshake { mode: Mode::FromRelay, peer: Some(asked.from), relay: None, ..message };
                self.pass_on(asked, server, &on.encode());
            }
            // The caller may find a node that knows the way.
            (Mode::FromClient, None, _) => self.answer(asked, Answer { closer: true, ..Answer::default() }),
            (Mode::FromRelay, Some(server), _) => {
                let on = Handshake { mode: Mode::FromSecondRelay, relay: Some(asked.from), ..message };
                self.pass_on(asked, server, &on.encode());
            }
            (Mode::FromServer, _, Some(client)) => {
                let reply = Handshake { mode: Mode::Reply, peer: Some(asked.from), relay: None, ..message };
                self.pass_back(asked, client, &reply.encode());
            }
            _ => {}
        }
    }

    pub(super) fn on_holepunch(&mut self, asked: Asked) {
        let Some(target) = asked.request.target else { return };
        let Some(Ok(message)) = asked.request.value.map(Holepunch::decode) else { return };
        let route = self.store.routes.get(&target).map(|route| route.address);
        match (message.mode, message.peer.or(route)) {
            (Mode::FromClient, Some(server)) => {
                let on = Holepunch { mode: Mode::FromRelay, peer: Some(asked.from), ..message };
                self.pass_on(asked, server, &on.encode());
            }
            (Mode::FromServer, Some(client)) if message.peer.is_some() => {
                let reply = Holepunch { mode: Mode::Reply, peer: Some(asked.from), ..message };
                self.pass_back(asked, client, &reply.encode());
            }
            _ => {}
        }
    }

    /// Answers a call with the second message of the Noise handshake, the way that it came.
    pub fn answer_call(&mut self, call: &Call, noise: &[u8]) {
        let id = self.id_on(call.socket);
        let datagram = if call.direct {
            let value = Handshake { mode: Mode::Reply, noise, peer: None, relay: None }.encode();
            crate::dht::packet::Response {
                tid: call.tid,
                to: call.back_to,
                id,
                token: None,
                closer: Vec::new(),
                error: 0,
                value: Some(&value),
            }
            .encode()
        } else {
            let value = Handshake { mode: Mode::FromServer, noise, peer: Some(call.client), relay: None }.encode();
            let command = Command::PeerHandshake;
            let target = Some(Id::of(&call.server));
            Request { tid: call.tid, to: call.back_to, id, token: None, command, target, value: Some(&value) }.encode()
        };
        self.send(call.socket, call.back_to, datagram);
    }

    fn on_call(&mut self, asked: Asked, server: PublicKey, message: &Handshake) {
        let back_to = match (message.mode, message.relay) {
            (Mode::FromClient | Mode::FromRelay, _) => asked.from,
            (Mode::FromSecondRelay, Some(relay)) => relay,
            _ => return,
        };
        // To answer costs more than to ask: it's counted like a larger answer.
        if !self.may_get(asked, 2 * asked.len) {
            return;
        }
        // Strangers name it: none of ours is in a network where we didn't begin.
        if back_to != asked.from && !self.is_acceptable(&back_to) {
            return;
        }
        let direct = message.mode == Mode::FromClient;
        let client = if direct { asked.from } else { message.peer.unwrap_or(asked.from) };
        // Anybody may say that it passes something on: if that were believed, one host could be any number of callers.
        let counts_for = if self.is_relay(&server, asked.from) { client } else { asked.from };
        self.tell(Event::Call(Call {
            server,
            counts_for: *counts_for.ip(),
            noise: message.noise.to_vec(),
            client,
            us: asked.request.to,
            direct,
            socket: asked.socket,
            tid: asked.request.tid,
            back_to,
        }));
    }

    /// Sends a request on to somebody else, under the same number.
    fn pass_on(&mut self, asked: Asked, to: SocketAddrV4, value: &[u8]) {
        if self.may_get(asked, asked.len) && self.is_acceptable(&to) {
            let Request { tid, command, target, .. } = *asked.request;
            let id = self.id_on(asked.socket);
            let request = Request { tid, to, id, token: None, command, target, value: Some(value) };
            self.send(asked.socket, to, request.encode());
        }
    }

    /// Answers whoever began.
    fn pass_back(&mut self, asked: Asked, to: SocketAddrV4, value: &[u8]) {
        if self.may_get(asked, asked.len) && self.is_acceptable(&to) {
            let answer = Answer { value: Some(value), ..Answer::default() };
            let datagram = self.encode(Asked { from: to, ..asked }, answer);
            self.send(asked.socket, to, datagram);
        }
    }
}
