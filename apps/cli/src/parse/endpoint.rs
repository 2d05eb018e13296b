//! Where a peer listens: `HOST:PORT`.

use std::{
    fmt,
    net::{SocketAddr, SocketAddrV4, ToSocketAddrs},
    str::FromStr,
};

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Not an endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// No `HOST:PORT`.
    #[error("`{0}` is not HOST:PORT: write for example 203.0.113.7:4977, [2001:db8::7]:4977 or host.example:4977")]
    Form(String),
    /// No such host.
    #[error("the host of {0} can't be found: is the name right, and is this computer online?")]
    NotFound(Endpoint),
    /// No IPv4 address.
    #[error("{0} has no IPv4 address, and the DHT knows no others")]
    NotV4(Endpoint),
}

impl Endpoint {
    /// Looks the host up, for those who speak IPv4 only.
    pub fn resolve_v4(&self) -> Result<SocketAddrV4, BadEndpoint> {
        let addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|_| BadEndpoint::NotFound(self.clone()))?;
        let v4 = |address| if let SocketAddr::V4(address) = address { Some(address) } else { None };
        addresses.into_iter().find_map(v4).ok_or_else(|| BadEndpoint::NotV4(self.clone()))
    }

    /// Looks the host up: all its addresses, one at least.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, BadEndpoint> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map(Vec::from_iter);
        addresses.ok().filter(|all| !all.is_empty()).ok_or_else(|| BadEndpoint::NotFound(self.clone()))
    }

    /// The host's first address at which somebody can answer who listens at `listen`.
    pub fn resolve_for(&self, listen: SocketAddr) -> Result<SocketAddr, BadEndpoint> {
        let all = self.resolve()?;
        let first = all.iter().find(|address| address.is_ipv4() == listen.is_ipv4());
        Ok(first.copied().unwrap_or(all[0]))
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint::Form(text.into());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(address.port())
                .filter(|&port| port != 0)
                .ok_or_else(bad)
                .map(|port| Self { host: address.ip().to_string(), port });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(bad)?;
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(bad());
        }
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_are_understood() {
        for text in ["203.0.113.7:4977", "[2001:db8::7]:4977", "host.example:4977", "localhost:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let endpoint: Endpoint = "127.0.0.1:4977".parse().unwrap();
        assert_eq!(endpoint.resolve(), Ok(vec!["127.0.0.1:4977".parse().unwrap()]));
        let local: Endpoint = "localhost:4977".parse().unwrap();
        assert!(local.resolve_for(([0, 0, 0, 0], 1).into()).unwrap().is_ipv4(), "::1 comes first in many places");
        assert_eq!(endpoint.resolve_v4(), Ok("127.0.0.1:4977".parse().unwrap()));
        let v6: Endpoint = "[::1]:4977".parse().unwrap();
        assert_eq!(v6.resolve_v4(), Err(BadEndpoint::NotV4(v6)));
    }

    #[test]
    fn a_missing_or_impossible_port_is_refused_with_an_example() {
        for text in ["127.0.0.1", "host:", "host:0", "host:99999", ":80", "a b:80", "2001:db8::7:4977", "127.0.0.1:0"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains("203.0.113.7:4977"), "{text}: {error}");
        }
    }
}
