#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`swarm`] keeps us connected with all who have a topic in common;
//! - [`connect`] reaches a peer by its key;
//! - [`dht`] finds peers;
//! - [`udx`] carries reliable streams over one UDP socket.

pub mod connect;
pub mod dht;
pub mod swarm;
pub mod udx;
