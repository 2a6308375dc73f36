//! Snapshots of a store that become contexts of another one.

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::entry::{Draft, Entry};
use crate::note::{OriginName, SignerKey};
use crate::store::disk::MemoryDisk;
use crate::store::{Clock, PageLimits, StoreOptions, StoreRole, audit, create};

#[derive(Debug)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The first moment of the year 2500.
const YEAR_2500_NS: u64 = 16_725_225_600_000_000_000;

fn id(name: &str) -> ContextId {
    ContextId::new(name).unwrap()
}

fn store_at(now_ns: u64) -> (MemoryDisk, Store) {
    let signer = SignerKey::from_seed(OriginName::new("archives").unwrap(), &[3; 32]);
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Own, signer.verifier()).unwrap();
    let options = StoreOptions::new(Arc::new(SetClock(AtomicU64::new(now_ns))));
    let opened = Store::open(Arc::new(disk.clone()), options, Some(signer));
    (disk, opened.unwrap().store)
}

fn new_store() -> (MemoryDisk, Store) {
    store_at(1_700_000_000_000_000_000)
}

fn put(store: &Store, context: &str, from: usize, count: usize) {
    let drafts = (from..from + count).map(|n| {
        let len = if n % 10 == 3 { 5_000 } else { n % 300 };
        let draft = Draft::new("key", vec![u8::try_from(n % 251).unwrap(); len]).unwrap();
        let draft = draft.with_request_id(format!("r{n}")).unwrap();
        (id(context), draft)
    });
    store.append(drafts.collect()).unwrap();
}

fn entries(store: &Store, context: &str) -> Vec<Entry> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store
            .view()
            .page(&id(context), after, &PageLimits::default(), None)
            .unwrap();
        all.extend(page.entries);
        match page.next_after {
            0 => return all,
            next => after = next,
        }
    }
}

fn archive_of(store: &Store, context: &str) -> Vec<u8> {
    let (made, bytes) = snapshot_in_memory(store.view(), &id(context), 1 << 26)
        .unwrap()
        .unwrap();
    assert_eq!(made.bytes, bytes.len() as u64);
    let mut streamed = Vec::new();
    let again = snapshot(store.view(), &id(context), &mut streamed).unwrap();
    assert_eq!((again, &streamed), (Some(made), &bytes));
    bytes
}

fn load_as(store: &Store, context: &str, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let options = LoadOptions::default();
    load(store, &id(context), Cursor::new(bytes), &options)
}

fn clean(disk: &MemoryDisk, store: &Store) {
    store.close().unwrap();
    assert_eq!(audit(disk, &mut |_| ()).unwrap().first_bad, None);
}

#[test]
fn a_context_under_another_name_keeps_its_root() {
    let (_, from) = new_store();
    put(&from, "a", 0, 700);
    put(&from, "a", 700, 1);
    let bytes = archive_of(&from, "a");
    let (disk, to) = new_store();
    put(&to, "b", 0, 3);
    let loaded = load_as(&to, "c", &bytes).unwrap();
    let root = from.view().context(&id("a")).unwrap().unwrap().root;
    assert_eq!(
        (loaded.restored, loaded.size, loaded.root),
        (701, 701, root)
    );
    assert_eq!(to.view().context(&id("c")).unwrap().unwrap().root, root);
    assert_eq!(entries(&to, "c"), entries(&from, "a"));
    // The same archive of it, but for the name.
    let again = archive_of(&to, "c");
    let body = |bytes: &[u8]| bytes[bytes.len() - 200..].to_vec();
    assert_eq!(again.len(), bytes.len());
    assert_ne!(body(&again), body(&bytes), "the end covers the name");
    clean(&disk, &to);
}

