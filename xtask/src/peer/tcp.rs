//! A feed over TCP: served, and fetched.

use super::{Options, Orders, feeds::filled, say};
use anyhow::Result;
use datdot_hypercore::{Config, FeedKey, Network, Store, Want};
use datdot_wire::noise::Keypair;
use serde_json::json;
use std::{net::SocketAddr, path::PathBuf, time::Instant};

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
    // All, or some blocks with others in between.
    let wanted = match options.find::<u64>("from") {
        Some(from) => {
            let (count, step) = (options.get::<u64>("count")?, options.get::<u64>("step")?);
            (0..count).map(|at| from + at * step).map(|block| Want::blocks(block..block + 1)).collect()
        }
        None => vec![Want::all()],
    };
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    let mut downloads: Vec<_> = wanted.into_iter().map(|want| network.download(&feed, want)).collect();
    network.connect(address, None).await?;
    for download in &mut downloads {
        download.done().await?;
    }
    let info = feed.info();
    say(
        "done",
        json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": info.bytes_here, "blocks": info.blocks_here }),
    );
    orders.end().await
}
