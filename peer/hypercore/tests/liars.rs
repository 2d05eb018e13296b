//! Remotes that lie, played by hand: who is dropped, and who is excused.

mod support;
use bytes::Bytes;
use codec::Encode;
use datdot_hypercore::peer::{Peer, Rest};
use datdot_hypercore::{
    Conflict, Ended, Evidence, Fault, Feed, FeedError, Network, PeerEvent, Refused, Store, Want,
    messages::{Data, DataBlock, DataHash, DataUpgrade, Message, NodeRequest, Request, Sync, UpgradeRequest},
};
use datdot_proof::{
    flat,
    head::{Head, Root, SignedHead},
    tree::{Node, Roots},
};
use datdot_wire::{
    connection,
    mux::{Event, Mux},
    noise,
};
use ed25519_dalek::{Signer, SigningKey};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use support::{
    played::{HASH, Played, open, say, setup},
    *,
};
use tokio::{io::AsyncReadExt, net::TcpStream};

const SIZE: usize = 100;

/// An author's feed with so many blocks, and a peer that knows the first `known` of them.
fn world(dir: &std::path::Path, known: u64, length: u64) -> (Feed, Played) {
    let author = Store::open(dir.join("author")).expect("the folder is free").create(&keypair(1)).expect("room");
    let write = |blocks: std::ops::Range<u64>| {
        author.write(&blocks.map(|i| block(i, SIZE)).collect::<Vec<_>>()).expect("an author appends")
    };
    if known > 0 {
        write(0..known);
    }
    let peer = Played::new(&dir.join("reader"), author.key(), (known > 0).then_some(&author));
    if length > known {
        write(known..length);
    }
    (author, peer)
}

/// What the author says, of whatever fork is asked for.
fn truth(author: &Feed, request: &Request) -> Data {
    let fork = author.info().fork;
    let data = author.answer(&Request { fork, ..*request }).expect("the author has everything");
    Data { fork: request.fork, ..data }
}

/// What an honest remote with the author's newest fork says.
fn honest(author: &Feed, request: &Request) -> Message {
    match request.fork == author.info().fork {
        true => Message::Data(Box::new(truth(author, request))),
        false => Message::NoData { id: request.id, reason: None },
    }
}

/// The answer with something that its author did not write.
fn lie(author: &Feed, request: &Request) -> Message {
    let mut data = truth(author, request);
    match (&mut data.block, &mut data.hash, &mut data.upgrade) {
        (Some(block), ..) => block.value = Bytes::from_static(b"anything"),
        (_, Some(hash), _) => hash.nodes[0].hash[7] ^= 1,
        (_, _, Some(upgrade)) => upgrade.signature = [7; 66].to_vec().into(),
        _ => panic!("nothing was asked for"),
    }
    Message::Data(Box::new(data))
}

fn is_dropped(told: Result<(), Fault>, author: &Feed) -> bool {
    match told {
        Ok(()) => false,
        Err(Fault::False { feed, .. }) => feed == author.key(),
        Err(other) => panic!("dropped for {other}"),
    }
}

#[test]
fn who_raises_its_fork_before_each_false_answer_is_dropped() {
    // It is asked for its first head; for blocks; for the history of its later fork.
    for (known, follow) in [(0, false), (20, false), (20, true)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, mut peer) = world(dir.path(), known, 20);
        peer.feed.follow_forks(follow);
        let (mut fork, mut lies, mut asked) = (0, 0, 0);
        let dropped = loop {
            // Back to where it is asked, and away again.
            peer.offer(if follow || known == 0 { fork } else { 0 }, 20).expect("that is no lie");
            let requests = peer.requests();
            asked += requests.len();
            fork += 1;
            peer.offer(fork, 20).expect("that is no lie");
            if requests.iter().any(|request| is_dropped(peer.say(&lie(&author, request)), &author)) {
                break true;
            }
            lies += 1;
            if lies > 100 {
                break false;
            }
        };
        assert!(dropped && asked > lies, "known {known}, follow {follow}: {lies} times, {asked} questions");
        assert!((1..=9).contains(&lies), "known {known}, follow {follow}: {lies} times");
    }
}

