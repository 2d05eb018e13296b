//! Bringing the blocks of a drive here, through a [`Network`].

use crate::{
    blobs::BlobError,
    drive::{Drive, DriveError, Part},
    entry::Content,
    path::DrivePath,
};
use datdot_hypercore::{FeedError, Network, Stopped, Want};
use std::ops::Range;

/// Why a drive is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What came can't be read.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// A feed can't be fetched.
    #[error("{part:?} feed: {why}")]
    Stopped {
        /// Which feed of the drive.
        part: Part,
        /// Why.
        why: Stopped,
    },
}

/// Fetches the metadata of the first head that a peer shows, or what is missing of the known one, and the contents of the
/// files in `folder`, or of all. Waits as long as no peer has them: the caller says how long that may be.
pub async fn fetch(network: &Network, drive: &Drive, folder: Option<&DrivePath>) -> Result<(), FetchError> {
    fetch_metadata(network, drive).await?;
    let maps = wanted(drive, folder, Round::Maps)?;
    fetch_blobs(network, drive, maps).await?;
    fetch_blobs(network, drive, wanted(drive, folder, Round::Contents)?).await
}

/// Fetches the metadata of the first head that a peer shows, or what is missing of the known one.
pub async fn fetch_metadata(network: &Network, drive: &Drive) -> Result<(), FetchError> {
    download(network, drive, Part::Metadata, 0..u64::MAX).await
}

/// Fetches runs of blocks of the contents.
pub async fn fetch_blobs(network: &Network, drive: &Drive, runs: Vec<Range<u64>>) -> Result<(), FetchError> {
    for run in runs {
        download(network, drive, Part::Blobs, run).await?;
    }
    Ok(())
}

async fn download(network: &Network, drive: &Drive, part: Part, blocks: Range<u64>) -> Result<(), FetchError> {
    let feed = match part {
        Part::Metadata => drive.metadata(),
        Part::Blobs => drive.blobs()?,
    };
    network.download(feed, Want::blocks(blocks)).done().await.map_err(|why| FetchError::Stopped { part, why })
}

/// What [`wanted`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The lists of blocks of deduplicated files: they have to come first.
    Maps,
    /// The blocks of all contents.
    Contents,
}

/// The blocks of the blobs feed that the files in `folder`, or all, take: runs in ascending order, without overlap. The metadata
/// has to be here. Files whose place makes no sense are left out.
pub fn wanted(drive: &Drive, folder: Option<&DrivePath>, round: Round) -> Result<Vec<Range<u64>>, DriveError> {
    let version = drive.latest();
    let mut runs = Vec::new();
    let single = folder.map(|path| version.entry(path).map(|entry| entry.map(|entry| Ok((path.clone(), entry)))));
    for entry in single.transpose()?.flatten().into_iter().chain(version.entries(folder)) {
        let (path, entry) = match entry {
            Err(DriveError::Entry(_)) => continue,
            entry => entry?,
        };
        let Content::File { blob, .. } = entry.content else { continue };
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
    use proptest::prelude::*;

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
