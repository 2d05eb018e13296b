//! What a daemon has to remember that neither the ledger nor its store knows: one small file, replaced at once.

use crate::files;
use codec::{Decode, DecodeAll, Encode};
use datdot_api::{HostOrder, Key, Wanted};
use datdot_market::{
    Block, RequestId,
    terms::{Feeds, Sources, Terms},
};
use datdot_roles::sponsor::{Intent, IntentId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// Blocks after which a transaction that was sent before a crash can't come into a block any more: what the ledger's
/// client gives an ordinary call, and some more.
const TOO_OLD_AFTER: Block = 40;

/// The journal of a daemon.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    notes: Notes,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    /// What the owner last ordered of the offer.
    #[serde(default)]
    offer: Ordered,
    /// Files that were published, by the key of their feed.
    #[serde(default)]
    published: BTreeMap<Key, Published>,
    /// Feeds that are served because we sponsor them.
    #[serde(default)]
    sponsored: BTreeSet<Key>,
    /// Requests that are wanted or open.
    #[serde(default)]
    intents: BTreeMap<IntentId, Noted>,
    /// Names the next of them.
    #[serde(default)]
    next: IntentId,
}

/// What the owner ordered of the offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordered {
    /// Nothing.
    #[default]
    Nothing,
    /// An offer.
    Offer(HostOrder),
    /// No offer.
    Stop,
}

/// A file that became a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub modified: u64,
    /// BLAKE3 hash of its bytes; `None` until all of it is in the feed.
    pub root: Option<Key>,
    /// How it is to be hosted, until that is noted as an intent.
    #[serde(default)]
    pub wish: Option<Wanted>,
}

/// An intent as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    /// Feeds, terms and sources in SCALE, as the ledger would get them; hex.
    what: String,
    since: Block,
    /// The best block when it was last submitted.
    sent: Option<Block>,
    request: Option<(RequestId, Block)>,
}

impl Journal {
    /// Reads the journal at `path`; an empty one if it isn't there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let notes = match files::read(path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from)?,
            None => Notes::default(),
        };
        Ok(Self { path: path.to_owned(), notes })
    }

    /// What was ordered of the offer.
    pub fn offer(&self) -> &Ordered {
        &self.notes.offer
    }

    /// Notes another order.
    pub fn set_offer(&mut self, ordered: Ordered) -> io::Result<()> {
        self.notes.offer = ordered;
        self.write()
    }

    /// Files that were published, by the key of their feed.
    pub fn published(&self) -> &BTreeMap<Key, Published> {
        &self.notes.published
    }

    /// Notes a published file.
    pub fn publish(&mut self, key: Key, file: Published) -> io::Result<()> {
        self.notes.published.insert(key, file);
        self.write()
    }

    /// Forgets files that never got into their feed whole, and says which feeds these are.
    pub fn drop_unfinished(&mut self) -> io::Result<Vec<Key>> {
        let unfinished: Vec<_> =
            self.notes.published.iter().filter(|(_, file)| file.root.is_none()).map(|(key, _)| *key).collect();
        if !unfinished.is_empty() {
            self.notes.published.retain(|_, file| file.root.is_some());
            self.write()?;
        }
        Ok(unfinished)
    }

    /// Feeds of others that are served because we sponsor them.
    pub fn sponsored(&self) -> &BTreeSet<Key> {
        &self.notes.sponsored
    }

    /// Feeds that are needed here whatever contracts say.
    pub fn own(&self) -> BTreeSet<Key> {
        self.notes.published.keys().chain(&self.notes.sponsored).copied().collect()
    }

    /// Notes a request that is wanted. Returns its name and what to tell the sponsor.
    pub fn want(
        &mut self,
        feeds: Feeds,
        terms: Terms,
        sources: Sources,
        since: Block,
    ) -> io::Result<(IntentId, Intent)> {
        let id = self.notes.next;
        self.notes.next += 1;
        let others = feeds.iter().map(|feed| Key(feed.key)).filter(|key| !self.notes.published.contains_key(key));
        self.notes.sponsored.extend(others);
        for feed in &feeds {
            self.notes.published.get_mut(&Key(feed.key)).into_iter().for_each(|file| file.wish = None);
        }
        let what = hex::encode((&feeds, &terms, &sources).encode());
        self.notes.intents.insert(id, Noted { what, since, sent: None, request: None });
        self.write()?;
        Ok((id, Intent { feeds, terms, sources, since, until: None, request: None }))
    }

    /// Notes that a request is submitted now.
    pub fn sent(&mut self, id: IntentId, best: Block) -> io::Result<()> {
        if let Some(noted) = self.notes.intents.get_mut(&id) {
            noted.sent = Some(best);
        }
        self.write()
    }

    /// Notes which request it has become.
    pub fn opened(&mut self, id: IntentId, request: RequestId, seen: Block) -> io::Result<()> {
        if let Some(noted) = self.notes.intents.get_mut(&id) {
            noted.request = Some((request, seen));
        }
        self.write()
    }

    /// Forgets a request that is over or was refused, and says which feeds of others need not be served any more.
    pub fn over(&mut self, id: IntentId) -> io::Result<Vec<Key>> {
        self.notes.intents.remove(&id);
        let wanted: BTreeSet<Key> =
            self.intents().iter().flat_map(|(_, intent)| &intent.feeds).map(|feed| Key(feed.key)).collect();
        let (kept, gone) = std::mem::take(&mut self.notes.sponsored).into_iter().partition(|key| wanted.contains(key));
        self.notes.sponsored = kept;
        self.write()?;
        Ok(BTreeSet::into_iter(gone).collect())
    }

    /// What to tell the sponsor after a start.
    pub fn intents(&self) -> Vec<(IntentId, Intent)> {
        let intent = |(id, noted): (&IntentId, &Noted)| Some((*id, noted.intent()?));
        self.notes.intents.iter().filter_map(intent).collect()
    }

    fn write(&self) -> io::Result<()> {
        files::replace(&self.path, &serde_json::to_vec_pretty(&self.notes)?)
    }
}

