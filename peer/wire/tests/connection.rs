//! The driver against itself and against remotes that misbehave.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use datdot_wire::connection::{
    Budget, Connection, ConnectionError, Options, SMALL_FRAME, TcpConnection, accept, connect,
};
use datdot_wire::mux::MAX_BATCH;
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

/// Both sides of a pipe that holds everything.
async fn piped(options: &Options) -> (PipeConnection, PipeConnection) {
    let (theirs, ours) = duplex(64 << 20);
    let ((ra, wa), (rb, wb)) = (split(theirs), split(ours));
    let (keys_a, keys_b) = (keys(1), keys(2));
    let (a, b) = tokio::join!(
        Connection::handshake(ra, wa, Role::Initiator, &keys_a, None, options),
        Connection::handshake(rb, wb, Role::Responder, &keys_b, None, options)
    );
    (a.unwrap(), b.unwrap())
}

/// Options without keep-alives, and a budget of one largest frame.
fn scarce() -> Options {
    Options { silence: None, keep_alive: None, budget: Budget::new(0), ..Options::default() }
}

/// Begins a largest frame that takes the whole budget, and goes on as slowly as that.
async fn hog(
    options: &Options,
) -> (DuplexStream, tokio::task::JoinHandle<Result<Option<bytes::Bytes>, ConnectionError>>) {
    let (mut slow, mut first) = turned_bad(options).await;
    slow.write_all(&(MAX_FRAME as u32).to_le_bytes()[..3]).await.unwrap();
    slow.write_all(&vec![0; SMALL_FRAME]).await.unwrap();
    let first = tokio::spawn(async move { first.reader.next().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(options.budget.available() < 1024);
    (slow, first)
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_takes_its_share_and_must_arrive_in_time() {
    let options = scarce();
    let all = options.budget.available();
    let (_slow, first) = hog(&options).await;

    // A second large frame waits for the first, small ones don't.
    let (mut a, mut b) = piped(&options).await;
    let started = tokio::time::Instant::now();
    for small in [5, MAX_BATCH + 500] {
        a.writer.queue(&vec![2; small]).unwrap();
        a.writer.flush().await.unwrap();
        assert_eq!(b.reader.next().await.unwrap().unwrap().len(), small);
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    a.writer.queue(&vec![1; 1 << 20]).unwrap();
    a.writer.flush().await.unwrap();
    assert_eq!(b.reader.next().await.unwrap().unwrap().len(), 1 << 20);
    assert!((3..6).contains(&started.elapsed().as_secs()), "no longer than a twelfth of its time");
    assert!(matches!(first.await.unwrap(), Err(ConnectionError::SlowFrame)));
    drop(b);
    assert_eq!(options.budget.available(), all);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_as_fast_as_it_has_to_is_taken() {
    let options = scarce();
    let (mut slow, mut connection) = turned_bad(&options).await;
    let reading = tokio::spawn(async move { connection.reader.next().await });
    slow.write_all(&(MAX_FRAME as u32).to_le_bytes()[..3]).await.unwrap();
    for _ in 0..12 {
        slow.write_all(&vec![0; MAX_FRAME / 12 + 1]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(4900)).await;
    }
    // All of it came; it is only not what it should be.
    assert!(matches!(reading.await.unwrap(), Err(ConnectionError::Stream(StreamError::InvalidMessage))));
}

#[tokio::test(start_paused = true)]
async fn who_only_announces_a_large_frame_takes_nothing_from_others() {
    let options = scarce();
    let all = options.budget.available();
    let (mut slow, mut connection) = turned_bad(&options).await;
    slow.write_all(&(MAX_FRAME as u32).to_le_bytes()[..3]).await.unwrap();
    assert!(timeout(Duration::from_secs(30), connection.reader.next()).await.is_err());
    assert_eq!(options.budget.available(), all);
}

#[tokio::test(start_paused = true)]
async fn a_text_keeps_its_share_as_long_as_a_slice_of_it_is_kept() {
    let options = scarce();
    let all = options.budget.available();
    let (mut a, mut b) = piped(&options).await;
    for size in [1 << 20, 5] {
        a.writer.queue(&vec![1; size]).unwrap();
        a.writer.flush().await.unwrap();
    }
    let large = b.reader.next().await.unwrap().unwrap();
    let slice = large.slice(7..9);
    drop(large);
    assert_eq!(b.reader.next().await.unwrap().unwrap().len(), 5);
    assert_eq!(options.budget.available(), all - (1 << 20) - 1024, "it is not done with yet");
    drop(slice);
    assert_eq!(options.budget.available(), all);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_lets_others_go_first() {
    let options = scarce();
    let (_slow, first) = hog(&options).await;
    // The second waits before the third, but is asked no more.
    let (mut second, mut b) = turned_bad(&options).await;
    second.write_all(&(MAX_FRAME as u32).to_le_bytes()[..3]).await.unwrap();
    second.write_all(&vec![0; SMALL_FRAME]).await.unwrap();
    assert!(timeout(Duration::from_millis(10), b.reader.next()).await.is_err());
    b.reader.leave_queue();
    let (mut c, mut d) = piped(&options).await;
    c.writer.queue(&vec![1; 1 << 20]).unwrap();
    c.writer.flush().await.unwrap();
    let third = timeout(Duration::from_secs(60), d.reader.next()).await;
    assert_eq!(third.unwrap().unwrap().unwrap().len(), 1 << 20);
    assert!(matches!(first.await.unwrap(), Err(ConnectionError::SlowFrame)));
}

#[tokio::test(start_paused = true)]
async fn silence_and_slowness_are_noticed_by_who_does_something_else_every_few_seconds() {
    let begun = tokio::time::Instant::now();
    for (frame, seconds) in [(None, 60), (Some([9, 0, 0, 1]), 20)] {
        let options = Options { frame: Duration::from_secs(20), ..Options::default() };
        let (mut quiet, mut connection) = turned_bad(&options).await;
        if let Some(frame) = frame {
            quiet.write_all(&frame).await.unwrap();
        }
        let from = tokio::time::Instant::now();
        let error = loop {
            assert!(begun.elapsed() < Duration::from_secs(300), "it waits for ever");
            match timeout(Duration::from_secs(3), connection.reader.next()).await {
                Ok(read) => break read.unwrap_err(),
                Err(_) => continue,
            }
        };
        assert!(matches!(error, ConnectionError::Silent | ConnectionError::SlowFrame), "{error}");
        assert!(from.elapsed() <= Duration::from_secs(seconds + 3), "{:?}", from.elapsed());
    }
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

#[tokio::test]
async fn empty_texts_are_counted_with_what_comes_after_them() {
    let (mut a, mut b) = piped(&Options::default()).await;
    let mut say = |texts: &[usize]| {
        for &text in texts {
            a.writer.queue(&vec![1; text]).unwrap();
        }
        a.writer.queued()
    };
    let few = say(&[0, 0, 0, 1]);
    let many = say(&[0; 10_000]) - few;
    say(&[2]);
    a.writer.flush().await.unwrap();
    assert_eq!(b.reader.next_counted().await.unwrap().unwrap(), (vec![1].into(), few));
    let (mut empty, mut counted) = (0, 0);
    let (last, bytes) = loop {
        let (text, bytes) = b.reader.next_counted().await.unwrap().unwrap();
        if !text.is_empty() {
            break (text, bytes);
        }
        (empty, counted) = (empty + 1, counted + bytes);
    };
    assert_eq!((last.len(), counted + bytes), (2, many + 22));
    assert!(empty >= 3, "whoever reads can do something else now and then");
}
