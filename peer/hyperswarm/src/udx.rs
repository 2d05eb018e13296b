//! UDX: many reliable, ordered streams over one UDP socket, wire-compatible with libudx.
