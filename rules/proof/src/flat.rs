//! Flat-tree numbering: where a node of Hypercore's Merkle tree is, as one integer.
//!
//! Block `i` is node `2i`; parents stand between their children:
//!
//! ```text
//! depth 2        3
//! depth 1    1       5       9
//! depth 0  0   2   4   6   8   10      a feed of 6 blocks has the full roots 3 and 9
//! ```
//!
//! A node's depth is the number of its trailing one bits. Everything here is defined for every `u64` and
//! never panics; the answers mean something up to [`MAX_LENGTH`] blocks.

/// The longest feed we handle, in blocks: node indexes stay far below the 2^53 that JavaScript can count.
pub const MAX_LENGTH: u64 = 1 << 40;

/// The most full roots that a feed can have: the one bits of the length `MAX_LENGTH - 1`.
pub const MAX_ROOTS: usize = 40;

/// The number of blocks under a node (0 for `u64::MAX`, which is no node).
pub const fn blocks(index: u64) -> u64 {
    // The lowest zero bit has the value 2^depth.
    !index & index.wrapping_add(1)
}

/// The height above the blocks, which have depth 0.
pub const fn depth(index: u64) -> u32 {
    index.trailing_ones()
}

/// The node of a block.
pub const fn leaf(block: u64) -> u64 {
    block.wrapping_mul(2)
}

/// The first block under a node.
pub const fn first_block(index: u64) -> u64 {
    (index & !blocks(index).wrapping_sub(1)) >> 1
}

/// The block after the last one under a node.
pub const fn end_block(index: u64) -> u64 {
    first_block(index).wrapping_add(blocks(index))
}

/// The node above.
pub const fn parent(index: u64) -> u64 {
    let blocks = blocks(index);
    (index | blocks) & !(blocks << 1)
}

/// The other child of the same parent.
pub const fn sibling(index: u64) -> u64 {
    index ^ (blocks(index) << 1)
}

/// Whether the node is its parent's left child.
pub const fn is_left(index: u64) -> bool {
    index & (blocks(index) << 1) == 0
}

/// The two nodes below, left and right; a leaf has none.
pub const fn children(index: u64) -> Option<(u64, u64)> {
    match blocks(index) >> 1 {
        0 => None,
        half => Some((index.wrapping_sub(half), index.wrapping_add(half))),
    }
}

/// Whether `index` is `ancestor` or below it.
pub const fn is_under(index: u64, ancestor: u64) -> bool {
    first_block(ancestor) <= first_block(index) && end_block(index) <= end_block(ancestor)
}

/// The nodes that together cover exactly the first `length` blocks, left to right: one for each one bit.
///
/// A length over [`MAX_LENGTH`] has no roots.
pub fn full_roots(length: u64) -> FullRoots {
    FullRoots { start: 0, rest: if length > MAX_LENGTH { 0 } else { length } }
}

/// See [`full_roots`].
#[derive(Clone, Debug)]
pub struct FullRoots {
    start: u64,
    rest: u64,
}

impl Iterator for FullRoots {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let blocks = 1 << self.rest.checked_ilog2()?;
        let index = 2 * self.start + blocks - 1;
        self.start += blocks;
        self.rest -= blocks;
        Some(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.count_ones() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for FullRoots {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    #[test]
    fn the_drawing_above_is_right() {
        assert_eq!((parent(0), parent(2), parent(1), parent(5)), (1, 1, 3, 3));
        assert_eq!((sibling(0), sibling(1), sibling(6)), (2, 5, 4));
        assert_eq!((children(3), children(9), children(4)), (Some((1, 5)), Some((8, 10)), None));
        assert_eq!((first_block(5), end_block(5), depth(5), blocks(5)), (2, 4, 1, 2));
        assert_eq!(full_roots(6).collect::<Vec<_>>(), vec![3, 9]);
        assert_eq!(full_roots(0).count(), 0);
        assert!(is_left(8) && !is_left(10));
        assert!(is_under(4, 3) && is_under(3, 3) && !is_under(8, 3));
    }

    #[test]
    fn the_longest_feed_is_within_the_bounds() {
        assert_eq!(full_roots(MAX_LENGTH - 1).len(), MAX_ROOTS);
        assert_eq!(full_roots(MAX_LENGTH).collect::<Vec<_>>(), vec![MAX_LENGTH - 1]);
        assert_eq!(full_roots(MAX_LENGTH + 1).count(), 0);
        assert_eq!(full_roots(u64::MAX).count(), 0);
    }

    proptest! {
        #[test]
        fn family_relations_agree(index in 0..2 * MAX_LENGTH) {
            let up = parent(index);
            let (left, right) = children(up).expect("a parent has children");
            prop_assert_eq!(sibling(sibling(index)), index);
            prop_assert_eq!(if is_left(index) { (left, right) } else { (right, left) }, (index, sibling(index)));
            prop_assert_eq!((first_block(up), end_block(up)), (first_block(left), end_block(right)));
            prop_assert_eq!(depth(up), depth(index) + 1);
            prop_assert!(is_under(index, up) && !is_under(up, index));
        }

        #[test]
        fn full_roots_cover_the_length_without_gaps(length in 0..=MAX_LENGTH) {
            let end = full_roots(length).try_fold(0, |at, root| (first_block(root) == at).then(|| end_block(root)));
            prop_assert_eq!(end, Some(length));
        }

        #[test]
        fn no_integer_panics(index: u64, other: u64) {
            let _ = (parent(index), sibling(index), children(index), is_left(index), is_under(index, other));
            let _ = (depth(index), blocks(index), leaf(index), full_roots(index).count());
        }
    }
}
