//! What the daemon and its faces (command line, dashboard) say to each other: JSON over HTTP on loopback.
//!
//! ```text
//! GET    /v1/status     Status                        all there is to see, with the reason for whatever waits
//! POST   /v1/host       HostOrder     -> OfferStatus   post or change the offer
//! DELETE /v1/host                    -> Accepted      take nothing new; the bond returns with the last contract
//! POST   /v1/quote      QuoteOrder    -> Quote         signs nothing
//! POST   /v1/publish    PublishOrder  -> lines of Progress
//! POST   /v1/request    RequestOrder  -> lines of Progress
//! POST   /v1/get        GetOrder      -> lines of Progress
//! POST   /v1/stream     StreamOrder   -> the bytes, with their number as content-length; fewer come if it fails
//! POST   /v1/list       ListOrder     -> lines of Listed
//! GET    /v1/follow/ID               -> lines of Progress, for a request opened before
//! POST   /v1/cancel     CancelOrder   -> Accepted
//! POST   /v1/unpublish  UnpublishOrder -> Unpublished
//! POST   /v1/limits     LimitsOrder   -> Limits        changes those that are named
//! GET    /v1/wallet     Wallet
//! POST   /v1/send       SendOrder     -> Accepted
//! GET    /v1/events     lines of Told: the last ones, then each as it happens
//! ```
//!
//! Every call carries `authorization: Bearer TOKEN`; url and token are in [`discovery`]'s file, which only its user can
//! read. A refusal is an HTTP status of 400 or above with a [`Refusal`]. *Lines* are JSON, one a line, as they happen;
//! dropping the connection stops listening, never the work.
//!
//! Amounts of money are in the ledger's smallest unit, as strings ([`Amount`]): JavaScript's numbers end at 2^53.

pub mod amount;
#[cfg(feature = "client")]
pub mod client;
pub mod discovery;
pub mod event;
pub mod key;
pub mod limits;
pub mod order;
pub mod size;
pub mod status;

pub use amount::Amount;
#[cfg(feature = "client")]
pub use client::{Client, ClientError};
pub use discovery::Discovery;
pub use event::{Event, Told};
pub use key::Key;
pub use limits::{Limits, LimitsOrder};
pub use order::{
    Accepted, CancelOrder, GetOrder, HostOrder, ListOrder, Listed, Progress, PublishOrder, Quote, QuoteOf, QuoteOrder,
    Refusal, RequestOrder, SendOrder, StreamOrder, UnpublishOrder, Unpublished, Wallet, Wanted,
};
pub use size::Size;
pub use status::Status;
