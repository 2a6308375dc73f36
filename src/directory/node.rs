//! One node of the directory: its bytes, its hash, and every rule that can be
//! checked with the node and its place alone.
//!
//! ```text
//!   0   1  version 1                     entry, 72 bytes     child, 48 bytes
//!   1   1  depth 0..=63                   0  32 path hash     0  32 node hash
//!   2   2  occupied slots, bit i         32  32 commitment   32   8 contexts
//!   4   2  those that are children       64   8 entries      40   8 entries
//!   6   2  reserved
//!   8      the occupied slots in order
//! ```
//!
//! Invariants of a [`Node`], whoever made it:
//! * an entry's path hash has the slot's nibble at the node's depth;
//! * an entry has 1..=2^62-1 entries, a child two contexts or more and at
//!   least as many entries;
//! * a node below the root covers two contexts or more; one at depth 63 has no
//!   children (it could hold only equal path hashes);
//! * the sums do not overflow;
//! * `Node::decode(x)?.encode() == x`.

use std::fmt;

use super::DirectoryError;
use crate::encoding::{DecodeError, Reader, in_range};
use crate::hash::{self, Hash, Role};
use crate::limits::{
    DIRECTORY_CHILD_BYTES, DIRECTORY_DEPTH_MAX, DIRECTORY_ENTRY_BYTES, DIRECTORY_NODE_BYTES_MAX,
    DIRECTORY_NODE_FIXED_BYTES, SEQUENCE_MAX,
};

#[cfg(test)]
mod tests;

/// Slots in a node, one per nibble.
pub const SLOTS: usize = 16;
const VERSION: u8 = 1;
/// The deepest node.
const DEPTH_LAST: u8 = 63;
/// A child covers at least this many contexts.
const CHILD_CONTEXTS_MIN: u64 = 2;

const _: () = {
    assert!(DEPTH_LAST as usize + 1 == DIRECTORY_DEPTH_MAX);
    assert!(DIRECTORY_DEPTH_MAX == 2 * Hash::LEN);
    assert!(DIRECTORY_ENTRY_BYTES == 2 * Hash::LEN + 8);
    assert!(DIRECTORY_CHILD_BYTES == Hash::LEN + 16);
};

/// How much lies below a slot, a node or a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Contexts.
    pub contexts: u64,
    /// Entries of all of them.
    pub entries: u64,
}

impl Sums {
    /// The sums of both, unless they overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            contexts: self.contexts.checked_add(other.contexts)?,
            entries: self.entries.checked_add(other.entries)?,
        })
    }

    /// Whether a directory with these sums may have grown from one with the
    /// sums `held`: nothing fewer, and an entry or more per new context.
    #[must_use]
    pub fn may_extend(self, held: Self) -> bool {
        let contexts = self.contexts.checked_sub(held.contexts);
        let entries = self.entries.checked_sub(held.entries);
        matches!((contexts, entries), (Some(c), Some(e)) if c <= e)
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} contexts, {} entries", self.contexts, self.entries)
    }
}

/// What stands under one nibble.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Slot {
    /// No context.
    #[default]
    Empty,
    /// One context, alone under its prefix.
    Entry {
        /// The context's path hash.
        path: Hash,
        /// The commitment to its id, size and root.
        commitment: Hash,
        /// Its size.
        entries: u64,
    },
    /// Two contexts or more.
    Child {
        /// The hash of the node one level down.
        hash: Hash,
        /// Contexts below.
        contexts: u64,
        /// Entries below.
        entries: u64,
    },
}

impl Slot {
    /// How much lies below.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        match *self {
            Self::Empty => Sums {
                contexts: 0,
                entries: 0,
            },
            Self::Entry { entries, .. } => Sums {
                contexts: 1,
                entries,
            },
            Self::Child {
                contexts, entries, ..
            } => Sums { contexts, entries },
        }
    }
}

/// A place in the trie: the first `depth` nibbles of the path hashes below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Zero after the first `depth` nibbles.
    nibbles: Hash,
    depth: u8,
}

