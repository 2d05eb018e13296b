//! The API: JSON over HTTP on loopback, for those who know the token.

use crate::{
    engine::Order,
    quote,
    work::{Steps, Streamed, Work},
};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use datdot_api::{
    Accepted, Amount, CancelOrder, GetOrder, HostOrder, Limits, LimitsOrder, ListOrder, Listed, Progress, PublishOrder,
    Quote, QuoteOrder, Refusal, RequestOrder, SendOrder, Status, StreamOrder, Told, UnpublishOrder, Unpublished,
    Wallet, status::OfferStatus,
};
use datdot_ledger::{AccountId, At, Call};
use datdot_market::{Balance, params::Dat};
use futures::{Stream, StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Steps that may wait for a slow listener.
const STEPS: usize = 256;
/// An empty line is sent after so much silence, so that the other side knows that the daemon lives.
const SILENCE: Duration = Duration::from_secs(5);

/// A refusal with its HTTP status.
struct Refused(StatusCode, String);

type Answer<T> = Result<Json<T>, Refused>;

/// What tells a stream that the daemon stops.
type Stop = Extension<watch::Receiver<bool>>;

/// Answers requests until `stop` becomes true.
pub(crate) async fn serve(listener: TcpListener, work: Work, token: String, stop: watch::Receiver<bool>) {
    let token: Arc<str> = token.into();
    let routes = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/host", post(host).delete(stop_hosting))
        .route("/v1/quote", post(ask_quote))
        .route("/v1/publish", post(publish))
        .route("/v1/request", post(request))
        .route("/v1/get", post(read))
        .route("/v1/stream", post(stream_bytes))
        .route("/v1/list", post(list))
        .route("/v1/follow/{request}", get(follow))
        .route("/v1/cancel", post(cancel))
        .route("/v1/unpublish", post(unpublish))
        .route("/v1/limits", post(limit))
        .route("/v1/wallet", get(wallet))
        .route("/v1/send", post(send))
        .route("/v1/events", get(events))
        .fallback(|| async { Refused(StatusCode::NOT_FOUND, "there is nothing at this path".into()) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(token, authorize))
        .layer(Extension(stop.clone()))
        .with_state(work);
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped(stop)).await {
        tracing::error!(target: "daemon", %error, "the API has ended");
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // If nobody can say so any more, it has stopped too.
    _ = stop.wait_for(|stop| *stop).await;
}

async fn authorize(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match given.is_some_and(|given| is_equal(given, token.as_bytes())) {
        true => next.run(request).await,
        false => {
            let why = "the token is missing or wrong: it is in the daemon's api.json, which only its user can read";
            Refused(StatusCode::UNAUTHORIZED, why.into()).into_response()
        }
    }
}

/// Whether two texts are equal, in a time that doesn't tell where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn status(State(work): State<Work>) -> Answer<Status> {
    Ok(Json(work.ask(Order::Status).await?))
}

async fn host(State(work): State<Work>, Sent(order): Sent<HostOrder>) -> Answer<OfferStatus> {
    Ok(Json(work.order(|reply| Order::Host(order, reply)).await?))
}

async fn stop_hosting(State(work): State<Work>) -> Answer<Accepted> {
    Ok(Json(Accepted { block: work.order(Order::StopHosting).await? }))
}

async fn ask_quote(State(work): State<Work>, Sent(order): Sent<QuoteOrder>) -> Answer<Quote> {
    let bytes = work.bytes_to_quote(&order.of).await?;
    Ok(Json(quote::quote(&work.ctx, bytes, &order.wanted).await?))
}

async fn publish(State(work): State<Work>, Extension(stop): Stop, Sent(order): Sent<PublishOrder>) -> Response {
    steps(stop, |to| work.spawn(to, |work, steps| work.publish(order, steps)))
}

async fn request(State(work): State<Work>, Extension(stop): Stop, Sent(order): Sent<RequestOrder>) -> Response {
    steps(stop, |to| work.spawn(to, |work, steps| work.request(order, steps)))
}

async fn read(State(work): State<Work>, Extension(stop): Stop, Sent(order): Sent<GetOrder>) -> Response {
    steps(stop, |to| work.spawn(to, |work, steps| work.get(order, steps)))
}

async fn stream_bytes(
    State(work): State<Work>,
    Extension(stop): Stop,
    Sent(order): Sent<StreamOrder>,
) -> Result<Response, Refused> {
    let Streamed { bytes, pieces } = work.stream(order).await?;
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, bytes.to_string())];
    let pieces = stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) });
    Ok((headers, Body::from_stream(pieces.take_until(Box::pin(stopped(stop))))).into_response())
}

async fn list(State(work): State<Work>, Extension(stop): Stop, Sent(order): Sent<ListOrder>) -> Response {
    let (to, from) = mpsc::channel(STEPS);
    work.jobs.spawn(work.clone().list(order, to));
    lines::<Listed>(stop, told(from, Listed::is_last))
}

async fn follow(State(work): State<Work>, Extension(stop): Stop, Path(request): Path<u32>) -> Response {
    steps(stop, |to| work.spawn(to, |work, steps| work.follow(request, steps)))
}

async fn cancel(State(work): State<Work>, Sent(order): Sent<CancelOrder>) -> Answer<Accepted> {
    let done = work.submit(Call::Cancel(order.request)).await;
    Ok(Json(done.map_err(|why| format!("request {} is not cancelled: {why}", order.request))?))
}

