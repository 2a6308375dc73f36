//! Peers that change, drop, repeat and invent frames; origins that change
//! history.

use super::{large, ledger, texts};
use crate::hash;
use crate::head::sign_head;
use crate::sync::message::{Kind, Reply};
use crate::sync::testing::{Dice, End, FakeLedger, FakeMirror, Pair, signer};
use crate::sync::{LocalFault, OriginFault, PeerFault, SyncError};

#[test]
fn flipped_bytes_never_lead_to_another_root_nor_into_the_store() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..3));
    l.append("a", &[large(1, 4100)]);
    l.append("b", &texts(0..2));
    l.publish();
    let honest = FakeMirror::default();
    let mut pair = Pair::new(&l, &honest);
    pair.sync().report();
    let frames = pair.kinds.clone();
    let mut dice = Dice(7);
    for (target, (kind, bytes)) in frames.iter().enumerate() {
        // Every byte of a small frame, a sample of a large one.
        let positions: Vec<usize> = if *bytes < 1500 {
            (0..*bytes).collect()
        } else {
            (0..300).map(|_| dice.below(*bytes)).collect()
        };
        for at in positions {
            let store = FakeMirror::default();
            let bit = 1u8 << dice.below(8);
            let end = Pair::new(&l, &store).tampered(&mut |n, _, mut frame| {
                if n == target {
                    frame[at] ^= bit;
                }
                vec![frame]
            });
            store.assert_beginning_of(&l);
            match end {
                // Whatever was changed, it was told apart from the origin's.
                End::Fail(SyncError::Peer(_)) => {}
                End::Fail(error) => panic!("{kind:?} byte {at}: {error}"),
                _ => panic!("{kind:?} byte {at} bit {bit} went unnoticed"),
            }
        }
    }
}

#[test]
fn truncated_frames_are_refused() {
    let l = ledger();
    let honest = FakeMirror::default();
    let mut pair = Pair::new(&l, &honest);
    pair.sync().report();
    let mut dice = Dice(9);
    for (target, (_, bytes)) in pair.kinds.clone().into_iter().enumerate() {
        for _ in 0..8 {
            let store = FakeMirror::default();
            let len = dice.below(bytes);
            let end = Pair::new(&l, &store).tampered(&mut |n, _, mut frame| {
                if n == target {
                    frame.truncate(len);
                }
                vec![frame]
            });
            assert!(matches!(peer(end.error()), PeerFault::Malformed(_)));
            store.assert_beginning_of(&l);
        }
    }
}

/// Tampers with every frame of one kind and returns the error.
fn lie(l: &FakeLedger, kind: Kind, mut with: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) -> SyncError {
    let store = FakeMirror::default();
    let end = Pair::new(l, &store).tampered(&mut |_, _, frame| {
        if frame[4] == kind as u8 {
            with(frame)
        } else {
            vec![frame]
        }
    });
    store.assert_beginning_of(l);
    assert_eq!(store.complete_root(), None);
    end.error()
}

fn peer(error: SyncError) -> PeerFault {
    match error {
        SyncError::Peer(fault) => *fault,
        other => panic!("{other}"),
    }
}

fn origin(error: SyncError) -> OriginFault {
    match error {
        SyncError::Origin(fault) => *fault,
        other => panic!("{other}"),
    }
}

#[test]
fn streams_that_are_too_short_or_too_long_are_the_peers_fault() {
    let l = ledger();
    for kind in [
        Kind::Head,
        Kind::Nodes,
        Kind::EntriesBegin,
        Kind::Span,
        Kind::Payload,
    ] {
        let fault = peer(lie(&l, kind, |_| vec![]));
        assert!(
            matches!(fault, PeerFault::EndedEarly { .. }),
            "{kind:?}: {fault}"
        );
        let fault = peer(lie(&l, kind, |frame| vec![frame.clone(), frame]));
        assert!(
            matches!(
                fault,
                PeerFault::Surplus { .. } | PeerFault::WrongReply { .. } | PeerFault::Span { .. }
            ),
            "{kind:?}: {fault}"
        );
        let endless = |frame: Vec<u8>| vec![frame; 5000];
        peer(lie(&l, kind, endless));
    }
}

