//! A drive that a stranger wrote.
//!
//! - Nodes, headers, entries and paths that can be read are written and read again as the same.
//! - A tree of any blocks is walked to an end: its keys come in order, or an error does.
//! - An export writes nothing outside its folder, and no more than it may.

use crate::{input::Input, scratch};
use bytes::Bytes;
use datdot_drive::{
    Blob, Drive, DrivePath, Entry,
    bee::{Bee, Blocks},
    export::{Options, export},
    node::{Header, Node},
    path::MAX_PATH,
};
use datdot_hypercore::{FeedError, Keypair, Store};
use std::{
    fs,
    ops::{Bound, ControlFlow},
    path::Path,
};

/// The first byte says what is tried.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 8 {
        0 => blocks(input.rest()),
        1 => texts(input.rest()),
        2..6 => tree(&mut input),
        _ => folder(&mut input),
    }
}

fn blocks(bytes: &[u8]) {
    let block = Bytes::copy_from_slice(bytes);
    if let Ok(node) = Node::from_block(block.clone()) {
        assert_eq!(Node::from_block(node.to_block()).as_ref(), Ok(&node));
        for level in 0..node.levels.len() as u64 {
            _ = node.level(u64::MAX, level);
        }
        _ = node.is_deletion(1);
    }
    if let Ok(header) = Header::from_block(block) {
        assert_eq!(Header::from_block(header.to_block()), Ok(header));
    }
}

fn texts(bytes: &[u8]) {
    if let Ok(entry) = Entry::from_json(bytes) {
        assert_eq!(Entry::from_json(&entry.to_json()).expect("it is ours"), entry);
    }
    let texts = [DrivePath::from_key(bytes).ok(), std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok())];
    for path in texts.into_iter().flatten() {
        assert_eq!(DrivePath::from_key(&path.to_key()).as_ref(), Ok(&path));
        assert!(path.as_str().len() <= MAX_PATH && path.as_str().starts_with('/'));
        assert!(path.parts().all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0'])));
    }
}

/// Blocks in memory.
struct Memory(Vec<Bytes>);

impl Blocks for &Memory {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        let block = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        block.cloned().ok_or(FeedError::NotHere { block: number })
    }
}

fn tree(input: &mut Input<'_>) {
    let mut memory = Memory(vec![Header::new(None).to_block()]);
    // First what an honest author does, then its blocks as a stranger makes them.
    for _ in 0..input.below(24) {
        let bee = Bee::new(&memory, memory.0.len() as u64);
        let mut batch = bee.batch();
        for _ in 0..=input.below(3) {
            let key = Bytes::from(vec![input.u8() % 32]);
            if input.u8() < 200 {
                batch.put(key, Bytes::copy_from_slice(input.part())).expect("the tree is honest");
            } else {
                batch.del(&key).expect("the tree is honest");
            }
        }
        let blocks = batch.into_blocks();
        memory.0.extend(blocks);
    }
    let honest = Bee::new(&memory, memory.0.len() as u64);
    assert!(honest.range(Bound::Unbounded, Bound::Unbounded).all(|entry| entry.is_ok()));
    drop(honest);
    for _ in 0..input.below(8) {
        let at = input.below(memory.0.len());
        memory.0[at] = input.alter(&memory.0[at]).into();
    }
    let blocks: usize = memory.0.len();
    let bee = Bee::new(&memory, blocks as u64);
    let key = Bytes::copy_from_slice(input.part());
    let found = bee.get(&key);
    _ = bee.header();
    let mut count = 0;
    let mut last: Option<Bytes> = None;
    for entry in bee.range(Bound::Unbounded, Bound::Unbounded) {
        // After an error the same would be tried again.
        let Ok(entry) = entry else { break };
        assert!(last.as_ref().is_none_or(|last| *last < entry.key));
        last = Some(entry.key);
        count += 1;
        assert!(count <= blocks, "more entries than blocks");
    }
    _ = (found.is_ok(), bee.history(0..u64::MAX).take(100).count());
    let mut batch = bee.batch();
    if batch.put(key.clone(), Bytes::from_static(b"value")).is_ok() {
        _ = batch.del(&key);
        _ = batch.into_blocks();
    }
}

