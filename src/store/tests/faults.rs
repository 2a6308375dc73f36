//! A disk that fills up or fails.

use std::io;

use super::*;
use crate::store::disk::{Disk, Fault, FaultKind};

fn fault(kind: FaultKind, after: u64, error: io::ErrorKind) -> Fault {
    Fault { kind, after, error }
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    let room = disk.used_bytes() + 3000;
    disk.set_capacity(Some(room));
    let big = "x".repeat(3500);
    for _ in 0..3 {
        let refused = store.append(vec![(id("a"), draft(&big))]);
        assert!(matches!(
            refused,
            Err(AppendError::Store(StoreError::DiskFull))
        ));
        assert!(
            disk.used_bytes() <= room - 2000,
            "what was written in vain is given back"
        );
    }
    // Small entries still fit; reads go on.
    put(&store, "a", &["two"]);
    assert_eq!(payloads(store.view(), "a"), ["one", "two"]);
    disk.set_capacity(None);
    put(&store, "a", &[&big]);
    assert_eq!(store.failure(), None);
    store.close().unwrap();
    assert_eq!(audit_clean(&disk).entries, 3);
}

#[test]
fn a_disk_that_is_full_when_a_segment_ends_recovers_too() {
    let disk = new_disk();
    let store = try_open(&disk, options(4096)).unwrap().store;
    let filler = "f".repeat(1500);
    let mut stored = 0;
    // At every possible amount of room, through several rolls.
    for room in (0..6000).step_by(190) {
        disk.set_capacity(Some(disk.used_bytes() + room));
        let outcome = store.append(vec![(id("a"), draft(&filler))]);
        match outcome {
            Ok(_) => stored += 1,
            Err(AppendError::Store(StoreError::DiskFull)) => (),
            Err(error) => panic!("{error}"),
        }
        disk.set_capacity(None);
    }
    assert!(stored > 10, "{stored}");
    assert_eq!(store.view().size(&id("a")).unwrap(), Some(stored));
    store.close().unwrap();
    assert_eq!(audit_clean(&disk).entries, stored);
    assert_eq!(open(&disk).view().size(&id("a")).unwrap(), Some(stored));
}

#[test]
fn a_failed_sync_stops_every_acknowledgement() {
    for kind in [FaultKind::Sync, FaultKind::Write] {
        let disk = new_disk();
        let store = open(&disk);
        put(&store, "a", &["one"]);
        disk.set_fault(Some(fault(kind, 0, io::ErrorKind::Other)));
        let refused = store.append(vec![(id("a"), draft("two"))]);
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Failed { .. }))),
            "{kind:?}"
        );
        disk.set_fault(None);
        // The disk works again; the store does not, until it is opened anew.
        let refused = store.append(vec![(id("a"), draft("three"))]);
        assert!(
            matches!(refused, Err(AppendError::Store(StoreError::Failed { .. }))),
            "{kind:?}"
        );
        assert!(store.failure().is_some());
        assert_eq!(payloads(store.view(), "a"), ["one"], "verified reads go on");
        assert!(store.publish().is_err());
        assert!(disk.open("failed", disk::Access::Read).is_ok());
        assert!(store.close().is_err());
        drop(store);
        let store = open(&disk);
        let kept = payloads(store.view(), "a");
        assert!(kept == ["one"] || kept == ["one", "two"], "{kept:?}");
        put(&store, "a", &["four"]);
        assert!(disk.open("failed", disk::Access::Read).is_err());
        store.close().unwrap();
        audit_clean(&disk);
    }
}

#[test]
fn an_error_at_any_write_or_sync_loses_nothing_acknowledged() {
    for kind in [FaultKind::Sync, FaultKind::Write, FaultKind::Rename] {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for after in 0..40 {
                let disk = new_disk();
                let opened = try_open(&disk, options(4096)).unwrap();
                disk.set_fault(Some(fault(kind, after, error)));
                let mut acked = 0;
                for i in 0..12 {
                    let text = format!("{i} {}", "t".repeat(i * 90));
                    if opened.store.append(vec![(id("a"), draft(&text))]).is_ok() {
                        acked += 1;
                    }
                    if i % 4 == 3 {
                        let _ = opened.store.publish();
                    }
                }
                let head = opened.store.view().head();
                let _ = opened.store.close();
                drop(opened);
                // Both what reads see and what was durable must hold all that
                // was acknowledged.
                for disk in [disk.fork(), disk.after_power_loss()] {
                    let what = format!("{kind:?} {error:?} after {after}");
                    let store = try_open(&disk, options(4096)).expect(&what).store;
                    let kept = store.view().size(&id("a")).unwrap().unwrap_or(0);
                    assert!(kept >= acked, "{what}: {kept} of {acked}");
                    let told = head.as_ref().map_or(0, |h| h.head().epoch);
                    put(&store, "a", &["later"]);
                    assert!(store.publish().unwrap().head().epoch > told, "{what}");
                    store.close().unwrap();
                    audit_clean(&disk);
                }
            }
        }
    }
}

#[test]
fn a_failing_reserve_is_a_failing_store_and_a_full_one_is_not() {
    for (kind, error, fails) in [
        (FaultKind::Extend, io::ErrorKind::Other, true),
        (FaultKind::Extend, io::ErrorKind::StorageFull, false),
    ] {
        let disk = new_disk();
        let with_reserve = StoreOptions {
            reserve_bytes: 8192,
            ..options(1 << 20)
        };
        let store = try_open(&disk, with_reserve).unwrap().store;
        disk.set_fault(Some(fault(kind, 1, error)));
        let mut acked = 0;
        for i in 0..200 {
            if store
                .append(vec![(id("a"), draft(&format!("{i:0200}")))])
                .is_err()
            {
                break;
            }
            acked += 1;
        }
        assert_eq!(store.failure().is_some(), fails);
        assert_eq!(acked < 200, fails);
        disk.set_fault(None);
        let _ = store.close();
        let store = open(&disk);
        assert!(store.view().size(&id("a")).unwrap().unwrap() >= acked);
        store.close().unwrap();
        audit_clean(&disk);
    }
}

#[test]
fn only_one_process_writes() {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one"]);
    let second = try_open(&disk, options(4096));
    assert!(matches!(second, Err(StoreError::Locked)));
    let reader = Store::open_read_only(Arc::new(disk.clone())).unwrap();
    assert_eq!(payloads(&reader, "a"), ["one"]);
    store.close().unwrap();
    open(&disk);
}

#[test]
fn readers_beside_a_writer_never_see_damage() {
    let disk = new_disk();
    let store = try_open(&disk, options(16 << 10)).unwrap().store;
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            for n in 0..400 {
                put(&store, "a", &[&"w".repeat(n * 37 % 900)]);
            }
        })
    };
    // At least one round, and as many as the writer leaves time for.
    let mut rounds = 0;
    while rounds == 0 || !writer.is_finished() {
        audit_clean(&disk);
        Store::open_read_only(Arc::new(disk.clone())).unwrap();
        rounds += 1;
    }
    writer.join().unwrap();
    store.close().unwrap();
    assert_eq!(audit_clean(&disk).entries, 400);
}
