//! Layer 1. The tiles of one tree in memory, and a reader of all its nodes that
//! needs nothing else but leaves.
//!
//! Owns: one list of hashes per tile level. Two bytes per leaf: 32 for every 16
//! leaves, and a 256th of that above; a tree of fewer than 16 leaves has none.
//!
//! Invariants:
//! * every level holds exactly the nodes of its tree level that are complete,
//!   from left to right: a node is taken only in its turn;
//! * hashes here are ours (hashed, or read and compared by [`Tiles::check`]);
//!   a peer's go through [`super::CheckedTiles`].

use super::checked::check_tile;
use super::nodes::{ReadNodes, fold_complete};
use super::tile::{self, TILE_BASE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileError, TileId, TileSlice};
use super::{Frontier, LeafIndex, NodeId, ProofError, TreeSize};
use crate::hash::Hash;

/// All tiles of a tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tiles {
    levels: Vec<Vec<Hash>>,
}

impl Tiles {
    /// The tiles of an empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// Whether these are the tiles of a tree of `size` leaves.
    #[must_use]
    pub fn is_at(&self, size: TreeSize) -> bool {
        let mut nodes = size.get() >> TILE_BASE_LEVEL;
        for level in &self.levels {
            if level.len() as u64 != nodes || nodes == 0 {
                return false;
            }
            nodes >>= TILE_HEIGHT;
        }
        nodes == 0
    }

    /// Takes a node as [`Frontier::append_with`] reports it; nodes of levels
    /// that no tile holds are passed over.
    pub fn add(&mut self, node: NodeId, hash: Hash) -> Result<(), TileError> {
        let Some(slice) = TileSlice::of(node).filter(|slice| slice.count == 1) else {
            return Ok(());
        };
        let at = usize::from(slice.tile.level()) - 1;
        let below = at.checked_sub(1).and_then(|below| self.levels.get(below));
        let here = self.levels.get(at).map_or(0, Vec::len);
        // A node is final only after everything below it.
        let supported = at == 0
            || below.is_some_and(|below| below.len() as u64 / TILE_WIDTH as u64 > node.index);
        if here as u64 != node.index || !supported {
            return Err(TileError::OutOfOrder { node });
        }
        self.extend(at, &[hash]);
        Ok(())
    }

    /// Appends `leaf` to `frontier` and keeps these tiles in step with it.
    ///
    /// Refused, with nothing changed, if the tiles are not those of the
    /// frontier's size, or at the largest size.
    pub fn append(&mut self, frontier: &mut Frontier, leaf: Hash) -> Result<LeafIndex, TilesError> {
        if !self.is_at(frontier.size()) {
            return Err(TilesError::NotInStep);
        }
        let mut added = Ok(());
        let index = frontier.append_with(leaf, |node, hash| {
            if added.is_ok() {
                added = self.add(node, hash);
            }
        })?;
        added?;
        Ok(index)
    }

    /// Takes a stored tile: the next one of its level, after those below it.
    /// Loading goes level by level, lowest first, and ends with
    /// [`Tiles::check`].
    pub fn push_tile(&mut self, tile: TileId, hashes: &[Hash]) -> Result<(), TileError> {
        let first = tile.index().saturating_mul(TILE_WIDTH as u64);
        if hashes.is_empty() || hashes.len() > TILE_WIDTH {
            return Err(TileError::WrongWidth {
                tile,
                expected: TILE_WIDTH,
                got: hashes.len(),
            });
        }
        let at = usize::from(tile.level()) - 1;
        let here = self.levels.get(at).map_or(0, Vec::len);
        if at > self.levels.len() || here as u64 != first {
            return Err(TileError::OutOfOrder {
                node: NodeId {
                    level: tile.base(),
                    index: first,
                },
            });
        }
        self.extend(at, hashes);
        Ok(())
    }

    /// The hashes of a tile, as many as there are; `None` without any.
    #[must_use]
    pub fn tile(&self, tile: TileId) -> Option<&[Hash]> {
        let level = self.levels.get(usize::from(tile.level()) - 1)?;
        level
            .chunks(TILE_WIDTH)
            .nth(usize::try_from(tile.index()).ok()?)
    }

