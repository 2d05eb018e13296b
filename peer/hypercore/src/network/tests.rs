//! Who gets a place, and how the network ends.

use super::*;
use crate::store::Store;
use std::sync::{atomic::AtomicBool, mpsc};
use tokio::{
    io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::sleep,
};

fn keys(name: u8) -> Keypair {
    Keypair::from_seed(&[name; 32])
}

async fn network(dir: &tempfile::TempDir, name: u8, max_connections: usize) -> Network {
    let listen = Some(([127, 0, 0, 1], 0).into());
    let store = Store::open(dir.path().join(format!("store-{name}"))).expect("the folder is free");
    Network::start(store, Config { listen, max_connections, ..Config::new(keys(name)) }).await.expect("a free port")
}

type Piped = Connection<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Both ends of a connection between two who have these names.
async fn piped(ours: u8, theirs: u8) -> (Piped, Piped) {
    let (options, (one, other)) = (Options::default(), duplex(64 << 10));
    let ((our_in, our_out), (their_in, their_out)) = (split(one), split(other));
    let (ours, theirs) = (keys(ours), keys(theirs));
    let ours = Connection::handshake(our_in, our_out, Role::Responder, &ours, None, &options);
    let theirs = Connection::handshake(their_in, their_out, Role::Initiator, &theirs, None, &options);
    tokio::try_join!(ours, theirs).expect("honest peers")
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_leave_places_for_those_whom_we_call() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hoster, other) = (network(&dir, 1, 8).await, network(&dir, 2, 8).await);
    let address = hoster.local_addr().expect("it listens");
    let mut callers = Vec::new();
    for name in 10..20 {
        let socket = TcpStream::connect(address).await.expect("it listens");
        callers.push(connection::connect(socket, &keys(name), None, &Options::default()).await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(hoster.peers().len(), 6);
    hoster.connect(other.local_addr().expect("it listens"), None).await.expect("there is room");
    let (one, _theirs) = piped(1, 30).await;
    hoster.attach(one).expect("there is room");
    assert!(matches!(hoster.attach(piped(1, 31).await.0), Err(ConnectError::Full)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_shake_hands_takes_no_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hoster, caller) = (network(&dir, 1, 8).await, network(&dir, 2, 8).await);
    let address = hoster.local_addr().expect("it listens");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    caller.connect(address, Some(hoster.public_key())).await.expect("there is room");
    // Who was silent for longest was hung up on, and made room.
    let end = timeout(Duration::from_secs(5), silent[0].read(&mut [0; 9])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))));
}

#[tokio::test]
async fn nobody_has_many_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let network = network(&dir, 1, 100).await;
    let mut theirs = Vec::new();
    for _ in 0..WITH_ONE {
        let (one, other) = piped(1, 2).await;
        network.attach(one).expect("there is room");
        theirs.push(other);
    }
    assert!(matches!(network.attach(piped(1, 2).await.0), Err(ConnectError::Full)));
    network.attach(piped(1, 3).await.0).expect("there is room for another");
}

#[tokio::test(start_paused = true)]
async fn whoever_closes_the_network_waits_until_nothing_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let (network, done) = (network(&dir, 1, 8).await, Arc::new(AtomicBool::new(false)));
    let busy = done.clone();
    lock(&network.0.tasks).connections.spawn(async move {
        sleep(Duration::from_secs(1)).await;
        busy.store(true, Ordering::Release);
    });
    let closes = || async {
        network.close().await;
        assert!(done.load(Ordering::Acquire));
    };
    // One that is given up spoils nothing.
    timeout(Duration::from_millis(10), network.close()).await.expect_err("something runs");
    tokio::join!(closes(), closes());
}

#[test]
fn a_connection_that_comes_while_the_runtime_ends_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let (network, connection) = runtime.block_on(async { (network(&dir, 1, 8).await, piped(1, 2).await.0) });
    let handle = runtime.handle().clone();
    runtime.shutdown_timeout(Duration::from_secs(5));
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || {
        let _runtime = handle.enter();
        _ = network.attach(connection);
        done.send(network.peers().len())
    });
    assert_eq!(over.recv_timeout(Duration::from_secs(20)), Ok(0));
}
