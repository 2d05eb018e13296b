//! The clock of a node.

use std::time::{Duration, Instant, SystemTime};

/// The clock on the wall may run ahead of the other by so much before we take it for a sleep.
const SLEPT: Duration = Duration::from_secs(15);

/// A time since 1970 that never goes back, and whether the machine slept: one of its clocks goes on meanwhile, the
/// other doesn't.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    wall: Duration,
    slept: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock { began: Instant::now(), wall: wall(), slept: Duration::ZERO }
    }

    pub(super) fn now(&self) -> Duration {
        self.wall + self.slept + self.began.elapsed()
    }

    /// Whether it slept since the last call.
    pub(super) fn slept(&mut self) -> bool {
        let missed = wall().saturating_sub(self.now());
        let slept = missed > SLEPT;
        if slept {
            self.slept += missed;
        }
        slept
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
