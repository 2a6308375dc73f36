//! Layer 4. Drives one sync: the engine on a blocking thread, a task per
//! request (`drive`), the store behind a callback.
//!
//! ```text
//!   stream tasks --Frame, End, Lost--> engine thread --Send--> stream tasks
//!   store        --Stored----------->               --ingest-> store
//! ```
//!
//! Invariants: no bounded queue between engine and store: it could lock up,
//! since the engine waits for room in the store, and the store would wait for
//! room in the queue. The engine has a bounded number of items being stored.

use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint};
use tokio::time::{Instant, timeout};

pub use super::drive::FRAMES_WAITING_MAX;
use super::drive::{Ends, Event, connect, drive, leave};
use super::quic::{CloseCode, EndpointError};
use super::tls::{NodeId, NodeKey};
use crate::head::HeadOrder;
use crate::ledger::{Ingest, ReadMirror, StoreMirror};
use crate::note::VerifierKey;
use crate::sync::mirror::REQUESTS_MAX;
use crate::sync::{LocalFault, Mirror, MirrorLimits, Output, PeerFault, Report, SyncError, Told};

/// Whom to pull from, what to believe, how long to wait.
#[derive(Clone, Debug)]
pub struct CatchUp {
    /// Where the source listens.
    pub address: SocketAddr,
    /// The source's node key: whom we talk to.
    pub peer: NodeId,
    /// The origin's key: whose history we believe.
    pub origin: VerifierKey,
    /// How large the origin may be.
    pub limits: MirrorLimits,
    /// The handshake must be over by then.
    pub connect_deadline: Duration,
    /// After a request, and after each frame of its answer, the next whole
    /// frame or the end must have arrived by then; longer, but not for ever,
    /// if meanwhile the connection brings at least 32 KiB in each such time.
    pub frame_deadline: Duration,
    /// The whole sync, the handshake included, must be over by then.
    pub sync_deadline: Option<Duration>,
}

impl CatchUp {
    /// Default limits and deadlines.
    #[must_use]
    pub fn new(address: SocketAddr, peer: NodeId, origin: VerifierKey) -> Self {
        Self {
            address,
            peer,
            origin,
            limits: MirrorLimits::default(),
            connect_deadline: Duration::from_secs(10),
            frame_deadline: Duration::from_secs(30),
            sync_deadline: None,
        }
    }
}

/// How far a sync is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries verified.
    pub entries: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// The head that the source has shown, once it has been verified.
    pub target: Option<Target>,
}

/// What a sync is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Term and epoch.
    pub order: HeadOrder,
    /// Entries under it.
    pub entries: u64,
}

/// What one sync believes, takes and waits for.
pub(super) struct Terms {
    pub(super) origin: VerifierKey,
    pub(super) limits: MirrorLimits,
    pub(super) frame_deadline: Duration,
    pub(super) turn: Turn,
}

/// Syncs into one store take turns: one that is dropped goes on for a moment on
/// its thread, and what it has handed to the store is to be known to the next.
/// Copies are the same.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    /// Waits for the sync before, and for all that it has handed to the store.
    fn wait<S: StoreMirror>(&self, store: &S) -> Result<MutexGuard<'_, ()>, CatchUpError> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tell, told) = sync_channel(1);
        let nothing = Ingest::Payloads(Vec::new());
        let done = move |outcome| _ = tell.send(outcome);
        store.ingest(nothing, Box::new(done));
        match told.recv() {
            Ok(Ok(())) => Ok(turn),
            Ok(Err(error)) => {
                let fault = LocalFault::Store(Box::new(error));
                Err(SyncError::from(fault).into())
            }
            Err(_) => Err(CatchUpError::Task),
        }
    }
}

/// Why a sync ended without a report. What was stored stays.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// Keys or TLS could not be set up.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The name stands for no address, or nobody says for which.
    #[error("{address}: no address to call")]
    NoAddress {
        /// The name.
        address: String,
    },
    /// The address cannot be called.
    #[error("connecting: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// The connection was refused or lost. A source that does not know our
    /// key, or is not the one we pinned, shows here.
    #[error("connection: {0}")]
    Connection(#[from] ConnectionError),
    /// The source broke off an answer.
    #[error("the source broke off an answer with code {code}")]
    Reset {
        /// Its close code.
        code: u64,
    },
    /// The source was too slow.
    #[error("timed out: {what}")]
    TimedOut {
        /// What did not come.
        what: &'static str,
    },
    /// The sync itself failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A task of ours ended without a result.
    #[error("a task of the sync failed")]
    Task,
}

impl CatchUpError {
    /// True if it looks as if nobody who knows us is there: no answer, or
    /// none that got past the handshake. A source that closes the connection
    /// itself knows us, and one that is slow is there.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Connection(error) => !matches!(error, ConnectionError::ApplicationClosed(_)),
            Self::TimedOut { what } => matches!(what.as_bytes(), b"the handshake"),
            _ => false,
        }
    }

    /// True if it may be otherwise when it is tried again: it is the peer's, or
    /// the network's.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoAddress { .. }
            | Self::Connect(_)
            | Self::Connection(_)
            | Self::Reset { .. }
            | Self::TimedOut { .. }
            | Self::Sync(SyncError::Peer(_)) => true,
            Self::Endpoint(_) | Self::Sync(_) | Self::Task => false,
        }
    }

    pub(super) const fn code(&self) -> CloseCode {
        match self {
            Self::Sync(SyncError::Peer(_)) => CloseCode::Misbehaved,
            Self::TimedOut { .. } => CloseCode::TimedOut,
            Self::Sync(SyncError::Local(_)) | Self::Task => CloseCode::Internal,
            _ => CloseCode::Done,
        }
    }
}

