//! Openings: one chunk of a segment, shown to belong to its root.
//!
//! ```text
//! opening of chunk 2 of 5      chunk 2 | hash of 3 | hash of 0 and 1 | hash of 4
//! ```
//!
//! Only siblings are in it, bottom up; the parents are computed. Which sibling stands on which side follows from the
//! segment's length, so an opening can't claim another place or another length than the ledger knows.

use crate::{
    Hash,
    outboard::{GROUP_BYTES, Layout, Row, fold},
    segment::{CHUNK_BYTES, MAX_SIBLINGS, Path, Segment, merge, subtree},
};
use alloc::vec::Vec;
use codec::{Compact, Decode, DecodeWithMemTracking, Encode, Error as CodecError, Input, MaxEncodedLen};
use core::ops::Range;
use scale_info::TypeInfo;

/// A chunk and the siblings of its path.
#[derive(Clone, Debug, PartialEq, Eq, Encode, DecodeWithMemTracking, TypeInfo)]
pub struct Opening {
    /// The chunk's bytes, at most [`CHUNK_BYTES`].
    pub chunk: Vec<u8>,
    /// Hashes beside the path to the root, bottom up, at most [`MAX_SIBLINGS`].
    pub siblings: Vec<Hash>,
}

impl Opening {
    /// Opens a chunk. What the source gives is checked: an opening that comes out is true.
    pub fn make<S: Source>(segment: &Segment, chunk: u64, source: &mut S) -> Result<Opening, MakeError<S::Error>> {
        let size = segment.chunk_bytes(chunk).ok_or(OpeningError::NoSuchChunk { chunk, chunks: segment.chunks() })?;
        let layout = Layout::of(segment.bytes).ok_or(OpeningError::NotASegment { bytes: segment.bytes })?;
        let index = chunk / (GROUP_BYTES / CHUNK_BYTES);
        let group = layout.group(index).ok_or(OpeningError::NoSuchChunk { chunk, chunks: segment.chunks() })?;

        let mut content = alloc::vec![0; (group.end - group.start) as usize];
        source.content(group.start, &mut content).map_err(MakeError::Source)?;
        let start = (chunk * CHUNK_BYTES - group.start) as usize;
        let mut opening = Opening { chunk: content[start..start + size].to_vec(), siblings: Vec::new() };

        // The hash of the group as its content says it; then the rows, each true if the row above says so too.
        let is_whole = segment.chunks() <= GROUP_BYTES / CHUNK_BYTES;
        let found = opening.climb_group(&group, start, &content, is_whole);
        let mut rows = layout.rows().peekable();
        let (mut at, mut below, mut known) = (index, None, None);
        while let Some(row) = rows.next() {
            let mut run = read_run(source, row.run_of(at))?;
            let (place, above) = Row::place_of(at);
            let said = run[place];
            if below.is_some_and(|below| below != said) {
                return Err(MakeError::DamagedOutboard);
            }
            known.get_or_insert(said);
            below = Some(fold(&mut run, place, rows.peek().is_none(), |hash| opening.siblings.push(hash)));
            at = above;
        }
        if below.is_some_and(|top| top != segment.root) {
            return Err(MakeError::DamagedOutboard);
        }
        match found == known.unwrap_or(segment.root) {
            true => Ok(opening),
            false => Err(MakeError::DamagedContent { start: group.start, end: group.end }),
        }
    }

    /// Checks that the opening shows the chunk of that number of the segment. The shape is checked before anything
    /// is hashed.
    pub fn check(&self, segment: &Segment, chunk: u64) -> Result<(), OpeningError> {
        self.check_shape(segment, chunk)?;
        self.check_content(segment, chunk)
    }

    pub(crate) fn check_shape(&self, segment: &Segment, chunk: u64) -> Result<(), OpeningError> {
        if Layout::of(segment.bytes).is_none() {
            return Err(OpeningError::NotASegment { bytes: segment.bytes });
        }
        let chunks = segment.chunks();
        let wanted = segment.chunk_bytes(chunk).ok_or(OpeningError::NoSuchChunk { chunk, chunks })?;
        if self.chunk.len() != wanted {
            return Err(OpeningError::ChunkSize { wanted, got: self.chunk.len() });
        }
        let wanted = Path { index: chunk, count: chunks }.count();
        if self.siblings.len() != wanted {
            return Err(OpeningError::Siblings { wanted, got: self.siblings.len() });
        }
        Ok(())
    }

