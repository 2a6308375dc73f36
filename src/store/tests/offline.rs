//! What is done to a store that nobody has open: its index compared with the
//! log, made anew, counted.

use super::*;
use crate::hash::Hash;
use crate::run::Accumulator;
use crate::store::disk::{Access, Disk, Fault, FaultKind};
use crate::store::index::checkpoint::Checkpoint;
use crate::store::index::heads::HeadRow;
use crate::store::index::rows::IndexKeys;
use crate::store::index::tail::{Retired, RunAdded, Tail};
use crate::store::index::{ContextState, Index, Location, StateRow, TailContext};
use crate::store::recover::{Start, replay_with};
use crate::store::scan::open_segment;
use crate::tree::NodeId;

const INDEX: &str = "index.redb";
const HOUR_NS: u64 = 3_600_000_000_000;

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn index_of(disk: &MemoryDisk) -> AuditedIndex {
    audit(disk, &mut |_| ()).unwrap().index
}

fn matches(disk: &MemoryDisk) -> u64 {
    match index_of(disk) {
        AuditedIndex::Matches { rows } => rows,
        other => panic!("{other:?}"),
    }
}

/// Contexts, requests, payloads outside the runs, tiles, retired nodes.
fn fill(disk: &MemoryDisk, rounds: u64, options: &StoreOptions, clock: &ManualClock) {
    for round in 0..rounds {
        clock.set((round + 1) * HOUR_NS / 3);
        let store = try_open(disk, options.clone()).unwrap().store;
        for step in 0..4 {
            let mut drafts = Vec::new();
            for n in 0..20 {
                let name = format!("c{}", (round * 7 + n) % 40);
                let payload = vec![u8::try_from(n).unwrap(); if n == 3 { 5000 } else { 20 }];
                let request = format!("r{round}.{step}.{n}");
                let draft = Draft::new("k", payload).unwrap();
                drafts.push((id(&name), draft.with_request_id(&request).unwrap()));
                drafts.push((id("many"), Draft::new("k", "p").unwrap()));
            }
            store.append(drafts).unwrap();
            store.publish().unwrap();
        }
        store.close().unwrap();
    }
}

fn options_with(clock: &Arc<ManualClock>, segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        checkpoint_every: Duration::ZERO,
        clock: clock.clone(),
        ..options(segment_bytes)
    }
}

/// A store whose index has rows in every table.
fn filled() -> (MemoryDisk, StoreOptions) {
    let disk = new_disk();
    let clock = ManualClock::at(1);
    let options = options_with(&clock, 16 << 10);
    fill(&disk, 6, &options, &clock);
    (disk, options)
}

fn whole_index(disk: &MemoryDisk) -> Index {
    let start = Start::default();
    let (replayed, verdict) = replay_with(disk, start, &mut |_, _, _| Ok(())).unwrap();
    verdict.unwrap();
    replayed.index
}

#[test]
fn the_rows_on_disk_are_those_of_the_log_however_often_it_was_folded() {
    let disk = new_disk();
    let clock = ManualClock::at(1);
    let options = options_with(&clock, 16 << 10);
    for rounds in 1..6 {
        fill(&disk, rounds, &options, &clock);
        let rows = matches(&disk);
        assert!(rows > 100, "{rows}");
        // Made at once from the whole log, it has the rows of one made bit by
        // bit but for what was retired.
        let made = rebuild_index(&shared(&disk), &options).unwrap();
        assert_eq!(made.behind_bytes, 64);
        assert!(matches(&disk) > 100);
        assert_eq!(stats(&shared(&disk), None).unwrap().index, IndexFound::Good);
    }
    let paranoid = AuditOptions { paranoid: true };
    let report = audit_with(&disk, paranoid, &mut |_| ()).unwrap();
    assert_eq!(report.first_bad, None);
    assert_eq!(report.second_roots, Some(41));
}

/// A store whose index is made to hold rows that the log does not imply, with
/// right checks.
struct Lies {
    disk: MemoryDisk,
    keys: IndexKeys,
    index: Index,
}

