//! Evidence files (`spec/11-evidence.md`): every kind, and near misses.

use converge_ledger::entry::ContextId;
use converge_ledger::evidence::{ContextEvidence, Evidence, Kind, Rewritten};
use converge_ledger::head::Takeover;
use converge_ledger::note::Note;
use serde_json::Value;

use super::file;
use super::origin::{
    Origin, Point, across_terms, begun, every_kind, history, next, of_context, of_heads, vkey,
};
use super::proof::{bad, edited, good, more_lines};

pub(crate) fn evidence() -> Value {
    let mut cases = Vec::new();
    for rotations in [0, 2] {
        let after = if rotations > 0 {
            " after two rotations"
        } else {
            ""
        };
        for (kind, evidence) in every_kind(rotations) {
            let name = format!("{}{after}", kind.name());
            cases.push(good(&name, 1, &evidence.to_bytes()));
        }
    }
    let (_, last) = every_kind(2).remove(7);
    cases.push(good("the last of three keys pinned", 3, &last.to_bytes()));
    cases.push(good(
        "across two takeovers and a rotation",
        1,
        &across_terms().to_bytes(),
    ));
    cases.extend(rotation_as_a_statement());
    cases.extend(near_misses());
    cases.extend(surplus());
    cases.extend(terms());
    cases.extend(failing_proofs());
    cases.extend(spellings());
    file("11-evidence", cases)
}

fn refused(name: &str, evidence: &Evidence) -> Value {
    bad(name, &vkey(1), &evidence.to_bytes())
}

fn texts(earlier: Vec<u8>, later: Vec<u8>) -> Evidence {
    Evidence {
        rotations: Vec::new(),
        takeovers: Vec::new(),
        earlier,
        later,
        context: None,
    }
}

/// The last rotation is a statement itself: its block may be there or not.
fn rotation_as_a_statement() -> [Value; 2] {
    let (origin, _) = begun();
    let plain = next(&origin, |origin| origin.append("a", &["four"]));
    let rotation = origin.clone().rotate(2);
    let with = of_heads(&plain, &rotation).unwrap();
    assert_eq!(with.rotations, [rotation.note()]);
    let without = Evidence {
        rotations: Vec::new(),
        ..with.clone()
    };
    let name = "two-texts, one is a rotation";
    [
        good(name, 1, &with.to_bytes()),
        good(&format!("{name}, not repeated"), 1, &without.to_bytes()),
    ]
}

/// Statements that can both be true.
fn near_misses() -> Vec<Value> {
    let (mut origin, earlier) = begun();
    origin.append("a", &["four"]);
    origin.append("c", &["ein"]);
    let later = origin.publish();
    let plain = texts(earlier.note(), later.note());
    let mut cases = vec![
        refused("an honest extension", &plain),
        refused("one head twice", &texts(earlier.note(), earlier.note())),
        refused("a context that stayed", &of_context(&earlier, &later, "b")),
        refused(
            "a consistency proof to the root that was signed",
            &of_context(&earlier, &later, "a"),
        ),
        refused(
            "a context of one head only",
            &of_context(&earlier, &earlier, "a"),
        ),
    ];
    let gone = |path: &str| {
        let mut evidence = of_context(&earlier, &later, "a");
        evidence.context = evidence.context.map(|context| ContextEvidence {
            later: None,
            rewritten: None,
            later_directory: later.path(path),
            ..context
        });
        evidence
    };
    cases.push(refused(
        "a context said to be gone that is there",
        &gone("a"),
    ));
    cases.push(refused("the absence of another context", &gone("z")));
    let mut origin = begun().0;
    let rotation = origin.rotate(2);
    let mut other = Note::new(Note::parse(&rotation.note()).unwrap().text().to_owned()).unwrap();
    other.sign(&super::origin::signer(2)).unwrap();
    other.sign(&super::origin::signer(1)).unwrap();
    let exchanged = texts(rotation.note(), other.to_bytes());
    cases.push(refused("one rotation with its lines exchanged", &exchanged));
    let more = texts(earlier.note(), more_lines(&earlier.note(), 9));
    cases.push(refused("one head with a line by another key", &more));
    let key_is_not_known = every_kind(0).remove(0).1.to_bytes();
    cases.push(bad(
        "a key that is not the origin's",
        &vkey(9),
        &key_is_not_known,
    ));
    let all = every_kind(2).remove(0).1;
    cases.push(refused(
        "the rotations missing",
        &Evidence {
            rotations: Vec::new(),
            ..all.clone()
        },
    ));
    cases.push(refused(
        "the rotations in the wrong order",
        &Evidence {
            rotations: all.rotations.iter().rev().cloned().collect(),
            ..all
        },
    ));
    for (kind, evidence) in every_kind(0) {
        let swapped = Evidence {
            earlier: evidence.later.clone(),
            later: evidence.earlier.clone(),
            ..evidence
        };
        cases.push(refused(
            &format!("{}, in the wrong order", kind.name()),
            &swapped,
        ));
    }
    cases.push(refused(
        "two texts with directories",
        &two_texts_with_directories(),
    ));
    cases
}

