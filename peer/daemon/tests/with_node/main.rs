//! Daemons against a real node, whose path is in `DATDOT_NODE`:
//!
//! ```text
//! DATDOT_NODE=target/release/datdot-node cargo test -p datdot-daemon --test with_node -- --ignored
//! ```
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod orders;
mod world;

use datdot_api::{
    Amount, Client, ClientError, Event, GetOrder, HostOrder, Progress, PublishOrder, QuoteOf, QuoteOrder, RequestOrder,
    SendOrder, Wanted,
    status::{ContractState, ProofOutcome, RequestState},
};
use datdot_daemon::{Config, Daemon};
use datdot_hypercore::feed::DATA_START;
use datdot_ledger::Account;
use datdot_market::params::DAT;
use std::{fs, os::unix::fs::FileExt, time::Duration};
use tokio::task::spawn_blocking;
use world::{MIB, Peer, World, done};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_file_is_hosted_proven_paid_and_read_back_without_its_publisher() {
    let world = World::new();
    let hosters = world.hosters(["Bob", "Charlie", "Dave"]).await;
    let user = world.peer("Alice").await;
    let path = world.file(20 * MIB + 5);

    let wanted = Wanted { replicas: 3, term: 60, max_price: None };
    let of = QuoteOf::File(path.clone());
    let quote = user.ask(move |client| client.quote(&QuoteOrder { of, wanted })).await.unwrap();
    assert_eq!((quote.offers_that_fit, quote.problem.clone()), (3, None), "{quote:?}");

    let steps = user.publish(path.clone(), 3, 60).await;
    let (key, request) = done(&steps);
    let again = user.publish(path.clone(), 3, 60).await;
    assert_eq!(done(&again), (key, request), "the same wish again is the same request");
    let status = user.status().await;
    assert_eq!(status.requests.len(), 1);
    assert_eq!((status.requests[0].state, status.requests[0].hosted), (RequestState::Hosted, 3));

    user.daemon.stop().await;
    for hoster in &hosters {
        let status = hoster.proves(2).await;
        assert!(status.contracts[0].earned.0 > 0, "{status:#?}");
        assert!(status.proofs.iter().any(|proof| proof.outcome == ProofOutcome::Proven && proof.openings > 0));
    }

    let reader = world.peer("Eve").await;
    let out = world.dir.path().join("out");
    let order =
        GetOrder { key, inside: None, path: out.clone(), replace: false, encryption_key_file: None, from: vec![] };
    let steps: Vec<_> = reader.ask(move |client| client.read(&order).unwrap().map(Result::unwrap).collect()).await;
    assert!(matches!(steps.last(), Some(Progress::Done { .. })), "{steps:?}");
    assert!(fs::read(&out).unwrap() == fs::read(&path).unwrap());
    reader.until("forgets what it only read", |status| status.feeds.is_empty()).await;

    for hoster in &hosters {
        hoster
            .until("is paid and drops the data", |status| status.contracts.is_empty() && status.feeds.is_empty())
            .await;
        let (events, _) = hoster.daemon.story().listen();
        let paid: u128 = events
            .iter()
            .filter_map(|told| if let Event::Paid { amount, .. } = &told.event { Some(amount.0) } else { None })
            .sum();
        assert!(paid > 0, "{events:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_changed_byte_withholds_the_proof_and_is_healed_from_the_other_replica() {
    let world = World::new();
    let hosters = world.hosters(["Bob", "Charlie"]).await;
    let user = world.peer("Alice").await;
    // One group of 16 KiB more than a block, so that every challenge meets it soon.
    let (_, _) = done(&user.publish(world.file(80 << 10), 2, 200).await);
    user.daemon.stop().await;
    hosters[0].proves(1).await;

    let data = hosters[0].data_files().pop().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(data).unwrap();
    let (at, mut byte) = (DATA_START + 30_000, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();

    let status = hosters[0].until("finds the damage", |status| !status.damage.is_empty()).await;
    assert_eq!(status.damage[0].blocks, [(0, 0)]);
    assert_eq!(status.damage[0].bytes, (0, 65_536));
    let status = hosters[0].until("heals", |status| status.damage[0].healed.is_some()).await;
    assert_eq!(status.contracts[0].state, ContractState::Hosting);
    hosters[0].proves(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn daemons_that_are_restarted_go_on() {
    let world = World::new();
    let mut hosters = world.hosters(["Bob", "Charlie"]).await;
    let user = world.peer("Alice").await;
    let path = world.file(24 * MIB);
    let order = PublishOrder {
        path: path.clone(),
        wanted: Some(Wanted { replicas: 2, term: 200, max_price: Some(Amount(DAT)) }),
    };
    let client = Client::open(&user.dir).unwrap();
    let publishing = spawn_blocking(move || client.publish(&order).unwrap().collect::<Vec<_>>());
    hosters[0].until("fetches", |status| status.contracts.iter().any(|contract| contract.held > 0)).await;
    let Peer { name, daemon, .. } = hosters.remove(0);
    daemon.stop().await;
    let restarted = world.peer(name).await;
    // The publisher is restarted too: what it was asked for goes on without anybody asking again.
    user.daemon.stop().await;
    _ = publishing.await;
    let user = world.peer("Alice").await;
    user.until("is hosted by both", |status| {
        status.requests.len() == 1 && status.requests[0].state == RequestState::Hosted
    })
    .await;
    restarted.proves(1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_ledger_of_another_chain_drops_nothing_of_what_is_here() {
    let world = World::new();
    let user = world.peer("Alice").await;
    let order = PublishOrder { path: world.file(5), wanted: None };
    user.ask(move |client| client.publish(&order).unwrap().for_each(|step| _ = step.unwrap())).await;
    let Peer { dir, daemon, .. } = user;
    daemon.stop().await;
    let note = fs::read_to_string(dir.join("ledger.json")).unwrap();
    let genesis = note.split('"').find(|word| word.len() == 64).unwrap();
    let start = async |dir| {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config::new(dir, &world.node.url, Account::dev("//Alice").unwrap());
        Daemon::start(Config { listen, ..config }).await
    };
    let other = note.replace(genesis, &"7".repeat(64));
    fs::write(dir.join("ledger.json"), &other).unwrap();
    let Err(error) = start(dir.clone()).await else { panic!("it follows another chain") };
    assert!(error.to_string().contains("belongs to another chain"), "{error}");

    // In a folder where nothing was done yet it doesn't matter.
    let blank = world.dir.path().join("blank");
    fs::create_dir(&blank).unwrap();
    fs::write(blank.join("ledger.json"), other).unwrap();
    start(blank).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_feed_is_sponsored_by_somebody_who_is_not_its_author() {
    let world = World::new();
    let _hosters = world.hosters(["Bob", "Charlie"]).await;
    let (author, sponsor) = (world.peer("Alice").await, world.peer("Eve").await);
    let path = world.file(3 * MIB);
    let order = PublishOrder { path, wanted: None };
    let steps: Vec<_> = author.ask(move |client| client.publish(&order).unwrap().map(Result::unwrap).collect()).await;
    let Some(Progress::Done { key, request: None, .. }) = steps.last() else { panic!("{steps:?}") };
    let wanted = Wanted { replicas: 2, term: 60, max_price: Some(Amount(DAT)) };
    let order = RequestOrder { key: *key, from: vec![author.daemon.listen().to_string()], wanted };
    let steps: Vec<_> = sponsor.ask(move |client| client.request(&order).unwrap().map(Result::unwrap).collect()).await;
    assert_eq!(done(&steps).0, *key);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn strangers_get_nothing_and_break_nothing() {
    use std::io::{Read, Write};

    let world = World::new();
    let peer = world.peer("Alice").await;
    let api = peer.daemon.api().clone();
    for token in ["", "wrong", &api.token[1..]] {
        let stranger = Client::new(datdot_api::Discovery { token: token.into(), ..api.clone() });
        let refused = spawn_blocking(move || stranger.status()).await.unwrap();
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
    }
    let (address, token) = (api.url.strip_prefix("http://").unwrap().to_owned(), api.token.clone());
    let raw = move |request: String| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        _ = stream.read_to_string(&mut answer);
        answer
    };
    let answers = spawn_blocking(move || {
        let auth = format!("host: x\r\nconnection: close\r\nauthorization: Bearer {token}");
        [
            raw(format!("POST /v1/host HTTP/1.1\r\n{auth}\r\ncontent-length: 9\r\n\r\n{{\"space\":")),
            raw(format!(
                "POST /v1/host HTTP/1.1\r\n{auth}\r\ncontent-length: 1000000\r\n\r\n{}",
                " ".repeat(1_000_000)
            )),
            raw(format!("GET /v1/nothing HTTP/1.1\r\n{auth}\r\n\r\n")),
            raw("\0\u{1}garbage\r\n\r\n".into()),
        ]
    })
    .await
    .unwrap();
    for (answer, status) in answers.iter().zip(["400", "413", "404", "400"]) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.is_empty(), "{status}: {answer}");
    }
    let mut garbage = std::net::TcpStream::connect(peer.daemon.listen()).unwrap();
    _ = garbage.write_all(&[0xff; 100_000]);
    let order = HostOrder { space: u64::MAX, price: Amount(1), max_term: None, region: None };
    let refused = peer.ask(move |client| client.host(&order)).await;
    assert!(matches!(&refused, Err(ClientError::Refused(why)) if why.contains("room")), "{refused:?}");
    let order = SendOrder { to: peer.daemon.account().to_string(), amount: Amount(u128::MAX / 2) };
    assert!(matches!(peer.ask(move |client| client.send(&order)).await, Err(ClientError::Refused(_))));
    peer.until("follows the ledger", |status| status.ledger.connected).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_second_daemon_in_the_same_folder_is_refused() {
    let world = World::new();
    let peer = world.peer("Alice").await;
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::new(&peer.dir, &world.node.url, Account::dev("//Alice").unwrap())
    };
    let error = Daemon::start(config).await.unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    let nobody = Config::new(world.dir.path().join("other"), "ws://127.0.0.1:1", Account::dev("//Bob").unwrap());
    let error = Daemon::start(nobody).await.unwrap_err().to_string();
    assert!(error.contains("no ledger at"), "{error}");
}
