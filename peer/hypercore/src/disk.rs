//! A feed's folder.
//!
//! ```text
//! data     the journal, 4 MiB (see the module `journal`), then the blocks, each at its byte offset in the feed: a range of
//!          blocks is one range of bytes
//! tree     node i of the tree at 44 i: size u64 little endian, hash, CRC-32 of index, size and hash; zeros where there is none
//! have     bit i % 8 of byte i / 8: block i was written and verified
//! secret   the author's seed, 32 bytes, only in the author's store and readable by its user alone
//! conflict two heads that contradict each other, if such were found
//! ```
//!
//! The files are sparse. What `tree` and `have` say is behind the journal: they are written as the system likes and brought to the
//! disk when a half of the journal is full. A node that is torn or damaged counts as not there.

use crate::{
    blocks::{Blocks, PAGE_BYTES},
    feed::Conflict,
    files::{Files, Handle, is_unreadable},
    journal::{DATA_START, Entry, Journal, Record, Step},
    key::Keypair,
};
use codec::{Decode, Encode};
use datdot_proof::{
    flat,
    tree::{Node, blake2b},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

const SLOT_BYTES: usize = 44;
/// What the system reads and writes at once.
const DISK_PAGE: usize = 4096;
/// Largest block that is read: what fits into one frame of the secret stream.
pub(crate) const MAX_STORED: u64 = 1 << 24;
/// Zeros that are written behind an author's blocks. Few in this crate's own tests, whose feeds are small.
const LEAST_AHEAD: u64 = if cfg!(test) { 16 } else { DISK_PAGE as u64 };
const MOST_AHEAD: u64 = 1 << 20;
/// Bytes of `have` that are read at once.
const READ_AT_ONCE: u64 = 64 << 10;
/// More than two heads with their manifest take.
const MAX_CONFLICT: u64 = 1 << 20;

/// The files of a feed.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    files: Files,
    pool: Arc<Pool>,
    place: Arc<Place>,
    /// The feed was removed: what is in the folder from now on is another one's.
    gone: AtomicBool,
}

/// Open files of a feed.
#[derive(Debug)]
pub(crate) struct Open {
    pub data: Handle,
    pub tree: Handle,
}

/// Keeps the files of so many feeds open at a time.
#[derive(Debug)]
pub(crate) struct Pool {
    most: usize,
    places: Mutex<VecDeque<Arc<Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    open: Mutex<Option<Arc<Open>>>,
    used: AtomicBool,
}

/// Whether who reads waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    /// What is not in the system's memory can't be read.
    None,
}

/// What is left of a feed after a restart.
pub(crate) struct Recovered {
    pub journal: Journal,
    pub record: Record,
    pub have: Blocks,
    /// Blocks that `have` on the disk may not show as they are.
    pub changed: Vec<Range<u64>>,
    /// Blocks that were dropped: their bytes may still take room.
    pub dropped: Vec<Range<u64>>,
}

impl Pool {
    pub fn new(most: usize) -> Pool {
        Pool { most, places: Mutex::default() }
    }

    #[cfg(test)]
    pub fn open(&self) -> usize {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().filter(|place| place.open.lock().is_ok_and(|open| open.is_some())).count()
    }

    /// Closes the files that were not used for longest, if they are too many.
    fn add(&self, place: Arc<Place>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.push_back(place);
        while places.len() > self.most
            && let Some(first) = places.pop_front()
        {
            match first.used.swap(false, Ordering::Relaxed) {
                true => places.push_back(first),
                false => first.close(),
            }
        }
    }
}

impl Place {
    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.place.close();
    }
}

impl Disk {
    pub fn new(dir: &Path, files: Files, pool: Arc<Pool>) -> Disk {
        Disk { dir: dir.to_owned(), files, pool, place: Arc::default(), gone: AtomicBool::new(false) }
    }

    /// Makes the files of a new feed in a folder that is there.
    pub fn create(&self, record: Record) -> io::Result<()> {
        let open = self.open()?;
        open.tree.set_len(0)?;
        self.have()?.set_len(0)?;
        Journal::create(&open.data, record)?;
        self.files.sync_dir(&self.dir)
    }

    /// Lets go of the files, and returns their folder.
    pub fn leave(&self) -> &Path {
        self.gone.store(true, Ordering::Release);
        self.place.close();
        &self.dir
    }

