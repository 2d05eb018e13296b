//! JavaScript peers, and feeds that were not made by us.

use crate::network::{Network, Peer, bytes};
use crate::process::output;
use datdot_api::{Event, Key, status::ContractState};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Takes an author with a slow line eight seconds, so that a hoster can be killed in the middle.
const SIZE: usize = 96 << 20;
/// What a hoster that is killed fetches twice at most: what waits for the disk, and what is under way.
const MOST_LOST: u64 = 24 << 20;

#[test]
fn a_feed_made_by_javascript_is_sponsored_by_another_and_hosting_outlives_author_sponsor_and_node() {
    let mut network = Network::start();
    let content = bytes(SIZE, 2);
    let author = Author::start(&original(&network, &content), &network.file("author"), "v1");
    let hoster = network.hoster("bob");
    let mut sponsor = network.peer("alice");

    let following = sponsor.must(order(&author));
    assert!(following.contains("Hosted by 1 of 1"), "{following}");
    drop(author);
    sponsor.kill();

    network.kill_node();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(!hoster.status().ledger.connected, "it notices that the ledger is gone");
    let before = hoster.status().contracts[0].proven;
    network.start_node();
    hoster.until("it proves again on the restarted ledger", 60, |status| {
        status.contracts.first().filter(|contract| contract.proven > before).map(|_| ())
    });
    read_from(&hoster, &network, &content);
}

#[test]
fn a_hoster_killed_while_fetching_fetches_only_what_is_missing() {
    let network = Network::start();
    let content = bytes(SIZE, 4);
    let author = Author::start(&original(&network, &content), &network.file("author"), "slow");
    let mut hoster = network.hoster("bob");
    let sponsor = network.peer("alice");
    // The sponsor has it all by then, and is faster than anybody could kill.
    hoster.must(["limits", "--download", "12MB/s"]);

    std::thread::scope(|scope| {
        let request = scope.spawn(|| sponsor.must(order(&author)));
        let held = hoster.until("it is in the middle of fetching", 120, |status| {
            let contract = status.contracts.first()?;
            assert_ne!(contract.state, ContractState::Hosting, "it fetched too fast to be killed in the middle");
            (contract.held >= contract.bytes / 2).then_some(contract.held)
        });
        hoster.kill();
        hoster.start();
        let (bytes, fetched) = hoster.event("fetched", |event| match event {
            Event::Fetched { bytes, fetched, .. } => Some((*bytes, *fetched)),
            _ => None,
        });
        assert_eq!(bytes, SIZE as u64);
        assert!(fetched <= bytes - held + MOST_LOST, "{held} of {bytes} were here, it fetched {fetched}");
        let following = request.join().unwrap();
        assert!(following.contains("Hosted by 1 of 1"), "{following}");
    });
    drop(author);
    read_from(&hoster, &network, &content);
}

pub fn original(network: &Network, content: &[u8]) -> PathBuf {
    let file = network.file("original");
    fs::write(&file, content).unwrap();
    file
}

fn order(author: &Author) -> Vec<String> {
    let key = author.key.to_string();
    let args = ["request", &key, "--from", &author.address, "--replicas", "1", "--for", "1d", "--max-price", "20"];
    args.map(str::to_owned).into()
}

fn read_from(hoster: &Peer, network: &Network, content: &[u8]) {
    let copy = network.file("copy");
    read_with_javascript(hoster.status().contracts[0].feeds[0], hoster.address(), &copy);
    assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
}

#[test]
fn a_compat_feed_is_read_from_its_javascript_author() {
    let network = Network::start();
    let content = bytes((1 << 20) + 77, 3);
    let author = Author::start(&original(&network, &content), &network.file("author"), "compat");
    let reader = network.peer("alice");
    let copy = network.file("copy");
    reader.must(["get", &author.key.to_string(), copy.to_str().unwrap(), "--from", &author.address]);
    assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
}

#[test]
fn an_encrypted_feed_is_read_with_the_key_in_a_file() {
    let network = Network::start();
    let content = bytes((1 << 20) + 77, 3);
    let author = Author::start(&original(&network, &content), &network.file("author"), "encrypted");
    let reader = network.peer("alice");
    let (key, copy, secret) = (author.key.to_string(), network.file("copy"), network.file("secret"));
    let with_key = ["--from", &author.address, "--encryption-key-file", secret.to_str().unwrap()];
    let get = |to: &str| reader.run(["get", &key, to].iter().chain(&with_key));
    fs::write(&secret, "no key").unwrap();
    let refused = get(copy.to_str().unwrap());
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("64 hex digits"));
    fs::write(&secret, "05".repeat(32)).unwrap();
    assert!(get(copy.to_str().unwrap()).status.success());
    assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
    assert!(get("-").stdout == content, "not the same bytes");
}

/// Reads a feed with the JavaScript reader that users have.
pub fn read_with_javascript(key: Key, address: &str, file: &Path) {
    read(key, &["--from", address], file);
}

/// The same, by the key alone: whoever announced the feed in the DHT that begins there is found.
pub fn read_in_swarm(key: Key, bootstrap: &str, file: &Path) {
    read(key, &["--bootstrap", bootstrap], file);
}

fn read(key: Key, how: &[&str], file: &Path) {
    let reader = repository().join("reader/get.js");
    let mut node = Command::new("node");
    let output = output(node.arg(reader).arg(key.to_string()).arg(file).args(how).args(["--seconds", "120"]));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "reader: {}\n{out}\n{err}", output.status);
}

/// A JavaScript program that made a feed of a file and serves it; killed when dropped.
pub struct Author {
    child: Child,
    pub key: Key,
    address: String,
}

impl Author {
    fn start(file: &Path, folder: &Path, kind: &str) -> Self {
        Self::run(file, folder, &[kind])
    }

    /// Announces itself in the DHT that begins there, and has no address.
    pub fn in_swarm(file: &Path, folder: &Path, bootstrap: &str) -> Self {
        Self::run(file, folder, &["swarm", bootstrap])
    }

    fn run(file: &Path, folder: &Path, how: &[&str]) -> Self {
        let script = repository().join("tests/js/author.js");
        let mut child =
            Command::new("node").arg(script).arg(file).arg(folder).args(how).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let key = said["key"].as_str().unwrap().parse().unwrap();
        Self { child, key, address: format!("127.0.0.1:{}", said["port"]) }
    }
}

impl Drop for Author {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
