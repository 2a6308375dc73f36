//! Layer 4. The server: bound first, so that a port that is taken is known
//! before a store is opened; run with a store until told to stop.
//!
//! At shutdown, in this order and within a bound: health says so, nothing new
//! is accepted, watches end with a status, what was accepted is finished, what
//! is left is cut.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::config::{CONNECTION_WINDOW_BYTES, ConfigError, RpcConfig, STREAM_WINDOW_BYTES};
use super::guard::Guard;
use super::hub::{Hub, Phase};
use super::inspect::Inspect;
use super::listen::{self, Door, is_loopback};
use super::proto::DESCRIPTORS;
use super::proto::context::context_service_server::ContextServiceServer;
use super::proto::inspect::inspect_service_server::InspectServiceServer;
use super::reads::Reads;
use super::service::Service;
use super::tls::{self, TlsError, TlsFiles};
use super::tokens::Tokens;
use crate::store::{Listener, Store};

/// How often to look whether the store has failed; its listener is quicker.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Connections that were cut get this long to notice.
const CUT: Duration = Duration::from_secs(1);

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could read along and change what they like.
    #[error(
        "{address} can be reached from other machines, and without TLS anybody on the way can \
         read and change what is sent: give --grpc-cert and --grpc-key, or --insecure if \
         something else protects the network"
    )]
    Insecure {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error(
        "could not listen on {address}: {error}; choose another with --grpc ADDR:PORT or the \
         environment variable GRPC_PORT"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
    /// A setting is outside its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS cannot be offered.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a server ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its socket or its services could not be used.
    #[error("the gRPC server ended: {0}")]
    Ended(String),
}

/// A server that is bound and does not run yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: RpcConfig,
    tls: Option<TlsAcceptor>,
    tokens: Option<Tokens>,
    hub: Hub,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("tls", &self.tls.is_some())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address. Port 0 takes a free one.
    pub fn bind(
        address: SocketAddr,
        config: RpcConfig,
        tls: Option<&TlsFiles>,
        tokens: Option<Tokens>,
    ) -> Result<Self, BindError> {
        config.check()?;
        if tls.is_none() && !config.insecure && !is_loopback(address) {
            return Err(BindError::Insecure { address });
        }
        let tls = tls.map(tls::acceptor).transpose()?;
        let taken = |error| BindError::Address { address, error };
        let listener = TcpListener::bind(address).map_err(taken)?;
        listener.set_nonblocking(true).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self {
            listener,
            address,
            config,
            tls,
            tokens,
            hub: Hub::new(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The store that this server is to run with must be opened with it:
    /// watchers are woken by it.
    #[must_use]
    pub fn listener(&self) -> Listener {
        self.hub.listener()
    }

    /// Serves a store until `shutdown` completes.
    pub async fn run(
        self,
        store: Store,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let ended = |error: &dyn fmt::Display| RunError::Ended(error.to_string());
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(|e| ended(&e))?;
        let (cut, is_cut) = watch::channel(false);
        let (incoming, accepting) = listen::open(Door {
            listener,
            tls: self.tls,
            connections_max: self.config.connections_max,
            handshake_deadline: self.config.handshake_deadline,
            cut: is_cut,
        });
        let guard = Guard::new(self.config.clone(), self.tokens, self.hub.phases());
        let (health, routes) =
            routes(&store, &self.hub, &self.config).map_err(|error| ended(&error))?;
        say(&health, ServingStatus::Serving).await;
        let (stop, mut stopping) = watch::channel(false);
        let serving = transport(&self.config)
            .layer(guard)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                _ = stopping.wait_for(|stop| *stop).await;
            });
        let mut serving = std::pin::pin!(serving);
        {
            let mut accepting = std::pin::pin!(accepting);
            let mut shutdown = std::pin::pin!(shutdown);
            let mut watching = std::pin::pin!(watch_store(&health, &store, &self.hub));
            tokio::select! {
                () = &mut shutdown => (),
                () = &mut accepting => (),
                () = &mut watching => (),
                outcome = &mut serving => {
                    return outcome.map_err(|error| ended(&error));
                }
            }
        }
        // From here on nothing is accepted: the listener is gone.
        say(&health, ServingStatus::NotServing).await;
        self.hub.enter(Phase::Closing);
        stop.send_replace(true);
        let drained = timeout(self.config.drain, &mut serving).await;
        cut.send_replace(true);
        if let Ok(outcome) = drained {
            return outcome.map_err(|error| ended(&error));
        }
        tracing::warn!("calls were still under way at shutdown and are cut");
        _ = timeout(CUT, &mut serving).await;
        Ok(())
    }
}

/// Says that the store has failed, if it does. Never ends.
async fn watch_store(health: &HealthReporter, store: &Store, hub: &Hub) {
    let mut phases = hub.phases();
    let mut tick = interval(HEALTH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => if store.failure().is_some() { hub.enter(Phase::Failed) },
            changed = phases.changed() => if changed.is_err() { break },
        }
        if *phases.borrow_and_update() != Phase::Serving {
            break;
        }
    }
    say(health, ServingStatus::NotServing).await;
    std::future::pending::<()>().await;
}

/// The names that health is told of, "" for the server as a whole.
const SERVICES: [&str; 3] = [
    "",
    <ContextServiceServer<Service> as NamedService>::NAME,
    <InspectServiceServer<Inspect> as NamedService>::NAME,
];

async fn say(health: &HealthReporter, status: ServingStatus) {
    for name in SERVICES {
        health.set_service_status(name, status).await;
    }
}

/// All services.
fn routes(
    store: &Store,
    hub: &Hub,
    config: &RpcConfig,
) -> Result<(HealthReporter, tonic::service::Routes), tonic_reflection::server::Error> {
    let reads = Reads::new(store.view().clone(), config.read_threads);
    let largest = config.message_bytes_max();
    let service = Service::new(store.clone(), reads.clone(), hub.clone(), config);
    // What may be sent and received is bounded by the guard, call by call.
    let service = ContextServiceServer::new(service)
        .max_decoding_message_size(largest)
        .max_encoding_message_size(usize::MAX);
    let inspect = InspectServiceServer::new(Inspect::new(reads));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = health_reporter();
    let routes = tonic::service::Routes::new(service)
        .add_service(inspect)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((reporter, routes))
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
