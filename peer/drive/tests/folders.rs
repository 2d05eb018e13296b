//! Folders go into a drive and come out again, as they are and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;
use datdot_drive::{
    BeeError, Content, Drive, DriveError, DrivePath, Version,
    export::{ExportError, Exported, Options, export, is_part},
    fetch::{fetch, fetch_blobs, fetch_metadata, with_missing},
    import::{Folder, IGNORE_FILE, ImportError, Imported, Measured, import, leads_into, measure},
    progress::{Progress, Why},
};
use datdot_hypercore::{Config, FeedError, Keypair, Network, Store};
use datdot_wire::noise;
use folder::*;
use proptest::prelude::*;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, net::UnixListener},
    path::Path,
    time::{Duration, SystemTime},
};

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn drive(dir: &Path) -> Drive {
    Drive::create(&Store::open(dir.join("store")).unwrap(), &Keypair::from_seed([1; 32])).unwrap()
}

fn bring(drive: &Drive, folder: &Path) -> Imported {
    import(drive, folder, &mut go_on).unwrap()
}

fn everything() -> Options {
    Options { folder: None, max_bytes: u64::MAX, replace: true }
}

fn write_out(drive: &Drive, target: &Path) -> Exported {
    export(&drive.latest(), target, &everything(), &mut go_on).unwrap()
}

fn names(drive: &Drive) -> Vec<String> {
    drive.latest().entries(None).map(|entry| entry.unwrap().0.to_string()).collect()
}

fn write(path: impl AsRef<Path>, content: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_tree_comes_out_as_it_went_in_also_after_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    make_tree(&source, 100);
    bring(&drive, &source);
    write_out(&drive, &target);
    assert_same(&source, &target);

    let blobs = drive.blobs().unwrap().info().bytes;
    change_tree(&source);
    let imported = bring(&drive, &source);
    assert_eq!(drive.blobs().unwrap().info().bytes, blobs + imported.new_bytes);
    let target = dir.path().join("second target");
    write_out(&drive, &target);
    assert_same(&source, &target);
    assert_eq!(write_out(&drive, &target).written, 0);

    // A folder of it.
    let options = Options { folder: Some("/numbers".parse().unwrap()), ..everything() };
    let part = dir.path().join("part");
    export(&drive.latest(), &part, &options, &mut go_on).unwrap();
    // A link out of the folder is not taken along, though it stays within the drive.
    fs::remove_file(source.join("numbers/link up")).unwrap();
    assert_same(&source.join("numbers"), &part);
}

#[test]
fn a_store_that_is_opened_again_goes_on_with_the_drive() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 20);
    let key = {
        let drive = drive(dir.path());
        bring(&drive, &source);
        drive.key()
    };
    let store = Store::open(dir.path().join("store")).unwrap();
    let drive = Drive::open(&store, key).unwrap();
    let version = drive.version();
    assert_eq!(bring(&drive, &source).added, 0);
    assert_eq!(drive.version(), version);
    write(source.join("more"), "more");
    assert_eq!(bring(&drive, &source).added, 1);
}

#[test]
fn what_is_ignored_is_not_published_and_a_bad_pattern_publishes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    for name in
        ["keep.txt", "secret.key", "build/a/out", "docs/secret.key", "docs/public.key", "docs/draft.md", ".git/config"]
    {
        write(source.join(name), name);
    }
    // They say what is hidden, so they stay here, too.
    write(source.join(IGNORE_FILE), "# comment\n*.key\nbuild/\n");
    write(source.join("docs").join(IGNORE_FILE), "draft*\n!public.key\n");
    // Files of other tools mean nothing.
    write(source.join(".gitignore"), "keep.txt\n");
    bring(&drive, &source);
    assert_eq!(names(&drive), ["/.git/config", "/.gitignore", "/docs/public.key", "/keep.txt"]);
    // What is ignored from now on is gone from the next version.
    write(source.join(IGNORE_FILE), "*.key\n*.txt\nbuild/\n");
    assert_eq!(bring(&drive, &source).deleted, 1);

    let version = drive.version();
    write(source.join(IGNORE_FILE), "*.key\nbuild{\n");
    let error = import(&drive, &source, &mut go_on).unwrap_err();
    assert!(matches!(error, ImportError::Walk(_)), "{error}");
    assert_eq!(drive.version(), version);
    let error = import(&drive, &source.join("nothing"), &mut go_on).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    assert_eq!(drive.version(), version, "a folder that is not there empties no drive");
}

