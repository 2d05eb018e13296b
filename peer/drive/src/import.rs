//! From a folder to a drive: what changed is added, what is gone is deleted.
//!
//! Nothing is remembered between two imports. A file is the one in the drive if its blocks have the hashes that are in the tree
//! of the blobs feed, so the folder is read, but not the feed; one that was moved is found again by its size and those hashes, and what
//! an import had written before it was cut off is found as well.

use crate::{
    blobs::{Layout, StreamError, Writing},
    drive::{Drive, DriveError},
    entry::{Blob, Content, Entry},
    export::is_part,
    inside,
    leftover::{Found as There, Leftover},
    path::DrivePath,
    progress::{Counter, Listener, Skipped, Stopped, Why},
};
use ignore::WalkBuilder;
use rustix::{fd::OwnedFd, fs::readlinkat, io::Errno};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
    time::SystemTime,
};

/// Names what is left out: patterns as in `.gitignore`, for the folder with the file and those below. It is left out itself.
pub const IGNORE_FILE: &str = ".datdotignore";
/// After so much new content the metadata is written too: that much is read again at most if the import is cut off.
const COMMIT_BYTES: u64 = 1 << 30;
/// Contents of the same size that a new file is compared with.
const MAX_COMPARED: usize = 8;

/// What is imported: a path, or a path without some of what is below it.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Folders in which the program keeps secrets and feeds of its own. They are left out by whatever name they are met, and
    /// a folder in one of them is refused.
    pub without: &'a [PathBuf],
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Folder<'a> {
    fn from(path: &'a P) -> Self {
        Folder { path: path.as_ref(), without: &[] }
    }
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Imported {
    /// Paths that are new.
    pub added: u64,
    /// Paths that have another content, target or executable bit now.
    pub changed: u64,
    /// Paths that are gone.
    pub deleted: u64,
    /// Paths that are as they were.
    pub unchanged: u64,
    /// Bytes of content that the drive did not have.
    pub new_bytes: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What a drive can't have.
    pub skipped: Vec<Skipped>,
}

/// Why an import ended early. What it had written by then is a drive, and the next import goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or folder can't be read.
    #[error("{}: {source}{}", path.display(), advice(Some(source)))]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder can't be walked through, or a line of an [`IGNORE_FILE`] is no pattern.
    #[error("{}{}", .0, advice(.0.io_error()))]
    Walk(#[from] ignore::Error),
    /// An [`IGNORE_FILE`] can't be read, and what it hides would be published.
    #[error("{}: {why}; it says what is left out, so make it readable, and save it as UTF-8", path.display())]
    Patterns {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It lies in one of the folders that are left out.
    #[error("{} lies where this program keeps its own secrets and feeds", path.display())]
    Own {
        /// What was to be imported.
        path: PathBuf,
    },
    /// The drive can't be written.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The listener ended it.
    #[error("stopped")]
    Stopped,
}

impl From<Stopped> for ImportError {
    fn from(Stopped: Stopped) -> Self {
        ImportError::Stopped
    }
}

/// What whoever may not read something can do.
fn advice(error: Option<&io::Error>) -> String {
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => format!("; make it readable, or name it in {IGNORE_FILE}"),
        _ => String::new(),
    }
}

/// Brings a drive up to a folder. Links are not followed, empty folders are not kept. Waits for the disk: not for a thread
/// that has other things to do.
pub fn import<'a, 'f>(
    drive: &Drive,
    folder: impl Into<Folder<'f>>,
    listener: &'a mut Listener<'a>,
) -> Result<Imported, ImportError> {
    let _alone = drive.alone()?;
    let mut imported = Imported::default();
    let folder = folder.into();
    let found = walk(folder, &mut imported.skipped)?;
    let top = inside::top(folder.path)
        .map_err(|errno| ImportError::Read { path: folder.path.to_owned(), source: errno.into() })?;
    let known = Known::of(drive)?;
    let mut work = Work {
        leftover: Leftover::after(drive.blobs()?, known.end).map_err(DriveError::Blobs)?,
        known,
        writing: Writing::new(drive.blobs()?.clone()),
        changes: Vec::new(),
        uncommitted: 0,
        counter: Counter::new(found.len() as u64, found.iter().map(|found| found.bytes).sum(), listener),
        drive,
        top,
        imported,
    };
    for found in &found {
        work.add(found)?;
    }
    work.delete_others();
    work.commit()?;
    Ok(work.imported)
}

