//! What the figures were measured on.

use crate::is_quick;
use anyhow::{Context, Result};
use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command, thread};

/// A line that names processor, memory, system and compiler.
pub fn describe() -> Result<String> {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or("unknown".into(), |kib| format!("{:.0} GiB", kib as f64 / (1 << 20) as f64));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let system = field_of_text(&fs::read_to_string("/etc/os-release").unwrap_or_default(), "PRETTY_NAME", '=')
        .unwrap_or_else(|| "unknown system".into());
    let rustc = Command::new("rustc").arg("--version").output().context("rustc is missing")?.stdout;
    let rustc = String::from_utf8_lossy(&rustc).trim().to_owned();
    Ok(format!("{cpu}, {cores} cores, {memory} of memory, {system}, {rustc}"))
}

/// What the system says about the memory of a process, in bytes.
pub fn memory(process: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("the system tells a process's memory")?;
    let kib: u64 = line.split_whitespace().nth(1).context("the system tells a process's memory")?.parse()?;
    Ok(kib << 10)
}

/// Bytes on the disk of a folder and all in it.
pub fn room(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { room(&entry.path())? } else { data.blocks() * 512 };
    }
    Ok(bytes)
}

/// Empties the page cache of the whole machine; not if it has to be quick, since others may be at work.
pub fn forget_pages() -> Result<()> {
    if is_quick() {
        return Ok(());
    }
    fs::write("/proc/sys/vm/drop_caches", "3").context("only root can empty the page cache, as cold figures need it")
}

fn field(path: &str, name: &str) -> Option<String> {
    field_of_text(&fs::read_to_string(path).ok()?, name, ':')
}

fn field_of_text(text: &str, name: &str, separator: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
}
