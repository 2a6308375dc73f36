//! `serve`: answer mirrors over QUIC until told to stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::Out;
use crate::node::tls::ALLOWED_NODES_MAX;
use crate::node::{self, NodeId, NodeKey, ServeLimits};
use crate::store::Store;

/// A head is published this long after the one before it, if anything changed.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// A head is published after this long in any case.
const HEARTBEAT_EVERY: Duration = Duration::from_mins(1);
/// How often to look whether the store has failed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Reads under way get this long to end at shutdown.
const READS_END: Duration = Duration::from_secs(5);
/// Bytes of an allow file.
const ALLOW_FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address and UDP port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Node key that may connect, may be repeated
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node)]
    allow: Vec<NodeId>,
    /// File of node keys that may connect, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    allow_file: Option<PathBuf>,
}

/// A node key from the command line.
pub(super) fn parse_node(text: &str) -> Result<NodeId, String> {
    NodeId::from_hex(text)
        .ok_or_else(|| "a node key has 64 lower-case hexadecimal digits (`keys` prints it)".into())
}

pub(super) fn run(data: &DataDir, arguments: ServeArguments) -> Result<(), CliError> {
    let mut allowed: BTreeSet<NodeId> = arguments.allow.into_iter().collect();
    if let Some(path) = &arguments.allow_file {
        allowed.extend(read_allow_file(path)?);
    }
    if allowed.len() > ALLOWED_NODES_MAX {
        return Err(CliError::usage(format_args!(
            "{} node keys are allowed, at most {ALLOWED_NODES_MAX} may be",
            allowed.len()
        )));
    }
    if allowed.is_empty() {
        tracing::warn!("no node key is allowed: nobody may connect (--allow, --allow-file)");
    }
    let key = data.node_key(false)?;
    let mut options = options();
    options.head_every = Some(HEAD_EVERY);
    options.heartbeat_every = Some(HEARTBEAT_EVERY);
    let store = data.open(options)?;
    let outcome = Runtime::new()
        .map_err(|error| CliError::could_not(error).context("could not start the runtime"))
        .and_then(|runtime| {
            let outcome = runtime.block_on(serve(arguments.listen, &key, allowed, &store));
            runtime.shutdown_timeout(READS_END);
            outcome
        });
    // Publishes the last head.
    let closed = store.close();
    outcome?;
    closed.map_err(CliError::from)
}

async fn serve(
    address: SocketAddr,
    key: &NodeKey,
    allowed: BTreeSet<NodeId>,
    store: &Store,
) -> Result<(), CliError> {
    let signals = |error| CliError::could_not(error).context("could not wait for signals");
    // Before anybody is told that this is running.
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let endpoint = node::listen(address, key, allowed)?;
    let address = endpoint
        .local_addr()
        .map_err(|error| CliError::could_not(error).context("could not tell the address"))?;
    {
        let mut out = Out::new();
        out.line(format_args!("quic listening on {address}"))?;
        out.flush()?;
    }
    let stop = async {
        let mut health = tokio::time::interval(HEALTH_EVERY);
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = health.tick() => if store.failure().is_some() { return },
            }
        }
    };
    let ledger = Arc::new(store.view().clone());
    node::serve(endpoint, ledger, ServeLimits::default(), stop).await;
    Ok(())
}

fn read_allow_file(path: &Path) -> Result<Vec<NodeId>, CliError> {
    let failed = |error: std::io::Error| CliError::could_not(error).context(path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut std::io::Read::take(file, ALLOW_FILE_BYTES_MAX + 1),
        &mut text,
    )
    .map_err(failed)?;
    if text.len() as u64 > ALLOW_FILE_BYTES_MAX {
        return Err(
            CliError::usage(format_args!("longer than {ALLOW_FILE_BYTES_MAX} bytes"))
                .context(path.display()),
        );
    }
    let mut nodes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let node = parse_node(line).map_err(|error| {
            CliError::usage(format_args!("line {}: {error}", at + 1)).context(path.display())
        })?;
        nodes.push(node);
    }
    Ok(nodes)
}
