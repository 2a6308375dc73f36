//! Loading a history from elsewhere: what shows, when, and what never does.

use super::*;
use crate::ledger::{HistoryPart, ReadHistory};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::run::{CheckedPayload, Run};

/// A context of some other store: entries in runs of one to seven, request ids,
/// payloads inside and outside of their runs.
pub(super) fn elsewhere(entries: usize) -> History {
    let store = open(&new_disk());
    let mut n = 0;
    while n < entries {
        let count = (1 + n % 7).min(entries - n);
        let drafts = (n..n + count).map(|n| {
            let len = if n % 9 == 4 {
                PAYLOAD_INLINE_BYTES_MAX + 1 + n % 2
            } else {
                n % 50
            };
            let draft = Draft::new("key", vec![b'e'; len]).unwrap();
            (id("there"), draft.with_request_id(format!("r{n}")).unwrap())
        });
        store.append(drafts.collect()).unwrap();
        n += count;
    }
    let history = store.view().history(&id("there")).unwrap().unwrap();
    store.close().unwrap();
    history
}

/// The next run behind `after`, with the payloads it needs.
pub(super) fn part(history: &History, after: u64) -> HistoryPart {
    let runs = history.runs(after, 1).unwrap();
    let mut payloads = Vec::new();
    for run in &runs {
        for entry in Run::decode(run).unwrap().entries() {
            let entry = entry.unwrap();
            if entry.inline_payload.is_none() {
                let bytes = history.outside_payload(&entry.header.payload_hash).unwrap();
                payloads.push(CheckedPayload::new(bytes).unwrap());
            }
        }
    }
    HistoryPart { runs, payloads }
}

#[track_caller]
pub(super) fn matches_log(report: &AuditReport) {
    let index = &report.index;
    assert!(matches!(index, AuditedIndex::Matches { .. }), "{index:?}");
}

pub(super) fn push_all(loader: &mut Loader, history: &History) {
    while loader.size() < history.size() {
        loader.push(part(history, loader.size())).unwrap();
    }
}

pub(super) fn load(store: &Store, name: &str, history: &History) {
    let mut loader = store.loader(&id(name)).unwrap();
    push_all(&mut loader, history);
    assert_eq!(loader.finish(history.root()).unwrap(), history.size());
}

pub(super) fn same(view: &View, name: &str, history: &History) {
    let there = entries(history.view(), "there");
    assert_eq!(entries(view, name), there);
    let info = view.context(&id(name)).unwrap().unwrap();
    assert_eq!((info.size, info.root), (history.size(), history.root()));
}

#[test]
fn a_new_context_is_there_when_it_has_its_name() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(40);
    put(&store, "before", &["one"]);
    let mut loader = store.loader(&id("new")).unwrap();
    push_all(&mut loader, &history);
    let nothing = |store: &Store| {
        let view = store.view();
        assert_eq!(view.context(&id("new")).unwrap(), None);
        assert_eq!(view.history(&id("new")).unwrap().map(|h| h.size()), None);
        assert_eq!(
            view.page(&id("new"), 0, &PageLimits::default(), None)
                .unwrap()
                .size,
            0
        );
        assert_eq!(view.contexts(None, 9).unwrap().len(), 1);
        assert_eq!(view.totals(), (1, 1));
        let head = store.publish().unwrap();
        assert_eq!((head.head().contexts, head.head().entries), (1, 1));
    };
    nothing(&store);
    loader.finish(history.root()).unwrap();
    same(store.view(), "new", &history);
    assert_eq!(store.view().totals(), (2, 41));
    let head = store.publish().unwrap();
    assert_eq!((head.head().contexts, head.head().entries), (2, 41));
    store.close().unwrap();
    drop(store);
    let report = audit_clean(&disk);
    assert_eq!((report.contexts, report.entries), (2, 41));
    matches_log(&report);
    let store = open(&disk);
    same(store.view(), "new", &history);
    assert_eq!(store.view().totals(), (2, 41));
}

