//! What `dev`, `up` and `demo` share: daemons that run in this process, and how they are heard and stopped.

use crate::show::{say, story::sentence};
use anyhow::{Context, Result};
use datdot_api::{Client, Event, Told};
use std::{io::stderr, path::Path, thread};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// The threads that daemons and node run on.
pub fn runtime() -> Result<Runtime> {
    Runtime::new().context("the operating system gives no threads")
}

/// Sends what is logged to standard error: warnings, or what `RUST_LOG` asks for.
pub fn log(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(true);
    // A second call, as tests make it, changes nothing.
    log.try_init().ok();
}

/// Returns on Ctrl-C, or when the service manager says so.
pub async fn told_to_stop() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("can't wait for signals")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("can't wait for Ctrl-C"),
        _ = term.recv() => Ok(()),
    }
}

/// Hands each event of the daemon in `dir` to `hear`, on a thread of its own, until the daemon stops.
pub fn listen(dir: &Path, mut hear: impl FnMut(Told) + Send + 'static) -> Result<()> {
    let told = Client::open(dir)?.events()?;
    thread::spawn(move || told.map_while(Result::ok).for_each(&mut hear));
    Ok(())
}

/// Prints what the daemon in `dir` does, a line for each event that a person would want to know.
pub fn narrate(dir: &Path, name: &'static str) -> Result<()> {
    listen(dir, move |told| {
        if let Some(sentence) = sentence(&told.event).filter(|_| worth_a_line(&told.event)) {
            let block = told.block;
            if name.is_empty() {
                say(format_args!("{block:>7}  {sentence}"))
            } else {
                say(format_args!("{block:>7}  {name:<8} {sentence}"))
            }
        }
    })
}

/// Proofs that are in order are seen in `status`; what stays on the screen for days is what changes.
fn worth_a_line(event: &Event) -> bool {
    !matches!(event, Event::ProofMade { .. } | Event::ProofOnLedger { .. } | Event::Earned { .. } | Event::Taken { .. })
}
