use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::directory::testing::{Grown, at, change, opening};
use crate::directory::{MemoryDirectory, path_hash};
use crate::hash::{Role, keyed};

type Error = DiffError<Infallible>;

/// A source: a directory and the openings of its contexts.
struct Source {
    grown: Grown,
    openings: BTreeMap<Hash, Opening>,
}

impl Source {
    fn of(openings: &[Opening]) -> Self {
        Self {
            grown: Grown::of_openings(openings),
            openings: openings.iter().map(|o| (o.path(), o.clone())).collect(),
        }
    }

    fn answer(&self, hash: &Hash) -> (Vec<u8>, Vec<Opening>) {
        let bytes = self.grown.bytes(hash);
        let node = Node::decode(&bytes).unwrap();
        let openings = node.slots().iter().filter_map(|slot| match slot {
            Slot::Entry { path, .. } => self.openings.get(path).cloned(),
            _ => None,
        });
        (bytes, openings.collect())
    }

    fn diff<'a>(&self, local: &'a Grown) -> Result<Diff<&'a MemoryDirectory>, Error> {
        let (root, sums) = (&self.grown.root, self.grown.sums);
        Diff::new(&local.nodes, &local.root, root, sums)
    }

    /// Runs a descent to its end: what changed, by path, and nodes fetched.
    fn run(&self, local: &Grown, at_once: usize) -> Result<BTreeMap<Hash, Changed>, Error> {
        let mut diff = self.diff(local)?;
        let mut changed = BTreeMap::new();
        while !diff.is_done() {
            let hashes = diff.wanted(at_once);
            assert!(!hashes.is_empty() && hashes.len() <= at_once);
            for hash in hashes {
                let (bytes, openings) = self.answer(&hash);
                diff.supply(&hash, &bytes, openings)?;
            }
            for one in diff.take_changed() {
                assert!(changed.insert(one.opening.path(), one).is_none());
            }
        }
        assert!(diff.nodes() <= diff.nodes_max());
        Ok(changed)
    }
}

fn expected(held: &[Opening], signed: &[Opening]) -> BTreeMap<Hash, Changed> {
    signed
        .iter()
        .filter(|opening| !held.contains(opening))
        .map(|opening| {
            let local = held.iter().find(|o| o.id == opening.id).map(|o| Held {
                commitment: o.commitment(),
                entries: o.size,
            });
            let opening = opening.clone();
            (opening.path(), Changed { opening, local })
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn finds_exactly_what_changed(
        sizes in prop::collection::vec((0u64..3, 0u64..3), 0..120),
        at_once in 1usize..20,
    ) {
        let (mut held, mut signed) = (vec![], vec![]);
        for (i, (size, more)) in (0u32..).zip(sizes) {
            if size > 0 { held.push(opening(i, size)); }
            if size + more > 0 { signed.push(opening(i, size + more)); }
        }
        let local = Grown::of_openings(&held);
        let changed = Source::of(&signed).run(&local, at_once).unwrap();
        prop_assert_eq!(changed, expected(&held, &signed));
    }

    #[test]
    fn any_directory_that_took_something_back_is_refused(
        held in prop::collection::vec(1u64..4, 1..80),
        signed in prop::collection::vec(0u64..6, 80),
        rewrite in any::<Option<prop::sample::Index>>(),
    ) {
        let number = |i: usize| u32::try_from(i).unwrap();
        let local: Vec<_> = held.iter().enumerate().map(|(i, &n)| opening(number(i), n)).collect();
        let mut remote: Vec<_> = signed.iter().enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(i, &n)| opening(number(i), n)).collect();
        if let (Some(index), false) = (rewrite, remote.is_empty()) {
            index.get_mut(&mut remote).root = Hash::default();
        }
        let honest = local.iter().all(|old| remote.iter().any(|new| {
            new.id == old.id && (new.size > old.size || new == old)
        }));
        let result = Source::of(&remote).run(&Grown::of_openings(&local), 8);
        match result {
            Ok(changed) => {
                prop_assert!(honest);
                prop_assert_eq!(changed, expected(&local, &remote));
            }
            Err(error) => {
                prop_assert!(!honest);
                prop_assert!(matches!(error, DiffError::Contradiction(_)), "{}", error);
            }
        }
    }

    #[test]
    fn hostile_answers_change_nothing(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..20),
    ) {
        let openings: Vec<_> = (0..40).map(|i| opening(i, 1)).collect();
        let source = Source::of(&openings);
        let local = Grown::new();
        let mut diff = source.diff(&local).unwrap();
        let mut flips = flips.into_iter().cycle();
        let mut found = 0;
        while !diff.is_done() {
            for hash in diff.wanted(3) {
                let (bytes, openings) = source.answer(&hash);
                let (index, bit) = flips.next().unwrap();
                let mut bad = bytes.clone();
                *index.get_mut(&mut bad) ^= 1 << bit;
                let nodes = diff.nodes();
                let refused = diff.supply(&hash, &bad, openings.clone());
                let is_malformed = matches!(refused, Err(DiffError::Malformed { .. }));
                prop_assert!(is_malformed);
                prop_assert_eq!(diff.nodes(), nodes);
                diff.supply(&hash, &bytes, openings).unwrap();
            }
            found += diff.take_changed().len();
        }
        prop_assert_eq!(found, 40);
    }
}