/// What an import would find, without reading a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Files and links that are not ignored.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files and links that are new, or have changed as far as size and time tell.
    pub new_files: u64,
    /// Their bytes: what an import adds at most.
    pub new_bytes: u64,
}

/// Measures a folder, compared with the drive that it was imported to at some time, if it was.
pub fn measure<'f>(
    folder: impl Into<Folder<'f>>,
    before: Option<(&Drive, SystemTime)>,
) -> Result<Measured, ImportError> {
    let found = walk(folder.into(), &mut Vec::new())?;
    let (known, since) = match before {
        Some((drive, since)) => (Known::of(drive)?.entries, Some(since)),
        None => (BTreeMap::new(), None),
    };
    let is_known = |found: &Found| match known.get(&found.path).map(|entry| &entry.content) {
        Some(Content::File { blob, .. }) => {
            !found.is_link && blob.byte_length == found.bytes && found.modified.is_some_and(|at| Some(at) < since)
        }
        Some(Content::Link { .. }) => found.is_link,
        _ => false,
    };
    let mut measured = Measured::default();
    for found in &found {
        measured.files += 1;
        measured.bytes = measured.bytes.saturating_add(found.bytes);
        if !is_known(found) {
            measured.new_files += 1;
            measured.new_bytes = measured.new_bytes.saturating_add(found.bytes);
        }
    }
    Ok(measured)
}

struct Found {
    path: DrivePath,
    from: PathBuf,
    is_link: bool,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// All files and links of a folder that are not ignored.
fn walk(folder: Folder<'_>, skipped: &mut Vec<Skipped>) -> Result<Vec<Found>, ImportError> {
    // What can't be found is the walk's to tell.
    if leads_into(folder.path, folder.without).unwrap_or(false) {
        return Err(ImportError::Own { path: folder.path.to_owned() });
    }
    let own: Vec<_> = folder.without.iter().filter_map(|own| identity(own)).collect();
    let (tell, left_out) = mpsc::channel();
    let mut builder = WalkBuilder::new(folder.path);
    builder.standard_filters(false).add_custom_ignore_filename(IGNORE_FILE).sort_by_file_name(Ord::cmp);
    builder.filter_entry(move |entry| {
        let may_be = !own.is_empty() && entry.file_type().is_some_and(|kind| kind.is_dir());
        let is_own = may_be && identity(entry.path()).is_some_and(|it| own.contains(&it));
        if is_own {
            _ = tell.send(entry.path().to_owned());
        }
        !is_own
    });
    let name_of = |path: &Path| path.strip_prefix(folder.path).unwrap_or(path).display().to_string();
    let mut all = Vec::new();
    for entry in builder.build() {
        let entry = match entry {
            Err(error) if is_gone(error.io_error()) && error.depth() != Some(0) => continue,
            entry => entry?,
        };
        let is_folder = entry.depth() == 0 || entry.file_type().is_some_and(|kind| kind.is_dir());
        if is_folder {
            check_patterns(entry.path())?;
        }
        // A pattern that can't be read would publish what it was to hide.
        if let Some(error) = entry.error() {
            return Err(error.clone().into());
        }
        if is_folder || entry.file_name() == IGNORE_FILE {
            continue;
        }
        let from = entry.into_path();
        let Some(metadata) = unless_gone(fs::symlink_metadata(&from), &from)? else { continue };
        let mut skip = |why| skipped.push(Skipped { name: name_of(&from), why });
        if !metadata.is_file() && !metadata.is_symlink() {
            skip(Why::Special);
            continue;
        }
        match path_of(from.strip_prefix(folder.path).unwrap_or(&from)) {
            Ok(path) if path.parts().any(is_part) => skip(Why::Reserved),
            Ok(path) => all.push(Found {
                path,
                is_link: metadata.is_symlink(),
                bytes: if metadata.is_file() { metadata.len() } else { 0 },
                modified: metadata.modified().ok(),
                from,
            }),
            Err(why) => skip(why.into()),
        }
    }
    skipped.extend(left_out.try_iter().map(|own| Skipped { name: name_of(&own), why: Why::Own }));
    Ok(all)
}

/// Whether a path leads to one of these folders or into it. Links and other names of a folder make no difference.
pub fn leads_into(path: &Path, folders: &[PathBuf]) -> io::Result<bool> {
    let folders: Vec<_> = folders.iter().filter_map(|folder| identity(folder)).collect();
    let is_one = |above: &Path| identity(above).is_some_and(|it| folders.contains(&it));
    Ok(path.canonicalize()?.ancestors().any(is_one))
}

/// What a file or folder is whatever it is called.
fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|it| (it.dev(), it.ino()))
}

