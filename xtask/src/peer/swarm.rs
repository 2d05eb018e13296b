//! Feeds over Hyperswarm, and what topics and connections cost.

use super::{Options, Orders, feeds::filled, say};
use anyhow::{Context, Result};
use datdot_hypercore::{Config, FeedKey, Network, Store, Want};
use datdot_hyperswarm::{
    connect::{ListenOptions, PeerStream},
    dht::{self, Dht, Id, Identity, Role},
    swarm::{As, Settings, Swarm},
};
use datdot_wire::{connection, noise::Keypair};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Instant,
};

/// A node of the DHT that others don't use.
async fn guest(options: &Options) -> Result<Dht> {
    let bootstrap: SocketAddrV4 = options.get("bootstrap")?;
    let node = dht::Config { bootstrap: vec![bootstrap], role: Role::Guest, ..dht::Config::default() };
    let dht = Dht::start(dht::Settings { node, host: Ipv4Addr::LOCALHOST, port: 0 }).await?;
    dht.bootstrapped().await?;
    Ok(dht)
}

/// A swarm, and a network whose connections are those of the swarm.
async fn replicating(options: &Options, seed: u8) -> Result<(Dht, Swarm, Network)> {
    let dht = guest(options).await?;
    let swarm = Swarm::start(&dht, &Identity::from_seed(&[seed; 32]), Settings::default()).await?;
    let store = Store::open(options.get::<PathBuf>("dir")?)?;
    let network = Network::start(store, Config::new(Keypair::from_seed(&[seed; 32]))).await?;
    Ok((dht, swarm, network))
}

/// Hands the connections of a swarm over, for as long as it runs.
async fn replicate(swarm: Swarm, network: Network) {
    while let Some(connection) = swarm.accept().await {
        _ = network.attach(connection.stream.secret);
    }
}

/// Announces a feed and serves it.
pub async fn serve(options: &Options) -> Result<()> {
    let (_dht, swarm, network) = replicating(options, 1).await?;
    let feed = filled(network.store(), options.get("blocks")?, options.get("size")?).await?;
    let topic = Id(feed.discovery().0);
    swarm.join(topic, As::Server).await?;
    swarm.searched(topic).await?;
    tokio::spawn(replicate(swarm, network));
    say("ready", json!({ "key": feed.key().to_string() }));
    Orders::new().end().await
}

/// Finds a feed and fetches it.
pub async fn fetch(options: &Options) -> Result<()> {
    let (_dht, swarm, network) = replicating(options, 2).await?;
    let key: FeedKey = options.get("key")?;
    let feed = network.store().open_remote(key, None)?;
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    swarm.join(Id(key.discovery().0), As::Client).await?;
    tokio::spawn(replicate(swarm, network.clone()));
    let mut one = network.download(&feed, Want::blocks(0..1));
    one.done().await?;
    let first = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut all = network.download(&feed, Want::all());
    // Not before: a channel of which nothing is wanted is closed, and opened again only after a while.
    drop(one);
    all.done().await?;
    let seconds = start.elapsed().as_secs_f64();
    say("done", json!({ "first": first, "seconds": seconds, "bytes": feed.info().bytes_here }));
    orders.end().await
}

/// Announces many topics.
pub async fn topics(options: &Options) -> Result<()> {
    let dht = guest(options).await?;
    let swarm = Swarm::start(&dht, &Identity::from_seed(&[1; 32]), Settings::default()).await?;
    let topics: Vec<_> = (0..options.get::<u32>("count")?).map(|n| Id::of(&n.to_le_bytes())).collect();
    let mut orders = Orders::new();
    orders.ready(json!({})).await?;
    let start = Instant::now();
    for topic in &topics {
        swarm.join(*topic, As::Server).await?;
    }
    for topic in &topics {
        swarm.searched(*topic).await?;
    }
    let announced = topics.iter().filter(|topic| swarm.announced(topic).is_some()).count();
    say("done", json!({ "seconds": start.elapsed().as_secs_f64(), "announced": announced }));
    orders.end().await
}

/// Takes connections and holds them.
pub async fn listen(options: &Options) -> Result<()> {
    let dht = guest(options).await?;
    let mut server = dht.listen(&Identity::from_seed(&[1; 32]), ListenOptions::default()).await?;
    server.announced().await?;
    let key = hex::encode(server.public_key());
    let mut orders = Orders::new();
    orders.ready(json!({ "key": key })).await?;
    let mut held = Vec::new();
    for _ in 0..options.get::<usize>("count")? {
        let connection = server.accept().await.context("the server runs")?;
        held.push(tokio::spawn(hold(connection)));
    }
    say("done", json!({ "connections": held.iter().filter(|task| !task.is_finished()).count() }));
    orders.end().await
}

/// Keeps a connection until the remote ends it. Nothing is said, but both sides show that they are alive.
async fn hold(mut connection: PeerStream) {
    let secret = &mut connection.secret;
    loop {
        tokio::select! {
            frame = secret.reader.next() => if !matches!(frame, Ok(Some(_))) { return },
            _ = secret.writer.keep_alive() => return,
        }
    }
}

/// Makes many connections to a server, each as somebody else, and holds them.
pub async fn call(options: &Options) -> Result<()> {
    let dht = guest(options).await?;
    let key = hex::decode(options.get::<String>("key")?)?.try_into().ok().context("a key has 32 bytes")?;
    let mut held = Vec::new();
    for number in 0..options.get::<u32>("count")? {
        let mut seed = [5; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let options = connection::Options::default();
        let connection = dht.connect(&Identity::from_seed(&seed), key, &[], &options).await?;
        held.push(tokio::spawn(hold(connection)));
    }
    say("ready", json!({}));
    Orders::new().end().await
}