#[test]
fn patterns_that_are_not_utf_8_publish_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    write(source.join("docs/secret"), "secret");
    let ignore = source.join("docs").join(IGNORE_FILE);
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    // As PowerShell writes it, the same without a mark, and with one line that is Latin-1.
    for patterns in [utf_16("\u{feff}secret\r\n"), utf_16("secret\n"), b"caf\xe9\nsecret\n".into()] {
        fs::write(&ignore, patterns).unwrap();
        let error = import(&drive, &source, &mut go_on).unwrap_err();
        assert!(matches!(error, ImportError::Patterns { .. }), "{error}");
        assert!(error.to_string().contains(ignore.to_str().unwrap()) && error.to_string().contains("UTF-8"), "{error}");
        assert!(measure(&source, None).is_err());
    }
    // What can't be read, too.
    fs::remove_file(&ignore).unwrap();
    std::os::unix::fs::symlink("nowhere", &ignore).unwrap();
    assert!(matches!(import(&drive, &source, &mut go_on), Err(ImportError::Patterns { .. })));
    assert_eq!(names(&drive), [""; 0]);
    fs::remove_file(&ignore).unwrap();
    write(&ignore, "\u{feff}secret\r\n");
    bring(&drive, &source);
    assert_eq!(names(&drive), [""; 0]);
}

#[test]
fn what_the_program_keeps_itself_is_left_out_by_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let (source, own) = (dir.path().join("source"), dir.path().join("source/state/own"));
    let drive = drive(&own);
    write(own.join("noise.key"), "secret");
    write(source.join("state/mine"), "mine");
    let (link, elsewhere) = (dir.path().join("link"), dir.path().join("elsewhere"));
    std::os::unix::fs::symlink(&own, &link).unwrap();
    write(elsewhere.join("secret"), "secret");
    std::os::unix::fs::symlink(&elsewhere, own.join("moved away")).unwrap();
    for without in [&own, &link] {
        let without = &[without.clone(), own.join("moved away"), dir.path().join("not there")];
        let folder = Folder { path: &source, without };
        let imported = import(&drive, folder, &mut go_on).unwrap();
        let skipped: Vec<_> = imported.skipped.iter().map(|skipped| &skipped.name[..]).collect();
        assert_eq!((skipped, names(&drive)), (vec!["state/own"], vec!["/state/mine".to_owned()]));
        assert!(matches!(imported.skipped[0].why, Why::Own));
        assert_eq!(measure(folder, None).unwrap().files, 1);

        for path in [&own, &own.join("store"), &link, &elsewhere] {
            let inside = import(&drive, Folder { path, without }, &mut go_on);
            assert!(matches!(inside, Err(ImportError::Own { .. })), "{}: {inside:?}", path.display());
        }
        for (path, leads) in [("state/own/noise.key", true), ("state/mine", false)] {
            assert_eq!(leads_into(&source.join(path), without).unwrap(), leads, "{path}");
        }
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_ends_where_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    write(source.join("log"), &"line\n".repeat(40_000));
    let mut log = OpenOptions::new().append(true).open(source.join("log")).unwrap();
    let mut told = 0;
    let mut listener = |_| {
        told += 1;
        log.write_all(&[b'x'; 100_000]).unwrap();
        if told < 1000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    assert_eq!(import(&drive, &source, &mut listener).unwrap().new_bytes, 200_000);
    let content = drive.latest().get(&"/log".parse().unwrap(), 1 << 20).unwrap().unwrap();
    assert!(content == "line\n".repeat(40_000).as_bytes());
}

#[test]
fn a_file_that_is_not_whole_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    for name in ["a", ".datdot-part", "b/.datdot-Xy12ab.part", "b/.datdot-notes", "b/x.part"] {
        write(source.join(name), name);
    }
    let skipped = bring(&drive, &source).skipped;
    assert_eq!(names(&drive), ["/a", "/b/.datdot-notes", "/b/x.part"]);
    assert!(skipped.len() == 2 && skipped.iter().all(|skipped| matches!(skipped.why, Why::Reserved)), "{skipped:?}");
    assert!(is_part(".datdot-Xy12ab.part") && !is_part(".datdot-.parts") && !is_part("datdot-x.part"));
}

