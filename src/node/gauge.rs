//! Layer 4. What is known of an origin that is mirrored: facts, from which its
//! state follows whenever somebody asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::mirror::{CatchUpError, Progress, Target};
use super::peer::Peer;
use super::tls::NodeId;
use crate::hash::Hash;
use crate::head::{HeadOrder, SignedHead};
use crate::ledger::ReadMirror;
use crate::note::OriginName;
use crate::sync::{LocalFault, Outcome, PeerFault, Report, SyncError};

/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// How an origin's mirror stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OriginState {
    /// The newest known head is complete, and a peer is connected.
    Synced,
    /// A newer head is known than is complete, none is, or nobody is connected.
    Behind,
    /// The origin's own node, or every peer that can be reached, shows less than
    /// is held here.
    SourceBehind,
    /// No newer head was seen for longer than is normal.
    Stale,
    /// A peer shows what does not fit, and nothing proves whose fault it is.
    Disputed,
    /// The origin has signed two histories.
    Forked,
    /// The origin has signed what is not valid.
    InvalidOrigin,
    /// The origin is larger than it is allowed to be here.
    Quota,
    /// This side failed.
    Failed,
}

impl OriginState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Synced,
        Self::Behind,
        Self::SourceBehind,
        Self::Stale,
        Self::Disputed,
        Self::Forked,
        Self::InvalidOrigin,
        Self::Quota,
        Self::Failed,
    ];

    /// Its name, in logs, in `status` and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Behind => "behind",
            Self::SourceBehind => "source-behind",
            Self::Stale => "stale",
            Self::Disputed => "disputed",
            Self::Forked => "forked",
            Self::InvalidOrigin => "invalid-origin",
            Self::Quota => "quota",
            Self::Failed => "failed",
        }
    }

    /// True if somebody has to look at it.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        !matches!(self, Self::Synced | Self::Behind)
    }

    /// What a sync's failure says of the origin, beyond that it failed.
    fn of(error: &CatchUpError) -> Option<Self> {
        Some(match error {
            CatchUpError::Sync(
                SyncError::Forked(_) | SyncError::Local(LocalFault::Forked { .. }),
            ) => Self::Forked,
            CatchUpError::Sync(SyncError::Origin(_)) => Self::InvalidOrigin,
            CatchUpError::Sync(SyncError::Local(
                LocalFault::Quota { .. } | LocalFault::Room { .. },
            )) => Self::Quota,
            CatchUpError::Sync(SyncError::Local(_)) | CatchUpError::Task => Self::Failed,
            _ => return None,
        })
    }
}

/// A head, as far as figures need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFigures {
    /// Term and epoch.
    pub order: HeadOrder,
    /// The root over all contexts.
    pub directory_root: Hash,
    /// Contexts under it.
    pub contexts: u64,
    /// Entries under it.
    pub entries: u64,
    /// When it was signed, by the signer's clock.
    pub time_ns: u64,
}

impl From<&SignedHead> for HeadFigures {
    fn from(head: &SignedHead) -> Self {
        let order = head.order();
        let head = head.head();
        Self {
            order,
            directory_root: head.directory_root,
            contexts: head.contexts,
            entries: head.entries,
            time_ns: head.time_ns,
        }
    }
}

/// What is known of one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its node key.
    pub id: NodeId,
    /// Where it is called.
    pub address: String,
    /// It is connected now.
    pub connected: bool,
    /// It shows less than is held here.
    pub behind: bool,
    /// Its last sync ended in a dispute.
    pub disputed: bool,
    /// Connections that failed since the last good one.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
}

/// What is known of an origin at one moment.
#[derive(Clone, Debug)]
pub struct OriginStatus {
    /// Whose ledger it is.
    pub origin: OriginName,
    /// How it stands.
    pub state: OriginState,
    /// The last head that is complete and so verified.
    pub complete: Option<HeadFigures>,
    /// Entries that are known to be signed and are not complete here.
    pub lag_entries: u64,
    /// 0 if synced; otherwise how long ago, by this node's clock, the complete
    /// head was signed, 0 if there is none.
    pub lag_seconds: f64,
    /// Since when no newer head has been seen.
    pub heard_seconds: f64,
    /// The last error, and whether it has not been overcome since.
    pub last_error: Option<String>,
    /// Peers, in the order in which they were named.
    pub peers: Vec<PeerStatus>,
    /// Syncs that ended well, since the start.
    pub syncs: u64,
    /// Syncs that failed, since the start.
    pub failed_syncs: u64,
    /// Entries verified and stored, since the start.
    pub entries: u64,
    /// Bytes received, since the start.
    pub received_bytes: u64,
}

