//! Language-neutral vectors (`tests/vectors/*.json`), cited by `spec/`.
//!
//! `cargo test --test vectors -- --ignored` writes them anew from fixed inputs;
//! a change in the files is a change of a format and is reviewed as one. The
//! other tests check every vector, good and bad, against the public functions.

// Test code outside of #[test] functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A list of cases is as long as it is.
#![allow(clippy::too_many_lines)]

mod vector_cases;

// What `vector_cases::origin` names.
use converge_ledger::{directory, entry, evidence, hash, head, note, proof, tree};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// How many good and bad cases each file has, so that none is lost unnoticed.
const COUNTS: [(&str, usize, usize); 15] = [
    ("hashes", 6, 0),
    ("entry", 9, 20),
    ("run", 3, 11),
    ("span", 6, 23),
    ("seen", 5, 26),
    ("wire", 20, 118),
    ("tree", 66, 54),
    ("tiles", 5, 11),
    ("note", 13, 26),
    ("directory", 15, 26),
    ("proof", 31, 102),
    ("evidence", 20, 79),
    ("log", 15, 40),
    ("index", 21, 68),
    ("archive", 1, 45),
];

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
    for (name, _) in vector_cases::all() {
        let (mut good, mut bad) = (0, 0);
        let file = committed(name);
        let cases = file["cases"].as_array().expect("cases");
        for case in cases {
            let verdict = vector_cases::judge(name, case);
            let expected = case["good"].as_bool().expect("good");
            assert_eq!(verdict, expected, "{name}: {}", case["name"]);
            assert_eq!(case["reason"].is_string(), !expected, "{}", case["name"]);
            if expected {
                good += 1;
            } else {
                bad += 1;
            }
        }
        let counted = COUNTS.iter().find(|counted| counted.0 == name);
        assert_eq!(counted, Some(&(name, good, bad)));
    }
    assert_eq!(COUNTS.len(), vector_cases::all().len());
}

/// Every hash, key and chain that a chapter quotes is in a vector, or follows
/// from one.
#[test]
fn chapters_quote_the_vectors() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |dir: &str| -> Vec<String> {
        let found = fs::read_dir(root.join(dir)).unwrap();
        let mut files: Vec<_> = found.map(|file| file.unwrap().path()).collect();
        files.sort();
        let files = files.into_iter().filter(|file| file.is_file());
        files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect()
    };
    let mut known = read("tests/vectors").concat();
    known.push_str(&vector_cases::segment_keys("store").concat());
    let mut quoted = 0;
    for chapter in read("spec") {
        let words = chapter.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f'));
        for word in words.filter(|word| word.len() >= 32) {
            assert!(known.contains(word), "{word}");
            quoted += 1;
        }
    }
    assert!(quoted >= 60, "{quoted}");
}

mod store {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use converge_ledger::directory::Opening;
    use converge_ledger::entry::{ContextId, Draft};
    use converge_ledger::evidence::Evidence;
    use converge_ledger::hash::{self, Hash};
    use converge_ledger::head::{Head, SignedHead, sign_head};
    use converge_ledger::ledger::{
        HistoryPart, Ingest, ReadHistory, ReadLedger, ReadMirror, SeenHead,
    };
    use converge_ledger::note::{OriginName, SignerKey};
    use converge_ledger::run::{CheckedPayload, CheckedSpan, SignedContext, encode_span};
    use converge_ledger::store::disk::{Disk, MemoryDisk};
    use converge_ledger::store::{AuditReport, Store, StoreRole, audit, create};
    use serde_json::{Value, json};

    use super::vector_cases::{disk_of, hex, log_of, options};
    use super::{committed, path};

    fn id(name: &str) -> ContextId {
        ContextId::new(name).unwrap()
    }

    fn put(store: &Store, entries: &[(&str, &[u8])]) {
        let draft = |payload: &[u8]| Draft::new("facts", payload).unwrap();
        let drafts = entries.iter().map(|(c, p)| (id(c), draft(p))).collect();
        store.append(drafts).unwrap();
    }

