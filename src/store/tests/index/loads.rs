//! The index and numbers that have no name: what it may lose, what may be told
//! wrongly, and what comes of it.

use super::lies::{key, put as put_row, rows};
use super::*;
use crate::ledger::{HistoryPart, ReadHistory as _};
use crate::limits::LAMPORT_LIMIT;
use crate::run::{Accumulator, Run, RunBuilder};
use crate::store::disk::{Fault, FaultKind};
use crate::store::index::rows::Table;
use crate::store::stats::IndexFound;
use crate::store::tests::load::{elsewhere, load, matches_log, part, push_all, same};

/// Loses the index, and keeps it from being made anew until the fault is gone.
fn lose(disk: &MemoryDisk, store: &Store) {
    let fault = Fault {
        kind: FaultKind::Write,
        after: 0,
        error: io::ErrorKind::Other,
    };
    disk.set_fault_in(INDEX, Some(fault));
    store.view().index().below.lose("on purpose");
    assert!(store.mailbox().wait_until(|| is_lost(store)));
}

#[test]
fn an_index_lost_in_mid_load_holds_it_up_and_no_more() {
    let (disk, history) = (new_disk(), elsewhere(300));
    let store = open_every(&disk, ALWAYS);
    let mut loader = store.loader(&id("new")).unwrap();
    put(&store, "other", &["before"]);
    while loader.size() < 150 {
        loader.push(part(&history, loader.size())).unwrap();
    }
    let mut given_up = store.loader(&id("never")).unwrap();
    given_up.push(part(&history, 0)).unwrap();
    settle(&store);
    for _ in 0..2 {
        let size = loader.size();
        lose(&disk, &store);
        let refused = loader.push(part(&history, size));
        assert!(
            matches!(refused, Err(LoadError::Store(StoreError::IndexLost { .. }))),
            "{refused:?}"
        );
        assert_eq!(loader.size(), size);
        disk.set_fault(None);
        wait_ready(&store);
        loader.push(part(&history, size)).unwrap();
        settle(&store);
    }
    push_all(&mut loader, &history);
    settle(&store);
    // The index goes right behind the name: then only the tails know of it, if
    // it was not folded before.
    loader.push(HistoryPart::default()).unwrap();
    assert_eq!(store.view().size(&id("new")).unwrap(), None);
    loader.finish(history.root()).unwrap();
    lose(&disk, &store);
    let shown = store.view().size(&id("new"));
    assert!(
        matches!(shown, Ok(Some(300)) | Err(StoreError::IndexLost { .. })),
        "{shown:?}"
    );
    disk.set_fault(None);
    wait_ready(&store);
    same(store.view(), "new", &history);
    assert_eq!(store.view().size(&id("never")).unwrap(), None);
    store.close().unwrap();
    drop((store, given_up));
    matches_log(&audit_clean(&disk));
    let opened = try_open(&disk, every(NEVER)).unwrap();
    assert_eq!(opened.index_discarded, None);
    same(opened.store.view(), "new", &history);
    assert_eq!(opened.store.view().totals(), (2, 301));
}

#[test]
fn an_index_from_before_the_name() {
    let (disk, history) = (new_disk(), elsewhere(40));
    let store = open_every(&disk, ALWAYS);
    let mut loader = store.loader(&id("new")).unwrap();
    let mut older = vec![disk.bytes(INDEX)];
    while loader.size() < history.size() {
        loader.push(part(&history, loader.size())).unwrap();
        settle(&store);
        older.push(disk.fork().bytes(INDEX));
    }
    loader.finish(history.root()).unwrap();
    put(&store, "new", &["next"]);
    store.close().unwrap();
    drop(store);
    for index in older {
        let disk = without_index(&disk);
        if let Some(index) = index {
            disk.set_bytes(INDEX, index);
        }
        assert_eq!(read_only(&disk).size(&id("new")).unwrap(), Some(41));
        let opened = try_open(&disk, every(NEVER)).unwrap();
        assert_eq!(opened.index_discarded, None);
        put(&opened.store, "new", &["and next"]);
        opened.store.close().unwrap();
        drop(opened);
        matches_log(&audit_clean(&disk));
    }
}

/// A row is changed when its number gets a name. The one from before must not
/// pass for the one of today: what is appended then would be written over what
/// is there.
#[test]
fn a_name_that_is_too_old_is_no_fault_of_the_log() {
    let (disk, history) = (new_disk(), elsewhere(40));
    let store = open_every(&disk, NEVER);
    let mut given_up = store.loader(&id("never")).unwrap();
    given_up.push(part(&history, 0)).unwrap();
    load(&store, "new", &history);
    store.close().unwrap();
    drop((store, given_up));
    let number = key(2, &[]);
    assert_eq!(rows(&disk, Table::ContextIds)[&number], b"new");
    // Behind what the index covers, with a head and without one.
    for with_head in [false, true] {
        let disk = disk.fork();
        let store = open_every(&disk, NEVER);
        put(&store, "new", &["one", "two"]);
        if with_head {
            store.publish().unwrap();
        }
        let lied = disk.fork();
        store.close().unwrap();
        put_row(&lied, Table::ContextIds, &number, Some(Vec::new()));
        assert_eq!(read_only(&lied).size(&id("new")).unwrap(), Some(42));
        let opened = try_open(&lied, every(NEVER)).unwrap();
        assert!(opened.index_discarded.is_some());
        let store = opened.store;
        assert_eq!(put(&store, "new", &["three"])[0].sequence, 43);
        assert_eq!(store.failure(), None);
        store.close().unwrap();
        drop(store);
        matches_log(&audit_clean(&lied));
    }
}