#[test]
fn who_may_not_read_a_file_is_told_what_to_do() {
    let source = || io::Error::from(io::ErrorKind::PermissionDenied);
    let error = ImportError::Read { path: "photos/private".into(), source: source() };
    let walk = ImportError::Walk(ignore::Error::WithPath { path: "photos".into(), err: Box::new(source().into()) });
    for error in [error, walk] {
        let error = error.to_string();
        assert!(error.starts_with("photos") && error.contains("readable, or name it in .datdotignore"), "{error}");
    }
}

#[test]
fn what_a_drive_cannot_have_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    write(source.join("fine"), "fine");
    write(source.join("back\\slash"), "other systems take it for a folder");
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"\xff")), "no text").unwrap();
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    let skipped = bring(&drive, &source).skipped;
    assert_eq!(skipped.len(), 3, "{skipped:?}");
    assert!(skipped.iter().any(|skipped| skipped.name == "socket" && matches!(skipped.why, Why::Special)));
    assert_eq!(names(&drive), ["/fine"]);
}

#[test]
fn who_stops_an_import_or_export_goes_on_with_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    make_tree(&source, 30);
    let until = |bytes: u64| {
        move |progress: Progress| if progress.bytes < bytes { go_on(progress) } else { ControlFlow::Break(()) }
    };
    assert!(matches!(import(&drive, &source, &mut until(500_000)), Err(ImportError::Stopped)));
    assert_eq!(names(&drive).len(), 0);
    let mut last = Progress::default();
    let mut listener = |progress| {
        last = progress;
        ControlFlow::Continue(())
    };
    import(&drive, &source, &mut listener).unwrap();
    assert_eq!((last.files, last.bytes), (last.of_files, last.of_bytes));

    let stopped = export(&drive.latest(), &target, &everything(), &mut until(500_000));
    assert!(matches!(stopped, Err(ExportError::Stopped)));
    assert!(!names_in(&target).iter().any(|name| name.contains(".datdot-part")), "half a file was left");
    write_out(&drive, &target);
    assert_same(&source, &target);
}

#[test]
fn single_files_are_put_read_linked_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let drive = drive(dir.path());
    let path = |text: &str| text.parse::<DrivePath>().unwrap();
    let (file, link) = (path("/a/file"), path("/a/link"));
    drive.put(&file, &mut &b"one"[..], false).unwrap();
    let first = drive.version();
    drive.put(&file, &mut &b"another"[..], true).unwrap();
    drive.put_link(&link, "file").unwrap();
    let read = |version: &Version| version.get(&file, 7).unwrap();
    assert_eq!(read(&drive.latest()).as_deref(), Some(&b"another"[..]));
    assert_eq!(read(&drive.checkout(first)).as_deref(), Some(&b"one"[..]));
    assert_eq!(drive.latest().get(&link, 7).unwrap(), None);
    let version = drive.version();
    let error = drive.put_link(&link, "x".repeat(64 << 10)).unwrap_err();
    assert!(error.to_string().starts_with("/a/link: "), "{error}");
    assert_eq!(drive.version(), version);
    let error = drive.latest().get(&file, 6).unwrap_err();
    assert!(error.to_string().contains("7 bytes, more than the 6"), "{error}");
    assert!(drive.delete(&file).unwrap());
    assert!(!drive.delete(&file).unwrap());
    assert_eq!((read(&drive.latest()), names(&drive)), (None, vec!["/a/link".to_owned()]));

    let copy = Drive::open(&Store::open(dir.path().join("other")).unwrap(), drive.key()).unwrap();
    assert!(matches!(copy.delete(&file), Err(DriveError::Metadata(BeeError::Feed(FeedError::NotWritable)))));
}