fn folder(input: &mut Input<'_>) {
    let scratch = scratch::folder();
    let store = Store::open(scratch.path().join("store")).expect("the folder is new");
    let drive = Drive::create(&store, &Keypair::from_seed([4; 32])).expect("there is room");
    let blobs = drive.blobs().expect("they are derived").clone();
    let contents: Vec<_> = (0..4).map(|_| Bytes::copy_from_slice(input.part())).collect();
    blobs.write(&contents).expect("there is room");
    let metadata = drive.metadata();
    if metadata.info().length == 0 {
        metadata.write(&[Header::new(None).to_block()]).expect("there is room");
    }
    let written = {
        let bee = Bee::new(metadata.clone(), metadata.info().length);
        let mut batch = bee.batch();
        for _ in 0..input.below(10) {
            batch.put(key(input), value(input, blobs.info().length)).expect("the tree is honest");
        }
        batch.into_blocks()
    };
    metadata.write(&written).expect("there is room");

    // What an attack would be after: a file beside the target, perhaps with a link to it inside.
    let (target, beside) = (scratch.path().join("target"), scratch.path().join("beside"));
    fs::create_dir_all(&target).expect("the folder is new");
    fs::create_dir_all(&beside).expect("the folder is new");
    fs::write(beside.join("secret"), b"untouched").expect("the folder is new");
    let has_link = input.bool();
    if has_link {
        std::os::unix::fs::symlink(&beside, target.join("a")).expect("the folder is new");
    }
    let max_bytes = 4_000;
    let result = export(&drive.latest(), &target, &Options { folder: None, max_bytes, replace: false }, &mut |_| {
        ControlFlow::Continue(())
    });
    let names: Vec<_> = fs::read_dir(&beside).expect("it is there").collect();
    assert!(names.len() == 1 && fs::read(beside.join("secret")).expect("it is there") == b"untouched");
    let mut top: Vec<_> = fs::read_dir(scratch.path())
        .expect("it is there")
        .map(|entry| entry.expect("it is there").file_name())
        .collect();
    top.sort();
    assert_eq!(top, ["beside", "store", "target"]);
    if let Ok(exported) = result {
        assert!(exported.bytes <= max_bytes);
        if !has_link {
            no_link_leads_out(&target, &target.canonicalize().expect("it is there"));
        }
    }
}

/// The system itself is asked where links lead.
fn no_link_leads_out(folder: &Path, target: &Path) {
    for entry in fs::read_dir(folder).expect("it is there") {
        let entry = entry.expect("it is there");
        if entry.file_type().expect("it is there").is_dir() {
            no_link_leads_out(&entry.path(), target);
        } else if let Ok(place) = entry.path().canonicalize() {
            assert!(place.starts_with(target), "{} leads to {}", entry.path().display(), place.display());
        }
    }
}

fn key(input: &mut Input<'_>) -> Bytes {
    const NAMES: [&str; 12] =
        ["a", "b", "a/secret", "a/b", "b/c", "../x", "./x", "b/../../x", ".datdot-part", "c", "b/c/d", "secret"];
    match input.u8() {
        n @ 0..200 => [b"files\0/", NAMES[usize::from(n) % NAMES.len()].as_bytes()].concat().into(),
        200..230 => [b"files\0/", input.part()].concat().into(),
        _ => Bytes::copy_from_slice(input.part()),
    }
}

fn value(input: &mut Input<'_>, blocks: u64) -> Bytes {
    const TARGETS: [&str; 10] =
        ["b", "../x", "/", "/etc/passwd", "../../beside/secret", "b/../../beside", "..", ".", "a", "a/secret"];
    let small = |input: &mut Input<'_>| {
        if input.u8() < 200 { u64::from(input.u8()) % (blocks + 2) } else { input.uint() >> 11 }
    };
    match input.u8() {
        0..100 => {
            let (block_offset, block_length) = (small(input), small(input) % 4);
            let (byte_offset, byte_length) = (small(input), u64::from(input.u16()));
            let block_map = input.u8().is_multiple_of(8);
            let blob = Blob { block_offset, byte_offset, block_length, byte_length, block_map };
            Entry::file(blob, input.bool()).to_json().into()
        }
        n @ 100..220 => Entry::link(TARGETS[usize::from(n) % TARGETS.len()]).to_json().into(),
        220..240 => Entry::link(String::from_utf8_lossy(input.part())).to_json().into(),
        _ => Bytes::copy_from_slice(input.part()),
    }
}
