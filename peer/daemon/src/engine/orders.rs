//! What the API asks of the engine.

use super::{Engine, Reply};
use crate::{
    journal::{Drive, Ordered, Published, millis_now},
    limits,
};
use datdot_api::{GetOrder, HostOrder, Key, Limits, LimitsOrder, PublishOrder, Size, Status, status::OfferStatus};
use datdot_hypercore::FeedKey;
use datdot_ledger::AccountId;
use datdot_market::{
    Block, RequestId,
    terms::{Feeds, Offer, Sources, Terms},
};
use datdot_roles::{hoster, sponsor};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};
use tokio::sync::oneshot;

/// An order, with where its answer goes.
pub(crate) enum Order {
    Status(oneshot::Sender<Status>),
    Host(HostOrder, Reply<OfferStatus>),
    StopHosting(Reply<Block>),
    /// Change limits, also for the next start.
    Limit(LimitsOrder, Reply<Limits>),
    /// Files that were published.
    Published(oneshot::Sender<BTreeMap<Key, Published>>),
    /// Note an order to publish: a start begins it again until it has ended or is an intent.
    Begin(PublishOrder, Reply<()>),
    /// Forget it.
    End(PublishOrder, Reply<()>),
    /// Note feeds that are about to be made: should that be cut off, a start removes them.
    Make(Vec<Key>, Reply<()>),
    /// Note a file that is in its feed whole.
    Publish(Key, Published, Reply<()>),
    /// The requests that have to end before what was published by this name can be taken back.
    RequestsFor(Key, Reply<Vec<RequestId>>),
    /// Take back what was published; answered with the bytes that were deleted.
    Unpublish {
        key: Key,
        delete: bool,
        reply: Reply<u64>,
    },
    /// The drive of a folder, if it was published.
    DriveOf(PathBuf, oneshot::Sender<Option<(Key, Drive)>>),
    /// Note a drive that is made or sponsored here, or what has become of it. One that is made here is kept.
    NoteDrive(Key, Drive, Reply<()>),
    /// Forget a drive whose feeds are not kept any longer.
    ForgetDrive(Key, Reply<()>),
    /// Note that an order to read needs a feed: a start begins it again until it has ended, and the feed is kept.
    Reads(GetOrder, Key, Reply<()>),
    /// Forget it; if all was read, also what was kept of it for that.
    HasRead {
        order: GetOrder,
        whole: bool,
        reply: Reply<()>,
    },
    /// Keep what came of a feed for a while, though nobody needs it now: its work was interrupted, and may be ordered again. Answered
    /// with all that is kept for that.
    Keep(Key, Reply<BTreeSet<Key>>),
    /// Open a request; answered when it is on the ledger.
    Want(Box<Want>, Reply<Opened>),
    /// Keep a feed, or don't any longer: as often as it was asked for.
    Pin(Key, bool, oneshot::Sender<()>),
}

/// A request that is wanted.
pub(crate) struct Want {
    /// The order that it is for, if a start would begin that again.
    pub order: Option<PublishOrder>,
    pub feeds: Feeds,
    pub terms: Terms,
    pub sources: Sources,
    /// Nobody named a highest price: an equal wish at another one is the same.
    pub any_price: bool,
}

/// A request on the ledger.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub request: RequestId,
    /// Whether it was there before.
    pub already: bool,
}

