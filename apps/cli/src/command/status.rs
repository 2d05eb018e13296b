//! `datdot status`: what goes on, and why what waits waits.

use crate::{
    place::Place,
    show::{say, status::Page},
};
use anyhow::{Context, Result};

/// Show offers, requests, contracts, proofs and money, and for whatever waits, the reason
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot status
For programs
  datdot status --json | jq .requests")]
pub struct Args {
    /// As JSON; amounts are in the smallest unit (12 decimals)
    #[arg(long)]
    json: bool,
}

/// Shows the status.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let (_, status) = place.daemon()?;
    if args.json {
        say(serde_json::to_string_pretty(&status).context("the status can't be written as JSON")?);
    } else {
        say(Page(&status).to_string().trim_end());
    }
    Ok(())
}
