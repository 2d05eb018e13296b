//! A feed's folder.
//!
//! ```text
//! data     the blocks, each at its byte offset in the feed: a range of blocks is one range of bytes
//! tree     node i of the tree at 40 i: size u64 little endian, hash; all zero where there is none
//! have     bit i % 8 of byte i / 8: block i was written and verified
//! head     who may write, and the newest signed head; replaced as a whole
//! secret   the author's seed, 32 bytes, only in the author's store and readable by its user alone
//! conflict two heads that contradict each other, if such were found
//! ```
//!
//! The files are sparse. A block's bit is written only after its bytes and nodes have reached the disk, a head only
//! after everything it covers: a crash at any point loses the newest bits, and what they stood for is fetched again.

use crate::{
    authors::Authors,
    blocks::{Blocks, PAGE_BYTES},
    feed::{Conflict, Signed},
    key::{FeedKey, Keypair},
};
use codec::{Decode, Encode};
use datdot_proof::{
    flat,
    head::Root,
    tree::{Node, Roots},
};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const NODE_BYTES: usize = 40;
const MAGIC: &[u8; 16] = b"datdot feed 2\n\0\0";
/// More than the longest manifest and signature take together.
const MAX_RECORD: u64 = 128 << 10;

/// The open files of a feed.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    data: File,
    tree: File,
    have: File,
}

/// What the file `head` says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record {
    pub key: [u8; 32],
    /// The manifest as peers send it, nothing for a compat feed.
    pub authors: Option<Vec<u8>>,
    pub head: Option<RecordedHead>,
    /// The head is of another history than what else is here, which has to be cut first.
    pub fresh: Option<Fresh>,
}

/// What stays when history is rewritten, and the nodes that lead from there to the new roots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Fresh {
    pub keep: u64,
    pub nodes: Vec<(u64, u64, [u8; 32])>,
}

/// The newest signed head.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RecordedHead {
    pub fork: u64,
    pub length: u64,
    pub roots: Vec<Root>,
    pub signature: Vec<u8>,
}

impl Disk {
    /// Opens the files in `dir`, and makes those that are missing.
    pub fn open(dir: &Path) -> io::Result<Disk> {
        let file = |name| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(name));
        Ok(Disk { dir: dir.to_owned(), data: file("data")?, tree: file("tree")?, have: file("have")? })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn data_path(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The node as it is stored; the end of the file counts as zeros.
    pub fn node(&self, index: u64) -> io::Result<Option<Node>> {
        let mut slot = [0; NODE_BYTES];
        let Some(at) = index.checked_mul(NODE_BYTES as u64) else { return Ok(None) };
        match self.tree.read_exact_at(&mut slot, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let (size, hash) = slot.split_first_chunk::<8>().expect("a slot has 40 bytes");
        let hash: [u8; 32] = hash.try_into().expect("a slot has 40 bytes");
        Ok((hash != [0; 32]).then(|| Node { index, size: u64::from_le_bytes(*size), hash }))
    }

    /// Writes nodes, neighbours at once.
    pub fn write_nodes(&self, nodes: &[Node]) -> io::Result<()> {
        let mut sorted: Vec<&Node> = nodes.iter().collect();
        sorted.sort_unstable_by_key(|node| node.index);
        sorted.dedup_by_key(|node| node.index);
        for run in sorted.chunk_by(|one, next| one.index + 1 == next.index) {
            let mut slots = Vec::with_capacity(run.len() * NODE_BYTES);
            for node in run {
                slots.extend_from_slice(&node.size.to_le_bytes());
                slots.extend_from_slice(&node.hash);
            }
            self.tree.write_all_at(&slots, run[0].index * NODE_BYTES as u64)?;
        }
        Ok(())
    }

    pub fn forget_node(&self, index: u64) -> io::Result<()> {
        self.tree.write_all_at(&[0; NODE_BYTES], index * NODE_BYTES as u64)
    }

    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.data.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all_at(bytes, at)
    }

    /// Gives the room of bytes back. Where the file system can't do that, they stay.
    pub fn give_back(&self, bytes: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match bytes.end.saturating_sub(bytes.start) {
            0 => Ok(()),
            len => match fallocate(&self.data, flags, bytes.start, len) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                result => Ok(result?),
            },
        }
    }

