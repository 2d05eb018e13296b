//! Peers that find each other by a feed's key: no address is typed, and none is on the ledger.

use crate::bad_input::{assert_says, run};
use crate::network::{Network, Peer, bytes};
use crate::process::datdot_in;
use crate::strangers::{Author, original, read_in_swarm};
use datdot_api::{Key, status::Nat};
use std::{fs, net::UdpSocket};
use tempfile::TempDir;

const SIZE: usize = (16 << 20) + 12_345;

#[test]
fn a_file_outlives_its_publisher_without_any_address_and_javascript_finds_it_by_its_key() {
    let network = Network::start();
    let content = bytes(SIZE, 5);
    let file = original(&network, &content);
    let hosters = ["bob", "charlie", "dave"].map(|name| network.hidden_hoster(name));
    let mut publisher = network.hidden("ferdie");

    let order = ["publish", file.to_str().unwrap(), "--replicas", "3", "--for", "1d", "--max-price", "20"];
    let said = publisher.must(order);
    assert!(said.contains("Hosted by 3 of 3"), "{said}");
    let request = publisher.status().requests.remove(0);
    assert!(request.contracts.iter().all(|contract| contract.addresses.is_empty()), "{request:?}");
    let key = request.feeds[0];
    publisher.kill();
    hosters.iter().for_each(|hoster| is_announced(hoster, key));

    for name in ["first", "second"] {
        let copy = network.file(name);
        read_in_swarm(key, &network.bootstrap(), &copy);
        assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
    }

    // A reader of ours knows no more.
    let reader = network.hidden("one");
    let copy = network.file("third");
    let said = reader.must(["get", &key.to_string(), copy.to_str().unwrap()]);
    assert!(said.contains("every block verified"), "{said}");
    assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
    assert!(reader.status().peers.iter().all(|peer| peer.address == "by the swarm"), "{:?}", reader.status().peers);
    assert_eq!(reader.status().swarm.topics, 0, "what is only read is not announced");
}

#[test]
fn a_javascript_author_in_the_swarm_is_sponsored_by_key_alone() {
    let network = Network::start();
    let content = bytes(SIZE, 6);
    let author = Author::in_swarm(&original(&network, &content), &network.file("author"), &network.bootstrap());
    let hoster = network.hidden_hoster("bob");
    let mut sponsor = network.hidden("eve");

    let key = author.key;
    let order = ["request", &key.to_string(), "--replicas", "1", "--for", "1d", "--max-price", "20"];
    let said = sponsor.must(order);
    assert!(said.contains("Hosted by 1 of 1"), "{said}");
    drop(author);
    sponsor.kill();
    is_announced(&hoster, key);
    let copy = network.file("copy");
    read_in_swarm(key, &network.bootstrap(), &copy);
    assert!(fs::read(&copy).unwrap() == content, "not the same bytes");
}

#[test]
fn the_doctor_says_who_reaches_a_peer_and_what_to_do() {
    let network = Network::start();
    let peer = network.hidden("bob");
    peer.until("its node knows the DHT, and where it is", 60, |status| {
        (status.swarm.answers == Some(true) && status.swarm.nat == Nat::Open).then_some(())
    });
    let said = peer.must(["doctor"]);
    assert!(said.contains("Everybody reaches this peer") && said.contains("To do: nothing."), "{said}");
    assert!(peer.must(["status"]).contains("swarm     knows"));

    // Without a daemon, and with a DHT that isn't there.
    let nowhere = TempDir::new().unwrap();
    let dir = nowhere.path().to_str().unwrap();
    let found = datdot_in(nowhere.path()).args(["doctor", "--bootstrap", &network.bootstrap()]).output().unwrap();
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(found.status.success() && said.contains("Everybody reaches this peer"), "{said}");
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_says(run(&["--dir", dir, "doctor", "--bootstrap", &free]), 1, &["does not answer"]);
}

#[test]
fn on_a_dev_chain_nobody_turns_to_the_public_dht() {
    let network = Network::start();
    let peer = network.peer("bob");
    let swarm = peer.status().swarm;
    assert!(swarm.off.is_some_and(|why| why.contains("dev chain")) && swarm.bootstrap.is_empty());
}

/// Waits until others can find a feed at a peer.
pub fn is_announced(peer: &Peer, key: Key) {
    peer.until("the feed is announced", 60, |status| {
        let feed = status.feeds.iter().find(|feed| feed.key == key)?;
        feed.announced.map(|_| ())
    });
}
