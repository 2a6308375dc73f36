//! Layer 4. Keeps a mirror up to date through any of an origin's peers.
//!
//! ```text
//!  peer -- link --+
//!  peer -- link --+--> board --(newest first)--> one sync at a time --> store
//!  peer -- link --+                                   |
//!     ^------------- closed, with a reason -----------+ a peer's fault
//! ```
//!
//! Every head that any peer tells is judged against what is held, so peers that
//! show different histories meet here: a contradiction becomes evidence
//! (`sync`), whoever told it.
//!
//! Invariants:
//! * one sync at a time: what a sync stores, the next one begins with;
//! * a peer's fault ends its connection, and it is tried again later; the next
//!   peer goes on where it stopped;
//! * a fault of this side, or of the origin, ends all of it: no other peer can
//!   mend those. What was verified and stored stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gauge::OriginGauge;
use super::link::{Board, Link, News, leave_all};
use super::mirror::{CatchUpError, Progress, Terms, Turn, alarm, sync_over};
use super::peer::Peer;
use super::quic::CloseCode;
use super::quota::MEASURE_EVERY;
use super::tls::NodeKey;
use crate::head::SignedHead;
use crate::ledger::{ReadMirror, StoreMirror};
use crate::note::VerifierKey;
use crate::sync::{LocalFault, MirrorLimits, Outcome, Report, SyncError};

/// What brings less than this in [`Waiting::slow_after`] is left for another peer
/// that has news.
const SLOW_BYTES: u64 = 640 << 10;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// A handshake must be over by then.
    pub connect_deadline: Duration,
    /// A frame must have come by then; see [`super::CatchUp::frame_deadline`].
    pub frame_deadline: Duration,
    /// A peer that does not tell heads is asked this often.
    pub poll_every: Duration,
    /// A sync that brings less than 640 KiB in this time ends, if another peer has
    /// news.
    pub slow_after: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(10),
            frame_deadline: Duration::from_secs(30),
            poll_every: Duration::from_secs(10),
            slow_after: Duration::from_secs(10),
        }
    }
}

/// How large the origin may become by the next sync: asked before each one, and
/// while it goes on.
pub type Allowed = Arc<dyn Fn() -> Result<MirrorLimits, LocalFault> + Send + Sync>;

/// What is kept up to date, and how.
#[derive(Clone)]
pub struct KeepUp {
    /// Whose history is believed.
    pub origin: VerifierKey,
    /// Whom to ask for it: the first ones are preferred.
    pub peers: Vec<Peer>,
    /// What a sync may bring.
    pub allowed: Allowed,
    /// How long things may take.
    pub waiting: Waiting,
    /// One for each store, whatever follows it.
    pub turn: Turn,
}

/// Follows an origin until `shutdown`, or until something is wrong that no other
/// peer can mend. `done` hears of every sync that ended well.
pub async fn keep_up<S: StoreMirror + 'static>(
    key: Arc<NodeKey>,
    store: Arc<S>,
    config: &KeepUp,
    gauge: &OriginGauge,
    mut done: impl FnMut(&Peer, &Report),
    shutdown: impl Future<Output = ()>,
) -> Result<(), CatchUpError> {
    let (tell, complete) = watch::channel(note(complete_head(&*store)?.as_ref()));
    let board = Arc::new(Board::new(config.peers.len()));
    let mut links = JoinSet::new();
    for (at, peer) in config.peers.iter().enumerate() {
        let link = Link {
            at,
            peer: peer.clone(),
            key: Arc::clone(&key),
            board: Arc::clone(&board),
            gauge: gauge.clone(),
            waiting: config.waiting,
            complete: complete.clone(),
        };
        links.spawn(link.run());
    }
    let following = syncs(&store, config, gauge, &board, &tell, &mut done);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        ended = following => ended.map(|never| match never {}),
        // A link does not end by itself.
        Some(_) = links.join_next() => Err(CatchUpError::Task),
    };
    let code = outcome
        .as_ref()
        .map_or_else(CatchUpError::code, |()| CloseCode::Done);
    leave_all(board.connections(), code).await;
    links.shutdown().await;
    outcome
}

