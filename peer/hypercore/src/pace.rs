//! How many blocks to ask of a peer at a time: twice as many as fit on the way to it and back, as measured.
//!
//! Each answer tells how long it took and how many others came meanwhile. The shortest time is the length of the way, the
//! highest rate its width; asking for twice their product fills it, and lets a wider way show. A short way is filled for longer:
//! disks and threads work in bursts. What is asked of a slow peer beyond that would only be late.
//!
//! What is asked waits in a queue before the narrowest place, and so all answers take longer: taken for a longer way, that would
//! double what is asked every few seconds. So now and then all that is under way is let come, and the next answer measures the way.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What was measured counts for so long at least, and twice as long at most.
const MEMORY: Duration = Duration::from_secs(10);
/// So much time a burst takes at most,
const BURST: Duration = Duration::from_millis(100);
/// and so many bytes. While nothing was measured no more than these are asked for either.
const BURST_BYTES: u64 = 8 << 20;
/// Bytes at most, or some blocks if they are large; and blocks at most.
const MOST: (u64, usize) = (64 << 20, 1000);
const LARGE: usize = 8;
/// Blocks at least: the next one is to be on its way when one comes.
const LEAST: usize = 2;

/// The questions for blocks that are under way to one peer, and what the answers showed.
#[derive(Debug, Default)]
pub struct Pace {
    asked: BTreeMap<u64, Sample>,
    /// Blocks that came.
    came: u64,
    /// The shortest way there and back, of the time before and now.
    way: [Option<Duration>; 2],
    /// The most blocks a second.
    rate: [f64; 2],
    turned: Option<Instant>,
    /// The way is to be measured anew, alone.
    probing: bool,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    came: u64,
    /// Next to nothing was under way before it.
    alone: bool,
}

impl Pace {
    /// A block is asked for.
    pub fn asked(&mut self, now: Instant, block: u64) {
        let alone = self.asked.len() < LEAST;
        self.asked.insert(block, Sample { at: now, came: self.came, alone });
    }

    /// It does not come.
    pub fn failed(&mut self, block: u64) {
        self.asked.remove(&block);
    }

    /// It came.
    pub fn arrived(&mut self, now: Instant, block: u64) {
        let Some(sample) = self.asked.remove(&block) else { return };
        if self.turned.is_none_or(|turned| now.duration_since(turned) > MEMORY) {
            (self.way, self.rate) = ([self.way[1], None], [self.rate[1], 0.0]);
            self.probing = self.turned.replace(now).is_some();
        }
        self.came += 1;
        self.probing &= !sample.alone;
        let took = now.duration_since(sample.at).max(Duration::from_micros(1));
        self.way[1] = Some(self.way[1].map_or(took, |way| way.min(took)));
        self.rate[1] = self.rate[1].max((self.came - sample.came) as f64 / took.as_secs_f64());
    }

    /// The shortest time between question and answer, as far as it is known.
    fn way(&self) -> Duration {
        self.way.iter().flatten().min().copied().unwrap_or_default()
    }

    /// How long it takes to bring a block that is asked for now, after `more` others; nothing while that is not known.
    pub fn takes(&self, more: usize) -> Option<Duration> {
        let (rate, before) = (self.rate(), self.asked.len() + more);
        (rate > 0.0).then(|| self.way() + Duration::from_secs_f64((before + 1) as f64 / rate))
    }

    /// Blocks to have under way, of `size` bytes on average; `first` is what to begin with.
    pub fn window(&self, size: u64, first: usize) -> usize {
        let blocks = |bytes: u64| ((bytes / size.max(1)) as usize).clamp(LARGE, MOST.1);
        let (first, rate) = (first.min(blocks(BURST_BYTES)), self.rate());
        if rate == 0.0 || self.probing {
            return if self.probing { LEAST.min(first) } else { first };
        }
        let burst = blocks(BURST_BYTES).min((rate * BURST.as_secs_f64()) as usize);
        let fits = (2.0 * rate * self.way().as_secs_f64()) as usize;
        burst.max(fits).clamp(LEAST.min(first), blocks(MOST.0))
    }

