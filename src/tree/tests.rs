//! The tree against two oracles: the recursive definitions of RFC 9162 word by
//! word, and `rs_merkle`. Small sizes in full, large ones on sparse trees.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use rs_merkle::MerkleTree;

use super::oracle::{Naive, Sparse, at, leaf, leaves, rfc_consistency, rfc_inclusion, size};
use super::second_opinion::{LedgerHasher, SecondRoot, root_by_rs_merkle};
use super::*;
use crate::hash::{self, Hash};
use crate::limits::PROOF_HASHES_MAX;

/// Every hash list that differs from `proof` by one bit, one hash less at
/// either end, or one more at any place.
fn spoiled(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut out = Vec::new();
    for i in 0..proof.len() {
        for wrong in flipped(&proof[i]) {
            let mut copy = proof.to_vec();
            copy[i] = wrong;
            out.push(copy);
        }
    }
    out.extend((0..proof.len()).map(|end| proof[..end].to_vec()));
    out.extend((1..=proof.len()).map(|start| proof[start..].to_vec()));
    for i in 0..=proof.len() {
        for surplus in [Hash::default(), *proof.first().unwrap_or(&leaf(9))] {
            let mut copy = proof.to_vec();
            copy.insert(i, surplus);
            out.push(copy);
        }
    }
    out.retain(|copy| copy != proof);
    out
}

fn flipped(hash: &Hash) -> impl Iterator<Item = Hash> {
    let bytes = *hash.as_bytes();
    (0..256).map(move |bit| {
        let mut wrong = bytes;
        wrong[bit / 8] ^= 1 << (bit % 8);
        Hash::from_bytes(wrong)
    })
}

#[test]
fn roots_agree_with_both_oracles_up_to_600() {
    let naive = Naive::new(leaves(600));
    let mut nodes = MemoryNodes::new();
    for n in 0..=600 {
        let root = naive.mth(0, n);
        assert_eq!(nodes.root(), root, "{n}");
        let list = &naive.leaves[..usize::try_from(n).unwrap()];
        assert_eq!(root_by_rs_merkle(list), root, "{n}");
        assert_eq!(nodes.size(), size(n));
        if n < 600 {
            nodes.append(leaf(n)).unwrap();
        }
    }
    // Older sizes are still there.
    for n in 0..=600 {
        let old = nodes::read_frontier(size(n), &nodes).unwrap();
        assert_eq!(old.root(), naive.mth(0, n));
        assert_eq!(nodes::read_root(size(n), &nodes).unwrap(), old.root());
    }
}

#[test]
fn a_second_root_is_the_same_whatever_it_is_made_from() {
    let around = [32u64, 64, 1024, 2048, 32_768, 65_536, 131_072];
    let around = around.into_iter().flat_map(|n| n - 2..n + 35);
    let sizes: BTreeSet<u64> = (0..100).chain(around).chain([200_000]).collect();
    let mut frontier = Frontier::new();
    let mut roots = Vec::new();
    for n in 0..=200_000 {
        if sizes.contains(&n) {
            roots.push(frontier.root());
        }
        frontier.append(leaf(n)).unwrap();
    }
    for (size, root) in sizes.into_iter().zip(roots) {
        let mut second = SecondRoot::default();
        (0..size).for_each(|n| second.push(leaf(n)));
        assert_eq!((second.size(), second.root()), (size, root), "{size}");
    }
}

#[test]
fn append_reports_each_final_node_once() {
    let naive = Naive::new(leaves(600));
    let mut frontier = Frontier::new();
    let mut seen = HashSet::new();
    for n in 0..600 {
        frontier
            .append_with(leaf(n), |id, hash| {
                assert!(seen.insert(id));
                let range = id.range().unwrap();
                assert_eq!(range.hi(), n + 1);
                assert_eq!(hash, naive.mth(range.lo(), range.hi()));
            })
            .unwrap();
        let here: Vec<Hash> = shape::peaks(size(n + 1))
            .map(|id| id.range().unwrap())
            .map(|range| naive.mth(range.lo(), range.hi()))
            .collect();
        assert_eq!(frontier.peaks(), here);
    }
    // n leaves make n - popcount(n) inner nodes.
    assert_eq!(seen.len(), 1200 - 600u64.count_ones() as usize);
}

