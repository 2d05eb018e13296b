//! What peers say to each other about one feed: the messages of a `hypercore/alpha` channel.
//!
//! ```text
//! 0 sync      flags (1 canUpgrade, 2 uploading, 4 downloading, 8 hasManifest, 16 allowPush) fork length remoteLength
//! 1 request   flags (1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest, 32 priority) id fork
//!             [block: index nodes] [hash: index nodes] [seek: bytes padding] [upgrade: start length] [priority]
//! 2 cancel    id
//! 3 data      flags (1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest) id fork
//!             [block: index value nodes] [hash: index nodes] [seek: bytes nodes]
//!             [upgrade: start length nodes additionalNodes signature] [manifest]
//! 4 noData    id [flags (1 reason) [reason]]
//! 5 want      start length [flags (1 any)]
//! 6 unwant    as want
//! 7 bitfield  start, words of 32 bits
//! 8 range     flags (1 drop, 2 one block) start [length]
//! 9 extension name, raw
//! ```
//!
//! Integers are compact uints, a node is `index size hash` (hypercore `lib/messages.js`). Decoding allocates no
//! more than a small multiple of the message; block contents are slices of it.

mod codec;

use bytes::Bytes;
use datdot_proof::tree::Node;

/// The type of [`Message::Data`].
pub(crate) const DATA: u64 = 3;

/// One message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What the sender has and does.
    Sync(Sync),
    /// Asks for blocks, hashes or a newer head.
    Request(Request),
    /// Takes a request back.
    Cancel {
        /// The request's id.
        id: u64,
    },
    /// Answers a request.
    Data(Box<Data>),
    /// Refuses a request.
    NoData {
        /// The request's id.
        id: u64,
        /// Why, if the sender says.
        reason: Option<Refusal>,
    },
    /// Asks to be told which blocks of a range the other side has, now and later.
    Want(Wanted),
    /// Takes a want back.
    Unwant(Wanted),
    /// Which blocks the sender has.
    Bitfield {
        /// The block of the first bit, a multiple of 32.
        start: u64,
        /// Bit `i` of word `w` stands for block `start + 32 w + i`.
        words: Vec<u32>,
    },
    /// The sender has a range of blocks, or no longer has it.
    Range {
        /// Has it no longer.
        drop: bool,
        /// First block.
        start: u64,
        /// Blocks.
        length: u64,
    },
    /// A message of an application; none is known here.
    Extension,
}

/// What a peer has and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// Can prove its head to a peer of the length that the other side announced.
    pub can_upgrade: bool,
    /// Answers requests.
    pub uploading: bool,
    /// Makes requests.
    pub downloading: bool,
    /// Knows the manifest of a v1 feed.
    pub has_manifest: bool,
    /// Takes blocks that it did not ask for.
    pub allow_push: bool,
    /// Rewrites of the feed.
    pub fork: u64,
    /// Blocks of the sender's head.
    pub length: u64,
    /// The length that the receiver announced last: JavaScript asks for an upgrade only when it finds its own here.
    pub remote_length: u64,
}

/// What a peer asks for; every part may be combined with every other, but beside a block a hash is not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the asker; 0 asks for a proof of a conflict.
    pub id: u64,
    /// The fork that the asker knows.
    pub fork: u64,
    /// A block with its proof.
    pub block: Option<NodeRequest>,
    /// A node of the tree with its proof.
    pub hash: Option<NodeRequest>,
    /// The nodes that lead to a byte.
    pub seek: Option<SeekRequest>,
    /// A newer head.
    pub upgrade: Option<UpgradeRequest>,
    /// The manifest.
    pub manifest: bool,
    /// 0 normal, 1 high, 2 very high.
    pub priority: u64,
}

/// A block (index in blocks) or hash (flat-tree index) that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// Which.
    pub index: u64,
    /// How many steps up to a node that the asker has.
    pub nodes: u64,
}

/// A byte whose block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekRequest {
    /// Offset from the start of the feed, without the padding.
    pub bytes: u64,
    /// Bytes of each block that don't count (encrypted feeds).
    pub padding: u64,
}

/// A newer head: blocks `start..start + length` are to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// Blocks of the asker's head.
    pub start: u64,
    /// Blocks to add.
    pub length: u64,
}

/// The answer to a [`Request`], with a part for each of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The request's id.
    pub id: u64,
    /// The sender's fork.
    pub fork: u64,
    /// A block.
    pub block: Option<DataBlock>,
    /// A node: the first of the list.
    pub hash: Option<DataHash>,
    /// The nodes that lead to a byte.
    pub seek: Option<DataSeek>,
    /// A newer head.
    pub upgrade: Option<DataUpgrade>,
    /// The manifest as its author wrote it.
    pub manifest: Option<Bytes>,
}

impl Data {
    /// Whether it answers no part of a request.
    pub fn is_empty(&self) -> bool {
        self.block.is_none() && self.hash.is_none() && self.seek.is_none() && self.upgrade.is_none()
    }
}

/// A block with the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataBlock {
    /// Which block.
    pub index: u64,
    /// Its content.
    pub value: Bytes,
    /// Siblings, lowest first.
    pub nodes: Vec<Node>,
}

/// A node with the siblings on its way up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHash {
    /// Flat-tree index.
    pub index: u64,
    /// The node itself, then siblings, lowest first.
    pub nodes: Vec<Node>,
}

/// The nodes around a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSeek {
    /// The byte that was asked for.
    pub bytes: u64,
    /// The node that contains it, then siblings, lowest first.
    pub nodes: Vec<Node>,
}

/// The nodes that lead from one head to a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataUpgrade {
    /// As asked.
    pub start: u64,
    /// As asked.
    pub length: u64,
    /// What is added, left to right, up to `start + length`.
    pub nodes: Vec<Node>,
    /// What is added from there to the length that is signed.
    pub additional: Vec<Node>,
    /// The author's signature, as it stands on the wire.
    pub signature: Bytes,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sender does not have it (or knows another fork).
    NotAvailable,
    /// The request can't be answered by anybody.
    Invalid,
}

/// A range of blocks that a peer wants to know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// First block.
    pub start: u64,
    /// Blocks.
    pub length: u64,
    /// One block of the range is enough.
    pub any: bool,
}

/// What the two sides tell each other when the channel opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Understands seeks.
    pub seeks: bool,
    /// See [`FeedKey::capability`](crate::FeedKey::capability).
    pub capability: [u8; 32],
}
