//! Our verifier compared with JavaScript's: honest answers, and what is made of them. A failing seed is printed; `DATDOT_SEED`
//! runs that one alone, `DATDOT_SEEDS` more than usual.

mod support;
use bytes::Bytes;
use datdot_hypercore::{
    Feed, Refused, Store,
    messages::{Data, DataUpgrade, Message, NodeRequest, Request, SeekRequest, UpgradeRequest},
    prove::cover,
};
use datdot_proof::{flat, tree::Node};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use support::*;

/// What is made of each honest answer.
const ALTERED: usize = 12;

/// Prints the seed of a test that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with DATDOT_SEED={}", self.0);
        }
    }
}

/// Whose answers are altered, and who reads them.
struct World {
    dice: Dice,
    author: Feed,
    /// Another feed with as many blocks.
    stranger: Feed,
    reader: Feed,
    javascript: Js,
    /// How often both said yes, both no, and only we no, for which reason.
    verdicts: BTreeMap<&'static str, u32>,
}

impl World {
    async fn new(dir: &Path, seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut javascript = Js::run("verify.js", &[format!("--dir={}", dir.join("javascript").display())]);
        let store = Store::open(dir.join("authors")).expect("room");
        let compat = dice.below(3) == 0;
        let create = |name| if compat { store.create_compat(&keypair(name)) } else { store.create(&keypair(name)) };
        let (author, stranger) = (create(1).expect("room"), create(2).expect("room"));
        let sizes: Vec<usize> = (0..1 + dice.below(70)).map(|_| dice.below(30) as usize).collect();
        for (number, feed) in [(0, &author), (1000, &stranger)] {
            let blocks: Vec<Bytes> = (number..).zip(&sizes).map(|(i, size)| block(i, *size)).collect();
            feed.write(&blocks).expect("an author appends");
        }
        let reader = Store::open(dir.join("reader")).expect("room").open_remote(author.key(), None).expect("room");
        javascript.write(&json!({ "reader": author.key().to_string() }).to_string()).await;
        javascript.event("ready").await;
        World { dice, author, stranger, reader, javascript, verdicts: BTreeMap::new() }
    }

    /// What the reader may ask next.
    fn request(&mut self) -> Request {
        let (ours, all) = (self.reader.info().length, self.author.info());
        let (dice, mut request) = (&mut self.dice, Request { id: 1, ..Request::default() });
        if ours == 0 || ours < all.length && dice.below(3) == 0 {
            let length = 1 + dice.below(all.length - ours);
            request.upgrade = Some(UpgradeRequest { start: ours, length });
            request.manifest = ours == 0;
        }
        let end = request.upgrade.map_or(ours, |upgrade| upgrade.start + upgrade.length);
        match dice.below(if request.upgrade.is_some() { 6 } else { 3 }) {
            0 | 1 if end > 0 => {
                let index = dice.below(end);
                let nodes = self.reader.steps_to_known(index).expect("readable");
                request.block = Some(NodeRequest { index, nodes });
            }
            2 if end > 0 => {
                let index = dice.below(2 * end - 1);
                let root = flat::full_roots(ours).find(|root| flat::is_under(index, *root));
                let most = root.map_or(0, |root| u64::from(flat::depth(root) - flat::depth(index)));
                // Who knows something of what is on the way asks for less.
                let nodes = dice.below(most + 1);
                request.hash = Some(NodeRequest { index, nodes });
            }
            _ => {}
        }
        if dice.below(3) == 0 {
            request.seek = Some(SeekRequest { bytes: dice.below(all.bytes.max(1)), padding: 0 });
        }
        request
    }

    /// Gives both the same answers, until one is accepted: the others are judged anew then.
    async fn judge(&mut self, mut answers: Vec<Data>) {
        while !answers.is_empty() {
            let hex: Vec<_> = answers.iter().map(hex).collect();
            self.javascript.write(&json!({ "verify": hex }).to_string()).await;
            let verdicts = self.javascript.event("verdicts").await["verdicts"].take();
            let mut judged = 0;
            for (answer, theirs) in answers.iter().zip(verdicts.as_array().expect("a list")) {
                judged += 1;
                let why = why_we_refuse(answer, &self.reader);
                let ours = self.reader.accept(answer);
                assert!(!matches!(ours, Err(Refused::Feed(_) | Refused::Unsupported(_))), "{answer:?}: {ours:?}");
                let verdict = match (theirs.as_bool().expect("yes or no"), &ours, why) {
                    (true, Ok(()), None) => "both accept",
                    (false, Err(_), _) => "both refuse",
                    (true, Err(_), Some(why)) => why,
                    (true, Err(Refused::OurTree { .. }), None) => "it shows that a size was a lie, which is forgotten",
                    (true, Err(Refused::TooShort), None) => {
                        "it leads to a node that we did not keep, for its size may be a lie"
                    }
                    verdict => panic!("{verdict:?}: {answer:?}"),
                };
                *self.verdicts.entry(verdict).or_default() += 1;
                if ours.is_ok() {
                    self.accept(answer).await;
                    break;
                }
            }
            answers.drain(..judged);
        }
    }

