//! Orders that are given twice, interrupted, taken back, or can't be done.

use crate::world::{MIB, Peer, World, done};
use datdot_api::{
    Amount, Client, ClientError, HostOrder, Progress, PublishOrder, SendOrder, Wanted,
    status::{RequestState, Standing},
};
use datdot_market::params::DAT;
use std::{fs, io::Write, path::PathBuf, time::Duration};
use tokio::{task::spawn_blocking, time::Instant};

const OFFER: HostOrder = HostOrder { space: 1 << 30, price: Amount(DAT), max_term: None, region: None };

/// Publishes without having it hosted; hands over once the first bytes are read.
async fn reading(peer: &Peer, path: PathBuf) -> impl Future<Output = Vec<Progress>> + use<> {
    let client = Client::open(&peer.dir).unwrap();
    let mut steps = spawn_blocking(move || {
        let mut steps = client.publish(&PublishOrder { path, wanted: None }).unwrap();
        assert!(matches!(steps.next(), Some(Ok(Progress::Reading { .. }))));
        steps
    })
    .await
    .unwrap();
    let rest = spawn_blocking(move || steps.by_ref().map_while(Result::ok).collect());
    async { rest.await.unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_cancelled_request_stays_cancelled_and_only_asking_again_opens_another() {
    let world = World::new();
    let _hosters = world.hosters(["Bob"]).await;
    let user = world.peer("Alice").await;
    let path = world.file(MIB);
    let (_, first) = done(&user.publish(path.clone(), 1, 500).await);
    let again = user.publish(path.clone(), 1, 500).await;
    let already =
        |step: &Progress| matches!(step, Progress::Opened { request, already: true, .. } if *request == first);
    assert!(again.iter().any(already), "{again:?}");

    user.ask(move |client| client.cancel(first)).await.unwrap();
    let (_, second) = done(&user.publish(path.clone(), 1, 500).await);
    assert_ne!(second, first, "what was cancelled is over");
    done(&user.publish(path, 1, 500).await);
    user.ask(move |client| client.cancel(second)).await.unwrap();
    user.daemon.stop().await;

    let user = world.peer("Alice").await;
    let begun = user.until("sees the ledger", |status| status.ledger.connected).await.ledger.best;
    let status = user.until("some blocks go by", |status| status.ledger.best > begun + 5).await;
    let closing = |state| state == RequestState::Closing;
    assert!(status.requests.iter().all(|request| closing(request.state)), "{:#?}", status.requests);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn a_stop_interrupts_reading_at_once_and_the_next_start_begins_it_again() {
    let world = World::new();
    let user = world.peer("Alice").await;
    let bytes = 100 * MIB;
    let rest = reading(&user, world.file(bytes)).await;
    let begun = Instant::now();
    user.daemon.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(!rest.await.iter().any(|step| matches!(step, Progress::Done { .. })));

    let user = world.peer("Alice").await;
    let whole = |held: u64, feeds: usize| (held, feeds) == (bytes, 1);
    user.until("has read the file", |status| {
        whole(status.feeds.iter().map(|feed| feed.held).sum(), status.feeds.len())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn what_can_not_be_published_leaves_nothing_behind() {
    let world = World::new();
    let user = world.peer("Alice").await;
    let path = world.file(60 * MIB);
    let rest = reading(&user, path.clone()).await;
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let steps = rest.await;
    assert!(matches!(steps.last(), Some(Progress::Failed { error }) if error.contains("changed")), "{steps:?}");

    let publish = |path: PathBuf, wanted| {
        let order = PublishOrder { path, wanted: Some(wanted) };
        user.ask(move |client| client.publish(&order).unwrap().map(Result::unwrap).collect::<Vec<_>>())
    };
    let wanted = Wanted { replicas: 1, term: 100, max_price: Some(Amount(DAT)) };
    for (wanted, why) in [
        (Wanted { term: 5, ..wanted }, "two periods, 20 s"),
        (Wanted { max_price: None, ..wanted }, "nobody offers space"),
        (Wanted { max_price: Some(Amount(u128::MAX >> 40)), ..wanted }, "fund it, or ask for less"),
    ] {
        let steps = publish(path.clone(), wanted).await;
        assert!(matches!(&steps[..], [Progress::Failed { error }] if error.contains(why)), "{steps:?}");
    }
    assert_eq!(user.status().await.feeds, []);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn an_offer_that_can_not_be_had_is_refused_and_costs_nothing() {
    let world = World::new();
    let poor = world.peer("Nobody").await;
    poor.until("sees the ledger", |status| status.money.is_some()).await;
    let nothing = poor.ask(|client| client.stop_hosting()).await;
    assert!(matches!(&nothing, Err(ClientError::Refused(why)) if why.contains("no offer")), "{nothing:?}");
    let refused = poor.ask(|client| client.host(&OFFER)).await;
    assert!(matches!(&refused, Err(ClientError::Refused(why)) if why.contains("bond: fund it")), "{refused:?}");

    let rich = world.peer("Alice").await;
    let to = poor.daemon.account().to_string();
    let sent = SendOrder { to, amount: Amount(50 * DAT) };
    rich.ask(move |client| client.send(&sent)).await.unwrap();
    let at = poor.until("has money", |status| status.money.is_some_and(|money| money.free.0 > 49 * DAT)).await;
    let later = poor.until("blocks go by", |status| status.ledger.best > at.ledger.best + 6).await;
    assert_eq!(later.money, at.money, "no fees for an offer that would be refused");
    let sent = SendOrder { to: poor.daemon.account().to_string(), amount: Amount(100 * DAT) };
    rich.ask(move |client| client.send(&sent)).await.unwrap();
    poor.until("offers", |status| status.offer.as_ref().is_some_and(|offer| offer.standing == Standing::Open)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: see above"]
async fn nobody_waits_for_a_ledger_that_is_away() {
    let mut world = World::new();
    let peer = world.peer("Alice").await;
    let money = peer.until("sees the ledger", |status| status.money.is_some()).await.money.unwrap();
    world.node.kill();
    peer.until("knows", |status| !status.ledger.connected).await;

    let begun = Instant::now();
    let offer = peer.ask(|client| client.host(&OFFER)).await.unwrap();
    assert_eq!(offer.standing, Standing::Posting);
    assert!(offer.why.is_some_and(|why| why.contains("does not answer")));
    let away = |answer: Result<_, ClientError>| {
        assert!(matches!(&answer, Err(ClientError::Refused(why)) if why.contains("does not answer")), "{answer:?}");
    };
    away(peer.ask(|client| client.stop_hosting()).await);
    away(peer.ask(|client| client.cancel(0)).await);
    let sent = SendOrder { to: peer.daemon.account().to_string(), amount: Amount(1) };
    away(peer.ask(move |client| client.send(&sent)).await);
    let wallet = peer.ask(|client| client.wallet()).await.unwrap();
    assert_eq!(wallet.free, money.free, "the last that was seen");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
