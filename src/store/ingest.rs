//! A mirror's group: verified heads and runs become records. Nothing here
//! verifies a peer (that is done, or these types would not exist); what is
//! checked is that they continue *this* store.

use std::collections::HashMap;

use super::StoreError;
use super::body;
use super::index::{
    ApplyError, ContextState, Effect, FactsBuilder, Index, Location, RequestKey, RunFacts,
    request_keys,
};
use super::plan::Planned;
use super::record::{Group, RecordType};
use super::writer::{GROUP_COST_BYTES_MAX, Writer};
use crate::directory::{Opening, OpeningsPart, Seen};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::{Ingest, SeenHead};
use crate::limits::{CONTEXT_ID_BYTES_MAX, GROUP_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::run::{Accumulator, CheckedPayload, CheckedSpan, Run, RunError};

/// Record headers and padding of everything one item may hold.
const INGEST_HEADROOM_BYTES: u64 = 16_384 * 2 * RECORD_HEADER_BYTES as u64;

/// A context record with its longest id.
const CONTEXT_RECORD_BYTES_MAX: usize = 2 * RECORD_HEADER_BYTES + 8 + CONTEXT_ID_BYTES_MAX;

/// A group being planned.
pub(crate) struct IngestPlan<'i> {
    index: &'i Index,
    group: Group,
    effects: Vec<(u64, u32, Effect)>,
    /// Contexts this group touches: number and state after it.
    tips: HashMap<ContextId, (u64, Accumulator)>,
    /// Known contexts of those, as they were before it.
    touched: Vec<ContextState>,
    new_contexts: u64,
    /// Payloads of this group and their lengths.
    payloads: HashMap<Hash, u32>,
}

impl<'i> IngestPlan<'i> {
    pub(crate) fn new(index: &'i Index, memory: Vec<u8>) -> Self {
        Self {
            index,
            group: Group::reusing(memory),
            effects: Vec::new(),
            tips: HashMap::new(),
            touched: Vec::new(),
            new_contexts: 0,
            payloads: HashMap::new(),
        }
    }

    /// Bytes of the group so far.
    pub(crate) fn len(&self) -> u64 {
        self.group.len()
    }

    fn add(&mut self, kind: RecordType, effect: Effect, fill: impl FnOnce(&mut Vec<u8>)) {
        let (offset, body_len) = self.group.add(kind, fill);
        self.effects.push((offset, body_len, effect));
    }

    /// Writes a part of the openings down, for a seen head to commit.
    pub(crate) fn openings(&mut self, part: OpeningsPart) -> Result<(), StoreError> {
        let bytes = part.encode().map_err(|_| StoreError::Refused("openings"))?;
        let at = Location::default();
        self.add(RecordType::Openings, Effect::Openings { part, at }, |out| {
            out.extend_from_slice(&bytes);
        });
        Ok(())
    }

    /// Writes a verified head down; commits the openings before it.
    pub(crate) fn seen(&mut self, seen: &SeenHead) -> Result<(), StoreError> {
        let base = base_of(self.index);
        let record = Seen {
            base_term: base.0,
            base_epoch: base.1,
            openings_count: seen.openings.len() as u64,
            note: seen.head.note_bytes(),
        };
        let bytes = record
            .encode()
            .map_err(|_| StoreError::Refused("seen head"))?;
        let effect = Effect::Seen {
            head: Box::new(seen.head.clone()),
            at: Location::default(),
        };
        self.add(RecordType::Seen, effect, |out| {
            out.extend_from_slice(&bytes);
        });
        Ok(())
    }

    /// What the pending head says of a context.
    fn opening(&self, id: &ContextId) -> Option<&Opening> {
        let seen = self.index.pending()?;
        let path = id.path();
        let at = seen
            .openings
            .binary_search_by(|o| o.path().cmp(&path))
            .ok()?;
        seen.openings.get(at)
    }

