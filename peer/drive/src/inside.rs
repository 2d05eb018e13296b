//! Names in a folder in which somebody else may write: opened part by part, so that no link is followed that was put in the place of
//! a folder since it was looked at.

use crate::path::DrivePath;
use rustix::{
    fd::OwnedFd,
    fs::{self, Mode, OFlags},
    io::Errno,
};
use std::path::Path;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folder at the top, as the user named it: links to it count.
pub(crate) fn top(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, FOLDER, Mode::empty())
}

/// The folder in which a path is, and the name in it. `missing` is asked for what to do about a folder that isn't there.
pub(crate) fn folder_of<'p>(
    top: &OwnedFd,
    path: &'p DrivePath,
    missing: impl Fn(&OwnedFd, &str) -> Result<(), Errno>,
) -> Result<(OwnedFd, &'p str), Errno> {
    let mut parts: Vec<_> = path.parts().collect();
    let name = parts.pop().expect("a path has a part");
    let mut folder = fs::openat(top, ".", FOLDER, Mode::empty())?;
    for part in parts {
        let open = || fs::openat(&folder, part, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let next = match open() {
            Err(Errno::NOENT) => {
                missing(&folder, part)?;
                open()?
            }
            next => next?,
        };
        folder = next;
    }
    Ok((folder, name))
}

/// Opens what has a name in a folder, to be read. Neither is a link followed, nor a pipe waited for.
pub(crate) fn open(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::openat(folder, name, flags, Mode::empty())
}
