//! Signed notes, heads, the directory.

use converge_ledger::directory::path::{build, verify};
use converge_ledger::directory::{
    Change, Diff, DiffError, Found, MemoryDirectory, Node, Opening, ReadDirectory, Slot, Sums,
    apply, commitment, empty_root, path_hash,
};
use converge_ledger::hash::{self, Hash};
use converge_ledger::head::{
    Head, Relation, Rotation, SignedHead, Takeover, compare, sign_head, sign_rotation,
};
use converge_ledger::note::{OriginName, SignerKey, VerifierKey};
use serde_json::{Value, json};

use super::{file, hash as hash_of, hex, number, spoiled, unhex};

fn signer(seed: u8) -> SignerKey {
    SignerKey::from_seed(OriginName::new("vectors.example").unwrap(), &[seed; 32])
}

fn head(rotation: Option<Rotation>) -> Head {
    Head {
        origin: OriginName::new("vectors.example").unwrap(),
        term: 1,
        epoch: 7,
        directory_root: hash::content(b"directory"),
        contexts: 3,
        entries: 1000,
        time_ns: 1_700_000_000_000_000_000,
        rotation,
    }
}

pub(crate) fn notes() -> Value {
    let (old, new) = (signer(1), signer(2));
    let vkey = old.verifier().to_string();
    let case = |name: &str, good: bool, vkey: &str, note: &[u8]| {
        let note = String::from_utf8(note.to_vec()).unwrap();
        json!({ "name": name, "good": good, "kind": "head", "vkey": vkey, "note": note })
    };
    let note = sign_head(&head(None), &old).unwrap();
    let text = String::from_utf8(note.clone()).unwrap();
    let rotation = Rotation {
        old: old.verifier().clone(),
        new: new.verifier().clone(),
    };
    let rotated = sign_rotation(&head(Some(rotation)), &old, &new).unwrap();
    let new_vkey = new.verifier().to_string();
    let mut cases = vec![
        json!({ "name": "key", "good": true, "kind": "key", "seed": hex(&[1; 32]),
            "public_key": hex(old.verifier().public_key()),
            "key_id": hex(&old.verifier().key_id()), "vkey": vkey }),
        case("head", true, &vkey, &note),
        case("rotation head, old key pinned", true, &vkey, &rotated),
        case("rotation head, new key pinned", true, &new_vkey, &rotated),
        case("head by another key", false, &new_vkey, &note),
    ];
    let stranger = format!("{text}\u{2014} someone AAAAAFhY\n");
    cases.push(case(
        "a line by an unknown key",
        true,
        &vkey,
        stranger.as_bytes(),
    ));
    let changes: [(&str, &str, &str); 10] = [
        ("another count", "3 1000", "3 1001"),
        ("a leading zero", "1 7\n", "01 7\n"),
        ("a plus sign", "1 7\n", "+1 7\n"),
        ("epoch 0", "1 7\n", "1 0\n"),
        ("a number above 2^64", "3 1000", "3 18446744073709551616"),
        ("carriage returns", "head/v1\n", "head/v1\r\n"),
        ("an extra line", "head/v1\n", "head/v1\nextra\n"),
        (
            "another format",
            "converge-ledger/head/v1",
            "converge-ledger/head/v2",
        ),
        (
            "another origin",
            "v1\nvectors.example",
            "v1\nvectors.exampl3",
        ),
        ("a hyphen for the dash", "\u{2014} ", "- "),
    ];
    for (name, from, to) in changes {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{name}");
        cases.push(case(name, false, &vkey, other.as_bytes()));
    }
    let twice = format!("{text}{}", text.lines().last().unwrap().to_owned() + "\n");
    cases.push(case("one key's line twice", false, &vkey, twice.as_bytes()));
    // A rotation head whose signature by the new key is missing.
    let rotated = String::from_utf8(rotated).unwrap();
    let keep: Vec<&str> = rotated.lines().collect();
    let old_only = keep[..keep.len() - 1].join("\n") + "\n";
    cases.push(case(
        "rotation head with one signature",
        false,
        &vkey,
        old_only.as_bytes(),
    ));
    let takeover = Takeover {
        origin: OriginName::new("vectors.example").unwrap(),
        term: 2,
        base: converge_ledger::head::HeadOrder { term: 1, epoch: 7 },
        base_directory_root: hash::content(b"directory"),
        base_contexts: 3,
        base_entries: 1000,
        time_ns: 5,
    };
    let text = takeover.to_text();
    cases.push(json!({ "name": "takeover", "good": true, "kind": "takeover", "text": text }));
    let same = text.replacen("\n2\n", "\n1\n", 1);
    cases.push(
        json!({ "name": "takeover of its own term", "good": false, "kind": "takeover",
        "text": same }),
    );
    cases.extend(bad_keys(&vkey));
    cases.extend(relations());
    file("04-head-and-directory", cases)
}