    pub fn data_path(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Blocks and tree, opened if they aren't.
    pub fn open(&self) -> io::Result<Arc<Open>> {
        let mut place = self.place.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gone.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.place.used.store(true, Ordering::Relaxed);
        if let Some(open) = &*place {
            return Ok(open.clone());
        }
        let file = |name| self.files.open(&self.dir.join(name), true);
        let open = Arc::new(Open { data: file("data")?, tree: file("tree")? });
        *place = Some(open.clone());
        drop(place);
        self.pool.add(self.place.clone());
        Ok(open)
    }

    /// The same, if they are.
    fn opened(&self) -> io::Result<Arc<Open>> {
        let place = self.place.open.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        self.place.used.store(true, Ordering::Relaxed);
        place.clone().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn have(&self) -> io::Result<Handle> {
        self.files.open(&self.dir.join("have"), true)
    }

    /// The node as it is stored; the end of the file counts as zeros, and so does a node that is damaged or can't be read.
    pub fn node(&self, index: u64, patience: Patience) -> io::Result<Option<Node>> {
        match self.readable_node(index, patience) {
            Err(error) if is_unreadable(&error) => Ok(None),
            node => node,
        }
    }

    fn readable_node(&self, index: u64, patience: Patience) -> io::Result<Option<Node>> {
        let mut slot = [0; SLOT_BYTES];
        let Some(at) = index.checked_mul(SLOT_BYTES as u64) else { return Ok(None) };
        match patience {
            Patience::None => self.opened()?.tree.read_now(&mut slot, at)?,
            // Behind the end there are zeros.
            Patience::Waits => _ = self.open()?.tree.read_at(&mut slot, at)?,
        }
        Ok(from_slot(index, &slot))
    }

    /// Writes nodes, neighbours at once. Of several for one place the last one counts.
    pub fn write_nodes(&self, nodes: &[Node]) -> io::Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let open = self.open()?;
        let mut sorted: Vec<&Node> = nodes.iter().collect();
        sorted.sort_by_key(|node| node.index);
        sorted.dedup_by(|later, kept| {
            let again = later.index == kept.index;
            if again {
                *kept = *later;
            }
            again
        });
        for run in sorted.chunk_by(|one, next| one.index + 1 == next.index) {
            let slots: Vec<u8> = run.iter().flat_map(|node| to_slot(node)).collect();
            write_over(&open.tree, &slots, run[0].index * SLOT_BYTES as u64)?;
        }
        Ok(())
    }

    /// Sees to it that there is room for nodes.
    pub fn reserve_nodes(&self, nodes: &[Node]) -> io::Result<()> {
        let open = self.open()?;
        // One by one: between siblings high up the tree there may be terabytes.
        let slot = |node: &Node| node.index * SLOT_BYTES as u64..(node.index + 1) * SLOT_BYTES as u64;
        nodes.iter().try_for_each(|node| open.tree.reserve(slot(node)))
    }

    /// Forgets a node. Zeros are none already: to write them behind the end, or into a hole, would need room.
    pub fn forget_node(&self, index: u64) -> io::Result<()> {
        let (open, at, mut slot) = (self.open()?, index * SLOT_BYTES as u64, [0; SLOT_BYTES]);
        let len = match open.tree.read_at(&mut slot, at) {
            Err(error) if is_unreadable(&error) => return write_over(&open.tree, &[0; SLOT_BYTES], at),
            len => len?,
        };
        if slot == [0; SLOT_BYTES] { Ok(()) } else { open.tree.write_at(&[0; SLOT_BYTES][..len], at) }
    }

    pub fn read(&self, at: u64, len: usize, patience: Patience) -> io::Result<Vec<u8>> {
        let start = DATA_START.checked_add(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; len];
        match patience {
            Patience::None => self.opened()?.data.read_now(&mut bytes, start)?,
            Patience::Waits => self.open()?.data.read_exact_at(&mut bytes, start)?,
        }
        Ok(bytes)
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let start = DATA_START.checked_add(at).ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.is_empty() { Ok(()) } else { write_over(&self.open()?.data, bytes, start) }
    }

    /// Has the disk begin with what was written there: it will be synced in a moment, and takes less time then.
    pub fn begin_sync(&self, bytes: Range<u64>) {
        if let Ok(open) = self.open() {
            open.data.begin_sync(DATA_START.saturating_add(bytes.start)..DATA_START.saturating_add(bytes.end));
        }
    }

    /// If the file ends with the blocks, goes on with zeros: as long as they last, a sync has only bytes to write, no new size and
    /// place of them. A quarter of the feed, 1 MiB at most; none if that is less than a page, or the `batch` that was just written.
    pub fn go_ahead(&self, end: u64, batch: u64) {
        let zeros = (end / 4).min(MOST_AHEAD);
        let Ok(open) = self.open() else { return };
        let start = DATA_START.saturating_add(end);
        if zeros < batch.max(LEAST_AHEAD) || !open.data.len().is_ok_and(|len| len == start) {
            return;
        }
        // A full disk has none for what can be done without.
        if open.data.write_at(&vec![0; zeros as usize], start).is_err() {
            _ = open.data.set_len(start);
        }
    }

    /// Gives the room of bytes back. Where the file system can't do that, they stay.
    pub fn give_back(&self, bytes: Range<u64>) -> io::Result<()> {
        self.open()?.data.give_back(DATA_START.saturating_add(bytes.start)..DATA_START.saturating_add(bytes.end))
    }

    /// Makes the files `tree` and `have` durable; then the journal begins anew, with this record.
    pub fn checkpoint(
        &self,
        journal: &mut Journal,
        record: Record,
        pages: &[(u64, [u8; PAGE_BYTES])],
    ) -> io::Result<()> {
        journal.check()?;
        let open = self.open()?;
        let have = self.have()?;
        pages.iter().try_for_each(|(page, bits)| have.write_at(bits, page * PAGE_BYTES as u64))?;
        journal.sync(&open.tree)?;
        journal.sync(&have)?;
        journal.turn(&open.data, record)
    }

    /// What the files say, after a crash at any moment too; nothing if the journal is damaged.
    pub fn recover(&self) -> io::Result<Option<Recovered>> {
        // Not kept open: a store may have many feeds of which few are used.
        let data = self.files.open(&self.dir.join("data"), true)?;
        let Some(mut found) = Journal::find(&data)? else { return Ok(None) };
        let mut have = self.read_have()?;
        let (last, before) = found.entries.split_last().expect("the first entry is there");
        let mut changed = Vec::new();
        // Nodes that it cuts would only need room. Blocks that come with a cut are none.
        let keep = last.keep.unwrap_or(u64::MAX);
        for entry in before {
            self.redo(entry, keep, &mut have, &mut changed)?;
        }
        // The last one counts if all that it names is there.
        let is_there = || match self.is_there(last) {
            // What others wrote can be fetched again; an author must not sign something else in its place.
            Err(error) if is_unreadable(&error) && self.read_secret()?.is_none() => Ok(false),
            there => there,
        };
        match before.is_empty() || is_there()? {
            true => self.redo(last, u64::MAX, &mut have, &mut changed)?,
            false => found.drop_last(),
        }
        let steps = found.entries.iter().flat_map(|entry| &entry.steps);
        let dropped = steps.filter_map(Step::lost).collect();
        let record = found.entries.pop().expect("the first entry is there").record;
        let length = record.length();
        // What an append that was cut off left would be in the way of a later one.
        have.remove_range(length..u64::MAX);
        self.cut_beyond(length)?;
        if found.journal.is_used() {
            // What is told from now on stays, also if it was read from the system's memory.
            data.sync()?;
        }
        Ok(Some(Recovered { journal: found.journal, record, have, changed, dropped }))
    }

    /// Does again what an entry says, as far as it is about the first `length` blocks.
    fn redo(&self, entry: &Entry, length: u64, have: &mut Blocks, changed: &mut Vec<Range<u64>>) -> io::Result<()> {
        if let Some(keep) = entry.keep {
            self.cut_tree(keep)?;
            if let Some(end) = have.end().filter(|end| *end > keep) {
                have.remove_range(keep..end);
                changed.push(keep..end);
            }
        }
        let mut nodes = nodes_of(entry);
        nodes.retain(|node| flat::end_block(node.index) <= length);
        self.write_nodes(&nodes)?;
        for step in &entry.steps {
            match *step {
                Step::Gained { first, end, .. } => {
                    have.insert_range(first..end);
                    changed.push(first..end);
                }
                Step::Lost { first, end } => {
                    have.remove_range(first..end);
                    changed.push(first..end);
                }
            }
        }
        Ok(())
    }

    /// Whether all blocks that an entry leaves here are as it says.
    fn is_there(&self, entry: &Entry) -> io::Result<bool> {
        let nodes: BTreeMap<u64, Node> = nodes_of(entry).into_iter().map(|node| (node.index, node)).collect();
        let mut left = Blocks::default();
        for step in &entry.steps {
            match *step {
                Step::Gained { first, end, .. } => left.insert_range(first..end),
                Step::Lost { first, end } => left.remove_range(first..end),
            }
        }
        for step in &entry.steps {
            let Step::Gained { first, end, mut offset } = *step else { continue };
            for block in first..end {
                let index = flat::leaf(block);
                let leaf = match nodes.get(&index) {
                    Some(leaf) => Some(*leaf),
                    None => self.readable_node(index, Patience::Waits)?,
                };
                let Some(leaf) = leaf.filter(|leaf| leaf.size <= MAX_STORED) else {
                    // A leaf that was forgotten again goes with its blocks.
                    match left.count_in(block..end) {
                        0 => break,
                        _ => return Ok(false),
                    }
                };
                if left.contains(block) && !self.has_block(block, offset, &leaf)? {
                    return Ok(false);
                }
                offset = offset.saturating_add(leaf.size);
            }
        }
        Ok(true)
    }

    fn has_block(&self, block: u64, offset: u64, leaf: &Node) -> io::Result<bool> {
        match self.read(offset, leaf.size as usize, Patience::Waits) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            bytes => Ok(Node::leaf(block, &bytes?) == *leaf),
        }
    }

