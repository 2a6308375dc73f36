//! What a crash can leave, and what opening makes of it.

use proptest::prelude::*;

use super::*;
use crate::store::disk::{Disk, Fault, FaultKind};

const SEGMENT: &str = "log/0000000001.seg";
const HEADER_END: usize = 128;

/// A store that acknowledged `acked` and then wrote one more group of which
/// nobody was told; returns the log before and after it.
fn with_last_group() -> (MemoryDisk, Vec<u8>, Vec<u8>) {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one", "two"]);
    let before = disk.bytes(SEGMENT).unwrap();
    put(&store, "a", &["three", "four"]);
    put(&store, "b", &["five"]);
    let after = disk.bytes(SEGMENT).unwrap();
    // A crash: the store is never closed. Its files are a copy.
    let crashed = disk.fork();
    store.close().unwrap();
    crashed.set_bytes(SEGMENT, before.clone());
    (crashed, before, after)
}

fn with_segment(disk: &MemoryDisk, bytes: Vec<u8>) -> MemoryDisk {
    let copy = disk.fork();
    copy.set_bytes(SEGMENT, bytes);
    copy
}

/// The groups of a segment: where each starts.
fn group_starts(bytes: &[u8]) -> Vec<usize> {
    (HEADER_END..bytes.len())
        .step_by(64)
        .filter(|&at| bytes[at..].starts_with(b"CLR1") && bytes[at + 5] & 1 == 1)
        .collect()
}

#[test]
fn a_log_cut_at_any_byte_opens_with_whole_groups_only() {
    let (disk, before, after) = with_last_group();
    let starts = group_starts(&after);
    for cut in before.len()..=after.len() {
        let disk = with_segment(&disk, after[..cut].to_vec());
        let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
        let read = payloads(opened.store.view(), "a");
        let whole = starts
            .iter()
            .filter(|s| **s > before.len() && cut >= **s)
            .count();
        let complete = if cut == after.len() { whole + 1 } else { whole };
        let expected: &[&str] = if complete >= 1 {
            &["one", "two", "three", "four"]
        } else {
            &["one", "two"]
        };
        assert_eq!(read, expected, "cut at {cut}");
        // And goes on.
        put(&opened.store, "a", &["later"]);
        opened.store.close().unwrap();
        assert_eq!(payloads(open(&disk).view(), "a").last().unwrap(), "later");
        audit_clean(&disk);
    }
}

#[test]
fn a_torn_tail_is_kept_in_cut_and_an_epoch_is_skipped() {
    let (disk, _, after) = with_last_group();
    // Epoch 1 was signed and durable before the crash.
    let store = open(&disk);
    store.close().unwrap();
    let mut log = disk.bytes(SEGMENT).unwrap();
    let end = log.len();
    log.extend_from_slice(&after[after.len() - 192..]);
    let torn = with_segment(&disk, log);
    let opened = try_open(&torn, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    // Counted up to the last byte that is not zero.
    let torn_bytes = after.iter().rposition(|&b| b != 0).unwrap() + 1 - (after.len() - 192);
    assert_eq!(opened.torn_bytes, torn_bytes as u64);
    let copy = torn
        .bytes(&format!("cut/0000000001-{end:010}.bin"))
        .unwrap();
    assert_eq!(copy, &after[after.len() - 192..][..torn_bytes]);
    put(&opened.store, "a", &["x"]);
    // Epoch 2 may have been signed in what was cut; 3 is made durable at once.
    assert_eq!(opened.store.publish().unwrap().head().epoch, 4);
}

#[test]
fn a_torn_group_in_every_sector_pattern_is_all_or_nothing() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    let before = disk.bytes(SEGMENT).unwrap();
    let long = "t".repeat(3000);
    put(&store, "a", &[&long, "two"]);
    let after = disk.bytes(SEGMENT).unwrap();
    let crashed = disk.fork();
    store.close().unwrap();
    let first = before.len() / 512;
    let sectors = after.len().div_ceil(512) - first;
    assert!((6..=9).contains(&sectors), "{sectors}");
    for kept in 0..1u32 << sectors {
        // Bit i: sector i reached the disk; otherwise it has its old bytes or
        // the zeros of the reserve.
        let mut bytes = after.clone();
        for sector in 0..sectors {
            if kept & 1 << sector == 0 {
                let at = (first + sector) * 512;
                for (i, byte) in bytes.iter_mut().enumerate().skip(at).take(512) {
                    *byte = before.get(i).copied().unwrap_or(0);
                }
            }
        }
        let whole = bytes == after;
        let disk = with_segment(&crashed, bytes);
        let store = open(&disk);
        let expected: &[&str] = if whole {
            &["one", &long, "two"]
        } else {
            &["one"]
        };
        assert_eq!(payloads(store.view(), "a"), expected, "pattern {kept:b}");
        store.close().unwrap();
        audit_clean(&disk);
    }
}

