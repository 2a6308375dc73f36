//! The table of `spec/05-store.md`, Errors: one test for each call and error.
//!
//! Every cell asserts what the caller hears, that reads go on and show exactly
//! what was acknowledged, what is left if the power fails at that moment,
//! whether the store goes on by itself once the disk works again, and what
//! opening it anew finds.

use super::*;
use crate::store::disk::{SimDisk, Survivors};

const FULL: io::ErrorKind = io::ErrorKind::StorageFull;
const BROKEN: io::ErrorKind = io::ErrorKind::Other;
/// Seeds of the images of a loss of power, for each kind of survivors.
const SEEDS: u64 = 6;
/// Enough groups for the reserve to be extended and for small segments to end.
const GROUPS: usize = 60;
const SEGMENT: &str = "log/0000000001.seg";
const SMALL_SEGMENTS: u64 = 4096;

/// What an append hears whose call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hears {
    Nothing,
    DiskFull,
    Failed,
}

/// Whether a group that was refused is there when the store is opened anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    Gone,
    /// Whole or not at all: nobody knows before.
    MayBeThere,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    call: FaultKind,
    error: io::ErrorKind,
    hears: Hears,
    refused: Refused,
}

fn check(call: FaultKind, error: io::ErrorKind, hears: Hears, refused: Refused) {
    let row = Cell {
        call,
        error,
        hears,
        refused,
    };
    row.check();
}

#[test]
fn write_enospc_refuses_the_group_and_clears() {
    check(FaultKind::Write, FULL, Hears::DiskFull, Refused::Gone);
}

#[test]
fn write_eio_stops_the_store() {
    check(FaultKind::Write, BROKEN, Hears::Failed, Refused::Gone);
}

#[test]
fn sync_enospc_stops_the_store() {
    check(FaultKind::Sync, FULL, Hears::Failed, Refused::MayBeThere);
}

#[test]
fn sync_eio_stops_the_store() {
    check(FaultKind::Sync, BROKEN, Hears::Failed, Refused::MayBeThere);
}

#[test]
fn extend_enospc_is_heard_by_nobody() {
    check(FaultKind::Extend, FULL, Hears::Nothing, Refused::Gone);
}

#[test]
fn extend_eio_stops_the_store() {
    check(FaultKind::Extend, BROKEN, Hears::Failed, Refused::Gone);
}

#[test]
fn rename_enospc_refuses_the_group_and_clears() {
    check(FaultKind::Rename, FULL, Hears::DiskFull, Refused::Gone);
}

#[test]
fn rename_eio_stops_the_store() {
    check(FaultKind::Rename, BROKEN, Hears::Failed, Refused::Gone);
}

#[test]
fn a_head_note_that_cannot_be_replaced_stays_behind() {
    for error in [FULL, BROKEN] {
        let disk = new_disk();
        let store = open(&disk);
        put(&store, "a", &["one"]);
        disk.set_fault(Some(fault(FaultKind::Rename, 0, error)));
        let head = store.publish().unwrap();
        assert_eq!(store.failure(), None);
        assert_eq!(disk.bytes("head.note"), None);
        let lost = open(&disk.after_power_loss());
        assert_eq!(lost.view().head(), Some(head.clone()));
        assert!(lost.publish().unwrap().order() > head.order());
        disk.set_fault(None);
        store.close().unwrap();
        let note = disk.bytes("head.note").unwrap();
        assert!(note.ends_with(&head.note_bytes()));
        audit_clean(&disk);
    }
}

/// A store at the moment at which its disk has failed.
struct Failed {
    disk: SimDisk,
    store: Store,
    options: StoreOptions,
    /// Payloads of context `a` that were acknowledged, and one that was not.
    acknowledged: Vec<String>,
    refused: Option<String>,
    told: crate::head::SignedHead,
}

impl Cell {
    fn check(self) {
        let mut failed = self.run_into_it();
        assert_eq!(
            failed.store.failure().is_some(),
            self.hears == Hears::Failed
        );
        failed.reads_go_on();
        failed.power_may_fail_now(self);
        failed.disk.live().set_fault(None);
        if self.hears == Hears::Failed {
            failed.stays_stopped();
        } else {
            failed.goes_on();
        }
        failed.opens_anew(self);
    }

