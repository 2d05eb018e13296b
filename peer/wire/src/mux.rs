//! Protomux: many channels over one stream of frames.
//!
//! A channel is named by a protocol and an optional id (for Hypercore: the discovery key). Both sides open it, each
//! under a number of its own; it is open when both have done so. Openings of one name pair first come, first served.
//!
//! ```text
//! message   uint channel (the sender's number), uint kind, body        channel 0 is control:
//! batch     0, 0, uint channel, (uint length, kind, body)*             length 0: another uint channel follows
//! open      0, 1, uint channel, string protocol, optional buffer id, handshake
//! reject    0, 2, uint channel of the opener
//! close     0, 3, uint channel of the closer
//! ```
//!
//! [`Mux`] has no stream of its own. Per round: give it what came with [`Mux::receive`], handle [`Mux::next`] until there
//! is nothing left, then send what [`Mux::take_output`] returns. Frames are read message by message while events are
//! taken, so a frame full of tiny messages costs nothing, and bodies are slices of their frame.
//!
//! ```
//! use datdot_wire::mux::{Event, Mux};
//! let (mut alice, mut bob) = (Mux::new(), Mux::new());
//! let chat = alice.open("chat", b"room", b"hello")?;
//! alice.send(chat, 0, b"anyone here?")?;
//! while let Some(frame) = alice.take_output() { bob.receive(frame.into()) }
//!
//! while let Some(event) = bob.next()? {
//!     match event {
//!         Event::OpenRequested { protocol, id, .. } if protocol == "chat" => _ = bob.open("chat", &id, b"hi")?,
//!         Event::OpenRequested { request, .. } => bob.reject(request),
//!         Event::Message { body, .. } => assert_eq!(body, "anyone here?"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;

use crate::encoding::{DecodeError, Reader, Writer};
pub use batch::Frame;
use batch::{BATCH, Input, Message, Output, Part};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A batch is closed before it would grow past this, unless one message alone is larger. JavaScript goes to 8 MiB;
/// a receiver can use nothing of a frame before all of it is there, so smaller ones arrive sooner.
pub const MAX_BATCH: usize = 256 << 10;

/// Largest body of one message, so that its frame fits into one of the secret stream (2^24 - 1 bytes with overhead).
pub const MAX_BODY: usize = (1 << 24) - 128;

/// Most channels that one side may have numbered at a time.
pub const MAX_CHANNELS: usize = 1 << 16;

/// Most requests to open that may wait for the owner's decision; further ones are rejected.
pub const MAX_WAITING: usize = 1024;

/// Most bytes kept of messages for channels that wait for the owner's decision, each counted with 512 bytes on top.
/// The channel that goes over it is rejected.
pub const MAX_BUFFERED: usize = 32 << 10;

/// Longest protocol, id and handshake together in a request to open; longer ones are rejected.
pub const MAX_OPEN: usize = 4 << 10;

/// So many messages without an event are one.
const SKIPPED: usize = 64;

const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// One side's channel, as [`Mux::open`] named it. Never reused, so one that is gone can't be taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    slot: u32,
    serial: u64,
}

/// The remote's wish for a channel; answer with [`Mux::open`] of the same name, or [`Mux::reject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    slot: u32,
    serial: u64,
}

/// What the remote did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The remote opens a channel that we did not. Open or reject it at once: some remotes wait for the answer with
    /// everything else, and what they send meanwhile is buffered only up to [`MAX_BUFFERED`].
    OpenRequested {
        /// To reject it.
        request: RequestId,
        /// Its protocol (an alias is replaced by its target, see [`Mux::alias`]).
        protocol: String,
        /// Its id, empty for none.
        id: Bytes,
        /// What the remote says to begin with.
        handshake: Bytes,
    },
    /// Both sides have opened the channel.
    Opened {
        /// Our name for it.
        channel: ChannelId,
        /// What the remote says to begin with.
        handshake: Bytes,
    },
    /// A message on an open channel.
    Message {
        /// Our name for the channel.
        channel: ChannelId,
        /// Kind of the message; unknown ones are to be ignored.
        kind: u64,
        /// A slice of its frame, which it keeps in memory: copy what you keep.
        body: Bytes,
    },
    /// The remote closed the channel; it is gone.
    Closed {
        /// Our name for it.
        channel: ChannelId,
    },
    /// The remote does not have what we opened; the channel is gone.
    Rejected {
        /// Our name for it.
        channel: ChannelId,
    },
    /// Messages that bring nothing, of channels that are closed, for example, between what else was read. There may be millions
    /// in a frame: they are only named so that they can be counted.
    Skipped {
        /// How many since it was said last.
        messages: usize,
    },
}