#[test]
fn a_total_of_bytes_ends_a_sync() {
    let l = ledger();
    let store = FakeMirror::default();
    let mut pair = Pair::new(&l, &store);
    pair.limits.received_bytes_max = 20_000;
    let error = pair.sync().error();
    assert!(matches!(
        error,
        SyncError::Local(LocalFault::Quota { max: 20_000, .. })
    ));
}

#[test]
fn an_origin_over_its_quota_is_refused_before_anything_is_fetched() {
    let l = ledger();
    for contexts in [true, false] {
        let store = FakeMirror::default();
        let mut pair = Pair::new(&l, &store);
        if contexts {
            pair.limits.contexts_max = 23;
        } else {
            pair.limits.entries_max = 765;
        }
        assert!(matches!(
            pair.sync().error(),
            SyncError::Local(LocalFault::Quota { .. })
        ));
        assert_eq!((pair.kinds.len(), store.items()), (1, 0));
    }
}

#[test]
fn entries_of_another_context_are_refused() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..3));
    l.append("b", &texts(3..6));
    l.publish();
    // Spans of the one where those of the other belong.
    let mut spans: Vec<Vec<u8>> = Vec::new();
    lie(&l, Kind::Span, |frame| {
        spans.push(frame);
        vec![]
    });
    let store = FakeMirror::default();
    Pair::new(&l, &store).tampered(&mut |_, _, frame| {
        if frame[4] == Kind::Span as u8 && !spans.contains(&frame) {
            spans.push(frame.clone());
        }
        vec![frame]
    });
    assert_eq!(spans.len(), 2);
    let fault = peer(lie(&l, Kind::Span, |frame| {
        vec![spans.iter().find(|s| **s != frame).unwrap().clone()]
    }));
    assert!(matches!(fault, PeerFault::Span { .. }), "{fault}");
    // The beginning of the one where that of the other belongs.
    let fault = peer(lie(&l, Kind::EntriesBegin, |mut frame| {
        frame[6] ^= 3;
        vec![frame]
    }));
    let what = "entries of another context";
    assert_eq!(fault, PeerFault::WrongReply { what });
}

/// From the number of right hashes, those hashes and the runs: number, hashes
/// and runs to send instead.
type Change<'a> = &'a dyn Fn(u8, &[u8], &[u8]) -> Vec<u8>;

#[test]
fn fewer_entries_or_other_right_hashes_are_refused() {
    let mut l = FakeLedger::new(1);
    for n in 0..3 {
        l.append("a", &texts(0..200 + n));
    }
    l.publish();
    let edit = |change: Change<'_>| {
        let fault = peer(lie(&l, Kind::Span, |frame| {
            let right = usize::from(frame[6]);
            let (fixed, rest) = frame[5..].split_at(24);
            let (hashes, runs) = rest.split_at(32 * right);
            let mut body = fixed.to_vec();
            let middle = change(frame[6], hashes, runs);
            body[1] = middle[0];
            body.extend_from_slice(&middle[1..]);
            vec![Reply::Span(&body).encode().unwrap()]
        }));
        assert!(matches!(fault, PeerFault::Span { .. }), "{fault}");
    };
    // A surplus hash, a missing one, a changed one.
    edit(&|n, hashes, runs| [&[n + 1], hashes, &[0; 32], runs].concat());
    edit(&|n, hashes, runs| match n {
        0 => [&[1], &[0; 32][..], runs].concat(),
        _ => [&[n - 1], &hashes[32..], runs].concat(),
    });
    edit(&|n, hashes, runs| match n {
        0 => [&[1], &[0; 32][..], runs].concat(),
        _ => [&[n], &[0; 32][..], &hashes[32..], runs].concat(),
    });
    edit(&|n, hashes, runs| [&[n], hashes, &runs[..runs.len() - 1]].concat());
}

#[test]
fn spans_in_another_order_are_refused() {
    let mut l = FakeLedger::new(1);
    // Two spans in one answer: their payloads do not fit one.
    l.append("a", &[large(1, 4 << 20)]);
    l.append("a", &[large(2, 4 << 20)]);
    l.append("a", &[large(3, 4 << 20)]);
    l.publish();
    let mut kept: Option<Vec<u8>> = None;
    let fault = peer(lie(&l, Kind::Span, |frame| {
        // The first is held back until the second has gone out.
        match kept.take() {
            None => {
                kept = Some(frame.clone());
                vec![[frame[..13].to_vec(), vec![1], frame[14..].to_vec()].concat()]
            }
            Some(first) => vec![frame, first],
        }
    }));
    assert!(matches!(fault, PeerFault::Span { .. }), "{fault}");
}