fn bad_keys(vkey: &str) -> Vec<Value> {
    let mut cases = Vec::new();
    for (bad, reason) in [
        (vkey.replace("vectors", "vector5"), "key id of another name"),
        (vkey.replace('+', " "), "no plus signs"),
        (format!("{vkey}="), "base64 padded too much"),
        (
            "x+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
            "key too short",
        ),
        (
            "x+30b4a9e1+AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
            "public key of small order",
        ),
    ] {
        cases.push(
            json!({ "name": format!("vkey {bad:?}"), "good": false, "kind": "key",
            "vkey": bad, "reason": reason }),
        );
    }
    cases
}

/// Pairs of heads of one origin, the first one known.
fn relations() -> Vec<Value> {
    let (old, new, other) = (signer(1), signer(2), signer(4));
    let plain = |change: &dyn Fn(&mut Head)| {
        let mut head = head(None);
        change(&mut head);
        sign_head(&head, &old).unwrap()
    };
    let rotated_in = |term: u64, epoch: u64, to: &SignerKey| {
        let rotation = Rotation {
            old: old.verifier().clone(),
            new: to.verifier().clone(),
        };
        let mut head = head(Some(rotation));
        (head.term, head.epoch) = (term, epoch);
        sign_rotation(&head, &old, to).unwrap()
    };
    let rotated = |epoch: u64, to: &SignerKey| rotated_in(1, epoch, to);
    let known = plain(&|_| ());
    let root = hash::content(b"another directory");
    let case = |name: &str, relation: Option<&str>, known: &[u8], other: &[u8]| {
        json!({ "name": format!("two heads: {name}"), "good": relation.is_some(),
            "kind": "relation", "vkey": old.verifier().to_string(), "relation": relation,
            "known": String::from_utf8(known.to_vec()).unwrap(),
            "other": String::from_utf8(other.to_vec()).unwrap() })
    };
    let heartbeat = plain(&|head| head.epoch = 8);
    let grown = plain(&|head| {
        (head.epoch, head.entries, head.directory_root) = (9, 1001, root);
    });
    let with = |name, change: &dyn Fn(&mut Head)| case(name, None, &known, &plain(change));
    vec![
        case("the same", Some("same"), &known, &known),
        case("a heartbeat", Some("newer"), &known, &heartbeat),
        case("an entry more", Some("newer"), &known, &grown),
        case("the other way round", Some("older"), &grown, &known),
        case(
            "another term",
            Some("across terms"),
            &known,
            &plain(&|head| {
                (head.term, head.epoch) = (2, 8);
            }),
        ),
        case("a rotation", Some("newer"), &known, &rotated(8, &new)),
        case(
            "two rotations of one key in two terms",
            Some("across terms"),
            &rotated(8, &new),
            &rotated_in(2, 8, &other),
        ),
        with("two texts of one epoch", &|head| head.time_ns += 1),
        with("an entry fewer", &|head| {
            (head.epoch, head.entries, head.directory_root) = (8, 999, root);
        }),
        with("a context fewer", &|head| {
            (head.epoch, head.contexts, head.directory_root) = (8, 2, root);
        }),
        with("more contexts gained than entries", &|head| {
            (head.epoch, head.contexts, head.entries) = (8, 5, 1001);
            head.directory_root = root;
        }),
        with("another root for the same counts", &|head| {
            (head.epoch, head.directory_root) = (8, root);
        }),
        with("other counts for the same root", &|head| {
            (head.epoch, head.entries) = (8, 1001);
        }),
        case(
            "two rotations of one key",
            None,
            &rotated(8, &new),
            &rotated(9, &other),
        ),
    ]
}

