//! The driver: one encrypted connection over a byte stream of tokio, as TCP gives it.
//!
//! A connection has two halves, which one task can drive or two:
//!
//! - [`FrameReader::next`] returns the texts that the remote sends, slices of a large read buffer. It can be cancelled.
//! - [`FrameWriter::queue`] encrypts into a buffer, [`FrameWriter::flush`] writes it. A flush can be cancelled and begun
//!   again, so that `select!` may wait for both halves. Never wait for the flush alone while the remote may do the same:
//!   keep reading, and answer less while [`FrameWriter::queued`] is large.
//! - [`FrameWriter::keep_alive`] sends an empty text whenever nothing was written for a while. JavaScript does so every
//!   5 s, and both sides drop empty texts.
//!
//! Memory: a frame may have 16 MiB, so 500 hostile connections could make a process hold 8 GB. Once [`SMALL_FRAME`] bytes
//! of a larger frame are here, it therefore waits for its share of a [`Budget`] that all connections have in common. Then its
//! buffer grows with what arrives, which must not be slower than so that all of it is here in time; and the share goes
//! with the text until the last slice of it is dropped.
//!
//! Who would rather have bytes than texts makes a [`ByteStream`] of it.

mod byte_stream;

pub use byte_stream::ByteStream;

use crate::mux::{Frame, MAX_BATCH};
use crate::noise::{Handshake, HandshakeError, Keypair, PublicKey, Role, Session};
use crate::secret_stream::{HEADER, MAX_FRAME, NONCE, Pull, Push, StreamError, get_length, put_length};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Frames up to this many bytes need no share of the [`Budget`]: all batches but those of one large message.
pub const SMALL_FRAME: usize = MAX_BATCH + (1 << 10);

/// A large frame arrives in so many parts, each in its part of [`Options::frame`]: for each that is here, the next has time.
const PARTS: u32 = 12;

/// [`FrameWriter::send`] writes as soon as this many bytes are queued.
const WRITE_AT: usize = 256 << 10;

/// Who has not listened for so long can't tell silence from what it didn't hear.
const LISTENS: Duration = Duration::from_secs(2);

/// Empty texts are skipped until they have so many bytes.
const MOST_EMPTY: usize = 64 << 10;

const SMALLEST_READ: usize = 4 << 10;
const LARGEST_READ: usize = 256 << 10;

/// Longest frame of a handshake. Its messages have at most 112 bytes, and who sends them is not known yet.
const MAX_HANDSHAKE_FRAME: usize = 1 << 10;

/// How a connection behaves. Clone one for all connections: the budget is shared by the clones.
#[derive(Debug, Clone)]
pub struct Options {
    /// Send an empty text after this much silence of our own. Default: 5 s, as JavaScript.
    pub keep_alive: Option<Duration>,
    /// Drop a remote that is silent for this long. Default: 60 s. A remote that sends no keep-alives needs `None`.
    pub silence: Option<Duration>,
    /// Longest duration of the handshake. Default: 10 s.
    pub handshake: Duration,
    /// Longest time from the first byte of a frame to its last, without what it waits for memory. Default: 60 s.
    pub frame: Duration,
    /// What large frames may take together (twice as much at worst, while their buffers grow). Default: 64 MiB.
    pub budget: Budget,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            keep_alive: Some(Duration::from_secs(5)),
            silence: Some(Duration::from_secs(60)),
            handshake: Duration::from_secs(10),
            frame: Duration::from_secs(60),
            budget: Budget::new(64 << 20),
        }
    }
}

/// Memory for large frames, shared by all connections that hold a clone. Who comes first is served first.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of so many bytes, at least one largest frame.
    pub fn new(bytes: usize) -> Self {
        Budget(Arc::new(Semaphore::new(Self::units(bytes.max(MAX_FRAME)) as usize)))
    }

    /// Bytes that no frame has taken.
    pub fn available(&self) -> usize {
        self.0.available_permits() << 10
    }

    async fn take(self, frame: usize) -> OwnedSemaphorePermit {
        self.0.acquire_many_owned(Self::units(frame)).await.expect("the semaphore is never closed")
    }

    fn units(bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX >> 3)
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed, or ended inside a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The remote could not prove who it is.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The remote broke the encrypted stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The handshake took longer than [`Options::handshake`].
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// Nothing came for [`Options::silence`].
    #[error("the remote has fallen silent")]
    Silent,
    /// A frame took longer than [`Options::frame`].
    #[error("the remote did not finish a frame in time")]
    SlowFrame,
    /// A frame of the handshake is longer than any needs to be.
    #[error("a handshake frame of {0} bytes")]
    LongHandshake(usize),
}