/// One sync after the other, as there is news.
async fn syncs<S: StoreMirror + 'static>(
    store: &Arc<S>,
    config: &KeepUp,
    gauge: &OriginGauge,
    board: &Board,
    tell: &watch::Sender<Vec<u8>>,
    done: &mut impl FnMut(&Peer, &Report),
) -> Result<Infallible, CatchUpError> {
    loop {
        while let Some((at, news)) = board.take() {
            let Some(peer) = config.peers.get(at) else {
                continue;
            };
            // What it told before it was dropped: why, is known already.
            if news.connection.close_reason().is_some() {
                continue;
            }
            let synced = one_sync(store, config, gauge, board, (at, peer), news);
            let Some(report) = synced.await? else {
                continue;
            };
            let complete = complete_head(&**store)?;
            gauge.synced(at, &report, complete.as_ref());
            if report.outcome == Outcome::CaughtUp {
                board.good(at);
            }
            let note = note(complete.as_ref());
            tell.send_if_modified(|told| std::mem::replace(told, note) != *told);
            done(peer, &report);
        }
        board.changed.notified().await;
    }
}

/// A sync with one peer; no report if the peer failed.
async fn one_sync<S: StoreMirror + 'static>(
    store: &Arc<S>,
    config: &KeepUp,
    gauge: &OriginGauge,
    board: &Board,
    (at, peer): (usize, &Peer),
    news: News,
) -> Result<Option<Report>, CatchUpError> {
    let limits = (config.allowed)().map_err(|fault| CatchUpError::Sync(fault.into()))?;
    let terms = Terms {
        origin: config.origin.clone(),
        limits,
        frame_deadline: config.waiting.frame_deadline,
        turn: config.turn.clone(),
    };
    let (shown, received) = (gauge.clone(), Arc::new(AtomicU64::new(0)));
    let (brought, verified) = (Arc::clone(&received), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&verified);
    let progress = move |progress: Progress| {
        brought.store(progress.received_bytes, Ordering::Relaxed);
        counted.store(progress.entries, Ordering::Relaxed);
        shown.progress(progress);
    };
    let sync = sync_over(
        &news.connection,
        Arc::clone(store),
        terms,
        news.told,
        progress,
    );
    let synced = tokio::select! {
        synced = sync => synced,
        fault = outgrown(&config.allowed) => Err(SyncError::from(fault).into()),
        () = outpaced(&received, board, config.waiting.slow_after) => {
            let what = "more bytes, and another peer has news";
            Err(CatchUpError::TimedOut { what })
        }
    };
    match synced {
        Ok(report) => {
            // One for each head: an origin that is busy has ten a second.
            let (outcome, entries) = (report.outcome, report.entries);
            tracing::debug!(peer = %peer.id, ?outcome, entries, "sync done");
            Ok(Some(report))
        }
        Err(error) => {
            alarm(peer.id, &error);
            gauge.failed(at, &error);
            if verified.load(Ordering::Relaxed) > 0 {
                // It broke off, and has brought the mirror further all the same.
                board.good(at);
            }
            if !error.may_pass() {
                return Err(error);
            }
            leave_all(vec![news.connection], error.code()).await;
            Ok(None)
        }
    }
}

/// Ends when the origin, or anybody else, has taken what room there was.
async fn outgrown(allowed: &Allowed) -> LocalFault {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        if let Err(fault) = allowed() {
            return fault;
        }
    }
}

/// Ends when a sync has brought little for a while, and another peer has news: a
/// peer that is slow, but not too slow for its deadlines, keeps nobody waiting.
async fn outpaced(received: &AtomicU64, board: &Board, slow_after: Duration) {
    loop {
        let before = received.load(Ordering::Relaxed);
        tokio::time::sleep(slow_after).await;
        let brought = received.load(Ordering::Relaxed).saturating_sub(before);
        if brought < SLOW_BYTES && board.has_news() {
            return;
        }
    }
}

fn complete_head<S: StoreMirror>(store: &S) -> Result<Option<SignedHead>, CatchUpError> {
    let complete = store.view().complete_head();
    complete.map_err(|error| CatchUpError::Sync(LocalFault::read(error)))
}

fn note(head: Option<&SignedHead>) -> Vec<u8> {
    head.map(SignedHead::note_bytes).unwrap_or_default()
}