/// The remote broke the protocol: drop the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A control message or the frame of a message can't be read.
    #[error("unreadable frame: {0}")]
    Decode(#[from] DecodeError),
    /// A channel number that is in use, or not the next one.
    #[error("the remote opened channel {0}, which is in use or skips numbers")]
    InvalidOpen(u64),
    /// A rejection of what we did not ask for.
    #[error("the remote rejected channel {0}, which is not being opened")]
    InvalidReject(u64),
    /// A batch within a batch.
    #[error("a batch inside a batch")]
    NestedBatch,
}

/// Our own request can't be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The channel was closed or rejected.
    #[error("the channel is closed")]
    Closed,
    /// The body is longer than [`MAX_BODY`], or what is said at opening longer than [`MAX_OPEN`].
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// [`MAX_CHANNELS`] are in use.
    #[error("too many channels on one connection")]
    TooManyChannels,
}

/// One end of a multiplexed connection.
#[derive(Debug, Default)]
pub struct Mux {
    aliases: BTreeMap<String, String>,
    /// Our channels; the number on the wire is the index plus one.
    locals: Vec<Local>,
    free: Vec<u32>,
    /// The remote's channels, in the same way.
    remotes: Vec<Remote>,
    /// Openings that only one side has made so far.
    halves: BTreeMap<Name, Halves>,
    serial: u64,
    waiting: usize,
    buffered: usize,
    /// Messages that brought nothing, since it was said.
    skipped: usize,
    input: Input,
    events: VecDeque<Event>,
    output: Output,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    protocol: String,
    id: Bytes,
}

#[derive(Debug, Default)]
struct Halves {
    /// Slots of ours that the remote has not answered.
    ours: VecDeque<u32>,
    /// Slots of the remote that we have not answered.
    theirs: VecDeque<u32>,
}

#[derive(Debug)]
enum Local {
    Free,
    Opening {
        serial: u64,
        name: Name,
    },
    /// Closed by us before the remote answered: the number stays taken until it does.
    Abandoned {
        name: Name,
    },
    Open {
        serial: u64,
        remote: u32,
    },
}

#[derive(Debug)]
enum Remote {
    Free,
    Waiting(Box<Waiting>),
    Open { local: u32 },
}

#[derive(Debug)]
struct Waiting {
    serial: u64,
    name: Name,
    handshake: Bytes,
    messages: Vec<(u64, Bytes)>,
    buffered: usize,
}

impl Mux {
    /// A connection without channels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes remote openings of protocol `name` for ones of `protocol`.
    pub fn alias(&mut self, name: &str, protocol: &str) {
        self.aliases.insert(name.to_owned(), protocol.to_owned());
    }

    /// Opens a channel, or answers the oldest waiting request for it; `id` may be empty.
    ///
    /// [`Event::Opened`] or [`Event::Rejected`] follows; messages may be sent before, but a remote that rejects never sees
    /// them.
    pub fn open(&mut self, protocol: &str, id: &[u8], handshake: &[u8]) -> Result<ChannelId, ChannelError> {
        let said = protocol.len() + id.len() + handshake.len();
        if said > MAX_OPEN {
            return Err(ChannelError::TooLarge(said));
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.locals.len() >= MAX_CHANNELS => return Err(ChannelError::TooManyChannels),
            None => {
                self.locals.push(Local::Free);
                (self.locals.len() - 1) as u32
            }
        };
        let mut open = Writer::with_capacity(said + 16);
        open.uint(number(slot)).string(protocol).buffer(id).raw(handshake);
        self.output.push(0, OPEN, open.as_slice(), (0, &Bytes::new()));

        let name = Name { protocol: protocol.to_owned(), id: Bytes::copy_from_slice(id) };
        let channel = ChannelId { slot, serial: self.next_serial() };
        match self.waiting_request(&name) {
            Some((remote, waiting)) => {
                self.locals[slot as usize] = Local::Open { serial: channel.serial, remote };
                self.remotes[remote as usize] = Remote::Open { local: slot };
                self.events.push_back(Event::Opened { channel, handshake: waiting.handshake });
                let messages = waiting.messages.into_iter();
                self.events.extend(messages.map(|(kind, body)| Event::Message { channel, kind, body }));
            }
            None => {
                self.halves.entry(name.clone()).or_default().ours.push_back(slot);
                self.locals[slot as usize] = Local::Opening { serial: channel.serial, name };
            }
        }
        Ok(channel)
    }

