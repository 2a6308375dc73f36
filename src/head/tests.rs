use super::*;

// Computed with Python's `cryptography`: seed 00 01 .. 1f.
const KNOWN: &str = "converge-ledger/head/v1\nledger.example/test\n1 7\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n2 9\n1700000000000000000\n\n\u{2014} ledger.example/test eoZAmd/7P9blbnkJ75TrYYPxulsDUU1eFuQXDlUCGHqxeC5u/XpNBkJ0N8OYT8RGwhzXdRaVji1eL2EAady/21TcDgE=\n";

fn name() -> OriginName {
    OriginName::new("ledger.example/test").unwrap()
}

fn key(fill: u8) -> SignerKey {
    SignerKey::from_seed(name(), &[fill; 32])
}

fn head() -> Head {
    Head {
        origin: name(),
        term: 1,
        epoch: 7,
        directory_root: Hash::from_bytes([0xab; 32]),
        contexts: 2,
        entries: 9,
        time_ns: 1_700_000_000_000_000_000,
        rotation: None,
    }
}

fn rotation(old: &SignerKey, new: &SignerKey) -> Head {
    Head {
        rotation: Some(Rotation {
            old: old.verifier().clone(),
            new: new.verifier().clone(),
        }),
        ..head()
    }
}

fn open(head: &Head, key: &SignerKey) -> SignedHead {
    SignedHead::open(&sign_head(head, key).unwrap(), key.verifier()).unwrap()
}

#[test]
fn a_head_matches_an_independent_computation() {
    let seed = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let key = SignerKey::from_seed(name(), &seed);
    let bytes = sign_head(&head(), &key).unwrap();
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), KNOWN);
    let signed = SignedHead::open(&bytes, key.verifier()).unwrap();
    assert_eq!(signed.head(), &head());
    assert_eq!(signed.note_bytes(), bytes);
    assert_eq!(signed.next_key(), key.verifier());
    assert_eq!(signed.order(), HeadOrder { term: 1, epoch: 7 });
    assert_eq!(signed.requires_takeover(), None);
}

