#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! ```text
//! metadata feed   a Hyperbee: path -> executable or link, and where the content is      names the drive
//! blobs feed      the contents, one after the other                                     derived from the other one's manifest
//! ```
//!
//! A [`Drive`] reads and writes what is in its store. What is not there yet, a [`datdot_hypercore::Network`] fetches: an
//! error says which block is missing ([`DriveError::missing`]), and [`fetch`] waits for it.
//!
//! From the inside out: [`node`] is a block of the metadata, [`bee`] the tree in it, [`path`] and [`entry`] its keys and values,
//! [`blobs`] the contents, [`drive`] all together; [`write`](mod@write) changes a file, [`import`] brings a drive up to a folder,
//! [`export`] a folder up to a drive. Nothing here knows of the ledger.

#![warn(missing_debug_implementations)]

pub mod bee;
pub mod blobs;
pub mod drive;
pub mod entry;
pub mod export;
pub mod fetch;
pub mod import;
mod inside;
mod leftover;
pub mod node;
pub mod path;
pub mod progress;
pub mod write;

pub use bee::{Bee, BeeError};
/// The feeds that a drive is made of, as this crate takes and gives them.
pub use datdot_hypercore as hypercore;
pub use drive::{Drive, DriveError, Kind, Part, Version};
pub use entry::{Blob, Content, Entry};
pub use path::DrivePath;
