//! Streams as tokio's readers and writers.

use super::shared::Shared;
use super::socket::{Streams, UdxSocket};
use super::stream::{Closed, Path, Stats, TooLong};
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is not connected: it hears, but says nothing. Dropped, it forgets what it heard.
#[derive(Debug)]
pub struct Pending {
    shared: Option<Arc<Shared>>,
    streams: Arc<Streams>,
}

impl Pending {
    pub(super) fn new(shared: Arc<Shared>, streams: Arc<Streams>) -> Self {
        Pending { shared: Some(shared), streams }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("only `connect` takes it, and consumes us")
    }

    /// Our id of the stream, for the remote to know.
    pub fn id(&self) -> u32 {
        self.shared().id
    }

    /// Where the first packet came from, and the socket it came in by. Who sends to our id has been told it.
    pub async fn heard(&self) -> (SocketAddr, UdxSocket) {
        let (address, port) = poll_fn(|context| self.shared().poll_heard(context)).await;
        (address, UdxSocket::of(port))
    }

    /// Sends by `socket` to `to` from now on. `first` is the number of the remote's first packet, mostly 0.
    pub fn connect(mut self, socket: &UdxSocket, to: Path, first: u32) -> UdxStream {
        let shared = self.shared.take().expect("it was there until now");
        shared.connect(socket.port.clone(), to, first);
        let handle = UdxHandle { shared, socket: socket.clone() };
        UdxStream { reader: ReadHalf(handle.clone()), writer: WriteHalf(handle) }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            self.streams.remove(shared);
        }
    }
}

/// A connected stream.
///
/// Shutting down its writer ends our half and waits until the remote has everything. Dropping a half ends it as well, but
/// waits for nothing: what was written is still sent, while the runtime lives.
#[derive(Debug)]
pub struct UdxStream {
    reader: ReadHalf,
    writer: WriteHalf,
}

impl UdxStream {
    /// The halves, for two tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.reader, self.writer)
    }

    /// What else can be done with the stream.
    pub fn handle(&self) -> UdxHandle {
        self.reader.0.clone()
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct ReadHalf(UdxHandle);

/// The half that writes.
#[derive(Debug)]
pub struct WriteHalf(UdxHandle);

impl ReadHalf {
    /// What else can be done with the stream.
    pub fn handle(&self) -> UdxHandle {
        self.0.clone()
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.shared.poll_read(cx, buffer)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.shared.poll_write(cx, bytes)
    }

    /// What was written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shared.poll_shutdown(cx)
    }
}

impl AsyncRead for UdxStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UdxStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.0.shared.stop_reading();
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.0.shared.finish();
    }
}

/// A stream's path, messages and end, apart from its bytes. Keeps the socket open, but not the stream.
#[derive(Debug, Clone)]
pub struct UdxHandle {
    shared: Arc<Shared>,
    socket: UdxSocket,
}

impl UdxHandle {
    /// Our id of the stream.
    pub fn id(&self) -> u32 {
        self.shared.id
    }

    /// Where its packets go.
    pub fn path(&self) -> Option<Path> {
        self.shared.path()
    }

    /// The socket that the stream was connected by.
    pub fn socket(&self) -> &UdxSocket {
        &self.socket
    }

    /// Ends the stream at once, in both directions; the remote is told, once.
    pub fn abort(&self) {
        self.shared.abort();
    }

    /// How the stream ended, when it has.
    pub async fn closed(&self) -> Closed {
        poll_fn(|context| self.shared.poll_closed(context)).await
    }

    /// Counts and estimates.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Sends new packets by `socket` to another address; returns when none is in flight on the old way.
    pub async fn change_path(&self, socket: &UdxSocket, to: Path) -> Result<(), Closed> {
        self.shared.change_path(socket.port.clone(), to);
        poll_fn(|context| self.shared.poll_path_changed(context)).await
    }

    /// Sends a message outside the stream, which may be lost.
    pub fn send_message(&self, message: Bytes) -> Result<(), TooLong> {
        self.shared.send_message(message)
    }

    /// The next message that the remote sent outside the stream.
    pub async fn message(&self) -> Result<Bytes, Closed> {
        poll_fn(|context| self.shared.poll_message(context)).await
    }
}
