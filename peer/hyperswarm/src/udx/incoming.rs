//! The receiving half: puts packets in order, and says what has arrived and how much more may come.

use super::header::Flags;
use super::memory::{Memory, OWN, Share};
use super::queue::Queue;
use super::ranges::Ranges;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// A packet further ahead of the next one is not the remote's.
pub(super) const MOST_AHEAD: u64 = 32_768;
/// What a packet that waits for an earlier one costs besides its bytes.
const OVERHEAD: usize = 128;
/// Windows of bytes that are held at most. A packet that is lost three times is missing for three round trips, in each of
/// which a window arrives; if those behind it were dropped, they'd be lost as well.
const MOST_HELD: usize = 4;
/// No packet of an honest remote has more bytes.
const PACKET: usize = 1_500;
/// What an honest remote may send past the window.
const SLACK: usize = 64 << 10;
/// Most ranges in one acknowledgement: the oldest holes, and the newest arrivals.
const OLDEST: usize = 32;
const NEWEST: usize = 18;

#[derive(Debug)]
struct Ahead {
    payload: Bytes,
    end: bool,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Incoming {
    next: u64,
    ready: Queue,
    ahead: BTreeMap<u64, Ahead>,
    ahead_cost: usize,
    arrived: Ranges,
    ended: bool,
    /// Nobody will read: bytes are taken and dropped.
    unread: bool,
    limit: usize,
    share: Share,
}

impl Incoming {
    /// Expects packet number `next`. Up to `limit` bytes may wait to be read, and with those that wait for an earlier packet four times as many, unless all
    /// streams together hold too much.
    pub fn new(next: u64, limit: usize, memory: &Memory) -> Self {
        Incoming {
            next,
            ready: Queue::default(),
            ahead: BTreeMap::new(),
            ahead_cost: 0,
            arrived: Ranges::default(),
            ended: false,
            unread: false,
            limit,
            share: Share::of(memory),
        }
    }

    /// The number of the packet that is expected next.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        self.ready.len()
    }

    /// What is held for the remote's sake, all in all.
    pub fn held(&self) -> usize {
        self.ready.len() + self.ahead_cost
    }

    /// Whether the remote has ended the stream and all before that has arrived.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// How many bytes may come. What waits for an earlier packet is not counted: the sender counts it as in flight until
    /// it knows better, and would stall behind every hole if it were counted twice.
    pub fn window(&self) -> u32 {
        let room = self.limit.saturating_sub(self.ready.len()).min(self.room());
        // Where all memory is used up, what is too small for a packet is nothing: the remote would send one, and again.
        if self.room() < PACKET { 0 } else { room.try_into().unwrap_or(u32::MAX) }
    }

    /// How large the next packet may be to find room in the memory.
    fn room(&self) -> usize {
        let own = OWN.saturating_sub(self.ready.len());
        own.max(self.share.bound().saturating_sub(self.held()))
    }

    /// The largest window that there could be now.
    pub fn limit(&self) -> usize {
        self.limit.min(self.share.bound())
    }

    /// Takes in a packet with `DATA` or `END`. What is out of bounds is dropped, as if it had been lost on the way.
    pub fn accept(&mut self, seq: u64, flags: Flags, payload: &[u8]) {
        let payload = if flags.any(Flags::DATA) { payload } else { &[] };
        let end = flags.any(Flags::END);
        if self.ended || seq < self.next || seq - self.next > MOST_AHEAD {
            return;
        }
        if seq > self.next {
            let cost = payload.len() + OVERHEAD;
            let full = self.held() + cost > MOST_HELD * self.limit || !self.share.has_room(cost);
            if !full && !self.ahead.contains_key(&seq) {
                self.ahead_cost += cost;
                self.arrived.insert(seq..seq + 1, |_| ());
                self.ahead.insert(seq, Ahead { payload: Bytes::copy_from_slice(payload), end });
                self.share.set(self.held());
            }
            return;
        }
        // As long as there is room to read, the packet that fills the hole is welcome, whatever waits behind it.
        let full = self.ready.len() > self.limit && self.held() + payload.len() > MOST_HELD * self.limit + SLACK;
        if full || payload.len() > self.room() {
            return;
        }
        self.deliver(payload, end);
        while !self.ended
            && let Some(ahead) = self.ahead.remove(&self.next)
        {
            self.ahead_cost -= ahead.payload.len() + OVERHEAD;
            self.deliver(&ahead.payload, ahead.end);
        }
        self.arrived.forget_below(self.next);
        if self.ended {
            self.stop_waiting();
        }
        self.share.set(self.held());
    }

    fn deliver(&mut self, payload: &[u8], end: bool) {
        self.next += 1;
        self.ended = end;
        if !self.unread {
            self.ready.push(payload);
        }
    }

    /// Takes bytes from the front; returns how many.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.ready.read(buffer);
        self.share.set(self.held());
        count
    }

    /// Nobody will read any more.
    pub fn stop_reading(&mut self) {
        self.unread = true;
        self.ready.clear();
        self.share.set(self.held());
    }

    /// Whether anything arrived that an earlier packet is missing for.
    pub fn has_holes(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// What has arrived past the hole: the oldest ranges and the newest, ascending.
    pub fn arrived(&self) -> impl Iterator<Item = &Range<u64>> {
        let ranges = self.arrived.len();
        let newest = ranges.saturating_sub(NEWEST).max(OLDEST);
        self.arrived.iter().enumerate().filter(move |(n, _)| *n < OLDEST || *n >= newest).map(|(_, range)| range)
    }

    /// Nothing more will come: what waits for an earlier packet waits in vain.
    pub fn stop_waiting(&mut self) {
        self.ahead = BTreeMap::new();
        self.arrived = Ranges::default();
        self.ahead_cost = 0;
        self.share.set(self.held());
    }
}
