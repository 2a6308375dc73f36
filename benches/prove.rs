//! Proofs from a store of a million entries in one context, at random places,
//! with everything warm: building through a view, and checking, including the
//! hash of the header. The same for the directory's path over 1,000 contexts.
//!
//! `cargo bench --bench prove --no-default-features --features store`;
//! `LEDGER_BENCH_QUICK=1` for 50,000 entries.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{batch, directory, new_store, quick};
use converge_ledger::directory::path;
use converge_ledger::entry::{ContextId, leaf_hash};
use converge_ledger::store::View;
use converge_ledger::tree::{LeafIndex, TreeSize, consistency, inclusion};

/// Entries of an append.
const BATCH: u64 = 10_000;
/// Contexts beside the large one.
const CONTEXTS: u64 = 1_000;

/// Numbers that look random; the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Runs `work` for many places and prints median and 99th percentile.
fn line<T>(what: &str, places: &[T], mut work: impl FnMut(&T)) {
    let mut times: Vec<Duration> = Vec::with_capacity(places.len());
    for place in places {
        let start = Instant::now();
        work(place);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let micros = |at: usize| times[at].as_secs_f64() * 1e6;
    let (median, p99) = (micros(times.len() / 2), micros(times.len() * 99 / 100));
    println!("{what:<42} {median:>9.1} {p99:>9.1}");
}

fn context(i: u64) -> ContextId {
    ContextId::new(&format!("context-{i}")).unwrap()
}

fn entries(view: &View, id: &ContextId, size: u64, rounds: usize) {
    let mut dice = Dice(7);
    let places: Vec<u64> = (0..rounds).map(|_| 1 + dice.below(size)).collect();
    let root = view.context(id).unwrap().unwrap().root;
    let tree = TreeSize::new(size);
    // Warms the tiles.
    for place in &places {
        view.inclusion_proof(id, *place, size).unwrap();
    }
    line("inclusion, build", &places, |place| {
        black_box(view.inclusion_proof(id, *place, size).unwrap());
    });
    line("header, read", &places, |place| {
        black_box(view.header_bytes(id, *place).unwrap());
    });
    let proofs: Vec<_> = places
        .iter()
        .map(|place| {
            let proof = view.inclusion_proof(id, *place, size).unwrap();
            let header = view.header_bytes(id, *place).unwrap().unwrap();
            (LeafIndex::new(place - 1), proof, header)
        })
        .collect();
    line(
        "inclusion, check with the leaf",
        &proofs,
        |(index, proof, header)| {
            let leaf = leaf_hash(black_box(header));
            inclusion::verify(&leaf, *index, tree, proof, &root).unwrap();
        },
    );
    line("consistency, build", &places, |place| {
        black_box(view.consistency_proof(id, *place, size).unwrap());
    });
    let proofs: Vec<_> = places
        .iter()
        .take(rounds / 10)
        .map(|place| {
            let proof = view.consistency_proof(id, *place, size).unwrap();
            (*place, view.root_at(id, *place).unwrap(), proof)
        })
        .collect();
    line("consistency, check", &proofs, |(place, older, proof)| {
        let from = TreeSize::new(*place);
        consistency::verify(from, tree, proof, older, &root).unwrap();
    });
}

fn contexts(view: &View, rounds: usize) {
    let mut dice = Dice(9);
    let root = view.head().unwrap().head().directory_root;
    let ids: Vec<ContextId> = (0..rounds).map(|_| context(dice.below(CONTEXTS))).collect();
    line("directory, build", &ids, |id| {
        black_box(view.directory_path(&root, id).unwrap());
    });
    let paths: Vec<_> = ids
        .iter()
        .map(|id| (id, view.directory_path(&root, id).unwrap()))
        .collect();
    line("directory, check", &paths, |(id, found)| {
        let found = path::verify(&root, &id.path(), &found.as_slices()).unwrap();
        assert!(matches!(found, path::Found::Present { .. }));
    });
}

fn main() {
    let size = if quick() { 50_000 } else { 1_000_000 };
    let rounds = if quick() { 1_000 } else { 20_000 };
    let dir = directory();
    let store = new_store(&dir, 4 << 20);
    let large = ContextId::new("large").unwrap();
    for from in (0..size).step_by(usize::try_from(BATCH).unwrap()) {
        store.append(batch(&large, from, BATCH)).unwrap();
    }
    let few = (0..CONTEXTS).flat_map(|i| batch(&context(i), i, 3));
    store.append(few.collect()).unwrap();
    // Everything is folded, as it is some seconds after it was written.
    store.close().unwrap();
    drop(store);
    let store = common::open_store(&dir, 4 << 20).store;
    println!("{:<42} {:>9} {:>9}", "microseconds", "median", "p99");
    entries(store.view(), &large, size, rounds);
    contexts(store.view(), rounds);
    store.close().unwrap();
}
