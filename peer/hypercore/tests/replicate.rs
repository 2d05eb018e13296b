//! Our own peers among themselves.

mod support;
use datdot_hypercore::Want;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_from_hoster_to_hoster() {
    let dir = tempfile::tempdir().expect("a folder");
    let (author, hoster, reader) =
        (network(dir.path(), 1).await, network(dir.path(), 2).await, network(dir.path(), 3).await);
    let feed = author.store().create(&keypair(1)).expect("room");
    append(&feed, 500, 3000).await;

    let copy = hoster.store().open_remote(feed.key(), feed.signed_head()).expect("an honest head");
    let mut download = hoster.download(&copy, Want::blocks(0..500));
    connect(&hoster, &author).await;
    soon(download.done()).await.expect("everything comes");
    author.close().await;

    // The author is gone; the second reader knows the key only.
    let copy = reader.store().open_remote(feed.key(), None).expect("room");
    let mut download = reader.download(&copy, Want::all());
    connect(&reader, &hoster).await;
    soon(download.done()).await.expect("everything comes");
    assert_blocks(&copy, 500, 3000).await;
    assert_eq!(copy.signed_head(), feed.signed_head());
}
