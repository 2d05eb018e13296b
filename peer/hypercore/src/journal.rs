//! A feed's journal: what a commit promises, in the same file as the blocks, so that one sync brings both to the disk.
//!
//! ```text
//! data   0        half 0, 2 MiB   │ whole │ commit │ commit │ …
//!        2 MiB    half 1, 2 MiB   │ whole │ commit │ …
//!        4 MiB    the blocks, each at its byte offset in the feed
//!
//! entry  "datdot 3" │ number u64 │ length u32 │ content │ BLAKE2b-256 of all before            starts at a multiple of 4,096;
//!                                     a zero byte is put before whatever lies at a later one
//! content (SCALE)     record     key, manifest, newest signed head, bytes of the blocks that are here: as they are after it
//!                     keep       history was rewritten: how many blocks stay
//!                     nodes      index, size, hash: nodes of the tree that came
//!                     steps      blocks that came, with their place, or went; in this order
//! ```
//!
//! One half is in use. Its first entry is *whole*: all that the entries before said is durable in the files `tree` and `have`,
//! and only the record is left to be told. When the half is nearly full those files are brought to the disk and the other half
//! begins. Numbers go on across halves, so what an older use of a half left behind is never taken for a commit.
//!
//! If the first entry of a half is torn, it was just being begun, and the other half says the same. If commits follow it, it is
//! damaged, and so is the feed.
//!
//! Each entry is synced, with the blocks that it names, before the next is written: of the entries that are found after a crash
//! only the last can be one whose blocks are not all on the disk. It counts if they are. So recovery reads one half and
//! the blocks of one commit, however large the feed is.

use crate::{authors::Authors, disk::Disk, feed::Signed, files::Handle, key::FeedKey};
use codec::{Decode, Encode};
use datdot_proof::{
    flat,
    head::Root,
    tree::{Node, Roots, blake2b},
};
use std::{io, ops::Range};

/// Where the blocks of a feed begin in its file.
pub const DATA_START: u64 = 2 * HALF;

// Small in this crate's own tests, which go round many times.
const HALF: u64 = if cfg!(test) { 64 << 10 } else { 2 << 20 };
/// No entry is longer: one with more nodes does not name them, and the tree is synced before it. See [`Journal::names`].
const MAX_ENTRY: u64 = HALF / 2;
const PAGE: u64 = 4096;
const MAGIC: &[u8; 8] = b"datdot 3";
const HEADER: usize = 20;
const HASH: usize = 32;

/// What one commit changes: see the module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Entry {
    pub record: Record,
    pub keep: Option<u64>,
    pub nodes: Vec<(u64, u64, [u8; 32])>,
    pub steps: Vec<Step>,
}

/// Who may write a feed, its newest head, and how much of it is here.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record {
    pub key: [u8; 32],
    /// The manifest as peers send it, nothing for a compat feed.
    pub authors: Option<Vec<u8>>,
    pub head: Option<RecordedHead>,
    pub bytes_here: u64,
}

/// The newest signed head.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RecordedHead {
    pub fork: u64,
    pub length: u64,
    pub roots: Vec<Root>,
    pub signature: Vec<u8>,
}

/// Blocks that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Step {
    /// They are at this byte of the feed.
    #[codec(index = 0)]
    Gained { first: u64, end: u64, offset: u64 },
    #[codec(index = 1)]
    Lost { first: u64, end: u64 },
}

/// Where the next entry is written.
#[derive(Debug)]
pub(crate) struct Journal {
    half: u64,
    at: u64,
    /// Of the last entry.
    number: u64,
    /// A sync failed: what is on the disk is not known any more. Nothing is written until the feed is opened again.
    broken: bool,
    /// Whether the half has more than its first entry.
    used: bool,
    /// The last entry cuts the tree. Done again after a crash, it would cut off nodes that a later entry does not name, so there
    /// is none before the next checkpoint.
    cut: bool,
    /// The disk has room for the half up to here.
    reserved: u64,
    /// Nodes that were never promised may be in `tree` after a crash, seen by us and not by the disk. What is promised from now on
    /// may build on them, so they are synced before that.
    leftovers: bool,
}

/// What was read at the opening of a feed.
pub(crate) struct Found {
    pub journal: Journal,
    /// The first is whole.
    pub entries: Vec<Entry>,
    /// Where the last entry starts.
    last: u64,
}

impl Journal {
    /// Begins the file of a new feed; what was in it counts for nothing any more.
    pub fn create(data: &Handle, record: Record) -> io::Result<Journal> {
        data.set_len(0)?;
        let mut journal = Journal {
            half: 1,
            at: 0,
            number: 0,
            broken: false,
            used: false,
            cut: false,
            reserved: 0,
            leftovers: false,
        };
        journal.turn(data, record)?;
        Ok(journal)
    }

