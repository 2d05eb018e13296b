//! Hyperswarm: peers found by topic and reached by key, compatible with hyperdht 6 and hyperswarm 4 in JavaScript.
//!
//! - [`dht`] finds peers;
//! - [`connect`] reaches them by their key;
//! - [`udx`] carries reliable streams over one UDP socket.

pub mod connect;
pub mod dht;
pub mod udx;