#[test]
fn what_was_loaded_goes_on() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(20);
    load(&store, "new", &history);
    let last = entries(store.view(), "new").pop().unwrap();
    // A request of the loaded history is known.
    let known = Draft::new("key", vec![b'e'; 19]).unwrap();
    let again = store.append(vec![(id("new"), known.with_request_id("r19").unwrap())]);
    let again = again.unwrap().remove(0);
    assert_eq!((again.sequence, again.stored_before), (20, true));
    assert_eq!(again.id, last.id);
    let other = draft("other").with_request_id("r19").unwrap();
    let reused = store.append(vec![(id("new"), other)]);
    assert!(matches!(reused, Err(AppendError::RequestIdReused { .. })));
    let next = put(&store, "new", &["next"]).remove(0);
    assert_eq!(next.sequence, 21);
    assert_eq!(next.lamport, last.lamport + 1);
    assert!(next.appended_at_ns >= last.appended_at_ns);
    store.close().unwrap();
    audit_clean(&disk);
    let store = open(&disk);
    assert_eq!(entries(store.view(), "new").len(), 21);
}

#[test]
fn a_known_context_is_continued() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(30);
    let mut loader = store.loader(&id("c")).unwrap();
    while loader.size() < 12 {
        loader.push(part(&history, loader.size())).unwrap();
    }
    let size = loader.size();
    let root = history.view().root_at(&id("there"), size).unwrap();
    loader.finish(root).unwrap();
    // The rest, across a restart.
    store.close().unwrap();
    let store = open(&disk);
    let mut loader = store.loader(&id("c")).unwrap();
    assert_eq!(loader.size(), size);
    loader.push(part(&history, size)).unwrap();
    // Each part shows at once.
    assert_eq!(store.view().size(&id("c")).unwrap(), Some(loader.size()));
    push_all(&mut loader, &history);
    loader.finish(history.root()).unwrap();
    same(store.view(), "c", &history);
    store.close().unwrap();
    audit_clean(&disk);
}

#[test]
fn what_does_not_fit_is_refused_and_shows_nowhere() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(30);
    let refused = |loader: &mut Loader, part: HistoryPart| {
        let size = loader.size();
        let outcome = loader.push(part);
        assert!(matches!(outcome, Err(LoadError::Unsound(_))), "{outcome:?}");
        assert_eq!(loader.size(), size);
    };
    let mut loader = store.loader(&id("new")).unwrap();
    // Not the first run, no run, a payload that is missing.
    refused(&mut loader, part(&history, 8));
    let nonsense = HistoryPart {
        runs: vec![vec![1; 40]],
        payloads: Vec::new(),
    };
    refused(&mut loader, nonsense);
    while part(&history, loader.size()).payloads.is_empty() {
        loader.push(part(&history, loader.size())).unwrap();
    }
    let bare = HistoryPart {
        payloads: Vec::new(),
        ..part(&history, loader.size())
    };
    refused(&mut loader, bare);
    // A payload inside a run that is not what its header says.
    let mut forged = part(&history, loader.size());
    *forged.runs[0].last_mut().unwrap() ^= 1;
    refused(&mut loader, forged);
    // It goes on behind what was refused; another root than announced is not it.
    push_all(&mut loader, &history);
    let other = loader.finish(Hash::default());
    assert!(matches!(other, Err(LoadError::Unsound(_))));
    assert_eq!(store.view().totals(), (0, 0));
    load(&store, "new", &history);
    same(store.view(), "new", &history);
    store.close().unwrap();
    drop(store);
    let report = audit_clean(&disk);
    assert_eq!((report.contexts, report.entries), (1, 30));
    matches_log(&report);
}

#[test]
fn whoever_came_first_keeps_the_name() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(10);
    let mut loader = store.loader(&id("c")).unwrap();
    push_all(&mut loader, &history);
    put(&store, "c", &["first"]);
    let late = loader.finish(history.root());
    assert!(matches!(late, Err(LoadError::Exists { .. })), "{late:?}");
    assert_eq!(payloads(store.view(), "c"), ["first"]);
    // Two that load the same: one of them gives the name.
    let mut one = store.loader(&id("d")).unwrap();
    let mut two = store.loader(&id("d")).unwrap();
    push_all(&mut one, &history);
    push_all(&mut two, &history);
    one.finish(history.root()).unwrap();
    let late = two.finish(history.root());
    assert!(matches!(late, Err(LoadError::Exists { .. })));
    same(store.view(), "d", &history);
    // A context that grows while it is continued.
    let longer = elsewhere(20);
    let mut loader = store.loader(&id("d")).unwrap();
    let mut own = put(&store, "d", &["its own"]);
    let behind = part(&longer, loader.size());
    match loader.push(behind) {
        Err(LoadError::Grown { size, expected, .. }) => assert_eq!((size, expected), (11, 10)),
        other => panic!("{other:?}"),
    }
    assert_eq!(own.remove(0).sequence, 11);
    store.close().unwrap();
    audit_clean(&disk);
}

