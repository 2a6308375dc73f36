use proptest::prelude::*;

use super::*;
use crate::head::{Head, Takeover};
use crate::note::Note;
use crate::proof::testing::{
    Origin, Point, across_terms, begun, changes, every_kind, next, of_context, of_heads, signer,
    takeover, vkey,
};
use crate::verify::{Proven, file};

fn refused(evidence: &Evidence) {
    let verdict = evidence.verify(&vkey(1));
    assert!(verdict.is_err(), "{verdict:?}");
}

#[test]
fn every_kind_is_read_as_it_was_written_and_verifies() {
    for rotations in 0..3 {
        let kinds = every_kind(rotations);
        assert_eq!(kinds.iter().map(|k| k.0).collect::<Vec<_>>(), Kind::ALL);
        for (kind, evidence) in kinds {
            let bytes = evidence.to_bytes();
            assert_eq!(Evidence::parse(&bytes).unwrap(), evidence);
            assert_eq!(evidence.rotations.len(), usize::from(rotations));
            let verdict = evidence.verify(&vkey(1)).unwrap();
            assert_eq!(verdict.kind, kind);
            assert!(verdict.earlier <= verdict.later);
            let about = evidence.context.as_ref().map(|context| context.id.clone());
            assert_eq!(verdict.context, about);
            let said = verdict.to_string();
            assert!(said.starts_with("proofs.example signed two histories: "));
            let proven = file(&bytes, &vkey(1)).unwrap();
            assert_eq!(proven, Proven::Evidence(Box::new(verdict)));
            // By whom it is does not depend on which of its keys is pinned; the
            // statements were all made under the last one or later.
            assert!(evidence.verify(&vkey(1 + rotations)).is_ok(), "{said}");
            assert!(evidence.verify(&vkey(9)).is_err());
        }
    }
}

#[test]
fn no_change_of_a_byte_goes_unseen() {
    for (kind, evidence) in every_kind(0) {
        let bytes = evidence.to_bytes();
        for (at, changed) in changes(&bytes) {
            let refused = changed == bytes || file(&changed, &vkey(1)).is_err();
            assert!(refused, "{kind:?}: byte {at} of {}", bytes.len());
        }
    }
}

#[test]
fn no_change_of_a_byte_goes_unseen_with_takeovers_and_rotations() {
    let evidence = across_terms();
    let bytes = evidence.to_bytes();
    for (at, changed) in changes(&bytes) {
        let refused = changed == bytes || file(&changed, &vkey(1)).is_err();
        assert!(refused, "byte {at} of {}", bytes.len());
    }
}

#[test]
fn honest_heads_are_no_evidence() {
    let (mut origin, earlier) = begun();
    origin.append("a", &["four"]);
    origin.append("c", &["ein"]);
    let later = origin.publish();
    assert_eq!(of_heads(&earlier, &later), None);
    assert_eq!(of_heads(&earlier, &earlier), None);
    let texts = Evidence {
        rotations: Vec::new(),
        takeovers: Vec::new(),
        earlier: earlier.note(),
        later: later.note(),
        context: None,
    };
    refused(&texts);
    for context in ["a", "b"] {
        // A consistency proof that leads to the root that was signed.
        refused(&of_context(&earlier, &later, context));
        let mut evidence = of_context(&earlier, &later, context);
        if let Some(context) = &mut evidence.context {
            context.rewritten = None;
        }
        refused(&evidence);
        // One head twice.
        refused(&of_context(&earlier, &earlier, context));
    }
    // Said to be gone, with the path of what is there, and of what is not.
    for path in ["a", "z"] {
        let mut evidence = of_context(&earlier, &later, "a");
        if let Some(context) = &mut evidence.context {
            context.later = None;
            context.rewritten = None;
            context.later_directory = later.path(path);
        }
        refused(&evidence);
    }
}

