//! Language-neutral vectors (`tests/vectors/*.json`), cited by `spec/`.
//!
//! `cargo test --test vectors -- --ignored` writes them anew from fixed inputs;
//! a change in the files is a change of a format and is reviewed as one. The
//! other tests check every vector, good and bad, against the public functions.

// Test code outside of #[test] functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vector_cases;

use serde_json::Value;
use std::fs;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(format!("{name}.json"))
}

fn committed(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).expect("vectors are committed");
    serde_json::from_str(&text).expect("vectors are JSON")
}

/// The files say what the code makes from the same inputs, byte for byte.
#[test]
fn files_are_what_the_code_makes() {
    for (name, made) in vector_cases::all() {
        assert_eq!(committed(name), made, "{name}.json");
    }
}

#[test]
#[ignore = "writes tests/vectors"]
fn regenerate() {
    for (name, made) in vector_cases::all() {
        let mut text = serde_json::to_string_pretty(&made).unwrap();
        text.push('\n');
        fs::write(path(name), text).unwrap();
    }
}

#[test]
fn good_vectors_are_taken_and_bad_ones_refused() {
    let (mut good, mut bad) = (0, 0);
    for (name, _) in vector_cases::all() {
        let file = committed(name);
        let cases = file["cases"].as_array().expect("cases");
        for case in cases {
            let verdict = vector_cases::judge(name, case);
            let expected = case["good"].as_bool().expect("good");
            assert_eq!(verdict, expected, "{name}: {}", case["name"]);
            if expected {
                good += 1;
            } else {
                bad += 1;
            }
        }
    }
    assert!(good >= 60, "{good} good vectors");
    assert!(bad >= 60, "{bad} bad vectors");
}

mod store {
    use std::sync::Arc;

    use converge_ledger::entry::{ContextId, Draft};
    use converge_ledger::note::{OriginName, SignerKey};
    use converge_ledger::store::disk::MemoryDisk;
    use converge_ledger::store::{
        AuditReport, Clock, Store, StoreOptions, StoreRole, audit, create,
    };
    use serde_json::{Value, json};

    use super::vector_cases::{hex, unhex};
    use super::{committed, path};

    #[derive(Debug)]
    struct Fixed;

    impl Clock for Fixed {
        fn now_ns(&self) -> u64 {
            1_700_000_000_000_000_000
        }
    }

    const FILES: [&str; 3] = ["log/0000000001.seg", "log/0000000002.seg", "head.note"];

    /// A small whole store. Its segments have random keys, so it is made once.
    #[test]
    #[ignore = "writes tests/vectors/store.json if it is not there"]
    fn make() {
        if path("store").exists() {
            return;
        }
        let signer = SignerKey::from_seed(OriginName::new("vectors.example").unwrap(), &[1; 32]);
        let disk = MemoryDisk::new();
        create(&disk, StoreRole::Own, signer.verifier()).unwrap();
        let options = StoreOptions {
            segment_bytes: 8192,
            reserve_bytes: 0,
            ..StoreOptions::new(Arc::new(Fixed))
        };
        let store = Store::open(Arc::new(disk.clone()), options, Some(signer))
            .unwrap()
            .store;
        let draft = |payload: &[u8]| Draft::new("facts", payload).unwrap();
        let id = |name: &str| ContextId::new(name).unwrap();
        store
            .append(vec![
                (id("a"), draft(b"one")),
                (id("b"), draft(b"uno")),
                (id("a"), draft(b"two")),
            ])
            .unwrap();
        store.publish().unwrap();
        store.append(vec![(id("a"), draft(&[7; 5000]))]).unwrap();
        store.append(vec![(id("b"), draft(&[8; 3000]))]).unwrap();
        store.close().unwrap();
        let files: serde_json::Map<String, Value> = FILES
            .iter()
            .map(|name| ((*name).to_owned(), hex(&disk.bytes(name).unwrap()).into()))
            .collect();
        let report = audit(&disk, &mut |_| ()).unwrap();
        assert_eq!(report.first_bad, None);
        let made = json!({ "spec": "05-store", "version": 1, "origin_seed": hex(&[1; 32]),
            "vkey": report.origin, "contexts": report.contexts, "entries": report.entries,
            "term_and_epoch": [report.head.unwrap().0, report.head.unwrap().1],
            "directory_root": report.directory_root.unwrap().to_string(), "files": files });
        let mut text = serde_json::to_string_pretty(&made).unwrap();
        text.push('\n');
        std::fs::write(path("store"), text).unwrap();
    }

    fn disk(file: &Value) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for name in FILES {
            disk.set_bytes(name, unhex(&file["files"][name]));
        }
        disk
    }

    fn audited(disk: &MemoryDisk) -> Option<AuditReport> {
        let report = audit(disk, &mut |_| ()).ok()?;
        report.first_bad.is_none().then_some(report)
    }

    #[test]
    fn the_log_audits_as_it_says() {
        let file = committed("store");
        let report = audited(&disk(&file)).expect("a clean audit");
        assert_eq!(report.origin, file["vkey"].as_str().unwrap());
        assert_eq!(report.contexts, file["contexts"].as_u64().unwrap());
        assert_eq!(report.entries, file["entries"].as_u64().unwrap());
        let (term, epoch) = report.head.unwrap();
        assert_eq!(json!([term, epoch]), file["term_and_epoch"]);
        assert_eq!(
            report.directory_root.unwrap().to_string(),
            file["directory_root"].as_str().unwrap()
        );
    }

    /// Every byte of the log below its last mark matters.
    #[test]
    fn a_changed_byte_anywhere_is_found() {
        let file = committed("store");
        for name in FILES {
            let bytes = unhex(&file["files"][name]);
            let last_mark = if name == FILES[1] { 64 } else { 0 };
            for at in 0..bytes.len() - last_mark {
                let disk = disk(&file);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                disk.set_bytes(name, changed);
                assert!(audited(&disk).is_none(), "{name} byte {at}");
            }
        }
    }
}
