//! What a node answers to others.
//!
//! The source of a datagram can be forged, and some answers are larger than their question. So what goes to an address
//! that has shown no token is counted, and limited by [`Sources`]; and nothing is stored, and nobody becomes a contact,
//! before it has shown that it receives where it says to be.

use super::Node;
use crate::dht::Socket;
use crate::dht::id::{Id, keyed_hash};
use crate::dht::packet::{Command, Request, Response, error};
use crate::dht::record::{Announce, Mutable, Place, Purpose};
use crate::dht::store::Route;
use crate::dht::table::{Contact, K};
use datdot_wire::encoding::Reader;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Longest time that somebody may ask to be answered later.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// Answers that wait for their time.
const MAX_LATE: usize = 1_024;
/// A bump may lie so far in the future.
const BUMP_DRIFT: Duration = Duration::from_secs(60);

/// What is said to a request, besides what every answer has.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    pub error: u64,
    pub value: Option<&'a [u8]>,
    /// With a token, so that something can be stored here next.
    pub token: bool,
    /// With the nodes that are closest to the target.
    pub closer: bool,
}

impl<'a> Answer<'a> {
    /// To those who look for something.
    fn found(value: Option<&'a [u8]>) -> Self {
        Answer { error: 0, value, token: true, closer: true }
    }

    /// To those who stored something.
    const STORED: Answer<'static> = Answer { error: 0, value: None, token: false, closer: false };
}

/// A request and where it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub socket: Socket,
    pub from: SocketAddrV4,
    pub request: &'a Request<'a>,
    pub len: usize,
    /// Whether it came with a token of ours: then its source isn't forged.
    pub proven: bool,
}

impl Node {
    pub(super) fn on_request(&mut self, socket: Socket, from: SocketAddrV4, request: Request, len: usize) {
        let proven = request.token.is_some_and(|token| self.tokens.accepts(&token, *from.ip()));
        let asked = Asked { socket, from, request: &request, len, proven };
        if request.token.is_some() && !proven {
            return self.answer(asked, Answer { error: error::INVALID_TOKEN, token: true, closer: true, value: None });
        }
        if request.id.is_some_and(|id| id == Id::of_node(from)) {
            self.greet(Contact::new(from, self.now));
        }
        match request.command {
            Command::Ping => self.answer(asked, Answer::default()),
            Command::PingNat => self.on_ping_nat(asked),
            Command::DelayedPing => self.on_delayed_ping(asked),
            Command::FindNode if request.target.is_some() => {
                self.answer(asked, Answer { closer: true, ..Answer::default() });
            }
            Command::FindNode => {}
            Command::DownHint => self.on_down_hint(asked),
            Command::PeerHandshake => self.on_handshake(asked),
            Command::PeerHolepunch => self.on_holepunch(asked),
            _ if !self.host => self.refuse(asked),
            Command::FindPeer | Command::Lookup | Command::MutableGet | Command::ImmutableGet => self.on_find(asked),
            Command::Announce | Command::Unannounce | Command::MutablePut | Command::ImmutablePut => {
                if let (true, Some(target), Some(value)) = (proven, request.target, request.value) {
                    self.on_store(asked, target, value);
                }
            }
            Command::Other { .. } => self.refuse(asked),
        }
    }

    fn refuse(&mut self, asked: Asked) {
        self.answer(asked, Answer { error: error::UNKNOWN_COMMAND, closer: true, ..Answer::default() });
    }

    /// Somebody wants to know whether another of its ports is reached.
    fn on_ping_nat(&mut self, asked: Asked) {
        let Some(port) =
            asked.request.value.and_then(|value| value.first_chunk()).map(|port| u16::from_le_bytes(*port))
        else {
            return;
        };
        if port != 0 {
            let from = SocketAddrV4::new(*asked.from.ip(), port);
            self.answer(Asked { from, ..asked }, Answer::default());
        }
    }

