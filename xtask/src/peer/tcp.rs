//! A feed over TCP: served, and fetched.

use super::{
    Options, Orders,
    feeds::{filled, shuffled},
    say,
};
use anyhow::Result;
use datdot_hypercore::{Config, FeedKey, Network, Store, Want};
use datdot_wire::noise::Keypair;
use serde_json::json;
use std::{collections::VecDeque, net::SocketAddr, path::PathBuf, time::Instant};

/// Serves the feeds of a store: the one named by its key, or one with as many blocks as wanted.
pub async fn serve(options: &Options) -> Result<()> {
    let start = Instant::now();
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let opened = start.elapsed().as_secs_f64();
    let key = match options.find::<FeedKey>("key") {
        Some(key) => key,
        None => filled(&store, options.get("blocks")?, options.get("size")?).await?.key(),
    };
    let listen = Some(([127, 0, 0, 1], 0).into());
    let network = Network::start(store, Config { listen, ..Config::new(Keypair::from_seed(&[1; 32])) }).await?;
    let port = network.local_addr().map(|address| address.port());
    say("ready", json!({ "key": key.to_string(), "port": port, "opened": opened }));
    Orders::new().end().await
}

/// Fetches a feed, or some of its blocks.
pub async fn fetch(options: &Options) -> Result<()> {
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let network = Network::start(store, Config::new(Keypair::from_seed(&[2; 32]))).await?;
    let feed = network.store().open_remote(options.get("key")?, None)?;
    let address: SocketAddr = ([127, 0, 0, 1], options.get::<u16>("port")?).into();
    // All, or one after the other: some with others in between, or so many at random.
    let one = |block| Want::blocks(block..block + 1);
    let wanted = match (options.find::<u64>("from"), options.find("shuffled").unwrap_or(0)) {
        (Some(from), _) => {
            let (count, step) = (options.get::<u64>("count")?, options.get::<u64>("step")?);
            (0..count).map(|at| one(from + at * step)).collect()
        }
        (None, 0) => vec![Want::all()],
        (None, blocks) => shuffled(blocks).into_iter().map(one).collect(),
    };
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    let mut downloads: VecDeque<_> = wanted.into_iter().map(|want| network.download(&feed, want)).collect();
    network.connect(address, None).await?;
    let mut progress = feed.watch();
    // Not `Download::done`, which brings each block to the disk by itself.
    while let Some(first) = downloads.front() {
        match first.is_done() {
            true => _ = downloads.pop_front(),
            false => progress.changed().await?,
        }
    }
    feed.flush().await?;
    let info = feed.info();
    say(
        "done",
        json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": info.bytes_here, "blocks": info.blocks_here }),
    );
    orders.end().await
}
