//! Where things are on this computer: the folders with their state, and the daemon that runs in one of them.

use anyhow::{Context, Result, anyhow, bail};
use datdot_api::{Client, ClientError, Status, discovery::DiscoveryError};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The folders that the command looks at.
pub struct Place {
    dir: PathBuf,
    dev: PathBuf,
}

impl Place {
    /// The folder that was chosen, or else the user's data folder.
    pub fn new(chosen: Option<PathBuf>) -> Result<Self> {
        if let Some(dir) = chosen {
            let dir = std::path::absolute(&dir).with_context(|| format!("{} is no folder", dir.display()))?;
            return Ok(Self { dev: dir.clone(), dir });
        }
        let dirs = directories::ProjectDirs::from("", "", "datdot")
            .context("this user has no home folder: say with --dir where the state goes")?;
        let dir = dirs.data_local_dir();
        Ok(Self { dir: dir.to_owned(), dev: dir.join("dev") })
    }

    /// Where the wallet is and where `datdot up` keeps its state.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[cfg(any(feature = "node", test))]
    /// Where `datdot dev` keeps its state: apart from the real daemon's, unless the user chose.
    pub fn dev(&self) -> &Path {
        &self.dev
    }

    /// The daemon that runs in one of the folders, and its status.
    pub fn daemon(&self) -> Result<(Client, Status)> {
        let mut problem = None;
        for dir in [&self.dir, &self.dev] {
            match Client::open(dir).and_then(|client| client.status().map(|status| (client, status))) {
                Ok(found) => return Ok(found),
                Err(ClientError::NotFound(DiscoveryError::NotThere { .. })) => {}
                // A daemon that was killed leaves its file behind: another may run in the next folder.
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        let how =
            "start one with `datdot dev` (a whole network on this computer) or `datdot up --ledger ws://HOST:PORT`";
        match problem {
            Some(ClientError::NoAnswer { .. }) | None => {
                bail!("no daemon runs in {}: {how}, or name its folder with --dir", self.dir.display())
            }
            Some(error) => Err(anyhow!(error)),
        }
    }
}

/// Where a file is, for a daemon that runs in another folder.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no name", path.display()))
}

/// Makes a folder, and those above it, that only its owner can enter.
pub fn make_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("can't make the folder {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_api::Discovery;

    #[test]
    fn a_chosen_folder_is_taken_as_it_is() {
        let place = Place::new(Some("/data/mine".into())).unwrap();
        assert_eq!(place.dir(), Path::new("/data/mine"));
        assert_eq!(place.dev(), Path::new("/data/mine"));
    }

    #[test]
    fn without_a_daemon_the_error_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path().into())).unwrap();
        let says_how = || place.daemon().err().unwrap().to_string().contains("datdot dev");
        assert!(says_how());
        // Left behind by a daemon that was killed: nobody listens on a port that is not one.
        Discovery { url: "http://127.0.0.1:0".into(), token: "secret".into() }.write(dir.path()).unwrap();
        assert!(says_how());
    }
}
