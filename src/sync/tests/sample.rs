//! Audits by sampling, and whole ones that store nothing.

use super::{large, ledger, texts};
use crate::entry::ContextId;
use crate::ledger::StoreMirror;
use crate::sync::forgetful::Forgetful;
use crate::sync::message::{FrameHeader, Kind, Reply, Request};
use crate::sync::testing::{Dice, FakeLedger, sampled};
use crate::sync::{Mirror, MirrorLimits, OriginFault, Output, PeerFault, SyncError};

#[test]
fn an_honest_source_is_found_honest() {
    let l = ledger();
    let honest = &mut |_: usize, _: &Request, frame: Vec<u8>| vec![frame];
    let all = sampled(&l, u64::MAX, 1, honest).unwrap();
    assert_eq!((all.entries, all.contexts), (766, 24));
    assert_eq!(all.head, l.head);
    for seed in 0..20 {
        let some = sampled(&l, 50, seed, honest).unwrap();
        assert!((30..=50).contains(&some.entries), "{}", some.entries);
        assert_eq!(some, sampled(&l, 50, seed, honest).unwrap());
        assert!(some.received_bytes < all.received_bytes);
    }
    let none = sampled(&FakeLedger::new(1), 50, 1, honest).unwrap();
    assert_eq!((none.head, none.entries), (None, 0));
    let mut empty = FakeLedger::new(1);
    empty.publish();
    let none = sampled(&empty, 50, 1, honest).unwrap();
    assert_eq!((none.head, none.entries), (empty.head, 0));
}

#[test]
fn several_pieces() {
    let mut l = FakeLedger::new(1);
    for n in 0..30 {
        l.append(&format!("context {n}"), &texts(0..100));
    }
    l.append(
        "payloads",
        &[large(1, 5000), large(2, 6000), large(1, 5000)],
    );
    l.publish();
    let honest = &mut |_: usize, _: &Request, frame: Vec<u8>| vec![frame];
    let all = sampled(&l, 3003, 4, honest).unwrap();
    assert_eq!((all.entries, all.contexts), (3003, 31));
    let bytes: usize = texts(0..100).iter().map(Vec::len).sum();
    assert_eq!(all.payload_bytes, 30 * bytes as u64 + 16_000);
}

#[test]
fn flipped_bytes_are_found() {
    let mut l = FakeLedger::new(1);
    l.append("a", &texts(0..5));
    l.append("b", &[large(1, 4100)]);
    l.publish();
    let mut frames = Vec::new();
    sampled(&l, u64::MAX, 1, &mut |_, _, frame| {
        frames.push(frame.len());
        vec![frame]
    })
    .unwrap();
    let mut dice = Dice(3);
    for (target, bytes) in frames.into_iter().enumerate() {
        for _ in 0..200 {
            let (at, bit) = (dice.below(bytes), 1u8 << dice.below(8));
            let found = sampled(&l, u64::MAX, 1, &mut |n, _, mut frame| {
                if n == target {
                    frame[at] ^= bit;
                }
                vec![frame]
            });
            match found {
                Err(SyncError::Peer(_)) => {}
                Err(error) => panic!("{target} {at}: {error}"),
                Ok(_) => panic!("{target} {at} {bit} went unnoticed"),
            }
        }
    }
}

fn lie(l: &FakeLedger, kind: Kind, with: &dyn Fn(Vec<u8>) -> Vec<Vec<u8>>) -> PeerFault {
    let found = sampled(l, u64::MAX, 1, &mut |_, _, frame| {
        if FrameHeader::split(&frame).unwrap().0 == kind {
            with(frame)
        } else {
            vec![frame]
        }
    });
    match found.unwrap_err() {
        SyncError::Peer(fault) => *fault,
        other => panic!("{other}"),
    }
}

