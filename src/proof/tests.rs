use super::testing::{Origin, Point, changes, history, signer, vkey};
use super::*;
use crate::note::{Note, SignerKey, VerifierKey};
use crate::verify::{Proven, VerifyError, file};

/// A file of every kind, and its name.
fn files(rotations: u8) -> Vec<(&'static str, Vec<u8>)> {
    let (older, newer) = history(rotations);
    let entry = |payload| newer.entry_proof("a", 4, payload).to_bytes();
    vec![
        ("entry", entry(false)),
        ("entry with payload", entry(true)),
        ("context", newer.context_proof(&older, "a").to_bytes()),
        ("new context", newer.context_proof(&older, "d").to_bytes()),
        ("store", newer.store_proof(&older).unwrap().to_bytes()),
    ]
}

fn reprint(proven: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(proven.to_vec()).unwrap();
    match text.lines().next().unwrap() {
        ENTRY_KIND => EntryProof::parse(proven).unwrap().to_bytes(),
        CONTEXT_KIND => ContextProof::parse(proven).unwrap().to_bytes(),
        STORE_KIND => StoreProof::parse(proven).unwrap().to_bytes(),
        _ => panic!("{text}"),
    }
}

#[test]
fn every_kind_is_read_as_it_was_written_and_says_what_it_proves() {
    for rotations in 0..3 {
        let (older, newer) = history(rotations);
        for (name, bytes) in files(rotations) {
            assert_eq!(reprint(&bytes), bytes, "{name}");
            let proven = file(&bytes, &vkey(1)).unwrap();
            let said = proven.to_string();
            assert!(!said.contains('\n'), "{said}");
            assert!(said.contains("proofs.example"), "{said}");
            match proven {
                Proven::Entry(entry) => {
                    assert_eq!((entry.sequence, entry.size), (4, 5));
                    assert_eq!(entry.payload_checked, name == "entry with payload");
                    assert_eq!(Some(entry.root), newer.state("a").map(|state| state.root));
                    assert_eq!((entry.key.as_str(), entry.payload_bytes), ("facts", 4));
                    assert_eq!(entry.head.head(), newer.head.head());
                }
                Proven::Context(context) => {
                    assert_eq!(context.from, older.state(context.context.as_str()));
                    assert_eq!(Some(context.to), newer.state(context.context.as_str()));
                    assert_eq!(context.older_head.head(), older.head.head());
                }
                Proven::Store(store) => {
                    assert_eq!(store.changed, 1);
                    assert_eq!(store.head.head(), newer.head.head());
                }
                Proven::Head(_) | Proven::Evidence(_) => panic!("{said}"),
            }
        }
        let key = vkey(1 + rotations);
        assert!(matches!(file(&newer.note(), &key), Ok(Proven::Head(_))));
    }
}

#[test]
fn other_keys_prove_nothing() {
    let name = crate::note::OriginName::new("other.example").unwrap();
    let other = SignerKey::from_seed(name, &[1; 32]).verifier().clone();
    for (name, bytes) in files(1) {
        for key in [&vkey(9), &other] {
            let refused = file(&bytes, key).unwrap_err();
            assert!(!refused.is_malformed(), "{name}: {refused}");
        }
    }
    assert_eq!(file(b"", &vkey(1)), Err(VerifyError::UnknownKind));
    assert_eq!(file(b"x\n", &vkey(1)), Err(VerifyError::UnknownKind));
}

/// Heads under each of three keys, the rotations among them; the key each is
/// by, and the other one of a rotation.
fn three_keys() -> Vec<(Point, u8, u8)> {
    let mut origin = Origin::new();
    origin.append("a", &["one"]);
    let mut points = vec![(origin.publish(), 1, 1)];
    for seed in [2, 3] {
        points.push((origin.rotate(seed), seed - 1, seed));
        origin.append("a", &["more"]);
        points.push((origin.publish(), seed, seed));
    }
    points
}

#[test]
fn a_proof_holds_for_whoever_pinned_its_key_or_an_older_one() {
    let points = three_keys();
    for (at, (point, _, newest)) in points.iter().enumerate() {
        let bytes = point.entry_proof("a", 1, true).to_bytes();
        for pinned in 1..=4 {
            let good = pinned <= *newest;
            assert_eq!(file(&bytes, &vkey(pinned)).is_ok(), good, "{at} {pinned}");
        }
        // Two heads need the older one's key.
        for (older, _, older_newest) in &points[..=at] {
            let bytes = point.context_proof(older, "a").to_bytes();
            let store = point.store_proof(older).unwrap().to_bytes();
            for pinned in 1..=4 {
                let good = pinned <= *older_newest;
                assert_eq!(file(&bytes, &vkey(pinned)).is_ok(), good, "{at} {pinned}");
                assert_eq!(file(&store, &vkey(pinned)).is_ok(), good, "{at} {pinned}");
            }
        }
    }
}

