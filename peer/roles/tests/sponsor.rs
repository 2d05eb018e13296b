//! A sponsor opens each request exactly once.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod world;

use datdot_market::{
    Block,
    params::DAT,
    request::{Closing, Request},
    terms::{Feeds, Sources, Terms},
    view::{AccountView, RequestView},
};
use datdot_roles::{
    Call, Errand, Outcome, Sponsor,
    sponsor::{Action, Input, Intent},
};
use world::{PARAMS, feed, key};

const TERMS: Terms = Terms { replicas: 3, term: 100, max_price: DAT };

fn intent(since: Block) -> Intent {
    let feeds: Feeds = vec![feed(1)].try_into().unwrap();
    Intent { feeds, terms: TERMS, sources: Sources::new(), since, until: None, request: None }
}

fn request(id: u32, opened: Block) -> RequestView<u32> {
    let intent = intent(0);
    let segments = vec![datdot_proof::segment::Segment { bytes: 1 << 30, root: [1; 32] }].try_into().unwrap();
    let request = Request::open(1, intent.terms, segments, intent.sources, 0, opened, &PARAMS);
    RequestView { id, request, keys: vec![key(1)], contracts: vec![] }
}

fn view(at: Block, requests: Vec<RequestView<u32>>) -> AccountView<u32> {
    AccountView { at, params: PARAMS, free: 0, budgets: 0, deposits: 0, bond: 0, hosting: None, requests }
}

fn sponsor(intents: &[(u64, Intent)]) -> Sponsor {
    let mut sponsor = Sponsor::new();
    for (id, intent) in intents {
        sponsor.handle::<u32>(intent.since, Input::Want(*id, intent.clone()));
    }
    sponsor
}

fn submits(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Submit(_, Call::Request { .. }))).count()
}

#[test]
fn a_request_is_opened_once_and_then_known_by_its_number() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    assert_eq!(submits(&sponsor.handle(10, Input::View(view(10, vec![])))), 1);
    assert_eq!(submits(&sponsor.handle(11, Input::View(view(11, vec![])))), 0);
    let included = Outcome::Included { block: 12 };
    assert_eq!(sponsor.handle::<u32>(12, Input::Ended(Errand::Request(1), included)), []);
    let seen = sponsor.handle(12, Input::View(view(12, vec![request(5, 12)])));
    assert_eq!(seen, [Action::Opened(1, 5, 12)]);
    assert_eq!(sponsor.handle(13, Input::View(view(13, vec![request(5, 12)]))), []);
}

#[test]
fn what_was_submitted_before_a_crash_is_found_on_the_ledger() {
    let mut restarted = sponsor(&[(1, Intent { until: Some(50), ..intent(10) })]);
    let actions = restarted.handle(12, Input::View(view(12, vec![request(4, 9), request(5, 11)])));
    assert_eq!(actions, [Action::Opened(1, 5, 12)], "request 4 is an older one");
}

#[test]
fn what_may_still_come_into_a_block_is_waited_for() {
    let mut restarted = sponsor(&[(1, Intent { until: Some(50), ..intent(10) })]);
    for at in 12..=50 {
        assert_eq!(submits(&restarted.handle(at, Input::View(view(at, vec![])))), 0, "block {at}");
    }
    assert_eq!(submits(&restarted.handle(51, Input::View(view(51, vec![])))), 1);
}

#[test]
fn the_same_wish_is_known_again_until_its_request_closes() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    let Intent { feeds, terms, .. } = intent(10);
    assert_eq!(sponsor.same(&feeds, &terms, false), Some((1, None)), "on its way");
    let mut open = request(5, 12);
    sponsor.handle(12, Input::View(view(12, vec![open.clone()])));
    assert_eq!(sponsor.same(&feeds, &terms, false), Some((1, Some(5))));
    let dearer = Terms { max_price: 2 * DAT, ..terms };
    assert_eq!(sponsor.same(&feeds, &dearer, false), None, "another price is another wish");
    assert_eq!(sponsor.same(&feeds, &dearer, true), Some((1, Some(5))), "unless no price was named");
    open.request.closing = Some(Closing::Cancelled);
    sponsor.handle(13, Input::View(view(13, vec![open.clone()])));
    assert_eq!(sponsor.same(&feeds, &terms, false), None, "it was cancelled");

    let mut both = vec![open];
    sponsor.handle::<u32>(13, Input::Want(2, intent(13)));
    assert_eq!(submits(&sponsor.handle(13, Input::View(view(13, both.clone())))), 1, "wanted anew, opened anew");
    both.push(request(6, 14));
    assert_eq!(sponsor.handle(14, Input::View(view(14, both))), [Action::Opened(2, 6, 14)]);
}