    /// JavaScript takes what we took.
    async fn accept(&mut self, answer: &Data) {
        self.javascript.write(&json!({ "accept": hex(answer) }).to_string()).await;
        let theirs = self.javascript.event("accepted").await;
        assert_eq!(theirs["accepted"], true, "{answer:?}");
        assert_eq!(theirs["length"], self.reader.info().length, "{answer:?}");
        self.check_all();
    }

    /// Nothing is here but what the author wrote.
    fn check_all(&self) {
        let (ours, length) = (&self.reader, self.reader.info().length);
        for root in flat::full_roots(length) {
            assert_eq!(ours.node(root).expect("readable"), self.author.node(root).expect("readable"));
        }
        for index in 0..(2 * length).saturating_sub(1) {
            let (Some(node), Some(truth)) =
                (ours.node(index).expect("readable"), self.author.node(index).expect("readable"))
            else {
                continue;
            };
            // The size of one of two siblings shows when what is below comes.
            assert_eq!(node.hash, truth.hash, "node {index}");
        }
        for block in (0..length).filter(|block| ours.has(*block)) {
            let bytes = ours.read(block).expect("what was proven stays, whatever is told later");
            assert_eq!(bytes, self.author.read(block).expect("it wrote it"), "block {block}");
        }
    }

    /// Whatever was made up before: all comes from an honest peer, without a word against it.
    async fn finish(&mut self) {
        let (start, end) = (self.reader.info().length, self.author.info().length);
        if start < end {
            let upgrade = Some(UpgradeRequest { start, length: end - start });
            let data = self.author.answer(&Request { upgrade, manifest: true, ..Request::default() });
            self.reader.accept(&data.expect("the author has it")).expect("it is true");
        }
        for index in 0..end {
            for _ in 0..2 {
                let nodes = self.reader.steps_to_known(index).expect("readable");
                let block = Some(NodeRequest { index, nodes });
                let data = self.author.answer(&Request { block, ..Request::default() }).expect("the author has it");
                match self.reader.accept(&data) {
                    Ok(()) | Err(Refused::OurTree { .. }) => {}
                    Err(refused) => panic!("block {index}: {refused}"),
                }
            }
        }
        self.check_all();
        assert!(self.reader.info().is_complete());
        for index in 0..2 * end - 1 {
            assert_eq!(self.reader.node(index).expect("readable"), self.author.node(index).expect("readable"));
        }
    }
}

fn hex(data: &Data) -> String {
    hex::encode(Message::Data(Box::new(data.clone())).encode().1)
}

/// What JavaScript accepts and we don't.
fn why_we_refuse(data: &Data, reader: &Feed) -> Option<&'static str> {
    let DataUpgrade { start, length, nodes, .. } = data.upgrade.as_ref()?;
    let ours = reader.info().length;
    if *start != ours {
        return Some("it begins elsewhere than we end");
    }
    if *length == 0 {
        return Some("it adds nothing");
    }
    // One of those that are added may be shown by another part.
    let shown = usize::from(data.block.is_some() || data.hash.is_some() || data.seek.is_some());
    (nodes.len() + shown > cover(*start, start + length).count()).then_some("it has more nodes than are needed")
}

/// The lists of nodes in an answer.
fn lists(data: &mut Data) -> Vec<&mut Vec<Node>> {
    let Data { block, hash, seek, upgrade, .. } = data;
    let mut lists: Vec<&mut Vec<Node>> = Vec::new();
    lists.extend(block.as_mut().map(|block| &mut block.nodes));
    lists.extend(hash.as_mut().map(|hash| &mut hash.nodes));
    lists.extend(seek.as_mut().map(|seek| &mut seek.nodes));
    lists.extend(upgrade.as_mut().into_iter().flat_map(|upgrade| [&mut upgrade.nodes, &mut upgrade.additional]));
    lists
}

/// Something else than the honest answer, by somebody who has the answer about another feed at hand.
fn alter(dice: &mut Dice, honest: &Data, other: Option<&Data>) -> Data {
    let mut data = honest.clone();
    while data == *honest {
        for _ in 0..1 + dice.below(8) / 6 {
            match dice.below(3) {
                0 => alter_nodes(dice, &mut data),
                1 => alter_parts(dice, &mut data),
                _ => mix(dice, &mut data, other),
            }
        }
    }
    data
}