    /// The hash of a complete subtree of level 4 or more, hashed up from at
    /// most 128 hashes of one tile; `None` if it is not (yet) complete here.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Hash> {
        let slice = TileSlice::of(node)?;
        fold_slice(self.tile(slice.tile)?, slice)
    }

    /// Checks every hash here against `frontier`, whose root the caller trusts.
    pub fn check(&self, frontier: &Frontier) -> Result<(), TileError> {
        let size = frontier.size();
        for tile in tile::all(size) {
            let hashes = self.tile(tile).ok_or(TileError::Missing { tile })?;
            let parent = tile.parent().and_then(|slice| self.hash_at(slice));
            check_tile(tile, hashes, frontier, parent.as_ref())?;
        }
        if self.is_at(size) {
            return Ok(());
        }
        // All that belongs here is here, so something else is as well.
        let node = NodeId {
            level: TILE_BASE_LEVEL,
            index: size.get() >> TILE_BASE_LEVEL,
        };
        Err(TileError::OutOfOrder { node })
    }

    /// Bytes of memory held for hashes, unused capacity included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.levels
            .iter()
            .map(|level| level.capacity() * Hash::LEN)
            .sum()
    }

    /// Adds to a level that exists or is the next one.
    fn extend(&mut self, at: usize, hashes: &[Hash]) {
        if at == self.levels.len() {
            self.levels.push(Vec::new());
        }
        if let Some(level) = self.levels.get_mut(at) {
            grow_tightly(level, hashes.len());
            level.extend_from_slice(hashes);
        }
    }

    fn hash_at(&self, slice: TileSlice) -> Option<Hash> {
        self.tile(slice.tile)?.get(slice.first).copied()
    }
}

/// Why a leaf was not appended. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TilesError {
    /// Tiles and frontier belong to different sizes: the caller mixed them up.
    #[error("the tiles are not those of the frontier's size")]
    NotInStep,
    /// The tree is full.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// A node came out of its turn, which [`TilesError::NotInStep`] rules out.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// Grows by an eighth, not by doubling: memory stays near two bytes per leaf
/// and appending stays amortised.
fn grow_tightly(level: &mut Vec<Hash>, more: usize) {
    if level.capacity() - level.len() < more {
        level.reserve_exact(more.max(level.len() / 8).max(4));
    }
}

/// The hash over a slice of a tile's hashes.
pub(super) fn fold_slice(hashes: &[Hash], slice: TileSlice) -> Option<Hash> {
    let end = slice.first.checked_add(slice.count)?;
    fold_complete(hashes.get(slice.first..end)?)
}

/// A source of leaf hashes.
pub trait ReadLeaves {
    /// Why leaves could not be read.
    type Error;

    /// The hashes of `count` (1..=16) leaves from `first` on.
    fn read_leaves(&self, first: LeafIndex, count: usize) -> Result<Vec<Hash>, Self::Error>;
}

impl<E, F: Fn(LeafIndex, usize) -> Result<Vec<Hash>, E>> ReadLeaves for F {
    type Error = E;

    fn read_leaves(&self, first: LeafIndex, count: usize) -> Result<Vec<Hash>, E> {
        self(first, count)
    }
}

/// Why [`TiledNodes`] could not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TiledError<E> {
    /// Tiles or leaves could not be read.
    #[error(transparent)]
    Read(E),
    /// The leaf reader broke its promise.
    #[error("{got} leaves were read where {expected} were asked for")]
    WrongCount {
        /// Leaves asked for.
        expected: usize,
        /// Leaves read.
        got: usize,
    },
    /// No tile has the node.
    #[error("node {0} is in no tile")]
    Missing(NodeId),
}

/// A source of tiles.
pub trait ReadTiles<E> {
    /// The hash over a slice; `None` if the tree does not have it (yet).
    fn read_slice(&self, slice: TileSlice) -> Result<Option<Hash>, E>;
}

impl<E> ReadTiles<E> for &Tiles {
    fn read_slice(&self, slice: TileSlice) -> Result<Option<Hash>, E> {
        Ok(self
            .tile(slice.tile)
            .and_then(|hashes| fold_slice(hashes, slice)))
    }
}

