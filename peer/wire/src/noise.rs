//! The Noise handshake of Hypercore and Hyperswarm: `Noise_{XX,IK}_Ed25519_ChaChaPoly_BLAKE2b`.
//!
//! ```text
//! XX   -> e                        streams between two who may not know each other (TCP)
//!      <- e, ee, s, es
//!      -> s, se
//! IK   <- s                        the initiator knows whom it calls (HyperDHT)
//!      -> e, es, s, ss
//!      <- e, ee, se
//! ```
//!
//! A static key is an Ed25519 key pair; Diffie-Hellman is the multiplication of the compressed Edwards point by the
//! clamped secret scalar. Points that libsodium refuses (not canonical, of small order, outside the prime-order group)
//! are refused here too: with one of them a stranger could fix the shared secret or learn bits of ours.

use blake2b_simd::Params;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::SigningKey;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// An Ed25519 public key: the name of a peer.
pub type PublicKey = [u8; 32];

/// Longest Noise message in bytes.
pub const MAX_MESSAGE: usize = 65_535;

const TAG: usize = 16;

/// A peer's secret: made from 32 random bytes, or for a moment as the ephemeral key of one handshake.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The pair that belongs to an Ed25519 seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Keypair(SigningKey::from_bytes(seed))
    }

    /// The name under which others know this peer.
    pub fn public(&self) -> PublicKey {
        self.0.verifying_key().to_bytes()
    }

    fn shared_secret(&self, remote: &PublicKey) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
        let compressed = CompressedEdwardsY(*remote);
        let point = compressed.decompress().ok_or(HandshakeError::InvalidKey)?;
        if point.compress() != compressed || point.is_small_order() || !point.is_torsion_free() {
            return Err(HandshakeError::InvalidKey);
        }
        Ok(Zeroizing::new((point * self.0.to_scalar()).compress().to_bytes()))
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keypair").field(&self.0.verifying_key()).finish()
    }
}

/// Who began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends the first message.
    Initiator,
    /// Answers it.
    Responder,
}

/// What two peers know after the handshake.
#[derive(Clone)]
pub struct Session {
    /// Our part in the handshake.
    pub role: Role,
    /// Whom we talk to, proven.
    pub remote: PublicKey,
    /// The same on both sides and unique to this connection: what is signed or keyed with it can't be used on another.
    pub hash: [u8; 64],
    pub(crate) send: Zeroizing<[u8; 32]>,
    pub(crate) receive: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("role", &self.role).field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// The handshake failed: drop the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A message ends early, is longer than [`MAX_MESSAGE`], or was not made for us.
    #[error("the handshake message is damaged or meant for another key")]
    InvalidMessage,
    /// A key is not a point of the prime-order group.
    #[error("the remote's key is not a valid point")]
    InvalidKey,
    /// The remote has proven another key than the expected one.
    #[error("the remote has another key than expected")]
    UnexpectedRemote {
        /// Its key.
        remote: PublicKey,
    },
    /// A message was read or written that is not due, or after an error.
    #[error("it is not the turn for this handshake message")]
    OutOfTurn,
}

#[derive(Debug, Clone, Copy)]
enum Token {
    E,
    S,
    Ee,
    Es,
    Se,
    Ss,
}
use Token::{E, Ee, Es, S, Se, Ss};

struct Pattern {
    name: &'static [u8],
    messages: &'static [&'static [Token]],
}

const XX: Pattern =
    Pattern { name: b"Noise_XX_Ed25519_ChaChaPoly_BLAKE2b", messages: &[&[E], &[E, Ee, S, Es], &[S, Se]] };
const IK: Pattern =
    Pattern { name: b"Noise_IK_Ed25519_ChaChaPoly_BLAKE2b", messages: &[&[E, Es, S, Ss], &[E, Ee, Se]] };

/// One side of a handshake: [`write`](Handshake::write) and [`read`](Handshake::read) in turn, beginning with the
/// initiator's `write`, until [`finish`](Handshake::finish) returns the session.
pub struct Handshake {
    role: Role,
    messages: &'static [&'static [Token]],
    /// Messages done; beyond the last after an error.
    done: usize,
    symmetric: Symmetric,
    s: Keypair,
    e: Keypair,
    rs: Option<PublicKey>,
    re: Option<PublicKey>,
    expected: Option<PublicKey>,
}