impl Lies {
    fn new() -> Self {
        let disk = filled().0;
        let first = open_segment(&disk, 1, Access::Read).unwrap().unwrap();
        Self {
            keys: IndexKeys::of_store(&first.header.tag_key),
            index: whole_index(&disk),
            disk,
        }
    }

    /// The context with the most entries.
    fn many(&self) -> &TailContext {
        let mut contexts = self.index.tail.contexts();
        contexts.find(|c| c.state.name == Some(id("many"))).unwrap()
    }

    /// What an audit says when `lie` was folded in.
    fn fold(&self, lie: &Tail, state: impl Fn(StateRow) -> StateRow) -> AuditedIndex {
        let disk = self.disk.fork();
        let (mut checkpoint, row) = Checkpoint::open(&disk, &self.keys).unwrap().unwrap();
        checkpoint.fold(lie, &state(row)).unwrap();
        drop(checkpoint);
        index_of(&disk)
    }

    /// It is found, in this table.
    fn tell(&self, table: &str, what: &str, lie: impl FnOnce(&mut Tail)) {
        let mut tail = Tail::default();
        lie(&mut tail);
        is_found(table, what, self.fold(&tail, |row| row));
    }

    /// A tail with one run of `many` that begins at `first`, behind `base`.
    fn run(&self, tail: &mut Tail, first: u64, base: Accumulator, nodes: Vec<(NodeId, Hash)>) {
        let many = self.many();
        let mut place = many.runs[0];
        (place.first, place.last) = (first, first + place.last - place.first);
        let state = ContextState {
            after: base,
            // The run is counted again.
            run_bytes: many.state.run_bytes - u64::from(place.at.body_len),
            ..many.state.clone()
        };
        tail.touch(state, false);
        let run = RunAdded {
            place,
            after: many.state.after.clone(),
            nodes,
            requests: Vec::new(),
            payload_bytes: 0,
        };
        tail.add_run(many.state.number, run).unwrap();
    }
}

#[track_caller]
fn is_found(table: &str, what: &str, found: AuditedIndex) {
    let AuditedIndex::Differs { reason } = found else {
        panic!("{table}, {what}: {found:?}");
    };
    assert!(reason.starts_with(table), "{reason} instead of {table}");
    assert!(reason.contains(what), "{reason} instead of {what}");
}

const EXTRA: &str = "nothing in the log implies it";
const OTHER: &str = "not what the log implies";
const MISSING: &str = "rows are missing";

#[test]
fn a_lie_about_contexts_is_found() {
    let lies = Lies::new();
    let many = lies.many().state.clone();
    lies.tell("contexts.3", EXTRA, |tail| {
        tail.touch(
            ContextState::new(99, Some(id("more")), Position::default()),
            true,
        );
    });
    lies.tell("contexts.3", OTHER, |tail| {
        tail.touch(
            ContextState::new(99, Some(id("many")), Position::default()),
            true,
        );
    });
    lies.tell("accumulators.3", OTHER, |tail| {
        let requests = many.requests + 1;
        tail.touch(ContextState { requests, ..many }, false);
    });
}

#[test]
fn a_lie_about_runs_and_tiles_is_found() {
    let lies = Lies::new();
    let after = &lies.many().state.after;
    lies.tell("runs.3", EXTRA, |tail| {
        lies.run(tail, after.size() + 1, after.clone(), Vec::new());
    });
    lies.tell("tiles.3", OTHER, |tail| {
        let wrong = |index| (NodeId { level: 4, index }, after.root());
        let nodes = (0..after.size() / 16).map(wrong).collect();
        lies.run(tail, 1, Accumulator::default(), nodes);
    });
}

