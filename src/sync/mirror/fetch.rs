//! Layer 3. The fetching half of the mirror: which contexts, spans and
//! payloads are asked for, held and stored, within fixed budgets.
//!
//! ```text
//!  openings --> Active --(Entries)--> verified spans --> `held` --> store
//!     ^            |
//!     +-- again <--+
//! ```
//!
//! Invariants:
//! * a request is made only when the whole of its answer fits: spans have one
//!   budget, payloads another, so that spans that wait for payloads can never
//!   keep the payloads out;
//! * one request per context at a time; contexts take turns;
//! * spans of a context are stored in order; a span goes to the store when
//!   every payload it needs is stored or went there before it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::held::{Held, Payload, SpanKey};
use super::{Asked, Mirror, SyncError, accuse, blame};
use crate::directory::Opening;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::ReadMirror;
use crate::limits::{PAYLOAD_BYTES_MAX, SPAN_BYTES_MAX};
use crate::run::{Accumulator, CheckedSpan, SignedContext};
use crate::sync::error::{LocalFault, PeerFault};
use crate::sync::message::{FRAME_HEADER_BYTES, Reply, Request};
use crate::sync::{ENTRIES_ANSWER_BYTES, ENTRIES_ANSWER_SPANS};

/// Contexts being fetched at a time, each by one request.
pub(crate) const ENTRIES_REQUESTS_MAX: usize = 16;
/// Payload requests in flight.
pub(crate) const PAYLOAD_REQUESTS_MAX: usize = 8;
/// The most bytes of spans one request can bring.
pub(crate) const ANSWER_BYTES_MAX: usize =
    ENTRIES_ANSWER_BYTES + FRAME_HEADER_BYTES + SPAN_BYTES_MAX;
/// Bytes of spans that are on their way, held or being stored.
pub(crate) const SPANS_BYTES_MAX: usize = 64 << 20;
/// Spans that are on their way, held or being stored.
pub(crate) const SPANS_MAX: usize = 512;
/// Bytes of payloads asked for in one request, unless it is a single one.
pub(crate) const PAYLOAD_REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Bytes of payloads that are on their way or being stored.
pub(crate) const PAYLOADS_BYTES_MAX: u64 = 32 << 20;

const _: () = {
    assert!(ENTRIES_REQUESTS_MAX * ANSWER_BYTES_MAX <= SPANS_BYTES_MAX + (1 << 20));
    assert!(ENTRIES_REQUESTS_MAX * ENTRIES_ANSWER_SPANS <= SPANS_MAX);
    assert!(PAYLOAD_BYTES_MAX as u64 <= PAYLOAD_REQUEST_BYTES_MAX);
    assert!(PAYLOAD_REQUEST_BYTES_MAX <= PAYLOADS_BYTES_MAX);
};

/// A context under way: what is signed, and how far the proven runs go.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) signed: SignedContext,
    pub(super) own: Accumulator,
    /// True once a span has shown that `own` is a beginning of the signed tree.
    pub(super) extends: bool,
    begun: bool,
    received: Budget,
}

/// Room taken by spans.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    pub(super) spans: usize,
}

impl Budget {
    const ANSWER: Self = Self {
        bytes: ANSWER_BYTES_MAX,
        spans: ENTRIES_ANSWER_SPANS,
    };

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.spans += other.spans;
    }

    fn release(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.spans = self.spans.saturating_sub(other.spans);
    }

    fn answer_is_full(self) -> bool {
        self.bytes >= ENTRIES_ANSWER_BYTES || self.spans >= ENTRIES_ANSWER_SPANS
    }
}

/// What becomes free, and what is known to be durable, with a store token.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) spans: Budget,
    pub(super) payload_bytes: u64,
    pub(super) payloads: Vec<Hash>,
}

/// Everything under way.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    openings: VecDeque<Opening>,
    again: VecDeque<Active>,
    /// Contexts in flight or in `again`.
    active: usize,
    in_flight: usize,
    pub(super) spans: Budget,
    pub(super) held: BTreeMap<SpanKey, Held>,
    pub(super) lines: HashMap<ContextId, VecDeque<SpanKey>>,
    pub(super) payloads: HashMap<Hash, Payload>,
    /// Spans with payloads to ask for.
    pub(super) lacking: VecDeque<SpanKey>,
    pub(super) payload_bytes: u64,
    pub(super) payload_requests: usize,
    pub(super) next_key: u64,
}

