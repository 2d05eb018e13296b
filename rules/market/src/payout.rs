//! What hosting costs and what was earned.
//!
//! ```text
//! due = floor(periods proven × period × price × bytes / (GiB × day))
//! ```
//!
//! The product is 256 bits wide, and the floor is taken once, of the total: paying every period or once at the end gives the same.

use crate::{Balance, Block, params::Params};
use primitive_types::U256;

/// Pay for `periods` whole periods of `bytes` bytes at `price` per GiB·day; `None` if it doesn't fit into a [`Balance`].
pub fn due(periods: u32, price: Balance, bytes: u64, params: &Params) -> Option<Balance> {
    let byte_blocks = U256::from(periods) * U256::from(params.period) * U256::from(bytes);
    let total = byte_blocks.checked_mul(U256::from(price))? / U256::from(params.gib_day());
    total.try_into().ok()
}

/// Whole periods that a term can hold, whatever the hoster's phase.
pub fn periods_at_most(term: Block, params: &Params) -> u32 {
    (term / params.period).saturating_add(1)
}

/// What a sponsor locks: every replica paid at the highest price for the longest that its term can be.
pub fn budget(replicas: u32, max_price: Balance, bytes: u64, term: Block, params: &Params) -> Option<Balance> {
    due(periods_at_most(term, params), max_price, bytes, params)?.checked_mul(replicas.into())
}

/// How many of `wanted` periods a budget pays for.
pub fn affordable(budget: Balance, wanted: u32, price: Balance, bytes: u64, params: &Params) -> u32 {
    let fits = |periods| due(periods, price, bytes, params).is_some_and(|cost| cost <= budget);
    if fits(wanted) {
        return wanted;
    }
    // The largest number that fits: `fits` is monotone and holds at 0.
    let (mut low, mut high) = (0, wanted);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GIB, params::DAT};
    use proptest::prelude::*;

    const PARAMS: Params = Params::dev();

    #[test]
    fn a_gib_for_a_day_costs_its_price() {
        let periods = PARAMS.day() / PARAMS.period;
        assert_eq!(due(periods, 3 * DAT, GIB, &PARAMS), Some(3 * DAT));
    }

    #[test]
    fn an_amount_that_is_too_large_is_refused_rather_than_wrapped() {
        assert_eq!(due(u32::MAX, u128::MAX, u64::MAX, &PARAMS), None);
    }

    proptest! {
        #[test]
        fn a_budget_pays_every_replica_whatever_its_phase(
            replicas in 1u32..16, price in 0u128..1_000 * DAT, bytes in 1u64..1 << 45, term in 20u32..1_000_000, now in 0u32..1_000_000, phases in proptest::collection::vec(0u32..10, 16),
        ) {
            let locked = budget(replicas, price, bytes, term, &PARAMS).unwrap();
            let ends = now + term;
            let needed: u128 = phases[..replicas as usize].iter().map(|&phase| {
                let periods = crate::clock::next(phase, ends - 1, &PARAMS) - crate::clock::next(phase, now, &PARAMS);
                due(periods, price, bytes, &PARAMS).unwrap()
            }).sum();
            prop_assert!(needed <= locked);
        }

        #[test]
        fn what_is_affordable_fits_and_one_more_does_not(budget in 0u128..1_000_000 * DAT, wanted in 0u32..100_000, price in 1u128..1_000 * DAT, bytes in 1u64..1 << 45) {
            let periods = affordable(budget, wanted, price, bytes, &PARAMS);
            prop_assert!(due(periods, price, bytes, &PARAMS).unwrap() <= budget);
            prop_assert!(periods == wanted || due(periods + 1, price, bytes, &PARAMS).unwrap() > budget);
        }
    }
}
