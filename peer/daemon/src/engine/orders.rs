//! What the API asks of the engine.

use super::{Engine, Reply};
use crate::{
    files,
    journal::{Ordered, Published},
};
use datdot_api::{HostOrder, Key, Status, Wanted, status::OfferStatus};
use datdot_ledger::AccountId;
use datdot_market::{
    Block, RequestId,
    terms::{Feeds, Offer, Sources, Terms},
};
use datdot_roles::{hoster, sponsor};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// An order, with where its answer goes.
pub(crate) enum Order {
    Status(oneshot::Sender<Status>),
    Host(HostOrder, Reply<OfferStatus>),
    StopHosting(Reply<Block>),
    /// Files that were published.
    Published(oneshot::Sender<BTreeMap<Key, Published>>),
    /// Note a published file, with its root once it is complete.
    Publish(Key, Published, Reply<()>),
    /// Files that were to be hosted when the daemon was stopped, and have no request yet.
    Wishes(oneshot::Sender<Vec<(Key, Wanted)>>),
    /// Open a request; answered when it is on the ledger.
    Want(Feeds, Terms, Sources, Reply<RequestId>),
    /// Keep a feed, or don't any longer.
    Pin(Key, bool, oneshot::Sender<()>),
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
                    self.hosting.push(reply);
                    self.tell_hoster(hoster::Input::Want(hoster::Wanted::Offer(offer))).await;
                    self.answer_now();
                }
            },
            Order::StopHosting(reply) => {
                let noted = self.journal.set_offer(Ordered::Stop);
                self.written(noted);
                self.stopping.push(reply);
                self.tell_hoster(hoster::Input::Want(hoster::Wanted::Stop)).await;
                self.answer_now();
            }
            Order::Published(reply) => _ = reply.send(self.journal.published().clone()),
            Order::Wishes(reply) => {
                let wish = |(key, file): (&Key, &Published)| Some((*key, file.wish?));
                _ = reply.send(self.journal.published().iter().filter_map(wish).collect());
            }
            Order::Publish(key, file, reply) => {
                let noted = self
                    .journal
                    .publish(key, file)
                    .map_err(|error| format!("the journal in {} can't be written: {error}", self.ctx.dir.display()));
                if noted.is_ok() {
                    self.tell_hoster(hoster::Input::Own(key.0)).await;
                }
                _ = reply.send(noted);
            }
            Order::Want(feeds, terms, sources, reply) => self.want(feeds, terms, sources, reply).await,
            Order::Pin(key, true, reply) => {
                self.tell_hoster(hoster::Input::Own(key.0)).await;
                _ = reply.send(());
            }
            Order::Pin(key, false, reply) => {
                if !self.journal.own().contains(&key) {
                    self.tell_hoster(hoster::Input::Disown(key.0)).await;
                }
                _ = reply.send(());
            }
        }
    }

    fn answer_now(&mut self) {
        let view = self.ctx.view.borrow().clone();
        if let Some(view) = view {
            self.answer_hosts(&view);
        }
    }

    async fn want(&mut self, feeds: Feeds, terms: Terms, sources: Sources, reply: Reply<RequestId>) {
        // The same wish again, after an interruption for instance, is the same request.
        let same = |intent: &sponsor::Intent| intent.feeds == feeds && intent.terms == terms;
        if let Some((id, intent)) = self.sponsor.intents().iter().find(|(_, intent)| same(intent)) {
            match intent.request {
                Some((request, _)) => _ = reply.send(Ok(request)),
                None => self.opening.entry(*id).or_default().push(reply),
            }
            return;
        }
        let keys: Vec<_> = feeds.iter().map(|feed| feed.key).collect();
        match self.journal.want(feeds, terms, sources, self.now()) {
            Err(error) => {
                _ = reply.send(Err(format!("the journal in {} can't be written: {error}", self.ctx.dir.display())));
            }
            Ok((id, intent)) => {
                self.opening.entry(id).or_default().push(reply);
                for key in keys {
                    self.tell_hoster(hoster::Input::Own(key)).await;
                }
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
        if self.ctx.addresses.is_empty() {
            return Err(format!(
                "nobody could connect to this peer: it listens at {}; start it with --address HOST:PORT, the address \
                 at which others reach it",
                self.ctx.listen
            ));
        }
        let params = self.ctx.ledger.params();
        let held: u64 = self.ctx.store.feeds().iter().map(|feed| feed.info().bytes_here).sum();
        let free = files::free_bytes(&self.ctx.dir).map_err(|error| format!("the disk can't be read: {error}"))?;
        let room = free.saturating_sub(self.ctx.spare_bytes).saturating_add(held);
        if order.space > room {
            return Err(format!(
                "{} bytes are offered, but the disk of {} has room for {room} ({} bytes are left free)",
                order.space,
                self.ctx.dir.display(),
                self.ctx.spare_bytes
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
