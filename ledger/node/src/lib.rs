//! A ledger node that makes, checks and serves blocks, to be embedded in a process that does other things too.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use datdot_node::{Chain, Options};
//!
//! let mut node = datdot_node::start(Options::new(Chain::Dev, "/var/lib/datdot")).await?;
//! println!("ws://{}", node.rpc);
//! let why = node.stopped().await; // only if one of its essential tasks ends
//! # Err(why.into())
//! # }
//! ```
//!
//! The node runs on the Tokio runtime of the caller and keeps its hands off signals, logger and panic hook. It reports
//! through `log` and `tracing`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use sc_service::TaskManager;
use tokio::time;

mod chain;
mod service;

pub use chain::Chain;
pub use sc_service::config::MultiaddrWithPeerId;

/// How long [`Node::stop`] waits for the database to be closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How to run a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ledger.
    pub chain: Chain,
    /// Where its state is kept, in a folder for each chain.
    pub dir: PathBuf,
    /// What other nodes and the log call this one.
    pub name: String,
    /// The secret of the validator's keys, a phrase or a path such as `//Alice`. A node without makes no blocks.
    pub validator: Option<String>,
    /// The TCP port for other nodes, 0 for any: on loopback in the chains for development, on all interfaces otherwise.
    /// `None` listens to nobody.
    pub p2p_port: Option<u16>,
    /// The TCP port on loopback where programs ask and submit, 0 for any.
    pub rpc_port: u16,
    /// Nodes to know from the start, besides those of the chain specification.
    pub bootnodes: Vec<MultiaddrWithPeerId>,
    /// Keep the state of all blocks rather than of the last 256, and answer the `archive` methods.
    pub archive: bool,
}

impl Options {
    /// A node that is alone, on a free RPC port. In [`Chain::Dev`] it makes the blocks.
    pub fn new(chain: Chain, dir: impl Into<PathBuf>) -> Self {
        let validator = matches!(chain, Chain::Dev).then(|| "//Alice".to_owned());
        Self {
            chain,
            dir: dir.into(),
            name: "datdot".into(),
            validator,
            p2p_port: None,
            rpc_port: 0,
            bootnodes: Vec::new(),
            archive: false,
        }
    }
}

/// Why a node does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program has the port, or this user may not have it.
    #[error("can't listen on port {port}: {cause}; choose another port, or 0 for any")]
    Port {
        /// The one that was asked for.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
    /// The folder can't be made or written.
    #[error("can't use the folder {}: {cause}", dir.display())]
    Dir {
        /// The one that was asked for.
        dir: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Neither a known chain nor a chain specification.
    #[error("can't read the chain specification {}: {cause}", file.display())]
    Spec {
        /// Where it should be.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// [`Options::validator`] is neither a phrase nor a path.
    #[error("the validator's secret is neither a phrase nor a path such as //Alice: {0}")]
    Secret(sp_core::crypto::SecretStringError),
    /// The crate was built with `SKIP_WASM_BUILD`, and only knows the chains that come as a file.
    #[error("this build has no runtime of its own: start it with a chain specification")]
    NoRuntime,
    /// Another node has opened the database.
    #[error("another node is running in {}: stop it, or choose another folder", dir.display())]
    InUse {
        /// The folder of the chain.
        dir: PathBuf,
    },
    /// The node can't be put together.
    #[error(transparent)]
    Service(#[from] sc_service::Error),
    /// A part that the node can't do without has ended. The log says why.
    #[error("an essential task of the ledger node has ended, its log says why")]
    EssentialTask,
    /// The database was still in use after [`Node::stop`] had waited for half a minute.
    #[error("the ledger node did not stop in time")]
    StillRunning,
}

/// A running node. Dropping it stops it too, but without waiting.
pub struct Node {
    /// Where its JSON-RPC server listens, for HTTP and WebSocket.
    pub rpc: SocketAddr,
    /// What other nodes dial, if it listens: use it in [`Options::bootnodes`].
    pub p2p: Vec<MultiaddrWithPeerId>,
    tasks: TaskManager,
    backend: Arc<service::Backend>,
}

impl Node {
    /// Waits until a part ends that the node can't do without. Then the node is of no use any more, and the process
    /// that embeds it should end.
    pub async fn stopped(&mut self) -> Error {
        match self.tasks.future().await {
            Ok(()) | Err(_) => Error::EssentialTask,
        }
    }

    /// Stops the node and waits until its database is closed, so that another one can be started on the same folder.
    pub async fn stop(self) -> Result<(), Error> {
        let Self { tasks, backend, .. } = self;
        drop(tasks);
        let is_ours = async {
            while Arc::strong_count(&backend) > 1 {
                time::sleep(Duration::from_millis(20)).await;
            }
            // Who let go last may yet be about to let go of the columns that it had borrowed.
            time::sleep(Duration::from_millis(20)).await;
        };
        time::timeout(STOP_TIMEOUT, is_ours).await.map_err(|_| Error::StillRunning)?;
        // Closing writes what is left to the disk.
        tokio::task::spawn_blocking(move || drop(backend)).await.map_err(|_| Error::StillRunning)
    }
}

/// Starts a node. When this returns, its RPC server answers.
pub async fn start(mut options: Options) -> Result<Node, Error> {
    let in_dir = |cause| Error::Dir { dir: options.dir.clone(), cause };
    std::fs::create_dir_all(&options.dir).map_err(in_dir)?;
    // Absolute, as the cache of compiled runtimes wants it.
    options.dir = options.dir.canonicalize().map_err(in_dir)?;
    // The SDK's own errors for a port in use don't say which, and its network only logs them.
    is_free(SocketAddrV4::new(Ipv4Addr::LOCALHOST, options.rpc_port))?;
    if let Some(port) = options.p2p_port {
        is_free(SocketAddrV4::new(options.chain.listens_on(), port))?;
    }
    let handle = tokio::runtime::Handle::current();
    // Reads the database and compiles the runtime: seconds of work that must not hold up the caller's other tasks.
    tokio::task::spawn_blocking(move || service::start(options, handle))
        .await
        .map_err(|panic| Error::Service(sc_service::Error::Other(format!("the ledger node panicked: {panic}"))))?
}

/// Looks whether this address can be listened on now.
fn is_free(address: SocketAddrV4) -> Result<(), Error> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(cause) => Err(Error::Port { port: address.port(), cause }),
    }
}