#[test]
fn a_new_channel_is_no_new_excuse() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut peer) = world(dir.path(), 20, 20);
    let mut times = 0;
    let dropped = loop {
        peer.offer(0, 20).expect("that is no lie");
        let requests = peer.requests();
        peer.offer(1, 20).expect("that is no lie");
        if requests.iter().any(|request| is_dropped(peer.say(&lie(&author, request)), &author)) {
            break true;
        }
        // It is to say how it is: at first it says nothing, then it lies again.
        if peer
            .requests()
            .iter()
            .filter(|_| times > 0)
            .any(|request| is_dropped(peer.say(&lie(&author, request)), &author))
        {
            break true;
        }
        times += 1;
        if times > 100 {
            break false;
        }
        peer.reopen().expect("anybody may");
    };
    assert!(dropped && times == 1, "{times} times");
}

#[test]
fn an_author_that_cuts_while_it_answers_is_never_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut peer) = world(dir.path(), 0, 40);
    peer.feed.follow_forks(true);
    peer.offer(0, 40).expect("it is honest");
    let mut mixed = 0;
    for cut in 0..60u64 {
        // Some of what was asked is answered in time.
        let requests = peer.requests();
        let (early, late) = requests.split_at(requests.len() * (cut as usize % 3) / 3);
        for request in early {
            peer.say(&honest(&author, request)).expect("it is true");
        }
        author.truncate_now(author.info().length - 1 - cut % 7).expect("an author cuts");
        let start = author.info().length;
        author.write(&(start..40).map(|i| block(i + 1000 * cut, SIZE)).collect::<Vec<_>>()).expect("an author appends");
        peer.offer(author.info().fork, 40).expect("it is honest");
        // What it took from two trees at once.
        for request in late {
            peer.say(&lie(&author, request)).expect("it was asked before");
            mixed += 1;
        }
        // And sometimes it has time to say how it is now.
        for _ in 0..cut % 4 {
            for request in peer.requests() {
                peer.say(&honest(&author, &request)).expect("it is true");
            }
        }
    }
    assert!(mixed > 60, "{mixed} answers were mixed");
    while let requests @ [_, ..] = &peer.requests()[..] {
        for request in requests {
            peer.say(&honest(&author, request)).expect("it is true");
        }
    }
    let info = peer.feed.info();
    assert_eq!((info.fork, info.length, info.blocks_here), (60, 40, 40));
    for i in 0..40 {
        assert_eq!(peer.feed.read(i).expect("it is here"), author.read(i).expect("it wrote it"));
    }
}

#[test]
fn who_answers_another_question_is_dropped() {
    for (known, alter) in [
        (20, (|data| data.fork += 1) as fn(&mut Data)),
        (20, |data| data.block.as_mut().expect("it was asked for").index ^= 1),
        (0, |data| data.fork += 1),
        (10, |data| data.upgrade.as_mut().expect("it was asked for").start -= 1),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, mut peer) = world(dir.path(), known, 20);
        peer.offer(0, 20).expect("that is no lie");
        let request = peer.requests()[0];
        let mut data = truth(&author, &request);
        alter(&mut data);
        assert!(is_dropped(peer.say(&Message::Data(Box::new(data))), &author), "{request:?}");
    }
}

#[test]
fn who_hangs_another_size_on_a_head_is_dropped_and_takes_no_block_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut peer) = world(dir.path(), 20, 30);
    peer.offer(0, 20).expect("it is honest");
    while let requests @ [_, ..] = &peer.requests()[..] {
        requests.iter().for_each(|request| peer.say(&honest(&author, request)).expect("it is true"));
    }
    peer.offer(0, 30).expect("it is honest");
    let request = *peer.requests().iter().find(|request| request.upgrade.is_some()).expect("a head is wanted");
    let mut data = truth(&author, &request);
    let leaf = author.node(20).expect("readable").expect("it has all");
    data.hash = Some(DataHash { index: leaf.index, nodes: vec![Node { size: leaf.size + 1, ..leaf }] });
    assert!(is_dropped(peer.say(&Message::Data(Box::new(data.clone()))), &author));
    assert!(matches!(peer.feed.accept(&data), Err(Refused::TooShort)));
    for i in 0..20 {
        assert_eq!(peer.feed.read(i).expect("it is here"), author.read(i).expect("it wrote it"), "block {i}");
    }
}

