//! A key with a path behind it: `KEY/folder/file`.

use super::feed_key::{BadFeedKey, FeedKey};
use std::str::FromStr;

/// A feed or drive, or a path in a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The key.
    pub key: FeedKey,
    /// What follows it, without the slash in front.
    pub inside: Option<String>,
}

impl FromStr for Target {
    type Err = BadFeedKey;

    fn from_str(text: &str) -> Result<Self, BadFeedKey> {
        let scheme = text.find("://").map_or(0, |at| at + 3);
        let (key, inside) = match text[scheme..].split_once('/') {
            Some((key, inside)) => (&text[..scheme + key.len()], Some(inside.to_owned())),
            None => (text, None),
        };
        Ok(Target { key: key.parse()?, inside: inside.filter(|inside| !inside.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_key_is_a_path() {
        let key = "ab".repeat(32);
        let parse = |text: String| text.parse::<Target>().map(|target| (target.key.to_string(), target.inside));
        assert_eq!(parse(key.clone()), Ok((key.clone(), None)));
        assert_eq!(parse(format!("{key}/")), Ok((key.clone(), None)));
        assert_eq!(parse(format!("hyper://{key}/a b/c.txt")), Ok((key.clone(), Some("a b/c.txt".into()))));
        assert!(parse(format!("{}/a", &key[1..])).is_err());
        assert!(parse("/a".into()).is_err() && parse("ü://é/".into()).is_err());
    }
}
