//! Layer 3. The fetching half of the mirror: which contexts, spans and
//! payloads are asked for, held and stored, within fixed budgets.
//!
//! ```text
//!  openings --> Active --(Entries)--> spans --> Held --> Store(Span)
//!     ^            |                             |
//!     +-- again <--+             outside payloads: Payloads --> Store
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

use super::{Asked, Mirror, SyncError, blame};
use crate::directory::Opening;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::{Ingest, ReadMirror};
use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOADS_PER_REQUEST_MAX, SPAN_BYTES_MAX};
use crate::run::{Accumulator, CheckedPayload, CheckedSpan, RunError, SignedContext};
use crate::sync::error::{LocalFault, OriginFault, PeerFault};
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
struct Budget {
    bytes: usize,
    spans: usize,
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
    spans: Budget,
    payload_bytes: u64,
    payloads: Vec<Hash>,
}

/// Orders held spans by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SpanKey(u64);

/// A verified span that cannot be stored yet.
#[derive(Debug)]
struct Held {
    span: CheckedSpan,
    room: Budget,
    /// Payloads to be asked for on behalf of this span.
    missing: VecDeque<(Hash, u32)>,
    /// A request of this span is in flight.
    asking: bool,
    /// Payloads that another span's request brings.
    waits: usize,
}

impl Held {
    fn is_ready(&self) -> bool {
        self.missing.is_empty() && !self.asking && self.waits == 0
    }
}

/// Where a payload is that was found missing.
#[derive(Debug)]
enum Payload {
    /// Asked for or about to be; these spans wait for it.
    Coming { len: u32, waiting: Vec<SpanKey> },
    /// Handed to the store, not durable yet.
    Storing { len: u32 },
}

/// A payload request and what it has brought.
#[derive(Debug)]
pub(super) struct PayloadRequest {
    span: SpanKey,
    wanted: VecDeque<(Hash, u32)>,
    bytes: u64,
    got: Vec<CheckedPayload>,
}

/// Everything under way.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    openings: VecDeque<Opening>,
    again: VecDeque<Active>,
    /// Contexts in flight or in `again`.
    active: usize,
    in_flight: usize,
    spans: Budget,
    held: BTreeMap<SpanKey, Held>,
    lines: HashMap<ContextId, VecDeque<SpanKey>>,
    payloads: HashMap<Hash, Payload>,
    /// Spans with payloads to ask for.
    lacking: VecDeque<SpanKey>,
    payload_bytes: u64,
    payload_requests: usize,
    next_key: u64,
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

    /// Notes a verified span and which payloads it lacks.
    fn hold<M: ReadMirror + ?Sized>(
        &mut self,
        ledger: &M,
        span: CheckedSpan,
        room: Budget,
    ) -> Result<(), SyncError> {
        let key = SpanKey(self.next_key);
        self.next_key += 1;
        let (mut missing, mut waits) = (VecDeque::new(), 0);
        for &(hash, len) in span.outside_payloads() {
            let known = match self.payloads.get_mut(&hash) {
                Some(Payload::Coming { len, waiting }) => {
                    waiting.push(key);
                    waits += 1;
                    Some(*len)
                }
                Some(Payload::Storing { len }) => Some(*len),
                None => None,
            };
            match known {
                Some(known) if known != len => return Err(two_lengths(&span)),
                Some(_) => {}
                None if ledger
                    .has_outside_payload(&hash)
                    .map_err(LocalFault::read)? => {}
                None => {
                    let waiting = Vec::new();
                    self.payloads.insert(hash, Payload::Coming { len, waiting });
                    missing.push_back((hash, len));
                }
            }
        }
        if !missing.is_empty() {
            self.lacking.push_back(key);
        }
        self.lines
            .entry(span.id().clone())
            .or_default()
            .push_back(key);
        let held = Held {
            span,
            room,
            missing,
            asking: false,
            waits,
        };
        self.held.insert(key, held);
        Ok(())
    }

    /// The next payloads to ask for, if there is room for them.
    fn next_payloads(&mut self) -> Option<PayloadRequest> {
        if self.payload_requests >= PAYLOAD_REQUESTS_MAX {
            return None;
        }
        let key = *self.lacking.front()?;
        let held = self.held.get_mut(&key)?;
        let (mut wanted, mut bytes) = (VecDeque::new(), 0u64);
        for &(hash, len) in held.missing.iter().take(PAYLOADS_PER_REQUEST_MAX) {
            let after = bytes + u64::from(len);
            if after > PAYLOAD_REQUEST_BYTES_MAX && !wanted.is_empty() {
                break;
            }
            wanted.push_back((hash, len));
            bytes = after;
        }
        if self.payload_bytes + bytes > PAYLOADS_BYTES_MAX {
            return None;
        }
        held.missing.drain(..wanted.len());
        held.asking = true;
        self.lacking.pop_front();
        self.payload_bytes += bytes;
        self.payload_requests += 1;
        Some(PayloadRequest {
            span: key,
            wanted,
            bytes,
            got: Vec::new(),
        })
    }

    /// A span that may be stored now, if it is the first of its context.
    fn ready(&mut self, key: SpanKey) -> Option<Held> {
        let held = self.held.get(&key)?;
        let line = self.lines.get_mut(held.span.id())?;
        if line.front() != Some(&key) || !held.is_ready() {
            return None;
        }
        line.pop_front();
        if line.is_empty() {
            self.lines.remove(held.span.id());
        }
        self.held.remove(&key)
    }

    fn first_of_line(&self, id: &ContextId) -> Option<SpanKey> {
        self.lines.get(id)?.front().copied()
    }

    /// Marks payloads as handed to the store; the contexts whose spans waited.
    fn handed_over(&mut self, payloads: &[CheckedPayload]) -> Vec<ContextId> {
        let mut woken = Vec::new();
        for payload in payloads {
            let Some(state) = self.payloads.get_mut(&payload.hash()) else {
                continue;
            };
            let len = u32::try_from(payload.bytes().len()).unwrap_or(u32::MAX);
            let Payload::Coming { waiting, .. } =
                std::mem::replace(state, Payload::Storing { len })
            else {
                continue;
            };
            for key in waiting {
                if let Some(held) = self.held.get_mut(&key) {
                    held.waits = held.waits.saturating_sub(1);
                    woken.push(held.span.id().clone());
                }
            }
        }
        woken
    }
}

