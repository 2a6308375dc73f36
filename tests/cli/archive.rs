//! `snapshot` and `load`: on directories and through a server.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Place, Server, command, fields, files, run_with};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A store with the sample, an empty one, and a snapshot of the first.
fn places() -> (Place, std::path::PathBuf) {
    let place = Place::new();
    place.with_sample("s");
    place
        .run("t", &["init", "--name", "other.example"])
        .expect(0);
    let file = place.path("packages.snapshot");
    (place, file)
}

fn snapshot(place: &Place, store: &str, context: &str, file: &Path) -> serde_json::Value {
    let file = file.to_str().unwrap();
    let arguments = ["snapshot", "--context", context, "-o", file, "--json"];
    place.run(store, &arguments).expect(0).json()
}

#[test]
fn a_context_goes_from_one_store_into_another() {
    let (place, file) = places();
    let made = snapshot(&place, "s", "packages", &file);
    assert_eq!(fields(&made), ["bytes", "context", "root", "size"]);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(made["bytes"], bytes.len());
    assert_eq!(mode(&file), 0o600);
    // The same on stdout.
    let piped = place.run("s", &["snapshot", "--context", "packages"]);
    assert_eq!(piped.expect(0).stdout, bytes);

    let path = file.to_str().unwrap();
    let loaded = place.run("t", &["load", path, "--json"]).expect(0).json();
    assert_eq!(fields(&loaded), ["context", "restored", "root", "size"]);
    assert_eq!(
        (&loaded["context"], &loaded["restored"], &loaded["root"]),
        (&"packages".into(), &2000.into(), &made["root"])
    );
    let get = ["get", "--context", "packages", "--json"];
    let (from, to) = (place.run("s", &get), place.run("t", &get));
    assert_eq!(from.expect(0).text(), to.expect(0).text());
    // Once more is nothing new; another name is another context.
    let again = place.run("t", &["load", path]).expect(0);
    assert!(
        again
            .text()
            .starts_with("packages: 0 entries restored, 2000 in all")
    );
    place
        .run("t", &["load", path, "--fail-if-exists"])
        .refuses(2, "exists");
    place
        .run(
            "t",
            &["load", path, "--context", "copy", "--fail-if-exists"],
        )
        .expect(0);
    let copy = snapshot(&place, "t", "copy", &place.path("copy.snapshot"));
    assert_eq!(copy["root"], made["root"]);
    place.run("t", &["audit"]).expect(0);
    // Another history under the same name is not mixed in.
    let append = [
        "append",
        "--context",
        "fork",
        "--key",
        "k",
        "--payload",
        "p",
    ];
    place.run("t", &append).expect(0);
    place
        .run("t", &["load", path, "--context", "fork"])
        .refuses(3, "another history");
}

#[test]
fn what_is_not_whole_is_neither_loaded_nor_left() {
    let (place, file) = places();
    snapshot(&place, "s", "packages", &file);
    let good = std::fs::read(&file).unwrap();
    let damaged = place.path("damaged");
    let path = damaged.to_str().unwrap();
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    for (bytes, status, says) in [
        (changed.as_slice(), 1, "does not match"),
        (&good[..good.len() - 1], 1, "cut off"),
        (b"hello\n", 1, "not an archive"),
        (b"", 1, "damaged"),
    ] {
        std::fs::write(&damaged, bytes).unwrap();
        place
            .run("t", &["load", path])
            .refuses(status, says_of(says));
        place
            .run("t", &["load", path, "--context", "c"])
            .expect(status);
    }
    assert_eq!(place.run("t", &["contexts"]).expect(0).text(), "");
    place
        .run("t", &["load", "/does/not/exist"])
        .refuses(3, "/does/not/exist");

    // Nothing is left of a snapshot that did not come about, and what was
    // there stays.
    let out = place.path("out");
    std::fs::create_dir(&out).unwrap();
    let target = out.join("a");
    std::fs::write(&target, "before").unwrap();
    let target = target.to_str().unwrap();
    let arguments = ["snapshot", "--context", "nobody", "-o", target];
    place.run("s", &arguments).refuses(3, "no context");
    let left = files(&out);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].1, b"before");
    place
        .run(
            "s",
            &["snapshot", "--context", "packages", "-o", "/does/not/exist"],
        )
        .refuses(3, "/does/not/exist");
}

/// Empty and short files have several names.
fn says_of(says: &str) -> &str {
    if says == "damaged" { "damaged: " } else { says }
}

#[test]
fn a_server_makes_and_takes_the_same_archives() {
    let (place, file) = places();
    let made = snapshot(&place, "s", "packages", &file);
    let server = Server::start(place.command("s", &["serve", "--grpc", "127.0.0.1:0"]));
    let url = format!("http://{}", server.grpc);
    let run = |arguments: &[&str]| {
        let mut command = command();
        command.args(arguments).args(["--server", &url]);
        run_with(command, b"")
    };
    let through = place.path("through.snapshot");
    let path = through.to_str().unwrap();
    let ran = run(&["snapshot", "--context", "packages", "-o", path, "--json"]);
    assert_eq!(ran.expect(0).json(), made);
    assert_eq!(mode(&through), 0o600);
    assert_eq!(
        std::fs::read(&through).unwrap(),
        std::fs::read(&file).unwrap()
    );

    let loaded = run(&["load", path, "--context", "copy", "--json"]).expect(0);
    let loaded = loaded.json();
    assert_eq!(loaded["restored"], 2000);
    assert_eq!(loaded["root"], made["root"]);
    let again = run(&["load", path, "--context", "copy"]).expect(0);
    assert!(again.text().starts_with("copy: 0 entries restored"));
    run(&["load", path, "--fail-if-exists"]).refuses(2, "ALREADY_EXISTS");
    run(&["load", path, "--allow-future"]).refuses(2, "--data");
    let mut bytes = std::fs::read(&through).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&through, bytes).unwrap();
    run(&["load", path, "--context", "new"]).refuses(1, "does not match");
    run(&["snapshot", "--context", "nobody", "-o", path]).refuses(3, "NOT_FOUND");
    assert_eq!(server.stop("TERM"), 0);
}

#[test]
fn an_archive_that_a_server_does_not_take_is_for_its_directory() {
    let (place, file) = places();
    snapshot(&place, "s", "packages", &file);
    let serve = [
        "serve",
        "--grpc",
        "127.0.0.1:0",
        "--snapshot-bytes-max",
        "65536",
    ];
    let server = Server::start(place.command("s", &serve));
    let url = format!("http://{}", server.grpc);
    let mut load = command();
    load.args(["load", file.to_str().unwrap(), "--server", &url]);
    let ran = run_with(load, b"").refuses(3, "RESOURCE_EXHAUSTED");
    assert!(ran.stderr.contains("load --data DIR"), "{}", ran.stderr);
    let mut make = command();
    make.args(["snapshot", "--context", "packages", "--server", &url]);
    let ran = run_with(make, b"").refuses(3, "RESOURCE_EXHAUSTED");
    assert!(ran.stderr.contains("snapshot --data DIR"), "{}", ran.stderr);
}
