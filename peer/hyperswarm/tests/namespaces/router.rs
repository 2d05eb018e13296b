//! Two peers behind one router, and the world outside of it.
//!
//! ```text
//!   home 192.168.7.2 ──┐
//!                      ├── router 8.8.4.254 ── outside: hosts of the DHT 8.8.4.1 to 6, a server, a visitor
//!  study 192.168.7.3 ──┘     every address of the inside leaves as its own; nothing comes in unasked
//! ```

use super::machines::{Machine, ready, role, run};
use super::{echo, guest, host, listening, talk};
use datdot_hyperswarm::dht::{Dht, nat::Outside};
use std::net::Ipv4Addr;

const TEST: &str = "router::behind_a_router_a_peer_meets_its_neighbour_and_whoever_is_open";
const HOSTS: u8 = 6;
const ROUTER: Ipv4Addr = outside(254);
const HOME: Ipv4Addr = inside(2);
const STUDY: Ipv4Addr = inside(3);
/// The seed of the server outside, and of the one in the study.
const OPEN: u8 = 1;
const NEIGHBOUR: u8 = 2;

const fn outside(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(8, 8, 4, n)
}

const fn inside(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 7, n)
}

#[test]
fn behind_a_router_a_peer_meets_its_neighbour_and_whoever_is_open() {
    match role().as_deref() {
        Some("outside") => run(the_world()),
        Some("study") => run(the_neighbour()),
        Some("home") => run(the_peer()),
        Some(_) => run(the_visitor()),
        None => match Homes::new() {
            Ok(homes) => {
                let _world = homes.outside.start(TEST, "outside").ready();
                let _neighbour = homes.study.start(TEST, "study").ready();
                homes.home.start(TEST, "home").succeeds();
                homes.outside.start(TEST, "visitor").succeeds();
            }
            Err(reason) => eprintln!("skipped: {reason}"),
        },
    }
}

async fn the_world() {
    let mut hosts = Vec::new();
    for n in 1..=HOSTS {
        hosts.push(host(outside(n), outside(1)).await);
    }
    let dht = open(10).await;
    let mut server = listening(&dht, OPEN).await;
    ready();
    echo(&mut server).await;
}

async fn the_neighbour() {
    let dht = guest(STUDY, outside(1)).await;
    let is_outside = |outside: Outside| outside.host() == ROUTER;
    let known =
        dht.status().wait_for(|status| status.reach.outside.is_some_and(is_outside)).await.map(|status| *status);
    assert!(known.expect("it is told its address").reach.firewalled);
    let mut server = listening(&dht, NEIGHBOUR).await;
    ready();
    echo(&mut server).await;
}

async fn the_peer() {
    let dht = guest(HOME, outside(1)).await;
    let stream = talk(&dht, 3, OPEN).await;
    assert_eq!(stream.address().map(|address| address.ip()), Some(outside(10).into()));
    let stream = talk(&dht, 3, NEIGHBOUR).await;
    assert_eq!(stream.address().map(|address| address.ip()), Some(STUDY.into()), "they meet inside");
}

/// The router lets nobody in, but whoever is open can wait for the server's first packet.
async fn the_visitor() {
    let dht = open(11).await;
    let stream = talk(&dht, 4, NEIGHBOUR).await;
    assert_eq!(stream.address().map(|address| address.ip()), Some(ROUTER.into()));
}

/// A guest outside that knows that everybody reaches it.
async fn open(n: u8) -> Dht {
    let dht = guest(outside(n), outside(1)).await;
    dht.status().wait_for(|status| !status.reach.firewalled).await.expect("strangers reach it");
    dht
}

struct Homes {
    outside: Machine,
    home: Machine,
    study: Machine,
    _router: Machine,
}

impl Homes {
    fn new() -> Result<Homes, String> {
        let (world, router) = (Machine::new("outside")?, Machine::new("router")?);
        world.wire("wire", &router, "out")?;
        for n in (1..=HOSTS).chain([10, 11]) {
            world.address(outside(n), "wire")?;
        }
        router.address(ROUTER, "out")?;
        router.ip(&["link", "add", "inside", "type", "bridge"])?;
        router.ip(&["link", "set", "inside", "up"])?;
        router.address(inside(1), "inside")?;
        let behind = |name: &str, address: Ipv4Addr| {
            let machine = Machine::new(name)?;
            machine.wire("wire", &router, name)?;
            router.ip(&["link", "set", name, "master", "inside"])?;
            machine.address(address, "wire")?;
            machine.ip(&["route", "add", "default", "via", &inside(1).to_string()])?;
            Ok::<_, String>(machine)
        };
        let (home, study) = (behind("home", HOME)?, behind("study", STUDY)?);
        router.exec(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        // What comes unasked is dropped before the kernel takes it for a connection.
        router.exec(&[
            "nft",
            "table ip router {
                chain leave { type nat hook postrouting priority 100; oifname out masquerade; }
                chain pass { type filter hook forward priority 0; policy drop; iifname inside accept; ct state established accept; }
                chain enter { type filter hook input priority 0; iifname out drop; }
            }",
        ])?;
        Ok(Homes { outside: world, home, study, _router: router })
    }
}