#[test]
fn every_inclusion_proof_up_to_300_agrees_with_both_oracles() {
    let naive = Naive::new(leaves(300));
    let nodes = MemoryNodes::from_leaves(&naive.leaves).unwrap();
    for n in 1..=300 {
        let raw: Vec<_> = naive.leaves[..usize::try_from(n).unwrap()]
            .iter()
            .map(|leaf| *leaf.as_bytes())
            .collect();
        let oracle = MerkleTree::<LedgerHasher>::from_leaves(&raw);
        let root = naive.mth(0, n);
        for i in 0..n {
            let proof = inclusion::build(at(i), size(n), &nodes).unwrap();
            assert_eq!(proof, naive.path(i, 0, n));
            let theirs = oracle.proof(&[usize::try_from(i).unwrap()]);
            assert!(
                theirs
                    .proof_hashes()
                    .iter()
                    .eq(proof.iter().map(Hash::as_bytes))
            );
            inclusion::verify(&leaf(i), at(i), size(n), &proof, &root).unwrap();
            assert!(rfc_inclusion(&leaf(i), i, n, &proof, &root));
        }
    }
}

#[test]
fn every_consistency_and_right_list_up_to_200() {
    let naive = Naive::new(leaves(200));
    let nodes = MemoryNodes::from_leaves(&naive.leaves).unwrap();
    for n in 0..=200 {
        let new = naive.mth(0, n);
        for m in 0..=n {
            let old = naive.mth(0, m);
            let proof = consistency::build(size(m), size(n), &nodes).unwrap();
            let expected = if m == 0 {
                Vec::new()
            } else {
                naive.subproof(m, 0, n, true)
            };
            assert_eq!(proof, expected, "{m} {n}");
            consistency::verify(size(m), size(n), &proof, &old, &new).unwrap();
            assert!(m == 0 || m == n || rfc_consistency(m, n, &proof, &old, &new));

            let right = range::right_build(size(m), size(n), &nodes).unwrap();
            let expected = if m == n {
                Vec::new()
            } else {
                naive.right(m, 0, n)
            };
            assert_eq!(right, expected, "{m} {n}");
            assert_eq!(range::right_count(size(m), size(n)), Ok(right.len()));
            let left = nodes::read_frontier(size(m), &nodes).unwrap();
            assert_eq!(range::root_with_right(&left, size(n), &right), Ok(new));
            range::verify(&left, size(n), &right, &new).unwrap();
        }
    }
}

#[test]
fn every_spoiled_inclusion_proof_fails() {
    let naive = Naive::new(leaves(64));
    for (i, n) in [
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 6),
        (6, 7),
        (12, 13),
        (20, 33),
        (63, 64),
    ] {
        let proof = naive.path(i, 0, n);
        let root = naive.mth(0, n);
        let verify = |leaf: &Hash, i, n, proof: &[Hash], root: &Hash| {
            let ours = inclusion::verify(leaf, at(i), size(n), proof, root);
            assert_eq!(ours.is_ok(), rfc_inclusion(leaf, i, n, proof, root));
            ours
        };
        verify(&leaf(i), i, n, &proof, &root).unwrap();
        for wrong in spoiled(&proof) {
            let error = verify(&leaf(i), i, n, &wrong, &root).unwrap_err();
            if wrong.len() == proof.len() {
                assert_eq!(error, ProofError::RootMismatch);
            } else {
                let (expected, got) = (proof.len(), wrong.len());
                assert_eq!(error, ProofError::WrongLength { expected, got });
            }
        }
        for wrong in flipped(&leaf(i)) {
            assert!(verify(&wrong, i, n, &proof, &root).is_err());
        }
        for wrong in flipped(&root) {
            assert!(verify(&leaf(i), i, n, &proof, &wrong).is_err());
        }
        // The same hashes elsewhere: no other index, and no index outside.
        for other in (0..3 * n).filter(|&other| other != i) {
            assert!(verify(&leaf(i), other, n, &proof, &root).is_err());
        }
    }
}

#[test]
fn every_spoiled_consistency_proof_and_right_list_fails() {
    let naive = Naive::new(leaves(70));
    let nodes = MemoryNodes::from_leaves(&naive.leaves).unwrap();
    for (m, n) in [
        (0, 5),
        (1, 2),
        (3, 6),
        (4, 6),
        (6, 7),
        (7, 8),
        (8, 8),
        (13, 37),
        (32, 70),
    ] {
        let (old, new) = (naive.mth(0, m), naive.mth(0, n));
        let (m, n) = (size(m), size(n));
        let proof = consistency::build(m, n, &nodes).unwrap();
        for wrong in spoiled(&proof) {
            assert!(consistency::verify(m, n, &wrong, &old, &new).is_err());
        }
        for wrong in flipped(&old) {
            assert!(consistency::verify(m, n, &proof, &wrong, &new).is_err());
        }
        // From the empty tree everything is an extension.
        for wrong in flipped(&new).filter(|_| m.get() > 0) {
            assert!(consistency::verify(m, n, &proof, &old, &wrong).is_err());
        }

        let left = nodes::read_frontier(m, &nodes).unwrap();
        let right = range::right_build(m, n, &nodes).unwrap();
        for wrong in spoiled(&right) {
            assert!(range::verify(&left, n, &wrong, &new).is_err());
        }
        for wrong in flipped(&new) {
            assert!(range::verify(&left, n, &right, &wrong).is_err());
        }
        for i in 0..left.peaks().len() {
            for wrong in flipped(&left.peaks()[i]) {
                let mut peaks = left.peaks().to_vec();
                peaks[i] = wrong;
                let left = Frontier::from_parts(m, peaks).unwrap();
                assert!(range::verify(&left, n, &right, &new).is_err());
            }
        }
    }
}

