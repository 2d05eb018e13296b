//! `datdot ls`: what is in a drive.

use crate::{
    command::request::addresses,
    parse::{Endpoint, Target},
    place::{Place, absolute},
    show::{bytes, progress::count, say},
};
use anyhow::{Result, bail};
use datdot_api::{Key, ListOrder, Listed};
use std::path::PathBuf;

/// List what is in a drive, without fetching its files
#[derive(clap::Args)]
#[command(after_help = "\
Examples
  datdot ls KEY
  datdot ls KEY docs
  datdot ls KEY --recursive
An encrypted drive
  datdot ls KEY --encryption-key-file key.txt
From a peer whose address you know
  datdot ls KEY --from 203.0.113.7:4977")]
pub struct Args {
    /// The drive's key: 64 hex digits, or 52 characters of z-base-32; also KEY/path
    #[arg(value_name = "KEY[/PATH]")]
    key: Target,
    /// A folder or file of it; without, the top
    path: Option<String>,
    /// List what is in folders, too
    #[arg(short, long)]
    recursive: bool,
    /// If the drive is encrypted: the file with its key, 64 hex digits
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// Where to fetch it, as HOST:PORT; may be given several times; without, hosters that the ledger or the swarm knows
    #[arg(long, value_name = "HOST:PORT")]
    from: Vec<Endpoint>,
}

/// Lists it.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let Args { key: Target { key, inside }, path, recursive, encryption_key_file, from } = args;
    let inside = match (inside, path) {
        (Some(inside), Some(path)) => {
            Some(format!("{}/{}", inside.trim_end_matches('/'), path.trim_start_matches('/')))
        }
        (inside, path) => inside.or(path),
    };
    let from = addresses(&from)?;
    let encryption_key_file = encryption_key_file.as_deref().map(absolute).transpose()?;
    let (client, _) = place.daemon()?;
    for line in client.list(&ListOrder { key: Key(key.0), inside, recursive, encryption_key_file, from })? {
        match line? {
            Listed::File { path, bytes: size, executable } => {
                row(&bytes(size), if executable { "*" } else { "" }, &path);
            }
            Listed::Link { path, target } => row("link", &format!(" -> {}", target.escape_debug()), &path),
            Listed::Folder { path, files, bytes: size } => {
                row(&bytes(size), &format!("/  ({})", count(files, "file", "files")), &path);
            }
            Listed::Bad { path, why } => row("bad", &format!("  ({why})"), &path),
            Listed::Done { .. } => return Ok(()),
            Listed::Failed { error } => bail!(error),
        }
    }
    bail!("the daemon stopped before all was listed: start it again, and give this command again")
}

/// A stranger's name moves no cursor.
fn row(size: &str, behind: &str, name: &str) {
    say(format_args!("{size:>11}  {}{behind}", name.escape_debug()));
}
