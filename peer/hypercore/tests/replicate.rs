//! Our own peers among themselves: many sources, restarts, damage, lies and garbage.

mod support;
use datdot_hypercore::{
    Changed, Config, ConnectError, Ended, FeedError, Network, PeerEvent, ReadError, Stopped, Store, StoreError, Want,
    feed::DATA_START,
};
use datdot_wire::{
    connection::{self, Connection},
    noise::{self, Role},
};
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    time::Duration,
};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_from_hoster_to_hoster() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 300, 3000).await;
    let (hoster, reader) = (network(dir.path(), 2).await, network(dir.path(), 3).await);

    let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let mut download = hoster.download(&copy, Want::blocks(0..300));
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");
    author.close().await;

    // The author is gone; the second reader knows the key only.
    let copy = copy_in(&reader, &feed);
    let mut download = reader.download(&copy, Want::all());
    connect(&reader, &hoster).await;
    soon(download.done()).await.expect("everything comes");
    assert_blocks(&copy, 300, 3000).await;
    assert_eq!(copy.signed_head(), feed.signed_head());
    let (range, bytes) = (copy.byte_range(7..9).expect("known"), [block(7, 3000), block(8, 3000)].concat());
    assert_eq!(range, 21_000..27_000);
    assert_eq!(copy.read_bytes(range).await.expect("it is here"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_may_be_as_large_or_small_as_numbers_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 30, 1000).await;
    for (name, max_connections, window) in [(2, usize::MAX, 0), (3, 1, usize::MAX)] {
        let config = Config { max_connections, window, ..Config::new(noise::Keypair::from_seed(&[name; 32])) };
        let store = Store::open(dir.path().join(format!("store-{name}"))).expect("the folder is free");
        let reader = Network::start(store, config).await.expect("it starts");
        let copy = copy_in(&reader, &feed);
        connect(&reader, &author).await;
        let mut download = reader.download(&copy, Want::all());
        tokio::time::timeout(Duration::from_secs(10), download.done()).await.expect("in time").expect("all comes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_from_several_hosters_and_growth_from_the_author() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 200, 500).await;
    // Two hosters with a half each, and a few blocks of the other one.
    let mut hosters = Vec::new();
    for (name, blocks) in [(2, 0..100), (3, 100..200)] {
        let hoster = network(dir.path(), name).await;
        let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
        let mut download = hoster.download(&copy, Want::blocks(blocks.clone()));
        connect(&hoster, &author).await;
        soon(download.done()).await.expect("its half comes");
        assert_eq!((copy.info().blocks_here, copy.missing_in(blocks)), (100, 0));
        hosters.push(hoster);
    }
    let reader = network(dir.path(), 4).await;
    let copy = copy_in(&reader, &feed);
    let mut download = reader.download(&copy, Want::all());
    for hoster in &hosters {
        connect(&reader, hoster).await;
    }
    soon(download.done()).await.expect("both halves come");
    assert_blocks(&copy, 200, 500).await;

    connect(&reader, &author).await;
    for _ in 0..10 {
        append(&feed, 7, 500).await;
    }
    let mut progress = copy.watch();
    soon(progress.wait_for(|info| info.length == 270 && info.is_complete())).await.expect("it follows");
    assert_blocks(&copy, 270, 500).await;
    assert!(copy.scrub(0..270).await.expect("readable").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_not_fetched_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 300, 1000).await;
    {
        let hoster = network(dir.path(), 2).await;
        let copy = copy_in(&hoster, &feed);
        let download = hoster.download(&copy, Want::all());
        connect(&hoster, &author).await;
        let mut progress = copy.watch();
        soon(progress.wait_for(|info| info.blocks_here >= 50)).await.expect("blocks come");
        drop(download);
        hoster.close().await;
        assert!(matches!(Store::open(dir.path().join("store-2")), Err(StoreError::InUse { .. })));
    }
    let hoster = network(dir.path(), 2).await;
    let copy = hoster.store().feed(&feed.key()).expect("it was stored");
    let before = copy.info();
    assert!(before.blocks_here >= 50 && before.bytes_here == 1000 * before.blocks_here, "{before:?}");
    let mut changes = hoster.store().changes();
    let mut download = hoster.download(&copy, Want::all());
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("the rest comes");
    let mut gained = 0;
    while let Ok(change) = changes.try_recv() {
        if let Changed::Gained(blocks) = change.what {
            gained += blocks.end - blocks.start;
        }
    }
    assert_eq!(gained, 300 - before.blocks_here);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_was_closed_holds_nothing_and_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 300, 10_000).await;
    for round in 0..8 {
        let hoster = network(dir.path(), 2).await;
        let copy = copy_in(&hoster, &feed);
        connect(&hoster, &author).await;
        // Somebody is shaking hands, and blocks are coming.
        let _caller = tokio::net::TcpStream::connect(hoster.local_addr().expect("it listens")).await.expect("it does");
        let (mut download, mut tail) = (hoster.download(&copy, Want::all()), hoster.tail(&copy, 300));
        let mut reader = hoster.reader(&copy, 0..4_000_000);
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        let (waiting, ()) = tokio::join!(
            async { (soon(tail.next()).await, soon(hoster.get(&copy, 301, Duration::MAX)).await) },
            hoster.close()
        );
        for end in [waiting.0.map(drop), waiting.1.map(drop)] {
            assert!(matches!(end, Err(ReadError::Stopped(Stopped::Closed))), "{end:?}");
        }
        soon(reader.read_to_end(&mut Vec::new())).await.expect_err("it is not all here");
        assert!(matches!(soon(download.done()).await, Ok(()) | Err(Stopped::Closed)));
        copy.clear(0..1).await.expect("writable");
        let mut again = hoster.download(&copy, Want::blocks(0..1));
        assert!(matches!(soon(again.done()).await, Err(Stopped::Closed)));
        let address = author.local_addr().expect("it listens");
        assert!(matches!(hoster.connect(address, None).await, Err(ConnectError::Closed)));
        assert!(hoster.peers().is_empty());
        drop((hoster, copy, download, again, tail, reader));
        Store::open(dir.path().join("store-2")).map(drop).expect("nobody holds it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_update_the_newest_head_of_all_peers_is_known() {
    const LONG: Duration = Duration::MAX;
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 0, 0).await;
    let (hoster, reader, stranger) =
        (network(dir.path(), 2).await, network(dir.path(), 3).await, network(dir.path(), 4).await);
    let (theirs, copy) = (copy_in(&hoster, &feed), copy_in(&reader, &feed));
    // Nobody is connected; then one who does not have the feed, and its author, who has not written anything.
    assert_eq!(reader.update(&copy, LONG).await.expect("nobody").length, 0);
    connect(&reader, &stranger).await;
    connect(&reader, &author).await;
    assert_eq!(soon(reader.update(&copy, LONG)).await.expect("all have spoken").length, 0);
    for round in 1..6 {
        // What a hoster has that lags behind is not the newest; what is complete here neither.
        append(&feed, 10, 100).await;
        again(&reader, &[&stranger, &author]).await;
        let info = soon(reader.update(&copy, LONG)).await.expect("all have spoken");
        assert_eq!((info.length, info.blocks_here), (10 * round, 10 * (round - 1)));
        soon(reader.download(&copy, Want::all()).done()).await.expect("it comes");
        again(&hoster, &[&author]).await;
        soon(hoster.update(&theirs, LONG)).await.expect("all have spoken");
        soon(hoster.download(&theirs, Want::all()).done()).await.expect("it comes");
    }
    append(&feed, 10, 100).await;
    again(&hoster, &[]).await;
    again(&reader, &[&hoster, &author]).await;
    assert_eq!(soon(reader.update(&copy, LONG)).await.expect("all have spoken").length, 60);
    feed.truncate(30).await.expect("an author cuts");
    append(&feed, 1, 100).await;
    again(&reader, &[&hoster, &author]).await;
    let updated = soon(reader.update(&copy, LONG)).await;
    assert!(matches!(updated, Err(Stopped::Forked { fork: 1 })), "{updated:?}");
    copy.follow_forks(true);
    let info = soon(reader.update(&copy, LONG)).await.expect("all have spoken");
    assert_eq!((info.fork, info.length), (1, 31));
    reader.close().await;
    assert!(matches!(reader.update(&copy, LONG).await, Err(Stopped::Closed)));
}

/// Ends all connections and makes others. On one that is open for long news may be under way just now.
async fn again(from: &Network, to: &[&Network]) {
    from.peers().iter().for_each(|peer| from.disconnect(peer.id));
    for to in to {
        connect(from, to).await;
    }
}

fn damage(file: &std::path::Path, at: u64) {
    let mut file = fs::File::options().read(true).write(true).open(file).expect("the file is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).expect("the byte is there");
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&[byte[0] ^ 1])).expect("it is writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_and_nodes_are_found_withdrawn_and_fetched_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 64, 1000).await;
    let hoster = network(dir.path(), 2).await;
    let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let mut download = hoster.download(&copy, Want::all());
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");

    let mut changes = hoster.store().changes();
    damage(&copy.data_path(), DATA_START + 5_500);
    assert!(matches!(copy.get(5).await, Err(FeedError::Damaged { block: 5 })));
    soon(download.done()).await.expect("it comes again");
    assert_blocks(&copy, 64, 1000).await;
    // Withdrawn before it came again: whoever asked for it meanwhile heard that it is missing.
    let told: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).map(|change| change.what).collect();
    assert!(
        matches!(&told[..], [Changed::Lost(lost), Changed::Gained(gained)] if *lost == (5..6) && *gained == (5..6)),
        "{told:?}"
    );

    // A leaf, an inner node, and the bytes of two more blocks.
    let tree = copy.data_path().with_file_name("tree");
    [44 * 20, 44 * 67 + 9].into_iter().for_each(|at| damage(&tree, at));
    [0, 63_999].into_iter().for_each(|at| damage(&copy.data_path(), DATA_START + at));
    let found = copy.scrub(0..64).await.expect("readable");
    // The nodes follow from what is below them.
    assert_eq!(found, [0, 63]);
    soon(download.done()).await.expect("they come again");
    assert_blocks(&copy, 64, 1000).await;
    assert!(copy.scrub(0..64).await.expect("readable").is_empty());
    assert_eq!(copy.info().bytes_here, 64_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_a_hoster_lost_is_fetched_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 30, 1000).await;
    let (hoster, reader) = (network(dir.path(), 2).await, network(dir.path(), 3).await);
    let copy = copy_in(&hoster, &feed);
    let mut download = hoster.download(&copy, Want::blocks(0..30));
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");
    drop(download);

    // The hoster does not know yet that it lost one.
    damage(&copy.data_path(), DATA_START + 17_500);
    let theirs = copy_in(&reader, &feed);
    let mut download = reader.download(&theirs, Want::all());
    connect(&reader, &hoster).await;
    let mut progress = theirs.watch();
    soon(progress.wait_for(|info| info.blocks_here == 29)).await.expect("all but one come");
    assert!(!theirs.has(17) && !copy.has(17));
    connect(&reader, &author).await;
    soon(download.done()).await.expect("the last one comes");
    assert_blocks(&theirs, 30, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_its_sender_the_connection_and_nobody_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 20, 100).await;
    let reader = network(dir.path(), 2).await;
    let address = author.local_addr().expect("it listens");
    // No handshake at all, half of one, and noise behind a good one.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[32, 0, 0, 7]] {
        let mut socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
        socket.write_all(bytes).await.expect("it reads");
        socket.shutdown().await.expect("it is open");
        // Reset or closed, but it ends.
        _ = soon(socket.read_to_end(&mut Vec::new())).await;
    }
    let keys = datdot_wire::noise::Keypair::from_seed(&[9; 32]);
    let options = datdot_wire::connection::Options::default();
    for frame in [&[0, 1][..], &[0, 0, 0, 3, 9, 9, 9], &[0xff; 300], &[0, 3, 7], &[0, 2, 1], &[0, 1, 200, 1, b'x', 0]] {
        let socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let mut bad = datdot_wire::connection::connect(socket, &keys, None, &options).await.expect("a handshake");
        bad.writer.queue(frame).expect("small");
        _ = bad.writer.flush().await;
        _ = bad.writer.close().await;
        while let Ok(Some(_)) = soon(bad.reader.next()).await {}
    }
    let copy = copy_in(&reader, &feed);
    let mut download = reader.download(&copy, Want::all());
    connect(&reader, &author).await;
    soon(download.done()).await.expect("the author lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_feed_ends_its_download_and_its_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 20, 100).await;
    let hoster = network(dir.path(), 2).await;
    let copy = copy_in(&hoster, &feed);
    let mut download = hoster.download(&copy, Want::all());
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");
    assert!(hoster.store().remove(&feed.key()).expect("it is there"));
    assert!(!hoster.store().remove(&feed.key()).expect("it is gone"));
    assert!(!copy.data_path().exists());
    assert!(matches!(copy.get(0).await, Err(FeedError::Removed)));
    let gone = soon(hoster.download(&copy, Want::blocks(0..30)).done()).await;
    assert!(matches!(gone, Err(Stopped::Replaced)), "{gone:?}");
    // Opened again, it is fetched anew.
    let fresh = copy_in(&hoster, &feed);
    assert_eq!(fresh.info().length, 0);
    soon(hoster.download(&fresh, Want::all()).done()).await.expect("it comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_feed_is_shown_to_nobody_until_it_is_shown_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, reader) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
    let feed = author.store().create(&keypair(1)).expect("room");
    append(&feed, 20, 100).await;
    let copy = reader.store().open_remote(feed.key(), None).expect("room");
    connect(&reader, &author).await;
    soon(reader.download(&copy, Want::blocks(0..10)).done()).await.expect("the first half comes");

    author.store().hide(&feed.key());
    append(&feed, 10, 100).await;
    let mut rest = reader.download(&copy, Want::all());
    let waited = tokio::time::timeout(Duration::from_secs(2), rest.done()).await;
    assert!(waited.is_err() && copy.info().blocks_here == 10, "the channel that was open is closed");
    let stranger = network(dir.path(), 3).await;
    let blank = stranger.store().open_remote(feed.key(), None).expect("room");
    connect(&stranger, &author).await;
    let waited = tokio::time::timeout(Duration::from_secs(2), stranger.download(&blank, Want::all()).done()).await;
    assert!(waited.is_err() && blank.info().length == 0, "nor is a new one opened");
    assert_eq!(feed.get(3).await.expect("it is here still"), block(3, 100));

    author.store().show(&feed.key());
    soon(rest.done()).await.expect("it comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_download_with_the_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 20, 100).await;
    let tree = {
        let store = Store::open(dir.path().join("store-2")).expect("the folder is free");
        let copy = store.open_remote(feed.key(), feed.signed_head()).expect("an honest head");
        copy.data_path().with_file_name("tree")
    };
    // A device that takes nothing.
    fs::remove_file(&tree).and_then(|()| std::os::unix::fs::symlink("/dev/full", &tree)).expect("writable");
    let hoster = network(dir.path(), 2).await;
    let copy = hoster.store().feed(&feed.key()).expect("it is there");
    let mut download = hoster.download(&copy, Want::all());
    connect(&hoster, &author).await;
    let Err(Stopped::Feed(why)) = soon(download.done()).await else { panic!("nothing was stored") };
    let full = |source: &std::io::Error| source.kind() == std::io::ErrorKind::StorageFull;
    assert!(matches!(&*why, FeedError::Io { source, .. } if full(source)), "{why}");
    assert_eq!(hoster.peers().len(), 1, "the author is not to blame");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_that_fetch_from_each_other_never_wait_for_each_other() {
    const BLOCK: usize = 9 << 20;
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (network(dir.path(), 1).await, network(dir.path(), 2).await);
    let (ours, theirs) =
        (one.store().create(&keypair(1)).expect("room"), two.store().create(&keypair(2)).expect("room"));
    // Each block alone is more than a peer lets wait for the socket.
    append(&ours, 2, BLOCK).await;
    append(&theirs, 2, BLOCK).await;
    let our_copy = copy_in(&two, &ours);
    let their_copy = copy_in(&one, &theirs);
    let (mut one_way, mut other_way) = (two.download(&our_copy, Want::all()), one.download(&their_copy, Want::all()));
    join_slowly(&one, &two, [1, 2], 24 << 20).await;
    let both = async { tokio::try_join!(one_way.done(), other_way.done()) };
    tokio::time::timeout(Duration::from_secs(50), both).await.expect("neither stalls").expect("everything comes");
    assert_blocks(&our_copy, 2, BLOCK).await;
    assert_blocks(&their_copy, 2, BLOCK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_and_never_reads_costs_bounded_memory_and_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let author = network(dir.path(), 1).await;
    let mut events = author.events();
    let (keys, options) = (noise::Keypair::from_seed(&[9; 32]), connection::Options::default());
    let socket = tokio::net::TcpStream::connect(author.local_addr().expect("it listens")).await.expect("it listens");
    let mut greedy = connection::connect(socket, &keys, None, &options).await.expect("a handshake");
    // Each of these has to be rejected, which says about as much as the question.
    let open: Vec<u8> = [&[0, 0, 0][..], &[6, 1, 1, 1, b'x', 0, 0].repeat(60_000)].concat();
    tokio::spawn(async move { while greedy.writer.send(&open).await.is_ok() {} });
    let ended = async {
        loop {
            if let PeerEvent::Ended(_, why) = events.recv().await.expect("it is told") {
                return why;
            }
        }
    };
    // Ten million questions: a busy machine takes its time.
    let ended = tokio::time::timeout(Duration::from_secs(400), ended).await.expect("it ends");
    assert!(matches!(&*ended, Ended::Stalled | Ended::Fault(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_comes_before_it_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let network = network(dir.path(), 1).await;
    let (mut events, keys) = (network.events(), [1, 2].map(|name| noise::Keypair::from_seed(&[name; 32])));
    for _ in 0..100 {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let ((our_in, our_out), (their_in, their_out)) = (tokio::io::split(ours), tokio::io::split(theirs));
        let options = connection::Options::default();
        let ours = Connection::handshake(our_in, our_out, Role::Initiator, &keys[0], None, &options);
        let theirs = Connection::handshake(their_in, their_out, Role::Responder, &keys[1], None, &options);
        let (ours, theirs) = tokio::try_join!(ours, theirs).expect("honest peers");
        drop(theirs);
        let info = network.attach(ours).expect("a place");
        assert!(matches!(soon(events.recv()).await, Ok(PeerEvent::Connected(came)) if came == info));
        assert!(matches!(soon(events.recv()).await, Ok(PeerEvent::Ended(went, _)) if went == info));
    }
}
