//! Heads and block proofs made by hypercore 11.37.1 (`vectors/*.json`) are accepted, and only as they are.

use datdot_proof::{
    flat,
    head::{HeadError, Manifest, Root, SignedHead, Software, discovery_key},
    tree::{self, Node, Roots, TreeError},
};
use serde::Deserialize;

const VECTORS: [&str; 3] = [
    include_str!("vectors/compat.json"),
    include_str!("vectors/v1-1000000-blocks.json"),
    include_str!("vectors/v1-forked.json"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feed {
    key: String,
    discovery_key: String,
    manifest: String,
    compat: bool,
    tree_hash: String,
    proofs: Vec<Proof>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proof {
    index: u64,
    value: String,
    fork: u64,
    length: u64,
    block_nodes: Vec<(u64, u64, String)>,
    up_nodes: Vec<(u64, u64, String)>,
    signature: String,
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("vectors are hex")
}

fn hash(text: &str) -> [u8; 32] {
    bytes(text).try_into().expect("hashes and keys have 32 bytes")
}

fn nodes(list: &[(u64, u64, String)]) -> Vec<Node> {
    list.iter().map(|(index, size, text)| Node { index: *index, size: *size, hash: hash(text) }).collect()
}

impl Proof {
    fn block(&self) -> Node {
        Node::leaf(self.index, &bytes(&self.value))
    }

    fn root_above(&self) -> Node {
        let path = tree::climb(self.block(), &nodes(&self.block_nodes)).expect("siblings are in order");
        path.last().copied().unwrap_or(self.block())
    }

    /// An upgrade leaves out the root that follows from the block.
    fn head(&self, feed: &Feed) -> SignedHead {
        let mut roots = nodes(&self.up_nodes);
        roots.push(self.root_above());
        roots.sort_by_key(|root| root.index);
        assert!(roots.iter().map(|root| root.index).eq(flat::full_roots(self.length)));
        let manifest = match feed.compat {
            true => Manifest::Compat,
            false => Manifest::from_wire(&bytes(&feed.manifest)).expect("a default manifest"),
        };
        SignedHead {
            fork: self.fork,
            length: self.length,
            roots: roots.iter().map(|root| Root { hash: root.hash, size: root.size }).collect(),
            manifest,
            signature: manifest.signature_from_wire(&bytes(&self.signature)).expect("one signature"),
        }
    }
}

fn feeds() -> impl Iterator<Item = Feed> {
    VECTORS.iter().map(|text| serde_json::from_str(text).expect("vectors are JSON"))
}

fn each_proof(mut claim: impl FnMut(&Feed, &Proof)) {
    feeds().for_each(|feed| {
        assert!(!feed.proofs.is_empty());
        feed.proofs.iter().for_each(|proof| claim(&feed, proof));
    });
}

#[test]
fn heads_signed_by_javascript_verify() {
    each_proof(|feed, proof| {
        let head = proof.head(feed);
        let verified = head.verify::<Software>(&hash(&feed.key)).expect("the author signed it");
        assert_eq!(verified.tree_hash, hash(&feed.tree_hash));
        assert_eq!((verified.length, verified.fork), (proof.length, proof.fork));
        let (roots, sizes) = (Roots::from_nodes(&head.nodes().collect::<Vec<_>>()), head.bytes());
        let roots = roots.expect("a head has the roots of its length");
        assert_eq!((roots.tree_hash(), roots.length(), Ok(roots.bytes())), (verified.tree_hash, proof.length, sizes));
    });
}

#[test]
fn appending_the_blocks_again_gives_the_tree_of_javascript() {
    for feed in feeds().filter(|feed| feed.proofs.len() as u64 == feed.proofs[0].length) {
        let mut roots = Roots::new();
        for proof in &feed.proofs {
            roots.push(proof.block()).expect("blocks come in order");
        }
        assert_eq!(roots.tree_hash(), hash(&feed.tree_hash));
        assert_eq!(roots.nodes(), feed.proofs[0].head(&feed).nodes().collect::<Vec<_>>());
    }
}

#[test]
fn feeds_are_announced_as_javascript_does() {
    feeds().for_each(|feed| assert_eq!(discovery_key(&hash(&feed.key)), hash(&feed.discovery_key)));
}

#[test]
fn wire_forms_of_javascript_come_out_as_they_went_in() {
    each_proof(|feed, proof| {
        let head = proof.head(feed);
        assert_eq!(head.signature_to_wire(), bytes(&proof.signature));
        if !feed.compat {
            assert_eq!(head.manifest.to_wire().expect("v1 has a manifest").to_vec(), bytes(&feed.manifest));
            assert_eq!(head.manifest.feed_key(), Some(hash(&feed.key)));
        }
    });
}

#[test]
fn blocks_of_javascript_belong_under_their_root_and_no_other_block_does() {
    each_proof(|_, proof| {
        let (siblings, root) = (nodes(&proof.block_nodes), proof.root_above());
        assert_eq!(tree::check(&proof.block(), &siblings, &root), Ok(()));
        let mut value = bytes(&proof.value);
        for bit in (0..8 * value.len()).step_by(value.len().div_ceil(100).max(1)) {
            value[bit / 8] ^= 1 << (bit % 8);
            let block = Node::leaf(proof.index, &value);
            assert_eq!(tree::check(&block, &siblings, &root), Err(TreeError::Mismatch { index: root.index }));
            value[bit / 8] ^= 1 << (bit % 8);
        }
        let elsewhere = Node::leaf(proof.index ^ 4, &value);
        assert!(tree::check(&elsewhere, &siblings, &root).is_err() || siblings.is_empty());
    });
}

#[test]
fn a_head_is_refused_when_anything_in_it_changes() {
    for feed in feeds() {
        let (head, key) = (feed.proofs[0].head(&feed), hash(&feed.key));
        let refused = |change: &dyn Fn(&mut SignedHead)| {
            let mut changed = head.clone();
            change(&mut changed);
            changed.verify::<Software>(&key).expect_err("what was not signed is refused")
        };
        assert_eq!(refused(&|head| head.fork += 1), HeadError::WrongSignature);
        assert!(matches!(refused(&|head| head.length += 1), HeadError::WrongRoots { .. } | HeadError::WrongSignature));
        let wrong = HeadError::WrongSignature;
        for root in 0..head.roots.len() {
            assert_eq!(refused(&|head| head.roots[root].size ^= 1), wrong);
            assert_eq!(refused(&|head| head.roots[root].hash[root % 32] ^= 1 << (root % 8)), wrong);
        }
        for byte in 0..64 {
            assert_eq!(refused(&|head| head.signature[byte] ^= 1 << (byte % 8)), wrong);
        }
        assert_eq!(refused(&|head| head.roots[0].size = u64::MAX), HeadError::TooLarge);
        let other = match feed.compat {
            true => HeadError::WrongSignature,
            false => HeadError::OtherFeed,
        };
        assert_eq!(head.verify::<Software>(&[7; 32]), Err(other));
    }
}
