//! What the tests compare with: the recursive definitions of RFC 9162 word by
//! word, its two verification algorithms step by step, and a tree of any size
//! whose leaves are all alike but for a few.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use super::{LeafIndex, NodeId, ReadNodes, TreeSize};
use crate::hash::{self, Hash};

pub(super) fn leaf(i: u64) -> Hash {
    hash::content(&i.to_le_bytes())
}

pub(super) fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(leaf).collect()
}

pub(super) fn size(n: u64) -> TreeSize {
    TreeSize::new(n)
}

pub(super) fn at(i: u64) -> LeafIndex {
    LeafIndex::new(i)
}

/// RFC 9162, 2.1.1 to 2.1.4 as they are written, each range hashed once.
pub(super) struct Naive {
    pub(super) leaves: Vec<Hash>,
    known: RefCell<HashMap<(u64, u64), Hash>>,
}

impl Naive {
    pub(super) fn new(leaves: Vec<Hash>) -> Self {
        Self {
            leaves,
            known: RefCell::default(),
        }
    }

    fn k(n: u64) -> u64 {
        let mut k = 1;
        while 2 * k < n {
            k *= 2;
        }
        k
    }

    /// MTH(D[lo:hi]).
    pub(super) fn mth(&self, lo: u64, hi: u64) -> Hash {
        if let Some(hash) = self.known.borrow().get(&(lo, hi)) {
            return *hash;
        }
        let hash = match hi - lo {
            0 => hash::empty_root(),
            1 => self.leaves[usize::try_from(lo).unwrap()],
            n => {
                let middle = lo + Self::k(n);
                hash::node(&self.mth(lo, middle), &self.mth(middle, hi))
            }
        };
        self.known.borrow_mut().insert((lo, hi), hash);
        hash
    }

    /// PATH(m, D[lo:hi]).
    pub(super) fn path(&self, m: u64, lo: u64, hi: u64) -> Vec<Hash> {
        if hi - lo == 1 {
            return Vec::new();
        }
        let k = Self::k(hi - lo);
        let (mut path, last) = if m < k {
            (self.path(m, lo, lo + k), self.mth(lo + k, hi))
        } else {
            (self.path(m - k, lo + k, hi), self.mth(lo, lo + k))
        };
        path.push(last);
        path
    }

    /// SUBPROOF(m, D[lo:hi], b).
    pub(super) fn subproof(&self, m: u64, lo: u64, hi: u64, b: bool) -> Vec<Hash> {
        if m == hi - lo {
            return if b {
                Vec::new()
            } else {
                vec![self.mth(lo, hi)]
            };
        }
        let k = Self::k(hi - lo);
        let (mut proof, last) = if m <= k {
            (self.subproof(m, lo, lo + k, b), self.mth(lo + k, hi))
        } else {
            (
                self.subproof(m - k, lo + k, hi, false),
                self.mth(lo, lo + k),
            )
        };
        proof.push(last);
        proof
    }

    /// Right hashes of (k, n), as the specification has them.
    pub(super) fn right(&self, k: u64, lo: u64, hi: u64) -> Vec<Hash> {
        if hi <= k {
            return Vec::new();
        }
        if lo >= k {
            return vec![self.mth(lo, hi)];
        }
        let middle = lo + Self::k(hi - lo);
        let mut out = self.right(k, lo, middle);
        out.extend(self.right(k, middle, hi));
        out
    }
}

/// RFC 9162, 2.1.3.2 step by step.
pub(super) fn rfc_inclusion(leaf: &Hash, index: u64, n: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= n {
        return false;
    }
    let (mut fnode, mut snode, mut r) = (index, n - 1, *leaf);
    for p in path {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            r = hash::node(p, &r);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            r = hash::node(&r, p);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && r == *root
}

/// RFC 9162, 2.1.4.2 step by step, for 0 < m < n.
pub(super) fn rfc_consistency(m: u64, n: u64, path: &[Hash], old: &Hash, new: &Hash) -> bool {
    let mut path = path.to_vec();
    if m.is_power_of_two() {
        path.insert(0, *old);
    }
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let (mut fnode, mut snode) = (m - 1, n - 1);
    while fnode & 1 == 1 {
        fnode >>= 1;
        snode >>= 1;
    }
    let (mut fr, mut sr) = (*first, *first);
    for c in rest {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            fr = hash::node(c, &fr);
            sr = hash::node(c, &sr);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            sr = hash::node(&sr, c);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && fr == *old && sr == *new
}

/// A tree of any size whose leaves are all alike but for a few.
pub(super) struct Sparse {
    plain: Vec<Hash>,
    marked: BTreeMap<u64, Hash>,
}

impl Sparse {
    pub(super) fn new(marked: impl IntoIterator<Item = u64>) -> Self {
        let mut plain = vec![leaf(0)];
        for level in 0..63 {
            plain.push(hash::node(&plain[level], &plain[level]));
        }
        Self {
            plain,
            marked: marked.into_iter().map(|i| (i, leaf(i + 1))).collect(),
        }
    }

    fn node(&self, id: NodeId) -> Hash {
        let (lo, level) = (id.index << id.level, usize::from(id.level));
        let mut inside = self.marked.range(lo..lo + (1 << level));
        let Some((_, mark)) = inside.next() else {
            return self.plain[level];
        };
        if level == 0 {
            return *mark;
        }
        let child = |right| {
            self.node(NodeId {
                level: id.level - 1,
                index: 2 * id.index + right,
            })
        };
        hash::node(&child(0), &child(1))
    }

    pub(super) fn leaf(&self, index: u64) -> Hash {
        self.node(NodeId::leaf(at(index)))
    }

    /// The root by the recursive definition, along the ragged edge.
    pub(super) fn root(&self, n: u64) -> Hash {
        fn mth(tree: &Sparse, lo: u64, n: u64) -> Hash {
            if n.is_power_of_two() {
                let level = n.trailing_zeros();
                return tree.node(NodeId {
                    level: u8::try_from(level).unwrap(),
                    index: lo >> level,
                });
            }
            let k = 1u64 << n.ilog2();
            hash::node(&mth(tree, lo, k), &mth(tree, lo + k, n - k))
        }
        if n == 0 {
            hash::empty_root()
        } else {
            mth(self, 0, n)
        }
    }
}

impl ReadNodes for Sparse {
    type Error = Infallible;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, Infallible> {
        Ok(ids.iter().map(|&id| self.node(id)).collect())
    }
}
