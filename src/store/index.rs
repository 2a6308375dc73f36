//! What the log implies, in memory: contexts and their accumulators, where runs
//! and payloads lie, request ids, the directory of the newest head.
//!
//! The index is never the truth. Every change enters as an [`Effect`] of a
//! durable group, whether the group was just written or is read back by
//! recovery: one code path, so a restart ends where running was. What it
//! answers lies in the log and is verified there when it is read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::body::{self, StoreRole};
use super::published::Published;
use super::record::{Position, RecordType};
use super::scan::{ScannedGroup, ScannedRecord};
use crate::directory::{Opening, OpeningsPart, Seen};
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::head::SignedHead;
use crate::ledger::SeenHead;
use crate::note::VerifierKey;
use crate::run::{Accumulator, Run, RunError};
use crate::tree::tile::{TILE_BASE_LEVEL, TILE_HEIGHT};
use crate::tree::{NodeId, Tiles};

/// Where a record lies and how long its body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Location {
    pub(crate) position: Position,
    pub(crate) body_len: u32,
}

/// The first 16 bytes of a request id's hash. A hit is compared with the
/// entry's own header before it is believed.
pub(crate) type RequestKey = [u8; 16];

/// The key of a request id.
pub(crate) fn request_key(id: &str) -> RequestKey {
    let mut key = [0; 16];
    key.copy_from_slice(&hash::content(id.as_bytes()).as_bytes()[..16]);
    key
}

/// True for the tree nodes that tiles keep.
pub(crate) fn is_tile_node(id: NodeId) -> bool {
    id.level
        .checked_sub(TILE_BASE_LEVEL)
        .is_some_and(|above| above.is_multiple_of(TILE_HEIGHT))
}

/// What one record of a durable group changes.
#[derive(Debug)]
pub(crate) enum Effect {
    Context {
        number: u64,
        id: ContextId,
    },
    Run {
        number: u64,
        first: u64,
        at: Location,
        after: Box<Accumulator>,
        nodes: Vec<(NodeId, Hash)>,
        requests: Vec<(RequestKey, u64)>,
    },
    Payload {
        hash: Hash,
        at: Location,
    },
    /// Own store: a published head. Mirror: a complete head.
    Head(Box<SignedHead>),
    Openings(OpeningsPart),
    Seen(Box<SignedHead>),
}

impl Effect {
    pub(crate) fn run(
        number: u64,
        first: u64,
        after: Accumulator,
        nodes: Vec<(NodeId, Hash)>,
        requests: Vec<(RequestKey, u64)>,
    ) -> Self {
        let at = Location::default();
        Self::Run {
            number,
            first,
            at,
            after: Box::new(after),
            nodes,
            requests,
        }
    }

    pub(crate) fn payload(hash: Hash) -> Self {
        Self::Payload {
            hash,
            at: Location::default(),
        }
    }

    /// Says where the record lies.
    pub(crate) fn place(&mut self, location: Location) {
        match self {
            Self::Run { at, .. } | Self::Payload { at, .. } => *at = location,
            _ => (),
        }
    }
}

/// Why a complete, chained record cannot be: this log was not written by this
/// software, or it was changed by someone who holds its keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// A body that cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A run that does not continue its context.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A rule of the log that ties records together.
    #[error("{0}")]
    Rule(&'static str),
    /// A head whose signature, order or directory root is wrong.
    #[error("head: {0}")]
    Head(String),
}

/// Where the runs of a context lie, ascending by first sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunPlace {
    pub(crate) first: u64,
    pub(crate) at: Location,
}

/// One context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: ContextId,
    pub(crate) after: Accumulator,
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) runs: Vec<RunPlace>,
    /// Size in the newest published or complete head, 0 if not in it.
    pub(crate) signed_size: u64,
}

impl Context {
    /// The run that holds `sequence`.
    pub(crate) fn run_of(&self, sequence: u64) -> Option<usize> {
        if sequence == 0 || sequence > self.after.size() {
            return None;
        }
        self.runs
            .partition_point(|run| run.first <= sequence)
            .checked_sub(1)
    }

