//! Bringing the blocks of a drive here, through a [`Network`].

use crate::{
    blobs::BlobError,
    drive::{Drive, DriveError, Part, Version},
    entry::Content,
    path::DrivePath,
};
use datdot_hypercore::{FeedError, Network, ReadError, Stopped, Want};
use std::{collections::HashSet, ops::Range, panic::resume_unwind, sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::timeout};

/// Why a drive is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What came can't be read.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// A block can't be fetched.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A feed can't be fetched.
    #[error("{part:?} feed: {why}")]
    Stopped {
        /// Which feed of the drive.
        part: Part,
        /// Why.
        why: Stopped,
    },
}

/// Peers tell of their newest head as soon as they are asked. Who does not so long has none.
const SETTLED: Duration = Duration::from_secs(5);
/// The contents follow the metadata that names them. A place beyond the newest head after so long is nobody's.
const LATE: Duration = Duration::from_secs(10);
/// Runs of blocks that are fetched at a time.
const RUNS: usize = 256;
/// Runs that are merged before more are looked for.
const MANY_RUNS: usize = 100_000;

/// Fetches the newest metadata that peers have, and the contents of the files in `folder`, or of all. Waits as long as no peer has
/// them: the caller says how long that may be. Returns the version that is here now: [`Drive::latest`] may be a newer one already.
pub async fn fetch(network: &Network, drive: &Drive, folder: Option<&DrivePath>) -> Result<Version, FetchError> {
    let version = Arc::new(fetch_metadata(network, drive).await?);
    // Where a deduplicated file has its blocks, its list of blocks tells, which has to come first.
    for round in [Round::Maps, Round::Contents] {
        let (version, folder) = (version.clone(), folder.cloned());
        let runs = blocking(drive, move |_| wanted(&version, folder.as_ref(), round)).await?;
        fetch_blobs(network, drive, &runs).await?;
    }
    Ok(drive.checkout(version.version()))
}

/// Fetches the newest metadata that peers have. Returns the version of which all of it is here.
pub async fn fetch_metadata(network: &Network, drive: &Drive) -> Result<Version, FetchError> {
    let feed = drive.metadata();
    let fresh = feed.info().length == 0;
    let failed = |why| FetchError::Stopped { part: Part::Metadata, why };
    let mut download = network.download(feed, Want::all());
    if !fresh {
        download.here().await.map_err(failed)?;
        network.update(feed, SETTLED).await.map_err(failed)?;
    }
    loop {
        download.done().await.map_err(failed)?;
        // It may have grown again.
        let length = feed.info().length;
        if feed.missing_in(0..length) == 0 {
            return Ok(drive.checkout(length));
        }
    }
}

/// Fetches runs of blocks of the contents, in ascending order. What no head reaches, soon, is left out.
pub async fn fetch_blobs(network: &Network, drive: &Drive, runs: &[Range<u64>]) -> Result<(), FetchError> {
    if runs.is_empty() {
        return Ok(());
    }
    let feed = blocking(drive, |drive| drive.blobs().cloned()).await?;
    let failed = |why| FetchError::Stopped { part: Part::Blobs, why };
    'all: for runs in runs.chunks(RUNS) {
        let want = |run: &Range<u64>| network.download(&feed, Want { blocks: run.clone(), follow: true });
        let downloads: Vec<_> = runs.iter().map(want).collect();
        for (run, mut download) in runs.iter().zip(downloads) {
            // The first head can take as long as the first peer.
            download.here().await.map_err(failed)?;
            let mut watch = feed.watch();
            if feed.info().length < run.end {
                _ = timeout(LATE, watch.wait_for(|info| info.length >= run.end)).await;
                download.here().await.map_err(failed)?;
            }
            if feed.info().length < run.end {
                // What follows lies even further away.
                break 'all;
            }
        }
    }
    // Once for all: a run may be a single block.
    feed.flush().await.map_err(|error| DriveError::Blobs(error).into())
}

/// Calls `look` until all that it needs of the drive is here: each block that it lacks is fetched. Waits at most so long for one.
/// A single path takes a few blocks of the metadata, not all of it. `look` is called on a thread that may wait for the disk.
pub async fn with_missing<T, Look>(
    network: &Network,
    drive: &Drive,
    wait: Duration,
    mut look: Look,
) -> Result<T, FetchError>
where
    T: Send + 'static,
    Look: FnMut(&Drive) -> Result<T, DriveError> + Send + 'static,
{
    // The header brings the head.
    network.get(drive.metadata(), 0, wait).await?;
    loop {
        let (found, again) = blocking(drive, move |drive| {
            let missing = |error: DriveError| match error.missing() {
                Some((Part::Metadata, block)) => Ok((drive.metadata().clone(), block)),
                Some((Part::Blobs, block)) => Ok((drive.blobs()?.clone(), block)),
                None => Err(error),
            };
            Ok((look(drive).map_or_else(|error| missing(error).map(Err), |found| Ok(Ok(found)))?, look))
        })
        .await?;
        match found {
            Ok(found) => return Ok(found),
            Err((feed, block)) => network.get(&feed, block, wait).await?,
        };
        look = again;
    }
}

