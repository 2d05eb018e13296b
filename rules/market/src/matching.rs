//! Matching: which hosters get a request.
//!
//! Same request, offers and seed give the same answer on the ledger and on every peer. A draw looks at no more than
//! [`MAX_LOOKED_AT`] hosters, which the ledger samples; among the first [`MAX_CANDIDATES`] whose offers fit, distinct ones are drawn
//! with a chance proportional to their free bytes, up to [`MAX_WEIGHT`].

use crate::{Balance, Block, hoster::Hoster, params::Params, payout, request::Why};
use alloc::vec::Vec;
use datdot_proof::challenge::Dice;

/// Hosters that a draw looks at.
pub const MAX_LOOKED_AT: u32 = 256;
/// Fitting offers among which it draws.
pub const MAX_CANDIDATES: u32 = 64;
/// Free bytes that count in a draw: a TiB. Bonds are one fixed amount, so space is a claim, and a larger one must not draw
/// everything.
pub const MAX_WEIGHT: u64 = 1 << 40;

/// What a replica needs of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes of one replica.
    pub bytes: u64,
    /// Highest price, per GiB·day.
    pub max_price: Balance,
    /// Blocks for which it would be hosted.
    pub term: Block,
    /// Money that is left for it.
    pub budget: Balance,
}

/// Why an offer doesn't fit, if it doesn't; in the order in which a sponsor would want to know.
fn misfit(wanted: &Wanted, hoster: &Hoster, params: &Params) -> Option<Why> {
    if hoster.offer.price > wanted.max_price {
        Some(Why::PriceTooLow)
    } else if hoster.offer.max_term < wanted.term {
        Some(Why::TermTooLong)
    } else if hoster.free() < wanted.bytes {
        Some(Why::NoSpace)
    } else if payout::affordable(wanted.budget, 1, hoster.offer.price, wanted.bytes, params) == 0 {
        Some(Why::BudgetSpent)
    } else {
        None
    }
}

/// Draws up to `vacancies` distinct hosters. With fewer than that comes the reason that failed most.
///
/// `candidates` are distinct hosters; `free_to_draw` says whether one may be drawn for this request at all.
pub fn draw<Account: Ord + Clone>(
    wanted: &Wanted,
    candidates: &[(Account, Hoster)],
    free_to_draw: impl Fn(&Account) -> bool,
    vacancies: u32,
    seed: [u8; 32],
    now: Block,
    params: &Params,
) -> (Vec<Account>, Option<Why>) {
    let mut pool = Vec::new();
    let mut failed = Failures::default();
    for (account, hoster) in candidates.iter().filter(|(_, hoster)| hoster.is_drawable(now, params)) {
        if pool.len() == MAX_CANDIDATES as usize {
            break;
        }
        match misfit(wanted, hoster, params) {
            Some(why) => failed.count(why),
            None if !free_to_draw(account) => failed.count(Why::NoOtherHosters),
            None => pool.push((account, hoster.free().min(MAX_WEIGHT))),
        }
    }
    // The ledger's order of candidates is an accident of its storage.
    pool.sort_by(|a, b| a.0.cmp(b.0));
    let mut drawn = Vec::new();
    let mut dice = Dice::new(seed);
    while (drawn.len() as u32) < vacancies
        && let Some((at, _)) = dice.pick(pool.iter().map(|(_, free)| u128::from(*free)))
    {
        drawn.push(pool.remove(at).0.clone());
    }
    let why = ((drawn.len() as u32) < vacancies)
        .then(|| failed.most().unwrap_or(if drawn.is_empty() { Why::NoOffers } else { Why::NoOtherHosters }));
    (drawn, why)
}

#[derive(Default)]
struct Failures([(u32, Option<Why>); 5]);

impl Failures {
    fn count(&mut self, why: Why) {
        let place = self.0.iter_mut().find(|(_, known)| known.is_none_or(|known| known == why));
        if let Some((times, known)) = place {
            *times += 1;
            *known = Some(why);
        }
    }

