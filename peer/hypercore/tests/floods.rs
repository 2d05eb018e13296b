//! Remotes that make much of few bytes, played by hand: what they cost us.

mod support;
use bytes::Bytes;
use datdot_hypercore::{
    Config, Fault, Feed, Network, Store,
    messages::{Message, NodeRequest, Request, Sync, Wanted},
    peer::{Peer, Rest},
};
use datdot_wire::{
    connection::{self, Connection, FrameWriter, Options},
    encoding::Writer,
    mux::{Event, Mux},
    noise::{self, Role},
};
use std::{
    future::pending,
    time::{Duration, Instant},
};
use support::{
    played::{HASH, Played, open, say, setup},
    *,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, copy, duplex},
    net::TcpStream,
    time::{sleep, timeout},
};

const LENGTH: u64 = 20;

fn world(dir: &std::path::Path) -> (Feed, Played) {
    let author = Store::open(dir.join("author")).expect("the folder is free").create(&keypair(1)).expect("room");
    author.write(&(0..LENGTH).map(|i| block(i, 100)).collect::<Vec<_>>()).expect("an author appends");
    let peer = Played::new(&dir.join("peer"), author.key(), Some(&author));
    (author, peer)
}

#[test]
fn what_is_too_much_for_one_step_takes_several() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    assert_eq!(peer.steps, 1);
    let range = |drop| Message::Range { drop, start: 1 << 20, length: 1 << 23 };
    let ranges: Vec<_> = (0..2000).map(|i| range(i % 2 == 0)).collect();
    peer.say_all(&ranges).expect("silly is not false");
    assert!(peer.steps > 3, "{} steps", peer.steps);
    // The last word of it was heard.
    let question = Message::Request(Request { id: 7, fork: 3, ..Request::default() });
    peer.say_all(&[&ranges[..], &[question]].concat()).expect("silly is not false");
    let refused = |message: &Message| matches!(message, Message::NoData { id: 7, .. });
    assert!(peer.heard().iter().any(refused));
}

#[test]
fn lengths_in_a_row_are_answered_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    peer.heard();
    let sync = |length| Message::Sync(Sync { uploading: true, downloading: true, length, ..Sync::default() });
    peer.say_all(&(1..200).map(sync).collect::<Vec<_>>()).expect("silly is not false");
    let answers = peer.heard().into_iter().filter_map(|message| match message {
        Message::Sync(sync) => Some(sync.remote_length),
        _ => None,
    });
    assert_eq!((answers.collect::<Vec<_>>(), peer.steps), (vec![199], 1));
}

fn want(i: u64) -> Message {
    Message::Want(Wanted { start: 32 * i, length: 1 << 21, any: false })
}

/// A request that can't be answered: of another fork.
fn ask(id: u64) -> Message {
    Message::Request(Request { id, fork: 3, ..Request::default() })
}

#[test]
fn answers_take_their_turns_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    peer.heard();
    let all: Vec<_> = (0..512).map(want).chain((1..=1024).map(ask)).collect();
    peer.say_all(&all).expect("that much is allowed");
    let refused = |heard: Vec<Message>| heard.iter().filter(|said| matches!(said, Message::NoData { .. })).count();
    let mut answered = refused(peer.heard());
    assert!(answered < 1024, "they take a second");
    while answered < 1024 {
        peer.say_all(&[]).expect("it waits");
        let more = refused(peer.heard());
        assert!(more < 1024);
        answered += more;
    }
}

#[test]
fn a_request_does_not_wait_for_all_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    peer.heard();
    // More than a step answers.
    let all: Vec<_> = (0..512).map(want).chain((1..=50).map(ask)).collect();
    peer.say_all(&all).expect("that much is allowed");
    assert_eq!(peer.heard().iter().filter(|said| matches!(said, Message::NoData { .. })).count(), 50);
}

#[test]
fn who_wants_to_hear_about_too_many_ranges_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    let want = |i: u64| Message::Want(Wanted { start: 32 * i, length: 32, any: false });
    let wants: Vec<_> = (0..512).map(want).collect();
    peer.say_all(&wants).expect("that much is allowed");
    let told = (1..=16).try_for_each(|name| {
        peer.open_another(name)?;
        peer.say_all(&wants)
    });
    assert!(matches!(told, Err(Fault::Misbehaviour(_))), "{told:?}");
}

/// What the peer has answered.
fn answers(remote: &mut Mux) -> usize {
    let events = std::iter::from_fn(|| remote.next().expect("the peer speaks as an honest end does"));
    let messages = events.filter_map(|event| match event {
        Event::Message { kind, body, .. } => Message::decode(kind, &body).expect("readable"),
        _ => None,
    });
    messages.filter(|message| matches!(message, Message::Data(_) | Message::NoData { .. })).count()
}

