//! UDX: many reliable, ordered streams over one UDP socket, wire-compatible with libudx.

mod bbr;
pub mod header;
mod incoming;
mod mtu;
mod outgoing;
mod queue;
mod ranges;
mod rate;
mod rtt;
pub mod stream;

pub use outgoing::Sums;
