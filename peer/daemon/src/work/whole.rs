//! Feeds as the ledger gets them: a head, and the root of all bytes that it signs. Every one of them has to be here: what is missing is
//! zeros on the disk, and a root over those no hoster would find.

use super::{Work, blocking};
use crate::segments::{self, GoesOn};
use datdot_drive::{DriveError, Version};
use datdot_hypercore::{Feed, FeedKey};
use datdot_market::terms;
use datdot_proof::{Hash, head::SignedHead};
use std::io;

/// A feed of which every block is here that its newest head signs.
pub(super) struct Whole {
    feed: Feed,
    head: SignedHead,
}

/// Why a feed or drive can't be hosted as it is here.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWhole {
    #[error("feed {0} has several signers, which can't be hosted yet, or no head")]
    NoHead(FeedKey),
    /// Its head is another one than that of which all came.
    #[error("{missing} of the {of} blocks of feed {key} are not here, or are damaged")]
    Missing { key: FeedKey, missing: u64, of: u64 },
    /// Another history replaced the one that was looked at.
    #[error("feed {0} has another history than a moment ago: give the same command again")]
    Forked(FeedKey),
    /// Metadata and contents that are not of one version would be hosted together.
    #[error("drive {0} has another version than a moment ago: give the same command again")]
    Moved(FeedKey),
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Unread(#[from] io::Error),
}

impl NotWhole {
    /// Whether it can be whole once more has come.
    pub fn is_passing(&self) -> bool {
        matches!(self, NotWhole::Missing { .. } | NotWhole::Forked(_) | NotWhole::Moved(_))
    }
}

impl From<NotWhole> for String {
    fn from(why: NotWhole) -> String {
        why.to_string()
    }
}

impl Whole {
    /// The feed at its newest head.
    pub fn of(feed: &Feed) -> Result<Whole, NotWhole> {
        let head = feed.signed_head().ok_or(NotWhole::NoHead(feed.key()))?;
        let whole = Whole { feed: feed.clone(), head };
        whole.check().map(|()| whole)
    }

    /// The feeds of a drive at this version, if it is the newest. Contents that are not wanted, or have no byte, are left out.
    pub fn of_drive(version: &Version, contents: bool) -> Result<Vec<Whole>, NotWhole> {
        let drive = version.drive();
        let metadata = Whole::of(drive.metadata())?;
        if metadata.head.length != version.version() {
            return Err(NotWhole::Moved(drive.key()));
        }
        let mut feeds = vec![metadata];
        let blobs = drive.blobs()?;
        if contents && blobs.info().bytes > 0 {
            feeds.push(Whole::of(blobs)?);
        }
        Ok(feeds)
    }

    /// As the ledger wants it, if its root is known.
    pub fn with_root(self, root: Hash) -> terms::Feed {
        terms::Feed { key: self.feed.key().0, head: self.head, root }
    }

    fn hashed(self, goes_on: &GoesOn) -> Result<terms::Feed, NotWhole> {
        let bytes = self.head.bytes().map_err(io::Error::other)?;
        let root = segments::root_of(&self.feed, bytes, goes_on)?;
        // What was appended meanwhile doesn't count; what was lost or replaced does.
        self.check()?;
        Ok(self.with_root(root))
    }

    fn check(&self) -> Result<(), NotWhole> {
        let (key, of) = (self.feed.key(), self.head.length);
        if self.feed.info().fork != self.head.fork {
            return Err(NotWhole::Forked(key));
        }
        match self.feed.missing_in(0..of) {
            0 => Ok(()),
            missing => Err(NotWhole::Missing { key, missing, of }),
        }
    }
}

impl Work {
    /// Feeds as the ledger wants them, if they are whole.
    pub(super) async fn hashed(&self, feeds: Result<Vec<Whole>, NotWhole>) -> Result<Vec<terms::Feed>, NotWhole> {
        let (feeds, ctx) = (feeds?, self.ctx.clone());
        let hash = move |feed: Whole| feed.hashed(&|| ctx.goes_on());
        let hashed = blocking(move || feeds.into_iter().map(hash).collect::<Result<_, _>>());
        hashed.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datdot_drive::Drive;
    use datdot_hypercore::{Keypair, Store};

    fn goes_on() -> io::Result<()> {
        Ok(())
    }

    #[tokio::test]
    async fn no_root_is_claimed_over_what_is_not_here() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Store::open(dir.path()).unwrap().create(&Keypair::from_seed([1; 32])).unwrap();
        assert!(matches!(Whole::of(&feed), Err(NotWhole::NoHead(_))));
        feed.append((0..9u8).map(|at| vec![at; 9000].into()).collect()).await.unwrap();
        let whole = Whole::of(&feed).unwrap().hashed(&goes_on).unwrap();
        assert_eq!((whole.head.length, whole.head.bytes().unwrap()), (9, 81_000));

        let begun = Whole::of(&feed).unwrap();
        feed.append(vec!["more".into()]).await.unwrap();
        assert_eq!(begun.hashed(&goes_on).unwrap(), whole, "what came behind it makes no difference");

        let begun = Whole::of(&feed).unwrap();
        feed.clear(3..5).await.unwrap();
        let missing = |why: NotWhole| why.is_passing() && why.to_string().starts_with("2 of the 10 blocks of feed");
        assert!(missing(begun.hashed(&goes_on).unwrap_err()), "it was lost while it was hashed");
        assert!(missing(Whole::of(&feed).err().unwrap()));
    }

    #[tokio::test]
    async fn a_fork_that_comes_while_it_is_hashed_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Store::open(dir.path()).unwrap().create(&Keypair::from_seed([1; 32])).unwrap();
        feed.append(vec!["one".into(), "two".into()]).await.unwrap();
        let begun = Whole::of(&feed).unwrap();
        feed.truncate(1).await.unwrap();
        feed.append(vec!["TWO".into()]).await.unwrap();
        assert!(matches!(begun.hashed(&goes_on), Err(NotWhole::Forked(_))));
    }

    #[tokio::test]
    async fn metadata_is_hosted_with_the_contents_that_it_names_or_with_none() {
        let dir = tempfile::tempdir().unwrap();
        let drive = Drive::create(&Store::open(dir.path()).unwrap(), &Keypair::from_seed([1; 32])).unwrap();
        let (path, blobs) = ("/file".parse().unwrap(), drive.blobs().unwrap());
        drive.put(&path, &mut &[7; 200_000][..], false).unwrap();
        let old = drive.latest();
        assert_eq!(Whole::of_drive(&old, true).unwrap().len(), 2);
        drive.delete(&path).unwrap();
        assert!(matches!(Whole::of_drive(&old, true), Err(NotWhole::Moved(_))));

        blobs.clear(0..1).await.unwrap();
        let newest = drive.latest();
        assert!(matches!(Whole::of_drive(&newest, true), Err(NotWhole::Missing { .. })));
        let [metadata] = &Whole::of_drive(&newest, false).unwrap()[..] else { panic!("its contents are not wanted") };
        assert_eq!(metadata.head.length, newest.version());
    }
}
