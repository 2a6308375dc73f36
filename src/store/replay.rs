//! From what lies in the log to the index: the records of a group that is read
//! back become effects, and a checkpoint's word is taken only where the log
//! bears it out. Recovery, rebuilding, audits and read-only opening share it.

use std::sync::Arc;

use super::StoreError;
use super::body::{self, StoreRole};
use super::index::base::Reader;
use super::index::forks::Fork;
use super::index::{
    ApplyError, Base, Cover, Effect, FactsBuilder, Inconsistency, Index, IndexError, Location,
    StateRow, request_keys,
};
use super::log::LogReader;
use super::record::{Position, RecordType};
use super::scan::{SEGMENT_HEADER_LEN, ScannedGroup, ScannedRecord};
use crate::directory::{OpeningsPart, Seen};
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::note::VerifierKey;
use crate::run::{Accumulator, Run};

/// Why a group could not be replayed.
#[derive(Clone, Debug)]
pub(crate) enum ReplayError {
    /// The record there contradicts the log before it.
    Log(Position, Inconsistency),
    /// The checkpoint below cannot be read.
    Index(IndexError),
}

impl ReplayError {
    fn at(position: Position, error: ApplyError) -> Self {
        match error {
            ApplyError::Log(error) => Self::Log(position, error),
            ApplyError::Index(error) => Self::Index(error),
        }
    }
}

impl ReplayError {
    /// What it says of the log; an index that cannot be read says nothing.
    pub(crate) fn verdict(self) -> Result<StoreError, StoreError> {
        match self {
            Self::Log(..) => Ok(self.into()),
            Self::Index(error) => Err(error.into()),
        }
    }
}

impl From<ReplayError> for StoreError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Log(position, error) => Self::Inconsistent { position, error },
            ReplayError::Index(error) => error.into(),
        }
    }
}

/// The first record of the log says whose it is.
pub(crate) fn first_group(group: &ScannedGroup) -> Result<Index, ReplayError> {
    let none = ReplayError::Log(
        group.start,
        Inconsistency::Rule("the first record is not a store record"),
    );
    let Some(record) = group.records.first() else {
        return Err(none);
    };
    if record.header.kind != RecordType::Store {
        return Err(none);
    }
    let (role, origin) = body::get_store(group.body(record))
        .map_err(|error| ReplayError::Log(record.position, Inconsistency::Decode(error)))?;
    Ok(Index::new(role, origin))
}

impl Index {
    /// An index over a checkpoint, as far as the log bears it out: the record
    /// it covers last must be there with the chain it names, the records it
    /// names must lead from the pinned key to the one it names, and its head
    /// must open under the key that counted then.
    pub(crate) fn over_checkpoint(
        log: &LogReader,
        (role, pinned): (StoreRole, VerifierKey),
        state: &StateRow,
        open: impl FnOnce(Hash) -> Result<Reader, IndexError>,
    ) -> Result<Self, IndexError> {
        if log.cover_at(state.cover.last).ok() != Some(state.cover) {
            return Err(IndexError::Stale(
                "it covers another history than the log's",
            ));
        }
        let mut index = Self::new(role, pinned);
        let unread = |at: Location| {
            move |error| IndexError::Log {
                at,
                error: Arc::new(error),
            }
        };
        let read = |at: Location, kind| log.body(at, kind).map_err(unread(at));
        index.restore_trust(&state.trust, &|at| log.read(at).map_err(unread(at)))?;
        if index.origin().to_string() != state.origin {
            return Err(IndexError::Stale("the key whose heads count"));
        }
        let contradicts = |_| IndexError::Stale("the records it names are not those of the log");
        if let Some(at) = state.head {
            let record = read(at, RecordType::Head)?;
            let (_, note) = body::get_head(&record).map_err(contradicts)?;
            let head = index.chain.open_at(note, at.position);
            let head = head.map_err(|_| IndexError::Stale("its head does not open"))?;
            index.restore_head(head, at);
        }
        let root = index.published.root();
        index.restore(state, Base::Ready(Arc::new(open(root)?)));
        let mut kind = RecordType::Seen;
        for at in &state.pending {
            let record;
            (kind, record) = log.read(*at).map_err(unread(*at))?;
            if kind != RecordType::Seen {
                index.restore_opening(&record, *at)?;
                continue;
            }
            let seen = Seen::decode(&record).map_err(contradicts)?;
            // A rotation may have followed.
            let head = index.chain.open_at(&seen.note, at.position);
            let head = Box::new(head.map_err(|_| IndexError::Stale("its pending head"))?);
            index
                .apply(Effect::Seen { head, at: *at })
                .map_err(|_| IndexError::Stale("its pending head"))?;
        }
        if kind != RecordType::Seen {
            return Err(IndexError::Stale("its pending head"));
        }
        for at in &state.loose {
            index.restore_opening(&read(*at, RecordType::Openings)?, *at)?;
        }
        Ok(index)
    }

    fn restore_opening(&mut self, record: &[u8], at: Location) -> Result<(), IndexError> {
        let part =
            OpeningsPart::decode(record).map_err(|_| IndexError::Stale("the openings it names"))?;
        self.apply(Effect::Openings { part, at })
            .map_err(|_| IndexError::Stale("the openings it names"))
    }

