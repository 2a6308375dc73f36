//! Audits of whole stores, plain and with the second opinion. Every audit runs
//! in a process of its own, so that its memory is told apart from what making
//! the store took. The page cache is warm, and an audit has one thread.
//!
//! `taskset -c 0 cargo bench --bench audit --no-default-features --features
//! store`; `LEDGER_BENCH_BYTES` payload bytes per store (300 MB by default),
//! `LEDGER_BENCH_QUICK=1` for a thirtieth of it, `LEDGER_BENCH_CASE` for one store
//! of those in the table, `LEDGER_BENCH_KEEP=DIR` to keep the stores there and use
//! them again. Rates are by processor time, which neighbours do not change.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{directory, mb_per_s, median, memory_now_kib, options, processor_time, quick, signer};
use converge_ledger::entry::{ContextId, Draft, Metadata};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{AuditOptions, Store, StoreRole, audit_with, create, stats};

/// Tells the process that audits which store, and how.
const STORE: &str = "LEDGER_BENCH_AUDIT_STORE";
const PARANOID: &str = "LEDGER_BENCH_AUDIT_PARANOID";
/// Audits of one store, of which the middle one counts.
const ROUNDS: usize = 3;

struct Case {
    name: &'static str,
    payload_bytes: usize,
    contexts: u64,
    request_ids: bool,
}

const CASES: [Case; 5] = [
    Case {
        name: "150-bytes",
        payload_bytes: 150,
        contexts: 1,
        request_ids: false,
    },
    Case {
        name: "150-bytes-1000-contexts",
        payload_bytes: 150,
        contexts: 1_000,
        request_ids: false,
    },
    Case {
        name: "150-bytes-request-ids",
        payload_bytes: 150,
        contexts: 1,
        request_ids: true,
    },
    Case {
        name: "4-kib",
        payload_bytes: 4 << 10,
        contexts: 1,
        request_ids: false,
    },
    Case {
        name: "64-kib",
        payload_bytes: 64 << 10,
        contexts: 1,
        request_ids: false,
    },
];

/// Text that differs from entry to entry, of exactly this length.
fn payload(i: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("{{\"entry\":\"{i:012}\",\"text\":\"").into_bytes();
    let mut state = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_be_bytes().map(|byte| b'a' + byte % 26));
    }
    out.truncate(bytes);
    out
}

fn draft(case: &Case, i: u64) -> Draft {
    let pairs = [
        ("agent_id", format!("agent-{:02}", i % 64)),
        ("cycle", format!("{:07}", i / 64)),
    ];
    let draft = Draft::new("facts", payload(i, case.payload_bytes)).unwrap();
    let draft = draft.with_metadata(Metadata::from_pairs(pairs).unwrap());
    if case.request_ids {
        draft.with_request_id(format!("request-{i:012}")).unwrap()
    } else {
        draft
    }
}

fn fill(dir: &Path, case: &Case, bytes: u64) {
    let disk = RealDisk::new(dir);
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk), options(4 << 20), Some(signer())).unwrap();
    let ids: Vec<_> = (0..case.contexts)
        .map(|i| ContextId::new(&format!("context-{i}")).unwrap())
        .collect();
    let entries = bytes / case.payload_bytes as u64;
    // Requests of at most 8 MiB; neighbours share a context.
    let batch = (8 << 20) / (case.payload_bytes as u64 + 400);
    let batch = batch.clamp(1, 10_000);
    let each = (batch / case.contexts.min(batch)).max(1);
    for from in (0..entries).step_by(usize::try_from(batch).unwrap()) {
        let drafts = (from..entries.min(from + batch)).map(|i| {
            let context = usize::try_from(i / each % case.contexts).unwrap();
            (ids[context].clone(), draft(case, i))
        });
        opened.store.append(drafts.collect()).unwrap();
    }
    opened.store.close().unwrap();
}

/// In a process of its own: audits, and says nanoseconds on the processor and by
/// the clock, bytes of log, and by how many KiB memory grew at most.
fn audit_one(dir: PathBuf) {
    let disk = RealDisk::new(dir);
    let paranoid = std::env::var_os(PARANOID).is_some();
    let (before, _) = memory_now_kib();
    let (start, on_cpu) = (Instant::now(), processor_time());
    let report = audit_with(&disk, AuditOptions { paranoid }, &mut |_| ()).unwrap();
    let (wall, time) = (start.elapsed(), processor_time().saturating_sub(on_cpu));
    let (_, peak) = memory_now_kib();
    assert_eq!(report.first_bad, None);
    assert_eq!(report.second_roots.is_some(), paranoid);
    let index = format!("{:?}", report.index);
    assert!(index.starts_with("Matches"), "{index}");
    let (time, wall) = (time.as_nanos(), wall.as_nanos());
    println!("{time} {wall} {} {}", report.bytes, peak - before);
}

struct Figures {
    time: Duration,
    wall: Duration,
    log_bytes: u64,
    peak_kib: u64,
}

fn audit_apart(dir: &Path, paranoid: bool) -> Figures {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(STORE, dir);
    if paranoid {
        command.env(PARANOID, "1");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{:?}", output.stderr);
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    Figures {
        time: Duration::from_nanos(numbers[0]),
        wall: Duration::from_nanos(numbers[1]),
        log_bytes: numbers[2],
        peak_kib: numbers[3],
    }
}

fn main() {
    if let Some(dir) = std::env::var_os(STORE) {
        return audit_one(dir.into());
    }
    let bytes = match std::env::var("LEDGER_BENCH_BYTES") {
        Ok(bytes) => bytes.parse().unwrap(),
        Err(_) if quick() => 10_000_000,
        Err(_) => 300_000_000,
    };
    println!(
        "{:<24} {:>11} {:>8} {:>10} {:>10} {:>12} {:>9} {:>9}",
        "store",
        "payload MB",
        "opinions",
        "processor",
        "clock",
        "payload MB/s",
        "log MB/s",
        "peak MiB"
    );
    let kept = std::env::var_os("LEDGER_BENCH_KEEP").map(PathBuf::from);
    let only = std::env::var("LEDGER_BENCH_CASE").ok();
    for case in &CASES {
        if only.as_ref().is_some_and(|only| only != case.name) {
            continue;
        }
        let temporary = directory();
        let dir = match &kept {
            Some(kept) => kept.join(format!("{}-{bytes}", case.name)),
            None => temporary.path().join("store"),
        };
        if !dir.exists() {
            fill(&dir, case, bytes);
        }
        let disk: Arc<RealDisk> = Arc::new(RealDisk::new(&dir));
        let entries = stats(&(disk as _), None).unwrap().entries;
        let payload_bytes = entries * case.payload_bytes as u64;
        for paranoid in [false, true] {
            let (mut times, mut walls) = (Vec::new(), Vec::new());
            let (mut log_bytes, mut peak_kib) = (0, 0);
            for _ in 0..ROUNDS {
                let figures = audit_apart(&dir, paranoid);
                times.push(figures.time);
                walls.push(figures.wall);
                (log_bytes, peak_kib) = (figures.log_bytes, figures.peak_kib.max(peak_kib));
            }
            let (middle, wall) = (median(&mut times), median(&mut walls));
            println!(
                "{:<24} {:>11} {:>8} {middle:>10.1?} {wall:>10.1?} {:>12.0} {:>9.0} {:>9}",
                case.name,
                payload_bytes / 1_000_000,
                1 + u8::from(paranoid),
                mb_per_s(payload_bytes, middle),
                mb_per_s(log_bytes, middle),
                peak_kib.div_ceil(1024)
            );
        }
    }
}
