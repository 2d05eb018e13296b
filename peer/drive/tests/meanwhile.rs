//! A folder in which somebody else writes while it is imported.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use datdot_drive::{Drive, import::import};
use datdot_hypercore::{Keypair, Store};
use std::{fs, mem, ops::ControlFlow, os::unix::fs::symlink, path::Path, process::Command};

fn write(path: impl AsRef<Path>, content: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn names(drive: &Drive) -> Vec<String> {
    drive.latest().entries(None).map(|entry| entry.unwrap().0.to_string()).collect()
}

#[test]
fn no_link_and_no_pipe_is_followed_that_was_put_there_after_the_folder_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (source, outside) = (dir.path().join("source"), dir.path().join("outside"));
    let store = Store::open(dir.path().join("store")).unwrap();
    let drive = Drive::create(&store, &Keypair::from_seed([1; 32])).unwrap();
    for name in ["a", "folder/file", "link", "pipe", "z"] {
        write(source.join(name), "public");
    }
    fs::remove_file(source.join("link")).unwrap();
    symlink("a", source.join("link")).unwrap();
    write(outside.join("file"), "secret");
    write(outside.join("secret"), "secret");
    let mut swapped = false;
    let mut swap = |_| {
        if !mem::replace(&mut swapped, true) {
            fs::remove_dir_all(source.join("folder")).unwrap();
            symlink(&outside, source.join("folder")).unwrap();
            for name in ["link", "pipe", "z"] {
                fs::remove_file(source.join(name)).unwrap();
            }
            symlink(outside.join("secret"), source.join("z")).unwrap();
            write(source.join("link"), "no link");
            let made = Command::new("mkfifo").arg(source.join("pipe")).status().unwrap();
            assert!(made.success());
        }
        ControlFlow::Continue(())
    };
    import(&drive, &source, &mut swap).unwrap();
    assert!(swapped);
    assert_eq!(names(&drive), ["/a"]);
    assert_eq!(drive.blobs().unwrap().info().bytes, "public".len() as u64);
    // The next import sees what it is.
    assert_eq!(import(&drive, &source, &mut |_| ControlFlow::Continue(())).unwrap().skipped.len(), 1, "the pipe");
    assert_eq!(names(&drive), ["/a", "/folder", "/link", "/z"]);
}
