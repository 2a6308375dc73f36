//! Layer 4. Serves a ledger to mirrors.
//!
//! ```text
//!  endpoint -> connection task (one per peer connection)
//!                 -> stream task: request, then frames one by one
//!                       -> blocking thread: Answer::next_frame
//! ```
//!
//! Invariants:
//! * connections, connections of one key, and answers under way are bounded;
//!   answers of one key too, so that a peer that asks and never reads cannot
//!   hold all places;
//! * a key is one node, whose store one process has open: a connection too
//!   many ends that key's oldest, which is what a killed process left behind;
//! * a request must arrive, and every frame be taken, within a deadline;
//! * a stream is finished only after the whole answer was written. On any
//!   error it is reset: dropping it would look like a clean end;
//! * a slow reader holds one frame of memory here, the runs read ahead of the next
//!   one, and what its windows allow.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::allow::Allowlist;
use super::followers::FollowerTable;
use super::frames::{FrameError, is_finished, read_frame};
use super::pace::Pace;
use super::quic::CloseCode;
use super::tls::{NodeId, peer_id};
use crate::ledger::ReadLedger;
use crate::store::Followers;
use crate::sync::message::{Refusal, Reply};
use crate::sync::{self, Answer, SourceError};

/// How long a shutdown waits for closed connections to be told.
const DRAIN: Duration = Duration::from_secs(3);
/// A frame may take another deadline if the connection took this much in the
/// one before: answers share a link.
const PROGRESS_BYTES_MIN: u64 = 32 << 10;
/// Deadlines a frame may take in all.
const DEADLINES_MAX: u32 = 60;

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Connections, handshakes included.
    pub connections_max: usize,
    /// Connections of one node key; one more ends the oldest.
    pub connections_per_peer_max: usize,
    /// Answers under way of one node key; more requests wait.
    pub answers_per_peer_max: usize,
    /// Answers under way, all peers together.
    pub answers_max: usize,
    /// Requests of one node key that are taken up in a second; more wait.
    pub requests_per_second_max: u32,
    /// A handshake must be over by then.
    pub handshake_deadline: Duration,
    /// A request must have arrived by then.
    pub request_deadline: Duration,
    /// A frame must have been taken by then; longer, but not for ever, if
    /// meanwhile the connection takes at least 32 KiB in each such time.
    pub frame_deadline: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_per_peer_max: 2,
            answers_per_peer_max: 16,
            answers_max: 128,
            requests_per_second_max: 20_000,
            handshake_deadline: Duration::from_secs(10),
            request_deadline: Duration::from_secs(10),
            frame_deadline: Duration::from_mins(1),
        }
    }
}

/// Why an answer was not finished.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("the request did not arrive in time")]
    RequestTimedOut,
    #[error("request: {0}")]
    Request(#[from] FrameError),
    #[error("request: {0}")]
    Malformed(#[from] crate::encoding::DecodeError),
    #[error("no request, or more than one, on a stream")]
    NotOne,
    #[error("a connection follows twice")]
    FollowsTwice,
    #[error("a frame was not taken in time")]
    FrameTimedOut,
    #[error("write: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("{0}")]
    Ledger(String),
}

impl AnswerError {
    const fn code(&self) -> CloseCode {
        match self {
            Self::RequestTimedOut | Self::FrameTimedOut => CloseCode::TimedOut,
            Self::Request(FrameError::Read(_)) | Self::Write(_) => CloseCode::Done,
            Self::Request(_) | Self::Malformed(_) | Self::NotOne | Self::FollowsTwice => {
                CloseCode::Misbehaved
            }
            Self::Ledger(_) => CloseCode::Internal,
        }
    }
}

/// Told the newest note of an asker, before it is answered. It is not verified,
/// and the call must be quick: whoever is told judges it later.
pub type Shown = Arc<dyn Fn(&NodeId, &[u8]) + Send + Sync>;

/// What followers are told from: the store that publishes the heads.
#[derive(Clone)]
pub struct News {
    /// Changes when there is a newer head.
    pub published: watch::Receiver<u64>,
    /// Who follows is counted here.
    pub followers: Followers,
}

/// What a server hears and tells beside its answers.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Told what askers show of their newest notes, on a blocking thread.
    pub shown: Option<Shown>,
    /// Told the note of a head that is complete with a follower, in the same way.
    pub acknowledged: Option<Shown>,
    /// Without it nobody can follow.
    pub news: Option<News>,
    /// Who follows is written down here.
    pub table: FollowerTable,
}

