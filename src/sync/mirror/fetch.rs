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
//! * one request per context at a time; new contexts and those under way take
//!   turns, so a context's first answer comes after at most two answers for
//!   each context that was before it, however long any of them is, as long as no
//!   more than [`ACTIVE_MAX`] are under way;
//! * spans of a context are stored in order; a span goes to the store when
//!   every payload it needs is stored or went there before it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::held::{Held, Payload, SpanKey};
use super::{Asked, Mirror, SyncError, accuse, blame};
use crate::directory::Opening;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::ReadMirror;
use crate::limits::{PAYLOAD_BYTES_MAX, PROOF_HASHES_MAX, RUN_SINGLE_BYTES_MAX, SPAN_BYTES_MAX};
use crate::run::{Accumulator, CheckedSpan, SPAN_FIXED_BYTES, SignedContext};
use crate::sync::error::{LocalFault, PeerFault};
use crate::sync::message::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Reply, Request};
use crate::sync::{ENTRIES_ANSWER_BYTES, ENTRIES_ANSWER_SPANS};

/// Contexts being fetched at a time, each by one request.
pub(crate) const ENTRIES_REQUESTS_MAX: usize = 16;
/// Payload requests in flight.
pub(crate) const PAYLOAD_REQUESTS_MAX: usize = 8;
/// The most bytes of spans one request can bring.
pub(crate) const ANSWER_BYTES_MAX: usize =
    ENTRIES_ANSWER_BYTES + FRAME_HEADER_BYTES + SPAN_BYTES_MAX;
/// The most bytes of an answer that one entry can take: a span of its own.
const ENTRY_ANSWER_BYTES_MAX: usize =
    FRAME_HEADER_BYTES + SPAN_FIXED_BYTES + PROOF_HASHES_MAX * Hash::LEN + 4 + RUN_SINGLE_BYTES_MAX;
/// Contexts under way: fetched in part, or asked for. Others wait.
const ACTIVE_MAX: usize = 1024;
/// Spans of one context that wait for payloads, with which it is not asked for
/// more: it is to leave room for others.
const HELD_PER_CONTEXT_MAX: usize = ENTRIES_ANSWER_SPANS;
/// Bytes of spans that are on their way, held or being stored.
pub(crate) const SPANS_BYTES_MAX: usize = 24 << 20;
/// Spans that are on their way, held or being stored.
pub(crate) const SPANS_MAX: usize = 512;
/// Bytes of payloads asked for in one request, unless it is a single one.
pub(crate) const PAYLOAD_REQUEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of payloads that are on their way or being stored.
pub(crate) const PAYLOADS_BYTES_MAX: u64 = 12 << 20;
/// What a sync may take beyond the store's own caches: 64 MiB.
const SYNC_BYTES_MAX: u64 = 64 << 20;
/// Of that, for code, stacks, packets, and what the allocator does not give back.
const OTHER_BYTES: usize = 16 << 20;

/// What a verified run takes beside its bytes, at most: the state after it, its
/// place, and notes for the writer.
const RUN_NOTES_BYTES: usize = 512;

const _: () = {
    // Several long contexts at a time, and whatever is short beside them.
    assert!(
        5 * ANSWER_BYTES_MAX + ENTRIES_REQUESTS_MAX * ENTRY_ANSWER_BYTES_MAX <= SPANS_BYTES_MAX
    );
    // A frame is copied once while it is looked at, a payload twice.
    assert!(
        (SPANS_BYTES_MAX + 2 * FRAME_BYTES_MAX + OTHER_BYTES) as u64 + PAYLOADS_BYTES_MAX
            <= SYNC_BYTES_MAX
    );
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
    /// The room that the request has taken.
    asked: Budget,
    received: Budget,
}

impl Active {
    /// The room that its next answer may take: a short context takes little, so
    /// that many of them are asked for at once.
    fn next_answer(&self) -> Budget {
        let missing = self.signed.size.saturating_sub(self.own.size());
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        Budget {
            bytes: missing
                .saturating_mul(ENTRY_ANSWER_BYTES_MAX)
                .min(ANSWER_BYTES_MAX),
            spans: missing.min(ENTRIES_ANSWER_SPANS),
            notes: 0,
        }
    }
}

/// Room taken by spans.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    pub(super) bytes: usize,
    pub(super) spans: usize,
    /// What the runs take beside their bytes. Nobody knows it before they come, so
    /// it is not set aside: nothing more is asked for while it is too much.
    pub(super) notes: usize,
}

