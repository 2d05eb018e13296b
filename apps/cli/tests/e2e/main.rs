//! The main job and what can go wrong with it, with real processes: a ledger node, daemons, the command line, and
//! JavaScript peers.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bad_input;
#[cfg(feature = "node")]
mod dev;
mod docs;
mod drives;
mod interrupted;
mod life;
mod limits;
mod network;
mod process;
mod strangers;
mod swarm;
