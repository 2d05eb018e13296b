//! A UDX stream among packets of all kinds.
//!
//! - Two honest ends over a link that loses, repeats and reorders: what is read is what was written, and once the link is good
//!   again both come to an end.
//! - With packets of strangers: no panic, no more memory than the configuration says, never a loop that does nothing, and what
//!   nobody has any more is over soon when nothing more comes.

use crate::input::Input;
use bytes::Bytes;
use datdot_hyperswarm::udx::{
    Closed, Config, Path,
    header::{Flags, Header, Packet},
    stream::Stream,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The first byte says whether strangers send packets.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let hostile = input.bool();
    let mut link = Link::new(&mut input, hostile);
    for _ in 0..400 {
        if input.is_empty() {
            break;
        }
        link.step(&mut input, hostile);
    }
    match hostile {
        true => link.abandon(),
        false => link.heal(),
    }
}

const RECEIVE: usize = 64 << 10;
const SEND: usize = 32 << 10;
/// Bytes that an end writes in all.
const WRITES: usize = 200 << 10;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

struct End {
    stream: Stream,
    written: Vec<u8>,
    read: Vec<u8>,
    aborted: bool,
    /// Datagrams that are under way from here.
    sent: Vec<Vec<u8>>,
}

struct Link {
    now: Instant,
    ends: [End; 2],
}

fn address(end: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, end as u8 + 1), 4_000).into()
}

fn path_to(end: usize) -> Path {
    Path { stream: end as u32 + 1, address: address(end) }
}

impl Link {
    fn new(input: &mut Input<'_>, hostile: bool) -> Self {
        let now = *START;
        let first: [u32; 2] = [input.uint() as u32, input.uint() as u32];
        let end = |at: usize| {
            // Among strangers also without: what ends then has to end by itself.
            let keep_alive = Some(Duration::from_secs(5)).filter(|_| !hostile || first[at].is_multiple_of(2));
            let config = Config { receive: RECEIVE, send: SEND, keep_alive, seq: first[at], ..Config::default() };
            let mut stream = Stream::new(config, now);
            stream.connect(path_to(1 - at), first[1 - at], now);
            End { stream, written: Vec::new(), read: Vec::new(), aborted: false, sent: Vec::new() }
        };
        Link { now, ends: [end(0), end(1)] }
    }

    fn step(&mut self, input: &mut Input<'_>, hostile: bool) {
        let at = input.below(2);
        let now = self.now;
        let End { stream, written, aborted, sent, .. } = &mut self.ends[at];
        match input.u8() % 12 {
            0 | 1 => {
                let len = usize::from(input.u16()).min(WRITES - written.len());
                let bytes: Vec<u8> = (written.len()..written.len() + len).map(|n| (n * 7 + (n >> 8)) as u8).collect();
                let taken = stream.write(&bytes);
                written.extend_from_slice(&bytes[..taken]);
            }
            2 => self.read(at),
            3 => {
                self.now += Duration::from_micros(input.uint() & 0x3ff_ffff);
                self.pump();
            }
            4 if input.u8() == 7 => (stream.abort(now), *aborted = true).0,
            5 if input.u8() > 200 => stream.finish(),
            6 => _ = stream.send_message(Bytes::copy_from_slice(input.part())),
            7 if input.bool() => stream.change_path(path_to(1 - at), now),
            8 if !sent.is_empty() => {
                // Lost, or twice, or out of turn.
                let which = input.below(sent.len());
                match input.bool() {
                    true => _ = sent.remove(which),
                    false => self.deliver(at, which, false),
                }
            }
            9 if hostile && !sent.is_empty() => {
                let which = input.below(sent.len());
                sent[which] = input.alter(&sent[which]);
            }
            10 if hostile => {
                let packet = packet(input, at);
                self.handle(at, &packet);
            }
            11 if hostile && input.u8() == 7 => stream.stop_reading(self.now),
            _ => {
                while !self.ends[at].sent.is_empty() {
                    self.deliver(at, 0, true);
                }
                self.pump();
            }
        }
        self.check(hostile);
    }

    fn deliver(&mut self, from: usize, which: usize, once: bool) {
        let datagram = if once { self.ends[from].sent.remove(which) } else { self.ends[from].sent[which].clone() };
        self.handle(1 - from, &datagram);
    }

    fn handle(&mut self, to: usize, datagram: &[u8]) {
        if let Some(packet) = Packet::decode(datagram) {
            self.ends[to].stream.handle(&packet, address(1 - to), self.now);
        }
    }

