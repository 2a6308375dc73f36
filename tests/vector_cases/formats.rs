//! Hash roles, entry headers, runs.

use converge_ledger::entry::{ContextId, Draft, Header, Metadata, leaf_hash};
use converge_ledger::hash::{self, Role};
use converge_ledger::run::{Accumulator, Run, RunBuilder};
use serde_json::{Value, json};

use super::{file, hash as hash_of, hex, spoiled, unhex};

pub(crate) fn hashes() -> Value {
    let mut cases: Vec<Value> = Role::ALL
        .iter()
        .map(|role| {
            json!({ "name": format!("role {role:?}"), "good": true,
                "derivation_context": role.context(), "key": hex(role.key()),
                "input": "616263", "keyed": hash::keyed(*role, b"abc").to_string() })
        })
        .collect();
    cases.push(json!({ "name": "empty tree", "good": true,
        "derivation_context": Role::Node.context(), "key": hex(Role::Node.key()),
        "input": "", "keyed": hash::empty_root().to_string() }));
    file("00-terms", cases)
}

pub(crate) fn judge_hash(case: &Value) -> bool {
    let context = case["derivation_context"].as_str().unwrap();
    let role = Role::ALL.into_iter().find(|r| r.context() == context);
    let Some(role) = role else { return false };
    hex(role.key()) == case["key"].as_str().unwrap()
        && hash::keyed(role, &unhex(&case["input"])) == hash_of(&case["keyed"])
}

fn draft(key: &str, payload: &[u8], pairs: &[(&str, &str)], request_id: &str) -> Draft {
    Draft::new(key, payload)
        .unwrap()
        .with_metadata(Metadata::from_pairs(pairs.iter().copied()).unwrap())
        .with_request_id(request_id)
        .unwrap()
}

fn header_bytes(header: &Header<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode_into(&mut out).unwrap();
    out
}

fn good_entry(name: &str, draft: &Draft, sequence: u64, lamport: u64, time: u64) -> Value {
    let bytes = header_bytes(&draft.header(sequence, lamport, time));
    let metadata: serde_json::Map<String, Value> = draft
        .metadata()
        .iter()
        .map(|(k, v)| (k.to_owned(), v.into()))
        .collect();
    json!({ "name": name, "good": true, "sequence": sequence, "lamport": lamport,
        "appended_at_ns": time, "key": draft.key(), "request_id": draft.request_id(),
        "metadata": metadata, "payload": hex(draft.payload()),
        "payload_hash": draft.payload_hash().to_string(),
        "header": hex(&bytes), "leaf": leaf_hash(&bytes).to_string() })
}

pub(crate) fn entries() -> Value {
    let plain = draft("facts", b"it rains", &[], "");
    let full = draft(
        "proposals",
        "{\"größe\": 1}".as_bytes(),
        &[("agent_id", "agent-1"), ("cycle", "12"), ("ü", "")],
        "req-7",
    );
    let mut cases = vec![
        good_entry("smallest", &draft("k", b"", &[], ""), 1, 1, 0),
        good_entry("a fact", &plain, 1, 1, 1_700_000_000_000_000_000),
        good_entry("everything used", &full, 256, (1 << 62) - 1, u64::MAX),
        good_entry("a large payload", &draft("k", &[7; 5000], &[], ""), 2, 9, 5),
    ];
    let bytes = header_bytes(&full.header(7, 9, 11));
    let metadata_at = 72 + "proposals".len() + "req-7".len();
    cases.extend(spoiled(
        "everything used",
        "header",
        &bytes,
        &[
            (0, "version 129"),
            (1, "reserved byte set"),
            (3, "key longer than the header"),
            (7, "too many metadata pairs"),
            (15, "sequence above 2^62 - 1"),
            (23, "Lamport time above 2^62"),
            (35, "payload above 4 MiB"),
            (39, "metadata longer than the header"),
            (72, "key is not UTF-8"),
            (metadata_at + 4, "metadata key is not UTF-8"),
        ],
    ));
    let mut swapped = header_bytes(&draft("k", b"", &[("a", "1"), ("b", "2")], "").header(1, 1, 1));
    let at = 72 + 1;
    swapped.swap(at + 4, at + 4 + 6);
    cases.push(json!({ "name": "metadata keys descend", "good": false, "header": hex(&swapped) }));
    swapped[at + 4] = b'a';
    swapped[at + 4 + 6] = b'a';
    cases.push(json!({ "name": "a metadata key twice", "good": false, "header": hex(&swapped) }));
    let mut zero = header_bytes(&plain.header(1, 1, 1));
    zero[8] = 0;
    cases.push(json!({ "name": "sequence 0", "good": false, "header": hex(&zero) }));
    for (name, id) in [
        ("empty context id", String::new()),
        ("context id with a line feed", "a\n".into()),
        ("context id with U+0085", "a\u{85}".into()),
        ("context id of 1,025 bytes", "x".repeat(1025)),
    ] {
        cases.push(json!({ "name": name, "good": false, "context_id": id }));
    }
    for id in ["a", "../../etc/passwd", "é", "e\u{301}", "🦀"] {
        let path = ContextId::new(id).unwrap().path();
        cases.push(json!({ "name": format!("context id {id:?}"), "good": true,
            "context_id": id, "path_hash": path.to_string() }));
    }
    file("01-entry", cases)
}

