//! `datdot cancel`: end a request before its term is over.

use crate::{place::Place, show::say};
use anyhow::Result;

/// End a request; what was not earned returns
#[derive(clap::Args)]
#[command(after_help = "\
Example: the number is in `datdot status`
  datdot cancel 3")]
pub struct Args {
    /// The request's number
    request: u32,
}

/// Cancels.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let (client, _) = place.daemon()?;
    let accepted = client.cancel(args.request)?;
    say(format_args!("Request {} is closing since block {}.", args.request, accepted.block));
    say("Challenges that are open still count; then what was not earned returns.");
    Ok(())
}
