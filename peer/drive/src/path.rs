//! Names of files in a drive: absolute, with slashes, in normal form.

use bytes::Bytes;
use std::{fmt, str::FromStr};

/// In front of every path in the metadata: Hyperdrive keeps files in the sub-database "files".
const PREFIX: &[u8] = b"files\0";
/// Bytes of a path at most, as on most systems.
pub const MAX_PATH: usize = 4096;

/// The name of a file, `/folder/name`: begins with a slash, has no empty, `.` or `..` part, no backslash (which JavaScript
/// reads as a slash) and no zero byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrivePath(String);

/// Why a text is no path in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No name at all, or two slashes in a row.
    #[error("a path has a name after each slash")]
    Empty,
    /// `.` or `..`.
    #[error("a path has no part that is . or ..")]
    Dots,
    /// A backslash or a zero byte.
    #[error("a path has neither backslashes nor zero bytes")]
    Character,
    /// More than [`MAX_PATH`] bytes.
    #[error("a path has at most {MAX_PATH} bytes")]
    TooLong,
    /// Not text, or not the key of a file.
    #[error("a path is UTF-8")]
    NotText,
}

impl DrivePath {
    /// The parts of a path: folders, then the name.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0[1..].split('/')
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path is `folder`, or in it or in a folder below.
    pub fn is_within(&self, folder: &DrivePath) -> bool {
        self.0.strip_prefix(&folder.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// A path from its parts.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<DrivePath, PathError> {
        let mut path = String::new();
        for part in parts {
            match part {
                "" => return Err(PathError::Empty),
                "." | ".." => return Err(PathError::Dots),
                part if part.contains(['/', '\\', '\0']) => return Err(PathError::Character),
                part => path.extend(["/", part]),
            }
            if path.len() > MAX_PATH {
                return Err(PathError::TooLong);
            }
        }
        if path.is_empty() { Err(PathError::Empty) } else { Ok(DrivePath(path)) }
    }

    /// Its key in the metadata.
    pub fn to_key(&self) -> Bytes {
        [PREFIX, self.0.as_bytes()].concat().into()
    }

    /// Reads a key of the metadata.
    pub fn from_key(key: &[u8]) -> Result<DrivePath, PathError> {
        let path = key.strip_prefix(PREFIX).ok_or(PathError::NotText)?;
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let path = str::from_utf8(path).map_err(|_| PathError::NotText)?;
        DrivePath::from_parts(path.strip_prefix('/').ok_or(PathError::Empty)?.split('/'))
    }
}

/// The keys of all files, from and up to, the end excluded.
pub(crate) fn all_keys() -> (Bytes, Bytes) {
    (Bytes::from_static(PREFIX), Bytes::from_static(b"files\x01"))
}

/// The keys of the files in a folder and below, both ends excluded.
pub(crate) fn keys_within(folder: &DrivePath) -> (Bytes, Bytes) {
    let key = folder.to_key();
    // '0' is the character after '/'.
    ([&key[..], b"/"].concat().into(), [&key[..], b"0"].concat().into())
}

impl FromStr for DrivePath {
    type Err = PathError;

    /// Reads what a user writes: the first slash may be left out, one at the end is ignored.
    fn from_str(text: &str) -> Result<DrivePath, PathError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        DrivePath::from_parts(text.strip_suffix('/').unwrap_or(text).split('/'))
    }
}

impl fmt::Display for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_in_normal_form() {
        let path = |text: &str| text.parse::<DrivePath>().map(|path| path.to_string());
        assert_eq!(path("a/b.txt"), Ok("/a/b.txt".into()));
        assert_eq!(path("/a/ü b/"), Ok("/a/ü b".into()));
        assert_eq!(path("a//b"), Err(PathError::Empty));
        assert_eq!(path("/"), Err(PathError::Empty));
        assert_eq!(path("a/../b"), Err(PathError::Dots));
        assert_eq!(path("a/..\\b"), Err(PathError::Character));
        assert_eq!(path(&"a/".repeat(3000)), Err(PathError::TooLong));
        // A user may leave out the first slash, a key may not.
        assert_eq!(DrivePath::from_key(b"files\0a"), Err(PathError::Empty));
        assert_eq!(DrivePath::from_key(b"files\0/a/"), Err(PathError::Empty));
        assert_eq!(DrivePath::from_key(b"other\0/a"), Err(PathError::NotText));
    }

    #[test]
    fn a_folder_is_not_one_with_a_longer_name() {
        let path = |text: &str| text.parse::<DrivePath>().unwrap();
        assert!(path("/a/b").is_within(&path("/a")) && path("/a").is_within(&path("/a")));
        assert!(!path("/ab").is_within(&path("/a")));
        let (from, to) = keys_within(&path("/a"));
        let within = |text: &str| path(text).to_key() > from && path(text).to_key() < to;
        assert!(within("/a/b") && within("/a/b/c") && !within("/a") && !within("/a.b") && !within("/ab"));
    }

    proptest! {
        #[test]
        fn any_key_is_a_path_or_none(key in any::<Vec<u8>>(), text in "[/.\\\\a\u{0}]{0,12}") {
            for key in [key, text.clone().into_bytes()] {
                let key = [PREFIX, &key].concat();
                if let Ok(path) = DrivePath::from_key(&key) {
                    prop_assert_eq!(&path.to_key()[..], &key[..]);
                    prop_assert!(path.parts().all(|part| !["", ".", ".."].contains(&part)));
                }
            }
            if let Ok(path) = text.parse::<DrivePath>() {
                prop_assert_eq!(DrivePath::from_key(&path.to_key()), Ok(path));
            }
        }
    }
}
