//! Challenges: which chunks a hoster must show.
//!
//! The ledger keeps a running mix of verifiable randomness. From it, the hoster and the challenge's number comes a
//! seed, from the seed come [`DRAWS`] draws over all that the hoster holds: first a holding, then a byte by
//! chance, then the chunk around that byte. The holding is drawn by its pay, in every fourth draw evenly: so no holding
//! can be hidden behind one that pays much more, and what is hosted for nothing is asked for too.
//!
//! ```text
//! seed      = H("datdot/challenge" | mix 32 | number, u64 | hoster)
//! dice n    = the first 16 bytes of H(seed | n, u64), as an integer              n = 0, 1, 2, …
//! below(m)  = the next dice that is under the highest multiple of m, modulo m: no number is preferred
//! ```
//!
//! H is BLAKE2b-256, integers are little endian. Hoster and ledger compute the same positions.

use crate::{
    Hash,
    segment::{CHUNK_BYTES, Segment},
    tree::blake2b,
};
use alloc::vec::Vec;

/// Draws of one challenge; two that meet the same chunk share an opening.
pub const DRAWS: usize = 16;
/// Of so many draws, the last takes each holding with the same chance.
pub const EVEN: usize = 4;

/// What is under one contract: its segments, and how much they weigh in the draw.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    /// Pay for a period, or anything proportional to it.
    pub pay: u128,
    /// What is held.
    pub segments: &'a [Segment],
}

impl Holding<'_> {
    fn bytes(&self) -> u128 {
        self.segments.iter().map(|segment| u128::from(segment.bytes)).sum()
    }
}

/// A chunk that must be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which holding, by its place in the list.
    pub holding: usize,
    /// Which of its segments, by its place there.
    pub place: usize,
    /// That segment.
    pub segment: Segment,
    /// Which chunk of it.
    pub chunk: u64,
}

/// The seed of a hoster's challenge. The hoster comes last because its account may have any length.
pub fn seed(mix: &Hash, hoster: &[u8], number: u64) -> Hash {
    blake2b(&[b"datdot/challenge", mix, &number.to_le_bytes(), hoster])
}

/// The chunks to show: at most `draws`, sorted, without doubles; none if nothing is held.
///
/// Holdings are drawn by pay (if none of them is paid, by bytes), in every [`EVEN`]th draw evenly. Those without bytes are
/// never drawn.
pub fn positions(seed: &Hash, holdings: &[Holding<'_>], draws: usize) -> Vec<Position> {
    let paid = |holding: &Holding<'_>| if holding.bytes() == 0 { 0 } else { holding.pay };
    let is_paid = holdings.iter().any(|holding| paid(holding) > 0);
    let weigh = |draw: usize, holding: &Holding<'_>| match draw % EVEN {
        last if last == EVEN - 1 => (holding.bytes() > 0).into(),
        _ if is_paid => paid(holding),
        _ => holding.bytes(),
    };

    let mut dice = Dice::new(*seed);
    let mut drawn: Vec<_> = (0..draws)
        .filter_map(|draw| {
            let (holding, _) = dice.pick(holdings.iter().map(|holding| weigh(draw, holding)))?;
            let segments = holdings.get(holding)?.segments;
            let (place, byte) = dice.pick(segments.iter().map(|segment| u128::from(segment.bytes)))?;
            Some(Position { holding, place, segment: *segments.get(place)?, chunk: byte as u64 / CHUNK_BYTES })
        })
        .collect();
    drawn.sort_unstable();
    drawn.dedup();
    drawn
}

/// Chance out of a seed: the same numbers for everyone.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: Hash,
    thrown: u64,
}

impl Dice {
    /// The dice of a seed, from the first throw on.
    pub fn new(seed: Hash) -> Dice {
        Dice { seed, thrown: 0 }
    }

    /// A number under `end`, each as likely as any other; 0 if `end` is 0.
    pub fn below(&mut self, end: u128) -> u128 {
        if end == 0 {
            return 0;
        }
        // 2^128 modulo end: so many of the highest throws would prefer the lowest numbers.
        let surplus = (u128::MAX % end + 1) % end;
        loop {
            // At least every second throw is good, so this ends.
            let throw = self.throw();
            if throw <= u128::MAX - surplus {
                return throw % end;
            }
        }
    }

    /// One of several by weight, and how far into its weight the draw fell; none if all weights are 0. A sum above
    /// the largest u128 is cut there, and what is beyond is not drawn.
    pub fn pick(&mut self, weights: impl Iterator<Item = u128> + Clone) -> Option<(usize, u128)> {
        let total = weights.clone().fold(0u128, u128::saturating_add);
        let mut left = self.below(total);
        for (at, weight) in weights.enumerate() {
            if left < weight {
                return Some((at, left));
            }
            left -= weight;
        }
        None
    }

