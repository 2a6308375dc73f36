//! Layer 1. Inclusion: leaf `index` is in the tree of `size` leaves with this
//! root (RFC 9162, 2.1.3).
//!
//! Owns: the siblings on the way from the leaf to the root, lowest first.
//!
//! ```text
//!   leaf 2 of 6:  [3,4)  [0,2)  [4,6)
//!                 right  left   right
//! ```
//!
//! Invariants:
//! * index and size determine the number of hashes; no other is taken;
//! * [`root`] is pure replay: what it returns means nothing until it is
//!   compared with a trusted root, which [`verify`] does.

use super::nodes::{BuildError, ReadNodes, read_ranges};
use super::shape::{Climb, Descent, Range, Sibling};
use super::{LeafIndex, ProofError, TreeSize, exact_length};
use crate::hash::{self, Hash};

/// Which nodes the proof consists of, lowest first (RFC 9162, 2.1.3.1).
pub fn plan(index: LeafIndex, size: TreeSize) -> Result<Vec<Range>, ProofError> {
    let mut ranges: Vec<Range> = Descent::new(index, size)?.map(Sibling::range).collect();
    ranges.reverse();
    Ok(ranges)
}

/// The proof, read from `nodes`.
pub fn build<R: ReadNodes + ?Sized>(
    index: LeafIndex,
    size: TreeSize,
    nodes: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    read_ranges(&plan(index, size)?, nodes)
}

/// The root that `leaf` at `index` and the proof lead to (RFC 9162, 2.1.3.2).
pub fn root(
    leaf: &Hash,
    index: LeafIndex,
    size: TreeSize,
    proof: &[Hash],
) -> Result<Hash, ProofError> {
    // Refuses the sizes and indices that no tree has.
    Descent::new(index, size)?;
    let climb = Climb::new(index.get(), size.get());
    exact_length((climb.inner + climb.border) as usize, proof.len())?;
    let (inner, border) = proof.split_at(climb.inner as usize);
    let mut hash = *leaf;
    let mut way = index.get();
    for sibling in inner {
        hash = if way & 1 == 0 {
            hash::node(&hash, sibling)
        } else {
            hash::node(sibling, &hash)
        };
        way >>= 1;
    }
    Ok(border
        .iter()
        .fold(hash, |right, left| hash::node(left, &right)))
}

/// Checks that `leaf` is at `index` in the tree of `size` leaves with `trusted`
/// as its root.
pub fn verify(
    leaf: &Hash,
    index: LeafIndex,
    size: TreeSize,
    proof: &[Hash],
    trusted: &Hash,
) -> Result<(), ProofError> {
    if root(leaf, index, size, proof)? == *trusted {
        Ok(())
    } else {
        Err(ProofError::RootMismatch)
    }
}