struct Shared<L> {
    ledger: Arc<L>,
    allowed: Allowlist,
    hooks: Hooks,
    limits: ServeLimits,
    answers: Arc<Semaphore>,
    peers: Peers,
}

type Peers = Mutex<HashMap<NodeId, Seats>>;

/// What the connections of one peer share.
struct Seats {
    /// Oldest first.
    connections: VecDeque<Connection>,
    answers: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// What the answers of one connection share.
struct Traffic {
    /// Of all connections of the key.
    answers: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// Bytes of frames the connection has taken.
    taken_bytes: AtomicU64,
    /// It follows, which it may once.
    follows: AtomicBool,
}

/// Answers mirrors until `shutdown` completes, then closes every connection.
/// Who is taken off `allowed` is cut off at once; it is the list of `endpoint`.
pub async fn serve<L: ReadLedger + 'static>(
    (endpoint, allowed): (Endpoint, Allowlist),
    ledger: Arc<L>,
    limits: ServeLimits,
    hooks: Hooks,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Arc::new(Shared {
        ledger,
        allowed,
        hooks,
        limits,
        answers: Arc::new(Semaphore::new(limits.answers_max)),
        peers: Mutex::new(HashMap::new()),
    });
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let incoming = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        if connections.len() >= limits.connections_max {
            incoming.refuse();
        } else if connections.len() * 2 >= limits.connections_max && incoming.may_retry() {
            // Under load an address has to prove that it can be answered.
            let _ = incoming.retry();
        } else {
            connections.spawn(connection(Arc::clone(&shared), incoming));
        }
    }
    endpoint.close(
        CloseCode::ShuttingDown.code(),
        CloseCode::ShuttingDown.reason(),
    );
    // Each task ends when its connection is closed. Ending it from here would
    // drop the connection first, and the peer would be told another code.
    let drained = timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
        endpoint.wait_idle().await;
    });
    if drained.await.is_err() {
        tracing::warn!("connections were still open at shutdown");
        connections.shutdown().await;
    }
}

/// Lists a connection of a peer for as long as it lives.
struct Seat<'a> {
    peers: &'a Peers,
    peer: NodeId,
    id: usize,
    answers: Arc<Semaphore>,
    pace: Arc<Pace>,
}

impl<'a> Seat<'a> {
    fn take(peers: &'a Peers, peer: NodeId, connection: &Connection, limits: &ServeLimits) -> Self {
        let mut table = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = table.entry(peer).or_insert_with(|| Seats {
            connections: VecDeque::new(),
            answers: Arc::new(Semaphore::new(limits.answers_per_peer_max)),
            pace: Arc::new(Pace::new(limits.requests_per_second_max)),
        });
        while seats.connections.len() >= limits.connections_per_peer_max.max(1)
            && let Some(oldest) = seats.connections.pop_front()
        {
            tracing::info!(%peer, "a new connection takes the place of this peer's oldest");
            CloseCode::Busy.close(&oldest);
        }
        seats.connections.push_back(connection.clone());
        Self {
            peers,
            peer,
            id: connection.stable_id(),
            answers: Arc::clone(&seats.answers),
            pace: Arc::clone(&seats.pace),
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut table = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = table.get_mut(&self.peer) {
            let others = |connection: &Connection| connection.stable_id() != self.id;
            seats.connections.retain(others);
            if seats.connections.is_empty() {
                table.remove(&self.peer);
            }
        }
    }
}

/// Of the key's answers, and of all of them.
type Places = (
    Result<OwnedSemaphorePermit, AcquireError>,
    Result<OwnedSemaphorePermit, AcquireError>,
);

impl Traffic {
    /// Waiting here is waiting for other answers, each bounded by deadlines:
    /// first for those of the same key, so that nobody queues up for more than a
    /// share of the places.
    async fn places(&self, all: &Arc<Semaphore>) -> Places {
        let own = Arc::clone(&self.answers).acquire_owned().await;
        (own, Arc::clone(all).acquire_owned().await)
    }
}

async fn connection<L: ReadLedger + 'static>(shared: Arc<Shared<L>>, incoming: Incoming) {
    let address = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(shared.limits.handshake_deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "handshake refused");
            return;
        }
        Err(_) => {
            tracing::info!(%address, "handshake timed out");
            return;
        }
    };
    // The verifier let it in, so there is a key.
    let Some(peer) = peer_id(&connection) else {
        return CloseCode::Misbehaved.close(&connection);
    };
    let seat = Seat::take(&shared.peers, peer, &connection, &shared.limits);
    let _listed = shared.hooks.table.connect(peer, address);
    tracing::debug!(%peer, %address, "mirror connected");
    tokio::select! {
        () = answer_streams(&shared, &connection, &seat) => (),
        () = shared.allowed.taken_off(&peer) => {
            tracing::info!(%peer, "taken off the allowlist: its connection is closed");
            CloseCode::NotAllowed.close(&connection);
        }
    }
}

