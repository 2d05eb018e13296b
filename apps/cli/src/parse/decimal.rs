//! Decimal numbers without floating point: what is typed is what is meant, to the last digit.

/// Splits "1.5 GB" into "1.5" and "GB".
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

/// `number × scale`, exactly: `None` if it isn't a plain decimal number, leaves a fraction, or is too large.
pub(super) fn times(number: &str, scale: u128) -> Option<u128> {
    let number: String = number.chars().filter(|&c| c != '_').collect();
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let is_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || number.ends_with('.') {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(scale)?;
    (product % divisor == 0).then_some(product / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_split_from_its_unit() {
        assert_eq!(split_unit("50GB"), ("50", "GB"));
        assert_eq!(split_unit(" 1.5  DAT "), ("1.5", "DAT"));
        assert_eq!(split_unit("7"), ("7", ""));
        assert_eq!(split_unit("GB"), ("", "GB"));
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(times("1.5", 1000), Some(1500));
        assert_eq!(times("1_000", 1), Some(1000));
        assert_eq!(times("0.10", 10), Some(1));
        assert_eq!(times("0.001", 100), None);
        for wrong in ["", ".", "1.", ".5", "1.2.3", "-1", "1e3", "99999999999999999999999999999999999999999"] {
            assert_eq!(times(wrong, 1000), None, "{wrong}");
        }
    }
}
