//! One ledger: connected, followed, and asked about its state.

use crate::{
    AccountView, RequestView,
    account::AccountId,
    call::Call,
    error::Error,
    follow::Follow,
    line::{self, Ends, Line, State, short},
};
use codec::{Compact, Encode};
use datdot_market::{Balance, Block, RequestId, params::Params, terms::Source, view::MarketView};
use std::{future::Future, sync::Arc, time::Duration};
use subxt::{rpcs, utils::H256};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// How long a question waits for a line that is down.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a question is asked again on a line that seems to be up.
const PAUSE: Duration = Duration::from_millis(300);

/// A connection to a ledger that outlives restarts of its node. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Ledger {
    url: Arc<str>,
    chain: Arc<Chain>,
    pub(crate) ends: Ends,
}

/// What stays the same of a chain, whoever asks it and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The name that it gives itself.
    pub name: String,
    /// Hash of its first block.
    pub genesis: [u8; 32],
    /// Its parameters, which are set in its first block.
    pub params: Params,
}

/// A block of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Its height.
    pub number: Block,
    /// Hash of its header.
    pub hash: [u8; 32],
}

/// The newest blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The best block: what peers act on. It can still be reorganised away.
    pub best: BlockId,
    /// The last finalized block: what peers delete on.
    pub finalized: BlockId,
}

/// Which state to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The best block's.
    Best,
    /// The last finalized block's.
    Finalized,
    /// That of the block with this hash; nodes forget states that are some hundred blocks old.
    Block([u8; 32]),
}

/// New blocks as they are seen. Slow readers miss blocks in between, never the newest.
pub struct Blocks {
    ends: Ends,
    told: Option<Seen>,
}

impl Ledger {
    /// Connects to the node at `url` (`ws://…` or `wss://…`). Tries once: later interruptions are waited out.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let line = Line::connect(url, None).await?;
        let fail = |request| move |error| sort(url, request, error).unwrap_or_else(|why| unreachable(url, why));
        let seen = line.seen().await.map_err(fail("its newest block"))?;
        let market: MarketView = line.call("DatdotApi_market", &[], None).await.map_err(fail("the market"))?;
        let chain = Chain { name: line.chain.clone(), genesis: line.genesis.0, params: market.params };
        let ends = line::keep(url.into(), line.genesis, Some((line, seen)));
        Ok(Self { url: url.into(), chain: chain.into(), ends })
    }

    /// A ledger that was known before and whose node need not answer yet: it is tried until it does. Must be that chain then.
    pub fn expect(url: &str, chain: Chain) -> Self {
        let ends = line::keep(url.into(), H256(chain.genesis), None);
        Self { url: url.into(), chain: chain.into(), ends }
    }

    /// Where the node is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which chain this is.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The chain's parameters.
    pub fn params(&self) -> Params {
        self.chain.params
    }

    /// Whether the node answers at the moment.
    pub fn is_up(&self) -> bool {
        matches!(*self.ends.state.borrow(), State::Up(_))
    }

    /// Why the node does not answer at the moment, if it doesn't.
    pub fn is_down(&self) -> Option<String> {
        match &*self.ends.state.borrow() {
            State::Up(_) => None,
            State::Down(why) => Some(why.clone()),
            State::Broken(error) => Some(error.to_string()),
        }
    }

    /// The newest blocks known now; none before the node has answered once.
    pub fn seen(&self) -> Option<Seen> {
        *self.ends.seen.borrow()
    }

    /// Follows the newest blocks.
    pub fn blocks(&self) -> Blocks {
        Blocks { ends: self.ends.clone(), told: None }
    }

    /// Follows what concerns an account.
    pub fn follow(&self, account: AccountId) -> Follow {
        Follow::new(self.clone(), account)
    }

    /// What the ledger shows to an account.
    pub async fn account(&self, account: &AccountId, at: At) -> Result<AccountView, Error> {
        self.view("DatdotApi_account", account.encode(), at).await
    }

    /// What can be known of the market at the best block: to quote a request before it is signed.
    pub async fn market(&self) -> Result<MarketView, Error> {
        self.view("DatdotApi_market", Vec::new(), At::Best).await
    }

    /// A request, anybody's.
    pub async fn request(&self, request: RequestId, at: At) -> Result<Option<RequestView>, Error> {
        self.view("DatdotApi_request", request.encode(), at).await
    }

    /// Where a feed can be read: hosters that have it, then the sources that its sponsors named.
    pub async fn sources(&self, feed: &[u8; 32]) -> Result<Vec<Source>, Error> {
        self.view("DatdotApi_feed_sources", feed.encode(), At::Best).await
    }

    /// The fee that a call would cost now, whatever it holds or moves besides.
    pub async fn fee(&self, call: &Call) -> Result<Balance, Error> {
        self.ask("the fee", |line| async move {
            let mut argument =
                line.runtime.unsigned(call).map_err(|_| rpcs::Error::Decode("it has no such call".into()))?;
            (argument.len() as u32).encode_to(&mut argument);
            // Weight in time and bytes, class, fee.
            type Info = (Compact<u64>, Compact<u64>, u8, Balance);
            let (.., fee) = line.call::<Info>("TransactionPaymentApi_query_info", &argument, None).await?;
            Ok(fee)
        })
        .await
    }

    /// Waits until finality reaches the height of `block`: whether it is part of the chain for good, or was reorganised away.
    pub async fn is_final(&self, block: BlockId) -> Result<bool, Error> {
        let mut blocks = self.blocks();
        while blocks.next().await?.finalized.number < block.number {}
        let found = self
            .ask("a block", |line| async move { line.rpc.chain_get_block_hash(Some(block.number.into())).await })
            .await?;
        Ok(found == Some(H256(block.hash)))
    }

    async fn view<T: codec::Decode>(&self, method: &str, argument: Vec<u8>, at: At) -> Result<T, Error> {
        let argument = &argument;
        self.ask(method, |line| async move {
            let at = match at {
                At::Best => None,
                At::Finalized => Some(line.rpc.chain_get_finalized_head().await?),
                At::Block(hash) => Some(H256(hash)),
            };
            line.call(method, argument, at).await
        })
        .await
    }

    /// Asks the node, and waits for it to come back if it doesn't answer.
    pub(crate) async fn ask<T, F>(&self, request: &str, question: impl Fn(Arc<Line>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, rpcs::Error>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.ends.state.clone();
        loop {
            let now = state.borrow_and_update().clone();
            let (why, pause) = match now {
                State::Broken(error) => return Err(error),
                State::Down(why) => (why, PATIENCE),
                State::Up(line) => match question(line).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => (sort(&self.url, request, error).map_or_else(Ok, Err)?, PAUSE),
                },
            };
            tokio::select! {
                Ok(()) = state.changed() => {}
                () = sleep(pause) => {}
                () = sleep_until(deadline) => return Err(unreachable(&self.url, why)),
            }
        }
    }
}

