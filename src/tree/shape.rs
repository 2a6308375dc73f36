//! Layer 1. The shape of the tree: arithmetic on sizes, without a single hash.
//!
//! Owns: the split point, the peaks of a size, node ranges and the descent from
//! a root to a leaf, which every proof is planned with (RFC 9162, 2.1.1).
//!
//! Invariants:
//! * a [`Range`] is not empty and starts at a multiple of the power of two that
//!   holds it; therefore it splits into complete subtrees as a tree of its own
//!   length does, and adding its start to each of them is all it takes;
//! * every function is total on `u64` and ends after at most 64 steps.

use super::{LeafIndex, NodeId, ProofError, TreeSize};

/// The largest power of two below `n`: where a tree of `n` leaves splits.
/// `None` for 0 and 1, which do not split.
#[must_use]
pub const fn split(n: u64) -> Option<u64> {
    if n < 2 {
        return None;
    }
    Some(1 << (n - 1).ilog2())
}

/// The peaks of a tree of `size` leaves, largest first; one per set bit.
#[must_use]
pub const fn peaks(size: TreeSize) -> Subtrees {
    Subtrees {
        lo: 0,
        rest: size.get(),
    }
}

/// A node of the tree of some size: leaves `lo..hi`, complete or ragged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    lo: u64,
    hi: u64,
}

impl Range {
    /// Leaves `lo..hi`; `None` unless that is a node of the tree of some size:
    /// not empty, and `lo` a multiple of the smallest power of two that is at
    /// least `hi - lo`.
    #[must_use]
    pub fn new(lo: u64, hi: u64) -> Option<Self> {
        let len = hi.checked_sub(lo)?;
        let width = len.checked_next_power_of_two()?;
        (len > 0 && lo.is_multiple_of(width)).then_some(Self { lo, hi })
    }

    /// Leaves `lo..hi`, known to be a node because a split led there.
    pub(super) const fn between(lo: u64, hi: u64) -> Self {
        Self { lo, hi }
    }

    /// The first leaf.
    #[must_use]
    pub const fn lo(self) -> u64 {
        self.lo
    }

    /// The leaf after the last.
    #[must_use]
    pub const fn hi(self) -> u64 {
        self.hi
    }

    /// How many leaves; at least one.
    #[must_use]
    pub const fn leaves(self) -> u64 {
        self.hi - self.lo
    }

    /// The complete subtrees that cover the range, left to right. There are
    /// [`Range::node_count`] of them; a complete range is its own only one.
    #[must_use]
    pub const fn nodes(self) -> Subtrees {
        Subtrees {
            lo: self.lo,
            rest: self.leaves(),
        }
    }

    /// How many complete subtrees cover the range.
    #[must_use]
    pub const fn node_count(self) -> usize {
        self.leaves().count_ones() as usize
    }
}

/// Complete subtrees from left to right, each smaller than the one before.
#[derive(Clone, Debug)]
pub struct Subtrees {
    lo: u64,
    rest: u64,
}

impl Iterator for Subtrees {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let level = self.rest.checked_ilog2()?;
        let id = NodeId {
            level: u8::try_from(level).ok()?,
            index: self.lo >> level,
        };
        self.rest ^= 1 << level;
        // Behind the last subtree nothing is read from `lo` any more.
        self.lo = self.lo.wrapping_add(1 << level);
        Some(id)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.rest.count_ones() as usize;
        (count, Some(count))
    }
}

impl ExactSizeIterator for Subtrees {}

/// The siblings passed on the way from the root of a tree down to one leaf,
/// from the top: the one recursion behind every proof, as a loop.
///
/// ```text
///   root [0, 6), leaf 2:   right [4, 6)   left [0, 2)   right [3, 4)
/// ```
#[derive(Clone, Debug)]
pub struct Descent {
    leaf: u64,
    here: Range,
}

/// A node next to the way down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sibling {
    /// All its leaves are before the one looked for.
    Left(Range),
    /// All its leaves are after the one looked for.
    Right(Range),
}

impl Sibling {
    /// The node, on whichever side.
    #[must_use]
    pub const fn range(self) -> Range {
        match self {
            Self::Left(range) | Self::Right(range) => range,
        }
    }
}