#[test]
fn bytes_of_a_cut_group_never_come_back() {
    let (disk, before, after) = with_last_group();
    let starts = group_starts(&after);
    let last = *starts.last().unwrap();
    // The group before the last is torn, the last one is whole: it must not be
    // taken for the continuation, neither now nor after new appends.
    let mut torn = after.clone();
    torn[before.len() + 70] ^= 1;
    let disk = with_segment(&disk, torn);
    // Nothing vouches for the torn group's end but the group after it, which
    // was written only because the torn one had been durable: damage.
    let error = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap_err();
    assert!(
        matches!(&error, StoreError::Damaged(d) if d.position.offset() as usize == before.len())
    );
    // If the torn group was the last, it goes, and what is written later at the
    // same place does not make its remains valid.
    let mut stale = before.clone();
    stale.extend_from_slice(&after[last..]);
    let disk = with_segment(&disk, stale);
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(opened.torn_bytes > 0);
    assert_eq!(payloads(opened.store.view(), "a"), ["one", "two"]);
    assert_eq!(opened.store.view().size(&id("b")).unwrap(), None);
    opened.store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn unvouched_groups_are_written_again_before_they_are_shown() {
    let (disk, _, after) = with_last_group();
    let disk = with_segment(&disk, after);
    let opened = try_open(&disk, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert!(opened.rewritten_bytes > 0);
    // They are durable now: a loss of power right after opening keeps them.
    let after_loss = disk.after_power_loss();
    drop(opened);
    assert_eq!(payloads(open(&after_loss).view(), "a").len(), 4);
    // And the second open has nothing to do.
    let again = try_open(&after_loss, options(SEGMENT_BYTES_DEFAULT)).unwrap();
    assert_eq!(again.rewritten_bytes, 0);
}

#[test]
fn a_power_loss_at_any_moment_keeps_what_was_acknowledged() {
    let disk = new_disk();
    let store = try_open(&disk, options(4096)).unwrap().store;
    for i in 0..60 {
        put(&store, "a", &[&format!("entry {i}"), &"f".repeat(i * 10)]);
        if i % 7 == 0 {
            store.publish().unwrap();
        }
        let lost = disk.after_power_loss();
        let reopened = try_open(&lost, options(4096)).unwrap().store;
        assert_eq!(
            reopened.view().size(&id("a")).unwrap(),
            Some(2 * (i as u64 + 1))
        );
        reopened.close().unwrap();
        audit_clean(&lost);
    }
}

#[test]
fn rolling_survives_a_stop_at_every_step() {
    let disk = new_disk();
    let store = try_open(&disk, options(4096)).unwrap().store;
    let filler = "f".repeat(1500);
    put(&store, "a", &[&filler]);
    put(&store, "a", &[&filler]);
    let open_segment = disk.fork();
    put(&store, "a", &[&filler]);
    assert!(disk.bytes("log/0000000002.seg").is_some());
    let rolled = disk.fork();
    store.close().unwrap();
    let check = |disk: &MemoryDisk, size: u64| {
        let store = try_open(disk, options(4096)).unwrap().store;
        assert_eq!(store.view().size(&id("a")).unwrap(), Some(size));
        put(&store, "a", &[&filler, "x"]);
        store.close().unwrap();
        assert_eq!(audit_clean(disk).entries, size + 2);
    };
    // Before the seal.
    check(&open_segment, 2);
    // A seal, but no next segment.
    let sealed = rolled.fork();
    sealed.remove("log/0000000002.seg").unwrap();
    check(&sealed.fork(), 2);
    // The next segment under its temporary name, whole or half.
    for len in [0, 64, 128] {
        let half = sealed.fork();
        let bytes = rolled.bytes("log/0000000002.seg").unwrap();
        half.set_bytes("log/0000000002.seg.new", bytes[..len].to_vec());
        check(&half, 2);
        assert!(half.bytes("log/0000000002.seg.new").is_none());
    }
    // The next segment without a record.
    let empty = rolled.fork();
    let bytes = rolled.bytes("log/0000000002.seg").unwrap();
    empty.set_bytes("log/0000000002.seg", bytes[..128].to_vec());
    check(&empty, 2);
    check(&rolled, 3);
}

#[test]
fn the_reserve_is_invisible() {
    let disk = new_disk();
    let options = StoreOptions {
        reserve_bytes: 64 << 10,
        ..options(1 << 20)
    };
    let store = try_open(&disk, options.clone()).unwrap().store;
    for i in 0..200 {
        put(&store, "a", &[&format!("{i}"), &"r".repeat(i * 7 % 900)]);
    }
    // A crash leaves zeros ahead of the end.
    let crashed = disk.fork();
    store.close().unwrap();
    let opened = try_open(&crashed, options).unwrap();
    assert_eq!(opened.torn_bytes, 0);
    assert_eq!(payloads(opened.store.view(), "a").len(), 400);
    opened.store.close().unwrap();
    audit_clean(&crashed);
    audit_clean(&disk);
    // Closing gives the reserve back.
    assert!(disk.bytes(SEGMENT).unwrap().ends_with(&[0; 0]));
    assert_eq!(
        disk.bytes(SEGMENT).unwrap().len() as u64,
        audit(&disk, &mut |_| ()).unwrap().bytes
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A crash at a random byte of a random history, then another one.
    #[test]
    fn two_crashes_lose_no_acknowledged_entry(
        sizes in prop::collection::vec(0usize..900, 2..25),
        cut in any::<prop::sample::Index>(),
        cut_again in any::<prop::sample::Index>(),
    ) {
        let disk = new_disk();
        let store = open(&disk);
        // (length of the log, entries) after each acknowledgement
        let mut acked = vec![(disk.bytes(SEGMENT).unwrap().len(), 0usize)];
        for size in &sizes {
            put(&store, "a", &[&"p".repeat(*size)]);
            acked.push((disk.bytes(SEGMENT).unwrap().len(), acked.len()));
        }
        let full = disk.bytes(SEGMENT).unwrap();
        let crashed = disk.fork();
        store.close().unwrap();
        // The crash hits the last group only: everything before was synced.
        let last = acked[acked.len() - 2].0;
        let at = last + cut.index(full.len() - last + 1);
        crashed.set_bytes(SEGMENT, full[..at].to_vec());
        let store = open(&crashed);
        let kept = payloads(store.view(), "a").len();
        prop_assert!(kept >= sizes.len() - 1);
        // Whatever opening wrote by itself is durable and behind us.
        store.publish().unwrap();
        let before = crashed.bytes(SEGMENT).unwrap().len();
        put(&store, "a", &["again"]);
        let full = crashed.bytes(SEGMENT).unwrap();
        let twice = crashed.fork();
        store.close().unwrap();
        let at = before + cut_again.index(full.len() - before + 1);
        twice.set_bytes(SEGMENT, full[..at].to_vec());
        let store = open(&twice);
        prop_assert!(payloads(store.view(), "a").len() >= kept);
        store.close().unwrap();
        audit_clean(&twice);
    }
}

/// A process that dies after writing a head and before syncing it leaves it in
/// the page cache. The next one reads it there; an index that covered it, and
/// became durable before the head did, would make an honest loss of power look
/// like damage.
#[test]
fn no_index_covers_what_only_the_page_cache_has() {
    let disk = new_disk();
    let store = open(&disk);
    for i in 0..40 {
        put(&store, &format!("context {i}"), &["payload"]);
    }
    let name = "log/0000000001.seg";
    let durable = disk.bytes(name).unwrap();
    store.publish().unwrap();
    let written = disk.bytes(name).unwrap();
    drop(store);
    let folding = StoreOptions {
        tail_bytes_max: 4 << 10,
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    for after in 0..40 {
        let copy = disk.fork();
        for gone in ["head.note", "index.redb"] {
            _ = copy.remove(gone);
        }
        copy.set_bytes(name, durable.clone());
        let file = copy.open(name, disk::Access::Write).unwrap();
        file.write_at(0, &written).unwrap();
        copy.set_fault(Some(Fault {
            kind: FaultKind::Sync,
            after,
            error: io::ErrorKind::Other,
        }));
        drop(try_open(&copy, folding.clone()));
        let lost = copy.after_power_loss();
        let store = try_open(&lost, folding.clone()).expect("honest").store;
        assert_eq!(store.view().totals().1, 40, "after {after} syncs");
    }
}