/// A note that is signed again by another key, or whose lines are exchanged, is
/// the same statement.
#[test]
fn one_statement_twice_is_no_contradiction() {
    let (mut origin, _) = begun();
    let rotation = origin.rotate(2);
    let twice = |note: &[u8], other: Vec<u8>| Evidence {
        rotations: Vec::new(),
        takeovers: Vec::new(),
        earlier: note.to_vec(),
        later: other,
        context: None,
    };
    let note = rotation.note();
    let text = Note::parse(&note).unwrap().text().to_owned();
    let by = |seeds: &[u8]| {
        let mut note = Note::new(text.clone()).unwrap();
        for seed in seeds {
            note.sign(&signer(*seed)).unwrap();
        }
        note.to_bytes()
    };
    for seeds in [&[1, 2][..], &[2, 1], &[1], &[2], &[1, 2, 3]] {
        refused(&twice(&note, by(seeds)));
        refused(&twice(&by(seeds), note.clone()));
    }
    let takeover = origin.take_over(2, &rotation);
    refused(&twice(&takeover, takeover.clone()));
    refused(&twice(&note, takeover.clone()));
    refused(&twice(&takeover, note));
}

#[test]
fn statements_stand_in_their_order() {
    for (_, evidence) in every_kind(0) {
        let swapped = Evidence {
            earlier: evidence.later.clone(),
            later: evidence.earlier.clone(),
            ..evidence
        };
        refused(&swapped);
    }
}

#[test]
fn two_texts_need_no_directories() {
    let (mut origin, one) = begun();
    origin.epoch = 0;
    let other = next(&origin, |origin| {
        origin.forget("b");
        origin.append("c", &["ein"]);
    });
    assert_eq!(one.order(), other.order());
    let (earlier, later) = (&one, &other);
    refused(&of_context(earlier, later, "b"));
    refused(&of_context(later, earlier, "c"));
    assert!(of_heads(earlier, later).unwrap().verify(&vkey(1)).is_ok());
}

#[test]
fn what_is_not_needed_is_refused() {
    let (mut origin, base) = begun();
    let note = origin.clone().take_over(2, &base);
    origin.rotate(7);
    for (kind, good) in every_kind(0) {
        refused(&Evidence {
            rotations: origin.rotations.clone(),
            ..good.clone()
        });
        refused(&Evidence {
            takeovers: vec![note.clone()],
            ..good.clone()
        });
        // Counts may be wrong and a context gone besides.
        if good.context.is_none() && kind != Kind::Counts {
            let later = next(&origin, |origin| origin.forget("b"));
            let context = Some(later.context_evidence(&base, "b"));
            refused(&Evidence {
                context,
                ..good.clone()
            });
        }
        let mut proof = good;
        if let Some(context) = &mut proof.context
            && kind != Kind::Rewritten
        {
            context.rewritten = Some(Rewritten {
                root: context.earlier.root,
                consistency: Vec::new(),
            });
            refused(&proof);
        }
    }
    // Two rotations away from a key: the one in the chain leads nowhere.
    let (_, two) = every_kind(0).remove(1);
    refused(&Evidence {
        rotations: vec![two.earlier.clone()],
        ..two
    });
}

#[test]
fn another_origins_statements_do_not_count() {
    for (_, evidence) in every_kind(0) {
        let other = |note: &[u8]| {
            let text = Note::parse(note).unwrap().text().to_owned();
            let name = OriginName::new("other.example").unwrap();
            let key = crate::note::SignerKey::from_seed(name, &[1; 32]);
            let text = text.replace("\nproofs.example\n", "\nother.example\n");
            let mut note = Note::new(text).unwrap();
            note.sign(&key).unwrap();
            note.to_bytes()
        };
        refused(&Evidence {
            earlier: other(&evidence.earlier),
            ..evidence.clone()
        });
        refused(&Evidence {
            later: other(&evidence.later),
            ..evidence
        });
    }
}