impl Handshake {
    /// A handshake with somebody who need not be known. `expected` refuses all others; `ephemeral` is 32 fresh random
    /// bytes.
    pub fn xx(role: Role, keys: &Keypair, expected: Option<PublicKey>, ephemeral: &[u8; 32]) -> Self {
        let symmetric = Symmetric::new(XX.name, b"");
        Self::new(role, &XX, symmetric, keys, expected, ephemeral)
    }

    /// Calls the owner of the key `remote`.
    pub fn ik_initiator(keys: &Keypair, remote: PublicKey, prologue: &[u8], ephemeral: &[u8; 32]) -> Self {
        let mut symmetric = Symmetric::new(IK.name, prologue);
        symmetric.mix_hash(&remote);
        let mut handshake = Self::new(Role::Initiator, &IK, symmetric, keys, Some(remote), ephemeral);
        handshake.rs = Some(remote);
        handshake
    }

    /// Answers somebody who knows our key.
    pub fn ik_responder(keys: &Keypair, prologue: &[u8], ephemeral: &[u8; 32]) -> Self {
        let mut symmetric = Symmetric::new(IK.name, prologue);
        symmetric.mix_hash(&keys.public());
        Self::new(Role::Responder, &IK, symmetric, keys, None, ephemeral)
    }

    fn new(
        role: Role,
        pattern: &Pattern,
        symmetric: Symmetric,
        keys: &Keypair,
        expected: Option<PublicKey>,
        ephemeral: &[u8; 32],
    ) -> Self {
        let e = Keypair::from_seed(ephemeral);
        Handshake {
            role,
            messages: pattern.messages,
            done: 0,
            symmetric,
            s: keys.clone(),
            e,
            rs: None,
            re: None,
            expected,
        }
    }

    /// Whether our message is due.
    pub fn is_our_turn(&self) -> bool {
        self.done < self.messages.len() && self.done.is_multiple_of(2) == (self.role == Role::Initiator)
    }

    /// Whether all messages are done.
    pub fn is_complete(&self) -> bool {
        self.done == self.messages.len()
    }

    /// Our next message, with a payload that may be empty (in the clear in the first message of XX).
    pub fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (done, tokens) = self.begin(true)?;
        let mut message = Vec::new();
        for token in tokens {
            match token {
                E => {
                    let key = self.e.public();
                    self.symmetric.mix_hash(&key);
                    message.extend(key);
                }
                S => {
                    let key = self.s.public();
                    message.extend(self.symmetric.seal(&key));
                }
                dh => self.mix(*dh)?,
            }
        }
        message.extend(self.symmetric.seal(payload));
        if message.len() > MAX_MESSAGE {
            return Err(HandshakeError::InvalidMessage);
        }
        self.done = done + 1;
        Ok(message)
    }

    /// The key that the remote has, or says to have: proven by the payload that came with it, or after it.
    pub fn remote(&self) -> Option<PublicKey> {
        self.rs
    }

    /// Reads the remote's next message and returns its payload.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (done, tokens) = self.begin(false)?;
        if message.len() > MAX_MESSAGE {
            return Err(HandshakeError::InvalidMessage);
        }
        let mut rest = message;
        for token in tokens {
            match token {
                E => {
                    let key = take::<32>(&mut rest)?;
                    self.symmetric.mix_hash(key);
                    self.re = Some(*key);
                }
                S => {
                    let key = take::<{ 32 + TAG }>(&mut rest)?;
                    let key = self.symmetric.open(key)?;
                    let key = key.try_into().map_err(|_| HandshakeError::InvalidMessage)?;
                    self.rs = Some(key);
                }
                dh => self.mix(*dh)?,
            }
        }
        let payload = self.symmetric.open(rest)?;
        // The key is proven by the message that it comes with.
        if let (Some(remote), Some(expected)) = (self.rs, self.expected)
            && remote != expected
        {
            return Err(HandshakeError::UnexpectedRemote { remote });
        }
        self.done = done + 1;
        Ok(payload)
    }

    /// The session, once [`is_complete`](Handshake::is_complete).
    pub fn finish(self) -> Result<Session, HandshakeError> {
        let remote = self.rs.filter(|_| self.is_complete()).ok_or(HandshakeError::OutOfTurn)?;
        let [first, second] = hkdf(&self.symmetric.chaining, b"");
        let (send, receive) = match self.role {
            Role::Initiator => (first, second),
            Role::Responder => (second, first),
        };
        let (send, receive) = (key_of(&send), key_of(&receive));
        Ok(Session { role: self.role, remote, hash: self.symmetric.hash, send, receive })
    }

    /// The message that is due and its number. Until the caller sets `done` again, none is: an error is final.
    fn begin(&mut self, ours: bool) -> Result<(usize, &'static [Token]), HandshakeError> {
        match self.messages.get(self.done) {
            Some(tokens) if self.is_our_turn() == ours => Ok((std::mem::replace(&mut self.done, usize::MAX), tokens)),
            _ => Err(HandshakeError::OutOfTurn),
        }
    }

    fn mix(&mut self, token: Token) -> Result<(), HandshakeError> {
        let initiator = self.role == Role::Initiator;
        let (local, remote) = match token {
            Ee => (&self.e, self.re),
            Ss => (&self.s, self.rs),
            Es if initiator => (&self.e, self.rs),
            Es => (&self.s, self.re),
            Se if initiator => (&self.s, self.re),
            Se => (&self.e, self.rs),
            E | S => unreachable!("keys are handled by read and write"),
        };
        let remote = remote.expect("the patterns name a key before they use it");
        self.symmetric.mix_key(&*local.shared_secret(&remote)?);
        Ok(())
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("role", &self.role).field("done", &self.done).finish_non_exhaustive()
    }
}

