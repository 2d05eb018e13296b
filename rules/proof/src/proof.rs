//! Storage proofs: the answer to a challenge, one opening for each position.
//!
//! At 16 draws a proof has about 27 KB over 1 GiB and 30 KB over 64 GiB, however many contracts there are.

use crate::{
    challenge::{DRAWS, Position},
    opening::{MakeError, Opening, OpeningError, Source},
    segment::Segment,
};
use alloc::vec::Vec;
use codec::{Compact, Decode, DecodeWithMemTracking, Encode, Error as CodecError, Input, MaxEncodedLen};
use scale_info::TypeInfo;

/// Openings in the order of the positions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, DecodeWithMemTracking, TypeInfo)]
pub struct Proof {
    /// One for each position, at most [`DRAWS`].
    pub openings: Vec<Opening>,
}

impl Proof {
    /// Answers a challenge; `open` gives the place where the segment of a position is kept.
    ///
    /// Damage shows here, before the ledger sees it: a proof that comes out passes [`check`](Self::check).
    pub fn make<S: Source>(
        positions: &[Position],
        mut open: impl FnMut(&Position) -> Result<S, S::Error>,
    ) -> Result<Proof, CannotProve<S::Error>> {
        let openings = positions.iter().map(|at| {
            let opening = open(at)
                .map_err(MakeError::Source)
                .and_then(|mut source| Opening::make(&at.segment, at.chunk, &mut source));
            opening.map_err(|why| CannotProve { at: *at, why })
        });
        Ok(Proof { openings: openings.collect::<Result<_, _>>()? })
    }

    /// Checks the answer to a challenge: all shapes first, and only then anything is hashed.
    pub fn check(&self, positions: &[Position]) -> Result<(), ProofError> {
        if self.openings.len() != positions.len() {
            return Err(ProofError::Count { wanted: positions.len(), got: self.openings.len() });
        }
        let check_all = |check: fn(&Opening, &Segment, u64) -> Result<(), OpeningError>| {
            self.openings.iter().zip(positions).try_for_each(|(opening, at)| {
                check(opening, &at.segment, at.chunk).map_err(|why| ProofError::Opening { at: *at, why })
            })
        };
        check_all(Opening::check_shape)?;
        check_all(Opening::check_content)
    }
}

impl Decode for Proof {
    /// Takes no more than [`DRAWS`] openings.
    fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
        let count = Compact::<u32>::decode(input)?.0;
        if count as usize > DRAWS {
            return Err("a proof has more openings than a challenge has draws".into());
        }
        let openings = (0..count).map(|_| Opening::decode(input)).collect::<Result<_, _>>()?;
        Ok(Proof { openings })
    }
}

impl MaxEncodedLen for Proof {
    fn max_encoded_len() -> usize {
        // 1: a compact count below 64.
        1 + DRAWS * Opening::max_encoded_len()
    }
}

/// Why a challenge can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk {chunk} can't be shown: {why}", chunk = at.chunk)]
pub struct CannotProve<E> {
    /// The position that has no answer.
    pub at: Position,
    /// What is wrong there.
    pub why: MakeError<E>,
}

