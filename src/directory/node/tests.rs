use super::*;
use crate::directory::testing::{Grown, at, opening};
use crate::directory::{Fault, Opening, commitment, path_hash};

fn entry(first: u8, entries: u64) -> Slot {
    let change = at(&[first], entries);
    Slot::Entry {
        path: change.path,
        commitment: change.commitment,
        entries,
    }
}

fn child(contexts: u64, entries: u64) -> Slot {
    Slot::Child {
        hash: Hash::from_bytes([7; 32]),
        contexts,
        entries,
    }
}

fn slots(set: &[(usize, Slot)]) -> [Slot; SLOTS] {
    let mut slots = [Slot::Empty; SLOTS];
    for (i, slot) in set {
        slots[*i] = *slot;
    }
    slots
}

fn sample() -> Node {
    Node::new(
        0,
        slots(&[(1, entry(0x12, 3)), (4, child(2, 5)), (15, entry(0xff, 1))]),
    )
    .unwrap()
}

#[test]
fn bytes_are_as_drawn() {
    let node = sample();
    let bytes = node.encode();
    assert_eq!(bytes[..8], [1, 0, 0b0001_0010, 0x80, 0b0001_0000, 0, 0, 0]);
    assert_eq!(bytes.len(), 8 + 72 + 48 + 72);
    assert_eq!(bytes[8..10], [0x12, 0]);
    assert_eq!(bytes[72..80], 3u64.to_le_bytes());
    assert_eq!(bytes[80..112], [7; 32]);
    assert_eq!(bytes[112..120], 2u64.to_le_bytes());
    assert_eq!(bytes[120..128], 5u64.to_le_bytes());
    assert_eq!(Node::decode(&bytes).unwrap(), node);
    assert_eq!(
        node.sums(),
        Sums {
            contexts: 4,
            entries: 9
        }
    );
    assert_eq!(Node::empty().encode(), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        Node::decode(&Node::empty().encode()).unwrap(),
        Node::empty()
    );
    assert_eq!(
        empty_root(),
        hash::keyed(Role::DirectoryNode, &[1, 0, 0, 0, 0, 0, 0, 0])
    );
}

#[test]
fn a_full_node_is_the_largest() {
    let full: [Slot; SLOTS] = std::array::from_fn(|i| entry(u8::try_from(i).unwrap() << 4, 1));
    let bytes = Node::new(0, full).unwrap().encode();
    assert_eq!(bytes.len(), DIRECTORY_NODE_BYTES_MAX);
    assert!(Node::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused_or_another_node() {
    let bytes = sample().encode();
    for end in 0..bytes.len() {
        assert!(Node::decode(&bytes[..end]).is_err());
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(node) = Node::decode(&changed) {
            assert_eq!(node.encode(), changed);
            assert_ne!(node, sample());
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    for (depth, set) in [
        (0, vec![(2, entry(0x12, 1))]),
        (0, vec![(1, entry(0x12, 0))]),
        (0, vec![(1, entry(0x12, SEQUENCE_MAX + 1))]),
        (0, vec![(1, child(0, 0))]),
        (0, vec![(1, child(1, 1))]),
        (0, vec![(1, child(2, 1))]),
        (0, vec![(1, child(2, u64::MAX)), (2, child(2, 2))]),
        (1, vec![]),
        (1, vec![(2, entry(0x12, 1))]),
        (63, vec![(1, child(2, 2))]),
        (64, vec![(0, entry(0, 1)), (1, child(2, 2))]),
        (255, vec![]),
    ] {
        assert!(Node::new(depth, slots(&set)).is_err(), "{depth} {set:?}");
    }
    assert!(Node::new(1, slots(&[(1, child(2, 2))])).is_ok());
    assert!(Node::new(0, slots(&[(1, entry(0x12, SEQUENCE_MAX))])).is_ok());
}

#[test]
fn wrong_bytes_are_refused() {
    let good = sample().encode();
    for (at, value) in [
        (0, 0),
        (0, 2),
        (1, 64),
        (1, 1),
        (4, 0b0011_0000),
        (6, 1),
        (7, 1),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(Node::decode(&bad).is_err(), "{at}");
    }
    let surplus = [good.as_slice(), &[0; 8]].concat();
    assert!(Node::decode(&surplus).is_err());
    assert!(matches!(
        Node::decode(&[9, 0, 0, 0, 0, 0, 0, 0]),
        Err(DecodeError::UnknownVersion { found: 9, .. })
    ));
}

#[test]
fn a_node_is_opened_at_its_place_only() {
    // Two contexts that share the prefix 12.
    let grown = Grown::of(&[at(&[0x12, 0x30], 1), at(&[0x12, 0x40], 2)]);
    let mut prefix = Prefix::ROOT;
    let mut hash = grown.root;
    for nibble in [1, 2] {
        let node = Node::open(&hash, &grown.bytes(&hash), &prefix, Some(grown.sums)).unwrap();
        let Slot::Child { hash: below, .. } = node.slots()[usize::from(nibble)] else {
            panic!("no child");
        };
        (hash, prefix) = (below, prefix.child(nibble));
    }
    assert_eq!(prefix.to_string(), "/12");
    let bytes = grown.bytes(&hash);
    assert!(Node::open(&hash, &bytes, &prefix, Some(grown.sums)).is_ok());
    let other = Prefix::ROOT.child(1).child(3);
    let deeper = prefix.child(3);
    let fewer = Sums {
        entries: 2,
        ..grown.sums
    };
    for (prefix, sums) in [(other, grown.sums), (deeper, grown.sums), (prefix, fewer)] {
        let error = Node::open(&hash, &bytes, &prefix, Some(sums)).unwrap_err();
        assert_eq!(error.fault(), Fault::Origin, "{error}");
    }
    let error = Node::open(&hash, &bytes[1..], &prefix, None).unwrap_err();
    assert_eq!(error.fault(), Fault::Presenter);
}

#[test]
fn a_prefix_contains_what_begins_with_it() {
    let path = path_hash("x");
    let mut prefix = Prefix::ROOT;
    for depth in 0..64 {
        assert!(prefix.contains(&path));
        assert!(!prefix.child(path.nibble(depth) ^ 1).contains(&path));
        prefix = prefix.child(path.nibble(depth));
    }
    assert_eq!(prefix.to_string(), format!("/{path}"));
}

#[test]
fn an_opening_fits_its_slot_only() {
    let good = opening(1, 5);
    let (path, committed) = (good.path(), good.commitment());
    good.check_slot(&path, &committed, 5).unwrap();
    assert_eq!(committed, commitment(&good.id, 5, &good.root));
    for wrong in [
        opening(2, 5),
        opening(1, 6),
        Opening {
            root: Hash::default(),
            ..good.clone()
        },
    ] {
        let error = wrong.check_slot(&path, &committed, 5).unwrap_err();
        assert_eq!(error.fault(), Fault::Presenter);
    }
    let error = good.check_slot(&path, &committed, 6).unwrap_err();
    assert_eq!(error.fault(), Fault::Origin);
    for id in [String::new(), "a\nb".into(), "x".repeat(1025)] {
        let bad = Opening { id, ..good.clone() };
        let error = bad
            .check_slot(&bad.path(), &bad.commitment(), 5)
            .unwrap_err();
        assert_eq!(error.fault(), Fault::Origin);
    }
}
