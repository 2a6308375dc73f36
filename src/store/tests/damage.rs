//! Bytes that were durable and are now gone or changed: named, never cut,
//! never served.

use super::*;
use crate::store::disk::Disk;

fn segment(number: u32) -> String {
    format!("log/{number:010}.seg")
}

/// Several segments, two contexts, a large payload, closed cleanly.
fn store_with_history() -> MemoryDisk {
    let disk = new_disk();
    let store = try_open(&disk, options(4096)).unwrap().store;
    for i in 0..20 {
        put(
            &store,
            "alpha",
            &[&format!("alpha {i}"), &"a".repeat(i * 40)],
        );
        put(&store, "beta", &[&format!("beta {i}")]);
    }
    put(&store, "beta", &[&"big".repeat(3000)]);
    store.close().unwrap();
    disk
}

fn refuses(disk: &MemoryDisk) -> StoreError {
    let before = disk.fork();
    let error = try_open(disk, options(4096)).expect_err("damage must not open");
    assert!(error.is_verification_failure(), "{error}");
    for name in before.list("log").unwrap() {
        let name = format!("log/{name}");
        assert_eq!(
            before.bytes(&name),
            disk.bytes(&name),
            "damage is never cut"
        );
    }
    error
}

/// A copy of a disk whose index is gone, so that opening reads all of the log.
fn without_index(disk: &MemoryDisk) -> MemoryDisk {
    let copy = disk.fork();
    copy.remove("index.redb").unwrap();
    copy
}

fn first_bad(disk: &MemoryDisk) -> FirstBad {
    audit(disk, &mut |_| ())
        .unwrap()
        .first_bad
        .expect("an audit must find it")
}

#[test]
fn a_changed_payload_is_named_by_context_and_sequence() {
    let disk = store_with_history();
    let needle = b"beta 7";
    let (name, at) = (1..20)
        .find_map(|n| {
            let bytes = disk.bytes(&segment(n))?;
            let at = bytes.windows(needle.len()).position(|w| w == needle)?;
            Some((segment(n), at))
        })
        .unwrap();
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[at] ^= 0x01;
    disk.set_bytes(&name, bytes);
    let error = refuses(&without_index(&disk));
    assert!(matches!(error, StoreError::Damaged(_)));
    let bad = first_bad(&disk);
    assert_eq!(
        (bad.context.as_deref(), bad.sequence),
        (Some("beta"), Some(8))
    );
}

#[test]
fn any_flipped_bit_of_a_sealed_segment_is_refused_and_never_served() {
    let disk = store_with_history();
    let stored = ["alpha", "beta"].map(|name| entries(open(&disk.fork()).view(), name));
    let original = disk.bytes(&segment(2)).unwrap();
    // Every byte, one bit each; the bit moves along.
    for at in 0..original.len() {
        let copy = disk.fork();
        let mut bytes = original.clone();
        bytes[at] ^= 1 << (at % 8);
        copy.set_bytes(&segment(2), bytes);
        let error = try_open(&without_index(&copy), options(4096))
            .expect_err("a flipped bit must not open");
        assert!(error.is_verification_failure(), "byte {at}: {error}");
        if at % 5 == 0 {
            // With an index that covers it, it shows when it is read.
            assert_serves_only(&copy, &stored, at);
        }
    }
}