fn judge_relation(case: &Value) -> bool {
    let key = VerifierKey::parse(case["vkey"].as_str().unwrap()).unwrap();
    let open = |field: &str| {
        let note = case[field].as_str().unwrap();
        SignedHead::open(note.as_bytes(), &key).unwrap()
    };
    let Ok(relation) = compare(&open("known"), &open("other")) else {
        return false;
    };
    let name = match relation {
        Relation::Same => "same",
        Relation::Newer => "newer",
        Relation::Older => "older",
        Relation::AcrossTerms(_) => "across terms",
        Relation::OtherOrigin => "another origin",
    };
    case["relation"] == name
}

pub(crate) fn judge_note(case: &Value) -> bool {
    let text = |field: &str| case[field].as_str().unwrap();
    match case["kind"].as_str().unwrap() {
        "key" => VerifierKey::parse(text("vkey")).is_ok_and(|key| {
            let seed: [u8; 32] = unhex(&case["seed"]).try_into().unwrap();
            let made = SignerKey::from_seed(key.name().clone(), &seed);
            *made.verifier() == key
                && hex(key.public_key()) == text("public_key")
                && hex(&key.key_id()) == text("key_id")
                && key.to_string() == text("vkey")
        }),
        "head" => {
            let key = VerifierKey::parse(text("vkey")).unwrap();
            SignedHead::open(text("note").as_bytes(), &key).is_ok()
        }
        "takeover" => Takeover::parse(text("text")).is_ok_and(|t| t.to_text() == text("text")),
        "relation" => judge_relation(case),
        kind => panic!("{kind}"),
    }
}

fn contexts(n: u64) -> Vec<(String, u64, Hash)> {
    (0..n)
        .map(|i| {
            (
                format!("context-{i}"),
                i + 1,
                hash::content(&i.to_le_bytes()),
            )
        })
        .collect()
}

fn built(n: u64) -> (MemoryDirectory, Hash) {
    built_of(&contexts(n))
}

fn built_of(contexts: &[(String, u64, Hash)]) -> (MemoryDirectory, Hash) {
    let changes: Vec<Change> = contexts
        .iter()
        .map(|(id, size, root)| Change {
            path: path_hash(id),
            commitment: commitment(id, *size, root),
            entries: *size,
        })
        .collect();
    let mut nodes = MemoryDirectory::new();
    let update = apply(&nodes, &empty_root(), &changes).unwrap();
    nodes.add(&update);
    (nodes, update.root)
}

pub(crate) fn directory() -> Value {
    let mut cases = vec![json!({ "name": "no contexts", "good": true, "kind": "node",
        "node": hex(&Node::empty().encode()), "hash": empty_root().to_string() })];
    for n in [1, 2, 20] {
        let (nodes, root) = built(n);
        for (id, size, tree_root) in contexts(n).iter().take(3) {
            let path = build(&nodes, &root, &path_hash(id)).unwrap();
            cases.push(
                json!({ "name": format!("{id} of {n}"), "good": true, "kind": "path",
                "root": root.to_string(), "context": id, "size": size,
                "context_root": tree_root.to_string(), "path_hash": path_hash(id).to_string(),
                "commitment": commitment(id, *size, tree_root).to_string(),
                "nodes": path.nodes.iter().map(|n| hex(n)).collect::<Vec<_>>() }),
            );
            cases.push(
                json!({ "name": format!("{id} of {n} with another size"), "good": false,
                "kind": "path", "root": root.to_string(), "context": id, "size": size + 1,
                "context_root": tree_root.to_string(),
                "nodes": path.nodes.iter().map(|n| hex(n)).collect::<Vec<_>>() }),
            );
        }
        let path = build(&nodes, &root, &path_hash("absent")).unwrap();
        let mut listed: Vec<String> = path.nodes.iter().map(|n| hex(n)).collect();
        cases.push(
            json!({ "name": format!("absence in {n}"), "good": true, "kind": "path",
            "root": root.to_string(), "context": "absent", "size": 0, "nodes": listed }),
        );
        listed.push(listed[0].clone());
        cases.push(
            json!({ "name": format!("absence in {n}, a surplus node"), "good": false,
            "kind": "path", "root": root.to_string(), "context": "absent", "size": 0,
            "nodes": listed }),
        );
    }
    let (nodes, root) = built(20);
    let path = build(&nodes, &root, &path_hash("context-0")).unwrap();
    let node = &path.nodes[0];
    cases.push(
        json!({ "name": "the root of 20", "good": true, "kind": "node",
        "node": hex(node), "hash": root.to_string() }),
    );
    cases.extend(
        spoiled(
            "the root of 20",
            "node",
            node,
            &[
                (0, "version 129"),
                (1, "depth 128"),
                (2, "another slot is occupied"),
                (4, "an unoccupied or entry slot is a child"),
                (6, "reserved bytes set"),
            ],
        )
        .into_iter()
        .map(|mut case| {
            case["kind"] = "node".into();
            case["hash"] = root.to_string().into();
            case
        }),
    );
    cases.extend(invalid_paths());
    cases.extend(differences());
    file("04-head-and-directory", cases)
}

