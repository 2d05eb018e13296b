//! `datdot request`: have a feed or drive hosted that somebody else made.

use crate::{
    command::{Hosting, say_quote},
    parse::{Endpoint, FeedKey},
    place::Place,
    show::{
        bytes,
        progress::{self, Otherwise},
        say,
    },
};
use anyhow::Result;
use datdot_api::{Key, QuoteOf, QuoteOrder, RequestOrder};

/// Have a feed or drive hosted that somebody else made; the sponsor need not be its author
#[derive(clap::Args)]
#[command(after_help = "\
Of a drive both feeds are hosted, as they are now.
Example: pay for two copies of a friend's feed, which the swarm finds
  datdot request KEY --replicas 2 --for 90d
fetched from her computer
  datdot request KEY --from 203.0.113.7:4977 --replicas 2 --for 90d")]
pub struct Args {
    /// Its key: 64 hex digits, or 52 characters of z-base-32
    key: FeedKey,
    /// Where it can be fetched, as HOST:PORT; may be given several times; without, the swarm looks for it
    #[arg(long, value_name = "HOST:PORT")]
    from: Vec<Endpoint>,
    #[command(flatten)]
    hosting: Hosting,
    /// Only say what it would cost; sign nothing. The daemon must have the feed
    #[arg(long)]
    quote: bool,
}

/// Fetches the feed, opens the request and follows it until it is hosted.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let from = addresses(&args.from)?;
    let (client, status) = place.daemon()?;
    let wanted = args.hosting.wanted(&status)?;
    let key = Key(args.key.0);
    if args.quote {
        say_quote(&client.quote(&QuoteOrder { of: QuoteOf::Feed(key), wanted })?);
        return Ok(());
    }
    let otherwise = Otherwise {
        interrupted: "The daemon goes on. The same command follows it again, `datdot status` shows it.".into(),
        stopped: "a request that is open goes on when it is started again; if none is, give the command again",
    };
    let done = progress::follow(client.request(&RequestOrder { key, from, wanted })?, otherwise)?;
    let (hosted, of) = done.hosted;
    say(format_args!("\nHosted by {hosted} of {of}: {} of {}", bytes(done.bytes), done.key));
    for older in done.superseded {
        say(format_args!("Request {older} is for what it was before, and goes on. To end that: datdot cancel {older}"));
    }
    Ok(())
}

/// Names of where to fetch, looked up so that a wrong one is found before anything begins. The daemon tries all its addresses.
pub fn addresses(from: &[Endpoint]) -> Result<Vec<String>> {
    let found = |endpoint: &Endpoint| Ok(endpoint.resolve().map(|_| endpoint.to_string())?);
    from.iter().map(found).collect()
}
