//! Which directories are refused, and what can be done with which.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use crate::support::{Place, copy_dir, files, run_with};

#[test]
fn a_directory_in_use_is_left_alone() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let before = files(&place.path("s"));
    place.run("s", &["init"]).refuses(3, "a store here already");
    let (vkey, _) = place.keys("s");
    place
        .run("s", &["init", "--mirror", &vkey])
        .refuses(3, "already");
    assert_eq!(files(&place.path("s")), before);

    fs::create_dir(place.path("d")).unwrap();
    fs::write(place.path("d").join("thesis.txt"), "years of work").unwrap();
    place
        .run("d", &["init"])
        .refuses(3, "not empty: thesis.txt");
    assert_eq!(files(&place.path("d")).len(), 1);
    // A key that may have signed is never used for a second history.
    fs::create_dir(place.path("k")).unwrap();
    fs::copy(
        place.path("s").join("origin.key"),
        place.path("k").join("origin.key"),
    )
    .unwrap();
    place.run("k", &["init"]).refuses(3, "second history");
}

#[test]
fn without_a_store_nothing_runs() {
    let place = Place::new();
    let commands: [&[&str]; 10] = [
        &["append", "--context", "c", "--key", "k", "--payload", "p"],
        &["get", "--context", "c"],
        &["contexts"],
        &["head"],
        &["keys"],
        &["audit"],
        &["audit", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["rebuild-index"],
    ];
    for arguments in commands {
        place
            .run("s", arguments)
            .refuses(3, "there is no store here");
    }
    place
        .run("s", &["serve", "--listen", "127.0.0.1:0"])
        .expect(3);
    assert!(!place.path("s").exists());
}

#[test]
fn a_mirror_takes_no_entries_and_has_no_head_of_its_own() {
    let place = Place::new();
    place
        .run("s", &["init", "--name", "origin.example"])
        .expect(0);
    let (vkey, _) = place.keys("s");
    place.run("m", &["init", "--mirror", &vkey]).expect(0);
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run("m", &append).refuses(3, "mirrors origin.example");
    place.run("m", &["head"]).refuses(3, "no head yet");
    place
        .run("m", &["get", "--context", "c"])
        .refuses(3, "no context");
    assert_eq!(place.run("m", &["contexts"]).expect(0).text(), "");
    assert_eq!(place.keys("m").0, vkey);
    assert!(!place.path("m").join("origin.key").exists());
}

#[test]
fn keys_are_private_or_refused() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(place.path("s").join(name), Permissions::from_mode(mode)).unwrap();
    };
    for name in ["origin.key", "node.key"] {
        let found = fs::metadata(place.path("s").join(name))
            .unwrap()
            .permissions();
        assert_eq!(found.mode() & 0o777, 0o600);
    }
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    mode("origin.key", 0o644);
    place.run("s", &append).refuses(3, "set it to 600");
    // Reading needs no signing key.
    place.run("s", &["head"]).expect(0);
    mode("origin.key", 0o600);
    place.run("s", &append).expect(0);
    mode("node.key", 0o640);
    place.run("s", &["keys"]).refuses(3, "set it to 600");
    place
        .run("s", &["serve", "--listen", "127.0.0.1:0"])
        .refuses(3, "set it to 600");
}

#[test]
fn another_origins_key_is_refused() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    place.run("o", &["init"]).expect(0);
    fs::copy(
        place.path("o").join("origin.key"),
        place.path("s").join("origin.key"),
    )
    .unwrap();
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place.run("s", &append).refuses(3, "the store belongs to");
}

#[test]
fn a_store_in_use_can_be_read_and_audited_but_not_written() {
    let place = Place::new();
    place.with_sample("s");
    let server = place.serve("s", &[]);
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    place
        .run("s", &append)
        .refuses(3, "in use by another process");
    place
        .run("s", &["serve", "--listen", "127.0.0.1:0"])
        .expect(3);
    let get = ["get", "--context", "packages", "--after", "1999", "--json"];
    assert_eq!(place.run("s", &get).expect(0).json()["sequence"], 2000);
    place.run("s", &["head"]).expect(0);
    place.run("s", &["audit"]).expect(0);
    assert_eq!(server.stop("TERM"), 0);
    place.run("s", &append).expect(0);
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let place = Place::new();
    place.with_sample("s");
    // Nobody's process: root may write whatever the mode says.
    let root = fs::metadata(place.path("s")).unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&root) == 0;
    fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
    if !is_root {
        for name in ["lock", "log", ""] {
            let path = place.path("s").join(name);
            let mode = if path.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }
    let run = |arguments: &[&str]| {
        let mut command = place.command("s", arguments);
        if is_root {
            command.uid(65534).gid(65534);
        }
        command
    };
    if run(&["--version"]).status().is_err() {
        eprintln!("skipped: nobody may run the binary where it lies");
        return;
    }
    let before = files(&place.path("s"));
    let get = ["get", "--context", "packages", "--after", "1999", "--json"];
    assert_eq!(run_with(run(&get), b"").expect(0).json()["sequence"], 2000);
    run_with(run(&["head"]), b"").expect(0);
    run_with(run(&["contexts"]), b"").expect(0);
    let audit = run_with(run(&["audit", "--json"]), b"").expect(0).json();
    assert_eq!(audit["index"], "matches");
    let stats = run_with(run(&["stats", "--json"]), b"").expect(0).json();
    assert_eq!(
        (&stats["in_use"], &stats["entries"]),
        (&false.into(), &2000.into())
    );
    assert_eq!(stats["index"], "good");
    run_with(run(&["rebuild-index"]), b"").expect(3);
    let append = ["append", "--context", "c", "--key", "k", "--payload", "p"];
    run_with(run(&append), b"").expect(3);
    assert_eq!(files(&place.path("s")), before);
    if !is_root {
        fs::set_permissions(place.path("s"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.path("s/log"), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_copy_opens_where_it_lies() {
    let place = Place::new();
    place.with_sample("s");
    copy_dir(&place.path("s"), &place.path("t"));
    assert_eq!(place.size("t", "packages"), 2000);
    assert_eq!(place.keys("s"), place.keys("t"));
}
