//! Durable appends to a real directory, beside the same payload, key and
//! metadata bytes appended to a preallocated plain file with one `fdatasync`
//! per batch. Series take turns in blocks, so that a disk that slows down
//! slows all of them down.
//!
//! `cargo bench --bench append --no-default-features --features store`;
//! `LEDGER_BENCH_QUICK=1` for a short run, `LEDGER_BENCH_BATCH=1000` for one
//! batch size alone, `LEDGER_BENCH_DIR` for another disk.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{batch, directory, median, new_store, plain_bytes, quick};
use converge_ledger::entry::ContextId;
use converge_ledger::store::Store;

/// Rounds after which the next series has its turn.
const BLOCK_ROUNDS: u64 = 5;
/// Bytes kept ready by the stores that keep a reserve.
const RESERVE_BYTES: u64 = 4 << 20;
/// Batches under way at once in the pipelined series.
const IN_FLIGHT: usize = 8;
/// Blocks of the pipelined series.
const PIPELINED_BLOCKS: u64 = 5;
/// Batches before the clock starts, so that the reserve is there.
const WARM_UP: u64 = 12;

/// A file of zeros, durable, that is overwritten from its start.
struct Plain {
    file: File,
    at: u64,
}

impl Plain {
    fn new(dir: &tempfile::TempDir, bytes: u64) -> Self {
        let path = dir.path().join("plain");
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(path).unwrap();
        let zeros = vec![0; 1 << 20];
        for at in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).unwrap();
        }
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += bytes.len() as u64;
    }
}

/// One way of appending, and the times it took.
struct Series {
    name: &'static str,
    times: Vec<Duration>,
}

impl Series {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            times: Vec::new(),
        }
    }

    fn time(&mut self, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        self.times.push(start.elapsed());
    }

    /// Entries per second over all rounds.
    fn rate(&self, entries: u64) -> f64 {
        let total: Duration = self.times.iter().sum();
        entries as f64 * self.times.len() as f64 / total.as_secs_f64()
    }
}

/// The appends of one batch size, side by side.
struct Bench {
    size: u64,
    next: u64,
    context: ContextId,
    plain: (Plain, Series),
    stores: Vec<(Store, Mode, Series)>,
    _dirs: Vec<tempfile::TempDir>,
}

#[derive(Clone, Copy)]
enum Mode {
    /// Drafts are at hand.
    Append,
    /// Drafts are made while the clock runs.
    DraftAndAppend,
    /// A head is signed and published after every batch.
    AppendAndPublish,
}

impl Bench {
    fn new(size: u64, rounds: u64) -> Self {
        let mut dirs = vec![directory()];
        let bytes = (rounds + WARM_UP) * plain_bytes(0, size).len() as u64;
        let plain = Plain::new(&dirs[0], bytes + (1 << 20));
        let modes = [
            ("store, reserve", RESERVE_BYTES, Mode::Append),
            ("store, no reserve", 0, Mode::Append),
            ("store, drafts made", RESERVE_BYTES, Mode::DraftAndAppend),
            (
                "store, head per batch",
                RESERVE_BYTES,
                Mode::AppendAndPublish,
            ),
        ];
        let mut stores = Vec::new();
        for (name, reserve, mode) in modes {
            let dir = directory();
            stores.push((new_store(&dir, reserve), mode, Series::new(name)));
            dirs.push(dir);
        }
        Self {
            size,
            next: 0,
            context: ContextId::new("bench").unwrap(),
            plain: (plain, Series::new("plain file")),
            stores,
            _dirs: dirs,
        }
    }

    fn warm_up(&mut self) {
        for _ in 0..WARM_UP {
            self.plain.0.append(&plain_bytes(self.next, self.size));
            for (store, _, _) in &self.stores {
                let drafts = batch(&self.context, self.next, self.size);
                store.append(drafts).unwrap();
            }
            self.next += self.size;
        }
    }

    fn block(&mut self, rounds: u64) {
        let (size, next, context) = (self.size, self.next, &self.context);
        let start = |round| next + round * size;
        let (file, series) = &mut self.plain;
        for round in 0..rounds {
            let bytes = plain_bytes(start(round), size);
            series.time(|| file.append(&bytes));
        }
        for (store, mode, series) in &mut self.stores {
            for round in 0..rounds {
                let make = || batch(context, start(round), size);
                match mode {
                    Mode::Append => {
                        let drafts = make();
                        series.time(|| _ = store.append(drafts).unwrap());
                    }
                    Mode::DraftAndAppend => series.time(|| _ = store.append(make()).unwrap()),
                    Mode::AppendAndPublish => {
                        let drafts = make();
                        series.time(|| {
                            store.append(drafts).unwrap();
                            store.publish().unwrap();
                        });
                    }
                }
            }
            // The helper that extends the log is part of the store's work, but
            // must not run into the next series.
            std::thread::sleep(Duration::from_millis(10));
        }
        self.next += rounds * size;
    }