#[test]
fn equal_shorter_longer_and_diverging_histories() {
    let (_, from) = new_store();
    put(&from, "a", 0, 100);
    let short = archive_of(&from, "a");
    // Ends within a run of the longer one when that is loaded whole.
    put(&from, "a", 100, 300);
    let long = archive_of(&from, "a");
    let (disk, to) = new_store();
    assert_eq!(load_as(&to, "a", &short).unwrap().restored, 100);
    let equal = load_as(&to, "a", &short).unwrap();
    assert_eq!((equal.restored, equal.size), (0, 100));
    let longer = load_as(&to, "a", &long).unwrap();
    assert_eq!((longer.restored, longer.size), (300, 400));
    let shorter = load_as(&to, "a", &short).unwrap();
    assert_eq!((shorter.restored, shorter.size), (0, 400));
    assert_eq!(entries(&to, "a"), entries(&from, "a"));
    // It goes on, and the archive is a prefix of it.
    put(&to, "a", 1_000, 1);
    assert_eq!(load_as(&to, "a", &long).unwrap().size, 401);
    // The other way it went on.
    put(&from, "a", 2_000, 1);
    let other = archive_of(&from, "a");
    match load_as(&to, "a", &other) {
        Err(LoadError::Diverges { size, .. }) => assert_eq!(size, 401),
        other => panic!("{other:?}"),
    }
    put(&to, "x", 5, 100);
    let diverges = load_as(&to, "x", &short);
    assert!(matches!(
        diverges,
        Err(LoadError::Diverges { size: 100, .. })
    ));
    put(&to, "x", 105, 1);
    let diverges = load_as(&to, "x", &short);
    assert!(matches!(
        diverges,
        Err(LoadError::Diverges { size: 100, .. })
    ));
    let options = LoadOptions {
        fail_if_exists: true,
        ..LoadOptions::default()
    };
    let exists = load(&to, &id("a"), Cursor::new(&short), &options);
    assert!(matches!(exists, Err(LoadError::Exists { size: 401, .. })));
    assert_eq!(to.view().totals(), (2, 401 + 101));
    clean(&disk, &to);
}

/// One that was cut within what is a single run elsewhere.
#[test]
fn a_run_is_cut_where_the_context_ends() {
    let (_, from) = new_store();
    put(&from, "a", 0, 200);
    let whole = archive_of(&from, "a");
    let (disk, to) = new_store();
    // The same entries, in other runs.
    let some = entries(&from, "a");
    let (_, shorter) = new_store();
    put(&shorter, "a", 0, 77);
    assert_eq!(entries(&shorter, "a")[..], some[..77]);
    load_as(&to, "a", &archive_of(&shorter, "a")).unwrap();
    assert_eq!(load_as(&to, "a", &whole).unwrap().restored, 123);
    assert_eq!(entries(&to, "a"), some);
    clean(&disk, &to);
}

#[test]
fn nothing_of_a_bad_archive_is_stored() {
    let (_, from) = new_store();
    put(&from, "a", 0, 30);
    let good = archive_of(&from, "a");
    let (disk, to) = new_store();
    let before = to.view().totals();
    for len in 0..good.len() {
        let cut = load_as(&to, "a", &good[..len]);
        assert!(matches!(cut, Err(LoadError::Archive(_))), "{len}");
    }
    // In its first line it may become another name.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let refused = load_as(&to, "a", &bad);
        assert!(matches!(refused, Err(LoadError::Archive(_))), "{at}");
    }
    assert_eq!(to.view().totals(), before);
    assert_eq!(load_as(&to, "a", &good).unwrap().restored, 30);
    clean(&disk, &to);
}

#[test]
fn entries_of_the_far_future_are_refused_unless_wanted() {
    let (_, from) = store_at(YEAR_2500_NS);
    put(&from, "a", 0, 3);
    let bytes = archive_of(&from, "a");
    let (disk, to) = new_store();
    match load_as(&to, "a", &bytes) {
        Err(LoadError::Future { newest_ns, .. }) => assert_eq!(newest_ns, YEAR_2500_NS),
        other => panic!("{other:?}"),
    }
    assert_eq!(to.view().totals(), (0, 0));
    let options = LoadOptions {
        allow_future: true,
        ..LoadOptions::default()
    };
    load(&to, &id("a"), Cursor::new(&bytes), &options).unwrap();
    // What is appended later is not earlier.
    put(&to, "a", 3, 1);
    let last = entries(&to, "a").pop().unwrap();
    assert_eq!(last.appended_at_ns, YEAR_2500_NS);
    clean(&disk, &to);
}

#[test]
fn a_snapshot_that_does_not_fit_says_so() {
    let (_, store) = new_store();
    put(&store, "a", 0, 400);
    let fits = archive_of(&store, "a").len();
    let of = |bytes_max| snapshot_in_memory(store.view(), &id("a"), bytes_max);
    assert!(of(fits).unwrap().is_some());
    match of(fits - 1) {
        Err(SnapshotError::TooLarge { bytes_max }) => assert_eq!(bytes_max, fits - 1),
        other => panic!("{other:?}"),
    }
    let none = snapshot_in_memory(store.view(), &id("nobody"), 10).unwrap();
    assert_eq!(none, None);
}
