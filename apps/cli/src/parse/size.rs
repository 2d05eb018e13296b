//! Sizes of data: `50GB`, `64MiB`.

use super::decimal;
use std::str::FromStr;

/// A number of bytes, more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    /// No unit that we know.
    #[error(
        "`{0}` has no unit that is known here: write a number and one of B, kB, MB, GB, TB, PB (powers of 1000) or KiB, MiB, GiB, TiB, PiB (powers of 1024), as in 50GB"
    )]
    Unit(String),
    /// No number, or part of a byte.
    #[error("`{0}` is not a size: write a number and a unit, as in 50GB or 1.5TiB")]
    Number(String),
    /// Nothing.
    #[error("a size must be more than zero")]
    Zero,
    /// More than 64 bits.
    #[error("`{0}` is more than any disk holds")]
    TooLarge(String),
}

const UNITS: [(&str, u64); 11] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
];

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let (number, unit) = decimal::split_unit(text);
        if number.is_empty() {
            return Err(BadSize::Number(text.into()));
        }
        let unit = unit.to_ascii_lowercase();
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| BadSize::Unit(text.into()))?;
        let bytes = decimal::times(number, (*scale).into()).ok_or_else(|| BadSize::Number(text.into()))?;
        match u64::try_from(bytes) {
            Ok(0) => Err(BadSize::Zero),
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(BadSize::TooLarge(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_differ() {
        assert_eq!("50GB".parse(), Ok(Size(50_000_000_000)));
        assert_eq!("64 MiB".parse(), Ok(Size(64 << 20)));
        assert_eq!("1.5TiB".parse(), Ok(Size(3 << 39)));
        assert_eq!("1gb".parse(), Ok(Size(1_000_000_000)));
        assert_eq!("7B".parse(), Ok(Size(7)));
    }

    #[test]
    fn a_wrong_unit_is_answered_with_the_right_ones() {
        let error = "50 GBB".parse::<Size>().unwrap_err();
        assert_eq!(error, BadSize::Unit("50 GBB".into()));
        assert!(error.to_string().contains("GB, TB") && error.to_string().contains("GiB"), "{error}");
        assert!(matches!("50".parse::<Size>(), Err(BadSize::Unit(_))));
    }

    #[test]
    fn nothing_half_bytes_and_the_impossible_are_refused() {
        assert_eq!("0GB".parse::<Size>(), Err(BadSize::Zero));
        assert!(matches!("0.5B".parse::<Size>(), Err(BadSize::Number(_))));
        assert!(matches!("GB".parse::<Size>(), Err(BadSize::Number(_))));
        assert!(matches!("-5GB".parse::<Size>(), Err(BadSize::Number(_))));
        assert!(matches!("99999PB".parse::<Size>(), Err(BadSize::TooLarge(_))));
    }
}