impl Engine {
    pub(super) async fn order(&mut self, order: Order) {
        match order {
            Order::Status(reply) => {
                let status = self.shown.status(&self.ctx, &self.hoster, &self.sponsor, &self.journal);
                _ = reply.send(status);
            }
            Order::Host(order, reply) => match self.offer(&order) {
                Err(why) => _ = reply.send(Err(why)),
                Ok(offer) => {
                    let noted = self.journal.set_offer(Ordered::Offer(order));
                    self.written(noted);
                    self.replaced();
                    self.hosting.push(reply);
                    self.tell_hoster(hoster::Input::Want(hoster::Wanted::Offer(offer))).await;
                    self.answer_now();
                }
            },
            Order::StopHosting(reply) => {
                if !self.offers() {
                    _ = reply.send(Err("there is no offer that could be withdrawn".into()));
                    return;
                }
                let noted = self.journal.set_offer(Ordered::Stop);
                self.written(noted);
                self.replaced();
                self.stopping.push(reply);
                self.tell_hoster(hoster::Input::Want(hoster::Wanted::Stop)).await;
                self.answer_now();
            }
            Order::Limit(order, reply) => _ = reply.send(self.limit(&order)),
            Order::Published(reply) => _ = reply.send(self.journal.published().clone()),
            Order::Begin(order, reply) => {
                let noted = self.journal.begin(order);
                _ = reply.send(self.noted(noted));
            }
            Order::End(order, reply) => {
                let noted = self.journal.ended(&order);
                _ = reply.send(self.noted(noted));
            }
            Order::Make(keys, reply) => {
                let noted = self.journal.make(&keys);
                _ = reply.send(self.noted(noted));
            }
            Order::Publish(key, file, reply) => {
                let noted = self.journal.publish(key, file);
                let noted = self.noted(noted);
                if noted.is_ok() {
                    self.ctx.store.show(&FeedKey(key.0));
                    self.tell_hoster(hoster::Input::Own(key.0)).await;
                    self.announce();
                }
                _ = reply.send(noted);
            }
            Order::RequestsFor(key, reply) => _ = reply.send(self.requests_for(&key)),
            Order::Unpublish { key, delete, reply } => _ = reply.send(self.unpublish(key, delete).await),
            Order::DriveOf(folder, reply) => {
                _ = reply.send(self.journal.drive_of(&folder).map(|(key, drive)| (key, drive.clone())));
            }
            Order::NoteDrive(key, drive, reply) => {
                let feeds = [key, drive.blobs];
                let own = drive.folder.is_some().then_some(feeds);
                let noted = self.journal.set_drive(key, drive);
                let noted = self.noted(noted);
                if noted.is_ok() {
                    feeds.iter().for_each(|key| self.ctx.store.show(&FeedKey(key.0)));
                    for key in own.into_iter().flatten() {
                        self.tell_hoster(hoster::Input::Own(key.0)).await;
                    }
                }
                _ = reply.send(noted);
            }
            Order::ForgetDrive(key, reply) => {
                let blobs = self.journal.drives().get(&key).map(|drive| drive.blobs);
                let noted = self.journal.forget_drive(&key);
                let noted = self.noted(noted);
                for key in [Some(key), blobs].into_iter().flatten() {
                    self.release(key).await;
                }
                _ = reply.send(noted);
            }
            Order::Reads(order, key, reply) => {
                let noted = self.journal.reads(&order, key, millis_now());
                let noted = self.noted(noted);
                if noted.is_ok() {
                    self.tell_hoster(hoster::Input::Own(key.0)).await;
                }
                _ = reply.send(noted);
            }
            Order::HasRead { order, whole, reply } => {
                let kept = self.journal.has_read(&order, whole);
                let kept = self.noted(kept);
                for key in kept.iter().flatten() {
                    self.release(*key).await;
                }
                _ = reply.send(kept.map(drop));
            }
            Order::Keep(key, reply) => {
                let kept = self.journal.keep(key, millis_now());
                let kept = self.noted(kept);
                for key in kept.iter().flatten() {
                    self.tell_hoster(hoster::Input::Own(key.0)).await;
                }
                _ = reply.send(kept);
            }
            Order::Want(want, reply) => self.want(*want, reply).await,
            Order::Pin(key, true, reply) => {
                *self.pins.entry(key).or_default() += 1;
                self.tell_hoster(hoster::Input::Own(key.0)).await;
                _ = reply.send(());
            }
            Order::Pin(key, false, reply) => {
                if unpin(&mut self.pins, key) {
                    self.release(key).await;
                }
                _ = reply.send(());
            }
        }
    }

    /// Lets go of what was kept for orders that were not given again in time.
    pub(super) async fn keep_no_longer(&mut self) {
        let old = self.journal.outdated(millis_now());
        for key in self.noted(old).unwrap_or_default() {
            self.release(key).await;
        }
    }

    fn limit(&mut self, order: &LimitsOrder) -> Result<Limits, String> {
        order.check().map_err(|error| error.to_string())?;
        // Only what is ordered is kept: what was named at the start counts for that start.
        let noted = self.journal.set_limits(self.journal.limits().changed(order));
        self.noted(noted)?;
        let now = self.ctx.network.limits();
        limits::set(now, limits::of(now).changed(order));
        Ok(limits::of(now))
    }

    pub(super) fn noted<T>(&self, noted: std::io::Result<T>) -> Result<T, String> {
        noted.map_err(|error| format!("the journal in {} can't be written: {error}", self.ctx.dir.display()))
    }

