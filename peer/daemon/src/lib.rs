//! The daemon: does what the roles ask.
//!
//! ```text
//!            best and final blocks                 calls
//!   ledger ────────────────────────▶ engine ─────────────────▶ ledger
//!                                     │  ▲   roles and journal
//!      fetch, check, prove, scrub     │  │
//!      each in a task of its own  ◀───┘  └─── what came of it; orders of the API
//! ```
//!
//! One task owns one resource: the engine the roles and the journal, the ledger's client the nonces, the store its
//! files, the network its connections. Between them are channels. Everything in `dir` is written so that a daemon that
//! is killed at any point goes on where it was:
//!
//! ```text
//! dir/journal.json    what was ordered and is under way (module journal)
//! dir/ledger.json     which chain that is about, so that a start needs no ledger (module chain)
//! dir/noise.key       who we are to other peers
//! dir/port            where they could connect the last time
//! dir/dht.json        nodes of the DHT that were known then
//! dir/store/          feeds, with the secret keys of those that we publish
//! dir/api.json        where the API is and its token, while the daemon runs
//! ```
//!
//! Several daemons can run in one process, each with its own folder and account.

mod chain;
mod config;
mod context;
pub mod discovery;
mod engine;
mod fetch;
mod files;
mod jobs;
mod journal;
mod limits;
mod locks;
mod quote;
pub mod segments;
mod server;
mod status;
mod story;
pub mod swarm;
mod tell;
mod work;

pub use config::Config;
pub use story::Story;

use chain::Known;
use context::Context;
use datdot_api::{Discovery as Found, Status, limits::TooLow};
use datdot_hypercore::{FeedKey, Network, Store, StoreError};
use datdot_ledger::{AccountId, Submitter};
use datdot_market::{MAX_SOURCES, params::Params};
use datdot_wire::noise::Keypair;
use engine::{Engine, Order};
use fetch::Fetcher;
use journal::Journal;
use locks::Locks;
use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use swarm::{Settings, Topics};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use work::{Jobs, Work};

/// How long answers that are on their way may take when the daemon stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A running daemon. Dropping it ends its tasks at once; [`Daemon::stop`] does so in order.
pub struct Daemon {
    ctx: Arc<Context>,
    work: Work,
    found: Found,
    tasks: JoinSet<()>,
    server: JoinHandle<()>,
}

/// Why a daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] datdot_ledger::Error),
    /// The folder's data is about another ledger, on which nothing of it would be needed.
    #[error(
        "what is in {} belongs to another chain ({known}) than the one at {url}, where nobody needs it: name a node of \
         {known} with --ledger, or another folder with --dir",
        .dir.display()
    )]
    OtherChain {
        /// The folder.
        dir: PathBuf,
        /// The name of its chain.
        known: String,
        /// Where the ledger is.
        url: String,
    },
    /// The folder with the feeds.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another file.
    #[error("{}: {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A limit that no peer could live with.
    #[error(transparent)]
    Limit(#[from] TooLow),
    /// The address for peers.
    #[error("can't listen for peers at {address}: {why}; choose another one with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        why: io::Error,
    },
    /// The UDP port for peers.
    #[error("can't begin a swarm: {why}; --no-swarm does without")]
    Swarm {
        /// Why.
        why: io::Error,
    },
    /// The port of the API.
    #[error("can't listen for the API at port {port}: {why}; choose another one with --api-port, or 0 for any")]
    Api {
        /// The port.
        port: u16,
        /// Why.
        why: io::Error,
    },
    /// Addresses that strangers can't use.
    #[error("{address} is not a public address, so nobody else can connect to it: give the one that others see")]
    NotPublic {
        /// The address.
        address: SocketAddr,
    },
    /// Too many addresses.
    #[error("{0} addresses are too many: the ledger takes {MAX_SOURCES}")]
    TooManyAddresses(usize),
}

