//! What people get wrong: a clear message with what to do, and nothing lost.

use crate::network::{Network, bytes};
use crate::process::datdot;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

pub fn run(args: &[&str]) -> (Option<i32>, String) {
    said(datdot().args(args).stdin(Stdio::null()).output().unwrap())
}

pub fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

pub fn assert_says((code, said): (Option<i32>, String), expected: i32, words: &[&str]) {
    assert_eq!(code, Some(expected), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_is_right() {
    assert_says(run(&["host", "--space", "50 GBB", "--price", "1"]), 2, &["50 GBB", "GB, TB", "GiB"]);
    assert_says(run(&["host", "--space", "50GB"]), 2, &["--price"]);
    assert_says(run(&["host", "--stop", "--space", "50GB"]), 2, &["--stop"]);
    assert_says(run(&["get", &KEY[..62], "file"]), 2, &["62 characters", "64 hex digits", "z-base-32"]);
    assert_says(run(&["publish", "file", "--for", "0d"]), 2, &["more than zero"]);
    assert_says(run(&["publish", "file", "--for", "30"]), 2, &["s, min, h, d, w"]);
    assert_says(run(&["publish", "file", "--max-price", "1 EUR"]), 2, &["DAT"]);
    assert_says(run(&["publish", "file", "--replicas", "99"]), 2, &["1..=16"]);
    assert_says(run(&["request", KEY, "--from", "127.0.0.1"]), 2, &["HOST:PORT"]);
    assert_says(run(&["limits", "--upload", "5Mb/s"]), 2, &["5Mb/s", "bits", "5MB/s"]);
    assert_says(run(&["limits", "--download-each", "19kB/s"]), 2, &["20 kB/s", "`none`"]);
    assert_says(run(&["up", "--upload-each", "fast"]), 2, &["fast", "kB, MB", "`none`"]);
    assert_says(run(&["wallet", "send", "5Grw", "1"]), 2, &["5Grw", "address"]);
    assert_says(run(&["unpublish", KEY, "--yes"]), 2, &["--delete"]);
    assert_says(run(&["frobnicate"]), 2, &["frobnicate", "--help"]);
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_one() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().to_str().unwrap();
    fs::write(format!("{dir}/file"), "content").unwrap();
    let file = format!("{dir}/file");
    let copy = format!("{dir}/copy");
    for args in [
        &["status"][..],
        &["host", "--space", "1GB", "--price", "1"],
        &["host", "--stop"],
        &["publish", &file],
        &["request", KEY],
        &["get", KEY, &copy],
        &["cancel", "0"],
        &["unpublish", KEY],
        &["limits"],
        &["limits", "--upload", "1MB/s"],
    ] {
        let args: Vec<_> = ["--dir", dir].iter().chain(args).copied().collect();
        assert_says(run(&args), 1, &["datdot dev", "datdot up", dir]);
    }
}

#[test]
fn a_ledger_that_is_not_there_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ledger = format!("ws://127.0.0.1:{port}");
    let dir = dir.path().to_str().unwrap();
    let args = ["--dir", dir, "up", "--ledger", &ledger, "--account", "//Bob", "--listen", "127.0.0.1:0"];
    assert_says(run(&args), 1, &[&ledger, "datdot dev"]);
    assert_says(run(&["--dir", dir, "up", "--ledger", "http//nonsense", "--account", "//Bob"]), 1, &["ws://"]);
}

#[test]
fn a_wallet_is_made_once_imported_by_its_words_and_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let password = dir.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    let wallet = |folder: &str, args: &[&str], stdin: &str| {
        let mut command = datdot();
        command.arg("--dir").arg(dir.path().join(folder)).arg("wallet").args(args);
        command.env("DATDOT_PASSWORD_FILE", &password);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
        child.wait_with_output().unwrap()
    };
    let address = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix("address  ").map(str::to_owned))
    };

    let made = wallet("a", &["new"], "");
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    let words =
        text.lines().rfind(|line| line.split_whitespace().count() == 12).expect("the words are shown").to_owned();
    assert!(address(&made).is_some_and(|address| address.starts_with('5')), "{text}");
    assert_eq!(address(&wallet("a", &["show"], "")), address(&made));
    assert_says(said(wallet("a", &["new"], "")), 1, &["already", "never overwritten"]);
    assert_says(said(wallet("a", &["import"], &words)), 1, &["already"]);

    assert_eq!(address(&wallet("b", &["import"], &words)), address(&made));
    let mut wrong: Vec<_> = words.split_whitespace().collect();
    wrong[4] = "datdott";
    let wrong = wrong.join(" ");
    assert_says(said(wallet("c", &["import"], &wrong)), 1, &["datdott", "word 5"]);
    assert_says(said(wallet("c", &["import"], "too few words")), 1, &["12 words"]);
    assert!(!dir.path().join("c/wallet.age").exists());

    let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "a wallet is nobody else's business");

    fs::write(&password, "wrong\n").unwrap();
    assert_says(said(wallet("a", &["show"], "")), 1, &["password"]);
}

