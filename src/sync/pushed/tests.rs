//! Pushes: what they are worth, and what is refused of them.

use super::*;
use crate::head::SignedHead;
use crate::sync::message::{FrameHeader, Kind, Refusal};
use crate::sync::testing::{Dice, End, FakeLedger, FakeMirror, Pair};
use crate::sync::{Answer, Outcome, SyncError};
use proptest::prelude::*;

fn follow(newest: Vec<u8>) -> Answer {
    let request = Request::Follow { newest };
    crate::sync::answer(&request.encode().unwrap()).unwrap()
}

fn note(ledger: &FakeLedger) -> Vec<u8> {
    let head = ledger.head.as_ref();
    head.map(SignedHead::note_bytes).unwrap_or_default()
}

/// What is told now, frame by frame.
fn frames(answer: &mut Answer, ledger: &FakeLedger) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| answer.next_frame(ledger).unwrap()).collect()
}

fn kinds(frames: &[Vec<u8>]) -> Vec<Kind> {
    let kind = |frame: &Vec<u8>| FrameHeader::split(frame).unwrap().0;
    frames.iter().map(kind).collect()
}

fn told(frames: &[Vec<u8>]) -> Result<Told, PeerFault> {
    let mut telling = Telling::default();
    let (last, before) = frames.split_last().unwrap();
    for frame in before {
        assert!(telling.frame(frame)?.is_none(), "a head before the last");
    }
    Ok(telling.frame(last)?.expect("a head at the end"))
}

fn small(n: usize) -> Vec<u8> {
    format!("payload {n}").into_bytes()
}

fn large(n: u8) -> Vec<u8> {
    vec![n; 5000]
}

/// A base with some contexts in it, and a mirror that is complete there.
fn base() -> (FakeLedger, FakeMirror) {
    base_of(40)
}

fn base_of(contexts: usize) -> (FakeLedger, FakeMirror) {
    let mut ledger = FakeLedger::new(1);
    for n in 0..contexts {
        ledger.append(&format!("context {n}"), &[small(n), small(n + 1)]);
    }
    ledger.append("large", &[large(1)]);
    ledger.publish();
    let store = FakeMirror::default();
    Pair::new(&ledger, &store).sync().report();
    (ledger, store)
}

fn grow(ledger: &mut FakeLedger) {
    ledger.append("context 3", &[small(100)]);
    ledger.append("context 7", &[small(101), large(2), large(1)]);
    ledger.append("new", &[large(2), small(102)]);
    ledger.publish();
}

#[test]
fn a_mirror_at_the_base_asks_for_nothing() {
    let (mut ledger, store) = base();
    let mut answer = follow(note(&ledger));
    assert!(frames(&mut answer, &ledger).is_empty());
    for round in 0..3 {
        grow(&mut ledger);
        let frames = frames(&mut answer, &ledger);
        if round == 0 {
            use Kind::{EntriesBegin, Head, Nodes, Payload, Span};
            let mut expected = vec![Nodes];
            expected.extend([EntriesBegin, Span].repeat(3));
            expected.extend([Payload, Payload, Head]);
            assert_eq!(kinds(&frames), expected);
        }
        let bytes: usize = frames.iter().map(Vec::len).sum();
        let mut pair = Pair::new(&ledger, &store);
        pair.told = Some(told(&frames).unwrap());
        let report = pair.sync().report();
        assert_eq!(pair.kinds, []);
        assert_eq!((report.outcome, report.entries), (Outcome::CaughtUp, 6));
        assert_eq!(report.received_bytes, bytes as u64);
        assert_eq!(report.head, ledger.head);
        store.assert_beginning_of(&ledger);
    }
}

#[test]
fn a_first_head_is_pushed_to_who_has_none() {
    let mut ledger = FakeLedger::new(1);
    let mut answer = follow(Vec::new());
    assert!(frames(&mut answer, &ledger).is_empty());
    grow(&mut ledger);
    let store = FakeMirror::default();
    let mut pair = Pair::new(&ledger, &store);
    pair.told = Some(told(&frames(&mut answer, &ledger)).unwrap());
    assert_eq!(pair.sync().report().head, ledger.head);
    assert_eq!(pair.kinds, []);
}