#[test]
fn two_equal_wishes_become_two_requests() {
    let mut sponsor = sponsor(&[(1, intent(10)), (2, intent(10))]);
    assert_eq!(submits(&sponsor.handle(10, Input::View(view(10, vec![])))), 2);
    let seen = sponsor.handle(12, Input::View(view(12, vec![request(5, 11), request(6, 12)])));
    assert_eq!(seen, [Action::Opened(2, 5, 12), Action::Opened(1, 6, 12)]);
}

#[test]
fn the_same_wish_after_a_cancelled_one_is_one_more_request() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    sponsor.handle(12, Input::View(view(12, vec![request(5, 12)])));
    // Request 5 is cancelled and gone, but that is not final yet.
    sponsor.handle::<u32>(20, Input::Want(2, intent(20)));
    assert_eq!(submits(&sponsor.handle(20, Input::View(view(20, vec![])))), 1);
    sponsor.handle::<u32>(21, Input::Ended(Errand::Request(2), Outcome::Included { block: 21 }));
    assert_eq!(sponsor.handle(21, Input::View(view(21, vec![request(6, 21)]))), [Action::Opened(2, 6, 21)]);
    assert_eq!(submits(&sponsor.handle(22, Input::View(view(22, vec![request(6, 21)])))), 0);
}

#[test]
fn a_refusal_is_told_and_nothing_is_tried_again() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    sponsor.handle(10, Input::View(view(10, vec![])));
    let refused = Outcome::Refused { why: "too little money".into() };
    let told = sponsor.handle::<u32>(11, Input::Ended(Errand::Request(1), refused));
    assert_eq!(told, [Action::Failed(1, "too little money".into())]);
    assert_eq!(submits(&sponsor.handle(20, Input::View(view(20, vec![])))), 0);
}

#[test]
fn what_was_lost_on_the_way_is_submitted_again() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    sponsor.handle(10, Input::View(view(10, vec![])));
    let lost = Outcome::Lost { why: "the node was restarted".into() };
    sponsor.handle::<u32>(42, Input::Ended(Errand::Request(1), lost));
    assert_eq!(submits(&sponsor.handle(43, Input::View(view(43, vec![])))), 1);
}

#[test]
fn a_request_is_over_when_its_end_is_final_and_never_opened_again() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    sponsor.handle(10, Input::View(view(10, vec![])));
    sponsor.handle::<u32>(12, Input::Ended(Errand::Request(1), Outcome::Included { block: 12 }));
    sponsor.handle(12, Input::View(view(12, vec![request(5, 12)])));
    // Finality is behind: it doesn't know the request yet.
    assert_eq!(sponsor.handle(12, Input::Finalized(view(9, vec![]))), []);
    assert_eq!(sponsor.handle(20, Input::Finalized(view(15, vec![request(5, 12)]))), []);
    assert_eq!(submits(&sponsor.handle(21, Input::View(view(21, vec![])))), 0);
    assert_eq!(sponsor.handle(22, Input::Finalized(view(20, vec![request(5, 12)]))), []);
    assert_eq!(sponsor.handle(24, Input::Finalized(view(21, vec![]))), [Action::Over(1, vec![key(1)])]);
    assert_eq!(submits(&sponsor.handle(25, Input::View(view(25, vec![])))), 0);
}

#[test]
fn a_reorganisation_that_renumbers_a_request_is_followed() {
    let mut sponsor = sponsor(&[(1, intent(10))]);
    sponsor.handle(10, Input::View(view(10, vec![])));
    sponsor.handle(12, Input::View(view(12, vec![request(5, 12)])));
    let seen = sponsor.handle(13, Input::View(view(13, vec![request(6, 13)])));
    assert_eq!(seen, [Action::Opened(1, 6, 13)]);
}
