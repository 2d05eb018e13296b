//! The messages of a feed's channel, and who may write a feed.
//!
//! - What can be read is written in one way, and read again as the same.
//! - A manifest is its bytes, and no signature that nobody made is taken for its authors'.

use crate::input::Input;
use bytes::Bytes;
use datdot_hypercore::{
    Authors, FeedKey,
    messages::{Handshake, Message},
};
use datdot_proof::{
    head::MANIFEST,
    tree::{Node, Roots, blake2b},
};

/// The first byte is the type of a message, from 10 on a handshake or a manifest; the rest is its body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() {
        10 => handshake(input.rest()),
        11 => manifest(&mut input),
        kind => message(kind.into(), Bytes::copy_from_slice(input.rest())),
    }
}

fn message(kind: u64, body: Bytes) {
    let Ok(Some(message)) = Message::decode(kind, &body) else { return };
    let (again, written) = message.encode();
    assert_eq!(again, kind);
    let written = Bytes::from(written);
    assert_eq!(Message::decode(kind, &written).as_ref(), Ok(&Some(message.clone())));
    // Only extensions are not kept.
    assert!(kind == 9 || written.len() <= body.len() + 1, "{message:?} became longer");
}

fn handshake(body: &[u8]) {
    if let Ok(handshake) = Handshake::decode(body) {
        assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
    }
}

fn manifest(input: &mut Input<'_>) {
    let (blocks, fork) = (input.below(9) as u64, input.uint());
    let signature = input.part();
    let wire = Bytes::copy_from_slice(input.rest());
    let Ok(authors) = Authors::from_wire(wire.clone()) else { return };
    assert_eq!(authors.to_wire(), Some(&wire));
    let key = FeedKey(blake2b(&[&MANIFEST, &wire]));
    assert!(authors.are_of(&key));
    let mut roots = Roots::new();
    for block in 0..blocks {
        roots.push(Node::leaf(block, b"a block that nobody signed")).expect("leaves come in order");
    }
    if authors.verify(&key, fork, &roots, signature).is_ok() {
        let prologue = authors.prologue.expect("nobody signed it");
        assert_eq!((prologue.length, prologue.hash), (roots.length(), roots.tree_hash()));
    }
}
