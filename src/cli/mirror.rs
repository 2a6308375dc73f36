//! `mirror`: pull from a source until its newest head is complete here, and on
//! with every newer one if told to.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::data::{DataDir, options};
use super::error::CliError;
use super::init::parse_vkey;
use super::output::{Out, escape, seconds};
use super::progress::SyncBar;
use super::serve::{self, STALE_AFTER, parse_node};
use crate::head::SignedHead;
use crate::node::clock::now_ns;
use crate::node::{
    self, CatchUp, CatchUpError, Held, KeepUp, Meter, NodeId, NodeKey, NodeStatus, OriginGauge,
    PEERS_MAX, Peer, Quota, Turn, Waiting, any_address,
};
use crate::note::VerifierKey;
use crate::store::{Store, StoreError, StoreRole};
use crate::sync::{Outcome, Report};

#[derive(Debug, Args)]
pub(super) struct MirrorArguments {
    /// A source, may be repeated: `NODEKEY@ADDR`, or its address alone, with
    /// --peer. The first one is preferred
    #[arg(long, value_name = "ADDR", required = true)]
    from: Vec<String>,
    /// The node key of the one --from that has none: whom to talk to
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node)]
    peer: Option<NodeId>,
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

impl MirrorArguments {
    fn peers(&self) -> Result<Vec<Peer>, CliError> {
        if self.from.len() > PEERS_MAX {
            let message = format_args!("at most {PEERS_MAX} sources may be given");
            return Err(CliError::usage(message));
        }
        let bare = self.from.iter().filter(|from| !from.contains('@'));
        if bare.count() != usize::from(self.peer.is_some()) {
            return Err(CliError::usage("each --from needs a node key")
                .hint("Give --from NODEKEY@ADDR, or one --from ADDR and its --peer NODEKEY."));
        }
        let peers = self.from.iter().map(|from| {
            let peer = match self.peer {
                Some(id) if !from.contains('@') => format!("{id}@{from}").parse(),
                _ => from.parse::<Peer>(),
            };
            peer.map_err(|error| CliError::usage(error).context("--from"))
        });
        peers.collect()
    }
}

