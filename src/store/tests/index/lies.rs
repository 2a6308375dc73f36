//! The rows themselves: the same whatever the history of folds, and noticed
//! where they lie although their checks are right.

use std::collections::BTreeMap;

use redb::{Builder, Database, ReadableDatabase, ReadableTable};

use super::model::Model;
use super::*;
use crate::limits::RETIRED_NS_MAX;
use crate::store::index::base::definition;
use crate::store::index::rows::{IndexKeys, Table};
use crate::store::pages::CheckedPages;
use crate::store::scan::open_segment;

pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The database of a store that is not open, and the keys of its rows.
fn database(disk: &MemoryDisk) -> (Database, IndexKeys) {
    let first = open_segment(disk, 1, Access::Read).unwrap().unwrap();
    let keys = IndexKeys::of_store(&first.header.tag_key);
    let file = disk.open(INDEX, Access::Write).unwrap();
    let pages = CheckedPages::new(file, keys.pages);
    (Builder::new().create_with_backend(pages).unwrap(), keys)
}

/// All rows of a table, without their checks.
pub(super) fn rows(disk: &MemoryDisk, table: Table) -> Rows {
    let (db, keys) = database(&disk.fork());
    let read = db.begin_read().unwrap();
    let rows = read.open_table(definition(table)).unwrap();
    let mut found = Rows::new();
    for row in rows.iter().unwrap() {
        let (key, value) = row.unwrap();
        let key = key.value().to_vec();
        let value = keys.rows.open(table, &key, value.value()).unwrap().to_vec();
        found.insert(key, value);
    }
    found
}

/// Changes one row; its check is right then.
pub(super) fn put(disk: &MemoryDisk, table: Table, key: &[u8], value: Option<Vec<u8>>) {
    let (db, keys) = database(disk);
    let mut write = db.begin_write().unwrap();
    write.set_quick_repair(true);
    {
        let mut rows = write.open_table(definition(table)).unwrap();
        match value {
            Some(value) => {
                let row = keys.rows.seal(table, key, value);
                rows.insert(key, row.as_slice()).unwrap();
            }
            None => assert!(rows.remove(key).unwrap().is_some()),
        }
    }
    write.commit().unwrap();
}

fn bulk(context: &str, range: std::ops::Range<usize>) -> Vec<(ContextId, Draft)> {
    let draft = |n: usize| {
        let draft = Draft::new(format!("k{}", n % 9), n.to_string()).unwrap();
        match n % 11 {
            0 => draft.with_request_id(format!("r{n}")).unwrap(),
            _ => draft,
        }
    };
    range.map(|n| (id(context), draft(n))).collect()
}

/// A history of many groups and heads, some of them hours apart.
fn history(store: &Store, model: &mut Model, clock: &ManualClock, hours_pass: bool) {
    for (round, count) in [3, 40, 700, 1, 16, 5000, 255, 2].into_iter().enumerate() {
        if hours_pass {
            clock.set(1_000 + round as u64 * RETIRED_NS_MAX / 3);
        }
        let start = round * 10_000;
        model.append(store, bulk("long", start..start + count));
        model.append(store, bulk(&format!("c{}", round % 5), start..start + 20));
        model.append(
            store,
            vec![
                (id("big"), draft(&"b".repeat(5000 + round % 3))),
                (id(&format!("new {round}")), draft("x")),
            ],
        );
        store.publish().unwrap();
        if store.view().index().below.frozen.is_some() || round % 2 == 0 {
            barrier(store);
        }
    }
}

/// Directory nodes that the newest head needs; older ones are kept for a time
/// that is counted differently in memory and on disk.
fn needed(root: Hash, nodes: &Rows) -> Rows {
    let mut todo = vec![root];
    let mut needed = Rows::new();
    while let Some(hash) = todo.pop() {
        let bytes = nodes[hash.as_bytes().as_slice()].clone();
        let node = crate::directory::Node::decode(&bytes).unwrap();
        for slot in node.slots() {
            if let crate::directory::Slot::Child { hash, .. } = slot {
                todo.push(*hash);
            }
        }
        needed.insert(hash.as_bytes().to_vec(), bytes);
    }
    needed
}

fn newest_root(disk: &MemoryDisk) -> Hash {
    read_only(disk).head().unwrap().head().directory_root
}

/// `other` is closed, and both cover the same head.
fn assert_same_rows(one: &MemoryDisk, other: &MemoryDisk, hours_pass: bool) {
    let root = newest_root(other);
    for table in Table::ALL {
        let (a, b) = (rows(one, table), rows(other, table));
        match table {
            // When it was made; how many nodes were retired since.
            Table::State => assert_eq!((a.len(), b.len()), (1, 1)),
            Table::Retired if hours_pass => (),
            Table::Directory if hours_pass => {
                assert!(needed(root, &a) == needed(root, &b));
            }
            _ => {
                assert!(a == b, "{} differs", table.name());
                assert!(!a.is_empty(), "{}", table.name());
            }
        }
    }
}

