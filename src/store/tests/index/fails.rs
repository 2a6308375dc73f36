//! The index fails while the store runs: what is in memory is served, what is
//! not is refused, nothing is lost, and the index is made anew.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Condvar, Mutex};

use super::model::Model;
use super::*;
use crate::store::disk::{Fault, FaultKind};

const KINDS: [FaultKind; 3] = [FaultKind::Write, FaultKind::Sync, FaultKind::Rename];
const ERRORS: [io::ErrorKind; 2] = [io::ErrorKind::StorageFull, io::ErrorKind::Other];

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

fn one(context: &str, payload: &str) -> Vec<(ContextId, Draft)> {
    vec![(id(context), draft(payload))]
}

fn with_request(context: &str, request: &str) -> Vec<(ContextId, Draft)> {
    let draft = draft("payload").with_request_id(request).unwrap();
    vec![(id(context), draft)]
}

fn is_lost_error<T: std::fmt::Debug>(outcome: &Result<T, AppendError>) -> bool {
    matches!(
        outcome,
        Err(AppendError::Store(StoreError::IndexLost { .. }))
    )
}

/// Appends on another thread, so that a wait without an end is found.
fn append_or_hang(
    store: &Store,
    drafts: Vec<(ContextId, Draft)>,
) -> Result<Vec<Appended>, AppendError> {
    let (answer, answers) = sync_channel(1);
    let store = store.clone();
    std::thread::spawn(move || answer.send(store.append(drafts)));
    match answers.recv_timeout(LONG) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            panic!("an append waits for ever")
        }
    }
}

/// After the disk works again everything is as if nothing had happened.
fn recovers(store: &Store, disk: &MemoryDisk, model: &mut Model) {
    disk.set_fault(None);
    settle(store);
    wait_ready(store);
    assert_eq!(store.failure(), None);
    model.compare(store.view(), true);
    model.ask_again(store);
    model.append(store, one("later", "goes on"));
    store.close().unwrap();
    audit_clean(disk);
    let opened = try_open(disk, every(ALWAYS)).unwrap();
    assert_eq!(opened.index_discarded, None);
    model.compare(opened.store.view(), true);
}

/// A store with an index on disk; `touched`, `other`, `asked` are in it.
fn with_base(options: StoreOptions) -> (MemoryDisk, Store, Model) {
    let disk = new_disk();
    let mut model = Model::default();
    let store = try_open(&disk, options).unwrap().store;
    for name in ["asked", "other", "touched"] {
        let drafts = (0..30).flat_map(|n| with_request(name, &format!("{name} {n}")));
        model.append(&store, drafts.collect());
    }
    settle(&store);
    (disk, store, model)
}

#[test]
fn what_needs_a_lost_index_is_refused_and_the_rest_goes_on() {
    // Folding into an index that has its name renames nothing.
    for (kind, error) in KINDS[..2].iter().flat_map(|k| ERRORS.map(|e| (*k, e))) {
        let (disk, store, mut model) = with_base(every(ALWAYS));
        let fault = Fault {
            kind,
            after: 0,
            error,
        };
        disk.set_fault_in(INDEX, Some(fault));
        model.append(&store, one("touched", "is in the tail"));
        let lost = store.mailbox().wait_until(|| is_lost(&store));
        assert!(lost, "{kind:?} {error:?}");
        model.append(&store, one("touched", "goes on"));
        let view = store.view();
        assert_eq!(view.size(&id("touched")).unwrap(), Some(32));
        let newest = view
            .page(&id("touched"), 30, &PageLimits::default(), None)
            .unwrap();
        assert_eq!(newest.entries.len(), 2);
        assert!(
            view.page(&id("touched"), 29, &PageLimits::default(), None)
                .is_err()
        );
        for refused in [
            one("other", "is not in the tail"),
            one("unknown", "may be in the index"),
            with_request("touched", "touched 1"),
            [one("touched", "x"), one("other", "y")].concat(),
        ] {
            let outcome = store.append(refused);
            assert!(is_lost_error(&outcome), "{kind:?}: {outcome:?}");
        }
        // An id that is surely not on disk needs no look there.
        model.append(&store, with_request("touched", "was never used"));
        let unknown = view.size(&id("other"));
        assert!(matches!(unknown, Err(StoreError::IndexLost { .. })));
        assert!(view.contexts(None, 10).is_err());
        assert_eq!(store.failure(), None);
        recovers(&store, &disk, &mut model);
    }
}

