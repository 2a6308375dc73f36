use super::*;

// Computed with Python's `cryptography` and `hashlib`: seed 00 01 .. 1f.
const NAME: &str = "ledger.example/test";
const VKEY: &str = "ledger.example/test+7a864099+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
const SECRET: &str =
    "PRIVATE+KEY+ledger.example/test+7a864099+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const HELLO: &str = "hello\n\n\u{2014} ledger.example/test eoZAmbCB8qZ4IxEGL9BaMuh6upuVa6ngpVI4rJA32UgutelhwQq7kVTch1z0fFcvy569zJn9RWfo5C2apY591ftvWQY=\n";

// The example of Go's `golang.org/x/mod/sumdb/note`.
const PETER_VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn name(text: &str) -> OriginName {
    OriginName::new(text).unwrap()
}

fn seed() -> [u8; 32] {
    std::array::from_fn(|i| u8::try_from(i).unwrap())
}

fn key(fill: u8) -> SignerKey {
    SignerKey::from_seed(name(NAME), &[fill; 32])
}

fn signed(keys: &[&SignerKey]) -> Note {
    let mut note = Note::new("one\n\ntwo\n".into()).unwrap();
    for key in keys {
        note.sign(key).unwrap();
    }
    note
}

#[test]
fn keys_and_signature_match_an_independent_computation() {
    let key = SignerKey::from_seed(name(NAME), &seed());
    assert_eq!(key.verifier().to_string(), VKEY);
    assert_eq!(key.verifier().key_id(), [0x7a, 0x86, 0x40, 0x99]);
    assert_eq!(key.to_secret_text().as_str(), SECRET);
    assert_eq!(
        SignerKey::from_secret_text(SECRET).unwrap().verifier(),
        key.verifier()
    );
    assert_eq!(&VerifierKey::parse(VKEY).unwrap(), key.verifier());
    let mut note = Note::new("hello\n".into()).unwrap();
    note.sign(&key).unwrap();
    assert_eq!(String::from_utf8(note.to_bytes()).unwrap(), HELLO);
    let debug = format!("{key:?}");
    assert!(!debug.contains("AQABAgME"), "{debug}");
}

#[test]
fn the_go_example_opens() {
    let key = VerifierKey::parse(PETER_VKEY).unwrap();
    let note = Note::parse(PETER_NOTE.as_bytes()).unwrap();
    assert_eq!(note.open(&[&key]).unwrap(), [0]);
    assert_eq!(note.to_bytes(), PETER_NOTE.as_bytes());
}

#[test]
fn names_have_no_space_control_or_plus() {
    for bad in [
        "", "a b", "a+b", "a\n", "a\tb", "\u{a0}", "\u{2003}", "\u{7f}", "\u{85}",
    ] {
        assert!(OriginName::new(bad).is_err(), "{bad:?}");
    }
    assert!(OriginName::new(&"x".repeat(255)).is_ok());
    assert!(OriginName::new(&"x".repeat(256)).is_err());
    assert!(OriginName::new("gr\u{fc}n/1").is_ok());
}

#[test]
fn keys_have_one_spelling() {
    for (text, of) in [(VKEY, "vkey"), (SECRET, "secret")] {
        for (at, _) in text.char_indices() {
            for with in ["", "A", "a", "+", " ", "=", "0"] {
                let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
                if changed == text {
                    continue;
                }
                let accepted = match of {
                    "vkey" => VerifierKey::parse(&changed).is_ok(),
                    _ => SignerKey::from_secret_text(&changed).is_ok(),
                };
                assert!(!accepted, "{changed}");
            }
        }
        let upper = text.replace("7a864099", "7A864099");
        assert!(VerifierKey::parse(&upper).is_err());
        assert!(SignerKey::from_secret_text(&upper).is_err());
    }
    assert!(VerifierKey::parse(&format!("{VKEY}\n")).is_err());
    assert!(VerifierKey::parse(&"x".repeat(1 << 20)).is_err());
}

#[test]
fn weak_and_oddly_encoded_public_keys_are_refused() {
    // The identity, a point of order two, zero, y = p (not canonical), y = p + 1.
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    let mut p_plus_1 = p;
    p_plus_1[0] = 0xee;
    // y = p + 3 decodes to a point of large order, if y = 3 is on the curve.
    let odd = (0u8..19).map(|i| {
        let mut bytes = p;
        bytes[0] = 0xed + i;
        bytes
    });
    for weak in [one, minus_one, [0; 32], p, p_plus_1]
        .into_iter()
        .chain(odd)
    {
        assert!(matches!(
            VerifierKey::new(name(NAME), &weak),
            Err(NoteError::WeakKey { .. })
        ));
        let mut payload = [1; 33];
        payload[1..].copy_from_slice(&weak);
        let text = format!("{NAME}+00000000+{}", STANDARD.encode(payload));
        assert!(VerifierKey::parse(&text).is_err());
    }
}

