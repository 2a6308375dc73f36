//! Reading a store: entries, runs, tree nodes, directory nodes. A view is cheap
//! to clone and never blocks the writer for longer than a look-up; whatever it
//! returns has been verified on the way.
//!
//! An own store shows every durable entry; a mirror shows what its complete
//! head covers, because more than that has not been told to anyone yet.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::StoreError;
use super::body::{self, StoreRole};
use super::index::tiles::TileCache;
use super::index::{
    Below, ContextState, ContextView, Index, IndexError, LayeredTiles, Location, RunPlace,
};
use super::log::LogReader;
use super::record::RecordType;
use crate::directory::path::{Found, find};
use crate::encoding::DecodeError;
use crate::entry::{ContextId, leaf_hashes};
use crate::hash::{self, Hash};
use crate::head::SignedHead;
use crate::note::VerifierKey;
use crate::run::Run;
use crate::tree::nodes::read_root;
use crate::tree::{BuildError, LeafIndex, ReadNodes, TiledError, TiledNodes, TreeSize};

/// Leaf hashes room is made for ahead of reading them.
const LEAVES_HINT_MAX: usize = 4096;
/// Names looked at in one step while contexts are listed.
pub(super) const NAMES_STEP_MAX: usize = 1024;
/// Looks at the newest head before a directory that changes all the time is
/// given up on.
const HEAD_LOOKS_MAX: usize = 8;

/// A context, its size, and its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextInfo {
    /// The context.
    pub id: ContextId,
    /// Entries in it.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct View {
    index: Arc<RwLock<Index>>,
    log: Arc<LogReader>,
    tiles: Arc<TileCache>,
}

impl View {
    pub(crate) fn new(index: Arc<RwLock<Index>>, log: LogReader) -> Self {
        Self {
            index,
            log: Arc::new(log),
            tiles: Arc::default(),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        // The writer applies an effect whole or fails the store.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self) -> &LogReader {
        &self.log
    }

    /// Own store or mirror.
    #[must_use]
    pub fn role(&self) -> StoreRole {
        self.index().role
    }

    /// Whose history this is: the key whose heads count now.
    #[must_use]
    pub fn origin(&self) -> VerifierKey {
        self.index().origin().clone()
    }

    /// The key the store was made for: the first of the chain that leads to
    /// [`View::origin`].
    #[must_use]
    pub fn pinned(&self) -> VerifierKey {
        self.index().chain.pinned().clone()
    }

    /// True if `key` is of the chain from [`View::pinned`] to [`View::origin`].
    #[must_use]
    pub fn has_key(&self, key: &VerifierKey) -> bool {
        self.index().chain.reigns().any(|reign| reign.key == key)
    }

    /// So often the origin's key may be rotated yet.
    #[must_use]
    pub fn rotations_left(&self) -> usize {
        self.index().chain.rotations_left()
    }

    /// The newest published or complete head.
    #[must_use]
    pub fn head(&self) -> Option<SignedHead> {
        self.index().published.head().cloned()
    }

    /// Contexts and entries that this view shows.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let index = self.index();
        match index.role {
            StoreRole::Own => (index.context_count(), index.entries),
            StoreRole::Mirror => {
                let head = index.published.head().map(SignedHead::head);
                head.map_or((0, 0), |head| (head.contexts, head.entries))
            }
        }
    }

    /// Entries that are stored, also those that no complete head covers yet.
    #[must_use]
    pub fn held_entries(&self) -> u64 {
        self.index().entries
    }

    /// Contexts after `after` (by name), at most `limit` of them.
    pub fn contexts(
        &self,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextInfo>, StoreError> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        loop {
            let step = limit.saturating_sub(found.len()).min(NAMES_STEP_MAX);
            let names = self.names_after(after.as_ref(), step)?;
            let Some(last) = names.last().cloned() else {
                return Ok(found);
            };
            after = Some(last);
            for id in names {
                found.extend(self.context(&id)?);
            }
        }
    }

