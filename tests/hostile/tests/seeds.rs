//! What was recorded from JavaScript, and what fuzzing has found, goes through every target.

use datdot_hostile::TARGETS;
use std::{fs, path::Path};

fn seeds() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds"))
}

#[test]
fn recorded_and_found_inputs_break_no_law() {
    for (name, run) in TARGETS {
        let folder = seeds().join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("the folder can be read").path();
            // A panic tells where; this tells with what.
            println!("{}", path.display());
            run(&fs::read(&path).expect("the seed can be read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}

#[test]
fn every_folder_of_seeds_is_of_a_target() {
    for entry in fs::read_dir(seeds()).expect("there are seeds") {
        let name = entry.expect("the folder can be read").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} is no target");
    }
}