#[test]
fn a_lie_about_payloads_and_requests_is_found() {
    let lies = Lies::new();
    let (payload, _) = lies.index.tail.payloads.iter().next().unwrap();
    let (request, sequence) = lies.index.tail.requests.iter().next().unwrap();
    lies.tell("payloads.3", EXTRA, |tail| {
        tail.add_payload(lies.index.published.root(), Location::default());
    });
    lies.tell("payloads.3", OTHER, |tail| {
        tail.add_payload(*payload, Location::default());
    });
    lies.tell("requests.3", EXTRA, |tail| {
        tail.requests.insert((request.0, [9; 16]), *sequence);
    });
}

#[test]
fn a_lie_about_the_directory_is_found() {
    let lies = Lies::new();
    let root = lies.index.published.root();
    let other = Hash::from_bytes([9; 32]);
    let retire = |tail: &mut Tail, bytes, nodes: &[Hash]| {
        let (at_ns, nodes) = (2 * HOUR_NS, nodes.to_vec());
        let retired = Retired {
            at_ns,
            bytes,
            nodes,
        };
        tail.add_directory(Vec::new(), retired);
    };
    lies.tell("directory.3", EXTRA, |tail| {
        tail.nodes.insert(other, vec![1]);
    });
    lies.tell("directory.3", OTHER, |tail| {
        tail.nodes.insert(root, vec![1]);
    });
    lies.tell("directory.3", MISSING, |tail| tail.dropped.push(root));
    lies.tell("directory.3", MISSING, |tail| retire(tail, 0, &[root]));
    lies.tell("directory.3", MISSING, |tail| retire(tail, 1, &[]));
    lies.tell("directory.3", "not what its hash says", |tail| {
        tail.nodes.insert(other, vec![1]);
        retire(tail, 1, &[other]);
    });
    lies.tell("retired.3", "retired twice", |tail| {
        retire(tail, 0, &[other, other]);
    });
}

#[test]
fn a_lie_about_the_whole_is_found() {
    let lies = Lies::new();
    let none = Tail::default();
    let entries = |row: StateRow| StateRow {
        entries: row.entries + 1,
        ..row
    };
    is_found("state.3", OTHER, lies.fold(&none, entries));
    let head = |row: StateRow| StateRow { head: None, ..row };
    is_found("state.3", OTHER, lies.fold(&none, head));
    let truth = lies.fold(&none, |row| row);
    assert!(matches!(truth, AuditedIndex::Matches { .. }), "{truth:?}");
}

#[test]
fn an_index_that_somebody_writes_is_left_alone() {
    let (disk, options) = filled();
    let store = try_open(&disk, options.clone()).unwrap().store;
    let reason = "in use".to_owned();
    assert_eq!(index_of(&disk), AuditedIndex::NotCompared { reason });
    let busy = stats(&shared(&disk), None).unwrap();
    assert_eq!((busy.in_use, busy.checkpoint), (Some(true), None));
    assert!(matches!(busy.index, IndexFound::NotRead { .. }));
    let refused = rebuild_index(&shared(&disk), &options);
    assert!(matches!(refused, Err(StoreError::Locked)));
    store.close().unwrap();
    drop(store);
    let free = stats(&shared(&disk), None).unwrap();
    assert_eq!((free.in_use, &free.index), (Some(false), &IndexFound::Good));
    assert_eq!((free.contexts, free.entries), (busy.contexts, busy.entries));
}

#[test]
fn bytes_are_counted_over_segments() {
    let disk = new_disk();
    let clock = ManualClock::at(1);
    let options = options_with(&clock, 16 << 10);
    fill(&disk, 2, &options, &clock);
    let old = disk.bytes(INDEX).unwrap();
    let before = stats(&shared(&disk), None).unwrap();
    fill(&disk, 3, &options, &clock);
    disk.set_bytes(INDEX, old);
    let after = stats(&shared(&disk), None).unwrap();
    assert!(after.segments > before.segments + 1);
    let in_files: usize = (1..=after.segments)
        .map(|number| disk.bytes(&format!("log/{number:010}.seg")).unwrap().len())
        .sum();
    assert_eq!(after.log_bytes, in_files as u64);
    let (was, is) = (before.checkpoint.unwrap(), after.checkpoint.unwrap());
    assert_eq!((was.position, was.time_ns), (is.position, is.time_ns));
    let grown = after.log_bytes - before.log_bytes;
    assert_eq!(is.behind_bytes, was.behind_bytes + grown);
    // Little more than that was read; without the index, all of it is.
    assert!(after.bytes_read < is.behind_bytes + 4096);
    disk.remove(INDEX).unwrap();
    let without = stats(&shared(&disk), None).unwrap();
    assert_eq!(
        (without.index, without.checkpoint),
        (IndexFound::None, None)
    );
    assert_eq!(without.bytes_read, after.log_bytes);
    assert_eq!(
        (without.contexts, without.entries, without.head),
        (after.contexts, after.entries, after.head)
    );
}