/// Sizes that are wrong for a proof: where another size needs the same number
/// of hashes, the root must still tell, except where the tree of the other size
/// really has that root.
#[test]
fn a_proof_for_one_size_says_nothing_about_another() {
    let naive = Naive::new(leaves(40));
    let nodes = MemoryNodes::from_leaves(&naive.leaves).unwrap();
    for n in 1..=40 {
        for m in 1..n {
            let (old, new) = (naive.mth(0, m), naive.mth(0, n));
            let proof = consistency::build(size(m), size(n), &nodes).unwrap();
            for other in (1..=40).filter(|&other| other != m) {
                let said = consistency::verify(size(other), size(n), &proof, &old, &new);
                assert_eq!(
                    said.is_ok(),
                    other < n && rfc_consistency(other, n, &proof, &old, &new)
                );
                assert!(said.is_err(), "{m} as {other} of {n}");
            }
        }
    }
}

#[test]
fn sizes_no_tree_has_are_refused() {
    let root = leaf(1);
    let proof = vec![leaf(2); 62];
    let limit = SEQUENCE_MAX;
    for n in [limit + 1, 1 << 63, u64::MAX - 1, u64::MAX] {
        let too_large = ProofError::SizeTooLarge { size: n };
        for i in [0, 1, n / 2, n - 1] {
            assert_eq!(inclusion::plan(at(i), size(n)), Err(too_large));
            let said = inclusion::verify(&root, at(i), size(n), &proof, &root);
            assert_eq!(said, Err(too_large));
            assert_eq!(consistency::plan(size(i), size(n)), Err(too_large));
            let said = consistency::verify(size(i), size(n), &proof, &root, &root);
            assert_eq!(said, Err(too_large));
            assert_eq!(range::right_plan(size(i), size(n)), Err(too_large));
        }
        assert_eq!(range::right_count(size(n), size(n)), Err(too_large));
        let frontier = Frontier::new();
        assert_eq!(
            range::root_with_right(&frontier, size(n), &proof[..1]),
            Err(too_large)
        );
    }
    for (i, n) in [
        (0, 0),
        (1, 1),
        (5, 3),
        (limit, limit),
        (u64::MAX, limit),
        (u64::MAX, 0),
    ] {
        let outside = ProofError::IndexOutOfRange { index: i, size: n };
        assert_eq!(inclusion::plan(at(i), size(n)), Err(outside));
        for proof in [&proof[..], &[]] {
            let said = inclusion::verify(&root, at(i), size(n), proof, &root);
            assert_eq!(said, Err(outside));
        }
    }
    let out_of_order = ProofError::SizeOutOfOrder {
        smaller: 5,
        larger: 4,
    };
    assert_eq!(consistency::plan(size(5), size(4)), Err(out_of_order));
    assert_eq!(range::right_plan(size(5), size(4)), Err(out_of_order));
    let longer = Frontier::from_parts(size(5), vec![root; 2]).unwrap();
    assert_eq!(
        range::root_with_right(&longer, size(4), &[]),
        Err(out_of_order)
    );
}

#[test]
fn the_empty_tree() {
    let empty = hash::empty_root();
    assert_eq!(Frontier::new().root(), empty);
    assert_eq!(MemoryNodes::new().root(), empty);
    assert_eq!(root_by_rs_merkle(&[]), empty);
    let none = size(0);
    consistency::verify(none, none, &[], &empty, &empty).unwrap();
    consistency::verify(none, size(9), &[], &empty, &leaf(0)).unwrap();
    assert_eq!(
        consistency::verify(none, size(9), &[], &leaf(0), &leaf(0)),
        Err(ProofError::OldRootMismatch)
    );
    assert!(consistency::verify(none, none, &[], &leaf(0), &leaf(0)).is_err());
    let frontier = Frontier::new();
    assert_eq!(range::root_with_right(&frontier, none, &[]), Ok(empty));
    let right = [leaf(3)];
    assert_eq!(
        range::root_with_right(&frontier, size(9), &right),
        Ok(leaf(3))
    );
    assert!(range::root_with_right(&frontier, none, &right).is_err());
    assert!(range::root_with_right(&frontier, size(9), &[]).is_err());
}

