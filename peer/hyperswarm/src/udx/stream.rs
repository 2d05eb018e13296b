//! One stream as a state machine: no socket, no clock. Datagrams and the time go in, datagrams and a deadline come out.
//!
//! ```text
//!              connect              finish, and the remote's END          15 s
//!   Unconnected ─────▶ Connected ────────────────────────────▶ Lingering ─────▶ over
//!     hears, says nothing  │ abort · DESTROY · silence             ▲ answers what comes late
//!                          └───────────────────────────────────────┘
//! ```
//!
//! Whoever drives a stream calls [`handle`](Stream::handle) for each datagram, [`transmit`](Stream::transmit) until
//! it returns nothing, and [`on_deadline`](Stream::on_deadline) when [`deadline`](Stream::deadline) has come.

mod transmit;

use super::header::{Flags, HEADER, Header, Packet, widen};
use super::incoming::{Incoming, MOST_AHEAD};
use super::memory::Memory;
use super::outgoing::{Outgoing, Sums};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Sequence numbers begin here inside, so that those before the first one exist too.
const BASE: u64 = 1 << 32;
/// What a remote is believed to receive before it has said so; libudx begins with the same.
const FIRST_WINDOW: u64 = 4 << 20;
/// How long an ended stream still answers what comes late: until the remote has given up to repeat its last packet.
const LINGER: Duration = Duration::from_secs(15);
/// How long a remote may go on sending when nobody reads any more.
const GRACE: Duration = Duration::from_secs(10);
/// What a remote has time for to take what is left when nobody of ours has the stream any more: this, and a second for each so
/// many bytes.
const FAREWELL: Duration = Duration::from_secs(60);
const FAREWELL_RATE: usize = 64 << 10;
/// Probes of a closed window without any answer that end the stream.
const MOST_PROBES: u32 = 12;
/// Heartbeats in a row, if they are sent to keep the stream alive, after which nothing was heard: the remote is gone.
const MOST_UNHEARD: u32 = 12;
/// Messages that wait to be taken, and how long each may be: no packet carries more, unless it's made to be put together.
const MOST_MESSAGES: usize = 64;
const LONGEST_MESSAGE: usize = 1_500;
/// How many packets in order may wait for their acknowledgement, and how long.
const ACK_PACKETS: u32 = 8;
const ACK_DELAY: Duration = Duration::from_millis(1);
/// How often a late packet of an aborted stream is answered.
const REPLY: Duration = Duration::from_millis(100);

/// How a stream behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes that wait to be read; with those that wait for an earlier packet four times as many. Default:
    /// 16 MiB, four times that of libudx, so that a round trip of 50 ms leaves room for 335 MB/s.
    pub receive: usize,
    /// Most bytes that wait to be sent for the first time. Default: 512 KiB.
    pub send: usize,
    /// Send a heartbeat after so much silence of our own; the remote answers. Twelve times without a word end the stream. Default:
    /// none.
    pub keep_alive: Option<Duration>,
    /// Number of the first packet we send. Default: 0.
    pub seq: u32,
    /// What all streams with a clone of it may hold together, besides a little for each. Default: 256 MiB.
    pub memory: Memory,
}

impl Default for Config {
    fn default() -> Self {
        Config { receive: 16 << 20, send: 512 << 10, keep_alive: None, seq: 0, memory: Memory::new(256 << 20) }
    }
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Both sides ended it and know that the other has.
    #[error("the stream has ended")]
    Finished,
    /// We aborted it.
    #[error("the stream was aborted")]
    Aborted,
    /// The remote aborted it.
    #[error("the remote aborted the stream")]
    Reset,
    /// The remote acknowledges nothing any more.
    #[error("the remote has fallen silent")]
    Silent,
}

/// A message that no packet can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {len} bytes, of which {most} fit")]
pub struct TooLong {
    /// Bytes of the message.
    pub len: usize,
    /// The most that fit on this path now.
    pub most: usize,
}

/// Where a stream's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The remote's id of the stream.
    pub stream: u32,
    /// Where it receives.
    pub address: SocketAddr,
}

/// Datagrams to send: all of one size, except that the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of each datagram.
    pub segment: usize,
}

