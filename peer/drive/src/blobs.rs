//! The contents of a drive's files: runs of blocks in a feed of their own, as npm's `hyperblobs` lays them out.
//!
//! A content is written in blocks of 64 KiB; other writers cut otherwise, so a place is never computed from a size. One that
//! was deduplicated is a list of blocks in any order, which is in the feed itself:
//!
//! ```text
//! block map    version 0 │ count │ ( block │ bytes )*      integers are compact; at most 8,192 entries, then another block
//! ```

use crate::entry::Blob;
use bytes::Bytes;
use datdot_hypercore::{Feed, FeedError, View};
use datdot_proof::tree::Node;
use datdot_wire::encoding::{DecodeError, Reader};
use std::{
    fmt,
    io::{self, Read},
    ops::Range,
};

/// Bytes of a block that is written.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes that are gathered for one append: each is a signature and waits for the disk.
const APPEND_BYTES: u64 = 4 << 20;
/// Blocks of a block map; JavaScript reads no more.
const MAX_MAP_BLOCKS: u64 = 64;
/// Entries of a whole block map: what [`MAX_MAP_BLOCKS`] blocks of JavaScript have.
const MAX_MAP_ENTRIES: usize = 64 * 8192;

/// The blocks of a content, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One after the other.
    Run {
        /// The blocks.
        blocks: Range<u64>,
        /// Bytes of all together.
        bytes: u64,
    },
    /// As a block map lists them.
    List {
        /// Blocks, each with its bytes.
        blocks: Vec<(u64, u64)>,
        /// Bytes of all together.
        bytes: u64,
    },
}

/// Why a content can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A block can't be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The metadata tells of blocks that no feed can have.
    #[error("its place in the blobs feed is impossible")]
    Place,
    /// The blocks have other sizes than the metadata or the block map says.
    #[error("its blocks have not the size that the metadata tells")]
    Size,
    /// It is larger than the caller allows.
    #[error("it has {bytes} bytes, more than the {max} that are allowed")]
    TooLarge {
        /// Bytes of the content.
        bytes: u64,
        /// The caller's bound.
        max: u64,
    },
    /// The list of its blocks can't be understood.
    #[error("its block map is damaged: {0}")]
    Map(DecodeError),
}

impl Layout {
    /// Where the blocks of a content are. To know that of a deduplicated one takes its block map, so that has to be here.
    pub fn of(feed: impl Into<View>, blob: &Blob) -> Result<Layout, BlobError> {
        let end = blob.block_offset.checked_add(blob.block_length).ok_or(BlobError::Place)?;
        let run = blob.block_offset..end;
        if !blob.block_map {
            return Ok(Layout::Run { blocks: run, bytes: blob.byte_length });
        }
        if blob.block_length > MAX_MAP_BLOCKS {
            return Err(BlobError::Place);
        }
        let (feed, mut blocks) = (feed.into(), Vec::new());
        for number in run {
            read_map(&feed.read(number)?, &mut blocks).map_err(BlobError::Map)?;
        }
        let bytes = blocks.iter().try_fold(0u64, |sum, (_, bytes)| sum.checked_add(*bytes)).ok_or(BlobError::Size)?;
        Ok(Layout::List { blocks, bytes })
    }

    /// Bytes of the content.
    pub fn bytes(&self) -> u64 {
        let (Layout::Run { bytes, .. } | Layout::List { bytes, .. }) = self;
        *bytes
    }

    /// The blocks, those that follow each other together.
    pub fn runs(&self) -> Vec<Range<u64>> {
        match self {
            Layout::Run { blocks, .. } => vec![blocks.clone()],
            Layout::List { blocks, .. } => {
                let mut runs: Vec<Range<u64>> = Vec::new();
                for (block, _) in blocks {
                    match runs.last_mut() {
                        Some(run) if run.end == *block => run.end += 1,
                        _ => runs.push(*block..block.saturating_add(1)),
                    }
                }
                runs
            }
        }
    }

