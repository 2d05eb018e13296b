//! A hoster on the ledger: its offer, its bond, what it holds and which challenges it owes.

use crate::{
    Balance, Block, ContractId, MAX_CONTRACTS, clock,
    params::Params,
    terms::{Offer, Segments},
};
use bounded_collections::{BoundedVec, ConstU32};
use codec::{Decode, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// Draws in a row that a hoster may leave unanswered before its offer is no longer drawn.
pub const MAX_SILENCE: u32 = 3;

/// A hoster's standing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Hoster {
    /// Its terms.
    pub offer: Offer,
    /// Whether it takes new contracts.
    pub standing: Standing,
    /// Its block within the period: see [`clock`].
    pub phase: Block,
    /// What is held of its account as bond.
    pub bond: Balance,
    /// Bytes of `offer.space` that its contracts reserve.
    pub used: u64,
    /// Its contracts, whatever their state; at most [`MAX_CONTRACTS`].
    pub contracts: u32,
    /// Number of the first challenge that it has not answered.
    pub owes_from: u32,
    /// Draws in a row that came to nothing without a word: neither taken nor passed, or taken and not accepted in time.
    pub silent: u32,
    /// When the offer was posted or changed last.
    pub since: Block,
}

/// Whether a hoster takes new contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub enum Standing {
    /// Its offer stands.
    #[codec(index = 0)]
    Open,
    /// It was silent [`MAX_SILENCE`] times or lapsed; posting the offer again opens it.
    #[codec(index = 1)]
    Away,
    /// It takes nothing new; with its last contract the offer goes and the bond returns.
    #[codec(index = 2)]
    Leaving,
}

/// A contract as its hoster's challenges see it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, TypeInfo, MaxEncodedLen)]
pub struct Holding {
    /// The contract.
    pub contract: ContractId,
    /// Price × bytes: how often its chunks are drawn.
    pub weight: u128,
    /// What is held.
    pub segments: Segments,
    /// Number of the first challenge that covers it.
    pub first: u32,
    /// Number of the first challenge that no longer covers it.
    pub until: u32,
    /// Challenges answered while it was covered: its earned time in periods.
    pub proven: u32,
}

/// All that a hoster holds.
pub type Holdings = BoundedVec<Holding, ConstU32<MAX_CONTRACTS>>;

/// Why a challenge can't be answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDue {
    /// No window is open, or the number is of another one.
    #[error("challenge {0} can't be answered in this block: too early or past its deadline")]
    NotOpen(u32),
    /// Answered before.
    #[error("challenge {0} was answered before")]
    Answered(u32),
    /// Nothing is held that it covers.
    #[error("challenge {0} covers nothing")]
    Nothing(u32),
}

impl Holding {
    /// Whether challenge `number` asks for it.
    pub fn is_covered_by(&self, number: u32) -> bool {
        (self.first..self.until).contains(&number)
    }
}

/// What challenge `number` asks for, in the order in which positions are drawn.
pub fn covered(holdings: &[Holding], number: u32) -> impl Iterator<Item = &Holding> {
    holdings.iter().filter(move |holding| holding.is_covered_by(number))
}

impl Hoster {
    /// Free bytes of the offer.
    pub fn free(&self) -> u64 {
        self.offer.space.saturating_sub(self.used)
    }

    /// Whether a draw in block `now` may name it, the offer's terms apart. An offer must stand for some blocks: who makes the block
    /// before a draw knows its randomness, and could choose an offer by it.
    pub fn is_drawable(&self, now: Block, params: &Params) -> bool {
        self.standing == Standing::Open
            && self.bond >= params.bond
            && self.contracts < MAX_CONTRACTS
            && self.since.saturating_add(params.match_after) <= now
    }

    /// Reserves the bytes of a contract that it was drawn for.
    pub fn reserve(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        self.contracts = self.contracts.saturating_add(1);
    }

