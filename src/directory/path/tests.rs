use super::*;
use crate::directory::testing::{Grown, at, opening};
use crate::directory::{Change, Fault, SLOTS};

fn check_all(grown: &Grown, present: &[Change], absent: &[Hash]) {
    let sums = grown.sums;
    for change in present {
        let path = build(&grown.nodes, &grown.root, &change.path).unwrap();
        let found = verify(&grown.root, &change.path, &path.as_slices()).unwrap();
        let (commitment, entries) = (change.commitment, change.entries);
        assert_eq!(
            found,
            Found::Present {
                commitment,
                entries,
                sums
            }
        );
    }
    for hash in absent {
        let path = build(&grown.nodes, &grown.root, hash).unwrap();
        let found = verify(&grown.root, hash, &path.as_slices()).unwrap();
        assert_eq!(found, Found::Absent { sums });
        assert_eq!(found.sums(), sums);
    }
}

#[test]
fn every_context_and_every_absence_has_a_path() {
    let absent: Vec<_> = (1000..1050).map(|i| opening(i, 1).path()).collect();
    for count in [0, 1, 2, 3, 17, 300] {
        let changes: Vec<_> = (0..count)
            .map(|i| crate::directory::testing::change(&opening(i, u64::from(i) + 1)))
            .collect();
        check_all(&Grown::of(&changes), &changes, &absent);
    }
}

#[test]
fn all_small_sets_over_short_paths() {
    let paths: Vec<Vec<u8>> = vec![
        vec![0],
        vec![1],
        vec![0x10],
        vec![0, 1],
        vec![0, 0, 1],
        vec![1, 1],
    ];
    for mask in 0u32..64 {
        let (mut present, mut absent) = (vec![], vec![]);
        for (i, path) in paths.iter().enumerate() {
            let change = at(path, i as u64 + 1);
            if mask >> i & 1 == 1 {
                present.push(change);
            } else {
                absent.push(change.path);
            }
        }
        check_all(&Grown::of(&present), &present, &absent);
    }
}

#[test]
fn the_longest_path_has_64_nodes() {
    let mut other = [0xab; 32];
    other[31] ^= 1;
    let present = [at(&[0xab; 32], 1), at(&other, 2)];
    let mut third = [0xab; 32];
    third[31] ^= 2;
    let grown = Grown::of(&present);
    check_all(&grown, &present, &[Hash::from_bytes(third)]);
    let path = build(&grown.nodes, &grown.root, &present[0].path).unwrap();
    assert_eq!(path.nodes.len(), 64);
    let mut nodes = path.as_slices();
    nodes.push(&path.nodes[0]);
    assert!(matches!(
        verify(&grown.root, &present[0].path, &nodes),
        Err(DirectoryError::PathLength {
            needed: 64,
            got: 65
        })
    ));
}

#[test]
fn every_flipped_bit_and_every_other_length_is_refused() {
    let openings: Vec<_> = (0..60).map(|i| opening(i, 2)).collect();
    let grown = Grown::of_openings(&openings);
    for hash in [openings[7].path(), opening(1000, 1).path()] {
        let path = build(&grown.nodes, &grown.root, &hash).unwrap();
        assert!(path.nodes.len() > 1);
        for (i, node) in path.nodes.iter().enumerate() {
            for bit in 0..node.len() * 8 {
                let mut changed = path.clone();
                changed.nodes[i][bit / 8] ^= 1 << (bit % 8);
                let error = verify(&grown.root, &hash, &changed.as_slices()).unwrap_err();
                assert_eq!(error.fault(), Fault::Presenter);
            }
        }
        for end in 0..path.nodes.len() {
            assert!(verify(&grown.root, &hash, &path.as_slices()[..end]).is_err());
        }
        let mut longer = path.clone();
        longer.nodes.push(path.nodes[0].clone());
        assert!(verify(&grown.root, &hash, &longer.as_slices()).is_err());
        let other = Grown::of_openings(&openings[1..]).root;
        assert!(verify(&other, &hash, &path.as_slices()).is_err());
    }
}