#[test]
fn a_mirror_at_another_base_pulls_the_rest() {
    let (mut ledger, store) = base();
    let mut answer = follow(note(&ledger));
    grow(&mut ledger);
    frames(&mut answer, &ledger);
    // Of what changes now, one context is new to the mirror.
    ledger.append("context 3", &[small(200)]);
    ledger.append("context 20", &[small(201)]);
    ledger.publish();
    let pushed = frames(&mut answer, &ledger);
    let mut pair = Pair::new(&ledger, &store);
    pair.told = Some(told(&pushed).unwrap());
    let report = pair.sync().report();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    let asked: usize = pair.kinds.iter().map(|(_, bytes)| bytes).sum();
    let bytes: usize = pushed.iter().map(Vec::len).sum();
    assert_eq!(report.received_bytes, (asked + bytes) as u64);
    // `context 20` came with the push; the three others of before did not.
    let spans = pair.kinds.iter().filter(|(kind, _)| *kind == Kind::Span);
    assert_eq!(spans.count(), 3);
}

type Grow = Box<dyn Fn(&mut FakeLedger)>;

#[test]
fn what_does_not_fit_is_not_begun() {
    let only_head = |frames: &[Vec<u8>]| kinds(frames) == [Kind::Head];
    let (base, _) = base();
    // Each another one.
    let some = |n: usize, bytes: usize| -> Vec<Vec<u8>> {
        let payload = |n: usize| n.to_le_bytes().repeat(bytes / 8);
        (0..n).map(payload).collect()
    };
    let contexts = |l: &mut FakeLedger, n: usize| {
        for i in 0..n {
            l.append(&format!("many {i}"), &[small(i)]);
        }
    };
    let made: Vec<(bool, Grow)> = vec![
        (
            false,
            Box::new(move |l| l.append("context 1", &some(200, 4096))),
        ),
        (
            true,
            Box::new(move |l| l.append("context 1", &some(256, 4096))),
        ),
        (
            false,
            Box::new(move |l| l.append("context 1", &some(100, 9000))),
        ),
        (
            true,
            Box::new(move |l| l.append("context 1", &some(120, 9000))),
        ),
        (false, Box::new(move |l| contexts(l, 300))),
        (true, Box::new(move |l| contexts(l, PUSH_FRAMES_MAX))),
        (
            true,
            Box::new(|l| l.append("context 1", &[vec![1; 2 << 20]])),
        ),
    ];
    for (at, (alone, grow)) in made.into_iter().enumerate() {
        let mut ledger = base.clone();
        let mut answer = follow(note(&ledger));
        grow(&mut ledger);
        ledger.publish();
        let frames = frames(&mut answer, &ledger);
        assert_eq!(only_head(&frames), alone, "case {at}");
        let bytes: usize = frames.iter().rev().skip(1).map(Vec::len).sum();
        assert!(bytes <= PUSH_BYTES_MAX && frames.len() <= PUSH_FRAMES_MAX + 1);
        told(&frames).unwrap();
    }
}

#[test]
fn a_base_that_is_not_of_this_ledger_brings_the_head_alone() {
    let (mut ledger, _) = base();
    let mut other = ledger.clone();
    other.append("context 3", &[b"other".to_vec()]);
    other.publish();
    let elsewhere = note(&other);
    let old = note(&ledger);
    grow(&mut ledger);
    let newer = note(&ledger);
    for newest in [
        elsewhere,
        b"no note".to_vec(),
        old[..old.len() - 9].to_vec(),
    ] {
        let told = frames(&mut follow(newest), &ledger);
        assert_eq!(kinds(&told), [Kind::Head]);
    }
    assert!(frames(&mut follow(old), &ledger).len() > 1);
    // A source that is behind says so, and has nothing to push.
    let (behind, _) = base();
    let told = frames(&mut follow(newer), &behind);
    assert_eq!(kinds(&told), [Kind::Head]);
}

#[test]
fn a_head_that_is_put_back_is_not_told_on_the_same_stream() {
    let (mut ledger, _) = base();
    let old = ledger.clone();
    grow(&mut ledger);
    let mut answer = follow(note(&old));
    assert!(!frames(&mut answer, &ledger).is_empty());
    assert!(frames(&mut answer, &old).is_empty());
    grow(&mut ledger);
    assert!(!frames(&mut answer, &ledger).is_empty());
}

