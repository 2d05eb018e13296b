//! Datagrams of the DHT and what they carry beside JavaScript's encoders, byte by byte: thousands of each kind.

#[path = "../../../tests/js/encode.rs"]
mod encode;

use datdot_hyperswarm::dht::{
    Id, Mutable, Peer,
    handshake::{Firewall, Handshake, Holepunch, HolepunchInfo, Mode, Payload, Refusal, RelayThrough, UdxInfo},
    packet::{Command, MAX_CLOSER, Packet, Request, Response},
    record::Announce,
};
use encode::{Dice, JavaScript, bytes};
use serde_json::{Value, json};
use std::net::SocketAddrV4;

#[test]
fn datagrams_records_and_handshakes_are_those_of_javascript() {
    let (mut js, mut dice) = (JavaScript::start(), Dice(3));
    let dice = &mut dice;
    js.compare("request", || request(dice));
    js.compare("response", || response(dice));
    js.compare("hyperdht peer", || {
        let peer = peer(dice);
        assert_eq!(Peer::decode(&peer.encode()).as_ref(), Ok(&peer));
        (peer_json(&peer), peer.encode())
    });
    js.compare("hyperdht announce", || {
        let announce = Announce {
            peer: dice.perhaps(peer),
            refresh: dice.perhaps(Dice::fixed),
            signature: dice.perhaps(Dice::fixed),
            bump: if dice.coin() { 0 } else { dice.uint() },
        };
        assert_eq!(Announce::decode(&announce.encode()).as_ref(), Ok(&announce));
        let value = json!({
            "peer": announce.peer.as_ref().map(peer_json), "refresh": announce.refresh.map(bytes),
            "signature": announce.signature.map(bytes), "bump": announce.bump,
        });
        (value, announce.encode())
    });
    js.compare("hyperdht mutableGetResponse", || {
        let record = mutable(dice);
        assert_eq!(Mutable::decode(&record.encode()).as_ref(), Ok(&record));
        (mutable_json(&record, None), record.encode())
    });
    js.compare("hyperdht mutablePutRequest", || {
        let (record, key) = (mutable(dice), dice.fixed());
        let ours = record.encode_put(&key);
        assert_eq!(Mutable::decode_put(&ours).as_ref(), Ok(&(key, record.clone())));
        (mutable_json(&record, Some(key)), ours)
    });
    js.compare("hyperdht handshake", || {
        let (number, mode) = mode(dice);
        let (noise, peer, relay) = (dice.bytes(300), dice.perhaps(address), dice.perhaps(address));
        let handshake = Handshake { mode, noise: &noise, peer, relay };
        assert_eq!(Handshake::decode(&handshake.encode()).as_ref(), Ok(&handshake));
        let value = json!({
            "mode": number, "noise": bytes(&noise), "peerAddress": peer.map(address_json), "relayAddress": relay.map(address_json),
        });
        (value, handshake.encode())
    });
    js.compare("hyperdht holepunch", || {
        let (number, mode) = mode(dice);
        let (id, payload, peer) = (dice.uint(), dice.bytes(300), dice.perhaps(address));
        let holepunch = Holepunch { mode, id, payload: &payload, peer };
        assert_eq!(Holepunch::decode(&holepunch.encode()).as_ref(), Ok(&holepunch));
        let value =
            json!({ "mode": number, "id": id, "payload": bytes(&payload), "peerAddress": peer.map(address_json) });
        (value, holepunch.encode())
    });
    js.compare("hyperdht noisePayload", || payload(dice));
}

fn address(dice: &mut Dice) -> SocketAddrV4 {
    // JavaScript takes nothing from port 0.
    SocketAddrV4::new(dice.fixed::<4>().into(), 1 + dice.below(65_535) as u16)
}

fn address_json(address: SocketAddrV4) -> Value {
    json!({ "host": address.ip().to_string(), "port": address.port() })
}

fn list(addresses: &[SocketAddrV4]) -> Value {
    addresses.iter().copied().map(address_json).collect()
}

fn peer(dice: &mut Dice) -> Peer {
    Peer { key: dice.fixed(), relays: dice.list(5, address) }
}

fn peer_json(peer: &Peer) -> Value {
    json!({ "publicKey": bytes(peer.key), "relayAddresses": list(&peer.relays) })
}

fn mutable(dice: &mut Dice) -> Mutable {
    Mutable { seq: dice.uint(), value: dice.bytes(300), signature: dice.fixed() }
}

fn mutable_json(record: &Mutable, key: Option<[u8; 32]>) -> Value {
    let Mutable { seq, value, signature } = record;
    json!({ "publicKey": key.map(bytes), "seq": seq, "value": bytes(value), "signature": bytes(signature) })
}

