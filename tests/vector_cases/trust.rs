//! Signed notes, heads, the directory.

use converge_ledger::directory::path::{build, verify};
use converge_ledger::directory::{
    Change, Found, MemoryDirectory, Node, apply, commitment, empty_root, path_hash,
};
use converge_ledger::hash::{self, Hash};
use converge_ledger::head::{Head, Rotation, SignedHead, Takeover, sign_head, sign_rotation};
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
    for bad in [
        vkey.replace("vectors", "vector5"),
        vkey.replace('+', " "),
        format!("{vkey}="),
        "x+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
    ] {
        cases.push(
            json!({ "name": format!("vkey {bad:?}"), "good": false, "kind": "key",
            "vkey": bad }),
        );
    }
    file("04-head-and-directory", cases)
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
    let changes: Vec<Change> = contexts(n)
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
    file("04-head-and-directory", cases)
}

pub(crate) fn judge_directory(case: &Value) -> bool {
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
