//! Those who call us. Anybody may, under as many names as he likes: they take no places that we need for calls of our own, and none
//! before they have shaken hands.

use super::{ConnectError, Inner, TICK, lock, most};
use datdot_wire::connection;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    task::AbortHandle,
};

/// Who shake hands at a time. For one more whoever has done so for longest is hung up on: an honest one needs no second.
const SHAKING: usize = if cfg!(test) { 4 } else { 128 };

/// Takes calls until the network is gone.
pub(super) async fn accept(listener: TcpListener, network: Weak<Inner>) {
    let mut shaking: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, for example: it passes.
                tracing::warn!(target: "hypercore", %error, "can't accept connections");
                tokio::time::sleep(TICK).await;
                continue;
            }
        };
        let Some(network) = network.upgrade() else { return };
        if let Err(error) = network.place_for_caller() {
            tracing::debug!(target: "hypercore", %address, %error, "refused");
            continue;
        }
        let inner = network.clone();
        let call = async move {
            if let Err(error) = inner.answer(stream).await {
                tracing::debug!(target: "hypercore", %address, %error, "no connection");
            }
        };
        shaking.retain(|call| !call.is_finished());
        if shaking.len() >= SHAKING
            && let Some(longest) = shaking.pop_front()
        {
            longest.abort();
        }
        let mut tasks = lock(&network.tasks);
        while tasks.calls.try_join_next().is_some() {}
        if !network.places.is_closed() {
            shaking.push_back(tasks.calls.spawn(call));
        }
    }
}

impl Inner {
    async fn answer(self: Arc<Self>, stream: TcpStream) -> Result<(), ConnectError> {
        let address = stream.peer_addr().ok();
        let connection = connection::accept(stream, &self.config.keypair, &self.config.connection).await?;
        let place = self.place_for_caller()?;
        self.attach(connection, address, place).map(drop)
    }

    /// A place, but for the last quarter of them.
    fn place_for_caller(&self) -> Result<OwnedSemaphorePermit, ConnectError> {
        let place = self.place()?;
        if self.places.available_permits() < most(&self.config) / 4 { Err(ConnectError::Full) } else { Ok(place) }
    }
}
