//! `datdot publish`: make a feed of a file or a drive of a folder, and have it hosted.

use crate::{
    command::{Hosting, say_quote},
    place::Place,
    show::{
        bytes,
        progress::{self, Otherwise},
        say,
    },
};
use anyhow::{Context, Result, bail};
use datdot_api::{PublishOrder, QuoteOf, QuoteOrder};
use std::path::{Path, PathBuf};

/// Publish a file as a feed, or a folder as a drive: serve it, and have it hosted
#[derive(clap::Args)]
#[command(after_help = "\
Example: three copies for a month
  datdot publish video.mp4 --replicas 3 --for 30d --max-price 0.5
What would it cost?
  datdot publish video.mp4 --quote
A folder: what .datdotignore names is left out (patterns as in .gitignore)
  datdot publish folder
Publish a folder again, and what changed is added under the same key. Hosters host what they
accepted, so the folder as it is now gets a request of its own; the older one can be cancelled then.
Ctrl-C ends this command, not the work: the daemon goes on, also after a restart.
The same command follows it again, and opens no second request while that one is open.")]
pub struct Args {
    /// The file or folder
    #[arg(value_name = "FILE|FOLDER")]
    file: PathBuf,
    #[command(flatten)]
    hosting: Hosting,
    /// Only say what it would cost and how soon loss would be found; sign nothing
    #[arg(long)]
    quote: bool,
}

/// Publishes, and follows until the file is hosted.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let path = args.file.canonicalize().with_context(|| format!("can't read {}", args.file.display()))?;
    let meta = path.metadata().with_context(|| format!("can't read {}", args.file.display()))?;
    let is_folder = meta.is_dir();
    if !is_folder && !meta.is_file() {
        bail!("{} is neither a file nor a folder", args.file.display());
    }
    if meta.is_file() && meta.len() == 0 {
        bail!("{} is empty: there is nothing to publish", args.file.display());
    }
    let (client, status) = place.daemon()?;
    let wanted = args.hosting.wanted(&status)?;
    if args.quote {
        say_quote(&client.quote(&QuoteOrder { of: QuoteOf::File(path), wanted })?);
        return Ok(());
    }
    let steps = client.publish(&PublishOrder { path, wanted: Some(wanted) })?;
    let done = progress::follow(steps, otherwise(&args.file))?;
    let (hosted, of) = done.hosted;
    say(format_args!("\nHosted by {hosted} of {of}: {}. This computer may go offline now.", bytes(done.bytes)));
    if let Some(request) = done.request {
        say(format_args!("To end it early: datdot cancel {request}"));
    }
    for older in done.superseded {
        say(format_args!(
            "Request {older} is for the folder as it was before, and goes on; this one has all of it. To end that: datdot cancel {older}"
        ));
    }
    let to = if is_folder { "FOLDER" } else { "FILE" };
    say(format_args!("Everyone reads it with its key:\n\n  {}\n\nfor example: datdot get {} {to}", done.key, done.key));
    Ok(())
}

fn otherwise(file: &Path) -> Otherwise {
    let file = file.display();
    Otherwise {
        interrupted: format!(
            "The daemon goes on. `datdot publish {file}` with the same options follows it again, `datdot status` shows it."
        ),
        stopped: "start it again, it goes on by itself",
    }
}
