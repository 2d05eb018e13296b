//! A set of sequence numbers, kept as ranges: what arrived ahead of a hole, on either side of the wire.

use std::collections::VecDeque;
use std::ops::Range;

/// Ranges in order, none of which touches the next.
#[derive(Debug, Default, Clone)]
pub struct Ranges(VecDeque<Range<u64>>);

impl Ranges {
    /// Adds `new` and hands every number that was not in the set to `added`, in order.
    ///
    /// The cost is that of what is added and of the ranges that `new` meets, not of its length.
    pub fn insert(&mut self, new: Range<u64>, mut added: impl FnMut(u64)) {
        if new.is_empty() {
            return;
        }
        // What arrives in order extends the last range, so look there first.
        let first = match self.0.back() {
            Some(last) if last.end < new.start => self.0.len(),
            _ => self.0.partition_point(|range| range.end < new.start),
        };
        let mut whole = new.clone();
        let mut missing = new.start;
        let mut met = 0;
        for range in self.0.range(first..).take_while(|range| range.start <= new.end) {
            (missing..range.start).for_each(&mut added);
            missing = missing.max(range.end);
            whole = whole.start.min(range.start)..whole.end.max(range.end);
            met += 1;
        }
        (missing..new.end).for_each(&mut added);
        match met {
            0 => self.0.insert(first, whole),
            1 => self.0[first] = whole,
            _ => {
                self.0[first] = whole;
                self.0.drain(first + 1..first + met);
            }
        }
    }

    /// Forgets the numbers below `start`.
    pub fn forget_below(&mut self, start: u64) {
        while let Some(first) = self.0.front_mut() {
            if first.end > start {
                first.start = first.start.max(start);
                return;
            }
            self.0.pop_front();
        }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Range<u64>> + ExactSizeIterator {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u64..200, 0u64..20, any::<bool>()), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (start, len, forget) in steps {
                if forget && len < 3 {
                    ranges.forget_below(start);
                    model.retain(|number| *number >= start);
                } else {
                    let mut added = Vec::new();
                    ranges.insert(start..start + len, |number| added.push(number));
                    let new: Vec<u64> = (start..start + len).filter(|number| model.insert(*number)).collect();
                    prop_assert_eq!(added, new);
                }
                let flat: Vec<u64> = ranges.iter().cloned().flatten().collect();
                prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
                prop_assert!(ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.end < b.start));
                prop_assert_eq!(ranges.is_empty(), model.is_empty());
            }
        }
    }
}
