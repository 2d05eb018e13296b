//! The multiplexer against itself, against frames recorded from JavaScript, and against garbage.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use datdot_wire::mux::{ChannelError, ChannelId, Event, MAX_BATCH, MAX_BODY, MAX_BUFFERED, Mux, MuxError};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

fn hex(text: &str) -> Bytes {
    hex::decode(text).unwrap().into()
}

fn frames(mux: &mut Mux) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| mux.take_output()).collect()
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.next().unwrap()).collect()
}

/// Sends everything that `from` has queued.
fn pass(from: &mut Mux, to: &mut Mux) -> Vec<Event> {
    frames(from).into_iter().for_each(|frame| to.receive(frame.into()));
    events(to)
}

/// A channel that both have open, as each of them names it.
fn pair(a: &mut Mux, b: &mut Mux, protocol: &str) -> (ChannelId, ChannelId) {
    let ours = a.open(protocol, b"", b"").unwrap();
    assert!(matches!(pass(a, b)[..], [Event::OpenRequested { .. }]));
    let theirs = b.open(protocol, b"", b"").unwrap();
    assert_eq!(events(b), [Event::Opened { channel: theirs, handshake: Bytes::new() }]);
    assert_eq!(pass(b, a), [Event::Opened { channel: ours, handshake: Bytes::new() }]);
    (ours, theirs)
}

#[test]
fn messages_that_bring_nothing_are_counted() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (ours, _) = pair(&mut a, &mut b, "chat");
    // To a channel that nobody opened, of a kind that nobody knows, and changes of the channel between.
    let mut frame = vec![0, 0, 0];
    (0..5000).for_each(|_| frame.extend([0, 5, 1, 9, 0, 0, 1, 9]));
    b.receive(frame.into());
    a.send(ours, 0, b"after all that").unwrap();
    let mut skipped = 0;
    for event in pass(&mut a, &mut b) {
        match event {
            Event::Skipped { messages } => skipped += messages,
            event => assert!(matches!(&event, Event::Message { body, .. } if body == "after all that")),
        }
    }
    assert!((19_900..=20_000).contains(&skipped), "{skipped}");
}

#[test]
fn what_is_not_read_can_be_kept_without_its_frames() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (ours, _) = pair(&mut a, &mut b, "chat");
    let mut received = Vec::new();
    for frame in 0..3 {
        (0..100u8).for_each(|i| a.send(ours, frame, &[i]).unwrap());
        received.push(Bytes::from(a.take_output().unwrap()));
        b.receive(received[frame as usize].clone());
    }
    for next in 0..150 {
        let event = b.next().unwrap();
        let body = [(next % 100) as u8];
        assert!(matches!(event, Some(Event::Message { kind, body: b, .. }) if kind == next / 100 && b[..] == body));
    }
    let unread = b.input_len();
    b.copy_input();
    assert!(received.iter().all(Bytes::is_unique) && b.input_len() == unread);
    a.send(ours, 3, &[0]).unwrap();
    b.receive(a.take_output().unwrap().into());
    let rest = events(&mut b).into_iter().map(|event| match event {
        Event::Message { kind, body, .. } => kind * 100 + u64::from(body[0]),
        event => panic!("{event:?}"),
    });
    assert!(rest.eq(150..=300));
}

