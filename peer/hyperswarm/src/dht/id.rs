//! Names in the DHT: 32 bytes, compared by XOR.
//!
//! A node's id is the hash of its address, so nobody chooses where it stands; a topic, a peer or a record is found at
//! the hash that names it. The distance of two ids is their XOR, read as one large number.

use blake2b_simd::Params;
use std::cmp::Ordering;
use std::fmt;
use std::net::SocketAddrV4;

/// The place of a node or a record in the DHT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 32]);

/// How far two ids are apart; ordered as a number with the highest byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance([u8; 32]);

impl Id {
    /// The id of the node at `address`: the hash of its 6 bytes.
    pub fn of_node(address: SocketAddrV4) -> Self {
        Id(hash(&[&encode_address(address)]))
    }

    /// The id under which something named by `name` is found: a peer by its public key, an immutable record by its
    /// value.
    pub fn of(name: &[u8]) -> Self {
        Id(hash(&[name]))
    }

    /// How far `other` is from here.
    pub fn distance(&self, other: &Id) -> Distance {
        Distance(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    /// Which of two is closer; the same order as that of their distances, but mostly decided by their first 8 bytes.
    pub fn closer(&self, a: &Id, b: &Id) -> Ordering {
        (self.head() ^ a.head()).cmp(&(self.head() ^ b.head())).then_with(|| self.distance(a).cmp(&self.distance(b)))
    }

    fn head(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("8 of 32 bytes"))
    }

    /// How many bits the two have in common from the front, 0 to 256.
    pub fn shared_bits(&self, other: &Id) -> usize {
        match self.0.iter().zip(&other.0).position(|(a, b)| a != b) {
            None => 256,
            Some(i) => i * 8 + (self.0[i] ^ other.0[i]).leading_zeros() as usize,
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

/// BLAKE2b-256 over `parts`, one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Params::new().hash_length(32).to_state();
    for part in parts {
        state.update(part);
    }
    state.finalize().as_bytes().try_into().expect("32 bytes were asked for")
}

/// BLAKE2b-256 with a key.
pub(crate) fn keyed_hash(key: &[u8], data: &[u8]) -> [u8; 32] {
    let digest = Params::new().hash_length(32).key(key).hash(data);
    digest.as_bytes().try_into().expect("32 bytes were asked for")
}

/// An address as it is written everywhere: 4 bytes, then the port in little endian.
pub(crate) fn encode_address(address: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = address.ip().octets();
    let [low, high] = address.port().to_le_bytes();
    [a, b, c, d, low, high]
}

/// The inverse of [`encode_address`].
pub(crate) fn decode_address([a, b, c, d, low, high]: [u8; 6]) -> SocketAddrV4 {
    SocketAddrV4::new([a, b, c, d].into(), u16::from_le_bytes([low, high]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_node_is_named_as_in_javascript() {
        // dht-rpc 6.27.0: peer.id('127.0.0.1', 49737)
        let id = Id::of_node("127.0.0.1:49737".parse().unwrap());
        assert_eq!(hex::encode(id.0), "d1dcf835b0d62b9230c41393cb96a34f5f8b9f814f421ca3382dfc1678022e0e");
    }

    proptest! {
        #[test]
        fn distance_is_a_metric_and_shared_bits_its_logarithm(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let [a, b, c] = [Id(a), Id(b), Id(c)];
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&a), Distance([0; 32]));
            prop_assert_eq!(a.shared_bits(&a), 256);
            prop_assert_eq!(a.closer(&b, &c), a.distance(&b).cmp(&a.distance(&c)));
            let mut near = b;
            near.0[31] ^= 1;
            prop_assert_eq!(a.closer(&b, &near), a.distance(&b).cmp(&a.distance(&near)));
            if a.shared_bits(&b) > a.shared_bits(&c) {
                prop_assert!(a.distance(&b) < a.distance(&c));
            }
        }

        #[test]
        fn addresses_come_back(ip: [u8; 4], port: u16) {
            let address = SocketAddrV4::new(ip.into(), port);
            prop_assert_eq!(decode_address(encode_address(address)), address);
        }
    }
}
