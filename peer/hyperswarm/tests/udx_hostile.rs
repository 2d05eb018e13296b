//! What a stranger or a bad remote can do to a stream: cost a bounded amount, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod udx;

use datdot_hyperswarm::udx::header::{Flags, Header, Packet, encode_range};
use datdot_hyperswarm::udx::stream::Stream;
use datdot_hyperswarm::udx::{Closed, Config, Memory, Path};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use udx::{pair, receive, send, soon};

fn remote() -> SocketAddr {
    ([10, 0, 0, 9], 9).into()
}

#[derive(Debug, Clone)]
enum Step {
    Packet { flags: u8, offset: u8, window: u32, seq: i32, ack: i32, ranges: Vec<(i32, i32)>, len: usize },
    Bytes(Vec<u8>),
    Write(usize),
    Read(usize),
    Wait(u64),
    Finish,
    Move,
}

/// Numbers around what is expected, and any others.
fn near() -> impl Strategy<Value = i32> {
    prop_oneof![8 => -3..40i32, 1 => -70_000..70_000i32, 1 => any::<i32>()]
}

fn steps() -> impl Strategy<Value = Step> {
    let window = prop_oneof![Just(0), Just(1), 0..100_000u32, any::<u32>()];
    let flags = prop_oneof![6 => Just(1u8), 3 => Just(0u8), 2 => Just(4u8), 1 => any::<u8>()];
    let ranges = prop::collection::vec((near(), near()), 0..4);
    let packet = (flags, any::<u8>(), window, near(), near(), ranges, 0usize..1500).prop_map(
        |(flags, offset, window, seq, ack, ranges, len)| Step::Packet { flags, offset, window, seq, ack, ranges, len },
    );
    prop_oneof![
        12 => packet,
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Step::Bytes),
        4 => (1usize..50_000).prop_map(Step::Write),
        3 => (1usize..50_000).prop_map(Step::Read),
        4 => (0u64..3_000_000).prop_map(Step::Wait),
        1 => Just(Step::Finish),
        1 => Just(Step::Move),
    ]
}