#[test]
fn a_store_that_never_had_an_index_needs_none() {
    for (kind, error) in KINDS.iter().flat_map(|k| ERRORS.map(|e| (*k, e))) {
        let disk = new_disk();
        let mut model = Model::default();
        let fault = Fault {
            kind,
            after: 0,
            error,
        };
        disk.set_fault_in(INDEX, Some(fault));
        let store = open_every(&disk, ALWAYS);
        for n in 0..20 {
            model.append(&store, with_request(&format!("c{}", n % 3), &n.to_string()));
            if n % 5 == 0 {
                model.compare(store.view(), false);
                model.ask_again(&store);
            }
        }
        recovers(&store, &disk, &mut model);
    }
}

#[test]
fn an_error_at_any_write_of_the_index_loses_nothing() {
    for (kind, error) in KINDS.iter().flat_map(|k| ERRORS.map(|e| (*k, e))) {
        let count = if kind == FaultKind::Rename { 2 } else { 24 };
        for after in 0..count {
            let (disk, store, mut model) = with_base(every(ALWAYS));
            let fault = Fault { kind, after, error };
            disk.set_fault_in(INDEX, Some(fault));
            for n in 0..6 {
                let context = ["touched", "other", "new"][n % 3];
                let drafts = with_request(context, &format!("r{n}"));
                match store.append(drafts.clone()) {
                    Ok(answers) => model.take(drafts, &answers),
                    Err(error) => assert!(is_lost_error::<()>(&Err(error))),
                }
            }
            let crashed = (disk.fork(), disk.after_power_loss());
            for disk in [crashed.0, crashed.1] {
                let opened = try_open(&disk, every(ALWAYS)).unwrap();
                settle(&opened.store);
                model.compare(opened.store.view(), true);
            }
            recovers(&store, &disk, &mut model);
        }
    }
}

#[test]
fn a_fold_that_fails_while_closing_is_made_up_for() {
    for kind in KINDS {
        let (disk, store, mut model) = with_base(every(ALWAYS));
        store.close().unwrap();
        let store = open_every(&disk, NEVER);
        model.append(&store, one("touched", "not folded"));
        let fault = Fault {
            kind,
            after: 0,
            error: io::ErrorKind::Other,
        };
        disk.set_fault_in(INDEX, Some(fault));
        store.close().unwrap();
        disk.set_fault(None);
        let store = open_every(&disk, NEVER);
        model.compare(store.view(), true);
    }
}

/// Holds calls while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

fn tight(checkpoint_every: Duration) -> StoreOptions {
    StoreOptions {
        tail_bytes_max: 40 << 10,
        ..every(checkpoint_every)
    }
}

