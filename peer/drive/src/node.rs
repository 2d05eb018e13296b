//! The blocks of a drive's metadata feed, which is a Hyperbee: a header, then one block for each put or deletion.
//!
//! ```text
//! block 0      header  1 "hyperbee" | 2 { 1 key of the blobs feed, 2 data of the application }
//! block n      node    1 index | 2 key | 3 value, absent in a deletion
//! index        levels  1 level *                  the tree nodes that this block brought; the root is the first
//! level                1 keys | 2 children        the keys are blocks, the children pairs of block and level
//! ```
//!
//! All of it is protobuf (hyperbee `lib/messages.js`). A node of the tree is named by [`Place`], its block and its number
//! there; a key is named by the block that put it.

use bytes::Bytes;
use prost::Message;

/// Keys that a node of the tree has at most.
pub const MAX_KEYS: usize = 8;
/// What a header says it is.
const PROTOCOL: &str = "hyperbee";
/// Bytes of an index that are decoded: JavaScript's have one level for each of the tree, about 100 bytes.
const MAX_INDEX: usize = 64 << 10;

/// Block 0.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Header {
    /// The format of the feed.
    #[prost(string, required, tag = "1")]
    pub protocol: String,
    /// What the header adds.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<Metadata>,
}

/// What a header may name.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Metadata {
    /// The feed with the contents, if it is not derived from the key.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub content_feed: Option<Bytes>,
    /// What an application adds; nothing in a drive.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub user_data: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct WireNode {
    #[prost(bytes = "bytes", required, tag = "1")]
    index: Bytes,
    #[prost(bytes = "bytes", required, tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", optional, tag = "3")]
    value: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct WireIndex {
    #[prost(message, repeated, tag = "1")]
    levels: Vec<WireLevel>,
}

#[derive(Clone, PartialEq, Message)]
struct WireLevel {
    #[prost(uint64, repeated, tag = "1")]
    keys: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    children: Vec<u64>,
}

/// Where a node of the tree is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The block.
    pub block: u64,
    /// Which level of its index.
    pub level: u64,
}

/// A node of the tree as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Blocks with the keys, in the order of the keys.
    pub keys: Vec<u64>,
    /// What lies before, between and after the keys; none in a leaf.
    pub children: Vec<Place>,
}

/// A put or a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What was put or deleted.
    pub key: Bytes,
    /// What was put under the key.
    pub value: Option<Bytes>,
    /// The nodes of the tree that came with it.
    pub levels: Vec<Level>,
}

/// Why a block is no node of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not the protobuf message that it should be.
    #[error("it can't be decoded")]
    Message,
    /// The index is longer than any that a tree needs.
    #[error("its index is too long")]
    Index,
    /// A node has too many keys, or not one child more than keys.
    #[error("a node of its tree has the wrong number of keys or children")]
    Shape,
    /// A node points to the header, or to a block that came later.
    #[error("its tree points to a block that can't be meant")]
    Pointer,
    /// The header is that of something else.
    #[error("it is not the header of a Hyperbee")]
    Header,
    /// The tree is deeper than any with so few levels can be.
    #[error("the tree is too deep")]
    Depth,
    /// Keys that should ascend do not.
    #[error("the keys of the tree are out of order")]
    Order,
}

impl Header {
    /// The header of a new tree: JavaScript's drives have it, with the key of the blobs feed only if that is not derived.
    pub fn new(content_feed: Option<[u8; 32]>) -> Header {
        let content_feed = content_feed.map(|key| Bytes::copy_from_slice(&key));
        Header { protocol: PROTOCOL.into(), metadata: Some(Metadata { content_feed, user_data: None }) }
    }

    /// The header as block 0.
    pub fn to_block(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads block 0.
    pub fn from_block(block: Bytes) -> Result<Header, Malformed> {
        let header = Header::decode(block).map_err(|_| Malformed::Message)?;
        if header.protocol != PROTOCOL {
            return Err(Malformed::Header);
        }
        Ok(header)
    }

    /// Whether the tree is a drive's. A plain Hyperbee's header has no metadata, or an application's own; that of a drive has it even if
    /// there is nothing in it.
    pub fn is_drive(&self) -> bool {
        self.metadata.as_ref().is_some_and(|it| it.content_feed.is_some() || it.user_data.is_none())
    }

    /// The blobs feed that the header names. JavaScript takes the first 32 bytes, so we do.
    pub fn content_feed(&self) -> Option<[u8; 32]> {
        self.metadata.as_ref()?.content_feed.as_ref()?.first_chunk().copied()
    }
}

impl Node {
    /// The node as a block.
    pub fn to_block(&self) -> Bytes {
        let levels = self.levels.iter().map(|level| WireLevel {
            keys: level.keys.clone(),
            children: level.children.iter().flat_map(|child| [child.block, child.level]).collect(),
        });
        let index = WireIndex { levels: levels.collect() }.encode_to_vec().into();
        WireNode { index, key: self.key.clone(), value: self.value.clone() }.encode_to_vec().into()
    }