    fn most(&self) -> Option<Why> {
        self.0.iter().filter(|(times, _)| *times > 0).max_by_key(|(times, _)| *times).and_then(|(_, why)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hoster::Standing, terms::Offer};
    use alloc::{vec, vec::Vec};
    use bounded_collections::BoundedVec;
    use proptest::prelude::*;

    const PARAMS: Params = Params::dev();
    const NOW: Block = 10;
    const WANTED: Wanted = Wanted { bytes: 10, max_price: 5, term: 100, budget: 1 };

    fn hoster(price: Balance, space: u64) -> Hoster {
        let offer =
            Offer { space, price, max_term: 100, region: None, noise_key: [0; 32], addresses: BoundedVec::new() };
        Hoster {
            offer,
            standing: Standing::Open,
            phase: 0,
            bond: PARAMS.bond,
            used: 0,
            contracts: 0,
            owes_from: 0,
            silent: 0,
            since: 0,
        }
    }

    fn three() -> Vec<(u32, Hoster)> {
        (0..3).map(|account| (account, hoster(5, 10))).collect()
    }

    #[test]
    fn a_draw_names_distinct_hosters() {
        let (mut drawn, why) = draw(&WANTED, &three(), |_| true, 3, [7; 32], NOW, &PARAMS);
        drawn.sort();
        assert_eq!((drawn, why), (vec![0, 1, 2], None));
    }

    #[test]
    fn the_order_of_candidates_does_not_matter() {
        let mut turned = three();
        turned.reverse();
        assert_eq!(
            draw(&WANTED, &three(), |_| true, 2, [7; 32], NOW, &PARAMS),
            draw(&WANTED, &turned, |_| true, 2, [7; 32], NOW, &PARAMS)
        );
    }

    #[test]
    fn what_failed_most_is_the_reason() {
        let offers = [(0, hoster(6, 10)), (1, hoster(6, 10)), (2, hoster(5, 9))];
        assert_eq!(draw(&WANTED, &offers, |_| true, 1, [7; 32], NOW, &PARAMS), (vec![], Some(Why::PriceTooLow)));
        assert_eq!(draw::<u32>(&WANTED, &[], |_| true, 1, [7; 32], NOW, &PARAMS), (vec![], Some(Why::NoOffers)));
        assert_eq!(draw(&WANTED, &three(), |_| false, 1, [7; 32], NOW, &PARAMS), (vec![], Some(Why::NoOtherHosters)));
    }

    #[test]
    fn nobody_is_made_to_fetch_what_the_budget_does_not_pay_for() {
        let (price, bytes) = (crate::params::DAT, crate::GIB);
        let wanted = Wanted { bytes, max_price: price, term: 100, budget: 1 };
        let offers = [(0, hoster(price, 2 * bytes))];
        assert_eq!(draw(&wanted, &offers, |_| true, 1, [7; 32], NOW, &PARAMS), (vec![], Some(Why::BudgetSpent)));
    }

    #[test]
    fn a_hoster_is_drawn_about_as_often_as_its_free_space_says() {
        let offers = [(0, hoster(1, 100)), (1, hoster(1, 300))];
        let larger = (0..1_000u32)
            .filter(|i| {
                let seed = core::array::from_fn(|at| i.to_le_bytes()[at % 4]);
                draw(&WANTED, &offers, |_| true, 1, seed, NOW, &PARAMS).0 == [1]
            })
            .count();
        assert!((700..800).contains(&larger), "{larger} of 1,000");
    }

    #[test]
    fn who_claims_all_space_there_is_draws_no_more_than_a_tib_does() {
        let offers = [(0, hoster(1, MAX_WEIGHT)), (1, hoster(1, u64::MAX))];
        let boaster = (0..1_000u32)
            .filter(|i| {
                let seed = core::array::from_fn(|at| i.to_le_bytes()[at % 4]);
                draw(&WANTED, &offers, |_| true, 1, seed, NOW, &PARAMS).0 == [1]
            })
            .count();
        assert!((450..550).contains(&boaster), "{boaster} of 1,000");
    }

    #[test]
    fn few_fitting_offers_are_found_among_many_others() {
        let offers: Vec<_> = (0..200).map(|n| (n, hoster(if n % 50 == 49 { 5 } else { 6 }, 10))).collect();
        let (mut drawn, why) = draw(&WANTED, &offers, |_| true, 4, [7; 32], NOW, &PARAMS);
        drawn.sort();
        assert_eq!((drawn, why), (vec![49, 99, 149, 199], None));
    }

    proptest! {
        #[test]
        fn nobody_is_drawn_whose_terms_do_not_fit(
            offers in proptest::collection::vec((0u128..10, 0u64..20), 0..64), vacancies in 0u32..16, seed: [u8; 32],
        ) {
            let offers: Vec<_> = offers.into_iter().enumerate().map(|(account, (price, space))| (account, hoster(price, space))).collect();
            let (drawn, why) = draw(&WANTED, &offers, |account| account % 2 == 0, vacancies, seed, NOW, &PARAMS);
            for account in &drawn {
                prop_assert!(account % 2 == 0 && offers[*account].1.offer.price <= 5 && offers[*account].1.free() >= 10);
            }
            prop_assert_eq!(why.is_some(), (drawn.len() as u32) < vacancies);
        }
    }
}
