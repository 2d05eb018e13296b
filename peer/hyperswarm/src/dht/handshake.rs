//! How two peers agree on a connection through nodes that both can reach.
//!
//! ```text
//!             1 FROM_CLIENT          2 FROM_RELAY
//!   client ─────────────────▶ node ─────────────────▶ server        the node has the server's route
//!          ◀───────────────── node ◀─────────────────
//!             4 REPLY                3 FROM_SERVER
//! ```
//!
//! The node adds to 2 where the client is, and to 4 where the server is. A server may be a relay itself: then 2 goes on
//! as FROM_SECOND_RELAY, and 3 comes straight to the first node. What is in `noise` only the two ends can read: the
//! messages of a Noise IK handshake, each with a [`Payload`].
//!
//! ```text
//! handshake  uint flags, uint mode, buffer noise, [peer 6], [relay 6]             flags: 1 peer, 2 relay
//! holepunch  uint flags, uint mode, uint id, buffer payload, [peer 6]            flags: 1 peer
//! payload    uint version 1, uint flags, uint error, uint firewall,
//!            [uint id, relays: uint count, relay 6 and server 6 each]             flag 1: how to punch a hole
//!            [uint count, 6 each]                                                 flag 2: IPv4 addresses
//!            [uint count, 18 each]                                                flag 4: IPv6 addresses, unused
//!            [uint version 1, uint features, uint stream id, uint seq]            flag 8: UDX; feature 1: reusable socket
//!            [uint version 1]                                                     flag 16: secret stream
//!            [uint version 1, uint flags, key 32, token 32]                       flag 32: through a blind relay
//!            [uint count, 6 each]                                                 flag 64: relays for the next time
//! ```

use super::id::encode_address;
use super::packet::address;
use super::record::namespace;
use datdot_wire::encoding::{DecodeError, Reader, Writer};
use std::net::SocketAddrV4;

/// Addresses that are read from a payload.
const MAX_ADDRESSES: usize = 64;

/// The prologue of the Noise handshake.
pub fn prologue() -> [u8; 32] {
    namespace(0)
}

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To a node that has the route.
    FromClient,
    /// Back to that node.
    FromServer,
    /// From it to the server.
    FromRelay,
    /// From a second relay to the server.
    FromSecondRelay,
    /// Back to the client.
    Reply,
}

impl Mode {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match r.uint()? {
            0 => Mode::FromClient,
            1 => Mode::FromServer,
            2 => Mode::FromRelay,
            3 => Mode::FromSecondRelay,
            4 => Mode::Reply,
            _ => return Err(DecodeError::Invalid("mode of a handshake")),
        })
    }
}

/// The value of PEER_HANDSHAKE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// Where it is on its way.
    pub mode: Mode,
    /// A message of the Noise handshake.
    pub noise: &'a [u8],
    /// To the server: where the client is; to the client: where the server is.
    pub peer: Option<SocketAddrV4>,
    /// From a second relay: where the first is.
    pub relay: Option<SocketAddrV4>,
}

impl<'a> Handshake<'a> {
    /// Reads a value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let flags = r.uint()?;
        Ok(Handshake {
            mode: Mode::read(&mut r)?,
            noise: r.buffer()?,
            peer: optional_address(&mut r, flags & 1 != 0)?,
            relay: optional_address(&mut r, flags & 2 != 0)?,
        })
    }

    /// Writes a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(20 + self.noise.len());
        w.u8(u8::from(self.peer.is_some()) | u8::from(self.relay.is_some()) << 1);
        w.uint(self.mode as u64).buffer(self.noise);
        for address in [self.peer, self.relay].into_iter().flatten() {
            w.raw(&encode_address(address));
        }
        w.into_vec()
    }
}

/// The value of PEER_HOLEPUNCH: two peers tell each other, through a node, when to send through their NATs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holepunch<'a> {
    /// Where it is on its way.
    pub mode: Mode,
    /// The server's number for it.
    pub id: u64,
    /// Only the two ends can read it.
    pub payload: &'a [u8],
    /// As in [`Handshake::peer`]; from a client also the address of the server that it means.
    pub peer: Option<SocketAddrV4>,
}

impl<'a> Holepunch<'a> {
    /// Reads a value.
    pub fn decode(value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let flags = r.uint()?;
        Ok(Holepunch {
            mode: Mode::read(&mut r)?,
            id: r.uint()?,
            payload: r.buffer()?,
            peer: optional_address(&mut r, flags & 1 != 0)?,
        })
    }

    /// Writes a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(20 + self.payload.len());
        w.u8(u8::from(self.peer.is_some())).uint(self.mode as u64).uint(self.id).buffer(self.payload);
        if let Some(peer) = self.peer {
            w.raw(&encode_address(peer));
        }
        w.into_vec()
    }
}

/// What a peer knows of its own firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// Nothing.
    Unknown,
    /// Strangers reach it at the address that it names.
    Open,
    /// It has one address outside, and only those reach it whom it has sent something.
    Consistent,
    /// It has another port for each whom it sends something.
    Random,
}

