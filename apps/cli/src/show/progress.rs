//! A piece of work followed on the screen: bars on a terminal, plain lines elsewhere.

use super::{bytes, money, say};
use crate::running;
use anyhow::{Context, Result, bail};
use datdot_api::{ClientError, Key, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// What came of it.
pub struct Done {
    /// The feed.
    pub key: Key,
    /// Its bytes.
    pub bytes: u64,
    /// The request, if one was wanted.
    pub request: Option<u32>,
    /// Hosters that have it, and replicas wanted.
    pub hosted: (u32, u32),
    /// Files of a drive that were written, and that were there already.
    pub exported: Option<(u64, u64)>,
    /// Requests for what it was before.
    pub superseded: Vec<u32>,
}

/// What becomes of the work without those who follow it.
pub struct Otherwise {
    /// When this command is interrupted.
    pub interrupted: String,
    /// When the daemon stops.
    pub stopped: &'static str,
}

/// Shows each step until the last one.
pub fn follow(steps: impl Iterator<Item = Result<Progress, ClientError>>, otherwise: Otherwise) -> Result<Done> {
    running::say_on_interrupt(otherwise.interrupted);
    let mut screen = Screen { bar: None };
    let (mut exported, mut superseded) = (None, Vec::new());
    for step in steps {
        match step.context("the daemon can't be followed any more; `datdot status` shows whether the work goes on")? {
            Progress::Reading { bytes, total } => screen.advance("reading", bytes, total),
            Progress::Fetching { bytes, total, peers } => {
                screen.advance(&format!("fetching from {}", count(peers, "peer", "peers")), bytes, total)
            }
            Progress::Imported { added, changed, deleted, unchanged, new_bytes } => {
                screen.clear();
                let unchanged = count(unchanged, "file", "files");
                say(format_args!(
                    "folder    {added} added, {changed} changed, {deleted} deleted, {unchanged} as before; {} of new content",
                    bytes(new_bytes)
                ));
            }
            Progress::Skipped { name, why } => screen.note(format!("left out  {name}: {why}")),
            Progress::Superseded { request } => superseded.push(request),
            Progress::Exported { written, unchanged } => exported = Some((written, unchanged)),
            Progress::Serving { key, blocks, bytes: size, addresses } => {
                screen.clear();
                say(format_args!("key       {key}"));
                let at = if addresses.is_empty() { "nowhere yet".into() } else { addresses.join(", ") };
                say(format_args!("serving   {} in {} at {at}", bytes(size), count(blocks, "block", "blocks")));
            }
            Progress::Opened { request, budget, already } => {
                screen.clear();
                match already {
                    true => say(format_args!("request   {request} is open already")),
                    false => say(format_args!("request   {request} is open, {} locked for it", money(budget))),
                }
            }
            Progress::Waiting { why, next } => {
                let next = next.map_or(String::new(), |block| format!(" (tried again in block {block})"));
                screen.note(format!("waiting   {why}{next}"));
            }
            Progress::Hosted { hosted, coming, of } => {
                let coming = if coming > 0 {
                    format!(", {} on the way", count(coming, "other", "others"))
                } else {
                    String::new()
                };
                screen.note(format!("hosted    by {hosted} of {of}{coming}"));
            }
            Progress::Done { key, bytes, request, hosted, of } => {
                screen.clear();
                return Ok(Done { key, bytes, request, hosted: (hosted, of), exported, superseded });
            }
            Progress::Failed { error } => {
                screen.clear();
                bail!(error);
            }
        }
    }
    bail!("the daemon stopped before the work was done: {}", otherwise.stopped)
}

/// `1 block`, `2 blocks`
pub fn count(number: impl Into<u128>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{} {}", super::thousands(number), if number == 1 { one } else { many })
}

/// A bar for bytes, in the one style that the command has.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:24} {bar:32} {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}",
    )
    .expect("the template is well formed: tested")
    .progress_chars("━╸ ");
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    fn advance(&mut self, what: &str, at: u64, total: u64) {
        let bar = self.bar.get_or_insert_with(|| bar(total, what));
        bar.set_length(total);
        bar.set_message(what.to_owned());
        bar.set_position(at);
    }

    fn note(&mut self, line: String) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.suspend(|| say(line)),
            _ => say(line),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_a_valid_style() {
        bar(10, "reading").finish_and_clear();
    }

    fn otherwise() -> Otherwise {
        Otherwise { interrupted: "the daemon goes on".into(), stopped: "start it again" }
    }

    #[test]
    fn a_failure_is_the_command_s_failure() {
        let steps = [Ok(Progress::Failed { error: "no offers that fit".into() })];
        assert_eq!(follow(steps.into_iter(), otherwise()).err().unwrap().to_string(), "no offers that fit");
    }

    #[test]
    fn a_daemon_that_stops_in_the_middle_is_no_success() {
        let steps = [Ok(Progress::Hosted { hosted: 1, coming: 1, of: 3 })];
        let error = follow(steps.into_iter(), otherwise()).err().unwrap().to_string();
        assert!(error.ends_with("start it again"), "{error}");
    }
}
