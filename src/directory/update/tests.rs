use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::directory::testing::{Grown, at, change, from_scratch, opening};

/// Both halves of an update are exactly the difference of the two node sets.
fn check_update(before: &[Change], after: &[Change], update: &Update) {
    let (old, old_root) = from_scratch(before);
    let (new, root) = from_scratch(after);
    assert_eq!(update.root, root);
    let added: BTreeSet<_> = update.added.iter().cloned().collect();
    assert_eq!(added.len(), update.added.len());
    let retired: BTreeSet<_> = update.retired.iter().copied().collect();
    assert_eq!(retired.len(), update.retired.len());
    let only_new = new
        .clone()
        .into_iter()
        .filter(|(h, _)| !old.contains_key(h));
    assert_eq!(added, only_new.collect());
    let only_old = old.into_keys().filter(|h| !new.contains_key(h));
    assert_eq!(retired, only_old.collect());
    assert!(!retired.contains(&super::empty_root()) && (root != old_root || added.is_empty()));
    let entries = after.iter().map(|c| c.entries).sum();
    let contexts = after.len() as u64;
    assert_eq!(update.sums, Sums { contexts, entries });
}

/// Applies `changes` in batches of these lengths, checking each; a later
/// change of a context replaces an earlier one.
fn grow_in_batches(changes: &[Change], lengths: &[usize]) -> Grown {
    let mut grown = Grown::new();
    let mut held = std::collections::BTreeMap::new();
    let mut rest = changes;
    for length in lengths.iter().copied().chain([usize::MAX]) {
        let (batch, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        let before: Vec<_> = held.values().copied().collect();
        held.extend(batch.iter().map(|c| (c.path, *c)));
        let after: Vec<_> = held.values().copied().collect();
        let update = grown.apply(batch);
        check_update(&before, &after, &update);
        grown.nodes.retire(&update);
        assert_eq!(grown.nodes.len(), from_scratch(&after).0.len());
    }
    grown
}

/// Paths over few nibbles, so that they share prefixes.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0x00u8, 0x01, 0x10, 0x11, 0xff]);
    prop_oneof![
        prop::collection::vec(byte, 1..6),
        prop::collection::vec(any::<u8>(), 32),
        // Twenty nibbles shared.
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| [&[0xab; 10][..], &[a, b]].concat()),
    ]
}

