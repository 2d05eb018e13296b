//! Two validators as two processes, on loopback.

mod common;

use std::time::Duration;

use common::{Process, finalized, hash_at, wait_until};

#[test]
fn two_validators_finalize_the_same_blocks() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let alice =
        Process::start(&dir.path().join("alice"), &["--chain", "local", "--validator", "//Alice", "--port", "0"]);
    let address = alice.p2p.clone().expect("it listens");
    let args = ["--chain", "local", "--validator", "//Bob", "--port", "0", "--bootnode", &address];
    let bob = Process::start(&dir.path().join("bob"), &args);

    let minute = Duration::from_secs(60);
    wait_until("both have finalized block 4", minute, || finalized(alice.rpc).0 > 3 && finalized(bob.rpc).0 > 3);
    assert_eq!(hash_at(alice.rpc, 4), hash_at(bob.rpc, 4));

    let (height, _) = finalized(alice.rpc);
    wait_until("they go on", minute, || finalized(bob.rpc).0 >= height + 5 && finalized(alice.rpc).0 >= height + 5);
    assert_eq!(hash_at(alice.rpc, height + 5), hash_at(bob.rpc, height + 5));

    bob.kill();
    // One that had the votes of both may still be on its way.
    std::thread::sleep(Duration::from_secs(2));
    let (height, _) = finalized(alice.rpc);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(finalized(alice.rpc).0, height, "one of two validators must not finalize alone");
}