#[test]
fn the_words_may_come_from_a_file_while_the_password_is_asked_on_the_terminal() {
    let dir = TempDir::new().unwrap();
    let words = "bottom drive obey lake curtain smoke basket hold race lonely fit walk\n";
    fs::write(dir.path().join("words.txt"), words).unwrap();
    let import = format!("'{}' --dir wallet wallet import < words.txt", env!("CARGO_BIN_EXE_datdot"));

    // Without a terminal: a session of its own has none.
    let mut alone = Command::new("setsid");
    alone.args(["--wait", "sh", "-c", &import]).current_dir(dir.path()).env_remove("DATDOT_PASSWORD_FILE");
    assert_says(said(alone.stdin(Stdio::null()).output().unwrap()), 1, &["--password-file"]);

    // On a terminal, which util-linux's `script` makes.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &import, "/dev/null"]).current_dir(dir.path());
    terminal.env_remove("DATDOT_PASSWORD_FILE").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut shown = String::new();
    for question in ["Choose a password", "The same again"] {
        while !shown.contains(question) {
            let mut piece = [0; 256];
            let read = screen.read(&mut piece).unwrap();
            assert!(read > 0, "it ended with: {shown}");
            shown.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        typed.write_all(b"correct horse\n").unwrap();
    }
    screen.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success() && shown.contains("address  5"), "{shown}");
}

#[test]
fn what_the_ledger_or_the_disk_cannot_give_is_refused_and_nothing_is_lost() {
    let network = Network::start();
    let file = network.file("file");
    fs::write(&file, bytes(1 << 20, 7)).unwrap();
    let file = file.to_str().unwrap();
    let peer = network.peer("alice");
    let before = peer.status().money.expect("the ledger is there");

    // A GiB for a day at a million coins is more than anybody has.
    let output = peer.run(["publish", file, "--replicas", "16", "--for", "520w", "--max-price", "1000000"]);
    assert_says(said(output), 1, &["fund it, or ask for less"]);
    assert_says(said(peer.run(["publish", file, "--for", "5s", "--max-price", "10"])), 1, &["two periods, 20 s"]);
    assert_says(said(peer.run(["host", "--space", "900PB", "--price", "1"])), 1, &["free"]);
    assert_says(said(peer.run(["cancel", "77"])), 1, &["77"]);
    assert_says(said(peer.run(["publish", "/nowhere"])), 1, &["/nowhere"]);
    assert_says(said(peer.run(["unpublish", KEY])), 1, &["was not published here"]);
    let request = ["request", KEY, "--from", "127.0.0.1:9", "--max-price", "1"];
    assert_says(said(peer.run(request)), 1, &["127.0.0.1:9"]);
    let to = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy";
    assert_says(said(peer.run(["wallet", "send", to, "99999999"])), 1, &["99999999 DAT and the fee"]);
    assert_says(said(peer.run(["host", "--stop"])), 1, &["no offer"]);
    assert_says(said(peer.run(["get", KEY, "/nowhere/copy"])), 1, &["/nowhere is no folder"]);
    assert!(peer.status().feeds.iter().all(|feed| feed.bytes == 0), "nothing was read before it was refused");

    let after = peer.status().money.expect("the ledger is there");
    assert_eq!(after.budgets.0, 0, "nothing stays locked");
    assert!(before.free.0 - after.free.0 < datdot_coin(), "at most fees were paid: {before:?} {after:?}");
    // Someone else's daemon in the same folder would ruin it.
    let dir = peer.dir().to_str().unwrap();
    let second =
        run(&["--dir", dir, "up", "--ledger", &network.url(), "--account", "//Alice", "--listen", "127.0.0.1:0"]);
    assert_says(second, 1, &[dir]);

    a_wrong_token_opens_nothing(&peer);
    garbage_is_dropped_and_the_daemon_lives(&peer);
}

fn datdot_coin() -> u128 {
    1_000_000_000_000
}

fn a_wrong_token_opens_nothing(peer: &crate::network::Peer) {
    let file = peer.dir().join("api.json");
    let found: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let address = found["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let token = found["token"].as_str().unwrap();
    let get = |authorization: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /v1/status HTTP/1.1\r\nhost: {address}\r\n{authorization}connection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get(&format!("authorization: Bearer {token}\r\n")).starts_with("HTTP/1.1 200"));
    for wrong in ["", "authorization: Bearer \r\n", "authorization: Bearer 0123\r\n", "authorization: Basic 0123\r\n"] {
        let answer = get(wrong);
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(!answer.contains("noise_key"));
    }
}

fn garbage_is_dropped_and_the_daemon_lives(peer: &crate::network::Peer) {
    let garbage = bytes(1 << 20, 99);
    let announced_as_huge = [&[0xff, 0xff, 0xff][..], &garbage[..4096]].concat();
    for sent in [&garbage[..], &announced_as_huge, &[0; 65_536], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(peer.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The daemon may close before all is sent.
        stream.write_all(sent).ok();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let timed_out = end
            .is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        assert!(!timed_out, "the daemon keeps a peer that sends garbage");
    }
    assert!(peer.status().ledger.connected);
}