#[test]
fn a_head_has_one_text() {
    let text = head().to_text();
    assert_eq!(Head::parse(&text).unwrap(), head());
    let big = text.replace("1 7\n", "1 18446744073709551615\n");
    assert_eq!(Head::parse(&big).unwrap().epoch, u64::MAX);
    let vkey = key(1).verifier().to_string();
    for (from, to) in [
        ("1 7\n", "01 7\n"),
        ("1 7\n", "1 07\n"),
        ("1 7\n", "+1 7\n"),
        ("1 7\n", "1 +7\n"),
        ("1 7\n", "-1 7\n"),
        ("1 7\n", "1  7\n"),
        ("1 7\n", "1 7 \n"),
        ("1 7\n", "1 7 1\n"),
        ("1 7\n", " 1 7\n"),
        ("1 7\n", "1\n"),
        ("1 7\n", "1 7\n\n"),
        ("1 7\n", "0 7\n"),
        ("1 7\n", "1 0\n"),
        ("1 7\n", "1 18446744073709551616\n"),
        ("1 7\n", "1 0x7\n"),
        ("2 9\n", "2 \n"),
        ("2 9\n", "2\n9\n"),
        ("/v1", "/v2"),
        ("head", "takeover"),
        ("q6ur", "q6uq"),
        ("q6s=", "q6t="),
        ("q6s=", "q6s"),
        ("q6s=", "q6ur"),
        ("ledger.example", "ledger example"),
        ("ledger.example/test", ""),
        ("00\n", "00"),
        ("00\n", "00\nextra\n"),
        ("00\n", "00\n\n"),
        ("00\n", "00\nrotate\n"),
        ("00\n", "00\nrotate a b\n"),
        ("00\n", "0.0\n"),
        ("\n", "\r\n"),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from:?}");
        let parsed = Head::parse(&bad);
        // One of them is another head, spelled rightly.
        if from == "q6ur" {
            assert_ne!(parsed.unwrap(), head());
        } else {
            assert!(parsed.is_err(), "{from:?} to {to:?}");
        }
    }
    let rotate = format!("{text}rotate {vkey} {vkey}\n");
    assert!(Head::parse(&rotate).is_ok());
    for bad in [
        rotate.replace("rotate ", "rotate  "),
        format!("{rotate}x\n"),
        format!("{rotate}rotate {vkey} {vkey}\n"),
        format!("{text}rotate {vkey}\n"),
        format!("{text}rotate {vkey} {vkey} {vkey}\n"),
        format!("{text}{}", "x\n".repeat(4096)),
        String::new(),
    ] {
        assert!(Head::parse(&bad).is_err(), "{bad}");
    }
    for end in 0..rotate.len() {
        assert!(end == text.len() || Head::parse(&rotate[..end]).is_err());
    }
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused_or_the_same_statement() {
    let (a, b, stranger) = (key(1), key(2), key(3));
    let mut plain = Note::new(head().to_text()).unwrap();
    plain.sign(&a).unwrap();
    plain.sign(&stranger).unwrap();
    let rotating = sign_rotation(&rotation(&a, &b), &a, &b).unwrap();
    for bytes in [plain.to_bytes(), rotating] {
        let whole = SignedHead::open(&bytes, a.verifier()).unwrap();
        let check = |bytes: &[u8]| {
            if let Ok(signed) = SignedHead::open(bytes, a.verifier()) {
                assert_eq!(signed, whole);
            }
        };
        for end in 0..bytes.len() {
            check(&bytes[..end]);
        }
        let mut changed = bytes.clone();
        for at in 0..bytes.len() {
            // Every bit, and what is likely to be read otherwise.
            let masks = (0..8).map(|bit| 1u8 << bit);
            let values = masks.map(|mask| bytes[at] ^ mask).chain(*b"\n\r +=A0");
            for value in values {
                changed[at] = value;
                if value != bytes[at] {
                    check(&changed);
                }
            }
            changed[at] = bytes[at];
        }
    }
}

#[test]
fn only_the_current_key_counts() {
    let (a, b) = (key(1), key(2));
    let by_b = sign_head(&head(), &b).unwrap();
    assert_eq!(
        SignedHead::open(&by_b, a.verifier()),
        Err(HeadError::NotSigned {
            key: Box::new(a.verifier().clone())
        })
    );
    let other = SignerKey::from_seed(OriginName::new("other").unwrap(), &[1; 32]);
    assert!(matches!(
        SignedHead::open(&by_b, other.verifier()),
        Err(HeadError::OtherOrigin { .. })
    ));
    assert!(sign_head(&head(), &other).is_err());
    // Unknown lines are stripped before anything is kept.
    let mut both = Note::parse(&by_b).unwrap();
    both.sign(&a).unwrap();
    let signed = SignedHead::open(&both.to_bytes(), a.verifier()).unwrap();
    assert_eq!(signed.note_bytes(), sign_head(&head(), &a).unwrap());
    for (term, epoch) in [(0, 1), (1, 0)] {
        let bad = Head {
            term,
            epoch,
            ..head()
        };
        assert!(sign_head(&bad, &a).is_err());
    }
}

#[test]
fn a_rotation_needs_both_keys_and_then_the_new_one_counts() {
    let (a, b, c) = (key(1), key(2), key(3));
    let bytes = sign_rotation(&rotation(&a, &b), &a, &b).unwrap();
    let signed = SignedHead::open(&bytes, a.verifier()).unwrap();
    assert_eq!(signed.next_key(), b.verifier());
    // A verifier pinned to the new key takes the same note (R5).
    let pinned = SignedHead::open(&bytes, b.verifier()).unwrap();
    assert_eq!(pinned.next_key(), b.verifier());
    assert_eq!(compare(&signed, &pinned), Ok(Relation::Same));
    assert!(matches!(
        SignedHead::open(&bytes, c.verifier()),
        Err(HeadError::Rotation { .. })
    ));
    // Each signature is needed; lines may come in any order.
    for (keys, good) in [
        (vec![&a], false),
        (vec![&b], false),
        (vec![&a, &c], false),
        (vec![&c, &b, &a], true),
    ] {
        let mut note = Note::new(rotation(&a, &b).to_text()).unwrap();
        for key in keys {
            note.sign(key).unwrap();
        }
        let opened = SignedHead::open(&note.to_bytes(), a.verifier());
        assert_eq!(opened.is_ok(), good);
        assert!(!good || opened.unwrap().note_bytes() == bytes);
    }
    // The old key's later notes are refused under the new one.
    let late = sign_head(&Head { epoch: 8, ..head() }, &a).unwrap();
    assert!(SignedHead::open(&late, signed.next_key()).is_err());
}

