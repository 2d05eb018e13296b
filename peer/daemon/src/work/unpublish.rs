//! Taking back what was published: its requests end first, then nobody is served any longer.
//!
//! What fails in between can be ordered again: requests that have ended are not ended twice.

use super::Work;
use crate::engine::Order;
use datdot_api::{UnpublishOrder, Unpublished};
use datdot_ledger::Call;

impl Work {
    /// Takes back what was published.
    pub async fn unpublish(&self, order: UnpublishOrder) -> Result<Unpublished, String> {
        let UnpublishOrder { key, delete } = order;
        let requests = self.order(|reply| Order::RequestsFor(key, reply)).await?;
        for request in &requests {
            let ended = self.submit(Call::Cancel(*request)).await;
            ended.map_err(|why| format!("{key} stays published, since its request {request} does not end: {why}"))?;
        }
        let deleted = self.order(|reply| Order::Unpublish { key, delete, reply }).await?;
        Ok(Unpublished { requests, deleted })
    }
}
