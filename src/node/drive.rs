//! Layer 4. What every engine that asks a source needs: a connection, the
//! engine on a blocking thread, a task per request.
//!
//! ```text
//!   stream tasks --Frame, End, Lost--> engine thread --Send--> stream tasks
//! ```
//!
//! Invariants:
//! * the event queue is bounded although it never blocks a sender: a frame needs
//!   one of [`FRAMES_WAITING_MAX`] permits, and whatever else is in it, the
//!   engine has a bounded number of;
//! * every wait on the peer has a deadline; a slow link may take longer than
//!   one, as long as it brings something, but not for ever;
//! * when the future is dropped, the engine thread is told and ends.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::{Connection, Endpoint, ReadError, RecvStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frames::{FrameError, read_frame};
use super::mirror::CatchUpError;
use super::quic::{self, CloseCode};
use super::tls::{NodeId, NodeKey, SERVER_NAME};
use crate::sync::{PeerFault, RequestId, StoreToken, SyncError};

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

/// What an engine is told.
pub(super) enum Event {
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

/// What the engine's thread has: what it is told, and how it asks.
pub(super) struct Ends {
    pub(super) inbox: UnboundedReceiver<Event>,
    /// For events that do not come from the peer.
    pub(super) events: UnboundedSender<Event>,
    asks: mpsc::Sender<(RequestId, Vec<u8>)>,
}

impl Ends {
    /// Has a request sent; the engine never waits here.
    pub(super) fn send(&self, request: RequestId, frame: Vec<u8>) -> Result<(), CatchUpError> {
        let sent = self.asks.blocking_send((request, frame));
        sent.map_err(|_| SyncError::Closed.into())
    }

    /// The next event, as it is: an error ends the engine.
    pub(super) fn next(&mut self) -> Result<Event, CatchUpError> {
        match self.inbox.blocking_recv() {
            Some(Event::Lost(error)) => Err(error),
            Some(event) => Ok(event),
            None => Err(SyncError::Closed.into()),
        }
    }
}

/// Calls a source.
pub(super) async fn connect(
    endpoint: &Endpoint,
    key: &NodeKey,
    (address, peer): (SocketAddr, NodeId),
    deadline: Duration,
) -> Result<Connection, CatchUpError> {
    let client = quic::client_config(key, peer)?;
    let connecting = endpoint.connect_with(client, address, SERVER_NAME)?;
    let connection =
        timeout(deadline, connecting)
            .await
            .map_err(|_| CatchUpError::TimedOut {
                what: "the handshake",
            })??;
    tracing::debug!(%peer, %address, "connected to source");
    Ok(connection)
}

/// Runs an engine, which has at most `requests_max` requests open, on a thread
/// of its own until it is over.
pub(super) async fn drive<R: Send + 'static>(
    connection: &Connection,
    frame_deadline: Duration,
    requests_max: usize,
    engine: impl FnOnce(Ends) -> Result<R, CatchUpError> + Send + 'static,
) -> Result<R, CatchUpError> {
    let (events, inbox) = mpsc::unbounded_channel();
    // Room for every request that can be open: the engine never waits here.
    let (asks, mut asked) = mpsc::channel(requests_max);
    let permits = Arc::new(Semaphore::new(FRAMES_WAITING_MAX));
    let received = Arc::new(AtomicU64::new(0));
    let _hangup = Hangup(events.clone());
    let ends = Ends {
        inbox,
        events: events.clone(),
        asks,
    };
    let mut engine = tokio::task::spawn_blocking(move || engine(ends));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            ended = &mut engine => return ended.unwrap_or(Err(CatchUpError::Task)),
            Some((request, frame)) = asked.recv() => {
                let (connection, permits) = (connection.clone(), Arc::clone(&permits));
                let (events, received) = (events.clone(), Arc::clone(&received));
                streams.spawn(async move {
                    let waits = Waits { deadline: frame_deadline, received: &received };
                    let read = read_answer(&connection, request, frame, waits, &events, permits);
                    let event = match read.await {
                        Ok(()) => Event::End(request),
                        Err(error) => Event::Lost(error),
                    };
                    let _ = events.send(event);
                });
            }
            Some(ended) = streams.join_next() => if ended.is_err() {
                // Its request would never be answered.
                return Err(CatchUpError::Task);
            },
        }
    }
}

/// Closes the connection and waits until the source has said that it heard,
/// which takes one round trip. Not for the end of the draining period: that
/// is three probe timeouts, and serves packets that are late.
pub(super) async fn leave(connection: &Connection, code: CloseCode) {
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

/// Opens a stream and sends a whole request on it.
pub(super) async fn request_on(
    connection: &Connection,
    frame: &[u8],
    deadline: Duration,
) -> Result<RecvStream, CatchUpError> {
    let opening = async {
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(frame).await.map_err(lost_write)?;
        let _ = send.finish();
        Ok(recv)
    };
    timeout(deadline, opening)
        .await
        .map_err(|_| CatchUpError::TimedOut { what: "a stream" })?
}

/// Sends one request and passes on the frames of its answer.
async fn read_answer(
    connection: &Connection,
    request: RequestId,
    frame: Vec<u8>,
    waits: Waits<'_>,
    events: &UnboundedSender<Event>,
    permits: Arc<Semaphore>,
) -> Result<(), CatchUpError> {
    let mut recv = request_on(connection, &frame, waits.deadline).await?;
    loop {
        let next = waits.frame(&mut recv).await?;
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

/// How long frames may take on one connection.
#[derive(Clone, Copy)]
pub(super) struct Waits<'c> {
    pub(super) deadline: Duration,
    /// Bytes of frames that the connection has brought. Packets without any
    /// do not count: anybody can send those for ever.
    pub(super) received: &'c AtomicU64,
}

impl Waits<'_> {
    /// Waits for a frame: one deadline, or several as long as the connection
    /// brings bytes of frames at all.
    pub(super) async fn frame(
        self,
        recv: &mut RecvStream,
    ) -> Result<Result<Option<Vec<u8>>, FrameError>, CatchUpError> {
        let mut next = pin!(read_frame(recv, self.received));
        let received = || self.received.load(Ordering::Relaxed);
        for _ in 0..DEADLINES_MAX {
            let before = received();
            if let Ok(next) = timeout(self.deadline, &mut next).await {
                return Ok(next);
            }
            if received().saturating_sub(before) < PROGRESS_BYTES_MIN {
                break;
            }
        }
        Err(CatchUpError::TimedOut { what: "a frame" })
    }
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

pub(super) fn lost_read(error: FrameError) -> CatchUpError {
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