/// Opens a store in which something is damaged, if it opens: what it serves is
/// what was stored.
fn assert_serves_only(disk: &MemoryDisk, stored: &[Vec<Entry>; 2], at: usize) {
    let store = match try_open(disk, options(4096)) {
        Ok(opened) => opened.store,
        Err(error) => return assert!(error.is_verification_failure(), "byte {at}: {error}"),
    };
    for (name, stored) in ["alpha", "beta"].into_iter().zip(stored) {
        for (sequence, expected) in (1..).zip(stored) {
            match store.view().entry(&id(name), sequence) {
                Ok(found) => assert_eq!(found.as_ref(), Some(expected), "byte {at}"),
                Err(error) => assert!(error.is_verification_failure(), "byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn bytes_that_change_under_a_running_store_are_not_served() {
    let disk = store_with_history();
    let store = try_open(&disk, options(4096)).unwrap().store;
    let before = entries(store.view(), "alpha");
    let original = disk.bytes(&segment(2)).unwrap();
    for at in (0..original.len()).step_by(13) {
        let mut bytes = original.clone();
        bytes[at] ^= 0x80;
        // The same file, changed in place.
        disk.open(&segment(2), disk::Access::Write)
            .unwrap()
            .write_at(0, &bytes)
            .unwrap();
        let mut after = 0;
        while let Ok(page) = store
            .view()
            .page(&id("alpha"), after, &PageLimits::entries(1), None)
        {
            for entry in &page.entries {
                assert_eq!(
                    *entry,
                    before[usize::try_from(entry.sequence).unwrap() - 1],
                    "byte {at}"
                );
            }
            after = page.entries.last().map_or(u64::MAX, |e| e.sequence);
            if page.next_after == 0 {
                break;
            }
        }
    }
}

#[test]
fn missing_swapped_and_foreign_segments_are_refused() {
    let disk = store_with_history();
    let last = (1..99)
        .take_while(|n| disk.bytes(&segment(*n)).is_some())
        .last()
        .unwrap();
    assert!(last >= 4, "{last}");
    for gone in 1..=last {
        let copy = disk.fork();
        copy.remove(&segment(gone)).unwrap();
        refuses(&copy);
        assert!(
            copy.bytes("index.redb").is_some(),
            "it vouches for what is gone"
        );
        refuses(&without_index(&copy));
        if gone > 1 {
            let bad = first_bad(&copy);
            // The last segment holds no run that could show the gap.
            if gone < last - 1 {
                assert!(
                    bad.context.is_some() && bad.sequence.is_some(),
                    "segment {gone}: {bad:?}"
                );
            }
        }
    }
    let copy = disk.fork();
    copy.set_bytes(&segment(2), disk.bytes(&segment(3)).unwrap());
    copy.set_bytes(&segment(3), disk.bytes(&segment(2)).unwrap());
    refuses(&copy);
    // A segment of another store with the same keys and the same content.
    let other = store_with_history();
    for number in 1..=last {
        let copy = disk.fork();
        copy.set_bytes(&segment(number), other.bytes(&segment(number)).unwrap());
        refuses(&copy);
        first_bad(&copy);
    }
}

#[test]
fn a_log_that_lost_its_end_is_damage_down_to_the_last_head() {
    let disk = store_with_history();
    let last = (1..99)
        .take_while(|n| disk.bytes(&segment(*n)).is_some())
        .last()
        .unwrap();
    let bytes = disk.bytes(&segment(last)).unwrap();
    // Only the mark behind the last head can go unnoticed: it holds nothing.
    for len in 0..bytes.len() - 64 {
        let copy = disk.fork();
        copy.set_bytes(&segment(last), bytes[..len].to_vec());
        refuses(&copy);
    }
    let copy = disk.fork();
    copy.set_bytes(&segment(last), bytes[..bytes.len() - 64].to_vec());
    try_open(&copy, options(4096)).unwrap();
}

#[test]
fn an_older_copy_of_the_log_is_noticed() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    store.close().unwrap();
    let old = disk.fork();
    let store = open(&disk);
    put(&store, "a", &["two"]);
    store.close().unwrap();
    // Only the log is restored; head.note is newer.
    let mixed = disk.fork();
    mixed.set_bytes(&segment(1), old.bytes(&segment(1)).unwrap());
    refuses(&mixed);
    // head.note of another history at the same place.
    let other = old.fork();
    let store = open(&other);
    put(&store, "a", &["2wo"]);
    store.close().unwrap();
    let mixed = disk.fork();
    mixed.set_bytes("head.note", other.bytes("head.note").unwrap());
    let error = refuses(&mixed);
    assert!(error.to_string().contains("another history"), "{error}");
    let mixed = disk.fork();
    mixed.set_bytes("head.note", b"log 1".to_vec());
    refuses(&mixed);
}

#[test]
fn what_is_not_a_store_is_not_opened() {
    let disk = MemoryDisk::new();
    assert!(matches!(
        try_open(&disk, options(4096)),
        Err(StoreError::NotAStore)
    ));
    let disk = new_disk();
    assert!(matches!(
        create(&disk, StoreRole::Own, signer().verifier()),
        Err(StoreError::AlreadyAStore)
    ));
    let wrong = SignerKey::from_seed(OriginName::new("test-origin").unwrap(), &[2; 32]);
    let disk = Arc::new(disk);
    let opened = Store::open(disk.clone(), options(4096), Some(wrong));
    assert!(matches!(opened, Err(StoreError::WrongKey { .. })));
    assert!(matches!(
        Store::open(disk, options(4096), None),
        Err(StoreError::WrongKey { .. })
    ));
}

#[test]
fn a_future_version_is_named() {
    let disk = store_with_history();
    let mut bytes = disk.bytes(&segment(1)).unwrap();
    bytes[8] = 2;
    let check = crate::hash::content(&bytes[..96]);
    bytes[96..128].copy_from_slice(check.as_bytes());
    disk.set_bytes(&segment(1), bytes);
    let error = refuses(&disk).to_string();
    assert!(
        error.contains("version 2") && error.contains("reads version 1"),
        "{error}"
    );
}

#[test]
fn records_that_verify_but_break_a_rule_are_refused() {
    use crate::store::record::{Group, RecordType};
    use crate::store::scan::LogScan;

    let small = crate::hash::content(b"small");
    let payload = [&small.as_bytes()[..], b"small"].concat();
    for (kind, body) in [
        (RecordType::Mark, vec![1]),
        (RecordType::Payload, payload),
        (RecordType::Store, vec![1]),
        (RecordType::Note, vec![1]),
    ] {
        let disk = new_disk();
        let (group, end) = {
            let mut scan = LogScan::start(&disk, 1).unwrap().unwrap();
            while scan.next_group().unwrap().is_some() {}
            let mut group = Group::new();
            group.add(kind, |out| out.extend_from_slice(&body));
            let keys = &scan.segment().keys;
            let sealed = group.seal(keys, scan.end(), scan.end(), scan.chain());
            (sealed.unwrap().0, scan.end().offset() as usize)
        };
        let mut bytes = disk.bytes(&segment(1)).unwrap();
        bytes.truncate(end);
        bytes.extend_from_slice(&group);
        disk.set_bytes(&segment(1), bytes);
        refuses(&disk);
        first_bad(&disk);
    }
}
