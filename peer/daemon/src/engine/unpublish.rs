//! Taking back what was published: what has to end before, and what becomes of the feeds.

use super::Engine;
use datdot_api::{Event, Key};
use datdot_hypercore::FeedKey;
use datdot_market::RequestId;
use std::collections::BTreeSet;

impl Engine {
    /// The requests that have it hosted and have to end first, if what was published by this name can be taken back now.
    pub(super) fn requests_for(&self, key: &Key) -> Result<Vec<RequestId>, String> {
        let feeds = self.journal.feeds_of(key).ok_or_else(|| {
            format!(
                "{key} was not published here: `datdot status` shows what was; a request for what somebody else made ends \
                 with `datdot cancel`"
            )
        })?;
        let is_of = |feed: &[u8; 32]| feeds.contains(&Key(*feed));
        if self.is_busy(key, &feeds) {
            return Err(format!("{key} is being published or read just now: try again when that is done"));
        }
        let view = self.ctx.view.borrow().clone();
        let works = view.iter().flat_map(|view| &view.hosting).flat_map(|hosting| &hosting.contracts);
        if let Some(work) = works.clone().find(|work| work.feeds.iter().any(|feed| is_of(&feed.key))) {
            return Err(format!("this peer hosts {key} itself, and owes that until contract {} is over", work.id));
        }
        let wants = self.sponsor.intents().values().filter(|intent| intent.feeds.iter().any(|feed| is_of(&feed.key)));
        let wanted: Option<BTreeSet<RequestId>> = wants.map(|intent| Some(intent.request?.0)).collect();
        let wanted = wanted.ok_or_else(|| {
            format!("a request for {key} is on its way to the ledger: try again when `datdot status` shows its number")
        })?;
        let Some(view) = view else { return Ok(wanted.into_iter().collect()) };
        let open = view.requests.iter().filter(|view| view.request.closing.is_none());
        Ok(open.filter(|view| view.keys.iter().any(is_of)).map(|view| view.id).collect())
    }

    /// Takes it back: nobody gets to see it any longer. Its requests have ended.
    pub(super) async fn unpublish(&mut self, key: Key, delete: bool) -> Result<u64, String> {
        let feeds = self.journal.feeds_of(&key).ok_or_else(|| format!("{key} is not published here any more"))?;
        if self.is_busy(&key, &feeds) {
            return Err(format!("{key} is being published or read again"));
        }
        let noted = if delete { self.journal.forget(&key) } else { self.journal.unpublish(&key) };
        self.noted(noted)?;
        let mut deleted = 0;
        for key in feeds {
            let feed = FeedKey(key.0);
            self.ctx.store.hide(&feed);
            if delete {
                deleted += self.ctx.store.feed(&feed).map_or(0, |feed| feed.info().bytes_here);
                self.drop_feed(feed).await;
                self.release(key).await;
                // Should it come again from somebody else, it is like any other.
                self.ctx.store.show(&feed);
            }
        }
        self.announce();
        tracing::info!(target: "daemon", feed = %key, deleted, "unpublished");
        self.ctx.story.tell(Event::Unpublished { key });
        Ok(deleted)
    }

    fn is_busy(&self, key: &Key, feeds: &[Key]) -> bool {
        let path = self.journal.made_of(key);
        let publishing = self.journal.begun().iter().any(|order| Some(order.path.as_path()) == path);
        publishing || feeds.iter().any(|feed| self.pins.contains_key(feed) || self.journal.is_read(feed))
    }
}
