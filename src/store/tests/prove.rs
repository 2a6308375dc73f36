//! Proofs through a view, and that nothing else is proven.

use super::*;
use crate::directory::path::{self, Found};
use crate::entry::{Header, leaf_hash};
use crate::hash::Hash;
use crate::tree::{LeafIndex, TreeSize, consistency, inclusion};

/// Entries of `many`: a tile and what is behind it, in runs of odd lengths.
const MANY: u64 = 4_300;

/// Half of it is in the index on disk, half in the tail.
fn store() -> (MemoryDisk, Store) {
    let disk = new_disk();
    let mut size = 0u64;
    let mut grow = |store: &Store, until: u64| {
        while size < until {
            let count = (size % 300 + 1).min(until - size);
            let drafts = (size..size + count)
                .map(|i| (id("many"), draft(&format!("payload {i}"))))
                .collect();
            store.append(drafts).unwrap();
            size += count;
        }
    };
    let first = open(&disk);
    put(&first, "one", &["1"]);
    grow(&first, MANY / 2);
    first.close().unwrap();
    drop(first);
    let store = open(&disk);
    grow(&store, MANY);
    (disk, store)
}

#[allow(clippy::needless_pass_by_value)] // what a call returned
#[track_caller]
fn refused<T: Debug>(outcome: Result<T, StoreError>) {
    assert!(
        matches!(outcome, Err(StoreError::Refused(_))),
        "{outcome:?}"
    );
}

#[test]
fn every_entry_is_proven_at_every_size() {
    let (_disk, store) = store();
    let view = store.view();
    let many = id("many");
    let sizes = [1, 2, 255, 256, 257, 4096, 4097, MANY - 1, MANY];
    for size in sizes {
        let root = view.root_at(&many, size).unwrap();
        for sequence in (1..=size).step_by(97).chain([size]) {
            let header = view.header_bytes(&many, sequence).unwrap().unwrap();
            assert_eq!(Header::decode(&header).unwrap().sequence, sequence);
            let leaf = leaf_hash(&header);
            let entry = view.entry(&many, sequence).unwrap().unwrap();
            assert_eq!(entry.id, leaf);
            let proof = view.inclusion_proof(&many, sequence, size).unwrap();
            let (index, tree) = (LeafIndex::new(sequence - 1), TreeSize::new(size));
            inclusion::verify(&leaf, index, tree, &proof, &root).unwrap();
            let other = leaf_hash(b"another");
            assert!(inclusion::verify(&other, index, tree, &proof, &root).is_err());
        }
        for from in sizes.into_iter().filter(|from| *from <= size).chain([0]) {
            let older = match from {
                0 => crate::hash::empty_root(),
                from => view.root_at(&many, from).unwrap(),
            };
            let proof = view.consistency_proof(&many, from, size).unwrap();
            let (from, to) = (TreeSize::new(from), TreeSize::new(size));
            consistency::verify(from, to, &proof, &older, &root).unwrap();
        }
    }
}

#[test]
fn what_is_not_there_is_not_proven() {
    let (_disk, store) = store();
    let view = store.view();
    let many = id("many");
    refused(view.inclusion_proof(&many, 0, MANY));
    refused(view.inclusion_proof(&many, MANY + 1, MANY));
    refused(view.inclusion_proof(&many, 7, 6));
    refused(view.inclusion_proof(&many, 1, MANY + 1));
    refused(view.inclusion_proof(&many, 1, u64::MAX));
    refused(view.inclusion_proof(&id("none"), 1, 1));
    refused(view.consistency_proof(&many, 3, 2));
    refused(view.consistency_proof(&many, 3, MANY + 1));
    refused(view.consistency_proof(&id("none"), 0, 0));
    for sequence in [0, MANY + 1, u64::MAX] {
        assert_eq!(view.header_bytes(&many, sequence).unwrap(), None);
    }
    assert_eq!(view.header_bytes(&id("none"), 1).unwrap(), None);
    refused(view.directory_path(&Hash::default(), &many));
}

#[test]
fn a_directory_says_which_contexts_it_has() {
    let (_disk, store) = store();
    let head = store.publish().unwrap();
    let root = head.head().directory_root;
    let view = store.view();
    for (name, size) in [("many", Some(MANY)), ("one", Some(1)), ("none", None)] {
        let found = view.directory_path(&root, &id(name)).unwrap();
        let found = path::verify(&root, &id(name).path(), &found.as_slices()).unwrap();
        match found {
            Found::Present { entries, .. } => assert_eq!(Some(entries), size),
            Found::Absent { .. } => assert_eq!(size, None),
        }
    }
    // One that was replaced just now is still there.
    put(&store, "one", &["2"]);
    store.publish().unwrap();
    view.directory_path(&root, &id("one")).unwrap();
}
