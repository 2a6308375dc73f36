//! Damaged stores: named by `audit`, refused by whatever reads the damage,
//! changed by nothing. Opening reads what lies behind the index, or everything
//! if there is none.

use std::fs::{self, OpenOptions};

use serde_json::Value;

use crate::support::{Place, SAMPLE, fields, files};

/// Flips a bit of the first place in the log where `text` stands.
fn flip(place: &Place, name: &str, text: &str) {
    let path = place.segment(name);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(text.len()).position(|w| w == text.as_bytes());
    bytes[at.expect("it is in the log")] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn sample_payload(line: usize) -> String {
    let sample = fs::read_to_string(SAMPLE).unwrap();
    let line: Value = serde_json::from_str(sample.lines().nth(line - 1).unwrap()).unwrap();
    line["payload"].as_str().unwrap().to_owned()
}

/// Audits a damaged store and returns `first_bad`.
fn first_bad(place: &Place, name: &str) -> Value {
    let before = files(&place.path(name));
    let audit = place.run(name, &["audit", "--json"]).expect(1).json();
    assert_eq!(audit["ok"], false);
    let mut names = fields(&audit["first_bad"]);
    names.sort_unstable();
    assert_eq!(
        names,
        ["context", "offset", "reason", "segment", "sequence"]
    );
    let human = place.run(name, &["audit"]).refuses(1, "does not verify");
    assert!(human.text().contains("audit FAILED"), "{}", human.text());
    assert_eq!(
        files(&place.path(name)),
        before,
        "an audit changed the store"
    );
    audit["first_bad"].clone()
}

/// An index speaks for what lies before it, so the store opens; but what is
/// wrong is shown to nobody, and without the index nothing opens.
fn is_never_shown(place: &Place, name: &str, bad: u64) {
    let log = files(&place.path(name).join("log"));
    let get = ["get", "--context", "packages", "--json"];
    let got = place.run(name, &get).refuses(1, "Run `audit`");
    let sample = fs::read_to_string(SAMPLE).unwrap();
    assert!((got.json_lines().len() as u64) < bad);
    for (line, got) in sample.lines().zip(got.json_lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(got["payload"], line["payload"]);
    }
    let index = place.path(name).join("index.redb");
    let before = fs::read(&index).unwrap();
    place.run(name, &["rebuild-index"]).refuses(1, "error");
    assert!(
        fs::read(&index).unwrap() == before,
        "the index was not kept"
    );
    assert_eq!(files(&place.path(name).join("log")), log);
    fs::remove_file(index).unwrap();
    is_refused(place, name);
}

/// Nothing is served, read or appended as if it were sound.
fn is_refused(place: &Place, name: &str) {
    let before = files(&place.path(name).join("log"));
    place
        .run(name, &["serve", "--listen", "127.0.0.1:0"])
        .refuses(1, "error");
    place.run(name, &["head"]).refuses(1, "error");
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run(name, &append).refuses(1, "error");
    assert_eq!(files(&place.path(name).join("log")), before);
}

#[test]
fn a_tampered_entry_is_named() {
    for line in [1, 2, 256, 257, 1000, 1503, 2000] {
        let place = Place::new();
        place.with_sample("s");
        let payload = sample_payload(line);
        flip(&place, "s", &payload);
        let bad = first_bad(&place, "s");
        assert_eq!(bad["context"], "packages", "line {line}");
        assert_eq!(bad["sequence"], line, "{bad}");
        assert_eq!(bad["segment"], 1);
        is_never_shown(&place, "s", line as u64);
    }
}

#[test]
fn a_tampered_large_payload_is_named() {
    let sample = fs::read_to_string(SAMPLE).unwrap();
    let large = sample.lines().position(|line| line.len() > 8192).unwrap() + 1;
    let place = Place::new();
    place.with_sample("s");
    flip(&place, "s", &sample_payload(large));
    let bad = first_bad(&place, "s");
    assert_eq!(bad["context"], "packages");
    assert_eq!(bad["sequence"], large, "{bad}");
    is_never_shown(&place, "s", large as u64);
}

#[test]
fn a_tampered_signature_or_note_file_is_found() {
    let place = Place::new();
    place.with_sample("s");
    let note = place.run("s", &["head"]).expect(0);
    let signature = note.text().lines().last().unwrap().to_owned();
    flip(&place, "s", &signature);
    first_bad(&place, "s");
    is_refused(&place, "s");

    place.with_sample("n");
    let path = place.path("n").join("head.note");
    let mut bytes = fs::read(&path).unwrap();
    bytes[6] ^= 1;
    fs::write(&path, bytes).unwrap();
    first_bad(&place, "n");
    is_refused(&place, "n");
}

#[test]
fn a_log_that_ends_early_is_damage() {
    for cut in [1u64, 64, 4096, 300_000] {
        let place = Place::new();
        place.with_sample("s");
        let file = OpenOptions::new()
            .write(true)
            .open(place.segment("s"))
            .unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - cut).unwrap();
        let audit = place.run("s", &["audit", "--json"]);
        if cut < 4096 {
            // What is cut off here is at most the last mark, which nothing
            // vouches for: nothing is lost.
            assert!(audit.status <= 1, "{audit:?}");
            continue;
        }
        first_bad(&place, "s");
        is_refused(&place, "s");
    }
}

#[test]
fn a_missing_or_foreign_segment_is_damage() {
    let place = Place::new();
    place.with_sample("s");
    place.with_sample("f");
    // Segment 1 is gone, and something calls itself segment 2.
    let second = place.path("s").join("log/0000000002.seg");
    fs::rename(place.segment("s"), &second).unwrap();
    let bad = first_bad(&place, "s");
    assert!(
        bad["reason"]
            .as_str()
            .unwrap()
            .contains("segment 1 is missing")
    );
    is_refused(&place, "s");
    // Another store's segment in its place.
    fs::remove_file(second).unwrap();
    fs::copy(place.segment("f"), place.segment("s")).unwrap();
    first_bad(&place, "s");
    is_refused(&place, "s");
}

#[test]
fn a_mirror_that_was_tampered_with_is_named_too() {
    let place = Place::new();
    place.with_sample("s");
    let (origin, peer) = place.keys("s");
    place.run("m", &["init", "--mirror", &origin]).expect(0);
    let node = place.keys("m").1;
    let server = place.serve("s", &[&node]);
    place.pull("m", &server, &peer, &origin).expect(0);
    flip(&place, "m", &sample_payload(77));
    let bad = first_bad(&place, "m");
    assert_eq!(
        (&bad["context"], &bad["sequence"]),
        (&"packages".into(), &77.into())
    );
    is_never_shown(&place, "m", 77);
    place
        .pull("m", &server, &peer, &origin)
        .refuses(1, "damaged");
}

#[test]
fn a_process_that_was_killed_costs_nothing() {
    let place = Place::new();
    place.with_sample("s");
    drop(place.serve("s", &[]));
    assert_eq!(place.size("s", "packages"), 2000);
    let append = [
        "append",
        "--context",
        "packages",
        "--key",
        "k",
        "--payload",
        "p",
    ];
    place.run("s", &append).expect(0);
    place.run("s", &["audit"]).expect(0);
    assert_eq!(place.size("s", "packages"), 2001);
}
