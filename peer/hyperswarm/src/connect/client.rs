//! The side that calls: finds a node that knows the peer, shakes hands through it, and takes an address.

use super::shake::Caller;
use super::{ConnectError, FIRST_PACKET, PeerStream, local_addresses};
use crate::dht::address::{Scope, nearest};
use crate::dht::handshake::{Firewall, Handshake, Mode, Payload, UdxInfo};
use crate::dht::packet::Command;
use crate::dht::{Dht, Id, Identity, PublicKey, Socket};
use crate::udx::{Path, Pending};
use datdot_wire::connection::Options;
use datdot_wire::noise::Session;
use std::collections::HashSet;
use std::net::SocketAddrV4;
use tokio::task::JoinSet;

/// Handshakes under way at once, through different nodes.
const AT_ONCE: usize = 3;

/// What a peer answered, and how the answer came.
#[derive(Debug)]
struct Answer {
    session: Session,
    payload: Payload,
    /// The node that was asked.
    asked: SocketAddrV4,
    /// Where the peer is, as that node sees it; none if we asked the peer itself.
    server: Option<SocketAddrV4>,
    /// Our address, as that node sees it.
    us: SocketAddrV4,
}

impl Dht {
    /// Connects to the peer with this key, as `identity`. `relays` are nodes that may know it, from an announcement; the
    /// DHT is asked in any case.
    pub async fn connect(
        &self,
        identity: &Identity,
        remote: PublicKey,
        relays: &[SocketAddrV4],
        options: &Options,
    ) -> Result<PeerStream, ConnectError> {
        let pending = self.udx_stream();
        let open = self.look(|node| node.open_address()).await?;
        let local = local_addresses(self.local_addr());
        let payload = Payload {
            refusal: None,
            firewall: if open.is_some() { Firewall::Open } else { Firewall::Unknown },
            holepunch: None,
            addresses: open.into_iter().chain(local.iter().copied()).collect(),
            udx: Some(UdxInfo { reusable_socket: false, id: pending.id(), seq: 0 }),
            secret_stream: true,
            relay_through: None,
            relays: Vec::new(),
        };
        let caller = Caller::new(identity, remote, rand::random(), &payload)?;
        let answer = match self.call(&caller, remote, relays).await {
            Ok(answer) => answer,
            Err(error) => {
                self.relays().forget(&remote);
                return Err(error);
            }
        };
        tracing::debug!(target: "connect", asked = %answer.asked, server = ?answer.server, "the peer answered");
        // The peer knows best, then whoever passed it on.
        let named = &answer.payload.relays;
        let passed_on = answer.server.map(|_| answer.asked).filter(|_| named.is_empty());
        let known: Vec<_> = named.iter().copied().chain(passed_on).collect();
        let stream = self.take_way(pending, answer, open.is_some(), &local, options).await?;
        self.relays().remember(remote, known.into_iter());
        Ok(stream)
    }

    /// Shakes hands through whichever node passes it on first.
    async fn call(&self, caller: &Caller, remote: PublicKey, relays: &[SocketAddrV4]) -> Result<Answer, ConnectError> {
        let mut search = self.find_peer(&remote).await?;
        let mut known = self.relays().of(&remote);
        known.extend_from_slice(relays);
        let mut known = self
            .look(move |node| {
                known.extend(node.route(&Id::of(&remote)));
                // Strangers named them: none of ours is in a network where we didn't begin.
                known.retain(|address| node.is_acceptable(address));
                known
            })
            .await?;
        known.reverse();
        let (mut tried, mut seen) = (0, HashSet::new());
        let mut calls: JoinSet<Result<Answer, ConnectError>> = JoinSet::new();
        let mut searching = true;
        let mut refusal = None;
        loop {
            while calls.len() < AT_ONCE
                && let Some(node) = known.pop()
            {
                if seen.insert(node) {
                    tried += 1;
                    calls.spawn(shake_through(self.clone(), caller.clone(), remote, node));
                }
            }
            if calls.is_empty() && !searching {
                return Err(refusal.unwrap_or(match tried {
                    0 => ConnectError::NotFound,
                    tried => ConnectError::NoAnswer { tried },
                }));
            }
            tokio::select! {
                Some(call) = calls.join_next() => match call {
                    Ok(Ok(answer)) => return Ok(answer),
                    // Only the peer itself can refuse: nobody else can answer.
                    Ok(Err(error @ ConnectError::Refused(_))) => return Err(error),
                    Ok(Err(error @ ConnectError::Ended(_))) => return Err(error),
                    Ok(Err(error @ ConnectError::Damaged(_))) => refusal = Some(error),
                    Ok(Err(_)) | Err(_) => {}
                },
                reply = search.next(), if searching && calls.len() < AT_ONCE => match reply {
                    Some(reply) if reply.value.is_some() => known.push(reply.from),
                    Some(_) => {}
                    None => searching = false,
                },
            }
        }
    }

