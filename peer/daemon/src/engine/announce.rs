//! What others can find here by its key.

use super::Engine;
use datdot_drive::{drive::blobs_key, node::Header};
use datdot_hypercore::{Feed, FeedError, FeedKey};
use datdot_ledger::AccountView;
use datdot_roles::hoster::Data;
use std::collections::BTreeSet;

/// Bytes of the largest block 0 that is looked at: a drive's has some hundred, a published file's 64 KiB.
const MAX_HEADER: u64 = 4 << 10;

impl Engine {
    /// Announces the feeds that we made, sponsor or host, and no others: what we only read is nobody's business. Nor the
    /// contents of drives: who wants them has the drive's feed first, and the rest comes over the same connection.
    pub(super) fn announce(&mut self) {
        if !self.ctx.topics.is_on() {
            return;
        }
        let view = self.ctx.view.borrow().clone();
        let hosted = match view {
            Some(view) => self.hosted(&view),
            // Nobody knows which contracts there are before the ledger has answered: those of before the start, most likely.
            None => self.hosted_before.iter().copied().filter(|key| self.is_whole(key)).collect(),
        };
        let keys: BTreeSet<FeedKey> =
            self.journal.offered().into_iter().map(|key| key.0).chain(hosted).map(FeedKey).collect();
        let mut here: BTreeSet<FeedKey> = BTreeSet::new();
        for feed in keys.iter().filter_map(|key| self.ctx.store.feed(key)).filter(|feed| feed.info().bytes_here > 0) {
            here.insert(feed.key());
            if !self.contents.contains_key(&feed.key())
                && let Ok(contents) = contents_of(&feed)
            {
                self.contents.insert(feed.key(), contents);
            }
        }
        self.contents.retain(|feed, _| here.contains(feed));
        let contents: BTreeSet<_> = self.contents.values().copied().flatten().collect();
        self.ctx.topics.announce(here.difference(&contents).copied());
    }

    /// Feeds of contracts whose data is here and checked.
    fn hosted(&self, view: &AccountView) -> Vec<[u8; 32]> {
        let held = |id| self.hoster.data().get(&id) == Some(&Data::Held);
        let works = view.hosting.iter().flat_map(|hosting| &hosting.contracts).filter(|work| held(work.id));
        works.flat_map(|work| &work.feeds).map(|feed| feed.key).collect()
    }

    fn is_whole(&self, key: &[u8; 32]) -> bool {
        self.ctx.store.feed(&FeedKey(*key)).is_some_and(|feed| feed.info().is_complete())
    }
}

/// The feed with the contents, if a feed is a drive's. An error if block 0 isn't here.
fn contents_of(feed: &Feed) -> Result<Option<FeedKey>, FeedError> {
    let bytes = feed.byte_range(0..1)?;
    if bytes.end - bytes.start > MAX_HEADER {
        return Ok(None);
    }
    let header = Header::from_block(feed.read(0)?.into()).ok().filter(Header::is_drive);
    Ok(header.and_then(|header| {
        header.content_feed().map(FeedKey).or_else(|| blobs_key(&feed.key(), feed.authors()?.as_ref()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_drive::Drive;
    use datdot_hypercore::{Keypair, Store};

    #[test]
    fn a_drive_s_contents_are_known_and_a_plain_feed_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let drive = Drive::create(&store, &Keypair::from_seed([1; 32])).unwrap();
        assert_eq!(contents_of(drive.metadata()).unwrap(), Some(drive.blobs().unwrap().key()));
        for (seed, first) in [(2, &b"text"[..]), (3, &[0; 64 << 10])] {
            let plain = store.create(&Keypair::from_seed([seed; 32])).unwrap();
            assert!(contents_of(&plain).is_err(), "it may become one");
            plain.write(&[first.to_vec().into()]).unwrap();
            assert_eq!(contents_of(&plain).unwrap(), None);
        }
    }
}