    /// Names after `after`, in order, at most `limit` of them.
    pub(super) fn names_after(
        &self,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextId>, StoreError> {
        let (mut names, below) = {
            let index = self.index();
            let newest = index.tail.names_after(after).take(limit).cloned();
            (newest.collect::<Vec<_>>(), index.below.clone())
        };
        names.extend(below.names_after(after, limit)?);
        names.sort_unstable();
        names.dedup();
        names.truncate(limit);
        Ok(names)
    }

    /// A context as it is now; later changes do not show in it.
    pub(super) fn look_up(&self, id: &ContextId) -> Result<Option<ContextView>, StoreError> {
        let below: Below = {
            let index = self.index();
            if let Some(touched) = index.touched_view(id) {
                return Ok(Some(touched));
            }
            index.below.clone()
        };
        let state = below.by_id(id)?;
        Ok(state.map(|state| below.view(state, None)))
    }

    /// The state of a context, entries that are not visible yet included.
    pub(crate) fn state(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError> {
        let below = {
            let index = self.index();
            if let Some(number) = index.tail.number(id) {
                let context = index.tail.context(number);
                return Ok(context.map(|context| context.state.clone()));
            }
            index.below.clone()
        };
        below.by_id(id)
    }

    /// The same by number, for one that may have no name yet.
    pub(crate) fn state_of_number(&self, number: u64) -> Result<Option<ContextState>, IndexError> {
        let below = {
            let index = self.index();
            if let Some(context) = index.tail.context(number) {
                return Ok(Some(context.state.clone()));
            }
            index.below.clone()
        };
        below.by_number(number)
    }

    /// Entries of a context that this view shows.
    pub(super) fn visible_size(
        &self,
        id: &ContextId,
        view: &ContextView,
    ) -> Result<u64, StoreError> {
        match self.role() {
            StoreRole::Own => Ok(view.state.after.size()),
            StoreRole::Mirror => Ok(self.signed_entries(id)?.unwrap_or(0)),
        }
    }

    /// Entries of a context in the newest head. A head that is replaced while
    /// its directory is read may take the nodes with it: then the newer one
    /// answers.
    pub(super) fn signed_entries(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        let path = id.path();
        let root = || self.index().published.root();
        let mut newest = root();
        for _ in 0..HEAD_LOOKS_MAX {
            match find(self, &newest, &path) {
                Ok(Found::Present { entries, .. }) => return Ok(Some(entries)),
                Ok(Found::Absent { .. }) => return Ok(None),
                Err(crate::directory::LoadError::Read(error)) => return Err(error),
                Err(error) => {
                    let now = root();
                    if now == newest {
                        return Err(self.lose(&error.to_string()));
                    }
                    newest = now;
                }
            }
        }
        Err(StoreError::Busy)
    }

    /// Says that the index is wanting.
    pub(super) fn lose(&self, reason: &str) -> StoreError {
        self.index().below.lose(reason);
        StoreError::IndexLost {
            reason: reason.to_owned(),
        }
    }

    /// Size and root of one context, if it has entries.
    pub fn context(&self, id: &ContextId) -> Result<Option<ContextInfo>, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(None);
        };
        let size = self.visible_size(id, &view)?;
        if size == 0 {
            return Ok(None);
        }
        let root = self.root_of(&view, size)?;
        let id = id.clone();
        Ok(Some(ContextInfo { id, size, root }))
    }