impl Blocks {
    /// The newest blocks, once at least one of the two is new. Waits while the node is away; fails only when it came back as another
    /// chain. Can be dropped and called again without missing anything.
    pub async fn next(&mut self) -> Result<Seen, Error> {
        loop {
            let seen = *self.ends.seen.borrow_and_update();
            if let Some(seen) = seen.filter(|seen| self.told != Some(*seen)) {
                self.told = Some(seen);
                return Ok(seen);
            }
            changed(&mut self.ends).await?;
        }
    }
}

/// Waits for another newest block; fails when none will come.
pub(crate) async fn changed(ends: &mut Ends) -> Result<(), Error> {
    loop {
        let broken = |state: &watch::Ref<'_, State>| match &**state {
            State::Broken(error) => Some(error.clone()),
            _ => None,
        };
        if let Some(error) = broken(&ends.state.borrow_and_update()) {
            return Err(error);
        }
        tokio::select! {
            Ok(()) = ends.seen.changed() => return Ok(()),
            Ok(()) = ends.state.changed() => {}
            else => std::future::pending().await,
        }
    }
}

fn unreachable(url: &str, why: String) -> Error {
    Error::Unreachable { url: url.into(), why }
}

/// Tells what is final about an error, or else (as `Err`) why to ask again.
pub(crate) fn sort(url: &str, request: &str, error: rpcs::Error) -> Result<Error, String> {
    match error {
        rpcs::Error::User(refusal) => {
            let why = match &refusal.data {
                Some(data) => format!("{}: {}", refusal.message, data.get().trim_matches('"')),
                None => refusal.message,
            };
            Ok(Error::Refused { request: request.into(), why })
        }
        rpcs::Error::Decode(_) | rpcs::Error::Deserialization(_) | rpcs::Error::Serialization(_) => {
            Ok(Error::Unfit { url: url.into(), what: format!("{request}: {}", short(&error)) })
        }
        _ => Err(short(&error)),
    }
}