/// What a stream has done and knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// What was sent.
    pub sums: Sums,
    /// The smoothed round trip.
    pub rtt: Option<Duration>,
    /// Bytes that may be in flight.
    pub window: u64,
    /// Bytes a second that may leave.
    pub rate: f64,
    /// Bytes of a full datagram on this path.
    pub datagram: usize,
    /// Bytes that are held until they are read or until an earlier packet arrives.
    pub held: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Open,
    Lingering { closed: Closed, until: Instant },
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    config: Config,
    phase: Phase,
    path: Option<Path>,
    /// The path of packets below a number, while they are in flight after a change.
    previous: Option<(Path, u64)>,
    heard: Option<SocketAddr>,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The newest packet whose window was taken over: an older one must not undo it.
    window_of: (u64, u64),
    /// The window that the remote was told last.
    told: u32,
    ack_due: bool,
    /// Packets in order that were not acknowledged yet, and when they are at the latest.
    unacked: u32,
    ack_at: Option<Instant>,
    heartbeat_due: bool,
    destroy_due: bool,
    /// When a late packet was answered last.
    replied: Option<Instant>,
    /// Nobody reads: since when nothing of ours is open.
    deaf: bool,
    deaf_since: Option<Instant>,
    /// Nobody has the stream any more: when what is left is given up.
    leave_at: Option<Instant>,
    sent_at: Instant,
    /// When something was sent last that the remote answers.
    asked_at: Instant,
    /// Probes of a closed window since the remote was last heard; if we were given up, since it last took something.
    probes: u32,
    /// Heartbeats since the remote was heard.
    unheard: u32,
    messages: VecDeque<Bytes>,
    outbox: VecDeque<Bytes>,
}

impl Stream {
    /// A stream that hears but says nothing until it is connected.
    pub fn new(config: Config, now: Instant) -> Self {
        let first = BASE + u64::from(config.seq);
        Stream {
            phase: Phase::Open,
            path: None,
            previous: None,
            heard: None,
            outgoing: Outgoing::new(now, first, FIRST_WINDOW, &config.memory),
            incoming: Incoming::new(BASE, config.receive, &config.memory),
            window_of: (0, 0),
            told: 0,
            ack_due: false,
            unacked: 0,
            ack_at: None,
            heartbeat_due: false,
            destroy_due: false,
            replied: None,
            deaf: false,
            deaf_since: None,
            leave_at: None,
            sent_at: now,
            asked_at: now,
            probes: 0,
            unheard: 0,
            messages: VecDeque::new(),
            outbox: VecDeque::new(),
            config,
        }
    }

    /// Says where the remote is. `first` is the number of the first packet it sends.
    pub fn connect(&mut self, path: Path, first: u32, now: Instant) {
        if self.path.is_none() && self.incoming.next_seq() == BASE {
            if first != 0 {
                self.incoming = Incoming::new(BASE + u64::from(first), self.config.receive, &self.config.memory);
            }
            self.outgoing.change_path(now, path.address.is_ipv4());
        }
        self.path = Some(path);
        if self.heard.is_some_and(|heard| heard.ip() == path.address.ip()) {
            self.outgoing.prove_path();
        }
        (self.sent_at, self.asked_at) = (now, now);
    }

    /// New packets go another way from now on; those in flight are repeated on the old one. Whoever calls this has had an
    /// answer from there.
    pub fn change_path(&mut self, path: Path, now: Instant) {
        let Some(old) = self.path.replace(path) else { return };
        if !self.outgoing.is_quiet() {
            self.previous = Some((old, self.outgoing.next_seq()));
        }
        self.outgoing.change_path(now, path.address.is_ipv4());
        // Whatever comes next tells the remote of it.
        self.ack_due = true;
    }

    /// Whether packets still go the way they went before the last change.
    pub fn is_changing_path(&self) -> bool {
        self.previous.is_some()
    }

    /// Where packets go, once connected.
    pub fn path(&self) -> Option<Path> {
        self.path
    }

    /// Where the first packet came from that arrived before the stream was connected.
    pub fn heard(&self) -> Option<SocketAddr> {
        self.heard
    }

    /// How the stream ended, if it has.
    pub fn closed(&self) -> Option<Closed> {
        match self.phase {
            Phase::Open => None,
            Phase::Lingering { closed, .. } => Some(closed),
        }
    }

