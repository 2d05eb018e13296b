//! `datdot demo`: the main job once, on this computer, told as it happens.
//!
//! The ledger and three hosters run in this process. The publisher is a process of its own, so that it can be killed for good;
//! the reader at the end is the JavaScript one.

mod cast;
mod stage;
mod subject;

use crate::{
    command::dev::offer,
    dev_network::{DevNetwork, HOSTERS, Parts},
    place::make_dir,
    running,
    show::{bytes, money, price, progress::count, say, short, story},
};
use anyhow::{Context, Result, bail};
use cast::{Publisher, reader};
use datdot_api::{Client, Key, Progress, PublishOrder, QuoteOf, QuoteOrder, Wanted};
use datdot_market::params::DAT;
use stage::{Heard, Stage};
use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// Publish, host, prove, pay and read back once, on this computer, in a minute or so
#[derive(clap::Args)]
#[command(after_help = "\
Example
  datdot demo
  datdot demo video.mp4
It runs in a temporary folder, which is removed at the end; `--dir` says in which one that is.")]
pub struct Args {
    /// The file to publish; without, the binaries that were just built
    file: Option<PathBuf>,
}

/// The first hoster's price per GiB and day, each next one asks a tenth more: high, so that a minute earns something to see.
const PRICE: u128 = 500 * DAT;
/// The sponsor's highest price.
const MAX_PRICE: u128 = 1_000 * DAT;
/// A day, in the dev chain's blocks.
const TERM: u32 = 86_400;
/// Proofs to wait for, of each hoster: pay for a period comes with the next proof.
const PROOFS: usize = 3;
/// How long a part of the demo may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the demo in a folder that is removed at the end: in the one that was chosen, or among the system's temporary files.
pub fn run(args: Args, chosen: Option<PathBuf>) -> Result<()> {
    running::log("error,sc_=off");
    let above = chosen.unwrap_or_else(std::env::temp_dir);
    make_dir(&above)?;
    let dir = tempfile::Builder::new().prefix("datdot-demo-").tempdir_in(&above);
    let dir = dir.with_context(|| format!("no room for temporary files in {}", above.display()))?;
    let subject = subject::choose(args.file, dir.path())?;
    // Found before anything begins: what the last part needs.
    reader::find()?;
    let runtime = running::runtime()?;
    let stage = Stage::new();
    stage.tell("", format_args!("to publish: {}, {}", subject.what, bytes(subject.bytes)));
    let parts = Parts { hosters: HOSTERS.len(), user: false, settle_from: Some(DAT / 100) };
    let network = runtime.block_on(DevNetwork::start(dir.path(), 0, parts))?;
    let done = play(&stage, &network, dir.path(), &subject);
    // Also after a failure: the folder must not go before those who write into it.
    let stopped = runtime.block_on(network.stop());
    done?;
    stopped
}

fn play(stage: &Stage, network: &DevNetwork, dir: &Path, subject: &subject::Subject) -> Result<()> {
    stage.tell("ledger", format_args!("{}, a block every second, one validator", network.rpc()));
    let (heard, news) = channel();
    for name in HOSTERS {
        let dir = network.hoster(name);
        tell_to(&heard, &dir, name)?;
        stage.name(&Client::open(&dir)?.status()?.account, name);
    }
    offers(network)?;
    let publisher = Publisher::start(dir, &network.rpc(), network.bootstrap())?;
    tell_to(&heard, publisher.dir(), cast::PUBLISHER)?;
    stage.tell(cast::PUBLISHER, format_args!("a process of its own, number {}", publisher.pid()));

    let key = publish(stage, &news, &publisher, subject)?;
    let pid = publisher.stop()?;
    stage.tell(cast::PUBLISHER, format_args!("stopped: process {pid} is gone, and its disk with it"));

    hear(stage, &news, |stage| HOSTERS.iter().all(|name| stage.proven(name) >= PROOFS))
        .context("the hosters did not prove")?;
    read_back(stage, network, dir, key, subject)?;
    summary(stage, network, key)?;
    Ok(())
}

/// Passes what a daemon tells on to the stage.
fn tell_to(heard: &Sender<Heard>, dir: &Path, who: &'static str) -> Result<()> {
    let heard = heard.clone();
    running::listen(dir, move |told| {
        // Nobody listens any more once the demo is over.
        heard.send(Heard { who, event: told.event }).ok();
    })
}

fn offers(network: &DevNetwork) -> Result<()> {
    let posting: Vec<_> = HOSTERS
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let dir = network.hoster(name);
            let price = PRICE + PRICE / 10 * at as u128;
            thread::spawn(move || offer(&Client::open(&dir)?, price))
        })
        .collect();
    posting.into_iter().try_for_each(|thread| thread.join().expect("posting an offer does not panic"))
}

