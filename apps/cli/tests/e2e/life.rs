//! The life of a request, from the file to the last replica.

use crate::network::{Network, Peer, bytes};
use crate::strangers;
use datdot_api::{
    Event, Key,
    status::{ContractState, ProofOutcome, RequestState},
};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// 16 MiB and a bit, so that the last block and the last chunk are short.
const SIZE: usize = (16 << 20) + 12_345;
/// Where a feed's blocks begin in its file (docs/protocol.md).
const BLOCKS_AT: u64 = 4 << 20;

#[test]
fn a_file_outlives_its_publisher_and_what_happens_to_its_hosters() {
    let network = Network::start();
    let content = bytes(SIZE, 1);
    fs::write(network.file("original"), &content).unwrap();
    let mut hosters: Vec<_> = ["bob", "charlie", "dave", "eve"].map(|name| network.hoster(name)).into();

    let key = a_file_is_hosted_by_three(&network, &mut hosters);
    hosters_prove_and_earn(&hosters[..3]);
    a_javascript_reader_gets_the_same_bytes(&network, key, &hosters[..3], &content);
    a_reader_finds_the_hosters_by_the_key_alone(&network, key, &content);
    a_damaged_hoster_is_found_unpaid_and_heals(&hosters[..3], key);
    a_lapsed_hoster_is_replaced_from_the_survivors(&network, &mut hosters, key, &content);
}

/// Publishes as `ferdie`, whose daemon is then gone. Puts the one hoster without a contract last.
fn a_file_is_hosted_by_three(network: &Network, hosters: &mut [Peer]) -> Key {
    let file = network.file("original");
    let file = file.to_str().unwrap();
    let mut publisher = network.peer("ferdie");
    let quote = publisher.must(["publish", file, "--quote"]);
    assert!(quote.contains("Nothing was signed."), "{quote}");
    assert!(publisher.status().requests.is_empty(), "a quote opens nothing");

    let said = publisher.must(["publish", file, "--replicas", "3", "--for", "1d", "--max-price", "20"]);
    assert!(said.contains("Hosted by 3 of 3"), "{said}");
    let request = publisher.status().requests.remove(0);
    assert_eq!((request.state, request.hosted, request.bytes), (RequestState::Hosted, 3, SIZE as u64));
    assert!(request.contracts.iter().all(|contract| contract.reserve.0 > 0));
    let key = request.feeds[0];
    assert!(said.contains(&key.to_string()), "{said}");
    publisher.kill();

    hosters.sort_by_key(|hoster| hoster.status().contracts.is_empty());
    key
}

fn hosters_prove_and_earn(hosters: &[Peer]) {
    for hoster in hosters {
        let contract = hoster.until("three periods proven", 60, |status| {
            status.contracts.first().filter(|contract| contract.proven >= 3).cloned()
        });
        assert_eq!(contract.state, ContractState::Hosting);
        assert!(contract.earned.0 > 0 && contract.earned < contract.reserve);
        let proof = hoster.status().proofs.into_iter().find(|proof| proof.outcome == ProofOutcome::Proven).unwrap();
        assert!(proof.block.is_some_and(|block| proof.asked < block && block <= proof.by), "{proof:?}");
        assert!(proof.bytes > 0 && proof.bytes <= 30_000, "{proof:?}");
    }
}

fn a_javascript_reader_gets_the_same_bytes(network: &Network, key: Key, hosters: &[Peer], content: &[u8]) {
    for hoster in hosters {
        let file = network.file("read-by-javascript");
        strangers::read_with_javascript(key, hoster.address(), &file);
        assert!(fs::read(&file).unwrap() == content, "not the same bytes");
        fs::remove_file(file).unwrap();
    }
}

fn a_reader_finds_the_hosters_by_the_key_alone(network: &Network, key: Key, content: &[u8]) {
    let reader = network.peer("one");
    let file = network.file("read-by-key");
    let args = ["get", &key.to_string(), file.to_str().unwrap()];
    let said = reader.must(args);
    assert!(said.contains("every block verified"), "{said}");
    assert!(fs::read(&file).unwrap() == content, "not the same bytes");
    assert!(!reader.run(args).status.success(), "a file that exists is not overwritten");
}

/// Flips bytes of what a hoster stores, while it can't reach anybody to heal from.
fn a_damaged_hoster_is_found_unpaid_and_heals(hosters: &[Peer], key: Key) {
    let [hoster, others @ ..] = hosters else { unreachable!("three hosters") };
    others.iter().for_each(Peer::pause);
    // One byte in each KiB of half of the data, so that one of the next challenge's 16 chunks meets it.
    let file = File::options().read(true).write(true).open(stored(hoster, BLOCKS_AT + SIZE as u64)).unwrap();
    let damaged = 0..(SIZE / 2) as u64;
    for at in damaged.clone().step_by(1024) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, BLOCKS_AT + at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], BLOCKS_AT + at).unwrap();
    }

    let found = hoster.until("the damage is found", 30, |status| status.damage.first().cloned());
    assert_eq!(found.feed, key);
    assert!(found.bytes.0 <= damaged.start && damaged.end - 1024 <= found.bytes.1, "{found:?}");
    let unproven = hoster.event("a proof withheld or refused", |event| match event {
        Event::ProofWithheld { number, .. } | Event::ProofRefused { number, .. } => Some(*number),
        _ => None,
    });
    let at_first = hoster.status();
    let missed = hoster.until("that challenge's deadline is over", 30, |status| {
        let proof = status.proofs.iter().find(|proof| proof.number == unproven)?;
        (status.ledger.best > proof.by).then(|| (proof.clone(), status.contracts[0].clone()))
    });
    assert_ne!(missed.0.outcome, ProofOutcome::Proven);
    assert_eq!(missed.1.proven, at_first.contracts[0].proven, "paid for what it did not prove");
    assert!(hoster.log().contains(&found.segment.to_string()), "the log names the segment");

    others.iter().for_each(Peer::resume);
    hoster.until("the data is whole again", 60, |status| status.damage.first().and_then(|found| found.healed));
    hoster.until("it earns again", 60, |status| (status.contracts[0].proven > missed.1.proven).then_some(()));
    let said = hoster.must(["status"]);
    assert!(said.contains(&found.segment.to_string()) && said.contains("whole again"), "{said}");
}

fn a_lapsed_hoster_is_replaced_from_the_survivors(network: &Network, hosters: &mut [Peer], key: Key, content: &[u8]) {
    let (spare, hosting) = hosters.split_last_mut().unwrap();
    assert!(spare.status().contracts.is_empty(), "three of four hosters were drawn");
    hosting[0].kill();
    spare.until("it was drawn for the lapsed replica and hosts it", 150, |status| {
        status.contracts.first().filter(|contract| contract.state == ContractState::Hosting).map(|_| ())
    });
    a_javascript_reader_gets_the_same_bytes(network, key, std::slice::from_ref(spare), content);
    hosters_prove_and_earn(std::slice::from_ref(spare));
}

/// The file with the blocks of the one feed of this size that a peer stores.
pub fn stored(peer: &Peer, size: u64) -> std::path::PathBuf {
    fn search(dir: &std::path::Path, size: u64) -> Option<std::path::PathBuf> {
        fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
            if path.is_dir() {
                return search(&path, size);
            }
            let is_data = path.file_name().is_some_and(|name| name == "data");
            (is_data && path.metadata().is_ok_and(|meta| meta.len() == size)).then_some(path)
        })
    }
    search(peer.dir(), size).unwrap_or_else(|| panic!("no data of {size} bytes in {}", peer.dir().display()))
}