impl Descent {
    /// Starts at the root of the tree of `size` leaves.
    pub fn new(leaf: LeafIndex, size: TreeSize) -> Result<Self, ProofError> {
        let hi = size.bounded()?;
        if leaf.get() >= hi {
            return Err(ProofError::IndexOutOfRange {
                index: leaf.get(),
                size: hi,
            });
        }
        Ok(Self {
            leaf: leaf.get(),
            here: Range::between(0, hi),
        })
    }

    /// The node reached so far.
    #[must_use]
    pub const fn here(&self) -> Range {
        self.here
    }
}

impl Iterator for Descent {
    type Item = Sibling;

    fn next(&mut self) -> Option<Sibling> {
        let Range { lo, hi } = self.here;
        let middle = lo + split(hi - lo)?;
        let (left, right) = (Range::between(lo, middle), Range::between(middle, hi));
        if self.leaf < middle {
            self.here = left;
            Some(Sibling::Right(right))
        } else {
            self.here = right;
            Some(Sibling::Left(left))
        }
    }
}

/// How the way from a leaf up to the root looks, without walking it.
///
/// In the lowest `inner` levels a sibling is on the right where the leaf's
/// index has a 0 bit and on the left where it has a 1 bit. Above them the way
/// runs along the right edge of the tree: only left siblings, one for each of
/// the remaining 1 bits, `border` in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Climb {
    pub(super) inner: u32,
    pub(super) border: u32,
}

impl Climb {
    /// The way of `leaf` in a tree of `size` leaves; `leaf` is below `size`.
    pub(super) fn new(leaf: u64, size: u64) -> Self {
        let last = size.saturating_sub(1);
        let inner = u64::BITS - (leaf ^ last).leading_zeros();
        let border = leaf.checked_shr(inner).unwrap_or(0).count_ones();
        Self { inner, border }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_the_largest_power_of_two_below() {
        assert_eq!(split(0), None);
        assert_eq!(split(1), None);
        for n in 2..5000u64 {
            let s = split(n).unwrap();
            assert!(s.is_power_of_two() && s < n && 2 * s >= n, "{n}");
        }
        assert_eq!(split(u64::MAX), Some(1 << 63));
    }

    #[test]
    fn subtrees_cover_their_range_from_left_to_right() {
        for lo in 0..130u64 {
            for hi in 0..130u64 {
                let Some(range) = Range::new(lo, hi) else {
                    continue;
                };
                let mut at = lo;
                let mut level = u8::MAX;
                assert_eq!(range.nodes().len(), range.node_count());
                for id in range.nodes() {
                    let part = id.range().unwrap();
                    assert_eq!(part.lo(), at);
                    assert!(id.level < level);
                    (at, level) = (part.hi(), id.level);
                }
                assert_eq!(at, hi);
            }
        }
        assert_eq!(peaks(TreeSize::new(u64::MAX)).count(), 64);
        assert_eq!(peaks(TreeSize::new(0)).count(), 0);
    }

    #[test]
    fn only_nodes_of_a_tree_are_ranges() {
        assert!(Range::new(0, 0).is_none());
        assert!(Range::new(4, 3).is_none());
        assert!(Range::new(2, 5).is_none());
        assert!(Range::new(4, 7).is_some());
        assert!(Range::new(0, u64::MAX).is_none());
        for n in 1..100 {
            for leaf in 0..n {
                let way = Descent::new(LeafIndex::new(leaf), TreeSize::new(n)).unwrap();
                for sibling in way {
                    let range = sibling.range();
                    assert_eq!(Range::new(range.lo(), range.hi()), Some(range));
                }
            }
        }
    }

    #[test]
    fn a_climb_counts_what_the_descent_meets() {
        for n in 1..300u64 {
            for leaf in 0..n {
                let climb = Climb::new(leaf, n);
                let way = Descent::new(LeafIndex::new(leaf), TreeSize::new(n)).unwrap();
                assert_eq!(way.count(), (climb.inner + climb.border) as usize);
            }
        }
    }
}
