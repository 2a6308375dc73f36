//! Wire frames: requests and replies.

use converge_ledger::directory::{Node, Opening, Slot};
use converge_ledger::entry::ContextId;
use converge_ledger::hash::{self, Hash};
use converge_ledger::ledger::OpenedNode;
use converge_ledger::sync::message::{NodeAnswer, Refusal, Reply, Request};
use serde_json::{Value, json};

use super::{file, hex, spoiled, unhex};

fn requests(id: &ContextId, h: &[Hash]) -> Vec<(&'static str, Request)> {
    let (context, hashes) = (id.clone(), h.to_vec());
    let newest = b"note\n".to_vec();
    vec![
        ("Head? without a note", Request::Head { newest: vec![] }),
        ("Head? with a note", Request::Head { newest }),
        ("Nodes?", Request::Nodes { hashes }),
        (
            "Entries?",
            Request::Entries {
                context,
                after_sequence: 256,
                size: 100_000,
            },
        ),
        ("Payloads?", Request::Payloads { hashes: h.to_vec() }),
        (
            "Consistency?",
            Request::Consistency {
                context: id.clone(),
                from: 1,
                to: 300,
            },
        ),
        (
            "Inclusion?",
            Request::Inclusion {
                context: id.clone(),
                sequence: 7,
                size: 300,
            },
        ),
        (
            "Follow?",
            Request::Follow {
                newest: b"note".to_vec(),
            },
        ),
        (
            "Complete?",
            Request::Complete {
                note: b"note\n".to_vec(),
            },
        ),
    ]
}

/// The directory of one context, opened.
fn opened() -> (Hash, OpenedNode) {
    let opening = Opening {
        id: "ctx".into(),
        size: 300,
        root: hash::content(b"root"),
    };
    let mut slots = [Slot::Empty; 16];
    slots[usize::from(opening.path().nibble(0))] = opening.slot();
    let node = Node::new(0, slots).unwrap();
    let openings = vec![opening];
    (
        node.hash(),
        OpenedNode {
            node: node.encode(),
            openings,
        },
    )
}

fn replies<'a>(id: &ContextId, h: &[Hash]) -> Vec<(&'static str, Reply<'a>)> {
    let (hash, node) = opened();
    let node = Some(node);
    let gone = NodeAnswer {
        hash: h[0],
        node: None,
    };
    let answers = vec![NodeAnswer { hash, node }, gone];
    let payload = |bytes| Reply::Payload { hash: h[0], bytes };
    let notes = vec![b"older\n".to_vec(), b"newest\n".to_vec()];
    vec![
        ("Head without notes", Reply::Head { notes: vec![] }),
        ("Head with two notes", Reply::Head { notes }),
        ("Nodes, one of them gone", Reply::Nodes { answers }),
        (
            "EntriesBegin",
            Reply::EntriesBegin {
                context: id.clone(),
                after_sequence: 256,
                size: 100_000,
            },
        ),
        ("Span, not looked into", Reply::Span(b"span")),
        ("Payload", payload(Some(vec![7; 5]))),
        ("Payload that is gone", payload(None)),
        (
            "Consistency",
            Reply::Consistency {
                context: id.clone(),
                from: 1,
                to: 300,
                from_root: h[0],
                hashes: h.to_vec(),
            },
        ),
        (
            "Inclusion",
            Reply::Inclusion {
                context: id.clone(),
                sequence: 7,
                size: 300,
                header: vec![1; 72],
                payload: b"payload".to_vec(),
                hashes: h.to_vec(),
            },
        ),
        ("Error 1", Reply::Refused(Refusal::NotServed)),
        ("Error 2", Reply::Refused(Refusal::Failed)),
    ]
}

pub(crate) fn wire() -> Value {
    let id = ContextId::new("ctx").unwrap();
    let h = [hash::content(b"a"), hash::content(b"b")];
    let mut cases = Vec::new();
    for (name, request) in requests(&id, &h) {
        let frame = request.encode().unwrap();
        cases.push(json!({ "name": name, "good": true, "request": hex(&frame) }));
        let changed = [(3, "length of 2 GiB"), (4, "a reply's kind")];
        cases.extend(spoiled(name, "request", &frame, &changed));
    }
    for (name, reply) in replies(&id, &h) {
        let frame = reply.encode().unwrap();
        cases.push(json!({ "name": name, "good": true, "reply": hex(&frame) }));
        let changed = [(3, "length of 2 GiB"), (4, "a request's or no kind")];
        cases.extend(spoiled(name, "reply", &frame, &changed));
    }
    for (name, field, frame) in [
        // 256 as three bytes of varint where two are enough.
        (
            "a varint with a spare byte",
            "request",
            "0b000000030363747880828000a08d06",
        ),
        (
            "Entries?, after is not below size",
            "request",
            "0600000003036374780505",
        ),
        ("Entries?, size 0", "request", "0600000003036374780000"),
        ("Consistency?, from 0", "request", "0600000005036374780005"),
        (
            "Consistency?, from above to",
            "request",
            "0600000005036374780605",
        ),
        (
            "Inclusion?, sequence 0",
            "request",
            "0600000006036374780005",
        ),
        (
            "Inclusion?, sequence above size",
            "request",
            "0600000006036374780605",
        ),
        (
            "Inclusion, no header",
            "reply",
            "090000008703637478070c000000",
        ),
        ("Complete?, no note", "request", "010000000800"),
        ("Nodes?, no hash", "request", "010000000200"),
        ("Payloads?, no hash", "request", "010000000400"),
        ("Entries?, empty context id", "request", "0300000003000005"),
        (
            "Entries?, context id with a line feed",
            "request",
            "0400000003010a0005",
        ),
        ("Head, an empty note", "reply", "02000000810100"),
        ("Nodes, no answer", "reply", "010000008200"),
        ("Error 0", "reply", "01000000ff00"),
        ("Error 3", "reply", "01000000ff03"),
    ] {
        cases.push(json!({ "name": name, "good": false, field: frame }));
    }
    let mut option = Reply::Payload {
        hash: h[0],
        bytes: None,
    }
    .encode()
    .unwrap();
    *option.last_mut().unwrap() = 2;
    cases.push(
        json!({ "name": "Payload, an option that is neither 0 nor 1", "good": false,
        "reply": hex(&option) }),
    );
    file("07-sync", cases)
}

pub(crate) fn judge_wire(case: &Value) -> bool {
    if case["reply"].is_string() {
        let frame = unhex(&case["reply"]);
        return match Reply::decode(&frame) {
            Ok(reply) => reply.encode().unwrap() == frame && Request::decode(&frame).is_err(),
            Err(_) => false,
        };
    }
    let frame = unhex(&case["request"]);
    match Request::decode(&frame) {
        Ok(request) => request.encode().unwrap() == frame && Reply::decode(&frame).is_err(),
        Err(_) => false,
    }
}
