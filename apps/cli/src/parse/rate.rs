//! How much may pass in a second: `5MB/s`, or `none` for as much as there is.

use super::size::{BadSize, Size};
use datdot_api::limits::{self, TooLow};
use std::str::FromStr;

/// A limit in bytes per second; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

/// Not a rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// Lines are sold in bits: a guess may be eight times too much.
    #[error("`{0}` may mean bits: write bytes, with a large B, as in 5MB/s (which is 40 Mbit/s)")]
    Bits(String),
    /// No number with a unit that we know.
    #[error(
        "`{0}` is not a rate: write a number and one of B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024), as in 5MB/s; or `none` for no limit"
    )]
    Form(String),
    /// Less than peers could live with.
    #[error(transparent)]
    TooLow(#[from] TooLow),
    /// More than 64 bits.
    #[error("`{0}` is more than any line carries: write `none` for no limit")]
    TooLarge(String),
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let amount = text.strip_suffix("/s").unwrap_or(text).trim_end();
        if amount.ends_with('b') || amount.to_ascii_lowercase().contains("bit") || amount.ends_with("bps") {
            return Err(BadRate::Bits(text.into()));
        }
        let rate = amount.parse::<Size>().map_err(|error| match error {
            BadSize::Unit(_) | BadSize::Number(_) => BadRate::Form(text.into()),
            BadSize::Zero => BadRate::TooLow(TooLow),
            BadSize::TooLarge(_) => BadRate::TooLarge(text.into()),
        });
        let Size(rate) = rate?;
        limits::check(rate)?;
        Ok(Self(Some(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_size_with_or_without_its_second_or_none() {
        for (text, rate) in [
            ("5MB/s", Some(5_000_000)),
            ("500KB", Some(500_000)),
            ("500 kB/s", Some(500_000)),
            ("1.5MiB /s", Some(3 << 19)),
            ("20000B/s", Some(20_000)),
            (" none ", None),
            ("NONE", None),
        ] {
            assert_eq!(text.parse(), Ok(Rate(rate)), "{text}");
        }
    }

    #[test]
    fn what_may_mean_bits_is_not_guessed() {
        for text in ["5Mb/s", "5mb/s", "5Mbit/s", "5 mbit", "5Mbps", "40MBit/s"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error, BadRate::Bits(text.into()));
            assert!(error.to_string().contains("5MB/s"), "{error}");
        }
    }

    #[test]
    fn what_is_no_rate_is_answered_with_what_one_looks_like() {
        for text in ["", "5", "5/s", "MB/s", "-5MB/s", "fast", "5MB/min", "5MB/s/s", "no"] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!(error, BadRate::Form(text.into()));
            let said = error.to_string();
            assert!(said.contains("5MB/s") && said.contains("KiB") && said.contains("`none`"), "{said}");
        }
    }

    #[test]
    fn too_little_to_live_with_and_too_much_to_count_are_refused() {
        for text in ["0B/s", "19kB/s", "1B"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate::TooLow(TooLow)), "{text}");
        }
        assert!(matches!("99999PB/s".parse::<Rate>(), Err(BadRate::TooLarge(_))));
    }
}
