//! Who may write a feed: a Hypercore manifest, in any form that Hypercore 11 reads.
//!
//! ```text
//! v0       00 00 kind   0: prologue hash 32 │ 1: signer │ 2: flags (1 allowPatch) quorum signers[]
//! v1..v3   version flags (1 allowPatch, 2 prologue, 4 linked, 8 userData) 00 quorum signers[]
//!          [prologue: hash 32, length] [linked: key 32 []] [userData: buffer]
//! signer   00 namespace 32 public key 32
//!
//! signed by each signer   TREE | context 32 | tree hash | length | fork
//!                         context: its namespace in v0, the manifest's hash from v1 on; none in a compat feed
//! signature, from v1      proofs[]: signer, signature 64, patch │ nodes[]
//! signature, v0           one signer: signature 64, else proofs[]: flags signer signature 64 [start length numbers[]] │ nodes[]
//! ```
//!
//! A signer that has signed a shorter tree counts if `allowPatch` is set and the patch, so many blocks more, leads from that
//! tree to the one in question (hypercore `lib/verifier.js`, `lib/multisig.js`, `lib/messages.js`).

use crate::{key::FeedKey, prove::cover};
use bytes::Bytes;
use datdot_proof::{
    flat,
    head::{Crypto as _, DEFAULT_NAMESPACE, MANIFEST, Manifest, Software, TREE},
    tree::{Node, Roots, blake2b},
};
use datdot_wire::encoding::{DecodeError, Reader, Writer};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Bytes of the longest manifest that is read: some hundred signers.
pub const MAX_MANIFEST: usize = 32 << 10;
/// Bytes of the longest signature that is read: one by each of them, and patches.
pub const MAX_SIGNATURE: usize = 64 << 10;

const MAX_SIGNERS: usize = MAX_MANIFEST / 65;
const MAX_LINKED: usize = MAX_MANIFEST / 32;
/// Nodes of all patches of a signature.
const MAX_PATCH: usize = 1 << 10;

/// Who may write a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authors {
    /// The form of the manifest, 0 to 3; 0 for a compat feed too.
    pub version: u64,
    /// So many signers have to sign each head. With none there is nothing but the prologue.
    pub quorum: u64,
    /// Who may sign.
    pub signers: Vec<Signer>,
    /// Whether signatures of shorter trees count.
    pub allow_patch: bool,
    /// The first blocks, fixed for ever.
    pub prologue: Option<Prologue>,
    /// Keys of other feeds that belong to this one.
    pub linked: Option<Vec<FeedKey>>,
    /// For the application.
    pub user_data: Option<Bytes>,
    /// The manifest as it was read; a compat feed has none.
    wire: Option<Bytes>,
}

/// One who may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signer {
    /// What the key is used for.
    pub namespace: [u8; 32],
    /// Ed25519 public key.
    pub key: [u8; 32],
}

/// The first blocks of a feed as its manifest fixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// Tree hash of those blocks.
    pub hash: [u8; 32],
    /// How many they are.
    pub length: u64,
}

/// A head of any feed, as its authors signed it: see [`Feed::head`](crate::Feed::head). Who has it can verify blocks from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who may write the feed.
    pub authors: Arc<Authors>,
    /// How often they have rewritten it.
    pub fork: u64,
    /// Its full roots, which say how long it is.
    pub roots: Roots,
    /// As it stands in an upgrade; nothing where a prologue says enough.
    pub signature: Bytes,
}

impl Head {
    /// Checks that the authors of the feed `key` made it.
    pub fn verify(&self, key: &FeedKey) -> Result<(), NotTheirs> {
        if self.signature.len() > MAX_SIGNATURE || self.roots.length() == 0 {
            return Err(NotTheirs::WrongSignature);
        }
        self.authors.verify(key, self.fork, &self.roots, &self.signature)
    }
}

