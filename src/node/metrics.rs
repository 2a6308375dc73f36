//! Layer 4. Figures for Prometheus, made anew for every scrape from what the
//! node says of itself, and served over plain HTTP.

use std::convert::Infallible;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::followers::FollowerStatus;
use super::gauge::{HeadFigures, OriginState, OriginStatus};
use super::status::{NodeStatus, ServedStatus};
use crate::note::OriginName;
use crate::store::StoreRole;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 16;
/// A request's headers must have come by then.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// A connection is closed after this, whatever it does.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of a connection's buffer, and so of a request's headers.
const BUFFER_BYTES: usize = 16 << 10;
/// What a scrape is.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Number = Family<Labels, Gauge>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;
type Count = Family<Labels, Counter>;

/// Says how the node stands, now; called for each scrape.
pub type Status = Arc<dyn Fn() -> NodeStatus + Send + Sync>;

/// Answers `GET /metrics` until `shutdown`.
pub async fn serve_metrics(
    listener: TcpListener,
    status: Status,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accept = async {
            let place = place.await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_one_connection(&error) => continue,
            Err(error) => return Err(error),
        };
        let status = Arc::clone(&status);
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let status = Arc::clone(&status);
                async move { Ok::<_, Infallible>(answer(&request, &status)) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_buf_size(BUFFER_BYTES);
            let serving = server.serve_connection(TokioIo::new(stream), answer);
            // Whoever it was has gone, or was too slow.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serving).await;
            drop(place);
        });
    }
}

/// What goes wrong with one connection before it is accepted.
fn is_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

fn answer(request: &Request<Incoming>, status: &Status) -> Response<Full<Bytes>> {
    let plain = |code: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = code;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        let allowed = http::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match text(&status()) {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            let kind = http::HeaderValue::from_static(TEXT);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(Error) => plain(StatusCode::INTERNAL_SERVER_ERROR, "no figures\n"),
    }
}

