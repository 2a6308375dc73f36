//! Whole logs (`store.json`, `mirror.json`), their records as `spec/05-store.md`
//! reads them, and what an audit says of them when they are changed.
//!
//! The reader here is written from the chapter with nothing but the hash
//! functions, so it is a second opinion on the one in the crate.

use std::collections::BTreeMap;
use std::sync::Arc;

use converge_ledger::entry::leaf_hash;
use converge_ledger::hash;
use converge_ledger::head::{Head, sign_head};
use converge_ledger::note::{Note, OriginName, SignerKey};
use converge_ledger::run::Run;
use converge_ledger::store::disk::MemoryDisk;
use converge_ledger::store::{Clock, Opened, Store, StoreOptions, audit};
use converge_ledger::tree::Frontier;
use serde_json::{Value, json};

use super::formats::run_of;
use super::{file, hex, number, unhex};

const SEGMENT_1: &str = "log/0000000001.seg";
const SEGMENT_2: &str = "log/0000000002.seg";
const NOTE: &str = "head.note";
/// Opening does not hash payloads again, reading them and audits do.
const UNREAD: &str = "a payload that is not its hash's";

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The files of a committed log.
pub(crate) fn log_of(name: &str) -> Files {
    let log = crate::committed(name);
    let files = log["files"].as_object().expect("files");
    let bytes = |(name, text): (&String, &Value)| (name.clone(), unhex(text));
    files.iter().map(bytes).collect()
}

fn le(bytes: &[u8]) -> u64 {
    let byte = |value, byte: &u8| value << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, byte)
}

/// The keys of a segment's checks.
struct Keys {
    check: [u8; 32],
    body: [u8; 32],
    chain: [u8; 32],
}

impl Keys {
    fn of(segment: &[u8]) -> Self {
        let key = |what: &str| {
            hash::derive_key(&format!("converge-ledger v1 log-{what}"), &segment[32..64])
        };
        Self {
            check: key("check"),
            body: key("body"),
            chain: key("chain"),
        }
    }

    /// Header check, body tag and chain of the record with these fields.
    fn checks(&self, chain: &[u8], position: u64, fields: &[u8], padded: &[u8]) -> [Vec<u8>; 3] {
        let keyed = |key, parts: &[&[u8]], len: usize| {
            hash::keyed_with(key, &parts.concat()).as_bytes()[..len].to_vec()
        };
        let at = position.to_le_bytes();
        let check = keyed(&self.check, &[&at, fields], 8);
        let tag = keyed(&self.body, &[&at, fields, padded], 16);
        let chain = keyed(&self.chain, &[chain, &at, fields, &tag], 16);
        [check, tag, chain]
    }

    fn start(&self, segment: &[u8]) -> Vec<u8> {
        hash::keyed_with(&self.chain, &segment[..128]).as_bytes()[..16].to_vec()
    }
}

/// The keys of a log's first segment and the chain before its first record, as
/// hexadecimal text.
pub(crate) fn segment_keys(of: &str) -> Vec<String> {
    let segment = &log_of(of)[SEGMENT_1];
    let keys = Keys::of(segment);
    let all = [&keys.check[..], &keys.body, &keys.chain];
    let mut all: Vec<String> = all.into_iter().map(hex).collect();
    all.push(hex(&keys.start(segment)));
    all
}

/// The records of a log, every check recomputed.
pub(crate) fn records_of(files: &Files) -> Vec<Value> {
    let mut records = Vec::new();
    for (number, segment) in (1u64..).zip(files.range("log/".to_owned()..).map(|f| f.1)) {
        let keys = Keys::of(segment);
        let (mut at, mut chain) = (128, keys.start(segment));
        while at < segment.len() {
            let header = &segment[at..at + 64];
            let (fields, body_len) = (&header[..24], usize::try_from(le(&header[8..12])).unwrap());
            let end = at + 64 + body_len.next_multiple_of(64);
            let position = number << 32 | at as u64;
            let made = keys.checks(&chain, position, fields, &segment[at + 64..end]);
            assert_eq!(made.concat(), header[24..], "{number} {at}");
            records.push(json!({ "segment": number, "offset": at, "type": header[4],
                "flags": header[5], "body_bytes": body_len, "index": le(&header[12..16]),
                "synced_through": le(&header[16..24]), "header_check": hex(&made[0]),
                "body_tag": hex(&made[1]), "chain": hex(&made[2]) }));
            [_, _, chain] = made;
            at = end;
        }
    }
    records
}

