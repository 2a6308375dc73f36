//! What opening makes of the index it finds: another store's, an older one, a
//! newer one, a damaged one, none.

use super::model::Model;
use super::*;
use crate::store::disk::{Fault, FaultKind, RealDisk};

/// Three segments and some, two contexts, a large payload, request ids; closed.
fn filled() -> (MemoryDisk, Model) {
    let disk = new_disk();
    let mut model = Model::default();
    let store = try_open(&disk, small()).unwrap().store;
    fill(&store, &mut model, 0..13);
    store.close().unwrap();
    // A segment that holds nothing but a mark would not be missed.
    let last = segments(&disk).pop().unwrap();
    assert!(disk.bytes(&last).unwrap().len() > 512);
    (disk, model)
}

/// Options with small segments.
fn small() -> StoreOptions {
    StoreOptions {
        segment_bytes: 4096,
        ..every(NEVER)
    }
}

fn fill(store: &Store, model: &mut Model, rounds: std::ops::Range<usize>) {
    for round in rounds {
        let draft = |name: &str| {
            let text = format!("{name} {round} {}", "f".repeat(round * 37));
            draft(&text)
                .with_request_id(format!("{name}-{round}"))
                .unwrap()
        };
        let big = super::draft(&"big".repeat(2000));
        let mut drafts = vec![(id("a"), draft("one")), (id("b"), draft("two"))];
        if round % 5 == 4 {
            drafts.push((id("b"), big));
        }
        model.append(store, drafts);
    }
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list("log").unwrap();
    names.iter().map(|name| format!("log/{name}")).collect()
}

/// Opens a store whose index is of no use: it works, and has a new one then.
fn heals(disk: &MemoryDisk, model: &Model) {
    let mut model = model.clone();
    let opened = try_open(disk, small()).unwrap();
    assert!(opened.index_discarded.is_some());
    let whole = disk.fork();
    heals_as(&opened.store, &mut model);
    for disk in [disk, &whole] {
        let reopened = try_open(disk, small()).unwrap();
        assert_eq!(reopened.index_discarded, None);
        reopened.store.close().unwrap();
    }
    let reopened = try_open(disk, small()).unwrap();
    assert!(reopened.bytes_read < 1000, "{}", reopened.bytes_read);
    model.compare(reopened.store.view(), true);
}

fn heals_as(store: &Store, model: &mut Model) {
    model.compare(store.view(), true);
    model.ask_again(store);
    fill(store, model, 20..22);
    store.close().unwrap();
}

/// Refuses to open, changes nothing, and does so again.
fn refuses(disk: &MemoryDisk, reason: &str) {
    let files = |disk: &MemoryDisk| {
        let log = segments(disk);
        let names = log.iter().map(String::as_str).chain(["head.note"]);
        names.map(|name| disk.bytes(name)).collect::<Vec<_>>()
    };
    let before = files(disk);
    for _ in 0..2 {
        let error = try_open(disk, small()).expect_err(reason);
        assert!(error.is_verification_failure(), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(files(disk), before, "damage is never cut");
        assert!(disk.bytes(INDEX).is_some(), "it vouches for what is gone");
    }
}

#[test]
fn an_index_of_another_store_is_replaced() {
    let ((disk, model), (other, _)) = (filled(), filled());
    disk.set_bytes(INDEX, other.bytes(INDEX).unwrap());
    heals(&disk, &model);
}

#[test]
fn an_index_that_is_no_database_is_replaced() {
    let (disk, model) = filled();
    for bytes in [vec![], vec![0; 1 << 20], b"an index".repeat(9000)] {
        let disk = disk.fork();
        disk.set_bytes(INDEX, bytes);
        heals(&disk, &model);
    }
}

#[test]
fn an_index_cut_anywhere_is_replaced() {
    let (disk, model) = filled();
    let whole = disk.bytes(INDEX).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let pages = used.div_ceil(4096);
    let lengths = (0..12)
        .map(|page| page * pages / 12 * 4096)
        .flat_map(|len| [len, len + 1, len + 4095])
        .chain([511, 512, used - 1, whole.len() - 1, whole.len() - 4096]);
    for len in lengths {
        let disk = disk.fork();
        disk.set_bytes(INDEX, whole[..len].to_vec());
        let opened = try_open(&disk, small()).unwrap();
        let good = opened.index_discarded.is_none();
        // What is cut may be of no use to anyone.
        assert!(!good || len >= 8192, "{len}");
        heals_as(&opened.store, &mut model.clone());
        let again = try_open(&disk, small()).unwrap();
        assert_eq!(again.index_discarded, None, "{len}");
    }
}

#[test]
fn an_older_index_leads_to_the_same() {
    let (disk, mut model) = filled();
    let older = disk.bytes(INDEX).unwrap();
    for round in 1..4 {
        let store = open_every(&disk, if round == 1 { NEVER } else { ALWAYS });
        fill(&store, &mut model, round * 20..round * 20 + 9);
        store.close().unwrap();
        let copy = disk.fork();
        copy.set_bytes(INDEX, older.clone());
        let opened = try_open(&copy, small()).unwrap();
        assert_eq!(opened.index_discarded, None);
        assert!(opened.bytes_read > 1000);
        heals_as(&opened.store, &mut model.clone());
        let again = try_open(&copy, small()).unwrap();
        assert!(again.index_discarded.is_none() && again.bytes_read < 1000);
    }
}

#[test]
fn an_index_that_covers_more_than_the_log_makes_it_damage() {
    let (disk, model) = filled();
    let old = disk.fork();
    let store = try_open(&disk, small()).unwrap().store;
    fill(&store, &mut model.clone(), 30..34);
    store.close().unwrap();
    // The log and what goes with it come from an older copy, the index not.
    let mixed = old.fork();
    mixed.set_bytes(INDEX, disk.bytes(INDEX).unwrap());
    refuses(&mixed, "index.redb vouches");
    assert!(audit(&mixed, &mut |_| ()).unwrap().first_bad.is_none());
    // To accept the loss takes a decision.
    mixed.remove(INDEX).unwrap();
    let opened = try_open(&mixed, small()).unwrap();
    assert_eq!(opened.index_discarded, None);
    heals_as(&opened.store, &mut model.clone());
}

#[test]
fn segments_that_are_gone_are_missed() {
    let (disk, _) = filled();
    let names = segments(&disk);
    assert!(names.len() > 4, "{names:?}");
    for name in &names {
        let copy = disk.fork();
        copy.remove(name).unwrap();
        refuses(&copy, "");
    }
    // Without what the index says of its end, the log would do.
    let last = names.last().unwrap();
    let copy = disk.fork();
    copy.remove(last).unwrap();
    copy.remove("head.note").unwrap();
    refuses(&copy, "");
}

#[test]
fn an_index_that_cannot_be_read_is_replaced() {
    let (disk, model) = filled();
    for error in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
        let disk = disk.fork();
        let fault = Fault {
            kind: FaultKind::Read,
            after: 0,
            error,
        };
        disk.set_fault_in(INDEX, Some(fault));
        let opened = try_open(&disk, small()).unwrap();
        assert!(opened.index_discarded.is_some());
        model.compare(opened.store.view(), true);
        disk.set_fault(None);
        heals_as(&opened.store, &mut model.clone());
        let again = try_open(&disk, small()).unwrap();
        assert_eq!(again.index_discarded, None);
    }
    let opens = |call: Call, name: &str| match call {
        Call::OpenToWrite if name == INDEX => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    };
    let copy = disk.fork();
    let hooked = Hooked::new(&copy, opens);
    let opened = Store::open(Arc::new(hooked), small(), Some(signer())).unwrap();
    assert!(opened.index_discarded.is_some());
    heals_as(&opened.store, &mut model.clone());
    let again = try_open(&copy, small()).unwrap();
    assert_eq!(again.index_discarded, None);
}

