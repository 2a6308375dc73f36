//! What is printed: JSON field by field, human text that cannot move a cursor.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Place, SAMPLE, command, fields, run_with};

fn is_hex64(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.len() == 64 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[test]
fn json_has_exactly_the_promised_fields() {
    let place = Place::new();
    place.with_sample("s");
    let keys = place.run("s", &["keys", "--json"]).expect(0).json();
    assert_eq!(sorted(&keys), ["node_key", "origin_vkey", "pinned_vkey"]);
    assert!(is_hex64(&keys["node_key"]));
    assert!(
        keys["origin_vkey"]
            .as_str()
            .unwrap()
            .starts_with("test.example+")
    );

    let head = place.run("s", &["head", "--json"]).expect(0).json();
    let mut want = [
        "origin",
        "term",
        "epoch",
        "directory_root",
        "contexts",
        "entries",
        "time_ns",
        "note",
    ];
    want.sort_unstable();
    assert_eq!(sorted(&head), want);
    assert_eq!(head["origin"], "test.example");
    assert_eq!((&head["term"], &head["contexts"]), (&1.into(), &1.into()));
    assert_eq!(head["entries"], 2000);
    assert!(is_hex64(&head["directory_root"]));
    let note = place.run("s", &["head"]).expect(0);
    assert_eq!(head["note"], note.text());
    assert!(
        note.text()
            .starts_with("converge-ledger/head/v1\ntest.example\n1 ")
    );

    let context = place.run("s", &["contexts", "--json"]).expect(0).json();
    assert_eq!(sorted(&context), ["context", "root", "size"]);
    assert_eq!(context["context"], "packages");
    assert_eq!(context["size"], 2000);
    assert!(is_hex64(&context["root"]));

    let append = [
        "append",
        "--context",
        "c",
        "--key",
        "k",
        "--payload",
        "p",
        "--json",
    ];
    let appended = place.run("s", &append).expect(0).json();
    assert_eq!(sorted(&appended), ["entries", "last_sequence", "seconds"]);
    assert_eq!(
        (&appended["entries"], &appended["last_sequence"]),
        (&1.into(), &1.into())
    );
    assert!(appended["seconds"].is_f64());

    let audit = place.run("s", &["audit", "--json"]).expect(0).json();
    let want = [
        "bytes",
        "contexts",
        "entries",
        "first_bad",
        "fork",
        "frozen",
        "head_note",
        "index",
        "index_reason",
        "ok",
        "second_roots",
        "seconds",
    ];
    assert_eq!(sorted(&audit), want);
    assert_eq!(audit["ok"], true);
    assert_eq!(
        (&audit["contexts"], &audit["entries"]),
        (&2.into(), &2001.into())
    );
    assert_eq!(audit["first_bad"], Value::Null);
}

fn sorted(value: &Value) -> Vec<&str> {
    let mut names = fields(value);
    names.sort_unstable();
    names
}

#[test]
fn get_prints_entries_as_they_went_in() {
    let place = Place::new();
    place.with_sample("s");
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    let got = place
        .run("s", &["get", "--context", "packages", "--json"])
        .expect(0);
    let got = got.json_lines();
    assert_eq!(got.len(), 2000);
    let want = [
        "appended_at_ns",
        "id",
        "key",
        "lamport",
        "metadata",
        "payload",
        "sequence",
    ];
    for (at, (line, got)) in sample.lines().zip(&got).enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(sorted(got), want);
        assert_eq!(got["sequence"], at as u64 + 1);
        assert!(is_hex64(&got["id"]));
        for field in ["key", "payload", "metadata"] {
            assert_eq!(got[field], line[field]);
        }
    }
    let part = |more: &[&str]| {
        let arguments = [&["get", "--context", "packages", "--json"], more].concat();
        place.run("s", &arguments).expect(0).json_lines()
    };
    assert_eq!(part(&["--after", "1990"]), got[1990..]);
    assert_eq!(part(&["--after", "300", "--limit", "7"]), got[300..307]);
    assert_eq!(part(&["--after", "5000"]), [] as [Value; 0]);
    let traces = part(&["--key", "traces"]);
    let want: Vec<_> = got
        .iter()
        .filter(|e| e["key"] == "traces")
        .cloned()
        .collect();
    assert_eq!(traces, want);
    assert!(!traces.is_empty());
}