#[test]
fn a_proof_that_fails_is_no_evidence() {
    let (_, good) = every_kind(0).remove(7);
    let with = |change: &dyn Fn(&mut ContextEvidence)| {
        let mut bad = good.clone();
        change(bad.context.as_mut().unwrap());
        refused(&bad);
    };
    let rewritten = good.context.clone().unwrap().rewritten.unwrap();
    with(&|context| context.rewritten = None);
    for at in 0..rewritten.consistency.len() {
        with(&|context| {
            let rewritten = context.rewritten.as_mut().unwrap();
            rewritten.consistency[at] = context.later.unwrap().root;
        });
    }
    with(&|context| _ = context.rewritten.as_mut().unwrap().consistency.pop());
    with(&|context| context.rewritten.as_mut().unwrap().root = context.later.unwrap().root);
    with(&|context| context.earlier.size -= 1);
    with(&|context| context.earlier.root = rewritten.root);
    with(&|context| context.later.as_mut().unwrap().size -= 1);
    with(&|context| context.id = ContextId::new("b").unwrap());
    with(&|context| std::mem::swap(&mut context.earlier_directory, &mut context.later_directory));
}

#[test]
fn takeovers_lead_from_term_to_term() {
    let good = across_terms();
    let verdict = good.verify(&vkey(1)).unwrap();
    assert_eq!((verdict.kind, verdict.later.term), (Kind::Dropped, 3));
    let [first, second] = [&good.takeovers[0], &good.takeovers[1]].map(Clone::clone);
    for takeovers in [
        vec![],
        vec![first.clone()],
        vec![second.clone()],
        vec![second.clone(), first.clone()],
        vec![first.clone(), first.clone(), second.clone()],
        vec![first.clone(), second.clone(), second],
    ] {
        refused(&Evidence {
            takeovers,
            ..good.clone()
        });
    }
    // Without the rotation the takeovers and the later head are nobody's.
    refused(&Evidence {
        rotations: Vec::new(),
        ..good
    });
}

#[test]
fn a_head_above_the_base_was_given_up() {
    let (mut origin, base) = begun();
    let copy = origin.clone();
    origin.append("b", &["due"]);
    let superseded = origin.publish();
    let mut origin = copy;
    let takeover = origin.take_over(2, &base);
    let later = next(&origin, |origin| origin.append("a", &["four"]));
    let across = |earlier: &Point| Evidence {
        takeovers: vec![takeover.clone()],
        ..of_context(earlier, &later, "b")
    };
    // The later head lacks an entry of the superseded one, and may.
    refused(&across(&superseded));
    refused(&across(&base));
    let counts = |point: &Point| {
        let takeovers = [takeover.clone()];
        Evidence::of_heads(&[], &takeovers, &point.head, &later.head)
    };
    assert_eq!(counts(&base), None);
    refused(&counts(&superseded).unwrap());
    let lost = next(&origin, |origin| origin.forget("b"));
    let evidence = Evidence {
        takeovers: vec![takeover.clone()],
        ..of_context(&base, &lost, "b")
    };
    assert_eq!(evidence.verify(&vkey(1)).unwrap().kind, Kind::Dropped);
    let counts = Evidence::of_heads(&[], &[takeover], &base.head, &lost.head).unwrap();
    assert_eq!(counts.verify(&vkey(1)).unwrap().kind, Kind::Counts);
    assert_eq!(of_heads(&base, &lost), None);
}

