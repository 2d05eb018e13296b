//! What a disk loses and what peers make up: only what is lost is missing, and a lie never outlives the truth.

use super::Store;
use crate::{
    feed::{Feed, FeedError, Judged, Located, Refused},
    files::{
        Files,
        torn::{Dice, Machine},
    },
    journal::DATA_START,
    key::Keypair,
    messages::{Data, DataSeek, NodeRequest, Request, UpgradeRequest},
    prove::check,
};
use bytes::Bytes;
use datdot_proof::{
    flat,
    head::{Head, Root, SignedHead},
    tree::{Node, Roots},
};
use std::{path::Path, sync::mpsc, time::Duration};

fn open(machine: &Machine) -> Store {
    Store::open_on(Files::Torn(machine.clone()), Path::new("/store"), mpsc::channel().0).expect("opening succeeds")
}

fn block(i: u64, size: usize) -> Bytes {
    vec![(i % 250) as u8 + 1; size].into()
}

/// An author's feed of so many blocks on a machine of its own.
fn author(count: u64, size: usize) -> (Machine, Feed) {
    let machine = Machine::default();
    let feed = open(&machine).create(&Keypair::from_seed([1; 32])).expect("room");
    feed.write(&(0..count).map(|i| block(i, size)).collect::<Vec<_>>()).expect("an author appends");
    (machine, feed)
}

/// A copy that knows the author's head, and no block.
fn copy(author: &Feed) -> (Machine, Feed) {
    let machine = Machine::default();
    let feed = open(&machine).open_remote(author.key(), author.signed_head()).expect("an honest head");
    (machine, feed)
}

fn ask(author: &Feed, block: u64, nodes: u64) -> Data {
    let (block, fork) = (Some(NodeRequest { index: block, nodes }), author.info().fork);
    author.answer(&Request { block, fork, ..Request::default() }).expect("the author has it")
}

fn fetch(author: &Feed, copy: &Feed, block: u64) {
    let nodes = copy.steps_to_known(block).expect("readable");
    copy.accept(&ask(author, block, nodes)).expect("it is true");
}

/// Tells of a left child and its sibling as if to say where a byte is, with sizes that are shifted by so much.
fn told(author: &Feed, left: u64, shifted: i64) -> Data {
    let node = |index| author.node(index).expect("readable").expect("it has all");
    let (mut nodes, mut at) = (vec![node(left)], left);
    while flat::end_block(flat::parent(at)) <= author.info().length {
        nodes.push(node(flat::sibling(at)));
        at = flat::parent(at);
    }
    nodes[0].size = nodes[0].size.strict_add_signed(shifted);
    nodes[1].size = nodes[1].size.strict_add_signed(-shifted);
    Data { seek: Some(DataSeek { bytes: 0, nodes }), ..Data::default() }
}

/// Block, and the proof for who has only the head.
fn assert_served(feed: &Feed, block: u64, bytes: &Bytes) {
    assert_eq!(feed.read(block).expect("it is here"), *bytes, "block {block}");
    let roots = feed.lock().roots.clone();
    let root = roots.above(flat::leaf(block)).expect("it is within");
    let answer = ask(feed, block, u64::from(flat::depth(root.index)));
    assert_eq!(check(&answer, &roots).expect("it fits together").top.as_ref(), Some(root));
}

fn tree(feed: &Feed) -> std::path::PathBuf {
    feed.data_path().with_file_name("tree")
}

#[test]
fn a_node_that_rots_is_made_anew_and_no_block_is_lost() {
    for (rotten, first) in (0..79).flat_map(|node| [(node, 0), (node, 39)]) {
        let (machine, feed) = author(40, 100);
        let truth = feed.node(rotten).expect("readable");
        machine.damage(&tree(&feed), 44 * rotten as usize + 9);
        for i in [first].into_iter().chain(0..40) {
            assert_served(&feed, i, &block(i, 100));
        }
        assert_eq!(feed.node(rotten).expect("readable"), truth, "node {rotten}");
        assert_eq!(feed.info().blocks_here, 40);
        // It reaches the disk with the next commit.
        feed.sync().expect("room");
        let key = feed.key();
        machine.fail_after(1);
        drop(feed);
        machine.restart_after_power_loss(&mut Dice::new(rotten));
        let feed = open(&machine).feed(&key).expect("it was made");
        assert_eq!(feed.node(rotten).expect("readable"), truth, "node {rotten}");
    }
}

