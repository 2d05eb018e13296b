//! The sending half: packets in flight, what is acknowledged, and what may be sent next. [`loss`] finds what was lost.
//!
//! A packet keeps its number and its bytes for life; each transmission of it gets a number of its own, its order.
//! Orders say which transmission came first, however close in time, and `log` has them in that sequence. So the
//! transmissions that a later one has overtaken are at the front of the log, and finding the lost ones costs nothing
//! for those that are not.
//!
//! ```text
//!              una                                        nxt
//!   packets:    │ flying │ acked │ lost │ flying │ flying │  queue: bytes not yet in packets
//!   log:          17       ·       ·      19       20
//!   lost:                         (its retransmission will be 21)
//! ```

mod loss;

use super::bbr::Bbr;
use super::header::HEADER;
use super::memory::{Memory, Share};
use super::mtu::Mtu;
use super::queue::Queue;
use super::ranges::Ranges;
use super::rate::{Rate, Stamp};
use super::rtt::Rtt;
use bytes::Bytes;
use loss::{Rack, Tail};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most packets between the oldest unacknowledged one and the newest.
const MOST_PACKETS: u64 = 32_768;
/// Most bytes of them all, whatever window the remote claims to have, and whatever it says that has arrived.
const MOST_KEPT: usize = 16 << 20;
/// Timers are late by a millisecond or two, and by more on a busy machine: the pace makes up for so many seconds.
const LATE: f64 = 0.004;

/// Bytes that leave for an address which nothing was heard of: whoever forged it gets little out of us. Every second timeout
/// allows one more packet.
const UNPROVEN: u64 = 4_800;

/// What happened to a packet since it was sent last.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Flying,
    Lost,
    Acked,
}

#[derive(Debug)]
struct Sent {
    payload: Bytes,
    /// Bytes of the payload, which is let go when it is acknowledged.
    len: u16,
    end: bool,
    state: State,
    /// Which transmission the last one was.
    order: u64,
    at: Instant,
    stamp: Stamp,
    again: bool,
    timed_out: bool,
    /// Bytes of padding, if this is a probe of the MTU.
    padding: u8,
}

impl Sent {
    fn size(&self) -> u64 {
        (HEADER + self.payload.len()) as u64
    }
}

/// A packet that may leave now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Next {
    /// Bytes of the datagram.
    pub size: usize,
    /// The number of the packet.
    pub seq: u64,
    padding: u8,
    fresh: bool,
}

/// A packet that leaves.
#[derive(Debug)]
pub struct Leaving<'a> {
    /// The number of the packet.
    pub seq: u64,
    /// Its bytes.
    pub payload: &'a [u8],
    /// Whether the stream ends with it.
    pub end: bool,
    /// Bytes of padding in front of the payload.
    pub padding: u8,
}

/// Counts since the stream began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Packets with data sent, again or for the first time.
    pub sent: u64,
    /// Of them, those sent again.
    pub again: u64,
    /// Times that a timeout found nothing acknowledged.
    pub timeouts: u64,
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Outgoing {
    queue: Queue,
    end: End,
    una: u64,
    packets: VecDeque<Sent>,
    log: VecDeque<(u64, u64)>,
    lost: VecDeque<u64>,
    acked: Ranges,
    /// Packets in `acked`.
    acked_count: u64,
    newly_acked: Vec<u64>,
    orders: u64,
    in_flight: u64,
    in_flight_payload: u64,
    /// What the remote is ready to receive.
    window: u64,
    rtt: Rtt,
    rack: Rack,
    rate: Rate,
    bbr: Bbr,
    mtu: Mtu,
    /// Packets up to here were sent before the loss that is being repaired was noticed.
    recovery: Option<u64>,
    tail: Tail,
    /// Since when nothing was acknowledged, if something waits for it.
    waiting_since: Instant,
    /// Timeouts since then, and since the oldest packet is the oldest.
    timeouts: u32,
    stuck: u32,
    last_sent: Instant,
    /// What the pace allows to leave now.
    budget: f64,
    budget_at: Instant,
    /// The pace or the window was used up: a burst gathers.
    gathering: bool,
    /// Bytes that have left for an address of which nothing was heard.
    unproven: Option<u64>,
    /// Bytes of packets from the oldest that isn't acknowledged to the newest. Those among them that are acknowledged count
    /// as well: one that isn't keeps alive the piece that they were cut from.
    kept: usize,
    share: Share,
    sums: Sums,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Open,
    Queued,
    Sent,
}

