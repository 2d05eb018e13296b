//! What nodes keep for others, how it is written and what is signed.
//!
//! ```text
//! peer      key 32, relays: uint count, 6 each             who, and through whom it is reached
//! lookup    uint count, peers, uint bump                   answer to LOOKUP
//! announce  uint flags, [peer], [refresh 32], [signature 64], [uint bump]    value of ANNOUNCE and UNANNOUNCE
//!           flags: 1 peer, 2 refresh, 4 signature, 8 bump
//! mutable   uint seq, buffer value, signature 64           answer to MUTABLE_GET; MUTABLE_PUT has the key in front
//! ```
//!
//! An announcement is signed for one node and one token: nobody can bring it to another node, or again later.

use super::id::{Id, encode_address, hash};
use super::packet::{Token, address};
use datdot_wire::encoding::{DecodeError, Reader, Writer};
use datdot_wire::noise;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use std::net::SocketAddrV4;
use std::sync::Arc;

pub use datdot_wire::noise::PublicKey;

/// Relays of a peer that are kept.
pub const MAX_RELAYS: usize = 3;
/// Relays of a peer that are read.
const READ_RELAYS: usize = 32;
/// Peers in an answer that are read. An honest node sends at most [`K`](super::table::K).
const READ_PEERS: usize = 64;

/// Who we are: the key pair under which others reach us, and which signs what we announce.
#[derive(Clone)]
pub struct Identity(Arc<SigningKey>);

impl Identity {
    /// The key pair that belongs to an Ed25519 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Identity(Arc::new(SigningKey::from_bytes(seed)))
    }

    /// The name under which others know us.
    pub fn public(&self) -> PublicKey {
        self.0.verifying_key().to_bytes()
    }

    /// The same keys for a Noise handshake.
    pub fn noise(&self) -> noise::Keypair {
        noise::Keypair::from_seed(self.0.as_bytes())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&hex(&self.public()[..4])).finish()
    }
}

/// A peer that announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: PublicKey,
    /// Nodes that know how to reach it, the best first.
    pub relays: Vec<SocketAddrV4>,
}

impl Peer {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Peer { key: *r.fixed()?, relays: r.array(READ_RELAYS, address)? })
    }

    fn write(&self, w: &mut Writer) {
        w.raw(&self.key).array(&self.relays, |w, each| _ = w.raw(&encode_address(*each)));
    }

    /// Reads the answer to FIND_PEER.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(value))
    }

    /// The record as it is stored and sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write(&mut w);
        w.into_vec()
    }
}

/// The answer to LOOKUP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// Some of those who announced themselves.
    pub peers: Vec<Peer>,
    /// When one of them last asked for attention, in milliseconds since 1970; 0 for never.
    pub bump: u64,
}

impl Peers {
    /// Reads an answer; old nodes send no bump.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let peers = r.array(READ_PEERS, Peer::read)?;
        let bump = if r.is_empty() { 0 } else { r.uint()? };
        Ok(Peers { peers, bump })
    }

    /// Writes an answer from [encoded](Peer::encode) records.
    pub(crate) fn encode<'a>(records: impl ExactSizeIterator<Item = &'a [u8]>, bump: u64) -> Vec<u8> {
        let mut w = Writer::new();
        w.uint(records.len() as u64);
        for record in records {
            w.raw(record);
        }
        w.uint(bump);
        w.into_vec()
    }
}

/// The value of ANNOUNCE and UNANNOUNCE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Who.
    pub peer: Option<Peer>,
    /// With its preimage the record could be refreshed without a signature. Nobody asks for that any more; it is read
    /// because it is signed.
    pub refresh: Option<[u8; 32]>,
    /// The peer's: over the target, the node, its token, the peer and `refresh`.
    pub signature: Option<[u8; 64]>,
    /// See [`Peers::bump`].
    pub bump: u64,
}