#[test]
fn rotations_that_break_a_rule_are_not_signed_and_not_opened() {
    let (a, b) = (key(1), key(2));
    let foreign = SignerKey::from_seed(OriginName::new("other").unwrap(), &[2; 32]);
    for new in [&a, &foreign] {
        let head = rotation(&a, new);
        assert!(matches!(
            sign_rotation(&head, &a, new),
            Err(HeadError::Rotation { .. })
        ));
        let mut note = Note::new(head.to_text()).unwrap();
        note.sign(&a).unwrap();
        let _ = note.sign(new);
        assert!(matches!(
            SignedHead::open(&note.to_bytes(), a.verifier()),
            Err(HeadError::Rotation { .. })
        ));
    }
    assert!(sign_head(&rotation(&a, &b), &a).is_err());
    assert!(sign_rotation(&head(), &a, &b).is_err());
    assert!(sign_rotation(&rotation(&a, &b), &b, &a).is_err());
}

#[test]
fn heads_of_one_term_extend_each_other_or_contradict() {
    let a = key(1);
    let base = open(&head(), &a);
    let with = |epoch: u64, contexts: u64, entries: u64, root: u8| {
        let head = Head {
            epoch,
            contexts,
            entries,
            directory_root: Hash::from_bytes([root; 32]),
            ..head()
        };
        open(&head, &a)
    };
    let order = HeadOrder { term: 1, epoch: 7 };
    let good = [
        with(8, 2, 9, 0xab),
        with(8, 2, 10, 1),
        with(8, 3, 10, 1),
        with(9, 2, 99, 1),
    ];
    for next in &good {
        assert_eq!(compare(&base, next), Ok(Relation::Newer));
        assert_eq!(compare(next, &base), Ok(Relation::Older));
    }
    for next in [with(7, 2, 9, 1), with(7, 3, 10, 1)] {
        let why = Contradiction::TwoTexts { order };
        assert_eq!(compare(&base, &next), Err(why.clone()));
        assert_eq!(compare(&next, &base), Err(why));
    }
    for (next, (contexts, entries), broken) in [
        (with(8, 2, 9, 1), (2, 9), Rule::Root),
        (with(8, 2, 10, 0xab), (2, 10), Rule::SameRoot),
        (with(8, 1, 8, 0xab), (1, 8), Rule::SameRoot),
        (with(8, 1, 9, 1), (1, 9), Rule::Contexts),
        (with(8, 1, 8, 1), (1, 8), Rule::Contexts),
        (with(8, 1, 99, 1), (1, 99), Rule::Contexts),
        (with(8, 2, 8, 1), (2, 8), Rule::Entries),
        (with(8, 3, 8, 1), (3, 8), Rule::Entries),
        (with(8, 3, 9, 1), (3, 9), Rule::NewContexts),
        (with(8, 9, 15, 1), (9, 15), Rule::NewContexts),
    ] {
        let why = compare(&base, &next).unwrap_err();
        assert_eq!(compare(&next, &base), Err(why.clone()));
        let Contradiction::Counts(counts) = &why else {
            panic!("{why}");
        };
        let rule = counts.rule;
        assert_eq!(rule, broken, "{why}");
        let says = |head: &SignedHead| head.head().directory_root;
        let (one, two) = (says(&base), says(&next));
        let want = format!(
            "head 1.7 states 2 contexts, 9 entries, directory root {one}, and head 1.8 states \
             {contexts} contexts, {entries} entries, directory root {two}: {rule}"
        );
        assert_eq!(why.to_string(), want);
    }
    let texts = [
        (Rule::Contexts, "no context may be lost"),
        (Rule::Entries, "no entry may be lost"),
        (
            Rule::NewContexts,
            "each new context brings an entry or more",
        ),
        (Rule::Root, "without a new entry the root stays"),
        (
            Rule::SameRoot,
            "one root has one number of contexts and of entries",
        ),
    ];
    for (rule, text) in texts {
        assert_eq!(rule.to_string(), text);
    }
}

