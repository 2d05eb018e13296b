//! The line to the ledger's node: one connection, and the task that keeps making a new one when it breaks.

use crate::{
    error::Error,
    event::Event,
    ledger::{BlockId, Seen},
    runtime::{Header, Runtime},
};
use codec::{Compact, Decode, Encode};
use std::{sync::Arc, time::Duration};
use subxt::{
    SubstrateConfig,
    config::RpcConfigFor,
    ext::jsonrpsee::{
        client_transport::ws::{Url, WsTransportClientBuilder},
        core::client::{Client, async_client::PingConfig},
    },
    rpcs::{self, LegacyRpcMethods, RpcClient, methods::legacy::Block},
    utils::H256,
};
use tokio::sync::watch;

/// How long the node may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How often a silent connection is tried, and how long it may stay silent.
const PING: Duration = Duration::from_secs(10);
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Waits between two tries to connect: the first, and the longest.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);
/// Largest answer taken, in bytes: the metadata and a view of a thousand requests fit well.
const ANSWER_BYTES: u32 = 32 << 20;

/// Where a block's events are stored: twox128("System"), twox128("Events").
const EVENTS_KEY: [u8; 32] = *b"\x26\xaa\x39\x4e\xea\x56\x30\xe0\x7c\x48\xae\x0c\x95\x58\xce\xf7\x80\xd4\x1e\x5e\x16\x05\x67\x65\xbc\x84\x61\x85\x10\x72\xc9\xd7";

/// The methods of a node.
pub(crate) type Rpc = LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>;

/// One connection.
pub(crate) struct Line {
    pub rpc: Rpc,
    pub runtime: Runtime,
    pub chain: String,
    pub genesis: H256,
}

/// Where the line stands.
#[derive(Clone)]
pub(crate) enum State {
    Up(Arc<Line>),
    /// It is being made anew; the text says what broke it.
    Down(String),
    /// It is given up: every further request fails with this.
    Broken(Error),
}

/// What others see of the line.
#[derive(Clone)]
pub(crate) struct Ends {
    pub state: watch::Receiver<State>,
    /// Nothing before the first connection.
    pub seen: watch::Receiver<Option<Seen>>,
}

impl Line {
    /// Connects once. With `genesis` the chain must be that one.
    pub async fn connect(url: &str, genesis: Option<H256>) -> Result<Self, Error> {
        let down = |error: rpcs::Error| Error::Unreachable { url: url.into(), why: short(&error) };
        let unfit = |what| Error::Unfit { url: url.into(), what };
        let rpc = Rpc::new(dial(url).await?);
        let found = rpc.genesis_hash().await.map_err(down)?;
        if genesis.is_some_and(|expected| expected != found) {
            return Err(Error::OtherChain { url: url.into() });
        }
        let chain = rpc.system_chain().await.map_err(down)?;
        let version = rpc.state_get_runtime_version(None).await.map_err(down)?;
        let metadata = metadata(&rpc).await.map_err(down)?.ok_or_else(|| unfit("its metadata is too old".into()))?;
        let runtime =
            Runtime::new(found, version.spec_version, version.transaction_version, &metadata).map_err(unfit)?;
        Ok(Self { rpc, runtime, chain, genesis: found })
    }

    /// The blocks seen now.
    pub async fn seen(&self) -> Result<Seen, rpcs::Error> {
        let best = self.header(None).await?;
        let finalized = self.rpc.chain_get_finalized_head().await?;
        let finalized = self.header(Some(finalized)).await?;
        Ok(Seen { best: self.name(&best), finalized: self.name(&finalized) })
    }

    /// The header of a block, or of the best one.
    pub async fn header(&self, hash: Option<H256>) -> Result<Header, rpcs::Error> {
        self.rpc.chain_get_header(hash).await?.ok_or_else(|| missing("block"))
    }

    /// A block with its transactions, if the node has it.
    pub async fn block(&self, hash: H256) -> Result<Option<Block<RpcConfigFor<SubstrateConfig>>>, rpcs::Error> {
        Ok(self.rpc.chain_get_block(Some(hash)).await?.map(|found| found.block))
    }

    /// How a header's block is named.
    pub fn name(&self, header: &Header) -> BlockId {
        // The chain counts blocks in 32 bits.
        BlockId { number: header.number as u32, hash: self.runtime.block_hash(header).0 }
    }

    /// Calls the runtime at a block, or at the best one.
    pub async fn call<T: Decode>(&self, method: &str, argument: &[u8], at: Option<H256>) -> Result<T, rpcs::Error> {
        let bytes = self.rpc.state_call(method, Some(argument), at).await?;
        let mut rest = &bytes[..];
        let value = T::decode(&mut rest).map_err(rpcs::Error::Decode)?;
        match rest {
            [] => Ok(value),
            _ => Err(rpcs::Error::Decode("the answer is longer than what is understood".into())),
        }
    }

    /// What happened in a block, each with the transaction that caused it.
    pub async fn events(&self, at: H256) -> Result<Vec<(Option<u32>, Event)>, rpcs::Error> {
        let bytes = self.event_bytes(at).await?;
        self.runtime.events(bytes).map_err(|what| {
            tracing::warn!(target: "ledger", "{what}");
            rpcs::Error::Decode("events of another form".into())
        })
    }

    /// The encoded events of a block.
    pub async fn event_bytes(&self, at: H256) -> Result<Vec<u8>, rpcs::Error> {
        Ok(self.rpc.state_get_storage(&EVENTS_KEY, Some(at)).await?.unwrap_or_default())
    }