/// A group that chains on to the end of the last segment.
fn forged(files: &Files, synced_through: u64, records: &[(u8, u8, &[u8])]) -> Value {
    let (name, segment) = files.range("log/".to_owned()..).next_back().unwrap();
    let keys = Keys::of(segment);
    let last = records_of(files).pop().unwrap();
    let mut chain = unhex(&last["chain"]);
    let mut bytes = Vec::new();
    for (index, (kind, flags, body)) in (0u32..).zip(records) {
        let mut fields = b"CLR1".to_vec();
        fields.extend([*kind, *flags, 0, 0]);
        fields.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        fields.extend(index.to_le_bytes());
        fields.extend(synced_through.to_le_bytes());
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(64), 0);
        let position = number(&last, "segment") << 32 | (segment.len() + bytes.len()) as u64;
        let made = keys.checks(&chain, position, &fields, &padded);
        bytes.extend([fields, made.concat(), padded].concat());
        [_, _, chain] = made;
    }
    append(name, &bytes)
}

fn append(file: &str, bytes: &[u8]) -> Value {
    json!({ "file": file, "append": hex(bytes) })
}

fn put(file: &str, at: usize, bytes: &[u8]) -> Value {
    json!({ "file": file, "at": at, "put": hex(bytes) })
}

fn cut(file: &str, to: usize) -> Value {
    json!({ "file": file, "cut_to": to })
}

fn remove(file: &str) -> Value {
    json!({ "file": file, "remove": true })
}

/// A segment header with other bytes at `at`, and the hash that belongs to it.
fn header(segment: &[u8], at: usize, bytes: &[u8]) -> Value {
    let mut header = segment[..96].to_vec();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    let check = hash::content(&header);
    put(SEGMENT_2, 0, &[&header, &check.as_bytes()[..]].concat())
}

type Changed = (&'static str, &'static str, Vec<Value>);

/// What is still a whole log, with the bytes a writer cuts when it opens it.
fn sound(files: &Files) -> Vec<(&'static str, u64, Vec<Value>)> {
    let len = files[SEGMENT_2].len();
    let mark = &files[SEGMENT_2][len - 64..];
    vec![
        ("as it is", 0, vec![]),
        ("without head.note", 0, vec![remove(NOTE)]),
        ("without its last mark", 0, vec![cut(SEGMENT_2, len - 64)]),
        (
            "with a reserve of zeros",
            0,
            vec![append(SEGMENT_2, &[0; 256])],
        ),
        (
            "a torn tail of 40 bytes",
            40,
            vec![append(SEGMENT_2, &[7; 40])],
        ),
        (
            "a record that belongs elsewhere behind the end",
            64,
            vec![append(SEGMENT_2, mark)],
        ),
        (
            "a group without its commit mark behind the end",
            64,
            vec![forged(files, 0, &[(10, 1, &[])])],
        ),
        (
            "a group that continues it",
            0,
            vec![forged(files, 0, &[(10, 3, &[])])],
        ),
        (
            "a seal, and no segment after it",
            0,
            vec![forged(files, 0, &[(11, 3, &[])])],
        ),
        // What cannot be told from a log that ends there.
        (
            "its last head and head.note are gone",
            0,
            vec![cut(SEGMENT_2, 3328), remove(NOTE)],
        ),
        (
            "its last segment and head.note are gone",
            0,
            vec![remove(SEGMENT_2), remove(NOTE)],
        ),
    ]
}

