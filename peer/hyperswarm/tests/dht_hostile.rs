//! A node of the DHT among liars.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use datdot_hyperswarm::dht::handshake::{Handshake, Mode};
use datdot_hyperswarm::dht::node::Call;
use datdot_hyperswarm::dht::packet::{Command, Packet, Request, Response, Token, error};
use datdot_hyperswarm::dht::record::{Announce, Mutable, Place, Purpose};
use datdot_hyperswarm::dht::{Action, Config, Event, Id, Identity, Node, Role, Search, Socket};
use proptest::prelude::*;
use std::net::SocketAddrV4;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn us() -> SocketAddrV4 {
    "8.8.8.8:49737".parse().unwrap()
}

fn stranger(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new((0x0900_0000 + n).into(), 7_000)
}

/// A host that knows its address, and `contacts` nodes that answered it.
fn host(contacts: u32) -> Node {
    let known = (0..contacts).map(|n| stranger(1_000_000 + n)).collect();
    let config = Config { role: Role::Host, address: Some(us()), known, ..Config::default() };
    let mut node = Node::new(config, 49_737, NOW, [7; 32]);
    assert_eq!(node.id(), Some(Id::of_node(us())));
    sent(&mut node);
    node
}

/// What the node sends now.
fn sent(node: &mut Node) -> Vec<(SocketAddrV4, Vec<u8>)> {
    std::iter::from_fn(|| node.poll())
        .filter_map(|action| if let Action::Send { to, datagram, .. } = action { Some((to, datagram)) } else { None })
        .collect()
}

fn request(command: Command, target: Option<Id>) -> Request<'static> {
    Request { tid: 7, to: us(), id: None, token: None, command, target, value: None }
}

/// Asks, and returns the answer.
fn ask(node: &mut Node, from: SocketAddrV4, request: &Request) -> Option<Vec<u8>> {
    node.receive(NOW, Socket::Server, from, &request.encode());
    sent(node).into_iter().find(|(to, _)| *to == from).map(|(_, datagram)| datagram)
}

fn response(datagram: &[u8]) -> Response<'_> {
    match Packet::decode(datagram).unwrap() {
        Packet::Response(response) => response,
        Packet::Request(_) => panic!("an answer"),
    }
}

fn token(node: &mut Node, from: SocketAddrV4, target: Id) -> Token {
    response(&ask(node, from, &request(Command::Lookup, Some(target))).unwrap()).token.unwrap()
}

#[test]
fn answers_are_no_larger_than_those_of_javascript() {
    let mut node = host(60);
    let target = Some(Id([3; 32]));
    let mut size = |command, target| ask(&mut node, stranger(1), &request(command, target)).unwrap().len();
    // 10 bytes and an id; with 20 nodes of 6 bytes and their count; with a token.
    assert_eq!(size(Command::Ping, None), 42);
    assert_eq!(size(Command::FindNode, target), 42 + 1 + 20 * 6);
    assert_eq!(size(Command::Lookup, target), 42 + 1 + 20 * 6 + 32);
}

#[test]
fn a_forged_source_gets_a_limited_number_of_bytes() {
    let mut node = host(60);
    let flood = request(Command::FindNode, Some(Id([3; 32]))).encode();
    let mut bytes = 0;
    for _ in 0..100_000 {
        node.receive(NOW, Socket::Server, stranger(1), &flood);
        bytes += sent(&mut node).iter().map(|(_, datagram)| datagram.len() - flood.len()).sum::<usize>();
    }
    assert!((600_000..=660_000).contains(&bytes), "{bytes} beyond what was sent");
    // Others are answered all the same.
    assert!(ask(&mut node, stranger(2), &request(Command::FindNode, Some(Id([3; 32])))).is_some());
}

#[test]
fn whoever_does_not_answer_never_becomes_a_contact() {
    let mut node = host(0);
    let mut greeted = 0;
    for n in 0..10_000 {
        let id = Some(Id::of_node(stranger(n)));
        let forged = Request { id, ..request(Command::FindNode, Some(Id([3; 32]))) };
        node.receive(NOW, Socket::Server, stranger(n), &forged.encode());
        let pings = sent(&mut node);
        greeted +=
            pings.iter().filter(|(_, datagram)| matches!(Packet::decode(datagram), Ok(Packet::Request(_)))).count();
    }
    assert_eq!(node.known(), 0);
    assert!(greeted <= 100, "{greeted} were asked whether they are there");
}

