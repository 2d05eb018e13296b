//! Heads: a state of a feed, signed by its author.
//!
//! A feed of today (v1) is named by the hash of its manifest, which names the signer; a feed of Hypercore 10
//! and before (compat) is named by the signer's key itself. Only feeds with one signer are understood here.
//!
//! ```text
//! manifest, 70 B    01 00 00 01 01 00 | namespace 32 | signer 32         feed key = H(MANIFEST | manifest)
//! signed, v1        TREE | feed key | tree hash | length | fork          112 B
//! signed, compat    TREE |            tree hash | length | fork           80 B
//! signature on the wire   v1: 01 00 | signature 64 | 00 00     compat: signature 64
//! ```
//!
//! TREE and MANIFEST are [`namespace`]s, integers are u64 little endian (hypercore `lib/caps.js`,
//! `lib/verifier.js`, `lib/multisig.js`).

use crate::{
    Hash, flat,
    tree::{Node, blake2b, tree_hash_input},
};
use alloc::vec::Vec;
use blake2b_simd::Params;
use codec::{Decode, DecodeWithMemTracking, Encode, Error as CodecError, Input, MaxEncodedLen};
use scale_info::TypeInfo;

/// Namespace of what authors sign.
pub const TREE: Hash = *b"\x9f\xac\x70\xb5\x0c\xa1\x4e\xfc\x4e\x91\xc8\x33\xb2\x04\xe7\x5b\x8b\x5a\xad\x8b\x58\x81\xbf\xc0\xad\xb5\xef\x38\xa3\x27\x5b\x9c";
/// Namespace of manifest hashes, which are feed keys.
pub const MANIFEST: Hash = *b"\xe6\x4b\x71\x08\xea\xcc\xe4\x7c\xfc\x61\xac\x85\x05\x68\xf5\x5f\x8b\x15\xb8\x2e\xc5\xed\x78\xc4\xec\x59\x7b\x03\x6e\x2a\x14\x98";
/// The signer's namespace in a manifest that nobody chose otherwise.
pub const DEFAULT_NAMESPACE: Hash = *b"\x41\x44\xee\xa5\x31\xe4\x83\xd5\x4e\x0c\x14\xf4\xca\x68\xe0\x64\x4f\x35\x53\x43\xff\x6f\xcb\x0f\x00\x52\x00\xe1\x2c\xd7\x47\xcb";

const MANIFEST_PREFIX: [u8; 6] = [1, 0, 0, 1, 1, 0];

/// Length of a v1 manifest with one signer, in bytes.
pub const MANIFEST_BYTES: usize = 70;

/// A state of a feed, without the proof that its author made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Head {
    /// How often the author has rewritten the feed.
    pub fork: u64,
    /// Number of blocks.
    pub length: u64,
    /// Hash over the full roots.
    pub tree_hash: Hash,
}

impl Head {
    /// The bytes that the author of the feed `key` signs.
    pub fn signable(&self, key: &[u8; 32], manifest: &Manifest) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(112);
        bytes.extend_from_slice(&TREE);
        if let Manifest::V1 { .. } = manifest {
            bytes.extend_from_slice(key);
        }
        bytes.extend_from_slice(&self.tree_hash);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.fork.to_le_bytes());
        bytes
    }
}

/// Who may sign a feed, and how the feed's key says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub enum Manifest {
    /// Hypercore 10: the feed's key is the signer's.
    #[codec(index = 0)]
    Compat,
    /// Hypercore 11: the feed's key is the hash of this manifest.
    #[codec(index = 1)]
    V1 {
        /// What the signer's key is used for, [`DEFAULT_NAMESPACE`] unless an application chose one.
        namespace: [u8; 32],
        /// Ed25519 public key.
        signer: [u8; 32],
    },
}

impl Manifest {
    /// The manifest that Hypercore 11 gives a key pair.
    pub fn v1(signer: [u8; 32]) -> Manifest {
        Manifest::V1 { namespace: DEFAULT_NAMESPACE, signer }
    }

    /// Reads the manifest that a peer sends; it must be the form with one signer and nothing else.
    pub fn from_wire(bytes: &[u8]) -> Result<Manifest, HeadError> {
        let rest = bytes.strip_prefix(&MANIFEST_PREFIX).ok_or(HeadError::UnknownManifest)?;
        let (namespace, signer) = rest.split_first_chunk::<32>().ok_or(HeadError::UnknownManifest)?;
        let signer = signer.try_into().map_err(|_| HeadError::UnknownManifest)?;
        Ok(Manifest::V1 { namespace: *namespace, signer })
    }

