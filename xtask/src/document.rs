//! docs/benchmarks.md: sections that are measured by different commands, each replaced when its command runs again.

use crate::is_quick;
use anyhow::{Context, Result};
use std::{fs, path::Path};

const INTRODUCTION: &str = "\
# Benchmarks

Figures move with the machine and with what else it does; measure on yours. Each section names the command that wrote it.
";

/// Prints sections, and writes them in place of those that have the same titles; others stay as they are. What was measured in a
/// hurry is not written.
pub fn update(sections: &[(&str, String)]) -> Result<()> {
    sections.iter().for_each(|(title, body)| print!("\n## {title}\n\n{}\n", body.trim()));
    if is_quick() {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let text = with(&old, sections);
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}

/// The text of the document with some of its sections replaced, new ones at its end.
fn with(old: &str, new: &[(&str, String)]) -> String {
    let mut sections: Vec<(&str, &str)> =
        old.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, ""))).collect();
    for (title, body) in new {
        match sections.iter_mut().find(|(old, _)| old == title) {
            Some((_, old)) => *old = body,
            None => sections.push((title, body)),
        }
    }
    let mut text = INTRODUCTION.to_owned();
    for (title, body) in sections {
        text += &format!("\n## {title}\n\n{}\n", body.trim());
    }
    text
}

/// A table of Markdown; the first row is its head.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        text += &format!("| {} |\n", row.join(" | "));
        if at == 0 {
            text += &format!("|{}\n", "---|".repeat(row.len()));
        }
    }
    text
}

/// What to write of figures that were measured several times; no number if there are none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A row of a table.
macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
}
pub(crate) use row;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let old = "# Benchmarks\n\nold words\n\n## One\n\n1\n\n## Two\n\n### Part\n\n2\n";
        let text = with(old, &[("One", "one".into()), ("Three", "three\n".into())]);
        assert_eq!(text, format!("{INTRODUCTION}\n## One\n\none\n\n## Two\n\n### Part\n\n2\n\n## Three\n\nthree\n"));
        assert_eq!(with(&text, &[]), text);
    }

    #[test]
    fn tables_have_a_head() {
        assert_eq!(table(&[row!["", "MB/s"], row!["ours", 7]]), "|  | MB/s |\n|---|---|\n| ours | 7 |\n");
    }
}