#[test]
fn an_author_cuts_although_a_node_rots() {
    let (machine, feed) = author(40, 100);
    machine.damage(&tree(&feed), 44 * 39 + 9);
    feed.truncate_now(27).expect("it has them");
    (0..27).for_each(|i| assert_served(&feed, i, &block(i, 100)));
    assert_eq!(feed.info().bytes_here, 2700);
}

#[test]
fn a_leaf_and_the_node_above_it_are_made_anew_together() {
    let (machine, feed) = author(40, 100);
    [20, 21, 39].into_iter().for_each(|node| machine.damage(&tree(&feed), 44 * node + 9));
    (0..40).for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn what_can_not_be_made_anew_costs_its_sibling_at_most() {
    let (machine, feed) = author(40, 100);
    machine.damage(&tree(&feed), 44 * 2 * 20 + 9);
    machine.damage(&feed.data_path(), DATA_START as usize + 2010);
    assert!(matches!(feed.read(20), Err(FeedError::Damaged { block: 20 })));
    // Where the block beside it begins is gone with it, and so is the hash that proves it.
    for i in (0..40).filter(|i| ![20, 21].contains(i)) {
        assert_served(&feed, i, &block(i, 100));
    }
}

#[test]
fn what_rots_beside_the_way_to_a_block_comes_again_with_it() {
    let (_source, author) = author(8, 100);
    let (machine, feed) = copy(&author);
    (4..8).for_each(|i| fetch(&author, &feed, i));
    feed.sync().expect("room");
    // Nothing below it is here, of which it could be made.
    machine.damage(&tree(&feed), 44 * 3 + 9);
    for i in 4..8 {
        assert!(matches!(feed.read(i), Err(FeedError::Damaged { .. })), "block {i}");
    }
    (4..8).for_each(|i| fetch(&author, &feed, i));
    (4..8).for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn a_pair_that_rots_while_a_block_is_asked_for_comes_with_the_next_answer() {
    let (_source, author) = author(8, 100);
    let (machine, feed) = copy(&author);
    (0..7).for_each(|i| fetch(&author, &feed, i));
    feed.sync().expect("room");
    let nodes = feed.steps_to_known(7).expect("readable");
    [12, 14].into_iter().for_each(|node| machine.damage(&tree(&feed), 44 * node + 9));
    assert!(matches!(feed.accept(&ask(&author, 7, nodes)), Err(Refused::TooShort)));
    fetch(&author, &feed, 7);
    (0..8).for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn a_block_whose_place_is_lost_can_be_dropped() {
    let (_source, author) = author(8, 100);
    let (machine, feed) = copy(&author);
    (4..8).for_each(|i| fetch(&author, &feed, i));
    feed.sync().expect("room");
    machine.damage(&tree(&feed), 44 * 3 + 9);
    assert_eq!(feed.clear_now(0..8).expect("it need not be found for that"), 400);
    assert_eq!((feed.info().blocks_here, feed.info().bytes_here), (0, 0));
    (0..8).for_each(|i| fetch(&author, &feed, i));
    (0..8).for_each(|i| assert_served(&feed, i, &block(i, 100)));
    assert_eq!(feed.clear_now(0..8).expect("all is there"), 800);
}

#[test]
fn a_block_whose_place_is_lost_stops_no_cut() {
    let (machine, feed) = author(8, 100);
    // So that more than one run of blocks stays, and more than one goes.
    [1, 5].into_iter().for_each(|i| assert_eq!(feed.clear_now(i..i + 1).expect("it is here"), 100));
    machine.damage(&tree(&feed), 44 * 8 + 9);
    machine.damage(&feed.data_path(), DATA_START as usize + 410);
    feed.truncate_now(4).expect("what stays is whole");
    [0, 2, 3].into_iter().for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn pages_that_can_not_be_read_cost_what_was_in_them_and_are_written_again() {
    let (_source, author) = author(600, 100);
    let (machine, feed) = copy(&author);
    (0..600).for_each(|i| fetch(&author, &feed, i));
    feed.sync().expect("room");
    machine.lose(&feed.data_path(), DATA_START + 8192);
    machine.lose(&tree(&feed), 5 * 4096);
    let damaged = scrub(&feed);
    assert!((80..250).contains(&damaged.len()), "{damaged:?}");
    assert!(damaged.iter().all(|i| (81..=123).contains(i) || (192..320).contains(i)), "{damaged:?}");
    (0..600).filter(|i| !damaged.contains(i)).for_each(|i| assert_served(&feed, i, &block(i, 100)));
    for i in damaged {
        fetch(&author, &feed, i);
    }
    // What shared a page with them was lost when that was written.
    for i in scrub(&feed) {
        fetch(&author, &feed, i);
    }
    assert_eq!(scrub(&feed), []);
    (0..600).for_each(|i| assert_served(&feed, i, &block(i, 100)));
    assert!(feed.info().is_complete());
}

fn scrub(feed: &Feed) -> Vec<u64> {
    feed.scrub_now(0..u64::MAX).expect("it goes on")
}

#[test]
fn what_is_dropped_while_blocks_are_checked_is_not_called_damaged() {
    let (_machine, feed) = author(2000, 10);
    let checked = std::thread::scope(|scope| {
        let checked = scope.spawn(|| scrub(&feed));
        (1000..2000).rev().for_each(|i| _ = feed.clear_now(i..i + 1).expect("it is here"));
        checked.join().expect("no panic")
    });
    assert_eq!(checked, []);
}

#[test]
fn what_was_found_damaged_is_told_though_it_can_not_be_written_down() {
    let (machine, feed) = author(8, 100);
    machine.damage(&feed.data_path(), DATA_START as usize + 310);
    machine.fail_syncs();
    assert_eq!(scrub(&feed), [3]);
}

#[test]
fn an_author_whose_last_block_can_not_be_read_does_not_go_on_without_it() {
    for own in [true, false] {
        let (machine, feed) = author(1, 5000);
        feed.write(&[block(1, 5000)]).expect("an author appends");
        let (key, data) = (feed.key(), feed.data_path());
        let secret = data.with_file_name("secret");
        machine.fail_after(1);
        drop(feed);
        machine.restart();
        machine.lose(&data, DATA_START + 9000);
        if !own {
            machine.remove(&secret).expect("it is there");
        }
        let feed = open(&machine).feed(&key);
        assert_eq!(feed.map(|feed| feed.info().length), (!own).then_some(1));
    }
}

#[test]
fn a_lie_that_comes_in_between_does_not_stand_in_the_way_of_the_truth() {
    let (_source, author) = author(4, 100);
    let (_machine, feed) = copy(&author);
    // Asked before the liar answers.
    let honest = ask(&author, 1, feed.steps_to_known(1).expect("readable"));
    feed.accept(&told(&author, 0, 60)).expect("nothing shows that it is a lie");
    assert_ne!(feed.node(0).expect("readable"), author.node(0).expect("readable"));
    feed.accept(&honest).expect("it is true");
    for again in [false, true] {
        if again {
            // Nor does one that comes later.
            feed.accept(&told(&author, 0, 60)).expect("nothing shows that it is a lie");
        }
        for index in 0..7 {
            let node = feed.node(index).expect("readable");
            assert!(node.is_none() || node == author.node(index).expect("readable"), "node {index}");
        }
        assert_eq!(feed.byte_range(1..2).expect("it is here"), 100..200);
        assert_served(&feed, 1, &block(1, 100));
    }
}

#[test]
fn what_is_proven_wins_after_a_crash_over_what_was_told_before() {
    for seed in 0..40 {
        let (_source, author) = author(4, 100);
        let (machine, feed) = copy(&author);
        feed.accept(&told(&author, 0, 60)).expect("nothing shows that it is a lie");
        let steps = feed.steps_to_known(1).expect("readable");
        assert!(feed.accept(&ask(&author, 1, steps)).is_err(), "it shows the lie");
        fetch(&author, &feed, 1);
        feed.sync().expect("room");
        let key = feed.key();
        machine.fail_after(1);
        drop(feed);
        machine.restart_after_power_loss(&mut Dice::new(seed));
        let feed = open(&machine).feed(&key).expect("it was made");
        assert_eq!(feed.node(0).expect("readable"), author.node(0).expect("readable"));
        assert_served(&feed, 1, &block(1, 100));
    }
}

#[test]
fn what_is_proven_wins_after_a_crash_though_it_is_too_much_to_be_named_in_the_journal() {
    for seed in 0..10 {
        let (_source, author) = author(400, 100);
        let (machine, feed) = copy(&author);
        feed.accept(&told(&author, 0, 60)).expect("nothing shows that it is a lie");
        feed.sync().expect("room");
        let steps = feed.steps_to_known(1).expect("readable");
        assert!(feed.accept(&ask(&author, 1, steps)).is_err(), "it shows the lie");
        (0..400).for_each(|i| fetch(&author, &feed, i));
        feed.sync().expect("room");
        let key = feed.key();
        machine.fail_after(1);
        drop(feed);
        machine.restart_after_power_loss(&mut Dice::new(seed));
        let feed = open(&machine).feed(&key).expect("it was made");
        assert_eq!(feed.node(0).expect("readable"), author.node(0).expect("readable"));
        (0..400).for_each(|i| assert_served(&feed, i, &block(i, 100)));
    }
}

#[test]
fn what_is_only_told_does_not_come_above_what_is_here_unless_that_says_the_same() {
    let (_source, author) = author(8, 100);
    let (machine, feed) = copy(&author);
    (0..8).for_each(|i| fetch(&author, &feed, i));
    let one = author.node(1).expect("readable");
    for shifted in [0, 30] {
        feed.sync().expect("room");
        // Two nodes rot, and somebody tells of them before anybody else looks.
        [1, 5].into_iter().for_each(|node| machine.damage(&tree(&feed), 44 * node + 9));
        feed.accept(&told(&author, 1, shifted)).expect("the sum is true");
        assert_eq!(feed.node(1).expect("readable"), one.filter(|_| shifted == 0));
        (0..8).rev().for_each(|i| assert_served(&feed, i, &block(i, 100)));
        assert_eq!(feed.node(1).expect("readable"), one);
    }
}

#[test]
fn a_tree_in_which_sizes_contradict_each_other_is_looked_through_once() {
    let (_source, honest) = author(4, 100);
    let node = |index| honest.node(index).expect("readable").expect("it has all");
    let larger = |index| Node { size: node(index).size + 1, ..node(index) };
    // A hash shows a sum: the author signs one that the blocks don't have.
    let root = Node::parent(&node(1), &larger(5)).expect("siblings");
    let (author, length) = (Keypair::from_seed([1; 32]), 4);
    let (manifest, roots) = (author.manifest(), Roots::from_nodes(&[root]).expect("one root"));
    let signable = Head { fork: 0, length, tree_hash: roots.tree_hash() }.signable(&honest.key().0, &manifest);
    let (signature, roots) = (author.sign(&signable), vec![Root { hash: root.hash, size: root.size }]);
    let head = SignedHead { fork: 0, length, roots, manifest, signature };
    let feed = open(&Machine::default()).open_remote(honest.key(), Some(head)).expect("it signed");
    let with = |block: u64, beside: Option<Node>| {
        let mut data = ask(&honest, block, 1);
        data.block.as_mut().expect("it was asked for").nodes.extend(beside);
        feed.accept(&data)
    };
    with(0, Some(larger(5))).expect("it leads to the root");
    assert!(matches!(with(2, None), Err(Refused::OurTree { .. })));
    with(2, Some(larger(1))).expect("it leads to the root");
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        (0..4).for_each(|i| _ = feed.read(i));
        _ = ended.send(feed.scrub_now(0..4));
    });
    end.recv_timeout(Duration::from_secs(20)).expect("it comes to an end").expect("readable");
}

#[test]
fn a_fork_shifts_no_size_of_what_stays() {
    let (_source, author) = author(8, 100);
    let (_machine, feed) = copy(&author);
    feed.follow_forks(true);
    (0..4).for_each(|i| fetch(&author, &feed, i));
    author.truncate_now(5).expect("an author cuts");
    author.write(&[block(9, 100), block(10, 100), block(11, 100)]).expect("an author appends");
    let upgrade = Some(UpgradeRequest { start: 0, length: 8 });
    let whole = author.answer(&Request { fork: 1, upgrade, ..Request::default() }).expect("it has all");
    let Ok(Judged::Fork(mut fork)) = feed.judge(&whole) else { panic!("it is a later fork") };
    while let Some((index, nodes)) = feed.next_question(&mut fork, |_| None).expect("readable") {
        let hash = Some(NodeRequest { index, nodes });
        let mut data = author.answer(&Request { fork: 1, hash, ..Request::default() }).expect("it has all");
        let told = &mut data.hash.as_mut().expect("it was asked for").nodes;
        told[0].size -= 60;
        told[1].size += 60;
        fork.learn(&data).expect("the sum is true");
    }
    feed.adopt_fork(*fork).expect("readable");
    assert_eq!((feed.info().fork, feed.info().blocks_here), (1, 4));
    for index in [3, 11] {
        assert_eq!(feed.node(index).expect("readable"), author.node(index).expect("readable"));
    }
    (0..4).for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn a_told_size_that_no_encrypted_block_has_does_not_stop_a_reader() {
    let (_source, author) = author(4, 100);
    let (_machine, feed) = copy(&author);
    feed.accept(&told(&author, 0, -98)).expect("nothing shows that it is a lie");
    assert!(matches!(feed.locate(50, 8).expect("a peer can tell"), Located::Under { node: 1, .. }));
    feed.accept(&told(&author, 0, 0)).expect("it is true");
    assert_eq!(feed.locate(95, 8).expect("it was told"), Located::Block { index: 1, offset: 3 });
}

#[test]
fn short_blocks_that_are_here_are_known_not_to_be_encrypted() {
    let (_machine, feed) = author(1, 100);
    feed.write(&[block(1, 3)]).expect("an author appends");
    assert!(matches!(feed.locate(50, 8), Err(FeedError::NotEncrypted)));
    (0..2).for_each(|i| assert_served(&feed, i, &block(i, [100, 3][i as usize])));
}

#[test]
fn a_true_head_is_no_conflict_because_of_a_lie() {
    let (_source, author) = author(2, 100);
    let shorter = author.signed_head();
    author.write(&[block(2, 100), block(3, 100)]).expect("an author appends");
    let (_machine, feed) = copy(&author);
    feed.accept(&told(&author, 1, 60)).expect("nothing shows that it is a lie");
    assert_eq!(feed.node(1).expect("readable").map(|node| node.size), Some(260));
    feed.adopt_now(shorter.expect("it has one")).expect("its author signed it");
    assert_eq!(feed.node(1).expect("readable"), None);
    (0..4).for_each(|i| fetch(&author, &feed, i));
    (0..4).for_each(|i| assert_served(&feed, i, &block(i, 100)));
}

#[test]
fn nothing_more_is_stored_while_what_waits_can_not_be_kept() {
    let (_source, author) = author(8, 100);
    let (machine, feed) = copy(&author);
    fetch(&author, &feed, 0);
    machine.fail_syncs();
    assert!(feed.sync().is_err());
    for i in 1..8 {
        let nodes = feed.steps_to_known(i).expect("readable");
        assert!(feed.accept(&ask(&author, i, nodes)).is_err());
    }
    assert_eq!(feed.info().blocks_here, 1);
}

#[test]
fn once_there_is_room_again_what_waited_is_kept_and_more_is_stored() {
    let (_source, author) = author(100, 500);
    let (machine, feed) = copy(&author);
    // The files are as long as they will be, the journal is not.
    fetch(&author, &feed, 99);
    machine.leave_room(Some(0));
    let fits = (0..99).take_while(|i| {
        fetch(&author, &feed, *i);
        feed.sync().is_ok()
    });
    let next = fits.count() as u64 + 1;
    let nodes = feed.steps_to_known(next).expect("readable");
    assert!(feed.accept(&ask(&author, next, nodes)).is_err());
    machine.leave_room(None);
    (next..99).for_each(|i| fetch(&author, &feed, i));
    feed.sync().expect("there is room");
    (0..100).for_each(|i| assert_served(&feed, i, &block(i, 500)));
}

#[test]
fn an_author_who_was_restored_signs_no_number_twice() {
    let (_machine, feed) = author(4, 100);
    feed.note_fork(7);
    feed.truncate_now(2).expect("it has them");
    assert_eq!((feed.info().fork, feed.info().later_fork), (8, None));
}