/// Why a server can't be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It doesn't want to.
    #[error("the peer refused the connection")]
    Aborted,
    /// It speaks another version.
    #[error("the peer speaks another version of the protocol")]
    VersionMismatch,
    /// Not now.
    #[error("the peer is busy")]
    TryLater,
    /// Another number.
    #[error("the peer refused the connection with error {0}")]
    Other(u64),
}

/// What the two peers tell each other in the Noise handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Why there will be no connection.
    pub refusal: Option<Refusal>,
    /// What the sender knows of its firewall.
    pub firewall: Firewall,
    /// How a hole can be punched to the sender, if it can.
    pub holepunch: Option<HolepunchInfo>,
    /// Where the sender is: outside, and in its own network.
    pub addresses: Vec<SocketAddrV4>,
    /// The stream on which the connection will be.
    pub udx: Option<UdxInfo>,
    /// Whether it will be a secret stream; always, today.
    pub secret_stream: bool,
    /// A blind relay to meet at, if there's no direct way.
    pub relay_through: Option<RelayThrough>,
    /// Nodes that know how to reach the sender, for the next time.
    pub relays: Vec<SocketAddrV4>,
}

/// How a hole can be punched to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolepunchInfo {
    /// The server's number for it.
    pub id: u64,
    /// Nodes that can tell it, and the server's address as each of them sees it.
    pub relays: Vec<(SocketAddrV4, SocketAddrV4)>,
}

/// A UDX stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdxInfo {
    /// Whether further streams may come from the same socket.
    pub reusable_socket: bool,
    /// The number under which the sender receives.
    pub id: u32,
    /// The first sequence number.
    pub seq: u32,
}

/// A meeting point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayThrough {
    /// The relay's key.
    pub key: [u8; 32],
    /// Names the pair at the relay.
    pub token: [u8; 32],
}

/// The payload of a handshake could not be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is of a later version.
    #[error("a handshake payload of version {0}, not 1")]
    Version(u64),
    /// It is damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
}

impl Payload {
    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut r = Reader::new(payload);
        let version = r.uint()?;
        if version != 1 {
            return Err(PayloadError::Version(version));
        }
        let flags = r.uint()?;
        let has = |flag: u64| flags & flag != 0;
        let refusal = match r.uint()? {
            0 => None,
            1 => Some(Refusal::Aborted),
            2 => Some(Refusal::VersionMismatch),
            3 => Some(Refusal::TryLater),
            other => Some(Refusal::Other(other)),
        };
        let firewall = match r.uint()? {
            1 => Firewall::Open,
            2 => Firewall::Consistent,
            3 => Firewall::Random,
            _ => Firewall::Unknown,
        };
        let holepunch = if has(1) { Some(HolepunchInfo::read(&mut r)?) } else { None };
        let own = addresses(&mut r, has(2))?;
        if has(4) {
            r.array(MAX_ADDRESSES, |r| r.fixed::<18>().map(|_| ()))?;
        }
        let udx = if has(8) { Some(UdxInfo::read(&mut r)?) } else { None };
        let secret_stream = has(16);
        if secret_stream {
            r.uint()?;
        }
        let relay_through = if has(32) { Some(RelayThrough::read(&mut r)?) } else { None };
        let relays = addresses(&mut r, has(64))?;
        Ok(Payload { refusal, firewall, holepunch, addresses: own, udx, secret_stream, relay_through, relays })
    }

    /// Writes a payload.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let mut w = Writer::with_capacity(128);
        w.u8(1)
            .u8(flag(self.holepunch.is_some(), 1)
                | flag(!self.addresses.is_empty(), 2)
                | flag(self.udx.is_some(), 8)
                | flag(self.secret_stream, 16)
                | flag(self.relay_through.is_some(), 32)
                | flag(!self.relays.is_empty(), 64))
            .uint(match self.refusal {
                None => 0,
                Some(Refusal::Aborted) => 1,
                Some(Refusal::VersionMismatch) => 2,
                Some(Refusal::TryLater) => 3,
                Some(Refusal::Other(error)) => error,
            })
            .uint(self.firewall as u64);
        if let Some(HolepunchInfo { id, relays }) = &self.holepunch {
            w.uint(*id).array(relays, |w, (relay, server)| {
                w.raw(&encode_address(*relay)).raw(&encode_address(*server));
            });
        }
        if !self.addresses.is_empty() {
            write_addresses(&mut w, &self.addresses);
        }
        if let Some(udx) = &self.udx {
            w.u8(1).u8(u8::from(udx.reusable_socket)).uint(u64::from(udx.id)).uint(u64::from(udx.seq));
        }
        if self.secret_stream {
            w.u8(1);
        }
        if let Some(through) = &self.relay_through {
            w.u8(1).u8(0).raw(&through.key).raw(&through.token);
        }
        if !self.relays.is_empty() {
            write_addresses(&mut w, &self.relays);
        }
        w.into_vec()
    }
}

impl HolepunchInfo {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let id = r.uint()?;
        let relays = r.array(MAX_ADDRESSES, |r| Ok((address(r)?, address(r)?)))?;
        Ok(HolepunchInfo { id, relays })
    }
}

