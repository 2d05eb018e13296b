//! What was recorded from JavaScript, and what fuzzing has found, goes through every target: as it is, and with changes by chance.
//! That finds less than libFuzzer, which sees where an input leads, but it runs wherever the tests run.

use bytes::Bytes;
use datdot_hostile::{TARGETS, input::Input};
use datdot_hypercore::{
    Authors,
    messages::{Handshake, Message},
};
use std::{
    collections::BTreeSet,
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

/// What JavaScript reads and hashes of ours is what it would have written itself. Two kinds have no such form: an extension's
/// content is the application's and not kept (9), and of a refusal only reasons that we know are (4, not recorded).
#[test]
fn what_javascript_said_is_written_again_byte_for_byte() {
    let mut kinds = BTreeSet::new();
    let recorded = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("js-"));
    for (path, bytes) in seeds("messages").into_iter().filter(|(path, _)| recorded(path)) {
        let mut input = Input::new(&bytes);
        let kind = input.u8();
        let (said, again) = match kind {
            10 => {
                let said = input.rest();
                (said, Handshake::decode(said).expect("it can be read").encode())
            }
            11 => {
                // What the target needs besides: a length, a fork and a signature.
                (_, _, _) = (input.u8(), input.u8(), input.part());
                let said = input.rest();
                let authors = Authors::from_wire(Bytes::copy_from_slice(said)).expect("it can be read");
                (said, authors.to_wire().expect("it has a manifest").to_vec())
            }
            kind => {
                let said = input.rest();
                let message = Message::decode(kind.into(), &Bytes::copy_from_slice(said)).expect("it can be read");
                let (again, body) = message.expect("its kind is known").encode();
                assert_eq!(again, u64::from(kind), "{}", path.display());
                (said, body)
            }
        };
        assert!(kind == 9 || again == said, "{}: {again:02x?} instead of {said:02x?}", path.display());
        kinds.insert(kind);
    }
    // Sync, request, data, want, bitfield, range, extension; handshake and manifest.
    assert_eq!(kinds, BTreeSet::from([0, 1, 3, 5, 7, 8, 9, 10, 11]));
}

/// `HOSTILE_ROUNDS` says how many inputs of each target are tried, `HOSTILE_TARGET` of which, `HOSTILE_SEED` with which dice.
#[test]
fn inputs_changed_by_chance_break_no_law() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let only = std::env::var("HOSTILE_TARGET").ok();
    let mut dice = Dice(number("HOSTILE_SEED", 1) | 1 << 63);
    for (name, run) in TARGETS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let seeds: Vec<_> = seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
        for _ in 0..number("HOSTILE_ROUNDS", if cfg!(debug_assertions) { 30 } else { 1_000 }) {
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
