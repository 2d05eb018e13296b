//! UDX: many reliable, ordered streams over one UDP socket, wire-compatible with libudx.
//!
//! [`stream::Stream`] is the protocol, a state machine without I/O or clock. [`Udx`] and [`UdxSocket`] drive many of them
//! over UDP with tokio, and share the port with whoever speaks another protocol; a [`UdxStream`] is a reader and a
//! writer, as a TCP stream is. Ids, keys and addresses are agreed on elsewhere: UDX has no handshake.
//!
//! ```no_run
//! use datdot_hyperswarm::udx::{Config, Path, Udx};
//! use tokio::io::AsyncWriteExt;
//! # async fn greet(remote: Path) -> Result<(), Box<dyn std::error::Error>> {
//! let udx = Udx::new();
//! let (socket, _others) = udx.bind("0.0.0.0:0".parse()?).await?;
//! let mut stream = socket.connect(&udx, 0x1234_5678, remote, Config::default())?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?; // the remote has it all
//! # Ok(())
//! # }
//! ```
//!
//! `docs/hyperswarm.md` explains the protocol. From the wire up: [`header`] is the packet, `outgoing` and `incoming` are
//! the halves of a stream, of which `rtt`, `rate`, `bbr` and `mtu` measure the path; `driver` moves datagrams.

mod bbr;
mod driver;
pub mod header;
mod incoming;
mod io;
mod letter;
mod memory;
mod mtu;
mod outgoing;
mod queue;
mod ranges;
mod rate;
mod rtt;
mod shared;
mod socket;
pub mod stream;

pub use io::{Pending, ReadHalf, UdxHandle, UdxStream, WriteHalf};
pub use letter::Letter;
pub use memory::Memory;
pub use outgoing::Sums;
pub use socket::{Datagram, IdInUse, Udx, UdxSocket};
pub use stream::{Closed, Config, Path, Stats, TooLong};
