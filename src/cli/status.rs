//! `status`: how this node's mirrors stand, and who follows it. The process that
//! has the store open writes it down every second (`status.json`); this prints
//! it, so it works with and without gRPC, and says how old it is.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use crate::node::clock::now_ns;
use crate::node::{
    FollowerStatus, HeadFigures, NodeStatus, OriginState, OriginStatus, ServedStatus,
};
use crate::store::{Store, StoreRole, View};

/// The file.
const FILE: &str = "status.json";
/// Until it is whole.
const NEW_FILE: &str = "status.json.new";
/// Older than this, nobody writes it any more.
const FRESH_NS: u64 = 15_000_000_000;
/// Said of a mirror that nobody keeps up to date.
const UNFOLLOWED: &str = "no process follows the origin";
/// Bytes of it that are read.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Print a JSON object for each origin: `origin`, `state`, `epoch`,
    /// `directory_root`, `lag_entries`, `lag_seconds`, `last_error`; then one for
    /// each follower: `follower`, `origin`, `address`, `connected`, `term`,
    /// `epoch`, `lag_entries`, `lag_seconds`
    #[arg(long)]
    json: bool,
}

/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StatusFile {
    written_ns: u64,
    /// The process has ended, as it should.
    ended: bool,
    origins: Vec<OriginLine>,
    peers: Vec<PeerLine>,
    followers: Vec<FollowerLine>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OriginLine {
    origin: String,
    state: String,
    epoch: Option<u64>,
    directory_root: Option<String>,
    lag_entries: u64,
    lag_seconds: f64,
    last_error: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PeerLine {
    origin: String,
    peer: String,
    address: String,
    connected: bool,
    behind: bool,
    last_error: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FollowerLine {
    follower: String,
    origin: String,
    address: String,
    connected: bool,
    term: Option<u64>,
    epoch: Option<u64>,
    lag_entries: u64,
    lag_seconds: f64,
}

impl OriginLine {
    fn of_head(origin: &str, state: OriginState, head: Option<&HeadFigures>) -> Self {
        Self {
            origin: origin.to_owned(),
            state: state.name().to_owned(),
            epoch: head.map(|head| head.order.epoch),
            directory_root: head.map(|head| head.directory_root.to_string()),
            lag_entries: 0,
            lag_seconds: 0.0,
            last_error: None,
        }
    }

    fn of_mirror(status: &OriginStatus) -> Self {
        let name = status.origin.as_str();
        Self {
            lag_entries: status.lag_entries,
            lag_seconds: status.lag_seconds,
            last_error: status.last_error.clone(),
            ..Self::of_head(name, status.state, status.complete.as_ref())
        }
    }

    /// A store that follows nobody: an own one is as new as can be, a mirror is not.
    fn of_served(status: &ServedStatus) -> Self {
        let failure = status.frozen.as_ref().or(status.failure.as_ref());
        let (state, error) = match (failure, &status.fork, status.role) {
            (Some(failure), _, _) => (OriginState::Failed, Some(failure.clone())),
            (None, Some(fork), _) => (OriginState::Forked, Some(fork.clone())),
            (None, None, StoreRole::Own) => (OriginState::Synced, None),
            (None, None, StoreRole::Mirror) => (OriginState::Stale, Some(UNFOLLOWED.to_owned())),
        };
        let head = status.head.filter(|_| state != OriginState::Synced);
        let age = head.map_or(0, |head| now_ns().saturating_sub(head.time_ns));
        Self {
            lag_seconds: Duration::from_nanos(age).as_secs_f64(),
            last_error: error,
            ..Self::of_head(status.origin.as_str(), state, status.head.as_ref())
        }
    }
}

impl FollowerLine {
    fn new(origin: &str, status: &FollowerStatus) -> Self {
        let order = status.complete.map(|head| head.order);
        Self {
            follower: status.id.to_string(),
            origin: origin.to_owned(),
            address: status.address.to_string(),
            connected: status.connected,
            term: order.map(|order| order.term),
            epoch: order.map(|order| order.epoch),
            lag_entries: status.lag_entries,
            lag_seconds: status.lag_seconds,
        }
    }
}

impl StatusFile {
    /// What a node says of itself, to be written down.
    pub(super) fn new(status: &NodeStatus, ended: bool) -> Self {
        let own = status.served.iter().map(OriginLine::of_served);
        let peers = status.origins.iter().flat_map(|origin| {
            origin.peers.iter().map(|peer| PeerLine {
                origin: origin.origin.as_str().to_owned(),
                peer: peer.id.to_string(),
                address: peer.address.clone(),
                connected: peer.connected,
                behind: peer.behind,
                last_error: peer.last_error.clone(),
            })
        });
        let followers = status.followers.iter();
        Self {
            written_ns: now_ns(),
            ended,
            origins: own
                .chain(status.origins.iter().map(OriginLine::of_mirror))
                .collect(),
            peers: peers.collect(),
            followers: followers
                .map(|(origin, follower)| FollowerLine::new(origin.as_str(), follower))
                .collect(),
        }
    }

    /// Replaces the file in a store's directory. A reader sees the old one or
    /// the new one; after a crash there may be none.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let new = directory.join(NEW_FILE);
        fs::write(&new, bytes)?;
        fs::rename(new, directory.join(FILE))
    }

    /// What the process that has the store open wrote last, if there is one.
    fn read(directory: &Path) -> Option<Self> {
        let path = directory.join(FILE);
        if fs::metadata(&path).ok()?.len() > FILE_BYTES_MAX {
            return None;
        }
        let file: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        // A clock that was set back makes nothing fresh.
        let apart = now_ns().abs_diff(file.written_ns);
        (!file.ended && apart <= FRESH_NS).then_some(file)
    }

    /// What a store's directory says while nobody has it open.
    fn of_view(view: &View) -> Self {
        let name = view.origin().name().as_str().to_owned();
        let head = view.head().as_ref().map(HeadFigures::from);
        let fork = view.fork().filter(|fork| !fork.resolved);
        let state = if fork.is_some() {
            OriginState::Forked
        } else {
            OriginState::Stale
        };
        let last_error = match (fork, view.role()) {
            (Some(fork), _) => fork.verdict,
            (None, StoreRole::Own) => "no process has the store open".to_owned(),
            (None, StoreRole::Mirror) => UNFOLLOWED.to_owned(),
        };
        let age = head.map_or(0, |head| now_ns().saturating_sub(head.time_ns));
        let line = OriginLine {
            lag_seconds: Duration::from_nanos(age).as_secs_f64(),
            last_error: Some(last_error),
            ..OriginLine::of_head(&name, state, head.as_ref())
        };
        Self {
            origins: vec![line],
            ..Self::default()
        }
    }

    fn print(&self) -> Result<(), CliError> {
        let mut out = Out::new();
        for line in &self.origins {
            let epoch = line
                .epoch
                .map_or("nothing yet".to_owned(), |epoch| format!("epoch {epoch}"));
            let (origin, state) = (escape(&line.origin), escape(&line.state));
            let (entries, seconds) = (line.lag_entries, line.lag_seconds);
            out.line(format_args!(
                "{origin}: {state}, {epoch}, behind by {entries} entries, {seconds:.1} s"
            ))?;
            if let Some(root) = &line.directory_root {
                out.line(format_args!("  directory root {}", escape(root)))?;
            }
            if let Some(error) = &line.last_error {
                out.line(format_args!("  last error: {}", escape(error)))?;
            }
            for peer in self.peers.iter().filter(|peer| peer.origin == line.origin) {
                let state = match (peer.connected, peer.behind) {
                    (true, true) => "connected, shows less than is held",
                    (true, false) => "connected",
                    (false, _) => "not connected",
                };
                let (key, address) = (escape(&peer.peer), escape(&peer.address));
                out.line(format_args!("  from {key}@{address}: {state}"))?;
                if let Some(error) = &peer.last_error {
                    out.line(format_args!("    {}", escape(error)))?;
                }
            }
            let followers = self.followers.iter();
            for line in followers.filter(|follower| follower.origin == line.origin) {
                let state = if line.connected { "connected" } else { "gone" };
                let (key, address) = (escape(&line.follower), escape(&line.address));
                out.line(format_args!("  follower {key} at {address}: {state}"))?;
                let (entries, seconds) = (line.lag_entries, line.lag_seconds);
                match (line.term, line.epoch) {
                    (Some(term), Some(epoch)) => out.line(format_args!(
                        "    has epoch {epoch} of term {term}, behind by {entries} entries, \
                         {seconds:.1} s"
                    ))?,
                    _ => out.line(format_args!("    has acknowledged nothing yet"))?,
                }
            }
        }
        out.flush()
    }
}

pub(super) fn run(data: &DataDir, arguments: &StatusArguments) -> Result<(), CliError> {
    let found = if let Some(found) = StatusFile::read(data.path()) {
        found
    } else {
        // Without the lock: it would be in the way of a process that starts.
        let view = Store::open_read_only(data.shared_disk());
        StatusFile::of_view(&view.map_err(|error| data.named(error))?)
    };
    if !arguments.json {
        return found.print();
    }
    let mut out = Out::new();
    for line in &found.origins {
        out.json(line)?;
    }
    for line in &found.followers {
        out.json(line)?;
    }
    out.flush()
}
