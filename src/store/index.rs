//! What the log implies: contexts and their accumulators, where runs and
//! payloads lie, request ids, the directory of the newest head.
//!
//! ```text
//!   tail      in memory    what is newer than the last fold         (changes)
//!   frozen    in memory    what is being folded into the base       (fixed)
//!   base      index.redb   what a checkpoint covers                 (on disk)
//! ```
//!
//! The index is never the truth. Every change enters as an [`Effect`] of a
//! durable group, whether the group was just written or is read back by
//! recovery: one code path, so a restart ends where running was. What it
//! answers lies in the log and is verified there when it is read.
//!
//! Invariants:
//! * applying an effect of a group that was planned here never reads the base:
//!   what it needs was adopted into the tail before the group was written;
//! * an own store's tail is frozen only right behind a head, so what is on disk
//!   is always what a head in the log commits to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::body::StoreRole;
use super::record::{Position, Short};
use crate::directory::{self, Change, Node, OpeningsPart};
use crate::directory::{ReadDirectory, Update, UpdateError};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::limits::UNCOVERED_LOG_BYTES;
use crate::note::VerifierKey;
pub(crate) use crate::tree::tile::is_tile_node;

pub(crate) mod base;
pub(crate) mod checkpoint;
pub(crate) mod compare;
mod effect;
pub(crate) mod error;
pub(crate) mod filter;
pub(crate) mod forks;
pub(crate) mod heads;
pub(crate) mod layers;
mod pending;
pub(crate) mod place;
pub(crate) mod rows;
pub(crate) mod sums;
pub(crate) mod tail;
pub(crate) mod tiles;
pub(crate) mod trust;
mod unnamed;

pub(crate) use effect::Effect;
pub use error::Inconsistency;
pub(crate) use error::{ApplyError, IndexError};
use forks::Fork;
use heads::HeadRow;
pub(crate) use layers::{Base, Below, ContextView, LayeredTiles};
use pending::Unfinished;
pub(crate) use place::{
    FactsBuilder, Location, RequestKey, RunFacts, RunPlace, key_hash, request_key, request_keys,
};
pub(crate) use rows::{Cover, StateRow};
pub(crate) use tail::{ContextState, Tail, TailContext};
use tail::{Retired, RunAdded};
pub(crate) use trust::TrustedKeys;

/// The newest published or complete head.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    head: Option<SignedHead>,
    at: Location,
    root: Hash,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            head: None,
            at: Location::default(),
            root: directory::empty_root(),
        }
    }
}

impl Published {
    pub(crate) fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

    /// Where its record lies.
    pub(crate) fn at(&self) -> Location {
        self.at
    }

    /// The root of its directory.
    pub(crate) fn root(&self) -> Hash {
        self.root
    }
}

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) role: StoreRole,
    /// The keys of the origin, from the pinned one on.
    pub(crate) chain: TrustedKeys,
    /// Where the records lie that make up whom this store believes.
    trust: Vec<Location>,
    forks: Vec<Fork>,
    pub(crate) tail: Tail,
    pub(crate) below: Below,
    /// Contexts that there are.
    contexts: u64,
    /// The highest number in use: of a context, or of one that was loaded and
    /// never named. They start at 1.
    numbers: u64,
    pub(crate) entries: u64,
    /// Own store: contexts that grew since the newest head, all in the tail.
    changed: BTreeSet<u64>,
    pub(crate) published: Published,
    /// A mirror's seen heads that are not complete, in the order in which they
    /// were written down: runs are stored under the last.
    seen: Vec<Unfinished>,
    /// Openings read or written whose `seen` record is still to come.
    loose_openings: Vec<(OpeningsPart, Location)>,
    /// The newest group that changed anything, and what the base covers.
    cover: Cover,
    covered: Cover,
    /// Bytes of log from the one to the other.
    uncovered_bytes: u64,
    /// Folding fails, and nobody can say for how long.
    pub(crate) stalled: bool,
}

impl Index {
    pub(crate) fn new(role: StoreRole, pinned: VerifierKey) -> Self {
        Self {
            role,
            chain: TrustedKeys::new(pinned),
            trust: Vec::new(),
            forks: Vec::new(),
            tail: Tail::default(),
            below: Below::default(),
            contexts: 0,
            numbers: 0,
            entries: 0,
            changed: BTreeSet::new(),
            published: Published::default(),
            seen: Vec::new(),
            loose_openings: Vec::new(),
            cover: Cover::default(),
            covered: Cover::default(),
            uncovered_bytes: 0,
            stalled: false,
        }
    }