/// Folded between any two steps, given up, opened anew, made anew: the index is
/// what the log says.
#[test]
fn the_index_keeps_what_has_no_name_yet() {
    let disk = new_disk();
    let folding = || StoreOptions {
        tail_bytes_max: 4 << 10,
        checkpoint_every: Duration::ZERO,
        ..options(64 << 10)
    };
    let history = elsewhere(300);
    for round in 0..4u64 {
        let store = try_open(&disk, folding()).unwrap().store;
        let before = store.view().totals();
        let mut given_up = store.loader(&id("never")).unwrap();
        let mut loader = store.loader(&id(&format!("new-{round}"))).unwrap();
        while loader.size() < history.size() {
            loader.push(part(&history, loader.size())).unwrap();
            if given_up.size() < 100 {
                given_up.push(part(&history, given_up.size())).unwrap();
            }
            put(&store, "other", &["meanwhile"]);
        }
        assert_eq!(store.view().context(&id("never")).unwrap(), None);
        loader.finish(history.root()).unwrap();
        drop(given_up);
        let (contexts, entries) = store.view().totals();
        assert_eq!(contexts, before.0 + 1 + u64::from(round == 0));
        assert!(entries > before.1 + 300);
        store.close().unwrap();
        drop(store);
        let report = audit_clean(&disk);
        matches_log(&report);
        assert_eq!((report.contexts, report.entries), (contexts, entries));
        // Paranoid: what has no name has a root as well.
        let paranoid = AuditOptions { paranoid: true };
        let report = audit_with(&disk, paranoid, &mut |_| ()).unwrap();
        assert_eq!(report.first_bad, None);
        if round % 2 == 1 {
            rebuild_index(&(Arc::new(disk.clone()) as Arc<dyn disk::Disk>), &folding()).unwrap();
            let rebuilt = audit_clean(&disk);
            matches_log(&rebuilt);
        }
    }
    let store = try_open(&disk, folding()).unwrap().store;
    for round in 0..4 {
        same(store.view(), &format!("new-{round}"), &history);
    }
}

#[test]
fn payloads_that_are_there_are_not_stored_again() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(40);
    load(&store, "one", &history);
    let bytes = || disk.bytes("log/0000000001.seg").unwrap().len();
    let first = bytes();
    load(&store, "two", &history);
    assert!(bytes() - first < first / 2, "{first} and {}", bytes());
    same(store.view(), "two", &history);
}

/// What is stored and does not verify any more is stored again.
#[test]
fn a_payload_that_has_rotted_comes_back_with_a_load() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(8);
    load(&store, "one", &history);
    store.close().unwrap();
    drop(store);
    let segment = "log/0000000001.seg";
    let mut bytes = disk.bytes(segment).unwrap();
    // Nothing but the one large payload is as long as that and the same all through.
    let large = vec![b'e'; PAYLOAD_INLINE_BYTES_MAX + 1];
    let at = bytes.windows(large.len()).position(|w| w == large);
    let at = at.unwrap();
    bytes[at + 7] ^= 1;
    disk.set_bytes(segment, bytes);
    let store = open(&disk);
    let rotten = store.view().entry(&id("one"), 5);
    assert!(rotten.unwrap_err().is_verification_failure());
    load(&store, "two", &history);
    same(store.view(), "one", &history);
    same(store.view(), "two", &history);
}

/// Nothing a load does in the middle keeps it from going on when there is room.
#[test]
fn a_disk_that_is_full_in_mid_load() {
    let disk = new_disk();
    let store = open(&disk);
    let history = elsewhere(30);
    let full = |full: bool| {
        let fault = disk::Fault {
            kind: disk::FaultKind::Write,
            after: 0,
            error: io::ErrorKind::StorageFull,
        };
        disk.set_fault_in("log/", full.then_some(fault));
    };
    let mut loader = store.loader(&id("new")).unwrap();
    while loader.size() < history.size() {
        let size = loader.size();
        full(true);
        let refused = loader.push(part(&history, size));
        let is_full = matches!(refused, Err(LoadError::Store(StoreError::DiskFull)));
        assert!(is_full, "{refused:?}");
        assert_eq!(loader.size(), size);
        full(false);
        put(&store, "other", &["meanwhile"]);
        loader.push(part(&history, size)).unwrap();
    }
    // Without its name there is nothing.
    full(true);
    assert!(loader.finish(history.root()).is_err());
    assert_eq!(store.view().context(&id("new")).unwrap(), None);
    full(false);
    load(&store, "new", &history);
    same(store.view(), "new", &history);
    assert_eq!(store.failure(), None);
    store.close().unwrap();
    drop(store);
    let report = audit_clean(&disk);
    assert_eq!(report.contexts, 2);
    matches_log(&report);
    same(open(&disk).view(), "new", &history);
}