/// Bytes that are other than they were, or gone.
fn broken(files: &Files) -> Vec<Changed> {
    let second = &files[SEGMENT_2];
    let torn = "a bad record below what vouches for it";
    let line = files[NOTE].iter().position(|b| *b == b'\n').unwrap() + 1;
    let note = Note::parse(&files[NOTE][line..]).unwrap();
    let mut head = Head::parse(note.text()).unwrap();
    head.time_ns += 1;
    let signer = SignerKey::from_seed(head.origin.clone(), &[1; 32]);
    let other = sign_head(&head, &signer).unwrap();
    vec![
        (
            "a byte of an entry is another",
            torn,
            vec![put(SEGMENT_2, 400, &[1])],
        ),
        (
            "a record header is zeros",
            torn,
            vec![put(SEGMENT_1, 1408, &[0; 64])],
        ),
        (
            "segment 1 is gone",
            "segment missing",
            vec![remove(SEGMENT_1)],
        ),
        (
            "segment 2 is gone",
            "head.note vouches for it",
            vec![remove(SEGMENT_2)],
        ),
        (
            "segment 2 is cut in its header",
            "header cut",
            vec![cut(SEGMENT_2, 64)],
        ),
        (
            "segment 2 is of another store",
            "store id",
            vec![header(second, 16, &[0; 16])],
        ),
        (
            "segment 2 continues another chain",
            "chain",
            vec![header(second, 64, &[0; 16])],
        ),
        (
            "segment 2 continues another end",
            "previous end",
            vec![header(second, 80, &[0; 8])],
        ),
        (
            "segment 2 says it is 3",
            "number",
            vec![header(second, 12, &[3])],
        ),
        (
            "segment 2 has version 2",
            "version",
            vec![header(second, 8, &[2])],
        ),
        (
            "segment 2 has a reserved bit",
            "reserved",
            vec![header(second, 90, &[1])],
        ),
        (
            "segment 2 has another hash",
            "BLAKE3 of bytes 0..96",
            vec![put(SEGMENT_2, 96, &[0; 32])],
        ),
        (
            "its last head is gone",
            "head.note vouches for it",
            vec![cut(SEGMENT_2, 3328)],
        ),
        (
            "head.note holds another text of its head",
            "text",
            vec![cut(NOTE, line), append(NOTE, &other)],
        ),
        (
            "head.note names another chain",
            "chain",
            vec![put(NOTE, 11, b"ffff")],
        ),
        (
            "head.note names a place within a group",
            "no group ends there",
            vec![put(NOTE, 6, b"3649")],
        ),
        (
            "head.note without its first line",
            "unreadable",
            vec![put(NOTE, 0, b"x")],
        ),
    ]
}

/// Groups that are whole and chain on, and say what cannot be.
fn untrue(files: &Files) -> Vec<Changed> {
    let end = 2 << 32 | files[SEGMENT_2].len() as u64;
    let context = |number: u64, id: &[u8]| [&number.to_le_bytes()[..], id].concat();
    let run = |number: u64, first| [&number.to_le_bytes()[..], &run_of(first, 1)].concat();
    let named = |number: u64, size: u64, id: &[u8]| {
        let fields = [number, size].map(u64::to_le_bytes).concat();
        [&fields[..], &[0; 32], id].concat()
    };
    // One entry under number 3, and what is to name it.
    let first = run(3, 1);
    let root = {
        let mut frontier = Frontier::new();
        let headers = Run::decode(&first[8..]).unwrap();
        for header in headers.headers() {
            frontier.append(leaf_hash(header)).unwrap();
        }
        frontier.root()
    };
    let loaded = |name: &[u8]| vec![forged(files, 0, &[(3, 1, &first), (12, 2, name)])];
    let one = |kind: u8, body: &[u8]| vec![forged(files, 0, &[(kind, 3, body)])];
    // The first head: its record begins at 1088 of segment 1.
    let head = &files[SEGMENT_1][1088 + 64..1088 + 64 + 235];
    let covers_end = [&end.to_le_bytes()[..], &head[8..]].concat();
    vec![
        (
            "a group that vouches for itself",
            "synced_through above its start",
            vec![forged(files, end + 64, &[(10, 3, &[])])],
        ),
        ("a record of type 14", "unknown type", one(14, &[])),
        ("a note record", "of mirrors only", one(8, &head[8..])),
        ("an evidence record", "of mirrors only", one(9, b"evidence")),
        ("a resolved record", "of mirrors only", one(13, &[0; 64])),
        (
            "a second store record",
            "only the first record",
            one(1, &[1, 1]),
        ),
        (
            "a context named twice",
            "named before",
            one(2, &context(3, b"a")),
        ),
        (
            "a context number left out",
            "not the next number",
            one(2, &context(4, b"c")),
        ),
        (
            "a context id with a line feed",
            "control character",
            one(2, &context(3, b"\n")),
        ),
        ("a run of no context", "context unknown", one(3, &run(4, 1))),
        (
            "what is loaded begins at entry 2",
            "sequence",
            one(3, &run(3, 2)),
        ),
        (
            "a name for what is named already",
            "named before",
            one(12, &named(1, 3, b"c")),
        ),
        (
            "a name for what was never loaded",
            "context unknown",
            one(12, &named(3, 1, b"c")),
        ),
        (
            "a name that says another size",
            "loaded size",
            loaded(&named(3, 2, b"c")),
        ),
        (
            "a name that says another root",
            "loaded root",
            loaded(&named(3, 1, b"c")),
        ),
        (
            "a name that another context has",
            "named before",
            loaded(&[&named(3, 1, b"")[..16], root.as_bytes(), b"b"].concat()),
        ),
        (
            "a name of no bytes",
            "context id",
            loaded(&[&named(3, 1, b"")[..16], root.as_bytes()].concat()),
        ),
        ("a run that leaves a gap", "sequence", one(3, &run(1, 7))),
        (
            "a run whose clock falls",
            "wall-clock time",
            one(3, &run(1, 4)),
        ),
        (UNREAD, "BLAKE3", one(4, &[0; 5000])),
        (
            "an older head once more",
            "covers another position",
            one(5, head),
        ),
        (
            "an older head for the end",
            "epochs ascend",
            one(5, &covers_end),
        ),
    ]
}