    /// To be called only after [`Self::check_shape`] with the same arguments.
    pub(crate) fn check_content(&self, segment: &Segment, chunk: u64) -> Result<(), OpeningError> {
        let chunks = segment.chunks();
        let root = match chunks {
            1 => *blake3::hash(&self.chunk).as_bytes(),
            _ => Path { index: chunk, count: chunks }.zip(&self.siblings).fold(
                subtree(chunk * CHUNK_BYTES, &self.chunk),
                |hash, (step, sibling)| match step.is_left {
                    true => merge(&hash, sibling, step.is_top),
                    false => merge(sibling, &hash, step.is_top),
                },
            ),
        };
        if root == segment.root { Ok(()) } else { Err(OpeningError::Mismatch) }
    }

    fn climb_group(&mut self, group: &Range<u64>, start: usize, content: &[u8], is_whole: bool) -> Hash {
        if content.len() as u64 <= CHUNK_BYTES && is_whole {
            return *blake3::hash(content).as_bytes();
        }
        let chunk_bytes = CHUNK_BYTES as usize;
        let mut chunks = content
            .chunks(chunk_bytes)
            .zip((group.start..).step_by(chunk_bytes))
            .map(|(chunk, offset)| subtree(offset, chunk))
            .collect();
        fold(&mut chunks, start / chunk_bytes, is_whole, |hash| self.siblings.push(hash))
    }
}

fn read_run<S: Source>(source: &mut S, bytes: Range<u64>) -> Result<Vec<Hash>, MakeError<S::Error>> {
    let mut run = alloc::vec![[0; 32]; (bytes.end - bytes.start) as usize / 32];
    source.outboard(bytes.start, run.as_flattened_mut()).map_err(MakeError::Source)?;
    Ok(run)
}

impl Decode for Opening {
    /// Takes no chunk above [`CHUNK_BYTES`] and no path above [`MAX_SIBLINGS`].
    fn decode<I: Input>(input: &mut I) -> Result<Self, CodecError> {
        let bytes = Compact::<u32>::decode(input)?.0 as usize;
        if bytes as u64 > CHUNK_BYTES {
            return Err("a chunk is larger than 1 KiB".into());
        }
        let mut chunk = alloc::vec![0; bytes];
        input.read(&mut chunk)?;
        let count = Compact::<u32>::decode(input)?.0 as usize;
        if count > MAX_SIBLINGS {
            return Err("a path is longer than in the largest segment".into());
        }
        let mut siblings = alloc::vec![[0; 32]; count];
        input.read(siblings.as_flattened_mut())?;
        Ok(Opening { chunk, siblings })
    }
}

impl MaxEncodedLen for Opening {
    fn max_encoded_len() -> usize {
        // 2: a compact length from 64 to 16,383. 1: a compact count below 64.
        2 + CHUNK_BYTES as usize + 1 + 32 * MAX_SIBLINGS
    }
}

/// Where a segment and its [outboard](crate::outboard) are kept.
pub trait Source {
    /// Why something can't be read.
    type Error;

