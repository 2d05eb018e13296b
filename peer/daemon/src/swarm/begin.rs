//! Where a node of the DHT begins: at nodes that everybody knows, and at those that it knew the last time.

use crate::files;
use datdot_hyperswarm::dht::{
    self, Dht, Role,
    bootstrap::{self, Entry},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};
use tokio::time::sleep;

/// The file with what is known of the DHT.
pub(super) const FILE: &str = "dht.json";
/// Nodes that are taken from it.
const MAX_KNOWN: usize = 512;
/// A network that isn't there is looked for again by the node itself; we ask it so often.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether and how peers are found by the keys of feeds alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Settings {
    /// They aren't.
    #[default]
    Off,
    /// Through the [public](bootstrap::public) nodes. On a dev chain there is no swarm then: its peers are the world's business no more
    /// than the world is theirs.
    Public,
    /// Through these nodes.
    Through(Vec<SocketAddrV4>),
}

impl Settings {
    /// The same as it is shown.
    pub(super) fn names(&self) -> Vec<String> {
        self.entries().iter().map(ToString::to_string).collect()
    }

    fn entries(&self) -> Vec<Entry> {
        match self {
            Settings::Off => vec![],
            Settings::Public => bootstrap::public(),
            Settings::Through(nodes) => nodes.iter().copied().map(Entry::from).collect(),
        }
    }

    fn addresses(&self) -> Vec<SocketAddrV4> {
        self.entries().iter().filter_map(|entry| entry.address).collect()
    }
}

/// What is written down.
#[derive(Serialize, Deserialize)]
struct Known {
    /// Through whom we came to know them: another network's nodes are of no use, and none of our business.
    bootstrap: Vec<SocketAddrV4>,
    nodes: Vec<SocketAddrV4>,
}

/// The nodes that were known the last time, if that was the same network. A file that can't be understood is as good as none.
pub(super) fn load(path: &Path, settings: &Settings) -> io::Result<Vec<SocketAddrV4>> {
    let Some(content) = files::read(path)? else { return Ok(vec![]) };
    let Ok(Known { bootstrap, mut nodes }) = serde_json::from_slice(&content) else { return Ok(vec![]) };
    nodes.truncate(if bootstrap == settings.addresses() { MAX_KNOWN } else { 0 });
    Ok(nodes)
}

pub(super) fn save(path: &Path, settings: &Settings, nodes: &[SocketAddrV4]) -> io::Result<()> {
    let known = Known { bootstrap: settings.addresses(), nodes: nodes.iter().take(MAX_KNOWN).copied().collect() };
    files::replace(path, &serde_json::to_vec(&known)?)
}

/// How our node begins: a guest that becomes a host once its address proves to be stable and open.
pub(super) fn node(settings: &Settings, listen: SocketAddr, known: Vec<SocketAddrV4>) -> dht::Settings {
    let host = match listen {
        SocketAddr::V4(listen) => *listen.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    // Nobody needs a host that is gone with this machine's loopback.
    let role = if host.is_loopback() { Role::Guest } else { Role::Adaptive };
    let node = dht::Config { known, role, ..dht::Config::default() }.begin_with(settings.entries());
    dht::Settings { node, host, port: listen.port() }
}

/// Returns as soon as any node of the DHT is known.
pub(super) async fn find_the_network(dht: &Dht) {
    while dht.bootstrapped().await.is_ok() && dht.look(|node| node.known()).await.is_ok_and(|known| known == 0) {
        sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_again_in_the_same_network_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let nodes: Vec<SocketAddrV4> = (0..600).map(|n| SocketAddrV4::new([1, 2, 3, 4].into(), 1_000 + n)).collect();
        let local = Settings::Through(vec!["127.0.0.1:49737".parse().unwrap()]);
        assert_eq!(load(&path, &local).unwrap(), []);
        save(&path, &local, &nodes).unwrap();
        assert_eq!(load(&path, &local).unwrap(), nodes[..MAX_KNOWN]);
        assert_eq!(load(&path, &Settings::Public).unwrap(), []);
        std::fs::write(&path, "{\"bootstrap\":[").unwrap();
        assert_eq!(load(&path, &local).unwrap(), [], "a torn file is none");
    }
}
