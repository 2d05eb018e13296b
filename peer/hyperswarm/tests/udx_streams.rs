//! Streams over real sockets, ours with ours: many at once, encrypted connections, silence.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use datdot_hyperswarm::udx::{Config, IdInUse, Path, Udx};
use datdot_wire::connection::{Connection, Options};
use datdot_wire::noise::{Keypair, Role};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use udx::link::Neck;
use udx::proxy::Faults;
use udx::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_share_two_ports() {
    let (udx, other) = (Udx::new(), Udx::new());
    let (near, _) = udx.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (far, _) = other.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for id in 0..200 {
        let to_far = Path { stream: id, address: far.local_addr() };
        let to_near = Path { stream: id, address: near.local_addr() };
        let mut a = near.connect(&udx, id, to_far, Config::default()).unwrap();
        let mut b = far.connect(&other, id, to_near, Config::default()).unwrap();
        let len = 100_000 + u64::from(id);
        tasks.spawn(async move { send(&mut a, len).await.unwrap() });
        tasks.spawn(async move {
            assert_eq!(receive(&mut b).await.unwrap(), len);
            b.shutdown().await.unwrap();
        });
    }
    assert_eq!(udx.stream(7, Config::default()).unwrap_err(), IdInUse(7));
    soon(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_runs_over_a_stream() {
    let faults = Faults { delay: Duration::from_millis(5), loss: 20, twice: 20, seed: 5, ..Faults::default() };
    let (a, b, _proxy) = pair(Some(faults)).await;
    let ((ar, aw), (br, bw)) = (a.into_split(), b.into_split());
    let options = Options::default();
    let keys = [1, 2].map(|seed| Keypair::from_seed(&[seed; 32]));
    let (a, b) = soon(async {
        tokio::join!(
            Connection::handshake(ar, aw, Role::Initiator, &keys[0], None, &options),
            Connection::handshake(br, bw, Role::Responder, &keys[1], None, &options)
        )
    })
    .await;
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let texts: Vec<Vec<u8>> = (0..300usize).map(|n| piece(n as u64, 1 + n * n % 70_000)).collect();
    let expected = texts.clone();
    let sender = tokio::spawn(async move {
        for text in &texts {
            a.writer.send(text).await.unwrap();
        }
        a.writer.close().await.unwrap();
        assert_eq!(a.reader.next().await.unwrap(), None);
    });
    soon(async {
        for text in expected {
            assert_eq!(b.reader.next().await.unwrap().unwrap(), text);
        }
        assert_eq!(b.reader.next().await.unwrap(), None);
        b.writer.close().await.unwrap();
    })
    .await;
    soon(sender).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_link_is_filled_and_survives_being_overrun() {
    let neck = Neck { rate: 4e6, queue: 64 << 10 };
    let faults = Faults { delay: Duration::from_millis(10), neck: Some(neck), ..Faults::default() };
    let (mut a, mut b, _proxy) = pair(Some(faults)).await;
    let (begun, len) = (Instant::now(), 4_000_000);
    let sender = tokio::spawn(async move { send(&mut a, len).await.unwrap() });
    assert_eq!(soon(receive(&mut b)).await.unwrap(), len);
    let took = begun.elapsed().as_secs_f64();
    // On a busy machine timers are late; how fast it is, the benches and the simulated links say.
    assert!((1.0..20.0).contains(&took), "{took} s, at best one");
    b.shutdown().await.unwrap();
    soon(sender).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_free_again_when_its_users_are_gone() {
    let udx = Udx::new();
    let (socket, _) = udx.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = socket.local_addr();
    let pending = udx.stream(5, Config::default()).unwrap();
    drop(pending);
    udx.stream(5, Config::default()).unwrap();
    drop(socket);
    soon(async {
        while udx.bind(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
