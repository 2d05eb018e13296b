//! Hyperdrives: folders as two feeds, compatible with npm's `hyperdrive` 13.
//!
//! ```text
//! metadata feed   a Hyperbee: path -> executable or link, and where the content is      names the drive
//! blobs feed      the contents, one after the other                                     derived from the other one's manifest
//! ```
//!
//! A [`Drive`] reads and writes what is in its store. What is not there yet, a [`datdot_hypercore::Network`] fetches: an
//! error says which block is missing ([`DriveError::missing`]), and [`fetch`] waits for it. [`import`] brings a drive up to a
//! folder, [`export`] a folder up to a drive.
//!
//! From the inside out: [`node`] is a block of the metadata, [`bee`] the tree in it, [`path`] and [`entry`] its keys and values,
//! [`blobs`] the contents, [`drive`] all together. Nothing here knows of the ledger.

pub mod bee;
pub mod blobs;
pub mod drive;
pub mod entry;
pub mod export;
pub mod fetch;
pub mod import;
mod leftover;
pub mod node;
pub mod path;
pub mod progress;

pub use bee::{Bee, BeeError};
pub use drive::{Drive, DriveError, Part, Version};
pub use entry::{Blob, Content, Entry};
pub use path::DrivePath;
