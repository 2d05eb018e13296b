//! Submit to the ledger and follow it.
//!
//! The only crate that knows how the ledger's node is spoken to (subxt, JSON-RPC over WebSocket). Everybody else sees the
//! market's own types.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use datdot_ledger::{Account, Call, Ledger, Submitter};
//!
//! let ledger = Ledger::connect("ws://127.0.0.1:9944").await?;
//! let alice = Submitter::new(&ledger, Account::dev("//Alice")?);
//! alice.submit(Call::Transfer { to: Account::dev("//Bob")?.id(), amount: 5 }).await?;
//!
//! let mut news = ledger.follow(alice.id());
//! loop {
//!     let news = news.next().await?;
//!     println!("block {}: {} free", news.view.at, news.view.free);
//! }
//! # }
//! ```
//!
//! - [`account`] who signs
//! - [`Ledger`] one ledger, read at its best or finalized block; survives restarts of its node
//! - [`Follow`] an account's view for each new best block, with what happened
//! - [`Submitter`] one queue per account, which owns its nonces

pub mod account;
mod call;
mod error;
mod event;
mod follow;
mod ledger;
mod line;
mod queue;
mod runtime;
mod submit;

pub use account::{Account, AccountId, BadAddress, BadPhrase, Phrase};
pub use call::Call;
pub use error::{Error, SubmitError};
pub use event::Event;
pub use follow::{Follow, News};
pub use ledger::{At, BlockId, Blocks, Chain, Ledger, Seen};
pub use submit::{Included, Submitter};

/// An account's view, with accounts as this crate names them.
pub type AccountView = datdot_market::view::AccountView<AccountId>;
/// A request's view.
pub type RequestView = datdot_market::view::RequestView<AccountId>;