#[test]
fn the_reserve_is_what_lies_ready() {
    let disk = new_disk();
    let with_reserve = StoreOptions {
        reserve_bytes: 64 << 10,
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, with_reserve).unwrap().store;
    let mut crashed = disk.fork();
    for _ in 0..200 {
        put(&store, "c", &["p"; 3]);
        crashed = disk.fork();
        let stats = stats(&shared(&crashed), None).unwrap();
        let len = crashed.bytes("log/0000000001.seg").unwrap().len();
        assert_eq!(stats.log_bytes + stats.reserve_bytes, len as u64);
        assert_eq!(stats.in_use, Some(false));
        if stats.reserve_bytes > 0 {
            break;
        }
    }
    assert!(stats(&shared(&crashed), None).unwrap().reserve_bytes > 0);
    store.close().unwrap();
    assert_eq!(stats(&shared(&disk), None).unwrap().reserve_bytes, 0);
}

#[test]
fn what_a_failed_process_left_is_mended_first() {
    let (disk, options) = filled();
    disk.set_bytes("failed", Vec::new());
    let index = disk.bytes(INDEX);
    let refused = rebuild_index(&shared(&disk), &options);
    assert!(matches!(refused, Err(StoreError::NotClosed)));
    assert_eq!(disk.bytes(INDEX), index);
    let found = stats(&shared(&disk), None).unwrap();
    assert!(matches!(found.index, IndexFound::Wanting { .. }));
    assert_eq!(found.checkpoint, None);
    assert!(matches!(index_of(&disk), AuditedIndex::NotCompared { .. }));
}

/// Whatever fails on the way, the old index is there until the new one is.
#[test]
fn without_a_new_index_the_old_one_stays() {
    let (disk, options) = filled();
    let index = disk.bytes(INDEX);
    let kinds = [
        (FaultKind::Write, std::io::ErrorKind::StorageFull),
        (FaultKind::Write, std::io::ErrorKind::Other),
        (FaultKind::Sync, std::io::ErrorKind::Other),
        (FaultKind::Rename, std::io::ErrorKind::Other),
    ];
    for (kind, error) in kinds {
        let mut failures = 0;
        for after in (0..4).chain((4..).step_by(7)) {
            let disk = disk.fork();
            disk.set_fault(Some(Fault { kind, after, error }));
            match rebuild_index(&shared(&disk), &options) {
                Ok(_) => {
                    disk.set_fault(None);
                    matches(&disk);
                    break;
                }
                Err(StoreError::DiskFull) => {
                    assert_eq!(error, std::io::ErrorKind::StorageFull);
                }
                Err(StoreError::Io { what, .. }) => assert_eq!(what, "make the index"),
                Err(other) => panic!("{other:?}"),
            }
            failures += 1;
            disk.set_fault(None);
            assert!(disk.bytes(INDEX) == index, "{kind:?} {after}");
            assert_eq!(disk.bytes("index.redb.new"), None);
            matches(&disk);
        }
        assert!(failures > 0, "{kind:?} never failed");
    }
}

