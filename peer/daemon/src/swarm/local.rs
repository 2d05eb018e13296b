//! A DHT of one machine: some nodes on loopback that know nobody else.

use datdot_hyperswarm::dht::{Config, Dht, Role, Settings};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

/// Nodes: a newcomer asks five of them how they see it.
const NODES: usize = 6;
/// Where the first is if nobody else is there: the port at which the DHT begins everywhere.
const PORT: u16 = 49_737;
/// Ports that are tried.
const TRIES: usize = 20;

/// A DHT on loopback, that ends when this is dropped.
#[derive(Debug)]
pub struct LocalDht {
    nodes: Vec<Dht>,
}

impl LocalDht {
    /// Begins the nodes, one after the other.
    pub async fn start() -> io::Result<Self> {
        let first = first().await?;
        let mut nodes = vec![first];
        while nodes.len() < NODES {
            let node = Config { bootstrap: vec![nodes[0].local_addr()], ..host() };
            nodes.push(begin(node, 0).await?);
        }
        Ok(LocalDht { nodes })
    }

    /// Where others begin.
    pub fn bootstrap(&self) -> SocketAddrV4 {
        self.nodes[0].local_addr()
    }
}

fn host() -> Config {
    Config { role: Role::Host, firewalled: false, ..Config::default() }
}

/// The first node: it has to be told its address, so its port has to be known before it is bound.
async fn first() -> io::Result<Dht> {
    let mut port = PORT;
    for _ in 0..TRIES {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let dht = begin(Config { address: Some(address), ..host() }, port).await?;
        if dht.local_addr() == address {
            return Ok(dht);
        }
        port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free UDP port is to be had on loopback"))
}

async fn begin(node: Config, port: u16) -> io::Result<Dht> {
    let dht = Dht::start(Settings { node, host: Ipv4Addr::LOCALHOST, port }).await?;
    dht.bootstrapped().await.map_err(io::Error::other)?;
    Ok(dht)
}
