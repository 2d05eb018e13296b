//! Hypercore feeds: made, kept on disk, verified, served and fetched, compatible with Hypercore 10 and 11 in JavaScript.
//!
//! A [`Store`] is a folder of [`Feed`]s. An author's feed is made from a [`Keypair`] and grows by [`Feed::append`]; anybody
//! else's is opened by its [`FeedKey`], at best with a signed head from a source that can be trusted, and filled
//! by a [`Network`], which also serves every feed of the store to whoever knows its key.
//!
//! ```no_run
//! use datdot_hypercore::{Config, FeedKey, Network, Store, Want};
//! # async fn fetch(key: FeedKey, address: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open("feeds")?;
//! let keypair = datdot_wire::noise::Keypair::from_seed(&[7; 32]); // random in earnest
//! let network = Network::start(store, Config::new(keypair)).await?;
//! let feed = network.store().open_remote(key, None)?;
//! let mut download = network.download(&feed, Want::all());
//! network.connect(address, None).await?;
//! download.done().await?;
//! println!("{} bytes, the first block is {:?}", feed.info().bytes, feed.get(0).await?);
//! // Or only what is read: a block, bytes, what is written from now on.
//! network.get(&feed, 7, std::time::Duration::from_secs(5)).await?;
//! tokio::io::copy(&mut network.reader(&feed, 1_000_000..2_000_000), &mut tokio::io::sink()).await?;
//! println!("block {:?}", network.tail(&feed, feed.info().length).next().await?);
//! # Ok(())
//! # }
//! ```
//!
//! From the inside out: [`messages`] and [`prove`] say what travels between peers, [`session`] what one channel
//! does with it and [`plan`] what is asked of whom, all without I/O; `peer` joins them to feeds on disk, and
//! [`network`] drives it with tokio. Nothing here knows of the ledger.
//!
//! Feeds of any author are verified and served: compat, v0 to v3, several signers, a prologue. Made are v1 and compat
//! feeds of one author. History that its author rewrites is followed only where [`Feed::follow_forks`] says so, and authors who
//! sign two histories at once leave evidence, [`Feed::conflict`].

pub mod authors;
pub mod blocks;
mod disk;
pub mod encryption;
pub mod feed;
mod files;
mod journal;
pub mod key;
mod limit;
pub mod messages;
pub mod network;
pub mod offers;
pub mod pace;
// Without sockets, as `network` drives it: public for those who test it with hostile input.
#[doc(hidden)]
pub mod peer;
pub mod plan;
#[doc(hidden)]
pub mod plans;
pub mod prove;
pub mod read;
pub mod session;
pub mod store;

pub use authors::Authors;
pub use encryption::Encryption;
pub use feed::{Change, Changed, Conflict, Evidence, Feed, FeedError, Info, Refused};
pub use key::{DiscoveryKey, FeedKey, Keypair, Namespace, PrimaryKey};
pub use limit::{Limit, Limits};
pub use network::{Config, ConnectError, Download, Ended, Network, PeerEvent, PeerInfo};
pub use peer::Fault;
pub use plan::{PeerId, Want};
pub use plans::Stopped;
pub use read::{ReadError, Reader, Tail};
pub use store::{Store, StoreError};
