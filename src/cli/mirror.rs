//! `mirror`: pull from a source until its newest head is complete here, and on
//! with every newer one if told to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::data::{DataDir, options};
use super::error::CliError;
use super::init::parse_vkey;
use super::output::{Out, escape, seconds};
use super::progress;
use super::serve::parse_node;
use crate::head::SignedHead;
use crate::node::{self, CatchUp, CatchUpError, NodeId, NodeKey};
use crate::note::VerifierKey;
use crate::store::{Store, StoreError, StoreRole};
use crate::sync::{Outcome, Report};

#[derive(Debug, Args)]
pub(super) struct MirrorArguments {
    /// Address of the source
    #[arg(long, value_name = "ADDR")]
    from: String,
    /// The source's node key: whom to talk to
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node)]
    peer: NodeId,
    /// The origin's public key: whose history to believe
    #[arg(long, value_name = "VKEY")]
    origin: String,
    /// Catch up once and end
    #[arg(long, required_unless_present = "follow")]
    once: bool,
    /// Catch up and go on with every new head, until SIGTERM or SIGINT. A source
    /// that cannot be reached, or fails, is tried again
    #[arg(long, conflicts_with_all = ["once", "deadline"])]
    follow: bool,
    /// Give up after so many seconds; what was verified until then stays
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    deadline: Option<u32>,
    /// Print one JSON object: `origin`, `epoch`, `directory_root`, `entries`,
    /// `bytes`, `seconds`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct MirrorJson<'a> {
    origin: &'a str,
    epoch: u64,
    directory_root: String,
    entries: u64,
    bytes: u64,
    seconds: f64,
}

pub(super) fn run(data: &DataDir, arguments: &MirrorArguments) -> Result<(), CliError> {
    let start = Instant::now();
    let origin = parse_vkey(&arguments.origin).map_err(|error| error.context("--origin"))?;
    let address = resolve(&arguments.from)?;
    let key = prepare(data, &origin)?;
    let store = data.open(options())?;
    let mut config = CatchUp::new(address, arguments.peer, origin);
    config.sync_deadline = arguments.deadline.map(|s| Duration::from_secs(s.into()));
    if arguments.follow {
        let outcome = follow(&store, &key, &config, arguments.json);
        let closed = store.close();
        outcome.map_err(|error| explain(error, &key))?;
        return closed.map_err(CliError::from);
    }
    let outcome = pull(&store, &key, &config);
    let view = store.view().clone();
    let closed = store.close();
    let report = outcome.map_err(|error| explain(error, &key))?;
    closed?;
    let head = view.head();
    match (&report.outcome, &head) {
        (Outcome::Behind, None) => Err(CliError::could_not(
            "the source shows nothing that this mirror can take: it has seen what comes later",
        )),
        (Outcome::Nothing, _) | (_, None) => {
            Err(CliError::could_not("the source has published nothing yet"))
        }
        (outcome, Some(head)) => {
            if *outcome == Outcome::Behind {
                tracing::warn!("the source shows an older head than this mirror holds");
            }
            print(&report, head, seconds(start.elapsed()), arguments.json)
        }
    }
}

/// Any local address that can reach `remote`.
pub(super) fn local_address(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

pub(super) fn resolve(text: &str) -> Result<SocketAddr, CliError> {
    let resolved = text.to_socket_addrs().map(|mut all| all.next());
    match resolved {
        Ok(Some(address)) => Ok(address),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(CliError::usage(error).context("--from"))
        }
        Err(error) => Err(CliError::could_not(error).context(format_args!("--from {text}"))),
        Ok(None) => {
            Err(CliError::could_not("no such address").context(format_args!("--from {text}")))
        }
    }
}

/// A mirror of `origin` and a node key are in the directory, or the command
/// is refused.
fn prepare(data: &DataDir, origin: &VerifierKey) -> Result<NodeKey, CliError> {
    match data.peek_if_any()? {
        Some((role, pinned)) if is_mirror_of(data, origin, role, &pinned)? => data.node_key(true),
        Some((role, pinned)) => Err(CliError::from(StoreError::WrongStore {
            role,
            origin: pinned.to_string(),
            wanted: format!("a mirror of {origin}"),
        })
        .context(data.path().display())),
        None => {
            data.prepare_new()?;
            let key = data.node_key(true)?;
            data.create(StoreRole::Mirror, origin)?;
            Ok(key)
        }
    }
}

