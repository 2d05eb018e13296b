use super::*;
use bytes::Bytes;
use datdot_hypercore::{Config, Keypair};
use datdot_wire::noise::Keypair as NoiseKeypair;

const ANY: Wanted = Wanted::First { room: u64::MAX };
const KIND: Wanted = Wanted::Kind { room: u64::MAX };

struct Peer {
    network: Network,
    _dir: tempfile::TempDir,
}

async fn peer(seed: u8) -> Peer {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let keypair = NoiseKeypair::from_seed(&[seed; 32]);
    let config = Config { listen: Some("127.0.0.1:0".parse().unwrap()), ..Config::new(keypair) };
    Peer { network: Network::start(store, config).await.unwrap(), _dir: dir }
}

impl Peer {
    fn endpoint(&self) -> Endpoint {
        let noise_key = Some(self.network.public_key());
        Endpoint { address: self.network.local_addr().unwrap(), noise_key }
    }

    async fn publish(&self, blocks: usize) -> Feed {
        let feed = self.network.store().create(&Keypair::from_seed([9; 32])).unwrap();
        feed.append((0..blocks).map(|at| Bytes::from(vec![at as u8; 64 << 10])).collect()).await.unwrap();
        feed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_fetched_from_one_peer_and_then_from_the_copy() {
    let (author, hoster, reader) = (peer(1).await, peer(2).await, peer(3).await);
    let feed = author.publish(40).await;
    let head = Wanted::Head(feed.signed_head().unwrap());
    let fetcher = Fetcher::new(hoster.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::Stranger)];
    let got = fetcher.fetch(feed.key(), &head, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!(got.bytes, 40 * (64 << 10));
    assert_eq!(fetcher.fetch(feed.key(), &head, &[], &mut |_, _, _| {}).await.unwrap().bytes, 0);
    author.network.close().await;

    let mut last = (0, 0);
    let fetcher = Fetcher::new(reader.network.clone(), false, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User), (hoster.endpoint(), NamedBy::User)];
    let mut progress = |bytes, total, _| last = (bytes, total);
    let got = fetcher.fetch(feed.key(), &ANY, &from, &mut progress).await.unwrap();
    assert_eq!(got.reached, [hoster.endpoint()]);
    assert_eq!(last, (40 * (64 << 10), 40 * (64 << 10)));
    assert_eq!(got.feed.get(7).await.unwrap()[0], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_longer_than_the_disk_has_room_is_refused_with_both_figures() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(80).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let room = Wanted::First { room: 2 << 20 };
    let failed = fetcher.fetch(feed.key(), &room, &from, &mut |_, _, _| {}).await.unwrap_err();
    let says = |why: &str| why.contains("5.0 MiB") && why.contains("2.0 MiB");
    assert!(matches!(&failed.why, Trouble::NoRoom(why) if says(why)), "{failed:?}");
    assert!(failed.fetched < 2 << 20, "{failed:?}");
    let room = Wanted::First { room: 5 << 20 };
    fetcher.fetch(feed.key(), &room, &from, &mut |_, _, _| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn some_blocks_are_fetched_and_those_that_nobody_has_written_are_left_out() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(40).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let some = |runs: Vec<Range<u64>>| Wanted::Runs { runs, bytes: 4 * (64 << 10), room: u64::MAX };
    let mut last = (0, 0);
    let mut progress = |bytes, total, _| last = (bytes, total);
    let got = fetcher.fetch(feed.key(), &some(vec![3..5, 7..9]), &from, &mut progress).await.unwrap();
    assert_eq!((got.bytes, got.feed.info().blocks_here), (4 * (64 << 10), 4));
    assert_eq!(last, (4 * (64 << 10), 4 * (64 << 10)));
    let got = fetcher.fetch(feed.key(), &some(vec![8..10, 39..99]), &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!(got.feed.info().blocks_here, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_behind_the_head_that_is_here_brings_one_that_reaches_it() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
    author.publish(4).await;
    let last = Wanted::Runs { runs: vec![5..6], bytes: 0, room: u64::MAX };
    let got = fetcher.fetch(feed.key(), &last, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!((got.feed.info().length, got.feed.info().blocks_here), (7, 4));
    let got = fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!(got.feed.info().contiguous, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_head_is_followed_and_what_is_here_is_enough_without_peers() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    for length in [3, 5, 5] {
        let got = fetcher.fetch(feed.key(), &KIND, &from, &mut |_, _, _| {}).await.unwrap();
        assert_eq!((got.feed.info().length, got.feed.has(0)), (length, true));
        let got = fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
        assert_eq!(got.feed.info().contiguous, length);
        match length {
            3 => _ = author.publish(2).await,
            _ => author.network.close().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_holds_up_neither_the_newest_head_nor_what_is_here() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let to_author = (author.endpoint(), NamedBy::User);
    fetcher.fetch(feed.key(), &ANY, &[to_author], &mut |_, _, _| {}).await.unwrap();
    author.publish(2).await;
    // They take connections and say nothing.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let endpoint = |at: &tokio::net::TcpListener| Endpoint { address: at.local_addr().unwrap(), noise_key: None };
    let mut from: Vec<_> = silent.iter().map(|at| (endpoint(at), NamedBy::Stranger)).collect();
    from.push(to_author);
    for length in [5, 5] {
        let begun = Instant::now();
        let got = fetcher.fetch(feed.key(), &KIND, &from, &mut |_, _, _| {}).await.unwrap();
        assert_eq!(got.feed.info().length, length);
        assert!(begun.elapsed() < DIAL, "{:?}", begun.elapsed());
        author.network.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_endpoints_with_one_address_the_one_that_is_there_is_reached() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(1).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let older = Endpoint { noise_key: Some([7; 32]), ..author.endpoint() };
    let from = [older, author.endpoint()].map(|endpoint| (endpoint, NamedBy::Stranger));
    let got = fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!(got.reached, [author.endpoint()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_for_some_seconds_is_called_again_and_sends_the_rest() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(40).await;
    let (store, address) = (author.network.store().clone(), author.network.local_addr());
    author.network.limits().upload.set(Some(300_000));
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let fetching = async {
        fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
    };
    let going_away = async {
        while reader.network.store().feed(&feed.key()).is_none_or(|feed| feed.info().blocks_here < 5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        author.network.close().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let config = Config { listen: address, ..Config::new(NoiseKeypair::from_seed(&[1; 32])) };
        Network::start(store, config).await.unwrap()
    };
    let ((), _back) = tokio::join!(fetching, going_away);
    assert_eq!(reader.network.store().feed(&feed.key()).unwrap().info().contiguous, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hoster_that_has_all_of_a_head_fetches_a_longer_one() {
    let (author, hoster) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(hoster.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::Stranger)];
    for length in [3, 5] {
        let head = Wanted::Head(feed.signed_head().unwrap());
        let got = fetcher.fetch(feed.key(), &head, &from, &mut |_, _, _| {}).await.unwrap();
        assert_eq!(got.feed.info().contiguous, length);
        author.publish(2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_private_address_is_never_dialled() {
    let (author, hoster) = (peer(1).await, peer(2).await);
    let feed = author.publish(1).await;
    let fetcher = Fetcher::new(hoster.network.clone(), false, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::Stranger)];
    let failed = fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap_err();
    assert!(matches!(&failed.why, Trouble::Unreachable(why) if why.contains("private")), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_the_expected_one_is_nobody() {
    let (author, hoster) = (peer(1).await, peer(2).await);
    let feed = author.publish(1).await;
    let fetcher = Fetcher::new(hoster.network.clone(), true, Topics::off("a test"));
    let wrong = Endpoint { noise_key: Some(peer(3).await.network.public_key()), ..author.endpoint() };
    let from = [(wrong, NamedBy::User)];
    let failed = fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap_err();
    assert!(matches!(failed.why, Trouble::Unreachable(_)), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_head_whose_source_is_away_is_out_of_reach_and_not_unfit() {
    let (author, hoster, other) = (peer(1).await, peer(2).await, peer(3).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(hoster.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::Stranger)];
    fetcher.fetch(feed.key(), &ANY, &from, &mut |_, _, _| {}).await.unwrap();
    author.publish(2).await;
    let longer = Wanted::Head(feed.signed_head().unwrap());
    author.network.close().await;
    // Somebody is connected, but has nothing of it.
    other.network.connect(hoster.network.local_addr().unwrap(), None).await.unwrap();
    let failed = fetcher.fetch(feed.key(), &longer, &from, &mut |_, _, _| {}).await.unwrap_err();
    assert!(matches!(failed.why, Trouble::Unreachable(_)), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_runs_lie_behind_the_end_they_are_waited_for_once() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let runs = (0..3 * RUNS as u64).map(|at| 2 * at..2 * at + 1).collect();
    let wanted = Wanted::Runs { runs, bytes: 0, room: u64::MAX };
    let begun = Instant::now();
    let got = fetcher.fetch(feed.key(), &wanted, &from, &mut |_, _, _| {}).await.unwrap();
    assert_eq!(got.feed.info().blocks_here, 2);
    assert!(begun.elapsed() < 2 * STALL, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_who_writes_on_but_does_not_send_what_is_wanted_is_not_waited_for_without_end() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(3).await;
    feed.clear(0..1).await.unwrap();
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let first = Wanted::Runs { runs: vec![0..1], bytes: 0, room: u64::MAX };
    let writing = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            author.publish(1).await;
        }
    };
    let mut progress = |_, _, _| {};
    let failed = tokio::select! {
        got = fetcher.fetch(feed.key(), &first, &from, &mut progress) => got.unwrap_err(),
        () = writing => unreachable!("it never ends"),
        () = tokio::time::sleep(4 * STALL) => panic!("it is waited for"),
    };
    assert!(matches!(failed.why, Trouble::Unreachable(_)), "{failed:?}");
    let length = reader.network.store().feed(&feed.key()).unwrap().info().length;
    assert!(length > 3, "its heads came");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_waits_for_no_other_fetch_and_a_connection_ends_with_the_last_of_those_that_share_it() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(80).await;
    author.network.limits().upload.set(Some(400_000));
    let fetcher = Arc::new(Fetcher::new(reader.network.clone(), true, Topics::off("a test")));
    // Without its key, so that only the address tells that it is called already.
    let from = [(Endpoint { noise_key: None, ..author.endpoint() }, NamedBy::User)];
    let fetch = |run: Range<u64>| {
        let (fetcher, key) = (fetcher.clone(), feed.key());
        let wanted = Wanted::Runs { runs: vec![run], bytes: 0, room: u64::MAX };
        tokio::spawn(async move { fetcher.fetch(key, &wanted, &from, &mut |_, _, _| {}).await.unwrap() })
    };
    let called = || author.network.peers().iter().map(|peer| peer.id).collect::<Vec<_>>();
    let first = fetch(10..50);
    while reader.network.store().feed(&feed.key()).is_none_or(|feed| !feed.has(10)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = called();
    let last = fetch(50..80);
    fetch(10..11).await.unwrap();
    assert!(!first.is_finished());
    first.await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!last.is_finished());
    assert_eq!((called(), calls.len()), (calls, 1));
    assert_eq!(last.await.unwrap().reached, [author.endpoint()]);
    let begun = Instant::now();
    while !author.network.peers().is_empty() {
        assert!(begun.elapsed() < STALL, "the connection outlives the fetches");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_with_what_is_here_in_part_is_told_so() {
    let (author, reader) = (peer(1).await, peer(2).await);
    let feed = author.publish(40).await;
    let fetcher = Fetcher::new(reader.network.clone(), true, Topics::off("a test"));
    let from = [(author.endpoint(), NamedBy::User)];
    let mut told = Vec::new();
    for runs in [vec![5..30], vec![0..10, 20..40]] {
        told.clear();
        let wanted = Wanted::Runs { runs, bytes: 30 * (64 << 10), room: u64::MAX };
        fetcher.fetch(feed.key(), &wanted, &from, &mut |bytes, _, _| told.push(bytes)).await.unwrap();
    }
    assert!(told[0] >= 15 * (64 << 10), "{told:?}");
    assert!(told.is_sorted());
    assert_eq!(told.last(), Some(&(30 * (64 << 10))));
}

#[test]
fn a_share_is_all_of_it_in_the_end_and_no_figures_are_too_large_for_it() {
    assert_eq!((share(10, 0, 4), share(10, 2, 4), share(10, 4, 4)), (0, 5, 10));
    assert_eq!((share(10, 0, 0), share(u64::MAX, u64::MAX, u64::MAX)), (10, u64::MAX));
}