/// Why a head is not the authors'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTheirs {
    /// A version, hash or kind of key that Hypercore 11 does not know either, or too many of something.
    #[error("the feed's manifest is not understood")]
    Unknown,
    /// The manifest's hash is another feed's key.
    #[error("the manifest belongs to another feed")]
    OtherFeed,
    /// The signature can't be read.
    #[error("the signature can't be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Too few signatures, one of no signer, or over something else.
    #[error("the head is not signed by the authors of the feed")]
    WrongSignature,
    /// The head is within the prologue, or contradicts it.
    #[error("the head contradicts the prologue in the manifest")]
    Prologue,
}

/// Whether these bytes, understood or not, are the manifest that a feed is named after.
pub(crate) fn is_manifest_of(bytes: &[u8], key: &FeedKey) -> bool {
    blake2b(&[&MANIFEST, bytes]) == key.0
}

struct Proof {
    signer: u64,
    signature: [u8; 64],
    patch: u64,
}

impl Authors {
    /// The one author of a feed of Hypercore 10, whose key is the feed's.
    pub fn compat(key: &FeedKey) -> Authors {
        Authors {
            version: 0,
            quorum: 1,
            signers: vec![Signer { namespace: DEFAULT_NAMESPACE, key: key.0 }],
            allow_patch: false,
            prologue: None,
            linked: None,
            user_data: None,
            wire: None,
        }
    }

    /// The author of the feed `key` that a manifest with one signer names.
    pub fn single(manifest: &Manifest, key: &FeedKey) -> Authors {
        let Manifest::V1 { namespace, signer } = manifest else { return Authors::compat(key) };
        let signers = vec![Signer { namespace: *namespace, key: *signer }];
        let wire = manifest.to_wire().map(|wire| Bytes::copy_from_slice(&wire));
        Authors { version: 1, signers, wire, ..Authors::compat(key) }
    }

    /// Reads a manifest as peers send it. Its bytes are kept: their hash is the feed's key.
    pub fn from_wire(bytes: Bytes) -> Result<Authors, NotTheirs> {
        let authors = if bytes.len() <= MAX_MANIFEST { read(&bytes).ok() } else { None };
        let mut authors = authors.ok_or(NotTheirs::Unknown)?;
        // JavaScript hashes what it would write itself.
        if authors.encode() != bytes {
            return Err(NotTheirs::Unknown);
        }
        // A copy: these may be a few bytes out of a frame of megabytes, which would be kept with them.
        authors.wire = Some(Bytes::copy_from_slice(&bytes));
        Ok(authors)
    }

    /// The manifest as peers want it; a compat feed has none.
    pub fn to_wire(&self) -> Option<&Bytes> {
        self.wire.as_ref()
    }

    /// The form with one signer, v1 or compat, which the ledger understands.
    pub fn to_single(&self) -> Option<Manifest> {
        let Some(wire) = &self.wire else { return Some(Manifest::Compat) };
        Manifest::from_wire(wire).ok()
    }

    /// Whether this is the author of a feed of Hypercore 10, which has no manifest.
    pub fn is_compat(&self) -> bool {
        self.wire.is_none()
    }

    /// Whether they are the authors of the feed `key`.
    pub fn are_of(&self, key: &FeedKey) -> bool {
        match &self.wire {
            None => self.signers.first().is_some_and(|signer| signer.key == key.0),
            Some(wire) => is_manifest_of(wire, key),
        }
    }

