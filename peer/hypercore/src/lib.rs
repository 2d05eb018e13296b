//! Hypercore feeds: Merkle tree, signed heads, store and replication

pub mod blocks;
pub mod key;
pub mod messages;
pub mod prove;
pub use key::{DiscoveryKey, FeedKey, Keypair};