    /// Fills `buffer` with the segment's bytes from `offset` on; at most 16 KiB are asked for.
    fn content(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Fills `buffer` with the outboard's bytes from `offset` on; at most 4 KiB are asked for.
    fn outboard(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

impl<S: Source + ?Sized> Source for &mut S {
    type Error = S::Error;

    fn content(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        (**self).content(offset, buffer)
    }

    fn outboard(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        (**self).outboard(offset, buffer)
    }
}

/// A segment and its outboard in memory.
#[derive(Clone, Copy, Debug)]
pub struct InMemory<'a> {
    /// The segment's bytes.
    pub content: &'a [u8],
    /// Its outboard.
    pub outboard: &'a [u8],
}

impl Source for InMemory<'_> {
    type Error = TooShort;

    fn content(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), TooShort> {
        copy(self.content, offset, buffer)
    }

    fn outboard(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), TooShort> {
        copy(self.outboard, offset, buffer)
    }
}

fn copy(from: &[u8], offset: u64, buffer: &mut [u8]) -> Result<(), TooShort> {
    let start = usize::try_from(offset).map_err(|_| TooShort)?;
    let end = start.checked_add(buffer.len()).ok_or(TooShort)?;
    buffer.copy_from_slice(from.get(start..end).ok_or(TooShort)?);
    Ok(())
}

/// [`InMemory`] bytes end before the segment or its outboard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes in memory are fewer than the segment has")]
pub struct TooShort;

/// Why a chunk can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeError<E> {
    /// The question is at fault.
    #[error(transparent)]
    Question(#[from] OpeningError),
    /// Something could not be read.
    #[error("{0}")]
    Source(E),
    /// These bytes of the segment are not what was hosted; they have to be fetched again.
    #[error("bytes {start} to {end} of the segment are damaged")]
    DamagedContent {
        /// First byte of the damaged group.
        start: u64,
        /// The byte after its last.
        end: u64,
    },
    /// The outboard does not lead to the root; it has to be built again from the content.
    #[error("the outboard of the segment is damaged")]
    DamagedOutboard,
}

/// Why an opening is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Nothing can be proven of an empty segment, or of one above [`MAX_SEGMENT_BYTES`](crate::segment::MAX_SEGMENT_BYTES).
    #[error("a segment of {bytes} bytes can't be proven")]
    NotASegment {
        /// Its length.
        bytes: u64,
    },
    /// The segment ends before.
    #[error("the segment has no chunk {chunk}, only {chunks}")]
    NoSuchChunk {
        /// The chunk asked for.
        chunk: u64,
        /// Chunks that there are.
        chunks: u64,
    },
    /// Every chunk but the last has [`CHUNK_BYTES`].
    #[error("the chunk has {got} bytes, not {wanted}")]
    ChunkSize {
        /// Bytes that the chunk has by the segment's length.
        wanted: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The length of the path follows from the segment's length.
    #[error("the path has {got} siblings, not {wanted}")]
    Siblings {
        /// Siblings that the path has by the segment's length.
        wanted: usize,
        /// Siblings that came.
        got: usize,
    },
    /// Chunk and siblings lead to another root.
    #[error("the chunk is not the one that belongs there")]
    Mismatch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outboard, segment::MAX_SEGMENT_BYTES};
    use alloc::{vec, vec::Vec};
    use codec::DecodeAll;
    use proptest::prelude::*;

    /// A segment of bytes that differ everywhere.
    struct Stored {
        segment: Segment,
        content: Vec<u8>,
        outboard: Vec<u8>,
    }

    impl Stored {
        fn of(bytes: usize) -> Stored {
            let mut content = vec![0; bytes];
            blake3::Hasher::new().finalize_xof().fill(&mut content);
            let (_, outboard) = outboard::build(&content).expect("the length is within bounds");
            let root = *blake3::hash(&content).as_bytes();
            Stored { segment: Segment { bytes: bytes as u64, root }, content, outboard }
        }

        fn open(&self, chunk: u64) -> Result<Opening, MakeError<TooShort>> {
            let mut source = InMemory { content: &self.content, outboard: &self.outboard };
            Opening::make(&self.segment, chunk, &mut source)
        }

        /// Checks every way to change or misplace the opening that is not a change of a bit.
        fn refuses_other_shapes(&self, chunk: u64, opening: &Opening) {
            let refused = |change: &dyn Fn(&mut Opening)| {
                let mut changed = opening.clone();
                change(&mut changed);
                changed.check(&self.segment, chunk).expect_err("it has another shape")
            };
            let (size, path) = (opening.chunk.len(), opening.siblings.len());
            let chunk_size = |got| OpeningError::ChunkSize { wanted: size, got };
            let siblings = |got| OpeningError::Siblings { wanted: path, got };
            assert_eq!(refused(&|opening| opening.chunk.push(0)), chunk_size(size + 1));
            assert_eq!(refused(&|opening| opening.chunk.truncate(size - 1)), chunk_size(size - 1));
            assert_eq!(refused(&|opening| opening.chunk.clear()), chunk_size(0));
            assert_eq!(refused(&|opening| opening.siblings.push([0; 32])), siblings(path + 1));
            if path > 0 {
                assert_eq!(refused(&|opening| opening.siblings.truncate(path - 1)), siblings(path - 1));
            }
            if path > 1 {
                assert_eq!(refused(&|opening| opening.siblings.swap(0, path - 1)), OpeningError::Mismatch);
            }
            let chunks = self.segment.chunks();
            assert!(opening.check(&self.segment, chunk ^ 1).is_err());
            assert_eq!(opening.check(&self.segment, chunks), Err(OpeningError::NoSuchChunk { chunk: chunks, chunks }));
        }
    }