#[test]
fn streams_that_do_not_fit_are_the_peers_fault() {
    let l = ledger();
    for kind in [Kind::Head, Kind::Nodes, Kind::Inclusion, Kind::Payload] {
        let fault = lie(&l, kind, &|_| vec![]);
        assert!(
            matches!(fault, PeerFault::EndedEarly { .. }),
            "{kind:?}: {fault}"
        );
        let fault = lie(&l, kind, &|frame| vec![frame.clone(), frame.clone(), frame]);
        assert!(
            matches!(
                fault,
                PeerFault::Surplus { .. } | PeerFault::WrongReply { .. }
            ),
            "{kind:?}: {fault}"
        );
        let fault = lie(&l, kind, &|_| {
            vec![
                Reply::Refused(crate::sync::message::Refusal::NotServed)
                    .encode()
                    .unwrap(),
            ]
        });
        assert!(
            matches!(fault, PeerFault::Refused { .. }),
            "{kind:?}: {fault}"
        );
        let fault = lie(&l, kind, &|_| vec![Reply::Span(b"span").encode().unwrap()]);
        assert!(
            matches!(fault, PeerFault::WrongReply { .. }),
            "{kind:?}: {fault}"
        );
    }
}

#[test]
fn other_entries_are_refused() {
    let l = ledger();
    // Another entry that is in the ledger as well.
    let swapped = |frame: Vec<u8>, to: &FakeLedger, at: u64| {
        let Ok(Reply::Inclusion { context, size, .. }) = Reply::decode(&frame) else {
            unreachable!()
        };
        let sequence = at.min(size);
        let request = Request::Inclusion {
            context,
            sequence,
            size,
        };
        let mut answer = crate::sync::answer(&request.encode().unwrap()).unwrap();
        answer.next_frame(to).unwrap().unwrap()
    };
    let fault = lie(&l, Kind::Inclusion, &|frame| vec![swapped(frame, &l, 2)]);
    assert!(matches!(fault, PeerFault::WrongReply { .. }), "{fault}");
    // The right numbers and another entry's bytes.
    let fault = lie(&l, Kind::Inclusion, &|frame| {
        let Ok(Reply::Inclusion {
            context,
            sequence,
            size,
            ..
        }) = Reply::decode(&frame)
        else {
            unreachable!()
        };
        let shown = swapped(frame, &l, 1);
        let Ok(Reply::Inclusion {
            header,
            payload,
            hashes,
            ..
        }) = Reply::decode(&shown)
        else {
            unreachable!()
        };
        let reply = Reply::Inclusion {
            context,
            sequence,
            size,
            header,
            payload,
            hashes,
        };
        vec![reply.encode().unwrap()]
    });
    assert!(matches!(fault, PeerFault::Inclusion { .. }), "{fault}");
    let fault = lie(&l, Kind::Inclusion, &|frame| {
        let Ok(Reply::Inclusion {
            context,
            sequence,
            size,
            header,
            hashes,
            ..
        }) = Reply::decode(&frame)
        else {
            unreachable!()
        };
        let payload = b"other".to_vec();
        let reply = Reply::Inclusion {
            context,
            sequence,
            size,
            header,
            payload,
            hashes,
        };
        vec![reply.encode().unwrap()]
    });
    let told = matches!(
        fault,
        PeerFault::Payload { .. } | PeerFault::WrongReply { .. }
    );
    assert!(told, "{fault}");
}

