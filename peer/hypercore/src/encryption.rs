//! Encrypted blocks in the default scheme of Hypercore 11. Peers and hosters see blocks as they are stored; who has the key
//! reads and writes their contents.
//!
//! ```text
//! block         = padding 8 | contents XOR stream(key, index | padding | 0 8)
//! padding       = fork XOR stream(H(key), index | 0 16)
//! key           = H(DEFAULT_ENCRYPTION | feed key | encryption key)    compat feeds: H keyed with the feed key, of the encryption key
//! ```
//!
//! The stream is XSalsa20, integers are u64 little endian (hypercore `lib/default-encryption.js`). Nothing authenticates the
//! contents but the feed's tree, which is over the blocks as they are stored. Applications may bring schemes of their own.

use crate::key::FeedKey;
use bytes::Bytes;
use datdot_proof::{head::namespace, tree::blake2b};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use std::fmt;

/// Bytes that an encrypted block has in front of its contents.
pub const PADDING: usize = 8;

/// Encrypts and decrypts the blocks of one feed.
#[derive(Clone)]
pub struct Encryption {
    block: [u8; 32],
    blinding: [u8; 32],
}

impl Encryption {
    /// For a feed with a manifest, as Hypercore 11 makes them.
    pub fn new(feed: &FeedKey, key: &[u8; 32]) -> Encryption {
        Encryption::with(blake2b(&[&namespace(5), &feed.0, key]))
    }

    /// For a compat feed.
    pub fn compat(feed: &FeedKey, key: &[u8; 32]) -> Encryption {
        let hash = blake2b_simd::Params::new().hash_length(32).key(&feed.0).hash(key);
        Encryption::with(hash.as_bytes().try_into().expect("the hash has 32 bytes"))
    }

    fn with(block: [u8; 32]) -> Encryption {
        Encryption { block, blinding: blake2b(&[&block]) }
    }

    /// The contents of a block, `None` if it is too short to be encrypted.
    pub fn decrypt(&self, index: u64, block: &[u8]) -> Option<Bytes> {
        let (padding, contents) = block.split_first_chunk::<PADDING>()?;
        let mut contents = contents.to_vec();
        apply(&self.block, index, padding, &mut contents);
        Some(contents.into())
    }

    /// A block with these contents, to be appended as number `index` of the fork.
    pub fn encrypt(&self, index: u64, fork: u64, contents: &[u8]) -> Bytes {
        let mut padding = fork.to_le_bytes();
        apply(&self.blinding, index, &[0; PADDING], &mut padding);
        let mut block = [&padding, contents].concat();
        apply(&self.block, index, &padding, &mut block[PADDING..]);
        block.into()
    }
}

fn apply(key: &[u8; 32], index: u64, padding: &[u8; PADDING], bytes: &mut [u8]) {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    nonce[8..16].copy_from_slice(padding);
    XSalsa20::new(key.into(), &nonce.into()).apply_keystream(bytes);
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encryption(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn who_has_the_key_reads_what_was_written(contents: Vec<u8>, index: u64, fork: u64, key: [u8; 32]) {
            let (feed, contents) = (FeedKey([3; 32]), Bytes::from(contents));
            let (new, compat) = (Encryption::new(&feed, &key), Encryption::compat(&feed, &key));
            for (ours, other) in [(&new, &compat), (&compat, &new)] {
                let block = ours.encrypt(index, fork, &contents);
                prop_assert_eq!(block.len(), contents.len() + PADDING);
                prop_assert_eq!(ours.decrypt(index, &block), Some(contents.clone()));
                if contents.len() > 16 {
                    prop_assert_ne!(other.decrypt(index, &block), Some(contents.clone()));
                    prop_assert_ne!(ours.decrypt(index ^ 1, &block), Some(contents.clone()));
                }
            }
        }
    }

    #[test]
    fn what_is_too_short_is_no_encrypted_block() {
        assert_eq!(Encryption::new(&FeedKey([3; 32]), &[4; 32]).decrypt(0, &[1; 7]), None);
    }
}