/// More requests than may wait: JavaScript's mirror-drive asks for a whole file at once.
const MANY: usize = 40_000;

#[test]
fn who_asks_for_much_at_once_is_read_as_far_as_it_is_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("the folder is free");
    let (mut peer, mut remote) = (Peer::new(Instant::now(), setup(&store, &Default::default())), Mux::new());
    let channels = [1, 2, 3, 4].map(|name| {
        let key = store.create(&keypair(name)).expect("room").key();
        open(&mut remote, &key, false, &HASH)
    });
    for id in 1..=(MANY / channels.len()) as u64 {
        channels.iter().for_each(|channel| {
            say(&mut remote, *channel, &Message::Request(Request { id, fork: 3, ..Request::default() }));
        });
    }
    let mut frames: Vec<_> = std::iter::from_fn(|| remote.take_output()).map(Bytes::from).collect();
    let (mut answered, mut waited) = (0, false);
    while answered < MANY {
        let mut rest = Rest::Some;
        while rest == Rest::Some {
            rest = peer.receive(Instant::now(), std::mem::take(&mut frames)).expect("it is honest");
        }
        waited |= rest == Rest::Waits;
        assert!(peer.has_requests(), "{answered} answered, and nothing more");
        peer.serve(Instant::now(), 1 << 16).expect("it is honest");
        peer.take_output().into_iter().for_each(|frame| remote.receive(frame.into()));
        answered += answers(&mut remote);
    }
    assert!(waited);
    assert_eq!((answered, peer.rest(), peer.has_requests()), (MANY, Rest::None, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_may_wait_gets_all_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (network, feed) = author(dir.path(), LENGTH, 1000).await;
    let socket = TcpStream::connect(network.local_addr().expect("it listens")).await.expect("it listens");
    let keys = noise::Keypair::from_seed(&[9; 32]);
    let mut remote = connection::connect(socket, &keys, None, &Default::default()).await.expect("a handshake");
    let mut mux = Mux::new();
    let channel = open(&mut mux, &feed.key(), true, &remote.handshake_hash);
    say(&mut mux, channel, &Message::Sync(Sync { downloading: true, ..Sync::default() }));
    for id in 1..=MANY as u64 {
        let block = Some(NodeRequest { index: id % LENGTH, nodes: 0 });
        say(&mut mux, channel, &Message::Request(Request { id, block, ..Request::default() }));
        // In many frames, as JavaScript says it.
        if id % 100 == 0 {
            mux.take_output().into_iter().for_each(|frame| remote.writer.queue(&frame).expect("small"));
        }
    }
    let mut answered = 0;
    while answered < MANY {
        // What does not fit on the way now is written while answers are read.
        tokio::select! {
            biased;
            written = remote.writer.flush(), if remote.writer.queued() > 0 => written.expect("it listens"),
            frame = soon(remote.reader.next()) => {
                mux.receive(frame.expect("it is honest").expect("it goes on"));
                answered += answers(&mut mux);
            }
        }
    }
    assert_eq!(answered, MANY);
}

#[test]
fn who_asks_for_all_of_it_in_one_frame_is_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("the folder is free");
    let (mut peer, mut remote) = (Peer::new(Instant::now(), setup(&store, &Default::default())), Mux::new());
    let key = store.create(&keypair(1)).expect("room").key();
    open(&mut remote, &key, false, &HASH);
    let opening = remote.take_output().expect("it opened").into();
    assert_eq!(peer.receive(Instant::now(), vec![opening]).expect("it is honest"), Rest::None);
    // A batch on the first channel.
    let mut frame = Writer::default();
    frame.uint(0).uint(0).uint(1);
    for id in 1..1_000_000 {
        let (kind, body) = Message::Request(Request { id, fork: 3, ..Request::default() }).encode();
        let mut message = Writer::default();
        message.uint(kind).raw(&body);
        frame.buffer(message.as_slice());
    }
    let mut frames = vec![Bytes::from(frame.into_vec())];
    assert!(frames[0].len() < 16 << 20);
    let told = loop {
        match peer.receive(Instant::now(), std::mem::take(&mut frames)) {
            Ok(Rest::Some) => {}
            told => break told,
        }
    };
    assert!(matches!(told, Err(Fault::Misbehaviour(_))), "{told:?}");
}

#[test]
fn what_brings_nothing_takes_its_steps_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("the folder is free");
    let mut peer = Peer::new(Instant::now(), setup(&store, &Default::default()));
    // Of a kind that nobody knows, on a channel that nobody opened.
    let mut frame = vec![0, 0, 7];
    (0..1_000_000).for_each(|_| frame.extend([1, 99]));
    let (mut frames, mut steps) = (vec![Bytes::from(frame)], 1);
    while peer.receive(Instant::now(), std::mem::take(&mut frames)).expect("silly is not false") == Rest::Some {
        steps += 1;
    }
    assert!(steps > 50, "{steps} steps");
}

