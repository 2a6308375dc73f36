//! The tree against its definition, and proofs against a liar.

use std::collections::HashMap;

use super::Input;
use crate::entry::{ContextId, Draft, leaf_hash};
use crate::hash::{self, Hash};
use crate::run::{
    Accumulator, CheckedSpan, Run, RunBuilder, SignedContext, encode_span, run_boundary,
};
use crate::tree::second_opinion::root_by_rs_merkle;
use crate::tree::{
    Frontier, LeafIndex, MemoryNodes, Tiles, TreeSize, consistency, inclusion, range, tile,
};

/// Leaves of the trees below: enough for two tiles above the leaves.
const LEAVES_MAX: usize = 9000;
/// Leaves of a tree that a proof is changed for.
const PROOF_LEAVES_MAX: u64 = 300;

/// MTH of RFC 9162, 2.1.1, word by word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => hash::empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while 2 * k < leaves.len() {
                k *= 2;
            }
            let (left, right) = leaves.split_at(k);
            hash::node(&naive_root(left), &naive_root(right))
        }
    }
}

/// Appending leaf by leaf gives the root of the recursive definition, and that
/// of `rs_merkle`; the tiles and the bytes of the frontier agree with it.
pub fn tree_append(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut frontier, mut tiles) = (Frontier::new(), Tiles::new());
    let (mut memory, mut leaves) = (MemoryNodes::new(), Vec::new());
    while !input.is_empty() && leaves.len() < LEAVES_MAX {
        // Alike leaves in rows, since equal hashes are what confuses trees.
        let leaf = hash::content(input.take(1));
        let count = match input.byte() {
            255 => input.below(2000),
            n => usize::from(n % 64),
        };
        for _ in 0..count {
            let index = tiles.append(&mut frontier, leaf).unwrap();
            assert_eq!(index.get(), leaves.len() as u64);
            memory.append(leaf).unwrap();
            leaves.push(leaf);
        }
        let restored = Frontier::from_bytes(&frontier.to_bytes()).unwrap();
        assert_eq!(restored, frontier);
        frontier = restored;
    }
    let root = naive_root(&leaves);
    assert_eq!(frontier.root(), root);
    assert_eq!(memory.root(), root);
    assert_eq!(root_by_rs_merkle(&leaves), root);
    tiles.check(&frontier).unwrap();
    for tile in tile::all(frontier.size()) {
        let path = tile::TilePath::new(tile, tile.width(frontier.size())).unwrap();
        assert_eq!(path.to_string().parse(), Ok(path));
    }
}

/// A tree of distinct leaves and the true root of each of its sizes.
struct Truth {
    leaves: Vec<Hash>,
    nodes: MemoryNodes,
}

impl Truth {
    fn new(size: u64) -> Self {
        let leaves: Vec<_> = (0..size).map(|i| hash::content(&i.to_le_bytes())).collect();
        let nodes = MemoryNodes::from_leaves(&leaves).unwrap();
        Self { leaves, nodes }
    }

    fn frontier(&self, size: u64) -> Frontier {
        let mut frontier = Frontier::new();
        for leaf in self.leaves.iter().take(usize::try_from(size).unwrap()) {
            frontier.append(*leaf).unwrap();
        }
        frontier
    }

    fn root(&self, size: u64) -> Hash {
        self.frontier(size).root()
    }

    /// A hash that a liar has at hand: a leaf, a root, or noise.
    fn any_hash(&self, input: &mut Input<'_>) -> Hash {
        match input.byte() % 3 {
            0 => self.leaves[input.below(self.leaves.len())],
            1 => self.root(input.below(self.leaves.len() + 1) as u64),
            _ => Hash::from_bytes(input.array()),
        }
    }

    /// Changes a proof's hashes a few times.
    fn lie(&self, input: &mut Input<'_>, proof: &mut Vec<Hash>) {
        for _ in 0..input.below(4) {
            let at = input.below(proof.len() + 1);
            let new = self.any_hash(input);
            match (input.byte() % 5, proof.get_mut(at)) {
                (0, Some(hash)) => {
                    let mut bytes = *hash.as_bytes();
                    bytes[input.below(Hash::LEN)] ^= 1 << input.below(8);
                    *hash = Hash::from_bytes(bytes);
                }
                (1, Some(hash)) => *hash = new,
                (2, Some(_)) => _ = proof.remove(at),
                (3, Some(_)) => {
                    let last = proof.len() - 1;
                    proof.swap(at, last);
                }
                _ => proof.insert(at, new),
            }
        }
    }
}