/// Recorded from protomux 3.12.1: two channels, `chat` with an id and a handshake, and `log` with neither.
#[test]
fn frames_of_javascript_are_understood() {
    let mut mux = Mux::new();
    mux.receive(hex("000101046368617404726f6f6d0568656c6c6f"));
    let [Event::OpenRequested { protocol, id, handshake, .. }] = &events(&mut mux)[..] else { panic!() };
    assert_eq!((&protocol[..], &id[..], &handshake[..]), ("chat", &b"room"[..], &b"\x05hello"[..]));
    let chat = mux.open("chat", b"room", b"\x02hi").unwrap();
    assert_eq!(hex::encode(mux.take_output().unwrap()), "0000000f01010463686174".to_owned() + "04726f6f6d026869");

    mux.receive(hex("0100026869"));
    mux.receive(hex("0101fd2c01"));
    mux.receive(hex("000000070102036c6f670000010500036f6e6505000374776f000201000400010203"));
    let message = |channel, kind, body: &[u8]| Event::Message { channel, kind, body: Bytes::copy_from_slice(body) };
    let opened = Event::Opened { channel: chat, handshake: Bytes::from_static(b"\x05hello") };
    assert_eq!(mux.next(), Ok(Some(opened)));
    assert_eq!(mux.next(), Ok(Some(message(chat, 0, b"\x02hi"))));
    assert_eq!(mux.next(), Ok(Some(message(chat, 1, &[0xfd, 0x2c, 1]))));
    assert!(matches!(mux.next(), Ok(Some(Event::OpenRequested { protocol, .. })) if protocol == "log"));
    let log = mux.open("log", b"", b"").unwrap();
    assert_eq!(mux.next(), Ok(Some(Event::Opened { channel: log, handshake: Bytes::new() })));
    for (channel, body) in [(chat, &b"\x03one"[..]), (chat, b"\x03two"), (log, b""), (log, &[1, 2, 3])] {
        assert_eq!(mux.next(), Ok(Some(message(channel, 0, body))));
    }
    mux.receive(hex("000301"));
    mux.receive(hex("000302"));
    assert_eq!(events(&mut mux), [Event::Closed { channel: chat }, Event::Closed { channel: log }]);
    assert_eq!(mux.channels(), 0);
}

#[test]
fn an_unknown_protocol_is_rejected_and_the_rest_goes_on() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (chat, _) = pair(&mut a, &mut b, "chat");
    let wakeup = a.open("wakeup", b"id", b"").unwrap();
    a.send(wakeup, 0, b"lost").unwrap();
    a.send(chat, 0, b"kept").unwrap();
    frames(&mut a).into_iter().for_each(|frame| b.receive(frame.into()));
    let Some(Event::OpenRequested { request, .. }) = b.next().unwrap() else { panic!() };
    b.reject(request);
    assert!(matches!(&events(&mut b)[..], [Event::Message { body, .. }] if body == "kept"));
    assert_eq!(pass(&mut b, &mut a), [Event::Rejected { channel: wakeup }]);
    assert_eq!(a.send(wakeup, 0, b""), Err(ChannelError::Closed));
    assert!(a.is_alive(chat));
}

#[test]
fn openings_of_both_sides_cross_and_pair_in_order() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let ours = [a.open("x", b"", b"a0").unwrap(), a.open("x", b"", b"a1").unwrap()];
    let theirs = [b.open("x", b"", b"b0").unwrap(), b.open("x", b"", b"b1").unwrap()];
    let (to_b, to_a) = (frames(&mut a), frames(&mut b));
    to_b.into_iter().for_each(|frame| b.receive(frame.into()));
    to_a.into_iter().for_each(|frame| a.receive(frame.into()));
    let opened = |channel, said: &'static str| Event::Opened { channel, handshake: said.into() };
    assert_eq!(events(&mut a), [opened(ours[0], "b0"), opened(ours[1], "b1")]);
    assert_eq!(events(&mut b), [opened(theirs[0], "a0"), opened(theirs[1], "a1")]);
}

#[test]
fn a_channel_reopens_under_its_old_number_and_old_names_stay_dead() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (old, theirs) = pair(&mut a, &mut b, "x");
    a.close(old);
    let new = a.open("x", b"", b"").unwrap();
    assert_eq!(a.channels(), 1);
    assert_eq!(a.send(old, 0, b""), Err(ChannelError::Closed));
    b.send(theirs, 0, b"sent before the close was seen").unwrap();
    assert_eq!(pass(&mut b, &mut a), []);
    assert!(
        matches!(pass(&mut a, &mut b)[..], [Event::Closed { channel }, Event::OpenRequested { .. }] if channel == theirs)
    );
    let again = b.open("x", b"", b"").unwrap();
    b.send(again, 0, b"news").unwrap();
    assert_eq!(a.next(), Ok(None));
    assert!(
        matches!(&pass(&mut b, &mut a)[..], [Event::Opened { channel, .. }, Event::Message { .. }] if *channel == new)
    );
}

