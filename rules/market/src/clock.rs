//! When a hoster is challenged.
//!
//! Every hoster has a `phase` within the period. Its challenge number `n` is in block `n × period + phase`; the proof may be in any
//! block after that, up to `deadline` blocks later. So nothing is written on the ledger when a challenge is due.
//!
//! ```text
//! blocks   …|c(n)············|c(n)+W ···················|c(n+1)…
//!           |← window: what |  what changed meanwhile   |
//!           |  is held is   |  applies from c(n+1)      |
//!           |  frozen       |                           |
//! ```

use crate::{Block, params::Params};

/// The number of the latest challenge at or before `now`, if there was one.
pub fn latest(phase: Block, now: Block, params: &Params) -> Option<u32> {
    now.checked_sub(phase).map(|since| since / params.period)
}

/// The number of the first challenge after `now`.
pub fn next(phase: Block, now: Block, params: &Params) -> u32 {
    latest(phase, now, params).map_or(0, |number| number.saturating_add(1))
}

/// The block of challenge `number`; it is what the seed is drawn from.
pub fn block_of(phase: Block, number: u32, params: &Params) -> Block {
    number.saturating_mul(params.period).saturating_add(phase)
}

/// The last block in which challenge `number` can be answered.
pub fn closes(phase: Block, number: u32, params: &Params) -> Block {
    block_of(phase, number, params).saturating_add(params.deadline)
}

/// The challenge that can be answered in block `now`, if any.
pub fn open(phase: Block, now: Block, params: &Params) -> Option<u32> {
    let number = latest(phase, now, params)?;
    let asked = block_of(phase, number, params);
    (asked < now && now <= closes(phase, number, params)).then_some(number)
}

/// The phase and the number of the challenge whose last block was the one before `now`.
pub fn closed(now: Block, params: &Params) -> Option<(Block, u32)> {
    let asked = now.checked_sub(params.deadline)?.checked_sub(1)?;
    Some((asked % params.period, asked / params.period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARAMS: Params = Params::dev();

    #[test]
    fn a_challenge_is_answered_after_its_block_and_up_to_its_deadline() {
        let asked = block_of(3, 2, &PARAMS);
        assert_eq!(asked, 23);
        let answerable: alloc::vec::Vec<_> = (0..40).filter(|&now| open(3, now, &PARAMS) == Some(2)).collect();
        assert_eq!(answerable, [24, 25, 26, 27, 28]);
    }

    #[test]
    fn every_window_closes_once() {
        for phase in 0..PARAMS.period {
            let ours = |now| closed(now, &PARAMS).filter(|(of, _)| *of == phase).map(|(_, number)| (number, now));
            let seen: alloc::vec::Vec<_> = (0..50).filter_map(ours).collect();
            assert!(seen.len() >= 4);
            assert!(seen.iter().zip(0..).all(|(seen, n)| *seen == (n, closes(phase, n, &PARAMS) + 1)));
        }
    }

    proptest! {
        #[test]
        fn the_next_challenge_is_the_first_one_in_the_future(phase in 0u32..10, now in 0u32..1_000_000) {
            let number = next(phase, now, &PARAMS);
            prop_assert!(block_of(phase, number, &PARAMS) > now);
            prop_assert!(number == 0 || block_of(phase, number - 1, &PARAMS) <= now);
        }
    }
}
