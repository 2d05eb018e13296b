//! Spans of time: `30d`, `12h`, `90s`. The ledger counts time in blocks.

use super::decimal;
use std::str::FromStr;

/// A span of time in milliseconds, more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    millis: u64,
}

/// Not a span of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpan {
    /// No unit that we know.
    #[error(
        "`{0}` has no unit that is known here: write a number and one of s, min, h, d, w (seconds to weeks), as in 30d"
    )]
    Unit(String),
    /// No number.
    #[error("`{0}` is not a span of time: write a number and a unit, as in 30d or 12h")]
    Number(String),
    /// No time at all.
    #[error("a span of time must be more than zero: write for example 30d")]
    Zero,
    /// Longer than the ledger can count.
    #[error("`{0}` is longer than the ledger can count")]
    TooLong(String),
}

impl Span {
    /// The span as blocks of `block_millis` milliseconds each, rounded up; `None` if the ledger can't count so far.
    pub fn blocks(self, block_millis: u32) -> Option<u32> {
        u32::try_from(self.millis.div_ceil(u64::from(block_millis.max(1)))).ok()
    }
}

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let (number, unit) = decimal::split_unit(text);
        if number.is_empty() {
            return Err(BadSpan::Number(text.into()));
        }
        let seconds: u128 = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(BadSpan::Unit(text.into())),
        };
        let millis = decimal::times(number, seconds * 1_000).ok_or_else(|| BadSpan::Number(text.into()))?;
        match u64::try_from(millis) {
            Ok(0) => Err(BadSpan::Zero),
            Ok(millis) => Ok(Self { millis }),
            Err(_) => Err(BadSpan::TooLong(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str, block_millis: u32) -> Option<u32> {
        text.parse::<Span>().unwrap().blocks(block_millis)
    }

    #[test]
    fn spans_become_blocks_rounded_up() {
        assert_eq!(blocks("30d", 6_000), Some(432_000));
        assert_eq!(blocks("90s", 1_000), Some(90));
        assert_eq!(blocks("7s", 6_000), Some(2));
        assert_eq!(blocks("1.5h", 1_000), Some(5_400));
        assert_eq!(blocks("99999w", 1_000), None);
    }

    #[test]
    fn zero_is_no_span() {
        assert_eq!("0d".parse::<Span>(), Err(BadSpan::Zero));
    }

    #[test]
    fn a_wrong_unit_is_answered_with_the_right_ones() {
        let error = "30 days".parse::<Span>().unwrap_err();
        assert_eq!(error, BadSpan::Unit("30 days".into()));
        assert!(error.to_string().contains("s, min, h, d, w"), "{error}");
        assert!(matches!("30".parse::<Span>(), Err(BadSpan::Unit(_))));
        assert!(matches!("d".parse::<Span>(), Err(BadSpan::Number(_))));
    }
}
