//! Layer 4. One peer of an origin: connected as long as it can be, listened to,
//! and told what is complete here.
//!
//! ```text
//!  look up --> connect --> Follow --> head told --> board
//!     ^                      |   <-- Complete --- newest complete head
//!     +-- wait, longer each time, when the connection ends
//! ```
//!
//! Invariants:
//! * what is told is put on the board unread but for its order; the newest
//!   replaces what was there;
//! * a peer that tells nobody is asked every so often instead;
//! * the waits begin anew only after a connection that has brought something, or
//!   that has lasted: that a peer can be reached is not enough.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::drive::{connect, leave, lost_read, request_on};
use super::frames::{is_finished, read_frame};
use super::gauge::OriginGauge;
use super::keep_up::Waiting;
use super::mirror::CatchUpError;
use super::peer::Peer;
use super::quic::{self, CloseCode};
use super::tls::NodeKey;
use crate::head::{Head, HeadOrder};
use crate::note::Note;
use crate::sync::message::{Refusal, Request};
use crate::sync::{LocalFault, PeerFault, SyncError, Telling, Told};

/// A connection that lasted so long was a good one.
const LASTING: Duration = Duration::from_mins(1);
/// After a connection that failed.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(30),
};

/// News that is older than this comes before what is newer: a peer that always has
/// the newest head keeps nobody else from being heard.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something new of a peer: it is connected, or it has told a head.
pub(super) struct News {
    pub(super) connection: Connection,
    /// What it told; nothing if it is to be asked.
    pub(super) told: Option<Told>,
    /// Since when it has something that was not looked at.
    since: Instant,
}

/// What every peer has that is new, and who is connected.
pub(super) struct Board {
    places: Mutex<Vec<Place>>,
    /// Something was put up.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct Place {
    connection: Option<Connection>,
    news: Option<News>,
    /// A sync through it has brought something.
    good: bool,
}

impl Board {
    pub(super) fn new(peers: usize) -> Self {
        let places = (0..peers).map(|_| Place::default()).collect();
        Self {
            places: Mutex::new(places),
            changed: Notify::new(),
        }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, at: usize, connection: &Connection, told: Option<Told>) {
        if let Some(place) = self.places().get_mut(at) {
            place.connection = Some(connection.clone());
            let waiting = place.news.as_ref().map(|news| news.since);
            place.news = Some(News {
                connection: connection.clone(),
                told,
                since: waiting.unwrap_or_else(Instant::now),
            });
        }
        self.changed.notify_one();
    }

    /// The news that has waited for long, or that says it is the newest, and whose.
    pub(super) fn take(&self) -> Option<(usize, News)> {
        let mut places = self.places();
        let rank = |at: usize, place: &Place| {
            let news = place.news.as_ref()?;
            let waited = Some(news.since.elapsed()).filter(|waited| *waited > PATIENCE);
            // Of equals the one that was named first.
            Some((waited, news.told.as_ref().and_then(claimed), Reverse(at)))
        };
        let places = places.iter_mut().enumerate();
        let first = places
            .filter_map(|(at, place)| Some((rank(at, place)?, at, place)))
            .max_by_key(|(rank, _, _)| *rank);
        first.and_then(|(_, at, place)| Some((at, place.news.take()?)))
    }

    /// True if there is anything to be taken.
    pub(super) fn has_news(&self) -> bool {
        self.places().iter().any(|place| place.news.is_some())
    }

    /// A sync through it has brought something.
    pub(super) fn good(&self, at: usize) {
        if let Some(place) = self.places().get_mut(at) {
            place.good = true;
        }
    }

    /// The connection has ended; true if it was of use.
    fn end(&self, at: usize) -> bool {
        let mut places = self.places();
        let place = places.get_mut(at).map(std::mem::take);
        place.is_some_and(|place| place.good)
    }

    /// All connections there are.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let places = self.places();
        places
            .iter()
            .filter_map(|place| place.connection.clone())
            .collect()
    }
}

/// What the newest note says of itself. It decides who is asked first, and
/// nothing else.
fn claimed(told: &Told) -> Option<HeadOrder> {
    let note = Note::parse(told.notes.last()?).ok()?;
    Some(Head::parse(note.text()).ok()?.order())
}

/// One peer and what belongs to it.
pub(super) struct Link {
    pub(super) at: usize,
    pub(super) peer: Peer,
    pub(super) key: Arc<NodeKey>,
    pub(super) board: Arc<Board>,
    pub(super) gauge: OriginGauge,
    pub(super) waiting: Waiting,
    /// The note of the newest complete head, empty without one.
    pub(super) complete: watch::Receiver<Vec<u8>>,
}