/// An encrypted connection with a proven remote.
#[derive(Debug)]
pub struct Connection<R, W> {
    /// Who began.
    pub role: Role,
    /// Whom we talk to.
    pub remote: PublicKey,
    /// Unique to this connection, the same on both sides.
    pub handshake_hash: [u8; 64],
    /// What the remote sends.
    pub reader: FrameReader<R>,
    /// What we send.
    pub writer: FrameWriter<W>,
}

/// A connection over TCP.
pub type TcpConnection = Connection<OwnedReadHalf, OwnedWriteHalf>;

/// Shakes hands as the one who called. `expected` refuses anybody else.
pub async fn connect(
    stream: TcpStream,
    keys: &Keypair,
    expected: Option<PublicKey>,
    options: &Options,
) -> Result<TcpConnection, ConnectionError> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Connection::handshake(reader, writer, Role::Initiator, keys, expected, options).await
}

/// Shakes hands as the one who was called.
pub async fn accept(stream: TcpStream, keys: &Keypair, options: &Options) -> Result<TcpConnection, ConnectionError> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Connection::handshake(reader, writer, Role::Responder, keys, None, options).await
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// Proves keys by Noise XX over any byte stream, then begins the encrypted streams.
    pub async fn handshake(
        reader: R,
        writer: W,
        role: Role,
        keys: &Keypair,
        expected: Option<PublicKey>,
        options: &Options,
    ) -> Result<Self, ConnectionError> {
        let noise = Handshake::xx(role, keys, expected, &random()?);
        let frames = Frames::new(reader, options);
        timeout(options.handshake, shake_hands(frames, writer, Some(noise), None, options))
            .await
            .map_err(|_| ConnectionError::HandshakeTimeout)?
    }

    /// Begins the encrypted streams of a session whose Noise messages went another way, as HyperDHT does it.
    pub async fn resume(reader: R, writer: W, session: Session, options: &Options) -> Result<Self, ConnectionError> {
        let frames = Frames::new(reader, options);
        timeout(options.handshake, shake_hands(frames, writer, None, Some(session), options))
            .await
            .map_err(|_| ConnectionError::HandshakeTimeout)?
    }
}

async fn shake_hands<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut frames: Frames<R>,
    mut io: W,
    noise: Option<Handshake>,
    session: Option<Session>,
    options: &Options,
) -> Result<Connection<R, W>, ConnectionError> {
    let mut out = Vec::new();
    let session = match (noise, session) {
        (Some(mut noise), _) => {
            while !noise.is_complete() {
                if noise.is_our_turn() {
                    let message = noise.write(b"")?;
                    put_length(message.len(), &mut out);
                    out.extend(message);
                } else {
                    io.write_all(&std::mem::take(&mut out)).await?;
                    io.flush().await?;
                    noise.read(&frames.handshake_frame().await?)?;
                }
            }
            noise.finish()?
        }
        (None, Some(session)) => session,
        (None, None) => unreachable!("both callers give one of them"),
    };
    let (push, header) = Push::new(&session, &random()?);
    put_length(HEADER, &mut out);
    out.extend(header);
    io.write_all(&out).await?;
    io.flush().await?;
    let pull = Pull::new(&session, &frames.handshake_frame().await?)?;
    out.clear();
    Ok(Connection {
        role: session.role,
        remote: session.remote,
        handshake_hash: session.hash,
        reader: FrameReader { frames, pull, came: 0 },
        writer: FrameWriter { io, push, out, written: 0, keep_alive: options.keep_alive, last: Instant::now() },
    })
}

