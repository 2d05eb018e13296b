//! Hypercore feeds: Merkle tree, signed heads, store and replication

pub mod key;
pub mod messages;
pub use key::{DiscoveryKey, FeedKey, Keypair};
