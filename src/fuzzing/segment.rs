//! Logs that no writer wrote: arbitrary bytes, a written log with bytes
//! exchanged, and records forged by someone who holds the segment's keys (they
//! are in its header), so that what is behind the checks is reached as well.
//!
//! The forger spells the layout of `spec/05-store.md` a second time, on
//! purpose: it must not share a mistake with the writer.

use std::sync::{Arc, LazyLock};

use super::{Input, options, signer};
use crate::entry::{ContextId, Draft, Entry};
use crate::hash;
use crate::store::disk::{Disk, MemoryDisk};
use crate::store::{PageLimits, Store, StoreError, StoreRole, View, audit, create};

/// The only segment.
pub(super) const SEGMENT: &str = "log/0000000001.seg";
const HEADER_BYTES: usize = 128;
const RECORD_BYTES: usize = 64;
/// Forged segments are no longer than this.
const FORGED_BYTES_MAX: usize = 1 << 20;

/// Opens, reads and audits a log made of the input: nothing panics, and
/// nothing is served that an audit would not vouch for.
pub fn segment_scan(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => {
            let disk = MemoryDisk::new();
            disk.set_bytes(SEGMENT, input.rest().to_vec());
            check(&disk);
        }
        1 => splice(&mut input),
        _ => {
            let disk = MemoryDisk::new();
            disk.set_bytes(SEGMENT, forge(&mut input));
            check(&disk);
        }
    }
}

/// A closed store with a history, and what it says.
struct Written {
    disk: MemoryDisk,
    contexts: Vec<(ContextId, Vec<Entry>)>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let disk = written();
    let view = Store::open_read_only(Arc::new(disk.clone())).unwrap();
    let contexts = read_all(&view).unwrap();
    Written { disk, contexts }
});

/// A closed store with runs, payloads, request ids and heads in one segment.
pub(super) fn written() -> MemoryDisk {
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk.clone()), options(1 << 20, 0), Some(signer()));
    let store = opened.unwrap().store;
    for i in 0..4usize {
        let draft = |n: usize| {
            let payload = vec![b'x'; n * 1400];
            let draft = Draft::new(format!("key-{n}"), payload).unwrap();
            draft.with_request_id(format!("request-{i}-{n}")).unwrap()
        };
        let id = |n: usize| ContextId::new(&format!("context-{}", n % 2)).unwrap();
        let drafts = (0..=i).map(|n| (id(n), draft(n)));
        store.append(drafts.collect()).unwrap();
        if i % 2 == 1 {
            store.publish().unwrap();
        }
    }
    store.close().unwrap();
    disk
}

/// Everything a view serves.
fn read_all(view: &View) -> Result<Vec<(ContextId, Vec<Entry>)>, StoreError> {
    let mut all = Vec::new();
    for context in view.contexts(None, usize::MAX)? {
        let (mut entries, mut after) = (Vec::new(), 0);
        loop {
            let page = view.page(&context.id, after, &PageLimits::default(), None)?;
            entries.extend(page.entries);
            match page.next_after {
                0 => break,
                next => after = next,
            }
        }
        assert_eq!(entries.len() as u64, context.size);
        all.push((context.id, entries));
    }
    Ok(all)
}

/// A written log with some of its bytes exchanged: whatever is still served is
/// what was written.
fn splice(input: &mut Input<'_>) {
    let truth = &*WRITTEN;
    let disk = truth.disk.fork();
    let without = input.byte();
    if without & 1 == 1 {
        // Without the note the end of the log is easier to lose.
        disk.remove("head.note").unwrap();
    }
    if without & 2 == 0 {
        // With an index most of the log is not read on opening.
        disk.remove("index.redb").unwrap();
    }
    let mut bytes = disk.bytes(SEGMENT).unwrap();
    input.mutate(&mut bytes);
    let changed = disk.bytes(SEGMENT).as_ref() != Some(&bytes);
    disk.set_bytes(SEGMENT, bytes);
    let (clean, view) = check(&disk);
    assert!(clean || changed);
    let Some(view) = view else {
        return;
    };
    for (id, entries) in read_all(&view).unwrap_or_default() {
        let written = truth.contexts.iter().find(|(known, _)| *known == id);
        let (_, written) = written.expect("a context that was never written");
        assert!(written.starts_with(&entries), "other entries in {id:?}");
    }
}

