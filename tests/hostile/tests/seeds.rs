//! What was recorded from JavaScript, and what fuzzing has found, goes through every target: as it is, and with changes by chance.
//! That finds less than libFuzzer, which sees where an input leads, but it runs wherever the tests run.

use datdot_hostile::TARGETS;
use std::{
    fs, panic,
    path::{Path, PathBuf},
};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds"))
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no seeds");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a seed can be read"))).collect()
}

#[test]
fn recorded_and_found_inputs_break_no_law() {
    for (name, run) in TARGETS {
        for (path, bytes) in seeds(name) {
            // A panic tells where; this tells with what.
            println!("{}", path.display());
            run(&bytes);
        }
    }
}

/// `HOSTILE_ROUNDS` says how many inputs of each target are tried, `HOSTILE_TARGET` of which, `HOSTILE_SEED` with which dice.
#[test]
fn inputs_changed_by_chance_break_no_law() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let only = std::env::var("HOSTILE_TARGET").ok();
    let mut dice = Dice(number("HOSTILE_SEED", 1) | 1 << 63);
    for (name, run) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let seeds: Vec<_> = seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
        for _ in 0..number("HOSTILE_ROUNDS", 30) {
            let input = dice.input(&seeds);
            if let Err(panic) = panic::catch_unwind(|| run(&input)) {
                let found = std::env::temp_dir().join(format!("hostile-{name}-{}", std::process::id()));
                fs::write(&found, &input).expect("there is room for what was found");
                println!("found: {}, for fuzz/seeds/{name}", found.display());
                panic::resume_unwind(panic);
            }
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.below(256) as u8).collect()
    }

    /// A seed with some changes, or noise.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = match self.below(4) {
            0 => self.bytes(2_000),
            _ => seeds[self.below(seeds.len())].clone(),
        };
        for _ in 0..self.below(12) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => _ = bytes.splice(at..at, self.bytes(40)),
                3 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let to = from + self.below(other.len() - from + 1);
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                4 => _ = bytes.drain(at..(at + self.below(30)).min(bytes.len())),
                _ => {
                    let noise = self.bytes(300);
                    bytes.extend(noise);
                }
            }
        }
        bytes
    }
}

#[test]
fn every_folder_of_seeds_is_of_a_target() {
    for entry in fs::read_dir(folder()).expect("there are seeds") {
        let name = entry.expect("the folder can be read").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} is no target");
    }
}
