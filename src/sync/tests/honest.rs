//! Engines that keep to the protocol: whole, incremental, interrupted.

use super::{large, ledger, texts};
use crate::sync::Outcome;
use crate::sync::message::Kind;
use crate::sync::testing::{End, FakeLedger, FakeMirror, Pair};

#[test]
fn an_honest_sync_reaches_the_signed_root_whatever_the_order() {
    let l = ledger();
    for seed in 0..40 {
        let store = FakeMirror::default();
        let mut pair = Pair::new(&l, &store);
        pair.seed = (seed > 0).then_some(seed);
        let report = pair.sync().report();
        assert_eq!(report.outcome, Outcome::CaughtUp);
        assert_eq!(report.head, l.head, "seed {seed}");
        assert_eq!(
            (report.contexts_changed, report.entries),
            (24, 700 + 1 + 3 + 2 + 60)
        );
        let bytes: usize = pair.kinds.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(report.received_bytes, bytes as u64);
        assert_eq!(
            store.complete_root(),
            Some(l.head.as_ref().unwrap().head().directory_root)
        );
        store.assert_beginning_of(&l);
    }
}

#[test]
fn payloads_are_fetched_once() {
    let l = ledger();
    for seed in 0..40 {
        let store = FakeMirror::default();
        let mut pair = Pair::new(&l, &store);
        pair.seed = Some(seed);
        pair.sync().report();
        let payloads = pair.kinds.iter().filter(|(k, _)| *k == Kind::Payload);
        assert_eq!(payloads.count(), 3, "seed {seed}");
    }
}

#[test]
fn a_sync_resumes_wherever_it_was_cut() {
    let l = ledger();
    for seed in 1..6 {
        let whole = FakeMirror::default();
        let mut pair = Pair::new(&l, &whole);
        pair.seed = Some(seed);
        let all = pair.sync().report();
        for cut in 0..whole.items() {
            let store = FakeMirror::default();
            let mut pair = Pair::new(&l, &store);
            pair.seed = Some(seed);
            pair.cut_after = Some(cut);
            assert!(matches!(pair.sync(), End::Cut));
            store.assert_beginning_of(&l);
            let report = Pair::new(&l, &store).sync().report();
            assert_eq!(store.complete_root(), whole.complete_root());
            // Nothing stored is fetched again: each item stored before leaves
            // something out, so a second sync never costs more than the first.
            assert!(report.received_bytes <= all.received_bytes);
            // The cut sync's items, the second's, but `Seen` only once: it is
            // the first item, unless the cut came before it.
            assert!(store.items() <= whole.items() + 1 + cut);
        }
    }
}

#[test]
fn a_cut_sync_resumes_under_a_newer_head() {
    let mut l = ledger();
    let store = FakeMirror::default();
    let mut pair = Pair::new(&l, &store);
    pair.seed = Some(3);
    pair.cut_after = Some(9);
    assert!(matches!(pair.sync(), End::Cut));
    l.append("long", &texts(0..9));
    l.append("new", &texts(0..9));
    l.publish();
    let report = Pair::new(&l, &store).sync().report();
    assert_eq!(report.head, l.head);
    store.assert_beginning_of(&l);
}

#[test]
fn an_incremental_sync_transfers_only_what_is_new() {
    let mut l = ledger();
    let store = FakeMirror::default();
    Pair::new(&l, &store).sync().report();
    l.append("long", &texts(0..4));
    l.publish();
    let new_run = l.runs_of("long").last().unwrap().len();
    let mut pair = Pair::new(&l, &store);
    let report = pair.sync().report();
    assert_eq!((report.contexts_changed, report.entries), (1, 4));
    let spans: Vec<usize> = pair
        .kinds
        .iter()
        .filter(|k| k.0 == Kind::Span)
        .map(|k| k.1)
        .collect();
    // No hashes to the right of the signed size: frame, span, run length.
    assert_eq!(spans, [5 + 24 + 4 + new_run]);
    assert!(report.received_bytes < 6000, "{report:?}");
}

#[test]
fn equal_roots_end_a_sync_in_one_round_trip() {
    let mut l = ledger();
    let store = FakeMirror::default();
    Pair::new(&l, &store).sync().report();
    let items = store.items();
    let mut pair = Pair::new(&l, &store);
    assert_eq!(pair.sync().report().outcome, Outcome::Current);
    assert_eq!((pair.kinds.len(), store.items()), (1, items));
    // A heartbeat: a newer head over the same directory is noted, no more.
    l.publish();
    let mut pair = Pair::new(&l, &store);
    let report = pair.sync().report();
    assert_eq!((report.outcome, report.entries), (Outcome::CaughtUp, 0));
    assert_eq!((pair.kinds.len(), store.items()), (1, items + 2));
}

#[test]
fn an_empty_source_and_an_empty_head() {
    let mut l = FakeLedger::new(1);
    let store = FakeMirror::default();
    assert_eq!(
        Pair::new(&l, &store).sync().report().outcome,
        Outcome::Nothing
    );
    l.publish();
    assert_eq!(
        Pair::new(&l, &store).sync().report().outcome,
        Outcome::CaughtUp
    );
    let empty = FakeLedger::new(1);
    assert_eq!(
        Pair::new(&empty, &store).sync().report().outcome,
        Outcome::Behind
    );
}

#[test]
fn a_source_that_is_behind_changes_nothing() {
    let old = ledger();
    let mut l = old.clone();
    l.append("short", &texts(0..1));
    l.publish();
    let store = FakeMirror::default();
    Pair::new(&l, &store).sync().report();
    let items = store.items();
    let mut pair = Pair::new(&old, &store);
    let report = pair.sync().report();
    assert_eq!(
        (report.outcome, report.head),
        (Outcome::Behind, old.head.clone())
    );
    // What differs is compared: the root, and the way to one context.
    assert!((2..6).contains(&pair.kinds.len()), "{:?}", pair.kinds);
    assert_eq!(store.items(), items);
}

#[test]
fn more_payloads_than_fit_a_request_go_ahead_of_their_span() {
    let mut l = FakeLedger::new(1);
    // One run, 70 payloads, 20 MiB.
    let payloads: Vec<Vec<u8>> = (0..70).map(|n| large(n, 300 << 10)).collect();
    l.append("a", &payloads);
    l.append("b", &payloads[10..30]);
    l.publish();
    for seed in 0..3 {
        let store = FakeMirror::default();
        let mut pair = Pair::new(&l, &store);
        pair.seed = (seed > 0).then_some(seed);
        pair.sync().report();
        let payloads = pair.kinds.iter().filter(|(k, _)| *k == Kind::Payload);
        assert_eq!(payloads.count(), 70);
    }
}

#[test]
fn a_long_context_takes_several_requests() {
    let mut l = FakeLedger::new(1);
    let payloads: Vec<Vec<u8>> = (0..6u8)
        .flat_map(|_| 0..=249)
        .map(|n| large(n, 4000))
        .collect();
    l.append("a", &payloads);
    l.append("b", &payloads[..20]);
    l.publish();
    let store = FakeMirror::default();
    let mut pair = Pair::new(&l, &store);
    pair.sync().report();
    let begins = pair
        .kinds
        .iter()
        .filter(|(k, _)| *k == Kind::EntriesBegin)
        .count();
    assert!((3..6).contains(&begins), "{begins}");
    assert!(pair.kinds.iter().all(|(_, bytes)| *bytes <= 5 + (2 << 20)));
}
