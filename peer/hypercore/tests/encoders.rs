//! The messages of a channel beside JavaScript's encoders, byte by byte: thousands of each kind.

#[path = "../../../tests/js/encode.rs"]
mod encode;

use bytes::Bytes;
use datdot_hypercore::{
    Authors,
    messages::{
        Data, DataBlock, DataHash, DataSeek, DataUpgrade, Handshake, Message, NodeRequest, Refusal, Request,
        SeekRequest, Sync, UpgradeRequest, Wanted,
    },
};
use datdot_proof::tree::Node;
use encode::{Dice, EACH, JavaScript, bytes};
use serde_json::{Value, json};

/// Our bytes of a message, which are read as that again.
fn encoded(message: Message) -> Vec<u8> {
    let (kind, body) = message.encode();
    assert_eq!(Message::decode(kind, &body.clone().into()), Ok(Some(message)));
    body
}

#[test]
fn messages_are_those_of_javascript() {
    let (mut js, mut dice) = (JavaScript::start(), Dice(2));
    let dice = &mut dice;
    let manifests = manifests(&mut js, dice);
    js.compare("hypercore handshake", || {
        let shake = Handshake { seeks: dice.coin(), capability: dice.fixed() };
        assert_eq!(Handshake::decode(&shake.encode()), Ok(shake));
        (json!({ "seeks": shake.seeks, "capability": bytes(shake.capability) }), shake.encode())
    });
    js.compare("hypercore sync", || {
        let sync = Sync {
            can_upgrade: dice.coin(),
            uploading: dice.coin(),
            downloading: dice.coin(),
            has_manifest: dice.coin(),
            allow_push: dice.coin(),
            fork: dice.uint(),
            length: dice.uint(),
            remote_length: dice.uint(),
        };
        let value = json!({
            "canUpgrade": sync.can_upgrade, "uploading": sync.uploading, "downloading": sync.downloading,
            "hasManifest": sync.has_manifest, "allowPush": sync.allow_push,
            "fork": sync.fork, "length": sync.length, "remoteLength": sync.remote_length,
        });
        (value, encoded(Message::Sync(sync)))
    });
    js.compare("hypercore request", || request(dice));
    js.compare("hypercore cancel", || {
        let id = dice.uint();
        (json!({ "request": id }), encoded(Message::Cancel { id }))
    });
    js.compare("hypercore data", || data(dice, &manifests));
    js.compare("hypercore noData", || {
        let id = dice.uint();
        let (number, reason) =
            [(0, None), (1, Some(Refusal::NotAvailable)), (2, Some(Refusal::Invalid))][dice.below(3) as usize];
        (json!({ "request": id, "reason": number }), encoded(Message::NoData { id, reason }))
    });
    for (kind, message) in
        [("hypercore want", Message::Want as fn(Wanted) -> Message), ("hypercore unwant", Message::Unwant)]
    {
        js.compare(kind, || {
            let wanted = Wanted { start: dice.uint(), length: dice.uint(), any: dice.coin() };
            let value = json!({ "start": wanted.start, "length": wanted.length, "any": wanted.any });
            (value, encoded(message(wanted)))
        });
    }
    js.compare("hypercore bitfield", || {
        let (start, words) = (dice.uint() / 32 * 32, dice.list(80, |dice| dice.below(1 << 32) as u32));
        let value = json!({ "start": start, "bitfield": { "words": words } });
        (value, encoded(Message::Bitfield { start, words }))
    });
    js.compare("hypercore range", || {
        let (drop, start, length) = (dice.coin(), dice.uint(), if dice.coin() { 1 } else { dice.uint() });
        (json!({ "drop": drop, "start": start, "length": length }), encoded(Message::Range { drop, start, length }))
    });
}

fn request(dice: &mut Dice) -> (Value, Vec<u8>) {
    let pair = |dice: &mut Dice| dice.perhaps(|dice| (dice.uint(), dice.uint()));
    let node = |(index, nodes)| NodeRequest { index, nodes };
    let (block, hash, seek, upgrade) = (pair(dice), pair(dice), pair(dice), pair(dice));
    let request = Request {
        id: dice.uint(),
        fork: dice.uint(),
        block: block.map(node),
        hash: hash.map(node),
        seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
        upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
        manifest: dice.coin(),
        priority: dice.below(3),
    };
    let node = |(index, nodes)| json!({ "index": index, "nodes": nodes });
    let value = json!({
        "id": request.id, "fork": request.fork, "manifest": request.manifest, "priority": request.priority,
        "block": block.map(node), "hash": hash.map(node),
        "seek": seek.map(|(bytes, padding)| json!({ "bytes": bytes, "padding": padding })),
        "upgrade": upgrade.map(|(start, length)| json!({ "start": start, "length": length })),
    });
    (value, encoded(Message::Request(request)))
}

