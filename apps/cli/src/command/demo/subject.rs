//! What the demo publishes: the user's file, or the binaries that the build has just made.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// Least size of what is published if nobody chose.
const ENOUGH: u64 = 64 << 20;

/// What is published.
pub struct Subject {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub what: String,
}

/// The file that was chosen, or this program if it is large enough, or it and what else was built, one after the other.
pub fn choose(file: Option<PathBuf>, dir: &Path) -> Result<Subject> {
    if let Some(path) = file {
        let path = path.canonicalize().with_context(|| format!("can't read {}", path.display()))?;
        let meta = path.metadata().with_context(|| format!("can't read {}", path.display()))?;
        if !meta.is_file() || meta.len() == 0 {
            bail!("{} is no file, or is empty: name a file with something in it", path.display());
        }
        return Ok(Subject { what: path.display().to_string(), bytes: meta.len(), path });
    }
    let program = std::env::current_exe().context("this program has a path")?;
    let bytes = program.metadata().context("this program can be read")?.len();
    if bytes >= ENOUGH {
        return Ok(Subject { what: format!("this program, {}", program.display()), bytes, path: program });
    }
    gather(&program, dir)
}

fn gather(program: &Path, dir: &Path) -> Result<Subject> {
    let built = program.parent().context("a program is in a folder")?;
    let mut files = vec![program.to_owned()];
    let mut libraries: Vec<_> =
        fs::read_dir(built.join("deps")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    libraries.sort();
    files.extend(libraries);
    let path = dir.join("binaries");
    let mut out = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut bytes = 0;
    for file in files.iter().filter(|file| file.is_file()) {
        let mut file = File::open(file).with_context(|| format!("can't read {}", file.display()))?;
        bytes += std::io::copy(&mut file, &mut out).context("can't gather what is published")?;
        if bytes >= ENOUGH {
            return Ok(Subject { what: format!("binaries from {}", built.display()), bytes, path });
        }
    }
    bail!("{} has too little to publish: name a file", built.display())
}

/// Whether two files have the same bytes.
pub fn same(one: &Path, other: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).with_context(|| format!("can't read {}", path.display()));
    let (one, other) = (open(one)?, open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    let (mut here, mut there) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut here)?;
        if count == 0 {
            return Ok(other.read(&mut there)? == 0);
        }
        other.read_exact(&mut there[..count])?;
        if here[..count] != there[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_the_same_only_if_every_byte_is() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let mut content = vec![7; 3_000_000];
        fs::write(&a, &content).unwrap();
        fs::write(&b, &content).unwrap();
        assert!(same(&a, &b).unwrap());
        content[2_999_999] = 8;
        fs::write(&b, &content).unwrap();
        assert!(!same(&a, &b).unwrap());
        content.pop();
        fs::write(&b, &content).unwrap();
        assert!(!same(&a, &b).unwrap());
    }

    #[test]
    fn an_empty_file_is_no_subject() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        fs::write(&path, "").unwrap();
        assert!(choose(Some(path), dir.path()).is_err());
    }
}