/// Chaining key, transcript hash and current cipher of Noise.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Symmetric {
    chaining: [u8; 64],
    hash: [u8; 64],
    key: Option<[u8; 32]>,
    nonce: u64,
}

impl Symmetric {
    fn new(name: &[u8], prologue: &[u8]) -> Self {
        // Names of up to 64 bytes are padded with zeros.
        let mut hash = [0; 64];
        hash[..name.len()].copy_from_slice(name);
        let mut symmetric = Symmetric { chaining: hash, hash, key: None, nonce: 0 };
        symmetric.mix_hash(prologue);
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = blake2b(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let [chaining, key] = hkdf(&self.chaining, input);
        self.chaining = *chaining;
        self.key = Some(*key_of(&key));
        self.nonce = 0;
    }

    /// Encrypts once there is a key, and adds to the transcript.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let sealed = match self.cipher() {
            None => plain.to_vec(),
            Some((cipher, nonce)) => cipher
                .encrypt(&nonce.into(), Payload { msg: plain, aad: &self.hash })
                .expect("only fails for messages of 256 GiB"),
        };
        self.mix_hash(&sealed);
        sealed
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let plain = match self.cipher() {
            None => sealed.to_vec(),
            Some((cipher, nonce)) => cipher
                .decrypt(&nonce.into(), Payload { msg: sealed, aad: &self.hash })
                .map_err(|_| HandshakeError::InvalidMessage)?,
        };
        self.mix_hash(sealed);
        Ok(plain)
    }

    /// The cipher for the next text, and its nonce: 4 zero bytes, then a counter in little endian.
    fn cipher(&mut self) -> Option<(ChaCha20Poly1305, [u8; 12])> {
        let cipher = ChaCha20Poly1305::new(self.key.as_ref()?.into());
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        Some((cipher, nonce))
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], HandshakeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(HandshakeError::InvalidMessage)?;
    *rest = tail;
    Ok(head)
}

fn key_of(output: &[u8; 64]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*output.first_chunk().expect("32 of 64 bytes"))
}

fn blake2b(parts: &[&[u8]]) -> [u8; 64] {
    let mut state = Params::new().hash_length(64).to_state();
    for part in parts {
        state.update(part);
    }
    *state.finalize().as_array()
}

/// HKDF of Noise with two outputs.
fn hkdf(chaining: &[u8; 64], input: &[u8]) -> [Zeroizing<[u8; 64]>; 2] {
    let secret = Zeroizing::new(hmac(chaining, &[input]));
    let first = Zeroizing::new(hmac(&secret, &[&[1]]));
    let second = Zeroizing::new(hmac(&secret, &[&*first, &[2]]));
    [first, second]
}

