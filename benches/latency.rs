//! What the index costs appends: single appends while it is checkpointed all
//! the time, every two seconds, and never; batches with a request id on every
//! entry and without. Series take turns, so that a disk that slows down slows
//! all of them down.
//!
//! `cargo bench --bench latency --no-default-features --features store`;
//! `LEDGER_BENCH_QUICK=1` for a short run, `LEDGER_BENCH_IDS=1` for the request
//! ids alone.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{batch, directory, draft, median, options, quick, signer};
use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};

const RESERVE_BYTES: u64 = 4 << 20;
/// Entries of a batch.
const BATCH: u64 = 1_000;
/// Contexts of the single appends.
const CONTEXTS: u64 = 100;
/// How long one series runs before the next has its turn.
const TURN: Duration = Duration::from_secs(5);

struct Series {
    name: &'static str,
    store: Store,
    times: Vec<Duration>,
    next: u64,
    _dir: tempfile::TempDir,
}

fn series(name: &'static str, checkpoint_every: Duration) -> Series {
    let dir = directory();
    let disk = Arc::new(RealDisk::new(dir.path()));
    create(&*disk, StoreRole::Own, signer().verifier()).unwrap();
    let options = StoreOptions {
        checkpoint_every,
        ..options(RESERVE_BYTES)
    };
    Series {
        name,
        store: Store::open(disk, options, Some(signer())).unwrap().store,
        times: Vec::new(),
        next: 0,
        _dir: dir,
    }
}

impl Series {
    fn time(&mut self, drafts: Vec<(ContextId, Draft)>) {
        self.next += drafts.len() as u64;
        let start = Instant::now();
        self.store.append(drafts).unwrap();
        self.times.push(start.elapsed());
    }

    /// Median, 99th percentile, the longest, and the sum.
    fn figures(&mut self) -> (Duration, Duration, Duration, Duration) {
        let middle = median(&mut self.times);
        let p99 = self.times[self.times.len() * 99 / 100];
        let longest = self.times[self.times.len() - 1];
        (middle, p99, longest, self.times.iter().sum())
    }
}

fn singles() {
    // A store that never folds by time still does by size, and at close.
    let never = Duration::from_hours(1);
    let mut all = [
        series("never", never),
        series("every 2 s", Duration::from_secs(2)),
        series("all the time", Duration::ZERO),
    ];
    let (turn, rounds) = if quick() { (TURN / 25, 2) } else { (TURN, 4) };
    let ids: Vec<_> = (0..CONTEXTS)
        .map(|i| ContextId::new(&format!("context-{i}")).unwrap())
        .collect();
    for _ in 0..rounds {
        for series in &mut all {
            let start = Instant::now();
            while start.elapsed() < turn {
                let id = ids[usize::try_from(series.next % CONTEXTS).unwrap()].clone();
                series.time(vec![(id, draft(series.next))]);
            }
        }
    }
    println!("single appends over {CONTEXTS} contexts, by checkpoints");
    println!(
        "{:<16} {:>9} {:>10} {:>10} {:>10}  {:>6}",
        "checkpoints", "appends", "median", "p99", "longest", "p99 x"
    );
    let mut base = None;
    for series in &mut all {
        let (middle, p99, longest, _) = series.figures();
        let base = *base.get_or_insert(p99);
        println!(
            "{:<16} {:>9} {middle:>10.1?} {p99:>10.1?} {longest:>10.1?}  {:>6.2}",
            series.name,
            series.times.len(),
            p99.as_secs_f64() / base.as_secs_f64()
        );
        series.store.close().unwrap();
    }
}

fn request_ids() {
    let mut plain = series("without", Duration::from_secs(2));
    let mut named = series("with", Duration::from_secs(2));
    let id = ContextId::new("bench").unwrap();
    let (blocks, rounds) = if quick() { (2, 5) } else { (30, 20) };
    for _ in 0..blocks {
        for _ in 0..rounds {
            plain.time(batch(&id, plain.next, BATCH));
        }
        for _ in 0..rounds {
            let drafts = batch(&id, named.next, BATCH).into_iter().zip(named.next..);
            let drafts = drafts.map(|((id, draft), i)| {
                let request = format!("request-{i:012}");
                (id, draft.with_request_id(request).unwrap())
            });
            named.time(drafts.collect());
        }
    }
    println!("batches of {BATCH}, by request ids");
    println!(
        "{:<16} {:>9} {:>10} {:>10} {:>12}  {:>6} {:>6}",
        "request ids", "batches", "median", "p99", "entries/s", "ratio", "of sum"
    );
    let mut base = None;
    for series in [&mut plain, &mut named] {
        let (middle, p99, _, sum) = series.figures();
        let (base_middle, base_sum) = *base.get_or_insert((middle, sum));
        println!(
            "{:<16} {:>9} {middle:>10.1?} {p99:>10.1?} {:>12.0}  {:>6.2} {:>6.2}",
            series.name,
            series.times.len(),
            series.next as f64 / sum.as_secs_f64(),
            base_middle.as_secs_f64() / middle.as_secs_f64(),
            base_sum.as_secs_f64() / sum.as_secs_f64()
        );
        series.store.close().unwrap();
    }
}

fn main() {
    if std::env::var_os("LEDGER_BENCH_IDS").is_none() {
        singles();
    }
    println!();
    request_ids();
}
