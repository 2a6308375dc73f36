//! What others read of a store through a view: sources and mirrors (`ledger`),
//! clipped to the newest published or complete head; and planning.

use super::StoreError;
use super::index::{ContextState, IndexError, RequestKey};
use super::plan::PlanState;
use super::view::{View, from_build};
use crate::directory::{Node, Opening, ReadDirectory, Slot, commitment};
use crate::entry::{ContextId, Entry};
use crate::hash::Hash;
use crate::head::{HeadOrder, SignedHead};
use crate::ledger::{EntryParts, ForkState, OpenedNode, ReadLedger, ReadMirror, SeenHead};
use crate::note::VerifierKey;
use crate::run::{Accumulator, trim};
use crate::tree::{BuildError, NodeId, ReadNodes};

impl ReadLedger for View {
    type Error = StoreError;

    fn newest_head(&self) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.head())
    }

    fn rotations_after(&self, order: Option<HeadOrder>) -> Result<Vec<SignedHead>, StoreError> {
        let index = self.index();
        let rotations = index.chain.rotations();
        let later = rotations.filter(|head| Some(head.order()) > order);
        Ok(later.cloned().collect())
    }

    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, StoreError> {
        let Some(node) = ReadDirectory::directory_node(self, hash)? else {
            return Ok(None);
        };
        let decoded = Node::decode(&node).map_err(|_| self.lose("a directory node is not one"))?;
        let mut openings = Vec::new();
        for slot in decoded.slots() {
            let Slot::Entry {
                path,
                commitment: signed,
                entries,
            } = *slot
            else {
                continue;
            };
            let Some(id) = self.name_of_path(&path)? else {
                return Err(self.lose("a directory entry of no context"));
            };
            let root = View::root_at(self, &id, entries)?;
            if commitment(id.as_str(), entries, &root) != signed {
                // A tile that is not the tree's: whoever asks must not be told.
                return Err(self.lose("a root is not the one a directory commits to"));
            }
            openings.push(Opening {
                id: id.as_str().to_owned(),
                size: entries,
                root,
            });
        }
        Ok(Some(OpenedNode { node, openings }))
    }

    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        self.signed_entries(id)
    }

    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(None);
        };
        let signed = self.signed_entries(id)?.unwrap_or(0);
        if size > signed || after >= size {
            return Ok(None);
        }
        let mut runs = self.stored_runs(&view, after, size, bytes_max)?;
        trim(&mut runs, after, size).map_err(|_| self.lose("a run cannot be cut"))?;
        Ok(Some(runs))
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        let view = self.look_up(id)?;
        let view = view.ok_or(StoreError::Refused("no such context"))?;
        self.nodes(&view)
            .read_nodes(nodes)
            .map_err(|error| from_build(BuildError::Read(error)))
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        if self.payload_at(hash)?.is_none() {
            return Ok(None);
        }
        self.stored_payload(hash).map(Some)
    }

    fn entry_parts(&self, id: &ContextId, sequence: u64) -> Result<Option<EntryParts>, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(None);
        };
        if sequence == 0 || sequence > self.signed_entries(id)?.unwrap_or(0) {
            return Ok(None);
        }
        self.stored_parts(&view, sequence).map(Some)
    }
}

impl ReadDirectory for View {
    type Error = StoreError;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        let below = {
            let index = self.index();
            if let Some(node) = index.newest_node(hash) {
                return Ok(Some(node));
            }
            index.below.clone()
        };
        Ok(below.directory_node(hash)?)
    }
}

impl ReadMirror for View {
    type Failure = StoreError;

    fn complete_head(&self) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.head())
    }

    fn seen_heads(&self) -> Result<Vec<SeenHead>, StoreError> {
        Ok(self.index().seen_heads().cloned().collect())
    }

    fn accumulator(&self, id: &ContextId) -> Result<Accumulator, StoreError> {
        let state = self.state(id)?;
        Ok(state.map(|state| state.after).unwrap_or_default())
    }

    fn has_outside_payload(&self, hash: &Hash) -> Result<bool, StoreError> {
        self.payload_intact(hash)
    }

    fn fork(&self) -> Result<Option<ForkState>, StoreError> {
        Ok(View::fork(self))
    }

    fn context_at(&self, path: &Hash) -> Result<Option<ContextId>, StoreError> {
        self.name_of_path(path)
    }

    fn origin_key(&self) -> VerifierKey {
        self.origin()
    }

    fn pinned_key(&self) -> VerifierKey {
        self.index().chain.pinned().clone()
    }

    fn rotations(&self) -> Result<Vec<SignedHead>, StoreError> {
        self.rotations_after(None)
    }

    fn root_at(&self, id: &ContextId, size: u64) -> Result<Option<Hash>, StoreError> {
        match self.look_up(id)? {
            Some(view) if size <= view.state.after.size() => self.root_of(&view, size).map(Some),
            _ => Ok(None),
        }
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        ReadLedger::tree_nodes(self, id, nodes)
    }
}

/// Planning reads through the view: look-ups in the index, verified reads of
/// what it points to.
impl PlanState for View {
    fn context(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError> {
        self.state(id)
    }

    fn next_number(&self) -> u64 {
        self.index().next_number()
    }

    fn request(&self, number: u64, key: &RequestKey) -> Result<Option<u64>, IndexError> {
        self.index().request(number, key)
    }

    fn entry(&self, id: &ContextId, sequence: u64) -> Result<Entry, StoreError> {
        let missing = || self.lose("the index names an entry that is not there");
        View::entry(self, id, sequence)?.ok_or_else(missing)
    }

    fn payload_intact(&self, hash: &Hash) -> Result<bool, StoreError> {
        View::payload_intact(self, hash)
    }
}
