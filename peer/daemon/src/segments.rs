//! Segments on disk: the bytes of a feed, and beside them the outboard of each segment, for proofs.
//!
//! ```text
//! <feed's folder>/data                      from byte DATA_START on the blocks, each at its offset
//! <feed's folder>/segment-ROOT.outboard     hashes over the first bytes of the blocks, down to 16 KiB
//! ```
//!
//! A proof reads one group of 16 KiB and at most four runs of hashes for each of its chunks, whatever the segment's
//! size; the chunks are read side by side, as a disk likes it. An outboard is written under another name and renamed when its root is right, so one that is there is whole.

use datdot_hypercore::{Feed, feed::DATA_START};
use datdot_proof::{
    Hash,
    challenge::Position,
    opening::Source,
    outboard::{Builder, Layout},
    proof::{CannotProve, Proof},
    segment::Segment,
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    panic,
    path::{Path, PathBuf},
    slice, thread,
};
use tempfile::NamedTempFile;

/// Bytes that are read at a time while a segment is hashed.
const READ_BYTES: usize = 1 << 20;
/// An outboard's name begins and ends so until its root is known.
const NEW_BEGINS: &str = "segment";
const NEW_ENDS: &str = ".new";

/// Asked after each piece; an error ends the work.
pub type GoesOn<'a> = dyn Fn() -> io::Result<()> + 'a;

/// Where a segment of a feed is kept.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file with the bytes.
    pub data: PathBuf,
    /// The file with the outboard.
    pub outboard: PathBuf,
}

/// A segment's files, open for reading.
#[derive(Debug)]
pub struct Open {
    data: File,
    outboard: Option<File>,
}

/// What hashing gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// The root that was expected; its outboard is on disk.
    Whole,
    /// Another root.
    Mismatch(Hash),
}

impl Place {
    /// The place of a segment with this root.
    pub fn of(feed: &Feed, root: &Hash) -> Self {
        let data = feed.data_path();
        let outboard = data.with_file_name(format!("segment-{}.outboard", hex::encode(root)));
        Self { data, outboard }
    }

    /// Whether the outboard is there, with the size that the segment's has.
    pub fn has_outboard(&self, segment: &Segment) -> bool {
        let wanted = Layout::of(segment.bytes).map(|layout| layout.outboard_bytes());
        fs::metadata(&self.outboard).is_ok_and(|file| Some(file.len()) == wanted)
    }

    /// Hashes the segment and keeps its outboard if the root is right.
    pub fn hash(&self, segment: &Segment, goes_on: &GoesOn) -> io::Result<Hashed> {
        let (new, root) = write_outboard(&self.data, segment.bytes, goes_on)?;
        if root != segment.root {
            return Ok(Hashed::Mismatch(root));
        }
        new.persist(&self.outboard)?;
        Ok(Hashed::Whole)
    }

