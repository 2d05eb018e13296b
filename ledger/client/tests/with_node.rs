//! The client against a real node, whose path is in `DATDOT_NODE`:
//!
//! ```text
//! DATDOT_NODE=target/release/datdot-node cargo test -p datdot-ledger --test with_node -- --ignored
//! ```
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use datdot_ledger::{Account, AccountId, At, Call, Error, Event, Included, Ledger, SubmitError, Submitter};
use datdot_market::{
    Balance,
    duty::{Duty, duties},
    hoster::{Holding, covered},
    params::DAT,
    terms::{Address, Feed, Offer, Source, Terms},
};
use datdot_proof::{
    challenge::{self, DRAWS},
    head::{Head, Manifest, Root, SignedHead},
    opening::InMemory,
    outboard,
    proof::Proof,
    tree::{Node as TreeNode, tree_hash},
};
use ed25519_dalek::{Signer, SigningKey};
use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(90);
/// What an account has that it can't spend, so that it exists.
const EXISTENTIAL: Balance = DAT / 1_000;

/// A dev chain of one validator.
struct Node {
    dir: TempDir,
    port: u16,
    child: Child,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = spawn(dir.path(), port);
        Self { dir, port, child }
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// As SIGKILL does it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.port);
    }

    async fn ledger(&mut self) -> Ledger {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let over = Instant::now() > deadline || self.child.try_wait().unwrap().is_some();
            match Ledger::connect(&self.url()).await {
                Ok(ledger) => return ledger,
                Err(error) if over => panic!("{error}; the node said: {}", self.log()),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(dir: &Path, port: u16) -> Child {
    let node = std::env::var_os("DATDOT_NODE").expect("DATDOT_NODE is the path of datdot-node");
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(node)
        .args(["--chain", "dev", "--validator", "//Alice", "--rpc-port", &port.to_string(), "--dir"])
        .arg(dir.join("state"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn dev(name: &str) -> Account {
    Account::dev(name).unwrap()
}

async fn free(ledger: &Ledger, account: &AccountId) -> Balance {
    ledger.account(account, At::Best).await.unwrap().free
}

/// Sends `count` different amounts from `from` to `to`, all at once.
fn transfers(from: &Submitter, to: AccountId, count: u32) -> JoinSet<(Balance, Result<Included, SubmitError>)> {
    (1..=count)
        .map(|n| {
            let (from, amount) = (from.clone(), DAT + Balance::from(n));
            async move { (amount, from.submit(Call::Transfer { to, amount }).await) }
        })
        .collect()
}

/// A feed of one block with its signed head.
fn feed(block: &[u8]) -> Feed {
    let author = SigningKey::from_bytes(&[7; 32]);
    let key = author.verifying_key().to_bytes();
    let leaf = TreeNode::leaf(0, block);
    let head = Head { fork: 0, length: 1, tree_hash: tree_hash(&[leaf]) };
    let signature = author.sign(&head.signable(&key, &Manifest::Compat)).to_bytes();
    let roots = vec![Root { hash: leaf.hash, size: leaf.size }];
    let (root, _) = outboard::build(block).unwrap();
    let head = SignedHead { fork: 0, length: 1, roots, manifest: Manifest::Compat, signature };
    Feed { key, head, root }
}

fn offer(price: Balance) -> Offer {
    let addresses = vec![Address::V4([127, 0, 0, 1], 4000)].try_into().unwrap();
    Offer { space: 1 << 30, price, max_term: 10_000, region: None, noise_key: [9; 32], addresses }
}

fn request(feed: Feed, replicas: u32, term: u32, max_price: Balance) -> Call {
    Call::Request {
        feeds: vec![feed].try_into().unwrap(),
        terms: Terms { replicas, term, max_price },
        sources: vec![Source { noise_key: [5; 32], address: Address::V4([127, 0, 0, 1], 4001) }].try_into().unwrap(),
    }
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn quick_transfers_all_arrive_and_each_pays_one_fee() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let (alice, to) = (Submitter::new(&ledger, dev("//Alice")), Account::generate().0.id());
    let before = free(&ledger, &alice.id()).await;
    let quote = ledger.fee(&Call::Transfer { to, amount: DAT }).await.unwrap();

    let (mut sent, mut fees) = (0, 0);
    for (amount, result) in transfers(&alice, to, 50).join_all().await {
        let included = result.unwrap();
        assert!(included.events.contains(&Event::Transfer { from: alice.id(), to, amount }));
        sent += amount;
        fees += included.fee;
    }
    assert_eq!(free(&ledger, &to).await, sent - EXISTENTIAL);
    assert_eq!(free(&ledger, &alice.id()).await, before - sent - fees);
    assert_eq!(fees, 50 * quote);
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn a_node_killed_in_the_middle_loses_and_doubles_no_transfer() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let (alice, to) = (Submitter::new(&ledger, dev("//Alice")), Account::generate().0.id());
    let mut follow = ledger.follow(to);
    assert_eq!(follow.next().await.unwrap().view.free, 0);

    let mut results = transfers(&alice, to, 30);
    let first = results.join_next().await.unwrap().unwrap();
    results.spawn({
        let alice = alice.clone();
        async move { (5 * DAT, alice.submit(Call::Transfer { to, amount: 5 * DAT }).await) }
    });
    sleep(Duration::from_millis(100)).await;
    node.kill();
    sleep(Duration::from_secs(3)).await;
    assert!(!ledger.is_up());
    let during = tokio::spawn({
        let alice = alice.clone();
        async move { alice.submit(Call::Transfer { to, amount: 7 * DAT }).await }
    });
    node.start_again();

    let mut expected = 7 * DAT - EXISTENTIAL;
    for (amount, result) in timeout(PATIENCE, results.join_all()).await.unwrap().into_iter().chain([first]) {
        result.unwrap();
        expected += amount;
    }
    let last = timeout(PATIENCE, during).await.unwrap().unwrap().unwrap();
    assert!(timeout(PATIENCE, ledger.is_final(last.block)).await.unwrap().unwrap());
    assert_eq!(free(&ledger, &to).await, expected);
    let at_end = ledger.account(&to, At::Finalized).await.unwrap();
    assert!(at_end.at >= last.block.number && at_end.free == expected);
    // The one who followed goes on over the restart.
    while follow.next().await.unwrap().view.free != expected {}
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn a_refusal_says_what_to_do_and_the_next_call_goes_on() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let poor = Submitter::new(&ledger, Account::generate().0);
    let error = poor.submit(Call::Leave).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotEnoughMoney { free: 0, .. }), "{error}");

    let bob = Submitter::new(&ledger, dev("//Bob"));
    let error = bob.submit(Call::Leave).await.unwrap_err();
    assert!(error.is("NoOffer"), "{error:?}");
    assert!(error.to_string().contains("post one first"), "{error}");

    let error = bob.submit(Call::Transfer { to: poor.id(), amount: Balance::MAX / 2 }).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotEnoughMoney { .. }), "{error:?}");

    let error = bob.submit(request(feed(&[1; 100]), 3, 10_000, 1 << 120)).await.unwrap_err();
    assert!(matches!(error, SubmitError::NotEnoughMoney { .. }), "{error:?}");

    let mut forged = feed(&[1; 100]);
    forged.head.signature[3] ^= 1;
    let error = bob.submit(request(forged, 1, 100, DAT)).await.unwrap_err();
    assert!(error.is("HeadNotSigned") && error.to_string().contains("Here: 0"), "{error}");

    bob.submit(Call::Transfer { to: poor.id(), amount: DAT }).await.unwrap();
    assert!(poor.submit(Call::Leave).await.unwrap_err().is("NoOffer"));
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn a_hoster_proves_and_is_paid_and_both_sides_are_told() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let content: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
    let (alice, bob) = (Submitter::new(&ledger, dev("//Alice")), Submitter::new(&ledger, dev("//Bob")));
    let price = 1_000_000 * DAT;
    bob.submit(Call::Offer(offer(price))).await.unwrap();
    assert_eq!(ledger.market().await.unwrap().offers.len(), 1);

    let mut sponsor = ledger.follow(alice.id());
    sponsor.next().await.unwrap();
    let opened = alice.submit(request(feed(&content), 1, 60, price)).await.unwrap();
    let Some(Event::RequestOpened { request, .. }) =
        opened.events.iter().find(|event| matches!(event, Event::RequestOpened { .. }))
    else {
        panic!("{:?}", opened.events)
    };
    assert!(ledger.request(*request, At::Best).await.unwrap().is_some());

    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while !told.iter().any(|event| matches!(event, Event::RequestClosed { .. })) {
            told.extend(sponsor.next().await.unwrap().events.into_iter().map(|(_, event)| event));
        }
        told
    });
    let host = async {
        let (mut follow, mut proofs, mut events) = (ledger.follow(bob.id()), Vec::new(), Vec::new());
        loop {
            let news = follow.next().await.unwrap();
            events.extend(news.events.into_iter().map(|(_, event)| event));
            let Some(hosting) = &news.view.hosting else { panic!("the offer stands") };
            if hosting.contracts.is_empty() && !proofs.is_empty() {
                return (proofs, events);
            }
            for duty in duties(&news.view) {
                match duty {
                    Duty::Answer { contract, .. } => drop(bob.submit(Call::Take(contract)).await.unwrap()),
                    Duty::Fetch { contract, .. } => drop(bob.submit(Call::Accept(contract)).await.unwrap()),
                    Duty::Prove(challenge) => {
                        let held: Vec<&Holding> = covered(&hosting.holdings, challenge.number).collect();
                        let proof = prove(&challenge.seed, &held, &content);
                        proofs.push(bob.submit(Call::Prove { challenge, proof }).await.unwrap());
                    }
                    Duty::Keep { .. } | Duty::Seed { .. } => {}
                }
            }
        }
    };
    let (proofs, events) = timeout(3 * PATIENCE, host).await.unwrap();
    assert!(proofs.len() >= 4, "{} proofs in 60 blocks", proofs.len());
    assert!(proofs.iter().all(|proof| proof.fee == 0), "a valid proof is free");
    let paid: Balance =
        events.iter().map(|event| if let Event::Paid { amount, .. } = event { *amount } else { 0 }).sum();
    assert!(paid > 0);

    let told = timeout(PATIENCE, told).await.unwrap().unwrap();
    let count = |pick: fn(&Event) -> bool| told.iter().filter(|event| pick(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Proven { .. })), proofs.len());
    assert_eq!(count(|event| matches!(event, Event::Accepted { .. })), 1);
    assert!(count(|event| matches!(event, Event::ChallengeMissed { .. })) == 0);
    let returned = told
        .iter()
        .find_map(|event| if let Event::RequestClosed { returned, .. } = event { Some(*returned) } else { None });
    assert!(returned.is_some());
    assert_eq!(ledger.account(&alice.id(), At::Best).await.unwrap().budgets, 0);
    assert!(matches!(ledger.request(*request, At::Best).await, Ok(None)));
}