    /// Brings data and nodes to the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.data.sync_data()?;
        self.tree.sync_data()
    }

    pub fn write_have(&self, page: u64, bits: &[u8; PAGE_BYTES]) -> io::Result<()> {
        self.have.write_all_at(bits, page * PAGE_BYTES as u64)
    }

    pub fn sync_have(&self) -> io::Result<()> {
        self.have.sync_data()
    }

    /// The blocks below `length` that were written. Bits beyond it come from an append that was cut off; they
    /// are removed, or a later head would find them set.
    pub fn read_have(&self, length: u64) -> io::Result<Blocks> {
        let mut blocks = Blocks::default();
        self.cut_have(length)?;
        let end = self.have.metadata()?.len();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < end {
            let len = buffer.len().min((end - at) as usize);
            self.have.read_exact_at(&mut buffer[..len], at)?;
            buffer[len..].fill(0);
            // Holes in a sparse file take no memory: a page is added only if it has a bit.
            for (page, bits) in buffer[..len.next_multiple_of(PAGE_BYTES)].chunks(PAGE_BYTES).enumerate() {
                if bits.iter().any(|byte| *byte != 0) {
                    let (words, _) = bits.as_chunks::<4>();
                    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
                    blocks.set_words((at + (page * PAGE_BYTES) as u64) * 8, &words);
                }
            }
            at += len as u64;
        }
        Ok(blocks)
    }

    /// Cuts what a rewritten history does not share with the old one. A crash in between finds the record as it is, and does it
    /// again.
    pub fn finish(&self, record: &mut Record) -> io::Result<()> {
        let Some(fresh) = record.fresh.take() else { return Ok(()) };
        self.cut_tree(fresh.keep)?;
        let node = |(index, size, hash): (u64, u64, [u8; 32])| Node { index, size, hash };
        self.write_nodes(&fresh.nodes.into_iter().map(node).collect::<Vec<_>>())?;
        self.sync()?;
        self.cut_have(fresh.keep)?;
        self.sync_have()?;
        self.write_record(record)
    }

    /// Forgets all nodes that are not within the first `length` blocks.
    fn cut_tree(&self, length: u64) -> io::Result<()> {
        let end = 2 * length * NODE_BYTES as u64;
        if self.tree.metadata()?.len() > end {
            self.tree.set_len(end)?;
        }
        // Of those that also stand for later blocks some have a lower number: above the last blocks.
        let mut at = flat::leaf(length.saturating_sub(1));
        while length > 0 && flat::blocks(at) <= length {
            at = flat::parent(at);
            if flat::end_block(at) > length && at < 2 * length {
                self.forget_node(at)?;
            }
        }
        Ok(())
    }

    /// Forgets all blocks from `length` on.
    fn cut_have(&self, length: u64) -> io::Result<()> {
        let bytes = length.div_ceil(8);
        if self.have.metadata()?.len() > bytes {
            self.have.set_len(bytes)?;
        }
        if !length.is_multiple_of(8) {
            let mut last = [0];
            if self.have.read_at(&mut last, bytes - 1)? == 1 {
                self.have.write_all_at(&[last[0] & ((1 << (length % 8)) - 1)], bytes - 1)?;
            }
        }
        Ok(())
    }

    pub fn write_conflict(&self, conflict: &Conflict) -> io::Result<()> {
        let bytes = conflict.encode();
        self.replace("conflict", &[&bytes[..], &checksum(&bytes)].concat())
    }

    pub fn read_conflict(&self) -> io::Result<Option<Conflict>> {
        let bytes = match fs::read(self.dir.join("conflict")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let body = bytes.split_last_chunk::<32>().filter(|(body, hash)| **hash == checksum(body));
        Ok(body.and_then(|(mut body, _)| Conflict::decode(&mut body).ok()))
    }

    pub fn read_record(&self) -> io::Result<Record> {
        let mut bytes = Vec::new();
        File::open(self.dir.join("head"))?.take(MAX_RECORD).read_to_end(&mut bytes)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the file `head` is damaged");
        let (body, hash) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        if *hash != checksum(body) {
            return Err(damaged());
        }
        let mut fields = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        Record::decode(&mut fields).map_err(|_| damaged())
    }

    /// Replaces the record: after a crash the old one or the new one is there.
    pub fn write_record(&self, record: &Record) -> io::Result<()> {
        let mut bytes = [&MAGIC[..], &record.encode()].concat();
        bytes.extend_from_slice(&checksum(&bytes));
        self.replace("head", &bytes)
    }

    pub fn read_secret(&self) -> io::Result<Option<Keypair>> {
        match fs::read(self.dir.join("secret")) {
            Ok(seed) => match seed.try_into() {
                Ok(seed) => Ok(Some(Keypair::from_seed(seed))),
                Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the file `secret` has not 32 bytes")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn write_secret(&self, keypair: &Keypair) -> io::Result<()> {
        self.replace("secret", &keypair.seed())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&new, self.dir.join(name))?;
        sync_dir(&self.dir)
    }
}

impl Record {
    pub fn new(key: &FeedKey, authors: Option<&Authors>, head: Option<(&Signed, &Roots)>) -> Record {
        let authors = authors.map(|authors| authors.to_wire().map_or_else(Vec::new, |wire| wire.to_vec()));
        let head = head.map(|(head, roots)| RecordedHead {
            fork: head.fork,
            length: roots.length(),
            roots: roots.nodes().iter().map(|node| Root { hash: node.hash, size: node.size }).collect(),
            signature: head.signature.to_vec(),
        });
        Record { key: key.0, authors, head, fresh: None }
    }

    pub fn key(&self) -> FeedKey {
        FeedKey(self.key)
    }

    pub fn authors(&self) -> io::Result<Option<Authors>> {
        let read = |wire: &Vec<u8>| match wire.is_empty() {
            true => Ok(Authors::compat(&self.key())),
            false => Authors::from_wire(wire.clone().into()).map_err(invalid),
        };
        self.authors.as_ref().map(read).transpose()
    }

    pub fn roots(&self) -> io::Result<Roots> {
        let Some(head) = &self.head else { return Ok(Roots::new()) };
        let node = |(root, index): (&Root, u64)| Node { index, size: root.size, hash: root.hash };
        let nodes: Vec<_> = head.roots.iter().zip(flat::full_roots(head.length)).map(node).collect();
        Roots::from_nodes(&nodes).map_err(invalid)
    }

    pub fn signed(&self) -> Option<Signed> {
        self.head.as_ref().map(|head| Signed { fork: head.fork, signature: head.signature.clone().into() })
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Makes renames within `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    let hash = blake2b_simd::Params::new().hash_length(32).hash(bytes);
    hash.as_bytes().try_into().expect("the hash has 32 bytes")
}
