//! What the checks cost, against the database on a plain file. Not run by
//! default:
//! `cargo test --release --no-default-features --features store --lib -- \
//! --ignored --nocapture checks_cost`; the files lie in `TMPDIR`.

#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::time::Instant;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, TableDefinition};

use super::model::Random;
use super::*;
use crate::store::disk::RealDisk;

const TABLE: TableDefinition<[u8; 24], u64> = TableDefinition::new("measured");
const ROWS: u64 = 200_000;
const COMMITS: u64 = 200;
const READS: u64 = 100_000;

fn key(n: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&Random(n).next().to_le_bytes());
    key[16..].copy_from_slice(&n.to_le_bytes());
    key
}

fn open(backend: impl StorageBackend, cache_bytes: usize) -> Database {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.create_with_backend(backend).unwrap()
}

/// Microseconds per commit of a thousand rows.
fn fill(db: &Database) -> f64 {
    let start = Instant::now();
    for commit in 0..COMMITS {
        let mut write = db.begin_write().unwrap();
        write.set_quick_repair(true);
        {
            let mut table = write.open_table(TABLE).unwrap();
            for n in 0..ROWS / COMMITS {
                table.insert(key(commit * (ROWS / COMMITS) + n), n).unwrap();
            }
        }
        write.commit().unwrap();
    }
    start.elapsed().as_secs_f64() * 1e6 / COMMITS as f64
}

/// Microseconds per point read.
fn reads(db: &Database) -> f64 {
    let read = db.begin_read().unwrap();
    let table = read.open_table(TABLE).unwrap();
    let mut random = Random(1);
    let start = Instant::now();
    for _ in 0..READS {
        assert!(table.get(key(random.below(ROWS))).unwrap().is_some());
    }
    start.elapsed().as_secs_f64() * 1e6 / READS as f64
}

fn measure<B: StorageBackend>(open_file: impl Fn() -> B) -> [f64; 4] {
    let db = open(open_file(), 1 << 30);
    let commit = fill(&db);
    drop(db);
    let db = open(open_file(), 1 << 30);
    let cold = reads(&db);
    let warm = reads(&db);
    drop(db);
    let db = open(open_file(), 64 << 10);
    [commit, cold, warm, reads(&db)]
}

#[test]
#[ignore = "a measurement"]
fn checks_cost() {
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain");
        let plain = measure(|| {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            FileBackend::new(options.open(&path).unwrap()).unwrap()
        });
        let disk = RealDisk::new(dir.path());
        disk.create(NAME).unwrap();
        let checked = measure(|| CheckedPages::new(disk.open(NAME, Access::Write).unwrap(), KEY));
        for (n, what) in ["commit", "cold read", "warm read", "tiny cache read"]
            .iter()
            .enumerate()
        {
            println!(
                "{what:16} plain {:9.2} us, checked {:9.2} us, ratio {:.2}",
                plain[n],
                checked[n],
                checked[n] / plain[n]
            );
        }
    }
    let (_, pages) = fresh();
    let page = [3; PAGE_BYTES];
    let start = Instant::now();
    for n in 0..100_000 {
        std::hint::black_box(pages.check_of(n, &page));
    }
    println!(
        "check of a page {:.0} ns",
        start.elapsed().as_secs_f64() * 1e4
    );
}