    /// Tells of each block until the connection breaks or the runtime changes, and says which.
    async fn listen(&self, seen: &watch::Sender<Option<Seen>>) -> Result<String, rpcs::Error> {
        let mut best = self.rpc.chain_subscribe_new_heads().await?;
        let mut finalized = self.rpc.chain_subscribe_finalized_heads().await?;
        let mut versions = self.rpc.state_subscribe_runtime_version().await?;
        let now = self.seen().await?;
        seen.send_replace(Some(now));
        let update = |change: &dyn Fn(&mut Seen)| {
            seen.send_if_modified(|seen| {
                let before = *seen;
                seen.as_mut().into_iter().for_each(change);
                *seen != before
            });
        };
        loop {
            tokio::select! {
                header = best.next() => match header {
                    Some(header) => {
                        let best = self.name(&header?);
                        update(&|seen| seen.best = best);
                    }
                    None => return Ok("the connection was closed".into()),
                },
                header = finalized.next() => match header {
                    Some(header) => {
                        let finalized = self.name(&header?);
                        update(&|seen| seen.finalized = finalized);
                    }
                    None => return Ok("the connection was closed".into()),
                },
                version = versions.next() => match version {
                    Some(version) if version.as_ref().is_ok_and(|v| v.spec_version == self.runtime.spec_version) => {}
                    Some(version) => return Ok(format!("the runtime became version {}", version?.spec_version)),
                    None => return Ok("the connection was closed".into()),
                },
                () = seen.closed() => return Ok("nobody listens".into()),
            }
        }
    }
}

/// Keeps a line up from its first connection on, or makes that too, as long as somebody holds its ends.
pub(crate) fn keep(url: String, genesis: H256, first: Option<(Line, Seen)>) -> Ends {
    let (mut line, seen) = first.map(|(line, seen)| (Arc::new(line), seen)).unzip();
    let begin = line.clone().map_or_else(|| State::Down("it was not asked yet".into()), State::Up);
    let (state, state_end) = watch::channel(begin);
    let (seen, seen_end) = watch::channel(seen);
    tokio::spawn(async move {
        loop {
            let up = match line.take() {
                Some(line) => line,
                None => match again(&url, genesis, &state).await {
                    Some(line) => line,
                    None => return,
                },
            };
            tracing::debug!(target: "ledger", %url, "line up");
            state.send_replace(State::Up(up.clone()));
            let why = up.listen(&seen).await.unwrap_or_else(|error| short(&error));
            if seen.is_closed() {
                return;
            }
            tracing::debug!(target: "ledger", %url, "line down: {why}");
            state.send_replace(State::Down(why));
        }
    });
    Ends { state: state_end, seen: seen_end }
}

/// Connects again, however long it takes; `None` if that can't come right or nobody waits for it.
async fn again(url: &str, genesis: H256, state: &watch::Sender<State>) -> Option<Arc<Line>> {
    let mut wait = RETRY;
    loop {
        match Line::connect(url, Some(genesis)).await {
            Ok(line) => return Some(Arc::new(line)),
            Err(Error::Unreachable { why, .. }) => {
                tracing::trace!(target: "ledger", %url, "still down: {why}");
                state.send_replace(State::Down(why));
            }
            Err(error) => {
                state.send_replace(State::Broken(error));
                return None;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_AT_MOST),
            () = state.closed() => return None,
        }
    }
}

async fn dial(url: &str) -> Result<RpcClient, Error> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "ws" | "wss"));
    let parsed = parsed.ok_or_else(|| Error::BadUrl(url.into()))?;
    let transport = WsTransportClientBuilder::default()
        .connection_timeout(ANSWER_WITHIN)
        .max_response_size(ANSWER_BYTES)
        .build(parsed)
        .await
        .map_err(|error| Error::Unreachable { url: url.into(), why: error.to_string() })?;
    let ping = PingConfig::new().ping_interval(PING).inactive_limit(SILENT_FOR);
    let client = Client::builder()
        .request_timeout(ANSWER_WITHIN)
        .enable_ws_ping(ping)
        .build_with_tokio(transport.0, transport.1);
    Ok(RpcClient::new(client))
}

/// The newest metadata that is understood here, without its prefix of a length.
async fn metadata(rpc: &Rpc) -> Result<Option<Vec<u8>>, rpcs::Error> {
    for version in [16u32, 15] {
        let bytes = rpc.state_call("Metadata_metadata_at_version", Some(&version.encode()), None).await?;
        let answer = Option::<(Compact<u32>, Rest)>::decode(&mut &bytes[..]).map_err(rpcs::Error::Decode)?;
        if let Some((_, Rest(metadata))) = answer {
            return Ok(Some(metadata));
        }
    }
    Ok(None)
}

/// All bytes that are left.
struct Rest(Vec<u8>);

impl Decode for Rest {
    fn decode<I: codec::Input>(input: &mut I) -> Result<Self, codec::Error> {
        let length = input.remaining_len()?.unwrap_or_default();
        let mut bytes = vec![0; length];
        input.read(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What a node should have and hasn't.
fn missing(what: &'static str) -> rpcs::Error {
    rpcs::Error::User(rpcs::UserError { code: 0, message: format!("it has no such {what}"), data: None })
}

/// The innermost reason, without the layers around it.
pub(crate) fn short(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
