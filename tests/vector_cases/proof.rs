//! Proof files (`spec/08-proof.md`): every kind, and what must not hold.

use converge_ledger::directory::path::Path;
use converge_ledger::directory::{Node, Slot};
use converge_ledger::entry::ContextId;
use converge_ledger::hash::Hash;
use converge_ledger::head::SignedHead;
use converge_ledger::note::{Note, OriginName, SignerKey, VerifierKey};
use converge_ledger::proof::{ContextProof, EntryProof, State, StoreProof};
use converge_ledger::verify::{Proven, file as verify};
use serde_json::{Value, json};

use super::file;
use super::origin::{Origin, Point, history, signer, vkey};

fn state(state: State) -> Value {
    json!({ "size": state.size, "root": state.root.to_string() })
}

fn head(head: &SignedHead) -> Value {
    let text = head.head();
    json!({ "term": text.term, "epoch": text.epoch, "contexts": text.contexts,
        "entries": text.entries, "directory_root": text.directory_root.to_string() })
}

/// The kind of a file that verified, and what a reader must find in it.
fn found(proven: &Proven) -> (&'static str, Value) {
    match proven {
        Proven::Head(signed) => ("head", json!({ "head": head(signed) })),
        Proven::Entry(entry) => (
            "entry",
            json!({ "context": entry.context.as_str(), "sequence": entry.sequence,
                "size": entry.size, "root": entry.root.to_string(), "id": entry.id.to_string(),
                "key": entry.key, "payload_bytes": entry.payload_bytes,
                "payload_checked": entry.payload_checked, "head": head(&entry.head) }),
        ),
        Proven::Context(context) => (
            "context",
            json!({ "context": context.context.as_str(), "from": context.from.map(state),
                "to": state(context.to), "older_head": head(&context.older_head),
                "head": head(&context.head) }),
        ),
        Proven::Store(store) => (
            "store",
            json!({ "changed": store.changed, "older_head": head(&store.older_head),
                "head": head(&store.head) }),
        ),
        Proven::Evidence(verdict) => {
            let order = |order: converge_ledger::head::HeadOrder| json!([order.term, order.epoch]);
            let roots = verdict
                .roots
                .map(|(one, two)| [one.to_string(), two.to_string()]);
            let context = verdict.context.as_ref().map(ContextId::as_str);
            (
                verdict.kind.name(),
                json!({ "origin": verdict.origin.as_str(), "earlier": order(verdict.earlier),
                    "later": order(verdict.later), "directory_roots": roots, "context": context }),
            )
        }
    }
}

