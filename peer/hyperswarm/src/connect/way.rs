//! Which way leads to a peer that has answered.
//!
//! JavaScript asks in the same order, but goes straight to whoever offers no hole punching before it looks whether one of
//! the two is open to strangers or both are in one network.

use crate::dht::address::{Scope, nearest};
use crate::dht::handshake::{Firewall, Payload};
use std::net::SocketAddrV4;

/// How an answer came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The node that was asked.
    pub by: SocketAddrV4,
    /// Where the peer is, as that node sees it; none if we asked the peer itself.
    pub server: Option<SocketAddrV4>,
    /// Where we are, as that node sees it.
    pub us: SocketAddrV4,
}

/// Where to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To this address.
    Straight(SocketAddrV4),
    /// Strangers reach us: the peer begins.
    TheyBegin,
    /// To `near`, in a network that we seem to share, if it answers there; else straight to `outside`, if that may help.
    Near { near: SocketAddrV4, outside: Option<SocketAddrV4> },
    /// A hole would have to be punched.
    Closed,
}

/// The way to a peer that answered with `payload`. `local` are our addresses in our own networks.
pub(super) fn way(payload: &Payload, seen: Seen, we_are_open: bool, local: &[SocketAddrV4]) -> Way {
    let Some(server) = seen.server else { return Way::Straight(seen.by) };
    let public = payload.addresses.iter().find(|address| Scope::of(*address.ip()) == Scope::Public);
    let outside = public.copied().unwrap_or(server);
    if payload.firewall == Firewall::Open {
        return Way::Straight(outside);
    }
    if we_are_open {
        return Way::TheyBegin;
    }
    // Who punches holes lets nobody in before. Of the others nothing is known: their router may well let us in.
    let is_punchable = payload.holepunch.as_ref().is_some_and(|info| !info.relays.is_empty());
    let outside = Some(outside).filter(|_| !is_punchable);
    // A router seldom sends a packet back in that came from inside, so two peers behind one don't meet outside of it.
    let near = if server.ip() == seen.us.ip() { near(payload, local) } else { None };
    match (near, outside) {
        (Some(near), outside) => Way::Near { near, outside },
        (None, Some(outside)) => Way::Straight(outside),
        (None, None) => Way::Closed,
    }
}

/// The peer's address that looks most like one in our own networks.
fn near(payload: &Payload, local: &[SocketAddrV4]) -> Option<SocketAddrV4> {
    let usable = |address: &&SocketAddrV4| Scope::of(*address.ip()) != Scope::Reserved;
    let theirs: Vec<SocketAddrV4> = payload.addresses.iter().filter(usable).copied().collect();
    let ours: Vec<_> = local.iter().map(|address| *address.ip()).collect();
    nearest(&ours, &theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::handshake::HolepunchInfo;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address")
    }

    /// Whether the relay sees both at one host; the server's firewall, its addresses, whether it punches; whether we are open;
    /// the way.
    type Case<'a> = (bool, Firewall, &'a [&'a str], bool, bool, Way);

    #[test]
    fn every_two_peers_have_their_way() {
        const OPEN: Firewall = Firewall::Open;
        const UNKNOWN: Firewall = Firewall::Unknown;
        let outside = "7.7.7.7:700";
        let (named, far, lan, elsewhere) = ("7.7.7.7:49737", "192.168.1.9:9", "192.168.1.5:5", "10.1.1.5:5");
        let near = |outside: Option<&str>| Way::Near { near: at(lan), outside: outside.map(at) };
        let straight = |to: &str| Way::Straight(at(to));
        let ways: [Case; 17] = [
            // The server is open: to the address that it names, or where the relay sees it.
            (false, OPEN, &[named, lan], false, false, straight(named)),
            (false, OPEN, &[lan], true, true, straight(outside)),
            (true, OPEN, &[named, lan], false, false, straight(named)),
            // We are open.
            (false, UNKNOWN, &[lan], false, true, Way::TheyBegin),
            (false, UNKNOWN, &[lan], true, true, Way::TheyBegin),
            (true, UNKNOWN, &[lan], false, true, Way::TheyBegin),
            // Behind one router: near, and outside only if nobody would punch.
            (true, UNKNOWN, &[lan], false, false, near(Some(outside))),
            (true, UNKNOWN, &[lan], true, false, near(None)),
            (true, UNKNOWN, &[named, elsewhere, lan], false, false, near(Some(named))),
            (true, Firewall::Random, &["192.168.9.9:9", lan], false, false, near(Some(outside))),
            // Behind one router, as it seems, but in no network that we know of.
            (true, UNKNOWN, &[elsewhere], false, false, straight(outside)),
            (true, UNKNOWN, &[elsewhere], true, false, Way::Closed),
            (true, UNKNOWN, &["224.0.0.1:5"], true, false, Way::Closed),
            (true, UNKNOWN, &[], false, false, straight(outside)),
            // Behind two routers.
            (false, UNKNOWN, &[lan], false, false, straight(outside)),
            (false, UNKNOWN, &[named, lan], false, false, straight(named)),
            (false, Firewall::Consistent, &[named, lan], true, false, Way::Closed),
        ];
        for (one_router, firewall, addresses, punches, we_are_open, expected) in ways {
            let punch = HolepunchInfo { id: 0, relays: vec![(at("8.8.8.8:8"), at(outside))] };
            let payload = Payload {
                refusal: None,
                firewall,
                holepunch: punches.then_some(punch),
                addresses: addresses.iter().map(|text| at(text)).collect(),
                udx: None,
                secret_stream: true,
                relay_through: None,
                relays: Vec::new(),
            };
            let us = if one_router { "7.7.7.7:100" } else { "6.6.6.6:100" };
            let seen = Seen { by: at("8.8.8.8:8"), server: Some(at(outside)), us: at(us) };
            let way_now = way(&payload, seen, we_are_open, &[at(far)]);
            assert_eq!(way_now, expected, "{firewall:?} at {addresses:?}, {one_router} {punches} {we_are_open}");
            // Whoever answered itself is reached where it was asked.
            assert_eq!(way(&payload, Seen { server: None, ..seen }, we_are_open, &[at(far)]), straight("8.8.8.8:8"));
        }
    }

    #[test]
    fn an_offer_to_punch_without_relays_is_none() {
        let payload = Payload {
            refusal: None,
            firewall: Firewall::Consistent,
            holepunch: Some(HolepunchInfo { id: 0, relays: Vec::new() }),
            addresses: Vec::new(),
            udx: None,
            secret_stream: true,
            relay_through: None,
            relays: Vec::new(),
        };
        let seen = Seen { by: at("8.8.8.8:8"), server: Some(at("7.7.7.7:7")), us: at("6.6.6.6:6") };
        assert_eq!(way(&payload, seen, false, &[]), Way::Straight(at("7.7.7.7:7")));
    }
}