#[test]
fn rotations_are_exactly_those_that_are_needed() {
    let (_, newer) = history(2);
    let good = newer.entry_proof("a", 1, false);
    let [first, second] = [&good.rotations[0], &good.rotations[1]].map(Clone::clone);
    let mut origin = Origin::new();
    origin.append("z", &["one"]);
    origin.rotate(2);
    let elsewhere = origin.rotations[0].clone();
    for rotations in [
        vec![],
        vec![first.clone()],
        vec![second.clone()],
        vec![second.clone(), first.clone()],
        vec![first.clone(), first.clone(), second.clone()],
        vec![first.clone(), second.clone(), second.clone()],
        vec![first.clone(), second.clone(), first.clone()],
        vec![elsewhere, first.clone(), second.clone()],
        vec![first.clone(), second.clone(), good.head.clone()],
        vec![good.head.clone()],
        vec![first.clone(); 64],
    ] {
        let bad = EntryProof {
            rotations,
            ..good.clone()
        };
        assert!(bad.verify(&vkey(1)).is_err());
    }
    // Whoever pinned the last key may do without the first rotation: what is
    // before the pinned key proves nothing.
    let short = EntryProof {
        rotations: vec![second],
        ..good.clone()
    };
    assert!(short.verify(&vkey(2)).is_ok());
    // A rotation after the head is not needed.
    let (_, plain) = history(0);
    let mut later = plain.entry_proof("a", 1, false);
    later.rotations = vec![first];
    assert!(later.verify(&vkey(1)).is_err());
}

#[test]
fn a_line_that_does_not_count_refuses_any_note() {
    let (older, newer) = history(1);
    let line = |note: &[u8], seed: u8| {
        let mut note = Note::parse(note).unwrap();
        note.sign(&signer(seed)).unwrap();
        note.to_bytes()
    };
    let good = newer.context_proof(&older, "a");
    assert!(good.verify(&vkey(1)).is_ok());
    for seed in [2, 9] {
        let bad = ContextProof {
            older_head: line(&good.older_head, seed),
            ..good.clone()
        };
        assert!(bad.verify(&vkey(1)).is_err());
    }
    let bad = ContextProof {
        head: line(&good.head, 1),
        ..good.clone()
    };
    assert!(bad.verify(&vkey(1)).is_err());
    let bad = ContextProof {
        rotations: vec![line(&good.rotations[0], 9)],
        ..good.clone()
    };
    assert!(bad.verify(&vkey(1)).is_err());
    // Two lines that count, in the other order.
    let text = String::from_utf8(good.rotations[0].clone()).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    let last = lines.len() - 1;
    lines.swap(last, last - 1);
    let bad = ContextProof {
        rotations: vec![(lines.join("\n") + "\n").into_bytes()],
        ..good
    };
    assert!(bad.verify(&vkey(1)).is_err());
}

#[test]
fn no_change_of_a_byte_goes_unseen() {
    let check = |name: &str, bytes: &[u8], pinned: u8| {
        let key = vkey(pinned);
        assert!(file(bytes, &key).is_ok());
        for (at, changed) in changes(bytes) {
            let refused = changed == bytes || file(&changed, &key).is_err();
            assert!(refused, "{name}: byte {at} of {}", bytes.len());
        }
    };
    let (older, _) = history(0);
    check("head", &older.note(), 1);
    // Without its payload an entry's file is the same but for that line.
    for (name, bytes) in files(0).into_iter().skip(1) {
        check(name, &bytes, 1);
    }
    // Of three keys the second one: a rotation before it, and one after it.
    let (name, bytes) = files(2).remove(0);
    check(name, &bytes, 2);
}

#[test]
fn an_entry_proof_is_of_one_entry() {
    let (_, newer) = history(0);
    let good = newer.entry_proof("a", 2, true);
    let other = newer.entry_proof("a", 3, true);
    let elsewhere = newer.entry_proof("c", 2, true);
    let check = |proof: &EntryProof| proof.verify(&vkey(1));
    assert!(check(&good).is_ok());
    let payload = EntryProof {
        payload: other.payload.clone(),
        ..good.clone()
    };
    assert!(matches!(check(&payload), Err(ProofError::Payload { .. })));
    for bad in [
        EntryProof {
            header: other.header.clone(),
            ..good.clone()
        },
        EntryProof {
            context: elsewhere.context.clone(),
            ..good.clone()
        },
        EntryProof {
            directory: elsewhere.directory.clone(),
            ..good.clone()
        },
        EntryProof {
            inclusion: other.inclusion.clone(),
            ..good.clone()
        },
        EntryProof {
            sequence: 3,
            ..good.clone()
        },
        EntryProof {
            root: elsewhere.root,
            ..good.clone()
        },
        EntryProof {
            size: 4,
            ..good.clone()
        },
        EntryProof {
            header: vec![1; 72],
            ..good.clone()
        },
    ] {
        assert!(check(&bad).is_err());
    }
    // No payload is another file, and proves less.
    let without = EntryProof {
        payload: None,
        ..good
    };
    assert!(!check(&without).unwrap().payload_checked);
}