    /// Tells the remote that we do not have what it asked for. Without effect if the request is gone already.
    pub fn reject(&mut self, request: RequestId) {
        match self.remotes.get(request.slot as usize) {
            Some(Remote::Waiting(waiting)) if waiting.serial == request.serial => self.reject_slot(request.slot),
            _ => {}
        }
    }

    /// Queues a message on a channel.
    pub fn send(&mut self, channel: ChannelId, kind: u64, body: &[u8]) -> Result<(), ChannelError> {
        self.send_around(channel, kind, body, (0, &Bytes::new()))
    }

    /// Queues a message whose body has something else in between, after so many bytes (at its end if it has fewer): what is
    /// large is not copied.
    pub fn send_around(
        &mut self,
        channel: ChannelId,
        kind: u64,
        body: &[u8],
        (at, large): (usize, &Bytes),
    ) -> Result<(), ChannelError> {
        if !self.is_alive(channel) {
            return Err(ChannelError::Closed);
        }
        let len = body.len() + large.len();
        if len > MAX_BODY {
            return Err(ChannelError::TooLarge(len));
        }
        self.output.push(number(channel.slot), kind, body, (at.min(body.len()), large));
        Ok(())
    }

    /// Closes a channel. No event follows, and none of its messages; without effect if it is gone already.
    pub fn close(&mut self, channel: ChannelId) {
        if !self.is_alive(channel) {
            return;
        }
        self.output.push_control(CLOSE, number(channel.slot));
        let local = &mut self.locals[channel.slot as usize];
        match std::mem::replace(local, Local::Free) {
            Local::Opening { name, .. } => *local = Local::Abandoned { name },
            Local::Open { remote, .. } => {
                self.remotes[remote as usize] = Remote::Free;
                self.free.push(channel.slot);
            }
            Local::Free | Local::Abandoned { .. } => unreachable!("is_alive was checked above"),
        }
        // What a waiting request had buffered may still be queued for a channel opened in this round.
        self.events.retain(|event| !event.is_about(channel));
    }

    /// Whether messages can be sent on the channel: not closed by us, closed by the remote or rejected.
    pub fn is_alive(&self, channel: ChannelId) -> bool {
        match self.locals.get(channel.slot as usize) {
            Some(Local::Opening { serial, .. } | Local::Open { serial, .. }) => *serial == channel.serial,
            _ => false,
        }
    }

    /// How many channels we have open or are opening.
    pub fn channels(&self) -> usize {
        self.locals.len() - self.free.len()
    }

    /// Takes a frame that came from the remote; [`Mux::next`] reads it.
    pub fn receive(&mut self, frame: Bytes) {
        self.input.push(frame);
    }

