//! Protomux.
//!
//! - Two honest ends, whatever they do in whatever order, never call each other broken; messages of a channel come in the order
//!   in which they were sent, each once, on one channel; and in the end both know the same channels.
//! - No frame of a stranger makes an end panic, or answer much more than it got.

use crate::input::Input;
use bytes::Bytes;
use datdot_wire::mux::{ChannelId, Event, MAX_WAITING, Mux, RequestId};
use std::collections::{BTreeMap, VecDeque};

/// The first byte says whether the other end is honest.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 2 {
        0 => hostile(&mut input),
        _ => honest(&mut input),
    }
}

const NAMES: [(&str, &[u8]); 4] =
    [("hypercore/alpha", &[7; 32]), ("hypercore/alpha", &[8; 32]), ("chat", b""), ("other", b"")];

fn new_mux() -> Mux {
    let mut mux = Mux::new();
    mux.alias("hypercore", "hypercore/alpha");
    mux
}

fn hostile(input: &mut Input<'_>) {
    let mut mux = new_mux();
    let (mut got, mut said) = (0, 0);
    let mut channels = Vec::new();
    let mut requests = Vec::new();
    while !input.is_empty() {
        match input.u8() % 8 {
            0..4 => {
                let frame = Bytes::copy_from_slice(input.part());
                got += frame.len();
                mux.receive(frame);
            }
            4 => {
                let (protocol, id) = NAMES[input.below(NAMES.len())];
                let handshake = input.part();
                said += protocol.len() + id.len() + handshake.len() + 32;
                channels.extend(mux.open(protocol, id, handshake));
            }
            5 if !channels.is_empty() => mux.close(channels[input.below(channels.len())]),
            6 if !channels.is_empty() => {
                let (channel, body) = (channels[input.below(channels.len())], input.part());
                said += body.len() + 32;
                assert_eq!(mux.send(channel, input.uint() >> 11, body).is_ok(), mux.is_alive(channel));
            }
            7 if !requests.is_empty() => mux.reject(requests[input.below(requests.len())]),
            _ => {}
        }
        loop {
            match mux.next() {
                Ok(None) => break,
                Err(_) => return,
                Ok(Some(Event::OpenRequested { request, .. })) => requests.push(request),
                Ok(Some(Event::Opened { channel, .. } | Event::Message { channel, .. })) => {
                    assert!(mux.is_alive(channel) && channels.contains(&channel));
                }
                Ok(Some(Event::Closed { channel } | Event::Rejected { channel })) => assert!(!mux.is_alive(channel)),
                // A message takes a byte.
                Ok(Some(Event::Skipped { messages })) => assert!(messages <= got, "{messages} messages in {got} bytes"),
            }
        }
        // A control message of ours has at most 14 bytes, and answers one of at least 3.
        assert!(mux.output_len() <= 8 * got + said + 64, "{} for {got} and {said}", mux.output_len());
        assert!(mux.channels() <= channels.len() && requests.len() <= got);
    }
}

/// One end, with what it knows of its channels.
struct End {
    mux: Mux,
    channels: Vec<ChannelId>,
    requests: Vec<(RequestId, String, Bytes)>,
    sent: BTreeMap<ChannelId, u64>,
    /// By our channel: the channel of the other end whose messages come there, and how many did.
    heard: BTreeMap<ChannelId, (ChannelTag, u64)>,
    wire: VecDeque<Vec<u8>>,
}

type ChannelTag = [u8; 8];

fn honest(input: &mut Input<'_>) {
    let end = || End {
        mux: new_mux(),
        channels: Vec::new(),
        requests: Vec::new(),
        sent: BTreeMap::new(),
        heard: BTreeMap::new(),
        wire: VecDeque::new(),
    };
    let mut ends = [end(), end()];
    for _ in 0..512 {
        if input.is_empty() {
            break;
        }
        let here = input.below(2);
        match input.u8() % 6 {
            0 => ends[here].open(input),
            1 => ends[here].send(input),
            2 => ends[here].close(input),
            3 => ends[here].reject(input),
            4 => ends[here].flush(),
            _ => _ = deliver(&mut ends, here),
        }
    }
    // What each was asked is answered; then both have heard everything.
    for _ in 0..2 * MAX_WAITING {
        for here in [0, 1] {
            while let Some((request, ..)) = ends[here].requests.pop() {
                ends[here].mux.reject(request);
            }
            ends[here].flush();
            while deliver(&mut ends, here) {}
        }
        if ends.iter().all(|end| end.wire.is_empty() && end.requests.is_empty()) {
            break;
        }
    }
    let [one, other] = ends.map(|mut end| {
        assert!(end.mux.take_output().is_none());
        end.mux.channels()
    });
    assert_eq!(one, other, "channels that only one end knows");
}

/// Brings a frame of the end `from` to the other one; says whether there was one.
fn deliver(ends: &mut [End; 2], from: usize) -> bool {
    let Some(frame) = ends[from].wire.pop_front() else { return false };
    let End { mux, requests, heard, .. } = &mut ends[1 - from];
    mux.receive(frame.into());
    while let Some(event) = mux.next().expect("the other end is honest") {
        match event {
            Event::OpenRequested { request, protocol, id, .. } => requests.push((request, protocol, id)),
            Event::Message { channel, kind, body } => {
                let (tag, _) = body.split_first_chunk().expect("that is what was sent");
                let (from, count) = heard.entry(channel).or_insert((*tag, 0));
                assert_eq!((from, *count), (&mut tag.clone(), kind), "a message that is lost, or out of place");
                *count += 1;
            }
            Event::Opened { .. } | Event::Closed { .. } | Event::Rejected { .. } | Event::Skipped { .. } => {}
        }
    }
    true
}

impl End {
    fn open(&mut self, input: &mut Input<'_>) {
        // What was asked is opened rather than anything else.
        // The oldest request of this name is answered, whichever was meant; one that is gone may be rejected without effect.
        let asked = if input.bool() { self.requests.last() } else { None };
        let name = match asked {
            Some((_, protocol, id)) => (protocol.clone(), id.clone()),
            None => {
                let (protocol, id) = NAMES[input.below(NAMES.len())];
                (protocol.to_owned(), Bytes::from_static(id))
            }
        };
        self.channels.push(self.mux.open(&name.0, &name.1, b"hello").expect("they are few"));
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.channels.len().checked_sub(1).map(|last| input.below(last + 1)) else { return };
        let sent = self.sent.entry(self.channels[at]).or_default();
        let mut body = (at as u64).to_le_bytes().to_vec();
        body.extend(input.part());
        if self.mux.send(self.channels[at], *sent, &body).is_ok() {
            *sent += 1;
        }
    }

    fn close(&mut self, input: &mut Input<'_>) {
        if let Some(last) = self.channels.len().checked_sub(1) {
            self.mux.close(self.channels[input.below(last + 1)]);
        }
    }

    fn reject(&mut self, input: &mut Input<'_>) {
        if let Some(last) = self.requests.len().checked_sub(1) {
            let (request, ..) = self.requests.swap_remove(input.below(last + 1));
            self.mux.reject(request);
        }
    }

    fn flush(&mut self) {
        self.wire.extend(std::iter::from_fn(|| self.mux.take_output()));
    }
}