/// Why a proof is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Every position wants one opening.
    #[error("the proof has {got} openings, not {wanted}")]
    Count {
        /// Positions of the challenge.
        wanted: usize,
        /// Openings that came.
        got: usize,
    },
    /// An opening does not show its chunk.
    #[error("the opening of chunk {chunk} is refused: {why}", chunk = at.chunk)]
    Opening {
        /// The position that was to be shown.
        at: Position,
        /// What is wrong with it.
        why: OpeningError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        challenge::{Holding, positions},
        opening::{InMemory, TooShort},
        outboard,
        segment::{CHUNK_BYTES, MAX_SEGMENT_BYTES, MAX_SIBLINGS},
    };
    use alloc::vec;
    use codec::DecodeAll;
    use proptest::prelude::*;

    /// One segment with its bytes and outboard.
    type Stored = (Segment, Vec<u8>, Vec<u8>);

    fn stored(bytes: usize, filling: u8) -> Stored {
        let content: Vec<_> = (0..bytes).map(|at| filling.wrapping_add((at / 1024) as u8)).collect();
        let (root, outboard) = outboard::build(&content).expect("the length is within bounds");
        (Segment { bytes: bytes as u64, root }, content, outboard)
    }

    fn source<'a>(stored: &'a [Stored], at: &Position) -> Result<InMemory<'a>, TooShort> {
        let (_, content, outboard) = &stored[at.place];
        Ok(InMemory { content, outboard })
    }

    fn honest(seed: u8) -> (Vec<Stored>, Vec<Position>, Proof) {
        let stored = vec![stored(1, 1), stored(70_000, 2), stored(3000, 3)];
        let segments: Vec<_> = stored.iter().map(|(segment, ..)| *segment).collect();
        let positions = positions(&[seed; 32], &[Holding { pay: 1, segments: &segments }], DRAWS);
        let proof = Proof::make(&positions, |at| source(&stored, at)).expect("nothing is damaged");
        (stored, positions, proof)
    }

    #[test]
    fn an_honest_hoster_passes_and_an_answer_to_another_challenge_does_not() {
        let (_, positions, proof) = honest(1);
        assert_eq!(proof.check(&positions), Ok(()));
        let (_, others, other) = honest(2);
        assert!(proof.check(&others).is_err() && other.check(&positions).is_err());
    }

    #[test]
    fn a_refusal_says_which_position_is_wrong() {
        let (_, positions, proof) = honest(1);
        for (at, position) in positions.iter().enumerate() {
            let mut changed = proof.clone();
            changed.openings[at].chunk[0] ^= 1;
            let why = OpeningError::Mismatch;
            assert_eq!(changed.check(&positions), Err(ProofError::Opening { at: *position, why }));
        }
        let mut fewer = proof.clone();
        fewer.openings.pop();
        assert_eq!(
            fewer.check(&positions),
            Err(ProofError::Count { wanted: positions.len(), got: positions.len() - 1 })
        );
    }

    #[test]
    fn a_hoster_sees_damage_before_the_ledger_does() {
        let (mut stored, positions, _) = honest(1);
        let at = *positions.iter().find(|at| at.place == 1).expect("most bytes are in segment 1");
        stored[1].1[(at.chunk * CHUNK_BYTES) as usize] ^= 1;
        let refused = Proof::make(&positions, |at| source(&stored, at)).expect_err("a chunk is damaged");
        assert_eq!(refused.at.place, 1);
        assert!(matches!(refused.why, MakeError::DamagedContent { .. }), "{refused}");
    }

    #[test]
    fn a_proof_over_64_gib_is_under_30_kb() {
        let opening = |bytes: u64| {
            let siblings = vec![[1; 32]; crate::segment::Path { index: 0, count: bytes / CHUNK_BYTES }.count()];
            Opening { chunk: vec![1; 1024], siblings }
        };
        let size = |bytes| Proof { openings: vec![opening(bytes); DRAWS] }.encode().len();
        assert_eq!(size(1 << 30), 1 + 16 * (2 + 1024 + 1 + 20 * 32));
        assert!(size(64 << 30) < 30_000, "{} bytes", size(64 << 30));
        assert_eq!(size(MAX_SEGMENT_BYTES), Proof::max_encoded_len());
    }

    #[test]
    fn proofs_decode_as_they_were_and_no_larger_ones_do() {
        let (_, _, proof) = honest(1);
        assert_eq!(Proof::decode_all(&mut &proof.encode()[..]), Ok(proof));
        let opening = Opening { chunk: vec![], siblings: vec![] };
        let too_many = Proof { openings: vec![opening; DRAWS + 1] };
        assert!(Proof::decode(&mut &too_many.encode()[..]).is_err());
        let claims_4_gib = [&[4u8][..], &codec::Compact(u32::MAX).encode()].concat();
        assert!(Proof::decode(&mut &claims_4_gib[..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), count in 0..=DRAWS as u8) {
            let bytes = [vec![count << 2], bytes].concat();
            if let Ok(proof) = Proof::decode(&mut &bytes[..]) {
                let (_, positions, _) = honest(1);
                prop_assert!(proof.check(&positions).is_err());
                prop_assert!(proof.openings.iter().all(|opening| opening.siblings.len() <= MAX_SIBLINGS));
            }
        }
    }
}
