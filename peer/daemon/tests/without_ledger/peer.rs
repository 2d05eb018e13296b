//! Daemons whose ledger is away, and others that serve them.

use codec::Encode;
use datdot_api::{
    Client, GetOrder, Key, ListOrder, Listed, Progress, PublishOrder, Status, UnpublishOrder, Unpublished,
};
use datdot_daemon::{Config, Daemon, swarm::Settings};
use datdot_hypercore::{Config as NetworkConfig, FeedKey, Keypair, Network, Store};
use datdot_ledger::Account;
use datdot_market::params::Params;
use datdot_wire::noise;
use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

pub struct Peer {
    pub dir: PathBuf,
    pub daemon: Daemon,
}

impl Peer {
    /// Starts a daemon in a folder in which one ran before.
    pub async fn start(dir: &Path, bootstrap: SocketAddrV4) -> Self {
        fs::create_dir_all(dir).unwrap();
        let params = hex::encode(Params::dev().encode());
        let known =
            format!(r#"{{"name":"dev","genesis":"{}","params":"{params}","finalized":70}}"#, hex::encode([1; 32]));
        fs::write(dir.join("ledger.json"), known).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            swarm: Settings::Through(vec![bootstrap]),
            // Nobody listens there.
            ..Config::new(dir, "ws://127.0.0.1:1", Account::dev("//Alice").unwrap())
        };
        Self { dir: dir.to_owned(), daemon: Daemon::start(config).await.unwrap() }
    }

    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Client) -> T + Send + 'static) -> T {
        let client = Client::open(&self.dir).unwrap();
        spawn_blocking(move || question(&client)).await.unwrap()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.ask(|client| client.status()).await.unwrap();
            if is(&status) {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {status:#?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn publishes(&self, path: &Path) -> Vec<Progress> {
        let order = PublishOrder { path: path.to_owned(), wanted: None };
        self.ask(move |client| client.publish(&order).unwrap().map(Result::unwrap).collect()).await
    }

    pub async fn publish(&self, path: &Path) -> Key {
        let steps = self.publishes(path).await;
        let Some(Progress::Done { key, .. }) = steps.last() else { panic!("{steps:?}") };
        *key
    }

    pub async fn list(&self, key: Key, from: Vec<String>) -> Vec<Listed> {
        let order = ListOrder { key, inside: None, recursive: false, encryption_key_file: None, from };
        self.ask(move |client| client.list(&order).unwrap().map(Result::unwrap).collect()).await
    }

    pub async fn unpublish(&self, key: Key, delete: bool) -> Result<Unpublished, String> {
        let done = self.ask(move |client| client.unpublish(&UnpublishOrder { key, delete })).await;
        done.map_err(|error| error.to_string())
    }

    pub async fn get(&self, key: FeedKey, to: PathBuf, from: Vec<String>) -> Vec<Progress> {
        self.read(get(key, to, from)).await
    }

    pub async fn read(&self, order: GetOrder) -> Vec<Progress> {
        self.ask(move |client| client.read(&order).unwrap().map(Result::unwrap).collect()).await
    }
}

pub fn get(key: FeedKey, to: PathBuf, from: Vec<String>) -> GetOrder {
    let key = Key(key.0);
    GetOrder { key, inside: None, path: to, replace: false, encryption_key_file: None, from }
}

pub async fn network(dir: &Path, name: u8, listen: bool) -> Network {
    let listen = listen.then(|| "127.0.0.1:0".parse().unwrap());
    let config = NetworkConfig { listen, ..NetworkConfig::new(noise::Keypair::from_seed(&[name; 32])) };
    Network::start(Store::open(dir).unwrap(), config).await.unwrap()
}

/// A feed of 4 MiB, in a store that can be served again and again.
pub async fn large(dir: &Path) -> (Store, FeedKey) {
    let store = Store::open(dir).unwrap();
    let feed = store.create(&Keypair::from_seed([7; 32])).unwrap();
    feed.append((0..64u8).map(|at| vec![at; 64 << 10].into()).collect()).await.unwrap();
    (store, feed.key())
}

/// Serves it at an address, so slowly that it can go away in the middle.
pub async fn serve(store: &Store, at: SocketAddr, rate: Option<u64>) -> Network {
    let config = NetworkConfig { listen: Some(at), ..NetworkConfig::new(noise::Keypair::from_seed(&[7; 32])) };
    let network = Network::start(store.clone(), config).await.unwrap();
    network.limits().upload.set(rate);
    network
}

pub const RATE: Option<u64> = Some(400_000);

pub fn has_some(status: &Status) -> bool {
    status.feeds.iter().any(|feed| feed.held > 1 << 20)
}
