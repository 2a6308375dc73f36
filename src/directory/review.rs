//! Compares a signed directory that is *older* than the own one with it: the
//! opposite of [`super::Diff`], with the same slots and rules. What it finds are
//! openings of the older one that the own history has to have passed through.
//!
//! ```text
//! older slot      own slot        outcome
//! -               any             nothing
//! entry           same path       same: nothing; smaller: to be checked
//! entry           child           look for it below
//! child           child           same hash: nothing; grown: wanted
//! anything else                   contradiction
//! ```
//!
//! Invariants: as for a descent to a newer root: only nodes that were asked for
//! are taken, each once and whole; equal hashes are not descended; a wanted node
//! states at least one entry less than the own side holds there.

use std::collections::BTreeMap;
use std::error::Error;

use super::diff::check_openings;
use super::trace::{Aim, alone};
use super::{
    DirectoryError, LoadError, Node, Opening, Prefix, ReadDirectory, SLOTS, Slot, Sums, empty_root,
    load,
};
use crate::hash::Hash;

/// Why a review cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError<E: Error + 'static> {
    /// A node that is not needed.
    #[error("node {hash} was not asked for")]
    Unasked {
        /// The node.
        hash: Hash,
    },
    /// The older directory is not what its root commits to, or breaks a rule.
    #[error(transparent)]
    Shown(#[from] DirectoryError),
    /// The own directory does not extend the older one.
    #[error("the directories contradict each other")]
    Contradiction(Aim),
    /// A node of one's own could not be had.
    #[error(transparent)]
    Local(#[from] LoadError<E>),
}

#[derive(Clone, Copy, Debug)]
struct Want {
    prefix: Prefix,
    stated: Sums,
    own: Slot,
    asked: bool,
}

/// A comparison in progress.
#[derive(Debug)]
pub struct Review<R> {
    read: R,
    open: BTreeMap<Hash, Want>,
    queue: Vec<Hash>,
    found: Vec<Opening>,
    nodes: u64,
    nodes_max: u64,
}

impl<R: ReadDirectory> Review<R> {
    /// Compares the older root and the counts of its head with the own ones; at
    /// most `nodes_max` nodes are asked for.
    pub fn new(
        read: R,
        (own_root, own_sums): (Hash, Sums),
        (root, sums): (Hash, Sums),
        nodes_max: u64,
    ) -> Result<Self, ReviewError<R::Error>> {
        let mut review = Self {
            read,
            open: BTreeMap::new(),
            queue: Vec::new(),
            found: Vec::new(),
            nodes: 0,
            nodes_max,
        };
        if (root == empty_root()) != (sums == Sums::default()) {
            return Err(wrong_sums(&root, sums, Sums::default()).into());
        }
        let child = |hash, sums: Sums| Slot::Child {
            hash,
            contexts: sums.contexts,
            entries: sums.entries,
        };
        if root != empty_root() {
            let (older, own) = (child(root, sums), child(own_root, own_sums));
            review.compare(Prefix::ROOT, &older, own, None)?;
        }
        Ok(review)
    }

    /// Up to `max` hashes of nodes that nobody was asked for.
    pub fn wanted(&mut self, max: usize) -> Vec<Hash> {
        let hashes = self.queue.split_off(self.queue.len().saturating_sub(max));
        for hash in &hashes {
            if let Some(want) = self.open.get_mut(hash) {
                want.asked = true;
            }
        }
        hashes
    }

    /// A node that was asked for, with its openings.
    pub fn supply(
        &mut self,
        hash: &Hash,
        bytes: &[u8],
        openings: Vec<Opening>,
    ) -> Result<(), ReviewError<R::Error>> {
        let want = match self.open.remove(hash) {
            Some(want) if want.asked => want,
            _ => return Err(ReviewError::Unasked { hash: *hash }),
        };
        let node = Node::open(hash, bytes, &want.prefix, Some(want.stated))?;
        check_openings(hash, &node, &openings)?;
        let own = self.slots(want.own, &want.prefix)?;
        let mut openings = openings.into_iter();
        for (i, (older, own)) in (0u8..).zip(node.slots().iter().zip(own)) {
            let opening = match older {
                Slot::Entry { .. } => openings.next(),
                _ => None,
            };
            self.compare(want.prefix.child(i), older, own, opening)?;
        }
        Ok(())
    }

    /// Contexts that were smaller then: their roots are to be checked.
    pub fn take_found(&mut self) -> Vec<Opening> {
        std::mem::take(&mut self.found)
    }

    /// Whether nothing is needed any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    fn slots(&self, slot: Slot, at: &Prefix) -> Result<[Slot; SLOTS], LoadError<R::Error>> {
        match slot {
            Slot::Child { hash, .. } => {
                Ok(*load(&self.read, &hash, at, Some(slot.sums()))?.slots())
            }
            slot => Ok(alone(slot, at.depth())),
        }
    }

    /// The table at the top of this file.
    fn compare(
        &mut self,
        at: Prefix,
        older: &Slot,
        own: Slot,
        opening: Option<Opening>,
    ) -> Result<(), ReviewError<R::Error>> {
        let (before, after) = (older.sums(), own.sums());
        match (*older, own) {
            (Slot::Empty, _) => Ok(()),
            (
                Slot::Entry {
                    path, commitment, ..
                },
                _,
            ) => {
                let found = self.find(&path, own, at)?;
                match found {
                    Some((_, entries)) if entries > before.entries => {
                        self.found.extend(opening);
                        Ok(())
                    }
                    Some((own, entries)) if entries == before.entries && own == commitment => {
                        Ok(())
                    }
                    _ => Err(ReviewError::Contradiction(Aim::Context(path))),
                }
            }
            (Slot::Child { hash, .. }, Slot::Child { hash: own, .. }) if hash == own => {
                if before == after {
                    return Ok(());
                }
                Err(wrong_sums(&hash, before, after).into())
            }
            (Slot::Child { .. }, _) if before == after || !after.may_extend(before) => {
                Err(ReviewError::Contradiction(Aim::Below(at)))
            }
            (Slot::Child { hash, .. }, own) => {
                if self.nodes >= self.nodes_max {
                    // As far as it was compared, nothing is wrong.
                    return Ok(());
                }
                let want = Want {
                    prefix: at,
                    stated: before,
                    own,
                    asked: false,
                };
                if self.open.insert(hash, want).is_some() {
                    return Err(DirectoryError::Repeated { hash }.into());
                }
                self.nodes += 1;
                self.queue.push(hash);
                Ok(())
            }
        }
    }

    /// Commitment and size of a context in or below an own slot.
    fn find(
        &self,
        path: &Hash,
        mut slot: Slot,
        mut at: Prefix,
    ) -> Result<Option<(Hash, u64)>, LoadError<R::Error>> {
        // A node is one deeper than its parent, so this ends.
        while let Slot::Child { hash, .. } = slot {
            let node = load(&self.read, &hash, &at, Some(slot.sums()))?;
            slot = *node.slot(path);
            at = at.child(path.nibble(node.depth()));
        }
        Ok(match slot {
            Slot::Entry {
                path: found,
                commitment,
                entries,
            } if found == *path => Some((commitment, entries)),
            _ => None,
        })
    }
}

const fn wrong_sums(hash: &Hash, stated: Sums, found: Sums) -> DirectoryError {
    DirectoryError::WrongSums {
        hash: *hash,
        stated,
        found,
    }
}
