//! From a drive to a folder, without trusting the drive.
//!
//! Every name is created in a folder that was opened part by part without following links, so nothing is written outside the
//! target, whatever the drive and whatever lies in the folder already. A file appears under its name when it is whole. Links
//! come last, and only those that stay within the folder. What the folder has besides is left alone, and what it has in the place of
//! something of the drive only makes way if the caller says so.

use crate::{
    blobs::BlobError,
    drive::{DriveError, Version},
    entry::{Blob, Content},
    inside,
    path::DrivePath,
    progress::{Counter, Listener, Progress, Skipped, Stopped, Why},
};
use datdot_hypercore::FeedError;
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What a file is called until it is whole.
const PART: &str = ".datdot-part";

/// Whether a file has a name that files only have until they are whole: `.datdot-part` here, `.datdot-` with anything and `.part` where
/// a program writes several into one folder. No drive is given such a file, and no folder.
pub fn is_part(name: &str) -> bool {
    name == PART || name.strip_prefix(".datdot-").is_some_and(|rest| rest.ends_with(".part"))
}

/// What an export did.
#[derive(Debug, Default)]
pub struct Exported {
    /// Files and links that were written.
    pub written: u64,
    /// Files and links that were there already.
    pub unchanged: u64,
    /// Bytes of files that were written.
    pub bytes: u64,
    /// Bytes of files that were there already.
    pub unchanged_bytes: u64,
    /// What could not be taken over.
    pub skipped: Vec<Skipped>,
}

/// Why an export ended early. The same export can go on later.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The target can't be written.
    #[error("{}: {source}", path.display().to_string().escape_debug())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another export writes to the same folder.
    #[error("{} is being written by somebody else", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The files are larger than the caller allows.
    #[error("{bytes} bytes would have to be written, more than the {max} that are allowed")]
    TooLarge {
        /// Bytes of the files that are not there.
        bytes: u64,
        /// The caller's bound.
        max: u64,
    },
    /// The drive can't be read.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The listener ended it.
    #[error("stopped")]
    Stopped,
}

impl From<Stopped> for ExportError {
    fn from(Stopped: Stopped) -> Self {
        ExportError::Stopped
    }
}

/// What to export.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the drive whose content is written; the whole drive if not set.
    pub folder: Option<DrivePath>,
    /// Bytes that all files together may have, without those that are there with the size that they have in the drive. A small
    /// drive can describe very large files: several of them, or several places in one, may share a block.
    pub max_bytes: u64,
    /// Whether files and links that are there, and are others, are replaced. Folders never are.
    pub replace: bool,
}

/// Brings a folder up to a drive; makes it if it isn't there. What was written is on the disk then. Waits for that: not for a
/// thread that has other things to do.
pub fn export<'a>(
    version: &Version,
    target: &Path,
    options: &Options,
    listener: &'a mut Listener<'a>,
) -> Result<Exported, ExportError> {
    let mut exported = Exported::default();
    let plan = Plan::of(version, options, &mut exported.skipped, listener)?;
    let (bytes, max) = (plan.bytes_to_write(target), options.max_bytes);
    if bytes > max {
        return Err(ExportError::TooLarge { bytes, max });
    }
    let root = Root::open(target)?;
    let counter = Counter::new((plan.files.len() + plan.links.len()) as u64, plan.bytes, listener);
    let mut work = Work { version, root, replace: options.replace, exported, counter };
    for file in &plan.files {
        let result = work.write_file(file);
        work.settle(&file.path, result)?;
        work.counter.done(file.bytes)?;
    }
    for (path, link) in &plan.links {
        let result = work.root.write_link(path, link, options.replace);
        work.settle(path, result)?;
        work.counter.done(0)?;
    }
    work.root.sync()?;
    Ok(work.exported)
}

/// What an export would find, as far as names and sizes tell.
#[derive(Debug, Default)]
pub struct Outlook {
    /// Bytes of the files that are not in the folder.
    pub bytes: u64,
    /// Files and links of which the folder has others, if they are to stay.
    pub others: Vec<Skipped>,
}

