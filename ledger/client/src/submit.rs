//! Submitting: one task per account owns its nonces, sends its calls in order and says what became of them.

use crate::{
    AccountView,
    account::{Account, AccountId},
    call::Call,
    error::{Error, SubmitError},
    event::Event,
    ledger::{BlockId, Ledger, PATIENCE, sort},
    line::{Ends, Line, State},
    queue::{Flight, Queue},
    runtime::Failure,
};
use codec::Encode;
use datdot_market::{Balance, Block};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use subxt::{
    rpcs::{self, UserError},
    utils::H256,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};

/// Calls that may wait to be sent.
const WAITING: usize = 64;
/// Blocks that a reorganisation may replace, with one of the same height that contains what was just sent.
const REORGANISED: Block = 8;
/// How often a call is signed anew, when the node doesn't want the transaction but may want the next.
const TRIES: u32 = 6;
/// Pause before that: what the pool knows may lag behind the chain for a moment.
const PAUSE: Duration = Duration::from_millis(300);

/// Submits the calls of one account, in order. Clones share the queue; make only one per account, since it owns the nonces.
#[derive(Clone)]
pub struct Submitter {
    account: AccountId,
    asks: mpsc::Sender<Ask>,
}

/// A call that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The best block that contains it. See [`Ledger::is_final`] for when that is for good.
    pub block: BlockId,
    /// The fee that was paid.
    pub fee: Balance,
    /// What it caused.
    pub events: Vec<Event>,
}

type Reply = Result<Included, SubmitError>;

struct Ask {
    call: Call,
    reply: oneshot::Sender<Reply>,
    asked: Instant,
    tries: u32,
}

/// What the node said to a transaction.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has it.
    Known,
    /// Not this one; one that is signed later may do.
    Again(String),
    /// The account can't pay.
    NoMoney,
    /// No.
    Invalid(String),
}

impl Submitter {
    /// A queue for `account`. Its task ends with the last clone, once nothing is on its way.
    pub fn new(ledger: &Ledger, account: Account) -> Self {
        let (asks, inbox) = mpsc::channel(WAITING);
        let id = account.id();
        let worker = Worker {
            url: ledger.url().into(),
            ends: ledger.ends.clone(),
            account,
            queue: Queue::new(),
            pending: VecDeque::new(),
            scanned: None,
            line: None,
        };
        tokio::spawn(worker.run(inbox));
        Self { account: id, asks }
    }

    /// The account that signs.
    pub fn id(&self) -> AccountId {
        self.account
    }

    /// Submits a call and waits until it took effect in a best block, or can't any more. Calls are sent in the order they come, without
    /// waiting for one another. While the ledger's node is away the call waits: for 30 seconds if it was not sent yet, and as long as it
    /// can still come into a block if it was.
    pub async fn submit(&self, call: Call) -> Result<Included, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { call, reply, asked: Instant::now(), tries: 0 };
        self.asks.send(ask).await.expect("the task lives as long as a sender does");
        answer.await.expect("the task answers all it was asked before it ends")
    }
}

