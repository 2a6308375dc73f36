//! What an operator meets: copies that are looked at, files that are missing,
//! arguments that are nearly right, and what is said then.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::guard::killed;
use crate::support::{Place, Ran, command, copy_dir, files, run_with};
use crate::trust::{Pair, append};

/// Everything of a store but its index, which is no part of what it says.
fn all_but_index(place: &Place, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = files(&place.path(name));
    found.retain(|(path, _)| !path.ends_with("index.redb"));
    found
}

fn remove(place: &Place, file: &str) {
    fs::remove_file(place.path(file)).unwrap();
}

fn proof_of(sequence: &'static str) -> [&'static str; 5] {
    ["prove", "--context", "packages", "--sequence", sequence]
}

fn sh(script: &str, place: &Place, name: &str, arguments: &[&str]) -> Ran {
    let inner = place.command(name, arguments);
    let mut outer = Command::new("sh");
    outer.arg("-c").arg(script).arg("sh");
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.env_remove("CONVERGE_LEDGER_DATA");
    run_with(outer, b"")
}

#[test]
fn whoever_reads_signs_nothing() {
    let place = Place::new();
    place.with_sample("s");
    let unsigned = killed(&place, "s");
    copy_dir(&place.path(&unsigned), &place.path("lost"));
    remove(&place, "lost/head.note");
    copy_dir(&place.path(&unsigned), &place.path("torn"));
    let path = place.segment("torn");
    let bytes = fs::read(&path).unwrap();
    // The last group is cut short.
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    fs::write(&path, &bytes[..used - 40]).unwrap();
    let get = ["get", "--context", "packages", "--limit", "3"];
    let verified = [&get[..], &["--verify"]].concat();
    let output = place.path("x.snapshot");
    let snapshot = ["snapshot", "--context", "packages", "-o"];
    let snapshot = [&snapshot[..], &[output.to_str().unwrap()]].concat();
    for name in [unsigned.as_str(), "lost", "torn"] {
        for index in [true, false] {
            if !index {
                let _ = fs::remove_file(place.path(name).join("index.redb"));
            }
            let before = all_but_index(&place, name);
            let mut heads = Vec::new();
            for arguments in [
                &["head"][..],
                &["contexts"],
                &get,
                &verified,
                &proof_of("7"),
                &snapshot,
                &["keys"],
                &["stats"],
                &["head"],
            ] {
                let ran = place.run(name, arguments).expect(0);
                if arguments == ["head"] {
                    heads.push(ran.stdout);
                }
                let same = all_but_index(&place, name) == before;
                assert!(same, "{name}: {arguments:?} changed the store");
            }
            assert_eq!(heads[0], heads[1]);
            place.run(name, &["resolve"]).refuses(3, "no evidence");
            assert!(all_but_index(&place, name) == before, "{name}: resolve");
        }
    }
    // What is stored and not signed yet is shown, and not proven.
    assert_eq!(place.size(&unsigned, "packages"), 2001);
    let ran = place.run(&unsigned, &proof_of("2001"));
    let ran = ran.refuses(3, "covers 2000 entries");
    assert!(
        ran.stderr
            .contains("The next command that writes signs one")
    );
    append(&place, &unsigned, "packages", "signs");
    place.run(&unsigned, &proof_of("2001")).expect(0);
}

#[test]
fn a_store_without_its_log_is_damaged() {
    let place = Place::new();
    place.with_sample("s");
    fs::remove_dir_all(place.path("s/log")).unwrap();
    let before = files(&place.path("s"));
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    let commands: [&[&str]; 9] = [
        &["head"],
        &["contexts"],
        &["keys"],
        &["audit"],
        &["stats"],
        &["rebuild-index"],
        &["init"],
        &one,
        &["serve", "--listen", "127.0.0.1:0"],
    ];
    for arguments in commands {
        let ran = place.run("s", arguments).expect(1);
        let said = format!("{}{}", ran.text(), ran.stderr);
        assert!(said.contains("the log is gone"), "{arguments:?}: {said}");
        assert!(said.contains("mirror"), "{arguments:?}: {said}");
    }
    assert_eq!(files(&place.path("s")), before);
}

