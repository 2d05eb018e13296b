//! Our side of the measurements: `xtask peer MODE --name=value …`, see [`crate::program`].

mod feeds;
mod sink;
mod swarm;
mod tcp;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{collections::BTreeMap, io::stdin, str::FromStr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The seed of who makes all feeds.
pub const AUTHOR: [u8; 32] = [7; 32];

/// Runs a mode until it is done, or until its input ends.
pub fn run(mode: &str, options: impl Iterator<Item = String>) -> Result<()> {
    let options = Options::read(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match mode {
            "serve" => tcp::serve(&options).await,
            "fetch" => tcp::fetch(&options).await,
            "sink" => sink::fetch(&options).await,
            "append" => feeds::append(&options).await,
            "append-on" => feeds::append_on(&options).await,
            "reopen" => feeds::reopen(&options).await,
            "read" => feeds::read(&options).await,
            "get" => feeds::get(&options).await,
            "get-raw" => feeds::get_raw(&options).await,
            "make" => feeds::make(&options).await,
            "open" => feeds::open(&options).await,
            "grow" => feeds::grow(&options).await,
            "swarm-serve" => swarm::serve(&options).await,
            "swarm-fetch" => swarm::fetch(&options).await,
            "topics" => swarm::topics(&options).await,
            "listen" => swarm::listen(&options).await,
            "call" => swarm::call(&options).await,
            _ => bail!("no mode {mode}"),
        }
    })
}

/// What comes after the mode.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(options: impl Iterator<Item = String>) -> Result<Options> {
        let option = |option: String| {
            let (name, value) = option.strip_prefix("--").and_then(|option| option.split_once('='))?;
            Some((name.to_owned(), value.to_owned()))
        };
        Ok(Options(options.map(option).collect::<Option<_>>().context("options are --name=value")?))
    }

    fn find<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn get<T: FromStr>(&self, name: &str) -> Result<T> {
        self.find(name).with_context(|| format!("--{name} is missing, or not what it should be"))
    }
}

/// Tells whoever measures that an event has come, with its figures.
fn say(event: &str, mut figures: Value) {
    figures["event"] = event.into();
    println!("{figures}");
}

/// The lines on the input.
struct Orders(UnboundedReceiver<()>);

impl Orders {
    fn new() -> Orders {
        let (order, orders) = unbounded_channel();
        std::thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|_| order.send(())));
        Orders(orders)
    }

    /// Says that all is ready, and waits for the word to begin. Fails when nobody is there any more.
    async fn ready(&mut self, figures: Value) -> Result<()> {
        say("ready", figures);
        self.0.recv().await.context("nobody measures")
    }

    /// Waits until nobody measures any more.
    async fn end(mut self) -> Result<()> {
        while self.0.recv().await.is_some() {}
        Ok(())
    }
}