#[test]
fn other_payloads_and_heads_are_refused() {
    let l = ledger();
    let mut other = l.clone();
    other.append("long", &texts(0..3));
    other.append("short", &[b"y".to_vec()]);
    other.publish();
    let fault = lie(&l, Kind::Payload, &|frame| {
        let Ok(Reply::Payload { hash, .. }) = Reply::decode(&frame) else {
            unreachable!()
        };
        let bytes = Some(large(9, 9000));
        vec![Reply::Payload { hash, bytes }.encode().unwrap()]
    });
    assert!(matches!(fault, PeerFault::Payload { .. }), "{fault}");
    let fault = lie(&l, Kind::Payload, &|frame| {
        let Ok(Reply::Payload { hash, .. }) = Reply::decode(&frame) else {
            unreachable!()
        };
        vec![Reply::Payload { hash, bytes: None }.encode().unwrap()]
    });
    assert!(matches!(fault, PeerFault::Missing { .. }), "{fault}");
    // A head that is not the one whose directory is served.
    let newer = other.head.as_ref().unwrap().note_bytes();
    let fault = lie(&l, Kind::Head, &|_| {
        let notes = vec![newer.clone()];
        vec![Reply::Head { notes }.encode().unwrap()]
    });
    assert!(matches!(fault, PeerFault::Missing { .. }), "{fault}");
    let stranger = FakeLedger::new(2);
    let mut stranger = stranger;
    stranger.publish();
    let foreign = stranger.head.as_ref().unwrap().note_bytes();
    let fault = lie(&l, Kind::Head, &|_| {
        let notes = vec![foreign.clone()];
        vec![Reply::Head { notes }.encode().unwrap()]
    });
    assert!(matches!(fault, PeerFault::Head(_)), "{fault}");
}

#[test]
fn counts_that_the_directory_does_not_have_are_the_origins_fault() {
    let mut l = ledger();
    let mut head = l.head.as_ref().unwrap().head().clone();
    head.entries += 1;
    let key = crate::sync::testing::signer(1);
    let note = crate::head::sign_head(&head, &key).unwrap();
    l.head = Some(crate::head::SignedHead::open(&note, key.verifier()).unwrap());
    let error = sampled(&l, 10, 1, &mut |_, _, frame| vec![frame]).unwrap_err();
    let SyncError::Origin(fault) = error else {
        panic!("{error}");
    };
    assert!(matches!(*fault, OriginFault::Directory(_)), "{fault}");
}

/// A whole audit: the mirror's engine over a store that forgets.
fn whole(l: &FakeLedger) -> (u64, u64, u64) {
    let store = Forgetful::new(l.vkey());
    let mut mirror = Mirror::new(store.view(), l.vkey(), MirrorLimits::default());
    let mut answers = Vec::new();
    mirror.start();
    loop {
        while let Some(output) = mirror.poll_output() {
            match output {
                Output::Send { request, frame } => {
                    answers.push((request, crate::sync::answer(&frame).unwrap()));
                }
                Output::Store { token, item } => {
                    store.ingest(item, Box::new(|stored| stored.unwrap()));
                    mirror.handle_stored(token);
                }
                Output::Done(report) => {
                    let (contexts, payload_bytes) = store.counts();
                    return (report.entries, contexts, payload_bytes);
                }
                Output::Fail(error) => panic!("{error}"),
            }
        }
        let (request, mut answer) = answers.remove(0);
        while let Some(frame) = answer.next_frame(l).unwrap() {
            mirror.handle_frame(request, &frame);
        }
        mirror.handle_end(request);
    }
}

#[test]
fn a_whole_audit_checks_what_a_full_sample_does() {
    let l = ledger();
    let all = sampled(&l, u64::MAX, 1, &mut |_, _, frame| vec![frame]).unwrap();
    assert_eq!(whole(&l), (all.entries, all.contexts, all.payload_bytes));
}

#[test]
fn an_inclusion_of_what_is_not_signed_is_refused() {
    let l = ledger();
    let ask = |context: &str, sequence, size| {
        let context = ContextId::new(context).unwrap();
        let request = Request::Inclusion {
            context,
            sequence,
            size,
        };
        let mut answer = crate::sync::answer(&request.encode().unwrap()).unwrap();
        let frame = answer.next_frame(&l).unwrap().unwrap();
        assert!(answer.next_frame(&l).unwrap().is_none());
        frame[4] == Kind::Inclusion as u8
    };
    assert!(ask("long", 700, 700) && ask("long", 1, 1) && ask("long", 5, 300));
    assert!(!ask("long", 700, 701) && !ask("nothing", 1, 1));
}