    /// Takes over a group that was read back.
    pub(crate) fn replay(&mut self, group: &ScannedGroup) -> Result<(), ReplayError> {
        for record in &group.records {
            self.replay_record(group, record)
                .map_err(|error| ReplayError::at(record.position, error))?;
        }
        if group.changes_state()
            && let Some(last) = group.records.last()
        {
            self.set_cover(Cover {
                end: group.end,
                last: last.position,
                chain: group.chain,
            });
        }
        Ok(())
    }

    fn replay_record(
        &mut self,
        group: &ScannedGroup,
        record: &ScannedRecord,
    ) -> Result<(), ApplyError> {
        let bytes = group.body(record);
        let at = Location {
            position: record.position,
            body_len: record.header.body_len,
        };
        let effect = match record.header.kind {
            RecordType::Store
                if record.position.offset() == SEGMENT_HEADER_LEN
                    && record.position.segment() == 1 =>
            {
                return Ok(());
            }
            RecordType::Store => return Err(ApplyError::rule("a second store record")),
            RecordType::Context => {
                let (number, id) = body::get_context(bytes)?;
                if self.by_id(&id)?.is_some() {
                    return Err(ApplyError::rule("a context is named twice"));
                }
                Effect::Context { number, id, at }
            }
            RecordType::Run => {
                let (number, run) = body::get_run(bytes)?;
                let base = self.run_base(number)?;
                self.run_effect(number, &base, run, at, |_, _| false)?
            }
            RecordType::Named => {
                let (number, size, root, id) = body::get_named(bytes)?;
                if self.by_id(&id)?.is_some() {
                    return Err(ApplyError::rule("a context is named twice"));
                }
                Effect::Named {
                    number,
                    id,
                    size,
                    root,
                    at,
                }
            }
            RecordType::Payload => {
                let (hash, _) = body::get_payload(bytes)?;
                Effect::Payload { hash, at }
            }
            RecordType::Head => {
                let (covered, note) = body::get_head(bytes)?;
                // The state the head is about is the state right before it.
                if covered != self.state_end() || record.header.index != 0 {
                    return Err(ApplyError::rule("a head covers another position"));
                }
                let head = Box::new(self.open_head(note)?);
                let update = None;
                Effect::Head { head, at, update }
            }
            RecordType::Openings => {
                let part = OpeningsPart::decode(bytes)?;
                Effect::Openings { part, at }
            }
            RecordType::Seen => {
                let seen = Seen::decode(bytes)?;
                let head = self.open_head(&seen.note)?;
                self.check_seen(&seen, &head)?;
                let head = Box::new(head);
                Effect::Seen { head, at }
            }
            RecordType::Mark | RecordType::Seal if bytes.is_empty() => return Ok(()),
            RecordType::Mark | RecordType::Seal => {
                return Err(ApplyError::rule("a mark or seal holds something"));
            }
            RecordType::Note => {
                let head = Box::new(self.chain.open(bytes)?);
                Effect::Note { head, at }
            }
            RecordType::Evidence => {
                let fork = Box::new(Fork::open(self, bytes, at).map_err(ApplyError::rule)?);
                Effect::Evidence { fork, at }
            }
            RecordType::Resolved => {
                let (evidence, root) = body::get_resolved(bytes)?;
                Effect::Resolved { evidence, root, at }
            }
        };
        self.apply(effect)
    }

    fn check_seen(&self, seen: &Seen, head: &SignedHead) -> Result<(), ApplyError> {
        let base = self.published.head();
        let base = base.map_or((0, 0), |h| (h.head().term, h.head().epoch));
        if (seen.base_term, seen.base_epoch) != base {
            return Err(ApplyError::rule("a seen head names another complete head"));
        }
        if self.loose_count((head.head().term, head.head().epoch)) != seen.openings_count {
            return Err(ApplyError::rule("a seen head lacks openings"));
        }
        Ok(())
    }

    /// What a run of context `number` changes, if it continues `base`.
    /// `brought` tells payloads that come with it.
    pub(crate) fn run_effect(
        &self,
        number: u64,
        base: &Accumulator,
        run: &[u8],
        at: Location,
        brought: impl Fn(&Hash, u32) -> bool,
    ) -> Result<Effect, ApplyError> {
        let run = Run::decode(run)?;
        let (mut nodes, mut ids, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        let mut stored = Ok(true);
        let mut facts = FactsBuilder::default();
        let mut after = base.clone();
        after.extend(
            &run,
            |entry, _| {
                let header = &entry.header;
                facts.add(header);
                if let Some(id) = header.request_id {
                    ids.push(id);
                    sequences.push(header.sequence);
                }
                if entry.inline_payload.is_none() && matches!(stored, Ok(true)) {
                    let (hash, len) = (&header.payload_hash, header.payload_len);
                    if !brought(hash, len) {
                        stored = self.has_payload(hash, len);
                    }
                }
            },
            |id, hash| {
                if super::index::is_tile_node(id) {
                    nodes.push((id, hash));
                }
            },
        )?;
        if !stored? {
            return Err(ApplyError::rule("a run's payload was never stored"));
        }
        Ok(Effect::Run {
            number,
            first: run.first(),
            at,
            after: Box::new(after),
            nodes,
            requests: request_keys(&ids).into_iter().zip(sequences).collect(),
            facts: Box::new(facts.finish()),
        })
    }
}