    /// What the remote did next, or `None` when all received frames are read. After an error drop the connection.
    #[expect(clippy::should_implement_trait, reason = "fallible, and more comes after None")]
    pub fn next(&mut self) -> Result<Option<Event>, MuxError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let event = match self.input.next()? {
                None => return Ok(None),
                Some(Part::Channel) => None,
                Some(Part::Message(message)) if message.channel == 0 => self.control(message)?,
                Some(Part::Message(message)) => self.deliver(message),
            };
            if event.is_some() {
                return Ok(event);
            }
            self.skipped += 1;
            if self.skipped == SKIPPED {
                self.skipped = 0;
                return Ok(Some(Event::Skipped { messages: SKIPPED }));
            }
        }
    }

    /// Bytes that came and were not read: [`Mux::next`] has nothing more when there are none and it said so.
    pub fn input_len(&self) -> usize {
        self.events.len() + self.input.len()
    }

    /// Copies what was not read, and lets go of the frames in which it came: for who will not read on for a while. Bodies that
    /// [`Mux::next`] returned are slices of the frames still.
    pub fn copy_input(&mut self) {
        self.input.copy();
    }

    /// The next frame for the remote: everything queued so far, in batches. Call it until `None` after each round.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        self.take_frame().map(Vec::from)
    }

    /// The same, without a copy of what is large.
    pub fn take_frame(&mut self) -> Option<Frame> {
        self.output.take()
    }

    /// Bytes queued for the remote. The owner slows down what it answers when they grow.
    pub fn output_len(&self) -> usize {
        self.output.len
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn deliver(&mut self, message: Message) -> Option<Event> {
        let slot = u32::try_from(message.channel - 1).ok()?;
        match self.remotes.get_mut(slot as usize)? {
            // Sent before the remote knew that the channel was closed.
            Remote::Free => None,
            Remote::Open { local } => {
                let local = *local;
                let Local::Open { serial, .. } = self.locals[local as usize] else {
                    unreachable!("an open remote slot names an open local one");
                };
                let channel = ChannelId { slot: local, serial };
                Some(Event::Message { channel, kind: message.kind, body: message.body })
            }
            Remote::Waiting(waiting) => {
                let cost = 512 + message.body.len();
                if self.buffered + cost > MAX_BUFFERED {
                    self.reject_slot(slot);
                    return None;
                }
                self.buffered += cost;
                waiting.buffered += cost;
                waiting.messages.push((message.kind, Bytes::copy_from_slice(&message.body)));
                None
            }
        }
    }

    fn control(&mut self, message: Message) -> Result<Option<Event>, MuxError> {
        let mut r = Reader::new(&message.body);
        match message.kind {
            BATCH if message.batched => Err(MuxError::NestedBatch),
            OPEN => self.remote_opens(r),
            REJECT => self.remote_rejects(r.uint()?),
            CLOSE => Ok(self.remote_closes(r.uint()?)),
            _ => Ok(None),
        }
    }

    fn remote_opens(&mut self, mut r: Reader<'_>) -> Result<Option<Event>, MuxError> {
        let said = r.remaining();
        let channel = r.uint()?;
        if channel == 0 {
            self.output.push_control(REJECT, 0);
            return Ok(None);
        }
        let slot = channel - 1;
        if slot == self.remotes.len() as u64 && self.remotes.len() < MAX_CHANNELS {
            self.remotes.push(Remote::Free);
        }
        let slot = match self.remotes.get(slot as usize) {
            Some(Remote::Free) => slot as u32,
            _ => return Err(MuxError::InvalidOpen(channel)),
        };
        let protocol = r.string()?;
        let id = r.buffer()?;
        if said > MAX_OPEN + 16 {
            self.output.push_control(REJECT, channel);
            return Ok(None);
        }
        let protocol = self.aliases.get(protocol).map_or(protocol, String::as_str).to_owned();
        let name = Name { protocol, id: Bytes::copy_from_slice(id) };
        let handshake = Bytes::copy_from_slice(r.rest());

        if let Some(local) = self.pop_half(&name, |halves| &mut halves.ours) {
            let state = &mut self.locals[local as usize];
            let Local::Opening { serial, .. } = *state else {
                // We closed it meanwhile: the remote will read that, and both numbers are free.
                *state = Local::Free;
                self.free.push(local);
                return Ok(None);
            };
            *state = Local::Open { serial, remote: slot };
            self.remotes[slot as usize] = Remote::Open { local };
            return Ok(Some(Event::Opened { channel: ChannelId { slot: local, serial }, handshake }));
        }
        if self.waiting == MAX_WAITING {
            self.output.push_control(REJECT, channel);
            return Ok(None);
        }
        let request = RequestId { slot, serial: self.next_serial() };
        let event = Event::OpenRequested {
            request,
            protocol: name.protocol.clone(),
            id: name.id.clone(),
            handshake: handshake.clone(),
        };
        self.waiting += 1;
        self.halves.entry(name.clone()).or_default().theirs.push_back(slot);
        let waiting = Waiting { serial: request.serial, name, handshake, messages: Vec::new(), buffered: 0 };
        self.remotes[slot as usize] = Remote::Waiting(Box::new(waiting));
        Ok(Some(event))
    }

    fn remote_rejects(&mut self, channel: u64) -> Result<Option<Event>, MuxError> {
        let invalid = MuxError::InvalidReject(channel);
        let index = channel.checked_sub(1).and_then(|slot| usize::try_from(slot).ok()).ok_or(invalid)?;
        let slot = index as u32;
        let (name, event) = match self.locals.get(index) {
            Some(Local::Opening { name, serial }) => {
                (name.clone(), Some(Event::Rejected { channel: ChannelId { slot, serial: *serial } }))
            }
            Some(Local::Abandoned { name }) => (name.clone(), None),
            _ => return Err(invalid),
        };
        self.locals[index] = Local::Free;
        self.free.push(slot);
        self.remove_half(&name, slot, |halves| &mut halves.ours);
        Ok(event)
    }

    fn remote_closes(&mut self, channel: u64) -> Option<Event> {
        let slot = u32::try_from(channel.checked_sub(1)?).ok()?;
        match self.remotes.get(slot as usize)? {
            Remote::Free => None,
            Remote::Waiting(_) => {
                // The remote's number stays taken until we answer.
                self.reject_slot(slot);
                None
            }
            Remote::Open { local } => {
                let local = *local;
                let state = std::mem::replace(&mut self.locals[local as usize], Local::Free);
                let Local::Open { serial, .. } = state else {
                    unreachable!("an open remote slot names an open local one");
                };
                self.remotes[slot as usize] = Remote::Free;
                self.free.push(local);
                Some(Event::Closed { channel: ChannelId { slot: local, serial } })
            }
        }
    }

    /// Takes the oldest request of the remote for `name`.
    fn waiting_request(&mut self, name: &Name) -> Option<(u32, Waiting)> {
        let slot = self.pop_half(name, |halves| &mut halves.theirs)?;
        Some((slot, self.end_waiting(slot)))
    }

    fn reject_slot(&mut self, slot: u32) {
        let waiting = self.end_waiting(slot);
        self.remove_half(&waiting.name, slot, |halves| &mut halves.theirs);
        self.output.push_control(REJECT, number(slot));
    }

    fn end_waiting(&mut self, slot: u32) -> Waiting {
        let Remote::Waiting(waiting) = std::mem::replace(&mut self.remotes[slot as usize], Remote::Free) else {
            unreachable!("callers name a slot that waits");
        };
        self.waiting -= 1;
        self.buffered -= waiting.buffered;
        *waiting
    }

    fn pop_half(&mut self, name: &Name, side: fn(&mut Halves) -> &mut VecDeque<u32>) -> Option<u32> {
        let halves = self.halves.get_mut(name)?;
        let slot = side(halves).pop_front();
        self.drop_empty(name);
        slot
    }

    fn remove_half(&mut self, name: &Name, slot: u32, side: fn(&mut Halves) -> &mut VecDeque<u32>) {
        if let Some(halves) = self.halves.get_mut(name) {
            side(halves).retain(|other| *other != slot);
            self.drop_empty(name);
        }
    }

    fn drop_empty(&mut self, name: &Name) {
        if self.halves.get(name).is_some_and(|halves| halves.ours.is_empty() && halves.theirs.is_empty()) {
            self.halves.remove(name);
        }
    }
}

impl Event {
    fn is_about(&self, this: ChannelId) -> bool {
        match self {
            Event::OpenRequested { .. } | Event::Skipped { .. } => false,
            Event::Opened { channel, .. }
            | Event::Message { channel, .. }
            | Event::Closed { channel }
            | Event::Rejected { channel } => *channel == this,
        }
    }
}

/// The number on the wire.
fn number(slot: u32) -> u64 {
    u64::from(slot) + 1
}
