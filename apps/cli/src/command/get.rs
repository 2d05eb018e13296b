//! `datdot get`: read a feed into a file.

use crate::{
    command::request::addresses,
    parse::{Endpoint, FeedKey},
    place::Place,
    show::{
        bytes,
        progress::{self, Otherwise},
        say,
    },
};
use anyhow::{Context, Result, bail};
use datdot_api::{GetOrder, Key};
use std::path::PathBuf;

/// Read a feed into a file, from its hosters
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot get KEY copy.mp4
From a peer whose address you know
  datdot get KEY copy.mp4 --from 203.0.113.7:4977")]
pub struct Args {
    /// The feed's key: 64 hex digits, or 52 characters of z-base-32
    key: FeedKey,
    /// The file to write; must not exist yet
    file: PathBuf,
    /// Where to fetch it, as HOST:PORT; may be given several times; without, hosters that the ledger or the swarm knows
    #[arg(long, value_name = "HOST:PORT")]
    from: Vec<Endpoint>,
}

/// Reads the feed.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let path = std::path::absolute(&args.file).with_context(|| format!("{} is no file name", args.file.display()))?;
    if path.exists() {
        bail!("{} exists already: give another name, or move it away", args.file.display());
    }
    let from = addresses(&args.from)?;
    let (client, _) = place.daemon()?;
    let otherwise = Otherwise {
        interrupted: format!("The daemon goes on, and {} appears when all of it is here.", path.display()),
        stopped: "start it again and give this command again",
    };
    let done = progress::follow(client.read(&GetOrder { key: Key(args.key.0), path, from })?, otherwise)?;
    say(format_args!("{}: {}, every block verified", args.file.display(), bytes(done.bytes)));
    Ok(())
}