impl Outgoing {
    /// Begins with packet number `first`; `window` is what the remote is believed to receive.
    pub fn new(now: Instant, first: u64, window: u64, memory: &Memory) -> Self {
        let mtu = Mtu::new(true);
        let bbr = Bbr::new(now, mtu.datagram());
        Outgoing {
            queue: Queue::default(),
            end: End::Open,
            una: first,
            packets: VecDeque::new(),
            log: VecDeque::new(),
            lost: VecDeque::new(),
            acked: Ranges::default(),
            acked_count: 0,
            newly_acked: Vec::new(),
            orders: 0,
            in_flight: 0,
            in_flight_payload: 0,
            window,
            rtt: Rtt::default(),
            rack: Rack::default(),
            rate: Rate::new(now),
            budget: bbr.burst() as f64,
            bbr,
            mtu,
            recovery: None,
            tail: Tail::Allowed,
            waiting_since: now,
            timeouts: 0,
            stuck: 0,
            last_sent: now,
            budget_at: now,
            gathering: false,
            unproven: Some(0),
            kept: 0,
            share: Share::of(memory),
            sums: Sums::default(),
        }
    }

    /// The number of the next new packet.
    pub fn next_seq(&self) -> u64 {
        self.una + self.packets.len() as u64
    }

    /// The oldest packet that is not acknowledged.
    pub fn una(&self) -> u64 {
        self.una
    }

    /// Bytes that are in no packet yet.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that the remote has not acknowledged, sent or not.
    pub fn left(&self) -> usize {
        self.kept + self.queue.len()
    }

    /// Whether nothing waits for an acknowledgement.
    pub fn is_quiet(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether something waits to be sent for the first time.
    pub fn has_news(&self) -> bool {
        !self.queue.is_empty() || self.end == End::Queued
    }

    /// Whether the end was sent and acknowledged.
    pub fn is_finished(&self) -> bool {
        self.end == End::Sent && self.packets.is_empty()
    }

    /// Whether all that is missing is the acknowledgement of the end.
    pub fn only_the_end_is_open(&self) -> bool {
        self.end == End::Sent && self.packets.iter().all(|packet| packet.state == State::Acked || packet.end)
    }

    /// Whether nothing more may be written.
    pub fn is_ending(&self) -> bool {
        self.end != End::Open
    }

    /// What is measured of the path.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Counts since the beginning.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The congestion control's view: bytes that may be in flight, and bytes a second.
    pub fn model(&self) -> (u64, f64) {
        (self.bbr.window(), self.bbr.rate())
    }

    /// Bytes of a full datagram on this path.
    pub fn datagram(&self) -> usize {
        self.mtu.datagram()
    }

    /// Drops all that was to be sent. An end that nobody has acknowledged by now is never acknowledged.
    pub fn clear(&mut self) {
        if !self.is_finished() {
            self.end = End::Queued;
        }
        let next = self.next_seq();
        self.queue.clear();
        self.packets = VecDeque::new();
        self.log = VecDeque::new();
        self.lost = VecDeque::new();
        self.una = next;
        (self.in_flight, self.in_flight_payload, self.kept) = (0, 0, 0);
        self.share.set(0);
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.end, End::Open);
        self.queue.push(bytes);
    }

