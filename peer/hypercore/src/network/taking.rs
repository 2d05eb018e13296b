//! Whether a remote takes what is said to it: what waits for it is our memory.

use std::time::{Duration, Instant};

/// In so much time a remote has to take a part of what waits.
const TIME: Duration = Duration::from_secs(60);
/// The same while the memory for what waits on all connections is used up.
const SHORT: Duration = Duration::from_secs(5);
/// A sixteenth, but no less than this, or all of it.
const LEAST: u64 = 64 << 10;

/// What a remote has to take in a while.
#[derive(Debug)]
pub(super) struct Taking {
    since: Instant,
    /// How much it has to have taken then, since the beginning.
    due: u64,
}

impl Taking {
    pub fn new(now: Instant) -> Taking {
        Taking { since: now, due: 0 }
    }

    /// Whether it was too slow; to be asked now and then. It has taken `taken` bytes so far, and `unsent` wait; `full` if there is no
    /// memory for more.
    pub fn is_stalled(&mut self, now: Instant, taken: u64, unsent: usize, full: bool) -> bool {
        if unsent == 0 || taken >= self.due {
            let unsent = unsent as u64;
            *self = Taking { since: now, due: taken + unsent.min(LEAST.max(unsent / 16)) };
        }
        now > self.since + if full { SHORT } else { TIME }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until it is too slow, if it takes so much each second of what is always as much.
    fn stalls(unsent: usize, each: u64) -> Option<u64> {
        stalls_when(false, unsent, each)
    }

    fn stalls_when(full: bool, unsent: usize, each: u64) -> Option<u64> {
        let start = Instant::now();
        let mut taking = Taking::new(start);
        (0..1000).find(|second| taking.is_stalled(start + Duration::from_secs(*second), second * each, unsent, full))
    }

    #[test]
    fn a_byte_now_and_then_is_not_enough() {
        assert_eq!(stalls(1 << 20, 0), Some(61));
        assert_eq!(stalls(1 << 20, 1000), Some(61));
        assert_eq!(stalls(1 << 20, 1100), None);
        assert_eq!(stalls(16 << 20, 10_000), Some(61));
        assert_eq!(stalls(16 << 20, 18_000), None);
    }

    #[test]
    fn while_memory_is_short_nobody_holds_much_of_it_for_long() {
        assert_eq!(stalls_when(true, 15 << 20, 100_000), Some(6));
        assert_eq!(stalls_when(true, 15 << 20, 200_000), None);
        assert_eq!(stalls_when(true, 1 << 20, 14_000), None);
        assert_eq!(stalls_when(true, 0, 0), None);
    }

    #[test]
    fn who_takes_the_little_that_there_is_is_not_slow() {
        assert_eq!(stalls(20, 20), None);
        assert_eq!(stalls(0, 0), None);
        assert_eq!(stalls(20, 0), Some(61));
    }
}
