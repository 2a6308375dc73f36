//! Spans, and the two records a mirror writes before it stores one.

use converge_ledger::directory::{OpeningsPart, Seen};
use converge_ledger::entry::ContextId;
use converge_ledger::hash::{self, Hash};
use converge_ledger::run::{Accumulator, CheckedSpan, Run, SignedContext, encode_span};
use converge_ledger::tree::range::right_build;
use converge_ledger::tree::{Frontier, MemoryNodes, TreeSize};
use serde_json::{Value, json};

use super::formats::run_of;
use super::{file, hash as hash_of, hex, number, spoiled, unhex};

/// Ends of the runs of the context behind `span.json`.
const ENDS: [u64; 4] = [5, 6, 12, 20];

fn stored() -> Vec<Vec<u8>> {
    let mut first = 1;
    let mut runs = Vec::new();
    for end in ENDS {
        runs.push(run_of(first, end + 1 - first));
        first = end + 1;
    }
    runs
}

/// The state after the first `runs` runs.
fn after(runs: usize) -> Accumulator {
    let mut state = Accumulator::default();
    for bytes in stored().iter().take(runs) {
        let run = Run::decode(bytes).unwrap();
        state.extend(&run, |_, _| (), |_, _| ()).unwrap();
    }
    state
}

fn nodes() -> MemoryNodes {
    let mut nodes = MemoryNodes::new();
    for bytes in stored() {
        for entry in Run::decode(&bytes).unwrap().entries() {
            let leaf = converge_ledger::entry::leaf_hash(entry.unwrap().header_bytes);
            nodes.append(leaf).unwrap();
        }
    }
    nodes
}

fn root_at(size: u64) -> Hash {
    converge_ledger::tree::nodes::read_root(TreeSize::new(size), &nodes()).unwrap()
}

/// Runs `from..to` with the hashes to their right in a tree of `size`.
fn span(from: usize, to: usize, size: u64) -> Vec<u8> {
    let start = if from == 0 { 0 } else { ENDS[from - 1] };
    let (end, mut out) = (ENDS[to - 1], Vec::new());
    let right = right_build(TreeSize::new(end), TreeSize::new(size), &nodes()).unwrap();
    encode_span(start, end, &right, &stored()[from..to], &mut out);
    out
}

fn case(name: &str, own: &Accumulator, size: u64, root: Hash, span: &[u8]) -> Value {
    json!({ "name": name, "good": false, "size": size, "root": root.to_string(),
        "own_frontier": hex(&own.frontier.to_bytes()), "own_lamport": own.lamport,
        "own_appended_at_ns": own.appended_at_ns, "span": hex(span) })
}

fn good(mut case: Value, end: u64, outside: &[(Hash, u32)]) -> Value {
    case["good"] = true.into();
    case["end"] = end.into();
    let list = outside.iter().map(|(h, len)| json!([h.to_string(), len]));
    case["outside_payloads"] = list.collect();
    case
}

pub(crate) fn spans() -> Value {
    let outside = [(hash::content(&[9; 4097]), 4097)];
    let mut cases = Vec::new();
    for (name, from, to, size) in [
        ("the whole context", 0, 4, 20),
        ("its beginning", 0, 1, 20),
        ("its middle", 1, 3, 20),
        ("its end", 3, 4, 20),
        ("up to an older signed size", 1, 2, 6),
    ] {
        let bytes = span(from, to, size);
        let made = case(name, &after(from), size, root_at(size), &bytes);
        cases.push(good(made, ENDS[to - 1], &outside));
    }
    let (own, root, bytes) = (after(1), root_at(20), span(1, 3, 20));
    let bad = |name: &str, bytes: &[u8]| case(name, &own, 20, root, bytes);
    for spoiled in spoiled(
        "its middle",
        "span",
        &bytes,
        &[
            (0, "version 129"),
            (1, "more right hashes than allowed"),
            (2, "more runs than there are"),
            (4, "the runs have another length"),
            (8, "it starts elsewhere"),
            (16, "it ends beyond the signed size"),
            (24, "a right hash is another"),
            (bytes.len() - 1, "an inline payload is another"),
        ],
    ) {
        let name = spoiled["name"].as_str().unwrap();
        cases.push(bad(name, &unhex(&spoiled["span"])));
    }
    // What is right of the span is one hash, however many leaves it is over: a
    // size and a root are believed because they are signed together.
    let name = "a root that was signed with another size of the same shape";
    cases.push(good(case(name, &own, 19, root, &bytes), 12, &outside));
    let runs = stored();
    let right = right_build(TreeSize::new(12), TreeSize::new(20), &nodes()).unwrap();
    let made = |start, end, right: &[Hash], runs: &[Vec<u8>]| {
        let mut out = Vec::new();
        encode_span(start, end, right, runs, &mut out);
        out
    };
    let surplus = [&right[..], &[root]].concat();
    let swapped = [runs[2].clone(), runs[1].clone()];
    // The Lamport time of the first of six entries.
    let mut header = runs[1..3].to_vec();
    header[1][24 + 4 * 6 + 16] ^= 1;
    cases.extend([
        bad("no runs", &made(5, 5, &right, &[])),
        bad("a right hash too many", &made(5, 12, &surplus, &runs[1..3])),
        bad(
            "a right hash missing",
            &made(5, 12, &right[1..], &runs[1..3]),
        ),
        bad("runs in the wrong order", &made(5, 12, &right, &swapped)),
        bad("fewer runs than it says", &made(5, 12, &right, &runs[1..2])),
        bad("more runs than it says", &made(5, 6, &right, &runs[1..3])),
        bad("a header is another", &made(5, 12, &right, &header)),
        case("another signed root", &own, 20, root_at(12), &bytes),
        case("another signed size", &own, 16, root, &bytes),
        case("the own context is longer", &after(2), 20, root, &bytes),
    ]);
    let mut ahead = own.clone();
    ahead.lamport = 12;
    cases.push(case(
        "the Lamport time does not rise",
        &ahead,
        20,
        root,
        &bytes,
    ));
    let mut ahead = own;
    ahead.appended_at_ns = 1001;
    cases.push(case("the wall clock falls", &ahead, 20, root, &bytes));
    file("07-sync", cases)
}

