//! What a hoster offers and what a sponsor asks for, as they say it.

use crate::{Balance, Block, MAX_FEEDS, MAX_REPLICAS, MAX_SOURCES, params::Params};
use alloc::vec::Vec;
use bounded_collections::{BoundedVec, ConstU32};
use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use datdot_proof::{
    head::SignedHead,
    segment::{MAX_SEGMENT_BYTES, Segment},
};
use scale_info::TypeInfo;

/// Where a peer can be dialled over TCP. A stranger's word: see [`Address::is_public`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum Address {
    /// IPv4 address and port.
    #[codec(index = 0)]
    V4([u8; 4], u16),
    /// IPv6 address and port.
    #[codec(index = 1)]
    V6([u8; 16], u16),
}

/// A peer to fetch from: its static Noise key (Ed25519) and one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Source {
    /// The key that the peer must prove to hold in the Noise handshake.
    pub noise_key: [u8; 32],
    /// Where it listens.
    pub address: Address,
}

/// A hoster's standing terms.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Offer {
    /// Bytes offered in all; contracts reserve from it.
    pub space: u64,
    /// Lowest price accepted, per GiB·day.
    pub price: Balance,
    /// Longest term accepted, in blocks.
    pub max_term: Block,
    /// Where the hoster says it is (ISO 3166 alpha-2, upper case); a claim.
    pub region: Option<[u8; 2]>,
    /// Static Noise key (Ed25519) of the hoster's peer.
    pub noise_key: [u8; 32],
    /// Where its peer listens; nowhere if it is to be found by the keys of its feeds alone.
    pub addresses: BoundedVec<Address, ConstU32<MAX_SOURCES>>,
}

/// A feed to host: its key, the signed head that the contract is about, and the root of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Feed {
    /// The feed's key.
    pub key: [u8; 32],
    /// A state of the feed signed by its author.
    pub head: SignedHead,
    /// BLAKE3 hash of all blocks of the head, concatenated; claimed by the sponsor.
    pub root: [u8; 32],
}

/// The feeds of a request.
pub type Feeds = BoundedVec<Feed, ConstU32<MAX_FEEDS>>;
/// The segments of a request, one a feed, in the same order.
pub type Segments = BoundedVec<Segment, ConstU32<MAX_FEEDS>>;
/// Peers to fetch from; none if they are to be found by the feed's key alone.
pub type Sources = BoundedVec<Source, ConstU32<MAX_SOURCES>>;

/// How a sponsor wants its feeds hosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct Terms {
    /// Copies at distinct hosters, 1 to [`MAX_REPLICAS`].
    pub replicas: u32,
    /// Blocks for which they are hosted, counted from the first acceptance; at least two periods.
    pub term: Block,
    /// Highest price accepted, per GiB·day.
    pub max_price: Balance,
}

/// Why an offer or a request can't stand as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTerms {
    /// An offer without space.
    #[error("an offer needs at least one byte of space")]
    NoSpace,
    /// An offer without a term.
    #[error("the longest term must be at least two periods ({0} blocks)")]
    TermTooShort(Block),
    /// More replicas than allowed, or none.
    #[error("replicas must be 1 to {MAX_REPLICAS}")]
    Replicas,
    /// Nothing to host.
    #[error("a request names 1 to {MAX_FEEDS} feeds, none twice, each with at least one byte")]
    Feeds,
    /// Too large to be proven or counted.
    #[error("a feed can have at most 16 TiB, and the cost must fit into 128 bits")]
    TooLarge,
}

impl Address {
    /// Whether the address may be dialled on a stranger's word: an ordinary public unicast address with a port. Loopback, private,
    /// shared (RFC 6598), link-local, documentation, benchmarking, multicast and reserved ranges are not.
    pub fn is_public(&self) -> bool {
        match *self {
            Self::V4(ip, port) => port != 0 && v4_is_public(ip),
            Self::V6(ip, port) => port != 0 && v6_is_public(ip),
        }
    }
}

fn v4_is_public([a, b, c, _]: [u8; 4]) -> bool {
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn v6_is_public(ip: [u8; 16]) -> bool {
    // Global unicast is 2000::/3; within it documentation (2001:db8::/32, 3fff::/20), 6to4 and Teredo wrap other addresses.
    let first = u16::from_be_bytes([ip[0], ip[1]]);
    let second = u16::from_be_bytes([ip[2], ip[3]]);
    (0x2000..0x4000).contains(&first)
        && !(first == 0x2001 && (second == 0x0db8 || second < 0x0200))
        && first != 0x2002
        && !(first == 0x3fff && second < 0x1000)
}

impl Offer {
    /// Checks an offer before it is posted.
    pub fn check(&self, params: &Params) -> Result<(), BadTerms> {
        if self.space == 0 {
            return Err(BadTerms::NoSpace);
        }
        if self.max_term < 2 * params.period {
            return Err(BadTerms::TermTooShort(2 * params.period));
        }
        Ok(())
    }
}

impl Terms {
    /// Checks a request before it is opened and gives its segments. The signatures of the heads are checked apart, since that is
    /// what costs time.
    pub fn check(&self, feeds: &Feeds, params: &Params) -> Result<Segments, BadTerms> {
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            return Err(BadTerms::Replicas);
        }
        if self.term < 2 * params.period {
            return Err(BadTerms::TermTooShort(2 * params.period));
        }
        let twice = feeds.iter().enumerate().any(|(i, feed)| feeds[..i].iter().any(|other| other.key == feed.key));
        if feeds.is_empty() || twice {
            return Err(BadTerms::Feeds);
        }
        let mut segments = Vec::with_capacity(feeds.len());
        let mut total = 0u64;
        for feed in feeds {
            let bytes = feed.head.bytes().map_err(|_| BadTerms::TooLarge)?;
            if bytes == 0 {
                return Err(BadTerms::Feeds);
            }
            if bytes > MAX_SEGMENT_BYTES {
                return Err(BadTerms::TooLarge);
            }
            total = total.checked_add(bytes).ok_or(BadTerms::TooLarge)?;
            segments.push(Segment { bytes, root: feed.root });
        }
        segments.try_into().map_err(|_| BadTerms::Feeds)
    }
}

/// All bytes of some segments.
pub fn total_bytes(segments: &[Segment]) -> u64 {
    segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ordinary_public_addresses_are_dialled_on_a_stranger_s_word() {
        let v4 = |ip: &str| Address::V4(ip.parse::<std::net::Ipv4Addr>().unwrap().octets(), 1);
        let v6 = |ip: &str| Address::V6(ip.parse::<std::net::Ipv6Addr>().unwrap().octets(), 1);
        for ip in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!v4(ip).is_public(), "{ip}");
        }
        for ip in [
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "2001::1",
        ] {
            assert!(!v6(ip).is_public(), "{ip}");
        }
        assert!(["8.8.8.8", "172.32.0.1", "100.128.0.1", "193.0.0.1"].iter().all(|ip| v4(ip).is_public()));
        assert!(["2a00:1450::1", "2600::1"].iter().all(|ip| v6(ip).is_public()));
        assert!(!Address::V4([8, 8, 8, 8], 0).is_public());
    }
}
