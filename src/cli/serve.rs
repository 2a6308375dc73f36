//! `serve`: answer the engine over gRPC and mirrors over QUIC until told to
//! stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod allow;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::allow::Allowed;
use super::data::{DataDir, options};
use super::error::CliError;
use super::grpc::GrpcArguments;
use super::output::Out;
use crate::node::{self, Hooks, News, NodeId, NodeKey, ServeLimits};
use crate::rpc;
use crate::store::{Change, Followers, Listener, Store, StoreError, StoreRole, Witness};

/// A head is published this long after the one before it, if anything changed.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A head is published after this long in any case.
const HEARTBEAT_EVERY: Duration = Duration::from_mins(1);
/// How often to look whether the store has failed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Reads under way get this long to end at shutdown.
const READS_END: Duration = Duration::from_secs(5);

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
    #[command(flatten)]
    grpc: GrpcArguments,
}

/// What is to be served over QUIC: where, as whom, to whom.
struct Quic {
    address: SocketAddr,
    key: NodeKey,
    allowed: Allowed,
}

/// A node key from the command line.
pub(super) fn parse_node(text: &str) -> Result<NodeId, String> {
    NodeId::from_hex(text)
        .ok_or_else(|| "a node key has 64 lower-case hexadecimal digits (`keys` prints it)".into())
}

pub(super) fn run(data: &DataDir, arguments: ServeArguments) -> Result<(), CliError> {
    if arguments.listen.is_none() && arguments.grpc.no_grpc {
        return Err(CliError::usage("nothing is to be served")
            .hint("Give --listen ADDR to serve mirrors, or leave --no-grpc out."));
    }
    let allowed = Allowed::read(arguments.allow, arguments.allow_file)?;
    let quic = match arguments.listen {
        None => None,
        Some(address) => {
            if allowed.list().is_empty() {
                tracing::warn!("no node key is allowed: nobody may mirror (--allow, --allow-file)");
            }
            let key = data.node_key(false)?;
            Some(Quic {
                address,
                key,
                allowed,
            })
        }
    };
    // Before the store is opened, which may take long.
    let grpc = arguments.grpc.bind()?;
    let mut options = options();
    options.head_every = Some(HEAD_EVERY);
    options.heartbeat_every = Some(HEARTBEAT_EVERY);
    let (publish, published) = watch::channel(0);
    let place = rpc::Opening::new();
    options.listener = Some(tell_both(place.listener(), publish));
    let followers = Followers::default();
    options.followers = Some(followers.clone());
    let news = News {
        published,
        followers,
    };
    let store = data.open(options)?;
    let places = rpc::Places::new(vec![place.with(store.clone())]).map_err(CliError::could_not)?;
    let grpc = grpc.map(|server| (server, places));
    let outcome = Runtime::new()
        .map_err(|error| CliError::could_not(error).context("could not start the runtime"))
        .and_then(|runtime| {
            let outcome = runtime.block_on(serve(quic, grpc, &store, news));
            runtime.shutdown_timeout(READS_END);
            outcome
        });
    // Publishes the last head.
    let closed = store.close();
    if let Some(frozen) = store.frozen() {
        // Why it ended, whatever else came of it.
        return Err(StoreError::from(frozen).into());
    }
    outcome?;
    closed.map_err(CliError::from)
}

async fn serve(
    quic: Option<Quic>,
    grpc: Option<(rpc::Server, rpc::Places)>,
    store: &Store,
    news: News,
) -> Result<(), CliError> {
    let signals = |error| CliError::could_not(error).context("could not wait for signals");
    // Before anybody is told that this is running.
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let endpoint = match &quic {
        None => None,
        Some(quic) => Some(node::listen(quic.address, &quic.key, quic.allowed.list())?),
    };
    tell(endpoint.as_ref(), grpc.as_ref().map(|(server, _)| server))?;
    let stop = async {
        let mut health = tokio::time::interval(HEALTH_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = health.tick() => if store.failure().is_some() || store.frozen().is_some() {
                    return;
                },
            }
        }
    };
    // One end of either is the end of both.
    let (stopping, _) = watch::channel(false);
    let stopped = || {
        let mut stopping = stopping.subscribe();
        async move { _ = stopping.wait_for(|stop| *stop).await }
    };
    let quic = async {
        if let (Some(endpoint), Some(quic)) = (endpoint, quic) {
            let ledger = Arc::new(store.view().clone());
            let hooks = Hooks {
                shown: shown_to(store),
                news: Some(news),
            };
            let doors = (endpoint, quic.allowed.list().clone());
            let serving = node::serve(doors, ledger, ServeLimits::default(), hooks, stopped());
            tokio::select! {
                () = serving => (),
                () = quic.allowed.follow() => (),
            }
        }
    };
    let grpc = async {
        let Some((server, places)) = grpc else {
            return Ok(());
        };
        let outcome = server.run(places, stopped()).await;
        stopping.send_replace(true);
        outcome
    };
    let mut both = std::pin::pin!(async { tokio::join!(quic, grpc).1 });
    let outcome = tokio::select! {
        outcome = &mut both => outcome,
        () = stop => {
            stopping.send_replace(true);
            both.await
        }
    };
    outcome.map_err(CliError::could_not)
}

/// Tells the gRPC server of changes, and followers of heads.
fn tell_both(grpc: Listener, publish: watch::Sender<u64>) -> Listener {
    Listener(Arc::new(move |change: Change<'_>| {
        if matches!(change, Change::Head) {
            publish.send_modify(|heads| *heads = heads.wrapping_add(1));
        }
        (grpc.0)(change);
    }))
}

/// Whatever note a mirror shows is held against an own store: one that is ahead
/// of it freezes it.
fn shown_to(store: &Store) -> Option<node::Shown> {
    if store.view().role() == StoreRole::Mirror {
        return None;
    }
    let store = store.clone();
    Some(Arc::new(move |peer: &NodeId, note: &[u8]| {
        match store.witness(&[note.to_vec()]) {
            Ok(Witness::Known) => (),
            Ok(Witness::NotOurs) => tracing::warn!(%peer, "a mirror showed a note of another key"),
            Ok(Witness::Frozen) => tracing::error!(%peer, "a mirror showed what freezes the store"),
            Err(error) => tracing::warn!(%peer, %error, "a mirror's note could not be judged"),
        }
    }))
}

/// Says where it listens, in one piece: a script may read one line only.
fn tell(quic: Option<&quinn::Endpoint>, grpc: Option<&rpc::Server>) -> Result<(), CliError> {
    let mut out = Out::new();
    if let Some(endpoint) = quic {
        let address = endpoint
            .local_addr()
            .map_err(|error| CliError::could_not(error).context("could not tell the address"))?;
        out.line(format_args!("quic listening on {address}"))?;
    }
    if let Some(server) = grpc {
        out.line(format_args!("grpc listening on {}", server.local_addr()))?;
    }
    out.flush()
}