    fn report(mut self) {
        let size = self.size;
        let plain_median = median(&mut self.plain.1.times);
        let plain_rate = self.plain.1.rate(size);
        let line = |series: &mut Series| {
            let middle = median(&mut series.times);
            let rate = series.rate(size);
            println!(
                "{size:>6}  {:<22} {middle:>11.1?} {rate:>12.0}   {:>6.2}  {:>6.2}",
                series.name,
                plain_median.as_secs_f64() / middle.as_secs_f64(),
                rate / plain_rate,
            );
        };
        line(&mut self.plain.1);
        for (_, _, series) in &mut self.stores {
            line(series);
        }
        for (store, _, _) in self.stores {
            store.close().unwrap();
        }
    }
}

/// Several batches under way: total rates, since no batch has a time of its
/// own.
fn pipelined(size: u64, rounds: u64) {
    let (plain_dir, dir) = (directory(), directory());
    let bytes = (rounds + WARM_UP) * plain_bytes(0, size).len() as u64;
    let mut plain = Plain::new(&plain_dir, bytes + (1 << 20));
    let store = new_store(&dir, RESERVE_BYTES);
    let context = ContextId::new("bench").unwrap();
    let (mut plain_time, mut store_time) = (Duration::ZERO, Duration::ZERO);
    for round in 0..WARM_UP {
        plain.append(&plain_bytes(round * size, size));
        store.append(batch(&context, round * size, size)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(30));
    // Long enough for the queue to stay filled.
    let each = rounds / PIPELINED_BLOCKS;
    for block in 0..PIPELINED_BLOCKS {
        let from = (WARM_UP + block * each) * size;
        let prepared: Vec<_> = (0..each)
            .map(|round| plain_bytes(from + round * size, size))
            .collect();
        let start = Instant::now();
        for bytes in &prepared {
            plain.append(bytes);
        }
        plain_time += start.elapsed();

        let mut batches: Vec<_> = (0..each)
            .map(|round| batch(&context, from + round * size, size))
            .collect();
        batches.reverse();
        let (sender, answers) = channel();
        let mut under_way = 0;
        let start = Instant::now();
        loop {
            while under_way < IN_FLIGHT
                && let Some(drafts) = batches.pop()
            {
                let sender = sender.clone();
                let done = Box::new(move |outcome| sender.send(outcome).unwrap());
                store.submit(drafts, true, done);
                under_way += 1;
            }
            if under_way == 0 {
                break;
            }
            answers.recv().unwrap().unwrap();
            under_way -= 1;
        }
        store_time += start.elapsed();
        std::thread::sleep(Duration::from_millis(30));
    }
    store.close().unwrap();
    let entries = (each * PIPELINED_BLOCKS * size) as f64;
    let (plain, ours) = (
        entries / plain_time.as_secs_f64(),
        entries / store_time.as_secs_f64(),
    );
    println!(
        "{size:>6}  {:<22} {:>11} {ours:>12.0}   {:>6}  {:>6.2}",
        "store, 8 in flight",
        "-",
        "-",
        ours / plain
    );
}

fn main() {
    let rounds: [(u64, u64); 4] = if quick() {
        [(1, 50), (100, 25), (1_000, 15), (10_000, 5)]
    } else {
        [(1, 500), (100, 300), (1_000, 150), (10_000, 25)]
    };
    println!(
        "{} bytes of payload, key and metadata in an entry",
        plain_bytes(0, 1).len()
    );
    println!(
        "{:>6}  {:<22} {:>11} {:>12}   {:>6}  {:>6}",
        "batch", "series", "median", "entries/s", "ratio", "of sum"
    );
    let only = std::env::var("LEDGER_BENCH_BATCH").ok();
    let only: Option<u64> = only.and_then(|size| size.parse().ok());
    for (size, rounds) in rounds {
        if only.is_some_and(|only| only != size) {
            continue;
        }
        let mut bench = Bench::new(size, rounds);
        bench.warm_up();
        for _ in 0..rounds / BLOCK_ROUNDS {
            bench.block(BLOCK_ROUNDS);
        }
        bench.report();
        if size == 1_000 {
            pipelined(size, rounds);
        }
    }
    println!("ratio: plain median / median; of sum: entries/s over all rounds / the plain file's");
}
