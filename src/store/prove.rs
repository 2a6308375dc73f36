//! The parts that proofs are made of, read from a store.

use super::StoreError;
use super::view::{View, from_build};
use crate::directory::LoadError;
use crate::directory::path::{Path, build};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::tree::{LeafIndex, TreeSize, consistency, inclusion};

impl View {
    /// Inclusion proof of an entry in its context at `size`.
    pub fn inclusion_proof(
        &self,
        id: &ContextId,
        sequence: u64,
        size: u64,
    ) -> Result<Vec<Hash>, StoreError> {
        let view = self.look_up(id)?;
        let view = view.ok_or(StoreError::Refused("no such context"))?;
        let index = sequence.checked_sub(1);
        let index = index.ok_or(StoreError::Refused("sequences begin at 1"))?;
        let (index, size) = (LeafIndex::new(index), TreeSize::new(size));
        inclusion::build(index, size, &self.nodes(&view)).map_err(from_build)
    }

    /// Consistency proof between two sizes of a context.
    pub fn consistency_proof(
        &self,
        id: &ContextId,
        from: u64,
        to: u64,
    ) -> Result<Vec<Hash>, StoreError> {
        let view = self.look_up(id)?;
        let view = view.ok_or(StoreError::Refused("no such context"))?;
        let (from, to) = (TreeSize::new(from), TreeSize::new(to));
        consistency::build(from, to, &self.nodes(&view)).map_err(from_build)
    }

    /// The path of a context under the root of a directory that is kept.
    pub fn directory_path(&self, root: &Hash, id: &ContextId) -> Result<Path, StoreError> {
        build(self, root, &id.path()).map_err(|error| match error {
            LoadError::Read(error) => error,
            error => self.lose(&error.to_string()),
        })
    }

    /// An entry's header as it is stored: the leaf's preimage.
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
        let body = self.run_body(&view, &run)?;
        let (_, bytes) =
            super::body::get_run(&body).map_err(|e| super::view::corrupt(run.at, e))?;
        let stored =
            crate::run::Run::decode(bytes).map_err(|e| super::view::corrupt(run.at, e))?;
        let mut headers = (run.first..).zip(stored.headers());
        Ok(headers
            .find(|(at, _)| *at == sequence)
            .map(|(_, header)| header.to_vec()))
    }
}
