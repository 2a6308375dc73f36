//! Archives of one context, put together here as chapter 06 says, without the
//! writer.

use converge_ledger::archive::{Parts, verify};
use converge_ledger::entry::{ContextId, Draft, leaf_hash};
use converge_ledger::hash::{self, Hash};
use converge_ledger::limits::PAYLOAD_INLINE_BYTES_MAX;
use converge_ledger::run::{Accumulator, Run, RunBuilder};
use serde_json::{Value, json};

use super::{file, hex, number, unhex};

/// A section: kind and body.
type Piece = (u8, Vec<u8>);

const SIZE: u64 = 5;

/// Five entries in two runs, 1..=3 and 4..=5; entries 2 and 5 have one payload
/// of more than 4 KiB, entry 4 has another.
struct Context {
    runs: Vec<Vec<u8>>,
    payloads: Vec<Vec<u8>>,
    root: Hash,
}

fn context() -> Context {
    let large = |fill: u8| vec![fill; PAYLOAD_INLINE_BYTES_MAX + 1];
    let payloads = [b"one".to_vec(), large(2), vec![], large(4), large(2)];
    let (mut runs, mut after) = (Vec::new(), Accumulator::default());
    let mut builder = RunBuilder::default();
    for (sequence, payload) in (1..).zip(&payloads) {
        let draft = Draft::new("facts", payload.clone()).unwrap();
        let header = draft.header(sequence, 2 * sequence, 1000 + sequence);
        builder.push(&header, payload).unwrap();
        if sequence == 3 || sequence == SIZE {
            let mut run = Vec::new();
            builder.finish_into(&mut run);
            let decoded = Run::decode(&run).unwrap();
            after.extend(&decoded, |_, _| (), |_, _| ()).unwrap();
            runs.push(run);
        }
    }
    Context {
        runs,
        payloads: vec![large(2), large(4)],
        root: after.root(),
    }
}

/// The first lines.
fn title(id: &str, size: &str, root: &Hash) -> Vec<u8> {
    let root = base64(root.as_bytes());
    format!("converge-ledger/archive/v1\ncontext {id}\nsize {size}\nroot {root}\n\n").into_bytes()
}

/// Standard base64 of 32 bytes, spelled out.
fn base64(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |i: usize| {
        let bit = |b: usize| bytes.get(b / 8).is_some_and(|x| x >> (7 - b % 8) & 1 == 1);
        let value = (0..6).fold(0, |value, b| 2 * value + usize::from(bit(6 * i + b)));
        char::from(DIGITS[value])
    };
    (0..43).map(digit).chain(['=']).collect()
}

/// A section with this header, except for its length and its hash.
fn section(front: [u8; 8], body: &[u8]) -> Vec<u8> {
    let front = [&front[..], &(body.len() as u64).to_le_bytes()].concat();
    let hash = hash::content(&[&front[..], body].concat());
    [&front[..], hash.as_bytes(), body].concat()
}

fn plain((kind, body): &Piece) -> Vec<u8> {
    section([*kind, 1, 0, 0, 0, 0, 0, 0], body)
}

/// The end behind these bytes.
fn ended(before: &[u8], entries: u64, sections: u64) -> Vec<u8> {
    let hash = hash::content(before);
    let (entries, sections) = (entries.to_le_bytes(), sections.to_le_bytes());
    let body = [&entries[..], &sections, hash.as_bytes()].concat();
    [before, &plain(&(255, body))].concat()
}

/// First lines and sections with an end that agrees.
fn whole(title: &[u8], pieces: &[Piece]) -> Vec<u8> {
    let sections: Vec<u8> = pieces.iter().flat_map(plain).collect();
    ended(&[title, &sections].concat(), SIZE, pieces.len() as u64)
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&length[..], bytes].concat()
}

fn payload_item(payload: &[u8]) -> Vec<u8> {
    [hash::content(payload).as_bytes(), &with_length(payload)[..]].concat()
}

/// Bytes as a list of hexadecimal texts and of long repetitions of one byte,
/// which payloads here are made of.
fn packed(bytes: &[u8]) -> Value {
    let (mut list, mut plain) = (Vec::new(), Vec::new());
    for same in bytes.chunk_by(|a, b| a == b) {
        if same.len() < 1000 {
            plain.extend(same);
            continue;
        }
        list.push(hex(&plain).into());
        list.push(json!({ "byte": same[0], "times": same.len() }));
        plain.clear();
    }
    list.push(hex(&plain).into());
    list.into()
}

fn unpacked(list: &Value) -> Vec<u8> {
    let list = list.as_array().unwrap().iter();
    list.flat_map(|piece| match piece {
        Value::String(_) => unhex(piece),
        _ => vec![
            u8::try_from(number(piece, "byte")).unwrap();
            usize::try_from(number(piece, "times")).unwrap()
        ],
    })
    .collect()
}

