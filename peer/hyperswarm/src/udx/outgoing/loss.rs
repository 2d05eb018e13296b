//! What was lost, and how that is noticed: overtaken packets, a silent tail, timeouts (RACK-TLP, RFC 8985).

use super::{Outgoing, Sent, State};
use std::time::{Duration, Instant};

/// If the oldest packet times out more often, the remote is gone. Where a packet in five is lost, each way, an exchange fails
/// with 0.36: thirteen in a row once in 500,000 times, seven once in 1,000.
const MOST_TIMEOUTS: u32 = 12;
/// How long a remote may hold back its acknowledgement.
const REMOTES_ACK_DELAY: Duration = Duration::from_millis(2);
/// Quarters of a round trip that are waited at most for a packet that was overtaken, and recoveries in a row, none of them for
/// nothing, after which it's one again (RFC 8985, section 6.2 step 4, which persists as long).
const MOST_PATIENCE: u32 = 16;
const CALM: u32 = 16;

/// The most recent of the transmissions that are known to have arrived.
#[derive(Debug, Default)]
pub(super) struct Rack {
    pub order: u64,
    rtt: Duration,
    /// One past the highest number acknowledged.
    highest: u64,
    /// A packet arrived after a later one, without having been sent again.
    reordering: bool,
    /// Packets were given up too early so many times: wait longer.
    patience: u32,
    /// Recoveries since then.
    calm: u32,
}

impl Rack {
    /// A packet was given up too early.
    fn be_patient(&mut self) {
        (self.patience, self.calm) = ((self.patience + 1).min(MOST_PATIENCE), 0);
    }

    /// All that was lost is repaired.
    pub fn on_recovered(&mut self) {
        self.calm += 1;
        if self.calm >= CALM {
            self.patience = 0;
        }
    }
}

/// A probe for a lost tail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tail {
    /// No probe since the last round trip was measured.
    Allowed,
    /// One is to leave.
    Due,
    /// One has left.
    Sent,
}

/// Nothing is heard of the remote any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Silent;

impl Outgoing {
    pub(super) fn on_packet_acked(
        &mut self,
        seq: u64,
        packet: Sent,
        now: Instant,
        newest: &mut Option<(u64, Duration)>,
    ) {
        if packet.state == State::Flying {
            self.in_flight -= packet.size();
            self.in_flight_payload -= packet.payload.len() as u64;
        }
        self.rate.on_acked(packet.size(), packet.stamp, packet.order, packet.at);
        self.mtu.on_acked(packet.padding > 0);
        self.bbr.set_packet(self.mtu.datagram());
        let rtt = now.saturating_duration_since(packet.at);
        if !packet.again {
            self.rtt.sample(rtt, now);
            if self.tail == Tail::Sent {
                self.tail = Tail::Allowed;
            }
        }
        // Too soon for the last transmission: it was an earlier one that arrived.
        let early = packet.again && self.rtt.least().is_some_and(|least| rtt < least);
        if early || (packet.state == State::Lost && !packet.timed_out) {
            self.rack.be_patient();
        }
        if !early {
            if newest.is_none_or(|(order, _)| packet.order > order) {
                *newest = Some((packet.order, rtt));
            }
            if packet.order > self.rack.order {
                (self.rack.order, self.rack.rtt) = (packet.order, rtt);
            }
        }
        if seq < self.rack.highest {
            self.rack.reordering |= !packet.again;
        } else {
            self.rack.highest = seq + 1;
        }
    }

    /// How much later than a later one a packet may arrive.
    fn reordering_window(&self) -> Duration {
        if !self.rack.reordering && (self.recovery.is_some() || self.acked_count >= 3) {
            return Duration::ZERO;
        }
        let quarter = self.rtt.least().unwrap_or_default() / 4;
        (quarter * (1 + self.rack.patience)).min(self.rtt.smooth().unwrap_or_default())
    }

    /// When the oldest transmission that was overtaken counts as lost.
    fn overtaken(&mut self) -> Option<(u64, Instant)> {
        while let Some(&(seq, order)) = self.log.front() {
            match self.flying(seq, order) {
                None => self.log.pop_front(),
                Some(_) if order >= self.rack.order => return None,
                Some(packet) => return Some((seq, packet.at + self.rack.rtt + self.reordering_window())),
            };
        }
        None
    }

    /// Marks as lost what was overtaken long enough ago; returns its bytes.
    pub(super) fn detect_losses(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some((seq, due)) = self.overtaken() {
            if due > now {
                break;
            }
            lost += self.mark_lost(seq);
        }
        if lost > 0 && self.recovery.is_none() {
            self.recovery = Some(self.next_seq());
        }
        lost
    }

    fn mark_lost(&mut self, seq: u64) -> u64 {
        let index = (seq - self.una) as usize;
        let packet = &mut self.packets[index];
        let size = packet.size();
        packet.state = State::Lost;
        self.in_flight -= size;
        self.in_flight_payload -= packet.payload.len() as u64;
        self.lost.push_back(seq);
        if std::mem::take(&mut packet.padding) > 0 {
            self.mtu.on_lost_probe();
            return 0; // The size was too large: that is no congestion.
        }
        size
    }

    /// When something happens by itself: a loss is noticed, the tail is probed, a packet times out, the pace allows more.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let paced = self.paced(now);
        if self.packets.is_empty() {
            return paced;
        }
        let overtaken = self.overtaken().map(|(_, due)| due);
        [overtaken, self.tail_probe(), Some(self.timeout()), paced].into_iter().flatten().min()
    }

    fn timeout(&self) -> Instant {
        self.waiting_since + self.rtt.timeout()
    }

    /// When to probe. While a transmission waits to be found lost, that is enough; RFC 8985 never probes during repairs, and
    /// so needs a timeout when the last repair is lost.
    fn tail_probe(&mut self) -> Option<Instant> {
        let wanted = self.tail == Tail::Allowed && self.timeouts == 0 && self.overtaken().is_none();
        wanted.then(|| {
            let rtt = self.rtt.smooth().unwrap_or(Duration::from_millis(500));
            (self.last_sent + 2 * rtt + REMOTES_ACK_DELAY).min(self.timeout())
        })
    }

    /// Does what is due.
    pub fn on_deadline(&mut self, now: Instant) -> Result<(), Silent> {
        if self.packets.is_empty() {
            return Ok(());
        }
        self.detect_losses(now);
        if self.timeout() <= now {
            return self.on_timeout(now);
        }
        if self.tail_probe().is_some_and(|due| due <= now) {
            self.tail = Tail::Due;
        }
        Ok(())
    }

    fn on_timeout(&mut self, now: Instant) -> Result<(), Silent> {
        self.sums.timeouts += 1;
        self.timeouts += 1;
        self.stuck += 1;
        // Whatever the remote says of later packets: who has the oldest would have told the next number.
        if self.stuck > MOST_TIMEOUTS {
            return Err(Silent);
        }
        self.waiting_since = now;
        self.tail = Tail::Sent;
        self.recovery = Some(self.next_seq());
        let late = self.rack.rtt + self.reordering_window();
        for seq in self.una..self.next_seq() {
            let packet = &mut self.packets[(seq - self.una) as usize];
            let is_late = seq == self.una || packet.at + late <= now;
            if packet.state == State::Acked || !is_late {
                continue;
            }
            packet.timed_out = true;
            if packet.state == State::Flying {
                self.mark_lost(seq);
            }
        }
        self.lost.make_contiguous().sort_unstable();
        self.bbr.on_timeout(self.in_flight);
        Ok(())
    }
}
