//! Leaves of the tree: blocks that are hashed several at a time, in the lanes of one processor.

use blake2b_simd::{
    Params,
    many::{HashManyJob, hash_many, update_many},
};
use datdot_proof::{flat, tree::Node};

/// Blocks up to this size are copied behind what is hashed before them. Of longer ones only the first and the last part is
/// hashed alone.
const SMALL: usize = 4 << 10;

/// [`Node::leaf`] for each of these blocks.
pub(crate) fn leaves<'a>(blocks: impl IntoIterator<Item = (u64, &'a [u8])>) -> Vec<Node> {
    let blocks: Vec<(u64, &[u8])> = blocks.into_iter().collect();
    let mut params = Params::new();
    params.hash_length(32);
    let hashes: Vec<_> = if blocks.iter().all(|(_, block)| block.len() <= SMALL) {
        let mut inputs = Vec::with_capacity(blocks.iter().map(|(_, block)| PREFIX + block.len()).sum());
        for (_, block) in &blocks {
            inputs.extend_from_slice(&prefix(block));
            inputs.extend_from_slice(block);
        }
        let mut rest = &inputs[..];
        let input = |(_, block): &(u64, &[u8])| rest.split_off(..PREFIX + block.len()).unwrap_or_default();
        let mut jobs: Vec<_> = blocks.iter().map(input).map(|input| HashManyJob::new(&params, input)).collect();
        hash_many(&mut jobs);
        jobs.iter().map(HashManyJob::to_hash).collect()
    } else {
        let mut states = vec![params.to_state(); blocks.len()];
        states.iter_mut().zip(&blocks).for_each(|(state, (_, block))| _ = state.update(&prefix(block)));
        update_many(states.iter_mut().zip(blocks.iter().map(|(_, block)| *block)));
        states.iter().map(|state| state.finalize()).collect()
    };
    let leaf = |(hash, (number, block)): (&blake2b_simd::Hash, &(u64, &[u8]))| Node {
        index: flat::leaf(*number),
        size: block.len() as u64,
        hash: hash.as_bytes().try_into().expect("32 bytes were asked for"),
    };
    hashes.iter().zip(&blocks).map(leaf).collect()
}

const PREFIX: usize = 9;

/// What is hashed before a block.
fn prefix(block: &[u8]) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix[1..].copy_from_slice(&(block.len() as u64).to_le_bytes());
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_that_are_hashed_together_are_those_that_are_hashed_alone() {
        for sizes in [&[][..], &[0], &[1, 0, 5000, 128, 127], &[1024; 64], &[64 << 10; 3], &[70_000, 3, 4096, 0, 9999]]
        {
            let blocks: Vec<_> = sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size]).collect();
            let alone: Vec<_> = (7..).zip(&blocks).map(|(number, block)| Node::leaf(number, block)).collect();
            assert_eq!(leaves((7..).zip(blocks.iter().map(Vec::as_slice))), alone);
        }
    }
}
