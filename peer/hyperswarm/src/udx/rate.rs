//! Delivery rate: how fast the path hands over what we send, measured at every acknowledgement.
//!
//! Each packet remembers how much had been delivered when it was sent. When it is acknowledged, the difference to
//! now, over the longer of the time it took to send and the time it took to acknowledge that much, is a sample.
//! (draft-cheng-iccrg-delivery-rate-estimation)

use std::time::{Duration, Instant};

/// What a packet remembers of the moment it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    idle: bool,
}

/// Counts what was delivered.
#[derive(Debug)]
pub struct Rate {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Until so much is delivered, we and not the path are the limit.
    idle_until: Option<u64>,
    newest: Option<(u64, Stamp, Duration)>,
    acked: u64,
}

/// What one acknowledgement says of the path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes delivered per second, if there was enough time to tell.
    pub rate: Option<f64>,
    /// All bytes delivered until now.
    pub total: u64,
    /// Bytes that had been delivered when the newest of the acknowledged packets was sent.
    pub prior: u64,
    /// Bytes that this acknowledgement confirms.
    pub acked: u64,
    /// Whether we had too little to send for the path to be the limit.
    pub idle: bool,
}

impl Rate {
    /// Begins to count.
    pub fn new(now: Instant) -> Self {
        Rate { delivered: 0, delivered_at: now, first_sent_at: now, idle_until: None, newest: None, acked: 0 }
    }

    /// The stamp for a packet that is sent now. `alone`: nothing else is in flight.
    pub fn on_send(&mut self, now: Instant, alone: bool) -> Stamp {
        if alone {
            (self.first_sent_at, self.delivered_at) = (now, now);
        }
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            idle: self.idle_until.is_some(),
        }
    }

    /// Notes that there is room on the path but nothing to send.
    pub fn on_idle(&mut self, in_flight: u64) {
        self.idle_until = Some(self.delivered + in_flight);
    }

    /// Counts an acknowledged packet. `order` grows with each transmission.
    pub fn on_acked(&mut self, bytes: u64, stamp: Stamp, order: u64, sent_at: Instant) {
        self.delivered += bytes;
        self.acked += bytes;
        if self.newest.is_none_or(|(newest, ..)| order > newest) {
            self.newest = Some((order, stamp, sent_at.saturating_duration_since(stamp.first_sent_at)));
            self.first_sent_at = sent_at;
        }
    }

    /// The sample of all that was counted since the last one. Intervals below `least` say nothing.
    pub fn sample(&mut self, now: Instant, least: Duration) -> Option<Sample> {
        let acked = std::mem::take(&mut self.acked);
        let (_, stamp, sending) = self.newest.take()?;
        self.delivered_at = now;
        if self.idle_until.is_some_and(|until| self.delivered > until) {
            self.idle_until = None;
        }
        let interval = sending.max(now.saturating_duration_since(stamp.delivered_at));
        let known = !interval.is_zero() && interval >= least;
        let rate = known.then(|| (self.delivered - stamp.delivered) as f64 / interval.as_secs_f64());
        Some(Sample { rate, total: self.delivered, prior: stamp.delivered, acked, idle: stamp.idle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_path_is_measured_exactly() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut rate = Rate::new(start);
        // A packet of 1,000 bytes each millisecond, acknowledged 20 ms later.
        let mut stamps = Vec::new();
        let mut last = None;
        for ms in 0..100u64 {
            if let Some(sent) = ms.checked_sub(20) {
                rate.on_acked(1000, stamps[sent as usize], sent, at(sent));
                last = rate.sample(at(ms), Duration::from_millis(20));
            }
            stamps.push(rate.on_send(at(ms), ms == 0));
        }
        let sample = last.unwrap();
        assert!((sample.rate.unwrap() - 1e6).abs() < 1e4, "{sample:?}");
        assert_eq!((sample.acked, sample.idle), (1000, false));
    }

    #[test]
    fn a_burst_of_acknowledgements_does_not_look_like_a_fast_path() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut rate = Rate::new(start);
        let stamps: Vec<_> = (0..10).map(|ms| rate.on_send(at(ms), ms == 0)).collect();
        for (sent, stamp) in stamps.into_iter().enumerate() {
            rate.on_acked(1000, stamp, sent as u64, at(sent as u64));
        }
        let sample = rate.sample(at(29), Duration::from_millis(20)).unwrap();
        assert!(sample.rate.unwrap() < 10_000.0 / 0.028, "{sample:?}");
        assert_eq!(sample.acked, 10_000);
    }
}
