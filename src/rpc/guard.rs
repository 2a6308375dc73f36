//! Layer 4. What every call has to pass, around all services: tokens, bounds
//! of messages and of what is under way, deadlines, and the log.
//!
//! ```text
//! token -> seat -> [deadline: request body -> service] -> reply body
//! ```
//!
//! A call that is refused costs its headers. One that is let in holds its seat
//! and the bytes of its message until its reply has been handed out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::config::{HEALTH_CALLS_MAX, REFLECTION_CALLS_MAX, RpcConfig};
use super::method::{Method, Pool};
use super::reply::{Account, Held, ReplyBody, ReplyPermit};
use super::request::{Charge, RequestBody};
use super::tokens::Tokens;

/// The header with a client's own deadline.
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// How much earlier than a client's own deadline it is answered.
const ANSWER_TIME: Duration = Duration::from_millis(100);
/// How the library begins to say that a message cannot be decoded.
const UNDECODED: &str = "failed to decode Protobuf message";
/// Digits of such a deadline.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// See the module.
#[derive(Clone)]
pub(super) struct Guard(Arc<Shared>);

struct Shared {
    config: RpcConfig,
    tokens: Option<Tokens>,
    stopping: watch::Receiver<bool>,
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    health: Arc<Semaphore>,
    health_watches: Arc<Semaphore>,
    reflection: Arc<Semaphore>,
    request_bytes: Arc<Semaphore>,
}

impl Guard {
    pub(super) fn new(
        config: RpcConfig,
        tokens: Option<Tokens>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let seats = |count| Arc::new(Semaphore::new(count));
        Self(Arc::new(Shared {
            requests: seats(config.requests_max),
            watches: seats(config.watches_max),
            health: seats(HEALTH_CALLS_MAX),
            health_watches: seats(HEALTH_CALLS_MAX),
            reflection: seats(REFLECTION_CALLS_MAX),
            request_bytes: seats(config.request_bytes_max),
            config,
            tokens,
            stopping,
        }))
    }
}

impl Shared {
    /// A seat for a call that is allowed, if there is one.
    fn admit(&self, method: Method, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Status> {
        if let Some(tokens) = &self.tokens {
            tokens.check(headers, method.needs())?;
        }
        let (seats, full) = match method.pool() {
            Pool::Requests => (
                &self.requests,
                "the server is working on as many calls as it may: try again",
            ),
            Pool::Watches => (
                &self.watches,
                "the server has as many watches as it may: try again, or end one",
            ),
            Pool::Health => (
                &self.health,
                "the server is answering as many health calls as it may: try again",
            ),
            Pool::HealthWatches => (
                &self.health_watches,
                "the server has as many watches of its health as it may: check it instead",
            ),
            Pool::Reflection => (
                &self.reflection,
                "the server has as many reflection streams as it may: try again",
            ),
        };
        let seat = Arc::clone(seats).try_acquire_owned();
        seat.map_err(|_| Status::resource_exhausted(full))
    }

    /// By when a call must have been answered.
    fn deadline(&self, headers: &HeaderMap) -> Duration {
        let own = headers
            .get(TIMEOUT_HEADER)
            .and_then(|value| parse_timeout(value.as_bytes()));
        let most = self.config.request_deadline;
        // A little earlier, so that the answer is there in time.
        let earlier = |own: Duration| own.saturating_sub((own / 10).min(ANSWER_TIME));
        own.map_or(most, |own| earlier(own).min(most))
    }

    /// Completes when streams that do not end by themselves are to end.
    fn closing(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut stopping = self.stopping.clone();
        // A server that is gone is closing too.
        Box::pin(async move { _ = stopping.wait_for(|stop| *stop).await })
    }

    async fn answer<S>(&self, inner: &mut S, request: Request<Body>) -> Response<ReplyBody>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let method = Method::of(request.uri().path());
        let span = tracing::debug_span!(
            "rpc",
            method = method.name(),
            context = tracing::field::Empty
        );
        let mut account = Account {
            span: span.clone(),
            began: Instant::now(),
            code: None,
            request_bytes: 0,
            reply_bytes: 0,
        };
        let mut held = None;
        let response = match self.admit(method, request.headers()) {
            Err(status) => status.into_http(),
            Ok(seat) => {
                let charge = Charge::default();
                let kept = charge.clone();
                let answering = self.let_in(inner, method, request, charge);
                let mut response = answering.instrument(span).await;
                account.request_bytes = kept.bytes();
                held = Some(Held {
                    seat,
                    charge: kept,
                    reply: response.extensions_mut().remove::<ReplyPermit>(),
                });
                response
            }
        };
        account.hear(response.headers());
        let ends = method.ends_at_shutdown().then(|| self.closing());
        response.map(|body| ReplyBody::new(body, ends, account, held))
    }

    async fn let_in<S>(
        &self,
        inner: &mut S,
        method: Method,
        request: Request<Body>,
        charge: Charge,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let deadline = self.deadline(request.headers());
        let limit = method.message_bytes_max(&self.config);
        let several = method.streams_requests();
        let room = Arc::clone(&self.request_bytes);
        let request =
            request.map(|body| Body::new(RequestBody::new(body, limit, several, room, charge)));
        match tokio::time::timeout(deadline, inner.call(request)).await {
            Ok(Ok(response)) => callers_fault(response),
            Ok(Err(never)) => match never {},
            Err(_) if method.writes() => Status::deadline_exceeded(
                "time is up, and whether it was stored is unknown: repeat the call, an append \
                 with the same request_id, which is safe",
            )
            .into_http(),
            Err(_) => Status::deadline_exceeded("time is up: try again").into_http(),
        }
    }
}

/// A message that cannot be decoded is the caller's fault, a text in it that is
/// not UTF-8 above all; the library calls it an error of the server.
fn callers_fault(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status)
            if status.code() == Code::Internal && status.message().starts_with(UNDECODED) =>
        {
            let reason = status.message();
            Status::invalid_argument(format!("{reason}; nothing was stored")).into_http()
        }
        _ => response,
    }
}

/// A client's deadline: up to eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty()
        || digits.len() > TIMEOUT_DIGITS_MAX
        || !digits.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        let guard = self.clone();
        Guarded { inner, guard }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled ready takes the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Guard(shared) = self.guard.clone();
        Box::pin(async move { Ok(shared.answer(&mut inner, request).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_the_protocol_says() {
        let parsed = |text: &str| parse_timeout(text.as_bytes());
        assert_eq!(parsed("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(parsed("20m"), Some(Duration::from_millis(20)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        for wrong in ["", "S", "1", "123456789S", "-1S", "1s", "1.5S", "\u{663}S"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