/// A mirror sees what the heads cover: nothing of a load, then all of it, then
/// each group behind it; and what it holds always ends where a run does.
#[test]
fn a_mirror_of_a_store_that_loads() {
    use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
    use crate::ledger::Ingest;

    let source = open(&new_disk());
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let catch_up = |names: &[&str]| {
        source.publish().unwrap();
        let (head, seen_head) = seen(source.view(), names);
        ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
        for opening in &seen_head.openings {
            let (span, payloads) = span(source.view(), mirror.view(), opening);
            ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        }
        ingest(&mirror, Ingest::Complete(head.clone())).unwrap();
        assert_eq!(
            mirror.view().contexts(None, 9).unwrap(),
            source.view().contexts(None, 9).unwrap()
        );
        (head.head().contexts, head.head().entries)
    };
    let (short, long) = (elsewhere(20), elsewhere(60));
    let mut loader = source.loader(&id("new")).unwrap();
    put(&source, "a", &["one"]);
    loader.push(part(&short, 0)).unwrap();
    assert_eq!(catch_up(&["a"]), (1, 1));
    push_all(&mut loader, &short);
    put(&source, "a", &["two"]);
    assert_eq!(catch_up(&["a"]), (1, 2));
    loader.finish(short.root()).unwrap();
    assert_eq!(catch_up(&["new"]), (2, 22));
    same(mirror.view(), "new", &short);
    // Continued, with a head behind every part.
    let mut loader = source.loader(&id("new")).unwrap();
    while loader.size() < long.size() {
        let mut next = part(&long, loader.size());
        if let Some(first) = next.runs.first_mut() {
            let run = Run::decode(first).unwrap();
            if run.first() <= loader.size() {
                *first = run.part(loader.size(), u64::MAX).unwrap();
            }
        }
        loader.push(next).unwrap();
        assert_eq!(catch_up(&["new"]), (2, 2 + loader.size()));
    }
    loader.finish(long.root()).unwrap();
    same(mirror.view(), "new", &long);
    put(&source, "new", &["its own"]);
    catch_up(&["new"]);
    mirror.close().unwrap();
    drop(mirror);
    matches_log(&audit_clean(&disk));
}

#[test]
fn a_mirror_loads_nothing() {
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Mirror, signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk), options(SEGMENT_BYTES_DEFAULT), None);
    let refused = opened.unwrap().store.loader(&id("c"));
    assert!(matches!(refused, Err(LoadError::Mirror { .. })));
}

#[test]
fn a_listener_hears_what_can_be_seen() {
    use std::sync::Mutex;
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = {
        let heard = heard.clone();
        Listener(Arc::new(move |change| {
            let names = match change {
                Change::Grown([]) => vec!["nobody".into()],
                Change::Grown(ids) => ids.iter().map(|id| id.as_str().to_owned()).collect(),
                other => vec![format!("{other:?}")],
            };
            heard.lock().unwrap().extend(names);
        }))
    };
    let disk = new_disk();
    let listening = StoreOptions {
        listener: Some(listener),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, listening).unwrap().store;
    let told = || std::mem::take(&mut *heard.lock().unwrap());
    put(&store, "a", &["one", "two"]);
    assert_eq!(told(), ["a"]);
    let drafts = (0..100)
        .map(|n| (id(&format!("c{n}")), draft("x")))
        .collect();
    store.append(drafts).unwrap();
    assert_eq!(told(), ["Any"]);
    store.publish().unwrap();
    assert_eq!(told(), ["Head"]);
    let history = elsewhere(5);
    let mut loader = store.loader(&id("new")).unwrap();
    push_all(&mut loader, &history);
    assert_eq!(told(), [] as [&str; 0]);
    loader.finish(history.root()).unwrap();
    assert_eq!(told(), ["new"]);
    disk.set_fault(Some(disk::Fault {
        kind: disk::FaultKind::Sync,
        after: 0,
        error: io::ErrorKind::Other,
    }));
    store.append(vec![(id("a"), draft("three"))]).unwrap_err();
    assert_eq!(told(), ["Failed"]);
}