    /// After what is queued, the stream ends.
    pub fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Queued;
        }
    }

    /// The path is another one from now on.
    pub fn change_path(&mut self, now: Instant, ipv4: bool) {
        self.mtu = Mtu::new(ipv4);
        self.bbr.on_new_path(now);
        self.bbr.set_packet(self.mtu.datagram());
    }

    /// Somebody is where our packets go.
    pub fn prove_path(&mut self) {
        self.unproven = None;
    }

    /// Whether anything was heard from there.
    pub fn is_path_proven(&self) -> bool {
        self.unproven.is_none()
    }

    /// Whether the next packet waits for the remote: for room, or for a word from where packets go.
    pub fn is_blocked(&self) -> bool {
        self.window == 0 || self.next_fresh().is_some_and(|next| !self.may_leave(next.size))
    }

    fn may_leave(&self, size: usize) -> bool {
        let most = UNPROVEN + u64::from(self.timeouts.div_ceil(2)) * self.mtu.datagram() as u64;
        self.unproven.is_none_or(|sent| sent + size as u64 <= most)
    }

    /// What the remote is ready to receive has changed.
    pub fn set_window(&mut self, window: u64) {
        self.window = window.min(MOST_KEPT as u64);
    }

    /// The packet to send now, if there is one and the path has room for it.
    pub fn next(&mut self, now: Instant) -> Option<Next> {
        self.wanted(now).filter(|next| self.may_leave(next.size))
    }

    fn wanted(&mut self, now: Instant) -> Option<Next> {
        if self.tail == Tail::Due {
            if let Some(next) = self.next_fresh() {
                return Some(next);
            }
            // The transmission that no other can overtake.
            let last = self.log.iter().rev().find_map(|&(seq, order)| Some((seq, self.flying(seq, order)?.size())));
            if let Some((seq, size)) = last {
                return Some(Next { size: size as usize, seq, padding: 0, fresh: false });
            }
            self.tail = Tail::Sent;
        }
        let next = self.next_lost().or_else(|| self.next_fresh());
        let Some(next) = next else {
            // If nothing is to be sent, or the remote takes less than the path holds, the path is not the limit.
            let idle = self.queue.is_empty() || self.window < self.bbr.path();
            if idle && self.in_flight < self.bbr.window() {
                self.rate.on_idle(self.in_flight);
            }
            return None;
        };
        self.gathering = self.wait_for(now, next.size).is_some();
        (!self.gathering).then_some(next)
    }

    fn next_lost(&mut self) -> Option<Next> {
        while let Some(&seq) = self.lost.front() {
            match self.packet(seq) {
                Some(packet) if packet.state == State::Lost => {
                    return Some(Next { size: packet.size() as usize, seq, padding: 0, fresh: false });
                }
                _ => self.lost.pop_front(),
            };
        }
        None
    }

    fn next_fresh(&self) -> Option<Next> {
        let full = self.mtu.datagram() - HEADER;
        let payload = self.queue.len().min(full);
        if (payload == 0 && self.end != End::Queued) || self.packets.len() as u64 >= MOST_PACKETS {
            return None;
        }
        // However small the window is, one packet may fill it; and an end takes no room.
        let fits = self.in_flight_payload + payload as u64 <= self.window || self.in_flight_payload == 0;
        let is_taken = payload == 0 || fits && self.window > 0;
        if !is_taken || self.kept + payload > MOST_KEPT || !self.share.has_room(payload) {
            return None;
        }
        let padding = match self.mtu.wanted() {
            Some(wanted) if payload == full => (wanted - HEADER - full).try_into().unwrap_or(0),
            _ => 0,
        };
        Some(Next { size: HEADER + usize::from(padding) + payload, seq: self.next_seq(), padding, fresh: true })
    }

    /// Sends what [`next`](Self::next) returned.
    pub fn send(&mut self, next: Next, now: Instant) -> Leaving<'_> {
        let alone = self.in_flight == 0;
        if alone {
            self.bbr.on_restart(now);
        }
        if self.packets.is_empty() {
            self.waiting_since = now;
        }
        let stamp = self.rate.on_send(now, alone);
        self.orders += 1;
        if next.fresh {
            let payload = self.queue.pop(next.size - HEADER - usize::from(next.padding));
            // An end has a packet of its own: if that is all that is open, no byte is.
            let end = payload.is_empty();
            if end {
                self.end = End::Sent;
            }
            if next.padding > 0 {
                self.mtu.on_probe();
            }
            self.kept += payload.len();
            self.share.set(self.kept);
            self.packets.push_back(Sent {
                len: payload.len() as u16,
                payload,
                end,
                state: State::Lost,
                order: 0,
                at: now,
                stamp,
                again: false,
                timed_out: false,
                padding: next.padding,
            });
        } else {
            self.sums.again += 1;
        }
        if self.tail == Tail::Due {
            self.tail = Tail::Sent;
        }
        let order = self.orders;
        self.log.push_back((next.seq, order));
        self.sums.sent += 1;
        self.last_sent = now;
        self.budget -= next.size as f64;
        if let Some(sent) = &mut self.unproven {
            *sent += next.size as u64;
        }
        let index = (next.seq - self.una) as usize;
        let packet = &mut self.packets[index];
        if packet.state == State::Lost {
            self.in_flight += packet.size();
            self.in_flight_payload += packet.payload.len() as u64;
        }
        if !next.fresh {
            packet.again = true;
            // Whatever became of the first one: this one is to arrive, and so has no padding.
            if std::mem::take(&mut packet.padding) > 0 {
                self.mtu.on_lost_probe();
            }
        }
        (packet.state, packet.order, packet.at, packet.stamp) = (State::Flying, order, now, stamp);
        Leaving { seq: next.seq, payload: &packet.payload, end: packet.end, padding: packet.padding }
    }

    /// Takes in an acknowledgement: all before `ack`, and the ranges. Numbers that were never sent are ignored.
    pub fn on_ack(&mut self, ack: u64, ranges: impl Iterator<Item = (u64, u64)>, now: Instant) {
        if self.packets.is_empty() || ack > self.next_seq() {
            return;
        }
        let mut newest = None;
        let mut any = false;
        if self.una < ack {
            self.stuck = 0;
        }
        while self.una < ack {
            let packet = self.packets.pop_front().expect("`ack` is at most one past the last packet");
            let seq = self.una;
            self.una += 1;
            self.kept -= usize::from(packet.len);
            match packet.state {
                State::Acked => self.acked_count -= 1,
                _ => {
                    any = true;
                    self.on_packet_acked(seq, packet, now, &mut newest);
                }
            }
        }
        self.acked.forget_below(self.una);
        let (una, next) = (self.una, self.next_seq());
        let mut new = std::mem::take(&mut self.newly_acked);
        for (start, end) in ranges {
            if una <= start && start < end && end <= next {
                self.acked.insert(start..end, |seq| new.push(seq));
            }
        }
        for seq in new.drain(..) {
            any = true;
            self.acked_count += 1;
            let packet = &mut self.packets[(seq - una) as usize];
            let acked = Sent { payload: std::mem::take(&mut packet.payload), ..*packet };
            packet.state = State::Acked;
            self.on_packet_acked(seq, acked, now, &mut newest);
        }
        self.newly_acked = new;
        self.share.set(self.kept);
        if !any {
            return;
        }
        if std::mem::take(&mut self.timeouts) > 0 {
            self.bbr.on_recovered();
        }
        self.waiting_since = now;
        if self.recovery.is_some_and(|end| self.una >= end) {
            self.recovery = None;
            self.rack.on_recovered();
        }
        let lost = self.detect_losses(now);
        let least = self.rtt.least().unwrap_or_default();
        if let Some(sample) = self.rate.sample(now, least) {
            self.bbr.on_ack(now, &sample, newest.map(|(_, rtt)| rtt), self.in_flight, lost);
        }
    }

    /// How long the next packet has to wait for the pace; for ever, if it waits for an acknowledgement.
    ///
    /// After a pause a burst gathers first: many packets in one system call, instead of one at each acknowledgement.
    fn wait_for(&mut self, now: Instant, size: usize) -> Option<Duration> {
        let (window, rate) = (self.bbr.window(), self.bbr.rate());
        let burst = self.bbr.burst().min(window / 4).max(size as u64);
        let wanted = if self.gathering && self.in_flight > 0 { burst } else { size as u64 };
        let elapsed = now.saturating_duration_since(self.budget_at).as_secs_f64();
        let most = (rate * LATE).max(2.0 * burst.max(self.bbr.burst()) as f64);
        self.budget = (self.budget + elapsed * rate).min(most);
        self.budget_at = now;
        if self.in_flight + wanted > window {
            return Some(Duration::MAX);
        }
        let missing = wanted as f64 - self.budget;
        (missing > 0.0).then(|| Duration::from_secs_f64((missing / rate).clamp(1e-6, 1.0)))
    }

    /// When the pace allows the next burst, if that is what is waited for.
    fn paced(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next_lost().or_else(|| self.next_fresh()).filter(|next| self.may_leave(next.size))?;
        now.checked_add(self.wait_for(now, next.size)?)
    }

    /// The packet, if this transmission of it is its last, and neither acknowledged nor lost.
    fn flying(&self, seq: u64, order: u64) -> Option<&Sent> {
        self.packet(seq).filter(|packet| packet.order == order && packet.state == State::Flying)
    }

    fn packet(&self, seq: u64) -> Option<&Sent> {
        self.packets.get(usize::try_from(seq.checked_sub(self.una)?).ok()?)
    }
}
