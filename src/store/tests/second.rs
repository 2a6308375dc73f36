//! The second implementation of the tree: what it says counts.

use super::*;
use crate::hash::Hash;
use crate::store::audit::second::{DISAGREE, SecondOpinion};
use crate::store::index::{ContextState, Index};
use crate::store::recover::{Replayed, Start, replay_with};
use crate::store::replay::ReplayError;
use crate::tree::Frontier;

/// A store whose last process was killed: its last group is written again, and
/// nothing was cut.
fn killed() -> MemoryDisk {
    let disk = new_disk();
    let store = open(&disk);
    put(&store, "a", &["one", "two"]);
    put(&store, "b", &["three"]);
    disk.fork()
}

/// No head unless it is asked for.
fn quiet() -> StoreOptions {
    StoreOptions {
        checkpoint_every: Duration::from_hours(1),
        ..options(SEGMENT_BYTES_DEFAULT)
    }
}

/// The same size, another root.
fn another_root(state: &mut ContextState) {
    let frontier = &state.after.frontier;
    let mut peaks = frontier.peaks().to_vec();
    peaks[0] = Hash::from_bytes([9; 32]);
    state.after.frontier = Frontier::from_parts(frontier.size(), peaks).unwrap();
}

fn number(index: &Index, name: &str) -> u64 {
    index.tail.number(&id(name)).unwrap()
}

#[test]
fn what_two_implementations_disagree_on_is_not_signed() {
    let disk = killed();
    let opened = try_open(&disk, quiet()).unwrap();
    assert!(opened.rewritten_bytes > 0);
    let store = opened.store;
    store.view().tamper(|index| {
        let number = number(index, "b");
        index.tail.tamper(number, another_root);
    });
    let log = disk.bytes("log/0000000001.seg").unwrap();
    let refused = store.publish().unwrap_err().to_string();
    assert!(refused.contains("two roots"), "{refused}");
    assert!(store.view().head().is_none());
    // Neither is anything else, from here on.
    assert!(store.publish().is_err());
    assert!(store.append(vec![(id("a"), draft("four"))]).is_err());
    let _ = store.close();
    drop(store);
    let after = disk.bytes("log/0000000001.seg").unwrap();
    assert!(after.starts_with(&log));
    assert!(after[log.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(disk.bytes("head.note"), None);
    // The log is sound, and opening anew is the way on.
    let store = open(&disk);
    let head = store.publish().unwrap();
    assert_eq!((head.head().contexts, head.head().entries), (2, 3));
}

#[test]
fn what_two_implementations_agree_on_is_signed() {
    let store = try_open(&killed(), quiet()).unwrap().store;
    assert_eq!(store.publish().unwrap().head().entries, 3);
}

/// What an audit keeps of a log, with a second opinion on it.
fn seen(disk: &MemoryDisk) -> (Replayed, SecondOpinion) {
    let mut second = SecondOpinion::default();
    let (replayed, verdict) = replay_with(disk, Start::default(), &mut |_, group, _| {
        let seen = second.see(group);
        seen.map_err(|(at, error)| ReplayError::Log(at, error.into()))
    })
    .unwrap();
    verdict.unwrap();
    (replayed, second)
}

#[test]
fn an_audit_names_the_context_that_has_two_roots() {
    let disk = killed();
    let (replayed, second) = seen(&disk);
    assert_eq!(second.compare(&replayed.index), (2, None));
    let (mut replayed, second) = seen(&disk);
    let number = number(&replayed.index, "b");
    replayed.index.tail.tamper(number, another_root);
    let (agree, bad) = second.compare(&replayed.index);
    let bad = bad.unwrap();
    assert_eq!((agree, bad.context.as_deref()), (1, Some("b")));
    assert_eq!(bad.reason, DISAGREE);
    assert!(bad.position > Position::default());
    // An entry more or less is another root as well.
    let (mut replayed, second) = seen(&disk);
    replayed.index.tail.tamper(number, |state| {
        state.after = crate::run::Accumulator::default();
    });
    assert_eq!(second.compare(&replayed.index).0, 1);
}

#[test]
fn a_paranoid_audit_recomputes_every_root() {
    let disk = new_disk();
    let store = open(&disk);
    for n in 0..50 {
        for _ in 0..=n % 7 {
            let payloads = vec!["p"; n + 1];
            put(&store, &format!("c{n}"), &payloads);
        }
    }
    store.close().unwrap();
    drop(store);
    let report = audit_with(&disk, AuditOptions { paranoid: true }, &mut |_| ()).unwrap();
    assert_eq!((report.first_bad, report.second_roots), (None, Some(50)));
    assert!(matches!(report.index, AuditedIndex::Matches { .. }));
}