    fn read(&mut self, at: usize) {
        let End { stream, read, .. } = &mut self.ends[at];
        let mut buffer = [0; 5_000];
        let count = stream.read(&mut buffer);
        read.extend_from_slice(&buffer[..count]);
        while stream.next_message().is_some() {}
    }

    /// Lets both do what is due by now.
    fn pump(&mut self) {
        for End { stream, sent, .. } in &mut self.ends {
            let mut rounds = 0;
            loop {
                let mut out = Vec::new();
                while let Some(transmit) = stream.transmit(self.now, 64, &mut out) {
                    rounds += 1;
                    assert!(rounds < 3_000, "it sends without end");
                    assert!(transmit.segment > 0 && transmit.segment <= 1_500 && !out.is_empty());
                    sent.extend(out.chunks(transmit.segment).map(<[u8]>::to_vec));
                    out.clear();
                }
                match stream.deadline(self.now) {
                    Some(deadline) if deadline <= self.now && !stream.is_over(self.now) => {
                        rounds += 1;
                        assert!(rounds < 3_000, "it is due without end");
                        stream.on_deadline(self.now);
                    }
                    _ => break,
                }
            }
        }
    }

    fn check(&self, hostile: bool) {
        for at in [0, 1] {
            let (here, there) = (&self.ends[at], &self.ends[1 - at]);
            // Three times as many bytes again may wait for an earlier packet, and 64 messages.
            assert!(here.stream.stats().held <= 4 * RECEIVE + 64 * 2_048);
            if !hostile {
                assert!(there.written.starts_with(&here.read), "what is read is not what was written");
                assert!(here.stream.closed() != Some(Closed::Reset) || there.aborted);
            }
        }
    }

    /// Nobody has the streams any more, and nothing arrives.
    fn abandon(&mut self) {
        for End { stream, .. } in &mut self.ends {
            stream.finish();
            stream.stop_reading(self.now);
        }
        // So long a stream says farewell, and lingers then.
        let last = self.now + Duration::from_secs(90);
        loop {
            self.pump();
            self.ends.iter_mut().for_each(|end| end.sent.clear());
            let left = self.ends.iter_mut().filter(|end| !end.stream.is_over(self.now));
            let Some(next) = left.filter_map(|end| end.stream.deadline(self.now)).min() else { break };
            self.now = self.now.max(next);
            assert!(self.now <= last, "a stream that nobody has goes on");
        }
        assert!(self.ends.iter().all(|end| end.stream.is_over(self.now)), "a stream that nobody has waits for ever");
    }

    /// The link is good from now on.
    fn heal(&mut self) {
        for end in &mut self.ends {
            end.stream.finish();
        }
        for _ in 0..20_000 {
            self.pump();
            for at in [0, 1] {
                for datagram in std::mem::take(&mut self.ends[at].sent) {
                    if !self.ends[1 - at].stream.is_over(self.now) {
                        self.handle(1 - at, &datagram);
                    }
                }
                self.read(at);
                self.read(at);
            }
            self.check(false);
            if self.ends.iter().all(|end| end.stream.closed().is_some()) {
                break;
            }
            // Whoever drives a stream that is over forgets it; the other end finds out by itself.
            let left = self.ends.iter_mut().filter(|end| !end.stream.is_over(self.now));
            let next = left.filter_map(|end| end.stream.deadline(self.now)).min();
            let soon = self.now + Duration::from_micros(10);
            self.now = next.map_or(soon, |next| next.max(soon));
        }
        let closed = [0, 1].map(|at| self.ends[at].stream.closed().expect("both come to an end"));
        if closed == [Closed::Finished; 2] {
            for at in [0, 1] {
                while self.ends[at].stream.readable() > 0 {
                    self.read(at);
                }
                assert_eq!(self.ends[at].read.len(), self.ends[1 - at].written.len());
            }
        }
    }
}

/// A packet to one end as strangers may make it.
fn packet(input: &mut Input<'_>, to: usize) -> Vec<u8> {
    let (flags, offset) = (Flags(input.u8()), if input.bool() { 0 } else { input.u8() });
    let number = |input: &mut Input<'_>| (input.uint() as u32).wrapping_sub(input.u8().into());
    let (window, seq, ack) = (number(input), number(input), number(input));
    let mut packet = Vec::new();
    Header { flags, offset, stream: to as u32 + 1, window, seq, ack }.encode(&mut packet);
    packet.extend_from_slice(input.part());
    packet
}
