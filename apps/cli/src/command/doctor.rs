//! `datdot doctor`: who can reach this computer, and what to do about it.

use crate::{
    parse::Endpoint,
    place::Place,
    running,
    show::{doctor::Findings, say},
};
use anyhow::{Context, Result, bail};
use datdot_api::ClientError;
use datdot_daemon::swarm::{self, Settings};
use std::net::{Ipv4Addr, SocketAddr};

/// Say in words who can reach this computer, and what to do about it
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot doctor
On a network of one machine, without a daemon
  datdot doctor --bootstrap 127.0.0.1:49737

A daemon that runs is asked; without one, the DHT is, for some seconds. The exit code is 1 if the DHT doesn't answer.")]
pub struct Args {
    /// A node of the DHT at which to begin, if no daemon runs; may be given several times; without, the public ones
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Vec<Endpoint>,
    /// Where a daemon would listen, if none runs
    #[arg(long, default_value = "0.0.0.0:3282", value_name = "IP:PORT")]
    listen: SocketAddr,
}

/// Finds out and says it.
pub fn run(args: Args, place: &Place) -> Result<()> {
    running::log("error");
    let findings = match place.daemon() {
        Ok((_, status)) => Findings { addresses: Some(status.addresses), swarm: status.swarm },
        // One that runs and can't be asked is another matter.
        Err(error) if error.is::<ClientError>() => return Err(error),
        Err(_) => {
            let nodes = args.bootstrap.iter().map(Endpoint::resolve_v4).collect::<Result<Vec<_>, _>>()?;
            // A node of this machine only sees what comes from this machine.
            let at_home = !nodes.is_empty() && nodes.iter().all(|node| node.ip().is_loopback());
            let listen = if at_home { (Ipv4Addr::LOCALHOST, 0).into() } else { args.listen };
            let settings = if nodes.is_empty() { Settings::Public } else { Settings::Through(nodes) };
            say("No daemon runs here; asking the DHT…");
            let found = running::runtime()?.block_on(swarm::examine(&settings, listen));
            Findings { addresses: None, swarm: found.context("a UDP port is needed to find out")? }
        }
    };
    say(&findings);
    if findings.swarm.answers == Some(false) {
        bail!("the DHT does not answer");
    }
    Ok(())
}