fn mode(dice: &mut Dice) -> (u64, Mode) {
    let modes = [Mode::FromClient, Mode::FromServer, Mode::FromRelay, Mode::FromSecondRelay, Mode::Reply];
    let number = dice.below(5);
    (number, modes[number as usize])
}

fn request(dice: &mut Dice) -> (Value, Vec<u8>) {
    let internal = dice.coin();
    let known: &[Command] = if internal { &Command::INTERNAL } else { &Command::EXTERNAL };
    let code = if dice.below(9) == 0 { 10 + dice.below(1_000) } else { dice.below(known.len() as u64) };
    let command = known.get(code as usize).copied().unwrap_or(Command::Other { internal, code });
    let value = dice.perhaps(|dice| [vec![1], dice.bytes(300)].concat());
    let request = Request {
        tid: dice.below(1 << 16) as u16,
        to: address(dice),
        id: dice.perhaps(Dice::fixed).map(Id),
        token: dice.perhaps(Dice::fixed),
        command,
        target: dice.perhaps(Dice::fixed).map(Id),
        value: value.as_deref(),
    };
    let ours = request.encode();
    assert_eq!(Packet::decode(&ours), Ok(Packet::Request(request.clone())));
    let json = json!({
        "tid": request.tid, "to": address_json(request.to), "id": request.id.map(|id| bytes(id.0)),
        "token": request.token.map(bytes), "internal": internal, "command": code,
        "target": request.target.map(|target| bytes(target.0)), "value": request.value.map(bytes),
    });
    (json, ours)
}

fn response(dice: &mut Dice) -> (Value, Vec<u8>) {
    let value = dice.perhaps(|dice| [vec![1], dice.bytes(300)].concat());
    let response = Response {
        tid: dice.below(1 << 16) as u16,
        to: address(dice),
        id: dice.perhaps(Dice::fixed).map(Id),
        token: dice.perhaps(Dice::fixed),
        closer: dice.list(MAX_CLOSER as u64, address),
        error: [0, 1, 2, 16, 17, 300][dice.below(6) as usize],
        value: value.as_deref(),
    };
    let ours = response.encode();
    assert_eq!(Packet::decode(&ours), Ok(Packet::Response(response.clone())));
    let json = json!({
        "tid": response.tid, "to": address_json(response.to), "id": response.id.map(|id| bytes(id.0)),
        "token": response.token.map(bytes), "closer": list(&response.closer), "error": response.error,
        "value": response.value.map(bytes),
    });
    (json, ours)
}

fn payload(dice: &mut Dice) -> (Value, Vec<u8>) {
    let refusals = [
        None,
        Some(Refusal::Aborted),
        Some(Refusal::VersionMismatch),
        Some(Refusal::TryLater),
        Some(Refusal::Other(4)),
    ];
    let firewalls = [Firewall::Unknown, Firewall::Open, Firewall::Consistent, Firewall::Random];
    let (error, firewall) = (dice.below(5) as usize, dice.below(4) as usize);
    let payload = Payload {
        refusal: refusals[error],
        firewall: firewalls[firewall],
        holepunch: dice.perhaps(|dice| HolepunchInfo {
            id: dice.uint(),
            relays: dice.list(5, |dice| (address(dice), address(dice))),
        }),
        addresses: dice.list(5, address),
        udx: dice.perhaps(|dice| UdxInfo {
            reusable_socket: dice.coin(),
            id: dice.below(1 << 32) as u32,
            seq: dice.below(1 << 32) as u32,
        }),
        secret_stream: dice.coin(),
        relay_through: dice.perhaps(|dice| RelayThrough { key: dice.fixed(), token: dice.fixed() }),
        relays: dice.list(5, address),
    };
    assert_eq!(Payload::decode(&payload.encode()).as_ref(), Ok(&payload));
    let relay = |(relay, server): &(SocketAddrV4, SocketAddrV4)| json!({ "relayAddress": address_json(*relay), "peerAddress": address_json(*server) });
    let json = json!({
        "version": 1, "error": error, "firewall": firewall,
        "holepunch": payload.holepunch.as_ref().map(|punch| {
            json!({ "id": punch.id, "relays": punch.relays.iter().map(relay).collect::<Value>() })
        }),
        "addresses4": list(&payload.addresses),
        "udx": payload.udx.map(|udx| {
            json!({ "version": 1, "reusableSocket": udx.reusable_socket, "id": udx.id, "seq": udx.seq })
        }),
        "secretStream": payload.secret_stream.then(|| json!({ "version": 1 })),
        "relayThrough": payload.relay_through.map(|through| {
            json!({ "version": 1, "publicKey": bytes(through.key), "token": bytes(through.token) })
        }),
        "relayAddresses": (!payload.relays.is_empty()).then(|| list(&payload.relays)),
    });
    (json, payload.encode())
}