    /// Takes verified runs and those of their payloads the store lacks.
    pub(crate) fn span(
        &mut self,
        span: CheckedSpan,
        notes: Vec<RunNotes>,
        payloads: &[CheckedPayload],
    ) -> Result<(), StoreError> {
        let id = span.id().clone();
        let opening = self
            .opening(&id)
            .ok_or(StoreError::Refused("the seen head has no such context"))?;
        if span.end() > opening.size {
            return Err(StoreError::Refused("runs beyond the seen head's size"));
        }
        let (number, before, known) = self.tip(&id)?;
        if span.start() != before.size() {
            return Err(StoreError::Run(RunError::OutOfPlace {
                expected: before.size() + 1,
                got: span.start() + 1,
            }));
        }
        // What the verifier made of the runs counts for this state alone.
        if before != *span.before() {
            return Err(StoreError::Refused(
                "the runs were verified against another state",
            ));
        }
        let supplied: HashMap<Hash, usize> = payloads
            .iter()
            .map(|payload| (payload.hash(), payload.bytes().len()))
            .collect();
        let in_group = &self.payloads;
        let brought = |hash: &Hash, len: u32| {
            in_group.get(hash) == Some(&len) || supplied.get(hash) == Some(&(len as usize))
        };
        self.bounded(span_cost(&span, payloads) + CONTEXT_RECORD_BYTES_MAX)?;
        // Everything that can fail comes before the first record is added.
        for &(hash, len) in span.outside_payloads() {
            if !brought(&hash, len) && !self.index.has_payload(&hash, len)? {
                return Err(StoreError::Refused("a run's payload was never stored"));
            }
        }
        if notes.len() != span.runs().len() {
            return Err(StoreError::Refused("a span without notes of its runs"));
        }
        if span.runs().any(<[u8]>::is_empty) {
            return Err(StoreError::Refused("a run that is not in its span"));
        }
        let new = known.is_none() && !self.tips.contains_key(&id);
        self.touched.extend(known);
        if new {
            self.new_contexts += 1;
            let effect = Effect::Context {
                number,
                id: id.clone(),
                at: Location::default(),
            };
            self.add(RecordType::Context, effect, |out| {
                body::put_context(number, &id, out);
            });
        }
        self.payloads(payloads)?;
        let mut last = before;
        let (bytes, runs) = span.into_parts();
        for (run, noted) in runs.into_iter().zip(notes) {
            let (range, after, tiles) = run.into_parts();
            let run = bytes.get(range).unwrap_or_default();
            let effect = Effect::Run {
                number,
                first: last.size() + 1,
                at: Location::default(),
                after: Box::new(after.clone()),
                nodes: tiles,
                requests: noted.requests,
                facts: Box::new(noted.facts),
            };
            self.add(RecordType::Run, effect, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(run);
            });
            last = after;
        }
        self.tips.insert(id, (number, last));
        Ok(())
    }

    /// Number and state of a context as this group has left it, and its state in
    /// the store if the group has not touched it yet.
    fn tip(&self, id: &ContextId) -> Result<(u64, Accumulator, Option<ContextState>), StoreError> {
        if let Some((number, after)) = self.tips.get(id) {
            return Ok((*number, after.clone(), None));
        }
        if let Some(state) = self.index.by_id(id)? {
            return Ok((state.number, state.after.clone(), Some(state)));
        }
        let number = self.index.next_number() + self.new_contexts;
        Ok((number, Accumulator::default(), None))
    }

    /// Takes payloads of a verified span, with it or ahead of it.
    pub(crate) fn payloads(&mut self, payloads: &[CheckedPayload]) -> Result<(), StoreError> {
        self.bounded(payloads.iter().map(|p| p.bytes().len()).sum())?;
        for payload in payloads {
            // Bounded by 4 MiB when it was checked.
            let len = u32::try_from(payload.bytes().len()).unwrap_or(u32::MAX);
            if self.payloads.insert(payload.hash(), len).is_none() {
                let effect = Effect::payload(payload.hash());
                self.add(RecordType::Payload, effect, |out| {
                    out.extend_from_slice(payload.hash().as_bytes());
                    out.extend_from_slice(payload.bytes());
                });
            }
        }
        Ok(())
    }

    /// Refuses what would make a group larger than a group may be.
    fn bounded(&self, more_bytes: usize) -> Result<(), StoreError> {
        let total = self.group.len().saturating_add(more_bytes as u64);
        if total > GROUP_BYTES_MAX as u64 - INGEST_HEADROOM_BYTES {
            return Err(StoreError::Refused("an item is larger than a group may be"));
        }
        Ok(())
    }

    /// The group and its effects, to be placed.
    pub(crate) fn finish(self) -> Planned {
        Planned {
            touched: self.touched,
            ..Planned::new(self.group, self.effects)
        }
    }
}

/// Term and epoch of the last complete head, zeros without one.
fn base_of(index: &Index) -> (u64, u64) {
    let head = index.published.head();
    head.map_or((0, 0), |h| (h.head().term, h.head().epoch))
}

