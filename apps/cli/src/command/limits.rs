//! `datdot limits`: how much passes between this peer and others.

use crate::{
    command::Limiting,
    place::Place,
    show::{limits, say},
};
use anyhow::Result;

/// Show or change how much is sent to peers, and received from them, in a second
#[derive(clap::Args)]
#[command(after_help = "\
Example: leave room on a line of 10 MB/s, and let no reader have all of what is sent
  datdot limits --upload 5MB/s --upload-each 1MB/s
What isn't named stays as it is; `none` takes a limit away
  datdot limits --upload none
Without options they are shown
  datdot limits

They count at once and stay after a restart, except those that `datdot up` is given anew.
They are about feeds; what ledger and DHT take is little, and not limited.")]
pub struct Args {
    #[command(flatten)]
    limiting: Limiting,
}

/// Changes what is named, and shows all.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let (client, status) = place.daemon()?;
    let order = args.limiting.order();
    let now = if order.is_empty() { status.limits } else { client.limit(&order)? };
    let or_none = |limit: Option<String>| limit.unwrap_or_else(|| "no limit".into());
    say(format_args!("upload    {}", or_none(limits::upload(&now))));
    say(format_args!("download  {}", or_none(limits::download(&now))));
    Ok(())
}