    /// The manifest as a peer wants it; a compat feed has none.
    pub fn to_wire(&self) -> Option<[u8; MANIFEST_BYTES]> {
        let Manifest::V1 { namespace, signer } = self else {
            return None;
        };
        let mut bytes = [0; MANIFEST_BYTES];
        bytes[..6].copy_from_slice(&MANIFEST_PREFIX);
        bytes[6..38].copy_from_slice(namespace);
        bytes[38..].copy_from_slice(signer);
        Some(bytes)
    }

    /// The key of the v1 feed that the manifest describes; a compat manifest says nothing about its key.
    pub fn feed_key(&self) -> Option<[u8; 32]> {
        self.key_with::<Software>()
    }

    /// The key whose signatures count for the feed `key`, if the manifest belongs to that feed.
    pub fn signer(&self, key: &[u8; 32]) -> Result<[u8; 32], HeadError> {
        self.signer_with::<Software>(key)
    }

    /// Reads a signature as it stands in a peer's upgrade.
    pub fn signature_from_wire(&self, bytes: &[u8]) -> Result<[u8; 64], HeadError> {
        let bare = match self {
            Manifest::Compat => bytes,
            Manifest::V1 { .. } => bytes
                .strip_prefix(&[1, 0])
                .and_then(|rest| rest.strip_suffix(&[0, 0]))
                .ok_or(HeadError::UnknownSignature)?,
        };
        bare.try_into().map_err(|_| HeadError::UnknownSignature)
    }

    /// A signature as it stands in an upgrade.
    pub fn signature_to_wire(&self, signature: &[u8; 64]) -> Vec<u8> {
        match self {
            Manifest::Compat => signature.to_vec(),
            Manifest::V1 { .. } => [&[1, 0], &signature[..], &[0, 0]].concat(),
        }
    }

    fn key_with<C: Crypto>(&self) -> Option<[u8; 32]> {
        let mut input = [0; 32 + MANIFEST_BYTES];
        input[..32].copy_from_slice(&MANIFEST);
        input[32..].copy_from_slice(&self.to_wire()?);
        Some(C::blake2_256(&input))
    }

    fn signer_with<C: Crypto>(&self, key: &[u8; 32]) -> Result<[u8; 32], HeadError> {
        match self {
            Manifest::Compat => Ok(*key),
            Manifest::V1 { signer, .. } if self.key_with::<C>() == Some(*key) => Ok(*signer),
            Manifest::V1 { .. } => Err(HeadError::OtherFeed),
        }
    }
}

/// A full root of a head; its place follows from the head's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo)]
pub struct Root {
    /// Hash of the subtree.
    pub hash: Hash,
    /// Bytes of the blocks under it.
    pub size: u64,
}

/// A head with everything that shows that the author of a feed made it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, DecodeWithMemTracking, TypeInfo)]
pub struct SignedHead {
    /// How often the author has rewritten the feed.
    pub fork: u64,
    /// Number of blocks.
    pub length: u64,
    /// Full roots of that length, left to right: as many as it has one bits.
    pub roots: Vec<Root>,
    /// Who may sign.
    pub manifest: Manifest,
    /// Ed25519 signature over [`Head::signable`].
    pub signature: [u8; 64],
}

impl SignedHead {
    /// Checks that the author of the feed `key` signed these roots, and returns what was signed.
    ///
    /// The runtime passes the host's functions as `C`, everybody else [`Software`].
    pub fn verify<C: Crypto>(&self, key: &[u8; 32]) -> Result<Head, HeadError> {
        self.check_shape()?;
        let signer = self.manifest.signer_with::<C>(key)?;
        let tree_hash = C::blake2_256(&tree_hash_input(self.nodes()));
        let head = Head { fork: self.fork, length: self.length, tree_hash };
        if C::ed25519_verify(&self.signature, &head.signable(key, &self.manifest), &signer) {
            Ok(head)
        } else {
            Err(HeadError::WrongSignature)
        }
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> Result<u64, HeadError> {
        self.roots.iter().try_fold(0u64, |sum, root| sum.checked_add(root.size)).ok_or(HeadError::TooLarge)
    }

    /// The roots as nodes of the tree, left to right.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node> + '_ {
        self.roots.iter().zip(flat::full_roots(self.length)).map(|(root, index)| Node {
            index,
            size: root.size,
            hash: root.hash,
        })
    }

    /// The signature as it stands in an upgrade.
    pub fn signature_to_wire(&self) -> Vec<u8> {
        self.manifest.signature_to_wire(&self.signature)
    }

    fn check_shape(&self) -> Result<(), HeadError> {
        match self.length {
            0 => return Err(HeadError::Empty),
            length if length > flat::MAX_LENGTH => return Err(HeadError::TooLarge),
            _ => {}
        }
        let wanted = self.length.count_ones();
        if self.roots.len() != wanted as usize {
            return Err(HeadError::WrongRoots { wanted, got: self.roots.len() });
        }
        self.bytes().map(drop)
    }
}

