//! Connections as streams of bytes.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use datdot_wire::connection::{ByteStream, Connection, Options};
use datdot_wire::noise::{Keypair, Role};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::timeout;

type Pipe = ByteStream<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Both sides of a connection over a pipe that holds so many bytes.
async fn piped(size: usize, options: &Options) -> (Pipe, Pipe) {
    let (theirs, ours) = duplex(size);
    let ((ra, wa), (rb, wb)) = (split(theirs), split(ours));
    let [a, b] = [1, 2].map(|n| Keypair::from_seed(&[n; 32]));
    let (a, b) = tokio::join!(
        Connection::handshake(ra, wa, Role::Initiator, &a, None, options),
        Connection::handshake(rb, wb, Role::Responder, &b, None, options)
    );
    (a.unwrap().into(), b.unwrap().into())
}

fn bytes(count: usize, seed: u8) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251) as u8 ^ seed).collect()
}

/// Sends some bytes and ends, and returns what it receives.
async fn exchange(stream: Pipe, count: usize, seed: u8) -> Vec<u8> {
    let (mut reader, mut writer) = split(stream);
    let sent = tokio::spawn(async move {
        // In pieces of all sizes.
        for piece in bytes(count, seed).chunks(7_919) {
            writer.write_all(piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    sent.await.unwrap();
    received
}

#[tokio::test]
async fn bytes_go_both_ways_through_the_narrowest_pipe_and_their_end_is_seen() {
    for (size, count) in [(64, 100_000), (64 << 10, 5_000_000)] {
        let (a, b) = piped(size, &Options::default()).await;
        let both = async { tokio::join!(exchange(a, count, 1), exchange(b, count / 3, 2)) };
        let (at_a, at_b) = timeout(Duration::from_secs(60), both).await.expect("nobody waits for ever");
        assert!(at_a == bytes(count / 3, 2) && at_b == bytes(count, 1));
    }
}

#[tokio::test]
async fn what_is_not_flushed_goes_out_while_an_answer_is_awaited() {
    let (mut a, mut b) = piped(1_000, &Options::default()).await;
    let asked = bytes(200_000, 3);
    let ask = async {
        a.write_all(&asked).await.unwrap();
        let mut answer = [0; 2];
        a.read_exact(&mut answer).await.unwrap();
        answer
    };
    let answer = async {
        let mut question = vec![0; asked.len()];
        b.read_exact(&mut question).await.unwrap();
        b.write_all(b"42").await.unwrap();
        b.flush().await.unwrap();
        question
    };
    let both = async { tokio::join!(ask, answer) };
    let (answer, question) = timeout(Duration::from_secs(10), both).await.expect("it gets there");
    assert!(answer == *b"42" && question == asked);
}

#[tokio::test(start_paused = true)]
async fn who_reads_keeps_the_connection_alive() {
    let options = Options { silence: Some(Duration::from_secs(12)), ..Options::default() };
    let (mut a, mut b) = piped(1 << 20, &options).await;
    let mut buffers = [[0; 1]; 2];
    let [one, other] = &mut buffers;
    let both = async {
        tokio::select! { read = a.read(one) => read, read = b.read(other) => read }
    };
    assert!(timeout(Duration::from_secs(600), both).await.is_err(), "nothing was said, and nobody left");
    // Without that one hears no more from the other.
    let silent = timeout(Duration::from_secs(600), a.read(&mut buffers[0])).await.unwrap();
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_taken_for_one_that_ended() {
    let (theirs, ours) = duplex(1 << 20);
    let (mut theirs, (reader, writer)) = (theirs, split(ours));
    let [a, b] = [1, 2].map(|n| Keypair::from_seed(&[n; 32]));
    let options = Options::default();
    let mut stream: Pipe = {
        let (r, w) = split(&mut theirs);
        let bad = Connection::handshake(r, w, Role::Initiator, &a, None, &options);
        let good = Connection::handshake(reader, writer, Role::Responder, &b, None, &options);
        let (bad, good) = tokio::join!(bad, good);
        bad.unwrap();
        good.unwrap().into()
    };
    assert_eq!(stream.remote, a.public());
    theirs.write_all(&[9, 0, 0, 1, 2, 3]).await.unwrap();
    drop(theirs);
    let error = stream.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}
