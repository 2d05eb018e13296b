//! Who can reach us: what the node of the DHT found out, as it is shown.

use super::begin::{self, Settings};
use datdot_api::status::{Nat, SwarmStatus};
use datdot_hyperswarm::dht::{Dht, Status, nat::Outside};
use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};
use tokio::time::timeout;

/// How long finding out may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an answer may be on its way.
const LATE: Duration = Duration::from_secs(2);

/// There is no swarm.
pub(super) fn off(why: &str) -> SwarmStatus {
    SwarmStatus { off: Some(why.into()), ..SwarmStatus::default() }
}

/// What a node at `listen` found out, that knows so many others.
pub(super) fn status(status: Status, listen: SocketAddrV4, known: usize) -> SwarmStatus {
    let Status { bootstrapped, online, reach, .. } = status;
    let nat = match reach.outside {
        None => Nat::Unknown,
        Some(Outside::Address(_)) if !reach.firewalled => Nat::Open,
        Some(Outside::Address(_)) => Nat::Consistent,
        Some(Outside::Randomized(_)) => Nat::Random,
    };
    let outside = reach.outside.map(|outside| match outside {
        Outside::Address(address) => address.to_string(),
        Outside::Randomized(host) => host.to_string(),
    });
    SwarmStatus {
        listen: Some(listen.to_string()),
        answers: bootstrapped.then_some(online && known > 0),
        known: known as u32,
        nat,
        outside,
        host: reach.host,
        ..SwarmStatus::default()
    }
}

/// Begins a node of the DHT for a moment, and asks those that it finds how they see us. `listen` is where a daemon would
/// listen.
pub async fn examine(settings: &Settings, listen: SocketAddr) -> io::Result<SwarmStatus> {
    let dht = Dht::start(begin::node(settings, listen, vec![])).await?;
    _ = timeout(PATIENCE, begin::find_the_network(&dht)).await;
    let known = dht.look(|node| node.known()).await.map_err(io::Error::other)?;
    // What was sent to find out whether strangers reach us may still be on its way.
    _ = timeout(LATE, dht.status().wait_for(|status| !status.reach.firewalled)).await;
    let now = *dht.status().borrow();
    // Whoever has waited so long knows.
    let now = Status { bootstrapped: true, ..now };
    Ok(SwarmStatus { bootstrap: settings.names(), ..status(now, dht.local_addr(), known) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::LocalDht;
    use datdot_hyperswarm::dht::Reach;

    #[test]
    fn each_kind_of_nat_is_told_apart() {
        let address: SocketAddrV4 = "1.2.3.4:5".parse().unwrap();
        let nat = |outside, firewalled| {
            let reach = Reach { outside, firewalled, host: false };
            let status = status(Status { bootstrapped: true, online: true, reach, moves: 0 }, address, 7);
            (status.nat, status.outside, status.answers)
        };
        assert_eq!(nat(None, true), (Nat::Unknown, None, Some(true)));
        let same = Some(Outside::Address(address));
        assert_eq!(nat(same, false), (Nat::Open, Some("1.2.3.4:5".into()), Some(true)));
        assert_eq!(nat(same, true).0, Nat::Consistent);
        let random = Some(Outside::Randomized(*address.ip()));
        assert_eq!(nat(random, true), (Nat::Random, Some("1.2.3.4".into()), Some(true)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_a_network_of_one_machine_nothing_keeps_others_out() {
        let dht = LocalDht::start().await.unwrap();
        let settings = Settings::Through(vec![dht.bootstrap()]);
        let found = examine(&settings, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_eq!((found.nat, found.answers), (Nat::Open, Some(true)), "{found:?}");
        assert_eq!(found.bootstrap, [dht.bootstrap().to_string()]);
    }
}
