//! Batches: received frames are cut into messages, messages to send are gathered into frames.

use super::{MAX_BATCH, MuxError};
use crate::encoding::{Reader, Writer, uint_len};
use bytes::Bytes;
use std::collections::VecDeque;

/// The kind of control message that holds others.
pub(super) const BATCH: u64 = 0;

/// Received frames, read message by message.
#[derive(Debug, Default)]
pub(super) struct Input {
    frames: VecDeque<Bytes>,
    batch: Option<Batch>,
}

#[derive(Debug)]
struct Batch {
    frame: Bytes,
    at: usize,
    channel: u64,
}

/// One message, under the number that its sender gave the channel.
pub(super) struct Message {
    pub(super) channel: u64,
    pub(super) kind: u64,
    pub(super) body: Bytes,
    pub(super) batched: bool,
}

impl Input {
    pub(super) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.frames.push_back(frame);
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Message>, MuxError> {
        loop {
            let Some(batch) = &mut self.batch else {
                let Some(frame) = self.frames.pop_front() else { return Ok(None) };
                let mut r = Reader::new(&frame);
                let (channel, kind) = (r.uint()?, r.uint()?);
                if (channel, kind) != (0, BATCH) {
                    let body = frame.slice_ref(r.rest());
                    return Ok(Some(Message { channel, kind, body, batched: false }));
                }
                let channel = r.uint()?;
                let at = frame.len() - r.remaining();
                self.batch = Some(Batch { frame, at, channel });
                continue;
            };
            let mut r = Reader::new(&batch.frame[batch.at..]);
            if r.is_empty() {
                self.batch = None;
                continue;
            }
            let message = r.buffer()?;
            if message.is_empty() {
                batch.channel = r.uint()?;
                batch.at = batch.frame.len() - r.remaining();
                continue;
            }
            batch.at = batch.frame.len() - r.remaining();
            let mut r = Reader::new(message);
            let kind = r.uint()?;
            let body = batch.frame.slice_ref(r.rest());
            return Ok(Some(Message { channel: batch.channel, kind, body, batched: true }));
        }
    }
}

/// A frame to send, in parts: large bodies are shared with whoever sent them, not copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    parts: Vec<Bytes>,
    len: usize,
}

impl Frame {
    /// Its bytes, one part after the other.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// How many bytes it has.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All its bytes in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.concat()
    }

    fn push(&mut self, part: Bytes) {
        self.len += part.len();
        self.parts.push(part);
    }
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Frame { len: bytes.len(), parts: vec![bytes] }
    }
}

/// What waits to be sent: full batches, and the one that is being filled.
#[derive(Debug, Default)]
pub(super) struct Output {
    full: VecDeque<Frame>,
    /// The batch that is being filled, up to its last shared part.
    batch: Frame,
    /// What came after that.
    open: Writer,
    channel: u64,
    /// Bytes in all of them.
    pub(super) len: usize,
}

impl Output {
    pub(super) fn push_control(&mut self, kind: u64, channel: u64) {
        let mut body = Writer::with_capacity(uint_len(channel));
        body.uint(channel);
        self.push(0, kind, &[body.as_slice()]);
    }

    pub(super) fn push(&mut self, channel: u64, kind: u64, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum();
        self.begin(channel, kind, len, len);
        for part in parts {
            self.open.raw(part);
        }
        self.len += len;
    }

    /// The same with a part in the middle that is not copied.
    pub(super) fn push_shared(&mut self, channel: u64, kind: u64, before: &[u8], shared: Bytes, after: &[u8]) {
        let len = before.len() + shared.len() + after.len();
        self.begin(channel, kind, len, before.len());
        self.open.raw(before);
        self.batch.push(std::mem::take(&mut self.open).into_vec().into());
        self.batch.push(shared);
        self.open.reserve(after.len() + 32);
        self.open.raw(after);
        self.len += len;
    }

    /// Writes what comes before a body of `len` bytes, of which `next` will be copied.
    fn begin(&mut self, channel: u64, kind: u64, len: usize, next: usize) {
        let len = uint_len(kind) + len;
        let filled = self.batch.len() + self.open.len();
        if filled > 0 && filled + len > MAX_BATCH {
            let frame = self.close();
            self.full.push_back(frame);
        }
        let before = self.open.len();
        self.open.reserve(next + 32);
        if self.batch.is_empty() && self.open.is_empty() {
            self.open.uint(0).uint(BATCH).uint(channel);
        } else if self.channel != channel {
            self.open.uint(0).uint(channel);
        }
        self.channel = channel;
        self.open.uint(len as u64).uint(kind);
        self.len += self.open.len() - before;
    }

    /// The batch that was being filled.
    fn close(&mut self) -> Frame {
        let mut frame = std::mem::take(&mut self.batch);
        if !self.open.is_empty() {
            frame.push(std::mem::take(&mut self.open).into_vec().into());
        }
        frame
    }

    pub(super) fn take(&mut self) -> Option<Frame> {
        let frame = match self.full.pop_front() {
            Some(frame) => frame,
            None => self.close(),
        };
        self.len -= frame.len();
        Some(frame).filter(|frame| !frame.is_empty())
    }
}
