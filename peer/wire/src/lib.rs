//! What Hypercore replication and Hyperswarm share on the wire, from the bottom up:
//!
//! - [`encoding`]: how integers, buffers and arrays are written;
//! - [`noise`]: how two peers prove their keys and agree on a secret;
//! - [`secret_stream`]: frames encrypted with it;
//! - [`mux`]: many channels over one stream;
//! - [`connection`]: the driver for TCP.
//!
//! Everything but the driver is without sockets, clock and dice: bytes go in, bytes and events come out.

#[cfg(feature = "tokio")]
pub mod connection;
pub mod encoding;
pub mod mux;
pub mod noise;
pub mod secret_stream;
