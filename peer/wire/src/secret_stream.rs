//! The secret stream: frames encrypted and authenticated in order, after a Noise handshake.
//!
//! ```text
//! frame     u24 length, bytes                                               all of what follows, and the Noise messages
//! header    32 stream id: BLAKE2b(namespace of the role, key: handshake hash)   once in each direction
//!           24 nonce: 16 for the key, 8 for the messages
//! message   1 tag, text, 16 authenticator                                   libsodium's secretstream_xchacha20poly1305
//! ```
//!
//! Each message is bound to its place: one that is changed, lost, repeated or moved ends the stream. The construction is
//! libsodium's, from the primitives of RustCrypto, in one pass over large blocks.

use crate::noise::{Role, Session};
use blake2b_simd::Params;
use bytes::{Buf, Bytes, BytesMut};
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, hchacha};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest frame in bytes: what its length field can say.
pub const MAX_FRAME: usize = (1 << 24) - 1;

/// Bytes that encryption adds to a message.
pub const OVERHEAD: usize = 1 + MAC;

/// Longest text of one message.
pub const MAX_TEXT: usize = MAX_FRAME - OVERHEAD;

/// Bytes of the header that each side sends first.
pub const HEADER: usize = 32 + NONCE;

/// Random bytes in a header.
pub const NONCE: usize = 24;

const MAC: usize = 16;

/// Copied, encrypted and authenticated while it is in the first cache.
const CHUNK: usize = 8 << 10;

/// The stream is broken, by accident or by force: drop the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The header is not the one of this handshake and the other role.
    #[error("the stream does not begin with the header of its handshake")]
    InvalidHeader,
    /// A message that the remote has not sent, or not at this place.
    #[error("a message is forged, damaged or out of order")]
    InvalidMessage,
    /// A text of our own above [`MAX_TEXT`].
    #[error("a message of {0} bytes does not fit into a frame")]
    TooLarge(usize),
}

/// Encrypts what we send.
pub struct Push(Cipher);

impl Push {
    /// The stream of a session, and the header that the remote must get first. `nonce` is fresh and random.
    pub fn new(session: &Session, nonce: &[u8; NONCE]) -> (Self, [u8; HEADER]) {
        let mut header = [0; HEADER];
        header[..32].copy_from_slice(&stream_id(session, session.role));
        header[32..].copy_from_slice(nonce);
        (Push(Cipher::new(&session.send, nonce)), header)
    }

    /// Appends the frame of `text`, with its length in front, to `out`.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
        self.push_parts(text.len(), [text].into_iter(), out)
    }

    /// The same for a text of `len` bytes that is in several places.
    pub fn push_parts<'a>(
        &mut self,
        len: usize,
        parts: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        if len > MAX_TEXT {
            return Err(StreamError::TooLarge(len));
        }
        out.reserve(3 + OVERHEAD + len);
        put_length(len + OVERHEAD, out);
        self.0.seal(parts, out);
        Ok(())
    }
}

/// Decrypts what the remote sends.
pub struct Pull(Cipher);

impl Pull {
    /// The stream that begins with `header`, the remote's first frame after the handshake.
    pub fn new(session: &Session, header: &[u8]) -> Result<Self, StreamError> {
        let header: &[u8; HEADER] = header.try_into().map_err(|_| StreamError::InvalidHeader)?;
        let remote = match session.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let (id, nonce) = header.split_first_chunk::<32>().expect("a header is longer than its id");
        if *id != stream_id(session, remote) {
            return Err(StreamError::InvalidHeader);
        }
        let nonce = nonce.try_into().expect("the rest of a header is its nonce");
        Ok(Pull(Cipher::new(&session.receive, nonce)))
    }

    /// The text of a frame (without its length), decrypted where it is.
    pub fn pull(&mut self, mut frame: BytesMut) -> Result<Bytes, StreamError> {
        let text = frame.len().checked_sub(OVERHEAD).ok_or(StreamError::InvalidMessage)?;
        self.0.open(&mut frame)?;
        frame.advance(1);
        frame.truncate(text);
        Ok(frame.freeze())
    }
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Push").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull").finish_non_exhaustive()
    }
}

/// Appends the length in front of a frame of at most [`MAX_FRAME`] bytes.
pub fn put_length(frame: usize, out: &mut Vec<u8>) {
    debug_assert!(frame <= MAX_FRAME);
    out.extend_from_slice(&(frame as u32).to_le_bytes()[..3]);
}