#[test]
fn equal_roots_are_done_at_once() {
    let openings: Vec<_> = (0..9).map(|i| opening(i, 1)).collect();
    let source = Source::of(&openings);
    let diff = source.diff(&source.grown).unwrap();
    assert!(diff.is_done() && diff.nodes() == 0);
    let empty = Grown::new();
    assert!(Source::of(&[]).diff(&empty).unwrap().is_done());
    // The same root with other counts, or counts no root can have.
    let (root, sums) = (source.grown.root, source.grown.sums);
    for (local, contexts, entries) in [(&source.grown, 9, 10), (&empty, 0, 0), (&empty, 9, 8)] {
        let stated = Sums { contexts, entries };
        assert_ne!(stated, sums);
        let error = Diff::new(&local.nodes, &local.root, &root, stated).unwrap_err();
        assert!(matches!(error, DiffError::InvalidOrigin { .. }));
    }
    let error = Diff::new(&empty.nodes, &empty.root, &empty.root, sums).unwrap_err();
    assert!(matches!(error, DiffError::InvalidOrigin { .. }));
}

#[test]
fn only_differences_are_fetched() {
    let mut openings: Vec<_> = (0..2000).map(|i| opening(i, 1)).collect();
    let local = Grown::of_openings(&openings);
    openings[77] = opening(77, 2);
    let source = Source::of(&openings);
    let mut diff = source.diff(&local).unwrap();
    assert_eq!(diff.nodes_max(), 64);
    while let [hash] = diff.wanted(9)[..] {
        let (bytes, openings) = source.answer(&hash);
        diff.supply(&hash, &bytes, openings).unwrap();
    }
    assert!(diff.is_done() && diff.nodes() <= 5);
    assert_eq!(diff.take_changed()[0].opening, openings[77]);
}

#[test]
fn the_queue_stays_small() {
    let openings: Vec<_> = (0..5000).map(|i| opening(i, 1)).collect();
    let source = Source::of(&openings);
    let local = Grown::new();
    let mut diff = source.diff(&local).unwrap();
    while let [hash] = diff.wanted(1)[..] {
        let (bytes, openings) = source.answer(&hash);
        diff.supply(&hash, &bytes, openings).unwrap();
        assert!(diff.open.len() <= 16 * 5, "{}", diff.open.len());
    }
    assert_eq!(diff.take_changed().len(), 5000);
}

#[test]
fn answers_nobody_asked_for_are_refused() {
    let openings: Vec<_> = (0..40).map(|i| opening(i, 1)).collect();
    let source = Source::of(&openings);
    let local = Grown::new();
    let mut diff = source.diff(&local).unwrap();
    let root = source.grown.root;
    let (bytes, opened) = source.answer(&root);
    let unasked = DiffError::Unasked { hash: root };
    assert_eq!(diff.supply(&root, &bytes, opened.clone()), Err(unasked));
    assert_eq!(diff.wanted(5), [root]);
    assert!(diff.wanted(5).is_empty() && !diff.is_done());
    diff.ask_again();
    assert_eq!(diff.wanted(5), [root]);
    diff.supply(&root, &bytes, opened.clone()).unwrap();
    let unasked = DiffError::Unasked { hash: root };
    assert_eq!(diff.supply(&root, &bytes, opened), Err(unasked));
}

