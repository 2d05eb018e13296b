//! What is fetched, as long as somebody wants it.

use super::Inner;
use crate::{
    feed::{Feed, Halt},
    plan::Want,
    plans::Stopped,
};
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// Blocks that are being fetched. Dropping it ends the fetching, not the feed.
pub struct Download {
    pub(super) feed: Feed,
    pub(super) want: Want,
    pub(super) stopped: watch::Receiver<Option<Stopped>>,
    /// The reason that was told last.
    pub(super) told: Option<Halt>,
    pub(super) serial: u64,
    pub(super) network: Arc<Inner>,
}

impl Download {
    /// The feed; [`Feed::watch`] tells how far it is.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Whether all wanted blocks of the head that is known now are here.
    pub fn is_done(&self) -> bool {
        let length = self.feed.info().length;
        let wanted = self.want.blocks.start..self.want.blocks.end.min(length);
        length > 0 && self.feed.with_blocks(|have| have.first_missing(wanted)).is_none()
    }

    /// Why nothing more is fetched, if so; changes when it is.
    pub(crate) fn stopped(&mut self) -> &mut watch::Receiver<Option<Stopped>> {
        &mut self.stopped
    }

    /// Why no newer head comes, if this waits for one. Each reason is told once.
    pub(crate) fn halted(&mut self) -> Option<Stopped> {
        let waits = self.want.follow && self.want.blocks.end > self.feed.info().length;
        let halt = self.feed.halt().filter(|halt| waits && self.told != Some(*halt))?;
        self.told = Some(halt);
        Some(halt.into())
    }

    /// Waits until all wanted blocks of the head that is known then are here and on the disk: [`Network::update`](crate::Network::update)
    /// first asks peers for a newer one. It may wait for ever if no peer has them: [`Feed::watch`] shows whether anything comes.
    pub async fn done(&mut self) -> Result<(), Stopped> {
        self.here().await?;
        self.feed.flush().await.map_err(|error| Stopped::Feed(Arc::new(error)))
    }

    /// The same, but does not wait for the disk: for many downloads of a feed, whose blocks one [`Feed::flush`] brings there.
    pub async fn here(&mut self) -> Result<(), Stopped> {
        let mut progress = self.feed.watch();
        loop {
            progress.borrow_and_update();
            if self.feed.is_removed() {
                return Err(Stopped::Replaced);
            }
            if self.is_done() {
                return Ok(());
            }
            if let Some(why) = self.halted() {
                return Err(why);
            }
            if let Some(why) = self.stopped.borrow_and_update().clone() {
                return Err(why);
            }
            tokio::select! {
                _ = self.stopped.changed() => {}
                _ = progress.changed() => {}
            }
        }
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("feed", &self.feed).field("want", &self.want).finish_non_exhaustive()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Connections take back what they asked for; otherwise there is nothing that they need to know.
        if self.network.plans.unwant(&self.feed.key(), self.serial) {
            self.network.wake(&self.feed);
        }
    }
}