#[test]
fn the_names_that_unfinished_files_have_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let drive = drive(dir.path());
    for path in ["/.datdot-part", "/a", "/b/.datdot-part/c", "/b/.datdot-Xy12ab.part", "/b/d"] {
        drive.put(&path.parse().unwrap(), &mut path.as_bytes(), false).unwrap();
    }
    let exported = write_out(&drive, &target);
    let skipped: Vec<_> = exported.skipped.iter().map(|skipped| &skipped.name[..]).collect();
    assert_eq!(skipped, ["/.datdot-part", "/b/.datdot-Xy12ab.part", "/b/.datdot-part/c"]);
    assert_eq!(names_in(&target), ["a", "b/d"]);
}

#[test]
fn an_export_needs_no_room_for_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    for (name, content) in [("a", "four"), ("b/c", "seven.."), ("d", "odd")] {
        write(source.join(name), content);
    }
    bring(&drive, &source);
    let with = |max_bytes| {
        let options = Options { max_bytes, replace: false, ..everything() };
        export(&drive.latest(), &target, &options, &mut go_on)
    };
    assert!(matches!(with(13), Err(ExportError::TooLarge { bytes: 14, max: 13 })));
    assert!(!target.exists(), "nothing is written if it can't fit");
    write(target.join("a"), "four");
    write(target.join("b/c"), "another");
    // Of what is there the size counts for now.
    assert!(matches!(with(2), Err(ExportError::TooLarge { bytes: 3, max: 2 })));
    let exported = with(3).unwrap();
    assert_eq!((exported.written, exported.bytes), (1, 3));
    assert_eq!((exported.unchanged, exported.unchanged_bytes), (1, 4));
    assert_eq!(exported.skipped.len(), 1, "{:?}", exported.skipped);
}

#[test]
fn a_strangers_name_does_nothing_to_the_screen() {
    let source = io::ErrorKind::StorageFull.into();
    let error = ExportError::Write { path: "folder/\u{1b}[2Jname".into(), source }.to_string();
    assert!(error.starts_with("folder/") && !error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn two_exports_do_not_write_to_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    make_tree(&source, 3);
    bring(&drive, &source);
    let mut second = None;
    let mut listener = |progress: Progress| {
        // While it only plans, the folder is nobody's.
        if progress.of_files > 0 {
            second.get_or_insert_with(|| export(&drive.latest(), &target, &everything(), &mut go_on));
        }
        ControlFlow::Continue(())
    };
    export(&drive.latest(), &target, &everything(), &mut listener).unwrap();
    assert!(matches!(second, Some(Err(ExportError::InUse { .. }))));
}

#[test]
fn what_lies_in_the_target_is_kept_unless_the_drive_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    write(source.join("a/file"), "new");
    write(source.join("b"), "file");
    write(source.join("c"), "file");
    bring(&drive, &source);
    write(target.join("own"), "own");
    write(target.join("a/file"), "old");
    // A folder where the drive has a file, and a link where it has one.
    write(target.join("b/inside"), "inside");
    std::os::unix::fs::symlink("own", target.join("c")).unwrap();
    let exported = write_out(&drive, &target);
    assert_eq!(exported.skipped.iter().map(|skipped| &skipped.name[..]).collect::<Vec<_>>(), ["/b"]);
    assert_eq!(names_in(&target), ["a/file", "b/inside", "c", "own"]);
    for (name, content) in [("own", "own"), ("a/file", "new"), ("b/inside", "inside"), ("c", "file")] {
        assert_eq!(fs::read_to_string(target.join(name)).unwrap(), content, "{name}");
    }
}