fn opening((id, size, root): &(String, u64, Hash)) -> Opening {
    let (id, size, root) = (id.clone(), *size, *root);
    Opening { id, size, root }
}

/// Paths whose hashes are right and whose nodes break a rule: the origin's
/// fault. Two contexts below one slot of the root, spelled out byte by byte.
fn invalid_paths() -> Vec<Value> {
    let all = contexts(64);
    let below = |nibble: u8, second: Option<u8>| {
        let fits = |c: &&(String, u64, Hash)| {
            let path = path_hash(&c.0);
            path.nibble(0) == nibble && second.is_none_or(|s| path.nibble(1) != s)
        };
        all.iter().find(fits).unwrap()
    };
    let one = below(3, None);
    let two = below(3, Some(path_hash(&one.0).nibble(1)));
    let elsewhere = below(5, None);
    let child = |depth: u8, list: &[&(String, u64, Hash)]| {
        let mut list: Vec<_> = list.iter().map(|c| (path_hash(&c.0), *c)).collect();
        list.sort_by_key(|(path, _)| path.nibble(1));
        let occupied = list.iter().fold(0u16, |o, (p, _)| o | 1 << p.nibble(1));
        let mut out = vec![1, depth];
        out.extend(occupied.to_le_bytes());
        out.extend([0; 4]);
        for (path, context) in list {
            let slot = opening(context).commitment();
            out.extend(path.as_bytes());
            out.extend(slot.as_bytes());
            out.extend(context.1.to_le_bytes());
        }
        out
    };
    let parent = |slot: u8, child: &[u8], contexts: u64, entries: u64| {
        let mut out = vec![1, 0];
        out.extend((1u16 << slot).to_le_bytes());
        out.extend((1u16 << slot).to_le_bytes());
        out.extend([0; 2]);
        let hash = hash::keyed(hash::Role::DirectoryNode, child);
        out.extend(hash.as_bytes());
        out.extend(contexts.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out
    };
    let pair = child(1, &[one, two]);
    let entries = one.1 + two.1;
    let case = |name: &str, good: bool, parent: Vec<u8>, child: &[u8], context: &str| {
        let root = hash::keyed(hash::Role::DirectoryNode, &parent);
        let held = all.iter().find(|c| c.0 == context).unwrap();
        json!({ "name": format!("two below one slot{name}"), "good": good, "kind": "path",
            "root": root.to_string(), "context": context, "size": held.1,
            "context_root": held.2.to_string(), "nodes": [hex(&parent), hex(child)] })
    };
    let id = &one.0;
    let low = child(2, &[one, two]);
    let alone = child(1, &[one]);
    vec![
        case("", true, parent(3, &pair, 2, entries), &pair, id),
        case(
            ", another count of entries",
            false,
            parent(3, &pair, 2, entries + 1),
            &pair,
            id,
        ),
        case(
            ", another count of contexts",
            false,
            parent(3, &pair, 3, entries),
            &pair,
            id,
        ),
        case(
            ", another depth",
            false,
            parent(3, &low, 2, entries),
            &low,
            id,
        ),
        case(
            ", only one there",
            false,
            parent(3, &alone, 2, entries),
            &alone,
            id,
        ),
        case(
            ", under another digit",
            false,
            parent(5, &pair, 2, entries),
            &pair,
            &elsewhere.0,
        ),
    ]
}

/// What a mirror finds between its own directory and a newer one.
fn differences() -> Vec<Value> {
    let listed = |list: &[(String, u64, Hash)]| -> Vec<Value> {
        let item = |(id, size, root): &(String, u64, Hash)| json!([id, size, root.to_string()]);
        list.iter().map(item).collect()
    };
    let base = contexts(40);
    let case = |name: &str, good: bool, old: &[(String, u64, Hash)], new: &[_]| {
        let grown = new.iter().filter(|c| !old.contains(c));
        let mut changed: Vec<_> = grown.map(|c: &(String, u64, Hash)| c.0.clone()).collect();
        changed.sort_by_key(|id| path_hash(id));
        let changed = good.then_some(changed);
        json!({ "name": format!("difference: {name}"), "good": good, "kind": "difference",
            "old": listed(old), "new": listed(new), "old_root": built_of(old).1.to_string(),
            "new_root": built_of(new).1.to_string(), "changed": changed })
    };
    let (mut grown, mut shrunk, mut rewritten) = (base.clone(), base.clone(), base.clone());
    for at in [0, 7, 39] {
        grown[at].1 += 1;
        grown[at].2 = hash::content(b"grown");
    }
    grown.extend(contexts(43).drain(40..));
    (shrunk[7].1, shrunk[8].1) = (7, 20);
    rewritten[7].2 = hash::content(b"rewritten");
    let mut replaced = base.clone();
    replaced[7] = ("another".into(), 50, hash::content(b"new"));
    vec![
        case("nothing", true, &base, &base),
        case("from nothing", true, &[], &base),
        case("three grown, three new", true, &base, &grown),
        case("a context shrank", false, &base, &shrunk),
        case(
            "a context has another root at its size",
            false,
            &base,
            &rewritten,
        ),
        case("a context vanished, another came", false, &base, &replaced),
        case("contexts vanished", false, &base, &base[..30]),
    ]
}

fn judge_difference(case: &Value) -> bool {
    let read = |field: &str| -> Vec<(String, u64, Hash)> {
        let item = |item: &Value| {
            let id = item[0].as_str().unwrap().to_owned();
            (id, item[1].as_u64().unwrap(), hash_of(&item[2]))
        };
        case[field].as_array().unwrap().iter().map(item).collect()
    };
    let (old, new) = (read("old"), read("new"));
    let ((own, own_root), (theirs, root)) = (built_of(&old), built_of(&new));
    assert_eq!(own_root, hash_of(&case["old_root"]));
    assert_eq!(root, hash_of(&case["new_root"]));
    let sums = Sums {
        contexts: new.len() as u64,
        entries: new.iter().map(|c| c.1).sum(),
    };
    let openings_of = |bytes: &[u8]| -> Vec<Opening> {
        let node = Node::decode(bytes).unwrap();
        let path_of = |slot: &Slot| match *slot {
            Slot::Entry { path, .. } => Some(path),
            _ => None,
        };
        let find = |path| new.iter().find(|c| path_hash(&c.0) == path).unwrap();
        let paths = node.slots().iter().filter_map(path_of);
        paths.map(|path| opening(find(path))).collect()
    };
    let descend = || -> Result<Vec<String>, DiffError<std::convert::Infallible>> {
        let mut diff = Diff::new(&own, &own_root, &root, sums)?;
        while !diff.is_done() {
            for hash in diff.wanted(2) {
                let bytes = theirs.directory_node(&hash).unwrap().unwrap();
                diff.supply(&hash, &bytes, openings_of(&bytes))?;
            }
        }
        let mut changed: Vec<_> = diff.take_changed();
        changed.sort_by_key(|changed| changed.opening.path());
        Ok(changed.into_iter().map(|c| c.opening.id).collect())
    };
    match descend() {
        Ok(changed) => {
            assert_eq!(case["good"], true, "{}", case["name"]);
            case["changed"] == json!(changed)
        }
        Err(DiffError::Contradiction(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn judge_directory(case: &Value) -> bool {
    if case["kind"] == "difference" {
        return judge_difference(case);
    }
    if case["kind"] == "node" {
        let bytes = unhex(&case["node"]);
        return Node::decode(&bytes)
            .is_ok_and(|node| node.encode() == bytes && node.hash() == hash_of(&case["hash"]));
    }
    let id = case["context"].as_str().unwrap();
    let nodes: Vec<Vec<u8>> = case["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(unhex)
        .collect();
    let nodes: Vec<&[u8]> = nodes.iter().map(Vec::as_slice).collect();
    match verify(&hash_of(&case["root"]), &path_hash(id), &nodes) {
        Ok(Found::Present {
            commitment: found,
            entries,
            ..
        }) => {
            let size = number(case, "size");
            entries == size && found == commitment(id, size, &hash_of(&case["context_root"]))
        }
        Ok(Found::Absent { .. }) => number(case, "size") == 0,
        Err(_) => false,
    }
}
