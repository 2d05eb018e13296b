//! Hyperswarm: peers found by topic and reached by key, compatible with hyperdht 6 and hyperswarm 4 in JavaScript.
//!
//! [`udx`] carries reliable streams over one UDP socket.

pub mod udx;