    /// Reads the half in use; nothing if both are damaged.
    pub fn find(data: &Handle) -> io::Result<Option<Found>> {
        let mut found: Option<(u64, u64, Entry, u64)> = None;
        for half in 0..2 {
            if let Some((number, entry, len)) = read(data, half, 0)?
                && found.as_ref().is_none_or(|(_, other, ..)| *other < number)
            {
                found = Some((half, number, entry, len));
            }
        }
        let Some((half, mut number, whole, len)) = found else { return Ok(None) };
        let (mut entries, mut last, mut at) = (vec![whole], 0, len);
        while let Some((_, entry, len)) = read(data, half, at)?.filter(|(found, ..)| *found == number + 1) {
            entries.push(entry);
            (number, last, at) = (number + 1, at, at + len);
        }
        if newer_in(data, half, at, number + 1)? || newer_in(data, 1 - half, 0, number)? {
            return Ok(None);
        }
        // Nothing follows a cut.
        let cut = entries.last().is_some_and(|entry| entry.keep.is_some());
        let used = entries.len() > 1;
        let journal = Journal { half, at, number, broken: false, used, cut, reserved: 0, leftovers: true };
        Ok(Some(Found { journal, entries, last }))
    }

    /// Whether a checkpoint has to come before the next entry.
    pub fn is_tight(&self) -> bool {
        self.cut || HALF - self.at < MAX_ENTRY
    }

    /// Whether there are entries that `tree` and `have` may not show yet.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// The number of the last entry.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn check(&self) -> io::Result<()> {
        match self.broken {
            true => Err(io::Error::other("the disk failed before: nothing is written until the store is opened again")),
            false => Ok(()),
        }
    }

    /// A sync, after which nothing is known if it fails: what the system did not write it does not try again.
    pub fn sync(&mut self, file: &Handle) -> io::Result<()> {
        file.sync().inspect_err(|_| self.broken = true)
    }

    /// Something that a commit promised could not be done.
    pub fn fail(&mut self) {
        self.broken = true;
    }

    /// Whether an entry names so many nodes. Otherwise a checkpoint has to come before it: done again after a crash, what the entries
    /// before it name would take the place of what it does not.
    pub fn names(nodes: usize) -> bool {
        48 * nodes as u64 <= MAX_ENTRY / 2
    }

    /// Writes an entry and brings it to the disk, with all that was written to the file before.
    pub fn commit(&mut self, disk: &Disk, entry: &mut Entry) -> io::Result<()> {
        self.check()?;
        let open = disk.open()?;
        let large = !Journal::names(entry.nodes.len());
        if large || self.leftovers {
            self.sync(&open.tree)?;
            self.leftovers = false;
        }
        if large {
            entry.nodes.clear();
        }
        let bytes = frame(self.number + 1, entry);
        if bytes.len() as u64 > HALF - self.at {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the commit is too large"));
        }
        let start = self.half * HALF + self.at;
        let end = self.at + (bytes.len() as u64).next_multiple_of(PAGE);
        if end + PAGE > self.reserved {
            // Room for one more: on a disk that is full blocks can still be given back. Zeros, and not only
            // reserved: see docs/decisions/0006.
            let reserved = HALF.min(end + end.max(4 * PAGE));
            open.data.write_at(&vec![0; (reserved - self.at) as usize], start)?;
            if self.reserved == 0 {
                // Where a checkpoint goes on.
                open.data.reserve((1 - self.half) * HALF..(1 - self.half) * HALF + PAGE)?;
            }
            self.reserved = reserved;
        }
        open.data.write_at(&bytes, start)?;
        self.sync(&open.data)?;
        self.at = end;
        self.number += 1;
        (self.used, self.cut) = (true, entry.keep.is_some());
        Ok(())
    }

    /// Goes on in the other half, which begins with all that there is to say. What the entries of this half said is durable.
    pub fn turn(&mut self, data: &Handle, record: Record) -> io::Result<()> {
        let entry = Entry { record, keep: None, nodes: Vec::new(), steps: Vec::new() };
        let bytes = frame(self.number + 1, &entry);
        data.write_at(&bytes, (1 - self.half) * HALF)?;
        self.sync(data)?;
        self.half = 1 - self.half;
        self.at = (bytes.len() as u64).next_multiple_of(PAGE);
        self.number += 1;
        (self.used, self.cut, self.reserved) = (false, false, 0);
        Ok(())
    }
}

impl Found {
    /// Leaves the last entry out: the next commit takes its place.
    pub fn drop_last(&mut self) {
        if self.entries.len() > 1 {
            self.entries.pop();
            (self.journal.at, self.journal.number) = (self.last, self.journal.number - 1);
            self.journal.used = self.entries.len() > 1;
        }
    }
}

