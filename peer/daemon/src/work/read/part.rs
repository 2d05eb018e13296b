//! A file that gets its name when it is whole.

use super::parent_of;
use crate::segments::GoesOn;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tempfile::NamedTempFile;

/// A file's name begins and ends so until it is whole: one that [`datdot_drive::export::is_part`] knows, so that it is never published.
const PART_BEGINS: &str = ".datdot-";
const PART_ENDS: &str = ".part";
/// Random characters between.
const PART_RANDOM: usize = 6;

/// Refuses a file that can't be written as far as one can see.
pub(super) fn may_write(path: &Path) -> Result<(), String> {
    parent_of(path)?;
    if path.symlink_metadata().is_ok() {
        return Err(format!("{} exists already: give another name, or move it away", path.display()));
    }
    Ok(())
}

/// Writes blocks, each checked against its author's tree, to a file beside `path`, then gives it that name. A file that is there
/// stays. Returns the bytes.
pub(super) fn write_out<Block: AsRef<[u8]>>(
    blocks: impl Iterator<Item = io::Result<Block>>,
    executable: bool,
    path: &Path,
    goes_on: &GoesOn,
) -> io::Result<u64> {
    let dir = path.parent().ok_or_else(|| io::Error::other("it names no file"))?;
    remove_leftovers(dir);
    let part = begin_part(dir, executable)?;
    let mut file = io::BufWriter::with_capacity(1 << 20, part.as_file());
    let mut bytes = 0;
    for block in blocks {
        goes_on()?;
        let block = block?;
        file.write_all(block.as_ref())?;
        bytes += block.as_ref().len() as u64;
    }
    file.flush()?;
    drop(file);
    part.as_file().sync_all()?;
    part.persist_noclobber(path)?;
    Ok(bytes)
}

/// A file for what is not whole yet, locked as long as somebody writes to it.
fn begin_part(dir: &Path, executable: bool) -> io::Result<NamedTempFile> {
    loop {
        let part = tempfile::Builder::new()
            .prefix(PART_BEGINS)
            .rand_bytes(PART_RANDOM)
            .suffix(PART_ENDS)
            // As any new file: who may read it is up to the user's umask.
            .permissions(Permissions::from_mode(if executable { 0o777 } else { 0o666 }))
            .tempfile_in(dir)?;
        // Where files can't be locked nobody takes it for one that is left over.
        _ = flock(part.as_file(), FlockOperation::LockExclusive);
        // Before it was locked it may have been taken for one.
        if part.path().try_exists()? {
            return Ok(part);
        }
    }
}

/// Removes what daemons that were killed had written of files: it could only be done anew, and nobody would miss it.
pub(super) fn remove_leftovers(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let is_part = |name: &str| {
            let random = name.strip_prefix(PART_BEGINS).and_then(|rest| rest.strip_suffix(PART_ENDS));
            random.is_some_and(|random| random.len() == PART_RANDOM)
        };
        let (path, is_file) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_file()));
        if !is_file || !entry.file_name().to_str().is_some_and(is_part) {
            continue;
        }
        // Somebody else's can't be written to.
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::publish::file::{BLOCK_BYTES, append, look};
    use datdot_drive::export;
    use datdot_hypercore::{Feed, Keypair, Store};
    use std::fs;
    use tokio::sync::mpsc;

    fn write_out(feed: &Feed, path: &Path, goes_on: &GoesOn) -> io::Result<u64> {
        let blocks = (0..feed.info().length).map(|block| feed.read(block).map_err(io::Error::other));
        super::write_out(blocks, false, path, goes_on)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_goes_into_a_feed_and_comes_out_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let (steps, _heard) = mpsc::channel(64);
        for (seed, bytes) in [(1, 1), (2, BLOCK_BYTES), (3, BLOCK_BYTES + 1), (4, 70 * BLOCK_BYTES + 5)] {
            let (path, out) = (dir.path().join("in"), dir.path().join(format!("out{seed}")));
            let content: Vec<_> = (0..bytes).map(|at| (at / 3) as u8).collect();
            fs::write(&path, &content).unwrap();
            let feed = store.create(&Keypair::from_seed([seed; 32])).unwrap();
            append(&feed, &look(&path).unwrap(), &steps, &|| Ok(())).unwrap();
            assert_eq!(feed.info().length, bytes.div_ceil(BLOCK_BYTES) as u64);
            write_out(&feed, &out, &|| Ok(())).unwrap();
            assert!(fs::read(&out).unwrap() == content, "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn nothing_of_the_user_s_is_overwritten_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let feed = store.create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["new".into()]).await.unwrap();
        let out = dir.path().join("out");
        for precious in ["out", "out.part"] {
            fs::write(dir.path().join(precious), "precious").unwrap();
        }
        assert!(may_write(&out).unwrap_err().contains("exists already"));
        assert!(write_out(&feed, &out, &|| Ok(())).is_err(), "it appeared while the feed was fetched");
        assert!(write_out(&feed, &dir.path().join("other"), &|| Err(io::Error::other("stop"))).is_err());
        fs::remove_file(&out).unwrap();
        write_out(&feed, &out, &|| Ok(())).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("out.part")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "out, out.part and store");
        assert!(may_write(&dir.path().join("no/out")).unwrap_err().contains("no folder"));
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_goes_and_what_another_get_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let feed = store.create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["new".into()]).await.unwrap();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let written = begin_part(&to, false).unwrap();
        for name in ["precious", ".datdot-notes.part", ".datdot-Ab12yz.part", ".datdot-.part"] {
            fs::write(to.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("precious", to.join(".datdot-link12.part")).unwrap();
        write_out(&feed, &to.join("out"), &|| Ok(())).unwrap();
        assert!(written.path().exists() && !to.join(".datdot-Ab12yz.part").exists());
        for name in ["precious", ".datdot-notes.part", ".datdot-.part", ".datdot-link12.part", "out"] {
            assert!(fs::symlink_metadata(to.join(name)).is_ok(), "{name}");
        }
        let name = written.path().file_name().unwrap().to_str().unwrap();
        assert!(export::is_part(name), "{name} would be published");
        let path = written.into_temp_path().keep().unwrap();
        remove_leftovers(&to);
        assert!(!path.exists(), "nobody writes to it any more");
    }
}