#[test]
fn a_directory_in_its_place_does_not_stop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(dir.path()));
    create(&*disk, StoreRole::Own, signer().verifier()).unwrap();
    let open = |disk: &Arc<RealDisk>| Store::open(disk.clone(), small(), Some(signer())).unwrap();
    let mut model = Model::default();
    let store = open(&disk).store;
    fill(&store, &mut model, 0..8);
    store.close().unwrap();
    std::fs::remove_file(dir.path().join(INDEX)).unwrap();
    std::fs::create_dir(dir.path().join(INDEX)).unwrap();
    for round in 1..3 {
        let opened = open(&disk);
        assert!(opened.index_discarded.is_some());
        fill(&opened.store, &mut model, round * 20..round * 20 + 3);
        model.compare(opened.store.view(), false);
        opened.store.close().unwrap();
    }
    std::fs::remove_dir(dir.path().join(INDEX)).unwrap();
    let opened = open(&disk);
    model.compare(opened.store.view(), true);
    opened.store.close().unwrap();
    assert!(dir.path().join(INDEX).is_file());
    assert!(!dir.path().join(NEW).exists());
    let opened = open(&disk);
    assert_eq!(opened.index_discarded, None);
    model.compare(opened.store.view(), true);
}

#[test]
fn a_disk_that_takes_nothing_can_be_read_and_audited() {
    let (disk, model) = filled();
    let refused = |_: Call, _: &str| Err(io::ErrorKind::ReadOnlyFilesystem.into());
    let hooked = Hooked::new(&disk, refused);
    let view = Store::open_read_only(Arc::new(hooked.clone())).unwrap();
    model.compare(&view, true);
    assert_eq!(audit(&hooked, &mut |_| ()).unwrap().first_bad, None);
    let opened = Store::open(Arc::new(hooked), small(), Some(signer()));
    assert!(matches!(opened, Err(StoreError::Io { .. })));
}

#[test]
fn the_index_of_a_store_in_use_is_left_alone() {
    let (disk, mut model) = filled();
    let store = open_every(&disk, ALWAYS);
    fill(&store, &mut model, 40..43);
    let locked = try_open(&disk, small());
    assert!(matches!(locked, Err(StoreError::Locked)));
    settle(&store);
    model.compare(store.view(), true);
    store.close().unwrap();
    let opened = try_open(&disk, small()).unwrap();
    assert_eq!(opened.index_discarded, None);
    model.compare(opened.store.view(), true);
}

#[test]
fn a_half_made_index_is_removed() {
    let (disk, model) = filled();
    let index = disk.bytes(INDEX).unwrap();
    for (left, remains) in [(index.len(), true), (4096, true), (0, false)] {
        let copy = disk.fork();
        copy.set_bytes(NEW, index[..left].to_vec());
        if !remains {
            copy.remove(INDEX).unwrap();
        }
        let opened = try_open(&copy, small()).unwrap();
        assert_eq!(copy.bytes(NEW), None);
        assert_eq!(opened.index_discarded, None);
        heals_as(&opened.store, &mut model.clone());
        assert_eq!(copy.bytes(NEW), None);
    }
}

#[test]
fn a_store_that_failed_does_not_trust_its_index() {
    let (disk, model) = filled();
    disk.create("failed").unwrap();
    heals(&disk, &model);
}
