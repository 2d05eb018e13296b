//! What one channel says, and to what.

use super::*;

fn session(local: Local) -> (Session, Vec<Message>) {
    Session::new(local, Offers::default())
}

fn full(length: u64) -> Local {
    Local { length, contiguous: length, has_manifest: true, can_upgrade: true, ..Local::default() }
}

#[test]
fn the_first_words_are_sync_and_range() {
    let (_, first) = session(full(9));
    let [Message::Sync(sync), Message::Range { drop: false, start: 0, length: 9 }] = &first[..] else {
        panic!("{first:?}")
    };
    assert!(sync.uploading && sync.can_upgrade && sync.has_manifest && !sync.downloading);
    assert_eq!((sync.length, sync.remote_length), (9, 0));
    assert_eq!(session(Local::default()).1.len(), 1);
}

#[test]
fn a_sync_with_news_is_acknowledged_once() {
    let (mut session, _) = session(full(9));
    let reader = Sync { downloading: true, length: 4, ..Sync::default() };
    assert_eq!(session.receive(Message::Sync(reader)), Ok(Some(Action::Synced)));
    let Some(Message::Sync(answer)) = session.tell(full(9)) else { panic!("no answer") };
    assert_eq!(answer.remote_length, 4);
    assert_eq!(session.tell(full(9)), None);
    assert_eq!(session.receive(Message::Sync(reader)), Ok(None));
}

#[test]
fn a_channel_that_nobody_needs_is_closed() {
    let (mut session, _) = session(full(9));
    assert_eq!(session.receive(Message::Sync(Sync::default())), Ok(Some(Action::Close)));
}

#[test]
fn requests_come_in_order_but_urgent_and_cancelled_ones() {
    let (mut session, _) = session(full(9));
    let request = |id, priority| Message::Request(Request { id, priority, ..Request::default() });
    for (id, priority) in [(1, 0), (2, 0), (3, 0), (4, 2)] {
        assert_eq!(session.receive(request(id, priority)), Ok(None));
    }
    assert_eq!(session.receive(Message::Cancel { id: 2 }), Ok(None));
    let order: Vec<_> = std::iter::from_fn(|| session.next_request()).map(|request| request.id).collect();
    assert_eq!(order, [4, 1, 3]);
    for id in [5, 6, 5] {
        assert_eq!(session.receive(request(id, 0)), Ok(None));
    }
    assert_eq!(session.waiting(), 2, "a reused id takes no room");
}

#[test]
fn a_refused_block_is_not_offered_until_it_is_announced_again() {
    let (mut session, _) = session(Local { length: 100, downloading: true, ..Local::default() });
    let seeder = Sync { uploading: true, downloading: true, length: 100, ..Sync::default() };
    _ = session.receive(Message::Sync(seeder));
    _ = session.receive(Message::Range { drop: false, start: 0, length: 10 });
    assert!(session.serves() && session.offers(9) && !session.offers(10));
    let Message::Request(Request { id, .. }) = session.ask_block(3, 0, 0) else { panic!() };
    let refused = session.receive(Message::NoData { id, reason: None });
    assert_eq!(refused, Ok(Some(Action::Refused(Question { id, fork: 0, asked: Asked::Block(3), top: Some(6) }))));
    assert_eq!((session.offers(3), session.next_offer(3..100)), (false, Some(4)));
    _ = session.receive(Message::Range { drop: false, start: 3, length: 1 });
    assert!(session.offers(3));
    _ = session.receive(Message::Range { drop: true, start: 2, length: 4 });
    assert_eq!(session.next_offer(2..100), None);
    _ = session.receive(Message::Bitfield { start: 32, words: vec![0b100] });
    assert_eq!(session.next_offer(0..100), Some(0));
    assert_eq!(session.next_offer(2..100), Some(34));
}

#[test]
fn a_hundred_thousand_wants_are_as_few_answers_as_are_kept() {
    let (mut session, _) = session(full(9));
    let want = |start, length| Message::Want(Wanted { start, length, any: false });
    for at in 0..100_000 {
        assert_eq!(session.receive(want(0, MAX_WANT)), Ok(None), "no answer before there is room for it");
        assert_eq!(session.receive(want(at * 32, MAX_WANT)), Ok(None));
    }
    assert_eq!(session.receive(want(7, MAX_WANT + 1)), Ok(None), "too much at a time");
    let answers = std::iter::from_fn(|| session.next_look()).count();
    assert_eq!(answers, MAX_WANTS, "an equal one that waits is one");
}

#[test]
fn wants_are_answered_with_what_is_there() {
    let local = Local { length: 100, ..Local::default() };
    let (session, _) = session(local);
    let mut have = Blocks::default();
    let wanted = Wanted { start: 0, length: 1 << 21, any: false };
    assert_eq!(session.bits(wanted, &have), None);
    have.insert(33);
    let Some(Message::Bitfield { start: 0, words }) = session.bits(wanted, &have) else { panic!() };
    assert_eq!(words, [0, 2, 0, 0]);
    let any = Wanted { any: true, ..wanted };
    assert_eq!(session.bits(any, &have), Some(Message::Range { drop: false, start: 33, length: 1 }));
    (0..100).for_each(|block| _ = have.insert(block));
    assert_eq!(session.bits(wanted, &have), Some(Message::Range { drop: false, start: 0, length: 100 }));
}

#[test]
fn a_question_that_is_taken_back_is_no_longer_under_way() {
    let (mut session, _) = session(Local { length: 100, downloading: true, ..Local::default() });
    let Message::Request(Request { id, priority: 1, .. }) = session.ask_block(3, 0, 1) else { panic!() };
    assert_eq!((session.in_flight(), session.asked_blocks().collect::<Vec<_>>()), (1, vec![3]));
    assert_eq!(session.cancel(3), Some(Message::Cancel { id }));
    assert_eq!((session.in_flight(), session.cancel(3)), (0, None));
    let late = Data { id, ..Data::default() };
    assert_eq!(session.receive(Message::Data(Box::new(late))), Ok(None), "it is dropped unread");
}