#[test]
fn the_rows_are_the_same_whatever_the_history_of_folds() {
    for hours_pass in [false, true] {
        let clock = ManualClock::at(1_000);
        let with_clock = |every: Duration| StoreOptions {
            clock: clock.clone(),
            ..super::every(every)
        };
        let disk = new_disk();
        let mut model = Model::default();
        let store = try_open(&disk, with_clock(ALWAYS)).unwrap().store;
        history(&store, &mut model, &clock, hours_pass);
        settle(&store);
        // Made anew beside the running store.
        let folded = {
            store.view().index().below.lose("on purpose");
            let before = disk.fork();
            store.mailbox().settle();
            before
        };
        model.compare(store.view(), true);
        store.close().unwrap();
        // Made anew from the log, all at once.
        let rebuilt = without_index(&disk);
        let store = try_open(&rebuilt, with_clock(NEVER)).unwrap().store;
        model.compare(store.view(), true);
        store.close().unwrap();
        assert_same_rows(&disk, &rebuilt, hours_pass);
        if folded.bytes(INDEX).is_some() {
            assert_same_rows(&folded, &rebuilt, hours_pass);
        }
        // Folded only when it was closed.
        let store = try_open(&rebuilt, with_clock(NEVER)).unwrap().store;
        model.append(&store, bulk("long", 100_000..100_300));
        store.close().unwrap();
        let again = without_index(&rebuilt);
        try_open(&again, with_clock(NEVER))
            .unwrap()
            .store
            .close()
            .unwrap();
        assert_same_rows(&rebuilt, &again, hours_pass);
    }
}

#[test]
fn what_retired_long_ago_leaves_the_index() {
    let clock = ManualClock::at(1_000);
    let disk = new_disk();
    let options = StoreOptions {
        clock: clock.clone(),
        ..every(ALWAYS)
    };
    let store = try_open(&disk, options).unwrap().store;
    let mut model = Model::default();
    for round in 0..60u64 {
        clock.set(1_000 + round * RETIRED_NS_MAX / 4);
        model.append(&store, vec![(id(&format!("c{}", round % 20)), draft("x"))]);
        settle(&store);
    }
    model.compare(store.view(), true);
    store.close().unwrap();
    let nodes = rows(&disk, Table::Directory);
    let needed = needed(newest_root(&disk), &nodes);
    assert!(rows(&disk, Table::Retired).len() < 10);
    assert!(nodes.len() < needed.len() + 12, "{}", nodes.len());
}

/// A store with an index, closed; and its rows when "a" was smaller.
fn closed() -> (MemoryDisk, MemoryDisk, Model) {
    let disk = new_disk();
    let mut model = Model::default();
    let store = open_every(&disk, NEVER);
    model.append(&store, bulk("a", 0..300));
    model.append(&store, bulk("b", 0..600));
    store.close().unwrap();
    let older = disk.fork();
    let store = open_every(&disk, NEVER);
    model.append(&store, bulk("a", 1000..1700));
    store.close().unwrap();
    (disk, older, model)
}

/// Context "a" has number 1, "b" 2.
pub(super) fn key(number: u64, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], rest].concat()
}

/// A lie, and who must stumble over it.
struct Lie {
    name: &'static str,
    tell: fn(&MemoryDisk, &MemoryDisk),
    touch: fn(&View) -> Result<(), StoreError>,
}

fn size_of(view: &View, name: &str) -> Result<(), StoreError> {
    view.size(&id(name)).map(|_| ())
}

const LIES: [Lie; 8] = [
    Lie {
        name: "an accumulator that is too old",
        tell: |disk, older| {
            let key = key(1, &[]);
            let old = rows(older, Table::Accumulators)[&key].clone();
            put(disk, Table::Accumulators, &key, Some(old));
        },
        touch: |view| size_of(view, "a"),
    },
    Lie {
        name: "no accumulator",
        tell: |disk, _| put(disk, Table::Accumulators, &key(2, &[]), None),
        touch: |view| size_of(view, "b"),
    },
    Lie {
        name: "no context",
        tell: |disk, _| put(disk, Table::Contexts, b"a", None),
        touch: |view| size_of(view, "a"),
    },
    Lie {
        name: "another context's number",
        tell: |disk, _| {
            let other = rows(disk, Table::Contexts)[&b"b"[..]].clone();
            put(disk, Table::Contexts, b"a", Some(other));
        },
        touch: |view| size_of(view, "a"),
    },
    Lie {
        name: "no run",
        tell: |disk, _| put(disk, Table::Runs, &key(1, &257u64.to_be_bytes()), None),
        touch: |view| view.entry(&id("a"), 290).map(|_| ()),
    },
    Lie {
        name: "another run",
        tell: |disk, _| {
            let all = rows(disk, Table::Runs);
            let other = all[&key(2, &257u64.to_be_bytes())].clone();
            put(disk, Table::Runs, &key(1, &1u64.to_be_bytes()), Some(other));
        },
        touch: |view| view.entry(&id("a"), 17).map(|_| ()),
    },
    Lie {
        name: "a tile that is too short",
        tell: |disk, _| {
            let all = rows(disk, Table::Tiles);
            let (key, tile) = all.first_key_value().unwrap();
            let short = tile[..tile.len() - 32].to_vec();
            put(disk, Table::Tiles, key, Some(short));
        },
        touch: |view| view.root_at(&id("a"), 500).map(|_| ()),
    },
    Lie {
        name: "no tile",
        tell: |disk, _| {
            let all = rows(disk, Table::Tiles);
            put(disk, Table::Tiles, all.first_key_value().unwrap().0, None);
        },
        touch: |view| view.root_at(&id("a"), 500).map(|_| ()),
    },
];