#[test]
fn who_contradicts_us_has_to_show_that_the_authors_did_and_is_asked_for_nothing_else() {
    // The newer head, or a block.
    for known in [10, 20] {
        for silent in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let (author, mut peer) = world(dir.path(), known, 20);
            peer.offer(0, 20).expect("that is no lie");
            let requests = peer.requests();
            for request in &requests {
                peer.say(&lie(&author, request)).expect("the author may have told it another history");
            }
            let whole = peer.requests();
            assert!(whole.len() == 1 && whole[0].upgrade.is_some_and(|upgrade| upgrade.start == 0), "{whole:?}");
            for _ in 0..25 {
                peer.wait(Duration::from_secs(1)).expect("there is time");
                peer.offer(0, 20).expect("that is no lie");
            }
            assert_eq!(peer.requests(), []);
            let told = if silent { peer.wait(Duration::from_secs(10)) } else { peer.say(&lie(&author, &whole[0])) };
            assert!(is_dropped(told, &author), "known {known}, silent {silent}");
            assert!(peer.feed.conflict().is_none() && peer.feed.info().blocks_here == 0);
        }
    }
}

#[test]
fn who_goes_back_and_forth_between_forks_is_not_excused_by_what_it_owes() {
    for shows in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, mut peer) = world(dir.path(), 20, 20);
        peer.feed.follow_forks(true);
        peer.offer(0, 20).expect("that is no lie");
        for request in peer.requests() {
            peer.say(&honest(&author, &request)).expect("it is true");
        }
        // To a later fork, of which it may show the head but not where it parts from ours, and back.
        author.truncate_now(10).expect("an author cuts");
        author.write(&(0..10).map(|i| block(i + 1000, SIZE)).collect::<Vec<_>>()).expect("an author appends");
        let early = peer.requests();
        peer.offer(1, 20).expect("that is no lie");
        early.iter().for_each(|request| peer.say(&lie(&author, request)).expect("it was asked before"));
        let whole = peer.requests();
        if shows {
            peer.say(&honest(&author, &whole[0])).expect("it is true");
            assert!(peer.requests()[0].hash.is_some());
        }
        let mut lies = 0;
        let dropped = (0..100).any(|_| {
            is_dropped(peer.offer(0, 20), &author)
                || peer.requests().iter().filter(|request| request.block.is_some()).any(|request| {
                    lies += 1;
                    is_dropped(peer.say(&lie(&author, request)), &author)
                })
                || is_dropped(peer.wait(Duration::from_secs(1)), &author)
        });
        assert!(dropped && (1..=20).contains(&lies), "no more than was under way: {lies}, shows {shows}");
    }
}

#[test]
fn sizes_that_are_shifted_between_siblings_are_no_evidence_against_the_author() {
    for length in 1..20 {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, mut peer) = world(dir.path(), length, length + 1);
        let whole = Request { upgrade: Some(UpgradeRequest { start: 0, length }), ..Request::default() };
        let ours = peer.feed.answer(&whole).expect("its head is here").upgrade.expect("it was asked for");
        peer.offer(0, length + 1).expect("that is no lie");
        let requests = peer.requests();
        let request = requests.iter().find(|request| request.upgrade.is_some()).expect("its head is wanted");
        peer.say(&lie(&author, request)).expect("the author may have told it another history");
        let mut data = truth(&author, &peer.requests()[0]);
        // The sum stays, and with it the signature.
        let theirs = data.upgrade.as_mut().expect("it was asked for");
        theirs.nodes.last_mut().expect("there are blocks").size += 1;
        theirs.additional[0].size -= 1;
        let evidence = |upgrade: &DataUpgrade| {
            let nodes = upgrade.nodes.iter().chain(&upgrade.additional);
            let nodes = nodes.map(|node| (node.index, node.size, node.hash)).collect();
            Evidence { nodes, signature: upgrade.signature.to_vec() }
        };
        let manifest = author.authors().and_then(|authors| authors.to_wire().cloned()).expect("it has one").to_vec();
        let forged = Conflict { manifest, fork: 0, ours: evidence(&ours), theirs: evidence(theirs) };
        assert!(!forged.is_proof(&author.key()), "{length} blocks");
        assert!(is_dropped(peer.say(&Message::Data(Box::new(data))), &author), "{length} blocks");
        assert!(peer.feed.conflict().is_none());
    }
}

