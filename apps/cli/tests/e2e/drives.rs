//! Folders: published as drives, hosted, changed, read by JavaScript and by us.

use crate::{
    bad_input::assert_says,
    network::{Network, Peer, bytes},
    process::datdot_in,
    strangers::repository,
};
use datdot_api::{Key, Status, status::RequestState};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const HOSTED: [&str; 6] = ["--replicas", "2", "--for", "1d", "--max-price", "20"];

#[test]
fn a_folder_outlives_its_publisher_and_what_changes_is_added_under_the_same_key() {
    let network = Network::start();
    let hosters = ["bob", "charlie"].map(|name| network.hoster(name));
    let folder = network.file("folder");
    make_folder(&folder);
    let path = folder.to_str().unwrap();
    let mut publisher = network.peer("alice");

    let quote = publisher.must(["publish", path, "--quote"]);
    assert!(quote.contains("Nothing was signed."), "{quote}");
    assert!(publisher.status().drives.is_empty(), "a quote publishes nothing");
    let publish = || publisher.must(["publish", path].iter().chain(&HOSTED));
    let said = publish();
    assert!(said.contains("Hosted by 2 of 2"), "{said}");
    let key = key_of(&publisher.status());
    assert!(said.contains(&format!("datdot get {key} FOLDER")), "{said}");
    let request = publisher.status().requests.remove(0);
    assert_eq!((request.state, request.feeds.len(), request.file.as_deref()), (RequestState::Hosted, 2, Some(path)));
    let again = publish();
    assert!(again.contains("is open already") && again.contains("0 added, 0 changed, 0 deleted"), "{again}");
    for hoster in &hosters {
        javascript_reads(hoster, key, &folder, &network.file("js"));
    }

    // Only what changed is added; the folder as it is now has a request of its own.
    let before = stored(&publisher, key);
    fs::write(folder.join("docs/changed.txt"), "another text").unwrap();
    fs::write(folder.join("docs/new.txt"), bytes(100_000, 5)).unwrap();
    fs::remove_file(folder.join("deleted.txt")).unwrap();
    fs::rename(folder.join("large"), folder.join("docs/large, moved")).unwrap();
    let said = publish();
    assert!(said.contains("2 added, 1 changed, 2 deleted") && said.contains("Hosted by 2 of 2"), "{said}");
    assert!(said.contains(&format!("Request {} is for the folder as it was before", request.id.unwrap())), "{said}");
    assert_eq!(key_of(&publisher.status()), key);
    assert!(stored(&publisher, key) < before + 110_000, "what was moved is not written again");
    let page = publisher.must(["status"]);
    assert!(page.contains("Drives") && page.contains(path) && page.contains("version"), "{page}");
    publisher.kill();
    for hoster in &hosters {
        javascript_reads(hoster, key, &folder, &network.file("js"));
    }
    a_reader_needs_only_the_key(&network, key, &folder);
    for hoster in &hosters {
        hoster.until("both requests are proven", 60, |status| {
            let proven = status.contracts.iter().filter(|contract| contract.proven >= 2).count();
            (proven == 2).then_some(())
        });
    }
}

fn a_reader_needs_only_the_key(network: &Network, key: Key, folder: &Path) {
    let reader = network.peer("eve");
    let (key, target) = (key.to_string(), network.file("target"));
    let target_arg = target.to_str().unwrap();
    let listed = reader.must(["ls", &key]);
    assert!(listed.contains("docs/  (") && listed.contains("run.sh*") && listed.contains("link -> docs/changed.txt"));
    let listed = reader.must(["ls", &key, "docs"]);
    assert!(listed.contains("97.7 KiB  new.txt") && !listed.contains("run.sh"), "{listed}");
    assert_says(said(reader.run(["ls", &key, "nowhere"])), 1, &["nothing at /nowhere", "datdot ls"]);

    let file = reader.run(["get", &format!("{key}/docs/new.txt"), "-"]);
    assert!(file.status.success() && file.stdout == bytes(100_000, 5), "{}", String::from_utf8_lossy(&file.stderr));
    let one = network.file("one");
    reader.must(["get", &format!("{key}/run.sh"), one.to_str().unwrap()]);
    assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o100, 0o100);
    assert_says(said(reader.run(["get", &key, "-"])), 1, &["is a drive", "datdot ls"]);
    assert_says(said(reader.run(["get", &key, one.to_str().unwrap()])), 1, &["exists already"]);

    let got = reader.must(["get", &key, target_arg]);
    assert!(got.contains("every block verified"), "{got}");
    assert_eq!(tree(&target), tree(folder));
    // What the user has made of it is not overwritten, unless that is said.
    fs::write(target.join("run.sh"), "mine").unwrap();
    assert_says(said(reader.run(["get", &key, target_arg])), 1, &["1 of the drive's files", "--replace"]);
    assert_eq!(fs::read(target.join("run.sh")).unwrap(), b"mine");
    let got = reader.must(["get", &key, target_arg, "--replace"]);
    assert!(got.contains("1 file written"), "{got}");
    assert_eq!(tree(&target), tree(folder));
    let part = network.file("part");
    reader.must(["get", &format!("{key}/docs"), part.to_str().unwrap()]);
    assert_eq!(tree(&part), tree(&folder.join("docs")));
}

