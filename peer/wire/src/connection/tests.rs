//! What a connection keeps in memory.

use super::*;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

type Piped = Connection<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Both ends of a pipe that holds so many bytes.
async fn piped(holds: usize) -> (Piped, Piped) {
    let (theirs, ours) = duplex(holds);
    let ((ra, wa), (rb, wb)) = (split(theirs), split(ours));
    let (keys, options) = (Keypair::from_seed(&[1; 32]), Options::default());
    tokio::try_join!(
        Connection::handshake(ra, wa, Role::Initiator, &keys, None, &options),
        Connection::handshake(rb, wb, Role::Responder, &keys, None, &options)
    )
    .expect("both are honest")
}

#[tokio::test]
async fn what_was_written_is_let_go_though_the_rest_never_is() {
    let (Connection { mut writer, .. }, other) = piped(60_000).await;
    let mut from = other.reader.frames.io;
    let mut sink = vec![0; 50_000];
    writer.queue(&[7; 8 << 20]).expect("it fits");
    let mut more = 100;
    while more > 0 {
        more -= usize::from(writer.queued() < 200_000);
        let text = if writer.queued() < 200_000 { 50_000 } else { 20_000 };
        writer.queue(&vec![7; text]).expect("it is small");
        // The pipe is full before all is written, so the flush is cancelled.
        tokio::select! { biased; _ = writer.flush() => {} _ = std::future::ready(()) => {} }
        assert!(writer.queued() > 0);
        from.read_exact(&mut sink).await.expect("the pipe is open");
    }
    assert!(writer.out.len() < 1 << 20, "{} bytes kept", writer.out.len());
    assert!(writer.out.capacity() < 2 << 20, "{} bytes held", writer.out.capacity());
}

#[tokio::test]
async fn the_memory_of_a_large_frame_goes_with_it_though_the_next_has_begun() {
    let (mut a, mut b) = piped(64 << 20).await;
    for text in [1, 9 << 20, 5, 300_000, 5, 5] {
        a.writer.queue(&vec![7; text]).expect("it fits");
    }
    a.writer.flush().await.expect("the pipe has room");
    let mut large = 0;
    for _ in 0..6 {
        let (frame, share) = b.reader.frames.next(MAX_FRAME).await.expect("both are honest").expect("they are here");
        let beside = b.reader.frames.buffer.len();
        assert!(beside <= LARGEST_READ, "{beside} bytes have no share");
        if share.is_some() {
            assert!(frame.freeze().is_unique(), "something else keeps the memory");
            large += 1;
        }
    }
    assert_eq!(large, 2);
}