impl Link {
    /// Connects, again and again.
    pub(super) async fn run(mut self) -> Infallible {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let error = self.live().await;
            let lasted = begun.elapsed() > LASTING;
            if self.board.end(self.at) || lasted {
                failures = 0;
            }
            self.gauge.lost(self.at, &error);
            let wait = RETRY.wait(failures);
            failures = failures.saturating_add(1);
            tracing::warn!(
                peer = %self.peer, %error, wait_ms = wait.as_millis(),
                "a peer is not connected; it will be tried again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, from the call to its end.
    async fn live(&mut self) -> CatchUpError {
        // Kept open as long as the connection.
        let (_endpoint, connection) = match self.call().await {
            Ok(connected) => connected,
            Err(error) => return error,
        };
        self.gauge.connected(self.at);
        self.board.put(self.at, &connection, None);
        let error = match self.converse(&connection).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        leave(&connection, error.code()).await;
        error
    }

    /// Tries every address the name has now.
    async fn call(&self) -> Result<(Endpoint, Connection), CatchUpError> {
        let mut last = CatchUpError::NoAddress {
            address: self.peer.address.clone(),
        };
        for address in self.peer.look_up().await {
            let endpoint = match quic::client(quic::any_address(address)) {
                Ok(endpoint) => endpoint,
                Err(error) => return Err(error.into()),
            };
            let place = (address, self.peer.id);
            let called = connect(&endpoint, &self.key, place, self.waiting.connect_deadline);
            match called.await {
                Ok(connection) => return Ok((endpoint, connection)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Listens and tells until the connection ends.
    async fn converse(&mut self, connection: &Connection) -> Result<Infallible, CatchUpError> {
        let newest = self.complete.borrow().clone();
        let mut stream = self
            .request(connection, &Request::Follow { newest })
            .await?;
        let (at, board) = (self.at, Arc::clone(&self.board));
        let poll_every = self.waiting.poll_every;
        let listening = async {
            let mut telling = Telling::default();
            while let Some(told) = listen(&mut stream, &mut telling).await? {
                board.put(at, connection, Some(told));
            }
            // It tells nobody.
            loop {
                tokio::time::sleep(poll_every).await;
                board.put(at, connection, None);
            }
        };
        let telling = self.tell(connection);
        tokio::select! {
            ended = listening => ended,
            ended = telling => ended,
            closed = connection.closed() => Err(closed.into()),
        }
    }

    /// Tells which head is complete here, each time there is another one.
    async fn tell(&self, connection: &Connection) -> Result<Infallible, CatchUpError> {
        let mut complete = self.complete.clone();
        complete.mark_changed();
        loop {
            if complete.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let note = complete.borrow_and_update().clone();
            if note.is_empty() {
                continue;
            }
            let mut stream = self
                .request(connection, &Request::Complete { note })
                .await?;
            let heard = tokio::time::timeout(self.waiting.frame_deadline, is_finished(&mut stream));
            let what = "the end of an answer";
            let heard = heard.await.map_err(|_| CatchUpError::TimedOut { what })?;
            if !heard.map_err(lost_read)? {
                return Err(SyncError::from(PeerFault::Surplus {
                    what: "an acknowledgement",
                })
                .into());
            }
        }
    }

    async fn request(
        &self,
        connection: &Connection,
        request: &Request,
    ) -> Result<RecvStream, CatchUpError> {
        let frame = request.encode();
        let frame = frame.map_err(|error| SyncError::from(LocalFault::Message(error)))?;
        request_on(connection, &frame, self.waiting.frame_deadline).await
    }
}

/// The next head that is told; none if the peer tells nobody. A source that has
/// nothing new says nothing, so there is no deadline but the connection's own.
async fn listen(
    stream: &mut RecvStream,
    telling: &mut Telling,
) -> Result<Option<Told>, CatchUpError> {
    let received = AtomicU64::new(0);
    loop {
        let frame = match read_frame(stream, &received).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(CatchUpError::TimedOut { what: "heads" }),
            Err(error) => return Err(lost_read(error)),
        };
        let refusal = Refusal::NotServed;
        match telling.frame(&frame) {
            Ok(Some(told)) => return Ok(Some(told)),
            Ok(None) => (),
            Err(fault) if fault == (PeerFault::Refused { refusal }) => return Ok(None),
            Err(fault) => return Err(SyncError::from(fault).into()),
        }
    }
}

/// Closes them all and waits, not for long, until the peers have heard.
pub(super) async fn leave_all(connections: Vec<Connection>, code: CloseCode) {
    let mut leaving = tokio::task::JoinSet::new();
    for connection in connections {
        leaving.spawn(async move { leave(&connection, code).await });
    }
    while leaving.join_next().await.is_some() {}
}