#[test]
fn who_fails_and_offers_again_at_once_holds_nobody_up() {
    // It is asked for blocks, or for the first head; it refuses, or keeps silent.
    for (known, silent) in [(20, false), (0, false), (0, true)] {
        let dir = tempfile::tempdir().expect("a folder");
        let (author, mut liar) = world(dir.path(), known, 20);
        let mut other = liar.beside(2);
        liar.offer(0, 20).expect("that is no lie");
        other.offer(0, 20).expect("that is no lie");
        let mut length = 20;
        for time in (0..4000).step_by(20) {
            liar.wait(Duration::from_millis(20)).expect("it is no fault to be slow");
            for _ in 0..5 {
                for Request { id, .. } in liar.requests() {
                    if !silent {
                        length += u64::from(known == 0);
                        liar.say(&Message::NoData { id, reason: None }).expect("anybody may refuse");
                    }
                }
                liar.offer(0, length).expect("that is no lie");
            }
            if time % 500 == 0 {
                other.wait(Duration::from_millis(500)).expect("it is honest");
                while let requests @ [_, ..] = &other.requests()[..] {
                    for request in requests {
                        other.say(&honest(&author, request)).expect("it is true");
                    }
                }
            }
        }
        assert_eq!(liar.feed.info().blocks_here, 20, "known {known}, silent {silent}");
    }
}

#[test]
fn who_looks_for_a_byte_hears_that_its_place_is_known_already() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut peer) = world(dir.path(), 20, 20);
    peer.offer(0, 20).expect("that is no lie");
    for request in peer.requests() {
        peer.say(&honest(&author, &request)).expect("it is true");
    }
    peer.feed.seek(550).expect("its block is here");
    peer.heard();
    let settled = peer.look(550);
    peer.wait(Duration::from_millis(20)).expect("it is honest");
    assert!(settled.has_changed().expect("the plans are there"));
    assert!(peer.requests().iter().all(|request| request.seek.is_none()));
}

#[test]
fn who_proves_its_head_block_by_block_does_not_have_every_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut slow) = world(dir.path(), 5, 100);
    // The same author's, a moment ago.
    let behind = Store::open(dir.path().join("behind")).expect("the folder is free").create(&keypair(1)).expect("room");
    behind.write(&(0..6).map(|i| block(i, SIZE)).collect::<Vec<_>>()).expect("an author appends");
    let mut other = slow.beside(2);
    slow.offer(0, 6).expect("that is no lie");
    other.offer(0, 100).expect("that is no lie");
    let mut turns = 0;
    while slow.feed.info().length < 100 {
        turns += 1;
        assert!(turns < 5, "{:?}", slow.feed.info());
        for request in slow.requests().iter().filter(|request| request.upgrade.is_some()) {
            slow.say(&honest(&behind, request)).expect("it is true");
        }
        let length = behind.info().length;
        behind.write(&[block(length, SIZE)]).expect("an author appends");
        slow.offer(0, length + 1).expect("that is no lie");
        other.wait(Duration::from_millis(20)).expect("it is honest");
        for request in other.requests() {
            other.say(&honest(&author, &request)).expect("it is true");
        }
    }
}