    /// Entries of a context, if it has any.
    pub fn size(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(None);
        };
        let size = self.visible_size(id, &view)?;
        Ok((size > 0).then_some(size))
    }

    /// The body of a run's record, if the record is the one that the index
    /// means.
    pub(super) fn run_body(
        &self,
        view: &ContextView,
        run: &RunPlace,
    ) -> Result<Vec<u8>, StoreError> {
        let body = self.log.body(run.at, RecordType::Run)?;
        self.check_run(view, run, &body)?;
        Ok(body)
    }

    /// Refuses the body of a record that is not the one that the index means.
    fn check_run(&self, view: &ContextView, run: &RunPlace, body: &[u8]) -> Result<(), StoreError> {
        let (number, bytes) = body::get_run(body).map_err(|e| corrupt(run.at, e))?;
        let stored = Run::decode(bytes).map_err(|e| corrupt(run.at, e))?;
        if (number, stored.first(), stored.last()) != (view.state.number, run.first, run.last) {
            return Err(self.lose("the index names another run"));
        }
        Ok(())
    }

    /// Stored runs from the one that holds entry `after + 1` up to `size`,
    /// where the last is cut: as many as fit `bytes_max`, at least one.
    pub(super) fn stored_runs(
        &self,
        view: &ContextView,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let (mut places, mut bytes, mut at) = (Vec::new(), 0usize, after);
        while at < size {
            let Some(run) = view.run_of(at + 1)? else {
                break;
            };
            bytes = bytes.saturating_add(run.at.body_len as usize);
            if !places.is_empty() && bytes > bytes_max {
                break;
            }
            places.push(run);
            at = run.last;
        }
        let locations: Vec<Location> = places.iter().map(|run| run.at).collect();
        let mut runs = self.log.bodies(&locations, RecordType::Run)?;
        for (run, body) in places.iter().zip(&mut runs) {
            self.check_run(view, run, body)?;
            body.drain(..8.min(body.len()));
            if run.last > size {
                let whole = Run::decode(body).map_err(|e| corrupt(run.at, e))?;
                *body = whole.part(0, size).map_err(|e| corrupt(run.at, e))?;
            }
        }
        Ok(runs)
    }

    /// The header and the inline payload of one entry.
    pub(super) fn stored_parts(
        &self,
        view: &ContextView,
        sequence: u64,
    ) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let missing = || self.lose("the index names an entry that is not there");
        let run = view.run_of(sequence)?.ok_or_else(missing)?;
        let body = self.run_body(view, &run)?;
        let (_, bytes) = body::get_run(&body).map_err(|e| corrupt(run.at, e))?;
        let stored = Run::decode(bytes).map_err(|e| corrupt(run.at, e))?;
        let at = usize::try_from(sequence.saturating_sub(run.first)).unwrap_or(usize::MAX);
        let header = stored.headers().nth(at).ok_or_else(missing)?;
        let entry = stored.entries().nth(at).ok_or_else(missing)?;
        let entry = entry.map_err(|e| corrupt(run.at, e))?;
        let payload = entry.inline_payload.unwrap_or_default();
        Ok((header.to_vec(), payload.to_vec()))
    }

    /// Where a payload lies.
    pub(super) fn payload_at(&self, hash: &Hash) -> Result<Option<Location>, StoreError> {
        let below = {
            let index = self.index();
            if let Some(at) = index.tail.payloads.get(hash) {
                return Ok(Some(*at));
            }
            index.below.clone()
        };
        Ok(below.payload(hash)?)
    }

    /// A payload record, verified against its hash.
    pub(super) fn stored_payload(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let Some(location) = self.payload_at(hash)? else {
            return Err(self.lose("a payload is missing in the index"));
        };
        let mut body = self.log.body(location, RecordType::Payload)?;
        let stored = body::get_payload(&body).map_err(|e| corrupt(location, e))?;
        if stored.0 != *hash {
            return Err(self.lose("the index names another payload"));
        }
        if hash::content(stored.1) != *hash {
            let what = "a payload does not match its hash";
            return Err(corrupt(location, DecodeError::Invalid { what }));
        }
        body.drain(..Hash::LEN);
        Ok(body)
    }

    /// True if a payload is stored and its bytes verify now.
    pub(crate) fn payload_intact(&self, hash: &Hash) -> Result<bool, StoreError> {
        if self.payload_at(hash)?.is_none() {
            return Ok(false);
        }
        match self.stored_payload(hash) {
            Ok(_) => Ok(true),
            Err(error) if error.is_verification_failure() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The root of a context at a size it has or had.
    pub fn root_at(&self, id: &ContextId, size: u64) -> Result<Hash, StoreError> {
        let view = self.look_up(id)?;
        let view = view.ok_or(StoreError::Refused("no such context"))?;
        self.root_of(&view, size)
    }

    pub(super) fn root_of(&self, view: &ContextView, size: u64) -> Result<Hash, StoreError> {
        let newest = view.state.after.size();
        if newest == size {
            return Ok(view.state.after.root());
        }
        if size > newest {
            return Err(StoreError::Refused("the context is smaller"));
        }
        read_root(TreeSize::new(size), &self.nodes(view)).map_err(from_build)
    }

    /// All complete nodes of a context's tree.
    pub(super) fn nodes<'a>(
        &'a self,
        view: &'a ContextView,
    ) -> impl ReadNodes<Error = TiledError<StoreError>> + 'a {
        TiledNodes::new(
            LayeredTiles::new(view, &self.tiles),
            move |first: LeafIndex, count: usize| self.leaves(view, first, count),
        )
    }

    /// Leaf hashes, recomputed from stored headers.
    fn leaves(
        &self,
        view: &ContextView,
        first: LeafIndex,
        count: usize,
    ) -> Result<Vec<Hash>, StoreError> {
        let mut leaves = Vec::with_capacity(count.min(LEAVES_HINT_MAX));
        let mut sequence = first.get() + 1;
        let end = first.get().saturating_add(count as u64);
        while sequence <= end {
            let Some(run) = view.run_of(sequence)? else {
                break;
            };
            let body = self.run_body(view, &run)?;
            let (_, bytes) = body::get_run(&body).map_err(|e| corrupt(run.at, e))?;
            let stored = Run::decode(bytes).map_err(|e| corrupt(run.at, e))?;
            let wanted = (run.first..).zip(stored.headers());
            let wanted = wanted.filter(|(at, _)| (sequence..=end).contains(at));
            let wanted: Vec<&[u8]> = wanted.map(|(_, header)| header).collect();
            leaves.extend(leaf_hashes(&wanted));
            sequence = run.last + 1;
        }
        Ok(leaves)
    }
}

pub(super) fn corrupt(at: Location, error: DecodeError) -> StoreError {
    StoreError::Corrupt {
        position: at.position,
        error,
    }
}

pub(super) fn from_build(error: BuildError<TiledError<StoreError>>) -> StoreError {
    match error {
        BuildError::Read(TiledError::Read(error)) => error,
        _ => StoreError::Refused("a tree node is not there"),
    }
}

impl View {
    /// Every leaf of a context up to `size`, recomputed from stored headers.
    pub(crate) fn all_leaves(&self, id: &ContextId, size: u64) -> Result<Vec<Hash>, StoreError> {
        let count = usize::try_from(size).unwrap_or(usize::MAX);
        match self.look_up(id)? {
            Some(view) => self.leaves(&view, LeafIndex::new(0), count),
            None => Ok(Vec::new()),
        }
    }

    /// The context of a directory entry.
    pub(super) fn name_of_path(&self, path: &Hash) -> Result<Option<ContextId>, StoreError> {
        let below = {
            let index = self.index();
            if let Some(number) = index.tail.by_path(path) {
                let context = index.tail.context(number);
                return Ok(context.and_then(|context| context.state.name.clone()));
            }
            index.below.clone()
        };
        Ok(below.name_of_path(path)?)
    }
}

#[cfg(test)]
impl View {
    /// Changes what is in memory behind everybody's back.
    pub(crate) fn tamper(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut index);
    }
}
