//! A feed as its reader sees it: the blocks as they are stored, or what is in them if they are encrypted.

use crate::{
    encryption::{Encryption, PADDING},
    feed::{Feed, FeedError, Located},
};
use bytes::Bytes;
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// A feed with what is needed to read it. Blocks and bytes are counted as its author counted them: the padding of
/// encrypted blocks is not among them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    feed: Feed,
    secret: Option<Arc<Secret>>,
}

struct Secret {
    key: [u8; 32],
    /// In which of the two forms the key is used is known with the feed's authors.
    encryption: OnceLock<Encryption>,
}

impl Feed {
    /// The feed as it is read and written with the key that its author encrypted it with, in the default scheme of Hypercore 11. Nothing
    /// tells whether a key is the right one: with another one noise is read.
    pub fn decrypted(&self, key: [u8; 32]) -> View {
        let secret = Secret { key, encryption: OnceLock::new() };
        View { feed: self.clone(), secret: Some(Arc::new(secret)) }
    }
}

impl View {
    /// The feed as it is stored.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Whether its blocks are decrypted.
    pub fn is_decrypted(&self) -> bool {
        self.secret.is_some()
    }

    /// What is in a block, checked against the author's tree.
    pub async fn get(&self, block: u64) -> Result<Bytes, FeedError> {
        self.open(block, self.feed.get(block).await?)
    }

    /// [`View::get`] on the caller's thread, which it blocks.
    pub fn read(&self, block: u64) -> Result<Bytes, FeedError> {
        self.open(block, self.feed.read(block)?.into())
    }

    /// Appends blocks with these contents, encrypted if the feed is read so; returns the new length. Fails as [`Feed::append`] does.
    pub async fn append(&self, contents: Vec<Bytes>) -> Result<u64, FeedError> {
        let view = self.clone();
        self.feed.blocking(move |_| view.write(&contents)).await
    }

    /// [`View::append`] on the caller's thread, which it blocks.
    pub fn write(&self, contents: &[Bytes]) -> Result<u64, FeedError> {
        let Some(encryption) = self.encryption()? else { return self.feed.write(contents) };
        // Where a block comes to stand is a part of its key: others may append until it does.
        self.feed.write_made(|length, fork| {
            let blocks = (length..).zip(contents);
            Ok(blocks.map(|(index, contents)| encryption.encrypt(index, fork, contents)).collect())
        })
    }

    /// Bytes in all blocks of the newest head that we know.
    pub fn bytes(&self) -> u64 {
        let info = self.feed.info();
        info.bytes.saturating_sub(info.length.saturating_mul(self.padding()))
    }

    /// The block that has a byte, and how many bytes in the block come before it. Reads the tree on the caller's thread, which it
    /// blocks.
    pub fn seek(&self, byte: u64) -> Result<(u64, u64), FeedError> {
        self.locate(byte)?.block().ok_or(FeedError::UnknownPlace { byte })
    }

    pub(crate) fn locate(&self, byte: u64) -> Result<Located, FeedError> {
        self.feed.locate(byte, self.padding())
    }

    fn padding(&self) -> u64 {
        if self.secret.is_some() { PADDING as u64 } else { 0 }
    }

    fn open(&self, block: u64, stored: Bytes) -> Result<Bytes, FeedError> {
        match self.encryption()? {
            Some(encryption) => encryption.decrypt(block, &stored).ok_or(FeedError::NotEncrypted),
            None => Ok(stored),
        }
    }

    fn encryption(&self) -> Result<Option<&Encryption>, FeedError> {
        let Some(secret) = &self.secret else { return Ok(None) };
        if let Some(encryption) = secret.encryption.get() {
            return Ok(Some(encryption));
        }
        let authors = self.feed.authors().ok_or(FeedError::NoHead)?;
        let (feed, key) = (self.feed.key(), &secret.key);
        Ok(Some(secret.encryption.get_or_init(|| match authors.is_compat() {
            true => Encryption::compat(&feed, key),
            false => Encryption::new(&feed, key),
        })))
    }
}

impl From<&Feed> for View {
    fn from(feed: &Feed) -> View {
        View { feed: feed.clone(), secret: None }
    }
}

impl From<&View> for View {
    fn from(view: &View) -> View {
        view.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