    /// Block `at` of the content, with its size if that is known.
    fn get(&self, at: u64) -> Option<(u64, Option<u64>)> {
        match self {
            Layout::Run { blocks, .. } => {
                blocks.start.checked_add(at).filter(|block| *block < blocks.end).map(|block| (block, None))
            }
            Layout::List { blocks, .. } => {
                let (block, bytes) = blocks.get(usize::try_from(at).ok()?)?;
                Some((*block, Some(*bytes)))
            }
        }
    }

    /// Whether a stream has exactly this content. Only the feed's tree is read, unless it is over encrypted blocks.
    pub fn is_same(&self, feed: impl Into<View>, content: &mut impl Read) -> Result<bool, StreamError> {
        let view = feed.into();
        if view.is_decrypted() {
            return self.reads_as(view, content);
        }
        let feed = view.feed();
        let mut left = self.bytes();
        let mut buffer = Vec::new();
        for at in 0.. {
            let Some((block, _)) = self.get(at) else { break };
            let Some(leaf) = feed.node(block.saturating_mul(2)).map_err(StreamError::Feed)? else { return Ok(false) };
            if leaf.size > left || leaf.size > datdot_hypercore::feed::MAX_BLOCK as u64 {
                return Ok(false);
            }
            left -= leaf.size;
            buffer.resize(leaf.size as usize, 0);
            if read_full(content, &mut buffer).map_err(StreamError::Read)? < buffer.len()
                || Node::leaf(block, &buffer).hash != leaf.hash
            {
                return Ok(false);
            }
        }
        Ok(left == 0 && read_full(content, &mut [0]).map_err(StreamError::Read)? == 0)
    }
}

impl Layout {
    fn reads_as(&self, view: View, content: &mut impl Read) -> Result<bool, StreamError> {
        let mut buffer = Vec::new();
        for block in Reading::new(&view, self.clone()) {
            // What can't be read is not the same.
            let Ok(block) = block else { return Ok(false) };
            buffer.resize(block.len(), 0);
            if read_full(content, &mut buffer).map_err(StreamError::Read)? < buffer.len() || buffer != block {
                return Ok(false);
            }
        }
        Ok(read_full(content, &mut [0]).map_err(StreamError::Read)? == 0)
    }
}

/// What failed while a stream was compared with a content or added as one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed.
    #[error(transparent)]
    Read(io::Error),
    /// The feed failed.
    #[error(transparent)]
    Feed(FeedError),
}

fn read_map(block: &[u8], blocks: &mut Vec<(u64, u64)>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(block);
    if reader.uint()? != 0 {
        return Err(DecodeError::Invalid("version"));
    }
    let count = reader.uint()?;
    let room = MAX_MAP_ENTRIES - blocks.len();
    if count > room as u64 {
        return Err(DecodeError::TooMany { count, max: room });
    }
    // An entry has two bytes at least.
    blocks.reserve((count as usize).min(reader.remaining() / 2));
    for _ in 0..count {
        let entry = (reader.uint()?, reader.uint()?);
        // A content without bytes has no blocks: such entries would only cost time and memory.
        if entry.1 == 0 {
            return Err(DecodeError::Invalid("size"));
        }
        blocks.push(entry);
    }
    Ok(())
}

/// The blocks of a content, one after the other, verified.
///
/// After [`FeedError::NotHere`] the next call asks for the same block again.
#[derive(Debug)]
pub struct Reading {
    feed: View,
    layout: Layout,
    at: u64,
    left: u64,
    failed: bool,
}

impl Reading {
    /// Reads a content from its start.
    pub fn new(feed: impl Into<View>, layout: Layout) -> Reading {
        let left = layout.bytes();
        Reading { feed: feed.into(), layout, at: 0, left, failed: false }
    }

    /// The rest of the content at once. The caller has bounded [`Layout::bytes`].
    pub fn into_vec(self) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        for block in self {
            bytes.extend_from_slice(&block?);
        }
        Ok(bytes)
    }
}