fn prove(seed: &[u8; 32], held: &[&Holding], content: &[u8]) -> Proof {
    let (_, outboard) = outboard::build(content).unwrap();
    let asked: Vec<_> =
        held.iter().map(|holding| challenge::Holding { pay: holding.weight, segments: &holding.segments }).collect();
    let positions = challenge::positions(seed, &asked, DRAWS);
    Proof::make(&positions, |_| Ok(InMemory { content, outboard: &outboard })).unwrap()
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn a_proof_for_a_challenge_that_is_not_open_is_not_sent() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let bob = Submitter::new(&ledger, dev("//Bob"));
    let before = free(&ledger, &bob.id()).await;
    let challenge = datdot_market::view::Challenge { number: 3, asked: 0, by: 5, seed: [0; 32] };
    let error = bob.submit(Call::Prove { challenge, proof: Proof { openings: vec![] } }).await.unwrap_err();
    assert_eq!(error, SubmitError::Superseded(3));
    assert_eq!(free(&ledger, &bob.id()).await, before);
}

#[tokio::test]
#[ignore = "needs a node: see above"]
async fn another_chain_at_the_same_place_is_noticed() {
    let mut node = Node::start();
    let ledger = node.ledger().await;
    let alice = Submitter::new(&ledger, dev("//Alice"));
    let mut blocks = ledger.blocks();
    node.kill();
    // A chain of another genesis: the one for two validators.
    let state = node.dir.path().join("other");
    node.child = Command::new(std::env::var_os("DATDOT_NODE").unwrap())
        .args(["--chain", "local", "--rpc-port", &node.port.to_string(), "--dir"])
        .arg(state)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let broken = async {
        loop {
            if let Err(error) = blocks.next().await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, broken).await.unwrap();
    assert_eq!(error, Error::OtherChain { url: node.url() });
    assert_eq!(ledger.market().await.unwrap_err(), error);
    assert_eq!(alice.submit(Call::Leave).await.unwrap_err(), SubmitError::Ledger(error));
}