    #[test]
    fn every_chunk_opens_at_every_border() {
        let borders = [1, 1024, 2048, 3072, 5 << 10, 16 << 10, 32 << 10, 48 << 10, 100_000, 128 << 10, 200 << 10];
        for bytes in borders.into_iter().flat_map(|border| [border - 1, border, border + 1]).filter(|bytes| *bytes > 0)
        {
            let stored = Stored::of(bytes);
            for chunk in 0..stored.segment.chunks() {
                let opening = stored.open(chunk).expect("nothing is damaged");
                assert_eq!(opening.check(&stored.segment, chunk), Ok(()), "chunk {chunk} of {bytes} bytes");
                stored.refuses_other_shapes(chunk, &opening);
            }
        }
    }

    #[test]
    fn chunks_open_through_several_rows() {
        // 128 and 129 groups, 128 runs and a bit: the outboard gets its second row, and its rows ragged ends.
        for bytes in [(2 << 20) - 1, 2 << 20, (2 << 20) + 1, (5 << 20) + 12_345, (6 << 20) + 16_385] {
            let stored = Stored::of(bytes);
            let last = stored.segment.chunks() - 1;
            for chunk in (0..last).step_by(97).chain([last - 1, last]) {
                let opening = stored.open(chunk).expect("nothing is damaged");
                assert_eq!(opening.check(&stored.segment, chunk), Ok(()), "chunk {chunk} of {bytes} bytes");
            }
        }
    }

