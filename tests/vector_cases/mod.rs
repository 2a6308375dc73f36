//! The cases behind `tests/vectors/*.json`: how each is made from fixed inputs,
//! and how each is judged from its text alone.

mod archive;
mod evidence;
mod formats;
mod index;
mod index_file;
mod index_rows;
mod log;
mod messages;
// The builder that the tests inside of the crate use: it names nothing but
// public items, by paths that the root of this crate has as well.
#[path = "../../src/proof/testing.rs"]
#[allow(dead_code)]
mod origin;
mod proof;
mod proofs;
mod spans;
mod trust;

pub(crate) use index::{LOG as INDEXED, row_of};
pub(crate) use index_file::IndexFile;
pub(crate) use index_rows::{index_keys, rows_of};
pub(crate) use log::{disk_of, log_of, options, records_of, segment_keys};

use std::collections::BTreeSet;

use converge_ledger::hash::Hash;
use serde_json::{Value, json};

/// Every file that is made from fixed inputs: name and content.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("hashes", formats::hashes()),
        ("entry", formats::entries()),
        ("run", formats::runs()),
        ("span", spans::spans()),
        ("seen", spans::seen()),
        ("wire", messages::wire()),
        ("tree", proofs::tree()),
        ("tiles", proofs::tiles()),
        ("note", trust::notes()),
        ("directory", trust::directory()),
        ("proof", proof::proofs()),
        ("evidence", evidence::evidence()),
        ("log", log::log()),
        ("index", index::index()),
        ("archive", archive::archives()),
    ]
}

/// True if a case verifies.
pub(crate) fn judge(file: &str, case: &Value) -> bool {
    match file {
        "hashes" => formats::judge_hash(case),
        "entry" => formats::judge_entry(case),
        "run" => formats::judge_run(case),
        "span" => spans::judge_span(case),
        "seen" => spans::judge_seen(case),
        "wire" => messages::judge_wire(case),
        "tree" => proofs::judge_tree(case),
        "tiles" => proofs::judge_tiles(case),
        "note" => trust::judge_note(case),
        "directory" => trust::judge_directory(case),
        "proof" | "evidence" => proof::judge_file(case),
        "log" => log::judge_log(case),
        "index" => index::judge_index(case),
        "archive" => archive::judge_archive(case),
        _ => panic!("no such file: {file}"),
    }
}

/// A file of cases. Names are unique, and whatever must be refused says why: by
/// a reason of its own, or by the last part of its name.
fn file(chapter: &str, mut cases: Vec<Value>) -> Value {
    let mut names = BTreeSet::new();
    for case in &mut cases {
        let name = case["name"].as_str().expect("a name").to_owned();
        if case["good"] == false && case["reason"].is_null() {
            let reason = name.rsplit(", ").next().unwrap_or(&name);
            case["reason"] = reason.into();
        }
        assert!(names.insert(name), "{}", case["name"]);
    }
    json!({ "spec": chapter, "version": 1, "cases": cases })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hex text").as_bytes();
    let digit = |c: u8| u8::try_from((c as char).to_digit(16).expect("hex digit")).unwrap();
    text.chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn hash(text: &Value) -> Hash {
    Hash::from_hex(text.as_str().expect("a hash")).expect("64 digits")
}

fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().expect("hashes").iter().map(hash).collect()
}

fn texts(list: &[Hash]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap_or_else(|| panic!("{field}"))
}

/// Variants of a good byte string that must be refused: cut, longer, and with
/// one byte changed at `at`.
fn spoiled(name: &str, field: &str, good: &[u8], at: &[(usize, &str)]) -> Vec<Value> {
    let mut cases = vec![
        json!({ "name": format!("{name}, cut by one byte"), "good": false,
                field: hex(&good[..good.len() - 1]) }),
        json!({ "name": format!("{name}, one byte too many"), "good": false,
                field: hex(&[good, &[0]].concat()) }),
        json!({ "name": format!("{name}, empty"), "good": false, field: "" }),
    ];
    for (offset, what) in at {
        let mut bytes = good.to_vec();
        bytes[*offset] ^= 0x80;
        cases.push(json!({ "name": format!("{name}, {what}"), "good": false, field: hex(&bytes) }));
    }
    cases
}
