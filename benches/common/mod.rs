//! What the benches share: entries of about 150 bytes, a directory that is
//! removed, a clock, medians, and the quick mode.

#![allow(dead_code)] // every bench uses another part of it

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use converge_ledger::entry::{ContextId, Draft, Metadata};
use converge_ledger::note::{OriginName, SignerKey};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Clock, Opened, Store, StoreOptions, StoreRole, create};

/// `LEDGER_BENCH_QUICK=1`: few rounds and small logs, to see that it runs.
pub(crate) fn quick() -> bool {
    std::env::var_os("LEDGER_BENCH_QUICK").is_some_and(|value| value != "0")
}

/// The wall clock.
#[derive(Debug)]
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    }
}

/// A directory below `LEDGER_BENCH_DIR`, or below `target/tmp`.
pub(crate) fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("LEDGER_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(base).unwrap()
}

/// The key of the benches' origin.
pub(crate) fn signer() -> SignerKey {
    SignerKey::from_seed(OriginName::new("bench").unwrap(), &[7; 32])
}

/// The store's defaults with another reserve.
pub(crate) fn options(reserve_bytes: u64) -> StoreOptions {
    StoreOptions {
        reserve_bytes,
        ..StoreOptions::new(Arc::new(WallClock))
    }
}

/// A new own store in `dir`.
pub(crate) fn new_store(dir: &tempfile::TempDir, reserve_bytes: u64) -> Store {
    let disk = RealDisk::new(dir.path());
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    open_store(dir, reserve_bytes).store
}

/// Opens the own store in `dir`.
pub(crate) fn open_store(dir: &tempfile::TempDir, reserve_bytes: u64) -> Opened {
    let disk = Arc::new(RealDisk::new(dir.path()));
    Store::open(disk, options(reserve_bytes), Some(signer())).unwrap()
}

const KEY: &str = "facts";

/// Payload and metadata of entry `i`, about 150 bytes with the key.
fn content(i: u64) -> (String, [(&'static str, String); 2]) {
    let payload = format!(
        "{{\"package\":\"package-{i:08}\",\"version\":\"1.{}.{}\",\"month\":\"2026-0{}\",\
         \"summary\":\"An entry as an engine writes it\"}}",
        i % 40,
        i % 17,
        1 + i % 9
    );
    let pairs = [
        ("agent_id", format!("agent-{:02}", i % 64)),
        ("cycle", format!("{:07}", i / 64)),
    ];
    (payload, pairs)
}

/// Entry `i`.
pub(crate) fn draft(i: u64) -> Draft {
    let (payload, pairs) = content(i);
    let metadata = Metadata::from_pairs(pairs).unwrap();
    Draft::new(KEY, payload).unwrap().with_metadata(metadata)
}

/// Entries `from..from + count` for one context.
pub(crate) fn batch(context: &ContextId, from: u64, count: u64) -> Vec<(ContextId, Draft)> {
    (from..from + count)
        .map(|i| (context.clone(), draft(i)))
        .collect()
}

/// The same payload, key and metadata bytes, one after the other.
pub(crate) fn plain_bytes(from: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in from..from + count {
        let (payload, pairs) = content(i);
        out.extend_from_slice(payload.as_bytes());
        out.extend_from_slice(KEY.as_bytes());
        for (key, value) in pairs {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
    out
}

/// The middle of some durations.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Megabytes (10^6) per second.
#[allow(clippy::cast_precision_loss)] // figures for people
pub(crate) fn mb_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// The most memory this process has held, in MiB, as Linux says.
pub(crate) fn peak_memory_mib() -> u64 {
    memory_now_kib().1 / 1024
}

/// The memory this process holds, and the most it has held, in KiB.
pub(crate) fn memory_now_kib() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0)
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

/// How long this thread has run, as Linux says: unlike the clock, it does not go
/// on while others have the processor.
pub(crate) fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or(0))
}
