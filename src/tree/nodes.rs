//! Layer 1. Where hashes come from: the tree asks for complete subtrees and
//! knows nothing else about storage.
//!
//! Owns: [`ReadNodes`] (many coordinates in, as many hashes out, in order), the
//! one way from ranges to hashes ([`read_ranges`]: a single read for a whole
//! proof), and [`MemoryNodes`], which holds every node.
//!
//! Invariant: a ragged range is folded from its complete subtrees from right to
//! left, which is the split at the largest power of two (RFC 9162, 2.1.1).

use super::{Frontier, LeafIndex, NodeId, ProofError, Range, TreeSize, shape};
use crate::hash::{self, Hash};

/// A source of complete subtrees' hashes.
pub trait ReadNodes {
    /// Why nodes could not be read.
    type Error;

    /// The hashes of `ids`, all of them and in the order asked for.
    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a proof could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError<E> {
    /// The caller asked for a proof that does not exist.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The nodes could not be read.
    #[error(transparent)]
    Read(E),
    /// The reader broke its promise.
    #[error("{got} nodes were read where {expected} were asked for")]
    WrongCount {
        /// Nodes asked for.
        expected: usize,
        /// Nodes read.
        got: usize,
    },
}

/// Reads the hashes of `ranges`, in order, with one call of `nodes`.
pub fn read_ranges<R: ReadNodes + ?Sized>(
    ranges: &[Range],
    nodes: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<NodeId> = ranges.iter().flat_map(|range| range.nodes()).collect();
    let hashes = read_exact(&ids, nodes)?;
    let mut rest = hashes.as_slice();
    let mut out = Vec::with_capacity(ranges.len());
    for range in ranges {
        let folded = rest
            .split_at_checked(range.node_count())
            .and_then(|(parts, after)| Some((fold(parts)?, after)));
        let Some((hash, after)) = folded else {
            return Err(BuildError::WrongCount {
                expected: ids.len(),
                got: hashes.len(),
            });
        };
        out.push(hash);
        rest = after;
    }
    Ok(out)
}

/// The frontier of the tree at `size`, which may be older than the newest one.
pub fn read_frontier<R: ReadNodes + ?Sized>(
    size: TreeSize,
    nodes: &R,
) -> Result<Frontier, BuildError<R::Error>> {
    size.bounded()?;
    let ids: Vec<NodeId> = shape::peaks(size).collect();
    let peaks = read_exact(&ids, nodes)?;
    Ok(Frontier::from_parts(size, peaks)?)
}

/// The root of the tree at `size`, which may be older than the newest one.
pub fn read_root<R: ReadNodes + ?Sized>(
    size: TreeSize,
    nodes: &R,
) -> Result<Hash, BuildError<R::Error>> {
    Ok(read_frontier(size, nodes)?.root())
}

/// The hash over complete subtrees, given left to right and each smaller than
/// the one before; `None` without any.
#[must_use]
pub fn fold(parts: &[Hash]) -> Option<Hash> {
    let (last, before) = parts.split_last()?;
    Some(
        before
            .iter()
            .rfold(*last, |right, left| hash::node(left, &right)),
    )
}

/// The hash of the complete subtree over `hashes`, whose number is a power of
/// two; `None` without any. Recurses once per level.
#[must_use]
pub fn fold_complete(hashes: &[Hash]) -> Option<Hash> {
    if let [one] = hashes {
        return Some(*one);
    }
    let (left, right) = hashes.split_at(hashes.len() / 2);
    // Without hashes both halves would be empty for ever.
    if left.is_empty() {
        return None;
    }
    Some(hash::node(&fold_complete(left)?, &fold_complete(right)?))
}

fn read_exact<R: ReadNodes + ?Sized>(
    ids: &[NodeId],
    nodes: &R,
) -> Result<Vec<Hash>, BuildError<R::Error>> {
    let hashes = nodes.read_nodes(ids).map_err(BuildError::Read)?;
    if hashes.len() != ids.len() {
        return Err(BuildError::WrongCount {
            expected: ids.len(),
            got: hashes.len(),
        });
    }
    Ok(hashes)
}

/// A node that [`MemoryNodes`] or [`super::CheckedTiles`] does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("node {0} is not here")]
pub struct MissingNode(pub NodeId);

/// Every complete subtree of a tree, by level: 64 bytes per leaf.
#[derive(Clone, Debug, Default)]
pub struct MemoryNodes {
    frontier: Frontier,
    levels: Vec<Vec<Hash>>,
}

impl MemoryNodes {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree over `leaves`.
    pub fn from_leaves(leaves: &[Hash]) -> Result<Self, ProofError> {
        let mut nodes = Self::new();
        for leaf in leaves {
            nodes.append(*leaf)?;
        }
        Ok(nodes)
    }

    /// Adds a leaf; refused at the largest size.
    pub fn append(&mut self, leaf: Hash) -> Result<LeafIndex, ProofError> {
        let levels = &mut self.levels;
        self.frontier.append_with(leaf, |id, hash| {
            // Nodes of a level become final from left to right, so pushing puts
            // each at its index; a new level starts right above the last one.
            match levels.get_mut(usize::from(id.level)) {
                Some(level) => level.push(hash),
                None => levels.push(vec![hash]),
            }
        })
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        self.frontier.size()
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The frontier over all leaves.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The hash of one complete subtree.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Hash> {
        let level = self.levels.get(usize::from(id.level))?;
        level.get(usize::try_from(id.index).ok()?).copied()
    }
}

impl ReadNodes for MemoryNodes {
    type Error = MissingNode;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, MissingNode> {
        ids.iter()
            .map(|&id| self.node(id).ok_or(MissingNode(id)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_breaks_its_promise_is_found_out() {
        struct Generous;
        impl ReadNodes for Generous {
            type Error = std::convert::Infallible;
            fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, Self::Error> {
                Ok(vec![Hash::default(); ids.len() + 1])
            }
        }
        let ranges = [Range::new(0, 3).unwrap()];
        assert_eq!(
            read_ranges(&ranges, &Generous),
            Err(BuildError::WrongCount {
                expected: 2,
                got: 3
            })
        );
    }

    #[test]
    fn missing_nodes_are_named() {
        let nodes = MemoryNodes::from_leaves(&[Hash::default(); 5]).unwrap();
        let id = NodeId { level: 1, index: 2 };
        assert_eq!(
            read_ranges(&[Range::new(4, 6).unwrap()], &nodes),
            Err(BuildError::Read(MissingNode(id)))
        );
        assert_eq!(
            read_root(TreeSize::new(u64::MAX), &nodes),
            Err(BuildError::Proof(ProofError::SizeTooLarge {
                size: u64::MAX
            }))
        );
    }

    #[test]
    fn folding_nothing_gives_nothing() {
        assert_eq!(fold(&[]), None);
        assert_eq!(fold_complete(&[]), None);
        let h = Hash::default();
        assert_eq!(fold(&[h]), Some(h));
        assert_eq!(fold_complete(&[h, h]), fold(&[h, h]));
    }
}
