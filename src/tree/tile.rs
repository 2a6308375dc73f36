//! Layer 1. Tiles: which hashes are stored together, and where a node's are.
//!
//! Owns: tile coordinates and their one spelling as a path. The hashes are in
//! [`super::Tiles`] and [`super::CheckedTiles`].
//!
//! ```text
//!   tile level   holds tree level   one hash is over    a full tile is over
//!        1              4                  16 leaves           4,096 leaves
//!        2             12               4,096 leaves             2^20 leaves
//!        t        4 + 8 (t - 1)
//! ```
//!
//! A tile is up to 256 hashes of one tree level, left to right; the tiles of a
//! level are numbered from the left. Levels in between are hashed up from the
//! tile below them, levels 0 to 3 from at most 16 leaves.
//!
//! Invariants:
//! * only the last tile of a level is partial, and its width follows from the
//!   tree's size; a full tile is never touched again;
//! * a path is what printing gives: parsing prints again and compares (C2SP
//!   tlog-tiles, "Merkle Tree"; our level 1 starts at tree level 4, so these
//!   tiles are not those of a tlog).

use std::fmt;
use std::str::FromStr;

use super::{NodeId, TreeSize};
use crate::encoding::DecodeError;
use crate::limits::SEQUENCE_MAX;

/// The tree level held by tile level 1: its hashes are over 16 leaves.
pub const TILE_BASE_LEVEL: u8 = 4;
/// Tree levels from one tile level to the next.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes in a full tile.
pub const TILE_WIDTH: usize = 1 << TILE_HEIGHT;
/// The highest tile level that a tree of an allowed size reaches.
pub const TILE_LEVEL_MAX: u8 = 8;

/// True for the tree nodes that tiles keep.
#[must_use]
pub fn is_tile_node(id: NodeId) -> bool {
    id.level
        .checked_sub(TILE_BASE_LEVEL)
        .is_some_and(|above| above.is_multiple_of(TILE_HEIGHT))
}

const _: () = {
    let top = TILE_BASE_LEVEL + TILE_HEIGHT * (TILE_LEVEL_MAX - 1);
    assert!(SEQUENCE_MAX >> top > 0);
    assert!(SEQUENCE_MAX >> top < TILE_WIDTH as u64);
};

/// Why a tile or its hashes were refused. Refusing changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TileError {
    /// The tree has no such tile at this size.
    #[error("a tree of {size} leaves has no tile {tile}")]
    NotInTree {
        /// The tile.
        tile: TileId,
        /// The tree's size.
        size: u64,
    },
    /// Too few or too many hashes: the tree's size determines how many.
    #[error("tile {tile} has {got} hashes where {expected} belong")]
    WrongWidth {
        /// The tile.
        tile: TileId,
        /// How many belong there.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// The tile above, which vouches for this one, is not here.
    #[error("tile {tile} cannot be checked before its parent tile {parent}")]
    ParentMissing {
        /// The tile.
        tile: TileId,
        /// The tile that must come first.
        parent: TileId,
    },
    /// The hashes are not the ones that the tree commits to.
    #[error("tile {tile} does not lead to the root")]
    HashMismatch {
        /// The tile.
        tile: TileId,
    },
    /// The peaks are not the ones that the root commits to.
    #[error("the peaks do not lead to the root")]
    RootMismatch,
    /// A tile that is needed is not here.
    #[error("tile {tile} is not here")]
    Missing {
        /// The tile.
        tile: TileId,
    },
    /// A node came too early or twice.
    #[error("node {node} does not follow the nodes that are here")]
    OutOfOrder {
        /// The node.
        node: NodeId,
    },
}

/// A tile: level from 1, index from the left, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TileId {
    level: u8,
    index: u64,
}

/// The hashes of a tile that are below one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileSlice {
    /// The tile.
    pub tile: TileId,
    /// The first hash, 0..=255.
    pub first: usize,
    /// How many: a power of two, at most 128.
    pub count: usize,
}

impl TileId {
    /// A tile, if a tree of an allowed size has it.
    #[must_use]
    pub fn new(level: u8, index: u64) -> Option<Self> {
        if !(1..=TILE_LEVEL_MAX).contains(&level) {
            return None;
        }
        let tile = Self { level, index };
        (tile.width(TreeSize::new(SEQUENCE_MAX)) > 0).then_some(tile)
    }

