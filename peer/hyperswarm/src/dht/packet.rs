//! What nodes send each other in one datagram each: requests and responses of dht-rpc.
//!
//! ```text
//!            1     1     2      6           32     32                          32       uint + n
//! request    03  flags  tid  receiver     [id]  [token]  uint command       [target]   [value]
//!            flags: 1 id, 2 token, 4 command of the DHT itself, 8 target, 16 value
//! response   13  flags  tid  receiver     [id]  [token]  [closer: uint count, 6 each]  [uint error]  [value]
//!            flags: 1 id, 2 token, 4 closer, 8 error, 16 value
//! ```
//!
//! `receiver` is the address that the sender used: this is how a node learns its address outside of a NAT.

use super::id::{Id, decode_address, encode_address};
use datdot_wire::encoding::{DecodeError, Reader, Writer};
use std::net::SocketAddrV4;

const REQUEST: u8 = 0x03;
const RESPONSE: u8 = 0x13;

/// Most nodes that are read from a response: what an honest one sends.
pub const MAX_CLOSER: usize = 20;

/// Proves to the node that made it that we receive at our address.
pub type Token = [u8; 32];

/// A datagram of the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A question.
    Request(Request<'a>),
    /// Its answer.
    Response(Response<'a>),
}

/// A question to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The answer carries the same.
    pub tid: u16,
    /// Where it was sent to.
    pub to: SocketAddrV4,
    /// The asker's id, if it is a node of the DHT and not only its guest.
    pub id: Option<Id>,
    /// The token that the asked one gave before.
    pub token: Option<Token>,
    /// What is asked.
    pub command: Command,
    /// What it is about.
    pub target: Option<Id>,
    /// Depends on the command.
    pub value: Option<&'a [u8]>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'a> {
    /// As in the request.
    pub tid: u16,
    /// Where it was sent to.
    pub to: SocketAddrV4,
    /// The id of the one that answers, if it is a node of the DHT.
    pub id: Option<Id>,
    /// For requests that store something here.
    pub token: Option<Token>,
    /// Nodes closer to the target.
    pub closer: Vec<SocketAddrV4>,
    /// 0 for none, see [`error`].
    pub error: u64,
    /// Depends on the command.
    pub value: Option<&'a [u8]>,
}

/// Errors of [`Response::error`].
pub mod error {
    /// Whoever is asked does not know the command, or isn't ready for it.
    pub const UNKNOWN_COMMAND: u64 = 1;
    /// The token is too old, or made for another address.
    pub const INVALID_TOKEN: u64 = 2;
    /// A mutable record with this number but another value is stored.
    pub const SEQ_REUSED: u64 = 16;
    /// A newer mutable record is stored.
    pub const SEQ_TOO_LOW: u64 = 17;
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in the protocol; the story of each is told where it is answered")]
pub enum Command {
    Ping,
    PingNat,
    FindNode,
    DownHint,
    DelayedPing,
    PeerHandshake,
    PeerHolepunch,
    FindPeer,
    Lookup,
    Announce,
    Unannounce,
    MutablePut,
    MutableGet,
    ImmutablePut,
    ImmutableGet,
    /// A command that we don't know.
    Other {
        internal: bool,
        code: u64,
    },
}

impl Command {
    /// Those of the DHT itself, by their numbers.
    pub const INTERNAL: [Command; 5] =
        [Command::Ping, Command::PingNat, Command::FindNode, Command::DownHint, Command::DelayedPing];
    /// Those of HyperDHT, by their numbers.
    pub const EXTERNAL: [Command; 10] = [
        Command::PeerHandshake,
        Command::PeerHolepunch,
        Command::FindPeer,
        Command::Lookup,
        Command::Announce,
        Command::Unannounce,
        Command::MutablePut,
        Command::MutableGet,
        Command::ImmutablePut,
        Command::ImmutableGet,
    ];

    fn decode(internal: bool, code: u64) -> Self {
        let known: &[Command] = if internal { &Self::INTERNAL } else { &Self::EXTERNAL };
        let index = usize::try_from(code).unwrap_or(usize::MAX);
        known.get(index).copied().unwrap_or(Command::Other { internal, code })
    }

    /// Whether it belongs to the DHT itself, and its number.
    fn encode(self) -> (bool, u64) {
        if let Command::Other { internal, code } = self {
            return (internal, code);
        }
        let place = |known: &[Command]| known.iter().position(|each| *each == self).map(|at| at as u64);
        match place(&Self::INTERNAL) {
            Some(code) => (true, code),
            None => (false, place(&Self::EXTERNAL).expect("every command but `Other` is in one of the two lists")),
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads a datagram. Bytes behind the last field are ignored.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(datagram);
        let kind = r.u8()?;
        let flags = r.uint()?;
        let has = |flag: u64| flags & flag != 0;
        let tid = u16::from_le_bytes(*r.fixed()?);
        let to = address(&mut r)?;
        let id = if has(1) { Some(Id(*r.fixed()?)) } else { None };
        let token = if has(2) { Some(*r.fixed()?) } else { None };
        match kind {
            REQUEST => {
                let command = Command::decode(has(4), r.uint()?);
                let target = if has(8) { Some(Id(*r.fixed()?)) } else { None };
                let value = if has(16) { Some(r.buffer()?) } else { None };
                Ok(Packet::Request(Request { tid, to, id, token, command, target, value }))
            }
            RESPONSE => {
                let closer = if has(4) { r.array(MAX_CLOSER, address)? } else { Vec::new() };
                let error = if has(8) { r.uint()? } else { 0 };
                let value = if has(16) { Some(r.buffer()?) } else { None };
                Ok(Packet::Response(Response { tid, to, id, token, closer, error, value }))
            }
            _ => Err(DecodeError::Invalid("kind of datagram")),
        }
    }
}

impl Request<'_> {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let (internal, code) = self.command.encode();
        let flags = flag(self.id.is_some(), 1)
            | flag(self.token.is_some(), 2)
            | flag(internal, 4)
            | flag(self.target.is_some(), 8)
            | flag(self.value.is_some(), 16);
        let mut w = Writer::with_capacity(128 + self.value.map_or(0, <[u8]>::len));
        head(&mut w, REQUEST, flags, self.tid, self.to, self.id, self.token);
        w.uint(code);
        if let Some(target) = &self.target {
            w.raw(&target.0);
        }
        if let Some(value) = self.value {
            w.buffer(value);
        }
        w.into_vec()
    }
}

impl Response<'_> {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let flags = flag(self.id.is_some(), 1)
            | flag(self.token.is_some(), 2)
            | flag(!self.closer.is_empty(), 4)
            | flag(self.error != 0, 8)
            | flag(self.value.is_some(), 16);
        let mut w = Writer::with_capacity(80 + 6 * self.closer.len() + self.value.map_or(0, <[u8]>::len));
        head(&mut w, RESPONSE, flags, self.tid, self.to, self.id, self.token);
        if !self.closer.is_empty() {
            w.array(&self.closer, |w, each| _ = w.raw(&encode_address(*each)));
        }
        if self.error != 0 {
            w.uint(self.error);
        }
        if let Some(value) = self.value {
            w.buffer(value);
        }
        w.into_vec()
    }
}

fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

fn head(w: &mut Writer, kind: u8, flags: u8, tid: u16, to: SocketAddrV4, id: Option<Id>, token: Option<Token>) {
    w.u8(kind).u8(flags).raw(&tid.to_le_bytes()).raw(&encode_address(to));
    if let Some(id) = id {
        w.raw(&id.0);
    }
    if let Some(token) = token {
        w.raw(&token);
    }
}

/// Reads an address.
pub(crate) fn address(r: &mut Reader) -> Result<SocketAddrV4, DecodeError> {
    Ok(decode_address(*r.fixed()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_address() -> impl Strategy<Value = SocketAddrV4> {
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
    }

    fn any_command() -> impl Strategy<Value = Command> {
        (any::<bool>(), 0..300u64).prop_map(|(internal, code)| Command::decode(internal, code))
    }

    proptest! {
        #[test]
        fn requests_come_back(
            tid: u16,
            to in any_address(),
            id in any::<Option<[u8; 32]>>(),
            token: Option<[u8; 32]>,
            command in any_command(),
            target in any::<Option<[u8; 32]>>(),
            value: Option<Vec<u8>>,
        ) {
            let request =
                Request { tid, to, id: id.map(Id), token, command, target: target.map(Id), value: value.as_deref() };
            let datagram = request.encode();
            prop_assert_eq!(Packet::decode(&datagram), Ok(Packet::Request(request)));
        }

        #[test]
        fn responses_come_back(
            tid: u16,
            to in any_address(),
            id in any::<Option<[u8; 32]>>(),
            token: Option<[u8; 32]>,
            closer in prop::collection::vec(any_address(), 0..=MAX_CLOSER),
            error in 0..500u64,
            value: Option<Vec<u8>>,
        ) {
            let response = Response { tid, to, id: id.map(Id), token, closer, error, value: value.as_deref() };
            let datagram = response.encode();
            prop_assert_eq!(Packet::decode(&datagram), Ok(Packet::Response(response)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(kind in prop::sample::select(vec![REQUEST, RESPONSE, 7]), flags: u8, rest: Vec<u8>) {
            let datagram = [&[kind, flags], &rest[..]].concat();
            for end in 0..=datagram.len() {
                _ = Packet::decode(&datagram[..end]);
            }
        }
    }

    #[test]
    fn more_nodes_than_an_honest_one_sends_are_refused() {
        let to = SocketAddrV4::new([1, 2, 3, 4].into(), 5);
        let many = Response { tid: 1, to, id: None, token: None, closer: vec![to; 21], error: 0, value: None };
        assert!(Packet::decode(&many.encode()).is_err());
    }
}