/// The descent has checked ids; this cannot happen.
fn invalid_id(_: crate::entry::EntryError) -> SyncError {
    let what = "context id";
    let error = crate::encoding::DecodeError::Invalid { what };
    PeerFault::Malformed(error).into()
}

/// One payload hash with two lengths: one of the headers lies.
fn two_lengths(span: &CheckedSpan) -> SyncError {
    let what = "two lengths for one payload hash";
    OriginFault::InvalidEntries {
        context: span.id().to_string(),
        error: RunError::Decode(crate::encoding::DecodeError::Invalid { what }),
    }
    .into()
}

impl PayloadRequest {
    /// Takes one payload of the answer.
    pub(super) fn take(
        &mut self,
        hash: Hash,
        bytes: Option<Vec<u8>>,
        fetch: &mut Fetch,
    ) -> Result<(), SyncError> {
        let Some((wanted, len)) = self.wanted.pop_front() else {
            let what = "the payloads";
            return Err(PeerFault::Surplus { what }.into());
        };
        if hash != wanted {
            let what = "another payload";
            return Err(PeerFault::WrongReply { what }.into());
        }
        let what = "payload";
        let bytes = bytes.ok_or(PeerFault::Missing { what, hash })?;
        let payload = CheckedPayload::new(bytes).map_err(PeerFault::Malformed)?;
        if payload.hash() != wanted {
            return Err(PeerFault::Payload { hash }.into());
        }
        if payload.bytes().len() as u64 != u64::from(len) {
            // The right bytes, and a header under the root that says otherwise.
            if let Some(held) = fetch.held.get(&self.span) {
                return Err(two_lengths(&held.span));
            }
        }
        self.got.push(payload);
        Ok(())
    }

    /// The answer is over: everything must be there.
    pub(super) fn finish(self, fetch: &mut Fetch) -> Result<Self, SyncError> {
        if !self.wanted.is_empty() {
            let what = "all payloads";
            return Err(PeerFault::EndedEarly { what }.into());
        }
        fetch.payload_requests -= 1;
        if let Some(held) = fetch.held.get_mut(&self.span) {
            held.asking = false;
            if !held.missing.is_empty() {
                fetch.lacking.push_back(self.span);
            }
        }
        Ok(self)
    }
}

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Payloads travel with their span if it can go now, otherwise ahead of
    /// it: what has been received is never kept waiting.
    pub(super) fn emit_payloads(&mut self, request: PayloadRequest) {
        let payloads = request.got;
        let mut stored = Stored {
            spans: Budget::default(),
            payload_bytes: request.bytes,
            payloads: payloads.iter().map(CheckedPayload::hash).collect(),
        };
        let woken = self.fetch.handed_over(&payloads);
        let line = if let Some(held) = self.fetch.ready(request.span) {
            let id = held.span.id().clone();
            stored.spans = held.room;
            let span = held.span;
            self.store(Ingest::Span { span, payloads }, stored);
            Some(id)
        } else {
            self.store(Ingest::Payloads(payloads), stored);
            None
        };
        for id in line.iter().chain(&woken) {
            self.emit_spans(id);
        }
    }

    /// Hands spans of one context to the store, as far as they are ready.
    fn emit_spans(&mut self, id: &ContextId) {
        while let Some(key) = self.fetch.first_of_line(id)
            && let Some(held) = self.fetch.ready(key)
        {
            let stored = Stored {
                spans: held.room,
                ..Stored::default()
            };
            let item = Ingest::Span {
                span: held.span,
                payloads: Vec::new(),
            };
            self.store(item, stored);
        }
    }

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
            if self.is_present(&opening, &own)? {
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

    /// True if nothing of the context is missing. What is held was proven
    /// under an earlier head, so a difference is the origin's.
    fn is_present(&self, opening: &Opening, own: &Accumulator) -> Result<bool, SyncError> {
        let order = self.shown_order();
        if own.size() > opening.size {
            return Err(OriginFault::Shrunk {
                context: opening.id.clone(),
                held: own.size(),
                size: opening.size,
                order,
            }
            .into());
        }
        if own.size() == opening.size && own.root() != opening.root {
            return Err(OriginFault::OtherRoot {
                context: opening.id.clone(),
                size: opening.size,
                held: own.root(),
                other: opening.root,
                order,
                proof: Vec::new(),
            }
            .into());
        }
        Ok(own.size() == opening.size)
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
            Err(error) => return blame::of_span(active, bytes, error, self.shown_order()),
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
