//! Connections by key: whoever knows a peer's public key reaches it through the DHT.
//!
//! A server [listens](crate::dht::Dht::listen): nodes of the DHT know where it is. A client asks such a node to pass on
//! the first message of a Noise handshake, and gets the second back the same way. Then both know the other's key, its
//! address and the number of its UDX stream, and begin the encrypted stream without another word.
//!
//! - [`shake`]: the two messages and what is in them, without I/O;
//! - `client` and `server`: who sends them to whom;
//! - `way`: which address to take then.
//!
//! Peers behind NATs that let nobody in would have to punch a hole. That's not done here: two such peers meet only if they
//! are in one network.

mod callers;
mod client;
mod relays;
mod server;
pub mod shake;
mod way;

pub(crate) use relays::Relays;
pub(crate) use server::Announced;
pub use server::{Gate, ListenOptions, Server};

use crate::dht::handshake::Refusal;
use crate::dht::{Ended, PublicKey, interfaces};
use crate::udx::{ReadHalf, UdxHandle, UdxStream, WriteHalf};
use datdot_wire::connection::{ByteStream, Connection, ConnectionError, Options};
use datdot_wire::noise::{HandshakeError, Session};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// How long a peer may take to send its first packet when both have agreed on a connection.
const FIRST_PACKET: Duration = Duration::from_secs(10);

/// An encrypted connection with a peer, as a stream of bytes.
pub type PeerBytes = ByteStream<ReadHalf, WriteHalf>;

/// An encrypted connection with a peer whose key is proven. It carries texts, as in JavaScript: what is sent as one arrives as
/// one. Who wants bytes makes [`PeerBytes`] of it.
#[derive(Debug)]
pub struct PeerStream {
    /// Its texts, in both directions.
    pub secret: Connection<ReadHalf, WriteHalf>,
    /// The stream below: where its packets go, how fast, and how to end it at once.
    pub handle: UdxHandle,
}

impl PeerStream {
    async fn resume(stream: UdxStream, session: Session, options: &Options) -> Result<Self, ConnectionError> {
        let handle = stream.handle();
        let (reader, writer) = stream.into_split();
        let secret = Connection::resume(reader, writer, session, options).await?;
        Ok(PeerStream { secret, handle })
    }

    /// Whom we talk to.
    pub fn remote(&self) -> PublicKey {
        self.secret.remote
    }

    /// The same connection as a stream of bytes, which [`tokio::io`] reads and writes.
    pub fn into_bytes(self) -> PeerBytes {
        self.secret.into()
    }

    /// Where it is, now.
    pub fn address(&self) -> Option<SocketAddr> {
        self.handle.path().map(|path| path.address)
    }
}

/// Why there's no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No node of the DHT knows how to reach the peer.
    #[error("nobody knows how to reach this peer")]
    NotFound,
    /// Nodes knew it, but the peer did not answer.
    #[error("the peer didn't answer, through {tried} nodes that know it")]
    NoAnswer {
        /// How many.
        tried: usize,
    },
    /// It doesn't want to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Neither of the two can be reached by strangers.
    #[error("the peer and we are both behind firewalls, and no hole was punched")]
    Unreachable,
    /// Its answer can't be used.
    #[error("the peer's answer is damaged: {0}")]
    Damaged(&'static str),
    /// The Noise handshake failed on our side.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// We agreed, but then nothing came.
    #[error(transparent)]
    Stream(#[from] ConnectionError),
    /// Our node has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// The addresses of this machine in its own networks, with the port that is bound there.
fn local_addresses(bound: SocketAddrV4) -> Vec<SocketAddrV4> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let mut hosts = interfaces::addresses();
    if hosts.is_empty() {
        hosts.push(Ipv4Addr::LOCALHOST);
    }
    hosts.into_iter().map(|host| SocketAddrV4::new(host, bound.port())).collect()
}
