//! What Hypercore replication and Hyperswarm share on the wire, from the bottom up:
//!
//! - [`encoding`]: how integers, buffers and arrays are written;
//! - [`mux`]: many channels over one stream.
//!
//! Everything but the TCP driver is without sockets, clock and dice: bytes go in, bytes and events come out.

pub mod encoding;
pub mod mux;