#[test]
fn a_publisher_killed_again_and_again_keeps_the_key_and_writes_every_byte_once() {
    let network = Network::start();
    let _hoster = network.hoster("bob");
    let folder = network.file("folder");
    make_folder(&folder);
    // What is there twice may be written once.
    fs::remove_file(folder.join("copy of large")).unwrap();
    for number in 0..6 {
        fs::write(folder.join(format!("video {number}")), bytes(12 << 20, 100 + number)).unwrap();
    }
    let mut publisher = network.peer("alice");
    let path = folder.to_str().unwrap();
    let mut key = None;
    let mut held = 0;
    for _ in 0..3 {
        let mut publishing = publishing(&publisher, path);
        let status = publisher.until("it reads on", 60, |status| {
            let now = status.feeds.iter().map(|feed| feed.held).sum::<u64>();
            (now > held + (4 << 20) || is_hosted(status)).then(|| status.clone())
        });
        publisher.kill();
        publishing.kill().ok();
        publishing.wait().unwrap();
        held = status.feeds.iter().map(|feed| feed.held).sum();
        let now = key_of(&status);
        assert_eq!(*key.get_or_insert(now), now, "the key stays");
        publisher.start();
    }
    // Nobody asks again: the daemon goes on by itself.
    let status = publisher.until("it is hosted", 180, |status| is_hosted(status).then(|| status.clone()));
    assert_eq!((status.requests.len(), status.drives.len()), (1, 1), "{status:#?}");
    assert_eq!(Some(key_of(&status)), key);
    let blobs = status.feeds.iter().find(|feed| feed.key == status.drives[0].blobs).unwrap();
    assert_eq!(blobs.bytes, status.drives[0].bytes, "no byte was written twice");

    let (target, key) = (network.file("target"), key.unwrap().to_string());
    publisher.must(["get", &key, target.to_str().unwrap()]);
    assert_eq!(tree(&target), tree(&folder));
}

#[test]
fn a_reader_killed_while_it_fetches_goes_on_and_a_drive_of_javascript_is_sponsored_with_both_feeds() {
    let network = Network::start();
    let folder = network.file("folder");
    make_folder(&folder);
    fs::write(folder.join("video"), bytes(24 << 20, 9)).unwrap();
    let mut author = JsDrive::author(&network.file("author"));
    author.run(serde_json::json!(["fromFolder", folder, true]));
    let from = format!("127.0.0.1:{}", author.port.unwrap());
    let key = author.key;

    let mut reader = network.peer("eve");
    let target = network.file("target");
    let args = ["get", &key.to_string(), target.to_str().unwrap(), "--from", &from];
    let mut command = datdot_in(reader.dir());
    let mut getting =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    reader.until("something has come", 60, |status| status.feeds.iter().any(|feed| feed.held > 4 << 20).then_some(()));
    reader.kill();
    getting.wait().unwrap();
    reader.start();
    reader.until("it has gone on by itself", 120, |status| (status.feeds.is_empty() && target.exists()).then_some(()));
    assert_eq!(tree(&target), tree(&folder));

    let hosters = ["bob", "charlie"].map(|name| network.hoster(name));
    let sponsor = network.peer("alice");
    let key_text = key.to_string();
    let said = sponsor.must(["request", &key_text, "--from", &from].iter().chain(&HOSTED));
    assert!(said.contains("Hosted by 2 of 2"), "{said}");
    assert_eq!(sponsor.status().requests[0].feeds.len(), 2);
    assert_eq!(sponsor.status().drives[0].folder, None);
    drop(author);
    for hoster in &hosters {
        javascript_reads(hoster, key, &folder, &network.file("js"));
    }
}

#[test]
fn what_can_not_be_published_or_read_is_said_with_what_to_do() {
    let network = Network::start();
    let peer = network.peer("alice");
    let empty = network.file("empty");
    fs::create_dir(&empty).unwrap();
    let published = |args: &[&str]| said(peer.run(["publish"].iter().chain(args).chain(&HOSTED)));
    assert_says(published(&[empty.to_str().unwrap()]), 1, &["has no files"]);
    fs::write(empty.join("secret"), "secret").unwrap();
    fs::write(empty.join(".datdotignore"), "*\n").unwrap();
    assert_says(published(&[empty.to_str().unwrap()]), 1, &["all are ignored"]);
    fs::write(empty.join(".datdotignore"), "secret{\n").unwrap();
    assert_says(published(&[empty.to_str().unwrap()]), 1, &["secret{"]);
    let status = peer.status();
    assert!(status.drives.is_empty() && status.feeds.is_empty(), "nothing is left behind: {status:#?}");

    let file = network.file("file");
    fs::write(&file, bytes(100_000, 7)).unwrap();
    let hoster = network.hoster("bob");
    peer.must(["publish", file.to_str().unwrap(), "--replicas", "1", "--for", "1d", "--max-price", "20"]);
    let key = peer.status().feeds[0].key.to_string();
    let whole = hoster.run(["get", &key, "-"]);
    assert!(whole.status.success() && whole.stdout == bytes(100_000, 7));
    assert_says(said(hoster.run(["ls", &key])), 1, &["is a feed and not a drive"]);
    assert_says(said(hoster.run(["get", &format!("{key}/a"), "copy"])), 1, &["is a feed and not a drive"]);
    let folder = network.file("a folder");
    fs::create_dir(&folder).unwrap();
    assert_says(said(hoster.run(["get", &key, folder.to_str().unwrap()])), 1, &["exists already"]);
}

