//! Feed keys: 32 bytes as hex or z-base-32, as Hypercore's own tools print them.

use std::{fmt, str::FromStr};

/// The key that names a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedKey(pub [u8; 32]);

/// Not a feed key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: a feed key is 64 hex digits, or 52 characters of z-base-32, as `datdot publish` prints it")]
pub struct BadFeedKey {
    what: String,
}

const Z_BASE_32: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

impl FromStr for FeedKey {
    type Err = BadFeedKey;

    fn from_str(text: &str) -> Result<Self, BadFeedKey> {
        let bad = |what: String| BadFeedKey { what };
        let text = text.trim();
        let key = ["hyper://", "pear://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let count = key.chars().count();
        match count {
            64 => decode(key, 4, |c| c.to_digit(16)),
            52 => decode(key, 5, |c| {
                let c = u8::try_from(c).ok()?.to_ascii_lowercase();
                Z_BASE_32.iter().position(|&known| known == c).and_then(|at| u32::try_from(at).ok())
            }),
            _ => return Err(bad(format!("`{text}` has {count} characters"))),
        }
        .map(Self)
        .map_err(|wrong| match wrong {
            Some(c) => bad(format!("`{c}` can't be in a key of {count} characters")),
            None => bad(format!("`{text}` has bits left over at its end")),
        })
    }
}

/// Packs digits of `bits` bits each into 32 bytes. The error is the character that is no digit, or none if the padding isn't zero.
fn decode(text: &str, bits: u32, digit: impl Fn(char) -> Option<u32>) -> Result<[u8; 32], Option<char>> {
    let mut key = [0; 32];
    let mut at = 0;
    let (mut buffer, mut filled) = (0u32, 0);
    for c in text.chars() {
        buffer = (buffer << bits) | digit(c).ok_or(Some(c))?;
        filled += bits;
        if filled >= 8 {
            filled -= 8;
            // Both encodings that are decoded have room for exactly 32 whole bytes.
            key[at] = u8::try_from((buffer >> filled) & 0xff).expect("masked to eight bits");
            at += 1;
            buffer &= (1 << filled) - 1;
        }
    }
    if buffer == 0 { Ok(key) } else { Err(None) }
}

impl fmt::Display for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const Z32: &str = "47pjoycnsrfmxikm95jh13y88e8qnhzu5kungjpxyepgt7a8krpy";

    #[test]
    fn hex_and_z_base_32_name_the_same_feed() {
        let key: FeedKey = HEX.parse().unwrap();
        assert_eq!(key, Z32.parse().unwrap());
        assert_eq!(key, format!("hyper://{}", HEX.to_uppercase()).parse().unwrap());
        assert_eq!(key.to_string(), HEX);
    }

    #[test]
    fn a_key_of_the_wrong_length_is_told_what_a_key_looks_like() {
        let error = HEX[..62].parse::<FeedKey>().unwrap_err().to_string();
        assert!(error.contains("62 characters") && error.contains("64 hex digits"), "{error}");
    }

    #[test]
    fn characters_that_are_no_digits_are_named() {
        let error = HEX.replace('d', "x").parse::<FeedKey>().unwrap_err().to_string();
        assert!(error.contains("`x`"), "{error}");
        assert!(Z32.replace('y', "l").parse::<FeedKey>().is_err());
        assert!(Z32.replace("krpy", "krp9").parse::<FeedKey>().is_err(), "bits left over");
        assert!("ü".repeat(64).parse::<FeedKey>().is_err());
    }
}
