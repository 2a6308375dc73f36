//! Layer 1. The accumulator: all that is needed to append and to know the root.
//!
//! Owns: a size and its peaks, largest first (RFC 9162, 2.1.1: the left-hand
//! subtrees that later leaves no longer change). Appending is binary counting;
//! a node is hashed for each carry, so one per leaf on average.
//!
//! ```text
//!   size 6 = 110b   peaks [0,4) [4,6)          append: no carry, one more peak
//!   size 7 = 111b   peaks [0,4) [4,6) [6,7)    append: three carries
//!   size 8 = 1000b  peaks [0,8)
//! ```
//!
//! Invariants:
//! * as many peaks as the size has set bits;
//! * the size never passes [`SEQUENCE_MAX`].
//!
//! Layout, version 1: version u8, 7 reserved bytes, size u64, 32 bytes per peak.
//! The bytes do not prove themselves: whoever loads them compares the root.

use super::{LeafIndex, NodeId, ProofError, TreeSize, exact_length, nodes};
use crate::encoding::{DecodeError, Reader, in_range};
use crate::hash::{self, Hash};
use crate::limits::SEQUENCE_MAX;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 16;

/// The size of a tree and its peaks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    size: TreeSize,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: TreeSize::new(0),
            peaks: Vec::new(),
        }
    }

    /// A tree of `size` leaves with these peaks, largest first. Their number
    /// is checked; that they belong together only the root can tell.
    pub fn from_parts(size: TreeSize, peaks: Vec<Hash>) -> Result<Self, ProofError> {
        exact_length(size.bounded()?.count_ones() as usize, peaks.len())?;
        Ok(Self { size, peaks })
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        self.size
    }

    /// The peaks, largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        nodes::fold(&self.peaks).unwrap_or_else(hash::empty_root)
    }

    /// Adds a leaf and says where it went; refused, with nothing changed, at
    /// the largest size.
    pub fn append(&mut self, leaf: Hash) -> Result<LeafIndex, ProofError> {
        self.append_with(leaf, |_, _| ())
    }

    /// Adds a leaf and reports every node that became final with it, from the
    /// leaf upwards.
    pub fn append_with(
        &mut self,
        leaf: Hash,
        mut report: impl FnMut(NodeId, Hash),
    ) -> Result<LeafIndex, ProofError> {
        let index = self.size.get();
        if index >= SEQUENCE_MAX {
            return Err(ProofError::SizeTooLarge {
                size: index.saturating_add(1),
            });
        }
        let mut id = NodeId { level: 0, index };
        let mut hash = leaf;
        report(id, hash);
        // An odd index is a right child: its left sibling is the last peak.
        while id.index & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = hash::node(&left, &hash);
            id = NodeId {
                level: id.level + 1,
                index: id.index >> 1,
            };
            report(id, hash);
        }
        self.peaks.push(hash);
        self.size = TreeSize::new(index + 1);
        Ok(LeafIndex::new(index))
    }

    /// [`Self::append_with`] for many leaves, whose nodes are hashed side by side.
    /// Nodes are reported level by level, from the leaves upwards. Refused, with
    /// nothing changed, if not all of them fit.
    pub fn append_all(
        &mut self,
        leaves: &[Hash],
        mut report: impl FnMut(NodeId, Hash),
    ) -> Result<(), ProofError> {
        let size = self.size.get().saturating_add(leaves.len() as u64);
        if size > SEQUENCE_MAX {
            return Err(ProofError::SizeTooLarge { size });
        }
        let mut first = NodeId {
            level: 0,
            index: self.size.get(),
        };
        let mut here = leaves.to_vec();
        let mut peaks = Vec::new();
        while !here.is_empty() {
            for (index, hash) in (first.index..).zip(&here) {
                let level = first.level;
                report(NodeId { level, index }, *hash);
            }
            // An odd index is a right child: its left sibling is the last peak.
            if first.index & 1 == 1
                && let Some(left) = self.peaks.pop()
            {
                here.insert(0, left);
            }
            let above = hash::node_many(&here);
            if here.len() & 1 == 1 {
                peaks.extend(here.last());
            }
            here = above;
            first = NodeId {
                level: first.level + 1,
                index: first.index >> 1,
            };
        }
        self.peaks.extend(peaks.iter().rev());
        self.size = TreeSize::new(size);
        Ok(())
    }

    /// The layout above.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.peaks.len() * Hash::LEN);
        out.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.size.get().to_le_bytes());
        for peak in &self.peaks {
            out.extend_from_slice(peak.as_bytes());
        }
        out
    }

    /// Reads the layout above, and nothing after it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version("frontier", VERSION)?;
        reader.reserved("reserved bytes of a frontier", 7)?;
        let size = reader.u64("size of a frontier")?;
        in_range("size of a frontier", size, 0, SEQUENCE_MAX)?;
        let peaks = (0..size.count_ones())
            .map(|_| reader.hash("peak of a frontier"))
            .collect::<Result<_, _>>()?;
        reader.finish("frontier")?;
        Ok(Self {
            size: TreeSize::new(size),
            peaks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(i: u64) -> Hash {
        hash::content(&i.to_le_bytes())
    }

    #[test]
    fn bytes_come_back_and_nothing_else_is_taken() {
        let mut frontier = Frontier::new();
        for i in 0..70 {
            let bytes = frontier.to_bytes();
            assert_eq!(Frontier::from_bytes(&bytes).unwrap(), frontier);
            for end in 0..bytes.len() {
                assert!(Frontier::from_bytes(&bytes[..end]).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(Frontier::from_bytes(&longer).is_err());
            for at in 0..8 {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert!(Frontier::from_bytes(&wrong).is_err());
            }
            frontier.append(leaf(i)).unwrap();
        }
    }

    #[test]
    fn many_leaves_at_once_are_the_same_leaves_one_by_one() {
        let leaves: Vec<Hash> = (0..600).map(leaf).collect();
        for before in (0..70).chain([127, 128, 255]) {
            for count in (0..20).chain([63, 64, 65, 256, 300]) {
                let mut all = Frontier::new();
                for leaf in &leaves[..before] {
                    all.append(*leaf).unwrap();
                }
                let mut single = all.clone();
                let (mut expected, mut got) = (Vec::new(), Vec::new());
                for leaf in &leaves[before..before + count] {
                    single
                        .append_with(*leaf, |id, hash| expected.push((id, hash)))
                        .unwrap();
                }
                all.append_all(&leaves[before..before + count], |id, hash| {
                    got.push((id, hash));
                })
                .unwrap();
                assert_eq!(all, single, "{before} + {count}");
                expected.sort_by_key(|(id, _)| (id.level, id.index));
                assert_eq!(got, expected, "{before} + {count}");
            }
        }
        let mut full =
            Frontier::from_parts(TreeSize::new(SEQUENCE_MAX), vec![leaf(0); 62]).unwrap();
        assert!(full.append_all(&leaves[..1], |_, _| ()).is_err());
    }

    #[test]
    fn the_largest_size_takes_no_further_leaf() {
        let size = TreeSize::new(SEQUENCE_MAX);
        let mut full = Frontier::from_parts(size, vec![leaf(0); 62]).unwrap();
        let before = full.clone();
        assert!(matches!(
            full.append(leaf(1)),
            Err(ProofError::SizeTooLarge { .. })
        ));
        assert_eq!(full, before);
        assert_eq!(Frontier::from_bytes(&full.to_bytes()).unwrap(), full);
        assert!(Frontier::from_parts(TreeSize::new(u64::MAX), vec![leaf(0); 64]).is_err());
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        bytes.extend_from_slice(&[0; 64 * 32]);
        assert!(matches!(
            Frontier::from_bytes(&bytes),
            Err(DecodeError::OutOfRange { .. })
        ));
    }

    #[test]
    fn parts_must_fit_the_size() {
        for size in 0..20u64 {
            for count in 0..8usize {
                let parts = Frontier::from_parts(TreeSize::new(size), vec![leaf(0); count]);
                assert_eq!(parts.is_ok(), count == size.count_ones() as usize);
            }
        }
    }
}