/// Does what waits for the disk on a thread for that.
async fn blocking<T: Send + 'static>(
    drive: &Drive,
    work: impl FnOnce(&Drive) -> Result<T, DriveError> + Send + 'static,
) -> Result<T, DriveError> {
    let drive = drive.clone();
    spawn_blocking(move || work(&drive)).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// What [`wanted`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The lists of blocks of deduplicated files: they have to come first.
    Maps,
    /// The blocks of all contents.
    Contents,
}

/// The blocks of the blobs feed that the files in `folder`, or all, take in a version: runs in ascending order, without overlap. Its
/// metadata has to be here. Files whose place makes no sense are left out.
pub fn wanted(version: &Version, folder: Option<&DrivePath>, round: Round) -> Result<Vec<Range<u64>>, DriveError> {
    // Thousands of names may share one long list of blocks.
    let (mut runs, mut most, mut seen) = (Vec::new(), MANY_RUNS, HashSet::new());
    let single = folder.map(|path| version.entry(path).map(|entry| entry.map(|entry| Ok((path.clone(), entry)))));
    for entry in single.transpose()?.flatten().into_iter().chain(version.entries(folder)) {
        let (path, entry) = match entry {
            Err(DriveError::Entry(_)) => continue,
            entry => entry?,
        };
        let Content::File { blob, .. } = entry.content else { continue };
        if !seen.insert(blob) {
            continue;
        }
        if runs.len() > most {
            runs = merge(runs);
            most = MANY_RUNS.max(2 * runs.len());
        }
        if round == Round::Maps {
            let end = blob.block_offset.saturating_add(blob.block_length);
            runs.extend(blob.block_map.then_some(blob.block_offset..end));
            continue;
        }
        match version.layout(&path, &blob) {
            Ok(layout) => runs.extend(layout.runs()),
            Err(DriveError::Content { why: BlobError::Feed(error), .. }) if !is_beyond(&error) => {
                return Err(DriveError::Blobs(error));
            }
            Err(DriveError::Content { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(merge(runs))
}

fn is_beyond(error: &FeedError) -> bool {
    matches!(error, FeedError::OutOfRange { .. })
}

fn merge(mut runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    runs.sort_by_key(|run| run.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for run in runs.into_iter().filter(|run| run.start < run.end) {
        match merged.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entry::{Blob, Entry},
        export,
    };
    use datdot_hypercore::{Keypair, Store};
    use proptest::prelude::*;
    use std::ops::ControlFlow;

    #[test]
    fn names_that_share_a_list_of_blocks_want_it_once_and_count_each() {
        let dir = tempfile::tempdir().unwrap();
        let drive =
            Drive::create(&Store::open(dir.path().join("store")).unwrap(), &Keypair::from_seed([1; 32])).unwrap();
        // The list says: the block before it, twice.
        drive.blobs().unwrap().write(&["content".into(), vec![0, 2, 0, 7, 0, 7].into()]).unwrap();
        let blob = Blob { block_offset: 1, byte_offset: 7, block_length: 1, byte_length: 6, block_map: true };
        let entry = |name| (format!("/{name}").parse().unwrap(), Some(Entry::file(blob, false)));
        drive.change((0..300).map(entry)).unwrap();
        assert_eq!(wanted(&drive.latest(), None, Round::Maps).unwrap(), [1..2]);
        assert_eq!(wanted(&drive.latest(), None, Round::Contents).unwrap(), [0..1]);
        let options = export::Options { folder: None, max_bytes: 300 * 14 - 1, replace: false };
        let target = dir.path().join("target");
        let exported = export::export(&drive.latest(), &target, &options, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(exported, Err(export::ExportError::TooLarge { bytes: 4200, .. })), "{exported:?}");
    }

    #[test]
    fn a_version_wants_its_own_contents_whatever_came_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let drive = Drive::create(&Store::open(dir.path()).unwrap(), &Keypair::from_seed([1; 32])).unwrap();
        let path: DrivePath = "/file".parse().unwrap();
        drive.put(&path, &mut &b"old"[..], false).unwrap();
        let old = drive.latest();
        drive.put(&path, &mut &b"new"[..], false).unwrap();
        assert_eq!(wanted(&old, None, Round::Contents).unwrap(), [0..1]);
        assert_eq!(wanted(&drive.latest(), None, Round::Contents).unwrap(), [1..2]);
    }

    proptest! {
        #[test]
        fn runs_are_merged_without_loss(runs in proptest::collection::vec((0..50u64, 0..9u64), 0..20)) {
            let runs: Vec<_> = runs.into_iter().map(|(start, len)| start..start + len).collect();
            let merged = merge(runs.clone());
            prop_assert!(merged.windows(2).all(|pair| pair[0].end < pair[1].start));
            for block in 0..60 {
                let is_in = |runs: &[Range<u64>]| runs.iter().any(|run| run.contains(&block));
                prop_assert_eq!(is_in(&runs), is_in(&merged));
            }
        }
    }
}