/// The length that stands in front of a frame.
pub fn get_length(bytes: [u8; 3]) -> usize {
    let [low, middle, high] = bytes.map(usize::from);
    low | middle << 8 | high << 16
}

/// Which end of which connection sends: keyed with the handshake hash, so that no stream passes for another.
fn stream_id(session: &Session, sender: Role) -> [u8; 32] {
    let hash = |input: &[u8], key: &[u8]| -> [u8; 32] {
        let hash = Params::new().hash_length(32).key(key).hash(input);
        *hash.as_bytes().first_chunk().expect("32 bytes were asked for")
    };
    let mut namespace = [0; 33];
    namespace[..32].copy_from_slice(&hash(b"hyperswarm/secret-stream", b""));
    namespace[32] = match sender {
        Role::Initiator => 0,
        Role::Responder => 1,
    };
    hash(&hash(&namespace, b""), &session.hash)
}

/// One direction of libsodium's secretstream.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Cipher {
    key: [u8; 32],
    /// Message counter (4 bytes, little endian), then 8 bytes that change with every authenticator.
    nonce: [u8; 12],
}

/// The tag of all that we send, as JavaScript does; it accepts any, and so do we.
const MESSAGE: u8 = 0;

/// A message with this bit in its tag is followed by a new key.
const REKEY: u8 = 2;

impl Cipher {
    fn new(key: &[u8; 32], header: &[u8; NONCE]) -> Self {
        let (derive, rest) = header.split_first_chunk::<16>().expect("a nonce has 24 bytes");
        let mut nonce = [0; 12];
        nonce[0] = 1;
        nonce[4..].copy_from_slice(rest);
        Cipher { key: hchacha::<chacha20::R20>(key.into(), derive.into()).into(), nonce }
    }

    /// Appends an encrypted message: its tag, the text, the authenticator.
    fn seal<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
        let (mut cipher, mut mac) = self.start();
        let mut block = [0; 64];
        block[0] = MESSAGE;
        cipher.apply_keystream(&mut block);
        mac.blocks(&block);
        out.push(block[0]);
        let mut done = out.len();
        for chunk in parts.flat_map(|part| part.chunks(CHUNK)) {
            out.extend_from_slice(chunk);
            // What is left of a block of the cipher waits for the next part.
            let end = out.len() - (out.len() - done) % 64;
            cipher.apply_keystream(&mut out[done..end]);
            mac.chunk(&out[done..end]);
            done = end;
        }
        cipher.apply_keystream(&mut out[done..]);
        mac.chunk(&out[done..]);
        let mac = mac.finish();
        out.extend_from_slice(&mac);
        self.step(&mac, MESSAGE);
    }

    /// Checks and decrypts a message with tag in front and authenticator behind, where it is.
    fn open(&mut self, message: &mut [u8]) -> Result<(), StreamError> {
        let (message, expected) = message.split_last_chunk_mut::<MAC>().ok_or(StreamError::InvalidMessage)?;
        let (tag, text) = message.split_first_mut().ok_or(StreamError::InvalidMessage)?;
        let (mut cipher, mut mac) = self.start();
        let mut block = [0; 64];
        block[0] = *tag;
        cipher.apply_keystream(&mut block);
        std::mem::swap(&mut block[0], tag);
        mac.blocks(&block);
        for chunk in text.chunks_mut(CHUNK) {
            mac.chunk(chunk);
            cipher.apply_keystream(chunk);
        }
        // What was decrypted is given to nobody unless it is authentic.
        let mac = mac.finish();
        if !bool::from(mac.ct_eq(expected)) {
            text.fill(0);
            return Err(StreamError::InvalidMessage);
        }
        self.step(&mac, *tag);
        Ok(())
    }

    /// The key stream from its second block on; its first one is the key of the authenticator.
    fn start(&self) -> (ChaCha20, Mac) {
        let mut cipher = ChaCha20::new((&self.key).into(), (&self.nonce).into());
        let mut first = [0; 64];
        cipher.apply_keystream(&mut first);
        let key: &[u8; 32] = first.first_chunk().expect("32 of 64 bytes");
        let mac = Mac { poly: Poly1305::new(key.into()), len: 0, rest: [0; 16] };
        first.zeroize();
        (cipher, mac)
    }

    fn step(&mut self, mac: &[u8; MAC], tag: u8) {
        let (counter, inner) = self.nonce.split_first_chunk_mut::<4>().expect("a nonce has 12 bytes");
        inner.iter_mut().zip(mac).for_each(|(byte, mac)| *byte ^= mac);
        let next = u32::from_le_bytes(*counter).wrapping_add(1);
        *counter = next.to_le_bytes();
        if next == 0 || tag & REKEY != 0 {
            self.rekey();
        }
    }

    fn rekey(&mut self) {
        let mut cipher = ChaCha20::new((&self.key).into(), (&self.nonce).into());
        cipher.apply_keystream(&mut self.key);
        cipher.apply_keystream(&mut self.nonce[4..]);
        self.nonce[..4].copy_from_slice(&1u32.to_le_bytes());
    }
}