    fn rate(&self) -> f64 {
        self.rate[0].max(self.rate[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Blocks a second over a way of this length and width, after a while.
    fn reached(way: Duration, width: f64, size: u64, first: usize) -> f64 {
        reached_in(Duration::from_secs(10), way, width, size, first).0
    }

    /// The same after so long, and the most that was under way in the second half.
    fn reached_in(time: Duration, way: Duration, width: f64, size: u64, first: usize) -> (f64, usize) {
        let (start, mut pace, mut most) = (Instant::now(), Pace::default(), 0);
        let (mut now, mut free, mut next, mut came) = (start, start, 0, 0);
        let mut under_way = VecDeque::new();
        while now < start + time {
            while under_way.len() < pace.window(size, first) {
                pace.asked(now, next);
                free = free.max(now) + Duration::from_secs_f64(1.0 / width);
                under_way.push_back((free + way, next));
                next += 1;
            }
            let (arrives, block) = under_way.pop_front().expect("the window is not empty");
            now = arrives;
            pace.arrived(now, block);
            if now > start + time / 2 {
                (came, most) = (came + 1, most.max(under_way.len()));
            }
        }
        (f64::from(came) / (time / 2).as_secs_f64(), most)
    }

    #[test]
    fn any_way_is_filled() {
        for (way, width, size) in
            [(200, 2000.0, 1 << 10), (50, 3000.0, 64 << 10), (1, 1500.0, 64 << 10), (50, 20.0, 1 << 20)]
        {
            for first in [2, 16, 128] {
                let rate = reached(Duration::from_millis(way), width, size, first);
                let wanted = 0.95 * width.min(1000.0 / way as f64 * 1000.0);
                assert!(rate > wanted, "{way} ms, {width} a second, {first} at first: {rate}");
            }
        }
    }

    #[test]
    fn a_slow_peer_is_asked_for_little_at_a_time() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        // 100 a second over 20 ms.
        let at = |block: u64| start + Duration::from_millis(20 + 10 * (block + 1));
        (0..16).for_each(|block| pace.asked(start, block));
        assert_eq!(pace.takes(0), None);
        (0..16).for_each(|block| pace.arrived(at(block), block));
        let window = pace.window(1 << 10, 16);
        assert!((8..24).contains(&window), "{window}");
        let takes = pace.takes(10).expect("it was measured");
        assert!((100..250).contains(&takes.as_millis()), "{takes:?}");
        // A block in 5 s.
        let mut pace = Pace::default();
        (0..2).for_each(|block| pace.asked(start, block));
        (0..2).for_each(|block| pace.arrived(start + Duration::from_secs(5 * (block + 1)), block));
        assert_eq!(pace.window(1 << 20, 16), 2);
    }

    #[test]
    fn a_queue_is_not_taken_for_a_long_way() {
        for (way, width) in [(20, 100.0), (300, 50.0)] {
            let time = Duration::from_secs(200);
            let (rate, most) = reached_in(time, Duration::from_millis(way), width, 1 << 10, 16);
            assert!(rate > 0.93 * width, "{way} ms, {width} a second: {rate}");
            let fits = width * (2 * way).max(200) as f64 / 1000.0;
            assert!(most as f64 <= 1.5 * fits, "{way} ms, {width} a second: {most} under way, {fits} fit");
        }
    }

    #[test]
    fn memory_is_bounded_by_the_size_of_blocks() {
        let mut pace = Pace::default();
        let start = Instant::now();
        (0..5000).for_each(|block| pace.asked(start, block));
        (0..5000).for_each(|block| pace.arrived(start + Duration::from_millis(500), block));
        assert_eq!(pace.window(15 << 20, 128), 8);
        assert_eq!(pace.window(64 << 10, 128), 1000);
        assert_eq!(pace.window(1 << 20, 128), 64);
        assert_eq!(Pace::default().window(64 << 10, 128), 128);
        assert_eq!(Pace::default().window(0, 4), 4);
    }
}