    /// Checks that they made the head of the feed `key` with these roots, fork and signature.
    pub fn verify(&self, key: &FeedKey, fork: u64, roots: &Roots, signature: &[u8]) -> Result<(), NotTheirs> {
        if !self.are_of(key) {
            return Err(NotTheirs::OtherFeed);
        }
        if let Some(prologue) = self.prologue.filter(|prologue| roots.length() <= prologue.length)
            && self.version > 0
        {
            let same = roots.length() == prologue.length && roots.tree_hash() == prologue.hash;
            return if same { Ok(()) } else { Err(NotTheirs::Prologue) };
        }
        if self.version == 0 && self.signers.len() == 1 && !self.allow_patch {
            let signature = signature.try_into().map_err(|_| NotTheirs::WrongSignature)?;
            return self.signed_by(0, key, fork, roots, signature);
        }
        let (proofs, patch) = self.read_signature(signature, roots.length())?;
        let enough = usize::try_from(self.quorum).ok().filter(|quorum| (1..=proofs.len()).contains(quorum));
        let mut seen = BTreeSet::new();
        for proof in &proofs[..enough.ok_or(NotTheirs::WrongSignature)?] {
            if !seen.insert(proof.signer) {
                return Err(NotTheirs::WrongSignature);
            }
            match self.allow_patch && proof.patch > 0 {
                false => self.signed_by(proof.signer, key, fork, roots, &proof.signature)?,
                true => {
                    let patched = patched(roots, proof.patch, &patch).ok_or(NotTheirs::WrongSignature)?;
                    self.signed_by(proof.signer, key, fork, &patched, &proof.signature)?;
                }
            }
        }
        Ok(())
    }

    fn signed_by(
        &self,
        signer: u64,
        key: &FeedKey,
        fork: u64,
        roots: &Roots,
        signature: &[u8; 64],
    ) -> Result<(), NotTheirs> {
        let signer = usize::try_from(signer).ok().and_then(|signer| self.signers.get(signer));
        let signer = signer.ok_or(NotTheirs::WrongSignature)?;
        let mut message = TREE.to_vec();
        match (&self.wire, self.version) {
            (None, _) => {}
            (Some(_), 0) => message.extend_from_slice(&signer.namespace),
            (Some(_), _) => message.extend_from_slice(&key.0),
        }
        message.extend_from_slice(&roots.tree_hash());
        message.extend_from_slice(&roots.length().to_le_bytes());
        message.extend_from_slice(&fork.to_le_bytes());
        let good = Software::ed25519_verify(signature, &message, &signer.key);
        if good { Ok(()) } else { Err(NotTheirs::WrongSignature) }
    }

    fn read_signature(&self, bytes: &[u8], length: u64) -> Result<(Vec<Proof>, BTreeMap<u64, Node>), DecodeError> {
        let mut r = Reader::new(bytes);
        let v0 = self.version == 0;
        let proofs = r.array(MAX_SIGNERS, |r| {
            let flags = if v0 { r.uint()? } else { 0 };
            let (signer, signature) = (r.uint()?, *r.fixed()?);
            let patch = match (v0, flags & 1 != 0) {
                (false, _) => r.uint()?,
                (true, false) => 0,
                // Where the patch begins and which nodes it has follows from its length.
                (true, true) => {
                    let patch = (r.uint()?, r.uint()?).1;
                    r.array(MAX_PATCH, Reader::uint)?;
                    patch
                }
            };
            match length.checked_add(patch) {
                Some(..=flat::MAX_LENGTH) => Ok(Proof { signer, signature, patch }),
                _ => Err(DecodeError::TooLarge { max: flat::MAX_LENGTH }),
            }
        })?;
        let patch = r.array(MAX_PATCH, |r| Ok(Node { index: r.uint()?, size: r.uint()?, hash: *r.fixed()? }))?;
        Ok((proofs, patch.into_iter().map(|node| (node.index, node)).collect()))
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(128);
        let write = |w: &mut Writer, signer: &Signer| _ = w.uint(0).raw(&signer.namespace).raw(&signer.key);
        w.uint(self.version);
        match (self.version, &self.prologue, &self.signers[..]) {
            (0, Some(prologue), []) => _ = w.uint(0).uint(0).raw(&prologue.hash),
            (0, _, [signer]) if self.quorum == 1 && !self.allow_patch => {
                write(w.uint(0).uint(1), signer);
            }
            (0, ..) => {
                w.uint(0).uint(2).uint(u64::from(self.allow_patch)).uint(self.quorum).array(&self.signers, write);
            }
            _ => {
                let flags =
                    [self.allow_patch, self.prologue.is_some(), self.linked.is_some(), self.user_data.is_some()];
                let flags = flags.iter().enumerate().map(|(at, flag)| u64::from(*flag) << at).sum();
                w.uint(flags).uint(0).uint(self.quorum).array(&self.signers, write);
                if let Some(prologue) = &self.prologue {
                    w.raw(&prologue.hash).uint(prologue.length);
                }
                if let Some(linked) = &self.linked {
                    w.array(linked, |w, key| _ = w.raw(&key.0));
                }
                if let Some(user_data) = &self.user_data {
                    w.buffer(user_data);
                }
            }
        }
        w.into_vec()
    }
}

