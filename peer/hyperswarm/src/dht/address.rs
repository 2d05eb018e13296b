//! Which addresses mean somebody on the Internet, and which somebody near.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reached from everywhere.
    Public,
    /// Reached inside some network, or this machine: the same address means another one elsewhere.
    Private,
    /// Nobody's.
    Reserved,
}

impl Scope {
    /// The scope of a host's address, by the ranges of the special-purpose registry of IANA.
    pub fn of(host: Ipv4Addr) -> Self {
        let [a, b, c, _] = host.octets();
        match (a, b, c) {
            (10 | 127, ..) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => Scope::Private,
            (0 | 224..=255, ..) | (192, 0, 0 | 2) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
                Scope::Reserved
            }
            _ => Scope::Public,
        }
    }
}

/// Of a peer's own addresses the one that looks most like one of ours: most likely they are in one network.
pub fn nearest(ours: &[Ipv4Addr], theirs: &[SocketAddrV4]) -> Option<SocketAddrV4> {
    let shared = |a: Ipv4Addr, b: Ipv4Addr| a.octets().iter().zip(b.octets()).take_while(|(a, b)| **a == *b).count();
    let near = |address: &&SocketAddrV4| ours.iter().map(|own| shared(*own, *address.ip())).max().unwrap_or(0);
    theirs.iter().filter(|address| near(address) > 0).max_by_key(near).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_registry() {
        let scope = |text: &str| Scope::of(text.parse().unwrap());
        for private in ["10.1.2.3", "127.0.0.1", "100.64.0.1", "169.254.1.1", "172.31.0.1", "192.168.0.1"] {
            assert_eq!(scope(private), Scope::Private, "{private}");
        }
        for reserved in ["0.0.0.0", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "255.1.1.1"]
        {
            assert_eq!(scope(reserved), Scope::Reserved, "{reserved}");
        }
        for public in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "192.0.1.1", "198.51.99.1"] {
            assert_eq!(scope(public), Scope::Public, "{public}");
        }
    }

    #[test]
    fn the_nearest_address_is_in_our_network() {
        let ours = ["192.168.1.5".parse().unwrap(), "10.9.0.1".parse().unwrap()];
        let theirs: Vec<SocketAddrV4> =
            ["172.16.0.1:1", "192.168.7.1:2", "10.9.0.7:3"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(nearest(&ours, &theirs), Some(theirs[2]));
        assert_eq!(nearest(&ours, &theirs[..2]), Some(theirs[1]));
        assert_eq!(nearest(&ours, &theirs[..1]), None);
    }
}
