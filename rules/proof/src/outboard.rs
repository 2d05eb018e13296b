//! Outboards: the hashes that a hoster keeps beside a segment, so that it opens a chunk without reading the rest.
//!
//! Kept are the hashes of all groups of 16 chunks, of all runs of 128 groups, of all runs of 128 runs, and so on: rows
//! of 32-byte hashes, each row 1/128 of the one before, up to one that has no more than 128. The levels between are
//! made anew from a run when they are needed, which costs 127 hashes and saves half of the disk and most of the reads.
//!
//! ```text
//! row 2                        ▢ ▢ ▢                           one hash covers 256 MiB
//! row 1          ▢ ▢ … ▢       ▢ ▢ … ▢       ▢ ▢                               2 MiB
//! row 0   ▢▢▢▢…▢ ▢▢▢▢…▢ ▢▢▢▢…▢                ▢▢▢                             16 KiB
//!         └128─┘
//! file    │ row 0, left to right, 32 B each │ row 1 │ row 2 │
//! ```
//!
//! The root is not in it, so a segment of one group has an empty outboard. In all that is 2 MiB for 1 GiB, 129 MiB for
//! 64 GiB. Opening a chunk reads its group and one run of at most 4 KiB a row: 5 reads at 64 GiB.

use crate::{
    Hash,
    segment::{MAX_SEGMENT_BYTES, merge},
};
use alloc::vec::Vec;
use blake3::hazmat::HasherExt;
use core::ops::Range;

/// What one hash of row 0 covers.
pub const GROUP_BYTES: u64 = 16 * 1024;

/// Hashes under one hash of the row above.
const RUN: u64 = 128;
const HASH_BYTES: u64 = 32;

/// Where everything stands in the outboard of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    bytes: u64,
}

impl Layout {
    /// The layout for a segment of so many bytes, 1 to [`MAX_SEGMENT_BYTES`].
    pub fn of(bytes: u64) -> Option<Layout> {
        (1..=MAX_SEGMENT_BYTES).contains(&bytes).then_some(Layout { bytes })
    }

    /// Size of the outboard in bytes.
    pub fn outboard_bytes(&self) -> u64 {
        self.rows().last().map_or(0, |row| (row.first + row.count) * HASH_BYTES)
    }

    /// The bytes of the segment that a group holds, if the segment has it.
    pub fn group(&self, group: u64) -> Option<Range<u64>> {
        let start = group.checked_mul(GROUP_BYTES).filter(|start| *start < self.bytes)?;
        Some(start..self.bytes.min(start + GROUP_BYTES))
    }

    pub(crate) fn rows(&self) -> Rows {
        Rows { next: Row { first: 0, count: self.bytes.div_ceil(GROUP_BYTES) }, below: u64::MAX }
    }
}

/// One row, counted in hashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Hashes in the file before it.
    first: u64,
    pub(crate) count: u64,
}

impl Row {
    /// The run that holds a hash of this row: its bytes in the file.
    pub(crate) fn run_of(&self, index: u64) -> Range<u64> {
        let start = index - index % RUN;
        let end = self.count.min(start + RUN);
        (self.first + start) * HASH_BYTES..(self.first + end) * HASH_BYTES
    }

    /// Where a hash stands in its run, and where that run's own hash stands in the row above.
    pub(crate) fn place_of(index: u64) -> (usize, u64) {
        ((index % RUN) as usize, index / RUN)
    }
}

/// Rows from the groups up; none if there is one group only.
pub(crate) struct Rows {
    next: Row,
    below: u64,
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.below <= RUN || self.next.count == 1 {
            return None;
        }
        let row = self.next;
        self.below = row.count;
        self.next = Row { first: row.first + row.count, count: row.count.div_ceil(RUN) };
        Some(row)
    }
}

/// Hashes a run of neighbours up to the one node above them, and hands out what it meets beside the path of `at`.
pub(crate) fn fold(run: &mut Vec<Hash>, mut at: usize, is_top: bool, mut sibling: impl FnMut(Hash)) -> Hash {
    while run.len() > 1 {
        if let Some(hash) = run.get(at ^ 1) {
            sibling(*hash);
        }
        let (pairs, is_root) = (run.len() / 2, is_top && run.len() == 2);
        for pair in 0..pairs {
            run[pair] = merge(&run[2 * pair], &run[2 * pair + 1], is_root);
        }
        if run.len() % 2 == 1 {
            run[pairs] = run[2 * pairs];
        }
        run.truncate(run.len().div_ceil(2));
        at /= 2;
    }
    run.first().copied().expect("a run is never empty: rows and groups have no empty runs")
}

/// Hashes a segment while it streams by: gives its root, and the outboard in pieces. Needs a few KiB of memory whatever
/// the segment's size.
#[derive(Clone, Debug)]
pub struct Builder {
    layout: Layout,
    taken: u64,
    group: blake3::Hasher,
    rows: Vec<Unwritten>,
    root: Option<Hash>,
}

/// The run of a row that is being filled.
#[derive(Clone, Debug)]
struct Unwritten {
    row: Row,
    run: Vec<Hash>,
    /// Hashes that the row has had so far, with those of the run.
    end: u64,
}

impl Builder {
    /// Begins a segment of exactly so many bytes, 1 to [`MAX_SEGMENT_BYTES`].
    pub fn new(bytes: u64) -> Option<Builder> {
        let layout = Layout::of(bytes)?;
        let unwritten = |row| Unwritten { row, run: Vec::with_capacity(RUN as usize), end: 0 };
        let rows = layout.rows().map(unwritten).collect();
        Some(Builder { layout, taken: 0, group: blake3::Hasher::new(), rows, root: None })
    }