#[test]
fn takeovers_count_under_keys_that_counted_at_their_base() {
    let (mut origin, base) = begun();
    let by_first = origin.clone().take_over(2, &base);
    origin.rotate(2);
    let after = origin.publish();
    let mut old = Origin::new();
    let late = old.take_over(2, &after);
    let chain = origin.chain(1);
    assert!(chain.takeover(&by_first).is_ok());
    assert!(chain.takeover(&late).is_err());
    assert!(origin.chain(2).takeover(&by_first).is_err());
    let by_second = origin.clone().take_over(2, &after);
    assert!(chain.takeover(&by_second).is_ok());
    // Two of one term under two keys.
    let both = [&by_first, &by_second].map(|note| takeover(&origin, 1, note));
    let evidence = Evidence::of_takeovers(&origin.rotations, &both[0], &both[1]).unwrap();
    assert_eq!(evidence.verify(&vkey(1)).unwrap().kind, Kind::TwoTakeovers);
    assert_eq!(evidence.rotations.len(), 1);
    assert!(evidence.verify(&vkey(2)).is_err());
    assert_eq!(Evidence::of_takeovers(&[], &both[0], &both[0]), None);
    // A takeover that is signed twice is taken in one spelling only.
    let mut twice = Note::parse(&by_second).unwrap();
    twice.sign(&signer(1)).unwrap();
    assert!(chain.takeover(&twice.to_bytes()).is_err());
    let other = Takeover {
        origin: OriginName::new("other.example").unwrap(),
        ..both[0].takeover().clone()
    };
    assert!(chain.takeover(&origin.sign_takeover(&other)).is_err());
}

/// The rotation lies above the takeover's base: it was given up, and its key
/// signs it again in the new term.
#[test]
fn a_rotation_that_a_takeover_gave_up_may_be_signed_again() {
    let (mut origin, base) = begun();
    let before = origin.clone();
    let given_up = origin.rotate(2);
    for seed in [2, 3] {
        let mut origin = before.clone();
        let takeover = origin.take_over(2, &base);
        origin.epoch = 9;
        let again = origin.rotate(seed);
        assert_eq!(of_heads(&given_up, &again), None);
        for takeovers in [vec![], vec![takeover]] {
            for rotations in [vec![], given_up.rotations.clone()] {
                refused(&Evidence {
                    rotations,
                    takeovers: takeovers.clone(),
                    earlier: given_up.note(),
                    later: again.note(),
                    context: None,
                });
            }
        }
    }
}

#[test]
fn a_takeover_of_the_last_epoch_leaves_none_to_a_head() {
    let (mut origin, _) = begun();
    origin.epoch = u64::MAX - 2;
    let earlier = origin.publish();
    for (epoch, leaves_one) in [(u64::MAX - 1, true), (u64::MAX, false)] {
        let mut origin = origin.clone();
        let base = Takeover {
            origin: vkey(1).name().clone(),
            term: 2,
            base: HeadOrder { term: 1, epoch },
            base_directory_root: earlier.head.head().directory_root,
            base_contexts: 2,
            base_entries: 4,
            time_ns: 1,
        };
        let takeover = origin.sign_takeover(&base);
        origin.forget("b");
        origin.term = 2;
        origin.epoch = u64::MAX - 1;
        let later = origin.publish();
        let evidence = Evidence {
            takeovers: vec![takeover],
            ..of_context(&earlier, &later, "b")
        };
        assert_eq!(evidence.verify(&vkey(1)).is_ok(), leaves_one);
    }
}

/// What `counts` says is what both heads say.
#[test]
fn counts_are_said_as_they_are() {
    let (_, evidence) = every_kind(0).remove(3);
    let verdict = evidence.verify(&vkey(1)).unwrap();
    let Some((one, two)) = verdict.roots else {
        panic!("{verdict}");
    };
    let want = format!(
        "proofs.example signed two histories: head 1.2 states 2 contexts, 4 entries, directory \
         root {one}, and head 1.3 states 1 contexts, 3 entries, directory root {two}: no context \
         may be lost"
    );
    assert_eq!(verdict.to_string(), want);
}

/// Something an honest origin does.
#[derive(Clone, Debug)]
enum Step {
    Append(u8, u8),
    Publish,
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..4u8, 1..5u8).prop_map(|(context, count)| Step::Append(context, count)),
        3 => Just(Step::Publish),
        1 => Just(Step::Rotate),
    ];
    proptest::collection::vec(step, 1..16)
}

fn append(origin: &mut Origin, context: u8, count: u8, text: &str) {
    let payloads: Vec<String> = (0..count).map(|n| format!("{text} {n}")).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    origin.append(&format!("context-{context}"), &payloads);
}

