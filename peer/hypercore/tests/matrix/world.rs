//! Who takes part in the matrix: processes of JavaScript, networks of ours, and where the blocks of a cell come from.

use super::{Cell, Kind, Story, Wrap, support::*};
use datdot_hypercore::{Download, Feed, FeedKey, Keypair, Network, PeerId, Want};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

pub type Result<T> = std::result::Result<T, String>;

pub fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// A JavaScript process that does what cells ask of it.
pub struct Orders {
    process: Mutex<Option<tokio::process::Child>>,
    send: mpsc::UnboundedSender<String>,
    next: AtomicU64,
    open: Arc<Mutex<BTreeMap<u64, oneshot::Sender<Value>>>>,
}

impl Orders {
    pub async fn start(dir: PathBuf) -> Arc<Orders> {
        let mut js = Js::run("matrix.js", &[format!("--dir={}", dir.display())]);
        js.event("ready").await;
        let (send, mut orders) = mpsc::unbounded_channel::<String>();
        let open: Arc<Mutex<BTreeMap<u64, oneshot::Sender<Value>>>> = Arc::default();
        let (mut input, mut output, process) = js.into_parts();
        tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                use tokio::io::AsyncWriteExt;
                if input.write_all(format!("{order}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let answers = open.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
                let asker = answer["id"].as_u64().and_then(|id| answers.lock().expect("whole").remove(&id));
                asker.into_iter().for_each(|asker| _ = asker.send(answer.clone()));
            }
            answers.lock().expect("whole").clear();
        });
        Arc::new(Orders { process: Mutex::new(Some(process)), send, next: AtomicU64::new(1), open })
    }

    pub async fn ask(&self, cell: &str, what: &str, with: Value) -> Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.open.lock().expect("whole").insert(id, sender);
        let mut order = with;
        order["id"] = json!(id);
        order["cell"] = json!(cell);
        order["do"] = json!(what);
        self.send.send(order.to_string()).map_err(text)?;
        let answer = answer.await.map_err(|_| format!("JavaScript ended during `{what}`"))?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("JavaScript, {what}: {error}")),
            None => Ok(answer),
        }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        *self.process.lock().expect("whole") = None;
    }
}

/// Everybody who takes part.
pub struct World {
    pub dir: PathBuf,
    /// Authors and first copies.
    pub ours: Network,
    /// Readers among ourselves.
    pub other: Network,
    pub authors: Arc<Orders>,
    pub readers: Arc<Orders>,
}

/// A copy of ours that goes on as long as it is kept.
pub struct Copy {
    pub feed: Feed,
    pub download: Download,
    connected: AbortHandle,
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.connected.abort();
    }
}

/// Ends the connection when it is no longer needed.
struct Connected(Network, PeerId);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.disconnect(self.1);
    }
}

/// Connects again and again, as a swarm does: JavaScript breaks a connection when it is asked for a block while it cuts the feed
/// (hypercore 11.37: "Expected tree node from storage").
async fn keep_connected(network: Network, port: u16) {
    loop {
        // A busy machine may be late for the handshake.
        if let Ok(peer) = network.connect(([127, 0, 0, 1], port).into(), None).await {
            let connected = Connected(network.clone(), peer.id);
            while network.peers().iter().any(|open| open.id == connected.1) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where the blocks of a cell come from.
pub struct Source {
    pub cell: Cell,
    pub name: String,
    pub key: FeedKey,
    /// Our own feed, or our copy of one that JavaScript writes.
    pub feed: Option<Feed>,
    pub port: u16,
}

impl Source {
    pub async fn make(world: &World, cell: Cell, name: u16) -> Result<Source> {
        let (first, _, _) = cell.blocks();
        let title = cell.to_string();
        if cell.is_from_js() {
            let kind = match cell.kind {
                Kind::V1 => "v1",
                Kind::Compat => "compat",
                Kind::TwoOfThree => "two-of-three",
            };
            let order = json!({ "kind": kind, "store": wrap(cell), "blocks": first, "size": cell.size });
            let made = world.authors.ask(&title, "author", order).await?;
            let key: FeedKey = made["key"].as_str().unwrap_or_default().parse().map_err(|_| "no key".to_owned())?;
            let port = made["port"].as_u64().unwrap_or_default() as u16;
            return Ok(Source { cell, name: title, key, feed: None, port });
        }
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&name.to_le_bytes());
        let (store, pair) = (world.ours.store(), Keypair::from_seed(seed));
        let made = if cell.kind == Kind::Compat { store.create_compat(&pair) } else { store.create(&pair) };
        let feed = made.map_err(text)?;
        append(&feed, first, cell.size).await;
        let port = world.ours.local_addr().expect("it listens").port();
        Ok(Source { cell, name: title, key: feed.key(), feed: Some(feed), port })
    }

    /// What JavaScript has to know to read it.
    pub fn to_read(&self) -> Value {
        let Source { cell, key, port, .. } = self;
        json!({ "key": key.to_string(), "store": wrap(*cell), "size": cell.size, "port": port })
    }

    /// A copy of ours, by a connection of its own.
    pub async fn copy(&self, network: &Network, want: Want) -> Result<Copy> {
        let feed = network.store().open_remote(self.key, None).map_err(text)?;
        feed.follow_forks(true);
        let download = network.download(&feed, want);
        let connected = tokio::spawn(keep_connected(network.clone(), self.port)).abort_handle();
        Ok(Copy { feed, download, connected })
    }

    /// What happens to the feed while it is fetched.
    pub async fn change(&self, world: &World) -> Result<()> {
        let (first, last, cut) = self.cell.blocks();
        let forking = self.cell.story == Story::Forking;
        let count = if forking { last - cut } else { last - first };
        if count == 0 {
            return Ok(());
        }
        if self.cell.is_from_js() {
            if forking {
                world.authors.ask(&self.name, "truncate", json!({ "length": cut })).await?;
            }
            world.authors.ask(&self.name, "append", json!({ "count": count })).await?;
            return Ok(());
        }
        let feed = self.feed.as_ref().ok_or("it is ours")?;
        if forking {
            feed.truncate(cut).await.map_err(text)?;
        }
        let blocks = (last - count..last).map(|i| self.cell.expected(i)).collect();
        feed.append(blocks).await.map_err(text)?;
        Ok(())
    }
}

fn wrap(cell: Cell) -> &'static str {
    if cell.wrap == Wrap::Corestore { "corestore" } else { "plain" }
}

/// Waits until all is here, and compares it.
pub async fn complete(cell: Cell, feed: &Feed) -> Result<()> {
    let (_, last, _) = cell.blocks();
    let mut progress = feed.watch();
    let done = progress.wait_for(|info| (info.fork, info.length) == (cell.fork(), last) && info.is_complete());
    _ = done.await.map_err(text)?;
    for i in 0..last {
        if feed.get(i).await.map_err(text)? != cell.expected(i) {
            return Err(format!("block {i} is not what was written"));
        }
    }
    match feed.scrub(0..last).await.map_err(text)?[..] {
        [] => Ok(()),
        ref damaged => Err(format!("damaged: {damaged:?}")),
    }
}