/// The half that receives.
#[derive(Debug)]
pub struct FrameReader<R> {
    frames: Frames<R>,
    pull: Pull,
    /// Bytes that came since a text was returned.
    came: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// The next text that is not empty; `None` when the remote ended the connection between two frames.
    ///
    /// The text shares memory with others that arrived with it, and has its share of the budget until all slices of it are
    /// dropped: copy what you keep. May be cancelled without loss. After an error drop the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        loop {
            match self.next_counted().await? {
                Some((text, _)) if text.is_empty() => {}
                text => return Ok(text.map(|(text, _)| text)),
            }
        }
    }

    /// The same with the bytes that came for it, those of empty texts before it too; and if there is nothing else in many
    /// bytes, an empty text: for who counts what a remote sends.
    pub async fn next_counted(&mut self) -> Result<Option<(Bytes, usize)>, ConnectionError> {
        while let Some((frame, share)) = self.frames.next(MAX_FRAME).await? {
            self.came += 3 + frame.len();
            let text = self.pull.pull(frame)?;
            if !text.is_empty() || self.came >= MOST_EMPTY {
                let text = match share {
                    None => text,
                    Some(share) => Bytes::from_owner(Large { text, _share: share }),
                };
                return Ok(Some((text, std::mem::take(&mut self.came))));
            }
        }
        Ok(None)
    }

    /// Whether a frame that is here in part has a share of the budget: who has one should go on calling [`Self::next`], since
    /// others wait for it.
    pub fn has_share(&self) -> bool {
        self.frames.share.is_some()
    }

    /// Leaves the queue for a share of the budget, where others wait behind: for who does not call [`Self::next`] for a while.
    pub fn leave_queue(&mut self) {
        self.frames.waiting = None;
    }
}

/// A text with its share of the budget.
struct Large {
    text: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    push: Push,
    out: Vec<u8>,
    /// How much of `out` was written.
    written: usize,
    keep_alive: Option<Duration>,
    last: Instant,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Encrypts a text into the buffer.
    pub fn queue(&mut self, text: &[u8]) -> Result<(), StreamError> {
        self.let_go();
        self.push.push(text, &mut self.out)
    }

    /// The same for a text that is in several places.
    pub fn queue_frame(&mut self, frame: &Frame) -> Result<(), StreamError> {
        self.let_go();
        self.push.push_parts(frame.len(), frame.parts(), &mut self.out)
    }

    fn let_go(&mut self) {
        // A busy writer may never be done: what was written goes as soon as it is the larger part.
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
            let held = self.out.capacity();
            if held > 4 * WRITE_AT && self.out.len() < held / 4 {
                self.out.shrink_to(2 * WRITE_AT);
            }
        }
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes all that is queued. If it is cancelled, the next flush goes on where it was.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            let written = self.io.write(&self.out[self.written..]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written += written;
            self.last = Instant::now();
        }
        if self.written > 0 {
            // First, so that a flush that was cancelled here is done by the next one.
            self.io.flush().await?;
            self.out.clear();
            // One large answer must not cost its memory for ever.
            self.out.shrink_to(2 * WRITE_AT);
            self.written = 0;
        }
        Ok(())
    }

    /// Queues a text and writes once much has gathered; [`flush`](Self::flush) after the last one.
    pub async fn send(&mut self, text: &[u8]) -> Result<(), ConnectionError> {
        self.queue(text)?;
        if self.queued() >= WRITE_AT {
            self.flush().await?;
        }
        Ok(())
    }

    /// Keeps the connection alive for as long as it is polled; returns only when writing fails.
    pub async fn keep_alive(&mut self) -> Result<(), ConnectionError> {
        let Some(interval) = self.keep_alive else { return pending().await };
        loop {
            sleep_until(self.last + interval).await;
            if self.queued() == 0 {
                self.queue(b"")?;
            }
            self.flush().await?;
        }
    }

    /// Writes what is queued, then tells the remote that nothing more will come.
    pub async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        self.io.shutdown().await
    }
}

/// Cuts a byte stream into frames.
struct Frames<R> {
    io: R,
    buffer: BytesMut,
    /// How much the next read may take: grows with a busy remote, so that an idle one holds little.
    read: usize,
    /// When the frame began of which a part is here.
    begun: Option<Instant>,
    /// The share of the frame that is here in part.
    share: Option<OwnedSemaphorePermit>,
    /// Waits for that share; kept, so that a cancelled call does not lose its place.
    waiting: Option<Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>>,
    budget: Budget,
    silence: Option<Duration>,
    /// Since when nothing came.
    quiet: Option<Instant>,
    frame: Duration,
    /// When we listened last: a read is often cancelled and begun anew.
    listened: Option<Instant>,
}

/// Notes until when we listen, however that ends.
struct Listening<'a>(&'a mut Option<Instant>);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.0 = Some(Instant::now());
    }
}

