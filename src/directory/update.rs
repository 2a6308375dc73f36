//! A batch of changes to a directory: new nodes, retired nodes, new root.
//!
//! ```text
//! apply(root, changes):  sort by path hash, then one descent; under each slot
//!   no change                 the slot as it is
//!   one path in all           an entry
//!   a child                   its node, rebuilt with the changes below it
//!   an entry and new paths    a new node one level down, from all of them
//! ```
//!
//! Invariants:
//! * the result depends on the resulting set alone, not on order or batching;
//! * each node on a changed path is read once and built once: O(changed x
//!   depth); what only the batch itself would have needed never exists;
//! * nothing is written here; an error changes nothing;
//! * a context never disappears, shrinks, or changes at the same size.

use std::error::Error;

use super::{LoadError, Node, Prefix, ReadDirectory, SLOTS, Slot, Sums, empty_root, load};
use crate::encoding::DecodeError;
use crate::hash::Hash;

#[cfg(test)]
mod tests;

/// A context that is new or has grown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its path hash.
    pub path: Hash,
    /// The commitment to its id, new size and new root.
    pub commitment: Hash,
    /// Its new size.
    pub entries: u64,
}

/// What a batch of changes did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// The new root.
    pub root: Hash,
    /// How much lies below it.
    pub sums: Sums,
    /// Nodes that the new root needs and the old one did not, with hashes.
    pub added: Vec<(Hash, Vec<u8>)>,
    /// Nodes that the old root needed and the new one does not.
    pub retired: Vec<Hash>,
    /// Bytes of the retired nodes.
    pub retired_bytes: u64,
}

/// Why a batch was refused. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError<E: Error + 'static> {
    /// A node of one's own could not be had.
    #[error(transparent)]
    Load(#[from] LoadError<E>),
    /// The caller changes one context twice in a batch.
    #[error("the batch changes {path} twice")]
    Duplicate {
        /// The context's path hash.
        path: Hash,
    },
    /// The caller takes entries away.
    #[error("{path} holds {held} entries, the change says {got}")]
    Shrunk {
        /// The context's path hash.
        path: Hash,
        /// Entries in the directory.
        held: u64,
        /// Entries in the change.
        got: u64,
    },
    /// The caller changes what a context holds without adding to it.
    #[error("{path} has another root at the same {entries} entries")]
    Rewritten {
        /// The context's path hash.
        path: Hash,
        /// Entries in both.
        entries: u64,
    },
    /// The caller's change makes a node that breaks a rule: no entries, too
    /// many, or equal path hashes.
    #[error("under {prefix}: {source}")]
    Invalid {
        /// Where.
        prefix: Prefix,
        /// The rule.
        source: DecodeError,
    },
}

/// Computes the directory with `changes` applied to the one under `root`.
pub fn apply<R: ReadDirectory>(
    read: &R,
    root: &Hash,
    changes: &[Change],
) -> Result<Update, UpdateError<R::Error>> {
    let mut sorted = changes.to_vec();
    sorted.sort_unstable_by_key(|change| change.path);
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && a.path == b.path
        {
            return Err(UpdateError::Duplicate { path: a.path });
        }
    }
    let mut batch = Batch {
        read,
        added: Vec::new(),
        retired: Vec::new(),
        retired_bytes: 0,
    };
    let (root, sums) = batch.rebuild(root, &Prefix::ROOT, None, &sorted)?;
    Ok(Update {
        root,
        sums,
        added: batch.added,
        retired: batch.retired,
        retired_bytes: batch.retired_bytes,
    })
}

struct Batch<'a, R> {
    read: &'a R,
    added: Vec<(Hash, Vec<u8>)>,
    retired: Vec<Hash>,
    retired_bytes: u64,
}

type Built<R> = Result<(Hash, Sums), UpdateError<<R as ReadDirectory>::Error>>;

impl<R: ReadDirectory> Batch<'_, R> {
    /// The node under `hash` with `changes`, all of them below `prefix`.
    fn rebuild(
        &mut self,
        hash: &Hash,
        prefix: &Prefix,
        stated: Option<Sums>,
        changes: &[Change],
    ) -> Built<R> {
        let node = load(self.read, hash, prefix, stated)?;
        let built = self.build(prefix, node.slots(), changes)?;
        if built == node {
            return Ok((*hash, node.sums()));
        }
        if *hash != empty_root() {
            self.retired.push(*hash);
            self.retired_bytes += node.encode().len() as u64;
        }
        Ok(self.add(&built))
    }

    /// The node at `prefix` whose slots were `slots`, with `changes`.
    fn build(
        &mut self,
        prefix: &Prefix,
        slots: &[Slot; SLOTS],
        changes: &[Change],
    ) -> Result<Node, UpdateError<R::Error>> {
        let mut slots = *slots;
        let mut rest = changes;
        for (i, slot) in (0u8..).zip(&mut slots) {
            let count = rest.partition_point(|c| c.path.nibble(prefix.depth()) <= i);
            let (below, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = after;
            if !below.is_empty() {
                *slot = self.change_slot(&prefix.child(i), slot, below)?;
            }
        }
        Node::new(prefix.depth(), slots).map_err(|source| UpdateError::Invalid {
            prefix: *prefix,
            source,
        })
    }

    /// The slot in front of `prefix` with `changes`, at least one.
    fn change_slot(
        &mut self,
        prefix: &Prefix,
        slot: &Slot,
        changes: &[Change],
    ) -> Result<Slot, UpdateError<R::Error>> {
        let merged;
        let paths = match *slot {
            Slot::Child { hash, .. } => {
                let (hash, sums) = self.rebuild(&hash, prefix, Some(slot.sums()), changes)?;
                return Ok(child(hash, sums));
            }
            Slot::Empty => changes,
            Slot::Entry {
                path,
                commitment,
                entries,
            } => {
                let held = Change {
                    path,
                    commitment,
                    entries,
                };
                merged = merge(held, changes)?;
                &merged
            }
        };
        if let [only] = paths {
            return Ok(Slot::Entry {
                path: only.path,
                commitment: only.commitment,
                entries: only.entries,
            });
        }
        let node = self.build(prefix, &[Slot::Empty; SLOTS], paths)?;
        let (hash, sums) = self.add(&node);
        Ok(child(hash, sums))
    }

    fn add(&mut self, node: &Node) -> (Hash, Sums) {
        let bytes = node.encode();
        let hash = node.hash();
        self.added.push((hash, bytes));
        (hash, node.sums())
    }
}

const fn child(hash: Hash, sums: Sums) -> Slot {
    Slot::Child {
        hash,
        contexts: sums.contexts,
        entries: sums.entries,
    }
}

/// The sorted `changes`, and `held` unless they change it.
fn merge<E: Error>(held: Change, changes: &[Change]) -> Result<Vec<Change>, UpdateError<E>> {
    let mut merged = changes.to_vec();
    match changes.binary_search_by_key(&held.path, |change| change.path) {
        Err(at) => merged.insert(at, held),
        Ok(at) => {
            if let Some(new) = changes.get(at) {
                check_growth(&held, new)?;
            }
        }
    }
    Ok(merged)
}

fn check_growth<E: Error>(held: &Change, new: &Change) -> Result<(), UpdateError<E>> {
    if new.entries < held.entries {
        return Err(UpdateError::Shrunk {
            path: held.path,
            held: held.entries,
            got: new.entries,
        });
    }
    if new.entries == held.entries && new.commitment != held.commitment {
        return Err(UpdateError::Rewritten {
            path: held.path,
            entries: held.entries,
        });
    }
    Ok(())
}