/// An honest proof, then another statement, other hashes, or both: it verifies
/// only if the statement is true and the hashes are the honest ones. Sizes and
/// roots go together, as a signed head has them.
pub fn proof_malleability(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => lie_about_inclusion(&mut input),
        1 => lie_about_consistency(&mut input),
        2 => lie_about_the_right(&mut input),
        _ => lie_about_a_span(&mut input),
    }
}

fn size(n: u64) -> TreeSize {
    TreeSize::new(n)
}

/// A number up to `max`, or now and then any at all.
fn number(input: &mut Input<'_>, max: u64) -> u64 {
    match input.byte() {
        255 => input.number(),
        _ => u64::from(input.word()) % (max + 1),
    }
}

fn lie_about_inclusion(input: &mut Input<'_>) {
    let n = 1 + u64::from(input.word()) % PROOF_LEAVES_MAX;
    let truth = Truth::new(n);
    let index = u64::from(input.word()) % n;
    let build = |i, n| inclusion::build(LeafIndex::new(i), size(n), &truth.nodes);
    let mut proof = build(index, n).unwrap();
    let leaf = truth.leaves[usize::try_from(index).unwrap()];
    inclusion::verify(
        &leaf,
        LeafIndex::new(index),
        size(n),
        &proof,
        &truth.root(n),
    )
    .unwrap();

    let (mut claimed_leaf, mut claimed_index, mut claimed_size) = (leaf, index, n);
    match input.byte() % 4 {
        0 => claimed_leaf = truth.any_hash(input),
        1 => claimed_index = number(input, n),
        2 => claimed_size = number(input, n),
        _ => (),
    }
    truth.lie(input, &mut proof);
    let root = truth.root(claimed_size.min(n));
    let at = LeafIndex::new(claimed_index);
    let verdict = inclusion::verify(&claimed_leaf, at, size(claimed_size), &proof, &root);
    // Nobody signed a larger size with that root: only panics count there.
    if verdict.is_ok() && claimed_size <= n {
        assert!(claimed_index < claimed_size);
        let i = usize::try_from(claimed_index).unwrap();
        assert_eq!(truth.leaves[i], claimed_leaf);
        assert_eq!(proof, build(claimed_index, claimed_size).unwrap());
    }
}

fn lie_about_consistency(input: &mut Input<'_>) {
    let n = u64::from(input.word()) % (PROOF_LEAVES_MAX + 1);
    let m = u64::from(input.word()) % (n + 1);
    let truth = Truth::new(n.max(1));
    let build = |m, n| consistency::build(size(m), size(n), &truth.nodes);
    let mut proof = build(m, n).unwrap();
    let (old_root, new_root) = (truth.root(m), truth.root(n));
    consistency::verify(size(m), size(n), &proof, &old_root, &new_root).unwrap();

    // The old root is whatever was believed before; the new one is signed.
    let (mut old, mut claimed_m, mut claimed_n) = (old_root, m, n);
    match input.byte() % 4 {
        0 => old = truth.any_hash(input),
        1 => {
            claimed_m = number(input, n);
            old = truth.root(claimed_m.min(n));
        }
        2 => claimed_n = number(input, n),
        _ => (),
    }
    truth.lie(input, &mut proof);
    let new = truth.root(claimed_n.min(n));
    let (m, n) = (claimed_m, claimed_n);
    let verdict = consistency::verify(size(m), size(n), &proof, &old, &new);
    if verdict.is_ok() && n <= truth.leaves.len() as u64 {
        assert!(m <= n);
        assert_eq!(old, truth.root(m));
        assert_eq!(proof, build(m, n).unwrap());
    }
}

