//! Layer 1. Consistency: the tree of `m` leaves is the beginning of the tree of
//! `n` leaves (RFC 9162, 2.1.4).
//!
//! Owns: the subtrees from which both roots follow, lowest first. The first one
//! ends at leaf m; if m is a power of two it is the old tree itself, known to
//! the verifier as the old root, and is left out.
//!
//! ```text
//!   m = 3, n = 6:  [2,3)  [3,4)  [0,2)  [4,6)      old root from [2,3) [0,2)
//!   m = 4, n = 6:  [4,6)                           old root is [0,4)
//! ```
//!
//! Invariants:
//! * both sizes determine the number of hashes; no other is taken;
//! * m = n: no hashes, equal roots. m = 0: no hashes, the old root is the empty
//!   tree's, and nothing is said about the new one.

use super::nodes::{BuildError, ReadNodes, read_ranges};
use super::shape::{Climb, Descent, Range};
use super::{LeafIndex, ProofError, TreeSize, exact_length, ordered};
use crate::hash::{self, Hash};

/// Which nodes the proof consists of, lowest first (RFC 9162, 2.1.4.1).
pub fn plan(m: TreeSize, n: TreeSize) -> Result<Vec<Range>, ProofError> {
    let (old, new) = ordered(m, n)?;
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut way = Descent::new(LeafIndex::new(old - 1), n)?;
    let mut ranges = Vec::new();
    while way.here().hi() != old
        && let Some(sibling) = way.next()
    {
        ranges.push(sibling.range());
    }
    if way.here().lo() != 0 {
        ranges.push(way.here());
    }
    ranges.reverse();
    Ok(ranges)
}

/// The proof, read from `nodes`.
pub fn build<R: ReadNodes + ?Sized>(
    m: TreeSize,
    n: TreeSize,
    nodes: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    read_ranges(&plan(m, n)?, nodes)
}

/// Checks that the tree of `n` leaves with `new_root` begins with the tree of
/// `m` leaves with `old_root` (RFC 9162, 2.1.4.2).
pub fn verify(
    m: TreeSize,
    n: TreeSize,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), ProofError> {
    let (old, new) = ordered(m, n)?;
    if old == 0 || old == new {
        exact_length(0, proof.len())?;
        if old == 0 && *old_root != hash::empty_root() {
            return Err(ProofError::OldRootMismatch);
        }
        if old == new && old_root != new_root {
            return Err(ProofError::RootMismatch);
        }
        return Ok(());
    }
    // Both roots are replayed along the way of the old tree's last leaf, from
    // the level of the smallest peak of the old tree: below it, that leaf is
    // always a right child, so the shift never passes `inner`.
    let climb = Climb::new(old - 1, new);
    let start = old.trailing_zeros();
    let inner = climb.inner.saturating_sub(start) as usize;
    let first = usize::from(!old.is_power_of_two());
    exact_length(first + inner + climb.border as usize, proof.len())?;
    let (seed, proof) = proof.split_at(first);
    let (inner, border) = proof.split_at(inner);

    let mut before = *seed.first().unwrap_or(old_root);
    let mut after = before;
    let mut way = (old - 1) >> start;
    for sibling in inner {
        if way & 1 == 0 {
            after = hash::node(&after, sibling);
        } else {
            before = hash::node(sibling, &before);
            after = hash::node(sibling, &after);
        }
        way >>= 1;
    }
    for left in border {
        before = hash::node(left, &before);
        after = hash::node(left, &after);
    }
    if before != *old_root {
        return Err(ProofError::OldRootMismatch);
    }
    if after != *new_root {
        return Err(ProofError::RootMismatch);
    }
    Ok(())
}
