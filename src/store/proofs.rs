//! Proof files made from a store: an entry under the newest head, and what an
//! older head said against the newest one.
//!
//! A directory is kept for an hour after a newer head replaced it. Beyond that
//! the older one is made again from where every run lies in the log, which
//! takes as long as there are contexts.

use super::StoreError;
use super::view::View;
use crate::directory::path::{self, Found};
use crate::directory::{self, Change, LoadError, MemoryDirectory, Opening, ReadDirectory};
use crate::entry::{ContextId, Entry};
use crate::hash::Hash;
use crate::head::{HeadError, HeadOrder, KeyChain, SignedHead, needed_rotations};
use crate::ledger::ReadMirror;
use crate::proof::{
    ChangedContext, ContextProof, EntryProof, ProofError, State, StoreProof, StoreProofError,
    check_opening, prove_store,
};
use crate::tree::{LeafIndex, TreeSize, inclusion};

/// Why no proof was made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no head yet.
    #[error("there is no head yet")]
    NoHead,
    /// No head covers the context.
    #[error("context {context} is not in head {order}")]
    NoContext {
        /// The context.
        context: ContextId,
        /// The newest head.
        order: HeadOrder,
    },
    /// The newest head does not cover the entry.
    #[error("head {order} covers {size} entries of the context, not entry {sequence}")]
    NotCovered {
        /// The entry.
        sequence: u64,
        /// Entries that the head covers.
        size: u64,
        /// The newest head.
        order: HeadOrder,
    },
    /// The older head is not one of this origin's.
    #[error("the older head: {0}")]
    NotOurs(#[from] HeadError),
    /// The older head is newer than the newest one here.
    #[error("head {order} is not here yet: the newest one is {newest}")]
    Ahead {
        /// The head that was given.
        order: HeadOrder,
        /// The newest head here.
        newest: HeadOrder,
    },
    /// The older head is not among those that are kept: the newest thousand,
    /// and one a minute.
    #[error("head {order} is not among the heads that are kept here")]
    NotKept {
        /// The head that was given.
        order: HeadOrder,
    },
    /// This store has another text for that head: two histories.
    #[error("this store signed or holds another text for head {order}: there are two histories")]
    OtherHistory {
        /// The head that was given.
        order: HeadOrder,
        /// The note this store has.
        own: Vec<u8>,
    },
    /// The proof would be larger than a proof file may be.
    #[error("the proof would be too large: ask for one context at a time")]
    TooLarge,
    /// The proof was made and does not verify: the store contradicts itself.
    #[error("the proof does not verify: {0}")]
    Unsound(#[from] ProofError),
}

/// A context's size and root as a verified head has them.
#[derive(Clone, Debug)]
pub struct SignedState {
    /// The context.
    pub context: ContextId,
    /// Its size and root.
    pub state: State,
    /// The head.
    pub head: SignedHead,
}

impl View {
    /// That an entry is under the newest head; with its payload if asked for.
    pub fn prove_entry(
        &self,
        id: &ContextId,
        sequence: u64,
        with_payload: bool,
    ) -> Result<EntryProof, ProveError> {
        let head = self.head().ok_or(ProveError::NoHead)?;
        let order = head.order();
        let not_covered = |size| ProveError::NotCovered {
            sequence,
            size,
            order,
        };
        let size = self.size_under(&head, id)?.ok_or_else(|| {
            let context = id.clone();
            ProveError::NoContext { context, order }
        })?;
        if sequence == 0 || sequence > size {
            return Err(not_covered(size));
        }
        let header = self.header_bytes(id, sequence)?;
        let payload = if with_payload {
            self.entry(id, sequence)?.map(|entry| entry.payload)
        } else {
            None
        };
        let proof = EntryProof {
            context: id.clone(),
            sequence,
            size,
            root: View::root_at(self, id, size)?,
            header: header.ok_or_else(|| not_covered(size))?,
            payload,
            inclusion: self.inclusion_proof(id, sequence, size)?,
            directory: self.directory_path(&head.head().directory_root, id)?,
            rotations: self.rotations_for(&head),
            head: head.note_bytes(),
        };
        // The same verifier that everybody else has.
        proof.verify(&ReadMirror::pinned_key(self))?;
        Ok(proof)
    }

    /// What the newest head says of a context, verified from the key down.
    pub fn signed_state(&self, id: &ContextId) -> Result<SignedState, ProveError> {
        let head = self.head().ok_or(ProveError::NoHead)?;
        let no_context = || ProveError::NoContext {
            context: id.clone(),
            order: head.order(),
        };
        let size = self.size_under(&head, id)?.ok_or_else(no_context)?;
        let root = View::root_at(self, id, size)?;
        let opening = Opening {
            id: id.as_str().to_owned(),
            size,
            root,
        };
        let chain = KeyChain::open(&ReadMirror::pinned_key(self), &self.rotation_notes())?;
        let head = chain.head(&head.note_bytes())?;
        let path = self.directory_path(&head.head().directory_root, id)?;
        check_opening(&head, &opening, &path)?;
        let context = id.clone();
        let state = State { size, root };
        Ok(SignedState {
            context,
            state,
            head,
        })
    }

    /// Checks that an entry is where the head says it is.
    pub fn check_entry(&self, signed: &SignedState, entry: &Entry) -> Result<(), ProveError> {
        let size = signed.state.size;
        let sequence = entry.sequence;
        if sequence > size || sequence == 0 {
            let order = signed.head.order();
            return Err(ProveError::NotCovered {
                sequence,
                size,
                order,
            });
        }
        let proof = self.inclusion_proof(&signed.context, sequence, size)?;
        let (index, size) = (LeafIndex::new(sequence - 1), TreeSize::new(size));
        inclusion::verify(&entry.id, index, size, &proof, &signed.state.root)
            .map_err(|error| ProveError::Unsound(error.into()))
    }

    /// That a context under the newest head extends what it was under an older
    /// one, whose note is given.
    pub fn prove_context(
        &self,
        id: &ContextId,
        older_note: &[u8],
    ) -> Result<ContextProof, ProveError> {
        let (older, head) = self.two_heads(older_note)?;
        let no_context = || ProveError::NoContext {
            context: id.clone(),
            order: head.order(),
        };
        let size = self.size_under(&head, id)?.ok_or_else(no_context)?;
        let to = State {
            size,
            root: View::root_at(self, id, size)?,
        };
        let root = older.head().directory_root;
        let (older_directory, found) = if let Ok(path) = path::build(self, &root, &id.path()) {
            (
                path,
                path::find(self, &root, &id.path())
                    .map_err(|error| self.lose(&error.to_string()))?,
            )
        } else {
            let remade = self.remade_directory(&older)?;
            let path = path::build(&remade, &root, &id.path())
                .map_err(|error| self.lose(&error.to_string()))?;
            let found = path::find(&remade, &root, &id.path())
                .map_err(|error| self.lose(&error.to_string()))?;
            (path, found)
        };
        let from = match found {
            Found::Absent { .. } => None,
            Found::Present { entries, .. } => Some(State {
                size: entries,
                root: View::root_at(self, id, entries)?,
            }),
        };
        let proof = ContextProof {
            context: id.clone(),
            from,
            to,
            consistency: self.consistency_proof(id, from.map_or(0, |from| from.size), size)?,
            older_directory,
            directory: self.directory_path(&head.head().directory_root, id)?,
            rotations: self.rotations_for(&head),
            older_head: older.note_bytes(),
            head: head.note_bytes(),
        };
        proof.verify(&ReadMirror::pinned_key(self))?;
        Ok(proof)
    }

    /// That everything under an older head, whose note is given, is kept under
    /// the newest one.
    pub fn prove_store(&self, older_note: &[u8]) -> Result<StoreProof, ProveError> {
        let (older, head) = self.two_heads(older_note)?;
        let made = match self.prove_store_from(&older, self, &head) {
            // Its nodes are not all kept any more.
            Err(StoreProofError::Older(_)) => {
                let remade = self.remade_directory(&older)?;
                self.prove_store_from(&older, &remade, &head)
                    .map_err(|error| self.of_store_proof(error))?
            }
            other => other.map_err(|error| self.of_store_proof(error))?,
        };
        made.verify(&ReadMirror::pinned_key(self))?;
        Ok(made)
    }

    fn prove_store_from<O: ReadDirectory>(
        &self,
        older: &SignedHead,
        older_nodes: &O,
        head: &SignedHead,
    ) -> Result<StoreProof, StoreProofError<O::Error, StoreError, StoreError>> {
        let notes = self.rotations_for(head);
        prove_store(
            (older, older_nodes),
            (head, self),
            &notes,
            |path, from, to| self.changed_context(path, from, to),
        )
    }

    fn of_store_proof<O: std::error::Error>(
        &self,
        error: StoreProofError<O, StoreError, StoreError>,
    ) -> ProveError {
        match error {
            StoreProofError::Context(error) | StoreProofError::Newer(LoadError::Read(error)) => {
                error.into()
            }
            StoreProofError::TooLarge => ProveError::TooLarge,
            other => self.lose(&other.to_string()).into(),
        }
    }

    fn changed_context(
        &self,
        path: &Hash,
        from: u64,
        to: u64,
    ) -> Result<ChangedContext, StoreError> {
        let id = self.name_of_path(path)?;
        let id = id.ok_or_else(|| self.lose("a directory entry of no context"))?;
        let state = |size| {
            let root = View::root_at(self, &id, size)?;
            Ok::<_, StoreError>(State { size, root })
        };
        Ok(ChangedContext {
            from: state(from)?,
            to: state(to)?,
            consistency: self.consistency_proof(&id, from, to)?,
            id,
        })
    }

    /// Entries of a context under a head whose directory is kept.
    fn size_under(&self, head: &SignedHead, id: &ContextId) -> Result<Option<u64>, StoreError> {
        match path::find(self, &head.head().directory_root, &id.path()) {
            Ok(Found::Present { entries, .. }) => Ok(Some(entries)),
            Ok(Found::Absent { .. }) => Ok(None),
            Err(LoadError::Read(error)) => Err(error),
            Err(error) => Err(self.lose(&error.to_string())),
        }
    }

    /// The older head, as this store has it, and the newest one.
    fn two_heads(&self, older_note: &[u8]) -> Result<(SignedHead, SignedHead), ProveError> {
        let head = self.head().ok_or(ProveError::NoHead)?;
        let chain = KeyChain::open(&ReadMirror::pinned_key(self), &self.rotation_notes())?;
        let older = chain.head_of(older_note)?;
        let (place, newest) = (older.order(), head.order());
        if place > newest {
            return Err(ProveError::Ahead {
                order: place,
                newest,
            });
        }
        let own = if place == newest {
            head.clone()
        } else {
            let past = self.head_at(place)?;
            past.ok_or(ProveError::NotKept { order: place })?.head
        };
        if own.head() != older.head() {
            let own = own.note_bytes();
            return Err(ProveError::OtherHistory { order: place, own });
        }
        Ok((own, head))
    }

    /// The directory of a head of this store, made again.
    fn remade_directory(&self, head: &SignedHead) -> Result<MemoryDirectory, ProveError> {
        let order = head.order();
        let past = self.head_at(order)?;
        let past = past.ok_or(ProveError::NotKept { order })?;
        let openings = self.openings_at(&past)?;
        let changes: Vec<Change> = openings.iter().map(change_of).collect();
        let mut nodes = MemoryDirectory::new();
        let update = directory::apply(&nodes, &directory::empty_root(), &changes);
        let update = update.map_err(|error| self.lose(&error.to_string()))?;
        nodes.add(&update);
        Ok(nodes)
    }

    /// The rotations that this head, which is the newest of a proof, needs: a
    /// mirror may know of more.
    fn rotations_for(&self, head: &SignedHead) -> Vec<Vec<u8>> {
        needed_rotations(&self.rotation_notes(), &[head.note_bytes()])
    }

    fn rotation_notes(&self) -> Vec<Vec<u8>> {
        let index = self.index();
        index
            .chain
            .rotations()
            .map(SignedHead::note_bytes)
            .collect()
    }
}

fn change_of(opening: &Opening) -> Change {
    Change {
        path: opening.path(),
        commitment: opening.commitment(),
        entries: opening.size,
    }
}
