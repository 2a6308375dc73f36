use proptest::prelude::*;

use super::*;

fn encode(h: &Header<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    h.encode_into(&mut out).unwrap();
    out
}

type Parts = (
    u64,
    u64,
    u64,
    String,
    String,
    Vec<(String, String)>,
    Vec<u8>,
);

fn parts() -> impl Strategy<Value = Parts> {
    (
        1..=SEQUENCE_MAX,
        0..LAMPORT_LIMIT,
        any::<u64>(),
        "\\PC{1,40}",
        "\\PC{0,20}",
        prop::collection::btree_map("\\PC{1,10}", "\\PC{0,20}", 0..6)
            .prop_map(|m| m.into_iter().collect()),
        prop::collection::vec(any::<u8>(), 0..64),
    )
}

fn bytes_of(p: &Parts) -> Vec<u8> {
    let draft = Draft::new(p.3.clone(), p.6.clone())
        .unwrap()
        .with_metadata(Metadata::from_pairs(p.5.clone()).unwrap())
        .with_request_id(p.4.clone())
        .unwrap();
    encode(&draft.header(p.0, p.1, p.2))
}

proptest! {
    #[test]
    fn decoding_inverts_encoding(p in parts()) {
        let bytes = bytes_of(&p);
        let header = Header::decode(&bytes).unwrap();
        prop_assert_eq!(header.sequence, p.0);
        prop_assert_eq!(header.lamport, p.1);
        prop_assert_eq!(header.appended_at_ns, p.2);
        prop_assert_eq!(header.key, &p.3);
        prop_assert_eq!(header.request_id.unwrap_or(""), &p.4);
        prop_assert_eq!(header.payload_hash, hash::content(&p.6));
        prop_assert_eq!(encode(&header), bytes);
    }

    /// Two entries have the same bytes only if they are the same entry: no
    /// field can be read as part of its neighbour.
    #[test]
    fn encoding_is_injective(a in parts(), b in parts(), split in 0usize..40) {
        prop_assert_eq!(bytes_of(&a) == bytes_of(&b), a == b);
        // The same text cut differently between key and request id.
        let text: String = a.3.chars().chain(a.4.chars()).collect();
        let cut = text.char_indices().map(|(i, _)| i).nth(split).unwrap_or(0);
        if cut > 0 && cut != a.3.len() && text.len() - cut <= REQUEST_ID_BYTES_MAX {
            let mut c = a.clone();
            c.3 = text[..cut].to_owned();
            c.4 = text[cut..].to_owned();
            prop_assert_ne!(bytes_of(&a), bytes_of(&c));
        }
    }

    #[test]
    fn metadata_order_does_not_matter(p in parts()) {
        let mut q = p.clone();
        q.5.reverse();
        prop_assert_eq!(bytes_of(&p), bytes_of(&q));
    }

    #[test]
    fn changed_bytes_decode_to_themselves_or_not_at_all(
        p in parts(), at in any::<prop::sample::Index>(), flip in 1u8..
    ) {
        let mut bytes = bytes_of(&p);
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(encode(&header), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::decode(&bytes);
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = bytes_of(&(
        7,
        9,
        11,
        "facts".into(),
        "r-1".into(),
        vec![("a".into(), "b".into()), ("c".into(), String::new())],
        b"payload".to_vec(),
    ));
    for n in 0..bytes.len() {
        assert!(Header::decode(&bytes[..n]).is_err(), "{n}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        Header::decode(&longer),
        Err(DecodeError::Trailing { surplus: 1, .. })
    ));
}

#[test]
fn limits_hold_at_their_edges() {
    assert!(Draft::new("", "x").is_err());
    assert!(Draft::new("k".repeat(KEY_BYTES_MAX), "").is_ok());
    assert!(Draft::new("k".repeat(KEY_BYTES_MAX + 1), "").is_err());
    assert!(Draft::new("k", vec![0; PAYLOAD_BYTES_MAX]).is_ok());
    assert!(Draft::new("k", vec![0; PAYLOAD_BYTES_MAX + 1]).is_err());
    let draft = Draft::new("k", "").unwrap();
    assert!(
        draft
            .clone()
            .with_request_id("r".repeat(REQUEST_ID_BYTES_MAX))
            .is_ok()
    );
    assert!(
        draft
            .clone()
            .with_request_id("r".repeat(REQUEST_ID_BYTES_MAX + 1))
            .is_err()
    );
    assert_eq!(draft.with_request_id("").unwrap().request_id(), None);

    let pairs = |n: usize| (0..n).map(|i| (format!("{i:04}"), "")).collect::<Vec<_>>();
    assert!(Metadata::from_pairs(pairs(METADATA_PAIRS_MAX)).is_ok());
    assert!(Metadata::from_pairs(pairs(METADATA_PAIRS_MAX + 1)).is_err());
    assert!(Metadata::from_pairs([("", "v")]).is_err());
    assert!(Metadata::from_pairs([("k".repeat(METADATA_KEY_BYTES_MAX + 1), "")]).is_err());
    assert!(Metadata::from_pairs([("k", "v".repeat(METADATA_BYTES_MAX - 1))]).is_ok());
    assert!(Metadata::from_pairs([("k", "v".repeat(METADATA_BYTES_MAX))]).is_err());
    assert_eq!(
        Metadata::from_pairs([("k", "1"), ("k", "2")]),
        Err(EntryError::DuplicateMetadataKey { key: "k".into() })
    );
}

#[test]
fn context_ids_are_bytes_not_paths() {
    for ok in [
        "a",
        "../../etc/passwd",
        "C:\\x",
        " trailing ",
        "é",
        "e\u{301}",
        "🦀",
    ] {
        assert!(ContextId::new(ok).is_ok(), "{ok:?}");
    }
    assert_ne!(
        ContextId::new("é").unwrap().path(),
        ContextId::new("e\u{301}").unwrap().path()
    );
    for bad in ["", "a\n", "\u{0}", "\u{7f}", "a\u{85}"] {
        assert!(ContextId::new(bad).is_err(), "{bad:?}");
    }
    assert!(ContextId::new(&"x".repeat(CONTEXT_ID_BYTES_MAX)).is_ok());
    assert!(ContextId::new(&"x".repeat(CONTEXT_ID_BYTES_MAX + 1)).is_err());
    assert!(ContextId::decode(&[0xff]).is_err());
}

#[test]
fn future_versions_are_named() {
    let mut bytes = bytes_of(&(1, 1, 1, "k".into(), String::new(), vec![], vec![]));
    bytes[0] = 2;
    assert_eq!(
        Header::decode(&bytes),
        Err(DecodeError::UnknownVersion {
            what: "entry header",
            found: 2,
            known: 1
        })
    );
}
