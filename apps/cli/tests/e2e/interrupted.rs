//! What goes on when a command or a ledger is interrupted.

use crate::{
    bad_input::{assert_says, said as said_by},
    network::{Network, bytes},
    process::datdot_in,
};
use datdot_api::status::Standing;
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
fn a_daemon_that_ran_before_serves_what_it_hosts_and_waits_for_its_ledger() {
    let mut network = Network::start();
    let file = network.file("file");
    let content = bytes(100_000, 7);
    fs::write(&file, &content).unwrap();
    let mut publisher = network.peer("bob");
    let mut peer = network.hoster("alice");
    publisher.must(["publish", file.to_str().unwrap(), "--replicas", "1", "--for", "1d", "--max-price", "20"]);
    let key = publisher.status().feeds[0].key.to_string();
    publisher.kill();
    let mut reader = network.peer("charlie");
    reader.kill();
    peer.kill();
    network.kill_node();

    peer.start_without_ledger();
    reader.start_without_ledger();
    let said = peer.must(["status"]);
    assert!(said.contains("not connected for") && said.contains("is its node running?"), "{said}");
    assert!(peer.log().contains("trying again"), "{}", peer.log());
    let copy = network.file("copy");
    reader.must(["get", &key, copy.to_str().unwrap(), "--from", peer.address()]);
    assert!(fs::read(copy).unwrap() == content, "not the same bytes");
    assert_says(said_by(reader.run(["cancel", "0"])), 1, &["does not answer", "nothing was sent"]);

    network.start_node();
    peer.until("it sees the ledger", 60, |status| status.ledger.connected.then_some(()));
    peer.until("it proves again", 60, |status| (status.contracts.first()?.proven > 0).then_some(()));
}

#[test]
fn an_offer_that_is_withdrawn_takes_nothing_new_and_keeps_what_it_hosts() {
    let network = Network::start();
    let file = network.file("file");
    fs::write(&file, bytes(100_000, 7)).unwrap();
    let (hoster, user) = (network.hoster("bob"), network.peer("alice"));
    let publish = |term| ["publish", file.to_str().unwrap(), "--replicas", "1", "--for", term, "--max-price", "20"];
    user.must(publish("60s"));
    let said = hoster.must(["host", "--stop"]);
    assert!(said.contains("No new contracts since block"), "{said}");
    let status = hoster.status();
    assert_eq!(status.offer.map(|offer| offer.standing), Some(Standing::Leaving));
    assert_eq!(status.contracts.len(), 1);
    assert!(status.money.is_some_and(|money| money.bond.0 > 0), "the bond is held while there is a contract");

    let mut command = datdot_in(user.dir());
    command.args(publish("1d")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut waiting = command.spawn().unwrap();
    user.until("the next request finds nobody", 60, |status| {
        status.requests.iter().find(|request| request.why.is_some() && request.hosted == 0).map(|_| ())
    });
    assert_eq!(hoster.status().contracts.len(), 1, "it takes nothing new");
    waiting.kill().unwrap();
    waiting.wait().unwrap();

    hoster.until("the contract is over and the bond is back", 180, |status| {
        let money = status.money?;
        (status.contracts.is_empty() && status.offer.is_none() && money.bond.0 == 0).then_some(())
    });
    assert_says(said_by(hoster.run(["host", "--stop"])), 1, &["no offer"]);
}
