//! Folders with all that a folder may have, and how they are compared.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

pub fn set_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The same as in `tests/js/drive.js`.
pub fn hash(bytes: &[u8]) -> String {
    hex::encode(blake2b_simd::blake2b(bytes).as_bytes())
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Many small files, and some of every other kind.
pub fn make_tree(root: &Path, files: usize) {
    for number in 0..files {
        write(&root.join(format!("folder {}/file {number}.txt", number % 7)), format!("content {number} of the tree"));
    }
    write(&root.join("empty"), "");
    write(&root.join("Größe/ｆｕｌｌ/日本語/🙂.txt"), "unicode");
    write(&root.join("e\u{301} decomposed"), "unicode");
    write(&root.join("new\nline and \"quotes\""), "control");
    let deep = (0..60).fold(root.join("deep"), |path, number| path.join(format!("level {number}")));
    write(&deep.join("file"), "deep");
    write(&root.join(".hidden/.file"), "hidden");
    write(&root.join("run.sh"), "#!/bin/sh");
    set_executable(&root.join("run.sh"));
    write(&root.join("numbers/block"), noise(1, 65_536));
    write(&root.join("numbers/block and a byte"), noise(2, 65_537));
    write(&root.join("numbers/many"), noise(3, 900_000));
    write(&root.join("numbers/to be moved"), noise(4, 700_000));
    write(&root.join("numbers/same"), noise(3, 900_000));
    symlink("numbers/many", root.join("link")).unwrap();
    symlink("../empty", root.join("numbers/link up")).unwrap();
    symlink("nowhere", root.join("broken link")).unwrap();
}

/// Adds, changes, moves and deletes; returns how many bytes are new.
pub fn change_tree(root: &Path) -> u64 {
    write(&root.join("folder 3/new"), "new");
    write(&root.join("folder 1/file 8.txt"), "changed");
    fs::rename(root.join("numbers/to be moved"), root.join("moved")).unwrap();
    fs::remove_dir_all(root.join("folder 2")).unwrap();
    fs::remove_file(root.join("empty")).unwrap();
    // A file becomes a folder, a folder a file.
    fs::remove_file(root.join("run.sh")).unwrap();
    write(&root.join("run.sh/inside"), "inside");
    fs::remove_dir_all(root.join(".hidden")).unwrap();
    write(&root.join(".hidden"), "a file now");
    set_executable(&root.join("numbers/block"));
    // In the middle of a large file.
    let mut many = noise(3, 900_000);
    many.splice(500_000..500_010, *b"something else");
    write(&root.join("numbers/many"), &many);
    fs::remove_file(root.join("link")).unwrap();
    symlink("moved", root.join("link")).unwrap();
    many.len() as u64
}

/// A file with a little content at its start, in the middle and at its end.
pub fn make_sparse(path: &Path, bytes: u64) {
    let mut file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    for at in [0, bytes / 2, bytes - 100] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&noise(at, 100)).unwrap();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum There {
    File { executable: bool, bytes: u64, hash: String },
    Link(String),
}

fn tree(root: &Path) -> BTreeMap<String, There> {
    let mut all = BTreeMap::new();
    for entry in ignore::WalkBuilder::new(root).standard_filters(false).build() {
        let path = entry.unwrap().into_path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let there = if metadata.is_symlink() {
            There::Link(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
        } else if metadata.is_file() {
            let content = fs::read(&path).unwrap();
            let executable = metadata.permissions().mode() & 0o100 != 0;
            There::File { executable, bytes: metadata.len(), hash: hash(&content) }
        } else {
            continue;
        };
        all.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), there);
    }
    all
}

pub fn names_in(root: &Path) -> Vec<String> {
    tree(root).into_keys().collect()
}

pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (tree(one), tree(other));
    for (name, there) in &one {
        assert_eq!(Some(there), other.get(name), "{name}");
    }
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
}
