//! Blocks are asked for with as much proof as is left once the one before has come: what happens if that comes later, or not.

mod support;
use bytes::Bytes;
use datdot_hypercore::{
    Feed, Store, Want,
    messages::{Message, Request, Sync},
    peer::{Peer, Setup},
    plans::Plans,
};
use datdot_wire::mux::{ChannelId, Event, Mux};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    played::{HASH, open, say, setup},
    *,
};

const BLOCKS: u64 = 100;

/// A reader's end of a connection, and a seeder that answers as it is told to.
struct World {
    reader: Peer,
    copy: Feed,
    feed: Feed,
    seeder: Mux,
    channel: ChannelId,
    now: Instant,
}

impl World {
    /// The reader has a head and has asked for blocks. These questions are returned.
    async fn new(dir: &Path) -> (World, Vec<Request>) {
        let store = Store::open(dir.join("seeder")).expect("the folder is free");
        let feed = store.create(&keypair(1)).expect("room");
        append(&feed, BLOCKS, 100).await;
        let store = Store::open(dir.join("reader")).expect("the folder is free");
        let copy = store.open_remote(feed.key(), feed.signed_head()).expect("an honest head");
        let (plans, now) = (Arc::<Plans>::default(), Instant::now());
        plans.want(feed.key(), Want::all(), 1, false);
        let mut reader = Peer::new(now, Setup { window: 32, ..setup(&store, &plans) });
        reader.tick(now);
        let mut seeder = Mux::new();
        let channel = open(&mut seeder, &feed.key(), false, &HASH);
        let mut world = World { reader, copy, feed, seeder, channel, now };
        let (can_upgrade, uploading, downloading, length) = (true, true, true, BLOCKS);
        let sync = Sync { can_upgrade, uploading, downloading, length, remote_length: length, ..Sync::default() };
        world.say(&Message::Sync(sync));
        world.say(&Message::Range { drop: false, start: 0, length });
        let questions = world.exchange();
        (world, questions)
    }

    fn say(&mut self, message: &Message) {
        say(&mut self.seeder, self.channel, message);
    }

    /// Brings what the seeder said to the reader, in one round; returns what is asked then.
    fn exchange(&mut self) -> Vec<Request> {
        let frames: Vec<Bytes> = std::iter::from_fn(|| self.seeder.take_output()).map(Bytes::from).collect();
        self.reader.receive(self.now, frames).expect("the seeder does nothing wrong");
        for frame in self.reader.take_output() {
            self.seeder.receive(frame.into());
        }
        let mut questions = Vec::new();
        while let Some(event) = self.seeder.next().expect("the reader speaks as an honest end does") {
            let Event::Message { kind, body, .. } = event else { continue };
            if let Ok(Some(Message::Request(request))) = Message::decode(kind, &body) {
                questions.push(request);
            }
        }
        questions
    }

    fn answer(&mut self, request: &Request) {
        let data = self.feed.answer(request).expect("the seeder has everything");
        self.say(&Message::Data(Box::new(data)));
    }
}

fn blocks(questions: &[Request]) -> Vec<u64> {
    questions.iter().filter_map(|request| request.block.map(|block| block.index)).collect()
}

#[tokio::test]
async fn a_block_is_asked_for_with_what_the_one_before_does_not_bring() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut world, mut questions) = World::new(dir.path()).await;
    let mut nodes = Vec::new();
    while !questions.is_empty() {
        nodes.extend(questions.iter().filter_map(|request| request.block.map(|block| block.nodes)));
        questions.iter().for_each(|request| world.answer(request));
        questions = world.exchange();
    }
    assert_eq!(world.copy.info().blocks_here, BLOCKS);
    assert_eq!(nodes.len() as u64, BLOCKS, "each was asked for once");
    assert!(nodes.iter().sum::<u64>() < 2 * BLOCKS, "{nodes:?}");
    assert_blocks(&world.copy, BLOCKS, 100).await;
}

#[tokio::test]
async fn blocks_that_come_early_wait_for_the_one_before() {
    let dir = tempfile::tempdir().expect("a folder");
    // All in one round, backwards, and each in a round of its own.
    for at_once in [true, false] {
        let (mut world, mut questions) = World::new(&dir.path().join(at_once.to_string())).await;
        let mut asked = Vec::new();
        while !questions.is_empty() {
            asked.extend(blocks(&questions));
            let mut next = Vec::new();
            for request in questions.iter().rev() {
                world.answer(request);
                if !at_once {
                    next.extend(world.exchange());
                }
            }
            next.extend(world.exchange());
            questions = next;
        }
        assert_eq!(world.copy.info().blocks_here, BLOCKS);
        asked.sort_unstable();
        assert_eq!(asked, Vec::from_iter(0..BLOCKS), "each was asked for once");
        assert_blocks(&world.copy, BLOCKS, 100).await;
    }
}

#[tokio::test]
async fn a_block_whose_forerunner_does_not_come_is_asked_for_with_its_whole_proof() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut world, mut questions) = World::new(dir.path()).await;
    let mut refused = false;
    while !questions.is_empty() {
        for request in &questions {
            // Each fourth block is missing at first.
            match request.block.filter(|block| !refused && block.index % 4 == 0) {
                Some(block) => {
                    world.say(&Message::Range { drop: true, start: block.index, length: 1 });
                    world.say(&Message::NoData { id: request.id, reason: None });
                }
                None => world.answer(request),
            }
        }
        let said_again = !std::mem::replace(&mut refused, true);
        questions = world.exchange();
        if said_again {
            // Who did not bring a block is not asked for it again at once.
            world.now += Duration::from_secs(3);
            world.say(&Message::Range { drop: false, start: 0, length: BLOCKS });
            questions.extend(world.exchange());
        }
    }
    assert_eq!(world.copy.info().blocks_here, BLOCKS);
    assert_blocks(&world.copy, BLOCKS, 100).await;
}