/// A case that must verify, with what it proves.
pub(crate) fn good(name: &str, pinned: u8, bytes: &[u8]) -> Value {
    let held = verify(bytes, &vkey(pinned)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (kind, proves) = found(&held);
    json!({ "name": name, "good": true, "kind": kind, "vkey": vkey(pinned).to_string(),
        "file": std::str::from_utf8(bytes).unwrap(), "proves": proves })
}

/// A case that must not, with what a command that verifies it exits with.
pub(crate) fn bad(name: &str, vkey: &VerifierKey, bytes: &[u8]) -> Value {
    let Err(error) = verify(bytes, vkey) else {
        panic!("{name} verifies");
    };
    json!({ "name": name, "good": false, "vkey": vkey.to_string(),
        "file": std::str::from_utf8(bytes).unwrap(), "exit": if error.is_malformed() { 2 } else { 1 } })
}

pub(crate) fn judge_file(case: &Value) -> bool {
    let key = VerifierKey::parse(case["vkey"].as_str().unwrap()).unwrap();
    match verify(case["file"].as_str().unwrap().as_bytes(), &key) {
        Ok(held) => {
            let (kind, proves) = found(&held);
            case["kind"] == kind && case["proves"] == proves
        }
        Err(error) => {
            let exit = if error.is_malformed() { 2 } else { 1 };
            assert!(
                case["good"] == true || case["exit"] == exit,
                "{}",
                case["name"]
            );
            false
        }
    }
}

/// A file in which one text stands for another.
pub(crate) fn edited(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    let other = text.replacen(from, to, 1);
    assert_ne!(other, text, "{from:?}");
    other.into_bytes()
}

/// A note with a line by one more key.
pub(crate) fn more_lines(note: &[u8], seed: u8) -> Vec<u8> {
    let mut note = Note::parse(note).unwrap();
    note.sign(&signer(seed)).unwrap();
    note.to_bytes()
}

pub(crate) fn proofs() -> Value {
    let mut cases = all_kinds();
    cases.extend(keys());
    cases.extend(spellings());
    cases.extend(bad_entries());
    cases.extend(bad_contexts());
    cases.extend(bad_stores());
    cases.extend(bad_directories());
    file("08-proof", cases)
}

fn all_kinds() -> Vec<Value> {
    let mut cases = Vec::new();
    for rotations in [0, 2] {
        let (older, newer) = history(rotations);
        let after = if rotations > 0 {
            " after two rotations"
        } else {
            ""
        };
        let mut add = |what: &str, pinned: u8, bytes: Vec<u8>| {
            cases.push(good(&format!("{what}{after}"), pinned, &bytes));
        };
        let entry = |context, sequence, payload| {
            let proof: EntryProof = newer.entry_proof(context, sequence, payload);
            proof.to_bytes()
        };
        add("head", 1 + rotations, newer.note());
        add("entry with its payload", 1, entry("a", 4, true));
        add("entry without its payload", 1, entry("a", 5, false));
        add("the only entry", 1, entry("b", 1, true));
        add(
            "context that grew",
            1,
            newer.context_proof(&older, "a").to_bytes(),
        );
        add(
            "context that stayed",
            1,
            newer.context_proof(&older, "b").to_bytes(),
        );
        add(
            "new context",
            1,
            newer.context_proof(&older, "d").to_bytes(),
        );
        add("store", 1, newer.store_proof(&older).unwrap().to_bytes());
    }
    let mut origin = Origin::new();
    let empty = origin.publish();
    for i in 0..20 {
        origin.append(&format!("many-{i}"), &["one"]);
    }
    let many = origin.publish();
    for i in 0..7 {
        origin.append(&format!("many-{}", i * 3), &["two", "three"]);
    }
    let newer = origin.publish();
    let store = |older: &Point, newer: &Point| newer.store_proof(older).unwrap().to_bytes();
    cases.push(good("empty head", 1, &empty.note()));
    cases.push(good("store that was empty", 1, &store(&empty, &many)));
    cases.push(good("store of many contexts", 1, &store(&many, &newer)));
    cases.push(good("store that stayed", 1, &store(&newer, &newer)));
    let deep = newer.entry_proof("many-3", 3, true).to_bytes();
    cases.push(good("entry among many contexts", 1, &deep));
    let term = {
        origin.take_over(2, &newer);
        origin.publish()
    };
    cases.push(good(
        "entry in another term",
        1,
        &term.entry_proof("many-1", 1, true).to_bytes(),
    ));
    cases
}

/// One head under each of three keys, and every key pinned.
fn keys() -> Vec<Value> {
    let mut cases = Vec::new();
    let (_, newer) = history(2);
    let proof = newer.entry_proof("b", 1, true);
    let bytes = proof.to_bytes();
    for pinned in [2, 3] {
        cases.push(good(&format!("key {pinned} of 3 pinned"), pinned, &bytes));
    }
    let [first, second] = [&proof.rotations[0], &proof.rotations[1]].map(Clone::clone);
    let short = EntryProof {
        rotations: vec![second.clone()],
        ..proof.clone()
    };
    cases.push(good(
        "rotations before the pinned key left out",
        2,
        &short.to_bytes(),
    ));
    let mut origin = Origin::new();
    origin.append("b", &["uno"]);
    let head = origin.publish();
    let rotation = origin.rotate(2);
    let at_rotation = rotation.entry_proof("b", 1, true).to_bytes();
    cases.push(good("rotation head, old key pinned", 1, &rotation.note()));
    cases.push(good("rotation head, new key pinned", 2, &rotation.note()));
    cases.push(good(
        "entry under a rotation head, old key pinned",
        1,
        &at_rotation,
    ));
    cases.push(good(
        "entry under a rotation head, new key pinned",
        2,
        &at_rotation,
    ));
    // The rotation is the head: its block may be there or not.
    let short = EntryProof {
        rotations: Vec::new(),
        ..rotation.entry_proof("b", 1, true)
    };
    for (pinned, which) in [(1, "old"), (2, "new")] {
        let name = format!("entry under a rotation head, not repeated, {which} key pinned");
        cases.push(good(&name, pinned, &short.to_bytes()));
    }
    let mut add = |name: &str, pinned: u8, bytes: Vec<u8>| {
        cases.push(bad(name, &vkey(pinned), &bytes));
    };
    add("a key that is not the origin's", 9, bytes.clone());
    add(
        "a head older than the pinned key",
        2,
        head.entry_proof("b", 1, true).to_bytes(),
    );
    let both = rotation.context_proof(&head, "b").to_bytes();
    add("an older head that is older than the pinned key", 2, both);
    add("head by another key", 2, head.note());
    add(
        "head after a rotation that the verifier does not know",
        1,
        newer.note(),
    );
    add(
        "a head with a line by another key",
        1,
        more_lines(&head.note(), 5),
    );
    let back = {
        let mut origin = Origin::new();
        for seed in [2, 1] {
            origin.rotate(seed);
        }
        origin.append("b", &["uno"]);
        EntryProof {
            rotations: origin.rotations.clone(),
            ..origin.publish().entry_proof("b", 1, true)
        }
    };
    let mut with = |name: &str, rotations: Vec<Vec<u8>>| {
        let bad = EntryProof {
            rotations,
            ..proof.clone()
        };
        add(name, 1, bad.to_bytes());
    };
    with("all rotations missing", vec![]);
    with("the last rotation missing", vec![first.clone()]);
    with("the first rotation missing", vec![second.clone()]);
    with(
        "rotations in the wrong order",
        vec![second.clone(), first.clone()],
    );
    with(
        "a rotation twice",
        vec![first.clone(), first.clone(), second.clone()],
    );
    with(
        "a plain head as a rotation",
        vec![first.clone(), second.clone(), proof.head.clone()],
    );
    with(
        "a rotation with one signature",
        vec![one_line(&first), second.clone()],
    );
    with(
        "a rotation with a line by another key",
        vec![more_lines(&first, 9), second],
    );
    with("more rotations than there may be", vec![first.clone(); 64]);
    add("a key that comes back", 1, back.to_bytes());
    let surplus = EntryProof {
        rotations: vec![first],
        ..history(0).1.entry_proof("b", 1, true)
    };
    add("a rotation after the head", 1, surplus.to_bytes());
    let name = OriginName::new("other.example").unwrap();
    let other = SignerKey::from_seed(name, &[1; 32]);
    cases.push(bad("an origin of another name", other.verifier(), &bytes));
    cases
}

fn one_line(note: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(note).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let kept = &lines[..lines.len() - 1];
    (kept.join("\n") + "\n").into_bytes()
}

/// What is no proof file: one spelling.
fn spellings() -> Vec<Value> {
    let (older, newer) = history(0);
    let entry = newer.entry_proof("a", 4, true).to_bytes();
    let context = newer.context_proof(&older, "a").to_bytes();
    let store = newer.store_proof(&older).unwrap().to_bytes();
    let text = String::from_utf8(entry.clone()).unwrap();
    let inclusion = text
        .lines()
        .find(|line| line.starts_with("inclusion"))
        .unwrap();
    let many = format!(
        "inclusion 64\n{}",
        format!("{}=\n", "A".repeat(43)).repeat(64)
    );
    let long = format!("size 5{}", "0".repeat(5000));
    let edits: [(&str, &[u8], &str, &str); 27] = [
        (
            "another version",
            &entry,
            "entry-proof/v1",
            "entry-proof/v2",
        ),
        ("another kind", &entry, "entry-proof", "consistency-proof"),
        ("carriage returns", &entry, "sequence 4\n", "sequence 4\r\n"),
        ("a leading zero", &entry, "sequence 4", "sequence 04"),
        ("a plus sign", &entry, "sequence 4", "sequence +4"),
        (
            "a number above 2^64",
            &entry,
            "size 5",
            "size 18446744073709551616",
        ),
        ("a number of 5,001 digits", &entry, "size 5", &long),
        ("two spaces", &entry, "size 5", "size  5"),
        (
            "a space at the end of a line",
            &entry,
            "size 5\n",
            "size 5 \n",
        ),
        ("a tab for the space", &entry, "size 5", "size\t5"),
        (
            "two fields in another order",
            &entry,
            "sequence 4\nsize 5",
            "size 5\nsequence 4",
        ),
        ("a field missing", &entry, "size 5\n", ""),
        ("a field twice", &entry, "size 5\n", "size 5\nsize 5\n"),
        (
            "base64 without padding",
            &entry,
            "payload Zm91cg==",
            "payload Zm91cg",
        ),
        (
            "base64 with stray bits",
            &entry,
            "payload Zm91cg==",
            "payload Zm91ch==",
        ),
        (
            "base64 in the other alphabet",
            &entry,
            "payload Zm91cg==",
            "payload Zm9_cg==",
        ),
        ("an empty line", &entry, "inclusion", "\ninclusion"),
        (
            "a list longer than it says",
            &entry,
            inclusion,
            "inclusion 1",
        ),
        (
            "a list shorter than it says",
            &entry,
            inclusion,
            "inclusion 9",
        ),
        ("64 hashes", &entry, inclusion, &many),
        ("an empty context", &entry, "context a\n", "context \n"),
        (
            "a control character in the context",
            &entry,
            "context a\n",
            "context a\u{7}\n",
        ),
        ("a state without a root", &context, "from 3 ", "from 3\nx "),
        (
            "a list of nodes that has no end",
            &store,
            "older-nodes 1\n",
            "older-nodes 99999\n",
        ),
        (
            "an empty node",
            &store,
            "older-nodes 1\n",
            "older-nodes 2\n\n",
        ),
        (
            "a node of a store without slots",
            &store,
            "older-nodes 1\n",
            "older-nodes 2\nAQAAAAAAAAA=\n",
        ),
        (
            "contexts that do not follow",
            &store,
            "contexts 1\n",
            "contexts 2\n",
        ),
    ];
    let mut cases: Vec<Value> = Vec::new();
    for (name, bytes, from, to) in edits {
        cases.push(bad(name, &vkey(1), &edited(bytes, from, to)));
    }
    for (name, bytes) in [
        ("nothing at all", String::new()),
        ("no line feed at the end", text.trim_end().to_owned()),
        ("a line too many", format!("{text}\n")),
        ("a byte order mark", format!("\u{feff}{text}")),
        (
            "only the first line",
            "converge-ledger/entry-proof/v1\n".to_owned(),
        ),
    ] {
        cases.push(bad(name, &vkey(1), bytes.as_bytes()));
    }
    cases
}

fn bad_entries() -> Vec<Value> {
    let (_, newer) = history(0);
    let proof = newer.entry_proof("a", 4, true);
    let other = newer.entry_proof("a", 5, true);
    let elsewhere = newer.entry_proof("c", 2, true);
    let changes: [Change<'_, EntryProof>; 17] = [
        ("payload of another entry", &|p| {
            p.payload.clone_from(&other.payload);
        }),
        ("payload longer than the header says", &|p| {
            p.payload.as_mut().unwrap().push(b'!');
        }),
        ("header of another entry", &|p| {
            p.header.clone_from(&other.header);
        }),
        ("header that is none", &|p| p.header = vec![1; 72]),
        ("header cut by a byte", &|p| _ = p.header.pop()),
        ("header and sequence of another entry", &|p| {
            p.header.clone_from(&other.header);
            p.sequence = 5;
        }),
        ("sequence of another entry", &|p| p.sequence = 5),
        ("size of another tree", &|p| p.size = 6),
        ("sequence above the size", &|p| p.size = 3),
        ("root of another context", &|p| p.root = elsewhere.root),
        ("a hash missing", &|p| _ = p.inclusion.pop()),
        ("a hash too many", &|p| p.inclusion.push(p.root)),
        ("two hashes exchanged", &|p| p.inclusion.swap(0, 1)),
        ("another context", &|p| {
            p.context = ContextId::new("b").unwrap();
        }),
        ("context that is not there", &|p| {
            p.context = ContextId::new("z").unwrap();
        }),
        ("directory path missing", &|p| p.directory.nodes.clear()),
        ("a node too many", &|p| {
            p.directory.nodes.push(p.directory.nodes[0].clone());
        }),
    ];
    let mut cases = changed(
        "entry",
        &proof,
        &changes,
        converge_ledger::proof::EntryProof::to_bytes,
    );
    let mut head = newer.head.head().clone();
    head.entries += 1;
    let counts = Origin::new().publish_as(&head);
    let wrong = EntryProof {
        head: counts.note(),
        ..proof
    };
    let name = "a head whose counts are not its directory's";
    cases.push(bad(name, &vkey(1), &wrong.to_bytes()));
    cases
}

/// What is changed, and how.
type Change<'c, P> = (&'c str, &'c dyn Fn(&mut P));

/// A good proof with one change each.
fn changed<P: Clone>(
    what: &str,
    good: &P,
    changes: &[Change<'_, P>],
    bytes: impl Fn(&P) -> Vec<u8>,
) -> Vec<Value> {
    let case = |(name, change): &Change<'_, P>| {
        let mut proof = good.clone();
        change(&mut proof);
        bad(&format!("{what}, {name}"), &vkey(1), &bytes(&proof))
    };
    changes.iter().map(case).collect()
}

fn bad_contexts() -> Vec<Value> {
    let (older, newer) = history(0);
    let proof = newer.context_proof(&older, "a");
    let other = newer.context_proof(&older, "b");
    let changes: [Change<'_, ContextProof>; 10] = [
        ("the heads exchanged", &|p| {
            std::mem::swap(&mut p.older_head, &mut p.head);
        }),
        ("said to be new", &|p| {
            p.from = None;
            p.consistency.clear();
        }),
        ("an older state of size 0", &|p| {
            p.from.as_mut().unwrap().size = 0;
        }),
        ("another older size", &|p| p.from.as_mut().unwrap().size = 2),
        ("another root", &|p| p.to.root = other.to.root),
        ("a hash missing", &|p| _ = p.consistency.pop()),
        ("a hash too many", &|p| p.consistency.push(p.to.root)),
        ("another context", &|p| {
            p.context = ContextId::new("b").unwrap();
        }),
        ("the older directory's path twice", &|p| {
            p.directory = p.older_directory.clone();
        }),
        ("a context that is not there", &|p| {
            p.context = ContextId::new("z").unwrap();
        }),
    ];
    let mut cases = changed("context", &proof, &changes, ContextProof::to_bytes);
    let mut fork = Origin::new();
    fork.append("a", &["one", "TWO", "three", "four"]);
    fork.append("b", &["uno"]);
    fork.append("c", &["ein"]);
    let mut counts = fork.clone();
    fork.append("d", &["un"]);
    fork.epoch = 4;
    let fork = fork.publish();
    for (name, context) in [("context, rewritten", "a"), ("context, fewer entries", "c")] {
        let bytes = fork.context_proof(&older, context).to_bytes();
        cases.push(bad(name, &vkey(1), &bytes));
    }
    counts.epoch = 4;
    let counts = counts.publish().context_proof(&older, "b").to_bytes();
    cases.push(bad("context, heads that contradict", &vkey(1), &counts));
    let mut origin = Origin::new();
    origin.append("a", &["one"]);
    let older = origin.publish();
    origin.take_over(2, &older);
    let term = origin.publish().context_proof(&older, "a").to_bytes();
    cases.push(bad("context, heads of two terms", &vkey(1), &term));
    cases
}

fn bad_stores() -> Vec<Value> {
    let mut origin = Origin::new();
    for i in 0..20 {
        origin.append(&format!("many-{i}"), &["one"]);
    }
    let older = origin.publish();
    let mut fork = origin.clone();
    for i in 0..4 {
        origin.append(&format!("many-{i}"), &["two", "three"]);
    }
    let newer = origin.publish();
    let proof = newer.store_proof(&older).unwrap();
    assert!(proof.nodes.len() > 2 && proof.contexts.len() == 4);
    let changes: [Change<'_, StoreProof>; 12] = [
        ("the heads exchanged", &|p| {
            std::mem::swap(&mut p.older_head, &mut p.head);
        }),
        ("a node of the older directory missing", &|p| {
            _ = p.older_nodes.pop();
        }),
        ("a node of the newer directory missing", &|p| {
            _ = p.nodes.pop();
        }),
        ("a node too many", &|p| p.nodes.push(p.nodes[0].clone())),
        ("two nodes exchanged", &|p| p.nodes.swap(1, 2)),
        ("a context missing", &|p| _ = p.contexts.remove(0)),
        ("a context too many", &|p| {
            p.contexts.push(p.contexts[0].clone());
        }),
        ("two contexts exchanged", &|p| p.contexts.swap(0, 1)),
        ("a context by another name", &|p| {
            p.contexts[0].id = ContextId::new("many-9").unwrap();
        }),
        ("another older root", &|p| {
            p.contexts[0].from.root = p.contexts[0].to.root;
        }),
        ("another size", &|p| p.contexts[0].to.size = 2),
        ("a hash missing", &|p| _ = p.contexts[0].consistency.pop()),
    ];
    let mut cases = changed("store", &proof, &changes, StoreProof::to_bytes);
    fork.forget("many-7");
    fork.append("new", &["one", "two"]);
    let lost = StoreProof {
        head: fork.publish().note(),
        ..proof
    };
    let name = "store, the newer head is of another history";
    cases.push(bad(name, &vkey(1), &lost.to_bytes()));
    let mut origin = Origin::new();
    let empty = origin.publish();
    origin.append("a", &["one", "two", "three"]);
    let one = origin.publish();
    let mut head = one.head.head().clone();
    (head.contexts, head.directory_root) = (70, junk_root());
    let junk = StoreProof {
        head: origin.publish_as(&head).note(),
        ..one.store_proof(&empty).unwrap()
    };
    let name = "store that was empty, more contexts than entries";
    cases.push(bad(name, &vkey(1), &junk.to_bytes()));
    cases
}

/// The root of no directory.
fn junk_root() -> Hash {
    converge_ledger::hash::content(b"no directory")
}

/// Nodes that break a rule under a root that the origin signed.
fn bad_directories() -> Vec<Value> {
    let mut origin = Origin::new();
    for i in 0..20 {
        origin.append(&format!("many-{i}"), &["one"]);
    }
    let honest = origin.publish();
    let name = honest
        .names()
        .find(|name| honest.path(name).nodes.len() == 2)
        .unwrap();
    let proof = honest.entry_proof(name, 1, true);
    let Path { nodes } = &proof.directory;
    let mut cases = Vec::new();
    let mut add = |what: &str, root: Vec<u8>, below: Vec<u8>| {
        let mut head = honest.head.head().clone();
        head.directory_root = node_hash(&root);
        let bad_proof = EntryProof {
            head: origin.publish_as(&head).note(),
            directory: Path {
                nodes: vec![root, below],
            },
            ..proof.clone()
        };
        cases.push(bad(
            &format!("directory, {what}"),
            &vkey(1),
            &bad_proof.to_bytes(),
        ));
    };
    let (root, below) = (&nodes[0], &nodes[1]);
    let child = node_hash(below);
    // Where the root commits to the node below, and says how much that holds.
    let at = root
        .windows(32)
        .position(|bytes| bytes == child.as_bytes())
        .unwrap();
    let relink = |root: &[u8], below: &[u8]| {
        let mut root = root.to_vec();
        root[at..at + 32].copy_from_slice(node_hash(below).as_bytes());
        root
    };
    let mut counts = root.clone();
    counts[at + 32] += 1;
    add(
        "a slot with other counts than its node",
        counts,
        below.clone(),
    );
    let mut depth = below.clone();
    depth[1] = 2;
    add("a node at another depth", relink(root, &depth), depth);
    let mut reserved = below.clone();
    reserved[6] = 1;
    add("a reserved byte", relink(root, &reserved), reserved);
    let mut version = below.clone();
    version[0] = 2;
    add("a node of another version", relink(root, &version), version);
    let mut longer = below.clone();
    longer.push(0);
    add("a node with a byte too many", relink(root, &longer), longer);
    // An entry whose path hash does not begin with the way to it.
    let mut prefix = below.clone();
    let other = Node::decode(below).unwrap();
    let mut occupied = other.slots().iter().filter(|slot| **slot != Slot::Empty);
    assert!(matches!(occupied.next(), Some(Slot::Entry { .. })));
    prefix[8] ^= 0x10;
    add(
        "an entry under another prefix",
        relink(root, &prefix),
        prefix,
    );
    cases
}

fn node_hash(bytes: &[u8]) -> Hash {
    converge_ledger::hash::keyed(converge_ledger::hash::Role::DirectoryNode, bytes)
}
