//! `serve`: answer the engine over gRPC and mirrors over QUIC, and mirror other
//! origins, until told to stop.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

mod allow;
mod config;
mod open;
mod report;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::allow::Allowed;
use self::config::MirrorConfig;
pub(super) use self::config::STALE_AFTER;
use self::open::Places;
pub(super) use self::report::{Report, report};
use super::data::DataDir;
use super::error::CliError;
use super::grpc::GrpcArguments;
use super::output::Out;
use crate::node::{Failure, NodeId, NodeStatus, Station, stopped, supervise};
use crate::rpc;
use crate::store::{Store, StoreError};

/// How often to look whether the store has failed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Reads under way get this long to end at shutdown.
const READS_END: Duration = Duration::from_secs(5);
/// Origins that one process mirrors.
const MIRRORS_MAX: usize = 64;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address and UDP port to serve mirrors on over QUIC; port 0 takes a free
    /// one. Without it there is only gRPC
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Node key that may connect, may be repeated
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node, requires = "listen")]
    allow: Vec<NodeId>,
    /// File of node keys that may connect, one a line; # begins a comment. It is
    /// read again when it changes: who is taken off is disconnected
    #[arg(long, value_name = "FILE", requires = "listen")]
    allow_file: Option<PathBuf>,
    /// Mirror the origin that this file (TOML) describes, into a directory of its
    /// own; may be repeated. Without --data there are only mirrors
    #[arg(long = "mirror", value_name = "FILE")]
    mirrors: Vec<PathBuf>,
    /// Address and TCP port of figures for Prometheus (`/metrics`, plain HTTP)
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    grpc: GrpcArguments,
}

impl ServeArguments {
    /// True if there is something to do without a store of the process's own.
    pub(super) const fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }
}

/// A node key from the command line.
pub(super) fn parse_node(text: &str) -> Result<NodeId, String> {
    NodeId::from_hex(text)
        .ok_or_else(|| "a node key has 64 lower-case hexadecimal digits (`keys` prints it)".into())
}

/// Serves the store of `data`, if there is one, and mirrors.
pub(super) fn run(data: Option<&DataDir>, arguments: ServeArguments) -> Result<(), CliError> {
    if arguments.listen.is_none() && arguments.grpc.no_grpc && arguments.mirrors.is_empty() {
        return Err(CliError::usage("nothing is to be served").hint(
            "Give --listen ADDR to serve mirrors or --mirror FILE to be one, or leave --no-grpc \
             out.",
        ));
    }
    if data.is_none() && arguments.listen.is_some() {
        return Err(CliError::usage("--listen serves the store of --data")
            .hint("A mirror of --mirror is served where its file says: listen = \"ADDR\"."));
    }
    if arguments.mirrors.len() > MIRRORS_MAX {
        let message = format_args!("at most {MIRRORS_MAX} origins may be mirrored");
        return Err(CliError::usage(message));
    }
    let mirrors = arguments
        .mirrors
        .iter()
        .map(|path| MirrorConfig::read(path));
    let mirrors = mirrors.collect::<Result<Vec<_>, _>>()?;
    let allowed = Allowed::read(arguments.allow, arguments.allow_file)?;
    // Before the stores are opened, which may take long.
    let grpc = arguments.grpc.bind()?;
    let metrics = arguments.metrics.map(bind_metrics).transpose()?;
    let runtime = Runtime::new()
        .map_err(|error| CliError::could_not(error).context("could not start the runtime"))?;
    // Endpoints are made for a runtime.
    let entered = runtime.enter();
    let mut places = Places::default();
    if let Some(data) = data {
        let listen = arguments.listen.map(|address| (address, allowed));
        places.open_served(data, listen)?;
    }
    for mirror in &mirrors {
        places.open_mirror(mirror)?;
    }
    places.check()?;
    drop(entered);
    let own = places.own().cloned();
    let stores = places.stores();
    let outcome = runtime.block_on(serve(places, grpc, metrics));
    runtime.shutdown_timeout(READS_END);
    // Publishes the last heads.
    let closed: Vec<_> = stores.iter().map(Store::close).collect();
    if let Some(own) = own
        && let Some(frozen) = own.frozen()
    {
        // Why it ended, whatever else came of it.
        return Err(StoreError::from(frozen).into());
    }
    outcome?;
    closed
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(CliError::from)
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, CliError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| CliError::could_not(error).context(format_args!("--metrics {address}")))
}