#[test]
fn no_two_short_lists_share_a_root() {
    let symbols = [leaf(0), leaf(1), leaf(2)];
    let mut lists = vec![Frontier::new()];
    let mut roots = HashSet::new();
    for _ in 0..=6 {
        let mut longer = Vec::new();
        for list in &lists {
            assert!(roots.insert(list.root()));
            for symbol in symbols {
                let mut next = list.clone();
                next.append(symbol).unwrap();
                longer.push(next);
            }
        }
        lists = longer;
    }
    assert_eq!(roots.len(), 1 + 3 + 9 + 27 + 81 + 243 + 729);
}

/// Two sizes in order, of any magnitude up to `2^bits`, and a place below.
fn sizes(bits: u32) -> impl Strategy<Value = (u64, u64, u64)> {
    (1..=bits)
        .prop_flat_map(|bits| 1..=(1u64 << bits).min(SEQUENCE_MAX))
        .prop_flat_map(|n| (0..=n, Just(n), 0..n))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn proofs_of_any_size_hold((m, n, i) in prop_oneof![sizes(20), sizes(62)]) {
        // Leaves that matter: the one asked for, and both sides of the cut.
        let tree = Sparse::new([i, m, m.saturating_sub(1), n - 1]);
        let root = tree.root(n);
        let proof = inclusion::build(at(i), size(n), &tree).unwrap();
        prop_assert!(proof.len() < PROOF_HASHES_MAX);
        prop_assert_eq!(inclusion::verify(&tree.leaf(i), at(i), size(n), &proof, &root), Ok(()));
        prop_assert!(rfc_inclusion(&tree.leaf(i), i, n, &proof, &root));
        prop_assert!(inclusion::verify(&leaf(i + 2), at(i), size(n), &proof, &root).is_err());

        let old = tree.root(m);
        let proof = consistency::build(size(m), size(n), &tree).unwrap();
        prop_assert!(proof.len() <= PROOF_HASHES_MAX);
        prop_assert_eq!(consistency::verify(size(m), size(n), &proof, &old, &root), Ok(()));
        prop_assert!(m == 0 || m == n || rfc_consistency(m, n, &proof, &old, &root));

        let right = range::right_build(size(m), size(n), &tree).unwrap();
        prop_assert!(right.len() <= PROOF_HASHES_MAX);
        prop_assert_eq!(range::right_count(size(m), size(n)), Ok(right.len()));
        let left = nodes::read_frontier(size(m), &tree).unwrap();
        prop_assert_eq!(left.root(), old);
        prop_assert_eq!(range::root_with_right(&left, size(n), &right), Ok(root));
    }

    /// A run: append some leaves at any size, then fold what is on the right.
    #[test]
    fn a_run_appended_anywhere_leads_to_the_root((m, n, i) in sizes(40), run in 0u64..300) {
        let tree = Sparse::new([i, m, n - 1]);
        let mut left = nodes::read_frontier(size(m), &tree).unwrap();
        let end = n.min(m + run);
        for index in m..end {
            left.append(tree.leaf(index)).unwrap();
        }
        let right = range::right_build(size(end), size(n), &tree).unwrap();
        prop_assert_eq!(range::root_with_right(&left, size(n), &right), Ok(tree.root(n)));
    }

    /// Whatever a peer sends: an answer, and the one the RFC's steps give.
    #[test]
    fn hostile_numbers_never_panic(
        a in any::<u64>(), b in any::<u64>(), small in any::<bool>(), count in 0usize..70,
    ) {
        let (a, b) = if small { (a % 40, b % 40) } else { (a, b) };
        let proof = vec![leaf(1); count];
        let root = leaf(2);
        prop_assert!(inclusion::verify(&root, at(a), size(b), &proof, &root).is_err() || b == 1);
        prop_assert!(
            consistency::verify(size(a), size(b), &proof, &root, &root).is_err() || a == b
        );
        let _ = range::right_plan(size(a), size(b));
        let _ = range::right_count(size(a), size(b));
        let _ = Range::new(a, b);
        let level = u8::try_from(count).unwrap();
        let id = NodeId { level, index: a };
        let _ = (id.range(), tile::TileSlice::of(id), TileId::new(level, a));
        let peaks = vec![root; a.count_ones() as usize];
        if let Ok(left) = Frontier::from_parts(size(a), peaks) {
            let _ = range::root_with_right(&left, size(b), &proof);
        }
    }
}
