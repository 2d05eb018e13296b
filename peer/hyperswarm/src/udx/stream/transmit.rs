//! What a stream sends next.

use super::{Path, Stream, Transmit};
use crate::udx::header::{Flags, Header, RANGE, encode_range};
use crate::udx::outgoing::Next;
use std::time::Instant;

/// What one transmission may have: the largest UDP payload, less a little.
const MOST_BYTES: usize = 65_000;

impl Stream {
    /// The next datagrams to send, at most `most` of them, appended to `out`. Call it until it returns `None`.
    pub fn transmit(&mut self, now: Instant, most: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        let path = self.path?;
        let begin = out.len();
        if std::mem::take(&mut self.destroy_due) {
            self.put_header(Flags::DESTROY, path, out);
        } else if self.ack_due && self.incoming.has_holes() {
            self.put_ack(path, out);
        } else if std::mem::take(&mut self.heartbeat_due) {
            self.put_header(Flags::HEARTBEAT, path, out);
            self.asked_at = now;
        } else if let Some(message) = self.outbox.pop_front() {
            self.put_header(Flags::MESSAGE, path, out);
            out.extend_from_slice(&message);
        } else if let Some(transmit) = self.transmit_data(now, most, out) {
            (self.sent_at, self.asked_at) = (now, now);
            return Some(transmit);
        } else if self.ack_due {
            self.put_ack(path, out);
        } else {
            return None;
        }
        self.sent_at = now;
        Some(Transmit { to: path.address, segment: out.len() - begin })
    }

    fn transmit_data(&mut self, now: Instant, most: usize, out: &mut Vec<u8>) -> Option<Transmit> {
        if self.closed().is_some() {
            return None;
        }
        let mut first: Option<(Path, usize)> = None;
        let begin = out.len();
        for _ in 0..most {
            let Some(next) = self.outgoing.next(now) else { break };
            let path = self.path_of(next.seq)?;
            if let Some((to, segment)) = first
                && (path != to || next.size > segment || out.len() - begin + next.size > MOST_BYTES)
            {
                break;
            }
            let (_, segment) = *first.get_or_insert((path, next.size));
            self.put_data(next, path, now, out);
            if next.size < segment {
                break;
            }
        }
        first.map(|(path, segment)| Transmit { to: path.address, segment })
    }

    fn path_of(&self, seq: u64) -> Option<Path> {
        match self.previous {
            Some((path, until)) if seq < until => Some(path),
            _ => self.path,
        }
    }

    fn put_data(&mut self, next: Next, path: Path, now: Instant, out: &mut Vec<u8>) {
        let (window, ack) = (self.incoming.window(), self.incoming.next_seq());
        let leaving = self.outgoing.send(next, now);
        let mut flags = if leaving.payload.is_empty() { Flags::default() } else { Flags::DATA };
        if leaving.end {
            flags = flags | Flags::END;
        }
        let (seq, ack, offset) = (leaving.seq as u32, ack as u32, leaving.padding);
        Header { flags, offset, stream: path.stream, window, seq, ack }.encode(out);
        out.resize(out.len() + usize::from(offset), 0);
        out.extend_from_slice(leaving.payload);
        self.told = window;
        if !self.incoming.has_holes() {
            self.acknowledged();
        }
    }

    fn acknowledged(&mut self) {
        (self.ack_due, self.unacked, self.ack_at) = (false, 0, None);
    }

    fn put_ack(&mut self, path: Path, out: &mut Vec<u8>) {
        self.acknowledged();
        // An address of which nothing was heard gets no more bytes than made us answer.
        if !self.incoming.has_holes() || !self.outgoing.is_path_proven() {
            return self.put_header(Flags::default(), path, out);
        }
        self.put_header(Flags::SACK, path, out);
        out.reserve(RANGE * 50);
        for range in self.incoming.arrived() {
            encode_range(range.start as u32, range.end as u32, out);
        }
    }

    /// The header of a packet without data: it has the number of the next one that will have some.
    fn put_header(&mut self, flags: Flags, path: Path, out: &mut Vec<u8>) {
        let (seq, ack, window) = (self.outgoing.next_seq(), self.incoming.next_seq(), self.incoming.window());
        self.told = window;
        Header { flags, offset: 0, stream: path.stream, window, seq: seq as u32, ack: ack as u32 }.encode(out);
    }
}