impl Decode for SignedHead {
    /// Takes no more roots than the length asks for, which is at most [`flat::MAX_ROOTS`].
    fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
        let (fork, length) = <(u64, u64)>::decode(input)?;
        let count = codec::Compact::<u32>::decode(input)?.0;
        if length > flat::MAX_LENGTH || count != length.count_ones() {
            return Err("the number of roots does not fit the length of the head".into());
        }
        let roots = (0..count).map(|_| Root::decode(input)).collect::<Result<_, _>>()?;
        Ok(SignedHead { fork, length, roots, manifest: Decode::decode(input)?, signature: Decode::decode(input)? })
    }
}

impl MaxEncodedLen for SignedHead {
    fn max_encoded_len() -> usize {
        // 1: a compact count below 64.
        8 + 8 + 1 + flat::MAX_ROOTS * Root::max_encoded_len() + Manifest::max_encoded_len() + 64
    }
}

/// The two functions that a runtime takes from its host because they are slow in wasm.
pub trait Crypto {
    /// Unkeyed BLAKE2b with 32 bytes of output.
    fn blake2_256(input: &[u8]) -> Hash;
    /// Whether `key` signed `message` with Ed25519.
    fn ed25519_verify(signature: &[u8; 64], message: &[u8], key: &[u8; 32]) -> bool;
}

/// [`Crypto`] in Rust, as strict as the libsodium of JavaScript peers: no small-order keys, canonical encodings.
///
/// A host function may be laxer (Substrate's follows ZIP 215). The difference needs an author who crafts
/// such a signature on purpose; peers check with this before they bind themselves to a head.
#[derive(Clone, Copy, Debug)]
pub struct Software;

impl Crypto for Software {
    fn blake2_256(input: &[u8]) -> Hash {
        blake2b(&[input])
    }

