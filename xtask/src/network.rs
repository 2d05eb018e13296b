//! A network of processes: how long publishing takes, what a hosting daemon needs, what a proof costs the ledger.

use crate::{chain::Rpc, machine};
use anyhow::{Context, Result, bail};
use datdot_api::{Client, HostOrder, Progress, PublishOrder, Status, Wanted, status::ProofOutcome};
use std::{
    env,
    fs::File,
    io::{BufWriter, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Bytes that are published.
const BYTES: usize = 256 << 20;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What was measured.
pub struct Figures {
    /// From the order to "hosted by 3 of 3".
    pub hosted: Duration,
    /// Of these, until the request was on the ledger.
    pub opened: Duration,
    /// Largest resident memory of a daemon that fetched, proved and served, in bytes.
    pub peak: u64,
    /// Resident memory of it after some proofs, in bytes.
    pub resident: u64,
    /// Time to execute a block with one proof in wasm.
    pub with_proof: Duration,
    /// Time to execute a block with none.
    pub without: Duration,
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a network in `dir`.
pub fn measure(dir: &Path) -> Result<Figures> {
    let program = program()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let start = |name: &str, args: &[&str]| -> Result<Process> {
        let log = File::create(dir.join(format!("{name}.log")))?;
        let mut command = Command::new(&program);
        command.arg("--dir").arg(dir.join(name)).args(args);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Process(child.with_context(|| format!("{} does not start", program.display()))?))
    };
    let _ledger = start("alice", &["dev", "--hosters", "0", "--rpc-port", &port])?;
    let (client, status) = answer(&dir.join("alice"))?;
    let ledger = status.ledger.rpc.context("the ledger is in this process")?;
    let up = ["up", "--ledger", &ledger, "--listen", "127.0.0.1:0"];
    let mut hosters = Vec::new();
    for (name, account) in [("bob", "//Bob"), ("charlie", "//Charlie"), ("dave", "//Dave")] {
        let process = start(name, &[&up[..], &["--account", account]].concat())?;
        let (client, _) = answer(&dir.join(name))?;
        client.host(&HostOrder {
            space: 1 << 30,
            price: 1_000_000_000_000u128.into(),
            max_term: None,
            region: None,
        })?;
        hosters.push((process, client));
    }

    let path = dir.join("published");
    publishable(&path)?;
    let wanted = Wanted { replicas: 3, term: 86_400, max_price: None };
    let begin = Instant::now();
    let mut opened = Duration::ZERO;
    let mut hosted = None;
    for step in client.publish(&PublishOrder { path, wanted: Some(wanted) })? {
        match step? {
            Progress::Opened { .. } => opened = begin.elapsed(),
            Progress::Done { .. } => hosted = Some(begin.elapsed()),
            Progress::Failed { error } => bail!("publishing failed: {error}"),
            _ => {}
        }
    }
    let hosted = hosted.context("publishing ended early")?;

    let (process, hoster) = &hosters[0];
    let proven = eventually("a hoster proves three times", || {
        let status = hoster.status().ok()?;
        let proven = status.proofs.iter().filter(|proof| proof.outcome == ProofOutcome::Proven);
        let blocks: Vec<u32> = proven.filter_map(|proof| proof.block).collect();
        (blocks.len() >= 3).then_some(blocks)
    })?;
    let memory = |field| machine::memory(process.0.id(), field);
    let rpc = Rpc::new(&ledger);
    let (mut with_proof, mut without) = (Duration::MAX, Duration::MAX);
    for number in proven.iter().flat_map(|block| [*block, block.saturating_sub(1), block.saturating_sub(2)]) {
        let block = rpc.block(number)?;
        let time = rpc.execute(&block)?;
        match block.proofs {
            0 => without = without.min(time),
            1 => with_proof = with_proof.min(time),
            _ => {}
        }
    }
    Ok(Figures { hosted, opened, peak: memory("VmHWM")?, resident: memory("VmRSS")?, with_proof, without })
}

fn program() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let program = target.join("release/datdot");
    if !program.exists() {
        bail!("{} is missing: cargo build --release --workspace --bin datdot", program.display());
    }
    Ok(program.canonicalize()?)
}

fn publishable(path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut state = 9u64;
    for _ in 0..BYTES / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn answer(dir: &Path) -> Result<(Client, Status)> {
    eventually("the daemon answers", || {
        let client = Client::open(dir).ok()?;
        let status = client.status().ok().filter(|status| status.ledger.connected)?;
        Some((client, status))
    })
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("not within {} s: {what}", PATIENCE.as_secs())
}