#[test]
fn all_feeds_are_served_in_turn_however_little_at_a_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("the folder is free");
    let (mut peer, mut remote) = (Peer::new(Instant::now(), setup(&store, &Default::default())), Mux::new());
    let mut channels = Vec::new();
    for name in 1..4 {
        let feed = store.create(&keypair(name)).expect("room");
        feed.write(&(0..10).map(|i| block(i, SIZE)).collect::<Vec<_>>()).expect("an author appends");
        let channel = open(&mut remote, &feed.key(), false, &HASH);
        for index in 0..10 {
            let block = Some(NodeRequest { index, nodes: 0 });
            say(&mut remote, channel, &Message::Request(Request { id: index + 1, block, ..Request::default() }));
        }
        channels.push((channel, 0));
    }
    let frames = std::iter::from_fn(|| remote.take_output()).map(Bytes::from).collect();
    assert_eq!(peer.receive(Instant::now(), frames).expect("honest requests"), Rest::None);
    for _ in 0..9 {
        peer.take_output().into_iter().for_each(|frame| remote.receive(frame.into()));
        assert!(peer.serve(Instant::now(), 1).expect("honest requests"), "there are more");
    }
    peer.take_output().into_iter().for_each(|frame| remote.receive(frame.into()));
    while let Some(event) = remote.next().expect("the peer speaks as an honest end does") {
        if let Event::Message { channel, kind, body } = event
            && let Some(Message::Data(_)) = Message::decode(kind, &body).expect("readable")
        {
            channels.iter_mut().filter(|(id, _)| *id == channel).for_each(|(_, answers)| *answers += 1);
        }
    }
    assert!(channels.iter().all(|(_, answers)| *answers == 3), "{channels:?}");
}

#[test]
fn a_true_head_in_another_form_is_no_conflict() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, mut peer) = world(dir.path(), 7, 8);
    // The first of the roots 3, 9 and 12 stands in another part of the answer.
    let whole = Request { upgrade: Some(UpgradeRequest { start: 0, length: 7 }), ..Request::default() };
    let mut data = peer.feed.answer(&whole).expect("its head is here");
    let upgrade = data.upgrade.as_mut().expect("it was asked for");
    data.hash = Some(DataHash { index: 3, nodes: vec![upgrade.nodes.remove(0)] });
    let in_parts = |id, fork| Message::Data(Box::new(Data { id, fork, ..data.clone() }));
    peer.say(&in_parts(0, 0)).expect("it is ignored");
    assert_eq!(peer.feed.conflict(), None);
    // The same to a question for it.
    peer.offer(0, 8).expect("that is no lie");
    let request = *peer.requests().iter().find(|request| request.upgrade.is_some()).expect("a head is wanted");
    peer.say(&lie(&author, &request)).expect("the author may have told it another history");
    let request = peer.requests()[0];
    assert!(is_dropped(peer.say(&in_parts(request.id, request.fork)), &author));
    assert_eq!(peer.feed.conflict(), None);
}

#[test]
fn what_proves_nothing_on_the_disk_stops_no_feed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, peer) = world(dir.path(), 7, 7);
    let key = peer.feed.key();
    let evidence = Evidence { nodes: vec![(3, 400, [1; 32])], signature: vec![2; 66] };
    let conflict = Conflict { manifest: vec![], fork: 0, ours: evidence.clone(), theirs: evidence }.encode();
    drop(peer);
    let hash = blake2b_simd::Params::new().hash_length(32).hash(&conflict);
    let path = dir.path().join(format!("reader/feeds/{}/conflict", key.discovery()));
    std::fs::write(path, [&conflict, hash.as_bytes()].concat()).expect("there is room");
    let store = Store::open(dir.path().join("reader")).expect("the folder is free");
    assert_eq!(store.feed(&key).expect("it is there").conflict(), None);
}

#[test]
fn a_block_that_is_too_large_is_not_stored_though_its_author_signed_it() {
    let (author, manifest) = (SigningKey::from_bytes(&[1; 32]), keypair(1).manifest());
    let key = keypair(1).feed_key(&manifest);
    // Encrypted blocks may have a little more than others.
    let most = datdot_hypercore::feed::MAX_BLOCK + datdot_hypercore::encryption::PADDING;
    let value = Bytes::from(vec![7; most + 1]);
    let roots = Roots::from_nodes(&[Node::leaf(0, &value)]).expect("one block");
    let signable = Head { fork: 0, length: 1, tree_hash: roots.tree_hash() }.signable(&key.0, &manifest);
    let roots = roots.nodes().iter().map(|node| Root { hash: node.hash, size: node.size }).collect();
    let signature = author.sign(&signable).to_bytes();
    let head = SignedHead { fork: 0, length: 1, roots, manifest, signature };
    let dir = tempfile::tempdir().expect("a folder");
    let feed = Store::open(dir.path()).expect("the folder is free").open_remote(key, Some(head)).expect("it signed");
    let data = Data { block: Some(DataBlock { index: 0, value, nodes: vec![] }), ..Data::default() };
    let told = feed.accept(&data);
    assert!(matches!(told, Err(Refused::Feed(FeedError::TooLarge { bytes })) if bytes == most + 1), "{told:?}");
}