impl Daemon {
    /// Starts a daemon and goes on with all that is noted in its folder. The first time its ledger has to answer; later it
    /// may be away, and is waited for while everything else is done. Needs a tokio runtime with time and network.
    pub async fn start(config: Config) -> Result<Daemon, StartError> {
        config.limits.check()?;
        let at = |path: PathBuf| move |why| StartError::File { path, why };
        files::make_dir(&config.dir).map_err(at(config.dir.clone()))?;
        // The store is locked by its process: two daemons in one folder stop here.
        let store = open_store(config.dir.join("store")).await?;
        let (journal_path, key_path) = (config.dir.join("journal.json"), config.dir.join("noise.key"));
        let journal = Journal::open(&journal_path).map_err(at(journal_path))?;
        let seed = files::secret(&key_path).map_err(at(key_path))?;

        let mut known = Known::in_dir(&config.dir).map_err(at(config.dir.clone()))?;
        let ledger = known.connect(&config.ledger).await?;
        // By the other chain all that is stored would be dropped, and offers and requests be made once more.
        if let Some(name) = known.other_than(ledger.chain())
            && !(journal.is_blank() && store.feeds().is_empty())
        {
            return Err(StartError::OtherChain { dir: config.dir, known: name.into(), url: config.ledger });
        }
        known.is(ledger.chain()).map_err(at(config.dir.clone()))?;
        let on_one_machine = ledger.params() == Params::dev();
        let allow_private = config.allow_private_addresses.unwrap_or(on_one_machine);
        if config.addresses.len() > MAX_SOURCES as usize {
            return Err(StartError::TooManyAddresses(config.addresses.len()));
        }
        if let Some(address) = config.addresses.iter().find(|at| !allow_private && !discovery::is_public(**at)) {
            return Err(StartError::NotPublic { address: *address });
        }
        journal.unpublished().iter().for_each(|key| store.hide(&FeedKey(key.0)));
        let network = datdot_hypercore::Config {
            max_connections: config.max_connections,
            limits: limits::begin(journal.limits().changed(&config.limits)),
            ..datdot_hypercore::Config::new(Keypair::from_seed(&seed))
        };
        let port_path = config.dir.join("port");
        let network = listen(&store, network, config.listen, &port_path)
            .await
            .map_err(|why| StartError::Listen { address: config.listen, why })?;
        let listen = network.local_addr().unwrap_or(config.listen);
        files::replace(&port_path, listen.port().to_string().as_bytes()).map_err(at(port_path))?;
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, config.api_port))
            .await
            .map_err(|why| StartError::Api { port: config.api_port, why })?;
        let api_address = api.local_addr().map_err(|why| StartError::Api { port: config.api_port, why })?;
        let mut tasks = JoinSet::new();
        let topics = match &config.swarm {
            Settings::Off => Topics::off("it was started without one"),
            Settings::Public if on_one_machine => {
                Topics::off("a dev chain has nothing to do with the public DHT; --bootstrap names one of its own")
            }
            settings => {
                let swarm = Topics::start(settings.clone(), &seed, listen, &network, &config.dir).await;
                let (topics, running) = swarm.map_err(|why| StartError::Swarm { why })?;
                tasks.spawn(running.run());
                topics
            }
        };

        let ctx = Arc::new(Context {
            rpc: config.rpc,
            fetcher: Fetcher::new(network.clone(), allow_private, topics.clone()),
            topics,
            submitter: Submitter::new(&ledger, config.account),
            discovery: Box::new(discovery::OnLedger(ledger.clone())),
            story: Story::new(),
            noise_key: network.public_key(),
            addresses: match config.name_addresses {
                true => addresses(config.addresses, listen, allow_private),
                false => vec![],
            },
            listen,
            spare_bytes: config.spare_bytes,
            max_term_days: config.max_term_days,
            fetches: Arc::new(Semaphore::new(config.max_fetches.max(1))),
            view: watch::Sender::new(None),
            reading: Locks::default(),
            allow_private,
            stop: watch::Sender::new(false),
            dir: config.dir,
            store,
            network,
            ledger,
        });
        let (to_engine, inbox) = mpsc::channel(engine::WAITING);
        let (begun, readings) = (journal.begun().to_vec(), journal.readings());
        let engine = Engine::new(ctx.clone(), journal, known, config.policy, to_engine.clone());
        let work = Work { ctx: ctx.clone(), engine: to_engine.clone(), jobs: Jobs::new(), patience: Duration::ZERO };
        let found = Found { url: format!("http://{api_address}"), token: hex::encode(files::fresh()) };
        tasks.spawn(jobs::watch_store(ctx.clone(), to_engine.clone()));
        tasks.spawn(engine.run(inbox));
        tasks.spawn(jobs::follow(ctx.clone(), to_engine));
        work.resume(begun);
        work.resume_readings(readings);
        let server = tokio::spawn(server::serve(api, work.clone(), found.token.clone(), ctx.stop.subscribe()));
        found.write(&ctx.dir).map_err(at(ctx.dir.join(datdot_api::discovery::FILE)))?;
        tracing::info!(
            target: "daemon", account = %ctx.submitter.id(), %listen, api = %api_address, chain = ctx.ledger.chain().name,
            "started"
        );
        Ok(Daemon { ctx, work, found, tasks, server })
    }

    /// Where the API is, and its token.
    pub fn api(&self) -> &Found {
        &self.found
    }

    /// Where peers can connect.
    pub fn listen(&self) -> SocketAddr {
        self.ctx.listen
    }

    /// Who we are to other peers.
    pub fn noise_key(&self) -> [u8; 32] {
        self.ctx.noise_key
    }

    /// The account that signs.
    pub fn account(&self) -> AccountId {
        self.ctx.submitter.id()
    }

    /// What happened lately and happens from now on.
    pub fn story(&self) -> &Story {
        &self.ctx.story
    }

    /// All there is to see; `None` if it stops just now.
    pub async fn status(&self) -> Option<Status> {
        self.work.ask(Order::Status).await.ok()
    }

    /// Stops: no more connections, everything on the disk, the folder free for another daemon.
    pub async fn stop(mut self) {
        self.say_so();
        if let Some(mut jobs) = self.work.jobs.close() {
            jobs.shutdown().await;
        }
        self.tasks.shutdown().await;
        if timeout(LAST_ANSWERS, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.ctx.topics.close().await;
        self.ctx.network.close().await;
        tracing::info!(target: "daemon", "stopped");
    }

    fn say_so(&self) {
        self.ctx.stop.send_replace(true);
        if let Err(error) = self.found.remove(&self.ctx.dir) {
            tracing::warn!(target: "daemon", %error, "api.json can't be removed");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.say_so();
        self.server.abort();
        drop(self.work.jobs.close());
    }
}

/// Listens for peers. If any port will do it is the one of the last time, since requests on the ledger name it.
async fn listen(
    store: &Store,
    config: datdot_hypercore::Config,
    address: SocketAddr,
    last: &Path,
) -> io::Result<Network> {
    let start =
        |address| Network::start(store.clone(), datdot_hypercore::Config { listen: Some(address), ..config.clone() });
    if address.port() == 0
        && let Some(port) = files::read(last)?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok())
        && let Ok(network) = start(SocketAddr::new(address.ip(), port)).await
    {
        return Ok(network);
    }
    start(address).await
}