#[test]
fn parsing_and_printing_are_inverse_and_strict() {
    let (a, b) = (key(1), key(2));
    let bytes = signed(&[&a, &b]).to_bytes();
    assert_eq!(Note::parse(&bytes).unwrap().to_bytes(), bytes);
    let text = String::from_utf8(bytes).unwrap();
    let sig = text.lines().last().unwrap();
    let (_, base64) = sig.rsplit_once(' ').unwrap();
    let many = |n: usize| format!("x\n\n{}", format!("{sig}\n").repeat(n));
    assert!(Note::parse(many(8).as_bytes()).is_ok());
    for bad in [
        String::new(),
        "x\n".into(),
        "x\n\n".into(),
        format!("x\n{sig}\n"),
        format!("x\n\n{sig}"),
        format!("x\n\n{sig}\n\n"),
        format!("\n\n\n{sig} \n"),
        format!("x\r\n\r\n{sig}\r\n"),
        format!("x\t\n\n{sig}\n"),
        format!("x\u{0}\n\n{sig}\n"),
        format!("x\n\n{}\n", sig.replace('\u{2014}', "-")),
        format!(
            "x\n\n{}\n",
            sig.replace(base64, base64.trim_end_matches('='))
        ),
        format!("x\n\n\u{2014} {NAME} \n"),
        format!("x\n\n\u{2014} {NAME} AAAAAA==\n"),
        format!("x\n\n\u{2014} {NAME} AAAAAAB=\n"),
        "x\n\n\u{2014} a+b AAAAAAA=\n".into(),
        "x\n\n\u{2014}  AAAAAAA=\n".into(),
        format!("x\n\n\u{2014} {NAME}  AAAAAAA=\n"),
        format!("{}\n\n{sig}\n", "x".repeat(4096)),
        format!("x\n\n\u{2014} n {}\n", "A".repeat(8192)),
        many(9),
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Note::parse(format!("{}\n\n{sig}\n", "x".repeat(4095)).as_bytes()).is_ok());
    assert!(Note::parse(format!("x\n\n\u{2014} {NAME} AAAAAAA=\n").as_bytes()).is_ok());
    assert!(Note::parse(b"x\xff\n\n").is_err());
    for bad in ["", "x", "x\r\n", "x\u{85}\n"] {
        assert!(Note::new(bad.into()).is_err());
    }
}

#[test]
fn unknown_lines_are_ignored_and_stripped() {
    let (a, b, c) = (key(1), key(2), key(3));
    let note = signed(&[&c, &b, &a]);
    let known = [a.verifier(), b.verifier()];
    assert_eq!(note.open(&known).unwrap(), [0, 1]);
    assert_eq!(note.strip_unknown(&known).unwrap(), signed(&[&a, &b]));
    assert_eq!(note.open(&[]).unwrap(), [0usize; 0]);
    let stranger = key(4);
    assert!(note.open(&[stranger.verifier()]).unwrap().is_empty());
    assert_eq!(
        note.strip_unknown(&[stranger.verifier()]),
        Err(NoteError::NoKnownSignature)
    );
    // The same id under another name is another key.
    let other = SignerKey::from_seed(name("other"), &[1; 32]);
    assert!(note.open(&[other.verifier()]).unwrap().is_empty());
}

#[test]
fn a_known_line_that_does_not_verify_refuses_the_note() {
    let (a, b) = (key(1), key(2));
    let mut note = signed(&[&a, &b]);
    note.signatures[1].signature[5] ^= 1;
    assert_eq!(note.open(&[a.verifier()]).unwrap(), [0]);
    let bad = note.open(&[a.verifier(), b.verifier()]);
    assert!(
        matches!(bad, Err(NoteError::BadSignature { key_id, .. }) if key_id == b.verifier().key_id())
    );
    note.signatures[1].signature.pop();
    assert!(note.open(&[b.verifier()]).is_err());
}

#[test]
fn one_line_per_key() {
    let (a, b) = (key(1), key(2));
    let mut note = signed(&[&a, &b]);
    assert!(matches!(
        note.sign(&a),
        Err(NoteError::DuplicateSignature { .. })
    ));
    note.signatures.push(note.signatures[0].clone());
    let note = Note::parse(&note.to_bytes()).unwrap();
    assert!(matches!(
        note.open(&[a.verifier()]),
        Err(NoteError::DuplicateSignature { .. })
    ));
    assert_eq!(note.open(&[b.verifier()]).unwrap(), [0]);
    assert!(matches!(
        note.open(&[b.verifier(), b.verifier()]),
        Err(NoteError::AmbiguousKeys { .. })
    ));
    let mut full = signed(&[]);
    for fill in 0..8 {
        full.sign(&key(fill)).unwrap();
    }
    assert!(full.sign(&key(9)).is_err());
}