/// A packet as the remote might send it, with numbers relative to `seq` and `ack`.
fn datagram(step: &Step, seq: u32, ack: u32) -> Vec<u8> {
    let mut out = Vec::new();
    match step {
        Step::Packet { flags, offset, window, seq: dseq, ack: dack, ranges, len } => {
            let sack = flags & Flags::SACK.0 != 0;
            let offset = if sack && offset % 2 == 0 { ranges.len() as u8 * 8 } else { offset % 3 };
            let (seq, ack) = (seq.wrapping_add_signed(*dseq), ack.wrapping_add_signed(*dack));
            Header { flags: Flags(*flags), offset, stream: 1, window: *window, seq, ack }.encode(&mut out);
            for (start, end) in ranges {
                encode_range(ack.wrapping_add_signed(*start), ack.wrapping_add_signed(*end), &mut out);
            }
            out.resize(out.len() + len, 7);
        }
        Step::Bytes(bytes) => out.clone_from(bytes),
        _ => {}
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packets_in_any_order_break_a_stream(all in prop::collection::vec(steps(), 1..200), seq: u32) {
        let mut now = Instant::now();
        let limit = 60_000;
        let mut stream = Stream::new(Config { receive: limit, seq, ..Config::default() }, now);
        stream.connect(Path { stream: 2, address: remote() }, 0, now);
        let (mut out, mut buffer, mut read, mut next) = (Vec::new(), vec![0; 50_000], 0u32, seq);
        for step in all {
            match &step {
                Step::Write(len) => drop(stream.write(&vec![1; *len])),
                Step::Read(len) => read = read.wrapping_add(stream.read(&mut buffer[..*len]) as u32),
                Step::Wait(micros) => now += Duration::from_micros(*micros),
                Step::Finish => stream.finish(),
                Step::Move => stream.change_path(Path { stream: 3, address: remote() }, now),
                Step::Packet { .. } | Step::Bytes(_) => {
                    let bytes = datagram(&step, read / 1000, next);
                    if let Some(packet) = Packet::decode(&bytes) {
                        stream.handle(&packet, remote(), now);
                    }
                }
            }
            if stream.deadline(now).is_some_and(|due| due <= now) {
                stream.on_deadline(now);
            }
            let mut datagrams = 0;
            while let Some(transmit) = stream.transmit(now, 8, &mut out) {
                prop_assert!(transmit.segment <= 1472 && !out.is_empty());
                for bytes in out.chunks(transmit.segment) {
                    let packet = Packet::decode(bytes).expect("what we send is well formed");
                    next = packet.header.seq;
                    datagrams += 1;
                }
                out.clear();
            }
            prop_assert!(datagrams < 400, "{datagrams} at once");
            prop_assert!(stream.stats().held <= 4 * limit + (64 << 10) + 64 * 1500);
        }
    }
}

#[test]
fn packets_that_wait_for_one_that_never_comes_are_bounded() {
    let now = Instant::now();
    let mut stream = Stream::new(Config::default(), now);
    stream.connect(Path { stream: 2, address: remote() }, 0, now);
    let mut out = Vec::new();
    for seq in 1..100_000u32 {
        out.clear();
        Header { flags: Flags::DATA, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
        out.resize(20 + (seq as usize % 1400), 0);
        stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
    }
    assert!(stream.stats().held <= 32 << 20);
    out.clear();
    stream.transmit(now, 1, &mut out).unwrap();
    let ack = Packet::decode(&out).unwrap();
    assert_eq!((ack.header.ack, ack.ranges().next()), (0, Some((1, ack.ranges().next().unwrap().1))));
}

#[test]
fn nothing_is_sent_before_a_stream_is_connected() {
    let now = Instant::now();
    let mut stream = Stream::new(Config { keep_alive: Some(Duration::from_secs(1)), ..Config::default() }, now);
    stream.write(b"hello");
    for flags in 0..64 {
        let step = Step::Packet { flags: flags & !16, offset: 0, window: 9, seq: 0, ack: 0, ranges: vec![], len: 10 };
        let bytes = datagram(&step, 0, 0);
        stream.handle(&Packet::decode(&bytes).unwrap(), remote(), now);
        assert_eq!(stream.deadline(now), None);
        stream.on_deadline(now + Duration::from_secs(60));
        assert_eq!(stream.transmit(now, 9, &mut Vec::new()), None);
    }
    assert_eq!(stream.heard(), Some(remote()));
}

#[test]
fn who_keeps_a_stream_alive_notices_that_the_remote_is_gone() {
    let (start, interval) = (Instant::now(), Duration::from_secs(5));
    let mut stream = Stream::new(Config { keep_alive: Some(interval), ..Config::default() }, start);
    stream.connect(Path { stream: 2, address: remote() }, 0, start);
    let step = Step::Packet { flags: 0, offset: 0, window: 1 << 20, seq: 0, ack: 0, ranges: vec![], len: 0 };
    let answer = datagram(&step, 0, 0);
    let (mut now, mut heartbeats) = (start, 0);
    while stream.closed().is_none() {
        now = stream.deadline(now).unwrap();
        stream.on_deadline(now);
        while stream.transmit(now, 8, &mut Vec::new()).is_some() {
            heartbeats += 1;
        }
        if heartbeats <= 100 {
            stream.handle(&Packet::decode(&answer).unwrap(), remote(), now);
        }
        assert!(heartbeats < 200, "it does not notice");
    }
    assert_eq!((stream.closed(), heartbeats), (Some(Closed::Silent), 112));
}

#[test]
fn heartbeats_of_the_remote_hide_no_window_that_opened_unheard() {
    let mut now = Instant::now();
    let config = Config { receive: 64 << 10, ..Config::default() };
    let alive = Config { keep_alive: Some(Duration::from_millis(1)), ..config.clone() };
    let mut ends = [Stream::new(config, now), Stream::new(alive, now)];
    let address = |end: usize| SocketAddr::from(([10, 0, 0, end as u8], 9));
    let path_to = |end: usize| Path { stream: end as u32, address: address(end) };
    (0..2).for_each(|end| ends[end].connect(path_to(1 - end), 0, now));
    let pass = |ends: &mut [Stream; 2], now, from: usize, lost: bool| {
        let mut out = Vec::new();
        while let Some(transmit) = ends[from].transmit(now, 8, &mut out) {
            for datagram in out.chunks(transmit.segment).filter(|_| !lost) {
                ends[1 - from].handle(&Packet::decode(datagram).unwrap(), address(from), now);
            }
            out.clear();
        }
    };
    let (mut read, mut buffer) = (0, [0; 9_999]);
    let written = ends[0].write(&[7; 200_000]);
    for _ in 0..2_000 {
        now += Duration::from_millis(1);
        ends.iter_mut().for_each(|end| end.on_deadline(now));
        (0..2).for_each(|from| pass(&mut ends, now, from, false));
    }
    assert!(ends[1].readable() > 60_000, "the window is full: {}", ends[1].readable());
    // The window opens, and what says so is lost.
    let start = now;
    while let count @ 1.. = ends[1].read(&mut buffer) {
        read += count;
    }
    pass(&mut ends, now, 1, true);
    while read < written {
        now = ends.iter_mut().filter_map(|end| end.deadline(now)).min().unwrap().max(now + Duration::from_micros(10));
        ends.iter_mut().for_each(|end| end.on_deadline(now));
        (0..2).for_each(|from| pass(&mut ends, now, from, false));
        while let count @ 1.. = ends[1].read(&mut buffer) {
            read += count;
        }
        assert!(now < start + Duration::from_secs(60), "{read} of {written}");
    }
}

#[test]
fn an_address_that_says_nothing_gets_little() {
    let start = Instant::now();
    let mut stream = Stream::new(Config { keep_alive: Some(Duration::from_secs(60)), ..Config::default() }, start);
    stream.connect(Path { stream: 2, address: remote() }, 0, start);
    stream.write(&[7; 500_000]);
    let (mut now, mut bytes, mut out) = (start, 0, Vec::new());
    let mut send = |stream: &mut Stream, now| {
        while stream.transmit(now, 8, &mut out).is_some() {
            bytes += out.len();
            out.clear();
        }
        bytes
    };
    assert!((3_000..=4_800).contains(&send(&mut stream, now)));
    // A packet of the stream, but from elsewhere, proves nothing.
    let step = Step::Packet { flags: 32, offset: 0, window: 1 << 20, seq: 0, ack: 0, ranges: vec![], len: 0 };
    let heartbeat = datagram(&step, 0, 0);
    stream.handle(&Packet::decode(&heartbeat).unwrap(), ([10, 0, 0, 8], 9).into(), now);
    let mut alarms = 0;
    while let Some(due) = stream.deadline(now) {
        now = now.max(due);
        if stream.is_over(now) {
            break;
        }
        stream.on_deadline(now);
        send(&mut stream, now);
        alarms += 1;
        assert!(alarms < 1_000, "it doesn't spin");
    }
    assert_eq!(stream.closed(), Some(Closed::Silent));
    assert!(send(&mut stream, now) <= 4_800 + 7 * 1_200);
    assert!(now < start + Duration::from_secs(60));
}

#[test]
fn who_acknowledges_nothing_any_more_makes_us_keep_a_bounded_amount() {
    let now = Instant::now();
    let memory = Memory::new(1 << 20);
    let mut streams: Vec<Stream> = (0..20)
        .map(|_| {
            let mut stream = Stream::new(Config { memory: memory.clone(), ..Config::default() }, now);
            stream.connect(Path { stream: 2, address: remote() }, 0, now);
            stream
        })
        .collect();
    let mut out = Vec::new();
    let mut next = [0; 20];
    // Each acknowledges at once for a while, so that it seems to have a fast path, then not at all.
    for round in 0..120u64 {
        let now = now + Duration::from_millis(round);
        for (stream, next) in streams.iter_mut().zip(&mut next) {
            stream.write(&[7; 100_000]);
            while let Some(transmit) = stream.transmit(now, 44, &mut out) {
                *next = Packet::decode(out.chunks(transmit.segment).last().unwrap()).unwrap().header.seq + 1;
                out.clear();
            }
            if round < 60 {
                Header { flags: Flags(0), offset: 0, stream: 1, window: u32::MAX, seq: 0, ack: *next }.encode(&mut out);
                stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
                out.clear();
            }
            if stream.deadline(now).is_some_and(|due| due <= now) {
                stream.on_deadline(now);
            }
        }
    }
    assert!(memory.taken() <= (1 << 20) + 20 * (64 << 10), "{}", memory.taken());
    drop(streams);
    assert_eq!(memory.taken(), 0);
}

#[test]
fn many_remotes_make_us_hold_no_more_than_the_common_amount() {
    let now = Instant::now();
    let memory = Memory::new(1 << 20);
    let mut held = 0;
    let mut streams = Vec::new();
    for n in 0..30 {
        let mut stream = Stream::new(Config { memory: memory.clone(), ..Config::default() }, now);
        stream.connect(Path { stream: 2, address: remote() }, 0, now);
        let mut out = Vec::new();
        // Half of them leave a hole.
        for seq in n % 2..1_000 {
            out.clear();
            Header { flags: Flags::DATA, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
            out.resize(1_420, 0);
            stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
        }
        held += stream.stats().held;
        streams.push(stream);
    }
    assert!(held <= (1 << 20) + 31 * (64 << 10), "{held}");
    // Whoever reads goes on, though others hold all there is.
    let last = &mut streams[28];
    flush(last, now);
    let mut buffer = vec![0; 1 << 20];
    let read = last.read(&mut buffer);
    assert!(read >= 60_000);
    assert!(last.has_something_to_say(), "the remote hears that there is room");
    let seq = (read / 1_400) as u32;
    let mut out = Vec::new();
    Header { flags: Flags::DATA, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
    out.resize(1_420, 0);
    last.handle(&Packet::decode(&out).unwrap(), remote(), now);
    assert_eq!(last.readable(), 1_400);
}

#[test]
fn a_destroy_with_a_wild_number_is_not_believed() {
    let now = Instant::now();
    let mut stream = Stream::new(Config::default(), now);
    stream.connect(Path { stream: 2, address: remote() }, 0, now);
    let destroy = |seq| {
        let mut out = Vec::new();
        Header { flags: Flags::DESTROY, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
        out
    };
    for seq in [u32::MAX, 1 << 31, 100_000] {
        stream.handle(&Packet::decode(&destroy(seq)).unwrap(), remote(), now);
        assert_eq!(stream.closed(), None);
    }
    stream.handle(&Packet::decode(&destroy(3)).unwrap(), remote(), now);
    assert_eq!(stream.closed(), Some(Closed::Reset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rubbish_does_not_stop_a_stream() {
    let (mut a, mut b, _) = pair(None).await;
    let target = b.handle().socket().local_addr();
    let flood = tokio::spawn(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut dice = udx::link::Dice::new(3);
        loop {
            let mut bytes: Vec<u8> = (0..dice.next() % 60).map(|_| dice.next() as u8).collect();
            if dice.one_in_thousand(700) {
                // Of the stream's id, with any numbers, but no DESTROY and no data that might be taken for the remote's.
                bytes.clear();
                let flags = Flags(dice.next() as u8 & !(Flags::DESTROY | Flags::DATA | Flags::END).0);
                let (window, seq, ack) = (1 << 20, dice.next() as u32, dice.next() as u32 | 1 << 30);
                Header { flags, offset: 0, stream: 2, window, seq, ack }.encode(&mut bytes);
            }
            let _ = socket.send_to(&bytes, target).await;
            if dice.one_in_thousand(50) {
                tokio::task::yield_now().await;
            }
        }
    });
    let sent = tokio::spawn(async move { send(&mut a, 5_000_000).await });
    assert_eq!(soon(receive(&mut b)).await.unwrap(), 5_000_000);
    soon(tokio::io::AsyncWriteExt::shutdown(&mut b)).await.unwrap();
    soon(sent).await.unwrap().unwrap();
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_share_the_port() {
    let udx = datdot_hyperswarm::udx::Udx::new();
    let (socket, mut others) = udx.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (other, mut answers) = udx.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    other.send_to(b"\x03 a question", socket.local_addr()).await.unwrap();
    let question = soon(others.recv()).await.unwrap();
    assert_eq!((&question.bytes[..], question.from), (&b"\x03 a question"[..], other.local_addr()));
    socket.send_to(b"\x13 an answer", question.from).await.unwrap();
    assert_eq!(&soon(answers.recv()).await.unwrap().bytes[..], b"\x13 an answer");
}

/// Lets time pass for a stream whose remote answers each heartbeat with `window`, and nothing else; when it's over.
fn over_within(stream: &mut Stream, mut now: Instant, time: Duration, window: Option<u32>) -> bool {
    let (end, mut out) = (now + time, Vec::new());
    while let Some(due) = stream.deadline(now).filter(|due| *due <= end) {
        now = now.max(due);
        if stream.is_over(now) {
            return true;
        }
        stream.on_deadline(now);
        while let Some(transmit) = stream.transmit(now, 8, &mut out) {
            let last = Packet::decode(out.chunks(transmit.segment).last().unwrap()).unwrap().header;
            if let (true, Some(window)) = (last.flags.any(Flags::HEARTBEAT), window) {
                stream.handle(&Packet::decode(&bare(last.seq, window)).unwrap(), remote(), now);
            }
            out.clear();
        }
    }
    false
}

/// A bare acknowledgement.
fn bare(ack: u32, window: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Header { flags: Flags(0), offset: 0, stream: 1, window, seq: 0, ack }.encode(&mut out);
    out
}

/// Sends what the stream has to send; the number of the next packet.
fn flush(stream: &mut Stream, now: Instant) -> u32 {
    let (mut out, mut next) = (Vec::new(), 0);
    while let Some(transmit) = stream.transmit(now, 8, &mut out) {
        next = Packet::decode(out.chunks(transmit.segment).last().unwrap()).unwrap().header.seq + 1;
        out.clear();
    }
    next
}

fn connected(config: Config, now: Instant) -> Stream {
    let mut stream = Stream::new(config, now);
    stream.connect(Path { stream: 2, address: remote() }, 0, now);
    stream
}

#[test]
fn an_end_that_was_never_acknowledged_is_no_success() {
    let now = Instant::now();
    for destroyed in [false, true] {
        let mut stream = connected(Config::default(), now);
        stream.write(&[7; 1_000]);
        stream.finish();
        flush(&mut stream, now);
        if destroyed {
            let mut out = Vec::new();
            Header { flags: Flags::DESTROY, offset: 0, stream: 1, window: 0, seq: 0, ack: 0 }.encode(&mut out);
            stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
        } else {
            over_within(&mut stream, now, Duration::from_secs(60), None);
        }
        assert_eq!(stream.closed(), Some(if destroyed { Closed::Reset } else { Closed::Silent }));
        assert!(!stream.is_finished());
    }
}

#[test]
fn a_remote_that_never_ends_is_not_waited_for_by_a_stream_that_nobody_has_any_more() {
    let now = Instant::now();
    let mut stream = connected(Config::default(), now);
    stream.finish();
    let next = flush(&mut stream, now);
    stream.handle(&Packet::decode(&bare(next, 1 << 20)).unwrap(), remote(), now);
    assert!(stream.is_finished());
    // The remote has our end, and is never heard of again; only now the reader is dropped.
    stream.stop_reading(now);
    assert!(over_within(&mut stream, now, Duration::from_secs(60), None));
}

#[test]
fn a_remote_that_takes_nothing_is_not_waited_for_by_a_stream_that_nobody_has_any_more() {
    for is_dropped in [true, false] {
        let now = Instant::now();
        let mut stream = connected(Config::default(), now);
        stream.write(&[7; 100_000]);
        let next = flush(&mut stream, now);
        stream.handle(&Packet::decode(&bare(next, 0)).unwrap(), remote(), now);
        if is_dropped {
            stream.finish();
            stream.stop_reading(now);
        }
        let is_over = over_within(&mut stream, now, Duration::from_secs(120), Some(0));
        assert_eq!(is_over, is_dropped, "whoever has it waits as long as the remote answers");
    }
}

#[test]
fn a_remote_that_answers_only_from_elsewhere_is_given_up() {
    let now = Instant::now();
    let mut stream = connected(Config::default(), now);
    stream.write(&[7; 100_000]);
    let next = flush(&mut stream, now);
    stream.handle(&Packet::decode(&bare(next, 1 << 20)).unwrap(), ([10, 0, 0, 8], 9).into(), now);
    flush(&mut stream, now);
    assert!(over_within(&mut stream, now, Duration::from_secs(120), None));
    assert_eq!(stream.closed(), Some(Closed::Silent));
}

/// Nothing before `ack` is missing, nor what is in the range.
fn sack(ack: u32, range: Range<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    Header { flags: Flags::SACK, offset: 0, stream: 1, window: u32::MAX, seq: 0, ack }.encode(&mut out);
    encode_range(range.start, range.end, &mut out);
    out
}

#[test]
fn what_is_kept_beside_a_hole_is_counted() {
    let now = Instant::now();
    let memory = Memory::new(1 << 20);
    let mut stream = connected(Config { memory: memory.clone(), ..Config::default() }, now);
    let (mut out, mut next) = (Vec::new(), 0);
    // All but one packet of each 64 KiB, which is what they are kept in, is acknowledged.
    for round in 0..200u64 {
        let now = now + Duration::from_millis(round);
        stream.write(&[7; 100_000]);
        while let Some(transmit) = stream.transmit(now, 44, &mut out) {
            let sent: Vec<u32> =
                out.chunks(transmit.segment).map(|bytes| Packet::decode(bytes).unwrap().header.seq).collect();
            out.clear();
            next = next.max(sent.iter().max().unwrap() + 1);
            for seq in sent.into_iter().filter(|seq| seq % 40 != 0) {
                stream.handle(&Packet::decode(&sack(0, seq..seq + 1)).unwrap(), remote(), now);
            }
        }
        if stream.deadline(now).is_some_and(|due| due <= now) {
            stream.on_deadline(now);
        }
    }
    assert!(next > 500, "{next}");
    let span = next as usize * 1_152;
    assert!(span <= memory.taken() + (64 << 10), "{span} bytes, of which {} are counted", memory.taken());
}

#[test]
fn what_is_kept_beside_a_hole_is_bounded_for_each_stream_too() {
    let start = Instant::now();
    let memory = Memory::new(1 << 30);
    let mut stream = connected(Config { memory: memory.clone(), ..Config::default() }, start);
    let (mut now, mut next, mut hole, mut most) = (start, 0, 0, 0);
    for round in 0..900 {
        stream.write(&[7; 200_000]);
        next = flush(&mut stream, now).max(next);
        now += Duration::from_micros(500);
        // After a while the remote says of one packet that it never came.
        hole = if round < 60 { next } else { hole };
        let ack = if round < 60 { bare(next, u32::MAX) } else { sack(hole, hole + 1..next) };
        stream.handle(&Packet::decode(&ack).unwrap(), remote(), now);
        now += Duration::from_micros(500);
        if stream.deadline(now).is_some_and(|due| due <= now) {
            stream.on_deadline(now);
        }
        most = most.max(memory.taken());
    }
    assert!((15 << 20..=(16 << 20) + (64 << 10)).contains(&most), "{most}");
}

#[test]
fn whoever_has_all_as_it_says_but_never_the_first_is_silent() {
    let now = Instant::now();
    for is_acknowledged in [false, true] {
        let mut stream = connected(Config::default(), now);
        stream.write(&[7; 10_000]);
        flush(&mut stream, now);
        stream.finish();
        let mut say = |ack, range| stream.handle(&Packet::decode(&sack(ack, range)).unwrap(), remote(), now);
        say(0, u32::from(is_acknowledged)..4);
        if is_acknowledged {
            say(1, 2..4);
        }
        let next = flush(&mut stream, now);
        let first = u32::from(is_acknowledged);
        stream.handle(&Packet::decode(&sack(first, first..next)).unwrap(), remote(), now);
        assert!(over_within(&mut stream, now, Duration::from_secs(60), None));
        assert_eq!(stream.closed(), Some(Closed::Silent));
    }
}

#[test]
fn what_is_left_when_nobody_has_a_stream_any_more_is_not_taken_at_any_pace() {
    let start = Instant::now();
    let mut stream = connected(Config::default(), start);
    stream.write(&[7; 500_000]);
    stream.finish();
    stream.stop_reading(start);
    // Two packets a second, which is never silence.
    let (mut now, mut taken) = (start, 0);
    while !stream.is_over(now) {
        flush(&mut stream, now);
        taken += 1;
        now += Duration::from_millis(500);
        stream.handle(&Packet::decode(&bare(taken, 1 << 20)).unwrap(), remote(), now);
        if stream.deadline(now).is_some_and(|due| due <= now) {
            stream.on_deadline(now);
        }
        assert!(now < start + Duration::from_secs(90));
    }
    assert_eq!(stream.closed(), Some(Closed::Aborted));
    assert!(now > start + Duration::from_secs(60));
}

#[test]
fn acknowledgements_to_an_address_that_says_nothing_are_no_longer_than_what_asks_for_them() {
    let now = Instant::now();
    let (mut stream, elsewhere) = (connected(Config::default(), now), SocketAddr::from(([10, 0, 0, 8], 9)));
    let ask = |stream: &mut Stream, flags, seq, len: usize, from| {
        let mut out = Vec::new();
        Header { flags, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
        out.resize(20 + len, 0);
        stream.handle(&Packet::decode(&out).unwrap(), from, now);
        let (asked, mut answer) = (out.len(), Vec::new());
        while stream.transmit(now, 8, &mut answer).is_some() {}
        (asked, answer.len())
    };
    for seq in (1..200).step_by(2) {
        for (flags, len) in [(Flags::DATA, 1), (Flags::HEARTBEAT, 0)] {
            let (asked, answered) = ask(&mut stream, flags, seq, len, elsewhere);
            assert!(answered <= asked, "{answered} bytes for {asked}");
        }
    }
    // Whoever is there hears what has arrived.
    assert_eq!(ask(&mut stream, Flags::HEARTBEAT, 0, 0, remote()), (20, 20 + 50 * 8));
}

#[test]
fn no_window_is_told_that_the_next_packet_is_refused_in() {
    let now = Instant::now();
    // All that is common is used up.
    let mut stream = connected(Config { memory: Memory::new(0), ..Config::default() }, now);
    let (mut seq, mut window) = (0, u32::MAX);
    while window > 0 {
        let mut out = Vec::new();
        Header { flags: Flags::DATA, offset: 0, stream: 1, window: 0, seq, ack: 0 }.encode(&mut out);
        out.resize(1_472, 0);
        stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
        stream.handle(&Packet::decode(&heartbeat()).unwrap(), remote(), now);
        out.clear();
        stream.transmit(now, 8, &mut out).unwrap();
        let answer = Packet::decode(&out).unwrap().header;
        seq += 1;
        assert_eq!(answer.ack, seq, "it is refused, and {window} bytes were told");
        window = answer.window;
    }
    assert!(stream.readable() > 60_000);
}

fn heartbeat() -> Vec<u8> {
    let mut out = Vec::new();
    Header { flags: Flags::HEARTBEAT, offset: 0, stream: 1, window: 0, seq: 0, ack: 0 }.encode(&mut out);
    out
}

/// The remote's end, its first packet, with `ack` and a window.
fn end(ack: u32, window: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Header { flags: Flags::END, offset: 0, stream: 1, window, seq: 0, ack }.encode(&mut out);
    out
}

#[test]
fn bytes_that_a_remote_never_acknowledged_are_no_success_though_it_has_ended() {
    let now = Instant::now();
    for acknowledged in [0, 1] {
        let mut stream = connected(Config::default(), now);
        stream.write(&[7; 1_000]);
        stream.finish();
        flush(&mut stream, now);
        stream.handle(&Packet::decode(&end(acknowledged, 1 << 20)).unwrap(), remote(), now);
        assert!(over_within(&mut stream, now, Duration::from_secs(60), None));
        let expected = if acknowledged == 1 { Closed::Finished } else { Closed::Silent };
        assert_eq!(stream.closed(), Some(expected));
    }
}

#[test]
fn an_end_needs_no_window() {
    let now = Instant::now();
    let mut stream = connected(Config::default(), now);
    stream.write(&[7; 1_000]);
    flush(&mut stream, now);
    stream.handle(&Packet::decode(&bare(1, 0)).unwrap(), remote(), now);
    stream.finish();
    flush(&mut stream, now);
    stream.handle(&Packet::decode(&bare(2, 0)).unwrap(), remote(), now);
    assert!(stream.is_finished());
}

#[tokio::test]
async fn any_number_may_wait_for_the_end_of_a_stream() {
    let (a, _b, _) = pair(None).await;
    let handle = a.handle();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.closed().await })
        })
        .collect();
    tokio::task::yield_now().await;
    handle.abort();
    for one in waiting {
        assert_eq!(soon(one).await.unwrap(), Closed::Aborted);
    }
}

#[test]
fn a_message_that_no_packet_of_ours_could_carry_is_dropped() {
    let now = Instant::now();
    let mut stream = connected(Config::default(), now);
    for len in [1_400, 60_000] {
        let mut out = Vec::new();
        Header { flags: Flags::MESSAGE, offset: 0, stream: 1, window: 0, seq: 0, ack: 0 }.encode(&mut out);
        out.resize(20 + len, 0);
        stream.handle(&Packet::decode(&out).unwrap(), remote(), now);
    }
    assert_eq!((stream.next_message().unwrap().len(), stream.next_message()), (1_400, None));
}