#[test]
fn an_opening_is_checked_with_its_path() {
    let openings: Vec<_> = (0..20).map(|i| opening(i, 2)).collect();
    let grown = Grown::of_openings(&openings);
    let path = build(&grown.nodes, &grown.root, &openings[3].path()).unwrap();
    let check = |opening: &Opening| verify_opening(&grown.root, opening, &path.as_slices());
    assert_eq!(check(&openings[3]), Ok(grown.sums));
    assert!(matches!(
        check(&opening(3, 3)),
        Err(DirectoryError::WrongOpening { .. })
    ));
    let absent = opening(99, 1);
    let path = build(&grown.nodes, &grown.root, &absent.path()).unwrap();
    assert!(matches!(
        verify_opening(&grown.root, &absent, &path.as_slices()),
        Err(DirectoryError::NotPresent { .. })
    ));
}

/// A root node that passes for `child` under slot 1.
fn root_over(child: &Node, contexts: u64, entries: u64) -> Node {
    let mut slots = [Slot::Empty; SLOTS];
    slots[1] = Slot::Child {
        hash: child.hash(),
        contexts,
        entries,
    };
    Node::new(0, slots).unwrap()
}

#[test]
fn signed_nodes_of_a_wrong_shape_are_the_origins_fault() {
    let entry = |path: &[u8]| {
        let change = at(path, 1);
        Slot::Entry {
            path: change.path,
            commitment: change.commitment,
            entries: 1,
        }
    };
    let node = |depth, a: u8, b: u8| {
        let mut slots = [Slot::Empty; SLOTS];
        for byte in [a, b] {
            let slot = entry(&[byte]);
            if let Slot::Entry { path, .. } = slot {
                slots[usize::from(path.nibble(depth))] = slot;
            }
        }
        Node::new(depth, slots).unwrap()
    };
    let good = node(1, 0x12, 0x13);
    let hash = at(&[0x12], 1).path;
    let run = |root: &Node, child: &Node| {
        let nodes = [root.encode(), child.encode()];
        verify(&root.hash(), &hash, &[&nodes[0], &nodes[1]])
    };
    assert!(run(&root_over(&good, 2, 2), &good).is_ok());
    // Sums that do not add up, a foreign prefix, another depth.
    let foreign = node(1, 0x12, 0x23);
    let shallow = node(0, 0x12, 0x23);
    for (root, child) in [
        (root_over(&good, 2, 3), &good),
        (root_over(&good, 3, 3), &good),
        (root_over(&foreign, 2, 2), &foreign),
        (root_over(&shallow, 2, 2), &shallow),
    ] {
        let error = run(&root, child).unwrap_err();
        assert_eq!(error.fault(), Fault::Origin, "{error}");
    }
    // Another depth shows even where no entry does.
    let chain = root_over(&good, 2, 2);
    let error = run(&root_over(&chain, 2, 2), &chain).unwrap_err();
    assert!(matches!(error, DirectoryError::WrongDepth { .. }));
    // One context, or none, under a child slot; entries 0; a depth past the end.
    let single = [&[1, 1, 4, 0, 0, 0, 0, 0], &good.encode()[8..80]].concat();
    let empty = vec![1, 1, 0, 0, 0, 0, 0, 0];
    let mut zero = good.encode();
    zero[8 + 64..8 + 72].fill(0);
    let mut deep = good.encode();
    deep[1] = 64;
    for bytes in [single, empty, zero, deep] {
        let mut slots = [Slot::Empty; SLOTS];
        slots[1] = Slot::Child {
            hash: crate::hash::keyed(crate::hash::Role::DirectoryNode, &bytes),
            contexts: 2,
            entries: 2,
        };
        let root = Node::new(0, slots).unwrap();
        let error = verify(&root.hash(), &hash, &[&root.encode(), &bytes]).unwrap_err();
        assert!(
            matches!(error, DirectoryError::InvalidNode { .. }),
            "{error}"
        );
        assert_eq!(error.fault(), Fault::Origin);
    }
}