/// Opens the store; a daemon that was stopped in this process a moment ago may still let go of it.
async fn open_store(dir: PathBuf) -> Result<Store, StoreError> {
    for _ in 0..20 {
        match Store::open(&dir) {
            Err(StoreError::InUse { .. }) => sleep(Duration::from_millis(100)).await,
            opened => return opened,
        }
    }
    Store::open(dir)
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daemon({}, {:?})", self.ctx.dir.display(), self.found)
    }
}

/// What to tell the ledger about where we are: what the user says, or where we listen if somebody could connect there.
fn addresses(given: Vec<SocketAddr>, listen: SocketAddr, allow_private: bool) -> Vec<SocketAddr> {
    if !given.is_empty() {
        return given;
    }
    match (allow_private, listen.ip().is_unspecified()) {
        // All peers are on this machine.
        (true, true) => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port()))],
        (true, false) => vec![listen],
        (false, _) => Vec::from_iter(discovery::is_public(listen).then_some(listen)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_an_address_that_only_works_here() {
        let (any, public) = ("0.0.0.0:3282".parse().unwrap(), "1.1.1.1:3282".parse().unwrap());
        assert_eq!(addresses(vec![], any, false), []);
        assert_eq!(addresses(vec![], public, false), [public]);
        assert_eq!(addresses(vec![public], any, false), [public]);
        assert_eq!(addresses(vec![], any, true), ["127.0.0.1:3282".parse().unwrap()]);
    }
}
