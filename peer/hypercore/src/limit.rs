//! Limits in bytes per second, shared by all who take from them, in turn.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes that may pass per second; clones share it. May be changed at any time.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    /// 0 is no limit.
    rate: Arc<AtomicU64>,
    /// When what has passed is paid for.
    paid: Arc<Mutex<Option<Instant>>>,
}

impl Limit {
    /// Sets the limit in bytes per second, or takes it away.
    pub fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.map_or(0, |rate| rate.max(1)), Ordering::Release);
        // What passed under another limit is not counted under this one.
        *self.paid.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The limit in bytes per second.
    pub fn get(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Acquire)).filter(|rate| *rate > 0)
    }

    /// The same limit for somebody else alone.
    pub(crate) fn alone(&self) -> Limit {
        Limit { rate: self.rate.clone(), paid: Arc::default() }
    }

    /// Bytes have passed. Whoever let them pass lets the next ones pass at the time that is returned.
    pub(crate) fn pass(&self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.get() else { return now };
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paid.map_or(now, |paid| paid.max(now)) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *paid = Some(due);
        due
    }

    /// How much to let pass at a time, so that nobody waits long for his turn.
    pub(crate) fn portion(&self, most: usize) -> usize {
        self.get().map_or(most, |rate| usize::try_from(rate / 20).unwrap_or(most).clamp(1 << 10, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_in_turns_adds_up_to_the_limit() {
        let (limit, start) = (Limit::default(), Instant::now());
        assert_eq!(limit.pass(start, 1 << 30), start);
        limit.set(Some(1_000_000));
        let mut turns = [(start, 0), (start, 0), (start, 0)];
        loop {
            turns.sort_by_key(|turn| turn.0);
            let (at, passed) = turns[0];
            if at > start + Duration::from_secs(10) {
                break;
            }
            turns[0] = (limit.pass(at, 50_000), passed + 50_000);
        }
        let sum: u64 = turns.iter().map(|turn| turn.1).sum();
        assert!((9_900_000..=10_300_000).contains(&sum), "{sum}");
        assert!(turns.iter().all(|turn| turn.1 * 3 > sum - 300_000), "{turns:?}");
        limit.set(None);
        assert_eq!((limit.pass(start, 1 << 30), limit.portion(77)), (start, 77));
    }
}
