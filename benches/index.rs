//! The index: opening with it, after a kill, and without it; its size beside
//! the log's; proofs read through it. The page cache is warm.
//!
//! `cargo bench --bench index --no-default-features --features store`;
//! `LEDGER_BENCH_ENTRIES=10000000 LEDGER_BENCH_CONTEXTS=1000000` for one shape
//! of one's own (peak memory is of the whole process, so one shape at a time),
//! `LEDGER_BENCH_QUICK=1` for a small one.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{batch, directory, mb_per_s, median, new_store, open_store, peak_memory_mib, quick};
use converge_ledger::entry::ContextId;
use converge_ledger::ledger::ReadLedger;
use converge_ledger::store::{Store, View};
use converge_ledger::tree::{LeafIndex, NodeId, ReadNodes, TreeSize, inclusion};

/// Entries of an append: what the issue of the index asks for.
const BATCH: u64 = 1_000;
/// Appends under way at once.
const IN_FLIGHT: usize = 8;
const RESERVE_BYTES: u64 = 4 << 20;
/// Proofs that are timed, after as many that are not.
const PROOFS: u64 = 2_000;

fn context(i: u64) -> ContextId {
    ContextId::new(&format!("context-{i}")).unwrap()
}

fn fill(store: &Store, entries: u64, contexts: u64) {
    let (sender, answers) = std::sync::mpsc::channel();
    let mut under_way = 0;
    for from in (0..entries).step_by(usize::try_from(BATCH).unwrap()) {
        // Neighbours share a context, as the entries of one cycle do.
        let each = (entries / contexts).clamp(1, BATCH);
        let drafts = (0..BATCH / each).flat_map(|i| {
            let at = from + i * each;
            batch(&context(at / each % contexts), at, each)
        });
        let sender = sender.clone();
        let done = Box::new(move |outcome| _ = sender.send(outcome));
        store.submit(drafts.collect(), true, done);
        under_way += 1;
        if under_way == IN_FLIGHT {
            answers.recv().unwrap().unwrap();
            under_way -= 1;
        }
    }
    while under_way > 0 {
        answers.recv().unwrap().unwrap();
        under_way -= 1;
    }
}

/// Bytes of the files below a directory: length, and what the disk holds.
fn bytes_of(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    if metadata.is_file() {
        return (metadata.len(), metadata.blocks() * 512);
    }
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    files
        .map(|file| bytes_of(&file))
        .fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

struct Through<'v>(&'v View, ContextId);

impl ReadNodes for Through<'_> {
    type Error = converge_ledger::store::StoreError;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<converge_ledger::hash::Hash>, Self::Error> {
        self.0.tree_nodes(&self.1, ids)
    }
}

/// The median time of an inclusion proof in the first context.
fn proofs(view: &View) -> (u64, Duration) {
    let id = context(0);
    let size = view.size(&id).unwrap().unwrap();
    let nodes = Through(view, id);
    let mut times = Vec::new();
    for i in 0..2 * PROOFS {
        let at = LeafIndex::new(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % size);
        let start = Instant::now();
        let proof = inclusion::build(at, TreeSize::new(size), &nodes).unwrap();
        times.push(start.elapsed());
        assert!(proof.len() <= 64);
    }
    (size, median(&mut times[usize::try_from(PROOFS).unwrap()..]))
}

fn shape(entries: u64, contexts: u64) {
    let dir = directory();
    let store = new_store(&dir, RESERVE_BYTES);
    let line = |what: &str, time: Duration, more: String| {
        let peak = peak_memory_mib();
        println!("{entries:>9} {contexts:>8}  {what:<22} {time:>10.1?}  {more:<34} {peak:>5} MiB");
    };
    let start = Instant::now();
    fill(&store, entries, contexts);
    let filled = start.elapsed();
    let rate = entries as f64 / filled.as_secs_f64();
    line(
        "append",
        filled,
        format!("{rate:.0} entries/s, 8 in flight"),
    );
    let killed = directory();
    copy(dir.path(), killed.path());
    let start = Instant::now();
    store.close().unwrap();
    line("close", start.elapsed(), String::new());
    drop(store);
    let log = bytes_of(&dir.path().join("log")).0;
    let (index, held) = bytes_of(&dir.path().join("index.redb"));
    let share = |bytes: u64| bytes as f64 * 100.0 / log as f64;
    println!(
        "{entries:>9} {contexts:>8}  log {log} B, index {index} B ({:.2} %), {held} B on disk ({:.2} %)",
        share(index),
        share(held)
    );

    let mut times = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        let opened = open_store(&dir, RESERVE_BYTES);
        times.push(start.elapsed());
        assert_eq!(opened.store.view().totals().1, entries);
        opened.store.close().unwrap();
    }
    line("open, closed cleanly", median(&mut times), String::new());
    let opened = open_store(&dir, RESERVE_BYTES);
    let (size, time) = proofs(opened.store.view());
    line("inclusion proof", time, format!("context of {size}, warm"));
    let start = Instant::now();
    let page = opened.store.view().contexts(None, 1_000).unwrap().len();
    line("list contexts", start.elapsed(), format!("{page} of them"));
    opened.store.close().unwrap();
    drop(opened);

    let start = Instant::now();
    let opened = open_store(&killed, RESERVE_BYTES);
    let read = opened.bytes_read;
    line(
        "open, after kill -9",
        start.elapsed(),
        format!("{read} B of log read"),
    );
    assert_eq!(opened.store.view().totals().1, entries);
    opened.store.close().unwrap();
    drop((opened, killed));

    fs::remove_file(dir.path().join("index.redb")).unwrap();
    let start = Instant::now();
    let opened = open_store(&dir, RESERVE_BYTES);
    let time = start.elapsed();
    line(
        "open, index rebuilt",
        time,
        format!("{:.0} MB/s of log", mb_per_s(log, time)),
    );
    assert_eq!(opened.store.view().totals().1, entries);
    opened.store.close().unwrap();
}

fn main() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    println!(
        "{:>9} {:>8}  {:<22} {:>10}  {:<34} {:>9}",
        "entries", "contexts", "what", "time", "", "peak"
    );
    if let Some(entries) = number("LEDGER_BENCH_ENTRIES") {
        return shape(entries, number("LEDGER_BENCH_CONTEXTS").unwrap_or(1));
    }
    let entries = if quick() { 50_000 } else { 1_000_000 };
    shape(entries, 1);
    shape(entries, 1_000);
}
