//! All that a store does with files, in one place, so that tests can put a machine under it whose power fails.

#[cfg(test)]
pub(crate) mod torn;

#[cfg(target_os = "linux")]
use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::Errno,
};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Where files are.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    /// On this computer.
    Disk,
    /// In the memory of a test.
    #[cfg(test)]
    Torn(torn::Machine),
}

/// An open file.
#[derive(Debug)]
pub(crate) enum Handle {
    Disk(File),
    #[cfg(test)]
    Torn(torn::Handle),
}

/// A lock that nobody else holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "the open file is the lock")] Option<File>);

impl Files {
    /// Opens a file for reading and writing, and makes it if it isn't there and `make` is set.
    pub fn open(&self, path: &Path, make: bool) -> io::Result<Handle> {
        match self {
            Files::Disk => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(make).mode(0o600);
                Ok(Handle::Disk(options.open(path)?))
            }
            #[cfg(test)]
            Files::Torn(machine) => Ok(Handle::Torn(machine.open(path, make)?)),
        }
    }

    /// The first `most` bytes of a file, if it is there.
    pub fn read(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let read = match self {
            Files::Disk => File::open(path).and_then(|file| {
                let mut bytes = Vec::new();
                file.take(most).read_to_end(&mut bytes)?;
                Ok(bytes)
            }),
            #[cfg(test)]
            Files::Torn(machine) => machine.open(path, false).and_then(|file| file.read_all(most)),
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some),
        }
    }

    /// Size of a file; 0 if it isn't there.
    pub fn len(&self, path: &Path) -> io::Result<u64> {
        let len = match self {
            Files::Disk => fs::metadata(path).map(|file| file.len()),
            #[cfg(test)]
            Files::Torn(machine) => machine.open(path, false).and_then(|file| file.len()),
        };
        match len {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            len => len,
        }
    }

    /// Replaces a file as a whole: after a crash the old one or the new one is there.
    pub fn replace(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = dir.join(format!("{name}.new"));
        let file = self.open(&new, true)?;
        file.set_len(0)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&new, &dir.join(name))?;
        self.sync_dir(dir)
    }

    /// Makes a folder, and those above it, that only its owner can enter: what is kept for others is nobody else's
    /// business.
    pub fn make_dir(&self, path: &Path) -> io::Result<()> {
        match self {
            Files::Disk => DirBuilder::new().recursive(true).mode(0o700).create(path),
            #[cfg(test)]
            Files::Torn(machine) => machine.make_dir(path),
        }
    }

    /// What is in a folder.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        match self {
            Files::Disk => fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect(),
            #[cfg(test)]
            Files::Torn(machine) => machine.list(dir),
        }
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Files::Disk => fs::rename(from, to),
            #[cfg(test)]
            Files::Torn(machine) => machine.rename(from, to),
        }
    }

    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        match self {
            Files::Disk => fs::remove_dir_all(path),
            #[cfg(test)]
            Files::Torn(machine) => machine.remove(path),
        }
    }

    /// Makes new, renamed and removed names within a folder durable.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self {
            Files::Disk => File::open(dir)?.sync_all(),
            #[cfg(test)]
            Files::Torn(machine) => machine.sync_dir(dir),
        }
    }

    /// Locks a file against other processes; nothing if one of them holds it.
    pub fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        match self {
            Files::Disk => {
                let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
                match file.try_lock() {
                    Ok(()) => Ok(Some(Lock(Some(file)))),
                    Err(TryLockError::WouldBlock) => Ok(None),
                    Err(TryLockError::Error(error)) => Err(error),
                }
            }
            #[cfg(test)]
            Files::Torn(_) => Ok(Some(Lock(None))),
        }
    }
}

