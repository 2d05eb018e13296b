//! Hyperswarm: peers found by topic and reached by key, compatible with hyperdht 6 and hyperswarm 4 in JavaScript.
//!
//! - [`swarm`] keeps us connected with all who have a topic in common;
//! - [`connect`] reaches a peer by its key;
//! - [`dht`] finds peers;
//! - [`udx`] carries reliable streams over one UDP socket.

pub mod connect;
pub mod dht;
pub mod swarm;
pub mod udx;