impl Iterator for Reading {
    type Item = Result<Bytes, BlobError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.failed { None } else { self.layout.get(self.at) };
        let Some((number, bytes)) = next else {
            let short = self.left > 0 && !std::mem::replace(&mut self.failed, true);
            return short.then_some(Err(BlobError::Size));
        };
        let block = match self.feed.read(number) {
            Ok(block) => block,
            Err(error) => return Some(Err(error.into())),
        };
        let len = block.len() as u64;
        if len > self.left || bytes.is_some_and(|bytes| bytes != len) {
            self.failed = true;
            return Some(Err(BlobError::Size));
        }
        self.at += 1;
        self.left -= len;
        Some(Ok(block))
    }
}

/// Adds contents to a feed. Nothing is there before [`Writing::flush`].
pub struct Writing {
    feed: Feed,
    /// Blocks and bytes of the feed, those that wait included.
    length: u64,
    bytes: u64,
    waiting: Vec<Bytes>,
    waiting_bytes: u64,
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Writing { feed, length, bytes, .. } = self;
        let mut figures = f.debug_struct("Writing");
        figures.field("feed", feed).field("length", length).field("bytes", bytes).finish_non_exhaustive()
    }
}

impl Writing {
    /// Writes at the end of a feed. If somebody else appends to it meanwhile, it fails with [`FeedError::Moved`].
    pub fn new(feed: Feed) -> Writing {
        let info = feed.info();
        Writing { feed, length: info.length, bytes: info.bytes, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Adds what a stream has.
    pub fn add(&mut self, content: &mut impl Read) -> Result<Blob, StreamError> {
        self.add_rest(self.length, self.bytes, content)
    }

    /// Adds the rest of a content that begins at this block and byte of the feed and goes on to its end so far.
    pub(crate) fn add_rest(
        &mut self,
        block_offset: u64,
        byte_offset: u64,
        content: &mut impl Read,
    ) -> Result<Blob, StreamError> {
        loop {
            let mut block = vec![0; BLOCK_BYTES];
            let len = read_full(content, &mut block).map_err(StreamError::Read)?;
            block.truncate(len);
            if len > 0 {
                self.length += 1;
                self.bytes += len as u64;
                self.waiting_bytes += len as u64;
                self.waiting.push(block.into());
            }
            if self.waiting_bytes >= APPEND_BYTES {
                self.flush().map_err(StreamError::Feed)?;
            }
            if len < BLOCK_BYTES {
                break;
            }
        }
        let (block_length, byte_length) = (self.length - block_offset, self.bytes - byte_offset);
        Ok(Blob { block_offset, byte_offset, block_length, byte_length, block_map: false })
    }

    /// Blocks of the feed, those that wait included.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends what waits; it is on the disk then.
    pub fn flush(&mut self) -> Result<(), FeedError> {
        self.waiting_bytes = 0;
        let blocks = std::mem::take(&mut self.waiting);
        self.feed.write_at(self.length - blocks.len() as u64, &blocks).map(drop)
    }
}

/// Fills the buffer as far as the stream goes.
pub(crate) fn read_full(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match stream.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_hypercore::{Keypair, Store};
    use proptest::prelude::*;

    fn feed(dir: &std::path::Path) -> Feed {
        Store::open(dir).unwrap().create(&Keypair::from_seed([1; 32])).unwrap()
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 251 + i) as u8).collect()
    }

