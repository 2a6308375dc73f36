//! Layer 4. A watch: a cursor over the store and a wake-up. There is no queue:
//! entries are taken from the store when the client takes them, so a slow
//! reader is slow and costs nothing.
//!
//! ```text
//! poll -> next entry of the page -> ... -> page used up or gone
//!           -> page shared by others | read one | wait to be woken -> poll
//! ```
//!
//! Invariants: sequences ascend; without a key none is left out, which is
//! checked on every page; all entries are of the place where the watch began; a
//! watch ends with a status, never just so.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio_stream::Stream;
use tonic::Status;

use super::config::{READ_TIME_MAX, WATCH_PAGE_BYTES, WATCH_PAGE_ENTRIES};
use super::convert;
use super::hub::{Phase, Seat};
use super::pages::Page;
use super::places::Place;
use super::proto::context::{Entry, WatchEvent};
use super::reads::Reads;
use super::status::RpcError;
use crate::entry::ContextId;
use crate::limits::RUN_ENTRIES_MAX;
use crate::store::{PageLimits, View};

/// Where a watcher is and what it wants.
pub(super) struct Cursor {
    /// Where it began, and stays.
    place: Arc<Place>,
    seat: Seat,
    reads: Arc<Reads>,
    key: Option<String>,
    /// The last sequence that was handed out or passed over.
    at: u64,
    page: Weak<Page>,
    /// It was said whose history this is.
    introduced: bool,
}

type Outcome = (Box<Cursor>, Result<Arc<Page>, Status>);

/// The stream of a watch.
pub(super) enum Watch {
    /// Entries may be at hand.
    Open(Box<Cursor>),
    /// A page is looked for.
    Looking(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// Has ended.
    Ended,
}

impl Watch {
    pub(super) fn new(
        place: Arc<Place>,
        id: ContextId,
        reads: Arc<Reads>,
        key: Option<String>,
        from: u64,
    ) -> Self {
        Self::Open(Box::new(Cursor {
            seat: place.hub().seat(id),
            place,
            reads,
            key,
            at: from,
            page: Weak::new(),
            introduced: false,
        }))
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match std::mem::replace(this, Self::Ended) {
                Self::Ended => return Poll::Ready(None),
                Self::Open(mut cursor) => {
                    let page = cursor.page.upgrade();
                    if let Some(entry) = page.and_then(|page| cursor.next_of(&page)) {
                        *this = Self::Open(cursor);
                        return Poll::Ready(Some(Ok(entry)));
                    }
                    *this = Self::Looking(Box::pin(cursor.look()));
                }
                Self::Looking(mut looking) => {
                    let Poll::Ready((mut cursor, found)) = looking.as_mut().poll(cx) else {
                        *this = Self::Looking(looking);
                        return Poll::Pending;
                    };
                    match found {
                        // Whatever becomes of the page, the watch advances.
                        Ok(page) => {
                            let entry = cursor.next_of(&page);
                            *this = Self::Open(cursor);
                            if let Some(entry) = entry {
                                return Poll::Ready(Some(Ok(entry)));
                            }
                        }
                        Err(status) => return Poll::Ready(Some(Err(status))),
                    }
                }
            }
        }
    }
}

impl Cursor {
    /// The next entry that a page has for this watcher.
    fn next_of(&mut self, page: &Arc<Page>) -> Option<WatchEvent> {
        let from = page.entries.partition_point(|e| e.sequence <= self.at);
        let wanted = |entry: &&Entry| self.key.as_ref().is_none_or(|key| *key == entry.key);
        if let Some(entry) = page.entries[from..].iter().find(wanted) {
            self.at = entry.sequence;
            self.page = Arc::downgrade(page);
            let mut event = WatchEvent {
                entry: Some(entry.clone()),
                origin: String::new(),
            };
            if !self.introduced {
                self.introduced = true;
                event.origin = self.place.origin().to_string();
            }
            return Some(event);
        }
        self.at = self.at.max(page.through);
        self.page = Weak::new();
        None
    }

    /// Waits for a page behind the cursor.
    async fn look(mut self: Box<Self>) -> Outcome {
        loop {
            self.seat.about_to_look();
            if let Some(status) = self.ended() {
                return (self, Err(status));
            }
            match self.find().await {
                Ok(Some(page)) => return (self, Ok(page)),
                Ok(None) => self.seat.changed().await,
                Err(error) => {
                    let status = error.into();
                    return (self, Err(status));
                }
            }
        }
    }

    /// Why the watch is over, if it is.
    fn ended(&self) -> Option<Status> {
        let why = match self.place.hub().phase() {
            Phase::Serving => return None,
            Phase::Closing => "the server is shutting down",
            Phase::Failed => "the store has failed and shows nothing new",
        };
        let at = self.at;
        Some(Status::unavailable(format!(
            "{why}: watch again from_sequence {at}, which misses nothing and repeats nothing"
        )))
    }

    /// A page behind the cursor: what another watcher has read, or a read.
    async fn find(&self) -> Result<Option<Arc<Page>>, RpcError> {
        let shared = || {
            let (pages, place) = (self.reads.pages(), self.place.number());
            pages.find(place, self.seat.id(), self.at, self.key.as_deref())
        };
        if let Some(page) = shared() {
            return Ok(Some(page));
        }
        let turn = self.seat.turn().await;
        if let Some(page) = shared() {
            return Ok(Some(page));
        }
        // Near the end everything is read, for others to share. Looking for a
        // key may take long: others do not wait for that.
        let (key, turn) = match &self.key {
            Some(key) if self.is_far_behind().await? => {
                drop(turn);
                (Some(key.clone()), None)
            }
            _ => (None, Some(turn)),
        };
        let page = self.read(key).await?;
        let kept = page.map(|page| self.reads.pages().keep(page));
        drop(turn);
        Ok(kept)
    }

    async fn is_far_behind(&self) -> Result<bool, RpcError> {
        let id = self.seat.id().clone();
        let size = self.reads.run_in(&self.place, move |view| view.size(&id));
        let size = size.await?;
        Ok(size.is_some_and(|size| size.saturating_sub(self.at) > RUN_ENTRIES_MAX as u64))
    }

    async fn read(&self, key: Option<String>) -> Result<Option<Page>, RpcError> {
        let (place, id, after) = (self.place.number(), self.seat.id().clone(), self.at);
        let read = move |view: &View| {
            if view.size(&id)?.is_none_or(|size| size <= after) {
                return Ok::<_, RpcError>(None);
            }
            let limits = PageLimits {
                entries: WATCH_PAGE_ENTRIES,
                bytes: WATCH_PAGE_BYTES,
                until: Some(Instant::now() + READ_TIME_MAX),
            };
            let page = view.page(&id, after, &limits, key.as_deref())?;
            let through = match page.next_after {
                0 => page.size,
                next => next,
            };
            let expected = (after + 1..=through).map(Some);
            let found = page.entries.iter().map(|entry| Some(entry.sequence));
            if key.is_none() && !expected.eq(found) {
                return Err(RpcError::Mistake("a page left entries out"));
            }
            Ok(Some(Page {
                place,
                id,
                key,
                after,
                through,
                entries: page.entries.into_iter().map(convert::entry).collect(),
            }))
        };
        self.reads.run_in(&self.place, read).await
    }
}
