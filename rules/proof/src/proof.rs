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
