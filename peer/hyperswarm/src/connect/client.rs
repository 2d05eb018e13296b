//! The side that calls: finds a node that knows the peer, shakes hands through it, and takes an address.

use super::shake::Caller;
use super::way::{Seen, Way, way};
use super::{ConnectError, FIRST_PACKET, PeerStream, local_addresses};
use crate::dht::handshake::{Firewall, Handshake, Mode, Payload, UdxInfo};
use crate::dht::packet::Command;
use crate::dht::{Dht, Id, Identity, PublicKey, Socket};
use crate::udx::{Path, Pending, UdxSocket};
use datdot_wire::connection::Options;
use datdot_wire::noise::Session;
use std::collections::HashSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Handshakes under way at once, through different nodes.
const AT_ONCE: usize = 3;
/// How long to look for a node through which the peer answers. Who lies can name any number of them.
const CALL: Duration = Duration::from_secs(30);
/// How long a peer in our own network may take to answer, with time to ask it twice again: the peer waits for us meanwhile.
const NEAR: Duration = Duration::from_millis(2_500);

/// What a peer answered, and how the answer came.
#[derive(Debug)]
struct Answer {
    session: Session,
    payload: Payload,
    seen: Seen,
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
        tracing::debug!(target: "connect", seen = ?answer.seen, "the peer answered");
        // The peer knows best, then whoever passed it on.
        let named = &answer.payload.relays;
        let passed_on = answer.seen.server.map(|_| answer.seen.by).filter(|_| named.is_empty());
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
        let until = Instant::now() + CALL;
        let nobody = |tried| if tried == 0 { ConnectError::NotFound } else { ConnectError::NoAnswer { tried } };
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
                return Err(refusal.unwrap_or(nobody(tried)));
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
                () = sleep_until(until) => return Err(refusal.unwrap_or(nobody(tried))),
            }
        }
    }

    async fn take_way(
        &self,
        pending: Pending,
        answer: Answer,
        we_are_open: bool,
        local: &[SocketAddrV4],
        options: &Options,
    ) -> Result<PeerStream, ConnectError> {
        let Answer { session, payload, seen } = answer;
        let udx = payload.udx.ok_or(ConnectError::Damaged("it names no stream"))?;
        let (socket, address) = match way(&payload, seen, we_are_open, local) {
            Way::Straight(address) => self.outside(address).await?,
            Way::TheyBegin => {
                let heard = tokio::time::timeout(FIRST_PACKET, pending.heard()).await;
                let (address, socket) = heard.map_err(|_| ConnectError::Unreachable)?;
                (socket, address)
            }
            Way::Near { near, outside } => match (self.is_near(near).await?, outside) {
                (true, _) => (self.socket(Socket::Server).clone(), near.into()),
                (false, Some(outside)) => self.outside(outside).await?,
                (false, None) => return Err(ConnectError::Unreachable),
            },
            Way::Closed => return Err(ConnectError::Unreachable),
        };
        let stream = pending.connect(&socket, Path { stream: udx.id, address }, udx.seq);
        Ok(PeerStream::resume(stream, session, options).await?)
    }

    /// The way to an address that the peer or a relay names: none of ours is in a network where we didn't begin.
    async fn outside(&self, address: SocketAddrV4) -> Result<(UdxSocket, SocketAddr), ConnectError> {
        if !self.look(move |node| node.is_acceptable(&address)).await? {
            return Err(ConnectError::Unreachable);
        }
        Ok((self.asking_socket().await?, address.into()))
    }

    /// Whether somebody answers there: or it's an address in another network that looks like ours.
    async fn is_near(&self, address: SocketAddrV4) -> Result<bool, ConnectError> {
        let answer = tokio::time::timeout(NEAR, self.ping(address)).await;
        Ok(answer.unwrap_or(Ok(None))?.is_some())
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
        None => Ok(Answer { session, payload, seen: Seen { by: node, server: message.peer, us: reply.to } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::shake::Called;
    use crate::dht::{Config, Role, Settings};
    use std::net::Ipv4Addr;

    /// A node that begins on the Internet, or in our own network.
    async fn node(is_at_home: bool) -> Dht {
        let known = if is_at_home { vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)] } else { Vec::new() };
        let node = Config { role: Role::Guest, known, ..Config::default() };
        Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await.unwrap()
    }

    fn payload(stream: &Pending, addresses: Vec<SocketAddrV4>) -> Payload {
        Payload {
            refusal: None,
            firewall: Firewall::Unknown,
            holepunch: None,
            addresses,
            udx: Some(UdxInfo { reusable_socket: false, id: stream.id(), seq: 0 }),
            secret_stream: true,
            relay_through: None,
            relays: Vec::new(),
        }
    }

    /// Two peers have shaken hands, and the one that called takes its way to the other, which says that it is at `near`
    /// while a relay sees it at `outside`, at one host with us. Returns where they met.
    async fn meet(
        us: &Dht,
        they: &Dht,
        near: SocketAddrV4,
        outside: SocketAddrV4,
    ) -> Result<Option<std::net::SocketAddr>, ConnectError> {
        let (ours, theirs) = (us.udx_stream(), they.udx_stream());
        let [identity, remote] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
        let caller = Caller::new(&identity, remote.public(), [3; 32], &payload(&ours, Vec::new()))?;
        let called = Called::read(&remote, caller.message(), &[4; 32])?;
        let (message, their_session) = called.answer(&payload(&theirs, vec![near]))?;
        let (session, told) = caller.read(&message)?;
        let seen =
            Seen { by: "8.8.8.8:8".parse().unwrap(), server: Some(outside), us: SocketAddrV4::new(*outside.ip(), 1) };
        let (answer, our_stream, options) = (Answer { session, payload: told, seen }, ours.id(), Options::default());
        let local = [us.local_addr()];
        let hear = async {
            let (address, socket) = theirs.heard().await;
            let stream = theirs.connect(&socket, Path { stream: our_stream, address }, 0);
            Ok(PeerStream::resume(stream, their_session, &options).await?)
        };
        let both = async { tokio::try_join!(us.take_way(ours, answer, false, &local, &options), hear) };
        let (stream, _held) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("they meet")?;
        Ok(stream.address())
    }

    #[tokio::test]
    async fn two_peers_behind_one_router_meet_in_their_own_network() {
        let (us, they) = (node(false).await, node(false).await);
        let (near, nobody) = (they.local_addr(), "127.0.0.1:9".parse().unwrap());
        assert_eq!(meet(&us, &they, near, nobody).await.unwrap(), Some(near.into()));
    }

    #[tokio::test]
    async fn if_nobody_answers_in_a_network_that_looks_like_ours_they_meet_outside() {
        let (us, they) = (node(true).await, node(false).await);
        let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(near) = mute.local_addr().unwrap() else { panic!("an IPv4 address") };
        let outside = they.local_addr();
        assert_eq!(meet(&us, &they, near, outside).await.unwrap(), Some(outside.into()));
        // Who begins on the Internet isn't sent into its own networks by a relay.
        let us = node(false).await;
        assert!(matches!(meet(&us, &they, near, outside).await, Err(ConnectError::Unreachable)));
    }
}