    /// Somebody wants to know how long its NAT keeps a port open.
    fn on_delayed_ping(&mut self, asked: Asked) {
        let Some(delay) = asked.request.value.and_then(|value| value.first_chunk()) else { return };
        let delay = Duration::from_millis(u64::from(u32::from_le_bytes(*delay)));
        if delay <= MAX_DELAY && self.late.len() < MAX_LATE {
            let key = (self.now + delay, self.number());
            let datagram = self.encode(asked, Answer::default());
            if self.may_get(asked, datagram.len().saturating_sub(asked.len)) {
                self.late.insert(key, (asked.socket, asked.from, datagram));
            }
        }
    }

    /// Somebody says that a node which we named to it is down.
    fn on_down_hint(&mut self, asked: Asked) {
        let Some(node) = asked.request.value.and_then(|value| value.first_chunk()) else { return };
        let id = Id::of_node(crate::dht::id::decode_address(*node));
        let now = self.now;
        if let Some(contact) = self.table.get_mut(&id)
            && (!contact.doubted || now.saturating_sub(contact.asked) >= Duration::from_secs(5))
        {
            contact.doubted = true;
            self.check(id);
        }
        self.answer(asked, Answer::default());
    }

    fn on_find(&mut self, asked: Asked) {
        let Some(target) = asked.request.target else { return };
        let route = || self.own_record(&target).or_else(|| Some(self.store.routes.get(&target)?.record.clone()));
        let value = match asked.request.command {
            Command::FindPeer => route(),
            Command::Lookup => {
                let route = route();
                self.store.lookup(&mut self.rng, &target, K, route.as_deref())
            }
            Command::ImmutableGet => self.store.immutable(&target).map(<[u8]>::to_vec),
            _ => {
                let Some(Ok(least)) = asked.request.value.map(|value| Reader::new(value).uint()) else { return };
                self.store.mutable(&target).filter(|record| record.seq >= least).map(Mutable::encode)
            }
        };
        self.answer(asked, Answer::found(value.as_deref()));
    }

    /// Stores something for somebody who has shown a token.
    fn on_store(&mut self, asked: Asked, target: Id, value: &[u8]) {
        let host = *asked.from.ip();
        match asked.request.command {
            Command::Announce => self.on_announce(asked, target, value),
            Command::Unannounce => {
                let (node, token) = (self.table.id(), asked.request.token.unwrap_or_default());
                let place = Place { target: &target, node: &node, token: &token };
                let Ok(announce) = Announce::decode(value) else { return };
                let Some(peer) = announce.verify(Purpose::Unannounce, place) else { return };
                if Id::of(&peer.key) == target {
                    self.store.routes.remove(&target);
                }
                self.store.unannounce(target, &peer.key);
                self.answer(asked, Answer::STORED);
            }
            Command::MutablePut => {
                let Ok((author, record)) = Mutable::decode_put(value) else { return };
                if Id::of(&author) != target || !record.is_by(&author) {
                    return;
                }
                let error = match self.store.mutable(&target) {
                    Some(old) if record.seq < old.seq => error::SEQ_TOO_LOW,
                    Some(old) if record.seq == old.seq && record.value != old.value => error::SEQ_REUSED,
                    _ => 0,
                };
                if error != 0 {
                    self.answer(asked, Answer { error, closer: true, ..Answer::default() });
                } else if self.store.put_mutable(self.now, target, host, record) {
                    self.answer(asked, Answer::found(None));
                }
            }
            _ => {
                if Id::of(value) == target && self.store.put_immutable(self.now, target, host, value) {
                    self.answer(asked, Answer::found(None));
                }
            }
        }
    }

