//! A file of 1 GiB, alone in its process: what counts is the memory of that.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;
use datdot_drive::{
    Drive,
    export::{Options, export},
    import::import,
    progress::Progress,
};
use datdot_hypercore::{Keypair, Store};
use folder::*;
use std::{fs, ops::ControlFlow};

const BYTES: u64 = 1 << 30;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn memory_stays_flat_with_a_file_of_a_gibibyte() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    make_sparse(&source.join("large"), BYTES);
    let store = Store::open(dir.path().join("store")).unwrap();
    let drive = Drive::create(&store, &Keypair::from_seed([1; 32])).unwrap();
    assert_eq!(import(&drive, &source, &mut go_on).unwrap().new_bytes, BYTES);
    assert_eq!(import(&drive, &source, &mut go_on).unwrap().new_bytes, 0);
    let options = Options { folder: None, max_bytes: BYTES, replace: true };
    export(&drive.latest(), &target, &options, &mut go_on).unwrap();
    let peak = peak_memory();
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
    assert_same(&source, &target);
}
