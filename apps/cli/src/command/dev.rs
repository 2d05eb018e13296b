//! `datdot dev`: a whole network on this computer, that stays up.

use crate::{
    dev_network::{DevNetwork, HOSTERS, Parts},
    place::Place,
    running,
    show::say,
};
use anyhow::{Context, Result};
use datdot_api::{Client, HostOrder};
use datdot_market::params::DAT;

/// Bytes that each hoster offers, if the disk has them.
const SPACE: u64 = 10_000_000_000;
/// The first hoster's price per GiB and day; each next one asks a fifth more.
const PRICE: u128 = DAT / 2;

/// Run a whole network on this computer: a ledger, three hosters, and you
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot dev
then, in another terminal
  datdot publish video.mp4

The state survives a restart; time is blocks, so a stopped network stops terms too.")]
pub struct Args {
    /// Port of the ledger's RPC on this computer; 0 is any free one
    #[arg(long, default_value_t = 9944, value_name = "PORT")]
    rpc_port: u16,
    /// How many hosters
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3))]
    hosters: u8,
}

/// Runs until it is told to stop.
pub fn run(args: Args, place: &Place) -> Result<()> {
    running::log("error,sc_=off");
    let dir = place.dev();
    running::run(async {
        say("starting the ledger…");
        let parts = Parts { hosters: args.hosters.into(), user: true, settle_from: None };
        let mut network = DevNetwork::start(dir, args.rpc_port, parts).await?;
        let rpc = network.rpc();
        say(format_args!("ledger    {rpc}, a block every second, one validator"));
        say(format_args!("          look at it: https://polkadot.js.org/apps/?rpc={rpc}#/explorer"));
        let bootstrap = network.bootstrap();
        say(format_args!("swarm     its own; others join with --bootstrap {bootstrap}, or in JavaScript"));
        say(format_args!("          new Hyperswarm({{ bootstrap: ['{bootstrap}'] }})"));
        say(format_args!("state     {}", dir.display()));
        say(format_args!("you       //Alice, with money; {}", hosters(args.hosters.into())));
        say("\ntry       datdot publish FILE");
        say("          datdot status");
        say("Ctrl-C stops; the next `datdot dev` goes on from there.\n");
        for (at, name) in HOSTERS.into_iter().enumerate().take(args.hosters.into()) {
            let dir = network.hoster(name);
            running::narrate(&dir, name)?;
            let price = PRICE + PRICE / 5 * at as u128;
            // The client blocks until the offer is in a block.
            tokio::task::spawn_blocking(move || {
                let offered = Client::open(&dir).map_err(Into::into).and_then(|client| offer(&client, price));
                if let Err(error) = offered {
                    say(format_args!("{name} offers no space: {error:#}"));
                }
            });
        }
        running::narrate(dir, "you")?;
        tokio::select! {
            stop = running::told_to_stop() => stop?,
            error = network.failed() => return Err(error).context("the ledger stopped"),
        }
        say("stopping…");
        network.stop().await
    })
}

/// Posts a hoster's offer, unless it has one from before.
pub fn offer(client: &Client, price: u128) -> Result<()> {
    let status = client.status()?;
    if status.offer.is_none() {
        let space = space(status.disk_free);
        client.host(&HostOrder { space, price: price.into(), max_term: None, region: None })?;
    }
    Ok(())
}

/// What a hoster offers: all of them are on one disk.
fn space(disk_free: Option<u64>) -> u64 {
    disk_free.map_or(SPACE, |free| SPACE.min(free / 4))
}

fn hosters(number: usize) -> String {
    match number {
        0 => "no hosters".into(),
        _ => format!("hosters //{}", HOSTERS.map(capital)[..number.min(HOSTERS.len())].join(", //")),
    }
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_ascii_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hosters_that_run_are_named() {
        assert_eq!(hosters(0), "no hosters");
        assert_eq!(hosters(2), "hosters //Bob, //Charlie");
        assert_eq!(hosters(3), "hosters //Bob, //Charlie, //Dave");
    }

    #[test]
    fn a_small_disk_is_offered_in_part() {
        assert_eq!((space(None), space(Some(u64::MAX))), (SPACE, SPACE));
        assert_eq!(space(Some(4_000_000_000)), 1_000_000_000);
    }
}