    fn read_have(&self) -> io::Result<Blocks> {
        let mut blocks = Blocks::default();
        let have = self.have()?;
        let mut buffer = vec![0; have.len()?.min(READ_AT_ONCE) as usize];
        let mut at = 0;
        // A tree of invented nodes has room for a block that is gigabytes behind all others in this file: what is between is not
        // read.
        while let Some(start) = have.next_data(at)?.map(|start| start / 8 * 8) {
            let len = have.read_at(&mut buffer, start)?;
            if len == 0 {
                break;
            }
            blocks.add_bits(start * 8, &buffer[..len]);
            at = start + len as u64;
        }
        Ok(blocks)
    }

    /// Forgets, for good, what comes after the nodes of the first `length` blocks: it was never promised.
    pub fn cut_beyond(&self, length: u64) -> io::Result<()> {
        let end = node_end(length)?;
        if self.files.len(&self.dir.join("tree"))? > end {
            let tree = &self.open()?.tree;
            tree.set_len(end)?;
            tree.sync()?;
        }
        Ok(())
    }

    /// Forgets all nodes that are not within the first `length` blocks.
    pub fn cut_tree(&self, length: u64) -> io::Result<()> {
        let open = self.open()?;
        let end = node_end(length)?;
        if open.tree.len()? > end {
            open.tree.set_len(end)?;
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

    pub fn write_conflict(&self, conflict: &Conflict) -> io::Result<()> {
        let bytes = conflict.encode();
        self.files.replace(&self.dir, "conflict", &[&bytes[..], &blake2b(&[&bytes])].concat())
    }

    pub fn read_conflict(&self) -> io::Result<Option<Conflict>> {
        let Some(bytes) = self.files.read(&self.dir.join("conflict"), MAX_CONFLICT)? else { return Ok(None) };
        let body = bytes.split_last_chunk::<32>().filter(|(body, hash)| **hash == blake2b(&[body]));
        Ok(body.and_then(|(mut body, _)| Conflict::decode(&mut body).ok()))
    }

    pub fn read_secret(&self) -> io::Result<Option<Keypair>> {
        let Some(seed) = self.files.read(&self.dir.join("secret"), 33)? else { return Ok(None) };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the file `secret` has not 32 bytes");
        Ok(Some(Keypair::from_seed(seed.try_into().map_err(|_| wrong())?)))
    }

    pub fn write_secret(&self, keypair: &Keypair) -> io::Result<()> {
        self.files.replace(&self.dir, "secret", &keypair.seed())
    }
}

/// Writes, also where the disk can't be read: there the system can't write a part of a page.
fn write_over(file: &Handle, bytes: &[u8], at: u64) -> io::Result<()> {
    /// One at a time, so that nobody blanks what another one has just written.
    static BLANKING: Mutex<()> = Mutex::new(());
    match file.write_at(bytes, at) {
        Err(error) if is_unreadable(&error) => {}
        written => return written,
    }
    let _blanking = BLANKING.lock().unwrap_or_else(PoisonError::into_inner);
    // Those between are written whole. What else was in them is lost already.
    for page in [at, at + bytes.len() as u64 - 1].map(|at| at / DISK_PAGE as u64 * DISK_PAGE as u64) {
        match file.read_at(&mut [0; DISK_PAGE], page) {
            Err(error) if is_unreadable(&error) => file.write_at(&[0; DISK_PAGE], page)?,
            read => _ = read?,
        }
    }
    file.write_at(bytes, at)
}

fn nodes_of(entry: &Entry) -> Vec<Node> {
    entry.nodes.iter().map(|&(index, size, hash)| Node { index, size, hash }).collect()
}

/// Where the nodes of so many blocks end in the file.
fn node_end(length: u64) -> io::Result<u64> {
    let end = length.checked_mul(2 * SLOT_BYTES as u64);
    end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a feed can't have that many blocks"))
}

fn to_slot(node: &Node) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&node.size.to_le_bytes());
    slot[8..40].copy_from_slice(&node.hash);
    let sum = checksum(node.index, &slot[..40]);
    slot[40..].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn from_slot(index: u64, slot: &[u8; SLOT_BYTES]) -> Option<Node> {
    let (node, sum) = slot.split_last_chunk::<4>()?;
    let (size, hash) = node.split_first_chunk::<8>()?;
    let hash: [u8; 32] = hash.try_into().ok()?;
    let whole = hash != [0; 32] && *sum == checksum(index, node).to_le_bytes();
    whole.then(|| Node { index, size: u64::from_le_bytes(*size), hash })
}

fn checksum(index: u64, node: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(node);
    hasher.finalize()
}
