//! The blocks that we write for a tree are those of JavaScript's Hyperbee, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../../hypercore/tests/support/mod.rs"]
mod support;
use bytes::Bytes;
use datdot_drive::{bee::Bee, node::Header};
use datdot_hypercore::FeedError;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use support::*;

struct Blocks(Vec<Bytes>);

impl datdot_drive::bee::Blocks for Blocks {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        self.0.get(number as usize).cloned().ok_or(FeedError::NotHere { block: number })
    }
}

/// A key, and the value that is put; `None` deletes.
type Change = (String, Option<String>);

fn append(blocks: &mut Vec<Bytes>, changes: &[Change]) {
    if blocks.is_empty() {
        blocks.push(Header::new(None).to_block());
    }
    let bee = Bee::new(Blocks(blocks.clone()), blocks.len() as u64);
    let mut batch = bee.batch();
    for (key, value) in changes {
        let key = Bytes::from(key.clone());
        match value {
            Some(value) => batch.put(key, value.clone().into()).unwrap(),
            None => _ = batch.del(&key).unwrap(),
        }
    }
    blocks.extend(batch.into_blocks());
}

fn batches(keys: u32, changes: usize, batches: usize) -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = (0..keys, proptest::option::weighted(0.6, "[a-z]{0,3}"));
    let change = change.prop_map(|(key, value)| (format!("key {key}"), value));
    proptest::collection::vec(proptest::collection::vec(change, 0..changes), 0..batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_trees_have_the_blocks_of_javascript() {
    let dir = tempfile::tempdir().unwrap();
    let mut author = Js::run("bee.js", &[format!("--dir={}", dir.path().display())]);
    let mut random = TestRunner::deterministic();
    let mut kinds = vec![];
    // Few keys: shrinks to nothing and grows again. Many: deep, with splits and merges of inner nodes.
    for (keys, changes, count) in [(12, 40, 8), (60, 100, 8), (400, 600, 6), (3000, 2500, 4)] {
        kinds.extend((0..6).map(|_| batches(keys, changes, count).new_tree(&mut random).unwrap().current()));
    }
    let mut compared = 0;
    for batches in kinds {
        let line: Vec<Vec<_>> = batches
            .iter()
            .map(|changes| {
                let change = |(key, value): &Change| -> Vec<_> {
                    [Some(key.clone()), value.clone()].into_iter().flatten().collect()
                };
                changes.iter().map(change).collect()
            })
            .collect();
        author.write(&serde_json::to_string(&line).unwrap()).await;
        let mut ours = vec![];
        for (i, changes) in batches.iter().enumerate() {
            if 2 * i < batches.len() {
                append(&mut ours, changes);
            } else {
                changes.iter().for_each(|change| append(&mut ours, std::slice::from_ref(change)));
            }
        }
        let theirs = author.event("blocks").await;
        let theirs: Vec<_> = theirs["blocks"].as_array().unwrap().iter().map(|block| block.as_str().unwrap()).collect();
        for (i, theirs) in theirs.iter().enumerate() {
            assert_eq!(ours.get(i).map(hex::encode).as_deref(), Some(*theirs), "block {i}");
        }
        // JavaScript writes the header with the first change.
        assert_eq!(ours.len().max(1), theirs.len().max(1));
        compared += theirs.len();
    }
    assert!(compared > 10_000, "only {compared} blocks");
}
