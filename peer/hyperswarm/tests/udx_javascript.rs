//! UDX with today's udx-native over loopback, directly and over a link that loses, repeats and reorders.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use datdot_hyperswarm::udx::{Closed, Path};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use udx::proxy::Faults;
use udx::*;

const MANY: u64 = 20_000_000;

fn bad_link(seed: u64) -> Faults {
    Faults { delay: Duration::from_millis(10), jitter: Duration::from_millis(4), loss: 10, twice: 10, neck: None, seed }
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

#[tokio::test(flavor = "multi_thread")]
async fn javascript_echoes_both_ways_at_once_over_a_bad_link() {
    let (stream, mut js, _proxy) = with_js(&["echo"], Some(bad_link(3))).await;
    let (mut reader, mut writer) = stream.into_split();
    let sent = tokio::spawn(async move { send(&mut writer, MANY / 8).await });
    assert_eq!(soon(receive(&mut reader)).await.unwrap(), MANY / 8);
    soon(sent).await.unwrap().unwrap();
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_outside_the_stream_come_back() {
    let (mut stream, mut js, _proxy) = with_js(&["messages"], None).await;
    let handle = stream.handle();
    stream.write_all(b"x").await.unwrap();
    for n in 0..20u8 {
        let message = bytes::Bytes::from(vec![n; 1 + 50 * usize::from(n)]);
        // It may be lost, or come back more than once.
        while {
            handle.send_message(message.clone()).unwrap();
            let answer = timeout(Duration::from_millis(300), handle.message()).await;
            answer.map_or(true, |answer| answer.unwrap() != message)
        } {}
    }
    assert!(handle.send_message(vec![0; 2000].into()).is_err());
    soon(stream.shutdown()).await.unwrap();
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_by_javascript_is_a_reset_here() {
    let (mut stream, mut js, _proxy) = with_js(&["abort"], None).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(soon(stream.handle().closed()).await, Closed::Reset);
    assert_eq!(stream.write_all(b"y").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_here_is_a_reset_in_javascript() {
    let (mut stream, mut js, _proxy) = with_js(&["messages"], None).await;
    stream.write_all(b"x").await.unwrap();
    stream.handle().abort();
    assert_eq!(js.event("error").await["code"], "ECONNRESET");
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_still_delivers_and_ends() {
    let (mut stream, mut js, _proxy) = with_js(&["receive"], None).await;
    stream.write_all(&piece(0, 300_000)).await.unwrap();
    drop(stream);
    assert_eq!(js.event("received").await["bytes"], 300_000);
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_we_close_and_open_is_honoured() {
    let len = 100_000_000;
    let (mut stream, mut js, _proxy) = with_js(&["send", &format!("--bytes={len}")], None).await;
    let handle = stream.handle();
    soon(async {
        while handle.stats().held < 16_000_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // On a busy machine packets are lost, and those behind them wait: libudx sends others meanwhile.
    let held = handle.stats().held;
    assert!(held <= 4 * (16 << 20) + 3000, "{held}");
    assert_eq!(soon(receive(&mut stream)).await.unwrap(), len);
    soon(stream.shutdown()).await.unwrap();
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_moves_to_another_port_of_ours_and_back() {
    let (udx, first, pending) = local(1).await;
    let (second, _others) = udx.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (mut js, address) = Js::start(&["echo"]).await;
    js.write(format!("connect {}", first.local_addr().port())).await;
    let path = Path { stream: 2, address };
    let stream = pending.connect(&first, path, 0);
    let handle = stream.handle();
    let (mut reader, mut writer) = stream.into_split();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let sent = tokio::spawn(async move {
        let (mut stopped, mut sent) = (stopped, 0);
        while stopped.try_recv().is_err() {
            writer.write_all(&piece(sent, 1 << 16)).await.unwrap();
            sent += 1 << 16;
        }
        writer.shutdown().await.unwrap();
        sent
    });
    let received = tokio::spawn(async move { receive(&mut reader).await });
    for socket in [&second, &first, &second] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        js.write(format!("move {}", socket.local_addr().port())).await;
        soon(handle.change_path(socket, path)).await.unwrap();
        js.event("moved").await;
    }
    stop.send(()).unwrap();
    assert_eq!(soon(received).await.unwrap().unwrap(), soon(sent).await.unwrap());
    js.event("closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_learns_the_remotes_address_from_its_first_packet() {
    let (_udx, socket, pending) = local(1).await;
    let (mut js, address) = Js::start(&["send", "--bytes=1000000"]).await;
    js.write(format!("connect {}", socket.local_addr().port())).await;
    let (heard, by) = soon(pending.heard()).await;
    assert_eq!((heard, by.local_addr()), (address, socket.local_addr()));
    let mut stream = pending.connect(&by, Path { stream: 2, address: heard }, 0);
    assert_eq!(soon(receive(&mut stream)).await.unwrap(), 1_000_000);
    soon(stream.shutdown()).await.unwrap();
    js.event("closed").await;
}