/// What a mirror holds when it is begun to be followed.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The newest complete head.
    pub complete: Option<SignedHead>,
    /// The newest head that was seen, complete or not.
    pub newest: Option<SignedHead>,
}

impl Held {
    /// What a view shows.
    pub fn of<M: ReadMirror>(view: &M) -> Result<Self, M::Failure> {
        let complete = view.complete_head()?;
        let seen = view.seen_heads()?.into_iter().map(|seen| seen.head);
        let newest = seen.chain(complete.clone()).max_by_key(SignedHead::order);
        Ok(Self { complete, newest })
    }
}

#[derive(Debug)]
struct Facts {
    origin: OriginName,
    stale_after: Duration,
    own_node: Option<usize>,
    complete: Option<HeadFigures>,
    /// The newest head that was verified, complete or not.
    newest: Option<Target>,
    heard: Instant,
    /// When a sync last brought anything.
    moved: Instant,
    /// What the origin or this side did, until a sync ends well.
    trouble: Option<OriginState>,
    last_error: Option<String>,
    peers: Vec<PeerStatus>,
    syncs: u64,
    failed_syncs: u64,
    entries: u64,
    received_bytes: u64,
    /// The sync under way.
    progress: Progress,
}

/// The facts about one origin. Copies share them.
#[derive(Clone, Debug)]
pub struct OriginGauge(Arc<Mutex<Facts>>);

impl OriginGauge {
    /// Nothing is known yet but what is held. `own_node` is the place of the
    /// origin's own node among `peers`, if it is one of them.
    #[must_use]
    pub fn new(
        origin: OriginName,
        peers: &[Peer],
        own_node: Option<usize>,
        stale_after: Duration,
        held: &Held,
    ) -> Self {
        let complete = held.complete.as_ref().map(HeadFigures::from);
        let newest = held.newest.as_ref().map(HeadFigures::from).or(complete);
        let peers = peers.iter().map(|peer| PeerStatus {
            id: peer.id,
            address: peer.address.clone(),
            connected: false,
            behind: false,
            disputed: false,
            failures: 0,
            last_error: None,
        });
        Self(Arc::new(Mutex::new(Facts {
            origin,
            stale_after,
            own_node,
            newest: newest.map(|head| Target {
                order: head.order,
                entries: head.entries,
            }),
            complete,
            heard: Instant::now(),
            moved: Instant::now(),
            trouble: None,
            last_error: None,
            peers: peers.collect(),
            syncs: 0,
            failed_syncs: 0,
            entries: 0,
            received_bytes: 0,
            progress: Progress::default(),
        })))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Facts are replaced one by one: none is ever half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self, at: usize) {
        if let Some(peer) = self.facts().peers.get_mut(at) {
            peer.connected = true;
            peer.behind = false;
        }
    }

    /// The connection to a peer has ended, or could not be made.
    pub(super) fn lost(&self, at: usize, error: &CatchUpError) {
        let text = bounded(error);
        let mut facts = self.facts();
        let Some(peer) = facts.peers.get_mut(at) else {
            return;
        };
        peer.connected = false;
        peer.behind = false;
        peer.failures = peer.failures.saturating_add(1);
        if says_why(error) {
            peer.last_error = Some(text.clone());
            // What keeps the origin from being followed is not hidden by this, and
            // as long as another peer is there it is no error of the origin.
            let any = facts.peers.iter().any(|peer| peer.connected);
            if facts.trouble.is_none() && !any {
                facts.last_error = Some(text);
            }
        }
    }

    /// A sync goes on.
    pub(super) fn progress(&self, progress: Progress) {
        let mut facts = self.facts();
        if facts.progress.received_bytes < progress.received_bytes {
            facts.moved = Instant::now();
        }
        facts.progress = progress;
        if let Some(target) = progress.target {
            facts.hear(target);
        }
    }

    /// A sync ended well.
    pub(super) fn synced(&self, at: usize, report: &Report, complete: Option<&SignedHead>) {
        let mut facts = self.facts();
        facts.end();
        facts.syncs += 1;
        facts.trouble = None;
        facts.last_error = None;
        facts.complete = complete.map(HeadFigures::from);
        if let Some(head) = facts.complete {
            facts.hear(Target {
                order: head.order,
                entries: head.entries,
            });
        }
        let good = matches!(report.outcome, Outcome::CaughtUp | Outcome::Current);
        if let Some(peer) = facts.peers.get_mut(at) {
            peer.behind = report.outcome == Outcome::Behind;
            peer.disputed = false;
            if good {
                peer.failures = 0;
                peer.last_error = None;
            }
        }
    }

