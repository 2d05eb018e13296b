//! Limits of what passes between peers, as those see them who wait for the bytes.

use crate::{
    network::{Network, Peer, bytes},
    swarm::is_announced,
};
use datdot_api::{ClientError, Key, Limits, LimitsOrder, Progress, PublishOrder};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Six seconds at 1 MB/s.
const SIZE: usize = 6_000_000;

#[test]
fn limits_hold_over_tcp_and_by_the_swarm_for_who_sends_and_for_who_receives() {
    let network = Network::start();
    let content = bytes(SIZE, 11);
    let in_swarm = |limit: &str, rate: &str| {
        ["--no-address", "--bootstrap", &network.bootstrap(), limit, rate].map(str::to_owned).into()
    };
    let author = network.peer_with("ferdie", in_swarm("--upload", "1MB/s"));
    let key = publish(&author, &network.file("original"), &content);
    let takes_its_time = |took: Duration| {
        // A busy machine may be slower, and never faster.
        assert!((4.5..40.0).contains(&took.as_secs_f64()), "{SIZE} bytes at 1 MB/s took {took:?}");
    };
    let by_tcp = network.peer("bob");
    takes_its_time(read(&by_tcp, key, &network.file("first"), &["--from", author.address()], &content));

    is_announced(&author, key);
    let by_swarm = network.hidden("charlie");
    takes_its_time(read(&by_swarm, key, &network.file("second"), &[], &content));

    author.must(["limits", "--upload", "none"]);
    let slow = network.peer_with("dave", in_swarm("--download", "1MB/s"));
    takes_its_time(read(&slow, key, &network.file("third"), &[], &content));
}

#[test]
fn a_limit_that_is_changed_counts_at_once_and_stays_after_a_restart() {
    let network = Network::start();
    // 80 seconds at 200 kB/s.
    let content = bytes(16_000_000, 12);
    let mut author = network.peer("ferdie");
    assert!(author.must(["limits"]).contains("upload    no limit"));
    assert!(!author.must(["status"]).contains("limits"));
    let said = author.must(["limits", "--upload", "200KB/s"]);
    assert!(said.contains("upload    200 kB/s in all") && said.contains("download  no limit"), "{said}");
    let key = publish(&author, &network.file("original"), &content);
    let reader = network.peer("bob");
    let (file, from) = (network.file("copy"), ["--from", author.address()]);

    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&reader, key, &file, &from, &content));
        let held = |least: u64| {
            let held = reader
                .until("bytes come", 60, |status| status.feeds.iter().map(|feed| feed.held).find(|held| *held > least));
            (held, Instant::now())
        };
        let (before, begun) = held(200_000);
        std::thread::sleep(Duration::from_secs(4));
        let (after, ended) = held(before);
        let rate = (after - before) as f64 / (ended - begun).as_secs_f64();
        assert!((100_000.0..280_000.0).contains(&rate), "{rate} bytes a second");

        author.must(["limits", "--upload", "none", "--upload-each", "20MB/s"]);
        let changed = Instant::now();
        reading.join().unwrap();
        assert!(changed.elapsed() < Duration::from_secs(40), "the rest took {:?}", changed.elapsed());
    });

    author.kill();
    author.start();
    let kept = Limits { upload_each: Some(20_000_000), ..Limits::default() };
    assert_eq!(author.status().limits, kept);
    assert!(author.must(["status"]).contains("limits    upload 20 MB/s to each peer"));
    let json: serde_json::Value = serde_json::from_str(&author.must(["status", "--json"])).unwrap();
    assert_eq!((&json["limits"]["upload_each"], &json["limits"]["upload"]), (&20_000_000.into(), &().into()));

    let too_low = LimitsOrder { download: Some(Some(5)), ..LimitsOrder::default() };
    let refused = author.client().limit(&too_low);
    assert!(matches!(&refused, Err(ClientError::Refused(why)) if why.contains("20 kB/s")), "{refused:?}");
    assert_eq!(author.status().limits, kept, "what is refused changes nothing");
}

#[test]
fn what_is_named_at_the_start_counts_before_what_was_ordered() {
    let network = Network::start();
    let mut peer = network.peer_with("bob", ["--upload", "1MB/s"].map(str::to_owned).into());
    let said = peer.must(["limits", "--upload", "2MB/s", "--download", "3MB/s"]);
    assert!(said.contains("upload    2 MB/s in all") && said.contains("download  3 MB/s in all"), "{said}");
    peer.kill();
    peer.start();
    let limits = Limits { upload: Some(1_000_000), download: Some(3_000_000), ..Limits::default() };
    assert_eq!(peer.status().limits, limits);
}

/// Makes a feed of the content, which nobody hosts.
fn publish(author: &Peer, file: &Path, content: &[u8]) -> Key {
    fs::write(file, content).unwrap();
    let order = PublishOrder { path: file.into(), wanted: None };
    let steps: Vec<_> = author.client().publish(&order).unwrap().map(Result::unwrap).collect();
    match steps.last() {
        Some(Progress::Done { key, .. }) => *key,
        _ => panic!("{steps:?}"),
    }
}

/// Reads it all; how long that took.
fn read(reader: &Peer, key: Key, copy: &Path, how: &[&str], content: &[u8]) -> Duration {
    let (key, begun) = (key.to_string(), Instant::now());
    reader.must(["get", &key, copy.to_str().unwrap()].iter().chain(how));
    let took = begun.elapsed();
    assert!(fs::read(copy).unwrap() == content, "not the same bytes");
    took
}
