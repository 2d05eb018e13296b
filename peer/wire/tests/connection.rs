//! The driver against itself and against remotes that misbehave.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use datdot_wire::connection::{Budget, Connection, ConnectionError, Options, TcpConnection, accept, connect};
use datdot_wire::noise::{HandshakeError, Keypair, Role};
use datdot_wire::secret_stream::{MAX_FRAME, MAX_TEXT, StreamError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

type PipeConnection = Connection<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

fn keys(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn connected(options: &Options) -> (TcpConnection, TcpConnection) {
    let (client, server) = tcp_pair().await;
    let (keys_a, keys_b) = (keys(1), keys(2));
    let (a, b) =
        tokio::join!(connect(client, &keys_a, Some(keys_b.public()), options), accept(server, &keys_b, options));
    (a.unwrap(), b.unwrap())
}

/// A remote that shook hands as it should, and now writes to the naked stream.
async fn turned_bad(options: &Options) -> (DuplexStream, PipeConnection) {
    let (mut theirs, ours) = duplex(1 << 20);
    let (reader, writer) = split(ours);
    let (keys_a, keys_b) = (keys(1), keys(2));
    let connection = {
        let (r, w) = split(&mut theirs);
        let bad = Connection::handshake(r, w, Role::Initiator, &keys_a, None, options);
        let good = Connection::handshake(reader, writer, Role::Responder, &keys_b, None, options);
        let (bad, good) = tokio::join!(bad, good);
        bad.unwrap();
        good.unwrap()
    };
    (theirs, connection)
}

#[tokio::test]
async fn both_sides_prove_their_keys_and_share_a_hash() {
    let (a, b) = connected(&Options::default()).await;
    assert_eq!((a.remote, b.remote), (keys(2).public(), keys(1).public()));
    assert_eq!(a.handshake_hash, b.handshake_hash);
    assert_eq!((a.role, b.role), (Role::Initiator, Role::Responder));
    let (c, _) = connected(&Options::default()).await;
    assert_ne!(a.handshake_hash, c.handshake_hash);
}

#[tokio::test]
async fn texts_of_every_size_arrive_in_order_and_the_end_is_seen() {
    let (a, mut b) = connected(&Options::default()).await;
    let sizes = [1, 2, 1000, 65_536, 3, 300_000, MAX_TEXT, 5];
    let sender = tokio::spawn(async move {
        let mut writer = a.writer;
        for (n, size) in sizes.into_iter().enumerate() {
            writer.send(&vec![n as u8; size]).await.unwrap();
            writer.queue(b"").unwrap();
        }
        writer.close().await.unwrap();
        a.reader
    });
    for (n, size) in sizes.into_iter().enumerate() {
        let text = b.reader.next().await.unwrap().unwrap();
        assert_eq!(text.len(), size);
        assert!(text.iter().all(|byte| *byte == n as u8));
    }
    assert!(b.reader.next().await.unwrap().is_none());
    sender.await.unwrap();
}

#[tokio::test]
async fn one_task_can_drive_both_halves_while_both_sides_talk() {
    let (a, b) = connected(&Options::default()).await;
    // Much more than the sockets buffer, so that each side has to read while it writes.
    const ROUNDS: usize = 400;
    let talk = |mut side: TcpConnection| async move {
        let (mut sent, mut heard) = (0, 0);
        while heard < ROUNDS || sent < ROUNDS || side.writer.queued() > 0 {
            if sent < ROUNDS && side.writer.queued() < 1 << 20 {
                side.writer.queue(&vec![sent as u8; 100_000]).unwrap();
                sent += 1;
            }
            tokio::select! {
                text = side.reader.next(), if heard < ROUNDS => {
                    assert!(text.unwrap().unwrap().iter().all(|byte| *byte == heard as u8));
                    heard += 1;
                }
                flushed = side.writer.flush(), if side.writer.queued() > 0 => flushed.unwrap(),
            }
        }
        side
    };
    timeout(Duration::from_secs(60), async { tokio::join!(talk(a), talk(b)) }).await.unwrap();
}

#[tokio::test]
async fn another_key_than_expected_is_refused() {
    let (client, server) = tcp_pair().await;
    let options = Options::default();
    let (keys_a, keys_b) = (keys(1), keys(2));
    let (a, b) =
        tokio::join!(connect(client, &keys_a, Some(keys(9).public()), &options), accept(server, &keys_b, &options));
    let remote = keys_b.public();
    assert!(
        matches!(a, Err(ConnectionError::Handshake(HandshakeError::UnexpectedRemote { remote: r })) if r == remote)
    );
    assert!(matches!(b, Err(ConnectionError::Io(_))));
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_dropped() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 4096], &[32, 0, 0], b""] {
        let (mut client, server) = tcp_pair().await;
        client.write_all(garbage).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(accept(server, &keys(2), &Options::default()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_given_up() {
    let (_theirs, ours) = duplex(1024);
    let (reader, writer) = split(ours);
    let keys = keys(2);
    let stalled = Connection::handshake(reader, writer, Role::Responder, &keys, None, &Options::default()).await;
    assert!(matches!(stalled, Err(ConnectionError::HandshakeTimeout)));
}

#[tokio::test]
async fn forged_frames_end_the_connection() {
    let (mut theirs, mut connection) = turned_bad(&Options::default()).await;
    theirs.write_all(&[20, 0, 0]).await.unwrap();
    theirs.write_all(&[7; 20]).await.unwrap();
    let ended = connection.reader.next().await;
    assert!(matches!(ended, Err(ConnectionError::Stream(StreamError::InvalidMessage))));

    let (mut theirs, mut connection) = turned_bad(&Options::default()).await;
    theirs.write_all(&[20, 0]).await.unwrap();
    drop(theirs);
    assert!(matches!(connection.reader.next().await, Err(ConnectionError::Io(_))), "the end inside a frame");
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_takes_its_share_and_must_arrive_in_time() {
    let options = Options { silence: None, budget: Budget::new(0), ..Options::default() };
    let all = options.budget.available();
    let (mut slow, mut first) = turned_bad(&options).await;
    slow.write_all(&(MAX_FRAME as u32).to_le_bytes()[..3]).await.unwrap();
    let first = tokio::spawn(async move { first.reader.next().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(options.budget.available() < 1024);

    // A second large frame waits for the first, small ones don't.
    let (mut theirs, ours) = duplex(1 << 20);
    let (keys_a, keys_b) = (keys(1), keys(2));
    let (r, w) = split(&mut theirs);
    let (reader, writer) = split(ours);
    let (a, b) = tokio::join!(
        Connection::handshake(r, w, Role::Initiator, &keys_a, None, &options),
        Connection::handshake(reader, writer, Role::Responder, &keys_b, None, &options)
    );
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let started = tokio::time::Instant::now();
    a.writer.send(b"small").await.unwrap();
    a.writer.flush().await.unwrap();
    assert_eq!(b.reader.next().await.unwrap().unwrap(), "small");
    assert!(started.elapsed() < Duration::from_secs(1));
    let (_, large) = tokio::join!(
        async {
            a.writer.queue(&vec![1; 1 << 20]).unwrap();
            a.writer.flush().await.unwrap();
        },
        b.reader.next()
    );
    assert_eq!(large.unwrap().unwrap().len(), 1 << 20);
    assert!(started.elapsed() > Duration::from_secs(50));
    assert!(matches!(first.await.unwrap(), Err(ConnectionError::SlowFrame)));
    drop(b);
    assert_eq!(options.budget.available(), all);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_keep_alives_and_ends_without() {
    let options = Options { silence: Some(Duration::from_secs(12)), ..Options::default() };
    let (theirs, ours) = duplex(1 << 20);
    let (keys_a, keys_b) = (keys(1), keys(2));
    let ((ra, wa), (rb, wb)) = (split(theirs), split(ours));
    let (a, b) = tokio::join!(
        Connection::handshake(ra, wa, Role::Initiator, &keys_a, None, &options),
        Connection::handshake(rb, wb, Role::Responder, &keys_b, None, &options)
    );
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let minute = Duration::from_secs(60);
    let quiet = timeout(minute, async {
        tokio::select! { _ = a.writer.keep_alive() => {} _ = b.reader.next() => {} }
    });
    assert!(quiet.await.is_err(), "empty texts keep the connection and are not returned");
    let started = tokio::time::Instant::now();
    // The keep-alives that are still in the pipe are read first.
    let ended = loop {
        // As those ask who do other things too.
        if let Ok(ended) = timeout(Duration::from_millis(500), b.reader.next()).await {
            break ended;
        }
        assert!(started.elapsed() < minute);
    };
    assert!(matches!(ended, Err(ConnectionError::Silent)));
    assert!(started.elapsed() >= Duration::from_secs(12));
}

#[tokio::test]
async fn nothing_but_ciphertext_is_on_the_wire() {
    let (mut theirs, mut connection) = turned_bad(&Options::default()).await;
    let text = b"attack at dawn".repeat(10);
    connection.writer.queue(&text).unwrap();
    connection.writer.flush().await.unwrap();
    let mut wire = vec![0; 3 + 17 + text.len()];
    theirs.read_exact(&mut wire).await.unwrap();
    assert!(!wire.windows(6).any(|window| window == b"attack"));
}
