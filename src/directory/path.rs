//! A path proves what a root says about one context: its commitment, or that
//! it has none.
//!
//! ```text
//! node at depth 0 -> slot of nibble 0 -> node at depth 1 -> ... until
//!   an entry with this path hash       present
//!   an empty slot, or another entry    absent
//! ```
//!
//! Invariants: every node is the one its parent commits to, stands at its
//! depth and prefix, and sums to its parent's slot; no node is missing and none
//! is left over. So a root and a path hash have exactly one valid path.

use super::{DirectoryError, LoadError, Node, Opening, Prefix, ReadDirectory, Slot, Sums, load};
use crate::hash::Hash;
use crate::limits::DIRECTORY_DEPTH_MAX;

#[cfg(test)]
mod tests;

/// The nodes of a path, from the root down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The bytes of each node; 1..=64 of them.
    pub nodes: Vec<Vec<u8>>,
}

impl Path {
    /// The nodes as `verify` takes them.
    #[must_use]
    pub fn as_slices(&self) -> Vec<&[u8]> {
        self.nodes.iter().map(Vec::as_slice).collect()
    }
}

/// What a path proves. `sums` are the root's, to be compared with the head's
/// counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The directory holds the context.
    Present {
        /// The commitment to id, size and root.
        commitment: Hash,
        /// The context's size.
        entries: u64,
        /// How much lies below the root.
        sums: Sums,
    },
    /// The directory does not hold the context.
    Absent {
        /// How much lies below the root.
        sums: Sums,
    },
}

impl Found {
    /// How much lies below the root.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        match *self {
            Self::Present { sums, .. } | Self::Absent { sums } => sums,
        }
    }

    /// What the last node of a path says.
    fn at_end(node: &Node, path_hash: &Hash, sums: Sums) -> Self {
        match *node.slot(path_hash) {
            Slot::Entry {
                path,
                commitment,
                entries,
            } if path == *path_hash => Self::Present {
                commitment,
                entries,
                sums,
            },
            _ => Self::Absent { sums },
        }
    }
}

/// The path of `path_hash` under `root`.
pub fn build<R: ReadDirectory>(
    read: &R,
    root: &Hash,
    path_hash: &Hash,
) -> Result<Path, LoadError<R::Error>> {
    let mut nodes = Vec::new();
    let mut step = Step::first(*root);
    loop {
        let node = load(read, &step.hash, &step.prefix, step.stated)?;
        nodes.push(node.encode());
        match step.next(&node, path_hash) {
            Some(next) => step = next,
            None => return Ok(Path { nodes }),
        }
    }
}

/// What `root` says about `path_hash`, read from nodes of one's own.
pub fn find<R: ReadDirectory>(
    read: &R,
    root: &Hash,
    path_hash: &Hash,
) -> Result<Found, LoadError<R::Error>> {
    let mut step = Step::first(*root);
    let mut root_sums = None;
    loop {
        let node = load(read, &step.hash, &step.prefix, step.stated)?;
        let sums = *root_sums.get_or_insert(node.sums());
        match step.next(&node, path_hash) {
            Some(next) => step = next,
            None => return Ok(Found::at_end(&node, path_hash, sums)),
        }
    }
}

/// Replays a path: what `root` says about `path_hash`.
pub fn verify(root: &Hash, path_hash: &Hash, nodes: &[&[u8]]) -> Result<Found, DirectoryError> {
    let got = nodes.len();
    if got > DIRECTORY_DEPTH_MAX {
        let needed = DIRECTORY_DEPTH_MAX;
        return Err(DirectoryError::PathLength { needed, got });
    }
    let mut step = Step::first(*root);
    let mut root_sums = None;
    let mut needed = 0;
    for bytes in nodes {
        needed += 1;
        let node = Node::open(&step.hash, bytes, &step.prefix, step.stated)?;
        let sums = *root_sums.get_or_insert(node.sums());
        if let Some(next) = step.next(&node, path_hash) {
            step = next;
            continue;
        }
        if needed != got {
            return Err(DirectoryError::PathLength { needed, got });
        }
        return Ok(Found::at_end(&node, path_hash, sums));
    }
    let needed = needed + 1;
    Err(DirectoryError::PathLength { needed, got })
}

/// Checks that `root` holds exactly this opening; the root's sums.
pub fn verify_opening(
    root: &Hash,
    opening: &Opening,
    nodes: &[&[u8]],
) -> Result<Sums, DirectoryError> {
    let path = opening.path();
    match verify(root, &path, nodes)? {
        Found::Absent { .. } => Err(DirectoryError::NotPresent { path }),
        Found::Present {
            commitment,
            entries,
            sums,
        } => {
            opening.check_slot(&path, &commitment, entries)?;
            Ok(sums)
        }
    }
}

/// One node of a path: its hash, its place, and what its parent states.
struct Step {
    hash: Hash,
    prefix: Prefix,
    stated: Option<Sums>,
}

impl Step {
    const fn first(root: Hash) -> Self {
        Self {
            hash: root,
            prefix: Prefix::ROOT,
            stated: None,
        }
    }

    /// The node below, unless the path ends here.
    fn next(&self, node: &Node, path_hash: &Hash) -> Option<Self> {
        let slot = node.slot(path_hash);
        let Slot::Child { hash, .. } = *slot else {
            return None;
        };
        Some(Self {
            hash,
            prefix: self.prefix.child(path_hash.nibble(node.depth())),
            stated: Some(slot.sums()),
        })
    }
}