/// The hashes of a tile and all complete nodes above them within it, so that
/// none is hashed twice: 16 KiB for a full tile.
#[derive(Clone, Debug)]
pub struct TilePyramid {
    /// From the tile's own hashes up, each half as long.
    rows: Vec<Vec<Hash>>,
}

impl TilePyramid {
    /// Hashes a tile up.
    #[must_use]
    pub fn new(hashes: Vec<Hash>) -> Self {
        let mut rows = vec![hashes];
        while let Some(below) = rows.last()
            && below.len() > 1
        {
            let pairs = below.chunks_exact(2).filter_map(fold_complete);
            let row = pairs.collect();
            rows.push(row);
        }
        Self { rows }
    }

    /// The hash over a slice of the tile; `None` if it is not complete.
    #[must_use]
    pub fn slice(&self, slice: TileSlice) -> Option<Hash> {
        let height = slice.count.checked_ilog2()? as usize;
        self.rows.get(height)?.get(slice.first >> height).copied()
    }
}

/// All nodes of a tree: levels 4 and up from its tiles, levels 0 to 3 hashed
/// from leaves. Nodes that are asked for one after the other and lie in one
/// group of 16 leaves cost one read, so a proof reads at most 16 leaves on each
/// side of the place it is about.
#[derive(Clone, Copy, Debug)]
pub struct TiledNodes<T, L> {
    tiles: T,
    leaves: L,
}

impl<T: ReadTiles<L::Error>, L: ReadLeaves> TiledNodes<T, L> {
    /// Reads from `tiles` and `leaves` of the same tree.
    pub const fn new(tiles: T, leaves: L) -> Self {
        Self { tiles, leaves }
    }

    /// The hash of a node of level 4 or more.
    fn read_tiled(&self, id: NodeId) -> Result<Hash, TiledError<L::Error>> {
        let slice = TileSlice::of(id).ok_or(TiledError::Missing(id))?;
        let hash = self.tiles.read_slice(slice).map_err(TiledError::Read)?;
        hash.ok_or(TiledError::Missing(id))
    }

    /// The hashes of `ids`, all of levels 0 to 3 and in one group of 16 leaves.
    fn read_group(&self, ids: &[NodeId], out: &mut Vec<Hash>) -> Result<(), TiledError<L::Error>> {
        let (mut lo, mut hi) = (u64::MAX, 0);
        for &id in ids {
            let range = id.range().ok_or(TiledError::Missing(id))?;
            (lo, hi) = (lo.min(range.lo()), hi.max(range.hi()));
        }
        let expected = usize::try_from(hi.saturating_sub(lo)).unwrap_or(0);
        let leaves = self
            .leaves
            .read_leaves(LeafIndex::new(lo), expected)
            .map_err(TiledError::Read)?;
        let got = leaves.len();
        if got != expected {
            return Err(TiledError::WrongCount { expected, got });
        }
        for &id in ids {
            let hash = id.range().and_then(|range| {
                let first = usize::try_from(range.lo() - lo).ok()?;
                let end = usize::try_from(range.hi() - lo).ok()?;
                fold_complete(leaves.get(first..end)?)
            });
            out.push(hash.ok_or(TiledError::Missing(id))?);
        }
        Ok(())
    }
}

impl<T: ReadTiles<L::Error>, L: ReadLeaves> ReadNodes for TiledNodes<T, L> {
    type Error = TiledError<L::Error>;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, Self::Error> {
        let mut out = Vec::with_capacity(ids.len());
        for ids in ids.chunk_by(|a, b| group(*a).is_some() && group(*a) == group(*b)) {
            match ids {
                [id] if group(*id).is_none() => {
                    out.push(self.read_tiled(*id)?);
                }
                _ => self.read_group(ids, &mut out)?,
            }
        }
        Ok(out)
    }
}

/// The group of 16 leaves that a node of level 0 to 3 lies in.
fn group(id: NodeId) -> Option<u64> {
    let below = TILE_BASE_LEVEL.checked_sub(id.level)?;
    (below > 0).then_some(id.index >> below)
}