    /// Reads a block. Key and value are parts of it, not copies.
    pub fn from_block(block: Bytes) -> Result<Node, Malformed> {
        let node = WireNode::decode(block).map_err(|_| Malformed::Message)?;
        if node.index.len() > MAX_INDEX {
            return Err(Malformed::Index);
        }
        let index = WireIndex::decode(node.index).map_err(|_| Malformed::Message)?;
        let levels = index.levels.into_iter().map(|level| {
            let (pairs, rest) = level.children.as_chunks::<2>();
            let children = pairs.iter().map(|&[block, level]| Place { block, level }).collect();
            if rest.is_empty() { Ok(Level { keys: level.keys, children }) } else { Err(Malformed::Shape) }
        });
        Ok(Node { key: node.key, value: node.value, levels: levels.collect::<Result<_, _>>()? })
    }

    /// A node of the tree in block `number`, which this is. It has at most [`MAX_KEYS`] keys, no children or one more, and
    /// points only to blocks from 1 to `number`. Levels that no tree leads to need not: batches of JavaScript leave
    /// such ones behind.
    pub fn level(&self, number: u64, level: u64) -> Result<&Level, Malformed> {
        let level = usize::try_from(level).ok().and_then(|level| self.levels.get(level)).ok_or(Malformed::Pointer)?;
        let Level { keys, children } = level;
        if keys.len() > MAX_KEYS || !children.is_empty() && children.len() != keys.len() + 1 {
            return Err(Malformed::Shape);
        }
        let mut blocks = keys.iter().copied().chain(children.iter().map(|child| child.block));
        if blocks.any(|block| block == 0 || block > number) {
            return Err(Malformed::Pointer);
        }
        Ok(level)
    }

    /// Whether block `number`, which this is, deleted its key. A put without a value is in its own tree.
    pub fn is_deletion(&self, number: u64) -> bool {
        self.value.is_none() && !self.levels.iter().any(|level| level.keys.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_blocks_are_those_of_javascript() {
        assert_eq!(hex::encode(Header::new(None).to_block()), "0a0868797065726265651200");
        let node = Node {
            key: Bytes::from_static(b"files\0/a/b.txt"),
            value: Some(Bytes::from_static(b"{}")),
            levels: vec![Level { keys: vec![1], children: vec![] }],
        };
        let block = node.to_block();
        assert_eq!(hex::encode(&block), "0a050a030a0101120e66696c6573002f612f622e7478741a027b7d");
        assert_eq!(node.level(1, 0), Ok(&node.levels[0]));
        // The same block elsewhere points to what came later.
        assert_eq!(node.level(0, 0), Err(Malformed::Pointer));
        assert_eq!(node.level(1, 1), Err(Malformed::Pointer));
        assert_eq!(Node::from_block(block), Ok(node));
        // The tree after its last deletion has one node without keys.
        let empty = Node { key: Bytes::from_static(b"a"), value: None, levels: vec![Level::default()] };
        assert_eq!(hex::encode(empty.to_block()), "0a020a00120161");
        assert!(empty.is_deletion(2));
    }

    #[test]
    fn a_header_names_its_blobs_or_leaves_them_to_be_derived() {
        let named = Header::from_block(Header::new(Some([7; 32])).to_block()).unwrap();
        assert_eq!(named.content_feed(), Some([7; 32]));
        assert_eq!(Header::from_block(Header::new(None).to_block()).unwrap().content_feed(), None);
        let other = Header { protocol: "autobase".into(), metadata: None };
        assert_eq!(Header::from_block(other.to_block()), Err(Malformed::Header));
        assert_eq!(Header::from_block(Bytes::from_static(b"hello")), Err(Malformed::Message));
    }

    #[test]
    fn an_index_without_end_is_refused_before_it_is_decoded() {
        let block = WireNode { index: vec![0x0a; MAX_INDEX + 1].into(), key: Bytes::new(), value: None };
        assert_eq!(Node::from_block(block.encode_to_vec().into()), Err(Malformed::Index));
    }

    fn level() -> impl Strategy<Value = Level> {
        let place = (any::<u64>(), 0..5u64).prop_map(|(block, level)| Place { block: block % 60, level });
        (proptest::collection::vec(0..60u64, 0..12), proptest::collection::vec(place, 0..12))
            .prop_map(|(keys, children)| Level { keys, children })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key in any::<Vec<u8>>(), value in any::<Option<Vec<u8>>>(), levels in proptest::collection::vec(level(), 0..6),
        ) {
            let node = Node { key: key.into(), value: value.map(Bytes::from), levels };
            prop_assert_eq!(Node::from_block(node.to_block()), Ok(node));
        }

        #[test]
        fn any_bytes_are_read_or_refused(block in any::<Vec<u8>>()) {
            if let Ok(node) = Node::from_block(block.clone().into()) {
                prop_assert_eq!(Node::from_block(node.to_block()), Ok(node));
            }
            _ = Header::from_block(block.into());
        }

        #[test]
        fn a_damaged_node_is_read_or_refused(
            levels in proptest::collection::vec(level(), 0..6), at in any::<proptest::sample::Index>(), byte in any::<u8>(),
        ) {
            let node = Node { key: Bytes::from_static(b"key"), value: Some(Bytes::from_static(b"value")), levels };
            let mut block = node.to_block().to_vec();
            let at = at.index(block.len());
            block[at] = byte;
            if let Ok(node) = Node::from_block(block.into()) {
                for number in 0..node.levels.len() as u64 {
                    let Ok(level) = node.level(50, number) else { continue };
                    prop_assert!(level.keys.len() <= MAX_KEYS && level.keys.iter().all(|key| (1..=50).contains(key)));
                }
            }
        }
    }
}
