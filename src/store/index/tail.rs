//! The tail: everything the log implies beyond a position, in memory, in the
//! form the index keeps it in. A tail is what one checkpoint folds.
//!
//! Invariants:
//! * it holds a context's newest state, and of runs, tiles and request ids
//!   only those that are newer than what lies below it;
//! * nothing in it is ever changed, only added to; retired directory nodes go
//!   when nobody may ask for them any more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::heads::{HeadRow, Heads};
use super::place::{Location, RequestKey, RunPlace};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::limits::{RETIRED_BYTES_MAX, RETIRED_NS_MAX};
use crate::run::Accumulator;
use crate::store::record::Position;
use crate::tree::tile::{TILE_BASE_LEVEL, TILE_HEIGHT};
use crate::tree::{NodeId, TileSlice};

mod passing;

use passing::StoredPayloads;

/// Memory of a map's entry beside what it holds, roughly.
const ENTRY_BYTES: usize = 64;
/// Memory of a touched context beside its peaks, runs and hashes, roughly.
const CONTEXT_BYTES: usize = 512;

/// What is known of a context at its newest size.
#[derive(Clone, Debug)]
pub(crate) struct ContextState {
    pub(crate) number: u64,
    /// `None` while it is being loaded: nobody can ask for it yet.
    pub(crate) name: Option<ContextId>,
    /// Where the record lies that made it exist; 0 while it has no name. Heads
    /// that cover less are not about it.
    pub(crate) since: Position,
    pub(crate) after: Accumulator,
    /// Request ids used.
    pub(crate) requests: u64,
    /// Bytes of run records.
    pub(crate) run_bytes: u64,
    /// Bytes of all payloads, those outside the runs counted each time.
    pub(crate) payload_bytes: u64,
}

impl ContextState {
    /// A context without entries.
    pub(crate) fn new(number: u64, name: Option<ContextId>, since: Position) -> Self {
        Self {
            number,
            name,
            since,
            after: Accumulator::default(),
            requests: 0,
            run_bytes: 0,
            payload_bytes: 0,
        }
    }
}

/// What the tail holds of one context.
#[derive(Clone, Debug)]
pub(crate) struct TailContext {
    pub(crate) state: ContextState,
    /// Entries below the tail.
    pub(crate) base_size: u64,
    /// True if the tail names it.
    pub(crate) created: bool,
    /// Ascending; all behind `base_size`.
    pub(crate) runs: Vec<RunPlace>,
    /// Per tile level from 1: the hashes that became final.
    levels: Vec<Level>,
}

/// The new hashes of one tile level.
#[derive(Clone, Debug, Default)]
struct Level {
    /// Hashes before these that were here and were passed on.
    passed: u64,
    hashes: Vec<Hash>,
}

/// How many hashes a tile level has in a tree of `size` leaves.
pub(crate) fn level_len(size: u64, level: usize) -> u64 {
    let above = usize::from(TILE_BASE_LEVEL) + usize::from(TILE_HEIGHT) * level.saturating_sub(1);
    u32::try_from(above).map_or(0, |above| size.checked_shr(above).unwrap_or(0))
}

impl TailContext {
    /// Tile levels from 1 with the index of their first new hash.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (usize, u64, &[Hash])> {
        (1..=self.levels.len()).map(|level| {
            let (start, hashes) = self.level(level);
            (level, start, hashes)
        })
    }

    /// The new hashes of one tile level and the index of the first.
    pub(crate) fn level(&self, level: usize) -> (u64, &[Hash]) {
        let start = level_len(self.base_size, level);
        match level.checked_sub(1).and_then(|at| self.levels.get(at)) {
            Some(level) => (start + level.passed, &level.hashes),
            None => (start, &[]),
        }
    }

    /// The run that holds `sequence`.
    pub(crate) fn run_of(&self, sequence: u64) -> Option<&RunPlace> {
        let at = self.runs.partition_point(|run| run.last < sequence);
        self.runs.get(at).filter(|run| run.first <= sequence)
    }

    /// Takes a node that tiles keep, in its turn.
    fn add_node(&mut self, node: NodeId, hash: Hash) -> bool {
        let Some(slice) = TileSlice::of(node).filter(|slice| slice.count == 1) else {
            return true;
        };
        let level = usize::from(slice.tile.level());
        while self.levels.len() < level {
            self.levels.push(Level::default());
        }
        let before = level_len(self.base_size, level);
        let Some(level) = self.levels.get_mut(level - 1) else {
            return false;
        };
        let in_turn = before + level.passed + level.hashes.len() as u64 == node.index;
        if in_turn {
            level.hashes.push(hash);
        }
        in_turn
    }
}

/// What one run adds.
#[derive(Debug)]
pub(crate) struct RunAdded {
    pub(crate) place: RunPlace,
    pub(crate) after: Accumulator,
    pub(crate) nodes: Vec<(NodeId, Hash)>,
    pub(crate) requests: Vec<(RequestKey, u64)>,
    pub(crate) payload_bytes: u64,
}

/// Directory nodes that one head replaced.
#[derive(Clone, Debug)]
pub(crate) struct Retired {
    pub(crate) at_ns: u64,
    pub(crate) bytes: u64,
    pub(crate) nodes: Vec<Hash>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    contexts: HashMap<u64, Arc<TailContext>>,
    names: BTreeMap<ContextId, u64>,
    paths: HashMap<Hash, u64>,
    pub(crate) payloads: HashMap<Hash, Location>,
    pub(crate) requests: HashMap<(u64, RequestKey), u64>,
    pub(crate) nodes: HashMap<Hash, Vec<u8>>,
    pub(crate) retired: VecDeque<Retired>,
    retired_bytes: u64,
    pub(crate) heads: Heads,
    /// Retired nodes below the tail that nobody may ask for any more.
    pub(crate) dropped: Vec<Hash>,
    bytes: usize,
    /// Payloads that were passed on.
    stored: StoredPayloads,
}