#[test]
fn without_leave_nothing_that_is_there_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    let drive = drive(dir.path());
    for name in ["edited", "same", "new", "mode", "linked", "folder/file"] {
        write(source.join(name), name);
    }
    std::os::unix::fs::symlink("same", source.join("zlink")).unwrap();
    bring(&drive, &source);
    write(target.join("edited"), "by the user");
    write(target.join("same"), "same");
    write(target.join("mode"), "mode");
    set_executable(&target.join("mode"));
    std::os::unix::fs::symlink("same", target.join("linked")).unwrap();
    std::os::unix::fs::symlink("new", target.join("zlink")).unwrap();
    let options = Options { replace: false, ..everything() };
    let exported = export(&drive.latest(), &target, &options, &mut go_on).unwrap();
    let skipped: Vec<_> = exported.skipped.iter().map(|skipped| (&skipped.name[..], skipped.why.to_string())).collect();
    let other = || "another one is there already".to_owned();
    assert_eq!(skipped, ["/edited", "/linked", "/mode", "/zlink"].map(|name| (name, other())));
    assert_eq!((exported.written, exported.unchanged), (2, 1));
    assert_eq!(fs::read_to_string(target.join("edited")).unwrap(), "by the user");
    assert_eq!(fs::read_link(target.join("zlink")).unwrap(), Path::new("new"));
    assert!(!names_in(&target).iter().any(|name| name.contains(".datdot-part")));
    assert_eq!(write_out(&drive, &target).skipped.len(), 0);
    assert_same(&source, &target);
}

/// What a killed import leaves: contents that no metadata knows.
fn cut_off(drive: &Drive, source: &Path, bytes: u64) {
    let mut until = |progress: Progress| {
        if progress.bytes < bytes { go_on(progress) } else { ControlFlow::Break(()) }
    };
    assert!(matches!(import(drive, source, &mut until), Err(ImportError::Stopped)));
}

#[test]
fn what_an_import_wrote_before_it_was_cut_off_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    write(source.join("before"), "before");
    bring(&drive, &source);
    fs::create_dir_all(&source).unwrap();
    let noise = |seed: u64, len: usize| {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect::<Vec<u8>>()
    };
    fs::write(source.join("a small"), "small").unwrap();
    fs::write(source.join("b large"), noise(1, (5 << 20) + 5)).unwrap();
    fs::write(source.join("c whole blocks"), noise(2, 4 << 20)).unwrap();
    fs::write(source.join("d"), noise(3, 100_000)).unwrap();
    let measured = measure(&source, None).unwrap().bytes;
    // In the middle of one file, then of another.
    for bytes in [(9 << 20) / 2, 9 << 20] {
        let known = drive.blobs().unwrap().info().bytes;
        cut_off(&drive, &source, bytes);
        assert!(drive.blobs().unwrap().info().bytes > known, "it had written something");
    }
    let imported = bring(&drive, &source);
    assert_eq!((imported.added, imported.unchanged), (4, 1));
    assert_eq!(drive.blobs().unwrap().info().bytes, measured, "every byte is there once");
    let target = dir.path().join("target");
    write_out(&drive, &target);
    assert_same(&source, &target);

    // A file that is another one when it goes on.
    let mut content = noise(4, 5 << 20);
    fs::write(source.join("e"), &content).unwrap();
    cut_off(&drive, &source, measured + (9 << 20) / 2);
    content[3 << 20] ^= 1;
    fs::write(source.join("e"), content).unwrap();
    bring(&drive, &source);
    let target = dir.path().join("second target");
    write_out(&drive, &target);
    assert_same(&source, &target);
}

