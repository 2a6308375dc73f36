//! Layer 3. Verified spans that cannot be stored yet, and the payloads they
//! wait for.
//!
//! ```text
//!  verified span --> Held --(all payloads handed over)--> Store(Span)
//!                     |                        ^
//!                     +--(Payloads)--> payload-+--> Store(Payloads)
//! ```
//!
//! Invariants:
//! * a payload is asked for once, whatever number of spans need it;
//! * payloads go to the store as soon as their answer is over, with their span
//!   if it can go too, otherwise ahead of it: what has been received never
//!   waits, so spans of one context and payloads cannot block each other.

use std::collections::VecDeque;

use super::fetch::{
    Budget, Fetch, PAYLOAD_REQUEST_BYTES_MAX, PAYLOAD_REQUESTS_MAX, PAYLOADS_BYTES_MAX, Stored,
};
use super::{Mirror, SyncError};
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::{Ingest, ReadMirror};
use crate::limits::PAYLOADS_PER_REQUEST_MAX;
use crate::run::{CheckedPayload, CheckedSpan, RunError};
use crate::sync::error::{LocalFault, OriginFault, PeerFault};

/// Orders held spans by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SpanKey(pub(super) u64);

/// A verified span that cannot be stored yet.
#[derive(Debug)]
pub(super) struct Held {
    span: CheckedSpan,
    room: Budget,
    /// Payloads to be asked for on behalf of this span.
    missing: VecDeque<(Hash, u32)>,
    /// A request of this span is in flight.
    asking: bool,
    /// Payloads that another span's request brings.
    waits: usize,
}

#[cfg(test)]
impl Held {
    pub(super) fn bytes(&self) -> usize {
        assert!(self.span.bytes_len() <= self.room.bytes);
        self.room.bytes
    }
}

impl Held {
    fn is_ready(&self) -> bool {
        self.missing.is_empty() && !self.asking && self.waits == 0
    }
}

/// Where a payload is that was found missing.
#[derive(Debug)]
pub(super) enum Payload {
    /// Asked for or about to be; these spans wait for it.
    Coming { len: u32, waiting: Vec<SpanKey> },
    /// Handed to the store, not durable yet.
    Storing { len: u32 },
}

/// A payload request and what it has brought.
#[derive(Debug)]
pub(super) struct PayloadRequest {
    span: SpanKey,
    pub(super) wanted: VecDeque<(Hash, u32)>,
    bytes: u64,
    got: Vec<CheckedPayload>,
}

impl Fetch {
    /// Notes a verified span and which payloads it lacks.
    pub(super) fn hold<M: ReadMirror + ?Sized>(
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
    pub(super) fn next_payloads(&mut self) -> Option<PayloadRequest> {
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
    pub(super) fn emit_spans(&mut self, id: &ContextId) {
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
}

/// One payload hash with two lengths: one of the headers lies.
fn two_lengths(span: &CheckedSpan) -> SyncError {
    let what = "two lengths for one payload hash";
    OriginFault::InvalidEntries {
        context: span.id().to_string(),
        error: RunError::Decode(DecodeError::Invalid { what }),
    }
    .into()
}