impl Tail {
    /// Memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn context(&self, number: u64) -> Option<&Arc<TailContext>> {
        self.contexts.get(&number)
    }

    pub(crate) fn contexts(&self) -> impl Iterator<Item = &Arc<TailContext>> {
        self.contexts.values()
    }

    /// The number of a context that the tail has touched.
    pub(crate) fn number(&self, id: &ContextId) -> Option<u64> {
        self.names.get(id).copied()
    }

    /// The number of a context that the tail names.
    pub(crate) fn by_path(&self, path: &Hash) -> Option<u64> {
        self.paths.get(path).copied()
    }

    /// Touched contexts after `after`, by name.
    pub(crate) fn names_after(
        &self,
        after: Option<&ContextId>,
    ) -> impl Iterator<Item = &ContextId> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.names
            .range::<ContextId, _>((from, Bound::Unbounded))
            .map(|(id, _)| id)
    }

    /// Lets a context be changed here; `state` is what lies below.
    pub(crate) fn touch(&mut self, state: ContextState, created: bool) {
        if self.contexts.contains_key(&state.number) {
            return;
        }
        self.bytes += CONTEXT_BYTES;
        let number = state.number;
        if let Some(name) = &state.name {
            self.bytes += 2 * name.as_str().len();
            self.names.insert(name.clone(), number);
            if created {
                self.paths.insert(name.path(), number);
            }
        }
        let context = TailContext {
            base_size: state.after.size(),
            state,
            created,
            runs: Vec::new(),
            levels: Vec::new(),
        };
        self.contexts.insert(number, Arc::new(context));
    }

    /// Names a touched context that had no name.
    pub(crate) fn name(&mut self, number: u64, name: ContextId, since: Position) {
        let Some(context) = self.contexts.get_mut(&number) else {
            return;
        };
        let context = Arc::make_mut(context);
        context.created = true;
        context.state.name = Some(name.clone());
        context.state.since = since;
        self.bytes += 2 * name.as_str().len();
        self.paths.insert(name.path(), number);
        self.names.insert(name, number);
    }

    /// Adds a run to a touched context. An error says which rule it breaks;
    /// the tail is of no use then.
    pub(crate) fn add_run(&mut self, number: u64, run: RunAdded) -> Result<(), &'static str> {
        let context = self.contexts.get_mut(&number);
        let context = Arc::make_mut(context.ok_or("run of no context")?);
        if run.place.first != context.state.after.size() + 1 {
            return Err("a run lies over another");
        }
        for (node, hash) in run.nodes {
            self.bytes += Hash::LEN;
            if !context.add_node(node, hash) {
                return Err("tiles out of order");
            }
        }
        context.runs.push(run.place);
        context.state.after = run.after;
        context.state.requests += run.requests.len() as u64;
        context.state.run_bytes += u64::from(run.place.at.body_len);
        context.state.payload_bytes += run.payload_bytes;
        self.bytes += size_of::<RunPlace>() + run.requests.len() * ENTRY_BYTES;
        self.requests.reserve(run.requests.len());
        for (key, sequence) in run.requests {
            self.requests.entry((number, key)).or_insert(sequence);
        }
        Ok(())
    }

    pub(crate) fn add_head(&mut self, order: HeadOrder, row: HeadRow) {
        self.bytes += ENTRY_BYTES;
        self.heads.insert(order, row);
    }

    pub(crate) fn add_payload(&mut self, hash: Hash, at: Location) {
        self.bytes += ENTRY_BYTES;
        self.payloads.insert(hash, at);
    }

    /// Adds the directory nodes of a head, and those it replaced.
    pub(crate) fn add_directory(&mut self, added: Vec<(Hash, Vec<u8>)>, retired: Retired) {
        for (hash, node) in added {
            self.bytes += node.len() + ENTRY_BYTES;
            self.nodes.insert(hash, node);
        }
        self.bytes += retired.nodes.len() * Hash::LEN;
        self.retired_bytes += retired.bytes;
        let now_ns = retired.at_ns;
        self.retired.push_back(retired);
        while let Some(oldest) = self.retired.front() {
            let young = now_ns.saturating_sub(oldest.at_ns) <= RETIRED_NS_MAX;
            if young && self.retired_bytes <= RETIRED_BYTES_MAX {
                break;
            }
            let oldest = self.retired.pop_front();
            for hash in oldest.iter().flat_map(|oldest| &oldest.nodes) {
                match self.nodes.remove(hash) {
                    Some(node) => {
                        self.bytes = self.bytes.saturating_sub(node.len() + ENTRY_BYTES);
                    }
                    None => self.dropped.push(*hash),
                }
            }
            self.retired_bytes -= oldest.map_or(0, |oldest| oldest.bytes);
        }
    }
}

#[cfg(test)]
impl Tail {
    /// Changes the state of a context behind everybody's back.
    pub(crate) fn tamper(&mut self, number: u64, change: impl FnOnce(&mut ContextState)) {
        if let Some(context) = self.contexts.get_mut(&number) {
            change(&mut Arc::make_mut(context).state);
        }
    }
}
