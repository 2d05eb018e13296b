//! Hypercore feeds: Merkle tree, signed heads, store and replication

pub mod blocks;
mod disk;
pub mod feed;
pub mod key;
pub mod messages;
pub mod network;
mod peer;
pub mod plan;
pub mod prove;
pub mod session;
pub mod store;
pub use feed::{Change, Changed, Feed, FeedError, Info, Refused};
pub use key::{DiscoveryKey, FeedKey, Keypair};
pub use network::{Config, ConnectError, Download, Ended, Network, PeerEvent, PeerInfo};
pub use peer::{Fault, Stopped};
pub use plan::Want;
pub use store::{Store, StoreError};
