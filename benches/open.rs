//! Opening a log of a million entries: the whole log is read, every record's
//! tag and chain checked and every leaf hashed. The page cache is warm.
//!
//! `cargo bench --bench open --no-default-features --features store`;
//! `LEDGER_BENCH_QUICK=1` for a log of 50,000 entries.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{batch, directory, mb_per_s, median, new_store, open_store, peak_memory_mib, quick};
use converge_ledger::entry::ContextId;
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, audit};

/// Entries of an append.
const BATCH: u64 = 10_000;

fn fill(dir: &tempfile::TempDir, entries: u64, contexts: u64) {
    let store = new_store(dir, 4 << 20);
    let ids: Vec<_> = (0..contexts)
        .map(|i| ContextId::new(&format!("context-{i}")).unwrap())
        .collect();
    for from in (0..entries).step_by(usize::try_from(BATCH).unwrap()) {
        // Neighbours share a context, as the entries of one cycle do.
        let each = BATCH / contexts.min(BATCH);
        let drafts = (0..BATCH / each).flat_map(|i| {
            let id = &ids[usize::try_from(i % contexts).unwrap()];
            batch(id, from + i * each, each)
        });
        store.append(drafts.collect()).unwrap();
    }
    store.close().unwrap();
}

fn main() {
    let entries = if quick() { 50_000 } else { 1_000_000 };
    let rounds = if quick() { 3 } else { 7 };
    println!(
        "{:>9} {:>9}  {:<10} {:>10} {:>8} {:>12}",
        "entries", "contexts", "what", "median", "MB/s", "peak memory"
    );
    for contexts in [1, 1_000] {
        let dir = directory();
        fill(&dir, entries, contexts);
        let line = |what: &str, mut times: Vec<Duration>, bytes: u64| {
            let middle = median(&mut times);
            println!(
                "{entries:>9} {contexts:>9}  {what:<10} {middle:>10.1?} {:>8.0} {:>8} MiB",
                mb_per_s(bytes, middle),
                peak_memory_mib()
            );
        };
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..rounds {
            let start = Instant::now();
            let opened = open_store(&dir, 4 << 20);
            times.push(start.elapsed());
            bytes = opened.bytes_read;
            assert_eq!(opened.store.view().totals().1, entries);
            opened.store.close().unwrap();
        }
        line("open", times, bytes);
        let disk = Arc::new(RealDisk::new(dir.path()));
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let view = Store::open_read_only(disk.clone()).unwrap();
            times.push(start.elapsed());
            assert_eq!(view.totals().1, entries);
        }
        line("read only", times, bytes);
        let start = Instant::now();
        let report = audit(&*disk, &mut |_| ()).unwrap();
        assert_eq!(report.first_bad, None);
        line("audit", vec![start.elapsed()], bytes);
    }
}