async fn unpublish(State(work): State<Work>, Sent(order): Sent<UnpublishOrder>) -> Answer<Unpublished> {
    Ok(Json(work.unpublish(order).await?))
}

async fn limit(State(work): State<Work>, Sent(order): Sent<LimitsOrder>) -> Answer<Limits> {
    Ok(Json(work.order(|reply| Order::Limit(order, reply)).await?))
}

async fn send(State(work): State<Work>, Sent(order): Sent<SendOrder>) -> Answer<Accepted> {
    let to: AccountId = order.to.parse().map_err(|error: datdot_ledger::BadAddress| error.to_string())?;
    let call = Call::Transfer { to, amount: order.amount.0 };
    if work.ctx.ledger.is_up() {
        let ledger = &work.ctx.ledger;
        let fee = ledger.fee(&call).await.map_err(|error| error.to_string())?;
        let free = ledger.account(&work.ctx.submitter.id(), At::Best).await.map_err(|error| error.to_string())?.free;
        may_send(order.amount.0, fee, free)?;
    }
    Ok(Json(work.submit(call).await?))
}

/// Refuses what the ledger would refuse, in words.
fn may_send(amount: Balance, fee: Balance, free: Balance) -> Result<(), String> {
    if amount.saturating_add(fee) <= free {
        return Ok(());
    }
    let (amount, fee, free) = (Dat(amount), Dat(fee), Dat(free));
    Err(format!("the account has {free} free, which is less than {amount} and the fee of {fee}"))
}

async fn wallet(State(work): State<Work>) -> Answer<Wallet> {
    let id = work.ctx.submitter.id();
    let seen = work.ctx.view.borrow().clone();
    let view = match seen {
        // Not the newest, but what there is.
        Some(view) if !work.ctx.ledger.is_up() => view,
        None if !work.ctx.ledger.is_up() => return Err(work.ctx.ledger_is_away().into()),
        _ => Arc::new(work.ctx.ledger.account(&id, At::Best).await.map_err(|error| error.to_string())?),
    };
    Ok(Json(Wallet {
        address: id.to_string(),
        free: Amount(view.free),
        budgets: Amount(view.budgets),
        deposits: Amount(view.deposits),
        bond: Amount(view.bond),
    }))
}

async fn events(State(work): State<Work>, Extension(stop): Stop) -> Response {
    let (past, future) = work.ctx.story.listen();
    let future = stream::unfold(future, |mut future| async move {
        loop {
            match timeout(SILENCE, future.recv()).await {
                Err(_) => return Some((None, future)),
                Ok(Ok(told)) => return Some((Some(told), future)),
                // Missed some: the numbers show it.
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
            }
        }
    });
    lines::<Told>(stop, stream::iter(past.into_iter().map(Some)).chain(future))
}

/// Lines for a job that tells its steps; the last one ends them.
fn steps(stop: watch::Receiver<bool>, start: impl FnOnce(Steps)) -> Response {
    let (to, from) = mpsc::channel(STEPS);
    start(to);
    lines::<Progress>(stop, told(from, Progress::is_last))
}

/// What comes, with an empty line after each silence, until the last one.
fn told<T: Send + 'static>(
    from: mpsc::Receiver<T>,
    is_last: fn(&T) -> bool,
) -> impl Stream<Item = Option<T>> + Send + 'static {
    stream::unfold(Some(from), move |from| async move {
        let mut from = from?;
        match timeout(SILENCE, from.recv()).await {
            Err(_) => Some((None, Some(from))),
            Ok(None) => None,
            Ok(Some(item)) => {
                let more = (!is_last(&item)).then_some(from);
                Some((Some(item), more))
            }
        }
    })
}

/// A body of JSON lines; `None` is an empty line.
fn lines<T: Serialize>(stop: watch::Receiver<bool>, items: impl Stream<Item = Option<T>> + Send + 'static) -> Response {
    let text = items.take_until(Box::pin(stopped(stop))).map(|item| {
        let mut line = item.and_then(|item| serde_json::to_vec(&item).ok()).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(line)
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(text)).into_response()
}

/// A body of JSON, refused in the API's own form.
struct Sent<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| Refused(error.status(), error.body_text()))?;
        let bad = |error| Refused(StatusCode::BAD_REQUEST, format!("the body is not what this call takes: {error}"));
        serde_json::from_slice(&bytes).map(Sent).map_err(bad)
    }
}

impl From<String> for Refused {
    fn from(error: String) -> Self {
        Refused(StatusCode::UNPROCESSABLE_ENTITY, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(Refusal { error: self.1 })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_to_send_is_refused_in_whole_coins() {
        let coin = datdot_market::params::DAT;
        assert_eq!(may_send(coin, coin / 2, 2 * coin), Ok(()));
        let why = may_send(u128::MAX, 1, 2 * coin + coin / 2).unwrap_err();
        assert!(why.starts_with("the account has 2.5 DAT free"), "{why}");
    }

    #[test]
    fn tokens_are_equal_or_not() {
        assert!(is_equal(b"token", b"token"));
        assert!(!is_equal(b"token", b"tokem") && !is_equal(b"token", b"toke") && !is_equal(b"", b"t"));
    }
}
