//! A mirror's group: verified heads and runs become records. Nothing here
//! verifies a peer (that is done, or these types would not exist); what is
//! checked is that they continue *this* store.

use std::collections::{HashMap, HashSet};

use super::StoreError;
use super::body;
use super::index::{Effect, Index, Location};
use super::plan::Planned;
use super::record::{Group, RecordType};
use crate::directory::{Opening, OpeningsPart, Seen};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::SeenHead;
use crate::run::{Accumulator, CheckedPayload, CheckedSpan, RunError};

/// A group being planned.
pub(crate) struct IngestPlan<'i> {
    index: &'i Index,
    group: Group,
    effects: Vec<(u64, u32, Effect)>,
    /// Contexts this group touches: number and state after it.
    tips: HashMap<ContextId, (u64, Accumulator)>,
    new_contexts: u64,
    payloads: HashSet<Hash>,
    /// A head seen in this very group.
    seen: Option<SeenHead>,
}

impl<'i> IngestPlan<'i> {
    pub(crate) fn new(index: &'i Index) -> Self {
        Self {
            index,
            group: Group::new(),
            effects: Vec::new(),
            tips: HashMap::new(),
            new_contexts: 0,
            payloads: HashSet::new(),
            seen: None,
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

    /// Writes a verified head down, with the contexts it changes.
    pub(crate) fn seen(&mut self, seen: &SeenHead) -> Result<(), StoreError> {
        let head = seen.head.head();
        let order = (head.term, head.epoch);
        let base = self
            .index
            .published
            .head()
            .map_or((0, 0), |h| (h.head().term, h.head().epoch));
        if order <= base {
            return Err(StoreError::Refused(
                "the head is not newer than the complete one",
            ));
        }
        if !seen.openings.is_sorted_by(|a, b| a.path() < b.path()) {
            return Err(StoreError::Refused("openings must ascend by path"));
        }
        let parts = OpeningsPart::pack(seen.head.order(), seen.openings.clone())
            .map_err(|_| StoreError::Refused("openings are outside their limits"))?;
        for part in parts {
            let bytes = part.encode().map_err(|_| StoreError::Refused("openings"))?;
            self.add(RecordType::Openings, Effect::Openings(part), |out| {
                out.extend_from_slice(&bytes);
            });
        }
        let record = Seen {
            base_term: base.0,
            base_epoch: base.1,
            openings_count: seen.openings.len() as u64,
            note: seen.head.note_bytes(),
        };
        let bytes = record
            .encode()
            .map_err(|_| StoreError::Refused("seen head"))?;
        self.add(
            RecordType::Seen,
            Effect::Seen(Box::new(seen.head.clone())),
            |out| {
                out.extend_from_slice(&bytes);
            },
        );
        self.seen = Some(seen.clone());
        Ok(())
    }

    /// What the pending head says of a context.
    fn opening(&self, id: &ContextId) -> Option<&Opening> {
        let seen = self.seen.as_ref().or(self.index.pending.as_ref())?;
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
        span: &CheckedSpan,
        payloads: &[CheckedPayload],
    ) -> Result<(), StoreError> {
        let id = span.id();
        let opening = self
            .opening(id)
            .ok_or(StoreError::Refused("the seen head has no such context"))?;
        if span.end() > opening.size {
            return Err(StoreError::Refused("runs beyond the seen head's size"));
        }
        let known = self.tips.get(id).cloned().or_else(|| {
            let number = self.index.number(id)?;
            Some((number, self.index.context(number)?.after.clone()))
        });
        let (number, mut after, new) = match known {
            Some((number, after)) => (number, after, false),
            None => (
                self.index.next_number() + self.new_contexts,
                Accumulator::default(),
                true,
            ),
        };
        if span.start() != after.size() {
            return Err(StoreError::Run(RunError::OutOfPlace {
                expected: after.size() + 1,
                got: span.start() + 1,
            }));
        }
        let supplied: HashSet<Hash> = payloads.iter().map(CheckedPayload::hash).collect();
        let has = |hash: &Hash, own: &HashSet<Hash>| {
            self.index.payload(hash).is_some() || own.contains(hash) || supplied.contains(hash)
        };
        // Everything that can fail comes before the first record is added.
        let mut effects = Vec::with_capacity(span.runs().len());
        for run in span.runs() {
            let at = Location::default();
            let effect =
                Index::run_effect(number, &after, run, at, |hash| has(hash, &self.payloads))
                    .map_err(|_| StoreError::Refused("a run does not continue the store"))?;
            if let Effect::Run { after: next, .. } = &effect {
                after = (**next).clone();
            }
            effects.push(effect);
        }
        if after != *span.after() {
            return Err(StoreError::Refused(
                "the runs were verified against another state",
            ));
        }
        if new {
            self.new_contexts += 1;
            let effect = Effect::Context {
                number,
                id: id.clone(),
            };
            self.add(RecordType::Context, effect, |out| {
                body::put_context(number, id, out);
            });
        }
        self.payloads(payloads);
        for (run, effect) in span.runs().iter().zip(effects) {
            self.add(RecordType::Run, effect, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(run);
            });
        }
        self.tips.insert(id.clone(), (number, after));
        Ok(())
    }

    /// Takes payloads of a verified span, with it or ahead of it.
    pub(crate) fn payloads(&mut self, payloads: &[CheckedPayload]) {
        for payload in payloads {
            if self.payloads.insert(payload.hash()) {
                let effect = Effect::payload(payload.hash());
                self.add(RecordType::Payload, effect, |out| {
                    out.extend_from_slice(payload.hash().as_bytes());
                    out.extend_from_slice(payload.bytes());
                });
            }
        }
    }

    /// The group and its effects, to be placed.
    pub(crate) fn finish(self) -> Planned {
        Planned::new(self.group, self.effects)
    }
}

/// The bytes of one span's records, roughly: bounds a group before it is made.
pub(crate) fn span_cost(span: &CheckedSpan, payloads: &[CheckedPayload]) -> usize {
    let runs: usize = span.runs().iter().map(Vec::len).sum();
    let payloads: usize = payloads.iter().map(|p| p.bytes().len()).sum();
    runs + payloads + 128 * (1 + span.runs().len())
}