async fn serve(
    places: Places,
    grpc: Option<rpc::Server>,
    metrics: Option<TcpListener>,
) -> Result<(), CliError> {
    let signals = |error| CliError::could_not(error).context("could not wait for signals");
    // Before anybody is told that this is running.
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    tell(&places, grpc.as_ref(), metrics.as_ref())?;
    let (stop, stopping) = watch::channel(false);
    let own = places.own().cloned();
    let only_own = places.origins() == 0;
    let until = async {
        let mut health = tokio::time::interval(HEALTH_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                // What mirrors other origins goes on, and says that its own store
                // takes nothing any more.
                _ = health.tick() => if let Some(own) = &own
                    && only_own
                    && (own.failure().is_some() || own.frozen().is_some())
                {
                    return;
                },
            }
        }
    };
    let mut tasks = JoinSet::new();
    let (say_fine, fine) = watch::channel(true);
    let status = places.status();
    let reporting = report(
        Report {
            status: status.clone(),
            directories: places.directories(),
        },
        move |status: &NodeStatus| {
            say_fine.send_if_modified(|fine| {
                std::mem::replace(fine, status.origins_are_fine()) != *fine
            });
        },
        stopping.clone(),
    );
    tasks.spawn(reporting);
    if let Some(listener) = metrics {
        let status = status.clone();
        let serving = open::serve_metrics(listener, status, stopping.clone());
        tasks.spawn(serving);
    }
    let (stations, allowed, rooms, missing) = places.split();
    for allowed in allowed {
        let stopping = stopping.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = allowed.follow() => (),
                () = stopped(stopping) => (),
            }
        });
    }
    for station in stations {
        tasks.spawn(Station::run(station, stopping.clone()));
    }
    if let Some(server) = grpc {
        let rooms = rpc::Places::new(rooms).map_err(CliError::could_not)?;
        let rooms = rooms.with_origins_ok(fine).without(missing);
        tasks.spawn(serve_grpc(server, rooms, stopping.clone()));
    }
    until.await;
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Serves the API, again after a failure.
async fn serve_grpc(server: rpc::Server, rooms: rpc::Places, stop: watch::Receiver<bool>) {
    let start = || {
        let (server, rooms, stop) = (server.again(), rooms.clone(), stop.clone());
        async move {
            let server = server.map_err(|error| error.to_string())?;
            let ended = server.run(rooms, stopped(stop.clone())).await;
            ended.map_err(|error| error.to_string())?;
            if *stop.borrow() {
                return Ok(());
            }
            Err("the listener ended".to_owned())
        }
    };
    supervise("grpc", stop.clone(), start, |_: &Failure<String>| ()).await;
}

/// Says where it listens, in one piece: a script may read one line only.
fn tell(
    places: &Places,
    grpc: Option<&rpc::Server>,
    metrics: Option<&TcpListener>,
) -> Result<(), CliError> {
    let mut out = Out::new();
    for (mirror, address) in places.addresses() {
        match mirror {
            None => out.line(format_args!("quic listening on {address}"))?,
            Some(origin) => {
                out.line(format_args!("quic of {origin} listening on {address}"))?;
            }
        }
    }
    if let Some(listener) = metrics {
        let address = listener.local_addr();
        let address = address.map_err(CliError::could_not)?;
        out.line(format_args!("metrics listening on {address}"))?;
    }
    if let Some(server) = grpc {
        out.line(format_args!("grpc listening on {}", server.local_addr()))?;
    }
    out.flush()
}
