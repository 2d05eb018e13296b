//! `datdot-node`: a ledger node as a process of its own.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use datdot_node::{Chain, MultiaddrWithPeerId, Options};
use tracing_subscriber::EnvFilter;

/// Makes, checks and serves the blocks of a DatDot ledger.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

const EXAMPLES: &str = "\
Examples:
  A chain on this machine, a block each second:
    datdot-node --chain dev --dir /tmp/dev --validator //Alice --rpc-port 9944

  Two validators on this machine; the first prints the address that the second needs:
    datdot-node --chain local --dir /tmp/alice --validator //Alice --port 30333
    datdot-node --chain local --dir /tmp/bob --validator //Bob --port 30334 --bootnode /ip4/127.0.0.1/tcp/30333/p2p/12D3…

  A chain of your own:
    datdot-node spec --chain local > my-chain.json    (then edit names, validators, balances)
    datdot-node --chain my-chain.json --dir /var/lib/datdot --port 30333";

#[derive(clap::Args)]
struct Run {
    /// dev, local, or the file of a chain specification
    #[arg(long, default_value = "dev", value_name = "CHAIN")]
    chain: Chain,
    /// Where the state is kept, in a folder for each chain [default: ./datdot-ledger]
    #[arg(long, default_value = "datdot-ledger", hide_default_value = true)]
    dir: PathBuf,
    /// Make blocks with the keys of this phrase or path, such as //Alice
    #[arg(long, value_name = "SECRET", env = "DATDOT_VALIDATOR", hide_env_values = true)]
    validator: Option<String>,
    /// TCP port for other nodes, 0 for any; without it the node listens to none
    #[arg(long)]
    port: Option<u16>,
    /// TCP port for programs on this machine (JSON-RPC, HTTP and WebSocket), 0 for any
    #[arg(long, default_value_t = 9944)]
    rpc_port: u16,
    /// A node to know from the start, as /ip4/…/tcp/…/p2p/…; may be given more than once
    #[arg(long = "bootnode", value_name = "ADDRESS")]
    bootnodes: Vec<MultiaddrWithPeerId>,
    /// What other nodes call this one
    #[arg(long, default_value = "datdot")]
    name: String,
    /// Keep the state of all blocks, not only of the last 256
    #[arg(long)]
    archive: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Print the specification of a chain as JSON, to make your own of it
    Spec {
        /// dev, local, or a file
        #[arg(long, default_value = "local")]
        chain: Chain,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Some(Command::Spec { chain }) => chain.to_json().map(|json| println!("{json}")).map_err(Into::into),
        None => run(args.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datdot-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Run) -> anyhow::Result<()> {
    // Blocks and finality at a glance, trouble in full; RUST_LOG overrides it.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,substrate=info,litep2p=error"));
    let to_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(to_terminal).init();

    let mut node = datdot_node::start(Options {
        chain: args.chain,
        dir: args.dir,
        name: args.name,
        validator: args.validator,
        p2p_port: args.port,
        rpc_port: args.rpc_port,
        bootnodes: args.bootnodes,
        archive: args.archive,
    })
    .await?;
    println!("rpc ws://{}", node.rpc);
    for address in &node.p2p {
        println!("p2p {address}");
    }

    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("can't listen for SIGTERM")?;
    tokio::select! {
        error = node.stopped() => Err(error.into()),
        _ = tokio::signal::ctrl_c() => Ok(node.stop().await?),
        _ = terminated.recv() => Ok(node.stop().await?),
    }
}
