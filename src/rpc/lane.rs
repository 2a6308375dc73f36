//! Layer 4. Lanes: threads that each serve their share of the connections, from
//! the first byte to the last, on a runtime of their own.
//!
//! All tasks of a connection run on one thread and in turn. So the replies that
//! one group of appends sets free are written together instead of one by one,
//! and no thread has to wake another for each of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::config::{CONNECTION_WINDOW_BYTES, RpcConfig, STREAM_WINDOW_BYTES};
use super::guard::Guard;
use super::listen::{self, Handshake};
use super::proto::context::context_service_server::ContextServiceServer;
use super::server::RunError;
use super::service::{Service, Shared};

/// Connections that were cut get this long to notice.
const CUT: Duration = Duration::from_secs(1);
/// Connections that wait to be taken up by a lane.
const ARRIVALS_MAX: usize = 256;

/// What a lane serves, and how. Shared by all lanes.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) config: RpcConfig,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) guard: Guard,
    /// All services but the engine's.
    pub(super) routes: tonic::service::Routes,
    pub(super) shared: Arc<Shared>,
    /// Turns true, or its sender is gone, when nothing new is to be taken up.
    pub(super) stop: watch::Receiver<bool>,
}

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) stream: std::net::TcpStream,
    pub(super) address: SocketAddr,
    pub(super) seat: Seat,
}

/// A connection's seat, among all and in its lane; given back when dropped.
pub(super) struct Seat {
    _of_all: OwnedSemaphorePermit,
    lane: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lane.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way into a lane.
#[derive(Clone)]
pub(super) struct Entrance {
    arrivals: mpsc::Sender<Arrival>,
    connections: Arc<AtomicUsize>,
}

impl Entrance {
    /// Connections in the lane.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Sends a connection in; `false` if it was closed instead.
    pub(super) fn send(
        &self,
        stream: std::net::TcpStream,
        address: SocketAddr,
        seat: OwnedSemaphorePermit,
    ) -> bool {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let lane = Arc::clone(&self.connections);
        let seat = Seat {
            _of_all: seat,
            lane,
        };
        let arrival = Arrival {
            stream,
            address,
            seat,
        };
        self.arrivals.try_send(arrival).is_ok()
    }
}

/// How a lane ended.
pub(super) type Ended = oneshot::Receiver<Result<(), RunError>>;

/// Starts a lane.
pub(super) fn start(number: usize, work: Work) -> io::Result<(Entrance, Ended)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let (ending, ended) = oneshot::channel();
    thread::Builder::new()
        .name(format!("ledger-grpc-{number}"))
        .spawn(move || {
            let outcome = runtime.block_on(serve(work, arrivals));
            // Reads that are under way are not waited for any longer.
            runtime.shutdown_timeout(CUT);
            // Nobody asks if the server was dropped.
            let _ = ending.send(outcome);
        })?;
    let entrance = Entrance {
        arrivals: sender,
        connections: Arc::default(),
    };
    Ok((entrance, ended))
}

async fn serve(work: Work, arrivals: mpsc::Receiver<Arrival>) -> Result<(), RunError> {
    let ended = |error: tonic::transport::Error| RunError::Ended(error.to_string());
    let (cut, is_cut) = watch::channel(false);
    let (incoming, taking_up) = listen::take_up(
        arrivals,
        Handshake {
            tls: work.tls,
            deadline: work.config.handshake_deadline,
            cut: is_cut,
        },
    );
    // What may be sent and received is bounded by the guard, call by call.
    let service = ContextServiceServer::new(Service::new(work.shared))
        .max_decoding_message_size(work.config.message_bytes_max())
        .max_encoding_message_size(usize::MAX);
    let (mut stop, mut stopping) = (work.stop.clone(), work.stop);
    let serving = transport(&work.config)
        .layer(work.guard)
        .add_routes(work.routes.add_service(service))
        .serve_with_incoming_shutdown(incoming, async move {
            _ = stopping.wait_for(|stop| *stop).await;
        });
    let mut serving = std::pin::pin!(serving);
    {
        let mut taking_up = std::pin::pin!(taking_up);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => (),
            () = &mut taking_up => (),
            outcome = &mut serving => return outcome.map_err(ended),
        }
    }
    let drained = timeout(work.config.drain, &mut serving).await;
    cut.send_replace(true);
    if let Ok(outcome) = drained {
        return outcome.map_err(ended);
    }
    tracing::warn!("calls were still under way at shutdown and are cut");
    _ = timeout(CUT, &mut serving).await;
    Ok(())
}

fn transport(config: &RpcConfig) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(config.streams_per_connection_max)
        .http2_max_header_list_size(config.header_list_bytes_max)
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
}
