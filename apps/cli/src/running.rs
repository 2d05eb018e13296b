//! What `dev`, `up` and `demo` share: daemons that run in this process, and how they are heard and stopped.

use crate::show::{say, story::sentence};
use anyhow::{Context, Result};
use datdot_api::{Client, Event, Told};
use std::{io::stderr, path::Path, process::exit, thread, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// How long a thread that is busy with the disk may take at the end.
const LAST: Duration = Duration::from_secs(5);

/// Runs to the end. Threads that are still busy then are left alone: whatever they write, a crash does no harm.
pub fn run(what: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime()?;
    let done = runtime.block_on(what);
    runtime.shutdown_timeout(LAST);
    done
}

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

/// Returns on Ctrl-C, or when the service manager says so. Who says it again doesn't want to wait.
pub async fn told_to_stop() -> Result<()> {
    signalled().await?;
    tokio::spawn(async {
        if signalled().await.is_ok() {
            say("stopped at once; what is on the disk is whole");
            exit(130);
        }
    });
    Ok(())
}

async fn signalled() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("can't wait for signals")?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("can't wait for Ctrl-C"),
        _ = term.recv() => Ok(()),
    }
}

/// Says on Ctrl-C what becomes of work that the command only follows, and ends the command.
pub fn say_on_interrupt(what: String) {
    thread::spawn(move || {
        // Without signals Ctrl-C ends the command as well, without a word.
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            eprintln!("\n{what}");
            exit(130);
        }
    });
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
