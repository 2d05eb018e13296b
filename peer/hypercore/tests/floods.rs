//! Remotes that make much of few bytes, played by hand: what they cost us.

mod support;
use datdot_hypercore::{
    Fault, Feed, Store,
    messages::{Message, Request, Sync, Wanted},
};
use support::{played::Played, *};

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

#[test]
fn answers_take_their_turns_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_author, mut peer) = world(dir.path());
    peer.offer(0, LENGTH).expect("it is honest");
    peer.heard();
    let want = |i: u64| Message::Want(Wanted { start: 32 * i, length: 1 << 21, any: false });
    let ask = |id| Message::Request(Request { id, fork: 3, ..Request::default() });
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
