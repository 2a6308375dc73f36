//! Layer 4. Drives one sync: the engine on a blocking thread, a task per
//! request, the store behind a callback.
//!
//! ```text
//!   stream tasks --Frame, End, Lost--> engine thread --Send--> stream tasks
//!   store        --Stored----------->               --ingest-> store
//! ```
//!
//! Invariants:
//! * the event queue is bounded although it never blocks a sender of `Stored`:
//!   a frame needs one of [`FRAMES_WAITING_MAX`] permits, and the engine has a
//!   bounded number of items being stored. (A bounded queue could lock up: the
//!   engine waits for room in the store, the store for room in the queue.)
//! * every wait on the peer has a deadline; a slow link may take longer than
//!   one, as long as it brings something, but not for ever;
//! * when the future is dropped, the engine thread is told and ends.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint, ReadError};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::frames::{FrameError, read_frame};
use super::quic::{self, CloseCode, EndpointError};
use super::tls::{NodeId, NodeKey, SERVER_NAME};
use crate::ledger::{ReadMirror, StoreMirror};
use crate::note::VerifierKey;
use crate::sync::mirror::REQUESTS_MAX;
use crate::sync::{
    LocalFault, Mirror, MirrorLimits, Output, PeerFault, Report, RequestId, StoreToken, SyncError,
};

/// Frames received that the engine has not looked at yet.
pub const FRAMES_WAITING_MAX: usize = 16;
/// A frame may take another deadline if the connection brought this much in
/// the one before: answers share a link, so a large frame can be slow although
/// the source is not. Far above what acknowledgements and keep-alives take.
const PROGRESS_BYTES_MIN: u64 = 32 << 10;
/// Deadlines a frame may take in all.
const DEADLINES_MAX: u32 = 60;
/// How long to wait for the source to hear that we are leaving.
const GOODBYE: Duration = Duration::from_millis(100);
/// How often to look whether it has.
const GOODBYE_LOOK: Duration = Duration::from_millis(1);

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
}

/// Why a sync ended without a report. What was stored stays.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// Keys or TLS could not be set up.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
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

    const fn code(&self) -> CloseCode {
        match self {
            Self::Sync(SyncError::Peer(_)) => CloseCode::Misbehaved,
            Self::TimedOut { .. } => CloseCode::TimedOut,
            Self::Sync(SyncError::Local(_)) | Self::Task => CloseCode::Internal,
            _ => CloseCode::Done,
        }
    }
}

enum Event {
    Frame(RequestId, Vec<u8>, OwnedSemaphorePermit),
    End(RequestId),
    Stored(StoreToken, Result<(), SyncError>),
    Lost(CatchUpError),
}

/// Tells the engine thread to end when the driver is dropped.
struct Hangup(UnboundedSender<Event>);

impl Drop for Hangup {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Lost(SyncError::Closed.into()));
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
    let client = quic::client_config(key, config.peer)?;
    let connecting = endpoint.connect_with(client, config.address, SERVER_NAME)?;
    let begun = Instant::now();
    let whole = config.sync_deadline.unwrap_or(Duration::MAX);
    let connection = timeout(config.connect_deadline.min(whole), connecting)
        .await
        .map_err(|_| CatchUpError::TimedOut {
            what: "the handshake",
        })??;
    tracing::debug!(peer = %config.peer, address = %config.address, "connected to source");
    let run = drive(&connection, store, config, progress);
    let result = match config.sync_deadline {
        None => run.await,
        Some(deadline) => timeout(deadline.saturating_sub(begun.elapsed()), run)
            .await
            .unwrap_or(Err(CatchUpError::TimedOut {
                what: "the whole sync",
            })),
    };
    match &result {
        Ok(report) => tracing::info!(
            peer = %config.peer,
            outcome = ?report.outcome,
            entries = report.entries,
            contexts_changed = report.contexts_changed,
            received_bytes = report.received_bytes,
            "sync done"
        ),
        Err(error) => tracing::warn!(peer = %config.peer, %error, "sync failed"),
    }
    let code = result
        .as_ref()
        .map_or_else(CatchUpError::code, |_| CloseCode::Done);
    leave(&connection, code).await;
    result
}

/// Closes the connection and waits until the source has said that it heard,
/// which takes one round trip. Not for the end of the draining period: that
/// is three probe timeouts, and serves packets that are late.
async fn leave(connection: &Connection, code: CloseCode) {
    if connection.close_reason().is_some() {
        return;
    }
    code.close(connection);
    let heard = async {
        while connection.stats().frame_rx.connection_close == 0 {
            tokio::time::sleep(GOODBYE_LOOK).await;
        }
    };
    let _ = timeout(GOODBYE, heard).await;
}