#[test]
fn files_that_are_missing_or_damaged_are_named() {
    let place = Place::new();
    place.with_sample("s");
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    let path = |file: &str| place.path("s").join(file);

    let note = fs::read(path("head.note")).unwrap();
    fs::write(path("head.note"), "nonsense").unwrap();
    let ran = place.run("s", &["head"]).refuses(1, "head.note is damaged");
    assert!(!ran.stderr.contains("offset"), "{}", ran.stderr);
    let ran = place.run("s", &["audit"]).expect(1);
    let says = "audit FAILED: head.note is damaged";
    assert!(ran.text().contains(says), "{ran:?}");
    fs::write(path("head.note"), note).unwrap();

    let key = fs::read(path("origin.key")).unwrap();
    remove(&place, "s/origin.key");
    let ran = place.run("s", &one).refuses(3, "could not read origin.key");
    assert!(ran.stderr.contains("offline copy"), "{}", ran.stderr);
    place.run("s", &["head"]).expect(0);
    fs::copy(path("node.key"), path("origin.key")).unwrap();
    fs::write(path("origin.key"), key).unwrap();

    let next = path("origin.key.next");
    fs::copy(path("origin.key"), &next).unwrap();
    fs::write(&next, "").unwrap();
    let ran = place.run("s", &["rotate-key"]).expect(3);
    assert!(ran.stderr.contains("origin.key.next"), "{}", ran.stderr);
    assert!(ran.stderr.contains("remove it"), "{}", ran.stderr);
    fs::remove_file(next).unwrap();

    remove(&place, "s/node.key");
    let ran = place.run("s", &["serve", "--listen", "127.0.0.1:0"]);
    let ran = ran.refuses(3, "could not read node.key");
    assert!(ran.stderr.contains("allow"), "{}", ran.stderr);
    // The origin's key needs no secret.
    let keys = place.run("s", &["keys", "--json"]).expect(0).json();
    assert_eq!(keys["node_key"], Value::Null);
    assert!(keys["origin_vkey"].is_string());
    let ran = place.run("s", &["keys"]).expect(0);
    assert!(ran.text().contains("node key    none"), "{ran:?}");
}

#[test]
fn the_index_of_another_copy_is_named() {
    let place = Place::new();
    place.with_sample("s");
    copy_dir(&place.path("s"), &place.path("old"));
    append(&place, "s", "packages", "one");
    let more = [
        "append",
        "--context",
        "more",
        "--ndjson",
        crate::support::SAMPLE,
    ];
    place.run("old", &more).expect(0);
    // The newest log in the place of the old one, as a frozen store is told.
    fs::remove_dir_all(place.path("old/log")).unwrap();
    copy_dir(&place.path("s/log"), &place.path("old/log"));
    fs::copy(place.path("s/head.note"), place.path("old/head.note")).unwrap();
    place.run("old", &["audit"]).expect(0);
    for arguments in [&["head"][..], &["stats"], &["contexts"]] {
        let ran = place.run("old", arguments).refuses(1, "index.redb vouches");
        assert!(ran.stderr.contains("remove index.redb"), "{}", ran.stderr);
    }
    remove(&place, "old/index.redb");
    append(&place, "old", "packages", "two");
}

