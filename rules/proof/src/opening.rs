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