#[test]
fn a_refusal_by_a_peer_of_another_fork_says_nothing_of_ours() {
    let (mut session, _) = session(Local { length: 100, downloading: true, ..Local::default() });
    let seeder = |fork| Message::Sync(Sync { uploading: true, length: 100, fork, ..Sync::default() });
    _ = session.receive(seeder(0));
    _ = session.receive(Message::Range { drop: false, start: 0, length: 100 });
    let Message::Request(Request { id, .. }) = session.ask_block(3, 0, 0) else { panic!() };
    _ = session.receive(seeder(1));
    let refused = Action::Refused(Question { id, fork: 0, asked: Asked::Block(3), top: Some(6) });
    assert_eq!(session.receive(Message::NoData { id, reason: None }), Ok(Some(refused)));
    assert!(session.offers(3) && !session.serves());
    // What it has of the other fork is not what it knows to be here.
    session.tell(Local { fork: 2, length: 100, contiguous: 0, ..Local::default() });
    assert!(session.tell_gained(90..91).is_some());
}

#[test]
fn who_wants_more_than_is_kept_hears_of_everything() {
    let (mut session, _) = session(Local { length: 1 << 40, ..Local::default() });
    for at in 0..=MAX_WANTS as u64 {
        assert_eq!(session.tell_gained(1 << 30..(1 << 30) + 1), None);
        _ = session.receive(Message::Want(Wanted { start: at * 32, length: 32, any: false }));
    }
    assert!(session.tell_gained(1 << 30..(1 << 30) + 1).is_some());
}

#[test]
fn after_a_loss_what_lies_behind_is_told_again() {
    let (mut session, _) = session(full(100));
    _ = session.receive(Message::Want(Wanted { start: 0, length: 64, any: false }));
    assert!(session.next_look().is_some() && session.next_look().is_none());
    assert_eq!(session.tell_lost(17..18), Message::Range { drop: true, start: 17, length: 1 });
    assert!(session.next_look().is_some() && session.next_look().is_none());
}

#[test]
fn what_is_told_again_begins_where_it_was_left() {
    let (mut session, _) = session(Local { length: 1 << 20, ..Local::default() });
    (0..4).for_each(|at| {
        let want = Wanted { start: at << 15, length: 1 << 15, any: false };
        assert_eq!(session.receive(Message::Want(want)), Ok(None));
    });
    let mut answered = [0; 4];
    // Blocks keep coming, faster than they are told.
    for _ in 0..8 {
        assert_eq!(session.tell_all_again(), None);
        let look = session.next_look().expect("there is always one");
        answered[(look.start >> 15) as usize] += 1;
    }
    assert_eq!(answered, [2; 4]);
}

#[test]
fn who_was_not_told_of_a_loss_hears_that_the_block_is_back() {
    let (mut session, _) = session(full(100));
    // Too much happened at once to be told one by one.
    session.tell(Local { contiguous: 17, ..full(100) });
    assert_eq!(session.tell_all_again(), None);
    session.tell(full(100));
    let all = Message::Range { drop: false, start: 0, length: 100 };
    assert_eq!((session.tell_gained(17..18), session.tell_gained(17..18)), (Some(all), None));
}

#[test]
fn only_what_nobody_asked_for_has_no_id() {
    let (mut session, _) = session(full(9));
    let shown = Data { upgrade: Some(Default::default()), ..Data::default() };
    assert!(matches!(session.receive(Message::Data(Box::new(shown))), Ok(Some(Action::Shown(_)))));
    assert_eq!(session.receive(Message::Data(Box::default())), Ok(None));
}

#[test]
fn who_refused_a_head_is_asked_again_once_it_can_prove_it() {
    let (mut session, _) = session(Local { length: 700, downloading: true, ..Local::default() });
    let now = Instant::now();
    let hoster = |can_upgrade, remote_length| {
        Message::Sync(Sync { uploading: true, can_upgrade, length: 1000, remote_length, ..Sync::default() })
    };
    // Its first word is about a reader who has nothing.
    _ = session.receive(hoster(true, 0));
    let Some(Message::Request(Request { id, .. })) = session.ask_upgrade(now) else { panic!("it can") };
    _ = session.receive(Message::NoData { id, reason: None });
    _ = session.receive(hoster(true, 0));
    assert!(!session.can_upgrade(now));
    _ = session.receive(hoster(false, 700));
    assert!(!session.can_upgrade(now));
    _ = session.receive(hoster(true, 700));
    assert!(session.can_upgrade(now), "it has fetched what that takes");
    let Some(Message::Request(Request { id, .. })) = session.ask_upgrade(now) else { panic!("it can") };
    _ = session.receive(Message::NoData { id, reason: None });
    _ = session.receive(hoster(true, 700));
    assert!(!session.can_upgrade(now), "that is no news");
    assert!(session.can_upgrade(now + REFUSED * 2), "it does not always say why");
}

#[test]
fn a_complete_feed_that_is_followed_takes_nothing_of_what_others_may_ask_for() {
    let (mut session, _) = session(Local { downloading: true, ..full(9) });
    assert!(!session.is_busy());
    session.tell(Local { downloading: true, length: 10, ..full(9) });
    assert!(session.is_busy());
    session.tell(Local { downloading: true, ..full(10) });
    assert!(!session.is_busy());
    session.ask_block(3, 0, 0);
    assert!(session.is_busy());
}