#[test]
fn a_false_id_makes_nobody_a_contact() {
    let mut node = host(0);
    let liar = Request { id: Some(Id([9; 32])), ..request(Command::Ping, None) };
    assert!(ask(&mut node, stranger(1), &liar).is_some());
    assert_eq!((sent(&mut node).len(), node.known()), (0, 0));
}

#[test]
fn only_the_one_who_was_asked_is_heard() {
    let mut node = host(0);
    node.ask(NOW, stranger(1), Command::Ping, None, None, None);
    let (_, datagram) = sent(&mut node).remove(0);
    let Ok(Packet::Request(asked)) = Packet::decode(&datagram) else { panic!("a request") };
    let answer = |from: SocketAddrV4, tid| {
        let id = Some(Id::of_node(from));
        Response { tid, to: us(), id, token: None, closer: Vec::new(), error: 0, value: None }.encode()
    };
    node.receive(NOW, Socket::Server, stranger(2), &answer(stranger(2), asked.tid));
    node.receive(NOW, Socket::Server, stranger(1), &answer(stranger(1), asked.tid.wrapping_add(1)));
    assert!(node.poll().is_none() && node.known() == 0);
    node.receive(NOW, Socket::Server, stranger(1), &answer(stranger(1), asked.tid));
    let told: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
    assert!(told.iter().any(|action| matches!(action, Action::Tell(Event::Answer { reply: Some(_), .. }))));
    assert_eq!(node.known(), 1);
}

#[test]
fn whoever_is_asked_in_our_own_network_has_no_vote_on_our_address_outside() {
    let mut node = host(0);
    for n in 0..40 {
        let near = SocketAddrV4::new([192, 168, 1, n].into(), 49_737);
        node.ask(NOW, near, Command::Ping, None, None, None);
        let (_, datagram) = sent(&mut node).remove(0);
        let Ok(Packet::Request(asked)) = Packet::decode(&datagram) else { panic!("a request") };
        let to = "192.168.1.99:49737".parse().unwrap();
        let answer = Response { tid: asked.tid, to, id: None, token: None, closer: Vec::new(), error: 0, value: None };
        node.receive(NOW, Socket::Server, near, &answer.encode());
        let told: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
        assert!(matches!(told[..], [Action::Tell(Event::Answer { reply: Some(_), .. })]), "{told:?}");
    }
    assert_eq!(node.open_address(), Some(us()));
}

#[test]
fn nothing_is_stored_without_a_token_of_ours_for_that_host() {
    let mut node = host(0);
    let (author, target) = (Identity::from_seed(&[1; 32]), Id([3; 32]));
    let node_id = Id::of_node(us());
    let announce = |node: &mut Node, from, token: Token, node_id| {
        let place = Place { target: &target, node: &node_id, token: &token };
        let value = Announce::signed(Purpose::Announce, &author, &[], place, 0).encode();
        let request = Request { token: Some(token), value: Some(&value), ..request(Command::Announce, Some(target)) };
        let answer = ask(node, from, &request).map(|answer| response(&answer).error);
        (answer, node.store().counts()[0])
    };
    let good = token(&mut node, stranger(1), target);
    assert_eq!(announce(&mut node, stranger(1), [0; 32], node_id), (Some(error::INVALID_TOKEN), 0));
    assert_eq!(announce(&mut node, stranger(2), good, node_id), (Some(error::INVALID_TOKEN), 0));
    // Meant for another node: the signature doesn't fit.
    assert_eq!(announce(&mut node, stranger(1), good, Id([4; 32])), (None, 0));
    assert_eq!(announce(&mut node, stranger(1), good, node_id), (Some(0), 1));
}

