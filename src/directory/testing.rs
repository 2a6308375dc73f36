//! What the tests of this folder share: contexts, directories of them, and
//! the from-scratch construction they are compared with.

use std::collections::BTreeMap;

use super::*;

/// A context whose id is its number.
pub(super) fn opening(number: u32, size: u64) -> Opening {
    let id = format!("context-{number}");
    let root = crate::hash::content(format!("{number}/{size}").as_bytes());
    Opening { id, size, root }
}

pub(super) fn change(opening: &Opening) -> Change {
    Change {
        path: opening.path(),
        commitment: opening.commitment(),
        entries: opening.size,
    }
}

/// A change at an artificial path: these bytes, then zeros.
pub(crate) fn at(path: &[u8], entries: u64) -> Change {
    let mut bytes = [0; 32];
    bytes[..path.len()].copy_from_slice(path);
    let commitment = crate::hash::content(&[path, &entries.to_le_bytes()].concat());
    Change {
        path: Hash::from_bytes(bytes),
        commitment,
        entries,
    }
}

/// A directory that grows.
#[derive(Clone)]
pub(crate) struct Grown {
    pub(crate) nodes: MemoryDirectory,
    pub(crate) root: Hash,
    pub(crate) sums: Sums,
}

impl Grown {
    pub(crate) fn new() -> Self {
        Self {
            nodes: MemoryDirectory::new(),
            root: empty_root(),
            sums: Sums::default(),
        }
    }

    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut grown = Self::new();
        grown.apply(changes);
        grown
    }

    pub(super) fn of_openings(openings: &[Opening]) -> Self {
        Self::of(&openings.iter().map(change).collect::<Vec<_>>())
    }

    pub(crate) fn apply(&mut self, changes: &[Change]) -> Update {
        let update = apply(&self.nodes, &self.root, changes).unwrap();
        self.nodes.add(&update);
        (self.root, self.sums) = (update.root, update.sums);
        update
    }

    pub(super) fn bytes(&self, hash: &Hash) -> Vec<u8> {
        self.nodes.directory_node(hash).unwrap().unwrap()
    }
}

/// The directory of a set, from its definition: all nodes by hash, and the
/// root.
pub(super) fn from_scratch(changes: &[Change]) -> (BTreeMap<Hash, Vec<u8>>, Hash) {
    let mut nodes = BTreeMap::new();
    let root = scratch_node(0, changes, &mut nodes);
    (nodes, root)
}

fn scratch_node(depth: u8, below: &[Change], nodes: &mut BTreeMap<Hash, Vec<u8>>) -> Hash {
    let mut slots = [Slot::Empty; SLOTS];
    for (nibble, slot) in (0u8..).zip(&mut slots) {
        let here: Vec<Change> = below
            .iter()
            .copied()
            .filter(|change| change.path.nibble(depth) == nibble)
            .collect();
        *slot = match here[..] {
            [] => Slot::Empty,
            [one] => Slot::Entry {
                path: one.path,
                commitment: one.commitment,
                entries: one.entries,
            },
            _ => Slot::Child {
                hash: scratch_node(depth + 1, &here, nodes),
                contexts: here.len() as u64,
                entries: here.iter().map(|change| change.entries).sum(),
            },
        };
    }
    let node = Node::new(depth, slots).unwrap();
    if !below.is_empty() {
        nodes.insert(node.hash(), node.encode());
    }
    node.hash()
}
