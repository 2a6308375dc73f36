//! Layer 1. Run proofs: what is to the right of a run of leaves.
//!
//! A mirror at size `from` gets the leaves up to `k` and the nodes to the right
//! of them in the signed tree of `n` leaves. It appends the leaves to its own
//! frontier and folds frontier and right nodes into the root. Since everything
//! on the left is its own, the one equality with the signed root proves both
//! inclusion of the new leaves and extension of the old tree.
//!
//! Owns: the right nodes of (k, n), left to right: the siblings on the right of
//! the way from the root to leaf k - 1 (`spec/02-tree.md`; the nodes are those
//! of RFC 9162, 2.1.3.1).
//!
//! ```text
//!   k = 3, n = 6:  frontier [0,2) [2,3)   right [3,4) [4,6)
//! ```
//!
//! Invariants:
//! * k and n determine the number of right hashes; no other is taken; it is at
//!   most [`PROOF_HASHES_MAX`]; none for k = n, one (the root) for k = 0 < n;
//! * a right edge that is not full is one hash.

use super::nodes::{BuildError, ReadNodes, read_ranges};
use super::shape::{Climb, Descent, Range, Sibling};
use super::{Frontier, LeafIndex, ProofError, TreeSize, exact_length, ordered};
use crate::hash::{self, Hash};
use crate::limits::{PROOF_HASHES_MAX, SEQUENCE_MAX};

const _: () = {
    // A way down passes at most one sibling per bit of the size; a consistency
    // proof adds the node it starts from.
    assert!(SEQUENCE_MAX.ilog2() as usize + 2 <= PROOF_HASHES_MAX);
};

/// Which nodes are to the right of the first `k` of `n` leaves, left to right.
pub fn right_plan(k: TreeSize, n: TreeSize) -> Result<Vec<Range>, ProofError> {
    let (k, size) = ordered(k, n)?;
    if k == size {
        return Ok(Vec::new());
    }
    if k == 0 {
        return Ok(vec![Range::between(0, size)]);
    }
    let mut ranges: Vec<Range> = Descent::new(LeafIndex::new(k - 1), n)?
        .filter_map(|sibling| match sibling {
            Sibling::Left(_) => None,
            Sibling::Right(range) => Some(range),
        })
        .collect();
    ranges.reverse();
    Ok(ranges)
}

/// How many hashes [`right_plan`] names, without naming them.
pub fn right_count(k: TreeSize, n: TreeSize) -> Result<usize, ProofError> {
    let (k, size) = ordered(k, n)?;
    if k == 0 || k == size {
        return Ok(usize::from(k < size));
    }
    // Right siblings are the 0 bits of the last leaf's index below the border.
    let inner = Climb::new(k - 1, size).inner;
    let left = (k - 1).count_ones() - ((k - 1) >> inner).count_ones();
    Ok((inner - left) as usize)
}

/// The right hashes, read from `nodes`.
pub fn right_build<R: ReadNodes + ?Sized>(
    k: TreeSize,
    n: TreeSize,
    nodes: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    read_ranges(&right_plan(k, n)?, nodes)
}

/// The root of the tree of `n` leaves that begins with `frontier` and goes on
/// with `right`. Worth something only once compared with a trusted root.
pub fn root_with_right(
    frontier: &Frontier,
    n: TreeSize,
    right: &[Hash],
) -> Result<Hash, ProofError> {
    let expected = right_count(frontier.size(), n)?;
    exact_length(expected, right.len())?;
    let Some((last, before)) = frontier.peaks().split_last() else {
        // An empty frontier: the whole tree is one hash, or there is no tree.
        return Ok(right.first().copied().unwrap_or_else(hash::empty_root));
    };
    let (mut peaks, mut right) = (before.iter().rev(), right.iter());
    let k = frontier.size().get();
    let start = k.trailing_zeros();
    let inner = Climb::new(k - 1, n.get()).inner.saturating_sub(start);

    let mut hash = *last;
    let mut way = (k - 1) >> start;
    for _ in 0..inner {
        // Peaks and right hashes run out exactly where the sizes say so: the
        // 1 bits of `way` are the other peaks, the 0 bits were counted above.
        hash = if way & 1 == 0 {
            match right.next() {
                Some(next) => hash::node(&hash, next),
                None => break,
            }
        } else {
            match peaks.next() {
                Some(left) => hash::node(left, &hash),
                None => break,
            }
        };
        way >>= 1;
    }
    exact_length(expected, expected - right.len())?;
    Ok(peaks.fold(hash, |right, left| hash::node(left, &right)))
}

/// Checks that `frontier` followed by `right` is the tree of `n` leaves with
/// `trusted` as its root.
pub fn verify(
    frontier: &Frontier,
    n: TreeSize,
    right: &[Hash],
    trusted: &Hash,
) -> Result<(), ProofError> {
    if root_with_right(frontier, n, right)? == *trusted {
        Ok(())
    } else {
        Err(ProofError::RootMismatch)
    }
}
