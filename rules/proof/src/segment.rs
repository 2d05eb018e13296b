//! Segments: the bytes that are hosted and proven, and the shape of the tree over them.
//!
//! A segment is a closed range of a feed's blocks, concatenated; its root is the BLAKE3 hash of those bytes, so
//! `b3sum` gives it too. BLAKE3 cuts its input into chunks of 1 KiB and pairs hashes level by level; the odd last
//! node of a level moves up as it is:
//!
//! ```text
//! level 3          root                 5 chunks
//!               ┌────┴────┐
//! level 2       ○         │             The shape follows from the number of bytes alone,
//!            ┌──┴──┐      │             and so does the number of siblings on each path:
//! level 1    ○     ○      │             three for chunks 0 to 3, one for chunk 4.
//!           ┌┴┐   ┌┴┐     │
//! level 0   0 1   2 3     4
//! ```
//!
//! The root is hashed with a flag of its own, as is the chunk of a segment that has only one.

use crate::Hash;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// What one opening shows: the input of BLAKE3's leaves.
pub const CHUNK_BYTES: u64 = 1024;

/// The largest segment, 16 TiB: it bounds the path of an opening.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 44;

/// The longest path from a chunk to the root, in siblings.
pub const MAX_SIBLINGS: usize = (MAX_SEGMENT_BYTES / CHUNK_BYTES).ilog2() as usize;

/// What the ledger knows of a segment's content.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, DecodeWithMemTracking, MaxEncodedLen, TypeInfo,
)]
pub struct Segment {
    /// Length of the concatenated blocks; 1 to [`MAX_SEGMENT_BYTES`] can be proven.
    pub bytes: u64,
    /// BLAKE3 hash of the concatenated blocks.
    pub root: Hash,
}

impl Segment {
    /// Number of chunks; only the last may be shorter than [`CHUNK_BYTES`].
    pub const fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES)
    }

    /// Bytes of one chunk, or none if the segment has no such chunk.
    pub fn chunk_bytes(&self, chunk: u64) -> Option<usize> {
        let left = self.bytes.checked_sub(chunk.checked_mul(CHUNK_BYTES)?)?;
        (left > 0).then_some(left.min(CHUNK_BYTES) as usize)
    }
}

/// The way from a node up to the root of `count` nodes: for each sibling met, where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) index: u64,
    pub(crate) count: u64,
}

pub(crate) struct Step {
    /// The node on the path is the left one of the two.
    pub(crate) is_left: bool,
    /// Their parent is the top of the tree.
    pub(crate) is_top: bool,
}

impl Iterator for Path {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.count > 1 {
            let Path { index, count } = *self;
            *self = Path { index: index / 2, count: count.div_ceil(2) };
            if index ^ 1 < count {
                return Some(Step { is_left: index % 2 == 0, is_top: count == 2 });
            }
        }
        None
    }
}

/// The hash of the bytes at `offset` of a segment, a subtree of it: one chunk, or an aligned power of two of chunks
/// of which the last may be cut short by the segment's end. Neither empty nor the whole segment.
pub(crate) fn subtree(offset: u64, content: &[u8]) -> Hash {
    blake3::Hasher::new().set_input_offset(offset).update(content).finalize_non_root()
}

/// The hash of two neighbours; the top of a segment is hashed differently.
pub(crate) fn merge(left: &Hash, right: &Hash, is_root: bool) -> Hash {
    match is_root {
        true => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
        false => merge_subtrees_non_root(left, right, Mode::Hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(bytes: u64) -> Segment {
        Segment { bytes, root: [0; 32] }
    }

    #[test]
    fn only_the_last_chunk_is_short() {
        assert_eq!((segment(1).chunks(), segment(1024).chunks(), segment(1025).chunks()), (1, 1, 2));
        assert_eq!(segment(1025).chunk_bytes(0), Some(1024));
        assert_eq!(segment(1025).chunk_bytes(1), Some(1));
        assert_eq!(segment(1025).chunk_bytes(2), None);
        assert_eq!(segment(1024).chunk_bytes(1), None);
        assert_eq!(segment(0).chunk_bytes(0), None);
        assert_eq!(segment(u64::MAX).chunk_bytes(u64::MAX), None);
    }

    #[test]
    fn paths_have_the_lengths_of_the_drawing() {
        let lengths = |count| (0..count).map(|index| Path { index, count }.count()).collect::<alloc::vec::Vec<_>>();
        assert_eq!(lengths(5), [3, 3, 3, 3, 1]);
        assert_eq!(lengths(7), [3, 3, 3, 3, 3, 3, 2]);
        assert_eq!(lengths(1), [0]);
        let largest = segment(MAX_SEGMENT_BYTES).chunks();
        assert_eq!(Path { index: 0, count: largest }.count(), MAX_SIBLINGS);
    }
}