    #[test]
    fn of_two_who_write_to_a_feed_at_once_the_second_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let feed = feed(dir.path());
        let (mut one, mut other) = (Writing::new(feed.clone()), Writing::new(feed.clone()));
        other.add(&mut &content(3)[..]).unwrap();
        let blob = one.add(&mut &content(5)[..]).unwrap();
        one.flush().unwrap();
        assert!(matches!(other.flush(), Err(FeedError::Moved { length: 1 })));
        let read = Reading::new(&feed, Layout::of(&feed, &blob).unwrap()).into_vec().unwrap();
        assert_eq!(read, content(5));
    }

    #[test]
    fn contents_of_any_size_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let feed = feed(dir.path());
        let mut writing = Writing::new(feed.clone());
        let sizes = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 0, 5 << 20, 3];
        let blobs: Vec<_> = sizes.iter().map(|&len| writing.add(&mut &content(len)[..]).unwrap()).collect();
        writing.flush().unwrap();
        for (len, blob) in sizes.into_iter().zip(&blobs) {
            assert_eq!(blob.byte_length, len as u64);
            let layout = Layout::of(&feed, blob).unwrap();
            assert!(layout.is_same(&feed, &mut &content(len)[..]).unwrap());
            assert!(!layout.is_same(&feed, &mut &content(len + 1)[..]).unwrap());
            let read = Reading::new(&feed, layout).into_vec().unwrap();
            assert!(read == content(len), "{len} bytes");
        }
        let mut changed = content(5 << 20);
        changed[3 << 20] ^= 1;
        assert!(!Layout::of(&feed, &blobs[6]).unwrap().is_same(&feed, &mut &changed[..]).unwrap());
    }

    #[test]
    fn a_block_map_is_followed_and_must_be_true() {
        let dir = tempfile::tempdir().unwrap();
        let feed = feed(dir.path());
        let blocks = ["aa", "bbb", "c"].map(Bytes::from);
        feed.write(&blocks).unwrap();
        feed.write(&[vec![0, 3, 1, 3, 0, 2, 1, 3].into(), vec![0, 1, 0, 3].into()]).unwrap();
        let map =
            |block_offset| Blob { block_offset, byte_offset: 6, block_length: 1, byte_length: 8, block_map: true };
        let layout = Layout::of(&feed, &map(3)).unwrap();
        assert_eq!((layout.bytes(), layout.runs()), (8, vec![1..2, 0..2]));
        assert!(layout.is_same(&feed, &mut &b"bbbaabbb"[..]).unwrap());
        assert_eq!(Reading::new(&feed, layout).into_vec().unwrap(), b"bbbaabbb");
        // A size that is not the block's.
        let layout = Layout::of(&feed, &map(4)).unwrap();
        assert!(matches!(Reading::new(&feed, layout).into_vec(), Err(BlobError::Size)));
        // A list that costs nothing to be long, and a block that is no list.
        feed.write(&[vec![0, 2, 1, 3, 0, 0].into()]).unwrap();
        assert!(matches!(Layout::of(&feed, &map(5)), Err(BlobError::Map(DecodeError::Invalid("size")))));
        assert!(matches!(Layout::of(&feed, &map(0)), Err(BlobError::Map(_))));
        let endless = Blob { block_offset: u64::MAX, ..map(3) };
        assert!(matches!(Layout::of(&feed, &endless), Err(BlobError::Place)));
        let large = Blob { block_length: 65, ..map(0) };
        assert!(matches!(Layout::of(&feed, &large), Err(BlobError::Place)));
    }

    #[test]
    fn a_size_that_is_not_true_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let feed = feed(dir.path());
        feed.write(&["aa", "bbb"].map(Bytes::from)).unwrap();
        for (blocks, bytes) in [(0..2, 4), (0..2, 6), (0..0, 1)] {
            let mut reading = Reading::new(&feed, Layout::Run { blocks, bytes });
            let error = reading.find_map(Result::err);
            assert!(matches!(error, Some(BlobError::Size)));
            assert!(reading.next().is_none());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_block_map_or_refused(block in any::<Vec<u8>>(), count in any::<u64>()) {
            let mut blocks = Vec::new();
            _ = read_map(&block, &mut blocks);
            let announced = [&[0, 0xff][..], &count.to_le_bytes(), &block].concat();
            _ = read_map(&announced, &mut blocks);
            prop_assert!(blocks.capacity() <= 2 * block.len() + 64);
        }
    }
}
