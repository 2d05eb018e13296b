//! Names of feeds, and the key pairs of those who write them.

use datdot_proof::{
    head::{self, Manifest},
    tree::blake2b,
};
use ed25519_dalek::{Signer as _, SigningKey};
use std::{fmt, str::FromStr};

/// What names a feed: for a compat feed its author's Ed25519 key, else the hash of its manifest.
///
/// Whoever knows it may read the feed. Shown as 64 hex digits; parsed from those or from what JavaScript shows: 52 characters of
/// z-base-32 (`core.id`), with `hyper://` or `pear://` in front or without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedKey(pub [u8; 32]);

impl FeedKey {
    /// What peers call the feed in public.
    pub fn discovery(&self) -> DiscoveryKey {
        DiscoveryKey(head::discovery_key(&self.0))
    }

    /// What shows to the other end of one connection that we know this key, and not only the discovery key.
    ///
    /// `initiator` is the Noise role of whoever shows it, `handshake` the hash of the Noise handshake, which
    /// makes the answer useless on any other connection.
    pub fn capability(&self, initiator: bool, handshake: &[u8; 64]) -> [u8; 32] {
        let mut input = [0; 64];
        input[..32].copy_from_slice(&head::namespace(if initiator { 1 } else { 2 }));
        input[32..].copy_from_slice(&self.0);
        let hash = blake2b_simd::Params::new().hash_length(32).key(handshake).hash(&input);
        hash.as_bytes().try_into().expect("the hash has 32 bytes")
    }
}

impl fmt::Display for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FeedKey({self})")
    }
}

impl FromStr for FeedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = ["hyper://", "pear://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        parse(key).map(FeedKey)
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither 64 nor 52 characters.
    #[error("a key has 64 hex digits, or 52 characters of z-base-32; this has {got} characters")]
    Length {
        /// Characters of the text.
        got: usize,
    },
    /// A character that is no digit.
    #[error("`{0}` can't be in a key")]
    Digit(char),
    /// The characters say more than 32 bytes.
    #[error("the key has bits left over at its end")]
    LeftOver,
}

const Z_BASE_32: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// 32 bytes in hex or in z-base-32.
fn parse(text: &str) -> Result<[u8; 32], KeyError> {
    match text.chars().count() {
        64 => decode(text, 4, |digit| digit.to_digit(16)),
        52 => decode(text, 5, |digit| {
            let at = Z_BASE_32.iter().position(|known| char::from(*known) == digit.to_ascii_lowercase())?;
            u32::try_from(at).ok()
        }),
        got => Err(KeyError::Length { got }),
    }
}

/// Packs digits of `bits` bits each into 32 bytes.
fn decode(text: &str, bits: u32, digit: impl Fn(char) -> Option<u32>) -> Result<[u8; 32], KeyError> {
    let (mut key, mut at) = ([0; 32], 0);
    let (mut buffer, mut filled) = (0u32, 0);
    for char in text.chars() {
        buffer = buffer << bits | digit(char).ok_or(KeyError::Digit(char))?;
        filled += bits;
        if filled >= 8 {
            filled -= 8;
            // 64 times 4 and 52 times 5 bits are 32 whole bytes and less than one more.
            key[at] = (buffer >> filled) as u8;
            at += 1;
            buffer &= (1 << filled) - 1;
        }
    }
    if buffer == 0 { Ok(key) } else { Err(KeyError::LeftOver) }
}

/// The name of a feed in public: it finds peers, but gives nobody the right to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryKey(pub [u8; 32]);

impl fmt::Display for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiscoveryKey({self})")
    }
}

impl FromStr for DiscoveryKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse(text).map(DiscoveryKey)
    }
}