#[test]
fn a_folder_is_measured_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let drive = drive(dir.path());
    write(source.join("a"), "four");
    write(source.join("b/c"), "seven..");
    write(source.join("ignored"), "much more");
    write(source.join(IGNORE_FILE), "ignored\n");
    std::os::unix::fs::symlink("a", source.join("link")).unwrap();
    let all = Measured { files: 3, bytes: 11, new_files: 3, new_bytes: 11 };
    assert_eq!(measure(&source, None).unwrap(), all);
    bring(&drive, &source);
    let later = SystemTime::now() + Duration::from_secs(10);
    let nothing_new = Measured { new_files: 0, new_bytes: 0, ..all };
    assert_eq!(measure(&source, Some((&drive, later))).unwrap(), nothing_new);
    // What was touched since may have changed.
    let files = measure(&source, Some((&drive, SystemTime::UNIX_EPOCH))).unwrap();
    assert_eq!((files.new_files, files.new_bytes), (2, 11));
    write(source.join("a"), "fifty");
    assert_eq!(measure(&source, Some((&drive, later))).unwrap().new_bytes, 5);
}

/// Two networks that are connected, and a drive with what is in a folder in the first: as it is there, and in the other.
async fn two_with(dir: &Path, folder: &Path) -> ([Network; 2], [Drive; 2]) {
    let network = |name: u8| {
        let config =
            Config { listen: Some(([127, 0, 0, 1], 0).into()), ..Config::new(noise::Keypair::from_seed(&[name; 32])) };
        Network::start(Store::open(dir.join(format!("store {name}"))).unwrap(), config)
    };
    let (one, other) = (network(1).await.unwrap(), network(2).await.unwrap());
    let ours = Drive::create(one.store(), &Keypair::from_seed([1; 32])).unwrap();
    bring(&ours, folder);
    other.connect(one.local_addr().unwrap(), None).await.unwrap();
    let theirs = Drive::open(other.store(), ours.key()).unwrap();
    ([one, other], [ours, theirs])
}

/// How often what came of a feed was brought to the disk: entries of its journal so far.
fn commits(feed: &datdot_hypercore::Feed) -> u64 {
    let journal = fs::read(feed.data_path()).unwrap();
    let entries = journal.chunks(4096).take(1024).filter_map(|entry| entry.strip_prefix(b"datdot 3"));
    let number = |entry: &[u8]| u64::from_le_bytes(*entry.first_chunk().unwrap());
    entries.map(number).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_are_brought_to_the_disk_together() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    (0..200).for_each(|i| write(source.join(format!("{i:03}")), &format!("{i} ").repeat(256)));
    let ([one, other], [_, theirs]) = two_with(dir.path(), &source).await;
    fetch_metadata(&other, &theirs).await.unwrap();
    let blobs = theirs.blobs().unwrap().clone();
    let before = commits(&blobs);
    // One after the other, so that each could wait for the disk.
    other.limits().download.set(Some(60_000));
    let runs: Vec<_> = (0..200).step_by(2).map(|block| block..block + 1).collect();
    fetch_blobs(&other, &theirs, &runs).await.unwrap();
    assert_eq!(blobs.info().blocks_here, 100);
    let after = commits(&blobs);
    assert!(after > before && after < before + 20, "{} commits for 100 runs", after - before);
    drop((blobs, theirs));
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn who_looks_for_what_is_missing_holds_up_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(noise::Keypair::from_seed(&[1; 32]));
    let network = Network::start(Store::open(dir.path()).unwrap(), config).await.unwrap();
    let drive = Drive::create(network.store(), &Keypair::from_seed([1; 32])).unwrap();
    let tasks = std::thread::current().id();
    let look = move |_: &Drive| Ok(std::thread::current().id() != tasks);
    assert!(with_missing(&network, &drive, Duration::from_secs(20), look).await.unwrap());
    network.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_goes_from_peer_to_peer_whole_or_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 200);
    let ([one, other], [_, theirs]) = two_with(dir.path(), &source).await;
    let path: DrivePath = "/folder 3/file 3.txt".parse().unwrap();
    let look = move |drive: &Drive| {
        let version = drive.latest();
        let entry = version.entry(&path)?.unwrap();
        let Content::File { blob, .. } = entry.content else { panic!("{entry:?}") };
        version.read(&path, &blob)?.collect::<Result<Vec<_>, _>>()
    };
    let content = with_missing(&other, &theirs, std::time::Duration::from_secs(20), look).await.unwrap();
    assert_eq!(content.concat(), b"content 3 of the tree");
    let here = theirs.metadata().info();
    assert!(here.blocks_here < 20 && here.length > 200, "a path takes few blocks: {here:?}");

    let folder: DrivePath = "/numbers".parse().unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(60), fetch(&other, &theirs, Some(&folder)))
        .await
        .unwrap()
        .unwrap();
    let here = theirs.blobs().unwrap().info();
    assert!(here.blocks_here > 0 && here.blocks_here < here.length, "{here:?}");
    let error = export(&theirs.latest(), &dir.path().join("all"), &everything(), &mut go_on).unwrap_err();
    assert!(matches!(&error, ExportError::Drive(error) if error.missing().is_some()), "{error}");

    tokio::time::timeout(std::time::Duration::from_secs(60), fetch(&other, &theirs, None)).await.unwrap().unwrap();
    write_out(&theirs, &dir.path().join("all"));
    assert_same(&source, &dir.path().join("all"));
    let error = import(&theirs, &source, &mut go_on).unwrap_err();
    assert!(error.to_string().contains("no secret key"), "only the author writes: {error}");
    one.close().await;
    other.close().await;
}