impl Budget {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.spans += other.spans;
        self.notes += other.notes;
    }

    fn release(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.spans = self.spans.saturating_sub(other.spans);
        self.notes = self.notes.saturating_sub(other.notes);
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
    /// Whose turn it is, if there was no room for its answer.
    next: Option<Active>,
    /// The last turn was a new context's.
    new_had_turn: bool,
    /// Contexts in flight, in `again`, or in `next`.
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

    fn has_room(&self, answer: Budget) -> bool {
        let mut after = self.spans;
        after.add(answer);
        after.bytes + after.notes <= SPANS_BYTES_MAX && after.spans <= SPANS_MAX
    }

    /// The next context that is under way and does not hold too much.
    fn next_again(&mut self) -> Option<Active> {
        for _ in 0..self.again.len().min(ENTRIES_REQUESTS_MAX) {
            let active = self.again.pop_front()?;
            let held = self.lines.get(&active.signed.id).map_or(0, VecDeque::len);
            if held < HELD_PER_CONTEXT_MAX {
                return Some(active);
            }
            self.again.push_back(active);
        }
        None
    }

    /// The answer is over: it must have been as long as it could be.
    pub(super) fn entries_ended(&mut self, mut active: Active) -> Result<(), SyncError> {
        let whole = active.own.size() == active.signed.size;
        if !active.begun || !(whole || active.received.answer_is_full()) {
            let what = "all entries";
            return Err(PeerFault::EndedEarly { what }.into());
        }
        // What was received has been moved to held spans.
        let mut unused = active.asked;
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
        while self.fetch.in_flight < ENTRIES_REQUESTS_MAX {
            let waiting = self.fetch.next.take();
            let next = waiting.map_or_else(|| self.next_context(), |next| Ok(Some(next)))?;
            let Some(mut active) = next else {
                break;
            };
            active.asked = active.next_answer();
            if !self.fetch.has_room(active.asked) {
                self.fetch.next = Some(active);
                break;
            }
            self.fetch.in_flight += 1;
            self.fetch.spans.add(active.asked);
            let request = Request::Entries {
                context: active.signed.id.clone(),
                after_sequence: active.own.size(),
                size: active.signed.size,
            };
            self.ask(&request, Asked::Entries(active))?;
        }
        Ok(())
    }

    /// The next context to fetch: a new one and one under way in turn, so that
    /// neither waits for the other however many or long they are.
    fn next_context(&mut self) -> Result<Option<Active>, SyncError> {
        if std::mem::take(&mut self.fetch.new_had_turn)
            && let Some(active) = self.fetch.next_again()
        {
            return Ok(Some(active));
        }
        while self.fetch.active < ACTIVE_MAX
            && let Some(opening) = self.fetch.openings.pop_front()
        {
            let id = ContextId::new(&opening.id).map_err(invalid_id)?;
            let own = self.ledger.accumulator(&id).map_err(LocalFault::read)?;
            if self.is_present(&id, &opening, &own)? {
                continue;
            }
            self.fetch.active += 1;
            self.fetch.new_had_turn = true;
            return Ok(Some(Active {
                signed: SignedContext {
                    id,
                    size: opening.size,
                    root: opening.root,
                },
                extends: own.size() == 0,
                own,
                begun: false,
                asked: Budget::default(),
                received: Budget::default(),
            }));
        }
        Ok(self.fetch.next_again())
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
        let mut room = Budget {
            bytes: frame_bytes,
            spans: 1,
            notes: 0,
        };
        active.own = span.after().clone();
        active.extends = true;
        active.received.add(room);
        room.notes = span.runs().len().saturating_mul(RUN_NOTES_BYTES);
        self.fetch.spans.notes += room.notes;
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

#[cfg(test)]
impl Fetch {
    /// What is promised of every state.
    pub(super) fn assert_within_budgets(&self) {
        assert!(self.spans.bytes <= SPANS_BYTES_MAX && self.spans.spans <= SPANS_MAX);
        assert!(self.payload_bytes <= PAYLOADS_BYTES_MAX);
        assert!(self.payload_requests <= PAYLOAD_REQUESTS_MAX);
        assert!(self.in_flight <= ENTRIES_REQUESTS_MAX && self.active <= ACTIVE_MAX);
        let held = |spans: &VecDeque<SpanKey>| spans.len();
        let held = self.lines.values().map(held).max().unwrap_or(0);
        assert!(held < HELD_PER_CONTEXT_MAX + ENTRIES_ANSWER_SPANS);
        let held: usize = self.held.values().map(Held::bytes).sum();
        assert!(held <= self.spans.bytes, "what is held has taken its room");
    }
}
