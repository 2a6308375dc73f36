//! Origins that change their key.

use super::evidence::{forked, mirror_of};
use super::texts;
use crate::evidence::Kind;
use crate::head::{Head, Rotation, SignedHead, sign_rotation};
use crate::ledger::ReadMirror;
use crate::sync::message::Reply;
use crate::sync::testing::{FakeLedger, FakeMirror, Pair, sampled, signer};
use crate::sync::{LocalFault, Outcome, PeerFault, SyncError};

/// Three keys: heads 1 and 2 by the first, 2 and 4 hand over, 5 by the third.
fn rotated() -> Vec<FakeLedger> {
    let mut l = FakeLedger::new(1);
    let mut stages = Vec::new();
    for n in 0..5 {
        l.append("a", &texts(n..n + 3));
        match n {
            1 => l.rotate(2),
            3 => l.rotate(3),
            _ => l.publish(),
        };
        stages.push(l.clone());
    }
    stages
}

fn peer(error: SyncError) -> PeerFault {
    match error {
        SyncError::Peer(fault) => *fault,
        other => panic!("{other}"),
    }
}

fn keys(store: &FakeMirror) -> usize {
    assert_eq!(store.origin_key(), {
        let last = store.rotations().unwrap().last().cloned();
        last.map_or_else(|| store.pinned_key(), |head| head.next_key().clone())
    });
    store.rotations().unwrap().len()
}

#[test]
fn rotations_are_followed_from_wherever_a_mirror_stands() {
    let stages = rotated();
    for from in 0..=stages.len() {
        for to in from..stages.len() {
            let store = FakeMirror::default();
            if from > 0 {
                Pair::new(&stages[from - 1], &store).sync().report();
            }
            let report = Pair::new(&stages[to], &store).sync().report();
            assert_eq!(report.outcome, Outcome::CaughtUp, "{from} {to}");
            assert_eq!(report.head, stages[to].head);
            assert_eq!(keys(&store), stages[to].rotations.len());
            // Nothing is told twice, and older stages are behind.
            for stage in &stages[..to] {
                let report = Pair::new(stage, &store).sync().report();
                assert_eq!(report.outcome, Outcome::Behind);
            }
            assert_eq!(keys(&store), stages[to].rotations.len());
        }
    }
}

#[test]
fn a_mirror_that_pinned_a_later_key_needs_no_older_rotation() {
    let stages = rotated();
    for (pinned, rotations) in [(1, 2), (2, 1), (3, 0)] {
        let store = FakeMirror::pinned_to(pinned);
        let key = signer(pinned).verifier().clone();
        let mut pair = Pair::new(&stages[4], &store);
        let end = pair.sync_with(key, &mut |_, _, frame| vec![frame]);
        assert_eq!(end.report().head, stages[4].head);
        assert_eq!(store.rotations().unwrap().len(), rotations);
    }
    let report = sampled(&stages[4], 100, 1, &mut |_, _, frame| vec![frame]).unwrap();
    assert_eq!(report.entries, 15);
}

#[test]
fn a_retired_key_signs_nothing_any_more() {
    let stages = rotated();
    let store = mirror_of(&stages[4]);
    // A thief of the first key goes on after head 1.
    let mut thief = stages[0].clone();
    thief.append("a", &texts(1..4));
    thief.append("a", &texts(2..30));
    thief.epoch = 9;
    thief.publish();
    let fault = peer(Pair::new(&thief, &store).sync().error());
    assert!(
        matches!(fault, PeerFault::RetiredKey { order } if order.epoch == 10),
        "{fault}"
    );
    assert!(store.fork().unwrap().is_none());
    // Below its rotation it is the origin's own word.
    let mut other = FakeLedger::new(1);
    other.append("a", &texts(7..10));
    other.publish();
    let verdict = forked(Pair::new(&other, &store).sync().error(), &other);
    assert_eq!(verdict.kind, Kind::Rewritten);
}

#[test]
fn two_rotations_of_one_key_are_evidence() {
    let stages = rotated();
    for (n, epoch) in [(0, 1), (0, 4), (4, 5)] {
        let mut other = stages[0].clone();
        if n > 0 {
            other.append("b", &texts(0..n));
        }
        other.epoch = epoch;
        other.rotate(7);
        // As the newest head, and before a newer one.
        for newer in [false, true] {
            let mut shown = other.clone();
            if newer {
                shown.append("b", &texts(0..3));
                shown.publish();
            }
            let store = mirror_of(&stages[4]);
            let mut seen = false;
            let end = Pair::new(&shown, &store).tampered(&mut |_, _, frame| {
                // A source tells what it likes, whatever the asker has.
                let Ok(Reply::Head { mut notes }) = Reply::decode(&frame) else {
                    return vec![frame];
                };
                seen = true;
                let rotation = shown.rotations[0].note_bytes();
                if !notes.contains(&rotation) {
                    notes.insert(0, rotation);
                }
                vec![Reply::Head { notes }.encode().unwrap()]
            });
            assert!(seen);
            let verdict = forked(end.error(), &shown);
            // Nobody has to tell more than is asked for.
            let store = mirror_of(&stages[4]);
            let plain = forked(Pair::new(&shown, &store).sync().error(), &shown);
            assert_eq!(plain.kind, verdict.kind);
            let kind = if epoch == 1 {
                Kind::TwoTexts
            } else {
                Kind::TwoRotations
            };
            assert_eq!(verdict.kind, kind);
        }
    }
}

