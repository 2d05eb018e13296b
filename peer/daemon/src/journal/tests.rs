use super::*;
use datdot_market::terms::Feed;
use datdot_proof::head::{Manifest, Root, SignedHead};

fn feeds(name: u8) -> Feeds {
    let root = Root { hash: [name; 32], size: 5 };
    let head = SignedHead { fork: 0, length: 1, roots: vec![root], manifest: Manifest::Compat, signature: [0; 64] };
    vec![Feed { key: [name; 32], head, root: [name; 32] }].try_into().unwrap()
}

const TERMS: Terms = Terms { replicas: 3, term: 100, max_price: 7 };

#[test]
fn a_restart_remembers_what_was_wanted_and_what_may_have_been_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let (first, intent) = journal.want(None, feeds(1), TERMS, Sources::new(), 10).unwrap();
    let (second, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 11).unwrap();
    journal.sent(first, 12).unwrap();
    journal.opened(second, 5, 14).unwrap();

    let restarted = Journal::open(&path).unwrap();
    let found: BTreeMap<_, _> = restarted.intents().into_iter().collect();
    assert_eq!(found[&first], Intent { until: Some(12 + TOO_OLD_AFTER), ..intent });
    assert_eq!(found[&second].request, Some((5, 14)));
    assert_eq!(restarted.own(), [Key([1; 32]), Key([2; 32])].into());
}

#[test]
fn what_was_published_stays_and_what_was_sponsored_goes_with_its_last_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&dir.path().join("journal.json")).unwrap();
    let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
    journal.publish(Key([1; 32]), Published { file: state, root: Key([1; 32]) }).unwrap();
    let (ours, _) = journal.want(None, feeds(1), TERMS, Sources::new(), 1).unwrap();
    let (theirs, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 1).unwrap();
    let (again, _) = journal.want(None, feeds(2), TERMS, Sources::new(), 1).unwrap();
    assert_eq!(journal.over(ours).unwrap(), []);
    assert_eq!(journal.over(theirs).unwrap(), []);
    assert_eq!(journal.over(again).unwrap(), [Key([2; 32])]);
    assert_eq!(journal.own(), [Key([1; 32])].into());
}

#[test]
fn what_is_taken_back_is_kept_for_us_alone_until_it_is_published_again_or_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
    let (file, folder) = (Key([1; 32]), Key([2; 32]));
    let published = Published { file: state, root: file };
    let drive = Drive { blobs: Key([3; 32]), folder: Some("/folder".into()), figures: Figures::default() };
    journal.publish(file, published.clone()).unwrap();
    journal.set_drive(folder, drive.clone()).unwrap();
    assert_eq!(journal.feeds_of(&drive.blobs), None, "a drive has one name");

    journal.unpublish(&file).unwrap();
    journal.unpublish(&folder).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!((journal.offered().len(), journal.own().len()), (0, 3));
    assert!(journal.is_author(&file) && journal.is_author(&drive.blobs));

    journal.publish(file, published).unwrap();
    assert_eq!(journal.offered(), [file].into());
    journal.set_drive(folder, drive).unwrap();
    assert_eq!((journal.offered().len(), journal.unpublished().len()), (3, 0));

    journal.unpublish(&folder).unwrap();
    journal.forget(&folder).unwrap();
    assert_eq!((journal.own(), journal.unpublished().len()), ([file].into(), 0));
}

#[test]
fn a_drive_keeps_both_of_its_feeds_and_what_is_read_keeps_them_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let drive = |blobs, folder: Option<&str>| Drive {
        blobs: Key([blobs; 32]),
        folder: folder.map(Into::into),
        figures: Figures::default(),
    };
    journal.set_drive(Key([1; 32]), drive(2, Some("/folder"))).unwrap();
    let (theirs, _) = journal.want(None, feeds(3), TERMS, Sources::new(), 1).unwrap();
    journal.set_drive(Key([3; 32]), drive(4, None)).unwrap();
    let order = GetOrder {
        key: Key([5; 32]),
        inside: None,
        path: "/out".into(),
        replace: false,
        encryption_key_file: None,
        from: vec![],
    };
    journal.reads(&order, Key([5; 32]), 7).unwrap();
    journal.reads(&order, Key([6; 32]), 8).unwrap();

    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.own(), [1, 2, 3, 5, 6].map(|name| Key([name; 32])).into());
    assert_eq!(journal.offered(), [1, 2, 3].map(|name| Key([name; 32])).into(), "what is only read is not offered");
    assert!(journal.is_author(&Key([2; 32])) && !journal.is_author(&Key([4; 32])));
    assert_eq!(journal.drive_of(Path::new("/folder")).map(|(key, _)| key), Some(Key([1; 32])));
    assert_eq!(journal.readings(), [(order.clone(), 7)]);
    assert_eq!(journal.has_read(&order, true).unwrap(), [5, 6].map(|name| Key([name; 32])).into());
    journal.over(theirs).unwrap();
    assert_eq!(journal.drives().len(), 1, "a drive that was only sponsored is forgotten with its request");
    assert_eq!(journal.own(), [1, 2].map(|name| Key([name; 32])).into());
}