/// All figures in the `OpenMetrics` text format.
pub fn text(status: &NodeStatus) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("converge_ledger");
    let served = status.served.as_ref();
    own(
        &mut registry,
        served.filter(|store| store.role == StoreRole::Own),
    );
    origins(&mut registry, &status.origins);
    peers(&mut registry, &status.origins);
    followers(&mut registry, &status.followers);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn of(origin: &OriginName) -> Labels {
    vec![("origin", origin.as_str().to_owned())]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn time_s(head: HeadFigures) -> f64 {
    Duration::from_nanos(head.time_ns).as_secs_f64()
}

fn own(registry: &mut Registry, own: Option<&ServedStatus>) {
    let [contexts, entries, epoch, up] = [(); 4].map(|()| Number::default());
    let signed_at = Seconds::default();
    if let Some(own) = own {
        let labels = &of(&own.origin);
        contexts.get_or_create(labels).set(signed(own.contexts));
        entries.get_or_create(labels).set(signed(own.entries));
        let works = own.failure.is_none() && own.frozen.is_none();
        up.get_or_create(labels).set(works.into());
        if let Some(head) = own.head {
            epoch.get_or_create(labels).set(signed(head.order.epoch));
            signed_at.get_or_create(labels).set(time_s(head));
        }
    }
    registry.register("own_contexts", "Contexts of the own store", contexts);
    registry.register(
        "own_entries",
        "Entries of the own store that are durable",
        entries,
    );
    registry.register("own_epoch", "Epoch of the own store's newest head", epoch);
    registry.register("own_up", "1 while the own store takes entries", up);
    let help = "When the own store's newest head was signed, since 1970";
    registry.register_with_unit("own_head_time", help, Unit::Seconds, signed_at);
}

fn origins(registry: &mut Registry, origins: &[OriginStatus]) {
    let [state, epoch, contexts, entries, lag] = [(); 5].map(|()| Number::default());
    let [lag_time, heard, signed_at] = [(); 3].map(|()| Seconds::default());
    let [synced, failed, stored, received] = [(); 4].map(|()| Count::default());
    for origin in origins {
        let labels = &of(&origin.origin);
        for each in OriginState::ALL {
            let mut labels = labels.clone();
            labels.push(("state", each.name().to_owned()));
            state
                .get_or_create(&labels)
                .set((each == origin.state).into());
        }
        if let Some(head) = origin.complete {
            epoch.get_or_create(labels).set(signed(head.order.epoch));
            contexts.get_or_create(labels).set(signed(head.contexts));
            entries.get_or_create(labels).set(signed(head.entries));
            signed_at.get_or_create(labels).set(time_s(head));
        }
        lag.get_or_create(labels).set(signed(origin.lag_entries));
        lag_time.get_or_create(labels).set(origin.lag_seconds);
        heard.get_or_create(labels).set(origin.heard_seconds);
        synced.get_or_create(labels).inc_by(origin.syncs);
        failed.get_or_create(labels).inc_by(origin.failed_syncs);
        stored.get_or_create(labels).inc_by(origin.entries);
        received.get_or_create(labels).inc_by(origin.received_bytes);
    }
    let mut number = |name, help, metric| registry.register(name, help, metric);
    number(
        "origin_state",
        "1 for the state a mirrored origin is in",
        state,
    );
    number("origin_epoch", "Epoch of the newest complete head", epoch);
    number(
        "origin_contexts",
        "Contexts under the newest complete head",
        contexts,
    );
    number(
        "origin_entries",
        "Entries under the newest complete head",
        entries,
    );
    number(
        "origin_lag_entries",
        "Entries known to be signed and not complete here",
        lag,
    );
    let mut seconds = |name, help, metric| {
        registry.register_with_unit(name, help, Unit::Seconds, metric);
    };
    let help = "0 if synced, otherwise the age of the newest complete head";
    seconds("origin_lag", help, lag_time);
    seconds("origin_heard", "Time since a newer head was seen", heard);
    let help = "When the newest complete head was signed, since 1970";
    seconds("origin_head_time", help, signed_at);
    let mut count = |name, help, metric| registry.register(name, help, metric);
    count("origin_syncs", "Syncs that ended well", synced);
    count("origin_failed_syncs", "Syncs that failed", failed);
    count(
        "origin_stored_entries",
        "Entries verified and stored",
        stored,
    );
    let help = "Bytes of messages received";
    registry.register_with_unit("origin_received", help, Unit::Bytes, received);
}

fn peers(registry: &mut Registry, origins: &[OriginStatus]) {
    let [connected, failures] = [(); 2].map(|()| Number::default());
    for origin in origins {
        for peer in &origin.peers {
            let mut labels = of(&origin.origin);
            labels.push(("peer", peer.id.to_string()));
            labels.push(("address", peer.address.clone()));
            connected.get_or_create(&labels).set(peer.connected.into());
            let failed = i64::from(peer.failures);
            failures.get_or_create(&labels).set(failed);
        }
    }
    registry.register("peer_connected", "1 while the peer is connected", connected);
    let help = "Connections that failed since the last good one";
    registry.register("peer_failures", help, failures);
}

fn followers(registry: &mut Registry, followers: &[(OriginName, FollowerStatus)]) {
    let [connected, epoch, lag] = [(); 3].map(|()| Number::default());
    let lag_time = Seconds::default();
    for (origin, follower) in followers {
        let labels = &mut of(origin);
        labels.push(("follower", follower.id.to_string()));
        connected
            .get_or_create(labels)
            .set(follower.connected.into());
        lag.get_or_create(labels).set(signed(follower.lag_entries));
        lag_time.get_or_create(labels).set(follower.lag_seconds);
        if let Some(head) = follower.complete {
            epoch.get_or_create(labels).set(signed(head.order.epoch));
        }
    }
    registry.register(
        "follower_connected",
        "1 while the follower is connected",
        connected,
    );
    let help = "Epoch of the newest head that the follower has acknowledged";
    registry.register("follower_epoch", help, epoch);
    let help = "Durable entries that the follower has not acknowledged";
    registry.register("follower_lag_entries", help, lag);
    let help = "0 if it has all, otherwise the age of what it has acknowledged";
    registry.register_with_unit("follower_lag", help, Unit::Seconds, lag_time);
}
