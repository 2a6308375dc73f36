//! Tests of the whole store over a disk in memory.

mod append;
mod crash;
mod damage;
mod evidence;
mod faults;
mod freezing;
mod guard;
mod index;
mod load;
mod mirror;
mod offline;
mod past;
mod prove;
mod recovery;
mod review;
mod rotation;
mod second;

use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::MemoryDisk;
use super::*;
use crate::entry::{ContextId, Draft, Entry};
use crate::note::{OriginName, SignerKey};

/// A clock that moves only when a test moves it.
#[derive(Debug)]
pub(super) struct ManualClock(AtomicU64);

impl ManualClock {
    fn at(ns: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(ns)))
    }

    fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn signer() -> SignerKey {
    SignerKey::from_seed(OriginName::new("test-origin").unwrap(), &[1; 32])
}

fn options(segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        segment_bytes,
        reserve_bytes: 0,
        ..StoreOptions::new(ManualClock::at(1_000))
    }
}

fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    disk
}

fn try_open(disk: &MemoryDisk, options: StoreOptions) -> Result<Opened, StoreError> {
    Store::open(Arc::new(disk.clone()), options, Some(signer()))
}

fn open(disk: &MemoryDisk) -> Store {
    try_open(disk, options(SEGMENT_BYTES_DEFAULT))
        .unwrap()
        .store
}

fn id(name: &str) -> ContextId {
    ContextId::new(name).unwrap()
}

fn draft(payload: &str) -> Draft {
    Draft::new("facts", payload).unwrap()
}

/// Appends one entry per payload to `context`, in one group.
fn put(store: &Store, context: &str, payloads: &[&str]) -> Vec<Appended> {
    let drafts = payloads.iter().map(|p| (id(context), draft(p))).collect();
    store.append(drafts).unwrap()
}

/// All entries of a context, read page by page.
fn entries(view: &View, context: &str) -> Vec<Entry> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = view
            .page(&id(context), after, &PageLimits::entries(3), None)
            .unwrap();
        all.extend(page.entries);
        match page.next_after {
            0 => return all,
            next => after = next,
        }
    }
}

fn payloads(view: &View, context: &str) -> Vec<String> {
    let text = |e: Entry| String::from_utf8(e.payload).unwrap();
    entries(view, context).into_iter().map(text).collect()
}

fn audit_clean(disk: &MemoryDisk) -> AuditReport {
    let report = audit(disk, &mut |_| ()).unwrap();
    assert_eq!(report.first_bad, None);
    let index = &report.index;
    assert!(!matches!(index, AuditedIndex::Differs { .. }), "{index:?}");
    report
}
