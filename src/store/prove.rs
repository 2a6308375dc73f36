//! Proofs over what a view shows: an entry in its context, a context at two
//! sizes, a context in the directory of a head. Built from tree nodes and stored
//! headers that were verified when they were read; whoever asked compares them
//! with a signed root.

use super::StoreError;
use super::body;
use super::index::ContextView;
use super::view::{View, corrupt, from_build};
use crate::directory::LoadError;
use crate::directory::path::{self, Path};
use crate::entry::{ContextId, Header};
use crate::hash::Hash;
use crate::run::Run;
use crate::tree::{LeafIndex, TreeSize, consistency, inclusion};

impl View {
    /// The proof that entry `sequence` is in the context at `size`, for
    /// [`inclusion::verify`] with the leaf of its header.
    pub fn inclusion_proof(
        &self,
        id: &ContextId,
        sequence: u64,
        size: u64,
    ) -> Result<Vec<Hash>, StoreError> {
        let view = self.shown(id, size)?;
        let Some(index) = sequence.checked_sub(1).filter(|_| sequence <= size) else {
            return Err(StoreError::Refused("no such entry at this size"));
        };
        let nodes = self.nodes(&view);
        inclusion::build(LeafIndex::new(index), TreeSize::new(size), &nodes).map_err(from_build)
    }

    /// The proof that the context at `to` has the context at `from` as its
    /// beginning, for [`consistency::verify`]. Nothing is proven, hence nothing
    /// is needed, about no entries.
    pub fn consistency_proof(
        &self,
        id: &ContextId,
        from: u64,
        to: u64,
    ) -> Result<Vec<Hash>, StoreError> {
        let view = self.shown(id, to)?;
        if from > to {
            return Err(StoreError::Refused("the sizes are out of order"));
        }
        let nodes = self.nodes(&view);
        let (from, to) = (TreeSize::new(from), TreeSize::new(to));
        consistency::build(from, to, &nodes).map_err(from_build)
    }

    /// What the directory with this root says about a context, for
    /// [`path::verify`]. The newest head's directory is there; one that a newer
    /// head has replaced is kept for a while.
    pub fn directory_path(&self, root: &Hash, id: &ContextId) -> Result<Path, StoreError> {
        path::build(self, root, &id.path()).map_err(|error| match error {
            LoadError::Read(error) => error,
            error if self.index().published.root() == *root => self.lose(&error.to_string()),
            _ => StoreError::Refused("the directory of this root is not kept"),
        })
    }

    /// The header of an entry as it is stored: what its leaf is the hash of.
    /// `None` if the context has no such entry.
    pub fn header_bytes(
        &self,
        id: &ContextId,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(None);
        };
        if sequence == 0 || sequence > self.visible_size(id, &view)? {
            return Ok(None);
        }
        let Some(run) = view.run_of(sequence)? else {
            return Ok(None);
        };
        let record = self.run_body(&view, &run)?;
        let (_, bytes) = body::get_run(&record).map_err(|e| corrupt(run.at, e))?;
        let stored = Run::decode(bytes).map_err(|e| corrupt(run.at, e))?;
        let at = usize::try_from(sequence - run.first).unwrap_or(usize::MAX);
        let found = stored.headers().nth(at);
        let header = found.map(|bytes| (bytes, Header::decode(bytes)));
        match header {
            Some((bytes, Ok(header))) if header.sequence == sequence => Ok(Some(bytes.to_vec())),
            Some((_, Err(error))) => Err(corrupt(run.at, error)),
            _ => Err(self.lose("the index names an entry that is not there")),
        }
    }

    /// A context that is shown with `size` entries or more.
    fn shown(&self, id: &ContextId, size: u64) -> Result<ContextView, StoreError> {
        let view = self.look_up(id)?;
        let view = view.ok_or(StoreError::Refused("no such context"))?;
        if size > self.visible_size(id, &view)? {
            return Err(StoreError::Refused("the context is smaller"));
        }
        Ok(view)
    }
}