fn data(dice: &mut Dice, manifests: &[Bytes]) -> (Value, Vec<u8>) {
    let nodes =
        |dice: &mut Dice| dice.list(5, |dice| Node { index: dice.uint(), size: dice.uint(), hash: dice.fixed() });
    let block =
        dice.perhaps(|dice| DataBlock { index: dice.uint(), value: dice.bytes(300).into(), nodes: nodes(dice) });
    let hash = dice.perhaps(|dice| DataHash { index: dice.uint(), nodes: nodes(dice) });
    let seek = dice.perhaps(|dice| DataSeek { bytes: dice.uint(), nodes: nodes(dice) });
    let upgrade = dice.perhaps(|dice| DataUpgrade {
        start: dice.uint(),
        length: dice.uint(),
        nodes: nodes(dice),
        additional: nodes(dice),
        signature: dice.bytes(300).into(),
    });
    let manifest = dice.perhaps(|dice| manifests[dice.below(manifests.len() as u64) as usize].clone());
    let data = Data { id: dice.uint(), fork: dice.uint(), block, hash, seek, upgrade, manifest };

    let nodes = |nodes: &[Node]| -> Value {
        let node = |node: &Node| json!({ "index": node.index, "size": node.size, "hash": bytes(node.hash) });
        nodes.iter().map(node).collect()
    };
    let value = json!({
        "request": data.id, "fork": data.fork,
        "block": data.block.as_ref().map(|block| {
            json!({ "index": block.index, "value": bytes(&block.value), "nodes": nodes(&block.nodes) })
        }),
        "hash": data.hash.as_ref().map(|hash| json!({ "index": hash.index, "nodes": nodes(&hash.nodes) })),
        "seek": data.seek.as_ref().map(|seek| json!({ "bytes": seek.bytes, "nodes": nodes(&seek.nodes) })),
        "upgrade": data.upgrade.as_ref().map(|upgrade| json!({
            "start": upgrade.start, "length": upgrade.length, "nodes": nodes(&upgrade.nodes),
            "additionalNodes": nodes(&upgrade.additional), "signature": bytes(&upgrade.signature),
        })),
        "manifest": data.manifest.as_ref().map(bytes),
    });
    (value, encoded(Message::Data(Box::new(data))))
}

/// Manifests as JavaScript writes them, read by us: what is read says the same, and is only taken if we would write the same bytes.
fn manifests(js: &mut JavaScript, dice: &mut Dice) -> Vec<Bytes> {
    let values: Vec<_> = std::iter::repeat_with(|| manifest(dice)).take(EACH).collect();
    let theirs = js.encode("manifest", &values);
    let theirs = theirs.iter().map(|hex| Bytes::from(hex::decode(hex).unwrap_or_else(|_| panic!("{hex}"))));
    let manifests: Vec<_> = theirs.collect();
    for (value, manifest) in values.iter().zip(&manifests) {
        let authors = Authors::from_wire(manifest.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
        let signers = authors.signers.iter().map(|signer| {
            json!({ "signature": "ed25519", "namespace": bytes(signer.namespace), "publicKey": bytes(signer.key) })
        });
        let linked = |linked: &Vec<datdot_hypercore::FeedKey>| linked.iter().map(|key| bytes(key.0)).collect::<Value>();
        let read = json!({
            "version": authors.version, "hash": "blake2b", "allowPatch": authors.allow_patch, "quorum": authors.quorum,
            "signers": signers.collect::<Value>(),
            "prologue": authors.prologue.map(|begun| json!({ "hash": bytes(begun.hash), "length": begun.length })),
            "linked": authors.linked.as_ref().map(linked),
            "userData": authors.user_data.as_ref().map(bytes),
        });
        assert_eq!(&read, value);
    }
    manifests
}

fn manifest(dice: &mut Dice) -> Value {
    let signer = |dice: &mut Dice| json!({ "signature": "ed25519", "namespace": bytes(dice.fixed::<32>()), "publicKey": bytes(dice.fixed::<32>()) });
    let (version, mut signers) = (dice.below(4), dice.list(4, signer));
    // A v0 manifest has either signers or the hash of a prologue, whose length it does not say.
    let is_prologue = if version == 0 { signers.is_empty() } else { dice.coin() };
    if signers.is_empty() && !is_prologue {
        signers.push(signer(dice));
    }
    let length = if version == 0 { 0 } else { 1 + dice.below(1 << 40) };
    let prologue = is_prologue.then(|| json!({ "hash": bytes(dice.fixed::<32>()), "length": length }));
    let (quorum, many) = (dice.below(signers.len() as u64 + 1), !signers.is_empty());
    json!({
        "version": version, "hash": "blake2b", "allowPatch": many && dice.coin(),
        "quorum": if many { quorum.max(1) } else { 0 }, "signers": signers, "prologue": prologue,
        "linked": (version >= 2 && dice.coin()).then(|| dice.list(3, |dice| bytes(dice.fixed::<32>()))),
        "userData": (version >= 2 && dice.coin()).then(|| bytes(dice.bytes(30))),
    })
}