    /// The tile level, 1..=[`TILE_LEVEL_MAX`].
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// The place in the level, from the left, from 0.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// The tree level whose hashes the tile holds.
    #[must_use]
    pub const fn base(self) -> u8 {
        TILE_BASE_LEVEL + TILE_HEIGHT * (self.level - 1)
    }

    /// How many hashes the tile has in a tree of `size` leaves: 256 if full, 0
    /// if the tree has no such tile.
    #[must_use]
    pub fn width(self, size: TreeSize) -> usize {
        let nodes = size.get() >> self.base();
        let before = self.index.saturating_mul(TILE_WIDTH as u64);
        let width = nodes.saturating_sub(before);
        usize::try_from(width).map_or(TILE_WIDTH, |width| width.min(TILE_WIDTH))
    }

    /// The tile and place of the hash over a full tile's 256.
    #[must_use]
    pub fn parent(self) -> Option<TileSlice> {
        TileSlice::of(NodeId {
            level: self.base() + TILE_HEIGHT,
            index: self.index,
        })
    }
}

impl TileSlice {
    /// Where the hashes below a node of level 4 or more are; `None` for lower
    /// nodes and for those that no tree of an allowed size has.
    #[must_use]
    pub fn of(node: NodeId) -> Option<Self> {
        node.range()?;
        let above = node.level.checked_sub(TILE_BASE_LEVEL)?;
        let height = above % TILE_HEIGHT;
        let tile = TileId {
            level: above / TILE_HEIGHT + 1,
            index: node.index >> (TILE_HEIGHT - height),
        };
        let first = (node.index << height) & (TILE_WIDTH as u64 - 1);
        Some(Self {
            tile,
            first: usize::try_from(first).ok()?,
            count: 1 << height,
        })
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.index)
    }
}

/// All tiles of a tree, highest level first and from left to right: the order
/// in which they can be checked.
pub fn all(size: TreeSize) -> impl Iterator<Item = TileId> {
    (1..=TILE_LEVEL_MAX).rev().flat_map(move |level| {
        let base = TileId { level, index: 0 }.base();
        let tiles = (size.get() >> base).div_ceil(TILE_WIDTH as u64);
        (0..tiles).map(move |index| TileId { level, index })
    })
}

/// A tile at a width, as a path:
/// `tile/1/x001/x234/067`, or `tile/1/x001/x234/067.p/8` for 8 hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TilePath {
    tile: TileId,
    width: u16,
}

impl TilePath {
    /// `tile` at `width` hashes, 1..=256.
    #[must_use]
    pub fn new(tile: TileId, width: usize) -> Option<Self> {
        let width = u16::try_from(width).ok()?;
        (1..=TILE_WIDTH)
            .contains(&usize::from(width))
            .then_some(Self { tile, width })
    }

    /// The tile.
    #[must_use]
    pub const fn tile(self) -> TileId {
        self.tile
    }

    /// How many hashes, 1..=256.
    #[must_use]
    pub fn width(self) -> usize {
        usize::from(self.width)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.tile.level)?;
        let index = self.tile.index;
        // Groups of three digits; all but the last are marked with an x.
        let mut unit = 1;
        while index / unit >= 1000 {
            unit *= 1000;
        }
        while unit > 1 {
            write!(f, "x{:03}/", index / unit % 1000)?;
            unit /= 1000;
        }
        write!(f, "{:03}", index % 1000)?;
        if self.width() < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for TilePath {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let path = parse(text).ok_or(DecodeError::Invalid { what: "tile path" })?;
        if path.to_string() != text {
            return Err(DecodeError::NotCanonical { what: "tile path" });
        }
        Ok(path)
    }
}

/// Accepts more than one spelling; the caller compares.
fn parse(text: &str) -> Option<TilePath> {
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let (groups, width) = match rest.split_once(".p/") {
        Some((groups, width)) => (groups, width.parse().ok()?),
        None => (rest, TILE_WIDTH),
    };
    let mut index = 0u64;
    for group in groups.split('/') {
        let digits: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        index = index.checked_mul(1000)?.checked_add(digits)?;
    }
    TilePath::new(TileId::new(level.parse().ok()?, index)?, width)
}
