//! Publishing: a file becomes a feed, a folder a drive, which is served and hosted.
//!
//! The order is noted first and forgotten when its request is noted or it can't be done, so that a daemon that is stopped
//! in between begins it again at its next start.

pub(super) mod file;
mod folder;

pub use file::BLOCK_BYTES;

use super::{Hosted, Steps, Work, blocking, say};
use crate::{context::Context, engine::Order};
use datdot_api::{Key, Progress, PublishOrder, Size};
use datdot_market::terms;
use std::path::Path;
use tokio::sync::mpsc;

/// What was published, as the ledger wants it.
struct Made {
    /// The feed's key, or the drive's.
    key: Key,
    feeds: Vec<terms::Feed>,
}

impl Work {
    /// Makes a feed of a file, or a drive of a folder, serves it, and has it hosted if that is wanted.
    pub async fn publish(self, order: PublishOrder, steps: Steps) -> Result<(), String> {
        self.order(|reply| Order::Begin(order.clone(), reply)).await?;
        let done = self.publish_begun(&order, &steps).await;
        // What a stop interrupted goes on at the next start; of everything else whoever asked hears.
        if self.ctx.goes_on().is_ok() {
            self.order(|reply| Order::End(order, reply)).await?;
        }
        done
    }

    /// Begins again what was not done when the daemon was stopped.
    pub fn resume(&self, orders: Vec<PublishOrder>) {
        for order in orders {
            tracing::info!(target: "daemon", path = %order.path.display(), "publishing goes on after a stop");
            // Nobody listens: once the request is open the engine takes care of it.
            let (steps, _) = mpsc::channel(1);
            self.spawn(steps, |work, steps| async move {
                let (ctx, path) = (work.ctx.clone(), order.path.clone());
                if order.wanted.is_some() {
                    // Without a ledger it would be refused, and forgotten.
                    work.ledger_is_seen().await?;
                }
                let done = work.publish(order, steps).await;
                if let Err(why) = &done {
                    ctx.trouble(format!("{} is not published, as was begun before the stop: {why}", path.display()));
                }
                done
            });
        }
    }

    async fn publish_begun(&self, order: &PublishOrder, steps: &Steps) -> Result<(), String> {
        let Made { key, feeds } = {
            let alone = self.ctx.reading.of(order.path.clone());
            let _alone = match alone.try_lock() {
                Ok(alone) => alone,
                Err(_) => {
                    say(steps, Progress::Waiting { why: "it is being read already".into(), next: None }).await;
                    alone.lock().await
                }
            };
            match order.path.is_dir() {
                true => self.make_drive(order, steps).await?,
                false => self.make_feed(order, steps).await?,
            }
        };
        self.serve(key, &feeds, steps).await;
        match order.wanted {
            Some(wanted) => {
                self.sponsor(Hosted { feeds, reached: &[], wanted, order: Some(order.clone()) }, steps).await
            }
            None => {
                let bytes = super::bytes_of(&feeds);
                say(steps, Progress::Done { key, bytes, request: None, hosted: 0, of: 0 }).await;
                Ok(())
            }
        }
    }

    /// Refuses what could not be had before much is read for nothing.
    async fn may_publish(&self, bytes: u64, order: &PublishOrder) -> Result<(), String> {
        match &order.wanted {
            Some(wanted) => self.may_sponsor(bytes, wanted, &[]).await,
            None => Ok(()),
        }
    }
}

fn is_own(ctx: &Context, path: &Path) -> String {
    format!(
        "{} lies in the daemon's own folder, {}, with its secrets: copy what is to be published to another place",
        path.display(),
        ctx.dir.display()
    )
}

fn too_large(ctx: &Context, path: &Path, bytes: u64, room: u64) -> String {
    format!("{} has {}, but the disk of {} has room for {}", path.display(), Size(bytes), ctx.dir.display(), Size(room))
}