impl Fetch {
    pub(super) fn new(openings: Vec<Opening>) -> Self {
        Self {
            openings: openings.into(),
            ..Self::default()
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.openings.is_empty() && self.active == 0 && self.held.is_empty()
    }

    pub(super) fn stored(&mut self, stored: Stored) {
        self.spans.release(stored.spans);
        self.payload_bytes = self.payload_bytes.saturating_sub(stored.payload_bytes);
        for hash in stored.payloads {
            self.payloads.remove(&hash);
        }
    }

    fn room_for_answer(&self) -> bool {
        let mut after = self.spans;
        after.add(Budget::ANSWER);
        after.bytes <= SPANS_BYTES_MAX.max(ENTRIES_REQUESTS_MAX * ANSWER_BYTES_MAX)
            && after.spans <= SPANS_MAX
    }

    /// The answer is over: it must have been as long as it could be.
    pub(super) fn entries_ended(&mut self, mut active: Active) -> Result<(), SyncError> {
        let whole = active.own.size() == active.signed.size;
        if !active.begun || !(whole || active.received.answer_is_full()) {
            let what = "all entries";
            return Err(PeerFault::EndedEarly { what }.into());
        }
        // What was received has been moved to held spans.
        let mut unused = Budget::ANSWER;
        unused.release(active.received);
        self.spans.release(unused);
        self.in_flight -= 1;
        if whole {
            self.active -= 1;
        } else {
            active.received = Budget::default();
            active.begun = false;
            self.again.push_back(active);
        }
        Ok(())
    }
}

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Asks for as much as the budgets allow.
    pub(super) fn pump_fetch(&mut self) -> Result<(), SyncError> {
        while let Some(request) = self.fetch.next_payloads() {
            let hashes = request.wanted.iter().map(|(hash, _)| *hash).collect();
            self.ask(&Request::Payloads { hashes }, Asked::Payloads(request))?;
        }
        while self.fetch.in_flight < ENTRIES_REQUESTS_MAX && self.fetch.room_for_answer() {
            let Some(active) = self.next_context()? else {
                break;
            };
            self.fetch.in_flight += 1;
            self.fetch.spans.add(Budget::ANSWER);
            let request = Request::Entries {
                context: active.signed.id.clone(),
                after_sequence: active.own.size(),
                size: active.signed.size,
            };
            self.ask(&request, Asked::Entries(active))?;
        }
        Ok(())
    }

    /// The next context to fetch: new ones until all places are taken, so that
    /// a few long ones do not hold up the rest, then those under way in turn.
    fn next_context(&mut self) -> Result<Option<Active>, SyncError> {
        while self.fetch.active < ENTRIES_REQUESTS_MAX
            && let Some(opening) = self.fetch.openings.pop_front()
        {
            let id = ContextId::new(&opening.id).map_err(invalid_id)?;
            let own = self.ledger.accumulator(&id).map_err(LocalFault::read)?;
            if self.is_present(&id, &opening, &own)? {
                continue;
            }
            self.fetch.active += 1;
            return Ok(Some(Active {
                signed: SignedContext {
                    id,
                    size: opening.size,
                    root: opening.root,
                },
                extends: own.size() == 0,
                own,
                begun: false,
                received: Budget::default(),
            }));
        }
        Ok(self.fetch.again.pop_front())
    }

    /// True if nothing of the context is missing; more of it may be held, which
    /// was proven under a later head. What was proven under a head at hand has
    /// been compared already, so no note proves a difference here.
    fn is_present(
        &self,
        id: &ContextId,
        opening: &Opening,
        own: &Accumulator,
    ) -> Result<bool, SyncError> {
        if own.size() < opening.size {
            return Ok(false);
        }
        let root = self.ledger.root_at(id, opening.size);
        if root.map_err(LocalFault::read)? == Some(opening.root) {
            return Ok(true);
        }
        let what = format!("context {id}: another one is held already");
        Err(accuse::disputed(&what))
    }

    /// A frame of an entries answer; a dispute if the span does not fold and
    /// only a consistency proof can tell whose fault that is.
    pub(super) fn entries_frame(
        &mut self,
        active: &mut Active,
        reply: Reply<'_>,
        frame_bytes: usize,
    ) -> Result<Option<blame::Dispute>, SyncError> {
        let wrong = |what| Err(PeerFault::WrongReply { what }.into());
        let bytes = match reply {
            Reply::EntriesBegin { .. } if active.begun => return wrong("a second beginning"),
            Reply::EntriesBegin {
                context,
                after_sequence,
                size,
            } => {
                if context != active.signed.id {
                    return wrong("entries of another context");
                }
                if after_sequence != active.own.size() || size != active.signed.size {
                    return wrong("other sizes");
                }
                active.begun = true;
                return Ok(None);
            }
            Reply::Span(bytes) if active.begun => bytes,
            _ => return wrong("no beginning of entries"),
        };
        if active.own.size() == active.signed.size || active.received.answer_is_full() {
            let what = "the entries";
            return Err(PeerFault::Surplus { what }.into());
        }
        let span = match CheckedSpan::verify(&active.own, &active.signed, bytes) {
            Ok(span) => span,
            Err(error) => return self.blame_span(active, bytes, error),
        };
        let room = Budget {
            bytes: frame_bytes,
            spans: 1,
        };
        active.own = span.after().clone();
        active.extends = true;
        active.received.add(room);
        self.entries += span.end() - span.start();
        let id = span.id().clone();
        self.fetch.hold(self.ledger, span, room)?;
        self.emit_spans(&id);
        Ok(None)
    }
}

/// The descent has checked ids; this cannot happen.
fn invalid_id(_: crate::entry::EntryError) -> SyncError {
    let what = "context id";
    let error = crate::encoding::DecodeError::Invalid { what };
    PeerFault::Malformed(error).into()
}