    fn new_store(name: &str, seed: u8, role: StoreRole) -> (MemoryDisk, Store) {
        let signer = SignerKey::from_seed(OriginName::new(name).unwrap(), &[seed; 32]);
        let disk = MemoryDisk::new();
        create(&disk, role, signer.verifier()).unwrap();
        let own = (role == StoreRole::Own).then_some(signer);
        let opened = Store::open(Arc::new(disk.clone()), options(), own).unwrap();
        (disk, opened.store)
    }

    /// Logs have random keys, so each is made once and kept.
    fn write_once(name: &str, seed: &[u8], disk: &MemoryDisk) {
        if path(name).exists() {
            return;
        }
        let segments = disk.list("log").unwrap().into_iter();
        let names = segments.map(|name| format!("log/{name}"));
        let files: serde_json::Map<String, Value> = names
            .chain(["head.note".to_owned()])
            .map(|name| (name.clone(), hex(&disk.bytes(&name).unwrap()).into()))
            .collect();
        let report = audit(disk, &mut |_| ()).unwrap();
        assert_eq!(report.first_bad, None);
        let made = json!({ "spec": "05-store", "version": 1, "origin_seed": hex(seed),
            "vkey": report.origin, "contexts": report.contexts, "entries": report.entries,
            "term_and_epoch": [report.head.unwrap().0, report.head.unwrap().1],
            "directory_root": report.directory_root.unwrap().to_string(), "files": files });
        let mut text = serde_json::to_string_pretty(&made).unwrap();
        text.push('\n');
        std::fs::write(path(name), text).unwrap();
    }

    /// A small whole store.
    #[test]
    #[ignore = "writes tests/vectors/store.json if it is not there"]
    fn make_store() {
        let (disk, store) = new_store("vectors.example", 1, StoreRole::Own);
        put(&store, &[("a", b"one"), ("b", b"uno"), ("a", b"two")]);
        store.publish().unwrap();
        put(&store, &[("a", &[7; 5000])]);
        put(&store, &[("b", &[8; 3000])]);
        store.close().unwrap();
        write_once("store", &[1; 32], &disk);
    }

    /// A mirror that caught up with an origin twice.
    #[test]
    #[ignore = "writes tests/vectors/mirror.json if it is not there"]
    fn make_mirror() {
        let (_, source) = new_store("mirrored.example", 3, StoreRole::Own);
        let (disk, mirror) = new_store("mirrored.example", 3, StoreRole::Mirror);
        put(&source, &[("a", b"one"), ("b", b"uno"), ("a", &[7; 5000])]);
        catch_up(&source, &mirror, &["b", "a"]);
        put(&source, &[("a", b"two"), ("c", b"ein")]);
        catch_up(&source, &mirror, &["a", "c"]);
        mirror.close().unwrap();
        write_once("mirror", &[3; 32], &disk);
    }

