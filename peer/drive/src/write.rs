//! Changing a drive file by file; [`import`](crate::import) brings it up to a whole folder.

use crate::{
    blobs::{StreamError, Writing},
    drive::{BadEntry, Drive, DriveError},
    entry::Entry,
    path::DrivePath,
};
use datdot_hypercore::FeedError;
use std::io::{self, Read};
use std::sync::{MutexGuard, PoisonError};

/// Why a file is not in a drive.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The content can't be read. What was read of it may be in the feed with the contents, where nothing points to it.
    #[error("the content can't be read: {0}")]
    Content(io::Error),
    /// The drive can't be written.
    #[error(transparent)]
    Drive(#[from] DriveError),
}

/// All of these wait for the disk, and for each other: not for a thread that has other things to do. What they did is on the disk
/// when they return.
impl Drive {
    /// Puts a file at a path, with what `content` has to its end, in the place of what was there.
    ///
    /// Fails with [`FeedError::NotWritable`] if the drive is somebody else's.
    pub fn put(&self, path: &DrivePath, content: &mut impl Read, executable: bool) -> Result<(), PutError> {
        let _alone = self.alone()?;
        let mut writing = Writing::new(self.blobs()?.clone());
        let blob = writing.add(content).map_err(|error| match error {
            StreamError::Read(error) => PutError::Content(error),
            StreamError::Feed(error) => DriveError::Blobs(error).into(),
        })?;
        writing.flush().map_err(DriveError::Blobs)?;
        Ok(self.change([(path.clone(), Some(Entry::file(blob, executable)))])?)
    }

    /// Puts a symbolic link at a path. Where it leads is up to who reads the drive. [`DriveError::Entry`] if its entry had more than
    /// 64 KiB.
    pub fn put_link(&self, path: &DrivePath, target: impl Into<String>) -> Result<(), DriveError> {
        let _alone = self.alone()?;
        self.change([(path.clone(), Some(Entry::link(target)))])
    }

    /// Takes what is at a path out of the newest version; older ones keep it. Whether there was anything.
    pub fn delete(&self, path: &DrivePath) -> Result<bool, DriveError> {
        let _alone = self.alone()?;
        // Also what can't be read as an entry can be deleted.
        let is_there = self.latest().bee().get(&path.to_key())?.is_some();
        if is_there {
            self.change([(path.clone(), None)])?;
        }
        Ok(is_there)
    }

    /// Waits until nobody else writes, if we may at all.
    pub(crate) fn alone(&self) -> Result<MutexGuard<'_, ()>, DriveError> {
        let alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_writable() {
            return Err(FeedError::NotWritable.into());
        }
        Ok(alone)
    }

    /// Puts entries, and deletes where there are none, all at once.
    pub(crate) fn change(
        &self,
        changes: impl IntoIterator<Item = (DrivePath, Option<Entry>)>,
    ) -> Result<(), DriveError> {
        let version = self.latest();
        let mut batch = version.bee().batch();
        for (path, entry) in changes {
            match entry {
                Some(entry) => {
                    let json = entry.to_json();
                    // What nobody could read back is not written.
                    Entry::from_json(&json).map_err(|error| BadEntry { name: path.to_string(), why: error.into() })?;
                    batch.put(path.to_key(), json.into())?;
                }
                None => _ = batch.del(&path.to_key())?,
            }
        }
        // The blocks point to others by their numbers: behind anything else they would be nonsense.
        self.metadata().write_at(version.version(), &batch.into_blocks())?;
        Ok(())
    }
}
