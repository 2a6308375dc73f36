//! A disk that fills up or fails. What each call does with each error is in
//! `cells`; here are mixtures of them.

mod cells;

use std::io;

use super::*;
use crate::store::disk::{Fault, FaultKind};

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

/// Folding needs a head of what is in the tail. While none can be written, every
/// attempt would use up an epoch: it is not repeated with every command.
#[test]
fn a_head_that_cannot_be_written_is_not_tried_with_every_command() {
    let disk = new_disk();
    let folding = StoreOptions {
        checkpoint_every: Duration::ZERO,
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, folding).unwrap().store;
    disk.set_fault_in(
        "log",
        Some(Fault {
            kind: FaultKind::Write,
            after: 1,
            error: io::ErrorKind::StorageFull,
        }),
    );
    put(&store, "a", &["stored, and its head is not"]);
    let refused = 200;
    for _ in 0..refused {
        let outcome = store.append(vec![(id("a"), draft("refused"))]);
        assert!(matches!(
            outcome,
            Err(AppendError::Store(StoreError::DiskFull))
        ));
    }
    // One for each append, and a head a second: room for a very slow machine.
    assert!(disk.faults_met() < refused + 100, "{}", disk.faults_met());
    disk.set_fault(None);
    let epoch = store.publish().unwrap().head().epoch;
    assert!(epoch < 100, "{epoch}");
    store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn a_tail_without_room_is_refused() {
    let none = StoreOptions {
        tail_bytes_max: 0,
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let refused = try_open(&new_disk(), none);
    assert!(matches!(refused, Err(StoreError::Refused(_))));
}