async fn answer_streams<L: ReadLedger + 'static>(
    shared: &Arc<Shared<L>>,
    connection: &Connection,
    seat: &Seat<'_>,
) {
    let peer = seat.peer;
    let traffic = Arc::new(Traffic {
        answers: Arc::clone(&seat.answers),
        pace: Arc::clone(&seat.pace),
        taken_bytes: AtomicU64::new(0),
        follows: AtomicBool::new(false),
    });
    // No more than the streams the transport allows.
    let mut streams = JoinSet::new();
    loop {
        let (send, recv) = tokio::select! {
            Some(ended) = streams.join_next() => {
                if let Ok(Err(error)) = ended && end_connection(connection, peer, &error) {
                    return;
                }
                continue;
            }
            accepted = connection.accept_bi() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%peer, %error, "mirror gone");
                    return;
                }
            },
        };
        let shared = Arc::clone(shared);
        streams.spawn(stream(shared, peer, Arc::clone(&traffic), send, recv));
    }
}

/// Logs a failed answer; true if the whole connection is to end.
fn end_connection(connection: &Connection, peer: NodeId, error: &AnswerError) -> bool {
    let code = error.code();
    if code == CloseCode::Done {
        tracing::debug!(%peer, %error, "answer dropped");
    } else {
        tracing::warn!(%peer, %error, ?code, "answer failed");
    }
    if code == CloseCode::Misbehaved {
        code.close(connection);
        return true;
    }
    false
}

async fn stream<L: ReadLedger + 'static>(
    shared: Arc<Shared<L>>,
    peer: NodeId,
    traffic: Arc<Traffic>,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), AnswerError> {
    let result = answer(&shared, peer, &traffic, &mut send, &mut recv).await;
    if let Err(error) = &result {
        let code = error.code().code();
        let _ = send.reset(code);
        let _ = recv.stop(code);
    }
    result
}

async fn answer<L: ReadLedger + 'static>(
    shared: &Shared<L>,
    peer: NodeId,
    traffic: &Traffic,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), AnswerError> {
    let request = async {
        let frame = read_frame(recv, &AtomicU64::new(0))
            .await?
            .ok_or(AnswerError::NotOne)?;
        let only = is_finished(recv).await?;
        if only {
            Ok(frame)
        } else {
            Err(AnswerError::NotOne)
        }
    };
    let request = timeout(shared.limits.request_deadline, request)
        .await
        .map_err(|_| AnswerError::RequestTimedOut)??;
    let mut answer = sync::answer(&request)?;
    traffic.pace.wait().await;
    if answer.follows() {
        return follow(shared, peer, traffic, send, answer).await;
    }
    let mut places = traffic.places(&shared.answers).await;
    let mut told = false;
    loop {
        let tell = !std::mem::replace(&mut told, true);
        let next = next_frame(shared, peer, tell, answer, places).await?;
        (answer, places) = (next.answer, next.places);
        let Some(frame) = next.frame else {
            break;
        };
        hand_over(traffic, send, frame.into(), shared.limits.frame_deadline).await?;
    }
    // Fails only if the asker has lost interest, which harms nobody.
    let _ = send.finish();
    Ok(())
}

