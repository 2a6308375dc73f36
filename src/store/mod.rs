//! Layer 3. The store: one directory, one writer, one origin, many contexts.
//!
//! Two parts, one truth. The **log** (`record`, `scan`, `log`, `reserve`,
//! `recover`) is append-only segment files that hold every byte that matters.
//! The **index** (`index`, `keeper`, `indexer`, `pages`) is what the log implies,
//! in memory and in one file; it is made from the log and from nothing else.
//!
//! ```text
//! append -> queue -> plan -> write -> sync -> apply -> answer -> (sign)
//!                    plan     log      log     index   writer    publish
//!                                  hash the leaves
//! ```
//!
//! Invariants at every moment:
//! * durable, then visible, then acknowledged, then signed;
//! * a group is in the log whole or not at all;
//! * nothing in the log is ever changed or removed; a torn tail that nobody
//!   vouches for was never acknowledged;
//! * every byte that is read is verified: header check and body tag of its
//!   record, leaf hash and payload hash of its entry;
//! * after an I/O error whose effect is unknown nothing is acknowledged until
//!   the store has been opened anew.
//!
//! No sockets and no async here: answers come through callbacks.

mod audit;
mod body;
mod condition;
pub mod disk;
mod doors;
mod forks;
mod frozen;
mod growth;
mod guard;
mod handle;
mod hasher;
mod head_note;
mod history;
mod index;
mod indexer;
mod ingest;
mod keeper;
pub mod keys;
mod layout;
mod load;
mod log;
mod opening;
mod pace;
mod page;
mod pages;
mod past;
mod plan;
mod proofs;
mod prove;
mod publish;
mod queue;
mod rebuild;
mod record;
mod recover;
mod replay;
mod reserve;
mod rotate;
mod scan;
mod stats;
mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use audit::{AuditOptions, AuditReport, AuditedIndex, FirstBad, audit, audit_with};
pub use body::StoreRole;
pub use condition::Condition;
pub use frozen::{Frozen, FrozenKind};
pub use guard::Witness;
pub use handle::{AppendDone, Store, StoreDone};
pub use history::History;
pub use index::Inconsistency;
pub use load::{LoadError, Loader};
pub use opening::{Opened, StoreOpening};
pub use page::{Page, PageLimits};
pub use past::PastHead;
pub use proofs::{ProveError, SignedState};
pub use rebuild::{RebuiltIndex, rebuild_index};
pub use record::Position;
pub use rotate::rotate_origin_key;
pub use stats::{CheckpointStats, HeadStats, IndexFound, Stats, stats};
pub use view::{ContextInfo, View};

use crate::encoding::DecodeError;
use crate::entry::{ContextId, EntryError};
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::lamport::LamportError;
use crate::limits::{SEGMENT_BYTES_DEFAULT, TAIL_BYTES_MAX, TAIL_FOLD_BYTES};
use crate::note::VerifierKey;
use crate::run::RunError;

