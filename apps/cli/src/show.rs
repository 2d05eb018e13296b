//! Numbers as people read them, with their units.

use datdot_api::{Amount, Size};
use datdot_market::params::DAT;
use std::{
    fmt::Display,
    io::{ErrorKind, Write, stdout},
};

pub mod doctor;
pub mod limits;
pub mod progress;
pub mod status;
pub mod story;

/// Writes a line to standard output. A reader that has had enough (`datdot status | head`) ends the command without noise.
pub fn say(line: impl Display) {
    if let Err(error) = writeln!(stdout(), "{line}") {
        let code = if error.kind() == ErrorKind::BrokenPipe { 0 } else { 1 };
        std::process::exit(code);
    }
}

/// `64.0 MiB`
pub fn bytes(bytes: u64) -> String {
    Size(bytes).to_string()
}

/// `1.5 MB/s`: in powers of 1000, as lines are sold, to three decimals.
pub fn rate(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("B", 1));
    let whole = thousands((bytes / size).into());
    let thousandths = u128::from(bytes % size) * 1_000 / u128::from(size);
    match format!("{thousandths:03}").trim_end_matches('0') {
        "" => format!("{whole} {unit}/s"),
        digits => format!("{whole}.{digits} {unit}/s"),
    }
}

/// `0.0125 DAT`: rounded down to six decimals, or to two digits that count if there are only smaller ones.
pub fn money(amount: Amount) -> String {
    let (whole, fraction) = (amount.0 / DAT, amount.0 % DAT);
    let digits = format!("{fraction:012}");
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let kept = if whole == 0 { (zeros + 2).clamp(6, 12) } else { 6 };
    let shown = digits[..kept].trim_end_matches('0');
    match shown {
        "" => format!("{} DAT", thousands(whole)),
        shown => format!("{}.{shown} DAT", thousands(whole)),
    }
}

/// `0.5 DAT per GiB and day`
pub fn price(amount: Amount) -> String {
    format!("{} per GiB and day", money(amount))
}

/// `1,000,000`
pub fn thousands(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `30 d`, `2 h 5 min`, `40 s`: the two largest units.
pub fn span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let Some(first) = UNITS.iter().position(|(_, size)| seconds >= *size) else { return "0 s".into() };
    let (unit, size) = UNITS[first];
    let text = format!("{} {unit}", thousands((seconds / size).into()));
    match UNITS.get(first + 1) {
        Some((unit, smaller)) if (seconds % size) / smaller > 0 => {
            format!("{text} {} {unit}", (seconds % size) / smaller)
        }
        _ => text,
    }
}

/// Blocks as time.
pub fn blocks(blocks: u32, block_millis: u32) -> String {
    span((u64::from(blocks) * u64::from(block_millis)).div_ceil(1_000))
}

/// `12 ms`, `1.4 ms`, `640 µs`
pub fn millis(millis: f64) -> String {
    match millis {
        0.0..1.0 => format!("{:.0} µs", millis * 1e3),
        1.0..10.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

/// An address short enough for a table: `5Grwva…utQY`.
pub fn short(address: &str) -> String {
    match (address.get(..6), address.get(address.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if address.len() > 12 => format!("{start}…{end}"),
        _ => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_never_shown_larger_than_it_is() {
        assert_eq!(money(Amount(0)), "0 DAT");
        assert_eq!(money(Amount(DAT / 2)), "0.5 DAT");
        assert_eq!(money(Amount(1_234_567 * DAT + 999_999_999_999)), "1,234,567.999999 DAT");
        assert_eq!(money(Amount(72_337_962)), "0.000072 DAT");
        assert_eq!(money(Amount(1_239)), "0.0000000012 DAT");
        assert_eq!(money(Amount(1)), "0.000000000001 DAT");
    }

    #[test]
    fn rates_are_shown_as_they_are_typed() {
        assert_eq!(rate(5_000_000), "5 MB/s");
        assert_eq!(rate(1_500_000), "1.5 MB/s");
        assert_eq!(rate(20_050), "20.05 kB/s");
        assert_eq!(rate(1 << 20), "1.048 MB/s");
        assert_eq!(rate(12), "12 B/s");
        assert_eq!(rate(u64::MAX), "18,446,744,073.709 GB/s");
    }

    #[test]
    fn spans_name_their_two_largest_units() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(7_500), "2 h 5 min");
        assert_eq!(span(30 * 86_400), "30 d");
        assert_eq!(blocks(15, 6_000), "1 min 30 s");
    }

    #[test]
    fn short_times_keep_the_digits_that_count() {
        assert_eq!(millis(0.045), "45 µs");
        assert_eq!(millis(1.44), "1.4 ms");
        assert_eq!(millis(120.0), "120 ms");
    }

    #[test]
    fn addresses_are_shortened_in_the_middle() {
        assert_eq!(short("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"), "5Grwva…utQY");
        assert_eq!(short("//Alice"), "//Alice");
    }
}
