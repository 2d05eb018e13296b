//! The subcommands.

pub mod cancel;
#[cfg(feature = "node")]
pub mod demo;
#[cfg(feature = "node")]
pub mod dev;
pub mod doctor;
pub mod get;
pub mod host;
pub mod limits;
pub mod ls;
pub mod publish;
pub mod request;
pub mod status;
pub mod unpublish;
pub mod up;
pub mod wallet;

use crate::parse::{Endpoint, Money, Rate, Span};
use anyhow::{Context, Result};
use datdot_api::{LimitsOrder, Quote, Status, Wanted};
use datdot_daemon::swarm::Settings;

/// How something is to be hosted, as options.
#[derive(clap::Args)]
pub struct Hosting {
    /// Copies, at distinct hosters
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: u32,
    /// For how long, as in 30d, 12h or 90s
    #[arg(long = "for", default_value = "30d", value_name = "SPAN")]
    term: Span,
    /// Highest price per GiB and day, as in 0.5 DAT; without, twice the middle of the standing offers
    #[arg(long, value_name = "DAT")]
    max_price: Option<Money>,
}

impl Hosting {
    /// The same, in the ledger's terms.
    pub fn wanted(&self, status: &Status) -> Result<Wanted> {
        Ok(Wanted {
            replicas: self.replicas,
            term: blocks(self.term, status)?,
            max_price: self.max_price.map(|price| price.0.into()),
        })
    }
}

/// How peers are found by the keys of feeds, as options.
#[derive(clap::Args)]
pub struct Swarm {
    /// A node of the DHT at which to begin; may be given several times; without, the public ones of Hyperswarm, and on a dev
    /// chain none
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Vec<Endpoint>,
    /// Do without the swarm: others reach this computer only by an address that they know
    #[arg(long, conflicts_with = "bootstrap")]
    no_swarm: bool,
}

impl Swarm {
    /// The same, in the daemon's terms.
    pub fn settings(&self) -> Result<Settings> {
        Ok(match (self.no_swarm, self.bootstrap.is_empty()) {
            (true, _) => Settings::Off,
            (false, true) => Settings::Public,
            (false, false) => {
                Settings::Through(self.bootstrap.iter().map(Endpoint::resolve_v4).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// Limits of what passes between peers, as options.
#[derive(clap::Args)]
pub struct Limiting {
    /// Most bytes a second that are sent to all peers together, as in 5MB/s; `none` is no limit
    #[arg(long, value_name = "RATE")]
    upload: Option<Rate>,
    /// Most bytes a second that are received from all peers together
    #[arg(long, value_name = "RATE")]
    download: Option<Rate>,
    /// Most bytes a second that are sent to each peer
    #[arg(long, value_name = "RATE")]
    upload_each: Option<Rate>,
    /// Most bytes a second that are received from each peer
    #[arg(long, value_name = "RATE")]
    download_each: Option<Rate>,
}

impl Limiting {
    /// The same, in the daemon's terms.
    pub fn order(&self) -> LimitsOrder {
        let named = |rate: Option<Rate>| rate.map(|rate| rate.0);
        LimitsOrder {
            upload: named(self.upload),
            download: named(self.download),
            upload_each: named(self.upload_each),
            download_each: named(self.download_each),
        }
    }
}

/// A span of time as blocks of the daemon's ledger.
pub fn blocks(span: Span, status: &Status) -> Result<u32> {
    span.blocks(status.ledger.block_millis).context("the ledger can't count so far: choose a shorter time")
}

/// Prints what hosting would cost.
pub fn say_quote(quote: &Quote) {
    use crate::show::{bytes, money, price, progress::count, say, span};
    say(format_args!(
        "{} at {} for {}",
        bytes(quote.bytes),
        count(quote.replicas, "hoster", "hosters"),
        span(quote.term_seconds)
    ));
    say(format_args!(
        "locked    {} at most, at {}; what isn't earned returns",
        money(quote.budget),
        price(quote.max_price)
    ));
    match quote.expected {
        Some(expected) => say(format_args!("expected  {} with the cheapest offers that fit now", money(expected))),
        None => say("expected  unknown: fewer offers fit now than there are replicas"),
    }
    say(format_args!("fee       {}", money(quote.fee)));
    say(format_args!("deposit   {}, returned at the end", money(quote.deposit)));
    say(format_args!("offers    {} of {} fit", quote.offers_that_fit, quote.offers));
    say(format_args!(
        "checks    {} of 1 KiB from each hoster every {}",
        count(quote.chunks_a_challenge, "chunk", "chunks"),
        span(quote.period_seconds)
    ));
    say(format_args!("found     a hoster that lost a tenth: within {} (99 %)", span(quote.tenth_lost_found_within)));
    say(format_args!("          a hoster that lost everything: within {}", span(quote.all_lost_found_within)));
    if let Some(problem) = &quote.problem {
        say(format_args!("problem   {problem}"));
    }
    say("Nothing was signed.");
}
