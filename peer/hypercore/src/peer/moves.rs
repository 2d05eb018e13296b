//! When a remote leaves a fork for a later one, and which false answers that excuses.
//!
//! An author that cuts its feed while it answers may mix the old tree with the new one: JavaScript does. So what was asked
//! before we heard of the later fork may be answered wrongly without anybody's fault. That would be a way out for every
//! liar, if it cost nothing:
//!
//! - A fork excuses only what was under way when it was told, and only if it is later than all that were told before.
//! - Forks that nobody has shown to exist excuse a few times, then no more.

/// Forks in a row that excuse without being shown. An honest author needs a second one only if it cuts again in the moment
/// in which it answers the question for the first.
const MAX_UNPROVEN: u32 = 8;

/// The latest fork that a remote told of, and what it has excused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    latest: u64,
    /// Questions from this id on were asked after it was told.
    asked_after: u64,
    /// Whether it has excused an answer.
    used: bool,
    /// Forks that did, since the latest of them was proven.
    unproven: u32,
}

impl Moves {
    /// The remote says to be at a fork. `next` is the id of the question that comes next.
    pub fn told(&mut self, fork: u64, next: u64) {
        if fork > self.latest {
            (self.latest, self.asked_after, self.used) = (fork, next, false);
        }
    }

    /// The remote gave a true answer about a fork: the authors have signed it.
    pub fn proven(&mut self, fork: u64) {
        if fork >= self.latest {
            self.unproven = 0;
        }
    }

    /// Whether a false answer to the question `id` is nobody's fault.
    pub fn excuse(&mut self, id: u64) -> bool {
        if id >= self.asked_after {
            return false;
        }
        self.unproven += u32::from(!std::mem::replace(&mut self.used, true));
        self.unproven <= MAX_UNPROVEN
    }

    /// The same with a new channel, whose questions are all still to be asked. None if there is nothing to remember.
    pub fn carried(self) -> Option<Moves> {
        (self.unproven > 0).then_some(Moves { asked_after: 0, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_under_way_is_excused() {
        let mut moves = Moves::default();
        assert!(!moves.excuse(1));
        moves.told(5, 10);
        assert!(moves.excuse(3) && moves.excuse(9) && !moves.excuse(10));
        // Back, and away again to the same fork.
        moves.told(4, 20);
        moves.told(5, 20);
        assert!(!moves.excuse(15));
    }

    #[test]
    fn forks_that_are_not_shown_excuse_a_few_times() {
        let mut moves = Moves::default();
        for fork in 1..=u64::from(MAX_UNPROVEN) {
            moves.told(fork, 10 * fork);
            assert!(moves.excuse(10 * fork - 1) && moves.excuse(10 * fork - 2), "fork {fork}");
        }
        moves.told(100, 1000);
        assert!(!moves.excuse(999));
        // What it told of is not shown by an earlier one.
        moves.proven(99);
        assert!(!moves.excuse(999));
        moves.proven(100);
        moves.told(101, 2000);
        assert!(moves.excuse(1999));
    }

    #[test]
    fn a_new_channel_forgets_nothing() {
        let mut moves = Moves::default();
        assert_eq!(moves.carried(), None);
        moves.told(3, 10);
        assert!(moves.excuse(9));
        let mut again = moves.carried().expect("it excused something");
        again.told(3, 1);
        assert!(!again.excuse(1));
    }
}