impl Announce {
    /// Reads a value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let flags = r.uint()?;
        Ok(Announce {
            peer: if flags & 1 != 0 { Some(Peer::read(&mut r)?) } else { None },
            refresh: if flags & 2 != 0 { Some(*r.fixed()?) } else { None },
            signature: if flags & 4 != 0 { Some(*r.fixed()?) } else { None },
            bump: if flags & 8 != 0 { r.uint()? } else { 0 },
        })
    }

    /// Writes a value.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let mut w = Writer::with_capacity(160);
        w.u8(flag(self.peer.is_some(), 1)
            | flag(self.refresh.is_some(), 2)
            | flag(self.signature.is_some(), 4)
            | flag(self.bump != 0, 8));
        if let Some(peer) = &self.peer {
            peer.write(&mut w);
        }
        if let Some(refresh) = &self.refresh {
            w.raw(refresh);
        }
        if let Some(signature) = &self.signature {
            w.raw(signature);
        }
        if self.bump != 0 {
            w.uint(self.bump);
        }
        w.into_vec()
    }

    /// What `identity` sends to `node` to be found at `target` through `relays`, or no longer.
    pub fn signed(purpose: Purpose, identity: &Identity, relays: &[SocketAddrV4], at: Place, bump: u64) -> Self {
        let peer = Peer { key: identity.public(), relays: relays.to_vec() };
        let mut announce = Announce { peer: Some(peer), refresh: None, signature: None, bump };
        let signable = announce.signable(purpose, at).expect("the peer is there");
        announce.signature = Some(identity.sign(&signable));
        announce
    }

    /// The peer, if it signed this for `at`.
    pub fn verify(&self, purpose: Purpose, at: Place) -> Option<&Peer> {
        let peer = self.peer.as_ref()?;
        verify(&peer.key, &self.signable(purpose, at)?, self.signature.as_ref()?).then_some(peer)
    }

    fn signable(&self, purpose: Purpose, at: Place) -> Option<[u8; 64]> {
        let peer = self.peer.as_ref()?.encode();
        let refresh = self.refresh.as_ref().map_or(&[][..], |refresh| &refresh[..]);
        let hash = hash(&[&at.target.0, &at.node.0, at.token, &peer, refresh]);
        Some(signable(purpose.code(), &hash))
    }
}

/// What a signature is for; one for one purpose is worth nothing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be found.
    Announce,
    /// Not to be found any more.
    Unannounce,
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Purpose::Announce => 4,
            Purpose::Unannounce => 5,
        }
    }
}

/// Where something is announced.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What peers look up.
    pub target: &'a Id,
    /// The node that keeps the record.
    pub node: &'a Id,
    /// Its token for us.
    pub token: &'a Token,
}

/// A record that its author replaces with a higher `seq`; found at the hash of the author's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutable {
    /// Counts the versions.
    pub seq: u64,
    /// Up to about 1,000 bytes: request and answer are one datagram.
    pub value: Vec<u8>,
    /// The author's.
    pub signature: [u8; 64],
}

impl Mutable {
    /// A version signed by `author`.
    pub fn signed(author: &Identity, seq: u64, value: &[u8]) -> Self {
        let signature = author.sign(&Self::signable(seq, value));
        Mutable { seq, value: value.to_vec(), signature }
    }

    /// Whether `author` signed it.
    pub fn is_by(&self, author: &PublicKey) -> bool {
        verify(author, &Self::signable(self.seq, &self.value), &self.signature)
    }

    fn signable(seq: u64, value: &[u8]) -> [u8; 64] {
        let mut w = Writer::with_capacity(18 + value.len());
        w.uint(seq).buffer(value);
        signable(6, &hash(&[w.as_slice()]))
    }

    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Mutable { seq: r.uint()?, value: r.buffer()?.to_vec(), signature: *r.fixed()? })
    }

    /// Reads the answer to MUTABLE_GET.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(value))
    }

    /// The answer to MUTABLE_GET.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(82 + self.value.len());
        w.uint(self.seq).buffer(&self.value).raw(&self.signature);
        w.into_vec()
    }

    /// Reads the value of MUTABLE_PUT.
    pub fn decode_put(value: &[u8]) -> Result<(PublicKey, Self), DecodeError> {
        let mut r = Reader::new(value);
        Ok((*r.fixed()?, Self::read(&mut r)?))
    }

    /// The value of MUTABLE_PUT.
    pub fn encode_put(&self, author: &PublicKey) -> Vec<u8> {
        [&author[..], &self.encode()].concat()
    }
}

/// Namespace `code` of the DHT, which begins everything that is signed or is the prologue of its handshakes.
pub(crate) fn namespace(code: u8) -> [u8; 32] {
    hash(&[&hash(&[b"hyperswarm/dht"]), &[code]])
}

fn signable(code: u8, hash: &[u8; 32]) -> [u8; 64] {
    let mut signable = [0; 64];
    signable[..32].copy_from_slice(&namespace(code));
    signable[32..].copy_from_slice(hash);
    signable
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    // Strict, because libsodium refuses keys and points of small order too.
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
