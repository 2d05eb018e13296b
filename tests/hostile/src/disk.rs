//! A folder of a feed as a crash, a bad disk or a bad neighbour may leave it.
//!
//! - Opening, reading, answering peers and appending never panic.
//! - While the head is the author's, what is read is what the author wrote, or an error.

use crate::{
    input::Input,
    library::{author, blocks},
    scratch,
};
use datdot_hypercore::{
    Keypair, Store,
    messages::{NodeRequest, Request, SeekRequest, UpgradeRequest},
};
use datdot_proof::{flat, tree::blake2b};
use std::{fs, path::Path, sync::LazyLock};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let folder = scratch::folder();
    let kept = FOLDERS[input.below(2)].lay_out(&mut input, folder.path());
    let Ok(store) = Store::open(folder.path()) else { return };
    for feed in store.feeds() {
        let length = feed.info().length;
        for block in 0..length.min(32) {
            if let (Ok(read), Kept::Head) = (feed.read(block), kept) {
                assert_eq!(read, blocks()[block as usize]);
            }
        }
        for _ in 0..4 {
            _ = feed.answer(&request(&mut input));
            _ = feed.seek(input.uint());
            _ = feed.can_upgrade(input.uint());
            _ = feed.byte_range(input.uint()..input.uint());
            _ = feed.steps_to_known(input.uint() % flat::MAX_LENGTH);
        }
        _ = feed.clear_now(input.uint()..input.uint());
        if feed.write(&blocks()[..3]).is_ok() {
            assert_eq!(feed.info().length, length + 3);
            let read = feed.read(length + 1);
            assert!(kept == Kept::Nothing || read.is_ok(), "{read:?}");
        }
        if input.bool() {
            _ = feed.truncate_now(input.uint() % (length + 4));
        }
    }
    // Whatever it was, it can be made anew, or says why not.
    _ = store.create(&author());
    _ = store.open_remote(Keypair::from_seed([3; 32]).feed_key(&author().manifest()), None);
}

/// What is as its author left it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Head,
    Nothing,
}

/// The files of a feed's folder.
struct Files {
    name: String,
    files: Vec<(&'static str, Vec<u8>)>,
}

const NAMES: [&str; 5] = ["head", "tree", "have", "data", "secret"];

static FOLDERS: LazyLock<[Files; 2]> = LazyLock::new(|| {
    [false, true].map(|is_compat| {
        let folder = scratch::folder();
        let store = Store::open(folder.path()).expect("the folder is new");
        let feed = if is_compat { store.create_compat(&author()) } else { store.create(&author()) };
        let feed = feed.expect("there is room");
        feed.write(&blocks()).expect("there is room");
        let path = feed.data_path();
        let path = path.parent().expect("it is in a folder");
        let name = path.file_name().and_then(|name| name.to_str()).expect("it is the name of a feed").to_owned();
        let files = NAMES.map(|name| (name, fs::read(path.join(name)).expect("it was written")));
        Files { name, files: files.into() }
    })
});

impl Files {
    fn lay_out(&self, input: &mut Input<'_>, store: &Path) -> Kept {
        let flags = input.u8();
        let path = store.join("feeds").join(&self.name);
        fs::create_dir_all(&path).expect("the folder is new");
        let mut kept = Kept::Head;
        for (bit, (name, honest)) in self.files.iter().enumerate() {
            let mut bytes = if flags >> bit & 1 != 0 { input.alter(honest) } else { honest.clone() };
            if *name == "head" && bytes != *honest {
                kept = Kept::Nothing;
                if flags & 32 != 0 {
                    // Its checksum is right all the same: what is behind it has to be safe too.
                    bytes.truncate(bytes.len().saturating_sub(32));
                    bytes.extend(blake2b(&[&bytes]));
                }
            }
            let is_missing = flags & 64 != 0 && input.u8().is_multiple_of(4) || *name == "secret" && flags & 128 != 0;
            if !is_missing {
                fs::write(path.join(name), bytes).expect("there is room");
            }
        }
        kept
    }
}

fn request(input: &mut Input<'_>) -> Request {
    let parts = input.u8();
    let node = |input: &mut Input<'_>| NodeRequest { index: input.uint() >> 11, nodes: input.uint() >> 11 };
    Request {
        fork: u64::from(input.u8() % 4 == 3),
        manifest: parts & 1 != 0,
        block: (parts & 2 != 0).then(|| node(input)),
        hash: (parts & 4 != 0).then(|| node(input)),
        seek: (parts & 8 != 0).then(|| SeekRequest { bytes: input.uint() >> 11, padding: input.uint() >> 11 }),
        upgrade: (parts & 16 != 0).then(|| UpgradeRequest { start: input.uint() >> 11, length: input.uint() >> 11 }),
        ..Request::default()
    }
}
