//! Drives with JavaScript: npm's hyperdrive on a Corestore, over TCP and the Noise secret stream.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod folder;
#[path = "../../hypercore/tests/support/mod.rs"]
mod support;
use datdot_drive::{
    Content, Drive, DriveError, DrivePath, Kind, drive,
    export::{self, Exported, export},
    fetch::fetch,
    import::{ImportError, Imported, import},
};
use datdot_hypercore::{FeedKey, Keypair, Namespace, Network, PrimaryKey};
use folder::*;
use serde_json::{Value, json};
use std::{ops::ControlFlow, path::Path};
use support::*;

const PRIMARY_KEY: [u8; 32] = [5; 32];

/// The key pair that a Corestore with [`PRIMARY_KEY`] derives for a drive.
fn corestore_keypair() -> Keypair {
    PrimaryKey::new(PRIMARY_KEY).keypair(&Namespace::ROOT, drive::NAME)
}

struct JsDrive {
    js: Js,
    key: FeedKey,
    address: Option<std::net::SocketAddr>,
}

impl JsDrive {
    async fn author(dir: &Path) -> JsDrive {
        JsDrive::author_with(dir, vec![]).await
    }

    async fn author_with(dir: &Path, more: Vec<String>) -> JsDrive {
        let mut args =
            vec![format!("--dir={}", dir.join("author").display()), format!("--primary={}", hex::encode(PRIMARY_KEY))];
        args.extend(more);
        let mut js = Js::run("drive.js", &args);
        let key = js.event("drive").await["key"].as_str().unwrap().parse().unwrap();
        let port = js.event("listening").await["port"].as_u64().unwrap() as u16;
        JsDrive { js, key, address: Some(([127, 0, 0, 1], port).into()) }
    }

    async fn reader(dir: &Path, ours: &Network, key: FeedKey) -> JsDrive {
        let args = [
            format!("--dir={}", dir.join("reader").display()),
            format!("--key={key}"),
            format!("--connect={}", ours.local_addr().unwrap()),
        ];
        let mut js = Js::run("drive.js", &args);
        js.event("drive").await;
        JsDrive { js, key, address: None }
    }

    async fn run(&mut self, command: Value) -> Value {
        self.js.write(&command.to_string()).await;
        self.js.event("done").await["result"].take()
    }
}

async fn fetched(ours: &Network, author: &JsDrive) -> Drive {
    fetch_all(ours, author, Drive::open(ours.store(), author.key).unwrap()).await
}

async fn fetch_all(ours: &Network, author: &JsDrive, drive: Drive) -> Drive {
    if ours.peers().is_empty() {
        ours.connect(author.address.unwrap(), None).await.unwrap();
    }
    soon(fetch(ours, &drive, None)).await.unwrap();
    drive
}