pub(super) fn run(data: &DataDir, arguments: &MirrorArguments) -> Result<(), CliError> {
    let start = Instant::now();
    let peers = arguments.peers()?;
    let origin = parse_vkey(&arguments.origin).map_err(|error| error.context("--origin"))?;
    if arguments.follow {
        return follow(data, peers, origin, arguments.json);
    }
    let key = prepare(data, &origin)?;
    let store = data.open(&options())?;
    let deadline = arguments.deadline.map(|s| Duration::from_secs(s.into()));
    let outcome = pull_all(&store, &key, &origin, &peers, deadline);
    let view = store.view().clone();
    let closed = store.close();
    let report = outcome?;
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

/// One sync with every source: each may have something that the others lack, and
/// what each shows is compared with what the others did. Fails if none is of use,
/// or if one shows what no other can mend.
fn pull_all(
    store: &Store,
    key: &NodeKey,
    origin: &VerifierKey,
    peers: &[Peer],
    deadline: Option<Duration>,
) -> Result<Report, CliError> {
    let begun = Instant::now();
    let mut whole: Option<Report> = None;
    let mut failed = None;
    for (at, peer) in peers.iter().enumerate() {
        let address = match resolve(&peer.address) {
            Ok(address) => address,
            Err(error) if peers.len() > 1 => {
                let text = error.message().unwrap_or_default();
                tracing::warn!(%peer, error = text, "a source was of no use");
                failed = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut config = CatchUp::new(address, peer.id, origin.clone());
        // Each gets its share of what is left, so that one that stalls leaves
        // something to the others.
        let share = u32::try_from(peers.len() - at).unwrap_or(1);
        config.sync_deadline =
            deadline.map(|deadline| deadline.saturating_sub(begun.elapsed()) / share);
        match pull(store, key, &config) {
            Ok(report) => {
                whole = Some(match whole {
                    None => report,
                    Some(before) => join(&before, report),
                });
            }
            Err(error) if error.may_pass() && peers.len() > 1 => {
                tracing::warn!(%peer, %error, "a source was of no use");
                failed = Some(explain(error, key));
            }
            Err(error) => return Err(explain(error, key)),
        }
    }
    whole.ok_or_else(|| failed.unwrap_or_else(|| CatchUpError::Task.into()))
}

/// Two syncs, one after the other, as one.
fn join(before: &Report, mut after: Report) -> Report {
    after.contexts_changed += before.contexts_changed;
    after.entries += before.entries;
    after.received_bytes += before.received_bytes;
    // One source that is behind says nothing if another was not.
    match (before.outcome, after.outcome) {
        (Outcome::CaughtUp, _) | (_, Outcome::CaughtUp) => after.outcome = Outcome::CaughtUp,
        (Outcome::Current, _) | (_, Outcome::Current) => after.outcome = Outcome::Current,
        _ => (),
    }
    after
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
pub(super) fn prepare(data: &DataDir, origin: &VerifierKey) -> Result<NodeKey, CliError> {
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
    let mut bar = SyncBar::new(store.view().held_entries());
    let shown = bar.handle();
    let runtime = Runtime::new().map_err(|_| CatchUpError::Task)?;
    let outcome = runtime.block_on(async {
        let endpoint = node::client(any_address(config.address))?;
        let progress = move |progress: node::Progress| bar.show(progress);
        let store = Arc::new(store.clone());
        node::catch_up(&endpoint, key, store, config, progress).await
    });
    shown.finish_and_clear();
    outcome
}

/// Goes on until it is told to stop, and prints a report for every head.
fn follow(
    data: &DataDir,
    peers: Vec<Peer>,
    origin: VerifierKey,
    json: bool,
) -> Result<(), CliError> {
    let key = Arc::new(prepare(data, &origin)?);
    let store = data.open(&options())?;
    let own_node = (peers.len() == 1).then_some(0);
    let held = Held::of(store.view()).map_err(|error| data.named(error))?;
    let name = origin.name().clone();
    let gauge = OriginGauge::new(name, &peers, own_node, STALE_AFTER, &held);
    let meter = Meter::new(Quota::default(), data.path().to_owned());
    let view = store.view().clone();
    let config = KeepUp {
        origin,
        peers,
        allowed: Arc::new(move || meter.allowed(view.held_entries())),
        waiting: Waiting::default(),
        turn: Turn::default(),
    };
    let shown = gauge.clone();
    let report = serve::Report {
        status: Arc::new(move || NodeStatus {
            origins: vec![shown.status(Instant::now(), now_ns())],
            ..NodeStatus::default()
        }),
        directories: vec![data.path().to_owned()],
    };
    let outcome = Runtime::new()
        .map_err(|_| CatchUpError::Task)
        .and_then(|runtime| {
            runtime.block_on(follow_until_told(
                &store, &key, &config, &gauge, report, json,
            ))
        });
    let closed = store.close();
    outcome.map_err(|error| explain(error, &key))?;
    closed.map_err(CliError::from)
}

async fn follow_until_told(
    store: &Store,
    key: &Arc<NodeKey>,
    config: &KeepUp,
    gauge: &OriginGauge,
    report: serve::Report,
    json: bool,
) -> Result<(), CatchUpError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|_| CatchUpError::Task)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|_| CatchUpError::Task)?;
    // Who reads the reports may go away.
    let (unread, mut is_unread) = watch::channel(false);
    let begun = Instant::now();
    let mut said = false;
    let done = |_: &Peer, report: &Report| {
        let printed = match (&report.outcome, &report.head) {
            // That nothing is new is said once.
            (Outcome::Current, _) if said => Ok(()),
            (Outcome::CaughtUp | Outcome::Current, Some(head)) => {
                said = true;
                print(report, head, seconds(begun.elapsed()), json)
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
    let (stop, stopping) = watch::channel(false);
    let following = async {
        let store = Arc::new(store.clone());
        let outcome = node::keep_up(Arc::clone(key), store, config, gauge, done, shutdown).await;
        if let Err(error) = &outcome {
            gauge.stopped(error);
        }
        stop.send_replace(true);
        outcome
    };
    let reporting = serve::report(report, |_| (), stopping);
    tokio::join!(following, reporting).0
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
