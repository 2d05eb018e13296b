//! A connection as a stream of bytes, for what speaks over any: the bounds of its texts are lost.

use super::{Connection, ConnectionError, FrameReader, FrameWriter, WRITE_AT};
use crate::noise::PublicKey;
use bytes::Bytes;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is written at once goes in texts of at most so many bytes.
const LONGEST_TEXT: usize = 64 << 10;

type Next<R> = Pin<Box<dyn Future<Output = (FrameReader<R>, Result<Option<Bytes>, ConnectionError>)> + Send>>;

/// A connection whose bytes are read and written as those of any stream of tokio.
///
/// What doesn't fit into the stream below waits here, until something is written again, flushed or read. Reading keeps the
/// connection alive: an end that writes only has to read as well, or it's taken for gone after a minute. The end of the
/// stream is the remote's; if the connection breaks instead, reading fails.
pub struct ByteStream<R, W> {
    /// Whom we talk to.
    pub remote: PublicKey,
    /// What came and was not read.
    text: Bytes,
    /// What comes next; `None` after the end.
    next: Option<Next<R>>,
    writer: FrameWriter<W>,
    /// When we have been silent for so long that we say something.
    silent: Pin<Box<Sleep>>,
    /// Who waits to read and to write: whoever is woken because something can be written, both go on.
    waiting: [Option<Waker>; 2],
}

/// Who polls.
#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl<R, W> std::fmt::Debug for ByteStream<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStream").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Owns the reader while it waits: what it has begun to wait for would not be kept otherwise.
fn next<R: AsyncRead + Unpin + Send + 'static>(mut reader: FrameReader<R>) -> Next<R> {
    Box::pin(async move {
        let text = reader.next().await;
        (reader, text)
    })
}

impl<R: AsyncRead + Unpin + Send + 'static, W> From<Connection<R, W>> for ByteStream<R, W> {
    fn from(connection: Connection<R, W>) -> Self {
        ByteStream {
            remote: connection.remote,
            text: Bytes::new(),
            next: Some(next(connection.reader)),
            writer: connection.writer,
            silent: Box::pin(sleep_until(Instant::now())),
            waiting: [None, None],
        }
    }
}

impl<R, W: AsyncWrite + Unpin> ByteStream<R, W> {
    fn write_out(&mut self, side: Side, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.waiting[side as usize] = Some(cx.waker().clone());
        let waker = match &self.waiting {
            [Some(one), Some(other)] if !one.will_wake(other) => Arc::new(Both([one.clone(), other.clone()])).into(),
            _ => cx.waker().clone(),
        };
        let written = pin!(self.writer.flush()).poll(&mut Context::from_waker(&waker));
        if written.is_ready() {
            self.waiting = [None, None];
        }
        written
    }

    /// Says something if we were silent for long, and writes what waits.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.writer.queued() > 0 {
                match self.write_out(Side::Read, cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return Ok(()),
                }
            }
            let Some(interval) = self.writer.keep_alive else { return Ok(()) };
            let due = self.writer.last + interval;
            if self.silent.deadline() != due {
                self.silent.as_mut().reset(due);
            }
            if self.silent.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.writer.queue(b"").map_err(io::Error::other)?;
        }
    }
}

/// Wakes two tasks.
struct Both([Waker; 2]);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.0.iter().for_each(Waker::wake_by_ref);
    }
}

impl<R: AsyncRead + Unpin + Send + 'static, W: AsyncWrite + Unpin> AsyncRead for ByteStream<R, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.text.is_empty() {
            let Some(coming) = &mut self.next else { return Poll::Ready(Ok(())) };
            match coming.as_mut().poll(cx) {
                Poll::Ready((reader, Ok(Some(text)))) => {
                    self.text = text;
                    self.next = Some(next(reader));
                }
                Poll::Ready((_, over)) => {
                    self.next = None;
                    return Poll::Ready(over.map(drop).map_err(io::Error::from));
                }
                Poll::Pending => {
                    self.keep_alive(cx)?;
                    return Poll::Pending;
                }
            }
        }
        let count = self.text.len().min(buffer.remaining());
        buffer.put_slice(&self.text.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for ByteStream<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writer.queued() >= WRITE_AT {
            ready!(self.write_out(Side::Write, cx))?;
        }
        let text = &bytes[..bytes.len().min(LONGEST_TEXT)];
        if !text.is_empty() {
            self.writer.queue(text).map_err(io::Error::other)?;
            // What can't be written now waits.
            if let Poll::Ready(Err(error)) = self.write_out(Side::Write, cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(text.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_out(Side::Write, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(Side::Write, cx))?;
        Pin::new(&mut self.writer.io).poll_shutdown(cx)
    }
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> io::Error {
        match error {
            ConnectionError::Io(error) => error,
            ConnectionError::Silent | ConnectionError::SlowFrame => io::Error::new(io::ErrorKind::TimedOut, error),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