    fn on_announce(&mut self, asked: Asked, target: Id, value: &[u8]) {
        let (node, token) = (self.table.id(), asked.request.token.unwrap_or_default());
        let place = Place { target: &target, node: &node, token: &token };
        let Ok(announce) = Announce::decode(value) else { return };
        let Some(peer) = announce.verify(Purpose::Announce, place) else { return };
        let mut peer = peer.clone();
        peer.relays.truncate(crate::dht::record::MAX_RELAYS);
        let host = *asked.from.ip();
        let is_kept = if Id::of(&peer.key) == target {
            self.store.unannounce(target, &peer.key);
            let route = Route { address: asked.from, record: peer.encode() };
            self.store.routes.put(self.now, target, host, route).is_ok()
        } else {
            let latest = (self.now + BUMP_DRIFT).as_millis();
            let bump = if u128::from(announce.bump) <= latest { announce.bump } else { 0 };
            self.store.announce(self.now, target, &peer, host, bump)
        };
        // Whoever has its share already isn't answered, and will store elsewhere.
        if is_kept {
            self.answer(asked, Answer::STORED);
        }
    }

    pub(super) fn answer(&mut self, asked: Asked, answer: Answer) {
        let datagram = self.encode(asked, answer);
        let more = datagram.len().saturating_sub(asked.len);
        if self.may_get(asked, more) {
            self.send(asked.socket, asked.from, datagram);
        }
    }

    /// Whether whoever asks may get so many bytes out of us; if so, they are counted.
    pub(super) fn may_get(&mut self, asked: Asked, bytes: usize) -> bool {
        asked.proven || self.sources.allow(self.now, *asked.from.ip(), bytes)
    }

    pub(super) fn encode(&self, asked: Asked, answer: Answer) -> Vec<u8> {
        let closer = if answer.closer { self.closer(asked.request.target.as_ref()) } else { Vec::new() };
        let response = Response {
            tid: asked.request.tid,
            to: asked.from,
            id: self.id_on(asked.socket),
            token: answer.token.then(|| self.tokens.issue(*asked.from.ip())),
            closer,
            error: answer.error,
            value: answer.value,
        };
        response.encode()
    }
}

/// How much each source got beyond what it sent.
///
/// There's a fixed number of buckets; hosts that share one share its credit. Which ones do depends on a secret.
#[derive(Debug)]
pub(super) struct Sources {
    buckets: Vec<Bucket>,
    rate: u32,
    secret: [u8; 32],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    spent: u32,
    at_ms: u64,
}

const BUCKETS: usize = 1_024;
/// Seconds of the rate that may be spent at once.
const BURST: u32 = 10;

impl Sources {
    pub(super) fn new(rate: u32, secret: [u8; 32]) -> Self {
        Sources { buckets: vec![Bucket::default(); BUCKETS], rate, secret }
    }

    /// Whether `host` may get `bytes` more; if so, they're counted. Nobody forges our own loopback addresses.
    fn allow(&mut self, now: Duration, host: Ipv4Addr, bytes: usize) -> bool {
        if bytes == 0 || host.is_loopback() {
            return true;
        }
        let [low, high, ..] = keyed_hash(&self.secret, &host.octets());
        let bucket = &mut self.buckets[usize::from(u16::from_le_bytes([low, high])) % BUCKETS];
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let regained = now_ms.saturating_sub(bucket.at_ms).saturating_mul(u64::from(self.rate)) / 1_000;
        bucket.spent = bucket.spent.saturating_sub(u32::try_from(regained).unwrap_or(u32::MAX));
        bucket.at_ms = now_ms;
        let spent = bucket.spent.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let is_allowed = spent <= self.rate.saturating_mul(BURST);
        if is_allowed {
            bucket.spent = spent;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_rate_and_ten_times_that_at_once() {
        let mut sources = Sources::new(1_000, [0; 32]);
        let host = Ipv4Addr::new(1, 2, 3, 4);
        let mut sent = |ms: u64| {
            std::iter::repeat_with(|| sources.allow(Duration::from_millis(ms), host, 100)).take_while(|ok| *ok).count()
        };
        assert_eq!([sent(1_000), sent(1_000), sent(2_000), sent(2_550)], [100, 0, 10, 5]);
    }
}
