//! Reading what is not here yet, following what is still to be written, and giving room back.

mod support;
use bytes::Bytes;
use datdot_hypercore::{Encryption, FeedError, Network, ReadError, View, Want};
use futures::StreamExt;
use std::{
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};
use support::*;
use tokio::io::AsyncReadExt;

const SOON: Duration = Duration::from_secs(60);

/// Blocks of all sizes, empty ones too.
fn size(i: u64) -> usize {
    (i * 7919 % 4001) as usize * usize::from(!i.is_multiple_of(5))
}

/// Bytes from anywhere are the author's, where a byte is too, and only the blocks that have them are fetched.
async fn assert_any_bytes(reader: &Network, copy: &View, author: &View, blocks: &[Bytes]) {
    let bytes = blocks.concat();
    let end = bytes.len() as u64;
    for range in [500_000..512_345, 0..1, end - 1..end, 77..77, 4..5_004] {
        let mut got = Vec::new();
        soon(reader.reader(copy, range.clone()).read_to_end(&mut got)).await.expect("it comes");
        assert!(got == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    assert!(copy.feed().info().blocks_here < 30, "{:?}", copy.feed().info());
    for byte in (0..end).step_by(37_123) {
        let found = reader.seek(copy, byte, SOON).await.expect("the author knows");
        assert_eq!(found, author.seek(byte).expect("it is there"));
        assert_eq!(blocks[found.0 as usize][found.1 as usize], bytes[byte as usize]);
    }
    let beyond = reader.seek(copy, end, SOON).await;
    assert!(matches!(beyond, Err(ReadError::Feed(FeedError::NoSuchByte { bytes, .. })) if bytes == end), "{beyond:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_read_and_only_their_blocks_are_fetched() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 0, 0).await;
    let reader = network(dir.path(), 2).await;
    let blocks: Vec<_> = (0..1000).map(|i| block(i, size(i))).collect();
    feed.append(blocks.clone()).await.expect("an author appends");
    let copy = copy_in(&reader, &feed);
    connect(&reader, &author).await;
    assert_any_bytes(&reader, &(&copy).into(), &(&feed).into(), &blocks).await;
    let (mut whole, bytes) = (Vec::new(), blocks.concat());
    soon(reader.reader(&copy, 0..bytes.len() as u64).read_to_end(&mut whole)).await.expect("it comes");
    assert!(whole == bytes && copy.info().bytes_missing() == 0);
}

#[tokio::test]
async fn who_asks_for_the_newest_head_is_not_overlooked_among_many() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 10, 100).await;
    let reader = network(dir.path(), 2).await;
    let (copy, other) = (copy_in(&reader, &feed), reader.store().create(&keypair(7)).expect("room"));
    connect(&reader, &author).await;
    soon(reader.download(&copy, Want::all()).done()).await.expect("the author has them");
    let start = Instant::now();
    // On one thread: the connection's task hears of all at once.
    let many = async { (0..300).for_each(|_| drop(reader.download(&other, Want::blocks(0..1)))) };
    let (updated, ()) = tokio::join!(reader.update(&copy, SOON), many);
    assert_eq!(updated.expect("nothing is wrong").length, 10);
    assert!(start.elapsed() < SOON / 4, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_waited_for_but_not_for_ever() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 0, 0).await;
    let reader = network(dir.path(), 2).await;
    let copy = copy_in(&reader, &feed);
    let short = Duration::from_millis(50);
    assert!(matches!(reader.get(&copy, 0, short).await, Err(ReadError::TimedOut)));
    append(&feed, 100, 1000).await;
    connect(&reader, &author).await;
    // A long download under way does not make others wait.
    let _all = reader.download(&copy, Want::blocks(0..50));
    assert_eq!(reader.get(&copy, 99, SOON).await.expect("it comes"), block(99, 1000));
    assert!(matches!(reader.get(&copy, 100, short).await, Err(ReadError::TimedOut)));
    let (got, ()) = tokio::join!(reader.get(&copy, 100, SOON), append(&feed, 1, 1000));
    assert_eq!(got.expect("it is written"), block(100, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_each_block_as_it_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 10, 100).await;
    let reader = network(dir.path(), 2).await;
    let copy = copy_in(&reader, &feed);
    connect(&reader, &author).await;
    let mut tail = reader.tail(&copy, 7);
    for i in 7..60 {
        if i >= 10 {
            append(&feed, 1, 100).await;
        }
        assert_eq!(soon(tail.next()).await.expect("it comes"), (i, block(i, 100)));
    }
    assert!(!copy.has(0) && copy.info().blocks_here == 53);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_a_stream_that_ends_with_the_feed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 10, 100).await;
    let reader = network(dir.path(), 2).await;
    let copy = copy_in(&reader, &feed);
    connect(&reader, &author).await;
    let mut blocks = reader.tail(&copy, 4).into_stream();
    let first: Vec<_> = soon(blocks.by_ref().take(6).map(|next| next.expect("it comes").0).collect()).await;
    assert_eq!(first, [4, 5, 6, 7, 8, 9]);
    let (next, ()) = tokio::join!(soon(blocks.next()), append(&feed, 1, 100));
    assert_eq!(next.expect("it goes on").expect("it comes"), (10, block(10, 100)));
    let (end, ()) = tokio::join!(soon(blocks.next()), async {
        reader.store().remove(&feed.key()).expect("it is there");
    });
    assert!(end.expect("it says why").is_err());
    assert!(soon(blocks.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_key_an_encrypted_feed_is_read_as_if_it_were_not() {
    const SECRET: [u8; 32] = [5; 32];
    for compat in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, reader) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
        let store = author.store();
        let feed = if compat { store.create_compat(&keypair(1)) } else { store.create(&keypair(1)) }.expect("room");
        let key = feed.key();
        let encryption = if compat { Encryption::compat(&key, &SECRET) } else { Encryption::new(&key, &SECRET) };
        let contents: Vec<_> = (0..600).map(|i| block(i, size(i))).collect();
        let written = feed.decrypted(SECRET);
        // What is written is what JavaScript writes, where it comes to stand and in which fork.
        written.append(contents[..70].to_vec()).await.expect("an author appends");
        feed.truncate(50).await.expect("an author cuts");
        for blocks in [&contents[50..60], &[], &contents[60..]] {
            written.append(blocks.to_vec()).await.expect("an author appends");
        }
        for (i, fork) in [(49, 0), (50, 1), (599, 1)] {
            let stored = feed.get(i).await.expect("it is here");
            assert_eq!(stored, encryption.encrypt(i, fork, &contents[i as usize]), "{i}");
        }
        let bytes = contents.concat().len() as u64;

        let copy = copy_in(&reader, &feed);
        let view = copy.decrypted(SECRET);
        connect(&reader, &author).await;
        assert_eq!(reader.get(&view, 77, SOON).await.expect("it comes"), contents[77]);
        assert_eq!((view.bytes(), copy.info().bytes), (bytes, bytes + 600 * 8));
        assert_any_bytes(&reader, &view, &feed.decrypted(SECRET), &contents).await;
        let mut tail = reader.tail(&view, 598);
        for i in 598..600 {
            assert_eq!(soon(tail.next()).await.expect("it comes"), (i, contents[i as usize].clone()));
        }
        // Who has another key, or none, reads something else.
        let stored = copy.get(77).await.expect("it is here");
        assert_eq!(stored.len(), contents[77].len() + 8);
        assert_ne!(copy.decrypted([6; 32]).get(77).await.expect("nothing tells"), contents[77]);
    }
}

#[tokio::test]
async fn a_feed_with_short_blocks_is_not_decrypted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, feed) = author(dir.path(), 1, 7).await;
    let view = feed.decrypted([5; 32]);
    assert!(matches!(view.get(0).await, Err(FeedError::NotEncrypted)));
    assert!(matches!(view.seek(0), Err(FeedError::NotEncrypted)));
}