/// Opens and audits a disk. What an audit calls clean is served without an
/// error, goes on, and is clean afterwards. Returns whether it was clean, and
/// what serves it.
fn check(disk: &MemoryDisk) -> (bool, Option<View>) {
    let report = audit(disk, &mut |_| ()).ok();
    let clean = report.as_ref().is_some_and(|r| r.first_bad.is_none());
    let view = Store::open_read_only(Arc::new(disk.fork())).ok();
    // An index may vouch for an end of the log that is gone; an audit reads the
    // log alone.
    let vouched = disk.bytes("index.redb").is_some();
    assert!(
        view.is_some() || !clean || vouched,
        "clean, but it does not open"
    );
    if let Some(view) = &view {
        let read = read_all(view);
        let own = view.role() == StoreRole::Own;
        if let Some(report) = report.filter(|_| clean) {
            let entries: usize = read.unwrap().iter().map(|(_, e)| e.len()).sum();
            assert!(!own || entries as u64 == report.entries);
        }
    }
    let own = view.as_ref().is_none_or(|v| v.role() == StoreRole::Own);
    let writable = disk.fork();
    let signer = own.then(signer);
    if let Ok(opened) = Store::open(Arc::new(writable.clone()), options(4096, 0), signer) {
        let id = ContextId::new("context-0").unwrap();
        let draft = Draft::new("key", "later").unwrap();
        let appended = opened.store.append(vec![(id, draft)]);
        let closed = opened.store.close();
        if clean {
            assert_eq!(appended.is_ok(), own);
            closed.unwrap();
            let report = audit(&writable, &mut |_| ()).unwrap();
            assert_eq!(report.first_bad, None);
        } else if let Err(StoreError::Failed { reason }) = closed {
            assert_ne!(reason, "the writer panicked");
        }
    }
    (clean, view)
}

/// The keys and the running chain of a segment being forged.
struct Forger {
    check: [u8; 32],
    body: [u8; 32],
    chain_key: [u8; 32],
    chain: [u8; 16],
    bytes: Vec<u8>,
}

fn first<const N: usize>(hash: &hash::Hash) -> [u8; N] {
    hash.as_bytes()[..N].try_into().unwrap()
}

impl Forger {
    fn new() -> Self {
        let mut header = [0u8; HEADER_BYTES];
        header[..8].copy_from_slice(b"CLEDGSEG");
        header[8] = 1;
        header[12] = 1;
        let sum = hash::content(&header[..96]);
        header[96..].copy_from_slice(sum.as_bytes());
        let key = |name| hash::derive_key(name, &[0; 32]);
        let chain_key = key("converge-ledger v1 log-chain");
        Self {
            check: key("converge-ledger v1 log-check"),
            body: key("converge-ledger v1 log-body"),
            chain_key,
            chain: first(&hash::keyed_with(&chain_key, &header)),
            bytes: header.to_vec(),
        }
    }

    fn position(&self) -> u64 {
        1 << 32 | self.bytes.len() as u64
    }

    fn add(&mut self, kind: u8, flags: u8, index: u32, through: u64, body: &[u8]) {
        let position = self.position().to_le_bytes();
        let mut record = [0u8; RECORD_BYTES];
        record[..4].copy_from_slice(b"CLR1");
        (record[4], record[5]) = (kind, flags);
        record[8..12].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        record[12..16].copy_from_slice(&index.to_le_bytes());
        record[16..24].copy_from_slice(&through.to_le_bytes());
        let fields = record[..24].to_vec();
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(64), 0);
        let check = hash::keyed_with(&self.check, &[&position[..], &fields].concat());
        let tag = hash::keyed_with(&self.body, &[&position[..], &fields, &padded].concat());
        let tag: [u8; 16] = first(&tag);
        let linked = [&self.chain[..], &position, &fields, &tag].concat();
        self.chain = first(&hash::keyed_with(&self.chain_key, &linked));
        record[24..32].copy_from_slice(&first::<8>(&check));
        record[32..48].copy_from_slice(&tag);
        record[48..].copy_from_slice(&self.chain);
        self.bytes.extend_from_slice(&record);
        self.bytes.extend_from_slice(&padded);
    }
}

/// The flag of a forged record that keeps its index in the group; without it,
/// the index is one too high.
const GOOD_INDEX: u8 = 4;
/// The flag of a forged record that vouches for what is before its group.
const VOUCHES: u8 = 8;

/// A segment of records `(kind, flags, body length u16, body)`, with every
/// check, tag and chain as a writer would have made it.
fn forge(input: &mut Input<'_>) -> Vec<u8> {
    let mut forger = Forger::new();
    let (mut index, mut through) = (0u32, 0u64);
    while !input.is_empty() && forger.bytes.len() < FORGED_BYTES_MAX {
        let (kind, flags) = (input.byte(), input.byte());
        let len = usize::from(input.word());
        let body = input.take(len);
        if flags & 1 == 1 {
            index = 0;
            through = if flags & VOUCHES == 0 {
                0
            } else {
                forger.position()
            };
        }
        let stated = index + u32::from(flags & GOOD_INDEX == 0);
        forger.add(kind, flags & 3 | flags & 0xf0, stated, through, body);
        index += 1;
    }
    forger.bytes
}

/// The records of a written segment, as [`forge`] takes them.
#[cfg(test)]
pub(super) fn as_forged(segment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(record) = segment.get(at..at + RECORD_BYTES) {
        let len = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
        let body = &segment[at + RECORD_BYTES..][..len];
        out.extend([record[4], record[5] | GOOD_INDEX | VOUCHES]);
        out.extend(u16::try_from(len).unwrap().to_le_bytes());
        out.extend(body);
        at += RECORD_BYTES + len.next_multiple_of(64);
    }
    out
}
