//! The addresses of this machine in its own networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// More are no help to anybody, and a handshake has no room for them.
const MAX_ADDRESSES: usize = 8;

/// All of them but those of the loopback interface, the [main one](main_address) first.
pub fn addresses() -> Vec<Ipv4Addr> {
    let main = main_address();
    let listed = if_addrs::get_if_addrs().unwrap_or_default();
    let others = listed.into_iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    let mut others: Vec<Ipv4Addr> = others
        .filter_map(|interface| match interface.ip() {
            IpAddr::V4(ip) => Some(ip).filter(|ip| !ip.is_unspecified() && Some(*ip) != main),
            IpAddr::V6(_) => None,
        })
        .collect();
    others.sort_unstable();
    others.dedup();
    main.into_iter().chain(others).take(MAX_ADDRESSES).collect()
}

/// The address that packets to the Internet come from: if it is another one, we are in another network.
pub fn main_address() -> Option<Ipv4Addr> {
    // Nothing is sent: the system only tells which address it would send from.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(own) if !own.ip().is_unspecified() => Some(*own.ip()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_address_comes_first_and_each_comes_once() {
        let all = addresses();
        assert!(main_address().is_none_or(|main| all[0] == main), "{all:?}");
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.iter().all(|ip| !ip.is_loopback()));
    }
}
