//! Origins that sign two histories, seen by a mirror through one peer at a time.

use super::{large, texts};
use crate::directory::Opening;
use crate::evidence::{Evidence, Kind, Verdict};
use crate::ledger::ReadMirror;
use crate::sync::message::{Reply, Request};
use crate::sync::testing::{End, FakeLedger, FakeMirror, Pair};
use crate::sync::{LocalFault, Outcome, PeerFault, SyncError};

type Contexts<'a> = &'a [(&'a str, std::ops::Range<usize>)];

/// An origin's ledger with these contexts under one head of this epoch.
fn of(epoch: u64, contexts: Contexts<'_>) -> FakeLedger {
    let mut l = FakeLedger::new(1);
    for (id, range) in contexts {
        l.append(id, &texts(range.clone()));
    }
    l.epoch = epoch - 1;
    l.publish();
    l
}

/// Many contexts that are the same in every history, so that paths are long.
fn crowd(l: &mut FakeLedger) {
    for n in 0..40 {
        l.append(&format!("crowd {n}"), &texts(0..2));
    }
}

/// With a crowd around what is told.
fn among(epoch: u64, contexts: Contexts<'_>) -> FakeLedger {
    let mut l = FakeLedger::new(1);
    crowd(&mut l);
    for (id, range) in contexts {
        l.append(id, &texts(range.clone()));
    }
    l.epoch = epoch - 1;
    l.publish();
    l
}

/// A mirror of a ledger, complete.
pub(super) fn mirror_of(l: &FakeLedger) -> FakeMirror {
    let store = FakeMirror::default();
    Pair::new(l, &store).sync().report();
    store
}

/// Evidence of the error, checked as an auditor would.
pub(super) fn forked(error: SyncError, l: &FakeLedger) -> Verdict {
    let SyncError::Forked(fork) = error else {
        panic!("no evidence: {error}");
    };
    let read = Evidence::parse(&fork.evidence.to_bytes()).unwrap();
    assert_eq!(read, fork.evidence);
    let verdict = read.verify(&l.vkey()).unwrap();
    assert_eq!(verdict, fork.verdict);
    verdict
}

/// Shows another history to a mirror, which must see it; what it holds stays.
fn accused(store: &FakeMirror, other: &FakeLedger) -> Verdict {
    let (root, items) = (store.complete_root(), store.items());
    let verdict = forked(Pair::new(other, store).sync().error(), other);
    assert_eq!(store.complete_root(), root);
    let state = store.fork().unwrap().unwrap();
    assert_eq!(state.verdict, verdict.to_string());
    assert!(store.items() > items);
    // From now on nobody is asked any more.
    let mut again = Pair::new(other, store);
    assert!(matches!(
        again.sync().error(),
        SyncError::Local(LocalFault::Forked { .. })
    ));
    assert!(again.kinds.is_empty());
    // Until an operator has said which branch is followed: then the other one is
    // known for what it is.
    let held = store.complete_head().unwrap().unwrap();
    store.resolve(&held);
    let error = Pair::new(other, store).sync().error();
    let SyncError::Peer(fault) = error else {
        panic!("{error}");
    };
    assert!(matches!(*fault, PeerFault::OtherBranch), "{fault}");
    verdict
}

#[test]
fn texts_alone() {
    let held = of(5, &[("a", 0..10), ("b", 0..10)]);
    for (kind, epoch, other) in [
        (Kind::TwoTexts, 5, of(5, &[("a", 0..10), ("b", 0..11)])),
        (Kind::Counts, 6, of(6, &[("a", 0..10), ("b", 0..9)])),
        (Kind::Counts, 6, of(6, &[("a", 0..10), ("b", 1..11)])),
        (Kind::Counts, 6, of(6, &[("a", 0..20)])),
        (Kind::Counts, 4, of(4, &[("a", 0..10), ("b", 0..11)])),
    ] {
        let store = mirror_of(&held);
        let verdict = accused(&store, &other);
        assert_eq!((verdict.kind, verdict.context), (kind, None));
        assert_eq!(verdict.later.epoch, epoch.max(5));
    }
}

#[test]
fn what_a_newer_directory_takes_back() {
    for make in [of, among] {
        let held = make(1, &[("a", 0..10), ("b", 0..10)]);
        for (kind, id, other) in [
            (Kind::Shrunk, "a", make(2, &[("a", 0..9), ("b", 0..20)])),
            (Kind::Dropped, "a", make(2, &[("c", 0..10), ("b", 0..20)])),
            (Kind::Dropped, "b", make(2, &[("a", 0..20), ("c", 0..1)])),
            (Kind::OtherRoot, "a", make(2, &[("a", 1..11), ("b", 0..20)])),
            (Kind::Rewritten, "a", make(2, &[("a", 1..12), ("b", 0..10)])),
        ] {
            let store = mirror_of(&held);
            let verdict = accused(&store, &other);
            assert_eq!(verdict.kind, kind);
            assert_eq!(verdict.context.unwrap().as_str(), id);
            store.assert_beginning_of(&held);
        }
    }
}

#[test]
fn what_an_older_directory_says_otherwise() {
    for make in [of, among] {
        let held = make(9, &[("a", 0..10), ("b", 0..10), ("c", 0..300)]);
        for (kind, id, other) in [
            (Kind::Shrunk, "a", make(8, &[("a", 0..11), ("b", 0..2)])),
            (Kind::Dropped, "z", make(8, &[("a", 0..10), ("z", 0..1)])),
            (Kind::OtherRoot, "a", make(8, &[("a", 1..11), ("b", 0..2)])),
            (Kind::Rewritten, "a", make(8, &[("a", 1..5)])),
            (Kind::Rewritten, "c", make(8, &[("c", 7..270), ("a", 0..2)])),
        ] {
            let store = mirror_of(&held);
            let verdict = accused(&store, &other);
            assert_eq!(verdict.kind, kind);
            assert_eq!(verdict.context.unwrap().as_str(), id);
        }
        // What it says is true: the source is behind, and that is all.
        let store = mirror_of(&held);
        let older = {
            let mut l = FakeLedger::new(1);
            if make(1, &[]).head.unwrap().head().contexts > 0 {
                crowd(&mut l);
            }
            l.append("a", &texts(0..4));
            l.append("c", &texts(0..257));
            l.epoch = 3;
            l.publish();
            l
        };
        let report = Pair::new(&older, &store).sync().report();
        assert_eq!(report.outcome, Outcome::Behind);
        assert!(store.fork().unwrap().is_none());
    }
}

/// A mirror that has a complete head 1 and was cut when it had stored `items`
/// under head 2.
pub(super) fn cut_under(first: &FakeLedger, second: &FakeLedger, items: usize) -> FakeMirror {
    let store = mirror_of(first);
    let mut pair = Pair::new(second, &store);
    pair.seed = Some(1);
    pair.cut_after = Some(items);
    assert!(matches!(pair.sync(), End::Cut));
    store
}

#[test]
fn a_pending_head_counts_as_a_complete_one() {
    let first = among(1, &[("a", 0..4)]);
    let mut second = first.clone();
    second.append("a", &texts(4..10));
    second.append("b", &texts(0..10));
    second.publish();
    let make = |epoch: u64, contexts: Contexts<'_>| {
        let mut l = first.clone();
        for (id, range) in contexts {
            l.append(id, &texts(range.clone()));
        }
        l.epoch = epoch - 1;
        l.publish();
        l
    };
    for items in [1, 2] {
        for (kind, other) in [
            (Kind::TwoTexts, make(2, &[("b", 0..30)])),
            (Kind::Counts, make(3, &[("b", 0..3)])),
            (Kind::Shrunk, make(3, &[("a", 4..9), ("b", 0..30)])),
            (Kind::Dropped, make(3, &[("a", 4..30), ("c", 0..1)])),
            (Kind::OtherRoot, make(3, &[("a", 5..11), ("b", 0..30)])),
            (Kind::Rewritten, make(3, &[("a", 5..15), ("b", 0..10)])),
            (Kind::Rewritten, make(3, &[("a", 4..10), ("b", 1..15)])),
        ] {
            let store = cut_under(&first, &second, items);
            let error = Pair::new(&other, &store).sync().error();
            assert_eq!(forked(error, &other).kind, kind, "{items}");
            assert_eq!(
                store.complete_root(),
                Some(first.head.as_ref().unwrap().head().directory_root)
            );
        }
        // The head between them, which both extend.
        let store = cut_under(&first, &second, items);
        let between = make(2, &[("a", 4..6)]);
        let mut newer = second.clone();
        newer.epoch = 2;
        newer.publish();
        let store_of_newer = cut_under(&first, &newer, items);
        let report = Pair::new(&between, &store_of_newer).sync().report();
        assert_eq!(report.outcome, Outcome::CaughtUp);
        // And one that neither does.
        let store_of_newer = cut_under(&first, &newer, items);
        let other = make(2, &[("z", 0..1)]);
        let error = Pair::new(&other, &store_of_newer).sync().error();
        assert_eq!(forked(error, &other).kind, Kind::Dropped);
        // Going on is no contradiction.
        Pair::new(&newer, &store).sync().report();
        Pair::new(&second, &cut_under(&first, &second, items))
            .sync()
            .report();
    }
}

#[test]
fn without_its_proof_a_contradiction_is_disputed() {
    let held = among(1, &[("a", 0..10), ("b", 0..10)]);
    for other in [
        among(2, &[("a", 1..12), ("b", 0..10)]),
        among(2, &[("a", 0..9), ("b", 0..20)]),
    ] {
        let honest = mirror_of(&held);
        let mut pair = Pair::new(&other, &honest);
        let SyncError::Forked(fork) = pair.sync().error() else {
            panic!("no evidence");
        };
        let frames = pair.kinds.len();
        // The proof, and the nodes of the path, are the last that is asked for.
        let context = fork.evidence.context.unwrap();
        let last = context.later_directory.nodes.len() + usize::from(context.rewritten.is_some());
        assert!(last > 1);
        for target in frames - last..frames {
            for how in 0..4 {
                let store = mirror_of(&held);
                let items = store.items();
                let end = Pair::new(&other, &store).tampered(&mut |n, request, mut frame| {
                    if n != target {
                        return vec![frame];
                    }
                    match how {
                        0 => vec![],
                        1 => {
                            *frame.last_mut().unwrap() ^= 1;
                            vec![frame]
                        }
                        2 => vec![
                            Reply::Refused(crate::sync::message::Refusal::NotServed)
                                .encode()
                                .unwrap(),
                        ],
                        _ => match request {
                            Request::Nodes { hashes } => {
                                let hash = hashes[0];
                                let gone = crate::sync::message::NodeAnswer { hash, node: None };
                                let answers = vec![gone];
                                vec![Reply::Nodes { answers }.encode().unwrap()]
                            }
                            _ => vec![],
                        },
                    }
                });
                let error = end.error();
                let SyncError::Peer(fault) = &error else {
                    panic!("{error}");
                };
                let told = matches!(
                    **fault,
                    PeerFault::Disputed { .. }
                        // It does not serve the entries either: it has other runs.
                        | PeerFault::Refused { .. } | PeerFault::Malformed(_) | PeerFault::Directory(_)
                );
                assert!(told, "{target} of {frames}, {how}: {fault}");
                assert!(store.fork().unwrap().is_none());
                assert!(store.items() <= items + 2);
            }
        }
    }
}

#[test]
fn a_source_restored_from_a_backup_is_behind_and_then_goes_on() {
    let mut l = FakeLedger::new(1);
    crowd(&mut l);
    l.append("a", &[large(1, 5000)]);
    l.publish();
    let backup = l.clone();
    l.append("a", &texts(0..300));
    l.append("b", &texts(0..3));
    l.publish();
    let store = mirror_of(&l);
    let report = Pair::new(&backup, &store).sync().report();
    assert_eq!(report.outcome, Outcome::Behind);
    assert_eq!(
        Pair::new(&l, &store).sync().report().outcome,
        Outcome::Current
    );
    assert!(store.fork().unwrap().is_none());
    // It signs anew what it had signed already: that is another history.
    let mut restored = backup;
    restored.append("a", &texts(500..501));
    restored.epoch += 2;
    restored.publish();
    assert_eq!(accused(&store, &restored).kind, Kind::Counts);
}

#[test]
fn an_older_head_that_is_known_is_not_compared() {
    // The complete head of a mirror that has seen a newer one.
    let first = of(1, &[("a", 0..10)]);
    let mut second = first.clone();
    second.append("a", &texts(10..20));
    second.publish();
    let store = cut_under(&first, &second, 1);
    let mut pair = Pair::new(&first, &store);
    assert_eq!(pair.sync().report().outcome, Outcome::Behind);
    assert_eq!(pair.kinds.len(), 1);
}

#[test]
fn openings_of_an_older_directory_are_checked() {
    let held = of(9, &[("a", 0..10)]);
    let older = of(8, &[("a", 0..4)]);
    let store = mirror_of(&held);
    let end = Pair::new(&older, &store).tampered(&mut |_, _, frame| {
        let Ok(Reply::Nodes { mut answers }) = Reply::decode(&frame) else {
            return vec![frame];
        };
        // A root that the origin never signed for that size.
        let node = answers[0].node.as_mut().unwrap();
        let Opening { root, .. } = &mut node.openings[0];
        *root = crate::hash::content(b"other");
        vec![Reply::Nodes { answers }.encode().unwrap()]
    });
    let error = end.error();
    assert!(
        matches!(&error, SyncError::Peer(fault) if matches!(**fault, PeerFault::Directory(_))),
        "{error}"
    );
}