fn frame(number: u64, entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + HASH + 256 + 48 * entry.nodes.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    entry.encode_to(&mut bytes);
    let len = (bytes.len() - HEADER) as u32;
    bytes[16..HEADER].copy_from_slice(&len.to_le_bytes());
    let hash = blake2b(&[&bytes]);
    bytes.extend_from_slice(&hash);
    paged(&bytes)
}

/// Pages after the first begin with a zero, so that what strangers wrote into an entry is never taken for one.
fn paged(bytes: &[u8]) -> Vec<u8> {
    let (first, rest) = bytes.split_at(bytes.len().min(PAGE as usize));
    let mut paged = first.to_vec();
    for part in rest.chunks(PAGE as usize - 1) {
        paged.push(0);
        paged.extend_from_slice(part);
    }
    paged
}

/// Whether a place where no entry can be read has a commit that is newer than `number` behind it in its half. Then one was
/// there, and to go on without it would take back what was promised.
fn newer_in(data: &Handle, half: u64, from: u64, number: u64) -> io::Result<bool> {
    let mut pages = [0; 2 * PAGE as usize];
    data.read_at(&mut pages[..(HALF - from).min(2 * PAGE) as usize], half * HALF + from)?;
    // Most feeds never need their other half.
    if read(data, half, from)?.is_some() || pages.iter().all(|byte| *byte == 0) {
        return Ok(false);
    }
    for at in (from + PAGE..HALF).step_by(PAGE as usize) {
        // Behind commits come only those of an older use of the half.
        if let Some((found, ..)) = read(data, half, at)? {
            return Ok(found > number);
        }
    }
    Ok(false)
}

/// The entry at a place, with its number and the room that it takes.
fn read(data: &Handle, half: u64, at: u64) -> io::Result<Option<(u64, Entry, u64)>> {
    let mut bytes = vec![0; PAGE.min(HALF - at.min(HALF)) as usize];
    let len = data.read_at(&mut bytes, half * HALF + at)?;
    bytes.truncate(len);
    if bytes.len() < HEADER || bytes[..8] != *MAGIC {
        return Ok(None);
    }
    let number = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
    let length = u32::from_le_bytes(bytes[16..HEADER].try_into().expect("4 bytes"));
    let end = HEADER + length as usize + HASH;
    let end = end + end.saturating_sub(PAGE as usize).div_ceil(PAGE as usize - 1);
    if end as u64 > HALF - at {
        return Ok(None);
    }
    let first = bytes.len();
    bytes.resize(end, 0);
    if first < end {
        let more = data.read_at(&mut bytes[first..], half * HALF + at + first as u64)?;
        bytes.truncate(first + more);
    }
    if bytes.len() != end {
        return Ok(None);
    }
    let pages = bytes.chunks(PAGE as usize).enumerate();
    let bytes: Vec<u8> = pages.flat_map(|(page, bytes)| &bytes[usize::from(page > 0)..]).copied().collect();
    let Some((body, hash)) = bytes.split_last_chunk::<HASH>() else { return Ok(None) };
    if blake2b(&[body]) != *hash {
        return Ok(None);
    }
    let entry = Entry::decode(&mut &body[HEADER..]).ok();
    Ok(entry.map(|entry| (number, entry, (end as u64).next_multiple_of(PAGE))))
}

impl Step {
    /// The same step for one more block, if it goes on where this one ends.
    pub fn extended(self, next: Step) -> Option<Step> {
        match (self, next) {
            (Step::Gained { first, end, offset }, Step::Gained { first: start, end: stop, .. }) if start == end => {
                Some(Step::Gained { first, end: stop, offset })
            }
            (Step::Lost { first, end }, Step::Lost { first: start, end: stop }) if start == end => {
                Some(Step::Lost { first, end: stop })
            }
            _ => None,
        }
    }

    pub fn gained(self) -> Option<Range<u64>> {
        match self {
            Step::Gained { first, end, .. } => Some(first..end),
            Step::Lost { .. } => None,
        }
    }

    /// Blocks that went.
    pub fn lost(&self) -> Option<Range<u64>> {
        match *self {
            Step::Lost { first, end } => Some(first..end),
            Step::Gained { .. } => None,
        }
    }
}

impl Record {
    pub fn new(key: &FeedKey, authors: Option<&Authors>, head: Option<(&Signed, &Roots)>, bytes_here: u64) -> Record {
        let authors = authors.map(|authors| authors.to_wire().map_or_else(Vec::new, |wire| wire.to_vec()));
        let head = head.map(|(head, roots)| RecordedHead {
            fork: head.fork,
            length: roots.length(),
            roots: roots.nodes().iter().map(|node| Root { hash: node.hash, size: node.size }).collect(),
            signature: head.signature.to_vec(),
        });
        Record { key: key.0, authors, head, bytes_here }
    }

    pub fn key(&self) -> FeedKey {
        FeedKey(self.key)
    }

    pub fn length(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.length)
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
