//! Feeds whose truth is known, to measure against what a feed of strangers accepts.

use crate::scratch;
use bytes::Bytes;
use datdot_hypercore::{Feed, Keypair, Store};
use datdot_proof::{
    flat,
    tree::{Node, Roots},
};
use std::{path::Path, sync::LazyLock};

/// A whole feed and its blocks.
pub(crate) struct Book {
    pub feed: Feed,
    pub blocks: Vec<Bytes>,
    _store: Store,
}

/// The key pair of the feeds. It signs nothing but what is here: the recorded feeds have another.
pub(crate) fn author() -> Keypair {
    Keypair::from_seed([1; 32])
}

/// Blocks of a feed: none, short and longer ones.
pub(crate) fn blocks() -> Vec<Bytes> {
    (0..21usize).map(|block| vec![block as u8; [0, 1, 5, 40, 300][block % 5] + block].into()).collect()
}

static V1: LazyLock<Book> = LazyLock::new(|| write(false));
static COMPAT: LazyLock<Book> = LazyLock::new(|| write(true));
static REWRITTEN: LazyLock<Book> = LazyLock::new(|| {
    let folder = scratch::folder();
    let mut book = write_to(folder.path(), false);
    let kept = 9;
    book.feed.truncate_now(kept).expect("it is longer");
    book.blocks.truncate(kept as usize);
    let other: Vec<Bytes> = (0..17usize).map(|block| vec![0xf0; block].into()).collect();
    book.feed.write(&other).expect("there is room");
    book.blocks.extend(other);
    book
});

pub(crate) fn book(is_compat: bool) -> &'static Book {
    if is_compat { &COMPAT } else { &V1 }
}

/// The v1 feed as its author rewrote it from block 9 on.
pub(crate) fn rewritten() -> &'static Book {
    &REWRITTEN
}

fn write(is_compat: bool) -> Book {
    // Open files stay when their folder goes: nothing is left behind when the process ends.
    write_to(scratch::folder().path(), is_compat)
}

fn write_to(folder: &Path, is_compat: bool) -> Book {
    let store = Store::open(folder).expect("the folder is new");
    let feed = if is_compat { store.create_compat(&author()) } else { store.create(&author()) };
    let (feed, blocks) = (feed.expect("there is room"), blocks());
    feed.write(&blocks).expect("there is room");
    Book { feed, blocks, _store: store }
}

impl Book {
    pub fn length(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub fn node(&self, index: u64) -> Option<Node> {
        self.feed.node(index).expect("the files are open")
    }

    pub fn roots(&self, length: u64) -> Roots {
        let nodes: Vec<_> = flat::full_roots(length).map(|index| self.node(index).expect("it is written")).collect();
        Roots::from_nodes(&nodes).expect("they are those of this length")
    }
}
