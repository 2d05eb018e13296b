#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! From the inside out: [`messages`] and `prove` say what travels between peers, `session` what one channel
//! does with it and `plan` what is asked of whom, all without I/O; `peer` joins them to feeds on disk,
//! [`network`] drives it with tokio, and [`read`] waits for what is read. Those in plain letters are public for tests with hostile
//! input, and may change at any time.
//!
//! History that its author rewrites is followed only where [`Feed::follow_forks`] says so, and authors who sign two
//! histories at once leave evidence, [`Feed::conflict`]: who waits for newer blocks is told of both.

pub mod authors;
#[doc(hidden)]
pub mod blocks;
mod disk;
pub mod encryption;
pub mod feed;
mod files;
mod journal;
pub mod key;
mod leaves;
mod limit;
pub mod messages;
pub mod network;
#[doc(hidden)]
pub mod offers;
#[doc(hidden)]
pub mod pace;
#[doc(hidden)]
pub mod peer;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod plans;
#[doc(hidden)]
pub mod prove;
pub mod read;
#[doc(hidden)]
pub mod session;
pub mod store;
pub mod view;

pub use authors::Authors;
/// Heads and trees, as authors sign them and ledgers know them.
pub use datdot_proof::{
    head::{HeadError, Manifest, Root, SignedHead},
    tree::{Node, Roots},
};
/// Noise keys and connections, which [`Config`] and [`Network::attach`] take.
pub use datdot_wire as wire;
pub use encryption::Encryption;
pub use feed::{Change, Changed, Conflict, Evidence, Feed, FeedError, Info, Refused};
pub use key::{DiscoveryKey, FeedKey, Keypair, Namespace, PrimaryKey};
pub use limit::{Limit, Limits};
pub use network::{Config, ConnectError, Download, Ended, Network, PeerEvent, PeerInfo};
pub use peer::Fault;
pub use plan::{PeerId, Want};
pub use plans::Stopped;
pub use read::{ReadError, Reader, Tail};
pub use store::{Store, StoreError};
pub use view::View;