#[test]
fn a_head_whose_counts_are_not_its_directorys_proves_nothing() {
    let mut origin = Origin::new();
    origin.append("a", &["one"]);
    let older = origin.publish();
    origin.append("a", &["two"]);
    let mut head = origin.next_head();
    head.entries += 1;
    let newer = origin.publish_as(&head);
    let entry = newer.entry_proof("a", 1, true);
    assert!(matches!(
        entry.verify(&vkey(1)),
        Err(ProofError::Counts { .. })
    ));
    assert!(newer.context_proof(&older, "a").verify(&vkey(1)).is_err());
    assert!(newer.store_proof(&older).is_err());
}

#[test]
fn a_context_extends_what_it_was_or_nothing_is_proven() {
    let (older, newer) = history(0);
    let check = |proof: &ContextProof| proof.verify(&vkey(1));
    // Unchanged, grown, new, and a head against itself.
    for name in ["a", "b", "c", "d"] {
        assert!(check(&newer.context_proof(&older, name)).is_ok(), "{name}");
        assert!(check(&newer.context_proof(&newer, name)).is_ok(), "{name}");
    }
    let good = newer.context_proof(&older, "a");
    for name in ["a", "b", "c"] {
        let refused = check(&older.context_proof(&newer, name)).unwrap_err();
        assert!(matches!(refused, ProofError::Order { .. }), "{name}");
    }
    let unknown = ContextProof {
        from: None,
        consistency: Vec::new(),
        ..good.clone()
    };
    assert!(matches!(
        check(&unknown),
        Err(ProofError::NotExtended { .. })
    ));
    let b = newer.context_proof(&older, "b");
    for bad in [
        ContextProof {
            from: b.from,
            ..good.clone()
        },
        ContextProof {
            older_directory: b.older_directory.clone(),
            from: Some(State {
                size: 0,
                root: hash_of_nothing(),
            }),
            ..good.clone()
        },
        ContextProof {
            to: b.to,
            ..good.clone()
        },
        ContextProof {
            consistency: good.consistency[1..].to_vec(),
            ..good.clone()
        },
        ContextProof {
            context: b.context.clone(),
            ..good.clone()
        },
        ContextProof {
            directory: older.path("a"),
            ..good.clone()
        },
    ] {
        assert!(check(&bad).is_err());
    }
    // A context that is rewritten, or has shrunk.
    let mut fork = Origin::new();
    fork.append("a", &["one", "TWO", "three", "four"]);
    fork.append("b", &["uno"]);
    fork.append("c", &["ein"]);
    let counts = {
        let mut fork = fork.clone();
        fork.epoch = 4;
        fork.publish()
    };
    // Nothing is proven under heads that contradict each other by themselves.
    assert!(matches!(
        check(&counts.context_proof(&older, "b")),
        Err(ProofError::Contradiction(_))
    ));
    fork.append("d", &["un"]);
    fork.epoch = 4;
    let fork = fork.publish();
    assert!(check(&fork.context_proof(&older, "b")).is_ok());
    assert!(matches!(
        check(&fork.context_proof(&older, "a")),
        Err(ProofError::Tree(_))
    ));
    assert!(check(&fork.context_proof(&older, "c")).is_err());
}

fn hash_of_nothing() -> Hash {
    crate::hash::empty_root()
}

#[test]
fn heads_of_two_terms_are_not_compared() {
    let mut origin = Origin::new();
    origin.append("a", &["one"]);
    let older = origin.publish();
    origin.take_over(2, &older);
    let newer = origin.publish();
    let refused = newer.context_proof(&older, "a").verify(&vkey(1));
    assert!(matches!(refused, Err(ProofError::Order { .. })));
    assert!(newer.store_proof(&older).is_err());
    // Alone it proves what was signed in its term.
    assert!(newer.entry_proof("a", 1, true).verify(&vkey(1)).is_ok());
}

#[test]
fn limits_are_checked_before_anything_is_read() {
    let key: VerifierKey = vkey(1);
    let many = format!("{STORE_KIND}\nolder-head 18446744073709551615\n");
    assert!(file(many.as_bytes(), &key).unwrap_err().is_malformed());
    let long = [ENTRY_KIND.as_bytes(), b"\n", &vec![b'a'; (16 << 20) + 1]].concat();
    assert!(file(&long, &key).unwrap_err().is_malformed());
}
