//! A mirror's descent from a signed directory root to the contexts that
//! changed since its own.
//!
//! Owns: which nodes are still needed, and the checks on each. It asks nobody
//! and stores nothing: the caller takes hashes from [`Diff::wanted`], brings
//! answers to [`Diff::supply`], and takes results from [`Diff::take_changed`].
//!
//! How a signed node is compared with the own side is in `compare`.
//!
//! Invariants:
//! * an answer is taken whole or not at all: after an error nothing changed;
//! * only nodes that were asked for are taken, each once;
//! * equal hashes are not descended;
//! * a wanted node states at least one entry more than the own side holds
//!   there, so on each of 64 levels no more nodes are wanted than contexts
//!   can have changed: see [`Diff::nodes_max`]. It is checked, too;
//! * nodes are asked for depth first, so the queue stays near 16 times 64
//!   beyond what is outstanding, whatever the size of the directory.

use std::collections::BTreeMap;
use std::error::Error;

use super::{
    DirectoryError, Fault, LoadError, Node, Opening, Prefix, ReadDirectory, SLOTS, Slot, Sums,
    empty_root, load,
};
use crate::encoding::in_range;
use crate::hash::Hash;

mod compare;
#[cfg(test)]
mod tests;

pub use compare::{Changed, Contradiction, Held};
use compare::{Outcome, Want, compare, compare_all};

/// Why an answer was refused, or the whole root.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError<E: Error + 'static> {
    /// The caller, or its peer, brings a node that is not outstanding.
    #[error("node {hash} was not asked for")]
    Unasked {
        /// The node.
        hash: Hash,
    },
    /// The peer's bytes are not what the root commits to; another may do
    /// better.
    #[error("the peer's answer: {source}")]
    Malformed {
        /// What is wrong.
        source: DirectoryError,
    },
    /// The bytes are what the root commits to, and break the rules: no peer can
    /// do better.
    #[error("the origin signed an invalid directory: {source}")]
    InvalidOrigin {
        /// What is wrong.
        source: DirectoryError,
    },
    /// Two roots of one origin that cannot both be honest.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// A node of one's own could not be had.
    #[error(transparent)]
    Local(#[from] LoadError<E>),
}

/// A descent in progress.
#[derive(Debug)]
pub struct Diff<R> {
    read: R,
    /// Nodes that are needed and not here yet.
    open: BTreeMap<Hash, Want>,
    /// Those of them that nobody was asked for; the last is next.
    queue: Vec<Hash>,
    changed: Vec<Changed>,
    /// Nodes ever wanted.
    nodes: u64,
    nodes_max: u64,
}

impl<R: ReadDirectory> Diff<R> {
    /// A descent from the own root to a signed one, with the counts of the
    /// head that signed it.
    pub fn new(
        read: R,
        local_root: &Hash,
        remote_root: &Hash,
        remote_sums: Sums,
    ) -> Result<Self, DiffError<R::Error>> {
        let held = load(&read, local_root, &Prefix::ROOT, None)?.sums();
        if (*remote_root == empty_root()) != (remote_sums == Sums::default()) {
            let (stated, found) = (remote_sums, Sums::default());
            return Err(wrong_sums(remote_root, stated, found));
        }
        let (contexts, entries) = (remote_sums.contexts, remote_sums.entries);
        in_range("entries below the root", entries, contexts, u64::MAX).map_err(|source| {
            let hash = *remote_root;
            refused(DirectoryError::InvalidNode { hash, source })
        })?;
        let gained = remote_sums.entries.saturating_sub(held.entries);
        let mut diff = Self {
            read,
            open: BTreeMap::new(),
            queue: Vec::new(),
            changed: Vec::new(),
            nodes: 0,
            nodes_max: gained
                .min(remote_sums.contexts)
                .saturating_mul(63)
                .saturating_add(1),
        };
        let local = whole(local_root, held);
        let remote = whole(remote_root, remote_sums);
        if let Outcome::Wanted(hash, want) = compare(Prefix::ROOT, &remote, &local, None)? {
            diff.want(hash, want);
        }
        Ok(diff)
    }

    /// Up to `max` hashes of nodes nobody was asked for; from now on they are
    /// outstanding.
    pub fn wanted(&mut self, max: usize) -> Vec<Hash> {
        let from = self.queue.len().saturating_sub(max);
        let mut hashes = self.queue.split_off(from);
        hashes.reverse();
        for hash in &hashes {
            if let Some(want) = self.open.get_mut(hash) {
                want.asked = true;
            }
        }
        hashes
    }

    /// Puts back whatever is outstanding: the peer that was asked is gone.
    pub fn ask_again(&mut self) {
        for (hash, want) in &mut self.open {
            if std::mem::take(&mut want.asked) {
                self.queue.push(*hash);
            }
        }
    }