    /// Whether nothing is left to do, not even to answer what comes late.
    pub fn is_over(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Lingering { until, .. } if until <= now)
    }

    /// Counts and estimates.
    pub fn stats(&self) -> Stats {
        let (window, rate) = self.outgoing.model();
        Stats {
            sums: self.outgoing.sums(),
            rtt: self.outgoing.rtt().smooth(),
            window,
            rate,
            datagram: self.outgoing.datagram(),
            held: self.incoming.held() + self.messages.iter().map(Bytes::len).sum::<usize>(),
        }
    }

    // ---- the user's side ----

    /// Takes as many bytes as there is room for; returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.closed().is_some() || self.outgoing.is_ending() {
            return 0;
        }
        let room = self.config.send.saturating_sub(self.outgoing.queued());
        let taken = room.min(bytes.len());
        self.outgoing.write(&bytes[..taken]);
        taken
    }

    /// Bytes that [`write`](Self::write) would take.
    pub fn writable(&self) -> usize {
        self.config.send.saturating_sub(self.outgoing.queued())
    }

    /// Whether half of the room for writing is free: time to go on writing.
    pub fn has_much_room(&self) -> bool {
        2 * self.outgoing.queued() <= self.config.send
    }

    /// Whether an acknowledgement or the like waits to be sent.
    pub fn has_something_to_say(&self) -> bool {
        self.ack_due || self.destroy_due || self.heartbeat_due
    }

    /// Ends our half once everything written was sent.
    pub fn finish(&mut self) {
        self.outgoing.finish();
    }

    /// Whether [`finish`](Self::finish) was called.
    pub fn is_finishing(&self) -> bool {
        self.outgoing.is_ending()
    }

    /// Whether the remote has acknowledged our end.
    pub fn is_finished(&self) -> bool {
        self.outgoing.is_finished()
    }

    /// Takes bytes in order; 0 if there are none now.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.incoming.read(buffer);
        // A remote that may be waiting for room hears when there is a good deal of it.
        let (limit, window) = (self.incoming.limit(), self.incoming.window());
        if (self.told as usize) < limit / 2 && (window - self.told.min(window)) as usize >= limit / 4 {
            self.ack_due = true;
        }
        count
    }

    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        self.incoming.readable()
    }

    /// Whether the remote has ended its half; what is [`readable`](Self::readable) still is.
    pub fn is_ended(&self) -> bool {
        self.incoming.is_ended()
    }

    /// Nobody reads any more: what comes is dropped, and a remote that does not end is told to after 10 s.
    pub fn stop_reading(&mut self, now: Instant) {
        self.deaf = true;
        self.incoming.stop_reading();
        self.look_for_the_end(now);
    }

    /// Sends a message outside the stream. It may be lost, or overtake others.
    pub fn send_message(&mut self, message: Bytes) -> Result<(), TooLong> {
        let most = self.outgoing.datagram() - HEADER;
        if message.len() > most {
            return Err(TooLong { len: message.len(), most });
        }
        if self.outbox.len() < MOST_MESSAGES {
            self.outbox.push_back(message);
        }
        Ok(())
    }

    /// The oldest message that has arrived. The 65th that waits is dropped.
    pub fn next_message(&mut self) -> Option<Bytes> {
        self.messages.pop_front()
    }

    /// Whether a message waits.
    pub fn has_message(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Ends the stream at once, in both directions.
    pub fn abort(&mut self, now: Instant) {
        if self.closed().is_none() {
            self.destroy_due = self.path.is_some();
            self.close(Closed::Aborted, now);
        }
    }

    // ---- the network's side ----

    /// Takes in a packet with this stream's id.
    pub fn handle(&mut self, packet: &Packet<'_>, from: SocketAddr, now: Instant) {
        let Header { flags, window, seq, ack, .. } = packet.header;
        if let Phase::Lingering { closed, .. } = self.phase {
            return self.answer_late(closed, flags, now);
        }
        if self.path.is_none() && self.heard.is_none() {
            self.heard = Some(from);
        }
        // By host: the remote may well send by another of its sockets.
        if self.path.is_some_and(|path| path.address.ip() == from.ip()) {
            self.outgoing.prove_path();
            self.unheard = 0;
        }
        if !self.is_abandoned() && self.outgoing.is_path_proven() {
            self.probes = 0;
        }
        if flags.any(Flags::HEARTBEAT) {
            self.ack_due = true;
            return;
        }
        let seq = widen(self.incoming.next_seq(), seq);
        if flags.any(Flags::DESTROY) && seq >= self.incoming.next_seq() {
            if seq - self.incoming.next_seq() <= MOST_AHEAD {
                self.close(Closed::Reset, now);
            }
            return;
        }
        if flags.any(Flags::DATA | Flags::END) {
            let in_order = seq == self.incoming.next_seq() && !self.incoming.has_holes();
            self.incoming.accept(seq, flags, packet.payload);
            self.unacked += 1;
            self.ack_at.get_or_insert(now + ACK_DELAY);
            self.ack_due |= !in_order || flags.any(Flags::END) || self.unacked >= ACK_PACKETS;
        }
        let fits = packet.payload.len() <= LONGEST_MESSAGE && self.messages.len() < MOST_MESSAGES;
        if flags.any(Flags::MESSAGE) && fits {
            self.messages.push_back(Bytes::copy_from_slice(packet.payload));
        }
        let near = self.outgoing.next_seq();
        let ack = widen(near, ack);
        if ack > near {
            return;
        }
        if ack >= self.outgoing.una() && (seq, ack) >= self.window_of {
            self.window_of = (seq, ack);
            self.outgoing.set_window(window.into());
        }
        let una = self.outgoing.una();
        self.outgoing.on_ack(ack, packet.ranges().map(|(start, end)| (widen(near, start), widen(near, end))), now);
        if self.outgoing.una() > una {
            self.probes = 0;
        }
        if self.previous.is_some_and(|(_, until)| self.outgoing.una() >= until) {
            self.previous = None;
        }
        self.look_for_the_end(now);
    }

    fn answer_late(&mut self, closed: Closed, flags: Flags, now: Instant) {
        match closed {
            Closed::Finished => self.ack_due |= flags.any(Flags::DATA | Flags::END | Flags::HEARTBEAT),
            Closed::Aborted if self.replied.is_none_or(|last| now >= last + REPLY) => {
                self.destroy_due = !flags.any(Flags::DESTROY);
                self.replied = Some(now);
            }
            _ => {}
        }
    }

    fn look_for_the_end(&mut self, now: Instant) {
        if !self.outgoing.is_finished() {
            return;
        }
        if self.incoming.is_ended() {
            self.close(Closed::Finished, now);
        } else if self.deaf {
            self.deaf_since.get_or_insert(now);
        }
    }

    fn close(&mut self, closed: Closed, now: Instant) {
        if self.phase == Phase::Open {
            self.phase = Phase::Lingering { closed, until: now + LINGER };
            self.outgoing.clear();
            self.incoming.stop_waiting();
            self.outbox.clear();
        }
    }

    /// When to call [`on_deadline`](Self::on_deadline), if nothing happens before.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if let Phase::Lingering { until, .. } = self.phase {
            return Some(until);
        }
        self.path?;
        if self.is_abandoned() && self.leave_at.is_none() {
            let seconds = self.outgoing.left() / FAREWELL_RATE;
            self.leave_at = Some(now + FAREWELL + Duration::from_secs(seconds as u64));
        }
        let deaf = self.deaf_since.map(|since| since + GRACE);
        let dues = [self.outgoing.deadline(now), self.ack_at, self.probe(), self.keep_alive(), deaf, self.leave_at];
        dues.into_iter().flatten().min()
    }

    /// Whether nobody of ours waits for anything but that what was written arrives.
    fn is_abandoned(&self) -> bool {
        self.deaf && self.outgoing.is_ending()
    }

    /// When to ask a remote whose window is closed: libudx does not tell by itself when it has opened. Or one that was
    /// heard from elsewhere only.
    fn probe(&self) -> Option<Instant> {
        let blocked = self.outgoing.is_blocked() && self.outgoing.is_quiet() && self.outgoing.has_news();
        blocked.then(|| self.asked_at + self.outgoing.rtt().timeout())
    }

    fn keep_alive(&self) -> Option<Instant> {
        self.config.keep_alive.map(|interval| self.sent_at + interval)
    }

    /// Does what is due by now.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.closed().is_some() || self.path.is_none() {
            return;
        }
        self.ack_due |= self.ack_at.take_if(|at| *at <= now).is_some();
        if self.deaf_since.is_some_and(|since| since + GRACE <= now) || self.leave_at.is_some_and(|at| at <= now) {
            return self.abort(now);
        }
        if self.probe().is_some_and(|due| due <= now) {
            self.heartbeat_due = true;
            self.probes += 1;
            if self.probes > MOST_PROBES {
                return self.close(Closed::Silent, now);
            }
        }
        if self.keep_alive().is_some_and(|due| due <= now) && !self.heartbeat_due {
            if self.unheard >= MOST_UNHEARD {
                return self.close(Closed::Silent, now);
            }
            self.unheard += 1;
            self.heartbeat_due = true;
        }
        if self.outgoing.on_deadline(now).is_err() {
            // A remote that has everything and has ended may be gone: libudx answers nothing after the end.
            let done = self.outgoing.only_the_end_is_open() && self.incoming.is_ended();
            self.close(if done { Closed::Finished } else { Closed::Silent }, now);
        }
    }
}
