//! UDX with today's udx-native over loopback, directly and over a link that loses, repeats and reorders.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use datdot_hyperswarm::udx::Closed;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use udx::proxy::Faults;
use udx::*;

const MANY: u64 = 20_000_000;

fn bad_link(seed: u64) -> Faults {
    Faults { delay: Duration::from_millis(10), jitter: Duration::from_millis(4), loss: 10, twice: 10, seed }
}

async fn javascript_sends(len: u64, faults: Option<Faults>) {
    let (mut stream, mut js, _proxy) = with_js(&["send", &format!("--bytes={len}")], faults).await;
    assert_eq!(soon(receive(&mut stream)).await.unwrap(), len);
    soon(stream.shutdown()).await.unwrap();
    js.event("sent").await;
    js.event("closed").await;
    assert_eq!(soon(stream.handle().closed()).await, Closed::Finished);
}

async fn javascript_receives(len: u64, faults: Option<Faults>) {
    let (mut stream, mut js, _proxy) = with_js(&["receive"], faults).await;
    soon(send(&mut stream, len)).await.unwrap();
    assert_eq!(js.event("received").await["bytes"], len);
    assert_eq!(soon(receive(&mut stream)).await.unwrap(), 0);
    js.event("closed").await;
    println!("{:?}", stream.handle().stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_sends_and_every_byte_arrives() {
    for len in [0, 1, 1152, 1153, MANY] {
        javascript_sends(len, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_receives_every_byte() {
    for len in [0, 1, 1152, 1153, MANY] {
        javascript_receives(len, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_sends_over_a_bad_link() {
    javascript_sends(MANY / 4, Some(bad_link(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_receives_over_a_bad_link() {
    javascript_receives(MANY / 4, Some(bad_link(2))).await;
}