#[derive(Clone, Debug)]
enum Change {
    Write(u8, u8, usize),
    Remove(u8),
    Move(u8, u8),
    Import,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (0..30u8, any::<u8>(), prop_oneof![0..20usize, Just(70_000)]).prop_map(|(name, fill, len)| Change::Write(name, fill, len)),
        3 => (0..30u8).prop_map(Change::Remove),
        1 => (0..30u8, 0..30u8).prop_map(|(from, to)| Change::Move(from, to)),
        2 => Just(Change::Import),
    ];
    proptest::collection::vec(change, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_drive_follows_its_folder(changes in changes()) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let drive = drive(dir.path());
        let at = |name: u8| source.join(format!("{}/{name}", name % 4));
        for change in changes.into_iter().chain([Change::Import]) {
            match change {
                Change::Write(name, fill, len) => {
                    fs::create_dir_all(at(name).parent().unwrap()).unwrap();
                    fs::write(at(name), vec![fill; len]).unwrap();
                }
                Change::Remove(name) => _ = fs::remove_file(at(name)),
                Change::Move(from, to) => {
                    fs::create_dir_all(at(to).parent().unwrap()).unwrap();
                    _ = fs::rename(at(from), at(to));
                }
                Change::Import => {
                    bring(&drive, &source);
                    let version = drive.latest();
                    let mut there = vec![];
                    for entry in version.entries(None) {
                        let (path, entry) = entry.unwrap();
                        let Content::File { blob, .. } = entry.content else { panic!("{path} is no file") };
                        let content: Vec<u8> = version.read(&path, &blob).unwrap().flat_map(|block| block.unwrap()).collect();
                        prop_assert!(content == fs::read(source.join(&path.as_str()[1..])).unwrap());
                        there.push(path.as_str()[1..].to_owned());
                    }
                    prop_assert_eq!(there, names_in(&source));
                }
            }
        }
        let target = dir.path().join("target");
        write_out(&drive, &target);
        assert_same(&source, &target);
    }
}

#[test]
fn two_who_make_a_drive_at_once_write_one_header() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let keypair = Keypair::from_seed([seed; 32]);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| _ = scope.spawn(|| Drive::create(&store, &keypair).unwrap()));
        });
        assert_eq!(store.create(&keypair).unwrap().info().length, 1);
    }
}
