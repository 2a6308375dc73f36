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
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gauge::OriginGauge;
use super::link::{Board, Link, News, leave_all};
use super::mirror::{CatchUpError, Terms, log, sync_over};
use super::peer::Peer;
use super::quic::CloseCode;
use super::tls::NodeKey;
use crate::head::SignedHead;
use crate::ledger::{ReadMirror, StoreMirror};
use crate::note::VerifierKey;
use crate::sync::{LocalFault, MirrorLimits, Outcome, Report};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// A handshake must be over by then.
    pub connect_deadline: Duration,
    /// A frame must have come by then; see [`super::CatchUp::frame_deadline`].
    pub frame_deadline: Duration,
    /// A peer that does not tell heads is asked this often.
    pub poll_every: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(10),
            frame_deadline: Duration::from_secs(30),
            poll_every: Duration::from_secs(10),
        }
    }
}

/// How large the origin may become by the next sync: asked before each one.
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
    let code = outcome.as_ref().map_or_else(CatchUpError::code, |()| CloseCode::Done);
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
            let Some(report) = one_sync(store, config, gauge, (at, peer), news).await? else {
                continue;
            };
            let complete = complete_head(&**store)?;
            gauge.synced(at, &report, complete.as_ref());
            if matches!(report.outcome, Outcome::CaughtUp | Outcome::Current) {
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
    (at, peer): (usize, &Peer),
    news: News,
) -> Result<Option<Report>, CatchUpError> {
    let limits = (config.allowed)().map_err(|fault| CatchUpError::Sync(fault.into()))?;
    let terms = Terms {
        origin: config.origin.clone(),
        limits,
        frame_deadline: config.waiting.frame_deadline,
    };
    let shown = gauge.clone();
    let progress = move |progress| shown.progress(progress);
    let synced = sync_over(&news.connection, Arc::clone(store), terms, news.told, progress).await;
    log(peer.id, &synced);
    match synced {
        Ok(report) => Ok(Some(report)),
        Err(error) => {
            gauge.failed(at, &error);
            if !error.may_pass() {
                return Err(error);
            }
            leave_all(vec![news.connection], error.code()).await;
            Ok(None)
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