#[test]
fn other_terms_and_origins_are_left_to_the_caller() {
    let a = key(1);
    let base = open(&head(), &a);
    let next = open(
        &Head {
            term: 3,
            epoch: 8,
            entries: 2,
            ..head()
        },
        &a,
    );
    let needed = TakeoverNeeded { term: 3 };
    assert_eq!(next.requires_takeover(), Some(needed));
    assert_eq!(compare(&base, &next), Ok(Relation::AcrossTerms(needed)));
    assert_eq!(compare(&next, &base), Ok(Relation::AcrossTerms(needed)));
    let origin = OriginName::new("other").unwrap();
    let other = SignerKey::from_seed(origin.clone(), &[1; 32]);
    let other = open(&Head { origin, ..head() }, &other);
    assert_eq!(compare(&base, &other), Ok(Relation::OtherOrigin));
}

#[test]
fn two_rotations_of_one_key_contradict() {
    let (a, b, c) = (key(1), key(2), key(3));
    let to_b = sign_rotation(&rotation(&a, &b), &a, &b).unwrap();
    let later = Head {
        epoch: 9,
        ..rotation(&a, &c)
    };
    let to_c = sign_rotation(&later, &a, &c).unwrap();
    let to_b = SignedHead::open(&to_b, a.verifier()).unwrap();
    let to_c = SignedHead::open(&to_c, a.verifier()).unwrap();
    assert!(matches!(
        compare(&to_c, &to_b),
        Err(Contradiction::TwoRotations { .. })
    ));
    // A takeover may have given up the first.
    let again = Head {
        term: 2,
        ..rotation(&a, &b)
    };
    let again = sign_rotation(&again, &a, &b).unwrap();
    let again = SignedHead::open(&again, a.verifier()).unwrap();
    let needed = TakeoverNeeded { term: 2 };
    assert_eq!(compare(&to_c, &again), Ok(Relation::AcrossTerms(needed)));
    assert_eq!(compare(&again, &to_c), Ok(Relation::AcrossTerms(needed)));
}

#[test]
fn a_takeover_has_one_text() {
    let takeover = Takeover {
        origin: name(),
        term: 4,
        base: HeadOrder { term: 1, epoch: 7 },
        base_directory_root: Hash::from_bytes([0xab; 32]),
        base_contexts: 2,
        base_entries: 9,
        time_ns: 5,
    };
    let text = takeover.to_text();
    assert_eq!(text.lines().count(), 7);
    assert_eq!(Takeover::parse(&text).unwrap(), takeover);
    for (from, to) in [
        ("\n4\n", "\n1\n"),
        ("\n4\n", "\n0\n"),
        ("\n4\n", "\n04\n"),
        ("\n1 7\n", "\n4 7\n"),
        ("\n1 7\n", "\n0 7\n"),
        ("\n1 7\n", "\n1 0\n"),
        ("\n5\n", "\n5"),
        ("\n5\n", "\n5\n6\n"),
        ("takeover", "head"),
    ] {
        assert!(
            Takeover::parse(&text.replacen(from, to, 1)).is_err(),
            "{to:?}"
        );
    }
    for end in 0..text.len() {
        assert!(Takeover::parse(&text[..end]).is_err());
    }
    assert!(Head::parse(&text).is_err());
}
