//! Layer 4. The server: bound first, so that a port that is taken is known
//! before a store is opened; run with a store until told to stop.
//!
//! At shutdown, in this order and within a bound: health says so, nothing new
//! is accepted, watches end with a status, what was accepted is finished, what
//! is left is cut.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::config::{ConfigError, RpcConfig};
use super::guard::Guard;
use super::hub::{Hub, Phase};
use super::inspect::Inspect;
use super::lane::{self, Work};
use super::listen::{self, is_loopback};
use super::proto::DESCRIPTORS;
use super::proto::context::context_service_server::ContextServiceServer;
use super::proto::inspect::inspect_service_server::InspectServiceServer;
use super::reads::Reads;
use super::service::{Service, Shared};
use super::tls::{self, TlsError, TlsFiles};
use super::tokens::Tokens;
use crate::store::{Listener, Store};

/// How often to look whether the store has failed; its listener is quicker.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

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
        let reads = Reads::new(store.view().clone(), self.config.read_threads);
        let (health, routes) = routes(reads.clone()).map_err(|error| ended(&error))?;
        say(&health, ServingStatus::Serving).await;
        say_origin(&health, &store).await;
        let (stop, stopping) = watch::channel(false);
        let work = Work {
            tls: self.tls,
            guard: Guard::new(self.config.clone(), self.tokens, self.hub.phases()),
            routes,
            shared: Arc::new(Shared::new(
                store.clone(),
                reads,
                self.hub.clone(),
                &self.config,
            )),
            stop: stopping,
            config: self.config.clone(),
        };
        let (mut lanes, mut ending) = (Vec::new(), JoinSet::new());
        for number in 0..self.config.lanes {
            let (lane, end) = lane::start(number, work.clone()).map_err(|error| ended(&error))?;
            lanes.push(lane);
            ending.spawn(async move { end.await.unwrap_or_else(|_| Err(gone())) });
        }
        drop(work);
        let mut outcome = {
            let accepting = listen::accept(listener, self.config.connections_max, lanes);
            let mut accepting = std::pin::pin!(accepting);
            let mut shutdown = std::pin::pin!(shutdown);
            let mut watching = std::pin::pin!(watch_store(&health, &store, &self.hub));
            tokio::select! {
                () = &mut shutdown => Ok(()),
                () = &mut accepting => Ok(()),
                () = &mut watching => Ok(()),
                // One that ends by itself: the others are told to, like at any
                // other end.
                Some(ended) = ending.join_next() => ended.unwrap_or_else(|_| Err(gone())),
            }
        };
        // From here on nothing is accepted: the listener is gone.
        say(&health, ServingStatus::NotServing).await;
        health
            .set_service_status(ORIGIN_SERVICE, ServingStatus::NotServing)
            .await;
        self.hub.enter(Phase::Closing);
        stop.send_replace(true);
        // Each within its own bound.
        while let Some(ended) = ending.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|_| Err(gone())));
        }
        outcome
    }
}

fn gone() -> RunError {
    RunError::Ended("a thread of it is gone".into())
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

/// The name under which health is told of the origin: not serving if it has
/// signed two histories and nobody has said which one is followed. What is
/// served goes on either way.
const ORIGIN_SERVICE: &str = "converge.ledger.v1.Origin";

async fn say_origin(health: &HealthReporter, store: &Store) {
    let forked = store.view().fork().is_some_and(|fork| !fork.resolved);
    let status = if forked {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    };
    health.set_service_status(ORIGIN_SERVICE, status).await;
}

async fn say(health: &HealthReporter, status: ServingStatus) {
    for name in SERVICES {
        health.set_service_status(name, status).await;
    }
}

/// All services but the engine's, which each lane has of its own.
fn routes(
    reads: Reads,
) -> Result<(HealthReporter, tonic::service::Routes), tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = health_reporter();
    let routes = tonic::service::Routes::new(InspectServiceServer::new(Inspect::new(reads)))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((reporter, routes))
}
