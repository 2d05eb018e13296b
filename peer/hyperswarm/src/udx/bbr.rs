//! Congestion control by a model of the path, after BBR: how fast is its narrowest link, how long is a round trip
//! without queues? What is in flight is kept near the product of the two, and packets leave at that rate.
//!
//! A lost packet says little about a path with radio links, so it changes nothing by itself: at 1 % loss and 50 ms,
//! control by loss would be left with 0.4 MB/s. Only where a seventh of a round is lost, what is in flight is lowered below
//! the model, and raised again as it gets better. (draft-cardwell-iccrg-bbr-congestion-control-00, and -02 for losses)
//!
//! ```text
//!   Startup ──── no more growth ────▶ Drain ──── queue is empty ────▶ Probing ◀────────┐
//!   2.9 × the rate each round         what Startup queued             1.25, 0.75,      │
//!                                                                     6 × 1            │
//!                                                   least round trip unseen for 10 s   │
//!                                                                        └──▶ Resting ─┘
//!                                                                             200 ms at 4 packets
//! ```

use super::rate::Sample;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// 2 / ln 2: the least gain that doubles the rate in each round.
const HIGH_GAIN: f64 = 2.885;
const WINDOW_GAIN: f64 = 2.0;
/// The cycle of `Probing`: ask for more, give back what queued, then cruise.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Packets leave a little slower than they arrive, so that queues drain.
const MARGIN: f64 = 0.99;
/// How many rounds the largest rate is remembered.
const RATE_ROUNDS: u64 = 10;
/// `Startup` ends when this many rounds have not brought a quarter more.
const PLATEAU_ROUNDS: u8 = 3;
const LEAST_RTT_AGE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(200);
const FIRST_WINDOW: u64 = 10;
const LEAST_WINDOW: u64 = 4;
/// Acknowledgements come in bunches; how many rounds the largest bunch is remembered, and how long a bunch may be.
const BUNCH_ROUNDS: u64 = 10;
const LONGEST_BUNCH: f64 = 0.1;
/// A round that loses a larger part than this, and so many packets, has too much in flight.
const TOO_LOSSY: f64 = 0.15;
const TOO_MANY_LOST: u64 = 16;
const LOWER: f64 = 0.85;
const RAISE: f64 = 1.25;
/// The most that one system call can send.
const LARGEST_BURST: f64 = 65536.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Startup,
    Drain,
    Probing { phase: usize, since: Instant },
    Resting { until: Option<Instant> },
}

/// The largest value of the last rounds.
#[derive(Debug, Default)]
struct Largest(VecDeque<(u64, f64)>);

impl Largest {
    fn add(&mut self, round: u64, value: f64, rounds: u64) {
        while self.0.back().is_some_and(|(_, last)| *last <= value) {
            self.0.pop_back();
        }
        self.0.push_back((round, value));
        while self.0.front().is_some_and(|(first, _)| first + rounds < round) {
            self.0.pop_front();
        }
    }

    fn get(&self) -> f64 {
        self.0.front().map_or(0.0, |(_, value)| *value)
    }
}

/// The model, and the window and rate that follow from it. All amounts are bytes, all rates bytes per second.
#[derive(Debug)]
pub struct Bbr {
    mode: Mode,
    packet: u64,
    rates: Largest,
    least_rtt: Option<(Duration, Instant)>,
    round: u64,
    /// The round ends when a packet is acknowledged that was sent after so much was delivered.
    round_end: u64,
    /// Bytes delivered before this round, and bytes lost in it.
    round_begin: u64,
    round_lost: u64,
    /// What losses allow to be in flight.
    ceiling: f64,
    best: f64,
    flat_rounds: u8,
    full: bool,
    bunches: Largest,
    bunch: (u64, Instant),
    restarted: bool,
    window: u64,
    /// The window before a rest or a timeout.
    saved_window: u64,
    rate: f64,
}

impl Bbr {
    /// Knows nothing of the path yet. `packet` is the size of a full one.
    pub fn new(now: Instant, packet: usize) -> Self {
        let packet = packet as u64;
        Bbr {
            mode: Mode::Startup,
            packet,
            rates: Largest::default(),
            least_rtt: None,
            round: 0,
            round_end: 0,
            round_begin: 0,
            round_lost: 0,
            ceiling: f64::INFINITY,
            best: 0.0,
            flat_rounds: 0,
            full: false,
            bunches: Largest::default(),
            bunch: (0, now),
            restarted: false,
            window: FIRST_WINDOW * packet,
            saved_window: 0,
            rate: HIGH_GAIN * (FIRST_WINDOW * packet) as f64 / 0.001,
        }
    }