#[test]
fn a_channel_closed_before_the_answer_keeps_its_number_until_then() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let early = a.open("x", b"", b"").unwrap();
    a.close(early);
    assert_eq!(a.channels(), 1);
    // The request is withdrawn before it is decided, so b answers by itself.
    assert!(matches!(pass(&mut a, &mut b)[..], [Event::OpenRequested { .. }]));
    assert_eq!(pass(&mut b, &mut a), []);
    assert_eq!(a.channels(), 0);
    // The same, but b had opened too.
    let early = a.open("x", b"", b"").unwrap();
    a.close(early);
    let theirs = b.open("x", b"", b"").unwrap();
    let opened = Event::Opened { channel: theirs, handshake: Bytes::new() };
    assert_eq!(pass(&mut a, &mut b), [opened, Event::Closed { channel: theirs }]);
    assert_eq!(pass(&mut b, &mut a), []);
    assert_eq!((a.channels(), b.channels()), (0, 0));
}

#[test]
fn data_ahead_of_the_decision_is_kept_up_to_a_limit() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let small = a.open("small", b"", b"").unwrap();
    a.send(small, 3, b"early").unwrap();
    let large = a.open("large", b"", b"").unwrap();
    a.send(large, 0, &[0; MAX_BUFFERED]).unwrap();
    assert_eq!(pass(&mut a, &mut b).len(), 2);
    let opened = b.open("small", b"", b"").unwrap();
    let early = Event::Message { channel: opened, kind: 3, body: "early".into() };
    assert_eq!(events(&mut b)[1..], [early]);
    assert_eq!(pass(&mut b, &mut a).first(), Some(&Event::Rejected { channel: large }));
}

#[test]
fn answers_go_out_in_batches_of_bounded_size() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    let (ours, theirs) = pair(&mut a, &mut b, "x");
    for n in 0..100u8 {
        a.send_around(ours, 1, &[n, 9], (1, &vec![7; 9_999].into())).unwrap();
    }
    a.send(ours, 1, &vec![8; MAX_BODY]).unwrap();
    assert_eq!(a.send(ours, 1, &vec![8; MAX_BODY + 1]), Err(ChannelError::TooLarge(MAX_BODY + 1)));
    let queued = a.output_len();
    let sent = frames(&mut a);
    assert_eq!(sent.iter().map(Vec::len).sum::<usize>(), queued);
    assert_eq!((sent.len(), a.output_len()), (5, 0));
    assert!(sent[..4].iter().all(|frame| frame.len() <= MAX_BATCH + 64));
    assert!(sent[4].len() + 17 < 1 << 24);
    sent.into_iter().for_each(|frame| b.receive(frame.into()));
    for n in 0..100 {
        let Some(Event::Message { channel, body, .. }) = b.next().unwrap() else { panic!() };
        assert_eq!((channel, body.len()), (theirs, 10_001));
        assert_eq!((body[0], &body[1..10_000], body[10_000]), (n, &[7; 9_999][..], 9));
    }
    assert!(matches!(b.next(), Ok(Some(Event::Message { body, .. })) if body.len() == MAX_BODY));
}

#[test]
fn broken_rules_end_the_connection() {
    for (frame, error) in [
        ("0001020178", MuxError::InvalidOpen(2)),
        ("000201", MuxError::InvalidReject(1)),
        ("000200", MuxError::InvalidReject(0)),
        ("000000020000", MuxError::NestedBatch),
    ] {
        let mut mux = Mux::new();
        mux.receive(hex(frame));
        assert_eq!(mux.next(), Err(error), "{frame}");
    }
    for truncated in ["00", "0001", "000101", "0000", "00000005", "0000000102", "fd"] {
        let mut mux = Mux::new();
        mux.receive(hex(truncated));
        assert!(matches!(mux.next(), Err(MuxError::Decode(_))), "{truncated}");
    }
    let mut mux = Mux::new();
    mux.receive(hex("00010101780000"));
    mux.receive(hex("00010101780000"));
    assert!(mux.next().is_ok());
    assert_eq!(mux.next(), Err(MuxError::InvalidOpen(1)));
}

#[test]
fn what_is_not_known_is_ignored() {
    let mut mux = Mux::new();
    for frame in ["", "0500", "0009ff", "000309", "000300"] {
        mux.receive(hex(frame));
    }
    assert_eq!(mux.next(), Ok(None));
    assert_eq!(mux.take_output(), None);
}

#[test]
fn an_alias_is_answered_under_its_target() {
    let (mut a, mut b) = (Mux::new(), Mux::new());
    b.alias("hypercore", "hypercore/alpha");
    a.open("hypercore", b"k", b"").unwrap();
    assert!(
        matches!(&pass(&mut a, &mut b)[..], [Event::OpenRequested { protocol, .. }] if protocol == "hypercore/alpha")
    );
    let ours = b.open("hypercore/alpha", b"k", b"").unwrap();
    assert_eq!(events(&mut b), [Event::Opened { channel: ours, handshake: Bytes::new() }]);
}

