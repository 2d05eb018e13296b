//! Our answers compared with those of JavaScript's prover, byte by byte: thousands of requests, most of them odd.

mod support;
use datdot_hypercore::{
    Store,
    messages::{Message, NodeRequest, Request, SeekRequest, UpgradeRequest},
};
use datdot_proof::flat;
use serde_json::{Value, json};
use support::*;

/// Requests for each length of the feed.
const REQUESTS: usize = 250;

fn any_request(dice: &mut Dice, length: u64, bytes: u64) -> Request {
    let node = |dice: &mut Dice, end| NodeRequest { index: dice.below(end), nodes: dice.below(7) };
    let mut request = Request { id: 1, ..Request::default() };
    // Both together too: then the block is what counts.
    let (block, hash) = [(true, false), (false, true), (true, true), (false, false)][dice.below(4) as usize];
    request.block = block.then(|| node(dice, length + 2));
    request.hash = hash.then(|| node(dice, 2 * length + 2));
    if dice.below(2) == 0 {
        let padding = if dice.below(4) == 0 { dice.below(5) } else { 0 };
        request.seek = Some(SeekRequest { bytes: dice.below(bytes + 3), padding });
    }
    if dice.below(2) == 0 {
        request.upgrade = Some(UpgradeRequest { start: dice.below(length + 1), length: dice.below(length + 2) });
    }
    request
}

/// Whether JavaScript seeks below another root than the first. There hypercore 11.37.1 adds up sizes as if they were nodes, gets
/// no number, and points at the whole subtree that was asked for, or answers what has no answer.
fn is_lost_in_javascript(request: &Request, length: u64) -> bool {
    let first_root = 1 << length.ilog2();
    let block = request.block.map(|block| block.index);
    let target = block.or(request.hash.map(|hash| flat::first_block(hash.index)));
    request.seek.is_some() && target.is_some_and(|target| target >= first_root)
}

fn as_json(request: &Request) -> Value {
    let node = |node: NodeRequest| json!({ "index": node.index, "nodes": node.nodes });
    json!({
        "block": request.block.map(node),
        "hash": request.hash.map(node),
        "seek": request.seek.map(|seek| json!({ "bytes": seek.bytes, "padding": seek.padding })),
        "upgrade": request.upgrade.map(|upgrade| json!({ "start": upgrade.start, "length": upgrade.length })),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_javascript_says_and_what_it_refuses_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut javascript = Js::run("prove.js", &[format!("--dir={}", dir.path().join("javascript").display())]);
    let feed = Store::open(dir.path().join("ours")).expect("room").create(&keypair(1)).expect("room");
    assert_eq!(javascript.event("feeds").await["keys"][0], feed.key().to_string());
    let mut dice = Dice(42);
    let (mut answered, mut refused, mut both) = (0, 0, 0);
    while feed.info().length < 150 {
        let sizes: Vec<u64> = (0..1 + dice.below(12)).map(|_| dice.below(30)).collect();
        let start = feed.info().length;
        let blocks = (start..).zip(&sizes).map(|(i, size)| block(i, *size as usize)).collect();
        feed.append(blocks).await.expect("an author appends");
        let (length, bytes) = (feed.info().length, feed.info().bytes);
        let requests: Vec<_> = (0..REQUESTS).map(|_| any_request(&mut dice, length, bytes)).collect();
        let line = json!({ "append": sizes, "requests": requests.iter().map(as_json).collect::<Vec<_>>() });
        javascript.write(&line.to_string()).await;
        let theirs = javascript.event("answers").await["answers"].take();
        let pairs = requests.iter().zip(theirs.as_array().expect("a list"));
        for (request, theirs) in pairs.filter(|(request, _)| !is_lost_in_javascript(request, length)) {
            let ours = feed.answer(request).map(|data| Message::Data(Box::new(data)).encode().1);
            let hex = ours.as_ref().ok().map(hex::encode);
            assert_eq!(hex.as_deref(), theirs.as_str(), "{length} blocks, {request:?}: {:?}", ours.as_ref().err());
            both += u32::from(hex.is_some() && request.block.is_some() && request.hash.is_some());
            *(if hex.is_some() { &mut answered } else { &mut refused }) += 1;
        }
    }
    println!("{answered} answered, {refused} refused; {both} of the answered asked for a block and a hash");
    assert!(answered > 1000 && refused > 1000 && both > 100);
}