/// Pulls from one source until its newest head is complete in `store`.
/// `progress` is called on the engine's thread, often; it must be quick.
pub async fn catch_up<S: StoreMirror + 'static>(
    endpoint: &Endpoint,
    key: &NodeKey,
    store: Arc<S>,
    config: &CatchUp,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Report, CatchUpError> {
    let place = (config.address, config.peer);
    let begun = Instant::now();
    let whole = config.sync_deadline.unwrap_or(Duration::MAX);
    let connection = connect(endpoint, key, place, config.connect_deadline.min(whole)).await?;
    let terms = Terms {
        origin: config.origin.clone(),
        limits: config.limits,
        frame_deadline: config.frame_deadline,
        turn: Turn::default(),
    };
    let run = sync_over(&connection, store, terms, None, progress);
    let left = |deadline: Duration| deadline.saturating_sub(begun.elapsed());
    let result = within(config.sync_deadline.map(left), run).await;
    log(config.peer, &result);
    let code = result
        .as_ref()
        .map_or_else(CatchUpError::code, |_| CloseCode::Done);
    leave(&connection, code).await;
    result
}

/// One sync over a connection, from the head that the source shows, or from what
/// it has told.
pub(super) async fn sync_over<S: StoreMirror + 'static>(
    connection: &Connection,
    store: Arc<S>,
    terms: Terms,
    told: Option<Told>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Report, CatchUpError> {
    let engine = move |ends: Ends| {
        let _turn = terms.turn.wait(&*store)?;
        let mut mirror = Mirror::new(store.view(), terms.origin, terms.limits);
        match told {
            Some(told) => mirror.start_from(told),
            None => mirror.start(),
        }
        run_engine(mirror, &*store, ends, progress)
    };
    drive(connection, terms.frame_deadline, REQUESTS_MAX, engine).await
}

/// Says how a sync ended.
fn log(peer: NodeId, result: &Result<Report, CatchUpError>) {
    match result {
        Ok(report) => tracing::info!(
            %peer,
            outcome = ?report.outcome,
            entries = report.entries,
            contexts_changed = report.contexts_changed,
            received_bytes = report.received_bytes,
            "sync done"
        ),
        Err(error) => alarm(peer, error),
    }
}

/// The same, unless it takes longer than the deadline.
pub(super) async fn within<R>(
    deadline: Option<Duration>,
    run: impl Future<Output = Result<R, CatchUpError>>,
) -> Result<R, CatchUpError> {
    let what = "the whole sync";
    match deadline {
        None => run.await,
        Some(deadline) => timeout(deadline, run)
            .await
            .unwrap_or(Err(CatchUpError::TimedOut { what })),
    }
}

/// Some faults are more than a failed sync.
pub(super) fn alarm(peer: NodeId, error: &CatchUpError) {
    match error {
        CatchUpError::Sync(SyncError::Forked(fork)) => {
            tracing::error!(%peer, verdict = %fork.verdict, "the origin signed two histories");
        }
        CatchUpError::Sync(SyncError::Peer(fault))
            if matches!(**fault, PeerFault::RetiredKey { .. }) =>
        {
            tracing::error!(%peer, %error, "a retired key of the origin is in use");
        }
        error => tracing::warn!(%peer, %error, "sync failed"),
    }
}

/// The thread of an engine that was started: events in, outputs carried out,
/// until it is over.
pub(super) fn run_engine<S: StoreMirror>(
    mut mirror: Mirror<'_, S::View>,
    store: &S,
    mut ends: Ends,
    mut progress: impl FnMut(Progress),
) -> Result<Report, CatchUpError> {
    let mut storing = 0usize;
    loop {
        while let Some(output) = mirror.poll_output() {
            match output {
                Output::Send { request, frame } => ends.send(request, frame)?,
                Output::Store { token, item } => {
                    let events = ends.events.clone();
                    let done = move |result: Result<(), <S::View as ReadMirror>::Failure>| {
                        let result = result.map_err(|e| LocalFault::Store(Box::new(e)).into());
                        // Nobody listens any more once the sync is over.
                        let _ = events.send(Event::Stored(token, result));
                    };
                    storing += 1;
                    store.ingest(item, Box::new(done));
                }
                Output::Done(report) => return Ok(report),
                Output::Fail(error) => {
                    progress(progress_of(&mirror));
                    if matches!(error, SyncError::Forked(_)) {
                        settle(&mut ends, storing)?;
                    }
                    return Err(error.into());
                }
            }
        }
        match ends.next()? {
            Event::Frame(request, frame, _permit) => mirror.handle_frame(request, &frame),
            Event::End(request) => mirror.handle_end(request),
            Event::Stored(token, stored) => {
                storing = storing.saturating_sub(1);
                stored?;
                mirror.handle_stored(token);
            }
            Event::Lost(error) => return Err(error),
        }
        progress(progress_of(&mirror));
    }
}

fn progress_of<M: ReadMirror>(mirror: &Mirror<'_, M>) -> Progress {
    let (entries, received_bytes) = mirror.progress();
    let target = mirror.target().map(|head| Target {
        order: head.order(),
        entries: head.head().entries,
    });
    Progress {
        entries,
        received_bytes,
        target,
    }
}

/// Waits until evidence is durable before anybody is told of it.
fn settle(ends: &mut Ends, mut storing: usize) -> Result<(), CatchUpError> {
    while storing > 0 {
        match ends.inbox.blocking_recv() {
            Some(Event::Stored(_, stored)) => {
                storing -= 1;
                stored?;
            }
            Some(Event::Lost(CatchUpError::Sync(SyncError::Closed))) | None => {
                return Err(SyncError::Closed.into());
            }
            // The peer has no say any more.
            Some(Event::Frame(..) | Event::End(_) | Event::Lost(_)) => {}
        }
    }
    Ok(())
}
