use super::*;
use proptest::prelude::*;
use std::{collections::BTreeMap as Model, ops::RangeBounds};

impl Blocks for Vec<Bytes> {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        self.get(number as usize).cloned().ok_or(FeedError::OutOfRange { block: number, length: self.len() as u64 })
    }
}

fn bee(blocks: &[Bytes]) -> Bee<Vec<Bytes>> {
    Bee::new(blocks.to_vec(), blocks.len() as u64)
}

fn new() -> Vec<Bytes> {
    vec![Header::new(None).to_block()]
}

fn key(number: u16) -> Bytes {
    format!("key {number}").into()
}

type Entered = Vec<(Bytes, Bytes)>;

fn entries<B: Blocks>(bee: &Bee<B>, from: Bound<Bytes>, to: Bound<Bytes>) -> Result<Entered, BeeError> {
    bee.range(from, to).map(|entry| entry.map(|entry| (entry.key, entry.value.unwrap()))).collect()
}

/// Keys in a node, and whether all leaves are at the same depth.
fn check_shape(bee: &Bee<Vec<Bytes>>, place: Place, root: bool) -> usize {
    let level = bee.level(place).unwrap();
    assert!(root || level.keys.len() >= 4, "a node with {} keys", level.keys.len());
    let depths: Vec<_> = level.children.iter().map(|child| check_shape(bee, *child, false)).collect();
    assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
    depths.first().map_or(0, |depth| depth + 1)
}