/// What one side does next in a random run; indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    Close(usize),
    Send(usize),
    Decide { accept: bool },
    Deliver,
}

#[derive(Default)]
struct Side {
    mux: Mux,
    channels: Vec<ChannelId>,
    requests: Vec<Event>,
    inbox: VecDeque<Vec<u8>>,
    sent: u64,
    last: BTreeMap<ChannelId, u64>,
}

impl Side {
    fn act(&mut self, step: &Step) {
        match step {
            Step::Open(name) => self.channels.push(self.mux.open("p", &[*name], b"").unwrap()),
            Step::Close(n) if !self.channels.is_empty() => {
                let channel = self.channels.swap_remove(n % self.channels.len());
                self.mux.close(channel);
            }
            Step::Send(n) if !self.channels.is_empty() => {
                self.sent += 1;
                let channel = self.channels[n % self.channels.len()];
                self.mux.send(channel, 0, &self.sent.to_le_bytes()).unwrap();
            }
            Step::Decide { accept } if !self.requests.is_empty() => {
                let Event::OpenRequested { request, protocol, id, .. } = self.requests.remove(0) else { panic!() };
                match accept {
                    true => self.channels.push(self.mux.open(&protocol, &id, b"").unwrap()),
                    false => self.mux.reject(request),
                }
            }
            Step::Deliver => self.inbox.drain(..).for_each(|frame| self.mux.receive(frame.into())),
            _ => {}
        }
        while let Some(event) = self.mux.next().expect("an honest remote breaks no rule") {
            match event {
                Event::OpenRequested { .. } => self.requests.push(event),
                Event::Opened { channel, .. } => assert!(self.channels.contains(&channel)),
                Event::Message { channel, body, .. } => {
                    assert!(self.channels.contains(&channel));
                    let n = u64::from_le_bytes(body[..].try_into().unwrap());
                    assert!(self.last.insert(channel, n) < Some(n), "messages of a channel keep their order");
                }
                Event::Closed { channel } | Event::Rejected { channel } => {
                    let at = self.channels.iter().position(|other| *other == channel);
                    self.channels.swap_remove(at.expect("a dead channel isn't reported twice"));
                }
                Event::Skipped { .. } => {}
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3u8).prop_map(Step::Open),
        2 => any::<usize>().prop_map(Step::Close),
        4 => any::<usize>().prop_map(Step::Send),
        3 => any::<bool>().prop_map(|accept| Step::Decide { accept }),
        4 => Just(Step::Deliver),
    ]
}

proptest! {
    #[test]
    fn honest_sides_never_break_a_rule_and_end_alike(plan in prop::collection::vec((any::<bool>(), step()), 0..300)) {
        let mut sides = [Side::default(), Side::default()];
        let flush = |sides: &mut [Side; 2]| for me in 0..2 {
            let out = frames(&mut sides[me].mux);
            sides[1 - me].inbox.extend(out);
        };
        for (me, step) in &plan {
            sides[usize::from(*me)].act(step);
            flush(&mut sides);
        }
        // Decide what is open and deliver until nothing moves.
        for _ in 0..2 * plan.len() + 4 {
            for side in &mut sides {
                side.act(&Step::Deliver);
                side.act(&Step::Decide { accept: false });
            }
            flush(&mut sides);
        }
        prop_assert_eq!(sides[0].channels.len(), sides[1].channels.len());
        for side in &sides {
            prop_assert_eq!(side.mux.channels(), side.channels.len(), "every number is free or in use");
        }
    }

    #[test]
    fn any_frames_are_read_or_refused(plan in prop::collection::vec(prop::collection::vec(0..9u8, 0..40), 0..20), noise: Vec<u8>) {
        let mut mux = Mux::new();
        for frame in plan.into_iter().chain([noise]) {
            mux.receive(frame.into());
            loop {
                match mux.next() {
                    Ok(Some(Event::OpenRequested { protocol, id, request, .. })) => match request {
                        _ if id.len() % 2 == 0 => _ = mux.open(&protocol, &id, b"").unwrap(),
                        _ if protocol.len() % 2 == 0 => mux.reject(request),
                        _ => {}
                    },
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}