#[test]
fn a_row_that_lies_is_noticed_when_it_is_touched() {
    for lie in &LIES {
        let (disk, older, model) = closed();
        (lie.tell)(&disk, &older);
        let opened = try_open(&disk, every(NEVER)).unwrap();
        assert_eq!(opened.index_discarded, None, "{}", lie.name);
        let store = opened.store;
        let touched = (lie.touch)(store.view());
        assert!(
            matches!(touched, Err(StoreError::IndexLost { .. })),
            "{}: {touched:?}",
            lie.name
        );
        store.mailbox().settle();
        (lie.touch)(store.view()).unwrap();
        model.compare(store.view(), true);
        assert_eq!(store.failure(), None);
        store.close().unwrap();
        let opened = try_open(&disk, every(NEVER)).unwrap();
        assert_eq!(opened.index_discarded, None, "{}", lie.name);
        model.compare(opened.store.view(), true);
    }
}

#[test]
fn an_append_over_a_row_that_lies_is_refused_until_the_index_is_whole() {
    for lie in &LIES[..4] {
        let (disk, older, mut model) = closed();
        (lie.tell)(&disk, &older);
        let store = open_every(&disk, ALWAYS);
        let name = if lie.name == "no accumulator" {
            "b"
        } else {
            "a"
        };
        let refused = store.append(bulk(name, 5000..5010));
        assert!(
            matches!(
                refused,
                Err(AppendError::Store(StoreError::IndexLost { .. }))
            ),
            "{}: {refused:?}",
            lie.name
        );
        store.mailbox().settle();
        model.append(&store, bulk(name, 5000..5010));
        settle(&store);
        model.compare(store.view(), true);
        store.close().unwrap();
        audit_clean(&disk);
    }
}

#[test]
fn a_lie_that_replay_meets_is_no_fault_of_the_log() {
    let unnamed = Lie {
        name: "a number without a name",
        tell: |disk, _| put(disk, Table::ContextIds, &key(1, &[]), None),
        touch: |_| Ok(()),
    };
    let unpaid = Lie {
        name: "a payload that is not there",
        tell: |disk, _| {
            let all = rows(disk, Table::Payloads);
            put(
                disk,
                Table::Payloads,
                all.first_key_value().unwrap().0,
                None,
            );
        },
        touch: |_| Ok(()),
    };
    let big = || vec![(id("a"), draft(&"big".repeat(2000)))];
    for lie in LIES.iter().take(2).chain([&unnamed, &unpaid]) {
        let disk = new_disk();
        let mut model = Model::default();
        let store = open_every(&disk, NEVER);
        model.append(&store, bulk("a", 0..300));
        store.close().unwrap();
        let older = disk.fork();
        let store = open_every(&disk, NEVER);
        model.append(&store, bulk("a", 300..310));
        model.append(&store, bulk("b", 300..310));
        model.append(&store, big());
        store.close().unwrap();
        (lie.tell)(&disk, &older);
        let index = disk.bytes(INDEX).unwrap();
        // The log goes on behind what the index covers.
        let lied = without_index(&disk);
        let store = open_every(&lied, NEVER);
        model.append(&store, bulk("a", 1000..1010));
        model.append(&store, bulk("b", 1000..1010));
        model.append(&store, big());
        store.publish().unwrap();
        store.close().unwrap();
        lied.set_bytes(INDEX, index);
        let opened = try_open(&lied, every(NEVER)).expect(lie.name);
        assert!(opened.index_discarded.is_some(), "{}", lie.name);
        model.compare(opened.store.view(), true);
        opened.store.close().unwrap();
        let opened = try_open(&lied, every(NEVER)).unwrap();
        assert_eq!(opened.index_discarded, None);
    }
}
