//! Folders in memory, where there is such a file system: the disk is not what is tested.

use std::path::Path;
use tempfile::TempDir;

pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("datdot-fuzz-").tempdir_in(parent).expect("there is room for a folder")
}