#[test]
fn bytes_that_are_not_text_come_back_in_base64() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let append = ["append", "--context", "c", "--key", "k", "--meta", "a=b=c"];
    place.run_in("s", &append, b"\xff\x00\x01").expect(0);
    let entry = place
        .run("s", &["get", "--context", "c", "--json"])
        .expect(0)
        .json();
    assert_eq!(entry["payload_base64"], "/wAB");
    assert!(entry.get("payload").is_none());
    assert_eq!(entry["metadata"]["a"], "b=c");
    // And back in through NDJSON.
    let line = "{\"key\":\"k\",\"payload_base64\":\"/wAB\"}\n";
    let append = ["append", "--context", "d", "--ndjson", "-"];
    place.run_in("s", &append, line.as_bytes()).expect(0);
    let entry = place
        .run("s", &["get", "--context", "d", "--json"])
        .expect(0)
        .json();
    assert_eq!(entry["payload_base64"], "/wAB");
}

#[test]
fn human_output_cannot_move_a_cursor() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let append = [
        "append",
        "--context",
        "c",
        "--key",
        "k\x1b[2J",
        "--payload",
        "a\nb\x07\u{202e}",
    ];
    place.run("s", &append).expect(0);
    let got = place.run("s", &["get", "--context", "c"]).expect(0);
    assert_eq!(got.text(), "1\tk\\u{1b}[2J\ta\\nb\\u{7}\\u{202e}\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::new();
    place.with_sample("s");
    let mut command = place.command("s", &["get", "--context", "packages"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut one = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut one).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_full_stdout_is_an_error() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = place.command("s", &["head"]);
    command.stdout(full).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn usage_errors_have_status_2_and_help_has_0() {
    let place = Place::new();
    let empty: [&[&str]; 14] = [
        &[],
        &["frobnicate"],
        &["get"],
        &["append", "--context", "c"],
        &[
            "append",
            "--context",
            "c",
            "--key",
            "k",
            "--payload",
            "p",
            "--file",
            "f",
        ],
        &["append", "--ndjson", "-", "--key", "k"],
        &["serve", "--no-grpc"],
        &["serve", "--no-grpc", "--grpc", "127.0.0.1:0"],
        &["serve", "--allow-file", "f"],
        &["serve", "--grpc", "0.0.0.0:0"],
        &["serve", "--grpc-cert", "f"],
        &["serve", "--snapshot-bytes-max", "1"],
        &["serve", "--listen", "127.0.0.1:0", "--allow", "ABC"],
        &["init", "--name", "a", "--mirror", "b"],
    ];
    for arguments in empty {
        let ran = place.run("s", arguments);
        assert_eq!(ran.status, 2, "{arguments:?}");
        assert!(!place.path("s").exists());
    }
    for arguments in [&["init", "--name", "a b"][..], &["init", "--mirror", "x+y"]] {
        place.run("s", arguments).refuses(2, "--");
        assert!(!place.path("s").exists());
    }
    // No --data, and none in the environment.
    let mut none = command();
    none.arg("head");
    run_with(none, b"").refuses(2, "--data");
    let mut help = command();
    help.arg("--help");
    assert!(run_with(help, b"").expect(0).text().contains("Exit status"));
    // --data from the environment.
    let mut init = command();
    init.arg("init")
        .env("CONVERGE_LEDGER_DATA", place.path("e"));
    run_with(init, b"").expect(0);
    place.run("e", &["head"]).expect(0);
}