/// As in JavaScript, the signature covers the token, so a recorded announcement is good for as long as its token: 10 to 20 s,
/// and only from the address that the token was given to.
#[test]
fn an_announcement_that_was_withdrawn_cannot_be_replayed_with_a_new_token() {
    let mut node = host(0);
    let (author, target, node_id) = (Identity::from_seed(&[1; 32]), Id([3; 32]), Id::of_node(us()));
    let old = token(&mut node, stranger(1), target);
    let signed = |purpose, token: Token| {
        let place = Place { target: &target, node: &node_id, token: &token };
        Announce::signed(purpose, &author, &[], place, 0).encode()
    };
    let tell = |node: &mut Node, from, command, token, value: &[u8]| {
        let request = Request { token: Some(token), value: Some(value), ..request(command, Some(target)) };
        (ask(node, from, &request).map(|answer| response(&answer).error), node.store().counts()[0])
    };
    let recorded = signed(Purpose::Announce, old);
    assert_eq!(tell(&mut node, stranger(1), Command::Announce, old, &recorded), (Some(0), 1));
    let farewell = signed(Purpose::Unannounce, old);
    assert_eq!(tell(&mut node, stranger(1), Command::Unannounce, old, &farewell), (Some(0), 0));
    // Somebody else has heard it, at another address or at the same one when the token has run out.
    assert_eq!(tell(&mut node, stranger(2), Command::Announce, old, &recorded), (Some(error::INVALID_TOKEN), 0));
    (0..=30).for_each(|seconds| node.tick(NOW + Duration::from_secs(seconds)));
    sent(&mut node);
    assert_eq!(tell(&mut node, stranger(1), Command::Announce, old, &recorded), (Some(error::INVALID_TOKEN), 0));
    for from in [stranger(1), stranger(2)] {
        let new = token(&mut node, from, target);
        assert_eq!(tell(&mut node, from, Command::Announce, new, &recorded), (None, 0));
        assert_eq!(tell(&mut node, from, Command::Announce, new, &signed(Purpose::Unannounce, new)), (None, 0));
    }
    let new = token(&mut node, stranger(1), target);
    assert_eq!(tell(&mut node, stranger(1), Command::Announce, new, &signed(Purpose::Announce, new)), (Some(0), 1));
}

#[test]
fn one_host_fills_its_share_and_no_more() {
    let mut node = host(0);
    let mut stored = 0;
    for n in 0..6_000u32 {
        let value = n.to_le_bytes();
        let target = Id::of(&value);
        let put = Request {
            token: Some(token(&mut node, stranger(1), target)),
            value: Some(&value),
            ..request(Command::ImmutablePut, Some(target))
        };
        stored += usize::from(ask(&mut node, stranger(1), &put).is_some());
        // The tokens' answers are counted too; time passes.
        node.tick(NOW + Duration::from_secs(u64::from(n)));
    }
    assert_eq!(stored, 4_096, "an eighth of all");
    assert_eq!(node.store().counts()[3], stored);
}

#[test]
fn private_addresses_are_not_asked_on_the_internet() {
    let config = Config { role: Role::Guest, bootstrap: vec![stranger(1)], ..Config::default() };
    let mut node = Node::new(config, 49_737, NOW, [7; 32]);
    let (_, datagram) = sent(&mut node).remove(0);
    let Ok(Packet::Request(asked)) = Packet::decode(&datagram) else { panic!("a request") };
    let closer = ["127.0.0.1:9", "10.0.0.1:9", "192.168.1.1:80", "224.0.0.1:5", "9.9.9.9:0", "9.9.9.9:9"];
    let closer: Vec<SocketAddrV4> = closer.iter().map(|text| text.parse().unwrap()).collect();
    let id = Some(Id::of_node(stranger(1)));
    let answer = Response { tid: asked.tid, to: us(), id, token: None, closer: closer.clone(), error: 0, value: None };
    node.receive(NOW, Socket::Client, stranger(1), &answer.encode());
    let asked: Vec<_> = sent(&mut node).into_iter().map(|(to, _)| to).filter(|to| *to != stranger(1)).collect();
    assert_eq!(asked, [closer[5]]);
}

#[test]
fn handshakes_are_passed_on_to_known_routes_only_and_bounced_to_nobody_private() {
    let mut node = host(0);
    let pass = |mode, peer: Option<SocketAddrV4>| {
        let value = Handshake { mode, noise: b"noise", peer, relay: Some("10.0.0.1:22".parse().unwrap()) }.encode();
        Request { value: Some(value.leak()), ..request(Command::PeerHandshake, Some(Id([3; 32]))) }
    };
    // Without a route the answer is: ask those.
    let answer = ask(&mut node, stranger(1), &pass(Mode::FromClient, None)).unwrap();
    assert_eq!(response(&answer).value, None);
    for (mode, to) in
        [(Mode::FromServer, "10.0.0.1:22"), (Mode::FromServer, "127.0.0.1:22"), (Mode::FromRelay, "9.9.9.9:9")]
    {
        node.receive(NOW, Socket::Server, stranger(1), &pass(mode, Some(to.parse().unwrap())).encode());
        assert_eq!(sent(&mut node), []);
    }
}