#[test]
fn what_was_never_whole_and_what_was_deleted_are_left_over_until_all_is_tidied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    assert!(journal.is_blank());
    let [file, folder, blobs, half] = [1, 2, 3, 4].map(|name| Key([name; 32]));
    journal.make(&[file, half]).unwrap();
    journal.make(&[folder, blobs]).unwrap();
    let state = FileState { path: "/a".into(), bytes: 5, modified: 0 };
    journal.publish(file, Published { file: state, root: file }).unwrap();
    let drive = Drive { blobs, folder: Some("/folder".into()), figures: Figures::default() };
    journal.set_drive(folder, drive).unwrap();
    assert_eq!(*Journal::open(&path).unwrap().leftover(), [half].into());

    journal.forget(&file).unwrap();
    journal.forget_drive(&folder).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(*journal.leftover(), [file, folder, blobs, half].into());
    journal.tidied().unwrap();
    assert!(Journal::open(&path).unwrap().is_blank());
}

#[test]
fn what_came_before_reading_was_interrupted_is_kept_for_a_day_or_until_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let (drive, blobs, other) = (Key([1; 32]), Key([2; 32]), Key([3; 32]));
    let order = GetOrder {
        key: drive,
        inside: None,
        path: "/out".into(),
        replace: false,
        encryption_key_file: None,
        from: vec![],
    };
    let day = KEPT.as_millis() as u64;
    journal.keep(other, 50).unwrap();
    for whole in [false, true] {
        journal.reads(&order, drive, 90).unwrap();
        journal.reads(&order, blobs, 90).unwrap();
        assert_eq!(journal.keep(blobs, 100).unwrap(), [drive, blobs].into());
        assert_eq!(journal.has_read(&order, whole).unwrap(), [drive, blobs].into());
        journal = Journal::open(&path).unwrap();
        assert!(journal.readings().is_empty(), "who gave the order heard that it failed");
        let kept: &[Key] = if whole { &[other] } else { &[drive, blobs, other] };
        assert_eq!(journal.own(), kept.iter().copied().collect());
    }
    assert!(journal.offered().is_empty());
    assert_eq!(journal.outdated(49 + day).unwrap(), [].into());
    assert_eq!(journal.outdated(50 + day).unwrap(), [other].into());
    assert!(Journal::open(&path).unwrap().own().is_empty());
}

#[test]
fn an_order_is_begun_again_until_it_is_an_intent_or_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let order = |name: &str| PublishOrder { path: name.into(), wanted: None };
    for name in ["/a", "/a", "/b", "/c"] {
        journal.begin(order(name)).unwrap();
    }
    journal.want(Some(&order("/a")), feeds(1), TERMS, Sources::new(), 1).unwrap();
    journal.ended(&order("/b")).unwrap();
    assert_eq!(Journal::open(&path).unwrap().begun(), [order("/c")]);
}

#[test]
fn limits_stay_and_a_journal_from_before_there_were_any_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    std::fs::write(&path, r#"{"offer":"stop"}"#).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!((journal.limits(), journal.offer()), (Limits::default(), &Ordered::Stop));
    let limits = Limits { upload: Some(50_000), download_each: Some(1 << 40), ..Limits::default() };
    journal.set_limits(limits).unwrap();
    assert_eq!(Journal::open(&path).unwrap().limits(), limits);
    // In the place of the file that is written first.
    std::fs::create_dir(path.with_extension("new")).unwrap();
    journal.set_limits(Limits::default()).unwrap_err();
    assert_eq!(journal.limits(), limits, "what can't be kept does not count");
}

#[test]
fn an_order_that_could_not_be_noted_is_not_begun_by_a_later_start_and_what_has_happened_is_noted_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let publish = PublishOrder { path: "/a".into(), wanted: None };
    let (ours, theirs) = (Key([1; 32]), Key([2; 32]));
    let file = FileState { path: "/a".into(), bytes: 5, modified: 0 };
    journal.publish(ours, Published { file, root: ours }).unwrap();
    let (open, _) = journal.want(None, feeds(1), TERMS, Sources::new(), 1).unwrap();
    let get = GetOrder {
        key: theirs,
        inside: None,
        path: "/out".into(),
        replace: false,
        encryption_key_file: None,
        from: vec![],
    };
    // In the place of the file that is written first.
    let in_the_way = path.with_extension("new");
    std::fs::create_dir(&in_the_way).unwrap();
    journal.begin(publish.clone()).unwrap_err();
    journal.reads(&get, theirs, 7).unwrap_err();
    journal.keep(theirs, 7).unwrap_err();
    journal.make(&[theirs]).unwrap_err();
    journal.unpublish(&ours).unwrap_err();
    journal.forget(&ours).unwrap_err();
    journal.want(Some(&publish), feeds(2), TERMS, Sources::new(), 1).unwrap_err();
    journal.opened(open, 5, 14).unwrap_err();
    std::fs::remove_dir(&in_the_way).unwrap();
    journal.set_offer(Ordered::Stop).unwrap();

    for journal in [&journal, &Journal::open(&path).unwrap()] {
        assert!(journal.begun().is_empty() && journal.readings().is_empty() && journal.leftover().is_empty());
        assert_eq!((journal.own(), journal.offered()), ([ours].into(), [ours].into()));
        assert_eq!(
            journal.intents().into_iter().map(|(id, intent)| (id, intent.request)).collect::<Vec<_>>(),
            [(open, Some((5, 14)))]
        );
    }
}

#[test]
fn a_damaged_journal_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    let mut journal = Journal::open(&path).unwrap();
    let (_, intent) = journal.want(None, feeds(1), TERMS, Sources::new(), 1).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let what = hex::encode(intent.terms.encode());
    assert!(whole.contains(&what));
    for damaged in ["{".to_owned(), whole.replace(&what, &what[2..]), whole.replace(&what, "xy")] {
        std::fs::write(&path, damaged).unwrap();
        let error = Journal::open(&path).expect_err("an intent that can't be read is not forgotten").to_string();
        assert!(error.contains("restore it from a backup"), "{error}");
    }
}
