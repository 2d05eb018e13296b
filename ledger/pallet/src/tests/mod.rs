//! The pallet in a mock runtime: real money, real heads, real proofs over real bytes; only the VRF is a hash of the block's number.
//!
//! Every test ends with the invariants of `invariants.rs`, and so does every block of it.

mod faults;
mod laws;
mod life;
mod load;
mod refusals;
mod world;
