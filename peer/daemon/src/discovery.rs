//! Where a feed can be fetched.

use datdot_hypercore::FeedKey;
use datdot_ledger::Ledger;
use datdot_market::terms::{Address, Source};
use futures::future::BoxFuture;
use std::net::{IpAddr, SocketAddr};

/// A peer that may have a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The Noise key that it must prove to hold, if that is known.
    pub noise_key: Option<[u8; 32]>,
}

/// Finds peers that may have a feed.
pub trait Discovery: Send + Sync {
    /// Peers for a feed, the most promising first; none if nothing is known.
    fn find(&self, feed: FeedKey) -> BoxFuture<'_, Vec<Endpoint>>;
}

/// What the ledger says: hosters of the feed, then the sources that sponsors named.
pub struct OnLedger(pub Ledger);

impl Discovery for OnLedger {
    fn find(&self, feed: FeedKey) -> BoxFuture<'_, Vec<Endpoint>> {
        Box::pin(async move {
            if !self.0.is_up() {
                // The swarm may know, and so may the user.
                return Vec::new();
            }
            match self.0.sources(&feed.0).await {
                Ok(sources) => sources.iter().map(Endpoint::from).collect(),
                Err(error) => {
                    tracing::warn!(target: "daemon", %feed, %error, "the ledger can't say who has the feed");
                    Vec::new()
                }
            }
        })
    }
}

impl From<&Source> for Endpoint {
    fn from(source: &Source) -> Self {
        let address = match source.address {
            Address::V4(ip, port) => SocketAddr::from((ip, port)),
            Address::V6(ip, port) => SocketAddr::from((ip, port)),
        };
        Endpoint { address, noise_key: Some(source.noise_key) }
    }
}

/// An address as the ledger writes it.
pub fn on_ledger(address: SocketAddr) -> Address {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Address::V4(ip.octets(), address.port()),
        IpAddr::V6(ip) => Address::V6(ip.octets(), address.port()),
    }
}

/// Whether an address may be dialled on a stranger's word, or named to strangers.
pub fn is_public(address: SocketAddr) -> bool {
    on_ledger(address).is_public()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_address_in_disguise_is_not_public() {
        for private in ["127.0.0.1:1", "10.0.0.1:1", "[::1]:1", "[::ffff:192.168.1.1]:1", "1.1.1.1:0"] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        assert!(is_public("1.1.1.1:3282".parse().unwrap()));
    }
}