fn good(name: &str, title: &[u8], pieces: &[Piece], leaves: &[String], root: &Hash) -> Value {
    let bytes = whole(title, pieces);
    let mut at = title.len();
    let mut parts = vec![json!({ "what": "first lines", "at": 0, "bytes": at })];
    let end = (255, vec![0; 48]);
    for (kind, body) in pieces.iter().chain([&end]) {
        let what = match kind {
            3 => "runs",
            4 => "payloads",
            _ => "end",
        };
        parts.push(json!({ "what": what, "at": at, "bytes": 48 + body.len() }));
        at += 48 + body.len();
    }
    json!({ "name": name, "good": true, "context": "archived", "size": leaves.len(),
        "root": root.to_string(), "newest_ns": 1005, "leaves": leaves, "parts": parts,
        "archive": packed(&bytes) })
}

pub(crate) fn archives() -> Value {
    let c = context();
    let first = title("archived", "5", &c.root);
    let runs: Piece = (3, c.runs.iter().flat_map(|run| with_length(run)).collect());
    let items: Vec<Vec<u8>> = c.payloads.iter().map(|p| payload_item(p)).collect();
    let payloads: Piece = (4, items.concat());
    let pieces = [runs.clone(), payloads.clone()];
    let honest = whole(&first, &pieces);
    let mut leaves = Vec::new();
    for run in &c.runs {
        let run = Run::decode(run).unwrap();
        let entries = run.entries().map(Result::unwrap);
        leaves.extend(entries.map(|e| leaf_hash(e.header_bytes).to_string()));
    }
    let mut cases = vec![good(
        "five entries, two payloads outside",
        &first,
        &pieces,
        &leaves,
        &c.root,
    )];
    let mut bad = |name: &str, fault: &str, bytes: &[u8]| {
        cases
            .push(json!({ "name": name, "good": false, "fault": fault, "archive": packed(bytes) }));
    };
    let first_lines = |line: Vec<u8>| whole(&line, &pieces);
    let runs_only = |items: &[Vec<u8>]| whole(&first, &[(3, items.concat())]);
    let with = |list: &[&[Vec<u8>]]| {
        let sections = list.iter().map(|items| (4, items.concat()));
        whole(
            &first,
            &std::iter::once(runs.clone())
                .chain(sections)
                .collect::<Vec<_>>(),
        )
    };
    let version_2 = String::from_utf8(first.clone())
        .unwrap()
        .replacen("v1", "v2", 1);
    let cut_root = base64(c.root.as_bytes()).replace('=', "");
    let other_size = |size: &str| first_lines(title("archived", size, &c.root));
    bad("version 2", "Version", &first_lines(version_2.into_bytes()));
    bad(
        "another first line",
        "NotAnArchive",
        b"converge-ledger/head/v1\n",
    );
    bad("size with a zero in front", "Header", &other_size("05"));
    bad("size 0", "Header", &other_size("0"));
    bad("size of 2^62", "Header", &other_size("4611686018427387904"));
    bad("a size smaller than the entries", "Size", &other_size("4"));
    bad("a size larger than the entries", "Size", &other_size("6"));
    let control = title("archi\u{7f}ved", "5", &c.root);
    bad(
        "a name with a control character",
        "Header",
        &first_lines(control),
    );
    let text = String::from_utf8(first.clone()).unwrap();
    let unpadded = text.replace(&format!("{cut_root}="), &cut_root);
    bad(
        "a root without its padding",
        "Header",
        &first_lines(unpadded.into_bytes()),
    );
    let another = title("archived", "5", &hash::content(b"another"));
    bad("another root", "Root", &first_lines(another));
    let mut renamed = honest.clone();
    renamed[35] ^= 0x20;
    bad("another name, the end as it was", "End", &renamed);

    bad("empty", "Truncated", b"");
    bad(
        "first lines without their last line feed",
        "Truncated",
        &first[..first.len() - 1],
    );
    bad("nothing but the first lines", "Truncated", &first);
    bad("cut by one byte", "Truncated", &honest[..honest.len() - 1]);
    bad("without its end", "Truncated", &honest[..honest.len() - 96]);
    bad(
        "one byte too many",
        "TrailingBytes",
        &[&honest[..], &[0]].concat(),
    );
    let mut changed = honest.clone();
    changed[first.len() + 48 + 60] ^= 1;
    bad("a changed byte in a run", "SectionHash", &changed);
    let mut kind = honest.clone();
    kind[first.len()] = 7;
    bad("a changed kind", "SectionHash", &kind);

    for (name, fault, front) in [
        (
            "kind 1, a signed archive",
            "Signed",
            [1, 1, 0, 0, 0, 0, 0, 0],
        ),
        (
            "kind 2, a signed archive",
            "Signed",
            [2, 1, 0, 0, 0, 0, 0, 0],
        ),
        ("kind 5, unknown", "Kind", [5, 1, 0, 0, 0, 0, 0, 0]),
        (
            "version 2 of a section",
            "SectionVersion",
            [3, 2, 0, 0, 0, 0, 0, 0],
        ),
        (
            "a compressed section",
            "Compressed",
            [3, 1, 1, 0, 0, 0, 0, 0],
        ),
        ("an unknown flag", "Flags", [3, 1, 2, 0, 0, 0, 0, 0]),
        ("a reserved byte set", "Reserved", [3, 1, 0, 0, 0, 0, 0, 1]),
    ] {
        let other = section(front, &runs.1);
        let sections = [&first[..], &other, &plain(&payloads)].concat();
        bad(name, fault, &ended(&sections, SIZE, 2));
    }
    let mut long = plain(&runs)[..48].to_vec();
    long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    bad(
        "a section of 2^64 - 1 bytes",
        "TooLong",
        &[&first[..], &long].concat(),
    );

    bad(
        "payloads before their runs",
        "Order",
        &whole(&first, &[payloads.clone(), runs.clone()]),
    );
    bad("payloads twice", "Order", &with(&[&items, &items]));
    bad("no sections", "Order", &whole(&first, &[]));
    bad("a section of runs without runs", "Section", &runs_only(&[]));
    let list: Vec<Vec<u8>> = c.runs.iter().map(|run| with_length(run)).collect();
    bad(
        "runs in the wrong order",
        "Run",
        &runs_only(&[list[1].clone(), list[0].clone()]),
    );
    let cut = vec![runs.1[..runs.1.len() - 1].to_vec()];
    bad("a run longer than its section", "Section", &runs_only(&cut));
    let two = [
        (3, list[0].clone()),
        (4, items[0].clone()),
        (3, list[1].clone()),
    ];
    bad(
        "two sections of runs where one has room",
        "Underfull",
        &whole(&first, &two),
    );
    let split = with(&[&items[..1], &items[1..]]);
    bad(
        "two sections of payloads where one has room",
        "Underfull",
        &split,
    );
    bad(
        "no payloads",
        "MissingPayload",
        &whole(&first, std::slice::from_ref(&runs)),
    );
    bad("a payload missing", "MissingPayload", &with(&[&items[..1]]));
    let swapped = [items[1].clone(), items[0].clone()];
    bad(
        "payloads in another order",
        "MissingPayload",
        &with(&[&swapped]),
    );
    let surplus = [items.clone(), vec![payload_item(&[9; 5000])]].concat();
    bad(
        "a payload that no entry has",
        "SurplusPayload",
        &with(&[&surplus]),
    );
    let doubled = [items.clone(), vec![items[0].clone()]].concat();
    bad("a payload twice", "SurplusPayload", &with(&[&doubled]));
    let mut other = items.clone();
    other[1][36] ^= 1;
    bad("a payload with another byte", "Payload", &with(&[&other]));
    let mut shorter = items.clone();
    shorter[1][32] -= 1;
    bad(
        "a payload with another length",
        "PayloadLength",
        &with(&[&shorter]),
    );

    let before = &honest[..honest.len() - 96];
    bad(
        "an end with another number of entries",
        "End",
        &ended(before, 6, 2),
    );
    bad(
        "an end with another number of sections",
        "End",
        &ended(before, SIZE, 3),
    );
    let foreign = ended(&whole(&first, &[]), SIZE, 2);
    let foreign = [before, &foreign[foreign.len() - 96..]].concat();
    bad("the end of other bytes", "End", &foreign);
    file("06-archive", cases)
}