    #[test]
    fn every_changed_bit_is_found() {
        for (bytes, chunk) in [(1, 0), (1024, 0), (1025, 1), (5000, 2), (5000, 4), (40_000, 17)] {
            let stored = Stored::of(bytes);
            let mut opening = stored.open(chunk).expect("nothing is damaged");
            for bit in 0..8 * opening.chunk.len() {
                opening.chunk[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opening.check(&stored.segment, chunk), Err(OpeningError::Mismatch));
                opening.chunk[bit / 8] ^= 1 << (bit % 8);
            }
            for bit in 0..256 * opening.siblings.len() {
                opening.siblings[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
                assert_eq!(opening.check(&stored.segment, chunk), Err(OpeningError::Mismatch));
                opening.siblings[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(opening.check(&stored.segment, chunk), Ok(()));
        }
    }

    #[test]
    fn nothing_can_be_shown_of_segments_without_bytes_or_beyond_bounds() {
        for bytes in [0, MAX_SEGMENT_BYTES + 1, u64::MAX] {
            let segment = Segment { bytes, root: [0; 32] };
            let opening = Opening { chunk: vec![], siblings: vec![] };
            assert_eq!(opening.check(&segment, 0), Err(OpeningError::NotASegment { bytes }));
            let mut nothing = InMemory { content: &[], outboard: &[] };
            assert!(matches!(Opening::make(&segment, 0, &mut nothing), Err(MakeError::Question(_))));
        }
    }

    #[test]
    fn a_chunk_is_not_taken_for_a_whole_segment() {
        // BLAKE3 hashes the only chunk of an input with a flag of its own.
        let stored = Stored::of(3000);
        let part = Segment { bytes: 1024, root: subtree(0, &stored.content[..1024]) };
        let opening = Opening { chunk: stored.content[..1024].to_vec(), siblings: vec![] };
        assert_eq!(opening.check(&part, 0), Err(OpeningError::Mismatch));
    }

    #[test]
    fn the_largest_opening_has_the_largest_encoding() {
        let largest = Opening { chunk: vec![7; 1024], siblings: vec![[9; 32]; MAX_SIBLINGS] };
        assert_eq!(largest.encode().len(), Opening::max_encoded_len());
        assert_eq!(Opening::decode_all(&mut &largest.encode()[..]), Ok(largest));
        let too_large = Opening { chunk: vec![7; 1025], siblings: vec![] };
        assert!(Opening::decode(&mut &too_large.encode()[..]).is_err());
        let too_long = Opening { chunk: vec![], siblings: vec![[9; 32]; MAX_SIBLINGS + 1] };
        assert!(Opening::decode(&mut &too_long.encode()[..]).is_err());
    }

    fn any_opening() -> impl Strategy<Value = Opening> {
        let siblings = prop::collection::vec(any::<[u8; 32]>(), 0..MAX_SIBLINGS + 3);
        let chunk =
            prop_oneof![Just(1024), 0..1100usize].prop_flat_map(|bytes| prop::collection::vec(any::<u8>(), bytes));
        (chunk, siblings).prop_map(|(chunk, siblings)| Opening { chunk, siblings })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn honest_openings_pass_and_changed_ones_do_not(bytes in 1..200_000usize, at: prop::sample::Index, bit: prop::sample::Index) {
            let stored = Stored::of(bytes);
            let chunk = at.index(stored.segment.chunks() as usize) as u64;
            let mut opening = stored.open(chunk).expect("nothing is damaged");
            prop_assert_eq!(opening.check(&stored.segment, chunk), Ok(()));
            let chunk_bits = 8 * opening.chunk.len();
            match bit.index(chunk_bits + 256 * opening.siblings.len()) {
                bit if bit < chunk_bits => opening.chunk[bit / 8] ^= 1 << (bit % 8),
                bit => opening.siblings.as_flattened_mut()[(bit - chunk_bits) / 8] ^= 1 << (bit % 8),
            }
            prop_assert_eq!(opening.check(&stored.segment, chunk), Err(OpeningError::Mismatch));
        }

        #[test]
        fn damage_is_found_where_it_is(bytes in 1..3_000_000usize, at: prop::sample::Index, bit in 0..8u32) {
            let mut stored = Stored::of(bytes);
            let byte = at.index(bytes);
            stored.content[byte] ^= 1u8 << bit;
            let (start, end) = (byte - byte % 16_384, bytes.min(byte - byte % 16_384 + 16_384));
            let damaged = Err(MakeError::DamagedContent { start: start as u64, end: end as u64 });
            for chunk in start.div_ceil(1024)..end.div_ceil(1024) {
                prop_assert_eq!(stored.open(chunk as u64), damaged.clone());
            }
            if start > 0 {
                prop_assert!(stored.open(0).is_ok());
            }
            stored.content[byte] ^= 1u8 << bit;
            if !stored.outboard.is_empty() {
                // Every opening reads the last hash of the last row.
                *stored.outboard.last_mut().expect("it is not empty") ^= 1u8 << bit;
                prop_assert_eq!(stored.open((byte / 1024) as u64), Err(MakeError::DamagedOutboard));
            }
        }

        #[test]
        fn no_opening_panics(opening in any_opening(), bytes in prop_oneof![1..1u64 << 20, any::<u64>()], chunk in prop_oneof![0..1024u64, any::<u64>()]) {
            let segment = Segment { bytes, root: [0; 32] };
            prop_assert!(opening.check(&segment, chunk).is_err());
            // The right shape by force, so that hashing is reached.
            let (bytes, chunk) = (bytes % MAX_SEGMENT_BYTES + 1, chunk % (bytes % MAX_SEGMENT_BYTES + 1).div_ceil(CHUNK_BYTES));
            let segment = Segment { bytes, root: [0; 32] };
            let mut forced = opening;
            forced.chunk.resize(segment.chunk_bytes(chunk).expect("the chunk is in the segment"), 0);
            forced.siblings.resize(Path { index: chunk, count: segment.chunks() }.count(), [0; 32]);
            prop_assert_eq!(forced.check(&segment, chunk), Err(OpeningError::Mismatch));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            if let Ok(opening) = Opening::decode(&mut &bytes[..]) {
                prop_assert!(opening.encoded_size() <= Opening::max_encoded_len());
            }
        }
    }
}