#[test]
fn who_waits_for_a_full_tail_is_served_when_it_is_folded() {
    for checkpoint_every in [ALWAYS, NEVER] {
        let (disk, gate) = (new_disk(), Arc::new(Gate::default()));
        let held = gate.clone();
        let hooked = Hooked::new(&disk, move |call, name| {
            if call == Call::Sync && name.starts_with(INDEX) {
                held.pass();
            }
            Ok(())
        });
        let options = tight(checkpoint_every);
        let opened = Store::open(Arc::new(hooked), options, Some(signer()));
        let store = opened.unwrap().store;
        let mut model = Model::default();
        model.append(&store, one("a", "first"));
        gate.set(true);
        let mut refused = false;
        for n in 0..2000 {
            let drafts = with_request(&format!("c{}", n % 7), &n.to_string());
            let (answer, answers) = sync_channel(1);
            let done = Box::new(move |outcome| _ = answer.send(outcome));
            store.submit(drafts.clone(), false, done);
            match answers.recv().unwrap() {
                Ok(answers) => model.take(drafts, &answers),
                Err(AppendError::Store(StoreError::Behind)) => {
                    refused = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused);
        let waiting = {
            let store = store.clone();
            std::thread::spawn(move || store.append(one("waits", "for room")))
        };
        model.compare(store.view(), false);
        gate.set(false);
        let until = store.mailbox().wait_until(|| waiting.is_finished());
        assert!(until, "an append waits for ever");
        let answers = waiting.join().unwrap().unwrap();
        model.take(one("waits", "for room"), &answers);
        // And so on, many times over.
        for n in 0..600 {
            let drafts = with_request(&format!("d{}", n % 7), &n.to_string());
            let answers = append_or_hang(&store, drafts.clone()).unwrap();
            model.take(drafts, &answers);
        }
        model.compare(store.view(), false);
        store.close().unwrap();
        model.compare(open_every(&disk, NEVER).view(), true);
    }
}

#[test]
fn nobody_waits_for_an_index_that_cannot_be_made() {
    for had_one in [true, false] {
        for kind in [FaultKind::Write, FaultKind::Sync] {
            let disk = new_disk();
            let mut model = Model::default();
            let store = try_open(&disk, tight(ALWAYS)).unwrap().store;
            let fault = Fault {
                kind,
                after: 0,
                error: io::ErrorKind::Other,
            };
            if !had_one {
                disk.set_fault_in(INDEX, Some(fault));
            }
            model.append(&store, one("a", "first"));
            if had_one {
                settle(&store);
                disk.set_fault_in(INDEX, Some(fault));
                model.append(&store, one("a", "second"));
                let lost = store.mailbox().wait_until(|| is_lost(&store));
                assert!(lost);
            }
            let mut refused = false;
            for n in 0..2000 {
                let drafts = one("a", &format!("{n} {}", "x".repeat(50)));
                match append_or_hang(&store, drafts.clone()) {
                    Ok(answers) => model.take(drafts, &answers),
                    Err(AppendError::Store(StoreError::Behind)) => {
                        refused = true;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(refused);
            recovers(&store, &disk, &mut model);
        }
    }
}

#[test]
fn an_index_lost_while_a_head_is_written_does_not_stop_the_store() {
    let disk = new_disk();
    let armed = Arc::new(AtomicBool::new(false));
    let watched: Arc<Mutex<Option<Store>>> = Arc::default();
    let (trap, prey, files) = (armed.clone(), watched.clone(), disk.clone());
    let hooked = Hooked::new(&disk, move |call, name| {
        if call == Call::Sync && name.starts_with("log/") && trap.swap(false, Ordering::SeqCst) {
            let store = prey.lock().unwrap().take().unwrap();
            let fault = Fault {
                kind: FaultKind::Write,
                after: 0,
                error: io::ErrorKind::Other,
            };
            files.set_fault_in(INDEX, Some(fault));
            store.view().index().below.lose("on purpose");
            assert!(store.mailbox().wait_until(|| is_lost(&store)));
        }
        Ok(())
    });
    let open = |every: StoreOptions| Store::open(Arc::new(hooked.clone()), every, Some(signer()));
    let mut model = Model::default();
    let store = open(every(NEVER)).unwrap().store;
    for n in 0..40 {
        model.append(&store, one(&format!("c{n}"), "in the index"));
    }
    store.close().unwrap();
    let store = open(every(NEVER)).unwrap().store;
    model.append(&store, one("c3", "grows"));
    *watched.lock().unwrap() = Some(store.clone());
    armed.store(true, Ordering::SeqCst);
    let head = store.publish();
    assert_eq!(store.failure(), None);
    assert_eq!(head.unwrap().head().entries, 41);
    disk.set_fault(None);
    wait_ready(&store);
    model.compare(store.view(), true);
    store.close().unwrap();
    model.compare(open_every(&disk, NEVER).view(), true);
}

#[test]
fn a_store_that_failed_is_still_read() {
    let (disk, store, mut model) = with_base(every(ALWAYS));
    // More than is read when it is opened.
    for n in 0..400 {
        model.append(&store, one(&format!("one of many {n}"), "x"));
    }
    store.close().unwrap();
    let store = open_every(&disk, NEVER);
    let fault = Fault {
        kind: FaultKind::Sync,
        after: 0,
        error: io::ErrorKind::Other,
    };
    disk.set_fault_in("log/", Some(fault));
    let refused = store.append(one("touched", "fails"));
    assert!(refused.is_err() && store.failure().is_some());
    disk.set_fault(None);
    assert!(store.close().is_err());
    model.compare(store.view(), true);
    // A store that is opened in its place is not disturbed by its readers.
    let next = open_every(&disk, ALWAYS);
    let kept = next.view().size(&id("touched")).unwrap();
    for n in 0..20 {
        let context = format!("after it {n}");
        next.append(one(&context, "goes on")).unwrap();
    }
    settle(&next);
    drop(store);
    assert_eq!(next.view().totals().0, 423);
    next.close().unwrap();
    let opened = try_open(&disk, every(NEVER)).unwrap();
    assert_eq!(opened.index_discarded, None);
    assert_eq!(opened.store.view().size(&id("touched")).unwrap(), kept);
    assert_eq!(opened.store.view().contexts(None, 999).unwrap().len(), 423);
}