/// The openings of a seen head in parts of at most 1 MiB, if the head may
/// follow what the store holds.
pub(crate) fn openings_of(index: &Index, seen: &SeenHead) -> Result<Vec<OpeningsPart>, StoreError> {
    let head = seen.head.head();
    if (head.term, head.epoch) <= base_of(index) {
        return Err(StoreError::Refused(
            "the head is not newer than the complete one",
        ));
    }
    // What is written down must open again under the key that counts here.
    index
        .open_head(&seen.head.note_bytes())
        .map_err(|_| StoreError::Refused("the head is not this origin's"))?;
    if !seen.openings.is_sorted_by(|a, b| a.path() < b.path()) {
        return Err(StoreError::Refused("openings must ascend by path"));
    }
    OpeningsPart::pack(seen.head.order(), seen.openings.clone())
        .map_err(|_| StoreError::Refused("openings are outside their limits"))
}

/// The bytes of one item's records, roughly.
pub(crate) fn ingest_cost(item: &Ingest) -> usize {
    match item {
        Ingest::Span { span, payloads } => span_cost(span, payloads),
        Ingest::Payloads(payloads) => payloads.iter().map(|p| p.bytes().len()).sum(),
        Ingest::Seen(seen) => seen.openings.len() * 96,
        Ingest::Complete(_) | Ingest::Rotation(_) | Ingest::Evidence(_) => 0,
    }
}

/// The bytes of one span's records, roughly: bounds a group before it is made.
fn span_cost(span: &CheckedSpan, payloads: &[CheckedPayload]) -> usize {
    let payloads: usize = payloads.iter().map(|p| p.bytes().len()).sum();
    span.bytes_len() + payloads + 128 * (1 + span.runs().len())
}

/// What the index keeps of a run beside what verifying it came to.
#[derive(Debug)]
pub(crate) struct RunNotes {
    facts: RunFacts,
    requests: Vec<(RequestKey, u64)>,
}

/// The notes of each run of an item, in order. Made by whoever brings it, since
/// the writer is waited for by everybody.
pub(crate) fn notes_of(item: &Ingest) -> Result<Vec<RunNotes>, StoreError> {
    let Ingest::Span { span, .. } = item else {
        return Ok(Vec::new());
    };
    let invalid = |error| StoreError::Run(RunError::Decode(error));
    let mut notes = Vec::with_capacity(span.runs().len());
    for run in span.runs() {
        let run = Run::decode(run).map_err(invalid)?;
        let mut facts = FactsBuilder::default();
        let (mut ids, mut sequences) = (Vec::new(), Vec::new());
        for entry in run.entries() {
            let header = entry.map_err(invalid)?.header;
            facts.add(&header);
            if let Some(id) = header.request_id {
                ids.push(id);
                sequences.push(header.sequence);
            }
        }
        notes.push(RunNotes {
            facts: facts.finish(),
            requests: request_keys(&ids).into_iter().zip(sequences).collect(),
        });
    }
    Ok(notes)
}

impl Writer {
    /// A mirror's verified head. Its openings may take several groups; those
    /// whose head never follows are ignored when they are read back.
    pub(super) fn seen(&mut self, seen: &SeenHead) -> Result<(), StoreError> {
        let parts = openings_of(&self.view.index(), seen)?;
        let mut parts = parts.into_iter().peekable();
        loop {
            let planned = {
                let view = self.view.clone();
                let index = view.index();
                let mut plan = IngestPlan::new(&index, self.log.take_spare());
                while plan.len() <= GROUP_COST_BYTES_MAX as u64 {
                    let Some(part) = parts.next() else { break };
                    plan.openings(part)?;
                }
                if parts.peek().is_none() {
                    plan.seen(seen)?;
                }
                plan.finish()
            };
            self.commit(planned)?;
            if parts.peek().is_none() {
                return Ok(());
            }
        }
    }

    /// A mirror's head whose every context is present.
    pub(super) fn complete(&mut self, head: SignedHead) -> Result<(), StoreError> {
        // A rotation may have ended the key that signed it.
        let opened = self.view.index().open_head(&head.note_bytes());
        opened.map_err(|_| StoreError::Refused("the head is not this origin's any more"))?;
        let checked = self.view.index().check_complete(&head);
        let (ahead, update) = checked.map_err(|error| match error {
            ApplyError::Index(error) => error.into(),
            ApplyError::Log(_) => StoreError::Refused("the head is not complete"),
        })?;
        // A context that is ahead got its runs under another seen head: its
        // root at this head's size is recomputed.
        for opening in ahead {
            let id = ContextId::new(&opening.id).map_err(|_| StoreError::Refused("context id"))?;
            if self.view.root_at(&id, opening.size)? != opening.root {
                return Err(StoreError::Refused(
                    "a context has another root than its head",
                ));
            }
        }
        self.put_head(head, update)
    }
}