pub(crate) fn judge_entry(case: &Value) -> bool {
    if let Some(id) = case["context_id"].as_str() {
        let id = ContextId::new(id);
        return id.is_ok_and(|id| id.path() == hash_of(&case["path_hash"]));
    }
    let bytes = unhex(&case["header"]);
    let Ok(header) = Header::decode(&bytes) else {
        return false;
    };
    header_bytes(&header) == bytes
        && leaf_hash(&bytes) == hash_of(&case["leaf"])
        && header.sequence == case["sequence"].as_u64().unwrap()
        && header.lamport == case["lamport"].as_u64().unwrap()
        && header.appended_at_ns == case["appended_at_ns"].as_u64().unwrap()
        && header.key == case["key"].as_str().unwrap()
        && header.request_id == case["request_id"].as_str()
        && header
            .metadata
            .iter()
            .all(|(k, v)| case["metadata"][k] == v)
        && header.metadata.len() == case["metadata"].as_object().unwrap().len()
        && header.payload_hash == hash::content(&unhex(&case["payload"]))
}

pub(crate) fn run_of(first: u64, count: u64) -> Vec<u8> {
    let mut builder = RunBuilder::default();
    for sequence in first..first + count {
        let payload = if sequence % 3 == 0 {
            vec![9; 4097]
        } else {
            vec![1; 3]
        };
        let draft = draft("k", &payload, &[("n", &sequence.to_string())], "");
        let header = draft.header(sequence, 2 * sequence, 1000);
        builder.push(&header, draft.payload()).unwrap();
    }
    let mut out = Vec::new();
    builder.finish_into(&mut out);
    out
}

pub(crate) fn runs() -> Value {
    let mut cases = Vec::new();
    for (name, first, count) in [
        ("one entry", 1, 1),
        ("five entries, one payload outside", 1, 5),
        ("up to a multiple of 256", 250, 7),
    ] {
        let bytes = run_of(first, count);
        let run = Run::decode(&bytes).unwrap();
        let leaves: Vec<String> = run
            .entries()
            .map(|e| leaf_hash(e.unwrap().header_bytes).to_string())
            .collect();
        cases.push(
            json!({ "name": name, "good": true, "first": first, "last": first + count - 1,
            "run": hex(&bytes), "leaves": leaves }),
        );
    }
    cases.extend(spoiled(
        "five entries",
        "run",
        &run_of(1, 5),
        &[
            (0, "version 129"),
            (1, "reserved byte set"),
            (3, "too many entries"),
            (8, "first sequence is not its header's"),
            (20, "reserved bytes set"),
            (27, "a header ends outside"),
        ],
    ));
    let crossing = run_of(255, 3);
    cases
        .push(json!({ "name": "crosses a multiple of 256", "good": false, "run": hex(&crossing) }));
    let mut payload = run_of(1, 2);
    *payload.last_mut().unwrap() ^= 1;
    cases.push(
        json!({ "name": "a payload is not its hash's", "good": false, "run": hex(&payload) }),
    );
    file("01-entry", cases)
}

pub(crate) fn judge_run(case: &Value) -> bool {
    let bytes = unhex(&case["run"]);
    let Ok(run) = Run::decode(&bytes) else {
        return false;
    };
    let entries: Result<Vec<_>, _> = run.entries().collect();
    let Ok(entries) = entries else { return false };
    if run.check_payloads().is_err() {
        return false;
    }
    let leaves: Vec<Value> = entries
        .iter()
        .map(|e| leaf_hash(e.header_bytes).to_string().into())
        .collect();
    let mut after = Accumulator::default();
    let continues = after.extend(&run, |_, _| (), |_, _| ()).is_ok();
    continues == (run.first() == 1)
        && (run.first(), run.last())
            == (
                case["first"].as_u64().unwrap(),
                case["last"].as_u64().unwrap(),
            )
        && case["leaves"].as_array() == Some(&leaves)
}