    /// Whether there is an offer, on the ledger or on its way.
    fn offers(&self) -> bool {
        let view = self.ctx.view.borrow();
        // Before the first view nobody knows.
        matches!(self.hoster.wanted(), hoster::Wanted::Offer(_)) || view.as_ref().is_none_or(|at| at.hosting.is_some())
    }

    /// Answers those whose order of the offer is not the last one any more.
    fn replaced(&mut self) {
        let why = || "another order came, so that this one is not waited for".to_owned();
        self.hosting.drain(..).for_each(|reply| _ = reply.send(Err(why())));
        self.stopping.drain(..).for_each(|reply| _ = reply.send(Err(why())));
    }

    fn answer_now(&mut self) {
        self.answer_without_ledger();
        let view = self.ctx.view.borrow().clone();
        if let Some(view) = view {
            self.answer_hosts(&view);
        }
    }

    async fn want(&mut self, want: Want, reply: Reply<Opened>) {
        let Want { order, feeds, terms, sources, any_price } = want;
        if let Some((id, request)) = self.sponsor.same(&feeds, &terms, any_price) {
            let noted = order.map_or(Ok(()), |order| self.journal.ended(&order));
            self.written(noted);
            match request {
                Some(request) => _ = reply.send(Ok(Opened { request, already: true })),
                None => self.opening.entry(id).or_default().push(reply),
            }
            return;
        }
        let keys: Vec<_> = feeds.iter().map(|feed| feed.key).collect();
        let noted = self.journal.want(order.as_ref(), feeds, terms, sources, self.now());
        match self.noted(noted) {
            Err(why) => _ = reply.send(Err(why)),
            Ok((id, intent)) => {
                self.opening.entry(id).or_default().push(reply);
                for key in keys {
                    self.ctx.store.show(&FeedKey(key));
                    self.tell_hoster(hoster::Input::Own(key)).await;
                }
                self.announce();
                let actions = self.sponsor.handle::<AccountId>(self.now(), sponsor::Input::Want(id, intent));
                self.sponsor_acts(actions).await;
                let view = self.ctx.view.borrow().clone();
                if let Some(view) = view {
                    let actions = self.sponsor.handle(view.at, sponsor::Input::View((*view).clone()));
                    self.sponsor_acts(actions).await;
                }
            }
        }
    }

    /// The offer that an order means, or what is wrong with it.
    pub(super) fn offer(&self, order: &HostOrder) -> Result<Offer, String> {
        self.ctx.can_be_reached()?;
        let params = self.ctx.ledger.params();
        let held: u64 = self.ctx.store.feeds().iter().map(|feed| feed.info().bytes_here).sum();
        let room = self.ctx.room()?.saturating_add(held);
        if order.space > room {
            return Err(format!(
                "{} are offered, but the disk of {} has room for {} ({} are left free)",
                Size(order.space),
                self.ctx.dir.display(),
                Size(room),
                Size(self.ctx.spare_bytes)
            ));
        }
        let region = match order.region.as_deref().map(str::as_bytes) {
            None => None,
            Some([a, b]) if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Some([*a, *b]),
            Some(_) => return Err("a region is two upper-case letters, as in DE or NZ".into()),
        };
        let offer = Offer {
            space: order.space,
            price: order.price.0,
            max_term: order.max_term.unwrap_or(self.ctx.max_term_days.saturating_mul(params.day())),
            region,
            noise_key: self.ctx.noise_key,
            addresses: self.ctx.addresses_on_ledger().try_into().map_err(|_| "four addresses at most".to_owned())?,
        };
        offer.check(&params).map_err(|error| error.to_string())?;
        Ok(offer)
    }
}

/// Takes one pin of a feed out; says whether it was the last.
fn unpin(pins: &mut BTreeMap<Key, usize>, key: Key) -> bool {
    let left = pins.get_mut(&key).map_or(0, |count| {
        *count -= 1;
        *count
    });
    if left == 0 {
        pins.remove(&key);
    }
    left == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_two_need_is_needed_until_both_are_done() {
        let key = Key([1; 32]);
        let mut pins = BTreeMap::from([(key, 2)]);
        assert!(!unpin(&mut pins, key));
        assert!(unpin(&mut pins, key));
        assert!(pins.is_empty());
    }
}