    /// The newest group that changed anything.
    pub(crate) fn cover(&self) -> Cover {
        self.cover
    }

    /// What the base covers, if there is one.
    pub(crate) fn covered(&self) -> Option<Cover> {
        matches!(self.below.base, Base::Ready(_)).then_some(self.covered)
    }

    /// End of the newest group that changed anything.
    pub(crate) fn state_end(&self) -> Position {
        self.cover.end
    }

    /// A group that changed something is durable, and its effects are applied.
    pub(crate) fn set_cover(&mut self, cover: Cover) {
        let (from, to) = (self.cover.end, cover.end);
        let from = if from.segment() == to.segment() {
            from.offset()
        } else {
            0
        };
        self.uncovered_bytes += u64::from(to.offset().saturating_sub(from));
        self.cover = cover;
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.saturating_add(1)
    }

    /// Contexts that there are.
    pub(crate) fn context_count(&self) -> u64 {
        self.contexts
    }

    pub(crate) fn by_id(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError> {
        match self.tail.number(id).and_then(|n| self.tail.context(n)) {
            Some(context) => Ok(Some(context.state.clone())),
            None => self.below.by_id(id),
        }
    }

    /// The view of a context that the tail has touched.
    pub(crate) fn touched_view(&self, id: &ContextId) -> Option<ContextView> {
        let context = self.tail.context(self.tail.number(id)?)?.clone();
        Some(self.below.view(context.state.clone(), Some(context)))
    }

    /// True if a payload of this hash and length is stored.
    pub(crate) fn has_payload(&self, hash: &Hash, len: u32) -> Result<bool, IndexError> {
        // The body of a payload record is its hash and the payload.
        let body_len = Hash::LEN as u64 + u64::from(len);
        let stored = self.payload(hash)?;
        Ok(stored.is_some_and(|at| u64::from(at.body_len) == body_len)
            || self.tail.has_passed_on(hash, body_len))
    }

    pub(crate) fn payload(&self, hash: &Hash) -> Result<Option<Location>, IndexError> {
        match self.tail.payloads.get(hash) {
            Some(at) => Ok(Some(*at)),
            None => self.below.payload(hash),
        }
    }

    pub(crate) fn request(&self, number: u64, key: &RequestKey) -> Result<Option<u64>, IndexError> {
        let newest = self.tail.requests.get(&(number, *key)).copied();
        let context = self.tail.context(number);
        let base_size = context.map_or(u64::MAX, |context| context.base_size);
        first_request(self.below.request(number, key, base_size), newest)
    }

    /// Contexts that grew since the newest head.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &ContextState> {
        self.changed
            .iter()
            .filter_map(|number| self.tail.context(*number))
            .map(|context| &context.state)
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// True if something happened since the last fold.
    pub(crate) fn is_dirty(&self) -> bool {
        self.cover != self.covered
    }

    /// True if so much has come together that it is folded whatever the time:
    /// in memory, or in the log, which opening would have to read.
    pub(crate) fn has_grown(&self, fold_bytes: usize) -> bool {
        self.tail.bytes() >= fold_bytes || self.uncovered_bytes >= UNCOVERED_LOG_BYTES
    }

    /// Memory of everything that is not folded, roughly.
    pub(crate) fn tail_bytes(&self) -> usize {
        let frozen = self
            .below
            .frozen
            .as_ref()
            .map_or(0, |frozen| frozen.bytes());
        self.tail.bytes() + frozen
    }

    /// Lets planned contexts be changed without a look below.
    pub(crate) fn adopt(&mut self, contexts: Vec<ContextState>) {
        for state in contexts {
            self.tail.touch(state, false);
        }
    }

    /// The state of a context that is about to change, in the tail.
    pub(crate) fn touch(&mut self, number: u64) -> Result<&ContextState, ApplyError> {
        if self.tail.context(number).is_none() {
            let Some(state) = self.below.by_number(number)? else {
                if number == 0 || number > self.numbers {
                    return Err(ApplyError::rule("run of no context"));
                }
                let what = "the name of a context is missing";
                self.below.lose(what);
                return Err(IndexError::Stale(what).into());
            };
            self.tail.touch(state, false);
        }
        let context = self.tail.context(number);
        context
            .map(|context| &context.state)
            .ok_or(ApplyError::rule("run of no context"))
    }

    /// What a checkpoint says of the whole: counts, head, place.
    pub(crate) fn restore(&mut self, state: &StateRow, base: Base) {
        self.contexts = state.contexts;
        self.numbers = state.numbers;
        self.entries = state.entries;
        self.cover = state.cover;
        self.covered = state.cover;
        self.below.base = base;
    }

    /// The head that a checkpoint leads to, opened from the log.
    pub(crate) fn restore_head(&mut self, head: SignedHead, at: Location) {
        self.published = Published {
            root: head.head().directory_root,
            head: Some(head),
            at,
        };
    }

    /// Takes over one durable change.
    pub(crate) fn apply(&mut self, effect: Effect) -> Result<(), ApplyError> {
        match effect {
            Effect::Context { number, id, at } => {
                if number != self.next_number() {
                    return Err(ApplyError::rule("context numbers must be consecutive"));
                }
                self.numbers = number;
                self.contexts += 1;
                let state = ContextState::new(number, Some(id), at.position);
                self.tail.touch(state, true);
                Ok(())
            }
            Effect::Run {
                number,
                first,
                at,
                after,
                nodes,
                requests,
                facts,
            } => {
                let last = after.size();
                if last < first {
                    return Err(ApplyError::rule("a run without entries"));
                }
                let keys = facts.keys;
                let run = RunAdded {
                    place: RunPlace {
                        first,
                        last,
                        at,
                        keys,
                    },
                    after: *after,
                    nodes,
                    requests,
                    payload_bytes: facts.payload_bytes,
                };
                self.begin_unnamed(number);
                let named = self.touch(number)?.name.is_some();
                self.tail.add_run(number, run).map_err(ApplyError::rule)?;
                if named {
                    self.grow(number, last - first + 1);
                }
                Ok(())
            }
            Effect::Named {
                number,
                id,
                size,
                root,
                at,
            } => self.apply_named(number, (id, at), size, root),
            Effect::Payload { hash, at } => {
                self.tail.add_payload(hash, at);
                Ok(())
            }
            Effect::Openings { part, at } => {
                self.add_openings(part, at);
                Ok(())
            }
            Effect::Seen { head, at } => self.apply_seen(*head, at),
            Effect::Head { head, at, update } => self.apply_head(*head, at, update),
            Effect::Note { head, at } => self.apply_note(*head, at),
            Effect::Evidence { fork, at } => self.apply_evidence(*fork, at),
            Effect::Resolved { evidence, root, at } => self.apply_resolved(&evidence, &root, at),
        }
    }

    /// A context that exists has new entries.
    fn grow(&mut self, number: u64, entries: u64) {
        self.entries = self.entries.saturating_add(entries);
        if self.role == StoreRole::Own {
            self.changed.insert(number);
        }
    }

    fn apply_head(
        &mut self,
        head: SignedHead,
        at: Location,
        update: Option<Box<Update>>,
    ) -> Result<(), ApplyError> {
        let update = match (update, self.role) {
            (Some(update), _) => *update,
            // The head's directory must be the one these contexts give.
            (None, StoreRole::Own) => self.update(&self.changes())?,
            // Every context of the seen head must be present.
            (None, StoreRole::Mirror) => self.check_complete(&head)?.1,
        };
        self.advance(head, at, update)?;
        self.changed.clear();
        if self.role == StoreRole::Mirror {
            self.completed();
        }
        Ok(())
    }

    /// The contexts that grew since the newest head, as the directory has them.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let change = |state: &ContextState| {
            let id = state.name.as_ref()?;
            Some(change(id, state.after.size(), &state.after.root()))
        };
        self.changed().filter_map(change).collect()
    }

    /// The directory with these changes.
    pub(crate) fn update(&self, changes: &[Change]) -> Result<Update, ApplyError> {
        directory::apply(self, &self.published.root, changes).map_err(|error| match error {
            UpdateError::Load(directory::LoadError::Read(error)) => error.into(),
            UpdateError::Load(_) => {
                let what = "the newest head's directory is not all there";
                self.below.lose(what);
                IndexError::Stale(what).into()
            }
            error => Inconsistency::Head(error.to_string()).into(),
        })
    }

    /// Takes over a head with its directory.
    fn advance(
        &mut self,
        head: SignedHead,
        at: Location,
        update: Update,
    ) -> Result<(), ApplyError> {
        let refused = |what: &str| Err(Inconsistency::Head(what.to_owned()).into());
        if let Some(before) = &self.published.head
            && head.order() <= before.order()
        {
            return refused("heads must ascend by term and epoch");
        }
        let text = head.head();
        if update.root != text.directory_root {
            return refused("the directory root is not the one these contexts give");
        }
        if (update.sums.contexts, update.sums.entries) != (text.contexts, text.entries) {
            return refused("the counts are not those of the directory");
        }
        self.follow(&head, at)?;
        let row = HeadRow {
            at,
            covered: self.state_end(),
            time_ns: text.time_ns,
            first: heads::is_first(self.published.head().map(SignedHead::head), text),
        };
        self.tail.add_head(head.order(), row);
        let retired = Retired {
            at_ns: text.time_ns,
            bytes: update.retired_bytes,
            nodes: update.retired,
        };
        self.tail.add_directory(update.added, retired);
        self.published = Published {
            root: update.root,
            head: Some(head),
            at,
        };
        Ok(())
    }

    /// True if what is in the tail may be folded: behind a head of an own
    /// store, anywhere in a mirror.
    pub(crate) fn may_freeze(&self) -> bool {
        let fits = rows::pending_fits(self.pending_places().count() + self.loose_openings.len());
        self.is_dirty() && !self.has_changes() && self.below.frozen.is_none() && fits
    }

    /// What a checkpoint here says of itself.
    pub(crate) fn state_row(&self, store_id: Short, now_ns: u64) -> StateRow {
        StateRow {
            store_id,
            cover: self.cover,
            head: self.published.head.is_some().then_some(self.published.at),
            contexts: self.contexts,
            numbers: self.numbers,
            entries: self.entries,
            pending: self.pending_places().collect(),
            loose: self.loose_openings.iter().map(|(_, at)| *at).collect(),
            retired_next: 0,
            retired_bytes: 0,
            made_at_ns: now_ns,
            origin: self.origin().to_string(),
            trust: self.trust.clone(),
        }
    }

    /// Freezes the tail for folding.
    pub(crate) fn freeze(&mut self, store_id: Short, now_ns: u64) -> FoldJob {
        let state = self.state_row(store_id, now_ns);
        let tail = Arc::new(std::mem::take(&mut self.tail));
        self.below.frozen = Some(tail.clone());
        self.covered = self.cover;
        self.uncovered_bytes = 0;
        FoldJob {
            tail,
            state,
            root: self.published.root,
        }
    }

    /// What was frozen is on disk now.
    pub(crate) fn folded(&mut self, base: Base) {
        self.below.frozen = None;
        self.below.base = base;
    }
}