    /// Appends until the fault is heard of, or for long enough.
    fn run_into_it(self) -> Failed {
        let disk = SimDisk::over(new_disk());
        let rolls = self.call == FaultKind::Rename;
        let options = StoreOptions {
            reserve_bytes: if self.call == FaultKind::Extend {
                8192
            } else {
                0
            },
            ..options(if rolls { SMALL_SEGMENTS } else { 1 << 20 })
        };
        let opened = Store::open(Arc::new(disk.clone()), options.clone(), Some(signer()));
        let store = opened.unwrap().store;
        let mut acknowledged = Vec::new();
        for i in 0..3 {
            acknowledged.push(format!("before {i}"));
            put(&store, "a", &[&acknowledged[i]]);
        }
        let told = store.publish().unwrap();
        let fault = fault(self.call, 0, self.error);
        disk.live().set_fault(Some(fault));
        let mut refused = None;
        let mut heard = Hears::Nothing;
        for i in 0..GROUPS {
            let payload = format!("{i} {}", "f".repeat(400));
            match store.append(vec![(id("a"), draft(&payload))]) {
                Ok(_) => acknowledged.push(payload),
                Err(error) => {
                    heard = match error {
                        AppendError::Store(StoreError::DiskFull) => Hears::DiskFull,
                        AppendError::Store(StoreError::Failed { .. }) => Hears::Failed,
                        error => panic!("{error}"),
                    };
                    refused = Some(payload);
                    break;
                }
            }
        }
        assert_eq!(heard, self.hears);
        if self.hears == Hears::Nothing {
            // The reserve is asked for by another thread, but long before this.
            let grown = disk.live().bytes(SEGMENT).unwrap();
            assert!(!grown.ends_with(&[0; 512]), "there is a reserve after all");
        }
        Failed {
            disk,
            store,
            options,
            acknowledged,
            refused,
            told,
        }
    }

    /// All that was acknowledged, and the rest as the table has it.
    fn check_found(self, failed: &Failed, found: &[String]) {
        let n = failed.acknowledged.len();
        assert!(found.len() >= n, "{self:?} lost what was acknowledged");
        assert_eq!(found[..n], failed.acknowledged);
        match (&found[n..], self.refused) {
            ([], _) => (),
            ([there], Refused::MayBeThere) => assert_eq!(Some(there), failed.refused.as_ref()),
            (more, _) => panic!("{self:?}: {more:?} were never acknowledged"),
        }
    }
}

impl Failed {
    fn reads_go_on(&self) {
        assert_eq!(payloads(self.store.view(), "a"), self.acknowledged);
        assert_eq!(self.store.view().head().as_ref(), Some(&self.told));
    }

    fn power_may_fail_now(&self, cell: Cell) {
        let mut replay = self.disk.replay();
        replay.advance(replay.len());
        for survivors in Survivors::ALL {
            for seed in 0..SEEDS {
                let image = replay.image(survivors, seed);
                audit_clean(&image);
                let store = try_open(&image, self.options.clone()).unwrap().store;
                cell.check_found(self, &payloads(store.view(), "a"));
                assert!(store.publish().unwrap().order() > self.told.order());
                store.close().unwrap();
                audit_clean(&image);
            }
        }
    }

    /// The disk works again; the store does not, until it is opened anew.
    fn stays_stopped(&mut self) {
        let failed = |error: &StoreError| matches!(error, StoreError::Failed { .. });
        let refused = self.store.append(vec![(id("a"), draft("later"))]);
        assert!(matches!(refused, Err(AppendError::Store(error)) if failed(&error)));
        assert!(failed(&self.store.publish().unwrap_err()));
        self.reads_go_on();
        assert!(self.disk.live().bytes("failed").is_some());
        assert!(failed(&self.store.close().unwrap_err()));
    }

    /// There is room again, and nobody has to do anything about it.
    fn goes_on(&mut self) {
        put(&self.store, "a", &["later"]);
        self.acknowledged.push("later".into());
        let head = self.store.publish().unwrap();
        assert!(head.order() > self.told.order());
        self.told = head;
        assert_eq!(self.store.failure(), None);
        assert!(self.disk.live().bytes("failed").is_none());
        self.reads_go_on();
        self.store.close().unwrap();
    }

    fn opens_anew(&self, cell: Cell) {
        let disk = self.disk.clone();
        let opened = Store::open(Arc::new(disk), self.options.clone(), Some(signer()));
        let store = opened.unwrap().store;
        assert!(self.disk.live().bytes("failed").is_none());
        let found = payloads(store.view(), "a");
        cell.check_found(self, &found);
        // What is shown now is durable, whatever the failed sync has lost.
        let lost = self.disk.image(self.disk.mark(), Survivors::None, 0);
        assert_eq!(payloads(open(&lost).view(), "a"), found);
        put(&store, "a", &["anew"]);
        assert!(store.publish().unwrap().order() > self.told.order());
        store.close().unwrap();
        assert_eq!(
            audit_clean(self.disk.live()).entries,
            found.len() as u64 + 1
        );
    }
}

#[test]
fn a_reserve_without_room_is_tried_again_after_256_groups() {
    let disk = new_disk();
    let with_reserve = StoreOptions {
        reserve_bytes: 8192,
        ..options(1 << 20)
    };
    let store = try_open(&disk, with_reserve).unwrap().store;
    disk.set_fault(Some(fault(FaultKind::Extend, 0, FULL)));
    // The reserve is asked for after 8 groups, from a thread of its own.
    let mut early = 0;
    while disk.faults_met() == 0 {
        put(&store, "a", &["early"]);
        early += 1;
    }
    // The next attempt is told by an error that is not passed over.
    disk.set_fault(Some(fault(FaultKind::Extend, 0, BROKEN)));
    // How late the writer hears of the first is the helper's pace.
    let later = (0..20_000).find(|_| store.append(vec![(id("a"), draft("late"))]).is_err());
    let groups = early + later.unwrap();
    assert!(groups >= 256, "{groups}");
    assert!(store.failure().is_some());
}