#[test]
fn openings_are_complete_in_order_and_true() {
    let openings: Vec<_> = (0..4).map(|i| opening(i, 1)).collect();
    let source = Source::of(&openings);
    let local = Grown::new();
    let mut diff = source.diff(&local).unwrap();
    let root = diff.wanted(1)[0];
    let (bytes, good) = source.answer(&root);
    assert!(good.len() > 1);
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    let mut forged = good.clone();
    forged[0].size += 1;
    let surplus = [good.clone(), vec![good[0].clone()]].concat();
    for bad in [vec![], good[1..].to_vec(), swapped, forged, surplus] {
        let error = diff.supply(&root, &bytes, bad).unwrap_err();
        assert!(matches!(error, DiffError::Malformed { .. }), "{error}");
    }
    diff.supply(&root, &bytes, good).unwrap();
}

/// Supplies one hand-made root over nothing held.
fn supply_root(node: &[u8], sums: Sums, openings: Vec<Opening>) -> Result<(), Error> {
    let local = Grown::new();
    let root = keyed(Role::DirectoryNode, node);
    let mut diff = Diff::new(&local.nodes, &local.root, &root, sums)?;
    assert_eq!(diff.wanted(1), [root]);
    diff.supply(&root, node, openings)
}

#[test]
fn what_the_origin_signed_wrongly_is_its_fault() {
    let good = opening(1, 1);
    let root_with = |slots: &[(u8, Slot)]| {
        let mut all = [Slot::Empty; SLOTS];
        for (i, slot) in slots {
            all[usize::from(*i)] = *slot;
        }
        Node::new(0, all).unwrap()
    };
    let one = |o: &Opening, entries: u64| {
        let slot = Slot::Entry {
            path: o.path(),
            commitment: o.commitment(),
            entries,
        };
        root_with(&[(o.path().nibble(0), slot)])
    };
    let check = |node: &Node, sums: Sums, openings: Vec<Opening>| {
        let error = supply_root(&node.encode(), sums, openings).unwrap_err();
        assert!(matches!(error, DiffError::InvalidOrigin { .. }), "{error}");
    };
    let node = one(&good, 1);
    supply_root(&node.encode(), node.sums(), vec![good.clone()]).unwrap();
    // Counts of the head, size of the opening, id of the opening.
    let two = Sums {
        contexts: 1,
        entries: 2,
    };
    check(&node, two, vec![good.clone()]);
    check(&one(&good, 2), two, vec![good.clone()]);
    let id = "a\nb".to_owned();
    let control = Opening { id, ..good };
    let node = one(&control, 1);
    check(&node, node.sums(), vec![control]);
    // One node under two slots.
    let twice = Slot::Child {
        hash: Hash::default(),
        contexts: 2,
        entries: 2,
    };
    let node = root_with(&[(1, twice), (2, twice)]);
    check(&node, node.sums(), vec![]);
    // Bytes that are no node.
    let sums = Sums {
        contexts: 1,
        entries: 1,
    };
    let error = supply_root(&[1, 0, 1, 0], sums, vec![]).unwrap_err();
    assert!(matches!(error, DiffError::InvalidOrigin { .. }));
}

#[test]
fn an_endless_chain_ends_at_depth_63() {
    // A chain of single children whose end never comes: built from below.
    let mut child = Hash::from_bytes([9; 32]);
    let mut nodes = BTreeMap::new();
    for depth in (0..63u8).rev() {
        let mut slots = [Slot::Empty; SLOTS];
        slots[0] = Slot::Child {
            hash: child,
            contexts: 2,
            entries: 2,
        };
        let node = Node::new(depth, slots).unwrap();
        child = node.hash();
        nodes.insert(child, node.encode());
    }
    // At depth 63 a child is no node at all; this one is an empty deep node.
    let local = Grown::new();
    let sums = Sums {
        contexts: 2,
        entries: 2,
    };
    let mut diff = Diff::new(&local.nodes, &local.root, &child, sums).unwrap();
    let mut steps = 0;
    loop {
        let hash = diff.wanted(1)[0];
        let Some(bytes) = nodes.get(&hash) else { break };
        diff.supply(&hash, bytes, vec![]).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 63);
    assert_eq!(diff.nodes(), 64);
    assert!(diff.nodes() <= diff.nodes_max());
}