#[test]
fn rotations_out_of_place_are_the_peers_fault() {
    let stages = rotated();
    let last = &stages[4];
    let lie = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let store = mirror_of(&stages[0]);
        let end = Pair::new(last, &store).tampered(&mut |_, _, frame| {
            let Ok(Reply::Head { mut notes }) = Reply::decode(&frame) else {
                return vec![frame];
            };
            change(&mut notes);
            vec![Reply::Head { notes }.encode().unwrap()]
        });
        assert!(store.fork().unwrap().is_none());
        peer(end.error())
    };
    // One is kept back, both are, they are exchanged, one comes twice.
    let fault = lie(&|notes| drop(notes.remove(0)));
    assert!(
        matches!(fault, PeerFault::Head(_) | PeerFault::Rotation { .. }),
        "{fault}"
    );
    let fault = lie(&|notes| drop(notes.drain(..2)));
    assert!(matches!(fault, PeerFault::Head(_)), "{fault}");
    let fault = lie(&|notes| notes.swap(0, 1));
    assert!(matches!(fault, PeerFault::WrongReply { .. }), "{fault}");
    let fault = lie(&|notes| notes.insert(1, notes[0].clone()));
    assert!(matches!(fault, PeerFault::WrongReply { .. }), "{fault}");
    // A plain head before the newest.
    let plain = stages[2].head.as_ref().map(SignedHead::note_bytes).unwrap();
    let fault = lie(&|notes| notes.insert(1, plain.clone()));
    assert!(matches!(fault, PeerFault::WrongReply { .. }), "{fault}");
    // One by a stranger.
    let mut stranger = FakeLedger::new(8);
    stranger.epoch = 2;
    stranger.rotate(9);
    let rotation = stranger.rotations[0].note_bytes();
    let fault = lie(&|notes| notes.insert(1, rotation.clone()));
    assert!(matches!(fault, PeerFault::Rotation { .. }), "{fault}");
}

/// Neither from the key that counts nor from one that was retired: without the
/// takeover nobody knows which rotations it gave up.
#[test]
fn rotations_of_a_later_term_are_not_followed() {
    let stages = rotated();
    for stage in [0, 4] {
        let mut later = stages[0].clone();
        later.term = 2;
        later.epoch = 10;
        later.rotate(7);
        let note = later.rotations[0].note_bytes();
        let store = mirror_of(&stages[stage]);
        let end = Pair::new(&stages[4], &store).tampered(&mut |_, _, frame| {
            let Ok(Reply::Head { mut notes }) = Reply::decode(&frame) else {
                return vec![frame];
            };
            notes.insert(0, note.clone());
            vec![Reply::Head { notes }.encode().unwrap()]
        });
        let end = end.error();
        assert!(
            matches!(
                end,
                SyncError::Local(LocalFault::TakeoverNotFollowed { term: 2 })
            ),
            "{end}"
        );
        assert!(store.fork().unwrap().is_none());
    }
}

#[test]
fn takeovers_are_still_not_followed() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..3));
    l.publish();
    let head = l.head.as_ref().unwrap().head();
    let takeover = crate::head::Takeover {
        origin: head.origin.clone(),
        term: 2,
        base: head.order(),
        base_directory_root: head.directory_root,
        base_contexts: head.contexts,
        base_entries: head.entries,
        time_ns: 1,
    };
    let shown_by = |seed| {
        let mut note = crate::note::Note::new(takeover.to_text()).unwrap();
        note.sign(&signer(seed)).unwrap();
        let store = FakeMirror::default();
        let mut pair = Pair::new(&l, &store);
        let end = pair.tampered(&mut |_, _, frame| {
            let Ok(Reply::Head { mut notes }) = Reply::decode(&frame) else {
                return vec![frame];
            };
            notes.insert(0, note.to_bytes());
            vec![Reply::Head { notes }.encode().unwrap()]
        });
        end.error()
    };
    assert!(matches!(
        shown_by(1),
        SyncError::Local(LocalFault::TakeoverNotFollowed { term: 2 })
    ));
    // Of somebody else it says nothing of the origin.
    assert!(matches!(peer(shown_by(9)), PeerFault::Head(_)));
}

#[test]
fn a_rotation_of_somebody_elses_keys_is_the_peers_fault_whatever_its_term() {
    let stages = rotated();
    for from in 0..=2 {
        let store = FakeMirror::default();
        if from > 0 {
            Pair::new(&stages[from - 1], &store).sync().report();
        }
        let newest = stages[4].head.clone().unwrap();
        let (old, new) = (signer(8), signer(9));
        let head = Head {
            term: 2,
            rotation: Some(Rotation {
                old: old.verifier().clone(),
                new: new.verifier().clone(),
            }),
            ..newest.head().clone()
        };
        let theirs = sign_rotation(&head, &old, &new).unwrap();
        let end = Pair::new(&stages[4], &store).tampered(&mut |_, _, frame| {
            let Ok(Reply::Head { mut notes }) = Reply::decode(&frame) else {
                return vec![frame];
            };
            notes.insert(0, theirs.clone());
            vec![Reply::Head { notes }.encode().unwrap()]
        });
        let fault = peer(end.error());
        assert!(matches!(fault, PeerFault::Rotation { .. }), "{fault}");
    }
}