    /// The last sequence of a run.
    pub(crate) fn last_of(&self, run: usize) -> u64 {
        self.runs
            .get(run + 1)
            .map_or(self.after.size(), |next| next.first - 1)
    }
}

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) role: StoreRole,
    /// The key whose heads count; the pinned one until a rotation.
    pub(crate) origin: VerifierKey,
    contexts: Vec<Context>,
    numbers: HashMap<ContextId, u64>,
    paths: HashMap<Hash, u64>,
    payloads: HashMap<Hash, Location>,
    requests: HashMap<(u64, RequestKey), u64>,
    /// Contexts that grew since the newest head.
    changed: BTreeSet<u64>,
    pub(crate) published: Published,
    /// A mirror's seen head that is not complete yet.
    pub(crate) pending: Option<SeenHead>,
    /// Openings read or written whose `seen` record is still to come.
    loose_openings: Vec<OpeningsPart>,
    /// End of the newest group that changed anything.
    pub(crate) state_end: Position,
    pub(crate) entries: u64,
}

impl Index {
    pub(crate) fn new(role: StoreRole, origin: VerifierKey) -> Self {
        Self {
            role,
            origin,
            contexts: Vec::new(),
            numbers: HashMap::new(),
            paths: HashMap::new(),
            payloads: HashMap::new(),
            requests: HashMap::new(),
            changed: BTreeSet::new(),
            published: Published::default(),
            pending: None,
            loose_openings: Vec::new(),
            state_end: Position::default(),
            entries: 0,
        }
    }

