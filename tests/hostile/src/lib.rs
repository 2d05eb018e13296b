//! What hostile input must never do, said as code: the targets of fuzzing.
//!
//! Each module is one target: [`TARGETS`] lists them with what must hold. A target takes any bytes, makes of them what a
//! stranger could send or a disk could hold, and panics if a law is broken. It gives the same result for the same bytes, so that
//! a finding is a file: put into `fuzz/seeds`, it is tested for ever (`tests/seeds.rs`).
//!
//! Most targets don't send noise but begin with what an honest peer would say, and alter that: noise alone never gets past the
//! first check of a hash.

pub mod dht;
pub mod disk;
pub mod drive;
pub mod input;
mod library;
pub mod messages;
pub mod mux;
pub mod opening;
pub mod peer;
pub mod proof;
pub mod records;
mod scratch;
pub mod stream;
pub mod udx;

/// One target: takes any bytes and panics if its law is broken.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("dht", dht::run),
    ("disk", disk::run),
    ("drive", drive::run),
    ("messages", messages::run),
    ("mux", mux::run),
    ("opening", opening::run),
    ("peer", peer::run),
    ("proof", proof::run),
    ("records", records::run),
    ("stream", stream::run),
    ("udx", udx::run),
];