/// The roots so many blocks later.
fn patched(roots: &Roots, blocks: u64, patch: &BTreeMap<u64, Node>) -> Option<Roots> {
    let (mut roots, start) = (roots.clone(), roots.length());
    for index in cover(start, start + blocks) {
        roots.push(*patch.get(&index)?).ok()?;
    }
    Some(roots)
}

fn read(bytes: &Bytes) -> Result<Authors, DecodeError> {
    let r = &mut Reader::new(bytes);
    let zero = |r: &mut Reader<'_>| match r.uint()? {
        0 => Ok(()),
        _ => Err(DecodeError::Invalid("kind of hash or key")),
    };
    let signer = |r: &mut Reader<'_>| {
        zero(r)?;
        Ok(Signer { namespace: *r.fixed()?, key: *r.fixed()? })
    };
    let mut authors = Authors { quorum: 0, signers: Vec::new(), ..Authors::compat(&FeedKey([0; 32])) };
    authors.version = r.uint()?;
    match authors.version {
        0 => {
            zero(r)?;
            match r.uint()? {
                0 => authors.prologue = Some(Prologue { hash: *r.fixed()?, length: 0 }),
                1 => (authors.quorum, authors.signers) = (1, vec![signer(r)?]),
                2 => {
                    authors.allow_patch = r.uint()? & 1 != 0;
                    (authors.quorum, authors.signers) = (r.uint()?, r.array(MAX_SIGNERS, signer)?);
                }
                _ => return Err(DecodeError::Invalid("kind of manifest")),
            }
        }
        1..=3 => {
            let flags = r.uint()?;
            zero(r)?;
            authors.allow_patch = flags & 1 != 0;
            (authors.quorum, authors.signers) = (r.uint()?, r.array(MAX_SIGNERS, signer)?);
            if flags & 2 != 0 {
                authors.prologue = Some(Prologue { hash: *r.fixed()?, length: r.uint()? });
            }
            if flags & 4 != 0 {
                authors.linked = Some(r.array(MAX_LINKED, |r| Ok(FeedKey(*r.fixed()?)))?);
            }
            if flags & 8 != 0 {
                authors.user_data = Some(Bytes::copy_from_slice(r.buffer()?));
            }
        }
        _ => return Err(DecodeError::Invalid("version of a manifest")),
    }
    Ok(authors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, feed::FeedError, key::Keypair};
    use proptest::prelude::*;

    fn roots(blocks: u64) -> Roots {
        let mut roots = Roots::new();
        (0..blocks).for_each(|block| _ = roots.push(Node::leaf(block, &[block as u8])).expect("in order"));
        roots
    }

    fn three(version: u64, quorum: u64, allow_patch: bool) -> Authors {
        let signers =
            [1, 2, 3].map(|name| Signer { namespace: [name; 32], key: Keypair::from_seed([name; 32]).public() });
        let mut authors =
            Authors { version, quorum, allow_patch, signers: signers.into(), ..Authors::compat(&FeedKey([0; 32])) };
        authors.wire = Some(authors.encode().into());
        Authors::from_wire(authors.encode().into()).expect("it is in order")
    }

    fn key(authors: &Authors) -> FeedKey {
        FeedKey(blake2b(&[&MANIFEST, authors.to_wire().expect("it has one")]))
    }

    fn sign(authors: &Authors, name: u8, fork: u64, roots: &Roots) -> [u8; 64] {
        let context = if authors.version == 0 { [name; 32] } else { key(authors).0 };
        let numbers = [roots.length().to_le_bytes(), fork.to_le_bytes()].concat();
        Keypair::from_seed([name; 32]).sign(&[&TREE[..], &context, &roots.tree_hash(), &numbers].concat())
    }

    /// A signature from v1 on, by the signers with these names.
    fn together(authors: &Authors, signatures: &[(u8, u64, &Roots)], patch: &[Node]) -> Vec<u8> {
        let mut w = Writer::with_capacity(300);
        w.array(signatures, |w, (name, longer, roots)| {
            w.uint(u64::from(name - 1)).raw(&sign(authors, *name, 0, roots)).uint(*longer);
        });
        w.array(patch, |w, node| _ = w.uint(node.index).uint(node.size).raw(&node.hash));
        w.into_vec()
    }

    #[test]
    fn two_of_three_are_enough_if_they_are_two() {
        let (authors, five) = (three(1, 2, false), roots(5));
        let verify = |signature: Vec<u8>, fork| authors.verify(&key(&authors), fork, &five, &signature);
        let by =
            |names: &[u8]| together(&authors, &names.iter().map(|name| (*name, 0, &five)).collect::<Vec<_>>(), &[]);
        assert_eq!(verify(by(&[1, 3]), 0), Ok(()));
        assert_eq!(verify(by(&[3, 2, 1]), 0), Ok(()));
        for bad in [&[1][..], &[1, 1], &[1, 4], &[]] {
            assert_eq!(verify(by(bad), 0), Err(NotTheirs::WrongSignature), "{bad:?}");
        }
        assert_eq!(verify(by(&[1, 3]), 1), Err(NotTheirs::WrongSignature));
        assert_eq!(authors.verify(&FeedKey([9; 32]), 0, &five, &by(&[1, 3])), Err(NotTheirs::OtherFeed));
        assert!(matches!(verify(vec![9], 0), Err(NotTheirs::Unreadable(_))));
        assert_eq!(
            three(1, 0, false).verify(&key(&three(1, 0, false)), 0, &five, &by(&[1])),
            Err(NotTheirs::WrongSignature)
        );
    }

    #[test]
    fn a_head_of_several_signers_is_taken_and_given() {
        let (authors, five) = (Arc::new(three(1, 2, false)), roots(5));
        let key = key(&authors);
        let signed = |names: &[u8], blocks: u64| {
            let roots = roots(blocks);
            let names: Vec<_> = names.iter().map(|name| (*name, 0, &roots)).collect();
            let signature = together(&authors, &names, &[]).into();
            Head { authors: authors.clone(), fork: 0, roots: roots.clone(), signature }
        };
        let dir = tempfile::tempdir().expect("a folder");
        let feed = Store::open(dir.path()).expect("the folder is free").open_remote(key, None).expect("room");
        let adopt = |head| feed.adopt_head_now(head);
        for bad in [signed(&[1], 5), Head { roots: roots(4), ..signed(&[1, 2], 5) }, signed(&[1, 2], 0)] {
            assert!(matches!(adopt(bad), Err(FeedError::NotTheirs(_))));
        }
        assert_eq!(feed.head(), None);
        adopt(signed(&[1, 2], 5)).expect("two signed it");
        assert_eq!((feed.head(), feed.signed_head()), (Some(signed(&[1, 2], 5)), None));
        assert_eq!(feed.info().bytes, five.bytes());
        // One that it grew from is no news, and from one to the next somebody has to lead.
        assert!(matches!(adopt(signed(&[2, 3], 7)), Err(FeedError::NeedsUpgrade { length: 7 })));
        adopt(signed(&[1, 3], 5)).expect("it is the same");
        assert_eq!(feed.head(), Some(signed(&[1, 2], 5)));
    }

    #[test]
    fn who_signed_more_signed_this_only_if_patches_are_allowed() {
        let (five, seven) = (roots(5), roots(7));
        let patch = [Node::leaf(5, &[5]), Node::leaf(6, &[6])];
        for (allowed, result) in [(true, Ok(())), (false, Err(NotTheirs::WrongSignature))] {
            let authors = three(2, 2, allowed);
            let signature = together(&authors, &[(1, 0, &five), (2, 2, &seven)], &patch);
            assert_eq!(authors.verify(&key(&authors), 0, &five, &signature), result);
            let incomplete = together(&authors, &[(1, 0, &five), (2, 2, &seven)], &patch[..1]);
            assert!(authors.verify(&key(&authors), 0, &five, &incomplete).is_err());
        }
    }

    #[test]
    fn a_prologue_needs_no_signature_and_stands_for_ever() {
        let (four, five) = (roots(4), roots(5));
        let mut authors =
            Authors { prologue: Some(Prologue { hash: four.tree_hash(), length: 4 }), ..three(1, 2, false) };
        authors = Authors::from_wire(authors.encode().into()).expect("it is in order");
        let key = key(&authors);
        assert_eq!(authors.verify(&key, 0, &four, &[]), Ok(()));
        assert_eq!(authors.verify(&key, 0, &roots(3), &[]), Err(NotTheirs::Prologue));
        assert!(authors.verify(&key, 0, &five, &[]).is_err());
        assert_eq!(authors.verify(&key, 0, &five, &together(&authors, &[(1, 0, &five), (2, 0, &five)], &[])), Ok(()));
    }

    #[test]
    fn one_signer_is_what_the_ledger_understands() {
        let pair = Keypair::from_seed([7; 32]);
        for manifest in [pair.manifest(), Manifest::Compat] {
            let key = pair.feed_key(&manifest);
            let authors = Authors::single(&manifest, &key);
            assert!(authors.are_of(&key) && !authors.are_of(&FeedKey([3; 32])));
            assert_eq!(authors.to_single(), Some(manifest));
            assert_eq!(
                authors.to_wire().map(|wire| Authors::from_wire(wire.clone())),
                authors.wire.as_ref().map(|_| Ok(authors.clone()))
            );
        }
        assert_eq!(three(1, 2, false).to_single(), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_was(
            (version, quorum, allow_patch) in (0..4u64, 0..5u64, any::<bool>()),
            signers in proptest::collection::vec(any::<([u8; 32], [u8; 32])>(), 0..4),
            prologue in proptest::option::of((any::<[u8; 32]>(), 0..1u64 << 40)),
            linked in proptest::option::of(proptest::collection::vec(any::<[u8; 32]>(), 0..3)),
            user_data: Option<Vec<u8>>,
        ) {
            let signers: Vec<_> = signers.into_iter().map(|(namespace, key)| Signer { namespace, key }).collect();
            let mut authors = Authors { version, quorum, allow_patch, signers, ..Authors::compat(&FeedKey([0; 32])) };
            if version > 0 {
                authors.prologue = prologue.map(|(hash, length)| Prologue { hash, length });
                authors.linked = linked.map(|keys| keys.into_iter().map(FeedKey).collect());
                authors.user_data = user_data.map(Bytes::from);
            }
            authors.wire = Some(authors.encode().into());
            prop_assert_eq!(Authors::from_wire(authors.encode().into()), Ok(authors.clone()));
            prop_assert!(Authors::from_wire([&authors.encode()[..], &[0]].concat().into()).is_err());
        }

        #[test]
        fn no_bytes_panic(manifest: Vec<u8>, signature: Vec<u8>, version in 0..4u64) {
            _ = Authors::from_wire(manifest.into());
            let authors = three(version, 2, true);
            prop_assert!(authors.verify(&key(&authors), 0, &roots(5), &signature).is_err());
        }
    }
}