    fn catch_up(source: &Store, mirror: &Store, changed: &[&str]) {
        let head = source.publish().unwrap();
        let stored = |item| {
            let (sender, receiver) = channel();
            mirror.ingest(item, Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
        };
        let opening = |name: &&str| {
            let info = source.view().context(&id(name)).unwrap().unwrap();
            Opening {
                id: (*name).to_owned(),
                size: info.size,
                root: info.root,
            }
        };
        let mut openings: Vec<Opening> = changed.iter().map(opening).collect();
        openings.sort_by_key(Opening::path);
        stored(Ingest::Seen(SeenHead {
            head: head.clone(),
            openings: openings.clone(),
        }));
        for Opening { id, size, root } in openings {
            let id = ContextId::new(&id).unwrap();
            let own = ReadMirror::accumulator(mirror.view(), &id).unwrap();
            let runs = source.view().runs(&id, own.size(), size, 1 << 20);
            let mut span = Vec::new();
            encode_span(own.size(), size, &[], &runs.unwrap().unwrap(), &mut span);
            let signed = SignedContext { id, size, root };
            let span = CheckedSpan::verify(&own, &signed, &span).unwrap();
            let payload = |(hash, _): &(_, u32)| {
                let bytes = source.view().outside_payload(hash).unwrap().unwrap();
                CheckedPayload::new(bytes).unwrap()
            };
            let payloads = span.outside_payloads().iter().map(payload).collect();
            stored(Ingest::Span { span, payloads });
        }
        stored(Ingest::Complete(head));
    }

    /// Enough for a tile, request ids, and a payload outside its run.
    #[test]
    #[ignore = "writes tests/vectors/indexed.json if it is not there"]
    fn make_indexed() {
        let (disk, store) = new_store("indexed.example", 5, StoreRole::Own);
        let draft = |key: &str, payload: Vec<u8>, request: &str| {
            let draft = Draft::new(key, payload).unwrap();
            draft.with_request_id(request).unwrap()
        };
        let mut drafts: Vec<_> = (1..=17u8)
            .map(|n| (id("a"), draft("facts", vec![n; 3], &format!("a-{n}"))))
            .collect();
        drafts.push((id("b"), draft("facts", vec![7; 5000], "b-1")));
        store.append(drafts).unwrap();
        store.publish().unwrap();
        let drafts = vec![
            (id("a"), draft("proposals", b"two".to_vec(), "a-18")),
            (id("b"), draft("proposals", b"due".to_vec(), "")),
        ];
        store.append(drafts).unwrap();
        store.close().unwrap();
        write_once("indexed", &[5; 32], &disk);
    }

    /// A context that was loaded, one that was begun and never named, and
    /// entries behind them.
    #[test]
    #[ignore = "writes tests/vectors/loaded.json if it is not there"]
    fn make_loaded() {
        let (_, from) = new_store("elsewhere.example", 7, StoreRole::Own);
        let (disk, store) = new_store("loaded.example", 9, StoreRole::Own);
        put(&from, &[("a", b"one"), ("a", &[7; 5000])]);
        put(&from, &[("a", b"two")]);
        put(&store, &[("b", b"uno")]);
        let history = from.view().history(&id("a")).unwrap().unwrap();
        let payload =
            |hash: &Hash| CheckedPayload::new(history.outside_payload(hash).unwrap()).unwrap();
        let part = |after, hashes: &[Hash]| HistoryPart {
            runs: history.runs(after, 1).unwrap(),
            payloads: hashes.iter().map(payload).collect(),
        };
        let outside = [hash::content(&[7; 5000])];
        let mut begun = store.loader(&id("never")).unwrap();
        begun.push(part(0, &outside)).unwrap();
        let mut loader = store.loader(&id("loaded")).unwrap();
        loader.push(part(0, &outside)).unwrap();
        put(&store, &[("c", b"ein")]);
        loader.push(part(2, &[])).unwrap();
        loader.finish(history.root()).unwrap();
        put(&store, &[("loaded", b"three"), ("c", b"zwei")]);
        store.close().unwrap();
        write_once("loaded", &[9; 32], &disk);
    }

    fn key(name: &str, seed: u8) -> SignerKey {
        SignerKey::from_seed(OriginName::new(name).unwrap(), &[seed; 32])
    }

    /// A store whose key was rotated twice.
    #[test]
    #[ignore = "writes tests/vectors/rotated.json if it is not there"]
    fn make_rotated() {
        let (disk, store) = new_store("rotated.example", 11, StoreRole::Own);
        put(&store, &[("a", b"one")]);
        store.publish().unwrap();
        put(&store, &[("a", b"two")]);
        store.rotate(key("rotated.example", 12)).unwrap();
        put(&store, &[("b", b"uno")]);
        store.rotate(key("rotated.example", 13)).unwrap();
        put(&store, &[("b", b"due")]);
        store.close().unwrap();
        write_once("rotated", &[13; 32], &disk);
    }

    /// A mirror that followed a rotation, and whose origin then signed a second
    /// history.
    #[test]
    #[ignore = "writes tests/vectors/followed.json if it is not there"]
    fn make_followed() {
        let name = "followed.example";
        let (_, source) = new_store(name, 14, StoreRole::Own);
        let (disk, mirror) = new_store(name, 14, StoreRole::Mirror);
        let stored = |item| {
            let (sender, receiver) = channel();
            mirror.ingest(item, Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
        };
        put(&source, &[("a", b"one")]);
        catch_up(&source, &mirror, &["a"]);
        put(&source, &[("a", b"two")]);
        let rotation = source.rotate(key(name, 15)).unwrap();
        stored(Ingest::Rotation(rotation.clone()));
        catch_up(&source, &mirror, &["a"]);
        let head = mirror.view().head().unwrap();
        let other = Head {
            time_ns: head.head().time_ns + 1,
            ..head.head().clone()
        };
        let key = key(name, 15);
        let other = sign_head(&other, &key).unwrap();
        let other = SignedHead::open(&other, key.verifier()).unwrap();
        let evidence = Evidence::of_heads(&[rotation.note_bytes()], &[], &head, &other).unwrap();
        stored(Ingest::Evidence(evidence.clone()));
        let root = head.head().directory_root;
        mirror.resolve(evidence.hash(), root).unwrap();
        put(&source, &[("b", b"uno")]);
        catch_up(&source, &mirror, &["b"]);
        mirror.close().unwrap();
        write_once("followed", &[15; 32], &disk);
    }

    fn audited(disk: &MemoryDisk) -> Option<AuditReport> {
        let report = audit(disk, &mut |_| ()).ok()?;
        report.first_bad.is_none().then_some(report)
    }

    #[test]
    fn the_logs_audit_as_they_say() {
        for name in [
            "store", "mirror", "indexed", "loaded", "rotated", "followed",
        ] {
            let file = committed(name);
            let report = audited(&disk_of(&log_of(name))).expect("a clean audit");
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
    }

    /// Every byte of the log below its last mark matters.
    #[test]
    fn a_changed_byte_anywhere_is_found() {
        for name in [
            "store", "mirror", "indexed", "loaded", "rotated", "followed",
        ] {
            let files = log_of(name);
            let last = files.keys().next_back().unwrap();
            assert!(audited(&disk_of(&files)).is_some());
            for (file, bytes) in &files {
                let last_mark = if file == last { 64 } else { 0 };
                for at in 0..bytes.len() - last_mark {
                    let mut changed = files.clone();
                    changed.get_mut(file).unwrap()[at] ^= 1 << (at % 8);
                    assert!(audited(&disk_of(&changed)).is_none(), "{name}: {file} {at}");
                }
            }
        }
    }
}

mod index {
    use std::sync::Arc;

    use converge_ledger::entry::{ContextId, Draft};
    use converge_ledger::hash::Hash;
    use converge_ledger::head::HeadOrder;
    use converge_ledger::ledger::ReadLedger;
    use converge_ledger::note::{OriginName, SignerKey};
    use converge_ledger::store::disk::{Disk, MemoryDisk};
    use converge_ledger::store::{Opened, PageLimits, Store, StoreError};

    use super::vector_cases::{
        INDEXED, IndexFile, disk_of, index_keys, log_of, options, records_of, row_of, rows_of,
    };
    use super::{committed, vector_cases::unhex};

    const FILE: &str = "index.redb";

    /// The log on a disk, opened by whoever may write it.
    fn open(log: &str, disk: &MemoryDisk) -> Result<Opened, StoreError> {
        let file = committed(log);
        let seed: [u8; 32] = unhex(&file["origin_seed"]).try_into().unwrap();
        let vkey = file["vkey"].as_str().unwrap();
        let name = OriginName::new(vkey.split('+').next().unwrap()).unwrap();
        let mirror = matches!(log, "mirror" | "followed");
        let signer = (!mirror).then(|| SignerKey::from_seed(name, &seed));
        Store::open(Arc::new(disk.clone()), options(), signer)
    }

    /// The log on a disk, with the index that closing leaves.
    fn with_index(log: &str) -> MemoryDisk {
        let disk = disk_of(&log_of(log));
        let opened = open(log, &disk).unwrap();
        opened.store.close().unwrap();
        disk
    }

    fn index_of(log: &str, disk: &MemoryDisk) -> IndexFile {
        IndexFile::open(index_keys(log), &disk.bytes(FILE).expect("an index"))
    }

    #[test]
    fn the_index_holds_what_the_chapter_makes_of_the_log() {
        for log in [INDEXED, "store", "mirror", "loaded", "rotated", "followed"] {
            let disk = with_index(log);
            assert_eq!(index_of(log, &disk).rows(), rows_of(log), "{log}");
            let again = open(log, &disk).unwrap();
            assert_eq!(again.index_discarded, None);
            assert_eq!(again.bytes_read, 64, "{log}: nothing but the mark");
        }
    }

    /// Asks for everything, so that every table is read.
    fn ask_everything(store: &Store) {
        let view = store.view();
        let all = view.contexts(None, 10).unwrap_or_default();
        for context in all {
            let _ = view.page(&context.id, 0, &PageLimits::default(), None);
            let _ = view.root_at(&context.id, context.size - 1);
        }
        for (table, key) in rows_of(INDEXED).keys() {
            if *table == 10 {
                let _ = view.opened_node(&Hash::from_slice(key).unwrap());
            }
            if *table == 12 {
                let number = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().unwrap());
                let (term, epoch) = (number(0), number(8));
                let _ = view.head_at(HeadOrder { term, epoch });
            }
        }
        let draft = |payload: Vec<u8>, request: &str| {
            let draft = Draft::new("facts", payload).unwrap();
            let id = ContextId::new("a").unwrap();
            vec![(id, draft.with_request_id(request).unwrap())]
        };
        for n in 1..20 {
            let _ = store.append(draft(vec![n; 3], &format!("a-{n}")));
        }
        let _ = store.publish();
    }

    /// A row that is not what the log says is noticed, and gone afterwards.
    #[test]
    fn bad_rows_do_not_last() {
        let good = with_index(INDEXED);
        let cases = committed("index");
        let cases = cases["cases"].as_array().unwrap();
        let bad = cases
            .iter()
            .filter(|c| c["kind"] == "row" && c["good"] == false);
        for case in bad {
            let (name, (table, key, row)) = (&case["name"], row_of(case));
            let disk = good.fork();
            disk.set_bytes(FILE, index_of(INDEXED, &disk).with(table, &key, &row));
            let opened = open(INDEXED, &disk).unwrap();
            assert_eq!(opened.index_discarded.is_some(), table == 1, "{name}");
            ask_everything(&opened.store);
            let _ = opened.store.close();
            open(INDEXED, &disk).unwrap().store.close().unwrap();
            // Every check is compared.
            let rows = index_of(INDEXED, &disk).rows();
            let value = &row[..row.len().saturating_sub(8)];
            let other = rows.get(&(table, key)).is_some_and(|now| now != value);
            let gone = case["check_matches"] == false || other;
            assert!(gone, "{name}");
        }
    }

    /// What the index covers was durable: a log that ends before is damaged.
    #[test]
    fn an_index_ahead_of_its_log_is_damage() {
        let good = with_index(INDEXED);
        let disk = good.fork();
        let files = log_of(INDEXED);
        let (name, bytes) = files.range("log/".to_owned()..).next_back().unwrap();
        let records = records_of(&files);
        let head = records.iter().rfind(|record| record["type"] == 5).unwrap();
        let end = usize::try_from(head["offset"].as_u64().unwrap()).unwrap();
        disk.set_bytes(name, bytes[..end].to_vec());
        disk.remove("head.note").unwrap();
        for _ in 0..2 {
            let refused = open(INDEXED, &disk);
            assert!(matches!(refused, Err(StoreError::Damaged(_))));
            assert!(disk.bytes(FILE).is_some(), "it goes on vouching");
        }
    }
}
