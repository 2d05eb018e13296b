//! Remotes with gaps: what they have beyond the first one they tell only if they are asked, region by region.

mod support;
use datdot_hypercore::{
    Store,
    messages::{Message, Sync, Wanted},
};
use datdot_proof::{
    flat,
    head::{Head, Root, SignedHead},
    tree::{Node, tree_hash},
};
use ed25519_dalek::{Signer, SigningKey};
use std::{path::Path, time::Duration};
use support::{played::Played, *};

/// Blocks of a region.
const REGION: u64 = 1 << 21;
/// Regions of the feed: one more than are remembered.
const REGIONS: u64 = 5;
const LENGTH: u64 = REGIONS * REGION;
const SIZE: u64 = 10;

/// A peer that knows the head of a large feed and wants nothing yet, and its remote, of which it has heard no more than how long
/// its head is.
fn world(dir: &Path) -> Played {
    // Nobody has the blocks, so that the roots may be anything.
    let root = |index| Node { index, size: SIZE * (flat::end_block(index) - flat::first_block(index)), hash: [7; 32] };
    let nodes: Vec<Node> = flat::full_roots(LENGTH).map(root).collect();
    let (manifest, author) = (keypair(1).manifest(), keypair(1));
    let key = author.feed_key(&manifest);
    let head = Head { fork: 0, length: LENGTH, tree_hash: tree_hash(&nodes) };
    let signature = SigningKey::from_bytes(&[1; 32]).sign(&head.signable(&key.0, &manifest)).to_bytes();
    let roots = nodes.iter().map(|node| Root { hash: node.hash, size: node.size }).collect();
    let head = SignedHead { fork: 0, length: LENGTH, roots, manifest, signature };
    let store = Store::open(dir.join("known")).expect("the folder is free");
    let known = store.open_remote(key, Some(head)).expect("an honest head");
    let mut peer = Played::new(&dir.join("peer"), key, Some(&known));
    // So that it stays open.
    peer.want(2, 0..0, false);
    peer.unwant(1);
    let (uploading, can_upgrade, has_manifest) = (true, true, true);
    let (length, remote_length) = (LENGTH, LENGTH);
    let sync = Sync { uploading, can_upgrade, has_manifest, length, remote_length, ..Sync::default() };
    peer.say(&Message::Sync(sync)).expect("that is no fault");
    peer.heard();
    peer
}

/// Which regions the peer asks about, and which it is no longer interested in.
fn regions(peer: &mut Played) -> (Vec<u64>, Vec<u64>) {
    let heard = peer.heard();
    let of = |message: &Message, back: bool| match message {
        Message::Want(Wanted { start, length: REGION, any: false }) if !back => Some(start / REGION),
        Message::Unwant(Wanted { start, length: REGION, any: false }) if back => Some(start / REGION),
        _ => None,
    };
    [false, true].map(|back| heard.iter().filter_map(|message| of(message, back)).collect()).into()
}

fn step(peer: &mut Played) {
    peer.wait(Duration::from_millis(500)).expect("nobody does anything wrong");
}

fn has(peer: &mut Played, block: u64) {
    peer.say(&Message::Range { drop: false, start: block, length: 1 }).expect("that is no fault");
}

fn asks_for(peer: &mut Played) -> Vec<u64> {
    peer.requests().iter().filter_map(|request| request.block.map(|block| block.index)).collect()
}

#[test]
fn who_reads_a_block_hears_who_has_it_while_others_come() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut peer = world(dir.path());
    peer.want(3, 0..REGION, false);
    step(&mut peer);
    assert_eq!(regions(&mut peer).0, [0]);
    // All but the first one of some, more than are asked for at a time.
    peer.say(&Message::Bitfield { start: 0, words: vec![u32::MAX - 1, u32::MAX] }).expect("that is no fault");
    let first = peer.requests();
    assert_eq!(first.iter().filter_map(|request| request.block).map(|block| block.index).max(), Some(8));
    let block = 2 * REGION + 5;
    peer.want(4, block..block + 1, true);
    step(&mut peer);
    assert_eq!(regions(&mut peer).0, [2]);
    has(&mut peer, block);
    peer.say(&Message::NoData { id: first[0].id, reason: None }).expect("that is no fault");
    assert_eq!(asks_for(&mut peer), [block]);
}

#[test]
fn a_place_is_looked_for_where_the_remote_has_blocks() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut peer = world(dir.path());
    let _settled = peer.look(SIZE * (LENGTH - 7));
    step(&mut peer);
    assert_eq!(regions(&mut peer).0, [4], "the tree that has the byte");
    step(&mut peer);
    assert!(regions(&mut peer).0.is_empty(), "once");
    has(&mut peer, LENGTH - 100);
    let asked = peer.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].hash.map(|hash| hash.index), Some(flat::leaf(LENGTH - 100)));
    assert!(asked[0].seek.is_some());
}

#[test]
fn blocks_that_nobody_has_hide_no_other_regions() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut peer = world(dir.path());
    peer.want(3, 0..LENGTH, false);
    let (mut wanted, mut given_up) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        step(&mut peer);
        let (more, less) = regions(&mut peer);
        wanted.extend(more);
        given_up.extend(less);
    }
    assert_eq!(wanted[..7], [0, 1, 2, 3, 4, 0, 1], "each has its turn");
    assert!(given_up[..3] == [0, 1, 2] && wanted.len() == given_up.len() + 4, "{wanted:?} {given_up:?}");
    assert!(wanted.len() <= 20, "and time to answer: {wanted:?}");
}

#[test]
fn who_reads_here_and_there_hears_of_each_region_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut peer = world(dir.path());
    for turn in 0..3 * REGIONS {
        let block = turn % REGIONS * REGION + 100;
        peer.want(3, block..block + 1, true);
        step(&mut peer);
        let (wanted, given_up) = regions(&mut peer);
        assert_eq!((wanted, given_up.len()), (vec![turn % REGIONS], usize::from(turn >= REGIONS - 1)));
        has(&mut peer, block);
        assert_eq!(asks_for(&mut peer), [block]);
        peer.unwant(3);
        step(&mut peer);
        peer.heard();
    }
}

#[test]
fn a_block_that_is_lost_is_no_reason_to_ask_for_all_others_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut peer = world(dir.path());
    peer.want(3, 0..REGION, false);
    step(&mut peer);
    assert_eq!(regions(&mut peer).0, [0]);
    peer.say(&Message::Range { drop: true, start: 7, length: 1 }).expect("that is no fault");
    assert!(regions(&mut peer).0.is_empty());
    peer.say(&Message::Range { drop: true, start: 7, length: 2 }).expect("that is no fault");
    assert_eq!(regions(&mut peer).0, [0]);
}