/// Looks at what an export would do, before the contents are here. Only the lists of blocks of deduplicated files have to be.
pub fn look<'a>(
    version: &Version,
    target: &Path,
    options: &Options,
    listener: &'a mut Listener<'a>,
) -> Result<Outlook, ExportError> {
    let plan = Plan::of(version, options, &mut Vec::new(), listener)?;
    let others = if options.replace { Vec::new() } else { plan.others(target) };
    Ok(Outlook { bytes: plan.bytes_to_write(target), others })
}

/// What has to be written, with paths from the top of the target.
#[derive(Default)]
struct Plan {
    files: Vec<PlannedFile>,
    links: Vec<(DrivePath, String)>,
    bytes: u64,
}

struct PlannedFile {
    path: DrivePath,
    blob: Blob,
    /// Of the content. The list of its blocks is read again when it is written: thousands of names may share one of 8 MiB.
    bytes: u64,
    executable: bool,
}

impl PlannedFile {
    /// Whether it may be what is there, as far as one can see without reading it.
    fn looks_like(&self, there: &Metadata) -> bool {
        let is_executable = there.permissions().mode() & 0o100 != 0;
        there.is_file() && there.len() == self.bytes && is_executable == self.executable
    }
}

impl Plan {
    fn of(
        version: &Version,
        options: &Options,
        skipped: &mut Vec<Skipped>,
        listener: &mut Listener<'_>,
    ) -> Result<Plan, ExportError> {
        let mut plan = Plan::default();
        let mut sizes = HashMap::new();
        let depth = options.folder.as_ref().map_or(0, |folder| folder.parts().count());
        for entry in version.entries(options.folder.as_ref()) {
            let (full, entry) = match entry {
                Ok(entry) => entry,
                Err(DriveError::Entry(bad)) => {
                    skipped.push(Skipped { name: bad.name, why: Why::Entry(bad.why.to_string()) });
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            // A list of blocks can take long to read.
            if listener(Progress::default()).is_break() {
                return Err(ExportError::Stopped);
            }
            let path = DrivePath::from_parts(full.parts().skip(depth)).expect("it is a path below the folder");
            if path.parts().any(is_part) {
                skipped.push(Skipped { name: path.to_string(), why: Why::Reserved });
                continue;
            }
            match entry.content {
                Content::File { blob, executable } => {
                    let known = sizes.get(&blob).copied();
                    let bytes = known.map_or_else(|| version.layout(&full, &blob).map(|layout| layout.bytes()), Ok);
                    match bytes {
                        Ok(bytes) => {
                            sizes.insert(blob, bytes);
                            plan.bytes = plan.bytes.saturating_add(bytes);
                            plan.files.push(PlannedFile { path, blob, bytes, executable });
                        }
                        Err(error) => skipped.push(skip_or_fail(&path, error)?),
                    }
                }
                Content::Link { target } => match link_within(&full, &target, depth) {
                    Some(link) => plan.links.push((path, link)),
                    None => skipped.push(Skipped { name: path.to_string(), why: Why::Outside { target } }),
                },
                Content::Bare => {}
            }
        }
        Ok(plan)
    }

    /// Bytes of the files that are not in a folder, as far as their sizes tell: an export that was cut off goes on with less room.
    fn bytes_to_write(&self, folder: &Path) -> u64 {
        let is_there = |file: &&PlannedFile| {
            let there = in_folder(folder, &file.path).symlink_metadata();
            there.is_ok_and(|there| there.is_file() && there.len() == file.bytes)
        };
        let missing = self.files.iter().filter(|file| !is_there(file));
        missing.fold(0, |sum: u64, file| sum.saturating_add(file.bytes))
    }

    /// Files and links of which a folder has others, as far as that shows without reading them.
    fn others(&self, folder: &Path) -> Vec<Skipped> {
        let at = |path| in_folder(folder, path);
        let files = self
            .files
            .iter()
            .filter(|file| at(&file.path).symlink_metadata().is_ok_and(|there| !file.looks_like(&there)));
        let links = self.links.iter().filter(|(path, target)| {
            at(path).symlink_metadata().is_ok() && at(path).read_link().ok().as_deref() != Some(Path::new(target))
        });
        let paths = files.map(|file| &file.path).chain(links.map(|(path, _)| path));
        paths.map(|path| Skipped { name: path.to_string(), why: Why::Other }).collect()
    }
}

fn in_folder(folder: &Path, path: &DrivePath) -> PathBuf {
    folder.join(&path.as_str()[1..])
}

/// A content that can't be right is left out; one that can't be read now is an error.
fn skip_or_fail(path: &DrivePath, error: DriveError) -> Result<Skipped, ExportError> {
    match error {
        // Without a head nothing is known of any block.
        DriveError::Content { why: BlobError::Feed(FeedError::OutOfRange { length: 1.., .. }), .. } => Ok(Skipped {
            name: path.to_string(),
            why: Why::Entry("its place is beyond the end of the blobs feed".into()),
        }),
        DriveError::Content { why: BlobError::Feed(error), .. } => Err(DriveError::Blobs(error).into()),
        DriveError::Content { why, .. } => Ok(Skipped { name: path.to_string(), why: Why::Entry(why.to_string()) }),
        error => Err(error.into()),
    }
}

/// What to write into a link at `path` so that it leads where the drive says, if that is below the first `depth` parts of the
/// path. The result goes up first and then down: a `..` behind a name could lead anywhere if that name is a link itself.
fn link_within(path: &DrivePath, target: &str, depth: usize) -> Option<String> {
    let mut folder: Vec<_> = path.parts().collect();
    folder.pop();
    let mut leads_to = if target.starts_with('/') { Vec::new() } else { folder.clone() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = leads_to.pop()?,
            part if part.contains(['\0', '\\']) => return None,
            part => leads_to.push(part),
        }
    }
    if leads_to.len() < depth || leads_to[..depth] != folder[..depth] {
        return None;
    }
    let common = folder.iter().zip(&leads_to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", folder.len() - common);
    let link: Vec<_> = up.chain(leads_to[common..].iter().copied()).collect();
    Some(if link.is_empty() { ".".into() } else { link.join("/") })
}

struct Work<'a, 'b> {
    version: &'a Version,
    root: Root,
    replace: bool,
    exported: Exported,
    counter: Counter<'b>,
}

/// How the writing of one file ended.
enum Failed {
    /// Something else is there.
    Other,
    System(Errno),
    Io(io::Error),
    Export(ExportError),
}

impl From<Errno> for Failed {
    fn from(error: Errno) -> Self {
        Failed::System(error)
    }
}

impl From<Stopped> for Failed {
    fn from(Stopped: Stopped) -> Self {
        Failed::Export(ExportError::Stopped)
    }
}

impl Work<'_, '_> {
    /// Counts a file, or notes why it was left out.
    fn settle(&mut self, path: &DrivePath, result: Result<bool, Failed>) -> Result<(), ExportError> {
        let source = match result {
            Ok(true) => {
                self.exported.written += 1;
                return Ok(());
            }
            Ok(false) => {
                self.exported.unchanged += 1;
                return Ok(());
            }
            Err(Failed::Export(ExportError::Drive(error))) => {
                self.exported.skipped.push(skip_or_fail(path, error)?);
                return Ok(());
            }
            Err(Failed::Export(error)) => return Err(error),
            Err(Failed::Other) => {
                self.exported.skipped.push(Skipped { name: path.to_string(), why: Why::Other });
                return Ok(());
            }
            Err(Failed::Io(source)) => source,
            Err(Failed::System(errno)) => {
                let names = [
                    Errno::NOTDIR,
                    Errno::ISDIR,
                    Errno::LOOP,
                    Errno::EXIST,
                    Errno::NAMETOOLONG,
                    Errno::NOTEMPTY,
                    Errno::ILSEQ,
                    Errno::INVAL,
                    // What a file system says that has no links.
                    Errno::PERM,
                ];
                if names.contains(&errno) {
                    let why = Why::InTheWay(errno.into());
                    self.exported.skipped.push(Skipped { name: path.to_string(), why });
                    return Ok(());
                }
                errno.into()
            }
        };
        Err(ExportError::Write { path: in_folder(&self.root.path, path), source })
    }

    /// Says whether it was necessary.
    fn write_file(&mut self, planned: &PlannedFile) -> Result<bool, Failed> {
        let PlannedFile { path, blob, executable, .. } = planned;
        let (folder, name) = self.root.folder_of(path)?;
        if self.is_there(&folder, name, planned)? {
            self.exported.unchanged_bytes += planned.bytes;
            return Ok(false);
        }
        if !self.replace && is_taken(&folder, name)? {
            return Err(Failed::Other);
        }
        remove(&folder, PART)?;
        let mode = Mode::from_raw_mode(if *executable { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&folder, PART, flags, mode)?);
        let mut written = 0;
        let mut fill = || {
            for block in self.version.read(path, blob).map_err(|error| Failed::Export(error.into()))? {
                let block = block.map_err(|error| Failed::Export(error.into()))?;
                file.write_all(&block).map_err(Failed::Io)?;
                written += block.len() as u64;
                self.counter.tell(written)?;
            }
            if !SYNCED_AT_ONCE {
                file.sync_all().map_err(Failed::Io)?;
            }
            give_name(&folder, name, self.replace)
        };
        if let Err(error) = fill() {
            _ = remove(&folder, PART);
            return Err(error);
        }
        self.exported.bytes += written;
        Ok(true)
    }

    fn is_there(&self, folder: &OwnedFd, name: &str, planned: &PlannedFile) -> Result<bool, Failed> {
        let Ok(file) = inside::open(folder, name) else { return Ok(false) };
        let mut file = File::from(file);
        let metadata = file.metadata().map_err(Failed::Io)?;
        if !planned.looks_like(&metadata) {
            return Ok(false);
        }
        let layout = self.version.layout(&planned.path, &planned.blob).map_err(|error| Failed::Export(error.into()))?;
        let contents = self.version.drive().contents().map_err(|error| Failed::Export(error.into()))?;
        // What can't be read is written anew.
        Ok(layout.is_same(&contents, &mut file).unwrap_or(false))
    }
}

/// The target folder.
struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

/// Whether the system can bring all that was written to the disk at once: a file at a time takes many times as long.
const SYNCED_AT_ONCE: bool = cfg!(target_os = "linux");

impl Root {
    fn open(path: &Path) -> Result<Root, ExportError> {
        let failed = |source| ExportError::Write { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let fd = inside::top(path).map_err(|errno| failed(errno.into()))?;
        match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Root { path: path.to_owned(), fd }),
            Err(Errno::WOULDBLOCK) => Err(ExportError::InUse { path: path.to_owned() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Brings what was written to the disk, names included.
    fn sync(&self) -> Result<(), ExportError> {
        #[cfg(target_os = "linux")]
        let synced = fs::syncfs(&self.fd);
        #[cfg(not(target_os = "linux"))]
        let synced = fs::fsync(&self.fd);
        synced.map_err(|errno| ExportError::Write { path: self.path.clone(), source: errno.into() })
    }

    /// The folder in which a path is, made if necessary, and the name in it.
    fn folder_of<'p>(&self, path: &'p DrivePath) -> Result<(OwnedFd, &'p str), Errno> {
        inside::folder_of(&self.fd, path, |folder, part| fs::mkdirat(folder, part, Mode::from_raw_mode(0o777)))
    }

    /// Says whether it was necessary.
    fn write_link(&self, path: &DrivePath, target: &str, replace: bool) -> Result<bool, Failed> {
        let (folder, name) = self.folder_of(path)?;
        if fs::readlinkat(&folder, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.as_bytes()) {
            return Ok(false);
        }
        if !replace && is_taken(&folder, name)? {
            return Err(Failed::Other);
        }
        remove(&folder, PART)?;
        fs::symlinkat(target, &folder, PART)?;
        if let Err(error) = give_name(&folder, name, replace) {
            _ = remove(&folder, PART);
            return Err(error);
        }
        Ok(true)
    }
}

/// Whether something has that name.
fn is_taken(folder: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Gives what is whole its name.
fn give_name(folder: &OwnedFd, name: &str, replace: bool) -> Result<(), Failed> {
    if !replace {
        match fs::renameat_with(folder, PART, folder, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(Failed::Other),
            // A file system that can't promise it; that the name was free a moment ago has to do.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    Ok(fs::renameat(folder, PART, folder, name)?)
}

fn remove(folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drive::Drive, import::import};
    use datdot_hypercore::{Keypair, Store};
    use proptest::prelude::*;
    use std::{fs::Permissions, ops::ControlFlow, os::unix::fs::symlink};

    fn link(path: &str, target: &str) -> Option<String> {
        link_within(&path.parse().unwrap(), target, 0)
    }

    #[test]
    fn links_lead_where_the_drive_says_or_nowhere() {
        assert_eq!(link("/a/link", "b").as_deref(), Some("b"));
        assert_eq!(link("/a/link", "../c/d").as_deref(), Some("../c/d"));
        // From the top of the drive.
        assert_eq!(link("/a/b/link", "/c").as_deref(), Some("../../c"));
        assert_eq!(link("/link", "/").as_deref(), Some("."));
        // Through a name that may be a link itself.
        assert_eq!(link("/a/link", "b/../../c").as_deref(), Some("../c"));
        for outside in ["../..", "../../a", "x/../../../y", "/..", "..\\..\\x", "a\0b"] {
            assert_eq!(link("/a/link", outside), None, "{outside}");
        }
        // Out of the folder that is exported.
        assert_eq!(link_within(&"/a/link".parse().unwrap(), "../c", 1), None);
        assert_eq!(link_within(&"/a/b/link".parse().unwrap(), "/a/c", 1).as_deref(), Some("../c"));
    }

    #[test]
    fn what_is_in_the_way_and_how_much_is_to_be_written_shows_before_any_content_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        let drive =
            Drive::create(&Store::open(dir.path().join("store")).unwrap(), &Keypair::from_seed([1; 32])).unwrap();
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&target).unwrap();
        for name in ["mine", "same", "new", "run"] {
            std::fs::write(source.join(name), "12345").unwrap();
        }
        for name in ["link", "same link"] {
            symlink("new", source.join(name)).unwrap();
        }
        import(&drive, &source, &mut |_| ControlFlow::Continue(())).unwrap();
        let blobs = drive.blobs().unwrap();
        blobs.clear_now(0..blobs.info().length).unwrap();
        std::fs::write(target.join("mine"), "mine").unwrap();
        std::fs::write(target.join("same"), "12345").unwrap();
        std::fs::write(target.join("run"), "12345").unwrap();
        std::fs::set_permissions(target.join("run"), Permissions::from_mode(0o755)).unwrap();
        symlink("elsewhere", target.join("link")).unwrap();
        symlink("new", target.join("same link")).unwrap();

        let look = |target: &Path, replace| {
            let options = Options { folder: None, max_bytes: u64::MAX, replace };
            super::look(&drive.latest(), target, &options, &mut |_| ControlFlow::Continue(())).unwrap()
        };
        let outlook = look(&target, false);
        let others: Vec<_> = outlook.others.iter().map(|other| other.name.as_str()).collect();
        assert_eq!((outlook.bytes, others), (10, vec!["/mine", "/run", "/link"]));
        assert!(look(&target, true).others.is_empty());
        let nowhere = look(&dir.path().join("nowhere"), false);
        assert_eq!((nowhere.bytes, nowhere.others.len()), (20, 0));
    }

    proptest! {
        /// The system itself is asked where a tree of such links leads.
        #[test]
        fn no_chain_of_links_leaves_the_folder(
            links in proptest::collection::vec(("[abc](/[abc]){0,2}", "(/)?(\\.\\.|[abc])(/(\\.\\.|[abc])){0,4}"), 1..8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::open(&dir.path().join("x/y/target")).unwrap();
            let mut made = Vec::new();
            for (path, target) in links {
                let path: DrivePath = path.parse().unwrap();
                let Some(target) = link_within(&path, &target, 0) else { continue };
                if root.write_link(&path, &target, true).is_ok() {
                    made.push(path);
                }
            }
            let top = root.path.canonicalize().unwrap();
            for path in made {
                if let Ok(leads_to) = root.path.join(&path.as_str()[1..]).canonicalize() {
                    prop_assert!(leads_to.starts_with(&top), "{path} leads to {}", leads_to.display());
                }
            }
        }
    }
}