    /// Takes the way that is there, in the order of JavaScript: straight, if we asked the peer itself or it is open; the
    /// peer's own way to us, if we are open; an address in a network that we share.
    async fn take_way(
        &self,
        pending: Pending,
        answer: Answer,
        we_are_open: bool,
        local: &[SocketAddrV4],
        options: &Options,
    ) -> Result<PeerStream, ConnectError> {
        let Answer { session, payload, asked, server, us } = answer;
        let udx = payload.udx.ok_or(ConnectError::Damaged("it names no stream"))?;
        let path = |address: SocketAddrV4| Path { stream: udx.id, address: address.into() };
        let punchable = payload.holepunch.as_ref().is_some_and(|info| !info.relays.is_empty());
        let straight = match server {
            None => Some(asked),
            Some(server) if payload.firewall == Firewall::Open || !punchable && !we_are_open => {
                let outside = payload.addresses.iter().find(|address| Scope::of(*address.ip()) == Scope::Public);
                Some(outside.copied().unwrap_or(server))
            }
            Some(_) => None,
        };
        let stream = if let Some(address) = straight {
            pending.connect(&self.asking_socket().await?, path(address), udx.seq)
        } else if we_are_open {
            let heard = tokio::time::timeout(FIRST_PACKET, pending.heard()).await;
            let (address, socket) = heard.map_err(|_| ConnectError::Unreachable)?;
            pending.connect(&socket, Path { stream: udx.id, address }, udx.seq)
        } else {
            let near = server.filter(|server| server.ip() == us.ip()).and_then(|_| {
                let usable = |address: &&SocketAddrV4| Scope::of(*address.ip()) != Scope::Reserved;
                let theirs: Vec<SocketAddrV4> = payload.addresses.iter().filter(usable).copied().collect();
                let ours: Vec<_> = local.iter().map(|address| *address.ip()).collect();
                nearest(&ours, &theirs)
            });
            let Some(address) = near else { return Err(ConnectError::Unreachable) };
            // It answers there, or it's somebody else's address in our network.
            self.ping(address).await?.ok_or(ConnectError::Unreachable)?;
            pending.connect(self.socket(Socket::Server), path(address), udx.seq)
        };
        Ok(PeerStream::resume(stream, session, options).await?)
    }
}

async fn shake_through(
    dht: Dht,
    caller: Caller,
    remote: PublicKey,
    node: SocketAddrV4,
) -> Result<Answer, ConnectError> {
    let value = Handshake { mode: Mode::FromClient, noise: caller.message(), peer: None, relay: None }.encode();
    let reply = dht.ask(node, Command::PeerHandshake, Some(Id::of(&remote)), None, Some(value)).await?;
    let reply = reply.ok_or(ConnectError::NoAnswer { tried: 1 })?;
    let value = reply.value.as_deref().ok_or(ConnectError::NoAnswer { tried: 1 })?;
    let message = Handshake::decode(value).map_err(|_| ConnectError::Damaged("its message"))?;
    if message.mode != Mode::Reply {
        return Err(ConnectError::Damaged("its message"));
    }
    let (session, payload) = caller.read(message.noise)?;
    match payload.refusal {
        Some(refusal) => Err(refusal.into()),
        None => Ok(Answer { session, payload, asked: node, server: message.peer, us: reply.to }),
    }
}
