//! The numbers of a chain: set in its genesis, the same for everybody, documented here and nowhere else.

use crate::{Balance, Block, GIB};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use core::fmt;
use scale_info::TypeInfo;

/// One DAT, the ledger's coin, in its smallest unit (12 decimals).
pub const DAT: Balance = 1_000_000_000_000;

/// An amount as text, exactly: `0.5 DAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dat(pub Balance);

impl fmt::Display for Dat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut fraction, mut digits) = (self.0 / DAT, self.0 % DAT, 12);
        if fraction == 0 {
            return write!(f, "{whole} DAT");
        }
        while fraction.is_multiple_of(10) {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        write!(f, "{whole}.{fraction:0digits$} DAT")
    }
}

/// Parameters of the market. See [`Params::dev`] and [`Params::production`] for the two sets in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "camelCase"))]
pub struct Params {
    /// Target time between blocks in milliseconds: 1,000 in the dev chain, 6,000 in production.
    pub block_millis: u32,
    /// Blocks between two challenges of one hoster.
    pub period: Block,
    /// Blocks after a challenge within which its proof must be on the ledger; less than `period`.
    pub deadline: Block,
    /// Challenges missed in a row after which all contracts of a hoster lapse.
    pub misses_until_lapse: u32,
    /// Blocks between a request (or a vacancy) and the draw, so that its randomness can't be known before.
    pub match_after: Block,
    /// Blocks that a drawn hoster has to take or pass.
    pub answer_within: Block,
    /// Blocks that any fetch may take, however small.
    pub fetch_base: Block,
    /// Bytes a block that a fetch is expected to reach: more bytes, later deadline.
    pub fetch_rate: u64,
    /// Blocks until a slot that found no hoster is tried again; doubles with each try.
    pub retry_after: Block,
    /// Longest interval between two tries, in blocks.
    pub retry_at_most: Block,
    /// Blocks for which a hoster that passed, was silent or failed is not drawn again for the same request.
    pub rest: Block,
    /// Bond that an offer holds: one fixed amount.
    pub bond: Balance,
    /// What a hoster's bond loses to the request's budget for each contract that lapses or is forfeited, if the contract
    /// reserved as much; otherwise what it reserved.
    pub penalty: Balance,
    /// What a request holds of its sponsor until it is closed: so much for itself and again for each replica. It returns whole; it
    /// is there so that nobody can fill the ledger for nothing.
    pub deposit: Balance,
}

/// A parameter set that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameters contradict themselves: {0}")]
pub struct BadParams(pub &'static str);

impl Params {
    /// The dev chain: seconds instead of hours, so that a whole life of a request fits into a minute.
    pub const fn dev() -> Self {
        Self {
            block_millis: 1_000,
            period: 10,
            deadline: 5,
            misses_until_lapse: 3,
            match_after: 2,
            answer_within: 15,
            fetch_base: 60,
            fetch_rate: 4 << 20,
            retry_after: 2,
            retry_at_most: 30,
            rest: 60,
            bond: 100 * DAT,
            penalty: DAT,
            deposit: DAT,
        }
    }

    /// Production: a challenge a day, four hours to answer it.
    pub const fn production() -> Self {
        Self {
            block_millis: 6_000,
            period: 14_400,
            deadline: 2_400,
            misses_until_lapse: 3,
            match_after: 4,
            answer_within: 600,
            fetch_base: 600,
            fetch_rate: 3 << 20,
            retry_after: 10,
            retry_at_most: 14_400,
            rest: 14_400,
            bond: 100 * DAT,
            penalty: DAT,
            deposit: DAT,
        }
    }

    /// The deposit of a request for so many replicas.
    pub fn deposit_for(&self, replicas: u32) -> Balance {
        self.deposit.saturating_mul(Balance::from(replicas).saturating_add(1))
    }

    /// Blocks in a day: the unit of time in which space is priced.
    pub const fn day(&self) -> Block {
        86_400_000 / self.block_millis
    }

    /// Blocks that fetching `bytes` may take.
    pub fn fetch_within(&self, bytes: u64) -> Block {
        let by_bytes = Block::try_from(bytes / self.fetch_rate).unwrap_or(Block::MAX);
        self.fetch_base.saturating_add(by_bytes)
    }

    /// Blocks to wait after `tries` fruitless draws.
    pub fn retry_within(&self, tries: u32) -> Block {
        let doubled = self.retry_after.saturating_mul(1u32.checked_shl(tries.min(31)).unwrap_or(u32::MAX));
        doubled.min(self.retry_at_most)
    }

    /// Checks that the numbers make sense together. A chain refuses to start otherwise.
    pub fn check(&self) -> Result<(), BadParams> {
        let rules = [
            (self.block_millis >= 100 && self.block_millis <= 86_400_000, "block_millis must be 100 to 86,400,000"),
            (
                self.deadline >= 1 && self.deadline + 1 < self.period,
                "deadline must be at least 1 and less than period - 1",
            ),
            (self.misses_until_lapse >= 1, "misses_until_lapse must be at least 1"),
            (self.match_after >= 1, "match_after must be at least 1, or the draw could be known before the request"),
            (self.answer_within >= 1 && self.fetch_base >= 1, "hosters need time to answer and to fetch"),
            (self.fetch_rate >= 1, "fetch_rate must be at least 1 byte a block"),
            (
                self.retry_after >= 1 && self.retry_at_most >= self.retry_after,
                "retry_at_most must not be below retry_after",
            ),
            (
                self.penalty.saturating_mul(crate::MAX_CONTRACTS as u128) <= self.bond,
                "a full set of contracts must not lose more than the bond",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(BadParams(why)))
    }

    /// `GiB × day` in `byte × blocks`: the divisor of every price.
    pub(crate) fn gib_day(&self) -> u128 {
        GIB as u128 * self.day() as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn both_sets_make_sense_and_a_contradiction_is_named() {
        assert_eq!((Params::dev().check(), Params::production().check()), (Ok(()), Ok(())));
        let late = Params { deadline: 9, ..Params::dev() };
        assert!(late.check().unwrap_err().0.contains("deadline"));
    }

    #[test]
    fn amounts_are_written_exactly() {
        assert_eq!(Dat(0).to_string(), "0 DAT");
        assert_eq!(Dat(DAT / 2).to_string(), "0.5 DAT");
        assert_eq!(Dat(1).to_string(), "0.000000000001 DAT");
        assert_eq!(Dat(1_234 * DAT + 50).to_string(), "1234.00000000005 DAT");
    }
}