/// A bit of everything.
fn make_folder(root: &Path) {
    let write = |name: &str, content: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for number in 0..300 {
        write(&format!("many/{}/{number}.txt", number % 9), format!("file {number}").as_bytes());
    }
    write("docs/changed.txt", b"a text");
    write("deleted.txt", b"deleted");
    write("empty", b"");
    write("Größe/日本語 🙂.txt", b"unicode");
    write("large", &bytes((3 << 20) + 77, 3));
    write("copy of large", &bytes((3 << 20) + 77, 3));
    write(&format!("{}deep", "level/".repeat(40)), b"deep");
    write("run.sh", b"#!/bin/sh");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("docs/changed.txt", root.join("link")).unwrap();
    write("build/output", b"not published");
    write(".datdotignore", b"build/\n");
}

/// All of a folder but what [`make_folder`] has ignored, and where it says so: kind, executable bit, content.
fn tree(root: &Path) -> BTreeMap<String, (char, bool, Vec<u8>)> {
    fn walk(dir: &Path, root: &Path, all: &mut BTreeMap<String, (char, bool, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                all.insert(name, ('l', false, fs::read_link(&path).unwrap().to_str().unwrap().into()));
            } else if meta.is_dir() {
                if name != "build" {
                    walk(&path, root, all);
                }
            } else if name != ".datdotignore" {
                all.insert(name, ('f', meta.permissions().mode() & 0o100 != 0, fs::read(&path).unwrap()));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn key_of(status: &Status) -> Key {
    let [drive] = &status.drives[..] else { panic!("not one drive: {status:#?}") };
    drive.key
}

fn is_hosted(status: &Status) -> bool {
    status.requests.first().is_some_and(|request| request.state == RequestState::Hosted)
}

/// Bytes of the drive that a peer has.
fn stored(peer: &Peer, key: Key) -> u64 {
    let status = peer.status();
    let drive = status.drives.iter().find(|drive| drive.key == key).unwrap();
    status.feeds.iter().filter(|feed| feed.key == key || feed.key == drive.blobs).map(|feed| feed.held).sum()
}

fn publishing(peer: &Peer, path: &str) -> Child {
    let mut command = datdot_in(peer.dir());
    command.args(["publish", path, "--replicas", "1", "--for", "1d", "--max-price", "20"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Reads a drive from one hoster with npm's hyperdrive, every file, and compares.
fn javascript_reads(hoster: &Peer, key: Key, folder: &Path, room: &Path) {
    fs::remove_dir_all(room).ok();
    let target = room.join("folder");
    JsDrive::reader(&room.join("store"), key, hoster.address()).run(serde_json::json!(["toFolder", target]));
    let (got, original) = (tree(&target), tree(folder));
    assert!(got == original, "not the same: {:?}", got.keys().collect::<Vec<_>>());
}

/// `tests/js/drive.js`; killed when dropped.
struct JsDrive {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    key: Key,
    port: Option<u64>,
}

impl JsDrive {
    fn author(dir: &Path) -> Self {
        let primary = format!("--primary={}", "07".repeat(32));
        let mut drive = Self::start(dir, &[primary]);
        drive.port = drive.event("listening")["port"].as_u64();
        drive
    }

    fn reader(dir: &Path, key: Key, address: &str) -> Self {
        Self::start(dir, &[format!("--key={key}"), format!("--connect={address}")])
    }

    fn start(dir: &Path, args: &[String]) -> Self {
        let mut command = Command::new("node");
        command.arg(repository().join("tests/js/drive.js")).arg(format!("--dir={}", dir.display())).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut drive = Self { child, lines, key: Key([0; 32]), port: None };
        drive.key = drive.event("drive")["key"].as_str().unwrap().parse().unwrap();
        drive
    }

    fn event(&mut self, name: &str) -> serde_json::Value {
        loop {
            let line = self.lines.next().expect("JavaScript goes on").unwrap();
            let said: serde_json::Value = serde_json::from_str(&line).unwrap();
            if said["event"] == name {
                return said;
            }
        }
    }

    fn run(&mut self, command: serde_json::Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.event("done");
    }
}

impl Drop for JsDrive {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
