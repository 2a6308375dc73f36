//! Layer 4. The server: bound first, so that a port that is taken is known
//! before a store is opened; run with its places until told to stop.
//!
//! At shutdown, in this order and within a bound: health says so, nothing new
//! is accepted, watches end with a status, what was accepted is finished, what
//! is left is cut.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic_health::server::{HealthReporter, health_reporter};

use super::config::{ConfigError, RpcConfig};
use super::guard::Guard;
use super::health::Health;
use super::hub::Phase;
use super::inspect::Inspect;
use super::lane::{self, Work};
use super::listen::{self, is_loopback};
use super::places::Places;
use super::proto::DESCRIPTORS;
use super::proto::inspect::inspect_service_server::InspectServiceServer;
use super::reads::Reads;
use super::service::Shared;
use super::tls::{self, TlsError, TlsFiles};
use super::tokens::Tokens;

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
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The same server once more, on the same socket: for when a run has failed.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
            address: self.address,
            config: self.config.clone(),
            tls: self.tls.clone(),
            tokens: self.tokens.clone(),
        })
    }

    /// Serves stores until `shutdown` completes.
    pub async fn run(
        self,
        places: Places,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let ended = |error: &dyn fmt::Display| RunError::Ended(error.to_string());
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(|e| ended(&e))?;
        let reads = Reads::new(places, self.config.read_threads);
        let places = reads.places();
        for place in places.all() {
            place.hub().reopen();
        }
        let (reporter, routes) = routes(Arc::clone(&reads)).map_err(|error| ended(&error))?;
        let mut health = Health::new(reporter, places);
        health.look(places).await;
        let (stop, stopping) = watch::channel(false);
        let work = Work {
            tls: self.tls,
            guard: Guard::new(self.config.clone(), self.tokens, stopping.clone()),
            routes,
            shared: Arc::new(Shared::new(Arc::clone(&reads), &self.config)),
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
            let mut watching = std::pin::pin!(health.follow(places));
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
        health.close().await;
        for place in places.all() {
            place.hub().enter(Phase::Closing);
        }
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

/// All services but the engine's, which each lane has of its own.
fn routes(
    reads: Arc<Reads>,
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