    /// An answer: the bytes of an outstanding node and the openings of its
    /// entry slots, all of them, in slot order.
    pub fn supply(
        &mut self,
        hash: &Hash,
        bytes: &[u8],
        openings: Vec<Opening>,
    ) -> Result<(), DiffError<R::Error>> {
        let want = match self.open.get(hash) {
            Some(want) if want.asked => *want,
            _ => return Err(DiffError::Unasked { hash: *hash }),
        };
        let node = Node::open(hash, bytes, &want.prefix, Some(want.stated))
            .and_then(|node| check_openings(hash, &node, &openings).map(|()| node))
            .map_err(refused)?;
        let local = self.local_slots(&want)?;
        let (changed, wanted) = compare_all(&want.prefix, &node, &local, openings)?;
        self.check_new(&wanted)?;
        // Nothing below fails.
        self.open.remove(hash);
        self.changed.extend(changed);
        for (child, want) in wanted.into_iter().rev() {
            self.want(child, want);
        }
        Ok(())
    }

    /// The changed contexts found since the last call.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        std::mem::take(&mut self.changed)
    }

    /// Whether every node that is needed has been supplied.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Nodes that can differ at most: the root, and on each of 63 levels one
    /// per context that can have changed. A context changes by an entry or
    /// more, so that is no more than entries were gained, nor than there are
    /// contexts.
    #[must_use]
    pub const fn nodes_max(&self) -> u64 {
        self.nodes_max
    }

    /// Nodes wanted so far.
    #[must_use]
    pub const fn nodes(&self) -> u64 {
        self.nodes
    }

    fn want(&mut self, hash: Hash, want: Want) {
        self.nodes = self.nodes.saturating_add(1);
        self.open.insert(hash, want);
        self.queue.push(hash);
    }

    /// The own side's slots at the place of `want`.
    fn local_slots(&self, want: &Want) -> Result<[Slot; SLOTS], LoadError<R::Error>> {
        let mut slots = [Slot::Empty; SLOTS];
        match want.local {
            Slot::Empty => {}
            Slot::Entry { path, .. } => {
                let i = usize::from(path.nibble(want.prefix.depth()));
                if let Some(slot) = slots.get_mut(i) {
                    *slot = want.local;
                }
            }
            Slot::Child { hash, .. } => {
                let sums = Some(want.local.sums());
                slots = *load(&self.read, &hash, &want.prefix, sums)?.slots();
            }
        }
        Ok(slots)
    }

    /// Checks the bound, and that no node stands in two places.
    fn check_new(&self, wanted: &[(Hash, Want)]) -> Result<(), DiffError<R::Error>> {
        for (i, (hash, _)) in wanted.iter().enumerate() {
            let mut before = wanted.iter().take(i);
            if self.open.contains_key(hash) || before.any(|(other, _)| other == hash) {
                let source = DirectoryError::Repeated { hash: *hash };
                return Err(refused(source));
            }
        }
        if self.nodes.saturating_add(wanted.len() as u64) > self.nodes_max {
            let max = self.nodes_max;
            return Err(refused(DirectoryError::TooManyNodes { max }));
        }
        Ok(())
    }
}

/// The slot an imagined parent of a root would have.
const fn whole(root: &Hash, sums: Sums) -> Slot {
    Slot::Child {
        hash: *root,
        contexts: sums.contexts,
        entries: sums.entries,
    }
}

/// Checks that a node came with one opening per entry slot, each the one that is
/// committed to.
pub(crate) fn check_openings(
    hash: &Hash,
    node: &Node,
    openings: &[Opening],
) -> Result<(), DirectoryError> {
    let entries = || {
        node.slots().iter().filter_map(|slot| match slot {
            Slot::Entry {
                path,
                commitment,
                entries,
            } => Some((path, commitment, *entries)),
            _ => None,
        })
    };
    let (needed, got) = (entries().count(), openings.len());
    if needed != got {
        return Err(DirectoryError::OpeningCount {
            hash: *hash,
            needed,
            got,
        });
    }
    entries()
        .zip(openings)
        .try_for_each(|((path, commitment, entries), opening)| {
            opening.check_slot(path, commitment, entries)
        })
}

fn refused<E: Error>(source: DirectoryError) -> DiffError<E> {
    match source.fault() {
        Fault::Presenter => DiffError::Malformed { source },
        Fault::Origin => DiffError::InvalidOrigin { source },
    }
}

fn wrong_sums<E: Error>(hash: &Hash, stated: Sums, found: Sums) -> DiffError<E> {
    let source = DirectoryError::WrongSums {
        hash: *hash,
        stated,
        found,
    };
    refused(source)
}