/// The authenticator: Poly1305 over the tag's block, the text, padding, and both lengths.
struct Mac {
    poly: Poly1305,
    len: u64,
    /// What is left of the text behind its last whole block.
    rest: [u8; 16],
}

impl Mac {
    fn blocks(&mut self, bytes: &[u8]) {
        let (blocks, _) = poly1305::Block::slice_as_chunks(bytes);
        self.poly.update(blocks);
    }

    /// The next part of the text; all but the last consist of whole blocks.
    fn chunk(&mut self, bytes: &[u8]) {
        self.blocks(bytes);
        self.len += bytes.len() as u64;
        let rest = bytes.len() % 16;
        self.rest[..rest].copy_from_slice(&bytes[bytes.len() - rest..]);
    }

    fn finish(self) -> [u8; MAC] {
        // libsodium pads with `len % 16` zeros, where one would expect as many as are missing to 16.
        let rest = (self.len % 16) as usize;
        let mut last = [0; 48];
        last[..rest].copy_from_slice(&self.rest[..rest]);
        let lengths = last[2 * rest..].first_chunk_mut::<16>().expect("2 * 15 + 16 < 48");
        lengths[8..].copy_from_slice(&(64 + self.len).to_le_bytes());
        self.poly.compute_unpadded(&last[..2 * rest + 16]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Handshake, Keypair};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn sessions() -> [Session; 2] {
        static SESSIONS: LazyLock<[Session; 2]> = LazyLock::new(shake_hands);
        SESSIONS.clone()
    }

    fn shake_hands() -> [Session; 2] {
        let keys = [Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32])];
        let mut i = Handshake::xx(Role::Initiator, &keys[0], None, &[3; 32]);
        let mut r = Handshake::xx(Role::Responder, &keys[1], None, &[4; 32]);
        r.read(&i.write(b"").unwrap()).unwrap();
        i.read(&r.write(b"").unwrap()).unwrap();
        r.read(&i.write(b"").unwrap()).unwrap();
        [i.finish().unwrap(), r.finish().unwrap()]
    }

    fn stream() -> (Push, Pull) {
        let [i, r] = sessions();
        let (push, header) = Push::new(&i, &[9; NONCE]);
        (push, Pull::new(&r, &header).unwrap())
    }

    fn sealed(push: &mut Push, text: &[u8]) -> BytesMut {
        let mut out = Vec::new();
        push.push(text, &mut out).unwrap();
        assert_eq!(get_length(out[..3].try_into().unwrap()), out.len() - 3);
        out[3..].into()
    }

    #[test]
    fn messages_of_javascript_are_read() {
        // sodium-secretstream 1.2.0 with 32 bytes of 9 as key
        let header = hex::decode("bf2889e3d5d55facc551a3a7cc1f0b19d1a65aafc9a4ef93").unwrap();
        let mut cipher = Cipher::new(&[9; 32], &header.try_into().unwrap());
        for (sealed, text) in [
            ("b0f2b2f6610728eb0dfcecc17721df0849", String::new()),
            ("1b5b4ee18321d9bcb62f76b5835ecc40869ca0", "hi".to_owned()),
            ("e0c877e22432e96672fa82c84342ddcc44472f1dcb6a008a38b206ee19fa8f265d83", "x".repeat(17)),
        ] {
            let mut message = hex::decode(sealed).unwrap();
            cipher.open(&mut message).unwrap();
            assert_eq!(&message[1..message.len() - MAC], text.as_bytes());
        }
    }

    #[test]
    fn stream_ids_are_as_javascript_makes_them() {
        let mut session = sessions()[0].clone();
        session.hash = [7; 64];
        let id = |role| hex::encode(stream_id(&session, role));
        assert_eq!(id(Role::Initiator), "d5f5a3d684b17ee13767a9901f5d210e442db8ce1c4ca3be1786e2397c15207a");
        assert_eq!(id(Role::Responder), "d3833e0179b10770b21079240c7c1d5b5cc69d8f53313772043b95fd50cdcbd8");
    }

    #[test]
    fn a_header_of_another_stream_is_refused() {
        let [i, r] = sessions();
        let (_, header) = Push::new(&i, &[9; NONCE]);
        assert!(matches!(Pull::new(&i, &header), Err(StreamError::InvalidHeader)), "our own, reflected");
        assert!(matches!(Pull::new(&r, &header[1..]), Err(StreamError::InvalidHeader)));
        let mut other = r.clone();
        other.hash[0] ^= 1;
        assert!(matches!(Pull::new(&other, &header), Err(StreamError::InvalidHeader)));
    }

    #[test]
    fn the_key_changes_when_the_counter_runs_over() {
        let (mut push, mut pull) = stream();
        for cipher in [&mut push.0, &mut pull.0] {
            cipher.nonce[..4].fill(0xff);
        }
        let key = push.0.key;
        for text in ["last of the old key", "first of the new one"] {
            assert_eq!(pull.pull(sealed(&mut push, text.as_bytes())), Ok(Bytes::from(text)));
        }
        assert_ne!(push.0.key, key);
        assert_eq!(push.0.nonce[..4], [2, 0, 0, 0]);
    }

    #[test]
    fn lost_repeated_and_short_messages_end_the_stream() {
        let (mut push, mut pull) = stream();
        let [first, second] = [&b"first"[..], b"second"].map(|text| sealed(&mut push, text));
        assert_eq!(pull.pull(second), Err(StreamError::InvalidMessage));
        assert!(pull.pull(first.clone()).is_ok());
        assert_eq!(pull.pull(first), Err(StreamError::InvalidMessage));
        for len in 0..OVERHEAD {
            assert_eq!(pull.pull(BytesMut::zeroed(len)), Err(StreamError::InvalidMessage));
        }
    }

    #[test]
    fn the_largest_text_fills_the_largest_frame() {
        let (mut push, _) = stream();
        let mut out = Vec::new();
        push.push(&vec![0; MAX_TEXT], &mut out).unwrap();
        assert_eq!(out.len(), 3 + MAX_FRAME);
        assert_eq!(push.push(&vec![0; MAX_TEXT + 1], &mut out), Err(StreamError::TooLarge(MAX_TEXT + 1)));
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_pulled_and_as_libsodium_does_it(lens in prop::collection::vec(prop_oneof![0..200usize, 8_000..40_000usize], 1..5)) {
            let (mut push, mut pull) = stream();
            let key = crypto_secretstream::Key::from(*sessions()[0].send);
            let mut theirs = crypto_secretstream::PullStream::init(crypto_secretstream::Header::from([9; NONCE]), &key);
            for (n, len) in lens.into_iter().enumerate() {
                let text: Vec<u8> = (0..len).map(|i| (i * 7 + n) as u8).collect();
                let (mut frame, cut) = (Vec::new(), len * 2 / 3);
                push.push_parts(len, [&text[..cut], &text[cut..]].into_iter(), &mut frame).unwrap();
                let frame = BytesMut::from(&frame[3..]);
                let mut again = frame.to_vec();
                theirs.pull(&mut again, &[]).expect("the reference accepts it");
                prop_assert_eq!(&again, &text);
                prop_assert_eq!(&pull.pull(frame).unwrap()[..], &text);
            }
        }

        #[test]
        fn a_changed_bit_is_noticed(len in 0..100usize, byte: usize, bit in 0..8u8) {
            let (mut push, mut pull) = stream();
            let mut frame = sealed(&mut push, &vec![5; len]);
            let at = byte % frame.len();
            frame[at] ^= 1 << bit;
            prop_assert_eq!(pull.pull(frame), Err(StreamError::InvalidMessage));
        }
    }
}