    /// How much may be in flight.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// How fast packets may leave, bytes per second.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// How much may leave at once: what a millisecond carries, two packets at least.
    pub fn burst(&self) -> u64 {
        let burst = (self.rate / 1000.0).min(LARGEST_BURST) as u64;
        burst.max(2 * self.packet)
    }

    /// Full packets are of another size now.
    pub fn set_packet(&mut self, packet: usize) {
        self.packet = packet as u64;
    }

    /// Sending begins after there was nothing to send.
    pub fn on_restart(&mut self, now: Instant) {
        self.restarted = true;
        self.bunch = (0, now);
        match self.mode {
            Mode::Probing { .. } => self.set_rate(1.0),
            Mode::Resting { .. } => self.end_rest(now),
            _ => {}
        }
    }

    /// An acknowledgement came. `rtt` is the newest round trip, `in_flight` and `lost` are as it left them.
    pub fn on_ack(&mut self, now: Instant, sample: &Sample, rtt: Option<Duration>, in_flight: u64, lost: u64) {
        let new_round = sample.prior >= self.round_end;
        self.round_lost += lost;
        if new_round {
            self.round_end = sample.total;
            self.round += 1;
            self.weigh_losses(sample.total);
        }
        if let Some(rate) = sample.rate
            && (!sample.idle || rate >= self.rates.get())
        {
            self.rates.add(self.round, rate, RATE_ROUNDS);
        }
        self.measure_bunch(now, sample.acked);
        if new_round && !sample.idle {
            self.look_for_plateau();
        }
        self.change_mode(now, in_flight, lost);
        self.measure_least_rtt(now, rtt, in_flight);
        if sample.acked > 0 {
            self.restarted = false;
        }
        let (rate_gain, window_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (1.0 / HIGH_GAIN, HIGH_GAIN),
            Mode::Probing { phase, .. } => (CYCLE[phase], WINDOW_GAIN),
            Mode::Resting { .. } => (1.0, 1.0),
        };
        if self.round <= 1
            && let Some(rtt) = rtt
        {
            // The first rate was a guess.
            self.rate = HIGH_GAIN * self.window as f64 / rtt.as_secs_f64().max(0.001);
        }
        self.set_rate(rate_gain);
        self.set_window(sample, window_gain);
    }

    /// Nothing was heard for long: whatever was in flight is lost. Begin small, keep the model.
    pub fn on_timeout(&mut self, in_flight: u64) {
        self.saved_window = self.saved_window.max(self.window);
        self.window = in_flight + LEAST_WINDOW * self.packet;
        (self.best, self.flat_rounds) = (0.0, 0);
    }

    /// An acknowledgement has ended the silence.
    pub fn on_recovered(&mut self) {
        self.window = self.window.max(std::mem::take(&mut self.saved_window));
    }

    /// The path is another one.
    pub fn on_new_path(&mut self, now: Instant) {
        let (round_end, round_begin) = (self.round_end, self.round_begin);
        *self = Bbr { round_end, round_begin, ..Bbr::new(now, self.packet as usize) };
    }

    /// What the path holds: its rate for the time of a round trip.
    pub fn path(&self) -> u64 {
        self.least_rtt.map_or(0, |(rtt, _)| (self.rates.get() * rtt.as_secs_f64()) as u64)
    }

    /// `gain` times what the path holds, plus what the computers at its ends need to work in bursts.
    fn product(&self, gain: f64) -> u64 {
        match self.least_rtt {
            Some(_) => (gain * self.path() as f64) as u64 + 3 * self.burst(),
            None => FIRST_WINDOW * self.packet,
        }
    }

    fn set_rate(&mut self, gain: f64) {
        let rate = gain * MARGIN * self.rates.get();
        if rate > 0.0 && (self.full || rate > self.rate) {
            self.rate = rate.max(self.packet as f64);
        }
    }

