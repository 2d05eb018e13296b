//! Amounts of money: `0.5 DAT`.

use super::decimal;
use datdot_market::{Balance, params::DAT};
use std::str::FromStr;

/// An amount in the ledger's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money(pub Balance);

/// Not an amount of money.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMoney {
    /// Another coin.
    #[error("`{0}` is not in DAT: write a number, as in `0.5` or `0.5 DAT`")]
    Unit(String),
    /// No number, or more digits than the coin has.
    #[error("`{0}` is not an amount: write a number with at most 12 decimals, as in `0.5` or `0.5 DAT`")]
    Number(String),
}

impl FromStr for Money {
    type Err = BadMoney;

    fn from_str(text: &str) -> Result<Self, BadMoney> {
        let (number, unit) = decimal::split_unit(text);
        if number.is_empty() {
            return Err(BadMoney::Number(text.into()));
        }
        if !unit.is_empty() && !unit.eq_ignore_ascii_case("DAT") {
            return Err(BadMoney::Unit(text.into()));
        }
        decimal::times(number, DAT).map(Self).ok_or_else(|| BadMoney::Number(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coin_may_be_named_or_not() {
        assert_eq!("0.5 DAT".parse(), Ok(Money(DAT / 2)));
        assert_eq!("0.5".parse(), Ok(Money(DAT / 2)));
        assert_eq!("3dat".parse(), Ok(Money(3 * DAT)));
        assert_eq!("0.000000000001".parse(), Ok(Money(1)));
        assert_eq!("0".parse(), Ok(Money(0)));
    }

    #[test]
    fn other_coins_and_too_small_parts_are_refused() {
        assert!(matches!("5 EUR".parse::<Money>(), Err(BadMoney::Unit(_))));
        assert!(matches!("0.0000000000001".parse::<Money>(), Err(BadMoney::Number(_))));
        assert!(matches!("-1".parse::<Money>(), Err(BadMoney::Number(_))));
        assert!(matches!("much".parse::<Money>(), Err(BadMoney::Number(_))));
    }
}
