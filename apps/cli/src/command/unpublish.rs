//! `datdot unpublish`: take back what was published.

use crate::{
    parse::FeedKey,
    place::Place,
    show::{bytes, money, say},
};
use anyhow::{Result, bail};
use datdot_api::{
    Amount, Key, Status, UnpublishOrder,
    status::{FeedRole, RequestState, RequestStatus},
};
use std::io::{IsTerminal, Write, stderr, stdin};

/// Take back what you published: end its requests, and serve it to nobody
#[derive(clap::Args)]
#[command(after_help = "\
The file or folder stays, and so does its copy in the daemon's folder, so that publishing it again brings it back
under the same key. Those who have it may keep it; hosters drop it when its requests are over.
Example: what `datdot publish` printed, or `datdot status` shows
  datdot unpublish KEY
Delete the copy as well, with the secret key: nobody can publish under that key again
  datdot unpublish KEY --delete")]
pub struct Args {
    /// Its key
    key: FeedKey,
    /// Delete the daemon's copy and the secret key, for ever
    #[arg(long)]
    delete: bool,
    /// Delete without asking
    #[arg(long, requires = "delete")]
    yes: bool,
}

/// Takes it back.
pub fn run(args: Args, place: &Place) -> Result<()> {
    let (client, status) = place.daemon()?;
    let key = Key(args.key.0);
    let open: Vec<_> = status.requests.iter().filter(|request| is_open(request, key)).collect();
    for request in &open {
        if let Some(id) = request.id {
            let returns = money(unspent(request));
            say(format_args!(
                "Request {id} ends: its hosters are paid what they earned, at most {returns} of it returns, and the deposit."
            ));
        }
    }
    if !open.is_empty() {
        say("Each of them costs the fee of one transaction.");
    }
    let is_mine = |role| matches!(role, FeedRole::Author | FeedRole::Unpublished);
    let is_here = status.feeds.iter().any(|feed| feed.key == key && is_mine(feed.role));
    if args.delete && is_here && !args.yes {
        confirm(&status, key)?;
    }
    let done = client.unpublish(&UnpublishOrder { key, delete: args.delete })?;
    say(format_args!("{key} is unpublished: nobody gets to see it here any longer."));
    for request in done.requests {
        say(format_args!("Request {request} is closing."));
    }
    match args.delete {
        true => say(format_args!("{} were deleted, with the secret key.", bytes(done.deleted))),
        false => say("Publish the same file or folder to bring it back, or add --delete to be rid of the copy."),
    }
    Ok(())
}

fn is_open(request: &RequestStatus, key: Key) -> bool {
    request.state != RequestState::Closing && request.feeds.contains(&key)
}

/// What is in a request's budget, and set apart for its hosters and not paid to them yet.
fn unspent(request: &RequestStatus) -> Amount {
    let reserved = request.contracts.iter().map(|replica| replica.reserve.0.saturating_sub(replica.paid.0));
    Amount(reserved.fold(request.budget.0, u128::saturating_add))
}

fn confirm(status: &Status, key: Key) -> Result<()> {
    let feeds = |key| status.feeds.iter().find(|feed| feed.key == key).map_or(0, |feed| feed.held);
    let blobs = status.drives.iter().find(|drive| drive.key == key).map(|drive| drive.blobs);
    let size = bytes(feeds(key) + blobs.map_or(0, feeds));
    if !stdin().is_terminal() {
        bail!("{size} and the secret key would be deleted for ever: say --yes if that is meant");
    }
    eprint!("Delete {size} and the secret key for ever? Nobody can publish under this key again. Type `yes`: ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing was done");
    }
    Ok(())
}