/// A remote that calls a network, says that it has the whole feed and answers as it likes, as long as it is listened to.
async fn play(reader: &Network, keys: &noise::Keypair, feed: &Feed, answer: impl Fn(&Feed, &Request) -> Message) {
    let socket = TcpStream::connect(reader.local_addr().expect("it listens")).await.expect("it listens");
    let mut remote = connection::connect(socket, keys, None, &Default::default()).await.expect("a handshake");
    let (mut mux, length) = (Mux::new(), feed.info().length);
    let channel = open(&mut mux, &feed.key(), true, &remote.handshake_hash);
    let sync = Message::Sync(Sync { uploading: true, length, ..Sync::default() });
    for message in [sync, Message::Range { drop: false, start: 0, length }] {
        say(&mut mux, channel, &message);
    }
    loop {
        for frame in std::iter::from_fn(|| mux.take_output()) {
            remote.writer.queue(&frame).expect("small");
        }
        _ = remote.writer.flush().await;
        let Ok(Some(frame)) = soon(remote.reader.next()).await else { break };
        mux.receive(frame);
        while let Some(event) = mux.next().expect("readable") {
            if let Event::Message { kind, body, .. } = event
                && let Some(Message::Request(request)) = Message::decode(kind, &body).expect("readable")
            {
                say(&mut mux, channel, &answer(feed, &request));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lies_about_sizes_does_not_shift_what_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, feed) = author(dir.path(), 20, SIZE).await;
    let reader = network(dir.path(), 2).await;
    let copy = reader.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    // Otherwise the channel may be open, and closed again, before anything is wanted.
    let _wanted = reader.download(&copy, Want::blocks(0..0));
    let (shifted, lies) = (30, AtomicUsize::new(0));
    let lie = |author: &Feed, request: &Request| {
        let mut data = truth(author, request);
        if request.seek.is_some() {
            // Between leaves, of which only the sum is signed.
            let all = data.hash.iter_mut().flat_map(|hash| &mut hash.nodes);
            let all = all.chain(data.seek.iter_mut().flat_map(|seek| &mut seek.nodes));
            for node in all.filter(|node| flat::depth(node.index) == 0) {
                let left = node.index < flat::sibling(node.index);
                node.size = if left { node.size + shifted } else { node.size - shifted };
                lies.fetch_add(1, Ordering::AcqRel);
            }
        }
        Message::Data(Box::new(data))
    };
    let blocks: Vec<u8> = (0..20).flat_map(|i| block(i, SIZE)).collect();
    let read = async {
        // Ranges that begin and end within blocks; the last one has all.
        for range in [550..750, 110..120, 1110..1200, 0..2000] {
            let mut bytes = Vec::new();
            soon(reader.reader(&copy, range.clone()).read_to_end(&mut bytes)).await.expect("its blocks come");
            assert!(bytes == blocks[range.start as usize..range.end as usize], "{range:?}");
        }
    };
    let keys = noise::Keypair::from_seed(&[9; 32]);
    tokio::select! {
        () = play(&reader, &keys, &feed, lie) => panic!("nobody is dropped for it"),
        () = read => {}
    }
    assert!(lies.load(Ordering::Acquire) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_drops_a_liar_says_so_and_fetches_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, feed) = author(dir.path(), 20, SIZE).await;
    let reader = network(dir.path(), 2).await;
    let copy = reader.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let mut download = reader.download(&copy, Want::blocks(0..20));
    let mut events = reader.events();

    let keys = noise::Keypair::from_seed(&[9; 32]);
    play(&reader, &keys, &feed, lie).await;
    loop {
        if let PeerEvent::Ended(peer, why) = soon(events.recv()).await.expect("it is told") {
            assert_eq!(peer.remote, keys.public());
            assert!(matches!(&*why, Ended::Fault(Fault::False { feed, .. }) if *feed == copy.key()), "{why}");
            break;
        }
    }
    assert_eq!(copy.info().blocks_here, 0);
    connect(&reader, &author).await;
    soon(download.done()).await.expect("the author has them");
}