#[test]
fn deep_neighbours_and_contradictions_are_named() {
    // Raw paths cannot be opened, so only sides without a new entry are met.
    let held = Grown::of(&[at(&[0xab; 10], 5), at(&[0xab; 9], 7)]);
    let signed = Grown::of(&[at(&[0xab; 10], 5), at(&[0xab; 9], 9), at(&[0xab; 8], 1)]);
    let back = Diff::new(&signed.nodes, &signed.root, &held.root, held.sums);
    assert!(matches!(
        back.unwrap_err(),
        DiffError::Contradiction(Contradiction::Fewer { .. })
    ));
    let mut diff = Diff::new(&held.nodes, &held.root, &signed.root, signed.sums).unwrap();
    for depth in 0..16 {
        let hash = diff.wanted(1)[0];
        let node = Node::decode(&signed.bytes(&hash)).unwrap();
        assert_eq!(node.depth(), depth);
        diff.supply(&hash, &node.encode(), vec![]).unwrap();
    }
    assert_eq!(diff.nodes(), 17);

    let (a, b) = (opening(1, 3), opening(2, 3));
    let held = Held {
        commitment: a.commitment(),
        entries: 3,
    };
    let path = path_hash(&a.id);
    let local = Grown::of_openings(std::slice::from_ref(&a));
    let other = Opening {
        root: Hash::default(),
        ..a.clone()
    };
    let (id, signed) = (a.id.clone(), other.commitment());
    for (remote, why) in [
        (
            vec![other, b.clone()],
            Contradiction::Rewritten {
                id: id.clone(),
                held,
                signed,
            },
        ),
        (
            vec![opening(1, 2), b.clone()],
            Contradiction::Shrunk {
                id,
                held,
                signed: 2,
            },
        ),
        (vec![opening(2, 9)], Contradiction::Vanished { path, held }),
    ] {
        let error = Source::of(&remote).run(&local, 4).unwrap_err();
        assert_eq!(error, DiffError::Contradiction(why));
    }
    let same = Grown::of(&[change(&b)]);
    let error = Source::of(&[a]).run(&same, 4).unwrap_err();
    assert!(matches!(
        error,
        DiffError::Contradiction(Contradiction::OtherNode { .. })
    ));
}

#[test]
fn one_node_under_two_parents_is_the_origins_fault() {
    // Two nodes at depth 1, of different sums, that share a child.
    let shared = |contexts| Slot::Child {
        hash: Hash::default(),
        contexts,
        entries: 9,
    };
    let mut slots = [Slot::Empty; SLOTS];
    let mut children = Vec::new();
    for (i, contexts) in [(3, 2), (7, 3)] {
        let mut below = [Slot::Empty; SLOTS];
        below[0] = shared(contexts);
        let node = Node::new(1, below).unwrap();
        slots[i] = Slot::Child {
            hash: node.hash(),
            contexts,
            entries: 9,
        };
        children.push(node);
    }
    let root = Node::new(0, slots).unwrap();
    let local = Grown::new();
    let mut diff = Diff::new(&local.nodes, &local.root, &root.hash(), root.sums()).unwrap();
    diff.wanted(1);
    diff.supply(&root.hash(), &root.encode(), vec![]).unwrap();
    diff.wanted(2);
    let [a, b] = &children[..] else { panic!() };
    diff.supply(&a.hash(), &a.encode(), vec![]).unwrap();
    let error = diff.supply(&b.hash(), &b.encode(), vec![]).unwrap_err();
    let source = DirectoryError::Repeated {
        hash: Hash::default(),
    };
    assert_eq!(error, DiffError::InvalidOrigin { source });
}
