//! Memory for what remotes make streams hold, shared by many streams.
//!
//! Each stream has a little for itself. Above that it takes from the common amount; when that is used up, streams take
//! in, and send, no more than fits into their own part. What they drop is as good as lost on the way, and comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each half of each stream may hold in any case.
pub const OWN: usize = 64 << 10;
/// The common amount is taken in such steps.
const STEP: usize = 64 << 10;

/// The common amount. A clone is the same.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Common>);

#[derive(Debug)]
struct Common {
    most: usize,
    taken: AtomicUsize,
}

impl Memory {
    /// So many bytes for all streams together.
    pub fn new(most: usize) -> Self {
        Memory(Arc::new(Common { most, taken: AtomicUsize::new(0) }))
    }

    /// Bytes that streams have taken.
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

/// What one half of a stream holds.
#[derive(Debug)]
pub struct Share {
    memory: Memory,
    held: usize,
    taken: usize,
}

impl Share {
    /// Nothing yet.
    pub fn of(memory: &Memory) -> Self {
        Share { memory: memory.clone(), held: 0, taken: 0 }
    }

    /// What it may hold now: anything, or its own part and what it has taken if all is taken.
    pub fn bound(&self) -> usize {
        let is_used_up = self.memory.taken() >= self.memory.0.most;
        if is_used_up { OWN + self.taken } else { usize::MAX }
    }

    /// Whether it may hold so many bytes more.
    pub fn has_room(&self, more: usize) -> bool {
        self.held + more <= self.bound()
    }

    /// Holds so many bytes now.
    pub fn set(&mut self, held: usize) {
        self.held = held;
        let wanted = held.saturating_sub(OWN);
        // A step more than needed is kept, so that not every packet takes and gives back.
        let is_too_much = wanted + 2 * STEP <= self.taken || held == 0;
        if wanted > self.taken || is_too_much {
            self.resize(wanted.next_multiple_of(STEP));
        }
    }

    fn resize(&mut self, taken: usize) {
        let all = &self.memory.0.taken;
        match taken >= self.taken {
            true => all.fetch_add(taken - self.taken, Ordering::Relaxed),
            false => all.fetch_sub(self.taken - taken, Ordering::Relaxed),
        };
        self.taken = taken;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let memory = Memory::new(1 << 20);
        let mut shares: Vec<_> = (0..40).map(|_| Share::of(&memory)).collect();
        for share in &mut shares {
            for held in (0..).step_by(1_000) {
                if !share.has_room(1_000) {
                    break;
                }
                share.set(held);
                assert!(share.taken + OWN >= held && memory.taken() <= (1 << 20) + STEP);
            }
        }
        let held: usize = shares.iter().map(|share| share.held).sum();
        assert!(held > 1 << 20 && held <= (1 << 20) + STEP + 40 * OWN, "{held}");
        shares[0].set(0);
        assert!(shares[39].has_room(1 << 20));
        for share in &mut shares[1..20] {
            share.set(10);
        }
        drop(shares);
        assert_eq!(memory.taken(), 0);
    }
}