    /// Opens the segment to make a proof.
    pub fn open(&self) -> io::Result<Open> {
        let outboard = match File::open(&self.outboard) {
            // A segment of one group needs none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        Ok(Open { data: File::open(&self.data)?, outboard })
    }
}

/// Hashes the first `bytes` of a feed and keeps the outboard under the root that comes out.
pub fn root_of(feed: &Feed, bytes: u64, goes_on: &GoesOn) -> io::Result<Hash> {
    let (new, root) = write_outboard(&feed.data_path(), bytes, goes_on)?;
    new.persist(Place::of(feed, &root).outboard)?;
    Ok(root)
}

/// Removes what a daemon that was killed had written of a feed's outboards. Nobody may be writing one.
pub fn remove_leftovers(feed: &Feed) -> io::Result<()> {
    let data = feed.data_path();
    for entry in data.parent().map_or(Ok(None), |dir| dir.read_dir().map(Some))?.into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(NEW_BEGINS) && name.ends_with(NEW_ENDS)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Answers a challenge as [`Proof::make`] does, with a thread for each position: cold, its time is the disk's latency.
pub fn prove(
    positions: &[Position],
    open: impl Fn(&Position) -> io::Result<Open> + Sync,
) -> Result<Proof, CannotProve<io::Error>> {
    let one = |at| Proof::make(slice::from_ref(at), &open);
    thread::scope(|scope| {
        let making: Vec<_> = positions.iter().map(|at| scope.spawn(move || one(at))).collect();
        let mut openings = Vec::with_capacity(positions.len());
        for made in making {
            openings.append(&mut made.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?.openings);
        }
        Ok(Proof { openings })
    })
}

/// Writes an outboard under a name of its own: two requests may hash one feed at the same time. It goes if it gets no other name.
fn write_outboard(data: &Path, bytes: u64, goes_on: &GoesOn) -> io::Result<(NamedTempFile, Hash)> {
    let beside = data.parent().unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(NEW_BEGINS).suffix(NEW_ENDS).tempfile_in(beside)?;
    let (data, to) = (File::open(data)?, new.as_file());
    let no_segment = || io::Error::new(io::ErrorKind::InvalidInput, format!("a segment can't have {bytes} bytes"));
    let mut builder = Builder::new(bytes).ok_or_else(no_segment)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < bytes {
        goes_on()?;
        let piece = &mut buffer[..READ_BYTES.min((bytes - at) as usize)];
        data.read_exact_at(piece, DATA_START + at)?;
        for hashes in builder.update(piece).map_err(io::Error::other)? {
            to.write_all_at(&hashes.bytes, hashes.offset)?;
        }
        at += piece.len() as u64;
    }
    to.sync_all()?;
    let root = builder.finish().map_err(io::Error::other)?;
    Ok((new, root))
}

impl Source for Open {
    type Error = io::Error;

    fn content(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.data.read_exact_at(buffer, DATA_START.saturating_add(offset))
    }

    fn outboard(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the outboard of the segment is missing");
        self.outboard.as_ref().ok_or_else(missing)?.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use datdot_hypercore::{Keypair, Store};
    use datdot_proof::{
        challenge::{DRAWS, Holding, positions},
        opening::MakeError,
    };

    async fn feed(store: &Store, bytes: usize) -> (Feed, Vec<u8>) {
        let feed = store.create(&Keypair::from_seed([5; 32])).unwrap();
        let content: Vec<_> = (0..bytes).map(|at| (at / 7) as u8).collect();
        feed.append(content.chunks(64 << 10).map(Bytes::copy_from_slice).collect()).await.unwrap();
        (feed, content)
    }

    #[tokio::test]
    async fn the_root_is_what_b3sum_says_and_a_proof_comes_from_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for bytes in [1, 16 << 10, (16 << 10) + 1, 3 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let (feed, content) = feed(&store, bytes).await;
            let root = root_of(&feed, bytes as u64, &|| Ok(())).unwrap();
            let segment = Segment { bytes: bytes as u64, root };
            assert_eq!(root, datdot_proof::outboard::build(&content).unwrap().0);
            let place = Place::of(&feed, &root);
            assert!(place.has_outboard(&segment));
            let positions = positions(&[7; 32], &[Holding { pay: 1, segments: &[segment] }], DRAWS);
            let proof = prove(&positions, |_| place.open()).unwrap();
            assert_eq!(proof.check(&positions), Ok(()));
        }
        drop(store);
    }

    #[tokio::test]
    async fn two_may_hash_one_feed_at_once_and_what_a_killed_one_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (feed, _) = feed(&store, 3 << 20).await;
        // The first one has begun when the second one begins and ends.
        let second = std::cell::OnceCell::new();
        let root = root_of(&feed, 3 << 20, &|| {
            second.get_or_init(|| root_of(&feed, 1 << 20, &|| Ok(())).unwrap());
            Ok(())
        });
        let second = Segment { bytes: 1 << 20, root: *second.get().unwrap() };
        for segment in [Segment { bytes: 3 << 20, root: root.unwrap() }, second] {
            let place = Place::of(&feed, &segment.root);
            assert!(place.has_outboard(&segment));
            let positions = positions(&[7; 32], &[Holding { pay: 1, segments: &[segment] }], DRAWS);
            assert_eq!(prove(&positions, |_| place.open()).unwrap().check(&positions), Ok(()));
        }
        let stopped = root_of(&feed, 3 << 20, &|| Err(io::Error::other("stop")));
        assert!(stopped.is_err());
        let dir = feed.data_path().parent().unwrap().to_owned();
        let names = || -> std::collections::BTreeSet<_> {
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let before = names();
        for left in ["segment.new", "segmentAb12yz.new"] {
            fs::write(dir.join(left), "left").unwrap();
        }
        remove_leftovers(&feed).unwrap();
        assert_eq!(names(), before);
        assert!(!before.iter().any(|name| name.to_str().unwrap().ends_with(NEW_ENDS)), "{before:?}");
    }

    #[tokio::test]
    async fn another_root_keeps_no_outboard_and_a_changed_byte_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (feed, _) = feed(&store, 3 << 20).await;
        let wrong = Segment { bytes: 3 << 20, root: [1; 32] };
        assert!(matches!(Place::of(&feed, &wrong.root).hash(&wrong, &|| Ok(())).unwrap(), Hashed::Mismatch(_)));
        assert!(!Place::of(&feed, &wrong.root).has_outboard(&wrong));

        let segment = Segment { bytes: 3 << 20, root: root_of(&feed, 3 << 20, &|| Ok(())).unwrap() };
        let place = Place::of(&feed, &segment.root);
        let file = fs::OpenOptions::new().write(true).open(feed.data_path()).unwrap();
        for at in (0..3u64 << 20).step_by(16 << 10) {
            file.write_all_at(&[255], DATA_START + at + 5).unwrap();
        }
        let positions = positions(&[7; 32], &[Holding { pay: 1, segments: &[segment] }], DRAWS);
        let refused = prove(&positions, |_| place.open()).unwrap_err();
        assert!(matches!(refused.why, MakeError::DamagedContent { .. }), "{refused}");
    }
}