pub(crate) fn log() -> Value {
    let mut cases = Vec::new();
    for of in ["store", "mirror"] {
        cases.push(
            json!({ "name": format!("records of {of}.json"), "good": true,
            "kind": "records", "of": of, "records": records_of(&log_of(of)) }),
        );
    }
    let files = log_of("store");
    for (name, torn_bytes, edits) in sound(&files) {
        cases.push(
            json!({ "name": name, "good": true, "kind": "audit", "of": "store",
            "edits": edits, "torn_bytes": torn_bytes, "opens": true }),
        );
    }
    for (name, reason, edits) in broken(&files).into_iter().chain(untrue(&files)) {
        cases.push(
            json!({ "name": name, "good": false, "kind": "audit", "of": "store",
            "edits": edits, "reason": reason, "opens": name == UNREAD }),
        );
    }
    let mirror = log_of("mirror");
    let openings = |epoch: u8| {
        let mut part = vec![1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        part.extend([
            epoch, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'a', 9, 0, 0, 0, 0, 0, 0, 0,
        ]);
        part.extend([5; 32]);
        part
    };
    let case = |name: &str, good: bool, edits: Vec<Value>| json!({ "name": name, "good": good, "kind": "audit", "of": "mirror", "edits": edits });
    cases.push(case("a mirror as it is", true, vec![]));
    let loose = forged(&mirror, 0, &[(6, 3, &openings(9))]);
    cases.push(case(
        "openings whose seen head never came",
        true,
        vec![loose],
    ));
    let mut zero = openings(9);
    zero[4] = 0;
    let none = forged(&mirror, 0, &[(6, 3, &zero)]);
    cases.push(case("openings that count none", false, vec![none]));
    file("05-store", cases)
}

fn edited(case: &Value) -> Files {
    let mut files = log_of(case["of"].as_str().unwrap());
    for edit in case["edits"].as_array().unwrap() {
        let name = edit["file"].as_str().unwrap();
        if edit["remove"] == true {
            files.remove(name).unwrap();
            continue;
        }
        let bytes = files.get_mut(name).unwrap();
        if let Some(to) = edit["cut_to"].as_u64() {
            bytes.truncate(usize::try_from(to).unwrap());
        } else if edit["append"].is_string() {
            bytes.extend(unhex(&edit["append"]));
        } else {
            let (at, new) = (
                usize::try_from(number(edit, "at")).unwrap(),
                unhex(&edit["put"]),
            );
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
    }
    files
}

pub(crate) fn disk_of(files: &Files) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (name, bytes) in files {
        disk.set_bytes(name, bytes.clone());
    }
    disk
}

/// Stands still.
#[derive(Debug)]
pub(crate) struct Fixed;

impl Clock for Fixed {
    fn now_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 8192,
        reserve_bytes: 0,
        ..StoreOptions::new(Arc::new(Fixed))
    }
}

fn opened(disk: &MemoryDisk) -> Option<Opened> {
    let signer = SignerKey::from_seed(OriginName::new("vectors.example").unwrap(), &[1; 32]);
    Store::open(Arc::new(disk.clone()), options(), Some(signer)).ok()
}

/// An audit, and opening for writing, which reads the same log.
pub(crate) fn judge_log(case: &Value) -> bool {
    if case["kind"] == "records" {
        let records = records_of(&log_of(case["of"].as_str().unwrap()));
        return case["records"].as_array() == Some(&records);
    }
    let disk = disk_of(&edited(case));
    let clean = audit(&disk, &mut |_| ()).is_ok_and(|report| report.first_bad.is_none());
    if case["of"] == "store" {
        let opened = opened(&disk);
        assert_eq!(
            Some(opened.is_some()),
            case["opens"].as_bool(),
            "{}",
            case["name"]
        );
        if let Some(opened) = opened {
            assert_eq!(
                opened.torn_bytes,
                case["torn_bytes"].as_u64().unwrap_or(0),
                "{}",
                case["name"]
            );
        }
    }
    clean
}
