//! Feeds on disk: what is appended is read, whatever happens in between.

mod support;
use bytes::Bytes;
use datdot_hypercore::{Download, FeedError, Keypair, Network, Reader, Store, StoreError, Tail, feed::DATA_START};
use datdot_proof::head::Software;
use proptest::prelude::*;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use support::*;

const CHILD: &str = "DATDOT_TEST_CHILD";

fn opened(dir: &Path) -> Store {
    // A store that was dropped is free as soon as its last feed is, and a child that another test is just starting, which
    // has our open files until it runs.
    for _ in 0..100 {
        match Store::open(dir) {
            Err(StoreError::InUse { .. }) => thread::sleep(Duration::from_millis(10)),
            opened => return opened.expect("the folder can be used"),
        }
    }
    panic!("{} is in use", dir.display())
}

/// Where the files of the only feed are.
fn folder(dir: &Path) -> PathBuf {
    let mut feeds = fs::read_dir(dir.join("feeds")).expect("a store");
    feeds.next().expect("a feed").expect("readable").path()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_is_appended_is_read_after_any_restart(
        batches in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..9), 1..6),
        compat: bool,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for batch in batches {
            let store = opened(dir.path());
            let feed = if compat { store.create_compat(&keypair(1)) } else { store.create(&keypair(1)) }.expect("room");
            let length = feed.write(&batch.iter().cloned().map(Bytes::from).collect::<Vec<_>>()).expect("an author appends");
            expected.extend(batch);
            prop_assert_eq!(length, expected.len() as u64);
            for (i, block) in (0..).zip(&expected) {
                prop_assert_eq!(&feed.read(i).expect("it is here"), block);
            }
            let info = feed.info();
            prop_assert_eq!(info.bytes_here, expected.concat().len() as u64);
            prop_assert!(info.writable && info.blocks_missing() == 0);
            if let Some(head) = feed.signed_head() {
                prop_assert!(head.verify::<Software>(&feed.key().0).is_ok());
            }
            // A file without a byte of blocks may end with the journal.
            let data = fs::read(feed.data_path()).expect("readable");
            prop_assert_eq!(data.get(DATA_START as usize..).unwrap_or_default(), expected.concat());
        }
    }
}

#[test]
fn only_the_author_appends_and_only_blocks_that_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = opened(dir.path());
    let remote = store.open_remote(keypair(2).feed_key(&keypair(2).manifest()), None).expect("room");
    assert!(matches!(remote.write(&[block(0, 9)]), Err(FeedError::NotWritable)));
    // The key pair may come later.
    assert_eq!(store.create(&keypair(2)).expect("room").write(&[block(0, 9)]).expect("now it can"), 1);
    let large = Bytes::from(vec![0; datdot_hypercore::feed::MAX_BLOCK + 1]);
    assert!(matches!(remote.write(&[large]), Err(FeedError::TooLarge { .. })));
    assert!(matches!(remote.read(1), Err(FeedError::OutOfRange { block: 1, length: 1 })));
    assert!(!format!("{remote:?}").is_empty());
}

#[test]
fn a_key_pair_writes_no_feed_whose_manifest_names_another_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = opened(dir.path());
    let refused = store.create_with(&keypair(1), keypair(2).manifest());
    assert!(matches!(refused, Err(StoreError::Feed(FeedError::NotWritable))), "{:?}", refused.ok());
    assert!(store.feeds().is_empty(), "nothing is left of it");
    let feed = store.create_with(&keypair(2), keypair(2).manifest()).expect("it is its own");
    feed.write(&[block(0, 9)]).expect("an author appends");
}

#[test]
fn of_two_who_append_behind_the_same_block_one_is_told_of_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let feed = opened(dir.path()).create(&keypair(1)).expect("room");
    let appended = thread::scope(|scope| {
        let one = |_| {
            let count = || (0..20).filter(|_| feed.write_at(feed.info().length, &[block(0, 9)]).is_ok()).count();
            scope.spawn(count)
        };
        let threads: Vec<_> = (0..4).map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
    });
    assert_eq!(feed.info().length, appended as u64);
    for length in [appended as u64 - 1, appended as u64 + 1] {
        let refused = feed.write_at(length, &[block(0, 9)]);
        assert!(matches!(refused, Err(FeedError::Moved { length }) if length == appended as u64), "{refused:?}");
    }
    assert_eq!(feed.write_at(appended as u64, &[block(0, 9)]).expect("nobody else appends"), appended as u64 + 1);
}