impl<R> std::fmt::Debug for Frames<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(io: R, options: &Options) -> Self {
        Frames {
            io,
            buffer: BytesMut::new(),
            read: SMALLEST_READ,
            begun: None,
            share: None,
            waiting: None,
            budget: options.budget.clone(),
            silence: options.silence,
            quiet: None,
            frame: options.frame,
            listened: None,
        }
    }

    async fn handshake_frame(&mut self) -> Result<BytesMut, ConnectionError> {
        let frame = self.next(MAX_HANDSHAKE_FRAME).await?;
        Ok(frame.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?.0)
    }

    /// The next frame without its length, and its share of the budget if it is large; or `None` at the end of the stream.
    async fn next(&mut self, max: usize) -> Result<Option<(BytesMut, Option<OwnedSemaphorePermit>)>, ConnectionError> {
        loop {
            let (mut missing, mut len) = (3, 0);
            if let Some(length) = self.buffer.first_chunk::<3>() {
                len = get_length(*length);
                if len > max {
                    return Err(ConnectionError::LongHandshake(len));
                }
                // So far it is no larger than a small one; and who only says that it will be large takes no place.
                if len > SMALL_FRAME && self.buffer.len() >= SMALL_FRAME && self.share.is_none() {
                    let budget = self.budget.clone();
                    let waiting = self.waiting.get_or_insert_with(|| Box::pin(budget.take(len)));
                    self.share = Some(waiting.await);
                    self.waiting = None;
                    self.begun = None;
                }
                if self.buffer.len() - 3 >= len {
                    self.buffer.advance(3);
                    self.begun = None;
                    let (frame, share) = (self.buffer.split_to(len), self.share.take());
                    if share.is_some() {
                        // What is here of the next frame would keep the memory of this one, whose share is given back.
                        self.buffer = BytesMut::from(&self.buffer[..]);
                    }
                    return Ok(Some((frame, share)));
                }
                missing = 3 + len - self.buffer.len();
            }
            let now = Instant::now();
            let deaf = self.listened.map_or(Duration::ZERO, |listened| now.duration_since(listened));
            if deaf > LISTENS {
                // What came meanwhile was only not heard.
                self.quiet = None;
                self.begun = self.begun.map(|begun| now.min(begun + deaf));
            }
            let slow = self.slow(len, now);
            if self.read_some(missing, slow).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    /// Until when more has to come of the frame that is here in part.
    fn slow(&mut self, len: usize, now: Instant) -> Option<Instant> {
        if self.buffer.is_empty() {
            return None;
        }
        let begun = *self.begun.get_or_insert(now);
        let parts = match self.share {
            None => PARTS,
            Some(_) => (self.buffer.len() as u64 * u64::from(PARTS) / len.max(1) as u64) as u32 + 1,
        };
        Some(begun + self.frame * parts.min(PARTS) / PARTS)
    }

    /// Reads once, with room for what the frame still needs but never for much more than has come already.
    async fn read_some(&mut self, missing: usize, slow: Option<Instant>) -> Result<usize, ConnectionError> {
        let arrived = self.buffer.len();
        if arrived == 0 && self.read == SMALLEST_READ {
            // Let go of what a busier time has left.
            self.buffer = BytesMut::new();
        }
        let room = missing.min(arrived);
        // What frames share can't grow: what has arrived of the next one is copied then, so not for each short read.
        if self.buffer.capacity() - arrived < room.max(self.read / 4) {
            self.buffer.reserve(room.max(self.read));
        }

        let since = *self.quiet.get_or_insert_with(Instant::now);
        let silent = self.silence.map(|silence| since + silence);
        let listening = Listening(&mut self.listened);
        // There may be more room, up to what has come of a large frame: what comes after that has no share.
        let mut room = (&mut self.buffer).limit(missing.max(self.read));
        let read = self.io.read_buf(&mut room);
        let count = match (silent, slow) {
            (None, None) => read.await?,
            (Some(silent), Some(slow)) if slow < silent => {
                timeout_at(slow, read).await.map_err(|_| ConnectionError::SlowFrame)??
            }
            (None, Some(slow)) => timeout_at(slow, read).await.map_err(|_| ConnectionError::SlowFrame)??,
            (Some(silent), _) => timeout_at(silent, read).await.map_err(|_| ConnectionError::Silent)??,
        };
        drop(listening);
        self.quiet = None;
        if count >= self.read {
            self.read = (2 * self.read).min(LARGEST_READ);
        } else if count < self.read / 4 {
            self.read = (self.read / 2).max(SMALLEST_READ);
        }
        Ok(count)
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N == 32 || N == NONCE) };
    let mut bytes = [0; N];
    getrandom::getrandom(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