/// HMAC over BLAKE2b-512, whose block is 128 bytes.
fn hmac(key: &[u8; 64], parts: &[&[u8]]) -> [u8; 64] {
    let pad = |with: u8| {
        let mut block = Zeroizing::new([with; 128]);
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let (inner, outer) = (pad(0x36), pad(0x5c));
    let mut all = vec![&inner[..]];
    all.extend(parts);
    blake2b(&[&outer[..], &blake2b(&all)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(n: u8) -> Keypair {
        Keypair::from_seed(&[n; 32])
    }

    fn xx_pair() -> [Handshake; 2] {
        [
            Handshake::xx(Role::Initiator, &keys(1), None, &[3; 32]),
            Handshake::xx(Role::Responder, &keys(2), None, &[4; 32]),
        ]
    }

    fn ik_pair() -> [Handshake; 2] {
        let initiator = Handshake::ik_initiator(&keys(1), keys(2).public(), b"prologue", &[3; 32]);
        [initiator, Handshake::ik_responder(&keys(2), b"prologue", &[4; 32])]
    }

    /// Runs a handshake and compares each message with what noise-handshake 4.2.0 makes of the same keys.
    fn replay([mut i, mut r]: [Handshake; 2], payload: impl Fn(usize) -> String, messages: &[&str]) -> [Session; 2] {
        for (n, expected) in messages.iter().enumerate() {
            let (from, to) = if n % 2 == 0 { (&mut i, &mut r) } else { (&mut r, &mut i) };
            let message = from.write(payload(n).as_bytes()).unwrap();
            assert_eq!(hex::encode(&message), *expected);
            assert_eq!(to.read(&message).unwrap(), payload(n).as_bytes());
        }
        let sessions = [i.finish().unwrap(), r.finish().unwrap()];
        assert_eq!(sessions[0].hash, sessions[1].hash);
        assert_eq!((sessions[0].remote, sessions[1].remote), (keys(2).public(), keys(1).public()));
        assert_eq!((&sessions[0].send, &sessions[0].receive), (&sessions[1].receive, &sessions[1].send));
        sessions
    }

    #[test]
    fn xx_is_as_javascript_does_it() {
        let messages = [
            "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
            "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c8924380c5066a7dcffff1174cebcbfefc17dafd675f6dc2e\
             688de867ff96c431a1fcb7f80997fba29d5bbc64a50e8d74e82bc092a89c62eacaf68db17bb5d0b5",
            "585b6e8320c9dfc6764d48e242b912333244a85ae8769c90ee632f1d3bf6945d6d4729ee9c716f0f82946ce191158c480d53f508585c93bb\
             66354bbee6b8bdad",
        ];
        let [session, _] = replay(xx_pair(), |_| String::new(), &messages);
        assert_eq!(
            hex::encode(session.hash),
            "aa42bcea44d843e3803e549191ae7eac847a85dccf21ef3918a7cf228d87b7889b194cdb190b8b2cf82daf543e71e86871532b84ba1d7982\
             489eb3040dcfc412"
        );
        assert_eq!(hex::encode(*session.send), "36e72ba85cd0a2b5e7c9f44704a1757d7230c30dd39736e46f2190fcd1300c13");
        assert_eq!(hex::encode(*session.receive), "29c4a931005b47aaf766f5ec7a119810eb15399b8612e79071f77447826dee17");
    }

    #[test]
    fn ik_is_as_javascript_does_it() {
        let messages = [
            "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1605c88a9067c5f85bd7499907d5c869548dd90bed5350bb2\
             e7cb47efe61f60bcca2d873d678d489034baa14c591216928186248574dc7756d2c37f39046b366075ebd8c939ac5a29b9",
            "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c87b9fb751eab7b5d3c09ab41d25229c7f25633811b4a6379\
             65",
        ];
        let [session, _] = replay(ik_pair(), |n| format!("payload {n}"), &messages);
        assert_eq!(
            hex::encode(session.hash),
            "c01ca9abefdc23c65785ef85e8845dbfb6c32dc5437cd7c58da68cddb52c236d6cf56564a684d2d9627fc7018331e89b51cd0117fe189056\
             9eb102b4f5b331ab"
        );
        assert_eq!(hex::encode(*session.send), "cc00d99bd3a15a6779df38fd42fd25a84d73264023e7c1da95cf3bcbdce9c210");
        assert_eq!(hex::encode(*session.receive), "78dd48ecef5d11fd953197694a8ee2d9f8d86d49d56d856e3dd7c8e78047826b");
    }

    #[test]
    fn only_the_expected_remote_is_accepted() {
        let [_, mut r] = xx_pair();
        let mut i = Handshake::xx(Role::Initiator, &keys(1), Some(keys(9).public()), &[3; 32]);
        r.read(&i.write(b"").unwrap()).unwrap();
        let remote = keys(2).public();
        assert_eq!(i.read(&r.write(b"").unwrap()), Err(HandshakeError::UnexpectedRemote { remote }));
        assert_eq!(i.write(b""), Err(HandshakeError::OutOfTurn));

        let mut stranger = Handshake::ik_initiator(&keys(1), keys(9).public(), b"prologue", &[3; 32]);
        let [_, mut r] = ik_pair();
        assert_eq!(r.read(&stranger.write(b"").unwrap()), Err(HandshakeError::InvalidMessage));
    }

    #[test]
    fn weak_points_are_refused() {
        let order_eight = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
        // A generator times a point of order eight: on the curve, not in the prime-order group.
        let mixed = {
            let eight = CompressedEdwardsY(hex::decode(order_eight).unwrap().try_into().unwrap()).decompress().unwrap();
            (CompressedEdwardsY(keys(5).public()).decompress().unwrap() + eight).compress().to_bytes()
        };
        let not_canonical = {
            let mut p = [0xff; 32];
            (p[0], p[31]) = (0xee, 0x7f);
            p
        };
        let identity = {
            let mut one = [0; 32];
            one[0] = 1;
            one
        };
        let not_on_curve = (0..).map(|n| [n; 32]).find(|key| CompressedEdwardsY(*key).decompress().is_none()).unwrap();
        let order_eight = hex::decode(order_eight).unwrap().try_into().unwrap();
        for point in [[0; 32], identity, order_eight, mixed, not_canonical, not_on_curve] {
            assert_eq!(keys(1).shared_secret(&point), Err(HandshakeError::InvalidKey), "{}", hex::encode(point));
            let [_, mut r] = xx_pair();
            r.read(&point).unwrap();
            assert_eq!(r.write(b""), Err(HandshakeError::InvalidKey));
        }
        assert!(keys(1).shared_secret(&keys(5).public()).is_ok());
    }

    #[test]
    fn turns_are_kept() {
        let [mut i, mut r] = xx_pair();
        assert_eq!(r.write(b""), Err(HandshakeError::OutOfTurn));
        assert_eq!(i.read(&[0; 32]), Err(HandshakeError::OutOfTurn));
        i.write(b"").unwrap();
        assert_eq!(i.write(b""), Err(HandshakeError::OutOfTurn));
        assert!(i.finish().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_changed_bit_ends_the_handshake(ik: bool, n in 0..3usize, byte: usize, bit in 0..8u8) {
            let [mut i, mut r] = if ik { ik_pair() } else { xx_pair() };
            let mut failed = false;
            for turn in 0..3 {
                let (from, to) = if turn % 2 == 0 { (&mut i, &mut r) } else { (&mut r, &mut i) };
                if from.is_complete() { break }
                let Ok(mut message) = from.write(b"x") else { failed = true; break };
                if turn == n {
                    let at = byte % message.len();
                    message[at] ^= 1 << bit;
                }
                if to.read(&message).is_err() { failed = true; break }
            }
            prop_assert!(failed || (ik && n == 2));
        }

        #[test]
        fn any_message_is_read_or_refused(ik: bool, first: Vec<u8>, second in prop::collection::vec(any::<u8>(), 0..300)) {
            let [mut i, mut r] = if ik { ik_pair() } else { xx_pair() };
            _ = r.read(&first).and_then(|_| r.write(b"")).and_then(|_| r.read(&second));
            _ = i.write(b"").and_then(|_| i.read(&second)).and_then(|_| i.write(b""));
        }
    }
}
