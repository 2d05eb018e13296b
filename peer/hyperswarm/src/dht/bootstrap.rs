//! Nodes to begin with, as people write them: `HOST:PORT`, where the host is an address, a name, or an address and a
//! name (`88.99.3.86@node1.hyperdht.org:49737`) in case that it has moved.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

/// Where the public DHT begins, the same as in hyperdht.
const PUBLIC: [(Ipv4Addr, &str); 3] = [
    (Ipv4Addr::new(88, 99, 3, 86), "node1.hyperdht.org"),
    (Ipv4Addr::new(142, 93, 90, 113), "node2.hyperdht.org"),
    (Ipv4Addr::new(138, 68, 147, 8), "node3.hyperdht.org"),
];
/// Its port.
const PORT: u16 = 49_737;

/// A node to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, or was when this was written.
    pub address: Option<SocketAddrV4>,
    /// What to ask the DNS for, if there is no address or nobody answers at it.
    pub name: Option<Name>,
}

/// A node's name in the DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The host.
    pub host: String,
    /// The port of its server socket.
    pub port: u16,
}

/// Not a node to begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not HOST:PORT with an IPv4 address, a name, or ADDRESS@NAME for a host")]
pub struct BadEntry(String);

/// The nodes of the public DHT.
pub fn public() -> Vec<Entry> {
    let entry = |(ip, name): (Ipv4Addr, &str)| Entry {
        address: Some(SocketAddrV4::new(ip, PORT)),
        name: Some(Name { host: name.to_owned(), port: PORT }),
    };
    PUBLIC.map(entry).into()
}

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let bad = || BadEntry(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let (ip, name) = match host.split_once('@') {
            Some((ip, name)) => (Some(ip.parse().map_err(|_| bad())?), Some(name)),
            None => match host.parse::<Ipv4Addr>() {
                Ok(ip) => (Some(ip), None),
                Err(_) => (None, Some(host)),
            },
        };
        if name.is_some_and(|name| !is_name(name)) {
            return Err(bad());
        }
        let name = name.map(|name| Name { host: name.to_owned(), port });
        Ok(Entry { address: ip.map(|ip| SocketAddrV4::new(ip, port)), name })
    }
}

/// Whether it could be a name in the DNS; a mistyped address isn't one.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&text.len()) && text.chars().all(fits) && text.contains(|c: char| c.is_ascii_alphabetic())
}

impl fmt::Display for Entry {
    /// A name rather than an address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.address) {
            (Some(name), _) => write!(f, "{}:{}", name.host, name.port),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

impl From<SocketAddrV4> for Entry {
    fn from(address: SocketAddrV4) -> Self {
        Entry { address: Some(address), name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_both_are_read() {
        let entry = |text: &str| text.parse::<Entry>().map(|entry| (entry.address, entry.name.map(|name| name.host)));
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(entry("1.2.3.4:5"), Ok((at("1.2.3.4:5"), None)));
        assert_eq!(entry("localhost:5"), Ok((None, Some("localhost".into()))));
        assert_eq!(entry("88.99.3.86@node1.hyperdht.org:49737").unwrap().0, public()[0].address);
        assert_eq!("88.99.3.86@node1.hyperdht.org:49737".parse(), Ok(public()[0].clone()));
        for bad in ["", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:70000", "1.2.3.400:5", "x@y:5", "a b:5", "[::1]:5", ":5"] {
            assert!(bad.parse::<Entry>().is_err(), "{bad}");
        }
    }
}
