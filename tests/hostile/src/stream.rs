//! From bytes to texts: the Noise handshake, the frames and the secret stream.
//!
//! - Who changes a byte of a handshake ends it; if both sides finish, both have the same session.
//! - However the bytes of a stream are cut, what comes out is what was sealed before the first changed byte, no more and no less.

use crate::input::Input;
use bytes::Bytes;
use datdot_wire::{
    connection::{Connection, Options},
    noise::{Handshake, Keypair, Role, Session},
    secret_stream::{HEADER, NONCE, Push, put_length},
};
use std::{
    io,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, ReadBuf, sink},
    runtime::{Builder, Runtime},
};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => handshake(&mut input, xx()),
        1 => handshake(&mut input, ik()),
        _ => frames(&mut input),
    }
}

fn keys(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

fn xx() -> [Handshake; 2] {
    let expected = Some(keys(2).public());
    [
        Handshake::xx(Role::Initiator, &keys(1), expected, &[3; 32]),
        Handshake::xx(Role::Responder, &keys(2), None, &[4; 32]),
    ]
}

fn ik() -> [Handshake; 2] {
    let initiator = Handshake::ik_initiator(&keys(1), keys(2).public(), b"prologue", &[3; 32]);
    [initiator, Handshake::ik_responder(&keys(2), b"prologue", &[4; 32])]
}

fn handshake(input: &mut Input<'_>, sides: [Handshake; 2]) {
    let [mut writer, mut reader] = sides;
    let mut is_altered = false;
    while !writer.is_complete() {
        let Ok(message) = writer.write(input.part()) else { return };
        let arrived = input.alter(&message);
        is_altered |= arrived != message;
        if reader.read(&arrived).is_err() {
            assert!(is_altered, "an honest message is refused");
            assert!(reader.write(b"").is_err() && reader.read(&message).is_err(), "an error is final");
            return;
        }
        std::mem::swap(&mut writer, &mut reader);
    }
    assert!(reader.is_complete() && !is_altered, "both sides finished an altered handshake");
    let [one, other] = [writer, reader].map(|side| side.finish().expect("it is complete"));
    assert_eq!(one.hash, other.hash);
    assert_ne!(one.role, other.role);
}

static SESSIONS: LazyLock<[Session; 2]> = LazyLock::new(|| {
    let [mut writer, mut reader] = xx();
    while !writer.is_complete() {
        let message = writer.write(b"").expect("it is its turn");
        reader.read(&message).expect("it is honest");
        std::mem::swap(&mut writer, &mut reader);
    }
    let [one, other] = [writer, reader].map(|side| side.finish().expect("it is complete"));
    if one.role == Role::Initiator { [one, other] } else { [other, one] }
});

fn frames(input: &mut Input<'_>) {
    let (push, header) = Push::new(&SESSIONS[0], &[9; NONCE]);
    let (mut push, mut wire) = (push, Vec::new());
    put_length(HEADER, &mut wire);
    wire.extend(header);
    // Where the frame of each text ends.
    let mut texts: Vec<(usize, Vec<u8>)> = Vec::new();
    for _ in 0..input.below(12) {
        // Some are larger than what is read at a time.
        let text = input.part().repeat(1 + input.below(64) * usize::from(input.bool()));
        push.push(&text, &mut wire).expect("it is small");
        texts.push((wire.len(), text));
    }
    let altered = input.alter(&wire);
    let same = wire.iter().zip(&altered).take_while(|(honest, arrived)| honest == arrived).count();
    let expected: Vec<&[u8]> =
        texts.iter().filter(|(end, text)| *end <= same && !text.is_empty()).map(|(_, text)| &text[..]).collect();
    let cuts = Cuts { bytes: altered.into(), lens: input.rest().to_vec(), at: 0 };
    let read = RUNTIME.with(|runtime| runtime.block_on(read_all(cuts)));
    assert_eq!(read.iter().map(|text| &text[..]).collect::<Vec<_>>(), expected);
}

async fn read_all(from: Cuts) -> Vec<Bytes> {
    let options = Options { keep_alive: None, silence: None, ..Options::default() };
    let mut texts = Vec::new();
    if let Ok(mut connection) = Connection::resume(from, sink(), SESSIONS[1].clone(), &options).await {
        while let Ok(Some(text)) = connection.reader.next().await {
            texts.push(text);
        }
    }
    texts
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime needs little");
}

/// A remote whose bytes come in pieces of these lengths, the last of them again and again.
struct Cuts {
    bytes: Bytes,
    lens: Vec<u8>,
    at: usize,
}

impl AsyncRead for Cuts {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = self.lens.get(self.at).or(self.lens.last()).map_or(usize::MAX, |len| 1 + 16 * usize::from(*len));
        self.at += 1;
        let len = len.min(buffer.remaining()).min(self.bytes.len());
        buffer.put_slice(&self.bytes.split_to(len));
        Poll::Ready(Ok(()))
    }
}