/// Publishes the file and follows it until three hosters have it.
fn publish(stage: &Stage, news: &Receiver<Heard>, publisher: &Publisher, subject: &subject::Subject) -> Result<Key> {
    let client = publisher.client()?;
    let wanted = Wanted { replicas: HOSTERS.len() as u32, term: TERM, max_price: Some(MAX_PRICE.into()) };
    let quote = client.quote(&QuoteOrder { of: QuoteOf::Bytes(subject.bytes), wanted })?;
    stage.tell(
        cast::PUBLISHER,
        format_args!(
            "quote for {} and a day: {} locked at {}; a hoster that loses a tenth is found within {} (99 %)",
            count(quote.replicas, "replica", "replicas"),
            money(quote.budget),
            price(quote.max_price),
            crate::show::span(quote.tenth_lost_found_within),
        ),
    );
    let (done, progress) = channel();
    let order = PublishOrder { path: subject.path.clone(), wanted: Some(wanted) };
    let steps = client.publish(&order)?;
    thread::spawn(move || steps.map_while(Result::ok).for_each(|step| drop(done.send(step))));
    let mut key = None;
    hear(stage, news, |stage| {
        for step in progress.try_iter() {
            match step {
                Progress::Reading { bytes, total } => stage.advance(cast::PUBLISHER, "reads the file", bytes, total),
                Progress::Done { key: of, .. } => key = Some(Ok(of)),
                Progress::Failed { error } => key = Some(Err(error)),
                _ => {}
            }
        }
        key.is_some()
    })?;
    match key {
        Some(Ok(key)) => Ok(key),
        Some(Err(error)) => bail!("publishing failed: {error}"),
        None => bail!("the publisher ended; its log is above"),
    }
}

/// Shows what is heard until `enough`.
fn hear(stage: &Stage, news: &Receiver<Heard>, mut enough: impl FnMut(&Stage) -> bool) -> Result<()> {
    let start = Instant::now();
    while !enough(stage) {
        if start.elapsed() > PATIENCE {
            bail!("nothing more within {} s: is this computer very busy?", PATIENCE.as_secs());
        }
        if let Ok(heard) = news.recv_timeout(Duration::from_millis(100)) {
            stage.show(heard);
        }
    }
    // What is there already belongs to what was waited for.
    news.try_iter().for_each(|heard| stage.show(heard));
    Ok(())
}

fn read_back(stage: &Stage, network: &DevNetwork, dir: &Path, key: Key, subject: &subject::Subject) -> Result<()> {
    let bootstrap = network.bootstrap().to_string();
    stage
        .tell("reader", format_args!("node reader/get.js {key} --bootstrap {bootstrap}: it knows nothing but the key"));
    let copy = dir.join("copy");
    let start = Instant::now();
    reader::read(key, &bootstrap, &copy)?;
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if !subject::same(&subject.path, &copy)? {
        bail!("what the reader got is not what was published");
    }
    stage.tell(
        "reader",
        format_args!("{} in {}: byte for byte what was published", bytes(subject.bytes), story::span(millis)),
    );
    stage.read_back(subject.bytes, millis);
    Ok(())
}

fn summary(stage: &Stage, network: &DevNetwork, key: Key) -> Result<()> {
    say(format_args!("\nFeed {key}"));
    say(format_args!("Read back by JavaScript: {}\n", stage.reading()));
    say("hoster    account      hosts       fetched at   proofs  size      made in  checked  earned        paid");
    for name in HOSTERS {
        let status = Client::open(&network.hoster(name))?.status()?;
        let tally = stage.tally(name);
        let contract = status.contracts.first().context("each hoster has a contract")?;
        say(format_args!(
            "{name:<8}  {:<11}  {:<10}  {:<11}  {:<6}  {:<8}  {:<7}  {:<7}  {:<12}  {}",
            short(&status.account),
            bytes(contract.held),
            tally.speed(),
            contract.proven,
            tally.proof_size(),
            tally.make_time(),
            tally.check_time(),
            money(contract.earned),
            money(contract.paid),
        ));
    }
    say(format_args!("\nAll of it took {}. Now by hand, with the same command:\n", story::span(stage.elapsed())));
    let command = std::env::current_exe().context("this program has a path")?;
    let command = command.display();
    say(format_args!("  {command} dev                  a network like this one, that stays up"));
    say(format_args!("  {command} publish FILE         in another terminal"));
    say(format_args!("  {command} status               what goes on, and why"));
    say(format_args!("  {command} get KEY COPY         read it back"));
    say(format_args!("  {command} --help"));
    Ok(())
}