    /// Gives back what [`Hoster::reserve`] took.
    pub fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        self.contracts = self.contracts.saturating_sub(1);
    }

    /// Notes that a draw was left unanswered.
    pub fn was_silent(&mut self) {
        self.silent = self.silent.saturating_add(1);
        if self.silent >= MAX_SILENCE && self.standing == Standing::Open {
            self.standing = Standing::Away;
        }
    }

    /// Notes that a holding comes in whose first challenge is number `first`. After a time without anything to prove, what was owed
    /// before is forgotten: misses count in a row.
    pub fn takes_in(&mut self, holdings: &[Holding], first: u32) {
        if !holdings.iter().any(|holding| holding.until >= first) {
            self.owes_from = self.owes_from.max(first);
        }
    }

    /// Notes that all its contracts lapsed after challenge `number`: its offer rests until it is posted again.
    pub fn lapsed(&mut self, number: u32) {
        self.owes_from = number.saturating_add(1);
        if self.standing == Standing::Open {
            self.standing = Standing::Away;
        }
    }

    /// The challenge that is due in block `now`: open, not answered, and covering something.
    pub fn due(&self, holdings: &[Holding], number: u32, now: Block, params: &Params) -> Result<(), NotDue> {
        if clock::open(self.phase, now, params) != Some(number) {
            return Err(NotDue::NotOpen(number));
        }
        if number < self.owes_from {
            return Err(NotDue::Answered(number));
        }
        covered(holdings, number).next().map(|_| ()).ok_or(NotDue::Nothing(number))
    }

    /// Notes a valid proof for challenge `number`: all that it covers has earned a period.
    pub fn proved(&mut self, holdings: &mut [Holding], number: u32) {
        self.owes_from = number.saturating_add(1);
        for holding in holdings.iter_mut().filter(|holding| holding.is_covered_by(number)) {
            holding.proven = holding.proven.saturating_add(1);
        }
    }

    /// Challenges missed in a row, once the deadline of challenge `number` is over.
    pub fn missed(&self, holdings: &[Holding], number: u32) -> u32 {
        if covered(holdings, number).next().is_none() {
            return 0;
        }
        number.saturating_add(1).saturating_sub(self.owes_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: Params = Params::dev();

    fn hoster() -> Hoster {
        let offer = Offer {
            space: 100,
            price: 1,
            max_term: 100,
            region: None,
            noise_key: [0; 32],
            addresses: BoundedVec::new(),
        };
        Hoster {
            offer,
            standing: Standing::Open,
            phase: 3,
            bond: PARAMS.bond,
            used: 0,
            contracts: 0,
            owes_from: 1,
            silent: 0,
            since: 0,
        }
    }

    fn holding(first: u32, until: u32) -> Holding {
        Holding { contract: 0, weight: 1, segments: Segments::new(), first, until, proven: 0 }
    }

    #[test]
    fn a_proof_earns_a_period_for_what_its_challenge_covers_and_nothing_else() {
        let (mut hoster, mut holdings) = (hoster(), [holding(1, 5), holding(2, 5), holding(0, 1)]);
        assert_eq!(hoster.due(&holdings, 1, 14, &PARAMS), Ok(()));
        hoster.proved(&mut holdings, 1);
        assert_eq!(holdings.map(|holding| holding.proven), [1, 0, 0]);
        assert_eq!(hoster.due(&[], 1, 14, &PARAMS), Err(NotDue::Answered(1)));
    }

    #[test]
    fn a_challenge_is_not_due_before_its_block_after_its_deadline_or_for_nothing() {
        let (hoster, holdings) = (hoster(), [holding(1, 5)]);
        for now in [13, 19] {
            assert_eq!(hoster.due(&holdings, 1, now, &PARAMS), Err(NotDue::NotOpen(1)));
        }
        assert_eq!(hoster.due(&[holding(2, 5)], 1, 14, &PARAMS), Err(NotDue::Nothing(1)));
    }

    #[test]
    fn misses_count_in_a_row_and_a_proof_ends_the_row() {
        let (mut hoster, mut holdings) = (hoster(), [holding(1, 9)]);
        assert_eq!(hoster.missed(&holdings, 1), 1);
        assert_eq!(hoster.missed(&holdings, 2), 2);
        hoster.proved(&mut holdings, 3);
        assert_eq!(hoster.missed(&holdings, 4), 1);
    }

    #[test]
    fn nothing_is_owed_for_a_time_without_holdings() {
        let mut hoster = hoster();
        hoster.takes_in(&[holding(1, 5)], 50);
        assert_eq!(hoster.missed(&[holding(50, 60)], 50), 1);
        hoster.takes_in(&[holding(50, 60)], 52);
        assert_eq!(hoster.missed(&[holding(50, 60), holding(52, 60)], 52), 3);
    }

    #[test]
    fn an_offer_is_drawn_only_after_it_has_stood_for_some_blocks() {
        let hoster = Hoster { since: 40, ..hoster() };
        assert!(!hoster.is_drawable(39 + PARAMS.match_after, &PARAMS));
        assert!(hoster.is_drawable(40 + PARAMS.match_after, &PARAMS));
    }

    #[test]
    fn three_silences_take_an_offer_out_of_the_draw() {
        let mut hoster = hoster();
        for _ in 0..MAX_SILENCE {
            assert!(hoster.is_drawable(50, &PARAMS));
            hoster.was_silent();
        }
        assert!(!hoster.is_drawable(50, &PARAMS));
    }
}