fn export_all(drive: &Drive, target: &Path) -> Exported {
    let options = export::Options { folder: None, max_bytes: u64::MAX, replace: true };
    let exported = export(&drive.latest(), target, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(exported.skipped.is_empty(), "{exported:?}");
    exported
}

fn import_all(drive: &Drive, folder: &Path) -> Imported {
    let imported = import(drive, folder, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(imported.skipped.is_empty(), "{imported:?}");
    imported
}

/// The same as the command "list" of `drive.js` says.
fn list(drive: &Drive, version: u64) -> Vec<Value> {
    let version = drive.checkout(version);
    let list = version.entries(None).map(|entry| {
        let (path, entry) = entry.unwrap();
        match &entry.content {
            Content::File { blob, executable } => {
                let content: Vec<u8> = version.read(&path, blob).unwrap().flat_map(|block| block.unwrap()).collect();
                json!([path.as_str(), executable, null, hash(&content)])
            }
            Content::Link { target } => json!([path.as_str(), false, target, null]),
            Content::Bare => json!([path.as_str(), false, null, null]),
        }
    });
    list.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_of_javascript_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 1500);
    let mut author = JsDrive::author(dir.path()).await;
    author.run(json!(["fromFolder", source, false])).await;
    let first = author.run(json!(["version"])).await.as_u64().unwrap();

    let ours = network(dir.path(), 1).await;
    let drive = fetched(&ours, &author).await;
    assert_eq!(drive.version(), first);
    let target = dir.path().join("target");
    export_all(&drive, &target);
    assert_same(&source, &target);
    assert_eq!(export_all(&drive, &target).written, 0);

    // Its next version; what was deduplicated is a list of blocks.
    change_tree(&source);
    author.run(json!(["fromFolder", source, true])).await;
    let second = author.run(json!(["version"])).await.as_u64().unwrap();
    soon(fetch(&ours, &drive, None)).await.unwrap();
    assert_eq!(drive.version(), second);
    let latest = drive.latest();
    let maps = latest
        .entries(None)
        .filter(|entry| matches!(entry.as_ref().unwrap().1.content, Content::File { blob, .. } if blob.block_map));
    assert!(maps.count() > 0);
    // An export leaves what it did not write.
    std::fs::remove_dir_all(&target).unwrap();
    export_all(&drive, &target);
    assert_same(&source, &target);

    // Every version is still there, and tells the same in both languages.
    for version in [first, second] {
        assert_eq!(json!(list(&drive, version)), author.run(json!(["list", version])).await);
    }
    let history = latest.history(0..u64::MAX).map(|edit| {
        let edit = edit.unwrap();
        json!([edit.block, if edit.entry.is_some() { "put" } else { "del" }, format!("files\0{}", edit.path)])
    });
    let history: Vec<_> = history.collect();
    assert_eq!(json!(history), author.run(json!(["history"])).await);
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_drive_of_javascript_is_read_with_its_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let (source, secret) = (dir.path().join("source"), [7; 32]);
    make_tree(&source, 200);
    let mut author = JsDrive::author_with(dir.path(), vec![format!("--encryption={}", hex::encode(secret))]).await;
    author.run(json!(["fromFolder", source, false])).await;
    change_tree(&source);
    // What was deduplicated is a list of blocks, which is encrypted, too.
    author.run(json!(["fromFolder", source, true])).await;
    let version = author.run(json!(["version"])).await.as_u64().unwrap();

    let ours = network(dir.path(), 1).await;
    let drive = Drive::open_encrypted(ours.store(), author.key, secret).unwrap();
    let drive = fetch_all(&ours, &author, drive).await;
    assert_eq!(json!(list(&drive, version)), author.run(json!(["list", version])).await);
    let target = dir.path().join("target");
    export_all(&drive, &target);
    assert_same(&source, &target);
    assert_eq!(export_all(&drive, &target).written, 0, "what is there is known to be the same");
    assert!(matches!(import(&drive, &source, &mut |_| ControlFlow::Continue(())), Err(ImportError::Drive(_))));

    assert_eq!(Drive::kind(drive.metadata()).unwrap(), Kind::Feed);
    assert_eq!(Drive::kind(drive.metadata().decrypted(secret)).unwrap(), Kind::Drive);
    assert_eq!(Drive::kind(drive.metadata().decrypted([8; 32])).unwrap(), Kind::Feed);
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_reads_our_drive_and_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    make_tree(&source, 1500);
    let ours = network(dir.path(), 1).await;
    let drive = Drive::create(ours.store(), &corestore_keypair()).unwrap();
    let imported = import_all(&drive, &source);
    assert_eq!((imported.unchanged, imported.deleted), (0, 0));
    let first = drive.version();
    let again = import_all(&drive, &source);
    assert_eq!((again.added, again.changed, again.deleted, again.unchanged), (0, 0, 0, imported.added));
    assert_eq!(drive.version(), first, "nothing changed, and nothing was written");

    let mut reader = JsDrive::reader(dir.path(), &ours, drive.key()).await;
    assert_eq!(reader.run(json!(["get", "/folder 1/file 1.txt"])).await, "content 1 of the tree");
    assert_eq!(reader.run(json!(["download", "/deep"])).await, true);
    let target = dir.path().join("target");
    reader.run(json!(["toFolder", target])).await;
    assert_same(&source, &target);

    let moved = change_tree(&source);
    let imported = import_all(&drive, &source);
    assert!(imported.added > 0 && imported.changed > 0 && imported.deleted > 0 && imported.unchanged > 1000);
    assert!(imported.new_bytes < 2 * moved, "what was moved is not written again: {imported:?}");
    let second = drive.version();
    while reader.run(json!(["version"])).await != second {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Elsewhere, since its mirror can't put a file where a folder was.
    let target = dir.path().join("second target");
    reader.run(json!(["toFolder", target])).await;
    assert_same(&source, &target);
    for version in [first, second] {
        assert_eq!(json!(list(&drive, version)), reader.run(json!(["list", version])).await);
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_feeds_have_the_keys_and_blocks_of_javascript() {
    let dir = tempfile::tempdir().unwrap();
    let mut author = JsDrive::author(dir.path()).await;
    let source = dir.path().join("source");
    let ours = network(dir.path(), 1).await;
    let drive = Drive::create(ours.store(), &corestore_keypair()).unwrap();
    assert_eq!(drive.key(), author.key);

    let write = |path: &str, content: &[u8]| {
        let path = source.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    author.run(json!(["batch"])).await;
    for number in 100..140 {
        write(&format!("a/{number}"), format!("text {number}").as_bytes());
        author.run(json!(["put", format!("/a/{number}"), format!("text {number}")])).await;
    }
    write("empty", b"");
    write("large", &block(0, 200_000));
    write("run", b"#!/bin/sh");
    set_executable(&source.join("run"));
    std::os::unix::fs::symlink("../a/101", source.join("zlink")).unwrap();
    author.run(json!(["put", "/empty", ""])).await;
    author.run(json!(["fill", "/large", 200_000])).await;
    author.run(json!(["put", "/run", "#!/bin/sh", { "executable": true }])).await;
    author.run(json!(["symlink", "/zlink", "../a/101"])).await;
    author.run(json!(["flush"])).await;
    import_all(&drive, &source);

    author.run(json!(["batch"])).await;
    write("a/103", b"other");
    author.run(json!(["put", "/a/103", "other"])).await;
    std::fs::remove_file(source.join("a/120")).unwrap();
    author.run(json!(["del", "/a/120"])).await;
    author.run(json!(["flush"])).await;
    import_all(&drive, &source);

    let theirs = author.run(json!(["blocks"])).await;
    let hashes = |feed: &datdot_hypercore::Feed| -> Vec<_> {
        (0..feed.info().length).map(|number| hash(&feed.read(number).unwrap())).collect()
    };
    assert_eq!(theirs["blobsKey"], drive.blobs().unwrap().key().to_string());
    assert_eq!(theirs["blobs"], json!(hashes(drive.blobs().unwrap())));
    assert_eq!(theirs["metadata"], json!(hashes(drive.metadata())));
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_drive_of_javascript_writes_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let mut author = JsDrive::author(dir.path()).await;
    author.run(json!(["put", "/good/file", "good"])).await;
    let blob = json!({ "blockOffset": 0, "byteOffset": 0, "blockLength": 1, "byteLength": 4 });
    let file = json!({ "executable": false, "linkname": null, "blob": blob, "metadata": null });
    let names =
        ["/../../escaped", "/a/../../../escaped", "/..", "//escaped", "/a\\..\\..\\escaped", "/.", "escaped", "/dir/"];
    for name in names {
        author.run(json!(["raw", format!("files\0{name}"), file])).await;
    }
    author.run(json!(["raw", "files\0/no json", "text"])).await;
    for (name, place) in [("/far", [u64::from(u32::MAX), 1, 4]), ("/long", [0, 1 << 40, 4]), ("/short", [0, 1, 5])] {
        let blob = json!({ "blockOffset": place[0], "byteOffset": 0, "blockLength": place[1], "byteLength": place[2] });
        author.run(json!(["raw", format!("files\0{name}"), { "blob": blob }])).await;
    }
    let map = json!({ "blockOffset": 0, "byteOffset": 0, "blockLength": 1, "byteLength": 4, "blockMap": true });
    author.run(json!(["raw", "files\0/map", { "blob": map }])).await;
    // A link to a folder outside, and a file below that link.
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    author.run(json!(["symlink", "/link", outside])).await;
    author.run(json!(["raw", "files\0/link/escaped", file])).await;
    author.run(json!(["symlink", "/up", "../outside"])).await;
    author.run(json!(["raw", "files\0/up/escaped", file])).await;
    author.run(json!(["symlink", "/fine", "good/file"])).await;

    let ours = network(dir.path(), 1).await;
    let drive = fetched(&ours, &author).await;
    let target = dir.path().join("a/b/target");
    let options = export::Options { folder: None, max_bytes: 1 << 30, replace: true };
    let before = names_in(dir.path());
    let exported = export(&drive.latest(), &target, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let skipped: Vec<_> = exported.skipped.iter().map(|skipped| &skipped.name).collect();
    assert!(skipped.len() >= names.len() + 5, "{skipped:?}");
    assert_eq!(std::fs::read(target.join("fine")).unwrap(), b"good");
    assert_eq!(std::fs::read(target.join("good/file")).unwrap(), b"good");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!names_in(dir.path()).iter().any(|name| name.ends_with("escaped") && !name.starts_with("a/b/target/")));
    assert!(names_in(dir.path()).iter().all(|name| name.starts_with("a") || before.contains(name)));

    // The target of an earlier export, with a link in the way.
    let trap = dir.path().join("trap");
    std::fs::create_dir(&trap).unwrap();
    std::os::unix::fs::symlink(&outside, trap.join("good")).unwrap();
    std::os::unix::fs::symlink(outside.join("planted"), trap.join(".datdot-part")).unwrap();
    let exported = export(&drive.latest(), &trap, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(exported.skipped.iter().any(|skipped| skipped.name == "/good/file"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);

    // A bound on what is written.
    let options = export::Options { max_bytes: 3, ..options };
    let fresh = dir.path().join("fresh");
    let error = export(&drive.latest(), &fresh, &options, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, export::ExportError::TooLarge { max: 3, .. }), "{error}");
    ours.close().await;
}

async fn large_file(bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    make_sparse(&source.join("large"), bytes);
    let ours = network(dir.path(), 1).await;
    let drive = Drive::create(ours.store(), &corestore_keypair()).unwrap();
    assert_eq!(import_all(&drive, &source).new_bytes, bytes);
    let mut reader = JsDrive::reader(dir.path(), &ours, drive.key()).await;
    let target = dir.path().join("target");
    reader.run(json!(["toFolder", target])).await;
    assert_same(&source, &target);

    // And back.
    let mut author = JsDrive::author(dir.path()).await;
    author.run(json!(["fromFolder", source, false])).await;
    let other = network(dir.path(), 2).await;
    let drive = fetched(&other, &author).await;
    let target = dir.path().join("back");
    export_all(&drive, &target);
    assert_same(&source, &target);
    ours.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_both_ways() {
    large_file(48 << 20).await;
}

/// JavaScript asks for all of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_gibibyte_goes_both_ways() {
    large_file(1 << 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_there_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let ours = network(dir.path(), 1).await;
    let drive = Drive::create(ours.store(), &corestore_keypair()).unwrap();
    let path: DrivePath = "/nothing".parse().unwrap();
    assert!(drive.latest().entry(&path).unwrap().is_none());
    assert_eq!(drive.latest().entries(None).count(), 0);
    let other = Drive::open(ours.store(), FeedKey([7; 32])).unwrap();
    assert!(matches!(other.blobs(), Err(DriveError::Metadata(_))));
    ours.close().await;
}
