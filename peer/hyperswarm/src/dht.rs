//! The HyperDHT: how peers find each other without anybody in the middle.
//!
//! - [`id`], [`packet`], [`record`], [`handshake`]: what is on the wire;
//! - [`table`], [`query`], [`requests`], [`token`], [`nat`], [`store`]: the parts of a node, each without I/O;
//! - [`node`]: the node, which decides: datagrams and time go in, datagrams and events come out;
//! - [`bootstrap`], [`cache`], [`interfaces`]: where it begins, and where it is;
//! - [`driver`] and [`client`]: the sockets and the clock around it, and what one does with it.

pub mod address;
pub mod bootstrap;
pub mod cache;
pub mod client;
mod clock;
pub mod driver;
pub mod handshake;
pub mod id;
pub mod interfaces;
pub mod nat;
pub mod node;
pub mod packet;
pub mod query;
pub mod record;
pub mod requests;
pub mod store;
pub mod table;
pub mod token;

pub use client::{Lookup, Lookups, StoreError};
pub use driver::{Dht, Ended, ListenError, Searching, Settings, Status};
pub use id::Id;
pub use node::{Action, Config, Event, Node, Outcome, Reach, Role};
pub use query::{Commit, Reply, Search};
pub use record::{Identity, Mutable, Peer, Peers, PublicKey};

/// The two sockets of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Socket {
    /// Asks while the node doesn't know that strangers reach the other one.
    Client,
    /// Its port is the one that others know.
    Server,
}