#[test]
fn what_no_source_tells_is_refused() {
    let (mut ledger, _) = base();
    let mut answer = follow(note(&ledger));
    grow(&mut ledger);
    let good = frames(&mut answer, &ledger);
    grow(&mut ledger);
    let second = frames(&mut answer, &ledger);
    let head = good.last().unwrap().clone();
    let refused = |frames: &[&[u8]]| {
        let mut telling = Telling::default();
        let (last, before) = frames.split_last().unwrap();
        for frame in before {
            telling.frame(frame).unwrap();
        }
        telling.frame(last).unwrap_err()
    };
    let frame = |reply: Reply<'_>| reply.encode().unwrap();
    let wrong = |fault| matches!(fault, PeerFault::WrongReply { .. });
    // The same head again, or an older one.
    assert!(wrong(refused(&[&head, &head])));
    assert!(wrong(refused(&[second.last().unwrap(), &head])));
    assert!(wrong(refused(&[&frame(Reply::Head { notes: vec![] })])));
    let notes = vec![b"note\n".to_vec()];
    let fault = refused(&[&frame(Reply::Head { notes })]);
    assert!(matches!(fault, PeerFault::Head(_)));
    // A span without a beginning, also if another frame came between.
    let begin = good
        .iter()
        .find(|f| kinds(&[(*f).clone()]) == [Kind::EntriesBegin]);
    let begin: &[u8] = begin.unwrap();
    assert!(wrong(refused(&[&frame(Reply::Span(b"span"))])));
    assert!(wrong(refused(&[begin, &good[0], &frame(Reply::Span(b""))])));
    // The same twice, each kind.
    for part in &good[..good.len() - 1] {
        if kinds(std::slice::from_ref(part)) != [Kind::Span] {
            assert!(wrong(refused(&[part, part])));
        }
    }
    // Nothing where something was promised.
    let hash = crate::hash::content(b"x");
    let gone = frame(Reply::Payload { hash, bytes: None });
    assert!(matches!(refused(&[&gone]), PeerFault::Missing { .. }));
    let answers = vec![NodeAnswer { hash, node: None }];
    let gone = frame(Reply::Nodes { answers });
    assert!(matches!(refused(&[&gone]), PeerFault::Missing { .. }));
    let busy = frame(Reply::Refused(Refusal::NotServed));
    assert!(matches!(refused(&[&busy]), PeerFault::Refused { .. }));
    let other = frame(Reply::Consistency {
        context: ContextId::new("c").unwrap(),
        from: 1,
        to: 1,
        from_root: hash,
        hashes: vec![],
    });
    assert!(wrong(refused(&[&other])));
    assert!(matches!(refused(&[&[0; 4]]), PeerFault::Malformed(_)));
}

#[test]
fn a_push_has_limits() {
    let payload = |n: usize, bytes: usize| {
        let hash = crate::hash::content(&n.to_le_bytes());
        let bytes = Some(vec![0; bytes]);
        Reply::Payload { hash, bytes }.encode().unwrap()
    };
    let until_refused = |bytes: usize| {
        let mut telling = Telling::default();
        let refused = (0..).find_map(|n| Some((n, telling.frame(&payload(n, bytes)).err()?)));
        let (taken, fault) = refused.unwrap();
        assert_eq!(fault, PeerFault::Surplus { what: "a push" });
        taken
    };
    assert_eq!(
        until_refused(1 << 16),
        PUSH_BYTES_MAX / payload(0, 1 << 16).len()
    );
    assert_eq!(until_refused(0), PUSH_FRAMES_MAX);
    assert_eq!(until_refused(PUSH_BYTES_MAX), 0);
    // Of one push, not of all.
    let (mut ledger, _) = base();
    let mut answer = follow(note(&ledger));
    let mut telling = Telling::default();
    for n in 0..8 {
        let many = (0..60).map(|i| vec![i + n; 4096]).collect::<Vec<_>>();
        ledger.append("context 1", &many);
        ledger.publish();
        for frame in frames(&mut answer, &ledger) {
            telling.frame(&frame).unwrap();
        }
    }
}

/// Whatever one byte of a push is, it ends as the same fault of the peer as if it
/// had been asked for, or it changes nothing: and nothing wrong is stored.
#[test]
fn a_changed_push_is_the_peers_fault_or_changes_nothing() {
    let (mut ledger, _) = base_of(4);
    let mut answer = follow(note(&ledger));
    ledger.append("context 1", &[small(100), large(7)]);
    ledger.publish();
    let good = frames(&mut answer, &ledger);
    let (mut faults, mut harmless) = (0, 0);
    for at in 0..good.len() {
        for byte in 0..good[at].len() {
            // A payload is one hash: its first bytes are as good as all.
            if byte > 64 && kinds(&good[at..=at]) == [Kind::Payload] && byte % 97 != 0 {
                continue;
            }
            let mut bad = good.clone();
            bad[at][byte] ^= 1 << (byte % 8);
            let Ok(told) = told_or_fault(&bad) else {
                faults += 1;
                continue;
            };
            let (_, store) = base_of(4);
            let mut pair = Pair::new(&ledger, &store);
            pair.told = Some(told);
            match pair.sync() {
                End::Done(report) => {
                    harmless += 1;
                    assert_eq!(report.head, ledger.head);
                    assert_eq!(report.outcome, Outcome::CaughtUp);
                }
                End::Fail(SyncError::Peer(_)) => faults += 1,
                End::Fail(error) => panic!("frame {at}, byte {byte}: {error}"),
                End::Cut => unreachable!(),
            }
            store.assert_beginning_of(&ledger);
        }
    }
    assert!(faults > 1000 && harmless > 50, "{faults} {harmless}");
}

