//! `datdot host`: offer space, change the offer, or stop.

use crate::{
    command::blocks,
    parse::{Money, Size, Span},
    place::Place,
    show::{bytes, price, say},
};
use anyhow::Result;
use datdot_api::{HostOrder, status::Standing};

/// Offer space to host other people's data
#[derive(clap::Args)]
#[command(after_help = "\
Example: offer 50 GB for at least half a coin per GiB and day
  datdot host --space 50GB --price 0.5
Change the offer by giving it anew; stop with
  datdot host --stop")]
pub struct Args {
    /// Space to offer in all, as in 50GB or 2TiB
    #[arg(long, required_unless_present = "stop", value_name = "SIZE")]
    space: Option<Size>,
    /// Lowest price per GiB and day, as in 0.5 DAT
    #[arg(long, required_unless_present = "stop", value_name = "DAT")]
    price: Option<Money>,
    /// Longest term to host for; without, a year
    #[arg(long, value_name = "SPAN")]
    max_term: Option<Span>,
    /// Where you are: two letters, as in DE (a claim; nobody checks it)
    #[arg(long, value_name = "COUNTRY", value_parser = region)]
    region: Option<String>,
    /// Take nothing new; the bond returns when the last contract is over
    #[arg(long, conflicts_with_all = ["space", "price", "max_term", "region"])]
    stop: bool,
}

fn region(text: &str) -> Result<String, String> {
    match text.as_bytes() {
        [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => Ok(text.to_ascii_uppercase()),
        _ => Err("a region is two letters (ISO 3166), as in DE".into()),
    }
}

/// Posts or withdraws the offer.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let (client, status) = place.daemon()?;
    if args.stop {
        let accepted = client.stop_hosting()?;
        say(format_args!(
            "No new contracts since block {}. What is hosted stays hosted until its term is over;",
            accepted.block
        ));
        say("then the bond returns. `datdot status` shows what is left.");
        return Ok(());
    }
    let (Some(space), Some(price_wanted)) = (args.space, args.price) else {
        unreachable!("clap requires both without --stop")
    };
    let max_term = args.max_term.map(|span| blocks(span, &status)).transpose()?;
    let offer =
        client.host(&HostOrder { space: space.0, price: price_wanted.0.into(), max_term, region: args.region })?;
    let standing = match offer.standing {
        Standing::Posting => "is being posted",
        Standing::Open => "stands on the ledger",
        Standing::Away => "is closed",
        Standing::Leaving => "is being withdrawn",
    };
    say(format_args!("Your offer {standing}: {} at {}.", bytes(offer.space), price(offer.price)));
    if let Some(why) = offer.why {
        say(format_args!("But: {why}"));
    }
    say("Keep the daemon running: it fetches, serves and proves by itself. `datdot status` shows what it does.");
    Ok(())
}
