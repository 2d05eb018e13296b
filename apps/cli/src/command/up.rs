//! `datdot up`: the daemon alone, against a ledger that runs elsewhere.

use crate::{
    command::{Limiting, Swarm},
    keystore::{Keystore, Password},
    parse::Endpoint,
    place::Place,
    running,
    show::say,
};
use anyhow::{Context, Result};
use datdot_daemon::{Config, Daemon};
use datdot_ledger::Account;
use std::net::SocketAddr;

/// Run the daemon: it publishes, hosts, serves and proves
#[derive(clap::Args)]
#[command(after_help = "\
Example: a hoster on a server with a public address
  datdot wallet new
  datdot up --ledger ws://ledger.example:9944 --address 203.0.113.7:3282
then, in another terminal
  datdot host --space 2TB --price 0.5
With a limit to what it sends; `datdot limits` changes it while it runs
  datdot up --ledger ws://ledger.example:9944 --upload 5MB/s
On a network of one machine, with the addresses that `datdot dev` prints
  datdot up --ledger ws://127.0.0.1:9944 --account //Eve --bootstrap 127.0.0.1:49737")]
pub struct Args {
    /// The ledger's node
    #[arg(long, default_value = "ws://127.0.0.1:9944", value_name = "ws://HOST:PORT")]
    ledger: String,
    /// Account of the dev chain, as in //Bob, instead of the wallet; everybody knows its key
    #[arg(long, value_name = "//NAME")]
    account: Option<String>,
    /// Where peers connect; port 0 is any free one
    #[arg(long, default_value = "0.0.0.0:3282", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// How others reach this computer, if not by the address of `--listen`; may be given several times
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<Endpoint>,
    /// Tell the ledger no address: others find this computer by the swarm alone
    #[arg(long, conflicts_with_all = ["address", "no_swarm"])]
    no_address: bool,
    #[command(flatten)]
    swarm: Swarm,
    #[command(flatten)]
    limiting: Limiting,
    /// Port of the API on this computer; 0 is any free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    api_port: u16,
    #[command(flatten)]
    password: Password,
}

/// Runs until it is told to stop.
pub fn run(args: Args, place: &Place) -> Result<()> {
    running::log("warn");
    let account = match &args.account {
        Some(name) => Account::dev(name)?,
        None => {
            let keystore = Keystore::in_dir(place.dir());
            keystore.must_exist()?;
            keystore.open(args.password.get()?)?
        }
    };
    let address = account.id();
    let config = Config {
        listen: args.listen,
        addresses: args.address.iter().map(|at| at.resolve_for(args.listen)).collect::<Result<_, _>>()?,
        name_addresses: !args.no_address,
        swarm: args.swarm.settings()?,
        api_port: args.api_port,
        limits: args.limiting.order(),
        ..Config::new(place.dir(), &args.ledger, account)
    };
    running::run(async {
        let daemon = Daemon::start(config).await.context("the daemon does not start")?;
        say(format_args!("account   {address}"));
        say(format_args!("ledger    {}", args.ledger));
        say(format_args!("state     {}", place.dir().display()));
        say("Ctrl-C stops; what it did and does is in `datdot status`.\n");
        running::narrate(place.dir(), "")?;
        running::told_to_stop().await?;
        say("stopping…");
        daemon.stop().await;
        Ok(())
    })
}