/// Refuses patterns that would be taken for fewer than they are: what reads them ends at the first line that is not UTF-8, and
/// doesn't tell.
fn check_patterns(folder: &Path) -> Result<(), ImportError> {
    let path = folder.join(IGNORE_FILE);
    match fs::symlink_metadata(&path).map_err(|error| (error.kind(), error)) {
        Ok(_) => {}
        Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _)) => return Ok(()),
        Err((_, source)) => return Err(ImportError::Read { path: folder.to_owned(), source }),
    }
    let why = match fs::read_to_string(&path) {
        // So it looks if it is UTF-16 without a mark at its start.
        Ok(text) if text.contains('\0') => io::Error::new(io::ErrorKind::InvalidData, "it has zero bytes in it"),
        Ok(_) => return Ok(()),
        Err(why) => why,
    };
    Err(ImportError::Patterns { path, why })
}

fn path_of(name: &Path) -> Result<DrivePath, crate::path::PathError> {
    let parts: Option<Vec<_>> = name.iter().map(|part| part.to_str()).collect();
    DrivePath::from_parts(parts.ok_or(crate::path::PathError::NotText)?)
}

fn is_gone(error: Option<&io::Error>) -> bool {
    error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn unless_gone<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, ImportError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(Some(&error)) => Ok(None),
        Err(source) => Err(ImportError::Read { path: path.to_owned(), source }),
    }
}

/// Nothing if it is not there any more, or something else is: a link or a pipe in the place of a file, a file in that of a link.
fn unless_changed<T>(result: Result<T, Errno>, path: &Path) -> Result<Option<T>, ImportError> {
    match result {
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::INVAL) => Ok(None),
        result => unless_gone(result.map_err(io::Error::from), path),
    }
}

/// What the drive had before.
struct Known {
    entries: BTreeMap<DrivePath, Entry>,
    by_size: HashMap<u64, Vec<Blob>>,
    /// The block after the last one that it knows.
    end: u64,
}

impl Known {
    fn of(drive: &Drive) -> Result<Known, DriveError> {
        let (mut entries, mut by_size, mut end) = (BTreeMap::new(), HashMap::<_, Vec<_>>::new(), 0u64);
        for entry in drive.latest().entries(None) {
            let (path, entry) = match entry {
                // Somebody else's doing: it is left alone.
                Err(DriveError::Entry(_)) => continue,
                entry => entry?,
            };
            if let Content::File { blob, .. } = &entry.content {
                end = end.max(blob.block_offset.saturating_add(blob.block_length));
                let same_size = by_size.entry(blob.byte_length).or_default();
                if !blob.block_map && !same_size.contains(blob) && same_size.len() < MAX_COMPARED {
                    same_size.push(*blob);
                }
            }
            entries.insert(path, entry);
        }
        Ok(Known { entries, by_size, end })
    }
}

struct Work<'a> {
    drive: &'a Drive,
    top: OwnedFd,
    known: Known,
    leftover: Leftover,
    writing: Writing,
    changes: Vec<(DrivePath, Option<Entry>)>,
    /// Bytes of content that no metadata on the disk knows.
    uncommitted: u64,
    counter: Counter<'a>,
    imported: Imported,
}

