//! Batches: received frames are cut into messages, messages to send are gathered into frames.

use super::{MAX_BATCH, MuxError};
use crate::encoding::{Reader, Writer, uint_len};
use bytes::Bytes;
use std::collections::VecDeque;

/// The kind of control message that holds others.
pub(super) const BATCH: u64 = 0;

/// What is as large as this is not copied.
const LARGE: usize = 4 << 10;

/// Received frames, read message by message.
#[derive(Debug, Default)]
pub(super) struct Input {
    frames: VecDeque<Bytes>,
    batch: Option<Batch>,
    /// All of it is a copy.
    copied: bool,
}

#[derive(Debug)]
struct Batch {
    frame: Bytes,
    at: usize,
    channel: u64,
}

/// A part of what was received.
pub(super) enum Part {
    Message(Message),
    /// What follows is of another channel.
    Channel,
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
            self.copied = false;
        }
    }

    /// Keeps a copy of what was not read, and no frame.
    pub(super) fn copy(&mut self) {
        if std::mem::replace(&mut self.copied, true) {
            return;
        }
        if let Some(batch) = &mut self.batch {
            batch.frame = Bytes::copy_from_slice(&batch.frame[batch.at..]);
            batch.at = 0;
        }
        self.frames.iter_mut().for_each(|frame| *frame = Bytes::copy_from_slice(frame));
    }

    /// Bytes that were not read.
    pub(super) fn len(&self) -> usize {
        let begun = self.batch.as_ref().map_or(0, |batch| batch.frame.len() - batch.at);
        begun + self.frames.iter().map(Bytes::len).sum::<usize>()
    }

    pub(super) fn next(&mut self) -> Result<Option<Part>, MuxError> {
        loop {
            let Some(batch) = &mut self.batch else {
                let Some(frame) = self.frames.pop_front() else { return Ok(None) };
                let mut r = Reader::new(&frame);
                let (channel, kind) = (r.uint()?, r.uint()?);
                if (channel, kind) != (0, BATCH) {
                    let body = frame.slice_ref(r.rest());
                    return Ok(Some(Part::Message(Message { channel, kind, body, batched: false })));
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
                return Ok(Some(Part::Channel));
            }
            batch.at = batch.frame.len() - r.remaining();
            let mut r = Reader::new(message);
            let kind = r.uint()?;
            let body = batch.frame.slice_ref(r.rest());
            return Ok(Some(Part::Message(Message { channel: batch.channel, kind, body, batched: true })));
        }
    }
}

/// A frame for the remote. Large parts of it were not copied: they belong into the rest at these places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    rest: Writer,
    large: Vec<(usize, Bytes)>,
    len: usize,
}

impl Frame {
    /// Its bytes, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let rest = self.rest.as_slice();
        let ends = self.large.iter().map(|(at, _)| *at).chain([rest.len()]);
        let starts = [0].into_iter().chain(self.large.iter().map(|(at, _)| *at));
        let mut large = self.large.iter();
        starts
            .zip(ends)
            .flat_map(move |(start, end)| [Some(&rest[start..end]), large.next().map(|(_, part)| &part[..])])
            .flatten()
    }

    /// How many bytes it has.
    #[allow(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl From<Frame> for Vec<u8> {
    fn from(frame: Frame) -> Vec<u8> {
        match frame.large.is_empty() {
            true => frame.rest.into_vec(),
            false => frame.parts().collect::<Vec<_>>().concat(),
        }
    }
}

impl From<Frame> for Bytes {
    fn from(frame: Frame) -> Bytes {
        Vec::from(frame).into()
    }
}

/// What waits to be sent: full batches, and the one that is being filled.
#[derive(Debug, Default)]
pub(super) struct Output {
    full: VecDeque<Frame>,
    batch: Frame,
    channel: u64,
    /// Bytes in all of them.
    pub(super) len: usize,
}

impl Output {
    pub(super) fn push_control(&mut self, kind: u64, channel: u64) {
        let mut body = Writer::with_capacity(uint_len(channel));
        body.uint(channel);
        self.push(0, kind, body.as_slice(), (0, &Bytes::new()));
    }

    /// Queues a message: its body, with something large in between at a place.
    pub(super) fn push(&mut self, channel: u64, kind: u64, body: &[u8], (at, large): (usize, &Bytes)) {
        let len = uint_len(kind) + body.len() + large.len();
        if self.batch.len > 0 && self.batch.len + len > MAX_BATCH {
            self.full.push_back(std::mem::take(&mut self.batch));
        }
        let Frame { rest, large: places, len: total } = &mut self.batch;
        let before = rest.len();
        let copied = if large.len() < LARGE { len } else { len - large.len() };
        rest.reserve(copied + 32);
        if rest.is_empty() {
            rest.uint(0).uint(BATCH).uint(channel);
        } else if self.channel != channel {
            rest.uint(0).uint(channel);
        }
        self.channel = channel;
        rest.uint(len as u64).uint(kind).raw(&body[..at]);
        if copied == len {
            rest.raw(large);
        } else {
            places.push((rest.len(), large.clone()));
        }
        rest.raw(&body[at..]);
        let new = rest.len() - before + (len - copied);
        *total += new;
        self.len += new;
    }

    pub(super) fn take(&mut self) -> Option<Frame> {
        let frame = match self.full.pop_front() {
            Some(frame) => frame,
            None if self.batch.len == 0 => return None,
            None => std::mem::take(&mut self.batch),
        };
        self.len -= frame.len;
        Some(frame)
    }
}
