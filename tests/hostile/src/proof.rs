//! Answers of peers about a feed: blocks, hashes, seeks and newer heads, in every combination.
//!
//! - An honest answer is accepted.
//! - Whatever is made of it: what is accepted is true. Each node, each block and the head are those that the author wrote.

use crate::{
    input::Input,
    library::{Book, book},
};
use bytes::Bytes;
use datdot_hypercore::{
    FeedKey,
    messages::{Data, Message, NodeRequest, Request, SeekRequest, UpgradeRequest},
    prove::{Checked, check},
};
use datdot_proof::{flat, head::SignedHead, tree::Roots};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let book = book(input.bool());
    let start = input.below(book.blocks.len()) as u64;
    let request = request(&mut input, book, start);
    // Seeks that are combined with a hash mean different nodes to those who know little and to those who know all.
    let (honest, roots) = match book.feed.answer(&request) {
        Ok(data) => (data, book.roots(if request.upgrade.is_some() { start } else { book.length() })),
        Err(_) => (Data::default(), book.roots(start)),
    };
    // Who says to have a node that it can't have gets what it can't use.
    assert!(check(&honest, &roots).is_ok(), "{request:?} gets {honest:?}");
    let (kind, body) = Message::Data(Box::new(honest)).encode();
    let altered = Bytes::from(input.alter(&body));
    if let Ok(Some(Message::Data(data))) = Message::decode(kind, &altered)
        && let Some(checked) = accept(book, &roots, &data)
    {
        for node in &checked.nodes {
            assert_eq!(book.node(node.index), Some(*node), "a node that is not in the tree");
        }
        if let Some(block) = &data.block {
            assert_eq!(book.blocks[block.index as usize], block.value);
        }
        if let Some(roots) = checked.roots {
            assert_eq!((roots, data.fork), (book.roots(book.length()), 0));
        }
    }
}

fn request(input: &mut Input<'_>, book: &Book, start: u64) -> Request {
    let parts = input.u8();
    let bytes = book.feed.info().bytes as usize;
    let node = |input: &mut Input<'_>, end| NodeRequest { index: input.below(end) as u64, nodes: input.u8().into() };
    let mut request = Request { manifest: parts & 1 != 0, ..Request::default() };
    if parts & 2 != 0 {
        request.block = Some(node(input, book.blocks.len()));
    }
    if parts & 4 != 0 {
        request.hash = Some(node(input, 2 * book.blocks.len()));
    }
    if parts & 8 != 0 {
        request.seek = Some(SeekRequest { bytes: input.below(bytes) as u64, padding: input.u8().into() });
    }
    if parts & 16 != 0 {
        let length = 1 + input.below((book.length() - start) as usize) as u64;
        request.upgrade = Some(UpgradeRequest { start, length });
    }
    request
}

/// What `Feed::accept` does, by somebody who has all nodes of the tree whose roots these are.
fn accept(book: &Book, roots: &Roots, data: &Data) -> Option<Checked> {
    let checked = check(data, roots).ok()?;
    if let (Some(upgrade), Some(grown)) = (&data.upgrade, &checked.roots) {
        let authors = book.feed.authors().expect("it has an author");
        authors.verify(&book.feed.key(), data.fork, grown, &upgrade.signature).ok()?;
    }
    match checked.top {
        Some(top) if flat::end_block(top.index) > roots.length() => None,
        Some(top) if book.node(top.index) != Some(top) => None,
        _ => Some(checked),
    }
}

/// A head that its author signed.
pub(crate) fn signed_head(is_compat: bool) -> (FeedKey, SignedHead) {
    let feed = &book(is_compat).feed;
    (feed.key(), feed.signed_head().expect("it is one author's"))
}
