//! 32-byte keys as the API writes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// A feed's key, a Noise key or a segment's root: 64 hex digits in JSON and on paper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hex digits (0-9, a-f), this has {got} characters")]
pub struct BadKey {
    /// Characters of the text.
    pub got: usize,
}

impl Key {
    /// The first eight digits: enough to tell keys apart in a log.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).map_err(|_| BadKey { got: text.chars().count() })?;
        Ok(Key(key))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_shown() {
        let key = Key([0xa7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("abc".parse::<Key>(), Err(BadKey { got: 3 }));
        assert_eq!("é".repeat(32).parse::<Key>(), Err(BadKey { got: 32 }));
    }
}