impl Prefix {
    /// The place of the root node.
    pub const ROOT: Self = Self {
        nibbles: Hash::from_bytes([0; Hash::LEN]),
        depth: 0,
    };

    /// The depth of a node at this place.
    #[must_use]
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// The digit at `depth`, if the place is below that depth.
    #[must_use]
    pub fn nibble(&self, depth: u8) -> u8 {
        self.nibbles.nibble(depth)
    }

    /// The place one level down under `slot`.
    #[must_use]
    pub fn child(&self, slot: u8) -> Self {
        let mut nibbles = *self.nibbles.as_bytes();
        if let Some(byte) = nibbles.get_mut(usize::from(self.depth / 2)) {
            *byte |= if self.depth.is_multiple_of(2) {
                slot << 4
            } else {
                slot & 15
            };
        }
        Self {
            nibbles: Hash::from_bytes(nibbles),
            depth: self.depth.saturating_add(1),
        }
    }

    /// Whether `path` lies below this place.
    #[must_use]
    pub fn contains(&self, path: &Hash) -> bool {
        (0..self.depth).all(|depth| path.nibble(depth) == self.nibbles.nibble(depth))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.nibbles.to_string();
        write!(f, "/{}", hex.get(..usize::from(self.depth)).unwrap_or(&hex))
    }
}

/// One checked node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    depth: u8,
    slots: [Slot; SLOTS],
    sums: Sums,
}