#[test]
fn payloads_that_differ_or_are_missing_are_the_peers_fault() {
    let mut l = ledger();
    let other = large(9, 9000);
    let fault = peer(lie(&l, Kind::Payload, |frame| {
        let Ok(Reply::Payload { hash, .. }) = Reply::decode(&frame) else {
            unreachable!()
        };
        let bytes = Some(other.clone());
        vec![Reply::Payload { hash, bytes }.encode().unwrap()]
    }));
    assert!(matches!(fault, PeerFault::Payload { .. }), "{fault}");
    let fault = peer(lie(&l, Kind::Payload, |_| {
        let (hash, bytes) = (hash::content(&other), Some(other.clone()));
        vec![Reply::Payload { hash, bytes }.encode().unwrap()]
    }));
    assert!(matches!(fault, PeerFault::WrongReply { .. }), "{fault}");
    l.forget_payload(&large(2, 9000));
    let fault = peer(lie(&l, Kind::Nodes, |frame| vec![frame]));
    assert!(
        matches!(
            fault,
            PeerFault::Missing {
                what: "payload",
                ..
            }
        ),
        "{fault}"
    );
}

#[test]
fn heads_by_others_are_none() {
    let l = ledger();
    let store = FakeMirror::default();
    // Another key, same name: not a head at all.
    let mut other = FakeLedger::new(2);
    other.append("long", &texts(0..9));
    other.publish();
    let end = Pair::new(&other, &store).sync_with(l.vkey(), &mut |_, _, frame| vec![frame]);
    assert!(matches!(peer(end.error()), PeerFault::Head(_)));
    // A mirror of one key is not one of another.
    let end = Pair::new(&other, &store).sync();
    assert!(matches!(
        end.error(),
        SyncError::Local(LocalFault::OtherKey { .. })
    ));
    assert_eq!(store.items(), 0);
}

#[test]
fn a_peer_that_changes_runs_under_an_honest_head_is_found_out() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..10));
    l.publish();
    let store = FakeMirror::default();
    Pair::new(&l, &store).sync().report();
    l.append("a", &texts(10..13));
    l.publish();
    let mut forged = FakeLedger::new(1);
    forged.append("a", &texts(0..10));
    forged.append("a", &texts(20..23));
    let run = forged.runs_of("a").last().unwrap().clone();
    let mut span = Vec::new();
    crate::run::encode_span(10, 13, &[], &[run], &mut span);
    let end = Pair::new(&l, &store).tampered(&mut |_, _, frame| {
        if frame[4] == Kind::Span as u8 {
            return vec![Reply::Span(&span).encode().unwrap()];
        }
        vec![frame]
    });
    assert!(matches!(peer(end.error()), PeerFault::Span { .. }));
}

#[test]
fn invalid_entries_under_the_root_are_the_origins_fault() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..3));
    l.append_with("a", &texts(3..5), |lamport| lamport - 1);
    l.publish();
    let store = FakeMirror::default();
    let error = Pair::new(&l, &store).sync().error();
    let fault = origin(error);
    assert!(
        matches!(fault, OriginFault::InvalidEntries { .. }),
        "{fault}"
    );
}

#[test]
fn takeovers_are_refused_by_name() {
    let mut l = ledger();
    l.term = 2;
    l.publish();
    let store = FakeMirror::default();
    let error = Pair::new(&l, &store).sync().error();
    assert!(matches!(
        error,
        SyncError::Local(LocalFault::TakeoverNotFollowed { term: 2 })
    ));
}

#[test]
fn a_head_that_lies_about_counts_is_not_believed() {
    let mut l = ledger();
    let mut head = l.head.as_ref().unwrap().head().clone();
    head.entries += 1;
    let key = signer(1);
    let note = sign_head(&head, &key).unwrap();
    l.head = Some(crate::head::SignedHead::open(&note, key.verifier()).unwrap());
    let store = FakeMirror::default();
    let error = Pair::new(&l, &store).sync().error();
    let fault = origin(error);
    assert!(matches!(fault, OriginFault::Directory(_)), "{fault}");
    assert_eq!(store.items(), 0);
}