/// A network with a feed of which few answers are what a remote may leave unread.
async fn seeder(dir: &std::path::Path, connection: Options) -> (Network, Feed) {
    let store = Store::open(dir).expect("the folder is free");
    let feed = store.create(&keypair(1)).expect("room");
    append(&feed, LENGTH, 64 << 10).await;
    let (listen, keys) = (Some(([127, 0, 0, 1], 0).into()), noise::Keypair::from_seed(&[1; 32]));
    (Network::start(store, Config { listen, connection, ..Config::new(keys) }).await.expect("a free port"), feed)
}

/// A batch with a message of a kind that nobody knows, and more requests than may wait.
fn requests(unknown: usize) -> Vec<u8> {
    let mut frame = Writer::default();
    frame.uint(0).uint(0).uint(1);
    frame.buffer(&vec![99; unknown]);
    for id in 1..=MANY as u64 {
        let block = Some(NodeRequest { index: id % LENGTH, nodes: 0 });
        let (kind, body) = Message::Request(Request { id, block, ..Request::default() }).encode();
        let mut message = Writer::default();
        message.uint(kind).raw(&body);
        frame.buffer(message.as_slice());
    }
    frame.into_vec()
}

async fn ask_and_read_nothing<W: AsyncWrite + Unpin>(
    feed: &Feed,
    hash: &[u8; 64],
    to: &mut FrameWriter<W>,
    text: &[u8],
) {
    let mut mux = Mux::new();
    let channel = open(&mut mux, &feed.key(), true, hash);
    say(&mut mux, channel, &Message::Sync(Sync { downloading: true, ..Sync::default() }));
    to.queue(&mux.take_output().expect("it opened")).expect("small");
    to.queue(text).expect("a frame");
}

/// Until all of the memory for large frames is free.
async fn is_free(options: &Options, all: usize) {
    let free = async {
        while options.budget.available() < all {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), free).await.expect("others need it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answers_to_a_large_frame_keeps_nothing_of_the_memory_that_all_share() {
    let (dir, options) = (tempfile::tempdir().expect("a folder"), Options::default());
    let all = options.budget.available();
    let (network, feed) = seeder(dir.path(), options.clone()).await;
    let socket = TcpStream::connect(network.local_addr().expect("it listens")).await.expect("it listens");
    let keys = noise::Keypair::from_seed(&[9; 32]);
    let mut remote = connection::connect(socket, &keys, None, &Options::default()).await.expect("a handshake");
    ask_and_read_nothing(&feed, &remote.handshake_hash, &mut remote.writer, &requests(14 << 20)).await;
    // More than the sockets hold: it has its share.
    remote.writer.flush().await.expect("it is read");
    is_free(&options, all).await;
    assert_eq!(network.peers().len(), 1, "it may take its time");
    // What waited is answered in the end.
    let (mut answered, mut mux) = (0, Mux::new());
    open(&mut mux, &feed.key(), true, &remote.handshake_hash);
    while answered < 3 * MANY / 4 {
        mux.receive(soon(remote.reader.next()).await.expect("it is honest").expect("it goes on"));
        answered += answers(&mut mux);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answers_has_to_go_on_with_the_large_frame_that_it_began() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { frame: Duration::from_secs(2), ..Options::default() };
    let all = options.budget.available();
    let (network, feed) = seeder(dir.path(), options.clone()).await;
    let ((their_out, from_them), (mut to_us, our_in), (our_out, their_in)) =
        (duplex(16 << 20), duplex(16 << 20), duplex(64 << 10));
    // The second half never comes.
    let link = tokio::spawn(async move {
        copy(&mut from_them.take(8 << 20), &mut to_us).await.expect("it is read");
        pending::<()>().await;
    });
    let (our_keys, keys) = (noise::Keypair::from_seed(&[1; 32]), noise::Keypair::from_seed(&[9; 32]));
    let ours = Connection::handshake(our_in, our_out, Role::Responder, &our_keys, None, &options);
    let theirs = Connection::handshake(their_in, their_out, Role::Initiator, &keys, None, &options);
    let (ours, mut remote) = tokio::try_join!(ours, theirs).expect("honest peers");
    ask_and_read_nothing(&feed, &remote.handshake_hash, &mut remote.writer, &requests(1)).await;
    remote.writer.queue(&vec![0; 14 << 20]).expect("a frame");
    remote.writer.flush().await.expect("the pipe has room");
    network.attach(ours).expect("a place");
    sleep(Duration::from_secs(1)).await;
    is_free(&options, all).await;
    link.abort();
}
