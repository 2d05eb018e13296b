//! Hypercore feeds: Merkle tree, signed heads, store and replication