fn set(max: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((path(), 1u64..100), 0..max).prop_map(|set| {
        let by_path: std::collections::BTreeMap<_, _> = set
            .into_iter()
            .map(|(path, entries)| at(&path, entries))
            .map(|change| (change.path, change))
            .collect();
        by_path.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_root_depends_on_the_set_alone(
        (sorted, shuffled) in set(40).prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
        lengths in prop::collection::vec(0usize..12, 0..6),
    ) {
        let (_, root) = from_scratch(&sorted);
        prop_assert_eq!(grow_in_batches(&shuffled, &lengths).root, root);
        prop_assert_eq!(Grown::of(&shuffled).root, root);
    }

    #[test]
    fn contexts_grow(
        changes in set(30),
        more in prop::collection::vec((any::<prop::sample::Index>(), 1u64..9), 0..20),
    ) {
        let mut grown = Grown::of(&changes);
        let mut held = changes.clone();
        for (index, by) in more {
            if held.is_empty() { break; }
            let before = held.clone();
            let slot = index.get_mut(&mut held);
            slot.entries += by;
            slot.commitment = crate::hash::content(&slot.entries.to_le_bytes());
            let change = *slot;
            let update = grown.apply(&[change]);
            check_update(&before, &held, &update);
        }
    }
}

#[test]
fn small_sets_in_every_order_and_cut() {
    let all = [
        at(&[0x00], 1),
        at(&[0x01], 2),
        at(&[0x00, 0x01], 3),
        at(&[0x10], 4),
        at(&[0x00, 0x00, 0x07], 5),
    ];
    for mask in 0u32..32 {
        let set: Vec<_> = (0..5)
            .filter(|i| mask >> i & 1 == 1)
            .map(|i| all[i])
            .collect();
        let (_, root) = from_scratch(&set);
        for order in permutations(&set) {
            for cuts in 0u32..1 << order.len().saturating_sub(1) {
                let mut grown = Grown::new();
                let mut batch = Vec::new();
                for (i, change) in order.iter().enumerate() {
                    batch.push(*change);
                    if cuts >> i & 1 == 1 {
                        grown.apply(&std::mem::take(&mut batch));
                    }
                }
                grown.apply(&batch);
                assert_eq!(grown.root, root);
            }
        }
    }
}

fn permutations(set: &[Change]) -> Vec<Vec<Change>> {
    if set.is_empty() {
        return vec![vec![]];
    }
    let mut out = Vec::new();
    for (i, first) in set.iter().enumerate() {
        let rest = [&set[..i], &set[i + 1..]].concat();
        for mut order in permutations(&rest) {
            order.push(*first);
            out.push(order);
        }
    }
    out
}

#[test]
fn deep_chains_are_built_and_split() {
    let mut last = [0xab; 32];
    let one = at(&last, 1);
    last[31] ^= 1;
    let two = at(&last, 2);
    // They part at the last nibble: a chain of 64 nodes.
    let mut grown = Grown::of(&[one]);
    let update = grown.apply(&[two]);
    assert_eq!(update.added.len(), 64);
    check_update(&[one], &[one, two], &update);
    let middle = at(&[0xab; 10], 3);
    let update = grown.apply(&[middle]);
    assert_eq!(update.added.len(), 21);
    check_update(&[one, two], &[one, two, middle], &update);
}

#[test]
fn nothing_changed_is_nothing_done() {
    let changes: Vec<_> = (0..50).map(|i| change(&opening(i, 3))).collect();
    let mut grown = Grown::of(&changes);
    for batch in [&[][..], &changes[..7], &changes] {
        let root = grown.root;
        let update = grown.apply(batch);
        assert_eq!(
            (update.root, update.added, update.retired),
            (root, vec![], vec![])
        );
    }
    assert_eq!(Grown::of(&[]).root, super::empty_root());
}

#[test]
fn what_takes_back_is_refused() {
    let changes: Vec<_> = (0..50).map(|i| change(&opening(i, 3))).collect();
    let grown = Grown::of(&changes);
    let refuse = |batch: &[Change]| apply(&grown.nodes, &grown.root, batch).unwrap_err();
    let path = changes[4].path;
    assert_eq!(
        refuse(&[change(&opening(4, 2))]),
        UpdateError::Shrunk {
            path,
            held: 3,
            got: 2
        }
    );
    let rewritten = Change {
        commitment: Hash::default(),
        ..changes[4]
    };
    assert_eq!(
        refuse(&[rewritten]),
        UpdateError::Rewritten { path, entries: 3 }
    );
    let grew = change(&opening(4, 4));
    assert_eq!(
        refuse(&[grew, changes[1], grew]),
        UpdateError::Duplicate { path }
    );
    for entries in [0, 1 << 62] {
        let bad = Change {
            entries,
            ..change(&opening(99, 1))
        };
        assert!(matches!(refuse(&[bad]), UpdateError::Invalid { .. }));
    }
}

struct Garbage;

impl ReadDirectory for Garbage {
    type Error = std::convert::Infallible;
    fn directory_node(&self, _: &Hash) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(Some(vec![1, 2, 3]))
    }
}

#[test]
fn missing_and_damaged_nodes_are_told_apart() {
    let nodes = crate::directory::MemoryDirectory::new();
    let hash = Hash::from_bytes([1; 32]);
    let error = apply(&nodes, &hash, &[]).unwrap_err();
    assert_eq!(error, UpdateError::Load(LoadError::Missing { hash }));
    let error = apply(&Garbage, &hash, &[]).unwrap_err();
    assert!(matches!(error, UpdateError::Load(LoadError::Damaged(_))));
}
