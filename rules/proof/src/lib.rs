//! What is true about data: Hypercore trees and signed heads, segments, challenges and storage proofs.
//!
//! The same code runs in three places: peers check blocks and make proofs with it, the runtime checks heads
//! and proofs with it, the simulator does both. So it is `no_std`, does no I/O, has no clock and no dice,
//! and no input from outside can make it panic or allocate more than it was bounded to.
//!
//! | module | question it answers |
//! |---|---|
//! | [`flat`] | where is a node in Hypercore's numbering? |
//! | [`tree`] | does this block belong under these roots? |
//! | [`head`] | did the author sign these roots? |
//! | [`segment`] | what is hosted, and what tree stands over its bytes? |
//! | [`outboard`] | which hashes are kept to open it quickly? |
//! | [`opening`] | does this chunk belong there? |
//! | [`challenge`] | which chunks must a hoster show? |
//! | [`proof`] | did it show them? |
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod challenge;
pub mod flat;
pub mod head;
pub mod opening;
pub mod outboard;
pub mod proof;
pub mod segment;
pub mod tree;

/// Output of BLAKE2b-256 or BLAKE3: what everything here is named by.
pub type Hash = [u8; 32];
