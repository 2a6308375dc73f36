//! What is said: names cannot continue the sentence.

use super::*;
use crate::entry::ContextId;
use crate::proof::testing::{Origin, history, next, of_context, vkey};

/// A name that would say something, and how it is shown.
const FORGED: (&str, &str) = (
    "a\", id 00, \u{a0}key \\\u{202e}\"b",
    "\"a\\u{22}, id 00, \\u{a0}key \\\\\\u{202e}\\u{22}b\"",
);

fn said(bytes: &[u8]) -> String {
    file(bytes, &vkey(1)).unwrap().to_string()
}

#[test]
fn a_name_cannot_continue_the_sentence() {
    let (name, shown) = FORGED;
    let mut origin = Origin::new();
    origin.append(name, &["one"]);
    origin.append("b", &["uno", "due"]);
    let older = origin.publish();
    let entry = older.entry_proof(name, 1, false);
    let line = said(&entry.to_bytes());
    let begins = format!("entry 1 of 1 of context {shown}, id ");
    assert!(line.starts_with(&begins), "{line}");
    assert!(line.contains(", key \"facts\", payload of "), "{line}");
    let mut proven = entry.verify(&vkey(1)).unwrap();
    name.clone_into(&mut proven.key);
    proven.context = ContextId::new("plain, name").unwrap();
    let line = proven.to_string();
    assert!(line.contains(&format!(", key {shown}, ")), "{line}");
    assert!(line.contains(" of context \"plain, name\", id "), "{line}");

    origin.append(name, &["two"]);
    let newer = origin.publish();
    let line = said(&newer.context_proof(&older, name).to_bytes());
    let begins = format!("context {shown}, 2 entries under head 1.2, ");
    assert!(line.starts_with(&begins), "{line}");
    let lost = next(&origin, |origin| origin.forget(name));
    let line = said(&of_context(&newer, &lost, name).to_bytes());
    assert!(line.ends_with(&format!(" (context {shown})")), "{line}");
}

#[test]
fn by_which_key_it_holds_is_said() {
    for (rotations, how) in [(1, "a rotation"), (2, "2 rotations")] {
        let (older, newer) = history(rotations);
        let key = vkey(1 + rotations);
        let through = format!(", signed by {key}, {how} after the pinned key");
        for bytes in [
            newer.entry_proof("a", 4, true).to_bytes(),
            newer.context_proof(&older, "a").to_bytes(),
            newer.store_proof(&older).unwrap().to_bytes(),
        ] {
            let line = said(&bytes);
            assert!(line.ends_with(&through), "{line}");
        }
        let entry = newer.entry_proof("a", 4, true).to_bytes();
        let line = file(&entry, &key).unwrap().to_string();
        assert!(!line.contains("signed by"), "{line}");
    }
}

#[test]
fn a_rotation_head_says_that_it_is_one() {
    let mut origin = Origin::new();
    origin.append("b", &["uno"]);
    let plain = origin.publish();
    assert!(!said(&plain.note()).contains("rotation"));
    let rotation = origin.rotate(2);
    for pinned in [1, 2] {
        let line = file(&rotation.note(), &vkey(pinned)).unwrap().to_string();
        let [old, new] = [1, 2].map(vkey);
        let ends = format!("; it is a rotation: {old} ends with it, {new} counts after it");
        assert!(line.ends_with(&ends), "{line}");
    }
}

#[test]
fn another_key_may_have_signed() {
    let (older, newer) = history(1);
    for (bytes, pinned) in [(older.note(), 2), (newer.note(), 1)] {
        let error = file(&bytes, &vkey(pinned)).unwrap_err();
        assert!(error.is_not_signed(), "{error}");
    }
    assert!(!VerifyError::UnknownKind.is_not_signed());
}
