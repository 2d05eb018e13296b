//! Round trips: how long one takes, and how long to wait before a packet is given up (RFC 6298).

use std::time::{Duration, Instant};

const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A sample above this and far from the average is a computer that slept, not a path.
const SUSPICIOUS: Duration = Duration::from_secs(5);
/// The least round trip is that of the last one to two of these.
const MEMORY: Duration = Duration::from_secs(150);

/// The estimator. Nothing is known before the first sample.
#[derive(Debug, Clone, Default)]
pub struct Rtt {
    known: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    smooth: Duration,
    variation: Duration,
    least: Duration,
    /// The least of the period that runs now, and when it began.
    recent: (Duration, Instant),
}

impl Rtt {
    /// Takes in a sample of a packet that was sent once.
    pub fn sample(&mut self, rtt: Duration, now: Instant) {
        let Some(known) = &mut self.known else {
            let rtt = rtt.min(LONGEST_TIMEOUT);
            self.known = Some(Known { smooth: rtt, variation: rtt / 2, least: rtt, recent: (rtt, now) });
            return;
        };
        let outlier = known.smooth + 5 * known.variation;
        let rtt = if rtt > SUSPICIOUS && rtt > outlier { outlier.min(LONGEST_TIMEOUT) } else { rtt };
        known.variation = (3 * known.variation + known.smooth.abs_diff(rtt)) / 4;
        known.smooth = (7 * known.smooth + rtt) / 8;
        known.least = known.least.min(rtt);
        if now.duration_since(known.recent.1) > MEMORY {
            known.least = known.recent.0.min(rtt);
            known.recent = (rtt, now);
        }
        known.recent.0 = known.recent.0.min(rtt);
    }

    /// The smoothed round trip.
    pub fn smooth(&self) -> Option<Duration> {
        self.known.as_ref().map(|known| known.smooth)
    }

    /// The shortest round trip of the last minutes.
    pub fn least(&self) -> Option<Duration> {
        self.known.as_ref().map(|known| known.least)
    }

    /// When to give up a packet that nothing was heard of: 1 s to 30 s.
    pub fn timeout(&self) -> Duration {
        self.known.as_ref().map_or(SHORTEST_TIMEOUT, |known| {
            (known.smooth + 4 * known.variation).clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_path_within_its_bounds() {
        let (mut rtt, start) = (Rtt::default(), Instant::now());
        assert_eq!(rtt.timeout(), SHORTEST_TIMEOUT);
        for n in 0..50 {
            rtt.sample(Duration::from_millis(800 + 400 * (n % 2)), start);
        }
        assert!(rtt.timeout() > Duration::from_millis(1500), "{rtt:?}");
        assert_eq!(rtt.least(), Some(Duration::from_millis(800)));
        let before = rtt.timeout();
        rtt.sample(Duration::from_secs(3600), start);
        assert!(rtt.timeout() < 2 * before, "a night of sleep is no round trip: {rtt:?}");
    }

    #[test]
    fn the_least_round_trip_is_forgotten_when_the_path_has_changed() {
        let (mut rtt, start) = (Rtt::default(), Instant::now());
        rtt.sample(Duration::from_millis(10), start);
        for second in 0..600 {
            rtt.sample(Duration::from_millis(90), start + Duration::from_secs(second));
        }
        assert_eq!(rtt.least(), Some(Duration::from_millis(90)));
    }
}