/// Where wall-clock time comes from.
pub trait Clock: Send + Sync + Debug {
    /// Nanoseconds since 1970.
    fn now_ns(&self) -> u64;
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// A segment is sealed before it grows beyond this; a group that is larger
    /// makes a longer segment. Bytes, 4 KiB to 3 GiB.
    pub segment_bytes: u64,
    /// Zero-written bytes kept ready ahead of the end of the log; 0 for none.
    pub reserve_bytes: u64,
    /// A head is published this long after the one before it, if anything
    /// changed. `None`: only on demand, at close, and when the index is to be
    /// checkpointed.
    pub head_every: Option<Duration>,
    /// A head is published after this long even if nothing changed, so that
    /// mirrors can tell idle from dead. `None`: never.
    pub heartbeat_every: Option<Duration>,
    /// While anybody follows, a head is published as soon as anything changed:
    /// 1,000 at once, then 10 a second. `None`: nobody ever does.
    pub followers: Option<Followers>,
    /// The tail is folded into the index this long after the last fold, if
    /// anything changed; earlier if it has grown large, and at close.
    pub checkpoint_every: Duration,
    /// Memory of what is not folded yet, after which appends are refused until
    /// the index has caught up.
    pub tail_bytes_max: usize,
    /// Hears how many bytes of log were read while the store is opened.
    pub progress: Option<Progress>,
    /// Hears what became visible.
    pub listener: Option<Listener>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What a [`Listener`] hears.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// These contexts have new entries, and readers see them.
    Grown(&'a [ContextId]),
    /// Any context may have new entries: a mirror has completed a head.
    Any,
    /// There is a newer head to be told to others.
    Head,
    /// The store has failed and acknowledges nothing any more.
    Failed,
}

/// Hears of changes on the writer's thread, right after readers can see them
/// and before anyone is answered: it must be quick and must not wait for the
/// store.
#[derive(Clone)]
pub struct Listener(pub Arc<dyn Fn(Change<'_>) + Send + Sync>);

impl Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// How many follow the heads of a store. Copies share the number.
#[derive(Clone, Debug, Default)]
pub struct Followers(Arc<AtomicUsize>);

impl Followers {
    /// One more, until what is returned is dropped.
    #[must_use]
    pub fn join(&self) -> Following {
        self.0.fetch_add(1, Ordering::Relaxed);
        Following(self.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One follower, for as long as it lives.
#[derive(Debug)]
pub struct Following(Followers);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hears how far opening has come.
#[derive(Clone)]
pub struct Progress(pub Arc<dyn Fn(u64) + Send + Sync>);

impl std::ops::Deref for Progress {
    type Target = dyn Fn(u64) + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl StoreOptions {
    /// Memory of the tail at which it is folded: one tail is folded while the
    /// next one fills.
    pub(crate) fn fold_bytes(&self) -> usize {
        TAIL_FOLD_BYTES.min(self.tail_bytes_max / 2)
    }

    /// The defaults for a process that runs a command and ends.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            reserve_bytes: 4 << 20,
            head_every: None,
            heartbeat_every: None,
            followers: None,
            checkpoint_every: Duration::from_secs(2),
            tail_bytes_max: TAIL_BYTES_MAX,
            progress: None,
            listener: None,
            clock,
        }
    }
}

/// A log that ends before something that vouches for it: bytes that were
/// durable are gone or changed. Never cut, never repaired here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The first place that cannot be read; the default one (segment 0) if it is
    /// no place in the log that is damaged.
    pub position: Position,
    /// The log was durable up to here.
    pub vouched: Position,
    /// What was found.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position == Position::default() {
            return f.write_str(&self.reason);
        }
        write!(
            f,
            "the log is damaged at {}: {}",
            self.position, self.reason
        )
    }
}

/// Why a store could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("could not {what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Its answer.
        error: Arc<io::Error>,
    },
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    Locked,
    /// There is no store in this directory.
    #[error("there is no store here")]
    NotAStore,
    /// There is a store in this directory already.
    #[error("there is a store here already")]
    AlreadyAStore,
    /// The store is of the other role, or pins another origin.
    #[error("this is the {role} of {origin}, not {wanted}")]
    WrongStore {
        /// What the store is.
        role: StoreRole,
        /// Whose it is.
        origin: String,
        /// What was asked for.
        wanted: String,
    },
    /// The signing key is not the one the store was made with.
    #[error("origin.key is {got}, but the store belongs to {expected}")]
    WrongKey {
        /// The store's origin.
        expected: String,
        /// The key at hand.
        got: String,
    },
    /// Bytes that were durable are gone or changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A record that was asked for does not verify.
    #[error("{position} does not verify: {error}")]
    Corrupt {
        /// Where it lies.
        position: Position,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// Records that verify contradict each other.
    #[error("{position} contradicts the log before it: {error}")]
    Inconsistent {
        /// Where the record lies.
        position: Position,
        /// What is wrong with it.
        error: Inconsistency,
    },
    /// A payload does not match the hash in its entry's header.
    #[error("the payload {hash} of entry {sequence} does not verify")]
    PayloadMismatch {
        /// The entry.
        sequence: u64,
        /// The payload's hash.
        hash: Hash,
    },
    /// The disk is full. Nothing was stored, nothing was lost.
    #[error("the disk is full: nothing of this was stored; free some space and try again")]
    DiskFull,
    /// The store has failed and must be opened anew.
    #[error("the store has failed and acknowledges nothing any more: {reason}")]
    Failed {
        /// The error that did it.
        reason: String,
    },
    /// Its own signature stands against what the store holds: it signs and
    /// stores nothing until its log is the newest again.
    #[error(transparent)]
    Frozen(#[from] Frozen),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// Too many requests wait.
    #[error("too many requests wait; try again")]
    Busy,
    /// The index has fallen behind the log by as much as memory may hold.
    #[error("the index has fallen behind: nothing of this was stored; try again")]
    Behind,
    /// The index cannot answer. Nothing is lost: it is made anew from the log.
    #[error("the index cannot answer and must be made anew from the log: {reason}")]
    IndexLost {
        /// What is wrong with it.
        reason: String,
    },
    /// The last process did not close the store, and what it left must be
    /// mended first.
    #[error("the store was not closed: a command that opens it must mend it first")]
    NotClosed,
    /// The state that a head of the past is about is not what the log held when
    /// the head came: only in a mirror that was ahead of it.
    #[error("the state that head {order} is about cannot be made again")]
    StateGone {
        /// The head.
        order: HeadOrder,
    },
    /// A mirror was asked to store something that does not continue it.
    #[error("cannot be stored: {0}")]
    Refused(&'static str),
    /// A verified run does not continue the store's own state.
    #[error("cannot be stored: {0}")]
    Run(RunError),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull
            || error.kind() == io::ErrorKind::QuotaExceeded
        {
            return Self::DiskFull;
        }
        Self::Io {
            what,
            error: Arc::new(error),
        }
    }

    /// Taking the store's lock failed.
    pub(crate) fn from_lock(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Locked,
            _ => Self::io("lock the store", error),
        }
    }

    pub(crate) fn from_write(error: log::WriteError) -> Self {
        match error {
            log::WriteError::Full(_) => Self::DiskFull,
            log::WriteError::Failed { what, error } => Self::Failed {
                reason: format!("{what}: {error}"),
            },
        }
    }

    /// True if bytes of the store are wrong, as opposed to out of reach.
    #[must_use]
    pub fn is_verification_failure(&self) -> bool {
        matches!(
            self,
            Self::Damaged(_)
                | Self::Corrupt { .. }
                | Self::Inconsistent { .. }
                | Self::PayloadMismatch { .. }
                | Self::Frozen(_)
        )
    }
}

/// Why an append stored nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The entry is outside its limits: the caller's fault.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The observed Lamport time was refused: the caller's fault.
    #[error(transparent)]
    Lamport(#[from] LamportError),
    /// The request id was used for another entry: the caller's fault.
    #[error("request id {request_id:?} was used before, with other content")]
    RequestIdReused {
        /// The id.
        request_id: String,
    },
    /// The request is larger than a group may be: the caller's fault.
    #[error("a request of {entries} entries and {bytes} bytes is too large")]
    TooLarge {
        /// Entries in it.
        entries: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// The context has as many entries as a context may have.
    #[error("the context is full")]
    ContextFull,
    /// The store is a mirror.
    #[error("this store mirrors {origin} and takes no entries of its own")]
    Mirror {
        /// Whose history it holds.
        origin: String,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where an entry went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Place in the context.
    pub sequence: u64,
    /// Leaf hash.
    pub id: Hash,
    /// Lamport time.
    pub lamport: u64,
    /// Wall clock, ns.
    pub appended_at_ns: u64,
    /// True if the request id was known and nothing new was stored.
    pub stored_before: bool,
}

impl Appended {
    /// The answer to a repeated request.
    pub(crate) fn again(&self) -> Self {
        Self {
            stored_before: true,
            ..self.clone()
        }
    }
}

/// Makes an empty store for `origin`. Key files are the caller's.
pub fn create(
    disk: &dyn disk::Disk,
    role: StoreRole,
    origin: &VerifierKey,
) -> Result<(), StoreError> {
    layout::create(disk, role, origin)
}

/// Role and pinned key of a store, without opening it.
pub fn peek(disk: &dyn disk::Disk) -> Result<(StoreRole, VerifierKey), StoreError> {
    layout::peek(disk)
}