#[tokio::test(flavor = "multi_thread")]
async fn cleared_blocks_give_their_room_back_and_come_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 64, 65_536).await;
    let hoster = network(dir.path(), 2).await;
    let copy = copy_in(&hoster, &feed);
    connect(&hoster, &author).await;
    let mut download = hoster.download(&copy, Want::blocks(0..64));
    soon(download.done()).await.expect("everything comes");
    drop(download);
    let used = || copy.data_path().metadata().expect("it is there").blocks() * 512;
    let before = used();
    assert_eq!(copy.clear(8..40).await.expect("they are here"), 32 * 65_536);
    assert_eq!(copy.clear(0..40).await.expect("some are here"), 8 * 65_536);
    assert!(used() + 39 * 65_536 <= before, "{} of {before} bytes are in use", used());
    let info = copy.info();
    assert_eq!((info.blocks_here, info.bytes_here, info.contiguous), (24, 24 * 65_536, 0));
    assert!(matches!(copy.get(39).await, Err(FeedError::NotHere { block: 39 })));
    assert_eq!(copy.get(40).await.expect("it was not cleared"), block(40, 65_536));
    assert_eq!(hoster.get(&copy, 20, SOON).await.expect("it comes again"), block(20, 65_536));
    soon(hoster.download(&copy, Want::blocks(0..64)).done()).await.expect("they come again");
    assert_blocks(&copy, 64, 65_536).await;
}
