//! The chain for development: alone, embedded or as a process, and over restarts.

mod common;

use std::time::{Duration, Instant};

use common::{Process, best, call, finalized, hash_at, wait_until};
use datdot_node::{Chain, Error, Options};
use serde_json::json;
use sp_crypto_hashing::{blake2_256, twox_128};

const MINUTE: Duration = Duration::from_secs(60);

/// Runs blocking questions beside the node's own tasks.
async fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(question).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_node_goes_on_where_it_was_stopped() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = datdot_node::start(Options::new(Chain::Dev, dir.path())).await.expect("it starts");
    let rpc = node.rpc;
    assert!(rpc.ip().is_loopback());
    assert!(node.p2p.is_empty(), "nobody asked it to listen");
    let (height, hash) = ask(move || {
        wait_until("block 3 is finalized", MINUTE, || finalized(rpc).0 >= 3);
        finalized(rpc)
    })
    .await;
    node.stop().await.expect("it stops");

    let node = datdot_node::start(Options::new(Chain::Dev, dir.path())).await.expect("it starts again");
    let rpc = node.rpc;
    ask(move || {
        assert!(finalized(rpc).0 >= height, "it has forgotten blocks");
        assert_eq!(hash_at(rpc, height), Some(hash));
        wait_until("it makes new blocks", MINUTE, || finalized(rpc).0 > height + 2);
    })
    .await;
    node.stop().await.expect("it stops");
}

#[test]
fn a_killed_node_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Process::start(dir.path(), &["--validator", "//Alice"]);
    wait_until("block 3 is finalized", MINUTE, || finalized(node.rpc).0 >= 3);
    let (height, hash) = finalized(node.rpc);
    // The database writes what it has in its log within a fraction of a second.
    std::thread::sleep(Duration::from_secs(1));
    node.kill();

    let node = Process::start(dir.path(), &["--validator", "//Alice"]);
    wait_until("it makes new blocks", MINUTE, || finalized(node.rpc).0 > height + 2);
    assert_eq!(hash_at(node.rpc, height), Some(hash));
}

#[test]
fn blocks_come_each_second_and_are_soon_final() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Process::start(dir.path(), &["--validator", "//Alice"]);
    wait_until("the first block", MINUTE, || best(node.rpc) >= 1);
    let (begin, from) = (Instant::now(), best(node.rpc));
    wait_until("eight more", MINUTE, || best(node.rpc) >= from + 8);
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds > 6.0, "eight blocks took only {seconds} s");
    let lag = || best(node.rpc).saturating_sub(finalized(node.rpc).0);
    wait_until("finality is at most three blocks behind", MINUTE, || lag() <= 3);
}

/// Whoever knew the mix of a challenge's block before would know what to keep.
#[test]
fn every_block_folds_its_own_vrf_output_into_the_mix() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Process::start(dir.path(), &["--validator", "//Alice", "--archive"]);
    wait_until("some blocks", MINUTE, || best(node.rpc) >= 9);
    let stored = |pallet: &str, item: &str, height: u64| -> Vec<u8> {
        let key = [twox_128(pallet.as_bytes()), twox_128(item.as_bytes())].concat();
        let at = hash_at(node.rpc, height).expect("the block is there");
        let value = call(node.rpc, "state_getStorage", json!([format!("0x{}", hex::encode(key)), at]));
        hex::decode(&value.as_str().expect("it is set")[2..]).expect("hex")
    };
    let vrf = |height| match &stored("Babe", "AuthorVrfRandomness", height)[..] {
        [1, vrf @ ..] => vrf.to_vec(),
        other => panic!("block {height} has no VRF output: {other:?}"),
    };
    for height in 3..=9 {
        assert_ne!(vrf(height), vrf(height - 1), "block {height}");
        let folded = [stored("Datdot", "Mix", height - 1), vrf(height)].concat();
        assert_eq!(stored("Datdot", "Mix", height), blake2_256(&folded), "block {height}");
    }
}

#[test]
fn the_methods_that_clients_want_are_there_and_the_dangerous_ones_are_not() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Process::start(dir.path(), &["--validator", "//Alice", "--archive"]);
    let methods = call(node.rpc, "rpc_methods", json!([]));
    let methods = methods["methods"].as_array().expect("a list");
    for wanted in [
        "archive_v1_body",
        "author_submitAndWatchExtrinsic",
        "chainHead_v1_follow",
        "chainSpec_v1_genesisHash",
        "payment_queryInfo",
        "state_call",
        "state_getMetadata",
        "system_accountNextIndex",
        "transactionWatch_v1_submitAndWatch",
    ] {
        assert!(methods.iter().any(|method| method == wanted), "{wanted} is missing");
    }
    let properties = call(node.rpc, "system_properties", json!([]));
    assert_eq!(properties, json!({ "ss58Format": 42, "tokenDecimals": 12, "tokenSymbol": "DAT" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let dir = tempfile::tempdir().expect("temporary folder");
    let options = Options { rpc_port: port, ..Options::new(Chain::Dev, dir.path()) };
    let error = datdot_node::start(options).await.err().expect("the port is taken");
    assert!(matches!(error, Error::Port { port: named, .. } if named == port), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = datdot_node::start(Options::new(Chain::Dev, dir.path())).await.expect("it starts");
    let error = datdot_node::start(Options::new(Chain::Dev, dir.path())).await.err().expect("the folder is taken");
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    node.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_an_error() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let options = Options { validator: Some("not a phrase".into()), ..Options::new(Chain::Dev, dir.path()) };
    let error = datdot_node::start(options).await.err().expect("there is no such key");
    assert!(matches!(error, Error::Secret(_)), "{error}");
}
