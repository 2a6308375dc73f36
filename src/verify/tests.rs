//! What is said: names cannot continue the sentence.

use super::*;
use crate::entry::ContextId;
use crate::proof::testing::{Origin, next, of_context, vkey};

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