/// A mirror goes by any key of the chain from the one that it was made with to
/// the one that counts.
fn is_mirror_of(
    data: &DataDir,
    origin: &VerifierKey,
    role: StoreRole,
    pinned: &VerifierKey,
) -> Result<bool, CliError> {
    if role == StoreRole::Own || pinned == origin {
        return Ok(role == StoreRole::Mirror);
    }
    let view = Store::open_read_only(data.shared_disk()).map_err(|error| data.named(error))?;
    Ok(view.has_key(origin))
}

fn pull(store: &Store, key: &NodeKey, config: &CatchUp) -> Result<Report, CatchUpError> {
    let bar = progress::bar(None);
    let runtime = Runtime::new().map_err(|_| CatchUpError::Task)?;
    let outcome = runtime.block_on(async {
        let endpoint = node::client(local_address(config.address))?;
        let shown = bar.clone();
        let progress = move |progress: node::Progress| {
            shown.set_position(progress.received_bytes);
            shown.set_message(format!("{} entries", progress.entries));
        };
        let store = Arc::new(store.clone());
        node::catch_up(&endpoint, key, store, config, progress).await
    });
    bar.finish_and_clear();
    outcome
}

/// Goes on until it is told to stop, and prints a report for every head.
fn follow(store: &Store, key: &NodeKey, config: &CatchUp, json: bool) -> Result<(), CatchUpError> {
    let runtime = Runtime::new().map_err(|_| CatchUpError::Task)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|_| CatchUpError::Task)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|_| CatchUpError::Task)?;
        let endpoint = node::client(local_address(config.address))?;
        // Who reads the reports may go away.
        let (unread, mut is_unread) = watch::channel(false);
        let begun = Instant::now();
        let mut said = false;
        let done = |report: Report| {
            let printed = match (&report.outcome, &report.head) {
                // That nothing is new is said once.
                (Outcome::Current, _) if said => Ok(()),
                (Outcome::CaughtUp | Outcome::Current, Some(head)) => {
                    said = true;
                    print(&report, head, seconds(begun.elapsed()), json)
                }
                (Outcome::Behind, _) => {
                    tracing::warn!("the source shows an older head than this mirror holds");
                    Ok(())
                }
                _ => Ok(()),
            };
            if printed.is_err() {
                unread.send_replace(true);
            }
        };
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
                _ = is_unread.wait_for(|unread| *unread) => (),
            }
        };
        let store = Arc::new(store.clone());
        node::follow(&endpoint, key, store, config, done, shutdown).await
    })
}

/// A source that does not know us refuses the handshake; say who we are.
pub(super) fn explain(error: CatchUpError, key: &NodeKey) -> CliError {
    let refused = error.is_refusal();
    let error = CliError::from(error);
    if !refused {
        return error;
    }
    error.hint(format_args!(
        "Is a source running at --from, is --peer its node key, and does it allow this node? \
         This node's key is {}",
        key.id()
    ))
}

fn print(report: &Report, head: &SignedHead, seconds: f64, json: bool) -> Result<(), CliError> {
    let head = head.head();
    let mut out = Out::new();
    if json {
        out.json(&MirrorJson {
            origin: head.origin.as_str(),
            epoch: head.epoch,
            directory_root: head.directory_root.to_string(),
            entries: report.entries,
            bytes: report.received_bytes,
            seconds,
        })?;
    } else {
        out.line(format_args!(
            "{}: {} entries, {} bytes in {seconds:.3} s",
            escape(head.origin.as_str()),
            report.entries,
            report.received_bytes
        ))?;
        out.line(format_args!(
            "complete at epoch {}: {} entries in {} contexts, directory root {}",
            head.epoch, head.entries, head.contexts, head.directory_root
        ))?;
    }
    out.flush()
}