    /// Numbers start at 1.
    pub(crate) fn context(&self, number: u64) -> Option<&Context> {
        self.contexts
            .get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn context_mut(&mut self, number: u64) -> Option<&mut Context> {
        self.contexts
            .get_mut(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(crate) fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    pub(crate) fn number(&self, id: &ContextId) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn by_id(&self, id: &ContextId) -> Option<&Context> {
        self.context(self.number(id)?)
    }

    pub(crate) fn by_path(&self, path: &Hash) -> Option<&Context> {
        self.context(*self.paths.get(path)?)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.contexts.len() as u64 + 1
    }

    /// True if a payload of this hash and length is stored.
    pub(crate) fn has_payload(&self, hash: &Hash, len: u32) -> bool {
        let stored = self.payloads.get(hash);
        // The body of a payload record is its hash and the payload.
        stored.is_some_and(|at| at.body_len as usize == Hash::LEN + len as usize)
    }

    pub(crate) fn payload(&self, hash: &Hash) -> Option<Location> {
        self.payloads.get(hash).copied()
    }

    pub(crate) fn request(&self, number: u64, key: &RequestKey) -> Option<u64> {
        self.requests.get(&(number, *key)).copied()
    }

    /// Contexts that grew since the newest head: number and state.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &Context> {
        self.changed
            .iter()
            .filter_map(|number| self.context(*number))
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes over one durable change.
    pub(crate) fn apply(&mut self, effect: Effect) -> Result<(), Inconsistency> {
        match effect {
            Effect::Context { number, id } => self.add_context(number, id),
            Effect::Run {
                number,
                first,
                at,
                after,
                nodes,
                requests,
            } => {
                for (key, sequence) in requests {
                    self.requests.entry((number, key)).or_insert(sequence);
                }
                self.changed.insert(number);
                let context = self
                    .context_mut(number)
                    .ok_or(Inconsistency::Rule("run of no context"))?;
                let before = context.after.size();
                if first <= before && !context.runs.is_empty() {
                    return Err(Inconsistency::Rule("a run lies over another"));
                }
                let tiles = Arc::make_mut(&mut context.tiles);
                for (id, hash) in nodes {
                    tiles
                        .add(id, hash)
                        .map_err(|_| Inconsistency::Rule("tiles out of order"))?;
                }
                context.runs.push(RunPlace { first, at });
                context.after = *after;
                let added = context.after.size().saturating_sub(before);
                self.entries = self.entries.saturating_add(added);
                Ok(())
            }
            Effect::Payload { hash, at } => {
                self.payloads.insert(hash, at);
                Ok(())
            }
            Effect::Openings(part) => {
                // A part of another head, or one that starts over, belongs to
                // an attempt of its own; what was left of the one before it is
                // ignored.
                let goes_on = self.loose_openings.last().is_some_and(|last| {
                    let ends = last.openings.last().map(Opening::path);
                    let starts = part.openings.first().map(Opening::path);
                    (last.term, last.epoch) == (part.term, part.epoch) && ends < starts
                });
                if !goes_on {
                    self.loose_openings.clear();
                }
                self.loose_openings.push(part);
                Ok(())
            }
            Effect::Seen(head) => self.apply_seen(*head),
            Effect::Head(head) => match self.role {
                StoreRole::Own => self.apply_published(*head),
                StoreRole::Mirror => self.apply_complete(*head),
            },
        }
    }

    fn add_context(&mut self, number: u64, id: ContextId) -> Result<(), Inconsistency> {
        if number != self.next_number() {
            return Err(Inconsistency::Rule("context numbers must be consecutive"));
        }
        if self.numbers.insert(id.clone(), number).is_some() {
            return Err(Inconsistency::Rule("a context is named twice"));
        }
        self.paths.insert(id.path(), number);
        self.contexts.push(Context {
            id,
            after: Accumulator::default(),
            tiles: Arc::default(),
            runs: Vec::new(),
            signed_size: 0,
        });
        Ok(())
    }

    /// Own store: the head must be signed by the origin and its directory must
    /// be the one these contexts give.
    fn apply_published(&mut self, head: SignedHead) -> Result<(), Inconsistency> {
        let changes = self
            .changed()
            .map(|c| (c.id.clone(), c.after.size(), c.after.root()));
        let changes: Vec<_> = changes.collect();
        self.origin = head.next_key().clone();
        self.published.advance(head, &changes)?;
        for number in std::mem::take(&mut self.changed) {
            if let Some(context) = self.context_mut(number) {
                context.signed_size = context.after.size();
            }
        }
        Ok(())
    }

    fn apply_seen(&mut self, head: SignedHead) -> Result<(), Inconsistency> {
        let (term, epoch) = (head.head().term, head.head().epoch);
        let mut openings = Vec::new();
        for part in std::mem::take(&mut self.loose_openings) {
            if (part.term, part.epoch) == (term, epoch) {
                openings.extend(part.openings);
            }
        }
        if !openings.iter().is_sorted_by(|a, b| a.path() < b.path()) {
            return Err(Inconsistency::Rule("openings must ascend by path"));
        }
        self.pending = Some(SeenHead { head, openings });
        Ok(())
    }

    /// Mirror: every context of the seen head must be present with its signed
    /// root, and together they must give its directory. Returns them.
    pub(crate) fn check_complete(
        &self,
        head: &SignedHead,
    ) -> Result<Vec<(ContextId, u64, Hash)>, Inconsistency> {
        let seen = self
            .pending
            .as_ref()
            .filter(|seen| seen.head.note_bytes() == head.note_bytes())
            .ok_or(Inconsistency::Rule(
                "a complete head other than the seen one",
            ))?;
        let mut changes = Vec::with_capacity(seen.openings.len());
        for opening in &seen.openings {
            let context = self
                .by_path(&opening.path())
                .ok_or(Inconsistency::Rule("a complete head lacks a context"))?;
            if context.after.size() < opening.size {
                return Err(Inconsistency::Rule("a complete head lacks entries"));
            }
            // The root of a context that is ahead is checked by the writer,
            // which can read entries back.
            if context.after.size() == opening.size && context.after.root() != opening.root {
                return Err(Inconsistency::Rule(
                    "a context has another root than its head",
                ));
            }
            changes.push((context.id.clone(), opening.size, opening.root));
        }
        let update = self.published.update(&changes)?;
        if update.root != head.head().directory_root {
            return Err(Inconsistency::Rule(
                "these contexts do not give the head's directory",
            ));
        }
        Ok(changes)
    }

    fn apply_complete(&mut self, head: SignedHead) -> Result<(), Inconsistency> {
        let changes = self.check_complete(&head)?;
        self.origin = head.next_key().clone();
        self.published.advance(head, &changes)?;
        self.pending = None;
        self.loose_openings.clear();
        for (id, size, _) in changes {
            let number = self.number(&id).unwrap_or(0);
            if let Some(context) = self.context_mut(number) {
                context.signed_size = size;
            }
        }
        self.changed.clear();
        Ok(())
    }

    /// Takes over a group that was read back.
    pub(crate) fn replay(&mut self, group: &ScannedGroup) -> Result<(), (Position, Inconsistency)> {
        for record in &group.records {
            self.replay_record(group, record)
                .map_err(|error| (record.position, error))?;
        }
        if group.changes_state() {
            self.state_end = group.end;
        }
        Ok(())
    }

    fn replay_record(
        &mut self,
        group: &ScannedGroup,
        record: &ScannedRecord,
    ) -> Result<(), Inconsistency> {
        let bytes = group.body(record);
        let at = Location {
            position: record.position,
            body_len: record.header.body_len,
        };
        let effect = match record.header.kind {
            RecordType::Store
                if record.position.offset() == super::scan::SEGMENT_HEADER_LEN
                    && record.position.segment() == 1 =>
            {
                return Ok(());
            }
            RecordType::Store => return Err(Inconsistency::Rule("a second store record")),
            RecordType::Context => {
                let (number, id) = body::get_context(bytes)?;
                Effect::Context { number, id }
            }
            RecordType::Run => {
                let (number, run) = body::get_run(bytes)?;
                let context = self
                    .context(number)
                    .ok_or(Inconsistency::Rule("run of no context"))?;
                let stored = |hash: &Hash, len| self.has_payload(hash, len);
                Self::run_effect(number, &context.after, run, at, stored)?
            }
            RecordType::Payload => {
                let (hash, _) = body::get_payload(bytes)?;
                Effect::Payload { hash, at }
            }
            RecordType::Head => {
                let (covered, note) = body::get_head(bytes)?;
                // The state the head is about is the state right before it.
                if covered != self.state_end || record.header.index != 0 {
                    return Err(Inconsistency::Rule("a head covers another position"));
                }
                Effect::Head(Box::new(self.open_head(note)?))
            }
            RecordType::Openings => Effect::Openings(OpeningsPart::decode(bytes)?),
            RecordType::Seen => {
                let seen = Seen::decode(bytes)?;
                let head = self.open_head(&seen.note)?;
                self.check_seen(&seen, &head)?;
                Effect::Seen(Box::new(head))
            }
            RecordType::Mark | RecordType::Seal if bytes.is_empty() => return Ok(()),
            RecordType::Mark | RecordType::Seal => {
                return Err(Inconsistency::Rule("a mark or seal holds something"));
            }
            RecordType::Note | RecordType::Evidence => {
                return Err(Inconsistency::Rule(
                    "takeover notes and evidence are written by a newer build",
                ));
            }
        };
        self.apply(effect)
    }

    fn check_seen(&self, seen: &Seen, head: &SignedHead) -> Result<(), Inconsistency> {
        let base = self.published.head();
        let base = base.map_or((0, 0), |h| (h.head().term, h.head().epoch));
        if (seen.base_term, seen.base_epoch) != base {
            return Err(Inconsistency::Rule(
                "a seen head names another complete head",
            ));
        }
        let order = (head.head().term, head.head().epoch);
        let own = self
            .loose_openings
            .iter()
            .filter(|part| (part.term, part.epoch) == order);
        let count: usize = own.map(|part| part.openings.len()).sum();
        if count as u64 != seen.openings_count {
            return Err(Inconsistency::Rule("a seen head lacks openings"));
        }
        Ok(())
    }

    /// Verifies a stored note under the key that counts.
    pub(crate) fn open_head(&self, note: &[u8]) -> Result<SignedHead, Inconsistency> {
        SignedHead::open(note, &self.origin).map_err(|e| Inconsistency::Head(e.to_string()))
    }

    /// What a run of context `number` changes, if it continues `base`.
    pub(crate) fn run_effect(
        number: u64,
        base: &Accumulator,
        run: &[u8],
        at: Location,
        has_payload: impl Fn(&Hash, u32) -> bool,
    ) -> Result<Effect, Inconsistency> {
        let run = Run::decode(run)?;
        let (mut nodes, mut requests) = (Vec::new(), Vec::new());
        let mut missing = false;
        let mut after = base.clone();
        after.extend(
            &run,
            |entry, _| {
                if let Some(id) = entry.header.request_id {
                    requests.push((request_key(id), entry.header.sequence));
                }
                missing |= entry.inline_payload.is_none()
                    && !has_payload(&entry.header.payload_hash, entry.header.payload_len);
            },
            |id, hash| {
                if is_tile_node(id) {
                    nodes.push((id, hash));
                }
            },
        )?;
        if missing {
            return Err(Inconsistency::Rule("a run's payload was never stored"));
        }
        let first = run.first();
        Ok(Effect::Run {
            number,
            first,
            at,
            after: Box::new(after),
            nodes,
            requests,
        })
    }
}