/// A frame that was made, and what it takes to make the next one.
struct Next {
    answer: Answer,
    frame: Option<Vec<u8>>,
    places: Places,
}

/// Makes the next frame on a blocking thread. Wherever the work is, the places
/// are: who hangs up does not free them while it goes on.
async fn next_frame<L: ReadLedger + 'static>(
    shared: &Shared<L>,
    peer: NodeId,
    tell: bool,
    mut answer: Answer,
    places: Places,
) -> Result<Next, AnswerError> {
    let ledger = Arc::clone(&shared.ledger);
    let hooks = tell.then(|| shared.hooks.clone());
    let next = tokio::task::spawn_blocking(move || {
        if let Some(Hooks {
            shown,
            acknowledged,
            ..
        }) = hooks
        {
            if let (Some(tell), Some(note)) = (shown, answer.shown_note()) {
                tell(&peer, note);
            }
            if let (Some(tell), Some(note)) = (acknowledged, answer.acknowledged_note()) {
                tell(&peer, note);
            }
        }
        let failed = |error: SourceError<L::Error>| AnswerError::Ledger(error.to_string());
        let mut frame = answer.next_frame(&*ledger).map_err(failed)?;
        // A push is a mebibyte at most, and is sent in one go.
        while answer.is_pushing()
            && let Some(frames) = &mut frame
            && let Some(next) = answer.next_frame(&*ledger).map_err(failed)?
        {
            frames.extend_from_slice(&next);
        }
        Ok(Next {
            answer,
            frame,
            places,
        })
    });
    next.await
        .map_err(|error| AnswerError::Ledger(error.to_string()))?
}

/// Tells heads until the connection ends or this node does. Holds a place only
/// while it reads the ledger; of heads that follow each other fast the newest.
async fn follow<L: ReadLedger + 'static>(
    shared: &Shared<L>,
    peer: NodeId,
    traffic: &Traffic,
    send: &mut SendStream,
    mut answer: Answer,
) -> Result<(), AnswerError> {
    let Some(News {
        mut published,
        followers,
    }) = shared.hooks.news.clone()
    else {
        let refused = Reply::Refused(Refusal::NotServed).encode()?;
        hand_over(traffic, send, refused.into(), shared.limits.frame_deadline).await?;
        let _ = send.finish();
        return Ok(());
    };
    if traffic.follows.swap(true, Ordering::Relaxed) {
        return Err(AnswerError::FollowsTwice);
    }
    let _following = followers.join();
    shared.hooks.table.follows(&peer);
    let mut told = false;
    loop {
        published.mark_unchanged();
        let places = traffic.places(&shared.answers).await;
        let tell = !std::mem::replace(&mut told, true);
        let next = next_frame(shared, peer, tell, answer, places).await?;
        drop(next.places);
        answer = next.answer;
        if let Some(frame) = next.frame {
            hand_over(traffic, send, frame.into(), shared.limits.frame_deadline).await?;
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() {
                break;
            },
            // The asker is not interested any more.
            _ = send.stopped() => return Ok(()),
        }
    }
    let _ = send.finish();
    Ok(())
}

/// Writes a frame: one deadline, or several as long as the connection takes
/// bytes at all.
async fn hand_over(
    traffic: &Traffic,
    send: &mut SendStream,
    frame: Bytes,
    deadline: Duration,
) -> Result<(), AnswerError> {
    let mut writing = std::pin::pin!(async {
        let mut left = [frame];
        while !left[0].is_empty() {
            let written = send.write_chunks(&mut left).await?;
            traffic
                .taken_bytes
                .fetch_add(written.bytes as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    for _ in 0..DEADLINES_MAX {
        let before = traffic.taken_bytes.load(Ordering::Relaxed);
        if let Ok(outcome) = timeout(deadline, &mut writing).await {
            return outcome;
        }
        let after = traffic.taken_bytes.load(Ordering::Relaxed);
        if after.saturating_sub(before) < PROGRESS_BYTES_MIN {
            break;
        }
    }
    Err(AnswerError::FrameTimedOut)
}
