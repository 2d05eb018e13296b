//! How a face finds the daemon: a file that only the daemon's user can read.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// Name of the file in the daemon's folder.
pub const FILE: &str = "api.json";

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 4096;

/// Where a running daemon answers, and what it wants to see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// Bearer token.
    pub token: String,
}

/// Why no daemon was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No file.
    #[error("no daemon runs with its state in {}", .dir.display())]
    NotThere {
        /// The folder.
        dir: PathBuf,
    },
    /// A file that can't be read.
    #[error("{}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl Discovery {
    /// Reads the file in `dir`.
    pub fn read(dir: &Path) -> Result<Self, DiscoveryError> {
        let path = dir.join(FILE);
        let unreadable = |why| DiscoveryError::Unreadable { path: path.clone(), why };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DiscoveryError::NotThere { dir: dir.to_owned() });
            }
            Err(error) => return Err(unreadable(error)),
            Ok(file) if file.len() > MAX_BYTES => {
                return Err(unreadable(io::Error::other("too long to be a daemon's")));
            }
            Ok(_) => fs::read(&path).map_err(unreadable)?,
        };
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))
    }

    /// Writes the file into `dir`, readable by its owner only from the first byte on, whole or not at all.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{FILE}.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&new)?.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, dir.join(FILE))
    }

    /// Removes the file, as a daemon does that stops; only if it is still this daemon's.
    pub fn remove(&self, dir: &Path) -> io::Result<()> {
        match Self::read(dir) {
            Ok(found) if found == *self => fs::remove_file(dir.join(FILE)),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Discovery({}, secret)", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery() -> Discovery {
        Discovery { url: "http://127.0.0.1:1".into(), token: "secret".into() }
    }

    #[test]
    fn a_daemon_is_found_until_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Discovery::read(dir.path()), Err(DiscoveryError::NotThere { .. })));
        discovery().write(dir.path()).unwrap();
        assert_eq!(Discovery::read(dir.path()).unwrap(), discovery());
        Discovery { token: "other".into(), ..discovery() }.remove(dir.path()).unwrap();
        assert_eq!(Discovery::read(dir.path()).unwrap(), discovery());
        discovery().remove(dir.path()).unwrap();
        assert!(matches!(Discovery::read(dir.path()), Err(DiscoveryError::NotThere { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn only_its_user_can_read_the_token() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        discovery().write(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn garbage_in_the_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        for garbage in ["{".to_owned(), "x".repeat(10_000)] {
            fs::write(dir.path().join(FILE), garbage).unwrap();
            let error = Discovery::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
        }
    }
}
