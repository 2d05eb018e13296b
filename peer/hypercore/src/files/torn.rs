//! A machine in memory whose power fails: what was not synced survives in part, in any part.
//!
//! Of the contents any subset of the unsynced writes survives, each whole, cut at a byte, or in some of its sectors; changes of a
//! file's size count as writes. Of the names (new, renamed and removed files) the first few changes survive, in their
//! order, as journaling file systems keep them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub(crate) struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct Handle {
    machine: Machine,
    file: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Files by their numbers; folders have none.
    names: Names,
    /// The names as they are on the disk, and the changes that are not yet.
    kept: Names,
    changes: Vec<Rename>,
    files: Vec<Inode>,
    /// So many more writes, then the power fails.
    fuse: Option<u64>,
    off: bool,
    /// Bytes by which files may still grow.
    room: Option<u64>,
    syncs: u64,
    /// Bytes that were read.
    reads: u64,
    /// Pages of files that can't be read until they are written as a whole.
    unreadable: BTreeSet<(usize, u64)>,
    /// No sync succeeds.
    unsyncable: bool,
}

type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Debug)]
enum Rename {
    Make(PathBuf, Option<usize>),
    Move(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    kept: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Zeros(Range<u64>),
    Len(u64),
}

/// Throws dice, the same for the same seed (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl Machine {
    /// After so many more writes the power fails, within that write.
    pub fn fail_after(&self, writes: u64) {
        self.lock().fuse = Some(writes);
    }

    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// From now on files can grow by so many bytes together.
    pub fn leave_room(&self, bytes: Option<u64>) {
        self.lock().room = bytes;
    }

