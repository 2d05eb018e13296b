//! What a drive says about a path: JSON in the metadata.
//!
//! ```text
//! {"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":5},"metadata":null}
//! ```

use serde::{Deserialize, Serialize, de};
use serde_json::Value;

/// Bytes of a value that is read; in memory it may be sixteen times as large.
const MAX_JSON: usize = 64 << 10;

/// One file, link or bare name in a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is there.
    pub content: Content,
    /// What an application noted about it.
    pub metadata: Option<Value>,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file.
    File {
        /// Where its bytes are.
        blob: Blob,
        /// Whether it can be run.
        executable: bool,
    },
    /// A symbolic link. A target with a slash in front is meant from the top of the drive.
    Link {
        /// Where it leads.
        target: String,
    },
    /// Nothing but a name.
    Bare,
}

/// Where the bytes of a file are in the blobs feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// The first block.
    pub block_offset: u64,
    /// The first byte in the feed.
    pub byte_offset: u64,
    /// Number of blocks.
    pub block_length: u64,
    /// Number of bytes.
    pub byte_length: u64,
    /// Whether these blocks are not the content, but a list of the blocks that are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub block_map: bool,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    executable: bool,
    #[serde(default)]
    linkname: Option<String>,
    #[serde(default)]
    blob: Option<Blob>,
    #[serde(default)]
    metadata: Option<Value>,
}

impl Entry {
    /// A file without metadata.
    pub fn file(blob: Blob, executable: bool) -> Entry {
        Entry { content: Content::File { blob, executable }, metadata: None }
    }

    /// A link without metadata.
    pub fn link(target: impl Into<String>) -> Entry {
        Entry { content: Content::Link { target: target.into() }, metadata: None }
    }

    /// The entry as a value of the metadata.
    pub fn to_json(&self) -> Vec<u8> {
        let (executable, linkname, blob) = match &self.content {
            Content::File { blob, executable } => (*executable, None, Some(*blob)),
            Content::Link { target } => (false, Some(target.clone()), None),
            Content::Bare => (false, None, None),
        };
        let wire = Wire { executable, linkname, blob, metadata: self.metadata.clone() };
        serde_json::to_vec(&wire).expect("text, numbers and JSON can be written as JSON")
    }

    /// Reads a value of the metadata, of 64 KiB at most. Fields that are not known are ignored.
    pub fn from_json(json: &[u8]) -> Result<Entry, serde_json::Error> {
        if json.len() > MAX_JSON {
            return Err(de::Error::custom("more than 64 KiB"));
        }
        let Wire { executable, linkname, blob, metadata } = serde_json::from_slice(json)?;
        let content = match (linkname.filter(|target| !target.is_empty()), blob) {
            (Some(target), _) => Content::Link { target },
            (None, Some(blob)) => Content::File { blob, executable },
            (None, None) => Content::Bare,
        };
        Ok(Entry { content, metadata })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = r#"{"executable":true,"linkname":null,"blob":{"blockOffset":3,"byteOffset":70000,"blockLength":1,"byteLength":5},"metadata":null}"#;
    const DEDUPLICATED: &str = r#"{"executable":false,"linkname":null,"blob":{"blockOffset":3,"byteOffset":70000,"blockLength":1,"byteLength":5,"blockMap":true},"metadata":{"mtime":1}}"#;
    const LINK: &str = r#"{"executable":false,"linkname":"../b","blob":null,"metadata":null}"#;

    #[test]
    fn entries_are_written_as_javascript_writes_them() {
        for json in [FILE, DEDUPLICATED, LINK] {
            let entry = Entry::from_json(json.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(entry.to_json()).unwrap(), json);
        }
        let blob = Blob { block_offset: 3, byte_offset: 70_000, block_length: 1, byte_length: 5, block_map: false };
        assert_eq!(Entry::from_json(FILE.as_bytes()).unwrap(), Entry::file(blob, true));
        assert_eq!(Entry::from_json(LINK.as_bytes()).unwrap(), Entry::link("../b"));
    }

    #[test]
    fn what_is_unknown_or_missing_does_no_harm() {
        let bare = Entry { content: Content::Bare, metadata: None };
        assert_eq!(Entry::from_json(br#"{"new":[1,{"a":null}]}"#).unwrap(), bare);
        for bad in
            ["", "null", r#"{"executable":1}"#, r#"{"blob":{"blockOffset":-1}}"#, r#"{"blob":{"blockOffset":1e30}}"#]
        {
            assert!(Entry::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = format!(r#"{{"metadata":{}"#, "[".repeat(100_000));
        assert!(Entry::from_json(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_refused(json in any::<Vec<u8>>(), at in 0..FILE.len(), byte in any::<u8>()) {
            _ = Entry::from_json(&json);
            let mut json = FILE.as_bytes().to_vec();
            json[at] = byte;
            if let Ok(entry) = Entry::from_json(&json) {
                prop_assert_eq!(Entry::from_json(&entry.to_json()).unwrap(), entry);
            }
        }
    }
}