impl Work<'_> {
    fn add(&mut self, found: &Found) -> Result<(), ImportError> {
        // What vanished since, or became something else, is deleted with the rest.
        let Some(content) = (if found.is_link { self.read_link(found)? } else { self.read_file(found)? }) else {
            return Ok(self.counter.done(found.bytes)?);
        };
        if let Content::File { blob, .. } = &content {
            let bytes = if blob.block_map { found.bytes } else { blob.byte_length };
            self.imported.bytes = self.imported.bytes.saturating_add(bytes);
        }
        match self.known.entries.remove(&found.path) {
            Some(old) if old.content == content => self.imported.unchanged += 1,
            Some(old) => {
                self.imported.changed += 1;
                self.changes.push((found.path.clone(), Some(Entry { content, ..old })));
            }
            None => {
                self.imported.added += 1;
                self.changes.push((found.path.clone(), Some(Entry { content, metadata: None })));
            }
        }
        if self.uncommitted >= COMMIT_BYTES {
            self.commit()?;
        }
        Ok(self.counter.done(found.bytes)?)
    }

    fn read_file(&mut self, found: &Found) -> Result<Option<Content>, ImportError> {
        let Some(file) = self.open(found)? else { return Ok(None) };
        let failed = |error| match error {
            StreamError::Feed(error) => DriveError::Blobs(error).into(),
            StreamError::Read(error) if error.get_ref().is_some_and(|error| error.is::<Stopped>()) => {
                ImportError::Stopped
            }
            StreamError::Read(source) => ImportError::Read { path: found.from.clone(), source },
        };
        let metadata = file.metadata().map_err(|error| failed(StreamError::Read(error)))?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let executable = is_executable(&metadata);
        let mut source = Source { file, len: metadata.len(), at: 0, counter: &mut self.counter };

        let before = self.known.entries.get(&found.path).and_then(|entry| match &entry.content {
            Content::File { blob, .. } => Some(*blob),
            _ => None,
        });
        let same_size = self.known.by_size.get(&metadata.len()).into_iter().flatten().copied();
        let blobs = self.drive.blobs()?;
        for blob in before.into_iter().chain(same_size.filter(|blob| Some(*blob) != before)) {
            // A block map that can't be read is one that nothing is equal to.
            let Ok(layout) = Layout::of(blobs, &blob) else { continue };
            if layout.bytes() == metadata.len() {
                let same = source.rewind().map_err(StreamError::Read).and_then(|()| layout.is_same(blobs, &mut source));
                if same.map_err(failed)? {
                    return Ok(Some(Content::File { blob, executable }));
                }
            }
        }
        let blob = add(&self.leftover, &mut self.writing, &mut source).map_err(failed)?;
        self.imported.new_bytes += blob.byte_length;
        self.uncommitted += blob.byte_length;
        Ok(Some(Content::File { blob, executable }))
    }

    /// Opens a file where the walk found it.
    fn open(&self, found: &Found) -> Result<Option<File>, ImportError> {
        let opened = self.folder_of(found).and_then(|(folder, name)| inside::open(&folder, name));
        Ok(unless_changed(opened, &found.from)?.map(File::from))
    }

    fn read_link(&self, found: &Found) -> Result<Option<Content>, ImportError> {
        let read = self.folder_of(found).and_then(|(folder, name)| readlinkat(&folder, name, Vec::new()));
        let Some(target) = unless_changed(read, &found.from)? else { return Ok(None) };
        // A target that is not text is lost in part; what it leads to could not be named in a drive anyway.
        Ok(Some(Content::Link { target: target.to_string_lossy().into_owned() }))
    }

    fn folder_of<'p>(&self, found: &'p Found) -> Result<(OwnedFd, &'p str), Errno> {
        inside::folder_of(&self.top, &found.path, |_, _| Err(Errno::NOENT))
    }

    fn delete_others(&mut self) {
        let gone = std::mem::take(&mut self.known.entries);
        self.imported.deleted = gone.len() as u64;
        self.changes.extend(gone.into_keys().map(|path| (path, None)));
    }

    /// Writes contents, then what points to them.
    fn commit(&mut self) -> Result<(), ImportError> {
        self.writing.flush().map_err(DriveError::Blobs)?;
        self.drive.change(self.changes.drain(..))?;
        self.uncommitted = 0;
        Ok(())
    }
}

/// Where a content is that the metadata does not know.
fn add(leftover: &Leftover, writing: &mut Writing, source: &mut Source<'_, '_>) -> Result<Blob, StreamError> {
    let there = if leftover.is_empty() { None } else { leftover.find(source)? };
    match there {
        Some(There::Whole(blob)) => Ok(blob),
        Some(There::Begun(blocks, bytes)) if blocks.end == writing.length() => {
            source.seek(SeekFrom::Start(bytes.end - bytes.start)).map_err(StreamError::Read)?;
            writing.add_rest(blocks.start, bytes.start, source)
        }
        _ => {
            source.rewind().map_err(StreamError::Read)?;
            writing.add(source)
        }
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

/// A file that tells how far it was read, up to the length that it had when it was opened: who appends to it meanwhile, a log
/// for example, makes it no longer.
struct Source<'a, 'b> {
    file: File,
    len: u64,
    at: u64,
    counter: &'a mut Counter<'b>,
}

impl Seek for Source<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // Most files are read once, from the start.
        if to != SeekFrom::Start(self.at) {
            self.at = self.file.seek(to)?;
        }
        Ok(self.at)
    }
}

impl Read for Source<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.len.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        let len = self.file.read(&mut buffer[..most])?;
        self.at += len as u64;
        self.counter.tell(self.at).map_err(io::Error::other)?;
        Ok(len)
    }
}