    /// Files synced so far, folders not counted.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Bytes read so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Changes the bytes of a file behind everybody's back.
    pub fn damage(&self, path: &Path, at: usize) {
        let mut state = self.lock();
        let file = state.names[path].expect("it is a file");
        let inode = &mut state.files[file];
        for bytes in [&mut inode.now, &mut inode.kept] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0xff;
            }
        }
    }

    /// From now on the page with this byte of a file can't be read.
    pub fn lose(&self, path: &Path, at: u64) {
        let mut state = self.lock();
        let file = state.names[path].expect("it is a file");
        state.unreadable.insert((file, at / PAGE));
    }

    /// From now on no sync succeeds.
    pub fn fail_syncs(&self) {
        self.lock().unsyncable = true;
    }

    /// Starts again after the process was killed: what was written is there.
    pub fn restart(&self) {
        let mut state = self.lock();
        (state.fuse, state.off, state.unsyncable) = (None, false, false);
    }

    /// Starts again after the power failed: what was synced is there, and some of the rest.
    pub fn restart_after_power_loss(&self, dice: &mut Dice) {
        self.restart();
        let mut state = self.lock();
        let changes = std::mem::take(&mut state.changes);
        let survive = dice.below(changes.len() as u64 + 1) as usize;
        changes.iter().take(survive).for_each(|change| apply(&mut state.kept, change));
        state.names = state.kept.clone();
        for inode in &mut state.files {
            for write in std::mem::take(&mut inode.unsynced) {
                write.torn(&mut inode.kept, dice);
            }
            inode.now.clone_from(&inode.kept);
        }
    }

    pub fn open(&self, path: &Path, make: bool) -> io::Result<Handle> {
        let file = match self.lock().names.get(path) {
            Some(Some(file)) => Some(*file),
            Some(None) => return Err(io::ErrorKind::IsADirectory.into()),
            None if !make => return Err(io::ErrorKind::NotFound.into()),
            None => None,
        };
        let file = match file {
            Some(file) => file,
            None => {
                self.write()?;
                let mut state = self.lock();
                let file = state.files.len();
                state.files.push(Inode::default());
                state.rename(Rename::Make(path.to_owned(), Some(file)));
                file
            }
        };
        Ok(Handle { machine: self.clone(), file })
    }

    pub fn make_dir(&self, path: &Path) -> io::Result<()> {
        if !self.lock().names.contains_key(path) {
            self.write()?;
            self.lock().rename(Rename::Make(path.to_owned(), None));
        }
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.lock().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write()?;
        self.lock().rename(Rename::Move(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.write()?;
        self.lock().rename(Rename::Remove(path.to_owned()));
        Ok(())
    }

    /// Keeps all names: file systems with a journal keep what came before as well.
    pub fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.write()?;
        let mut state = self.lock();
        state.kept = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    /// One more write; an error if the power is off, or fails now.
    fn write(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.fuse = state.fuse.map(|fuse| fuse.saturating_sub(1));
        state.off |= state.fuse == Some(0);
        if state.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rename(&mut self, change: Rename) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }
}

fn apply(names: &mut Names, change: &Rename) {
    match change {
        Rename::Make(path, file) => _ = names.insert(path.clone(), *file),
        Rename::Move(from, to) => {
            let moved: Vec<_> = names.extract_if(.., |path, _| path.starts_with(from)).collect();
            for (path, file) in moved {
                let rest = path.strip_prefix(from).expect("it starts with it");
                let path = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(path, file);
            }
        }
        Rename::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Write::Bytes(at, new) => put(bytes, *at, new),
            Write::Zeros(range) => {
                let len = bytes.len();
                bytes[len.min(range.start as usize)..len.min(range.end as usize)].fill(0);
            }
            Write::Len(len) => bytes.resize(*len as usize, 0),
        }
    }

    /// What a power failure leaves of a write.
    fn torn(&self, bytes: &mut Vec<u8>, dice: &mut Dice) {
        match (self, dice.below(4)) {
            (_, 0) => {}
            (_, 1) => self.apply(bytes),
            (Write::Bytes(at, new), 2) => put(bytes, *at, &new[..dice.below(new.len() as u64 + 1) as usize]),
            (Write::Bytes(at, new), _) => {
                let mut start = 0;
                while start < new.len() {
                    let end = new.len().min((((*at + start as u64) / SECTOR + 1) * SECTOR - *at) as usize);
                    if dice.coin() {
                        put(bytes, *at + start as u64, &new[start..end]);
                    }
                    start = end;
                }
            }
            (Write::Zeros(range), _) => {
                let end = range.start + dice.below(range.end - range.start + 1);
                Write::Zeros(range.start..end).apply(bytes);
            }
            (Write::Len(_), _) => self.apply(bytes),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: u64, new: &[u8]) {
    let end = at as usize + new.len();
    if new.is_empty() {
        return;
    }
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at as usize..end].copy_from_slice(new);
}

impl Handle {
    /// An error if one of the pages can't be read.
    fn check(&self, pages: Range<u64>) -> io::Result<()> {
        match self.machine.lock().unreadable.range((self.file, pages.start)..(self.file, pages.end)).next() {
            Some(_) => Err(rustix::io::Errno::IO.into()),
            None => Ok(()),
        }
    }

    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.machine.lock().reads += buffer.len() as u64;
        self.check(at / PAGE..(at + buffer.len() as u64).div_ceil(PAGE))?;
        self.with(|inode| {
            let rest = inode.now.get(at as usize..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    /// The sector of the next byte that is not 0.
    pub fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        self.with(|inode| {
            let data = inode.now.iter().skip(at as usize).position(|byte| *byte != 0);
            Ok(data.map(|skipped| at.max((at + skipped as u64) / SECTOR * SECTOR)))
        })
    }

    pub fn read_all(&self, most: u64) -> io::Result<Vec<u8>> {
        self.with(|inode| Ok(inode.now[..inode.now.len().min(most as usize)].to_vec()))
    }

    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.machine.is_off() {
            return self.machine.write();
        }
        // The rest of a page is read before a part of it is written.
        let (end, whole) = (at + bytes.len() as u64, at.div_ceil(PAGE)..(at + bytes.len() as u64) / PAGE);
        self.check(at / PAGE..whole.start)?;
        self.check(whole.end..end.div_ceil(PAGE))?;
        {
            let mut state = self.machine.lock();
            state.unreadable.retain(|(file, page)| *file != self.file || !whole.contains(page));
            let grows = (at + bytes.len() as u64).saturating_sub(state.files[self.file].now.len() as u64);
            match &mut state.room {
                Some(room) if *room < grows => return Err(io::ErrorKind::StorageFull.into()),
                Some(room) => *room -= grows,
                None => {}
            }
        }
        // The write in which the power fails may have happened, in part.
        let written = self.machine.write();
        self.change(Write::Bytes(at, bytes.to_vec()));
        written
    }

    pub fn sync(&self) -> io::Result<()> {
        self.machine.write()?;
        if self.machine.lock().unsyncable {
            return Err(io::Error::other("the disk does not take it"));
        }
        self.machine.lock().syncs += 1;
        self.with(|inode| {
            inode.unsynced.clear();
            inode.kept.clone_from(&inode.now);
            Ok(())
        })
    }

    pub fn len(&self) -> io::Result<u64> {
        self.with(|inode| Ok(inode.now.len() as u64))
    }

    /// Whether the file could grow to this length.
    pub fn reserve(&self, len: u64) -> io::Result<()> {
        let state = self.machine.lock();
        let grows = len.saturating_sub(state.files[self.file].now.len() as u64);
        match state.room.is_some_and(|room| room < grows) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.machine.write()?;
        {
            let mut state = self.machine.lock();
            let freed = (state.files[self.file].now.len() as u64).saturating_sub(len);
            state.room = state.room.map(|room| room + freed);
        }
        self.change(Write::Len(len));
        Ok(())
    }

    pub fn give_back(&self, bytes: Range<u64>) -> io::Result<()> {
        self.machine.write()?;
        self.change(Write::Zeros(bytes));
        Ok(())
    }

    fn change(&self, write: Write) {
        let mut state = self.machine.lock();
        let inode = &mut state.files[self.file];
        write.apply(&mut inode.now);
        inode.unsynced.push(write);
    }

    fn with<T>(&self, look: impl FnOnce(&mut Inode) -> io::Result<T>) -> io::Result<T> {
        look(&mut self.machine.lock().files[self.file])
    }
}
