//! The index as scripts and people meet it: `stats`, `rebuild-index`, what
//! `audit` says of it, and that a bad one costs nothing but time.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Place, SAMPLE, fields, files, run_with};

/// What a command says when it had to make the index anew.
const HEALED: &str = "the index was thrown away and made anew from the log";

fn index(place: &Place, name: &str) -> PathBuf {
    place.path(name).join("index.redb")
}

/// Changes a byte of the index: of the page that every opening reads first.
fn damage_index(place: &Place, name: &str) {
    let path = index(place, name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn stats(place: &Place, name: &str) -> Value {
    place.run(name, &["stats", "--json"]).expect(0).json()
}

fn audit(place: &Place, name: &str) -> Value {
    place.run(name, &["audit", "--json"]).expect(0).json()
}

fn append(place: &Place, name: &str) -> crate::support::Ran {
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run(name, &append)
}

#[test]
fn stats_says_what_there_is_and_changes_nothing() {
    let place = Place::new();
    place.with_sample("s");
    let head = place.run("s", &["head", "--json"]).expect(0).json();
    let before = files(&place.path("s"));
    let stats = stats(&place, "s");
    assert_eq!(
        fields(&stats),
        [
            "checkpoint",
            "contexts",
            "entries",
            "fork",
            "frozen",
            "head",
            "head_note",
            "in_use",
            "index",
            "index_bytes",
            "index_reason",
            "log_bytes",
            "origin",
            "origin_vkey",
            "reserve_bytes",
            "role",
            "segments"
        ]
    );
    assert_eq!(stats["role"], "own");
    assert_eq!(stats["origin"], "test.example");
    assert_eq!(stats["origin_vkey"], place.keys("s").0);
    assert_eq!(stats["in_use"], false);
    assert_eq!(
        (&stats["contexts"], &stats["entries"]),
        (&1.into(), &2000.into())
    );
    let log_bytes = fs::metadata(place.segment("s")).unwrap().len();
    assert_eq!(stats["log_bytes"], log_bytes);
    assert_eq!(stats["segments"], 1);
    assert_eq!(stats["reserve_bytes"], 0);
    let index_bytes = fs::metadata(index(&place, "s")).unwrap().len();
    assert_eq!(stats["index_bytes"], index_bytes);
    assert_eq!(stats["index"], "good");
    assert_eq!(stats["index_reason"], Value::Null);
    let checkpoint = &stats["checkpoint"];
    assert_eq!(
        fields(checkpoint),
        ["behind_bytes", "offset", "segment", "time_ns"]
    );
    assert_eq!(checkpoint["segment"], 1);
    let behind = checkpoint["behind_bytes"].as_u64().unwrap();
    assert!(behind <= 64, "a closed store leaves a mark at most");
    assert_eq!(
        checkpoint["offset"].as_u64().unwrap() + behind,
        log_bytes,
        "{checkpoint}"
    );
    assert!(checkpoint["time_ns"].as_u64() >= head["time_ns"].as_u64());
    for field in ["term", "epoch", "time_ns", "directory_root"] {
        assert_eq!(stats["head"][field], head[field]);
    }
    let text = place.run("s", &["stats"]).expect(0);
    for says in [
        "own store of test.example+",
        "2000 entries in 1 contexts",
        "segments: 1, reserve: 0 bytes",
        "bytes, good",
        "checkpoint: 20",
        "head: term 1, epoch ",
    ] {
        assert!(text.text().contains(says), "{says:?} in {}", text.text());
    }
    assert_eq!(text.stderr, "");
    assert_eq!(files(&place.path("s")), before, "stats changed the store");
}

#[test]
fn stats_needs_no_index_and_believes_no_bad_one() {
    let place = Place::new();
    place.with_sample("s");
    let good = stats(&place, "s");
    damage_index(&place, "s");
    let before = files(&place.path("s"));
    let bad = stats(&place, "s");
    assert_eq!(bad["index"], "wanting");
    assert!(bad["index_reason"].as_str().unwrap().contains("page 0"));
    assert_eq!(files(&place.path("s")), before);
    fs::remove_file(index(&place, "s")).unwrap();
    let none = stats(&place, "s");
    assert_eq!(none["index"], "none");
    assert_eq!(none["index_bytes"], Value::Null);
    for stats in [bad, none] {
        assert_eq!(stats["checkpoint"], Value::Null);
        for field in ["contexts", "entries", "log_bytes", "head", "in_use"] {
            assert_eq!(stats[field], good[field], "{field}");
        }
    }
}

#[test]
fn beside_a_running_process_the_index_is_not_read() {
    let place = Place::new();
    place.with_sample("s");
    let server = place.serve("s", &[]);
    let stats = stats(&place, "s");
    assert_eq!(stats["in_use"], true);
    assert_eq!(stats["checkpoint"], Value::Null);
    assert_eq!(stats["index"], "not read");
    assert!(stats["index_bytes"].as_u64() > Some(0));
    assert_eq!(stats["entries"], 2000);
    assert_eq!(stats["head"]["term"], 1);
    let text = place.run("s", &["stats"]).expect(0);
    assert!(text.text().contains(", in use by another process"));
    assert!(text.text().contains("not read: in use by another process"));
    let audit = audit(&place, "s");
    assert_eq!(audit["index"], "not compared");
    assert_eq!(audit["index_reason"], "in use");
    place
        .run("s", &["rebuild-index"])
        .refuses(3, "in use by another process");
    assert_eq!(server.stop("TERM"), 0);
    place.run("s", &["rebuild-index"]).expect(0);
}

#[test]
fn a_mirror_has_stats_too() {
    let place = Place::new();
    place.with_sample("s");
    let (origin, peer) = place.keys("s");
    place.run("m", &["init", "--mirror", &origin]).expect(0);
    let empty = stats(&place, "m");
    assert_eq!(
        (&empty["role"], &empty["head"]),
        (&"mirror".into(), &Value::Null)
    );
    assert_eq!(empty["entries"], 0);
    let node = place.keys("m").1;
    let server = place.serve("s", &[&node]);
    place.pull("m", &server, &peer, &origin).expect(0);
    assert_eq!(server.stop("TERM"), 0);
    let (source, mirror) = (stats(&place, "s"), stats(&place, "m"));
    assert_eq!(mirror["role"], "mirror");
    assert_eq!(mirror["index"], "good");
    for field in ["origin", "origin_vkey", "contexts", "entries", "head"] {
        assert_eq!(mirror[field], source[field], "{field}");
    }
    assert_eq!(audit(&place, "m")["index"], "matches");
    place.run("m", &["rebuild-index"]).expect(0);
    assert_eq!(audit(&place, "m")["index"], "matches");
    assert_eq!(stats(&place, "m")["index"], "good");
}

#[test]
fn an_index_that_lies_behind_is_good() {
    let place = Place::new();
    place.with_sample("s");
    let old = fs::read(index(&place, "s")).unwrap();
    let more = ["append", "--context", "more", "--ndjson", SAMPLE];
    place.run("s", &more).expect(0);
    fs::write(index(&place, "s"), old).unwrap();
    let behind = stats(&place, "s");
    assert_eq!(behind["index"], "good");
    assert_eq!(
        (&behind["contexts"], &behind["entries"]),
        (&2.into(), &4000.into())
    );
    assert!(behind["checkpoint"]["behind_bytes"].as_u64() > Some(100_000));
    let audit = audit(&place, "s");
    assert_eq!(
        (&audit["index"], &audit["entries"]),
        (&"matches".into(), &4000.into())
    );
    // It goes on from there, without a word.
    let ran = append(&place, "s").expect(0);
    assert_eq!(ran.stderr, "");
    assert_eq!(stats(&place, "s")["entries"], 4001);
}

#[test]
fn a_damaged_index_is_healed_by_the_next_command() {
    let commands: [&[&str]; 4] = [
        &["contexts"],
        &["head"],
        &["get", "--context", "packages", "--limit", "1"],
        &["append", "--context", "c", "--key", "k", "--payload", "p"],
    ];
    for command in commands {
        let place = Place::new();
        place.with_sample("s");
        let quiet = place.run("s", command).expect(0);
        assert_eq!(quiet.stderr, "");
        damage_index(&place, "s");
        let ran = place.run("s", command).expect(0);
        assert_eq!(ran.stderr.matches(HEALED).count(), 1, "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert_eq!(place.run("s", command).expect(0).stderr, "");
        assert_eq!(stats(&place, "s")["index"], "good");
        assert_eq!(audit(&place, "s")["index"], "matches");
    }
}

/// Damage that opening does not meet ends a command at worst; the next one has
/// a new index.
#[test]
fn damage_anywhere_in_the_index_costs_one_command() {
    let place = Place::new();
    place.with_sample("s");
    let good = fs::read(index(&place, "s")).unwrap();
    let used = good.chunks(4096).enumerate().skip(1);
    let used: Vec<usize> = used
        .filter(|(_, page)| page.iter().any(|&byte| byte != 0))
        .map(|(at, _)| at)
        .collect();
    let contexts = place.run("s", &["contexts"]).expect(0);
    let get = ["get", "--context", "packages", "--json"];
    let entries = place.run("s", &get).expect(0);
    for page in used.into_iter().step_by(3) {
        let mut bytes = good.clone();
        bytes[page * 4096 + 21] ^= 4;
        fs::write(index(&place, "s"), bytes).unwrap();
        for (command, want) in [(&["contexts"][..], &contexts), (&get, &entries)] {
            let ran = place.run("s", command);
            if ran.status == 3 {
                ran.refuses(3, "rebuild-index");
            } else {
                assert_eq!(ran.expect(0).stdout, want.stdout);
            }
            assert_eq!(place.run("s", command).expect(0).stdout, want.stdout);
        }
        place.run("s", &["rebuild-index"]).expect(0);
        assert_eq!(audit(&place, "s")["index"], "matches");
    }
}

#[test]
fn the_index_can_be_made_anew() {
    let place = Place::new();
    place.with_sample("s");
    let log = files(&place.path("s/log"));
    let head = fs::read(place.path("s/head.note")).unwrap();
    let bytes = stats(&place, "s")["log_bytes"].clone();
    for way in ["as it is", "damaged", "gone", "foreign"] {
        match way {
            "damaged" => damage_index(&place, "s"),
            "gone" => fs::remove_file(index(&place, "s")).unwrap(),
            "foreign" => {
                place.with_sample("f");
                fs::copy(index(&place, "f"), index(&place, "s")).unwrap();
            }
            _ => (),
        }
        let ran = place.run("s", &["rebuild-index", "--json"]).expect(0);
        assert_eq!(ran.stderr, "");
        let made = ran.json();
        assert_eq!(
            fields(&made),
            [
                "bytes",
                "contexts",
                "covers",
                "entries",
                "index_bytes",
                "seconds"
            ]
        );
        assert_eq!(
            (&made["contexts"], &made["entries"]),
            (&1.into(), &2000.into())
        );
        assert_eq!(made["bytes"], bytes);
        assert_eq!(made["covers"]["segment"], 1);
        assert_eq!(
            fields(&made["covers"]),
            ["behind_bytes", "offset", "segment"]
        );
        let stats = stats(&place, "s");
        assert_eq!(
            (&stats["index"], &stats["index_bytes"]),
            (&"good".into(), &made["index_bytes"])
        );
        assert_eq!(stats["checkpoint"]["offset"], made["covers"]["offset"]);
        assert_eq!(audit(&place, "s")["index"], "matches", "{way}");
        // Nothing was signed, nothing appended.
        assert_eq!(files(&place.path("s/log")), log, "{way}");
        assert_eq!(fs::read(place.path("s/head.note")).unwrap(), head);
        assert!(!place.path("s/index.redb.new").exists());
    }
    let text = place.run("s", &["rebuild-index"]).expect(0);
    assert!(text.text().contains(" MB/s): 2000 entries in 1 contexts"));
    assert!(
        text.text()
            .contains("the index covers the log up to segment 1")
    );
    let opened = place.run("s", &["contexts"]).expect(0);
    assert_eq!(opened.stderr, "");
}

/// What a process that was killed leaves is not mended, and not covered either
/// unless something vouches for it.
#[test]
fn after_a_kill_the_index_can_be_made_anew() {
    let place = Place::new();
    place.with_sample("s");
    drop(place.serve("s", &[]));
    let log = files(&place.path("s/log"));
    let made = place
        .run("s", &["rebuild-index", "--json"])
        .expect(0)
        .json();
    assert_eq!(made["entries"], 2000);
    assert_eq!(files(&place.path("s/log")), log);
    // Without its end, the log has entries that no head covers.
    let path = place.segment("s");
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(index(&place, "s")).unwrap();
    fs::remove_file(place.path("s/head.note")).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 448]).unwrap();
    let made = place
        .run("s", &["rebuild-index", "--json"])
        .expect(0)
        .json();
    assert_eq!(made["covers"], Value::Null, "{made}");
    let text = place.run("s", &["rebuild-index"]).expect(0);
    assert!(text.text().contains("no index: no head covers"));
    assert!(!index(&place, "s").exists());
    append(&place, "s").expect(0);
    assert_eq!(stats(&place, "s")["index"], "good");
    assert_eq!(audit(&place, "s")["index"], "matches");
}

#[test]
fn a_damaged_log_is_refused_and_the_old_index_kept() {
    let place = Place::new();
    place.with_sample("s");
    let good = fs::read(place.segment("s")).unwrap();
    let note = fs::read(place.path("s/head.note")).unwrap();
    for way in ["changed", "cut"] {
        let mut bytes = good.clone();
        match way {
            "changed" => bytes[200_000] ^= 1,
            _ => bytes.truncate(300_000),
        }
        fs::write(place.segment("s"), bytes).unwrap();
        fs::write(place.path("s/head.note"), &note).unwrap();
        for has_note in [true, false] {
            if !has_note {
                // Then only the index knows how far the log once went.
                fs::remove_file(place.path("s/head.note")).unwrap();
            }
            let before = files(&place.path("s"));
            place
                .run("s", &["rebuild-index"])
                .refuses(1, "the log is damaged");
            // What the index covers is not read for this; that it is there is.
            let stats = place.run("s", &["stats"]);
            match way {
                "changed" => _ = stats.expect(0),
                _ => _ = stats.refuses(1, "the log is damaged"),
            }
            let audit = place.run("s", &["audit", "--json"]);
            let found = (audit.status, audit.json());
            match (way, has_note) {
                ("cut", false) => {
                    // To the log alone this is a write that was cut short.
                    assert_eq!((found.0, &found.1["index"]), (0, &"differs".into()));
                    let reason = found.1["index_reason"].as_str().unwrap();
                    assert!(reason.contains("were durable are gone"), "{reason}");
                }
                _ => assert_eq!((found.0, &found.1["index"]), (1, &"not compared".into())),
            }
            assert_eq!(files(&place.path("s")), before, "{way}");
        }
    }
}

#[test]
fn an_audit_compares_the_index_and_judges_the_log() {
    let place = Place::new();
    place.with_sample("s");
    let audited = audit(&place, "s");
    assert_eq!(
        (&audited["ok"], &audited["index"]),
        (&true.into(), &"matches".into())
    );
    assert_eq!(audited["index_reason"], Value::Null);
    assert_eq!(audited["second_roots"], Value::Null);
    let text = place.run("s", &["audit"]).expect(0);
    assert!(
        text.text().contains("index: matches the log, "),
        "{}",
        text.text()
    );

    // A byte of every page that is not empty: some are not in use.
    let good = fs::read(index(&place, "s")).unwrap();
    let pages = good.chunks(4096).enumerate().skip(1);
    let pages: Vec<usize> = pages
        .filter(|(_, page)| page.iter().any(|&byte| byte != 0))
        .map(|(at, _)| at)
        .collect();
    let mut differs = 0;
    for page in pages {
        let mut bytes = good.clone();
        bytes[page * 4096 + 33] ^= 1;
        fs::write(index(&place, "s"), bytes).unwrap();
        let before = files(&place.path("s"));
        let audited = audit(&place, "s");
        assert_eq!(audited["ok"], true);
        if audited["index"] == "differs" {
            differs += 1;
            assert!(audited["index_reason"].is_string());
        } else {
            assert_eq!(audited["index"], "matches");
        }
        assert_eq!(
            files(&place.path("s")),
            before,
            "an audit changed the store"
        );
    }
    assert!(differs > 5, "{differs}");
    damage_index(&place, "s");
    let text = place.run("s", &["audit"]).expect(0);
    assert!(
        text.text()
            .contains("audit passed\nindex: DIFFERS from the log")
    );
    fs::remove_file(index(&place, "s")).unwrap();
    assert_eq!(audit(&place, "s")["index"], "none");
    let text = place.run("s", &["audit"]).expect(0);
    assert!(text.text().contains("index: none"));
}

#[test]
fn a_paranoid_audit_asks_for_a_second_opinion() {
    let place = Place::new();
    place.with_sample("s");
    append(&place, "s").expect(0);
    let paranoid = ["audit", "--paranoid", "--json"];
    let audited = place.run("s", &paranoid).expect(0).json();
    assert_eq!(
        (&audited["ok"], &audited["second_roots"]),
        (&true.into(), &2.into())
    );
    let text = place.run("s", &["audit", "--paranoid"]).expect(0);
    assert!(text.text().contains("computes the same roots: 2"));
    // A log that does not verify needs no second opinion.
    let mut bytes = fs::read(place.segment("s")).unwrap();
    bytes[200_000] ^= 1;
    fs::write(place.segment("s"), bytes).unwrap();
    let audited = place.run("s", &paranoid).expect(1).json();
    assert_eq!(
        (&audited["ok"], &audited["second_roots"]),
        (&false.into(), &Value::Null)
    );
}

/// A command that reads keeps what it reads; nobody waits for it.
#[test]
fn a_command_that_reads_keeps_nobody_from_writing() {
    let place = Place::new();
    place.with_sample("s");
    let mut get = place.command("s", &["get", "--context", "packages", "--json"]);
    // More than a pipe holds: it waits for its reader.
    let mut child = get.stdout(Stdio::piped()).spawn().unwrap();
    let mut one = [0];
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut one).unwrap();
    for _ in 0..2 {
        let more = ["append", "--context", "packages", "--ndjson", SAMPLE];
        place.run("s", &more).expect(0);
    }
    assert_eq!(stats(&place, "s")["in_use"], false);
    assert_eq!(audit(&place, "s")["index"], "matches");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(std::str::from_utf8(&rest).unwrap().lines().count(), 2000);
    assert_eq!(place.size("s", "packages"), 6000);
}

#[test]
fn help_says_what_the_options_cost() {
    let place = Place::new();
    let help = run_with(place.command("s", &["audit", "--help"]), b"").expect(0);
    assert!(help.text().contains("--paranoid"));
    assert!(help.text().contains("KiB of memory"));
}
