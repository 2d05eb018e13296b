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
    feed::DATA_START,
    messages::{NodeRequest, Request, SeekRequest, UpgradeRequest},
};
use datdot_proof::flat;
use std::{fs, os::unix::fs::FileExt, path::Path, sync::LazyLock};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let folder = scratch::folder();
    FOLDERS[input.below(FOLDERS.len())].lay_out(&mut input, folder.path());
    let store = Store::open(folder.path()).expect("only its feed is damaged");
    for feed in store.feeds() {
        let length = feed.info().length;
        for block in 0..length.min(32) {
            if let Ok(read) = feed.read(block) {
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
            assert!(read.is_ok(), "{read:?}");
        }
        if input.bool() {
            _ = feed.truncate_now(input.uint() % (length + 4));
        }
    }
    // Whatever it was, it can be made anew, or says why not.
    _ = store.create(&author());
    _ = store.open_remote(Keypair::from_seed([3; 32]).feed_key(&author().manifest()), None);
}

/// A feed's folder in pieces, each with its file and its place there.
struct Folder {
    name: String,
    format: Vec<u8>,
    pieces: Vec<(&'static str, usize, Vec<u8>)>,
}

static FOLDERS: LazyLock<[Folder; 4]> = LazyLock::new(|| {
    // Open, so that all is in the journal, and closed, so that nothing is.
    [(false, false), (true, false), (false, true), (true, true)].map(|(is_compat, is_closed)| {
        let folder = scratch::folder();
        let store = Store::open(folder.path()).expect("the folder is new");
        let feed = if is_compat { store.create_compat(&author()) } else { store.create(&author()) };
        let feed = feed.expect("there is room");
        feed.write(&blocks()).expect("there is room");
        let data = feed.data_path();
        if is_closed {
            drop((feed, store));
        }
        let dir = data.parent().expect("it is in a folder");
        let name = dir.file_name().and_then(|name| name.to_str()).expect("it is the name of a feed").to_owned();
        let read = |name: &str| fs::read(dir.join(name)).expect("it was written");
        let (whole, start) = (read("data"), DATA_START as usize);
        let half = |at: usize| {
            let bytes = &whole[at..at + start / 2];
            bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)].to_vec()
        };
        let pieces = vec![
            ("data", 0, half(0)),
            ("tree", 0, read("tree")),
            ("have", 0, read("have")),
            ("data", start, whole[start..].to_vec()),
            ("secret", 0, read("secret")),
            ("data", start / 2, half(start / 2)),
        ];
        Folder { name, format: fs::read(folder.path().join("format")).expect("it was written"), pieces }
    })
});

impl Folder {
    fn lay_out(&self, input: &mut Input<'_>, store: &Path) {
        let flags = input.u8();
        let path = store.join("feeds").join(&self.name);
        fs::create_dir_all(&path).expect("the folder is new");
        fs::write(store.join("format"), &self.format).expect("there is room");
        for (bit, (name, at, honest)) in self.pieces.iter().enumerate() {
            let bytes = if flags >> bit & 1 != 0 { input.alter(honest) } else { honest.clone() };
            let is_missing = flags & 64 != 0 && input.u8().is_multiple_of(4) || *name == "secret" && flags & 128 != 0;
            if !is_missing {
                let file = fs::File::options().write(true).create(true).truncate(false).open(path.join(name));
                file.and_then(|file| file.write_all_at(&bytes, *at as u64)).expect("there is room");
            }
        }
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