#[test]
fn a_feed_is_cut_to_what_it_has_but_not_to_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let feed = opened(dir.path()).create(&keypair(1)).expect("room");
    feed.write(&[block(0, 9), block(1, 9)]).expect("an author appends");
    assert!(matches!(feed.truncate_now(0), Err(FeedError::CutToNothing)));
    assert!(matches!(feed.truncate_now(3), Err(FeedError::OutOfRange { block: 3, length: 2 })));
    feed.truncate_now(1).expect("it has that many");
    assert_eq!((feed.info().fork, feed.info().length), (1, 1));
}

#[test]
fn bytes_beyond_the_head_are_refused_before_there_is_memory_for_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let feed = opened(dir.path()).create(&keypair(1)).expect("room");
    feed.write(&["hello".into()]).expect("an author appends");
    assert_eq!(feed.read_raw(1..5).expect("they are here"), b"ello");
    for bytes in [0..u64::MAX, 0..6, u64::MAX - 1..u64::MAX] {
        assert!(matches!(feed.read_raw(bytes), Err(FeedError::NoSuchByte { bytes: 5, .. })));
    }
}

#[test]
fn what_is_public_can_be_shown() {
    fn shown<T: std::fmt::Debug>() {}
    shown::<(Network, Store, Download, Reader, Tail)>();
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().display().to_string();
    assert!(format!("{:?}", opened(dir.path())).contains(&folder));
}

#[test]
fn a_head_from_the_ledger_is_taken_only_if_it_is_the_authors() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (author, hoster) = (opened(one.path()), opened(two.path()));
    let feed = author.create(&keypair(1)).expect("room");
    feed.write(&[block(0, 10), block(1, 20)]).expect("it appends");
    let first = feed.signed_head().expect("it has one");
    feed.write(&[block(2, 30)]).expect("it appends");
    let second = feed.signed_head().expect("it has one");

    let mut forged = first.clone();
    forged.roots[0].size += 1;
    assert!(matches!(hoster.open_remote(feed.key(), Some(forged)), Err(StoreError::Feed(FeedError::Head(_)))));
    let copy = hoster.open_remote(feed.key(), Some(first.clone())).expect("it is signed");
    assert_eq!((copy.info().length, copy.info().bytes, copy.info().blocks_missing()), (2, 30, 2));
    copy.adopt_now(first.clone()).expect("the same again");
    assert!(matches!(copy.adopt_now(second), Err(FeedError::NeedsUpgrade { length: 3 })));
    feed.adopt_now(first).expect("an older head is covered");
    drop((copy, hoster));
    let again = opened(two.path());
    assert_eq!(again.feed(&feed.key()).expect("it was stored").info().length, 2);
}

#[test]
fn only_its_owner_can_enter_a_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("above/store");
    opened(&path).create(&keypair(1)).expect("room");
    for dir in [&path.join(".."), &path, &path.join("feeds"), &folder(&path)] {
        let mode = fs::metadata(dir).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
    }
}

#[test]
fn one_process_at_a_time_uses_a_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = opened(dir.path());
    let Err(StoreError::InUse { dir: named }) = Store::open(dir.path()) else { panic!("opened twice") };
    assert_eq!(named, dir.path());
    drop(store);
    opened(dir.path());
}

