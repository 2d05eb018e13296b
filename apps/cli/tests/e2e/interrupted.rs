//! What goes on when a command or a ledger is interrupted.

use crate::{
    bad_input::assert_says,
    network::{Network, bytes},
    process::{Process, datdot_in, eventually},
};
use datdot_api::Client;
use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn ctrl_c_ends_the_command_and_not_the_work() {
    let network = Network::start();
    let file = network.file("file");
    fs::write(&file, bytes(100_000, 7)).unwrap();
    let peer = network.peer("alice");
    let publish = ["publish", file.to_str().unwrap(), "--replicas", "1", "--for", "1d", "--max-price", "1"];
    for _ in 0..2 {
        let mut command = datdot_in(peer.dir());
        command.args(publish).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        peer.until("a request is open", 60, |status| status.requests.first().and_then(|request| request.id));
        // It may follow a request that was open before: give it the time to begin.
        std::thread::sleep(Duration::from_secs(2));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_says((output.status.code(), said), 130, &["The daemon goes on", "datdot publish"]);
    }
    let requests = peer.status().requests;
    assert_eq!(requests.len(), 1, "the same wish is the same request: {requests:#?}");
}

#[test]
fn a_daemon_that_ran_before_waits_for_its_ledger() {
    let mut network = Network::start();
    let mut peer = network.peer("alice");
    peer.must(["host", "--space", "1GB", "--price", "10"]);
    peer.kill();
    network.kill_node();

    let log = network.file("again.log");
    let mut command = datdot_in(peer.dir());
    command.args(["up", "--ledger", &network.url(), "--account", "//Alice", "--listen", "127.0.0.1:0"]);
    let mut process = Process::start("alice", &log, command);
    eventually("it says that it waits", Duration::from_secs(30), || {
        process.must_run();
        fs::read_to_string(&log).unwrap().contains("trying again").then_some(())
    });
    network.start_node();
    eventually("it sees the ledger", Duration::from_secs(60), || {
        process.must_run();
        let status = Client::open(peer.dir()).and_then(|client| client.status()).ok()?;
        status.ledger.connected.then_some(())
    });
}