#[derive(Clone, Debug)]
enum Command {
    Put(u16, u8),
    Del(u16),
    /// Appends what was done so far.
    Flush,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let command = prop_oneof![
        5 => (0..200u16, any::<u8>()).prop_map(|(key, value)| Command::Put(key, value)),
        4 => (0..200u16).prop_map(Command::Del),
        1 => Just(Command::Flush),
    ];
    proptest::collection::vec(command, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_a_map(commands in commands(), from in 0..200u16, to in 0..200u16) {
        let (mut blocks, mut model) = (new(), Model::new());
        let mut versions = vec![(1, model.clone())];
        for commands in commands.split_inclusive(|command| matches!(command, Command::Flush)) {
            let before = bee(&blocks);
            let mut batch = before.batch();
            for command in commands {
                match command {
                    Command::Put(number, value) => {
                        let value = Bytes::from(vec![*value; 3]);
                        batch.put(key(*number), value.clone()).unwrap();
                        model.insert(key(*number), value);
                    }
                    Command::Del(number) => {
                        prop_assert_eq!(batch.del(&key(*number)).unwrap(), model.remove(&key(*number)).is_some());
                    }
                    Command::Flush => {}
                }
            }
            blocks.extend(batch.into_blocks());
            versions.push((blocks.len() as u64, model.clone()));
        }
        for (version, model) in versions {
            let bee = Bee::new(blocks.clone(), version);
            bee.root().into_iter().for_each(|root| _ = check_shape(&bee, root, true));
            let all: Entered = model.clone().into_iter().collect();
            prop_assert_eq!(entries(&bee, Bound::Unbounded, Bound::Unbounded).unwrap(), all);
            let (from, to) = (key(from), key(to));
            let bounds = [
                (Bound::Included(from.clone()), Bound::Unbounded),
                (Bound::Excluded(from.clone()), Bound::Included(to.clone())),
                (Bound::Included(from.clone()), Bound::Excluded(to.clone())),
            ];
            for (from, to) in bounds {
                let expected: Entered = model.iter()
                    .filter(|(key, _)| (from.as_ref(), to.as_ref()).contains(key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                prop_assert_eq!(entries(&bee, from, to).unwrap(), expected);
            }
            for number in 0..200 {
                let found = bee.get(&key(number)).unwrap().and_then(|entry| entry.value);
                prop_assert_eq!(found.as_ref(), model.get(&key(number)));
            }
        }
    }

    #[test]
    fn history_makes_the_tree_again(commands in commands()) {
        let (mut blocks, mut model) = (new(), Model::new());
        let empty = bee(&blocks);
        let mut batch = empty.batch();
        for command in commands {
            match command {
                Command::Put(number, value) => batch.put(key(number), vec![value].into()).unwrap(),
                Command::Del(number) => _ = batch.del(&key(number)).unwrap(),
                Command::Flush => {}
            }
        }
        blocks.extend(batch.into_blocks());
        let bee = bee(&blocks);
        for change in bee.history(0..u64::MAX) {
            let change = change.unwrap();
            match change.put {
                Some(value) => _ = model.insert(change.key, value),
                None => _ = model.remove(&change.key).unwrap(),
            }
        }
        let all: Entered = model.into_iter().collect();
        prop_assert_eq!(entries(&bee, Bound::Unbounded, Bound::Unbounded).unwrap(), all);
    }

    /// Whatever an author signs, calls end, and with little work.
    #[test]
    fn hostile_trees_are_read_or_refused(
        nodes in proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(
                (proptest::collection::vec(1..30u64, 0..9), proptest::collection::vec((1..30u64, 0..4u64), 0..10)), 1..4,
            )), 1..30,
        ),
    ) {
        let mut blocks = new();
        for (key, levels) in nodes {
            let levels = levels.into_iter().map(|(keys, mut children)| {
                children.resize(keys.len() + 1, children.first().copied().unwrap_or((1, 0)));
                let number = blocks.len() as u64;
                let keys = keys.iter().map(|key| 1 + key % number).collect();
                let place = |(block, level)| Place { block: 1 + block % number, level };
                Level { keys, children: children.into_iter().map(place).collect() }
            });
            let levels = levels.collect();
            blocks.push(Node { key: vec![key].into(), value: Some(Bytes::new()), levels }.to_block());
        }
        let bee = bee(&blocks);
        let mut read = 0;
        for entry in bee.range(Bound::Unbounded, Bound::Unbounded) {
            read += 1;
            if entry.is_err() {
                break;
            }
        }
        prop_assert!(read <= blocks.len() + 1);
        _ = bee.get(&[7]);
        let mut batch = bee.batch();
        if batch.put(vec![9].into(), Bytes::new()).is_ok() && batch.del(&vec![9].into()).is_ok() {
            _ = batch.into_blocks();
        }
    }
}

/// A feed of which some blocks have not come yet.
struct Sparse(Vec<Bytes>, Mutex<std::collections::BTreeSet<u64>>);

impl Blocks for Sparse {
    fn block(&self, number: u64) -> Result<Bytes, FeedError> {
        if !self.1.lock().unwrap().contains(&number) {
            return Err(FeedError::NotHere { block: number });
        }
        self.0.block(number)
    }
}

#[test]
fn what_is_missing_is_named_and_the_same_call_gets_further() {
    let mut blocks = new();
    let empty = bee(&blocks);
    let mut batch = empty.batch();
    (0..500).for_each(|number| batch.put(key(number), key(number)).unwrap());
    blocks.extend(batch.into_blocks());
    let version = blocks.len() as u64;
    let sparse = Bee::new(Sparse(blocks, Mutex::default()), version);
    let come = |error: BeeError| match error {
        BeeError::Feed(FeedError::NotHere { block }) => assert!(sparse.blocks.1.lock().unwrap().insert(block)),
        error => panic!("{error}"),
    };
    let found = loop {
        match sparse.get(&key(321)) {
            Ok(found) => break found.unwrap(),
            Err(error) => come(error),
        }
    };
    assert_eq!(found.value, Some(key(321)));
    let asked = sparse.blocks.1.lock().unwrap().len();
    assert!(asked < 20, "{asked} blocks for one key");

    let mut all = 0;
    for entry in sparse.range(Bound::Included(key(2)), Bound::Unbounded) {
        match entry {
            Ok(_) => all += 1,
            Err(error) => come(error),
        }
    }
    let mut keys: Vec<_> = (0..500).map(key).collect();
    keys.sort();
    assert_eq!(all, keys.iter().filter(|key| **key >= "key 2").count());
}