fn lie_about_the_right(input: &mut Input<'_>) {
    let n = 1 + u64::from(input.word()) % PROOF_LEAVES_MAX;
    let k = u64::from(input.word()) % (n + 1);
    let truth = Truth::new(n);
    let build = |k, n| range::right_build(size(k), size(n), &truth.nodes);
    let mut right = build(k, n).unwrap();
    let mut frontier = truth.frontier(k);
    range::verify(&frontier, size(n), &right, &truth.root(n)).unwrap();

    let mut claimed_n = n;
    match input.byte() % 4 {
        0 => {
            // The frontier after other leaves than those of the tree.
            let mut peaks = frontier.peaks().to_vec();
            if let Some(peak) = peaks.last_mut() {
                *peak = truth.any_hash(input);
            }
            frontier = Frontier::from_parts(frontier.size(), peaks).unwrap();
        }
        1 => frontier = truth.frontier(number(input, n).min(n)),
        2 => claimed_n = number(input, n),
        _ => (),
    }
    truth.lie(input, &mut right);
    let k = frontier.size().get();
    let root = truth.root(claimed_n.min(n));
    let verdict = range::verify(&frontier, size(claimed_n), &right, &root);
    if verdict.is_ok() && claimed_n <= n {
        assert!(k <= claimed_n);
        assert_eq!(frontier, truth.frontier(k));
        assert_eq!(right, build(k, claimed_n).unwrap());
    }
}

fn drafts(count: u64) -> Vec<Draft> {
    let draft = |i: u64| {
        let payload = vec![b'p'; usize::try_from(i * 37 % 90).unwrap()];
        Draft::new(format!("key-{}", i % 3), payload).unwrap()
    };
    (0..count).map(draft).collect()
}

/// The runs of `drafts[from..to]`, and the leaves of all of `drafts[..to]`.
fn runs(drafts: &[Draft], from: usize, to: usize, each: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut builder = RunBuilder::default();
    for (i, draft) in drafts.iter().enumerate().take(to).skip(from) {
        let sequence = i as u64 + 1;
        let header = draft.header(sequence, sequence, 1_000);
        let full = builder.count() >= each
            || (builder.count() > 0 && sequence > run_boundary(builder.first()));
        if full {
            out.push(Vec::new());
            builder.finish_into(out.last_mut().unwrap());
        }
        builder.push(&header, draft.payload()).unwrap();
    }
    if builder.count() > 0 {
        out.push(Vec::new());
        builder.finish_into(out.last_mut().unwrap());
    }
    out
}

/// A span whose bytes are changed gives other entries never, though it may cut
/// the same entries into other runs.
fn lie_about_a_span(input: &mut Input<'_>) {
    let n = 1 + input.below(80);
    let drafts = drafts(n as u64);
    let from = input.below(n);
    let to = from + 1 + input.below(n - from);
    let mut own = Accumulator::default();
    let (mut nodes, mut headers) = (MemoryNodes::new(), HashMap::new());
    for bytes in runs(&drafts, 0, n, 7) {
        let run = Run::decode(&bytes).unwrap();
        for entry in run.entries() {
            let entry = entry.unwrap();
            nodes.append(leaf_hash(entry.header_bytes)).unwrap();
            headers.insert(entry.header.sequence, entry.header_bytes.to_vec());
        }
    }
    for bytes in runs(&drafts, 0, from, 5) {
        let run = Run::decode(&bytes).unwrap();
        own.extend(&run, |_, _| (), |_, _| ()).unwrap();
    }
    let signed = SignedContext {
        id: ContextId::new("a").unwrap(),
        size: n as u64,
        root: nodes.root(),
    };
    let right = range::right_build(size(to as u64), size(n as u64), &nodes).unwrap();
    let mut span = Vec::new();
    let bodies = runs(&drafts, from, to, 1 + input.below(9));
    encode_span(from as u64, to as u64, &right, &bodies, &mut span);
    let honest = CheckedSpan::verify(&own, &signed, &span).unwrap();
    assert_eq!((honest.start(), honest.end()), (from as u64, to as u64));

    input.mutate(&mut span);
    let Ok(checked) = CheckedSpan::verify(&own, &signed, &span) else {
        return;
    };
    let mut next = from as u64;
    for bytes in checked.runs() {
        for entry in Run::decode(bytes).unwrap().entries() {
            let entry = entry.unwrap();
            next += 1;
            assert_eq!(entry.header.sequence, next);
            assert_eq!(headers.get(&next).unwrap(), entry.header_bytes);
            let payload = entry.inline_payload.unwrap();
            assert_eq!(hash::content(payload), entry.header.payload_hash);
        }
    }
    assert_eq!(checked.end(), next);
    assert!(next <= n as u64);
}
