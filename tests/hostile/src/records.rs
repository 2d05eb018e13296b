//! Every message of the DHT and of the way to a peer.
//!
//! - What can be read is written and read again as the same.
//! - A record, an announcement or a handshake that is accepted is the honest one.

use crate::input::Input;
use datdot_hyperswarm::{
    connect::shake::{Called, Caller},
    dht::{
        Id, Identity, Mutable, Peer, Peers,
        handshake::{Firewall, Handshake, Holepunch, HolepunchInfo, Payload, UdxInfo},
        packet::Packet as Datagram,
        record::{Announce, Place, Purpose},
    },
    udx::header::{Packet, RANGE},
};
use std::{net::SocketAddrV4, sync::LazyLock};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    match kind {
        0 => datagram(input.rest()),
        1 => packet(input.rest()),
        2 => same(input.rest(), |b| Peer::decode(b).ok(), Peer::encode),
        3 => _ = Peers::decode(input.rest()),
        4 => same(input.rest(), |b| Announce::decode(b).ok(), Announce::encode),
        5 => same(input.rest(), |b| Mutable::decode(b).ok(), Mutable::encode),
        6 => same(input.rest(), |b| Mutable::decode_put(b).ok(), |(author, record)| record.encode_put(author)),
        7 => handshake(input.rest()),
        8 => holepunch(input.rest()),
        9 => same(input.rest(), |b| Payload::decode(b).ok(), Payload::encode),
        10 => altered_announcement(&mut input),
        11 => altered_record(&mut input),
        _ => altered_call(&mut input),
    }
}

/// What is read is written, and read again as the same.
fn same<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
) {
    if let Some(value) = read(bytes) {
        let written = write(&value);
        assert_eq!(read(&written).as_ref(), Some(&value));
        assert!(written.len() <= bytes.len(), "{value:?} became longer");
    }
}

fn datagram(bytes: &[u8]) {
    let Ok(datagram) = Datagram::decode(bytes) else { return };
    let written = match &datagram {
        Datagram::Request(request) => request.encode(),
        Datagram::Response(response) => response.encode(),
    };
    assert_eq!(Datagram::decode(&written), Ok(datagram));
    assert!(written.len() <= bytes.len());
}

fn packet(bytes: &[u8]) {
    let Some(packet) = Packet::decode(bytes) else { return };
    let mut written = Vec::new();
    packet.header.encode(&mut written);
    assert_eq!(written, bytes[..written.len()]);
    assert!(packet.ranges().count() * RANGE + packet.payload.len() <= bytes.len() - written.len());
}

fn handshake(bytes: &[u8]) {
    if let Ok(handshake) = Handshake::decode(bytes) {
        assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
    }
}

fn holepunch(bytes: &[u8]) {
    if let Ok(holepunch) = Holepunch::decode(bytes) {
        assert_eq!(Holepunch::decode(&holepunch.encode()), Ok(holepunch));
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn at(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new([n, 2, 3, 4].into(), 1_000 + u16::from(n))
}

fn altered_announcement(input: &mut Input<'_>) {
    static HONEST: LazyLock<Announce> = LazyLock::new(|| {
        let place = Place { target: &Id([1; 32]), node: &Id([2; 32]), token: &[3; 32] };
        Announce::signed(Purpose::Announce, &identity(1), &[at(1), at(2)], place, 5)
    });
    let (target, node, token) = (Id([1; 32]), Id([2; 32]), [3; 32]);
    let Ok(read) = Announce::decode(&input.alter(&HONEST.encode())) else { return };
    let place = Place { target: &target, node: &node, token: &token };
    assert!(read.verify(Purpose::Unannounce, place).is_none());
    if read.verify(Purpose::Announce, place).is_some() {
        // The bump is nobody's word.
        assert_eq!(Announce { bump: HONEST.bump, ..read }, *HONEST);
    }
}

fn altered_record(input: &mut Input<'_>) {
    static HONEST: LazyLock<Mutable> = LazyLock::new(|| Mutable::signed(&identity(1), 7, b"a value"));
    let author = identity(1).public();
    let Ok((key, read)) = Mutable::decode_put(&input.alter(&HONEST.encode_put(&author))) else { return };
    assert_eq!(read.is_by(&key), key == author && read == *HONEST);
}

fn payload(id: u32) -> Payload {
    Payload {
        refusal: None,
        firewall: Firewall::Consistent,
        holepunch: Some(HolepunchInfo { id: 1, relays: vec![(at(1), at(2))] }),
        addresses: vec![at(3)],
        udx: Some(UdxInfo { reusable_socket: true, id, seq: 0 }),
        secret_stream: true,
        relay_through: None,
        relays: vec![at(4)],
    }
}

fn altered_call(input: &mut Input<'_>) {
    static CALLER: LazyLock<Caller> = LazyLock::new(|| {
        Caller::new(&identity(1), identity(2).public(), [3; 32], &payload(10)).expect("the payload is short")
    });
    let call = input.alter(CALLER.message());
    match Called::read(&identity(2), &call, &[4; 32]) {
        Err(_) => assert_ne!(call, CALLER.message()),
        Ok(called) => {
            assert_eq!((&call[..], &called.payload), (CALLER.message(), &Ok(payload(10))));
            let (honest, theirs) = called.answer(&payload(20)).expect("the payload is short");
            let answer = input.alter(&honest);
            match CALLER.read(&answer) {
                Err(_) => assert_ne!(answer, honest),
                Ok((ours, told)) => {
                    assert_eq!((answer, ours.hash, told), (honest, theirs.hash, payload(20)));
                }
            }
        }
    }
}