fn told_or_fault(frames: &[Vec<u8>]) -> Result<Told, PeerFault> {
    let mut telling = Telling::default();
    for frame in frames {
        if let Some(told) = telling.frame(frame)? {
            return Ok(told);
        }
    }
    // The head has become something else.
    Err(PeerFault::WrongReply { what: "no head" })
}

/// Frames left out, in another order, or of another push.
#[test]
fn a_rearranged_push_is_no_worse_than_none() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let (mut ledger, store) = base();
        let mut answer = follow(note(&ledger));
        grow(&mut ledger);
        let mut parts = frames(&mut answer, &ledger);
        grow(&mut ledger);
        parts.extend(frames(&mut answer, &ledger));
        let head = parts.pop().unwrap();
        parts.retain(|part| kinds(std::slice::from_ref(part)) != [Kind::Head]);
        let mut telling = Telling::default();
        let mut fault = None;
        for _ in 0..dice.below(12) {
            let part = parts.swap_remove(dice.below(parts.len()));
            fault = fault.or(telling.frame(&part).err());
        }
        if fault.is_some() {
            continue;
        }
        let mut pair = Pair::new(&ledger, &store);
        pair.told = telling.frame(&head).unwrap();
        match pair.sync() {
            End::Done(report) => assert_eq!(report.head, ledger.head),
            End::Fail(SyncError::Peer(_)) => {}
            _ => panic!("seed {seed}"),
        }
        store.assert_beginning_of(&ledger);
        // It was the peer who was wrong; the next one is asked.
        Pair::new(&ledger, &store).sync().report();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Who follows a source that it is up with never asks.
    #[test]
    fn whatever_is_pushed_is_enough(seed: u64) {
        let mut dice = Dice(seed);
        let mut ledger = FakeLedger::new(1);
        let store = FakeMirror::default();
        let mut answer = follow(Vec::new());
        let mut telling = Telling::default();
        for n in 0..10u8 {
            for _ in 0..dice.below(4) {
                let context = format!("context {}", dice.below(30));
                let payloads = (0..=dice.below(9)).map(|i| match dice.below(5) {
                    0 => large(u8::try_from(dice.below(9)).unwrap()),
                    _ => small(i),
                });
                let payloads: Vec<_> = payloads.collect();
                ledger.append(&context, &payloads);
            }
            match dice.below(6) {
                0 if n > 0 && ledger.rotations.len() < 5 => _ = ledger.rotate(n + 2),
                _ => _ = ledger.publish(),
            }
            let frames = frames(&mut answer, &ledger);
            let mut pair = Pair::new(&ledger, &store);
            for frame in &frames {
                prop_assert!(pair.told.is_none());
                pair.told = telling.frame(frame).unwrap();
            }
            prop_assert_eq!(&pair.sync().report().head, &ledger.head);
            prop_assert_eq!(&pair.kinds, &[]);
        }
    }
}

#[test]
fn what_does_not_fit_because_of_long_names_is_told_without_a_push() {
    let mut ledger = FakeLedger::new(1);
    let name = |n: usize| format!("{n:0>1024}");
    for n in 0..3000 {
        ledger.append(&name(n), &[small(n)]);
    }
    ledger.publish();
    let mut answer = follow(note(&ledger));
    assert!(frames(&mut answer, &ledger).is_empty());
    // Nodes of hundreds of kilobytes each side of a frame's limit.
    for (changed, pushed) in [(1, true), (20, true), (200, false), (900, false)] {
        for n in 0..changed {
            ledger.append(&name(n), &[small(n)]);
        }
        ledger.publish();
        let frames = frames(&mut answer, &ledger);
        assert_eq!(frames.len() > 1, pushed, "{changed}");
        told(&frames).unwrap();
    }
}