impl Handle {
    /// Reads as much as is there, at most the whole buffer.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Handle::Disk(file) => {
                let mut len = 0;
                while len < buffer.len() {
                    match file.read_at(&mut buffer[len..], at + len as u64) {
                        Ok(0) => break,
                        Ok(more) => len += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(len)
            }
            #[cfg(test)]
            Handle::Torn(file) => file.read_at(buffer, at),
        }
    }

    /// Reads all of it, or says that the file ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self.read_at(buffer, at)? == buffer.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Where the next bytes are that are not in a hole; nothing if there are only holes. Where the file system can't tell, there
    /// are none.
    pub fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        match self {
            // Nobody reads where the file stands.
            Handle::Disk(file) => match seek(file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => Ok(None),
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Some(at)),
                data => Ok(Some(data?)),
            },
            #[cfg(test)]
            Handle::Torn(file) => file.next_data(at),
        }
    }

    /// Reads all of it if the system has it in memory; else it says [`io::ErrorKind::WouldBlock`], or why it can't tell.
    pub fn read_now(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Disk(file) => {
                let len = preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT)?;
                if len == buffer.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            }
            #[cfg(not(target_os = "linux"))]
            Handle::Disk(_) => Err(io::ErrorKind::WouldBlock.into()),
            #[cfg(test)]
            Handle::Torn(_) => self.read_exact_at(buffer, at),
        }
    }

    /// Writes all of it.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Handle::Disk(file) => file.write_all_at(bytes, at),
            #[cfg(test)]
            Handle::Torn(file) => file.write_at(bytes, at),
        }
    }

    /// Has the disk begin with bytes that a sync will wait for. Nothing is promised, so where it can't be done nothing is lost.
    pub fn begin_sync(&self, bytes: Range<u64>) {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Disk(file) => begin_writeback(file, bytes),
            #[cfg(not(target_os = "linux"))]
            Handle::Disk(_) => {}
            #[cfg(test)]
            Handle::Torn(_) => {}
        }
    }

    /// Brings what was written to the disk.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Handle::Disk(file) => file.sync_data(),
            #[cfg(test)]
            Handle::Torn(file) => file.sync(),
        }
    }

    pub fn len(&self) -> io::Result<u64> {
        match self {
            Handle::Disk(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Handle::Torn(file) => file.len(),
        }
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Handle::Disk(file) => file.set_len(len),
            #[cfg(test)]
            Handle::Torn(file) => file.set_len(len),
        }
    }

    /// Takes room for bytes that will be written, without changing any. Where the file system can't do that, it is hoped for.
    pub fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        match self {
            Handle::Disk(file) => {
                let len = bytes.end.saturating_sub(bytes.start);
                supported(fallocate(file, FallocateFlags::KEEP_SIZE, bytes.start, len))
            }
            #[cfg(test)]
            Handle::Torn(file) => file.reserve(bytes.end),
        }
    }

    /// Gives the room of bytes back, which are zeros then. Where the file system can't do that, they stay.
    pub fn give_back(&self, bytes: Range<u64>) -> io::Result<()> {
        let len = bytes.end.saturating_sub(bytes.start);
        if len == 0 {
            return Ok(());
        }
        match self {
            Handle::Disk(file) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                supported(fallocate(file, flags, bytes.start, len))
            }
            #[cfg(test)]
            Handle::Torn(file) => file.give_back(bytes),
        }
    }
}

/// Whether the disk says that it can't read there.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Whether bytes that were written are gone.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || is_unreadable(error)
}

/// No crate wraps this call (`rustix` 1.1, `nix` 0.30). It saves a third of the time that an append of 1 MiB takes.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the system reads three numbers and an open file, and no memory of ours")]
fn begin_writeback(file: &File, bytes: Range<u64>) {
    let (Ok(start), Ok(len)) = (bytes.start.try_into(), (bytes.end.saturating_sub(bytes.start)).try_into()) else {
        return;
    };
    // SAFETY: `file` is open while it is borrowed, and nothing else is pointed at.
    _ = unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
}

fn supported(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = Files::Disk.open(&dir.path().join("sparse"), true).expect("room");
        assert_eq!(file.next_data(0).expect("it can be asked"), None);
        file.write_at(b"far out", 1 << 40).expect("room");
        assert_eq!(file.next_data(1).expect("it can be asked"), Some(1 << 40));
        assert_eq!(file.next_data((1 << 40) + 3).expect("it can be asked"), Some((1 << 40) + 3));
        assert_eq!(file.next_data(1 << 41).expect("it can be asked"), None);
    }
}