    /// A sync failed.
    pub(super) fn failed(&self, at: usize, error: &CatchUpError) {
        let text = bounded(error);
        let mut facts = self.facts();
        facts.end();
        facts.failed_syncs += 1;
        if let Some(trouble) = OriginState::of(error) {
            facts.trouble = Some(trouble);
        }
        let says_why = says_why(error);
        if let Some(peer) = facts.peers.get_mut(at)
            && error.may_pass()
        {
            if says_why {
                peer.last_error = Some(text.clone());
            }
            peer.disputed = matches!(error, CatchUpError::Sync(SyncError::Peer(fault))
                if matches!(**fault, PeerFault::Disputed { .. }));
        }
        if says_why {
            facts.last_error = Some(text);
        }
    }

    /// What keeps the origin from being followed at all, whoever serves it.
    pub fn stopped(&self, error: &CatchUpError) {
        let mut facts = self.facts();
        facts.trouble = Some(OriginState::of(error).unwrap_or(OriginState::Failed));
        facts.last_error = Some(bounded(error));
        for peer in &mut facts.peers {
            peer.connected = false;
        }
    }

    /// A task that follows the origin ended as none should, or there is no store
    /// to follow it with.
    pub fn crashed(&self, what: &impl std::fmt::Display) {
        let mut facts = self.facts();
        facts.trouble = Some(OriginState::Failed);
        facts.last_error = Some(bounded(what));
        for peer in &mut facts.peers {
            peer.connected = false;
        }
    }

    /// What is known now. `now_ns` is the wall clock.
    #[must_use]
    pub fn status(&self, now: Instant, now_ns: u64) -> OriginStatus {
        let facts = self.facts();
        let state = facts.state(now);
        let held = facts.complete.map_or(0, |head| head.entries);
        let newest = facts.newest.map_or(0, |head| head.entries);
        let age = facts
            .complete
            .map_or(0, |head| now_ns.saturating_sub(head.time_ns));
        let lag = if state == OriginState::Synced { 0 } else { age };
        OriginStatus {
            origin: facts.origin.clone(),
            state,
            complete: facts.complete,
            lag_entries: newest.saturating_sub(held),
            lag_seconds: Duration::from_nanos(lag).as_secs_f64(),
            heard_seconds: now.saturating_duration_since(facts.heard).as_secs_f64(),
            last_error: facts.last_error.clone(),
            peers: facts.peers.clone(),
            syncs: facts.syncs,
            failed_syncs: facts.failed_syncs,
            entries: facts.entries + facts.progress.entries,
            received_bytes: facts.received_bytes + facts.progress.received_bytes,
        }
    }
}

impl Facts {
    fn hear(&mut self, target: Target) {
        if self.newest.is_none_or(|newest| newest.order < target.order) {
            self.newest = Some(target);
            self.heard = Instant::now();
        }
    }

    /// The sync under way is over.
    fn end(&mut self) {
        let progress = std::mem::take(&mut self.progress);
        self.entries += progress.entries;
        self.received_bytes += progress.received_bytes;
    }

    fn state(&self, now: Instant) -> OriginState {
        if let Some(trouble) = self.trouble {
            return trouble;
        }
        if self.peers.iter().any(|peer| peer.disputed) {
            return OriginState::Disputed;
        }
        let mut connected = self.peers.iter().filter(|peer| peer.connected).peekable();
        let any = connected.peek().is_some();
        let own_node = self.own_node.and_then(|at| self.peers.get(at));
        let own_node = own_node.is_some_and(|peer| peer.connected && peer.behind);
        if own_node || (any && connected.all(|peer| peer.behind)) {
            return OriginState::SourceBehind;
        }
        let under_way = self.progress.received_bytes > 0;
        let moved = if under_way { self.moved } else { self.heard };
        if now.saturating_duration_since(self.heard.max(moved)) > self.stale_after {
            return OriginState::Stale;
        }
        let newest = self.newest.map(|newest| newest.order);
        if any && newest.is_some() && newest == self.complete.map(|head| head.order) {
            OriginState::Synced
        } else {
            OriginState::Behind
        }
    }
}

/// False if this side closed the connection: it did so for a reason, which is
/// noted by whoever found it.
const fn says_why(error: &CatchUpError) -> bool {
    !matches!(
        error,
        CatchUpError::Connection(quinn::ConnectionError::LocallyClosed)
    )
}

/// An error in so many characters.
fn bounded(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
