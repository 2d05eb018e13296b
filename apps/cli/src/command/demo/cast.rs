//! Those who are processes of their own in the demo: the publisher and the JavaScript reader.

use anyhow::{Context, Result, bail};
use datdot_api::Client;
use std::{
    fs::{self, File},
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the publisher is called on the screen.
pub const PUBLISHER: &str = "publisher";

/// The publisher's process; killed when dropped.
pub struct Publisher {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

impl Publisher {
    /// Starts it and waits until it sees the ledger.
    pub fn start(dir: &Path, ledger: &str, bootstrap: SocketAddrV4) -> Result<Self> {
        let log = dir.join("publisher.log");
        let dir = dir.join(PUBLISHER);
        let out = File::create(&log).context("can't write the publisher's log")?;
        let child = Command::new(std::env::current_exe().context("this program has a path")?)
            .arg("--dir")
            .arg(&dir)
            .args(["up", "--account", "//Alice", "--listen", "127.0.0.1:0", "--ledger", ledger])
            .args(["--bootstrap", &bootstrap.to_string()])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("can't start the publisher")?;
        let mut publisher = Self { child, dir, log };
        publisher.wait()?;
        Ok(publisher)
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if self.client().and_then(|client| Ok(client.status()?)).is_ok_and(|status| status.ledger.connected) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the publisher ended with {status}: {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("the publisher does not answer: {}", fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of its daemon.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::open(&self.dir)?)
    }

    /// Kills the process and removes all that it had; gives its number.
    pub fn stop(mut self) -> Result<u32> {
        self.child.kill().context("can't stop the publisher")?;
        self.child.wait().context("can't stop the publisher")?;
        fs::remove_dir_all(&self.dir).context("can't remove the publisher's data")?;
        Ok(self.pid())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // It may be gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The JavaScript reader.
pub mod reader {
    use super::*;
    use datdot_api::Key;

    /// Where the program is: in the working folder's repository, or in the one that this program was built from.
    pub fn find() -> Result<PathBuf> {
        let here = Path::new("reader/get.js");
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../reader/get.js");
        let script = [here.to_owned(), built].into_iter().find(|script| script.exists());
        let script =
            script.context("the JavaScript reader is missing: run this in the repository, as `make demo` does")?;
        if !script.with_file_name("node_modules").exists() {
            bail!("the JavaScript reader's packages are missing: run `make setup`");
        }
        Ok(script)
    }

    /// Reads a feed into a file, from whoever announces it in the DHT that begins there.
    pub fn read(key: Key, bootstrap: &str, file: &Path) -> Result<()> {
        let output = Command::new("node")
            .arg(find()?)
            .arg(key.to_string())
            .arg(file)
            .args(["--bootstrap", bootstrap])
            .stdin(Stdio::null())
            .output()
            .context("can't start Node.js: run `make setup`")?;
        if !output.status.success() {
            bail!("the JavaScript reader ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