fn two_texts_with_directories() -> Evidence {
    let (mut origin, one) = begun();
    origin.epoch = 0;
    let other = next(&origin, |origin| {
        origin.forget("b");
        origin.append("c", &["ein"]);
    });
    of_context(&one, &other, "b")
}

fn surplus() -> Vec<Value> {
    let mut cases = Vec::new();
    let kinds = every_kind(0);
    let (mut origin, base) = begun();
    let note = origin.clone().take_over(2, &base);
    origin.rotate(7);
    for (kind, evidence) in &kinds {
        let name = |what: &str| format!("{}, {what}", kind.name());
        let rotations = origin.rotations.clone();
        cases.push(refused(
            &name("a rotation too many"),
            &Evidence {
                rotations,
                ..evidence.clone()
            },
        ));
        cases.push(refused(
            &name("a takeover too many"),
            &Evidence {
                takeovers: vec![note.clone()],
                ..evidence.clone()
            },
        ));
    }
    let two = &kinds[1].1;
    cases.push(refused(
        "one of two rotations in the chain",
        &Evidence {
            rotations: vec![two.earlier.clone()],
            ..two.clone()
        },
    ));
    let (_, shrunk) = &kinds[5];
    let mut more = shrunk.clone();
    more.context = more.context.map(|context| ContextEvidence {
        rewritten: Some(Rewritten {
            root: context.earlier.root,
            consistency: Vec::new(),
        }),
        ..context
    });
    cases.push(refused("shrunk, a proof that is not needed", &more));
    cases
}

/// What takeovers allow.
fn terms() -> Vec<Value> {
    let good = across_terms();
    let [first, second] = [&good.takeovers[0], &good.takeovers[1]].map(Clone::clone);
    let with = |takeovers: Vec<Vec<u8>>| Evidence {
        takeovers,
        ..good.clone()
    };
    let mut cases = vec![
        refused("two terms and no takeover", &with(vec![])),
        refused("the second takeover missing", &with(vec![first.clone()])),
        refused("the first takeover missing", &with(vec![second.clone()])),
        refused(
            "the takeovers in the wrong order",
            &with(vec![second.clone(), first.clone()]),
        ),
        refused(
            "a takeover twice",
            &with(vec![first.clone(), first.clone(), second.clone()]),
        ),
        refused("a takeover beyond the later head", &{
            let (origin, base) = begun();
            let note = origin.clone().take_over(2, &base);
            let fewer = next(&origin, |origin| origin.forget("b"));
            Evidence {
                takeovers: vec![note],
                ..of_heads(&base, &fewer).unwrap()
            }
        }),
        refused(
            "a takeover with a line by another key",
            &with(vec![more_lines(&first, 9), second]),
        ),
    ];
    let (mut origin, base) = begun();
    let copy = origin.clone();
    origin.append("b", &["due"]);
    let superseded: Point = origin.publish();
    let mut origin: Origin = copy;
    let takeover = origin.take_over(2, &base);
    let later = next(&origin, |origin| origin.append("a", &["four"]));
    let across = |earlier: &Point| Evidence {
        takeovers: vec![takeover.clone()],
        ..of_context(earlier, &later, "b")
    };
    cases.push(refused(
        "a head above the base of a takeover",
        &across(&superseded),
    ));
    cases.push(refused("a context kept across a takeover", &across(&base)));
    let counts = Evidence::of_heads(
        &[],
        std::slice::from_ref(&takeover),
        &superseded.head,
        &later.head,
    );
    cases.push(refused("counts of a head above the base", &counts.unwrap()));
    cases.push(refused(
        "one takeover twice",
        &texts(takeover.clone(), takeover.clone()),
    ));
    cases.push(refused(
        "a head and a takeover",
        &texts(base.note(), takeover.clone()),
    ));
    cases.push(refused(
        "a takeover and a head",
        &texts(takeover.clone(), base.note()),
    ));
    let text = Note::parse(&takeover).unwrap().text().to_owned();
    let other = Takeover {
        term: 3,
        ..Takeover::parse(&text).unwrap()
    };
    let mut both = [takeover, origin.sign_takeover(&other)];
    both.sort_unstable();
    let [one, two] = both;
    cases.push(refused("takeovers of two terms", &texts(one, two)));
    cases.push(refused(
        "a takeover by a key that no longer counted",
        &by_an_old_key(),
    ));
    cases.extend(given_up_rotations());
    cases.push(refused(
        "a takeover of the last epoch",
        &after_the_last_epoch(),
    ));
    cases
}

