//! Layer 1. The Merkle tree of a context, as pure arithmetic and hashing: no
//! clock, no file, no logging (`spec/02-tree.md`; RFC 9162, section 2.1).
//!
//! A tree over n leaves splits at the largest power of two below n. Six leaves
//! `a..f`, with the nodes named `(level, index)`:
//!
//! ```text
//!   level                    root = [0, 6)
//!                           /             \
//!   2               (2,0) = [0, 4)         \
//!                  /          \             \
//!   1        (1,0)            (1,1)          (1,2) = [4, 6)
//!           /     \          /     \        /     \
//!   0   (0,0)=a (0,1)=b  (0,2)=c (0,3)=d  (0,4)=e (0,5)=f
//! ```
//!
//! * **leaf**: the hash of an entry's header; **node**: [`crate::hash::node`]
//!   of two hashes; the empty tree's root is [`crate::hash::empty_root`], the
//!   root over one leaf is that leaf.
//! * **complete subtree** ([`NodeId`]): 2^level leaves that all exist. Its hash
//!   is final: no later leaf changes it. Only these are ever stored.
//! * **peaks**: the complete subtrees that cover a size, largest first, one per
//!   set bit: above `(2,0)` and `(1,2)`. Size and peaks are the [`Frontier`].
//! * **node range** ([`Range`]): a place in the tree of one size, complete or
//!   ragged; above `[0, 6)` is ragged, being the root over two peaks.
//!
//! Every proof is three functions over one descent ([`shape::Descent`]):
//! *plan* says which ranges, *build* reads them through [`ReadNodes`], *verify*
//! (or *root*) replays them. A verifier takes exactly the number of hashes the
//! sizes determine, and nothing it allocates depends on what a peer sent.

pub mod checked;
pub mod consistency;
pub mod frontier;
pub mod inclusion;
pub mod nodes;
pub mod range;
#[cfg(any(feature = "store", test))]
pub mod second_opinion;
pub mod shape;
pub mod tile;
pub mod tiles;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tile_tests;

use std::fmt;

use crate::limits::SEQUENCE_MAX;

pub use checked::CheckedTiles;
pub use frontier::Frontier;
pub use nodes::{BuildError, MemoryNodes, MissingNode, ReadNodes};
pub use range::root_with_right;
pub use shape::Range;
pub use tile::{TileError, TileId, TilePath, TileSlice};
pub use tiles::{ReadLeaves, ReadTiles, TilePyramid, TiledError, TiledNodes, Tiles};

/// The place of a leaf, from 0. The entry with sequence `s` is leaf `s - 1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeafIndex(u64);

impl LeafIndex {
    /// Wraps a 0-based index.
    #[must_use]
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// The 0-based index.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeafIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many leaves a tree has. Any value can be wrapped, since sizes come from
/// peers; every function of this module refuses one above [`SEQUENCE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TreeSize(u64);

impl TreeSize {
    /// Wraps a number of leaves.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        Self(size)
    }

    /// The number of leaves.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of leaves, if it is within [`SEQUENCE_MAX`].
    pub const fn bounded(self) -> Result<u64, ProofError> {
        if self.0 > SEQUENCE_MAX {
            return Err(ProofError::SizeTooLarge { size: self.0 });
        }
        Ok(self.0)
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The complete subtree over leaves `[index << level, (index + 1) << level)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId {
    /// 0 for leaves.
    pub level: u8,
    /// From left to right within the level, from 0.
    pub index: u64,
}

impl NodeId {
    /// The leaf at `index`.
    #[must_use]
    pub const fn leaf(index: LeafIndex) -> Self {
        Self {
            level: 0,
            index: index.0,
        }
    }

    /// The leaves below; `None` if no tree of an allowed size has this node.
    #[must_use]
    pub fn range(self) -> Option<Range> {
        let len = 1u64.checked_shl(u32::from(self.level))?;
        let lo = self.index.checked_mul(len)?;
        let hi = lo.checked_add(len)?;
        (hi <= SEQUENCE_MAX).then_some(Range::between(lo, hi))
    }

    /// Whether the tree of `size` leaves has this node, so that it is final.
    #[must_use]
    pub fn is_complete_in(self, size: TreeSize) -> bool {
        self.range().is_some_and(|range| range.hi() <= size.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.level, self.index)
    }
}

/// Why a proof was refused or cannot be asked for. Refusing changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    IndexOutOfRange {
        /// The leaf asked for.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The smaller size is above the larger one.
    #[error("size {smaller} is above size {larger}")]
    SizeOutOfOrder {
        /// The size that must not be above.
        smaller: u64,
        /// The size it was compared with.
        larger: u64,
    },
    /// A size above [`SEQUENCE_MAX`].
    #[error("size {size} is above the limit")]
    SizeTooLarge {
        /// The size.
        size: u64,
    },
    /// Too few or too many hashes: the sizes determine how many.
    #[error("{got} hashes where {expected} belong")]
    WrongLength {
        /// How many belong there.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// The hashes lead to another root than the one of the (larger) tree.
    #[error("the hashes lead to another root")]
    RootMismatch,
    /// The hashes lead to another root than the one of the smaller tree.
    #[error("the hashes lead to another root of the smaller tree")]
    OldRootMismatch,
}

/// Refuses all but the exact number of hashes.
fn exact_length(expected: usize, got: usize) -> Result<(), ProofError> {
    if expected == got {
        Ok(())
    } else {
        Err(ProofError::WrongLength { expected, got })
    }
}

/// Refuses sizes that are out of order or above the limit.
fn ordered(smaller: TreeSize, larger: TreeSize) -> Result<(u64, u64), ProofError> {
    if smaller > larger {
        return Err(ProofError::SizeOutOfOrder {
            smaller: smaller.0,
            larger: larger.0,
        });
    }
    Ok((smaller.0, larger.bounded()?))
}