    /// Takes the next bytes, cut anyhow, and gives what is now to be written to the outboard: little by little, about
    /// 1/500 of the bytes taken.
    pub fn update(&mut self, mut content: &[u8]) -> Result<Vec<Piece>, WrongLength> {
        let mut pieces = Vec::new();
        if content.len() as u64 > self.layout.bytes - self.taken {
            return Err(WrongLength { bytes: self.layout.bytes });
        }
        while !content.is_empty() {
            let group = self.layout.group(self.taken / GROUP_BYTES).expect("taken < bytes: checked above");
            if self.taken == group.start {
                // `Hasher::reset` keeps the old offset.
                self.group = blake3::Hasher::new();
                self.group.set_input_offset(group.start);
            }
            let (now, later) = content.split_at(content.len().min((group.end - self.taken) as usize));
            self.group.update(now);
            self.taken += now.len() as u64;
            content = later;
            if self.taken == group.end {
                self.end_group(&mut pieces);
            }
        }
        Ok(pieces)
    }

    /// The root, once all bytes were taken.
    pub fn finish(self) -> Result<Hash, WrongLength> {
        self.root.ok_or(WrongLength { bytes: self.layout.bytes })
    }

    /// Adds the hash of a group to row 0, and the hashes of all runs that it completes to the rows above.
    fn end_group(&mut self, pieces: &mut Vec<Piece>) {
        let Some(top) = self.rows.len().checked_sub(1) else {
            self.root = Some(*self.group.finalize().as_bytes());
            return;
        };
        let mut hash = self.group.finalize_non_root();
        for (at, Unwritten { row, run, end }) in self.rows.iter_mut().enumerate() {
            run.push(hash);
            *end += 1;
            if run.len() as u64 != RUN && *end != row.count {
                return;
            }
            pieces.push(Piece { offset: row.run_of(*end - 1).start, bytes: run.as_flattened().to_vec() });
            hash = fold(run, 0, at == top, |_| {});
            run.clear();
        }
        self.root = Some(hash);
    }
}

/// A part of an outboard that is ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it belongs in the outboard, in bytes.
    pub offset: u64,
    /// At most 4 KiB.
    pub bytes: Vec<u8>,
}

/// More or fewer bytes came than the segment was said to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content is not the {bytes} bytes that it was said to be")]
pub struct WrongLength {
    /// The bytes announced.
    pub bytes: u64,
}

/// The root and outboard of bytes in memory, of which there must be at least one.
pub fn build(content: &[u8]) -> Option<(Hash, Vec<u8>)> {
    let mut builder = Builder::new(content.len() as u64)?;
    let mut outboard = alloc::vec![0; builder.layout.outboard_bytes() as usize];
    for Piece { offset, bytes } in builder.update(content).ok()? {
        outboard[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Some((builder.finish().ok()?, outboard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// Bytes that differ everywhere, so that a chunk in the wrong place has the wrong hash.
    fn content(bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        content
    }

    #[test]
    fn the_root_is_the_blake3_hash_at_every_border() {
        let mib = 1 << 20;
        let borders = [1, 1024, 2048, 3 * 1024, 16 << 10, 32 << 10, 48 << 10, 100_000, mib, 2 * mib, 4 * mib, 5 * mib];
        for bytes in borders.into_iter().flat_map(|border| [border - 1, border, border + 1]).filter(|bytes| *bytes > 0)
        {
            let content = content(bytes);
            let (root, outboard) = build(&content).expect("the length is within bounds");
            assert_eq!(root, *blake3::hash(&content).as_bytes(), "{bytes} bytes");
            assert_eq!(outboard.len() as u64, Layout::of(bytes as u64).expect("as above").outboard_bytes());
        }
    }

    #[test]
    fn layouts_are_as_documented() {
        let bytes = |bytes| Layout::of(bytes).map(|layout| layout.outboard_bytes());
        assert_eq!(bytes(0), None);
        assert_eq!((bytes(1), bytes(16 << 10), bytes((16 << 10) + 1)), (Some(0), Some(0), Some(64)));
        assert_eq!((bytes(2 << 20), bytes((2 << 20) + 1)), (Some(128 * 32), Some(129 * 32 + 64)));
        assert_eq!(bytes(64 << 30), Some(32 * ((4 << 20) + (32 << 10) + 256 + 2)));
        assert!(bytes(MAX_SEGMENT_BYTES).is_some());
        assert_eq!(bytes(MAX_SEGMENT_BYTES + 1), None);
        assert_eq!(Layout::of(64 << 30).expect("within bounds").rows().count(), 4);
    }

    #[test]
    fn a_segment_of_another_length_than_announced_has_no_root() {
        let mut builder = Builder::new(20_000).expect("within bounds");
        let wrong = WrongLength { bytes: 20_000 };
        assert_eq!(builder.update(&content(19_999)), Ok(vec![]));
        assert_eq!(builder.clone().finish(), Err(wrong.clone()));
        assert_eq!(builder.update(&[1, 2]), Err(wrong));
        assert_eq!(builder.update(&[1]).map(|pieces| pieces.len()), Ok(1));
        assert!(builder.finish().is_ok());
        assert!(Builder::new(0).is_none() && Builder::new(MAX_SEGMENT_BYTES + 1).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn it_does_not_matter_how_content_is_cut(bytes in 1..5_000_000usize, cuts in prop::collection::vec(1..300_000usize, 0..40)) {
            let content = content(bytes);
            let mut builder = Builder::new(bytes as u64).expect("within bounds");
            let mut outboard = vec![0; builder.layout.outboard_bytes() as usize];
            let mut rest = &content[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                for piece in builder.update(now).expect("the length is as announced") {
                    outboard[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
                }
            }
            let whole = build(&content).expect("within bounds");
            prop_assert_eq!((builder.finish().expect("all was given"), outboard), whole);
        }
    }
}