impl Node {
    /// The root node of a directory without contexts.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            depth: 0,
            slots: [Slot::Empty; SLOTS],
            sums: Sums {
                contexts: 0,
                entries: 0,
            },
        }
    }

    /// Checks the slots of a node.
    pub fn new(depth: u8, slots: [Slot; SLOTS]) -> Result<Self, DecodeError> {
        in_range("directory depth", depth.into(), 0, DEPTH_LAST.into())?;
        let mut sums = Sums::default();
        for (i, slot) in (0u8..).zip(&slots) {
            check_slot(depth, i, slot)?;
            sums = sums.checked_add(slot.sums()).ok_or(DecodeError::Invalid {
                what: "the sums of a directory node overflow",
            })?;
        }
        if depth > 0 {
            let what = "contexts below a directory node that is not the root";
            in_range(what, sums.contexts, CHILD_CONTEXTS_MIN, u64::MAX)?;
        }
        Ok(Self { depth, slots, sums })
    }

    /// Decodes the only spelling of a node.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        in_range(
            "directory node bytes",
            bytes.len() as u64,
            DIRECTORY_NODE_FIXED_BYTES as u64,
            DIRECTORY_NODE_BYTES_MAX as u64,
        )?;
        let mut reader = Reader::new(bytes);
        reader.version("directory node", VERSION)?;
        let depth = reader.u8("depth")?;
        let occupied = reader.u16("occupied slots")?;
        let children = reader.u16("child slots")?;
        reader.reserved("directory node", 2)?;
        if children & !occupied != 0 {
            return Err(DecodeError::Invalid {
                what: "a child slot is not occupied",
            });
        }
        let mut slots = [Slot::Empty; SLOTS];
        for (i, slot) in slots.iter_mut().enumerate() {
            if children >> i & 1 == 1 {
                *slot = Slot::Child {
                    hash: reader.hash("child's hash")?,
                    contexts: reader.u64("child's contexts")?,
                    entries: reader.u64("child's entries")?,
                };
            } else if occupied >> i & 1 == 1 {
                *slot = Slot::Entry {
                    path: reader.hash("entry's path hash")?,
                    commitment: reader.hash("entry's commitment")?,
                    entries: reader.u64("entry's entries")?,
                };
            }
        }
        reader.finish("directory node")?;
        Self::new(depth, slots)
    }

    /// Checks bytes against the hash that commits to them, the place where
    /// they stand, and the sums their parent slot (or the head) states.
    pub fn open(
        hash: &Hash,
        bytes: &[u8],
        prefix: &Prefix,
        stated: Option<Sums>,
    ) -> Result<Self, DirectoryError> {
        let found = hash::keyed(Role::DirectoryNode, bytes);
        if found != *hash {
            return Err(DirectoryError::WrongHash {
                expected: *hash,
                found,
            });
        }
        let node = Self::decode(bytes).map_err(|source| DirectoryError::InvalidNode {
            hash: *hash,
            source,
        })?;
        if node.depth != prefix.depth() {
            return Err(DirectoryError::WrongDepth {
                hash: *hash,
                expected: prefix.depth(),
                found: node.depth,
            });
        }
        node.check_prefix(hash, prefix)?;
        if let Some(stated) = stated.filter(|&stated| stated != node.sums) {
            return Err(DirectoryError::WrongSums {
                hash: *hash,
                stated,
                found: node.sums,
            });
        }
        Ok(node)
    }

    /// Levels above this node.
    #[must_use]
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// What stands under each nibble.
    #[must_use]
    pub const fn slots(&self) -> &[Slot; SLOTS] {
        &self.slots
    }

    /// The slot of `path` at this node's depth.
    #[must_use]
    pub fn slot(&self, path: &Hash) -> &Slot {
        let i = usize::from(path.nibble(self.depth));
        self.slots.get(i).unwrap_or(&Slot::Empty)
    }

    /// How much lies below.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.sums
    }

    /// The bytes that are hashed, stored and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (mut occupied, mut children) = (0u16, 0u16);
        for (i, slot) in self.slots.iter().enumerate() {
            occupied |= u16::from(!matches!(slot, Slot::Empty)) << i;
            children |= u16::from(matches!(slot, Slot::Child { .. })) << i;
        }
        let mut out = Vec::with_capacity(DIRECTORY_NODE_BYTES_MAX);
        out.extend([VERSION, self.depth]);
        out.extend(occupied.to_le_bytes());
        out.extend(children.to_le_bytes());
        out.extend([0; 2]);
        for slot in &self.slots {
            match slot {
                Slot::Empty => {}
                Slot::Entry {
                    path,
                    commitment,
                    entries,
                } => {
                    out.extend(path.as_bytes());
                    out.extend(commitment.as_bytes());
                    out.extend(entries.to_le_bytes());
                }
                Slot::Child {
                    hash,
                    contexts,
                    entries,
                } => {
                    out.extend(hash.as_bytes());
                    out.extend(contexts.to_le_bytes());
                    out.extend(entries.to_le_bytes());
                }
            }
        }
        out
    }

    /// The hash a parent or head commits to.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash::keyed(Role::DirectoryNode, &self.encode())
    }

    fn check_prefix(&self, hash: &Hash, prefix: &Prefix) -> Result<(), DirectoryError> {
        for slot in &self.slots {
            if let Slot::Entry { path, .. } = slot
                && !prefix.contains(path)
            {
                return Err(DirectoryError::WrongPrefix {
                    hash: *hash,
                    prefix: *prefix,
                    path: *path,
                });
            }
        }
        Ok(())
    }
}

/// The root of a directory without contexts.
#[must_use]
pub fn empty_root() -> Hash {
    Node::empty().hash()
}

fn check_slot(depth: u8, i: u8, slot: &Slot) -> Result<(), DecodeError> {
    match *slot {
        Slot::Empty => Ok(()),
        Slot::Entry { path, entries, .. } => {
            if path.nibble(depth) != i {
                return Err(DecodeError::Invalid {
                    what: "a directory entry stands in another slot than its path hash says",
                });
            }
            in_range("entries of a context", entries, 1, SEQUENCE_MAX)
        }
        Slot::Child {
            contexts, entries, ..
        } => {
            if depth == DEPTH_LAST {
                return Err(DecodeError::Invalid {
                    what: "a directory node at depth 63 has a child",
                });
            }
            let min = CHILD_CONTEXTS_MIN;
            in_range("contexts below a child", contexts, min, u64::MAX)?;
            in_range("entries below a child", entries, contexts, u64::MAX)
        }
    }
}