/// Entries that no head covers, and a last group that nothing vouches for.
#[test]
fn a_log_that_was_not_closed_is_covered_as_far_as_it_may_be() {
    let disk = new_disk();
    let options = StoreOptions {
        checkpoint_every: Duration::from_hours(1),
        ..options(SEGMENT_BYTES_DEFAULT)
    };
    let store = try_open(&disk, options.clone()).unwrap().store;
    put(&store, "a", &["1", "2"]);
    store.publish().unwrap();
    // Goes through the writer after the head's note.
    store.append(Vec::new()).unwrap();
    let headed = disk.fork();
    put(&store, "a", &["3"]);
    let unsigned = disk.fork();
    store.close().unwrap();
    // `head.note` vouches for the head.
    let made = rebuild_index(&shared(&headed), &options).unwrap();
    assert_eq!(made.entries, 2);
    assert!(made.behind_bytes <= 64, "a mark at most");
    matches(&headed);
    let head_end = usize::try_from(made.position.unwrap().offset()).unwrap();
    // No head covers the third entry.
    let log = unsigned.bytes("log/0000000001.seg");
    let made = rebuild_index(&shared(&unsigned), &options).unwrap();
    assert_eq!((made.entries, made.position), (3, None));
    assert_eq!(unsigned.bytes("log/0000000001.seg"), log);
    assert_eq!(index_of(&unsigned), AuditedIndex::None);
    // Nothing vouches for the head: it may be lost with the power.
    headed.remove("head.note").unwrap();
    headed.remove(INDEX).unwrap();
    let mut log = headed.bytes("log/0000000001.seg").unwrap();
    log.truncate(head_end);
    headed.set_bytes("log/0000000001.seg", log);
    let made = rebuild_index(&shared(&headed), &options).unwrap();
    assert_eq!((made.entries, made.position), (2, None));
    assert_eq!(headed.bytes(INDEX), None);
    let told = stats(&shared(&headed), None).unwrap();
    assert_eq!((told.entries, told.head), (2, None));
    for disk in [headed, unsigned] {
        let store = open(&disk);
        assert!(payloads(store.view(), "a").len() >= 2);
        store.close().unwrap();
        drop(store);
        matches(&disk);
    }
}

#[test]
fn a_mirror_in_mid_sync_has_an_index_too() {
    use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
    let source_disk = new_disk();
    let source = open(&source_disk);
    put(&source, "a", &["1", "2", "3"]);
    put(&source, "b", &["4"]);
    source.publish().unwrap();
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let (_, seen) = seen(source.view(), &["a", "b"]);
    ingest(&mirror, crate::ledger::Ingest::Seen(seen.clone())).unwrap();
    let (span, payloads) = span(source.view(), mirror.view(), &seen.openings[0]);
    ingest(&mirror, crate::ledger::Ingest::Span { span, payloads }).unwrap();
    mirror.close().unwrap();
    drop(mirror);
    let rows = matches(&disk);
    let options = options(SEGMENT_BYTES_DEFAULT);
    let made = rebuild_index(&shared(&disk), &options).unwrap();
    assert!((1..4).contains(&made.entries));
    assert_eq!(matches(&disk), rows);
    // What no complete head covers is not shown.
    let stats = stats(&shared(&disk), None).unwrap();
    assert_eq!((stats.entries, stats.index), (0, IndexFound::Good));
}

#[test]
fn a_lie_about_heads_is_found() {
    let lies = Lies::new();
    let (order, row) = lies.index.tail.heads.iter().next_back().unwrap();
    let (order, row) = (*order, *row);
    let later = HeadOrder {
        epoch: order.epoch + 1,
        ..order
    };
    lies.tell("heads.3", EXTRA, |tail| tail.add_head(later, row));
    lies.tell("heads.3", OTHER, |tail| {
        let first = !row.first;
        tail.add_head(order, HeadRow { first, ..row });
    });
    lies.tell("heads.3", OTHER, |tail| {
        let at = Location::default();
        tail.add_head(order, HeadRow { at, ..row });
    });
    // Whom the store believes is part of the whole.
    let none = Tail::default();
    let trust = |mut row: StateRow| {
        row.trust.push(Location::default());
        row
    };
    is_found("state.3", OTHER, lies.fold(&none, trust));
}