impl UdxInfo {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let _version = r.uint()?;
        let features = r.uint()?;
        Ok(UdxInfo { reusable_socket: features & 1 != 0, id: r.uint32()?, seq: r.uint32()? })
    }
}

impl RelayThrough {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let _version = r.uint()?;
        let _flags = r.uint()?;
        Ok(RelayThrough { key: *r.fixed()?, token: *r.fixed()? })
    }
}

fn optional_address(r: &mut Reader, is_there: bool) -> Result<Option<SocketAddrV4>, DecodeError> {
    if is_there { address(r).map(Some) } else { Ok(None) }
}

fn addresses(r: &mut Reader, are_there: bool) -> Result<Vec<SocketAddrV4>, DecodeError> {
    if are_there { r.array(MAX_ADDRESSES, address) } else { Ok(Vec::new()) }
}

fn write_addresses(w: &mut Writer, addresses: &[SocketAddrV4]) {
    w.array(addresses, |w, each| _ = w.raw(&encode_address(*each)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new([n, 2, 3, 4].into(), 1_000 + u16::from(n))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn full() -> Payload {
        Payload {
            refusal: Some(Refusal::TryLater),
            firewall: Firewall::Consistent,
            holepunch: Some(HolepunchInfo { id: 300, relays: vec![(at(1), at(2)), (at(3), at(4))] }),
            addresses: vec![at(5), at(6)],
            udx: Some(UdxInfo { reusable_socket: true, id: 0xdead_beef, seq: 7 }),
            secret_stream: true,
            relay_through: Some(RelayThrough { key: [8; 32], token: [9; 32] }),
            relays: vec![at(10)],
        }
    }

    // hyperdht 6.34.0, lib/messages.js
    #[test]
    fn messages_are_as_in_javascript() {
        assert_eq!(
            hex(&full().encode()),
            "017b0302fd2c010201020304e90302020304ea0303020304eb0304020304ec030205020304ed0306020304ee030101feefbeadde0701010008080808080808080808080808080808080808080808080808080808080808080909090909090909090909090909090909090909090909090909090909090909010a020304f203"
        );
        assert_eq!(Payload::decode(&full().encode()), Ok(full()));
        let handshake =
            Handshake { mode: Mode::FromSecondRelay, noise: b"noise", peer: Some(at(1)), relay: Some(at(2)) };
        assert_eq!(hex(&handshake.encode()), "0303056e6f69736501020304e90302020304ea03");
        let holepunch = Holepunch { mode: Mode::Reply, id: 300, payload: b"sealed", peer: Some(at(1)) };
        assert_eq!(hex(&holepunch.encode()), "0104fd2c01067365616c656401020304e903");
    }

    #[test]
    fn a_later_version_is_recognised() {
        assert_eq!(Payload::decode(&[2, 0xff, 0xff]), Err(PayloadError::Version(2)));
    }

    #[test]
    fn addresses_of_ipv6_are_skipped() {
        // Two of them, before the number of a UDX stream.
        let payload = [&[1, 4 | 8, 0, 1, 2][..], &[7; 36], &[1, 0, 5, 0]].concat();
        let udx = UdxInfo { reusable_socket: false, id: 5, seq: 0 };
        assert_eq!(Payload::decode(&payload).unwrap().udx, Some(udx));
    }

    proptest! {
        #[test]
        fn handshakes_and_holepunches_come_back(mode in 0..5u8, noise: Vec<u8>, peer: bool, relay: bool, id in 0..1u64 << 53) {
            let mode = Mode::read(&mut Reader::new(&[mode])).unwrap();
            let (peer, relay) = (peer.then(|| at(1)), relay.then(|| at(2)));
            let handshake = Handshake { mode, noise: &noise, peer, relay };
            let value = handshake.encode();
            prop_assert_eq!(Handshake::decode(&value), Ok(handshake));
            let holepunch = Holepunch { mode, id, payload: &noise, peer };
            let value = holepunch.encode();
            prop_assert_eq!(Holepunch::decode(&value), Ok(holepunch));
        }

        #[test]
        fn payloads_come_back(fields: [bool; 7]) {
            let all = full();
            let payload = Payload {
                refusal: all.refusal.filter(|_| fields[0]),
                firewall: Firewall::Open,
                holepunch: all.holepunch.filter(|_| fields[1]),
                addresses: if fields[2] { all.addresses } else { Vec::new() },
                udx: all.udx.filter(|_| fields[3]),
                secret_stream: fields[4],
                relay_through: all.relay_through.filter(|_| fields[5]),
                relays: if fields[6] { all.relays } else { Vec::new() },
            };
            prop_assert_eq!(Payload::decode(&payload.encode()), Ok(payload));
        }

        #[test]
        fn any_bytes_are_read_or_refused(value: Vec<u8>, flags: u8) {
            _ = Handshake::decode(&value);
            _ = Holepunch::decode(&value);
            _ = Payload::decode(&[&[1, flags][..], &value].concat());
        }
    }
}