impl Noted {
    fn intent(&self) -> Option<Intent> {
        let what = hex::decode(&self.what).ok()?;
        let (feeds, terms, sources) = What::decode_all(&mut &what[..]).ok()?.0;
        let until = self.sent.map(|sent| sent.saturating_add(TOO_OLD_AFTER));
        Some(Intent { feeds, terms, sources, since: self.since, until, request: self.request })
    }
}

#[derive(Decode)]
struct What((Feeds, Terms, Sources));

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_market::terms::Feed;
    use datdot_proof::head::{Manifest, Root, SignedHead};

    fn feeds(name: u8) -> Feeds {
        let root = Root { hash: [name; 32], size: 5 };
        let head = SignedHead { fork: 0, length: 1, roots: vec![root], manifest: Manifest::Compat, signature: [0; 64] };
        vec![Feed { key: [name; 32], head, root: [name; 32] }].try_into().unwrap()
    }

    const TERMS: Terms = Terms { replicas: 3, term: 100, max_price: 7 };

    #[test]
    fn a_restart_remembers_what_was_wanted_and_what_may_have_been_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        let (first, intent) = journal.want(feeds(1), TERMS, Sources::new(), 10).unwrap();
        let (second, _) = journal.want(feeds(2), TERMS, Sources::new(), 11).unwrap();
        journal.sent(first, 12).unwrap();
        journal.opened(second, 5, 14).unwrap();

        let restarted = Journal::open(&path).unwrap();
        let found: BTreeMap<_, _> = restarted.intents().into_iter().collect();
        assert_eq!(found[&first], Intent { until: Some(12 + TOO_OLD_AFTER), ..intent });
        assert_eq!(found[&second].request, Some((5, 14)));
        assert_eq!(restarted.own(), [Key([1; 32]), Key([2; 32])].into());
    }

    #[test]
    fn what_was_published_stays_and_what_was_sponsored_goes_with_its_last_request() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("journal.json")).unwrap();
        let wish = Some(Wanted { replicas: 1, term: 100, max_price: None });
        let file = Published { path: "/a".into(), bytes: 5, modified: 0, root: Some(Key([1; 32])), wish };
        journal.publish(Key([1; 32]), file).unwrap();
        let (ours, _) = journal.want(feeds(1), TERMS, Sources::new(), 1).unwrap();
        let (theirs, _) = journal.want(feeds(2), TERMS, Sources::new(), 1).unwrap();
        let (again, _) = journal.want(feeds(2), TERMS, Sources::new(), 1).unwrap();
        assert_eq!(journal.published()[&Key([1; 32])].wish, None, "the wish is an intent now");
        assert_eq!(journal.over(ours).unwrap(), []);
        assert_eq!(journal.over(theirs).unwrap(), []);
        assert_eq!(journal.over(again).unwrap(), [Key([2; 32])]);
        assert_eq!(journal.own(), [Key([1; 32])].into());
    }

    #[test]
    fn a_damaged_journal_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.json");
        std::fs::write(&path, "{").unwrap();
        assert!(Journal::open(&path).is_err());
    }
}
