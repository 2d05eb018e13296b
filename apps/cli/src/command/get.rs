//! `datdot get`: read a feed into a file, a drive into a folder, or one file of it.

use crate::{
    command::request::addresses,
    parse::{Endpoint, Target},
    place::{Place, absolute},
    show::{
        bytes,
        progress::{self, Otherwise, count},
        say,
    },
};
use anyhow::{Context, Result, bail, ensure};
use datdot_api::{Client, GetOrder, Key, StreamOrder};
use std::{
    io::{ErrorKind, IsTerminal, Read, Write, stdout},
    path::{Path, PathBuf},
};

/// Read a feed into a file, or a drive into a folder, from its hosters
#[derive(clap::Args)]
#[command(after_help = "\
Examples
  datdot get KEY copy.mp4                 a feed
  datdot get KEY folder                   a drive; what is in the folder already stays as it is
  datdot get KEY folder --replace         the same, but files that have changed in the drive are replaced
  datdot get KEY/docs/a.txt a.txt         one file of a drive
  datdot get KEY/docs/a.txt - | less      to standard output, as it comes
  datdot get KEY copy.mp4 --encryption-key-file key.txt
                                          a feed, or a drive, that its author encrypted
From a peer whose address you know
  datdot get KEY copy.mp4 --from 203.0.113.7:4977
Every block is verified. What was interrupted goes on where it was.")]
pub struct Args {
    /// The key: 64 hex digits, or 52 characters of z-base-32; of a drive also KEY/path
    #[arg(value_name = "KEY[/PATH]")]
    key: Target,
    /// The file or folder to write; a file must not exist yet. With `-` a file goes to standard output
    #[arg(value_name = "FILE|FOLDER")]
    to: PathBuf,
    /// Where to fetch it, as HOST:PORT; may be given several times; without, hosters that the ledger or the swarm knows
    #[arg(long, value_name = "HOST:PORT")]
    from: Vec<Endpoint>,
    /// The feed or drive is encrypted: decrypt it with the key in this file, 64 hex digits
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<PathBuf>,
    /// Replace files of the folder that are others in the drive
    #[arg(long)]
    replace: bool,
}

/// Reads it.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let from = addresses(&args.from)?;
    let Target { key, inside } = args.key;
    let key = Key(key.0);
    // The daemon reads it, so that the key itself goes nowhere.
    let encryption_key_file = args.encryption_key_file.as_deref().map(absolute).transpose()?;
    if args.to == Path::new("-") {
        ensure!(!stdout().is_terminal(), "this would fill the screen: pipe it on, or give the name of a file");
        let (client, _) = place.daemon()?;
        return stream(&client, &StreamOrder { key, inside, encryption_key_file, from });
    }
    let path = absolute(&args.to)?;
    if path.symlink_metadata().is_ok() && !path.is_dir() {
        bail!("{} exists already: give another name, or move it away", args.to.display());
    }
    let (client, _) = place.daemon()?;
    let otherwise = Otherwise {
        interrupted: format!("The daemon goes on, and {} appears when all of it is here.", path.display()),
        stopped: "start it again, it goes on by itself",
    };
    let order = GetOrder { key, inside, path, replace: args.replace, encryption_key_file, from };
    let done = progress::follow(client.read(&order)?, otherwise)?;
    let files = match done.exported {
        Some((written, 0)) => format!("{} with ", count(written, "file", "files")),
        Some((written, unchanged)) => {
            format!("{} written, {} there already, with ", count(written, "file", "files"), unchanged)
        }
        None => String::new(),
    };
    say(format_args!("{}: {files}{}, every block verified", args.to.display(), bytes(done.bytes)));
    Ok(())
}

/// Sends what comes to standard output. A reader that has had enough ends it without noise.
fn stream(client: &Client, order: &StreamOrder) -> Result<()> {
    let (total, mut from) = client.bytes(order)?;
    let mut to = stdout().lock();
    let mut piece = vec![0; 64 << 10];
    let mut sent = 0;
    loop {
        let broken = || {
            format!(
                "it broke off after {} of {}: `datdot status` and the daemon's log say why",
                bytes(sent),
                bytes(total)
            )
        };
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.with_context(broken)?,
        };
        match to.write_all(&piece[..read]) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("standard output can't be written")?,
        }
        sent += read as u64;
    }
    ensure!(sent == total, "it broke off after {} of {}: give the command again", bytes(sent), bytes(total));
    match to.flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output can't be written"),
        _ => Ok(()),
    }
}