    fn throw(&mut self) -> u128 {
        let hash = blake2b(&[&self.seed, &self.thrown.to_le_bytes()]);
        self.thrown += 1;
        u128::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn segments(bytes: &[u64]) -> Vec<Segment> {
        bytes.iter().map(|bytes| Segment { bytes: *bytes, root: [0; 32] }).collect()
    }

    /// How often each holding is drawn in many challenges.
    fn shares(holdings: &[Holding<'_>], challenges: u64) -> Vec<usize> {
        let mut shares = vec![0; holdings.len()];
        for number in 0..challenges {
            let seed = seed(&[3; 32], b"hoster", number);
            positions(&seed, holdings, DRAWS).iter().for_each(|position| shares[position.holding] += 1);
        }
        shares
    }

    #[test]
    fn a_seed_is_of_one_mix_one_hoster_and_one_number() {
        let one = seed(&[1; 32], b"alice", 1);
        assert_eq!(one, blake2b(&[b"datdot/challenge", &[1; 32], &[1, 0, 0, 0, 0, 0, 0, 0], b"alice"]));
        assert!(one != seed(&[2; 32], b"alice", 1) && one != seed(&[1; 32], b"alicf", 1));
        assert_ne!(one, seed(&[1; 32], b"alice", 2));
    }

    #[test]
    fn three_draws_of_four_go_by_pay_whatever_the_bytes_and_one_goes_evenly() {
        let (small, large) = (segments(&[1 << 30]), segments(&[1 << 40]));
        let holdings = [Holding { pay: 3, segments: &small }, Holding { pay: 1, segments: &large }];
        let shares = shares(&holdings, 1000);
        // 12 of 16 are shared 3 : 1, 4 of 16 are halved.
        assert!((10_600..11_400).contains(&shares[0]), "{shares:?}");
        assert!((4_600..5_400).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn nothing_is_hidden_behind_a_holding_that_pays_much_more() {
        let segments = segments(&[1 << 30]);
        let hidden = [0, 1].map(|pay| Holding { pay, segments: &segments });
        let holdings = [hidden[0], hidden[1], Holding { pay: 1 << 100, segments: &segments }];
        let shares = shares(&holdings, 1000);
        assert!(shares[..2].iter().all(|share| (1_100..1_600).contains(share)), "{shares:?}");
    }

    #[test]
    fn unpaid_holdings_are_drawn_by_bytes() {
        let (one, three) = (segments(&[1 << 30]), segments(&[1 << 30, 2 << 30]));
        let holdings = [Holding { pay: 0, segments: &one }, Holding { pay: 0, segments: &three }];
        let shares = shares(&holdings, 1000);
        assert!((4_600..5_400).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn what_has_no_bytes_is_never_drawn() {
        let (none, empty, full) = (segments(&[]), segments(&[0, 0]), segments(&[0, 5, 0]));
        let holdings = [&none, &empty, &full].map(|segments| Holding { pay: 1 << 100, segments });
        let drawn = positions(&[9; 32], &holdings, DRAWS);
        assert_eq!(drawn, [Position { holding: 2, place: 1, segment: full[1], chunk: 0 }]);
        assert_eq!(positions(&[9; 32], &holdings[..2], DRAWS), []);
        assert_eq!(positions(&[9; 32], &[], DRAWS), []);
    }

    #[test]
    fn draws_do_not_change() {
        // What the ledger draws must be what hosters of any version draw.
        let segments = segments(&[1_000_000, 5_000_000]);
        let holdings = [Holding { pay: 7, segments: &segments }, Holding { pay: 4, segments: &segments[..1] }];
        let drawn = positions(&seed(&[0; 32], &[1; 32], 42), &holdings, 6);
        let brief: Vec<_> = drawn.iter().map(|at| (at.holding, at.place, at.chunk)).collect();
        assert_eq!(brief, [(0, 1, 701), (0, 1, 3089), (1, 0, 206), (1, 0, 506), (1, 0, 632), (1, 0, 917)]);
    }

    proptest! {
        #[test]
        fn positions_are_sorted_distinct_and_inside(
            seed: [u8; 32],
            held in prop::collection::vec((any::<u128>(), prop::collection::vec(any::<u64>(), 0..4)), 0..6),
        ) {
            let held: Vec<_> = held.into_iter().map(|(pay, bytes)| (pay, segments(&bytes))).collect();
            let holdings: Vec<_> = held.iter().map(|(pay, segments)| Holding { pay: *pay, segments }).collect();
            let drawn = positions(&seed, &holdings, DRAWS);
            prop_assert!(drawn.len() <= DRAWS && drawn.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(drawn.is_empty(), holdings.iter().all(|holding| holding.bytes() == 0));
            for at in &drawn {
                prop_assert_eq!(at.segment, holdings[at.holding].segments[at.place]);
                prop_assert!(at.segment.chunk_bytes(at.chunk).is_some());
            }
        }

        #[test]
        fn dice_stay_below(seed: [u8; 32], end in 1..=u128::MAX) {
            prop_assert!(Dice::new(seed).below(end) < end);
        }
    }
}