struct Worker {
    url: String,
    ends: Ends,
    account: Account,
    queue: Queue<oneshot::Sender<Reply>>,
    pending: VecDeque<Ask>,
    /// The best block up to which blocks were searched.
    scanned: Option<BlockId>,
    /// The line that all of the queue was sent over.
    line: Option<Arc<Line>>,
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let mut open = true;
        while open || !self.pending.is_empty() || !self.queue.is_empty() {
            let state = self.ends.state.borrow_and_update().clone();
            match state {
                State::Up(line) => {
                    if let Err(error) = self.work(&line).await {
                        tracing::debug!(target: "ledger", "submitting waits: {error}");
                        match sort(&self.url, "a call", error).unwrap_or_else(|why| self.unreachable(why)) {
                            // It will not be understood the next time either. What flies goes on: it may still come into a block.
                            error @ Error::Unfit { .. } => self.give_up_pending(&error),
                            error => self.give_up_old(&error),
                        }
                        // The line is about to be found broken, if it is.
                        sleep(PAUSE).await;
                    }
                }
                State::Down(why) => self.give_up_old(&self.unreachable(why)),
                State::Broken(error) => self.give_up_all(&error),
            }
            let oldest = self.pending.front().map(|ask| ask.asked + PATIENCE);
            tokio::select! {
                ask = inbox.recv(), if open && self.pending.len() < WAITING => match ask {
                    Some(ask) => self.pending.push_back(ask),
                    None => open = false,
                },
                Ok(()) = self.ends.seen.changed() => {}
                Ok(()) = self.ends.state.changed() => {}
                () = sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => {}
                else => self.give_up_all(&self.unreachable("it was closed".into())),
            }
        }
    }

    /// Finds what has come into blocks, sends again what may be lost, and sends what waits.
    async fn work(&mut self, line: &Arc<Line>) -> Result<(), rpcs::Error> {
        let best = line.name(&line.header(None).await?);
        self.search(line, best).await?;
        let new_line = !self.line.as_ref().is_some_and(|before| Arc::ptr_eq(before, line));
        for bytes in self.queue.again(best.number, new_line) {
            // Whatever the node says now, the transaction may still come into a block until its life is over.
            let verdict = send(line, &bytes).await?;
            tracing::debug!(target: "ledger", "sent again: {verdict:?}");
        }
        self.line = Some(line.clone());
        while let Some(mut ask) = self.pending.pop_front() {
            if ask.reply.is_closed() {
                continue;
            }
            match self.submit(line, &mut ask).await {
                Ok(Step::Flies(flight, nonce)) => self.queue.fly(nonce, flight.waiting(ask.reply)),
                Ok(Step::Refused(error)) => drop(ask.reply.send(Err(error))),
                Err(error) => {
                    self.pending.push_front(ask);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Looks through the blocks since the last search for transactions that are on their way: only those that may contain one, however
    /// long the line was down.
    async fn search(&mut self, line: &Line, best: BlockId) -> Result<(), rpcs::Error> {
        let (Some(since), Some(until)) = (self.queue.since(), self.queue.until()) else {
            self.scanned = Some(best);
            return Ok(());
        };
        let last = if until < best.number { line.rpc.chain_get_block_hash(Some(until.into())).await? } else { None };
        let mut hash = last.unwrap_or(H256(best.hash));
        loop {
            if self.scanned.is_some_and(|scanned| H256(scanned.hash) == hash) {
                break;
            }
            let Some(block) = line.block(hash).await? else { break };
            let number = block.header.number as Block;
            if number <= since {
                break;
            }
            let transactions = block.extrinsics.iter().map(|bytes| &bytes[..]);
            for (place, nonce) in self.queue.landed(transactions) {
                let effect = match line.event_bytes(hash).await {
                    Ok(events) => line.runtime.effect(events, place).map_err(|what| self.unfit(what)),
                    // The block is so old that its events are forgotten.
                    Err(rpcs::Error::User(_)) => Err(SubmitError::Forgotten { block: number }),
                    Err(error) => return Err(error),
                };
                let id = BlockId { number, hash: hash.0 };
                let reply = match effect {
                    Err(error) => Err(error),
                    Ok(effect) => match effect.failure {
                        None => Ok(Included { block: id, fee: effect.fee, events: effect.events }),
                        Some(Failure { says, is_money: true, .. }) => Err(self.no_money(line, says).await?),
                        Some(Failure { name, says, .. }) => Err(SubmitError::Failed { name, says, block: number }),
                    },
                };
                if let Some(flight) = self.queue.take(nonce) {
                    flight.waiter.send(reply).ok();
                }
            }
            hash = block.header.parent_hash;
        }
        self.scanned = Some(best);
        for flight in self.queue.lost(best.number) {
            flight.waiter.send(Err(SubmitError::Lost)).ok();
        }
        Ok(())
    }

    /// Signs a call and sends it.
    async fn submit(&mut self, line: &Line, ask: &mut Ask) -> Result<Step, rpcs::Error> {
        loop {
            // The block that the transaction's life begins in is asked for first, and the challenge last: if the chain is reorganised
            // between the two, the transaction is invalid, not wrong.
            let best = line.name(&line.header(None).await?);
            let lifetime = ask.call.lifetime(best.number);
            let from = match lifetime.from == best.number {
                true => Some(H256(best.hash)),
                false => line.rpc.chain_get_block_hash(Some(lifetime.from.into())).await?,
            };
            if let Call::Prove { challenge, .. } = &ask.call {
                let seen = self.view(line).await?.hosting.and_then(|hosting| hosting.challenge);
                if seen != Some(*challenge) {
                    return Ok(Step::Refused(SubmitError::Superseded(challenge.number)));
                }
            }
            let Some(from) = from else {
                return Ok(Step::Refused(SubmitError::Invalid("it begins in a block that doesn't exist".into())));
            };
            let pool = line.rpc.system_account_next_index(&self.account.id().into()).await?;
            let nonce = self.queue.nonce(pool);
            let bytes = match line.runtime.sign(&ask.call, &self.account, nonce, lifetime, from) {
                Ok(bytes) => bytes,
                Err(what) => return Ok(Step::Refused(self.unfit(what))),
            };
            let flight = Flight {
                bytes,
                since: lifetime.from.max(best.number.saturating_sub(REORGANISED)),
                last: lifetime.last(),
                sent: best.number,
                waiter: (),
            };
            // When the connection breaks now, nobody knows whether it arrived: then it flies.
            let verdict = send(line, &flight.bytes).await.unwrap_or(Verdict::Known);
            ask.tries += 1;
            return Ok(match verdict {
                Verdict::Known => Step::Flies(flight, nonce),
                Verdict::Again(_) if ask.tries < TRIES => {
                    sleep(PAUSE * ask.tries).await;
                    continue;
                }
                Verdict::Again(why) | Verdict::Invalid(why) => Step::Refused(SubmitError::Invalid(why)),
                Verdict::NoMoney => Step::Refused(self.no_money(line, "The account can't pay the fee".into()).await?),
            });
        }
    }

    async fn view(&self, line: &Line) -> Result<AccountView, rpcs::Error> {
        line.call("DatdotApi_account", &self.account.id().encode(), None).await
    }

    async fn no_money(&self, line: &Line, says: String) -> Result<SubmitError, rpcs::Error> {
        let says = says.trim_end_matches('.').into();
        Ok(SubmitError::NotEnoughMoney { account: self.account.id(), free: self.view(line).await?.free, says })
    }

    fn unreachable(&self, why: String) -> Error {
        Error::Unreachable { url: self.url.clone(), why }
    }

    fn unfit(&self, what: String) -> SubmitError {
        Error::Unfit { url: self.url.clone(), what }.into()
    }

    /// Answers what has waited too long for the line.
    fn give_up_old(&mut self, error: &Error) {
        // Asked in order: the oldest are in front.
        let old = self.pending.iter().take_while(|ask| ask.asked.elapsed() >= PATIENCE).count();
        for ask in self.pending.drain(..old) {
            ask.reply.send(Err(error.clone().into())).ok();
        }
    }

    /// Answers all that waits to be sent.
    fn give_up_pending(&mut self, error: &Error) {
        for ask in self.pending.drain(..) {
            ask.reply.send(Err(error.clone().into())).ok();
        }
    }

    /// Answers everything: there is no line any more.
    fn give_up_all(&mut self, error: &Error) {
        self.give_up_pending(error);
        for flight in self.queue.lost(Block::MAX) {
            flight.waiter.send(Err(error.clone().into())).ok();
        }
    }
}

/// What became of a call when it was submitted.
enum Step {
    Flies(Flight<()>, u64),
    Refused(SubmitError),
}

async fn send(line: &Line, transaction: &[u8]) -> Result<Verdict, rpcs::Error> {
    match line.rpc.author_submit_extrinsic(transaction).await {
        Ok(_) => Ok(Verdict::Known),
        Err(rpcs::Error::User(refusal)) => Ok(Verdict::of(&refusal)),
        Err(error) => Err(error),
    }
}

impl Verdict {
    /// Sorts the refusals of a node by their codes (sc-rpc-api, `author/error.rs`).
    fn of(refusal: &UserError) -> Self {
        let detail = refusal.data.as_ref().map(|data| data.get().trim_matches('"'));
        let why = || detail.unwrap_or(&refusal.message).to_owned();
        match (refusal.code, detail.unwrap_or_default()) {
            // Already imported.
            (1013, _) => Self::Known,
            (1010, detail) if detail.starts_with("Inability to pay") => Self::NoMoney,
            // Another took the nonce, the chain was reorganised, or the runtime became another.
            (1010, "Transaction is outdated" | "Transaction will be valid in the future") => Self::Again(why()),
            (1010, "Transaction has a bad signature" | "Transaction has an ancient birth block") => Self::Again(why()),
            (1010, "Transaction would exhaust the block limits") => Self::Again(why()),
            // Banned for a while, too low a priority to replace another, the pool is full, its block is gone, not ready yet.
            (1012 | 1014 | 1016 | 1020 | 1021 | 1040, _) => Self::Again(why()),
            _ => Self::Invalid(why()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: i32, data: &str) -> Verdict {
        let json = format!(r#"{{"code":{code},"message":"refused","data":"{data}"}}"#);
        Verdict::of(&subxt::ext::jsonrpsee::core::__reexports::serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn a_refusal_tells_whether_another_try_makes_sense() {
        assert_eq!(verdict(1013, "0x00"), Verdict::Known);
        assert_eq!(verdict(1010, "Inability to pay some fees (e.g. account balance too low)"), Verdict::NoMoney);
        assert!(matches!(verdict(1010, "Transaction is outdated"), Verdict::Again(_)));
        assert!(matches!(verdict(1014, "too low"), Verdict::Again(_)));
        assert_eq!(verdict(1010, "Custom error: 7"), Verdict::Invalid("Custom error: 7".into()));
    }
}