pub(crate) fn judge_span(case: &Value) -> bool {
    let own = Accumulator {
        frontier: Frontier::from_bytes(&unhex(&case["own_frontier"])).unwrap(),
        lamport: number(case, "own_lamport"),
        appended_at_ns: number(case, "own_appended_at_ns"),
    };
    let signed = SignedContext {
        id: ContextId::new("ctx").unwrap(),
        size: number(case, "size"),
        root: hash_of(&case["root"]),
    };
    let Ok(span) = CheckedSpan::verify(&own, &signed, &unhex(&case["span"])) else {
        return false;
    };
    let outside: Vec<Value> = span
        .outside_payloads()
        .iter()
        .map(|(hash, len)| json!([hash.to_string(), len]))
        .collect();
    assert_eq!(case["good"], true, "{}", case["name"]);
    span.end() == number(case, "end") && case["outside_payloads"].as_array() == Some(&outside)
}

fn opening(id: &str, size: u64, root: &[u8; 32]) -> Vec<u8> {
    let len = u16::try_from(id.len()).unwrap().to_le_bytes();
    [&len[..], id.as_bytes(), &size.to_le_bytes(), root].concat()
}

/// An `openings` record, spelled out so that it can also be wrong.
fn openings(count: u32, term: u64, epoch: u64, list: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0];
    out.extend(count.to_le_bytes());
    out.extend(term.to_le_bytes());
    out.extend(epoch.to_le_bytes());
    out.extend(list.concat());
    out
}

/// A `seen` record, the same way.
fn seen_record(base: (u64, u64), count: u64, length: u32, note: &[u8]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0];
    out.extend(length.to_le_bytes());
    for number in [base.0, base.1, count] {
        out.extend(number.to_le_bytes());
    }
    out.extend(note);
    out
}

pub(crate) fn seen() -> Value {
    let mut names = ["a", "b", "c"];
    names.sort_by_key(|id| converge_ledger::directory::path_hash(id));
    let list: Vec<Vec<u8>> = names.iter().map(|id| opening(id, 4, &[5; 32])).collect();
    let case = |name: &str, kind: &str, good: bool, bytes: &[u8]| json!({ "name": format!("{kind}: {name}"), "good": good, "kind": kind, "record": hex(bytes) });
    let part = |name: &str, good: bool, bytes: &[u8]| case(name, "openings", good, bytes);
    let head = |name: &str, good: bool, bytes: &[u8]| case(name, "seen", good, bytes);
    let three = openings(3, 1, 9, &list);
    let mut reversed = list.clone();
    reversed.reverse();
    let twice = [list[0].clone(), list[0].clone()];
    let one = |id: &str, size: u64| openings(1, 1, 9, &[opening(id, size, &[5; 32])]);
    let note = b"note\n";
    let full = seen_record((1, 8), 3, 5, note);
    let mut cases = vec![
        part("one", true, &one("a", 1)),
        part("three, ascending by path hash", true, &three),
        part("none", false, &openings(0, 1, 9, &[])),
        part("descending", false, &openings(3, 1, 9, &reversed)),
        part("a context twice", false, &openings(2, 1, 9, &twice)),
        part("fewer than counted", false, &openings(4, 1, 9, &list)),
        part("more than counted", false, &openings(2, 1, 9, &list)),
        part("term 0", false, &openings(3, 0, 9, &list)),
        part("epoch 0", false, &openings(3, 1, 0, &list)),
        part("size 0", false, &one("a", 0)),
        part("size 2^62", false, &one("a", 1 << 62)),
        part("empty context id", false, &one("", 1)),
        part("context id with a line feed", false, &one("a\n", 1)),
        head("after a complete head", true, &full),
        head("the first", true, &seen_record((0, 0), 3, 5, note)),
        head("no openings", true, &seen_record((1, 8), 0, 5, note)),
        head("a base term alone", false, &seen_record((1, 0), 3, 5, note)),
        head(
            "a base epoch alone",
            false,
            &seen_record((0, 8), 3, 5, note),
        ),
        head("no note", false, &seen_record((1, 8), 3, 0, b"")),
        head(
            "a longer note than it says",
            false,
            &seen_record((1, 8), 3, 4, note),
        ),
        head(
            "a note of 8,193 bytes",
            false,
            &seen_record((1, 8), 3, 8193, &[b'n'; 8193]),
        ),
    ];
    for (kind, bytes) in [("openings", &three), ("seen", &full)] {
        let changed = [(0, "version 129"), (1, "reserved byte set")];
        let name = format!("{kind} record");
        cases.extend(
            spoiled(&name, "record", bytes, &changed)
                .into_iter()
                .map(|mut case| {
                    case["kind"] = kind.into();
                    case
                }),
        );
    }
    file("05-store", cases)
}

pub(crate) fn judge_seen(case: &Value) -> bool {
    let bytes = unhex(&case["record"]);
    let again = match case["kind"].as_str().unwrap() {
        "openings" => OpeningsPart::decode(&bytes).and_then(|part| part.encode()),
        "seen" => Seen::decode(&bytes).and_then(|seen| seen.encode()),
        kind => panic!("{kind}"),
    };
    again.is_ok_and(|again| again == bytes)
}
