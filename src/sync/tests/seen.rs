//! Heads that were seen and could not be completed: somebody shows them and does
//! not serve them, or was cut off. They keep nobody from an older head, and what
//! they say stays held.

use super::evidence::{cut_under, forked, mirror_of};
use super::{large, texts};
use crate::evidence::Kind;
use crate::ledger::ReadMirror;
use crate::sync::message::{Refusal, Reply, Request};
use crate::sync::testing::{End, FakeLedger, FakeMirror, Pair};
use crate::sync::{Outcome, PeerFault, SyncError};

/// A history with a head after each step.
fn history() -> Vec<FakeLedger> {
    let mut l = FakeLedger::new(1);
    let mut states = Vec::new();
    for step in 0..4 {
        l.append("a", &texts(10 * step..10 * step + 7));
        l.append("b", &[large(u8::try_from(step).unwrap(), 5000)]);
        l.append(&format!("of step {step}"), &texts(0..3));
        l.publish();
        states.push(l.clone());
    }
    states
}

/// Shows its head and refuses the entries.
fn withhold(ledger: &FakeLedger, store: &FakeMirror) {
    let end = Pair::new(ledger, store).tampered(&mut |_, request, frame| match request {
        Request::Entries { .. } | Request::Consistency { .. } => {
            vec![Reply::Refused(Refusal::NotServed).encode().unwrap()]
        }
        _ => vec![frame],
    });
    assert!(matches!(end, End::Fail(SyncError::Peer(_))));
}

fn caught_up(ledger: &FakeLedger, store: &FakeMirror) {
    let report = Pair::new(ledger, store).sync().report();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    assert_eq!(store.complete_head().unwrap(), ledger.head);
}

#[test]
fn a_head_that_nobody_serves_keeps_nobody_from_an_older_one() {
    let history = history();
    for held in 0..3 {
        for shown in held + 1..4 {
            for served in held + 1..shown {
                let store = mirror_of(&history[held]);
                withhold(&history[shown], &store);
                caught_up(&history[served], &store);
                // Also with newer ones between, and the one that was withheld.
                for newer in &history[served + 1..] {
                    caught_up(newer, &store);
                }
                assert_eq!(store.seen_heads().unwrap().len(), 0);
            }
        }
    }
    // From nothing.
    let store = FakeMirror::default();
    for shown in [3, 1, 2] {
        withhold(&history[shown], &store);
    }
    caught_up(&history[0], &store);
    assert_eq!(store.seen_heads().unwrap().len(), 3);
    caught_up(&history[2], &store);
    assert_eq!(store.seen_heads().unwrap().len(), 1);
    caught_up(&history[3], &store);
    store.assert_beginning_of(&history[3]);
}

#[test]
fn what_was_fetched_under_a_later_head_is_kept() {
    let history = history();
    let all = Pair::new(&history[3], &mirror_of(&history[0])).sync();
    let all = all.report().entries;
    for items in 1..6 {
        let store = cut_under(&history[0], &history[3], items);
        caught_up(&history[1], &store);
        caught_up(&history[2], &store);
        let before = store.items();
        let report = Pair::new(&history[3], &store).sync().report();
        assert_eq!(report.outcome, Outcome::CaughtUp);
        assert!(report.entries < all && store.items() > before);
        store.assert_beginning_of(&history[3]);
        assert_eq!(store.complete_head().unwrap(), history[3].head);
    }
}

/// Two heads of one origin that cannot both be true, 1.3 and 1.4.
fn branches() -> (FakeLedger, FakeLedger, FakeLedger) {
    let mut first = FakeLedger::new(1);
    first.append("old", &texts(0..3));
    first.epoch = 1;
    first.publish();
    let (mut a, mut b) = (first.clone(), first.clone());
    a.append("n", &texts(0..600));
    a.publish();
    b.append("n", &texts(1000..1900));
    b.epoch = 3;
    b.publish();
    (first, a, b)
}

#[test]
fn a_seen_head_counts_until_one_above_it_is_complete() {
    let (first, a, b) = branches();
    // Nothing of the first branch was stored, or some of it.
    for items in 1..3 {
        let store = cut_under(&first, &a, items);
        // The other branch is shown, and the sync is broken off, more than once.
        for _ in 0..3 {
            withhold(&b, &store);
        }
        let error = Pair::new(&b, &store).sync().error();
        assert_eq!(forked(error, &b).kind, Kind::Rewritten, "{items}");
        let store = cut_under(&first, &a, items);
        let mut pair = Pair::new(&b, &store);
        pair.seed = Some(7);
        pair.cut_after = Some(1);
        if matches!(pair.sync(), End::Cut) {
            let error = Pair::new(&b, &store).sync().error();
            assert_eq!(forked(error, &b).kind, Kind::Rewritten, "{items}");
        }
    }
}

#[test]
fn a_seen_head_counts_beyond_a_rotation() {
    let (first, a, mut b) = branches();
    let store = cut_under(&first, &a, 1);
    b.rotate(2);
    b.append("n", &texts(0..3));
    b.publish();
    withhold(&b, &store);
    assert_eq!(store.rotations().unwrap().len(), 1);
    let error = Pair::new(&b, &store).sync().error();
    assert_eq!(forked(error, &b).kind, Kind::Rewritten);
}

#[test]
fn the_branch_that_was_chosen_is_the_one_that_is_followed() {
    let mut first = FakeLedger::new(1);
    first.append("old", &texts(0..3));
    first.publish();
    let (mut a, mut b) = (first.clone(), first.clone());
    for (l, from) in [(&mut a, 0), (&mut b, 50)] {
        l.append("n", &texts(from..from + 9));
        l.publish();
    }
    for (chosen, other) in [(&a, &b), (&b, &a)] {
        // Only seen, on either branch.
        let store = cut_under(&first, chosen, 1);
        let error = Pair::new(other, &store).sync().error();
        assert_eq!(forked(error, other).kind, Kind::TwoTexts);
        store.resolve(chosen.head.as_ref().unwrap());
        let SyncError::Peer(fault) = Pair::new(other, &store).sync().error() else {
            panic!("the other branch is followed");
        };
        assert!(matches!(*fault, PeerFault::OtherBranch), "{fault}");
        caught_up(chosen, &store);
    }
}