    fn ed25519_verify(signature: &[u8; 64], message: &[u8], key: &[u8; 32]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        ed25519_dalek::VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// Hypercore's separation of purposes: 0 TREE, 1 and 2 the replication capability of initiator and responder,
/// 3 MANIFEST, 4 DEFAULT_NAMESPACE, 5 encryption.
pub fn namespace(purpose: u8) -> Hash {
    blake2b(&[&blake2b(&[b"hypercore"]), &[purpose]])
}

/// What peers call a feed in public, so that the key stays with those who may read.
pub fn discovery_key(key: &[u8; 32]) -> Hash {
    let hash = Params::new().hash_length(32).key(key).hash(b"hypercore");
    hash.as_bytes().try_into().expect("32 bytes were asked for")
}

/// Why a head is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Nothing to host: Hypercore signs no empty feed.
    #[error("the head has no blocks")]
    Empty,
    /// More blocks than [`flat::MAX_LENGTH`], or more bytes than a u64 counts.
    #[error("the head is longer or larger than a feed can be")]
    TooLarge,
    /// The number of full roots follows from the length.
    #[error("the head has {got} roots, its length has {wanted}")]
    WrongRoots {
        /// One bits of the length.
        wanted: u32,
        /// Roots that came.
        got: usize,
    },
    /// The manifest's hash is another feed's key.
    #[error("the manifest belongs to another feed")]
    OtherFeed,
    /// The signature is not the signer's, or not over this head.
    #[error("the head is not signed by the author of the feed")]
    WrongSignature,
    /// Several signers, prologues and links are not understood.
    #[error("only manifests of version 1 with a single signer are supported")]
    UnknownManifest,
    /// Not a single signature in the form that goes with the manifest.
    #[error("only heads with a single plain signature are supported")]
    UnknownSignature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use codec::DecodeAll;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    fn signed(length: u64, fork: u64, manifest: fn([u8; 32]) -> Manifest) -> ([u8; 32], SignedHead) {
        let author = SigningKey::from_bytes(&[5; 32]);
        let manifest = manifest(author.verifying_key().to_bytes());
        let key = manifest.feed_key().unwrap_or(author.verifying_key().to_bytes());
        let roots =
            (0..length.count_ones()).map(|root| Root { hash: [root as u8; 32], size: u64::from(root) }).collect();
        let mut head = SignedHead { fork, length, roots, manifest, signature: [0; 64] };
        let tree_hash = crate::tree::tree_hash(&head.nodes().collect::<Vec<_>>());
        head.signature = author.sign(&Head { fork, length, tree_hash }.signable(&key, &manifest)).to_bytes();
        (key, head)
    }

    #[test]
    fn namespaces_are_those_of_hypercore() {
        assert_eq!((namespace(0), namespace(3), namespace(4)), (TREE, MANIFEST, DEFAULT_NAMESPACE));
    }

    #[test]
    fn an_author_signs_heads_of_both_kinds() {
        for manifest in [Manifest::v1, |_| Manifest::Compat] {
            for length in [1, 2, 11, flat::MAX_LENGTH - 1, flat::MAX_LENGTH] {
                let (key, head) = signed(length, 3, manifest);
                let verified = head.verify::<Software>(&key).expect("it was signed");
                assert_eq!((verified.length, verified.fork), (length, 3));
            }
        }
    }

    #[test]
    fn a_signature_of_one_kind_does_not_count_as_the_other() {
        let (key, head) = signed(3, 0, |_| Manifest::Compat);
        let as_v1 = SignedHead { manifest: Manifest::v1(key), ..head };
        assert_eq!(as_v1.verify::<Software>(&key), Err(HeadError::OtherFeed));
        let key = as_v1.manifest.feed_key().expect("v1 has a key");
        assert_eq!(as_v1.verify::<Software>(&key), Err(HeadError::WrongSignature));
    }

    #[test]
    fn small_order_keys_sign_nothing() {
        // With the neutral element as key and R, S = 0 fits every message unless the check is strict.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!Software::ed25519_verify(&signature, b"anything", &neutral));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let (key, head) = signed(3, 0, Manifest::v1);
        let of = |length, roots| SignedHead { length, roots, ..head.clone() }.verify::<Software>(&key);
        let root = Root { hash: [0; 32], size: 1 };
        assert_eq!(of(0, vec![]), Err(HeadError::Empty));
        assert_eq!(of(1 << 41, vec![root]), Err(HeadError::TooLarge));
        assert_eq!(of(3, vec![root]), Err(HeadError::WrongRoots { wanted: 2, got: 1 }));
        assert_eq!(of(3, vec![Root { size: 1 << 63, ..root }; 2]), Err(HeadError::TooLarge));
    }

    #[test]
    fn only_the_simple_wire_forms_are_read() {
        let manifest = Manifest::v1([7; 32]);
        let wire = manifest.to_wire().expect("v1 has a wire form");
        assert_eq!(Manifest::from_wire(&wire), Ok(manifest));
        assert_eq!(Manifest::from_wire(&wire[..69]), Err(HeadError::UnknownManifest));
        assert_eq!(Manifest::from_wire(&[&wire[..], &[0]].concat()), Err(HeadError::UnknownManifest));
        assert_eq!(Manifest::from_wire(&[]), Err(HeadError::UnknownManifest));
        for byte in 0..6 {
            let mut other = wire;
            other[byte] ^= 2;
            assert_eq!(Manifest::from_wire(&other), Err(HeadError::UnknownManifest));
        }
        for manifest in [manifest, Manifest::Compat] {
            let wire = manifest.signature_to_wire(&[9; 64]);
            assert_eq!(manifest.signature_from_wire(&wire), Ok([9; 64]));
            assert_eq!(manifest.signature_from_wire(&wire[1..]), Err(HeadError::UnknownSignature));
            assert_eq!(manifest.signature_from_wire(&[0; 66]), Err(HeadError::UnknownSignature));
            assert_eq!(manifest.signature_from_wire(&[1, 0, 0]), Err(HeadError::UnknownSignature));
        }
    }

    #[test]
    fn the_largest_head_has_the_largest_encoding() {
        let (_, head) = signed(flat::MAX_LENGTH - 1, u64::MAX, Manifest::v1);
        assert_eq!(head.encode().len(), SignedHead::max_encoded_len());
        assert_eq!(SignedHead::decode_all(&mut &head.encode()[..]), Ok(head));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_decode_to_more_than_they_should(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(head) = SignedHead::decode(&mut &bytes[..]) {
                prop_assert!(head.roots.len() <= flat::MAX_ROOTS);
                prop_assert!(head.verify::<Software>(&[1; 32]).is_err());
            }
        }

        #[test]
        fn no_head_panics(fork: u64, length: u64, sizes in prop::collection::vec(any::<u64>(), 0..70)) {
            let roots: Vec<_> = sizes.into_iter().map(|size| Root { hash: [0; 32], size }).collect();
            let head = SignedHead { fork, length, roots, manifest: Manifest::Compat, signature: [0; 64] };
            prop_assert!(head.verify::<Software>(&[1; 32]).is_err());
            prop_assert!(SignedHead::decode(&mut &head.encode()[..]).is_err() || head.check_shape().is_ok() || head.bytes().is_err() || length == 0);
        }
    }
}