#[test]
fn what_has_no_name_and_is_too_old_is_no_fault_of_the_log() {
    let (disk, history) = (new_disk(), elsewhere(60));
    let store = open_every(&disk, ALWAYS);
    let mut loader = store.loader(&id("new")).unwrap();
    let mut states = Vec::new();
    for _ in 0..3 {
        loader.push(part(&history, loader.size())).unwrap();
        settle(&store);
        states.push(disk.fork());
    }
    let [first, second, third] = &states[..] else {
        unreachable!()
    };
    let number = key(1, &[]);
    // The index of the second state with a row of the first.
    let mixed = second.fork();
    let old = rows(first, Table::Accumulators)[&number].clone();
    put_row(&mixed, Table::Accumulators, &number, Some(old));
    let lied = without_index(third);
    lied.set_bytes(INDEX, mixed.bytes(INDEX).unwrap());
    assert_eq!(read_only(&lied).totals(), (0, 0));
    let disk: Arc<dyn Disk> = Arc::new(lied.clone());
    let found = stats(&disk, None).unwrap().index;
    assert!(matches!(found, IndexFound::Wanting { .. }), "{found:?}");
    let opened = try_open(&lied, every(NEVER)).unwrap();
    assert!(opened.index_discarded.is_some());
    opened.store.close().unwrap();
    drop(opened);
    matches_log(&audit_clean(&lied));
}

/// Runs of one entry each, and the root over them.
fn ones(entries: &[(u64, u64, Draft)]) -> (HistoryPart, Hash) {
    let (mut runs, mut after) = (Vec::new(), Accumulator::default());
    for (sequence, (lamport, at_ns, draft)) in (1..).zip(entries) {
        let (mut builder, mut run) = (RunBuilder::default(), Vec::new());
        let header = draft.header(sequence, *lamport, *at_ns);
        builder.push(&header, draft.payload()).unwrap();
        builder.finish_into(&mut run);
        let decoded = Run::decode(&run).unwrap();
        after.extend(&decoded, |_, _| (), |_, _| ()).unwrap();
        runs.push(run);
    }
    let payloads = Vec::new();
    (HistoryPart { runs, payloads }, after.root())
}

/// A history made by somebody else may have a request id twice. The first entry
/// that has it answers, wherever the index keeps the second.
#[test]
fn a_request_id_that_a_history_has_twice() {
    let asked = |payload: &str| draft(payload).with_request_id("asked").unwrap();
    let entries = [(1, 1, asked("first")), (2, 2, asked("second"))];
    let (mut all, root) = ones(&entries);
    let (one, first_root) = ones(&entries[..1]);
    all.runs.remove(0);
    let disk = new_disk();
    let store = open_every(&disk, NEVER);
    let mut loader = store.loader(&id("c")).unwrap();
    loader.push(one).unwrap();
    loader.finish(first_root).unwrap();
    store.close().unwrap();
    drop(store);
    let store = open_every(&disk, NEVER);
    let mut loader = store.loader(&id("c")).unwrap();
    loader.push(all).unwrap();
    assert_eq!(loader.finish(root).unwrap(), 2);
    let answers = |store: &Store| {
        let again = store.append(vec![(id("c"), asked("first"))]).unwrap();
        assert_eq!((again[0].sequence, again[0].stored_before), (1, true));
        let other = store.append(vec![(id("c"), asked("second"))]);
        assert!(matches!(other, Err(AppendError::RequestIdReused { .. })));
    };
    answers(&store);
    store.close().unwrap();
    drop(store);
    matches_log(&audit_clean(&disk));
    for disk in [&disk, &without_index(&disk)] {
        answers(&open_every(disk, NEVER));
    }
}

/// As far as times go, and many runs of one entry.
#[test]
fn a_history_at_the_end_of_time() {
    let entries: Vec<_> = (1..=2000)
        .rev()
        .map(|n| (LAMPORT_LIMIT - n, u64::MAX, draft("x")))
        .collect();
    let (all, root) = ones(&entries);
    let disk = new_disk();
    let store = open_every(&disk, ALWAYS);
    let mut loader = store.loader(&id("late")).unwrap();
    loader.push(all).unwrap();
    loader.finish(root).unwrap();
    let refused = store.append(vec![(id("late"), draft("later"))]);
    assert!(
        matches!(refused, Err(AppendError::Lamport(_))),
        "{refused:?}"
    );
    put(&store, "other", &["goes on"]);
    settle(&store);
    assert_eq!(store.view().totals(), (2, 2001));
    store.close().unwrap();
    drop(store);
    matches_log(&audit_clean(&disk));
    let store = open_every(&disk, NEVER);
    assert_eq!(
        store.view().context(&id("late")).unwrap().unwrap().root,
        root
    );
    // Pages in all sizes.
    for (entries, bytes) in [(usize::MAX, usize::MAX), (0, 0), (1, 1)] {
        let limits = PageLimits {
            entries,
            bytes,
            until: Some(std::time::Instant::now()),
        };
        let page = store.view().page(&id("late"), 1999, &limits, None).unwrap();
        assert_eq!((page.entries.len(), page.next_after), (1, 0));
        let page = store.view().page(&id("late"), 7, &limits, None).unwrap();
        assert_eq!((page.entries.len(), page.next_after), (1, 8));
        for after in [2000, u64::MAX] {
            let page = store
                .view()
                .page(&id("late"), after, &limits, None)
                .unwrap();
            assert_eq!((page.entries.len(), page.next_after), (0, 0));
        }
    }
}
