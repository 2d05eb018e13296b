//! Records are written and signed as in JavaScript; vectors by hyperdht 6.34.0.

use super::*;
use proptest::prelude::*;

fn identity() -> Identity {
    Identity::from_seed(&[7; 32])
}

fn relays() -> Vec<SocketAddrV4> {
    ["1.2.3.4:5".parse().unwrap(), "10.20.30.40:50000".parse().unwrap()].to_vec()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn announcements_are_signed_as_in_javascript() {
    let at = Place { target: &Id([1; 32]), node: &Id([2; 32]), token: &[3; 32] };
    let announce = Announce::signed(Purpose::Announce, &identity(), &relays(), at, 1_700_000_000_000);
    assert_eq!(
        hex(&announce.encode()),
        "0dea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c020102030405000a141e2850c366d1812e51766dda066511fa28bcf0d2ba4e922b7010d5df378877a3a6325f917c3850981d9ae9b4af7f76df6aa01c94683c31c6ae96aa1ad84f6ae2ee46160aff0068e5cf8b010000"
    );
    assert_eq!(announce.verify(Purpose::Announce, at).unwrap().relays, relays());
    assert_eq!(announce.verify(Purpose::Unannounce, at), None);
    let elsewhere = Place { node: &Id([4; 32]), ..at };
    assert_eq!(announce.verify(Purpose::Announce, elsewhere), None);

    let unannounce = Announce::signed(Purpose::Unannounce, &identity(), &[], at, 0);
    assert_eq!(
        hex(&unannounce.encode()),
        "05ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c001782badf8f2f1e5b6c7967e5e2572eed64489bd2a76c59f960bda4cbd36d4bbdc2b828b05a1705eba18d07e6b654ef9d1d2f095df623171beda27129f7c93801"
    );
}

#[test]
fn a_lookup_answer_is_read_as_javascript_writes_it() {
    let value = bytes(
        "02ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c020102030405000a141e2850c3090909090909090909090909090909090909090909090909090909090909090900ff0068e5cf8b010000",
    );
    let peers = Peers::decode(&value).unwrap();
    assert_eq!(peers.bump, 1_700_000_000_000);
    assert_eq!(peers.peers[0], Peer { key: identity().public(), relays: relays() });
    assert_eq!(peers.peers.len(), 2);
    let records: Vec<_> = peers.peers.iter().map(Peer::encode).collect();
    assert_eq!(Peers::encode(records.iter().map(Vec::as_slice), peers.bump), value);
    // Without the bump, as old nodes send it.
    assert_eq!(Peers::decode(&value[..value.len() - 9]), Ok(Peers { bump: 0, ..peers }));
}

#[test]
fn mutable_records_are_signed_as_in_javascript() {
    let record = Mutable::signed(&identity(), 300, b"hello");
    assert_eq!(
        hex(&record.encode_put(&identity().public())),
        "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22cfd2c010568656c6c6f17382f978ebb996cda2e66469917633ac36d911abf42b2a64f6018995941f0dc0a0cecfc71b6eab7ed2d56c84c01c0977e5ab7256d25e26fcaad23c27ebd6c03"
    );
    assert!(record.is_by(&identity().public()));
    assert!(!Mutable { seq: 301, ..record }.is_by(&identity().public()));
}

#[test]
fn namespaces_are_those_of_javascript() {
    assert_eq!(hex(&namespace(0)), "14d6d4b49214ab1033ed204976caa258bae9e1e8543b9ad1fd996a910b0c4e3a");
    assert_eq!(hex(&namespace(5)), "ded293cd93fb395e756ecf5fff426529e72c36eacc22e5ed944d9099a2561e32");
}

proptest! {
    #[test]
    fn records_come_back(
        key: [u8; 32],
        relays in prop::collection::vec(any::<([u8; 4], u16)>(), 0..=READ_RELAYS),
        signature: [u8; 32],
        refresh: Option<[u8; 32]>,
        bump in 0..1u64 << 53,
        value: Vec<u8>,
    ) {
        let relays = relays.into_iter().map(|(ip, port)| SocketAddrV4::new(ip.into(), port)).collect();
        let signature = [signature, signature].concat().try_into().unwrap();
        let peer = Peer { key, relays };
        prop_assert_eq!(Peer::decode(&peer.encode()), Ok(peer.clone()));
        let announce = Announce { peer: Some(peer), refresh, signature: Some(signature), bump };
        prop_assert_eq!(Announce::decode(&announce.encode()), Ok(announce));
        let mutable = Mutable { seq: bump, value, signature };
        prop_assert_eq!(Mutable::decode_put(&mutable.encode_put(&key)), Ok((key, mutable.clone())));
    }

    #[test]
    fn any_bytes_are_read_or_refused(value: Vec<u8>) {
        _ = Peer::decode(&value);
        _ = Peers::decode(&value);
        _ = Announce::decode(&value).map(|announce| {
            announce.verify(Purpose::Announce, Place { target: &Id([0; 32]), node: &Id([0; 32]), token: &[0; 32] }).is_some()
        });
        _ = Mutable::decode_put(&value).map(|(author, mutable)| mutable.is_by(&author));
    }
}