/// A tail to be folded, and what the index covers when it is.
#[derive(Debug)]
pub(crate) struct FoldJob {
    pub(crate) tail: Arc<Tail>,
    pub(crate) state: StateRow,
    /// The directory of the head it leads to.
    pub(crate) root: Hash,
}

/// Which entry has a request id, if an older layer and a newer one may know it.
/// A history that was loaded may have an id twice: the first entry keeps it. A
/// base that cannot be read does not keep the tails from answering.
fn first_request(
    older: Result<Option<u64>, IndexError>,
    newer: Option<u64>,
) -> Result<Option<u64>, IndexError> {
    match (older, newer) {
        (Err(error), None) => Err(error),
        (Ok(Some(sequence)), _) => Ok(Some(sequence)),
        (Ok(None) | Err(_), newer) => Ok(newer),
    }
}

fn change(id: &ContextId, size: u64, root: &Hash) -> Change {
    Change {
        path: id.path(),
        commitment: directory::commitment(id.as_str(), size, root),
        entries: size,
    }
}

impl Index {
    /// A directory node that the tail holds; the empty directory's is implied.
    pub(crate) fn newest_node(&self, hash: &Hash) -> Option<Vec<u8>> {
        if *hash == directory::empty_root() {
            return Some(Node::empty().encode());
        }
        self.tail.nodes.get(hash).cloned()
    }
}

impl ReadDirectory for Index {
    type Error = IndexError;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, IndexError> {
        match self.newest_node(hash) {
            Some(node) => Ok(Some(node)),
            None => self.below.directory_node(hash),
        }
    }
}