fn alter_nodes(dice: &mut Dice, data: &mut Data) {
    let mut lists = lists(data);
    if lists.is_empty() {
        return;
    }
    let (from, to) = (dice.below(lists.len() as u64) as usize, dice.below(lists.len() as u64) as usize);
    let len = lists[from].len() as u64;
    let (one, other) = (dice.below(len) as usize, dice.below(len) as usize);
    match dice.below(9) {
        _ if len == 0 => lists[from].push(Node::leaf(dice.below(99), b"made up")),
        0 => lists[from][one].hash[dice.below(32) as usize] ^= 1 << dice.below(8),
        1 => lists[from][one].size = (lists[from][one].size + dice.below(5)).saturating_sub(2),
        2 => lists[from][one].index = (lists[from][one].index + dice.below(5)).saturating_sub(2),
        3 => _ = lists[from].remove(one),
        4 => lists[from].push(Node::leaf(dice.below(99), b"made up")),
        5 => {
            let node = lists[from][one];
            lists[from].insert(other, node);
        }
        6 => lists[from].swap(one, other),
        7 => {
            let node = lists[from].remove(one);
            let at = dice.below(lists[to].len() as u64 + 1) as usize;
            lists[to].insert(at, node);
        }
        // The sum stays.
        _ => {
            let bytes = dice.below(lists[from][one].size + 1);
            lists[from][one].size -= bytes;
            lists[from][other].size += bytes;
        }
    }
}

fn alter_parts(dice: &mut Dice, data: &mut Data) {
    let near = |dice: &mut Dice, number: &mut u64| *number = (*number + dice.below(7)).saturating_sub(3);
    let flip = |dice: &mut Dice, bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        match (dice.below(4), bytes.len()) {
            (0, _) | (_, 0) => bytes.push(0),
            (1, _) => _ = bytes.pop(),
            (_, len) => bytes[dice.below(len as u64) as usize] ^= 1 << dice.below(8),
        }
        Bytes::from(bytes)
    };
    match dice.below(9) {
        0 => near(dice, &mut data.fork),
        1 => data.block.iter_mut().for_each(|block| block.value = flip(dice, &block.value)),
        2 => data.block.iter_mut().for_each(|block| near(dice, &mut block.index)),
        3 => data.hash.iter_mut().for_each(|hash| near(dice, &mut hash.index)),
        4 => data.upgrade.iter_mut().for_each(|upgrade| near(dice, &mut upgrade.start)),
        5 => data.upgrade.iter_mut().for_each(|upgrade| near(dice, &mut upgrade.length)),
        6 => data.upgrade.iter_mut().for_each(|upgrade| upgrade.signature = flip(dice, &upgrade.signature)),
        7 => data.manifest.iter_mut().for_each(|manifest| *manifest = flip(dice, manifest)),
        _ => match dice.below(5) {
            0 => data.block = None,
            1 => data.hash = None,
            2 => data.seek = None,
            3 => data.upgrade = None,
            _ => data.manifest = None,
        },
    }
}

/// Parts of another answer, about another feed.
fn mix(dice: &mut Dice, data: &mut Data, other: Option<&Data>) {
    let Some(other) = other.cloned() else { return };
    match dice.below(6) {
        0 => *data = other,
        1 => data.block = other.block,
        2 => data.hash = other.hash,
        3 => data.upgrade = other.upgrade,
        4 => data.manifest = other.manifest,
        _ => {
            let signature = other.upgrade.map(|upgrade| upgrade.signature);
            data.upgrade.iter_mut().zip(signature).for_each(|(upgrade, signature)| upgrade.signature = signature);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_javascript_refuses_of_altered_answers_is_refused_and_nothing_false_is_kept() {
    let number = |name| std::env::var(name).ok().map(|number: String| number.parse::<u64>().expect("a number"));
    let seeds = match number("DATDOT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DATDOT_SEEDS").unwrap_or(12),
    };
    let mut verdicts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in seeds.clone() {
        let _printed = Seed(seed);
        let dir = tempfile::tempdir().expect("a folder");
        let mut world = World::new(dir.path(), seed).await;
        for _ in 0..40 {
            let request = world.request();
            let Ok(honest) = world.author.answer(&request) else { continue };
            let other = world.stranger.answer(&request).ok();
            let altered = (0..ALTERED).map(|_| alter(&mut world.dice, &honest, other.as_ref())).collect();
            world.judge(altered).await;
            world.judge(vec![honest]).await;
        }
        world.finish().await;
        world.verdicts.into_iter().for_each(|(verdict, count)| *verdicts.entry(verdict).or_default() += count);
    }
    println!("{verdicts:?}");
    let often = seeds.count() as u32;
    assert!(verdicts["both accept"] > 10 * often && verdicts["both refuse"] > 200 * often, "{verdicts:?}");
}
