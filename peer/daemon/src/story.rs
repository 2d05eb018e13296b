//! The daemon's story: what happened lately, and what happens from now on, for anyone who listens.

use datdot_api::{Event, Told};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::broadcast;

/// Events that are kept for those who come later.
const KEPT: usize = 512;
/// Events that a slow listener may lag behind before it misses some.
const LAG: usize = 1024;

/// Tells events.
#[derive(Debug)]
pub struct Story {
    past: Mutex<Past>,
    future: broadcast::Sender<Told>,
    block: AtomicU32,
}

#[derive(Debug, Default)]
struct Past {
    next: u64,
    last: VecDeque<Told>,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { past: Mutex::default(), future: broadcast::Sender::new(LAG), block: AtomicU32::new(0) }
    }

    /// Notes the ledger's best block.
    pub(crate) fn is_at(&self, block: u32) {
        self.block.store(block, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, event: Event) {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let told = Told { number: past.next, millis, block: self.block.load(Ordering::Relaxed), event };
        past.next += 1;
        // Progress is of no interest once it is over.
        if !matches!(told.event, Event::Fetching { .. }) {
            past.last.push_back(told.clone());
            if past.last.len() > KEPT {
                past.last.pop_front();
            }
        }
        // Sent under the lock, so that a listener that comes now gets each event once. Nobody listens: fine.
        _ = self.future.send(told);
    }

    /// The last events, and those to come.
    pub fn listen(&self) -> (Vec<Told>, broadcast::Receiver<Told>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.last.iter().cloned().collect(), self.future.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_hears_what_matters_and_everything_from_then_on() {
        let story = Story::new();
        story.tell(Event::Taken { contract: 1 });
        story.tell(Event::Fetching { contract: 1, bytes: 5, total: 10 });
        let (past, mut future) = story.listen();
        assert_eq!(past.iter().map(|told| told.number).collect::<Vec<_>>(), [0]);
        story.tell(Event::Fetching { contract: 1, bytes: 10, total: 10 });
        assert_eq!(future.try_recv().unwrap().number, 2);
    }

    #[test]
    fn the_past_is_bounded() {
        let story = Story::new();
        (0..2 * KEPT as u32).for_each(|contract| story.tell(Event::Taken { contract }));
        assert_eq!(story.listen().0.len(), KEPT);
    }
}