/// The name of a fault, without what it carries.
fn name_of(fault: &impl std::fmt::Debug) -> String {
    let text = format!("{fault:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next();
    name.unwrap_or_default().to_owned()
}

pub(crate) fn judge_archive(case: &Value) -> bool {
    let bytes = unpacked(&case["archive"]);
    let verified = match verify(bytes.as_slice(), Some(3)) {
        Ok(verified) => verified,
        Err(error) => {
            assert_eq!(case["fault"], name_of(&error.fault), "{}", case["name"]);
            return false;
        }
    };
    let mut state = Accumulator::default();
    let mut leaves = Vec::new();
    for part in Parts::new(bytes.as_slice(), &verified, 0) {
        for run in part.unwrap().runs {
            let run = Run::decode(&run).unwrap();
            let mut on_leaf = |leaf: &Hash| leaves.push(Value::from(leaf.to_string()));
            let folded = state.extend(&run, |_, leaf| on_leaf(leaf), |_, _| ());
            folded.unwrap();
        }
    }
    let parts = case["parts"].as_array().unwrap();
    assert_eq!(verified.sections().len() + 1, parts.len());
    for (part, hash) in parts[1..].iter().zip(verified.sections()) {
        let at = usize::try_from(part["at"].as_u64().unwrap()).unwrap();
        let length = usize::try_from(part["bytes"].as_u64().unwrap()).unwrap();
        let (header, body) = bytes[at..at + length].split_at(48);
        assert_eq!(hash::content(&[&header[..16], body].concat()), *hash);
        assert_eq!(&header[16..], hash.as_bytes());
    }
    verified.id() == &ContextId::new(case["context"].as_str().unwrap()).unwrap()
        && verified.size() == case["size"].as_u64().unwrap()
        && verified.root().to_string() == case["root"].as_str().unwrap()
        && verified.newest_ns() == case["newest_ns"].as_u64().unwrap()
        && verified.root() == state.root()
        && case["leaves"].as_array() == Some(&leaves)
}
