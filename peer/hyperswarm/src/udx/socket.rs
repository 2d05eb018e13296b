//! Sockets: UDP ports that carry streams and, beside them, other datagrams.
//!
//! Each socket has one task, the driver, which alone receives and sends its packets. A stream is known to
//! all sockets of one [`Udx`]: it sends by one of them, but what arrives for it is heard on any, since the path of a
//! stream may change.

use super::driver::Driver;
use super::io::{Pending, UdxStream};
use super::letter::{self, LETTERS, Letter};
use super::shared::Shared;
use super::stream::{Config, Path, Stream};
use bytes::Bytes;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};

/// What the kernel may keep for us while we are busy. It may grant less.
const BUFFER: usize = 2 << 20;
/// Datagrams of other protocols that wait to be taken; later ones are dropped.
const WAITING: usize = 1024;

/// A datagram that is not UDX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, or who is said to have.
    pub from: SocketAddr,
    /// All of it.
    pub bytes: Bytes,
}

/// A stream's id that another one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream with the id {0} exists")]
pub struct IdInUse(pub u32);

/// The streams that a group of sockets has in common. A clone is the same group.
#[derive(Debug, Clone, Default)]
pub struct Udx {
    streams: Arc<Streams>,
}

/// Streams by our id.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<u32, Arc<Shared>>>);

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: u32) -> Option<Arc<Shared>> {
        self.lock().get(&id).cloned()
    }

    /// Forgets this stream, but no later one that was given its id.
    pub fn remove(&self, stream: &Arc<Shared>) {
        let mut streams = self.lock();
        if streams.get(&stream.id).is_some_and(|listed| Arc::ptr_eq(listed, stream)) {
            streams.remove(&stream.id);
        }
    }
}

impl Udx {
    /// A group without sockets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a UDP port and starts its driver on the current tokio runtime. What is not UDX arrives by the receiver.
    pub async fn bind(&self, address: SocketAddr) -> io::Result<(UdxSocket, mpsc::Receiver<Datagram>)> {
        let io = UdpSocket::bind(address).await?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        // Best effort: the system's limit may be lower.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), BUFFER);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&io), BUFFER);
        let address = io.local_addr()?;
        let (others, receiver) = mpsc::channel(WAITING);
        let port = Arc::new(Port {
            io,
            state,
            address,
            streams: self.streams.clone(),
            listed: Mutex::default(),
            wake: Notify::new(),
            users: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let socket = UdxSocket::of(port.clone());
        tokio::spawn(Driver::new(port, others).run());
        Ok((socket, receiver))
    }

    /// A stream that hears what arrives for its id, but sends nothing until it is connected. Choose ids at random: who
    /// does not know them can neither feed nor end a stream.
    pub fn stream(&self, id: u32, config: Config) -> Result<Pending, IdInUse> {
        let mut streams = self.streams.lock();
        if streams.contains_key(&id) {
            return Err(IdInUse(id));
        }
        let shared = Arc::new(Shared::new(id, Stream::new(config, Instant::now())));
        streams.insert(id, shared.clone());
        Ok(Pending::new(shared, self.streams.clone()))
    }
}

/// A UDP port. It closes when all its clones and all its streams are gone.
#[derive(Debug)]
pub struct UdxSocket {
    pub(super) port: Arc<Port>,
}

impl UdxSocket {
    pub(super) fn of(port: Arc<Port>) -> Self {
        port.users.fetch_add(1, Ordering::Relaxed);
        UdxSocket { port }
    }

    /// Where it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.port.address
    }

    /// A stream under our id `id`, connected at once.
    pub fn connect(&self, udx: &Udx, id: u32, to: Path, config: Config) -> Result<UdxStream, IdInUse> {
        Ok(udx.stream(id, config)?.connect(self, to, 0))
    }

    /// Sends a datagram of another protocol.
    pub async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let port = &self.port;
        port.io.async_io(Interest::WRITABLE, || port.send(bytes, to, None)).await
    }

    /// Sends datagrams of another protocol, many with a system call. Those that the kernel has no room for now are lost, as
    /// any datagram may be.
    pub fn send_all(&self, letters: &[Letter]) {
        letters.chunks(LETTERS).for_each(|some| letter::send(&self.port.io, some));
    }
}

impl Clone for UdxSocket {
    fn clone(&self) -> Self {
        UdxSocket::of(self.port.clone())
    }
}

impl Drop for UdxSocket {
    fn drop(&mut self) {
        if self.port.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.port.closing.store(true, Ordering::Release);
            self.port.wake.notify_one();
        }
    }
}

/// What the driver and the users of a socket share.
#[derive(Debug)]
pub(super) struct Port {
    pub io: UdpSocket,
    pub state: UdpSocketState,
    address: SocketAddr,
    pub streams: Arc<Streams>,
    /// Streams that have something to send, or to forget.
    listed: Mutex<Vec<Arc<Shared>>>,
    pub wake: Notify,
    users: AtomicUsize,
    closing: AtomicBool,
}

impl Port {
    /// Has the driver look at a stream soon.
    pub fn list(&self, stream: Arc<Shared>) {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        self.wake.notify_one();
    }

    /// Moves the list to the end of `into`.
    pub fn take_listed(&self, into: &mut Vec<Arc<Shared>>) {
        into.append(&mut self.listed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether nobody uses the socket any more.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) && self.users.load(Ordering::Acquire) == 0
    }

    /// Sends datagrams of `segment` bytes each, or one.
    pub fn send(&self, contents: &[u8], to: SocketAddr, segment: Option<usize>) -> io::Result<()> {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: segment, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}
