//! Layer 1. Tiles of an untrusted source, released only once they verify.
//!
//! Owns: the rule by which a tile is checked, and [`CheckedTiles`], the only
//! place that holds a peer's tiles.
//!
//! ```text
//!   trusted root
//!     | fold
//!   peaks  ------------ vouch for --->  the partial tile of each level
//!   tile at level t + 1 - vouches for -> 256 full tiles at level t
//! ```
//!
//! A full tile hashes up to one node, which is an entry of the tile above it. A
//! partial tile is the last of its level, and the complete subtrees that cover
//! its hashes are exactly the tree's peaks of the levels it spans. So every tile
//! has one thing that vouches for it, and the top one is always partial
//! (after the tile reader of Go's `sumdb/tlog`).
//!
//! Invariants:
//! * no hash leaves here that does not follow from the trusted root;
//! * a refused tile changes nothing.

use std::collections::BTreeMap;

use super::nodes::{MissingNode, ReadNodes, fold_complete};
use super::tile::{self, TILE_HEIGHT, TILE_WIDTH, TileError, TileId, TileSlice};
use super::tiles::{Tiles, fold_slice};
use super::{Frontier, NodeId, TreeSize, shape};
use crate::hash::Hash;

/// Checks that `hashes` are those of `tile` in the tree of `frontier`, whose
/// root the caller trusts. `parent` is the entry of the tile above, already
/// checked; only a full tile needs it.
pub fn check_tile(
    tile: TileId,
    hashes: &[Hash],
    frontier: &Frontier,
    parent: Option<&Hash>,
) -> Result<(), TileError> {
    let size = frontier.size();
    let (expected, got) = (tile.width(size), hashes.len());
    if expected == 0 {
        return Err(TileError::NotInTree {
            tile,
            size: size.get(),
        });
    }
    if expected != got {
        return Err(TileError::WrongWidth {
            tile,
            expected,
            got,
        });
    }
    if expected < TILE_WIDTH {
        return check_against_peaks(tile, hashes, frontier);
    }
    match (parent, tile.parent()) {
        (Some(parent), _) if fold_complete(hashes).as_ref() == Some(parent) => Ok(()),
        (None, Some(slice)) => Err(TileError::ParentMissing {
            tile,
            parent: slice.tile,
        }),
        _ => Err(TileError::HashMismatch { tile }),
    }
}

fn check_against_peaks(
    tile: TileId,
    hashes: &[Hash],
    frontier: &Frontier,
) -> Result<(), TileError> {
    let levels = tile.base()..tile.base() + TILE_HEIGHT;
    let mut covered = 0;
    for (id, peak) in shape::peaks(frontier.size()).zip(frontier.peaks()) {
        let Some(slice) = TileSlice::of(id).filter(|_| levels.contains(&id.level)) else {
            continue;
        };
        if slice.tile != tile || fold_slice(hashes, slice).as_ref() != Some(peak) {
            return Err(TileError::HashMismatch { tile });
        }
        covered += slice.count;
    }
    if covered == hashes.len() {
        Ok(())
    } else {
        Err(TileError::HashMismatch { tile })
    }
}

/// Tiles that follow from a trusted root.
#[derive(Clone, Debug)]
pub struct CheckedTiles {
    frontier: Frontier,
    tiles: BTreeMap<TileId, Vec<Hash>>,
}

impl CheckedTiles {
    /// No tiles yet, of the tree whose peaks are in `frontier`. The peaks may
    /// come from anywhere: they are compared with `trusted`, the root of the
    /// tree of that size.
    pub fn new(frontier: Frontier, trusted: &Hash) -> Result<Self, TileError> {
        if frontier.root() != *trusted {
            return Err(TileError::RootMismatch);
        }
        Ok(Self {
            frontier,
            tiles: BTreeMap::new(),
        })
    }

    /// The tree's size.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        self.frontier.size()
    }

    /// The tiles still to be admitted before [`CheckedTiles::node`] answers for
    /// `node`, in the order in which to admit them; at most eight. Empty also
    /// for a node that no tile of this tree answers.
    #[must_use]
    pub fn missing_for(&self, node: NodeId) -> Vec<TileId> {
        let mut missing = Vec::new();
        let mut next = TileSlice::of(node).filter(|_| node.is_complete_in(self.size()));
        while let Some(slice) = next
            && !self.tiles.contains_key(&slice.tile)
        {
            missing.push(slice.tile);
            let full = slice.tile.width(self.size()) == TILE_WIDTH;
            next = slice.tile.parent().filter(|_| full);
        }
        missing.reverse();
        missing
    }

    /// Takes a tile if it verifies, and releases it.
    pub fn admit(&mut self, tile: TileId, hashes: Vec<Hash>) -> Result<&[Hash], TileError> {
        let parent = tile
            .parent()
            .and_then(|slice| self.tiles.get(&slice.tile)?.get(slice.first));
        check_tile(tile, &hashes, &self.frontier, parent)?;
        Ok(self.tiles.entry(tile).or_insert(hashes))
    }

    /// Lets go of a tile that nothing else will be checked against soon.
    pub fn forget(&mut self, tile: TileId) {
        self.tiles.remove(&tile);
    }

    /// The hashes of an admitted tile.
    #[must_use]
    pub fn tile(&self, tile: TileId) -> Option<&[Hash]> {
        self.tiles.get(&tile).map(Vec::as_slice)
    }

    /// The hash of a complete subtree of level 4 or more, if its tile has been
    /// admitted.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Hash> {
        let slice = TileSlice::of(node)?;
        fold_slice(self.tiles.get(&slice.tile)?, slice)
    }

    /// All tiles of the tree, once all have been admitted.
    pub fn into_tiles(mut self) -> Result<(Frontier, Tiles), TileError> {
        if let Some(tile) = tile::all(self.size()).find(|tile| !self.tiles.contains_key(tile)) {
            return Err(TileError::Missing { tile });
        }
        let mut tiles = Tiles::new();
        // By level, lowest first, then from left to right.
        while let Some((tile, hashes)) = self.tiles.pop_first() {
            tiles.push_tile(tile, &hashes)?;
        }
        Ok((self.frontier, tiles))
    }
}

impl ReadNodes for CheckedTiles {
    type Error = MissingNode;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, MissingNode> {
        ids.iter()
            .map(|&id| self.node(id).ok_or(MissingNode(id)))
            .collect()
    }
}