    fn set_window(&mut self, sample: &Sample, gain: f64) {
        let mut target = self.product(gain);
        if self.full {
            target += self.bunches.get().min(LONGEST_BUNCH * self.rates.get()) as u64;
            self.window = (self.window + sample.acked).min(target);
        } else if self.window < target || sample.total < FIRST_WINDOW * self.packet {
            self.window += sample.acked;
        }
        self.ceiling = self.ceiling.max((LEAST_WINDOW * self.packet) as f64);
        self.window = self.window.min(self.ceiling as u64).max(LEAST_WINDOW * self.packet);
        if let Mode::Resting { .. } = self.mode {
            self.window = LEAST_WINDOW * self.packet;
        }
    }

    /// How much more than the rate allows was acknowledged at once: the window has to cover it.
    fn measure_bunch(&mut self, now: Instant, acked: u64) {
        let expected = self.rates.get() * now.saturating_duration_since(self.bunch.1).as_secs_f64();
        if self.bunch.0 as f64 <= expected {
            self.bunch = (acked, now);
            self.bunches.add(self.round, acked.min(self.window) as f64, BUNCH_ROUNDS);
            return;
        }
        self.bunch.0 += acked;
        let extra = self.bunch.0 as f64 - expected;
        self.bunches.add(self.round, extra.min(self.window as f64), BUNCH_ROUNDS);
    }

    fn weigh_losses(&mut self, delivered: u64) {
        let lost = std::mem::take(&mut self.round_lost);
        let all = lost + delivered - std::mem::replace(&mut self.round_begin, delivered);
        if lost >= TOO_MANY_LOST * self.packet && lost as f64 > TOO_LOSSY * all as f64 {
            self.ceiling = LOWER * self.ceiling.min(self.window as f64);
        } else {
            self.ceiling *= RAISE;
        }
    }

    fn look_for_plateau(&mut self) {
        if self.full {
            return;
        }
        if self.rates.get() >= 1.25 * self.best {
            (self.best, self.flat_rounds) = (self.rates.get(), 0);
            return;
        }
        self.flat_rounds += 1;
        self.full = self.flat_rounds >= PLATEAU_ROUNDS;
    }

    fn change_mode(&mut self, now: Instant, in_flight: u64, lost: u64) {
        let rtt = self.least_rtt.map_or(Duration::ZERO, |(rtt, _)| rtt);
        match self.mode {
            Mode::Startup if self.full => self.mode = Mode::Drain,
            Mode::Probing { phase, since } => {
                let over = now.saturating_duration_since(since) > rtt;
                let next = match CYCLE[phase] {
                    gain if gain > 1.0 => over && (lost > 0 || in_flight >= self.product(gain)),
                    gain if gain < 1.0 => over || in_flight <= self.product(1.0),
                    _ => over,
                };
                if next {
                    self.mode = Mode::Probing { phase: (phase + 1) % CYCLE.len(), since: now };
                }
            }
            _ => {}
        }
        if self.mode == Mode::Drain && in_flight <= self.product(1.0) {
            self.mode = Mode::Probing { phase: 2, since: now };
        }
    }

    fn measure_least_rtt(&mut self, now: Instant, rtt: Option<Duration>, in_flight: u64) {
        let old = self.least_rtt.is_some_and(|(_, seen)| now.saturating_duration_since(seen) > LEAST_RTT_AGE);
        if let Some(rtt) = rtt
            && (old || self.least_rtt.is_none_or(|(least, _)| rtt <= least))
        {
            self.least_rtt = Some((rtt, now));
        }
        if old && !self.restarted && !matches!(self.mode, Mode::Resting { .. }) {
            self.saved_window = self.saved_window.max(self.window);
            self.mode = Mode::Resting { until: None };
        }
        if self.mode == (Mode::Resting { until: None }) && in_flight <= LEAST_WINDOW * self.packet {
            let rest = self.least_rtt.map_or(REST, |(rtt, _)| rtt.max(REST));
            self.mode = Mode::Resting { until: Some(now + rest) };
        }
        self.end_rest(now);
    }

    fn end_rest(&mut self, now: Instant) {
        if let Mode::Resting { until: Some(until) } = self.mode
            && now >= until
        {
            if let Some((_, seen)) = &mut self.least_rtt {
                *seen = now;
            }
            self.window = self.window.max(std::mem::take(&mut self.saved_window));
            self.mode = if self.full { Mode::Probing { phase: 2, since: now } } else { Mode::Startup };
        }
    }
}
