//! Hashing and the tree: leaves and nodes, appending to a frontier, and proofs
//! at a million leaves. Nothing here touches a disk.
//!
//! `cargo bench --bench hash_tree --no-default-features --features store`;
//! `LEDGER_BENCH_QUICK=1` for a short run over 50,000 leaves.

// The macros of criterion make items without documentation.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::hint::black_box;
use std::time::Duration;

use common::quick;
use converge_ledger::entry::leaf_hash;
use converge_ledger::hash::{self, Hash};
use converge_ledger::tree::{
    Frontier, LeafIndex, MemoryNodes, TreeSize, consistency, inclusion, range,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn leaf(i: u64) -> Hash {
    hash::content(&i.to_le_bytes())
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for bytes in [150usize, 1024, 4096] {
        let data = vec![7u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("leaf_{bytes}_bytes"), |b| {
            b.iter(|| leaf_hash(black_box(&data)));
        });
    }
    group.throughput(Throughput::Elements(1));
    let (left, right) = (leaf(1), leaf(2));
    group.bench_function("node", |b| {
        b.iter(|| hash::node(black_box(&left), black_box(&right)));
    });
    group.finish();
}

fn frontier(c: &mut Criterion) {
    let leaves: Vec<_> = (0..10_000).map(leaf).collect();
    let mut group = c.benchmark_group("frontier");
    group.throughput(Throughput::Elements(leaves.len() as u64));
    group.bench_function("append_10000", |b| {
        b.iter(|| {
            let mut frontier = Frontier::new();
            for leaf in &leaves {
                frontier.append(*leaf).unwrap();
            }
            frontier.root()
        });
    });
    group.finish();
}

fn proofs(c: &mut Criterion) {
    let n: u64 = if quick() { 50_000 } else { 1_000_000 };
    let leaves: Vec<_> = (0..n).map(leaf).collect();
    let nodes = MemoryNodes::from_leaves(&leaves).unwrap();
    let (size, root) = (TreeSize::new(n), nodes.root());
    // Numbers without round ones among their bits.
    let (index, older) = (LeafIndex::new(n * 5 / 8 + 3), n * 3 / 7);
    let mut before = Frontier::new();
    for leaf in leaves.iter().take(usize::try_from(older).unwrap()) {
        before.append(*leaf).unwrap();
    }
    let (older, older_root) = (before.size(), before.root());
    let at_index = leaves[usize::try_from(index.get()).unwrap()];

    let mut group = c.benchmark_group(format!("proof_{n}_leaves"));
    group.bench_function("inclusion_build", |b| {
        b.iter(|| inclusion::build(black_box(index), size, &nodes));
    });
    let proof = inclusion::build(index, size, &nodes).unwrap();
    group.bench_function("inclusion_verify", |b| {
        b.iter(|| inclusion::verify(black_box(&at_index), index, size, &proof, &root).unwrap());
    });
    group.bench_function("consistency_build", |b| {
        b.iter(|| consistency::build(black_box(older), size, &nodes));
    });
    let proof = consistency::build(older, size, &nodes).unwrap();
    group.bench_function("consistency_verify", |b| {
        b.iter(|| consistency::verify(black_box(older), size, &proof, &older_root, &root).unwrap());
    });
    group.bench_function("right_build", |b| {
        b.iter(|| range::right_build(black_box(older), size, &nodes));
    });
    let right = range::right_build(older, size, &nodes).unwrap();
    group.bench_function("right_verify", |b| {
        b.iter(|| range::verify(black_box(&before), size, &right, &root).unwrap());
    });
    group.finish();
}

fn settings() -> Criterion {
    let (warm_up, measure) = if quick() { (50, 200) } else { (500, 3000) };
    Criterion::default()
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measure))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = hashing, frontier, proofs
}
criterion_main!(benches);
