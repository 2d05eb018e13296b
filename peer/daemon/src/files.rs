//! Small files that are whole or not there, and secrets that only their owner can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// Longest small file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Makes a folder, and those above it, that only its owner can enter.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file at once: after a crash it has the old or the new content. Only its owner can read it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Reads a small file, if it is there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut content = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// A secret of 32 bytes in hex: the one in the file, or a fresh one that is written there.
pub fn secret(path: &Path) -> io::Result<[u8; 32]> {
    if let Some(text) = read(path)? {
        return from_hex(&text, "it should be 64 hex digits; restore it from a backup");
    }
    let seed = fresh();
    replace(path, hex::encode(seed).as_bytes())?;
    Ok(seed)
}

/// A secret of 32 bytes in hex that the user has in a file.
pub fn users_secret(path: &Path) -> io::Result<[u8; 32]> {
    from_hex(&read(path)?.ok_or(io::ErrorKind::NotFound)?, "a key is 64 hex digits (0-9, a-f)")
}

fn from_hex(text: &[u8], otherwise: &'static str) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    let bad = |_| io::Error::new(io::ErrorKind::InvalidData, otherwise);
    hex::decode_to_slice(text.trim_ascii(), &mut secret).map_err(bad)?;
    Ok(secret)
}

/// 32 bytes that nobody can guess.
pub fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::getrandom(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// Bytes that can still be written below `dir`.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_stays_the_same_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.key");
        let first = secret(&path).unwrap();
        assert_eq!(secret(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "damaged").unwrap();
        assert!(secret(&path).is_err(), "a damaged secret is never replaced");
    }

    #[test]
    fn a_torn_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        replace(&path, b"old").unwrap();
        fs::write(path.with_extension("new"), b"ne").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
    }
}
