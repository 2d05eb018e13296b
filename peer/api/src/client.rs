//! A small blocking client, as the command line uses it.

use crate::{
    Discovery, Limits, LimitsOrder, Refusal, Status,
    discovery::DiscoveryError,
    event::Told,
    order::{
        Accepted, CancelOrder, GetOrder, HostOrder, ListOrder, Listed, Progress, PublishOrder, Quote, QuoteOrder,
        RequestOrder, SendOrder, StreamOrder, UnpublishOrder, Unpublished, Wallet,
    },
    status::OfferStatus,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{BufRead, BufReader, Read},
    marker::PhantomData,
    path::Path,
    time::Duration,
};
use ureq::{Body, http::Response};

/// Longest answer or line that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// How long a call may take that waits for a block.
const PATIENCE: Duration = Duration::from_secs(180);

/// Talks to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    daemon: Discovery,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon runs there.
    #[error(transparent)]
    NotFound(#[from] DiscoveryError),
    /// The file names a daemon that doesn't answer: it was killed, or is still starting.
    #[error("the daemon at {url} does not answer: {why}")]
    NoAnswer {
        /// Where it should be.
        url: String,
        /// Why.
        why: String,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(String),
    /// An answer that is not this version's.
    #[error("the daemon gave an answer that this version does not understand: {0}")]
    Garbled(String),
}

impl Client {
    /// Finds the daemon that has its state in `dir`. Whether it answers shows with the first call.
    pub fn open(dir: &Path) -> Result<Self, ClientError> {
        Ok(Self::new(Discovery::read(dir)?))
    }

    /// A client for a daemon whose url and token are known.
    pub fn new(daemon: Discovery) -> Self {
        // An error's body says what is wrong; a proxy has no business between us and loopback.
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .proxy(None)
            .build();
        Self { agent: config.into(), daemon }
    }

    /// All there is to see.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("status")
    }

    /// Posts or changes the offer; answers when it stands on the ledger.
    pub fn host(&self, order: &HostOrder) -> Result<OfferStatus, ClientError> {
        self.post("host", order)
    }

    /// Takes nothing new; answers when the ledger says so.
    pub fn stop_hosting(&self) -> Result<Accepted, ClientError> {
        let request = self.agent.delete(self.url("host")).header("authorization", self.token());
        answer(self.checked(request.config().timeout_global(Some(PATIENCE)).build().call())?)
    }

    /// What hosting would cost; signs nothing.
    pub fn quote(&self, order: &QuoteOrder) -> Result<Quote, ClientError> {
        self.post("quote", order)
    }

    /// Publishes a file or folder.
    pub fn publish(&self, order: &PublishOrder) -> Result<Lines<Progress>, ClientError> {
        self.stream("publish", order)
    }

    /// Has a feed hosted.
    pub fn request(&self, order: &RequestOrder) -> Result<Lines<Progress>, ClientError> {
        self.stream("request", order)
    }

    /// Reads a feed into a file, or a drive into a folder.
    pub fn read(&self, order: &GetOrder) -> Result<Lines<Progress>, ClientError> {
        self.stream("get", order)
    }

    /// Lists a drive.
    pub fn list(&self, order: &ListOrder) -> Result<Lines<Listed>, ClientError> {
        self.stream("list", order)
    }

    /// The bytes of a feed, or of a file of a drive, and how many will come. It is an error if fewer come.
    pub fn bytes(&self, order: &StreamOrder) -> Result<(u64, impl Read + use<>), ClientError> {
        let request = self.agent.post(self.url("stream")).header("authorization", self.token());
        let request = request.header("content-type", "application/json");
        let response = self.checked(request.send(json(order)?))?;
        let bytes = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = bytes.ok_or_else(|| ClientError::Garbled("it does not say how much will come".into()))?;
        Ok((bytes, response.into_body().into_reader()))
    }

    /// Follows a request that was opened before.
    pub fn follow(&self, request: u32) -> Result<Lines<Progress>, ClientError> {
        self.listen(&format!("follow/{request}"))
    }

    /// Ends a request; answers when the ledger says so.
    pub fn cancel(&self, request: u32) -> Result<Accepted, ClientError> {
        self.post("cancel", &CancelOrder { request })
    }

    /// Takes back what was published.
    pub fn unpublish(&self, order: &UnpublishOrder) -> Result<Unpublished, ClientError> {
        self.post("unpublish", order)
    }

    /// Changes limits of what passes between peers; answers with all of them.
    pub fn limit(&self, order: &LimitsOrder) -> Result<Limits, ClientError> {
        self.post("limits", order)
    }

    /// Address and balance.
    pub fn wallet(&self) -> Result<Wallet, ClientError> {
        self.get("wallet")
    }

    /// Sends money; answers when it is in a block.
    pub fn send(&self, order: &SendOrder) -> Result<Accepted, ClientError> {
        self.post("send", order)
    }

    /// The last events, then each as it happens, until the daemon stops.
    pub fn events(&self) -> Result<Lines<Told>, ClientError> {
        self.listen("events")
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.daemon.url)
    }

    fn token(&self) -> String {
        format!("Bearer {}", self.daemon.token)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.agent.get(self.url(path)).header("authorization", self.token());
        answer(self.checked(request.config().timeout_global(Some(PATIENCE)).build().call())?)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> Result<T, ClientError> {
        let request = self.agent.post(self.url(path)).header("authorization", self.token());
        let request = request.header("content-type", "application/json");
        answer(self.checked(request.config().timeout_global(Some(PATIENCE)).build().send(json(order)?))?)
    }

    fn listen<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let request = self.agent.get(self.url(path)).header("authorization", self.token());
        Ok(Lines::of(self.checked(request.call())?))
    }

    fn stream<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> Result<Lines<T>, ClientError> {
        let request = self.agent.post(self.url(path)).header("authorization", self.token());
        let request = request.header("content-type", "application/json");
        Ok(Lines::of(self.checked(request.send(json(order)?))?))
    }

    fn checked(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let response =
            response.map_err(|error| ClientError::NoAnswer { url: self.daemon.url.clone(), why: error.to_string() })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(match answer::<Refusal>(response) {
            Ok(refusal) => ClientError::Refused(refusal.error),
            Err(_) => ClientError::Garbled(format!("HTTP status {status}")),
        })
    }
}

fn json(order: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(order).map_err(|error| ClientError::Garbled(error.to_string()))
}

fn answer<T: DeserializeOwned>(response: Response<Body>) -> Result<T, ClientError> {
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    body.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| ClientError::Garbled(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Garbled(error.to_string()))
}

/// Lines of JSON as they come. Ends when the daemon ends them.
pub struct Lines<T> {
    body: BufReader<ureq::BodyReader<'static>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Lines<T> {
    fn of(response: Response<Body>) -> Self {
        Self { body: BufReader::new(response.into_body().into_reader()), of: PhantomData }
    }
}

impl<T> std::fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            match self.body.by_ref().take(MAX_BYTES).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                // An empty line only shows that the daemon lives.
                Ok(_) if line.trim_ascii().is_empty() => continue,
                Ok(_) => {
                    let parsed = serde_json::from_slice(&line);
                    return Some(parsed.map_err(|error| ClientError::Garbled(error.to_string())));
                }
                Err(error) => return Some(Err(ClientError::Garbled(error.to_string()))),
            }
        }
    }
}
