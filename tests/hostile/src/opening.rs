//! Storage proofs and signed heads: what anybody may bring to the ledger.
//!
//! - No bytes make the decoder or the checks panic.
//! - A proof that is accepted is the honest one, to the byte; so is a head.
//! - A proof that is made of damaged content or a damaged outboard is refused by whoever makes it.

use crate::input::Input;
use codec::{Decode, Encode};
use datdot_proof::{
    challenge::{DRAWS, Holding, Position, positions},
    head::{SignedHead, Software},
    opening::{InMemory, Opening},
    outboard,
    proof::Proof,
    segment::{MAX_SEGMENT_BYTES, Segment},
};
use std::sync::LazyLock;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => altered_proof(&mut input),
        1 => altered_head(&mut input),
        2 => damaged_disk(&mut input),
        _ => any_challenge(&mut input),
    }
}

struct Stored {
    segments: Vec<Segment>,
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    positions: Vec<Position>,
    proof: Proof,
}

static STORED: LazyLock<Stored> = LazyLock::new(|| {
    let (mut segments, mut kept) = (Vec::new(), Vec::new());
    for (filling, bytes) in [(1, 1), (2, 70_000), (3, 3_000), (4, 1_024), (5, 2_300_000)] {
        let content: Vec<u8> = (0..bytes).map(|at| (at / 700 * filling) as u8).collect();
        let (root, outboard) = outboard::build(&content).expect("the length is within bounds");
        segments.push(Segment { bytes: bytes as u64, root });
        kept.push((content, outboard));
    }
    let positions = positions(&[7; 32], &[Holding { pay: 1, segments: &segments }], DRAWS);
    let proof = Proof::make(&positions, |at| {
        let (content, outboard) = &kept[at.place];
        Ok::<_, datdot_proof::opening::TooShort>(InMemory { content, outboard })
    });
    Stored { segments, kept, positions, proof: proof.expect("nothing is damaged") }
});

fn altered_proof(input: &mut Input<'_>) {
    let honest = STORED.proof.encode();
    let altered = input.alter(&honest);
    let mut rest = &altered[..];
    let Ok(proof) = Proof::decode(&mut rest) else { return assert_ne!(altered, honest) };
    assert!(proof.openings.len() <= DRAWS);
    let read = altered.len() - rest.len();
    assert!(proof.encode().len() <= read, "more is decoded than was there");
    assert_eq!(proof.check(&STORED.positions).is_ok(), proof == STORED.proof);
}

fn altered_head(input: &mut Input<'_>) {
    // What a feed of hypercore's own tests would have: five blocks, v1 and compat.
    let (key, head) = crate::proof::signed_head(input.bool());
    let honest = head.encode();
    let altered = input.alter(&honest);
    let Ok(read) = SignedHead::decode(&mut &altered[..]) else { return assert_ne!(altered, honest) };
    assert_eq!(SignedHead::decode(&mut &read.encode()[..]), Ok(read.clone()));
    assert_eq!(read.verify::<Software>(&key.0).is_ok(), read == head);
    _ = (read.bytes(), read.nodes().count());
}

fn damaged_disk(input: &mut Input<'_>) {
    let place = input.below(STORED.segments.len());
    let (segment, (content, outboard)) = (&STORED.segments[place], &STORED.kept[place]);
    let content = if input.bool() { input.alter(content) } else { content.clone() };
    let outboard = if input.bool() { input.alter(outboard) } else { outboard.clone() };
    let chunk = input.uint();
    let mut source = InMemory { content: &content, outboard: &outboard };
    if let Ok(opening) = Opening::make(segment, chunk, &mut source) {
        assert_eq!(opening.check(segment, chunk), Ok(()));
    }
}

fn any_challenge(input: &mut Input<'_>) {
    let seed = input.fixed();
    let lists: Vec<(u128, Vec<Segment>)> = (0..input.below(6))
        .map(|_| {
            let segment = |input: &mut Input<'_>| Segment {
                bytes: input.uint() % (MAX_SEGMENT_BYTES + 1),
                root: [input.u8(); 32],
            };
            let segments = (0..input.below(5)).map(|_| segment(input)).collect();
            (input.uint().into(), segments)
        })
        .collect();
    let holdings: Vec<_> = lists.iter().map(|(pay, segments)| Holding { pay: *pay, segments }).collect();
    let positions = positions(&seed, &holdings, DRAWS);
    let holds = lists.iter().any(|(_, segments)| segments.iter().any(|segment| segment.bytes > 0));
    assert_eq!(positions.is_empty(), !holds);
    for at in &positions {
        assert_eq!(holdings[at.holding].segments[at.place], at.segment);
        assert!(at.segment.chunk_bytes(at.chunk).is_some());
    }
    if let Ok(proof) = Proof::decode(&mut input.rest()) {
        // Nobody finds a chunk for a root that is one byte, again and again.
        assert_eq!(proof.check(&positions).is_ok(), positions.is_empty() && proof.openings.is_empty());
    }
}