#[test]
fn an_auditor_is_told_its_key() {
    let place = Place::new();
    let ran = place.run("auditor", &["keys"]);
    ran.refuses(3, "there is no store here");
    assert!(!place.path("auditor").exists());
    place.with_sample("s");
    let (origin, node) = place.keys("s");
    let audit = [
        "audit", "--peer", &node, "--origin", &origin, "--json", "--from",
    ];
    let from = |address: &str| place.run("auditor", &[&audit[..], &[address]].concat());
    let ran = from("127.0.0.1:9").refuses(3, "");
    let json = ran.json();
    assert_eq!(json["ok"], false);
    let error = json["error"].as_str().unwrap();
    assert!(ran.stderr.contains(error), "{ran:?}");
    let keys = place.run("auditor", &["keys", "--json"]).expect(0).json();
    assert_eq!(keys["origin_vkey"], Value::Null);
    let key = keys["node_key"].as_str().unwrap();
    assert!(ran.stderr.contains(key), "{ran:?}");
    let ran = place.run("auditor", &["keys"]).expect(0);
    assert_eq!(ran.text(), format!("node key    {key}\n"));
    let server = place.serve("s", &[key]);
    from(&server.address).expect(0);
    // The key of another origin.
    place.run("o", &["init"]).expect(0);
    let (other, _) = place.keys("o");
    let audit = [
        "audit", "--peer", &node, "--origin", &other, "--json", "--from",
    ];
    let ran = place.run("auditor", &[&audit[..], &[&server.address]].concat());
    let ran = ran.refuses(1, "");
    assert_eq!(ran.json()["ok"], false);
    assert!(ran.stderr.contains("Is --origin the key"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("Pull"), "{}", ran.stderr);
}

#[test]
fn what_is_wrong_beside_the_log_is_said() {
    let pair = Pair::new();
    let place = &pair.place;
    let all = |name: &str| {
        let stats = place.run(name, &["stats", "--json"]).expect(0).json();
        let audit = place.run(name, &["audit", "--json"]).expect(0).json();
        for field in ["fork", "frozen", "head_note"] {
            assert_eq!(stats[field], audit[field], "{name}: {field}");
        }
        let stats_text = place.run(name, &["stats"]).expect(0);
        let audit_text = place.run(name, &["audit"]).expect(0);
        (
            audit,
            stats_text.text().to_owned(),
            audit_text.text().to_owned(),
        )
    };
    let (sound, ..) = all("s");
    assert_eq!(sound["fork"], Value::Null);
    assert_eq!(sound["frozen"], Value::Null);
    assert_eq!(sound["head_note"], true);
    copy_dir(&place.path("s"), &place.path("frozen"));
    copy_dir(&place.path("s"), &place.path("other"));
    append(place, "s", "packages", "one");
    append(place, "other", "packages", "another");
    let server = pair.serve("s");
    pair.pull(&server).expect(0);
    drop(server);
    let server = pair.serve("other");
    pair.pull(&server).refuses(1, "");
    drop(server);
    let (forked, stats, audit) = all("m");
    assert_eq!(forked["fork"]["resolved"], false);
    let verdict = forked["fork"]["verdict"].as_str().unwrap();
    assert!(verdict.contains("signed two histories"), "{verdict}");
    assert!(
        stats.contains("fork: ") && audit.contains("fork: "),
        "{stats}{audit}"
    );

    let mirror = place.serve("m", &[&pair.node]);
    let guard = format!("{}@{}", pair.mirror_node, mirror.address);
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    let guarded = [&["--guard", &guard], &one[..]].concat();
    place.run("frozen", &guarded).refuses(4, "frozen");
    let (frozen, stats, audit) = all("frozen");
    assert!(
        frozen["frozen"].as_str().unwrap().contains("frozen"),
        "{frozen}"
    );
    let said = "the store is frozen";
    assert!(
        stats.contains(said) && audit.contains(said),
        "{stats}{audit}"
    );

    remove(place, "s/head.note");
    let (lost, stats, audit) = all("s");
    assert_eq!(lost["head_note"], false);
    let said = "head.note is missing";
    assert!(
        stats.contains(said) && audit.contains(said),
        "{stats}{audit}"
    );
}

#[test]
fn outputs_are_named_and_a_dash_is_stdout() {
    let place = Place::new();
    place.with_sample("s");
    let snapshot = ["snapshot", "--context", "packages"];
    let plain = place.run("s", &snapshot).expect(0);
    let dash = place
        .run("s", &[&snapshot[..], &["-o", "-"]].concat())
        .expect(0);
    assert!(plain.stdout == dash.stdout);
    let plain = place.run("s", &proof_of("7")).expect(0);
    let dash = place
        .run("s", &[&proof_of("7")[..], &["-o", "-"]].concat())
        .expect(0);
    assert!(plain.stdout == dash.stdout);
    let head = place.run("s", &["head"]).expect(0).stdout;
    append(&place, "s", "packages", "more");
    let stdin = ["prove", "--consistency", "-"];
    place.run_in("s", &stdin, &head).expect(0);

    // As on a disk that is full; the index may not be written either.
    let file = place.path("out.snapshot");
    let file = file.to_str().unwrap();
    let arguments = [&snapshot[..], &["-o", file]].concat();
    let ran = sh(
        "trap '' XFSZ; ulimit -f 8; exec \"$@\"",
        &place,
        "s",
        &arguments,
    );
    let ran = ran.refuses(3, "could not write the archive");
    let error = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap();
    assert!(error.starts_with(&format!("error: {file}: ")), "{error}");
    // A reader that went away is no error.
    let ran = sh("\"$@\" | head -c 10 > /dev/null", &place, "s", &snapshot);
    assert_eq!(ran.stderr, "");
}

#[test]
fn sequences_and_roots_are_read_as_they_are_written() {
    let place = Place::new();
    place.with_sample("s");
    place
        .run("s", &proof_of("0"))
        .refuses(2, "sequences begin at 1");
    let ran = place.run("s", &proof_of("2001"));
    let ran = ran.refuses(3, "covers 2000 entries of the context, not entry 2001");
    assert!(!ran.stderr.contains("closed"), "{}", ran.stderr);
    // Not an argument's fault: there is no fork.
    let root = "AB".repeat(32);
    place
        .run("s", &["resolve", "--branch", &root])
        .refuses(3, "no evidence");

    let (origin, _) = place.keys("s");
    let proof = place.run("s", &proof_of("7")).expect(0).text().to_owned();
    let verify = |bytes: &[u8]| {
        let mut verify = command();
        verify.args(["verify", "-", "--origin", &origin]);
        run_with(verify, bytes)
    };
    verify(proof.as_bytes()).expect(0);
    verify(proof.replace('\n', "\r\n").as_bytes()).refuses(2, "line endings");
    verify(format!("\u{feff}{proof}").as_bytes()).refuses(2, "byte order mark");
}

#[test]
fn names_are_printed_so_that_they_can_be_seen() {
    let place = Place::new();
    let init = ["init", "--name", "hidden\u{200b}name"];
    let ran = place.run("s", &init).expect(0);
    assert!(ran.text().contains("hidden\\u{200b}name+"), "{ran:?}");
    let ran = place.run("s", &["rotate-key"]).expect(0);
    assert_eq!(
        ran.text().matches("hidden\\u{200b}name+").count(),
        2,
        "{ran:?}"
    );
}

#[test]
fn a_mirror_goes_by_any_key_of_its_chain() {
    let pair = Pair::new();
    let place = &pair.place;
    place.run("s", &["rotate-key"]).expect(0);
    let (new, _) = place.keys("s");
    let server = pair.serve("s");
    pair.pull(&server).expect(0);
    place.pull("m", &server, &pair.node, &new).expect(0);
    place.pull("m", &server, &pair.node, &pair.origin).expect(0);
    place
        .run("o", &["init", "--name", "test.example"])
        .expect(0);
    let (other, _) = place.keys("o");
    let ran = place.pull("m", &server, &pair.node, &other);
    ran.refuses(3, "Give another directory");
}

#[test]
fn guards_come_from_the_environment() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let run = |guard: Option<&str>, require: Option<&str>, arguments: &[&str]| {
        let mut command = place.command("s", arguments);
        if let Some(guard) = guard {
            command.env("CONVERGE_LEDGER_GUARD", guard);
        }
        if let Some(require) = require {
            command.env("CONVERGE_LEDGER_REQUIRE_GUARD", require);
        }
        run_with(command, b"")
    };
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    run(Some(""), Some(""), &one).expect(0);
    for no in ["0", "no", "off", "false", "FALSE"] {
        run(None, Some(no), &one).expect(0);
    }
    for yes in ["1", "yes", "on", "true", "Yes"] {
        run(None, Some(yes), &one).refuses(2, "--require-guard needs a --guard");
    }
    run(None, Some("maybe"), &one).refuses(2, "CONVERGE_LEDGER_REQUIRE_GUARD");
    run(Some("nonsense"), None, &one).refuses(2, "CONVERGE_LEDGER_GUARD");
    // It needs neither store nor mirror.
    let verify = ["verify", "/dev/null", "--origin", "x"];
    let ran = run(Some("nonsense"), Some("maybe"), &verify).expect(2);
    assert!(!ran.stderr.contains("GUARD"), "{}", ran.stderr);

    let (_, node) = place.keys("s");
    for address in [
        "",
        "127.0.0.1",
        "127.0.0.1:",
        ":4433",
        "127.0.0.1:x",
        "h:70000",
    ] {
        let guard = format!("{node}@{address}");
        let ran = place.run("s", &[&["--guard", &guard], &one[..]].concat());
        let ran = ran.expect(2);
        assert!(
            ran.stderr.contains("host:port"),
            "{address}: {}",
            ran.stderr
        );
        run(Some(&guard), None, &one).refuses(2, "host:port");
    }
    // Of several, and with a space; nobody is there.
    let two = format!("{node}@127.0.0.1:9, {node}@[::1]:9");
    let ran = run(Some(&two), None, &one).expect(0);
    assert!(ran.stderr.contains("unguarded"), "{}", ran.stderr);
}

#[test]
fn a_guard_that_refuses_is_told_of() {
    let pair = Pair::new();
    let place = &pair.place;
    let mirror = place.serve("m", &[&"ab".repeat(32)]);
    let guard = format!("{}@{}", pair.mirror_node, mirror.address);
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    let guarded = [&["--guard", &guard], &one[..]].concat();
    let ran = place.run("s", &guarded).expect(0);
    assert!(
        ran.stderr.contains("does it allow this node"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(&pair.node), "{}", ran.stderr);
}

#[test]
fn a_key_is_rotated_so_often() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let help = place.run("s", &["rotate-key", "--help"]).expect(0);
    assert!(help.text().contains("63 times"), "{}", help.text());
    for n in 1..=63 {
        let ran = place.run("s", &["rotate-key"]).expect(0);
        let warned = ran.stderr.contains("can be rotated");
        assert_eq!(warned, n >= 56, "{n}: {}", ran.stderr);
    }
    let before = files(&place.path("s"));
    place
        .run("s", &["rotate-key"])
        .refuses(3, "as often as it may be");
    assert!(files(&place.path("s")).len() == before.len());
    assert!(!place.path("s/origin.key.next").exists());
    let one = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run("s", &one).expect(0);
}