/// A takeover's base lies below a rotation, which is signed again in its term.
fn given_up_rotations() -> [Value; 3] {
    let (origin, base) = begun();
    let given_up = origin.clone().rotate(2);
    let mut origin = origin;
    let takeover = origin.take_over(2, &base);
    origin.epoch = 9;
    let again = |seed| texts(given_up.note(), origin.clone().rotate(seed).note());
    let name = "a rotation given up by a takeover and signed again";
    let with = Evidence {
        takeovers: vec![takeover],
        ..again(2)
    };
    [
        refused(name, &again(2)),
        refused(&format!("{name}, to another key"), &again(3)),
        refused(&format!("{name}, with the takeover"), &with),
    ]
}

/// A takeover whose base has the last epoch there is.
fn after_the_last_epoch() -> Evidence {
    let (mut origin, _) = begun();
    origin.epoch = u64::MAX - 1;
    let earlier = origin.publish();
    let takeover = origin.take_over(2, &earlier);
    origin.epoch = u64::MAX - 1;
    origin.forget("b");
    let later = origin.publish();
    Evidence {
        takeovers: vec![takeover],
        ..of_context(&earlier, &later, "b")
    }
}

/// The second takeover's base lies behind the rotation, and the old key signed.
fn by_an_old_key() -> Evidence {
    let (mut origin, base) = begun();
    let old = origin.clone();
    let first = old.clone().take_over(2, &base);
    origin.rotate(2);
    let after = origin.publish();
    let second = old.clone().take_over(2, &after);
    let mut both = [first, second];
    both.sort_unstable();
    let [earlier, later] = both;
    // The chain has to end with a key that signed one of them, so that nothing
    // but the base is wrong.
    let chain = origin.rotations.clone();
    Evidence {
        rotations: chain,
        ..texts(earlier, later)
    }
}

fn failing_proofs() -> Vec<Value> {
    let (_, proof) = every_kind(0).remove(7);
    assert_eq!(proof.verify(&vkey(1)).unwrap().kind, Kind::Rewritten);
    let with = |name: &str, change: &dyn Fn(&mut ContextEvidence)| {
        let mut evidence = proof.clone();
        change(evidence.context.as_mut().unwrap());
        refused(&format!("rewritten, {name}"), &evidence)
    };
    let rewritten = |context: &mut ContextEvidence| context.rewritten.clone().unwrap();
    vec![
        with("no proof", &|context| context.rewritten = None),
        with("a hash missing", &|context| {
            _ = context.rewritten.as_mut().unwrap().consistency.pop();
        }),
        with("a hash too many", &|context| {
            let rewritten = context.rewritten.as_mut().unwrap();
            rewritten.consistency.push(rewritten.root);
        }),
        with("another root", &|context| {
            context.rewritten.as_mut().unwrap().root = context.later.unwrap().root;
        }),
        with("another earlier size", &|context| context.earlier.size -= 1),
        with("another earlier root", &|context| {
            context.earlier.root = rewritten(context).root;
        }),
        with("another later size", &|context| {
            context.later.as_mut().unwrap().size -= 1;
        }),
        with("another context", &|context| {
            context.id = ContextId::new("b").unwrap();
        }),
        with("the directories exchanged", &|context| {
            std::mem::swap(&mut context.earlier_directory, &mut context.later_directory);
        }),
        with("a directory missing", &|context| {
            context.later_directory.nodes.clear();
        }),
        with("said to be gone", &|context| context.later = None),
    ]
}

fn spellings() -> Vec<Value> {
    let bytes = every_kind(0).remove(7).1.to_bytes();
    let mut cases = Vec::new();
    for (name, from, to) in [
        ("another version", "evidence/v1", "evidence/v2"),
        (
            "statements under each other's names",
            "earlier 8\n",
            "later 8\n",
        ),
        (
            "a statement longer than it says",
            "earlier 8\n",
            "earlier 7\n",
        ),
        ("a statement without lines", "earlier 8\n", "earlier 0\n"),
        ("a leading zero", "earlier-state 3 ", "earlier-state 03 "),
        (
            "a state without a root",
            "later-state 5 ",
            "later-state 5\nx ",
        ),
        ("no consistency proof", "consistency ", "consistence "),
        ("a field missing", "context a\n", ""),
    ] {
        cases.push(bad(
            &format!("spelling, {name}"),
            &vkey(1),
            &edited(&bytes, from, to),
        ));
    }
    let more = [&bytes[..], b"\n"].concat();
    cases.push(bad("spelling, a line too many", &vkey(1), &more));
    let proof = history(0).1.note();
    let nested = texts(bytes, proof);
    cases.push(refused("spelling, evidence as a statement", &nested));
    cases
}
