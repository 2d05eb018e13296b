//! The `datdot` command: one file per subcommand.
//!
//! Exit codes: 0 done, 1 it can't be done (the message says what to do), 2 the command line is wrong.

mod command;
#[cfg(feature = "node")]
mod dev_network;
mod keystore;
mod parse;
mod place;
mod running;
mod show;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Share storage space and seed each other's data.
#[derive(Parser)]
#[command(name = "datdot", version, after_help = EXAMPLE)]
struct Cli {
    /// Folder with the state; without, the user's data folder
    #[arg(long, global = true, env = "DATDOT_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example: a whole network on this computer, and a file hosted by three of it
  datdot dev                  in one terminal
  datdot publish video.mp4    in another; prints the feed's KEY
  datdot get KEY copy.mp4
  datdot publish folder       a drive: publish it again, and what changed is added
  datdot ls KEY
  datdot status";

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "node")]
    Demo(command::demo::Args),
    #[cfg(feature = "node")]
    Dev(command::dev::Args),
    Up(command::up::Args),
    Host(command::host::Args),
    Publish(command::publish::Args),
    Request(command::request::Args),
    Get(command::get::Args),
    Ls(command::ls::Args),
    Cancel(command::cancel::Args),
    Unpublish(command::unpublish::Args),
    Status(command::status::Args),
    Limits(command::limits::Args),
    Doctor(command::doctor::Args),
    Wallet(command::wallet::Args),
}

fn main() -> ExitCode {
    let Cli { dir, command } = Cli::parse();
    let done = place::Place::new(dir.clone()).and_then(|place| match command {
        #[cfg(feature = "node")]
        Command::Demo(args) => command::demo::run(args, dir),
        #[cfg(feature = "node")]
        Command::Dev(args) => command::dev::run(args, &place),
        Command::Up(args) => command::up::run(args, &place),
        Command::Host(args) => command::host::run(args, &place),
        Command::Publish(args) => command::publish::run(args, &place),
        Command::Request(args) => command::request::run(args, &place),
        Command::Get(args) => command::get::run(args, &place),
        Command::Ls(args) => command::ls::run(args, &place),
        Command::Cancel(args) => command::cancel::run(args, &place),
        Command::Unpublish(args) => command::unpublish::run(args, &place),
        Command::Status(args) => command::status::run(args, &place),
        Command::Limits(args) => command::limits::run(args, &place),
        Command::Doctor(args) => command::doctor::run(args, &place),
        Command::Wallet(args) => command::wallet::run(args, &place),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_subcommand_s_help_shows_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let shown = sub.get_after_help().is_some_and(|help| help.to_string().contains("datdot "));
                assert!(shown || sub.has_subcommands(), "{} has no example", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