/// Every head of a history.
fn run(steps: &[Step]) -> (Origin, Vec<Point>) {
    let mut origin = Origin::new();
    let mut points = vec![origin.publish()];
    let mut seed = 1;
    for step in steps {
        match step {
            Step::Append(context, count) => append(&mut origin, *context, *count, "entry"),
            Step::Publish => points.push(origin.publish()),
            Step::Rotate => {
                seed += 1;
                points.push(origin.rotate(seed));
            }
        }
    }
    points.push(origin.publish());
    (origin, points)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_honest_history_is_consistent_and_gives_no_evidence(steps in steps()) {
        let (_, points) = run(&steps);
        for (at, later) in points.iter().enumerate() {
            for earlier in &points[..=at] {
                prop_assert_eq!(of_heads(earlier, later), None);
                prop_assert_eq!(of_heads(later, earlier), None);
                let store = later.store_proof(earlier).unwrap();
                prop_assert!(store.verify(&vkey(1)).is_ok());
                for context in later.names() {
                    let proof = later.context_proof(earlier, context);
                    prop_assert!(proof.verify(&vkey(1)).is_ok());
                    if earlier.state(context).is_some() {
                        let mut evidence = of_context(earlier, later, context);
                        prop_assert!(evidence.verify(&vkey(1)).is_err());
                        evidence.context.as_mut().unwrap().rewritten = None;
                        prop_assert!(evidence.verify(&vkey(1)).is_err());
                    }
                }
            }
        }
    }

    /// A second history that lacks the last entry of one context, or has another
    /// in its place, and goes on: whichever two heads meet, one of the kinds.
    #[test]
    fn a_fork_gives_evidence(
        steps in steps(),
        context in 0..4u8,
        lost in 1..4u8,
        more in 0..5u8,
        skip in 0..3u64,
    ) {
        let (mut origin, _) = run(&steps);
        append(&mut origin, context, 3, "common");
        let mut fork = origin.clone();
        let before = origin.publish();
        let name = format!("context-{context}");
        let size = before.state(&name).unwrap().size;
        fork.cut(&name, size.saturating_sub(u64::from(lost)));
        if more > 0 {
            append(&mut fork, context, more, "forked");
        }
        append(&mut fork, 9, 4, "new");
        fork.epoch += skip;
        let after = fork.publish();
        let kind = after.state(&name).map_or(Kind::Dropped, |state| {
            match state.size.cmp(&size) {
                std::cmp::Ordering::Less => Kind::Shrunk,
                std::cmp::Ordering::Equal => Kind::OtherRoot,
                std::cmp::Ordering::Greater => Kind::Rewritten,
            }
        });
        let texts = of_heads(&before, &after);
        if before.order() == after.order() {
            prop_assert_eq!(texts.unwrap().verify(&vkey(1)).unwrap().kind, Kind::TwoTexts);
        } else {
            if let Some(texts) = texts {
                prop_assert_eq!(texts.verify(&vkey(1)).unwrap().kind, Kind::Counts);
            }
            let evidence = of_context(&before, &after, &name);
            let verdict = evidence.verify(&vkey(1)).unwrap();
            prop_assert_eq!(verdict.kind, kind);
            prop_assert!(after.store_proof(&before).is_err());
            let proof = after.state(&name).map(|_| after.context_proof(&before, &name));
            prop_assert!(proof.is_none_or(|proof| proof.verify(&vkey(1)).is_err()));
        }
    }
}

/// A takeover's text does not pass for a head, nor a head's for a takeover.
#[test]
fn statements_of_two_sorts_are_not_mixed() {
    let (origin, base) = begun();
    let takeover = origin.clone().take_over(2, &base);
    let text = Note::parse(&takeover).unwrap().text().to_owned();
    assert!(Head::parse(&text).is_err());
    assert!(origin.chain(1).head(&takeover).is_err());
    assert!(origin.chain(1).takeover(&base.note()).is_err());
    assert!(origin.chain(1).rotation(&base.note()).is_err());
}
