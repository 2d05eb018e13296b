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

/// What waits to be sent: full batches, and the one that is being filled.
#[derive(Debug, Default)]
pub(super) struct Output {
    full: VecDeque<Vec<u8>>,
    batch: Writer,
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
        let len = uint_len(kind) + parts.iter().map(|part| part.len()).sum::<usize>();
        let before = self.batch.len();
        if before > 0 && before + len > MAX_BATCH {
            self.full.push_back(std::mem::take(&mut self.batch).into_vec());
        }
        let before = self.batch.len();
        self.batch.reserve(len + 32);
        if self.batch.is_empty() {
            self.batch.uint(0).uint(BATCH).uint(channel);
        } else if self.channel != channel {
            self.batch.uint(0).uint(channel);
        }
        self.channel = channel;
        self.batch.uint(len as u64).uint(kind);
        for part in parts {
            self.batch.raw(part);
        }
        self.len += self.batch.len() - before;
    }

    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let frame = match self.full.pop_front() {
            Some(frame) => frame,
            None if self.batch.is_empty() => return None,
            None => std::mem::take(&mut self.batch).into_vec(),
        };
        self.len -= frame.len();
        Some(frame)
    }
}
