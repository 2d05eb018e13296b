//! How many blocks to ask of a peer at a time: twice as many as fit on the way to it and back, as measured.
//!
//! Each answer tells how long it took and how many others came meanwhile. The shortest time is the length of the way, the
//! highest rate its width; asking for twice their product fills it, and lets a wider way show.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What was measured counts for so long at least, and twice as long at most.
const MEMORY: Duration = Duration::from_secs(10);
/// Bytes and blocks that are asked for while nothing was measured, and at least: disks and threads work in bursts.
const LEAST: (u64, usize) = (8 << 20, 8);
/// Bytes and blocks at most.
const MOST: (u64, usize) = (64 << 20, 1000);

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
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    came: u64,
}

impl Pace {
    /// A block is asked for.
    pub fn asked(&mut self, now: Instant, block: u64) {
        self.asked.insert(block, Sample { at: now, came: self.came });
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
            self.turned = Some(now);
        }
        self.came += 1;
        let took = now.duration_since(sample.at).max(Duration::from_micros(1));
        self.way[1] = Some(self.way[1].map_or(took, |way| way.min(took)));
        self.rate[1] = self.rate[1].max((self.came - sample.came) as f64 / took.as_secs_f64());
    }

    /// The shortest time between question and answer, as far as it is known.
    pub fn way(&self) -> Duration {
        self.way.iter().flatten().min().copied().unwrap_or_default()
    }

    /// Blocks to have under way, of `size` bytes on average; `first` is what to begin with.
    pub fn window(&self, size: u64, first: usize) -> usize {
        let blocks = |bytes: u64| ((bytes / size.max(1)) as usize).clamp(LEAST.1, MOST.1);
        let (least, most) = (blocks(LEAST.0).min(first), blocks(MOST.0));
        let fits = self.way().as_secs_f64() * self.rate[0].max(self.rate[1]);
        ((2.0 * fits) as usize).clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Blocks a second over a way of this length and width, after a while.
    fn reached(way: Duration, width: f64, size: u64) -> f64 {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let (mut now, mut free, mut next, mut came) = (start, start, 0, 0);
        let mut under_way = VecDeque::new();
        while now < start + Duration::from_secs(10) {
            while under_way.len() < pace.window(size, 128) {
                pace.asked(now, next);
                free = free.max(now) + Duration::from_secs_f64(1.0 / width);
                under_way.push_back((free + way, next));
                next += 1;
            }
            let (arrives, block) = under_way.pop_front().expect("the window is not empty");
            now = arrives;
            pace.arrived(now, block);
            came += u64::from(now > start + Duration::from_secs(5));
        }
        came as f64 / 5.0
    }

    #[test]
    fn any_way_is_filled() {
        for (way, width, size) in
            [(200, 2000.0, 1 << 10), (50, 3000.0, 64 << 10), (1, 1500.0, 64 << 10), (50, 20.0, 1 << 20)]
        {
            let rate = reached(Duration::from_millis(way), width, size);
            assert!(rate > 0.95 * width.min(1000.0 / way as f64 * 1000.0), "{way} ms, {width} a second: {rate}");
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