async fn drive<S: StoreMirror + 'static>(
    connection: &Connection,
    store: Arc<S>,
    config: &CatchUp,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Report, CatchUpError> {
    let (events, inbox) = mpsc::unbounded_channel();
    // Room for every request that can be open: the engine never waits here.
    let (asks, mut asked) = mpsc::channel(REQUESTS_MAX);
    let permits = Arc::new(Semaphore::new(FRAMES_WAITING_MAX));
    let _hangup = Hangup(events.clone());
    let (origin, limits, sender) = (config.origin.clone(), config.limits, events.clone());
    let mut engine = tokio::task::spawn_blocking(move || {
        let mirror = Mirror::new(store.view(), origin, limits);
        run_engine(mirror, &*store, inbox, &sender, &asks, progress)
    });
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            ended = &mut engine => return ended.unwrap_or(Err(CatchUpError::Task)),
            Some((request, frame)) = asked.recv() => {
                let (connection, permits) = (connection.clone(), Arc::clone(&permits));
                let (events, deadline) = (events.clone(), config.frame_deadline);
                streams.spawn(async move {
                    let read = read_answer(&connection, request, frame, deadline, &events, permits);
                    let event = match read.await {
                        Ok(()) => Event::End(request),
                        Err(error) => Event::Lost(error),
                    };
                    let _ = events.send(event);
                });
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Sends one request and passes on the frames of its answer.
async fn read_answer(
    connection: &Connection,
    request: RequestId,
    frame: Vec<u8>,
    deadline: Duration,
    events: &UnboundedSender<Event>,
    permits: Arc<Semaphore>,
) -> Result<(), CatchUpError> {
    let opening = async {
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&frame).await.map_err(lost_write)?;
        let _ = send.finish();
        Ok::<_, CatchUpError>(recv)
    };
    let mut recv = timeout(deadline, opening)
        .await
        .map_err(|_| CatchUpError::TimedOut { what: "a stream" })??;
    loop {
        let next = arrival(connection, deadline, read_frame(&mut recv)).await?;
        let Some(frame) = next.map_err(lost_read)? else {
            return Ok(());
        };
        // Waiting here is waiting for our own engine, not for the peer.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return Err(SyncError::Closed.into());
        };
        if events.send(Event::Frame(request, frame, permit)).is_err() {
            return Err(SyncError::Closed.into());
        }
    }
}

/// Waits for something of the peer: one deadline, or several as long as the
/// connection brings bytes at all.
async fn arrival<T>(
    connection: &Connection,
    deadline: Duration,
    next: impl Future<Output = T>,
) -> Result<T, CatchUpError> {
    let mut next = pin!(next);
    let received = || connection.stats().udp_rx.bytes;
    for _ in 0..DEADLINES_MAX {
        let before = received();
        if let Ok(next) = timeout(deadline, &mut next).await {
            return Ok(next);
        }
        if received().saturating_sub(before) < PROGRESS_BYTES_MIN {
            break;
        }
    }
    Err(CatchUpError::TimedOut { what: "a frame" })
}

fn lost_write(error: quinn::WriteError) -> CatchUpError {
    match error {
        quinn::WriteError::ConnectionLost(error) => error.into(),
        quinn::WriteError::Stopped(code) => CatchUpError::Reset {
            code: code.into_inner(),
        },
        _ => CatchUpError::Task,
    }
}

fn lost_read(error: FrameError) -> CatchUpError {
    match error {
        FrameError::Read(ReadError::ConnectionLost(error)) => error.into(),
        FrameError::Read(ReadError::Reset(code)) => CatchUpError::Reset {
            code: code.into_inner(),
        },
        FrameError::Read(_) => CatchUpError::Task,
        FrameError::Header(error) => SyncError::from(PeerFault::Malformed(error)).into(),
        FrameError::Cut => {
            let what = "the end of a frame";
            SyncError::from(PeerFault::EndedEarly { what }).into()
        }
    }
}

/// The engine's thread: events in, outputs carried out, until it is over.
fn run_engine<S: StoreMirror>(
    mut mirror: Mirror<'_, S::View>,
    store: &S,
    mut inbox: UnboundedReceiver<Event>,
    events: &UnboundedSender<Event>,
    asks: &mpsc::Sender<(RequestId, Vec<u8>)>,
    mut progress: impl FnMut(Progress),
) -> Result<Report, CatchUpError> {
    mirror.start();
    loop {
        while let Some(output) = mirror.poll_output() {
            match output {
                Output::Send { request, frame } => {
                    if asks.blocking_send((request, frame)).is_err() {
                        return Err(SyncError::Closed.into());
                    }
                }
                Output::Store { token, item } => {
                    let events = events.clone();
                    let done = move |result: Result<(), <S::View as ReadMirror>::Failure>| {
                        let result = result.map_err(|e| LocalFault::Store(Box::new(e)).into());
                        // Nobody listens any more once the sync is over.
                        let _ = events.send(Event::Stored(token, result));
                    };
                    store.ingest(item, Box::new(done));
                }
                Output::Done(report) => return Ok(report),
                Output::Fail(error) => return Err(error.into()),
            }
        }
        match inbox.blocking_recv() {
            Some(Event::Frame(request, frame, _permit)) => mirror.handle_frame(request, &frame),
            Some(Event::End(request)) => mirror.handle_end(request),
            Some(Event::Stored(token, Ok(()))) => mirror.handle_stored(token),
            Some(Event::Stored(_, Err(error))) => return Err(error.into()),
            Some(Event::Lost(error)) => return Err(error),
            None => return Err(SyncError::Closed.into()),
        }
        let (entries, received_bytes) = mirror.progress();
        progress(Progress {
            entries,
            received_bytes,
        });
    }
}