#[test]
fn a_damaged_record_is_reported_and_an_author_never_begins_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = {
        let store = opened(dir.path());
        let feed = store.create(&keypair(1)).expect("room");
        feed.write(&[block(0, 10)]).expect("it appends");
        feed.key()
    };
    let data = folder(dir.path()).join("data");
    let mut bytes = fs::read(&data).expect("readable");
    for half in [0, DATA_START as usize / 2] {
        bytes[half + 30] ^= 1;
    }
    fs::write(&data, bytes).expect("writable");
    let store = opened(dir.path());
    assert!(store.feed(&key).is_none());
    let refused = store.create(&keypair(1)).expect_err("an author never begins again").to_string();
    assert!(refused.contains("the journal is damaged; the feed is your own: restore"), "{refused}");
    assert!(folder(dir.path()).join("secret").exists());
}

#[test]
fn a_store_of_another_format_is_refused_and_left_as_it_is() {
    for format in [None, Some("datdot store 4\n")] {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("feeds/0123")).expect("writable");
        fs::write(dir.path().join("feeds/0123/head"), b"datdot feed 2\n").expect("writable");
        if let Some(format) = format {
            fs::write(dir.path().join("format"), format).expect("writable");
        }
        let Err(error) = Store::open(dir.path()) else { panic!("it was opened") };
        assert!(matches!(error, StoreError::Format { .. }), "{error}");
        assert!(error.to_string().contains("move the folder away"), "{error}");
        assert!(dir.path().join("feeds/0123/head").exists());
    }
}

#[test]
fn what_is_appended_is_read_though_the_disk_has_lost_the_old_roots() {
    let dir = tempfile::tempdir().expect("a folder");
    opened(dir.path()).create(&keypair(1)).expect("room").write(&[block(0, 10)]).expect("it appends");
    fs::write(folder(dir.path()).join("tree"), []).expect("writable");
    let feed = opened(dir.path()).create(&keypair(1)).expect("its record is whole");
    // The only root that there was is a leaf now; where the next block begins follows from its size.
    feed.write(&[block(1, 20)]).expect("it appends");
    assert_eq!(feed.read(1).expect("it was written"), block(1, 20));
}

#[test]
fn files_cut_off_anywhere_cost_only_the_blocks_that_were_in_them() {
    for (file, len) in
        [("data", DATA_START + 4_321), ("data", DATA_START), ("tree", 777), ("tree", 0), ("have", 1), ("have", 0)]
    {
        let dir = tempfile::tempdir().expect("a folder");
        {
            let feed = opened(dir.path()).create(&keypair(1)).expect("room");
            feed.write(&(0..40).map(|i| block(i, 200)).collect::<Vec<_>>()).expect("it appends");
        }
        let path = folder(dir.path()).join(file);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("writable");
        let store = opened(dir.path());
        let feed = store.feeds().pop().expect("its record is whole");
        let damaged = feed.info().blocks_missing() + {
            let runtime = tokio::runtime::Runtime::new().expect("threads");
            runtime.block_on(feed.scrub(0..40)).expect("readable").len() as u64
        };
        assert!(damaged > 0, "{file} {len}");
        for i in 0..40 {
            match feed.read(i) {
                Ok(bytes) => assert_eq!(bytes, block(i, 200)),
                Err(error) => assert!(matches!(error, FeedError::NotHere { .. }), "{error}"),
            }
        }
        assert_eq!(feed.info().blocks_missing(), damaged);
    }
}

/// Not a test by itself: the process that is killed below.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let feed = opened(Path::new(&dir)).create(&Keypair::from_seed([1; 32])).expect("room");
    loop {
        let start = feed.info().length;
        let batch: Vec<_> = (start..start + 7).map(|i| block(i, 3000)).collect();
        println!("durable {}", feed.write(&batch).expect("it appends"));
    }
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_reported() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut reported = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        reported = lines.next().expect("it appends");
        std::thread::sleep(Duration::from_millis(17 * round));
        child.kill().expect("it runs");
        reported = lines.last().unwrap_or(reported);
        child.wait().expect("it was ours");

        let store = opened(dir.path());
        let feed = store.create(&keypair(1)).expect("room");
        assert!(feed.info().length >= reported && feed.info().is_complete(), "{:?} after {reported}", feed.info());
        for i in 0..feed.info().length {
            assert_eq!(feed.read(i).expect("it is here"), block(i, 3000), "block {i}");
        }
    }
    assert!(reported > 0);
}
