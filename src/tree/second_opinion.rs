//! Layer 1. A second, independent implementation of the root: `rs_merkle`.
//!
//! Owns: the adapter that gives `rs_merkle` our node hash. It promotes an odd
//! node unchanged, which makes its roots those of RFC 9162, 2.1.1.
//!
//! Invariants:
//! * only our own leaves come here, never a peer's proof: `rs_merkle` accepts
//!   surplus hashes, indices out of range and wrong totals;
//! * a missing right child means "promote": with any other answer, sizes that
//!   are powers of two would get another root.

use rs_merkle::{Hasher, MerkleTree};

use crate::hash::{self, Hash, Role};

/// The ledger's hashing, as `rs_merkle` wants it.
#[derive(Clone, Debug)]
pub struct LedgerHasher;

impl Hasher for LedgerHasher {
    type Hash = [u8; Hash::LEN];

    fn hash(data: &[u8]) -> Self::Hash {
        *hash::keyed(Role::Node, data).as_bytes()
    }

    fn concat_and_hash(left: &Self::Hash, right: Option<&Self::Hash>) -> Self::Hash {
        match right {
            None => *left,
            Some(right) => {
                let (left, right) = (Hash::from_bytes(*left), Hash::from_bytes(*right));
                *hash::node(&left, &right).as_bytes()
            }
        }
    }
}

/// The root over `leaves`. Takes about 160 bytes per leaf while it runs.
#[must_use]
pub fn root_by_rs_merkle(leaves: &[Hash]) -> Hash {
    let leaves: Vec<_> = leaves.iter().map(|leaf| *leaf.as_bytes()).collect();
    MerkleTree::<LedgerHasher>::from_leaves(&leaves)
        .root()
        .map_or_else(hash::empty_root, Hash::from_bytes)
}

/// Nodes of which `rs_merkle` makes one root at a time: a power of two.
const SUBTREE_NODES: usize = 32;

/// The root over leaves that come one by one, in memory that hardly grows: 1 KiB
/// at most for every factor of 32.
///
/// Levels pair up from the left and an odd node moves up unchanged, so from
/// level 5 on the tree is the one over the roots of every 32 leaves, from level
/// 10 on the one over the roots of every 32 of those, and so on.
#[derive(Debug, Default)]
pub struct SecondRoot {
    size: u64,
    /// From the leaves up: nodes that are fewer than make a root.
    levels: Vec<Vec<Hash>>,
}

impl SecondRoot {
    /// Takes the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.size += 1;
        let mut node = leaf;
        for level in &mut self.levels {
            level.push(node);
            if level.len() < SUBTREE_NODES {
                return;
            }
            node = root_by_rs_merkle(level);
            level.clear();
        }
        self.levels.push(vec![node]);
    }

    /// How many leaves there were.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over all of them.
    #[must_use]
    pub fn root(self) -> Hash {
        let mut ragged = None;
        for mut level in self.levels {
            // What is not whole is the last node of the level above.
            level.extend(ragged);
            ragged = (!level.is_empty()).then(|| root_by_rs_merkle(&level));
        }
        ragged.unwrap_or_else(hash::empty_root)
    }
}