/// An author's Ed25519 key pair. It writes one v1 feed and one compat feed.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The key pair of a seed, which has to come from a cryptographic source of randomness.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Keypair(SigningKey::from_bytes(&seed))
    }

    /// The seed: as secret as the key.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The manifest that Hypercore 11 gives this key pair.
    pub fn manifest(&self) -> Manifest {
        Manifest::v1(self.public())
    }

    /// The key of the feed that this key pair writes under `manifest`.
    pub fn feed_key(&self, manifest: &Manifest) -> FeedKey {
        FeedKey(manifest.feed_key().unwrap_or_else(|| self.public()))
    }

    /// Whether this key pair writes the feed `key` under `manifest`.
    pub fn writes(&self, key: &FeedKey, manifest: &Manifest) -> bool {
        manifest.signer(&key.0) == Ok(self.public())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// What all key pairs of a corestore are derived from. As secret as all of them.
///
/// The same primary key, namespace and name give the same feed in Corestore 7, so that its feeds move over. So feeds are
/// opened by name:
///
/// ```
/// use datdot_hypercore::{Namespace, PrimaryKey, Store};
/// # let dir = tempfile::tempdir()?;
/// # let secret = [7; 32];
/// let store = Store::open(dir.path())?;
/// let keys = PrimaryKey::new(secret);
/// let notes = store.create(&keys.keypair(&Namespace::ROOT, "notes"))?;
/// notes.write(&["buy milk".into()])?;
/// // The same name is the same feed; in another namespace it is another one.
/// assert_eq!(store.create(&keys.keypair(&Namespace::ROOT, "notes"))?.info().length, 1);
/// let work = Namespace::ROOT.within("work");
/// assert_eq!(store.create(&keys.keypair(&work, "notes"))?.info().length, 0);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PrimaryKey([u8; 32]);

/// A part of a corestore whose names are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace([u8; 32]);

impl PrimaryKey {
    /// Takes 32 bytes, which have to come from a cryptographic source of randomness or from a corestore.
    pub fn new(bytes: [u8; 32]) -> PrimaryKey {
        PrimaryKey(bytes)
    }

    /// The key pair of a name. It writes the feed that `store.namespace(…).get({ name })` opens in JavaScript.
    pub fn keypair(&self, namespace: &Namespace, name: &str) -> Keypair {
        let corestore = blake2b(&[&blake2b(&[b"corestore"]), &[0]]);
        let mut hash = blake2b_simd::Params::new().hash_length(32).key(&self.0).to_state();
        hash.update(&corestore).update(&namespace.0).update(name.as_bytes());
        Keypair::from_seed(hash.finalize().as_bytes().try_into().expect("the hash has 32 bytes"))
    }
}

impl Namespace {
    /// The namespace of a corestore that nobody put into another one.
    pub const ROOT: Namespace = Namespace([0; 32]);

    /// The namespace with this name within this one.
    pub fn within(&self, name: &str) -> Namespace {
        Namespace(blake2b(&[&self.0, name.as_bytes()]))
    }
}

impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrimaryKey(secret)")
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({}, secret)", hex::encode(self.public()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_shown() {
        let key = FeedKey([0xa7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("abc".parse::<FeedKey>(), Err(KeyError::Length { got: 3 }));
        assert_eq!("zz".repeat(32).parse::<FeedKey>(), Err(KeyError::Digit('z')));
        assert_eq!("é".repeat(32).parse::<FeedKey>(), Err(KeyError::Length { got: 32 }));
        assert_eq!("é".repeat(64).parse::<FeedKey>(), Err(KeyError::Digit('é')));
        assert_eq!(key.discovery().to_string().parse(), Ok(key.discovery()));
    }

    #[test]
    fn keys_are_read_as_javascript_shows_them() {
        let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let id = "47pjoycnsrfmxikm95jh13y88e8qnhzu5kungjpxyepgt7a8krpy";
        let key: FeedKey = hex.parse().expect("a key");
        assert_eq!(key.to_string(), hex);
        for text in [hex.to_uppercase(), id.into(), format!("hyper://{id}"), format!("pear://{hex}")] {
            assert_eq!(text.parse(), Ok(key), "{text}");
        }
        assert_eq!(id.replace("krpy", "krp9").parse::<FeedKey>(), Err(KeyError::LeftOver));
        assert_eq!(id.replace('y', "l").parse::<FeedKey>(), Err(KeyError::Digit('l')));
        assert_eq!(DiscoveryKey(key.0), id.parse().expect("a key"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let keypair = Keypair::from_seed([7; 32]);
        assert!(!format!("{keypair:?}").contains(&hex::encode([7; 32])));
    }

    #[test]
    fn a_keypair_writes_its_own_two_feeds_only() {
        let (ours, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        for manifest in [ours.manifest(), Manifest::Compat] {
            let key = ours.feed_key(&manifest);
            assert!(ours.writes(&key, &manifest));
            assert!(!other.writes(&key, &manifest));
            assert!(!ours.writes(&FeedKey([3; 32]), &manifest));
        }
    }
}