#[test]
fn whoever_only_says_that_it_passes_calls_on_is_the_caller_itself() {
    let mut node = host(0);
    let server = Identity::from_seed(&[5; 32]);
    node.listen(NOW, &server);
    sent(&mut node);
    let hosts: Vec<_> = call(&mut node, &server, Mode::FromRelay, None)
        .into_iter()
        .map(|call| (call.client, call.counts_for))
        .collect();
    assert_eq!(hosts, [(stranger(9), *stranger(1).ip())]);
}

/// The calls that a node is told of when somebody passes one on.
fn call(node: &mut Node, server: &Identity, mode: Mode, relay: Option<SocketAddrV4>) -> Vec<Call> {
    let value = Handshake { mode, noise: b"noise", peer: Some(stranger(9)), relay }.encode();
    let target = Some(Id::of(&server.public()));
    let call = Request { value: Some(&value), ..request(Command::PeerHandshake, target) };
    node.receive(NOW, Socket::Server, stranger(1), &call.encode());
    let calls = std::iter::from_fn(|| node.poll());
    calls.filter_map(|action| if let Action::Tell(Event::Call(call)) = action { Some(call) } else { None }).collect()
}

#[test]
fn no_call_is_answered_into_our_own_network() {
    let mut node = host(0);
    let server = Identity::from_seed(&[5; 32]);
    node.listen(NOW, &server);
    sent(&mut node);
    for (relay, calls) in [("192.168.1.1:53", 0), ("127.0.0.1:22", 0), ("9.9.9.9:0", 0), ("9.9.9.9:9", 1)] {
        let relay = relay.parse().ok();
        assert_eq!(call(&mut node, &server, Mode::FromSecondRelay, relay).len(), calls, "{relay:?}");
    }
}

#[test]
fn a_flood_of_late_answers_is_bounded() {
    let mut node = host(0);
    let delay = 9_000u32.to_le_bytes();
    let late = Request { value: Some(&delay), ..request(Command::DelayedPing, None) }.encode();
    for n in 0..10_000 {
        node.receive(NOW, Socket::Server, stranger(n), &late);
    }
    assert_eq!(sent(&mut node), []);
    node.tick(NOW + Duration::from_secs(10));
    assert!(sent(&mut node).len() <= 1_024 + 10);
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let codes = (any::<bool>(), 0..11u8);
    (codes, any::<[u8; 2]>(), any::<Option<[u8; 32]>>(), prop::collection::vec(any::<u8>(), 0..120)).prop_map(
        |((internal, code), tid, target, value)| {
            let flags = 16 | if internal { 4 } else { 0 } | if target.is_some() { 8 } else { 0 };
            let target = target.map_or(Vec::new(), |target| target.to_vec());
            let length = u8::try_from(value.len()).unwrap();
            [&[3, flags][..], &tid, &[8, 8, 8, 8, 73, 194], &[code], &target, &[length], &value].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_a_node_goes_on(
        datagrams in prop::collection::vec((prop_oneof![any_request(), any::<Vec<u8>>()], 0..4u32, any::<bool>()), 0..200),
        truncate in 0..60usize,
    ) {
        let mut node = host(30);
        node.listen(NOW, &Identity::from_seed(&[5; 32]));
        node.search(NOW, Search::new(Id([3; 32]), Command::Lookup));
        sent(&mut node);
        for (n, (datagram, from, server)) in datagrams.into_iter().enumerate() {
            let now = NOW + Duration::from_millis(100 * n as u64);
            let socket = if server { Socket::Server } else { Socket::Client };
            node.receive(now, socket, stranger(1_000_000 + from), &datagram);
            node.receive(now, socket, stranger(from), &datagram[..datagram.len().min(truncate)]);
            node.tick(now);
            prop_assert!(sent(&mut node).len() < 300);
        }
        prop_assert!(node.known() < 100);
    }

    #[test]
    fn a_mutable_record_of_somebody_else_is_never_stored(seq in 0..1_000u64, value: Vec<u8>, other in 1..255u8) {
        let mut node = host(0);
        let (author, thief) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[other.wrapping_add(1); 32]));
        prop_assume!(author.public() != thief.public());
        let target = Id::of(&author.public());
        let stolen = Mutable::signed(&thief, seq, &value).encode_put(&author.public());
        let token = Some(token(&mut node, stranger(1), target));
        let put = Request { token, value: Some(&stolen), ..request(Command::MutablePut, Some(target)) };
        prop_assert!(ask(&mut node, stranger(1), &put).is_none());
        prop_assert_eq!(node.store().counts(), [0; 4]);
    }
}
